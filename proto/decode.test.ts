import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import protobuf from "protobufjs/minimal.js";

import { MessageUnreadable, decodeStrictly, skep } from "./index.ts";

const limits = { fieldsMax: 64, bytesMax: 1024 };
const { Entry, Frame, ConfState } = skep.raft;

/** A varint field, with any number of its 64 bits set. */
function varintField(field: number, low: number, high: number): Uint8Array {
  const bytes = [field << 3];
  let value = (BigInt(high) << 32n) | BigInt(low);
  for (; value >= 128n; value >>= 7n) bytes.push(Number(value & 127n) | 128);
  return Uint8Array.from([...bytes, Number(value)]);
}

test("what was encoded is read back, numbers up to 2^53-1 exactly", () => {
  const entry = { term: 2 ** 53 - 1, index: 7, kind: skep.raft.EntryKind.CONF_CHANGE, data: Buffer.from("x") };
  const read = decodeStrictly(Entry, Entry.encode(entry).finish(), limits);
  assert.deepEqual(Object.fromEntries(Object.entries(read)), entry);
});

test("a number above 2^53 is refused, not rounded", () => {
  assert.equal(decodeStrictly(Entry, varintField(1, 0xffffffff, 0x1fffff), limits).term, 2 ** 53 - 1);
  assert.throws(
    () => decodeStrictly(Entry, varintField(1, 0, 0x200000), limits),
    (error) => {
      return error instanceof MessageUnreadable && error.code === "MESSAGE_UNREADABLE" && /2\^53/.test(error.message);
    },
  );
  const packed = ConfState.encode({ voters: [1, 2 ** 60] }).finish();
  assert.throws(() => decodeStrictly(ConfState, packed, limits), MessageUnreadable);
});

test("more fields than allowed are refused, before they become objects", () => {
  const many = Frame.encode({ append: { entries: Array.from({ length: 100 }, () => ({})) } }).finish();
  assert.throws(() => decodeStrictly(Frame, many, limits), /more than 64 fields/);
  assert.equal(decodeStrictly(Frame, many, { ...limits, fieldsMax: 200 }).append?.entries?.length, 100);
});

test("a text or byte string longer than allowed is refused", () => {
  const long = Entry.encode({ data: new Uint8Array(1025) }).finish();
  assert.throws(() => decodeStrictly(Entry, long, limits), /1025 bytes/);
  const text = skep.raft.Hello.encode({ clusterId: "c".repeat(1025) }).finish();
  assert.throws(() => decodeStrictly(skep.raft.Hello, text, limits), /1025 characters/);
});

test("unknown fields are skipped and not kept", () => {
  const writer = protobuf.Writer.create();
  writer.uint32((99 << 3) | 2).bytes(Buffer.from("from a newer release"));
  writer.uint32((1 << 3) | 0).uint32(5);
  const read = decodeStrictly(Entry, writer.finish(), limits);
  assert.equal(read.term, 5);
  assert.equal(Entry.encode(read).finish().length, 2);
});

test("any bytes are either read or refused with the typed error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const type of [Frame, skep.raft.SnapshotUp, skep.raft.ForwardUp, skep.raft.ForwardDown]) {
        try {
          decodeStrictly<unknown>(type, bytes, limits);
        } catch (error) {
          assert.ok(error instanceof MessageUnreadable, String(error));
        }
      }
    }),
    { numRuns: 2000 },
  );
});
