import assert from "node:assert/strict";
import test from "node:test";

import { VirtualClock } from "../../lib/runtime/index.ts";
import { EventLoopMonitor, type LoopWindow } from "./event-loop.ts";

const tickMs = 25;
const limits = { stallMs: 200, lateMs: 100 };

/** Ticks for one window of ten seconds, of which some come late. */
function tickThrough(clock: VirtualClock, monitor: EventLoopMonitor, late: ReadonlyMap<number, number>): void {
  for (let atMs = 0, tick = 1; atMs < 10_000; tick++) {
    const gapMs = tickMs + (late.get(tick) ?? 0);
    clock.advance(Math.min(gapMs, 10_000 - atMs));
    atMs += gapMs;
    monitor.tick();
  }
}

test("a tick that comes late tells how late the event loop is, and three windows with a stall are told as repeated", () => {
  const clock = new VirtualClock();
  const told: { readonly window: LoopWindow; readonly repeated: boolean }[] = [];
  const monitor = new EventLoopMonitor(clock, tickMs, limits, (window, repeated) => told.push({ window, repeated }));
  try {
    tickThrough(clock, monitor, new Map());
    assert.equal(told.length, 0, "a loop in time is not told of");
    assert.ok(monitor.recent.maxMs < 0.001);

    for (let window = 0; window < 3; window++) tickThrough(clock, monitor, new Map([[100, 250]]));
    assert.deepEqual(
      told.map(({ repeated }) => repeated),
      [false, false, true],
    );
    assert.ok(Math.abs((told[0]?.window.maxMs ?? 0) - 250) < 1, "as long as the stall was");
    assert.ok((told[0]?.window.p99Ms ?? 1) < 0.001, "one stall is not the rule");

    tickThrough(clock, monitor, new Map([...Array(10).keys()].map((tick) => [tick * 30 + 1, 150])));
    assert.equal(told.at(-1)?.repeated, false);
    assert.equal(told.length, 4, "many late turns are told though none is a stall");
    assert.ok((told[3]?.window.p99Ms ?? 0) > 100);
  } finally {
    monitor[Symbol.dispose]();
  }
});
