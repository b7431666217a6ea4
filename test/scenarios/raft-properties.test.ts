import assert from "node:assert/strict";
import test from "node:test";
import { chaos } from "../support/raft-chaos.ts";

const seeds =
  process.env["SEED"] === undefined
    ? Array.from({ length: Number(process.env["SEEDS"] ?? 300) }, (_, at) => at + 1)
    : [Number(process.env["SEED"])];

test("B1-B9 hold after every event of random lives, and the group recovers (SEED=n replays one)", () => {
  for (const seed of seeds) {
    try {
      chaos({ seed, events: 1_500 });
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});
void assert;
