/** The end of a container whose record the disk is slow to take, or does not take at all, and of one that removes itself. */
import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { Level } from "level";

import { silentLogger, type Logger } from "../../../lib/runtime/index.ts";
import type { Container } from "../../../worker/containers/index.ts";
import { openRecords } from "../../../worker/containers/records.ts";
import { isolate, TestWorker, whySkipped } from "./host.ts";

const soon = (): AbortSignal => AbortSignal.timeout(30_000);

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let waited = 0; waited < 30_000; waited += 25) {
    if (await holds()) return;
    await delay(25);
  }
  assert.fail(`never: ${what}`);
}

/** From now on each write of a database waits for `act`. */
function holdDisk(t: TestContext, act: () => Promise<void>): () => void {
  const { batch } = Level.prototype as unknown as { batch: (...args: unknown[]) => Promise<void> };
  const mocked = t.mock.method(
    Level.prototype as unknown as { batch: typeof batch },
    "batch",
    async function (this: unknown, ...args: unknown[]): Promise<void> {
      await act();
      return batch.apply(this, args);
    },
  );
  return () => mocked.mock.restore();
}

const fullDisk = (t: TestContext): (() => void) =>
  holdDisk(t, () => Promise.reject(new Error("IO error: No space left on device")));

async function outputOf(container: Container): Promise<string> {
  const attachment = await container.attach({ stdin: false, stdout: true, stderr: true });
  let text = "";
  for await (const { bytes } of attachment.output()) text += bytes.toString("utf8");
  attachment[Symbol.dispose]();
  return text;
}

describe("the end of a container", { skip: whySkipped(), timeout: 240_000 }, () => {
  test("a client that comes between its end and the record of it is told that it has ended", async (t) => {
    const worker = await new TestWorker("builtin").open();
    try {
      const container = await worker.create(["sleep", "1000"]);
      await container.start();
      const written = Promise.withResolvers<void>();
      holdDisk(t, () => written.promise);
      const killed = container.kill();
      await until("it has ended", () => !container.running);
      assert.equal(container.record.state.status, "running");
      assert.equal(await outputOf(container), "");
      written.resolve();
      await killed;
      assert.equal((await container.wait("not-running", soon())).code, 137);
      // One that comes after the record waits for the next life, and sees all of it.
      const attachment = container.attach({ stdin: false, stdout: true, stderr: true });
      await container.start();
      await container.kill();
      for await (const chunk of (await attachment).output()) assert.fail(chunk.bytes.toString());
    } finally {
      await worker.close();
    }
  });

  test("an end that the disk does not take is told, and written when it does", async (t) => {
    const told: string[] = [];
    const logger: Logger = {
      ...silentLogger,
      error: (text) => void told.push(text),
      info: (text) => void told.push(text),
    };
    const worker = await new TestWorker("builtin", { logger }).open();
    try {
      const container = await worker.create(["sleep", "1000"]);
      await container.start();
      const waiting = container.wait("not-running", soon());
      const makeRoom = fullDisk(t);
      await container.kill();
      assert.equal((await waiting).code, 137);
      assert.equal(container.record.state.status, "exited");
      assert.ok(told.includes("a container's state could not be recorded; it will be"));
      // Until it is written a daemon that comes anew reads it there.
      assert.ok(existsSync(join(container.stateDirectory, "exit.json")));
      await assert.rejects(container.start());
      assert.ok(existsSync(join(container.stateDirectory, "exit.json")));
      makeRoom();
      await until("it is recorded", () => told.includes("a container's state is recorded"));
      await until("its state is cleared away", () => !existsSync(container.stateDirectory));
      await worker.reopen();
      const again = worker.containers.get(container.id).record.state;
      assert.deepEqual([again.status, again.exit?.code], ["exited", 137]);
    } finally {
      await worker.close();
    }
  });

  test("a daemon that ends before the disk took the end of a container finds it when it comes anew", async (t) => {
    const worker = await new TestWorker("builtin").open();
    try {
      const container = await worker.create(["sh", "-c", "exit 9"]);
      const waiting = container.wait("next-exit", soon());
      await container.start();
      assert.equal((await waiting).code, 9);
      const other = await worker.create(["sh", "-c", "read line; exit 7"], {}, { OpenStdin: true, StdinOnce: true });
      const attachment = await other.attach({ stdin: true, stdout: true, stderr: true });
      await other.start();
      const ended = other.wait("not-running", soon());
      const makeRoom = fullDisk(t);
      await attachment.closeStdin();
      assert.equal((await ended).code, 7);
      attachment[Symbol.dispose]();
      await worker.containers[Symbol.asyncDispose]();
      makeRoom();
      await worker.open();
      const { status, exit } = worker.containers.get(other.id).record.state;
      assert.deepEqual([status, exit?.code], ["exited", 7]);
      assert.deepEqual(worker.containers.recovery.ended, [other.id]);
    } finally {
      await worker.close();
    }
  });

  test("one that is to be started again is, when the disk takes that", async (t) => {
    const worker = await new TestWorker("builtin").open();
    try {
      const container = await worker.create(["sleep", "1000"], { RestartPolicy: { Name: "unless-stopped" } });
      await container.start();
      const { pid } = container.record.state;
      const makeRoom = fullDisk(t);
      process.kill(pid, "SIGKILL");
      await until("it has ended", () => !container.running);
      await until("it waits for its restart", () => container.record.state.restarting);
      makeRoom();
      await until("it runs again", () => container.record.state.status === "running");
      assert.notEqual(container.record.state.pid, pid);
    } finally {
      await worker.close();
    }
  });

  test("one whose health the disk does not take is examined as before", async (t) => {
    const worker = await new TestWorker("builtin").open();
    try {
      const Healthcheck = { Test: ["CMD", "false"], Interval: 100_000_000, Timeout: 60_000_000_000, Retries: 2 };
      const container = await worker.create(["sleep", "1000"], {}, { Healthcheck });
      await container.start();
      const makeRoom = fullDisk(t);
      await until("it is unhealthy", () => container.record.state.health.status === "unhealthy");
      makeRoom();
      await container.kill();
    } finally {
      await worker.close();
    }
  });

  test("one that removes itself is removed for everybody also when the disk does not take it", async (t) => {
    const worker = await new TestWorker("builtin").open();
    try {
      const container = await worker.create(["sleep", "1000"], { AutoRemove: true });
      await container.start();
      const removed = container.wait("removed", soon());
      const makeRoom = fullDisk(t);
      await container.kill();
      assert.equal((await removed).code, 137);
      assert.throws(() => worker.containers.get(container.id), { code: "CONTAINER_NOT_FOUND" });
      await worker.containers[Symbol.asyncDispose]();
      // Its record is still there, and goes when the worker starts.
      makeRoom();
      await worker.open();
      assert.throws(() => worker.containers.get(container.id), { code: "CONTAINER_NOT_FOUND" });
      await worker.reopen();
      assert.deepEqual(worker.containers.recovery.removed, []);
      assert.deepEqual(readdirSync(join(worker.settings.dataDirectory, "containers")), []);
      await worker.close();
      assert.deepEqual(worker.remains(), []);
    } finally {
      await worker.close();
    }
  });

  test("one is removed also when the disk is full, and its own files make room for that", async (t) => {
    const worker = await new TestWorker("builtin").open();
    const trash = join(worker.settings.dataDirectory, "trash");
    const inTrash = (): string[] => readdirSync(trash).flatMap((name) => readdirSync(join(trash, name)));
    try {
      const { container } = await worker.run(["sh", "-c", "echo much > /file"]);
      const { container: other } = await worker.run(["true"]);
      const { container: third } = await worker.run(["true"]);
      // What fills the disk is the container's own.
      const isFull = (): boolean => existsSync(container.directory) || inTrash().length > 0;
      const makeRoom = holdDisk(t, async () => {
        if (isFull()) throw new Error("IO error: No space left on device");
      });
      await container.remove();
      assert.throws(() => worker.containers.get(container.id), { code: "CONTAINER_NOT_FOUND" });
      makeRoom();
      await worker.reopen();
      assert.deepEqual(worker.containers.recovery.removed, [], "its record was deleted");

      const makeRoomLater = fullDisk(t);
      await worker.containers.get(third.id).remove();
      assert.notDeepEqual(readdirSync(trash), [], "what would say so to who starts anew");
      makeRoomLater();
      await until("nothing is left of it once the record is gone", () => readdirSync(trash).length === 0);

      const makeRoomAgain = fullDisk(t);
      await worker.containers.get(other.id).remove();
      assert.throws(() => worker.containers.get(other.id), { code: "CONTAINER_NOT_FOUND" });
      await worker.containers[Symbol.asyncDispose]();
      makeRoomAgain();
      await worker.open();
      assert.deepEqual(worker.containers.recovery.removed, [other.id], "what is in the trash says so");
      assert.deepEqual(worker.containers.list(), []);
      assert.deepEqual(readdirSync(trash), []);
    } finally {
      await worker.close();
    }
    assert.deepEqual(worker.remains(), []);
  });

  test("nobody waits for what a container that removed itself leaves to clear up, but who sees its mounts", async () => {
    const worker = new TestWorker("builtin");
    const runtime = join(worker.base, "runtime");
    const mayDelete = join(worker.base, "may-delete");
    const shared = join(worker.base, "shared");
    mkdirSync(shared);
    const wait = `for word; do if [ "$word" = delete ]; then while [ ! -e ${mayDelete} ]; do sleep 0.05; done; fi; done`;
    writeFileSync(runtime, `#!/bin/sh\n${wait}\nexec ${isolate} "$@"\n`);
    chmodSync(runtime, 0o755);
    const slow = new TestWorker(runtime);
    try {
      await slow.open();
      const { container, code, stdout } = await slow.run(["sh", "-c", "echo hi; exit 3"], { AutoRemove: true });
      assert.deepEqual([code, stdout], [3, "hi\n"]);
      assert.equal((await container.wait("removed", soon())).code, 3);
      assert.ok(existsSync(container.stateDirectory));
      assert.ok(!existsSync(container.directory));

      const bound = await slow.create(["true"], { AutoRemove: true, Binds: [`${shared}:/shared`] });
      const removed = bound.wait("removed", soon()).then(() => existsSync(mayDelete));
      await bound.start();
      await until("it has ended", () => !bound.running);
      writeFileSync(mayDelete, "");
      assert.ok(await removed);
    } finally {
      writeFileSync(mayDelete, "");
      await slow.close();
      await worker.open();
      await worker.close();
    }
    assert.deepEqual(slow.remains(), []);
  });

  test("a name that was given again before the record of its first owner was deleted belongs to the second one", async () => {
    const worker = await new TestWorker("builtin").open();
    try {
      const first = await worker.containers.create({
        name: "bee",
        config: { Image: "busybox", Cmd: ["true"] },
        hostConfig: { AutoRemove: true },
      });
      const kept = first.record;
      await first.remove();
      const second = await worker.containers.create({ name: "bee", config: { Image: "busybox", Cmd: ["true"] } });
      await worker.containers[Symbol.asyncDispose]();
      const records = await openRecords(join(worker.settings.dataDirectory, "db"));
      // Read after the second one's, and before.
      for (const id of ["f".repeat(64), "0".repeat(64)] as (typeof kept.id)[])
        await records.put({ ...kept, id, state: { ...kept.state, status: "running", pid: 1, startedAtMs: 1 } });
      await records[Symbol.asyncDispose]();
      await worker.open();
      assert.equal(worker.containers.get("bee").id, second.id);
      assert.deepEqual(
        worker.containers.list().map(({ id }) => id),
        [second.id],
      );
    } finally {
      await worker.close();
    }
  });
});
