/** Images of tasks, by Swarm's rules, with a real registry that wants a password. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, describe, test } from "node:test";

import type { skep } from "../../../proto/index.ts";
import { makeTar } from "../../support/layers.ts";
import { registryMissing, registryUser, startRegistry, type TestRegistry } from "../../support/registry.ts";
import { whySkipped } from "../containers/host.ts";
import { facts, never, quiet, testTask, TestNeeds } from "./contract.ts";
import { RealWorld } from "./world.ts";

function whyNot(): string | false {
  if (whySkipped() !== false) return whySkipped();
  if (registryMissing() !== false) return registryMissing();
  return existsSync("/usr/bin/htpasswd") ? false : "needs htpasswd";
}

describe("images of tasks", { skip: whyNot(), timeout: 600_000 }, () => {
  let world: RealWorld;
  let registry: TestRegistry;
  let closed = false;
  const auth = Buffer.from(JSON.stringify(registryUser)).toString("base64url");
  before(async () => {
    world = await RealWorld.open();
    registry = await startRegistry({ folder: join(world.folder, "registry"), auth: "basic" });
  });
  after(async () => {
    if (!closed) await registry[Symbol.asyncDispose]();
    await world.close();
  });

  const push = async (name: string, from: string): Promise<string> => {
    await world.images.tag(from, name);
    return (await world.images.push(name, { credentials: registryUser })).digest;
  };
  /** Prepares a task of this image; the id of the image that it got. */
  const prepare = async (
    image: string,
    registryAuth = auth,
    reasons: skep.objects.Reason.$Properties[] = [],
  ): Promise<string> => {
    const task = testTask({ image, command: ["true"], pullOptions: { registryAuth } });
    const controller = world.executor.controller(task, new TestNeeds(), facts);
    await controller.prepare(never, (reason) => reasons.push(reason));
    const { imageId } = world.worker.containers.get(controller.containerStatus()?.containerId ?? "").record;
    await controller.remove(never);
    return imageId;
  };

  test("an image is pulled with the service's credentials, and told about; without them it is refused", async () => {
    const name = `${registry.host}/bee/busybox:1`;
    const digest = await push(name, "127.0.0.1:1/busybox:1");
    const { image } = await world.images.inspect(name);
    for (const text of [name, "127.0.0.1:1/busybox:1"]) await world.images.remove(text, { force: true });
    await world.images.prune({ all: true });
    await assert.rejects(prepare(name, ""), { code: "REGISTRY_DENIED" });
    const reasons: skep.objects.Reason.$Properties[] = [];
    assert.equal(await prepare(name, auth, reasons), image.id);
    assert.equal(reasons[0]?.pulling?.image, name);
    assert.equal(await prepare(`${name}@${digest}`), image.id);
  });

  test("a tag that moved is pulled again; tasks that want one image at once share a pull", async () => {
    const name = `${registry.host}/bee/moving:1`;
    await push(name, `${registry.host}/bee/busybox:1`);
    const first = await prepare(name);

    const tar = await makeTar([{ name: "bin", type: "directory" }]);
    await world.images.import(Readable.from([tar]), { reference: "other:1", changes: { Cmd: ["x"] } });
    await push(name, "other:1");
    const second = (await world.images.inspect("other:1")).image.id;
    await world.images.tag(first, name); // here it is what it was, there it has moved
    const all = await Promise.all([1, 2, 3].map(() => prepare(name)));
    assert.deepEqual(all, [second, second, second]);
  });

  test("with the registry gone the image that is here is used, and one that is not is the registry's error", async () => {
    await registry[Symbol.asyncDispose]();
    closed = true;
    const { image } = await world.images.inspect(`${registry.host}/bee/busybox:1`);
    assert.equal(await prepare(`${registry.host}/bee/busybox:1`), image.id);
    await assert.rejects(prepare(`${registry.host}/bee/nothing:1`), { code: "REGISTRY_UNREACHABLE" });
    const stop = new AbortController();
    stop.abort();
    const task = testTask({ image: `${registry.host}/bee/nothing:1`, command: ["true"] });
    await assert.rejects(world.executor.controller(task, new TestNeeds(), facts).prepare(stop.signal, quiet), {
      name: "AbortError",
    });
  });
});
