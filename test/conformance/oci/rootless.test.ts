/** The runtime as an ordinary user: a user namespace with himself as root, no cgroups, no helper programs. */
import assert from "node:assert/strict";
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { execute, type Json, Lab, ours, whyNot } from "./harness.ts";

const user = 12345;
const absent =
  whyNot() ??
  (readFileSync("/proc/sys/user/max_user_namespaces", "utf8").trim() === "0"
    ? "this host lets no user make a user namespace"
    : undefined);

interface Home {
  readonly call: (...args: string[]) => ReturnType<typeof execute>;
  readonly configure: (change: (config: Json) => void) => void;
  readonly state: string;
}

/** A folder of an ordinary user with a bundle as `spec --rootless` makes it. */
async function home(lab: Lab): Promise<Home> {
  const bundle = lab.container().bundle;
  const program = join(lab.folder, "isolate");
  const runtimeFolder = join(lab.folder, "xdg");
  copyFileSync(ours.path, program);
  chmodSync(lab.folder, 0o755);
  mkdirSync(runtimeFolder);
  writeFileSync(join(bundle, "config.json"), "");
  await execute("/bin/rm", [join(bundle, "config.json")]);
  const owned = await execute("/bin/chown", ["-R", `${user}:${user}`, bundle, runtimeFolder]);
  assert.equal(owned.code, 0, owned.stderr);
  const call = async (...args: string[]) =>
    await execute(program, args, { cwd: bundle, user, env: { XDG_RUNTIME_DIR: runtimeFolder, HOME: runtimeFolder } });
  const made = await call("spec", "--rootless");
  assert.equal(made.code, 0, made.stderr);
  return {
    call,
    state: join(runtimeFolder, "isolate"),
    configure: (change) => {
      const config = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8"));
      config.process.terminal = false;
      change(config);
      writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
    },
  };
}

function rootless(name: string, run: (home: Home) => Promise<void>): void {
  test(`rootless: ${name}`, { skip: absent ?? false, timeout: 240_000 }, async () => {
    const lab = new Lab(ours);
    try {
      await run(await home(lab));
    } finally {
      await lab[Symbol.asyncDispose]();
    }
  });
}

rootless("run gives a container of its own in which the user is root", async ({ call, configure }) => {
  configure((config) => (config.process.args = ["/bin/sh", "-c", "id -u; cat /proc/self/uid_map; hostname; ls /dev"]));
  const done = await call("run", "r1");
  assert.equal(done.code, 0, done.stderr);
  assert.match(done.stdout, /^0\n\s+0\s+12345\s+1\nisolate\n/);
  assert.match(done.stdout, /null/);
});

rootless("exec, list, kill and delete work, and nothing remains", async ({ call, configure, state }) => {
  configure((config) => (config.process.args = ["/bin/sleep", "100"]));
  const started = await call("run", "--detach", "r2");
  assert.equal(started.code, 0, started.stderr);
  const inside = await call("exec", "r2", "/bin/sh", "-c", "id -u; head -c 10 /proc/1/cmdline");
  assert.match(inside.stdout, /^0\n\/bin\/sleep$/, inside.stderr);
  assert.match((await call("list")).stdout, /r2\s+\d+\s+running/);
  assert.equal((await call("delete", "--force", "r2")).code, 0);
  assert.deepEqual(readdirSync(state), []);
});

rootless("limits that need a cgroup are refused rather than ignored", async ({ call, configure }) => {
  configure((config) => (config.linux.resources = { memory: { limit: 64 << 20 } }));
  const done = await call("run", "r3");
  assert.notEqual(done.code, 0);
  assert.match(done.stderr, /cgroup|limit/);
});

rootless("ids that the user may not map are refused", async ({ call, configure, state }) => {
  configure((config) => (config.linux.uidMappings = [{ containerID: 0, hostID: 0, size: 1 }]));
  assert.notEqual((await call("run", "r4")).code, 0);
  assert.deepEqual(existsSync(state) ? readdirSync(state) : [], []);
});
