/**
 * Snapshots on disk and on their way between members.
 * In:    a source of chunks (create), chunks from a peer (receive).
 * Out:   whole, sealed files, two of them kept; chunks for a sink (load) or for a peer (send).
 * files.ts    the files, synchronously; run by the snapshot thread and by the simulator
 * store.ts    the store's port over files on another thread, in slices that do not hold up the raft thread
 * Uses:  keys, lib.   Used by: storage.ts, transport.   Design: docs/design/raft-storage.md, docs/adr/0013
 */
export {
  SnapshotAborted,
  SnapshotDamaged,
  SnapshotNotFound,
  SnapshotTransferInvalid,
  SnapshotWriteFailed,
} from "./errors.ts";
export { SnapshotFiles, type SnapshotFilesOptions } from "./files.ts";
export {
  chunkBytesMax,
  type SnapshotChunk,
  type SnapshotOffer,
  type SnapshotReader,
  type SnapshotReceiver,
  type SnapshotTransfers,
} from "./transfer.ts";
