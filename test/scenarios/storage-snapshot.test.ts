/** G5, G8 and G13, as far as the files go: snapshots on their way between members. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Random } from "../../lib/pure/prng.ts";
import { DirectStorage, type DirectStorageOptions } from "../../manager/raft/direct-storage.ts";
import { SnapshotTransferInvalid, type SnapshotChunk, type SnapshotOffer } from "../../manager/raft/snapshot/index.ts";
import { FaultDisk } from "../support/fault-disk.ts";
import { entries, hardState, meta } from "../support/log-rig.ts";
import { storageOptions } from "../support/storage-workload.ts";

function options(disk: FaultDisk, seed: number): DirectStorageOptions {
  return { ...storageOptions(disk, seed), compress: true };
}

/** Content of `chunks` chunks or a little less, every other piece compressible. */
function content(index: number, chunks: number): Uint8Array[] {
  const random = new Random(index);
  return Array.from({ length: chunks }, (_, place) =>
    place % 2 === 0
      ? new Uint8Array(Buffer.from(`line ${place} of ${index};`.repeat(12_000)))
      : Uint8Array.from({ length: 200_000 }, () => random.int(0, 256)),
  );
}

const digestOf = (pieces: readonly Uint8Array[]): string => {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return hash.digest("hex");
};

interface Sent {
  readonly offer: SnapshotOffer;
  readonly chunks: readonly SnapshotChunk[];
  readonly digest: string;
}

function sent(index: number, term: number, seed = index): Sent {
  const sender = DirectStorage.open(options(new FaultDisk(new Random(seed)), seed));
  const pieces = content(seed, 6);
  const left = [...pieces];
  sender.createSnapshot(meta(index, term), { index, next: () => left.shift() });
  const reader = sender.snapshots.openReader(meta(index, term));
  const chunks = Array.from({ length: reader.offer.chunks }, (_, number) => reader.chunk(number));
  return { offer: reader.offer, chunks, digest: digestOf(pieces) };
}

function loaded(storage: DirectStorage, index: number, term: number): string {
  const reader = storage.snapshots.openReader(meta(index, term));
  const pieces = Array.from({ length: reader.offer.chunks - 1 }, (_, place) => reader.content(place + 1));
  reader.close();
  return digestOf(pieces);
}

test("G5: a transfer cut at every chunk boundary resumes there, after a broken stream and after a restart", () => {
  const { offer, chunks, digest } = sent(40, 2);
  assert.ok(offer.chunks > 5);
  for (const restart of [false, true]) {
    const disk = new FaultDisk(new Random(1));
    let storage = DirectStorage.open(options(disk, 1));
    for (let number = 0; number < offer.chunks; number++) {
      const receiver = storage.snapshots.openReceiver(5, offer);
      assert.equal(receiver.nextChunk, number);
      receiver.write(chunks[number]!);
      receiver.suspend();
      if (restart) {
        disk.restart({ keep: "all" });
        storage = DirectStorage.open(options(disk, 2));
      }
    }
    const receiver = storage.snapshots.openReceiver(5, offer);
    assert.equal(receiver.nextChunk, offer.chunks);
    receiver.finish();
    storage.reset(offer.meta, hardState(2, 0, 40));
    assert.equal(loaded(storage, 40, 2), digest);
  }
});

test("G5: what a power cut leaves of a spool is resumed from its last good chunk", () => {
  const { offer, chunks, digest } = sent(40, 2);
  for (let seed = 0; seed < 30; seed++) {
    const disk = new FaultDisk(new Random(seed));
    const storage = DirectStorage.open(options(disk, seed));
    const receiver = storage.snapshots.openReceiver(5, offer);
    for (let number = 0; number < 4; number++) receiver.write(chunks[number]!);
    disk.restart({ keep: (["all", "prefix", "random"] as const)[seed % 3]!, tear: "byte" });
    const again = DirectStorage.open(options(disk, seed + 100));
    const resumed = again.snapshots.openReceiver(5, offer);
    assert.ok(resumed.nextChunk <= 4);
    for (let number = resumed.nextChunk; number < offer.chunks; number++) resumed.write(chunks[number]!);
    resumed.finish();
    again.reset(offer.meta, hardState(2, 0, 40));
    disk.restart();
    assert.equal(loaded(DirectStorage.open(options(disk, seed + 200)), 40, 2), digest);
  }
});

test("G5: a transfer whose datasync failed is gone on with, and nothing that is only in the cache is taken for durable", () => {
  const { offer, chunks, digest } = sent(40, 2);
  for (const killed of [false, true]) {
    const disk = new FaultDisk(new Random(1));
    let storage = DirectStorage.open(options(disk, 1));
    const receiver = storage.snapshots.openReceiver(5, offer);
    for (const chunk of chunks) receiver.write(chunk);
    disk.fail({ act: "sync", code: "EIO" });
    assert.throws(() => receiver.finish(), { code: "SNAPSHOT_WRITE_FAILED" });
    if (killed) {
      disk.killProcess();
      storage = DirectStorage.open(options(disk, 2));
    }
    const again = storage.snapshots.openReceiver(5, offer);
    assert.equal(again.nextChunk, offer.chunks);
    again.finish();
    storage.reset(offer.meta, hardState(2, 0, 40));
    disk.restart({ keep: "none" });
    assert.equal(loaded(DirectStorage.open(options(disk, 3)), 40, 2), digest);
  }
});

test("G5: reordered, doubled, damaged, foreign and oversized chunks are refused, and the right one is taken after them", () => {
  const { offer, chunks, digest } = sent(40, 2);
  const other = sent(41, 2);
  const storage = DirectStorage.open(options(new FaultDisk(new Random(1)), 1));
  const receiver = storage.snapshots.openReceiver(5, offer);
  const refused = (chunk: SnapshotChunk): void => {
    assert.throws(() => receiver.write(chunk), SnapshotTransferInvalid);
  };
  refused(other.chunks[0]!); // the meta of another snapshot
  for (const [number, chunk] of chunks.entries()) {
    const flipped = chunk.data.slice();
    flipped[flipped.length >> 1] = (flipped[flipped.length >> 1] ?? 0) ^ 4;
    refused({ ...chunk, data: flipped });
    refused({ ...chunk, number: number + 1 });
    if (number > 0) refused(chunks[number - 1]!);
    refused({ ...chunk, data: new Uint8Array(400_000) });
    assert.equal(receiver.nextChunk, number);
    receiver.write(chunk);
  }
  refused({ ...chunks[0]!, number: offer.chunks });
  assert.equal(storage.snapshots.newest, undefined);
  receiver.finish();
  storage.reset(offer.meta, hardState(2, 0, 40));
  assert.equal(loaded(storage, 40, 2), digest);
});

test("G5: a whole that does not match its digest is thrown away; nothing is installed", () => {
  const [one, two] = [sent(40, 2, 3), sent(40, 2, 4)];
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(options(disk, 1));
  const offer = { ...one.offer, sizeBytes: two.offer.sizeBytes, chunks: two.offer.chunks };
  const receiver = storage.snapshots.openReceiver(5, offer);
  for (const chunk of two.chunks) receiver.write(chunk);
  assert.throws(() => receiver.finish(), { code: "SNAPSHOT_TRANSFER_INVALID" });
  assert.throws(() => storage.reset(offer.meta, hardState(2, 0, 40)), { code: "SNAPSHOT_NOT_FOUND" });
  assert.ok(!disk.paths().some((path) => path.endsWith(".spool")));
  assert.equal(storage.snapshots.openReceiver(5, one.offer).nextChunk, 0);
});

test("G2: a snapshot that arrived and was not wanted any more does not keep its spool", () => {
  const { offer, chunks } = sent(40, 2);
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(options(disk, 1));
  const receiver = storage.snapshots.openReceiver(5, offer);
  for (const chunk of chunks) receiver.write(chunk);
  receiver.finish();
  const spools = (): string[] => disk.paths().filter((path) => path.endsWith(".spool"));
  assert.equal(spools().length, 1);
  // The log came that far by itself, so it is never installed.
  storage.save({ hardState: hardState(2, 0, 60), entries: entries(1, 60, 2) });
  storage.createSnapshot(meta(30, 2), { index: 30, next: () => undefined });
  assert.equal(spools().length, 1, "it may be installed yet");
  storage.createSnapshot(meta(50, 2), { index: 50, next: () => undefined });
  assert.deepEqual(spools(), []);
  assert.throws(() => storage.snapshots.install(offer.meta), { code: "SNAPSHOT_NOT_FOUND" });
});

test("G5: an offer out of bounds is refused before a byte is written", () => {
  const { offer } = sent(40, 2);
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(options(disk, 1));
  for (const wrong of [
    { chunks: 0 },
    { chunks: 5e6 },
    { chunks: 1.5 },
    { sizeBytes: -1 },
    { sizeBytes: 1e15 },
    { digest: new Uint8Array(8) },
    { meta: meta(Number.NaN, 1) },
  ]) {
    assert.throws(() => storage.snapshots.openReceiver(5, { ...offer, ...wrong }), SnapshotTransferInvalid);
  }
  assert.ok(!disk.paths().some((path) => path.endsWith(".spool")));
});

test("G13: two leaders send at once; their spools do not meet, and the one that is installed is whole", () => {
  const [old, now] = [sent(40, 2), sent(44, 3)];
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(options(disk, 1));
  const [from, later] = [storage.snapshots.openReceiver(5, old.offer), storage.snapshots.openReceiver(6, now.offer)];
  assert.throws(() => storage.snapshots.openReceiver(5, old.offer), SnapshotTransferInvalid);
  for (let number = 0; number < old.offer.chunks; number++) {
    from.write(old.chunks[number]!);
    later.write(now.chunks[number]!);
  }
  later.finish();
  from.finish();
  storage.reset(now.offer.meta, hardState(3, 0, 44));
  assert.equal(loaded(storage, 44, 3), now.digest);
  disk.restart();
  const again = DirectStorage.open(options(disk, 2));
  assert.deepEqual([again.recovered.snapshot.index, loaded(again, 44, 3)], [44, now.digest]);
});

test("G8: what is written between two slices of a snapshot is not in it, and a reader keeps its file when newer ones come", () => {
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(options(disk, 1));
  storage.save({ hardState: hardState(1, 0, 20), entries: entries(1, 20, 1) });
  const pieces = content(5, 6);
  const writer = storage.snapshots.begin(meta(20, 1));
  for (const [place, piece] of pieces.entries()) {
    writer.write(piece);
    const index = 21 + place;
    storage.save({ hardState: hardState(1, 0, index), entries: entries(index, index, 1) });
    assert.equal(storage.snapshots.newest, undefined);
  }
  writer.finish();
  assert.equal(loaded(storage, 20, 1), digestOf(pieces));
  const reader = storage.snapshots.openReader(meta(20, 1));
  for (const index of [22, 24, 26]) storage.createSnapshot(meta(index, 1), { index, next: () => undefined });
  assert.throws(() => storage.snapshots.openReader(meta(20, 1)), { code: "SNAPSHOT_NOT_FOUND" });
  reader.verify();
  reader.close();
  assert.equal(disk.paths().filter((path) => path.endsWith(".snap")).length, 2);
});

test("half-received spools do not pile up", () => {
  const disk = new FaultDisk(new Random(1));
  const storage = DirectStorage.open(options(disk, 1));
  for (let index = 40; index < 46; index++) {
    const { offer, chunks } = sent(index, 2);
    const receiver = storage.snapshots.openReceiver(index, offer);
    receiver.write(chunks[0]!);
    receiver.suspend();
  }
  assert.ok(disk.paths().filter((path) => path.endsWith(".spool")).length <= 2);
  storage.save({ hardState: hardState(1, 0, 60), entries: entries(1, 60, 1) });
  storage.createSnapshot(meta(60, 1), { index: 60, next: () => undefined });
  assert.equal(disk.paths().filter((path) => path.endsWith(".spool")).length, 0);
});
