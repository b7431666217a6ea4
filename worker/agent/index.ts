/**
 * Agent: follows the managers on behalf of one node.
 * In:    assignments from the leader's dispatcher; what it remembers of an earlier life.
 * Out:   acts of the executor, one task each; statuses, said until they are acknowledged; heartbeats.
 * core/  what was told, what is next with a task, whom to ask. Pure.
 * Uses:  executor, proto, lib, level.   Used by: daemon.   Design: docs/design/agent.md
 */
export { Agent, type AgentOptions } from "./agent.ts";
export type { Attached, Attacher, AttachRequest } from "./attacher.ts";
export type { DataPlane, NetworkRecords, RecordChange } from "./core/index.ts";
export type { AgentChannel } from "./session.ts";
export { LevelMemory, MapMemory, type TaskMemory } from "./task-memory.ts";
