/** K10: one manager's disk fills up and empties again, as follower and as leader. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { managersMethods } from "../../../manager/managers-service.ts";
import { ManagerCluster, type ManagerProcess } from "../../support/manager-process.ts";
import { tell, tool } from "../../support/story.ts";

tool("ip", "link", "set", "lo", "up");
const small = "/run/skep-small";
mkdirSync(small, { recursive: true });
// Above the mark at which a disk counts as nearly full, by a little.
tool("mount", "-t", "tmpfs", "-o", "size=420m", "tmpfs", small);

const cluster = await ManagerCluster.start({
  managers: 3,
  // A leader that others keep from its heartbeats for a second is to lead on: each of two hundred writes counts.
  args: ["--election-ms", "4000"],
  place: (number) => (number === 3 ? { dataDir: join(small, "data") } : {}),
});
const filler = join(small, "filler");
const fill = (megabytes: number): void => {
  const chunk = Buffer.alloc(1 << 20);
  for (let count = 0; count < megabytes; count++) {
    try {
      writeFileSync(filler, chunk, { flag: "a" });
    } catch {
      return; // as full as it gets
    }
  }
};
try {
  const tight = cluster.managers[2] as ManagerProcess;
  const isSpace = (space: string) => (line: { message: string; [fact: string]: unknown }) =>
    line.message === "space on the disk of the log" && line["space"] === space;
  const transferTo = async (to: number): Promise<void> => {
    const leader = await cluster.leader();
    if (leader.options.memberId === to) return;
    const from = cluster.managers.map(({ lines }) => lines.length);
    const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
    await cluster.channel(leader).call(managersMethods.transfer, { to }, call);
    const target = cluster.managers.find(({ options }) => options.memberId === to)!;
    await target.logged(
      "it leads",
      ({ message, ready }) => message === "leadership" && ready === true,
      from[cluster.managers.indexOf(target)],
    );
  };

  // A follower runs full: the others go on without it, and it catches up when there is room again.
  await transferTo(1);
  fill(1000);
  await tight.logged("its disk is full or nearly so", (line) => isSpace("full")(line) || isSpace("low")(line));
  let committed = 0;
  const value = "x".repeat(64 * 1024);
  for (let count = 0; count < 200; count++) {
    const { failure } = await cluster.put(cluster.managers[0]!, `while-full-${count}`, value);
    if (!failure) committed++;
  }
  let from = tight.lines.length;
  rmSync(filler);
  await tight.logged("room again", isSpace("ok"), Math.max(0, from - 1));
  const stillRuns = tight.running;
  const caughtUp = (await cluster.get(tight, "while-full-199")) === value;

  // The leader runs low: it takes no more, hands over, and the cluster goes on.
  await transferTo(3);
  from = tight.lines.length;
  fill(250);
  await tight.logged("its disk is nearly full", isSpace("low"), from);
  await tight.logged("it hands over", ({ message, role }) => message === "leadership" && role === "follower", from);
  const next = await cluster.leader();
  const { failure } = await cluster.put(next, "after", "1");
  rmSync(filler);
  await tight.logged("room again", isSpace("ok"), from);
  tell({ committed, stillRuns, caughtUp, leaderMoved: next !== tight, after: failure?.code ?? "done" });
} finally {
  await cluster[Symbol.asyncDispose]();
}
