/** Appends that one follower has been sent and has not acknowledged: a ring of (last index, bytes), oldest first. */
export class Inflights {
  readonly #msgsMax: number;
  readonly #bytesMax: number;
  #lastIndexes: number[] = [];
  #sizes: number[] = [];
  #head = 0;
  #count = 0;
  #bytes = 0;

  constructor(limits: { msgsMax: number; bytesMax: number }) {
    this.#msgsMax = limits.msgsMax;
    this.#bytesMax = limits.bytesMax;
  }

  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get full(): boolean {
    return this.#count >= this.#msgsMax || this.#bytes >= this.#bytesMax;
  }

  /** Bytes that one more message may carry. */
  get bytesLeft(): number {
    return this.#bytesMax - this.#bytes;
  }

  add(lastIndex: number, bytes: number): void {
    if (this.#count === this.#lastIndexes.length) this.#grow();
    const slot = (this.#head + this.#count) % this.#lastIndexes.length;
    this.#lastIndexes[slot] = lastIndex;
    this.#sizes[slot] = bytes;
    this.#count++;
    this.#bytes += bytes;
  }

  /** An answer covers `index`: all that ends at or below it is over, in whatever order answers come (scenario J1). */
  freeUpTo(index: number): void {
    while (this.#count > 0 && (this.#lastIndexes[this.#head] as number) <= index) {
      this.#bytes -= this.#sizes[this.#head] as number;
      this.#head = (this.#head + 1) % this.#lastIndexes.length;
      this.#count--;
    }
  }

  clear(): void {
    this.#head = 0;
    this.#count = 0;
    this.#bytes = 0;
  }

  /** Doubles from a small start: most followers never need the whole window. */
  #grow(): void {
    const indexes: number[] = [];
    const sizes: number[] = [];
    for (let at = 0; at < this.#count; at++) {
      const slot = (this.#head + at) % this.#lastIndexes.length;
      indexes.push(this.#lastIndexes[slot] as number);
      sizes.push(this.#sizes[slot] as number);
    }
    const room = Math.max(8, this.#count * 2);
    while (indexes.length < room) {
      indexes.push(0);
      sizes.push(0);
    }
    this.#lastIndexes = indexes;
    this.#sizes = sizes;
    this.#head = 0;
  }
}
