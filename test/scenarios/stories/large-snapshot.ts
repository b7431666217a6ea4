/**
 * G9: a member joins over a slow link and needs a snapshot of so many megabytes, while clients go on writing. Arguments:
 * megabytes, clients, megabits a second of the link, election timeout in milliseconds.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

import { managersMethods } from "../../../manager/managers-service.ts";
import { Counters } from "../../support/counters.ts";
import { ManagerCluster, type ManagerProcess } from "../../support/manager-process.ts";
import { makeHosts, tell, tool } from "../../support/story.ts";

const megabytes = Number(process.argv[2]);
const clients = Number(process.argv[3]);
const [megabits = "", electionMs = ""] = process.argv.slice(4);
const hosts = makeHosts(4);
const valueBytes = 8 * 1024;
const perEntry = 100;
/** Entries that stay in the log behind a snapshot: with fewer the newcomer would be served from the log. */
const trailingEntries = 5200;

/** A busy machine that is filled may change its leader, or drop a connection. */
const passing = new Set(["NOT_LEADER", "OUTCOME_UNKNOWN", "RPC_UNAVAILABLE", "BACKPRESSURE"]);
/** What the leader does when it thinks that it had better not lead, and why. */
const notable = new Set(["stalled", "diskStalled", "steppingAside", "the event loop is late", "leadership"]);

const cluster = await ManagerCluster.start({
  managers: 3,
  args: ["--election-ms", electionMs, "--metrics", "127.0.0.1:0"],
  place: (number) => ({ listen: `10.77.0.${number}:2377`, wrapper: ["ip", "netns", "exec", hosts[number - 1]!] }),
});

const residentBytes = ({ child }: ManagerProcess): number =>
  Number(readFileSync(`/proc/${child.pid}/statm`, "utf8").split(" ")[1]) * 4096;

/** Round trips of the leader's heartbeats to the other voters, in milliseconds, as its metrics tell. */
function roundTrips(leader: ManagerProcess): number[] {
  // They are served on the loopback of its own host.
  const get = `exec 3<>/dev/tcp/127.0.0.1/${leader.metricsPort}; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3`;
  let text = "";
  try {
    text = tool("ip", "netns", "exec", hosts[leader.options.memberId - 1]!, "timeout", "2", "bash", "-c", get);
  } catch {
    // A busy machine does not answer in time: one sample less.
  }
  const found = text.matchAll(/^skep_raft_peer_round_trip_seconds\{peer="([123])"\} (\S+)$/gmu);
  return [...found].map(([, , seconds]) => Number(seconds) * 1000);
}

try {
  for (let at = 0; at * perEntry * valueBytes < megabytes * 1e6; at++) {
    const steps = Array.from({ length: perEntry }, (_, step) => ({
      put: { key: `object-${at}-${step}`, value: randomBytes(valueBytes) },
    }));
    for (;;) {
      const { failure } = await cluster.keys(await cluster.leader()).ask({ txn: { steps } });
      if (!failure) break;
      if (!passing.has(failure.code ?? "")) throw new Error(`${failure.code}: ${failure.message}`);
    }
  }
  const leader = await cluster.leader();
  const keys = cluster.keys(leader);
  for (let left = trailingEntries; left > 0; left -= 200) {
    const puts = Array.from({ length: 200 }, (_, at) =>
      keys.ask({ put: { key: `small-${at}`, value: Buffer.from("x") } }),
    );
    await Promise.all(puts);
  }
  const call = { timeoutMs: 60_000, signal: AbortSignal.timeout(60_000) };
  const lines = leader.lines.length;
  await cluster.channel(leader).call(managersMethods.snapshot, {}, call);
  await leader.logged("its snapshot", ({ message }) => message === "snapshotCreated", lines, 120_000);
  const counters = new Counters(cluster, clients);
  await counters.progress(20 * clients);
  const { term } = await cluster.status(leader);
  const writesBefore = counters.total;
  // A follower takes the same writes and sends no snapshot: what only the leader grows by is the transfer's.
  const follower = cluster.running.find((one) => one !== leader)!;
  const before = { leader: residentBytes(leader), follower: residentBytes(follower) };
  const most = { ...before };
  const trips: number[] = [];
  const startMs = performance.now();
  tool(
    "tc",
    "qdisc",
    "add",
    "dev",
    "to-h4",
    "root",
    "tbf",
    "rate",
    `${megabits}mbit`,
    "burst",
    "256k",
    "latency",
    "400ms",
  );
  const joined = new AbortController();
  const watching = (async (): Promise<void> => {
    while (!joined.signal.aborted) {
      most.leader = Math.max(most.leader, residentBytes(leader));
      most.follower = Math.max(most.follower, residentBytes(follower));
      trips.push(...roundTrips(leader));
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  })();
  const newcomer = await cluster.add(4);
  await newcomer.logged("the snapshot", ({ message }) => message === "snapshotInstalled", 0, 600_000);
  const transferMs = performance.now() - startMs;
  await cluster.untilVoters(4);
  joined.abort();
  await watching;
  const writes = counters.total - writesBefore;
  const failures = await counters.stop();
  const after = await cluster.status(leader);
  const key = `object-${Math.ceil((megabytes * 1e6) / (perEntry * valueBytes)) - 1}-${perEntry - 1}`;
  const found = await cluster.get(newcomer, key);
  trips.sort((a, b) => a - b);
  tell({
    megabytes,
    transferMs,
    writesPerSecond: (writes / transferMs) * 1000,
    sameLeader: after.role === "leader" && Number(after.term) === Number(term),
    roundTripMs: { p50: trips[Math.floor(trips.length / 2)], p99: trips[Math.floor(trips.length * 0.99)] },
    leaderGrewMegabytes: (most.leader - before.leader) / 1e6,
    followerGrewMegabytes: (most.follower - before.follower) / 1e6,
    newcomerMegabytes: residentBytes(newcomer) / 1e6,
    followerMegabytes: residentBytes(cluster.running.find((one) => one !== leader && one !== newcomer)!) / 1e6,
    hasLastObject: found !== undefined,
    failures,
    notices: cluster.running.map(({ options, lines }) => {
      const told = lines.filter(({ message }) => notable.has(message)).map(({ message }) => message);
      return {
        member: options.memberId,
        told: Object.fromEntries([...notable].map((what) => [what, told.filter((one) => one === what).length])),
      };
    }),
  });
} finally {
  await cluster[Symbol.asyncDispose]();
}
