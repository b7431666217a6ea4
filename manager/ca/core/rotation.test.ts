import assert from "node:assert/strict";
import { test } from "node:test";

import { nextRound, whatBegins, type NodeProgress, type RotationFacts } from "./index.ts";

const facts = (more: Partial<RotationFacts>): RotationFacts => ({
  root: { digest: "old", lastForcedRotation: 1 },
  wish: { forceRotate: 1 },
  broughtDigest: "",
  nextDigest: "",
  ...more,
});

test("a rotation begins when it is asked for by number, or when another root is brought", () => {
  assert.equal(whatBegins(facts({})), undefined);
  assert.deepEqual(whatBegins(facts({ wish: { forceRotate: 2 } })), { kind: "begin", brought: false });
  assert.deepEqual(whatBegins(facts({ broughtDigest: "new" })), { kind: "begin", brought: true });
});

test("asking again while one is under way begins another; the same root brought again changes nothing", () => {
  assert.deepEqual(whatBegins(facts({ wish: { forceRotate: 2 }, nextDigest: "next" })), {
    kind: "begin",
    brought: false,
  });
  assert.equal(whatBegins(facts({ broughtDigest: "new", nextDigest: "new" })), undefined);
  assert.deepEqual(whatBegins(facts({ wish: { forceRotate: 2 }, broughtDigest: "new", nextDigest: "new" })), {
    kind: "noted",
  });
});

test("the root in force, brought again, ends a rotation and is otherwise no change", () => {
  assert.deepEqual(whatBegins(facts({ broughtDigest: "old", nextDigest: "new" })), { kind: "abandon" });
  assert.equal(whatBegins(facts({ broughtDigest: "old" })), undefined);
  assert.deepEqual(whatBegins(facts({ wish: { forceRotate: 2 }, broughtDigest: "old" })), { kind: "noted" });
});

const node = (id: string, more: Partial<NodeProgress> = {}): NodeProgress => ({
  id,
  issuedBy: "old",
  asked: false,
  done: false,
  expired: false,
  ...more,
});

test("nodes are asked in rounds; those that have a new certificate are awaited, those that use it are done", () => {
  const nodes = [
    node("a", { done: true, issuedBy: "next" }),
    node("b", { issuedBy: "next" }),
    node("c", { asked: true }),
    node("d"),
    node("e"),
  ];
  assert.deepEqual(nextRound(nodes, "next", 50), { ask: ["d", "e"], finished: false });
  assert.deepEqual(nextRound(nodes, "next", 1), { ask: ["d"], finished: false });
});

test("nodes that are asked and away slow the others down and do not stop them; expired ones are not waited for", () => {
  const away = Array.from({ length: 1000 }, (_, number) => node(`away${number}`, { asked: true }));
  const waiting = Array.from({ length: 100 }, (_, number) => node(`waiting${number}`));
  assert.equal(nextRound([...away, ...waiting], "next", 50).ask.length, 5);
  assert.equal(nextRound(waiting, "next", 50).ask.length, 50);
  assert.deepEqual(nextRound([node("a", { expired: true })], "next", 50), { ask: [], finished: true });
});
