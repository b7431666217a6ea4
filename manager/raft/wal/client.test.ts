import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { test } from "node:test";
import { entry, hardState, identity, nodeKek } from "../../../test/support/log-rig.ts";
import { WalClient } from "./client.ts";

test("a save that becomes durable while the callback of an earlier one runs is called back without a further save", async () => {
  const folder = mkdtempSync(join(tmpdir(), "skep-wal-"));
  const client = new WalClient({ folder, identity, kek: nodeKek }, () => performance.now());
  try {
    await client.keys;
    await client.open([]);
    const save = (index: number, done: () => void): void =>
      client.save({ hardState: hardState(1), entries: [entry(index, 1)] }, (error) => {
        assert.equal(error, undefined);
        done();
      });
    await new Promise<void>((resolve, reject) => {
      // Both wait for the disk, which others may keep busy.
      const limit = setTimeout(() => reject(new Error("the second save was never called back")), 60_000);
      save(1, () => {
        save(2, () => {
          clearTimeout(limit);
          resolve();
        });
        // The thread goes on while this one is busy: it reports the entry, and counts the save right after that.
        const untilMs = performance.now() + 30_000;
        while (client.status().savedEntries < 2 && performance.now() < untilMs);
        const countedMs = performance.now() + 20;
        while (performance.now() < countedMs);
        assert.equal(client.status().savedEntries, 2);
      });
    });
  } finally {
    await client.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
