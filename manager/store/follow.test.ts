import assert from "node:assert/strict";
import { test } from "node:test";

import { by, item, StoreCluster, turn } from "../../test/support/store-cluster.ts";
import { follow, inSlices, type ClusterSchema, type WatchEvent } from "./index.ts";

/** Turns that were asked for, run one by one. */
class Turns {
  readonly waiting: (() => void)[] = [];
  readonly later = (act: () => void): void => void this.waiting.push(act);

  next(): void {
    this.waiting.shift()?.();
  }
}

async function filled(count: number): Promise<StoreCluster> {
  const cluster = new StoreCluster();
  await cluster.store.update((tx) => {
    for (let at = 0; at < count; at++) tx.create("resource", item(`id-${String(at).padStart(5, "0")}`, "x"));
  }, by);
  return cluster;
}

/** Notes ids as they are read, and "." where all is read. */
function reader(seen: string[]): (event: WatchEvent<ClusterSchema>) => Iterator<void> | void {
  return (event) => {
    if (event.kind === "view") return inSlices(event.view.list("resource"), ({ id }) => void seen.push(id));
    for (const { id } of event.changes) seen.push(id);
    return undefined;
  };
}

test("a long view is read over several turns, and nothing else is heard before it is", async () => {
  const { store } = await filled(1200);
  const turns = new Turns();
  const seen: string[] = [];
  const watch = store.watch({ kinds: ["resource"] });
  const follower = follow(watch, reader(seen), () => void seen.push("."), turns.later);
  assert.equal(seen.length, 500);
  await store.update((tx) => tx.create("resource", item("new", "x")), by);
  await turn();
  assert.equal(seen.length, 500, "the change waits");
  assert.equal(follower.catchUp(), false);
  turns.next();
  assert.equal(seen.length, 1000);
  turns.next();
  assert.deepEqual(seen.slice(1198), ["id-01198", "id-01199", "new", "."]);
  assert.equal(turns.waiting.length, 0);
  await store.update((tx) => tx.create("resource", item("newer", "x")), by);
  await turn();
  assert.deepEqual(seen.slice(-2), ["newer", "."]);
  assert.equal(follower.catchUp(), true);
  watch.close();
});

test("many changes are read over several turns, in order, and all of them before the reader acts", async () => {
  const { store } = await filled(0);
  const turns = new Turns();
  const seen: string[] = [];
  const watch = store.watch({ kinds: ["resource"] });
  follow(watch, reader(seen), () => void seen.push("."), turns.later);
  await turn();
  seen.length = 0;
  const writes = Array.from({ length: 10 }, (_, at) =>
    store.update((tx) => {
      for (let count = 0; count < 900; count++) tx.put("resource", item(`${at}/${count}`, "x"));
    }, by),
  );
  await Promise.all(writes);
  await turn();
  while (turns.waiting.length > 0) {
    assert.ok(!seen.includes("."));
    turns.next();
  }
  assert.equal(seen.length, 9001);
  assert.equal(seen.indexOf("."), 9000);
  assert.equal(seen[8999], "9/899");
  watch.close();
});

test("a reader that stops in the middle of a view hears nothing more", async () => {
  const { store } = await filled(1200);
  const turns = new Turns();
  const seen: string[] = [];
  const watch = store.watch({ kinds: ["resource"] });
  follow(watch, reader(seen), () => void seen.push("."), turns.later);
  watch.close();
  turns.next();
  assert.equal(seen.length, 500);
  assert.equal(turns.waiting.length, 0);
});

test("without turns of its own a reader reads all at once", async () => {
  const { store } = await filled(1200);
  const seen: string[] = [];
  const watch = store.watch({ kinds: ["resource"] });
  follow(watch, reader(seen), () => void seen.push("."));
  assert.equal(seen.length, 1201);
  watch.close();
});
