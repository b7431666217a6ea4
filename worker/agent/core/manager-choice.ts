/** Which manager an agent turns to, and how long it waits before the next try. */
import type { Random } from "../../../lib/pure/prng.ts";

const weightNormal = 10;
const weightFailed = 1;

/** The managers that an agent knows of. The list is never empty: what was given at the start stays a last resort. */
export class ManagerChoice {
  readonly #random: Random;
  readonly #first: readonly string[];
  #known: readonly string[];
  readonly #failed = new Set<string>();
  #leader: string | undefined;

  constructor(random: Random, first: readonly string[]) {
    this.#random = random;
    this.#first = first;
    this.#known = first;
  }

  get known(): readonly string[] {
    return this.#known;
  }

  /** What a manager has told; an empty list tells nothing. */
  learn(addresses: readonly string[], leader: string | undefined): void {
    if (addresses.length > 0) this.#known = addresses;
    if (leader !== undefined && leader !== "") this.#leader = leader;
    for (const address of this.#failed) if (!this.#known.includes(address)) this.#failed.delete(address);
  }

  /** Somebody said who leads: it is asked next, once. */
  redirect(leader: string): void {
    this.#leader = leader === "" ? undefined : leader;
  }

  succeeded(address: string): void {
    this.#failed.delete(address);
  }

  failed(address: string): void {
    this.#failed.add(address);
    if (this.#leader === address) this.#leader = undefined;
  }

  /** The leader, if one is known and not tried since; otherwise anyone, those that failed last with less chance. */
  next(): string | undefined {
    if (this.#leader !== undefined) {
      const leader = this.#leader;
      this.#leader = undefined;
      return leader;
    }
    const all = [...new Set([...this.#known, ...this.#first])];
    if (all.length === 0) return undefined;
    const weights = all.map((address) => (this.#failed.has(address) ? weightFailed : weightNormal));
    let left = this.#random.float() * weights.reduce((sum, weight) => sum + weight, 0);
    for (const [at, weight] of weights.entries()) {
      left -= weight;
      if (left < 0) return all[at];
    }
    return all.at(-1);
  }
}

const firstMs = 100;
const maxMs = 8000;

/** Swarm's back-off of sessions: 100 ms, then 2x + 100 ms, 8 s at most; what is waited is a random part of it. */
export class SessionBackoff {
  readonly #random: Random;
  #ms = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  next(): number {
    this.#ms = Math.min(maxMs, firstMs + 2 * this.#ms);
    return this.#random.float() * this.#ms;
  }

  reset(): void {
    this.#ms = 0;
  }
}
