/** Interim disk until the log engine lands: whole batches in memory, lost or kept at a crash. */
import type { Entry, HardState, SnapshotMeta } from "../../manager/raft/core/types.ts";
import type { RecoveredLog, SaveBatch } from "../../manager/raft/ports.ts";
import type { Random } from "../../lib/pure/prng.ts";
import type { CorruptionKind, Loss } from "./faults.ts";

export type Opened =
  { readonly kind: "log"; readonly recovered: RecoveredLog } | { readonly kind: "quarantine"; readonly reason: string };

export interface SnapshotFile {
  readonly meta: SnapshotMeta;
  readonly chunks: readonly Uint8Array[];
}

type Job =
  | { readonly kind: "save"; readonly batch: SaveBatch }
  | { readonly kind: "reset"; readonly meta: SnapshotMeta; readonly hardState: HardState }
  | { readonly kind: "compact"; readonly index: number };

export class SimDisk {
  #hardState: HardState = { term: 0, vote: 0, commit: 0 };
  #snapshot: SnapshotMeta;
  #entries: Entry[] = [];
  /** Whole snapshots by index; the one in force and at most a received one that is not in force yet. */
  readonly snapshots = new Map<number, SnapshotFile>();

  /** @param initial  the founding snapshot, or that of a joiner, which has index 0 and no file */
  constructor(initial: SnapshotFile) {
    this.#snapshot = initial.meta;
    this.#hardState = { term: initial.meta.term, vote: 0, commit: initial.meta.index };
    if (initial.meta.index > 0) this.snapshots.set(initial.meta.index, initial);
  }

  get snapshotIndex(): number {
    return this.#snapshot.index;
  }

  open(): Opened {
    if ((this.#entries.at(-1)?.index ?? 0) < this.#snapshot.index) this.#entries = [];
    return {
      kind: "log",
      recovered: { hardState: this.#hardState, snapshot: this.#snapshot, entries: [...this.#entries] },
    };
  }

  /** Makes a job durable. */
  run(job: Job): void {
    if (job.kind === "save") {
      if (job.batch.hardState !== undefined) this.#hardState = job.batch.hardState;
      const first = job.batch.entries[0];
      if (first !== undefined) {
        this.#entries = this.#entries.filter((entry) => entry.index < first.index).concat(job.batch.entries);
      }
    } else if (job.kind === "reset") {
      this.#snapshot = job.meta;
      this.#entries = [];
      this.#hardState = job.hardState;
      this.#dropOld();
    } else this.#entries = this.#entries.filter((entry) => entry.index > job.index);
  }

  /** A snapshot of our own state became durable. */
  created(file: SnapshotFile): void {
    this.snapshots.set(file.meta.index, file);
    if (file.meta.index > this.#snapshot.index) {
      this.#snapshot = file.meta;
      this.#dropOld();
    }
  }

  /** What the jobs that were on their way leave behind. */
  crash(jobs: readonly Job[], loss: Loss, random: Random): void {
    const kept = loss === "none" ? jobs.length : loss === "all" ? 0 : random.int(0, jobs.length + 1);
    for (const job of jobs.slice(0, kept)) this.run(job);
  }

  damage(_how: CorruptionKind, _random: Random): boolean {
    return false;
  }

  #dropOld(): void {
    for (const index of this.snapshots.keys()) if (index < this.#snapshot.index) this.snapshots.delete(index);
  }
}

export type { Job };
