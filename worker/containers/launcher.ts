/**
 * Starts monitors through a small native process: this one is so large that each fork of it would take milliseconds, in
 * which nothing else goes on. It also makes what a container needs of files before it starts, in one go.
 *
 * The same process keeps the native program as one sealed memory file for all containers of this worker. Whoever enters a
 * container runs from such a file (CVE-2019-5736); without this each start and each exec would make a copy of its own.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { Socket } from "node:net";

import { runtimeMessage } from "./programs.ts";

export interface MonitorStarted {
  readonly pid: number;
  readonly startTime: number;
}

/** What there shall be before the monitor starts; paths are absolute. */
export interface LaunchRequest {
  /** Made in this order; those that are there stay. */
  readonly directories: readonly string[];
  /** Replaced in place. Text without NUL. */
  readonly files: readonly { readonly path: string; readonly mode: number; readonly text: string }[];
  /** Of `isolate monitor`. */
  readonly args: readonly string[];
}

/** Nobody knows what became of the container. */
export class MonitorSilent extends Error {}

interface Waiting {
  text: string;
  readonly done: PromiseWithResolvers<string>;
}

const headBytes = 8;
/** LAUNCH_BYTES_MAX: the process ends at a request that is longer, and takes the others that wait with it. */
const requestBytesMax = 8 * 1024 * 1024;
/** More than this of an answer says nothing new. */
const answerMax = 64 * 1024;

/** One life of the process. */
class Life {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  #tag = 0;
  #received: Buffer = Buffer.alloc(0);
  #image = "";
  readonly #begun = Promise.withResolvers<void>();
  readonly #stderr: Buffer[] = [];
  isOver = false;

  constructor(program: string, environment: NodeJS.ProcessEnv) {
    // It ends when its standard input does, that is, with this process, however that ends.
    this.#child = spawn(program, ["launcher"], { stdio: ["pipe", "pipe", "pipe"], cwd: "/", env: environment });
    const { stdin, stdout, stderr } = this.#child;
    this.#child.on("error", (error) => this.#over(error.message));
    this.#child.on("close", () => this.#over(Buffer.concat(this.#stderr).toString("utf8").trim()));
    stdin?.on("error", () => undefined); // its end is told by "close"
    stdout?.on("data", (chunk: Buffer) => this.#receive(chunk));
    stderr?.on("data", (chunk: Buffer) => {
      if (this.#stderr.length < 16) this.#stderr.push(chunk);
    });
    this.#child.unref();
    for (const stream of [stdin, stderr]) if (stream instanceof Socket) stream.unref();
    void this.begun.then(() => this.#ref());
  }

  /** What to execute, once `begun`; undefined: there is no memory file. */
  get image(): string | undefined {
    return this.#image === "" || this.isOver ? undefined : this.#image;
  }

  /** Resolves also when it has ended without a word. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  /** @returns what the monitor said; empty: nothing */
  async launch({ directories, files, args }: LaunchRequest): Promise<string> {
    const texts = [
      ...directories.flatMap((path) => ["d", path]),
      ...files.flatMap(({ path, mode, text }) => ["f", path, mode.toString(8), text]),
      "m",
      ...args,
    ];
    // A NUL inside would be taken for the end of a text.
    const wrong = texts.find((text) => text.includes("\0"));
    if (wrong !== undefined) throw new Error(`${JSON.stringify(wrong.slice(0, 64))} holds a NUL`);
    const body = Buffer.from(`${texts.join("\0")}\0`);
    if (4 + body.length > requestBytesMax)
      throw new Error(`its files and arguments have ${body.length} bytes, at most ${requestBytesMax} are accepted`);
    this.#tag = (this.#tag % 0xffff_ffff) + 1;
    const tag = this.#tag;
    const head = Buffer.alloc(headBytes);
    head.writeUInt32LE(4 + body.length, 0);
    head.writeUInt32LE(tag, 4);
    const waiting: Waiting = { text: "", done: Promise.withResolvers() };
    this.#waiting.set(tag, waiting);
    this.#ref();
    if (this.isOver) this.#over("");
    else this.#child.stdin?.write(Buffer.concat([head, body]));
    return waiting.done.promise;
  }

  async end(): Promise<void> {
    if (this.#child.pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.ref();
    this.#child.stdin?.end();
    await ended;
  }

  /** Whoever waits for an answer keeps this process alive, and nothing else of the launcher does. */
  #ref(): void {
    const { stdout } = this.#child;
    if (!(stdout instanceof Socket)) return;
    if (this.#waiting.size > 0) stdout.ref();
    else stdout.unref();
  }

  #receive(chunk: Buffer): void {
    let rest = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    while (rest.length >= headBytes) {
      const length = rest.readUInt32LE(4);
      if (rest.length < headBytes + length) break;
      this.#answer(rest.readUInt32LE(0), rest.toString("utf8", headBytes, headBytes + length));
      rest = rest.subarray(headBytes + length);
    }
    this.#received = Buffer.from(rest);
  }

  #answer(tag: number, text: string): void {
    if (tag === 0) {
      this.#image += text;
      if (text === "") this.#begun.resolve();
      return;
    }
    const waiting = this.#waiting.get(tag);
    if (waiting === undefined) return;
    if (text === "") {
      this.#waiting.delete(tag);
      this.#ref();
      waiting.done.resolve(waiting.text);
    } else if (waiting.text.length < answerMax) waiting.text += text;
  }

  #over(why: string): void {
    this.isOver = true;
    this.#begun.resolve();
    for (const { done } of this.#waiting.values())
      done.reject(new MonitorSilent(`the launcher of monitors has ended${why === "" ? "" : `: ${why}`}`));
    this.#waiting.clear();
  }
}

export class Launcher implements AsyncDisposable {
  readonly #program: string;
  readonly #environment: NodeJS.ProcessEnv;
  #life: Life;
  #closed = false;

  private constructor(program: string, environment: NodeJS.ProcessEnv) {
    this.#program = program;
    this.#environment = environment;
    this.#life = new Life(program, environment);
  }

  /** @param environment  of the monitors */
  static async open(program: string, environment: NodeJS.ProcessEnv): Promise<Launcher> {
    const launcher = new Launcher(program, environment);
    await launcher.#life.begun;
    return launcher;
  }

  /** The native program, to be executed; in a memory file where those may be. */
  get path(): string {
    return this.#closed ? this.#program : (this.#life.image ?? this.#program);
  }

  /**
   * Starts a monitor and waits until it has created its container (with `--start`, started it), or says why not.
   * @throws  MonitorSilent when it says nothing, else Error with the monitor's or the runtime's reason
   */
  async launch(request: LaunchRequest): Promise<MonitorStarted> {
    // Whoever ended it (the kernel, out of memory) ends no container with it; the next one is started as well.
    if (this.#life.isOver && !this.#closed) this.#life = new Life(this.#program, this.#environment);
    const text = await this.#life.launch(request);
    if (text === "") throw new MonitorSilent("the monitor ended without an answer");
    if (!text.startsWith("{")) throw new Error(text.trim());
    const answer = JSON.parse(text) as { ok: boolean; pid?: number; startTime?: number; error?: string };
    if (!answer.ok || answer.pid === undefined) throw new Error(runtimeMessage(answer.error ?? "no reason given"));
    return { pid: answer.pid, startTime: answer.startTime ?? 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#life.end();
  }
}
