/**
 * The log as the raft thread has it: saves go into the ring without waiting, callbacks come back in order. While the
 * log's thread is busy with one fdatasync, what arrives meanwhile becomes the next group.
 */
import { MessageChannel, Worker, type MessagePort } from "node:worker_threads";
import { InvariantViolation, invariant } from "../../../lib/pure/errors.ts";
import type { HardState, SnapshotMeta } from "../core/types.ts";
import type { DataKey, Kek } from "../keys/index.ts";
import type { LogStorage, RecoveredLog, SaveBatch } from "../ports.ts";
import { unpackError } from "../thread-errors.ts";
import { LogClosed, LogDiskFull } from "./errors.ts";
import { decodeEntries, encodedEntriesBytes } from "./format.ts";
import { RingWriter, ringMemory } from "./ring.ts";
import { orderMessageBytes, putOrderMessage, putSaveMessage, saveMessageBytes } from "./save-message.ts";
import type { LogStatus } from "./status.ts";
import type { WalOrder, WalReport, WalWorkerData } from "./wal-worker.ts";

type Done = (error: Error | undefined, answer?: unknown) => void;

/** A save or an order that is not in the ring yet, or is there and not done. */
interface Pending {
  readonly sinceMs: number;
  readonly done: Done;
  /** An order: it is done when its answer is here. */
  readonly isOrder: boolean;
}

interface Waiting extends Pending {
  readonly save: SaveBatch | undefined;
  readonly order: WalOrder | undefined;
}

const ringBytes = 8 * 1024 * 1024;
/** A larger save goes as a message of its own, so that a half-empty ring always has room for one. */
const ringMessageBytesMax = 1024 * 1024;

export class WalClient implements LogStorage {
  readonly #ring: RingWriter;
  readonly #orders: MessagePort;
  readonly #worker: Worker;
  readonly #nowMs: () => number;
  readonly #onFull: (error: LogDiskFull) => void;
  /** In the ring, in order. A queue whose front moves. */
  readonly #inRing: (Pending | undefined)[] = [];
  #inRingFrom = 0;
  readonly #waiting: Waiting[] = [];
  /** How many of the ring's messages have been called back, modulo 2^32. */
  #settled = 0;
  readonly #answers: Extract<WalReport, { kind: "answer" }>[] = [];
  #failure: Error | undefined;
  #closing = false;
  readonly #exited: Promise<void>;
  readonly #keys = Promise.withResolvers<{ keys: readonly DataKey[]; activeId: number }>();
  readonly #recovered = Promise.withResolvers<RecoveredLog>();

  /**
   * Starts the thread; it opens the keys at once.
   * @param nowMs   monotonic
   * @param onFull  told once when opening has to wait for room on the disk
   */
  constructor(storage: WalWorkerData["storage"], nowMs: () => number, onFull: (error: LogDiskFull) => void = () => {}) {
    this.#onFull = onFull;
    const memory = ringMemory(ringBytes);
    const { port1, port2 } = new MessageChannel();
    this.#ring = new RingWriter(memory);
    this.#orders = port1;
    this.#nowMs = nowMs;
    const data: WalWorkerData = { memory, orders: port2, storage };
    const here = import.meta.url;
    const file = new URL(here.endsWith(".ts") ? "./wal-worker.ts" : "./wal-worker.js", here);
    this.#worker = new Worker(file, { workerData: data, transferList: [port2], name: "wal" });
    // Nobody may be waiting for these when the thread fails.
    this.#keys.promise.catch(() => {});
    this.#recovered.promise.catch(() => {});
    this.#worker.on("message", (report: WalReport) => this.#onReport(report));
    this.#worker.on("error", (error) => this.#fail(error instanceof Error ? error : new Error(String(error))));
    this.#watch().catch((error: unknown) => this.#fail(error instanceof Error ? error : new Error(String(error))));
    this.#exited = new Promise((resolve) => {
      this.#worker.once("exit", () => {
        this.#fail(this.#closing ? new LogClosed() : new InvariantViolation("the log's thread ended by itself"));
        this.#orders.close();
        resolve();
      });
    });
  }

  /** The data keys, as soon as they are open. */
  get keys(): Promise<{ keys: readonly DataKey[]; activeId: number }> {
    return this.#keys.promise;
  }

  /** Recovers the log. @param snapshots  metas of the whole ones at hand, newest first */
  open(snapshots: readonly SnapshotMeta[]): Promise<RecoveredLog> {
    this.#submit(undefined, { kind: "open", snapshots }, () => {});
    return this.#recovered.promise;
  }

  save(batch: SaveBatch, done: (error: Error | undefined) => void): void {
    this.#submit(batch, undefined, done);
  }

  compact(index: number, done: (error: Error | undefined) => void = () => {}): void {
    this.#submit(undefined, { kind: "compact", index }, done);
  }

  reset(meta: SnapshotMeta, hardState: HardState, done: (error: Error | undefined) => void): void {
    this.#submit(undefined, { kind: "reset", meta, hardState }, done);
  }

  /** New records use a new data key, which is returned for other files. */
  rotateKey(): Promise<DataKey> {
    return this.#ask({ kind: "rotateKey" }) as Promise<DataKey>;
  }

  /** Drops the keys that neither the log nor `needed` names. @returns how many are left */
  retireKeys(needed: readonly number[]): Promise<number> {
    return this.#ask({ kind: "retireKeys", needed }) as Promise<number>;
  }

  async changeKek(kek: Kek): Promise<void> {
    await this.#ask({ kind: "changeKek", kek });
  }

  get space(): LogStatus["space"] {
    return this.#ring.space;
  }

  status(): LogStatus {
    const { freeBytes, sizeBytes, syncs, syncMs, syncCounts, entries, bytes, keys } = this.#ring.readFigures();
    const oldest = this.#inRing[this.#inRingFrom] ?? this.#waiting[0];
    return {
      space: this.#ring.space,
      freeBytes,
      oldestPendingMs: oldest === undefined ? 0 : Math.max(0, this.#nowMs() - oldest.sinceMs),
      pendingSaves: this.#inRing.length - this.#inRingFrom + this.#waiting.length,
      sizeBytes,
      syncs,
      syncSecondsTotal: syncMs / 1_000,
      syncCounts,
      savedEntries: entries,
      savedBytes: bytes,
      dataKeys: keys,
    };
  }

  /** What is in the ring is still made durable, unless the disk is full; the rest fails. Closing twice is fine. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#ring.close();
    await this.#exited;
  }

  // ---- inside ----

  #ask(order: WalOrder): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#submit(undefined, order, (error, answer) => (error === undefined ? resolve(answer) : reject(error)));
    });
  }

  #submit(save: SaveBatch | undefined, order: WalOrder | undefined, done: Done): void {
    const failure = this.#failure;
    if (failure !== undefined) {
      queueMicrotask(() => done(failure));
      return;
    }
    const sinceMs = this.#nowMs();
    const isOrder = save === undefined || messageBytesOf(save) > ringMessageBytesMax;
    if (this.#waiting.length > 0 || !this.#put(save, order))
      this.#waiting.push({ sinceMs, done, save, order, isOrder });
    else this.#inRing.push({ sinceMs, done, isOrder });
  }

  /** @returns false if the ring has no room now */
  #put(save: SaveBatch | undefined, order: WalOrder | undefined): boolean {
    if (save !== undefined) {
      const messageBytes = messageBytesOf(save);
      if (messageBytes <= ringMessageBytesMax) {
        const room = this.#ring.reserve(messageBytes);
        if (room === undefined) return false;
        checkConsecutive(save);
        putSaveMessage(room.bytes, room.view, save);
        this.#ring.push(messageBytes);
        return true;
      }
    }
    const room = this.#ring.reserve(orderMessageBytes);
    if (room === undefined) return false;
    putOrderMessage(room.bytes);
    // A clone of the entries: they may be views of memory that others use.
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port between threads has no origin
    this.#orders.postMessage(order ?? ({ kind: "save", batch: save as SaveBatch } satisfies WalOrder));
    this.#ring.push(orderMessageBytes);
    return true;
  }

  #onReport(report: WalReport): void {
    switch (report.kind) {
      case "keys":
        this.#keys.resolve(report);
        break;
      case "opened":
        this.#onOpened(report);
        break;
      case "answer":
        this.#answers.push(report);
        this.#settle();
        break;
      case "full":
        this.#onFull(new LogDiskFull());
        break;
      case "failed":
        this.#fail(unpackError(report.error));
        break;
    }
  }

  #onOpened({ hardState, snapshot, batches }: Extract<WalReport, { kind: "opened" }>): void {
    const entries = batches.flatMap(({ firstIndex, lastIndex, count, payload }) => {
      const decoded = decodeEntries(payload, firstIndex, count);
      invariant(decoded !== undefined, "what recovery has checked decodes again");
      return decoded.slice(0, lastIndex - firstIndex + 1);
    });
    this.#recovered.resolve({ hardState, snapshot, entries });
  }

  /**
   * Calls back what the thread has counted as done, in order.
   * @returns the count that was looked at: the thread may have counted further while callbacks ran
   */
  #settle(): number {
    const done = this.#ring.done;
    for (; this.#settled !== done; this.#settled = (this.#settled + 1) >>> 0) {
      const pending = this.#inRing[this.#inRingFrom];
      if (this.#failure !== undefined) return done;
      invariant(pending !== undefined, "what is done was given");
      const answer = pending.isOrder ? this.#answers.shift() : undefined;
      if (pending.isOrder && answer === undefined) return done;
      this.#inRing[this.#inRingFrom++] = undefined;
      if (answer?.error === undefined) pending.done(undefined, answer?.answer);
      else pending.done(unpackError(answer.error));
    }
    if (this.#inRingFrom > 1_024 && this.#inRingFrom * 2 > this.#inRing.length) {
      this.#inRing.splice(0, this.#inRingFrom);
      this.#inRingFrom = 0;
    }
    this.#refill();
    return done;
  }

  async #watch(): Promise<void> {
    for (let seen = this.#settled; this.#failure === undefined; seen = this.#settle()) await this.#ring.whenDone(seen);
  }

  #refill(): void {
    let moved = 0;
    for (const next of this.#waiting) {
      if (!this.#put(next.save, next.order)) break;
      this.#inRing.push(next);
      moved++;
    }
    if (moved > 0) this.#waiting.splice(0, moved);
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#keys.reject(error);
    this.#recovered.reject(error);
    const pending = [...this.#inRing.splice(0).slice(this.#inRingFrom), ...this.#waiting.splice(0)];
    this.#inRingFrom = 0;
    for (const one of pending) one?.done(error);
  }
}

function messageBytesOf({ entries }: SaveBatch): number {
  return saveMessageBytes(encodedEntriesBytes(entries));
}

function checkConsecutive({ entries }: SaveBatch): void {
  const [first, last] = [entries[0], entries.at(-1)];
  const consecutive = first === undefined || last?.index === first.index + entries.length - 1;
  invariant(consecutive, "entries of a batch are consecutive", { first: first?.index, last: last?.index });
}
