/** What every transport promises (manager/raft/ports.ts, transport/types.ts), whatever it runs on. */
import assert from "node:assert/strict";
import { test } from "node:test";

import type { ConfState, Entry, MemberId, Message, SnapshotMeta } from "../../manager/raft/core/types.ts";
import type { Outcome } from "../../manager/raft/proposals.ts";
import type { ReadOutcome } from "../../manager/raft/reads.ts";
import type { RaftTransport, Standing, TransportHandlers } from "../../manager/raft/transport/index.ts";
import type { MemorySnapshots } from "../support/memory-snapshots.ts";

/** A member's handlers that remember what was said, and let a test wait for it. */
export class Heard implements TransportHandlers {
  readonly messages: Message[] = [];
  readonly commands: string[] = [];
  readonly unreachables: MemberId[] = [];
  readonly gones: MemberId[] = [];
  removedCount = 0;
  standings = new Map<MemberId, Standing>();
  onPropose: (command: Uint8Array, done: (outcome: Outcome) => void) => () => void = (_command, done) => {
    done({ kind: "notLeader", leader: 0 });
    return () => {};
  };
  onReadIndex: (done: (outcome: ReadOutcome) => void) => void = (done) => done({ kind: "retry" });
  readonly #waiters = new Set<() => void>();

  receive(message: Message): void {
    this.messages.push(message);
    this.#wake();
  }

  unreachable(peer: MemberId): void {
    this.unreachables.push(peer);
    this.#wake();
  }

  gone(peer: MemberId): void {
    this.gones.push(peer);
    this.#wake();
  }

  receiveForwarded(command: Uint8Array): void {
    this.commands.push(Buffer.from(command).toString());
    this.#wake();
  }

  standing(peer: { id: MemberId }): Standing {
    return this.standings.get(peer.id) ?? "member";
  }

  propose(command: Uint8Array, done: (outcome: Outcome) => void): () => void {
    return this.onPropose(command, done);
  }

  readIndex(done: (outcome: ReadOutcome) => void): void {
    this.onReadIndex(done);
  }

  removed(): void {
    this.removedCount++;
    this.#wake();
  }

  /** Resolves as soon as `holds`; asked again after each thing heard. */
  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (!holds()) return;
        this.#waiters.delete(look);
        resolve();
      };
      this.#waiters.add(look);
      look();
    });
  }

  #wake(): void {
    for (const look of this.#waiters) look();
  }
}

export interface Node {
  readonly id: MemberId;
  readonly transport: RaftTransport;
  readonly heard: Heard;
  readonly snapshots: MemorySnapshots;
}

export interface World extends AsyncDisposable {
  /** Members 1..count, each with the others as its members and connected to them. */
  start(count: number): Promise<Node[]>;
  /** What is on its way from `from` to `to` is lost. */
  reset(from: Node, to: Node): void;
  cut(from: Node, to: Node): void;
  /** As if the process of `node` were killed. */
  end(node: Node): Promise<void>;
  heal(from: Node, to: Node): void;
  addressOf(id: MemberId): string;
}

export const conf: ConfState = {
  voters: [1, 2, 3],
  votersOutgoing: [],
  learners: [4],
  learnersNext: [],
  autoLeave: false,
};
export const snapshotMeta: SnapshotMeta = { index: 2 ** 40, term: 7, conf };

export function entriesFrom(index: number, count: number, bytes = 16): Entry[] {
  return Array.from({ length: count }, (_, at) => ({
    term: 3,
    index: index + at,
    kind: "normal",
    data: Buffer.alloc(bytes, (index + at) % 256),
  }));
}

export function append(from: MemberId, to: MemberId, index: number, entries: readonly Entry[] = []): Message {
  return { type: "append", from, to, term: 3, prevIndex: index - 1, prevTerm: 3, commit: index - 1, entries };
}

export function heartbeat(from: MemberId, to: MemberId, round: number): Message {
  return { type: "heartbeat", from, to, term: 3, commit: 0, round };
}

const big = Number.MAX_SAFE_INTEGER;
const everyMessage = (from: MemberId, to: MemberId): Message[] => [
  { type: "preVote", from, to, term: big, lastIndex: 5, lastTerm: 4, transfer: false, commit: 3, commitTerm: 2 },
  { type: "vote", from, to, term: 6, lastIndex: big, lastTerm: 4, transfer: true, commit: 3, commitTerm: 2 },
  { type: "preVoteResponse", from, to, term: 6, granted: true, commit: 3, commitTerm: 2 },
  { type: "voteResponse", from, to, term: 6, granted: false, commit: 0, commitTerm: 0 },
  { type: "appendResponse", from, to, term: 6, index: 9, rejected: true, hintIndex: 4, hintTerm: 2 },
  { type: "heartbeat", from, to, term: 6, commit: 8, round: 77 },
  { type: "heartbeatResponse", from, to, term: 6, round: 77 },
  { type: "timeoutNow", from, to, term: 6 },
  { type: "readIndex", from, to, term: 6, requestId: 2 ** 52 },
  { type: "readIndexResponse", from, to, term: 6, requestId: 2 ** 52, index: 12, refused: true },
];

export function transportConformance(name: string, open: () => World): void {
  const scene = (title: string, play: (world: World) => Promise<void>): void => {
    test(`${name}: ${title}`, { timeout: 120_000 }, async () => {
      const world = open();
      try {
        await play(world);
      } finally {
        await world[Symbol.asyncDispose]();
      }
    });
  };

  scene("every message arrives as it was sent, with its sender proved, in order", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    const sent = everyMessage(1, 2);
    for (const message of sent) one.transport.send(message);
    await two.heard.until(() => two.heard.messages.length >= sent.length);
    assert.deepEqual(two.heard.messages, sent);
    const entries: Entry[] = [
      { term: 1, index: 1, kind: "empty", data: Buffer.alloc(0) },
      { term: 2, index: 2, kind: "confChange", data: Buffer.from("change") },
      { term: 2, index: 3, kind: "normal", data: Buffer.alloc(100_000, 7) },
    ];
    two.heard.messages.length = 0;
    one.transport.send({ type: "append", from: 1, to: 2, term: 2, prevIndex: 0, prevTerm: 0, commit: 1, entries });
    await two.heard.until(() => two.heard.messages.length === 1);
    const [got] = two.heard.messages;
    assert.equal(got?.type === "append" && got.entries.length, 3);
    for (const [at, entry] of entries.entries()) {
      const received = got?.type === "append" ? got.entries[at] : undefined;
      assert.deepEqual({ ...received, data: Buffer.from(received!.data) }, entry);
    }
  });

  scene("appends stay in order, also many and to several peers at once", async (world) => {
    const nodes = await world.start(3);
    const [one, two, three] = nodes as [Node, Node, Node];
    for (let index = 1; index <= 300; index++) {
      const entries = entriesFrom(index, 1, 2000);
      for (const to of [2, 3]) one.transport.send(append(1, to, index, entries));
    }
    for (const node of [two, three]) {
      await node.heard.until(() => node.heard.messages.length === 300);
      const order = node.heard.messages.map((message) => (message.type === "append" ? message.prevIndex : -1));
      assert.deepEqual(
        order,
        Array.from({ length: 300 }, (_, at) => at),
      );
    }
  });

  scene("a message for nobody is reported, later and not within send()", async (world) => {
    const [one] = (await world.start(2)) as [Node];
    one.heard.unreachables.length = 0;
    one.transport.send(heartbeat(1, 99, 1));
    one.transport.send(heartbeat(1, 99, 2));
    assert.deepEqual(one.heard.unreachables, []);
    await one.heard.until(() => one.heard.unreachables.length > 0);
    assert.deepEqual(one.heard.unreachables, [99]);
  });

  scene("a member whose process ended is told as gone, a broken stream or a silent link is not", async (world) => {
    const [one, two, three] = (await world.start(3)) as [Node, Node, Node];
    world.reset(one, three);
    await one.heard.until(() => one.heard.unreachables.includes(3));
    await connected(one, 3);
    await world.end(two);
    await one.heard.until(() => one.heard.gones.length > 0);
    assert.deepEqual(one.heard.gones, [2]);
  });

  scene("after a reset messages may be missing, but none comes late, twice or out of order", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    one.heard.unreachables.length = 0;
    for (let round = 1; round <= 200; round++) {
      one.transport.send(heartbeat(1, 2, round));
      if (round % 50 === 0) world.reset(one, two);
    }
    await one.heard.until(() => one.heard.unreachables.includes(2));
    await connected(one, 2);
    one.transport.send(heartbeat(1, 2, 1000));
    await two.heard.until(() => two.heard.messages.some((message) => roundOf(message) === 1000));
    const rounds = two.heard.messages.map(roundOf);
    assert.deepEqual(
      rounds,
      [...new Set(rounds)].sort((a, b) => a - b),
    );
  });

  scene("D9: a cut in one direction is reported to the sender, and the other direction goes on", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    one.heard.unreachables.length = 0;
    world.cut(one, two);
    await one.heard.until(() => one.heard.unreachables.includes(2));
    one.heard.unreachables.length = 0;
    one.transport.send(append(1, 2, 1));
    await one.heard.until(() => one.heard.unreachables.includes(2));
    two.transport.send(heartbeat(2, 1, 5));
    await one.heard.until(() => one.heard.messages.length > 0);
    assert.deepEqual(two.heard.messages, []);
    world.heal(one, two);
    await connected(one, 2);
    one.transport.send(heartbeat(1, 2, 6));
    await two.heard.until(() => two.heard.messages.length > 0);
    assert.deepEqual(two.heard.messages.map(roundOf), [6]);
  });

  scene("a snapshot arrives whole before its message is taken in, and is reported once", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    const chunks = Array.from({ length: 9 }, (_, at) => Buffer.alloc(50_000 + at, at));
    one.snapshots.put(snapshotMeta, chunks);
    const request = { type: "snapshot", from: 1, to: 2, term: 9, meta: snapshotMeta } as const;
    let there = false;
    const reports: (Error | undefined)[] = [];
    const reported = new Promise<void>((resolve) => {
      one.transport.sendSnapshot(request, (error) => {
        reports.push(error);
        resolve();
      });
    });
    assert.equal(reports.length, 0);
    await two.heard.until(() => two.heard.messages.length > 0);
    there = two.snapshots.get(snapshotMeta)?.equals(Buffer.concat(chunks)) === true;
    assert.ok(there);
    assert.deepEqual(two.heard.messages, [request]);
    await reported;
    assert.deepEqual(reports, [undefined]);
    assert.equal(one.snapshots.openReaders, 0);
    assert.equal(two.snapshots.openReceivers, 0);
  });

  scene("a snapshot that is not there, or for nobody, is reported as an error", async (world) => {
    const [one] = (await world.start(2)) as [Node];
    const report = (to: MemberId): Promise<Error | undefined> =>
      new Promise((resolve) => {
        one.transport.sendSnapshot({ type: "snapshot", from: 1, to, term: 9, meta: snapshotMeta }, resolve);
      });
    assert.ok((await report(99)) instanceof Error);
    assert.ok((await report(2)) instanceof Error);
  });

  scene("a forwarded command arrives, and one for nobody is dropped", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    one.transport.forward(99, Buffer.from("lost"));
    one.transport.forward(2, Buffer.from("vote on a hash"));
    await two.heard.until(() => two.heard.commands.length > 0);
    assert.deepEqual(two.heard.commands, ["vote on a hash"]);
  });

  scene("each forwarded proposal gets its own outcome, whatever the order of the answers", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    const waiting: (() => void)[] = [];
    two.heard.onPropose = (command, done) => {
      const text = Buffer.from(command).toString();
      const outcomes: Record<string, Outcome> = {
        failed: { kind: "failed", why: "replaced" },
        unknown: { kind: "unknown" },
        backpressure: { kind: "backpressure", why: "diskLow", retryAfterMs: 25 },
        notLeader: { kind: "notLeader", leader: 3 },
        tooLarge: { kind: "tooLarge", sizeBytes: 5, sizeBytesMax: 4 },
        stopped: { kind: "stopped" },
      };
      const committed: Outcome = { kind: "committed", index: 9, term: 3, result: Buffer.from(`did ${text}`) };
      waiting.push(() => done(outcomes[text] ?? committed));
      // Answered once all are here, the last one first.
      if (waiting.length === 8) for (const answer of waiting.reverse()) answer();
      return () => {};
    };
    const commands = ["a", "failed", "unknown", "backpressure", "notLeader", "tooLarge", "stopped", "b"];
    const outcomes = await Promise.all(
      commands.map(
        (command) =>
          new Promise<Outcome>((resolve) => {
            let inside = true;
            one.transport.forwardProposal(2, Buffer.from(command), { timeoutMs: 60_000 }, (outcome) => {
              assert.equal(inside, false);
              resolve(outcome);
            });
            inside = false;
          }),
      ),
    );
    assert.deepEqual(
      outcomes.map((outcome) =>
        outcome.kind === "committed"
          ? { ...outcome, result: String(Buffer.from(outcome.result as Uint8Array)) }
          : outcome,
      ),
      [
        { kind: "committed", index: 9, term: 3, result: "did a" },
        { kind: "failed", why: "replaced" },
        { kind: "unknown" },
        { kind: "backpressure", why: "diskLow", retryAfterMs: 25 },
        { kind: "notLeader", leader: 3 },
        { kind: "tooLarge", sizeBytes: 5, sizeBytesMax: 4 },
        // The leader stops; nothing was appended, so it can be offered to the next one.
        { kind: "notLeader", leader: 0 },
        { kind: "committed", index: 9, term: 3, result: "did b" },
      ],
    );
  });

  scene("a forwarded proposal is unknown when its stream breaks, and given up when nobody waits", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    const arrived: string[] = [];
    two.heard.onPropose = (command) => {
      arrived.push(Buffer.from(command).toString());
      two.heard.receiveForwarded(command);
      return () => void arrived.push("given up");
    };
    const propose = (command: string): { outcome: Promise<Outcome>; cancel: () => void } => {
      let cancel = (): void => {};
      const outcome = new Promise<Outcome>((resolve) => {
        cancel = one.transport.forwardProposal(2, Buffer.from(command), { timeoutMs: 60_000 }, resolve);
      });
      return { outcome, cancel };
    };
    const broken = propose("broken");
    await two.heard.until(() => arrived.includes("broken"));
    world.reset(one, two);
    assert.deepEqual(await broken.outcome, { kind: "unknown" });
    const cancelled = propose("cancelled");
    await two.heard.until(() => arrived.includes("cancelled"));
    cancelled.cancel();
    assert.deepEqual(await cancelled.outcome, { kind: "unknown" });
    const nobody = new Promise<Outcome>((resolve) => {
      one.transport.forwardProposal(99, Buffer.from("x"), { timeoutMs: 60_000 }, resolve);
    });
    assert.deepEqual(await nobody, { kind: "notLeader", leader: 0 });
  });

  scene("a forwarded read comes back with its index, or wants to be asked again", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    const answers: ReadOutcome[] = [{ kind: "ready", index: 42 }, { kind: "retry" }, { kind: "stopped" }];
    two.heard.onReadIndex = (done) => done(answers.shift() ?? { kind: "retry" });
    const read = (to: MemberId): Promise<ReadOutcome> =>
      new Promise((resolve) => one.transport.forwardReadIndex(to, { timeoutMs: 60_000 }, resolve));
    assert.deepEqual(await read(2), { kind: "ready", index: 42 });
    assert.deepEqual(await read(2), { kind: "retry" });
    assert.deepEqual(await read(2), { kind: "retry" });
    assert.deepEqual(await read(99), { kind: "retry" });
  });

  scene("F7: a removed member is told so, once, and the others notice nothing", async (world) => {
    const nodes = await world.start(3);
    const [one, two, three] = nodes as [Node, Node, Node];
    for (const node of [one, two]) node.heard.standings.set(3, "removed");
    for (const node of [one, two]) {
      node.transport.setMembers([1, 2].map((id) => ({ id, address: world.addressOf(id) })));
    }
    three.transport.send(heartbeat(3, 1, 1));
    await three.heard.until(() => three.heard.removedCount > 0);
    for (let round = 2; round < 5; round++) three.transport.send(heartbeat(3, 2, round));
    await connected(one, 2);
    one.transport.send(heartbeat(1, 2, 9));
    await two.heard.until(() => two.heard.messages.length > 0);
    assert.deepEqual(two.heard.messages.map(roundOf), [9]);
    assert.equal(three.heard.removedCount, 1);
    one.heard.unreachables.length = 0;
    one.transport.send(heartbeat(1, 3, 10));
    await one.heard.until(() => one.heard.unreachables.includes(3));
  });

  scene("metrics tell of round trips, bytes and losses per peer", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    assert.equal(one.transport.metrics().get(2)?.rttMs, undefined);
    one.transport.send(heartbeat(1, 2, 3));
    await two.heard.until(() => two.heard.messages.length > 0);
    two.transport.send({ type: "heartbeatResponse", from: 2, to: 1, term: 3, round: 3 });
    await one.heard.until(() => one.heard.messages.length > 0);
    const metrics = one.transport.metrics().get(2);
    assert.ok(metrics !== undefined && metrics.connected);
    assert.ok((metrics.rttMs ?? -1) >= 0 && (metrics.lastHeardMs ?? -1) >= 0);
    assert.equal(metrics.messagesSent, 1);
    assert.ok(metrics.bytesSent > 0 && metrics.bytesReceived > 0);
  });

  scene("a closed transport calls nobody back and answers requests at once", async (world) => {
    const [one, two] = (await world.start(2)) as [Node, Node];
    two.heard.onPropose = () => () => {};
    const waiting = new Promise<Outcome>((resolve) => {
      one.transport.forwardProposal(2, Buffer.from("x"), { timeoutMs: 60_000 }, resolve);
    });
    await one.transport[Symbol.asyncDispose]();
    await one.transport[Symbol.asyncDispose]();
    assert.ok(["unknown", "notLeader"].includes((await waiting).kind));
    one.heard.unreachables.length = 0;
    one.transport.send(heartbeat(1, 2, 1));
    one.transport.forward(2, Buffer.from("x"));
    const after = new Promise<Outcome>((resolve) => {
      one.transport.forwardProposal(2, Buffer.from("x"), { timeoutMs: 60_000 }, resolve);
    });
    assert.deepEqual(await after, { kind: "notLeader", leader: 0 });
    two.heard.unreachables.length = 0;
    two.transport.send(heartbeat(2, 1, 1));
    await two.heard.until(() => two.heard.unreachables.includes(1));
    assert.deepEqual(one.heard.messages, []);
    assert.deepEqual(one.heard.unreachables, []);
  });
}

export function roundOf(message: Message): number {
  return message.type === "heartbeat" ? message.round : -1;
}

/** Until the streams of `node` to `peer` are up; asks in each turn of the event loop, bounded by the test's own time. */
export async function connected(node: Node, peer: MemberId): Promise<void> {
  while (node.transport.metrics().get(peer)?.connected !== true) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}
