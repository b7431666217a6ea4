/** Tables of the data plane: what nodes are told of whom, and that nothing is stopped while it is still sent something. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { nodeAddresses, nodeNumberMax } from "../../lib/pure/node-number.ts";
import { why } from "../../manager/control/why.ts";
import { skep } from "../../proto/index.ts";
import {
  NodeAvailability,
  NodeState,
  replicated,
  SwarmWorld,
  TaskState,
  type SimNode,
  type Task,
} from "../support/swarm-world.ts";

const { UpdateOrder } = skep.objects;
const { ObjectKind } = skep.control;

/** A world with a network, and a service in it that publishes a port. */
async function open(options: ConstructorParameters<typeof SwarmWorld>[0] = {}): Promise<SwarmWorld> {
  const world = await new SwarmWorld({ workers: 3, dataPlane: { applyMs: 5 }, ...options }).start();
  world.write((tx) => tx.create("network", { id: "net", spec: { name: "net", attachable: true } }));
  await world.run(200);
  return world;
}

const web = (replicas: number, more: skep.objects.ServiceSpec.$Properties = {}): skep.objects.ServiceSpec.$Properties =>
  replicated(replicas, "ok", {
    taskTemplate: { containerSpec: { image: "ok:1" }, networks: [{ target: "net", aliases: ["w"] }] },
    endpointSpec: { ports: [{ targetPort: 80, publishedPort: 8080 }] },
    ...more,
  });

const serving = (node: SimNode, networkId: string): string[] =>
  [...node.kernel.endpoints.values()]
    .filter((record) => record.networkId === networkId && record.serving)
    .map(({ taskId }) => taskId)
    .sort();

const ingressOf = (world: SwarmWorld): string =>
  [...world.store.current().list("network")].find(({ spec }) => spec?.ingress === true)?.id ?? "";

test("every node has a number, and is told of every node", async () => {
  const world = await open();
  const numbers = [...world.store.current().list("node")].map(({ number }) => number);
  assert.deepEqual(
    numbers.toSorted((a, b) => a - b),
    [1, 2, 3],
  );
  for (const node of world.nodes.values()) {
    assert.deepEqual([...node.kernel.peers.keys()].sort(), ["node1", "node2", "node3"]);
    assert.equal(node.kernel.peers.get("node2")?.addr, "10.9.0.2");
  }
  const gone = world.node("node3");
  void gone.kill();
  world.nodes.delete("node3");
  world.write((tx) => tx.remove("node", "node3"));
  await world.run(300);
  assert.deepEqual([...world.node("node1").kernel.peers.keys()].sort(), ["node1", "node2"]);
  world.addNode("node4").start();
  await world.run(500);
  assert.equal(world.node("node1").kernel.peers.get("node4")?.number, 4, "a number is used again as late as possible");
  await world.stop();
});

test("a node is told of the networks that its tasks are in, and of the mesh; what serves is what runs and is wanted", async () => {
  const world = await open();
  world.write((tx) => tx.create("network", { id: "other", spec: { name: "other" } }));
  world.service("web", web(3));
  world.service("lone", replicated(1, "ok", { taskTemplate: { networks: [{ target: "other" }] } }));
  assert.ok(await world.until(5000, () => world.running("web").length === 3 && world.running("lone").length === 1));
  await world.run(300);
  const ids = world
    .running("web")
    .map(({ id }) => id)
    .sort();
  const mesh = ingressOf(world);
  const [lone] = world.running("lone");
  for (const node of world.nodes.values()) {
    assert.deepEqual(serving(node, "net"), ids);
    assert.deepEqual(serving(node, mesh), ids, "whoever has no task of it, too, leads its port there");
    assert.deepEqual(serving(node, "other"), node.id === lone?.nodeId ? [lone.id] : []);
    assert.equal(node.kernel.services.get(`${mesh}/web`)?.ports[0]?.publishedPort, 8080);
    assert.match(node.kernel.services.get("net/web")?.virtualIp ?? "", /^10\.\d+\.\d+\.\d+\/24$/u);
  }
  for (const task of world.running("web")) {
    const record = world.node("node1").kernel.endpoints.get(`${mesh}/${task.id}`);
    const { number } = world.store.current().get("node", task.nodeId)!;
    const [a, b] = nodeAddresses(number).gatewayBlock.split(".");
    assert.ok(record?.gatewayAddress.startsWith(`${a}.${b}.`), record?.gatewayAddress);
    assert.deepEqual(world.node("node1").kernel.endpoints.get(`net/${task.id}`)?.aliases, ["w"]);
  }
  world.update("lone", (spec) => (spec.mode = { replicated: { replicas: 0 } }));
  await world.run(3000);
  for (const node of world.nodes.values()) {
    const others = [...node.kernel.endpoints.values(), ...node.kernel.services.values()];
    assert.ok(!others.some(({ networkId }) => networkId === "other"), "with its last task a network is forgotten");
  }
  await world.stop();
});

test("a task does not begin before its node's data plane was told who is in its networks", async () => {
  const world = await open({ dataPlane: { applyMs: 400 } });
  world.service("web", web(3));
  let early = 0;
  const look = (): void => {
    for (const node of world.nodes.values())
      for (const id of node.host.started) if (!node.kernel.endpoints.has(`net/${id}`)) early++;
  };
  assert.ok(await world.until(10_000, () => world.running("web").length === 3, look));
  assert.equal(early, 0);
  assert.ok([...world.nodes.values()].every(({ plane }) => plane?.overlapped === false));
  await world.stop();
});

/** When each container got its stop signal, and who would still have sent it something. */
function watchStops(): {
  readonly stops: { readonly atMs: number; readonly task: Task; readonly senders: readonly string[] }[];
  readonly onStop: (node: SimNode, task: Task) => void;
  world: SwarmWorld | undefined;
} {
  const watch = {
    stops: [] as { atMs: number; task: Task; senders: readonly string[] }[],
    world: undefined as SwarmWorld | undefined,
    onStop: (_node: SimNode, task: Task): void => {
      const { world } = watch;
      if (world === undefined) return;
      const senders = [...world.nodes.values()]
        .filter(({ kernel }) => [...kernel.endpoints.values()].some((each) => each.taskId === task.id && each.serving))
        .map(({ id }) => id);
      watch.stops.push({ atMs: world.clock.monotonicMs(), task, senders });
    },
  };
  return watch;
}

for (const order of [UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST]) {
  test(`a rolling update stops nothing that anybody still sends to, and leaves enough that serves (${UpdateOrder[order]})`, async () => {
    const watch = watchStops();
    const world = await open({ dataPlane: { applyMs: 60 }, onStop: watch.onStop });
    watch.world = world;
    world.service("web", web(10, { updateConfig: { parallelism: 2, order, monitor: { seconds: 1 } } }));
    assert.ok(await world.until(10_000, () => world.running("web").length === 10));
    await world.run(500);
    world.update("web", (spec) => {
      spec.taskTemplate = { ...spec.taskTemplate, containerSpec: { image: "ok:2" } };
    });
    const mesh = ingressOf(world);
    let fewest = Infinity;
    let dead = 0;
    const look = (): void => {
      const alive = new Set<string>();
      for (const { host } of world.nodes.values())
        for (const { task, state } of host.containers.values()) if (state === "running") alive.add(task.id);
      for (const node of world.nodes.values())
        for (const network of ["net", mesh]) {
          const ids = serving(node, network);
          fewest = Math.min(fewest, ids.length);
          dead += ids.filter((id) => !alive.has(id)).length;
        }
    };
    const isDone = (): boolean =>
      world.running("web").filter((task) => task.spec?.containerSpec?.image === "ok:2").length === 10 &&
      world.store.current().get("service", "web")?.updateStatus?.state === skep.objects.UpdateState.UPDATE_COMPLETED;
    assert.ok(await world.until(60_000, isDone, look));
    assert.equal(watch.stops.length, 10);
    for (const { senders, task } of watch.stops) assert.deepEqual(senders, [], `task ${task.id} was still sent to`);
    assert.equal(dead, 0, "no node leads to what does not run");
    assert.ok(fewest >= (order === UpdateOrder.START_FIRST ? 10 : 8), `${fewest} served`);
    await world.stop();
  });
}

test("a host that is drained stops nothing that anybody still sends to", async () => {
  const watch = watchStops();
  const world = await open({ onStop: watch.onStop, dataPlane: { applyMs: 60 } });
  watch.world = world;
  world.service("web", web(9));
  assert.ok(await world.until(10_000, () => world.running("web").length === 9));
  await world.run(500);
  world.write((tx) =>
    tx.edit("node", "node2", (draft) => (draft.spec = { ...draft.spec, availability: NodeAvailability.DRAIN })),
  );
  assert.ok(await world.until(20_000, () => world.node("node2").running() === 0 && world.running("web").length === 9));
  assert.equal(watch.stops.length, 3);
  for (const { senders } of watch.stops) assert.deepEqual(senders, []);
  await world.stop();
});

/** One task asked to stop; @returns how long its stop took to arrive. */
async function stopAfter(world: SwarmWorld, stops: { readonly atMs: number }[], ms = 10_000): Promise<number> {
  const startMs = world.clock.monotonicMs();
  world.update("web", (spec) => (spec.mode = { replicated: { replicas: 0 } }));
  assert.ok(await world.until(ms, () => stops.length > 0));
  return (stops[0]?.atMs ?? 0) - startMs;
}

test("a node whose data plane does not answer is waited for two seconds, and no longer", async () => {
  const watch = watchStops();
  const world = await open({ onStop: watch.onStop });
  watch.world = world;
  world.service("web", web(1));
  assert.ok(await world.until(5000, () => world.running("web").length === 1));
  await world.run(500);
  const other = [...world.nodes.values()].find(({ id }) => id !== world.running("web")[0]?.nodeId)!;
  other.plane!.hangs = true;
  const tookMs = await stopAfter(world, watch.stops);
  assert.ok(tookMs >= 2000 && tookMs < 2100, `${tookMs} ms`);
  assert.deepEqual(watch.stops[0]?.senders, [other.id]);
  await world.stop();
});

test("a node whose session breaks meanwhile, or had broken before, is waited for until it is back and does what it is told", async () => {
  for (const breaksMs of [-20, 30]) {
    const watch = watchStops();
    const world = await open({ dataPlane: { applyMs: 150 }, onStop: watch.onStop });
    watch.world = world;
    world.service("web", web(1));
    assert.ok(await world.until(5000, () => world.running("web").length === 1));
    await world.run(1000);
    const other = [...world.nodes.values()].find(({ id }) => id !== world.running("web")[0]?.nodeId)!;
    // Its kernel goes on with what it was told.
    const beginAnew = (): void => {
      void other.kill();
      world.clock.after(400, () => other.start());
    };
    if (breaksMs < 0) {
      beginAnew();
      await world.run(-breaksMs);
    } else world.clock.after(breaksMs, beginAnew);
    const tookMs = await stopAfter(world, watch.stops);
    assert.ok(tookMs >= 350 && tookMs < 1500, `${tookMs} ms`);
    assert.deepEqual(watch.stops[0]?.senders, []);
    await world.stop();
  }
});

test("a node that is removed meanwhile is not waited for, nor is one without a data plane", async () => {
  const watch = watchStops();
  const world = await open({ onStop: watch.onStop });
  watch.world = world;
  world.service("web", web(1));
  assert.ok(await world.until(5000, () => world.running("web").length === 1));
  await world.run(500);
  const other = [...world.nodes.values()].find(({ id }) => id !== world.running("web")[0]?.nodeId)!;
  other.plane!.hangs = true;
  world.clock.after(700, () => world.write((tx) => tx.remove("node", other.id)));
  const tookMs = await stopAfter(world, watch.stops);
  assert.ok(tookMs >= 700 && tookMs < 900, `${tookMs} ms`);
  await world.stop();

  const without = watchStops();
  const plain = await open({ dataPlane: undefined as never, onStop: without.onStop });
  plain.service("web", web(1));
  without.world = plain;
  assert.ok(await plain.until(5000, () => plain.running("web").length === 1));
  assert.ok((await stopAfter(plain, without.stops)) < 100);
  assert.equal(plain.node("node1").kernel.peers.size, 0, "it is told nothing");
  await plain.stop();
});

test("what is desired of a held task may change again; its wait does not begin anew", async () => {
  const watch = watchStops();
  const world = await open({ onStop: watch.onStop });
  watch.world = world;
  world.service("web", web(1));
  assert.ok(await world.until(5000, () => world.running("web").length === 1));
  await world.run(500);
  const [task] = world.running("web");
  const other = [...world.nodes.values()].find(({ id }) => id !== task?.nodeId)!;
  other.plane!.hangs = true;
  world.clock.after(1500, () =>
    world.write((tx) => tx.edit("task", task!.id, (draft) => (draft.desiredState = TaskState.REMOVE))),
  );
  world.write((tx) => tx.edit("task", task!.id, (draft) => (draft.desiredState = TaskState.SHUTDOWN)));
  const startMs = world.clock.monotonicMs();
  assert.ok(await world.until(5000, () => watch.stops.length > 0));
  const tookMs = watch.stops[0]!.atMs - startMs;
  assert.ok(tookMs >= 2000 && tookMs < 2100, `${tookMs} ms`);
  await world.stop();
});

test("a node that comes back is told everything, and its data plane was never emptied meanwhile", async () => {
  const world = await open({ dataPlane: { applyMs: 20, failPercent: 20 } });
  world.service("web", web(6));
  assert.ok(await world.until(10_000, () => world.running("web").length === 6));
  const node = world.node("node1");
  await world.run(5000);
  const before = [...node.kernel.endpoints.keys()];
  assert.ok(before.length >= 12);
  node.cut();
  void node.kill();
  await world.run(100);
  node.start();
  await world.run(500);
  assert.deepEqual(new Set(node.kernel.endpoints.keys()), new Set(before), "from its memory, without managers");
  world.update("web", (spec) => (spec.mode = { replicated: { replicas: 8 } }));
  await world.run(5000);
  node.heal();
  const isSame = (): boolean =>
    world.nodeState("node1") === NodeState[NodeState.NODE_READY] &&
    JSON.stringify(serving(node, "net")) ===
      JSON.stringify(
        world
          .running("web")
          .map(({ id }) => id)
          .sort(),
      ) &&
    world.running("web").length === 8;
  assert.ok(await world.until(60_000, isSame));
  await world.stop();
});

test("a new leader waits for those who still go by what the last one told", async () => {
  const watch = watchStops();
  const world = await open({ managers: 3, onStop: watch.onStop, dataPlane: { applyMs: 150 } });
  watch.world = world;
  world.service("web", web(1));
  assert.ok(await world.until(5000, () => world.running("web").length === 1));
  await world.run(500);
  const [task] = world.running("web");
  // The last act of the leader: nobody hears of it.
  world.write((tx) => tx.edit("task", task!.id, (draft) => (draft.desiredState = TaskState.SHUTDOWN)));
  world.crashLeader("committed", 50);
  assert.ok(await world.until(20_000, () => watch.stops.length > 0));
  assert.deepEqual(watch.stops[0]?.senders, []);
  await world.stop();
});

test("a container of a node's own gets its place in an attachable network, and gives it back", async () => {
  const world = await open();
  world.service("web", web(1));
  assert.ok(await world.until(5000, () => world.running("web").length === 1));
  const node = world.node("node2");
  const { attacher } = node.agent!;
  const never = new AbortController().signal;
  const ask = { containerId: "c1", name: "box", network: "net", aliases: ["b"], addresses: [] };
  let attached: Awaited<ReturnType<typeof attacher.attach>> | undefined;
  let code = "";
  void attacher.attach(ask, never).then((found) => (attached = found));
  assert.ok(await world.until(3000, () => attached !== undefined));
  assert.deepEqual([attached!.network.id, attached!.containerId, attached!.aliases], ["net", "c1", ["b"]]);
  assert.match(attached!.addresses[0] ?? "", /\/24$/u);
  await world.run(200);
  for (const each of world.nodes.values()) {
    const record = each.kernel.endpoints.get(`net/${attached!.taskId}`);
    if (each.id === node.id || each.id === world.running("web")[0]?.nodeId) {
      assert.deepEqual([record?.name, record?.serving, record?.nodeId], ["box", true, "node2"]);
    } else assert.equal(record, undefined);
  }
  let again: typeof attached;
  void attacher.attach(ask, never).then((found) => (again = found));
  await world.run(100);
  assert.equal(again?.taskId, attached!.taskId, "asked again, it is the same");
  void attacher.attach({ ...ask, name: "crate", aliases: ["c"] }, never).then((found) => (again = found));
  await world.run(100);
  assert.equal(again?.taskId, attached!.taskId, "also with another name");
  const renamed = node.kernel.endpoints.get(`net/${attached!.taskId}`);
  assert.deepEqual([renamed?.name, renamed?.aliases], ["crate", ["c"]], "by which others know it from then on");

  for (const [network, addresses] of [
    ["nowhere", []],
    ["ingress", []],
    ["host", []],
    ["net", ["no address"]],
  ] as const) {
    code = "";
    attacher
      .attach({ ...ask, containerId: "c2", network, addresses }, never)
      .catch((error: unknown) => (code = (error as { code: string }).code));
    await world.run(100);
    assert.equal(code, "ATTACH_REFUSED", network);
  }

  const secret = { name: "secret", attachable: true, driver: { options: { encrypted: "" } } };
  world.write((tx) => tx.create("network", { id: "secret", spec: secret }));
  await world.run(100);
  let refusal = "";
  attacher
    .attach({ ...ask, containerId: "c3", network: "secret" }, never)
    .catch((error: unknown) => (refusal = (error as { message: string }).message));
  await world.run(100);
  assert.match(refusal, /network secret: it is encrypted, and this node has no WireGuard$/u);

  // The daemon is restarted: the place is still there, and is still its own.
  await Promise.all([node.kill(), world.run(50)]);
  node.start();
  await world.run(1000);
  assert.deepEqual(
    node.agent!.attacher.attached.map(({ taskId, containerId }) => [taskId, containerId]),
    [[attached!.taskId, "c1"]],
  );
  node.agent!.attacher.detach(attached!.taskId);
  await world.run(1000);
  assert.equal(world.store.current().has("task", attached!.taskId), false, "nothing is kept of it");
  assert.deepEqual(node.agent!.attacher.attached, []);
  assert.equal(world.node("node1").kernel.endpoints.has(`net/${attached!.taskId}`), false);
  await world.stop();
});

test("a place that is given up while it is waited for is given back; one of a removed node is forgotten", async () => {
  const world = await open();
  const { attacher } = world.node("node1").agent!;
  const giveUp = new AbortController();
  let failure = "";
  const ask = { containerId: "c1", name: "box", network: "net", aliases: [], addresses: ["10.0.0.77"] };
  const subnet = world.store.current().get("network", "net")?.ipam?.config?.[0]?.subnet ?? "";
  const address = subnet.replace(/0\/24$/u, "77");
  let first: { readonly addresses: readonly string[] } | undefined;
  void attacher.attach({ ...ask, addresses: [address] }, new AbortController().signal).then((found) => (first = found));
  await world.run(300);
  assert.deepEqual(first?.addresses, [`${address}/24`]);
  attacher
    .attach({ ...ask, containerId: "c2", addresses: [address] }, giveUp.signal)
    .catch((error: unknown) => (failure = String(error)));
  await world.run(300);
  const waiting = [...world.store.current().find("task", "state", String(TaskState.NEW))];
  assert.match(waiting[0]?.status?.err ?? "", /belongs to task/u);
  giveUp.abort();
  await world.run(300);
  assert.match(
    failure,
    /Cannot attach a container to network net: address \S+ belongs to task/u,
    "and says why it waited",
  );
  assert.equal([...world.store.current().find("task", "node", "node1")].length, 1);
  void world.node("node1").kill();
  world.write((tx) => tx.remove("node", "node1"));
  await world.run(500);
  assert.equal([...world.store.current().find("task", "node", "node1")].length, 0);
  await world.stop();
});

test("few addresses that are left are said of the network, and taken back when there are more", async () => {
  const world = await open({ subnetSize: 28 });
  world.service("web", web(9));
  assert.ok(await world.until(5000, () => world.running("web").length === 9));
  const reason = (): skep.objects.AddressPoolFull.$Properties | null | undefined =>
    world.store.current().get("network", "net")?.reason?.addressPoolFull;
  await world.run(100);
  assert.equal(reason(), undefined, "the gateway, a virtual address and nine tasks of fourteen");
  world.update("web", (spec) => (spec.mode = { replicated: { replicas: 10 } }));
  await world.run(1000);
  assert.deepEqual([reason()?.used, reason()?.size], [12, 14]);
  const { settled, findings } = why(world.store.current(), { kind: ObjectKind.SERVICE, reference: "web" });
  assert.deepEqual([settled, findings?.map(({ cause }) => cause)], [true, ["addresses_low"]]);
  world.update("web", (spec) => (spec.mode = { replicated: { replicas: 3 } }));
  await world.run(5000);
  assert.equal(reason(), undefined);
  await world.stop();
});

test("when every node number is in use, a node says so, and gets one as soon as there is one", async () => {
  const world = await open({ workers: 1 });
  for (let at = 0; at < nodeNumberMax - 1; at += 200)
    world.write((tx) => {
      for (let each = at; each < Math.min(at + 200, nodeNumberMax - 1); each++)
        tx.create("node", { id: `filler${each}` });
    });
  await world.run(500);
  world.write((tx) => tx.create("node", { id: "late", spec: { name: "late" } }));
  await world.run(200);
  const late = (): Readonly<skep.objects.Node> => world.store.current().get("node", "late")!;
  assert.equal(late().number, 0);
  assert.equal(late().reason?.addressPoolFull?.used, nodeNumberMax);
  const { findings } = why(world.store.current(), { kind: ObjectKind.NODE, reference: "late" });
  assert.ok(findings?.some(({ cause }) => cause === "no_node_number"));
  const freed = world.store.current().get("node", "filler7")!.number;
  world.write((tx) => tx.remove("node", "filler7"));
  await world.run(200);
  assert.deepEqual([late().number, late().reason], [freed, null]);
  await world.stop();
});

test("a number that two nodes have is kept by the one that came first", async () => {
  const world = await open({ workers: 2, managers: 3 });
  world.write((tx) => tx.edit("node", "node2", (draft) => (draft.number = 1)));
  await world.run(50);
  world.crashLeader("committed", 20);
  await world.run(1000);
  const numbers = ["node1", "node2"].map((id) => world.store.current().get("node", id)?.number);
  assert.deepEqual(numbers, [1, 2]);
  await world.stop();
});
