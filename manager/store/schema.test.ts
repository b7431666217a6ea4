import { test } from "node:test";
import assert from "node:assert/strict";
import { skep } from "../../proto/index.ts";
import { clusterSchema, type TableSchema } from "./index.ts";

const task: skep.objects.Task.$Properties = {
  id: "t1",
  name: "web.1",
  serviceId: "s1",
  slot: 7,
  nodeId: "n1",
  desiredState: skep.objects.TaskState.RUNNING,
  status: { state: skep.objects.TaskState.STARTING, timestampUs: 5, message: "starting" },
  networksAttachments: [{ networkId: "net1", addresses: ["10.0.0.2/24"] }, { networkId: "net2" }],
  volumes: [{ id: "v1" }, { id: "v2", target: "/data" }],
  spec: {
    containerSpec: {
      image: "nginx",
      env: ["A=1"],
      secrets: [{ secretId: "sec1", secretName: "a" }, { secretId: "sec2" }, { secretId: "sec1" }],
      configs: [{ configId: "conf1", file: { name: "x" } }],
      privileges: { credentialSpec: { config: "conf2" }, noNewPrivileges: true },
    },
    networks: [{ target: "net1" }],
  },
};

/** By the index functions, from what `decode` gives. */
function keys(table: TableSchema, object: unknown): Record<string, unknown> {
  return Object.fromEntries(Object.entries(table.indexes).map(([name, index]) => [name, index.keys(object)]));
}

test("a task is indexed by service, node, networks, and by its state until it has a node", () => {
  const of = (each: skep.objects.Task.$Properties): Record<string, unknown> =>
    keys(clusterSchema.task as unknown as TableSchema, clusterSchema.task.skim!(clusterSchema.task.codec.encode(each)));
  assert.deepEqual(of(task), { service: "s1", node: "n1", state: undefined, network: ["net1", "net2"] });
  const { PENDING } = skep.objects.TaskState;
  assert.deepEqual(of({ id: "t", status: { state: PENDING } }), {
    service: undefined,
    node: undefined,
    state: String(PENDING),
    network: [],
  });
});

test("what is skimmed of a task gives the same keys as the whole", () => {
  const sparse: skep.objects.Task.$Properties[] = [
    task,
    { id: "t2" },
    { id: "t3", serviceId: "s", nodeId: "n" },
    { id: "t4", spec: { containerSpec: {} }, status: {} },
    { id: "t5", spec: { pluginSpec: { name: "p" } }, desiredState: skep.objects.TaskState.ORPHANED },
  ];
  const { codec, skim } = clusterSchema.task;
  const table = clusterSchema.task as unknown as TableSchema;
  for (const each of sparse) {
    const bytes = codec.encode(each);
    const whole = codec.decode(bytes, "t", { version: 1, createdAtUs: 1, updatedAtUs: 1 });
    assert.deepEqual(keys(table, skim!(bytes)), keys(table, whole));
  }
});

test("id and meta are not encoded: the store keeps them", () => {
  const meta = { version: 5, createdAtUs: 6, updatedAtUs: 7 };
  const { codec } = clusterSchema.secret;
  const bytes = codec.encode({ id: "a", meta: { version: 99 }, spec: { name: "n", data: Buffer.from("x") } });
  assert.equal(skep.objects.Secret.decode(bytes).id, "");
  const decoded = codec.decode(bytes, "a", meta);
  assert.equal(decoded.id, "a");
  assert.deepEqual(decoded.meta, meta);
});

test("kinds have numbers of their own", () => {
  const numbers = Object.values(clusterSchema).map(({ number }) => number);
  assert.equal(new Set(numbers).size, numbers.length);
});
