import assert from "node:assert/strict";
import { test } from "node:test";
import { skep } from "../../../proto/index.ts";
import { differenceOf, isDirty } from "./difference.ts";
import { nodeFacts, serviceFacts, TaskState, type TaskFacts } from "./facts.ts";
import { backOffUs, reconcile } from "./reconcile.ts";
import { mayRestart } from "./restart.ts";
import type { Situation } from "./situation.ts";

type TaskSpec = skep.objects.TaskSpec.$Properties;
const { RestartCondition } = skep.objects;

/** As the store gives it back. */
const stored = (spec: TaskSpec): TaskSpec => skep.objects.TaskSpec.decode(skep.objects.TaskSpec.encode(spec).finish());
const difference = (before: TaskSpec, after: TaskSpec): ReturnType<typeof differenceOf> =>
  differenceOf({ spec: stored(before), endpoint: null }, { spec: stored(after), endpoint: undefined });

function task(id: string, more: Partial<TaskFacts> = {}): TaskFacts {
  return {
    id,
    slot: 1,
    nodeId: "n",
    desired: TaskState.RUNNING,
    state: TaskState.RUNNING,
    specVersion: 1,
    updateId: 0,
    iteration: 0,
    createdAtUs: 0,
    stateSinceUs: 0,
    runningSinceUs: undefined,
    hold: undefined,
    ...more,
  };
}

test("specs differ by what was meant, not by how it was written", () => {
  const none = { placement: false, pull: false, other: false };
  const labels = { a: "1", b: "2" };
  assert.deepEqual(difference({ containerSpec: { labels } }, { containerSpec: { labels: { b: "2", a: "1" } } }), none);
  assert.deepEqual(difference({ forceUpdate: 0, containerSpec: { env: [] } }, { containerSpec: {} }), none);
  assert.equal(difference({ containerSpec: { init: false } }, { containerSpec: {} }).other, true);
  assert.equal(difference({ containerSpec: { env: ["A=1"] } }, { containerSpec: { env: ["A=2"] } }).other, true);
  assert.deepEqual(difference({ placement: { constraints: ["node.id==a"] } }, {}), { ...none, placement: true });
  const pull = difference({ containerSpec: { pullOptions: { registryAuth: "a" } } }, { containerSpec: {} });
  assert.deepEqual(pull, { ...none, pull: true });
  assert.equal(isDirty(task("a"), pull, undefined, []), false, "it has its image");
  assert.equal(isDirty(task("a", { state: TaskState.PREPARING }), pull, undefined, []), true);
});

test("defaults of a service are Swarm's", () => {
  const facts = serviceFacts({ spec: { updateConfig: { delay: { seconds: 10 } } } });
  assert.deepEqual(facts.mode, { kind: "replicated", replicas: 1 });
  assert.equal(facts.restart.delayUs, 5_000_000);
  assert.equal(facts.update.parallelism, 1);
  assert.equal(facts.update.monitorUs, 11_000_000, "a delay as long as the monitor moves the monitor");
  assert.equal(facts.rollback.monitorUs, 5_000_000);
});

test("the window forgets failures that lie before it, whenever it is asked", () => {
  const failed = (id: string, at: number): TaskFacts =>
    task(id, { state: TaskState.FAILED, stateSinceUs: at, createdAtUs: at });
  const policy = { condition: RestartCondition.RESTART_ANY, delayUs: 0, attemptsMax: 1, windowUs: 100 };
  assert.equal(mayRestart([failed("b", 500), failed("a", 300)], failed("b", 500), policy, "replicated"), true);
  assert.equal(mayRestart([failed("b", 500), failed("a", 450)], failed("b", 500), policy, "replicated"), false);
});

test("the back-off keeps the user's pace at first, and never goes below it", () => {
  assert.deepEqual(
    [1, 5, 6, 7].map((attempt) => backOffUs(5_000_000, attempt)),
    [5e6, 5e6, 10e6, 20e6],
  );
  assert.equal(backOffUs(5_000_000, 100), 300e6);
  assert.equal(backOffUs(900_000_000, 100), 900e6);
  assert.equal(backOffUs(0, 6), 200_000);
});

test("10,000 tasks that are as they should be ask for nothing", () => {
  const replicas = 10_000;
  const service = serviceFacts({ id: "s", specVersion: 1, spec: { mode: { replicated: { replicas } } } });
  const tasks = Array.from({ length: replicas }, (_, at) => task(`t${at}`, { slot: at + 1 }));
  const node = nodeFacts({ id: "n", status: { state: skep.objects.NodeState.NODE_READY } });
  const situation: Situation = {
    service,
    tasks,
    nodes: new Map([["n", node]]),
    differenceFrom: () => ({ placement: false, pull: false, other: false }),
    historyMax: 5,
    nowUs: 1,
  };
  assert.deepEqual(reconcile(situation), { moves: [], wakeAtUs: undefined });
});

test("no service has more tasks than managers can hold, whatever an earlier release took", () => {
  const modeOf = (mode: skep.objects.ServiceMode.$Properties): unknown => serviceFacts({ spec: { mode } }).mode;
  assert.deepEqual(modeOf({ replicated: { replicas: 99_999_999_999 } }), { kind: "replicated", replicas: 1_000_000 });
  assert.deepEqual(modeOf({ replicatedJob: { totalCompletions: 1e15 } }), {
    kind: "replicatedJob",
    completions: 1_000_000,
    concurrent: 1_000_000,
  });
});
