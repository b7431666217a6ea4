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
import { Orchestrator } from "../../manager/orchestrator/index.ts";
import { Scheduler } from "../../manager/scheduler/index.ts";
import { skep } from "../../proto/index.ts";
import { Agent, LevelMemory } from "../../worker/agent/index.ts";
import { FakeExecutor, FakeHost } from "../../worker/executor/fake.ts";
import { createClusterPki } from "../support/cluster-pki.ts";
import { by, StoreCluster } from "../support/store-cluster.ts";

const { TaskState } = skep.objects;
const folder = mkdtempSync(join(tmpdir(), "skep-agent-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Looks again with each change of the store. */
async function until(cluster: StoreCluster, isSo: () => boolean): Promise<void> {
  for await (const _ of cluster.store.watch({ signal: AbortSignal.timeout(10_000) })) if (isSo()) return;
  assert.fail("it did not come to be within 10 s");
}

test("a task reaches RUNNING over real connections, is taken up by the agent's next life, and is stopped", async () => {
  const nodeId = "w".repeat(25);
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
  const loops = new LeaderLoops(cluster.store, [
    new Allocator({ ...parts, newId: () => newId(randomFillSync) }),
    new Orchestrator({ ...parts, newId: () => newId(randomFillSync) }),
    new Scheduler({ ...parts, seed: 1 }),
    dispatcher,
  ]);
  loops.open();
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

  const host = new FakeHost({
    clock: realClock,
    behaviour: () => ({ prepareMs: 5 }),
    description: { hostname: "worker", platform: { os: "linux", architecture: "x86_64" } },
  });
  const tls = await pki.worker(nodeId);
  const start = async (): Promise<Agent> => {
    const agent = new Agent({
      nodeId,
      memory: await LevelMemory.open(join(folder, "tasks")),
      executor: new FakeExecutor(host),
      openChannel: (to) => new Channel({ address: to, tls, expect: { role: "manager" } }),
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
  await loops[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  assert.deepEqual(bugs, []);
});
