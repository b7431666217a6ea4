/** What can happen to the log's disk. Foreign, newer and locked files: keys/errors.ts. */
import { ClusterError } from "../../../lib/pure/errors.ts";
import { diskWords } from "../../../lib/runtime/file-system.ts";

/** What recovery found; each has its row in docs/design/raft-storage.md. */
export type Damage =
  | "slots"
  | "slotsStale"
  | "slotsDisagree"
  | "segmentMissing"
  | "segmentHeader"
  | "record"
  | "chain"
  | "seal"
  | "lastRecordLost"
  | "entries"
  | "snapshotMissing";

/**
 * The disk lost or altered something that was durable. The member must not vote, acknowledge or campaign; its folder is
 * kept for inspection and its state comes back from its peers.
 */
export class LogQuarantined extends ClusterError {
  readonly code = "LOG_QUARANTINED";
  readonly damage: Damage;
  readonly path: string;
  readonly offset: number;
  constructor(damage: Damage, path: string, offset: number, found: string) {
    super(`Cannot trust the log: ${found} (${path}, byte ${offset})`, {
      fix: "Check the disk and keep the folder; a manager with a new certificate takes this one's place (--join, --replace)",
    });
    this.damage = damage;
    this.path = path;
    this.offset = offset;
  }
}

/** A write or fdatasync failed. Final: nothing cached may be trusted, the process exits with code 70 at once. */
export class LogWriteFailed extends ClusterError {
  readonly code = "LOG_WRITE_FAILED";
  constructor(act: string, cause: unknown) {
    super(`Cannot ${act} the log: ${diskWords(cause)}`, {
      fix: "Check the disk (dmesg, smartctl); the manager starts again and reads back what is really there",
      cause,
    });
  }
}

/** The log could not be read at start. */
export class LogReadFailed extends ClusterError {
  readonly code = "LOG_READ_FAILED";
  constructor(path: string, cause: unknown) {
    super(`Cannot read ${path}: ${diskWords(cause)}`, {
      fix: "Check the disk; if the file cannot be read any more, move the data folder aside and join again",
      cause,
    });
  }
}

/** No room, not even after the ballast was given up. Nothing was changed: the same call succeeds once there is room. */
export class LogDiskFull extends ClusterError {
  readonly code = "LOG_DISK_FULL";
  constructor(cause?: unknown) {
    super("Cannot write the log: the disk is full", {
      fix: "Free space on the file system of the data folder; the manager then goes on by itself",
      cause,
    });
  }
}

/** Use after close, or after a final failure. */
export class LogClosed extends ClusterError {
  readonly code = "LOG_CLOSED";
  constructor(cause?: unknown) {
    super("Cannot use the log: it is closed", { fix: "Open it again; after a failure restart the process", cause });
  }
}
