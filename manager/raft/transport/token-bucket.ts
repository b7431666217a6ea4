/** A rate limit in bytes: what is spent beyond the allowance has to be waited for before the next spending. */
export class TokenBucket {
  readonly #bytesPerMs: number;
  readonly #burstBytes: number;
  #tokens: number;
  #asOfMs: number;

  /** @param bytesPerSecond  Infinity for no limit */
  constructor(bytesPerSecond: number, burstBytes: number, nowMs: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#burstBytes = burstBytes;
    this.#tokens = burstBytes;
    this.#asOfMs = nowMs;
  }

  /** Milliseconds until anything may be spent; 0 means now. */
  waitMs(nowMs: number): number {
    if (this.#bytesPerMs === Infinity) return 0;
    this.#tokens = Math.min(this.#burstBytes, this.#tokens + (nowMs - this.#asOfMs) * this.#bytesPerMs);
    this.#asOfMs = nowMs;
    return this.#tokens > 0 ? 0 : -this.#tokens / this.#bytesPerMs + 0.001;
  }

  /** May go below zero: one chunk is never split. */
  spend(bytes: number): void {
    if (this.#bytesPerMs !== Infinity) this.#tokens -= bytes;
  }
}
