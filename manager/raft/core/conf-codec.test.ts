import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { decodeConfChange, encodeConfChange } from "./conf-codec.ts";
import { ConfChangeUnreadable } from "./errors.ts";
import type { ConfChange } from "./types.ts";

const changes: fc.Arbitrary<ConfChange> = fc.record(
  {
    transition: fc.constantFrom("auto", "jointImplicit", "jointExplicit"),
    steps: fc.array(
      fc.record(
        {
          act: fc.constantFrom("addVoter", "addLearner", "remove", "update"),
          member: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
        },
        { noNullPrototype: true },
      ),
      { maxLength: 20 },
    ),
    context: fc.uint8Array({ maxLength: 100 }),
  },
  { noNullPrototype: true },
);

test("what was encoded is decoded, with ids of 53 bits and from the middle of a larger buffer", () => {
  fc.assert(
    fc.property(changes, (change) => {
      const bytes = encodeConfChange(change);
      const inside = new Uint8Array(bytes.byteLength + 14);
      inside.set(bytes, 7);
      assert.deepEqual(decodeConfChange(inside.subarray(7, 7 + bytes.byteLength)), change);
    }),
  );
});

test("hostile bytes give a typed error or a change, never anything else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      try {
        decodeConfChange(bytes);
      } catch (error) {
        assert.ok(error instanceof ConfChangeUnreadable);
      }
    }),
    { numRuns: 2_000 },
  );
  for (const bytes of [
    [],
    [2, 0, 0, 0],
    [1, 9, 0, 0],
    [1, 0, 255, 255],
    [1, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 1],
    [1, 0, 0, 1, 0, 255, 0, 0, 0, 0, 0, 0, 0],
  ]) {
    assert.throws(() => decodeConfChange(Uint8Array.from(bytes)), ConfChangeUnreadable, bytes.join(" "));
  }
});

test("more steps than members could change at once are refused", () => {
  const steps = Array.from({ length: 1_001 }, () => ({ act: "remove" as const, member: 1 }));
  assert.throws(
    () => encodeConfChange({ transition: "auto", steps, context: new Uint8Array(0) }),
    ConfChangeUnreadable,
  );
});
