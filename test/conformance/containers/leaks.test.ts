/** Start and remove, again and again: no mount, cgroup, process, descriptor or memory more than before. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { anyRuntime, TestWorker } from "./host.ts";

const runtime = anyRuntime();
/** 1,000 on demand: CYCLES=1000. */
const cycles = Number(process.env["CYCLES"] ?? 50);
/** Of which this many come before the first look: caches fill, lazy descriptors open, code is compiled. */
const warmUp = Math.min(50, cycles / 2);

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** Bytes that are in use, in JavaScript's heap and beside it. Resident memory says less: the allocators keep what they had. */
function memory(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

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
      for (let i = 0; i < warmUp; i++) await one();
      const descriptors = (): number => readdirSync("/proc/self/fd").length;
      const mounts = (): number => readFileSync("/proc/self/mountinfo", "utf8").split("\n").length;
      const before = { descriptors: descriptors(), mounts: mounts(), memory: memory() };
      for (let i = warmUp; i < cycles; i++) await one();
      assert.deepEqual(worker.remains(), []);
      assert.equal(mounts(), before.mounts);
      // The file being read and a watcher's handle may come and go.
      assert.ok(
        descriptors() <= before.descriptors + 3,
        `${before.descriptors} descriptors before, ${descriptors()} after`,
      );
      // In few cycles the compiler and the records' write buffer grow more than a leak would.
      if (cycles < 500) return;
      const grown = memory() - before.memory;
      assert.ok(grown <= 1 << 20, `${grown} bytes more than before`);
      console.log(`# memory grew by ${grown} bytes in ${cycles - warmUp} cycles`);
    } finally {
      await worker.close();
    }
  },
);
