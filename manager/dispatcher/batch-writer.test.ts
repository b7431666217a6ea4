import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger, TurnClock, VirtualClock } from "../../lib/runtime/index.ts";
import { Backpressure, type ClusterSchema, type Outcome, type Store, type Tx } from "../store/index.ts";
import { BatchWriter } from "./batch-writer.ts";

/** A writer over a store that answers when the test says so. */
class Played {
  readonly virtual = new VirtualClock();
  readonly #turns: (() => void)[] = [];
  readonly clock = new TurnClock(
    this.virtual,
    (act) => void this.#turns.push(act),
    () => 0,
  );
  /** Keys of each entry, and what answers it. */
  readonly entries: { readonly keys: readonly string[]; readonly answer: (outcome: Outcome<void>) => void }[] = [];
  readonly done: string[] = [];
  readonly writer: BatchWriter<number>;

  constructor() {
    const keys: string[] = [];
    const store = {
      transact: (change: (tx: Tx<ClusterSchema>) => void, _options: unknown, answer: (it: Outcome<void>) => void) => {
        change({} as Tx<ClusterSchema>);
        this.entries.push({ keys: keys.splice(0), answer });
      },
    } as unknown as Store<ClusterSchema>;
    this.writer = new BatchWriter<number>({
      store,
      clock: this.clock,
      logger: silentLogger,
      cause: "test",
      entryMax: 100,
      apply: (_tx, key) => void keys.push(key),
      merge: (_older, newer) => newer,
      done: (key) => void this.done.push(key),
    });
  }

  turn(): void {
    this.#turns.shift()?.();
  }

  /** Until there is nothing left to do but to wait. */
  pass(ms: number): void {
    this.virtual.advance(ms);
    while (this.#turns.length > 0) this.turn();
  }

  add(from: number, count: number): void {
    for (let at = from; at < from + count; at++) this.writer.add(`k${at}`, at);
  }

  commit(at: number): void {
    this.entries[at]?.answer({ kind: "committed", index: at, result: undefined, repeated: false, reply: undefined });
  }
}

const moment = (): Promise<void> => Promise.resolve().then(() => {});

test("what waits goes one entry a turn, four at once; the rest when those are committed", async () => {
  const played = new Played();
  played.add(0, 550);
  await moment();
  assert.equal(played.entries.length, 1);
  for (let turn = 2; turn <= 4; turn++) {
    played.turn();
    assert.equal(played.entries.length, turn);
  }
  played.pass(100);
  assert.equal(played.entries.length, 4, "no more at once");
  for (const at of [0, 1, 2]) played.commit(at);
  await moment();
  assert.equal(played.entries.length, 4);
  played.commit(3);
  await moment();
  played.pass(0);
  assert.deepEqual(
    played.entries.map(({ keys }) => keys.length),
    [100, 100, 100, 100, 100, 50],
  );
  for (const at of [4, 5]) played.commit(at);
  assert.equal(new Set(played.done).size, 550);
});

test("an entry that is committed before the next turn does not begin another round beside the one under way", async () => {
  const played = new Played();
  played.add(0, 250);
  await moment();
  played.commit(0);
  played.add(300, 10);
  await moment();
  assert.equal(played.entries.length, 1);
  played.pass(0);
  assert.equal(played.entries.length, 3);
  for (const at of [1, 2]) played.commit(at);
  await moment();
  assert.equal(new Set(played.done).size, 260);
});

test("what was cleared between two turns is not written, and what comes after is", async () => {
  const played = new Played();
  played.add(0, 250);
  await moment();
  played.writer.clear();
  played.pass(1000);
  assert.equal(played.entries.length, 1);
  played.commit(0);
  assert.deepEqual(played.done, [], "of the life before");
  played.add(500, 1);
  await moment();
  assert.deepEqual(played.entries[1]?.keys, ["k500"]);
  played.commit(1);
  assert.deepEqual(played.done, ["k500"]);
});

test("an entry that is refused while others of its round are still to go is tried again", async () => {
  const played = new Played();
  played.add(0, 250);
  await moment();
  played.entries[0]?.answer({ kind: "failed", error: new Backpressure(50) });
  for (let answered = 1; played.done.length < 250 && answered < 10;) {
    played.pass(100);
    await moment();
    for (; answered < played.entries.length; answered++) played.commit(answered);
    await moment();
  }
  assert.equal(new Set(played.done).size, 250);
  assert.equal(played.done.length, 250, "each once");
});
