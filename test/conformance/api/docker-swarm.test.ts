/** The real docker CLI on the swarm's objects, as a user types. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";

import { skep } from "../../../proto/index.ts";
import { ApiWorld } from "../../support/api-world.ts";

const { TaskState } = skep.objects;
const hasDocker = spawnSync("docker", ["--version"]).status === 0;

describe("the docker CLI on a swarm", { skip: hasDocker ? false : "needs the docker CLI", timeout: 120_000 }, () => {
  let world: ApiWorld;

  before(async () => {
    world = await ApiWorld.open();
  });
  after(() => world.close());

  interface Said {
    readonly code: number | null;
    readonly out: string;
    readonly err: string;
  }

  function docker(args: readonly string[], input = ""): Promise<Said> {
    return new Promise((resolve, reject) => {
      const child = spawn("docker", args, {
        env: { ...process.env, DOCKER_HOST: `unix://${world.socket}`, DOCKER_CONFIG: "/nonexistent" },
        timeout: 60_000,
      });
      let out = "";
      let err = "";
      child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
      child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
      child.on("error", reject);
      child.on("close", (code) => resolve({ code, out: out.trim(), err: err.trim() }));
      child.stdin.end(input);
    });
  }

  async function done(...args: readonly string[]): Promise<string> {
    const { code, out, err } = await docker(args);
    assert.equal(code, 0, `docker ${args.join(" ")}: ${err}`);
    return out;
  }

  async function refused(wanted: RegExp, ...args: readonly string[]): Promise<void> {
    const { code, err } = await docker(args);
    assert.notEqual(code, 0);
    assert.match(err, wanted);
  }

  test("nodes are listed, inspected, labelled and drained", async () => {
    assert.match(await done("node", "ls"), /\* +host-1 +Ready +Active +Leader/);
    await done("node", "update", "--label-add", "zone=a", "--availability", "drain", "host-1");
    const pretty = await done("node", "inspect", "--pretty", "self");
    assert.match(pretty, /zone=a[\s\S]*Availability:\s+Drain/);
    await refused(/attempting to demote the last manager/, "node", "demote", "host-1");
    await done("node", "update", "--availability", "active", "host-1");
  });

  test("a service is created with secret, config and network, changed, scaled, rolled back and removed", async () => {
    await docker(["secret", "create", "s1", "-"], "hidden");
    await docker(["config", "create", "c1", "-"], "shown");
    await done("network", "create", "-d", "overlay", "--attachable", "net1");
    const flags = [
      "--secret",
      "s1",
      "--config",
      "source=c1,target=/c",
      "--network",
      "name=net1,alias=a",
      "-p",
      "8080:80",
    ];
    const common = [
      "-d",
      "--no-resolve-image",
      "--name",
      "web",
      "--replicas",
      "2",
      "--constraint",
      "node.role==manager",
    ];
    const id = await done(
      "service",
      "create",
      ...common,
      ...flags,
      "--update-delay",
      "3s",
      "--health-cmd",
      "true",
      "bb:1",
      "sleep",
      "9",
    );
    assert.match(id, /^[0-9a-z]{25}$/);
    assert.match(await done("service", "ls"), /web +replicated +0\/2 +bb:1/);
    const pretty = await done("service", "inspect", "--pretty", "web");
    assert.match(pretty, /Constraints:\s+\[?node\.role==manager[\s\S]*Delay:\s+3s[\s\S]*Image:\s+bb:1/);
    await done(
      "service",
      "update",
      "-d",
      "--no-resolve-image",
      "--image",
      "bb:2",
      "--env-add",
      "A=1",
      "--limit-memory",
      "64m",
      "web",
    );
    await done("service", "scale", "-d", "web=5");
    assert.match(
      await done(
        "service",
        "inspect",
        "--format",
        "{{.Spec.Mode.Replicated.Replicas}} {{.Spec.TaskTemplate.ContainerSpec.Env}}",
        "web",
      ),
      /^5 \[A=1\]$/,
    );
    await done("service", "rollback", "-d", "web");
    assert.equal(await done("service", "inspect", "--format", "{{.Spec.Mode.Replicated.Replicas}}", "web"), "2");
    await refused(/secret 's1' is in use by the following service: web/, "secret", "rm", "s1");
    await refused(
      /name conflicts with an existing object: service web already exists/,
      "service",
      "create",
      "-d",
      "--no-resolve-image",
      "--name",
      "web",
      "bb:1",
    );
    await world.write((tx) =>
      tx.create("task", {
        id: "t".repeat(25),
        serviceId: id,
        slot: 1,
        nodeId: world.nodeId,
        spec: { containerSpec: { image: "bb:1" } },
        desiredState: TaskState.RUNNING,
        status: { state: TaskState.RUNNING, timestampUs: Date.now() * 1000 },
      }),
    );
    assert.match(await done("service", "ps", "web"), /web\.1 +bb:1 +host-1 +Running +Running/);
    assert.equal(await done("service", "rm", "web"), "web");
    for (const what of [
      ["secret", "s1"],
      ["config", "c1"],
    ] as const)
      await done(what[0], "rm", what[1]);
    await refused(/no such service: web|not found/, "service", "inspect", "web");
  });

  test("the swarm is shown, updated, its tokens rotated, its managers locked", async () => {
    const token = await done("swarm", "join-token", "-q", "worker");
    assert.match(token, /^SWMTKN-1-/);
    assert.notEqual(await done("swarm", "join-token", "-q", "--rotate", "worker"), token);
    await done("swarm", "update", "--task-history-limit", "2", "--dispatcher-heartbeat", "2s");
    assert.match(await done("info"), /Task History Retention Limit: 2[\s\S]*Heartbeat Period: 2 seconds/);
    assert.match(await done("swarm", "update", "--autolock"), /SWMKEY-1-/);
    assert.match(await done("swarm", "unlock-key", "-q"), /^SWMKEY-1-/);
    assert.match(await done("swarm", "ca"), /BEGIN CERTIFICATE/);
  });

  test("a stack of networks, secrets and services is deployed and removed", async () => {
    const file = `
version: "3.8"
services:
  web:
    image: bb:1
    networks: [front]
    secrets: [s]
    deploy: { replicas: 2, update_config: { order: start-first } }
networks: { front: { driver: overlay } }
secrets: { s: { file: /etc/hostname } }
`;
    const { code, err } = await docker(
      ["stack", "deploy", "--detach=true", "--resolve-image", "never", "-c", "-", "st"],
      file,
    );
    assert.equal(code, 0, err);
    assert.match(await done("stack", "ls"), /st +1/);
    assert.match(await done("stack", "services", "st"), /st_web +replicated +0\/2/);
    await done("stack", "rm", "--detach=true", "st");
    assert.doesNotMatch(await done("stack", "ls"), /st/);
  });

  test("no request met a bug", () => assert.deepEqual(world.bugs, []));
});
