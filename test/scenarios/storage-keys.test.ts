/** Section M, as far as storage goes: nothing readable on disk, keys that turn over, nonces that never repeat. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { Random } from "../../lib/pure/prng.ts";
import { DirectStorage } from "../../manager/raft/direct-storage.ts";
import {
  KeyFileDamaged,
  KeyFileUnusable,
  KeyMissing,
  KeyRing,
  KeyWrong,
  StorageForeign,
  StorageLocked,
  StorageNewer,
  aesGcm,
  createNodeKey,
  formatUnlockKey,
  parseUnlockKey,
  readNodeKey,
  type Cipher,
  type Kek,
} from "../../manager/raft/keys/index.ts";
import { LogQuarantined } from "../../manager/raft/wal/index.ts";
import { decodeRecordHeader, recordBytes, segmentHeaderBytes } from "../../manager/raft/wal/format.ts";
import { FaultDisk } from "../support/fault-disk.ts";
import { LogRig, entries, entry, hardState, identity, meta, nodeKek } from "../support/log-rig.ts";
import { plainCipher } from "../support/plain-cipher.ts";
import { snapshotSource, storageOptions } from "../support/storage-workload.ts";

const unlockKek: Kek = { kind: "unlock", key: new Uint8Array(32).fill(77) };

test("M1: a secret proposed 1,000 times is found in no file: log, snapshot, half-made file, spool, keys", () => {
  const disk = new FaultDisk(new Random(1));
  const options = { ...storageOptions(disk, 1), cipher: aesGcm };
  const storage = DirectStorage.open(options);
  const secret = "the-secret-marker";
  const text = new TextEncoder().encode(`password=${secret};`);
  for (let index = 1; index <= 1_000; index++) {
    storage.save({ hardState: hardState(1, 0, index), entries: [{ ...entry(index, 1), data: text }] });
  }
  let left = 500;
  storage.createSnapshot(meta(500, 1), { index: 500, next: () => (left-- > 0 ? text : undefined) });
  const half = storage.snapshots.begin(meta(600, 1));
  for (let round = 0; round < 40_000; round++) half.write(text);
  const reader = storage.snapshots.openReader(meta(500, 1));
  const spool = storage.snapshots.openReceiver(3, { ...reader.offer, meta: meta(500, 1) });
  spool.write(reader.chunk(0));
  spool.write(reader.chunk(1));
  const needles = [
    Buffer.from(secret),
    Buffer.from(nodeKek.key),
    ...storage.keys.all().map(({ key }) => Buffer.from(key)),
  ];
  const names = [...disk.contents().keys()].map((path) => path.replace(/^.*[./-]/u, ""));
  assert.deepEqual(new Set(names), new Set(["keys", "log", "slots", "snap", "tmp", "spool"]));
  for (const [path, content] of disk.contents()) {
    for (const needle of needles) assert.equal(Buffer.from(content).indexOf(needle), -1, path);
  }
});

test("M2: a wrong, missing or damaged key each has its own error, and no file is touched", () => {
  const disk = new FaultDisk(new Random(1));
  const options = storageOptions(disk, 1);
  const storage = DirectStorage.open(options);
  storage.save({ hardState: hardState(1), entries: entries(1, 5, 1) });
  storage.close();
  const pristine = disk.contents();
  const keys = pristine.get("/data/keys")!;
  const newer = keys.slice();
  newer[4] = 2;
  new DataView(newer.buffer).setUint32(newer.length - 4, crc32(newer.subarray(0, -4)), true);
  const refuses = (
    change: () => void,
    error: new (...args: never) => Error,
    more: Partial<typeof options> = {},
  ): void => {
    disk.restore(pristine);
    change();
    const before = disk.contents();
    assert.throws(() => DirectStorage.open({ ...options, ...more }), error);
    disk.mend();
    assert.deepEqual(disk.contents(), before);
  };
  const asIs = (): void => {};
  refuses(asIs, KeyWrong, { kek: { kind: "node", key: new Uint8Array(32).fill(6) } });
  refuses(asIs, KeyWrong, { kek: unlockKek });
  refuses(asIs, StorageForeign, { identity: { ...identity, memberId: 8 } });
  refuses(() => disk.remove("/data/keys"), KeyMissing);
  refuses(() => disk.plant("/data/keys", newer), StorageNewer);
  refuses(() => disk.plant("/data/keys", new Uint8Array(100_000)), KeyFileDamaged);
  refuses(() => disk.fail({ act: "read", path: "/data/keys", code: "EIO" }), KeyFileUnusable);
  for (let length = 0; length < keys.length; length += 7)
    refuses(() => disk.plant("/data/keys", keys.slice(0, length)), KeyFileDamaged);
  for (let byte = 0; byte < keys.length; byte++) refuses(() => disk.flipBit("/data/keys", byte), KeyFileDamaged);
  // A key file of another day: whole, ours, and without the key that the log needs.
  const other = new FaultDisk(new Random(2));
  other.mkdir("/data");
  KeyRing.create({ ...storageOptions(other, 2), cipher: plainCipher });
  const ring = KeyRing.open({ ...storageOptions(other, 2), cipher: plainCipher });
  ring.rotate();
  ring.retain(new Set());
  refuses(() => disk.plant("/data/keys", other.peek("/data/keys")!), KeyMissing);
});

test("M2: the node's key file and the unlock key are read back, or refused with a reason", () => {
  const disk = new FaultDisk(new Random(1));
  disk.mkdir("/n");
  assert.throws(() => readNodeKey(disk, "/n", "node.key"), KeyMissing);
  const kek = createNodeKey(disk, "/n", "node.key", new Uint8Array(32).fill(3));
  assert.deepEqual(readNodeKey(disk, "/n", "node.key"), kek);
  const whole = disk.peek("/n/node.key")!;
  for (let length = 0; length < whole.length - 1; length++) {
    disk.plant("/n/node.key", whole.slice(0, length));
    assert.throws(() => readNodeKey(disk, "/n", "node.key"), KeyFileDamaged);
  }
  disk.plant(
    "/n/node.key",
    whole.map((byte, at) => (at === 30 ? byte ^ 1 : byte)),
  );
  assert.throws(() => readNodeKey(disk, "/n", "node.key"), KeyFileDamaged);
  assert.deepEqual(parseUnlockKey(` ${formatUnlockKey(unlockKek.key)}\n`), unlockKek);
  assert.match(formatUnlockKey(unlockKek.key), /^SWMKEY-1-[A-Za-z0-9+/]{43}$/u);
  for (const text of ["", "SWMKEY-1-", "SWMKEY-2-" + "A".repeat(43), formatUnlockKey(unlockKek.key).slice(0, -1)]) {
    assert.throws(() => parseUnlockKey(text), KeyWrong);
  }
});

test("M3: an old key is dropped only when no log, snapshot or spool needs it", () => {
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(storageOptions(disk, 1));
  const ids = (): number[] => storage.keys.all().map(({ id }) => id);
  storage.save({ hardState: hardState(1, 0, 5), entries: entries(1, 5, 1) });
  storage.createSnapshot(meta(2, 1), snapshotSource(2));
  storage.rotateKey();
  storage.save({ hardState: hardState(1, 0, 6), entries: entries(6, 6, 1) });
  assert.deepEqual([storage.retireKeys(), ids()], [false, [1, 2]]);
  storage.createSnapshot(meta(5, 1), snapshotSource(5));
  storage.compact(5);
  assert.deepEqual([storage.retireKeys(), ids()], [false, [1, 2]]); // the older snapshot, one of two that are kept
  const writer = storage.snapshots.begin(meta(6, 1));
  storage.rotateKey();
  writer.finish();
  assert.deepEqual([storage.retireKeys(), ids()], [false, [2, 3]]);
  storage.save({ hardState: hardState(1, 0, 7), entries: entries(7, 7, 1) });
  for (const index of [6, 7]) storage.createSnapshot(meta(index, 1), snapshotSource(index));
  storage.compact(7);
  assert.deepEqual([storage.retireKeys(), ids()], [true, [3]]);
  disk.restart();
  assert.equal(DirectStorage.open(storageOptions(disk, 2)).recovered.entries.at(-1)?.index, 7);
});

test("M4: altered content, a changed header, and an older record at the same place break the seal, whatever their CRCs say", () => {
  const build = (term: number): LogRig => {
    const rig = new LogRig(1, { segmentBytes: 16_384 }, aesGcm);
    const log = rig.open();
    log.save({ hardState: hardState(term, 2), entries: [entry(1, term, "same length")] });
    rig.disk.restart();
    return rig;
  };
  const path = "/data/log/segment-0000000000000001.log";
  const reseal = (content: Uint8Array): Uint8Array => {
    const header = decodeRecordHeader(content, segmentHeaderBytes);
    const view = new DataView(content.buffer, segmentHeaderBytes);
    const end = segmentHeaderBytes + recordBytes(header?.payloadBytes ?? view.getUint32(12, true));
    view.setUint32(108, crc32(content.subarray(segmentHeaderBytes + 116, end)), true);
    view.setUint32(112, crc32(content.subarray(segmentHeaderBytes, segmentHeaderBytes + 112)), true);
    return content;
  };
  const altered = (byte: number): void => {
    const rig = build(1);
    const content = rig.disk.peek(path)!;
    content[segmentHeaderBytes + byte] = (content[segmentHeaderBytes + byte] ?? 0) ^ 1;
    rig.disk.plant(path, reseal(content));
    assert.throws(
      () => rig.open(),
      (error) => error instanceof LogQuarantined && ["seal", "entries"].includes(error.damage),
      `byte ${byte}`,
    );
  };
  // Term, vote, commit, indices, slot, nonce, session; then content and tag.
  for (const byte of [24, 32, 40, 48, 56, 64, 72, 80, 88, 103, 120, 130, 140, 155]) altered(byte);
  // The same member, the same place, the same sequence, an earlier life: replayed whole.
  const [now, before] = [build(2), build(1)];
  const content = now.disk.peek(path)!;
  const old = before.disk.peek(path)!;
  content.set(old.subarray(segmentHeaderBytes), segmentHeaderBytes);
  now.disk.plant(path, content);
  const other = new LogRig(2, { segmentBytes: 16_384 }, aesGcm);
  now.keys = other.keys; // the later life has keys of its own
  assert.throws(() => now.open(), { code: "LOG_QUARANTINED", damage: "seal" });
});

test("M4: a marked record replaced by an older one of the same key is noticed by the slots", () => {
  const rig = new LogRig(1, {}, aesGcm);
  const first = rig.open();
  first.save({ hardState: hardState(1, 2), entries: [entry(1, 1)] });
  const early = rig.disk.contents();
  first.close();
  rig.disk.restore(early);
  const second = rig.open(); // a restored backup lived on
  second.save({ hardState: hardState(3, 1), entries: [] });
  second.close();
  const late = rig.disk.peek("/data/log/slots")!;
  rig.disk.restore(early);
  rig.disk.plant("/data/log/slots", late);
  assert.throws(() => rig.open(), { code: "LOG_QUARANTINED" });
});

test("M5: no nonce is used twice below one key, over many records, restarts and restored backups", () => {
  const counted = { seals: 0 };
  const last = new Map<string, number>();
  const watched: Cipher = {
    ...plainCipher,
    seal: (key, nonce, associated, data) => {
      const name = Buffer.from(key).toString("base64");
      const view = new DataView(nonce.buffer, nonce.byteOffset);
      const count = view.getUint32(4) * 2 ** 32 + view.getUint32(8);
      assert.equal(view.getUint32(0), 0);
      // Each derived key counts up: then none comes twice.
      assert.ok(count > (last.get(name) ?? -1), `nonce ${count} after ${last.get(name)}`);
      last.set(name, count);
      counted.seals++;
      return plainCipher.seal(key, nonce, associated, data);
    },
  };
  const rig = new LogRig(1, { segmentBytes: 1 << 18, aheadBytes: 1 << 16 }, watched);
  const random = new Random(5);
  let backup = { contents: rig.disk.contents(), snapshots: rig.snapshots };
  const [starts, perStart] = [40, 1_500];
  for (let start = 0; start < starts; start++) {
    const log = rig.open();
    let index = log.takeRecovered().entries.at(-1)?.index ?? rig.snapshots[0]?.index ?? 0;
    for (let record = 0; record < perStart; record++) {
      log.save({ hardState: hardState(1, 0, index), entries: [{ ...entry(0, 1, ""), index: ++index }] });
    }
    rig.snapshots = [meta(index, 1)];
    log.compact(index);
    const drawn = random.int(0, 4);
    if (drawn === 1) {
      rig.keys.rotate();
      log.useActiveKey();
    }
    rig.disk.restart();
    if (drawn === 0) backup = { contents: rig.disk.contents(), snapshots: rig.snapshots };
    if (drawn === 2) {
      rig.disk.restore(backup.contents);
      rig.snapshots = backup.snapshots;
      rig.keys = KeyRing.open(rig.keyOptions());
    }
  }
  assert.ok(counted.seals >= starts * perStart);
  assert.ok(last.size >= starts);
});

test("M6: two rotations in a row, one of them during a transfer, end with one key and everything readable", () => {
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(storageOptions(disk, 1));
  const elsewhere = DirectStorage.open(storageOptions(new FaultDisk(new Random(2)), 2));
  elsewhere.createSnapshot(meta(50, 1), snapshotSource(50));
  const reader = elsewhere.snapshots.openReader(meta(50, 1));
  storage.save({ hardState: hardState(1), entries: entries(1, 5, 1) });
  const receiver = storage.snapshots.openReceiver(4, reader.offer);
  receiver.write(reader.chunk(0));
  storage.rotateKey();
  storage.rotateKey();
  assert.equal(storage.retireKeys(), false); // the log and the spool are sealed with the first
  elsewhere.rotateKey();
  for (let number = 1; number < reader.offer.chunks; number++) receiver.write(reader.chunk(number));
  receiver.finish();
  storage.reset(meta(50, 1), hardState(1, 0, 50));
  assert.equal(storage.retireKeys(), false); // the installed file still is
  disk.restart();
  const again = DirectStorage.open(storageOptions(disk, 3));
  assert.deepEqual([again.recovered.snapshot.index, again.keys.active.id], [50, 3]);
  again.save({ hardState: hardState(1, 0, 52), entries: entries(51, 52, 1) });
  for (const index of [51, 52]) again.createSnapshot(meta(index, 1), snapshotSource(index));
  assert.equal(again.retireKeys(), true);
});

test("M6: a failed rotation changes nothing, and the next one succeeds", () => {
  for (const act of ["write", "sync", "rename", "syncDirectory", "open"] as const) {
    const disk = new FaultDisk(new Random(1));
    const storage = DirectStorage.open(storageOptions(disk, 1));
    storage.save({ hardState: hardState(1), entries: entries(1, 5, 1) });
    disk.fail({ act, code: "EIO", path: act === "syncDirectory" ? "/data" : "keys" });
    assert.throws(() => storage.keys.rotate(), KeyFileUnusable);
    assert.equal(storage.keys.active.id, 1);
    storage.rotateKey();
    storage.save({ hardState: undefined, entries: entries(6, 6, 1) });
    disk.restart();
    assert.equal(DirectStorage.open(storageOptions(disk, 2)).recovered.entries.length, 6);
  }
});

test("M7: locking and unlocking change the key file only; a cut at any operation leaves one key or the other", () => {
  const disk = new FaultDisk(new Random(1));
  const options = storageOptions(disk, 1);
  const storage = DirectStorage.open(options);
  storage.save({ hardState: hardState(1, 0, 5), entries: entries(1, 5, 1) });
  storage.createSnapshot(meta(3, 1), snapshotSource(3));
  storage.close();
  const before = disk.contents();
  let cuts = 0;
  disk.onOperation = () => {
    for (const keep of ["none", "all", "random"] as const) {
      const copy = disk.fork(Random.stream(1, `${cuts++}`));
      copy.restart({ keep });
      const opens = [nodeKek, unlockKek].filter((kek) => {
        try {
          KeyRing.open({ ...options, files: copy, kek, cipher: plainCipher });
          return true;
        } catch (error) {
          assert.ok(error instanceof StorageLocked || error instanceof KeyWrong, String(error));
          return false;
        }
      });
      assert.equal(opens.length, 1);
    }
  };
  storage.keys.changeKek(unlockKek);
  disk.onOperation = undefined;
  assert.ok(cuts >= 9);
  const changed = [...disk.contents()].filter(
    ([path, content]) => Buffer.compare(content, before.get(path) ?? new Uint8Array(0)) !== 0,
  );
  assert.deepEqual(
    changed.map(([path]) => path),
    ["/data/keys"],
  );
  assert.throws(() => DirectStorage.open(options), StorageLocked);
  const unlocked = DirectStorage.open({ ...options, kek: unlockKek });
  assert.equal(unlocked.recovered.entries.at(-1)?.index, 5);
  unlocked.keys.changeKek(nodeKek);
  unlocked.close();
  assert.equal(DirectStorage.open(options).recovered.entries.at(-1)?.index, 5);
});
