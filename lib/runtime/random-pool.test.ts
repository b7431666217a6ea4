import assert from "node:assert/strict";
import { test } from "node:test";

import { newId } from "../pure/id.ts";
import { fillFromPool } from "./random-pool.ts";

test("ids from the pool differ, over many pools", () => {
  const ids = new Set(Array.from({ length: 5000 }, () => newId(fillFromPool)));
  assert.equal(ids.size, 5000);
});

test("every byte is drawn, and every value comes", () => {
  const counts = new Uint32Array(256);
  const bytes = new Uint8Array(17);
  for (let at = 0; at < 2000; at++) {
    fillFromPool(bytes);
    for (const byte of bytes) counts[byte]!++;
  }
  // 34,000 bytes: 133 of each value are expected, and 12 is the standard deviation.
  assert.ok(counts.every((count) => count > 50 && count < 250));
});

test("an array larger than the pool is refused, not filled in part", () => {
  assert.throws(() => fillFromPool(new Uint8Array(4097)), /only small arrays/);
});
