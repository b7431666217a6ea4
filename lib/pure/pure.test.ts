import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";

import { Backoff } from "./backoff.ts";
import { ByteSizeInvalid, formatByteSize, parseByteSize } from "./byte-size.ts";
import { DurationInvalid, formatDurationMs, formatDurationNs, parseDurationMs, parseDurationNs } from "./duration.ts";
import { Heap } from "./heap.ts";
import { isId, newId, newMemberId } from "./id.ts";
import { Random } from "./prng.ts";

test("Backoff stays between its bounds, its ceiling doubles up to the longest wait, and a success resets it", () => {
  const backoff = new Backoff(new Random(1), { minMs: 50, maxMs: 1000 });
  for (const ceiling of [100, 200, 400, 800, 1000, 1000]) {
    const waitMs = backoff.next();
    assert.ok(waitMs >= 50 && waitMs <= ceiling, `${waitMs} in 50..${ceiling}`);
  }
  assert.equal(backoff.failures, 6);
  backoff.reset();
  assert.equal(backoff.failures, 0);
  assert.ok(backoff.next() <= 100);
  assert.throws(() => new Backoff(new Random(1), { minMs: 0, maxMs: 1 }), RangeError);
});

test("two back-offs with different seeds do not come back in step", () => {
  const waits = (seed: number): number[] => {
    const backoff = new Backoff(new Random(seed), { minMs: 50, maxMs: 1000 });
    return Array.from({ length: 5 }, () => backoff.next());
  };
  assert.notDeepEqual(waits(1), waits(2));
  assert.deepEqual(waits(1), waits(1));
});

test("durations print as Go prints them", () => {
  for (const [ns, text] of [
    [0n, "0s"],
    [1n, "1ns"],
    [1_100n, "1.1µs"],
    [2_200_000n, "2.2ms"],
    [3_300_000_000n, "3.3s"],
    [245_000_000_000n, "4m5s"],
    [245_001_000_000n, "4m5.001s"],
    [18_367_001_000_000n, "5h6m7.001s"],
    [480_000_000_001n, "8m0.000000001s"],
    [-1_500_000_000n, "-1.5s"],
    [9_223_372_036_854_775_807n, "2562047h47m16.854775807s"],
  ] as const) {
    assert.equal(formatDurationNs(ns), text);
    assert.equal(parseDurationNs(text), ns);
  }
  assert.equal(formatDurationMs(1500), "1.5s");
  assert.equal(parseDurationMs("1h0.5s"), 3_600_500);
  assert.equal(parseDurationNs("+5us"), 5000n);
  assert.equal(parseDurationNs(".5s"), 500_000_000n);
  assert.equal(parseDurationNs("1m30s500ms"), 90_500_000_000n);
});

test("a duration that Go refuses is refused with what to write instead", () => {
  for (const text of [
    "",
    "3",
    "-",
    "s",
    ".",
    "-.",
    ".s",
    "+.s",
    "1d",
    "1h 2m",
    "9223372037s",
    "1e3s",
    "--1s",
    "1".repeat(99),
  ]) {
    assert.throws(
      () => parseDurationNs(text),
      (error) => error instanceof DurationInvalid && error.code === "DURATION_INVALID",
    );
  }
});

test("what a duration prints, it reads back", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n }), (ns) => parseDurationNs(formatDurationNs(ns)) === ns),
  );
});

test("byte sizes read as Docker reads them", () => {
  for (const [text, bytes] of [
    ["0", 0],
    ["512", 512],
    ["64k", 65_536],
    ["64KB", 65_536],
    ["1.5GiB", 1_610_612_736],
    ["2 g", 2 ** 31],
    ["32b", 32],
  ] as const) {
    assert.equal(parseByteSize(text), bytes);
  }
  for (const text of ["", "-1", "1x", "k", "1.5.5k", "9007199254740993", "1e9"]) {
    assert.throws(
      () => parseByteSize(text),
      (error) => error instanceof ByteSizeInvalid && error.code === "BYTE_SIZE_INVALID",
    );
  }
  assert.equal(formatByteSize(512), "512 B");
  assert.equal(formatByteSize(1536), "1.5 KiB");
  assert.equal(formatByteSize(64 * 1024 * 1024), "64 MiB");
});

test("a heap gives back any input in order, with pops in between", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.integer(), fc.constant("pop" as const))), (acts) => {
      const heap = new Heap<number>((a, b) => a < b);
      const plain: number[] = [];
      for (const act of acts) {
        if (act === "pop") {
          plain.sort((a, b) => a - b);
          assert.equal(heap.peek(), plain[0]);
          assert.equal(heap.pop(), plain.shift());
        } else {
          heap.push(act);
          plain.push(act);
        }
        assert.equal(heap.size, plain.length);
      }
    }),
  );
});

test("ids have 25 characters of base 36 and differ; member ids are safe integers above 0", () => {
  const random = new Random(5);
  const fill = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length; at++) bytes[at] = random.int(0, 256);
  };
  const ids = Array.from({ length: 1000 }, () => newId(fill));
  assert.ok(ids.every(isId));
  assert.equal(new Set(ids).size, 1000);
  assert.equal(isId("A".repeat(25)), false);
  assert.equal(isId("a".repeat(24)), false);
  const members = Array.from({ length: 1000 }, () => newMemberId(fill));
  assert.ok(members.every((member) => Number.isSafeInteger(member) && member > 0));
  assert.ok(members.some((member) => member > 2 ** 52));
  let calls = 0;
  assert.equal(
    newMemberId((bytes) => bytes.fill(calls++ === 0 ? 0 : 255)),
    2 ** 53 - 1,
  );
});
