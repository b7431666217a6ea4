/**
 * Many small changes become few entries of the log: what comes in the same moment, or while an entry is under way, goes
 * into the next one. The newest change of a key replaces the one that waits.
 */
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { Backpressure, Conflict, EntryTooLarge, type ClusterSchema, type Store, type Tx } from "../store/index.ts";

export interface BatchWriterOptions<T> {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly cause: string;
  /** Changes of one entry. */
  readonly entryMax: number;
  readonly apply: (tx: Tx<ClusterSchema>, key: string, change: T) => void;
  /** It is committed, or nothing had to be changed. */
  readonly done: (key: string, change: T) => void;
  /** Both wait for the same key: what is to be written. */
  readonly merge: (older: T, newer: T) => T;
}

const retryMs = 1000;
/**
 * Entries under way at once. More would not be faster, and whoever else writes would wait behind them; what comes meanwhile
 * is merged.
 */
const inFlightMax = 4;

export class BatchWriter<T> {
  readonly #options: BatchWriterOptions<T>;
  readonly #waiting = new Map<string, T>();
  #inFlight = 0;
  #timer: Timer | undefined;
  #isFlushing = false;
  /** Entries of this round that are still to be put together. */
  #entriesLeft = 0;
  #entryMax: number;
  /** Changes with each stop, so that what was under way before is not heard any more. */
  #life = 0;

  constructor(options: BatchWriterOptions<T>) {
    this.#options = options;
    this.#entryMax = options.entryMax;
  }

  get size(): number {
    return this.#waiting.size;
  }

  add(key: string, change: T): void {
    const before = this.#waiting.get(key);
    this.#waiting.set(key, before === undefined ? change : this.#options.merge(before, change));
    this.#soon(0);
  }

  /** Forgets what waits; what is under way may still be committed. */
  clear(): void {
    this.#life++;
    this.#waiting.clear();
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#inFlight = 0;
    this.#entriesLeft = 0;
  }

  /** At once means with all that comes in the same moment; what comes while that is under way is gathered. */
  #soon(ms: number): void {
    if (
      this.#timer !== undefined ||
      this.#isFlushing ||
      this.#inFlight + this.#entriesLeft > 0 ||
      this.#waiting.size === 0
    )
      return;
    if (ms === 0) {
      this.#isFlushing = true;
      queueMicrotask(() => {
        this.#isFlushing = false;
        this.#flush();
      });
      return;
    }
    this.#timer = this.#options.clock.after(ms, () => {
      this.#timer = undefined;
      this.#flush();
    });
  }

  #flush(): void {
    this.#entriesLeft = inFlightMax;
    this.#flushOne();
  }

  /** One entry a turn: to put four of them together takes as long as a heartbeat may be late. */
  #flushOne(): void {
    if (this.#entriesLeft === 0 || this.#waiting.size === 0) {
      this.#entriesLeft = 0;
      return;
    }
    this.#entriesLeft--;
    const part: (readonly [string, T])[] = [];
    for (const each of this.#waiting) {
      part.push(each);
      this.#waiting.delete(each[0]);
      if (part.length >= this.#entryMax) break;
    }
    this.#commit(part);
    if (this.#entriesLeft === 0 || this.#waiting.size === 0) {
      this.#entriesLeft = 0;
      return;
    }
    const life = this.#life;
    this.#options.clock.after(0, () => {
      if (life === this.#life) this.#flushOne();
    });
  }

  #commit(part: readonly (readonly [string, T])[]): void {
    const { store, apply, cause, done, logger } = this.#options;
    const life = this.#life;
    this.#inFlight++;
    const change = (tx: Tx<ClusterSchema>): void => {
      for (const [key, each] of part) apply(tx, key, each);
    };
    store.transact(change, { actor: "dispatcher", cause }, (outcome) => {
      if (life !== this.#life) return;
      this.#inFlight--;
      if (outcome.kind === "committed") {
        for (const [key, each] of part) done(key, each);
        return this.#soon(0);
      }
      const { error } = outcome;
      if (error instanceof EntryTooLarge && part.length > 1) {
        const half = Math.ceil(part.length / 2);
        this.#commit(part.slice(0, half));
        return this.#commit(part.slice(half));
      }
      // What came meanwhile is newer.
      for (const [key, each] of part) {
        const newer = this.#waiting.get(key);
        this.#waiting.set(key, newer === undefined ? each : this.#options.merge(each, newer));
      }
      if (error instanceof Conflict) return this.#soon(0);
      if (error instanceof Backpressure) return this.#soon(error.retryAfterMs);
      logger.warn("could not be committed; tried again soon", { cause, changes: part.length, error });
      this.#soon(retryMs);
    });
  }
}
