import assert from "node:assert/strict";
import test from "node:test";
import { Random } from "../../../lib/pure/prng.ts";
import { RaftInvariantError } from "./errors.ts";
import { RaftLog, entryBytes } from "./log.ts";
import type { Entry } from "./types.ts";

const entry = (index: number, term: number, bytes = 0): Entry => ({
  index,
  term,
  kind: "normal",
  data: new Uint8Array(bytes),
});
const logOf = (...terms: number[]): RaftLog =>
  new RaftLog(
    { index: 0, term: 0 },
    terms.map((term, at) => entry(at + 1, term)),
    0,
  );

test("lastIndexWithTermAtMost() finds what a plain search finds", () => {
  const random = new Random("terms");
  for (let run = 0; run < 500; run++) {
    let term = 1;
    const terms = Array.from({ length: random.int(0, 20) }, () => (term += random.int(0, 3)));
    const log = logOf(...terms);
    const boundary = random.int(0, terms.length + 1);
    log.commitTo(terms.length);
    log.compact(boundary);
    for (let index = boundary; index <= terms.length + 2; index++) {
      for (let most = log.term(boundary) ?? 0; most <= term + 1; most++) {
        let plain = Math.min(index, terms.length);
        while (plain > boundary && (log.term(plain) as number) > most) plain--;
        assert.equal(log.lastIndexWithTermAtMost(index, most), plain);
      }
    }
  }
});

test("append, cut, compact and sizes agree with a plain list, over random lives", () => {
  const random = new Random("log");
  for (let run = 0; run < 100; run++) {
    const log = logOf();
    let plain: Entry[] = [];
    let first = 1;
    let term = 1;
    for (let at = 0; at < 100; at++) {
      const act = random.int(0, 4);
      const last = first - 1 + plain.length;
      if (act === 0) {
        const added = entry(last + 1, (term += random.int(0, 2)), random.int(0, 50));
        log.append(added);
        plain.push(added);
      } else if (act === 1 && last > log.commit) {
        const from = random.int(log.commit + 1, last + 1);
        term++;
        const added = [entry(from, term, 5), entry(from + 1, term, 6)];
        assert.equal(log.truncateAndAppend(added), last - from + 1);
        plain = [...plain.slice(0, from - first), ...added];
      } else if (act === 2) log.commitTo(random.int(0, last + 1));
      else if (log.commit >= first && random.chance(0.3)) {
        const index = random.int(first, log.commit + 1);
        log.compact(index);
        plain = plain.slice(index - first + 1);
        first = index + 1;
      }
      assert.deepEqual([log.firstIndex, log.lastIndex], [first, first - 1 + plain.length]);
      assert.deepEqual(plain.length === 0 ? [] : log.slice(first, log.lastIndex), plain);
      assert.equal(
        log.bytes,
        plain.reduce((sum, one) => sum + entryBytes(one), 0),
      );
    }
  }
});

test("runWithin() takes as many entries as fit, and at least one", () => {
  const log = new RaftLog(
    { index: 0, term: 0 },
    [10, 10, 500, 10].map((bytes, at) => entry(at + 1, 1, bytes)),
    0,
  );
  const each = 26;
  assert.equal(log.runWithin(1, 4, each), 1);
  assert.equal(log.runWithin(1, 4, 2 * each), 2);
  assert.equal(log.runWithin(1, 4, 2 * each + 515), 2);
  assert.equal(log.runWithin(3, 4, 1), 3);
  assert.equal(log.runWithin(1, 4, 10_000), 4);
});

test("truncateAndAppend() refuses to cut at or below commit, and leaves alone what agrees", () => {
  const log = logOf(1, 1, 2, 2);
  log.commitTo(2);
  assert.equal(log.truncateAndAppend([entry(1, 1), entry(2, 1)]), 0);
  assert.equal(log.lastIndex, 4);
  assert.throws(() => log.truncateAndAppend([entry(2, 3)]), RaftInvariantError);
  assert.equal(log.truncateAndAppend([entry(3, 2), entry(4, 3)]), 1);
});

test("markDurable() counts only what of a write is still there", () => {
  const log = logOf(1);
  log.append(entry(2, 1));
  log.append(entry(3, 1));
  log.takeUnsaved(1);
  log.truncateAndAppend([entry(3, 2)]);
  assert.deepEqual(
    log.takeUnsaved(2).map(({ index, term }) => [index, term]),
    [[3, 2]],
  );
  log.markDurable(1);
  assert.equal(log.durable, 2);
  log.markDurable(2);
  assert.equal(log.durable, 3);
});
