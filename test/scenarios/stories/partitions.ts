/** O3: managers on hosts of their own; links are cut in one direction and in both, without a word to either end. */
import { ManagerCluster, type ManagerProcess } from "../../support/manager-process.ts";
import { Counters } from "../../support/counters.ts";
import { dropFrom, heal, makeHosts, tell } from "../../support/story.ts";

/** With the default a busy machine would depose a leader whom nobody cut off. */
const electionMs = 2000;
const hosts = makeHosts(3);
const address = (manager: ManagerProcess): string => `10.77.0.${manager.options.memberId}`;
const host = (manager: ManagerProcess): string => `h${manager.options.memberId}`;

const cluster = await ManagerCluster.start({
  managers: 3,
  args: ["--election-ms", String(electionMs)],
  place: (number) => ({ listen: `10.77.0.${number}:2377`, wrapper: ["ip", "netns", "exec", hosts[number - 1]!] }),
});
try {
  const counters = new Counters(cluster, 4);
  await counters.progress(8);

  // Both directions: the leader hears nobody and nobody hears it. Nothing closes: the links only swallow packets.
  const first = await cluster.leader();
  const others = cluster.running.filter((manager) => manager !== first);
  let from = first.lines.length;
  const cutMs = performance.now();
  dropFrom(host(first), others.map(address));
  for (const other of others) dropFrom(host(other), [address(first)]);
  await first.logged("it steps down", ({ message, role }) => message === "leadership" && role === "follower", from);
  const stepDownMs = performance.now() - cutMs;
  const second = await cluster.leader();
  const { failure: stale } = await cluster.keys(first).ask({ get: { key: "counter-0" } });
  await counters.progress(8);
  for (const manager of [first, ...others]) heal(host(manager));
  await first.logged(
    "it follows",
    ({ message, leader }) => message === "leadership" && leader === second.options.memberId,
    from,
  );

  // One direction: the followers hear the leader, and it does not hear them.
  const lines = new Map(cluster.running.map((manager) => [manager, manager.lines.length]));
  from = second.lines.length;
  dropFrom(host(second), cluster.running.filter((manager) => manager !== second).map(address));
  await second.logged("it steps down", ({ message, role }) => message === "leadership" && role !== "leader", from);
  await Promise.any(
    cluster.running
      .filter((manager) => manager !== second)
      .map((manager) =>
        manager.logged(
          "it leads",
          ({ message, ready }) => message === "leadership" && ready === true,
          lines.get(manager),
        ),
      ),
  );
  await counters.progress(8);
  heal(host(second));
  const third = await cluster.leader();
  // Before that it asks for votes already, and would not say so once more.
  await second.logged(
    "it follows",
    ({ message, leader }) => message === "leadership" && leader === third.options.memberId,
    from,
  );

  // One follower is deaf: it hears nobody, while the others hear it. It must not depose the leader.
  const deaf = cluster.running.find((manager) => manager !== third)!;
  const { term } = await cluster.status(third);
  dropFrom(host(deaf), cluster.running.filter((manager) => manager !== deaf).map(address));
  from = deaf.lines.length;
  await deaf.logged(
    "it asks for votes",
    ({ message, role }) => message === "leadership" && role === "preCandidate",
    from,
  );
  await counters.progress(30);
  const after = await cluster.status(third);
  heal(host(deaf));
  await counters.progress(8);
  tell({
    stepDownMs,
    staleRefused: stale?.code ?? "",
    termGrew: Number(after.term) - Number(term),
    failures: await counters.stop(),
  });
} finally {
  await cluster[Symbol.asyncDispose]();
}
