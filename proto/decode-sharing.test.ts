import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeSharing, encodeMessage, encodeSharing, sharedFrom, skep, type SharedField } from "./index.ts";

const { Task, TaskSpec, TaskState, Annotations } = skep.objects;
const shared: ReadonlyMap<number, SharedField> = new Map<number, SharedField>([
  [5, { name: "spec", type: TaskSpec }],
  [15, { name: "serviceAnnotations", type: Annotations }],
]);
const decode = (bytes: Uint8Array): skep.objects.Task => decodeSharing(Task, shared, bytes);

const tasks = fc.record(
  {
    id: fc.string(),
    serviceId: fc.string(),
    slot: fc.nat(),
    labels: fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }),
    spec: fc.record(
      {
        containerSpec: fc.record({ image: fc.string(), env: fc.array(fc.string(), { maxLength: 4 }) }),
        networks: fc.array(fc.record({ target: fc.string() }), { maxLength: 2 }),
      },
      { requiredKeys: [] },
    ),
    serviceAnnotations: fc.record({ name: fc.string() }),
    status: fc.record({
      state: fc.constantFrom(TaskState.NEW, TaskState.PENDING, TaskState.RUNNING),
      message: fc.string(),
    }),
    desiredState: fc.constantFrom(TaskState.NEW, TaskState.RUNNING, TaskState.SHUTDOWN),
  },
  { requiredKeys: [] },
);

test("what is decoded with shared parts equals what is decoded whole", () => {
  fc.assert(
    fc.property(tasks, (task) => {
      const bytes = encodeMessage(Task, task);
      assert.deepEqual(decode(bytes), Task.decode(bytes));
    }),
  );
});

test("equal parts are one object, frozen at every depth; the rest belongs to each", () => {
  const task = { spec: { containerSpec: { image: "a", env: ["A=1"] } }, serviceAnnotations: { name: "s" } };
  const one = decode(encodeMessage(Task, { ...task, id: "1", labels: { a: "b" } }));
  const other = decode(encodeMessage(Task, { ...task, id: "2", labels: { a: "b" } }));
  assert.equal(one.spec, other.spec);
  assert.equal(one.serviceAnnotations, other.serviceAnnotations);
  assert.ok(Object.isFrozen(one.spec?.containerSpec?.env));
  assert.notEqual(one.labels, other.labels);
  one.id = "3";
  one.spec = { ...one.spec, networks: [] };
  assert.equal(other.spec?.networks?.length, 0);
});

test("a part that stands there twice is merged, as the whole decoder does it", () => {
  const first = Task.encode({ spec: { containerSpec: { image: "a" } } }).finish();
  const second = Task.encode({ spec: { networks: [{ target: "n" }] } }).finish();
  const bytes = Buffer.concat([first, second]);
  assert.deepEqual(decode(bytes), Task.decode(bytes));
  assert.equal(decode(bytes).spec?.containerSpec?.image, "a");
});

test("what is cut off is refused, and parts that are too large to be kept are read all the same", () => {
  const image = "x".repeat(20_000);
  const bytes = encodeMessage(Task, { id: "1", spec: { containerSpec: { image } } });
  assert.equal(decode(bytes).spec?.containerSpec?.image, image);
  assert.throws(() => decode(bytes.subarray(0, bytes.length - 5)));
});

test("what is encoded with shared parts is decoded whole to the same, frozen or not, once or again", () => {
  fc.assert(
    fc.property(tasks, (task) => {
      const expected = Task.decode(encodeMessage(Task, task));
      const once = Uint8Array.from(encodeSharing(Task, shared, { ...task }));
      assert.deepEqual(Task.decode(once), expected);
      // Its parts are frozen, and their bytes known.
      const again = Uint8Array.from(encodeSharing(Task, shared, Task.create(decode(once))));
      assert.deepEqual(Task.decode(again), expected);
      assert.deepEqual(Buffer.from(encodeSharing(Task, shared, Task.create(decode(again)))), Buffer.from(again));
    }),
  );
});

test("a part that may still be changed is encoded as it is now", () => {
  const spec = { containerSpec: { image: "a" } };
  const imageOf = (): string | null | undefined =>
    Task.decode(Uint8Array.from(encodeSharing(Task, shared, { spec }))).spec?.containerSpec?.image;
  assert.equal(imageOf(), "a");
  spec.containerSpec.image = "b";
  assert.equal(imageOf(), "b");
});

test("shared parts keep nothing of the bytes that they were read from", () => {
  for (const size of [10, 20_000]) {
    const profile = Buffer.alloc(size, 7);
    const task = { spec: { containerSpec: { privileges: { seccomp: { profile } } } } };
    const bytes = encodeMessage(Task, task);
    const decoded = decode(bytes);
    bytes.fill(0);
    assert.deepEqual(Buffer.from(decoded.spec?.containerSpec?.privileges?.seccomp?.profile ?? []), profile);
  }
});

test("what is encoded with shared parts ends in them; what else follows, or cannot be read, shares nothing", () => {
  const task = { id: "1", slot: 300, spec: { containerSpec: { image: "a" } }, serviceAnnotations: { name: "s" } };
  const frozen = decode(encodeMessage(Task, task));
  const bytes = Uint8Array.from(encodeSharing(Task, shared, Task.create(frozen)));
  const from = sharedFrom(shared, bytes);
  assert.ok(from > 0 && from < bytes.length);
  const own = Task.decode(bytes.subarray(0, from));
  assert.deepEqual([own.id, own.slot, own.spec, own.serviceAnnotations], ["1", 300, null, null]);
  const common = Task.decode(bytes.subarray(from));
  assert.equal(common.id, "");
  assert.deepEqual([common.spec, common.serviceAnnotations], [frozen.spec, frozen.serviceAnnotations]);
  // Field 4 (a number) behind them.
  assert.equal(sharedFrom(shared, Buffer.concat([bytes, Buffer.of(0x20, 7)])), bytes.length + 2);
  assert.equal(sharedFrom(shared, bytes.subarray(0, bytes.length - 1)), bytes.length - 1);
  const plain = encodeMessage(Task, { id: "1", slot: 1 });
  assert.equal(sharedFrom(shared, plain), plain.length);
  assert.equal(sharedFrom(shared, new Uint8Array(0)), 0);
});
