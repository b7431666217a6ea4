import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../../lib/pure/prng.ts";
import { skep } from "../../../proto/index.ts";
import { Board } from "./board.ts";
import { offenders } from "./enforce.ts";
import { groupFactsOf, nodeFactsOf } from "./from-objects.ts";
import { refusalText } from "./reason.ts";

const { NodeState, TaskState } = skep.objects;
const random = new Random(1);

const node = (id: string, nanoCpus = 1e9): ReturnType<typeof nodeFactsOf> =>
  nodeFactsOf({ id, status: { state: NodeState.NODE_READY }, description: { resources: { nanoCpus } } });

const pending = (id: string, more: skep.objects.Task.$Properties = {}): skep.objects.Task.$Properties => ({
  id,
  serviceId: "s",
  specVersion: 1,
  spec: { resources: { reservations: { nanoCpus: 1e9 } } },
  status: { state: TaskState.PENDING },
  desiredState: TaskState.RUNNING,
  ...more,
});

test("what is planned is booked, what is not committed is planned again, and nothing is given away twice", () => {
  const board = new Board();
  board.setNode(node("n1"));
  board.setTask(pending("a"));
  board.setTask(pending("b"));
  const first = board.plan(random, 0);
  assert.deepEqual(
    first.placements.map(({ placement }) => placement.taskId),
    ["a"],
  );
  assert.equal(first.refused[0]?.taskId, "b");
  assert.equal(refusalText(first.refused[0].reason), "no suitable node (insufficient resources on 1 node)");
  assert.deepEqual(board.plan(random, 0), { placements: [], refused: [] }, "nothing has changed");
  board.unbook("a");
  const [again] = board.plan(random, 0).placements;
  const placed = again?.placement.taskId ?? "";
  board.setTask(pending(placed, { nodeId: "n1", status: { state: TaskState.ASSIGNED } }));
  assert.equal(board.waiting, 1);
  board.setTask(pending(placed, { nodeId: "n1", status: { state: TaskState.FAILED } }));
  const second = board.plan(random, 0);
  assert.equal(second.placements.length, 1, "the place that came free goes to one that waits");
});

test("a successor takes its predecessor's place, and gives it back when it dies", () => {
  const board = new Board();
  board.setNode(node("n1"));
  board.setTask(pending("old", { nodeId: "n1", status: { state: TaskState.RUNNING } }));
  const hold = { waitingForOldTask: { taskId: "old" } };
  board.setTask(pending("new", { hold }));
  assert.equal(board.plan(random, 0).placements[0]?.placement.nodeId, "n1");
  assert.equal(board.node("n1")?.nanoCpusFree, 0);
  board.setTask(pending("new", { hold, nodeId: "n1", status: { state: TaskState.ASSIGNED } }));
  board.setTask(pending("new", { hold, nodeId: "n1", status: { state: TaskState.REJECTED } }));
  assert.equal(board.node("n1")?.nanoCpusFree, 0, "the old one counts again");
  board.setTask(pending("old", { nodeId: "n1", status: { state: TaskState.SHUTDOWN } }));
  assert.equal(board.node("n1")?.nanoCpusFree, 1e9);
  board.removeTask("new");
  board.removeTask("old");
  assert.equal(board.node("n1")?.tasksTotal, 0);
});

test("when a node shrinks, those that came last go", () => {
  const group = groupFactsOf(pending("x"));
  const residents = ["a", "b", "c"].map((taskId, createdAtUs) => ({ taskId, createdAtUs, constraints: [], group }));
  assert.deepEqual(offenders(node("n1", 2e9), residents), [{ taskId: "c", detail: "it has too few CPUs" }]);
});

test("a plan that is bounded leaves the rest due, and refuses at once what has no room", () => {
  const board = new Board();
  board.setNode(node("n1", 4e9));
  for (let at = 0; at < 6; at++) board.setTask(pending(`t${at}`));
  const first = board.plan(random, 0, 3);
  assert.deepEqual([first.placements.length, first.refused.length, board.isDue], [3, 0, true]);
  const second = board.plan(random, 0, 3);
  assert.deepEqual([second.placements.length, second.refused.length, board.isDue], [1, 2, false]);
  assert.deepEqual(board.plan(random, 0, 3), { placements: [], refused: [] });
  // Many nodes are work, too: one group a plan is looked at on them.
  for (let at = 0; at < 40; at++) board.setNode(node(`m${at}`, 4e9));
  for (const serviceId of ["x", "y"]) board.setTask(pending(serviceId, { serviceId }));
  const served = new Set<string>();
  for (let plans = 0; board.isDue && plans < 9; plans++) {
    const groups = board.plan(random, 0, 3).placements.map(({ group }) => group.serviceId);
    assert.ok(new Set(groups).size <= 1);
    for (const each of groups) served.add(each);
  }
  assert.deepEqual([...served].sort(), ["s", "x", "y"]);
});
