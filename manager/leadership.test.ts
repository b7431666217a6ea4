import assert from "node:assert/strict";
import { test } from "node:test";
import { LeaderLoops } from "./leadership.ts";
import type { Leadership } from "./store/index.ts";

test("loops run from when their member leads until it does not, and start over in each term", async () => {
  const story: string[] = [];
  const loop = (name: string): { start(): void; stop(): void } => ({
    start: () => story.push(`start ${name}`),
    stop: () => story.push(`stop ${name}`),
  });
  let now: Leadership = { leading: false, term: 1, leader: undefined };
  let listener: ((leadership: Leadership) => void) | undefined;
  const source = {
    leadership: () => now,
    onLeadership: (listen: (leadership: Leadership) => void) => {
      listener = listen;
      return () => (listener = undefined);
    },
  };
  const loops = new LeaderLoops(source, [loop("a"), loop("b")]);
  const become = (leading: boolean, term: number): void => {
    now = { leading, term, leader: undefined };
    listener?.(now);
  };
  loops.open();
  become(true, 2);
  become(true, 2);
  assert.deepEqual(story.splice(0), ["start a", "start b"]);
  become(true, 4);
  assert.deepEqual(story.splice(0), ["stop b", "stop a", "start a", "start b"]);
  become(false, 5);
  assert.deepEqual(story.splice(0), ["stop b", "stop a"]);
  become(true, 6);
  await loops[Symbol.asyncDispose]();
  assert.deepEqual(story.splice(0), ["start a", "start b", "stop b", "stop a"]);
  assert.equal(listener, undefined);
});
