/** dockerode: a client that negotiates no version, sends bodies where none belong, and starts exec without an upgrade. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";

import Dockerode from "dockerode";

import { whySkipped } from "../containers/host.ts";
import { LocalWorld } from "./local-world.ts";

describe("dockerode", { skip: whySkipped(), timeout: 60_000 }, () => {
  let world: LocalWorld;
  let docker: Dockerode;
  before(async () => {
    world = await LocalWorld.open();
    docker = new Dockerode({ socketPath: world.socket });
  });
  after(async () => {
    await world.close();
  });

  const read = async (stream: NodeJS.ReadableStream): Promise<string> => {
    let text = "";
    docker.modem.demuxStream(
      stream,
      { write: (chunk: Buffer) => (text += chunk.toString("utf8")) } as unknown as NodeJS.WritableStream,
      { write: (chunk: Buffer) => (text += chunk.toString("utf8")) } as unknown as NodeJS.WritableStream,
    );
    await once(stream, "end", { signal: AbortSignal.timeout(20_000) });
    return text;
  };

  test("a container from create to remove, with attach, exec, logs and wait", async () => {
    assert.equal(String(await docker.ping()), "OK");
    const made = await docker.createContainer({
      Image: "busybox",
      Cmd: ["sh", "-c", "echo begun; until [ -e /stop ]; do sleep 0.05; done; echo over"],
      name: "ode",
      HostConfig: { NetworkMode: "none" },
    });
    const attached = await made.attach({ stream: true, stdout: true, stderr: true });
    const output = read(attached);
    await made.start();
    const plain = await made.exec({ Cmd: ["echo", "inside"], AttachStdout: true, AttachStderr: true });
    assert.equal(await read(await plain.start({})), "inside\n");
    assert.equal((await plain.inspect()).ExitCode, 0);
    const hijacked = await made.exec({ Cmd: ["touch", "/stop"], AttachStdout: true, AttachStderr: true });
    assert.equal(await read(await hijacked.start({ hijack: true, stdin: true })), "");
    assert.equal(((await made.wait()) as { StatusCode: number }).StatusCode, 0);
    assert.equal(await output, "begun\nover\n");
    const logs = await made.logs({ stdout: true, stderr: true, follow: false });
    assert.match(logs.toString("utf8"), /begun\n[^]*over\n$/);
    assert.deepEqual(
      (await docker.listContainers({ all: true, filters: { name: ["ode"] } })).map(({ State }) => State),
      ["exited"],
    );
    await made.remove();
    await assert.rejects(made.inspect(), { statusCode: 404 });
  });

  test("images, volumes and events are listed as it expects", async () => {
    assert.deepEqual((await docker.listImages()).flatMap(({ RepoTags }) => RepoTags ?? []).sort(), [
      "bb:1",
      "busybox:latest",
    ]);
    await docker.createVolume({ Name: "odevol" });
    assert.deepEqual(
      (await docker.listVolumes()).Volumes.map(({ Name }) => Name),
      ["odevol"],
    );
    // Not the very millisecond of the last one.
    const events = await docker.getEvents({ since: 0, until: (Date.now() + 10) / 1000 });
    let text = "";
    events.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
    await once(events, "end", { signal: AbortSignal.timeout(20_000) });
    assert.match(text, /"Type":"volume","Action":"create"/);
    await assert.rejects(docker.getNetwork("nosuch").connect({ Container: "x" }), { statusCode: 404 });
    assert.equal((await world.ask("GET", "/plugins/nosuch/json")).text.includes("PLUGIN_NOT_FOUND"), true);
    assert.match((await world.ask("POST", "/networks/nosuch/connect", {})).text, /CONTAINER_NOT_FOUND/);
  });
});
