import assert from "node:assert/strict";
import { test } from "node:test";
import { parseChallenge } from "./auth.ts";
import { isInsecure } from "./client.ts";

test("a challenge is read with quotes, without, and among others", () => {
  assert.deepEqual(
    parseChallenge(
      'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
    ),
    {
      scheme: "bearer",
      realm: "https://auth.example/token",
      service: "registry.example",
      scope: "repository:a/b:pull,push",
    },
  );
  assert.equal(parseChallenge('Basic realm="x"')?.scheme, "basic");
  assert.equal(parseChallenge('Negotiate, Basic realm="x"')?.scheme, "basic");
  assert.equal(parseChallenge("Negotiate"), undefined);
  assert.equal(parseChallenge('Bearer service="no realm"'), undefined);
  assert.equal(parseChallenge("x".repeat(100_000)), undefined);
});

test("loopback and listed registries are insecure, nothing else is", () => {
  for (const host of [
    "127.0.0.1:5000",
    "127.9.9.9",
    "localhost",
    "localhost:80",
    "[::1]:5000",
    "reg.example:5000",
    "listed",
  ]) {
    assert.equal(isInsecure(host, ["reg.example:5000", "listed"]), true, host);
  }
  for (const host of ["reg.example", "reg.example:5001", "127.0.0.1.example", "10.0.0.1", "notlisted"]) {
    assert.equal(isInsecure(host, ["reg.example:5000", "listed"]), false, host);
  }
});
