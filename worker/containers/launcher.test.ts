import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { Launcher, MonitorSilent } from "./launcher.ts";

const program = join(import.meta.dirname, "../../native/build/isolate");
const skip = existsSync(program) ? false : "needs native/build: run `make -C native`";
const nothing = { directories: [], files: [], args: [] };

test(
  "the held image is the program, in a memory file that nobody can write, and goes when it is let go",
  { skip },
  async () => {
    const launcher = await Launcher.open(program, {});
    const held = launcher.path;
    assert.match(readlinkSync(held), /^\/memfd:isolate/);
    assert.ok(readFileSync(held).equals(readFileSync(program)));
    assert.equal(spawnSync("/bin/sh", ["-c", `echo x >> ${held}`], { stdio: "ignore" }).status === 0, false);
    assert.match(spawnSync(held, ["--version"], { encoding: "utf8" }).stdout, /^isolate version/);
    await launcher[Symbol.asyncDispose]();
    assert.equal(existsSync(held), false);
    assert.equal(launcher.path, program);
    await launcher[Symbol.asyncDispose]();
  },
);

test("a program that launches nothing, or is not there, is executed from its own path, and says so when asked", async () => {
  for (const path of ["/bin/true", "/nowhere/at-all"]) {
    const launcher = await Launcher.open(path, {});
    assert.equal(launcher.path, path);
    await assert.rejects(launcher.launch(nothing), /the launcher of monitors has ended/);
    await launcher[Symbol.asyncDispose]();
  }
});

test("files are made before the monitor, and what it refuses comes back as its reason", { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "launcher-"));
  const launcher = await Launcher.open(program, {});
  try {
    const text = `${"ä".repeat(100_000)}\n`;
    const request = {
      directories: [join(folder, "a"), join(folder, "a/b")],
      files: [{ path: join(folder, "a/b/c"), mode: 0o640, text }],
      args: ["--id", "x"],
    };
    await assert.rejects(launcher.launch(request), /do without --id, --bundle/);
    assert.equal(readFileSync(join(folder, "a/b/c"), "utf8"), text);
    assert.equal(statSync(join(folder, "a/b/c")).mode & 0o777, 0o640);
    const wrong = { ...nothing, directories: [join(folder, "no/such")] };
    await assert.rejects(launcher.launch(wrong), /no\/such: No such file or directory/);
    await assert.rejects(launcher.launch({ ...nothing, args: ["--id", "a\0b"] }), /holds a NUL/);
    await assert.rejects(launcher.launch({ ...nothing, directories: ["relative"] }), /not absolute/);
    // Of those that are asked for together it costs nobody else anything.
    const large = { ...nothing, files: [{ path: join(folder, "large"), mode: 0o600, text: "x".repeat(8 << 20) }] };
    await Promise.all([
      assert.rejects(launcher.launch(large), /at most 8388608 are accepted/),
      assert.rejects(launcher.launch(request), /do without --id, --bundle/),
    ]);
  } finally {
    await launcher[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  }
});

test(
  "each of many requests gets its own answer, and one that kills the launcher costs only itself",
  { skip },
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "launcher-"));
    const launcher = await Launcher.open(program, {});
    try {
      const ask = async (at: number): Promise<void> => {
        const request = { ...nothing, directories: [join(folder, `${at}`)], args: ["--log-max-size", `-${at}`] };
        await assert.rejects(launcher.launch(request), new RegExp(`understand number "-${at}"`));
        assert.ok(existsSync(join(folder, `${at}`)));
      };
      await Promise.all(Array.from({ length: 400 }, (_, at) => ask(at)));
      const pid = Number(/^\/proc\/([0-9]+)\//.exec(launcher.path)?.[1]);
      process.kill(pid, "SIGSTOP");
      const lost = launcher.launch(nothing);
      process.kill(pid, "SIGKILL");
      await assert.rejects(lost, /the launcher of monitors has ended/);
      await ask(1000);
      assert.notEqual(Number(/^\/proc\/([0-9]+)\//.exec(launcher.path)?.[1]), pid);
    } finally {
      await launcher[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
    }
  },
);

/** Of the build with points at which a monitor can be stopped. */
const faulty = join(import.meta.dirname, "../../native/build/faults/isolate");
const noFaults = existsSync(faulty) ? false : "needs native/build/faults: run `make -C native faults`";

test(
  "a monitor that hangs before it has answered is ended, and its place is another's",
  { skip: noFaults },
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "launcher-"));
    const launcher = await Launcher.open(faulty, { MONITOR_FAULT: "before-create:stop", LAUNCHER_PATIENCE_MS: "3000" });
    const monitors = (): string[] =>
      readdirSync("/proc").filter((pid) => {
        try {
          return /^[0-9]+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(folder);
        } catch {
          return false; // it ended while we looked
        }
      });
    try {
      const hang = (at: number): Promise<void> => {
        const [state, bundle] = [join(folder, `${at}`), join(folder, "bundle")];
        const args = ["--id", `h${at}`, "--bundle", bundle, "--state-dir", state, "--runtime-root", join(folder, "r")];
        return assert.rejects(launcher.launch({ ...nothing, directories: [bundle, state], args }), MonitorSilent);
      };
      const hanging = Promise.all(Array.from({ length: 8 }, (_, at) => hang(at)));
      await assert.rejects(launcher.launch({ ...nothing, args: ["--id", "x"] }), /do without --id, --bundle/);
      await hanging;
      const endMs = performance.now() + 60_000;
      while (monitors().length > 0 && performance.now() < endMs) await new Promise((next) => setImmediate(next));
      assert.deepEqual(monitors(), []);
    } finally {
      await launcher[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
    }
  },
);
