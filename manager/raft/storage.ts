/**
 * A member's storage in the real world: the log on a thread of its own, snapshots on another, keys beside both.
 * Opened in the order keys, snapshots, log, because each needs the one before.
 */
import { performance } from "node:perf_hooks";
import type { HardState, MemberId, SnapshotMeta } from "./core/types.ts";
import { snapshotFolderName, type DirectStorageOptions } from "./direct-storage.ts";
import type { Kek } from "./keys/index.ts";
import type {
  LogStorage,
  RecoveredLog,
  SaveBatch,
  Scheduler,
  SnapshotSink,
  SnapshotSource,
  SnapshotStore,
} from "./ports.ts";
import { SnapshotClient } from "./snapshot/client.ts";
import type { SnapshotOffer, SnapshotReader, SnapshotReceiver, SnapshotTransfers } from "./snapshot/index.ts";
import { WalClient } from "./wal/client.ts";
import { LogClosed, type LogDiskFull, type LogStatus } from "./wal/index.ts";

export type StorageOptions = Omit<DirectStorageOptions, "files" | "randomBytes" | "cipher"> & {
  /** Default: the event loop's. */
  readonly scheduler?: Scheduler;
} & OpeningOptions;

export interface OpeningOptions {
  /** Gives opening up: it waits for ever where the disk is full. */
  readonly signal?: AbortSignal;
  /** Told once when it waits for room. */
  readonly onFull?: (error: LogDiskFull) => void;
}

const eventLoop: Scheduler = {
  defer: (turn) => {
    setImmediate(turn);
  },
  nowMs: () => performance.now(),
};

export class Storage implements AsyncDisposable {
  readonly recovered: RecoveredLog;
  readonly log: LogStorage;
  readonly snapshots: SnapshotStore & SnapshotTransfers;
  /** Snapshots that were found damaged when the storage was opened; an older one is in use. */
  readonly damaged: readonly Error[];
  readonly #log: OrderedLog;
  readonly #snapshots: SnapshotClient;
  readonly #wal: WalClient;
  #locked: boolean;

  private constructor(
    recovered: RecoveredLog,
    damaged: readonly Error[],
    wal: WalClient,
    snapshots: SnapshotClient,
    locked: boolean,
  ) {
    this.#locked = locked;
    this.recovered = recovered;
    this.damaged = damaged;
    this.#wal = wal;
    this.#snapshots = snapshots;
    this.#log = new OrderedLog(wal, snapshots);
    this.log = this.#log;
    this.snapshots = this.#log.snapshots;
  }

  /**
   * @throws LogQuarantined, LogReadFailed, LogWriteFailed; KeyMissing, KeyWrong, KeyFileDamaged, KeyFileUnusable;
   *         StorageLocked, StorageForeign, StorageNewer; SnapshotWriteFailed. Files are untouched unless all is well.
   *         And the reason of `signal`.
   */
  static async open({ scheduler = eventLoop, signal, onFull, ...options }: StorageOptions): Promise<Storage> {
    signal?.throwIfAborted();
    const wal = new WalClient(options, () => scheduler.nowMs(), onFull);
    let snapshots: SnapshotClient | undefined;
    const giveUp = (): void => void wal.close();
    signal?.addEventListener("abort", giveUp, { once: true });
    try {
      const keys = await wal.keys;
      const folder = `${options.folder}/${snapshotFolderName}`;
      const { identity, compress = true } = options;
      snapshots = SnapshotClient.start({ folder, identity, compress, ...keys }, scheduler);
      const { metas, damaged } = await snapshots.opened;
      return new Storage(await wal.open(metas), damaged, wal, snapshots, options.kek.kind === "unlock");
    } catch (error) {
      await Promise.all([wal.close(), snapshots?.close()]);
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener("abort", giveUp);
    }
  }

  status(): LogStatus {
    return this.#log.status();
  }

  get space(): LogStatus["space"] {
    return this.#wal.space;
  }

  /**
   * New writes use a new data key at once.
   * @returns when no file needs an older one: after the next snapshot and compaction, which the caller sees to
   */
  async rotateKey(signal?: AbortSignal): Promise<void> {
    const key = await this.#wal.rotateKey();
    await this.#snapshots.useKey(key);
    for (;;) {
      const seen = this.#log.filesGone;
      if ((await this.#wal.retireKeys(await this.#snapshots.keysInUse())) === 1) return;
      await this.#log.whenFilesGo(seen, signal);
    }
  }

  /** Whether an unlock key is needed to open it again. */
  get locked(): boolean {
    return this.#locked;
  }

  /** Seals the data keys with another key (lock, unlock, a new unlock key). No log or snapshot file changes. */
  async changeKek(kek: Kek): Promise<void> {
    await this.#wal.changeKek(kek);
    this.#locked = kek.kind === "unlock";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#wal.close();
    await this.#snapshots.close();
    this.#log.close();
  }
}

/** Keeps the order between the two threads: while a reset is under way, what follows waits for it. */
class OrderedLog implements LogStorage {
  readonly #wal: WalClient;
  readonly #client: SnapshotClient;
  /** What came during a reset, in order; undefined without one. */
  #held: (() => void)[] | undefined;
  #heldSinceMs = 0;
  readonly #watchers: { readonly resolve: () => void; readonly reject: (error: Error) => void }[] = [];
  #filesGone = 0;
  readonly snapshots: SnapshotStore & SnapshotTransfers;

  constructor(wal: WalClient, client: SnapshotClient) {
    this.#wal = wal;
    this.#client = client;
    this.snapshots = {
      create: (
        meta: SnapshotMeta,
        source: SnapshotSource,
        done: (error: Error | undefined, sizeBytes: number) => void,
      ) =>
        client.create(meta, source, (error, sizeBytes) => {
          this.#filesWent();
          done(error, sizeBytes);
        }),
      load: (meta: SnapshotMeta, sink: SnapshotSink, done: (error: Error | undefined) => void) =>
        client.load(meta, sink, done),
      openReader: (meta: SnapshotMeta, done: (error: Error | undefined, reader: SnapshotReader | undefined) => void) =>
        client.openReader(meta, done),
      openReceiver: (
        from: MemberId,
        offer: SnapshotOffer,
        done: (error: Error | undefined, receiver: SnapshotReceiver | undefined) => void,
      ) => client.openReceiver(from, offer, done),
    };
  }

  save(batch: SaveBatch, done: (error: Error | undefined) => void): void {
    if (this.#held === undefined) this.#wal.save(batch, done);
    else this.#held.push(() => this.save(batch, done));
  }

  compact(index: number): void {
    if (this.#held === undefined) this.#wal.compact(index, () => this.#filesWent());
    else this.#held.push(() => this.compact(index));
  }

  reset(meta: SnapshotMeta, hardState: HardState, done: (error: Error | undefined) => void): void {
    if (this.#held !== undefined) {
      this.#held.push(() => this.reset(meta, hardState, done));
      return;
    }
    this.#held = [];
    this.#heldSinceMs = performance.now();
    this.#client.install(meta, (error) => {
      if (error === undefined) this.#wal.reset(meta, hardState, done);
      else done(error);
      const held = this.#held ?? [];
      this.#held = undefined;
      for (const act of held) act();
      this.#filesWent();
    });
  }

  status(): LogStatus {
    const status = this.#wal.status();
    if (this.#held === undefined) return status;
    const heldMs = performance.now() - this.#heldSinceMs;
    return {
      ...status,
      oldestPendingMs: Math.max(status.oldestPendingMs, heldMs),
      pendingSaves: status.pendingSaves + this.#held.length,
    };
  }

  /** Counts the times when files may have been deleted. */
  get filesGone(): number {
    return this.#filesGone;
  }

  /** Resolves when `filesGone` is no longer `seen`. @throws LogClosed, or the reason of `signal` */
  async whenFilesGo(seen: number, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (this.#filesGone !== seen) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const abort = (): void => reject(signal?.reason as Error);
    signal?.addEventListener("abort", abort, { once: true });
    this.#watchers.push({ resolve, reject });
    try {
      await promise;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  close(): void {
    for (const watcher of this.#watchers.splice(0)) watcher.reject(new LogClosed());
  }

  #filesWent(): void {
    this.#filesGone++;
    for (const watcher of this.#watchers.splice(0)) watcher.resolve();
  }
}
