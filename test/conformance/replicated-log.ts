/** What every replicated log owes the store: the in-memory one of the tests and the real one pass the same suite. */
import { test } from "node:test";
import assert from "node:assert/strict";
import type { Leadership, ProposeOutcome, ReplicatedLog } from "../../manager/store/index.ts";

export interface LogHarness extends AsyncDisposable {
  /** Leads. */
  readonly leader: ReplicatedLog;
  /** Follows, and knows who leads. */
  readonly follower: ReplicatedLog;
  /** What the leader's state machine was given, in order; its `apply` returned `applied:<text>`. */
  readonly applied: readonly { readonly index: number; readonly text: string }[];
  /** Until everything that can be decided is. */
  settle(): Promise<void>;
  /** Makes the follower lead instead. */
  moveLeadership(): Promise<void>;
}

const bytes = (text: string): Uint8Array => Buffer.from(text);

/** Closes the harness whatever comes. */
const within = (open: () => Promise<LogHarness>, run: (harness: LogHarness) => Promise<void>) => async () => {
  const harness = await open();
  try {
    await run(harness);
  } finally {
    await harness[Symbol.asyncDispose]();
  }
};

export function replicatedLogConformance(name: string, open: () => Promise<LogHarness>): void {
  test(
    `${name}: an entry is applied, and its proposer gets its index and what apply returned`,
    within(open, async (harness) => {
      const outcomes: ProposeOutcome[] = [];
      harness.leader.propose(bytes("a"), (outcome) => outcomes.push(outcome));
      assert.deepEqual(outcomes, [], "the callback does not run inside the call");
      await harness.settle();
      assert.equal(harness.applied.length, 1);
      assert.deepEqual(outcomes, [{ kind: "committed", index: harness.applied[0]!.index, result: "applied:a" }]);
    }),
  );

  test(
    `${name}: entries enter the log in the order of the calls, many in flight at once`,
    within(open, async (harness) => {
      const order: string[] = [];
      const texts = Array.from({ length: 100 }, (_, at) => `entry ${at}`);
      for (const text of texts) harness.leader.propose(bytes(text), () => order.push(text));
      await harness.settle();
      assert.deepEqual(order, texts);
      assert.deepEqual(
        harness.applied.map(({ text }) => text),
        texts,
      );
      const indexes = harness.applied.map(({ index }) => index);
      assert.deepEqual(
        indexes,
        indexes.toSorted((a, b) => a - b),
      );
      assert.equal(new Set(indexes).size, texts.length);
    }),
  );

  test(
    `${name}: a follower refuses, and names the leader`,
    within(open, async (harness) => {
      const outcomes: ProposeOutcome[] = [];
      harness.follower.propose(bytes("a"), (outcome) => outcomes.push(outcome));
      assert.deepEqual(outcomes, []);
      await harness.settle();
      const { leader } = harness.follower.leadership();
      assert.ok(leader !== undefined);
      assert.deepEqual(outcomes, [{ kind: "notLeader", leader }]);
      assert.equal(harness.applied.length, 0);
    }),
  );

  test(
    `${name}: a read index, on leader and follower, contains what was acknowledged before`,
    within(open, async (harness) => {
      let committed = 0;
      harness.leader.propose(bytes("a"), (outcome) => (committed = outcome.kind === "committed" ? outcome.index : -1));
      await harness.settle();
      for (const log of [harness.leader, harness.follower]) {
        const indexes: number[] = [];
        log.readIndex((outcome) => indexes.push(outcome.kind === "applied" ? outcome.index : -1));
        assert.deepEqual(indexes, []);
        await harness.settle();
        assert.equal(indexes.length, 1);
        assert.ok(indexes[0]! >= committed && committed > 0);
      }
    }),
  );

  test(
    `${name}: what a member forwards is applied`,
    within(open, async (harness) => {
      harness.follower.forward(bytes("vote"));
      await harness.settle();
      assert.deepEqual(
        harness.applied.map(({ text }) => text),
        ["vote"],
      );
    }),
  );

  test(
    `${name}: leadership is told, and every proposal ends`,
    within(open, async (harness) => {
      const told: Leadership[] = [];
      const stop = harness.follower.onLeadership((leadership) => told.push(leadership));
      const { term } = harness.leader.leadership();
      const outcomes: ProposeOutcome[] = [];
      harness.leader.propose(bytes("in flight"), (outcome) => outcomes.push(outcome));
      await harness.moveLeadership();
      await harness.settle();
      assert.equal(outcomes.length, 1);
      if (outcomes[0]?.kind !== "committed") assert.equal(outcomes[0]?.kind, "unknown");
      assert.equal(harness.leader.leadership().leading, false);
      assert.equal(harness.follower.leadership().leading, true);
      assert.ok(told.some((leadership) => leadership.leading && leadership.term > term));
      stop();
      const count = told.length;
      const later: ProposeOutcome[] = [];
      harness.follower.propose(bytes("after"), (outcome) => later.push(outcome));
      await harness.settle();
      assert.equal(later[0]?.kind, "committed");
      assert.equal(told.length, count);
    }),
  );
}
