import assert from "node:assert/strict";
import { test } from "node:test";
import type { Session } from "../session.ts";
import { ProgressDisplay } from "./progress.ts";

test("without a terminal each line is said once, however often the summary and the countdown come in turns", () => {
  const lines: string[] = [];
  const session = { stdout: {}, print: (line: string) => void lines.push(line) } as unknown as Session;
  const display = new ProgressDisplay(session, false);
  for (const left of [3, 2, 1]) {
    display.show("overall progress: 2 out of 2 tasks", []);
    display.note("verify", `Waiting ${left} seconds to verify that tasks are stable...`);
  }
  display.note("verify", "Detected task failure");
  display.show("overall progress: 1 out of 2 tasks", []);
  display.show("overall progress: 2 out of 2 tasks", []);
  display.note("verify", "Waiting 3 seconds to verify that tasks are stable...");
  assert.deepEqual(lines, [
    "overall progress: 2 out of 2 tasks",
    "verify: Waiting to verify that tasks are stable...",
    "verify: Detected task failure",
    "overall progress: 1 out of 2 tasks",
    "overall progress: 2 out of 2 tasks",
    "verify: Waiting to verify that tasks are stable...",
  ]);
});
