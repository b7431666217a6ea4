/**
 * How often an address may come with a wrong token: eight times at once, then once in five seconds. A secret of 128 bits
 * is not found by trying; the limit keeps those who try from keeping the leader busy. Pure: time is an argument.
 */
const burst = 8;
const refillMs = 5000;
/** Addresses remembered; the one that was wrong longest ago is forgotten first. */
const addressesMax = 1024;

interface Bucket {
  tries: number;
  atMs: number;
}

export class WrongTokens {
  readonly #buckets = new Map<string, Bucket>();

  /** @returns 0 if this address may try, or how many milliseconds it has to wait */
  waitMs(address: string, nowMs: number): number {
    const bucket = this.#buckets.get(address);
    if (bucket === undefined) return 0;
    const tries = refilled(bucket, nowMs);
    return tries >= 1 ? 0 : Math.ceil((1 - tries) * refillMs);
  }

  wrong(address: string, nowMs: number): void {
    const bucket = this.#buckets.get(address) ?? { tries: burst, atMs: nowMs };
    const tries = Math.max(0, refilled(bucket, nowMs) - 1);
    this.#buckets.delete(address);
    this.#buckets.set(address, { tries, atMs: nowMs });
    if (this.#buckets.size <= addressesMax) return;
    for (const oldest of this.#buckets.keys()) {
      this.#buckets.delete(oldest);
      break;
    }
  }

  get size(): number {
    return this.#buckets.size;
  }
}

function refilled({ tries, atMs }: Bucket, nowMs: number): number {
  return Math.min(burst, tries + Math.max(0, nowMs - atMs) / refillMs);
}
