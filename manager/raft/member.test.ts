import assert from "node:assert/strict";
import { test } from "node:test";

import { ClusterError } from "../../lib/pure/errors.ts";
import type { AppendRequest, Message, SnapshotMeta, SnapshotRequest } from "./core/index.ts";
import type { Outcome } from "./proposals.ts";
import { SnapshotWriteFailed } from "./snapshot/index.ts";
import { SmallGroup, recordOf, type FakeMember } from "./testing/small-group.ts";

class StateDiverged extends ClusterError {
  readonly code = "STATE_DIVERGED";
}

class Incompatible extends ClusterError {
  readonly code = "INCOMPATIBLE";
}

test("three members elect a leader, and a proposal is applied everywhere", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  const outcome = group.propose(leader.id, "a");
  assert.deepEqual([outcome.kind, outcome.kind === "committed" && outcome.result], ["committed", "did a"]);
  group.until("all have it", () => [1, 2, 3].every((id) => group.at(id).applied.includes("a")));
});

test("proposals of one turn become one batch and one write", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "first");
  const savesBefore = leader.saves;
  let committed = 0;
  for (let count = 0; count < 500; count++) {
    leader.member.propose(Buffer.from(`p${count}`), (outcome) => (committed += outcome.kind === "committed" ? 1 : 0));
  }
  group.until("all committed", () => committed === 500);
  assert.equal(leader.saves - savesBefore, 1);
  assert.equal(leader.measures.get("batchEntries")?.at(-1), 500);
});

test("a follower refuses proposals with the leader's id and they leave no trace", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  const follower = [1, 2, 3].find((id) => id !== leader.id)!;
  group.until("the follower knows", () => group.at(follower).member.leader === leader.id);
  assert.deepEqual(group.propose(follower, "x"), { kind: "notLeader", leader: leader.id });
});

test("J4: a full budget answers backpressure, and the budget is back after the commits", () => {
  const group = new SmallGroup([1, 2, 3], { limits: { uncommittedEntriesMax: 10 } });
  const leader = group.untilLeader();
  group.propose(leader.id, "warm");
  const outcomes: Outcome[] = [];
  for (let count = 0; count < 15; count++) leader.member.propose(Buffer.from(`p${count}`), (o) => outcomes.push(o));
  assert.equal(outcomes.filter(({ kind }) => kind === "backpressure").length, 5);
  group.until("the rest is committed", () => outcomes.length === 15);
  assert.equal(group.propose(leader.id, "again").kind, "committed");
});

test("J3: an entry above the limit is refused before it is appended", () => {
  const group = new SmallGroup([1, 2, 3], { limits: { entryBytesMax: 100 } });
  const leader = group.untilLeader();
  assert.equal(group.propose(leader.id, "x".repeat(101)).kind, "tooLarge");
});

test("D8: a leader cut from its quorum never answers failed: unknown, or what really happened", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  group.propose(old.id, "before");
  group.drop = ({ from, to }) => from === old.id || to === old.id;
  const outcomes: Outcome[] = [];
  old.member.propose(Buffer.from("lost"), (outcome) => outcomes.push(outcome));
  group.until("another leads", () => [1, 2, 3].some((id) => id !== old.id && group.at(id).member.role === "leader"));
  group.until("it ends", () => outcomes.length === 1);
  assert.equal(outcomes[0]?.kind, "unknown");
});

test("E17: what was replaced in the log is failed once the other entry is applied", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  group.propose(old.id, "before");
  group.drop = ({ from, to }) => from === old.id || to === old.id;
  const outcomes: Outcome[] = [];
  old.member.propose(Buffer.from("lost"), (outcome) => outcomes.push(outcome));
  group.run(300);
  const next = group.outcome<number>((done) => {
    const look = (): void => {
      const found = [1, 2, 3].find((id) => id !== old.id && group.at(id).member.role === "leader");
      if (found === undefined) group.later(10, look);
      else done(found);
    };
    look();
  });
  group.propose(next, "instead");
  group.drop = () => false;
  group.until("it ends", () => outcomes.length === 1);
  assert.ok(outcomes[0]?.kind === "failed" || outcomes[0]?.kind === "unknown", outcomes[0]?.kind);
  group.until("the logs agree", () => old.applied.includes("instead"));
  assert.ok(!old.applied.includes("lost"));
});

test("D14: a stalled follower that finds heartbeats waiting does not campaign", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const { term } = leader.member;
  const follower = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  follower.pause();
  group.run(50 * 25);
  follower.resume();
  group.run(2000);
  assert.equal(leader.member.role, "leader");
  assert.equal(leader.member.term, term);
});

test("D14: a leader that stood still takes no proposal before a quorum has confirmed it", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  group.propose(old.id, "a");
  old.pause();
  group.run(3 * 400 + 1000);
  const outcomes: Outcome[] = [];
  // The proposal is in the same burst of input as everything else that waited.
  old.input(() => old.member.propose(Buffer.from("late"), (outcome) => outcomes.push(outcome)));
  const reads: string[] = [];
  old.input(() => old.member.readIndex((outcome) => reads.push(outcome.kind)));
  old.resume();
  group.until("both end", () => outcomes.length === 1 && reads.length === 1);
  assert.equal(outcomes[0]?.kind, "notLeader");
  group.run(1000);
  assert.ok([1, 2, 3].every((id) => !group.at(id).applied.includes("late")));
});

test("D15: leadership leaves a stalled disk within 3T, and the cluster commits again", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  group.propose(old.id, "a");
  old.diskStalled = true;
  old.member.propose(Buffer.from("b"), () => {});
  const stalledMs = group.nowMs;
  group.until(
    "another leads",
    () => [1, 2, 3].some((id) => id !== old.id && group.at(id).member.role === "leader"),
    1200,
  );
  const next = [1, 2, 3].find((id) => id !== old.id && group.at(id).member.role === "leader")!;
  assert.equal(group.propose(next, "c").kind, "committed");
  assert.ok(group.nowMs - stalledMs < 3 * 400, `${group.nowMs - stalledMs} ms`);
});

test("K11: writes that take 500 ms each for 10 s: a slow follower changes nothing, a slow leader hands over", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const { term } = leader.member;
  const slow = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  slow.diskMs = 500;
  const startMs = group.nowMs;
  for (let count = 0; group.nowMs - startMs < 10_000; count++) {
    const askedMs = group.nowMs;
    assert.equal(group.propose(leader.id, `f${count}`).kind, "committed");
    assert.ok(group.nowMs - askedMs < 50, `write ${count} took ${group.nowMs - askedMs} ms`);
    group.run(100);
  }
  assert.deepEqual([leader.member.role, leader.member.term, slow.fatal], ["leader", term, undefined]);
  group.until("the slow one has everything", () => slow.applied.length === leader.applied.length, 1000);

  slow.diskMs = undefined;
  leader.diskMs = 500;
  leader.member.propose(Buffer.from("on the slow disk"), () => {});
  const slowMs = group.nowMs;
  group.until("another leads", () => [1, 2, 3].some((id) => id !== leader.id && group.at(id).member.role === "leader"));
  const next = group.at([1, 2, 3].find((id) => id !== leader.id && group.at(id).member.role === "leader")!);
  assert.equal(group.propose(next.id, "g").kind, "committed");
  assert.ok(group.nowMs - slowMs < 3 * 400, `${group.nowMs - slowMs} ms`);
  group.run(10_000 - (group.nowMs - slowMs));
  assert.deepEqual([next.member.role, leader.fatal], ["leader", undefined]);
  leader.diskMs = undefined;
  group.propose(next.id, "last");
  group.until("it follows", () => leader.applied.at(-1) === "last");
  assert.deepEqual(leader.applied, next.applied);
});

test("O2: a process that stood still for long with a write on its way does not take that for a stalled disk", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  group.propose(old.id, "a");
  old.member.propose(Buffer.from("b"), () => {});
  group.run(0.1);
  old.pause();
  group.run(20 * 400);
  old.resume();
  group.run(2000);
  assert.equal(old.fatal, undefined);
  assert.equal(group.propose(group.untilLeader().id, "c").kind, "committed");
});

test("a disk that stalls for five election timeouts ends the process with its own error", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  old.diskStalled = true;
  old.member.propose(Buffer.from("b"), () => {});
  group.until("it ends", () => old.fatal !== undefined, 4000);
  assert.equal((old.fatal as ClusterError).code, "RAFT_DISK_STALLED");
});

test("K10: a write that waits for space does not end the process, and goes on when there is some", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  const follower = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  follower.diskStalled = true;
  follower.member.diskSpace("full");
  assert.equal(group.propose(leader.id, "b").kind, "committed");
  group.run(10_000);
  assert.equal(follower.fatal, undefined);
  follower.releaseDisk();
  follower.member.diskSpace("ok");
  group.until("it catches up", () => follower.applied.includes("b"));
});

test("K10: a leader whose disk is nearly full refuses proposals and hands over", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  leader.member.diskSpace("low");
  assert.equal(group.propose(leader.id, "b").kind, "backpressure");
  group.until("another leads", () => leader.member.role !== "leader");
  assert.equal(group.propose(group.untilLeader().id, "c").kind, "committed");
});

test("I5: proposals during a transfer wait, and are then offered to the new leader, not failed", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  group.propose(old.id, "a");
  const to = [1, 2, 3].find((id) => id !== old.id)!;
  const outcomes: Outcome[] = [];
  let transferred: unknown;
  old.member.transfer(to, (outcome) => (transferred = outcome));
  old.member.propose(Buffer.from("during"), (outcome) => outcomes.push(outcome));
  group.until("it ends", () => outcomes.length === 1 && transferred !== undefined);
  assert.deepEqual(transferred, { kind: "transferred", leader: to });
  assert.equal(outcomes[0]?.kind, "notLeader");
  assert.equal(group.propose(to, "during").kind, "committed");
});

test("I2: a transfer to a member that is cut off times out, and the leader goes on", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const to = [1, 2, 3].find((id) => id !== leader.id)!;
  group.drop = (message) => message.to === to;
  const outcomes: Outcome[] = [];
  const transfer = group.outcome<{ kind: string }>((done) => {
    leader.member.transfer(to, done);
    leader.member.propose(Buffer.from("during"), (outcome) => outcomes.push(outcome));
  });
  assert.equal(transfer.kind, "timedOut");
  group.until("the proposal is committed here", () => outcomes.length === 1);
  assert.equal(outcomes[0]?.kind, "committed");
});

test("F18: a learner far behind is not promoted; it becomes a voter within 2T of catching up", () => {
  const group = new SmallGroup([1, 2, 3], { limits: { promoteLagEntriesMax: 100 } });
  const leader = group.untilLeader();
  for (let count = 0; count < 10; count++) {
    const all = Array.from({ length: 1000 }, (_, at) => `e${count}-${at}`);
    let open = all.length;
    for (const text of all) leader.member.propose(Buffer.from(text), () => open--);
    group.until("a thousand are committed", () => open === 0);
  }
  const joiner = group.addJoiner(4);
  group.drop = (message) => message.to === 4 && message.type === "append" && message.entries.length > 0;
  const added = group.change(leader.id, {
    steps: [{ act: "addLearner", member: 4 }],
    records: [recordOf(4)],
    force: false,
  });
  assert.equal(added.kind, "changed");
  group.run(5000);
  assert.deepEqual(leader.member.conf.learners, [4]);
  group.drop = () => false;
  group.until("it has caught up", () => joiner.applied.length >= 10_000);
  const caughtUpMs = group.nowMs;
  group.until("it votes", () => leader.member.conf.voters.includes(4), 2 * 400);
  assert.ok(group.nowMs - caughtUpMs <= 2 * 400);
});

test("F16: a removal that leaves less than a living quorum is refused unless it is forced", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const [dead, alive] = [1, 2, 3].filter((id) => id !== leader.id) as [number, number];
  group.at(dead).crash();
  group.drop = ({ to, from }) => to === dead || from === dead;
  group.run(1000);
  const request = { steps: [{ act: "remove", member: alive }] as const, records: [] };
  const refused = group.change(leader.id, { ...request, force: false });
  assert.ok(refused.kind === "refused" && refused.error.code === "RAFT_QUORUM_AT_RISK", JSON.stringify(refused));
  assert.equal(
    group.change(leader.id, { steps: [{ act: "remove", member: dead }], records: [], force: false }).kind,
    "changed",
  );
});

test("F6: a leader that removes itself serves until then, hands over and goes silent", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  group.propose(old.id, "a");
  const changed = group.change(old.id, { steps: [{ act: "remove", member: old.id }], records: [], force: false });
  assert.equal(changed.kind, "changed");
  group.until("it knows", () => old.removed);
  assert.equal(old.member.state, "removed");
  group.until("another leads", () => [1, 2, 3].some((id) => id !== old.id && group.at(id).member.role === "leader"));
  const next = group.leader()!;
  assert.notEqual(next.id, old.id);
  assert.ok(next.member.table.isRemoved(old.id));
});

test("F6: the last voter leads alone after a power cut, though the leader that was removed is gone for good", () => {
  const group = new SmallGroup([1, 2]);
  const old = group.untilLeader();
  const last = group.at(old.id === 1 ? 2 : 1);
  group.propose(old.id, "a");
  group.change(old.id, { steps: [{ act: "remove", member: old.id }], records: [], force: false });
  group.until("the other knows", () => last.member.conf.voters.length === 1);
  // The machine of the removed one is taken away in the moment in which the other loses what is not on its disk.
  old.crash();
  group.drop = ({ from, to }) => from === old.id || to === old.id;
  last.restart();
  group.until("it leads", () => last.member.role === "leader");
  assert.deepEqual(last.member.conf.voters, [last.id]);
  assert.equal(group.propose(last.id, "b").kind, "committed");
});

test("F13: a configuration change is in force only once the disk knows that it is committed", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const gone = [1, 2, 3].find((id) => id !== leader.id)!;
  const seen: { commit: number; index: number }[] = [];
  const { applied } = leader.member.status();
  leader.member.changeMembers({ steps: [{ act: "remove", member: gone }], records: [], force: false }, () => {});
  group.until("all that stay have it", () => {
    for (const id of [1, 2, 3]) {
      const { member, disk } = group.at(id);
      if (member.conf.voters.length === 2) seen.push({ commit: disk.recovered.hardState.commit, index: applied + 1 });
    }
    return [1, 2, 3].filter((id) => group.at(id).member.conf.voters.length === 2).length >= 2;
  });
  assert.ok(seen.length >= 2);
  for (const { commit, index } of seen) assert.ok(commit >= index, `commit ${commit} on disk, change at ${index}`);
});

test("a removed id is refused for ever", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const gone = [1, 2, 3].find((id) => id !== leader.id)!;
  group.change(leader.id, { steps: [{ act: "remove", member: gone }], records: [], force: false });
  const refused = group.change(leader.id, {
    steps: [{ act: "addLearner", member: gone }],
    records: [recordOf(gone)],
    force: true,
  });
  assert.ok(refused.kind === "refused" && refused.error.code === "RAFT_MEMBER_WAS_REMOVED");
});

test("F11: an update of the address changes the table and nobody's vote", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const before = leader.member.conf;
  const record = { ...recordOf(2), address: "elsewhere:1" };
  group.change(leader.id, { steps: [{ act: "update", member: 2 }], records: [record], force: false });
  assert.deepEqual(leader.member.conf, before);
  group.until("all know", () => [1, 2, 3].every((id) => group.at(id).member.table.get(2)?.address === "elsewhere:1"));
});

test("H5: a thousand reads of one turn cost one round, on the leader and on a follower", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  for (const id of [leader.id, [1, 2, 3].find((other) => other !== leader.id)!]) {
    group.until("it knows the leader", () => group.at(id).member.leader === leader.id);
    let ready = 0;
    for (let count = 0; count < 1000; count++) {
      group.at(id).member.readIndex((outcome) => (ready += outcome.kind === "ready" ? 1 : 0));
    }
    group.until("all are answered", () => ready === 1000);
    assert.equal(group.at(id).measures.get("readBatch")?.at(-1), 1000);
  }
});

test("H4: a follower's read whose answer is lost is asked again under a new id", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const follower = [1, 2, 3].find((id) => id !== leader.id)!;
  group.until("it knows", () => group.at(follower).member.leader === leader.id);
  const ids: number[] = [];
  group.drop = (message) => {
    if (message.type !== "readIndex") return false;
    ids.push(message.requestId);
    return ids.length < 3;
  };
  let outcome = group.read(follower);
  while (outcome.kind === "retry") outcome = group.read(follower);
  assert.equal(outcome.kind, "ready");
  assert.equal(new Set(ids).size, ids.length);
});

test("H7: a stall too short to be told ends a lease all the same: its ticks are never counted", () => {
  const stallMs = 190;
  /** A leader under lease that hears nobody any more. */
  const alone = (): { group: SmallGroup; leader: FakeMember } => {
    const group = new SmallGroup([1, 2, 3], { leaseReads: true });
    const leader = group.untilLeader();
    group.propose(leader.id, "a");
    group.run(500);
    group.drop = ({ from, to }) => from === leader.id || to === leader.id;
    return { group, leader };
  };
  const first = alone();
  let leaseMs = 0;
  for (; first.leader.member.leaseHolds(); leaseMs++) first.group.run(1);
  assert.ok(leaseMs > 200 && leaseMs <= 0.8 * 400, `a lease of ${leaseMs} ms`);
  // Another life, the same up to now. When it goes on, the others have waited for longer than their timeouts.
  const { group, leader } = alone();
  group.run(leaseMs - 2);
  assert.equal(leader.member.leaseHolds(), true);
  assert.ok(leaseMs + stallMs > 400 && stallMs < 400 / 2);
  const reads: string[] = [];
  leader.pause();
  group.run(stallMs);
  leader.input(() => leader.member.readIndex(({ kind }) => reads.push(kind)));
  leader.resume();
  assert.equal(leader.member.leaseHolds(), false);
  group.run(100);
  assert.deepEqual(
    reads.filter((kind) => kind === "ready"),
    [],
  );
  group.drop = () => false;
  const next = group.untilLeader();
  assert.equal(group.propose(next.id, "b").kind, "committed");
});

test("H7: a lease that ends between the core's word and the look at the clock is not read under", () => {
  const group = new SmallGroup([1, 2, 3], { leaseReads: true });
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  group.run(500);
  assert.equal(leader.member.leaseHolds(), true);
  // The process stands still inside the turn that answers: while it sends, before the read is told.
  let stoodStill = false;
  group.drop = ({ type, from, to }) => {
    if (type === "append" && !stoodStill) {
      stoodStill = true;
      group.nowMs += 1000;
    }
    return from === leader.id || to === leader.id;
  };
  const reads: string[] = [];
  leader.member.propose(Buffer.from("b"), () => {});
  leader.member.readIndex(({ kind }) => reads.push(kind));
  group.run(50);
  assert.ok(stoodStill);
  assert.ok(!reads.includes("ready"), reads.join(" "));
});

test("D8: a change of the members whose leader is cut off ends as unknown, and is not waited for for ever", () => {
  const group = new SmallGroup([1, 2, 3]);
  const old = group.untilLeader();
  group.propose(old.id, "a");
  group.drop = ({ from, to }) => from === old.id || to === old.id;
  const gone = [1, 2, 3].find((id) => id !== old.id)!;
  const outcomes: string[] = [];
  const request = { steps: [{ act: "remove", member: gone }] as const, records: [], force: false };
  old.member.changeMembers(request, ({ kind }) => outcomes.push(kind));
  group.until("it has stepped down", () => old.member.role !== "leader");
  assert.deepEqual(outcomes, [], "it may be told yet");
  group.until("it ends", () => outcomes.length > 0, 4 * 400);
  group.run(2000);
  assert.deepEqual(outcomes, ["unknown"]);
});

test("a snapshot is taken when the log has grown, the log is cut behind it, and a restart goes on from both", () => {
  const group = new SmallGroup([1, 2, 3], {
    limits: { snapshotLogBytesMin: 20_000, trailingEntries: 50, trailingBytes: 0, trailingLiveBytesMax: 0 },
  });
  const leader = group.untilLeader();
  for (let count = 0; count < 40; count++) group.propose(leader.id, `${count}-${"x".repeat(1000)}`);
  group.until("a snapshot", () => leader.notices.includes("snapshotCreated"));
  group.run(200);
  assert.ok(leader.member.status().snapshotIndex > 1);
  const before = [...leader.applied];
  leader.restart();
  group.until("it is back", () => leader.applied.length >= before.length);
  assert.deepEqual(leader.applied.slice(0, before.length), before);
});

test("G1: a member behind the log gets a snapshot and goes on from there", () => {
  const group = new SmallGroup([1, 2, 3], {
    limits: { snapshotLogEntriesMax: 30, trailingEntries: 5, trailingBytes: 0, trailingLiveBytesMax: 0 },
  });
  const leader = group.untilLeader();
  const away = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  away.crash();
  group.drop = ({ to }) => to === away.id;
  for (let count = 0; count < 100; count++) group.propose(leader.id, `e${count}`);
  group.run(100);
  group.drop = () => false;
  away.start();
  group.until("it has everything", () => away.applied.length === 100);
  assert.ok(away.notices.includes("snapshotInstalled"));
  group.propose(leader.id, "last");
  group.until("it follows", () => away.applied.at(-1) === "last");
});

/** A leader with `count` snapshots, ten entries apart, and a follower that is cut off and has none of them. */
function apart(count: number): { group: SmallGroup; leader: FakeMember; away: FakeMember; metas: SnapshotMeta[] } {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  const away = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  group.propose(leader.id, "first");
  group.until("all have it", () => [1, 2, 3].every((id) => group.at(id).applied.length === 1));
  group.drop = ({ from, to }) => to === away.id || from === away.id;
  const metas: SnapshotMeta[] = [];
  while (metas.length < count) {
    for (let entry = 0; entry < 10; entry++) group.propose(leader.id, `e${metas.length}-${entry}`);
    assert.ok(leader.member.takeSnapshot());
    const { appliedIndex } = leader.member;
    group.until("a snapshot", () => leader.disk.recovered.snapshot.index === appliedIndex);
    metas.push(leader.disk.recovered.snapshot);
    away.disk.snapshots.set(appliedIndex, leader.disk.snapshots.get(appliedIndex)!);
  }
  return { group, leader, away, metas };
}

function snapshotFor(leader: FakeMember, away: FakeMember, meta: SnapshotMeta): SnapshotRequest {
  return { type: "snapshot", from: leader.id, to: away.id, term: leader.member.term, meta };
}

test("G13: two snapshots that arrive shortly after each other are loaded one after the other, and the newer one stays", () => {
  const { group, leader, away, metas } = apart(2);
  const [older, newer] = metas as [SnapshotMeta, SnapshotMeta];
  // Side by side the older one would end last.
  away.loadMs.set(older.index, 50).set(newer.index, 1);
  away.member.receive(snapshotFor(leader, away, older));
  group.until("the first is being loaded", () => away.loading === 1);
  away.member.receive(snapshotFor(leader, away, newer));
  group.until("the second is in force", () => away.member.appliedIndex === newer.index);
  assert.equal(away.mostLoading, 1);
  assert.deepEqual(away.applied, leader.applied);
  group.drop = () => false;
  group.propose(leader.id, "last");
  group.until("it goes on from there", () => away.applied.at(-1) === "last");
  assert.deepEqual(away.applied, leader.applied);
});

test("P8: a snapshot that takes long to load is no stall of the disk, and entries behind it wait for it", () => {
  const { group, leader, away, metas } = apart(1);
  away.loadMs.set(metas[0]!.index, 20_000);
  away.member.receive(snapshotFor(leader, away, metas[0]!));
  group.drop = () => false;
  group.propose(leader.id, "meanwhile");
  group.run(15_000);
  assert.equal(away.fatal, undefined);
  assert.equal(away.loading, 1);
  assert.equal(away.member.status().diskStallMs, 0);
  assert.equal(leader.member.role, "leader");
  group.until("it has everything", () => away.applied.at(-1) === "meanwhile");
  assert.deepEqual(away.applied, leader.applied);
});

test("K8: a disk that fails while a snapshot is loaded ends the process; it is no reason for a quarantine", () => {
  const { group, leader, away, metas } = apart(1);
  away.loadFailure = new SnapshotWriteFailed("read", new Error("EIO: i/o error, read"));
  away.member.receive(snapshotFor(leader, away, metas[0]!));
  group.until("it ends", () => away.fatal !== undefined);
  assert.equal((away.fatal as ClusterError).code, "RAFT_DISK_FAILED");
  assert.equal(away.quarantined, undefined);
  // What its disk holds is as good as ever: it comes back with the snapshot.
  away.loadFailure = undefined;
  away.fatal = undefined;
  away.restart();
  group.drop = () => false;
  group.propose(leader.id, "last");
  group.until("it has everything", () => away.applied.at(-1) === "last");
  assert.deepEqual(away.applied, leader.applied);
});

test("L5: a snapshot that needs a newer program ends the process with the reason; it is no reason for a quarantine", () => {
  const { group, leader, away, metas } = apart(1);
  away.loadFailure = new Incompatible("Cannot follow the cluster at a snapshot: it needs feature level 2, not 1");
  away.member.receive(snapshotFor(leader, away, metas[0]!));
  group.until("it ends", () => away.fatal !== undefined);
  assert.equal((away.fatal as ClusterError).code, "INCOMPATIBLE");
  assert.equal(away.quarantined, undefined);
});

test("L7: a snapshot is not made of memory that has changed by itself: the member goes into quarantine", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  leader.snapshotFailure = new StateDiverged("Cannot trust this member's state");
  assert.ok(leader.member.takeSnapshot());
  group.until("it knows", () => leader.quarantined !== undefined);
  assert.equal(leader.fatal, undefined);
  group.until("another leads", () => group.leader() !== undefined);
  assert.equal(group.propose(group.leader()!.id, "b").kind, "committed");
});

test("G3: a log that begins behind a snapshot never claims a commit beyond it, though entries came in the same turn", () => {
  const { group, leader, away, metas } = apart(1);
  const meta = metas[0]!;
  group.propose(leader.id, "after");
  const { entries } = leader.disk.recovered;
  const append: AppendRequest = {
    type: "append",
    from: leader.id,
    to: away.id,
    term: leader.member.term,
    prevIndex: meta.index,
    prevTerm: meta.term,
    entries: entries.filter(({ index }) => index > meta.index),
    commit: leader.member.appliedIndex,
  };
  assert.ok(append.entries.length > 0 && append.commit > meta.index);
  away.member.receive(snapshotFor(leader, away, meta));
  away.member.receive(append);
  group.until("it has everything", () => away.applied.at(-1) === "after");
  assert.deepEqual(away.resets, [{ index: meta.index, commit: meta.index }]);
});

test("F7: a removed member goes on answering candidates, and does nothing else", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const gone = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  const other = group.at([1, 2, 3].find((id) => id !== leader.id && id !== gone.id)!);
  group.change(leader.id, { steps: [{ act: "remove", member: gone.id }], records: [], force: false });
  group.until("it knows", () => gone.removed);
  const sent: Message[] = [];
  group.drop = (message) => {
    if (message.from === gone.id) sent.push(message);
    return message.from === gone.id || message.to === gone.id;
  };
  const { commit, term } = gone.member.status();
  const ask = {
    from: other.id,
    to: gone.id,
    lastIndex: commit - 1,
    lastTerm: term,
    transfer: false,
    commit: 1,
    commitTerm: 1,
  };
  group.run(2 * 400);
  gone.member.receive({ ...ask, type: "preVote", term: term + 1 });
  gone.member.receive({ ...ask, type: "vote", term: term + 1 });
  group.until("both are answered", () => sent.length >= 2);
  group.run(5000);
  // The commit index that comes with the answers is what a candidate that missed the removal needs.
  assert.deepEqual(
    sent.map((message) => [message.type, "commit" in message && message.commit]),
    [
      ["preVoteResponse", commit],
      ["voteResponse", commit],
    ],
  );
  assert.equal(gone.member.state, "removed");
  assert.equal(group.propose(gone.id, "x").kind, "stopped");
});

test("F12: a member that lost what it acknowledged goes into quarantine and stays silent", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const lost = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  group.until("it has a", () => lost.applied.includes("a"));
  // The same id with an older disk, while the leader still counts on what it acknowledged.
  lost.crash();
  const { recovered } = lost.disk;
  lost.disk.recovered = { ...recovered, hardState: { ...recovered.hardState, commit: 1 }, entries: [] };
  lost.start();
  group.until("it knows", () => lost.quarantined !== undefined);
  assert.equal(lost.member.state, "quarantined");
  assert.equal(group.propose(leader.id, "b").kind, "committed");
});

test("K5: a hard state that says more than the log has puts the member into quarantine", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  const lost = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  group.until("it has a", () => lost.applied.includes("a"));
  lost.crash();
  lost.disk.recovered = { ...lost.disk.recovered, entries: [] };
  lost.start();
  group.until("it knows", () => lost.quarantined !== undefined);
  assert.equal(lost.fatal, undefined);
});

test("L7: a state that differs from the majority's puts the member into quarantine", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  const bad = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  bad.poison = { command: "check", error: new StateDiverged("Cannot trust this member's state") };
  group.propose(leader.id, "check");
  group.until("it knows", () => bad.quarantined !== undefined);
  assert.equal(bad.fatal, undefined);
});

test("L5: an entry that cannot be applied stops the member instead of being skipped", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  const old = group.at([1, 2, 3].find((id) => id !== leader.id)!);
  old.poison = { command: "future", error: new Error("what is this?") };
  group.propose(leader.id, "future");
  group.until("it stops", () => old.fatal !== undefined);
  assert.equal((old.fatal as ClusterError).code, "RAFT_APPLY_FAILED");
  assert.ok(!old.applied.includes("future"));
});

test("J7: a hundred thousand proposals in one turn keep heartbeats on time", () => {
  const group = new SmallGroup([1, 2, 3], { limits: { uncommittedEntriesMax: 200_000, applyMsPerTurn: 1e9 } });
  const leader = group.untilLeader();
  group.propose(leader.id, "warm");
  const { term } = leader.member;
  let open = 100_000;
  for (let count = 0; count < 100_000; count++) leader.member.propose(Buffer.from("x"), () => open--);
  let mostApplied = 0;
  let lastHeartbeatMs = group.nowMs;
  let longestPauseMs = 0;
  group.drop = (message) => {
    if (message.type === "heartbeat" && message.to === group.at(2).id) {
      longestPauseMs = Math.max(longestPauseMs, group.nowMs - lastHeartbeatMs);
      lastHeartbeatMs = group.nowMs;
    }
    return false;
  };
  group.until(
    "all are settled",
    () => {
      const before = leader.applied.length;
      group.step();
      mostApplied = Math.max(mostApplied, leader.applied.length - before);
      return open === 0;
    },
    60_000,
  );
  assert.equal(leader.member.term, term);
  // What one turn may cost is bounded by what it handles; how long that takes is the bench's to say.
  assert.ok(Math.max(...(leader.measures.get("batchEntries") ?? [])) <= 4000);
  assert.ok(mostApplied <= 1000, `${mostApplied} entries in one turn`);
  assert.ok(leader.id === 2 || longestPauseMs <= 75, `${longestPauseMs} ms without a heartbeat`);
});

test("a member that rests between heartbeats beats at their pace, misses no election, and does as if it did not rest", () => {
  const told = [false, true].map((rests) => {
    const group = new SmallGroup([1, 2, 3], { rests });
    const leader = group.untilLeader();
    group.propose(leader.id, "a");
    group.run(500);
    const beats: number[] = [];
    let calls = 0;
    group.drop = ({ type, from, to }) => {
      if (type === "heartbeat" && from === leader.id && to === (leader.id % 3) + 1) beats.push(group.nowMs);
      return false;
    };
    const elapsed = leader.member.elapsed.bind(leader.member);
    leader.member.elapsed = () => (calls++, elapsed());
    group.run(10_000);
    const gaps = beats.slice(1).map((atMs, before) => atMs - (beats[before] ?? 0));
    assert.ok(Math.max(...gaps) < 51, `at most ${Math.max(...gaps)} ms between heartbeats`);
    assert.equal(group.propose(leader.id, "b").kind, "committed");
    group.until("all have it", () => [1, 2, 3].every((id) => group.at(id).applied.includes("b")), 60);
    assert.equal(group.leader(), leader, "no election");
    const diedMs = group.nowMs;
    leader.crash();
    group.drop = () => false;
    group.until("another leads", () =>
      [1, 2, 3].some((id) => id !== leader.id && group.at(id).member.role === "leader"),
    );
    const tookMs = group.nowMs - diedMs;
    assert.ok(tookMs >= 400 - 50 && tookMs < 900, `${tookMs} ms until another led`);
    return { beats: beats.length, calls };
  });
  const [before, now] = told as [{ beats: number; calls: number }, { beats: number; calls: number }];
  assert.ok(Math.abs(now.beats - before.beats) <= 1, `${now.beats} and ${before.beats} heartbeats`);
  assert.ok(before.calls >= 399, `${before.calls} calls without rest`);
  assert.ok(now.calls <= 205, `${now.calls} calls in ten seconds`);
});

test("followers at rest answer every other heartbeat, as the leader asks, and a read is confirmed at once all the same", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  group.run(500);
  const seen = { beats: 0, asked: 0, answers: 0 };
  group.drop = (message) => {
    if (message.type === "heartbeat") seen.beats++;
    if (message.type === "heartbeat" && message.unanswered !== true) seen.asked++;
    if (message.type === "heartbeatResponse") seen.answers++;
    return false;
  };
  group.run(10_000);
  assert.ok(Math.abs(seen.beats - 400) <= 4, `${seen.beats} heartbeats`);
  assert.ok(Math.abs(seen.answers - 200) <= 4, `${seen.answers} answers`);
  assert.ok(Math.abs(seen.asked - seen.answers) <= 2, `${seen.asked} asked`);
  const read: string[] = [];
  leader.member.readIndex(({ kind }) => read.push(kind));
  group.until("a read is confirmed within a round trip", () => read.length === 1, 20);
  assert.deepEqual(read, ["ready"]);
});

test("a leader that nobody answers gives up within its election timeout, although it did not ask with each heartbeat", () => {
  const group = new SmallGroup([1, 2, 3]);
  const leader = group.untilLeader();
  group.propose(leader.id, "a");
  group.run(500);
  group.drop = ({ from, to }) => from === leader.id || to === leader.id;
  const cutMs = group.nowMs;
  group.until("it gives up", () => leader.member.role !== "leader", 1000);
  const tookMs = group.nowMs - cutMs;
  assert.ok(tookMs >= 275 && tookMs <= 450, `${tookMs} ms`);
});
