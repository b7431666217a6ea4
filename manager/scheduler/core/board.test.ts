import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../../lib/pure/prng.ts";
import { skep } from "../../../proto/index.ts";
import { Board } from "./board.ts";
import { offenders } from "./enforce.ts";
import { encryptedNetworksOf, groupFactsOf, nodeFactsOf } from "./from-objects.ts";
import { refusalText } from "./reason.ts";

const { NodeState, TaskState } = skep.objects;
const random = new Random(1);

const node = (id: string, nanoCpus = 1e9): ReturnType<typeof nodeFactsOf> =>
  nodeFactsOf({ id, status: { state: NodeState.NODE_READY }, description: { resources: { nanoCpus } } });

const ready = (id: string): skep.objects.Node.$Properties => ({ id, status: { state: NodeState.NODE_READY } });

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

test("tasks on an encrypted network go only where WireGuard is, and say so when it is nowhere", () => {
  const board = new Board();
  const spec = (name: string, ingress = false): skep.objects.NetworkSpec.$Properties => ({
    name,
    ingress,
    driver: { name: "overlay", options: { encrypted: "" } },
  });
  board.setEncrypted(encryptedNetworksOf([{ id: "net1", spec: spec("secret") }]));
  board.setNode(node("plain", 9e9));
  // It had a key that managers did not take.
  board.setNode(
    nodeFactsOf({ ...ready("claims"), description: { network: { capabilities: ["overlay", "encrypted"] } } }),
  );
  // On which networks it is, is not known yet.
  board.setTask(pending("a", { status: { state: TaskState.NEW }, spec: {} }));
  const attached = { spec: {}, networksAttachments: [{ networkId: "net1", addresses: ["10.0.1.2/24"] }] };
  board.setTask(pending("a", attached));
  const [refused] = board.plan(random, 0).refused;
  assert.equal(
    refused === undefined ? "" : refusalText(refused.reason),
    "no suitable node (no WireGuard for an encrypted network on 2 nodes)",
  );
  const network = { capabilities: ["overlay", "encrypted"], wireguardPublicKey: new Uint8Array(32) };
  board.setNode(nodeFactsOf({ ...ready("able"), description: { network } }));
  assert.equal(board.plan(random, 0).placements[0]?.placement.nodeId, "able");
  // A port in an encrypted mesh is a wish for it, too; in one in clear text, it is none.
  board.setEncrypted(encryptedNetworksOf([{ id: "mesh", spec: spec("ingress", true) }]));
  const ports = [{ publishedPort: 80, targetPort: 80 }];
  board.setTask(pending("b", { serviceId: "web", spec: {}, endpoint: { ports } }));
  assert.equal(board.plan(random, 0).placements[0]?.placement.nodeId, "able");
  board.setTask(
    pending("c", { serviceId: "own", spec: { placement: { constraints: ["node.id==plain"] } }, endpoint: { ports } }),
  );
  assert.equal(board.plan(random, 0).refused.length, 1);
});
