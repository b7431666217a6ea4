import assert from "node:assert/strict";
import test from "node:test";
import { Random } from "../../../lib/pure/prng.ts";
import { Inflights } from "./inflights.ts";

test("the ring counts messages and bytes as a plain list does, over random lives", () => {
  const random = new Random("inflights");
  for (let run = 0; run < 200; run++) {
    const limits = { msgsMax: random.int(1, 20), bytesMax: random.int(1, 500) };
    const ring = new Inflights(limits);
    let plain: { index: number; bytes: number }[] = [];
    let index = 0;
    for (let at = 0; at < 200; at++) {
      if (!ring.full && random.chance(0.6)) {
        index += random.int(1, 5);
        const bytes = random.int(0, 60);
        ring.add(index, bytes);
        plain.push({ index, bytes });
      } else if (random.chance(0.05)) {
        ring.clear();
        plain = [];
      } else {
        const upTo = random.int(0, index + 2);
        ring.freeUpTo(upTo);
        plain = plain.filter((one) => one.index > upTo);
      }
      const bytes = plain.reduce((sum, one) => sum + one.bytes, 0);
      assert.deepEqual([ring.count, ring.bytes], [plain.length, bytes]);
      assert.equal(ring.full, plain.length >= limits.msgsMax || bytes >= limits.bytesMax);
      assert.equal(ring.bytesLeft, limits.bytesMax - bytes);
    }
  }
});
