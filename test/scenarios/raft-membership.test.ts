/** Scenarios F: membership (Raft thesis chapter 4). What belongs to the shell (F7, F12: the refusals at the handshake) is tested there. */
import assert from "node:assert/strict";
import test from "node:test";
import { Random } from "../../lib/pure/prng.ts";
import {
  type ConfChange,
  type ConfChangeStep,
  type ConfState,
  type InitialState,
  type MemberId,
  type Refusal,
  bootstrapState,
  changeConf,
  confDefect,
  emptyConf,
  encodeConfChange,
  forceNewCluster,
  isJoint,
  joinerState,
  leaveJoint,
  members,
  quorumAtRisk,
} from "../../manager/raft/core/index.ts";
import { isQuorum, quorumsMeet } from "../support/raft-checks.ts";
import { Lone } from "../support/raft-lone.ts";
import { RaftNetwork, bytesOf } from "../support/raft-network.ts";

const T = 10;
const fast = { electionTicks: T, heartbeatTicks: 1 };

const step = (act: ConfChangeStep["act"], member: MemberId): ConfChangeStep => ({ act, member });
const change = (steps: ConfChangeStep[], transition: ConfChange["transition"] = "auto"): ConfChange => ({
  transition,
  steps,
  context: new Uint8Array(0),
});

function group(voters: readonly MemberId[], joiners: readonly MemberId[] = [], config = {}): RaftNetwork {
  const net = new RaftNetwork({ voters, config: { ...fast, ...config } });
  for (const id of joiners) net.add(id, joinerState());
  net.elect(voters[0] as MemberId);
  return net;
}

const confOf = (net: RaftNetwork, id: MemberId): ConfState => net.core(id).status().conf;

function refusalOf(net: RaftNetwork, id: MemberId, asked: ConfChange, force = false): Refusal["code"] | undefined {
  const before = net.core(id).status().lastIndex;
  const result = net.core(id).proposeConfChange(asked, { force });
  if (result.accepted) return undefined;
  assert.equal(net.core(id).status().lastIndex, before, "a refused change takes no place in the log");
  return result.refusal.code;
}

test("F1: voters are added to 1, 2, 3, 4; each stage commits with its own quorum and no less", () => {
  const net = group([1], [2, 3, 4, 5]);
  for (const joiner of [2, 3, 4, 5]) {
    net.proposeConf(1, change([step("addLearner", joiner)]));
    net.settle();
    net.run(5);
    net.proposeConf(1, change([step("addVoter", joiner)]));
    net.settle();
    net.run(3);
    const voters = joiner;
    assert.equal(confOf(net, joiner).voters.length, voters);
    const quorum = Math.floor(voters / 2) + 1;
    const others = [2, 3, 4, 5].filter((id) => id <= joiner);
    // One follower too few: nothing is committed. One more: it is.
    net.partition([1, ...others.slice(0, quorum - 2)], others.slice(quorum - 2));
    const { index } = net.propose(1, `with ${voters}`);
    net.settle();
    assert.equal(net.core(1).status().commit, quorum === 1 ? index : index - 1, `${voters} voters`);
    net.partition([1, ...others.slice(0, quorum - 1)], others.slice(quorum - 1));
    net.run(2);
    assert.equal(net.core(1).status().commit, index, `${voters} voters`);
    net.heal();
    net.run(3);
  }
});

test("F1: while joint, an entry is committed by both majorities: every set of acknowledgements of {1,2,3} to {3,4,5}", () => {
  for (let set = 0; set < 16; set++) {
    const conf = { ...emptyConf, voters: [3, 4, 5], votersOutgoing: [1, 2, 3] };
    const initial: InitialState = {
      hardState: { term: 1, vote: 0, commit: 1 },
      snapshot: { index: 1, term: 1, conf },
      entries: [],
      applied: 1,
    };
    const lone = Lone.leader(initial, fast);
    const acks = [2, 3, 4, 5].filter((_, at) => (set >> at) & 1);
    for (const id of acks) lone.ack(id);
    const expected = isQuorum(conf, new Set([1, ...acks]));
    assert.equal(lone.status.commit, expected ? 2 : 1, `acknowledged by 1 ${acks.join(" ")}`);
  }
});

test("F2: a member is replaced in one joint change, left automatically or on demand", () => {
  for (const transition of ["jointImplicit", "jointExplicit"] as const) {
    const net = group([1, 2, 3], [4]);
    net.proposeConf(1, change([step("addVoter", 4), step("remove", 3)], transition));
    net.settle();
    net.run(5);
    if (transition === "jointExplicit") {
      assert.ok(isJoint(confOf(net, 1)));
      assert.deepEqual(
        [confOf(net, 2).voters, confOf(net, 2).votersOutgoing],
        [
          [1, 2, 4],
          [1, 2, 3],
        ],
      );
      net.proposeConf(1, leaveJoint);
      net.settle();
      net.run(3);
    }
    for (const id of [1, 2, 4]) {
      assert.deepEqual([confOf(net, id).voters, confOf(net, id).votersOutgoing], [[1, 2, 4], []], `member ${id}`);
    }
  }
});

test("F2: the joint configuration is left as soon as it is applied, without a tick", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]), fast);
  lone.ack(2);
  const asked = change([step("addLearner", 3)], "jointImplicit");
  assert.ok(lone.do((core) => core.proposeConfChange(asked, { force: true })).accepted);
  lone.ack(2).ack(3);
  assert.deepEqual([isJoint(lone.status.conf), lone.status.lastIndex], [true, 4]);
  lone.ack(2).ack(3);
  assert.deepEqual([lone.status.conf.voters, lone.status.conf.learners], [[1, 2], [3]]);
});

test("F2: whoever leads leaves the joint configuration, also after a change of leader in it", () => {
  const net = group([1, 2, 3], [4]);
  net.proposeConf(1, change([step("addVoter", 4), step("remove", 3)], "jointImplicit"));
  // Everybody learns that it is committed, and then the leader dies before it can leave.
  net.settleOnly((message) => message.type !== "append" || message.entries.every(({ index }) => index <= 3));
  net.queue = [];
  assert.ok(isJoint(confOf(net, 1)));
  net.crash(1);
  assert.ok(net.run(10 * T, () => net.leader() !== 0));
  net.run(5);
  assert.deepEqual([confOf(net, net.leader()).voters, isJoint(confOf(net, net.leader()))], [[1, 2, 4], false]);
});

test("F3: a second change is refused while one is pending, unapplied or joint, and leaves no trace in any log", () => {
  const net = group([1, 2, 3], [4]);
  const asked = change([step("addLearner", 4)]);
  net.pauseApply(1);
  net.proposeConf(1, asked);
  assert.equal(refusalOf(net, 1, asked), "RAFT_CONF_CHANGE_PENDING", "pending");
  net.settle();
  assert.equal(refusalOf(net, 1, asked), "RAFT_CONF_CHANGE_PENDING", "committed, not applied");
  net.resumeApply(1);
  net.settle();
  net.proposeConf(1, change([step("addVoter", 4)], "jointExplicit"));
  net.settle();
  assert.equal(refusalOf(net, 1, change([step("remove", 3)])), "RAFT_CONF_CHANGE_PENDING", "joint");
  net.proposeConf(1, leaveJoint);
  net.settle();
  assert.equal(refusalOf(net, 1, leaveJoint), "RAFT_CONF_CHANGE_INVALID", "not joint any more");
  net.run(3);
  const logs = [1, 2, 3].map((id) => net.disk(id).entries.map(({ kind }) => kind));
  assert.deepEqual(logs[0], ["empty", "confChange", "confChange", "confChange"]);
  assert.deepEqual([logs[1], logs[2]], [logs[0], logs[0]]);
});

test("F4: no change before an entry of the leader's own term is committed", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]), fast);
  const asked = change([step("remove", 3)]);
  const early = lone.core.proposeConfChange(asked, { force: true });
  assert.ok(!early.accepted && early.refusal.code === "RAFT_TERM_UNCOMMITTED");
  lone.ack(2);
  assert.ok(lone.do((core) => core.proposeConfChange(asked, { force: true })).accepted);
});

test("F5: two leaders of a split group of 4 that add and remove one each never have disjoint quorums", () => {
  // The known bug of single-step changes: n1 proposes to remove 4 and is cut off; n2 wins and proposes to remove 1.
  const net = group([1, 2, 3, 4]);
  net.partition([1], [2, 3, 4]);
  net.proposeConf(1, change([step("remove", 4)]), true);
  net.run(3 * T, () => net.leader() > 1 && net.core(1).status().role !== "leader");
  const second = net.leader();
  assert.ok(second > 1);
  assert.equal(refusalOf(net, 1, change([step("remove", 3)])), "RAFT_NOT_LEADER", "it has stepped down");
  net.proposeConf(second, change([step("remove", 1)]));
  net.settle();
  net.run(3);
  assert.deepEqual(confOf(net, second).voters, [2, 3, 4]);
  net.heal();
  net.run(5 * T);
  for (const id of [2, 3, 4]) assert.deepEqual(confOf(net, id).voters, [2, 3, 4]);
  // What n1 proposed in its old term was never committed, so it never took effect.
  assert.deepEqual(confOf(net, 1).voters, [1, 2, 3, 4]);
  assert.notEqual(net.core(1).status().role, "leader");
});

test("F5: any single step and its predecessor have meeting quorums; any joint configuration meets both its halves", () => {
  const random = new Random("F5");
  for (let run = 0; run < 300; run++) {
    const voters = random
      .shuffle([1, 2, 3, 4, 5])
      .slice(0, random.int(1, 6))
      .sort((a, b) => a - b);
    const conf: ConfState = { ...emptyConf, voters };
    const steps = Array.from({ length: random.int(1, 4) }, () =>
      step(random.pick(["addVoter", "addLearner", "remove"]), random.int(1, 7)),
    );
    const changed = changeConf(conf, change(steps, random.pick(["auto", "jointImplicit"])));
    if (!changed.valid) continue;
    assert.ok(quorumsMeet(conf, changed.conf), JSON.stringify({ conf, steps }));
    const left = changeConf(changed.conf, leaveJoint);
    if (left.valid) assert.ok(quorumsMeet(changed.conf, left.conf), JSON.stringify({ conf, steps }));
  }
});

test("F6: a leader that is removed serves until then, does not count itself after it, hands over and steps down", () => {
  for (const transition of ["auto", "jointImplicit"] as const) {
    const net = group([1, 2, 3]);
    net.proposeConf(1, change([step("remove", 1)], transition));
    const { index } = net.propose(1, "behind the change");
    net.settle();
    net.run(3);
    assert.equal(net.core(1).status().role, "follower", transition);
    assert.ok([2, 3].includes(net.leader()), transition);
    assert.equal(net.core(net.leader()).status().term, 3, "handed over, not timed out");
    assert.deepEqual(net.state(net.leader()), ["behind the change"]);
    assert.ok(net.core(net.leader()).status().commit >= index);
    net.crash(1);
    net.propose(net.leader(), "without it");
    net.settle();
    net.run(2);
    assert.deepEqual(net.state(2), ["behind the change", "without it"]);
  }
});

test("F6: after its removal a leader's own log does not count; entries are committed by the new configuration", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]), fast);
  lone.ack(2).ack(3);
  assert.ok(lone.do((core) => core.proposeConfChange(change([step("remove", 1)]), { force: true })).accepted);
  const behind = lone.do((core) => core.propose([bytesOf("a")]));
  assert.ok(behind.accepted);
  lone.ack(2, 3);
  assert.deepEqual([lone.status.commit, lone.status.conf.voters], [3, [2, 3]]);
  lone.ack(2, 4);
  assert.equal(lone.status.commit, 3, "the leader and one of two voters are no majority of {2,3}");
  lone.ack(3, 4);
  assert.equal(lone.status.commit, 4);
  const refused = lone.core.propose([bytesOf("b")]);
  assert.ok(!refused.accepted && refused.refusal.code === "RAFT_TRANSFER_IN_PROGRESS");
});

test("F6: a removed leader that finds nobody to hand over to steps down all the same", () => {
  const net = group([1, 2, 3]);
  net.proposeConf(1, change([step("remove", 1)]));
  net.filter = ({ type }) => type !== "timeoutNow";
  net.settle();
  net.run(T + 2);
  assert.equal(net.core(1).status().role, "follower");
  assert.ok(net.run(4 * T, () => net.leader() > 1));
});

test("F7: a removed member that keeps asking for votes disturbs nobody", () => {
  const net = group([1, 2, 3, 4]);
  net.isolate(4);
  net.proposeConf(1, change([step("remove", 4)]));
  net.settle();
  net.run(2);
  net.heal();
  const before = net.sent(1).length;
  for (let at = 0; at < 20 * T; at++) {
    if (at % 3 === 0) net.input(4, (core) => core.campaign());
    net.run(1);
    assert.deepEqual([net.leader(), net.core(1).status().term], [1, 2]);
  }
  const toRemoved = net
    .sent(1)
    .slice(before)
    .filter(({ to }) => to === 4);
  assert.deepEqual(toRemoved, [], "it is not served any more");
});

test("F8: members of the old minority that do not know of their removal can neither elect nor commit", () => {
  const net = group([1, 2, 3, 4, 5]);
  net.partition([1, 2, 3], [4, 5]);
  for (const id of [4, 5]) {
    net.proposeConf(1, change([step("remove", id)]), true);
    net.settle();
    net.run(2);
  }
  assert.deepEqual(confOf(net, 1).voters, [1, 2, 3]);
  net.crash(1);
  net.heal();
  net.cutBoth(2, 4);
  net.cutBoth(3, 4);
  net.cutBoth(2, 5);
  net.cutBoth(3, 5);
  net.run(20 * T);
  assert.ok([2, 3].includes(net.leader()));
  for (const id of [4, 5]) assert.notEqual(net.core(id).status().role, "leader");
  // Even when they reach the others: their logs are too old, and they count by a configuration that has no say.
  net.heal();
  net.run(10 * T);
  assert.ok([2, 3].includes(net.leader()));
});

test("F9: a learner that does not know of its promotion votes for who does", () => {
  const net = group([1, 2], [3]);
  net.proposeConf(1, change([step("addLearner", 3)]));
  net.settle();
  net.run(5);
  net.filter = (message) => !(message.to === 3 && message.type === "append");
  net.proposeConf(1, change([step("addVoter", 3)]));
  net.settle();
  net.run(2);
  assert.deepEqual(confOf(net, 2).voters, [1, 2, 3]);
  assert.deepEqual(confOf(net, 3).learners, [3]);
  net.filter = () => true;
  net.crash(1);
  assert.ok(net.run(4 * T, () => net.leader() === 2));
  net.run(2);
  assert.deepEqual(confOf(net, 3).voters, [1, 2, 3]);
});

test("F9: a voter that was never told that it is one learns it with the votes of others, and the group goes on", () => {
  // n1 alone knows that the promotion of 3 is committed; 3 has the longer log and n1 needs its vote.
  const voters = [1, 2];
  const conf = { ...emptyConf, voters, learners: [3] };
  const promote = {
    term: 2,
    index: 2,
    kind: "confChange" as const,
    data: encodeConfChange(change([step("addVoter", 3)])),
  };
  const more = { term: 2, index: 3, kind: "normal" as const, data: bytesOf("a") };
  const at = (entries: InitialState["entries"], commit: number): InitialState => ({
    hardState: { term: 2, vote: 0, commit },
    snapshot: { index: 1, term: 1, conf },
    entries,
    applied: 1,
  });
  const net = new RaftNetwork({
    voters: [1, 2, 3],
    config: fast,
    initial: new Map([
      [1, at([promote], 2)],
      [2, at([], 1)],
      [3, at([promote, more], 1)],
    ]),
  });
  net.crash(2);
  assert.ok(net.run(10 * T, () => net.leader() !== 0));
  assert.equal(net.leader(), 3);
});

test("a removed leader with the longer log tells by its refusal that its removal is committed (found by random lives)", () => {
  // n1 led, applied its own removal and has entries that nobody else has; n2 still counts by the joint configuration.
  const joint = { ...emptyConf, voters: [2], votersOutgoing: [1, 2], autoLeave: true };
  const leave = { term: 2, index: 2, kind: "confChange" as const, data: encodeConfChange(leaveJoint) };
  const more = { term: 2, index: 3, kind: "normal" as const, data: bytesOf("a") };
  const at = (entries: InitialState["entries"], commit: number): InitialState => ({
    hardState: { term: 2, vote: 0, commit },
    snapshot: { index: 1, term: 1, conf: joint },
    entries,
    applied: 1,
  });
  const net = new RaftNetwork({
    voters: [1, 2],
    config: fast,
    initial: new Map([
      [1, at([leave, more], 2)],
      [2, at([leave], 1)],
    ]),
  });
  assert.ok(net.run(10 * T, () => net.leader() === 2));
});

test("F10: a voter becomes a learner through a joint change; a leader that is demoted hands over first", () => {
  const follower = group([1, 2, 3]);
  follower.proposeConf(1, change([step("addLearner", 3)], "jointExplicit"));
  follower.settle();
  follower.run(2);
  assert.deepEqual([confOf(follower, 1).learnersNext, confOf(follower, 1).learners], [[3], []]);
  assert.equal(follower.core(1).status().peers.get(3)?.isLearner, false, "it still counts in the outgoing half");
  follower.proposeConf(1, leaveJoint);
  follower.settle();
  follower.run(2);
  assert.deepEqual([confOf(follower, 3).learners, confOf(follower, 3).voters], [[3], [1, 2]]);
  assert.equal(follower.leader(), 1);

  const leader = group([1, 2, 3]);
  leader.proposeConf(1, change([step("addLearner", 1), step("update", 2)]));
  leader.settle();
  leader.run(3);
  assert.ok(leader.leader() > 1);
  const terms = leader
    .disk(2)
    .entries.filter(({ kind }) => kind === "confChange")
    .map(({ term }) => term);
  assert.deepEqual(terms, [2, 3], "the successor left the joint configuration");
  assert.deepEqual(confOf(leader, leader.leader()).learners, [1]);
});

test("F10: a transfer to a member that stops being a voter is aborted", () => {
  const net = group([1, 2, 3, 4]);
  net.proposeConf(1, change([step("addLearner", 3)]));
  net.filter = ({ type }) => type !== "timeoutNow";
  assert.ok(net.input(1, (core) => core.transferLeadership(3)).accepted);
  assert.equal(net.core(1).status().transferTo, 3);
  net.settle();
  assert.deepEqual([net.core(1).status().transferTo, net.leader()], [0, 1]);
  net.propose(1, "a");
});

test("F11: a change of address or labels changes nobody's status", () => {
  const conf: ConfState = { ...emptyConf, voters: [1, 2], learners: [3], votersOutgoing: [], learnersNext: [] };
  for (const member of [1, 2, 3, 9]) {
    const changed = changeConf(conf, change([step("update", member)]));
    assert.ok(changed.valid);
    assert.deepEqual(changed.conf, conf);
  }
});

test("F12: a member that comes back with an empty log under its old id is found out, and nothing is committed by it", () => {
  const net = group([1, 2, 3]);
  net.propose(1, "a");
  net.settle();
  net.crash(3);
  const wiped = new Lone(joinerState(), { ...fast, id: 3 });
  net.tick(1);
  const [beat] = net.take(({ to, type }) => to === 3 && type === "heartbeat");
  assert.ok(beat !== undefined);
  assert.throws(() => wiped.core.step(beat), { code: "RAFT_LOG_REGRESSED" });
});

test("F13: after a restart, also while joint, the configuration equals that of the others", () => {
  const net = group([1, 2, 3], [4]);
  net.proposeConf(1, change([step("addLearner", 4)]));
  net.settle();
  net.run(3);
  net.snapshot(2);
  net.proposeConf(1, change([step("addVoter", 4), step("remove", 3)], "jointExplicit"));
  net.settle();
  net.run(3);
  for (const id of [1, 2, 3, 4]) net.reboot(id);
  assert.ok(net.run(10 * T, () => net.leader() !== 0));
  net.run(3);
  for (const id of [1, 2, 3, 4]) assert.deepEqual(confOf(net, id), confOf(net, net.leader()), `member ${id}`);
  assert.ok(isJoint(confOf(net, 2)));
  // A state machine that kept its own index gets the configuration as of that index.
  const { snapshot, entries, hardState } = net.disk(2);
  const last = entries.filter(({ kind }) => kind === "confChange").at(-1)?.index ?? 0;
  const ahead = new Lone(
    { snapshot, entries, hardState: { ...hardState, commit: last }, applied: last },
    { ...fast, id: 2 },
  );
  assert.deepEqual(ahead.status.conf, confOf(net, 2));
});

test("F14: a snapshot takes the place of a local uncommitted configuration with a higher index", () => {
  const conf = { ...emptyConf, voters: [1, 2, 3] };
  const phantom = {
    term: 2,
    index: 9,
    kind: "confChange" as const,
    data: encodeConfChange(change([step("addVoter", 9)])),
  };
  const entries = Array.from({ length: 7 }, (_, at) => ({
    term: 2,
    index: at + 2,
    kind: "empty" as const,
    data: new Uint8Array(0),
  }));
  const lone = new Lone(
    {
      hardState: { term: 2, vote: 0, commit: 1 },
      snapshot: { index: 1, term: 1, conf },
      entries: [...entries, phantom],
      applied: 1,
    },
    fast,
  );
  lone.step({
    type: "snapshot",
    from: 2,
    to: 1,
    term: 4,
    meta: { index: 5, term: 3, conf: { ...emptyConf, voters: [1, 2] } },
  });
  assert.deepEqual([lone.status.conf.voters, lone.status.lastIndex, lone.status.commit], [[1, 2], 5, 5]);
  lone.tick(2 * T);
  lone.take();
  lone.do((core) => core.campaign());
  assert.deepEqual(lone.take("append"), []);
  lone.win();
  assert.equal(lone.status.role, "leader");
  assert.deepEqual([...lone.status.peers.keys()], [1, 2]);
});

test("F15: 10,000 random lists of changes leave every replica equal and no voter set empty", () => {
  const random = new Random("F15");
  for (let run = 0; run < 10_000; run++) {
    let conf: ConfState = { ...emptyConf, voters: [1, 2, 3].slice(0, random.int(1, 4)) };
    let replica = conf;
    for (let at = random.int(1, 8); at > 0; at--) {
      const steps = Array.from({ length: random.int(0, 4) }, () =>
        step(random.pick(["addVoter", "addLearner", "remove", "update"]), random.int(0, 7)),
      );
      const asked = change(steps, random.pick(["auto", "jointImplicit", "jointExplicit"]));
      const changed = changeConf(conf, asked);
      // Another replica applies what came over the wire, from its own copy.
      const there = changeConf(structuredClone(replica), structuredClone(asked));
      assert.deepEqual(there, changed);
      if (!changed.valid) continue;
      ({ conf } = changed);
      if (there.valid) replica = there.conf;
      assert.ok(conf.voters.length > 0, JSON.stringify(asked));
      assert.equal(confDefect(conf), undefined, JSON.stringify(conf));
    }
    assert.deepEqual(replica, conf);
  }
});

test("F15: an invalid change that was committed changes nothing on any member", () => {
  const lone = new Lone(bootstrapState([1, 2, 3]), fast);
  for (const invalid of [
    change([step("remove", 1), step("remove", 2), step("remove", 3)]),
    change([step("addVoter", 0)]),
    leaveJoint,
  ]) {
    assert.deepEqual(lone.core.applyConfChange(invalid), bootstrapState([1, 2, 3]).snapshot.conf);
  }
});

test("F16: a removal that leaves less than a quorum of answering voters is refused, unless forced", () => {
  const net = group([1, 2, 3, 4, 5]);
  net.run(2);
  net.crash(4);
  net.crash(5);
  net.run(T + 1);
  // {1,2,3} answer of five; without 3 two of four would.
  assert.equal(refusalOf(net, 1, change([step("remove", 3)])), "RAFT_QUORUM_AT_RISK");
  assert.equal(refusalOf(net, 1, change([step("addLearner", 3)])), "RAFT_QUORUM_AT_RISK", "a demotion as well");
  net.proposeConf(1, change([step("remove", 5)]));
  net.settle();
  net.run(1);
  assert.deepEqual(confOf(net, 1).voters, [1, 2, 3, 4]);
  net.proposeConf(1, change([step("remove", 3)]), true);
});

test("F16: the rule against a plain count, for every set of up to 5 voters and answers", () => {
  for (let voters = 1; voters < 32; voters++) {
    for (let active = 0; active < 32; active++) {
      const ids = [1, 2, 3, 4, 5].filter((_, at) => (voters >> at) & 1);
      const isActive = (id: MemberId): boolean => ((active >> (id - 1)) & 1) === 1;
      const now: ConfState = { ...emptyConf, voters: ids };
      for (const id of ids) {
        const next = changeConf(now, change([step("remove", id)]));
        if (!next.valid) continue;
        const answering = next.conf.voters.filter(isActive).length;
        assert.equal(quorumAtRisk(now, next.conf, isActive) === undefined, answering * 2 > next.conf.voters.length);
      }
      const added = changeConf(now, change([step("addVoter", 6)]));
      assert.ok(added.valid && quorumAtRisk(now, added.conf, isActive) === undefined, "additions are not refused");
    }
  }
});

test("F17: the survivor of 3 or 5 goes on alone: committed data kept, the uncommitted end dropped, also after restarts", () => {
  for (const size of [3, 5]) {
    const ids = Array.from({ length: size }, (_, at) => at + 1);
    const net = group(ids, [9]);
    net.proposeConf(1, change([step("addLearner", 9)]));
    net.settle();
    net.propose(1, "kept");
    net.settle();
    net.run(2);
    net.isolate(2);
    net.propose(1, "seen by the others only");
    net.settle();
    const { snapshot, entries, hardState } = net.disk(2);
    const { commit } = net.core(2).status();
    const tail = {
      term: hardState.term,
      index: (entries.at(-1)?.index ?? 0) + 1,
      kind: "normal" as const,
      data: bytesOf("dropped"),
    };
    const recovered: InitialState = {
      snapshot,
      entries: [...entries, tail],
      hardState: { ...hardState, commit },
      applied: snapshot.index,
    };
    const forced = forceNewCluster(recovered, 2);
    assert.equal(confDefect(forced.snapshot.conf), undefined);
    const lone = new Lone(forced, { ...fast, id: 2 });
    assert.deepEqual(lone.status.conf, { ...emptyConf, voters: [2] });
    lone.tick(2 * T);
    assert.equal(lone.status.role, "leader");
    const values = lone.applied
      .filter(({ kind }) => kind === "normal")
      .map(({ data }) => new TextDecoder().decode(data));
    assert.deepEqual(values, ["kept"]);
    // A second time, and from the middle of a joint change, it still comes out alone.
    const twice = forceNewCluster(forced, 2);
    assert.equal(twice.entries.length, forced.entries.length);
    const joint = { ...snapshot, conf: { ...emptyConf, voters: [1, 2], votersOutgoing: [1, 3], autoLeave: true } };
    const outside = new Lone(
      forceNewCluster(
        { ...recovered, snapshot: joint, entries: [], hardState: { term: 2, vote: 0, commit: joint.index } },
        3,
      ),
      { ...fast, id: 3 },
    );
    assert.deepEqual(outside.status.conf.voters, [3]);
    assert.deepEqual(members(outside.status.conf), [3]);
  }
});

test("F18: a learner far behind is not promotable; it is within 2T of having caught up", () => {
  const net = group([1], [2], { promotionLagEntries: 16 });
  for (let at = 0; at < 100; at++) net.propose(1, ...Array.from({ length: 100 }, (_, i) => `${at}.${i}`));
  net.proposeConf(1, change([step("addLearner", 2)]));
  net.filter = (message) => !(message.to === 2 && (message.type === "append" || message.type === "snapshot"));
  net.settle();
  net.run(3 * T);
  assert.deepEqual(net.core(1).promotableLearners(), []);
  net.filter = () => true;
  net.run(3);
  assert.equal(net.core(1).status().peers.get(2)?.match, net.core(1).status().lastIndex);
  assert.deepEqual(net.core(1).promotableLearners(), [], "not before it has been so for a while");
  assert.ok(net.run(2 * T, () => net.core(1).promotableLearners().length > 0));
  net.proposeConf(1, change([step("addVoter", 2)]));
  net.settle();
  net.run(1);
  assert.deepEqual(confOf(net, 2).voters, [1, 2]);
});
