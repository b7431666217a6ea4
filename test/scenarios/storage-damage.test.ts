/** Section K3 to K7, K9, K13: a disk that lies is noticed, exactly; nothing is ever silently shorter. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { DirectStorage } from "../../manager/raft/direct-storage.ts";
import { StorageForeign } from "../../manager/raft/keys/index.ts";
import { LogQuarantined, LogReadFailed, LogWriteFailed, type Damage } from "../../manager/raft/wal/index.ts";
import {
  decodeRecordHeader,
  recordBytes,
  segmentHeaderBytes,
  slotBytes,
  type RecordHeader,
} from "../../manager/raft/wal/format.ts";
import { Random } from "../../lib/pure/prng.ts";
import { FaultDisk } from "../support/fault-disk.ts";
import { LogRig, entries, entry, flat, hardState, identity, logFolder, meta } from "../support/log-rig.ts";
import { snapshotSource, storageOptions } from "../support/storage-workload.ts";

const slotsPath = `${logFolder}/slots`;

interface Found {
  readonly path: string;
  readonly at: number;
  readonly header: RecordHeader;
}

/** Where the records stand. */
function records(rig: LogRig): Found[] {
  return rig.segments().flatMap((path) => {
    const content = rig.disk.peek(path)!;
    const found: Found[] = [];
    let at = segmentHeaderBytes;
    for (let header = decodeRecordHeader(content, at); header !== undefined; header = decodeRecordHeader(content, at)) {
      found.push({ path, at, header });
      at += recordBytes(header.payloadBytes);
    }
    return found;
  });
}

/** A log of ten records in one segment; closed, so that the last one is marked, unless told otherwise. */
function tenRecords(options: { marked?: boolean; segmentBytes?: number } = {}): LogRig {
  const rig = new LogRig(1, { segmentBytes: options.segmentBytes ?? 16_384 });
  const log = rig.open();
  for (let index = 1; index <= 10; index++) log.save({ hardState: hardState(1, 2, 0), entries: [entry(index, 1)] });
  if (options.marked ?? true) log.close();
  rig.disk.restart();
  return rig;
}

/** The log refuses to open for that reason and has touched nothing. */
function assertQuarantined(rig: LogRig, damages: readonly Damage[], context = ""): void {
  const before = rig.disk.contents();
  assert.throws(
    () => rig.open(),
    (error) => {
      assert.ok(error instanceof LogQuarantined, `${context}: ${String(error)}`);
      assert.equal(error.code, "LOG_QUARANTINED");
      assert.ok(damages.includes(error.damage), `${context}: ${error.damage}, ${error.message}`);
      return true;
    },
    context,
  );
  assert.deepEqual(rig.disk.contents(), before);
}

const flipByte = (rig: LogRig, path: string, byte: number): void => rig.disk.flipBit(path, byte, byte % 8);

test("K3: a flipped bit in any byte of a record in the middle of the log: quarantine, never a hole", () => {
  const pristine = tenRecords().disk.contents();
  const rig = tenRecords();
  const { path, at, header } = records(rig)[4]!;
  for (let byte = at; byte < at + recordBytes(header.payloadBytes); byte++) {
    rig.disk.restore(pristine);
    flipByte(rig, path, byte);
    assertQuarantined(rig, ["record", "chain", "lastRecordLost"], `byte ${byte - at} of the record`);
  }
});

test("K3: a flipped bit in any byte of a segment's header: quarantine", () => {
  const rig = tenRecords();
  const pristine = rig.disk.contents();
  const path = rig.segments()[0]!;
  for (let byte = 0; byte < segmentHeaderBytes; byte++) {
    rig.disk.restore(pristine);
    flipByte(rig, path, byte);
    assertQuarantined(rig, ["segmentHeader"], `byte ${byte}`);
  }
});

test("K4: the last synced record damaged, gone or cut off is no torn tail once it is marked", () => {
  const rig = tenRecords();
  const pristine = rig.disk.contents();
  const { path, at, header } = records(rig).at(-1)!;
  for (let byte = at; byte < at + recordBytes(header.payloadBytes); byte++) {
    rig.disk.restore(pristine);
    flipByte(rig, path, byte);
    assertQuarantined(rig, ["lastRecordLost"], `byte ${byte - at}`);
  }
  for (const content of [pristine.get(path)!.slice(0, at), pristine.get(path)!.slice(0, at + 20)]) {
    rig.disk.restore(pristine);
    rig.disk.plant(path, content);
    assertQuarantined(rig, ["lastRecordLost"]);
  }
  rig.disk.restore(pristine);
  rig.disk.plant(path, pristine.get(path)!.fill(0, at));
  assertQuarantined(rig, ["lastRecordLost"]);
});

test("K4: the disk says yes to the last write and loses it: noticed if the mark came, and always if another record came", () => {
  for (const more of [0, 1]) {
    const rig = new LogRig(1);
    const log = rig.open();
    log.save({ hardState: hardState(1), entries: entries(1, 3, 1) });
    rig.disk.loseWrites("segment");
    log.save({ hardState: undefined, entries: entries(4, 4, 1) });
    if (more === 0) log.idle();
    else log.save({ hardState: undefined, entries: entries(5, 5, 1) });
    rig.disk.restart();
    assertQuarantined(rig, more === 0 ? ["lastRecordLost"] : ["record"]);
  }
});

test("K4: before its mark, a last record that does not check is a torn tail (the documented window of 20 ms)", () => {
  const rig = tenRecords({ marked: false });
  const { path, at } = records(rig).at(-1)!;
  flipByte(rig, path, at + 40);
  assert.equal(rig.open().takeRecovered().entries.length, 9);
});

test("K5: one damaged slot is survived, wherever it is damaged; two are quarantine", () => {
  const rig = tenRecords();
  const pristine = rig.disk.contents();
  const expected = flat(rig.open().takeRecovered());
  for (const place of [0, 1]) {
    for (let byte = 0; byte < 512; byte += 3) {
      rig.disk.restore(pristine);
      flipByte(rig, slotsPath, place * slotBytes + byte);
      const log = rig.open();
      assert.deepEqual(flat(log.takeRecovered()), expected);
      log.save({ hardState: hardState(2, 1, 0), entries: [] });
      log.close();
      rig.disk.restart();
      assert.equal(rig.open().takeRecovered().hardState.term, 2);
    }
  }
  rig.disk.restore(pristine);
  flipByte(rig, slotsPath, 20);
  flipByte(rig, slotsPath, slotBytes + 30);
  assertQuarantined(rig, ["slots"]);
  for (const content of [new Uint8Array(0), pristine.get(slotsPath)!.slice(0, 300)]) {
    rig.disk.restore(pristine);
    rig.disk.plant(slotsPath, content);
    assertQuarantined(rig, ["slots"]);
  }
  rig.disk.restore(pristine);
  rig.disk.remove(slotsPath);
  assertQuarantined(rig, ["slots"]);
});

test("K5: slots of an earlier time: quarantine, never a lower term", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  log.save({ hardState: hardState(1), entries: entries(1, 2, 1) });
  log.idle();
  const early = rig.disk.peek(slotsPath)!;
  for (let round = 2; round < 5; round++) {
    log.save({ hardState: hardState(round), entries: [] });
    log.idle();
  }
  log.save({ hardState: hardState(9), entries: [] });
  rig.disk.restart();
  rig.disk.plant(slotsPath, early);
  assertQuarantined(rig, ["slotsStale"]);
});

test("K5: slots that know more than the log: quarantine", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  log.save({ hardState: hardState(1), entries: entries(1, 2, 1) });
  log.close();
  const early = rig.disk.contents();
  const again = rig.open();
  again.save({ hardState: hardState(5, 3), entries: [] });
  again.close();
  const late = rig.disk.peek(slotsPath)!;
  rig.disk.restore(early);
  rig.disk.plant(slotsPath, late);
  assertQuarantined(rig, ["lastRecordLost", "slotsDisagree"]);
});

test("K6: wrong bytes from a read of the log are caught; nothing of them is used", () => {
  let quarantined = 0;
  for (let seed = 0; seed < 60; seed++) {
    const rig = new LogRig(seed, { segmentBytes: 4_096 });
    const log = rig.open();
    for (let index = 1; index <= 20; index++) log.save({ hardState: hardState(1), entries: [entry(index, 1)] });
    log.close();
    rig.disk.restart();
    const expected = flat(rig.open().takeRecovered());
    rig.disk.restart();
    rig.disk.readWrongly("segment");
    try {
      assert.deepEqual(flat(rig.open().takeRecovered()), expected); // the bit lay in the zeros behind the last record
    } catch (error) {
      if (!(error instanceof LogQuarantined)) throw error;
      quarantined++;
      assert.deepEqual(flat(rig.open().takeRecovered()), expected); // the disk itself was sound
    }
  }
  assert.ok(quarantined > 20);
});

test("K6: wrong bytes from a read of a snapshot are caught before they are sent or loaded", () => {
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(storageOptions(disk, 1));
  storage.save({ hardState: hardState(1, 0, 9), entries: entries(1, 9, 1) });
  storage.createSnapshot(meta(9, 1), snapshotSource(9));
  const reader = storage.snapshots.openReader(meta(9, 1));
  const good = reader.chunk(1);
  for (let round = 0; round < 50; round++) {
    disk.readWrongly(".snap");
    assert.throws(() => reader.chunk(1), { code: "SNAPSHOT_DAMAGED" });
    assert.deepEqual(reader.chunk(1), good);
  }
});

test("K7: a duplicated record, two exchanged ones, and one that landed elsewhere: quarantine", () => {
  const rig = tenRecords();
  const pristine = rig.disk.contents();
  const at = records(rig);
  const path = at[0]!.path;
  const piece = (place: number): Uint8Array => {
    const { at: start, header } = at[place]!;
    return pristine.get(path)!.slice(start, start + recordBytes(header.payloadBytes));
  };
  // Indices of one digit: the records have one length.
  const put = (changes: readonly (readonly [number, Uint8Array])[]): void => {
    rig.disk.restore(pristine);
    const content = rig.disk.peek(path)!;
    for (const [place, bytes] of changes) content.set(bytes, at[place]!.at);
    rig.disk.plant(path, content);
  };
  put([[5, piece(4)]]);
  assertQuarantined(rig, ["chain"]);
  put([
    [4, piece(5)],
    [5, piece(4)],
  ]);
  assertQuarantined(rig, ["chain"]);
  for (const moveBy of [-150, 150, 400, 3_000]) {
    const other = new LogRig(1, { segmentBytes: 16_384 });
    const log = other.open();
    for (let index = 1; index <= 4; index++) log.save({ hardState: hardState(1), entries: [entry(index, 1)] });
    other.disk.misdirectWrite("segment", moveBy);
    log.save({ hardState: undefined, entries: [entry(5, 1)] });
    log.save({ hardState: undefined, entries: [entry(6, 1)] });
    other.disk.restart();
    assertQuarantined(other, ["record", "chain"], `moved by ${moveBy}`);
  }
});

test("K7: files of another cluster, member or incarnation are refused for what they are", () => {
  const rig = tenRecords();
  const pristine = rig.disk.contents();
  for (const other of [
    { ...identity, clusterId: "c2" },
    { ...identity, memberId: 8 },
    { ...identity, incarnation: "f".repeat(32) },
  ]) {
    for (const own of [[slotsPath], rig.segments(), []]) {
      rig.disk.restore(pristine);
      // Our slots or our segments among theirs, or nothing of ours.
      const theirs = new LogRig(2);
      const log = theirs.open({ identity: other });
      log.save({ hardState: hardState(1), entries: entries(1, 10, 1) });
      log.close();
      for (const path of [slotsPath, ...rig.segments()]) {
        if (!own.includes(path)) rig.disk.plant(path, theirs.disk.peek(path)!);
      }
      const before = rig.disk.contents();
      assert.throws(() => rig.open(), StorageForeign);
      assert.deepEqual(rig.disk.contents(), before);
    }
  }
});

test("K7: a record of another member, its checksums made to fit, still breaks the seal", () => {
  const rig = tenRecords({ marked: false });
  const theirs = new LogRig(1, { segmentBytes: 16_384 });
  const log = theirs.open({ identity: { ...identity, memberId: 8 } });
  for (let index = 1; index <= 10; index++) log.save({ hardState: hardState(1, 2, 0), entries: [entry(index, 1)] });
  const { path, at, header } = records(rig).at(-1)!;
  const content = rig.disk.peek(path)!;
  const end = at + recordBytes(header.payloadBytes);
  const record = theirs.disk.peek(path)!.slice(at, end);
  new DataView(record.buffer).setUint32(104, header.previousCrc, true);
  new DataView(record.buffer).setUint32(112, crc32(record.subarray(0, 112)), true);
  content.set(record, at);
  rig.disk.plant(path, content);
  assertQuarantined(rig, ["seal"]);
});

test("K7: a record from another life of the same member, sound in itself, does not follow the one before it", () => {
  const path = `${logFolder}/segment-0000000000000001.log`;
  const rig = new LogRig(1, { segmentBytes: 16_384 });
  const log = rig.open();
  for (let index = 1; index <= 3; index++) log.save({ hardState: hardState(1), entries: [entry(index, 1)] });
  const fork = rig.disk.contents();
  const live = (term: number): Uint8Array => {
    rig.disk.restore(fork);
    const life = rig.open();
    for (const index of [4, 5]) life.save({ hardState: hardState(term), entries: [entry(index, term)] });
    return rig.disk.peek(path)!;
  };
  const [one, other] = [live(2), live(3)];
  const { at } = records(rig)[4]!;
  rig.disk.restart();
  rig.disk.plant(
    path,
    Uint8Array.from(one, (byte, place) => (place < at ? byte : (other[place] ?? 0))),
  );
  assertQuarantined(rig, ["chain"]);
});

test("K13: the newest segment is missed even before its records are marked", () => {
  const rig = new LogRig(1, { segmentBytes: 1_000 });
  const log = rig.open();
  for (let index = 1; rig.segments().length < 3; index++)
    log.save({ hardState: hardState(1), entries: [entry(index, 1)] });
  rig.disk.restart();
  rig.disk.remove(rig.segments().at(-1)!);
  assertQuarantined(rig, ["segmentMissing"]);
});

test("K9: a log that cannot be read at start says so, and is not taken for an empty or shorter one", () => {
  for (const act of ["open", "read", "readdir"] as const) {
    const rig = tenRecords({ segmentBytes: 1_500 });
    const pristine = rig.disk.contents();
    const counted = rig.disk.calls[act];
    rig.open();
    const calls = rig.disk.calls[act] - counted;
    assert.ok(calls > 0);
    let refused = 0;
    for (let after = 0; after < calls; after++) {
      rig.disk.restore(pristine);
      rig.disk.mend();
      rig.disk.fail({ act, path: logFolder, code: "EIO", after });
      try {
        rig.open();
      } catch (error) {
        // Once everything has been read and checked, opening writes; a failure then is as final as any.
        assert.ok(error instanceof LogReadFailed || error instanceof LogWriteFailed, String(error));
        if (error instanceof LogReadFailed) refused++;
      }
    }
    assert.ok(refused > 0);
  }
});

test("K13: missing, extra, empty and half-made segments have exactly the documented outcome", () => {
  const rig = tenRecords({ segmentBytes: 1_000 });
  const pristine = rig.disk.contents();
  const segments = rig.segments();
  assert.ok(segments.length >= 3);
  const expected = flat(rig.open().takeRecovered());
  const [first, middle, last] = [segments[0]!, segments[1]!, segments.at(-1)!];
  const header = pristine.get(last)!.slice(0, segmentHeaderBytes);
  const cases: readonly { name: string; change: () => void; damage: Damage | "opens" }[] = [
    {
      name: "the oldest is missing, no snapshot covers it",
      change: () => rig.disk.remove(first),
      damage: "snapshotMissing",
    },
    { name: "one in the middle is missing", change: () => rig.disk.remove(middle), damage: "segmentMissing" },
    { name: "the newest is missing", change: () => rig.disk.remove(last), damage: "segmentMissing" },
    { name: "the newest is empty", change: () => rig.disk.plant(last, new Uint8Array(0)), damage: "segmentHeader" },
    { name: "the newest is a bare header", change: () => rig.disk.plant(last, header), damage: "lastRecordLost" },
    {
      name: "one in the middle is cut",
      change: () => rig.disk.plant(middle, pristine.get(middle)!.slice(0, 700)),
      damage: "chain",
    },
    {
      name: "two have changed names",
      change: () => rig.disk.plant(middle, pristine.get(last)!),
      damage: "segmentHeader",
    },
    {
      name: "one was half made",
      change: () => rig.disk.plant(`${logFolder}/segment-0000000000000099.log.tmp`, header),
      damage: "opens",
    },
    { name: "a stranger lies there", change: () => rig.disk.plant(`${logFolder}/notes.txt`, header), damage: "opens" },
  ];
  for (const { name, change, damage } of cases) {
    rig.disk.restore(pristine);
    change();
    if (damage === "opens") {
      assert.deepEqual(flat(rig.open().takeRecovered()), expected, name);
      assert.ok(!rig.disk.paths().some((path) => path.endsWith(".tmp")), name);
    } else assertQuarantined(rig, [damage], name);
  }
});

test("K13: old segments that a crash brought back, with or without a gap, are dropped when a snapshot covers them", () => {
  for (const back of [[0], [1], [0, 1]]) {
    const rig = tenRecords({ segmentBytes: 1_000 });
    const segments = rig.segments();
    const old = rig.disk.contents();
    rig.snapshots = [meta(10, 1)];
    const log = rig.open();
    log.save({ hardState: hardState(1, 2, 10), entries: [] });
    log.compact(10);
    log.close();
    assert.equal(rig.segments().length, 1);
    for (const place of back) rig.disk.plant(segments[place]!, old.get(segments[place]!)!);
    rig.disk.restart();
    const { hardState: state } = rig.open().takeRecovered();
    assert.deepEqual(state, hardState(1, 2, 10));
  }
});

test("a damaged newest snapshot: the one before is used if the log goes on from it, else quarantine", () => {
  for (const compacted of [false, true]) {
    const disk = new FaultDisk(new Random(1));
    const storage = DirectStorage.open(storageOptions(disk, 1));
    storage.save({ hardState: hardState(1, 0, 40), entries: entries(1, 40, 1) });
    storage.createSnapshot(meta(5, 1), snapshotSource(5));
    for (let index = 41; index <= 60; index++)
      storage.save({ hardState: undefined, entries: [entry(index, 1, "x".repeat(400))] });
    storage.save({ hardState: hardState(1, 0, 55), entries: [] });
    storage.createSnapshot(meta(50, 1), snapshotSource(50));
    if (compacted) storage.compact(50);
    storage.close();
    const newest = disk
      .paths()
      .filter((path) => path.endsWith(".snap"))
      .at(-1)!;
    disk.flipBit(newest, 700);
    disk.restart();
    if (compacted) {
      assert.throws(() => DirectStorage.open(storageOptions(disk, 2)), {
        code: "LOG_QUARANTINED",
        damage: "snapshotMissing",
      });
    } else {
      const again = DirectStorage.open(storageOptions(disk, 2));
      assert.equal(again.recovered.snapshot.index, 5);
      assert.equal(again.snapshots.damaged[0]?.error.code, "SNAPSHOT_DAMAGED");
      assert.ok(disk.paths().includes(newest));
      again.createSnapshot(meta(50, 1), snapshotSource(50));
      disk.restart();
      assert.equal(DirectStorage.open(storageOptions(disk, 3)).recovered.snapshot.index, 50);
    }
  }
});
