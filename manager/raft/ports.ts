/**
 * What raft needs from outside: a disk, a network, a state machine. The real ones and the simulator's implement the
 * same interfaces. Callbacks, not promises, so that the simulator decides the order of every event.
 */
import type { Entry, HardState, MemberId, Message, SnapshotMeta } from "./core/types.ts";

/** One durable step. Steps become durable in the order in which they were given. */
export interface SaveBatch {
  readonly hardState: HardState | undefined;
  /** Consecutive; replaces everything in the log from `entries[0].index` on. */
  readonly entries: readonly Entry[];
}

export interface RecoveredLog {
  readonly hardState: HardState;
  readonly snapshot: SnapshotMeta;
  readonly entries: readonly Entry[];
}

/** Durable log and hard state. A failed save is final: the process stops, since nothing cached may be trusted. */
export interface LogStorage {
  /** Calls back once, when everything in `batch` and before it is durable. */
  save(batch: SaveBatch, done: (error: Error | undefined) => void): void;
  /** Entries up to `index` are covered by a durable snapshot; their segments may go. */
  compact(index: number): void;
  /** An installed snapshot replaces the whole log: the next entry is `meta.index + 1`. */
  reset(meta: SnapshotMeta, hardState: HardState, done: (error: Error | undefined) => void): void;
}

/** Best effort and ordered per peer while a stream lasts; loss is reported, never an error. */
export interface Transport {
  send(message: Message): void;
  /** Moves the bytes of the snapshot at `meta` on a stream of its own; reports exactly once. */
  sendSnapshot(to: MemberId, meta: SnapshotMeta, done: (error: Error | undefined) => void): void;
}

/**
 * The replicated state. `apply` is deterministic and total: it never throws for what a client sent. A thrown error or
 * an unknown entry means that this binary cannot follow the cluster, and stops the process.
 */
export interface StateMachine {
  /** Applies one committed entry; the result is handed to the local proposer, if there is one. */
  apply(index: number, data: Uint8Array): unknown;
  /** A consistent view at the last applied index: taken in O(tables), encoded later in slices while writes go on. */
  snapshot(): SnapshotSource;
  /** Replaces the whole state. Chunks arrive in order; `finish` is atomic: before it the old state is in force. */
  restore(): SnapshotSink;
  /** Order-independent digest of the whole state, kept incrementally (16 hexadecimal digits). */
  stateHash(): string;
}

export interface SnapshotSource {
  readonly index: number;
  /** The next chunk of at most about `bytesMax`, or undefined at the end. Synchronous and short. */
  next(bytesMax: number): Uint8Array | undefined;
}

export interface SnapshotSink {
  write(chunk: Uint8Array): void;
  finish(index: number): void;
}
