import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { decodeAnswer, encodeRequest, MessageSplitter } from "./ctl-messages.ts";

test("requests have the bytes that ctl.h says", () => {
  assert.equal(encodeRequest({ type: "hello" }, 1).toString("hex"), "0400000001000100");
  assert.equal(encodeRequest({ type: "kill", signal: 9, all: true }, 2).toString("hex"), "09000000030002000900000001");
  assert.equal(
    encodeRequest(
      { type: "exec", id: "ab", tty: true, stdin: false, relay: true, rows: 1, columns: 2, process: Buffer.from("{}") },
      3,
    ).toString("hex"),
    "1300000006000300020061620501000200020000007b7d",
  );
});

test("answers are decoded, unknown ones named so, cut ones refused", () => {
  assert.deepEqual(decodeAnswer(Buffer.from("810005000300000002006e6f", "hex")), {
    type: "error",
    tag: 5,
    errno: 3,
    text: "no",
  });
  assert.deepEqual(decodeAnswer(Buffer.from("880001000700000000000000", "hex")), {
    type: "execExit",
    tag: 1,
    code: 7,
    signal: 0,
  });
  assert.deepEqual(decodeAnswer(Buffer.from("f0000100", "hex")), { type: "unknown", tag: 1 });
  assert.throws(() => decodeAnswer(Buffer.from("8100050003000000ff006e6f", "hex")), RangeError);
});

test("messages come out whole, however the stream is cut, and a wrong length ends it", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 4, maxLength: 30 })),
      fc.integer({ min: 1, max: 9 }),
      (messages, step) => {
        const bytes = Buffer.concat(
          messages.map((message) => {
            const length = Buffer.alloc(4);
            length.writeUInt32LE(message.length);
            return Buffer.concat([length, message]);
          }),
        );
        const splitter = new MessageSplitter();
        const found: string[] = [];
        for (let at = 0; at < bytes.length; at += step)
          found.push(...splitter.push(bytes.subarray(at, at + step)).map((one) => one.toString("hex")));
        assert.deepEqual(
          found,
          messages.map((message) => Buffer.from(message).toString("hex")),
        );
      },
    ),
  );
  assert.throws(() => new MessageSplitter().push(Buffer.from([255, 255, 255, 127])), RangeError);
});
