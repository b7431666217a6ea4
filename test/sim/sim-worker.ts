/**
 * One thread of the runner: runs seeds or whole cases and answers with sums. With `mutation` in its data, the source of
 * the program under test is changed while it is imported, in this thread only.
 */
import { parentPort, workerData } from "node:worker_threads";
import { mutations, plantMutation } from "./mutations.ts";
import type { RunResult } from "./result.ts";
import type { SimOptions } from "./options.ts";

export type Order =
  | { readonly kind: "seeds"; readonly from: number; readonly count: number }
  | { readonly kind: "cases"; readonly cases: readonly { readonly name: string; readonly options: SimOptions }[] };

export interface Batch {
  readonly runs: number;
  readonly coreEvents: number;
  readonly events: number;
  readonly operations: number;
  readonly marks: Readonly<Record<string, number>>;
  readonly failures: readonly { readonly name: string; readonly result: RunResult }[];
}

const port = parentPort;
if (port === null) throw new Error("sim-worker.ts runs as a worker thread");

const planted = (workerData as { mutation?: string } | null)?.mutation;
if (planted !== undefined) {
  const mutation = mutations.find((candidate) => candidate.name === planted);
  if (mutation === undefined) throw new Error(`No mutation is called "${planted}"`);
  plantMutation(mutation);
}
// Imported only now, so that the planted change is in what they import.
const { runSimulation } = await import("./simulation.ts");
const { drawOptions } = await import("./options.ts");

/** Of this share of the seeds, each is run twice, and the traces are compared (N1). */
const doubledEvery = 100;

port.on("message", (order: Order) => port.postMessage(execute(order)));

function execute(order: Order): Batch {
  const sums = { runs: 0, coreEvents: 0, events: 0, operations: 0 };
  const marks: Record<string, number> = {};
  const failures: { name: string; result: RunResult }[] = [];
  const add = (name: string, result: RunResult): void => {
    sums.runs++;
    sums.coreEvents += result.coreEvents;
    sums.events += result.events;
    sums.operations += result.operations;
    for (const [mark, count] of Object.entries(result.marks)) marks[mark] = (marks[mark] ?? 0) + count;
    if (result.failure !== undefined) failures.push({ name, result });
  };
  if (order.kind === "cases") {
    for (const { name, options } of order.cases) add(name, runSimulation(options));
    return { ...sums, marks, failures };
  }
  for (let seed = order.from; seed < order.from + order.count; seed++) {
    const options = drawOptions(seed);
    const result = runSimulation(options);
    add(`seed ${seed}`, result);
    if (seed % doubledEvery !== 0) continue;
    const again = runSimulation(options);
    if (again.traceHash !== result.traceHash) {
      const failure = { check: "N1", message: "N1: two runs of one seed differ", stack: "" };
      failures.push({ name: `seed ${seed}`, result: { ...again, failure } });
    }
  }
  return { ...sums, marks, failures };
}
