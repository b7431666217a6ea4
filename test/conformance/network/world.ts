/**
 * Hosts, clients and containers in network namespaces: three hosts on one switch behind a router, a client on the same
 * switch and one behind the router. Nothing of the machine's own network is touched; `tearDown` leaves nothing.
 */
import { execFile, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";

/** A connection that stays open. */
export interface HeldConnection {
  /** One more question. @returns the answer; rejects when the connection has ended */
  ask(): Promise<string>;
  end(): Promise<void>;
}

/** Datagrams that arrive somewhere, in their order. */
export interface Receiver {
  readonly heard: readonly string[];
  /** Until this one has arrived. */
  until(text: string): Promise<void>;
  end(): Promise<void>;
}

export class NetWorld {
  readonly prefix: string;
  readonly folder: string;
  readonly probe: string;
  readonly #children = new Set<ChildProcess>();
  #lastPort: number = clientPorts.first;
  /** Namespaces that others made, by name. */
  readonly #known = new Map<string, string>();

  /** @param prefix  of all namespaces; no other test has it, and two runs of one at a time do not meet */
  constructor(prefix: string) {
    this.prefix = `${prefix}.${process.pid}`;
    this.#removeNamespacesOfTheDead(prefix);
    this.folder = mkdtempSync(join(tmpdir(), `${prefix}-`));
    // One that is built already, where compiling takes long (test/vm).
    const built = process.env["NET_PROBE"];
    this.probe = built ?? join(this.folder, "net-probe");
    const source = join(import.meta.dirname, "../../support/net-probe.c");
    if (built === undefined) run(["cc", "-O1", "-o", this.probe, source]);
    this.#removeNamespaces();
  }

  namespace(name: string): string {
    return `${this.prefix}-${name}`;
  }

  path(name: string): string {
    return this.#known.get(name) ?? `/run/netns/${this.namespace(name)}`;
  }

  /** A namespace that somebody else made. */
  know(name: string, path: string): void {
    this.#known.set(name, path);
  }

  add(name: string): void {
    run(["ip", "netns", "add", this.namespace(name)]);
    this.ip(name, "link set lo up");
  }

  /** 10.99.0.1 to .N are h1 to hN, .100 is near, .254 the router; 10.98.0.2 is far, behind it. */
  build(hosts: number): void {
    this.add("sw");
    this.sysctl("sw", "net.ipv4.ip_forward=1");
    this.ip("sw", "link add br0 type bridge");
    this.ip("sw", "addr add 10.99.0.254/24 dev br0");
    this.ip("sw", "link set br0 up");
    const names = Array.from({ length: hosts }, (_, at) => ({ name: `h${at + 1}`, address: `10.99.0.${at + 1}` }));
    for (const { name, address } of [...names, { name: "near", address: "10.99.0.100" }]) {
      this.add(name);
      this.ip("sw", `link add ${name} type veth peer name eth0 netns ${this.namespace(name)}`);
      this.ip("sw", `link set ${name} master br0 up`);
      this.ip(name, `addr add ${address}/24 dev eth0`);
      this.ip(name, "link set eth0 up");
      this.ip(name, "route add default via 10.99.0.254");
      // A new namespace begins as the machine's own is (devconf_inherit_init_net), which may be a router or a host of Docker.
      this.sysctl(name, "net.ipv4.ip_forward=0");
      // As distributions have it; what is ours must work with it.
      this.sysctl(name, "net.ipv4.conf.all.rp_filter=1");
      // Who asks by a way that is none is not told of a better one, which it would take after its time is up.
      this.sysctl(name, "net.ipv4.conf.all.accept_redirects=0", "net.ipv4.conf.eth0.accept_redirects=0");
    }
    this.add("far");
    this.ip("sw", `link add far type veth peer name eth0 netns ${this.namespace("far")}`);
    this.ip("sw", "addr add 10.98.0.1/24 dev far");
    this.ip("sw", "link set far up");
    this.ip("far", "addr add 10.98.0.2/24 dev eth0");
    this.ip("far", "link set eth0 up");
    this.ip("far", "route add default via 10.98.0.1");
  }

  ip(name: string, words: string): string {
    return this.exec(name, ["ip", ...words.split(" ")]);
  }

  sysctl(name: string, ...settings: readonly string[]): void {
    this.exec(name, ["sysctl", "-qw", ...settings]);
  }

  exec(name: string, command: readonly string[], input = ""): string {
    return run(this.#inside(name, command), input);
  }

  /** The output of a command that may fail. */
  attempt(name: string, command: readonly string[]): string {
    const [program = "", ...args] = this.#inside(name, command);
    const { stdout, stderr } = spawnSync(program, args, { encoding: "utf8", timeout: 20_000 });
    return `${stdout}${stderr}`.trim();
  }

  #inside(name: string, command: readonly string[]): string[] {
    return ["nsenter", `--net=${this.path(name)}`, "--", ...command, ...this.#ownPort(command)];
  }

  /**
   * A datagram's port, which nobody has had before: of one that the kernel chooses by chance, conntrack may remember to whom
   * it led a moment ago.
   */
  #ownPort([program, kind = "", ...words]: readonly string[]): string[] {
    const isDatagram = kind === "send" || (["get", "hold"].includes(kind) && words.includes("-u"));
    if (program !== this.probe || !isDatagram || words.includes("-p")) return [];
    this.#lastPort = this.#lastPort === clientPorts.last ? clientPorts.first : this.#lastPort + 1;
    return ["-p", String(this.#lastPort)];
  }

  start(name: string, command: readonly string[]): ChildProcess {
    const [program = "", ...args] = this.#inside(name, command);
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
    this.#children.add(child);
    // Its end is told otherwise.
    child.stdin.on("error", () => undefined);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  /** Answers with its name on tcp and udp, until the world ends. */
  async serve(name: string, port: number, address = "0.0.0.0"): Promise<ChildProcess> {
    const child = this.start(name, [this.probe, "serve", name, String(port), address]);
    const said = await output(child);
    if (said !== "ready\n") throw new Error(`${name} does not serve ${address} ${port}: ${said}`);
    return child;
  }

  /** From there to that port, by tcp unless it is said otherwise (`-u`). */
  hold(name: string, address: string, port: number, ...more: readonly string[]): HeldConnection {
    const child = this.start(name, [this.probe, "hold", address, String(port), "-w", "15000", ...more]);
    return {
      ask: async () => {
        child.stdin?.write("\n");
        return (await output(child)).trim();
      },
      end: () => this.ended(child),
    };
  }

  /** Resolves when it receives. @param family  of the addresses at which it does */
  async receive(name: string, port: number, family: 4 | 6 = 4): Promise<Receiver> {
    const child = this.start(name, [this.probe, family === 6 ? "receive6" : "receive", String(port)]);
    const heard: string[] = [];
    const listeners = new Set<() => void>();
    const { promise: isReady, resolve: ready } = Promise.withResolvers<void>();
    createInterface({ input: child.stdout ?? process.stdin }).on("line", (line) => {
      if (line === "ready") ready();
      else heard.push(line);
      for (const listener of listeners) listener();
    });
    await isReady;
    return {
      heard,
      until: (text) =>
        new Promise((resolve) => {
          const look = (): void => {
            if (!heard.includes(text)) return;
            listeners.delete(look);
            resolve();
          };
          listeners.add(look);
          look();
        }),
      end: () => this.ended(child),
    };
  }

  /**
   * What `name` gets from there: `NAME peer=ADDRESS:PORT` or `ERR ...`. Whoever must answer may take long on a busy machine;
   * a refusal comes at once all the same.
   */
  get(name: string, address: string, port: number, ...more: readonly string[]): string {
    return this.getBriefly(name, address, port, "-w", "15000", ...more);
  }

  /** The same where nobody is to answer; who does not would be told so again by the kernel. */
  getBriefly(name: string, address: string, port: number, ...more: readonly string[]): string {
    return this.attempt(name, [this.probe, "get", address, String(port), ...more]);
  }

  /** The same as `getBriefly`, while this process goes on with its own work. */
  getSoon(name: string, address: string, port: number, ...more: readonly string[]): Promise<string> {
    const [program = "", ...args] = this.#inside(name, [this.probe, "get", address, String(port), ...more]);
    return new Promise((resolve) => {
      execFile(program, args, { timeout: 20_000 }, (_error, stdout, stderr) => resolve(`${stdout}${stderr}`.trim()));
    });
  }

  end(child: ChildProcess): void {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  }

  /** Resolves when it has ended, which it does now. */
  async ended(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const over = new Promise((resolve) => child.once("exit", resolve));
    this.end(child);
    await over;
  }

  async tearDown(): Promise<void> {
    const children = [...this.#children];
    const ended = children.map((child) => new Promise((resolve) => child.once("exit", resolve)));
    for (const child of children) this.end(child);
    await Promise.all(ended);
    this.#removeNamespaces();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Of a run that was killed. */
  #removeNamespacesOfTheDead(prefix: string): void {
    for (const name of namespaces()) {
      const pid = name.startsWith(`${prefix}.`) ? /^\d+/.exec(name.slice(prefix.length + 1))?.[0] : undefined;
      if (pid !== undefined && !existsSync(`/proc/${pid}`)) run(["ip", "netns", "delete", name]);
    }
  }

  #removeNamespaces(): void {
    for (const name of namespaces()) if (name.startsWith(`${this.prefix}-`)) run(["ip", "netns", "delete", name]);
  }
}

/** Below those that the kernel chooses, and none that a test asks for. A world has far fewer questions. */
const clientPorts = { first: 10_000, last: 29_999 } as const;

const namespaces = (): string[] => (existsSync("/run/netns") ? readdirSync("/run/netns") : []);

/** The next piece of output. */
export function output(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    const onData = (chunk: Buffer): void => {
      child.removeListener("exit", onExit);
      resolve(chunk.toString());
    };
    const onExit = (code: number | null): void => {
      child.stdout?.removeListener("data", onData);
      reject(new Error(`ended with ${code}`));
    };
    child.stdout?.once("data", onData);
    child.once("exit", onExit);
  });
}

/** Asks again until it is so, for as long as a busy machine may take; programs of the hosts go on meanwhile. */
export async function eventually(isSo: () => boolean | Promise<boolean>, patienceMs = 20_000): Promise<void> {
  const untilMs = performance.now() + patienceMs;
  while (!(await isSo())) {
    if (performance.now() > untilMs) throw new Error("it does not become so");
    await wait(10);
  }
}

export function run([program = "", ...args]: readonly string[], input = ""): string {
  // Some start dozens of programs themselves.
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8", input, timeout: 60_000 });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
  return stdout;
}
