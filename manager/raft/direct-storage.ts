/**
 * A member's storage on the calling thread: keys, snapshots and log of one data folder, opened in the right order. The
 * simulator runs it as it is; the threads of storage.ts run its parts.
 */
import { errnoOf, type FileSystem } from "../../lib/runtime/file-system.ts";
import type { HardState, SnapshotMeta } from "./core/types.ts";
import { KeyRing, type Cipher, type Kek, type RandomBytes, type StorageIdentity } from "./keys/index.ts";
import type { RecoveredLog, SaveBatch, SnapshotSource } from "./ports.ts";
import { SnapshotFiles, type SnapshotFilesOptions } from "./snapshot/index.ts";
import { WalEngine, type EngineOptions } from "./wal/index.ts";

export interface DirectStorageOptions {
  readonly files: FileSystem;
  /** The data folder; made if it is missing. Here: `keys`, `log/`, `snapshots/`. */
  readonly folder: string;
  readonly identity: StorageIdentity;
  readonly kek: Kek;
  readonly randomBytes: RandomBytes;
  readonly cipher?: Cipher;
  readonly compress?: boolean;
  readonly log?: Partial<
    Pick<EngineOptions, "segmentBytes" | "recordBytes" | "aheadBytes" | "ballastBytes" | "lowBytes">
  >;
}

export const logFolderName = "log";
export const snapshotFolderName = "snapshots";

/** The keys of a data folder; drawn when it is new. @throws KeyMissing if there is data without a key file, and more */
export function openKeys(options: DirectStorageOptions): KeyRing {
  const { files, folder } = options;
  files.mkdir(folder);
  const isNew = !files.readdir(folder).includes("keys") && !holdsData(files, folder);
  return isNew ? KeyRing.create(options) : KeyRing.open(options);
}

/**
 * The founding snapshot of a new cluster, or of a forced new one: written before the storage is opened for the first
 * time, so that every member's life begins with a snapshot.
 */
export function writeFoundingSnapshot(options: DirectStorageOptions, meta: SnapshotMeta, source: SnapshotSource): void {
  const snapshots = new SnapshotFiles(snapshotOptions(options, openKeys(options)));
  snapshots.open();
  writeSnapshot(snapshots, meta, source);
}

export function snapshotOptions(options: DirectStorageOptions, keys: KeyRing): SnapshotFilesOptions {
  return { ...options, keys, folder: `${options.folder}/${snapshotFolderName}` };
}

export class DirectStorage {
  readonly keys: KeyRing;
  readonly snapshots: SnapshotFiles;
  readonly log: WalEngine;
  readonly recovered: RecoveredLog;

  private constructor(keys: KeyRing, snapshots: SnapshotFiles, log: WalEngine) {
    this.keys = keys;
    this.snapshots = snapshots;
    this.log = log;
    this.recovered = log.takeRecovered();
  }

  /** @throws what keys, snapshots and the log throw; docs/errors.md */
  static open(options: DirectStorageOptions): DirectStorage {
    const keys = openKeys(options);
    const snapshots = new SnapshotFiles(snapshotOptions(options, keys));
    snapshots.open();
    const { log = {}, ...common } = options;
    const folder = `${options.folder}/${logFolderName}`;
    return new DirectStorage(
      keys,
      snapshots,
      WalEngine.open({ ...common, ...log, folder, keys, snapshots: snapshots.metas }),
    );
  }

  save(batch: SaveBatch): void {
    this.log.save(batch);
  }

  compact(index: number): void {
    this.log.compact(index);
  }

  /** A received snapshot becomes the one in force, then the log starts over after it. A crash between is finished by open. */
  reset(meta: SnapshotMeta, hardState: HardState): void {
    this.snapshots.install(meta);
    this.log.reset(meta, hardState);
  }

  createSnapshot(meta: SnapshotMeta, source: SnapshotSource): number {
    return writeSnapshot(this.snapshots, meta, source);
  }

  /** New writes use a new data key at once. */
  rotateKey(): void {
    this.keys.rotate();
    this.log.useActiveKey();
  }

  /** Drops the data keys that no file needs any more. @returns whether only the active one is left */
  retireKeys(): boolean {
    this.keys.retain(new Set([...this.log.keysInUse(), ...this.snapshots.keysInUse()]));
    return this.keys.all().length === 1;
  }

  close(): void {
    this.log.close();
  }
}

function writeSnapshot(snapshots: SnapshotFiles, meta: SnapshotMeta, source: SnapshotSource): number {
  const writer = snapshots.begin(meta);
  try {
    for (let chunk = source.next(256 * 1024); chunk !== undefined; chunk = source.next(256 * 1024)) writer.write(chunk);
    return writer.finish();
  } catch (error) {
    writer.abort();
    throw error;
  }
}

function holdsData(files: FileSystem, folder: string): boolean {
  return [logFolderName, snapshotFolderName].some((name) => {
    try {
      return files.readdir(`${folder}/${name}`).length > 0;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return false;
      throw error;
    }
  });
}
