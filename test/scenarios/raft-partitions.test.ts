/** Scenarios D: pre-vote, check-quorum and liveness under partitions (Raft thesis §4.2.3, §6.2, §9.6). */
import assert from "node:assert/strict";
import test from "node:test";
import { type MemberId, bootstrapState } from "../../manager/raft/core/index.ts";
import { Lone, append, heartbeat, voteRequest } from "../support/raft-lone.ts";
import { RaftNetwork, bytesOf, logState, logTerms } from "../support/raft-network.ts";

const T = 10;
const fast = { electionTicks: T, heartbeatTicks: 1 };

const group = (size: number, seed = 1): RaftNetwork =>
  new RaftNetwork({ voters: Array.from({ length: size }, (_, at) => at + 1), config: fast, seed });

const termOf = (net: RaftNetwork, id: MemberId): number => net.core(id).status().term;

/** Nobody gains or loses leadership for so many ticks. */
function assertStable(net: RaftNetwork, ticks: number, why: string): void {
  const leader = net.leader();
  const term = termOf(net, leader);
  for (let at = 0; at < ticks; at++) {
    net.run(1);
    assert.deepEqual([net.leader(), termOf(net, leader)], [leader, term], `${why}, tick ${at}`);
  }
}

test("D1: an isolated follower raises no term, only asks; after healing leader and term are unchanged", () => {
  const net = group(3);
  net.elect(1);
  net.isolate(3);
  net.run(100 * T);
  assert.equal(termOf(net, 3), 2);
  assert.ok(net.sent(3).every(({ type }) => type !== "vote"));
  assert.ok(net.sent(3).filter(({ type }) => type === "preVote").length > 50);
  net.heal();
  assertStable(net, 5 * T, "after healing");
  assert.deepEqual([net.leader(), termOf(net, 1), net.core(3).status().leader], [1, 2, 1]);
});

test("D2: a pre-vote changes no term, vote, timer or leader, granted or not", () => {
  for (const [lastTerm, granted] of [
    [2, true],
    [1, false],
  ] as const) {
    const lone = new Lone(logState([1, 2, 3], [1, 1, 2], { term: 4, vote: 2 }), fast);
    lone.core.setRandomizedElectionTimeout(T);
    lone.tick(T - 1);
    lone.step(voteRequest("preVote", { from: 3, term: 9, lastIndex: 3, lastTerm }));
    assert.equal(lone.takeVotes()[0]?.granted, granted);
    assert.deepEqual([lone.status.term, lone.status.vote, lone.status.leader], [4, 2, 0]);
    assert.ok(
      lone.readies.every(({ hardState }) => hardState === undefined),
      "nothing to persist",
    );
    lone.tick();
    assert.equal(lone.status.role, "preCandidate", "its own timer went on");
  }
  const following = new Lone(logState([1, 2, 3], [1, 1, 2]), fast);
  following.step(heartbeat({ from: 2, term: 2 }));
  following.core.setRandomizedElectionTimeout(2 * T - 1);
  following.tick(T);
  following.step(voteRequest("preVote", { from: 3, term: 3, lastIndex: 3, lastTerm: 2 }));
  assert.equal(following.status.leader, 2, "the leader is still remembered");
});

test("D3: a delayed pre-vote grant changes nothing for a candidate, nor a delayed grant of an older term", () => {
  const answer = { to: 1, granted: true, commit: 0, commitTerm: 0 } as const;
  const lone = new Lone(bootstrapState([1, 2, 3, 4, 5]), fast);
  lone.do((core) => core.campaign());
  lone.step({ type: "preVoteResponse", from: 2, term: 2, ...answer });
  lone.step({ type: "preVoteResponse", from: 3, term: 2, ...answer });
  assert.deepEqual([lone.status.role, lone.status.term], ["candidate", 2]);
  lone.step({ type: "preVoteResponse", from: 4, term: 2, ...answer });
  lone.step({ type: "preVoteResponse", from: 5, term: 2, ...answer });
  lone.step({ type: "preVoteResponse", from: 4, term: 3, ...answer });
  assert.equal(lone.status.role, "candidate");
  lone.do((core) => core.campaign());
  assert.deepEqual([lone.status.role, lone.status.term], ["preCandidate", 2]);
  lone.step({ type: "voteResponse", from: 4, term: 2, ...answer });
  lone.step({ type: "voteResponse", from: 5, term: 2, ...answer });
  assert.equal(lone.status.role, "preCandidate", "a vote of the campaign before");
  lone.step({ type: "preVoteResponse", from: 4, term: 3, ...answer });
  lone.step({ type: "preVoteResponse", from: 5, term: 3, ...answer });
  assert.deepEqual([lone.status.role, lone.status.term], ["candidate", 3]);
  lone.step({ type: "voteResponse", from: 2, term: 2, ...answer });
  lone.step({ type: "voteResponse", from: 3, term: 2, ...answer });
  assert.equal(lone.status.role, "candidate");
});

test("D4: who heard from a leader within T ignores requests for votes, except with the mark of a transfer", () => {
  for (const type of ["vote", "preVote"] as const) {
    const lone = new Lone(bootstrapState([1, 2, 3]), fast);
    lone.step(heartbeat({ from: 2, term: 5 }));
    lone.take();
    lone.core.setRandomizedElectionTimeout(2 * T - 1);
    const request = { from: 3, term: 6, lastIndex: 9, lastTerm: 5 };
    lone.tick(T - 1);
    lone.step(voteRequest(type, request));
    assert.deepEqual([lone.take(), lone.status.term, lone.status.vote], [[], 5, 0]);
    lone.step(voteRequest(type, { ...request, transfer: true }));
    assert.equal(lone.takeVotes()[0]?.granted, true, `${type} of a transfer`);
    const later = new Lone(bootstrapState([1, 2, 3]), fast);
    later.step(heartbeat({ from: 2, term: 5 }));
    later.core.setRandomizedElectionTimeout(2 * T - 1);
    later.tick(T);
    later.take();
    later.step(voteRequest(type, request));
    assert.equal(later.takeVotes()[0]?.granted, true, `${type} after T`);
  }
  const leader = Lone.leader(bootstrapState([1, 2, 3]), fast);
  leader.take();
  leader.step(voteRequest("vote", { from: 3, term: 9, lastIndex: 9, lastTerm: 8 }));
  assert.deepEqual([leader.status.role, leader.take()], ["leader", []]);
});

test("D5: an old leader that stepped down and is still remembered can be elected again: 2 of 3, within 4T", () => {
  let slow = 0;
  for (let seed = 1; seed <= 50; seed++) {
    const net = group(3, seed);
    net.elect(1);
    net.crash(3);
    // One way only: 2 hears its leader and keeps it, 1 hears nobody and steps down.
    net.cut(2, 1);
    assert.ok(net.run(2 * T, () => net.leaders().length === 0));
    assert.equal(net.core(2).status().leader, 1);
    net.heal();
    if (net.run(4 * T, () => net.leader() !== 0)) continue;
    // Timers of the same length twice in a row: one in a hundred, with ten ticks.
    slow++;
    assert.ok(
      net.run(4 * T, () => net.leader() !== 0),
      `seed ${seed}`,
    );
  }
  assert.ok(slow <= 3, `${slow} of 50 seeds took longer`);
  const net = group(3);
  net.elect(1);
  net.crash(3);
  net.cut(2, 1);
  net.run(2 * T, () => net.leaders().length === 0);
  net.heal();
  net.input(1, (core) => core.campaign());
  net.settle();
  assert.equal(net.leader(), 1, "at once, while 2 still remembers it");
});

test("D6: a candidate of an older term learns the later one from a rejection; terms 3, 4, 4, the longest log at term 3", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const voters = [1, 2, 3];
    const net = new RaftNetwork({
      voters,
      config: fast,
      seed,
      initial: new Map([
        [1, logState(voters, [1, 1, 1, 3], { term: 3 })],
        [2, logState(voters, [1, 1], { term: 4 })],
        [3, logState(voters, [1], { term: 4 })],
      ]),
    });
    assert.ok(
      net.run(10 * T, () => net.leader() !== 0),
      `seed ${seed}`,
    );
  }
  const lone = new Lone(logState([1, 2, 3], [1, 1, 1, 3], { term: 3 }), fast);
  lone.do((core) => core.campaign());
  lone.step({ type: "preVoteResponse", from: 2, to: 1, term: 4, granted: false, commit: 0, commitTerm: 0 });
  assert.deepEqual([lone.status.role, lone.status.term], ["follower", 4]);
  const asked = new Lone(logState([1, 2, 3], [1, 1], { term: 4 }), fast);
  asked.step(voteRequest("preVote", { from: 2, term: 4, lastIndex: 4, lastTerm: 3 }));
  assert.deepEqual(
    asked.takeVotes().map(({ granted, term }) => [granted, term]),
    [[false, 4]],
  );
  asked.step(voteRequest("preVote", { from: 2, term: 3, lastIndex: 4, lastTerm: 2 }));
  assert.deepEqual(
    asked.takeVotes().map(({ granted, term }) => [granted, term]),
    [[false, 4]],
    "below the own term",
  );
  asked.step(voteRequest("vote", { from: 2, term: 3, lastIndex: 4, lastTerm: 2 }));
  assert.deepEqual(
    asked.takeVotes().map(({ granted, term }) => [granted, term]),
    [[false, 4]],
  );
});

test("D7: a stream of requests from a member with a tiny timeout does not put off the election of others", () => {
  for (let seed = 1; seed <= 20; seed++) {
    // 4 has nothing in its log, so nobody can vote for it; it asks with every tick.
    const voters = [1, 2, 3, 4];
    const net = new RaftNetwork({
      voters,
      config: fast,
      seed,
      initial: new Map(voters.map((id) => [id, logState(voters, id === 4 ? [] : [1, 1], { term: 1 })])),
    });
    for (let at = 0; at < 3 * T && net.leader() === 0; at++) {
      net.input(4, (core) => core.campaign());
      net.run(1);
    }
    assert.ok([1, 2, 3].includes(net.leader()), `seed ${seed}`);
  }
});

test("D7: a later term with a worse log does not restart the election timer", () => {
  const lone = new Lone(logState([1, 2, 3], [1, 1, 2], { term: 4 }), fast);
  lone.core.setRandomizedElectionTimeout(T);
  for (let at = 1; at < T; at++) {
    lone.tick();
    lone.step(voteRequest("vote", { from: 3, term: 4 + at, lastIndex: 1, lastTerm: 1 }));
  }
  lone.tick();
  assert.equal(lone.status.role, "preCandidate");
});

test("D8: a leader cut from its quorum steps down within 2T and commits nothing meanwhile", () => {
  const net = group(5);
  net.elect(1);
  net.partition([1, 2], [3, 4, 5]);
  const { commit, term } = net.core(1).status();
  const proposed = net.propose(1, "lost?");
  net.run(2 * T, () => net.core(1).status().role !== "leader");
  assert.equal(net.core(1).status().role, "follower");
  assert.deepEqual([net.core(1).status().commit, termOf(net, 1)], [commit, term]);
  assert.equal(net.core(1).termAt(proposed.index), proposed.term, "neither committed nor lost: unknown");
  const refused = net.core(1).propose([bytesOf("later")]);
  assert.ok(!refused.accepted && refused.refusal.code === "RAFT_NOT_LEADER");
});

test("D9: a one-way cut from the leader raises no terms; one towards it leaves the member uncounted, and work goes on", () => {
  const away = group(3);
  away.elect(1);
  away.cut(1, 3);
  for (let at = 0; at < 20 * T; at++) {
    away.run(1);
    assert.deepEqual([away.leader(), termOf(away, 2)], [1, 2]);
  }
  away.propose(1, "a");
  away.settle();
  assert.deepEqual(away.state(1), ["a"]);

  const towards = group(3);
  towards.elect(1);
  towards.cut(3, 1);
  towards.run(2 * T);
  assert.equal(towards.core(1).status().peers.get(3)?.recentActive, false);
  assert.equal(towards.core(1).status().peers.get(2)?.recentActive, true);
  towards.propose(1, "a");
  towards.settle();
  assert.deepEqual([towards.state(2), towards.leader()], [["a"], 1]);
});

test("D10: a partial ring of 5 (4 sees only 2, 5 sees only 3) has a leader within 10T and keeps it for 50T", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const net = group(5, seed);
    for (const id of [1, 3, 5]) net.cutBoth(4, id);
    for (const id of [1, 2]) net.cutBoth(5, id);
    assert.ok(
      net.run(10 * T, () => net.leader() !== 0),
      `seed ${seed}`,
    );
    net.run(2 * T);
    assertStable(net, 50 * T, `seed ${seed}`);
  }
});

test("D11: in a chain n1-n2-n3 a leader emerges and stays, whoever led before", () => {
  for (let seed = 1; seed <= 10; seed++) {
    for (const first of [1, 2, 3]) {
      const net = group(3, seed);
      net.elect(first);
      net.cutBoth(1, 3);
      net.run(10 * T);
      assert.notEqual(net.leader(), 0);
      assertStable(net, 50 * T, `seed ${seed}, first ${first}`);
      net.propose(net.leader(), "a");
      net.settle();
      net.run(2);
      for (const id of [net.leader(), 2]) assert.deepEqual(net.state(id), ["a"]);
    }
  }
});

test("D12: only n2 of 5 reaches the others: it leads within 20T if its log is good, else one more link is enough", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const star = (): RaftNetwork => {
      const net = group(5, seed);
      net.elect(4);
      return net;
    };
    const cutAll = (net: RaftNetwork): void => {
      for (const a of [1, 3, 4, 5]) for (const b of [1, 3, 4, 5]) if (a < b) net.cutBoth(a, b);
    };
    const good = star();
    good.propose(4, "a");
    good.settle();
    good.run(2);
    cutAll(good);
    assert.ok(
      good.run(20 * T, () => good.leader() === 2),
      `seed ${seed}`,
    );
    good.run(2 * T);
    assertStable(good, 30 * T, `seed ${seed}`);

    const outdated = star();
    outdated.isolate(2);
    outdated.propose(4, "a");
    outdated.settle();
    outdated.run(1);
    outdated.heal();
    cutAll(outdated);
    // The old leader reaches only 2, which never gets the entry; it steps down, and nobody can take its place.
    outdated.filter = ({ type, to }) => !(to === 2 && type === "append");
    outdated.run(20 * T);
    assert.deepEqual(outdated.leaders(), []);
    outdated.filter = () => true;
    outdated.join(4, 5);
    outdated.join(4, 1);
    assert.ok(
      outdated.run(10 * T, () => outdated.leader() !== 0 && outdated.state(outdated.leader()).includes("a")),
      `seed ${seed}, after one more useful link`,
    );
  }
});

test("D13: with clocks at 2x and 0.5x there is at most one needless election in 100T", () => {
  for (const rate of [2, 0.5]) {
    for (const odd of [1, 2]) {
      const net = group(3);
      net.elect(1);
      let owed = 0;
      for (let at = 0; at < 100 * T; at++) {
        owed += rate;
        for (; owed >= 1; owed--) net.tick(odd);
        for (const id of net.ids) if (id !== odd) net.tick(id);
        net.settle();
      }
      assert.ok(termOf(net, net.leader()) <= 3, `member ${odd} at ${rate}x: term ${termOf(net, net.leader())}`);
    }
  }
});

test("D14: messages first, then at most one tick: a follower that slept over 50 heartbeats does not campaign", () => {
  const net = group(3);
  net.elect(1);
  for (let at = 0; at < 50; at++) {
    net.tick(1);
    net.settleOnly(({ from, to }) => to !== 3 && from !== 3);
  }
  net.settle();
  net.tick(3);
  assert.deepEqual([net.core(3).status().role, net.core(3).status().leader], ["follower", 1]);
});

test("D14: after a stall a leader takes no proposal and serves no lease read before a new quorum round", () => {
  const net = new RaftNetwork({ voters: [1, 2, 3], config: { ...fast, readMode: "lease" } });
  net.tick(1, T);
  net.tick(2, T);
  net.tick(3, T);
  net.queue = [];
  net.elect(1);
  net.run(2);
  assert.equal(net.core(1).leaseHolds(), true);
  // Answers to rounds from before the stall prove nothing.
  net.tick(1);
  const old = net.take(({ type }) => type === "heartbeat");
  net.input(1, (core) => core.stalled());
  const fresh = net.take(({ type }) => type === "heartbeat");
  assert.equal(fresh.length, 2, "a round begins at once");
  for (const message of old) net.deliver(message);
  net.settle();
  assert.equal(net.core(1).leaseHolds(), false);
  const refused = net.core(1).propose([bytesOf("a")]);
  assert.ok(!refused.accepted && refused.refusal.code === "RAFT_LEADER_UNCONFIRMED");
  const change = net.core(1).proposeConfChange({ transition: "auto", steps: [], context: new Uint8Array(0) });
  assert.ok(!change.accepted && change.refusal.code === "RAFT_LEADER_UNCONFIRMED");
  net.input(1, (core) => core.readIndex(1));
  assert.deepEqual(net.reads(1), []);
  for (const message of fresh) net.deliver(message);
  net.settle();
  assert.equal(net.core(1).leaseHolds(), true);
  assert.equal(net.reads(1).length, 1);
  net.propose(1, "a");
});

test("D14: a leader that was deposed during its stall steps down within T of waking", () => {
  const net = group(3);
  net.elect(1);
  net.isolate(1);
  for (let at = 0; at < 3 * T; at++)
    for (const id of [2, 3]) {
      net.tick(id);
      net.settle();
    }
  assert.ok(net.leader() !== 1);
  net.input(1, (core) => core.stalled());
  assert.equal(net.core(1).status().role, "leader");
  assert.ok(!net.core(1).propose([bytesOf("a")]).accepted);
  net.tick(1, T + 1);
  assert.equal(net.core(1).status().role, "follower");
});

test("D15: a leader whose disk stalls hands over; the group commits again within 3T", () => {
  const net = group(3);
  net.elect(1);
  net.pauseDisk(1);
  net.propose(1, "a");
  net.settle();
  // Heartbeats go on, so nobody else would ever campaign; the shell sees the stall and asks for the transfer.
  net.run(T);
  assert.equal(net.leader(), 1);
  net.input(1, (core) => core.transferLeadership());
  assert.ok(net.run(2 * T, () => net.leader() !== 1 && net.leader() !== 0));
  net.propose(net.leader(), "b");
  net.settle();
  assert.deepEqual(net.state(net.leader()), ["a", "b"]);
  net.resumeDisk(1);
  net.run(2);
  assert.deepEqual(net.state(1), ["a", "b"]);
});

test("C9, D8: a follower answers a leader of an older term, so that it steps down", () => {
  for (const message of [append({ from: 2, term: 3 }), heartbeat({ from: 2, term: 3 })]) {
    const lone = new Lone(logState([1, 2, 3], [], { term: 5 }), fast);
    lone.step(message);
    const [answer] = lone.take();
    assert.equal(answer?.term, 5);
    if (answer?.type === "heartbeatResponse") assert.equal(answer.round, 0, "it confirms no round");
    assert.deepEqual(logTerms(lone.core), []);
  }
});
