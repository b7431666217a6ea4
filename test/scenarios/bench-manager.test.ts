/** The managers of the benches: what they measure by is no better than they are. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { order, withManagers } from "../bench/managers.ts";
import type { Report } from "../bench/report.ts";

test(
  "an order that a manager cannot carry out, because another leads, is answered, and the manager goes on",
  { timeout: 300_000 },
  async () => {
    const report = { note: () => undefined } as unknown as Report;
    // Who leads is to lead on, however busy the machine is.
    await withManagers({ args: ["--election-ms", "4000"] }, async (leader, { managers }) => {
      const other = managers.find((manager) => manager !== leader)!;
      const place = { kind: "place", services: 2, replicas: 1, until: "assigned", limitMs: 60_000 } as const;
      await assert.rejects(order(other, place, report), /does not lead/u);
      await order(leader, { kind: "nodes", nodes: 1, ready: true }, report);
      assert.ok(other.running);
    });
  },
);
