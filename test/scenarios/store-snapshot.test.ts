/** Test catalogue G8 and O5 (the work of one slice): snapshots of the store while writes go on. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { Random } from "../../lib/pure/prng.ts";
import { skep } from "../../proto/index.ts";
import { clusterSchema, Incompatible, SnapshotInvalid, StateDiverged } from "../../manager/store/index.ts";
import { by, contents, item, StoreCluster } from "../support/store-cluster.ts";

for (let seed = 1; seed <= 20; seed++) {
  test(`G8: a snapshot taken while writes go on is the state at its index (seed ${seed})`, async () => {
    const random = new Random(seed);
    const cluster = new StoreCluster();
    const { store } = cluster;
    const write = (): Promise<unknown> =>
      store.update((tx) => {
        for (let count = random.int(1, 8); count > 0; count--) {
          const id = `k${random.int(0, 200)}`;
          if (random.chance(0.3) && tx.has("resource", id)) tx.remove("resource", id);
          else tx.put("resource", item(id, String(random.int(0, 1000)), { kind: random.pick(["a", "b"]) }));
        }
      }, by);
    for (let count = 0; count < 100; count++) await write();
    const source = store.machine.snapshot();
    const [hash, expected] = [store.machine.stateHash(), contents(store.current())];
    const restored = new StoreCluster().store;
    const sink = restored.machine.restore();
    for (let chunk = source.next(300); chunk !== undefined; chunk = source.next(300)) {
      sink.write(chunk);
      await write();
      assert.equal(restored.current().count("resource"), 0, "the old state is in force until the end");
    }
    sink.finish(source.index);
    assert.equal(restored.machine.stateHash(), hash);
    assert.deepEqual(contents(restored.current()), expected);
    assert.equal(restored.current().index, source.index);
    for (const kind of ["a", "b"])
      assert.equal(
        restored.current().countBy("resource", "kind", kind),
        [...restored.current().list("resource")].filter((each) => each.kind === kind).length,
      );
  });
}

test("O5: no slice of a snapshot of 20,000 objects holds more than its bytes, or 1,024 objects", () => {
  const cluster = new StoreCluster();
  // Entries are applied directly here; nobody is to propose besides.
  cluster.group.elect(undefined);
  const { machine } = cluster.store;
  const objects = 20_000;
  const perEntry = 500;
  for (let first = 0; first < objects; first += perEntry) {
    const changes = Array.from({ length: perEntry }, (_, at) => {
      const id = `k${String(first + at).padStart(6, "0")}`;
      // Small ones, and among them some of several kilobytes.
      const body = clusterSchema.resource.codec.encode(item(id, "x".repeat(at % 50 === 0 ? 5000 : 10)));
      return { kind: 9, id, body };
    });
    const entry = skep.store.Entry.encode({ level: 1, timeUs: first + 1, transaction: { changes } }).finish();
    assert.equal(machine.apply(first + 10, entry).refusal, undefined);
  }
  for (const bytesMax of [1, 4096, 256 * 1024]) {
    const source = machine.snapshot();
    let found = 0;
    for (let chunk = source.next(bytesMax); chunk !== undefined; chunk = source.next(bytesMax)) {
      const decoded = skep.store.SnapshotChunk.decode(chunk);
      assert.ok(decoded.objects.length <= 1024);
      // One object goes whole, however big; the trailer and header are small.
      assert.ok(chunk.length <= bytesMax || decoded.objects.length <= 1);
      found += decoded.objects.length;
    }
    assert.equal(found, objects);
    if (bytesMax === 1) assert.ok(source.next(1) === undefined);
  }
});

test("L7: no snapshot is made of memory that has changed by itself: others would install it", async () => {
  const cluster = new StoreCluster();
  for (let at = 0; at < 20; at++) await cluster.store.update((tx) => tx.put("resource", item(`k${at}`, "x")), by);
  const { machine } = cluster.store;
  const read = (): void => {
    const source = machine.snapshot();
    while (source.next(100) !== undefined);
  };
  read();
  const bytes = machine.freeze().table(clusterSchema.resource.number).rows.get("k7")?.bytes();
  bytes![3]! ^= 0x10;
  assert.throws(read, StateDiverged);
});

test("a snapshot that is not whole, not in order, altered or of another form is refused, and the old state stays", async () => {
  const cluster = new StoreCluster();
  const { store } = cluster;
  for (let count = 0; count < 10; count++) await store.update((tx) => tx.put("resource", item(`k${count}`, "1")), by);
  const chunks: Uint8Array[] = [];
  const source = store.machine.snapshot();
  for (let chunk = source.next(100); chunk !== undefined; chunk = source.next(100)) chunks.push(chunk);
  const encode = (chunk: skep.store.SnapshotChunk.$Properties): Uint8Array =>
    skep.store.SnapshotChunk.encode(chunk).finish();
  const altered = Uint8Array.from(chunks[3]!);
  altered[altered.length - 1]! ^= 1;
  const header = { format: 1, level: 1, index: 1, timeUs: 1 };
  const bad: [string, readonly Uint8Array[], typeof SnapshotInvalid | typeof Incompatible][] = [
    ["without its end", chunks.slice(0, -1), SnapshotInvalid],
    ["without its start", chunks.slice(1), SnapshotInvalid],
    ["without a chunk", chunks.toSpliced(3, 1), SnapshotInvalid],
    ["with a chunk twice", chunks.toSpliced(3, 0, chunks[3]!), SnapshotInvalid],
    ["with chunks exchanged", chunks.toSpliced(3, 2, chunks[4]!, chunks[3]!), SnapshotInvalid],
    ["with a flipped bit", chunks.toSpliced(3, 1, altered), SnapshotInvalid],
    ["of noise", [Buffer.from([0xff, 0x01, 0x02])], SnapshotInvalid],
    ["of a later form", [encode({ header: { ...header, format: 2 } })], Incompatible],
    ["of a later level", [encode({ header: { ...header, level: 9 } })], Incompatible],
    ["with a kind not known", [encode({ header, objects: [{ kind: 77, id: "a" }] })], Incompatible],
    ["with two headers", [encode({ header }), encode({ header })], SnapshotInvalid],
    ["with nothing", [], SnapshotInvalid],
  ];
  const target = new StoreCluster();
  await target.store.update((tx) => tx.put("resource", item("mine", "1")), by);
  const hash = target.store.machine.stateHash();
  for (const [what, altered, error] of bad) {
    const sink = target.store.machine.restore();
    assert.throws(
      () => {
        for (const chunk of altered) sink.write(chunk);
        sink.finish(100);
      },
      error,
      what,
    );
    assert.equal(target.store.machine.stateHash(), hash, what);
  }
  const sink = target.store.machine.restore();
  for (const chunk of chunks) sink.write(chunk);
  assert.throws(() => sink.finish(1), SnapshotInvalid);
  sink.finish(100);
  assert.deepEqual(contents(target.store.current()), contents(store.current()));
});
