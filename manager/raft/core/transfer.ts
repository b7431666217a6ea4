/** Leadership transfer (Raft thesis §3.10). */
import { isLastingVoter, isMember } from "./conf.ts";
import { type Refused, refuse } from "./errors.ts";
import { campaign } from "./election.ts";
import type { Progress } from "./progress.ts";
import { isRecentlyActive, sendAppends } from "./replication.ts";
import type { Raft } from "./state.ts";
import type { MemberId } from "./types.ts";

export interface TransferStarted {
  readonly accepted: true;
  readonly to: MemberId;
}

/**
 * Proposals are refused until it ends: by a new leader, or after one election timeout by itself.
 * @param to  0 lets the leader choose the member that is most up to date
 */
export function transferLeadership(raft: Raft, to: MemberId): TransferStarted | Refused {
  if (raft.role !== "leader") return refuse({ code: "RAFT_NOT_LEADER", leader: raft.leader });
  const target = to === 0 ? bestTarget(raft) : to;
  const why = defect(raft, target);
  if (why !== undefined) return refuse({ code: "RAFT_TRANSFER_TARGET_INVALID", to: target, why });
  if (raft.transfer?.to !== target) {
    raft.transfer = { to: target, elapsedTicks: 0 };
    raft.note("transfer", { to: target });
    const progress = raft.peerById.get(target);
    if (progress !== undefined) continueTransfer(raft, progress);
  }
  return { accepted: true, to: target };
}

function defect(raft: Raft, target: MemberId): string | undefined {
  if (target === 0) return "no other voter answers";
  if (target === raft.id) return "it leads already";
  if (!isMember(raft.conf, target)) return "it is not a member";
  if (!isLastingVoter(raft.conf, target)) return "it is not, or will not stay, a voter";
  return undefined;
}

/** The voter with the longest matching log among those that answer; the smallest id among equals. 0 if there is none. */
export function bestTarget(raft: Raft): MemberId {
  let best: Progress | undefined;
  for (const progress of raft.peers) {
    if (progress.id === raft.id || !isLastingVoter(raft.conf, progress.id)) continue;
    if (isRecentlyActive(raft, progress) && (best === undefined || progress.match > best.match)) best = progress;
  }
  return best?.id ?? 0;
}

/** Called with every sign of life of a member: sends it into its campaign once it has everything. */
export function continueTransfer(raft: Raft, progress: Progress): void {
  if (raft.transfer?.to !== progress.id || progress.match !== raft.log.lastIndex) return;
  // Its campaign overrides the lease, whenever the message arrives: no more reads without a quorum in this term.
  raft.leaseVoid = true;
  // The commit index goes first: the successor shall know, for one, which configuration is in force.
  sendAppends(raft);
  raft.send({ type: "timeoutNow", from: raft.id, to: progress.id, term: raft.term });
}

export function tickTransfer(raft: Raft): void {
  if (raft.transfer === undefined) return;
  raft.transfer.elapsedTicks++;
  if (raft.transfer.elapsedTicks >= raft.config.electionTicks) abortTransfer(raft);
}

export function abortTransfer(raft: Raft): void {
  if (raft.transfer === undefined) return;
  raft.note("transferAborted", { to: raft.transfer.to });
  raft.transfer = undefined;
  raft.handOverFailed = true;
}

export function onTimeoutNow(raft: Raft): void {
  if (raft.role === "follower") campaign(raft, true);
}
