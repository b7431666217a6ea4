/**
 * Memory of a process that has little to do. V8 collects when it needs room, and one at rest needs none: what its start
 * allocated stays for hours, and so does the room for new objects that it took.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import type { Clock, Timer } from "./clock.ts";

/** After a start: joining and the first tasks are over then. */
const firstMs = 30_000;
const everyMs = 10 * 60_000;
/** A collection stops the process for about as many milliseconds; with more than this V8 has reasons to collect by itself. */
const megabytesMax = 48;

/** Collects now and then while there is little to collect. */
export function collectAtRest(clock: Clock): Timer {
  let collect: (() => void) | undefined;
  let next: Timer;
  const act = (): void => {
    if (process.memoryUsage().heapUsed <= megabytesMax * 1e6) (collect ??= collector())();
    next = clock.after(everyMs, act);
  };
  next = clock.after(firstMs, act);
  return { cancel: () => next.cancel(), [Symbol.dispose]: () => next.cancel() };
}

/** Node gives this out on a flag of its start only, or so. */
function collector(): () => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as () => void;
}
