/** The four roles and what changes when a member takes one (Raft thesis §3.3, figure 3.3). */
import { raftInvariant } from "./errors.ts";
import { never } from "./progress.ts";
import type { Raft } from "./state.ts";
import type { MemberId } from "./types.ts";

const noData = new Uint8Array(0);

/**
 * Adopting a later term gives no vote to whoever showed it (scenario C10). The election timer keeps running: only a
 * leader's word or a vote granted restarts it, so that campaigns of others do not put off one's own (scenario D7).
 */
export function becomeFollower(raft: Raft, term: number, leader: MemberId): void {
  raftInvariant(term >= raft.term, "the term never goes back", { term, own: raft.term });
  const changedLeader = term !== raft.term || leader !== raft.leader;
  if (term !== raft.term) {
    raft.term = term;
    raft.vote = 0;
    raft.campaignUntilTick = 0;
  }
  const wasFollower = raft.role === "follower";
  if (raft.role === "leader") endLeadership(raft);
  raft.role = "follower";
  raft.leader = leader;
  raft.hurryTick = 0;
  if (!wasFollower) {
    raft.electionElapsed = 0;
    raft.votes.clear();
    raft.drawElectionTimeout();
  }
  if (changedLeader) failForwardedReads(raft);
  if (changedLeader || !wasFollower) raft.note("becomeFollower", { leader });
}

/** Changes nothing that lasts: no term, no vote (Raft thesis §9.6). */
export function becomePreCandidate(raft: Raft): void {
  raft.role = "preCandidate";
  startCampaign(raft);
  raft.note("becomePreCandidate");
}

export function becomeCandidate(raft: Raft): void {
  raft.role = "candidate";
  raft.term++;
  raft.vote = raft.id;
  startCampaign(raft);
  raft.note("becomeCandidate");
}

function startCampaign(raft: Raft): void {
  raftInvariant(raft.leader !== raft.id, "a leader does not campaign");
  raft.leader = 0;
  raft.electionElapsed = 0;
  raft.campaignUntilTick = 0;
  raft.hurryTick = 0;
  raft.votes.clear();
  raft.drawElectionTimeout();
  failForwardedReads(raft);
}

export function becomeLeader(raft: Raft): void {
  raftInvariant(raft.role === "candidate", "only a candidate wins", { role: raft.role });
  raft.role = "leader";
  raft.leader = raft.id;
  raft.votes.clear();
  raft.leaderTick = 0;
  raft.commitTick = 0;
  raft.heartbeatElapsed = 0;
  raft.quorumGraceTick = raft.config.electionTicks;
  raft.round = 0;
  raft.confirmFromRound = 0;
  raft.transfer = undefined;
  raft.leaseVoid = false;
  raft.handOverFailed = false;
  raft.dropPeers();
  raft.syncPeers();
  for (const progress of raft.peers) progress.heardTick = never;
  // Changes in the inherited tail may not be applied yet; nothing new before they are (scenario F3).
  raft.pendingConfIndex = raft.log.lastIndex;
  raft.budgetFrom = raft.log.lastIndex;
  raft.note("becomeLeader");
  // The empty entry that commits all before it (§3.6.2, §6.4); no budget refuses it.
  appendOwn(raft, "empty", noData);
}

/** The leader's own log, which it only ever extends. @returns the index of the new entry */
export function appendOwn(raft: Raft, kind: "normal" | "confChange" | "empty", data: Uint8Array): number {
  const index = raft.log.lastIndex + 1;
  raft.log.append({ term: raft.term, index, kind, data });
  return index;
}

/** Everything that belonged to the office goes with it, a transfer under way too (scenario I3). */
function endLeadership(raft: Raft): void {
  raft.transfer = undefined;
  for (const request of raft.reads.abandon()) {
    if (request.from === raft.id) raft.readFailures.push(request.requestId);
    else refuseRead(raft, request.from, request.requestId);
  }
  raft.dropPeers();
}

export function refuseRead(raft: Raft, to: MemberId, requestId: number): void {
  raft.send({ type: "readIndexResponse", from: raft.id, to, term: raft.term, requestId, index: 0, refused: true });
}

function failForwardedReads(raft: Raft): void {
  for (const requestId of raft.reads.abandonForwarded()) raft.readFailures.push(requestId);
}
