/** Test catalogue L8: a watch gives each committed change once, in order, or says that it must start over. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { Random } from "../../lib/pure/prng.ts";
import type { ClusterSchema, View, Watch, WatchEvent } from "../../manager/store/index.ts";
import { by, contents, item, StoreCluster, turn, valueOf, type Member } from "../support/store-cluster.ts";

/** What a reader of a watch knows, checked at every step. */
class Reader {
  readonly known = new Map<string, string>();
  index = 0;
  views = 0;
  readonly reasons: string[] = [];
  #started = false;

  take(event: WatchEvent<ClusterSchema>): void {
    if (event.kind === "view") {
      this.views++;
      this.reasons.push(event.reason);
      this.known.clear();
      for (const [id, value] of Object.entries(contents(event.view))) this.known.set(id, value);
      this.index = event.view.index;
      this.#started = true;
      return;
    }
    assert.ok(this.#started || this.index > 0, "a watch starts with a view or a version");
    let last = this.index;
    for (const change of event.changes) {
      assert.ok(change.index > this.index && change.index >= last, "in commit order, none twice");
      last = change.index;
      assert.equal(change.kind, "resource");
      if (change.kind !== "resource") continue;
      const before = change.before === undefined ? undefined : Buffer.from(change.before.payload).toString();
      assert.equal(this.known.get(change.id), before, "no change is missing");
      if (change.after === undefined) this.known.delete(change.id);
      else this.known.set(change.id, Buffer.from(change.after.payload).toString());
    }
    this.index = event.index;
  }

  drain(watch: Watch<ClusterSchema>): void {
    for (let event = watch.poll(); event !== undefined; event = watch.poll()) this.take(event);
  }

  check(view: View<ClusterSchema>): void {
    assert.deepEqual(Object.fromEntries([...this.known].sort(([a], [b]) => (a < b ? -1 : 1))), contents(view));
  }
}

for (let seed = 1; seed <= 30; seed++) {
  test(`L8: readers, slow, restarted and on new leaders, end with what is committed (seed ${seed})`, async () => {
    const random = new Random(seed);
    const limits = { changesMax: 40, bytesMax: 1_000_000 };
    const cluster = new StoreCluster({ members: 3, auto: false, watchLimits: limits });
    const { group } = cluster;
    let leader = cluster.first;
    const readers = cluster.members.map((member) => ({ member, reader: new Reader(), watch: member.store.watch() }));
    for (let step = 0; step < 200; step++) {
      switch (random.int(0, 12)) {
        case 0: // Nobody knows; what waits is lost.
          leader = random.pick(cluster.members.slice(0, 3));
          group.elect(leader.log);
          break;
        case 1: {
          // A member lags behind, and may be brought up by a snapshot.
          const member = random.pick(cluster.members.slice(0, 3));
          if (member === leader) break;
          member.log.paused = !member.log.paused;
          if (!member.log.paused && random.chance(0.7)) cluster.install(leader, member);
          member.log.catchUp();
          break;
        }
        case 2: {
          // A reader leaves, and comes back with the version that it has.
          const each = random.pick(readers);
          if (each.reader.index === 0) break;
          each.watch.close();
          each.watch = each.member.store.watch({ since: each.reader.index });
          break;
        }
        case 3: {
          // A reader goes to another member with its version.
          const each = random.pick(readers);
          const member = random.pick(cluster.members.slice(0, 3));
          if (each.reader.index === 0) break;
          each.watch.close();
          each.member = member;
          each.watch = member.store.watch({ since: each.reader.index, kinds: ["resource"] });
          break;
        }
        case 4:
        case 5: {
          const { reader, watch } = random.pick(readers);
          reader.drain(watch);
          break;
        }
        case 6:
          group.deliver(random.int(1, 5));
          break;
        default: {
          const id = `k${random.int(0, 8)}`;
          const value = String(step);
          const update = leader.store.update((tx) => {
            if (random.chance(0.3) && tx.has("resource", id)) tx.remove("resource", id);
            else tx.put("resource", item(id, value));
            if (random.chance(0.3)) tx.put("resource", item("other", value));
          }, by);
          update.catch(() => {});
        }
      }
      for (const { reader, watch } of readers) if (random.chance(0.1)) reader.drain(watch);
    }
    group.deliver();
    for (const { member, reader, watch } of readers) {
      member.log.paused = false;
      member.log.catchUp();
      reader.drain(watch);
      // A reader that came with a version of another member's future gets what follows that version, no more.
      if (reader.index > 0) reader.check(member.store.current());
    }
    await turn();
  });
}

test("L8: a slow reader is told to start over, and memory does not grow for it", async () => {
  const cluster = new StoreCluster({ watchLimits: { changesMax: 10, bytesMax: 1_000_000 } });
  const { store } = cluster;
  const watch = store.watch();
  const reader = new Reader();
  reader.drain(watch);
  for (let count = 0; count < 9; count++) await store.update((tx) => tx.put("resource", item("a", String(count))), by);
  reader.drain(watch);
  assert.equal(reader.views, 1);
  for (let count = 0; count < 25; count++) await store.update((tx) => tx.put("resource", item("a", String(count))), by);
  reader.drain(watch);
  assert.deepEqual(reader.reasons, ["start", "behind"]);
  reader.check(store.current());
  const bytes = new StoreCluster({ watchLimits: { changesMax: 1000, bytesMax: 100 } });
  const big = bytes.store.watch();
  assert.equal(big.poll()?.kind, "view");
  for (let count = 0; count < 3; count++)
    await bytes.store.update((tx) => tx.put("resource", item("a", "x".repeat(60))), by);
  assert.equal(big.poll()?.kind, "view");
});

test("L8: a reader of quiet kinds does not fall behind because others are busy", async () => {
  const cluster = new StoreCluster({ watchLimits: { changesMax: 10, bytesMax: 1_000_000 } });
  const { store } = cluster;
  const watch = store.watch({ kinds: ["extension"] });
  assert.equal(watch.poll()?.kind, "view");
  assert.equal(watch.poll(), undefined);
  for (let count = 0; count < 50; count++) await store.update((tx) => tx.put("resource", item("a", String(count))), by);
  await store.update((tx) => tx.create("extension", { id: "e", annotations: { name: "e" } }), by);
  const event = watch.poll();
  assert.ok(event?.kind === "changes");
  assert.deepEqual(
    event.changes.map(({ kind, id }) => [kind, id]),
    [["extension", "e"]],
  );
});

test("L8: a version that is no longer kept, or was before a restart, starts over", async () => {
  const cluster = new StoreCluster();
  const { store } = cluster;
  const { index } = await store.update((tx) => tx.put("resource", item("a", "1")), by);
  await store.update((tx) => tx.put("resource", item("a", "2")), by);
  const restarted = cluster.join(cluster.first);
  const resumed = store.watch({ since: index }).poll();
  assert.equal(resumed?.kind, "changes");
  const late = restarted.store.watch({ since: index }).poll();
  assert.ok(late?.kind === "view" && late.reason === "behind");
  const now = restarted.store.watch({ since: restarted.store.current().index });
  assert.equal(now.poll(), undefined);
});

test("L8: an installed snapshot tells every reader to start over", async () => {
  const cluster = new StoreCluster({ members: 2 });
  const [first, second] = cluster.members as [Member, Member];
  const watch = second.store.watch();
  assert.equal(watch.poll()?.kind, "view");
  second.log.paused = true;
  await first.store.update((tx) => tx.put("resource", item("a", "1")), by);
  assert.equal(watch.poll(), undefined);
  cluster.install(first, second);
  const event = watch.poll();
  assert.ok(event?.kind === "view" && event.reason === "installed");
  assert.equal(valueOf(event.view, "a"), "1");
});

test("L8: nothing uncommitted is ever shown", async () => {
  const cluster = new StoreCluster({ members: 2, auto: false });
  const watch = cluster.store.watch();
  assert.equal(watch.poll()?.kind, "view");
  const lost = cluster.store.update((tx) => tx.put("resource", item("a", "1")), by);
  assert.equal(watch.poll(), undefined);
  assert.equal(valueOf(cluster.store.current(), "a"), undefined);
  cluster.group.elect(cluster.members[1]!.log);
  await assert.rejects(lost);
  assert.equal(watch.poll(), undefined);
});

test("L8: batches hold whole entries, and end the loop when the signal or the store says so", async () => {
  const cluster = new StoreCluster();
  const { store } = cluster;
  const stop = new AbortController();
  const sizes: number[] = [];
  const loop = (async () => {
    for await (const event of store.watch({ batchMax: 3, signal: stop.signal })) {
      if (event.kind === "changes") sizes.push(event.changes.length);
      if (sizes.reduce((sum, size) => sum + size, 0) === 10) stop.abort();
    }
  })();
  await turn();
  await Promise.all(
    Array.from({ length: 5 }, (_, at) =>
      store.update((tx) => {
        tx.put("resource", item(`a${at}`, "1"));
        tx.put("resource", item(`b${at}`, "1"));
      }, by),
    ),
  );
  await loop;
  assert.deepEqual(sizes, [4, 4, 2]);
  const open = store.watch();
  await store[Symbol.asyncDispose]();
  assert.equal(open.closed, true);
  assert.equal(store.leadership().leading, true);
});

test("L8: a filter sees old and new, and a reader is not woken by what it leaves out", async () => {
  const { store } = new StoreCluster();
  await store.update((tx) => tx.put("resource", item("a", "1")), by);
  const watch = store.watch({
    kinds: ["resource"],
    filter: (change) =>
      change.kind === "resource" &&
      change.before?.kind === "item" &&
      Buffer.from(change.after?.payload ?? []).toString() === "3",
  });
  assert.equal(watch.poll()?.kind, "view");
  let woken = 0;
  watch.poll();
  watch.whenReady(() => woken++);
  await store.update((tx) => tx.create("extension", { id: "e" }), by);
  await turn();
  assert.equal(woken, 0);
  for (const value of ["2", "3", "4"]) await store.update((tx) => tx.put("resource", item("a", value)), by);
  await turn();
  assert.equal(woken, 1);
  const event = watch.poll();
  assert.ok(event?.kind === "changes" && event.changes.length === 1);
});
