import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../lib/pure/prng.ts";
import { errnoOf } from "../../lib/runtime/file-system.ts";
import { DiskCrash, FaultDisk } from "../support/fault-disk.ts";

const bytes = (value: number, count: number): Uint8Array => new Uint8Array(count).fill(value);

function diskWithFile(seed = 1): { disk: FaultDisk; file: ReturnType<FaultDisk["open"]> } {
  const disk = new FaultDisk(new Random(seed));
  disk.mkdir("/d");
  const file = disk.open("/d/f", "create");
  file.pwrite(bytes(1, 2048), 0);
  file.datasync();
  disk.syncDirectory("/d");
  return { disk, file };
}

test("a crash loses what was not synced, and keeps it when told so", () => {
  for (const keep of ["none", "all"] as const) {
    const { disk, file } = diskWithFile();
    file.pwrite(bytes(2, 1024), 512);
    disk.open("/d/new", "create");
    disk.restart({ keep });
    assert.equal(disk.peek("/d/f")![512], keep === "all" ? 2 : 1);
    assert.equal(disk.peek("/d/new") !== undefined, keep === "all");
    assert.throws(() => file.sizeBytes(), { code: "EBADF" });
  }
});

test("random loss works by sectors, a torn write ends at the byte asked for", () => {
  const seen = new Set<string>();
  for (let seed = 0; seed < 40; seed++) {
    const { disk, file } = diskWithFile(seed);
    file.pwrite(bytes(2, 1024), 256);
    disk.restart({ keep: "random" });
    const content = disk.peek("/d/f")!;
    seen.add([256, 512, 1024].map((at) => content[at]).join(""));
    for (const [from, to] of [
      [256, 512],
      [512, 1024],
      [1024, 1280],
    ] as const) {
      assert.equal(new Set(content.subarray(from, to)).size, 1);
    }
  }
  assert.equal(seen.size, 8);
  const { disk, file } = diskWithFile();
  file.pwrite(bytes(2, 100), 0);
  disk.restart({ keep: "all", tornAtByte: 7 });
  assert.deepEqual([...disk.peek("/d/f")!.subarray(5, 9)], [2, 2, 1, 1]);
});

test("after a failed sync the cache shows what the disk never gets", () => {
  const { disk, file } = diskWithFile();
  file.pwrite(bytes(2, 10), 0);
  disk.fail({ act: "sync", code: "EIO" });
  assert.throws(() => file.datasync(), { code: "EIO" });
  file.datasync();
  disk.killProcess();
  assert.equal(disk.peek("/d/f")![0], 2);
  disk.restart({ keep: "all" });
  assert.equal(disk.peek("/d/f")![0], 1);
});

test("lost and misdirected writes show at the restart only; wrong reads once", () => {
  const { disk, file } = diskWithFile();
  disk.loseWrites("/d/f");
  file.pwrite(bytes(2, 10), 0);
  disk.misdirectWrite("/d/f", 100);
  file.pwrite(bytes(3, 10), 50);
  file.datasync();
  assert.deepEqual([disk.peek("/d/f")![0], disk.peek("/d/f")![50]], [2, 3]);
  disk.restart();
  assert.deepEqual(
    [0, 50, 150].map((at) => disk.peek("/d/f")![at]),
    [1, 1, 3],
  );
  disk.readWrongly("/d/f");
  const again = disk.open("/d/f", "read");
  const into = new Uint8Array(40);
  again.pread(into, 0);
  assert.notDeepEqual(into, bytes(1, 40));
  again.pread(into, 0);
  assert.deepEqual(into, bytes(1, 40));
});

test("an armed crash stops the call with that number and everything after it", () => {
  const { disk, file } = diskWithFile();
  disk.crashAt(disk.operations + 2);
  file.pwrite(bytes(2, 10), 0);
  assert.throws(() => file.pwrite(bytes(3, 10), 0), DiskCrash);
  assert.throws(() => disk.readdir("/d"), DiskCrash);
  assert.ok(disk.isDown);
  disk.restart({ keep: "all" });
  assert.equal(disk.peek("/d/f")![0], 3);
});

test("a full disk takes what fits and says ENOSPC; freed space is usable", () => {
  const { disk, file } = diskWithFile();
  disk.capacityBytes = 2100;
  assert.equal(disk.freeBytes("/d"), 52);
  assert.throws(
    () => file.pwrite(bytes(2, 100), 2048),
    (error) => errnoOf(error) === "ENOSPC",
  );
  assert.equal(file.sizeBytes(), 2100);
  file.truncate(1000);
  assert.equal(disk.freeBytes("/d"), 1100);
});

test("the same seed gives the same damage and the same times", () => {
  const run = (): unknown => {
    const { disk, file } = diskWithFile(7);
    disk.latency = { readUs: 5, writeUs: 10, syncUs: 100, syncMeanUs: 50 };
    for (let i = 0; i < 20; i++) file.pwrite(bytes(i, 600), i * 100);
    file.datasync();
    file.pwrite(bytes(9, 900), 0);
    disk.restart({ keep: "random" });
    return [disk.elapsedUs, disk.peek("/d/f")];
  };
  assert.deepEqual(run(), run());
});
