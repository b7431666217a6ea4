/**
 * A clock that moves only when told: tests and the simulator own time. Callbacks run in order of their time, then of
 * their making, so that one seed gives one history.
 */
import { setImmediate as nextLoopTurn } from "node:timers/promises";

import { Heap } from "../pure/heap.ts";
import { repeat, timer, type Clock, type Timer } from "./clock.ts";

interface Alarm {
  readonly atMs: number;
  readonly number: number;
  callback: (() => void) | undefined;
}

export class VirtualClock implements Clock {
  readonly #alarms = new Heap<Alarm>((a, b) => a.atMs < b.atMs || (a.atMs === b.atMs && a.number < b.number));
  #nowMs = 0;
  #wallOffsetMs: number;
  #made = 0;
  #pending = 0;

  /** @param wallMs  what the wall clock shows at the start */
  constructor(wallMs = Date.UTC(2026, 0, 1)) {
    this.#wallOffsetMs = wallMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs + this.#wallOffsetMs;
  }

  after(ms: number, callback: () => void): Timer {
    if (Number.isNaN(ms)) throw new RangeError("Cannot wait NaN ms");
    const alarm: Alarm = { atMs: this.#nowMs + Math.max(0, ms), number: this.#made++, callback };
    this.#alarms.push(alarm);
    this.#pending++;
    return timer(() => {
      if (alarm.callback === undefined) return;
      alarm.callback = undefined;
      this.#pending--;
    });
  }

  every(ms: number, callback: () => void): Timer {
    return repeat(this, ms, callback);
  }

  /** Timers that would still fire. */
  get pending(): number {
    return this.#pending;
  }

  /** When the next timer is due, on the monotonic clock. */
  get nextMs(): number | undefined {
    for (let first = this.#alarms.peek(); first !== undefined; first = this.#alarms.peek()) {
      if (first.callback !== undefined) return first.atMs;
      this.#alarms.pop();
    }
    return undefined;
  }

  /** Moves time on and runs what falls due, without giving promises a turn in between. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (let next = this.nextMs; next !== undefined && next <= untilMs; next = this.nextMs) this.#fire(next);
    this.#nowMs = untilMs;
  }

  /** As `advance`, but everything that a callback has woken runs until it waits again before the next timer fires. */
  async run(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await nextLoopTurn();
    for (let next = this.nextMs; next !== undefined && next <= untilMs; next = this.nextMs) {
      this.#fire(next);
      await nextLoopTurn();
    }
    this.#nowMs = untilMs;
  }

  /** Sets the wall clock forward or back; the monotonic one does not notice. */
  jumpWall(ms: number): void {
    this.#wallOffsetMs += ms;
  }

  #fire(atMs: number): void {
    const alarm = this.#alarms.pop();
    const callback = alarm?.callback;
    if (alarm === undefined || callback === undefined) return;
    this.#nowMs = Math.max(this.#nowMs, atMs);
    alarm.callback = undefined;
    this.#pending--;
    callback();
  }
}
