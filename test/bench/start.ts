/**
 * Container start: isolate beside runc and crun on the same bundle (namespaces, cgroups with limits, Docker's default
 * seccomp profile), alternating, 30 rounds three times; exec into a running container likewise. Then where isolate's own
 * time goes, phase by phase (`--timings`), to hold beside the kernel's floor in docs/design/isolate.md.
 *
 *   S1  run of a no-op, as the agent does it: from the one sealed memfd that it made at its start
 *   S2  run of a no-op from the file on disk: the program copies itself into a memfd first
 *   S3  exec of a no-op in a running container, from the sealed memfd
 *   S4  create + start + delete
 *   S5  200 containers of one worker started at once, and what their monitors cost while they run
 *   S6  output of a container through its monitor into the log
 *   S7  what the monitor adds to a start
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Launcher } from "../../worker/containers/launcher.ts";
import { defaultSeccomp } from "../../worker/containers/core/seccomp.ts";
import {
  bareUnifiedTree,
  defaultConfig,
  groupDirectories,
  isolatePath,
  type Json,
  peers,
} from "../conformance/oci/harness.ts";
import { logRate, manyAtOnce } from "./worker-start.ts";
import { type BenchOptions, median, type Report } from "./report.ts";

const perRound = 30;

interface Contestant {
  readonly name: string;
  readonly path: string;
}

function makeBundle(folder: string, change: (config: Json) => void): string {
  const rootfs = join(folder, "rootfs");
  mkdirSync(rootfs, { recursive: true });
  for (const name of ["bin", "dev", "proc", "sys", "tmp", "etc"]) mkdirSync(join(rootfs, name));
  copyFileSync("/bin/busybox", join(folder, "busybox"));
  linkSync(join(folder, "busybox"), join(rootfs, "bin/busybox"));
  for (const name of ["true", "sleep"]) symlinkSync("busybox", join(rootfs, "bin", name));
  const config = defaultConfig();
  config.linux.seccomp = defaultSeccomp(config.process.capabilities.bounding, process.arch);
  config.linux.resources.memory = { limit: 512 << 20 };
  config.linux.resources.cpu = { shares: 512, quota: 150000, period: 100000 };
  config.linux.resources.pids = { limit: 512 };
  config.linux.maskedPaths = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
  ];
  config.linux.readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
  change(config);
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  return folder;
}

/** Idle time before each run, as between two containers of a node: runtimes that wait for the kernel's grace periods show it. */
const gapUs = 20_000;

/** Takes turns, so that a slow second of the machine hurts all alike. Answers the medians in ms. */
function alternate(times: number, programs: ReadonlyMap<string, readonly string[]>): Map<string, number> {
  const native = join(import.meta.dirname, "../../native");
  const args = [String(times), String(gapUs), ...[...programs.values()].flatMap((program) => ["--", ...program])];
  const errors = join(tmpdir(), `bench-start-errors-${process.pid}`);
  // To a file: a container would keep a pipe open.
  const fd = openSync(errors, "w+");
  try {
    const done = spawnSync(join(native, "build/alternate"), args, { stdio: ["ignore", "pipe", fd] });
    if (done.status !== 0) throw new Error(`the runs failed: ${readFileSync(errors, "utf8")}`);
    const rows = done.stdout
      .toString()
      .trim()
      .split("\n")
      .map((line) => line.split(" ").map(Number));
    return new Map([...programs.keys()].map((name, at) => [name, median(rows.map((row) => (row[at] ?? 0) / 1000))]));
  } finally {
    closeSync(fd);
    rmSync(errors, { force: true });
  }
}

/** One program that must succeed, outside of the measurement. */
function call(path: string, args: readonly string[]): void {
  const done = spawnSync(path, args, { stdio: "ignore" });
  if (done.status !== 0) throw new Error(`${path} ${args.join(" ")} failed`);
}

export async function run(options: BenchOptions, report: Report): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error("bench start needs root");
  call("/usr/bin/make", [
    "-s",
    "-C",
    join(import.meta.dirname, "../../native"),
    "all",
    "faults",
    "build/alternate",
    "build/added",
  ]);
  const folder = mkdtempSync(join(tmpdir(), "bench-start-"));
  const launcher = await Launcher.open(isolatePath, {});
  const bare = await bareUnifiedTree();
  const runc = peers.find((peer) => peer.name === "runc")!;
  const crun = peers.find((peer) => peer.name === "crun")!;
  const present: readonly Contestant[] = [runc, crun].filter((peer) => existsSync(peer.path));
  const memory: Contestant = { name: "isolate", path: launcher.path };
  const disk: Contestant = { name: "isolate from disk", path: isolatePath };
  const times = options.quick ? 5 : perRound;
  const wants = (id: string): boolean => options.only.size === 0 || options.only.has(id);
  const state = (name: string): string => join(folder, `state-${name.replaceAll(" ", "-")}`);
  // A node's parent group is there before its first container.
  const parents = groupDirectories("isolate");
  for (const path of parents) mkdirSync(path, { recursive: true });
  try {
    const bundle = makeBundle(join(folder, "bundle"), () => {});
    const root = (who: Contestant): readonly string[] => ["--root", state(who.name)];
    const runOnce = (who: Contestant): readonly string[] => [who.path, ...root(who), "run", "--bundle", bundle, "b%d"];
    const lifeOnce = (who: Contestant): readonly string[] => {
      const start = `${who.path} ${root(who).join(" ")}`;
      return [
        "/bin/busybox",
        "sh",
        "-c",
        `i=b%d; ${start} create --bundle ${bundle} $i && ${start} start $i && ${start} delete --force $i`,
      ];
    };
    const runs = new Series();
    const lives = new Series();
    for (let round = 1; round <= options.rounds; round++) {
      report.note(`start: round ${round} of ${options.rounds}`);
      if (wants("S1") || wants("S2"))
        runs.add(alternate(times, new Map([memory, disk, ...present].map((who) => [who.name, runOnce(who)]))));
      if (wants("S4"))
        lives.add(alternate(times, new Map([memory, ...present].map((who) => [who.name, lifeOnce(who)]))));
    }
    runs.tell(report, "S1 run of a no-op", memory.name, { crun: 0.35, runc: 0.2 });
    runs.tell(report, "S2 run of a no-op, isolate from disk", disk.name, {});
    lives.tell(report, "S4 create, start, delete", memory.name, {});
    if (wants("S3")) await benchExec(folder, [memory, ...present], times, options.rounds, report);
    if (wants("S7")) added(launcher.path, bundle, folder, options.quick ? 5 : 3 * perRound, report);
    if (wants("S5")) await manyAtOnce(options.quick ? 20 : 200, report);
    if (wants("S6")) await logRate(options.quick ? 50_000_000 : 1_000_000_000, options.rounds, report);
    if (wants("S1")) phases(launcher.path, bundle, state("timings"), report);
  } finally {
    await launcher[Symbol.asyncDispose]();
    for (const path of parents) {
      try {
        rmdirSync(path);
      } catch {
        // Other containers stand below it.
      }
    }
    await bare[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function benchExec(
  folder: string,
  all: readonly Contestant[],
  times: number,
  rounds: number,
  report: Report,
): Promise<void> {
  const bundle = makeBundle(join(folder, "long"), (config) => (config.process.args = ["/bin/sleep", "1000"]));
  const root = (who: Contestant): readonly string[] => ["--root", join(folder, `exec-${who.name}`)];
  try {
    for (const who of all) call(who.path, [...root(who), "run", "--detach", "--bundle", bundle, `long-${who.name}`]);
    const series = new Series();
    const programs = new Map(
      all.map((who) => [who.name, [who.path, ...root(who), "exec", `long-${who.name}`, "/bin/true"]]),
    );
    for (let round = 1; round <= rounds; round++) series.add(alternate(times, programs));
    series.tell(report, "S3 exec of a no-op", "isolate", { crun: 0.2 });
  } finally {
    for (const who of all) spawnSync(who.path, [...root(who), "delete", "--force", `long-${who.name}`]);
  }
}

/** Medians of each round, to be told as one line for each peer. */
class Series {
  readonly #rounds: Map<string, number>[] = [];

  add(medians: Map<string, number>): void {
    this.#rounds.push(medians);
  }

  tell(report: Report, name: string, own: string, gates: Readonly<Record<string, number>>): void {
    for (const peer of this.#rounds[0]?.keys() ?? []) {
      if (peer.startsWith("isolate")) continue;
      const of = (who: string): number[] => this.#rounds.map((round) => round.get(who) ?? Number.NaN);
      const ratio = median(
        this.#rounds.map((round) => (round.get(own) ?? Number.NaN) / (round.get(peer) ?? Number.NaN)),
      );
      const gate = gates[peer];
      report.add({
        name: `${name}, beside ${peer}`,
        unit: "ms",
        ours: median(of(own)),
        peer: median(of(peer)),
        ratio,
        gate: gate === undefined ? "-" : `<= ${gate}x`,
        pass: gate === undefined || ratio <= gate,
      });
    }
  }
}

/** S7: the same container with `create` and `start` of the runtime, and through a monitor, in turn. */
function added(isolate: string, bundle: string, folder: string, times: number, report: Report): void {
  const states = join(folder, "monitored");
  mkdirSync(states);
  const program = join(import.meta.dirname, "../../native/build/added");
  const args = [isolate, join(folder, "state-added"), bundle, states, String(times), String(gapUs)];
  const done = spawnSync(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  if (done.status !== 0) throw new Error("starting through a monitor failed");
  const rows = done.stdout
    .toString()
    .trim()
    .split("\n")
    .map((line) => line.split(" ").map((us) => Number(us) / 1000));
  const [directly, monitored] = [0, 1].map((column) => median(rows.map((row) => row[column] ?? Number.NaN)));
  const more = monitored! - directly!;
  report.add({
    name: "S7 start through a monitor, beside create and start of the runtime",
    unit: "ms",
    ours: monitored!,
    peer: directly!,
    ratio: monitored! / directly!,
    gate: "-",
    pass: true,
  });
  const name = "S7 added by the monitor";
  report.add({ name, unit: "ms", ours: more, peer: undefined, ratio: undefined, gate: "<= 0.6", pass: more <= 0.6 });
}

/** Where the time of one run goes: the median of each phase, as isolate itself tells it. */
function phases(path: string, bundle: string, root: string, report: Report): void {
  const seen = new Map<string, number[]>();
  for (let i = 0; i < 15; i++) {
    const done = spawnSync(path, ["--root", root, "--timings", "run", "--bundle", bundle, `t${i}`]);
    for (const line of done.stderr.toString().split("\n")) {
      const match = /^\s*([\d.]+) us {2}(.*)$/.exec(line);
      if (match !== null) seen.set(match[2]!, [...(seen.get(match[2]!) ?? []), Number(match[1])]);
    }
  }
  for (const [phase, us] of seen)
    report.add({
      name: `phase: ${phase}`,
      unit: "us",
      ours: median(us),
      peer: floorUs[phase],
      ratio: floorUs[phase] === undefined ? undefined : median(us) / floorUs[phase],
      gate: "-",
      pass: true,
    });
}

/** What the kernel alone takes for the same work, read on a 2-core virtual machine; it only orients. */
const floorUs: Readonly<Record<string, number>> = {
  "cgroup directories, state": 92,
  limits: 28,
  clone3: 468,
  "cgroup join": 36,
  mounts: 45,
  devices: 46,
  "masked and read-only paths": 63,
  pivot_root: 36,
  "user and capabilities": 16,
};
