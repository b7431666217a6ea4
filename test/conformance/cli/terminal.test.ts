/** Commands that need a terminal, run below `script`, which gives them one of 30 rows and 100 columns. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { readRecording, RecordedServer } from "../../support/recorded-server.ts";

const folder = join(import.meta.dirname, "../api/recorded");
const program = join(import.meta.dirname, "../../../cli/main.ts");

async function onTerminal(
  name: string,
  words: string,
): Promise<{ output: string; code: number; server: RecordedServer }> {
  const server = await RecordedServer.start(readRecording(folder, name).requests);
  const line = `stty rows 30 cols 100; exec ${process.execPath} ${program} ${words}`;
  const child = spawn("script", ["-qec", line, "/dev/null"], {
    env: { PATH: process.env["PATH"], HOME: "/nonexistent", SKEP_HOST: server.host, SHELL: "/bin/sh" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const output: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
  const [code] = (await once(child, "close")) as [number];
  await server.close();
  return { output: Buffer.concat(output).toString("utf8"), code, server };
}

test("run -it tells the container its terminal's size and prints its bytes as they come", async () => {
  const { output, code, server } = await onTerminal(
    "container-run-it",
    `run --rm -it busybox sh -c "stty size; sleep 1"`,
  );
  assert.equal(code, 0, output);
  // Node leaves the translation of line ends on in its raw mode; a second return does no harm.
  assert.match(output, /30 100\r+\n/);
  const [create] = server.seen;
  const body = create?.body as { Tty: boolean; OpenStdin: boolean; HostConfig: { ConsoleSize: number[] } };
  assert.deepEqual([body.Tty, body.OpenStdin, body.HostConfig.ConsoleSize], [true, true, [30, 100]]);
  const resize = server.seen.find(({ path }) => path.endsWith("/resize"));
  assert.deepEqual(resize?.query, { h: "30", w: "100" });
});

test("exec -it sends the recorded requests", async () => {
  const { output, code, server } = await onTerminal("container-exec-it", `exec -it c1 sh -c "stty size; sleep 1"`);
  assert.equal(code, 0, output);
  const exec = server.seen.find(({ path }) => path.endsWith("/containers/c1/exec"));
  assert.deepEqual((exec?.body as { ConsoleSize: number[] } | undefined)?.ConsoleSize, [30, 100]);
  assert.ok(server.seen.some(({ path, query }) => path.endsWith("/resize") && query["h"] === "30"));
});

test("input and output that are no terminal refuse -it before anything is asked", async () => {
  const server = await RecordedServer.start([]);
  try {
    const { runSkep } = await import("../../support/run-cli.ts");
    const outcome = await runSkep(["run", "-it", "busybox"], { host: server.host, stdin: "" });
    assert.deepEqual([outcome.exit, outcome.stderr], [1, "the input device is not a TTY\n"]);
    assert.deepEqual(server.seen, []);
  } finally {
    await server.close();
  }
});
