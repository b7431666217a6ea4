/** Start and remove, again and again: no mount, cgroup, process or descriptor more than before. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { anyRuntime, TestWorker } from "./host.ts";

const runtime = anyRuntime();
/** 1,000 on demand: CYCLES=1000. */
const cycles = Number(process.env["CYCLES"] ?? 50);

test(
  `${cycles} containers started and removed leave nothing`,
  { skip: runtime.skip, timeout: 30_000 + cycles * 2000 },
  async () => {
    const worker = await new TestWorker(runtime.path).open();
    try {
      const one = async (): Promise<void> => {
        const { container } = await worker.run(["true"]);
        await container.remove();
      };
      for (let i = 0; i < 5; i++) await one(); // caches fill, lazy descriptors open
      const descriptors = (): number => readdirSync("/proc/self/fd").length;
      const mounts = (): number => readFileSync("/proc/self/mountinfo", "utf8").split("\n").length;
      const before = { descriptors: descriptors(), mounts: mounts() };
      for (let i = 0; i < cycles; i++) await one();
      assert.deepEqual(worker.remains(), []);
      assert.equal(mounts(), before.mounts);
      // The file being read and a watcher's handle may come and go.
      assert.ok(
        descriptors() <= before.descriptors + 3,
        `${before.descriptors} descriptors before, ${descriptors()} after`,
      );
    } finally {
      await worker.close();
    }
  },
);
