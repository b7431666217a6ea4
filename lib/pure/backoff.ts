/** How long to wait before the next try: exponential with full jitter above a floor. */
import type { Random } from "./prng.ts";

export interface BackoffOptions {
  /** Shortest wait. */
  readonly minMs: number;
  /** Longest wait. */
  readonly maxMs: number;
  /** Growth of the ceiling with each failure; 2 unless said. */
  readonly factor?: number;
}

/**
 * One retry loop's memory. `next()` after each failure, `reset()` after a success.
 * The wait is uniform in [minMs, ceiling], and the ceiling grows from 2 x minMs to maxMs: jitter over the whole range
 * keeps many clients of one lost server from coming back in step.
 */
export class Backoff {
  readonly #random: Random;
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #factor: number;
  #ceilingMs: number;
  #failures = 0;

  constructor(random: Random, options: BackoffOptions) {
    if (!(options.minMs > 0 && options.maxMs >= options.minMs)) {
      throw new RangeError(`Cannot back off between ${options.minMs} and ${options.maxMs} ms: not an increasing range`);
    }
    this.#random = random;
    this.#minMs = options.minMs;
    this.#maxMs = options.maxMs;
    this.#factor = options.factor ?? 2;
    this.#ceilingMs = Math.min(options.maxMs, options.minMs * this.#factor);
  }

  /** Failures since the last success. */
  get failures(): number {
    return this.#failures;
  }

  /** @returns milliseconds to wait before the next try */
  next(): number {
    this.#failures++;
    const waitMs = this.#minMs + this.#random.float() * (this.#ceilingMs - this.#minMs);
    this.#ceilingMs = Math.min(this.#maxMs, this.#ceilingMs * this.#factor);
    return waitMs;
  }

  reset(): void {
    this.#failures = 0;
    this.#ceilingMs = Math.min(this.#maxMs, this.#minMs * this.#factor);
  }
}
