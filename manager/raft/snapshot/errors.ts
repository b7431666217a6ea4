/** What can be wrong with snapshots. */
import { ClusterError } from "../../../lib/pure/errors.ts";
import { diskWords } from "../../../lib/runtime/file-system.ts";

/** A snapshot file does not check: cut short, altered, or its content does not match its digest. */
export class SnapshotDamaged extends ClusterError {
  readonly code = "SNAPSHOT_DAMAGED";
  constructor(path: string, found: string) {
    super(`Cannot use snapshot ${path}: ${found}`, {
      fix: "Check the disk; an older snapshot is used if the log goes on from it, else the node must join again",
    });
  }
}

/** There is no (longer a) snapshot of that index and term. */
export class SnapshotNotFound extends ClusterError {
  readonly code = "SNAPSHOT_NOT_FOUND";
  constructor(index: number, term: number) {
    super(`Cannot find the snapshot at entry ${index} of term ${term}: it has been replaced by a newer one`, {
      fix: "Ask for the newest snapshot",
    });
  }
}

/** What a peer sends is not the snapshot that it offered. Nothing has been installed. */
export class SnapshotTransferInvalid extends ClusterError {
  readonly code = "SNAPSHOT_TRANSFER_INVALID";
  constructor(found: string) {
    super(`Cannot take in the snapshot: ${found}`, {
      fix: "None needed: the transfer goes on from the last good chunk, or starts over",
    });
  }
}

/** Writing a snapshot failed. The older ones stay in force; unlike the log, this is no reason to stop. */
export class SnapshotWriteFailed extends ClusterError {
  readonly code = "SNAPSHOT_WRITE_FAILED";
  constructor(act: string, cause: unknown) {
    super(`Cannot ${act} a snapshot: ${diskWords(cause)}`, {
      fix: "Free space or check the disk; it is tried again later, and the log grows meanwhile",
      cause,
    });
  }
}

/** The source of a snapshot, or who wanted it, ended the work. */
export class SnapshotAborted extends ClusterError {
  readonly code = "SNAPSHOT_ABORTED";
  constructor(why: string, cause?: unknown) {
    super(`Cannot finish the snapshot: ${why}`, { fix: "None needed: it is tried again", cause });
  }
}
