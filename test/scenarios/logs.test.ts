/** The output of tasks, from their containers through agents and the leader to whoever reads it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { skep } from "../../proto/index.ts";
import { replicated, SwarmWorld } from "../support/swarm-world.ts";

type Request = skep.control.ILogsRequest;

const behaviours = {
  chatty: { output: ["one", "two", "three"] },
  ticking: { outputEveryMs: 100 },
  done: { output: ["bye"], runMs: 200 },
};

/** A reader that takes what comes. */
class Reader {
  readonly lines: string[] = [];
  readonly messages: skep.control.ILogsMessage[] = [];
  readonly stop = new AbortController();
  ended = false;

  constructor(world: SwarmWorld, request: Request) {
    void this.#read(world, { stdout: true, stderr: true, ...request });
  }

  get warnings(): string[] {
    return this.messages.flatMap(({ warnings }) => warnings ?? []);
  }

  async #read(world: SwarmWorld, request: Request): Promise<void> {
    try {
      for await (const message of world.leader!.logs.read(request, this.stop.signal)) {
        this.messages.push(message);
        for (const { text } of message.lines ?? [])
          this.lines.push(
            Buffer.from(text ?? [])
              .toString()
              .trimEnd(),
          );
      }
    } catch (error) {
      if (!this.stop.signal.aborted) throw error;
    } finally {
      this.ended = true;
    }
  }
}

test("logs of a service come from all its tasks, with task and node, and end when every node has told", async () => {
  const world = await new SwarmWorld({ workers: 3, behaviours }).start();
  world.service("web", replicated(4, "chatty"));
  assert.ok(await world.until(2000, () => world.running("web").length === 4));
  const all = new Reader(world, { services: ["web"] });
  const tail = new Reader(world, { tasks: [world.tasks("web")[0]!.id], tail: 2 });
  assert.ok(await world.until(1000, () => all.ended && tail.ended));
  assert.equal(all.lines.length, 12);
  const seen = all.messages.flatMap(({ lines }) => lines ?? []);
  assert.deepEqual(
    new Set(seen.map(({ taskId, nodeId, serviceId, stream }) => `${taskId} ${nodeId} ${serviceId} ${stream}`)),
    new Set(world.tasks("web").map(({ id, nodeId }) => `${id} ${nodeId} web 1`)),
  );
  assert.deepEqual(tail.lines, ["two", "three"]);
  assert.equal(world.leader!.logs.readers, 0);
  await world.stop();
});

test("a follower of a service hears of tasks that come later, until it leaves; one of a task, until that ends", async () => {
  const world = await new SwarmWorld({ workers: 2, behaviours }).start();
  world.service("web", replicated(1, "done"));
  const service = new Reader(world, { services: ["web"], follow: true });
  assert.ok(await world.until(1000, () => service.lines.length === 1));
  const task = new Reader(world, { tasks: [world.tasks("web")[0]!.id], follow: true });
  assert.ok(await world.until(1000, () => task.ended));
  assert.deepEqual(task.lines, ["bye"]);
  // It is restarted after its delay, as another task.
  assert.ok(await world.until(8000, () => service.lines.length === 2));
  assert.equal(service.ended, false);
  service.stop.abort();
  assert.ok(await world.until(500, () => service.ended));
  await world.stop();
});

test("the last lines are asked for of tasks that are there; of those that come later, all", async () => {
  const world = await new SwarmWorld({ workers: 2, behaviours }).start();
  world.service("web", replicated(1, "chatty"));
  assert.ok(await world.until(2000, () => world.running("web").length === 1));
  const asked: (number | null | undefined)[] = [];
  const { dispatcher } = world.leader!;
  const subscribe = dispatcher.subscribeLogs.bind(dispatcher);
  dispatcher.subscribeLogs = (nodeId, subscription) => {
    asked.push(...(subscription.tasks ?? []).map(({ tail }) => tail));
    return subscribe(nodeId, subscription);
  };
  const reader = new Reader(world, { services: ["web"], follow: true, tail: 0 });
  await world.run(200);
  assert.deepEqual([asked.splice(0), reader.lines.length], [[0], 0]);
  world.update("web", (spec) => (spec.mode = { replicated: { replicas: 2 } }));
  assert.ok(await world.until(2000, () => reader.lines.length === 3));
  assert.deepEqual(asked, [undefined]);
  reader.stop.abort();
  await world.stop();
});

test("a node that is away is told of, and goes on where it was when it comes back", async () => {
  const world = await new SwarmWorld({ workers: 2, behaviours }).start();
  world.service("web", replicated(2, "ticking"));
  assert.ok(await world.until(2000, () => world.running("web").length === 2));
  const away = world.node("node1");
  const reader = new Reader(world, { services: ["web"], follow: true });
  await world.run(1000);
  assert.ok(reader.lines.length >= 18);
  await away.kill();
  await world.run(1000);
  assert.match(reader.warnings.join(), /node node1 is not reached any more/);
  const shortRead = new Reader(world, { services: ["web"] });
  assert.ok(await world.until(500, () => shortRead.ended));
  assert.match(shortRead.warnings.join(), /node node1 is not reached: output of its tasks is missing/);
  away.start();
  await world.run(2000);
  const ofNode = reader.messages
    .flatMap(({ lines }) => lines ?? [])
    .filter(({ nodeId }) => nodeId === "node1")
    .map(({ text }) => Buffer.from(text ?? []).toString());
  assert.deepEqual(
    ofNode,
    ofNode.map((_, at) => `line ${at + 1}\n`),
  );
  assert.ok(ofNode.length > 30);
  reader.stop.abort();
  await world.run(200);
  await world.stop();
});

test("a node's lines for another node's task are not believed", async () => {
  const world = await new SwarmWorld({ workers: 2, behaviours }).start();
  world.service("web", replicated(2, "chatty"));
  assert.ok(await world.until(2000, () => world.running("web").length === 2));
  const asked: skep.dispatcher.LogSubscription.$Properties[] = [];
  const { dispatcher, logs } = world.leader!;
  const subscribe = dispatcher.subscribeLogs.bind(dispatcher);
  dispatcher.subscribeLogs = (nodeId, subscription) => {
    asked.push(subscription);
    return subscribe(nodeId, subscription);
  };
  const reader = new Reader(world, { services: ["web"], follow: true });
  assert.ok(await world.until(1000, () => reader.lines.length === 6));
  const other = world.tasks("web").find(({ nodeId }) => nodeId === "node2")!;
  const stream = { pause: () => {}, resume: () => {}, end: () => {} };
  const events = logs.connect(stream as never, "node1");
  events.message({ subscriptionId: asked[0]!.id ?? "", taskId: other.id, lines: [{ text: Buffer.from("lie") }] });
  const unknown = logs.connect(stream as never, "node1");
  assert.throws(() => unknown.message({ subscriptionId: "guess" }), { code: "LOG_STREAM_UNKNOWN" });
  await world.run(500);
  assert.equal(reader.lines.length, 6);
  reader.stop.abort();
  await world.run(200);
  await world.stop();
});

test("a reader is told when its manager does not lead any more", async () => {
  const world = await new SwarmWorld({ managers: 3, workers: 2, behaviours }).start();
  world.service("web", replicated(2, "ticking"));
  assert.ok(await world.until(2000, () => world.running("web").length === 2));
  const reader = new Reader(world, { services: ["web"], follow: true });
  await world.run(500);
  world.cluster.group.elect(world.managers[1]!.member.log);
  assert.ok(await world.until(500, () => reader.ended));
  assert.match(reader.warnings.join(), /does not lead any more/);
  await world.run(100);
  const again = new Reader(world, { services: ["web"], follow: true });
  assert.ok(await world.until(12_000, () => again.lines.length > 20));
  again.stop.abort();
  await world.run(200);
  await world.stop();
});
