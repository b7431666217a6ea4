/** O5, G9: a full store is snapshotted, restarted and joined while writes go on. SKEP_FULL=1: 100,000 objects, 500 MB. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";

import { managersMethods } from "../../manager/managers-service.ts";
import { Counters } from "../support/counters.ts";
import { ManagerCluster } from "../support/manager-process.ts";
import { isFull, needsRoot, runStory } from "../support/story.ts";

/** A machine that does other things may keep a leader from its heartbeats for a second, whatever we do. */
const calmElectionMs = isFull ? "1000" : "4000";

test(
  "O5: snapshot, restart and join of a full store under load, without a change of leader",
  { timeout: isFull ? 1_800_000 : 600_000 },
  async (t) => {
    const cluster = await ManagerCluster.start({ managers: 3, args: ["--election-ms", calmElectionMs] });
    t.after(() => cluster[Symbol.asyncDispose]());
    const leader = await cluster.leader();
    const objects = isFull ? 100_000 : 4000;
    for (let first = 0; first < objects; first += 500) {
      const steps = Array.from({ length: 500 }, (_, at) => ({
        put: { key: `object-${first + at}`, value: Buffer.from(`value of ${first + at}`.padEnd(200, ".")) },
      }));
      const { failure } = await cluster.keys(leader).ask({ txn: { steps } });
      assert.equal(failure ?? undefined, undefined);
    }
    const { term } = await cluster.status(leader);
    const counters = new Counters(cluster, 8);
    await counters.progress(20);
    const call = { timeoutMs: 60_000, signal: AbortSignal.timeout(60_000) };
    for (const manager of cluster.running) {
      await cluster.channel(manager).call(managersMethods.snapshot, {}, call);
      await manager.logged("its snapshot", ({ message }) => message === "snapshotCreated");
    }
    await counters.progress(20);
    const follower = cluster.running.find((manager) => manager !== leader)!;
    await follower.kill();
    const back = await cluster.restart(follower);
    assert.equal(await cluster.get(back, `object-${objects - 1}`), `value of ${objects - 1}`.padEnd(200, "."));
    await cluster.add(4);
    await cluster.untilVoters(4);
    await counters.progress(20);
    assert.deepEqual(await counters.stop(), []);
    const after = await cluster.status(leader);
    assert.deepEqual([after.role, Number(after.term)], ["leader", Number(term)]);
    const hashes = new Set<string>();
    for (const manager of cluster.running) {
      // A linearizable read waits until this one has applied everything; nothing is written any more.
      await cluster.get(manager, "object-0");
      hashes.add((await cluster.status(manager)).stateHash ?? "");
    }
    assert.equal(hashes.size, 1);
  },
);

test(
  "G9: a large snapshot over a slow link to a newcomer, while writes go on, costs no leader its office",
  { skip: needsRoot, timeout: isFull ? 1_200_000 : 600_000 },
  async (t) => {
    interface Told {
      readonly transferMs: number;
      readonly sameLeader: boolean;
      readonly leaderGrewMegabytes: number;
      readonly followerGrewMegabytes: number;
      readonly hasLastObject: boolean;
      readonly failures: readonly string[];
    }
    const story = join(import.meta.dirname, "stories", "large-snapshot.ts");
    // The transfer takes longer than an election would: heartbeats that waited for it would be missed.
    const size = isFull ? ["500", "32", "80", calmElectionMs] : ["20", "8", "20", calmElectionMs];
    const [told] = await runStory<Told>(t, story, isFull ? 1_150_000 : 540_000, size);
    assert.ok(told !== undefined);
    t.diagnostic(JSON.stringify(told));
    assert.ok(told.sameLeader && told.hasLastObject);
    assert.deepEqual(told.failures, []);
    // The snapshot is read from disk chunk by chunk; what else grows meanwhile is the state that the clients write.
    const forTransfer = told.leaderGrewMegabytes - told.followerGrewMegabytes;
    assert.ok(forTransfer < 64, `${told.leaderGrewMegabytes} MB, a follower ${told.followerGrewMegabytes} MB`);
  },
);
