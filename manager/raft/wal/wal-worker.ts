/**
 * The log's thread: keys and log of one data folder. It sleeps on the ring, takes all saves that wait, makes them durable
 * with one fdatasync and says how many. Nothing here shares libuv's pool, so other jobs cannot delay a write.
 */
import { randomBytes } from "node:crypto";
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from "node:worker_threads";
import { invariant } from "../../../lib/pure/errors.ts";
import { nodeFileSystem } from "../../../lib/runtime/file-system.ts";
import type { HardState, SnapshotMeta } from "../core/types.ts";
import { logFolderName, openKeys, type DirectStorageOptions } from "../direct-storage.ts";
import { KeyFileUnusable, type DataKey, type Kek, type KeyRing } from "../keys/index.ts";
import { packError, type PackedError } from "../thread-errors.ts";
import { WalEngine, encodeBatch, type EncodedBatch } from "./engine.ts";
import { LogDiskFull } from "./errors.ts";
import type { RecoveredBatch } from "./recovery.ts";
import { RingReader } from "./ring.ts";
import { isOrderMessage, readSaveMessage } from "./save-message.ts";
import { SyncTimes } from "./sync-times.ts";
import type { SaveBatch } from "../ports.ts";

export interface WalWorkerData {
  readonly memory: SharedArrayBuffer;
  readonly orders: MessagePort;
  readonly storage: Omit<DirectStorageOptions, "files" | "randomBytes" | "cipher">;
}

/** What the raft thread orders; each takes its place among the saves. */
export type WalOrder =
  | { readonly kind: "open"; readonly snapshots: readonly SnapshotMeta[] }
  | { readonly kind: "save"; readonly batch: SaveBatch }
  | { readonly kind: "compact"; readonly index: number }
  | { readonly kind: "reset"; readonly meta: SnapshotMeta; readonly hardState: HardState }
  | KeyOrder;

type KeyOrder =
  | { readonly kind: "rotateKey" }
  | { readonly kind: "retireKeys"; readonly needed: readonly number[] }
  | { readonly kind: "changeKek"; readonly kek: Kek };

/** What an order comes back with. */
interface Answer {
  readonly answer?: unknown;
  readonly error?: PackedError;
}

export type RecoveredMessage = Pick<RecoveredBatch, "firstIndex" | "lastIndex" | "count" | "payload">;

export type WalReport =
  | { readonly kind: "keys"; readonly keys: readonly DataKey[]; readonly activeId: number }
  | {
      readonly kind: "opened";
      readonly hardState: HardState;
      readonly snapshot: SnapshotMeta;
      readonly batches: readonly RecoveredMessage[];
    }
  /** To the next order; saves are answered by the ring's count alone. */
  | ({ readonly kind: "answer" } & Answer)
  /** The log cannot be opened before there is room on the disk. */
  | { readonly kind: "full" }
  | { readonly kind: "failed"; readonly error: PackedError };

/** A last record gets its mark after so long without another one; each later record is a mark itself. */
const markAfterMs = 20;
const lookAtSpaceMs = 1_000;
const retryWhenFullMs = 100;
const groupMax = 4_096;

class WalThread {
  readonly #ring: RingReader;
  readonly #orders: MessagePort;
  readonly #options: DirectStorageOptions;
  #keys: KeyRing | undefined;
  #engine: WalEngine | undefined;
  readonly #syncTimes = new SyncTimes();
  #entries = 0;
  #bytes = 0;
  #closed = false;
  #hasToldFull = false;

  constructor(data: WalWorkerData) {
    this.#ring = new RingReader(data.memory);
    this.#orders = data.orders;
    this.#options = {
      ...data.storage,
      files: this.#syncTimes.of(nodeFileSystem),
      randomBytes: (count) => new Uint8Array(randomBytes(count)),
    };
  }

  run(): void {
    try {
      this.#keys = openKeys(this.#options);
      tell({ kind: "keys", keys: this.#keys.all(), activeId: this.#keys.active.id });
      while (!this.#closed) this.#turn();
    } catch (error) {
      tell({ kind: "failed", error: packError(error) });
    } finally {
      this.#orders.close();
    }
  }

  #turn(): void {
    const message = this.#ring.peek();
    if (message !== undefined) {
      if (isOrderMessage(message)) this.#order(this.#ring.position);
      else this.#saves(message);
      return;
    }
    if (this.#ring.isClosing) this.#close();
    else this.#rest();
  }

  /** Takes every save that waits, and makes them durable in as few steps as possible. */
  #saves(first: Uint8Array): void {
    const group: EncodedBatch[] = [readSaveMessage(first)];
    const ends: number[] = [this.#ring.position];
    let order: number | undefined;
    while (group.length < groupMax && order === undefined) {
      const message = this.#ring.peek();
      if (message === undefined) break;
      if (isOrderMessage(message)) order = this.#ring.position;
      else {
        group.push(readSaveMessage(message));
        ends.push(this.#ring.position);
      }
    }
    for (let done = 0; done < group.length;) {
      const count = this.#patiently(() => this.#open.commit(group, done));
      if (count === undefined) return;
      for (const batch of group.slice(done, done + count)) {
        this.#entries += batch.count;
        this.#bytes += batch.payload.length;
      }
      done += count;
      this.#ring.release(ends[done - 1] as number);
      this.#report("ok");
      this.#ring.finish(count);
    }
    if (order !== undefined) this.#order(order);
  }

  #order(position: number): void {
    const received = receiveMessageOnPort(this.#orders);
    invariant(received !== undefined, "an order follows its mark");
    const answer = this.#patiently(() => this.#obey(received.message as WalOrder));
    if (answer === undefined) return;
    this.#ring.release(position);
    this.#report("ok");
    tell({ kind: "answer", ...answer });
    this.#ring.finish(1);
  }

  #obey(order: WalOrder): Answer {
    switch (order.kind) {
      case "open":
        this.#openLog(order.snapshots);
        return {};
      case "save": {
        const batch = encodeBatch(order.batch);
        this.#open.commitAll([batch]);
        this.#entries += batch.count;
        this.#bytes += batch.payload.length;
        return {};
      }
      case "compact":
        this.#open.compact(order.index);
        return {};
      case "reset":
        this.#open.reset(order.meta, order.hardState);
        return {};
      default:
        return this.#obeyKeys(order);
    }
  }

  /** Trouble with the key file is an answer, not the end: the keys in force stay in force. */
  #obeyKeys(order: KeyOrder): Answer {
    try {
      switch (order.kind) {
        case "rotateKey":
          this.#keyRing.rotate();
          break;
        case "retireKeys":
          this.#keyRing.retain(new Set([...order.needed, ...this.#open.keysInUse()]));
          return { answer: this.#keyRing.all().length };
        case "changeKek":
          this.#keyRing.changeKek(order.kek);
          return {};
      }
    } catch (error) {
      if (error instanceof KeyFileUnusable) return { error: packError(error) };
      throw error;
    }
    const key = this.#keyRing.active;
    return this.#patiently(() => (this.#open.useActiveKey(), { answer: key })) ?? {};
  }

  #openLog(snapshots: readonly SnapshotMeta[]): void {
    const { log = {}, ...common } = this.#options;
    const folder = `${common.folder}/${logFolderName}`;
    this.#engine = WalEngine.open({ ...common, ...log, folder, keys: this.#keyRing, snapshots });
    const { hardState, snapshot, batches } = this.#engine.recovered;
    const sent = batches.map(({ firstIndex, lastIndex, count, payload }) => ({
      firstIndex,
      lastIndex,
      count,
      payload,
    }));
    tell(
      { kind: "opened", hardState, snapshot, batches: sent },
      sent.map(({ payload }) => payload.buffer as ArrayBuffer),
    );
    this.#engine.forgetRecovered();
  }

  /** Runs `act` until there is room for it. @returns undefined if the raft thread closed meanwhile */
  #patiently<T>(act: () => T): T | undefined {
    for (;;) {
      try {
        return act();
      } catch (error) {
        if (!(error instanceof LogDiskFull)) throw error;
        this.#report("full");
        // Before it is open nobody looks at the figures.
        if (this.#engine === undefined && !this.#hasToldFull) tell({ kind: "full" });
        this.#hasToldFull = true;
        if (this.#ring.isClosing) {
          this.#close();
          return undefined;
        }
        this.#ring.pause(retryWhenFullMs);
      }
    }
  }

  #rest(): void {
    const engine = this.#engine;
    if (engine === undefined) {
      this.#ring.wait(lookAtSpaceMs);
      return;
    }
    const position = this.#ring.position;
    this.#ring.wait(engine.needsMark ? markAfterMs : lookAtSpaceMs);
    if (!this.#ring.hasMore(position)) {
      while (this.#tend(engine) && !this.#ring.hasMore(position));
      this.#report("ok");
    }
  }

  /** What can wait waits longer on a full disk; the saves will say so if it matters. */
  #tend(engine: WalEngine): boolean {
    try {
      return engine.idle();
    } catch (error) {
      if (error instanceof LogDiskFull) return false;
      throw error;
    }
  }

  #report(space: "ok" | "full"): void {
    const status = this.#engine?.status;
    if (status === undefined) return;
    this.#ring.report(space === "full" ? "full" : status.space, {
      freeBytes: status.freeBytes,
      sizeBytes: status.sizeBytes,
      syncs: status.syncs,
      syncMs: this.#syncTimes.sumMs,
      syncCounts: this.#syncTimes.counts,
      entries: this.#entries,
      bytes: this.#bytes,
      keys: this.#keys?.all().length ?? 0,
    });
  }

  #close(): void {
    this.#closed = true;
    this.#engine?.close();
  }

  get #open(): WalEngine {
    invariant(this.#engine !== undefined, "the log is opened before it is used");
    return this.#engine;
  }

  get #keyRing(): KeyRing {
    invariant(this.#keys !== undefined, "the keys are opened first");
    return this.#keys;
  }
}

function tell(report: WalReport, transfer: readonly ArrayBuffer[] = []): void {
  parentPort?.postMessage(report, transfer);
}

new WalThread(workerData as WalWorkerData).run();
