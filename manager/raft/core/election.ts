/** Campaigns and votes (Raft thesis §3.4, §3.6.1, §9.6; leadership transfer §3.10). */
import { members } from "./conf.ts";
import { voteResult } from "./quorum.ts";
import { becomeCandidate, becomeFollower, becomeLeader, becomePreCandidate } from "./roles.ts";
import type { Raft } from "./state.ts";
import type { MemberId, VoteRequest, VoteResponse } from "./types.ts";

/**
 * @param transfer  the leader asked for it: no pre-vote, and voters disregard the leader's lease
 * @returns false if this member must not campaign now (scenarios C12, C13, C16)
 */
export function campaign(raft: Raft, transfer: boolean): boolean {
  if (raft.role === "leader" || !isPromotable(raft)) return false;
  if (hasUnappliedConfChange(raft)) {
    if (transfer) raft.campaignUntilTick = raft.tickCount + raft.config.electionTicks;
    return false;
  }
  if (raft.config.preVote && !transfer) startPreVote(raft);
  else startVote(raft, transfer);
  return true;
}

/**
 * The leader's process is gone: this member withholds no vote for its sake, and campaigns when it is its turn, by the
 * order of ids, so that two do not split the votes. The first turn leaves the others time to notice as well. Under a
 * leader lease nobody may be hurried: it counts on the timeouts of the others.
 */
export function hurryAfter(raft: Raft, gone: MemberId): void {
  const { heartbeatTicks, readMode } = raft.config;
  if (raft.role !== "follower" || raft.leader !== gone || readMode === "lease" || !isPromotable(raft)) return;
  becomeFollower(raft, raft.term, 0);
  const { voters, votersOutgoing } = raft.conf;
  const before = new Set([...voters, ...votersOutgoing].filter((id) => id < raft.id && id !== gone)).size;
  raft.hurryTick = raft.tickCount + heartbeatTicks * (1 + 3 * before);
}

export function isHurried(raft: Raft): boolean {
  return raft.hurryTick > 0 && raft.tickCount >= raft.hurryTick && raft.role === "follower";
}

export function isPromotable(raft: Raft): boolean {
  return raft.isVoter && raft.installing === undefined;
}

/** Counting by a configuration that is committed to be replaced could give two majorities that do not meet. */
function hasUnappliedConfChange(raft: Raft): boolean {
  return raft.log.hasConfChangeBetween(raft.applied, raft.log.commit);
}

function startPreVote(raft: Raft): void {
  becomePreCandidate(raft);
  if (recordVote(raft, raft.id, true) === "pending") requestVotes(raft, "preVote", raft.term + 1, false);
}

function startVote(raft: Raft, transfer: boolean): void {
  becomeCandidate(raft);
  // The own vote counts only once it is durable: see countOwnVote().
  requestVotes(raft, "vote", raft.term, transfer);
}

function requestVotes(raft: Raft, type: "preVote" | "vote", term: number, transfer: boolean): void {
  const { lastIndex, lastTerm } = raft.log;
  for (const to of members(raft.conf)) {
    if (to === raft.id || !(raft.conf.voters.includes(to) || raft.conf.votersOutgoing.includes(to))) continue;
    raft.send({ type, from: raft.id, to, term, lastIndex, lastTerm, transfer, ...knownCommit(raft) });
  }
}

/** The vote for itself, given in `term`, is on disk (scenario C8). */
export function countOwnVote(raft: Raft, durable: { term: number; vote: MemberId }): void {
  if (raft.role !== "candidate" || durable.term !== raft.term || durable.vote !== raft.id) return;
  recordVote(raft, raft.id, true);
}

function recordVote(raft: Raft, voter: MemberId, granted: boolean): "won" | "lost" | "pending" {
  if (!raft.votes.has(voter)) raft.votes.set(voter, granted);
  const result = voteResult(raft.conf, raft.votes);
  if (result === "lost") becomeFollower(raft, raft.term, 0);
  else if (result === "won") {
    if (raft.role === "preCandidate") startVote(raft, false);
    // A majority of others does not replace the own vote: it must be durable before this member leads in its term.
    else if (raft.votes.get(raft.id) === true) becomeLeader(raft);
    else return "pending";
  }
  return result;
}

/**
 * This member heard from a leader within an election timeout and keeps it in office (Raft thesis §4.2.3). The leader
 * itself is let through: if it campaigns, it has stepped down (scenario D5).
 */
export function honoursLease(raft: Raft, candidate: MemberId): boolean {
  if (!raft.config.checkQuorum) return false;
  if (raft.voteGuardTicks > 0) return true;
  if (raft.leader === 0 || raft.leader === candidate) return false;
  return raft.role === "leader" || raft.electionElapsed < raft.config.electionTicks;
}

/** Answers without changing anything: no term, vote, timer or leader (scenario D2). */
export function onPreVote(raft: Raft, message: VoteRequest): void {
  const later = message.term > raft.term;
  if (later && !message.transfer && honoursLease(raft, message.from)) return;
  const granted = later && raft.log.isUpToDate(message.lastIndex, message.lastTerm);
  // A grant speaks of the term asked for. A refusal tells the own term, from which a candidate of an older one learns;
  // if the candidate is ahead, it tells the candidate's own, so that the refusal is counted there.
  const term = granted ? message.term : Math.max(raft.term, message.term - 1);
  raft.send({ type: "preVoteResponse", from: raft.id, to: message.from, term, granted, ...knownCommit(raft) });
}

/** `message.term` is the own term here; a learner answers too, since the candidate may know it as a voter (F9). */
export function onVote(raft: Raft, message: VoteRequest): void {
  const free = raft.vote === message.from || (raft.vote === 0 && raft.leader === 0);
  const granted = free && raft.log.isUpToDate(message.lastIndex, message.lastTerm);
  if (granted) {
    if (raft.role === "preCandidate") becomeFollower(raft, raft.term, 0);
    raft.vote = message.from;
    raft.electionElapsed = 0;
    raft.hurryTick = 0;
  }
  answerVote(raft, message.from, granted);
}

export function refuseVoteOfOlderTerm(raft: Raft, to: MemberId): void {
  answerVote(raft, to, false);
}

function answerVote(raft: Raft, to: MemberId, granted: boolean): void {
  raft.send({ type: "voteResponse", from: raft.id, to, term: raft.term, granted, ...knownCommit(raft) });
}

function knownCommit({ log }: Raft): { commit: number; commitTerm: number } {
  return { commit: log.commit, commitTerm: log.term(log.commit) ?? 0 };
}

/**
 * An entry that anybody knows to be committed is committed here too, if it is the same one. Without this a group can be
 * stuck for good: a removed leader with the longer log votes for nobody, and the rest still count it in.
 */
export function learnCommit(raft: Raft, { commit, commitTerm }: { commit: number; commitTerm: number }): void {
  const { log } = raft;
  if (raft.role === "leader" || commit <= log.commit || !log.matches(commit, commitTerm)) return;
  log.commitTo(commit);
  raft.note("commit");
  // Votes asked for under a configuration that is about to change are not to be counted (C16).
  if (raft.role !== "follower" && hasUnappliedConfChange(raft)) becomeFollower(raft, raft.term, 0);
}

export function onPreVoteResponse(raft: Raft, message: VoteResponse): void {
  if (raft.role !== "preCandidate") return;
  if (message.term !== (message.granted ? raft.term + 1 : raft.term)) return;
  recordVote(raft, message.from, message.granted);
}

export function onVoteResponse(raft: Raft, message: VoteResponse): void {
  if (raft.role === "candidate") recordVote(raft, message.from, message.granted);
}
