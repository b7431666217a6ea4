/** kill -9 of the daemon at random instants: no container, log line or exit status is lost, and nothing is left over. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { openRecords } from "../../../worker/containers/records.ts";
import { anyRuntime, TestWorker } from "./host.ts";

const runtime = anyRuntime();
/** 200 on demand: KILLS=200. */
const kills = Number(process.env["KILLS"] ?? 6);
const seed = Number(process.env["SEED"] ?? Date.now() % 100_000);

/** A small generator, so that a failure can be tried again with its seed. */
function random(state: number): () => number {
  let x = state | 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

test(
  `kill -9 of the daemon at ${kills} random instants loses nothing and leaves nothing (SEED=${seed})`,
  { skip: runtime.skip, timeout: 120_000 + kills * 60_000 },
  async () => {
    const chance = random(seed);
    const worker = new TestWorker(runtime.path, { restartAtBoot: false });
    try {
      for (let round = 1; round <= kills; round++) {
        const arguments_ = [
          join(import.meta.dirname, "recovery-worker.ts"),
          worker.base,
          worker.settings.cgroupParent,
          runtime.path,
          String(round),
        ];
        const daemon = spawn(process.execPath, arguments_, { stdio: ["ignore", "pipe", "inherit"] });
        let text = "";
        const ready = new Promise<void>((resolve, reject) => {
          daemon.stdout.on("data", (chunk: Buffer) => {
            text += chunk.toString();
            if (text.includes("ready")) resolve();
          });
          daemon.on("exit", () => reject(new Error(`the daemon ended by itself: ${text}`)));
        });
        await ready;
        await delay(chance() * 1200);
        daemon.kill("SIGKILL");
        await new Promise((resolve) => daemon.once("close", resolve));
        await worker.open();
        const { containers } = worker;
        const told = text
          .split("\n")
          .filter((line) => line.endsWith("}"))
          .map((line) => JSON.parse(line) as Record<string, unknown>);
        const removed = new Set(told.map((line) => line["removed"]));
        assert.deepEqual(
          containers.list().filter(({ id }) => removed.has(id)),
          [],
          `round ${round}: removed ones came back`,
        );
        for (const line of told) {
          const id = (line["created"] ?? line["started"]) as string | undefined;
          if (id === undefined || removed.has(id)) continue;
          const container = containers.list().find((one) => one.id === id);
          // The last one may be in the middle of its removal, which recovery finishes.
          if (container === undefined) {
            assert.equal(
              id,
              [...told].reverse().find((other) => other["created"] !== undefined)?.["created"],
              `round ${round}: container ${id} is lost`,
            );
            continue;
          }
          if (line["started"] === undefined) continue;
          if (line["lasting"] === true && container.record.state.status !== "removing") {
            assert.ok(
              container.running || container.record.state.exit !== undefined,
              `round ${round}: ${container.record.state.status}`,
            );
            if (container.running) {
              const lines = container.logs({ stdout: true, stderr: true, follow: true }, AbortSignal.timeout(60_000));
              const first = await lines.next();
              await lines.return();
              assert.equal(first.done === true ? "" : first.value.text.toString(), "tick\n");
            }
          } else if (line["lasting"] === false) {
            const exit = await container.wait("not-running", AbortSignal.timeout(60_000));
            const number = Number(container.record.name.slice(2));
            assert.equal(exit.code, number % 100, `round ${round}: the exit status of ${container.record.name}`);
            let output = "";
            for await (const entry of container.logs(
              { stdout: true, stderr: true, follow: false },
              AbortSignal.timeout(60_000),
            ))
              output += entry.text.toString();
            assert.equal(output, `${number}\n`);
          }
        }
        // Every directory and every piece of state belongs to a record.
        const known = new Set(containers.list().map(({ id }) => id as string));
        assert.deepEqual(
          readdirSync(join(worker.settings.dataDirectory, "containers")).filter((id) => !known.has(id)),
          [],
        );
        for (const container of containers.list()) await container.remove({ force: true });
        await containers[Symbol.asyncDispose]();
        assert.deepEqual(worker.remains(), [], `round ${round}`);
      }
    } finally {
      await worker.open();
      await worker.close();
    }
  },
);

test(
  "a container that a daemon of before started can be entered, limited and joined after the upgrade",
  { skip: runtime.skip, timeout: 240_000 },
  async () => {
    const worker = new TestWorker(runtime.path);
    try {
      await worker.open();
      const { id } = await worker.create(["sleep", "600"], {}, { Env: ["MINE=yes"], Hostname: "old" });
      await worker.containers.get(id).start();
      await worker.containers[Symbol.asyncDispose]();
      // Those daemons kept what a life is told beside the container's own files.
      const state = join(worker.settings.runDirectory, "c", id);
      const own = join(worker.settings.dataDirectory, "containers", id);
      mkdirSync(join(own, "bundle"));
      renameSync(join(state, "config.json"), join(own, "bundle", "config.json"));
      for (const name of ["hostname", "hosts", "resolv.conf"]) renameSync(join(state, name), join(own, name));

      await worker.open();
      const container = worker.containers.get(id);
      assert.equal(container.running, true);
      const { code, output } = await worker.exec(container, ["sh", "-c", "echo $MINE; cat /etc/hostname"]);
      assert.deepEqual({ code, output }, { code: 0, output: "yes\nold\n" });
      assert.equal(container.networkFilesDirectory, own);
      await container.update({ PidsLimit: 50 });
      const beside = await worker.run(["cat", "/etc/hostname"], { NetworkMode: `container:${id}` });
      assert.equal(beside.stdout, "old\n", beside.stderr);

      // Its next life is of this daemon.
      await container.stop({ seconds: 0 });
      await container.start();
      assert.equal(readFileSync(join(state, "hostname"), "utf8"), "old\n");
      assert.equal((await worker.exec(container, ["true"])).code, 0);
    } finally {
      await worker.close();
    }
  },
);

test(
  "one that removes itself, whose record says that it runs before it did when the daemon died, is removed",
  { skip: runtime.skip, timeout: 240_000 },
  async () => {
    const worker = new TestWorker(runtime.path);
    try {
      await worker.open();
      const { id } = await worker.create(["true"], { AutoRemove: true });
      const kept = await worker.create(["true"], {});
      await worker.containers[Symbol.asyncDispose]();
      // The disk was faster than the monitor.
      const records = await openRecords(join(worker.settings.dataDirectory, "db"));
      const record = (await records.all()).find((one) => one.id === id);
      assert.ok(record !== undefined);
      await records.put({ ...record, state: { ...record.state, status: "running", pid: 1, startedAtMs: 1 } });
      await records[Symbol.asyncDispose]();

      await worker.open();
      assert.deepEqual(
        worker.containers.list().map((container) => container.id),
        [kept.id],
      );
      assert.deepEqual(readdirSync(join(worker.settings.dataDirectory, "containers")), [kept.id]);
    } finally {
      await worker.close();
    }
  },
);
