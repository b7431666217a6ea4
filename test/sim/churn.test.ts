/** A virtual hour of churn; `npm run churn` plays a day. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ChurnRun, growth } from "./churn-run.ts";

test("nothing grows while services come and go, nodes are lost and leaders end", { timeout: 300_000 }, async () => {
  const { looks } = await new ChurnRun({ seed: 1, hours: 1.2, lookEveryMs: 400_000 }).play();
  assert.ok(looks.length >= 9, `${looks.length} looks`);
  // Looks come when the cluster is at rest, so the time between two differs.
  const entries = looks.map((look) => look.entries);
  assert.ok(
    entries.every((count) => count > 0) && entries.reduce((sum, count) => sum + count) > 100 * looks.length,
    `something has happened: ${entries.join()}`,
  );
  assert.deepEqual(growth(looks), []);
});
