/** Scenarios H: linearizable reads (Raft thesis §6.4). */
import assert from "node:assert/strict";
import test from "node:test";
import { type CoreConfig, bootstrapState, emptyConf, joinerState } from "../../manager/raft/core/index.ts";
import { Lone, heartbeat } from "../support/raft-lone.ts";
import { RaftNetwork, logState } from "../support/raft-network.ts";

const T = 10;
const fast = { electionTicks: T, heartbeatTicks: 1 };

function group(config: Partial<CoreConfig> = {}, voters = [1, 2, 3]): RaftNetwork {
  const net = new RaftNetwork({ voters, config: { ...fast, ...config } });
  // Under leases a member grants nothing for its first T ticks.
  if (config.readMode === "lease") for (const id of voters) net.tick(id, T);
  net.queue = [];
  net.elect(voters[0] ?? 0);
  net.run(2);
  return net;
}

test("H1: a read on the leader waits for a round of heartbeats that began after it, and for its index to be applied", () => {
  const net = group();
  net.propose(1, "a");
  net.settle();
  net.tick(1);
  const before = net.take(({ type }) => type === "heartbeat");
  net.input(1, (core) => core.readIndex(7));
  const after = net.take(({ type }) => type === "heartbeat");
  assert.equal(after.length, 2);
  for (const message of before) net.deliver(message);
  net.settle();
  assert.deepEqual(net.reads(1), [], "answers to an earlier round prove nothing");
  net.deliver(after[0] as never);
  net.settle();
  assert.deepEqual(net.reads(1), [{ requestId: 7, index: 3, lease: false, applied: 3 }]);
});

test("H2: a new leader does not answer before an entry of its own term is committed", () => {
  const lone = Lone.leader(logState([1, 2, 3], [1, 1], { commit: 1 }), fast);
  lone.do((core) => core.readIndex(1));
  lone.tick();
  lone.beat(2, 1).beat(3, 1);
  assert.ok(lone.readies.every(({ readStates }) => readStates.length === 0));
  lone.ack(2);
  lone.beat(2, 1);
  assert.ok(
    lone.readies.every(({ readStates }) => readStates.length === 0),
    "a round from before the commit",
  );
  lone.beat(2, 2);
  assert.deepEqual(
    lone.readies.flatMap(({ readStates }) => readStates),
    [{ requestId: 1, index: 3, lease: false }],
  );
});

test("H3: a deposed leader that does not know it answers nothing; when it learns it, its reads fail", () => {
  const net = group();
  net.isolate(1);
  net.input(1, (core) => core.readIndex(1));
  for (let at = 0; at < 4 * T && net.leader() === 1; at++) {
    for (const id of [2, 3]) net.tick(id);
    net.settle();
  }
  const next = net.leader();
  assert.notEqual(next, 1);
  net.propose(next, "new");
  net.settle();
  assert.deepEqual([net.reads(1), net.readFailures(1)], [[], []]);
  net.heal();
  net.run(2);
  assert.deepEqual([net.reads(1), net.readFailures(1)], [[], [1]]);
});

test("H4: a read on a follower goes to the leader and is served when applied there", () => {
  const net = group();
  net.propose(1, "a");
  net.settle();
  net.pauseApply(2);
  net.input(2, (core) => core.readIndex(5));
  net.settle();
  const [read] = net.reads(2);
  assert.deepEqual([read?.requestId, read?.index], [5, 3]);
  const refused = new Lone(bootstrapState([1, 2, 3]), fast).core.readIndex(1);
  assert.deepEqual(refused, { accepted: false, refusal: { code: "RAFT_NOT_LEADER", leader: 0 } });
});

test("H4: a lost request times out; a late answer to it never completes a newer one", () => {
  const lone = new Lone(bootstrapState([1, 2, 3]), fast);
  lone.step(heartbeat({ from: 2, term: 2 }));
  const answers = (): unknown[] => lone.readies.flatMap(({ readStates }) => readStates);
  const failures = (): unknown[] => lone.readies.flatMap(({ readFailures }) => readFailures);
  assert.ok(lone.do((core) => core.readIndex(1)).accepted);
  for (let at = 0; at < T; at++) lone.tick().step(heartbeat({ from: 2, term: 2 }));
  assert.deepEqual(failures(), [1]);
  assert.ok(lone.do((core) => core.readIndex(2)).accepted);
  const answer = (requestId: number, index: number, refused = false): void => {
    lone.step({ type: "readIndexResponse", from: 2, to: 1, term: 2, requestId, index, refused });
  };
  answer(1, 1);
  assert.deepEqual(answers(), []);
  answer(2, 1);
  answer(2, 9);
  assert.deepEqual(answers(), [{ requestId: 2, index: 1, lease: false }], "once");
  assert.ok(lone.do((core) => core.readIndex(3)).accepted);
  answer(3, 0, true);
  assert.deepEqual(failures(), [1, 3]);
  assert.ok(lone.do((core) => core.readIndex(4)).accepted);
  lone.step(heartbeat({ from: 3, term: 3 }));
  assert.deepEqual(failures(), [1, 3, 4], "the leader it was asked of is gone");
});

test("H4: whoever does not lead says so, instead of passing the request on", () => {
  const lone = new Lone(bootstrapState([1, 2, 3]), fast);
  lone.step(heartbeat({ from: 2, term: 2 }));
  lone.take();
  lone.step({ type: "readIndex", from: 3, to: 1, term: 2, requestId: 8 });
  assert.deepEqual(
    lone.take("readIndexResponse").map(({ to, refused, requestId }) => [to, refused, requestId]),
    [[3, true, 8]],
  );
});

test("H4: late answers of older rounds complete nothing out of order, and rounds are never used twice", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3, 4, 5]), fast);
  lone.ack(2).ack(3).ack(4);
  lone.take();
  lone.do((core) => core.readIndex(1));
  lone.tick(); // round 2, with nothing that waits
  lone.do((core) => core.readIndex(2));
  lone.tick(); // round 3 takes the second read along
  const rounds = lone
    .take("heartbeat")
    .filter(({ to }) => to === 2)
    .map(({ round }) => round);
  assert.deepEqual(rounds, [1, 2, 3]);
  const answers = (): unknown[] =>
    lone.readies.flatMap(({ readStates }) => readStates.map(({ requestId }) => requestId));
  lone.beat(2, 3);
  lone.beat(2, 1);
  lone.beat(3, 1);
  assert.deepEqual(answers(), [1]);
  lone.beat(4, 2);
  assert.deepEqual(answers(), [1]);
  lone.beat(3, 3);
  assert.deepEqual(answers(), [1, 2]);
});

test("H4: the answer to a heartbeat of an older term confirms no round of the present one (random lives, seed 390)", () => {
  const net = group();
  // n1 leads in term 2 and sends round after round; one of them is late.
  net.run(5);
  net.tick(1);
  const [late] = net.take(({ type, to }) => type === "heartbeat" && to === 3);
  assert.ok(late !== undefined);
  net.settle();
  // It loses its office and wins it again in a later term.
  net.elect(2);
  net.elect(1);
  const { term } = net.core(1).status();
  net.isolate(1);
  net.input(1, (core) => core.readIndex(1));
  net.heal();
  net.deliver(late);
  const [answer] = net.take(({ from, type }) => from === 3 && type === "heartbeatResponse");
  assert.deepEqual([answer?.term, answer?.type === "heartbeatResponse" && answer.round], [term, 0]);
  net.deliver(answer as never);
  assert.deepEqual(net.reads(1), []);
});

test("H5: 1,000 reads at once take one round, and at most 3 if they come while rounds are under way", () => {
  const net = group();
  const rounds = (): number =>
    new Set(net.sent(1).map((message) => (message.type === "heartbeat" ? message.round : 0))).size;
  const before = rounds();
  for (let requestId = 0; requestId < 1_000; requestId++) net.core(1).readIndex(requestId);
  net.drain(1);
  net.settle();
  assert.equal(net.reads(1).length, 1_000);
  assert.equal(rounds() - before, 1);
  for (let requestId = 1_000; requestId < 2_000; requestId++) net.input(1, (core) => core.readIndex(requestId));
  net.settle();
  assert.equal(net.reads(1).length, 2_000);
  assert.ok(rounds() - before <= 1 + 3);
  assert.deepEqual(
    net.reads(1).map(({ requestId }) => requestId),
    Array.from({ length: 2_000 }, (_, at) => at),
  );
});

test("H6: while joint, both majorities must answer", () => {
  const conf = { ...emptyConf, voters: [1, 4, 5], votersOutgoing: [1, 2, 3] };
  const lone = Lone.leader(
    { hardState: { term: 1, vote: 0, commit: 1 }, snapshot: { index: 1, term: 1, conf }, entries: [], applied: 1 },
    fast,
  );
  for (const id of [2, 3, 4, 5]) lone.ack(id);
  lone.do((core) => core.readIndex(1));
  const done = (): boolean => lone.readies.some(({ readStates }) => readStates.length > 0);
  lone.beat(2, 1).beat(3, 1);
  assert.equal(done(), false, "one half is not enough");
  lone.beat(4, 1);
  assert.equal(done(), true);
});

test("H7: a lease ends 0.8 T after the round that confirmed it was sent, whatever came back late", () => {
  const net = group({ readMode: "lease" });
  assert.equal(net.core(1).leaseHolds(), true);
  net.tick(1);
  const beats = net.take(({ type }) => type === "heartbeat");
  net.cut(2, 1);
  net.cut(3, 1);
  const lasts = Math.floor(0.8 * T) - 1;
  for (let at = 1; at <= lasts - 1; at++) {
    net.tick(1);
    assert.equal(net.core(1).leaseHolds(), true, `tick ${at}`);
  }
  net.tick(1);
  net.tick(1);
  assert.equal(net.core(1).leaseHolds(), false);
  // The answer comes now; it speaks of the time when its round was sent.
  net.heal();
  net.queue = net.queue.filter(() => false);
  for (const message of beats) net.deliver(message);
  net.settle();
  assert.equal(net.core(1).leaseHolds(), false);
  net.run(1);
  assert.equal(net.core(1).leaseHolds(), true);
  net.input(1, (core) => core.readIndex(1));
  assert.deepEqual(
    net.reads(1).map(({ lease, index }) => [lease, index]),
    [[true, 2]],
  );
});

test("H7: with a follower's clock 20 % fast nobody is elected while the lease holds", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const net = new RaftNetwork({ voters: [1, 2, 3], config: { ...fast, readMode: "lease" }, seed });
    for (const id of net.ids) net.tick(id, T);
    net.queue = [];
    net.elect(1);
    net.run(2);
    net.isolate(1);
    let fastTicks = 0;
    for (let at = 0; at < 6 * T; at++) {
      net.tick(1);
      for (fastTicks += 1.2; fastTicks >= 1; fastTicks--) for (const id of [2, 3]) net.tick(id);
      net.settle();
      const other = net.leaders().some((id) => id !== 1);
      assert.ok(!(other && net.isUp(1) && net.core(1).leaseHolds()), `seed ${seed}, tick ${at}`);
    }
    assert.ok(net.leaders().some((id) => id !== 1));
  }
});

test("H7: a lease does not survive a transfer, and is not given by a member that has just started", () => {
  const net = group({ readMode: "lease" });
  net.filter = ({ type }) => type !== "timeoutNow";
  net.input(1, (core) => core.transferLeadership(2));
  net.settle();
  assert.equal(net.core(1).leaseHolds(), false);
  net.run(2 * T);
  assert.deepEqual([net.leader(), net.core(1).leaseHolds()], [1, false], "the message may still arrive");

  const started = new Lone(bootstrapState([1, 2, 3]), { ...fast, readMode: "lease" });
  const ask = (transfer: boolean): boolean => {
    started.take();
    started.step({
      type: "preVote",
      from: 2,
      to: 1,
      term: 5,
      lastIndex: 9,
      lastTerm: 4,
      transfer,
      commit: 0,
      commitTerm: 0,
    });
    return started.takeVotes().some(({ granted }) => granted);
  };
  started.core.setRandomizedElectionTimeout(2 * T);
  started.tick(T - 1);
  assert.equal(ask(false), false, "it may have promised a lease before it stopped");
  assert.equal(ask(true), true);
  started.tick(1);
  assert.equal(ask(false), true);
});

test("H8: a single voter answers at once; a learner may serve reads", () => {
  const alone = Lone.leader(bootstrapState([1]), fast);
  alone.do((core) => core.readIndex(1));
  assert.deepEqual(
    alone.readies.flatMap(({ readStates }) => readStates),
    [{ requestId: 1, index: 2, lease: false }],
  );

  const net = group();
  net.add(4, joinerState());
  net.proposeConf(1, { steps: [{ act: "addLearner", member: 4 }] });
  net.settle();
  net.propose(1, "a");
  net.settle();
  net.run(3);
  net.input(4, (core) => core.readIndex(1));
  net.settle();
  assert.deepEqual(
    net.reads(4).map(({ index, applied }) => [index, applied]),
    [[4, 4]],
  );
  assert.deepEqual(net.state(4), ["a"]);
});

test("H1: reads that wait are bounded; more are refused with a typed error", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]), { ...fast, maxPendingReads: 2 });
  assert.ok(lone.do((core) => core.readIndex(1)).accepted);
  assert.ok(lone.do((core) => core.readIndex(2)).accepted);
  const third = lone.core.readIndex(3);
  assert.ok(!third.accepted && third.refusal.code === "RAFT_BACKPRESSURE");
  lone.take();
  lone.step({ type: "readIndex", from: 2, to: 1, term: 2, requestId: 9 });
  assert.deepEqual(
    lone.take("readIndexResponse").map(({ refused }) => refused),
    [true],
  );
});

test("H1: a follower that lags behind its own read index waits: the index is what the leader had committed", () => {
  const net = group();
  net.filter = (message) => !(message.to === 3 && message.type === "append");
  net.propose(1, "a");
  net.settle();
  net.input(3, (core) => core.readIndex(1));
  net.settle();
  const [read] = net.reads(3);
  assert.ok(read !== undefined && read.index > read.applied);
});
