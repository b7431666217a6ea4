/**
 * The log on disk, format 1: a pure codec. docs/design/raft-storage.md has the tables.
 *
 * A segment is a 512-byte header and then records back to back; what follows the last record is zeros. A record is one
 * batch: header (116 bytes), sealed payload, tag (16). Each record carries the CRC of the one before it, across segments,
 * and the whole hard state; a segment's header carries both as of its start. CRC-32 is zlib's (ADR 0010). All integers are
 * little-endian. Lengths are compared with what is there before anything is allocated.
 */
import { crc32 } from "node:zlib";
import { invariant } from "../../../lib/pure/errors.ts";
import type { Entry, EntryKind, HardState } from "../core/types.ts";
import { getUint64, ownerBytes, putUint64, tagBytes, viewOf } from "../keys/index.ts";

export const formatVersion = 1;
export const segmentHeaderBytes = 512;
export const recordHeaderBytes = 116;
export const entryHeaderBytes = 16;
export const slotBytes = 4096;

const segmentMagic = 0x534c4b53; // "SKLS"
const recordMagic = 0x524c4b53; // "SKLR"
const slotMagic = 0x484c4b53; // "SKLH"
const sealedHeaderBytes = 108; // all but body and header CRC
const segmentFlagReset = 1;
export const sectorBytes = 512;

/** The bytes that open a record, to look for one in the middle of a segment. */
export const recordMagicBytes = new Uint8Array([0x53, 0x4b, 0x4c, 0x52]);

export interface SegmentHeader {
  /** 1, 2, 3 ...; also in the file's name. */
  readonly number: number;
  /** An installed snapshot replaced everything before this segment. */
  readonly reset: boolean;
  /** Sequence number of the first record that may stand here. */
  readonly firstSequence: number;
  /** CRC of the record before that; 0 before the first one ever. */
  readonly previousCrc: number;
  /** Last entry of the log when the segment was begun; 0, 0 for none. */
  readonly baseIndex: number;
  readonly baseTerm: number;
  readonly hardState: HardState;
  /** Sequence number of the newest durable slot by then. */
  readonly slotSequence: number;
  readonly owner: Uint8Array;
}

export interface RecordHeader {
  readonly keyId: number;
  /** Of the sealed entries, without the tag. */
  readonly payloadBytes: number;
  readonly sequence: number;
  /** The newest durable slot when this was written. */
  readonly slotSequence: number;
  /** First entry, or `lastIndex + 1` without entries. Entries from here on that were in the log before are replaced. */
  readonly firstIndex: number;
  /** Last entry of the log after this record, and its term. */
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly hardState: HardState;
  readonly nonce: number;
  readonly session: Uint8Array;
  readonly previousCrc: number;
  readonly bodyCrc: number;
  /** CRC of the header up to here; the next record's `previousCrc`. */
  readonly crc: number;
}

/** One of two alternating places that say, after the fact, up to where the log is durable. */
export interface Slot {
  /** Slot n is kept at place n % 2. */
  readonly sequence: number;
  readonly hardState: HardState;
  /** The last record known to be durable, and its CRC. */
  readonly recordSequence: number;
  readonly recordCrc: number;
  /** The newest segment that exists. */
  readonly segment: number;
  readonly owner: Uint8Array;
}

/** What a header-like block turned out to be. "newer": intact, but of a later format. */
export type Decoded<T> =
  | { readonly kind: "ok"; readonly value: T }
  | { readonly kind: "newer"; readonly version: number }
  | { readonly kind: "damaged" };

export function segmentName(number: number): string {
  return `segment-${String(number).padStart(16, "0")}.log`;
}

/** @returns the number in a segment's file name, or undefined for any other name */
export function segmentNumber(name: string): number | undefined {
  const match = /^segment-([0-9]{16})\.log$/u.exec(name);
  return match === null ? undefined : Number(match[1]);
}

// ---- segment header ----

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const out = new Uint8Array(segmentHeaderBytes);
  const view = viewOf(out);
  view.setUint32(0, segmentMagic, true);
  view.setUint16(4, formatVersion, true);
  view.setUint16(6, header.reset ? segmentFlagReset : 0, true);
  putUint64(view, 8, header.number);
  putUint64(view, 16, header.firstSequence);
  view.setUint32(24, header.previousCrc, true);
  putUint64(view, 32, header.baseIndex);
  putUint64(view, 40, header.baseTerm);
  putHardState(view, 48, header.hardState);
  putUint64(view, 72, header.slotSequence);
  out.set(header.owner, 80);
  putSectorCrc(out);
  return out;
}

export function decodeSegmentHeader(block: Uint8Array): Decoded<SegmentHeader> {
  const version = sectorVersion(block, segmentMagic);
  if (version === undefined) return { kind: "damaged" };
  if (version > formatVersion) return { kind: "newer", version };
  const view = viewOf(block);
  const header: SegmentHeader = {
    number: getUint64(view, 8),
    reset: (view.getUint16(6, true) & segmentFlagReset) !== 0,
    firstSequence: getUint64(view, 16),
    previousCrc: view.getUint32(24, true),
    baseIndex: getUint64(view, 32),
    baseTerm: getUint64(view, 40),
    hardState: getHardState(view, 48),
    slotSequence: getUint64(view, 72),
    owner: block.slice(80, 80 + ownerBytes),
  };
  return { kind: "ok", value: header };
}

// ---- slots ----

/**
 * One slot's first sector; the rest of its place stays zero.
 * @param out  a sector that has held slots only, or zeros
 */
export function encodeSlot(slot: Slot, out: Uint8Array): Uint8Array {
  const view = viewOf(out);
  view.setUint32(0, slotMagic, true);
  view.setUint16(4, formatVersion, true);
  putUint64(view, 8, slot.sequence);
  putHardState(view, 16, slot.hardState);
  putUint64(view, 40, slot.recordSequence);
  view.setUint32(48, slot.recordCrc, true);
  putUint64(view, 56, slot.segment);
  out.set(slot.owner, 64);
  putSectorCrc(out);
  return out;
}

export function decodeSlot(block: Uint8Array): Decoded<Slot> {
  const version = sectorVersion(block, slotMagic);
  if (version === undefined) return { kind: "damaged" };
  if (version > formatVersion) return { kind: "newer", version };
  const view = viewOf(block);
  const slot: Slot = {
    sequence: getUint64(view, 8),
    hardState: getHardState(view, 16),
    recordSequence: getUint64(view, 40),
    recordCrc: view.getUint32(48, true),
    segment: getUint64(view, 56),
    owner: block.slice(64, 64 + ownerBytes),
  };
  return { kind: "ok", value: slot };
}

// ---- records ----

/** Writes a record's header into `out`, whose sealed payload and tag are there already. @returns its CRC */
export function finishRecord(out: Uint8Array, bodyEnd: number): number {
  const view = viewOf(out);
  view.setUint32(108, crc32(out.subarray(recordHeaderBytes, bodyEnd)), true);
  const crc = crc32(out.subarray(0, 112));
  view.setUint32(112, crc, true);
  return crc;
}

/** Everything of the header that the seal covers; call before sealing. */
export function putRecordHeader(out: Uint8Array, header: Omit<RecordHeader, "bodyCrc" | "crc">): void {
  const view = viewOf(out);
  view.setUint32(0, recordMagic, true);
  view.setUint32(4, formatVersion, true);
  view.setUint32(8, header.keyId, true);
  view.setUint32(12, header.payloadBytes, true);
  putUint64(view, 16, header.sequence);
  putUint64(view, 24, header.slotSequence);
  putUint64(view, 32, header.firstIndex);
  putUint64(view, 40, header.lastIndex);
  putUint64(view, 48, header.lastTerm);
  putHardState(view, 56, header.hardState);
  putUint64(view, 80, header.nonce);
  out.set(header.session, 88);
  view.setUint32(104, header.previousCrc, true);
}

/** @returns the record header at `at`, or undefined if there is no intact one (whatever follows it) */
export function decodeRecordHeader(bytes: Uint8Array, at: number): RecordHeader | undefined {
  if (at + recordHeaderBytes > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, recordHeaderBytes);
  if (view.getUint32(0, true) !== recordMagic || view.getUint32(4, true) !== formatVersion) return undefined;
  const crc = view.getUint32(112, true);
  if (crc32(bytes.subarray(at, at + 112)) !== crc) return undefined;
  return {
    keyId: view.getUint32(8, true),
    payloadBytes: view.getUint32(12, true),
    sequence: getUint64(view, 16),
    slotSequence: getUint64(view, 24),
    firstIndex: getUint64(view, 32),
    lastIndex: getUint64(view, 40),
    lastTerm: getUint64(view, 48),
    hardState: getHardState(view, 56),
    nonce: getUint64(view, 80),
    session: bytes.slice(at + 88, at + 104),
    previousCrc: view.getUint32(104, true),
    bodyCrc: view.getUint32(108, true),
    crc,
  };
}

/** Length of the whole record. */
export function recordBytes(payloadBytes: number): number {
  return recordHeaderBytes + payloadBytes + tagBytes;
}

/**
 * What the seal covers beside the payload: owner, segment, and the record's header without its CRCs.
 * @param into  scratch of `associatedBytes`, its owner filled in by the caller
 */
export const associatedBytes = ownerBytes + 8 + sealedHeaderBytes;
export function associate(into: Uint8Array, segment: number, record: Uint8Array, at: number): Uint8Array {
  putUint64(viewOf(into), ownerBytes, segment);
  into.set(record.subarray(at, at + sealedHeaderBytes), ownerBytes + 8);
  return into;
}

// ---- entries ----

const kinds: readonly EntryKind[] = ["normal", "confChange", "empty"];

export function encodedEntriesBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entryHeaderBytes + entry.data.length;
  return bytes;
}

/** Writes the entries into `out` from `at`; indices are implied. @returns where they end */
export function encodeEntries(entries: readonly Entry[], out: Uint8Array, at: number): number {
  const view = viewOf(out);
  for (const { data, kind, term } of entries) {
    view.setUint32(at, data.length, true);
    view.setUint32(at + 4, kinds.indexOf(kind), true);
    putUint64(view, at + 8, term);
    out.set(data, at + entryHeaderBytes);
    at += entryHeaderBytes + data.length;
  }
  return at;
}

/**
 * The entries of a payload. Their data are views of it, not copies.
 * @param firstIndex  of the first entry in the payload
 * @param count       how many it must hold, exactly
 * @returns           undefined if it does not: bounds, kinds or falling terms
 */
export function decodeEntries(payload: Uint8Array, firstIndex: number, count: number): Entry[] | undefined {
  const view = viewOf(payload);
  const entries: Entry[] = [];
  let at = 0;
  let termBefore = 0;
  for (let place = 0; place < count; place++) {
    if (at + entryHeaderBytes > payload.length) return undefined;
    const dataBytes = view.getUint32(at, true);
    const kind = kinds[view.getUint32(at + 4, true)];
    const term = getUint64(view, at + 8);
    const end = at + entryHeaderBytes + dataBytes;
    if (kind === undefined || end > payload.length || !(term >= termBefore)) return undefined;
    entries.push({ term, index: firstIndex + place, kind, data: payload.subarray(at + entryHeaderBytes, end) });
    termBefore = term;
    at = end;
  }
  return at === payload.length ? entries : undefined;
}

/** Where the entry after `at` begins, in a payload of our own making. */
export function nextEntry(payload: Uint8Array, at: number): { end: number; term: number } {
  const view = viewOf(payload);
  const end = at + entryHeaderBytes + view.getUint32(at, true);
  invariant(end <= payload.length, "an encoded batch holds whole entries", { at, end, bytes: payload.length });
  return { end, term: getUint64(view, at + 8) };
}

// ---- parts ----

function putHardState(view: DataView, at: number, { term, vote, commit }: HardState): void {
  putUint64(view, at, term);
  putUint64(view, at + 8, vote);
  putUint64(view, at + 16, commit);
}

function getHardState(view: DataView, at: number): HardState {
  return { term: getUint64(view, at), vote: getUint64(view, at + 8), commit: getUint64(view, at + 16) };
}

/** The last 4 bytes of a sector guard the rest, in every format to come: so a newer one is told from a damaged one. */
function putSectorCrc(sector: Uint8Array): void {
  viewOf(sector).setUint32(sectorBytes - 4, crc32(sector.subarray(0, sectorBytes - 4)), true);
}

function sectorVersion(block: Uint8Array, magic: number): number | undefined {
  if (block.length < sectorBytes) return undefined;
  const view = viewOf(block);
  if (view.getUint32(0, true) !== magic) return undefined;
  if (view.getUint32(sectorBytes - 4, true) !== crc32(block.subarray(0, sectorBytes - 4))) return undefined;
  return view.getUint16(4, true);
}
