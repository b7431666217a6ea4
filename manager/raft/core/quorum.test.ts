import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { QuorumReader, quorumSize, voteResult } from "./quorum.ts";
import { RaftInvariantError } from "./errors.ts";
import { emptyConf } from "./conf.ts";

interface Member {
  readonly id: number;
  readonly value: number;
}

/** The plain definition: the largest value that more than half have reached. */
function plainlyReached(members: readonly Member[]): number {
  const candidates = members.map(({ value }) => value).sort((a, b) => b - a);
  return candidates.find(
    (least) => members.filter(({ value }) => value >= least).length * 2 > members.length,
  ) as number;
}

const half = fc
  .uniqueArray(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 9 })
  .chain((ids) =>
    fc.tuple(...ids.map((id) => fc.record({ id: fc.constant(id), value: fc.integer({ min: -1, max: 20 }) }))),
  );

test("reached() is what a plain majority of each half has reached", () => {
  const reader = new QuorumReader<Member>();
  const read = ({ value }: Member): number => value;
  fc.assert(
    fc.property(half, fc.option(half, { nil: [] }), (incoming, outgoing) => {
      const expected = Math.min(plainlyReached(incoming), ...(outgoing.length > 0 ? [plainlyReached(outgoing)] : []));
      assert.equal(reader.reached(incoming, outgoing, read), expected);
    }),
  );
  assert.throws(() => reader.reached([], [], read), RaftInvariantError);
});

test("voteResult() is won, lost or pending as plain majorities of both halves say", () => {
  const ids = fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 7 });
  const votes = fc.dictionary(fc.constantFrom("1", "2", "3", "4", "5", "6", "7", "8", "9"), fc.boolean());
  fc.assert(
    fc.property(ids, fc.option(ids, { nil: [] }), votes, (voters, votersOutgoing, given) => {
      const answers = new Map(Object.entries(given).map(([id, vote]) => [Number(id), vote]));
      const halves = [voters, votersOutgoing].filter((list) => list.length > 0);
      const count = (list: readonly number[], vote: boolean): number =>
        list.filter((id) => answers.get(id) === vote).length;
      const won = halves.every((list) => count(list, true) * 2 > list.length);
      const lost = halves.some((list) => (list.length - count(list, false)) * 2 <= list.length);
      const result = voteResult({ ...emptyConf, voters, votersOutgoing }, answers);
      assert.equal(result, won ? "won" : lost ? "lost" : "pending");
    }),
  );
});

test("quorumSize() of 1 to 9", () => {
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 8, 9].map(quorumSize), [1, 2, 2, 3, 3, 4, 4, 5, 5]);
});
