/** Messages of the core as frames of proto/raft.proto, and back. What comes in is bounded and checked for its shape. */
import { InvariantViolation } from "../../../lib/pure/errors.ts";
import { decodeStrictly, skep } from "../../../proto/index.ts";
import type { ConfState, Entry, EntryKind, MemberId, Message, SnapshotMeta } from "../core/types.ts";
import { decodeAppend, type AppendEncoder } from "./append-codec.ts";

const { Frame } = skep.raft;

/** Entries of one append; a message of 512 KiB has room for half of that (an empty entry counts 16 bytes). */
const entriesMax = 65_536;
/** Five fields an entry, and the rest of the frame. */
const frameLimits = { fieldsMax: 5 * entriesMax + 64, bytesMax: 4 * 1024 * 1024 };
const membersMax = 1000;

export type Decoded =
  | { readonly kind: "message"; readonly message: Message }
  | { readonly kind: "hello"; readonly hello: skep.raft.IHello }
  | { readonly kind: "command"; readonly command: Uint8Array }
  /** Of a newer release. */
  | { readonly kind: "unknown" };

/** Every message but the offer of a snapshot, which has a stream of its own. */
export function encodeMessage(message: Message, appends: AppendEncoder): Uint8Array {
  switch (message.type) {
    case "append":
      return appends.encode(message);
    case "appendResponse":
      return Frame.encode({ appendResponse: message }).finish();
    case "heartbeat":
      return Frame.encode({ heartbeat: message }).finish();
    case "heartbeatResponse":
      return Frame.encode({ heartbeatResponse: message }).finish();
    case "preVote":
      return Frame.encode({ preVote: message }).finish();
    case "vote":
      return Frame.encode({ vote: message }).finish();
    case "preVoteResponse":
      return Frame.encode({ preVoteResponse: message }).finish();
    case "voteResponse":
      return Frame.encode({ voteResponse: message }).finish();
    case "timeoutNow":
      return Frame.encode({ timeoutNow: message }).finish();
    case "readIndex":
      return Frame.encode({ readIndex: message }).finish();
    case "readIndexResponse":
      return Frame.encode({ readIndexResponse: message }).finish();
    case "snapshot":
      throw new InvariantViolation("a snapshot leaves by sendSnapshot", { to: message.to });
  }
}

export function encodeHello(hello: skep.raft.IHello): Uint8Array {
  return Frame.encode({ hello }).finish();
}

export function encodeCommand(command: Uint8Array): Uint8Array {
  return Frame.encode({ command }).finish();
}

/**
 * @param from  proved by the certificate
 * @throws      MessageUnreadable. Whether the numbers make sense is for the core to judge
 */
export function decodeFrame(bytes: Uint8Array, from: MemberId, to: MemberId): Decoded {
  const append = Buffer.isBuffer(bytes) ? decodeAppend(bytes, { from, to, entriesMax }) : undefined;
  if (append !== undefined) return { kind: "message", message: append };
  const frame = decodeStrictly(Frame, bytes, frameLimits);
  const message = messageOf(frame, from, to);
  if (message !== undefined) return { kind: "message", message };
  if (frame.hello) return { kind: "hello", hello: frame.hello };
  if (frame.command && frame.command.length > 0) return { kind: "command", command: frame.command };
  return { kind: "unknown" };
}

function messageOf(frame: skep.raft.Frame, from: MemberId, to: MemberId): Message | undefined {
  if (frame.append) {
    const { term, prevIndex, prevTerm, commit, entries } = frame.append as skep.raft.Append;
    return { type: "append", from, to, term, prevIndex, prevTerm, commit, entries: entries.map(readEntry) };
  }
  if (frame.appendResponse) {
    const { term, index, rejected, hintIndex, hintTerm } = frame.appendResponse as skep.raft.AppendResponse;
    return { type: "appendResponse", from, to, term, index, rejected, hintIndex, hintTerm };
  }
  if (frame.heartbeat) {
    const { term, commit, round, unanswered } = frame.heartbeat as skep.raft.Heartbeat;
    if (unanswered) return { type: "heartbeat", from, to, term, commit, round, unanswered };
    return { type: "heartbeat", from, to, term, commit, round };
  }
  if (frame.heartbeatResponse) {
    const { term, round } = frame.heartbeatResponse as skep.raft.HeartbeatResponse;
    return { type: "heartbeatResponse", from, to, term, round };
  }
  if (frame.preVote) return { type: "preVote", from, to, ...readVote(frame.preVote) };
  if (frame.vote) return { type: "vote", from, to, ...readVote(frame.vote) };
  if (frame.preVoteResponse) return { type: "preVoteResponse", from, to, ...readGrant(frame.preVoteResponse) };
  if (frame.voteResponse) return { type: "voteResponse", from, to, ...readGrant(frame.voteResponse) };
  if (frame.timeoutNow) return { type: "timeoutNow", from, to, term: (frame.timeoutNow as skep.raft.TimeoutNow).term };
  if (frame.readIndex) {
    const { term, requestId } = frame.readIndex as skep.raft.ReadIndex;
    return { type: "readIndex", from, to, term, requestId };
  }
  if (frame.readIndexResponse) {
    const { term, requestId, index, refused } = frame.readIndexResponse as skep.raft.ReadIndexResponse;
    return { type: "readIndexResponse", from, to, term, requestId, index, refused };
  }
  return undefined;
}

/** Kinds of newer releases keep their number: the core refuses what it does not know, and never skips it. */
const kinds: readonly EntryKind[] = ["normal", "confChange", "empty"];

function readEntry(entry: skep.raft.IEntry): Entry {
  const { term, index, kind, data } = entry as skep.raft.Entry;
  return { term, index, kind: kinds[kind] ?? (`kind ${kind}` as EntryKind), data };
}

function readVote(vote: skep.raft.IVoteRequest): {
  term: number;
  lastIndex: number;
  lastTerm: number;
  transfer: boolean;
  commit: number;
  commitTerm: number;
} {
  const { term, lastIndex, lastTerm, transfer, commit, commitTerm } = vote as skep.raft.VoteRequest;
  return { term, lastIndex, lastTerm, transfer, commit, commitTerm };
}

function readGrant(grant: skep.raft.IVoteResponse): {
  term: number;
  granted: boolean;
  commit: number;
  commitTerm: number;
} {
  const { term, granted, commit, commitTerm } = grant as skep.raft.VoteResponse;
  return { term, granted, commit, commitTerm };
}

export function metaToWire(meta: SnapshotMeta): skep.raft.ISnapshotMeta {
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = meta.conf;
  return {
    index: meta.index,
    term: meta.term,
    conf: {
      voters: [...voters],
      votersOutgoing: [...votersOutgoing],
      learners: [...learners],
      learnersNext: [...learnersNext],
      autoLeave,
    },
  };
}

/** @returns undefined if it cannot be a snapshot of ours */
export function metaFromWire(wire: skep.raft.ISnapshotMeta | null | undefined): SnapshotMeta | undefined {
  const conf = wire?.conf as skep.raft.ConfState | null | undefined;
  if (!wire || !conf) return undefined;
  const read: ConfState = {
    voters: conf.voters,
    votersOutgoing: conf.votersOutgoing,
    learners: conf.learners,
    learnersNext: conf.learnersNext,
    autoLeave: conf.autoLeave,
  };
  const lists = [read.voters, read.votersOutgoing, read.learners, read.learnersNext];
  if (lists.some((list) => list.length > membersMax)) return undefined;
  const { index, term } = wire as skep.raft.SnapshotMeta;
  return { index, term, conf: read };
}
