import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeSharing, encodeMessage, skep, type SharedField } from "./index.ts";

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
