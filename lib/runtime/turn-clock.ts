/**
 * Several rooms that each take up their work where they left it, "in a turn of its own", would all do so in the same one: an
 * event loop runs all timers that are due before it reads from a socket. Here those calls share turns of a bounded length.
 */
import { performance } from "node:perf_hooks";

import { timer, type Clock, type Timer } from "./clock.ts";

/** Of one turn: as many calls as begin within it. */
const turnMs = 8;

export class TurnClock implements Clock {
  readonly #clock: Clock;
  readonly #defer: (act: () => void) => void;
  readonly #nowMs: () => number;
  #waiting: ((() => void) | undefined)[] = [];
  /** Where they begin: what is before has been called. */
  #next = 0;
  #isDue = false;

  /**
   * @param clock  for everything that has a time
   * @param defer  calls back after what has come by now was read
   */
  constructor(
    clock: Clock,
    defer: (act: () => void) => void = setImmediate,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#clock = clock;
    this.#defer = defer;
    this.#nowMs = nowMs;
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  wallMs(): number {
    return this.#clock.wallMs();
  }

  /** Those without a time are called in their order. */
  after(ms: number, callback: () => void): Timer {
    if (!(ms <= 0)) return this.#clock.after(ms, callback);
    let waits: (() => void) | undefined = callback;
    this.#waiting.push(() => {
      const act = waits;
      waits = undefined;
      act?.();
    });
    this.#soon();
    return timer(() => (waits = undefined));
  }

  every(ms: number, callback: () => void): Timer {
    return this.#clock.every(ms, callback);
  }

  #soon(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    this.#defer(this.#turn);
  }

  readonly #turn = (): void => {
    this.#isDue = false;
    // What comes during the turn is for the next one.
    const end = this.#waiting.length;
    const untilMs = this.#nowMs() + turnMs;
    try {
      do {
        const act = this.#waiting[this.#next];
        this.#waiting[this.#next++] = undefined;
        act?.();
      } while (this.#next < end && this.#nowMs() < untilMs);
    } finally {
      if (this.#next === this.#waiting.length) {
        this.#waiting = [];
        this.#next = 0;
      } else {
        if (this.#next > 1024) {
          this.#waiting.splice(0, this.#next);
          this.#next = 0;
        }
        this.#soon();
      }
    }
  };
}
