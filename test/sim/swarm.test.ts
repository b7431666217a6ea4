/** The simulator of whole clusters: that it repeats itself; its many seeds are a stage of their own (test/run.ts). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { mutatedSource } from "./mutations.ts";
import { findPlanted, swarmMutations } from "./swarm-mutations.ts";
import { SwarmRun } from "./swarm-run.ts";

test("seed 144: a service whose wake-up time passes while a round of it is in flight does not spin", async () => {
  assert.equal((await new SwarmRun(144, "memory").play()).failure, undefined);
});

test("seed 6625: a task held for its predecessor waits for it also when that one's node is drained", async () => {
  assert.equal((await new SwarmRun(6625, "memory").play()).failure, undefined);
});

test("seed 5013: a task withdrawn because its node was down waits for that when it is asked to stop soon after", async () => {
  assert.equal((await new SwarmRun(5013, "memory").play()).failure, undefined);
});

test("equal seeds give equal lives, and others give others", async () => {
  const first = await new SwarmRun(11).play();
  const again = await new SwarmRun(11).play();
  const other = await new SwarmRun(12).play();
  assert.equal(first.failure, undefined);
  assert.deepEqual(again, first);
  assert.notEqual(other.hash, first.hash);
});

test("planted bugs of the control plane fit the source, and a life over real consensus finds each", async () => {
  assert.ok(swarmMutations.length >= 5);
  for (const mutation of swarmMutations) {
    assert.notEqual(mutatedSource(mutation), "");
    assert.notEqual(await findPlanted(mutation), undefined, mutation.name);
  }
});

test("seed 9000161: a leader that is cut off, and does not know yet of the next one, is asked for nothing of its successors", async () => {
  assert.equal((await new SwarmRun(9_000_161).play()).failure, undefined);
});

for (const seed of [262, 489]) {
  test(`seed ${seed}: managers crash, are lost with their machines and come back as other members`, async () => {
    assert.equal((await new SwarmRun(seed).play()).failure, undefined);
  });
}
