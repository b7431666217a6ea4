/**
 * The two contestants of `bench -- service`, each on hosts of its own (network namespaces with an address on a switch):
 * our built daemon, and Debian's dockerd in swarm mode, each with its own defaults. A container that names no network has a
 * way out with both: through gw0 here, through dockerd's bridge there.
 */
import { execFileSync, spawnSync, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

import { build, tearDown, type Host, type Site } from "../../deploy/quickstart/hosts.ts";
import { imageArchive } from "../../deploy/quickstart/image.ts";
import { Engine, until } from "./engine.ts";

const root = join(import.meta.dirname, "../..");

/** What a contestant's swarm is asked to do, besides the API. */
export interface Swarm {
  readonly name: string;
  readonly hosts: readonly Host[];
  engine(host: Host): Engine;
  start(host: Host): Promise<void>;
  /** kill -9 of everything of a host: daemons, monitors, containers. */
  crash(host: Host): Promise<void>;
  /** kill -9 of the daemon's processes; containers go on. */
  killDaemon(host: Host): Promise<void>;
  /** Of the daemons, without containers: who counts as the node's software. */
  processes(host: Host): number[];
  /** Its own, asking this host. */
  commandLine(host: Host): readonly string[];
  close(): Promise<void>;
}

/** One swarm: the first `managers` hosts manage, the others work. `images` are loaded on each. */
export async function form(
  swarm: Swarm,
  managers: number,
  images: readonly Buffer[],
  heartbeatSeconds: number,
): Promise<void> {
  const [first, ...rest] = swarm.hosts as [Host, ...Host[]];
  const leader = swarm.engine(first);
  await leader.done("POST", "/swarm/init", {
    ListenAddr: "0.0.0.0:2377",
    AdvertiseAddr: first.address,
    Spec: { Dispatcher: { HeartbeatPeriod: heartbeatSeconds * 1e9 } },
  });
  const { JoinTokens } = await leader.done<{ JoinTokens: { Worker: string; Manager: string } }>("GET", "/swarm");
  for (const host of rest) {
    await swarm.engine(host).done("POST", "/swarm/join", {
      ListenAddr: "0.0.0.0:2377",
      AdvertiseAddr: host.address,
      RemoteAddrs: [`${first.address}:2377`],
      JoinToken: swarm.hosts.indexOf(host) < managers ? JoinTokens.Manager : JoinTokens.Worker,
    });
  }
  for (const host of swarm.hosts)
    for (const image of images) await swarm.engine(host).done("POST", "/images/load?quiet=1", image);
  await until("all nodes to be ready", async () => {
    const nodes = await leader.nodes();
    return nodes.length === swarm.hosts.length && nodes.every(({ Status }) => Status.State === "ready");
  });
}

/** An image of the machine's busybox; `version` makes it another one. */
export function boxImage(version: string): Promise<Buffer> {
  return imageArchive({
    name: `box:${version}`,
    command: ["/bin/sleep", "100000"],
    labels: { version },
    files: {},
    platform: process.arch === "arm64" ? "arm64" : "amd64",
  });
}

/** statfs(2): TMPFS_MAGIC. */
const tmpfsMagic = 0x0102_1994;

/** Both keep their hosts and clients alike. */
class Hosts {
  readonly site: Site;
  readonly all: readonly Host[];
  readonly #engines = new Map<Host, Engine>();

  constructor(site: Site, count: number) {
    this.site = site;
    this.all = build(site, count);
    // As on a machine with an init system; a machine that is made for tests may have /run on its disk.
    mkdirSync(`/run/${site.name}`, { recursive: true, mode: 0o711 });
    if (statfsSync("/run").type !== tmpfsMagic)
      execFileSync("/usr/bin/mount", ["-t", "tmpfs", "-o", "mode=0711", site.name, `/run/${site.name}`]);
  }

  engine(host: Host): Engine {
    const known = this.#engines.get(host) ?? new Engine(host.socket);
    this.#engines.set(host, known);
    return known;
  }

  async answers(host: Host): Promise<void> {
    await until(`the daemon of ${host.name} to answer`, () => this.engine(host).ping(), performance.now(), 60_000);
  }

  close(): void {
    for (const engine of this.#engines.values()) engine[Symbol.dispose]();
  }
}

export class SkepSwarm implements Swarm {
  readonly name = "skep";
  readonly #hosts: Hosts;

  private constructor(hosts: Hosts) {
    this.#hosts = hosts;
  }

  /** Hosts with the built daemon (`npm run build`), in no swarm yet. */
  static async open(name: string, count: number): Promise<SkepSwarm> {
    const site: Site = {
      name,
      subnet: "10.79.1",
      skepd: [process.execPath, join(root, "build/skepd.js")],
      env: { NODE_COMPILE_CACHE: join(root, "build/compile-cache") },
    };
    await tearDown(site);
    const swarm = new SkepSwarm(new Hosts(site, count));
    for (const host of swarm.hosts) await swarm.start(host);
    return swarm;
  }

  get hosts(): readonly Host[] {
    return this.#hosts.all;
  }

  engine(host: Host): Engine {
    return this.#hosts.engine(host);
  }

  async start(host: Host): Promise<void> {
    host.start();
    await this.#hosts.answers(host);
  }

  crash(host: Host): Promise<void> {
    return host.crash();
  }

  killDaemon(host: Host): Promise<void> {
    return host.kill();
  }

  processes(host: Host): number[] {
    const { pid } = host;
    return pid === undefined ? [] : withChildren(pid).filter((each) => commandOf(each).includes(host.dataRoot));
  }

  commandLine(host: Host): readonly string[] {
    return [process.execPath, join(root, "build/skep.js"), "--host", `unix://${host.socket}`];
  }

  async close(): Promise<void> {
    this.#hosts.close();
    await tearDown(this.#hosts.site);
  }
}

const dockerd = "/usr/sbin/dockerd";
/** Of the same package; a newer one may stand before it in the path. */
const docker = "/usr/bin/docker";
/** For a kernel that has not what its networks take. */
const bare = ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"];

export class DockerSwarm implements Swarm {
  /** Why it cannot be measured here, if so. */
  static get hindrance(): string | undefined {
    return existsSync(dockerd) ? undefined : "docker.io is not installed (node deploy/setup.mjs --for bench)";
  }

  readonly name = "dockerd";
  readonly #hosts: Hosts;
  readonly #flags: readonly string[];

  private constructor(hosts: Hosts, flags: readonly string[]) {
    this.#hosts = hosts;
    this.#flags = flags;
  }

  /** As it is installed; where this kernel has no bridge or no packet filter for it, without, and so with less to do. */
  static async open(name: string, count: number): Promise<DockerSwarm> {
    const site: Site = { name, subnet: "10.79.2", skepd: [dockerd] };
    for (const flags of [[], bare]) {
      await endLeftovers(name);
      await tearDown(site);
      const swarm = new DockerSwarm(new Hosts(site, count), flags);
      try {
        for (const host of swarm.hosts) await swarm.start(host);
        return swarm;
      } catch (error) {
        await swarm.close();
        if (flags === bare) throw error;
        console.error(`${(error as Error).message}: once more with ${bare.join(" ")}`);
      }
    }
    throw new Error("unreachable");
  }

  get hosts(): readonly Host[] {
    return this.#hosts.all;
  }

  engine(host: Host): Engine {
    return this.#hosts.engine(host);
  }

  async start(host: Host): Promise<void> {
    mkdirSync(host.dataRoot, { recursive: true });
    mkdirSync(host.execRoot, { recursive: true });
    const config = `${host.dataRoot}.json`;
    writeFileSync(config, "{}");
    const flags = [
      ["--config-file", config],
      ["--host", `unix://${host.socket}`],
      ["--data-root", host.dataRoot],
      ["--exec-root", host.execRoot],
      ["--pidfile", `/run/${this.#hosts.site.name}/${host.name}.pid`],
      ["--cgroup-parent", host.cgroup],
      this.#flags,
    ].flat();
    // Mounts of its own, so that nothing of it shows on the machine; the rest of its host is the network namespace.
    const apart = ["unshare", "--mount", "--propagation", "private", dockerd, ...flags];
    const [program, args] = host.command(apart);
    const log = openSync(host.logFile, "a");
    spawn(program, args, { stdio: ["ignore", log, log], detached: true }).unref();
    closeSync(log);
    await this.#hosts.answers(host);
  }

  async crash(host: Host): Promise<void> {
    await endAll(this.#of(host));
    await host.killContainers();
    // A reboot would have emptied /run. With it dockerd may take a process that nobody has reaped for its containerd, and waits.
    rmSync(join(host.execRoot, "containerd/containerd.pid"), { force: true });
  }

  async killDaemon(host: Host): Promise<void> {
    const { pid } = host;
    if (pid !== undefined) await endAll([pid]);
  }

  processes(host: Host): number[] {
    const { pid } = host;
    return pid === undefined ? [] : withChildren(pid).filter((each) => !isMonitor.test(commandOf(each)));
  }

  commandLine(host: Host): readonly string[] {
    return [docker, "--host", `unix://${host.socket}`];
  }

  async close(): Promise<void> {
    this.#hosts.close();
    for (const host of this.hosts) await host.kill("SIGTERM");
    await endLeftovers(this.#hosts.site.name);
    await tearDown(this.#hosts.site);
  }

  /** dockerd, its containerd and their monitors: each has the host's folder in its command line. */
  #of(host: Host): number[] {
    return processesWith(`${host.execRoot}/`);
  }
}

/** What a daemon that was killed has left: containerd and monitors, known by our folder in their command lines. */
async function endLeftovers(site: string): Promise<void> {
  await endAll(processesWith(`/run/${site}/`));
}

function processesWith(text: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/u.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && commandOf(pid).includes(text) && isDocker(commandOf(pid)));
}

const isDocker = (command: string): boolean => /^\S*(?:dockerd|containerd)(?:-\S*)?\0/u.test(command);
/** containerd's, one a container: its name is longer than the daemon's. */
const isMonitor = /^\S*containerd-/u;

async function endAll(pids: readonly number[]): Promise<void> {
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended in the meantime.
    }
  }
  const untilMs = performance.now() + 10_000;
  while (pids.some((pid) => commandOf(pid) !== "")) {
    if (performance.now() > untilMs) throw new Error(`processes ${pids.join(", ")} do not end`);
    await wait(5);
  }
}

function withChildren(pid: number): number[] {
  let listed: string;
  try {
    listed = readdirSync(`/proc/${pid}/task`)
      .map((task) => readFileSync(`/proc/${pid}/task/${task}/children`, "utf8"))
      .join(" ");
  } catch {
    return [pid];
  }
  const children = listed.split(/\s+/u).filter(Boolean).map(Number);
  return [pid, ...children.flatMap((child) => withChildren(child))];
}

/** With zero bytes between its arguments; empty when it has ended. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

/** Builds what is measured: the bundle that is installed, and the native programs. */
export function buildAll(): void {
  for (const [program, ...args] of [
    ["make", "-s", "-C", join(root, "native")],
    [process.execPath, join(root, "deploy/build.mjs")],
  ] as [string, ...string[]][]) {
    const { status, stderr } = spawnSync(program, args, { encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] });
    if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr}`);
  }
}
