/**
 * P1 to P11: our three managers beside three members of etcd, on loopback, both with mutual TLS, in the same run and in
 * turns, so that a busy machine slows both. A figure with a peer is the median of the rounds' ratios.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { readFileSync } from "node:fs";

import { skep } from "../../proto/index.ts";
import { ManagerCluster, type ManagerProcess } from "../support/manager-process.ts";
import { Etcd, etcdPut, etcdPutPath } from "./etcd.ts";
import { LeanClient } from "./lean-client.ts";
import type { Failed } from "./bench-manager.ts";
import type { Done, Order } from "./loaded-manager.ts";
import { median, quantile, type BenchOptions, type Report } from "./report.ts";

const value = Buffer.alloc(1024, 7);
const entry = join(import.meta.dirname, "loaded-manager.ts");

interface Run {
  readonly options: BenchOptions;
  readonly report: Report;
  readonly folder: string;
  wants(id: string): boolean;
  /** A duration that is short when only the way is tried. */
  seconds(full: number): number;
}

export async function run(options: BenchOptions, report: Report): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "skep-bench-"));
  const it: Run = {
    options,
    report,
    folder,
    wants: (id) => options.only.size === 0 || options.only.has(id),
    seconds: (full) => (options.quick ? Math.min(1, full) : full),
  };
  try {
    await besideEtcd(it);
    if (it.wants("P6")) await killedLeader(it);
    if (it.wants("P7")) await stoppedLeader(it);
    if (it.wants("P8")) await steadyLeader(it);
    if (it.wants("P10")) await restarted(it);
    if (it.wants("P11")) await idleWithTasks(it);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// ---- Beside etcd: P1 to P5, P9 -------------------------------------------------------------------------------------------

async function besideEtcd(it: Run): Promise<void> {
  const { report, options } = it;
  if (!["P1", "P2", "P3", "P4a", "P4b", "P5", "P9"].some((id) => it.wants(id))) return;
  const samples = new Map<string, { ours: number[]; peer: number[] }>();
  const note = (name: string, ours: number, peer?: number): void => {
    const found = samples.get(name) ?? { ours: [], peer: [] };
    samples.set(name, found);
    found.ours.push(ours);
    if (peer !== undefined) found.peer.push(peer);
    report.note(`${name}: ours ${ours.toFixed(2)}${peer === undefined ? "" : `, peer ${peer.toFixed(2)}`}`);
  };
  const etcd = await Etcd.start(join(it.folder, "etcd"));
  const cluster = await ManagerCluster.start({ managers: 3, entry, ipc: true, folder: join(it.folder, "skep") });
  try {
    for (let round = 0; round < options.rounds; round++) {
      report.note(`round ${round + 1} of ${options.rounds}`);
      const leader = await cluster.leader();
      const follower = cluster.running.find((manager) => manager !== leader)!;
      // Each side is measured alone, the other one stands idle: ours, then the peer, in turns.
      if (it.wants("P1")) {
        const ours = await order(leader, { kind: "propose", proposers: 256, ms: it.seconds(10) * 1000, bytes: 1024 });
        const perSecond = (ours.count / ours.ms) * 1000;
        note("P1", perSecond, options.quick ? undefined : etcd.checkPerf("l"));
      }
      if (it.wants("P2")) note("P2", await streamRate(cluster, leader, 500, it.seconds(8)));
      if (it.wants("P3")) {
        const ours = await unaryRate(await ourClient(leader), ourPut, 64, it.seconds(6));
        const peer = await unaryRate(await etcd.client(etcd.leader()), peerPut, 64, it.seconds(6));
        note("P3", ours, peer);
      }
      if (it.wants("P4a") || it.wants("P4b")) {
        const peer = await sequential(unary(await etcd.client(etcd.leader()), peerPut), it.seconds(5));
        if (it.wants("P4a")) {
          const ours = await sequential(stream(cluster, leader), it.seconds(5));
          note("P4a p50", ours.p50Ms, peer.p50Ms);
          note("P4a p99", ours.p99Ms, peer.p99Ms);
        }
        if (it.wants("P4b")) {
          const ours = await sequential(unary(await ourClient(leader), ourPut), it.seconds(5));
          note("P4b p50", ours.p50Ms, peer.p50Ms);
          note("P4b p99", ours.p99Ms, peer.p99Ms);
        }
      }
      if (it.wants("P5")) {
        note(
          "P5",
          (await order(leader, { kind: "propose", proposers: 1, ms: it.seconds(5) * 1000, bytes: 1024 })).p50Ms,
        );
      }
      if (it.wants("P9")) {
        const read = async (manager: ManagerProcess): Promise<number> => {
          const done = await order(manager, { kind: "read", readers: 64, ms: it.seconds(4) * 1000 });
          return (done.count / done.ms) * 1000;
        };
        note("P9 leader", await read(leader));
        note("P9 follower", await read(follower));
      }
    }
  } finally {
    await cluster[Symbol.asyncDispose]();
    await etcd.stop();
  }
  const add = (
    name: string,
    about: string,
    unit: string,
    gate: string,
    pass: (ours: number, ratio: number) => boolean,
  ): void => {
    const found = samples.get(name);
    if (found === undefined) return;
    const ratios = found.ours.flatMap((ours, at) => (found.peer[at] === undefined ? [] : [ours / found.peer[at]]));
    const ours = median(found.ours);
    const ratio = ratios.length > 0 ? median(ratios) : undefined;
    const peer = found.peer.length > 0 ? median(found.peer) : undefined;
    report.add({ name: `${name} ${about}`, unit, ours, peer, ratio, gate, pass: pass(ours, ratio ?? Number.NaN) });
  };
  add(
    "P1",
    "committed 1 KB, 256 proposers in process",
    "entries/s",
    ">= 18000 and >= 5x",
    (ours, ratio) => ours >= 18_000 && !(ratio < 5),
  );
  add("P2", "the same on a client stream, 500 at once", "entries/s", ">= 9000", (ours) => ours >= 9000);
  add("P3", "unary calls, 64 at once", "entries/s", ">= 0.8x", (_, ratio) => ratio >= 0.8);
  add("P4a p50", "one after the other on a stream", "ms", "<= 1.0x", (_, ratio) => ratio <= 1);
  add("P4a p99", "one after the other on a stream", "ms", "<= 2x", (_, ratio) => ratio <= 2);
  add("P4b p50", "one after the other, unary", "ms", "<= 1.25x", (_, ratio) => ratio <= 1.25);
  add("P4b p99", "one after the other, unary", "ms", "<= 2x", (_, ratio) => ratio <= 2);
  add("P5", "one after the other in process, p50", "ms", "<= 1.0", (ours) => ours <= 1);
  add("P9 leader", "linearizable reads, 64 at once in process", "reads/s", ">= 50000", (ours) => ours >= 50_000);
  add("P9 follower", "linearizable reads, 64 at once in process", "reads/s", ">= 50000", (ours) => ours >= 50_000);
}

type Put = (key: string) => { path: string; message: Uint8Array };

const ourPut: Put = (key) => ({
  path: "/skep.control.Kv/Put",
  message: skep.control.KvRequest.encode({ put: { key, value } }).finish(),
});
const peerPut: Put = (key) => ({ path: etcdPutPath, message: etcdPut(key, value) });

async function ourClient(manager: ManagerProcess): Promise<LeanClient> {
  const { cert, key, ca } = manager.options.files;
  const read = (file: string): Buffer => readFileSync(file);
  // Both certificates are checked by the server; the client takes the address for granted, as etcd's does by its IP name.
  const tls = { ca: read(ca), cert: read(cert), key: read(key), checkServerIdentity: () => undefined };
  return await LeanClient.open(`https://${manager.address}`, tls);
}

/** @returns committed a second */
async function unaryRate(client: LeanClient, put: Put, concurrency: number, seconds: number): Promise<number> {
  const untilMs = performance.now() + seconds * 1000;
  const startMs = performance.now();
  let count = 0;
  const caller = async (number: number): Promise<void> => {
    while (performance.now() < untilMs) {
      const { path, message } = put(`key-${number}`);
      await client.call(path, message);
      count++;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, (_, number) => caller(number)));
  const rate = (count / (performance.now() - startMs)) * 1000;
  await client.close();
  return rate;
}

async function streamRate(
  cluster: ManagerCluster,
  leader: ManagerProcess,
  concurrency: number,
  seconds: number,
): Promise<number> {
  const client = cluster.keys(leader);
  const untilMs = performance.now() + seconds * 1000;
  const startMs = performance.now();
  let count = 0;
  await Promise.all(
    Array.from(
      { length: concurrency },
      (_, number) =>
        new Promise<void>((resolve) => {
          const next = (): void => {
            if (performance.now() >= untilMs) {
              resolve();
              return;
            }
            client.send({ put: { key: `stream-${number}`, value } }, ({ failure }) => {
              if (!failure) count++;
              next();
            });
          };
          next();
        }),
    ),
  );
  return (count / (performance.now() - startMs)) * 1000;
}

function unary(client: LeanClient, put: Put): { ask: () => Promise<unknown>; close: () => Promise<void> } {
  return {
    ask: () => {
      const { path, message } = put("sequential");
      return client.call(path, message);
    },
    close: () => client.close(),
  };
}

function stream(
  cluster: ManagerCluster,
  leader: ManagerProcess,
): { ask: () => Promise<unknown>; close: () => Promise<void> } {
  const client = cluster.keys(leader);
  return {
    ask: () => client.ask({ put: { key: "sequential", value } }),
    close: () => Promise.resolve(),
  };
}

async function sequential(
  caller: { ask: () => Promise<unknown>; close: () => Promise<void> },
  seconds: number,
): Promise<{ p50Ms: number; p99Ms: number }> {
  const latencies: number[] = [];
  const untilMs = performance.now() + seconds * 1000;
  for (let count = 0; performance.now() < untilMs; count++) {
    const startMs = performance.now();
    await caller.ask();
    // The first ones pay for compilation on both sides.
    if (count >= 50) latencies.push(performance.now() - startMs);
  }
  await caller.close();
  return { p50Ms: quantile(latencies, 0.5), p99Ms: quantile(latencies, 0.99) };
}

// ---- Failover: P6, P7 ------------------------------------------------------------------------------------------------------

/** Milliseconds from the signal to the leader until the others commit, for each trial. */
async function endLeaders(it: Run, id: "P6" | "P7", signal: "SIGKILL" | "SIGTERM"): Promise<number[]> {
  const trials = it.options.quick ? 3 : 20;
  const cluster = await ManagerCluster.start({ managers: 3, folder: join(it.folder, id) });
  const times: number[] = [];
  try {
    for (let trial = 0; trial < trials; trial++) {
      const leader = await cluster.leader();
      const others = cluster.running.filter((manager) => manager !== leader);
      await untilCommitted(cluster, others, `warm-${trial}`);
      const startMs = performance.now();
      leader.signal(signal);
      await untilCommitted(cluster, others, `trial-${trial}`);
      times.push(performance.now() - startMs);
      it.report.note(`${id}: trial ${trial + 1}: ${times.at(-1)!.toFixed(0)} ms`);
      await leader.exited();
      await cluster.restart(leader);
      await cluster.untilVoters(3);
      // A cluster that has settled is what fails in practice, not one whose member has started half a second ago.
      await new Promise((resolve) => setTimeout(resolve, it.seconds(2) * 1000));
    }
  } finally {
    await cluster[Symbol.asyncDispose]();
  }
  return times;
}

async function killedLeader(it: Run): Promise<void> {
  const times = await endLeaders(it, "P6", "SIGKILL");
  const p50 = median(times);
  const max = Math.max(...times);
  const peer = undefined;
  it.report.add({
    name: "P6 kill -9 of the leader to the next commit, median",
    unit: "ms",
    ours: p50,
    peer,
    ratio: undefined,
    gate: "<= 600",
    pass: p50 <= 600,
  });
  it.report.add({
    name: `P6 the same, worst of ${times.length}`,
    unit: "ms",
    ours: max,
    peer,
    ratio: undefined,
    gate: "<= 1200",
    pass: max <= 1200,
  });
}

async function stoppedLeader(it: Run): Promise<void> {
  const times = await endLeaders(it, "P7", "SIGTERM");
  const p99 = quantile(times, 0.99);
  it.report.add({
    name: "P7 stop of the leader to the next commit, p99",
    unit: "ms",
    ours: p99,
    peer: undefined,
    ratio: undefined,
    gate: "<= 150",
    pass: p99 <= 150,
  });
}

/** Asks the survivors in turn until one of them has committed a write: what a client that retries would see. */
async function untilCommitted(
  cluster: ManagerCluster,
  managers: readonly ManagerProcess[],
  key: string,
): Promise<void> {
  const untilMs = performance.now() + 20_000;
  for (let attempt = 0; ; attempt++) {
    const manager = managers[attempt % managers.length]!;
    const { failure } = await withTimeout(cluster.keys(manager).ask({ put: { key, value } }), 500);
    if (!failure) return;
    if (performance.now() > untilMs) {
      const states = managers.map(
        (each) => `${each.options.name} ${each.running ? "runs" : "has ended"}: ${each.tail()}`,
      );
      throw new Error(`nothing was committed: ${failure.code} ${failure.message}\n${states.join("\n")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function withTimeout(asked: Promise<skep.control.IKvResponse>, ms: number): Promise<skep.control.IKvResponse> {
  return Promise.race([
    asked,
    new Promise<skep.control.IKvResponse>((resolve) =>
      setTimeout(() => resolve({ failure: { code: "TIMEOUT", message: `no answer in ${ms} ms` } }), ms).unref(),
    ),
  ]);
}

// ---- A leader that stays: P8 -----------------------------------------------------------------------------------------------

async function steadyLeader(it: Run): Promise<void> {
  const cluster = await ManagerCluster.start({ managers: 3, entry, ipc: true, folder: join(it.folder, "steady") });
  try {
    const leader = await cluster.leader();
    const changes = async (what: string, act: () => Promise<unknown>): Promise<void> => {
      const terms = (): number => Math.max(...cluster.running.map((manager) => lastTerm(manager)));
      const before = terms();
      await act();
      const count = terms() - before;
      it.report.add({
        name: `P8 leader changes: ${what}`,
        unit: "changes",
        ours: count,
        peer: undefined,
        ratio: undefined,
        gate: "0",
        pass: count === 0,
      });
    };
    await changes("load of P1", () =>
      order(leader, { kind: "propose", proposers: 256, ms: it.seconds(60) * 1000, bytes: 1024 }),
    );
    const tasks = it.options.quick ? 2000 : 100_000;
    await order(leader, { kind: "tasks", count: tasks });
    await changes(`snapshot of ${tasks} tasks`, () => order(leader, { kind: "snapshot" }));
    const megabytes = it.options.quick ? 10 : 500;
    await changes(`snapshot of ${megabytes} MB to a new manager`, async () => {
      await order(leader, { kind: "fill", megabytes });
      await order(leader, { kind: "snapshot" });
      await cluster.add(4);
      await cluster.untilVoters(4);
    });
  } finally {
    await cluster[Symbol.asyncDispose]();
  }
}

function lastTerm(manager: ManagerProcess): number {
  return Number(manager.lines.findLast(({ message }) => message === "leadership")?.["term"] ?? 0);
}

// ---- Restart and rest: P10, P11 ----------------------------------------------------------------------------------------------

async function restarted(it: Run): Promise<void> {
  const cluster = await ManagerCluster.start({ managers: 1, entry, ipc: true, folder: join(it.folder, "restarted") });
  try {
    const [manager] = cluster.managers as [ManagerProcess];
    await cluster.leader();
    await order(manager, { kind: "fill", megabytes: it.options.quick ? 5 : 100 });
    await order(manager, { kind: "snapshot" });
    await order(manager, { kind: "fill", megabytes: it.options.quick ? 3 : 60 });
    manager.signal("SIGKILL");
    await manager.exited();
    const startMs = performance.now();
    await cluster.restart(manager);
    await cluster.leader();
    const seconds = (performance.now() - startMs) / 1000;
    it.report.add({
      name: "P10 restart with 64 MB of log and 100 MB of snapshot",
      unit: "s",
      ours: seconds,
      peer: undefined,
      ratio: undefined,
      gate: "<= 5",
      pass: seconds <= 5,
    });
  } finally {
    await cluster[Symbol.asyncDispose]();
  }
}

async function idleWithTasks(it: Run): Promise<void> {
  const cluster = await ManagerCluster.start({
    managers: 3,
    entry,
    ipc: true,
    folder: join(it.folder, "idle"),
    // Memory and rest do not depend on it, and on a busy machine the leader stays.
    args: ["--election-ms", "3000"],
    nodeArgs: ["--expose-gc"],
  });
  try {
    const leader = await cluster.leader();
    const tasks = it.options.quick ? 2000 : 100_000;
    await order(leader, { kind: "tasks", count: tasks });
    const { rssBytes } = await order(leader, { kind: "memory" });
    const megabytes = rssBytes / 1e6;
    it.report.add({
      name: `P11 resident memory of a manager with ${tasks} tasks`,
      unit: "MB",
      ours: megabytes,
      peer: undefined,
      ratio: undefined,
      gate: "<= 600",
      pass: megabytes <= 600,
    });
    const cpu = (): number => cpuTicks(leader.child.pid!);
    // What so many tasks leave to do, a snapshot above all, is no rest.
    await new Promise((resolve) => setTimeout(resolve, it.seconds(30) * 1000));
    const before = cpu();
    const restMs = it.seconds(20) * 1000;
    await new Promise((resolve) => setTimeout(resolve, restMs));
    // proc_pid_stat(5) counts in ticks of 10 ms.
    const percent = ((cpu() - before) * 10 * 100) / restMs;
    it.report.add({
      name: "P11 processor of an idle leader",
      unit: "% of a core",
      ours: percent,
      peer: undefined,
      ratio: undefined,
      gate: "<= 2",
      pass: percent <= 2,
    });
  } finally {
    await cluster[Symbol.asyncDispose]();
  }
}

function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** What the process does on itself; one order at a time. */
function order(manager: ManagerProcess, what: Order): Promise<Done> {
  return new Promise((resolve, reject) => {
    const { child } = manager;
    const onExit = (): void => reject(new Error(`${manager.options.name} ended: ${manager.tail()}`));
    child.once("exit", onExit);
    child.once("message", (done: Done & Partial<Failed>) => {
      child.off("exit", onExit);
      if (done.failed === undefined) resolve(done);
      else reject(new Error(`${manager.options.name}: ${done.failed}`));
    });
    child.send(what);
  });
}
