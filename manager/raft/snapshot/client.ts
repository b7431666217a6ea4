/**
 * Snapshots as the raft thread has them: it asks the source for content in slices of at most 5 ms, and everything else
 * happens on the snapshots' thread. At most a few chunks are between the two, so memory does not grow with the snapshot.
 */
import { Worker } from "node:worker_threads";
import { InvariantViolation } from "../../../lib/pure/errors.ts";
import type { MemberId, SnapshotMeta } from "../core/types.ts";
import type { DataKey } from "../keys/index.ts";
import type { Scheduler, SnapshotSink, SnapshotSource, SnapshotStore } from "../ports.ts";
import { unpackError } from "../thread-errors.ts";
import type { Act, Acts } from "./desk.ts";
import { SnapshotAborted } from "./errors.ts";
import { contentBytesMax } from "./format.ts";
import { RestingThread } from "./resting-thread.ts";
import type { SnapshotReport, SnapshotRequestMessage, SnapshotWorkerData } from "./snapshot-worker.ts";
import type { SnapshotChunk, SnapshotOffer, SnapshotReader, SnapshotReceiver, SnapshotTransfers } from "./transfer.ts";

const sliceMs = 5;
/** Chunks handed over and not answered yet. */
const windowMax = 4;

/** What is needed of a thread. */
export type SnapshotThread = Pick<RestingThread, "postMessage" | "on" | "once" | "terminate">;

type Answered<A extends Act> = (error: Error | undefined, answer: Acts[A]["answer"] | undefined) => void;

export class SnapshotClient implements SnapshotStore, SnapshotTransfers {
  readonly #worker: SnapshotThread;
  readonly #scheduler: Scheduler;
  readonly #pending = new Map<number, (error: Error | undefined, answer: unknown) => void>();
  #requests = 0;
  #failure: Error | undefined;
  #closing = false;
  readonly #exited: Promise<void>;
  readonly #opened = Promise.withResolvers<{ metas: readonly SnapshotMeta[]; damaged: readonly Error[] }>();

  /** Starts the thread, which finds and verifies the newest whole snapshot. */
  static start(data: SnapshotWorkerData, scheduler: Scheduler): SnapshotClient {
    const here = import.meta.url;
    const file = new URL(here.endsWith(".ts") ? "./snapshot-worker.ts" : "./snapshot-worker.js", here);
    const thread = (now: SnapshotWorkerData): Worker => new Worker(file, { workerData: now, name: "snapshots" });
    return new SnapshotClient(new RestingThread(data, thread), scheduler);
  }

  /** Over a thread that runs already. */
  constructor(worker: SnapshotThread, scheduler: Scheduler) {
    this.#scheduler = scheduler;
    this.#worker = worker;
    this.#opened.promise.catch(() => {}); // nobody may be waiting for it when the thread fails
    this.#worker.on("message", (report: SnapshotReport) => this.#onReport(report));
    this.#worker.on("error", (error: unknown) => this.#fail(error instanceof Error ? error : new Error(String(error))));
    this.#exited = new Promise((resolve) => {
      this.#worker.once("exit", () => {
        this.#fail(
          this.#closing
            ? new SnapshotAborted("the storage was closed")
            : new InvariantViolation("the snapshots' thread ended by itself"),
        );
        resolve();
      });
    });
  }

  /** The metas of whole snapshots, newest first, and what was found damaged before. */
  get opened(): Promise<{ metas: readonly SnapshotMeta[]; damaged: readonly Error[] }> {
    return this.#opened.promise;
  }

  create(
    meta: SnapshotMeta,
    source: SnapshotSource,
    done: (error: Error | undefined, sizeBytes: number) => void,
  ): void {
    this.#ask("begin", meta, (error, opened) => {
      if (error !== undefined || opened === undefined) done(error ?? new SnapshotAborted("it was not begun"), 0);
      else this.#feed(opened.handle, source, done);
    });
  }

  #feed(handle: number, source: SnapshotSource, done: (error: Error | undefined, sizeBytes: number) => void): void {
    let outstanding = 0;
    let over = false;
    let deferred = false;
    const end = (error: Error | undefined, sizeBytes: number): void => {
      if (over) return;
      over = true;
      if (error !== undefined) this.#ask("abort", { handle }, () => {});
      done(error, sizeBytes);
    };
    const slice = (): void => {
      deferred = false;
      const startMs = this.#scheduler.nowMs();
      for (;;) {
        if (over || outstanding >= windowMax) return;
        if (this.#scheduler.nowMs() - startMs >= sliceMs) {
          deferred = true;
          this.#scheduler.defer(slice);
          return;
        }
        let content: Uint8Array | undefined;
        try {
          const next = source.next(contentBytesMax);
          // A copy, since the memory moves to the other thread; `slice` of a Buffer would not be one.
          content = next === undefined ? undefined : new Uint8Array(next);
        } catch (error) {
          end(new SnapshotAborted("its source failed", error), 0);
          return;
        }
        if (content === undefined) {
          outstanding = windowMax;
          this.#ask("finish", { handle }, (error, sizeBytes) => end(error, sizeBytes ?? 0));
          return;
        }
        outstanding++;
        this.#ask(
          "write",
          { handle, content },
          (error) => {
            outstanding--;
            if (error !== undefined) end(error, 0);
            else if (!deferred && !over && outstanding < windowMax) {
              deferred = true;
              this.#scheduler.defer(slice);
            }
          },
          [content.buffer as ArrayBuffer],
        );
      }
    };
    slice();
  }

  load(meta: SnapshotMeta, sink: SnapshotSink, done: (error: Error | undefined) => void): void {
    this.#ask("openReader", meta, (error, opened) => {
      if (error !== undefined || opened === undefined) {
        done(error ?? new SnapshotAborted("it was not opened"));
        return;
      }
      const { handle, offer } = opened;
      const end = (error: Error | undefined): void => {
        this.#ask("closeReader", { handle }, () => {});
        done(error);
      };
      let over = false;
      // The next chunk is on its way while the sink takes this one; each arrives in a turn of its own.
      const fetch = (number: number): void =>
        this.#ask("readContent", { handle, number }, (error, content) => {
          if (over) return;
          const isLast = number + 1 >= offer.chunks;
          if (content !== undefined && !isLast) fetch(number + 1);
          const failed =
            content === undefined
              ? (error ?? new SnapshotAborted("a chunk did not come"))
              : attempt(() => {
                  sink.write(content);
                  if (isLast) sink.finish(meta.index);
                });
          if (failed === undefined && !isLast) return;
          over = true;
          end(failed);
        });
      if (offer.chunks > 1) fetch(1);
      else end(attempt(() => sink.finish(meta.index)));
    });
  }

  openReader(meta: SnapshotMeta, done: (error: Error | undefined, reader: SnapshotReader | undefined) => void): void {
    this.#ask("openReader", meta, (error, opened) => {
      if (opened === undefined) {
        done(error, undefined);
        return;
      }
      const { handle, offer } = opened;
      done(undefined, {
        offer,
        read: (number, taken) => this.#ask("readChunk", { handle, number }, taken),
        close: () => this.#ask("closeReader", { handle }, () => {}),
      });
    });
  }

  openReceiver(
    from: MemberId,
    offer: SnapshotOffer,
    done: (error: Error | undefined, receiver: SnapshotReceiver | undefined) => void,
  ): void {
    this.#ask("openReceiver", { from, offer }, (error, opened) => {
      if (opened === undefined) {
        done(error, undefined);
        return;
      }
      const { handle } = opened;
      let { nextChunk } = opened;
      done(undefined, {
        get nextChunk() {
          return nextChunk;
        },
        write: ({ number, data, crc }: SnapshotChunk, taken) => {
          const own = new Uint8Array(data);
          const written = (error: Error | undefined): void => {
            if (error === undefined) nextChunk = number + 1;
            taken(error);
          };
          this.#ask("receive", { handle, chunk: { number, data: own, crc } }, written, [own.buffer]);
        },
        finish: (taken) => this.#ask("finishReceive", { handle }, taken),
        suspend: () => this.#ask("suspend", { handle }, () => {}),
      });
    });
  }

  /** Puts a received snapshot in force. */
  install(meta: SnapshotMeta, done: (error: Error | undefined) => void): void {
    this.#ask("install", meta, done);
  }

  /** New files are sealed with this key from now on. */
  useKey(key: DataKey): Promise<void> {
    return this.#promise("useKey", key);
  }

  keysInUse(): Promise<readonly number[]> {
    return this.#promise("keysInUse", undefined);
  }

  /** What is under way is given up. Closing twice is fine. */
  async close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = true;
      await this.#worker.terminate();
    }
    await this.#exited;
  }

  // ---- inside ----

  #promise<A extends Act>(act: A, argument: Acts[A]["argument"]): Promise<Acts[A]["answer"]> {
    return new Promise((resolve, reject) => {
      this.#ask(act, argument, (error, answer) => {
        if (error === undefined) resolve(answer);
        else reject(error);
      });
    });
  }

  #ask<A extends Act>(
    act: A,
    argument: Acts[A]["argument"],
    answered: Answered<A>,
    transfer: ArrayBuffer[] = [],
  ): void {
    const failure = this.#failure;
    if (failure !== undefined) {
      queueMicrotask(() => answered(failure, undefined));
      return;
    }
    const id = ++this.#requests;
    this.#pending.set(id, answered as (error: Error | undefined, answer: unknown) => void);
    this.#worker.postMessage({ id, act, argument } satisfies SnapshotRequestMessage, transfer);
  }

  #onReport(report: SnapshotReport): void {
    switch (report.kind) {
      case "opened":
        this.#opened.resolve({ metas: report.metas, damaged: report.damaged.map(unpackError) });
        break;
      case "answer":
        this.#take(report.id)?.(undefined, report.answer);
        break;
      case "refused":
        this.#take(report.id)?.(unpackError(report.error), undefined);
        break;
      case "failed":
        this.#fail(unpackError(report.error));
        break;
    }
  }

  #take(id: number): ((error: Error | undefined, answer: unknown) => void) | undefined {
    const answered = this.#pending.get(id);
    this.#pending.delete(id);
    return answered;
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#opened.reject(error);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const answered of pending) answered(error, undefined);
  }
}

function attempt(act: () => void): Error | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new SnapshotAborted("the state machine refused it", error);
  }
}
