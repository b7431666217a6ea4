import assert from "node:assert/strict";
import { test } from "node:test";
import { TurnClock } from "./turn-clock.ts";
import { VirtualClock } from "./virtual-clock.ts";

/** Turns are given by the test, and calls take as long as they say. */
class Turns {
  readonly virtual = new VirtualClock();
  readonly due: (() => void)[] = [];
  nowMs = 0;
  readonly clock = new TurnClock(
    this.virtual,
    (act) => void this.due.push(act),
    () => this.nowMs,
  );

  turn(): void {
    this.due.shift()?.();
  }
}

test("calls at once share a turn until it has taken long enough, in their order; the others have the next one", () => {
  const turns = new Turns();
  const called: number[] = [];
  for (const at of [1, 2, 3, 4, 5])
    turns.clock.after(0, () => {
      called.push(at);
      turns.nowMs += 5;
    });
  assert.deepEqual(called, [], "never within the call");
  assert.equal(turns.due.length, 1);
  turns.turn();
  assert.deepEqual(called, [1, 2], "two of 5 ms each");
  turns.turn();
  assert.deepEqual(called, [1, 2, 3, 4]);
  turns.turn();
  assert.deepEqual(called, [1, 2, 3, 4, 5]);
  assert.equal(turns.due.length, 0, "nothing is waited for any more");
});

test("a call that takes itself up again at once has a turn of its own each time", () => {
  const turns = new Turns();
  let calls = 0;
  const again = (): void => {
    if (++calls < 5) turns.clock.after(0, again);
  };
  turns.clock.after(0, again);
  for (let at = 1; at <= 5; at++) {
    turns.turn();
    assert.equal(calls, at);
  }
  assert.equal(turns.due.length, 0);
});

test("a call that was cancelled does not come, and a call that throws does not keep the others", () => {
  const turns = new Turns();
  const called: string[] = [];
  const first = turns.clock.after(0, () => called.push("cancelled"));
  turns.clock.after(0, () => {
    throw new Error("of a test");
  });
  turns.clock.after(0, () => called.push("after it"));
  first.cancel();
  first.cancel();
  assert.throws(() => turns.turn(), /of a test/u);
  turns.turn();
  assert.deepEqual(called, ["after it"]);
});

test("calls with a time are the clock's own", () => {
  const turns = new Turns();
  const called: number[] = [];
  turns.clock.after(10, () => called.push(10));
  const every = turns.clock.every(20, () => called.push(20));
  assert.equal(turns.due.length, 0);
  turns.virtual.advance(25);
  assert.deepEqual(called, [10, 20]);
  every.cancel();
  assert.equal(turns.clock.monotonicMs(), turns.virtual.monotonicMs());
  assert.equal(turns.clock.wallMs(), turns.virtual.wallMs());
});
