import assert from "node:assert/strict";
import { test } from "node:test";

import { Random } from "./prng.ts";

test("equal seeds give equal streams, and named streams differ from each other", () => {
  const draw = (random: Random): number[] => Array.from({ length: 8 }, () => random.uint32());
  assert.deepEqual(draw(new Random(7)), draw(new Random(7)));
  assert.notDeepEqual(draw(new Random(7)), draw(new Random(8)));
  assert.notDeepEqual(draw(Random.stream(7, "disk")), draw(Random.stream(7, "network")));
});

test("int() is uniform over its range: chi-square of 16 cells over 64,000 draws stays below the 0.1 % bound", () => {
  const random = new Random("uniform");
  const cells = Array.from({ length: 16 }, () => 0);
  for (let i = 0; i < 64_000; i++) cells[random.int(0, 16)]!++;
  const chi = cells.reduce((sum, count) => sum + (count - 4000) ** 2 / 4000, 0);
  assert.ok(chi < 37.7, `chi-square ${chi}, 15 degrees of freedom`);
});

test("int() reaches both ends of its range and refuses an empty one", () => {
  const random = new Random(1);
  const seen = new Set(Array.from({ length: 200 }, () => random.int(-1, 2)));
  assert.deepEqual(
    [...seen].sort((a, b) => a - b),
    [-1, 0, 1],
  );
  assert.throws(() => random.int(3, 3), RangeError);
  const wide = random.int(0, 2 ** 40);
  assert.ok(Number.isInteger(wide) && wide >= 0 && wide < 2 ** 40);
});

test("exponential() has the mean it was asked for", () => {
  const random = new Random(3);
  let sum = 0;
  for (let i = 0; i < 20_000; i++) sum += random.exponential(10);
  assert.ok(Math.abs(sum / 20_000 - 10) < 0.3);
});

test("shuffle() keeps every element, does not touch its argument, and pick() takes from it", () => {
  const random = new Random(9);
  const from = Array.from({ length: 50 }, (_, at) => at);
  const shuffled = random.shuffle(from);
  assert.notDeepEqual(shuffled, from);
  assert.deepEqual(
    shuffled.sort((a, b) => a - b),
    from,
  );
  assert.ok(from.includes(random.pick(from)));
});
