/**
 * O4: `npm run soak -- --minutes 60`: three managers under load while one fault after the other is drawn by chance. Anybody
 * gets kill -9, SIGSTOP, hand-over, snapshot and restart of all; root gets cut links (O3), failing fdatasync (K8), a full
 * disk (K10) and power cuts (K12) as well, in namespaces of its own. At the end nothing acknowledged may be missing or
 * doubled, and the memory and open files of a manager that lived through the second half must not have grown. Prints a line
 * a fault, ends with 1 on a finding.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { Random } from "../../lib/pure/prng.ts";
import { managersMethods } from "../../manager/managers-service.ts";
import { Counters } from "../support/counters.ts";
import { amount, readFlags, wholeNumber, type Program } from "../support/flags.ts";
import { ManagerCluster, type ManagerProcess } from "../support/manager-process.ts";
import { dropFrom, heal, makeHosts, tool } from "../support/story.ts";

const soak: Program = {
  name: "soak",
  usage: `usage: npm run soak -- [--minutes M] [--seed S] [--clients N]

  --minutes M   how long; 60 unless said
  --seed S      of the faults; drawn, and printed, unless said
  --clients N   that write; 16 unless said`,
};
const values = readFlags(soak, {
  minutes: { type: "string", default: "60" },
  seed: { type: "string", default: String(Date.now() % 1e9) },
  clients: { type: "string", default: "16" },
});
amount(soak, "minutes", values.minutes);
wholeNumber(soak, "seed", values.seed);
wholeNumber(soak, "clients", values.clients, 1);

/** The first process of a process namespace: whatever it breaks is gone with it. */
const isApart = process.pid === 1;
if (process.getuid?.() === 0 && !isApart) {
  const apart = [
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child=SIGKILL",
    "--propagation",
    "private",
  ];
  const self = [import.meta.filename, "--minutes", values.minutes, "--seed", values.seed, "--clients", values.clients];
  process.exit(spawnSync("unshare", [...apart, process.execPath, ...self], { stdio: "inherit" }).status ?? 1);
}

const plainFaults = ["kill", "killLeader", "stop", "stopLeader", "transfer", "snapshot", "killAll"] as const;
const rootFaults = ["cutLeader", "cutFollower", "deafen", "failSync", "fillDisk", "powerCut"] as const;
type Fault = (typeof plainFaults)[number] | (typeof rootFaults)[number];
/** These end the witness, so they are for the first half only. */
const endsAll = new Set<Fault>(["killAll", "powerCut"]);

const startMs = performance.now();
const lengthMs = Number(values.minutes) * 60_000;
const random = new Random(Number(values.seed));
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const call = (): { timeoutMs: number; signal: AbortSignal } => ({
  timeoutMs: 20_000,
  signal: AbortSignal.timeout(20_000),
});

// ---- The world

const work = "/run/skep-soak";
const disk = join(work, "disk");
let image = join(work, "disk-0.img");
let cuts = 0;
let place: (number: number) => object = () => ({});
const syncFails = (number: number): string => join(work, `sync-${number}-fails`);
const hostOf = (manager: ManagerProcess): string => `h${manager.options.memberId}`;
const addressOf = (manager: ManagerProcess): string => `10.77.0.${manager.options.memberId}`;

if (isApart) {
  mkdirSync(work, { recursive: true });
  tool("mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", work);
  mkdirSync(disk);
  tool("truncate", "-s", "1200M", image);
  tool("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image);
  tool("mount", "-o", "loop", image, disk);
  const library = join(work, "fail-sync.so");
  const source = join(import.meta.dirname, "../support/fail-sync.c");
  execFileSync("gcc", ["-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]);
  const hosts = makeHosts(3);
  place = (number) => ({
    listen: `10.77.0.${number}:2377`,
    wrapper: ["ip", "netns", "exec", hosts[number - 1]!],
    env: { LD_PRELOAD: library, FAIL_SYNC_WHEN: syncFails(number) },
  });
}

console.log(
  `soak: seed ${values.seed}, ${values.minutes} minutes${isApart ? "" : ", without the faults that need root"}`,
);
const cluster = await ManagerCluster.start({
  managers: 3,
  args: ["--election-ms", "1000"],
  place,
  ...(isApart ? { folder: disk } : {}),
});
/** Lives through the second half: what it holds then must not grow. */
const witness = 3;
try {
  const counters = new Counters(cluster, Number(values.clients));
  const resources: Used[] = [];
  const struck = new Map<Fault, number>();
  while (performance.now() - startMs < lengthMs) {
    const isSecondHalf = performance.now() - startMs > lengthMs / 2;
    const faults: Fault[] = [...plainFaults, ...(isApart ? rootFaults : [])].filter(
      (f) => !isSecondHalf || !endsAll.has(f),
    );
    const fault = random.pick(faults);
    struck.set(fault, (struck.get(fault) ?? 0) + 1);
    const before = counters.total;
    await strike(fault, isSecondHalf);
    await cluster.untilVoters(3);
    await counters.progress(Number(values.clients));
    await pause(random.int(1000, 20_000));
    for (const manager of cluster.managers.filter(({ running }) => !running)) {
      throw new Error(
        `${manager.options.name} ended by itself with ${await manager.exited()} after ${fault}: ${manager.tail()}`,
      );
    }
    if (isSecondHalf) resources.push(usedBy(cluster.managers[witness - 1]!));
    console.log(
      `${((performance.now() - startMs) / 60_000).toFixed(1)} min, ${fault}: ${counters.total - before} writes since, ` +
        `${counters.total} in all ${JSON.stringify(resources.at(-1) ?? {})}`,
    );
  }
  const failures = await counters.stop();
  failures.push(...grown(resources));
  for (const failure of failures) console.log(`FOUND ${failure}`);
  console.log(`faults: ${JSON.stringify(Object.fromEntries(struck))}`);
  console.log(`soak: ${counters.total} writes, ${counters.repeated} answered again, ${failures.length} findings`);
  process.exitCode = failures.length === 0 ? 0 : 1;
} finally {
  await cluster[Symbol.asyncDispose]();
}

// ---- What goes wrong

async function strike(fault: Fault, sparesWitness: boolean): Promise<void> {
  const leader = await cluster.leader();
  const any = random.pick(cluster.running);
  const mortal = (manager: ManagerProcess): ManagerProcess =>
    sparesWitness && manager.options.memberId === witness ? cluster.managers[random.int(0, 2)]! : manager;
  const others = (one: ManagerProcess): ManagerProcess[] => cluster.running.filter((manager) => manager !== one);
  switch (fault) {
    case "kill":
    case "killLeader": {
      const victim = mortal(fault === "kill" ? any : leader);
      await victim.kill();
      await cluster.restart(victim);
      return;
    }
    case "stop":
    case "stopLeader": {
      const victim = fault === "stop" ? any : leader;
      victim.signal("SIGSTOP");
      await pause(random.int(200, 5000));
      victim.signal("SIGCONT");
      return;
    }
    case "transfer":
      // Refused if leadership has moved meanwhile: that is as good.
      await cluster
        .channel(leader)
        .call(managersMethods.transfer, {}, call())
        .catch(() => undefined);
      return;
    case "snapshot":
      await cluster
        .channel(any)
        .call(managersMethods.snapshot, {}, call())
        .catch(() => undefined);
      return;
    case "killAll": {
      const all = [...cluster.managers];
      await Promise.all(all.map((manager) => manager.kill()));
      await Promise.all(all.map((manager) => cluster.restart(manager)));
      return;
    }
    case "cutLeader":
    case "cutFollower": {
      const victim = fault === "cutLeader" ? leader : random.pick(others(leader));
      dropFrom(hostOf(victim), others(victim).map(addressOf));
      for (const other of others(victim)) dropFrom(hostOf(other), [addressOf(victim)]);
      await pause(random.int(500, 8000));
      for (const manager of cluster.running) heal(hostOf(manager));
      return;
    }
    case "deafen":
      dropFrom(hostOf(any), others(any).map(addressOf));
      await pause(random.int(500, 8000));
      heal(hostOf(any));
      return;
    case "failSync": {
      const victim = mortal(any);
      const { memberId } = victim.options;
      writeFileSync(syncFails(memberId), "");
      // It has something to write as soon as anybody does.
      const code = await victim.exited(60_000);
      if (code !== 70) throw new Error(`a manager whose fdatasync failed ended with ${code}: ${victim.tail()}`);
      rmSync(syncFails(memberId));
      await cluster.restart(victim);
      return;
    }
    case "fillDisk": {
      const filler = join(disk, "filler");
      const chunk = Buffer.alloc(1 << 20);
      try {
        for (;;) writeFileSync(filler, chunk, { flag: "a" });
      } catch {
        // As full as it gets: nobody can write, and nobody may end for it.
      }
      await pause(random.int(500, 4000));
      rmSync(filler);
      return;
    }
    case "powerCut": {
      const all = [...cluster.managers];
      for (const manager of all) manager.signal("SIGSTOP");
      // Stopped processes write nothing: a copy of the image is the disk after the cut.
      const cut = join(work, `disk-${++cuts}.img`);
      cpSync(image, cut);
      await Promise.all(all.map((manager) => manager.kill()));
      tool("umount", disk);
      rmSync(image);
      image = cut;
      tool("mount", "-o", "loop", image, disk);
      await Promise.all(all.map((manager) => cluster.restart(manager)));
    }
  }
}

// ---- What it costs

interface Used {
  readonly atMinutes: number;
  readonly residentMegabytes: number;
  readonly files: number;
}

function usedBy(manager: ManagerProcess): Used {
  const pid = manager.child.pid;
  const pages = Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
  return {
    atMinutes: (performance.now() - startMs) / 60_000,
    residentMegabytes: Math.round((pages * 4096) / 1e6),
    files: readdirSync(`/proc/${pid}/fd`).length,
  };
}

/** Between the first and the last quarter of what was seen; what a heap breathes is not growth. */
function grown(resources: readonly Used[]): string[] {
  const quarter = Math.floor(resources.length / 4);
  if (quarter < 3) return [];
  const most = (list: readonly Used[], of: (used: Used) => number): number => Math.max(...list.map(of));
  const early = resources.slice(0, quarter);
  const late = resources.slice(-quarter);
  const hours = (late.at(-1)!.atMinutes - early[0]!.atMinutes) / 60;
  const memory = most(late, (used) => used.residentMegabytes) - most(early, (used) => used.residentMegabytes);
  const files = most(late, (used) => used.files) - most(early, (used) => used.files);
  const found: string[] = [];
  // The log in memory grows by itself until the next snapshot: less than twenty minutes tell nothing.
  if (hours > 1 / 3 && memory > 40 + hours) found.push(`memory grew by ${memory} MB in ${hours.toFixed(2)} h`);
  if (files > 20) found.push(`open files grew by ${files}`);
  return found;
}
