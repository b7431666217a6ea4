/** Scenarios G, the core's part: when snapshots are offered and taken, and what is compacted (Raft thesis §5.1). */
import assert from "node:assert/strict";
import test from "node:test";
import {
  type InitialState,
  RaftInvariantError,
  type SnapshotRequest,
  bootstrapState,
  isLogSuperseded,
} from "../../manager/raft/core/index.ts";
import { Lone, append } from "../support/raft-lone.ts";
import { RaftNetwork, bytesOf, logState, logTerms } from "../support/raft-network.ts";

const T = 10;
const H = 1;
const fast = { electionTicks: T, heartbeatTicks: H };
const { conf } = bootstrapState([1, 2, 3]).snapshot;

const offer = (index: number, term: number, messageTerm = term, from = 2): SnapshotRequest => ({
  type: "snapshot",
  from,
  to: 1,
  term: messageTerm,
  meta: { index, term, conf },
});

/** A leader with 20 entries, compacted to 15; n3 has only the first ones. */
function behind(): RaftNetwork {
  const net = new RaftNetwork({ voters: [1, 2, 3], config: fast });
  net.elect(1);
  net.run(1);
  net.isolate(3);
  for (let at = 0; at < 18; at++) net.propose(1, `v${at}`);
  net.settle();
  net.run(1);
  net.snapshot(1);
  net.compact(1, 15);
  net.heal();
  return net;
}

test("G1: a follower behind the first index gets a snapshot and no appends meanwhile, then goes on behind it", () => {
  const net = behind();
  net.propose(1, "later");
  net.tick(1, H);
  net.settleOnly(({ type }) => type !== "snapshot");
  const progress = () => net.core(1).status().peers.get(3);
  assert.deepEqual([progress()?.state, progress()?.paused], ["snapshot", true]);
  const appends = () => net.sent(1).filter(({ type, to }) => type === "append" && to === 3).length;
  const before = appends();
  net.propose(1, "much later");
  for (let at = 0; at < 5; at++) {
    net.tick(1);
    net.settleOnly(({ type }) => type !== "snapshot");
  }
  assert.equal(appends(), before);
  net.settle();
  net.run(2);
  assert.equal(progress()?.state, "replicate");
  assert.deepEqual(net.state(3), net.state(1));
  assert.deepEqual([net.core(3).status().firstIndex, net.disk(3).snapshot.index], [21, 20]);
});

test("G1: nothing is sent to a follower that answers nothing, not even a snapshot", () => {
  const net = behind();
  net.crash(3);
  net.run(2 * T);
  const before = net.sent(1).filter(({ type }) => type === "snapshot").length;
  net.run(5 * T);
  assert.equal(net.sent(1).filter(({ type }) => type === "snapshot").length, before);
  net.restart(3);
  net.run(3 * T);
  assert.deepEqual(net.state(3), net.state(1));
});

test("G2: a snapshot at exactly the leader's last index", () => {
  const net = new RaftNetwork({ voters: [1, 2, 3], config: fast });
  net.elect(1);
  net.run(1);
  net.isolate(3);
  net.propose(1, "a", "b");
  net.settle();
  net.run(1);
  const meta = net.snapshot(1);
  net.compact(1, meta?.index ?? 0);
  assert.equal(meta?.index, net.core(1).status().lastIndex);
  net.heal();
  net.run(3);
  assert.deepEqual(net.state(3), ["a", "b"]);
  assert.equal(net.core(1).status().peers.get(3)?.state, "replicate");
  net.propose(1, "c");
  net.settle();
  net.run(1);
  assert.deepEqual(net.state(3), ["a", "b", "c"]);
});

test("G2: an acknowledgement behind the snapshot on its way, but joining the log, is enough to go on", () => {
  const net = behind();
  net.tick(1, H);
  net.settleOnly(({ type }) => type !== "snapshot");
  const { peers, firstIndex, term } = net.core(1).status();
  assert.equal(peers.get(3)?.state, "snapshot");
  // It got entries some other way, up to just before the log of this leader.
  net.checking = false;
  net.step({
    type: "appendResponse",
    from: 3,
    to: 1,
    term,
    index: firstIndex - 1,
    rejected: false,
    hintIndex: 0,
    hintTerm: 0,
  });
  assert.deepEqual(
    [net.core(1).status().peers.get(3)?.state, net.core(1).status().peers.get(3)?.match],
    ["replicate", firstIndex - 1],
  );
});

test("G2: a snapshot older than the follower's commit is ignored and answered with its commit", () => {
  const lone = new Lone(logState([1, 2, 3], [1, 1, 2, 2], { commit: 3 }), fast);
  lone.step(offer(2, 1, 2));
  assert.deepEqual(
    lone.take("appendResponse").map(({ index, rejected }) => [index, rejected]),
    [[3, false]],
  );
  assert.deepEqual(logTerms(lone.core), [1, 1, 2, 2]);
  assert.ok(lone.readies.every(({ snapshot }) => snapshot === undefined));
});

test("G3: a snapshot whose entry the follower has moves only its commit; the log stays", () => {
  const lone = new Lone(logState([1, 2, 3], [1, 1, 2, 2, 2], { commit: 1 }), fast);
  lone.step(offer(4, 2));
  assert.deepEqual([lone.status.commit, logTerms(lone.core)], [4, [1, 1, 2, 2, 2]]);
  assert.deepEqual(
    lone.take("appendResponse").map(({ index }) => index),
    [4],
  );
  assert.ok(lone.readies.every(({ snapshot }) => snapshot === undefined));
});

test("G4: after a failure the leader waits: at most one attempt in 2H, ever fewer, and at last one in 30 s", () => {
  const ticks = 3_000;
  const net = behind();
  // 1,200 ticks of 25 ms are 30 s.
  const attempts: number[] = [];
  let now = 0;
  net.filter = ({ type }) => type !== "snapshot";
  for (now = 0; now < ticks; now++) {
    const before = net.sent(1).filter(({ type }) => type === "snapshot").length;
    net.run(1);
    const sent = net.sent(1).filter(({ type }) => type === "snapshot").length - before;
    assert.ok(sent <= 1, "no tight loop");
    if (sent > 0) attempts.push(now);
  }
  const pauses = attempts.slice(1).map((at, i) => at - (attempts[i] ?? 0));
  assert.ok(attempts.length > 8, `${attempts.length} attempts`);
  assert.ok(
    pauses.every((pause) => pause >= 2 * H),
    pauses.join(" "),
  );
  for (let at = 1; at < pauses.length; at++)
    assert.ok((pauses[at] ?? 0) >= (pauses[at - 1] ?? 0) || (pauses[at] ?? 0) >= 1_200);
  assert.ok((pauses.at(-1) ?? 0) >= 600 && Math.max(...pauses) <= 1_200 + 2 * H, pauses.join(" "));
  net.filter = () => true;
  net.run(1_300);
  assert.deepEqual(net.state(3), net.state(1));
});

test("G6: a snapshot takes effect when it is installed: no answer, nothing applied and no commit handed out before", () => {
  const lone = new Lone(logState([1, 2, 3], [1, 1], { commit: 1 }), fast);
  lone.take();
  lone.holdDisk = true;
  lone.step(offer(9, 3));
  lone.step(append({ from: 2, term: 3, prevIndex: 9, prevTerm: 3, commit: 10 }, 3));
  assert.deepEqual([lone.take(), lone.status.applied, lone.status.commit], [[], 1, 10]);
  assert.equal(lone.core.appliedMeta(), undefined, "no snapshot of its own meanwhile");
  lone.persist();
  assert.deepEqual([lone.status.applied, lone.status.durableIndex], [10, 10]);
  assert.deepEqual(
    lone.take("appendResponse").map(({ index }) => index),
    [9, 10],
  );
});

test("G6: a newer snapshot that arrives while one is being installed is installed after it", () => {
  const lone = new Lone(logState([1, 2, 3], [1, 1], { commit: 1 }), fast);
  lone.take();
  lone.holdDisk = true;
  lone.step(offer(9, 3), offer(20, 4));
  assert.deepEqual(
    lone.held.map(({ snapshot }) => snapshot?.index),
    [9, 20],
  );
  lone.persist(1);
  assert.deepEqual([lone.status.applied, lone.status.commit], [9, 20]);
  lone.persist();
  assert.deepEqual([lone.status.applied, lone.status.durableIndex], [20, 20]);
});

test("G6: after a crash between snapshot and log the snapshot wins over a log that ends before it or differs", () => {
  const snapshot = { index: 5, term: 3, conf };
  const start = (initial: InitialState): Lone => new Lone(initial, fast);
  const short = { ...logState([1, 2, 3], [1, 1, 2], { term: 3, commit: 2 }), snapshot, applied: 5 };
  const differs = { ...logState([1, 2, 3], [1, 1, 2, 2, 2, 2], { term: 3, commit: 2 }), snapshot, applied: 5 };
  const agrees = { ...logState([1, 2, 3], [1, 1, 2, 2, 3, 3], { term: 3, commit: 2 }), snapshot, applied: 5 };
  for (const initial of [short, differs]) {
    assert.equal(isLogSuperseded(initial), true);
    const { firstIndex, lastIndex, commit } = start(initial).status;
    assert.deepEqual([firstIndex, lastIndex, commit], [6, 5, 5]);
  }
  assert.equal(isLogSuperseded(agrees), false);
  const { firstIndex, lastIndex, commit } = start(agrees).status;
  assert.deepEqual(
    [firstIndex, lastIndex, commit],
    [2, 6, 5],
    "trailing entries are kept; the first serves as boundary",
  );
});

test("G10: of entries that let the 5,000 rule bind, a follower 4,000 behind is served from the log, one 6,000 behind not", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]), {
    ...fast,
    maxUncommittedEntries: 100_000,
    maxUncommittedBytes: 2 ** 30,
    maxInflightBytes: 2 ** 40,
  });
  // 4 KiB each: 5,000 of them are more than 16 MiB.
  const data = new Uint8Array(4096);
  for (let at = 0; at < 100; at++) {
    assert.ok(lone.do((core) => core.propose(Array.from({ length: 200 }, () => data))).accepted);
    lone.ack(2);
  }
  const { applied } = lone.status;
  assert.equal(applied, 20_002);
  const meta = lone.core.appliedMeta();
  assert.ok(meta !== undefined);
  lone.core.snapshotCreated(meta);
  const index = lone.core.compactionIndex();
  assert.equal(index, applied - 5_000);
  assert.ok(applied - 4_000 > index && applied - 6_000 < index);
  lone.core.compact(index);
  assert.equal(lone.status.firstIndex, index + 1);
  // Small entries: 16 MiB bind, not the count; nothing may go yet.
  const small = Lone.leader(bootstrapState([1]), { ...fast, maxUncommittedEntries: 100_000 });
  small.do((core) => core.propose(Array.from({ length: 20_000 }, () => new Uint8Array(10))));
  const smallMeta = small.core.appliedMeta();
  assert.ok(smallMeta !== undefined);
  small.core.snapshotCreated(smallMeta);
  assert.equal(small.core.compactionIndex(), 1);
});

test("G10: a live follower inside the extension window is not cut off; a dead one, or one beyond it, is", () => {
  const policy = { trailingEntries: 10, trailingBytes: 0, extensionBytes: 16 * 100 + 1_000 };
  const lone = Lone.leader(bootstrapState([1, 2, 3]), fast);
  lone.do((core) => core.propose(Array.from({ length: 100 }, () => new Uint8Array(10))));
  lone.ack(2).ack(3, 52);
  const meta = lone.core.appliedMeta();
  assert.ok(meta !== undefined && meta.index === 102);
  lone.core.snapshotCreated(meta);
  assert.equal(lone.core.compactionIndex(policy), 52, "50 entries of 26 bytes are within it");
  assert.equal(lone.core.compactionIndex({ ...policy, extensionBytes: 1_000 }), 92, "more than it allows");
  for (let at = 0; at < T; at++) {
    lone.tick();
    lone.beat(2, at + 1);
  }
  assert.equal(lone.status.peers.get(3)?.recentActive, false);
  assert.equal(lone.core.compactionIndex(policy), 92);
});

test("G12: compaction between the building of two appends leaves no gap: what is gone goes by snapshot", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]), { ...fast, maxEntriesPerMsgBytes: 60, maxInflightMsgs: 2 });
  lone.take();
  lone.ack(2).ack(3);
  lone.do((core) => core.propose(Array.from({ length: 30 }, (_, at) => bytesOf(`v${at}`))));
  const appends = lone.take("append").filter(({ to }) => to === 3);
  assert.ok(appends.length > 0 && appends.every(({ entries }) => entries.length < 10));
  for (let at = 0; at < 30; at++) lone.ack(2, Math.min(lone.status.lastIndex, 2 + 3 * at));
  assert.equal(lone.status.applied, 32);
  const meta = lone.core.appliedMeta();
  assert.ok(meta !== undefined);
  lone.core.snapshotCreated(meta);
  lone.take();
  lone.do((core) => core.compact(32));
  const sent = lone.take().filter(({ to, type }) => to === 3 && type !== "heartbeat");
  assert.deepEqual(
    sent.map(({ type }) => type),
    ["snapshot"],
  );
  assert.throws(() => lone.core.compact(33), RaftInvariantError);
});

test("G13: of two leaders' snapshots the one of the later term is taken; the other is told the term", () => {
  const lone = new Lone(logState([1, 2, 3], [1], { term: 3 }), fast);
  lone.step(offer(9, 5, 5, 3));
  lone.take();
  lone.step(offer(12, 3, 4, 2));
  const [answer] = lone.take("appendResponse");
  assert.deepEqual([answer?.to, answer?.term, answer?.rejected], [2, 5, true]);
  assert.deepEqual([lone.status.lastIndex, lone.status.leader], [9, 3]);
  lone.step(offer(12, 6, 6, 2));
  assert.deepEqual([lone.status.lastIndex, lone.status.leader], [12, 2]);
});

test("G11: a snapshot carries the configuration as of its index, and a joiner outside it takes it all the same", () => {
  const net = new RaftNetwork({ voters: [1, 2, 3], config: fast });
  net.elect(1);
  net.propose(1, "a");
  net.settle();
  net.run(1);
  const meta = net.snapshot(1);
  net.add(4, {
    hardState: { term: 0, vote: 0, commit: 0 },
    snapshot: { index: 0, term: 0, conf: { ...conf, voters: [] } },
    entries: [],
    applied: 0,
  });
  net.proposeConf(1, { steps: [{ act: "addLearner", member: 4 }] });
  net.settle();
  net.run(5);
  assert.deepEqual(meta?.conf.learners, []);
  const offered = net.sent(1).findLast((message) => message.type === "snapshot");
  assert.deepEqual(offered?.type === "snapshot" && offered.meta.conf.learners, []);
  assert.deepEqual(net.core(4).status().conf.learners, [4], "the entry after it brought the change");
  assert.deepEqual(net.state(4), ["a"]);
});
