/**
 * What a node costs while nothing happens, beside dockerd with its containerd in a swarm of two; and how long a command
 * takes to start.
 *
 *   I1  a worker: memory and processor of its daemon
 *   I2  a manager that works, too: of daemon and manager
 *   I3  a manager with 100,000 tasks: memory
 *   I4  start of the command line, beside the docker command
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { median, type BenchOptions, type Report } from "./report.ts";
import { order, withManagers } from "./managers.ts";
import type { Placed } from "./placing-names.ts";
import { buildAll, DockerSwarm, form, SkepSwarm, type Swarm } from "./swarms.ts";

export async function run(options: BenchOptions, report: Report): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error("bench idle needs root: hosts are network namespaces");
  const wants = (id: string): boolean => options.only.size === 0 || options.only.has(id);
  if (["I1", "I2", "I4"].some(wants)) {
    buildAll();
    const opened: Swarm[] = [];
    try {
      opened.push(await SkepSwarm.open("skepbo", 2));
      if (DockerSwarm.hindrance === undefined) opened.push(await DockerSwarm.open("skepbd", 2));
      for (const swarm of opened) await form(swarm, 1, [], 5);
      const [ours, peer] = opened as [Swarm, Swarm | undefined];
      if (wants("I1") || wants("I2")) await atRest(options, wants, ours, peer, report);
      if (wants("I4")) startOfCommands(options, ours, peer, report);
    } finally {
      for (const swarm of opened) await swarm.close();
    }
  }
  if (wants("I3")) await manyTasks(options, report);
}

// ---- I1, I2 ------------------------------------------------------------------------------------------------------------------

async function atRest(
  { quick }: BenchOptions,
  wants: (id: string) => boolean,
  ours: Swarm,
  peer: Swarm | undefined,
  report: Report,
): Promise<void> {
  // What a start allocates is collected, and heartbeats have found their pace.
  await wait(quick ? 3000 : 60_000);
  const seconds = quick ? 5 : 30;
  const roles = [
    { id: "I1", what: "a worker", at: 1, most: 90 },
    { id: "I2", what: "a worker and manager", at: 0, most: 160 },
  ];
  for (const { id, what, at, most } of roles.filter((role) => wants(role.id))) {
    const hosts = [ours, peer].map((swarm) =>
      swarm === undefined ? undefined : { swarm, host: swarm.hosts[at] as Host },
    );
    const [mine, other] = hosts.map((it) => (it === undefined ? undefined : memoryOf(it.swarm.processes(it.host))));
    const megabytes = mine?.once ?? Number.NaN;
    const figure = { name: `${id} memory of ${what}, each page once`, unit: "MB", ours: megabytes };
    report.add({ ...figure, ...beside(megabytes, other?.once), gate: `<= ${most}`, pass: quick || megabytes <= most });
    const resident = { name: `${id} the same, resident of each process added`, unit: "MB", ours: mine?.resident ?? 0 };
    report.add({ ...resident, ...beside(resident.ours, other?.resident), gate: "-", pass: true });
    const before = hosts.map((it) => (it === undefined ? 0 : ticksOf(it.swarm.processes(it.host))));
    await wait(seconds * 1000);
    const [own = 0, its = 0] = hosts.map((it, n) =>
      it === undefined ? 0 : (ticksOf(it.swarm.processes(it.host)) - before[n]!) / seconds,
    );
    // Ticks of /proc/PID/stat are hundredths of a second, so this many in a second are percent.
    const percent = { name: `${id} processor of ${what} at rest`, unit: "% of a core", ours: own };
    report.add({
      ...percent,
      ...beside(own, peer === undefined ? undefined : its),
      gate: "<= 2",
      pass: quick || own <= 2,
    });
  }
}

function beside(ours: number, peer: number | undefined): { peer: number | undefined; ratio: number | undefined } {
  return { peer, ratio: peer === undefined ? undefined : ours / peer };
}

/** In MB. A page that several of the processes share counts once: theirs alone, and the largest shared part. */
function memoryOf(pids: readonly number[]): { readonly once: number; readonly resident: number } {
  let own = 0;
  let shared = 0;
  let resident = 0;
  for (const pid of pids) {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    const sum = (lines: RegExp): number =>
      Array.from(text.matchAll(lines), (match) => Number(match[1]) * 1024).reduce((total, bytes) => total + bytes, 0);
    own += sum(/^Private_(?:Clean|Dirty): +(\d+) kB$/gmu);
    shared = Math.max(shared, sum(/^Shared_(?:Clean|Dirty): +(\d+) kB$/gmu));
    resident += sum(/^Rss: +(\d+) kB$/gmu);
  }
  return { once: (own + shared) / 1e6, resident: resident / 1e6 };
}

/** User and system time of all threads. */
function ticksOf(pids: readonly number[]): number {
  return pids
    .map((pid) => {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(fields[11]) + Number(fields[12]);
    })
    .reduce((sum, ticks) => sum + ticks, 0);
}

// ---- I3 ----------------------------------------------------------------------------------------------------------------------

async function manyTasks({ quick }: BenchOptions, report: Report): Promise<void> {
  const [nodes, services, replicas] = quick ? [50, 2, 1000] : [1000, 100, 1000];
  // Memory does not depend on it, and on a busy machine the leader stays.
  const args = ["--election-ms", "3000"];
  await withManagers({ args, nodeArgs: ["--expose-gc"] }, async (leader) => {
    await order(leader, { kind: "nodes", nodes, ready: true }, report);
    const limitMs = 300_000;
    await order<Placed>(leader, { kind: "place", services, replicas, until: "assigned", limitMs }, report);
    const { rssBytes } = await order<{ rssBytes: number }>(leader, { kind: "memory" }, report);
    const megabytes = rssBytes / 1e6;
    report.add({
      name: `I3 resident memory of a leader with its loops and ${services * replicas} tasks`,
      unit: "MB",
      ours: megabytes,
      peer: undefined,
      ratio: undefined,
      gate: "<= 600",
      pass: megabytes <= 600,
    });
  });
}

// ---- I4 ----------------------------------------------------------------------------------------------------------------------

function startOfCommands({ rounds, quick }: BenchOptions, ours: Swarm, peer: Swarm | undefined, report: Report): void {
  for (const [what, words] of [
    ["--version", ["--version"]],
    ["node ls, answered", ["node", "ls"]],
  ] as const) {
    const times = new Map<Swarm, number[]>();
    // The first one fills the compile cache.
    for (let time = 0; time <= (quick ? 3 : 10 * rounds); time++)
      for (const swarm of peer === undefined ? [ours] : [ours, peer]) {
        const [host] = swarm.hosts as [Host];
        const ms = timeOf([...swarm.commandLine(host), ...words]);
        if (time > 0) times.set(swarm, [...(times.get(swarm) ?? []), ms]);
      }
    const own = median(times.get(ours) ?? []);
    const other = peer === undefined ? undefined : median(times.get(peer) ?? []);
    const figure = { name: `I4 skep ${what}`, unit: "ms", ours: own };
    report.add({ ...figure, ...beside(own, other), gate: "<= 100", pass: quick || own <= 100 });
  }
}

function timeOf([program = "", ...args]: readonly string[]): number {
  const startMs = performance.now();
  const { status, stderr } = spawnSync(program, args, { stdio: ["ignore", "ignore", "pipe"], encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr}`);
  return performance.now() - startMs;
}
