/**
 * The log's engine: synchronous, one durable step at a time, over the file-system port. The worker thread and the
 * simulator run it as it is. Order of every step: make it durable, then remember it; a call that throws LogDiskFull has
 * changed nothing, any other error is final.
 */
import { InvariantViolation, invariant } from "../../../lib/pure/errors.ts";
import { errnoOf, type FileSystem, type OpenFile } from "../../../lib/runtime/file-system.ts";
import type { Entry, HardState, SnapshotMeta } from "../core/types.ts";
import {
  aesGcm,
  encodeOwner,
  nonceOf,
  sessionBytes,
  tagBytes,
  type Cipher,
  type DataKeys,
  type RandomBytes,
  type StorageIdentity,
} from "../keys/index.ts";
import type { RecoveredLog, SaveBatch } from "../ports.ts";
import { LogClosed, LogDiskFull, LogWriteFailed } from "./errors.ts";
import {
  associate,
  associatedBytes,
  encodeEntries,
  encodeSegmentHeader,
  encodeSlot,
  encodedEntriesBytes,
  finishRecord,
  nextEntry,
  putRecordHeader,
  recordBytes,
  recordHeaderBytes,
  sectorBytes,
  segmentHeaderBytes,
  segmentName,
  slotBytes,
  type Slot,
} from "./format.ts";
import {
  ballastName,
  recoverLog,
  segmentBytesMax,
  slotsName,
  type Recovery,
  type RecoveredBatch,
  type SegmentFacts,
} from "./recovery.ts";

export interface EngineOptions {
  readonly files: FileSystem;
  /** The folder of the log; made if it is missing. */
  readonly folder: string;
  readonly identity: StorageIdentity;
  readonly keys: DataKeys;
  readonly randomBytes: RandomBytes;
  /** Of the whole snapshots at hand, newest first. */
  readonly snapshots: readonly SnapshotMeta[];
  readonly cipher?: Cipher;
  /** A segment is closed when the next record would pass this. Default 16 MiB. */
  readonly segmentBytes?: number;
  /** One record carries at most so much of a group (and always one entry). Default 4 MiB. */
  readonly recordBytes?: number;
  /** Zeros kept ahead of the last record, so that an fdatasync does not wait for the journal. Default 1 MiB. */
  readonly aheadBytes?: number;
  /** Given up when the disk is full, so that votes can still be saved while space is made. Default 64 MiB. */
  readonly ballastBytes?: number;
  /** Below this much free space the status says "low". Default 256 MiB. */
  readonly lowBytes?: number;
}

/** A SaveBatch whose entries are encoded already (format.ts `encodeEntries`). */
export interface EncodedBatch {
  readonly hardState: HardState | undefined;
  /** Of the first entry; anything without entries. */
  readonly firstIndex: number;
  readonly count: number;
  readonly lastTerm: number;
  readonly payload: Uint8Array;
}

export interface EngineStatus {
  readonly space: "ok" | "low";
  readonly freeBytes: number;
  readonly sizeBytes: number;
  readonly syncs: number;
}

/** One key below the active data key; see keys/cipher.ts. */
interface Session {
  readonly keyId: number;
  readonly salt: Uint8Array;
  readonly key: Uint8Array;
  /** How many have been used. */
  nonces: number;
}

const sliceBytes = 1024 * 1024;
const noPayload = new Uint8Array(0);

export class WalEngine {
  readonly #options: Required<EngineOptions>;
  readonly #files: FileSystem;
  readonly #owner: Uint8Array;
  readonly #associated = new Uint8Array(associatedBytes);
  readonly #nonce = nonceOf(0);
  readonly #slotSector = new Uint8Array(sectorBytes);
  /** Where records are put together; grows to the largest one. */
  #record = new Uint8Array(4 * 1024);
  #session: Session | undefined;
  readonly #segments: SegmentFacts[];
  #active: OpenFile | undefined;
  #end = 0;
  #allocatedEnd = 0;
  #slots: OpenFile | undefined;
  #slotSequence: number;
  /** What the newest durable slot says. */
  #markedSequence = 0;
  #markedSegment = 0;
  #sequence: number;
  #crc: number;
  #hardState: HardState;
  #lastIndex: number;
  #lastTerm: number;
  #ballastBytes = 0;
  #freeBytes = 0;
  #syncs = 0;
  #failure: Error | undefined;
  #recovered: Recovery | undefined;

  private constructor(options: Required<EngineOptions>, recovery: Recovery) {
    this.#options = options;
    this.#files = options.files;
    this.#owner = encodeOwner(options.identity);
    this.#associated.set(this.#owner);
    this.#segments = recovery.segments;
    this.#slotSequence = recovery.slotSequence;
    this.#sequence = recovery.nextSequence - 1;
    this.#crc = recovery.previousCrc;
    this.#hardState = recovery.hardState;
    this.#lastIndex = recovery.lastIndex;
    this.#lastTerm = recovery.lastTerm;
    this.#recovered = recovery;
  }

  /**
   * Recovers the log, or begins one where there is none. Files are touched only after everything has been checked.
   * @throws LogQuarantined, LogReadFailed, LogWriteFailed, LogDiskFull; StorageForeign, StorageNewer, KeyMissing
   */
  static open(given: EngineOptions): WalEngine {
    const options: Required<EngineOptions> = {
      cipher: aesGcm,
      segmentBytes: 16 * 1024 * 1024,
      recordBytes: 4 * 1024 * 1024,
      aheadBytes: sliceBytes,
      ballastBytes: 64 * 1024 * 1024,
      lowBytes: 256 * 1024 * 1024,
      ...given,
    };
    options.files.mkdir(options.folder);
    const recovery = recoverLog({ ...options, owner: encodeOwner(options.identity) });
    const engine = new WalEngine(options, recovery);
    engine.#step("open", () => engine.#establish(recovery));
    return engine;
  }

  /** What the log held when it was opened. */
  get recovered(): {
    readonly hardState: HardState;
    readonly snapshot: SnapshotMeta;
    readonly batches: readonly RecoveredBatch[];
  } {
    invariant(this.#recovered !== undefined, "what was recovered is taken once");
    const { hardState, snapshot, batches } = this.#recovered;
    return { hardState, snapshot, batches };
  }

  /** The same as entries; they are views of larger buffers. Afterwards the engine forgets them. */
  takeRecovered(): RecoveredLog {
    const { hardState, snapshot, batches } = this.recovered;
    this.forgetRecovered();
    return { hardState, snapshot, entries: entriesOf(batches) };
  }

  forgetRecovered(): void {
    this.#recovered = undefined;
  }

  get hardState(): HardState {
    return this.#hardState;
  }

  get lastIndex(): number {
    return this.#lastIndex;
  }

  get status(): EngineStatus {
    return {
      space: this.#freeBytes < this.#options.lowBytes ? "low" : "ok",
      freeBytes: this.#freeBytes,
      sizeBytes:
        this.#segments.reduce((sum, segment) => sum + segment.sizeBytes, 0) + this.#ballastBytes + 2 * slotBytes,
      syncs: this.#syncs,
    };
  }

  /** Makes one batch durable. @throws LogDiskFull (nothing changed), LogWriteFailed (final) */
  save(batch: SaveBatch): void {
    this.commitAll([encodeBatch(batch)]);
  }

  commitAll(group: readonly EncodedBatch[]): void {
    for (let at = 0; at < group.length;) at += this.commit(group, at);
  }

  /**
   * Group commit: makes as many batches as one record takes durable with one fdatasync.
   * @returns how many batches from `from` on are durable now; at least 1
   * @throws  LogDiskFull (call again with the same batches), LogWriteFailed (final)
   */
  commit(group: readonly EncodedBatch[], from = 0): number {
    const first = group[from];
    if (first === undefined) return 0;
    if (first.payload.length > this.#options.recordBytes && first.count > 1) {
      this.#commitParts(first);
      return 1;
    }
    let taken = 0;
    let payloadBytes = 0;
    let hardState = this.#hardState;
    let firstIndex = 0;
    let lastIndex = this.#lastIndex;
    let lastTerm = this.#lastTerm;
    for (let batch = group[from]; batch !== undefined; batch = group[from + taken]) {
      const replaces = payloadBytes > 0 && batch.count > 0 && batch.firstIndex <= lastIndex;
      if (taken > 0 && (replaces || payloadBytes + batch.payload.length > this.#options.recordBytes)) break;
      if (batch.count > 0) {
        this.#checkBatch(batch, lastIndex);
        if (payloadBytes === 0) firstIndex = batch.firstIndex;
        lastIndex = batch.firstIndex + batch.count - 1;
        lastTerm = batch.lastTerm;
      }
      payloadBytes += batch.payload.length;
      hardState = batch.hardState ?? hardState;
      taken++;
    }
    this.#reserveRecord(payloadBytes);
    let at = recordHeaderBytes;
    for (let place = from; place < from + taken; place++) {
      const { payload } = group[place] as EncodedBatch;
      this.#record.set(payload, at);
      at += payload.length;
    }
    this.#append({
      payloadBytes,
      hardState,
      firstIndex: payloadBytes > 0 ? firstIndex : lastIndex + 1,
      lastIndex,
      lastTerm,
    });
    return taken;
  }

  /** Deletes the segments whose entries all are at or below `index`, oldest first. The newest one always stays. */
  compact(index: number): void {
    this.#step("compact", () => {
      let dropped = 0;
      while (this.#segments.length > 1 && (this.#segments[0] as SegmentFacts).lastIndexMax <= index) {
        this.#files.unlink((this.#segments.shift() as SegmentFacts).path);
        dropped++;
      }
      if (dropped > 0) this.#files.syncDirectory(this.#options.folder);
    });
  }

  /** The log starts over after `meta`, whose snapshot is durable. A crash leaves the old log or the new one. */
  reset(meta: SnapshotMeta, hardState: HardState): void {
    invariant(hardState.term >= this.#hardState.term, "a reset never lowers the term", { ...hardState });
    invariant(hardState.commit <= meta.index, "a reset commits no more than its snapshot holds", { ...hardState });
    this.#step("reset", () => {
      this.#beginSegment({ reset: true, hardState, baseIndex: meta.index, baseTerm: meta.term });
      this.#mark();
      this.#dropOlderSegments();
    });
  }

  /** New records are sealed with the active data key from now on, in a segment of their own, so that old keys can go. */
  useActiveKey(): void {
    const { id } = this.#options.keys.active;
    const mixed = [...(this.#segments.at(-1) as SegmentFacts).keyIds].some((used) => used !== id);
    if (mixed) this.#step("rotate the key of", () => this.#rotate());
  }

  /** Data keys that some segment still needs, and the one in use. */
  keysInUse(): Set<number> {
    const ids = new Set<number>([this.#options.keys.active.id]);
    for (const segment of this.#segments) for (const id of segment.keyIds) ids.add(id);
    return ids;
  }

  /** Whether the last record is durable without a slot that says so: `idle` ought to run soon. */
  get needsMark(): boolean {
    return this.#failure === undefined && this.#markedSequence < this.#sequence;
  }

  /** One short piece of what can wait (at most about a millisecond of disk). @returns whether there is more */
  idle(): boolean {
    return this.#step("tend", () => {
      if (this.needsMark) {
        this.#mark();
        return true;
      }
      this.#freeBytes = this.#files.freeBytes(this.#options.folder);
      const ahead = this.#allocatedEnd - this.#end;
      if (ahead < this.#options.aheadBytes / 2 && this.#allocatedEnd < this.#options.segmentBytes) {
        this.#allocate(this.#end + this.#options.aheadBytes);
        (this.#active as OpenFile).datasync();
        return true;
      }
      return this.#growBallast();
    });
  }

  close(): void {
    if (this.#failure instanceof LogClosed) return;
    try {
      if (this.needsMark) this.#step("close", () => this.#mark());
    } finally {
      this.#failure ??= new LogClosed();
      this.#active?.close();
      this.#slots?.close();
    }
  }

  // ---- saving ----

  /** A batch too large for one record goes in several; the commit index grows only with the last. */
  #commitParts({ hardState = this.#hardState, firstIndex, count, payload }: EncodedBatch): void {
    let at = 0;
    for (let index = firstIndex; index < firstIndex + count;) {
      const start = at;
      const startIndex = index;
      let term = 0;
      do {
        const next = nextEntry(payload, at);
        at = next.end;
        term = next.term;
        index++;
      } while (index < firstIndex + count && nextEntry(payload, at).end - start <= this.#options.recordBytes);
      const whole = index === firstIndex + count;
      const part: EncodedBatch = {
        hardState: whole ? hardState : { ...hardState, commit: Math.min(hardState.commit, this.#hardState.commit) },
        firstIndex: startIndex,
        count: index - startIndex,
        lastTerm: term,
        payload: payload.subarray(start, at),
      };
      this.#commitOne(part);
    }
  }

  #commitOne(batch: EncodedBatch): void {
    this.#checkBatch(batch, this.#lastIndex);
    this.#reserveRecord(batch.payload.length);
    this.#record.set(batch.payload, recordHeaderBytes);
    const { firstIndex, count, lastTerm } = batch;
    this.#append({
      payloadBytes: batch.payload.length,
      hardState: batch.hardState ?? this.#hardState,
      firstIndex,
      lastIndex: firstIndex + count - 1,
      lastTerm,
    });
  }

  #checkBatch({ firstIndex, count }: EncodedBatch, lastIndex: number): void {
    const { commit } = this.#hardState;
    const base = this.#segments[0]?.baseIndex ?? 0;
    invariant(firstIndex <= lastIndex + 1 && firstIndex > base, "entries continue the log", {
      firstIndex,
      count,
      lastIndex,
    });
    invariant(firstIndex > commit, "committed entries are not replaced", { firstIndex, commit });
  }

  #reserveRecord(payloadBytes: number): void {
    const bytes = recordBytes(payloadBytes);
    invariant(bytes <= segmentBytesMax / 2, "a record fits a segment", { payloadBytes });
    if (this.#record.length < bytes) this.#record = new Uint8Array(Math.max(bytes, this.#record.length * 2));
  }

  /** Seals and writes the record whose payload stands in `#record`. */
  #append(about: {
    payloadBytes: number;
    hardState: HardState;
    firstIndex: number;
    lastIndex: number;
    lastTerm: number;
  }): void {
    const { payloadBytes, hardState, firstIndex, lastIndex, lastTerm } = about;
    const before = this.#hardState;
    invariant(hardState.term >= before.term, "the term never goes back", { before, hardState });
    invariant(
      hardState.term > before.term || before.vote === 0 || hardState.vote === before.vote,
      "a vote is not changed within its term",
      { before, hardState },
    );
    invariant(hardState.commit <= lastIndex, "what is committed is in the log", { hardState, lastIndex });
    this.#step("write", () => {
      const bytes = recordBytes(payloadBytes);
      if (this.#end + bytes > this.#options.segmentBytes && this.#end > segmentHeaderBytes) this.#rotate();
      const segment = this.#segments.at(-1) as SegmentFacts;
      if (this.#markedSegment !== segment.number) this.#mark();
      const record = this.#record.subarray(0, bytes);
      const session = this.#useSession();
      putRecordHeader(record, {
        keyId: session.keyId,
        payloadBytes,
        sequence: this.#sequence + 1,
        slotSequence: this.#slotSequence,
        firstIndex,
        lastIndex,
        lastTerm,
        hardState,
        nonce: ++session.nonces,
        session: session.salt,
        previousCrc: this.#crc,
      });
      const associated = associate(this.#associated, segment.number, record, 0);
      const body = record.subarray(recordHeaderBytes, recordHeaderBytes + payloadBytes);
      const tag = this.#options.cipher.seal(session.key, nonceOf(session.nonces, this.#nonce), associated, body);
      record.set(tag, bytes - tagBytes);
      const crc = finishRecord(record, bytes);
      if (this.#end + bytes > this.#allocatedEnd) this.#allocate(this.#end + bytes + this.#options.aheadBytes);
      this.#write(this.#active as OpenFile, record, this.#end);

      this.#end += bytes;
      this.#sequence++;
      this.#crc = crc;
      this.#hardState = hardState;
      this.#lastIndex = lastIndex;
      this.#lastTerm = lastTerm;
      segment.keyIds.add(session.keyId);
      if (payloadBytes > 0) segment.lastIndexMax = Math.max(segment.lastIndexMax, lastIndex);
    });
  }

  #useSession(): Session {
    const { id, key } = this.#options.keys.active;
    if (this.#session?.keyId !== id) {
      const salt = this.#options.randomBytes(sessionBytes);
      this.#session = { keyId: id, salt, key: this.#options.cipher.derive(key, salt), nonces: 0 };
    }
    return this.#session;
  }

  /** The one place where something becomes durable in the log. */
  #write(file: OpenFile, bytes: Uint8Array, at: number): void {
    file.pwrite(bytes, at);
    this.#sync(file);
  }

  /** ENOSPC of an fdatasync is as final as EIO: the pages it was about are gone. */
  #sync(file: OpenFile): void {
    try {
      this.#syncs++;
      file.datasync();
    } catch (error) {
      if (isFull(error)) throw new LogWriteFailed("sync", error);
      throw error;
    }
  }

  // ---- segments and slots ----

  /** Closes the active segment and begins the next. */
  #rotate(): void {
    const left = this.#segments.at(-1) as SegmentFacts;
    const file = this.#active as OpenFile;
    const end = this.#end;
    this.#beginSegment(
      { reset: false, hardState: this.#hardState, baseIndex: this.#lastIndex, baseTerm: this.#lastTerm },
      () => {
        // What was allocated ahead and not used goes back. Not synced: zeros that reappear are harmless.
        file.truncate(end);
        left.sizeBytes = end;
        this.#allocatedEnd = end;
      },
    );
  }

  /**
   * Makes the next segment: complete under a temporary name, then renamed; a slot names it before its first record, so
   * that its loss is noticed. Until the rename nothing has changed.
   */
  #beginSegment(
    from: {
      readonly reset: boolean;
      readonly hardState: HardState;
      readonly baseIndex: number;
      readonly baseTerm: number;
    },
    before?: () => void,
  ): void {
    const { folder, aheadBytes, segmentBytes } = this.#options;
    const number = (this.#segments.at(-1)?.number ?? 0) + 1;
    const path = `${folder}/${segmentName(number)}`;
    const temporary = `${path}.tmp`;
    const header = encodeSegmentHeader({
      number,
      firstSequence: this.#sequence + 1,
      previousCrc: this.#crc,
      slotSequence: this.#slotSequence,
      owner: this.#owner,
      ...from,
    });
    const file = this.#withBallast(() => this.#files.open(temporary, "create"));
    try {
      this.#withBallast(() => file.pwrite(header, 0));
      this.#withBallast(() => file.allocate(Math.min(segmentHeaderBytes + aheadBytes, segmentBytes)));
      this.#sync(file);
      before?.();
      this.#files.rename(temporary, path);
      this.#files.syncDirectory(folder);
    } catch (error) {
      file.close();
      throw error;
    }
    this.#active?.close();
    this.#active = file;
    this.#end = segmentHeaderBytes;
    this.#allocatedEnd = file.sizeBytes();
    this.#hardState = from.hardState;
    this.#lastIndex = from.baseIndex;
    this.#lastTerm = from.baseTerm;
    const { baseIndex } = from;
    this.#segments.push({ number, path, lastIndexMax: 0, sizeBytes: this.#allocatedEnd, baseIndex, keyIds: new Set() });
  }

  #dropOlderSegments(): void {
    for (const segment of this.#segments.splice(0, this.#segments.length - 1)) this.#files.unlink(segment.path);
    this.#files.syncDirectory(this.#options.folder);
  }

  /** Says durably, in the older of the two slots, that everything so far is durable. */
  #mark(): void {
    const sequence = this.#slotSequence + 1;
    this.#write(this.#slots as OpenFile, this.#slot(sequence), (sequence % 2) * slotBytes);
    this.#slotSequence = sequence;
    this.#markedSequence = this.#sequence;
    this.#markedSegment = this.#segments.at(-1)?.number ?? 0;
  }

  #slot(sequence: number): Uint8Array {
    const slot: Slot = {
      sequence,
      hardState: this.#hardState,
      recordSequence: this.#sequence,
      recordCrc: this.#crc,
      segment: (this.#segments.at(-1) as SegmentFacts).number,
      owner: this.#owner,
    };
    return encodeSlot(slot, this.#slotSector);
  }

  // ---- space ----

  #allocate(wantedBytes: number): void {
    const file = this.#active as OpenFile;
    const segment = this.#segments.at(-1) as SegmentFacts;
    const target = Math.max(Math.min(wantedBytes, this.#options.segmentBytes), this.#allocatedEnd);
    this.#withBallast(() => file.allocate(target));
    this.#allocatedEnd = file.sizeBytes();
    // Under constant load there is no idle moment in which to look.
    this.#freeBytes = this.#files.freeBytes(this.#options.folder);
    segment.sizeBytes = Math.max(this.#allocatedEnd, segment.sizeBytes);
  }

  /** A full disk costs the ballast first. */
  #withBallast<T>(act: () => T): T {
    try {
      return act();
    } catch (error) {
      if (!isFull(error) || this.#ballastBytes === 0) throw error;
      this.#files.unlink(`${this.#options.folder}/${ballastName}`);
      this.#files.syncDirectory(this.#options.folder);
      this.#ballastBytes = 0;
      this.#freeBytes = this.#files.freeBytes(this.#options.folder);
      return act();
    }
  }

  /** @returns whether the ballast has grown */
  #growBallast(): boolean {
    const { folder, ballastBytes, lowBytes } = this.#options;
    const missing = ballastBytes - this.#ballastBytes;
    if (missing <= 0 || this.#freeBytes < lowBytes + missing) return false;
    const path = `${folder}/${ballastName}`;
    const file = this.#files.open(path, this.#ballastBytes === 0 ? "create" : "write");
    try {
      file.allocate(Math.min(ballastBytes, this.#ballastBytes + sliceBytes));
      this.#ballastBytes = file.sizeBytes();
    } finally {
      file.close();
    }
    return true;
  }

  // ---- opening ----

  /** Brings the folder into the state that recovery decided on. */
  #establish(recovery: Recovery): void {
    const { folder } = this.#options;
    for (const path of recovery.obsolete) this.#files.unlink(path);
    if (recovery.fresh) this.#begin(recovery);
    else this.#resume(recovery);
    const { index, term } = recovery.snapshot;
    if (recovery.superseded) {
      this.#beginSegment({ reset: true, hardState: recovery.hardState, baseIndex: index, baseTerm: term });
      this.#mark();
      this.#dropOlderSegments();
    }
    this.#freeBytes = this.#files.freeBytes(folder);
  }

  #begin(recovery: Recovery): void {
    const { folder } = this.#options;
    const first = `${folder}/${segmentName(1)}`;
    if (this.#files.readdir(folder).includes(segmentName(1))) this.#files.unlink(first);
    this.#hardState = { term: 0, vote: 0, commit: 0 };
    this.#beginSegment({ reset: false, hardState: this.#hardState, baseIndex: 0, baseTerm: 0 });
    const temporary = `${folder}/${slotsName}.tmp`;
    const slots = this.#files.open(temporary, "create");
    slots.allocate(2 * slotBytes);
    slots.pwrite(this.#slot(1), slotBytes);
    slots.pwrite(this.#slot(2), 0);
    this.#sync(slots);
    this.#files.rename(temporary, `${folder}/${slotsName}`);
    this.#files.syncDirectory(folder);
    this.#slots = slots;
    this.#slotSequence = 2;
    this.#markedSegment = 1;
    this.#hardState = recovery.hardState;
  }

  #resume(recovery: Recovery): void {
    const { folder } = this.#options;
    const newest = this.#segments.at(-1) as SegmentFacts;
    const file = this.#files.open(newest.path, "write");
    this.#active = file;
    this.#end = recovery.end;
    if (recovery.torn) {
      // Cut and grown again: zeros where the torn record was.
      file.truncate(recovery.end);
      this.#sync(file);
    }
    // A process that died after a failed fdatasync may leave the record in the page cache only: bring it to the disk.
    if (recovery.lastRecord !== undefined) file.pwrite(recovery.lastRecord.bytes, recovery.lastRecord.at);
    this.#sync(file);
    this.#allocatedEnd = file.sizeBytes();
    newest.sizeBytes = this.#allocatedEnd;
    this.#files.syncDirectory(folder);
    this.#slots = this.#files.open(`${folder}/${slotsName}`, "write");
    this.#bringSlotsToDisk(this.#slots);
    // The hard state that the snapshot implies becomes durable with the next record; the slot repeats what the log says.
    const implied = this.#hardState;
    this.#hardState = recovery.loggedHardState;
    this.#mark();
    this.#hardState = implied;
    if (this.#files.readdir(folder).includes(ballastName))
      this.#ballastBytes = this.#sizeOf(`${folder}/${ballastName}`);
  }

  /**
   * The same may be true of the last slot. Were it left in the cache, the next one would stand beside its predecessor's
   * predecessor after a power cut. Only bytes that may be new are changed by this, so a torn write harms one slot at most.
   */
  #bringSlotsToDisk(slots: OpenFile): void {
    const both = new Uint8Array(2 * slotBytes);
    const bytes = slots.pread(both, 0);
    slots.pwrite(both.subarray(0, bytes), 0);
    this.#sync(slots);
  }

  #sizeOf(path: string): number {
    const file = this.#files.open(path, "read");
    try {
      return file.sizeBytes();
    } finally {
      file.close();
    }
  }

  /** Runs one step: a full disk is an answer, any other error of the disk ends the engine. */
  #step<T>(act: string, run: () => T): T {
    if (this.#failure !== undefined) throw new LogClosed(this.#failure);
    try {
      return run();
    } catch (error) {
      if (isFull(error)) {
        this.#freeBytes = 0;
        throw new LogDiskFull(error);
      }
      const failure = errnoOf(error) === undefined ? error : new LogWriteFailed(act, error);
      this.#failure = failure instanceof Error ? failure : new InvariantViolation("only errors are thrown");
      throw failure;
    }
  }
}

/** No room on the file system, or none left of what its owner may use. */
function isFull(error: unknown): boolean {
  const code = errnoOf(error);
  return code === "ENOSPC" || code === "EDQUOT";
}

/** A batch in the form that the engine takes; its payload is a copy. */
export function encodeBatch({ hardState, entries }: SaveBatch): EncodedBatch {
  if (entries.length === 0) return { hardState, firstIndex: 0, count: 0, lastTerm: 0, payload: noPayload };
  const payload = new Uint8Array(encodedEntriesBytes(entries));
  encodeEntries(entries, payload, 0);
  const [first, last] = [entries[0] as Entry, entries.at(-1) as Entry];
  invariant(last.index === first.index + entries.length - 1, "entries of a batch are consecutive");
  return { hardState, firstIndex: first.index, count: entries.length, lastTerm: last.term, payload };
}

/** The log that recovered batches make up. */
export function entriesOf(batches: readonly RecoveredBatch[]): Entry[] {
  return batches.flatMap((batch) => batch.entries.slice(0, batch.lastIndex - batch.firstIndex + 1));
}
