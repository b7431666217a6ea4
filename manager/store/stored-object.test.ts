import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { skep } from "../../proto/index.ts";
import { clusterSchema } from "./schema.ts";
import { digestBytes } from "./core/hash.ts";
import type { TableSchema } from "./core/schema.ts";
import { contentOf, StoredObject, type Content } from "./core/stored-object.ts";

const tasks = clusterSchema.task as unknown as TableSchema;
const resources = clusterSchema.resource as unknown as TableSchema;
const meta = { version: 1, createdAtUs: 2, updatedAtUs: 3 };

function stored(table: TableSchema, bytes: Uint8Array, before?: Content): StoredObject {
  const digest = { a: 0, b: 0 };
  digestBytes(digest, bytes);
  return new StoredObject("id", contentOf(table, bytes, before), meta, digest, []);
}

function encoded(task: skep.objects.Task.$Properties): Uint8Array {
  return Uint8Array.from(clusterSchema.task.codec.encodeBriefly!(task));
}

/** As rooms write it: taken from a service, which is frozen. */
function specOf(image: string): skep.objects.TaskSpec.$Properties {
  return Object.freeze({ containerSpec: Object.freeze({ image, env: Object.freeze(["A=1"]) as string[] }) });
}

const spec = specOf("registry.example/app:1");

test("of a task, the spec and what else is its service's lie in the part that it has in common with others", () => {
  const ofService = { serviceId: "s", spec, serviceAnnotations: Object.freeze({ name: "web" }) };
  const bytes = encoded({ ...ofService, slot: 1, nodeId: "n1" });
  const one = stored(tasks, bytes);
  const two = stored(tasks, encoded({ ...ofService, slot: 2, nodeId: "n2" }));
  assert.notEqual(one.common, "");
  assert.equal(one.common, two.common);
  assert.notEqual(one.body, two.body);
  assert.match(one.common, /registry\.example\/app:1/u);
  assert.match(one.common, /web/u);
  assert.ok(!String(one.body).includes("registry.example"));
  assert.equal(one.sizeBytes, bytes.length);
});

test("a task with another spec than before has that one's text", () => {
  const before = stored(tasks, encoded({ slot: 1, spec }));
  const same = stored(tasks, encoded({ slot: 2, spec }), before);
  const other = stored(tasks, encoded({ slot: 2, spec: specOf("b") }), before);
  assert.equal(same.common, before.common);
  assert.notEqual(other.common, before.common);
  assert.equal(clusterSchema.task.codec.decode(other.bytes(), "id", meta).spec?.containerSpec?.image, "b");
});

test("whatever the bytes are, and wherever they are cut, they come back as they were", () => {
  const some = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    // Long ones, of which none has a text, and the border between.
    fc.integer({ min: 8190, max: 8194 }).map((length) => new Uint8Array(length).fill(0x2a)),
    fc
      .tuple(fc.nat(), fc.string(), fc.uint8Array({ maxLength: 8 }))
      .map(([slot, image, more]) => Buffer.concat([encoded({ slot, spec: specOf(image) }), more])),
  );
  fc.assert(
    fc.property(some, (bytes) => {
      for (const table of [tasks, resources]) {
        const object = stored(table, bytes);
        assert.deepEqual(Buffer.from(object.bytes()), Buffer.from(bytes));
        assert.deepEqual(Buffer.from(object.briefBytes()), Buffer.from(bytes));
        assert.equal(object.sizeBytes, bytes.length);
        assert.ok(object.intact());
        assert.ok(object.holds(bytes));
        assert.ok(!object.holds(Buffer.concat([bytes, Buffer.of(0)])));
      }
    }),
  );
});

test("more different specs than are remembered are stored all the same", () => {
  for (let at = 0; at < 5000; at++) {
    const image = `registry.example/app:${at}`;
    const object = stored(tasks, encoded({ slot: at, spec: specOf(image) }));
    assert.equal(clusterSchema.task.codec.decode(object.bytes(), "id", meta).spec?.containerSpec?.image, image);
  }
});
