/** Real managers whose network and disks fail: O3, K8, K10, K12. Each story has a machine of its own. SKEP_FULL=1 runs long. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { ManagerCluster } from "../support/manager-process.ts";
import { isFull, needsRoot, runStory } from "../support/story.ts";

const story = (name: string): string => join(import.meta.dirname, "stories", `${name}.ts`);

test(
  "O3: links cut one way and both ways, without a reset, are noticed by missing answers",
  { skip: needsRoot, timeout: 600_000 },
  async (t) => {
    interface Told {
      readonly stepDownMs: number;
      readonly staleRefused: string;
      readonly termGrew: number;
      readonly failures: readonly string[];
    }
    const [told] = await runStory<Told>(t, story("partitions"), 540_000);
    assert.ok(told !== undefined);
    t.diagnostic(`an isolated leader stepped down after ${told.stepDownMs.toFixed(0)} ms`);
    // TCP would take a quarter of an hour, the story is given nine minutes. On a quiet machine it is 2T.
    if (isFull) assert.ok(told.stepDownMs < 4000, `${told.stepDownMs} ms`);
    assert.notEqual(told.staleRefused, "");
    assert.equal(told.termGrew, 0);
    assert.deepEqual(told.failures, []);
  },
);

test(
  "K10: a full disk stops acknowledgements, not the process, and a leader with little room hands over",
  { skip: needsRoot, timeout: 600_000 },
  async (t) => {
    const [told] = await runStory<Record<string, unknown>>(t, story("full-disk"), 540_000);
    assert.deepEqual(told, { committed: 200, stillRuns: true, caughtUp: true, leaderMoved: true, after: "done" });
  },
);

test(
  "K12: after power cuts of all three, everything acknowledged is there once",
  { skip: needsRoot, timeout: isFull ? 36_000_000 : 600_000 },
  async (t) => {
    const rounds = isFull ? 300 : 3;
    const [told] = await runStory<{ acknowledged: number; repeated: number; failures: string[] }>(
      t,
      story("power-cut"),
      isFull ? 35_000_000 : 540_000,
      [String(rounds)],
    );
    assert.deepEqual(told?.failures, []);
    t.diagnostic(
      `${told?.acknowledged} writes acknowledged over ${rounds} power cuts, ${told?.repeated} answers repeated`,
    );
  },
);

test(
  "K8: one failed fdatasync ends the process with 70, before it says anything that depends on it",
  { timeout: 300_000 },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "skep-sync-"));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const library = join(folder, "fail-sync.so");
    const source = join(import.meta.dirname, "../support/fail-sync.c");
    execFileSync("gcc", ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"]);
    const trigger = join(folder, "now");
    const cluster = await ManagerCluster.start({
      managers: 3,
      args: ["--election-ms", "1000"],
      place: (number) => (number === 2 ? { env: { LD_PRELOAD: library, FAIL_SYNC_WHEN: trigger } } : {}),
    });
    t.after(() => cluster[Symbol.asyncDispose]());
    const victim = cluster.managers[1]!;
    await cluster.put(await cluster.leader(), "before", "1");
    const { lastIndex } = await cluster.status(victim);
    writeFileSync(trigger, "");
    const startMs = performance.now();
    // Whichever write reaches the victim's disk first is the one that fails.
    const survivor = cluster.managers[0]!;
    const written = await cluster.put(survivor, "during", "2");
    assert.equal(await victim.exited(), 70, victim.tail());
    t.diagnostic(`it ended ${(performance.now() - startMs).toFixed(0)} ms after the disk began to fail`);
    assert.match(victim.stderr, /\[LOG_WRITE_FAILED\]\nmanager: [A-Z]/u);
    // The others have a quorum without it; what they acknowledged holds.
    const leader = await cluster.leader();
    if (!written.failure) assert.equal(await cluster.get(leader, "during"), "2");
    assert.equal((await cluster.put(leader, "after", "3")).failure ?? undefined, undefined);
    // With the disk in order again it goes on from what is really there.
    rmSync(trigger);
    const back = await cluster.restart(victim);
    assert.ok(Number((await cluster.status(back)).lastIndex) >= Number(lastIndex));
    assert.equal(await cluster.get(back, "after"), "3");
  },
);
