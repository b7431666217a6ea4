/** Scenarios E: log replication (Raft thesis §3.5, §3.6, §10.2). */
import assert from "node:assert/strict";
import test from "node:test";
import {
  type AppendRequest,
  MalformedMessage,
  type MemberId,
  type Message,
  RaftInvariantError,
  bootstrapState,
  coreDefaults,
} from "../../manager/raft/core/index.ts";
import { Lone, append, heartbeat } from "../support/raft-lone.ts";
import { RaftNetwork, bytesOf, logState, logTerms } from "../support/raft-network.ts";

const T = 10;
const fast = { electionTicks: T, heartbeatTicks: 1 };
const voters = [1, 2, 3];

test("E1: a proposal goes to all at once and is committed when durable on a quorum, with or without the leader", () => {
  for (const slow of [1, 3]) {
    const net = new RaftNetwork({ voters, config: fast });
    net.elect(1);
    net.pauseDisk(slow);
    net.pauseDisk(2);
    const { index } = net.propose(1, "a");
    assert.deepEqual(
      net.queue.filter(({ type }) => type === "append").map(({ to }) => to),
      [2, 3],
    );
    net.settle();
    assert.equal(net.core(1).status().commit, index - 1, "durable on one only");
    net.resumeDisk(2);
    net.settle();
    assert.equal(net.core(1).status().commit, index, slow === 1 ? "on the two followers" : "on the leader and one");
    // At the next append or heartbeat the followers know it.
    net.run(1);
    assert.deepEqual(net.state(2), ["a"]);
    // Nobody applies what its own disk does not have.
    assert.deepEqual(net.state(slow), []);
    net.resumeDisk(slow);
    net.run(1);
    assert.deepEqual(net.state(slow), ["a"]);
  }
});

test("E2: the leader sends before its own disk has it; if it dies first, the entry survives with the followers", () => {
  const net = new RaftNetwork({ voters, config: fast });
  net.elect(1);
  net.pauseDisk(1);
  net.propose(1, "a");
  net.settle();
  net.crash(1);
  assert.ok(net.run(6 * T, () => net.leader() !== 0));
  net.run(2);
  assert.deepEqual(net.state(net.leader()), ["a"]);
  net.restart(1);
  net.run(3);
  assert.deepEqual(net.state(1), ["a"]);
});

/** Figure 7 of the paper: the leader of term 8 and the six logs that its followers may have. */
const figure7: readonly (readonly number[])[] = [
  [1, 1, 1, 4, 4, 5, 5, 6, 6],
  [1, 1, 1, 4],
  [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
  [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
  [1, 1, 1, 4, 4, 4, 4],
  [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
];
const figure7Leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];

test("E3: every shape of figure 7 ends equal to the leader, with at most one rejection for each term in conflict and one", () => {
  for (const [at, follower] of figure7.entries()) {
    const net = new RaftNetwork({
      voters,
      config: fast,
      initial: new Map([
        [1, logState(voters, figure7Leader, { term: 7 })],
        // The vote that it needs comes from a member that is behind; the follower under test may be ahead.
        [2, logState(voters, [1, 1, 1], { term: 7 })],
        [3, logState(voters, follower, { term: 7 })],
      ]),
    });
    net.isolate(3);
    net.elect(1);
    net.heal();
    net.run(5);
    const expected = [...figure7Leader, 8];
    for (const id of voters) assert.deepEqual(logTerms(net.core(id)), expected, `shape ${at}, member ${id}`);
    const rejections = net.sent(3).filter((message) => message.type === "appendResponse" && message.rejected).length;
    let same = 0;
    while (same < follower.length && follower[same] === figure7Leader[same]) same++;
    const inConflict = new Set(follower.slice(same)).size;
    assert.ok(rejections <= inConflict + 1, `shape ${at}: ${rejections} rejections, ${inConflict} terms`);
  }
});

test("E4: figure 8: an entry of an old term is not committed by counting, and may be overwritten", () => {
  const five = [1, 2, 3, 4, 5];
  const play = (until: "overwritten" | "committed"): void => {
    const net = new RaftNetwork({ voters: five, config: { ...fast, preVote: false } });
    // (a) n1 leads in term 2 and replicates its second entry to n2 only.
    net.elect(1);
    net.filter = ({ type, to }) => !(type === "append" && to !== 2);
    const { index, term } = net.propose(1, "blue");
    net.settle();
    net.crash(1);
    // (b) n5 wins term 3 with the votes of n3, n4 and appends something else at the same index.
    net.filter = ({ type }) => type !== "append";
    for (const id of net.running) net.input(id, (core) => core.forgetLeader());
    net.input(5, (core) => core.campaign());
    net.settle();
    assert.equal(net.core(5).status().role, "leader");
    net.propose(5, "red");
    net.settle();
    assert.notEqual(net.core(5).termAt(index), term);
    net.crash(5);
    // (c) n1 is back, wins term 4 and brings its old entry to n3 as well: a majority has it, and it is not committed.
    net.restart(1);
    net.filter = ({ type, to }) => type !== "append" || to === 3;
    for (const id of net.running) net.input(id, (core) => core.forgetLeader());
    net.filter = (message) =>
      message.type !== "append" || (message.to === 3 && message.entries.every((entry) => entry.term === term));
    // Term 3 was given away; the next one is won.
    for (let round = 0; round < 2; round++) {
      net.input(1, (core) => core.campaign());
      net.settle();
    }
    assert.equal(net.core(1).status().role, "leader");
    // Bring exactly the old entry over: the message as a leader with a small limit would send it.
    const old = net.disk(1).entries.filter((entry) => entry.index <= index);
    const { term: now, commit } = net.core(1).status();
    const first = old[0]?.index ?? 0;
    for (const to of [2, 3]) {
      net.step({
        type: "append",
        from: 1,
        to,
        term: now,
        prevIndex: first - 1,
        prevTerm: net.core(1).termAt(first - 1) ?? 0,
        entries: old,
        commit,
      });
    }
    net.settle();
    for (const id of [1, 2, 3]) assert.equal(net.core(id).termAt(index), term, `n${id} stores the old entry`);
    for (const id of [2, 3]) assert.equal(net.core(1).status().peers.get(id)?.match, index, `and n1 knows of n${id}`);
    assert.ok(net.core(1).status().commit < index, "stored on a majority, but of an old term");
    if (until === "overwritten") {
      // (d) n5 comes back and wins with n2, n3, n4; the old entry goes.
      net.crash(1);
      net.restart(5);
      net.filter = () => true;
      for (const id of net.running) net.input(id, (core) => core.forgetLeader());
      for (let round = 0; round < 3 && net.core(5).status().role !== "leader"; round++) {
        net.input(5, (core) => core.campaign());
        net.settle();
      }
      assert.equal(net.core(5).status().role, "leader");
      net.run(3);
      for (const id of [2, 3, 4, 5]) assert.notEqual(net.core(id).termAt(index), term);
    } else {
      // (e) n1 gets an entry of its own term to a majority: both are committed, and n5 can never win.
      net.filter = () => true;
      net.run(3);
      assert.ok(net.core(1).status().commit > index);
      net.restart(5);
      net.crash(1);
      for (const id of net.running) net.input(id, (core) => core.forgetLeader());
      net.input(5, (core) => core.campaign());
      net.settle();
      assert.notEqual(net.core(5).status().role, "leader");
    }
  };
  play("overwritten");
  play("committed");
});

test("E5: only a real conflict cuts the log: not an old duplicate, not an empty append with a small prev", () => {
  const lone = new Lone(logState(voters, [1, 1, 2, 2, 2]), fast);
  lone.step(append({ from: 2, term: 2 }, 1, 1, 2));
  lone.step(append({ from: 2, term: 2, prevIndex: 1, prevTerm: 1 }, 1));
  lone.step(append({ from: 2, term: 2, prevIndex: 2, prevTerm: 1 }));
  lone.step(append({ from: 2, term: 2 }));
  assert.deepEqual(logTerms(lone.core), [1, 1, 2, 2, 2]);
  lone.step(append({ from: 3, term: 3, prevIndex: 3, prevTerm: 2 }, 3));
  assert.deepEqual(logTerms(lone.core), [1, 1, 2, 3]);
});

test("E6: cutting the log at or below commit is an invariant failure", () => {
  const lone = new Lone(logState(voters, [1, 1, 2], { commit: 2 }), fast);
  assert.throws(() => lone.core.step(append({ from: 2, term: 3, prevIndex: 1, prevTerm: 1 }, 3)), RaftInvariantError);
  const other = new Lone(logState(voters, [1, 1, 2], { commit: 2 }), fast);
  assert.throws(() => other.core.step(append({ from: 2, term: 3, prevIndex: 2, prevTerm: 2 }, 3)), RaftInvariantError);
});

test("E7: an answer covers what its message covered, never the end of the receiver's log", () => {
  const lone = new Lone(logState(voters, [1, 1, 2, 2, 2]), fast);
  const answers = (message: Message): unknown[] => {
    lone.take();
    lone.step(message);
    return lone.take("appendResponse").map(({ index, rejected }) => [index, rejected]);
  };
  assert.deepEqual(answers(append({ from: 2, term: 3 }, 1)), [[1, false]]);
  assert.deepEqual(answers(append({ from: 2, term: 3, prevIndex: 1, prevTerm: 1 }, 1, 2)), [[3, false]]);
  assert.deepEqual(answers(append({ from: 2, term: 3, prevIndex: 2, prevTerm: 1 })), [[2, false]]);
  assert.deepEqual(answers(append({ from: 2, term: 3, prevIndex: 9, prevTerm: 3 })), [[9, true]]);
});

function permutations<Item>(items: readonly Item[]): Item[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, at) => permutations(items.toSpliced(at, 1)).map((rest) => [item, ...rest]));
}

test("E8: all orders of 4 appends and of 4 answers, with duplicates, end the same, and match only grows", () => {
  const appends = [1, 2, 3, 4].map((index) =>
    append({ from: 2, term: 2, prevIndex: index - 1, prevTerm: index === 1 ? 0 : 2, commit: index - 1 }, 2),
  );
  for (const order of permutations([0, 1, 2, 3])) {
    const lone = new Lone(logState(voters, []), fast);
    // What comes too early is refused, and comes again; so does everything.
    for (const at of [...order, ...order, ...order, ...order, ...order]) lone.step(appends[at] as Message);
    assert.deepEqual(logTerms(lone.core), [2, 2, 2, 2], order.join(" "));
    assert.equal(lone.status.commit, 3);
  }
  for (const order of permutations([2, 3, 4, 5])) {
    const lone = Lone.leader(bootstrapState(voters), fast);
    lone.ack(2);
    lone.do((core) => core.propose([bytesOf("a")]));
    lone.do((core) => core.propose([bytesOf("b")]));
    lone.do((core) => core.propose([bytesOf("c")]));
    let match = 0;
    for (const index of [...order, ...order]) {
      lone.ack(2, index);
      const now = lone.status.peers.get(2)?.match ?? 0;
      assert.ok(now >= match);
      match = now;
    }
    assert.deepEqual([match, lone.status.commit, lone.status.peers.get(2)?.inflightMsgs], [5, 5, 0], order.join(" "));
  }
});

test("E9: a rejection older than an acknowledgement is ignored, in replicate and in probe state", () => {
  const lone = Lone.leader(logState(voters, [1, 1, 1, 1, 1]), fast);
  lone.ack(2, 6);
  lone.reject(2, 5, 3, 1);
  assert.deepEqual([lone.status.peers.get(2)?.match, lone.status.peers.get(2)?.state], [6, "replicate"]);
  assert.deepEqual([lone.status.peers.get(3)?.state, lone.status.peers.get(3)?.next], ["probe", 6]);
  lone.reject(3, 3, 1, 1);
  assert.equal(lone.status.peers.get(3)?.next, 6, "it concerns another index");
  lone.reject(3, 5, 2, 1);
  assert.equal(lone.status.peers.get(3)?.next, 3);
  lone.reject(3, 5, 2, 1);
  assert.equal(lone.status.peers.get(3)?.next, 3, "a duplicate");
});

test("E10: a follower commits no further than the last entry of the message", () => {
  const lone = new Lone(logState(voters, [1, 1, 1, 1]), fast);
  lone.step(append({ from: 2, term: 2, commit: 9 }, 1, 1));
  assert.equal(lone.status.commit, 2);
  lone.step(append({ from: 2, term: 2, prevIndex: 3, prevTerm: 1, commit: 9 }));
  assert.equal(lone.status.commit, 3);
});

test("E11: a malformed append is refused before any change", () => {
  const lone = new Lone(logState(voters, [1, 1, 2]), fast);
  const good = append({ from: 2, term: 3, prevIndex: 3, prevTerm: 2 }, 3, 3) as AppendRequest;
  const [one, two] = good.entries;
  assert.ok(one !== undefined && two !== undefined);
  const bad: [string, AppendRequest][] = [
    ["indexes that leave one out", { ...good, entries: [one, { ...two, index: 6 }] }],
    ["indexes that repeat", { ...good, entries: [one, one] }],
    ["prev missing though entries do not start at 1", { ...good, prevIndex: 0, prevTerm: 0 }],
    ["a prev without a term", { ...good, prevTerm: 0 }],
    ["a term without a prev", { ...good, prevIndex: 0, entries: [] }],
    ["terms that fall", { ...good, entries: [one, { ...two, term: 2 }] }],
    ["an entry older than prev", { ...good, entries: [{ ...one, term: 1 }] }],
    ["an entry newer than the message", { ...good, entries: [{ ...one, term: 4 }] }],
    ["a prev newer than the message", { ...good, prevTerm: 4, entries: [] }],
    ["an index that is no integer", { ...good, prevIndex: 3.5 }],
  ];
  for (const [why, message] of bad) {
    assert.throws(() => lone.core.step(message), MalformedMessage, why);
    assert.deepEqual([lone.status.term, lone.status.lastIndex, lone.core.hasReady()], [2, 3, false], why);
  }
});

test("E12: a divergent tail of 10,000 entries in 5 terms is reconciled in at most 12 round trips", () => {
  const shared = [1, 1, 1];
  const tail = (terms: readonly number[]): number[] =>
    terms.flatMap((term) => Array.from({ length: 2_000 }, () => term));
  const net = new RaftNetwork({
    voters,
    config: { ...fast, maxInflightBytes: 64 * 1024 * 1024 },
    initial: new Map([
      [1, logState(voters, [...shared, ...tail([3, 5, 7, 9, 11])], { term: 12 })],
      [2, logState(voters, shared, { term: 12 })],
      [3, logState(voters, [...shared, ...tail([2, 4, 6, 8, 10])], { term: 12 })],
    ]),
  });
  net.checking = false;
  net.isolate(3);
  net.elect(1);
  net.heal();
  const before = net.sent(3).length;
  net.run(1);
  const { lastIndex } = net.core(1).status();
  assert.equal(net.core(3).status().lastIndex, lastIndex);
  assert.equal(net.core(1).status().peers.get(3)?.match, lastIndex);
  const answers = net
    .sent(3)
    .slice(before)
    .filter((message) => message.type === "appendResponse");
  assert.ok(answers.length <= 12, `${answers.length} answers`);
});

test("E13: a hint below the leader's first index makes it offer a snapshot", () => {
  const net = new RaftNetwork({ voters, config: fast });
  net.elect(1);
  net.isolate(3);
  for (let at = 0; at < 20; at++) net.propose(1, `v${at}`);
  net.settle();
  net.snapshot(1);
  net.compact(1, 15);
  net.heal();
  net.run(3);
  assert.equal(net.sent(1).filter(({ type }) => type === "snapshot").length, 1);
  assert.deepEqual(net.state(3), net.state(1));
});

test("E14: a late durability notice never marks other content at the same index as stable", () => {
  const lone = new Lone(logState(voters, [1, 1, 1, 1]), fast);
  lone.holdDisk = true;
  lone.step(append({ from: 2, term: 2, prevIndex: 4, prevTerm: 1 }, 2)); // A
  lone.step(append({ from: 3, term: 3, prevIndex: 4, prevTerm: 1 }, 3)); // B overwrites it
  assert.equal(lone.status.durableIndex, 4);
  lone.persist(1); // A is durable, and gone
  assert.equal(lone.status.durableIndex, 4);
  lone.step(append({ from: 2, term: 4, prevIndex: 4, prevTerm: 1 }, 4, 4));
  lone.persist(1); // B is durable, and gone
  assert.equal(lone.status.durableIndex, 4);
  lone.persist(1);
  assert.equal(lone.status.durableIndex, 6);
  // The same with content like A's coming back: its second write counts, not its first.
  const again = new Lone(logState(voters, [1, 1, 1, 1]), fast);
  again.holdDisk = true;
  again.step(append({ from: 2, term: 2, prevIndex: 4, prevTerm: 1 }, 2, 2));
  again.step(append({ from: 3, term: 3, prevIndex: 4, prevTerm: 1 }, 3));
  again.step(append({ from: 2, term: 4, prevIndex: 4, prevTerm: 1 }, 4, 4));
  again.persist(2);
  assert.equal(again.status.durableIndex, 4);
  assert.deepEqual(
    again.take("appendResponse").map(({ term, index }) => [term, index]),
    [
      [2, 6],
      [3, 5],
    ],
    "answers speak of their own term",
  );
});

test("E14: a leader counts its own entries only as far as its disk", () => {
  const lone = Lone.leader(bootstrapState(voters), fast);
  lone.ack(2);
  lone.holdDisk = true;
  lone.do((core) => core.propose([bytesOf("a")]));
  lone.do((core) => core.propose([bytesOf("b")]));
  lone.ack(2, 4);
  assert.equal(lone.status.commit, 2);
  lone.persist(1);
  assert.equal(lone.status.commit, 3);
  lone.persist(1);
  assert.equal(lone.status.commit, 4);
});

test("E15: an unreachable follower is probed; one that is up to date comes back with a heartbeat and an empty append", () => {
  const net = new RaftNetwork({ voters, config: fast });
  net.elect(1);
  net.run(2);
  net.input(1, (core) => core.reportUnreachable(2));
  assert.equal(net.core(1).status().peers.get(2)?.state, "probe");
  net.queue = [];
  net.run(2);
  assert.equal(net.core(1).status().peers.get(2)?.state, "replicate");

  const lone = Lone.leader(bootstrapState(voters), fast);
  lone.ack(2).ack(3);
  lone.do((core) => core.reportUnreachable(2));
  const [probe] = lone.take("append").filter(({ to }) => to === 2);
  assert.deepEqual(probe?.entries, []);
  lone.tick();
  assert.equal(lone.take("append").length, 0, "one probe until something is heard");
  lone.beat(2, 1);
  const [next] = lone.take("append");
  assert.deepEqual(next?.entries, []);
  lone.ack(2, next?.prevIndex ?? 0);
  assert.equal(lone.status.peers.get(2)?.state, "replicate");
});

test("E16: a new leader takes proposals at once, and commits none before its own first entry", () => {
  const lone = Lone.leader(logState(voters, [1, 1]), fast);
  const proposed = lone.do((core) => core.propose([bytesOf("a")]));
  assert.ok(proposed.accepted);
  lone.ack(2, 2);
  assert.equal(lone.status.commit, 0, "the old entries by count");
  lone.ack(2, 3);
  assert.equal(lone.status.commit, 3);
  lone.ack(2, 4);
  assert.equal(lone.status.commit, 4);
});

test("E17: a proposal in the turn of a step-down is refused, or is in the log under its own term", () => {
  const before = Lone.leader(bootstrapState(voters), fast);
  const proposed = before.core.propose([bytesOf("a")]);
  assert.ok(proposed.accepted);
  before.core.step(heartbeat({ from: 2, term: 9 }));
  assert.equal(before.core.termAt(proposed.index), proposed.term);
  before.step(append({ from: 2, term: 9, prevIndex: 1, prevTerm: 1 }, 9, 9));
  assert.notEqual(before.core.termAt(proposed.index), proposed.term, "whoever waits sees another term at its index");
  const after = before.core.propose([bytesOf("b")]);
  assert.deepEqual(after, { accepted: false, refusal: { code: "RAFT_NOT_LEADER", leader: 2 } });
});

test("row 13: a member that lost what it acknowledged says so instead of following", () => {
  const lone = new Lone(logState(voters, [1, 1]), fast);
  assert.throws(() => lone.core.step(heartbeat({ from: 2, term: 2, commit: 5 })), { code: "RAFT_LOG_REGRESSED" });
});

test("a group under load sends each follower at most 2.2 messages a batch, and writes once for each", () => {
  const net = new RaftNetwork({ voters, config: { ...coreDefaults, ...fast } });
  net.elect(1);
  net.settle();
  const count = (type: Message["type"], to: MemberId): number =>
    net.sent(1).filter((message) => message.type === type && message.to === to).length;
  const before = count("append", 2);
  for (let batch = 0; batch < 50; batch++) {
    net.propose(1, ...Array.from({ length: 20 }, (_, at) => `${batch}.${at}`));
    net.settle();
  }
  assert.ok(count("append", 2) - before <= 110, `${count("append", 2) - before} appends for 50 batches`);
  assert.equal(net.state(3).length, 1_000);
});
