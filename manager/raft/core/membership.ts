/** Configuration changes in a running group (Raft thesis chapter 4): proposed, applied, and a joint one left again. */
import { changeConf, isJoint, isLastingVoter, isLeaveJoint, isVoter, leaveJoint, sameConf } from "./conf.ts";
import { encodeConfChange } from "./conf-codec.ts";
import { type Refusal, type Refused, refuse } from "./errors.ts";
import { never } from "./progress.ts";
import { quorumSize } from "./quorum.ts";
import { isConfirmed } from "./reads.ts";
import { advanceCommit, isRecentlyActive } from "./replication.ts";
import { appendOwn, becomeFollower } from "./roles.ts";
import type { Raft } from "./state.ts";
import { abortTransfer, bestTarget, transferLeadership } from "./transfer.ts";
import type { ConfChange, ConfState, MemberId } from "./types.ts";

export interface Proposed {
  readonly accepted: true;
  /** Of the first entry; the others follow it. */
  readonly index: number;
  readonly term: number;
}

/** A change is refused before it takes a place in the log, so no other member ever sees a refused one. */
export function proposeConfChange(raft: Raft, change: ConfChange, force: boolean): Proposed | Refused {
  const refusal = whyNot(raft, change, force);
  if (refusal !== undefined) return refuse(refusal);
  return appendConfChange(raft, change);
}

function whyNot(raft: Raft, change: ConfChange, force: boolean): Refusal | undefined {
  if (raft.role !== "leader") return { code: "RAFT_NOT_LEADER", leader: raft.leader };
  if (raft.transfer !== undefined) return { code: "RAFT_TRANSFER_IN_PROGRESS", to: raft.transfer.to };
  if (!isConfirmed(raft)) return { code: "RAFT_LEADER_UNCONFIRMED" };
  if (!raft.hasCommittedInTerm) return { code: "RAFT_TERM_UNCOMMITTED" };
  const pending = raft.applied < raft.pendingConfIndex;
  if (pending || (isJoint(raft.conf) && !isLeaveJoint(change))) {
    return { code: "RAFT_CONF_CHANGE_PENDING", index: raft.pendingConfIndex };
  }
  const changed = changeConf(raft.conf, change);
  if (!changed.valid) return { code: "RAFT_CONF_CHANGE_INVALID", why: changed.why };
  if (force) return undefined;
  const active = (id: MemberId): boolean => {
    const progress = raft.peerById.get(id);
    return progress !== undefined && isRecentlyActive(raft, progress);
  };
  const risk = quorumAtRisk(raft.conf, changed.conf, active);
  return risk === undefined ? undefined : { code: "RAFT_QUORUM_AT_RISK", ...risk };
}

/**
 * Would a change that takes voters away leave a group that cannot commit? Counts only voters that lately acknowledged.
 * @returns how many answer and how many would have to, or undefined if all is well (scenario F16)
 */
export function quorumAtRisk(
  now: ConfState,
  next: ConfState,
  isActive: (id: MemberId) => boolean,
): { active: number; needed: number } | undefined {
  if (now.voters.every((id) => next.voters.includes(id))) return undefined;
  const active = next.voters.filter(isActive).length;
  const needed = quorumSize(next.voters.length);
  return active < needed ? { active, needed } : undefined;
}

function appendConfChange(raft: Raft, change: ConfChange): Proposed {
  const index = appendOwn(raft, "confChange", encodeConfChange(change));
  raft.pendingConfIndex = index;
  raft.note("proposeConfChange", { index, steps: change.steps, transition: change.transition });
  return { accepted: true, index, term: raft.term };
}

/**
 * The shell applies the entry. Depends only on the configuration in force and the change, so all members end equal, after
 * an invalid change as well: it changes nothing.
 */
export function applyConfChange(raft: Raft, change: ConfChange): ConfState {
  const changed = changeConf(raft.conf, change);
  const conf = changed.valid ? changed.conf : raft.conf;
  if (sameConf(conf, raft.conf)) return raft.conf;
  raft.conf = conf;
  raft.note("applyConfChange");
  if (raft.role === "leader") switchLeader(raft);
  else if (raft.role !== "follower" && !isVoter(conf, raft.id)) becomeFollower(raft, raft.term, 0);
  return conf;
}

function switchLeader(raft: Raft): void {
  raft.handOverFailed = false;
  raft.syncPeers();
  if (raft.transfer !== undefined && !isVoter(raft.conf, raft.transfer.to)) abortTransfer(raft);
  // A smaller quorum may have what is needed already.
  advanceCommit(raft);
  followThrough(raft);
}

/** What a change still asks of the leader: to leave a joint configuration, or its office. Called as time goes on, too. */
export function followThrough(raft: Raft): void {
  if (raft.role !== "leader" || raft.transfer !== undefined) return;
  if (!raft.isVoter) {
    handOver(raft);
    if (raft.transfer === undefined) becomeFollower(raft, raft.term, 0);
    return;
  }
  if (!raft.conf.autoLeave || raft.applied < raft.pendingConfIndex || !raft.hasCommittedInTerm) return;
  // Leaving would take the leader's own vote away: the next leader does it, if there is one to hand over to (F10).
  if (!isLastingVoter(raft.conf, raft.id) && !raft.handOverFailed) {
    handOver(raft);
    if (raft.transfer !== undefined) return;
  }
  appendConfChange(raft, leaveJoint);
}

function handOver(raft: Raft): void {
  if (raft.handOverFailed) return;
  const to = bestTarget(raft);
  if (to === 0) raft.handOverFailed = true;
  else transferLeadership(raft, to);
}

/** Learners that have stayed near the commit index for a whole election timeout, and answer (scenario F18). */
export function promotableLearners(raft: Raft): MemberId[] {
  const ids: MemberId[] = [];
  for (const progress of raft.peers) {
    if (!raft.conf.learners.includes(progress.id) || !isRecentlyActive(raft, progress)) continue;
    if (progress.caughtUpTick === never) continue;
    if (raft.leaderTick - progress.caughtUpTick >= raft.config.electionTicks) ids.push(progress.id);
  }
  return ids;
}

export function tickLearners(raft: Raft): void {
  for (const progress of raft.peers) {
    if (!progress.isLearner) continue;
    const near = progress.match > 0 && progress.match + raft.config.promotionLagEntries >= raft.log.commit;
    if (!near) progress.caughtUpTick = never;
    else if (progress.caughtUpTick === never) progress.caughtUpTick = raft.leaderTick;
  }
}
