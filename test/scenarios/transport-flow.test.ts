/** Slow, silent and vanishing peers: what is kept for them is bounded, and nobody else waits. */
import assert from "node:assert/strict";
import { test } from "node:test";

import type { TransportLimits } from "../../manager/raft/transport/index.ts";
import { append, connected, entriesFrom, heartbeat, roundOf } from "../conformance/raft-transport.ts";
import { GrpcWorld, type GrpcNode } from "../support/transport-world.ts";

function scene(
  title: string,
  limits: Partial<TransportLimits>,
  play: (world: GrpcWorld, one: GrpcNode, two: GrpcNode, three: GrpcNode) => Promise<void>,
): void {
  test(title, { timeout: 120_000 }, async () => {
    const world = new GrpcWorld({ limits });
    try {
      const [one, two, three] = (await world.start(3)) as [GrpcNode, GrpcNode, GrpcNode];
      await play(world, one, two, three);
    } finally {
      await world[Symbol.asyncDispose]();
    }
  });
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const mebibyte = 1024 * 1024;

scene(
  "J6: a dead-slow peer costs at most its budget, is told unreachable, and the others go on",
  {},
  async (world, one, two, three) => {
    world.opened(one, two).pause();
    const entries = entriesFrom(1, 256, 1000);
    const memoryBefore = process.memoryUsage().arrayBuffers;
    one.heard.unreachables.length = 0;
    let queuedMax = 0;
    // 30 MB to each: three takes all of it, two nothing.
    for (let sent = 1; sent <= 120; sent++) {
      one.transport.send(append(1, 2, sent, entries));
      one.transport.send(append(1, 3, sent, entries));
      queuedMax = Math.max(queuedMax, one.transport.metrics().get(2)?.queuedBytes ?? 0);
      await three.heard.until(() => three.heard.messages.length >= sent - 4);
    }
    await three.heard.until(() => three.heard.messages.length >= 120);
    assert.ok(queuedMax <= 10 * mebibyte, `${queuedMax} bytes kept`);
    assert.ok(queuedMax > 2 * mebibyte, `${queuedMax} bytes kept: the peer was not slow`);
    const metrics = one.transport.metrics();
    assert.ok((metrics.get(2)?.messagesDropped ?? 0) > 60);
    assert.equal(metrics.get(3)?.messagesDropped, 0);
    assert.ok(one.heard.unreachables.includes(2));
    assert.ok(!one.heard.unreachables.includes(3));
    // Both ends are in this process: what three received is here as well.
    const grown = process.memoryUsage().arrayBuffers - memoryBefore;
    assert.ok(grown < 128 * mebibyte + 120 * 260_000, `${grown} bytes more`);
  },
);

scene("heartbeats do not wait behind a saturated data stream", {}, async (world, one, two) => {
  // The control stream is dialled first, the data stream second.
  world.opened(one, two).pauseConnection(1);
  const entries = entriesFrom(1, 256, 1000);
  // In one turn: there is no time in which the keepalive of the connection that stands still could give it up.
  for (let sent = 1; (one.transport.metrics().get(2)?.messagesDropped ?? 0) === 0; sent++) {
    one.transport.send(append(1, 2, sent, entries));
  }
  assert.ok((one.transport.metrics().get(2)?.queuedBytes ?? 0) > 2 * mebibyte);
  for (let round = 1; round <= 50; round++) {
    one.transport.send(heartbeat(1, 2, round));
    await two.heard.until(() => two.heard.messages.some((message) => roundOf(message) === round));
  }
});

scene("order is kept when a choked stream drains", {}, async (world, one, two) => {
  const relay = world.opened(one, two);
  relay.pauseConnection(1);
  let sent = 0;
  while ((one.transport.metrics().get(2)?.queuedBytes ?? 0) < 6 * mebibyte) {
    sent++;
    one.transport.send(append(1, 2, sent, entriesFrom(sent, 1, 100_000)));
  }
  await turn();
  relay.heal();
  await two.heard.until(() => two.heard.messages.length === sent);
  const order = two.heard.messages.map((message) => (message.type === "append" ? message.prevIndex + 1 : 0));
  assert.deepEqual(
    order,
    Array.from({ length: sent }, (_, at) => at + 1),
  );
  while ((one.transport.metrics().get(2)?.queuedBytes ?? 1) > 0) await turn();
  assert.equal(one.transport.metrics().get(2)?.messagesDropped, 0);
});

scene(
  "O3: a half-open connection is given up after the time in which an answer is due, and healed by dialling anew",
  { silentMsMax: 200, handshakeTimeoutMs: 2000 },
  async (world, one, two) => {
    const relay = world.opened(one, two);
    const dialled = relay.accepted;
    relay.silence("toServer");
    one.heard.unreachables.length = 0;
    // Again and again: whoever was kept from running himself waits anew, from the next one on.
    const beating = setInterval(() => one.transport.send(heartbeat(1, 2, 1)), 5);
    await one.heard.until(() => one.heard.unreachables.includes(2));
    clearInterval(beating);
    // Not the keepalive of HTTP/2, which would say that the connection broke.
    assert.equal(one.transport.metrics().get(2)?.lastError, "RAFT_PEER_SILENT");
    relay.heal();
    await connected(one, 2);
    assert.ok(relay.accepted > dialled);
    one.transport.send(heartbeat(1, 2, 2));
    await two.heard.until(() => two.heard.messages.some((message) => roundOf(message) === 2));
  },
);

scene("a member whose transport has closed says so to those that dial it", {}, async (_world, one, two) => {
  await two.transport[Symbol.asyncDispose]();
  await one.heard.until(() => one.heard.unreachables.includes(2));
  while (one.transport.metrics().get(2)?.lastError !== "RAFT_TRANSPORT_CLOSED") await turn();
});

scene(
  "D9: nothing comes back on the connection: the stuck data stream is given up, the control stream's messages arrive",
  { handshakeTimeoutMs: 2000 },
  async (world, one, two) => {
    world.opened(one, two).silence("toClient");
    one.heard.unreachables.length = 0;
    one.transport.send(heartbeat(1, 2, 1));
    await two.heard.until(() => two.heard.messages.length === 1);
    // Without window updates from the other end an append gets stuck; keepalive notices.
    one.transport.send(append(1, 2, 1, entriesFrom(1, 100, 10_000)));
    await one.heard.until(() => one.transport.metrics().get(2)?.streamResets === 2);
    world.heal(one, two);
    await connected(one, 2);
    one.transport.send(append(1, 2, 1, entriesFrom(1, 1)));
    await two.heard.until(() => two.heard.messages.some((message) => message.type === "append"));
  },
);

scene(
  "a peer that accepts connections and says nothing does not hold up anything",
  { handshakeTimeoutMs: 2000 },
  async (world, one, two, three) => {
    const relay = world.opened(one, two);
    relay.silence("toServer");
    relay.break();
    await one.heard.until(() => one.transport.metrics().get(2)?.lastError === "RAFT_HANDSHAKE_TIMEOUT");
    one.transport.send(heartbeat(1, 3, 1));
    await three.heard.until(() => three.heard.messages.length === 1);
    relay.heal();
    await connected(one, 2);
  },
);

scene(
  "O2: a process that was asleep does not take its own silence for its peers'",
  { silentMsMax: 1500 },
  async (_world, one, two) => {
    one.transport.send(heartbeat(1, 2, 1));
    await two.heard.until(() => two.heard.messages.length === 1);
    two.transport.send({ type: "heartbeatResponse", from: 2, to: 1, term: 3, round: 1 });
    // The answer is in the socket while this process does nothing for longer than the limit.
    const untilMs = performance.now() + 2000;
    while (performance.now() < untilMs);
    await one.heard.until(() => one.heard.messages.length === 1);
    for (let i = 0; i < 20; i++) await turn();
    assert.equal(one.transport.metrics().get(2)?.streamResets, 0);
  },
);

scene(
  "a peer that comes back is dialled at once, not after the pause",
  { reconnectMinMs: 600_000, reconnectMaxMs: 600_000 },
  async (world, one, two) => {
    // The first tries succeed at once; after a break the pause would be ten minutes.
    world.reset(one, two);
    await one.heard.until(() => one.heard.unreachables.includes(2));
    assert.equal(one.transport.metrics().get(2)?.connected, false);
    two.transport.setMembers([{ id: 1, address: one.address }]);
    await connected(one, 2);
  },
);

scene("a changed address is dialled anew, and counters live on", {}, async (world, one, two) => {
  one.transport.send(heartbeat(1, 2, 1));
  await two.heard.until(() => two.heard.messages.length === 1);
  one.transport.setMembers([{ id: 2, address: two.address }]);
  await connected(one, 2);
  one.transport.send(heartbeat(1, 2, 2));
  await two.heard.until(() => two.heard.messages.length === 2);
  assert.equal(one.transport.metrics().get(2)?.messagesSent, 2);
  assert.equal(one.transport.metrics().has(3), false);
  assert.equal(world.opened(one, two).connections >= 0, true);
});

scene(
  "forwarded requests are bounded and end in time, and what had not left is told apart from what had",
  { forwardedMax: 2 },
  async (world, one, two) => {
    type Outcome = Parameters<Parameters<GrpcNode["transport"]["forwardProposal"]>[3]>[0];
    const propose = (text: string, timeoutMs: number): Promise<Outcome> =>
      new Promise((resolve) => one.transport.forwardProposal(2, Buffer.from(text), { timeoutMs }, resolve));
    let givenUp = 0;
    two.heard.onPropose = () => () => {
      givenUp++;
      two.heard.receiveForwarded(Buffer.from(`given up ${givenUp}`));
    };
    // Long enough for both to leave, on a busy machine too.
    const slow = [propose("a", 3000), propose("b", 3000)];
    assert.deepEqual(await propose("c", 3000), { kind: "backpressure", why: "uncommitted", retryAfterMs: 50 });
    assert.deepEqual(await Promise.all(slow), [{ kind: "unknown" }, { kind: "unknown" }]);
    await two.heard.until(() => givenUp === 2);
    world.cut(one, two);
    await one.heard.until(() => one.transport.metrics().get(2)?.connected === false);
    assert.deepEqual(await propose("d", 60_000), { kind: "notLeader", leader: 0 });
  },
);
