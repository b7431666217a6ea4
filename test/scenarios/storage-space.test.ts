/** K8, K10, K14: an fdatasync that fails, a disk that is full, and how large a log may grow. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Random } from "../../lib/pure/prng.ts";
import { DirectStorage } from "../../manager/raft/direct-storage.ts";
import { LogClosed, LogDiskFull, LogWriteFailed } from "../../manager/raft/wal/index.ts";
import { FaultDisk } from "../support/fault-disk.ts";
import { LogRig, entries, entry, hardState, meta } from "../support/log-rig.ts";
import { snapshotSource, storageOptions } from "../support/storage-workload.ts";

const mebi = 1024 * 1024;

test("K8: one failed write or fdatasync is final, and nothing that was not synced is believed afterwards", () => {
  for (const act of ["sync", "write"] as const) {
    const rig = new LogRig(1);
    const log = rig.open();
    log.save({ hardState: hardState(1), entries: entries(1, 3, 1) });
    rig.disk.fail({ act, path: "segment", code: "EIO" });
    assert.throws(() => log.save({ hardState: hardState(2, 5), entries: [] }), LogWriteFailed);
    assert.throws(() => log.save({ hardState: hardState(3), entries: [] }), LogClosed);
    assert.throws(() => log.idle(), LogClosed);
    log.close();
    // The process starts again. The cache still shows what never reached the disk; opening brings it there, so that
    // a power cut right after the answer to it changes nothing.
    rig.disk.killProcess();
    const seen = rig.open().takeRecovered();
    rig.disk.restart();
    assert.deepEqual(rig.open().takeRecovered(), seen);
    assert.equal(seen.entries.length, 3);
  }
});

test("K8: ENOSPC from an fdatasync is as final as EIO", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  rig.disk.fail({ act: "sync", path: "segment", code: "ENOSPC" });
  assert.throws(() => log.save({ hardState: hardState(1), entries: entries(1, 1, 1) }), LogWriteFailed);
});

test("K10: on a full disk a save waits for room and is then done; nothing acknowledged is lost, no term goes back", () => {
  const rig = new LogRig(1, { ballastBytes: 8_192, lowBytes: 16_384 });
  rig.disk.capacityBytes = 100_000;
  let log = rig.open();
  while (log.idle());
  const space = (): "ok" | "low" => log.status.space;
  assert.equal(space(), "ok");
  let index = 0;
  let term = 1;
  const save = (): void => {
    const next = entry(index + 1, term, "x".repeat(700));
    log.save({ hardState: hardState(term), entries: [next] });
    index++;
  };
  let full = 0;
  let low = 0;
  for (let round = 0; round < 500 && full < 30; round++) {
    try {
      save();
      if (space() === "low") low++;
    } catch (error) {
      assert.ok(error instanceof LogDiskFull);
      assert.equal(space(), "low");
      full++;
    }
  }
  assert.equal(full, 30);
  assert.ok(low > 8, "the ballast gave room for more saves after the warning");
  // Votes may fail as well by now; a restart on the full disk must still work and lose nothing.
  rig.disk.restart({ keep: "all" });
  log = rig.open();
  assert.equal(log.takeRecovered().entries.length, index);
  assert.throws(() => {
    for (let round = 0; round < 10; round++) save();
  }, LogDiskFull);
  rig.disk.capacityBytes = 300_000;
  term = 2;
  for (let round = 0; round < 20; round++) save();
  while (log.idle());
  assert.equal(space(), "ok");
  rig.disk.restart();
  const after = rig.open().takeRecovered();
  assert.deepEqual([after.entries.length, after.hardState.term], [index, 2]);
});

test("K10: a full disk, or a quota that is used up, costs the ballast whatever call meets it, also at the end of a segment", () => {
  for (const code of ["ENOSPC", "EDQUOT"] as const) {
    for (const act of ["open", "write", "allocate"] as const) {
      const rig = new LogRig(1, { ballastBytes: 8_192, lowBytes: 16_384 });
      const log = rig.open();
      while (log.idle());
      assert.ok(rig.disk.paths().includes("/data/log/ballast"));
      rig.disk.fail({ act, path: "segment-0000000000000002", code });
      let index = 0;
      while (rig.segments().length < 2) log.save({ hardState: hardState(1), entries: [entry(++index, 1)] });
      assert.ok(!rig.disk.paths().includes("/data/log/ballast"), `${act} ${code}`);
      rig.disk.restart();
      assert.equal(rig.open().takeRecovered().entries.length, index);
    }
    // Without any it waits.
    const rig = new LogRig(1);
    const log = rig.open();
    rig.disk.fail({ act: "allocate", path: "segment", code });
    let index = 0;
    assert.throws(() => {
      for (;;) log.save({ hardState: hardState(1), entries: [entry(++index, 1)] });
    }, LogDiskFull);
    log.save({ hardState: hardState(1), entries: [entry(index, 1)] });
    assert.equal(log.lastIndex, index);
  }
});

test("K10: snapshots that a full disk refuses, written or received, leave no descriptor and no file, however often", () => {
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(storageOptions(disk, 1));
  storage.save({ hardState: hardState(1, 0, 40), entries: entries(1, 40, 1) });
  storage.createSnapshot(meta(10, 1), snapshotSource(10));
  const reader = storage.snapshots.openReader(meta(10, 1));
  const offer = { ...reader.offer, meta: meta(60, 1) };
  reader.close();
  const [files, open] = [disk.paths(), disk.openFiles];
  for (let attempt = 0; attempt < 10; attempt++) {
    // The header, and the first block behind it.
    disk.fail({ act: "write", path: ".tmp", code: "ENOSPC", after: attempt % 2 });
    assert.throws(() => storage.createSnapshot(meta(39, 1), snapshotSource(39)), { code: "SNAPSHOT_WRITE_FAILED" });
    disk.fail({ act: "write", path: ".spool", code: "ENOSPC" });
    assert.throws(() => storage.snapshots.openReceiver(5, offer), { code: "SNAPSHOT_WRITE_FAILED" });
    assert.deepEqual([disk.paths(), disk.openFiles], [files, open]);
  }
  // No key is held on to for a file that is not there.
  storage.rotateKey();
  storage.createSnapshot(meta(39, 1), snapshotSource(39));
  storage.createSnapshot(meta(40, 1), snapshotSource(40));
  storage.compact(40);
  assert.deepEqual([...storage.snapshots.keysInUse()], [2]);
});

test("K10: creating a snapshot on a full disk fails with its own error; the log and the older snapshot stay", () => {
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(storageOptions(disk, 1));
  storage.save({ hardState: hardState(1, 0, 40), entries: entries(1, 40, 1) });
  storage.createSnapshot(meta(10, 1), snapshotSource(10));
  disk.capacityBytes =
    disk
      .contents()
      .values()
      .reduce((sum, { length }) => sum + length, 0) + 600;
  assert.throws(() => storage.createSnapshot(meta(39, 1), snapshotSource(39)), { code: "SNAPSHOT_WRITE_FAILED" });
  disk.capacityBytes = mebi;
  storage.createSnapshot(meta(39, 1), snapshotSource(39));
  assert.equal(storage.snapshots.newest?.index, 39);
  assert.ok(!disk.paths().some((path) => path.endsWith(".tmp")));
});

test("K10: a real file system of 12 MiB fills up under the log's thread, and the saves go on when there is room", (t) => {
  if (process.getuid?.() !== 0) {
    t.skip("needs root, to mount a file system of its own");
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), "skep-full-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  // A mount namespace of its own: the mount is gone with the process.
  const script = join(import.meta.dirname, "..", "support", "full-disk-life.ts");
  const command = 'mount -t tmpfs -o size=12m tmpfs "$1" && exec "$2" "$3" "$1"';
  const done = spawnSync("unshare", ["--mount", "sh", "-c", command, "sh", folder, process.execPath, script], {
    timeout: 240_000,
    encoding: "utf8",
  });
  assert.equal(done.status, 0, done.stderr);
  assert.deepEqual(JSON.parse(done.stdout), {
    spaces: ["low", "full", "ok or low"],
    waitedWhileFull: true,
    saved: 7_000,
    recovered: 7_000,
  });
});

test("K10: a log that cannot be opened since its disk is full says so, waits, and stops when it is asked to", (t) => {
  if (process.getuid?.() !== 0) {
    t.skip("needs root, to mount a file system of its own");
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), "skep-full-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const script = join(import.meta.dirname, "..", "support", "full-disk-start.ts");
  const command = 'mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" "$3" "$1"';
  const done = spawnSync("unshare", ["--mount", "sh", "-c", command, "sh", folder, process.execPath, script], {
    timeout: 120_000,
    encoding: "utf8",
  });
  assert.equal(done.status, 0, done.stderr);
  assert.deepEqual(JSON.parse(done.stdout), ["LOG_DISK_FULL", "asked to stop"]);
});

test("K14: under growth with compaction the log stays below its formula at every moment", () => {
  const segmentBytes = 64 * 1024;
  const rig = new LogRig(1, { segmentBytes, aheadBytes: 8_192, ballastBytes: 32_768, recordBytes: 16_384 });
  const log = rig.open();
  const entryBytes = 1_000;
  const [trailing, every] = [200, 300];
  let peak = 0;
  const rounds = 20_000; // 20 MB of entries
  for (let index = 1; index <= rounds; index++) {
    log.save({ hardState: hardState(1, 0, index), entries: [entry(index, 1, "x".repeat(entryBytes))] });
    if (index % every === 0) {
      rig.snapshots = [meta(index, 1)];
      log.compact(index - trailing);
    }
    if (index % 97 === 0) while (log.idle());
    if (index % 10 === 0) peak = Math.max(peak, usedBytes(rig));
  }
  const perEntry = entryBytes + 148; // record header, tag and entry header
  const formula = (trailing + every) * perEntry + 2 * segmentBytes + 32_768 + 2 * 4_096;
  assert.ok(peak <= formula, `${peak} bytes used, ${formula} allowed`);
  assert.ok(peak > formula / 3);
  assert.ok(log.status.sizeBytes <= formula);
});

function usedBytes({ disk }: LogRig): number {
  disk.capacityBytes = 1e15;
  return 1e15 - disk.freeBytes("/");
}
