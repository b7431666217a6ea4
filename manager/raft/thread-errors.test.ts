import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantViolation } from "../../lib/pure/errors.ts";
import { StorageForeign } from "./keys/index.ts";
import { packError, unpackError } from "./thread-errors.ts";
import { LogQuarantined, LogWriteFailed } from "./wal/index.ts";

const cross = (error: unknown): Error => unpackError(structuredClone(packError(error)));

test("an error that crosses threads keeps its class, code, fix, fields and cause", () => {
  const quarantined = cross(new LogQuarantined("chain", "/data/log/x", 12, "something is off"));
  assert.ok(quarantined instanceof LogQuarantined);
  assert.deepEqual([quarantined.code, quarantined.damage, quarantined.offset], ["LOG_QUARANTINED", "chain", 12]);
  assert.match(quarantined.message, /^Cannot trust the log/u);
  assert.match(quarantined.fix ?? "", /--replace/u);
  const failed = cross(new LogWriteFailed("write", Object.assign(new Error("EIO: i/o error"), { code: "EIO" })));
  assert.ok(failed instanceof LogWriteFailed);
  assert.equal((failed.cause as { code?: string }).code, "EIO");
  assert.equal(cross(new StorageForeign("/x", "it is another's")).name, "StorageForeign");
});

test("a broken invariant keeps its facts, and anything else becomes a plain error", () => {
  const broken = cross(new InvariantViolation("one is two", { one: 1 }));
  assert.ok(broken instanceof InvariantViolation);
  assert.deepEqual(broken.facts, { one: 1 });
  assert.equal(cross("text").message, "text");
  assert.ok(cross(new TypeError("no")) instanceof Error);
});
