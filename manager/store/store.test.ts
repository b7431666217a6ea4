import { test } from "node:test";
import assert from "node:assert/strict";
import * as fc from "fast-check";
import { by, contents, item, StoreCluster, turn, valueOf } from "../../test/support/store-cluster.ts";
import {
  Backpressure,
  Conflict,
  EntryTooLarge,
  NameInUse,
  NotLeader,
  ObjectExists,
  ObjectNotFound,
  OutcomeUnknown,
  StoreClosed,
  VersionConflict,
  type ClusterSchema,
  type Tx,
} from "./index.ts";

// ------------------------------------------------------------------------------------------- against a plain oracle

interface Plain {
  readonly value: string;
  readonly kind: string;
  readonly name: string;
}

type Op =
  | { readonly act: "put"; readonly id: string; readonly to: Plain }
  | { readonly act: "remove"; readonly id: string }
  | { readonly act: "abort" };

const ids = fc.nat(11).map((at) => `id-${at}`);
const plain = fc.record({
  value: fc.constantFrom("a", "b", "c"),
  kind: fc.constantFrom("x", "y"),
  name: fc.constantFrom("", "one", "two", "three"),
});
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ act: fc.constant("put" as const), id: ids, to: plain }) },
  { weight: 3, arbitrary: fc.record({ act: fc.constant("remove" as const), id: ids }) },
  { weight: 1, arbitrary: fc.record({ act: fc.constant("abort" as const) }) },
);
type Step =
  { readonly act: "update"; readonly ops: readonly Op[] } | { readonly act: "deliver"; readonly count: number };
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ act: fc.constant("update" as const), ops: fc.array(op, { minLength: 1, maxLength: 5 }) }),
  },
  { weight: 1, arbitrary: fc.record({ act: fc.constant("deliver" as const), count: fc.integer({ min: 1, max: 4 }) }) },
);

class Aborted extends Error {}

/** What the operations do to a plain Map; throws where a transaction must. */
function play(ops: readonly Op[], before: ReadonlyMap<string, Plain>): Map<string, Plain> {
  const after = new Map(before);
  for (const each of ops) {
    if (each.act === "abort") throw new Aborted();
    if (each.act === "remove") {
      if (!after.delete(each.id)) throw new Aborted();
      continue;
    }
    const { kind, name } = each.to;
    if (name !== "" && [...after].some(([id, other]) => id !== each.id && other.name === name && other.kind === kind))
      throw new Aborted();
    after.set(each.id, each.to);
  }
  return after;
}

function act(tx: Tx<ClusterSchema>, ops: readonly Op[]): void {
  for (const each of ops) {
    if (each.act === "abort") throw new Aborted();
    if (each.act === "remove") tx.remove("resource", each.id);
    else tx.put("resource", item(each.id, each.to.value, each.to));
  }
}

function check(
  view: Tx<ClusterSchema> | ReturnType<StoreCluster["store"]["current"]>,
  expected: Map<string, Plain>,
): void {
  const sorted = [...expected].sort(([a], [b]) => (a < b ? -1 : 1));
  assert.deepEqual(
    [...view.list("resource")].map((each) => each.id),
    sorted.map(([id]) => id),
  );
  assert.equal(view.count("resource"), expected.size);
  assert.deepEqual(
    [...view.list("resource", { from: "id-2", to: "id-7" })].map((each) => each.id),
    sorted.map(([id]) => id).filter((id) => id >= "id-2" && id < "id-7"),
  );
  for (const kind of ["x", "y", "z"]) {
    const found = sorted.filter(([, each]) => each.kind === kind).map(([id]) => id);
    assert.deepEqual(
      [...view.find("resource", "kind", kind)].map((each) => each.id),
      found,
    );
    assert.equal(view.countBy("resource", "kind", kind), found.length);
  }
  assert.deepEqual([...view.keys("resource", "kind")], [...new Set(sorted.map(([, each]) => each.kind))].sort());
  for (const [id, { value, name, kind }] of sorted) {
    assert.equal(valueOf(view, id), value);
    if (name !== "") assert.equal(view.first("resource", "name", `${kind}/${name}`)?.id, id);
  }
}

test("pipelined updates, a replica and a watch agree with a plain Map, whatever is delivered when", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: "max" }), async (steps) => {
      const cluster = new StoreCluster({ members: 2, auto: false });
      const { store, group } = { store: cluster.store, group: cluster.group };
      const watched = new Map<string, string>();
      const watch = store.watch({ kinds: ["resource"] });
      assert.equal(watch.poll()?.kind, "view");
      let speculative = new Map<string, Plain>();
      const committed: Map<string, Plain>[] = [];
      let expectedNow = new Map<string, Plain>();
      const results: Promise<unknown>[] = [];
      for (const each of steps) {
        if (each.act === "deliver") {
          const before = group.pending;
          group.deliver(each.count);
          expectedNow = committed.splice(0, before - group.pending).at(-1) ?? expectedNow;
          check(store.current(), expectedNow);
          continue;
        }
        let after: Map<string, Plain> | undefined;
        try {
          after = play(each.ops, speculative);
        } catch (error) {
          assert.ok(error instanceof Aborted);
        }
        const before = group.pending;
        const update = store.update((tx) => {
          check(tx, speculative);
          act(tx, each.ops);
          if (after !== undefined) check(tx, after);
        }, by);
        if (after === undefined) {
          results.push(assert.rejects(update));
        } else {
          results.push(update);
          speculative = after;
          assert.equal(group.pending, before + 1);
          committed.push(after);
        }
      }
      group.deliver();
      await Promise.all(results);
      check(store.current(), speculative);
      for (let event = watch.poll(); event !== undefined; event = watch.poll())
        if (event.kind === "changes")
          for (const change of event.changes) {
            if (change.kind !== "resource") continue;
            const old = change.before === undefined ? undefined : Buffer.from(change.before.payload).toString();
            assert.equal(watched.get(change.id), old);
            if (change.after === undefined) watched.delete(change.id);
            else watched.set(change.id, Buffer.from(change.after.payload).toString());
          }
      assert.deepEqual(Object.fromEntries(watched), contents(store.current()));
      const [first, second] = cluster.members;
      assert.equal(first!.store.machine.stateHash(), second!.store.machine.stateHash());
    }),
    { numRuns: 150 },
  );
});

test("an old view stays as it was while writes go on", async () => {
  const { store } = new StoreCluster();
  for (let count = 0; count < 300; count++)
    await store.update((tx) => tx.put("resource", item(`k${count}`, "old")), by);
  const before = store.current();
  const expected = contents(before);
  for (let count = 0; count < 300; count += 2) await store.update((tx) => tx.remove("resource", `k${count}`), by);
  await store.update((tx) => tx.edit("resource", "k1", (draft) => (draft.payload = Buffer.from("new"))), by);
  assert.deepEqual(contents(before), expected);
  assert.equal(before.countBy("resource", "kind", "item"), 300);
  assert.equal(store.current().countBy("resource", "kind", "item"), 150);
  assert.equal(valueOf(store.current(), "k1"), "new");
});

// ------------------------------------------------------------------------------------------------------------- meta

test("an object's version is its entry's index, and its times grow whatever the wall clock does", async () => {
  const cluster = new StoreCluster();
  const { store } = cluster;
  const { index } = await store.update((tx) => tx.create("resource", item("a", "1")), by);
  const created = store.current().get("resource", "a")?.meta;
  assert.equal(created?.version, index);
  assert.equal(created?.createdAtUs, cluster.nowUs);
  cluster.nowUs -= 3_600_000_000;
  const second = await store.update((tx) => tx.update("resource", item("a", "2")), by);
  const updated = store.current().get("resource", "a")?.meta;
  assert.equal(updated?.version, second.index);
  assert.equal(updated?.createdAtUs, created?.createdAtUs);
  assert.equal(updated?.updatedAtUs, (created?.updatedAtUs ?? 0) + 1);
});

test("what is read is frozen at every depth", async () => {
  const { store } = new StoreCluster();
  await store.update((tx) => tx.create("resource", item("a", "1", { name: "n" })), by);
  const read = store.current().get("resource", "a");
  assert.throws(() => Object.assign(read!, { kind: "other" }), TypeError);
  assert.throws(() => Object.assign(read!.annotations!, { name: "other" }), TypeError);
});

// --------------------------------------------------------------------------------------------------------- outcomes

test("creating what exists, changing what does not, and a taken name are refused by code", async () => {
  const { store } = new StoreCluster();
  await store.update((tx) => tx.create("resource", item("a", "1", { name: "n" })), by);
  await assert.rejects(
    store.update((tx) => tx.create("resource", item("a", "2")), by),
    ObjectExists,
  );
  await assert.rejects(
    store.update((tx) => tx.update("resource", item("b", "2")), by),
    ObjectNotFound,
  );
  await assert.rejects(
    store.update((tx) => tx.remove("resource", "b"), by),
    ObjectNotFound,
  );
  await assert.rejects(
    store.update((tx) => tx.edit("resource", "b", () => {}), by),
    ObjectNotFound,
  );
  await assert.rejects(
    store.update((tx) => tx.create("resource", item("b", "2", { name: "n" })), by),
    NameInUse,
  );
  await assert.rejects(
    store.update((tx) => tx.expectVersion("resource", "a", 999), by),
    VersionConflict,
  );
  await store.update((tx) => tx.expectVersion("resource", "a", tx.get("resource", "a")?.meta?.version ?? 0), by);
  assert.deepEqual(contents(store.current()), { a: "1" });
});

test("an update that was built on one that is refused is refused too, and changes nothing", async () => {
  const cluster = new StoreCluster({ auto: false });
  const { store, group } = cluster;
  const first = store.update((tx) => tx.create("resource", item("a", "1")), by);
  const onWrite = store.update((tx) => tx.update("resource", item("a", "2")), by);
  const onRead = store.update((tx) => tx.create("resource", item("b", valueOf(tx, "a") ?? "none")), by);
  const onIndex = store.update((tx) => {
    const seen = [...tx.find("resource", "kind", "item")].length;
    tx.create("resource", item("c", String(seen), { kind: "count" }));
  }, by);
  const nothing = store.update((tx) => tx.get("resource", "a")?.kind, by);
  const apart = store.update((tx) => tx.put("resource", item("z", "1", { kind: "other" })), by);
  group.refuse({ kind: "backpressure", retryAfterMs: 20 }, 1);
  group.deliver();
  await assert.rejects(first, (error) => error instanceof Backpressure && error.retryAfterMs === 20);
  await assert.rejects(onWrite, Conflict);
  await assert.rejects(onRead, Conflict);
  await assert.rejects(onIndex, Conflict);
  await assert.rejects(nothing, Conflict);
  await apart;
  assert.deepEqual(contents(store.current()), { z: "1" });
});

test("a name seen only in flight refuses after that is committed, not before", async () => {
  const cluster = new StoreCluster({ auto: false });
  const { store, group } = cluster;
  let refused = false;
  const first = store.update((tx) => tx.create("resource", item("a", "1", { name: "n" })), by);
  const second = store
    .update((tx) => tx.create("resource", item("b", "1", { name: "n" })), by)
    .catch((error: unknown) => {
      refused = error instanceof NameInUse;
    });
  await turn();
  assert.equal(refused, false);
  group.deliver();
  await first;
  await second;
  assert.equal(refused, true);
});

test("a guard holds what is only read, absence included", async () => {
  const cluster = new StoreCluster({ members: 2, auto: false });
  const { group } = cluster;
  const [first, second] = cluster.members;
  const setUp = first!.store.update((tx) => tx.create("resource", item("a", "1")), by);
  group.deliver();
  await setUp;
  const guarded = first!.store.update((tx) => {
    tx.guard("resource", "absent");
    tx.create("resource", item("b", "1"));
  }, by);
  // The second member's entry comes first in the log.
  const waiting = group.hold();
  group.elect(second!.log);
  const rival = second!.store.update((tx) => tx.create("resource", item("absent", "1")), by);
  group.deliver();
  await rival;
  group.replay(waiting);
  await assert.rejects(guarded, OutcomeUnknown);
  assert.equal(second!.store.current().has("resource", "b"), false);
});

test("an entry above the limit is refused with both sizes, before it is proposed", async () => {
  const { store, group } = new StoreCluster({ auto: false });
  const big = "x".repeat(1024 * 1024);
  await assert.rejects(
    store.update((tx) => tx.put("resource", item("a", big)), by),
    (error) => error instanceof EntryTooLarge && error.message.includes("1048576"),
  );
  assert.equal(group.pending, 0);
});

test("a follower refuses with the leader's name; a closed store refuses all", async () => {
  const cluster = new StoreCluster({ members: 2 });
  const follower = cluster.members[1]!.store;
  await assert.rejects(
    follower.update((tx) => tx.put("resource", item("a", "1")), by),
    (error) => error instanceof NotLeader && error.leader === "member-1",
  );
  await cluster.store[Symbol.asyncDispose]();
  await cluster.store[Symbol.asyncDispose]();
  await assert.rejects(
    cluster.store.update((tx) => tx.put("resource", item("a", "1")), by),
    StoreClosed,
  );
});

test("lost leadership leaves outcomes unknown, and nothing is built on what was in flight", async () => {
  const cluster = new StoreCluster({ members: 2, auto: false });
  const { store, group } = cluster;
  const lost = store.update((tx) => tx.create("resource", item("a", "1")), by);
  const seen = store.update((tx) => tx.has("resource", "a"), by);
  group.elect(undefined);
  await assert.rejects(lost, OutcomeUnknown);
  await assert.rejects(seen, NotLeader);
  group.elect(cluster.first.log);
  const { result } = await store.update((tx) => tx.has("resource", "a"), by);
  assert.equal(result, false);
});

test("giving up waiting says unknown; a signal that was given before says nothing was done", async () => {
  const { store, group } = new StoreCluster({ auto: false });
  const stop = new AbortController();
  const update = store.update((tx) => tx.put("resource", item("a", "1")), { ...by, signal: stop.signal });
  stop.abort();
  await assert.rejects(update, OutcomeUnknown);
  group.deliver();
  assert.equal(valueOf(store.current(), "a"), "1");
  await assert.rejects(
    store.update((tx) => tx.put("resource", item("b", "1")), { ...by, signal: AbortSignal.abort() }),
    { name: "AbortError" },
  );
  assert.equal(group.pending, 0);
});

test("a linearizable read on a follower sees what was acknowledged before it", async () => {
  const cluster = new StoreCluster({ members: 2 });
  const follower = cluster.members[1]!;
  follower.log.paused = true;
  await cluster.store.update((tx) => tx.put("resource", item("a", "1")), by);
  assert.equal(valueOf(follower.store.current(), "a"), undefined);
  follower.log.paused = false;
  assert.equal(await follower.store.read((view) => valueOf(view, "a")), "1");
  cluster.group.elect(undefined);
  await assert.rejects(
    follower.store.read((view) => view.index),
    NotLeader,
  );
});

test("actor and cause come with every change", async () => {
  const { store } = new StoreCluster();
  const watch = store.watch({ kinds: ["resource"] });
  assert.equal(watch.poll()?.kind, "view");
  await store.update((tx) => tx.put("resource", item("a", "1")), { actor: "user/alice", cause: "create" });
  const event = watch.poll();
  assert.ok(event?.kind === "changes");
  const [change] = event.changes;
  assert.deepEqual([change?.actor, change?.cause, change?.act], ["user/alice", "create", "create"]);
});
