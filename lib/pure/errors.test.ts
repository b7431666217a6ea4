import assert from "node:assert/strict";
import { test } from "node:test";

import { ClusterError, InvariantViolation, invariant, isAbort, unreachable } from "./errors.ts";

class Full extends ClusterError {
  readonly code = "FULL";
}

test("an operating error carries its code, its fix, its cause and its own name", () => {
  const cause = new Error("disk");
  const error = new Full("Cannot store: no room", { fix: "Free some space", cause });
  assert.equal(error.code, "FULL");
  assert.equal(error.fix, "Free some space");
  assert.equal(error.cause, cause);
  assert.equal(error.name, "Full");
  assert.ok(error instanceof Error);
  assert.equal("cause" in new Full("x"), false);
});

test("invariant() passes what holds and throws with its facts what does not", () => {
  invariant("text", "a text is there");
  assert.throws(
    () => invariant(false, "match is below next", { match: 5, next: 5 }),
    (error) =>
      error instanceof InvariantViolation && error.facts["match"] === 5 && /match is below next/.test(error.message),
  );
  assert.throws(() => unreachable("a vote of nobody"), InvariantViolation);
});

test("isAbort() knows a cancelled wait from a failure", () => {
  const stopped = new AbortController();
  stopped.abort();
  assert.equal(isAbort(stopped.signal.reason), true);
  assert.equal(isAbort(Object.assign(new Error("x"), { code: "ABORT_ERR" })), true);
  assert.equal(isAbort(new Full("x")), false);
  assert.equal(isAbort("AbortError"), false);
});
