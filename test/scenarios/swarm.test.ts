/** Managers, agents and what is between them: stories of a whole control plane under virtual time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { replicated, SwarmWorld } from "../support/swarm-world.ts";

test("a service's tasks reach RUNNING on the nodes, and stop when the service goes", async () => {
  const world = await new SwarmWorld({ managers: 1, workers: 3 }).start();
  assert.deepEqual(
    [1, 2, 3].map((at) => world.nodeState(`node${at}`)),
    ["NODE_READY", "NODE_READY", "NODE_READY"],
  );
  world.service("web", replicated(5));
  assert.ok(await world.until(2000, () => world.running("web").length === 5));
  assert.equal(
    [...world.nodes.values()].reduce((sum, node) => sum + node.running("web"), 0),
    5,
  );
  world.write((tx) => tx.edit("service", "web", (draft) => (draft.pendingDelete = true)));
  assert.ok(await world.until(5000, () => world.tasks("web").length === 0));
  assert.ok(await world.until(5000, () => [...world.nodes.values()].every(({ host }) => host.containers.size === 0)));
  await world.stop();
});
