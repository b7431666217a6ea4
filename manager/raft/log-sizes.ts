/**
 * How many bytes of log lie between two indexes, within the grain of one checkpoint per 64 entries: what decides when a
 * snapshot is due and how much log may stay behind it. Forgets what is compacted.
 */

const grain = 64;

export class LogSizes {
  /** Bytes before `#firstSlot * grain`, and so on for each slot of `grain` entries. */
  readonly #sums: number[] = [0];
  #firstSlot: number;
  #totalBytes = 0;
  #lastIndex: number;

  /** @param lastIndex  the log is empty and goes on after this index */
  constructor(lastIndex: number) {
    this.#lastIndex = lastIndex;
    this.#firstSlot = Math.floor((lastIndex + 1) / grain);
  }

  /** An entry was appended at `index`; a replaced tail counts twice until it is compacted, which only errs early. */
  push(index: number, sizeBytes: number): void {
    for (let slot = Math.floor(index / grain); this.#firstSlot + this.#sums.length <= slot;) {
      this.#sums.push(this.#totalBytes);
    }
    this.#totalBytes += sizeBytes;
    this.#lastIndex = Math.max(this.#lastIndex, index);
  }

  /** Bytes of the entries after `index`. */
  after(index: number): number {
    return this.#totalBytes - this.#before(index + 1);
  }

  /** The highest index with at least `sizeBytes` of log in `(index, upTo]`, or 0 when all of it is less. */
  indexBehind(upTo: number, sizeBytes: number): number {
    const wanted = this.#before(upTo + 1) - sizeBytes;
    if (wanted < (this.#sums[0] ?? 0)) return 0;
    let low = 0;
    let high = this.#sums.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#sums[middle] ?? 0) <= wanted) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, Math.min(upTo, (this.#firstSlot + low - 1) * grain - 1));
  }

  compact(index: number): void {
    const drop = Math.min(this.#sums.length - 1, Math.floor((index + 1) / grain) - this.#firstSlot);
    if (drop <= 0) return;
    this.#sums.splice(0, drop);
    this.#firstSlot += drop;
  }

  #before(index: number): number {
    if (index > this.#lastIndex) return this.#totalBytes;
    const slot = Math.floor(index / grain) - this.#firstSlot;
    if (slot < 0) return this.#sums[0] ?? 0;
    const start = this.#sums[slot] ?? this.#totalBytes;
    const end = this.#sums[slot + 1] ?? this.#totalBytes;
    // Within one grain the entries are taken as equal.
    const first = (this.#firstSlot + slot) * grain;
    const count = Math.min(grain, this.#lastIndex + 1 - first);
    return start + ((end - start) * (index - first)) / Math.max(1, count);
  }
}
