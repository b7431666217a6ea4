import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Worker, isMainThread, workerData } from "node:worker_threads";

import { removeFolder } from "./remove-folder.ts";

const theirs = ["a", "b", "c"];
const rounds = 300;

test("a folder is gone though another removes files from it at the same time", { skip: !isMainThread }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "sk-remove-"));
  // [0]: the round that the other may begin, [1]: the one it has ended
  const turns = new Int32Array(new SharedArrayBuffer(8));
  const other = new Worker(new URL(import.meta.url), { workerData: { folder, turns } });
  try {
    for (let round = 1; round <= rounds; round++) {
      mkdirSync(folder, { recursive: true });
      for (const name of [...theirs, "x", "y"]) writeFileSync(join(folder, name), "");
      Atomics.store(turns, 0, round);
      Atomics.notify(turns, 0);
      removeFolder(folder);
      assert.equal(existsSync(folder), false, `round ${round}`);
      assert.equal(Atomics.wait(turns, 1, round - 1, 60_000) === "timed-out", false);
    }
  } finally {
    await other.terminate();
    rmSync(folder, { recursive: true, force: true });
  }
});

test("removing what is not there is fine", () => removeFolder("/no/such/folder"));

if (!isMainThread) {
  const { folder, turns } = workerData as { folder: string; turns: Int32Array };
  for (let round = 1; round <= rounds; round++) {
    Atomics.wait(turns, 0, round - 1);
    for (const name of theirs) {
      try {
        unlinkSync(join(folder, name));
      } catch {
        // it lost the race for this one
      }
    }
    Atomics.store(turns, 1, round);
    Atomics.notify(turns, 1);
  }
}
