/**
 * The log of one member: every entry since the last compaction, in memory (docs/adr/0001-log-in-memory.md).
 *
 *   boundary      index and term of the last entry that is gone (compacted or covered by an installed snapshot)
 *   durable       last index known to be on disk with the content that is here
 *   handed        last index given to storage
 *   commit        Raft thesis figure 3.1; never goes back, never past the end
 *
 * Only `truncateAndAppend` and `reset` ever shorten it, and never at or below `commit`.
 */
import { raftInvariant } from "./errors.ts";
import type { Entry } from "./types.ts";

/** Counted for each entry beside its data, so that limits in bytes also bound the number of empty entries. */
export const entryOverheadBytes = 16;

export function entryBytes(entry: Entry): number {
  return entry.data.byteLength + entryOverheadBytes;
}

/** A write under way: everything up to `last` that it carries is still the content of the log. */
interface PendingWrite {
  readonly token: number;
  last: number;
}

export class RaftLog {
  #boundaryIndex: number;
  #boundaryTerm: number;
  /** Entry i of the log is at #entries[#head + i - boundary - 1]; slots before #head are free. */
  #entries: Entry[] = [];
  /** Running total of bytes up to and including the entry in the same slot. */
  #bytesThrough: number[] = [];
  #head = 0;
  #bytesBeforeFirst = 0;
  #commit: number;
  #durable: number;
  #handed: number;
  /** Oldest first. */
  #writes: PendingWrite[] = [];
  /** Indexes of the configuration changes in the log, ascending: few, and asked for at each campaign. */
  #confChanges: number[] = [];

  constructor(boundary: { index: number; term: number }, entries: readonly Entry[], commit: number) {
    this.#boundaryIndex = boundary.index;
    this.#boundaryTerm = boundary.term;
    this.#commit = commit;
    for (const entry of entries) this.#push(entry);
    this.#durable = this.#handed = this.lastIndex;
  }

  get firstIndex(): number {
    return this.#boundaryIndex + 1;
  }

  get lastIndex(): number {
    return this.#boundaryIndex + this.#entries.length - this.#head;
  }

  get lastTerm(): number {
    return this.#entries.length > this.#head ? this.#at(this.lastIndex).term : this.#boundaryTerm;
  }

  get commit(): number {
    return this.#commit;
  }

  get durable(): number {
    return this.#durable;
  }

  get bytes(): number {
    return this.#bytesUpTo(this.lastIndex) - this.#bytesBeforeFirst;
  }

  get hasUnsaved(): boolean {
    return this.#handed < this.lastIndex;
  }

  /** Term of the entry at `index`; undefined where the log has no answer (compacted, or past its end). */
  term(index: number): number | undefined {
    if (index === this.#boundaryIndex) return this.#boundaryTerm;
    if (index < this.#boundaryIndex || index > this.lastIndex) return undefined;
    return this.#at(index).term;
  }

  matches(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /** Raft thesis §3.6.1: the later last term wins, then the longer log. Nothing else takes part. */
  isUpToDate(lastIndex: number, lastTerm: number): boolean {
    const ownTerm = this.lastTerm;
    return lastTerm > ownTerm || (lastTerm === ownTerm && lastIndex >= this.lastIndex);
  }

  entry(index: number): Entry {
    raftInvariant(index > this.#boundaryIndex && index <= this.lastIndex, "an entry that the log has is asked for", {
      index,
      first: this.firstIndex,
      last: this.lastIndex,
    });
    return this.#at(index);
  }

  /** Entries from..to, both included. */
  slice(from: number, to: number): Entry[] {
    raftInvariant(from > this.#boundaryIndex && to <= this.lastIndex, "a slice lies inside the log", { from, to });
    return this.#entries.slice(this.#slot(from), this.#slot(to) + 1);
  }

  bytesBetween(from: number, to: number): number {
    return to < from ? 0 : this.#bytesUpTo(to) - this.#bytesUpTo(from - 1);
  }

  /**
   * Last index of the longest run from `from` to at most `to` that has no more than `bytesMax` bytes; at least one
   * entry, so that one bigger than the limit travels alone (scenario J3).
   */
  runWithin(from: number, to: number, bytesMax: number): number {
    const limit = this.#bytesUpTo(from - 1) + bytesMax;
    if (this.#bytesUpTo(to) <= limit) return to;
    let low = from;
    let high = to;
    while (low < high) {
      const middle = low + Math.ceil((high - low) / 2);
      if (this.#bytesUpTo(middle) <= limit) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /**
   * Highest index <= `index` whose term is <= `term`: where two logs may still agree, at the earliest term that both
   * can have (Raft thesis §5.3, fast back-off). Terms never fall along a log, so a binary search finds it.
   */
  lastIndexWithTermAtMost(index: number, term: number): number {
    let high = Math.min(index, this.lastIndex);
    let low = this.#boundaryIndex;
    if (high <= low) return Math.max(high, 0);
    if (this.#boundaryTerm > term) return Math.max(low - 1, 0);
    while (low < high) {
      const middle = low + Math.ceil((high - low) / 2);
      if (this.#at(middle).term <= term) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The leader's way to write: at the end, never over anything. */
  append(entry: Entry): void {
    raftInvariant(entry.index === this.lastIndex + 1, "an entry is appended right after the last");
    this.#push(entry);
  }

  /**
   * The follower's way: `entries` follow an entry that matched. What is there already stays, even if the log is longer;
   * only a real conflict cuts it (Raft thesis figure 3.1, AppendEntries 3 and 4).
   * @returns how many old entries were cut off
   */
  truncateAndAppend(entries: readonly Entry[]): number {
    let known = 0;
    const last = this.lastIndex;
    while (known < entries.length) {
      const entry = entries[known] as Entry;
      if (entry.index > last) break;
      if (entry.index > this.#boundaryIndex && this.#at(entry.index).term !== entry.term) break;
      known++;
    }
    if (known === entries.length) return 0;
    const from = (entries[known] as Entry).index;
    let cut = 0;
    if (from <= last) {
      cut = last - from + 1;
      this.#truncate(from);
    }
    for (let next = known; next < entries.length; next++) this.#push(entries[next] as Entry);
    return cut;
  }

  /** @returns whether it moved */
  commitTo(index: number): boolean {
    if (index <= this.#commit) return false;
    raftInvariant(index <= this.lastIndex, "commit does not pass the end of the log", {
      index,
      last: this.lastIndex,
    });
    this.#commit = index;
    return true;
  }

  /** A configuration change lies in from+1 .. to. */
  hasConfChangeBetween(from: number, to: number): boolean {
    for (let at = this.#confChanges.length - 1; at >= 0; at--) {
      const index = this.#confChanges[at] as number;
      if (index <= from) return false;
      if (index <= to) return true;
    }
    return false;
  }

  firstConfChangeAfter(index: number): number | undefined {
    let first: number | undefined;
    for (let at = this.#confChanges.length - 1; at >= 0 && (this.#confChanges[at] as number) > index; at--) {
      first = this.#confChanges[at];
    }
    return first;
  }

  /** What storage has not been given yet, now given under `token`. */
  takeUnsaved(token: number): Entry[] {
    const from = this.#handed + 1;
    const to = this.lastIndex;
    this.#handed = to;
    this.#writes.push({ token, last: to });
    return this.slice(from, to);
  }

  /** An installed snapshot is written under `token`, before the entries after it. */
  noteSnapshotWrite(token: number): void {
    this.#writes.push({ token, last: this.#boundaryIndex });
  }

  /**
   * All writes up to `token` are on disk. A write says only what it wrote: whatever has been cut off since was taken
   * out of it, so a late notice never marks other content at the same index as durable (scenario E14).
   */
  markDurable(token: number): void {
    let done = 0;
    while (done < this.#writes.length) {
      const write = this.#writes[done] as PendingWrite;
      if (write.token > token) break;
      if (write.last > this.#durable) this.#durable = write.last;
      done++;
    }
    if (done > 0) this.#writes.splice(0, done);
  }

  /** Forgets entries up to `index`. The caller has a durable snapshot that covers them. */
  compact(index: number): void {
    if (index <= this.#boundaryIndex) return;
    raftInvariant(index <= this.#commit, "only committed entries are compacted", { index, commit: this.#commit });
    const term = this.#at(index).term;
    const bytes = this.#bytesUpTo(index);
    const head = this.#slot(index) + 1;
    this.#boundaryIndex = index;
    this.#boundaryTerm = term;
    this.#bytesBeforeFirst = bytes;
    // Free slots pile up at the front and are given back when they are half of all: amortised O(1) for each entry.
    for (let slot = this.#head; slot < head; slot++) this.#entries[slot] = freeSlot;
    this.#head = head;
    if (this.#head * 2 >= this.#entries.length) {
      this.#entries.splice(0, this.#head);
      this.#bytesThrough.splice(0, this.#head);
      this.#head = 0;
    }
    let gone = 0;
    while (gone < this.#confChanges.length && (this.#confChanges[gone] as number) <= index) gone++;
    if (gone > 0) this.#confChanges.splice(0, gone);
  }

  /** A snapshot takes the place of everything. */
  reset(index: number, term: number): void {
    raftInvariant(index > this.#commit, "a snapshot replaces the log only if it is ahead of commit", {
      index,
      commit: this.#commit,
    });
    this.#boundaryIndex = index;
    this.#boundaryTerm = term;
    this.#entries = [];
    this.#bytesThrough = [];
    this.#bytesBeforeFirst = 0;
    this.#head = 0;
    this.#confChanges = [];
    // Nothing past the old commit is known to be the same; the snapshot itself is not on disk yet.
    this.#durable = Math.min(this.#durable, this.#commit);
    for (const write of this.#writes) write.last = Math.min(write.last, this.#commit);
    this.#commit = index;
    this.#handed = index;
  }

  #truncate(from: number): void {
    raftInvariant(from > this.#commit, "what is committed is never cut off", { from, commit: this.#commit });
    const slot = this.#slot(from);
    this.#entries.length = slot;
    this.#bytesThrough.length = slot;
    if (this.#handed >= from) this.#handed = from - 1;
    if (this.#durable >= from) this.#durable = from - 1;
    for (const write of this.#writes) if (write.last >= from) write.last = from - 1;
    while (this.#confChanges.length > 0 && (this.#confChanges.at(-1) as number) >= from) this.#confChanges.pop();
  }

  #push(entry: Entry): void {
    const bytes = this.#bytesUpTo(this.lastIndex) + entry.data.byteLength + entryOverheadBytes;
    this.#entries.push(entry);
    this.#bytesThrough.push(bytes);
    if (entry.kind === "confChange") this.#confChanges.push(entry.index);
  }

  #bytesUpTo(index: number): number {
    return index <= this.#boundaryIndex ? this.#bytesBeforeFirst : (this.#bytesThrough[this.#slot(index)] as number);
  }

  #slot(index: number): number {
    return this.#head + index - this.#boundaryIndex - 1;
  }

  #at(index: number): Entry {
    return this.#entries[this.#slot(index)] as Entry;
  }
}

/** Stands in free slots so that the garbage collector can take the entries. */
const freeSlot: Entry = { term: 0, index: 0, kind: "empty", data: new Uint8Array(0) };
