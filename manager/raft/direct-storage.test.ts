import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { Random } from "../../lib/pure/prng.ts";
import { FaultDisk } from "../../test/support/fault-disk.ts";
import { entries, hardState, identity, meta, nodeKek } from "../../test/support/log-rig.ts";
import { plainCipher } from "../../test/support/plain-cipher.ts";
import { DirectStorage, writeFoundingSnapshot, type DirectStorageOptions } from "./direct-storage.ts";
import type { SnapshotSource } from "./ports.ts";
import { SnapshotTransferInvalid } from "./snapshot/index.ts";

function source(index: number, chunks: readonly Uint8Array[]): SnapshotSource {
  const left = [...chunks];
  return { index, next: () => left.shift() };
}

function options(disk: FaultDisk, seed = 1): DirectStorageOptions {
  const random = new Random(seed);
  return {
    files: disk,
    folder: "/data",
    identity,
    kek: nodeKek,
    cipher: plainCipher,
    randomBytes: (count) => Uint8Array.from({ length: count }, () => random.int(0, 256)),
    log: { segmentBytes: 4096, aheadBytes: 1024, ballastBytes: 0, lowBytes: 0 },
  };
}

const text = (content: string): Uint8Array => new TextEncoder().encode(content);

/** The content of a snapshot. */
function contentOf(storage: DirectStorage, of = storage.snapshots.newest!): string {
  const reader = storage.snapshots.openReader(of);
  let content = "";
  for (let number = 1; number < reader.offer.chunks; number++)
    content += Buffer.from(reader.content(number)).toString();
  reader.close();
  return content;
}

test("a founded member opens with its founding snapshot, saves, snapshots, compacts and opens again", () => {
  const disk = new FaultDisk(new Random(1));
  const conf = { voters: [7], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
  writeFoundingSnapshot(options(disk), { index: 1, term: 1, conf }, source(1, [text("founded")]));
  const storage = DirectStorage.open(options(disk));
  assert.deepEqual(storage.recovered, {
    hardState: hardState(1, 0, 1),
    snapshot: { index: 1, term: 1, conf },
    entries: [],
  });
  assert.equal(contentOf(storage), "founded");
  storage.save({ hardState: hardState(2, 7, 9), entries: entries(2, 40, 2) });
  storage.createSnapshot(meta(9, 2), source(9, [text("at "), text("nine")]));
  storage.compact(9);
  disk.restart();
  const again = DirectStorage.open(options(disk, 2));
  assert.equal(again.recovered.snapshot.index, 9);
  assert.equal(again.recovered.entries.at(-1)?.index, 40);
  assert.equal(contentOf(again), "at nine");
});

test("a snapshot travels in chunks, survives a restart of the receiver half way, and replaces its log", () => {
  const [from, to] = [new FaultDisk(new Random(1)), new FaultDisk(new Random(2))];
  const sender = DirectStorage.open(options(from));
  const random = new Random(3);
  const big = Uint8Array.from({ length: 1_000_000 }, () => random.int(0, 256));
  sender.createSnapshot(meta(50, 3), source(50, [big, text("end")]));
  let receiver = DirectStorage.open(options(to));
  receiver.save({ hardState: hardState(2), entries: entries(1, 5, 2) });
  const reader = sender.snapshots.openReader(meta(50, 3));
  const first = receiver.snapshots.openReceiver(9, reader.offer);
  assert.equal(first.nextChunk, 0);
  first.write(reader.chunk(0));
  first.write(reader.chunk(1));
  assert.throws(() => first.write(reader.chunk(3)), SnapshotTransferInvalid);
  const bad = reader.chunk(2);
  assert.throws(() => first.write({ ...bad, data: bad.data.map((byte) => byte ^ 1) }), SnapshotTransferInvalid);
  assert.throws(() => first.finish(), SnapshotTransferInvalid);
  to.killProcess();
  receiver = DirectStorage.open(options(to));
  const resumed = receiver.snapshots.openReceiver(9, reader.offer);
  assert.equal(resumed.nextChunk, 2);
  for (let number = 2; number < reader.offer.chunks; number++) resumed.write(reader.chunk(number));
  resumed.finish();
  assert.equal(receiver.snapshots.newest, undefined);
  receiver.reset(meta(50, 3), hardState(3, 0, 50));
  to.restart();
  const after = DirectStorage.open(options(to));
  assert.deepEqual(after.recovered, { hardState: hardState(3, 0, 50), snapshot: meta(50, 3), entries: [] });
  assert.equal(crc32(contentOf(after)), crc32(contentOf(sender)));
});
