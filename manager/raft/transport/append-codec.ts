/**
 * Appends as bytes, by hand: valid protobuf (Frame.append), but the entries, which are nearly all of it, are encoded once
 * and shared by the messages to all peers that are at the same place in the log.
 */
import type { AppendRequest, Entry, EntryKind } from "../core/types.ts";

const kinds: Readonly<Record<EntryKind, number>> = { normal: 0, confChange: 1, empty: 2 };

// Field numbers of proto/raft.proto with their wire types.
const frameAppend = (2 << 3) | 2;
const appendTerm = 1 << 3;
const appendPrevIndex = 2 << 3;
const appendPrevTerm = 3 << 3;
const appendCommit = 4 << 3;
const appendEntries = (5 << 3) | 2;
const entryTerm = 1 << 3;
const entryIndex = 2 << 3;
const entryKind = 3 << 3;
const entryData = (4 << 3) | 2;

interface Shared {
  readonly first: Entry;
  readonly last: Entry;
  readonly count: number;
  readonly body: Buffer;
}

/** Followers are rarely at more than a few different places at once. */
const sharedMax = 4;

export class AppendEncoder {
  readonly #shared: Shared[] = [];

  encode(message: AppendRequest): Buffer {
    const body = this.#entries(message.entries);
    const { term, prevIndex, prevTerm, commit } = message;
    const headBytes =
      4 + varintBytes(term) + varintBytes(prevIndex) + varintBytes(prevTerm) + varintBytes(commit) + body.length;
    const frame = Buffer.allocUnsafe(1 + varintBytes(headBytes) + headBytes);
    frame[0] = frameAppend;
    let at = writeVarint(frame, 1, headBytes);
    at = writeField(frame, at, appendTerm, term);
    at = writeField(frame, at, appendPrevIndex, prevIndex);
    at = writeField(frame, at, appendPrevTerm, prevTerm);
    at = writeField(frame, at, appendCommit, commit);
    body.copy(frame, at);
    return frame;
  }

  /** Entries are never changed once they are in a log, so the same ones at both ends mean the same bytes. */
  #entries(entries: readonly Entry[]): Buffer {
    const first = entries[0];
    const last = entries.at(-1);
    if (first === undefined || last === undefined) return Buffer.alloc(0);
    const known = this.#shared.find((it) => it.first === first && it.last === last && it.count === entries.length);
    if (known !== undefined) return known.body;
    const body = encodeEntries(entries);
    if (this.#shared.length === sharedMax) this.#shared.shift();
    this.#shared.push({ first, last, count: entries.length, body });
    return body;
  }
}

function encodeEntries(entries: readonly Entry[]): Buffer {
  let total = 0;
  for (const entry of entries) {
    const bytes = entryBytes(entry);
    total += 1 + varintBytes(bytes) + bytes;
  }
  const body = Buffer.allocUnsafe(total);
  let at = 0;
  for (const entry of entries) {
    body[at++] = appendEntries;
    at = writeVarint(body, at, entryBytes(entry));
    at = writeField(body, at, entryTerm, entry.term);
    at = writeField(body, at, entryIndex, entry.index);
    at = writeField(body, at, entryKind, kinds[entry.kind]);
    body[at++] = entryData;
    at = writeVarint(body, at, entry.data.length);
    body.set(entry.data, at);
    at += entry.data.length;
  }
  return body;
}

function entryBytes({ term, index, data }: Entry): number {
  return 4 + varintBytes(term) + varintBytes(index) + 1 + varintBytes(data.length) + data.length;
}

function writeField(into: Buffer, at: number, tag: number, value: number): number {
  into[at] = tag;
  return writeVarint(into, at + 1, value);
}

/** Numbers up to 2^53-1: above 31 bits division has to take the place of shifts. */
function writeVarint(into: Buffer, at: number, value: number): number {
  let left = value;
  while (left > 0x7fffffff) {
    into[at++] = (left % 128) | 128;
    left = Math.floor(left / 128);
  }
  while (left > 127) {
    into[at++] = (left & 127) | 128;
    left >>>= 7;
  }
  into[at++] = left;
  return at;
}

function varintBytes(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x200000) return 3;
  if (value < 0x10000000) return 4;
  if (value < 2 ** 35) return 5;
  if (value < 2 ** 42) return 6;
  return value < 2 ** 49 ? 7 : 8;
}
