import assert from "node:assert/strict";
import { test } from "node:test";

import { VirtualClock } from "../runtime/index.ts";
import { Door } from "./door.ts";

class Caller {
  readonly number: number;
  turnedAway = false;
  constructor(number: number) {
    this.number = number;
  }
  destroy(): void {
    this.turnedAway = true;
  }
}

function doorWith(clock: VirtualClock, admit: (caller: Caller) => void): Door<Caller> {
  return new Door({ admit, nowMs: () => clock.monotonicMs(), after: (ms, act) => void clock.after(ms, act) });
}

test("a few connections are let in at once; of a crowd a few each moment, in their order", () => {
  const clock = new VirtualClock();
  const admitted: number[] = [];
  const door = doorWith(clock, ({ number }) => admitted.push(number));
  for (let number = 0; number < 3; number++) door.knock(new Caller(number));
  assert.deepEqual(admitted, [0, 1, 2]);
  clock.advance(10);
  for (let number = 3; number < 103; number++) door.knock(new Caller(number));
  assert.equal(admitted.length, 7);
  assert.equal(door.waiting, 96);
  clock.advance(4);
  assert.equal(admitted.length, 11);
  clock.advance(1000);
  assert.deepEqual(
    admitted,
    Array.from({ length: 103 }, (_, number) => number),
  );
  assert.equal(clock.pending, 0, "nothing is left to wake for");
});

test("whoever has waited for longer than callers wait is turned away, and costs no handshake", () => {
  const clock = new VirtualClock();
  const admitted: number[] = [];
  const door = doorWith(clock, ({ number }) => admitted.push(number));
  const callers = Array.from({ length: 5000 }, (_, number) => new Caller(number));
  for (const caller of callers) door.knock(caller);
  clock.advance(3000);
  const letIn = admitted.length;
  assert.ok(letIn > 2900 && letIn < 3100, `${letIn} in three seconds`);
  clock.advance(10);
  assert.equal(door.waiting, 0);
  assert.equal(callers.filter(({ turnedAway }) => turnedAway).length, 5000 - admitted.length);
  const late = new Caller(5000);
  door.knock(late);
  assert.equal(admitted.at(-1), 5000, "who comes then is let in at once");
});

test("members of the consensus do not wait behind a crowd of others", () => {
  const clock = new VirtualClock();
  const admitted: number[] = [];
  const door = new Door<Caller>({
    admit: ({ number }) => admitted.push(number),
    goesFirst: ({ number }) => number < 0,
    nowMs: () => clock.monotonicMs(),
    after: (ms, act) => void clock.after(ms, act),
  });
  for (let number = 0; number < 100; number++) door.knock(new Caller(number));
  for (const number of [-1, -2]) door.knock(new Caller(number));
  clock.advance(8);
  door.knock(new Caller(-3));
  clock.advance(4);
  assert.deepEqual(admitted, [0, 1, 2, 3, -1, -2, 4, 5, 6, 7, 8, 9, -3, 10, 11, 12]);
});

test("a door full of others does not turn a member away", () => {
  const clock = new VirtualClock();
  const admitted: number[] = [];
  const door = new Door<Caller>({
    admit: ({ number }) => admitted.push(number),
    goesFirst: ({ number }) => number < 0,
    nowMs: () => clock.monotonicMs(),
    after: (ms, act) => void clock.after(ms, act),
  });
  for (let number = 0; number < 20_010; number++) door.knock(new Caller(number));
  const member = new Caller(-1);
  door.knock(member);
  clock.advance(4);
  assert.ok(!member.turnedAway);
  assert.deepEqual(admitted, [0, 1, 2, 3, -1, 4, 5, 6]);
});

test("more than twenty thousand do not wait, and nobody does at a door that closes", () => {
  const clock = new VirtualClock();
  const door = doorWith(clock, () => {});
  const callers = Array.from({ length: 20_010 }, (_, number) => new Caller(number));
  for (const caller of callers) door.knock(caller);
  assert.equal(door.waiting, 20_000);
  assert.equal(callers.filter(({ turnedAway }) => turnedAway).length, 6);
  door.close();
  assert.equal(door.waiting, 0);
  assert.equal(callers.filter(({ turnedAway }) => turnedAway).length, 20_006);
});
