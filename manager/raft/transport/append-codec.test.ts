import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";

import { skep } from "../../../proto/index.ts";
import type { AppendRequest, Entry, EntryKind } from "../core/types.ts";
import { AppendEncoder, decodeAppend } from "./append-codec.ts";
import { decodeFrame } from "./codec.ts";

const kinds: readonly EntryKind[] = ["normal", "confChange", "empty"];
const { NORMAL, CONF_CHANGE, EMPTY } = skep.raft.EntryKind;
const wireKinds = { normal: NORMAL, confChange: CONF_CHANGE, empty: EMPTY };
const plainObject = { noNullPrototype: true };
/** Around each length that a varint can have. */
const number = fc.oneof(
  fc.maxSafeNat(),
  fc
    .integer({ min: 0, max: 52 })
    .chain((bit) => fc.integer({ min: -1, max: 1 }).map((by) => Math.max(0, 2 ** bit + by))),
);
/** What terms and indexes are in practice. */
const count = fc.oneof(fc.nat(300), fc.nat(2 ** 31 - 1), fc.integer({ min: 0, max: 2 ** 49 - 1 }));

function appends(value: fc.Arbitrary<number>, entriesMax: number): fc.Arbitrary<AppendRequest> {
  const entry: fc.Arbitrary<Entry> = fc.record(
    {
      term: value,
      index: value,
      kind: fc.constantFrom(...kinds),
      data: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    },
    plainObject,
  );
  return fc.record(
    {
      type: fc.constant("append" as const),
      from: fc.constant(1),
      to: fc.constant(2),
      term: value,
      prevIndex: value,
      prevTerm: value,
      commit: value,
      entries: fc.array(entry, { maxLength: entriesMax }),
    },
    plainObject,
  );
}

test("what is encoded by hand is what protobufjs encodes and reads, for any numbers up to 2^53-1", () => {
  const encoder = new AppendEncoder();
  fc.assert(
    fc.property(appends(number, 20), (append) => {
      const bytes = encoder.encode(append);
      assert.deepEqual(decodeFrame(bytes, 1, 2), { kind: "message", message: append });
      const { term, prevIndex, prevTerm, commit } = append;
      const entries = append.entries.map((it) => ({ ...it, kind: wireKinds[it.kind] }));
      const plain = skep.raft.Frame.encode({ append: { term, prevIndex, prevTerm, commit, entries } }).finish();
      // The plain encoder leaves zeros out; apart from that they say the same.
      const read = (encoded: Uint8Array): unknown => skep.raft.Frame.encode(skep.raft.Frame.decode(encoded)).finish();
      assert.deepEqual(read(bytes), read(plain));
    }),
    { numRuns: 500 },
  );
});

test("what is read by hand is what protobufjs reads, and what is not so written is left to it", () => {
  const encoder = new AppendEncoder();
  const options = { from: 1, to: 2, entriesMax: 20 };
  const change = fc.record({ at: fc.nat(200), byte: fc.nat(255), cut: fc.nat(3) });
  let byHand = 0;
  fc.assert(
    fc.property(appends(count, 4), fc.option(change), (append, changed) => {
      const bytes = Buffer.from(encoder.encode(append));
      if (changed !== null) bytes[changed.at % bytes.length] = changed.byte;
      const given = bytes.subarray(0, bytes.length - (changed?.cut ?? 0));
      const read = decodeAppend(given, options);
      if (read === undefined) return;
      byHand++;
      const { term, prevIndex, prevTerm, commit, entries } = read;
      const plain = skep.raft.Frame.decode(given);
      const wire = entries.map((it) => ({ ...it, kind: wireKinds[it.kind] }));
      const again = skep.raft.Frame.encode({ append: { term, prevIndex, prevTerm, commit, entries: wire } }).finish();
      // Of no unknown field either, which decoding again would leave out.
      assert.deepEqual(again, skep.raft.Frame.encode(plain).finish());
    }),
    { numRuns: 600 },
  );
  assert.ok(byHand > 100, `${byHand} of 600 read by hand`);
  const long = { type: "append", from: 1, to: 2, term: 1, prevIndex: 0, prevTerm: 0, commit: 0 } as const;
  const one: Entry = { term: 1, index: 1, kind: "empty", data: Buffer.alloc(0) };
  const entries = (count: number): Entry[] => Array.from({ length: count }, () => one);
  assert.equal(decodeAppend(encoder.encode({ ...long, entries: entries(20) }), options)?.entries.length, 20);
  assert.equal(decodeAppend(encoder.encode({ ...long, entries: entries(21) }), options), undefined);
});

test("entries are encoded once for all peers at the same place in the log, and anew when they differ", () => {
  const encoder = new AppendEncoder();
  let reads = 0;
  const counted = (index: number): Entry => ({
    term: 1,
    index,
    kind: "normal",
    get data() {
      reads++;
      return Buffer.from("data");
    },
  });
  const entries = [counted(1), counted(2), counted(3)];
  const to = (peer: number, some: readonly Entry[]): Buffer =>
    encoder.encode({
      type: "append",
      from: 1,
      to: peer,
      term: 1,
      prevIndex: 0,
      prevTerm: 0,
      commit: peer,
      entries: some,
    });
  to(2, entries);
  const once = reads;
  const second = to(3, [...entries]);
  assert.equal(reads, once);
  const decoded = decodeFrame(second, 1, 3);
  assert.ok(decoded.kind === "message" && decoded.message.type === "append" && decoded.message.commit === 3);
  assert.deepEqual(to(2, entries.slice(0, 2)).length < second.length, true);
  assert.ok(reads > once);
  // The same indexes with other content are other entries.
  const replaced = [entries[0]!, { ...counted(2), term: 2, data: Buffer.from("DATA") }, entries[2]!];
  const afterReads = reads;
  const other = [counted(1), ...replaced.slice(1)];
  assert.notDeepEqual(to(2, other), second);
  assert.ok(reads > afterReads);
});
