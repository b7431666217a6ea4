/**
 * Plants each known bug in turn and looks how long it survives (N12): first the runs that are known to kill it, then the
 * scripted schedules, then seeds, until one fails or a minute is over.
 */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { mutations, mutatedSource, type Mutation } from "./mutations.ts";
import { drawOptions, type SimOptions } from "./options.ts";
import { loadRegressions } from "./regressions.ts";
import { caseOrders, runOrders, seedOrders } from "./runner.ts";
import { schedules } from "./schedules.ts";
import type { Order } from "./sim-worker.ts";

const survivesMs = 60_000;

/** By the name of the mutation, the name of the run that killed it last time; only an order of trying. */
const killsPath = new URL("./mutation-kills.json", import.meta.url);

export interface MutationOptions {
  readonly only: string | undefined;
  readonly workers: number;
  /** Write down which runs killed. */
  readonly record: boolean;
}

interface Verdict {
  readonly mutation: Mutation;
  readonly killer: string | undefined;
  readonly message: string;
  readonly runs: number;
  readonly ms: number;
}

/** @returns the exit code: 1 if one survived */
export async function runMutations(options: MutationOptions): Promise<number> {
  const wanted = mutations.filter(({ name }) => options.only === undefined || name.includes(options.only));
  // All of them must fit the source before the first is tried.
  for (const mutation of wanted) mutatedSource(mutation);
  const kills = JSON.parse(readFileSync(killsPath, "utf8")) as Record<string, string>;
  const verdicts: Verdict[] = [];
  const queue = [...wanted];
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: options.workers }, async () => {
      for (let mutation = queue.shift(); mutation !== undefined; mutation = queue.shift()) {
        verdicts.push(await hunt(mutation, kills[mutation.name]));
      }
    }),
  );
  verdicts.sort((a, b) => mutations.indexOf(a.mutation) - mutations.indexOf(b.mutation));
  const width = Math.max(...verdicts.map(({ mutation }) => mutation.name.length));
  for (const { mutation, killer, message, runs, ms } of verdicts) {
    const how = killer === undefined ? "SURVIVED" : `${message.slice(0, 60).padEnd(60)} ${killer}`;
    console.log(
      `${mutation.name.padEnd(width)} ${String(runs).padStart(6)} runs ${(ms / 1000).toFixed(1).padStart(5)} s  ${how}`,
    );
  }
  const survivors = verdicts.filter(({ killer }) => killer === undefined);
  console.log(
    `${verdicts.length - survivors.length} of ${verdicts.length} planted bugs were found in ${((performance.now() - startMs) / 1000).toFixed(1)} s`,
  );
  if (options.record) {
    for (const { mutation, killer } of verdicts) if (killer !== undefined) kills[mutation.name] = killer;
    const sorted = Object.fromEntries(Object.entries(kills).sort(([a], [b]) => (a < b ? -1 : 1)));
    writeFileSync(killsPath, `${JSON.stringify(sorted, undefined, 2)}\n`);
  }
  return survivors.length === 0 ? 0 : 1;
}

async function hunt(mutation: Mutation, known: string | undefined): Promise<Verdict> {
  const startMs = performance.now();
  const signal = AbortSignal.timeout(survivesMs);
  let runs = 0;
  const search = async (orders: Iterator<Order>): Promise<Verdict | undefined> => {
    const totals = await runOrders(orders, { workers: 1, mutation: mutation.name, failuresMax: 1, signal });
    runs += totals.runs;
    const killed = totals.failures[0];
    if (killed === undefined) return undefined;
    const message = killed.result.failure?.message ?? "";
    return { mutation, killer: killed.name, message, runs, ms: performance.now() - startMs };
  };
  const again = known === undefined || known === mutation.test ? undefined : await search(knownCase(known));
  if (again !== undefined) return again;
  if (mutation.test !== undefined) {
    const failed = await runTests(mutation.name, mutation.test);
    if (failed !== undefined) {
      return { mutation, killer: mutation.test, message: failed, runs, ms: performance.now() - startMs };
    }
  }
  const found = await search(attempts());
  return found ?? { mutation, killer: undefined, message: "", runs, ms: performance.now() - startMs };
}

/** @returns the first test that failed, or undefined */
function runTests(mutation: string, file: string): Promise<string | undefined> {
  const hook = new URL("./mutation-hook.ts", import.meta.url).href;
  const root = new URL("../../", import.meta.url);
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--import", hook, "--test", "--test-reporter=tap", file], {
      cwd: root,
      env: { ...process.env, SIM_MUTATION: mutation },
      stdio: ["ignore", "pipe", "ignore"],
      timeout: survivesMs,
    });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.once("error", reject);
    child.once("close", () => resolve(/^\s*not ok \d+ - (.*)$/mu.exec(output)?.[1]));
  });
}

/** The run that killed it last time, if there still is such a run. */
function* knownCase(name: string): Generator<Order> {
  const seed = /^seed (\d+)$/u.exec(name)?.[1];
  const options =
    seed === undefined ? fixedCases().find((fixed) => fixed.name === name)?.options : drawOptions(Number(seed));
  if (options !== undefined) yield { kind: "cases", cases: [{ name, options }] };
}

/** Runs that once found a bug, then the scripted schedules: neighbours resemble each other, so these go in strides. */
function fixedCases(): { readonly name: string; readonly options: SimOptions }[] {
  const stride = 37;
  const scripted = schedules();
  const mixed = scripted.flatMap((_, at) => scripted[(at * stride) % scripted.length] ?? []);
  return [...loadRegressions(), ...mixed].map(({ name, options }) => ({ name, options }));
}

function* attempts(): Generator<Order> {
  yield* iterate(caseOrders(fixedCases(), 4));
  yield* iterate(seedOrders(1, 1_000_000, 4));
}

function* iterate<T>(iterator: Iterator<T>): Generator<T> {
  for (let next = iterator.next(); next.done !== true; next = iterator.next()) yield next.value;
}
