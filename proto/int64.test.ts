import { test } from "node:test";
import assert from "node:assert/strict";
import { skep } from "./index.ts";

test("an int64 is a number up to 2^53, as the types say", () => {
  for (const value of [0, 1, 2 ** 31, 2 ** 32 + 5, 1_790_000_000_000_001, Number.MAX_SAFE_INTEGER]) {
    const meta = skep.objects.Meta.decode(skep.objects.Meta.encode({ version: value, updatedAtUs: -value }).finish());
    assert.equal(meta.version, value);
    assert.equal(meta.updatedAtUs, value === 0 ? 0 : -value);
  }
});
