import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";

import { BoundedOutput } from "./standard-error.ts";

/** A pipe that takes `room` bytes. */
class FakePipe {
  room = 0;
  text = "";

  readonly writeSome = (bytes: Uint8Array): number => {
    const taken = Math.min(this.room, bytes.length);
    if (taken === 0) throw Object.assign(new Error("full"), { code: "EAGAIN" });
    this.room -= taken;
    this.text += Buffer.from(bytes.subarray(0, taken)).toString();
    return taken;
  };
}

test("what a reader takes is written at once, and a line that was cut goes on where it was cut", () => {
  const pipe = new FakePipe();
  const output = new BoundedOutput(pipe.writeSome);
  pipe.room = 8;
  output.write("first\n");
  output.write("second\n");
  output.write("third\n");
  assert.equal(pipe.text, "first\nse");
  pipe.room = 100;
  output.lastWords();
  assert.equal(pipe.text, "first\nsecond\nthird\n");
});

test("of too many lines the oldest are dropped, and a line says how many", () => {
  const pipe = new FakePipe();
  const output = new BoundedOutput(pipe.writeSome, 1000);
  const lines = Array.from({ length: 500 }, (_, at) => `{"n":${at}}`);
  for (const line of lines) output.write(`${line}\n`);
  pipe.room = 100_000;
  output.lastWords();
  const told = pipe.text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { n?: number; lines?: number });
  const dropped = told.filter((line) => line.lines !== undefined);
  assert.equal(dropped.length, 1);
  const kept = told.flatMap(({ n }) => (n === undefined ? [] : [n]));
  assert.equal(kept.length + dropped[0]!.lines!, lines.length);
  assert.equal(kept.at(-1), 499, "the newest are kept");
  // The first was begun before anything was dropped.
  assert.deepEqual(kept.slice(1), lines.map((_, at) => at).slice(-(kept.length - 1)));
});

test("a reader that has gone costs nothing any more", () => {
  let calls = 0;
  const output = new BoundedOutput(() => {
    calls++;
    throw Object.assign(new Error("gone"), { code: "EPIPE" });
  });
  output.write("a\n");
  output.write("b\n");
  output.lastWords();
  assert.equal(calls, 1);
});

const room = JSON.stringify(join(import.meta.dirname, "index.ts"));

/** Logs far more than a pipe takes, says how long its longest turn was, and ends as its standard input says. */
const talker = `
  import { createLogger, standardError } from ${room};
  // As the programs do it.
  process.on("uncaughtException", (error) => {
    standardError().write(error.stack + "\\n");
    process.exit(71);
  });
  const logger = createLogger();
  let longestMs = 0;
  for (let at = 0; at < 300; at++) {
    const startMs = performance.now();
    for (let line = 0; line < 20; line++) logger.info("a line", { number: at * 20 + line, filler: "x".repeat(400) });
    longestMs = Math.max(longestMs, performance.now() - startMs);
    await new Promise(setImmediate);
  }
  process.stdin.once("data", (how) => {
    if (String(how) === "exit") process.exit(7);
    throw new Error("the last words");
  });
  process.stdout.write(JSON.stringify({ longestMs }) + "\\n");
`;

async function talk(): Promise<{ child: ChildProcess; longestMs: number }> {
  const child = spawn(process.execPath, ["--input-type=module", "-e", talker], { stdio: ["pipe", "pipe", "pipe"] });
  const [said] = (await once(child.stdout, "data")) as [Buffer];
  return { child, ...(JSON.parse(said.toString()) as { longestMs: number }) };
}

test("a process whose log nobody reads goes on, and ends when it ends", { timeout: 60_000 }, async () => {
  const { child, longestMs } = await talk();
  // Twenty lines; a turn that waits for its reader would never end, and the child would not have come this far.
  assert.ok(longestMs < 5000, `${longestMs} ms`);
  child.stdin!.write("exit");
  const [code] = (await once(child, "exit")) as [number];
  assert.equal(code, 7);
  child.stderr!.destroy();
});

test(
  "who begins to read late gets the newest lines, how many are missing, and what a crash said last",
  { timeout: 60_000 },
  async () => {
    const { child } = await talk();
    let text = "";
    child.stderr!.on("data", (chunk: Buffer) => (text += chunk.toString()));
    child.stdin!.write("crash");
    const [code] = (await once(child, "close")) as [number];
    assert.equal(code, 71);
    const lines = text.split("\n").filter((line) => line.startsWith("{"));
    const told = lines.map((line) => JSON.parse(line) as { number?: number; lines?: number });
    const numbers = told.flatMap(({ number }) => (number === undefined ? [] : [number]));
    const dropped = told.reduce((sum, line) => sum + (line.lines ?? 0), 0);
    assert.ok(dropped > 0);
    assert.equal(numbers.length + dropped, 6000);
    assert.equal(numbers.at(-1), 5999);
    assert.match(text.slice(text.lastIndexOf('"number":5999')), /Error: the last words/u);
  },
);
