/** Start and remove, again and again: no mount, cgroup, process, descriptor or memory more than before. */
import assert from "node:assert/strict";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { realClock, type Clock } from "../../../lib/runtime/index.ts";
import { Launcher } from "../../../worker/containers/launcher.ts";
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
  { skip: runtime.skip, timeout: 60_000 + cycles * 10_000 },
  async () => {
    const worker = await new TestWorker(runtime.path).open();
    try {
      const one = async (): Promise<void> => {
        const { container } = await worker.run(["true"]);
        await container.remove();
      };
      for (let i = 0; i < warmUp; i++) await one();
      const descriptors = (): number => readdirSync("/proc/self/fd").length;
      const before = { descriptors: descriptors(), memory: memory() };
      for (let i = warmUp; i < cycles; i++) await one();
      // Mounts among it; how many the machine has is no business of this test.
      assert.deepEqual(worker.remains(), []);
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

for (const [what, spoil] of [
  ["whose monitor cannot be reached", (worker) => breakSocket(worker)],
  ["that cannot be recorded", (worker) => breakRecord(worker)],
] as const satisfies readonly (readonly [string, (worker: TestWorker) => Disposable])[]) {
  test(`a start ${what} leaves nothing that runs`, { skip: runtime.skip, timeout: 240_000 }, async () => {
    const worker = new TestWorker(runtime.path, { clock });
    await worker.open();
    try {
      const container = await worker.create(["sleep", "40"]);
      const spoiled = spoil(worker);
      try {
        await assert.rejects(container.start(), { code: "CONTAINER_START_FAILED" });
      } finally {
        spoiled[Symbol.dispose]();
      }
      assert.equal(container.running, false);
      // A monitor that nobody came to sees its container end, and waits two seconds for whoever wants to know how.
      const untilMs = performance.now() + 60_000;
      while (worker.monitors().length > 0 && performance.now() < untilMs)
        await new Promise((again) => setTimeout(again, 50));
      assert.deepEqual(worker.remains(), []);
      // And it is none the worse for it.
      assert.equal(await container.start(), true);
    } finally {
      await worker.close();
    }
  });
}

let isClockBroken = false;
const clock: Clock = {
  monotonicMs: () => realClock.monotonicMs(),
  after: (ms, callback) => realClock.after(ms, callback),
  every: (ms, callback) => realClock.every(ms, callback),
  wallMs: () => {
    if (!isClockBroken) return realClock.wallMs();
    isClockBroken = false;
    throw new Error("no time to write down");
  },
};

/** The next time that is written down is not. */
function breakRecord(_worker: TestWorker): Disposable {
  isClockBroken = true;
  return { [Symbol.dispose]: () => (isClockBroken = false) };
}

/** Of each container that is started meanwhile. */
function breakSocket(worker: TestWorker): Disposable {
  type Launch = (this: Launcher, ...request: Parameters<Launcher["launch"]>) => ReturnType<Launcher["launch"]>;
  const launch: Launch = Reflect.get(Launcher.prototype, "launch");
  Launcher.prototype.launch = async function (request) {
    const started = await launch.call(this, request);
    for (const name of readdirSync(join(worker.settings.runDirectory, "c")))
      rmSync(join(worker.settings.runDirectory, "c", name, "stream"));
    return started;
  };
  return { [Symbol.dispose]: () => (Launcher.prototype.launch = launch) };
}
