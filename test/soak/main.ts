/**
 * O4: `node test/soak/main.ts --minutes 60`: three managers under load while one fault after the other is drawn by chance:
 * kill -9, SIGSTOP, hand-over, snapshot, restart of all. At the end nothing acknowledged may be missing or doubled, and
 * memory and open files must not have grown. Prints a line a fault, ends with 1 on a finding.
 */
import { readFileSync, readdirSync } from "node:fs";
import { parseArgs } from "node:util";

import { Random } from "../../lib/pure/prng.ts";
import { managersMethods } from "../../manager/managers-service.ts";
import { Counters } from "../support/counters.ts";
import { ManagerCluster, type ManagerProcess } from "../support/manager-process.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 1e9) },
    clients: { type: "string", default: "16" },
  },
});
const untilMs = performance.now() + Number(values.minutes) * 60_000;
const random = new Random(Number(values.seed));
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const faults = ["kill", "killLeader", "stop", "stopLeader", "transfer", "snapshot", "killAll"] as const;

console.log(`soak: seed ${values.seed}, ${values.minutes} minutes`);
const cluster = await ManagerCluster.start({ managers: 3, args: ["--election-ms", "1000"] });
try {
  const counters = new Counters(cluster, Number(values.clients));
  const resources: { rssMegabytes: number; files: number }[] = [];
  while (performance.now() < untilMs) {
    const fault = random.pick(faults);
    const before = counters.total;
    await strike(fault);
    await cluster.untilVoters(3);
    await counters.progress(Number(values.clients));
    await pause(random.int(1000, 20_000));
    const oldest = cluster.running[0]!;
    resources.push(usedBy(oldest));
    console.log(
      `${fault}: ${counters.total - before} writes since, ${counters.total} in all, ${JSON.stringify(resources.at(-1))}`,
    );
  }
  const failures = await counters.stop();
  const files = resources.map((used) => used.files);
  const early = Math.max(...files.slice(0, Math.ceil(files.length / 4)));
  const late = Math.min(...files.slice(-Math.ceil(files.length / 4)));
  if (late > early + 20) failures.push(`open files grew from ${early} to ${late}`);
  for (const failure of failures) console.log(`FOUND ${failure}`);
  console.log(`soak: ${counters.total} writes, ${counters.repeated} answered again, ${failures.length} findings`);
  process.exitCode = failures.length === 0 ? 0 : 1;
} finally {
  await cluster[Symbol.asyncDispose]();
}

async function strike(fault: (typeof faults)[number]): Promise<void> {
  const leader = await cluster.leader();
  const any = random.pick(cluster.running);
  const call = { timeoutMs: 20_000, signal: AbortSignal.timeout(20_000) };
  switch (fault) {
    case "kill":
    case "killLeader": {
      const victim = fault === "kill" ? any : leader;
      await victim.kill();
      await cluster.restart(victim);
      break;
    }
    case "stop":
    case "stopLeader": {
      const victim = fault === "stop" ? any : leader;
      victim.signal("SIGSTOP");
      await pause(random.int(200, 5000));
      victim.signal("SIGCONT");
      break;
    }
    case "transfer":
      // Refused if leadership has moved meanwhile: that is as good.
      await cluster
        .channel(leader)
        .call(managersMethods.transfer, {}, call)
        .catch(() => undefined);
      break;
    case "snapshot":
      await cluster
        .channel(any)
        .call(managersMethods.snapshot, {}, call)
        .catch(() => undefined);
      break;
    case "killAll": {
      const all: ManagerProcess[] = [...cluster.managers];
      await Promise.all(all.map((manager) => manager.kill()));
      await Promise.all(all.map((manager) => cluster.restart(manager)));
    }
  }
}

function usedBy(manager: ManagerProcess): { rssMegabytes: number; files: number } {
  const pages = Number(readFileSync(`/proc/${manager.child.pid}/statm`, "utf8").split(" ")[1]);
  return { rssMegabytes: Math.round((pages * 4096) / 1e6), files: readdirSync(`/proc/${manager.child.pid}/fd`).length };
}
