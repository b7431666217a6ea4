/**
 * The monitor under valgrind, through all it does in a life: output with rotation, a slow client, a terminal, sessions of
 * exec, garbage on its socket, ends of all kinds. Valgrind 3.19 knows too few system calls to run our runtime, so runc is
 * below; what the runtime does in the monitor's forks is watched by the sanitizers (ISOLATE=native/build/asan/isolate).
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { isolate, native, runtimes, TestWorker } from "./host.ts";

const runc = runtimes().find(({ name }) => name === "runc");
const skip = (runc?.skip ?? "needs runc") || (existsSync("/usr/bin/valgrind") ? false : "needs valgrind");
const soon = (): AbortSignal => AbortSignal.timeout(240_000);

test("valgrind finds no error and no leak in a monitor", { skip, timeout: 900_000 }, async () => {
  execFileSync("/usr/bin/make", ["-s", "-j2", "-C", resolve(native, ".."), "valgrind"], { stdio: "inherit" });
  const folder = mkdtempSync("/var/tmp/sk-memcheck-");
  const program = join(folder, "isolate");
  const options = `--leak-check=full --errors-for-leak-kinds=definite,indirect --log-file=${folder}/%p.log`;
  writeFileSync(
    program,
    `#!/bin/sh
case "$1 $2" in
"launcher "*) exec ${isolate} launcher "$0" ;;
"monitor mounted") exec ${isolate} "$@" ;;
monitor*) exec /usr/bin/valgrind ${options} ${native}/valgrind/isolate "$@" ;;
*) exec ${isolate} "$@" ;;
esac
`,
    { mode: 0o755 },
  );
  const worker = new TestWorker(runc?.path ?? "", {
    programs: { isolate: program, archive: join(native, "archive"), runtime: runc?.path ?? "" },
  });
  try {
    await worker.open();
    // It rotates, and keeps all of its 1.3 MB: under valgrind the log could else be rotated past the reader.
    const { container: talker, stdout } = await worker.run(["sh", "-c", "seq 1 60000; echo err >&2; exit 3"], {
      LogConfig: { Type: "json-file", Config: { "max-size": "500k", "max-file": "5" } },
    });
    assert.ok(stdout.endsWith("60000\n"));
    assert.equal(talker.record.state.exit?.code, 3);

    const terminal = await worker.create(["sh"], {}, { Tty: true, OpenStdin: true });
    const attachment = await terminal.attach({ stdin: true, stdout: true, stderr: true });
    const ended = terminal.wait("next-exit", soon());
    await terminal.start();
    await terminal.resize(30, 90);
    await attachment.write(Buffer.from("stty size; exit 4\n"));
    let text = "";
    for await (const { bytes } of attachment.output()) text += bytes.toString();
    attachment[Symbol.dispose]();
    assert.match(text, /30 90/);
    assert.equal((await ended).code, 4);

    const sleeper = await worker.create(["sleep", "1000"]);
    await sleeper.start();
    assert.equal((await worker.exec(sleeper, ["sh", "-c", "seq 1 20000 | tail -1; exit 5"])).output, "20000\n");
    assert.match((await worker.exec(sleeper, ["sh", "-c", "test -t 0 && echo tty"], { Tty: true })).output, /tty/);
    await assert.rejects(worker.exec(sleeper, ["/no/such/program"]));
    const session = worker.containers.createExec(sleeper.id, { Cmd: ["cat"], AttachStdin: true, AttachStdout: true });
    const cat = await sleeper.startExec(session, { detach: false });
    await cat.write(Buffer.alloc(200_000, "x"));
    await cat.closeStdin();
    assert.equal((await cat.drain(1 << 20)).length, 200_000);
    for (const bytes of [
      [0xff, 0xff, 0xff, 0x7f],
      [8, 0, 0, 0, 6, 0, 1, 0, 0xff, 0xff, 0, 0],
    ]) {
      const socket = connect(join(sleeper.stateDirectory, "stream"));
      socket.on("error", () => undefined);
      socket.write(Buffer.from(bytes));
      await new Promise((done) => socket.once("close", done));
    }
    await worker.reopen();
    const adopted = worker.containers.get(sleeper.id);
    await adopted.stop({ seconds: 0 });
    assert.equal(adopted.record.state.exit?.code, 137);

    const broken = await worker.create(["/no/such/program"]);
    await assert.rejects(broken.start());
    for (const container of worker.containers.list()) await container.remove({ force: true });
    // Its last act in our protocol is not valgrind's: that looks for leaks first.
    for (let i = 0; i < 4800 && worker.monitors().length > 0; i++) await delay(25);
    assert.deepEqual(worker.remains(), []);

    const logs = readdirSync(folder).filter((name) => name.endsWith(".log"));
    // One for each monitor, and one for the parent that forked it and ended.
    assert.ok(logs.length >= 4, `${logs.length} monitors were watched`);
    for (const name of logs) {
      const log = readFileSync(join(folder, name), "utf8");
      if (log.includes("ERROR SUMMARY:")) assert.match(log, /ERROR SUMMARY: 0 errors/, log);
    }
    assert.ok(logs.some((name) => readFileSync(join(folder, name), "utf8").includes("ERROR SUMMARY: 0 errors")));
  } finally {
    await worker.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
