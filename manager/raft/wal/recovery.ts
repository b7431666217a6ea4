/**
 * Reading the log at start: decides, and changes nothing. Either it finds exactly what was durable (and perhaps a torn
 * tail, which was not), or it throws: quarantine, foreign, newer, key missing, unreadable. The outcomes are tabled in
 * docs/design/raft-storage.md.
 *
 * Why a torn tail can be told from damage: at most one record is on its way to the disk at a time. So whatever lies before
 * the last record was durable, because the next one was begun after it; the slots say so of the last one, a moment later.
 * A record that does not check is a torn tail only if no slot calls it durable and nothing newer exists behind it.
 */
import { crc32 } from "node:zlib";
import { invariant } from "../../../lib/pure/errors.ts";
import { errnoOf, readWhole, type FileSystem } from "../../../lib/runtime/file-system.ts";
import type { Entry, HardState, SnapshotMeta } from "../core/types.ts";
import {
  KeyMissing,
  StorageForeign,
  StorageNewer,
  checkOwner,
  nonceOf,
  tagBytes,
  type Cipher,
  type DataKeys,
} from "../keys/index.ts";
import { LogQuarantined, LogReadFailed } from "./errors.ts";
import {
  associate,
  associatedBytes,
  decodeEntries,
  decodeRecordHeader,
  decodeSegmentHeader,
  decodeSlot,
  formatVersion,
  recordBytes,
  recordHeaderBytes,
  recordMagicBytes,
  segmentHeaderBytes,
  segmentNumber,
  slotBytes,
  type Decoded,
  type RecordHeader,
  type SegmentHeader,
  type Slot,
} from "./format.ts";

/** No segment of ours is larger; a larger file is not read. */
export const segmentBytesMax = 256 * 1024 * 1024;

export interface RecoveryOptions {
  readonly files: FileSystem;
  /** The folder of the log. */
  readonly folder: string;
  readonly owner: Uint8Array;
  readonly keys: DataKeys;
  readonly cipher: Cipher;
  /** Of the whole snapshots at hand, newest first. */
  readonly snapshots: readonly SnapshotMeta[];
}

/** One segment in use. */
export interface SegmentFacts {
  readonly number: number;
  readonly path: string;
  /** Highest index of any entry written in it, replaced ones included; 0 without entries. */
  lastIndexMax: number;
  sizeBytes: number;
  /** Log index before its first record. */
  readonly baseIndex: number;
  /** Data keys that opened or sealed a record of it. */
  readonly keyIds: Set<number>;
}

/** Part of the recovered log: the entries up to `lastIndex` of one record; what followed was replaced later. */
export interface RecoveredBatch {
  readonly firstIndex: number;
  lastIndex: number;
  /** How many entries the payload holds, replaced ones included. */
  readonly count: number;
  readonly payload: Uint8Array;
  readonly entries: readonly Entry[];
}

export interface Recovery {
  /** Nothing has ever been written here. */
  readonly fresh: boolean;
  readonly segments: SegmentFacts[];
  /** Files that a crash left behind and that nothing needs. */
  readonly obsolete: readonly string[];
  /** End of the last record, in the newest segment. */
  readonly end: number;
  /** Whether bytes of a record that never became durable lie behind `end`. */
  readonly torn: boolean;
  /** The last record of the newest segment, to be written again (a failed fdatasync may have left it in the cache only). */
  readonly lastRecord: { readonly at: number; readonly bytes: Uint8Array } | undefined;
  readonly nextSequence: number;
  readonly previousCrc: number;
  readonly slotSequence: number;
  readonly hardState: HardState;
  /** The same without what the snapshot implies: as the last record has it. */
  readonly loggedHardState: HardState;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly batches: readonly RecoveredBatch[];
  readonly snapshot: SnapshotMeta;
  /** The snapshot is not part of this log and replaces it: its installation was interrupted. */
  readonly superseded: boolean;
}

export const emptySnapshot: SnapshotMeta = {
  index: 0,
  term: 0,
  conf: { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};

export const slotsName = "slots";
export const ballastName = "ballast";
const noHardState: HardState = { term: 0, vote: 0, commit: 0 };

/**
 * @throws LogQuarantined, LogReadFailed, StorageForeign, StorageNewer, KeyMissing
 */
export function recoverLog(options: RecoveryOptions): Recovery {
  const names = read(options.folder, () => options.files.readdir(options.folder));
  const slots = readSlots(options, names.includes(slotsName));
  const found = readSegmentHeaders(options, names);
  if (slots === undefined) {
    // The slots come second when a log is created: without them nothing can have been saved, so there may be one empty
    // segment at most.
    const only = found.length === 1 ? found[0] : undefined;
    if (found.length === 0 || (only?.header.number === 1 && isEmpty(options, only))) return freshLog(options, names);
    throw quarantine("slots", `${options.folder}/${slotsName}`, 0, "the file of the slots is missing");
  }
  const scan = new Scan(options, slots, chain(options, found, slots));
  return scan.run(names);
}

interface FoundSegment {
  readonly header: SegmentHeader;
  readonly path: string;
}

interface Slots {
  readonly best: Slot;
  /** The other place does not check: what it said is unknown. */
  readonly otherDamaged: boolean;
}

function readSlots({ files, folder, owner }: RecoveryOptions, exists: boolean): Slots | undefined {
  if (!exists) return undefined;
  const path = `${folder}/${slotsName}`;
  const content = read(path, () => readWhole(files, path, 1024 * 1024)) ?? new Uint8Array(0);
  const slots = [0, 1].map((place) => decodeSlot(content.subarray(place * slotBytes, (place + 1) * slotBytes)));
  const good = slots
    .map((slot, place) => ({ slot: checked(path, slot), place }))
    .filter(({ slot, place }) => slot !== undefined && slot.sequence % 2 === place)
    .map(({ slot }) => slot as Slot)
    .sort((a, b) => b.sequence - a.sequence);
  const best = good[0];
  if (best === undefined) throw quarantine("slots", path, 0, "both slots are damaged");
  for (const slot of good) checkOwner(path, slot.owner, owner);
  if (good.length === 2 && (good[1] as Slot).sequence !== best.sequence - 1) {
    throw quarantine("slotsStale", path, 0, "the slots do not follow one another");
  }
  return { best, otherDamaged: good.length === 1 };
}

/** The value, nothing if it is damaged, or an error if a later release wrote it. */
function checked<T>(path: string, decoded: Decoded<T>): T | undefined {
  if (decoded.kind === "newer") throw new StorageNewer(path, decoded.version, formatVersion);
  return decoded.kind === "ok" ? decoded.value : undefined;
}

/** All segments in order, each with an intact header of ours. */
function readSegmentHeaders({ files, folder, owner }: RecoveryOptions, names: readonly string[]): FoundSegment[] {
  const segments: FoundSegment[] = [];
  for (const name of names) {
    const number = segmentNumber(name);
    if (number === undefined) continue;
    const path = `${folder}/${name}`;
    const block = new Uint8Array(segmentHeaderBytes);
    const length = read(path, () => {
      const file = files.open(path, "read");
      try {
        return file.pread(block, 0);
      } finally {
        file.close();
      }
    });
    const header = checked(path, decodeSegmentHeader(block.subarray(0, length)));
    if (header === undefined) throw quarantine("segmentHeader", path, 0, "the header of a segment is damaged");
    checkOwner(path, header.owner, owner);
    if (header.number !== number) {
      throw quarantine("segmentHeader", path, 0, `segment ${header.number} lies under another name`);
    }
    segments.push({ header, path });
  }
  return segments.sort((a, b) => a.header.number - b.header.number);
}

/** The newest run of segments without a gap, from the last reset on. Older ones may have come back after a crash. */
function chain({ folder }: RecoveryOptions, found: readonly FoundSegment[], { best }: Slots): readonly FoundSegment[] {
  const newest = found.at(-1)?.header.number ?? 0;
  if (newest < best.segment) {
    throw quarantine("segmentMissing", folder, 0, `segment ${best.segment} is missing, the newest is ${newest}`);
  }
  let from = found.length - 1;
  while (
    from > 0 &&
    !found[from]?.header.reset &&
    found[from - 1]?.header.number === (found[from]?.header.number ?? 0) - 1
  ) {
    from--;
  }
  return found.slice(from);
}

function isEmpty({ files }: RecoveryOptions, { path }: FoundSegment): boolean {
  const content = read(path, () => readWhole(files, path, segmentBytesMax));
  return content === undefined || isZero(content.subarray(segmentHeaderBytes));
}

function freshLog({ folder, snapshots }: RecoveryOptions, names: readonly string[]): Recovery {
  const snapshot = snapshots[0] ?? emptySnapshot;
  return {
    fresh: true,
    segments: [],
    obsolete: leftovers(folder, names),
    end: 0,
    torn: false,
    lastRecord: undefined,
    nextSequence: 1,
    previousCrc: 0,
    slotSequence: 0,
    hardState: raised(noHardState, snapshot),
    loggedHardState: noHardState,
    lastIndex: 0,
    lastTerm: 0,
    batches: [],
    snapshot,
    superseded: snapshot.index > 0 || snapshot.term > 0,
  };
}

/** Files that were being made when the process ended. */
function leftovers(folder: string, names: readonly string[]): string[] {
  return names.filter((name) => name.endsWith(".tmp")).map((name) => `${folder}/${name}`);
}

/** Walks the records of a run of segments. */
class Scan {
  readonly #options: RecoveryOptions;
  readonly #slots: Slots;
  readonly #segments: readonly FoundSegment[];
  readonly #associated = new Uint8Array(associatedBytes);
  readonly #sessions = new Map<string, Uint8Array>();
  #sequence: number;
  #crc: number;
  #hardState: HardState;
  #lastIndex: number;
  #lastTerm: number;
  #slotSequence: number;
  /** The entry before the first one here; its term is unknown once it has been replaced by one that was compacted away. */
  #base: { readonly index: number; readonly term: number | undefined };
  readonly #batches: RecoveredBatch[] = [];

  constructor(options: RecoveryOptions, slots: Slots, segments: readonly FoundSegment[]) {
    this.#options = options;
    this.#slots = slots;
    this.#segments = segments;
    this.#associated.set(options.owner);
    const first = segments[0]?.header;
    invariant(first !== undefined, "slots name a segment that exists");
    this.#sequence = first.firstSequence - 1;
    this.#crc = first.previousCrc;
    this.#hardState = first.hardState;
    this.#lastIndex = first.baseIndex;
    this.#lastTerm = first.baseTerm;
    this.#slotSequence = first.slotSequence;
    this.#base = { index: first.baseIndex, term: first.baseTerm };
  }

  run(names: readonly string[]): Recovery {
    const first = this.#segments[0] as FoundSegment;
    const newest = this.#segments.at(-1) as FoundSegment;
    this.#checkMark(first.path, segmentHeaderBytes);
    const facts: SegmentFacts[] = [];
    let end = segmentHeaderBytes;
    let torn = false;
    let lastRecord: Recovery["lastRecord"];
    for (const segment of this.#segments) {
      const content = this.#content(segment.path);
      this.#enter(segment);
      const fact = factsOf(segment, content.length);
      facts.push(fact);
      end = segmentHeaderBytes;
      lastRecord = undefined;
      for (let header = this.#next(segment, content, end); header !== undefined;) {
        this.#accept(segment, content, end, header, fact);
        const after = end + recordBytes(header.payloadBytes);
        if (segment === newest) lastRecord = { at: end, bytes: content.slice(end, after) };
        end = after;
        header = this.#next(segment, content, end);
      }
      if (segment === newest) torn = this.#endsHere(segment, content, end);
    }
    this.#checkSlots();
    return { ...this.#result(first, facts, names), end, torn, lastRecord };
  }

  #content(path: string): Uint8Array {
    const content = read(path, () => readWhole(this.#options.files, path, segmentBytesMax));
    if (content === undefined) throw quarantine("segmentMissing", path, 0, "a segment vanished while it was read");
    return content;
  }

  /** A segment goes on where the one before ended. */
  #enter({ header, path }: FoundSegment): void {
    if (header.firstSequence !== this.#sequence + 1 || header.previousCrc !== this.#crc) {
      throw quarantine(
        "chain",
        path,
        0,
        `record ${this.#sequence + 1} and what follows in the segment before are lost`,
      );
    }
    if (header.baseIndex !== this.#lastIndex || header.baseTerm !== this.#lastTerm) {
      throw quarantine("chain", path, 0, "the segment begins at another entry than the one before ended");
    }
    if (header.hardState.term < this.#hardState.term) throw quarantine("entries", path, 0, "the term goes back");
    this.#hardState = header.hardState;
    this.#slotSequence = Math.max(this.#slotSequence, header.slotSequence);
  }

  /** The header of the record at `at` if it is whole and the next one; undefined if it is not whole. */
  #next({ path }: FoundSegment, content: Uint8Array, at: number): RecordHeader | undefined {
    const header = decodeRecordHeader(content, at);
    if (header === undefined) return undefined;
    if (header.sequence !== this.#sequence + 1 || header.previousCrc !== this.#crc) {
      throw quarantine("chain", path, at, `record ${header.sequence} stands where ${this.#sequence + 1} belongs`);
    }
    const bodyEnd = at + recordHeaderBytes + header.payloadBytes + tagBytes;
    if (bodyEnd > content.length) return undefined;
    return crc32(content.subarray(at + recordHeaderBytes, bodyEnd)) === header.bodyCrc ? header : undefined;
  }

  #accept(
    { path, header: { number } }: FoundSegment,
    content: Uint8Array,
    at: number,
    header: RecordHeader,
    fact: SegmentFacts,
  ): void {
    const { cipher } = this.#options;
    const bodyEnd = at + recordHeaderBytes + header.payloadBytes;
    const payload = content.slice(at + recordHeaderBytes, bodyEnd);
    const associated = associate(this.#associated, number, content, at);
    const key = this.#sessionKey(path, header);
    if (!cipher.open(key, nonceOf(header.nonce), associated, payload, content.subarray(bodyEnd, bodyEnd + tagBytes))) {
      throw quarantine("seal", path, at, `the seal of record ${header.sequence} is broken`);
    }
    this.#extend(path, at, header, payload);
    this.#sequence = header.sequence;
    this.#crc = header.crc;
    this.#hardState = header.hardState;
    this.#slotSequence = Math.max(this.#slotSequence, header.slotSequence);
    fact.keyIds.add(header.keyId);
    if (header.payloadBytes > 0) fact.lastIndexMax = Math.max(fact.lastIndexMax, header.lastIndex);
    this.#checkMark(path, at);
  }

  #sessionKey(path: string, { keyId, session }: RecordHeader): Uint8Array {
    const name = `${keyId}/${Buffer.from(session).toString("hex")}`;
    const known = this.#sessions.get(name);
    if (known !== undefined) return known;
    const data = this.#options.keys.get(keyId);
    if (data === undefined) throw new KeyMissing(`${path} needs data key ${keyId}, which the key file does not hold`);
    const key = this.#options.cipher.derive(data.key, session);
    this.#sessions.set(name, key);
    return key;
  }

  /** Brings a record's entries into the log. What is sealed was written by us, so a misfit is damage of a stranger kind. */
  #extend(path: string, at: number, header: RecordHeader, payload: Uint8Array): void {
    const { firstIndex, lastIndex, lastTerm } = header;
    const misfit = (found: string): LogQuarantined => quarantine("entries", path, at, found);
    const before = this.#hardState;
    if (header.hardState.term < before.term) throw misfit("the term goes back");
    if (payload.length === 0) {
      if (lastIndex !== this.#lastIndex || lastTerm !== this.#lastTerm)
        throw misfit("the last entry changed without entries");
      return;
    }
    if (!(firstIndex >= 1 && firstIndex <= this.#lastIndex + 1 && lastIndex >= firstIndex)) {
      throw misfit(`entries ${firstIndex} to ${lastIndex} do not continue a log that ends at ${this.#lastIndex}`);
    }
    if (firstIndex <= this.#base.index) this.#base = { index: firstIndex - 1, term: undefined };
    const count = lastIndex - firstIndex + 1;
    const entries = decodeEntries(payload, firstIndex, count);
    if (entries?.at(-1)?.term !== lastTerm) throw misfit("a batch does not hold the entries it names");
    for (
      let last = this.#batches.at(-1);
      last !== undefined && last.lastIndex >= firstIndex;
      last = this.#batches.at(-1)
    ) {
      if (last.firstIndex < firstIndex) last.lastIndex = firstIndex - 1;
      else this.#batches.pop();
    }
    this.#batches.push({ firstIndex, lastIndex, count, payload, entries });
    this.#lastIndex = lastIndex;
    this.#lastTerm = lastTerm;
  }

  /** The record that the best slot calls durable is the one it saw. */
  #checkMark(path: string, at: number): void {
    const { recordSequence, recordCrc } = this.#slots.best;
    if (this.#sequence === recordSequence && this.#crc !== recordCrc) {
      throw quarantine("slotsDisagree", path, at, `record ${recordSequence} is not the one that the slots name`);
    }
  }

  /** Whether the log may end at `at`; true if a torn record lies there. */
  #endsHere({ path }: FoundSegment, content: Uint8Array, at: number): boolean {
    if (this.#slots.best.recordSequence > this.#sequence) {
      throw quarantine(
        "lastRecordLost",
        path,
        at,
        `record ${this.#sequence + 1} was durable and does not check any more`,
      );
    }
    const rest = content.subarray(at);
    if (isZero(rest)) return false;
    const buffer = Buffer.from(rest.buffer, rest.byteOffset, rest.byteLength);
    for (
      let found = buffer.indexOf(recordMagicBytes, 1);
      found >= 0;
      found = buffer.indexOf(recordMagicBytes, found + 1)
    ) {
      const header = decodeRecordHeader(rest, found);
      if (header !== undefined && header.sequence > this.#sequence) {
        throw quarantine("record", path, at, `record ${this.#sequence + 1} is damaged, newer ones follow`);
      }
    }
    return true;
  }

  #checkSlots(): void {
    const { best, otherDamaged } = this.#slots;
    const path = `${this.#options.folder}/${slotsName}`;
    const known = best.sequence + (otherDamaged ? 1 : 0);
    if (known < this.#slotSequence) {
      throw quarantine(
        "slotsStale",
        path,
        0,
        `slot ${this.#slotSequence} was durable, slot ${best.sequence} is the newest`,
      );
    }
    const [slot, log] = [best.hardState, this.#hardState];
    const goesBack = log.term < slot.term || (log.term === slot.term && slot.vote !== 0 && log.vote !== slot.vote);
    if (goesBack || log.commit < slot.commit) {
      throw quarantine("slotsDisagree", path, 0, `the slots know term ${slot.term}, the log ends in term ${log.term}`);
    }
  }

  #result(
    first: FoundSegment,
    segments: SegmentFacts[],
    names: readonly string[],
  ): Omit<Recovery, "end" | "torn" | "lastRecord"> {
    const { folder } = this.#options;
    const kept = new Set(segments.map((segment) => segment.path));
    const older = names
      .filter((name) => segmentNumber(name) !== undefined)
      .map((name) => `${folder}/${name}`)
      .filter((path) => !kept.has(path));
    const { snapshot, superseded } = this.#snapshot(first, older.length > 0);
    return {
      fresh: false,
      segments,
      obsolete: [...leftovers(folder, names), ...older],
      nextSequence: this.#sequence + 1,
      previousCrc: this.#crc,
      // The next slot goes to the damaged place, if there is one: the good one is not touched before it is durable.
      slotSequence: this.#slots.best.sequence,
      hardState: raised(this.#hardState, snapshot),
      loggedHardState: this.#hardState,
      lastIndex: this.#lastIndex,
      lastTerm: this.#lastTerm,
      batches: superseded ? [] : this.#batches,
      snapshot,
      superseded,
    };
  }

  /** The newest whole snapshot, if the log goes on from it; it replaces the log if its installation was interrupted. */
  #snapshot({ header, path }: FoundSegment, gap: boolean): { snapshot: SnapshotMeta; superseded: boolean } {
    const snapshot = this.#options.snapshots[0] ?? emptySnapshot;
    const base = this.#base;
    const { commit } = this.#hardState;
    if (snapshot.index < base.index) {
      const found = `the log begins after entry ${base.index}, the newest whole snapshot ends at ${snapshot.index}`;
      throw quarantine(gap && !header.reset ? "segmentMissing" : "snapshotMissing", path, 0, found);
    }
    if (snapshot.index > this.#lastIndex) return { snapshot, superseded: true };
    const atBase = snapshot.index === base.index;
    const term = atBase ? (base.term ?? snapshot.term) : this.#termAt(snapshot.index);
    if (term !== snapshot.term) {
      if (snapshot.index > commit) return { snapshot, superseded: true };
      throw quarantine("entries", path, 0, `committed entry ${snapshot.index} has another term than the snapshot`);
    }
    if (commit > this.#lastIndex) {
      throw quarantine("entries", path, 0, `entry ${commit} was committed, the log ends at ${this.#lastIndex}`);
    }
    return { snapshot, superseded: false };
  }

  #termAt(index: number): number | undefined {
    const batch = this.#batches.find(({ firstIndex, lastIndex }) => firstIndex <= index && index <= lastIndex);
    return batch?.entries[index - batch.firstIndex]?.term;
  }
}

function factsOf({ header, path }: FoundSegment, sizeBytes: number): SegmentFacts {
  return { number: header.number, path, lastIndexMax: 0, sizeBytes, baseIndex: header.baseIndex, keyIds: new Set() };
}

/** A snapshot proves that its term began and that its entries are committed. */
function raised(hardState: HardState, { index, term }: SnapshotMeta): HardState {
  return {
    term: Math.max(hardState.term, term),
    vote: term > hardState.term ? 0 : hardState.vote,
    commit: Math.max(hardState.commit, index),
  };
}

const zeros = Buffer.alloc(64 * 1024);

function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += zeros.length) {
    const part = bytes.subarray(at, at + zeros.length);
    if (zeros.compare(part, 0, part.length, 0, part.length) !== 0) return false;
  }
  return true;
}

function quarantine(...damage: ConstructorParameters<typeof LogQuarantined>): LogQuarantined {
  return new LogQuarantined(...damage);
}

/** Turns an error of the disk into one of ours. */
function read<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (errnoOf(error) === "EFBIG") throw new StorageForeign(path, "it is larger than any file of ours");
    if (errnoOf(error) !== undefined) throw new LogReadFailed(path, error);
    throw error;
  }
}
