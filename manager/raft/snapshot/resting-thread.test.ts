import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test, type TestContext } from "node:test";
import { meta } from "../../../test/support/log-rig.ts";
import { RestingThread, type Thread } from "./resting-thread.ts";
import type { Act } from "./desk.ts";
import type { SnapshotRequestMessage, SnapshotWorkerData } from "./snapshot-worker.ts";

const data = { folder: "f", keys: [{ id: 1 }], activeId: 1, compress: true } as unknown as SnapshotWorkerData;

class FakeThread extends EventEmitter {
  readonly data: SnapshotWorkerData;
  readonly asked: SnapshotRequestMessage[] = [];
  ended = false;

  constructor(data: SnapshotWorkerData) {
    super();
    this.data = data;
  }

  postMessage(message: SnapshotRequestMessage): void {
    this.asked.push(message);
  }

  terminate(): Promise<number> {
    this.ended = true;
    this.emit("exit", 0);
    return Promise.resolve(0);
  }
}

class World {
  readonly threads: FakeThread[] = [];
  readonly told: unknown[] = [];
  exits = 0;
  readonly resting: RestingThread;
  readonly #timers: TestContext["mock"]["timers"];
  #id = 0;

  constructor(context: TestContext) {
    this.#timers = context.mock.timers;
    this.#timers.enable({ apis: ["setTimeout"] });
    this.resting = new RestingThread(data, (now) => {
      const thread = new FakeThread(now);
      this.threads.push(thread);
      return thread as unknown as Thread;
    });
    this.resting.on("message", (report) => this.told.push(report));
    this.resting.on("exit", () => this.exits++);
    this.last.emit("message", { kind: "opened", metas: [], damaged: [] });
  }

  get last(): FakeThread {
    return this.threads.at(-1)!;
  }

  post(message: SnapshotRequestMessage): void {
    this.resting.postMessage(message, []);
  }

  ask(act: Act, argument: unknown, answer: unknown): void {
    const id = ++this.#id;
    this.post({ id, act, argument });
    this.last.emit("message", { kind: "answer", id, answer });
  }

  wait(): void {
    this.#timers.tick(60_000);
  }
}

test("a thread that nobody needs ends, and the next request starts another, whose opening nobody hears of", (context) => {
  const world = new World(context);
  world.ask("keysInUse", undefined, []);
  const told = world.told.length;
  world.wait();
  assert.equal(world.threads[0]?.ended, true);
  assert.equal(world.exits, 0);
  world.post({ id: 99, act: "begin", argument: meta(5, 1) });
  assert.equal(world.threads.length, 2);
  world.last.emit("message", { kind: "opened", metas: [], damaged: [] });
  assert.equal(world.told.length, told);
  assert.equal(world.last.asked.length, 1);
});

test("it does not end while something is asked, open, or received and not installed", (context) => {
  const world = new World(context);
  world.post({ id: 99, act: "keysInUse", argument: undefined });
  world.wait();
  assert.equal(world.last.ended, false);
  world.last.emit("message", { kind: "answer", id: 99, answer: [] });
  for (const [open, close] of [
    ["begin", "finish"],
    ["begin", "abort"],
    ["openReader", "closeReader"],
    ["openReceiver", "suspend"],
  ] as const) {
    world.ask(open, meta(5, 1), { handle: 7 });
    world.wait();
    assert.equal(world.last.ended, false, open);
    world.ask(close, { handle: 7 }, undefined);
  }
  world.ask("openReceiver", {}, { handle: 8 });
  world.ask("finishReceive", { handle: 8 }, undefined);
  world.wait();
  assert.equal(world.last.ended, false);
  world.ask("install", meta(5, 1), undefined);
  world.wait();
  assert.equal(world.last.ended, true);
});

test("the next thread seals with the key that was in use last", (context) => {
  const world = new World(context);
  world.ask("useKey", { id: 2 }, undefined);
  world.wait();
  world.ask("keysInUse", undefined, []);
  assert.deepEqual(
    [world.last.data.keys.map(({ id }) => id), world.last.data.activeId, world.threads.length],
    [[1, 2], 2, 2],
  );
});

test("closed while it rests it is over", async (context) => {
  const world = new World(context);
  world.ask("keysInUse", undefined, []);
  world.wait();
  await world.resting.terminate();
  assert.equal(world.exits, 1);
});

test("a thread that ends by itself is told", (context) => {
  const world = new World(context);
  world.last.emit("exit", 1);
  assert.equal(world.exits, 1);
});
