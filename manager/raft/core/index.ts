/**
 * Raft core: decides what one member of the consensus group does next. Pure: the same inputs give the same outputs.
 * In:    tick, step(message), propose, proposeConfChange, applyConfChange, readIndex, transferLeadership, persisted, ...
 * Out:   ready(): what to persist, to send at once, to send once durable, to apply, and which reads may be served.
 * Uses:  lib/pure.   Used by: the raft driver and the simulator.   Design: docs/design/raft-core.md
 */
export { RaftCore } from "./core.ts";
export { bootstrapState, coreDefaults, joinerState } from "./config.ts";
export { type CompactionPolicy, compactionDefaults } from "./compaction.ts";
export { changeConf, confDefect, emptyConf, isJoint, isVoter, leaveJoint, members } from "./conf.ts";
export { decodeConfChange, encodeConfChange } from "./conf-codec.ts";
export {
  ConfChangeUnreadable,
  CoreConfigInvalid,
  EntryKindUnknown,
  InitialStateInvalid,
  LogRegressed,
  MalformedMessage,
  RaftInvariantError,
  RaftRefusal,
  type Refusal,
  type Refused,
} from "./errors.ts";
export { entryBytes, entryOverheadBytes } from "./log.ts";
export { type Proposed, quorumAtRisk } from "./membership.ts";
export { quorumSize } from "./quorum.ts";
export { forceNewCluster } from "./recover.ts";
export { isLogSuperseded } from "./validate.ts";
export type * from "./types.ts";
