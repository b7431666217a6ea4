/**
 * Several hosts on one machine: each a network namespace with an address on a common switch, its own host name, data and
 * sockets, and its own cgroup. Nothing of the machine's network is touched: the switch is a namespace, too.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

export interface Site {
  /** Of namespaces, folders and cgroups; short, since sockets' paths and interfaces' names are. */
  readonly name: string;
  /** The first three bytes of the hosts' addresses. */
  readonly subnet: string;
  /** Of IPv6, with `::` at its end: then the hosts have addresses of it and none of IPv4. */
  readonly only6?: string;
  /** Node and the sources or the bundle: what `skepd` is. */
  readonly skepd: readonly [string, ...string[]];
  readonly env?: Readonly<Record<string, string>>;
}

export class Host {
  readonly site: Site;
  readonly name: string;
  readonly address: string;
  readonly namespace: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly cgroup: string;
  readonly logFile: string;

  constructor(site: Site, number: number) {
    this.site = site;
    this.name = `host${number}`;
    this.address = addressIn(site, 10 + number);
    this.namespace = `${site.name}-${number}`;
    this.dataRoot = `/var/lib/${site.name}/${this.name}`;
    this.execRoot = `/run/${site.name}/${this.name}`;
    this.cgroup = `/${site.name}/${this.name}`;
    this.logFile = `/var/lib/${site.name}/${this.name}.log`;
  }

  /** Of its manager. */
  get endpoint(): string {
    return `${this.address.includes(":") ? `[${this.address}]` : this.address}:2377`;
  }

  get socket(): string {
    return `${this.execRoot}/skep.sock`;
  }

  get #pidFile(): string {
    return `/run/${this.site.name}/${this.name}.pid`;
  }

  /** The process id of its daemon, if that runs. */
  get pid(): number | undefined {
    return this.#daemons()[0];
  }

  /** One that is only starting has written no process id down, and may have a shell before it. */
  #daemons(): number[] {
    const folder = `\0--data-root\0${this.dataRoot}\0`;
    const written = readIfThere(this.#pidFile).trim();
    if (written !== "" && readIfThere(`/proc/${written}/cmdline`).includes(folder)) return [Number(written)];
    const all = readdirSync("/proc").filter((name) => /^\d+$/u.test(name));
    return all.map(Number).filter((pid) => commandOf(pid).includes(folder));
  }

  /** A command as a process of this host. */
  command(command: readonly string[]): [string, string[]] {
    const shell = 'hostname "$0" && exec "$@"';
    const inside = ["unshare", "--uts", "sh", "-c", shell, this.name, ...command];
    return ["nsenter", [`--net=/run/netns/${this.namespace}`, "--", ...inside]];
  }

  /** Starts `skepd`; it goes on when this process ends. */
  start(flags: readonly string[] = [], env: Readonly<Record<string, string>> = {}): ChildProcess {
    mkdirSync(this.dataRoot, { recursive: true, mode: 0o711 });
    mkdirSync(`/run/${this.site.name}`, { recursive: true, mode: 0o711 });
    const log = openSync(this.logFile, "a");
    const named = ["--data-root", this.dataRoot, "--exec-root", this.execRoot, "--cgroup-parent", this.cgroup];
    const [program, args] = this.command([...this.site.skepd, ...named, "--pidfile", this.#pidFile, ...flags]);
    const child = spawn(program, args, {
      stdio: ["ignore", log, log],
      detached: true,
      env: { ...process.env, ...this.site.env, ...env },
    });
    closeSync(log);
    child.unref();
    return child;
  }

  /** Resolves when its API answers. */
  async answers(patienceMs = 60_000): Promise<void> {
    const untilMs = performance.now() + patienceMs;
    while (!(await ping(this.socket))) {
      if (performance.now() > untilMs) {
        const log = existsSync(this.logFile)
          ? readFileSync(this.logFile, "utf8").trim().split("\n").slice(-8).join("\n")
          : "";
        throw new Error(`the daemon of ${this.name} does not answer; its log ends with\n${log}`);
      }
      await wait(20);
    }
  }

  /** Every process of the daemon at once, as when it crashes; containers go on. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const daemons = this.#daemons();
    // Only the daemon and the manager: the monitors of containers are no children of its once they run. The daemon first,
    // since it would start a manager anew; one that is asked to end ends its manager itself.
    const all = daemons.flatMap((pid) => [pid, ...childrenOf(pid)]);
    for (const one of signal === "SIGKILL" ? all : daemons) kill(one, signal);
    await gone(all);
  }

  /** The manager's process alone; its daemon starts it again. */
  async killManager(): Promise<void> {
    const { pid } = this;
    const managers = pid === undefined ? [] : childrenOf(pid);
    for (const one of managers) kill(one, "SIGKILL");
    await gone(managers);
  }

  /** Processes in containers of this host whose command line holds this; not what they fork, which begins with the same one. */
  containerProcesses(command: string): number[] {
    const pids = new Set(cgroupsOf(this.cgroup).flatMap((directory) => processesIn(directory)));
    const found = [...pids].filter((pid) => commandOf(pid).includes(command));
    return found.filter((pid) => !found.includes(parentOf(pid))).sort((a, b) => a - b);
  }

  /** As when its power fails: containers, too. */
  async crash(): Promise<void> {
    await this.kill();
    await this.killContainers();
  }

  async killContainers(): Promise<void> {
    const pids = cgroupsOf(this.cgroup).flatMap((directory) => processesIn(directory));
    for (const pid of new Set(pids)) kill(pid, "SIGKILL");
    await gone([...new Set(pids)]);
    for (const directory of cgroupsOf(this.cgroup)) removeTree(directory);
  }

  /** Its network does not reach the others any more, or does again. */
  setLink(up: boolean): void {
    run(["ip", "-n", `${this.site.name}-sw`, "link", "set", this.name, up ? "up" : "down"]);
  }
}

const addressIn = ({ subnet, only6 }: Site, last: number): string =>
  only6 === undefined ? `${subnet}.${last}` : `${only6}${last}`;

/** As arguments of `ip address add`: nobody has to wait until it is known that no other host has it. */
const addressed = (address: string): string[] =>
  address.includes(":") ? [`${address}/64`, "nodad"] : [`${address}/24`];

/** Makes the switch and the hosts; what is there already is used. */
export function build(site: Site, count: number): Host[] {
  const hosts = Array.from({ length: count }, (_, at) => new Host(site, at + 1));
  const present = namespaces();
  const switchName = `${site.name}-sw`;
  if (!present.has(switchName)) {
    run(["ip", "netns", "add", switchName]);
    run(["ip", "-n", switchName, "link", "add", "br0", "type", "bridge"]);
    run(["ip", "-n", switchName, "link", "set", "br0", "up"]);
  }
  for (const host of hosts) {
    if (present.has(host.namespace)) continue;
    run(["ip", "netns", "add", host.namespace]);
    const peer = ["peer", "name", "eth0", "netns", host.namespace];
    run(["ip", "-n", switchName, "link", "add", host.name, "type", "veth", ...peer]);
    run(["ip", "-n", switchName, "link", "set", host.name, "master", "br0", "up"]);
    run(["ip", "-n", host.namespace, "link", "set", "lo", "up"]);
    run(["ip", "-n", host.namespace, "address", "add", ...addressed(host.address), "dev", "eth0"]);
    run(["ip", "-n", host.namespace, "link", "set", "eth0", "up"]);
  }
  return hosts;
}

/** A machine of the same network that is no node. */
export interface Outsider {
  readonly address: string;
  readonly namespace: string;
}

export function buildOutsider(site: Site): Outsider {
  const outsider = { address: addressIn(site, 200), namespace: `${site.name}-client` };
  if (namespaces().has(outsider.namespace)) return outsider;
  const { address, namespace } = outsider;
  run(["ip", "netns", "add", namespace]);
  const peer = ["peer", "name", "eth0", "netns", namespace];
  run(["ip", "-n", `${site.name}-sw`, "link", "add", "client", "type", "veth", ...peer]);
  run(["ip", "-n", `${site.name}-sw`, "link", "set", "client", "master", "br0", "up"]);
  run(["ip", "-n", namespace, "address", "add", ...addressed(address), "dev", "eth0"]);
  run(["ip", "-n", namespace, "link", "set", "eth0", "up"]);
  return outsider;
}

/** Ends everything of the site and removes every trace of it. */
export async function tearDown(site: Site): Promise<void> {
  const numbers = [...namespaces()]
    .filter((name) => name.startsWith(`${site.name}-`))
    .map((name) => Number(name.slice(site.name.length + 1)))
    .filter((number) => Number.isInteger(number));
  const hosts = numbers.map((number) => new Host(site, number));
  for (const host of hosts) await host.kill("SIGTERM");
  for (const host of hosts) await host.killContainers();
  for (const directory of cgroupsOf(`/${site.name}`)) removeTree(directory);
  for (const host of hosts) unmountBelow(host.dataRoot, host.execRoot);
  unmountBelow(`/run/${site.name}`);
  for (const name of namespaces()) if (name.startsWith(`${site.name}-`)) run(["ip", "netns", "delete", name]);
  for (const folder of [`/var/lib/${site.name}`, `/run/${site.name}`]) {
    // It stops without a word at what others, who clear up behind a container, remove at the same time (Node 24.21).
    for (let tries = 0; tries < 100 && existsSync(folder); tries++) rmSync(folder, { recursive: true, force: true });
  }
}

function namespaces(): Set<string> {
  return new Set(existsSync("/run/netns") ? readdirSync("/run/netns") : []);
}

async function ping(socket: string): Promise<boolean> {
  const { request } = await import("node:http");
  return new Promise((resolve) => {
    const asked = request({ socketPath: socket, path: "/_ping", timeout: 1000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    asked.on("error", () => resolve(false));
    asked.on("timeout", () => asked.destroy());
    asked.end();
  });
}

function run([program = "", ...args]: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended in the meantime.
  }
}

/** Direct children and theirs, the youngest last. */
function childrenOf(pid: number): number[] {
  let listed: string;
  try {
    listed = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  } catch {
    return [];
  }
  return listed
    .trim()
    .split(" ")
    .filter((text) => text !== "")
    .map(Number)
    .filter((child) => commandOf(child).includes("manager"))
    .flatMap((child) => [child, ...childrenOf(child)]);
}

const commandOf = (pid: number): string => readIfThere(`/proc/${pid}/cmdline`);

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** 0: it has ended. */
function parentOf(pid: number): number {
  try {
    return Number(/^PPid:\s*(\d+)/mu.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

async function gone(pids: readonly number[]): Promise<void> {
  const untilMs = performance.now() + 60_000;
  for (const pid of pids) {
    while (existsSync(`/proc/${pid}`) && stateOf(pid) !== "Z") {
      if (performance.now() > untilMs) throw new Error(`process ${pid} does not end`);
      await wait(10);
    }
  }
}

function stateOf(pid: number): string {
  try {
    return /^State:\s*(\S)/mu.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
  } catch {
    return "Z";
  }
}

/** The directories of a cgroup in all hierarchies that are mounted. */
function cgroupsOf(cgroup: string): string[] {
  const roots = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup" || type === "cgroup2")
    .map(([, path = ""]) => path);
  return roots.map((root) => join(root, cgroup)).filter((directory) => existsSync(directory));
}

function directoriesBelow(directory: string): string[] {
  try {
    const entries = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return entries.flatMap((entry) => {
      const path = join(directory, entry.name);
      return [...directoriesBelow(path), path];
    });
  } catch (error) {
    // A monitor that ends removes its own meanwhile.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

function processesIn(directory: string): number[] {
  return [...directoriesBelow(directory), directory].flatMap((path) => {
    try {
      return readFileSync(join(path, "cgroup.procs"), "utf8").split("\n").filter(Boolean).map(Number);
    } catch {
      return [];
    }
  });
}

function removeTree(directory: string): void {
  if (!existsSync(directory)) return;
  for (const path of [...directoriesBelow(directory), directory]) {
    try {
      rmdirSync(path);
    } catch {
      // The kernel lets it go a moment after its last process; then it is empty and harmless.
    }
  }
}

function unmountBelow(...roots: readonly string[]): void {
  const all = (): string[] =>
    readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .map((line) => line.split(" ")[4] ?? "");
  const points = all().filter((point) => roots.some((root) => point === root || point.startsWith(`${root}/`)));
  for (const point of points.toReversed()) {
    try {
      run(["umount", "--lazy", point]);
    } catch (error) {
      // Who clears up behind a container may have been faster.
      if (all().includes(point)) throw error;
    }
  }
}

/** For people who come later: how the daemons were started. */
export function remember(site: Site, facts: object): void {
  writeFileSync(`/var/lib/${site.name}/site.json`, `${JSON.stringify(facts, undefined, 2)}\n`);
}
