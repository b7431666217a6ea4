/** Linearizable reads without a log entry (Raft thesis §6.4), and the leader lease (§6.4.1). */
import { leaseFactor } from "./config.ts";
import { type Refused, refuse } from "./errors.ts";
import { type Progress, never } from "./progress.ts";
import { refuseRead } from "./roles.ts";
import type { Raft } from "./state.ts";
import type { ReadIndexRequest, ReadIndexResponse } from "./types.ts";

export interface Taken {
  readonly accepted: true;
}

export const taken: Taken = { accepted: true };

/** @param requestId  never used before by this member, not in an earlier life either */
export function readIndex(raft: Raft, requestId: number): Taken | Refused {
  if (raft.reads.pending >= raft.config.maxPendingReads) {
    return refuse({ code: "RAFT_BACKPRESSURE", pendingBytes: 0, pendingEntries: raft.reads.pending });
  }
  if (raft.role === "leader") {
    askOnLeader(raft, raft.id, requestId);
    return taken;
  }
  if (raft.leader === 0) return refuse({ code: "RAFT_NOT_LEADER", leader: 0 });
  raft.reads.forward(requestId, raft.tickCount + raft.config.electionTicks);
  raft.send({ type: "readIndex", from: raft.id, to: raft.leader, term: raft.term, requestId });
  return taken;
}

/** Forwarded by another member; one hop, so a member that does not lead says so. */
export function onReadIndex(raft: Raft, message: ReadIndexRequest): void {
  if (raft.role !== "leader" || raft.reads.pending >= raft.config.maxPendingReads) {
    refuseRead(raft, message.from, message.requestId);
    return;
  }
  askOnLeader(raft, message.from, message.requestId);
}

function askOnLeader(raft: Raft, from: number, requestId: number): void {
  const request = { from, requestId };
  if (leaseHolds(raft)) raft.answerRead(request, raft.log.commit, true);
  // Alone: its own word is the quorum's. It must still know what its predecessors committed (scenarios H2, H8).
  else if (isAlone(raft) && raft.hasCommittedInTerm) raft.answerRead(request, raft.log.commit, false);
  else raft.reads.wait(request);
}

function isAlone(raft: Raft): boolean {
  return raft.incoming.length === 1 && raft.outgoing.length === 0 && raft.incoming[0]?.id === raft.id;
}

export function onReadIndexResponse(raft: Raft, message: ReadIndexResponse): void {
  if (!raft.reads.settle(message.requestId)) return;
  if (message.refused) raft.readFailures.push(message.requestId);
  else raft.readStates.push({ requestId: message.requestId, index: message.index, lease: false });
}

/** Reads wait and no round is under way that they could join or that must end first. */
export function needsReadRound(raft: Raft): boolean {
  return raft.role === "leader" && raft.reads.hasWaiting && !raft.reads.hasRounds && raft.hasCommittedInTerm;
}

export function confirmReads(raft: Raft): void {
  if (!raft.reads.hasRounds) return;
  raft.reads.confirm(raft.reached(roundOf), (request, index) => raft.answerRead(request, index, false));
}

const roundOf = (progress: Progress): number => progress.ackedRound;

/**
 * A quorum has confirmed this leader so recently that none of them has voted for another since. Counted from the sending
 * of the round, a whole tick rounded up.
 */
export function leaseHolds(raft: Raft): boolean {
  if (raft.config.readMode !== "lease" || raft.role !== "leader" || raft.leaseVoid) return false;
  if (!raft.hasCommittedInTerm || !isConfirmed(raft)) return false;
  const sentTick = raft.reached(confirmedTickOf);
  if (sentTick === never) return false;
  return raft.leaderTick - sentTick + 1 <= Math.floor(raft.config.electionTicks * leaseFactor);
}

const confirmedTickOf = (progress: Progress): number => progress.confirmedTick;

/** A quorum has answered since the last stall (scenario D14). */
export function isConfirmed(raft: Raft): boolean {
  return raft.confirmFromRound === 0 || raft.reached(roundOf) >= raft.confirmFromRound;
}
