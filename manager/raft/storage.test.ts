import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { entries, entry, hardState, identity, meta, nodeKek } from "../../test/support/log-rig.ts";
import type { SaveBatch, SnapshotSink, SnapshotSource } from "./ports.ts";
import type { SnapshotChunk, SnapshotReader, SnapshotReceiver } from "./snapshot/index.ts";
import { Storage, type StorageOptions } from "./storage.ts";
import { LogClosed } from "./wal/index.ts";

function folderFor(t: TestContext): StorageOptions {
  const folder = mkdtempSync(join(tmpdir(), "skep-storage-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return { folder, identity, kek: nodeKek, log: { ballastBytes: 0 } };
}

/** Closed after the test, whatever happens. */
async function opened(t: TestContext, options: StorageOptions): Promise<Storage> {
  const storage = await Storage.open(options);
  t.after(() => storage[Symbol.asyncDispose]());
  return storage;
}

const save = (storage: Storage, batch: SaveBatch): Promise<void> =>
  new Promise((resolve, reject) => storage.log.save(batch, (error) => (error ? reject(error) : resolve())));
const create = (storage: Storage, index: number, term: number, source: SnapshotSource): Promise<number> =>
  new Promise((resolve, reject) =>
    storage.snapshots.create(meta(index, term), source, (error, bytes) => (error ? reject(error) : resolve(bytes))),
  );
const load = (storage: Storage, index: number, term: number): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    const sink: SnapshotSink = { write: (chunk) => chunks.push(chunk), finish: () => {} };
    storage.snapshots.load(meta(index, term), sink, (error) =>
      error ? reject(error) : resolve(Buffer.concat(chunks)),
    );
  });

/** Numbered lines, in pieces of odd sizes. */
function lines(index: number, count: number): SnapshotSource {
  let line = 0;
  return {
    index,
    next: (bytesMax) => {
      if (line >= count) return undefined;
      let text = "";
      while (line < count && text.length < bytesMax - 100) text += `line ${line++} of the state at ${index}\n`;
      return new TextEncoder().encode(text);
    },
  };
}

test("what is saved through the thread is there again, callbacks come in order, and large saves keep their place", async (t) => {
  const options = folderFor(t);
  const storage = await Storage.open(options);
  assert.deepEqual(storage.recovered, { hardState: hardState(0), snapshot: meta(0, 0), entries: [] });
  const order: number[] = [];
  const saves: Promise<void>[] = [];
  let index = 0;
  for (let batch = 0; batch < 400; batch++) {
    const size = batch % 100 === 50 ? 700_000 : 40;
    const added = [entry(++index, 1, "x".repeat(size)), entry(++index, 1, "y".repeat(size))];
    saves.push(save(storage, { hardState: hardState(1, 0, 0), entries: added }).then(() => void order.push(batch)));
  }
  await Promise.all(saves);
  assert.deepEqual(order, [...order.keys()]);
  const { savedEntries, syncs, pendingSaves, oldestPendingMs, space } = storage.status();
  assert.equal(savedEntries, 800);
  assert.ok(syncs < 300, `${syncs} syncs for 400 saves`);
  assert.deepEqual([pendingSaves, oldestPendingMs, space], [0, 0, "ok"]);
  await storage[Symbol.asyncDispose]();
  await storage[Symbol.asyncDispose]();
  await assert.rejects(save(storage, { hardState: undefined, entries: [] }), LogClosed);
  const again = await Storage.open(options);
  assert.equal(again.recovered.entries.length, 800);
  assert.deepEqual(again.recovered.entries[100]?.data.length, 700_000);
  await again[Symbol.asyncDispose]();
});

test("snapshots are made in slices, loaded, sent and received through the thread, and put in force by a reset", async (t) => {
  const [options, other] = [folderFor(t), folderFor(t)];
  const storage = await opened(t, options);
  await save(storage, { hardState: hardState(3, 0, 10), entries: entries(1, 20, 3) });
  const bytes = await create(storage, 10, 3, lines(10, 100_000));
  assert.ok(bytes > 10_000);
  const content = await load(storage, 10, 3);
  assert.equal(content.subarray(0, 26).toString(), "line 0 of the state at 10\n");
  assert.equal(content.length, lineBytes(10, 100_000));
  const peer = await Storage.open(other);
  const reader = await new Promise<SnapshotReader>((resolve, reject) =>
    storage.snapshots.openReader(meta(10, 3), (error, reader) => (reader ? resolve(reader) : reject(error!))),
  );
  const receiver = await new Promise<SnapshotReceiver>((resolve, reject) =>
    peer.snapshots.openReceiver(5, reader.offer, (error, receiver) => (receiver ? resolve(receiver) : reject(error!))),
  );
  for (let number = receiver.nextChunk; number < reader.offer.chunks; number++) {
    const chunk = await new Promise<SnapshotChunk>((resolve, reject) =>
      reader.read(number, (error, chunk) => (chunk ? resolve(chunk) : reject(error!))),
    );
    await new Promise<void>((resolve, reject) => receiver.write(chunk, (error) => (error ? reject(error) : resolve())));
    assert.equal(receiver.nextChunk, number + 1);
  }
  await new Promise<void>((resolve, reject) => receiver.finish((error) => (error ? reject(error) : resolve())));
  reader.close();
  const reset = new Promise<void>((resolve, reject) =>
    peer.log.reset(meta(10, 3), hardState(4, 0, 10), (error) => (error ? reject(error) : resolve())),
  );
  const after = save(peer, { hardState: undefined, entries: entries(11, 12, 4) });
  await Promise.all([reset, after]);
  await peer[Symbol.asyncDispose]();
  const again = await opened(t, other);
  assert.equal(again.recovered.snapshot.index, 10);
  assert.deepEqual(
    again.recovered.entries.map(({ index }) => index),
    [11, 12],
  );
  assert.equal(Buffer.compare(await load(again, 10, 3), content), 0);
});

test("a failing source ends the snapshot with a typed error, and the older one stays", async (t) => {
  const storage = await opened(t, folderFor(t));
  await save(storage, { hardState: hardState(1, 0, 9), entries: entries(1, 9, 1) });
  await create(storage, 5, 1, lines(5, 10));
  let calls = 0;
  const failing: SnapshotSource = {
    index: 9,
    next: () => {
      if (++calls > 3) throw new Error("no more");
      return new Uint8Array(300_000);
    },
  };
  await assert.rejects(create(storage, 9, 1, failing), { code: "SNAPSHOT_ABORTED" });
  assert.equal((await load(storage, 5, 1)).length, lineBytes(5, 10));
  await assert.rejects(load(storage, 9, 1), { code: "SNAPSHOT_NOT_FOUND" });
});

test("a rotation of the data key ends when no file needs the old one, and a new key-encrypting key changes no log", async (t) => {
  const options = folderFor(t);
  const storage = await Storage.open(options);
  await save(storage, { hardState: hardState(1, 0, 5), entries: entries(1, 5, 1) });
  let rotated = false;
  const rotation = storage.rotateKey().then(() => (rotated = true));
  await save(storage, { hardState: hardState(1, 0, 6), entries: entries(6, 6, 1) });
  await turn();
  assert.equal(rotated, false);
  await create(storage, 6, 1, lines(6, 10));
  storage.log.compact(6);
  await rotation;
  const abort = new AbortController();
  const another = storage.rotateKey(abort.signal);
  await save(storage, { hardState: undefined, entries: entries(7, 7, 1) });
  abort.abort();
  await assert.rejects(another, { name: "AbortError" });
  const unlock = { kind: "unlock", key: new Uint8Array(32).fill(9) } as const;
  await storage.changeKek(unlock);
  await storage[Symbol.asyncDispose]();
  await assert.rejects(Storage.open(options), { code: "STORAGE_LOCKED" });
  const unlocked = await opened(t, { ...options, kek: unlock });
  assert.equal(unlocked.recovered.entries.at(-1)?.index, 7);
});

function lineBytes(index: number, count: number): number {
  let bytes = 0;
  for (let line = 0; line < count; line++) bytes += `line ${line} of the state at ${index}\n`.length;
  return bytes;
}
