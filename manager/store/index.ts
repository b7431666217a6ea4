/**
 * Store: the objects of the whole control plane, the same on every member.
 * In:    committed entries from a replicated log, in order; update functions from the other rooms of the leader.
 * Out:   immutable views, linearizable reads, ordered watches; entries for the log; snapshots.
 * core/  tables, transactions, sessions, feature levels, state hash. Pure: the same entries give the same state.
 * Uses:  proto, lib.   Used by: every other room of manager/.   Design: docs/design/store.md
 */
export type {
  Committed,
  Leadership,
  Outcome,
  ProposeOutcome,
  ReadIndexOutcome,
  ReplicatedLog,
  SessionOptions,
  Store,
  UpdateOptions,
  Watch,
  WatchEvent,
  WatchOptions,
} from "./api.ts";
export type { Change, ChangeOf, Mutable, Range, SessionRequest, Tx, View } from "./core/words.ts";
export type { Codec, In, IndexOf, IndexSchema, Kind, Meta, Out, Schema, TableSchema } from "./core/schema.ts";
export {
  Backpressure,
  Conflict,
  EntryTooLarge,
  Incompatible,
  LevelRefused,
  NameInUse,
  NotLeader,
  ObjectExists,
  ObjectNotFound,
  OutcomeUnknown,
  SessionExpired,
  SessionLimit,
  SessionStale,
  SnapshotInvalid,
  StateDiverged,
  StoreClosed,
  UpdateFailed,
  VersionConflict,
} from "./core/errors.ts";
export { follow, inSlices, type Follower } from "./follow.ts";
export { isRevoked, removeNode, revokedMax, theCluster, withRevoked } from "./membership.ts";
export { networkedTasks } from "./networked-tasks.ts";
export { clusterSchema, type ClusterSchema } from "./schema.ts";
export type { ChangeAct } from "./core/transaction.ts";
export { defaultLimits, supportedLevel, type MachineLimits } from "./core/machine.ts";
export { entryBytesMax, ObjectStore, type ObjectStoreOptions } from "./store.ts";
