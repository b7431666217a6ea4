import { test } from "node:test";
import assert from "node:assert/strict";
import * as fc from "fast-check";
import { SortedMap, type FrozenMap } from "./sorted-map.ts";

type Op =
  | { readonly act: "set"; readonly key: number; readonly value: number }
  | { readonly act: "delete"; readonly key: number }
  | { readonly act: "deleteRange"; readonly key: number; readonly length: number }
  | { readonly act: "freeze" };

const op = (keys: number): fc.Arbitrary<Op> =>
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ act: fc.constant("set" as const), key: fc.nat(keys), value: fc.nat(9) }) },
    { weight: 4, arbitrary: fc.record({ act: fc.constant("delete" as const), key: fc.nat(keys) }) },
    {
      weight: 1,
      arbitrary: fc.record({ act: fc.constant("deleteRange" as const), key: fc.nat(keys), length: fc.nat(90) }),
    },
    { weight: 1, arbitrary: fc.record({ act: fc.constant("freeze" as const) }) },
  );

const text = (key: number): string => `k${String(key).padStart(4, "0")}`;
const sorted = (plain: ReadonlyMap<string, number>): [string, number][] =>
  [...plain].sort(([a], [b]) => (a < b ? -1 : 1));

for (const keys of [20, 300, 3000]) {
  test(`a sorted map agrees with a plain Map, and frozen ones stay as they were (${keys} keys)`, () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(op(keys), { maxLength: 600, size: "max" }), (filled, ops) => {
        const map = new SortedMap<number>();
        const plain = new Map<string, number>();
        for (let key = 0; key < (filled ? keys : 0); key++) {
          map.set(text(key), key);
          plain.set(text(key), key);
        }
        const frozen: [FrozenMap<number>, [string, number][]][] = [];
        for (const step of ops) {
          if (step.act === "set") {
            assert.equal(map.set(text(step.key), step.value), plain.get(text(step.key)));
            plain.set(text(step.key), step.value);
          } else if (step.act === "delete") {
            assert.equal(map.delete(text(step.key)), plain.get(text(step.key)));
            plain.delete(text(step.key));
          } else if (step.act === "deleteRange") {
            for (let key = step.key; key < step.key + step.length; key++) {
              map.delete(text(key));
              plain.delete(text(key));
            }
          } else {
            frozen.push([map.freeze(), sorted(plain)]);
          }
          assert.equal(map.size, plain.size);
        }
        assert.deepEqual([...map.entries()], sorted(plain));
        for (const [map, entries] of frozen) {
          assert.deepEqual([...map.entries()], entries);
          assert.equal(map.size, entries.length);
          for (const [key, value] of entries) assert.equal(map.get(key), value);
        }
      }),
      { numRuns: 60 },
    );
  });
}

test("a range starts at its first key and ends before its last", () => {
  const map = new SortedMap<number>();
  for (let key = 0; key < 500; key++) map.set(text(key), key);
  for (const [from, to] of [
    [0, 500],
    [31, 33],
    [250, 251],
    [499, 500],
    [100, 100],
  ] as const)
    assert.deepEqual(
      [...map.values(text(from), text(to))],
      Array.from({ length: to - from }, (_, i) => from + i),
    );
  assert.deepEqual([...map.keys("k0498z")], ["k0499"]);
  assert.deepEqual([...map.keys("l")], []);
});

test("fork() leaves the map that it came from as it was", () => {
  const map = new SortedMap<number>();
  for (let key = 0; key < 100; key++) map.set(text(key), key);
  const fork = map.fork();
  for (let key = 50; key < 200; key++) fork.set(text(key), -key);
  for (let key = 0; key < 40; key++) fork.delete(text(key));
  assert.deepEqual(
    [...map.values()],
    Array.from({ length: 100 }, (_, key) => key),
  );
  assert.equal(fork.size, 160);
});
