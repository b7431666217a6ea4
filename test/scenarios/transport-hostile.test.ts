/** Bytes that no correct member sends: counted, answered with a typed error, and nobody else notices. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as fc from "fast-check";
import protobuf from "protobufjs/minimal.js";

import { Random } from "../../lib/pure/prng.ts";
import { AppendEncoder } from "../../manager/raft/transport/append-codec.ts";
import { decodeFrame, encodeMessage, metaFromWire } from "../../manager/raft/transport/codec.ts";
import { MessageUnreadable, decodeStrictly, skep } from "../../proto/index.ts";
import { append, entriesFrom, heartbeat, roundOf } from "../conformance/raft-transport.ts";
import { dialRaw, hello, type RawPeer, type RawStream } from "../support/raw-peer.ts";
import { GrpcWorld, testPki, type GrpcNode } from "../support/transport-world.ts";
import type { TlsIdentity } from "../../lib/pki/index.ts";

let world: GrpcWorld;
let one: GrpcNode;
let two: GrpcNode;
let tls: TlsIdentity;

before(async () => {
  world = new GrpcWorld();
  [one, two] = (await world.start(2)) as [GrpcNode, GrpcNode];
  tls = await (await testPki()).manager(9);
});
after(() => world[Symbol.asyncDispose]());

let round = 0;
async function othersWork(): Promise<void> {
  const mine = ++round;
  one.transport.send(heartbeat(1, 2, mine));
  two.transport.send(heartbeat(2, 1, mine));
  for (const node of [one, two]) {
    await node.heard.until(() => node.heard.messages.some((message) => roundOf(message) === mine));
  }
  assert.equal(one.transport.metrics().get(2)?.streamResets, 0);
  assert.equal(two.transport.metrics().get(1)?.streamResets, 0);
}

async function admitted(kind: RawStream): Promise<RawPeer> {
  const raw = dialRaw(tls, one.address, kind);
  raw.stream.write(hello(9, 1));
  assert.ok((await raw.answer())?.accepted);
  return raw;
}

test("any bytes as a frame are read or refused, and what is read goes round unchanged", () => {
  const encoder = new AppendEncoder();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      let decoded: ReturnType<typeof decodeFrame>;
      try {
        decoded = decodeFrame(bytes, 9, 1);
      } catch (error) {
        assert.ok(error instanceof MessageUnreadable, String(error));
        return;
      }
      if (decoded.kind !== "message") return;
      const { message } = decoded;
      if (message.type === "append" && message.entries.some(({ kind }) => kind.startsWith("kind "))) return;
      assert.deepEqual(decodeFrame(encodeMessage(message, encoder), 9, 1), decoded);
    }),
    { numRuns: 3000 },
  );
});

test("a true message with any byte changed, cut or added is read or refused", () => {
  const bytes = encodeMessage(append(1, 2, 7, entriesFrom(7, 3, 20)), new AppendEncoder());
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, value, length) => {
      const changed = Uint8Array.from(bytes);
      changed[at] = value;
      for (const variant of [changed, bytes.subarray(0, length), Buffer.concat([changed, bytes.subarray(0, length)])]) {
        try {
          decodeFrame(variant, 9, 1);
        } catch (error) {
          assert.ok(error instanceof MessageUnreadable, String(error));
        }
      }
    }),
    { numRuns: 3000 },
  );
});

test("a frame of two bytes an entry does not become a million objects", () => {
  const many = protobuf.Writer.create();
  for (let i = 0; i < 500_000; i++) many.uint32((5 << 3) | 2).uint32(0);
  const body = many.finish();
  const frame = protobuf.Writer.create()
    .uint32((2 << 3) | 2)
    .bytes(body)
    .finish();
  assert.ok(frame.length < 1_100_000);
  assert.throws(() => decodeFrame(frame, 9, 1), /more than \d+ fields/);
});

test("the members of an offered snapshot are bounded", () => {
  const conf = { voters: Array.from({ length: 1001 }, (_, at) => at + 1) };
  assert.equal(
    metaFromWire(
      decodeStrictly(skep.raft.SnapshotMeta, skep.raft.SnapshotMeta.encode({ index: 1, term: 1, conf }).finish(), {
        fieldsMax: 64,
        bytesMax: 64,
      }),
    ),
    undefined,
  );
  assert.equal(metaFromWire({ index: 1, term: 1 }), undefined);
});

test("malformed frames on an open stream are counted, end that stream with a typed error, and harm nobody", async () => {
  const random = new Random("frames");
  const before = one.transport.metrics().get(9)?.messagesMalformed ?? 0;
  for (let run = 0; run < 20; run++) {
    const raw = await admitted(run % 2 === 0 ? "Control" : "Data");
    const junk = Buffer.from(Array.from({ length: random.int(1, 200) }, () => random.int(0, 256)));
    junk[0] = 0xff; // a tag that never ends well
    raw.stream.write(junk);
    assert.equal((await raw.ended)?.code, "MESSAGE_UNREADABLE");
    raw[Symbol.dispose]();
  }
  assert.equal(one.transport.metrics().get(9)?.messagesMalformed, before + 20);
  await othersWork();
});

test("unknown messages are ignored and counted, unknown fields tolerated, and the stream goes on", async () => {
  const raw = await admitted("Control");
  const unknownBefore = one.transport.metrics().get(9)?.messagesUnknown ?? 0;
  const heardBefore = one.heard.messages.length;
  const unknown = protobuf.Writer.create()
    .uint32((777 << 3) | 2)
    .bytes(Buffer.from("a message of a newer release"))
    .finish();
  raw.stream.write(unknown);
  raw.stream.write(new Uint8Array());
  raw.stream.write(hello(9, 1));
  const known = encodeMessage(heartbeat(9, 1, 99), new AppendEncoder());
  raw.stream.write(Buffer.concat([known, unknown]));
  await one.heard.until(() => one.heard.messages.length > heardBefore);
  assert.deepEqual(one.heard.messages.at(-1), heartbeat(9, 1, 99));
  assert.equal(one.transport.metrics().get(9)?.messagesUnknown, unknownBefore + 3);
  raw[Symbol.dispose]();
  await othersWork();
});

test("a message larger than any append ends its stream and nothing else", async () => {
  const raw = await admitted("Data");
  raw.stream.write(Buffer.alloc(3_900_000, 1));
  assert.ok(["MESSAGE_UNREADABLE", "RPC_TOO_LARGE"].includes((await raw.ended)?.code ?? ""));
  raw[Symbol.dispose]();
  await othersWork();
});

test("snapshot and forward streams refuse nonsense, each with its own code", async () => {
  const { SnapshotUp, ForwardUp } = skep.raft;
  const conf = { voters: [1, 2] };
  const offer = { term: 3, meta: { index: 5, term: 3, conf }, chunks: 2, sizeBytes: 10, digest: new Uint8Array(32) };
  const before = one.snapshots.openReceivers;
  for (const [kind, messages, code] of [
    ["Snapshot", [SnapshotUp.encode({ chunk: { number: 0 } }).finish()], "RAFT_HANDSHAKE_EXPECTED"],
    [
      "Snapshot",
      [SnapshotUp.encode({ offer: { ...offer, digest: new Uint8Array(5) } }).finish()],
      "RAFT_HANDSHAKE_EXPECTED",
    ],
    ["Snapshot", [SnapshotUp.encode({ offer: { ...offer, meta: null } }).finish()], "RAFT_HANDSHAKE_EXPECTED"],
    ["Snapshot", [SnapshotUp.encode({ offer: { ...offer, chunks: 0 } }).finish()], "RAFT_HANDSHAKE_EXPECTED"],
    ["Snapshot", [Buffer.alloc(50, 0xff)], "MESSAGE_UNREADABLE"],
    [
      "Snapshot",
      [
        SnapshotUp.encode({ offer }).finish(),
        SnapshotUp.encode({ chunk: { number: 0, data: new Uint8Array(300_000) } }).finish(),
      ],
      "MESSAGE_UNREADABLE",
    ],
    [
      "Snapshot",
      [SnapshotUp.encode({ offer }).finish(), SnapshotUp.encode({ offer }).finish()],
      "RAFT_HANDSHAKE_EXPECTED",
    ],
    ["Forward", [Buffer.alloc(50, 0xff)], "MESSAGE_UNREADABLE"],
    [
      "Forward",
      [ForwardUp.encode({ propose: { id: 1, command: new Uint8Array(2_200_000) } }).finish()],
      "MESSAGE_UNREADABLE",
    ],
  ] as const) {
    const raw = await admitted(kind);
    for (const message of messages) raw.stream.write(message);
    assert.equal((await raw.ended)?.code, code, `${kind} ${messages.length}`);
    raw[Symbol.dispose]();
  }
  assert.equal(one.snapshots.openReceivers, before);
  await othersWork();
});

test("a forwarded request with too many hops is not served, and the id of one under way is not taken twice", async () => {
  const { ForwardUp, ForwardDown, OutcomeKind, ReadOutcomeKind } = skep.raft;
  const proposed: string[] = [];
  const waiting: (() => void)[] = [];
  one.heard.onPropose = (command, done) => {
    proposed.push(Buffer.from(command).toString());
    waiting.push(() => done({ kind: "committed", index: 5, term: 1, result: "not bytes" }));
    if (proposed.at(-1) === "last") for (const answer of waiting) answer();
    return () => {};
  };
  const raw = await admitted("Forward");
  const ask = (up: skep.raft.IForwardUp): void => void raw.stream.write(ForwardUp.encode(up).finish());
  ask({ propose: { id: 1, command: Buffer.from("again"), timeoutMs: 5000, hops: 2 } });
  ask({ read: { id: 2, timeoutMs: 5000, hops: 2 } });
  ask({ propose: { id: 3, command: Buffer.from("first"), timeoutMs: 5000, hops: 1 } });
  ask({ propose: { id: 3, command: Buffer.from("second"), timeoutMs: 5000, hops: 1 } });
  ask({ cancel: { id: 77 } });
  ask({ propose: { id: 4, command: Buffer.from("last"), timeoutMs: 5000, hops: 1 } });
  const answers: skep.raft.ForwardDown[] = [];
  while (answers.length < 3) {
    while (raw.heard.length < answers.length + 2) await new Promise((resolve) => setImmediate(resolve));
    answers.push(ForwardDown.decode(raw.heard[answers.length + 1]!));
  }
  assert.equal(answers[0]?.outcome?.kind, OutcomeKind.OUTCOME_NOT_LEADER);
  assert.equal(answers[1]?.read?.kind, ReadOutcomeKind.READ_RETRY);
  assert.equal(answers[2]?.outcome?.kind, OutcomeKind.OUTCOME_COMMITTED);
  assert.equal(answers[2].outcome.id, 3);
  assert.deepEqual(proposed, ["first", "last"]);
  raw[Symbol.dispose]();
  await othersWork();
});

test("a stream that says nothing, and one opened twice, cost others nothing: the newer one serves", async () => {
  const older = await admitted("Control");
  const newer = await admitted("Control");
  const told = await older.answer();
  assert.equal(told?.refused?.code, "RAFT_STREAM_REPLACED");
  await older.ended;
  const heardBefore = one.heard.messages.length;
  newer.stream.write(encodeMessage(heartbeat(9, 1, 123), new AppendEncoder()));
  await one.heard.until(() => one.heard.messages.length > heardBefore);
  older[Symbol.dispose]();
  newer[Symbol.dispose]();
  await othersWork();
});
