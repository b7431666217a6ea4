/**
 * The time line of one leader: microseconds near the log's time, counted by the monotonic clock. A wall clock that jumps
 * neither ends a delay nor makes it an hour long, and whoever leads next starts no earlier than the log has come.
 */
import type { Clock } from "../../lib/runtime/index.ts";

export class LeaderTime {
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #startUs: number;

  constructor(clock: Clock, logTimeUs: number) {
    this.#clock = clock;
    this.#startMs = clock.monotonicMs();
    this.#startUs = Math.max(logTimeUs, Math.floor(clock.wallMs() * 1000));
  }

  nowUs(): number {
    return this.#startUs + Math.floor((this.#clock.monotonicMs() - this.#startMs) * 1000);
  }
}
