/**
 * Runs the loops that only a leader runs: from when this member has applied everything before its term until it steps
 * down. Loops keep nothing that the next leader would need; what they have in flight is the store's to settle.
 */
import type { Leadership } from "./store/index.ts";

export interface Loop {
  /** Does no I/O by itself: it opens watches, and goes on when they have something. */
  start(): void;
  /** At once, and for good until the next start; twice is fine. */
  stop(): void;
}

export interface LeadershipSource {
  leadership(): Leadership;
  onLeadership(listener: (leadership: Leadership) => void): () => void;
}

export class LeaderLoops implements AsyncDisposable {
  readonly #loops: readonly Loop[];
  readonly #source: LeadershipSource;
  #unsubscribe: (() => void) | undefined;
  /** The term in which the loops run. */
  #term: number | undefined;

  /** @param loops  started in this order, stopped in the reverse */
  constructor(source: LeadershipSource, loops: readonly Loop[]) {
    this.#source = source;
    this.#loops = loops;
  }

  open(): void {
    this.#unsubscribe ??= this.#source.onLeadership((now) => this.#follow(now));
    this.#follow(this.#source.leadership());
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    this.#stop();
    return Promise.resolve();
  }

  #follow({ leading, term }: Leadership): void {
    if (leading && this.#term === term) return;
    this.#stop();
    if (!leading) return;
    this.#term = term;
    for (const loop of this.#loops) loop.start();
  }

  #stop(): void {
    if (this.#term === undefined) return;
    this.#term = undefined;
    for (const loop of this.#loops.toReversed()) loop.stop();
  }
}
