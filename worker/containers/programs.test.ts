import assert from "node:assert/strict";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";

import { streamProgram } from "./programs.ts";

const run = (script: string): ReturnType<typeof streamProgram> =>
  streamProgram("/bin/sh", ["-c", script], (stderr) => new Error(`it failed: ${stderr.trim()}`));

test("output that nobody has begun to read when the program ends is all there afterwards", async () => {
  const program = run("head -c 20000 /dev/zero");
  await program.done;
  // Past the turn of the loop in which Node.js gives up the unread streams of a process that has ended.
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal((await buffer(program.stdout)).length, 20_000);
});

test("output of a program that fails is broken, never merely short", async () => {
  const program = run("echo some of it; echo no room >&2; exit 3");
  await assert.rejects(buffer(program.stdout), /it failed: no room/);
  await assert.rejects(program.done, /it failed: no room/);
});

test("output of a program that a signal ends is broken, too", async () => {
  const program = run("echo some of it; kill -9 $$");
  await assert.rejects(buffer(program.stdout), /it was ended by SIGKILL/);
});

test("a program ends when the reader of its output leaves", async () => {
  // Its pipes are sockets: where something was left unread the write fails, else there is a signal as well.
  const program = run("trap '' PIPE; while echo more; do :; done");
  for await (const chunk of program.stdout) {
    assert.ok((chunk as Buffer).length > 0);
    break;
  }
  await program.done; // the shell's echo fails, and its loop is over
});

test("a program that cannot be started breaks its output", async () => {
  const program = streamProgram("/nowhere/at-all", [], (stderr) => new Error(stderr));
  await assert.rejects(buffer(program.stdout), { code: "ENOENT" });
  await assert.rejects(program.done, { code: "ENOENT" });
});
