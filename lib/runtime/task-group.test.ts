import assert from "node:assert/strict";
import { test } from "node:test";

import { TaskGroup } from "./task-group.ts";

const untilAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });

test("disposing a group aborts its work, waits for its end, and does not call that a failure", async () => {
  const failures: string[] = [];
  const group = new TaskGroup((name) => failures.push(name));
  let ended = false;
  group.start("wait", async (signal) => {
    try {
      await untilAborted(signal);
    } finally {
      await Promise.resolve();
      ended = true;
    }
  });
  assert.equal(group.size, 1);
  await group[Symbol.asyncDispose]();
  await group[Symbol.asyncDispose]();
  assert.equal(ended, true);
  assert.equal(group.size, 0);
  assert.deepEqual(failures, []);
});

test("a failure is reported with the name of its work, also one thrown before the first await", async () => {
  const failures: [string, string][] = [];
  const group = new TaskGroup((name, error) => failures.push([name, String(error)]));
  group.start("late", () => Promise.reject(new Error("late")));
  group.start("early", () => {
    throw new Error("early");
  });
  await group.idle();
  assert.deepEqual(
    new Map(failures),
    new Map([
      ["early", "Error: early"],
      ["late", "Error: late"],
    ]),
  );
});

test("a failure while the group is stopping is still reported", async () => {
  const failures: string[] = [];
  const group = new TaskGroup((name) => failures.push(name));
  group.start("close file", (signal) => untilAborted(signal).catch(() => Promise.reject(new Error("disk"))));
  await group[Symbol.asyncDispose]();
  assert.deepEqual(failures, ["close file"]);
});
