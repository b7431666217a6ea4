/**
 * Time for everything that waits. Two clocks that must not be mixed up: the monotonic one measures and never goes back;
 * the wall clock dates things for people and may jump. Shells take a Clock; cores take numbers.
 */
import { performance } from "node:perf_hooks";

/** A pending callback; cancelling after it ran, or twice, does nothing. */
export interface Timer extends Disposable {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds (fractional) since an arbitrary moment. Does not count while the machine is suspended. */
  monotonicMs(): number;
  /** Milliseconds since 1970-01-01T00:00:00Z, as the operating system believes. */
  wallMs(): number;
  /** Calls back once after at least `ms`; never before `after` has returned. */
  after(ms: number, callback: () => void): Timer;
  /** Calls back each `ms`, measured from the start: late calls do not add up, and calls missed are not made up for. */
  every(ms: number, callback: () => void): Timer;
}

/** Node's longest timer; it fires longer ones at once. Certificates wait for months. */
const timeoutMaxMs = 0x7fffffff;

class RealClock implements Clock {
  monotonicMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  after(ms: number, callback: () => void): Timer {
    if (Number.isNaN(ms)) throw new RangeError("Cannot wait NaN ms");
    let handle: NodeJS.Timeout;
    const arm = (leftMs: number): void => {
      handle =
        leftMs > timeoutMaxMs
          ? setTimeout(() => arm(leftMs - timeoutMaxMs), timeoutMaxMs)
          : setTimeout(callback, Math.max(0, leftMs));
    };
    arm(ms);
    return timer(() => clearTimeout(handle));
  }

  every(ms: number, callback: () => void): Timer {
    return repeat(this, ms, callback);
  }
}

/** The machine's clocks. */
export const realClock: Clock = new RealClock();

export function timer(cancel: () => void): Timer {
  return { cancel, [Symbol.dispose]: cancel };
}

/** `every` in terms of `after`: the next call stands on the grid of the first one. */
export function repeat(clock: Clock, ms: number, callback: () => void): Timer {
  if (!(ms > 0)) throw new RangeError(`Cannot repeat each ${ms} ms`);
  const startMs = clock.monotonicMs();
  let calls = 0;
  let cancelled = false;
  let pending: Timer;
  const arm = (): void => {
    calls = Math.max(calls + 1, Math.floor((clock.monotonicMs() - startMs) / ms) + 1);
    pending = clock.after(startMs + calls * ms - clock.monotonicMs(), () => {
      try {
        callback();
      } finally {
        if (!cancelled) arm();
      }
    });
  };
  arm();
  return timer(() => {
    cancelled = true;
    pending.cancel();
  });
}

/** Waits; rejects with the signal's reason as soon as it aborts. */
export function sleep(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason as Error);
      return;
    }
    const onAbort = (): void => {
      pending.cancel();
      reject(signal?.reason as Error);
    };
    const pending = clock.after(ms, () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** A signal that aborts at a deadline or with its parent; disposing frees the timer and the link to the parent. */
export interface Deadline extends Disposable {
  readonly signal: AbortSignal;
}

/**
 * @param reason  made when the time is up; the error that every wait under this signal then rejects with
 */
export function deadline(clock: Clock, ms: number, parent: AbortSignal | undefined, reason: () => Error): Deadline {
  const own = new AbortController();
  const onParent = (): void => own.abort(parent?.reason);
  const pending = clock.after(ms, () => {
    parent?.removeEventListener("abort", onParent);
    own.abort(reason());
  });
  if (parent?.aborted === true) own.abort(parent.reason);
  else parent?.addEventListener("abort", onParent, { once: true });
  return {
    signal: own.signal,
    [Symbol.dispose]: () => {
      pending.cancel();
      parent?.removeEventListener("abort", onParent);
    },
  };
}
