/**
 * Create fails, or is killed, at each of its steps: nothing remains, or what remains goes with `delete --force`. Needs the
 * test build with fault points (make -C native faults); the shipped program has none.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { type Container, groupDirectories, groupParent, Lab, whyNot } from "./harness.ts";

const faulty = { name: "isolate", path: join(import.meta.dirname, "../../../native/build/faults/isolate") };
const absent =
  whyNot() ?? (existsSync(faulty.path) ? undefined : "needs native/build/faults/isolate (make -C native faults)");

/** In the order of the code; "child" to "drop" are in the first process. */
const inRuntime = ["prepared", "cgroup", "limits", "maps", "ready", "saved"];
const inChild = ["child", "join", "namespaces", "root", "mounts", "devices", "masks", "pivot", "drop"];

/** What of a container is left on the host. */
function traces(lab: Lab, container: Container): string[] {
  const found = groupDirectories(`${groupParent}/${container.id}`).filter(existsSync);
  if (existsSync(join(lab.root, container.id))) found.push(`state of ${container.id}`);
  if (readFileSync("/proc/self/mounts", "utf8").includes(container.bundle)) found.push("a mount");
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    let environment = "";
    try {
      environment = readFileSync(`/proc/${pid}/environ`, "utf8");
    } catch {
      continue; // ended since the listing
    }
    if (environment.includes(`ISOLATE_TEST_ID=${container.id}\0`)) found.push(`process ${pid}`);
  }
  return found;
}

async function withFault(
  fault: string,
  check: (lab: Lab, container: Container, code: number) => Promise<void>,
): Promise<void> {
  const lab = new Lab(faulty);
  try {
    const container = lab.container();
    container.touched = true;
    const done = await lab.call(["create", "--bundle", container.bundle, container.id], {
      env: { ISOLATE_FAULT: fault, ISOLATE_TEST_ID: container.id },
    });
    await check(lab, container, done.code);
  } finally {
    await lab[Symbol.asyncDispose]();
  }
}

for (const point of [...inRuntime, ...inChild])
  test(`create that fails at "${point}" leaves no trace`, { skip: absent ?? false, timeout: 240_000 }, async () => {
    await withFault(point, async (lab, container, code) => {
      assert.notEqual(code, 0, "the fault was not hit");
      assert.deepEqual(traces(lab, container), []);
    });
  });

for (const point of inChild)
  test(
    `a first process that is killed at "${point}" leaves no trace`,
    { skip: absent ?? false, timeout: 240_000 },
    async () => {
      await withFault(`${point}:kill`, async (lab, container, code) => {
        assert.notEqual(code, 0, "the fault was not hit");
        assert.deepEqual(traces(lab, container), []);
      });
    },
  );

for (const point of inRuntime)
  test(
    `what a runtime leaves that is killed at "${point}" goes with delete --force`,
    { skip: absent ?? false, timeout: 240_000 },
    async () => {
      await withFault(`${point}:kill`, async (lab, container, code) => {
        assert.notEqual(code, 0, "the fault was not hit");
        const deleted = await lab.call(["delete", "--force", container.id]);
        assert.equal(deleted.code, 0, deleted.stderr);
        assert.deepEqual(traces(lab, container), []);
      });
    },
  );

test(
  "what has only execve before it is running, for whoever asks",
  { skip: absent ?? false, timeout: 240_000 },
  async () => {
    const lab = new Lab(faulty);
    try {
      const container = lab.container();
      container.touched = true;
      const done = await lab.call(["create", "--bundle", container.bundle, container.id], {
        env: { ISOLATE_FAULT: "execve:hang" },
      });
      assert.equal(done.code, 0, done.stderr);
      assert.equal((await container.state()).status, "created");
      const started = container.verb("start");
      await container.becomes("running");
      assert.equal((await lab.call(["delete", "--force", container.id])).code, 0);
      await started;
    } finally {
      await lab[Symbol.asyncDispose]();
    }
  },
);

test(
  "a parent that goes while a container is made below it is made again",
  { skip: absent ?? false, timeout: 240_000 },
  async () => {
    const lab = new Lab(faulty);
    try {
      const container = lab.container();
      container.config.linux.cgroupsPath = `/${groupParent}/shared/${container.id}`;
      writeFileSync(join(container.bundle, "config.json"), JSON.stringify(container.config));
      container.touched = true;
      // As the end of another one does it in the worst moment.
      const done = await lab.call(["create", "--bundle", container.bundle, container.id], {
        env: { ISOLATE_FAULT: "parent" },
      });
      assert.equal(done.code, 0, done.stderr);
      assert.ok(groupDirectories(container.config.linux.cgroupsPath).some(existsSync));
      assert.equal((await lab.call(["delete", "--force", container.id])).code, 0);
      assert.deepEqual(groupDirectories(`${groupParent}/shared`).filter(existsSync), []);
    } finally {
      await lab[Symbol.asyncDispose]();
    }
  },
);

test("200 containers come and go without a trace", { skip: absent ?? false, timeout: 600_000 }, async () => {
  const lab = new Lab(faulty);
  try {
    const descriptors = readdirSync("/proc/self/fd").length;
    for (let i = 0; i < 200; i++) {
      const container = lab.container();
      const done = await container.run();
      assert.equal(done.code, 0, done.stderr);
      assert.deepEqual(traces(lab, container), []);
    }
    assert.ok(readdirSync("/proc/self/fd").length <= descriptors + 2);
    assert.deepEqual(readdirSync(lab.root), []);
  } finally {
    await lab[Symbol.asyncDispose]();
  }
});
