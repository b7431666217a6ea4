/** Test catalogue L1-L3 and G11 at the level of the state machine: requests of a session take effect once. */
import { test } from "node:test";
import assert from "node:assert/strict";
import {
  Conflict,
  NameInUse,
  OutcomeUnknown,
  SessionExpired,
  SessionLimit,
  SessionStale,
  type Committed,
} from "../../manager/store/index.ts";
import { Random } from "../../lib/pure/prng.ts";
import { by, item, StoreCluster, turn, valueOf, type Member } from "../support/store-cluster.ts";

const ttlMs = 60_000;

/** Adds one to a counter, and replies with what it is then. */
async function increment(
  member: Member,
  request: { readonly id: string; readonly seq: number; readonly ackedBelow: number },
): Promise<Committed<unknown>> {
  return member.store.update(
    (tx) => {
      const next = String(Number(valueOf(tx, "counter") ?? 0) + 1);
      tx.put("resource", item("counter", next));
      return Buffer.from(next);
    },
    { ...by, session: request },
  );
}

for (let seed = 1; seed <= 20; seed++) {
  test(`L1: requests retried across crashes, lost answers and new leaders take effect once (seed ${seed})`, async () => {
    const random = new Random(seed);
    const cluster = new StoreCluster({ members: 3, auto: false });
    const { group } = cluster;
    const opened = cluster.store.openSession({ ttlMs });
    group.deliver();
    const id = await opened;
    let leader = cluster.first;
    const firstReplies: string[] = [];
    for (let seq = 1; seq <= 30; seq++) {
      for (;;) {
        const attempt = increment(leader, { id, seq, ackedBelow: seq }).then(
          ({ reply }) => Buffer.from(reply!).toString(),
          (error: unknown) => {
            assert.ok(error instanceof OutcomeUnknown || error instanceof Conflict, String(error));
            return undefined;
          },
        );
        switch (random.int(0, 6)) {
          case 0: // The answer is lost.
            group.deliverUnanswered();
            break;
          case 1: // The entry is lost.
            group.refuse({ kind: "unknown", cause: "lost" });
            break;
          case 2: // The leader changes before anything is decided.
            leader = random.pick(cluster.members);
            group.elect(leader.log);
            break;
          case 3: {
            // The leader dies after the commit; a new one starts from a snapshot of another member.
            group.deliverUnanswered();
            leader = cluster.join(random.pick(cluster.members));
            group.elect(leader.log);
            break;
          }
          default:
            group.deliver();
        }
        await turn();
        const reply = await attempt;
        if (reply === undefined) continue;
        firstReplies.push(reply);
        break;
      }
      // Repeating the last request, as a client that crashed may, gives the first answer.
      const again = increment(leader, { id, seq, ackedBelow: seq });
      group.deliver();
      const { reply, repeated } = await again;
      assert.deepEqual([repeated, Buffer.from(reply!).toString()], [true, firstReplies.at(-1)]);
    }
    assert.deepEqual(
      firstReplies,
      Array.from({ length: 30 }, (_, at) => String(at + 1)),
    );
    const hashes = new Set(cluster.members.map(({ store }) => store.machine.stateHash()));
    assert.equal(hashes.size, 1);
  });
}

test("L1: a request that is repeated while the first is under way gets the answer of the first", async () => {
  for (const sees of ["its own write", "a creation", "a removal"] as const) {
    const cluster = new StoreCluster({ auto: false });
    const { store, group } = cluster;
    const opened = store.openSession({ ttlMs });
    const created = store.update((tx) => tx.put("resource", item("k", "1")), by);
    group.deliver();
    const [id, { index }] = await Promise.all([opened, created]);
    const ask = (): Promise<Committed<unknown>> =>
      store.update(
        (tx) => {
          if (sees === "a creation") tx.create("resource", item("new", "2"));
          else tx.expectVersion("resource", "k", index);
          if (sees === "a removal") tx.remove("resource", "k");
          else if (sees === "its own write") tx.put("resource", item("k", "2"));
          return Buffer.from("did it");
        },
        { ...by, session: { id, seq: 1, ackedBelow: 1 } },
      );
    const first = ask();
    // The client heard nothing and asks again; the condition holds no more, because of its own first request.
    const again = ask();
    group.deliver();
    group.deliver();
    const answers = await Promise.all([first, again]);
    assert.deepEqual(
      answers.map(({ reply }) => Buffer.from(reply!).toString()),
      ["did it", "did it"],
      sees,
    );
    assert.deepEqual(
      answers.map(({ repeated }) => repeated),
      [false, true],
    );
    assert.equal(answers[0].index, answers[1].index);
  }
});

test("L1: a request without conditions that is repeated while the first is under way takes effect once", async () => {
  const cluster = new StoreCluster({ members: 2, auto: false });
  const { group, first: member } = cluster;
  const opened = cluster.store.openSession({ ttlMs });
  group.deliver();
  const session = { id: await opened, seq: 1, ackedBelow: 1 };
  const answers = Promise.all([increment(member, session), increment(member, session), increment(member, session)]);
  group.deliver();
  assert.deepEqual(
    (await answers).map(({ reply }) => Buffer.from(reply!).toString()),
    ["1", "1", "1"],
  );
  for (const { store } of cluster.members) assert.equal(valueOf(store.current(), "counter"), "1");
});

test("L1: a refusal is a result too, and repeated as such", async () => {
  const cluster = new StoreCluster({ members: 2, auto: false });
  const [first, second] = cluster.members;
  const opened = cluster.store.openSession({ ttlMs });
  cluster.group.deliver();
  const session = { id: await opened, seq: 1, ackedBelow: 1 };
  // Two leaders give the same name in turn; the second one's entry comes first.
  const name = { name: "n" };
  const late = first!.store.update((tx) => tx.create("resource", item("a", "1", name)), { ...by, session });
  const held = cluster.group.hold();
  cluster.group.elect(second!.log);
  const early = second!.store.update((tx) => tx.create("resource", item("b", "1", name)), by);
  cluster.group.deliver();
  await early;
  cluster.group.replay(held);
  await assert.rejects(late, OutcomeUnknown);
  // The name is free again, and yet the request has had its answer.
  const removed = second!.store.update((tx) => tx.remove("resource", "b"), by);
  cluster.group.deliver();
  await removed;
  for (const { store, log } of cluster.members) {
    cluster.group.elect(log);
    const again = store.update((tx) => tx.create("resource", item("a", "1", name)), { ...by, session });
    await assert.rejects(again, NameInUse);
  }
});

test("L2: a session expires by the log's time alone, on all members alike, and is then refused", async () => {
  const cluster = new StoreCluster({ members: 2 });
  const id = await cluster.store.openSession({ ttlMs });
  await increment(cluster.first, { id, seq: 1, ackedBelow: 1 });
  // The wall clock alone changes nothing: no entry has brought the news.
  cluster.nowUs += ttlMs * 1000 - 10;
  await cluster.store.keepSession(id);
  cluster.nowUs += ttlMs * 1000 - 10;
  await increment(cluster.first, { id, seq: 2, ackedBelow: 2 });
  cluster.nowUs += ttlMs * 1000 + 10;
  // No entry has brought the new time yet, so the reply is still there.
  const { repeated } = await increment(cluster.first, { id, seq: 2, ackedBelow: 2 });
  assert.equal(repeated, true);
  await cluster.store.update((tx) => tx.put("resource", item("tick", "1")), by);
  await assert.rejects(increment(cluster.first, { id, seq: 2, ackedBelow: 2 }), SessionExpired);
  assert.equal(valueOf(cluster.store.current(), "counter"), "2");
  await assert.rejects(cluster.store.keepSession(id), SessionExpired);
  await assert.rejects(cluster.store.closeSession(id), SessionExpired);
  const [first, second] = cluster.members;
  assert.equal(first!.store.machine.stateHash(), second!.store.machine.stateHash());
});

test("L2: the wall clocks of later leaders do not matter: time goes on from the log", async () => {
  const cluster = new StoreCluster({ members: 2 });
  const id = await cluster.store.openSession({ ttlMs });
  cluster.nowUs -= 10 * ttlMs * 1000;
  cluster.group.elect(cluster.members[1]!.log);
  await increment(cluster.members[1]!, { id, seq: 1, ackedBelow: 1 });
  assert.equal(valueOf(cluster.store.current(), "counter"), "1");
});

test("L2: sessions, replies and their size are bounded, and freed again", async () => {
  const cluster = new StoreCluster({ limits: { sessionsMax: 3, repliesMax: 2, replyBytesMax: 8 } });
  const { store } = cluster;
  const [id = ""] = await Promise.all([1, 2, 3].map(() => store.openSession({ ttlMs })));
  await assert.rejects(store.openSession({ ttlMs }), SessionLimit);
  await increment(cluster.first, { id, seq: 1, ackedBelow: 1 });
  await increment(cluster.first, { id, seq: 2, ackedBelow: 1 });
  await assert.rejects(increment(cluster.first, { id, seq: 3, ackedBelow: 1 }), SessionLimit);
  await increment(cluster.first, { id, seq: 3, ackedBelow: 3 });
  await assert.rejects(increment(cluster.first, { id, seq: 2, ackedBelow: 1 }), SessionStale);
  await assert.rejects(
    store.update(() => Buffer.alloc(9), { ...by, session: { id, seq: 4, ackedBelow: 4 } }),
    SessionLimit,
  );
  assert.equal(valueOf(store.current(), "counter"), "3");
  await store.closeSession(id);
  const fourth = await store.openSession({ ttlMs });
  cluster.nowUs += ttlMs * 1000 * 2;
  await store.update((tx) => tx.put("resource", item("tick", "1")), by);
  await Promise.all([1, 2, 3].map(() => store.openSession({ ttlMs })));
  await assert.rejects(store.keepSession(fourth), SessionExpired);
});

for (let seed = 1; seed <= 20; seed++) {
  test(`B10, L3: what is acknowledged is seen by every later read; what is unknown happened at most once (seed ${seed})`, async () => {
    const random = new Random(seed);
    const cluster = new StoreCluster({ members: 3, auto: false });
    const { group } = cluster;
    const acknowledged = new Set<string>();
    const unknown = new Set<string>();
    let leader = cluster.first;
    for (let at = 0; at < 60; at++) {
      const id = `k${at}`;
      const update = leader.store
        .update((tx) => tx.create("resource", item(id, "1")), by)
        .then(
          () => acknowledged.add(id),
          () => unknown.add(id),
        );
      const fate = random.int(0, 5);
      if (fate === 0) group.deliverUnanswered();
      else if (fate === 1) group.refuse({ kind: "unknown", cause: "lost" });
      else if (fate === 2) {
        leader = random.pick(cluster.members);
        group.elect(leader.log);
      } else group.deliver();
      await update;
      const reader = random.pick(cluster.members);
      await reader.store.read((view) => {
        for (const each of acknowledged) assert.ok(view.has("resource", each), each);
      });
    }
    const changes = new Map<string, number>();
    for (const { id } of cluster.store.current().list("resource")) changes.set(id, (changes.get(id) ?? 0) + 1);
    for (const [id, count] of changes) {
      assert.equal(count, 1);
      assert.ok(acknowledged.has(id) || unknown.has(id));
    }
    assert.equal(acknowledged.size + unknown.size, 60);
  });
}

test("G11: a snapshot carries sessions with their replies, members, feature level and the log's time", async () => {
  const cluster = new StoreCluster({ supportedLevel: 2 });
  const { store } = cluster;
  await store.reportMember({ member: 1, level: 2 });
  await store.raiseLevel(2);
  const id = await store.openSession({ ttlMs });
  await increment(cluster.first, { id, seq: 1, ackedBelow: 1 });
  const restored = cluster.join(cluster.first);
  assert.equal(restored.store.featureLevel, 2);
  assert.equal(restored.store.machine.stateHash(), store.machine.stateHash());
  assert.equal(restored.store.current().timeUs, store.current().timeUs);
  cluster.group.elect(restored.log);
  const { reply, repeated } = await increment(restored, { id, seq: 1, ackedBelow: 1 });
  assert.deepEqual([repeated, Buffer.from(reply!).toString()], [true, "1"]);
  await assert.rejects(restored.store.raiseLevel(3));
});
