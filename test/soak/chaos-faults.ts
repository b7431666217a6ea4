/** What befalls hosts: processes are killed and stopped, links cut, disks filled, nodes leave and come back. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { ask } from "../cluster/world.ts";
import { answerOf } from "./chaos-users.ts";

const processKinds = ["skepd", "manager", "netplane", "launcher", "monitor"] as const;
type ProcessKind = (typeof processKinds)[number];

export const faults = [
  "killDaemon",
  "restartDaemon",
  "killManager",
  "killHelper",
  "killMonitors",
  "killContainer",
  "stop",
  "cut",
  "crash",
  "fillDisk",
  "leave",
] as const;
export type Fault = (typeof faults)[number];

/** A file system of its own, small enough to be filled. */
export function giveDisk(host: Host): void {
  mkdirSync(host.dataRoot, { recursive: true, mode: 0o711 });
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=400m,mode=0711", "tmpfs", host.dataRoot]);
}

const ballast = (host: Host): string => `${host.dataRoot}/ballast`;

/** Processes of a host's node, as the kernel has them now. */
export function processesOf(host: Host): { readonly pid: number; readonly kind: ProcessKind }[] {
  const found: { pid: number; kind: ProcessKind }[] = [];
  for (const name of readdirSync("/proc").filter((each) => /^\d+$/u.test(each))) {
    const pid = Number(name);
    const words = readIfThere(`/proc/${pid}/cmdline`);
    const program = words.split("\0", 1)[0] ?? "";
    if (words.includes(`${host.execRoot}/c/`)) found.push({ pid, kind: "monitor" });
    else if (words.includes(`\0${host.dataRoot}/swarm/raft\0`)) found.push({ pid, kind: "manager" });
    else if (words.includes(`\0--data-root\0${host.dataRoot}\0`) && program.endsWith("node")) {
      found.push({ pid, kind: "skepd" });
      const children = readIfThere(`/proc/${pid}/task/${pid}/children`).trim().split(" ").filter(Boolean).map(Number);
      for (const child of children) {
        const kind = (["netplane", "launcher"] as const).find((each) =>
          readIfThere(`/proc/${child}/cmdline`).includes(each),
        );
        if (kind !== undefined) found.push({ pid: child, kind });
      }
    }
  }
  return found;
}

export class Faults {
  readonly #random: Random;
  readonly #hosts: readonly Host[];
  readonly #struck = new Set<Host>();
  readonly #stopped = new Set<number>();
  readonly #tell: (line: string) => void;
  /** Has the host join again. */
  readonly #rejoin: (host: Host) => Promise<void>;
  readonly counts = new Map<Fault, number>();

  constructor(
    hosts: readonly Host[],
    random: Random,
    tell: (line: string) => void,
    rejoin: (host: Host) => Promise<void>,
  ) {
    this.#hosts = hosts;
    this.#random = random;
    this.#tell = tell;
    this.#rejoin = rejoin;
  }

  /** One fault from its beginning to its end; three hosts at least are left alone at any time. */
  async strike(): Promise<void> {
    const spared = this.#hosts.filter((host) => !this.#struck.has(host));
    if (spared.length <= 3) return;
    const host = this.#random.pick(spared);
    const fault = this.#random.pick(faults);
    this.#struck.add(host);
    this.counts.set(fault, (this.counts.get(fault) ?? 0) + 1);
    this.#tell(`FAULT ${fault} ${host.name}`);
    try {
      await this.#do(fault, host);
    } finally {
      this.#struck.delete(host);
    }
  }

  /** Whatever is still wrong is set right. */
  async heal(): Promise<void> {
    for (const pid of this.#stopped) signal(pid, "SIGCONT");
    for (const host of this.#hosts) {
      host.setLink(true);
      rmSync(ballast(host), { force: true });
      // As systemd would.
      if (host.pid === undefined) host.start();
    }
    for (const host of this.#hosts) await host.answers();
  }

  async #do(fault: Fault, host: Host): Promise<void> {
    const random = this.#random;
    switch (fault) {
      case "killDaemon":
      case "crash":
        await (fault === "crash" ? host.crash() : host.kill());
        await wait(random.int(0, 5000));
        return this.#start(host);
      case "restartDaemon":
        await host.kill("SIGTERM");
        return this.#start(host);
      case "killManager":
        return this.#kill(host, ["manager"]);
      case "killHelper":
        return this.#kill(host, [random.pick(["netplane", "launcher"] as const)]);
      case "killMonitors":
        return this.#kill(host, ["monitor"]);
      case "killContainer": {
        const pids = host.containerProcesses("");
        if (pids.length > 0) signal(random.pick(pids), "SIGKILL");
        return;
      }
      case "stop": {
        const all = processesOf(host);
        if (all.length === 0) return;
        const { pid } = random.pick(all);
        signal(pid, "SIGSTOP");
        this.#stopped.add(pid);
        await wait(random.int(200, 9000));
        signal(pid, "SIGCONT");
        this.#stopped.delete(pid);
        return;
      }
      case "cut":
        host.setLink(false);
        await wait(random.int(300, 14_000));
        host.setLink(true);
        return;
      case "fillDisk":
        // Never more than the small file system holds.
        spawnSync("dd", ["if=/dev/zero", `of=${ballast(host)}`, "bs=4k", "count=120000"]);
        await wait(random.int(500, 8000));
        rmSync(ballast(host), { force: true });
        return;
      case "leave": {
        const info = await answerOf(() => ask<{ Swarm: { ControlAvailable: boolean } }>(host, "GET", "/info"));
        if (info?.status !== 200 || info.body.Swarm.ControlAvailable) return;
        const left = await answerOf(() => ask(host, "POST", "/swarm/leave?force=1"));
        if (left?.status === 200) await this.#rejoin(host);
        return;
      }
    }
  }

  #kill(host: Host, wanted: readonly ProcessKind[]): void {
    for (const { pid, kind } of processesOf(host)) if (wanted.includes(kind)) signal(pid, "SIGKILL");
  }

  /** On a disk that is full it ends at once, and is started when all heals. */
  async #start(host: Host): Promise<void> {
    host.start();
    await host.answers(15_000).catch(() => undefined);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended in the meantime.
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
