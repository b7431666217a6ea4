import assert from "node:assert/strict";
import { test } from "node:test";

import { skep } from "../../proto/index.ts";
import { StoreCluster } from "../../test/support/store-cluster.ts";
import { countsOf } from "./list.ts";
import { why } from "./why.ts";

const { ObjectKind } = skep.control;
const { NodeAvailability, NodeState, TaskState } = skep.objects;
const by = { actor: "test", cause: "test" };

const node = (
  id: string,
  more: skep.objects.Node.$Properties = {},
): skep.objects.Node.$Properties & { readonly id: string } => ({
  spec: { availability: NodeAvailability.ACTIVE },
  status: { state: NodeState.NODE_READY },
  description: { hostname: `host-${id}` },
  ...more,
  id,
});

test("a global service that no node takes says why, and which node comes nearest", async () => {
  const { store } = new StoreCluster();
  const constraints = ["node.labels.disk==ssd", "node.labels.zone==a"];
  await store.update((tx) => {
    tx.create("node", node("a"));
    tx.create("node", node("b", { spec: { availability: NodeAvailability.ACTIVE, labels: { zone: "a" } } }));
    tx.create("node", node("c", { spec: { availability: NodeAvailability.DRAIN } }));
    const taskTemplate = { placement: { constraints } };
    tx.create("service", { id: "g", spec: { name: "g", mode: { global: {} }, taskTemplate } });
  }, by);
  const asked = { kind: ObjectKind.SERVICE, reference: "g" };
  const { settled, summary, findings } = why(store.current(), asked);
  assert.equal(settled, false);
  assert.match(summary ?? "", /^0 of 0 tasks are running: none of 3 nodes is suitable; refused by constraint: 2 /u);
  assert.match(summary ?? "", /ready: 1 \(its availability is drain\)$/u);
  assert.equal(findings?.[0]?.facts?.["nearest_node"], "host-b");
  assert.match(findings?.[0]?.fix ?? "", /skep node update --label-add disk=ssd host-b/u);

  await store.update((tx) => tx.edit("node", "b", (draft) => (draft.spec!.labels = { zone: "a", disk: "ssd" })), by);
  assert.equal(why(store.current(), asked).settled, true, "its task is on the way");
});

test("of a global job the nodes that have completed it are counted once", async () => {
  const { store } = new StoreCluster();
  await store.update((tx) => {
    tx.create("service", { id: "j", spec: { name: "j", mode: { globalJob: {} } }, jobStatus: { jobIteration: 0 } });
    for (const [id, state] of [
      ["a", TaskState.COMPLETE],
      ["b", TaskState.COMPLETE],
      ["c", TaskState.RUNNING],
    ] as const) {
      tx.create("node", node(id));
      tx.create("task", {
        id: `t${id}`,
        serviceId: "j",
        nodeId: id,
        desiredState: TaskState.COMPLETE,
        status: { state },
      });
    }
  }, by);
  const view = store.current();
  const { runningTasks, desiredTasks, completedTasks } = countsOf(view, view.get("service", "j")!);
  // Clients show "running/desired (completed/desired + completed)".
  assert.deepEqual([runningTasks, desiredTasks, completedTasks], [1, 1, 2]);
  const { summary } = why(view, { kind: ObjectKind.SERVICE, reference: "j" });
  assert.match(summary ?? "", /^2 of 3 tasks have completed: /u);
});
