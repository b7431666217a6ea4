/** What the core refuses, what it cannot accept from outside, and what must never happen. */
import { ClusterError, InvariantViolation, unreachable } from "../../../lib/pure/errors.ts";
import type { MemberId } from "./types.ts";

/** A broken promise inside the core: the shell logs its facts and stops the process (scenario A6). */
export class RaftInvariantError extends InvariantViolation {}

/** One claim a call, with its facts. Facts are built by the caller only where the path is not hot. */
export function raftInvariant(
  condition: unknown,
  claim: string,
  facts?: Readonly<Record<string, unknown>>,
): asserts condition {
  if (!condition) throw new RaftInvariantError(claim, facts);
}

/** A message that no correct member sends. Nothing has changed when it is thrown; close the stream it came on. */
export class MalformedMessage extends ClusterError {
  readonly code = "RAFT_MESSAGE_MALFORMED";
  constructor(type: string, found: string) {
    super(`Cannot take a ${type.slice(0, 40)} message: ${found}`, {
      fix: "Check that both managers run the same release; if they do, report it with both logs",
    });
  }
}

/** This member acknowledged entries that its disk no longer has: it must not vote or acknowledge again under this id. */
export class LogRegressed extends ClusterError {
  readonly code = "RAFT_LOG_REGRESSED";
  constructor(lastIndex: number, known: number) {
    super(`Cannot follow the leader: this member acknowledged entry ${known}, and its log ends at ${lastIndex}`, {
      fix: "Keep the data folder for inspection, remove this manager from the cluster and join it again with a new one",
    });
  }
}

/** A committed entry of a kind that this binary does not know: it is never skipped (scenario L5). */
export class EntryKindUnknown extends ClusterError {
  readonly code = "RAFT_ENTRY_KIND_UNKNOWN";
  constructor(index: number, kind: unknown) {
    super(`Cannot apply entry ${index}: its kind "${String(kind).slice(0, 40)}" is not known to this release`, {
      fix: "Install the release that the other managers run, then start this manager again",
    });
  }
}

/** What storage handed over cannot have been written by a correct member. */
export class InitialStateInvalid extends ClusterError {
  readonly code = "RAFT_STATE_INVALID";
  constructor(found: string) {
    super(`Cannot start from the recovered log: ${found}`, {
      fix: "Keep the data folder for inspection, remove this manager from the cluster and join it again with a new one",
    });
  }
}

export class CoreConfigInvalid extends ClusterError {
  readonly code = "RAFT_CONFIG_INVALID";
  constructor(found: string) {
    super(`Cannot start consensus: ${found}`, { fix: "Correct the raft settings of the cluster" });
  }
}

export class ConfChangeUnreadable extends ClusterError {
  readonly code = "RAFT_CONF_CHANGE_UNREADABLE";
  constructor(found: string) {
    super(`Cannot read a configuration change: ${found}`, {
      fix: "Install the release that the other managers run, then start this manager again",
    });
  }
}

/** Why an input was not taken. Plain data, since a busy caller may meet one for each proposal. */
export type Refusal =
  /** Ask `leader`; 0 means that none is known yet. */
  | { readonly code: "RAFT_NOT_LEADER"; readonly leader: MemberId }
  | { readonly code: "RAFT_BACKPRESSURE"; readonly pendingBytes: number; readonly pendingEntries: number }
  | { readonly code: "RAFT_ENTRY_TOO_LARGE"; readonly bytes: number; readonly bytesMax: number }
  /** Queue it, at most for one election timeout, then ask again. */
  | { readonly code: "RAFT_TRANSFER_IN_PROGRESS"; readonly to: MemberId }
  /** The process was stalled: queue it until the next quorum round has confirmed the leader. */
  | { readonly code: "RAFT_LEADER_UNCONFIRMED" }
  /** A change is pending (up to `index`) or the configuration is still joint. */
  | { readonly code: "RAFT_CONF_CHANGE_PENDING"; readonly index: number }
  | { readonly code: "RAFT_CONF_CHANGE_INVALID"; readonly why: string }
  /** No entry of this leader's term is committed yet (Ongaro 2015). */
  | { readonly code: "RAFT_TERM_UNCOMMITTED" }
  | { readonly code: "RAFT_QUORUM_AT_RISK"; readonly active: number; readonly needed: number }
  | { readonly code: "RAFT_TRANSFER_TARGET_INVALID"; readonly to: MemberId; readonly why: string };

export interface Refused {
  readonly accepted: false;
  readonly refusal: Refusal;
}

export function refuse(refusal: Refusal): Refused {
  return { accepted: false, refusal };
}

/** A refusal as an error, for a caller at the edge. */
export class RaftRefusal extends ClusterError {
  readonly code: Refusal["code"];
  readonly refusal: Refusal;
  constructor(refusal: Refusal) {
    const { found, fix } = explain(refusal);
    super(`Cannot take the request: ${found}`, { fix });
    this.code = refusal.code;
    this.refusal = refusal;
  }
}

function explain(refusal: Refusal): { found: string; fix: string } {
  switch (refusal.code) {
    case "RAFT_NOT_LEADER":
      return refusal.leader === 0
        ? { found: "no leader is known", fix: "Try again; an election takes about a second" }
        : { found: `the leader is member ${refusal.leader}`, fix: "Send it to the leader" };
    case "RAFT_BACKPRESSURE":
      return {
        found: `${refusal.pendingEntries} entries (${refusal.pendingBytes} bytes) already wait to be committed`,
        fix: "Try again after a pause; if it lasts, look for a manager with a slow disk or link",
      };
    case "RAFT_ENTRY_TOO_LARGE":
      return {
        found: `an entry has ${refusal.bytes} bytes, the limit is ${refusal.bytesMax}`,
        fix: "Split the transaction",
      };
    case "RAFT_TRANSFER_IN_PROGRESS":
      return { found: `leadership is being handed to member ${refusal.to}`, fix: "Try again in a moment" };
    case "RAFT_LEADER_UNCONFIRMED":
      return { found: "the leader was stalled and asks the others first", fix: "Try again in a moment" };
    case "RAFT_CONF_CHANGE_PENDING":
      return {
        found: `another membership change is in progress (entry ${refusal.index})`,
        fix: "Try again when it is done",
      };
    case "RAFT_CONF_CHANGE_INVALID":
      return { found: `the membership change is not valid: ${refusal.why}`, fix: "List the managers and correct it" };
    case "RAFT_TERM_UNCOMMITTED":
      return { found: "the leader has just been elected", fix: "Try again in a moment" };
    case "RAFT_QUORUM_AT_RISK":
      return {
        found: `only ${refusal.active} of the ${refusal.needed} voters then needed for a quorum answer`,
        fix: "Bring the other managers back first, or force the change if they are gone for good",
      };
    case "RAFT_TRANSFER_TARGET_INVALID":
      return {
        found: `leadership cannot go to member ${refusal.to}: ${refusal.why}`,
        fix: "Choose another manager that votes",
      };
  }
  return unreachable("a refusal of no known kind");
}
