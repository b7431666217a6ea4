/**
 * Random bytes of the system for many small things, ids above all: one call for many of them, since a call takes some 8 us.
 * For keys and tokens ask the system itself: what is to come lies in memory here.
 */
import { randomFillSync } from "node:crypto";

import { invariant } from "../pure/errors.ts";

const pool = new Uint8Array(4096);
let used = pool.length;

/** Fills a small array. */
export function fillFromPool(bytes: Uint8Array): void {
  // More would be filled in part, and the rest would be known to everybody.
  invariant(bytes.length <= pool.length, "only small arrays are filled from the pool", { bytes: bytes.length });
  if (bytes.length > pool.length - used) {
    randomFillSync(pool);
    used = 0;
  }
  bytes.set(pool.subarray(used, used + bytes.length));
  // Nobody finds in memory what was given out.
  pool.fill(0, used, used + bytes.length);
  used += bytes.length;
}
