/** What callers of the consensus group meet, beside the errors of its rooms. */
import { ClusterError } from "../../lib/pure/errors.ts";

/** Certainly without effect: the entry never entered the log. */
export class NoLeader extends ClusterError {
  readonly code = "RAFT_NO_LEADER";
  constructor() {
    super("Cannot reach the leader: none is known", {
      fix: "Try again; an election takes about a second. If it lasts, see with `status` which managers answer",
    });
  }
}

export class ElsewhereLed extends ClusterError {
  readonly code = "RAFT_LED_ELSEWHERE";
  /** HOST:PORT of the leader. */
  readonly leader: string;
  constructor(leader: string) {
    super(`Cannot do this here: the leader is at ${leader}`, { fix: `Send the request to ${leader}` });
    this.leader = leader;
  }
}

export class RaftStopped extends ClusterError {
  readonly code = "RAFT_STOPPED";
  constructor(state: string) {
    super(`Cannot ask this manager's log: it is ${state}`, {
      fix: "Ask another manager; see this one's log for the reason",
    });
  }
}

/** Leadership was lost on the way: it may have taken effect, or may yet. */
export class ChangeUnknown extends ClusterError {
  readonly code = "RAFT_CHANGE_UNKNOWN";
  constructor(what: string) {
    super(`Cannot tell whether ${what} happened: leadership changed meanwhile`, {
      fix: "Look at the list of managers, and ask again if it did not happen",
    });
  }
}

export class TransferFailed extends ClusterError {
  readonly code = "RAFT_TRANSFER_FAILED";
  constructor(to: number) {
    super(`Cannot hand leadership to member ${to}: it did not take over in time`, {
      fix: "Check that it is reachable and up to date, or choose another manager",
    });
  }
}

export class TimingsRefused extends ClusterError {
  readonly code = "RAFT_TIMINGS_REFUSED";
  constructor(found: string) {
    super(`Cannot use these timings: ${found}`, {
      fix: "Use an election timeout of at least five heartbeats (eight are wise) and a tick of at most one heartbeat",
    });
  }
}

export class MemberUnknown extends ClusterError {
  readonly code = "RAFT_MEMBER_UNKNOWN";
  constructor(id: number) {
    super(`Cannot find member ${id}: it is not one of the managers`, { fix: "List the managers for their ids" });
  }
}

/**
 * Its log or its state is not to be trusted. It has gone silent, and only an operator can tell that its disk or memory may
 * be used again: the fix is the command that puts another member in its place.
 */
export class MemberQuarantined extends ClusterError {
  readonly code = "RAFT_MEMBER_QUARANTINED";
  /** @param through  HOST:PORT of other managers, as far as they are known here */
  constructor(id: number, reason: string, through: readonly string[], cause?: unknown) {
    const joins = (through.length > 0 ? through : ["HOST:PORT"]).map((address) => `--join ${address}`).join(" ");
    super(`Cannot let member ${id} take part in the cluster: ${reason}`, {
      fix:
        "Keep a copy of its data folder until you know the cause, and check its disk and memory. A node of a swarm: " +
        "`skep swarm leave --force` on it, `skep node rm --force NODE` on another manager, then join it again. A manager " +
        "that runs by itself: give a new one, with a certificate and an empty data folder of its own, its place: manager " +
        `${joins} --replace ${id} --data-dir DIR --listen HOST:PORT --cert FILE --key FILE --ca FILE`,
      cause,
    });
  }
}

/** The folder that a member comes with is not the one that it had: what it acknowledged is not in it. */
export class MemberFolderReplaced extends ClusterError {
  readonly code = "RAFT_MEMBER_FOLDER_REPLACED";
  constructor(id: number) {
    super(`Cannot let member ${id} in again: it has lost the data folder that it had`, {
      fix: `Give the manager a new certificate, with a member id of its own, and join it with --replace ${id}`,
    });
  }
}
