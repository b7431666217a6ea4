/** K3 to K7, K13, M2, drawn by chance: whatever happens to one file of a member's storage is told, or changes nothing. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ClusterError } from "../../lib/pure/errors.ts";
import { Random } from "../../lib/pure/prng.ts";
import { DirectStorage, type DirectStorageOptions } from "../../manager/raft/direct-storage.ts";
import { aesGcm } from "../../manager/raft/keys/index.ts";
import { FaultDisk } from "../support/fault-disk.ts";
import { assertState, drawStep, startState, storageOptions, type State } from "../support/storage-workload.ts";

const sealed = (disk: FaultDisk, seed: number): DirectStorageOptions => ({
  ...storageOptions(disk, seed),
  cipher: aesGcm,
});

/** A folder after some life, everything marked and synced. */
function lived(seed: number): { disk: FaultDisk; state: State } {
  const random = new Random(seed);
  const disk = new FaultDisk(Random.stream(seed, "disk"));
  const storage = DirectStorage.open(sealed(disk, seed));
  let state = startState;
  for (let left = random.int(20, 60); left > 0; left--) {
    const step = drawStep(random, state);
    step.run(storage);
    state = step.after;
  }
  storage.close();
  disk.restart();
  return { disk, state };
}

/** One file is altered as disks, operators and thieves do. @returns what was done */
function damage(random: Random, disk: FaultDisk): string {
  const path = random.pick(disk.paths());
  const content = disk.peek(path) ?? new Uint8Array(0);
  const at = random.int(0, Math.max(1, content.length));
  const run = content.subarray(at, at + random.int(1, 200));
  const kind = random.pick(["flip", "flip", "flip", "flip", "cut", "cut", "zeros", "noise", "longer", "gone"] as const);
  switch (kind) {
    case "flip":
      disk.flipBit(path, at);
      break;
    case "cut":
      disk.plant(path, content.slice(0, at));
      break;
    case "zeros":
      run.fill(0);
      disk.plant(path, content);
      break;
    case "noise":
      for (const place of run.keys()) run[place] = random.int(0, 256);
      disk.plant(path, content);
      break;
    case "longer":
      disk.plant(path, Buffer.concat([content, run]));
      break;
    case "gone":
      disk.remove(path);
      break;
  }
  return `${kind} of ${path} at byte ${at}`;
}

/** All of it is there, perhaps from an older snapshot and the log behind that. */
function assertWhole(storage: DirectStorage, state: State): void {
  const { recovered } = storage;
  const { index } = recovered.snapshot;
  if (index === state.snapshotIndex) return assertState(storage, state);
  assert.ok(index < state.snapshotIndex, "the older snapshot");
  assert.deepEqual(recovered.hardState, state.hardState);
  const found = recovered.entries.filter((entry) => entry.index > index);
  const wanted = state.entries.slice(index);
  assert.deepEqual(
    found.map((entry) => [entry.index, entry.term, Buffer.from(entry.data).toString("latin1")]),
    wanted.map((entry) => entry && [entry.index, entry.term, Buffer.from(entry.data).toString("latin1")]),
  );
  return undefined;
}

test("K3, K5, K13, M2: one file of the storage altered anywhere is a typed error with what to do, or nothing is missing", () => {
  const told = new Map<string, number>();
  for (let seed = 1; seed <= 40; seed++) {
    const { disk, state } = lived(seed);
    const pristine = disk.contents();
    const random = Random.stream(seed, "damage");
    for (let round = 0; round < 60; round++) {
      disk.restore(pristine);
      const what = `seed ${seed}, round ${round}: ${damage(random, disk)}`;
      const before = disk.contents();
      let storage: DirectStorage;
      try {
        storage = DirectStorage.open(sealed(disk, seed + 1000));
      } catch (error) {
        assert.ok(error instanceof ClusterError, `${what}: ${(error as Error).stack}`);
        assert.ok((error.fix ?? "").length > 10, what);
        assert.deepEqual(disk.contents(), before, `${what}: ${error.code} touched a file`);
        told.set(error.code, (told.get(error.code) ?? 0) + 1);
        continue;
      }
      try {
        assertWhole(storage, state);
      } catch (cause) {
        throw new Error(`${what}: something is missing, and nothing was said`, { cause });
      }
      told.set("whole", (told.get("whole") ?? 0) + 1);
      storage.close();
    }
  }
  for (const code of ["whole", "LOG_QUARANTINED", "KEY_FILE_DAMAGED", "KEY_MISSING"]) {
    assert.ok((told.get(code) ?? 0) > 20, `${code}: ${JSON.stringify([...told])}`);
  }
});
