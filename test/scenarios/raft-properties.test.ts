/** Scenarios B: the paper's properties after every event of random lives. SEED=n replays one, SEEDS=n runs more. */
import assert from "node:assert/strict";
import test from "node:test";
import { chaos } from "../support/raft-chaos.ts";

const { SEED, SEEDS = "300" } = process.env;
const seeds = SEED === undefined ? Array.from({ length: Number(SEEDS) }, (_, at) => at + 1) : [Number(SEED)];

test("B1-B9 hold after every event of random lives, and the group recovers", () => {
  const counts = new Map<string, number>();
  let committed = 0;
  for (const seed of seeds) {
    try {
      const result = chaos({ seed, events: 1_500 });
      for (const [name, count] of result.counts) counts.set(name, (counts.get(name) ?? 0) + count);
      committed += result.committed;
    } catch (error) {
      throw new Error(`seed ${seed} (SEED=${seed} replays it)`, { cause: error });
    }
  }
  if (SEED !== undefined) return;
  // A run in which nothing happens proves nothing.
  assert.ok(committed > 20 * seeds.length, `${committed} entries committed`);
  for (const name of ["crash", "transfer", "change", "compact", "snapshot", "read", "stalled"]) {
    assert.ok((counts.get(name) ?? 0) >= seeds.length / 2, `${name}: ${counts.get(name)}`);
  }
});
