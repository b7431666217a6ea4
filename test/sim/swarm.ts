/** Lives of whole clusters, one a seed (swarm-run.ts). */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { readFlags, wholeNumber, wrongUse, type Program } from "../support/flags.ts";
import { SwarmRun, type Log, type SwarmResult } from "./swarm-run.ts";

const swarm: Program = {
  name: "swarm",
  usage: `usage: node test/sim/swarm.ts [--seeds N] [--from S] [--workers N] [--log raft|memory]
       node test/sim/swarm.ts --seed S [--log raft|memory]      one life, and what happened in it`,
};

const values = readFlags(swarm, {
  seeds: { type: "string", default: "500" },
  from: { type: "string", default: "1" },
  seed: { type: "string" },
  workers: { type: "string", default: String(availableParallelism()) },
  log: { type: "string", default: "raft" },
});

if (values.log !== "raft" && values.log !== "memory") wrongUse(swarm, `--log is raft or memory, not "${values.log}"`);
const log: Log = values.log;
const number = (flag: "seeds" | "from" | "workers", least: number): number =>
  wholeNumber(swarm, flag, values[flag], least);
const failuresMax = 5;
/** Of real time: a life takes a quarter of a second. */
const lifeMsMax = 60_000;

if (values.seed !== undefined) show(await new SwarmRun(wholeNumber(swarm, "seed", values.seed), log).play());
else await many(number("from", 0), number("seeds", 1), number("workers", 1));

function show(result: SwarmResult): void {
  const { seed, failure, hash, changes, virtualMs, faults } = result;
  console.log(`seed ${seed}: ${changes} changes in ${(virtualMs / 1000).toFixed(1)} s of virtual time, hash ${hash}`);
  console.log(JSON.stringify(faults));
  console.log(failure ?? "passed");
  if (failure !== undefined) process.exitCode = 1;
}

async function many(from: number, count: number, workers: number): Promise<void> {
  const startMs = performance.now();
  const failures: SwarmResult[] = [];
  const acts: Record<string, number> = {};
  let next = from;
  let runs = 0;
  let changes = 0;
  let shownMs = startMs;
  const one = async (): Promise<void> => {
    const worker = new Worker(new URL("./swarm-worker.ts", import.meta.url));
    try {
      while (next < from + count && failures.length < failuresMax) {
        const result = await play(worker, next++);
        runs++;
        changes += result.changes;
        if (performance.now() - shownMs > 10_000) {
          shownMs = performance.now();
          console.log(
            `${((shownMs - startMs) / 1000).toFixed(0).padStart(5)} s: ${runs} lives, ${failures.length} failures`,
          );
        }
        for (const [act, times] of Object.entries(result.faults)) acts[act] = (acts[act] ?? 0) + times;
        if (result.failure === undefined) continue;
        failures.push(result);
        console.log(`FAILED ${result.failure.slice(0, 2000)}`);
      }
    } finally {
      await worker.terminate();
    }
  };
  await Promise.all(Array.from({ length: workers }, one));
  const seconds = (performance.now() - startMs) / 1000;
  console.log(
    `${runs} lives, ${failures.length} failures, ${changes} changes, ${(runs / seconds).toFixed(1)} lives/s, in ${seconds.toFixed(1)} s`,
  );
  console.log(JSON.stringify(acts));
  if (failures.length > 0) process.exitCode = 1;
}

function play(worker: Worker, seed: number): Promise<SwarmResult> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`seed ${seed} does not end`)), lifeMsMax);
    worker.once("error", reject);
    worker.once("message", (result: SwarmResult) => {
      clearTimeout(late);
      worker.off("error", reject);
      resolve(result);
    });
    worker.postMessage({ seed, log }, []);
  });
}
