import assert from "node:assert/strict";
import { test } from "node:test";

import { Random } from "../lib/pure/prng.ts";
import { realClock, silentLogger } from "../lib/runtime/index.ts";
import { ManagerChild, ManagerFailed, runManagerCommand, type ManagerChildOptions } from "./manager-child.ts";

const never = new AbortController().signal;
const says = (line: object, then: string): string => `console.log(${JSON.stringify(JSON.stringify(line))});${then}`;

/** In place of the manager, a program of one line. */
function child(script: string, events: Partial<ManagerChildOptions> = {}): ManagerChild {
  return new ManagerChild({
    command: [process.execPath, "-e", script, "--"],
    args: [],
    secrets: () => ({ unlockKey: "none of anybody's" }),
    user: undefined,
    clock: realClock,
    random: new Random("manager-child"),
    logger: silentLogger,
    onServing: () => {},
    onRemoved: () => {},
    onLock: () => {},
    onLockSettled: () => {},
    onLocked: () => {},
    onRenewed: () => {},
    ...events,
  });
}

test("it serves when the manager says so, and ends when it is asked to", async () => {
  const manager = child(
    says({ serving: 2377 }, "process.stdin.on('data', () => {}); process.on('SIGTERM', () => process.exit(0))"),
  );
  manager.start();
  await manager.serving(never);
  assert.equal(manager.state.kind, "serving");
  await manager[Symbol.asyncDispose]();
  assert.equal(manager.state.kind, "stopped");
});

test("a manager that cannot start is told with its own words, and started again", async () => {
  const failed = { code: "RAFT_FOLDER_IN_USE", message: "Cannot open the folder", fix: "Stop the other" };
  const manager = child(says({ failed }, "process.exit(1)"));
  manager.start();
  await assert.rejects(manager.serving(never), (error: unknown) => {
    assert.ok(error instanceof ManagerFailed);
    assert.equal(error.code, "MANAGER_FAILED");
    assert.equal(error.managerCode, "RAFT_FOLDER_IN_USE");
    assert.equal(error.fix, "Stop the other");
    return true;
  });
  await manager[Symbol.asyncDispose]();
});

test("one that ends by itself with 0 was let go by the cluster, and is not started again", async () => {
  const removed = Promise.withResolvers<void>();
  const manager = child("process.exit(0)", { onRemoved: () => removed.resolve() });
  manager.start();
  await removed.promise;
  assert.equal(manager.state.kind, "stopped");
});

test("a command of the manager that fails says why", async () => {
  const failed = { code: "QUORUM_ANSWERS", message: "A quorum answers" };
  const options = {
    command: [process.execPath, "-e", says({ failed }, "process.exit(1)"), "--"] as [string, ...string[]],
  };
  await assert.rejects(runManagerCommand({ ...options, args: [], secrets: {}, user: undefined }, never), ManagerFailed);
});
