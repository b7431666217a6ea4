import assert from "node:assert/strict";
import { test } from "node:test";

import { StoreCluster } from "../../test/support/store-cluster.ts";
import { skep } from "../../proto/index.ts";
import { entryBytesMax, isRevoked, removeNode, revokedMax, theCluster, withRevoked } from "./index.ts";

const by = { actor: "test", cause: "test" };
const dayUs = 86_400_000_000;

test("a removed node is refused until its certificate has ended, and a day longer", async () => {
  const { store } = new StoreCluster();
  await store.update((tx) => {
    tx.create("cluster", { id: "c", spec: { name: "default" } });
    tx.create("node", { id: "n1", certificate: { expiresAtUs: tx.timeUs + dayUs } });
    tx.create("node", { id: "n2" });
  }, by);
  await store.update((tx) => removeNode(tx, "n1"), by);
  const view = store.current();
  assert.equal(view.has("node", "n1"), false);
  assert.equal(isRevoked(view, "n1"), true);
  assert.equal(isRevoked(view, "n2"), false);
  const { revokedNodes } = theCluster(view)!;
  assert.equal(revokedNodes.length, 1);
  const after = withRevoked(
    revokedNodes,
    { nodeId: "n3", expiresAtUs: view.timeUs + 9 * dayUs },
    view.timeUs + 3 * dayUs,
  );
  assert.deepEqual(
    after.map(({ nodeId }) => nodeId),
    ["n3"],
    "what has ended is forgotten",
  );
});

test("nodes that come and go do not make the cluster object outgrow an entry, and none of them is let in again", async () => {
  const { store } = new StoreCluster();
  const id = (number: number): string => `node${String(number).padStart(21, "0")}`;
  const count = revokedMax + 20;
  await store.update((tx) => {
    const revokedNodes = Array.from({ length: revokedMax - 10 }, (_, number) => {
      return { nodeId: id(number), expiresAtUs: tx.timeUs + dayUs + number };
    });
    tx.create("cluster", { id: "c", spec: { name: "default" }, revokedNodes });
    for (let number = revokedMax - 10; number < count; number++) tx.create("node", { id: id(number) });
    tx.create("node", { id: "stays" });
  }, by);
  await store.update((tx) => {
    for (let number = revokedMax - 10; number < count; number++) removeNode(tx, id(number));
  }, by);
  const view = store.current();
  const cluster = theCluster(view)!;
  assert.equal(cluster.revokedNodes.length, revokedMax);
  assert.ok(skep.objects.Cluster.encode(cluster).finish().length < entryBytesMax / 4);
  for (let number = 0; number < count; number += 7) assert.equal(isRevoked(view, id(number)), true);
  assert.equal(isRevoked(view, "stays"), false);
});
