/** Containers whose root file systems come from images, and the errors that a caller meets. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, afterEach, before, describe, test } from "node:test";

import { Random } from "../../../lib/pure/prng.ts";
import { realClock } from "../../../lib/runtime/index.ts";
import {
  ArchiveFailed,
  ContainerAmbiguous,
  ContainerConfigInvalid,
  ContainerNameInUse,
  ExecNotFound,
  MonitorFailed,
  RuntimeFailed,
} from "../../../worker/containers/index.ts";
import { Images } from "../../../worker/images/index.ts";
import { ImageRootfs } from "../../../worker/worker.ts";
import { killIfThere, makeImages, native, TestWorker, whySkipped } from "./host.ts";

describe("containers over images", { skip: whySkipped(), timeout: 600_000 }, () => {
  let folder: string;
  let images: Images;
  let worker: TestWorker;

  before(async () => {
    folder = mkdtempSync("/var/tmp/sk-img-");
    images = await Images.open({
      folder: join(folder, "images"),
      archiveProgram: join(native, "archive"),
      platform: { os: "linux", architecture: "amd64", variant: "" },
      clock: realClock,
      random: new Random(1),
    });
    mkdirSync(join(folder, "source"));
    makeImages(join(folder, "source"));
    const root = execFileSync("tar", ["-C", join(folder, "source/busybox/rootfs"), "-cf", "-", "."], {
      maxBuffer: 1 << 28,
    });
    await images.import(Readable.from([root]), {
      reference: "busybox:1",
      changes: { Cmd: ["sh"], Env: ["FROM_IMAGE=yes"], User: "joe", Healthcheck: { Test: ["NONE"] } },
    });
    worker = await new TestWorker("builtin", { rootfs: new ImageRootfs(images) }).open();
  });
  after(async () => {
    await worker.close();
    await images[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  // What a failed test leaves is not the next one's affair.
  afterEach(async () => {
    for (const container of worker.containers.list()) await container.remove({ force: true });
  });

  test("a container runs from an image's layers, with its configuration", async () => {
    const { container, code, stdout } = await worker.run(
      ["sh", "-c", "echo $FROM_IMAGE; id -un"],
      {},
      { Image: "busybox:1" },
    );
    assert.deepEqual([code, stdout], [0, "yes\njoe\n"]);
    await assert.rejects(images.remove("busybox:1"), { code: "IMAGE_IN_USE" });
    await container.remove();
  });

  test("when the worker starts images are kept for the containers that have a record, and for no others", async () => {
    const users = async (): Promise<number> =>
      (await images.list()).find(({ repoTags }) => repoTags.includes("busybox:1"))?.containers ?? -1;
    // As a crash leaves them: noted for one without a record, and not for one that has one.
    const { written } = await images.prepare("f".repeat(64), "busybox:1");
    await written;
    assert.equal(await users(), 1);
    await worker.reopen();
    assert.equal(await users(), 0);
    const container = await worker.create(["true"], {}, { Image: "busybox:1" });
    await images.release(container.id);
    await worker.reopen();
    assert.equal(await users(), 1);
    await worker.containers.get(container.id).remove();
    assert.equal(await users(), 0);
  });

  test("commit makes an image of two layers, from which another container runs", async () => {
    const { container } = await worker.run(["sh", "-c", "echo made > /tmp/new"], {}, { Image: "busybox:1" });
    const id = await container.commit({ pause: true, author: "bee", comment: "why" });
    await container.remove();
    const again = await worker.run(["cat", "/tmp/new"], {}, { Image: id });
    assert.deepEqual([again.code, again.stdout, again.stderr], [0, "made\n", ""]);
    assert.equal((await images.inspect(id)).image.layers.length, 2);
    await again.container.remove();
    assert.deepEqual((await images.remove(id)).removed, [id]);
  });

  test("an image that is not there is said so, and leaves no container", async () => {
    await assert.rejects(worker.create(["true"], {}, { Image: "nothing:1" }), { code: "IMAGE_NOT_FOUND" });
    assert.deepEqual(worker.containers.list(), []);
  });

  test("names, prefixes, wishes and sessions that do not fit have errors of their own", async () => {
    const wish = { config: { Image: "busybox:1", Cmd: ["sleep", "60"] }, hostConfig: { NetworkMode: "none" } };
    const first = await worker.containers.create({ ...wish, name: "bee" });
    await assert.rejects(worker.containers.create({ ...wish, name: "/bee" }), ContainerNameInUse);
    await assert.rejects(worker.containers.create({ ...wish, name: "no good" }), ContainerConfigInvalid);
    // Seventeen ids share their first digit somewhere: an empty or one-digit prefix that fits several is refused.
    const made = [first];
    while (new Set(made.map(({ id }) => id[0])).size === made.length) made.push(await worker.containers.create(wish));
    const [digit = ""] = made.at(-1)?.id ?? "";
    assert.throws(() => worker.containers.get(digit), ContainerAmbiguous);
    assert.throws(() => worker.containers.exec("f".repeat(64)), ExecNotFound);
    await first.start();
    await assert.rejects(
      first.update({ Memory: 1 }),
      (error) => error instanceof RuntimeFailed || error instanceof ContainerConfigInvalid,
    );
    await assert.rejects(
      first.copyIn("/tmp", Readable.from([Buffer.from("this is no tar archive".repeat(100))])),
      ArchiveFailed,
    );
    // All in one turn: in the next one it may be known already that the container went with its monitor.
    for (const monitor of worker.monitors()) killIfThere(monitor);
    await assert.rejects(first.resize(10, 10), MonitorFailed);
    for (const container of made) await container.remove({ force: true });
  });
});
