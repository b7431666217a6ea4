/** Log replication (Raft thesis §3.5, §3.6, §10.2): what a leader sends, how a follower takes it, and what is committed. */
import { LogRegressed, MalformedMessage, raftInvariant } from "./errors.ts";
import { confirmReads, isConfirmed } from "./reads.ts";
import { type Progress, never } from "./progress.ts";
import type { Raft } from "./state.ts";
import type { AppendRequest, AppendResponse, Heartbeat, HeartbeatResponse, SnapshotRequest } from "./types.ts";

const nothing: AppendRequest["entries"] = [];

// ---- Leader: sending

/** All that flow control lets through now, in the order of member ids. */
export function sendAppends(raft: Raft): void {
  for (const progress of raft.peers) if (isSendable(raft, progress)) sendTo(raft, progress);
}

export function hasAppendsToSend(raft: Raft): boolean {
  return raft.peers.some((progress) => isSendable(raft, progress));
}

/** Decides from the table alone, so asking twice changes nothing. */
function isSendable(raft: Raft, progress: Progress): boolean {
  if (progress.id === raft.id || progress.state === "snapshot") return false;
  if (progress.state === "probe" && progress.probeSent) return false;
  if (progress.next < raft.log.firstIndex) return maySendSnapshot(raft, progress);
  if (progress.state === "probe") return true;
  return hasRoom(raft, progress) || needsEmptyAppend(raft, progress);
}

/** There is something to send, and the window takes at least one entry of it. */
function hasRoom(raft: Raft, progress: Progress): boolean {
  const { next, inflights } = progress;
  if (next > raft.log.lastIndex || inflights.full) return false;
  // An entry larger than the whole window travels when nothing else does.
  return inflights.count === 0 || raft.log.bytesBetween(next, next) <= inflights.bytesLeft;
}

/** To ask whether what was sent has arrived, or to tell a commit index that no entry will carry. */
function needsEmptyAppend(raft: Raft, progress: Progress): boolean {
  if (progress.nudge) return true;
  const { log } = raft;
  return progress.next > log.lastIndex && log.commit > progress.sentCommit && !mayRide(raft, progress);
}

/**
 * A new commit index alone waits for the next append to ride on, a tick at most: under a steady load that halves the
 * messages. Configuration changes are told at once, since others act on them.
 */
function mayRide(raft: Raft, progress: Progress): boolean {
  if (!raft.config.lazyCommit || raft.leaderTick > raft.commitTick) return false;
  return !raft.log.hasConfChangeBetween(progress.sentCommit, raft.log.commit);
}

function sendTo(raft: Raft, progress: Progress): void {
  const { log } = raft;
  if (progress.next < log.firstIndex) {
    sendSnapshot(raft, progress);
    return;
  }
  const { maxEntriesPerMsgBytes } = raft.config;
  if (progress.state === "probe") {
    const to =
      progress.next > log.lastIndex
        ? log.lastIndex
        : log.runWithin(progress.next, log.lastIndex, maxEntriesPerMsgBytes);
    sendAppend(raft, progress, to);
    progress.probeSent = true;
    return;
  }
  while (hasRoom(raft, progress)) {
    const from = progress.next;
    const to = log.runWithin(from, log.lastIndex, Math.min(maxEntriesPerMsgBytes, progress.inflights.bytesLeft));
    sendAppend(raft, progress, to);
    // Optimistic: the next append goes on from here without waiting for the answer (§10.2.1).
    progress.next = to + 1;
    progress.inflights.add(to, log.bytesBetween(from, to));
    progress.nudge = false;
  }
  if (needsEmptyAppend(raft, progress)) sendAppend(raft, progress, progress.next - 1);
  progress.nudge = false;
}

function sendAppend(raft: Raft, progress: Progress, to: number): void {
  const { log } = raft;
  const prevIndex = progress.next - 1;
  const prevTerm = log.term(prevIndex);
  const entries = to > prevIndex ? log.slice(prevIndex + 1, to) : nothing;
  raftInvariant(prevTerm !== undefined, "the entry before an append is known");
  raftInvariant(entries.length === 0 || entries[0]?.index === prevIndex + 1, "an append follows its previous entry");
  progress.sentCommit = Math.min(log.commit, Math.max(to, prevIndex));
  raft.send({
    type: "append",
    from: raft.id,
    to: progress.id,
    term: raft.term,
    prevIndex,
    prevTerm,
    entries,
    commit: log.commit,
  });
}

/** Only to somebody who answers, and not in a tight loop after failures (scenario G4). */
function maySendSnapshot(raft: Raft, progress: Progress): boolean {
  return isRecentlyActive(raft, progress) && raft.leaderTick >= progress.snapshotRetryTick;
}

function sendSnapshot(raft: Raft, progress: Progress): void {
  const meta = raft.snapshot;
  raftInvariant(meta.index >= raft.log.firstIndex - 1, "the snapshot joins the log", {
    snapshot: meta.index,
    first: raft.log.firstIndex,
  });
  progress.becomeSnapshot(meta.index);
  raft.send({ type: "snapshot", from: raft.id, to: progress.id, term: raft.term, meta });
}

/** A new round of heartbeats; reads that wait go with it. */
export function sendHeartbeats(raft: Raft): void {
  raft.round++;
  raft.heartbeatElapsed = 0;
  raft.noteRound();
  if (raft.hasCommittedInTerm) raft.reads.begin(raft.round, raft.log.commit);
  for (const progress of raft.peers) {
    if (progress.id === raft.id) {
      progress.ackedRound = raft.round;
      progress.confirmedTick = raft.leaderTick;
      continue;
    }
    // Never more than it is known to have: a heartbeat does not check that the logs agree.
    const commit = Math.min(progress.match, raft.log.commit);
    const { id, term, round } = raft;
    const { id: to } = progress;
    if (wantsAnswer(raft, progress)) raft.send({ type: "heartbeat", from: id, to, term, commit, round });
    else raft.send({ type: "heartbeat", from: id, to, term, commit, round, unanswered: true });
  }
  confirmReads(raft);
}

/**
 * An answer tells that the follower lives, that this leader still leads, and that what was sent has arrived. At rest there is
 * only the first to know, and not with each heartbeat: to write and to read an answer is half of what a leader at rest does.
 */
function wantsAnswer(raft: Raft, progress: Progress): boolean {
  const { answerTicks, heartbeatTicks, readMode } = raft.config;
  if (raft.leaderTick + heartbeatTicks - progress.heardTick > answerTicks) return true;
  if (readMode === "lease" || raft.transfer !== undefined || raft.reads.hasRounds || !isConfirmed(raft)) return true;
  return progress.state !== "replicate" || progress.match < raft.log.lastIndex;
}

// ---- Leader: answers

export function onAppendResponse(raft: Raft, progress: Progress, message: AppendResponse): void {
  const { log } = raft;
  progress.heardTick = raft.leaderTick;
  if (message.rejected) {
    const { hintIndex, hintTerm } = message;
    const agreesAt = hintTerm > 0 ? log.lastIndexWithTermAtMost(hintIndex, hintTerm) : hintIndex;
    progress.backOff(message.index, agreesAt);
    return;
  }
  if (message.index > log.lastIndex) {
    throw new MalformedMessage(message.type, `entry ${message.index} acknowledged, the log ends at ${log.lastIndex}`);
  }
  const news = progress.acknowledge(message.index);
  progress.ackedSinceHeartbeat = true;
  if (progress.state === "replicate") progress.inflights.freeUpTo(message.index);
  else if (progress.state === "probe") {
    if (message.index === progress.match) progress.becomeReplicate();
  } else if (news && progress.match + 1 >= log.firstIndex) progress.becomeReplicate();
  if (news) {
    progress.snapshotFailures = 0;
    advanceCommit(raft);
  }
}

export function onHeartbeatResponse(raft: Raft, progress: Progress, message: HeartbeatResponse): void {
  progress.heardTick = raft.leaderTick;
  if (message.round > raft.round) throw new MalformedMessage(message.type, `round ${message.round} was never sent`);
  if (message.round > progress.ackedRound) {
    progress.ackedRound = message.round;
    if (message.round >= raft.confirmFromRound) {
      progress.confirmedTick = Math.max(progress.confirmedTick, raft.roundTick(message.round) ?? never);
    }
  }
  progress.probeSent = false;
  if (progress.state === "replicate") {
    // Something is on its way and nothing came back since the last heartbeat: ask (scenario J2).
    if (progress.match < progress.next - 1 && !progress.ackedSinceHeartbeat) progress.nudge = true;
    progress.ackedSinceHeartbeat = false;
  }
  confirmReads(raft);
}

export function isRecentlyActive(raft: Raft, progress: Progress): boolean {
  if (progress.id === raft.id) return true;
  return progress.heardTick !== never && raft.leaderTick - progress.heardTick < raft.config.electionTicks;
}

/**
 * Raft thesis §3.6.2: what a majority stores is committed if it is of the leader's own term, and all before it with it.
 * The leader counts itself as far as its own disk, and not at all once it is no voter.
 */
export function advanceCommit(raft: Raft): void {
  const index = raft.reached(matchOf);
  if (index <= raft.log.commit || !raft.log.matches(index, raft.term)) return;
  raft.log.commitTo(index);
  raft.commitTick = raft.leaderTick;
  raft.note("commit");
}

const matchOf = (progress: Progress): number => progress.match;

// ---- Follower

export function onAppend(raft: Raft, message: AppendRequest): void {
  const { log } = raft;
  const { prevIndex, prevTerm, entries } = message;
  // What is compacted is committed, and the same everywhere.
  const known = prevIndex < log.firstIndex - 1 || log.matches(prevIndex, prevTerm);
  if (!known) {
    raftInvariant(prevIndex > log.commit, "a leader's log holds all that is committed", { prevIndex, prevTerm });
    // The last entry that the two logs can share: of no later term than the leader's there (§5.3 of the paper).
    const hintIndex = log.lastIndexWithTermAtMost(prevIndex, prevTerm);
    respond(raft, message, { index: prevIndex, rejected: true, hintIndex, hintTerm: log.term(hintIndex) ?? 0 });
    return;
  }
  const cut = log.truncateAndAppend(entries);
  if (cut > 0) raft.note("truncate", { cut });
  const covered = prevIndex + entries.length;
  // Beyond this message the log may still differ from the leader's (scenario E10).
  if (log.commitTo(Math.min(message.commit, covered))) raft.note("commit");
  respond(raft, message, { index: covered, rejected: false, hintIndex: 0, hintTerm: 0 });
}

function respond(
  raft: Raft,
  to: { from: number },
  body: Pick<AppendResponse, "index" | "rejected" | "hintIndex" | "hintTerm">,
): void {
  raft.send({ type: "appendResponse", from: raft.id, to: to.from, term: raft.term, ...body });
}

/** @throws LogRegressed if this member lost what it acknowledged */
export function onHeartbeat(raft: Raft, message: Heartbeat): void {
  if (message.commit > raft.log.lastIndex) throw new LogRegressed(raft.log.lastIndex, message.commit);
  if (raft.log.commitTo(message.commit)) raft.note("commit");
  if (message.unanswered === true) return;
  raft.send({ type: "heartbeatResponse", from: raft.id, to: message.from, term: raft.term, round: message.round });
}

/**
 * A leader of an older term learns of the present one from any answer. The answer carries the present term, in which its
 * receiver may lead again by then: so it must confirm no round and refuse no append of that term.
 */
export function answerOlderLeader(raft: Raft, message: AppendRequest | Heartbeat | SnapshotRequest): void {
  if (message.type === "heartbeat") {
    raft.send({ type: "heartbeatResponse", from: raft.id, to: message.from, term: raft.term, round: 0 });
    return;
  }
  respond(raft, message, { index: 0, rejected: true, hintIndex: 0, hintTerm: 0 });
}

/** The bytes are here and verified. Decides whether they are wanted (scenarios G2, G3, F14). */
export function onSnapshot(raft: Raft, message: SnapshotRequest): void {
  const { log } = raft;
  const { index, term } = message.meta;
  if (index <= log.commit) {
    respond(raft, message, { index: log.commit, rejected: false, hintIndex: 0, hintTerm: 0 });
    return;
  }
  if (log.matches(index, term)) {
    // Also while an older snapshot is being installed: entries behind it may have been acknowledged already, and a reset
    // would take them back (simulator seed 3000138). They are applied when that one is in.
    log.commitTo(index);
    raft.note("commit");
  } else {
    log.reset(index, term);
    raft.installing = message.meta;
    // Exactly as of the index: whatever this log said of a later configuration is gone with it.
    raft.conf = message.meta.conf;
    raft.handedToApply = Math.max(raft.handedToApply, index);
    raft.note("restore", { snapshot: { index, term } });
  }
  respond(raft, message, { index, rejected: false, hintIndex: 0, hintTerm: 0 });
}
