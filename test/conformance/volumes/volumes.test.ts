/** Volumes with real containers and real mounts. */
import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";

import { Level } from "level";

import { realClock, silentLogger } from "../../../lib/runtime/index.ts";
import {
  VolumeDriverUnknown,
  VolumeInUse,
  VolumeInvalid,
  VolumeMountFailed,
  VolumeNotFound,
  Volumes,
  anonymousLabel,
  type VolumeEvent,
} from "../../../worker/volumes/index.ts";
import { TestWorker, whySkipped } from "../containers/host.ts";

const mounts = (path: string): number =>
  readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.split(" ")[4]?.startsWith(path)).length;

describe("volumes", { skip: whySkipped(), timeout: 600_000 }, () => {
  const events: VolumeEvent[] = [];
  let folder: string;
  let volumes: Volumes;
  let worker: TestWorker;
  const options = () => ({
    folder,
    clock: realClock,
    logger: silentLogger,
    onEvent: (event: VolumeEvent) => void events.push(event),
  });

  before(async () => {
    folder = mkdtempSync("/var/tmp/sk-vol-");
    volumes = await Volumes.open(options());
    worker = new TestWorker("builtin");
    worker.volumes = volumes;
    await worker.open();
    // What an image has where a volume goes.
    const data = join(worker.base, "images/busybox/rootfs/data");
    mkdirSync(join(data, "sub"), { recursive: true, mode: 0o750 });
    writeFileSync(join(data, "sub/file"), "from the image\n");
  });
  after(async () => {
    await worker.close();
    await volumes[Symbol.asyncDispose]();
    assert.equal(mounts(folder), 0);
    rmSync(folder, { recursive: true, force: true });
  });
  afterEach(async () => {
    for (const container of worker.containers.list()) await container.remove({ force: true, volumes: true });
    for (const { name } of volumes.list()) await volumes.delete(name);
  });

  test("one is removed also when the disk is full, its contents first", async (t) => {
    const own = mkdtempSync("/var/tmp/sk-vol-");
    const trash = join(own, ".trash");
    const open = (): Promise<Volumes> => Volumes.open({ folder: own, clock: realClock, logger: silentLogger });
    let mine = await open();
    for (const name of ["big", "small"]) {
      await mine.create({ name });
      writeFileSync(join(mine.mountpoint(name), "file"), name);
    }
    const holdsData = (): boolean => readdirSync(trash).some((name) => existsSync(join(trash, name, "_data")));
    let isFull = holdsData;
    const prototype = Level.prototype as unknown as { batch: (...args: unknown[]) => Promise<void> };
    const { batch } = prototype;
    const mocked = t.mock.method(prototype, "batch", async function (this: unknown, ...args: unknown[]): Promise<void> {
      if (isFull()) throw new Error("IO error: No space left on device");
      return batch.apply(this, args);
    });
    await mine.delete("big");
    assert.deepEqual(readdirSync(trash), [], "its record is deleted");
    isFull = () => true;
    await mine.delete("small");
    assert.throws(() => mine.inspect("small"), VolumeNotFound);
    assert.equal(holdsData(), false);
    mocked.mock.restore();
    await mine[Symbol.asyncDispose]();
    mine = await open();
    assert.deepEqual(mine.list(), []);
    assert.deepEqual(readdirSync(trash), []);
    await mine[Symbol.asyncDispose]();
    rmSync(own, { recursive: true, force: true });
  });

  test("a volume is created, found, listed and removed; creating it again gives the same one", async () => {
    const made = await volumes.create({ name: "data", labels: { a: "b" } });
    assert.deepEqual(await volumes.create({ name: "data", labels: { other: "x" } }), made);
    assert.deepEqual(volumes.list(), [made]);
    assert.equal(volumes.inspect("data").labels["a"], "b");
    assert.ok(statSync(volumes.mountpoint("data")).isDirectory());
    writeFileSync(join(volumes.mountpoint("data"), "x"), "12345");
    assert.equal(await volumes.size("data"), 5);
    await volumes.delete("data");
    assert.throws(() => volumes.inspect("data"), VolumeNotFound);
    assert.ok(!existsSync(join(folder, "data")));
    await assert.rejects(volumes.delete("data"), VolumeNotFound);
    await volumes.delete("data", { force: true });
    assert.deepEqual(
      events.splice(0).map(({ action, name }) => `${action} ${name}`),
      ["create data", "destroy data"],
    );
  });

  test("wrong names, drivers and options are refused", async () => {
    await assert.rejects(volumes.create({ name: "no/good" }), VolumeInvalid);
    await assert.rejects(volumes.create({ name: "x" }), VolumeInvalid);
    await assert.rejects(volumes.create({ name: "ok", driver: "nfs" }), VolumeDriverUnknown);
    await assert.rejects(volumes.create({ name: "ok", options: { color: "red" } }), VolumeInvalid);
    assert.deepEqual(volumes.list(), []);
  });

  test("a new volume gets what the image has in its place, once, with its owner and mode", async () => {
    const mount = { Type: "volume" as const, Source: "filled", Target: "/data" };
    const first = await worker.run(["sh", "-c", "cat /data/sub/file; rm -r /data/sub"], { Mounts: [mount] });
    assert.equal(first.stdout, "from the image\n");
    assert.equal(statSync(volumes.mountpoint("filled")).mode & 0o777, 0o750);
    writeFileSync(join(volumes.mountpoint("filled"), "mine"), "");
    const second = await worker.run(["ls", "/data"], { Mounts: [mount] });
    assert.equal(second.stdout, "mine\n");
    const plain = await worker.run(["ls", "/data"], {
      Mounts: [{ Type: "volume", Source: "plain", Target: "/data", VolumeOptions: { NoCopy: true } }],
    });
    assert.equal(plain.stdout, "");
    assert.deepEqual(readdirSync(join(folder, "filled")), ["_data"]);
  });

  test("a volume that a container refers to is not removed, even after a restart of the worker", async () => {
    const container = await worker.create(["true"], { Binds: ["kept:/v"] });
    await assert.rejects(volumes.delete("kept"), VolumeInUse);
    await assert.rejects(volumes.delete("kept", { force: true }), VolumeInUse);
    await worker.containers[Symbol.asyncDispose]();
    await volumes[Symbol.asyncDispose]();
    volumes = await Volumes.open(options());
    worker.volumes = volumes;
    await worker.open();
    await assert.rejects(volumes.delete("kept"), VolumeInUse);
    assert.deepEqual(volumes.usedBy("kept"), [container.id]);
    await worker.containers.get(container.id).remove({ volumes: true });
    await volumes.delete("kept");
  });

  test("anonymous volumes go with their container when asked, and prune takes those that are left", async () => {
    const config = { Volumes: { "/anonymous": {} } };
    const gone = await worker.create(["true"], {}, config);
    assert.deepEqual(
      volumes.list().map(({ labels }) => labels),
      [{ [anonymousLabel]: "" }],
    );
    await gone.remove({ volumes: true });
    assert.deepEqual(volumes.list(), []);
    await (await worker.create(["true"], {}, config)).remove({});
    await volumes.create({ name: "named" });
    const left = volumes.list().find(({ labels }) => anonymousLabel in labels);
    const pruned = await volumes.prune(({ labels }) => anonymousLabel in labels);
    assert.deepEqual(pruned.names, [left?.name]);
    assert.deepEqual(
      volumes.list().map(({ name }) => name),
      ["named"],
    );
  });

  test("what the options name is mounted while a container runs, and unmounted after the last one", async () => {
    await volumes.create({ name: "memory", options: { type: "tmpfs", device: "tmpfs", o: "size=1m,mode=0700" } });
    const bind = { Binds: ["memory:/m"] };
    const one = await worker.create(["sh", "-c", "grep -c ' /m tmpfs' /proc/mounts; sleep 60"], bind);
    const two = await worker.create(["sleep", "60"], bind);
    await one.start();
    await two.start();
    assert.equal(mounts(volumes.mountpoint("memory")), 1);
    for await (const line of one.logs({ stdout: true, stderr: true, follow: true }, AbortSignal.timeout(120_000))) {
      assert.equal(line.text.toString("utf8"), "1\n");
      break;
    }
    await one.stop({ seconds: 0 });
    assert.equal(mounts(volumes.mountpoint("memory")), 1);
    await two.stop({ seconds: 0 });
    assert.equal(mounts(volumes.mountpoint("memory")), 0);
  });

  test("a mount of an earlier life stays for who runs, and goes when nobody does", async () => {
    await volumes.create({ name: "memory", options: { type: "tmpfs", device: "tmpfs" } });
    const container = await worker.create(["sleep", "60"], { Binds: ["memory:/m"] });
    await container.start();
    const again = async (): Promise<void> => {
      await worker.containers[Symbol.asyncDispose]();
      await volumes[Symbol.asyncDispose]();
      volumes = await Volumes.open(options());
      worker.volumes = volumes;
      await worker.open();
    };
    await again();
    assert.equal(mounts(volumes.mountpoint("memory")), 1);
    await worker.containers[Symbol.asyncDispose]();
    await volumes[Symbol.asyncDispose]();
    // Its end comes while no daemon is there to unmount.
    await worker.killMonitors();
    volumes = await Volumes.open(options());
    worker.volumes = volumes;
    await worker.open();
    assert.equal(mounts(volumes.mountpoint("memory")), 0);
  });

  test("a mount that fails is told without its options, and the container does not start", async () => {
    const options = { type: "nosuchtype", device: "x", o: "password=hunter2" };
    await volumes.create({ name: "broken", options });
    await assert.rejects(volumes.mount("c", ["broken"]), (error) => {
      assert.ok(error instanceof VolumeMountFailed);
      assert.doesNotMatch(error.message, /hunter2/);
      return true;
    });
    const container = await worker.create(["true"], { Binds: ["broken:/b"] });
    await assert.rejects(container.start(), /Cannot mount volume broken/);
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.startsWith(".fstab")),
      [],
    );
  });

  test("a directory without a record is taken in, and a removal that was cut short is finished", async () => {
    await volumes.create({ name: "half" });
    await volumes[Symbol.asyncDispose]();
    mkdirSync(join(folder, "found/_data"), { recursive: true });
    mkdirSync(join(folder, ".trash/half@0011"), { recursive: true });
    rmSync(join(folder, "half"), { recursive: true });
    volumes = await Volumes.open(options());
    worker.volumes = volumes;
    await worker.reopen();
    assert.deepEqual(
      volumes.list().map(({ name }) => name),
      ["found"],
    );
    assert.deepEqual(readdirSync(join(folder, ".trash")), []);
  });
});
