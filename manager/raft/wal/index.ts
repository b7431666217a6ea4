/**
 * The write-ahead log: consensus made durable.
 * In:    batches of entries and hard state, in order; compaction and reset.
 * Out:   a callback when a batch is durable; at start, exactly what was durable, or a typed refusal.
 * engine.ts   the synchronous engine over the file-system port, run by the worker thread and by the simulator
 * recovery.ts reads the log at start and decides: torn tail, quarantine, foreign, newer
 * format.ts   the bytes
 * Uses:  keys, lib.   Used by: storage.ts.   Design: docs/design/raft-storage.md, docs/adr/0010 to 0012
 */
export { WalEngine, encodeBatch, entriesOf, type EncodedBatch, type EngineOptions } from "./engine.ts";
export { LogClosed, LogDiskFull, LogQuarantined, LogReadFailed, LogWriteFailed, type Damage } from "./errors.ts";
export type { LogStatus } from "./status.ts";
export { emptySnapshot } from "./recovery.ts";
