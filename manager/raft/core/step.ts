/** One message: what its term means first, then what it says (Raft thesis §3.3, figure 3.1 "Rules for servers"). */
import { MalformedMessage, raftInvariant } from "./errors.ts";
import {
  honoursLease,
  learnCommit,
  onPreVote,
  onPreVoteResponse,
  onVote,
  onVoteResponse,
  refuseVoteOfOlderTerm,
} from "./election.ts";
import { onReadIndex, onReadIndexResponse } from "./reads.ts";
import {
  answerOlderLeader,
  onAppend,
  onAppendResponse,
  onHeartbeat,
  onHeartbeatResponse,
  onSnapshot,
} from "./replication.ts";
import { becomeFollower } from "./roles.ts";
import type { Raft } from "./state.ts";
import { continueTransfer, onTimeoutNow } from "./transfer.ts";
import type { AppendRequest, AppendResponse, Heartbeat, HeartbeatResponse, Message, SnapshotRequest } from "./types.ts";
import { messageDefect } from "./validate.ts";

/**
 * @throws MalformedMessage     nothing has changed
 * @throws LogRegressed         this member lost what it acknowledged
 * @throws RaftInvariantError   a bug, here or in the sender
 */
export function step(raft: Raft, message: Message): void {
  const defect = messageDefect(message);
  if (defect !== undefined) throw new MalformedMessage(message.type, defect);
  if (message.to !== raft.id) throw new MalformedMessage(message.type, `it is for member ${message.to}`);
  if (message.from === raft.id) throw new MalformedMessage(message.type, "it claims to come from this member itself");
  if (raft.trace !== undefined) raft.traceMessage("receive", message);
  if (message.term > raft.term) {
    if (!meetLaterTerm(raft, message)) return;
  } else if (message.term < raft.term) {
    meetOlderTerm(raft, message);
    return;
  }
  switch (message.type) {
    case "preVote":
      learnCommit(raft, message);
      onPreVote(raft, message);
      return;
    case "preVoteResponse":
      learnCommit(raft, message);
      onPreVoteResponse(raft, message);
      return;
    case "vote":
      learnCommit(raft, message);
      onVote(raft, message);
      return;
    case "voteResponse":
      learnCommit(raft, message);
      onVoteResponse(raft, message);
      return;
    case "append":
    case "heartbeat":
    case "snapshot":
      hearLeader(raft, message);
      return;
    case "appendResponse":
    case "heartbeatResponse":
      hearFollower(raft, message);
      return;
    case "timeoutNow":
      onTimeoutNow(raft);
      return;
    case "readIndex":
      onReadIndex(raft, message);
      return;
    case "readIndexResponse":
      onReadIndexResponse(raft, message);
      return;
  }
}

/** @returns whether the message is to be handled */
function meetLaterTerm(raft: Raft, message: Message): boolean {
  switch (message.type) {
    case "preVote":
      // It only asks what would be; nobody's term changes.
      return true;
    case "preVoteResponse":
      if (message.granted) return true;
      becomeFollower(raft, message.term, 0);
      return true;
    case "vote":
      if (!message.transfer && honoursLease(raft, message.from)) return false;
      becomeFollower(raft, message.term, 0);
      return true;
    case "append":
    case "heartbeat":
    case "snapshot":
    case "timeoutNow":
      becomeFollower(raft, message.term, message.from);
      return true;
    default:
      becomeFollower(raft, message.term, 0);
      return true;
  }
}

/** Whoever can learn from it is told the present term; answers and requests of a past term mean nothing any more. */
function meetOlderTerm(raft: Raft, message: Message): void {
  switch (message.type) {
    case "preVote":
      onPreVote(raft, message);
      return;
    case "vote":
      refuseVoteOfOlderTerm(raft, message.from);
      return;
    case "append":
    case "heartbeat":
    case "snapshot":
      answerOlderLeader(raft, message);
      return;
    default:
  }
}

function hearLeader(raft: Raft, message: AppendRequest | Heartbeat | SnapshotRequest): void {
  raftInvariant(raft.role !== "leader" && (raft.leader === 0 || raft.leader === message.from), "one leader in a term", {
    term: raft.term,
    leader: raft.leader,
    from: message.from,
  });
  if (raft.role !== "follower" || raft.leader === 0) becomeFollower(raft, raft.term, message.from);
  raft.electionElapsed = 0;
  if (message.type === "append") onAppend(raft, message);
  else if (message.type === "heartbeat") onHeartbeat(raft, message);
  else onSnapshot(raft, message);
}

function hearFollower(raft: Raft, message: AppendResponse | HeartbeatResponse): void {
  const progress = raft.peerById.get(message.from);
  // Somebody who is no member any more, or answers a leader that is none.
  if (raft.role !== "leader" || progress === undefined) return;
  if (message.type === "appendResponse") onAppendResponse(raft, progress, message);
  else onHeartbeatResponse(raft, progress, message);
  continueTransfer(raft, progress);
}
