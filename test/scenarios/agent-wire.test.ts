/** Dispatcher and agent over real connections with certificates, and the agent's memory in a real folder. */
import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { newId } from "../../lib/pure/id.ts";
import { Random } from "../../lib/pure/prng.ts";
import { Channel, RpcServer } from "../../lib/rpc/index.ts";
import { realClock, silentLogger } from "../../lib/runtime/index.ts";
import { Allocator } from "../../manager/allocator/index.ts";
import { Dispatcher, serveDispatcher } from "../../manager/dispatcher/index.ts";
import { LeaderLoops } from "../../manager/leadership.ts";
import { LogBroker, serveLogs } from "../../manager/logs/index.ts";
import { Orchestrator } from "../../manager/orchestrator/index.ts";
import { Scheduler } from "../../manager/scheduler/index.ts";
import { skep } from "../../proto/index.ts";
import { Agent, LevelMemory, MapMemory } from "../../worker/agent/index.ts";
import { FakeExecutor, FakeHost, type FakeBehaviour } from "../../worker/executor/fake.ts";
import { createClusterPki } from "../support/cluster-pki.ts";
import { by, StoreCluster, turn } from "../support/store-cluster.ts";

const { TaskState } = skep.objects;
const folder = mkdtempSync(join(tmpdir(), "skep-agent-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Looks again with each change of the store. */
async function until(cluster: StoreCluster, isSo: () => boolean): Promise<void> {
  for await (const _ of cluster.store.watch({ signal: AbortSignal.timeout(60_000) })) if (isSo()) return;
  assert.fail("it did not come to be within 60 s");
}

const nodeId = "w".repeat(25);

/** One manager that leads, served over mutual TLS on loopback. */
async function serve(): Promise<{
  readonly cluster: StoreCluster;
  readonly logs: LogBroker;
  readonly address: string;
  readonly openChannel: (to: string) => Channel;
  readonly close: () => Promise<void>;
}> {
  const pki = await createClusterPki();
  const bugs: unknown[] = [];
  const server = new RpcServer({ tls: await pki.manager(1), wallMs: Date.now, onBug: (_path, bug) => bugs.push(bug) });
  const address = `127.0.0.1:${await server.listen("127.0.0.1:0")}`;
  const cluster = new StoreCluster();
  const parts = { store: cluster.store, clock: realClock, logger: silentLogger };
  const dispatcher = new Dispatcher({
    ...parts,
    random: new Random(1),
    newId: () => newId(randomFillSync),
    managers: () => [{ nodeId: "m", addr: address, leader: true }],
  });
  serveDispatcher(server, dispatcher);
  const logs = new LogBroker({ store: cluster.store, sessions: dispatcher, newId: () => newId(randomFillSync) });
  serveLogs(server, logs);
  const loops = new LeaderLoops(cluster.store, [
    new Allocator({ ...parts, newId: () => newId(randomFillSync) }),
    new Orchestrator({ ...parts, newId: () => newId(randomFillSync) }),
    new Scheduler({ ...parts, seed: 1 }),
    dispatcher,
  ]);
  loops.open();
  const tls = await pki.worker(nodeId);
  return {
    cluster,
    logs,
    address,
    openChannel: (to) => new Channel({ address: to, tls, expect: { role: "manager" } }),
    close: async () => {
      await loops[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      assert.deepEqual(bugs, []);
    },
  };
}

function hostOf(behaviour: FakeBehaviour): FakeHost {
  return new FakeHost({
    clock: realClock,
    behaviour: () => behaviour,
    description: { hostname: "worker", platform: { os: "linux", architecture: "x86_64" } },
  });
}

test("a task reaches RUNNING over real connections, is taken up by the agent's next life, and is stopped", async () => {
  const { cluster, address, openChannel, close } = await serve();
  await cluster.store.update((tx) => {
    tx.create("cluster", { id: "c", spec: { name: "default" } });
    tx.create("node", { id: nodeId, spec: { name: "worker" } });
    tx.create("secret", { id: "password", spec: { name: "password", data: Buffer.from("hunter2") } });
    const secrets = [{ secretId: "password", secretName: "password", file: { name: "password" } }];
    const pullOptions = { registryAuth: "do-not-store" };
    const containerSpec = { image: "ok", secrets, pullOptions };
    const spec = { name: "web", mode: { replicated: { replicas: 1 } }, taskTemplate: { containerSpec } };
    tx.create("service", { id: "web", specVersion: 1, spec });
  }, by);

  const host = hostOf({ prepareMs: 5 });
  const start = async (): Promise<Agent> => {
    const agent = new Agent({
      nodeId,
      memory: await LevelMemory.open(join(folder, "tasks")),
      executor: new FakeExecutor(host),
      openChannel,
      managers: [address],
      clock: realClock,
      random: new Random(2),
      logger: silentLogger,
    });
    await agent.open();
    return agent;
  };
  const states = (): readonly number[] =>
    [...cluster.store.current().find("task", "service", "web")].map((task) => task.status?.state ?? 0);

  const first = await start();
  await until(cluster, () => states()[0] === TaskState.RUNNING);
  const node = cluster.store.current().get("node", nodeId);
  assert.equal(node?.status?.addr, "127.0.0.1");
  assert.equal(node.description?.hostname, "worker");
  assert.deepEqual(first.managers, [address]);
  await first[Symbol.asyncDispose]();
  assert.equal([...host.containers.values()][0]?.state, "running");
  const onDisk = readdirSync(join(folder, "tasks")).map((name) => readFileSync(join(folder, "tasks", name), "latin1"));
  assert.ok(onDisk.some((text) => text.includes("web.1.")));
  assert.ok(!onDisk.some((text) => text.includes("do-not-store") || text.includes("hunter2")));

  const second = await start();
  assert.equal(second.tasks[0]?.status.state, TaskState.RUNNING);
  await cluster.store.update((tx) => tx.edit("service", "web", (draft) => (draft.pendingDelete = true)), by);
  await until(cluster, () => states().length === 0);
  assert.equal(cluster.store.current().has("service", "web"), false);
  await second[Symbol.asyncDispose]();
  await close();
});

test("a reader of logs that does not read stops the node from reading them, and then misses nothing", async () => {
  const { cluster, logs, address, openChannel, close } = await serve();
  const lines = 20_000;
  const host = hostOf({ output: Array.from({ length: lines }, (_, at) => `${at} `.padEnd(1000, "x")) });
  const executor = new FakeExecutor(host);
  const controller = executor.controller.bind(executor);
  let read = 0;
  executor.controller = (task, needs) => {
    const made = controller(task, needs);
    const own = made.logs.bind(made);
    made.logs = async function* (options, signal) {
      for await (const line of own(options, signal)) {
        read++;
        yield line;
      }
    };
    return made;
  };
  await cluster.store.update((tx) => {
    tx.create("cluster", { id: "c", spec: { name: "default" } });
    tx.create("node", { id: nodeId, spec: { name: "worker" } });
    const spec = {
      name: "web",
      mode: { replicated: { replicas: 1 } },
      taskTemplate: { containerSpec: { image: "ok" } },
    };
    tx.create("service", { id: "web", specVersion: 1, spec });
  }, by);
  const agent = new Agent({
    nodeId,
    memory: new MapMemory(),
    executor,
    openChannel,
    managers: [address],
    clock: realClock,
    random: new Random(2),
    logger: silentLogger,
  });
  await agent.open();
  const tasks = (): readonly skep.objects.Task[] => [...cluster.store.current().find("task", "service", "web")];
  await until(cluster, () => tasks()[0]?.status?.state === TaskState.RUNNING);
  const messages = logs.read({ services: ["web"], stdout: true, stderr: true }, AbortSignal.timeout(120_000));
  const texts: string[] = [];
  const take = (message: skep.control.ILogsMessage): void => {
    for (const { text } of message.lines ?? []) texts.push(Buffer.from(text ?? []).toString());
  };
  const first = await messages.next();
  if (first.done !== true) take(first.value);
  // Until nothing has moved for a long while, by the turns of the loop.
  for (let quiet = 0, seen = read; quiet < 2000; quiet = seen === read ? quiet + 1 : 0) {
    seen = read;
    await turn();
  }
  assert.ok(read < 6000, `${read} lines of 1 KB were read ahead`);
  for await (const message of messages) take(message);
  assert.equal(texts.length, lines);
  assert.ok(texts.every((text, at) => text.startsWith(`${at} `)));
  await agent[Symbol.asyncDispose]();
  await close();
});
