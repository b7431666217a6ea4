import assert from "node:assert/strict";
import { test } from "node:test";
import { ImageReferenceInvalid } from "./errors.ts";
import { familiar, parseReference, repositoryName } from "./reference.ts";

const digest = `sha256:${"a".repeat(64)}`;

test("references are completed as Docker completes them", () => {
  const table: readonly [string, string, string | undefined, string][] = [
    ["busybox", "docker.io/library/busybox", "latest", "busybox:latest"],
    ["busybox:1.36", "docker.io/library/busybox", "1.36", "busybox:1.36"],
    ["user/app", "docker.io/user/app", "latest", "user/app:latest"],
    ["docker.io/busybox", "docker.io/library/busybox", "latest", "busybox:latest"],
    ["index.docker.io/library/busybox", "docker.io/library/busybox", "latest", "busybox:latest"],
    ["localhost/app", "localhost/app", "latest", "localhost/app:latest"],
    ["localhost:5000/app:2", "localhost:5000/app", "2", "localhost:5000/app:2"],
    ["127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c", "latest", "127.0.0.1:5000/a/b/c:latest"],
    ["[::1]:5000/app", "[::1]:5000/app", "latest", "[::1]:5000/app:latest"],
    ["quay.io/a/b@" + digest, "quay.io/a/b", undefined, `quay.io/a/b@${digest}`],
    ["a/b:1@" + digest, "docker.io/a/b", "1", "a/b:1"],
  ];
  for (const [text, name, tag, shown] of table) {
    const reference = parseReference(text);
    assert.equal(repositoryName(reference), name, text);
    assert.equal(reference.tag, tag, text);
    assert.equal(familiar(reference), shown, text);
  }
});

test("what is no reference is refused with what is wrong", () => {
  const bad = [
    "",
    ":tag",
    "UPPER",
    "a//b",
    "a/../b",
    "-a",
    "a:",
    "a:b:c/d",
    "a@sha256:12",
    "a@md5:" + "a".repeat(64),
    "a b",
    "a\nb",
    "http://a/b",
    "x".repeat(300),
    `host:99999999/a`,
    "a/b:" + "t".repeat(129),
  ];
  for (const text of bad) assert.throws(() => parseReference(text), ImageReferenceInvalid, JSON.stringify(text));
});
