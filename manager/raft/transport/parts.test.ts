import assert from "node:assert/strict";
import { test } from "node:test";

import { heartbeat } from "../../../test/conformance/raft-transport.ts";
import { isAddress } from "./handshake.ts";
import { lanTimings, wanTimings } from "../member-config.ts";
import { defaultTransportLimits, limitsOfDistance } from "./limits.ts";
import { PeerStats } from "./peer-stats.ts";
import { TokenBucket } from "./token-bucket.ts";

test("the timings tell the distance: near is as by default, far waits longer and keeps 50 MB/s under way", () => {
  const near = limitsOfDistance(lanTimings);
  for (const [name, value] of Object.entries(near.transport)) {
    assert.equal(value, defaultTransportLimits[name as keyof typeof near.transport], name);
  }
  const far = limitsOfDistance(wanTimings);
  assert.deepEqual(far, {
    transport: { silentMsMax: 6000, handshakeTimeoutMs: 3000, snapshotWindow: 20 },
    windowBytes: 5_000_000,
  });
});

test("a token bucket allows its burst, then its rate, and never saves up more than the burst", () => {
  const bucket = new TokenBucket(1000, 500, 0); // 1 byte a millisecond
  assert.equal(bucket.waitMs(0), 0);
  bucket.spend(500);
  assert.ok(Math.abs(bucket.waitMs(0) - 0) < 1);
  bucket.spend(300);
  assert.ok(Math.abs(bucket.waitMs(0) - 300) < 1);
  assert.ok(Math.abs(bucket.waitMs(100) - 200) < 1);
  assert.equal(bucket.waitMs(301), 0);
  bucket.waitMs(1_000_000);
  bucket.spend(600);
  assert.ok(Math.abs(bucket.waitMs(1_000_000) - 100) < 1);
});

test("over an hour a token bucket gives its rate and its burst, whatever the sizes", () => {
  const bucket = new TokenBucket(50_000_000, 1_000_000, 0);
  let nowMs = 0;
  let spent = 0;
  for (let i = 0; nowMs < 10_000; i++) {
    const waitMs = bucket.waitMs(nowMs);
    nowMs += waitMs;
    if (waitMs > 0) continue;
    const bytes = 1000 + ((i * 7919) % 262_144);
    bucket.spend(bytes);
    spent += bytes;
  }
  assert.ok(Math.abs(spent - 501_000_000) < 1_000_000, `${spent} bytes in 10 s at 50 MB/s`);
});

test("no limit means no waiting", () => {
  const bucket = new TokenBucket(Infinity, 1, 0);
  bucket.spend(1e12);
  assert.equal(bucket.waitMs(0), 0);
});

test("silence counts from the first message that wants an answer until anything comes", () => {
  const stats = new PeerStats();
  assert.equal(stats.silentMs(100), 0);
  stats.sent({ type: "heartbeatResponse", from: 1, to: 2, term: 1, round: 1 }, 10, 100);
  assert.equal(stats.silentMs(500), 0);
  stats.sent(heartbeat(1, 2, 1), 10, 500);
  stats.sent(heartbeat(1, 2, 2), 10, 550);
  assert.equal(stats.silentMs(600), 100);
  stats.heard(10, 610);
  assert.equal(stats.silentMs(1000), 0);
  stats.sent(heartbeat(1, 2, 3), 10, 1000);
  stats.forgive();
  assert.equal(stats.silentMs(5000), 0);
  stats.sent({ type: "heartbeat", from: 1, to: 2, term: 1, commit: 0, round: 4, unanswered: true }, 10, 5000);
  assert.equal(stats.silentMs(9000), 0, "no answer was asked for");
});

test("round trips are measured per round, unanswered rounds are forgotten, and answers to nothing are ignored", () => {
  const stats = new PeerStats();
  const now = { connected: true, queuedBytes: 0, nowMs: 5000 };
  const answer = (round: number) => ({ type: "heartbeatResponse", from: 2, to: 1, term: 1, round }) as const;
  stats.received(answer(7), 10, 100);
  assert.equal(stats.read(now).rttMs, undefined);
  stats.sent(heartbeat(1, 2, 1), 10, 1000);
  stats.received(answer(1), 10, 1008);
  assert.equal(stats.read(now).rttMs, 8);
  stats.received(answer(1), 10, 3000);
  assert.equal(stats.read(now).rttMs, 8);
  for (let round = 2; round < 40; round++) stats.sent(heartbeat(1, 2, round), 10, 2000);
  stats.received(answer(2), 10, 4000);
  assert.equal(stats.read(now).rttMs, 8);
  stats.received(answer(39), 10, 2016);
  assert.equal(stats.read(now).rttMs, 9);
  assert.equal(stats.read({ ...now, nowMs: 2020 }).lastHeardMs, 4);
});

test("an address is HOST:PORT of possible length", () => {
  for (const good of ["10.0.0.1:2377", "manager-1.example.org:2377", "[fe80::1%eth0]:2377", "[::1]:1"]) {
    assert.equal(isAddress(good), true, good);
  }
  for (const bad of [
    "",
    "host",
    "host:",
    ":1",
    "a b:1",
    "host:123456",
    `${"h".repeat(254)}:1`,
    "http://host:1",
    "h:1\n",
  ]) {
    assert.equal(isAddress(bad), false, bad);
  }
});
