/**
 * What raft needs from outside: a disk, a network, a state machine. The real ones and the simulator's implement the
 * same interfaces. Callbacks, not promises, so that the simulator decides the order of every event.
 */
import type { Entry, HardState, MemberId, Message, SnapshotMeta, SnapshotRequest } from "./core/types.ts";

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
  /**
   * An installed snapshot replaces the whole log: the next entry is `meta.index + 1`. Its bytes have been received and
   * verified before; this makes them the snapshot in force, atomically: a crash leaves the old state or the new one.
   */
  reset(meta: SnapshotMeta, hardState: HardState, done: (error: Error | undefined) => void): void;
}

/** Snapshot files. Only whole, verified ones are ever visible here. */
export interface SnapshotStore {
  /**
   * Encodes `source` in short slices into a new file and makes it durable; from then on it is the one in force and
   * older ones go, unless a transfer still reads them.
   * @param done  once: the error, or the size of the file
   */
  create(meta: SnapshotMeta, source: SnapshotSource, done: (error: Error | undefined, sizeBytes: number) => void): void;
  /** Feeds the snapshot at `meta` into `sink` in short slices, and calls its `finish`. Calls back once. */
  load(meta: SnapshotMeta, sink: SnapshotSink, done: (error: Error | undefined) => void): void;
}

/** The turns of the event loop. Functions run once each, in the order given. */
export interface Scheduler {
  /** Runs `turn` after the input that waits by now has been delivered (setImmediate; an event at the same virtual time). */
  defer(turn: () => void): void;
  /** Monotonic milliseconds with a fraction; only differences mean anything. */
  nowMs(): number;
}

/** Best effort and ordered per peer while a stream lasts; loss is reported, never an error. */
export interface Transport {
  send(message: Message): void;
  /**
   * Moves the bytes of the snapshot at `request.meta` on a stream of its own. The receiver spools and verifies them, and
   * then takes `request` in as a message. Reports exactly once: without an error when the receiver has the whole.
   */
  sendSnapshot(request: SnapshotRequest, done: (error: Error | undefined) => void): void;
  /** A command for the leader from one of the members themselves, not from a client (a vote on a state hash). Best effort. */
  forward(to: MemberId, command: Uint8Array): void;
}

/**
 * The replicated state. `apply` is deterministic and total: it never throws for what a client sent. A thrown error or
 * an unknown entry means that this binary cannot follow the cluster, and stops the process; one with the code
 * STATE_DIVERGED means that this member's state is wrong, and puts it into quarantine.
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
