/**
 * Client of the native program netplane, which programs links, routes, nftables and the like by netlink. It runs as a child
 * for as long as this is open and is started again when it ends; what it did stays in the kernel. What only lives in it
 * (watches and reserved ports) is asked for again then. Design: docs/design/netplane.md.
 */
import { spawn, type ChildProcessByStdio } from "node:child_process";
import type { Readable, Writable } from "node:stream";

import { Backoff } from "../../lib/pure/backoff.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { withStreams, type Clock, type Logger, type Timer } from "../../lib/runtime/index.ts";
import { NetplaneGone, NetplaneNotStarted, NetplaneRefused } from "./netplane-errors.ts";
import type { Answer, Batch, NamespaceChanged, NamespacePath, Operation } from "./netplane-types.ts";

/** The program's own bounds (native/netplane/request.h, text.h). */
const requestBytesMax = 16 << 20;
const answerBytesMax = 128 << 20;
const headerBytes = 4;
/** A child that has done its work ends when its input ends; one that does not is ended. */
const endWaitMs = 5_000;
const restartMs = { minMs: 50, maxMs: 10_000 };
const errorTextMax = 4096;

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

export interface NetplaneOptions {
  readonly program: string;
  readonly args?: readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Answers in the places of the operations; undefined where an operation answers nothing. */
export type Answers<O extends readonly Operation[]> = { readonly [K in keyof O]: Answer<O[K]["op"]> };

interface Asked {
  readonly id: number;
  readonly batches: readonly Batch[];
  readonly resolve: (answers: unknown[][]) => void;
  readonly reject: (error: Error) => void;
}

interface Frame {
  readonly id?: number;
  /** How long it took, of netplane's clock. */
  readonly ns?: number;
  readonly results?: readonly { readonly batch: number; readonly operation: number; readonly value: unknown }[];
  readonly failed?: {
    readonly batch: number;
    readonly operation: number;
    readonly errno: string;
    readonly text: string;
  };
  readonly event?: string;
  readonly namespace?: string;
  readonly kinds?: NamespaceChanged["kinds"];
}

export class Netplane implements AsyncDisposable {
  readonly #options: NetplaneOptions;
  readonly #listeners = new Set<(change: NamespaceChanged | undefined) => void>();
  readonly #kept = new KeptState();
  readonly #backoff: Backoff;
  /** In the order of asking, which is that of answers. */
  #asked: Asked[] = [];
  #lastId = 0;
  #workedNs = 0;
  #child: Child | undefined;
  #ended: Promise<void> = Promise.resolve();
  #restart: Timer | undefined;
  #closed = false;

  private constructor(options: NetplaneOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.random, restartMs);
  }

  /** @throws NetplaneNotStarted */
  static async open(options: NetplaneOptions): Promise<Netplane> {
    const netplane = new Netplane(options);
    try {
      const child = netplane.#start();
      await new Promise<void>((resolve, reject) => {
        child.once("spawn", resolve);
        child.once("error", reject);
      });
    } catch (error) {
      netplane.#closed = true;
      throw new NetplaneNotStarted(options.program, error);
    }
    return netplane;
  }

  /** For how long the program has worked on what it was asked, by its own clock: without the way there and back. */
  get workedNs(): number {
    return this.#workedNs;
  }

  /** Somebody else changed a watched namespace, or (undefined) netplane began anew: what happened meanwhile was not seen. */
  onChange(listener: (change: NamespaceChanged | undefined) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * Does operations in one namespace, in order.
   * @throws NetplaneRefused  the first that failed; of those after it some may be done
   * @throws NetplaneGone     nobody knows what was done
   */
  async run<const O extends readonly Operation[]>(namespace: NamespacePath, operations: O): Promise<Answers<O>> {
    const [answers] = await this.runAll([{ namespace, operations }]);
    return answers as unknown as Answers<O>;
  }

  /** Several batches in one request, one after the other, up to the first that fails. Answers by batch and operation. */
  async runAll(batches: readonly Batch[]): Promise<unknown[][]> {
    const answers = await this.#ask(batches);
    for (const batch of batches) this.#kept.note(batch);
    return answers;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#restart?.cancel();
    const child = this.#child;
    if (child === undefined) return;
    child.stdin.end();
    const killer = this.#options.clock.after(endWaitMs, () => child.kill("SIGKILL"));
    await this.#ended;
    killer.cancel();
  }

  async #ask(batches: readonly Batch[]): Promise<unknown[][]> {
    const child = this.#child;
    if (this.#closed || child === undefined)
      throw new NetplaneGone(this.#closed ? "was closed" : "is being started again");
    const id = ++this.#lastId;
    const json = JSON.stringify({ id, batches });
    const length = Buffer.byteLength(json);
    if (length > requestBytesMax)
      throw new NetplaneRefused({ ...placeOf(batches, 0, 0), errno: "E2BIG", text: `the request has ${length} bytes` });
    const frame = Buffer.allocUnsafe(headerBytes + length);
    frame.writeUInt32LE(length);
    frame.write(json, headerBytes);
    return await new Promise<unknown[][]>((resolve, reject) => {
      this.#asked.push({ id, batches, resolve, reject });
      this.#write(child, frame);
    });
  }

  /** What is asked without waiting in between is one write: each would wake the other process, which then is in the way. */
  #write({ stdin }: Child, frame: Buffer): void {
    if (stdin.writableCorked === 0) {
      stdin.cork();
      process.nextTick(() => stdin.uncork());
    }
    stdin.write(frame);
  }

  #start(): Child {
    const { program, args = [], clock, logger } = this.#options;
    const child = withStreams(spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], cwd: "/", env: {} }));
    const startedMs = clock.monotonicMs();
    let stderr = "";
    this.#child = child;
    const frames = new FrameSplitter();
    child.stdin.on("error", () => undefined); // its end tells the same
    child.stderr.on("data", (chunk: Buffer) => (stderr = (stderr + chunk.toString("utf8")).slice(-errorTextMax)));
    child.stdout.on("data", (chunk: Buffer) => {
      try {
        for (const frame of frames.push(chunk)) this.#receive(frame);
      } catch (error) {
        logger.error("netplane is not understood and is started again", { error });
        child.kill("SIGKILL");
      }
    });
    this.#ended = new Promise((resolve) => {
      const end = (why: string): void => {
        if (this.#child === child) this.#end(why, startedMs);
        resolve();
      };
      child.once("error", (error) => end(`could not be started: ${error.message}`));
      child.once("close", (code, signal) => end(describeEnd(code, signal, stderr)));
    });
    return child;
  }

  #end(why: string, startedMs: number): void {
    const { clock, logger } = this.#options;
    this.#child = undefined;
    const asked = this.#asked;
    this.#asked = [];
    for (const { reject } of asked) reject(new NetplaneGone(why));
    if (this.#closed) return;
    logger.error("netplane ended and is started again", { why, unanswered: asked.length });
    if (clock.monotonicMs() - startedMs > restartMs.maxMs) this.#backoff.reset();
    this.#restart = clock.after(this.#backoff.next(), () => this.#begin());
  }

  /** Asks for what the one before kept, and only then tells that it is there again. */
  #begin(): void {
    try {
      this.#start();
    } catch (error) {
      // Out of descriptors or memory, for now.
      this.#end(`could not be started: ${(error as Error).message}`, this.#options.clock.monotonicMs());
      return;
    }
    const again = this.#kept.batches().map((batch) =>
      this.#ask([batch]).catch((error: unknown) => {
        if (error instanceof NetplaneGone) throw error;
        // The namespace is gone, or another process took the port meanwhile: its owner finds out by comparing.
        this.#options.logger.warn("netplane could not take up what it held", { namespace: batch.namespace, error });
      }),
    );
    Promise.all(again).then(
      () => this.#tell(undefined),
      () => undefined, // it ended again, and is started again
    );
  }

  #tell(change: NamespaceChanged | undefined): void {
    for (const listener of this.#listeners) listener(change);
  }

  #receive(bytes: Buffer): void {
    const frame = JSON.parse(bytes.toString("utf8")) as Frame;
    if (frame.event === "changed") {
      this.#tell({ namespace: frame.namespace ?? "", kinds: frame.kinds ?? [] });
      return;
    }
    const [asked] = this.#asked;
    // Who is asking stays among them, and hears of the end.
    if (asked === undefined || (frame.id !== asked.id && frame.failed === undefined))
      throw new NetplaneGone("answered what was not asked");
    this.#asked.shift();
    this.#workedNs += frame.ns ?? 0;
    if (frame.failed === undefined) {
      const answers: unknown[][] = asked.batches.map(({ operations }) =>
        Array.from<unknown>({ length: operations.length }),
      );
      for (const { batch, operation, value } of frame.results ?? []) answers[batch]?.splice(operation, 1, value);
      asked.resolve(answers);
    } else {
      const { batch, operation, errno, text } = frame.failed;
      asked.reject(new NetplaneRefused({ ...placeOf(asked.batches, batch, operation), errno, text }));
    }
  }
}

function placeOf(batches: readonly Batch[], batch: number, index: number) {
  const at = batches[batch];
  return { namespace: at?.namespace ?? "", operation: at?.operations[index]?.op ?? "", batch, index };
}

function describeEnd(code: number | null, signal: string | null, stderr: string): string {
  const how = signal === null ? `ended with code ${code}` : `was ended by ${signal}`;
  return stderr.trim() === "" ? how : `${how}: ${stderr.trim()}`;
}

/** What is kept in the process alone: watched namespaces and reserved ports. */
class KeptState {
  readonly #operations = new Map<NamespacePath, Map<string, Operation>>();

  note({ namespace, operations }: Batch): void {
    for (const operation of operations) {
      switch (operation.op) {
        case "watch":
        case "port-reserve":
          this.#put(namespace, keptKey(operation), operation);
          break;
        case "unwatch":
          this.#operations.get(namespace)?.delete("watch");
          break;
        case "port-release":
          this.#operations.get(namespace)?.delete(keptKey(operation));
          break;
        case "namespace-delete":
          this.#operations.delete(operation.path);
          break;
        default: // all others are the kernel's to keep
      }
    }
  }

  batches(): Batch[] {
    return [...this.#operations].flatMap(([namespace, kept]) =>
      [...kept.values()].map((operation) => ({ namespace, operations: [operation] })),
    );
  }

  #put(namespace: NamespacePath, key: string, operation: Operation): void {
    const kept = this.#operations.get(namespace) ?? new Map<string, Operation>();
    kept.set(key, operation);
    this.#operations.set(namespace, kept);
  }
}

function keptKey(operation: Extract<Operation, { op: "watch" | "port-reserve" | "port-release" }>): string {
  return operation.op === "watch" ? "watch" : `${operation.protocol} ${operation.port} ${operation.address ?? ""}`;
}

/** Cuts a stream into frames: u32 little-endian length and that many bytes. */
class FrameSplitter {
  /** Begins with a frame. More is added only when the frame that has begun can be had whole, so that a large one is copied once. */
  #head: Buffer = Buffer.alloc(0);
  #more: Buffer[] = [];
  #bytes = 0;

  /** @throws NetplaneGone on a length that no answer has */
  *push(chunk: Buffer): Generator<Buffer, void, undefined> {
    this.#more.push(chunk);
    this.#bytes += chunk.length;
    for (;;) {
      if (this.#head.length < headerBytes) this.#join();
      if (this.#head.length < headerBytes) return;
      const length = this.#head.readUInt32LE();
      if (length > answerBytesMax) throw new NetplaneGone(`sent a frame of ${length} bytes`);
      if (this.#bytes < headerBytes + length) return;
      this.#join();
      const frame = this.#head.subarray(headerBytes, headerBytes + length);
      this.#head = this.#head.subarray(headerBytes + length);
      this.#bytes = this.#head.length;
      yield frame;
    }
  }

  #join(): void {
    if (this.#more.length === 0) return;
    this.#head = Buffer.concat([this.#head, ...this.#more]);
    this.#more = [];
  }
}
