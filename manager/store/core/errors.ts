/**
 * How a change can end other than well. Three families, never mixed: `UpdateFailed` (certainly no effect),
 * `OutcomeUnknown` (perhaps), and what stops the process because this member can no longer follow the cluster.
 */
import { ClusterError } from "../../../lib/pure/errors.ts";

/** The change has no effect, now and later. */
export abstract class UpdateFailed extends ClusterError {}

export class ObjectNotFound extends UpdateFailed {
  readonly code = "OBJECT_NOT_FOUND";
  constructor(kind: string, id: string) {
    super(`Cannot change ${kind} "${id}": there is none`, { fix: `List the ${kind} objects and use one of their ids` });
  }
}

export class ObjectExists extends UpdateFailed {
  readonly code = "OBJECT_EXISTS";
  constructor(kind: string, id: string) {
    super(`Cannot create ${kind} "${id}": it exists`, { fix: "Update it, or create it under another id" });
  }
}

export class NameInUse extends UpdateFailed {
  readonly code = "NAME_IN_USE";
  constructor(kind: string, index: string, key: string, holder: string) {
    super(`Cannot write ${kind}: its ${index} "${key}" belongs to "${holder}"`, {
      fix: `Choose another ${index}, or remove the ${kind} that has it`,
    });
  }
}

/** Another change came between reading and applying. */
export class Conflict extends UpdateFailed {
  readonly code = "CONFLICT";
  constructor(kind: string, id: string) {
    super(`Cannot change ${kind} "${id}": it was changed in between`, { fix: "Read it again and repeat the change" });
  }
}

/** The version that the caller insisted on is not the object's. */
export class VersionConflict extends UpdateFailed {
  readonly code = "VERSION_CONFLICT";
  constructor(kind: string, id: string, expected: number, found: number) {
    const now = found === 0 ? "a change is under way" : `its version is ${found}`;
    super(`Cannot change ${kind} "${id}" at version ${expected}: ${now}`, {
      fix: "Read it again and repeat the change with the version found",
    });
  }
}

export class EntryTooLarge extends UpdateFailed {
  readonly code = "ENTRY_TOO_LARGE";
  constructor(sizeBytes: number, limitBytes: number, changes: number) {
    super(`Cannot commit ${changes} changes at once: ${sizeBytes} bytes, and an entry takes ${limitBytes}`, {
      fix: changes > 1 ? "Split the change into several updates" : "Make the object smaller",
    });
  }
}

export class Backpressure extends UpdateFailed {
  readonly code = "BACKPRESSURE";
  readonly retryAfterMs: number;
  constructor(retryAfterMs: number) {
    super("Cannot take the change: too many wait for the log already", { fix: `Try again in ${retryAfterMs} ms` });
    this.retryAfterMs = retryAfterMs;
  }
}

export class NotLeader extends UpdateFailed {
  readonly code = "NOT_LEADER";
  /** How to reach who leads, if that is known. */
  readonly leader: string | undefined;
  constructor(leader: string | undefined) {
    super(`Cannot take the change: this manager does not lead${leader === undefined ? "" : `, "${leader}" does`}`, {
      fix: leader === undefined ? "Try again when a leader is elected" : "Ask the leader",
    });
    this.leader = leader;
  }
}

export class StoreClosed extends UpdateFailed {
  readonly code = "STORE_CLOSED";
  constructor() {
    super("Cannot use the store: it is closed", { fix: "Ask another manager" });
  }
}

/** The session was never opened here, was closed, or had no request for longer than its time to live. */
export class SessionExpired extends UpdateFailed {
  readonly code = "SESSION_EXPIRED";
  constructor(session: string) {
    super(`Cannot take a request of session "${session}": it has expired`, {
      fix: "Read whether the change took effect, then open a new session",
    });
  }
}

/** The request's reply was acknowledged and forgotten, so it is not carried out again. */
export class SessionStale extends UpdateFailed {
  readonly code = "SESSION_STALE";
  constructor(session: string, seq: number) {
    super(`Cannot repeat request ${seq} of session "${session}": its reply has been acknowledged`, {
      fix: "Give each new request a higher number than those acknowledged",
    });
  }
}

export class SessionLimit extends UpdateFailed {
  readonly code = "SESSION_LIMIT";
  constructor(what: "sessions" | "replies" | "reply bytes", limit: number) {
    super(`Cannot take the request: the limit of ${limit} ${what} is reached`, {
      fix:
        what === "sessions"
          ? "Close sessions that are no longer used, or wait until they expire"
          : "Acknowledge replies received (ackedBelow) or make them smaller",
    });
  }
}

export class LevelRefused extends UpdateFailed {
  readonly code = "FEATURE_LEVEL_REFUSED";
  constructor(level: number, found: string) {
    super(`Cannot use feature level ${level}: ${found}`, { fix: "Upgrade every manager first" });
  }
}

/** The change may have taken effect, or may yet. */
export class OutcomeUnknown extends ClusterError {
  readonly code = "OUTCOME_UNKNOWN";
  constructor(found: string, cause?: unknown) {
    super(`Cannot tell whether the change took effect: ${found}`, {
      fix: "Read the object, or repeat the request under the same session and number",
      cause,
    });
  }
}

/** Stops the process: the log or a snapshot holds what this binary does not understand. Skipping it would diverge. */
export class Incompatible extends ClusterError {
  readonly code = "INCOMPATIBLE";
  constructor(what: string, found: string, cause?: unknown) {
    super(`Cannot follow the cluster at ${what}: ${found}`, {
      fix: "Start this manager with a version at least as new as the cluster's feature level",
      cause,
    });
  }
}

/** Stops the process: this member's state is not what the others have. It must be replaced, not repaired. */
export class StateDiverged extends ClusterError {
  readonly code = "STATE_DIVERGED";
  constructor(index: number, expected: string, found: string) {
    super(`Cannot trust this member's state at index ${index}: its hash is ${found}, and should be ${expected}`, {
      fix: "Remove this manager and join it again with an empty data folder; check its memory and disk",
    });
  }
}

/** A snapshot's bytes are not a snapshot: refused whole, and the old state stays. */
export class SnapshotInvalid extends ClusterError {
  readonly code = "SNAPSHOT_INVALID";
  constructor(found: string, cause?: unknown) {
    super(`Cannot restore the snapshot: ${found}`, { fix: "Fetch the snapshot again from the leader", cause });
  }
}
