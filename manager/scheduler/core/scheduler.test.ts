import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Random } from "../../../lib/pure/prng.ts";
import { ConstraintInvalid, parseConstraint, satisfies } from "../../../proto/index.ts";
import { type GroupFacts, type NodeFacts, nothing } from "./facts.ts";
import { firstRefusal } from "./filters.ts";
import { NodeState } from "./node-state.ts";
import { confirm, explain, planGroup } from "./plan.ts";

function node(id: string, more: Partial<NodeFacts> = {}): NodeFacts {
  return {
    id,
    hostname: `host-${id}`,
    addr: "10.0.0.1",
    role: "worker",
    os: "linux",
    architecture: "x86_64",
    labels: new Map(),
    engineLabels: new Map(),
    availability: "active",
    state: "ready",
    capacity: { nanoCpus: 4e9, memoryBytes: 8 * 2 ** 30, generic: new Map() },
    named: new Map(),
    plugins: undefined,
    encrypts: false,
    ...more,
  };
}

function group(more: Partial<GroupFacts> = {}): GroupFacts {
  return {
    serviceId: "s",
    specVersion: 1,
    constraints: [],
    reserved: nothing,
    platforms: [],
    hostPorts: [],
    maxReplicasPerNode: 0,
    spreadOver: [],
    plugins: [],
    encryptedNetworks: [],
    strategy: "spread",
    ...more,
  };
}

const ids = (count: number): string[] => Array.from({ length: count }, (_, at) => `t${at}`);
const place = (nodes: readonly NodeState[], facts: GroupFacts, count: number, seed = 1): ReturnType<typeof planGroup> =>
  planGroup({ nodes, group: facts, taskIds: ids(count), random: new Random(seed), nowMs: 0 });

test("constraints mean what Swarm's users expect, and more", () => {
  const facts = node("n1", {
    addr: "192.168.3.4",
    labels: new Map([
      ["Zone", "Eu-1"],
      ["cpus", "16"],
      ["ssd", ""],
    ]),
    engineLabels: new Map([["os", "debian"]]),
  });
  const table: readonly [string, boolean][] = [
    ["node.labels.Zone==eu-1", true],
    ["node.labels.Zone == EU-1", true],
    ["node.labels.zone==eu-1", false],
    ["node.labels.Zone!=eu-1", false],
    ["node.labels.none!=x", true],
    ["node.labels.none==x", false],
    ["node.role==worker", true],
    ["node.role!=manager", true],
    ["NODE.HOSTNAME==host-n1", true],
    ["node.id==N1", true],
    ["node.ip==192.168.0.0/16", true],
    ["node.ip!=192.168.3.4", false],
    ["node.platform.arch==amd64", true],
    ["engine.labels.os==debian", true],
    ["node.labels.Zone in (us-1, eu-1)", true],
    ["node.labels.Zone not in (us-1,us-2)", true],
    ["node.labels.cpus>=16", true],
    ["node.labels.cpus<16", false],
    ["node.labels.Zone<3", false],
    ["node.hostname=~host-*", true],
    ["node.hostname!~*-n?", false],
    ["exists node.labels.ssd", true],
    ["not exists node.labels.none", true],
    ["exists node.labels.none", false],
  ];
  for (const [text, expected] of table) assert.equal(satisfies(facts, parseConstraint(text)), expected, text);
});

test("constraints that mean nothing are refused", () => {
  for (const text of [
    "",
    "node.labels.a",
    "a==b",
    "node.labels.a=b",
    "node.labels.a==",
    "node.foo==b",
    "node.ip==10.0.0.0/33",
    "node.labels.a<b",
    "node.labels.a in ()",
    "node.labels.a==b;c",
    "node.labels.==x",
    "x".repeat(2000),
  ]) {
    assert.throws(() => parseConstraint(text), ConstraintInvalid, text);
  }
});

test("no pattern stalls the scheduler", () => {
  const constraint = parseConstraint(`node.hostname=~${"*a".repeat(60)}b`);
  assert.equal(satisfies(node("n", { hostname: "a".repeat(5000) }), constraint), false);
});

test("each filter gives its reason, in Swarm's order", () => {
  const busy = new NodeState(node("n1"));
  busy.add({
    id: "t",
    serviceId: "s",
    specVersion: 1,
    reserved: { nanoCpus: 3e9, memoryBytes: 0, generic: new Map() },
    hostPorts: ["tcp/80"],
    assigned: new Map(),
  });
  const refused = (state: NodeState, more: Partial<GroupFacts>): string | undefined => {
    const refusal = firstRefusal(state, group(more));
    return refusal === undefined ? undefined : `${refusal.filter}: ${refusal.detail}`;
  };
  assert.equal(refused(new NodeState(node("n", { state: "down" })), {}), "ready: the node is down");
  assert.equal(refused(new NodeState(node("n", { availability: "drain" })), {}), "ready: its availability is drain");
  assert.equal(
    refused(busy, { reserved: { nanoCpus: 2e9, memoryBytes: 0, generic: new Map() } }),
    "resource: 1 CPUs are free, 2 are wanted",
  );
  assert.equal(
    refused(busy, { reserved: { nanoCpus: 0, memoryBytes: 2 ** 40, generic: new Map() } }),
    "resource: 8192 MiB of memory are free, 1048576 MiB are wanted",
  );
  assert.equal(
    refused(busy, { reserved: { nanoCpus: 0, memoryBytes: 0, generic: new Map([["gpu", 1]]) } }),
    'resource: 0 of "gpu" are free, 1 are wanted',
  );
  assert.equal(
    refused(busy, { constraints: [parseConstraint("node.labels.a==b")] }),
    "constraint: it does not satisfy node.labels.a==b",
  );
  assert.equal(
    refused(busy, { platforms: [{ os: "linux", architecture: "arm64" }] }),
    "platform: it is linux/x86_64, the image is for linux/arm64",
  );
  assert.equal(refused(busy, { platforms: [{ os: "linux", architecture: "amd64" }] }), undefined);
  assert.equal(refused(busy, { hostPorts: ["tcp/80"] }), "hostPort: its port tcp/80 is in use");
  assert.equal(
    refused(busy, { encryptedNetworks: ["secret"] }),
    "encryption: it has no WireGuard, which the encrypted network secret needs",
  );
  assert.equal(refused(new NodeState(node("n", { encrypts: true })), { encryptedNetworks: ["secret"] }), undefined);
  assert.equal(refused(busy, { maxReplicasPerNode: 1 }), "maxReplicas: it runs 1 of at most 1 replicas");
  assert.equal(
    refused(new NodeState(node("n", { plugins: new Set() })), { plugins: ["Volume/x"] }),
    "plugin: it lacks the plugin Volume/x",
  );
  assert.equal(refused(busy, {}), undefined);
});

test("tasks spread over nodes: fewest of the service, then fewest in all", () => {
  const nodes = ["a", "b", "c"].map((id) => new NodeState(node(id)));
  nodes[0]?.add({
    id: "other",
    serviceId: "other",
    specVersion: 1,
    reserved: nothing,
    hostPorts: [],
    assigned: new Map(),
  });
  const counts = (): number[] => nodes.map((state) => state.tasksOf("s"));
  assert.equal(place(nodes, group(), 5).placements.length, 5);
  assert.deepEqual(counts(), [1, 2, 2]);
});

test("spread preferences come first: zones get equal shares whatever their size, full nodes still count", () => {
  const zones = ["x", "x", "x", "y"].map(
    (zone, at) => new NodeState(node(`n${at}`, { labels: new Map([["zone", zone]]) })),
  );
  const { placements } = place(zones, group({ spreadOver: ["node.labels.zone"] }), 8);
  assert.equal(placements.filter(({ nodeId }) => nodeId === "n3").length, 4);
  const limited = ["x", "x", "y"].map(
    (zone, at) => new NodeState(node(`n${at}`, { labels: new Map([["zone", zone]]) })),
  );
  const capped = group({ spreadOver: ["node.labels.zone"], maxReplicasPerNode: 2 });
  assert.equal(place(limited, capped, 6).placements.length, 6);
  assert.deepEqual(
    limited.map((state) => state.tasksOf("s")),
    [2, 2, 2],
  );
});

test("binpack fills one node before the next", () => {
  const nodes = ["a", "b", "c"].map((id) => new NodeState(node(id)));
  const reserved = { nanoCpus: 1e9, memoryBytes: 0, generic: new Map<string, number>() };
  const { placements } = place(nodes, group({ strategy: "binpack", reserved }), 6);
  assert.equal(new Set(placements.slice(0, 4).map(({ nodeId }) => nodeId)).size, 1);
  assert.equal(new Set(placements.map(({ nodeId }) => nodeId)).size, 2);
});

test("a node on which this version keeps failing comes last", () => {
  const nodes = ["a", "b"].map((id) => new NodeState(node(id)));
  for (let failure = 0; failure < 5; failure++) nodes[0]?.failed("s", 1, failure);
  assert.deepEqual(
    place(nodes, group(), 3).placements.map(({ nodeId }) => nodeId),
    ["b", "b", "b"],
  );
  const later = planGroup({ nodes, group: group(), taskIds: ["z"], random: new Random(1), nowMs: 6 * 60_000 });
  assert.equal(later.placements[0]?.nodeId, "a");
});

test("generic resources with names are given out once each", () => {
  const facts = node("a", {
    capacity: { ...nothing, generic: new Map([["gpu", 2]]) },
    named: new Map([["gpu", ["g1", "g2"]]]),
  });
  const state = new NodeState(facts);
  const wants = group({ reserved: { ...nothing, generic: new Map([["gpu", 1]]) } });
  const plan = place([state], wants, 3);
  assert.deepEqual(
    plan.placements.map(({ assigned }) => assigned.get("gpu")),
    [["g1"], ["g2"]],
  );
  assert.deepEqual(plan.unplaced, ["t2"]);
  state.remove("t0");
  assert.deepEqual(
    place([state], wants, 1).placements.map(({ assigned }) => assigned.get("gpu")),
    [["g1"]],
  );
});

test("a task without a node is told the counts and the nearest miss", () => {
  const nodes = [
    new NodeState(node("a", { state: "down" })),
    new NodeState(node("b")),
    new NodeState(node("c", { labels: new Map([["disk", "ssd"]]) })),
  ];
  const wants = group({
    constraints: [parseConstraint("node.labels.disk==ssd")],
    reserved: { ...nothing, memoryBytes: 2 ** 40 },
  });
  const { reason, unplaced } = place(nodes, wants, 2);
  assert.deepEqual(unplaced, ["t0", "t1"]);
  assert.deepEqual(
    reason?.counts.map(({ filter, nodes: count }) => [filter, count]),
    [
      ["resource", 2],
      ["ready", 1],
    ],
  );
  assert.equal(reason?.nearest?.nodeId, "c");
  assert.deepEqual(
    reason?.nearest?.misses.map(({ filter }) => filter),
    ["resource"],
  );
  assert.equal(explain([], wants).nearest, undefined);
});

test("the nearest miss comes with the commands that mend it, where commands can", () => {
  const wants = group({ constraints: [parseConstraint("node.labels.disk == ssd"), parseConstraint("node.id != x")] });
  const drained = new NodeState(node("a", { availability: "drain" }));
  assert.deepEqual(explain([drained], wants).nearest?.fixes, [
    "skep node update --availability active",
    "skep node update --label-add disk=ssd",
  ]);
  const full = group({ reserved: { ...nothing, memoryBytes: 2 ** 40 } });
  assert.deepEqual(explain([new NodeState(node("b"))], full).nearest?.fixes, []);
});

test("a preassigned task is only asked for its resources", () => {
  const state = new NodeState(node("a", { availability: "drain" }));
  assert.ok("nodeId" in confirm(state, group(), "t0"));
  assert.deepEqual(confirm(state, group({ reserved: { ...nothing, nanoCpus: 9e9 } }), "t1"), {
    filter: "resource",
    detail: "4 CPUs are free, 9 are wanted",
  });
});

test("the same seed gives the same plan; no plan breaks a limit (against a plain recount)", () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.integer({ min: 1, max: 12 }),
      fc.integer({ min: 0, max: 60 }),
      fc.integer({ min: 0, max: 4 }),
      fc.boolean(),
      (seed, nodesCount, tasks, max, pack) => {
        const make = (): NodeState[] =>
          Array.from(
            { length: nodesCount },
            (_, at) =>
              new NodeState(
                node(`n${at}`, { labels: new Map([["zone", String(at % 3)]]), state: at % 5 === 4 ? "down" : "ready" }),
              ),
          );
        const reserved = { nanoCpus: 5e8, memoryBytes: 2 ** 30, generic: new Map<string, number>() };
        const wants = group({
          reserved,
          maxReplicasPerNode: max,
          spreadOver: seed % 2 === 0 ? ["node.labels.zone"] : [],
          strategy: pack ? "binpack" : "spread",
        });
        const nodes = make();
        const plan = place(nodes, wants, tasks, seed);
        assert.deepEqual(place(make(), wants, tasks, seed).placements, plan.placements);
        const perNode = new Map<string, number>();
        for (const { nodeId } of plan.placements) perNode.set(nodeId, (perNode.get(nodeId) ?? 0) + 1);
        const capacity = Math.min(8, max === 0 ? 8 : max);
        for (const state of nodes) {
          const count = perNode.get(state.facts.id) ?? 0;
          assert.ok(count <= capacity && (count === 0 || state.facts.state === "ready"));
        }
        const up = nodes.filter((state) => state.facts.state === "ready").length;
        assert.equal(plan.placements.length, Math.min(tasks, up * capacity));
        assert.equal(plan.placements.length + plan.unplaced.length, tasks);
      },
    ),
    { numRuns: 300 },
  );
});
