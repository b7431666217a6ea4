/**
 * Raft core: decides what one member of the consensus group does next. Pure: the same inputs give the same outputs.
 * In:    tick, step(message), propose, proposeConfChange, applyConfChange, readIndex, transferLeadership, persisted, ...
 * Out:   ready(): what to persist, to send at once, to send once durable, to apply, and which reads may be served.
 * Uses:  lib/pure.   Used by: the raft driver and the simulator.   Design: docs/design/raft-core.md
 */
export type * from "./types.ts";
