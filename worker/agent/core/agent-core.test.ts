import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../../lib/pure/prng.ts";
import { skep } from "../../../proto/index.ts";
import {
  AssignmentSet,
  desiredOf,
  failedState,
  ManagerChoice,
  nextAct,
  reached,
  SessionBackoff,
  takenUp,
  TaskState,
} from "./index.ts";

const { AssignmentsKind } = skep.dispatcher;

const act = (observed: TaskState, desired: TaskState, more = {}): string => {
  const next = nextAct({ observed, desired, dropped: false, informed: true, routed: true, ...more });
  return next.kind === "move" ? `move ${TaskState[next.state]}` : next.kind;
};

test("a task is taken through its states in order, and held at READY as long as no more is wanted", () => {
  const path: string[] = [];
  let observed: TaskState = TaskState.ASSIGNED;
  for (let step = 0; step < 8; step++) {
    const next = nextAct({ observed, desired: TaskState.RUNNING, dropped: false, informed: true, routed: true });
    path.push(next.kind);
    if (next.kind === "move") observed = next.state;
    else if (next.kind === "prepare" || next.kind === "start") observed = reached(next.kind);
  }
  assert.deepEqual(path, ["move", "move", "prepare", "move", "start", "wait", "wait", "wait"]);
  assert.equal(act(TaskState.READY, TaskState.READY), "hold");
  assert.equal(act(TaskState.READY, TaskState.RUNNING), "move STARTING");
  assert.equal(act(TaskState.READY, TaskState.COMPLETE), "move STARTING");
});

test("a task that is not wanted is stopped, whatever it is doing; one that did nothing yet just ends", () => {
  for (const state of [TaskState.PREPARING, TaskState.READY, TaskState.STARTING, TaskState.RUNNING])
    assert.equal(act(state, TaskState.SHUTDOWN), "stop");
  assert.equal(act(TaskState.ASSIGNED, TaskState.SHUTDOWN), "move SHUTDOWN");
  assert.equal(act(TaskState.ACCEPTED, TaskState.RUNNING, { dropped: true }), "move SHUTDOWN");
  assert.equal(act(TaskState.RUNNING, TaskState.RUNNING, { dropped: true }), "stop");
  assert.equal(act(TaskState.FAILED, TaskState.RUNNING), "hold");
  assert.equal(act(TaskState.FAILED, TaskState.RUNNING, { dropped: true }), "remove");
});

test("before a manager has told what a task needs, nothing new is prepared or started, and what runs goes on", () => {
  assert.equal(act(TaskState.PREPARING, TaskState.RUNNING, { informed: false }), "hold");
  assert.equal(act(TaskState.READY, TaskState.RUNNING, { informed: false }), "hold");
  assert.equal(act(TaskState.STARTING, TaskState.RUNNING, { informed: false }), "start");
  assert.equal(act(TaskState.RUNNING, TaskState.RUNNING, { informed: false }), "wait");
  assert.equal(act(TaskState.RUNNING, TaskState.SHUTDOWN, { informed: false }), "stop");
});

test("an error before STARTING rejects a task, one from then on fails it", () => {
  assert.equal(failedState(TaskState.PREPARING), TaskState.REJECTED);
  assert.equal(failedState(TaskState.READY), TaskState.REJECTED);
  assert.equal(failedState(TaskState.STARTING), TaskState.FAILED);
  assert.equal(failedState(TaskState.RUNNING), TaskState.FAILED);
});

test("a task that a manager has ended is stopped, though its desired state does not say so", () => {
  const task = (state: TaskState, desiredState: TaskState): skep.objects.Task =>
    skep.objects.Task.decode(skep.objects.Task.encode({ status: { state }, desiredState }).finish());
  assert.equal(desiredOf(task(TaskState.ORPHANED, TaskState.RUNNING)), TaskState.SHUTDOWN);
  assert.equal(desiredOf(task(TaskState.RUNNING, TaskState.RUNNING)), TaskState.RUNNING);
  assert.equal(desiredOf(task(TaskState.REJECTED, TaskState.REMOVE)), TaskState.REMOVE);
});

test("a task that had started and of which nothing is left is lost: it is never started again in place", () => {
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.RUNNING, false), "lost");
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.RUNNING, true), TaskState.RUNNING);
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.READY, false), TaskState.READY);
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.FAILED, false), TaskState.FAILED);
  // Nothing is remembered: the assignment says how far it was.
  assert.equal(takenUp(TaskState.RUNNING, undefined, false), "lost");
  assert.equal(takenUp(TaskState.RUNNING, undefined, true), TaskState.STARTING);
  assert.equal(takenUp(TaskState.PREPARING, undefined, false), TaskState.PREPARING);
  assert.equal(takenUp(TaskState.FAILED, undefined, false), TaskState.FAILED);
  assert.equal(takenUp(TaskState.ORPHANED, undefined, true), TaskState.STARTING);
  // The managers never heard how far it was, and its container runs.
  assert.equal(takenUp(TaskState.ASSIGNED, undefined, true), TaskState.PREPARING);
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.ACCEPTED, true), TaskState.PREPARING);
});

const assignments = (
  kind: skep.dispatcher.AssignmentsKind,
  numbers: { appliesTo?: number; revision: number; last?: boolean },
  ...changes: skep.dispatcher.Assignment.$Properties[]
): skep.dispatcher.Assignments =>
  skep.dispatcher.Assignments.decode(
    skep.dispatcher.Assignments.encode({ kind, last: true, ...numbers, changes }).finish(),
  );

test("a complete state counts when its last part is there; changes apply to exactly the number before", () => {
  const set = new AssignmentSet();
  const { COMPLETE, INCREMENTAL } = AssignmentsKind;
  const secret = { id: "s", spec: { name: "s" } };
  assert.equal(set.take(assignments(INCREMENTAL, { appliesTo: 0, revision: 1 })).kind, "gap");
  assert.equal(set.take(assignments(COMPLETE, { revision: 1, last: false }, { secret })).kind, "nothing");
  assert.equal(set.secret("s"), undefined);
  const whole = set.take(assignments(COMPLETE, { revision: 1 }, { task: { id: "a" } }));
  assert.deepEqual(whole.kind === "complete" && whole.tasks.map(({ id }) => id), ["a"]);
  assert.equal(set.secret("s")?.spec?.name, "s");
  const change = assignments(
    INCREMENTAL,
    { appliesTo: 1, revision: 2 },
    { task: { id: "b" } },
    { task: { id: "a" }, removed: true },
    { secret: { id: "s" }, removed: true },
  );
  const told = set.take(change);
  assert.ok(told.kind === "changes");
  assert.deepEqual([told.tasks.map(({ id }) => id), told.removed], [["b"], ["a"]]);
  assert.equal(set.secret("s"), undefined);
  assert.equal(set.take(change).kind, "nothing", "the same once more");
  assert.equal(set.take(assignments(INCREMENTAL, { appliesTo: 3, revision: 4 })).kind, "gap");
  set.sessionEnded();
  assert.equal(set.take(assignments(INCREMENTAL, { appliesTo: 2, revision: 3 })).kind, "gap");
});

test("a part of a complete state that was begun anew counts for nothing", () => {
  const set = new AssignmentSet();
  const { COMPLETE } = AssignmentsKind;
  set.take(assignments(COMPLETE, { revision: 1, last: false }, { task: { id: "old" } }));
  const told = set.take(assignments(COMPLETE, { revision: 2 }, { task: { id: "new" } }));
  assert.deepEqual(told.kind === "complete" && told.tasks.map(({ id }) => id), ["new"]);
});

test("the leader is asked first and once; then everyone in turn, whoever failed the longest ago", () => {
  const choice = new ManagerChoice(new Random(1), ["a", "b", "c"]);
  choice.redirect("b");
  assert.equal(choice.next(), "b");
  choice.failed("b");
  const others = [choice.next(), ...(choice.failed("a"), [choice.next()])];
  assert.ok(!others.includes("b"));
  choice.failed("c");
  assert.equal(choice.next(), "b");
  choice.failed("b");
  assert.equal(choice.next(), "a");
  choice.succeeded("c");
  assert.equal(choice.next(), "c");
  choice.learn(["d"], "d");
  assert.equal(choice.next(), "d");
  assert.deepEqual(choice.known, ["d"]);
  choice.failed("d");
  assert.notEqual(choice.next(), "d", "those given at the start are a last resort");
  assert.equal(new ManagerChoice(new Random(1), []).next(), undefined);
});

test("a session is tried again after a random part of 100, 300, 700 ... 8000 ms", () => {
  const random = new Random(1);
  random.float = () => 1;
  const backoff = new SessionBackoff(random);
  assert.deepEqual(
    Array.from({ length: 9 }, () => backoff.next()),
    [100, 300, 700, 1500, 3100, 6300, 8000, 8000, 8000],
  );
  backoff.reset();
  assert.equal(backoff.next(), 100);
});
