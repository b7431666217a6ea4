/** What LevelWriter promises, on a disk that is really full. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { Level } from "level";

import { LevelWriter } from "../../lib/runtime/index.ts";

function fill(path: string): void {
  const file = openSync(path, "w");
  try {
    for (;;) writeSync(file, Buffer.alloc(4096));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
  } finally {
    closeSync(file);
  }
}

test(
  "what a database acknowledges after its disk was full for a while is there when it is opened again",
  { skip: process.getuid?.() === 0 ? false : "needs root: mounts a small disk", timeout: 60_000 },
  async () => {
    const folder = mkdtempSync("/var/tmp/sk-level-");
    execFileSync("/usr/bin/mount", ["-t", "tmpfs", "-o", "size=1m", "none", folder]);
    try {
      const database = new Level(join(folder, "db"));
      const writer = new LevelWriter<{ type: "put"; key: string; value: string }>(database);
      const acknowledged: string[] = [];
      const put = async (key: string): Promise<void> => {
        await writer.write([{ type: "put", key, value: "x".repeat(1500) }]);
        acknowledged.push(key);
      };
      await put("before");
      fill(join(folder, "filling"));
      // The last page of its log has room for a few at most.
      await assert.rejects(async () => {
        for (let at = 0; at < 100; at++) await put(`meanwhile ${at}`);
      });
      await assert.rejects(put("still full"));
      rmSync(join(folder, "filling"));
      for (let at = 0; at < 50; at++) await put(`after ${at}`);
      await database.close();

      const again = new Level(join(folder, "db"));
      const found = new Set(await again.keys().all());
      await again.close();
      assert.deepEqual(
        acknowledged.filter((key) => !found.has(key)),
        [],
      );
    } finally {
      execFileSync("/usr/bin/umount", ["--lazy", folder]);
      rmSync(folder, { recursive: true, force: true });
    }
  },
);
