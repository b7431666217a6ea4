/** Runs many seeds or cases over worker threads and sums up what they say. */
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import { Marks } from "./marks.ts";
import type { Batch, Order } from "./sim-worker.ts";

export interface Totals {
  runs: number;
  coreEvents: number;
  events: number;
  operations: number;
  readonly marks: Marks;
  readonly failures: Batch["failures"][number][];
}

export interface RunnerOptions {
  readonly workers: number;
  /** Name of the bug to plant in the program under test. */
  readonly mutation?: string;
  /** Stop after this many failures. */
  readonly failuresMax: number;
  readonly signal?: AbortSignal;
  /** Called after each batch. */
  readonly onProgress?: (totals: Totals) => void;
}

/** A thread spends seconds of its first hundred runs on compiling, and on slow code that waits for it: all is used again. */
const soonCompiled = ["no-lazy-feedback-allocation", "always-sparkplug"];

/**
 * For workers yet to start. A run lives for 40 ms and leaves nothing: a young generation that holds several runs copies
 * little, and since every core has a worker of its own, helpers that collect side by side would only take turns with them.
 */
function tuneV8(): void {
  for (const flag of ["min-semi-space-size=64", "max-semi-space-size=64", "no-parallel-scavenge", ...soonCompiled]) {
    setFlagsFromString(`--${flag}`);
  }
}

/** @param orders  taken one by one until they end, or until there are failures enough */
export async function runOrders(orders: Iterator<Order>, options: RunnerOptions): Promise<Totals> {
  tuneV8();
  const totals: Totals = { runs: 0, coreEvents: 0, events: 0, operations: 0, marks: new Marks(), failures: [] };
  const isOver = (): boolean => totals.failures.length >= options.failuresMax || options.signal?.aborted === true;
  const one = async (): Promise<void> => {
    const worker = new Worker(new URL("./sim-worker.ts", import.meta.url), {
      workerData: options.mutation === undefined ? {} : { mutation: options.mutation },
    });
    try {
      for (;;) {
        if (isOver()) return;
        const next = orders.next();
        if (next.done === true) return;
        const batch = await ask(worker, next.value, options.signal);
        if (batch === undefined) return;
        totals.runs += batch.runs;
        totals.coreEvents += batch.coreEvents;
        totals.events += batch.events;
        totals.operations += batch.operations;
        totals.marks.addAll(batch.marks);
        totals.failures.push(...batch.failures);
        options.onProgress?.(totals);
      }
    } finally {
      await worker.terminate();
    }
  };
  await Promise.all(Array.from({ length: options.workers }, one));
  return totals;
}

function ask(worker: Worker, order: Order, signal: AbortSignal | undefined): Promise<Batch | undefined> {
  return new Promise((resolve, reject) => {
    const clear = (): void => {
      worker.off("message", onMessage);
      worker.off("error", onError);
      signal?.removeEventListener("abort", onAbort);
    };
    const onMessage = (batch: Batch): void => {
      clear();
      resolve(batch);
    };
    const onError = (error: Error): void => {
      clear();
      reject(error);
    };
    const onAbort = (): void => {
      clear();
      resolve(undefined);
    };
    worker.once("message", onMessage);
    worker.once("error", onError);
    signal?.addEventListener("abort", onAbort, { once: true });
    worker.postMessage(order, []);
  });
}

/** Seeds from `from` upward in small batches, `count` of them or without end. */
export function* seedOrders(from: number, count: number, size = 10): Iterator<Order> {
  for (let seed = from; seed < from + count; seed += size) {
    yield { kind: "seeds", from: seed, count: Math.min(size, from + count - seed) };
  }
}

export function* caseOrders(
  cases: readonly Extract<Order, { kind: "cases" }>["cases"][number][],
  size = 10,
): Iterator<Order> {
  for (let at = 0; at < cases.length; at += size) yield { kind: "cases", cases: cases.slice(at, at + size) };
}

/** All of the first source, then all of the next. */
export function* oneAfterTheOther(...sources: readonly Iterator<Order>[]): Iterator<Order> {
  for (const source of sources)
    for (let next = source.next(); next.done !== true; next = source.next()) yield next.value;
}
