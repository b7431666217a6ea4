/** Attachments and exec sessions: what a client holds in its hands while it talks to a process. */
import { FrameSplitter, type LogFrame } from "./core/log-frames.ts";
import { fromNow } from "./core/ctl-messages.ts";
import { MonitorFailed } from "./errors.ts";
import { readFramesAfter } from "./log-reader.ts";
import { MonitorConnection } from "./monitor-connection.ts";

export interface OutputChunk {
  readonly stream: "stdout" | "stderr";
  readonly bytes: Buffer;
}

/** Whether that is how a monitor answers that has ended. */
function isGone(error: unknown): boolean {
  const { code = "" } = error as NodeJS.ErrnoException;
  return error instanceof MonitorFailed || ["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE"].includes(code);
}

/** Largest piece of standard input in one message. */
const stdinPiece = 32 * 1024;

async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; at < bytes.length; at += stdinPiece) yield bytes.subarray(at, at + stdinPiece);
}

export interface AttachOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

/** A place in a log that is never cut. */
export interface LogPlace {
  readonly offset: bigint;
  /** Frames behind it are younger. */
  readonly sinceNs: bigint;
}

/** A client at a container's standard streams. It can be made before the container runs; then it waits. */
export class Attachment implements Disposable {
  readonly options: AttachOptions;
  readonly #connection = Promise.withResolvers<MonitorConnection | undefined>();
  readonly #closeStdinWithUs: boolean;
  readonly #logPath: string | undefined;
  readonly #finished = Promise.withResolvers<void>();
  /** Resolves when its output has been read to the end, or nobody wants it any more. */
  readonly finished: Promise<void> = this.#finished.promise;
  #closed = false;
  /** Frames before it were there before this client. */
  #connectedAtNs = 0n;
  /** Its monitor was gone when it came: all that there is lies in the log. */
  #readsLog = false;

  /**
   * @param closeStdinWithUs  `StdinOnce`: the container's input ends with this client
   * @param logPath           where a client that was slow finds the rest when the container has ended
   */
  constructor(options: AttachOptions, closeStdinWithUs: boolean, logPath: string | undefined) {
    this.options = options;
    this.#logPath = logPath;
    this.#closeStdinWithUs = closeStdinWithUs && options.stdin;
  }

  /**
   * Called by the container: before it starts, so that no byte is missed, or at once when it runs.
   * @param from  where its output begins, in a log that keeps all of it; undefined: with what comes from now on
   */
  async connect(stateDirectory: string, from?: LogPlace): Promise<void> {
    if (this.#closed) return;
    let connection: MonitorConnection | undefined;
    try {
      connection = await MonitorConnection.open(stateDirectory);
      // Before the monitor notes its place: what is too early is seen twice by who falls behind at once, too late never.
      this.#connectedAtNs = from?.sinceNs ?? BigInt(Date.now()) * 1_000_000n;
      await connection.request(
        {
          type: "attach",
          offset: from?.offset ?? fromNow,
          stdin: this.options.stdin,
          output: this.options.stdout || this.options.stderr,
        },
        "attached",
      );
    } catch (error) {
      connection?.[Symbol.dispose]();
      if (from === undefined || !isGone(error)) throw error;
      this.#connectedAtNs = from.sinceNs;
      this.#readsLog = true;
      connection = undefined;
    }
    this.#connection.resolve(connection);
  }

  /** There is nothing to be heard of it: it will not start, or has ended. */
  abandon(): void {
    this.#finished.resolve();
    this.#connection.resolve(undefined);
  }

  /** Ends when the container does. Throws MonitorFailed when the log was rotated past a slow client. */
  async *output(): AsyncGenerator<OutputChunk, void, undefined> {
    try {
      for await (const frame of this.#frames()) {
        if (frame.stream === "stdout" && this.options.stdout) yield { stream: "stdout", bytes: frame.payload };
        if (frame.stream === "stderr" && this.options.stderr) yield { stream: "stderr", bytes: frame.payload };
      }
    } finally {
      this.#finished.resolve();
    }
  }

  async *#frames(): AsyncGenerator<LogFrame, void, undefined> {
    const connection = await this.#connection.promise;
    if (connection === undefined) {
      if (this.#readsLog && this.#logPath !== undefined) yield* readFramesAfter(this.#logPath, this.#connectedAtNs);
      return;
    }
    const splitter = new FrameSplitter();
    let lastNs = this.#connectedAtNs;
    for await (const event of connection.events()) {
      if (event.type === "end") {
        if (event.reason.startsWith("too slow")) throw new MonitorFailed("attach", event.reason);
        // The monitor does not wait for ever for a slow client. The log has what it had no time for.
        if (event.reason === "behind" && this.#logPath !== undefined) yield* readFramesAfter(this.#logPath, lastNs);
        return;
      }
      if (event.type !== "data") continue;
      for (const frame of splitter.push(event.bytes)) {
        lastNs = frame.timeNs;
        yield frame;
      }
    }
  }

  /** Waits while the container does not read. */
  async write(bytes: Uint8Array): Promise<void> {
    const connection = await this.#connection.promise;
    for await (const piece of pieces(bytes)) await connection?.send({ type: "stdin", bytes: piece });
  }

  async closeStdin(): Promise<void> {
    const connection = await this.#connection.promise;
    await connection?.send({ type: "closeStdin" });
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#finished.resolve();
    void this.#connection.promise.then(async (connection) => {
      if (connection === undefined) return;
      // The container may have ended meanwhile: then its input has, too.
      if (this.#closeStdinWithUs) await connection.send({ type: "closeStdin" }).catch(() => undefined);
      connection[Symbol.dispose]();
    });
    this.#connection.resolve(undefined);
  }
}

/** A running exec session with its streams. */
export class ExecStream implements Disposable {
  readonly pid: number;
  readonly #connection: MonitorConnection;
  readonly #exit = Promise.withResolvers<number>();
  /** The exit code; 255 when the monitor died before it told. */
  readonly exit: Promise<number> = this.#exit.promise;

  constructor(pid: number, connection: MonitorConnection) {
    this.pid = pid;
    this.#connection = connection;
  }

  /** All output, then the end. Must be read (or `drain` called): it carries the exit code. */
  async *output(): AsyncGenerator<OutputChunk, void, undefined> {
    try {
      for await (const event of this.#connection.events()) {
        if (event.type === "execExit") {
          this.#exit.resolve(event.code);
          return;
        }
        if (event.type === "execData") yield { stream: event.stream === 2 ? "stderr" : "stdout", bytes: event.bytes };
      }
    } finally {
      this.#exit.resolve(255); // nothing, when the code is known
      this.#connection[Symbol.dispose]();
    }
  }

  /** Reads to the end and keeps the first bytes. */
  async drain(bytesMax = 0): Promise<Buffer> {
    const kept: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of this.output()) {
      if (bytes < bytesMax) kept.push(chunk.bytes.subarray(0, bytesMax - bytes));
      bytes += chunk.bytes.length;
    }
    return Buffer.concat(kept);
  }

  async write(bytes: Uint8Array): Promise<void> {
    for await (const piece of pieces(bytes)) await this.#connection.send({ type: "stdin", bytes: piece });
  }

  async closeStdin(): Promise<void> {
    await this.#connection.send({ type: "closeStdin" });
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }
}
