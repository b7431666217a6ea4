import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import test from "node:test";
import { drawOptions } from "./options.ts";
import { mutatedSource, mutations } from "./mutations.ts";
import type { Regression } from "./regressions.ts";
import { runOrders, seedOrders } from "./runner.ts";
import { schedules } from "./schedules.ts";
import type { Batch } from "./sim-worker.ts";

test("N12: there are at least 25 planted bugs, and each still fits the source exactly once", () => {
  assert.ok(mutations.length >= 25);
  assert.equal(new Set(mutations.map(({ name }) => name)).size, mutations.length);
  for (const mutation of mutations) assert.notEqual(mutatedSource(mutation), "");
});

test("N12: a snippet that the source does not have is an error, not a survivor", () => {
  const gone = { name: "gone", file: "manager/raft/core/log.ts", snippet: "no such line", replacement: "" };
  assert.throws(() => mutatedSource(gone), /0 times/);
});

test(
  "N12: a planted bug is found, reported with its check, and is not there without planting",
  { timeout: 60_000 },
  async () => {
    const { name, options } = schedules()[0]!;
    const cases = [{ kind: "cases", cases: [{ name, options }] }] as const;
    const planted = { workers: 1, failuresMax: 1, mutation: "vote sent before it is durable" };
    const totals = await runOrders(cases[Symbol.iterator](), planted);
    assert.equal(totals.failures[0]?.result.failure?.check, "C7");
    const clean = await runOrders(cases[Symbol.iterator](), { workers: 1, failuresMax: 1 });
    assert.deepEqual(clean.failures, []);
  },
);

test("N10: the command line shrinks a run with a planted bug to one without faults", { timeout: 120_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "skep-sim-"));
  try {
    const out = join(folder, "shrunk.json");
    const hook = new URL("./mutation-hook.ts", import.meta.url).href;
    const main = fileURLToPath(new URL("./main.ts", import.meta.url));
    const child = spawn(process.execPath, ["--import", hook, main, "--seed", "7", "--shrink", "--out", out], {
      env: { ...process.env, SIM_MUTATION: "vote sent before it is durable" },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let printed = "";
    child.stdout.on("data", (chunk: Buffer) => (printed += chunk.toString()));
    const code = await new Promise((resolve) => child.once("close", resolve));
    assert.equal(code, 1);
    assert.match(printed, /replay +npm run sim -- --seed 7/);
    const { check, options } = JSON.parse(readFileSync(out, "utf8")) as Regression;
    assert.equal(check, "C7");
    assert.deepEqual(options.faults, []);
    assert.equal(options.workload.clients, 1);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the runner sums up all seeds over its threads and ends them", { timeout: 60_000 }, async () => {
  const totals = await runOrders(seedOrders(100, 6, 2), { workers: 2, failuresMax: 1 });
  assert.equal(totals.runs, 6);
  assert.deepEqual(totals.failures, []);
  assert.ok(totals.coreEvents > 0 && totals.marks.count("leader elected") > 0);
});

test("a worker answers a case with the failure that it ends in", { timeout: 60_000 }, async () => {
  const worker = new Worker(new URL("./sim-worker.ts", import.meta.url), {
    workerData: { mutation: "no empty entry at the start of a term" },
  });
  const batch = await new Promise<Batch>((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.postMessage({ kind: "cases", cases: [{ name: "one", options: drawOptions(5) }] }, []);
  });
  await worker.terminate();
  assert.equal(batch.runs, 1);
  assert.equal(batch.failures[0]?.result.failure?.check, "C3");
});
