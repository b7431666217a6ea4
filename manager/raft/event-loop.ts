/**
 * Watches how late the event loop is (raft.md §3.3 rule 5): a loop that is late sends heartbeats late. It asks at the ticks
 * of raft, which are there anyway: a histogram of Node's own wakes an idle process for itself (at 5 ms 200 times a second,
 * for 4 ms of processor time), and tells nothing of use that the ticks do not.
 * One stall of more than half an election timeout is counted and told with its likely cause; three windows of ten seconds
 * with such stalls make a leader hand over.
 */
import { PerformanceObserver } from "node:perf_hooks";

import type { Clock, Timer } from "../../lib/runtime/index.ts";

export interface LoopWindow {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Longest pause for garbage collection, and how many there were. */
  readonly gcMaxMs: number;
  readonly gcCount: number;
}

const windowMs = 10_000;
const sickWindowsMax = 3;

export class EventLoopMonitor implements Disposable {
  /** How late each tick of this window was, in milliseconds; some hundreds. */
  #late: number[] = [];
  readonly #clock: Clock;
  readonly #tickMs: number;
  #lastTickMs: number;
  readonly #gc: PerformanceObserver;
  readonly #timer: Timer;
  #gcMaxMs = 0;
  #gcCount = 0;
  #sickWindows = 0;
  /** Of the window before this one. */
  #last: LoopWindow = { p50Ms: 0, p99Ms: 0, maxMs: 0, gcMaxMs: 0, gcCount: 0 };

  /**
   * @param tickMs   how often `tick()` is to be called
   * @param limits   a window with a longer stall than `stallMs`, or a p99 above `lateMs`, is sick
   * @param onSick   told of each sick window; `repeated` from the third in a row on
   */
  constructor(
    clock: Clock,
    tickMs: number,
    limits: { readonly stallMs: number; readonly lateMs: number },
    onSick: (window: LoopWindow, repeated: boolean) => void,
  ) {
    this.#clock = clock;
    this.#tickMs = tickMs;
    this.#lastTickMs = clock.monotonicMs();
    this.#gc = new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) {
        this.#gcMaxMs = Math.max(this.#gcMaxMs, duration);
        this.#gcCount++;
      }
    });
    this.#gc.observe({ entryTypes: ["gc"] });
    this.#timer = clock.every(windowMs, () => {
      const window = this.#close();
      const sick = window.maxMs > limits.stallMs;
      this.#sickWindows = sick ? this.#sickWindows + 1 : 0;
      if (sick || window.p99Ms > limits.lateMs) onSick(window, this.#sickWindows >= sickWindowsMax);
    });
  }

  /** To be called from a timer `plannedMs` after the last call: how much later it comes is how late the loop is. */
  tick(plannedMs = this.#tickMs): void {
    const nowMs = this.#clock.monotonicMs();
    this.#late.push(Math.max(0, nowMs - this.#lastTickMs - plannedMs));
    this.#lastTickMs = nowMs;
  }

  /** The window that is running and the one before it, whichever was worse. */
  get recent(): LoopWindow {
    const now = this.#read();
    return now.maxMs > this.#last.maxMs ? now : this.#last;
  }

  [Symbol.dispose](): void {
    this.#timer.cancel();
    this.#gc.disconnect();
  }

  #read(): LoopWindow {
    const sorted = this.#late.toSorted((a, b) => a - b);
    const atMost = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
    return {
      p50Ms: atMost(0.5),
      p99Ms: atMost(0.99),
      maxMs: atMost(1),
      gcMaxMs: this.#gcMaxMs,
      gcCount: this.#gcCount,
    };
  }

  #close(): LoopWindow {
    this.#last = this.#read();
    this.#late = [];
    this.#gcMaxMs = 0;
    this.#gcCount = 0;
    return this.#last;
  }
}
