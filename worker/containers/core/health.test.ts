import assert from "node:assert/strict";
import { test } from "node:test";

import { afterProbe, nextProbeMs, planHealth, startingHealth } from "./health.ts";

const probe = (exitCode: number) => ({ startMs: 0, endMs: 1, exitCode, output: "" });

test("a plan takes the container's settings over the image's and fills in the defaults", () => {
  assert.equal(planHealth(undefined, undefined, undefined), undefined);
  assert.equal(planHealth({ Test: ["NONE"] }, { Test: ["CMD", "x"] }, undefined), undefined);
  const plan = planHealth({ Interval: 1e9 }, { Test: ["CMD-SHELL", "check it"], Retries: 7, Interval: 5e9 }, [
    "bash",
    "-c",
  ]);
  assert.deepEqual(plan, {
    command: ["bash", "-c", "check it"],
    intervalMs: 1000,
    timeoutMs: 30_000,
    startPeriodMs: 0,
    startIntervalMs: 5000,
    retries: 7,
  });
});

test("failures count after the start period only, and the first success ends it", () => {
  const plan = planHealth(
    { Test: ["CMD", "x"], StartPeriod: 1e10, StartInterval: 1e9, Interval: 6e9, Retries: 2 },
    undefined,
    undefined,
  );
  assert.ok(plan !== undefined);
  assert.equal(nextProbeMs(plan, startingHealth, 0), 1000);
  let state = afterProbe(plan, startingHealth, probe(1), 5000);
  assert.deepEqual([state.status, state.failingStreak], ["starting", 0]);
  assert.equal(nextProbeMs(plan, state, 11_000), 6000);
  state = afterProbe(plan, state, probe(1), 11_000);
  assert.deepEqual([state.status, state.failingStreak], ["starting", 1]);
  state = afterProbe(plan, state, probe(-1), 12_000);
  assert.deepEqual([state.status, state.failingStreak], ["unhealthy", 2]);
  state = afterProbe(plan, state, probe(0), 13_000);
  assert.deepEqual([state.status, state.failingStreak, state.log.length], ["healthy", 0, 4]);
  for (let i = 0; i < 9; i++) state = afterProbe(plan, state, probe(1), 500);
  assert.deepEqual([state.status, state.failingStreak, state.log.length], ["unhealthy", 9, 5]);
});
