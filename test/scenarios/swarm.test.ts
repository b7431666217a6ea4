/** Managers, agents and what is between them: stories of a whole control plane under virtual time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClusterSchema, Tx } from "../../manager/store/index.ts";
import type { skep } from "../../proto/index.ts";
import { replicated, SwarmWorld, TaskState, type Task } from "../support/swarm-world.ts";

type ServiceSpec = skep.objects.ServiceSpec.$Properties;

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

const onNetwork = (target: string, image = "ok"): ServiceSpec => ({
  taskTemplate: { containerSpec: { image }, networks: [{ target }] },
});

test("a new cluster has the networks that every cluster has; an ingress network that was removed stays removed", async () => {
  const world = await new SwarmWorld({ managers: 2 }).start();
  const names = (): string[] => [...world.store.current().list("network")].map(({ spec }) => spec?.name ?? "").sort();
  assert.deepEqual(names(), ["bridge", "host", "ingress", "none"]);
  const ingress = world.store.current().first("network", "name", "ingress")!;
  assert.deepEqual([ingress.vni, ingress.ipam?.config?.[0]?.subnet], [4096, "10.0.0.0/24"]);
  world.write((tx) => tx.remove("network", ingress.id));
  await world.run(100);
  world.crashLeader("committed", 300);
  await world.run(5000);
  assert.deepEqual(names(), ["bridge", "host", "none"]);
  await world.stop();
});

test("the ingress network of a new cluster has IPv6 if frames between its nodes go by it", async () => {
  for (const [addr, has6] of [
    ["fd00::1", true],
    ["192.0.2.1", false],
  ] as const) {
    const found = (tx: Tx<ClusterSchema>): void => tx.create("node", { id: "founder", status: { addr } });
    const world = await new SwarmWorld({ managers: 1, workers: 0, found }).start();
    const ingress = world.store.current().first("network", "name", "ingress");
    assert.equal(ingress?.spec?.enableIpv6 ?? false, has6, addr);
    await world.stop();
  }
});

test("tasks that find no address wait with the reason, and go on as soon as one is given back", async () => {
  const world = await new SwarmWorld({ workers: 2 }).start();
  const config = [{ subnet: "10.77.0.0/29" }];
  world.write((tx) => tx.create("network", { id: "net", spec: { name: "net", ipam: { config } } }));
  world.service("web", replicated(7, "ok", onNetwork("net")));
  // Six addresses: the gateway's, the service's, and four for tasks.
  assert.ok(await world.until(3000, () => world.running("web").length === 4));
  await world.run(500);
  const waiting = world.tasks("web").filter((task) => task.status?.state === TaskState.NEW);
  assert.equal(waiting.length, 3);
  for (const { status } of waiting) {
    assert.equal(status?.reason?.addressPoolFull?.networkId, "net");
    assert.match(status?.err ?? "", /6 of 6 addresses of network net are in use/);
  }
  world.write((tx) => {
    const [first] = tx.find("task", "service", "web");
    tx.edit("task", first!.id, (draft) => (draft.desiredState = TaskState.SHUTDOWN));
  });
  assert.ok(
    await world.until(9000, () => world.tasks("web").filter(isNew).length === 3 && world.running("web").length === 4),
  );
  const addresses = world.running("web").map((task) => task.networksAttachments[0]?.addresses?.[0]);
  assert.equal(new Set(addresses).size, 4);
  await world.stop();
});

const isNew = (task: Task): boolean => task.status?.state === TaskState.NEW;

test("a port that another service publishes keeps a service waiting, with the reason, until it is free", async () => {
  const world = await new SwarmWorld().start();
  const publish = { endpointSpec: { ports: [{ targetPort: 80, publishedPort: 8080 }] } };
  world.service("first", replicated(1, "ok", publish));
  assert.ok(await world.until(2000, () => world.running("first").length === 1));
  world.service("second", replicated(1, "ok", publish));
  await world.run(2000);
  const second = (): Readonly<skep.objects.Service> => world.store.current().get("service", "second")!;
  assert.equal(second().reason?.portInUse?.usedBy, "first");
  assert.equal(world.tasks("second")[0]?.status?.reason?.portInUse?.usedBy, "first");
  assert.equal(world.running("second").length, 0);
  world.write((tx) => tx.edit("service", "first", (draft) => (draft.pendingDelete = true)));
  assert.ok(await world.until(5000, () => world.running("second").length === 1));
  assert.equal(second().reason, null);
  assert.equal(second().endpoint?.ports?.[0]?.publishedPort, 8080);
  assert.equal(world.running("second")[0]?.endpoint?.ports?.[0]?.publishedPort, 8080);
  await world.stop();
});

test("a service waits for a network that is missing, and a network that was removed goes with its last task", async () => {
  const world = await new SwarmWorld().start();
  world.service("web", replicated(2, "ok", onNetwork("later")));
  await world.run(1000);
  assert.equal(world.store.current().get("service", "web")?.reason?.dependencyMissing?.reference, "later");
  world.write((tx) => tx.create("network", { id: "later", spec: { name: "later" } }));
  assert.ok(await world.until(2000, () => world.running("web").length === 2));
  assert.equal(world.store.current().get("service", "web")?.endpoint?.virtualIps?.length, 1);
  world.write((tx) => {
    tx.edit("network", "later", (draft) => (draft.pendingDelete = true));
    tx.edit("service", "web", (draft) => (draft.pendingDelete = true));
  });
  assert.ok(await world.until(5000, () => !world.store.current().has("network", "later")));
  assert.equal(world.tasks("web").filter((task) => (task.status?.state ?? 0) <= TaskState.RUNNING).length, 0);
  await world.stop();
});
