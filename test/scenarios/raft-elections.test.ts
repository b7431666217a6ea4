/** Scenarios C: elections (Raft thesis §3.4, §3.6.1). T is the election base in ticks. */
import assert from "node:assert/strict";
import test from "node:test";
import {
  type InitialState,
  type Message,
  type Ready,
  bootstrapState,
  coreDefaults,
  emptyConf,
  joinerState,
  quorumSize,
  RaftCore,
} from "../../manager/raft/core/index.ts";
import { Lone, append, heartbeat, voteRequest } from "../support/raft-lone.ts";
import { RaftNetwork, logState, logTerms } from "../support/raft-network.ts";

const T = 10;
const fast = { electionTicks: T, heartbeatTicks: 1 };

test("C1: a fresh follower campaigns once, after T to 2T-1 ticks, evenly over 10,000 seeds", () => {
  const counts = new Map<number, number>();
  const initial = bootstrapState([1, 2, 3]);
  const seeds = 10_000;
  for (let seed = 0; seed < seeds; seed++) {
    const core = new RaftCore({ ...coreDefaults, ...fast, id: 1, seed }, initial);
    let ticks = 0;
    let campaigns = 0;
    for (let at = 1; at < 2 * T; at++) {
      core.tick();
      if (core.hasReady() && core.ready().softState?.role === "preCandidate") {
        campaigns++;
        ticks = at;
      }
    }
    assert.equal(campaigns, 1, `seed ${seed}`);
    counts.set(ticks, (counts.get(ticks) ?? 0) + 1);
  }
  assert.deepEqual(
    [...counts.keys()].sort((a, b) => a - b),
    Array.from({ length: T }, (_, at) => T + at),
  );
  const expected = seeds / T;
  const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  // 9 degrees of freedom: 27.88 is exceeded with p = 0.001.
  assert.ok(chiSquare < 27.88, `chi-square ${chiSquare}`);
});

test("C2: each campaign draws a new timeout", () => {
  const lone = new Lone(bootstrapState([1, 2, 3]), fast);
  const waits = new Set<number>();
  let since = 0;
  for (let at = 0; at < 2_000; at++) {
    lone.tick();
    since++;
    if (lone.take("preVote").length > 0) {
      waits.add(since);
      since = 0;
    }
  }
  assert.equal(waits.size, T);
});

test("C3: an election takes one pre-vote and one vote round; the leader opens its term with an empty entry at once", () => {
  const net = new RaftNetwork({ voters: [1, 2, 3], config: fast });
  net.input(1, (core) => core.campaign());
  net.settle();
  assert.equal(net.core(1).status().role, "leader");
  assert.equal(net.core(1).status().term, 2);
  const sent = net.sent(1).filter((message) => message.to === 2);
  assert.deepEqual(
    sent.slice(0, 3).map(({ type }) => type),
    ["preVote", "vote", "append"],
  );
  const opening = sent[2] as Extract<Message, { type: "append" }>;
  assert.deepEqual(
    opening.entries.map(({ kind, term }) => [kind, term]),
    [["empty", 2]],
  );
  for (const id of [1, 2, 3]) assert.equal(net.core(id).status().lastIndex, 2);
});

test("C4: leader with a quorum of grants, follower as soon as a quorum rejects, candidate until then: 1 to 9 voters", () => {
  for (const preVote of [false, true]) {
    for (let voters = 1; voters <= 9; voters++) {
      for (let grants = 0; grants < voters; grants++) {
        for (let rejections = 0; grants + rejections < voters; rejections++) {
          const ids = Array.from({ length: voters }, (_, at) => at + 1);
          const lone = new Lone(bootstrapState(ids), { ...fast, preVote });
          lone.do((core) => core.campaign());
          const term = lone.status.term + (preVote ? 1 : 0);
          const type = preVote ? "preVoteResponse" : "voteResponse";
          const answer = (from: number, granted: boolean): void => {
            const asked = granted ? term : lone.status.term;
            lone.step({ type, from, to: 1, term: asked, granted, commit: 0, commitTerm: 0 });
          };
          let others = 1;
          let given = 0;
          let refused = 0;
          const decided = (): boolean => 1 + given >= quorumSize(voters) || voters - refused < quorumSize(voters);
          while (given < grants && !decided()) given += (answer(++others, true), 1);
          while (refused < rejections && !decided()) refused += (answer(++others, false), 1);
          const won = 1 + given >= quorumSize(voters);
          const lost = voters - refused < quorumSize(voters);
          const waiting = preVote ? "preCandidate" : "candidate";
          const after = preVote && voters > 1 ? "candidate" : "leader";
          assert.equal(
            lone.status.role,
            won ? after : lost ? "follower" : waiting,
            `${voters} voters, ${given} grants, ${refused} rejections, preVote ${preVote}`,
          );
        }
      }
    }
  }
});

/** Log [1 1 2]: the last entry is of term 2 at index 3. */
const voterLog = (): InitialState => logState([1, 2, 3], [1, 1, 2], { term: 4 });

test("C5: a voter compares last term, then last index, and nothing else; the same for a pre-vote", () => {
  for (const type of ["vote", "preVote"] as const) {
    for (const [lastTerm, lastIndex, granted] of [
      [2, 3, true],
      [2, 4, true],
      [3, 1, true],
      [1, 9, false],
      [2, 2, false],
    ] as const) {
      for (const from of [2, 3, 9_007_199_254_740_991]) {
        const lone = new Lone(voterLog(), fast);
        lone.step(voteRequest(type, { from, term: 5, lastIndex, lastTerm }));
        const [answer] = lone.take();
        assert.ok(answer?.type === "voteResponse" || answer?.type === "preVoteResponse");
        assert.equal(answer.granted, granted, `${type} of (${lastTerm}, ${lastIndex}) by ${from}`);
      }
    }
  }
});

const grantsTo = (lone: Lone, from: number, term: number): boolean => {
  lone.step(voteRequest("vote", { from, term, lastIndex: 3, lastTerm: 2 }));
  return lone.takeVotes()[0]?.granted === true;
};

test("C6: one vote a term, repeated to the same candidate, also after a restart", () => {
  const lone = new Lone(voterLog(), fast);
  assert.equal(grantsTo(lone, 2, 5), true);
  assert.equal(grantsTo(lone, 2, 5), true);
  assert.equal(grantsTo(lone, 3, 5), false);
  const hardState = lone.readies.findLast((ready) => ready.hardState !== undefined)?.hardState;
  assert.deepEqual(hardState, { term: 5, vote: 2, commit: 0 });
  const again = new Lone({ ...voterLog(), hardState }, fast);
  assert.equal(grantsTo(again, 3, 5), false);
  assert.equal(grantsTo(again, 2, 5), true);
  assert.equal(grantsTo(again, 3, 6), true);
});

test("C7: a vote leaves only when it is durable; if the disk dies first, nobody ever got it", () => {
  const lone = new Lone(voterLog(), fast);
  lone.holdDisk = true;
  lone.step(voteRequest("vote", { from: 2, term: 5, lastIndex: 3, lastTerm: 2 }));
  assert.deepEqual(lone.take(), []);
  assert.equal((lone.held[0] as Ready).messages.length, 0);
  // The crash: a new life from the old disk may vote otherwise.
  const again = new Lone(voterLog(), fast);
  assert.equal(grantsTo(again, 3, 5), true);
  lone.persist();
  assert.deepEqual(
    lone.takeVotes().map(({ granted, to }) => [granted, to]),
    [[true, 2]],
  );
});

test("C8: a candidate counts its own vote only when it is durable, also when it is alone", () => {
  for (const voters of [[1], [1, 2, 3]]) {
    const lone = new Lone(bootstrapState(voters), { ...fast, preVote: false });
    lone.holdDisk = true;
    lone.do((core) => core.campaign());
    if (voters.length > 1) {
      assert.deepEqual(lone.take(), [], "requests would be worth votes for a log that may be lost");
      lone.step({ type: "voteResponse", from: 2, to: 1, term: 2, granted: true, commit: 0, commitTerm: 0 });
      // Even with every other vote it does not lead in a term that its disk does not know.
      lone.step({ type: "voteResponse", from: 3, to: 1, term: 2, granted: true, commit: 0, commitTerm: 0 });
    }
    assert.equal(lone.status.role, "candidate");
    lone.persist(1);
    assert.equal(lone.status.role, "leader");
  }
});

test("C9: a candidate follows a leader of its term, rejects an older one with its own term, ignores older answers", () => {
  const candidate = (): Lone => {
    const lone = new Lone(voterLog(), { ...fast, preVote: false });
    lone.do((core) => core.campaign());
    lone.take();
    return lone;
  };
  const follows = candidate();
  follows.step(append({ from: 2, term: 5, prevIndex: 3, prevTerm: 2 }, 5));
  assert.deepEqual([follows.status.role, follows.status.leader, follows.status.lastIndex], ["follower", 2, 4]);

  const rejects = candidate();
  rejects.step(append({ from: 2, term: 4, prevIndex: 3, prevTerm: 2 }, 4));
  const [answer] = rejects.take("appendResponse");
  assert.deepEqual([answer?.rejected, answer?.term], [true, 5]);
  assert.deepEqual([rejects.status.role, rejects.status.lastIndex], ["candidate", 3]);

  rejects.step({ type: "voteResponse", from: 2, to: 1, term: 4, granted: true, commit: 0, commitTerm: 0 });
  assert.equal(rejects.status.role, "candidate");
});

test("C10: a later term in any message is adopted, and is no vote for who showed it", () => {
  const later: Message[] = [
    voteRequest("vote", { from: 2, term: 9, lastIndex: 1, lastTerm: 1 }),
    { type: "voteResponse", from: 2, to: 1, term: 9, granted: false, commit: 0, commitTerm: 0 },
    { type: "preVoteResponse", from: 2, to: 1, term: 9, granted: false, commit: 0, commitTerm: 0 },
    append({ from: 2, term: 9, prevIndex: 50, prevTerm: 8 }),
    { type: "appendResponse", from: 2, to: 1, term: 9, index: 0, rejected: true, hintIndex: 0, hintTerm: 0 },
    heartbeat({ from: 2, term: 9 }),
    { type: "heartbeatResponse", from: 2, to: 1, term: 9, round: 0 },
    { type: "readIndexResponse", from: 2, to: 1, term: 9, requestId: 1, index: 0, refused: true },
  ];
  for (const message of later) {
    for (const role of ["candidate", "leader"] as const) {
      const lone = new Lone(voterLog(), { ...fast, preVote: false, checkQuorum: false });
      if (role === "leader") lone.win();
      else lone.do((core) => core.campaign());
      assert.equal(lone.status.role, role);
      lone.take();
      lone.step(message);
      assert.deepEqual([lone.status.role, lone.status.term, lone.status.vote], ["follower", 9, 0], message.type);
      lone.take();
      lone.step(voteRequest("vote", { from: 2, term: 9, lastIndex: 2, lastTerm: 2 }));
      assert.equal(lone.takeVotes()[0]?.granted, false, `older log after ${message.type}`);
      assert.equal(lone.status.vote, 0);
    }
  }
});

test("C11: a split vote of four gives no leader in that term, and one within ten rounds, for 100 seeds", () => {
  for (let seed = 1; seed <= 100; seed++) {
    const net = new RaftNetwork({ voters: [1, 2, 3, 4], config: { ...fast, preVote: false }, seed });
    net.input(1, (core) => core.campaign());
    net.input(4, (core) => core.campaign());
    // 2 hears 1 first, 3 hears 4 first.
    net.settleOnly(({ from, to }) => (from === 1 && to === 2) || (from === 4 && to === 3));
    net.settle();
    assert.deepEqual(net.leaders(), []);
    assert.ok(
      net.run(10 * 2 * T, () => net.leaders().length > 0),
      `seed ${seed}`,
    );
  }
});

test("C12: a learner never campaigns and is not counted", () => {
  const conf = { ...emptyConf, voters: [1, 2], learners: [3] };
  const initial: InitialState = { ...bootstrapState([1, 2]), snapshot: { index: 1, term: 1, conf } };
  const learner = new Lone(initial, { ...fast, id: 3 });
  learner.tick(20 * T);
  assert.equal(
    learner.do((core) => core.campaign()),
    false,
  );
  assert.deepEqual([learner.status.role, learner.status.term, learner.take().length], ["follower", 1, 0]);

  const net = new RaftNetwork({
    voters: [1, 2, 3],
    config: fast,
    initial: new Map([1, 2, 3].map((id) => [id, initial])),
  });
  net.isolate(2);
  net.input(1, (core) => core.campaign());
  net.settle();
  assert.deepEqual(net.leaders(), [], "one voter and one learner are no quorum of two voters");
  assert.equal(net.sent(1).filter(({ to }) => to === 3).length, 0, "learners are not asked");
  net.heal();
  net.elect(1);
  net.cutBoth(1, 2);
  net.propose(1, "a");
  net.settle();
  assert.equal(net.core(1).status().commit, 2, "an acknowledgement of a learner commits nothing");
});

test("C13: a member outside its own configuration never campaigns", () => {
  for (const initial of [joinerState(), bootstrapState([2, 3])]) {
    const lone = new Lone(initial, fast);
    lone.tick(20 * T);
    assert.equal(
      lone.do((core) => core.campaign()),
      false,
    );
    assert.deepEqual([lone.status.role, lone.take().length], ["follower", 0]);
  }
});

test("C14: a single voter leads without a message or a wait, and commits after its own durability only", () => {
  const lone = new Lone(bootstrapState([1]), fast);
  lone.holdDisk = true;
  lone.tick(1);
  assert.equal(lone.status.role, "candidate");
  lone.persist(1);
  assert.equal(lone.status.role, "leader");
  assert.equal(lone.status.commit, 1);
  lone.persist();
  assert.equal(lone.status.commit, 2);
  lone.do((core) => core.propose([new Uint8Array(1)]));
  assert.equal(lone.status.commit, 2);
  lone.persist();
  assert.equal(lone.status.commit, 3);
  assert.deepEqual(lone.take(), []);
});

test("C15: a cluster that restarts as a whole has a leader within 3T; terms grow by at most 3, mostly by 1", () => {
  const growth: number[] = [];
  for (let seed = 1; seed <= 100; seed++) {
    const net = new RaftNetwork({ voters: [1, 2, 3], config: fast, seed });
    net.elect(1);
    net.propose(1, "a");
    net.settle();
    const before = net.core(1).status().term;
    for (const id of net.ids) net.crash(id);
    for (const id of net.ids) net.restart(id);
    assert.ok(
      net.run(3 * T, () => net.leader() !== 0),
      `seed ${seed}`,
    );
    growth.push(net.core(net.leader()).status().term - before);
  }
  growth.sort((a, b) => a - b);
  assert.ok((growth.at(-1) as number) <= 3);
  assert.equal(growth[50], 1);
});

test("C16: no campaign while a snapshot waits to be installed, or a committed configuration change to be applied", () => {
  const installing = new Lone(bootstrapState([1, 2, 3]), fast);
  installing.holdDisk = true;
  const meta = { index: 9, term: 3, conf: bootstrapState([1, 2, 3]).snapshot.conf };
  installing.step({ type: "snapshot", from: 2, to: 1, term: 4, meta });
  installing.tick(5 * T);
  assert.equal(
    installing.do((core) => core.campaign()),
    false,
  );
  assert.equal(installing.status.role, "follower");
  installing.persist();
  installing.tick(2 * T);
  assert.equal(installing.status.role, "preCandidate");

  const net = new RaftNetwork({ voters: [1, 2, 3], config: fast });
  net.elect(1);
  net.pauseApply(2);
  net.proposeConf(1, { steps: [{ act: "remove", member: 3 }] });
  net.settle();
  net.run(2);
  assert.equal(net.core(2).status().commit, 3);
  net.crash(1);
  net.tick(2, 10 * T);
  assert.deepEqual([net.core(2).status().role, net.input(2, (core) => core.campaign())], ["follower", false]);
  net.resumeApply(2);
  net.tick(2, 1);
  assert.equal(net.core(2).status().role, "preCandidate");
  assert.deepEqual(logTerms(net.core(2)), [2, 2]);
});

test("the process of a leader is gone: the voters try in turn, at once, and elect within a few heartbeats", () => {
  for (let seed = 1; seed <= 100; seed++) {
    const net = new RaftNetwork({ voters: [1, 2, 3, 4, 5], config: fast, seed });
    net.elect(3);
    net.propose(3, "a");
    net.settle();
    const { term } = net.core(3).status();
    net.crash(3);
    for (const id of net.running) net.input(id, (core) => core.reportGone(3));
    assert.ok(
      net.run(2, () => net.leader() !== 0),
      `seed ${seed}`,
    );
    assert.deepEqual([net.leader(), net.core(1).status().term], [1, term + 1]);
  }
});

test("the first in turn lacks an entry: the next one leads, long before a timeout", () => {
  const net = new RaftNetwork({ voters: [1, 2, 3], config: { electionTicks: 20, heartbeatTicks: 1 }, seed: 1 });
  net.elect(3);
  net.cut(3, 1);
  net.propose(3, "a");
  net.settle();
  net.crash(3);
  for (const id of net.running) net.input(id, (core) => core.reportGone(3));
  assert.ok(net.run(6, () => net.leader() !== 0));
  assert.equal(net.leader(), 2);
});

test("a false alarm: the leader stays in office, and who was alarmed follows it again", () => {
  const net = new RaftNetwork({ voters: [1, 2, 3], config: fast, seed: 1 });
  net.elect(3);
  const { term } = net.core(3).status();
  net.input(1, (core) => core.reportGone(3));
  assert.ok(!net.run(5 * T, () => net.leader() !== 3));
  for (const id of net.running) assert.deepEqual([net.core(id).status().leader, net.core(id).status().term], [3, term]);
  // A member that does not lead, and one that leads itself, are not worth a campaign.
  net.input(1, (core) => core.reportGone(2));
  net.input(3, (core) => core.reportGone(1));
  assert.ok(!net.run(T, () => net.leader() !== 3));
  assert.equal(net.core(3).status().term, term);
});

test("under a leader lease nobody is hurried, since the lease counts on the others' timeouts", () => {
  const lone = new Lone(bootstrapState([1, 2, 3]), { ...fast, readMode: "lease" });
  lone.tick(T);
  lone.step(heartbeat({ from: 2, term: 2 }));
  lone.take();
  lone.do((core) => core.reportGone(2));
  lone.tick(T / 2);
  assert.deepEqual([lone.status.leader, lone.take("preVote").length], [2, 0]);
});
