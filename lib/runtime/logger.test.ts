import assert from "node:assert/strict";
import { test } from "node:test";

import { ClusterError, InvariantViolation } from "../pure/errors.ts";
import { createLogger, type Logger, type LogLevel } from "./logger.ts";

function capture(level: LogLevel = "trace"): {
  log: Logger;
  lines: () => Record<string, unknown>[];
  text: () => string;
} {
  let text = "";
  const log = createLogger({ level, destination: { write: (line) => void (text += line) } });
  const lines = (): Record<string, unknown>[] =>
    text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { log, lines, text: () => text };
}

class TokenExpired extends ClusterError {
  readonly code = "TOKEN_EXPIRED";
}

test("a line is one JSON object with level, time, room, facts and message", () => {
  const { log, lines } = capture();
  log.child("raft", { member: 7 }).child("transport").info("peer is back", { peer: 3, big: 5n });
  const [line] = lines();
  assert.equal(line?.["level"], "info");
  assert.match(String(line?.["time"]), /^\d{4}-\d\d-\d\dT/);
  assert.equal(line?.["room"], "raft/transport");
  assert.equal(line?.["member"], 7);
  assert.equal(line?.["peer"], 3);
  assert.equal(line?.["big"], "5");
  assert.equal(line?.["message"], "peer is back");
});

test("levels below the set one are dropped, and a child keeps its own level", () => {
  const { log, lines } = capture("warn");
  log.info("no");
  const child = log.child("noisy");
  child.level = "debug";
  child.debug("yes");
  log.debug("no");
  assert.deepEqual(
    lines().map((line) => line["message"]),
    ["yes"],
  );
});

test("secrets leave no trace: by field name at any depth, by shape inside texts, and as bytes", () => {
  const { log, text } = capture();
  const secret = "hunter2secretvalue";
  log.warn(`joining with SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-${"7".repeat(25)}`, {
    joinToken: secret,
    nested: { deep: [{ password: secret, db_password: secret, unlockKey: secret, privateKey: secret, dek: secret }] },
    header: `Bearer ${secret}`,
    pem: `x -----BEGIN PRIVATE KEY-----\n${secret}\n-----END PRIVATE KEY----- y`,
    bytes: Buffer.from(secret),
    map: new Map([["token", secret]]),
    error: new TokenExpired("Cannot join with SWMKEY-1-abcdef0123456789", {
      fix: "x",
      cause: new Error(`Basic ${secret}`),
    }),
  });
  assert.ok(!text().includes(secret), text());
  assert.ok(!text().includes("3pu6hszjas19xyp7"));
  assert.ok(!text().includes("abcdef0123456789"));
  assert.match(text(), /\[18 bytes\]/);
});

test("names that only look like secrets stay readable", () => {
  const { log, lines } = capture();
  log.info("x", { publicKey: "p", keys: 3, tokenCount: 4, secretId: "id", key: "k" });
  assert.partialDeepStrictEqual(lines()[0], { publicKey: "p", keys: 3, tokenCount: 4, secretId: "id", key: "k" });
});

test("errors print code, fix, facts and causes; a stack only for what nobody expected", () => {
  const { log, lines } = capture();
  log.error("failed", {
    error: new TokenExpired("Cannot admit node", { fix: "Print a fresh token", cause: new Error("inner") }),
    broken: new InvariantViolation("next is past match", { next: 1 }),
  });
  const { error, broken } = lines()[0] as { error: Record<string, unknown>; broken: Record<string, unknown> };
  assert.partialDeepStrictEqual(error, { name: "TokenExpired", code: "TOKEN_EXPIRED", fix: "Print a fresh token" });
  assert.equal("stack" in error, false);
  assert.match(JSON.stringify(error["cause"]), /inner/);
  assert.deepEqual(broken["facts"], { next: 1 });
  assert.match(String(broken["stack"]), /logger\.test/);
});

test("cycles, depth, length and breadth are bounded", () => {
  const { log, text } = capture();
  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  log.info("x", { cycle, long: "y".repeat(100_000), wide: Array.from({ length: 5000 }, () => 1) });
  assert.ok(text().length < 12_000, `${text().length}`);
  assert.match(text(), /4900 more/);
});
