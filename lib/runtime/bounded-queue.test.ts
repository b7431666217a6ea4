import assert from "node:assert/strict";
import { test } from "node:test";

import { BoundedQueue, QueueClosed, ResyncQueue } from "./bounded-queue.ts";

const never = new AbortController().signal;

test("offer() refuses when the queue is full by number or by weight, and an overweight item goes alone", () => {
  const queue = new BoundedQueue<string>({ name: "q", itemsMax: 3, weightMax: 10, weigh: (text) => text.length });
  assert.equal(queue.offer("12345678901234567890"), true);
  assert.equal(queue.offer("a"), false);
  assert.equal(queue.take(), "12345678901234567890");
  assert.equal(queue.weight, 0);
  assert.deepEqual(
    ["aa", "bb", "cc", "dd"].map((text) => queue.offer(text)),
    [true, true, true, false],
  );
  assert.equal(queue.weight, 6);
  queue.take();
  assert.equal(queue.offer("1234567"), false);
  assert.equal(queue.offer("123456"), true);
});

test("push() waits for room in the order of asking, and offer() does not overtake those who wait", async () => {
  const queue = new BoundedQueue<number>({ name: "q", itemsMax: 1 });
  await queue.push(1, never);
  const done: number[] = [];
  const second = queue.push(2, never).then(() => done.push(2));
  const third = queue.push(3, never).then(() => done.push(3));
  assert.equal(queue.offer(9), false);
  assert.equal(queue.take(), 1);
  assert.equal(queue.offer(9), false);
  assert.equal(queue.take(), 2);
  assert.equal(queue.take(), 3);
  await Promise.all([second, third]);
  assert.deepEqual(done, [2, 3]);
  assert.equal(queue.take(), undefined);
});

test("a cancelled push() adds nothing and lets the next one through", async () => {
  const queue = new BoundedQueue<number>({ name: "q", itemsMax: 4, weightMax: 4, weigh: (n) => n });
  await queue.push(3, never);
  const stop = new AbortController();
  const heavy = queue.push(4, stop.signal);
  const light = queue.push(1, never);
  stop.abort();
  await assert.rejects(heavy, { name: "AbortError" });
  await light;
  assert.deepEqual([queue.take(), queue.take(), queue.take()], [3, 1, undefined]);
});

test("drain() gives items in order, waits for more, and ends when the queue is closed and empty", async () => {
  const queue = new BoundedQueue<number>({ name: "q", itemsMax: 8 });
  const seen: number[] = [];
  const reading = (async () => {
    for await (const item of queue.drain(never)) seen.push(item);
  })();
  for (const item of [1, 2, 3]) await queue.push(item, never);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(seen, [1, 2, 3]);
  queue.offer(4);
  queue.close();
  queue.close();
  await reading;
  assert.deepEqual(seen, [1, 2, 3, 4]);
  assert.throws(
    () => queue.offer(5),
    (error) => error instanceof QueueClosed && error.code === "QUEUE_CLOSED",
  );
});

test("closing wakes those who wait to push, and an error of closing ends the consumer", async () => {
  const queue = new BoundedQueue<number>({ name: "q", itemsMax: 1 });
  queue.offer(1);
  const waiting = queue.push(2, never);
  queue.close(new Error("peer gone"));
  await assert.rejects(waiting, QueueClosed);
  await assert.rejects(queue.push(3, never), QueueClosed);
  const drained = queue.drain(never);
  assert.deepEqual(await drained.next(), { done: false, value: 1 });
  await assert.rejects(drained.next(), /peer gone/);
});

test("a waiting consumer is woken by its signal and may come back", async () => {
  const queue = new BoundedQueue<number>({ name: "q", itemsMax: 1 });
  const stop = new AbortController();
  const waiting = queue.drain(stop.signal).next();
  stop.abort();
  await assert.rejects(waiting, { name: "AbortError" });
  const again = queue.drain(never).next();
  queue.offer(1);
  assert.equal((await again).value, 1);
});

test("a queue of 100,000 items empties in linear time and in order", () => {
  const queue = new BoundedQueue<number>({ name: "q", itemsMax: 100_000 });
  for (let i = 0; i < 100_000; i++) queue.offer(i);
  for (let i = 0; i < 100_000; i++) assert.equal(queue.take(), i);
});

test("a consumer that falls behind is told once to resync, and sees what was offered after that", async () => {
  const queue = new ResyncQueue<number>({ name: "watch", itemsMax: 2 });
  for (const item of [1, 2, 3, 4]) queue.offer(item);
  assert.equal(queue.size, 0);
  assert.equal(queue.resyncs, 1);
  const drained = queue.drain(never);
  assert.deepEqual((await drained.next()).value, { kind: "resync" });
  queue.offer(5);
  assert.deepEqual((await drained.next()).value, { kind: "item", item: 5 });
  const waiting = drained.next();
  queue.offer(6);
  assert.deepEqual((await waiting).value, { kind: "item", item: 6 });
  queue.close();
  assert.equal((await drained.next()).done, true);
});
