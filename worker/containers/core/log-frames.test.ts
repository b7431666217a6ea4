import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { logFrame } from "../../../test/support/log-frame.ts";
import { formatTimeNs, FrameSplitter, LineJoiner, type LogFrame } from "./log-frames.ts";

test("frames come out whole, however the bytes are cut", () => {
  const chunk = fc.record({ stream: fc.integer({ min: 1, max: 3 }), payload: fc.uint8Array({ maxLength: 50 }) });
  fc.assert(
    fc.property(fc.array(chunk), fc.array(fc.integer({ min: 1, max: 40 })), (frames, cuts) => {
      const bytes = Buffer.concat(
        frames.map(({ stream, payload }, i) => logFrame(stream, BigInt(i), Buffer.from(payload))),
      );
      const splitter = new FrameSplitter();
      const found: LogFrame[] = [];
      let at = 0;
      for (const cut of [...cuts, bytes.length]) {
        found.push(...splitter.push(bytes.subarray(at, at + cut)));
        at = Math.min(at + cut, bytes.length);
      }
      assert.deepEqual(
        found.map(({ payload, timeNs }) => [payload.toString("hex"), timeNs]),
        frames.map(({ payload }, i) => [Buffer.from(payload).toString("hex"), BigInt(i)]),
      );
      assert.equal(splitter.skipped, 0);
    }),
  );
});

test("damage is stepped over and counted", () => {
  const splitter = new FrameSplitter();
  const bytes = Buffer.concat([
    logFrame(1, 1n, Buffer.from("a\n")),
    Buffer.from("?? torn ??"),
    logFrame(2, 2n, Buffer.from("b\n")),
  ]);
  assert.deepEqual(
    splitter.push(bytes).map(({ payload }) => payload.toString()),
    ["a\n", "b\n"],
  );
  assert.equal(splitter.skipped, 10);
});

test("lines of each stream are joined over frames; the rest comes at the end", () => {
  const joiner = new LineJoiner();
  const push = (stream: "stdout" | "stderr", timeNs: bigint, text: string): string[] =>
    joiner
      .push({ stream, timeNs, payload: Buffer.from(text) })
      .map((line) => `${line.timeNs} ${line.stream} ${line.text.toString()}`);
  assert.deepEqual(push("stdout", 1n, "one\ntw"), ["1 stdout one\n"]);
  assert.deepEqual(push("stderr", 2n, "err\n"), ["2 stderr err\n"]);
  assert.deepEqual(push("stdout", 3n, "o\nthr"), ["1 stdout two\n"]);
  assert.deepEqual(
    joiner.flush().map(({ text, timeNs }) => [text.toString(), timeNs]),
    [["thr", 3n]],
  );
});

test("times are RFC 3339 with nanoseconds", () => {
  assert.equal(formatTimeNs(1475713757669794202n), "2016-10-06T00:29:17.669794202Z");
});
