import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";

import { collectAtRest } from "./memory.ts";
import { VirtualClock } from "./virtual-clock.ts";

test("a process at rest gives back what nobody holds any more: after its start, and then every ten minutes", async () => {
  const clock = new VirtualClock();
  const timer = collectAtRest(clock);
  for (const ms of [30_000, 600_000]) {
    const dropped = new WeakRef({ ms });
    // What a turn has made a WeakRef of lives to its end.
    await setImmediate();
    clock.advance(ms);
    assert.equal(dropped.deref(), undefined);
  }
  timer.cancel();
  assert.equal(clock.pending, 0);
});
