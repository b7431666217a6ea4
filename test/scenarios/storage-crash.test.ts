/** Section K and G6, G7, M3: the power goes at any moment, and everything acknowledged is there again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../lib/pure/prng.ts";
import { DirectStorage } from "../../manager/raft/direct-storage.ts";
import { DiskCrash, FaultDisk, type CrashDamage } from "../support/fault-disk.ts";
import {
  assertOneOf,
  assertState,
  drawStep,
  startState,
  storageOptions,
  type State,
  type Step,
  type StepKind,
} from "../support/storage-workload.ts";

const damages: readonly CrashDamage[] = [
  { keep: "none" },
  { keep: "all" },
  { keep: "all", tear: "byte" },
  { keep: "prefix", tear: "sector" },
  { keep: "random" },
];

function life(seed: number, steps: number, kind?: (step: number) => StepKind | undefined): Step[] {
  const random = new Random(seed);
  const drawn: Step[] = [];
  let state = startState;
  for (let step = 0; step < steps; step++) {
    const next = drawStep(random, state, kind?.(step));
    drawn.push(next);
    state = next.after;
  }
  return drawn;
}

/** Runs the steps until the power goes. @returns the states that may come back */
function runUntilCrash(disk: FaultDisk, seed: number, steps: readonly Step[], from: State): readonly State[] {
  let state = from;
  let storage: DirectStorage;
  try {
    storage = DirectStorage.open(storageOptions(disk, seed));
  } catch (error) {
    if (!(error instanceof DiskCrash)) throw error;
    return [state];
  }
  for (const step of steps) {
    try {
      step.run(storage);
    } catch (error) {
      if (!(error instanceof DiskCrash)) throw error;
      return [state, step.after];
    }
    state = step.after;
  }
  return [state];
}

/** The power goes in every disk operation of a life (or every n-th), once for each damage; then it must go on. */
function crashEverywhere(seed: number, steps: readonly Step[], kinds: readonly CrashDamage[], every = 1): number {
  const disk = new FaultDisk(new Random(seed));
  let [state, next] = [startState, startState];
  let crashes = 0;
  disk.onOperation = (operation) => {
    if (operation % every !== 0) return;
    for (const [place, damage] of kinds.entries()) {
      const copy = disk.fork(Random.stream(seed, `${operation} ${place}`));
      copy.restart(damage);
      try {
        goesOn(copy, [state, next], operation);
      } catch (error) {
        throw new Error(`after a cut at operation ${operation}, ${JSON.stringify(damage)}`, { cause: error });
      }
      crashes++;
    }
  };
  const storage = DirectStorage.open(storageOptions(disk, seed));
  for (const step of steps) {
    next = step.after;
    step.run(storage);
    state = next;
  }
  return crashes;
}

/** One of `states` came back, is durable by now (a second cut that keeps nothing takes nothing away), and goes on. */
function goesOn(disk: FaultDisk, states: readonly State[], seed: number): void {
  const state = assertOneOf(DirectStorage.open(storageOptions(disk, seed)), states);
  disk.restart();
  const again = DirectStorage.open(storageOptions(disk, seed + 1));
  assertState(again, state);
  const more = drawStep(new Random(seed), state, "save");
  more.run(again);
  disk.restart();
  assertState(DirectStorage.open(storageOptions(disk, seed + 2)), more.after);
}

test("K1: the power goes between any two disk operations of 200 steps, and nothing acknowledged is lost", () => {
  const logOnly = (step: number): StepKind | undefined =>
    (["save", "save", "replace", "hardState", "idle"] as const)[step % 5];
  const crashes = crashEverywhere(1, life(1, 200, logOnly), [{ keep: "none" }, { keep: "all", tear: "byte" }]);
  assert.ok(crashes > 700, `${crashes} crashes`);
});

test("K1: the last record torn at every byte", () => {
  const steps = life(2, 12, (step) => (step % 4 === 3 ? "replace" : "save"));
  const last = steps.pop() as Step;
  const before = steps.at(-1)?.after ?? startState;
  const run = (tornAtByte: number, mark: boolean): { disk: FaultDisk; recordBytes: number } => {
    const disk = new FaultDisk(new Random(2));
    const storage = DirectStorage.open(storageOptions(disk, 2));
    for (const step of steps) step.run(storage);
    if (mark) storage.log.idle();
    const written = disk.bytesWritten;
    disk.crashInSync = true;
    assert.throws(() => last.run(storage), DiskCrash);
    disk.restart({ keep: "all", tornAtByte });
    return { disk, recordBytes: disk.bytesWritten - written };
  };
  const { recordBytes } = run(0, false);
  assert.ok(recordBytes > 130);
  for (let tornAtByte = 0; tornAtByte <= recordBytes; tornAtByte++) {
    for (const mark of [false, true]) {
      const { disk } = run(tornAtByte, mark);
      const storage = DirectStorage.open(storageOptions(disk, 3));
      assertState(storage, tornAtByte < recordBytes ? before : last.after);
      if (tornAtByte < recordBytes) last.run(storage);
      disk.restart();
      assertState(DirectStorage.open(storageOptions(disk, 4)), last.after);
    }
  }
});

test("K2: what was not synced is lost, partly kept, or kept out of order", () => {
  for (let seed = 10; seed < 13; seed++) {
    const crashes = crashEverywhere(seed, life(seed, 60), damages, 2);
    assert.ok(crashes > 400, `${crashes} crashes`);
  }
});

test("G6: the receiver of a snapshot is cut at every step, and has the old state or the new one", () => {
  const kind = (step: number): StepKind => (step % 4 === 3 ? "install" : step % 4 === 2 ? "idle" : "save");
  crashEverywhere(20, life(20, 12, kind), damages);
});

test("G7: the creator of a snapshot is cut at every step, and the older snapshot stays valid", () => {
  const kind = (step: number): StepKind => (["save", "save", "snapshot", "compact"] as const)[step % 4] ?? "save";
  const steps = life(21, 24, kind);
  crashEverywhere(21, steps, damages);
  const disk = new FaultDisk(new Random(1));
  disk.crashAt(200);
  runUntilCrash(disk, 21, steps, startState);
  disk.restart({ keep: "all" });
  DirectStorage.open(storageOptions(disk, 22));
  assert.deepEqual(
    disk.paths().filter((path) => path.endsWith(".tmp")),
    [],
  );
});

test("M3: the power goes at every step of rotating keys while writing", () => {
  const kind = (step: number): StepKind =>
    (["save", "rotate", "save", "snapshot", "compact", "rotate", "save", "retire"] as const)[step % 8] ?? "save";
  crashEverywhere(30, life(30, 32, kind), damages);
});

test("K12: 1,000 power cuts at random points of one life", () => {
  const random = new Random(40);
  const disk = new FaultDisk(Random.stream(40, "disk"));
  let state = startState;
  let steps = 0;
  for (let round = 0; round < 1_000; round++) {
    disk.crashAt(disk.operations + random.int(1, 60));
    const plan: Step[] = [];
    let planned = state;
    for (let step = 0; step < 40; step++) {
      const drawn = drawStep(random, planned);
      plan.push(drawn);
      planned = drawn.after;
    }
    const states = runUntilCrash(disk, round, plan, state);
    if (!disk.isDown) disk.killProcess();
    disk.restart(random.pick(damages));
    state = assertOneOf(DirectStorage.open(storageOptions(disk, 5_000 + round)), states);
    disk.killProcess();
    steps += plan.findIndex((step) => step.after === state) + 1;
  }
  assert.ok(steps > 3_000, `${steps} steps`);
});
