import assert from "node:assert/strict";
import { test } from "node:test";

import { encodeBriefly, encodeInRow, encodeMessage, messageCodec } from "./encode.ts";
import { skep } from "./index.ts";

const { Entry } = skep.raft;
const entry = (size: number): skep.raft.IEntry => ({
  term: 3,
  index: size,
  data: new Uint8Array(size).fill(size % 251),
});

test("bytes are those of protobufjs, for every size and way", () => {
  for (const size of [0, 1, 100, 127, 128, 1024, 16_383, 16_385, 70_000, 2_000_000, 5]) {
    const expected = Buffer.from(Entry.encode(entry(size)).finish());
    assert.ok(expected.equals(encodeBriefly(Entry, entry(size))), `${size}`);
    assert.ok(expected.equals(encodeMessage(Entry, entry(size))), `${size}`);
    assert.ok(expected.equals(encodeInRow(Entry, entry(size))), `${size}`);
  }
});

test("what is the caller's own stays as it is, in a row as well", () => {
  const kept = Array.from({ length: 200 }, (_, at) => encodeInRow(Entry, entry(at * 7)));
  const own = encodeMessage(Entry, entry(33));
  for (let at = 0; at < 1000; at++) encodeInRow(Entry, entry(999));
  for (const [at, bytes] of kept.entries()) assert.equal(Entry.decode(bytes).index, at * 7);
  assert.equal(Entry.decode(own).index, 33);
});

test("a message that cannot be encoded does not spoil the next one", () => {
  const codec = messageCodec<skep.control.IKvRequests>("KvRequests", skep.control.KvRequests);
  assert.throws(() => {
    codec.encode({
      requests: [
        {
          get put(): never {
            throw new Error("no");
          },
        },
      ],
    });
  });
  const good = { requests: [{ id: 5, put: { key: "k", value: Buffer.from("v") } }] };
  assert.equal(codec.decode(Buffer.from(codec.encode(good))).requests?.[0]?.put?.key, "k");
  assert.throws(() => codec.decode(Buffer.from([0x0a, 0x7f])), { code: "MESSAGE_UNREADABLE" });
});
