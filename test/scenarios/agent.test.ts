/** Agents: what they do without managers, after a restart, and with tasks that do not do as they should. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { StreamEvents } from "../../lib/rpc/index.ts";
import { VirtualClock } from "../../lib/runtime/index.ts";
import type { skep } from "../../proto/index.ts";
import { AgentSession, type AgentChannel } from "../../worker/agent/session.ts";
import { replicated, SwarmWorld, TaskState, type Task } from "../support/swarm-world.ts";

const behaviours = {
  crash: { runMs: 300, exitCode: 3 },
  reject: { rejected: true },
  unstartable: { startFails: true },
  flaky: { temporaryFailures: 3 },
  greedy: { runMs: 50, exitCode: 137, oomKilled: true },
  buggy: { breaks: true },
  job: { runMs: 200 },
  stubborn: { stopMs: 5000 },
};

const stateOf = (task: Task | undefined): string => TaskState[task?.status?.state ?? 0] ?? "";

test("an error before STARTING rejects a task, one after it fails it, a temporary one is tried again each second", async () => {
  const world = await new SwarmWorld({ behaviours }).start();
  const never = { restartPolicy: { condition: 2 } };
  for (const image of ["crash", "reject", "unstartable", "flaky", "job"])
    world.service(image, replicated(1, image, { taskTemplate: { containerSpec: { image }, ...never } }));
  await world.run(1500);
  const [crash, reject, unstartable, flaky, job] = ["crash", "reject", "unstartable", "flaky", "job"].map(
    (id) => () => world.tasks(id)[0],
  );
  assert.deepEqual(
    [crash, reject, unstartable, job].map((look) => stateOf(look!())),
    ["FAILED", "REJECTED", "FAILED", "COMPLETE"],
  );
  assert.equal(crash!()?.status?.err, "task: non-zero exit (3)");
  assert.equal(crash!()?.status?.reason?.failure?.code, "TASK_EXITED");
  assert.equal(crash!()?.status?.containerStatus?.exitCode, 3);
  assert.equal(reject!()?.status?.reason?.failure?.code, "REFUSED");
  assert.match(unstartable!()?.status?.err ?? "", /its program does not exist/);
  assert.equal(stateOf(flaky!()), "STARTING");
  assert.match(flaky!()?.status?.err ?? "", /the host is busy/);
  await world.run(2500);
  assert.deepEqual([stateOf(flaky!()), flaky!()?.status?.err], ["RUNNING", ""]);
  await world.stop();
});

test("without managers tasks go on, end and are stopped by nobody; what happened is said when one is back", async () => {
  const world = await new SwarmWorld({ workers: 1, behaviours }).start();
  world.service("web", replicated(2));
  world.service("job", {
    mode: { replicatedJob: { totalCompletions: 1 } },
    taskTemplate: { containerSpec: { image: "job" } },
  });
  assert.ok(await world.until(2000, () => world.running("web").length === 2 && world.running("job").length === 1));
  const node = world.node("node1");
  node.cut();
  await world.run(60_000);
  assert.equal(node.running("web"), 2);
  assert.equal(node.running("job"), 0);
  assert.equal(stateOf(world.tasks("job")[0]), "RUNNING", "nobody could hear of its end");
  assert.ok((node.agent?.unacknowledged ?? 0) > 0);
  node.heal();
  assert.ok(await world.until(12_000, () => world.tasks("job").some((task) => stateOf(task) === "COMPLETE")));
  await world.run(500);
  assert.equal(node.agent?.unacknowledged, 0);
  await world.stop();
});

test("an agent takes up what runs before it reaches a manager, and what ended meanwhile is said later", async () => {
  const world = await new SwarmWorld({ workers: 1, behaviours: { long: { runMs: 3000, exitCode: 4 } } }).start();
  const never = { restartPolicy: { condition: 2 } };
  world.service("web", replicated(1));
  world.service("long", replicated(1, "long", { taskTemplate: { containerSpec: { image: "long" }, ...never } }));
  assert.ok(await world.until(2000, () => world.running("web").length === 1 && world.running("long").length === 1));
  const node = world.node("node1");
  await node.kill();
  node.cut();
  await world.run(4000);
  assert.equal(node.running("web"), 1);
  node.start();
  await world.run(100);
  const known = new Map(node.agent!.tasks.map(({ task, status }) => [task.serviceId, status.state]));
  assert.deepEqual([known.get("web"), known.get("long")], [TaskState.RUNNING, TaskState.FAILED]);
  assert.equal(node.agent!.isConnected, false);
  node.heal();
  assert.ok(await world.until(12_000, () => stateOf(world.tasks("long")[0]) === "FAILED"));
  assert.equal(world.running("web").length, 1);
  assert.equal(world.tasks("web").length, 1, "it was never started anew");
  await world.stop();
});

test("after a reboot tasks that ran have failed, and their service gets new ones", async () => {
  const world = await new SwarmWorld({ workers: 1 }).start();
  world.service("web", replicated(1));
  assert.ok(await world.until(2000, () => world.running("web").length === 1));
  const node = world.node("node1");
  const [first] = world.tasks("web");
  await node.kill();
  node.host.reboot();
  node.host.containers.clear();
  node.start();
  assert.ok(await world.until(12_000, () => stateOf(world.store.current().get("task", first!.id)) === "FAILED"));
  assert.equal(world.store.current().get("task", first!.id)?.status?.reason?.failure?.code, "TASK_LOST");
  assert.ok(await world.until(10_000, () => world.running("web").length === 1));
  await world.stop();
});

test("an agent that has forgotten everything takes up the containers of its tasks, and removes those of nobody", async () => {
  const world = await new SwarmWorld({ workers: 1 }).start();
  world.service("web", replicated(2));
  world.service("old", replicated(1));
  assert.ok(await world.until(2000, () => world.running("web").length === 2 && world.running("old").length === 1));
  const node = world.node("node1");
  await node.kill();
  node.forget();
  const before = new Set(world.tasks("web").map(({ id }) => id));
  world.write((tx) => {
    for (const task of tx.find("task", "service", "old")) tx.remove("task", task.id);
    tx.remove("service", "old");
  });
  await world.run(100);
  node.start();
  assert.ok(await world.until(12_000, () => node.running("old") === 0));
  assert.equal(node.running("web"), 2);
  await world.run(500);
  assert.deepEqual(new Set(world.running("web").map(({ id }) => id)), before);
  await world.stop();
});

test("complete assignments stop what is not in them", async () => {
  const world = await new SwarmWorld({ workers: 1 }).start();
  world.service("web", replicated(2));
  assert.ok(await world.until(2000, () => world.running("web").length === 2));
  const node = world.node("node1");
  node.cut();
  await world.run(20_000);
  world.write((tx) => {
    for (const task of tx.find("task", "service", "web")) tx.remove("task", task.id);
    tx.remove("service", "web");
  });
  await world.run(1000);
  assert.equal(node.running(), 2);
  node.heal();
  assert.ok(await world.until(12_000, () => node.host.containers.size === 0));
  assert.equal(node.agent?.tasks.length, 0);
  await world.stop();
});

test("a stop that is under way is not begun again when the task is dropped: its grace period goes on", async () => {
  const world = await new SwarmWorld({ workers: 1, behaviours }).start();
  world.service("web", replicated(1, "stubborn"));
  assert.ok(await world.until(2000, () => world.running("web").length === 1));
  const [task] = world.tasks("web");
  world.write((tx) => tx.edit("task", task!.id, (draft) => (draft.desiredState = TaskState.SHUTDOWN)));
  await world.run(3000);
  world.write((tx) => tx.remove("task", task!.id));
  assert.ok(await world.until(2500, () => !world.node("node1").host.containers.has(task!.id)));
  await world.stop();
});

test("an update whose new tasks wait at READY starts them only when the old ones have stopped", async () => {
  const world = await new SwarmWorld({ workers: 2, behaviours }).start();
  world.service("web", replicated(3, "stubborn:1"));
  assert.ok(await world.until(2000, () => world.running("web").length === 3));
  world.update("web", (spec) => (spec.taskTemplate = { containerSpec: { image: "ok:2" } }));
  let most = 0;
  let held = 0;
  const look = (): void => {
    const running = [...world.nodes.values()].reduce((sum, node) => sum + node.running("web"), 0);
    most = Math.max(most, running);
    held = Math.max(held, world.tasks("web").filter((task) => stateOf(task) === "READY").length);
  };
  const isNew = (task: Task): boolean => task.spec?.containerSpec?.image === "ok:2";
  assert.ok(await world.until(60_000, () => world.running("web").filter(isNew).length === 3, look));
  assert.deepEqual([most, held], [3, 1]);
  await world.stop();
});

test("a task that is out of memory says so, and a bug of the executor fails the task and not the agent", async () => {
  const world = await new SwarmWorld({ behaviours }).start();
  const never = { restartPolicy: { condition: 2 } };
  for (const image of ["greedy", "buggy"])
    world.service(image, replicated(1, image, { taskTemplate: { containerSpec: { image }, ...never } }));
  await world.run(1500);
  const failure = (id: string): skep.objects.TaskFailure.$Properties | null | undefined =>
    world.tasks(id)[0]?.status?.reason?.failure;
  assert.deepEqual([failure("greedy")?.code, failure("greedy")?.oomKilled], ["TASK_OOM_KILLED", true]);
  assert.equal(failure("buggy")?.code, "TASK_ACT_FAILED");
  assert.equal(stateOf(world.tasks("buggy")[0]), "FAILED");
  assert.equal(world.nodeState("node1"), "NODE_READY");
  await world.stop();
});

test("a manager that does not answer, or leaves heartbeats unanswered, is left", async () => {
  const clock = new VirtualClock();
  const handlers = { welcome: () => {}, message: () => {}, drained: () => {}, goodbye: () => {} };
  let events: StreamEvents<skep.dispatcher.ManagerMessage.$Properties> | undefined;
  const sent: skep.dispatcher.AgentMessage.$Properties[] = [];
  const channel = {
    open: (_method: unknown, given: unknown) => {
      events = given as typeof events;
      return { write: (message: skep.dispatcher.AgentMessage.$Properties) => sent.push(message), abort: () => {} };
    },
    [Symbol.dispose]: () => {},
  } as unknown as AgentChannel;
  const open = (): AgentSession => new AgentSession({ address: "m", channel, clock, hello: {}, handlers });
  const silent = open();
  clock.advance(5000);
  const codeOf = async (session: AgentSession): Promise<string | undefined> => (await session.ended)?.code;
  assert.equal(await codeOf(silent), "SESSION_BROKEN");
  const session = open();
  sent.length = 0;
  events?.message({ welcome: { heartbeatPeriod: { seconds: 2 } } });
  clock.advance(2000);
  events?.message({ heartbeatAck: { period: { seconds: 1 } } });
  clock.advance(1000);
  clock.advance(1000);
  assert.equal(sent.filter(({ heartbeat }) => heartbeat != null).length, 3);
  clock.advance(1000);
  assert.equal(await codeOf(session), "SESSION_BROKEN");
});
