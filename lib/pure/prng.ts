/**
 * Seeded random source: the only source of chance for everything that decides.
 * sfc32 (Doty-Humphrey, PractRand): 128 bits of state, passes BigCrush, one branch-free step a number.
 */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter: number;

  /** @param seed  any safe integer or text; equal seeds give equal streams */
  constructor(seed: number | string) {
    const text = String(seed);
    this.#a = hash(text, 0x9e3779b9);
    this.#b = hash(text, 0x243f6a88);
    this.#c = hash(text, 0xb7e15162);
    this.#counter = 1;
    for (let step = 0; step < 12; step++) this.uint32();
  }

  /** A stream of its own for one purpose, so that drawing more for one does not shift the others. */
  static stream(seed: number | string, name: string): Random {
    return new Random(`${seed}/${name}`);
  }

  /** Uniform in 0 .. 2^32-1. */
  uint32(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + sum) | 0;
    return sum >>> 0;
  }

  /** Uniform in [0, 1). */
  float(): number {
    return this.uint32() / 0x1_0000_0000;
  }

  /** Uniform integer in [low, high), without modulo bias for ranges up to 2^32. */
  int(low: number, high: number): number {
    const range = high - low;
    if (!(range > 0)) throw new RangeError(`Cannot draw an integer from an empty range: ${low}..${high}`);
    if (range > 0x1_0000_0000) return low + Math.floor(this.float() * range);
    const limit = 0x1_0000_0000 - (0x1_0000_0000 % range);
    for (;;) {
      const drawn = this.uint32();
      if (drawn < limit) return low + (drawn % range);
    }
  }

  chance(probability: number): boolean {
    return this.float() < probability;
  }

  /** Exponentially distributed with the given mean. */
  exponential(mean: number): number {
    return -Math.log(1 - this.float()) * mean;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.int(0, from.length)] as T;
  }

  /** A shuffled copy (Fisher-Yates). */
  shuffle<T>(from: readonly T[]): T[] {
    const out = [...from];
    for (let last = out.length - 1; last > 0; last--) {
      const other = this.int(0, last + 1);
      [out[last], out[other]] = [out[other] as T, out[last] as T];
    }
    return out;
  }
}

/** FNV-1a with a salt and a final avalanche (murmur3's): spreads short seeds over all 32 bits. */
function hash(text: string, salt: number): number {
  let h = salt ^ 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}
