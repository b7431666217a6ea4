/**
 * Appends as bytes, by hand: valid protobuf (Frame.append), but the entries, which are nearly all of it, are encoded once
 * and shared by the messages to all peers that are at the same place in the log. What was written like this is read by hand,
 * too: an entry becomes one object and not three.
 */
import type { AppendRequest, Entry, EntryKind, MemberId } from "../core/types.ts";

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

const kindNames: readonly EntryKind[] = ["normal", "confChange", "empty"];

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

/** Where reading by hand stands. */
interface Cursor {
  readonly bytes: Buffer;
  at: number;
  /** What is there is not what AppendEncoder writes. */
  isOther: boolean;
}

/**
 * An append as AppendEncoder writes it: each field, once, in its order. Entries' data are views of `bytes`.
 * @returns undefined for anything else, valid or not: protobufjs shall judge it
 */
export function decodeAppend(
  bytes: Buffer,
  { from, to, entriesMax }: { readonly from: MemberId; readonly to: MemberId; readonly entriesMax: number },
): AppendRequest | undefined {
  if (bytes[0] !== frameAppend) return undefined;
  const cursor: Cursor = { bytes, at: 1, isOther: false };
  if (readVarint(cursor) !== bytes.length - cursor.at) return undefined;
  const term = readField(cursor, appendTerm);
  const prevIndex = readField(cursor, appendPrevIndex);
  const prevTerm = readField(cursor, appendPrevTerm);
  const commit = readField(cursor, appendCommit);
  const entries: Entry[] = [];
  while (cursor.at < bytes.length && !cursor.isOther) {
    if (entries.length === entriesMax) return undefined;
    const end = readField(cursor, appendEntries) + cursor.at;
    const entry = readEntry(cursor);
    if (entry === undefined || cursor.at !== end) return undefined;
    entries.push(entry);
  }
  if (cursor.isOther) return undefined;
  return { type: "append", from, to, term, prevIndex, prevTerm, commit, entries };
}

function readEntry(cursor: Cursor): Entry | undefined {
  const term = readField(cursor, entryTerm);
  const index = readField(cursor, entryIndex);
  const kind = kindNames[readField(cursor, entryKind)];
  const length = readField(cursor, entryData);
  const start = cursor.at;
  if (cursor.isOther || kind === undefined || length > cursor.bytes.length - start) return undefined;
  cursor.at += length;
  return { term, index, kind, data: cursor.bytes.subarray(start, cursor.at) };
}

function readField(cursor: Cursor, tag: number): number {
  if (cursor.bytes[cursor.at++] !== tag) cursor.isOther = true;
  return readVarint(cursor);
}

/** Up to 2^49, which is more than anything counts to here. */
function readVarint(cursor: Cursor): number {
  const { bytes } = cursor;
  let value = 0;
  let scale = 1;
  for (let count = 0; count < 7; count++) {
    const byte = bytes[cursor.at++];
    if (byte === undefined) break;
    if (byte < 128) return value + byte * scale;
    value += (byte - 128) * scale;
    scale *= 128;
  }
  cursor.isOther = true;
  return 0;
}
