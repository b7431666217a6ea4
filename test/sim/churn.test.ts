/** A virtual hour of churn; `npm run churn` plays a day. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ChurnRun, growth } from "./churn-run.ts";

test("nothing grows while services come and go, nodes are lost and leaders end", { timeout: 300_000 }, async () => {
  const { looks } = await new ChurnRun({ seed: 1, hours: 1.2, lookEveryMs: 400_000 }).play();
  assert.ok(looks.length >= 9, `${looks.length} looks`);
  assert.ok(
    looks.every(({ entries }) => entries > 100),
    "something has happened",
  );
  assert.deepEqual(growth(looks), []);
});
