import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

import { realClock, type Clock } from "../../lib/runtime/index.ts";
import { logFrame } from "../../test/support/log-frame.ts";
import { readFramesAfter, readLog } from "./log-reader.ts";

/** Every reader's start beside a rotation after each number of turns of the loop. */
async function rotating(
  read: (path: string, over: Promise<undefined>) => AsyncIterable<string>,
  follows: boolean,
): Promise<void> {
  for (let turns = 0; turns < 60; turns++) {
    const folder = mkdtempSync(join(tmpdir(), "log-reader-"));
    try {
      const path = join(folder, "log");
      writeFileSync(path, logFrame(1, 1n, Buffer.from("first\n")));
      const over = Promise.withResolvers<undefined>();
      const reading = Array.fromAsync(read(path, over.promise));
      for (let i = 0; i < turns; i++) await turn();
      renameSync(path, `${path}.1`);
      writeFileSync(path, logFrame(1, 2n, Buffer.from("second\n")));
      over.resolve(undefined);
      const seen = await reading;
      // Who does not follow may be done before the second file is there.
      const all = follows || seen.length > 1 ? ["first\n", "second\n"] : ["first\n"];
      assert.deepEqual(seen, all, `after ${turns} turns`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
}

for (const follow of [false, true]) {
  test(`a log that rotates at any moment of a reader's start loses no file, follow ${String(follow)}`, () =>
    rotating(async function* (path, ended) {
      const source = { path, ended, clock: realClock };
      const lines = readLog(source, { stdout: true, stderr: true, follow }, AbortSignal.timeout(120_000));
      for await (const { text } of lines) yield text.toString();
    }, follow));
}

test("a log that rotates while what came after a moment is read loses no file", () =>
  rotating(async function* (path) {
    for await (const { payload } of readFramesAfter(path, 0n)) yield payload.toString();
  }, false));

test("a log is followed without a watch of its folder, when there is none to be had", async () => {
  const folder = mkdtempSync(join(tmpdir(), "log-reader-"));
  try {
    const over = Promise.withResolvers<undefined>();
    const path = join(folder, "later", "log");
    // There is no such folder, and so no watch, until the reader has begun to poll.
    const clock: Clock = Object.create(realClock, {
      every: {
        value: (ms: number, act: () => void) => {
          mkdirSync(join(folder, "later"));
          writeFileSync(path, logFrame(1, 1n, Buffer.from("line\n")));
          return realClock.every(ms, act);
        },
      },
    }) as Clock;
    const source = { path, ended: over.promise, clock };
    const lines = readLog(source, { stdout: true, stderr: true, follow: true }, AbortSignal.timeout(120_000));
    const first = lines.next();
    assert.equal((await first).value?.text.toString(), "line\n");
    over.resolve(undefined);
    assert.equal((await lines.next()).done, true);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
