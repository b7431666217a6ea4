import assert from "node:assert/strict";
import { test } from "node:test";

import { deadline, realClock, sleep, type Clock } from "./clock.ts";
import { VirtualClock } from "./virtual-clock.ts";

/** The suite that both clocks pass. `pass` lets at least that much time go by. */
function conformance(name: string, make: () => { clock: Clock; pass: (ms: number) => Promise<void> }): void {
  test(`${name}: the monotonic clock grows and callbacks come in the order of their time`, async () => {
    const { clock, pass } = make();
    let stoodMs: number;
    do {
      const order: string[] = [];
      const startMs = clock.monotonicMs();
      clock.after(20, () => order.push("late"));
      clock.after(5, () => order.push("early"));
      clock.after(5, () => order.push("early too"));
      // If this process stands still between the first and the last, their times are the other way round: then once more.
      stoodMs = clock.monotonicMs() - startMs;
      assert.deepEqual(order, []);
      await pass(30);
      if (stoodMs < 10) assert.deepEqual(order, ["early", "early too", "late"]);
      assert.ok(clock.monotonicMs() - startMs >= 20);
    } while (stoodMs >= 10);
  });

  test(`${name}: a wait of nothing does not call back before it has returned`, async () => {
    const { clock, pass } = make();
    let called = false;
    clock.after(-5, () => (called = true));
    assert.equal(called, false);
    await pass(5);
    assert.equal(called, true);
  });

  test(`${name}: a cancelled timer stays silent, and cancelling twice or late is harmless`, async () => {
    const { clock, pass } = make();
    let calls = 0;
    const cancelled = clock.after(5, () => calls++);
    const kept = clock.after(5, () => calls++);
    cancelled.cancel();
    cancelled.cancel();
    await pass(15);
    kept.cancel();
    assert.equal(calls, 1);
  });

  test(`${name}: every() repeats until cancelled, also from inside its callback`, async () => {
    const { clock, pass } = make();
    let calls = 0;
    const ticking = clock.every(4, () => {
      if (++calls === 3) ticking.cancel();
    });
    // Of a process that stands still calls are left out, and not made up for.
    const third = (): boolean => calls === 3;
    for (let waits = 0; !third() && waits < 5000; waits++) await pass(4);
    await pass(20);
    assert.equal(calls, 3);
    assert.throws(() => clock.every(0, () => undefined), RangeError);
  });

  test(`${name}: sleep() rejects with the signal's reason as soon as it aborts, before or during the wait`, async () => {
    const { clock } = make();
    const stop = new AbortController();
    const waiting = sleep(clock, 1e7, stop.signal);
    const reason = new Error("stopped");
    stop.abort(reason);
    await assert.rejects(waiting, reason);
    await assert.rejects(sleep(clock, 1, stop.signal), reason);
  });

  test(`${name}: a deadline aborts with its own reason, with its parent's, or not at all once disposed`, async () => {
    const { clock, pass } = make();
    const late = new Error("late");
    const due = deadline(clock, 5, undefined, () => late);
    const parent = new AbortController();
    const joined = deadline(clock, 1e7, parent.signal, () => late);
    parent.abort(new Error("parent"));
    assert.match(String(joined.signal.reason), /parent/);
    const born = deadline(clock, 1e7, parent.signal, () => late);
    assert.equal(born.signal.aborted, true);
    joined[Symbol.dispose]();
    born[Symbol.dispose]();
    const freed = deadline(clock, 5, undefined, () => late);
    freed[Symbol.dispose]();
    await pass(15);
    assert.equal(due.signal.reason, late);
    assert.equal(freed.signal.aborted, false);
  });
}

conformance("virtual clock", () => {
  const clock = new VirtualClock();
  return { clock, pass: (ms) => clock.run(ms) };
});
conformance("real clock", () => ({ clock: realClock, pass: (ms) => sleep(realClock, ms, undefined) }));

test("virtual time stands still until it is moved, and a jump of the wall clock leaves the monotonic one alone", () => {
  const clock = new VirtualClock(1000);
  const wakes: number[] = [];
  clock.after(10, () => wakes.push(clock.monotonicMs()));
  clock.after(5, () => clock.after(5, () => wakes.push(clock.monotonicMs() + 0.5)));
  assert.equal(clock.pending, 2);
  assert.equal(clock.nextMs, 5);
  clock.jumpWall(-500);
  assert.equal(clock.wallMs(), 500);
  clock.advance(10);
  assert.deepEqual(wakes, [10, 10.5]);
  assert.equal(clock.pending, 0);
  assert.equal(clock.nextMs, undefined);
});

test("a late every() does not make up for calls missed", () => {
  const clock = new VirtualClock();
  const calls: number[] = [];
  clock.after(0, () => undefined);
  const ticking = clock.every(10, () => calls.push(clock.monotonicMs()));
  clock.advance(35);
  ticking.cancel();
  clock.advance(100);
  assert.deepEqual(calls, [10, 20, 30]);
});

test("the real clock does not fire a wait of months at once", async () => {
  let fired = false;
  const months = realClock.after(90 * 86_400_000, () => (fired = true));
  await sleep(realClock, 5, undefined);
  months.cancel();
  assert.equal(fired, false);
});
