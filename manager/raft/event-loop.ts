/**
 * Watches how long the event loop takes for a turn (raft.md §3.3 rule 5): a loop that is late sends heartbeats late.
 * One stall of more than half an election timeout is counted and told with its likely cause; three windows of ten seconds
 * with such stalls make a leader hand over.
 */
import { PerformanceObserver, monitorEventLoopDelay } from "node:perf_hooks";

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
/** Like the ticks: with the 5 ms of the page an idle process woke 200 times a second for nothing else (docs/benchmarks.md). */
const resolutionMs = 25;
const sickWindowsMax = 3;

export class EventLoopMonitor implements Disposable {
  readonly #delay: ReturnType<typeof monitorEventLoopDelay>;
  readonly #gc: PerformanceObserver;
  readonly #timer: Timer;
  #gcMaxMs = 0;
  #gcCount = 0;
  #sickWindows = 0;
  /** Of the window before this one. */
  #last: LoopWindow = { p50Ms: 0, p99Ms: 0, maxMs: 0, gcMaxMs: 0, gcCount: 0 };

  /**
   * @param limits   a window with a longer stall than `stallMs`, or a p99 above `lateMs`, is sick
   * @param onSick   told of each sick window; `repeated` from the third in a row on
   */
  constructor(
    clock: Clock,
    limits: { readonly stallMs: number; readonly lateMs: number },
    onSick: (window: LoopWindow, repeated: boolean) => void,
  ) {
    this.#delay = monitorEventLoopDelay({ resolution: resolutionMs });
    this.#delay.enable();
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

  /** The window that is running and the one before it, whichever was worse. */
  get recent(): LoopWindow {
    const now = this.#read();
    return now.maxMs > this.#last.maxMs ? now : this.#last;
  }

  [Symbol.dispose](): void {
    this.#timer.cancel();
    this.#gc.disconnect();
    this.#delay.disable();
  }

  /** The histogram measures the distance between two of its own timers, so its resolution is taken off. */
  #read(): LoopWindow {
    const ms = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - resolutionMs);
    return {
      p50Ms: ms(this.#delay.percentile(50)),
      p99Ms: ms(this.#delay.percentile(99)),
      maxMs: ms(this.#delay.max),
      gcMaxMs: this.#gcMaxMs,
      gcCount: this.#gcCount,
    };
  }

  #close(): LoopWindow {
    this.#last = this.#read();
    this.#delay.reset();
    this.#gcMaxMs = 0;
    this.#gcCount = 0;
    return this.#last;
  }
}
