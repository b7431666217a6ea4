/**
 * Some lives of whole clusters, looked at for what their nodes route by (swarm-run.ts has the rules): no number twice, no
 * stop before nobody sends any more, and in the end every node's tables as the store says.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SwarmRun } from "./swarm-run.ts";

for (let seed = 1; seed <= 12; seed++) {
  test(`nodes route by what the store says, and nothing is stopped too early (seed ${seed})`, async () => {
    assert.equal((await new SwarmRun(seed, "memory").play()).failure, undefined);
  });
}
