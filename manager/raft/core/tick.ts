/** Time passes by one tick: the only clock that the core knows. */
import { campaign, isHurried, isPromotable } from "./election.ts";
import { followThrough, tickLearners } from "./membership.ts";
import { type Progress, never } from "./progress.ts";
import { sendHeartbeats } from "./replication.ts";
import { becomeFollower } from "./roles.ts";
import type { Raft } from "./state.ts";
import { tickTransfer } from "./transfer.ts";

export function tick(raft: Raft): void {
  raft.tickCount++;
  if (raft.voteGuardTicks > 0) raft.voteGuardTicks--;
  for (const requestId of raft.reads.expire(raft.tickCount)) raft.readFailures.push(requestId);
  if (raft.role === "leader") tickLeader(raft);
  else tickOthers(raft);
}

/**
 * For how many ticks there is nothing to do but to count them, as long as no input comes: so long the shell may wait, and
 * then tells of all of them at once. A leader that rests beats all the same; a follower that has just heard it cannot miss it.
 */
export function restTicks(raft: Raft): number {
  const { heartbeatTicks, electionTicks } = raft.config;
  // A lease ends by ticks, and must not end late.
  if (raft.config.readMode === "lease") return 1;
  if (raft.voteGuardTicks > 0 || raft.reads.pending > 0 || raft.installing !== undefined) return 1;
  if (raft.role === "leader") {
    const { conf, log } = raft;
    const isQuiet =
      raft.transfer === undefined &&
      log.lastIndex === raft.applied &&
      raft.leaderTick > raft.commitTick &&
      conf.learners.length + conf.votersOutgoing.length === 0;
    return isQuiet ? Math.max(1, heartbeatTicks - raft.heartbeatElapsed) : 1;
  }
  const hears = raft.role === "follower" && raft.leader !== 0 && raft.hurryTick === 0;
  return hears && raft.electionElapsed + heartbeatTicks < electionTicks ? heartbeatTicks : 1;
}

function tickOthers(raft: Raft): void {
  raft.electionElapsed++;
  const due = raft.electionElapsed >= raft.randomizedElectionTicks || isHurried(raft) || waitsForNobody(raft);
  if (due && isPromotable(raft)) campaign(raft, false);
}

/** The only voter has no leader to hear from and no rival to give way to: it begins at once, as etcd's does. */
function waitsForNobody(raft: Raft): boolean {
  const { voters, votersOutgoing } = raft.conf;
  return raft.role === "follower" && voters.length === 1 && votersOutgoing.length === 0;
}

function tickLeader(raft: Raft): void {
  raft.leaderTick++;
  raft.heartbeatElapsed++;
  const self = raft.self;
  if (self !== undefined) self.heardTick = raft.leaderTick;
  if (!hasQuorumAnswering(raft)) {
    becomeFollower(raft, raft.term, 0);
    return;
  }
  tickTransfer(raft);
  tickLearners(raft);
  followThrough(raft);
  // followThrough may have ended the office.
  if (raft.leader === raft.id && raft.heartbeatElapsed >= raft.config.heartbeatTicks) sendHeartbeats(raft);
}

/** Check-quorum (Raft thesis §6.2): without an answer from a majority for one election timeout, a leader is none. */
function hasQuorumAnswering(raft: Raft): boolean {
  if (!raft.config.checkQuorum || raft.leaderTick < raft.quorumGraceTick) return true;
  return raft.reached(heardTickOf) >= raft.leaderTick - raft.config.electionTicks;
}

const heardTickOf = (progress: Progress): number => progress.heardTick;

/** The process stood still for longer than it can tell by ticks: nothing known about the others is fresh (D14). */
export function afterStall(raft: Raft): void {
  if (raft.role !== "leader") return;
  for (const progress of raft.peers) {
    if (progress.id === raft.id) continue;
    progress.heardTick = never;
    progress.confirmedTick = never;
  }
  raft.quorumGraceTick = raft.leaderTick + raft.config.electionTicks;
  raft.confirmFromRound = raft.round + 1;
  sendHeartbeats(raft);
}
