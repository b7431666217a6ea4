/** Scenarios I: leadership transfer (Raft thesis §3.10). I5 and I7 end in the shell and in processes. */
import assert from "node:assert/strict";
import test from "node:test";
import { bootstrapState, emptyConf, joinerState } from "../../manager/raft/core/index.ts";
import { Lone } from "../support/raft-lone.ts";
import { RaftNetwork, bytesOf } from "../support/raft-network.ts";

const T = 10;
const fast = { electionTicks: T, heartbeatTicks: 1 };

function group(): RaftNetwork {
  const net = new RaftNetwork({ voters: [1, 2, 3], config: fast });
  net.elect(1);
  net.run(1);
  return net;
}

test("I1: an up-to-date target leads after one round trip and a vote, one term later, without a pre-vote", () => {
  const net = group();
  const before = net.sent(2).length;
  assert.deepEqual(
    net.input(1, (core) => core.transferLeadership(2)),
    { accepted: true, to: 2 },
  );
  net.settle();
  assert.deepEqual([net.leader(), net.core(2).status().term], [2, 3]);
  const types = net
    .sent(2)
    .slice(before)
    .map(({ type }) => type);
  assert.ok(!types.includes("preVote"));
  assert.equal(net.core(1).status().transferTo, 0);
});

test("I1: without a name the leader chooses the member with the longest log among those that answer", () => {
  const net = group();
  net.cutBoth(1, 2);
  net.propose(1, "a");
  net.settle();
  assert.deepEqual(
    net.input(1, (core) => core.transferLeadership()),
    { accepted: true, to: 3 },
  );
  net.settle();
  assert.equal(net.leader(), 3);
});

test("I2: a slow target is brought up first; if it stays slow, the old leader resumes after T", () => {
  const net = group();
  net.filter = (message) => !(message.type === "append" && message.to === 2);
  net.propose(1, "a");
  net.settle();
  assert.equal(net.core(1).status().peers.get(2)?.match, 2);
  net.input(1, (core) => core.transferLeadership(2));
  net.settle();
  assert.ok(!net.sent(1).some(({ type }) => type === "timeoutNow"));
  net.filter = () => true;
  net.run(2);
  assert.equal(net.leader(), 2);
  assert.deepEqual(net.state(2), ["a"]);

  net.input(2, (core) => core.transferLeadership(3));
  net.settle();
  net.filter = (message) => !(message.type === "append" && message.to === 1);
  net.propose(3, "b");
  net.settle();
  net.input(3, (core) => core.transferLeadership(1));
  net.settle();
  const refused = net.core(3).propose([bytesOf("c")]);
  assert.deepEqual(refused, { accepted: false, refusal: { code: "RAFT_TRANSFER_IN_PROGRESS", to: 1 } });
  net.run(T);
  assert.equal(net.core(3).status().transferTo, 0);
  net.propose(3, "c");
  net.settle();
  assert.deepEqual(net.state(2), ["a", "b", "c"]);
});

test("I3: a transfer that a step-down interrupted leaves no trace when the same member leads again", () => {
  const net = group();
  net.filter = ({ type }) => type !== "timeoutNow";
  net.input(1, (core) => core.transferLeadership(2));
  net.settle();
  assert.equal(net.core(1).status().transferTo, 2);
  net.filter = () => true;
  net.elect(3);
  net.elect(1);
  assert.equal(net.core(1).status().transferTo, 0);
  net.propose(1, "a");
  net.settle();
  net.run(2);
  assert.deepEqual([net.leader(), net.state(2)], [1, ["a"]]);
});

test("I4: to itself, to a stranger, to a learner, to a removed member: refused, and nothing changes", () => {
  const net = group();
  net.add(4, joinerState());
  net.proposeConf(1, { steps: [{ act: "addLearner", member: 4 }] });
  net.settle();
  net.proposeConf(1, { steps: [{ act: "remove", member: 3 }] });
  net.settle();
  for (const to of [1, 9, 4, 3]) {
    const result = net.core(1).transferLeadership(to);
    assert.ok(!result.accepted && result.refusal.code === "RAFT_TRANSFER_TARGET_INVALID", `to ${to}`);
    assert.equal(net.core(1).status().transferTo, 0);
  }
  net.propose(1, "a");
  const follower = net.core(2).transferLeadership(1);
  assert.ok(!follower.accepted && follower.refusal.code === "RAFT_NOT_LEADER");
  const conf = { ...emptyConf, voters: [1, 2], votersOutgoing: [1, 2, 3] };
  const joint = Lone.leader(
    { hardState: { term: 1, vote: 0, commit: 1 }, snapshot: { index: 1, term: 1, conf }, entries: [], applied: 1 },
    fast,
  );
  const leaving = joint.core.transferLeadership(3);
  assert.ok(!leaving.accepted && leaving.refusal.code === "RAFT_TRANSFER_TARGET_INVALID", "about to be removed");
  const lonely = Lone.leader(bootstrapState([1]), fast).core.transferLeadership();
  assert.ok(!lonely.accepted && lonely.refusal.code === "RAFT_TRANSFER_TARGET_INVALID");
});

test("I4: a second transfer to another target replaces the first; to the same target it is ignored", () => {
  const net = group();
  net.filter = ({ type }) => type !== "timeoutNow";
  net.input(1, (core) => core.transferLeadership(2));
  net.settle();
  net.tick(1, T - 2);
  net.settle();
  net.input(1, (core) => core.transferLeadership(2));
  net.tick(1, 2);
  net.settle();
  assert.equal(net.core(1).status().transferTo, 0, "asking again does not prolong it");
  net.input(1, (core) => core.transferLeadership(2));
  net.settle();
  net.filter = () => true;
  net.input(1, (core) => core.transferLeadership(3));
  net.settle();
  assert.equal(net.leader(), 3);
});

test("I5: during a transfer proposals are refused with a code that says to queue them; none is in two logs", () => {
  const net = group();
  net.input(1, (core) => core.transferLeadership(2));
  const during = net.core(1).propose([bytesOf("a")]);
  assert.ok(!during.accepted && during.refusal.code === "RAFT_TRANSFER_IN_PROGRESS");
  net.settle();
  const after = net.core(1).propose([bytesOf("a")]);
  assert.deepEqual(after, { accepted: false, refusal: { code: "RAFT_NOT_LEADER", leader: 2 } });
  net.propose(2, "a");
  net.settle();
  net.run(2);
  assert.deepEqual(net.state(1), ["a"]);
});

test("I6: if the target dies after it was told to campaign, the group works again within 3T", () => {
  let late = 0;
  for (let seed = 1; seed <= 30; seed++) {
    const net = new RaftNetwork({ voters: [1, 2, 3], config: fast, seed });
    net.elect(1);
    net.run(1);
    net.input(1, (core) => core.transferLeadership(2));
    net.settleOnly(({ type }) => type === "timeoutNow");
    // It has raised its term and asked for votes, and is gone.
    net.crash(2);
    const works = (): boolean => {
      const leader = net.leader();
      return leader !== 0 && net.input(leader, (core) => core.propose([bytesOf("a")])).accepted;
    };
    net.settle();
    if (net.run(3 * T, works)) continue;
    // Two survivors with equal timers split the vote once: one in ten, with ten ticks.
    late++;
    assert.ok(net.run(3 * T, works), `seed ${seed}`);
  }
  assert.ok(late <= 6, `${late} of 30 seeds took longer`);
});

test("I1: a target with a committed change that it has not applied campaigns when it has", () => {
  const net = group();
  net.pauseApply(2);
  net.proposeConf(1, { steps: [{ act: "addLearner", member: 9 }] });
  net.settle();
  net.run(1);
  net.input(1, (core) => core.transferLeadership(2));
  net.settle();
  assert.equal(net.core(2).status().role, "follower");
  net.resumeApply(2);
  net.settle();
  assert.equal(net.leader(), 2);
});

test("I1: a TimeoutNow that is late by a term, or comes to a leader or candidate, does nothing", () => {
  const net = group();
  net.input(1, (core) => core.transferLeadership(2));
  const [late] = net.queue.filter(({ type }) => type === "timeoutNow");
  net.settle();
  assert.ok(late !== undefined);
  const { term } = net.core(2).status();
  net.deliver(late);
  net.settle();
  assert.deepEqual([net.leader(), net.core(2).status().term], [2, term]);
});
