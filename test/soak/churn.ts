/**
 * `npm run churn -- [--hours 24] [--seed N]`: so many hours of a whole cluster's life in virtual time, with a look at what
 * has grown each hour (test/sim/churn-run.ts). Ends with 1 when anything has. A virtual hour takes some seconds.
 */
import { amount, readFlags, wholeNumber, type Program } from "../support/flags.ts";
import { ChurnRun, growth, type Look } from "../sim/churn-run.ts";

const churn: Program = { name: "churn", usage: "usage: npm run churn -- [--hours 24] [--seed 1]" };
const values = readFlags(churn, {
  hours: { type: "string", default: "24" },
  seed: { type: "string", default: "1" },
});

// Errors that are expected are made by the thousand; their stacks would cost more than they do.
Error.stackTraceLimit = 4;
const startMs = performance.now();
const show = (look: Look): void => {
  const { atMs, heapBytes, snapshotBytes, objects, historyMost, remembered, containers, timers, entries } = look;
  console.log(
    `${(atMs / 3_600_000).toFixed(2).padStart(6)} h  heap ${(heapBytes / 1e6).toFixed(2)} MB  snapshot ${(snapshotBytes / 1000).toFixed(1)} KB  ` +
      `tasks ${objects["task"]}  history ${historyMost}  remembered ${remembered}  containers ${containers}  timers ${timers}  ` +
      `entries ${entries}  after ${((performance.now() - startMs) / 1000).toFixed(0)} s`,
  );
};
const run = new ChurnRun({
  seed: wholeNumber(churn, "seed", values.seed),
  hours: amount(churn, "hours", values.hours),
  lookEveryMs: 3_600_000,
  onLook: show,
});
const { looks, acts, virtualMs } = await run.play();
console.log(JSON.stringify(acts));
const found = growth(looks);
for (const line of found) console.log(`GROWN ${line}`);
console.log(
  `${(virtualMs / 3_600_000).toFixed(1)} virtual hours, ${found.length === 0 ? "nothing has grown" : "FAILED"}`,
);
if (found.length > 0) process.exitCode = 1;
