/**
 * The disk of one simulated member: the real keys, log engine and snapshot files over a disk in memory that fails as
 * disks do (N4).
 */
import { crc32 } from "node:zlib";
import type { HardState, MemberId, SnapshotMeta } from "../../manager/raft/core/types.ts";
import { DirectStorage, writeFoundingSnapshot, type DirectStorageOptions } from "../../manager/raft/direct-storage.ts";
import { aesGcm, type Cipher } from "../../manager/raft/keys/index.ts";
import type { RecoveredLog, SaveBatch, SnapshotSink, SnapshotSource } from "../../manager/raft/ports.ts";
import { SnapshotDamaged, type SnapshotReader } from "../../manager/raft/snapshot/index.ts";
import { LogDiskFull, LogQuarantined } from "../../manager/raft/wal/index.ts";
import { Random } from "../../lib/pure/prng.ts";
import { DiskCrash, FaultDisk } from "../support/fault-disk.ts";
import { plainCipher } from "../support/plain-cipher.ts";
import { SimFailure } from "./failure.ts";
import type { CorruptionKind, DiskErrorKind, Loss } from "./faults.ts";
import type { SimOptions } from "./options.ts";

export type Opened =
  | { readonly kind: "log"; readonly recovered: RecoveredLog }
  | { readonly kind: "quarantine"; readonly reason: string }
  /** An injected error: starting again later may succeed. */
  | { readonly kind: "failed"; readonly error: Error };

export type Job =
  | { readonly kind: "save"; readonly batch: SaveBatch }
  | { readonly kind: "reset"; readonly meta: SnapshotMeta; readonly hardState: HardState }
  | { readonly kind: "compact"; readonly index: number }
  /** The engine's own small work between saves. */
  | { readonly kind: "tend" };

type FilesOfSnapshots = DirectStorage["snapshots"];
export type SnapshotWriter = ReturnType<FilesOfSnapshots["begin"]>;
export type SnapshotSpool = ReturnType<FilesOfSnapshots["openReceiver"]>;
type FileReader = ReturnType<FilesOfSnapshots["openReader"]>;

export interface Founding {
  readonly meta: SnapshotMeta;
  /** A new source of the founding state, or nothing for a member that joins. */
  readonly source: (() => SnapshotSource) | undefined;
}

export class SimDisk {
  readonly files: FaultDisk;
  readonly #options: DirectStorageOptions;
  #storage: DirectStorage | undefined;
  /** Snapshots being written, which a crash may catch in their last steps. */
  readonly #writers = new Set<SnapshotWriter>();
  snapshotIndex: number;
  #isMarked = true;

  constructor(id: MemberId, options: Pick<SimOptions, "seed" | "cipher" | "segmentBytes">, founding: Founding) {
    this.files = new FaultDisk(Random.stream(options.seed, `damage/${id}`));
    const bytes = Random.stream(options.seed, `keys/${id}`);
    this.#options = {
      files: this.files,
      folder: "/data",
      identity: { clusterId: "simulated", memberId: id, incarnation: String(id).padStart(32, "0") },
      kek: { kind: "node", key: new Uint8Array(32).fill(id) },
      randomBytes: (count) => Uint8Array.from({ length: count }, () => bytes.int(0, 256)),
      cipher: watchedCipher(options.cipher === "aes" ? aesGcm : plainCipher),
      compress: false,
      log: {
        segmentBytes: options.segmentBytes,
        recordBytes: options.segmentBytes / 2,
        aheadBytes: 1_024,
        ballastBytes: 0,
        lowBytes: 0,
      },
    };
    this.snapshotIndex = founding.meta.index;
    this.files.mkdir("/data");
    if (founding.source !== undefined) writeFoundingSnapshot(this.#options, founding.meta, founding.source());
  }

  open(): Opened {
    this.#writers.clear();
    try {
      this.#storage = DirectStorage.open(this.#options);
    } catch (error) {
      if (error instanceof LogQuarantined || error instanceof SnapshotDamaged) {
        return { kind: "quarantine", reason: error.message };
      }
      if (error instanceof Error && "code" in error) return { kind: "failed", error };
      throw error;
    }
    const { recovered } = this.#storage;
    this.snapshotIndex = recovered.snapshot.index;
    return { kind: "log", recovered };
  }

  /** Makes a job durable. @returns the error that the member is to hear, or "full" if it is to be tried again */
  run(job: Job): Error | "full" | undefined {
    const storage = this.#open();
    try {
      switch (job.kind) {
        case "save":
          storage.save(job.batch);
          break;
        case "reset":
          storage.reset(job.meta, job.hardState);
          this.snapshotIndex = job.meta.index;
          break;
        case "compact":
          storage.compact(job.index);
          break;
        case "tend":
          storage.log.idle();
          break;
      }
      return undefined;
    } catch (error) {
      if (error instanceof LogDiskFull) return "full";
      if (error instanceof Error && "code" in error) return error;
      throw error;
    }
  }

  /**
   * Whether, when the power went, the slots said that the last record is durable. If not, damage to that very record
   * cannot be told from a write that was torn.
   */
  get isMarked(): boolean {
    return this.#isMarked;
  }

  fail(error: DiskErrorKind): void {
    if (error === "full")
      this.files.capacityBytes = [...this.files.contents().values()].reduce((sum, file) => sum + file.length, 0);
    else this.files.fail({ act: error, code: "EIO" });
  }

  mend(): void {
    this.files.mend();
    this.files.capacityBytes = Number.POSITIVE_INFINITY;
  }

  /**
   * The power goes while the first of `jobs` is under way, the process with it.
   * @returns whether a write was cut in the middle
   */
  crash(jobs: readonly Job[], loss: Loss, random: Random): boolean {
    let wasTorn = false;
    const storage = this.#storage;
    this.#storage = undefined;
    this.files.mend();
    if (storage !== undefined) this.#isMarked = !storage.log.needsMark;
    if (storage !== undefined && loss !== "all") {
      const cutAfter = loss === "none" ? Number.POSITIVE_INFINITY : random.int(1, 6);
      this.files.crashAt(this.files.operations + cutAfter);
      try {
        this.#storage = storage;
        for (const writer of this.#writers) if (random.chance(0.5)) writer.finish();
        for (const job of jobs) if (this.run(job) !== undefined) break;
      } catch (error) {
        if (!(error instanceof DiskCrash)) throw error;
        wasTorn = true;
      } finally {
        this.#storage = undefined;
      }
    }
    // There is mostly one write on its way; "prefix" is to tear that one more often than to drop it.
    const prefix = random.chance(0.7) ? "all" : "prefix";
    const keep = loss === "subset" ? "random" : loss === "none" ? "all" : loss === "prefix" ? prefix : "none";
    this.files.restart({ keep, tear: loss === "none" ? "none" : random.pick(["none", "sector", "byte", "byte"]) });
    this.#writers.clear();
    return wasTorn;
  }

  /** Spoils what was durable, while the process is down. @returns false if there was nothing to spoil */
  damage(how: CorruptionKind, random: Random): boolean {
    if (how === "wiped") {
      this.files.restore(new Map());
      this.files.mkdir("/data");
      return true;
    }
    const paths = this.files
      .paths()
      .filter((path) => path.endsWith(".log") || path.endsWith(".snap") || path.endsWith("slots"));
    if (paths.length === 0) return false;
    const path = how === "last record" ? paths.findLast((name) => name.endsWith(".log")) : random.pick(paths);
    if (path === undefined) return false;
    const content = this.files.peek(path) as Uint8Array;
    if (content.length === 0) return false;
    if (how === "last record") {
      const end = content.findLastIndex((byte) => byte !== 0);
      if (end < 0) return false;
      this.files.flipBit(path, Math.max(0, end - random.int(0, 40)));
      return true;
    }
    if (how === "bit flip") {
      this.files.flipBit(path, random.int(0, content.length));
      return true;
    }
    // A stretch of the file holds what it held before (lost), or what belongs elsewhere (misdirected).
    const bytes = Math.min(content.length, random.int(1, 600));
    const at = random.int(0, content.length - bytes + 1);
    const from = random.int(0, content.length - bytes + 1);
    const spoilt = content.slice();
    if (how === "lost write") spoilt.fill(0, at, at + bytes);
    else spoilt.set(content.subarray(from, from + bytes), at);
    if (Buffer.compare(spoilt, content) === 0) return false;
    this.files.plant(path, spoilt);
    return true;
  }

  /** The process ended by itself; the machine runs on, so what was written is still in the cache. */
  exit(): void {
    this.#storage = undefined;
    this.#writers.clear();
    this.files.killProcess();
  }

  // ---- snapshots ----

  beginSnapshot(meta: SnapshotMeta): SnapshotWriter {
    return this.#open().snapshots.begin(meta);
  }

  /** All its content is written; a crash from here on may catch the last steps half done. */
  completed(writer: SnapshotWriter): void {
    this.#writers.add(writer);
  }

  finishSnapshot(writer: SnapshotWriter, meta: SnapshotMeta): number {
    this.#writers.delete(writer);
    const sizeBytes = writer.finish();
    this.snapshotIndex = Math.max(this.snapshotIndex, meta.index);
    return sizeBytes;
  }

  loadSnapshot(meta: SnapshotMeta, sink: SnapshotSink): void {
    const reader = this.#open().snapshots.openReader(meta);
    try {
      for (let number = 1; number < reader.offer.chunks; number++) sink.write(reader.content(number));
      sink.finish(meta.index);
    } finally {
      reader.close();
    }
  }

  openReader(meta: SnapshotMeta): FileReader {
    return this.#open().snapshots.openReader(meta);
  }

  openSpool(from: MemberId, offer: SnapshotReader["offer"]): SnapshotSpool {
    return this.#open().snapshots.openReceiver(from, offer);
  }

  get isOpen(): boolean {
    return this.#storage !== undefined;
  }

  #open(): DirectStorage {
    if (this.#storage === undefined) throw new SimFailure("N4", "a disk is used while its process is down");
    return this.#storage;
  }
}

/** Two different contents under one key and one nonce give both away (M5): no seal may repeat. */
function watchedCipher(cipher: Cipher): Cipher {
  const sealed = new Map<number, number>();
  let lastKey: Uint8Array | undefined;
  let lastKeyCrc = 0;
  return {
    derive: (key, session) => cipher.derive(key, session),
    open: (key, nonce, associated, data, tag) => cipher.open(key, nonce, associated, data, tag),
    seal(key, nonce, associated, data) {
      if (key !== lastKey) {
        lastKey = key;
        lastKeyCrc = crc32(key);
      }
      const use = crc32(nonce, lastKeyCrc);
      const content = crc32(data, crc32(associated));
      const before = sealed.get(use);
      if (before !== undefined && before !== content)
        throw new SimFailure("M5", "a nonce was used twice under one key");
      sealed.set(use, content);
      return cipher.seal(key, nonce, associated, data);
    },
  };
}
