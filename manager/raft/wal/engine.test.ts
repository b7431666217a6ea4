import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Random } from "../../../lib/pure/prng.ts";
import { LogRig, entries, entry, flat, hardState, meta } from "../../../test/support/log-rig.ts";
import type { Entry, HardState } from "../core/types.ts";
import { LogClosed, encodeBatch } from "./index.ts";

test("a new log is empty, and what is saved is there after a restart", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  assert.deepEqual(log.takeRecovered(), { hardState: hardState(0), snapshot: meta(0, 0), entries: [] });
  log.save({ hardState: hardState(1, 7), entries: [] });
  log.save({ hardState: hardState(1, 7, 1), entries: entries(1, 3, 1) });
  log.save({
    hardState: undefined,
    entries: [
      { ...entry(4, 1), kind: "confChange" },
      { ...entry(5, 1, ""), kind: "empty" },
    ],
  });
  rig.disk.restart();
  const again = rig.open().takeRecovered();
  assert.deepEqual(flat(again), {
    hardState: hardState(1, 7, 1),
    snapshot: "0/0",
    entries: [
      "1/1/normal/entry 1 of term 1",
      "2/1/normal/entry 2 of term 1",
      "3/1/normal/entry 3 of term 1",
      "4/1/confChange/entry 4 of term 1",
      "5/1/empty/",
    ],
  });
});

test("entries from an index on replace what was there", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  log.save({ hardState: hardState(1), entries: entries(1, 6, 1) });
  log.save({ hardState: hardState(2), entries: entries(4, 5, 2) });
  log.save({ hardState: hardState(3), entries: entries(2, 3, 3) });
  rig.disk.restart();
  const { entries: kept } = rig.open().takeRecovered();
  assert.deepEqual(
    kept.map(({ index, term }) => `${index}/${term}`),
    ["1/1", "2/3", "3/3"],
  );
});

test("many batches become durable with one fdatasync; a replacement begins a record of its own", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  const group = [1, 2, 3, 4].map((index) => encodeBatch({ hardState: hardState(1, 0, 0), entries: [entry(index, 1)] }));
  const before = rig.disk.calls.sync;
  assert.equal(log.commit(group), 4);
  assert.equal(rig.disk.calls.sync, before + 1);
  const mixed = [
    encodeBatch({ hardState: undefined, entries: [entry(5, 1)] }),
    encodeBatch({ hardState: hardState(2), entries: [entry(5, 2)] }),
    encodeBatch({ hardState: hardState(3), entries: [] }),
  ];
  assert.equal(log.commit(mixed), 1);
  assert.equal(log.commit(mixed, 1), 2);
  rig.disk.restart();
  const { entries: kept, hardState: state } = rig.open().takeRecovered();
  assert.deepEqual([kept.at(-1)?.term, kept.length, state.term], [2, 5, 3]);
});

test("a batch larger than a record is saved in parts, and one large entry in one", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  const big = Array.from({ length: 20 }, (_, place) => entry(place + 1, 1, "x".repeat(300)));
  log.save({ hardState: hardState(1, 0, 20), entries: big });
  log.save({ hardState: undefined, entries: [entry(21, 1, "y".repeat(10_000))] });
  rig.disk.restart();
  const again = rig.open().takeRecovered();
  assert.deepEqual(flat({ ...again, entries: again.entries.slice(0, 20) }), flat({ ...again, entries: big }));
  assert.equal(again.entries[20]?.data.length, 10_000);
  assert.equal(again.hardState.commit, 20);
});

test("compaction drops covered segments only, and a reset starts over", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  for (let index = 1; index <= 100; index++)
    log.save({ hardState: hardState(1, 0, index), entries: [entry(index, 1, "z".repeat(200))] });
  const full = rig.segments().length;
  assert.ok(full > 5);
  rig.snapshots = [meta(60, 1)];
  log.compact(60);
  assert.ok(rig.segments().length < full);
  rig.disk.restart();
  const log2 = rig.open();
  const { entries: kept } = log2.takeRecovered();
  assert.ok((kept[0]?.index ?? 0) <= 61);
  assert.equal(kept.at(-1)?.index, 100);
  log2.reset(meta(500, 4), hardState(5, 0, 500));
  assert.equal(rig.segments().length, 1);
  log2.save({ hardState: undefined, entries: entries(501, 502, 5) });
  rig.disk.restart();
  rig.snapshots = [meta(500, 4), meta(60, 1)];
  const after = rig.open().takeRecovered();
  assert.deepEqual(
    after.entries.map(({ index }) => index),
    [501, 502],
  );
  assert.deepEqual(after.hardState, hardState(5, 0, 500));
});

test("entries replaced just before a segment was compacted away do not confuse the next start", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  const pad = "p".repeat(700);
  log.save({ hardState: hardState(1, 0, 1), entries: [1, 2, 3, 4].map((index) => entry(index, 1, pad)) });
  log.save({ hardState: undefined, entries: [entry(5, 1, pad)] });
  log.save({ hardState: hardState(2), entries: [entry(3, 2, pad), entry(4, 2, pad)] }); // in the second segment
  log.save({ hardState: hardState(2, 0, 5), entries: [entry(5, 2)] });
  assert.equal(rig.segments().length, 2);
  rig.snapshots = [meta(5, 2)];
  log.compact(5);
  assert.equal(rig.segments().length, 1);
  rig.disk.restart();
  const { snapshot, entries: kept } = rig.open().takeRecovered();
  assert.deepEqual([snapshot.index, kept.map(({ index, term }) => `${index}/${term}`)], [5, ["3/2", "4/2", "5/2"]]);
});

test("a closed log refuses, and closing twice is fine", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  log.save({ hardState: hardState(1), entries: entries(1, 1, 1) });
  assert.ok(log.needsMark);
  log.close();
  log.close();
  assert.throws(() => log.save({ hardState: hardState(2), entries: [] }), LogClosed);
});

test("the engine refuses what a core must never ask for", () => {
  for (const batch of [
    { hardState: hardState(2), entries: [] },
    { hardState: hardState(3, 1, 2), entries: [] },
    { hardState: hardState(3, 2, 9), entries: [] },
    { hardState: undefined, entries: entries(2, 2, 3) },
    { hardState: undefined, entries: entries(5, 5, 3) },
    { hardState: undefined, entries: [entry(4, 3), entry(6, 3)] },
  ]) {
    const engine = new LogRig(1).open();
    engine.save({ hardState: hardState(3, 2, 2), entries: entries(1, 3, 3) });
    assert.throws(() => engine.save(batch), { name: "InvariantViolation" });
  }
});

test("random saves, replacements, compactions and restarts agree with a plain array", () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 20, max: 120 }), (seed, steps) => {
      const rig = new LogRig(seed);
      const random = new Random(seed);
      let log = rig.open();
      let model: Entry[] = [];
      let state: HardState = hardState(0);
      let snapshot = 0;
      const check = (): void => {
        const got = log.takeRecovered();
        assert.deepEqual(got.hardState, { ...state, commit: Math.max(state.commit, snapshot) });
        const from = got.entries[0]?.index ?? model.length + 1;
        assert.ok(from <= snapshot + 1);
        assert.deepEqual(got.entries.map(brief), model.slice(from - 1).map(brief));
      };
      check();
      for (let step = 0; step < steps; step++) {
        const drawn = random.int(0, 20);
        if (drawn < 12) {
          const replaces = random.chance(0.2) && model.length > state.commit;
          const first = replaces ? random.int(state.commit + 1, model.length + 1) : model.length + 1;
          const term = state.term + (replaces || random.chance(0.1) ? 1 : 0);
          const count = random.int(0, 8);
          const added = Array.from({ length: count }, (_, place) =>
            entry(first + place, term, "d".repeat(random.int(0, 400))),
          );
          if (count > 0) model = [...model.slice(0, first - 1), ...added];
          state = hardState(
            term,
            term === state.term ? state.vote : random.int(0, 3),
            random.int(state.commit, model.length + 1),
          );
          if (state.commit >= first + count) state = { ...state, commit: Math.min(state.commit, model.length) };
          log.save({ hardState: state, entries: added });
        } else if (drawn < 14) {
          if (state.commit > snapshot) {
            snapshot = random.int(snapshot, state.commit) + 1;
            rig.snapshots = [meta(snapshot, model[snapshot - 1]?.term ?? 0)];
          }
          log.compact(random.int(0, snapshot + 1));
        } else if (drawn < 17) {
          log.idle();
        } else {
          if (random.chance(0.3)) log.close();
          rig.disk.restart({ keep: random.pick(["none", "all", "prefix", "random"] as const) });
          log = rig.open();
          check();
        }
      }
    }),
    { numRuns: 60 },
  );
});

function brief({ index, term, data }: Entry): string {
  return `${index}/${term}/${data.length}`;
}

test("a slot that only the page cache holds after a failed fdatasync is brought to the disk at the next start", () => {
  const rig = new LogRig(1);
  const log = rig.open();
  for (let index = 1; index <= 4; index++) {
    log.save({ hardState: hardState(1, 0, 0), entries: [entry(index, 1)] });
    while (log.needsMark) log.idle();
  }
  log.save({ hardState: hardState(1, 0, 0), entries: [entry(5, 1)] });
  rig.disk.fail({ act: "sync", path: "slots", code: "EIO" });
  assert.throws(() => log.idle());
  rig.disk.killProcess();
  rig.open().save({ hardState: hardState(2, 7, 0), entries: [] });
  rig.disk.restart();
  assert.equal(rig.open().takeRecovered().hardState.vote, 7);
});
