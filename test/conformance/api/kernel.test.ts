import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ApiWorld } from "../../support/api-world.ts";

let world: ApiWorld;

before(async () => {
  world = await ApiWorld.open();
});
after(() => world.close());

test("ping tells version and standing, with and without a body", async () => {
  const head = await world.send({ method: "HEAD", path: "/_ping" });
  assert.equal(head.status, 200);
  assert.equal(head.headers["api-version"], "1.50");
  assert.equal(head.headers["swarm"], "active/manager");
  const get = await world.send({ method: "GET", path: "/v1.41/_ping" });
  assert.equal(get.text, "OK");
});

test("a service is created, listed, inspected, updated and removed", async () => {
  const made = await world.send({
    method: "POST",
    path: "/v1.50/services/create",
    body: { Name: "web", TaskTemplate: { ContainerSpec: { Image: "bb:1" } }, Mode: { Replicated: { Replicas: 2 } } },
  });
  assert.equal(made.status, 201, made.text);
  const { ID } = made.body as { ID: string };
  const list = await world.send({ method: "GET", path: "/v1.50/services?status=true" });
  const [listed] = list.body as { ServiceStatus: object }[];
  assert.deepEqual(listed?.ServiceStatus, { RunningTasks: 0, DesiredTasks: 2, CompletedTasks: 0 });
  const one = await world.send({ method: "GET", path: `/v1.50/services/${ID.slice(0, 5)}?insertDefaults=true` });
  const { Version, Spec } = one.body as { Version: { Index: number }; Spec: object };
  const updated = await world.send({
    method: "POST",
    path: `/services/web/update?version=${Version.Index}`,
    body: { ...Spec, Labels: { a: "b" } },
  });
  assert.equal(updated.status, 200, updated.text);
  const gone = await world.send({ method: "DELETE", path: "/services/web" });
  assert.equal(gone.status, 200, gone.text);
  assert.equal((await world.send({ method: "GET", path: "/services/web" })).status, 404);
  for (const path of ["/nodes", "/swarm", "/info", "/networks", "/secrets", "/version", "/tasks"]) {
    const found = await world.send({ method: "GET", path });
    assert.equal(found.status, 200, `${path} ${found.text}`);
  }
  assert.deepEqual(world.bugs, []);
});
