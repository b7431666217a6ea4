import assert from "node:assert/strict";
import { test } from "node:test";

import { LevelWriter } from "./level-writer.ts";

/** A database that tells what was done to it; `full`: its disk takes nothing. */
class Database {
  readonly acts: string[] = [];
  full = false;

  async batch(operations: readonly number[], { sync }: { readonly sync: boolean }): Promise<void> {
    this.acts.push(`${sync ? "write" : "write without sync"} ${operations.join()}`);
    if (this.full) throw new Error("No space left on device");
  }

  async open(): Promise<void> {
    this.acts.push("open");
    if (this.full) throw new Error("No space left on device");
  }

  async close(): Promise<void> {
    this.acts.push("close");
  }
}

test("after a write that failed the database is opened anew before the next one, as soon as that goes", async () => {
  const database = new Database();
  const writer = new LevelWriter<number>(database);
  await writer.write([1]);
  database.full = true;
  await assert.rejects(writer.write([2]), /No space/);
  await assert.rejects(writer.write([3]), /No space/);
  database.full = false;
  await writer.write([4]);
  await writer.write([5]);
  await writer.idle();
  assert.deepEqual(database.acts, ["write 1", "write 2", "close", "open", "close", "open", "write 4", "write 5"]);
});

test("those of one turn are one write, in the order of the calls", async () => {
  const database = new Database();
  const writer = new LevelWriter<number>(database, { sync: false });
  await Promise.all([writer.write([1, 2]), writer.write([]), writer.write([3])]);
  assert.deepEqual(database.acts, ["write without sync 1,2,3"]);
});
