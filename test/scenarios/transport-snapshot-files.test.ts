/** A snapshot from one member's disk to another's: real files, real threads, real streams. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { Random } from "../../lib/pure/prng.ts";
import type { SnapshotMeta } from "../../manager/raft/core/types.ts";
import { Storage } from "../../manager/raft/storage.ts";
import { GrpcWorld } from "../support/transport-world.ts";

const meta: SnapshotMeta = {
  index: 100,
  term: 3,
  conf: { voters: [1, 2], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};

function openStorage(folder: string, memberId: number): Promise<Storage> {
  const identity = { clusterId: "c".repeat(25), memberId, incarnation: memberId.toString(16).padStart(32, "0") };
  return Storage.open({ folder, identity, kek: { kind: "node", key: new Uint8Array(32).fill(memberId) } });
}

function create(storage: Storage, content: Uint8Array): Promise<number> {
  let at = 0;
  const next = (bytesMax: number): Uint8Array | undefined => {
    if (at >= content.length) return undefined;
    const chunk = content.slice(at, at + bytesMax);
    at += chunk.length;
    return chunk;
  };
  return new Promise((resolve, reject) => {
    storage.snapshots.create(meta, { index: meta.index, next }, (error, sizeBytes) =>
      error === undefined ? resolve(sizeBytes) : reject(error),
    );
  });
}

function load(storage: Storage): Promise<Buffer> {
  const parts: Buffer[] = [];
  const sink = { write: (chunk: Uint8Array) => void parts.push(Buffer.from(chunk)), finish: () => {} };
  return new Promise((resolve, reject) => {
    storage.snapshots.load(meta, sink, (error) =>
      error === undefined ? resolve(Buffer.concat(parts)) : reject(error),
    );
  });
}

test(
  "G5: a snapshot file travels whole through broken connections, and opens at the other member",
  { timeout: 240_000 },
  async () => {
    const folders = [1, 2].map((id) => mkdtempSync(join(tmpdir(), `skep-transport-${id}-`)));
    const [from, to] = (await Promise.all(folders.map((folder, at) => openStorage(folder, at + 1)))) as [
      Storage,
      Storage,
    ];
    const world = new GrpcWorld({ limits: { snapshotAttemptsMax: 50, snapshotBytesPerSecond: Infinity } });
    try {
      const random = new Random("content");
      const content = Buffer.alloc(6_000_000);
      for (let at = 0; at < content.length; at += 4) content.writeUInt32LE(random.uint32(), at);
      const sizeBytes = await create(from, content);
      assert.ok(sizeBytes > content.length);

      const one = await world.add(1, { transfers: from.snapshots });
      const two = await world.add(2, { transfers: to.snapshots });
      await world.connectAll();
      const relay = world.opened(one, two);
      let cutAtBytes = 500_000;
      const watching = setInterval(() => {
        const received = two.transport.metrics().get(1)?.snapshotBytesReceived ?? 0;
        if (received < cutAtBytes) return;
        cutAtBytes = received + 1_500_000;
        relay.break();
      }, 1);
      const report = await new Promise<Error | undefined>((resolve) => {
        one.transport.sendSnapshot({ type: "snapshot", from: 1, to: 2, term: 4, meta }, resolve);
      });
      clearInterval(watching);
      assert.equal(report, undefined);
      await two.heard.until(() => two.heard.messages.length > 0);
      assert.deepEqual(two.heard.messages[0], { type: "snapshot", from: 1, to: 2, term: 4, meta });
      assert.ok(cutAtBytes > 2_000_000, "it was cut at least once");
      await new Promise<void>((resolve, reject) => {
        to.log.reset(meta, { term: 4, vote: 0, commit: meta.index }, (error) =>
          error === undefined ? resolve() : reject(error),
        );
      });
      assert.ok((await load(to)).equals(content));
      // Resumed, not begun anew: with four chunks in flight at each cut.
      const sent = one.transport.metrics().get(2)?.snapshotBytesSent ?? 0;
      assert.ok(sent < sizeBytes * 2, `${sent} bytes sent for ${sizeBytes}`);
    } finally {
      await world[Symbol.asyncDispose]();
      await Promise.all([from[Symbol.asyncDispose](), to[Symbol.asyncDispose]()]);
      for (const folder of folders) rmSync(folder, { recursive: true, force: true });
    }
  },
);
