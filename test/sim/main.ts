/** `npm run sim -- ...`: the deterministic simulator (docs/design/simulator.md). */
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { pathToFileURL } from "node:url";
import { amount, readFlags, wholeNumber, wrongUse, type Program } from "../support/flags.ts";
import { runMutations } from "./mutation-runner.ts";
import { mutations } from "./mutations.ts";
import { drawOptions, type SimOptions } from "./options.ts";
import { loadRegressions, regressionPath, type Regression } from "./regressions.ts";
import { reportFailure } from "./report.ts";
import { caseOrders, oneAfterTheOther, runOrders, seedOrders, type Totals } from "./runner.ts";
import { schedules } from "./schedules.ts";
import { shrink } from "./shrink.ts";
import { runSimulation } from "./simulation.ts";

const sim: Program = {
  name: "sim",
  usage: `usage: npm run sim -- [--seeds N] [--from S] | --seed S | --minutes M | --case FILE | --mutations

  --seeds N --from S    N seeds (3000) from S (1) upward, with all regressions and scripted schedules before them
  --seed S              one seed, with a report if it fails; --trace prints its events in any case
  --seed S --shrink     makes a failing seed small and stores it under test/sim/regressions/, or in --out FILE
  --minutes M --from S  seeds without end for so long; the marks must then all be reached
  --case FILE           runs the options in a file that --shrink has stored
  --mutations           plants each known bug in turn and demands that it is found; --only WORD, --record
  --marks               prints how often each rare event was reached
  --workers N           threads; default: one a core
  --help`,
};

const values = readFlags(sim, {
  seeds: { type: "string", default: "3000" },
  from: { type: "string", default: "1" },
  seed: { type: "string" },
  case: { type: "string" },
  shrink: { type: "boolean", default: false },
  out: { type: "string" },
  trace: { type: "boolean", default: false },
  minutes: { type: "string" },
  marks: { type: "boolean", default: false },
  mutations: { type: "boolean", default: false },
  only: { type: "string" },
  record: { type: "boolean", default: false },
  workers: { type: "string" },
});

const { only } = values;
const workers = values.workers === undefined ? availableParallelism() : wholeNumber(sim, "workers", values.workers, 1);
const from = wholeNumber(sim, "from", values.from);
const count = wholeNumber(sim, "seeds", values.seeds, 1);
const minutes = values.minutes === undefined ? undefined : amount(sim, "minutes", values.minutes);
if (values.mutations && only !== undefined && !mutations.some(({ name }) => name.includes(only))) {
  wrongUse(sim, `no planted bug has "${only}" in its name`);
}

if (values.mutations) process.exitCode = await runMutations({ only, record: values.record, workers });
else if (values.case !== undefined) replay(storedCase(values.case));
else if (values.seed !== undefined) replay(drawOptions(wholeNumber(sim, "seed", values.seed)));
else await many();

function storedCase(file: string): SimOptions {
  try {
    const { options } = JSON.parse(readFileSync(file, "utf8")) as Partial<Regression>;
    if (options !== undefined) return options;
  } catch (error) {
    return wrongUse(sim, `cannot read --case ${file}: ${(error as Error).message}`);
  }
  return wrongUse(sim, `${file} holds no options of a run`);
}

function replay(options: SimOptions): void {
  const startMs = performance.now();
  const result = runSimulation(options);
  const ms = performance.now() - startMs;
  if (values.trace) console.log(runSimulation(options, { trace: true, traceMax: 100_000 }).trace.join("\n"));
  console.log(
    `seed ${options.seed}: ${result.coreEvents} core events, ${result.events} events, ${result.operations} operations, ` +
      `${(result.virtualUs / 1e6).toFixed(2)} s of virtual time in ${ms.toFixed(0)} ms, trace ${result.traceHash}`,
  );
  if (values.marks) console.log(JSON.stringify(result.marks, undefined, 2));
  if (result.failure === undefined) {
    console.log("passed");
    return;
  }
  process.exitCode = 1;
  if (!values.shrink) {
    console.log(reportFailure(result));
    return;
  }
  const shrunk = shrink(options, (candidate) => runSimulation(candidate).failure?.check);
  if (shrunk === undefined) throw new Error("the seed failed once and then passed: it is not deterministic");
  console.log(`smallest of ${shrunk.runs} runs:`);
  console.log(reportFailure(runSimulation(shrunk.options)));
  const path = values.out === undefined ? regressionPath(shrunk.check, options.seed) : pathToFileURL(values.out);
  const regression: Regression = {
    name: `${shrunk.check} seed ${options.seed}`,
    check: shrunk.check,
    options: shrunk.options,
  };
  writeFileSync(path, `${JSON.stringify(regression, undefined, 2)}\n`);
  console.log(`stored as ${path.pathname}`);
}

async function many(): Promise<void> {
  const startMs = performance.now();
  const seconds = (): number => (performance.now() - startMs) / 1_000;
  // A long run goes on after a failure: it has time to tell whether there is more than one cause.
  const failuresMax = minutes === undefined ? 5 : 100;
  let shownMs = startMs;
  const rates = (totals: Totals): string =>
    `${totals.runs} runs, ${totals.failures.length} failures, ${(totals.runs / seconds()).toFixed(1)} seeds/s, ` +
    `${Math.round(totals.coreEvents / seconds())} core events/s, ${Math.round(totals.events / seconds())} events/s`;
  const told = new Set<string>();
  const onProgress = (totals: Totals): void => {
    for (const { name, result } of totals.failures) {
      if (!told.has(name)) console.log(`FAILED ${name}: ${result.failure?.message.slice(0, 400)}`);
      told.add(name);
    }
    if (performance.now() - shownMs < 10_000) return;
    shownMs = performance.now();
    console.log(`${seconds().toFixed(0).padStart(5)} s: ${rates(totals)}`);
  };
  let totals: Totals;
  if (minutes === undefined) {
    const regressions = loadRegressions().map(({ name, options }) => ({ name, options }));
    const scripted = schedules();
    console.log(`${regressions.length} regressions and ${scripted.length} scripted schedules before ${count} seeds`);
    const fixed = caseOrders([...regressions, ...scripted]);
    // By the same threads: what they have compiled for the first serves the others.
    totals = await runOrders(oneAfterTheOther(fixed, seedOrders(from, count)), { workers, failuresMax, onProgress });
  } else {
    const signal = AbortSignal.timeout(minutes * 60_000);
    totals = await runOrders(seedOrders(from, Number.MAX_SAFE_INTEGER - from), {
      workers,
      failuresMax,
      signal,
      onProgress,
    });
  }
  console.log(`${rates(totals)}, ${totals.operations} operations, in ${seconds().toFixed(1)} s`);
  if (values.marks || minutes !== undefined) console.log(totals.marks.table());
  for (const { name, result } of totals.failures) {
    console.log(`\n=== ${name} failed`);
    console.log(reportFailure(result));
  }
  if (totals.failures.length > 0) process.exitCode = 1;
  const missing = minutes === undefined ? [] : totals.marks.missing();
  if (missing.length > 0) {
    console.log(`marks reached too rarely: ${missing.join(", ")}`);
    process.exitCode = 1;
  }
}
