import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { type NetworkRecords, type RecordChange } from "./core/index.ts";
import { DataFeed } from "./data-feed.ts";
import { LevelMemory, MapMemory, type TaskMemory } from "./task-memory.ts";

const everything: NetworkRecords = { nodeId: "n", peers: [], endpoints: [], services: [] };
const gone = (key: string): RecordChange => ({ kind: "peer", key, record: undefined });

/** A data plane whose calls are answered by hand. */
function open(): {
  readonly feed: DataFeed;
  readonly clock: VirtualClock;
  /** "all", or the keys of the changes. */
  readonly calls: string[];
  readonly applied: number[];
  readonly answer: (error?: Error) => Promise<void>;
} {
  const clock = new VirtualClock();
  const calls: string[] = [];
  const applied: number[] = [];
  let settle: PromiseWithResolvers<void> | undefined;
  const call = (what: string): Promise<void> => {
    assert.equal(settle, undefined, "one call after the other");
    calls.push(what);
    settle = Promise.withResolvers<void>();
    return settle.promise;
  };
  const feed = new DataFeed({
    plane: {
      replace: () => call("all"),
      change: (changes) => call(changes.map(({ key }) => key).join()),
    },
    clock,
    logger: silentLogger,
    records: () => everything,
    applied: (revision) => applied.push(revision),
    settled: () => {},
  });
  const turn = async (): Promise<void> => {
    for (let round = 0; round < 5; round++) await Promise.resolve();
  };
  const answer = async (error?: Error): Promise<void> => {
    await turn();
    const waiting = settle;
    settle = undefined;
    if (error === undefined) waiting?.resolve();
    else waiting?.reject(error);
    await turn();
  };
  return { feed, clock, calls, applied, answer };
}

test("what comes while a call is under way goes into one call, each record once", async () => {
  const { feed, calls, applied, answer } = open();
  feed.replace(1);
  await answer();
  feed.change([gone("a")], 2);
  await Promise.resolve();
  await Promise.resolve();
  const ticket = feed.change([gone("b"), gone("c")], 3);
  feed.change([gone("b")], 4);
  assert.equal(feed.change([], 5), ticket + 1, "nothing new to wait for");
  await answer();
  assert.equal(feed.hasSettled(ticket), false);
  await answer();
  assert.deepEqual(calls, ["all", "a", "b,c"]);
  assert.deepEqual(applied, [1, 2, 4]);
  assert.equal(feed.hasSettled(ticket + 1), true);
  await feed.close();
});

test("after a failure everything is handed in again, and nothing is said to be applied before that works", async () => {
  const { feed, clock, calls, applied, answer } = open();
  const first = feed.change([gone("a")], 1);
  await answer(new Error("the kernel refused"));
  assert.equal(feed.hasSettled(first), true, "whoever waited asks the data plane itself");
  feed.change([gone("b")], 2);
  await answer();
  assert.deepEqual([calls, applied], [["a", "b"], []]);
  clock.advance(1000);
  await answer(new Error("again"));
  clock.advance(1999);
  await answer();
  assert.deepEqual(calls, ["a", "b", "all"]);
  clock.advance(1);
  await answer();
  assert.deepEqual([calls, applied], [["a", "b", "all", "all"], [2]]);
  feed.change([gone("c")], 3);
  await answer();
  assert.deepEqual(applied, [2, 3]);
  await feed.close();
});

test("a change that fails after everything was handed in for another reason is not said to be applied", async () => {
  const { feed, clock, calls, applied, answer } = open();
  feed.change([gone("a")], 1);
  await answer(new Error("the kernel refused something"));
  // A new session tells everything before the retry is due.
  feed.replace(2);
  await answer();
  assert.deepEqual(applied, [2]);
  feed.change([gone("b")], 3);
  await answer(new Error("the kernel refused something"));
  assert.deepEqual(applied, [2]);
  clock.advance(1000);
  await answer();
  assert.deepEqual(calls, ["a", "all", "b", "all"]);
  assert.deepEqual(applied, [2, 3]);
  await feed.close();
});

test("what an earlier session told is not said to be applied in the next one", async () => {
  const { feed, applied, answer } = open();
  feed.change([gone("a")], 7);
  feed.sessionEnded();
  await answer();
  assert.deepEqual(applied, []);
  feed.replace(1);
  await answer();
  assert.deepEqual(applied, [1]);
  await feed.close();
});

test("a data plane that does not answer is not waited for when the agent ends", async () => {
  const { feed, clock, calls } = open();
  feed.replace(1);
  await Promise.resolve();
  await Promise.resolve();
  assert.deepEqual(calls, ["all"]);
  const closed = feed.close();
  clock.advance(2000);
  await closed;
});

async function remembers(first: TaskMemory, reopen: (memory: TaskMemory) => Promise<TaskMemory>): Promise<void> {
  const item = { endpoint: { networkId: "net", taskId: "t", name: "web.1", serving: true } };
  await first.write([
    { kind: "record", key: "endpoint/net/t", item },
    { kind: "record", key: "peer/n", item: { peer: { nodeId: "n", number: 7 } } },
    { kind: "record", key: "peer/gone", item: { peer: { nodeId: "gone", number: 8 } } },
    { kind: "record", key: "peer/gone", item: undefined },
  ]);
  const next = await reopen(first);
  const found = await next.loadRecords();
  assert.deepEqual(
    found.map(([key, { endpoint, peer }]) => [key, endpoint?.name ?? peer?.number]),
    [
      ["endpoint/net/t", "web.1"],
      ["peer/n", 7],
    ],
  );
  assert.deepEqual(await next.load(), [], "records are no tasks");
  await next.close();
}

test("records are remembered across restarts, on disk and in tests", async () => {
  await remembers(new MapMemory(), (memory) => Promise.resolve(memory));
  const folder = mkdtempSync(join(tmpdir(), "skep-memory-"));
  try {
    await remembers(await LevelMemory.open(folder), async (memory) => {
      await memory.close();
      return LevelMemory.open(folder);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
