import assert from "node:assert/strict";
import { test } from "node:test";

import { decideRestart, restartAtBoot, restartDelay } from "./restart.ts";

const failed = { code: 1, signal: 0, oomKilled: false, finishedAtMs: 0 };
const facts = {
  policy: { Name: "always" as const },
  exit: failed,
  livedMs: 5,
  restartCount: 0,
  lastDelayMs: 0,
  stoppedByUser: false,
};

test("delays double after short lives up to a minute and start over after ten seconds", () => {
  let delayMs = 0;
  const delays: number[] = [];
  for (let i = 0; i < 12; i++) {
    const decision = decideRestart({ ...facts, lastDelayMs: delayMs });
    assert.ok(decision.restart);
    delayMs = decision.delayMs;
    delays.push(delayMs);
  }
  assert.deepEqual(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
  assert.deepEqual(decideRestart({ ...facts, lastDelayMs: 60_000, livedMs: restartDelay.resetAfterMs }), {
    restart: true,
    delayMs: 100,
  });
});

test("each policy answers to success, failure, its bound and a stop on purpose", () => {
  const ask = (more: object): boolean => decideRestart({ ...facts, ...more }).restart;
  assert.equal(ask({ policy: {} }), false);
  assert.equal(ask({ policy: { Name: "no" } }), false);
  assert.equal(ask({ policy: { Name: "on-failure" } }), true);
  assert.equal(ask({ policy: { Name: "on-failure" }, exit: { ...failed, code: 0 } }), false);
  assert.equal(ask({ policy: { Name: "on-failure", MaximumRetryCount: 2 }, restartCount: 1 }), true);
  assert.equal(ask({ policy: { Name: "on-failure", MaximumRetryCount: 2 }, restartCount: 2 }), false);
  assert.equal(ask({ exit: { ...failed, code: 0 } }), true);
  assert.equal(ask({ stoppedByUser: true }), false);
});

test("at boot always comes back even when stopped, unless-stopped only when it was not", () => {
  const last = { stoppedByUser: true, exitCode: 0, wasRunning: false };
  assert.equal(restartAtBoot({ Name: "always" }, last), true);
  assert.equal(restartAtBoot({ Name: "unless-stopped" }, last), false);
  assert.equal(restartAtBoot({ Name: "unless-stopped" }, { ...last, stoppedByUser: false }), true);
  assert.equal(restartAtBoot({ Name: "on-failure" }, { stoppedByUser: false, exitCode: 255, wasRunning: true }), true);
  assert.equal(restartAtBoot({ Name: "on-failure" }, { stoppedByUser: false, exitCode: 0, wasRunning: true }), false);
  assert.equal(restartAtBoot({}, { ...last, stoppedByUser: false }), false);
});
