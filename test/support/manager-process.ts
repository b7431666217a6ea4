/**
 * Real manager processes for tests and benches, started as the daemon does it: their own folders, certificates and ports.
 * What happens in one is awaited by the lines of its log, never by sleeping; each wait has a bound.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { TlsIdentity } from "../../lib/pki/index.ts";
import { managerEnvironment, managerNodeOptions } from "../../daemon/manager-child.ts";
import { Channel } from "../../lib/rpc/index.ts";
import { KeysClient } from "../../manager/kv/index.ts";
import { managersMethods } from "../../manager/managers-service.ts";
import type { skep } from "../../proto/index.ts";
import { TestAuthority, type CertificateFiles } from "./certificates.ts";

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly room?: string;
  readonly [fact: string]: unknown;
}

export interface ProcessOptions {
  readonly name: string;
  readonly memberId: number;
  readonly dataDir: string;
  readonly files: CertificateFiles;
  /** HOST:PORT; port 0 takes a free one the first time, and the same one after a restart. */
  readonly listen: string;
  readonly args: readonly string[];
  /** What is run instead of manager/main.ts. */
  readonly entry?: string;
  readonly nodeArgs?: readonly string[];
  /** In front of node, such as `ip netns exec NAME`. */
  readonly wrapper?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly ipc?: boolean;
}

const mainFile = join(import.meta.dirname, "../../manager/main.ts");
/** Processes are started by the dozen: compiled once, they start in a third of the time. */
const compileCache = join(import.meta.dirname, "../../build/compile-cache");
const waitMsMax = 60_000;

export class ManagerProcess {
  readonly options: ProcessOptions;
  readonly child: ChildProcess;
  readonly lines: LogLine[] = [];
  /** What it wrote that is no line of the log. */
  stderr = "";
  port = 0;
  metricsPort: number | undefined;
  readonly #watchers = new Set<() => void>();
  /** When its last words have been read, too, which may be after its exit. */
  readonly #exited: Promise<number | NodeJS.Signals>;
  #isOver = false;

  private constructor(options: ProcessOptions) {
    this.options = options;
    const { files } = options;
    const node = [process.execPath, ...managerNodeOptions, ...(options.nodeArgs ?? []), options.entry ?? mainFile];
    const named = {
      "data-dir": options.dataDir,
      listen: options.listen,
      cert: files.cert,
      key: files.key,
      ca: files.ca,
    };
    const flags = [...Object.entries(named).flatMap(([name, value]) => [`--${name}`, value]), ...options.args];
    const [command, ...args] = [...(options.wrapper ?? []), ...node, ...flags] as [string, ...string[]];
    this.child = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe", ...(options.ipc === true ? (["ipc"] as const) : [])],
      env: { ...managerEnvironment, ...process.env, NODE_COMPILE_CACHE: compileCache, ...options.env },
    });
    this.#exited = new Promise((resolve, reject) => {
      this.child.once("error", reject);
      this.child.once("close", (code, signal) => {
        this.#isOver = true;
        resolve(code ?? signal ?? "SIGKILL");
        this.#tell();
      });
    });
    createInterface({ input: this.child.stderr! }).on("line", (line) => this.#read(line));
    createInterface({ input: this.child.stdout! }).on("line", (line) => {
      const said = JSON.parse(line) as { serving?: number; metrics?: number };
      if (said.serving !== undefined) this.port = said.serving;
      this.metricsPort = said.metrics;
      this.#tell();
    });
  }

  /** Without waiting: for processes that are expected to fail. */
  static spawn(options: ProcessOptions): ManagerProcess {
    return new ManagerProcess(options);
  }

  /** Resolves when it serves. */
  static async start(options: ProcessOptions): Promise<ManagerProcess> {
    const started = new ManagerProcess(options);
    await started.until("it serves", () => started.port !== 0);
    return started;
  }

  get address(): string {
    return `${this.options.listen.slice(0, this.options.listen.lastIndexOf(":"))}:${this.port}`;
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** @throws if the process ends first, or after a minute */
  until(what: string, holds: () => boolean, withinMs = waitMsMax): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (holds()) end(resolve);
        else if (this.#isOver)
          end(() => reject(new Error(`${this.options.name} ended before ${what}: ${this.tail()}`)));
      };
      const timer = setTimeout(
        () => end(() => reject(new Error(`${this.#late(what, withinMs)}: ${this.tail()}`))),
        withinMs,
      );
      const end = (settle: () => void): void => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        settle();
      };
      this.#watchers.add(look);
      look();
    });
  }

  /** A line of the log, from line number `from` on. */
  async logged(what: string, matches: (line: LogLine) => boolean, from = 0, withinMs = waitMsMax): Promise<LogLine> {
    await this.until(what, () => this.lines.slice(from).some(matches), withinMs);
    return this.lines.slice(from).find(matches)!;
  }

  /** What its threads were doing: whether it ran, slept or waited for a disk tells a slow machine from a hang. */
  #late(what: string, withinMs: number): string {
    const tasks = `/proc/${this.child.pid}/task`;
    const read = (file: string): string => {
      try {
        return readFileSync(file, "utf8").trim();
      } catch {
        return "?";
      }
    };
    const threads = existsSync(tasks)
      ? readdirSync(tasks).map((task) => {
          const stat = read(`${tasks}/${task}/stat`);
          const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
          const name = read(`${tasks}/${task}/comm`);
          return `${name} ${fields[0]} ${fields[11]}+${fields[12]} ticks in ${read(`${tasks}/${task}/wchan`)}`;
        })
      : ["gone"];
    return `${this.options.name}: not within ${withinMs} ms: ${what} (${threads.join("; ")})`;
  }

  tail(): string {
    const lines = this.lines.slice(-8).map((line) => JSON.stringify(line));
    return [...lines, this.stderr.slice(-2000)].join("\n");
  }

  signal(signal: NodeJS.Signals): void {
    // The wrapper (ip netns exec, fiu-run) replaces itself by node, so this is node's own process.
    this.child.kill(signal);
  }

  /** @returns exit code or signal */
  exited(withinMs = waitMsMax): Promise<number | NodeJS.Signals> {
    return Promise.race([
      this.#exited,
      new Promise<never>((_, reject) => {
        const timer = setTimeout(() => reject(new Error(`${this.options.name} did not end: ${this.tail()}`)), withinMs);
        void this.#exited.finally(() => clearTimeout(timer));
      }),
    ]);
  }

  async kill(): Promise<void> {
    if (this.running) this.child.kill("SIGKILL");
    await this.#exited;
  }

  #read(line: string): void {
    if (line.startsWith("{")) this.lines.push(JSON.parse(line) as LogLine);
    else this.stderr += `${line}\n`;
    this.#tell();
  }

  #tell(): void {
    for (const look of this.#watchers) look();
  }
}

export interface ClusterOptions {
  readonly managers: number;
  readonly args?: readonly string[];
  readonly entry?: string;
  readonly ipc?: boolean;
  readonly nodeArgs?: readonly string[];
  /** Where folders are made; a temporary one unless said. */
  readonly folder?: string;
  /** What is special about one of them, by its number. */
  readonly place?: (number: number) => Partial<ProcessOptions>;
}

/** A cluster of processes, formed and grown as an operator would. */
export class ManagerCluster implements AsyncDisposable {
  readonly folder: string;
  readonly authority: TestAuthority;
  readonly options: ClusterOptions;
  readonly managers: ManagerProcess[] = [];
  readonly #tls: TlsIdentity;
  readonly #channels = new Map<string, Channel>();
  readonly #clients = new Map<string, KeysClient>();
  readonly #ownFolder: boolean;
  isDisposed = false;

  private constructor(options: ClusterOptions, folder: string, authority: TestAuthority, tls: TlsIdentity) {
    this.options = options;
    this.folder = folder;
    this.authority = authority;
    this.#tls = tls;
    this.#ownFolder = options.folder === undefined;
  }

  static async start(options: ClusterOptions): Promise<ManagerCluster> {
    const folder = options.folder ?? mkdtempSync(join(tmpdir(), "skep-managers-"));
    const authority = await TestAuthority.create("testcluster");
    const tls = new TlsIdentity(await authority.issue("testclient", 999_999));
    const cluster = new ManagerCluster(options, folder, authority, tls);
    try {
      for (let number = 1; number <= options.managers; number++) await cluster.add(number);
      await cluster.untilVoters(options.managers);
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The first forms the cluster, others join through the first that runs. */
  async add(number: number, more: Partial<ProcessOptions> = {}): Promise<ManagerProcess> {
    const started = await ManagerProcess.start(await this.describe(number, more));
    this.managers.push(started);
    return started;
  }

  async describe(number: number, changed: Partial<ProcessOptions> = {}): Promise<ProcessOptions> {
    const more = { ...this.options.place?.(number), ...changed };
    const name = `m${number}`;
    const folder = join(this.folder, name);
    const files = await this.authority.issueFiles(folder, `node${number}`, number);
    const through = this.managers.find(({ running }) => running);
    const start = through === undefined ? ["--init"] : ["--join", through.address];
    return {
      name,
      memberId: number,
      dataDir: join(folder, "data"),
      files,
      listen: "127.0.0.1:0",
      ...(this.options.entry === undefined ? {} : { entry: this.options.entry }),
      ...(this.options.ipc === undefined ? {} : { ipc: this.options.ipc }),
      ...(this.options.nodeArgs === undefined ? {} : { nodeArgs: this.options.nodeArgs }),
      ...more,
      args: [...start, ...(this.options.args ?? []), ...(more.args ?? [])],
    };
  }

  /** Starts one that has ended, with the same folder, certificate and port. */
  async restart(ended: ManagerProcess, more: Partial<ProcessOptions> = {}): Promise<ManagerProcess> {
    const started = await ManagerProcess.start({ ...ended.options, listen: ended.address, ...more });
    this.managers[this.managers.indexOf(ended)] = started;
    return started;
  }

  get running(): ManagerProcess[] {
    return this.managers.filter(({ running }) => running);
  }

  /** Who leads by the newest word of those that run; waits for one that is ready. */
  async leader(withinMs = waitMsMax): Promise<ManagerProcess> {
    const found = (): ManagerProcess | undefined => {
      let best: { manager: ManagerProcess; term: number } | undefined;
      for (const manager of this.running) {
        const last = manager.lines.findLast(({ message }) => message === "leadership");
        if (last?.["ready"] !== true) continue;
        const term = Number(last["term"]);
        if (best === undefined || term > best.term) best = { manager, term };
      }
      return best?.manager;
    };
    await Promise.any(this.running.map((manager) => manager.until("a leader", () => found() !== undefined, withinMs)));
    return found()!;
  }

  /** Waits until every manager that runs has so many voters in its configuration. */
  async untilVoters(count: number): Promise<void> {
    const has = (manager: ManagerProcess): boolean => {
      const last = manager.lines.findLast(({ message }) => message === "members") as { voters?: number[] } | undefined;
      return last?.voters?.length === count;
    };
    await Promise.all(this.running.map((manager) => manager.until(`${count} voters`, () => has(manager))));
  }

  channel(manager: { readonly address: string }): Channel {
    const { address } = manager;
    let channel = this.#channels.get(address);
    if (channel === undefined) {
      channel = new Channel({ address, tls: this.#tls, expect: { role: "manager" } });
      this.#channels.set(address, channel);
    }
    return channel;
  }

  keys(manager: { readonly address: string }): KeysClient {
    const { address } = manager;
    let client = this.#clients.get(address);
    if (client === undefined) {
      client = new KeysClient(this.channel(manager));
      this.#clients.set(address, client);
    }
    return client;
  }

  status(manager: { readonly address: string }, timeoutMs = 30_000): Promise<skep.control.IStatusResponse> {
    const signal = AbortSignal.timeout(timeoutMs);
    return this.channel(manager).call(managersMethods.status, {}, { timeoutMs, signal });
  }

  async put(manager: ManagerProcess, key: string, value: string): Promise<skep.control.IKvResponse> {
    return await this.keys(manager).ask({ put: { key, value: Buffer.from(value) } });
  }

  async get(manager: ManagerProcess, key: string): Promise<string | undefined> {
    const { items, failure } = await this.keys(manager).ask({ get: { key } });
    if (failure) throw new Error(`${failure.code}: ${failure.message}`);
    const item = items?.[0];
    return item?.found === true ? Buffer.from(item.value ?? []).toString() : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.isDisposed = true;
    for (const client of this.#clients.values()) client[Symbol.dispose]();
    for (const channel of this.#channels.values()) channel[Symbol.dispose]();
    await Promise.all(this.managers.map((manager) => manager.kill()));
    if (this.#ownFolder) rmSync(this.folder, { recursive: true, force: true });
  }
}
