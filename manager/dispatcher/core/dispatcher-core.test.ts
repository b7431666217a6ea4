import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { skep } from "../../../proto/index.ts";
import {
  accepted,
  Arrivals,
  downAtMs,
  graceMs,
  isAgentState,
  jittered,
  mayRegister,
  NodeAssignments,
  periodMs,
  unknownGraceMs,
  waitForCrowdMs,
  type Due,
} from "./index.ts";

const { TaskState } = skep.objects;
type Task = Readonly<skep.objects.Task>;

const task = (id: string, state: skep.objects.TaskState, secrets: readonly string[] = [], more = {}): Task =>
  skep.objects.Task.decode(
    skep.objects.Task.encode({
      id,
      nodeId: "n",
      status: { state },
      desiredState: TaskState.RUNNING,
      spec: { containerSpec: { secrets: secrets.map((secretId) => ({ secretId })) } },
      ...more,
    }).finish(),
  );

const words = (due: readonly { kind: string; id: string; removed: boolean }[]): string[] =>
  due.map(({ kind, id, removed }) => `${removed ? "-" : "+"}${kind}/${id}`);

const takeDue = (node: NodeAssignments, max: number): readonly Due[] => {
  const needs = node.takeNeeds(max);
  return [...needs, ...node.takeRest(max - needs.length)];
};

test("a task comes after what it needs, and what nobody needs any more goes after the last task", () => {
  const node = new NodeAssignments();
  node.setTask("a", task("a", TaskState.ASSIGNED, ["s1", "s2"]));
  node.setTask("b", task("b", TaskState.ASSIGNED, ["s2"]));
  assert.deepEqual(words(takeDue(node, 100)), ["+secret/s1", "+secret/s2", "+task/a", "+task/b"]);
  node.setTask("a", undefined);
  assert.deepEqual(words(takeDue(node, 100)), ["-task/a", "-secret/s1"]);
  node.setTask("b", task("b", TaskState.FAILED, ["s2"]));
  assert.deepEqual(words(takeDue(node, 100)), ["+task/b", "-secret/s2"], "a task that has ended needs nothing");
});

test("a task that is not placed yet, or that came and went in between, is not told", () => {
  const node = new NodeAssignments();
  node.setTask("a", task("a", TaskState.PENDING, ["s"]));
  node.setTask("b", task("b", TaskState.ASSIGNED, ["s"]));
  node.setTask("b", undefined);
  assert.deepEqual(words(takeDue(node, 100)), []);
});

test("a task that goes, is here again and goes once more before the node hears of any of it is taken away from it", () => {
  const node = new NodeAssignments();
  node.setTask("a", task("a", TaskState.ASSIGNED));
  takeDue(node, 100);
  node.setTask("a", undefined);
  node.setTask("a", task("a", TaskState.ASSIGNED));
  node.setTask("a", undefined);
  assert.deepEqual(words(takeDue(node, 100)), ["-task/a"]);
  node.setTask("a", task("a", TaskState.ASSIGNED));
  node.setTask("a", undefined);
  assert.deepEqual(words(takeDue(node, 100)), [], "it never heard of that one");
});

test("what a node said itself is no news to it; what is asked of the task is", () => {
  const node = new NodeAssignments();
  node.setTask("a", task("a", TaskState.ASSIGNED));
  takeDue(node, 100);
  node.setTask("a", task("a", TaskState.RUNNING));
  assert.equal(node.due, 0);
  node.setTask("a", task("a", TaskState.RUNNING, [], { desiredState: TaskState.SHUTDOWN }));
  assert.deepEqual(words(takeDue(node, 100)), ["+task/a"]);
  node.touch("secret", "unknown");
  assert.equal(node.due, 0);
});

test("however much changes, a node that is told in batches holds in the end what it should, and room is bounded", () => {
  const change = fc.record({
    id: fc.integer({ min: 0, max: 5 }).map(String),
    state: fc.constantFrom(TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED),
    gone: fc.boolean(),
    take: fc.option(fc.integer({ min: 1, max: 4 })),
    complete: fc.integer({ min: 0, max: 20 }).map((n) => n === 0),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
      const node = new NodeAssignments();
      const wanted = new Map<string, Task>();
      let held = new Set<string>();
      const hear = (due: readonly { kind: string; id: string; removed: boolean }[]): void => {
        for (const { kind, id, removed } of due) {
          if (removed) assert.ok(held.delete(`${kind}/${id}`), `${kind}/${id} was never told`);
          else held.add(`${kind}/${id}`);
        }
      };
      for (const { id, state, gone, take, complete } of changes) {
        // A task's spec never changes.
        const secrets = [`s${Number(id) % 3}`, `s${Number(id) % 2}`];
        if (gone) wanted.delete(id);
        else wanted.set(id, task(id, state, secrets));
        node.setTask(id, wanted.get(id));
        assert.ok(node.due <= 6 + 3 + held.size);
        if (complete) {
          held = new Set();
          hear(node.complete());
        } else if (take !== null) hear(takeDue(node, take));
      }
      hear(takeDue(node, 1000));
      const expected = new Set<string>();
      for (const [id, each] of wanted) {
        expected.add(`task/${id}`);
        if ((each.status?.state ?? 0) <= TaskState.RUNNING)
          for (const { secretId } of each.spec?.containerSpec?.secrets ?? []) expected.add(`secret/${secretId}`);
      }
      assert.deepEqual([...held].sort(), [...expected].sort());
    }),
  );
});

test("a status is taken from the task's own node, of the agent's states, and never goes back", () => {
  const running = task("a", TaskState.RUNNING);
  const say = (state: skep.objects.TaskState, nodeId = "n", of: Task | undefined = running): boolean =>
    accepted(of, { id: nodeId, number: 1 }, { state }) !== undefined;
  assert.equal(say(TaskState.FAILED), true);
  assert.equal(say(TaskState.RUNNING), true, "a word more on the same state");
  assert.equal(say(TaskState.FAILED, "another node"), false);
  assert.equal(say(TaskState.STARTING), false);
  assert.equal(say(TaskState.ORPHANED), false);
  assert.equal(say(TaskState.REMOVE), false);
  assert.equal(isAgentState(600), false);
  const node = { id: "n", number: 1 };
  assert.equal(accepted(running, undefined, { state: TaskState.FAILED }), undefined, "the node was removed");
  assert.equal(accepted(undefined, node, { state: TaskState.FAILED }), undefined);
  assert.equal(say(TaskState.RUNNING, "n", task("a", TaskState.PENDING)), false, "it is not the node's yet");
  const failed = task("a", TaskState.FAILED);
  assert.equal(say(TaskState.FAILED, "n", failed), false, "the end is said once");
  const long = accepted(running, node, { state: TaskState.FAILED, err: "x".repeat(10_000) });
  assert.equal(long?.err?.length, 4096);
  assert.equal(long?.appliedBy, "n");
});

test("a node may name gateway addresses of its own block only", () => {
  const running = task("a", TaskState.STARTING);
  const gateways = (number: number, gatewayAddresses: string[]): readonly string[] | null | undefined =>
    accepted(running, { id: "n", number }, { state: TaskState.RUNNING, networkStatus: { gatewayAddresses } })
      ?.networkStatus?.gatewayAddresses;
  assert.deepEqual(gateways(1, ["100.64.4.9"]), ["100.64.4.9"]);
  assert.equal(gateways(1, ["100.64.8.9"]), undefined, "another node's");
  assert.equal(gateways(1, ["100.64.4.1"]), undefined, "the node's own");
  assert.equal(gateways(1, ["10.0.0.1", "100.64.4.9/22", ""]), undefined);
  assert.equal(gateways(0, ["100.64.0.9"]), undefined, "it has no number");
  assert.deepEqual(gateways(2, ["100.64.8.9", "100.64.8.10", "100.64.8.11"]), ["100.64.8.9", "100.64.8.10"]);
});

test("a node is down after three missed heartbeats, and has twice as long after a change of leaders", () => {
  assert.equal(periodMs(undefined), 5000);
  assert.equal(periodMs({ seconds: 1, nanos: 5e8 }), 1500);
  assert.equal(periodMs({ nanos: 1 }), 100, "a period that would keep the leader busy is not taken");
  assert.deepEqual([graceMs(5000), unknownGraceMs(5000)], [15_000, 30_000]);
  assert.deepEqual([jittered(5000, 0), jittered(5000, 0.5), jittered(5000, 1)], [5000, 4750, 4500]);
});

test("only heartbeats begin a node's time anew, and a node that talks is not down", () => {
  const beat = { beatMs: 1000, graceMs: 3000, periodMs: 1000 };
  assert.equal(downAtMs({ ...beat, wordMs: 0 }), 4000);
  assert.equal(downAtMs({ ...beat, wordMs: 2900 }), 4000, "what it says besides its heartbeats does not count");
  assert.equal(downAtMs({ ...beat, wordMs: 3900 }), 4900, "but it lives while it speaks");
});

test("a node registers three times in eight seconds, and no more", () => {
  const times: number[] = [];
  assert.deepEqual(
    [0, 1000, 2000, 3000, 7999, 8000, 8001].map((at) => mayRegister(times, at)),
    [true, true, true, false, false, true, false],
  );
});

test("while a crowd of nodes comes back, one that is still missing is waited for, up to four times as long", () => {
  const node = { beatMs: 0, graceMs: 15_000, wordMs: 0, periodMs: 5000 };
  const arrivals = new Arrivals();
  for (let at = 0; at < 19; at++) arrivals.note(15_000 + at);
  const now = { nowMs: 15_100, hasSession: false, arrivals };
  assert.equal(waitForCrowdMs(node, now), 0, "a few at a time are no crowd");
  arrivals.note(15_050);
  assert.equal(waitForCrowdMs(node, now), 1000);
  assert.equal(waitForCrowdMs(node, { ...now, hasSession: true }), 0, "it came, and then said nothing");
  assert.equal(waitForCrowdMs(node, { ...now, nowMs: 16_100 }), 1000, "the crowd has hardly passed");
  assert.equal(waitForCrowdMs(node, { ...now, nowMs: 17_200 }), 0);
  for (let at = 0; at < 20; at++) arrivals.note(60_000);
  assert.equal(waitForCrowdMs(node, { ...now, nowMs: 60_000 }), 0, "not for ever");
});
