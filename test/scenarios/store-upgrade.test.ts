/** Test catalogue L4-L7: feature levels, formats of released versions, and state hashes. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { skep } from "../../proto/index.ts";
import {
  clusterSchema,
  Incompatible,
  LevelRefused,
  ObjectStore,
  StateDiverged,
  type Schema,
} from "../../manager/store/index.ts";
import { by, contents, item, StoreCluster, turn, type Member } from "../support/store-cluster.ts";

const entry = (fields: skep.store.Entry.$Properties): Uint8Array => skep.store.Entry.encode(fields).finish();
const put = (kind: number): skep.store.Entry.$Properties => ({
  transaction: { changes: [{ kind, id: "a", body: new Uint8Array() }] },
});

test("L5: an entry, kind or body that is not known stops the member, and is never skipped", () => {
  const unknown: [string, Uint8Array][] = [
    ["a level above", entry({ level: 2, timeUs: 5, ...put(9) })],
    ["no level", entry({ timeUs: 5, ...put(9) })],
    ["no body", entry({ level: 1, timeUs: 5 })],
    // Field 90, length-delimited: a body of a later version.
    ["another body", Buffer.concat([entry({ level: 1, timeUs: 5 }), Buffer.from([0xd2, 0x05, 0x00])])],
    ["another kind", entry({ level: 1, timeUs: 5, ...put(77) })],
    ["a kind of the store's own", entry({ level: 1, timeUs: 5, ...put(1000) })],
    [
      "bytes that are no object",
      entry({ level: 1, timeUs: 5, transaction: { changes: [{ kind: 9, id: "a", body: Buffer.from([0x0a, 0x7f]) }] } }),
    ],
    ["bytes that are no entry", Buffer.from([0xff, 0xff, 0xff])],
  ];
  for (const [what, data] of unknown) {
    const { store } = new StoreCluster();
    assert.throws(() => store.machine.apply(5, data), Incompatible, what);
  }
});

test("L5: the level is raised when every member understands it, and whoever does not must stop", async () => {
  const cluster = new StoreCluster({ members: 2, supportedLevel: 2 });
  const { store } = cluster;
  const old = cluster.join(undefined, { supportedLevel: 1 });
  await assert.rejects(store.raiseLevel(2), LevelRefused);
  for (const [at, level] of [2, 2, 1].entries()) await store.reportMember({ member: at + 1, level });
  await assert.rejects(store.raiseLevel(2), LevelRefused);
  assert.equal(store.featureLevel, 1);
  assert.deepEqual(stoppedMembers(cluster), []);
  await store.removeMember(3);
  await store.raiseLevel(2);
  assert.deepEqual(
    cluster.members.map((member) => member.store.featureLevel),
    [2, 2, 1],
  );
  assert.ok(old.stopped instanceof Incompatible);
  assert.throws(() => cluster.join(cluster.first, { supportedLevel: 1 }), Incompatible);
});

test("L5: what a level brings is refused below it", async () => {
  const gadget = { ...clusterSchema.resource, number: 500, sinceLevel: 2 };
  const schema = { ...clusterSchema, gadget } satisfies Schema;
  const cluster = new StoreCluster({ supportedLevel: 2 });
  const store = new ObjectStore({ schema, nowUs: () => cluster.nowUs, member: 2, supportedLevel: 2 });
  const log = cluster.group.join(store.machine, 0);
  store.attach(log);
  cluster.group.elect(log);
  // The first member would not know the kind.
  cluster.first.log.stopped = true;
  await assert.rejects(
    store.update((tx) => tx.put("gadget", item("a", "1")), by),
    LevelRefused,
  );
  await store.reportMember({ member: 2, level: 2 });
  await store.raiseLevel(2);
  await store.update((tx) => tx.put("gadget", item("a", "1")), by);
  assert.ok(store.current().has("gadget", "a"));
});

test("L6: going back a version works until the level is raised", async () => {
  const cluster = new StoreCluster({ supportedLevel: 2 });
  const { store } = cluster;
  await store.update((tx) => tx.put("resource", item("a", "1")), by);
  await store.reportMember({ member: 1, level: 2 });
  const back = cluster.join(cluster.first, { supportedLevel: 1 });
  assert.deepEqual(contents(back.store.current()), { a: "1" });
  const replayed = cluster.join(undefined, { supportedLevel: 1 });
  assert.equal(replayed.stopped, undefined);
  assert.equal(replayed.store.machine.stateHash(), store.machine.stateHash());
  await store.raiseLevel(2);
  assert.ok(back.stopped instanceof Incompatible);
  assert.ok(cluster.join(undefined, { supportedLevel: 1 }).stopped instanceof Incompatible);
});

interface Golden {
  readonly entries: readonly { readonly index: number; readonly base64: string }[];
  readonly snapshot: readonly string[];
  readonly hash: string;
}

test("L4: the log and the snapshot of version 1 give the state that they gave then", () => {
  const path = new URL("golden/store-1.json", import.meta.url);
  const golden = JSON.parse(readFileSync(path, "utf8")) as Golden;
  const fromLog = new StoreCluster().store.machine;
  for (const { index, base64 } of golden.entries) fromLog.apply(index, Buffer.from(base64, "base64"));
  assert.equal(fromLog.stateHash(), golden.hash);
  const fromSnapshot = new StoreCluster().store.machine;
  const sink = fromSnapshot.restore();
  for (const chunk of golden.snapshot) sink.write(Buffer.from(chunk, "base64"));
  sink.finish(fromLog.index);
  assert.equal(fromSnapshot.stateHash(), golden.hash);
});

// ------------------------------------------------------------------------------------------------------ state hashes

const hashEvery = 32;

async function threeMembers(): Promise<StoreCluster> {
  const cluster = new StoreCluster({ members: 3, limits: { hashEvery } });
  for (const member of [1, 2, 3]) await cluster.store.reportMember({ member, level: 1 });
  for (let at = 0; at < 20; at++) await cluster.store.update((tx) => tx.put("resource", item(`k${at}`, "1")), by);
  return cluster;
}

/** Writes until the next comparison is over, whoever leads. */
async function nextComparison(cluster: StoreCluster): Promise<void> {
  for (let count = 0; count < hashEvery; count++) {
    const live = cluster.members.find(({ stopped }) => stopped === undefined);
    if (live === undefined) break;
    if (cluster.group.leader === undefined) cluster.group.elect(live.log);
    const leader = cluster.members.find(({ log }) => log === cluster.group.leader);
    await leader?.store.update((tx) => tx.put("resource", item("tick", String(count))), by).catch(() => {});
  }
  await turn();
  await turn();
}

const stoppedMembers = ({ members }: StoreCluster): number[] =>
  members.flatMap(({ stopped }, at) => (stopped === undefined ? [] : [at + 1]));

test("L7: members that agree go on, comparison after comparison", async () => {
  const cluster = await threeMembers();
  for (let round = 0; round < 5; round++) await nextComparison(cluster);
  assert.deepEqual(stoppedMembers(cluster), []);
  const hashes = new Set(cluster.members.map(({ store }) => store.machine.stateHash()));
  assert.equal(hashes.size, 1);
});

test("L7: a bit that flips in one member's memory stops that member at the next comparison", async () => {
  for (const victim of [1, 2, 3]) {
    const cluster = await threeMembers();
    const { machine } = (cluster.members[victim - 1] as Member).store;
    const bytes = machine.freeze().table(clusterSchema.resource.number).rows.get("k7")?.bytes();
    bytes![3]! ^= 0x10;
    await nextComparison(cluster);
    assert.deepEqual(stoppedMembers(cluster), [victim]);
    assert.ok(cluster.members[victim - 1]?.stopped instanceof StateDiverged);
  }
});

test("L7: a member that applied something else is outvoted, also when it leads", async () => {
  for (const victim of [1, 3]) {
    const cluster = await threeMembers();
    const member = cluster.members[victim - 1] as Member;
    member.alter = (_index, data) => {
      const decoded = skep.store.Entry.decode(data);
      const change = decoded.transaction?.changes?.[0];
      if (change === undefined) return data;
      member.alter = undefined;
      change.id = "other";
      return entry(decoded);
    };
    await nextComparison(cluster);
    await nextComparison(cluster);
    assert.deepEqual(stoppedMembers(cluster), [victim]);
  }
});

test("L7: two members that disagree cannot tell who is wrong: both report it and go on", async () => {
  const disputes: number[] = [];
  const cluster = new StoreCluster({
    members: 2,
    limits: { hashEvery },
    onHashDisputed: (member) => disputes.push(member),
  });
  for (const member of [1, 2]) await cluster.store.reportMember({ member, level: 1 });
  cluster.members[1]!.alter = (index, data) =>
    index === 10 ? entry(Object.assign(skep.store.Entry.decode(data), { transaction: { changes: [] } })) : data;
  await nextComparison(cluster);
  await nextComparison(cluster);
  assert.deepEqual(stoppedMembers(cluster), []);
  assert.deepEqual(new Set(disputes), new Set([1, 2]));
});
