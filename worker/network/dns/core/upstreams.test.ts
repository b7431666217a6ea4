import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { Upstreams } from "./upstreams.ts";

const limits = { attemptsMax: 3, nextMs: 700, answerMs: 3000, silentAnswerMs: 1000, silentForMs: 5000 };

test("servers have their turns in the order in which they were given, those that were silent last", () => {
  const upstreams = new Upstreams(limits);
  assert.deepEqual(upstreams.plan(["a", "b"], 0), { servers: ["a", "b", "a"], answerMs: 3000 });
  upstreams.wasSilent("a", 0, 100);
  assert.deepEqual(upstreams.plan(["a", "b"], 100), { servers: ["b", "a", "b"], answerMs: 3000 });
  assert.deepEqual(upstreams.plan(["a", "b"], 5100).servers, ["a", "b", "a"], "it is forgotten");
});

test("where all were silent each is asked once, and not for long, until one speaks", () => {
  const upstreams = new Upstreams(limits);
  for (const server of ["a", "b"]) upstreams.wasSilent(server, 0, 100);
  assert.deepEqual(upstreams.plan(["a", "b"], 200), { servers: ["a", "b"], answerMs: 1000 });
  upstreams.spoke("b", 300);
  assert.deepEqual(upstreams.plan(["a", "b"], 300), { servers: ["b", "a", "b"], answerMs: 3000 });
  upstreams.wasSilent("b", 250, 400);
  assert.equal(upstreams.plan(["b"], 400).answerMs, 3000, "it spoke since it was asked");
});

test("no history makes a plan that is long, leaves a server out that has a turn, or asks nobody (any order of events)", () => {
  const server = fc.integer({ min: 0, max: 400 }).map(String);
  const act = fc.record({ server, speaks: fc.boolean(), agoMs: fc.nat(4000), stepMs: fc.nat(4000) });
  fc.assert(
    fc.property(fc.array(act), fc.array(server, { maxLength: 5 }), (acts, servers) => {
      const upstreams = new Upstreams(limits);
      let nowMs = 10_000;
      for (const one of acts) {
        nowMs += one.stepMs;
        if (one.speaks) upstreams.spoke(one.server, nowMs);
        else upstreams.wasSilent(one.server, nowMs - one.agoMs, nowMs);
      }
      const plan = upstreams.plan(servers, nowMs);
      assert.ok(plan.servers.length <= 3);
      assert.ok(plan.answerMs === 3000 || plan.answerMs === 1000);
      const wanted = new Set(servers);
      assert.equal(new Set(plan.servers).size, Math.min(3, wanted.size));
      for (const one of plan.servers) assert.ok(wanted.has(one));
    }),
  );
});
