/** Which manager an agent turns to, and how long it waits before the next try. */
import type { Random } from "../../../lib/pure/prng.ts";

/** The managers that an agent knows of. The list is never empty: what was given at the start stays a last resort. */
export class ManagerChoice {
  readonly #random: Random;
  readonly #first: readonly string[];
  #known: readonly string[];
  /** By when they failed, the longest ago first. */
  readonly #failed = new Set<string>();
  /** Not there when they were tried, in this round. */
  readonly #absent = new Set<string>();
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
    for (const address of this.#failed)
      if (!this.#known.includes(address) && !this.#first.includes(address)) this.#failed.delete(address);
  }

  /** Somebody said who leads: it is asked next, once. */
  redirect(leader: string): void {
    this.#leader = leader === "" ? undefined : leader;
  }

  succeeded(address: string): void {
    this.#failed.delete(address);
    this.#absent.clear();
  }

  failed(address: string): void {
    this.#failed.delete(address);
    this.#failed.add(address);
    if (this.#leader === address) this.#leader = undefined;
  }

  /** It is not there. @returns whether somebody is left in this round; otherwise the next round begins */
  absent(address: string): boolean {
    this.failed(address);
    this.#absent.add(address);
    const isAnyLeft = this.#all().some((each) => !this.#absent.has(each));
    if (!isAnyLeft) this.#absent.clear();
    return isAnyLeft;
  }

  /**
   * The leader, if one is known and not tried since; otherwise anyone who has not failed; otherwise whoever failed the
   * longest ago, so that the one manager that is up is found within one round.
   */
  next(): string | undefined {
    if (this.#leader !== undefined) {
      const leader = this.#leader;
      this.#leader = undefined;
      return leader;
    }
    const fresh = this.#all().filter((address) => !this.#failed.has(address));
    if (fresh.length > 0) return this.#random.pick(fresh);
    for (const address of this.#failed) return address;
    return undefined;
  }

  #all(): readonly string[] {
    return [...new Set([...this.#known, ...this.#first])];
  }
}

const firstMs = 100;
const maxMs = 8000;

/**
 * Swarm's back-off of sessions: 100 ms, then 2x + 100 ms, 8 s at most; what is waited is a random part of it. Not as in Swarm,
 * a manager that is not there makes way for the next one after a random part of 100 ms: of five of which one is up, the last
 * tried would else be reached after half a minute.
 */
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

  /** Between two managers of a round. */
  brief(): number {
    return this.#random.float() * firstMs;
  }

  reset(): void {
    this.#ms = 0;
  }
}
