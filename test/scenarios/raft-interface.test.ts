/** Scenarios A: what the core exposes. */
import assert from "node:assert/strict";
import test from "node:test";
import {
  CoreConfigInvalid,
  InitialStateInvalid,
  MalformedMessage,
  type Message,
  RaftCore,
  RaftInvariantError,
  RaftRefusal,
  type Ready,
  type Refusal,
  bootstrapState,
  coreDefaults,
} from "../../manager/raft/core/index.ts";
import { chaos } from "../support/raft-chaos.ts";
import { Lone, append, heartbeat, voteRequest } from "../support/raft-lone.ts";
import { RaftNetwork, bytesOf, logState } from "../support/raft-network.ts";

const config = { ...coreDefaults, id: 1, seed: 1 };

test("A1: the same inputs give byte-identical outputs, faults and all", () => {
  const record = (): string[] => {
    const lines: string[] = [];
    chaos({ seed: 3, events: 1_500, trace: (event) => lines.push(JSON.stringify(event)) });
    return lines;
  };
  const first = record();
  assert.ok(first.length > 500, `${first.length} transitions`);
  assert.deepEqual(record(), first);
});

test("A1: members with one seed draw different timeouts, and another seed draws others", () => {
  const timeouts = (seed: number, id: number): number => {
    const core = new RaftCore({ ...config, id, seed, electionTicks: 1_000 }, bootstrapState([1, 2, 3]));
    let ticks = 0;
    while (core.status().role === "follower") {
      core.tick();
      ticks++;
    }
    return ticks;
  };
  assert.notEqual(timeouts(1, 1), timeouts(1, 2));
  assert.notEqual(timeouts(1, 1), timeouts(2, 1));
  assert.equal(timeouts(1, 1), timeouts(1, 1));
});

test("A1: settings that cannot work are refused with a typed error", () => {
  const start = (changed: object): RaftCore => new RaftCore({ ...config, ...changed }, bootstrapState([1]));
  for (const changed of [
    { id: 0 },
    { id: 1.5 },
    { electionTicks: 2, heartbeatTicks: 2 },
    { maxInflightMsgs: 0 },
    { seed: Number.NaN },
    { readMode: "lease", checkQuorum: false },
  ]) {
    assert.throws(() => start(changed), CoreConfigInvalid, JSON.stringify(changed));
  }
});

test("A2: a recovered state that no correct member can have written is refused with a typed error", () => {
  const good = logState([1, 2, 3], [1, 1, 2], { commit: 2 });
  const start = (changed: object): RaftCore => new RaftCore(config, { ...good, ...changed });
  start({});
  const [one, two, three] = good.entries;
  for (const [why, changed] of Object.entries({
    "a gap in the log": { entries: [one, three] },
    "a gap after the snapshot": { entries: [two, three] },
    "terms that fall": { entries: [one, { ...two, term: 0 }] },
    "a log of a later term than the vote": { hardState: { term: 1, vote: 0, commit: 1 } },
    "commit past the end": { hardState: { term: 2, vote: 0, commit: 4 } },
    "applied past commit": { applied: 3 },
    "a negative term": { hardState: { term: -1, vote: 0, commit: 0 } },
    "learner and voter at once": { snapshot: { ...good.snapshot, conf: { ...good.snapshot.conf, learners: [2] } } },
    "members out of order": { snapshot: { ...good.snapshot, conf: { ...good.snapshot.conf, voters: [2, 1] } } },
  })) {
    assert.throws(() => start(changed), InitialStateInvalid, why);
  }
});

test("A3: several Readies may be outstanding, and persisted(token) covers all before it", () => {
  const lone = Lone.leader(bootstrapState([1]));
  lone.holdDisk = true;
  for (const value of ["a", "b", "c"]) lone.do((core) => core.propose([bytesOf(value)]));
  assert.equal(lone.held.length, 3);
  assert.equal(lone.status.durableIndex, 2);
  lone.core.persisted((lone.held[1] as Ready).token);
  assert.equal(lone.status.durableIndex, 4);
  assert.equal(lone.status.commit, 4);
  lone.core.persisted((lone.held[1] as Ready).token);
  assert.throws(() => lone.core.persisted(1_000), RaftInvariantError);
});

test("A3: hasReady() changes nothing and tells whether ready() has anything to say", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]));
  assert.equal(lone.core.hasReady(), false);
  lone.core.propose([bytesOf("a")]);
  assert.equal(lone.core.hasReady(), true);
  assert.equal(lone.core.hasReady(), true);
  const ready = lone.core.ready();
  assert.equal(ready.entries.length, 1);
  assert.equal(lone.core.hasReady(), false);
});

test("A3: a commit index alone causes no write; it goes with the next entries", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]));
  lone.ack(2);
  const before = lone.readies.length;
  lone.do((core) => core.propose([bytesOf("a")]));
  lone.ack(2);
  const writes = lone.readies.slice(before).filter((ready) => ready.hardState !== undefined);
  assert.equal(writes.length, 1);
  assert.equal(writes[0]?.hardState?.commit, 2);
});

test("A4: status() tells what the catalogue lists", () => {
  const net = new RaftNetwork({ voters: [1, 2, 3] });
  net.elect(1);
  net.crash(3);
  net.propose(1, "a");
  net.settle();
  const status = net.core(1).status();
  assert.equal(status.role, "leader");
  assert.deepEqual([status.term, status.vote, status.leader, status.commit, status.applied], [2, 1, 1, 3, 3]);
  assert.deepEqual([status.firstIndex, status.lastIndex, status.durableIndex], [2, 3, 3]);
  assert.deepEqual(status.conf.voters, [1, 2, 3]);
  assert.deepEqual([...status.peers.keys()], [1, 2, 3]);
  const dead = status.peers.get(3);
  assert.equal(dead?.state, "replicate");
  assert.deepEqual([dead?.match, dead?.inflightMsgs, dead?.paused], [2, 1, false]);
  assert.equal(net.core(2).status().peers.size, 0);
});

test("A5: the trace tells every transition with term, vote, role, commit, last index and configuration", () => {
  const names = new Set<unknown>();
  const net = new RaftNetwork({
    voters: [1, 2, 3],
    trace: (event) => {
      names.add(event["name"]);
      for (const field of ["member", "term", "vote", "role", "commit", "lastIndex", "conf"])
        assert.ok(field in event, field);
      JSON.stringify(event);
    },
  });
  net.elect(1);
  net.propose(1, "a");
  net.settle();
  net.proposeConf(1, { steps: [{ act: "remove", member: 3 }] });
  net.settle();
  net.run(3);
  for (const name of [
    "init",
    "becomePreCandidate",
    "becomeCandidate",
    "becomeLeader",
    "becomeFollower",
    "commit",
    "replicate",
    "proposeConfChange",
    "applyConfChange",
    "ready",
    "send",
    "receive",
  ]) {
    assert.ok(names.has(name), name);
  }
});

test("A6: a malformed message is refused with a typed error before anything changes", () => {
  const lone = new Lone(logState([1, 2, 3], [1, 1, 2]));
  const good = append({ from: 2, term: 3, prevIndex: 3, prevTerm: 2 }, 3) as Extract<Message, { type: "append" }>;
  const bad: unknown[] = [
    { ...good, from: 0 },
    { ...good, from: 1 },
    { ...good, to: 2 },
    { ...good, term: -1 },
    { ...good, term: 2 ** 60 },
    { ...good, commit: 1.5 },
    { ...good, type: "gossip" },
    { ...heartbeat({ from: 2, term: 3 }), round: undefined },
    { ...voteRequest("vote", { from: 2, term: 3, lastIndex: 9, lastTerm: 3 }) },
    { type: "snapshot", from: 2, to: 1, term: 3, meta: { index: 9, term: 4, conf: bootstrapState([1]).snapshot.conf } },
    { type: "snapshot", from: 2, to: 1, term: 3, meta: { index: 0, term: 0, conf: bootstrapState([1]).snapshot.conf } },
  ];
  const before = JSON.stringify({ ...lone.status, peers: [] });
  for (const message of bad) {
    assert.throws(() => lone.core.step(message as Message), MalformedMessage, JSON.stringify(message));
    assert.equal(JSON.stringify({ ...lone.status, peers: [] }), before);
    assert.equal(lone.core.hasReady(), false);
  }
  lone.step(good);
  assert.equal(lone.status.lastIndex, 4);
});

test("A6: answers of somebody who is no member are ignored", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]));
  const before = JSON.stringify([...lone.status.peers]);
  lone.ack(9);
  lone.beat(9, 0);
  assert.equal(JSON.stringify([...lone.status.peers]), before);
});

test("A6: a peer that acknowledges what was never sent is told so, and changes nothing", () => {
  const lone = Lone.leader(bootstrapState([1, 2, 3]));
  assert.throws(() => lone.ack(2, 99), MalformedMessage);
  assert.throws(() => lone.beat(2, 99), MalformedMessage);
  assert.equal(lone.status.commit, 1);
});

test("A6: two leaders in one term stop the process", () => {
  const lone = new Lone(bootstrapState([1, 2, 3]));
  lone.step(heartbeat({ from: 2, term: 5 }));
  assert.throws(() => lone.core.step(heartbeat({ from: 3, term: 5 })), RaftInvariantError);
});

test("A2: every refusal becomes an error with a code and something to do", () => {
  const refusals: Refusal[] = [
    { code: "RAFT_NOT_LEADER", leader: 0 },
    { code: "RAFT_NOT_LEADER", leader: 2 },
    { code: "RAFT_BACKPRESSURE", pendingBytes: 1, pendingEntries: 1 },
    { code: "RAFT_ENTRY_TOO_LARGE", bytes: 2, bytesMax: 1 },
    { code: "RAFT_TRANSFER_IN_PROGRESS", to: 2 },
    { code: "RAFT_LEADER_UNCONFIRMED" },
    { code: "RAFT_CONF_CHANGE_PENDING", index: 3 },
    { code: "RAFT_CONF_CHANGE_INVALID", why: "no voter would be left" },
    { code: "RAFT_TERM_UNCOMMITTED" },
    { code: "RAFT_QUORUM_AT_RISK", active: 1, needed: 2 },
    { code: "RAFT_TRANSFER_TARGET_INVALID", to: 3, why: "it is not a member" },
  ];
  for (const refusal of refusals) {
    const error = new RaftRefusal(refusal);
    assert.equal(error.code, refusal.code);
    assert.match(error.message, /^Cannot /);
    assert.ok((error.fix ?? "").length > 10);
  }
});
