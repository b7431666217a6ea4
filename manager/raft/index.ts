/**
 * Raft: keeps one log of bytes the same on all managers, and never loses what it acknowledged.
 * In:    commands from a store, messages from the other members, time.
 * Out:   committed commands in one order to a state machine; linearizable points to read at; who leads.
 * core/  decides (pure)   member.ts  runs it between disk, network and state machine   raft.ts  in the real world
 * wal/ snapshot/ keys/  the disk   transport/  the network   testing/  a small group under virtual time
 * Uses:  lib, proto.   Used by: manager.ts, test/sim.   Design: docs/design/raft-driver.md
 */
export type { ConfState, MemberId, SnapshotMeta } from "./core/index.ts";
export {
  DataFolder,
  FolderDamaged,
  FolderEmpty,
  FolderInUse,
  FolderOfAnother,
  FolderUnusable,
  MemberRemoved,
  type Identity,
  type Owner,
} from "./data-folder.ts";
export * from "./errors.ts";
export { readCommitted } from "./committed-state.ts";
export { NewCluster, type NewClusterPlan } from "./force-new-cluster.ts";
export { lanTimings, wanTimings, type MemberLimits, type MemberTimings } from "./member-config.ts";
export { MemberTable, type MemberRecord } from "./member-table.ts";
export type { MemberStatus } from "./member.ts";
export { RaftMetrics } from "./metrics.ts";
export { changeLock, foundCluster, openStorage, type StorageAccess } from "./open.ts";
export type { Storage } from "./storage.ts";
export type { StateMachine } from "./ports.ts";
export { Raft, checkTimings, exitDiskFailed, type Leadership, type RaftOptions } from "./raft.ts";
export { GrpcTransport, limitsOfDistance, raftMethods } from "./transport/index.ts";
