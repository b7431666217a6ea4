import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";

import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { SecretFiles } from "./secret-files.ts";

const skip = process.getuid?.() === 0 ? false : "a tmpfs is mounted by root";
const tmpfsMagic = 0x01021994;
// On a disk, so that what is not on the tmpfs can be found there.
const base = mkdtempSync("/var/tmp/sk-secrets-");
const [one, two] = ["a", "b"].map((letter) => letter.repeat(25)) as [string, string];
const secret = { bytes: Buffer.from("hunter2"), uid: 0, gid: 0, mode: 0o400 };
let made = 0;

after(() => {
  for (const name of readdirSync(base)) {
    const directory = join(base, name, "secrets");
    while (mountsAt(directory) > 0) execFileSync("umount", ["--lazy", directory]);
  }
  rmSync(base, { recursive: true, force: true });
});

function mountsAt(directory: string): number {
  const lines = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  return lines.filter((line) => line.split(" ")[4] === directory).length;
}

async function openAt(
  directory: string,
  running: readonly string[] = [],
): Promise<{ files: SecretFiles; clock: VirtualClock }> {
  const clock = new VirtualClock();
  const isNeeded = (taskId: string): boolean => running.includes(taskId);
  return { files: await SecretFiles.open(directory, { isNeeded, clock, logger: silentLogger }), clock };
}

test("a tmpfs is there while a task has files, and not before the first or long after the last", { skip }, async () => {
  const directory = join(base, String(made++), "secrets");
  const { files, clock } = await openAt(directory);
  assert.equal(mountsAt(directory), 0);
  assert.deepEqual(await files.write(one, []), []);
  assert.equal(mountsAt(directory), 0, "a task without secrets needs none");
  const [path] = await files.write(one, [secret]);
  assert.equal(statfsSync(path!).type, tmpfsMagic);
  assert.equal(readFileSync(path!, "utf8"), "hunter2");
  await files.write(two, [secret, secret]);
  await files.remove(one);
  clock.advance(60_000);
  await files.write(two, [secret, secret]);
  assert.equal(mountsAt(directory), 1, "another task has some");
  await files.remove(two);
  await files.remove(two);
  // The next task of an update comes a moment later.
  await files.write(one, [secret]);
  clock.advance(60_000);
  await files.remove(one);
  assert.equal(mountsAt(directory), 1);
  clock.advance(60_000);
  await files[Symbol.asyncDispose]();
  assert.equal(mountsAt(directory), 0);
  assert.deepEqual(readdirSync(directory), [], "nothing lies on the disk below");
});

test("who stops without secrets leaves nothing mounted; files of tasks that run stay", { skip }, async () => {
  const directory = join(base, String(made++), "secrets");
  const first = await openAt(directory);
  await first.files.write(one, [secret]);
  await first.files.write(two, [secret]);
  await first.files[Symbol.asyncDispose]();
  assert.equal(mountsAt(directory), 1);
  const next = await openAt(directory, [two]);
  assert.deepEqual(await next.files.tasks(), [two], "the other one ended meanwhile");
  await next.files.remove(two);
  await next.files[Symbol.asyncDispose]();
  assert.equal(mountsAt(directory), 0);
});

test("a tmpfs that somebody unmounted is mounted again before a secret is written", { skip }, async () => {
  const directory = join(base, String(made++), "secrets");
  const { files } = await openAt(directory);
  await files.write(one, [secret]);
  execFileSync("umount", ["--lazy", directory]);
  const [path] = await files.write(one, [secret]);
  assert.equal(statfsSync(path!).type, tmpfsMagic);
  await files.remove(one);
  await files[Symbol.asyncDispose]();
  assert.deepEqual(readdirSync(directory), []);
});

test("killed at any moment, the next start leaves no secret, no mount and nothing on disk", { skip }, async () => {
  const program = `
    import { SecretFiles } from ${JSON.stringify(join(import.meta.dirname, "secret-files.ts"))};
    import { realClock, silentLogger } from ${JSON.stringify(join(import.meta.dirname, "../../lib/runtime/index.ts"))};
    const files = await SecretFiles.open(process.argv[1], { isNeeded: () => false, clock: realClock, logger: silentLogger });
    const secret = { bytes: Buffer.from("hunter2"), uid: 0, gid: 0, mode: 0o400 };
    console.log("open");
    for (;;) for (const letter of ["a", "b"]) {
      await files.write(letter.repeat(25), [secret, secret, secret]);
      await files.remove(letter.repeat(25));
      await files[Symbol.asyncDispose]();
    }`;
  const directory = join(base, String(made++), "secrets");
  for (const afterMs of [0, 2, 5, 9, 14, 20, 33]) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", program, directory], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await new Promise((resolve) => child.stdout.once("data", resolve));
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
    // A mount program that it started may still be at work, or be about to become one: then it is called as its parent was.
    const busy = (): boolean => spawnSync("pgrep", ["-f", directory]).status === 0;
    while (busy()) await new Promise((resolve) => setTimeout(resolve, 5));
    const { files } = await openAt(directory);
    assert.deepEqual(await files.tasks(), []);
    await files[Symbol.asyncDispose]();
    assert.equal(mountsAt(directory), 0, `killed after ${afterMs} ms`);
    assert.ok(existsSync(directory));
    assert.deepEqual(readdirSync(directory), [], "nothing is on the disk below");
  }
});

test("an empty tmpfs that somebody stands in keeps no daemon from starting or ending", { skip }, async () => {
  const directory = join(base, String(made++), "secrets");
  const { files } = await openAt(directory);
  await files.write(one, [secret]);
  const somebody = spawn("cat", { cwd: directory, stdio: ["pipe", "ignore", "ignore"] });
  try {
    await once(somebody, "spawn");
    await files.remove(one);
    await files[Symbol.asyncDispose]();
    assert.equal(mountsAt(directory), 1);
    const { files: later } = await openAt(directory);
    const [path] = await later.write(two, [secret]);
    assert.equal(readFileSync(path!, "utf8"), "hunter2");
    await later.remove(two);
    const ended = once(somebody, "exit");
    somebody.stdin.end();
    await ended;
    await later[Symbol.asyncDispose]();
    assert.equal(mountsAt(directory), 0);
  } finally {
    somebody.stdin.end();
  }
});
