/** Orchestrator and scheduler together, over a store, with agents that do what they are told. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { skep } from "../../proto/index.ts";
import { FailureAction, LoopWorld, replicated, TaskState, type Task } from "../support/loop-world.ts";

const { NodeState, RestartCondition, UpdateOrder } = skep.objects;

test("a service gets its replicas, spread over the nodes", async () => {
  const world = new LoopWorld({ nodes: 3 });
  world.service("web", replicated(6));
  assert.ok(await world.until(5000, () => world.running("web").length === 6));
  const perNode = new Map<string, number>();
  for (const { nodeId } of world.running("web")) perNode.set(nodeId, (perNode.get(nodeId) ?? 0) + 1);
  assert.deepEqual([...perNode.values()], [2, 2, 2]);
  assert.deepEqual(slotsOf(world.running("web")), [1, 2, 3, 4, 5, 6]);
  const [task] = world.running("web");
  assert.equal(task?.name, `web.${task?.slot}.${task?.id}`);
  assert.equal(task?.desiredState, TaskState.RUNNING);
  await world.stop();
});

const image = (spec: skep.objects.ServiceSpec.$Properties, name: string): void => {
  spec.taskTemplate = { ...spec.taskTemplate, containerSpec: { image: name } };
};
const imagesOf = (world: LoopWorld, id: string): string[] => [
  ...new Set(world.running(id).map((task) => task.spec?.containerSpec?.image ?? "")),
];
const second = { seconds: 1 };
const slotsOf = (tasks: readonly Task[]): number[] => tasks.map(({ slot }) => slot).toSorted((a, b) => a - b);

test("scaling takes the lowest free slots, and removes from the fullest nodes first", async () => {
  const world = new LoopWorld({ nodes: 2 });
  world.service("web", replicated(3));
  assert.ok(await world.until(5000, () => world.running("web").length === 3));
  world.update("web", (spec) => (spec.mode = { replicated: { replicas: 2 } }));
  await world.run(3000);
  const left = world.tasks("web");
  assert.equal(left.length, 2, "what was scaled away leaves no history");
  assert.equal(new Set(left.map(({ nodeId }) => nodeId)).size, 2);
  assert.equal(world.updateState("web"), "UPDATE_NONE", "scaling is no update");
  world.update("web", (spec) => (spec.mode = { replicated: { replicas: 5 } }));
  assert.ok(await world.until(5000, () => world.running("web").length === 5));
  assert.deepEqual(slotsOf(world.running("web")), [1, 2, 3, 4, 5]);
  await world.stop();
});

test("a failing task is restarted after its delay, up to max-attempts, and history is kept for that", async () => {
  const world = new LoopWorld();
  const restartPolicy = { delay: { seconds: 3 }, maxAttempts: 2 };
  world.service("web", replicated(1, "crash", { taskTemplate: { containerSpec: { image: "crash" }, restartPolicy } }));
  await world.run(1);
  assert.ok(await world.until(5000, () => world.tasks("web").length === 2));
  const [held] = world.tasks("web").filter(({ desiredState }) => desiredState === TaskState.READY);
  assert.ok(held?.hold?.restartDelay?.untilUs, "it says until when it waits");
  await world.run(60_000);
  const tasks = world.tasks("web");
  assert.equal(tasks.length, 3, "the first one and two attempts");
  assert.ok(tasks.every(({ status }) => status?.state === TaskState.FAILED));
  await world.stop();
});

test("max-attempts holds for global services, too", async () => {
  const world = new LoopWorld({ nodes: 2 });
  const restartPolicy = { delay: { nanos: 1e8 }, maxAttempts: 1 };
  world.service("agent", { mode: { global: {} }, taskTemplate: { containerSpec: { image: "crash" }, restartPolicy } });
  await world.run(60_000);
  assert.equal(world.tasks("agent").length, 4);
  await world.stop();
});

test("a task that keeps failing is tried less and less, and its history stays bounded", async () => {
  const world = new LoopWorld();
  const restartPolicy = { delay: { nanos: 1e8 } };
  world.service("web", { ...replicated(1), taskTemplate: { containerSpec: { image: "crash" }, restartPolicy } });
  let created = 0;
  world.check((change) => (created += Number(change.kind === "task" && change.act === "create")));
  await world.run(600_000);
  assert.ok(created < 40, `${created} attempts in ten minutes`);
  assert.ok(world.tasks("web").length <= 5);
  await world.stop();
});

test("the loops leave room in the log for others, however much there is to do", async () => {
  const world = new LoopWorld({ nodes: 3 });
  const { store } = world;
  const open = new Map<string, number>();
  const most = new Map<string, number>();
  const transact = store.transact.bind(store);
  store.transact = (change, options, done) => {
    const { actor } = options;
    open.set(actor, (open.get(actor) ?? 0) + 1);
    most.set(actor, Math.max(most.get(actor) ?? 0, open.get(actor) ?? 0));
    transact(change, options, (outcome) => {
      open.set(actor, (open.get(actor) ?? 0) - 1);
      done(outcome);
    });
  };
  for (let at = 0; at < 30; at++) world.service(`s${at}`, replicated(200));
  await world.run(20_000);
  for (let at = 0; at < 30; at++) assert.equal(world.running(`s${at}`).length, 200);
  // 1,500 steps and the entry that goes beyond them, of up to 500; and six batches.
  assert.ok((most.get("orchestrator") ?? 0) <= 9, `${most.get("orchestrator")} entries of the orchestrator at once`);
  assert.ok((most.get("scheduler") ?? 0) <= 6, `${most.get("scheduler")} entries of the scheduler at once`);
  await world.stop();
});

test("a task that keeps failing is tried less and less without a restart delay, too", async () => {
  const world = new LoopWorld();
  const restartPolicy = { delay: {} };
  world.service("web", { ...replicated(1), taskTemplate: { containerSpec: { image: "crash" }, restartPolicy } });
  let created = 0;
  world.check((change) => (created += Number(change.kind === "task" && change.act === "create")));
  await world.run(600_000);
  assert.ok(created > 8 && created < 40, `${created} attempts in ten minutes`);
  for (const task of world.tasks("web"))
    if (task.desiredState === TaskState.RUNNING) assert.equal(task.status?.reason, null, "it waits for nothing");
  await world.stop();
});

test("a lost node's tasks run elsewhere, and its old ones are stopped when it is back", async () => {
  const world = new LoopWorld({ nodes: 3 });
  world.service("web", replicated(3));
  assert.ok(await world.until(5000, () => world.running("web").length === 3));
  world.lose("node-1");
  assert.ok(
    await world.until(5000, () => world.running("web").filter(({ nodeId }) => nodeId !== "node-1").length === 3),
  );
  world.regain("node-1");
  await world.run(5000);
  assert.equal(world.tasks("web").filter(({ status }) => status?.state === TaskState.RUNNING).length, 3);
  await world.stop();
});

test("a drained node is left, one stop first, and a paused one keeps what it has", async () => {
  const world = new LoopWorld({ nodes: 2 });
  world.service("web", replicated(4));
  assert.ok(await world.until(5000, () => world.running("web").length === 4));
  world.setAvailability("node-2", skep.objects.NodeAvailability.PAUSE);
  await world.run(2000);
  assert.equal(world.running("web").filter(({ nodeId }) => nodeId === "node-2").length, 2);
  world.setAvailability("node-2", skep.objects.NodeAvailability.DRAIN);
  assert.ok(
    await world.until(5000, () => world.running("web").filter(({ nodeId }) => nodeId === "node-1").length === 4),
  );
  await world.stop();
});

test("a global service has one task on each node that fits, also on those that come later", async () => {
  const world = new LoopWorld({ nodes: 3 });
  world.service("agent", {
    mode: { global: {} },
    taskTemplate: { containerSpec: { image: "ok" }, placement: { constraints: ["node.hostname!=node-2"] } },
  });
  assert.ok(await world.until(5000, () => world.running("agent").length === 2));
  world.addNode("node-4");
  assert.ok(await world.until(5000, () => world.running("agent").length === 3));
  world.setAvailability("node-1", skep.objects.NodeAvailability.DRAIN);
  await world.run(3000);
  assert.deepEqual(
    world
      .running("agent")
      .map(({ nodeId }) => nodeId)
      .sort(),
    ["node-3", "node-4"],
  );
  assert.ok(world.tasks("agent").every((task) => task.name === `agent.${task.nodeId}.${task.id}`));
  await world.stop();
});

test("a job completes each slot once, no more than max-concurrent at a time, and runs again when it is updated", async () => {
  const world = new LoopWorld();
  world.service("job", {
    mode: { replicatedJob: { maxConcurrent: 2, totalCompletions: 5 } },
    taskTemplate: { containerSpec: { image: "job" } },
  });
  let most = 0;
  const done = (iteration: number) => () =>
    world
      .tasks("job")
      .filter(({ status, jobIteration }) => jobIteration === iteration && status?.state === TaskState.COMPLETE)
      .length === 5;
  const look = (): void => {
    most = Math.max(most, world.tasks("job").filter(({ status }) => (status?.state ?? 0) <= TaskState.RUNNING).length);
  };
  assert.ok(await world.until(60_000, done(0), look));
  assert.equal(most, 2);
  assert.deepEqual(slotsOf(world.tasks("job")), [0, 1, 2, 3, 4]);
  for (let iteration = 1; iteration < 9; iteration++) {
    world.update("job", () => {});
    assert.ok(await world.until(60_000, done(iteration), look));
  }
  await world.run(5000);
  assert.equal(world.tasks("job").length, 25, "five of each slot are kept, of all iterations together");
  await world.stop();
});

test("a global job runs once on each node, and a failed one again", async () => {
  const world = new LoopWorld({ nodes: 3 });
  world.service("job", { mode: { globalJob: {} }, taskTemplate: { containerSpec: { image: "job" } } });
  assert.ok(
    await world.until(
      20_000,
      () => world.tasks("job").filter(({ status }) => status?.state === TaskState.COMPLETE).length === 3,
    ),
  );
  await world.run(20_000);
  assert.equal(world.tasks("job").length, 3);
  world.service("bad", {
    mode: { replicatedJob: { totalCompletions: 1 } },
    taskTemplate: { containerSpec: { image: "fails-job" }, restartPolicy: { delay: second, maxAttempts: 2 } },
  });
  await world.run(60_000);
  assert.equal(world.tasks("bad").length, 3);
  await world.stop();
});

for (const order of [UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST]) {
  test(`an update of parallelism two changes two slots at a time (${UpdateOrder[order]})`, async () => {
    const world = new LoopWorld({ nodes: 3 });
    world.service("web", replicated(6, "ok", { updateConfig: { parallelism: 2, order, delay: second } }));
    assert.ok(await world.until(5000, () => world.running("web").length === 6));
    world.update("web", (spec) => image(spec, "ok:2"));
    let least = 6;
    let most = 0;
    const look = (): void => {
      const running = world.tasks("web").filter(({ status }) => status?.state === TaskState.RUNNING).length;
      least = Math.min(least, running);
      most = Math.max(most, running);
    };
    assert.ok(await world.until(60_000, () => world.updateState("web") === "UPDATE_COMPLETED", look));
    await world.run(1000);
    assert.deepEqual(imagesOf(world, "web"), ["ok:2"]);
    assert.equal(world.running("web").length, 6);
    if (order === UpdateOrder.START_FIRST) assert.equal(least, 6);
    else assert.ok(least >= 4, `${least} were running at the least`);
    if (order === UpdateOrder.STOP_FIRST) assert.equal(most, 6);
    else assert.ok(most <= 8, `${most} were running at the most`);
    await world.stop();
  });
}

test("an update to a bad image pauses, and the old task that it would have replaced still runs", async () => {
  const world = new LoopWorld();
  world.service("web", replicated(3));
  assert.ok(await world.until(5000, () => world.running("web").length === 3));
  world.update("web", (spec) => image(spec, "reject"));
  assert.ok(await world.until(60_000, () => world.updateState("web") === "UPDATE_PAUSED"));
  await world.run(120_000);
  assert.equal(world.running("web").length, 3);
  const message = world.store.current().get("service", "web")?.updateStatus?.message ?? "";
  assert.match(message, /^update paused due to failure or early termination of task \w{25}$/);
  // What is asked for next takes the place of the update that is paused.
  world.update("web", (spec) => image(spec, "ok:3"));
  assert.ok(await world.until(60_000, () => world.updateState("web") === "UPDATE_COMPLETED"));
  assert.deepEqual(imagesOf(world, "web"), ["ok:3"]);
  await world.stop();
});

test("an update that fails while it is watched rolls back by itself, and older specs are kept", async () => {
  const world = new LoopWorld();
  const updateConfig = { failureAction: FailureAction.ROLLBACK, parallelism: 2, maxFailureRatio: 0.1 };
  world.service("web", replicated(4, "ok:1", { updateConfig }));
  assert.ok(await world.until(5000, () => world.running("web").length === 4));
  world.update("web", (spec) => image(spec, "ok:2"));
  assert.ok(await world.until(60_000, () => world.updateState("web") === "UPDATE_COMPLETED"));
  world.update("web", (spec) => image(spec, "crash"));
  const message = (): string => world.store.current().get("service", "web")?.updateStatus?.message ?? "";
  assert.ok(await world.until(60_000, () => world.updateState("web") === "ROLLBACK_STARTED"));
  while (world.updateState("web") === "ROLLBACK_STARTED") {
    assert.match(message(), /^update rolled back due to failure or early termination of task /u, "why, all the while");
    await world.run(100);
  }
  assert.equal(world.updateState("web"), "ROLLBACK_COMPLETED");
  assert.deepEqual(imagesOf(world, "web"), ["ok:2"]);
  assert.equal(world.running("web").length, 4);
  const service = world.store.current().get("service", "web");
  assert.deepEqual(
    service?.previousSpecs.map((spec) => spec.taskTemplate?.containerSpec?.image),
    ["ok:1"],
  );
  world.rollBack("web");
  assert.ok(
    await world.until(
      60_000,
      () => world.updateState("web") === "ROLLBACK_COMPLETED" && imagesOf(world, "web")[0] === "ok:1",
    ),
  );
  await world.stop();
});

test("an update that goes on in spite of failures reaches the last slot", async () => {
  const world = new LoopWorld();
  world.service("web", replicated(3, "ok", { updateConfig: { failureAction: FailureAction.CONTINUE } }));
  assert.ok(await world.until(5000, () => world.running("web").length === 3));
  world.update("web", (spec) => image(spec, "crash"));
  assert.ok(await world.until(120_000, () => world.updateState("web") === "UPDATE_COMPLETED"));
  assert.ok(
    world
      .tasks("web")
      .filter(({ desiredState }) => desiredState < TaskState.SHUTDOWN)
      .every((task) => task.spec?.containerSpec?.image === "crash"),
  );
  await world.stop();
});

test("a replacement that fits no node stops nothing: the update pauses, and the task says why", async () => {
  const world = new LoopWorld({ nodes: 2, nanoCpus: 1e9 });
  world.service("web", replicated(2));
  assert.ok(await world.until(5000, () => world.running("web").length === 2));
  world.update(
    "web",
    (spec) => (spec.taskTemplate = { ...spec.taskTemplate, resources: { reservations: { nanoCpus: 2e9 } } }),
  );
  assert.ok(
    await world.until(5000, () => world.tasks("web").some(({ status }) => status?.reason?.noSuitableNode != null)),
  );
  const pending = world.tasks("web").find(({ status }) => status?.state === TaskState.PENDING);
  assert.equal(pending?.status?.err, "no suitable node (insufficient resources on 2 nodes)");
  assert.deepEqual(pending?.status?.reason?.noSuitableNode?.nearestMiss, ["1 CPUs are free, 2 are wanted"]);
  assert.ok(await world.until(120_000, () => world.updateState("web") === "UPDATE_PAUSED"));
  assert.equal(world.running("web").length, 2);
  await world.stop();
});

test("a stop-first replacement may take the place that its predecessor leaves", async () => {
  const world = new LoopWorld({ nodes: 2, nanoCpus: 1e9 });
  const taskTemplate = { containerSpec: { image: "ok" }, resources: { reservations: { nanoCpus: 1e9 } } };
  const endpointSpec = { ports: [{ targetPort: 80, publishedPort: 8080, publishMode: skep.objects.PublishMode.HOST }] };
  world.service("web", { ...replicated(2), taskTemplate, endpointSpec });
  world.service("agent", {
    mode: { global: {} },
    taskTemplate: { containerSpec: { image: "ok" }, placement: { maxReplicas: 1 } },
  });
  assert.ok(await world.until(5000, () => world.running("web").length === 2 && world.running("agent").length === 2));
  for (const id of ["web", "agent"])
    world.update(id, (spec) => (spec.taskTemplate = { ...spec.taskTemplate, containerSpec: { image: "ok:2" } }));
  assert.ok(
    await world.until(
      60_000,
      () => world.updateState("web") === "UPDATE_COMPLETED" && world.updateState("agent") === "UPDATE_COMPLETED",
    ),
  );
  assert.deepEqual([...imagesOf(world, "web"), ...imagesOf(world, "agent")], ["ok:2", "ok:2"]);
  await world.stop();
});

test("a task waits with its reason until a node fits, also after a change of the service's labels", async () => {
  const world = new LoopWorld({ nodes: 1 });
  world.service("web", {
    ...replicated(1),
    taskTemplate: { containerSpec: { image: "ok" }, placement: { constraints: ["node.labels.disk==nvme"] } },
  });
  assert.ok(
    await world.until(
      1000,
      () => world.tasks("web")[0]?.status?.err === "no suitable node (scheduling constraints not satisfied on 1 node)",
    ),
  );
  world.update("web", (spec) => (spec.labels = { changed: "yes" }));
  await world.run(10_000);
  world.editNode("node-1", (node) => (node.spec = { ...node.spec, labels: { disk: "nvme" } }));
  assert.ok(await world.until(2000, () => world.running("web").length === 1));
  await world.stop();
});

test("the enforcer takes tasks off a node that does not fit any more, by the service's constraints of now", async () => {
  const world = new LoopWorld({ nodes: 2 });
  const taskTemplate = { containerSpec: { image: "ok" }, placement: { constraints: ["node.labels.disk==ssd"] } };
  world.service("web", { ...replicated(2), taskTemplate });
  assert.ok(await world.until(5000, () => world.running("web").length === 2));
  world.editNode("node-1", (node) => (node.spec = { ...node.spec, labels: {} }));
  await world.run(100);
  const [evicted] = world.tasks("web").filter(({ status }) => status?.state === TaskState.REJECTED);
  assert.equal(evicted?.status?.err, "assigned node no longer meets constraints");
  assert.equal(evicted?.status?.reason?.failure?.code, "TASK_EVICTED");
  assert.ok(
    await world.until(20_000, () => world.running("web").filter(({ nodeId }) => nodeId === "node-2").length === 2),
  );
  await world.stop();
});

test("the enforcer goes through more tasks than it looks at in one turn, and a node that only comes and goes keeps its", async () => {
  const world = new LoopWorld({ nodes: 11 });
  const taskTemplate = {
    containerSpec: { image: "ok" },
    placement: { constraints: ["node.labels.disk==ssd"] },
    restartPolicy: { condition: RestartCondition.RESTART_NONE },
  };
  world.service("web", { ...replicated(1100), taskTemplate });
  assert.ok(await world.until(30_000, () => world.running("web").length === 1100));
  for (const state of [NodeState.NODE_DISCONNECTED, NodeState.NODE_READY])
    world.editNode("node-1", (node) => (node.status = { ...node.status, state }));
  await world.run(1000);
  assert.equal(world.running("web").length, 1100);
  for (let at = 1; at <= 11; at++) world.editNode(`node-${at}`, (node) => (node.spec = { ...node.spec, labels: {} }));
  await world.run(1000);
  const evicted = world.tasks("web").filter(({ status }) => status?.reason?.failure?.code === "TASK_EVICTED");
  assert.equal(evicted.length, 1100);
  await world.stop();
});

test("a change of placement alone restarts only the tasks whose node does not fit", async () => {
  const world = new LoopWorld({ nodes: 2 });
  world.service("web", replicated(2));
  assert.ok(await world.until(5000, () => world.running("web").length === 2));
  const before = new Map(world.running("web").map((task) => [task.nodeId, task.id]));
  world.update(
    "web",
    (spec) => (spec.taskTemplate = { ...spec.taskTemplate, placement: { constraints: ["node.hostname==node-1"] } }),
  );
  assert.ok(
    await world.until(60_000, () => world.running("web").filter(({ nodeId }) => nodeId === "node-1").length === 2),
  );
  assert.ok(world.running("web").some(({ id }) => id === before.get("node-1")));
  await world.stop();
});

test("a service whose constraints change moves as it wants to be updated, and serves meanwhile", async () => {
  const world = new LoopWorld({ nodes: 2 });
  const at = (node: string): skep.objects.TaskSpec.$Properties => ({
    containerSpec: { image: "ok" },
    placement: { constraints: [`node.hostname==${node}`] },
  });
  const updateConfig = { parallelism: 1, order: UpdateOrder.START_FIRST, monitor: { seconds: 1 } };
  world.service("web", { ...replicated(4), taskTemplate: at("node-1"), updateConfig });
  assert.ok(await world.until(5000, () => world.running("web").length === 4));
  world.update("web", (spec) => (spec.taskTemplate = at("node-2")));
  let fewest = Infinity;
  const moved = (count: number) => (): boolean => {
    fewest = Math.min(fewest, world.running("web").length);
    return world.running("web").filter(({ nodeId }) => nodeId === "node-2").length >= count;
  };
  assert.ok(await world.until(60_000, moved(1)));
  // A node whose facts change meanwhile is looked at: tasks that are to be replaced stay until they are.
  world.editNode("node-1", (node) => (node.spec = { ...node.spec, labels: { disk: "nvme" } }));
  assert.ok(await world.until(60_000, moved(4)));
  assert.equal(fewest, 4);
  assert.deepEqual(
    world.tasks("web").filter(({ status }) => status?.state === TaskState.REJECTED),
    [],
  );
  await world.stop();
});

test("a service that is removed takes its tasks along, and one that waits for that goes last", async () => {
  const world = new LoopWorld();
  world.service("web", replicated(3));
  world.service("db", replicated(1));
  assert.ok(await world.until(5000, () => world.running("web").length === 3));
  world.write((tx) => tx.edit("service", "web", (draft) => (draft.pendingDelete = true)));
  world.write((tx) => tx.remove("service", "db"));
  await world.run(3000);
  assert.equal(world.store.current().count("task"), 0);
  assert.equal(world.store.current().count("service"), 0);
  await world.stop();
});

test("a new leader goes on with the update where the old one was", async () => {
  const world = new LoopWorld();
  world.service("web", replicated(6, "ok", { updateConfig: { parallelism: 1 } }));
  assert.ok(await world.until(5000, () => world.running("web").length === 6));
  world.update("web", (spec) => image(spec, "ok:2"));
  assert.ok(await world.until(60_000, () => imagesOf(world, "web").length === 2));
  await world.failOver();
  assert.ok(await world.until(60_000, () => world.updateState("web") === "UPDATE_COMPLETED"));
  assert.deepEqual(imagesOf(world, "web"), ["ok:2"]);
  assert.equal(world.store.current().get("service", "web")?.updateStatus?.total, 6);
  await world.stop();
});

test("placement is the same for the same seed", async () => {
  const placements = async (): Promise<string[]> => {
    const world = new LoopWorld({ seed: 7, nodes: 5 });
    world.service("web", replicated(7));
    assert.ok(await world.until(5000, () => world.running("web").length === 7));
    await world.stop();
    return world.running("web").map(({ id, nodeId }) => `${id} ${nodeId}`);
  };
  assert.deepEqual(await placements(), await placements());
});
