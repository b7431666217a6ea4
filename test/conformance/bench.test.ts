/** What the benches promise: that they end. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { VirtualClock } from "../../lib/runtime/index.ts";
import { untilAll } from "../bench/until-all.ts";

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

test("X3: a wait for agents ends when some never connect, and tells how many did", async () => {
  const clock = new VirtualClock();
  let connected = 0;
  const waiting = untilAll("agents are connected", { count: 5000, found: () => connected, limitMs: 60_000, clock });
  const failed = assert.rejects(waiting, /^Error: 4998 of 5000 agents are connected after 60 s$/);
  connected = 4998;
  for (let ms = 0; ms < 61_000; ms += 100) {
    clock.advance(100);
    await turn();
  }
  await failed;
});

test("X3: it ends with the last one", async () => {
  const clock = new VirtualClock();
  let connected = 0;
  const waiting = untilAll("agents are connected", { count: 3, found: () => connected, limitMs: 60_000, clock });
  connected = 3;
  clock.advance(100);
  await waiting;
});
