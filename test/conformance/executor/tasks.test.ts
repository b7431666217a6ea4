/** What a task's spec becomes in its container: everything that a service may ask of it. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";

import { skep } from "../../../proto/index.ts";
import {
  isTemporary,
  SecretsStoreFailed,
  TaskContainerGone,
  TaskDependencyMissing,
  TaskExitedEarly,
  TaskSpecInvalid,
  TemplateInvalid,
  type TaskController,
} from "../../../worker/executor/index.ts";
import { ContainerExecutor } from "../../../worker/executor/index.ts";
import { NetworkUnavailable } from "../../../worker/network/index.ts";
import { realClock, silentLogger } from "../../../lib/runtime/index.ts";
import { whySkipped } from "../containers/host.ts";
import { facts, never, quiet, testTask, TestNeeds } from "./contract.ts";
import { RealWorld } from "./world.ts";

type Spec = skep.objects.ContainerSpec.$Properties;

const tmpfsMagic = 0x01021994;
const secretOf = (id: string, name: string, data: string, templating?: string): skep.objects.Secret =>
  skep.objects.Secret.decode(
    skep.objects.Secret.encode({
      id,
      spec: {
        name,
        data: Buffer.from(data),
        ...(templating === undefined ? {} : { templating: { name: templating } }),
      },
    }).finish(),
  );
const configOf = (id: string, name: string, data: string, templating?: string): skep.objects.Config =>
  skep.objects.Config.decode(
    skep.objects.Config.encode({
      id,
      spec: {
        name,
        data: Buffer.from(data),
        ...(templating === undefined ? {} : { templating: { name: templating } }),
      },
    }).finish(),
  );
const networkOf = (id: string, name: string, driver: string, ingress = false): skep.objects.Network =>
  skep.objects.Network.decode(
    skep.objects.Network.encode({ id, spec: { name, driver: { name: driver }, ingress } }).finish(),
  );

describe("tasks as containers", { skip: whySkipped(), timeout: 600_000 }, () => {
  let world: RealWorld;
  let needs: TestNeeds;
  before(async () => {
    world = await RealWorld.open();
  });
  after(async () => {
    await world.close();
  });
  afterEach(async () => {
    for (const taskId of await world.executor.held()) await world.executor.forget(taskId);
  });

  const sh = (text: string, more: Spec = {}): Spec => ({
    image: "127.0.0.1:1/busybox:1",
    command: ["sh", "-c", text],
    ...more,
  });
  const make = (spec: Spec, more: skep.objects.Task.$Properties = {}): TaskController => {
    const task = testTask(spec, more);
    // `more.spec` would replace the container; what it says of resources and the like is merged instead.
    if (more.spec != null) Object.assign(task.spec as object, { ...task.spec, ...more.spec, containerSpec: spec });
    return world.executor.controller(task, needs, facts);
  };
  const output = async (controller: TaskController): Promise<string> => {
    let text = "";
    for await (const line of controller.logs({ stdout: true, stderr: true, follow: false }, never))
      text += Buffer.from(line.text).toString("utf8");
    return text;
  };
  const run = async (spec: Spec, more: skep.objects.Task.$Properties = {}): Promise<string> => {
    const controller = make(spec, more);
    await controller.prepare(never, quiet);
    await controller.start(never, quiet);
    await controller.wait(never);
    return output(controller);
  };
  const refused = (spec: Spec, more: skep.objects.Task.$Properties = {}): Promise<void> =>
    make(spec, more).prepare(never, quiet);

  before(() => {
    needs = new TestNeeds();
  });

  test("command, arguments, environment, directory, user, groups and hostname arrive", async () => {
    const text = await run({
      image: "127.0.0.1:1/busybox:1",
      command: ["sh", "-c", 'echo "$0 $1 $FROM_IMAGE $MINE"; pwd; id -u; id -G; hostname'],
      args: ["zero", "one"],
      env: ["MINE=1"],
      dir: "/a/b",
      user: "joe",
      groups: ["bees", "4000"],
      hostname: "hive",
    });
    assert.equal(text, "zero one yes 1\n/a/b\n1000\n1000 77 4000\nhive\n");
  });

  test("templates name service, node and task in hostname, variables and mounts", async () => {
    const folder = join(world.folder, "by-slot");
    mkdirSync(join(folder, "1"), { recursive: true });
    writeFileSync(join(folder, "1/who"), "slot one\n");
    const text = await run(
      sh('hostname; echo "$A $B"; cat /in/who', {
        hostname: "{{.Service.Name}}-{{.Task.Slot}}",
        env: ["A={{.Node.Hostname}}/{{.Node.Platform.OS}}", 'B={{index .Service.Labels "tier"}}'],
        mounts: [{ type: "bind", source: `${folder}/{{.Task.Slot}}`, target: "/in", readOnly: true }],
      }),
    );
    assert.equal(text, "web-1\nbee/linux front\nslot one\n");
    await assert.rejects(refused(sh("true", { env: ["X={{.Nope}}"] })), TemplateInvalid);
  });

  test("the container is named and labelled as Swarm does it", async () => {
    const task = testTask(sh("true", { labels: { own: "1", "com.docker.swarm.task.id": "forged" } }));
    const controller = world.executor.controller(task, needs, facts);
    await controller.prepare(never, quiet);
    const { record } = world.worker.containers.get(controller.containerStatus()?.containerId ?? "");
    assert.equal(record.name, `web.1.${task.id}`);
    assert.deepEqual(record.config.Labels, {
      own: "1",
      "com.docker.swarm.task": "",
      "com.docker.swarm.task.id": task.id,
      "com.docker.swarm.task.name": `web.1.${task.id}`,
      "com.docker.swarm.node.id": facts.nodeId,
      "com.docker.swarm.service.id": task.serviceId,
      "com.docker.swarm.service.name": "web",
    });
  });

  test("secrets and configs lie in memory, with name, owner, mode and templates, and go with the task", async () => {
    needs.secrets.set("s1", secretOf("s1", "password", "hunter2"));
    needs.secrets.set("s2", secretOf("s2", "url", 'db://{{env "WHO"}}:{{secret "pw"}}@{{.Service.Name}}', "golang"));
    needs.configs.set("c1", configOf("c1", "app", 'from {{config "other.txt"}} by {{.Task.Slot}}', "golang"));
    needs.configs.set("c2", configOf("c2", "other", "plain {{text}}"));
    const task = testTask(
      sh(
        "cd /run/secrets; cat pw; echo; cat url; echo; cat /etc/app.conf; echo; cat /other.txt; echo; stat -c '%u %g %a' pw /other.txt; grep -c '/run/secrets/pw tmpfs ro' /proc/mounts; echo x > pw",
        {
          env: ["WHO=bee"],
          secrets: [
            { secretId: "s1", secretName: "password", file: { name: "pw", uid: "1000", gid: "77", mode: 0o400 } },
            { secretId: "s2", secretName: "url", file: { name: "url", mode: 0o444 } },
          ],
          configs: [
            { configId: "c1", configName: "app", file: { name: "/etc/app.conf", mode: 0o444 } },
            { configId: "c2", configName: "other", file: { name: "other.txt", mode: 0o640 } },
          ],
        },
      ),
    );
    const controller = world.executor.controller(task, needs, facts);
    await controller.prepare(never, quiet);
    const folder = join(world.secretsDirectory, task.id);
    assert.equal(statfsSync(folder).type, tmpfsMagic);
    assert.equal(readdirSync(folder).length, 4);
    await controller.start(never, quiet);
    await controller.wait(never);
    const lines = (await output(controller)).split("\n");
    assert.deepEqual(lines.slice(0, 7), [
      "hunter2",
      "db://bee:hunter2@web",
      "from plain {{text}} by 1",
      "plain {{text}}",
      "1000 77 400",
      "0 0 640",
      "1",
    ]);
    assert.match(lines[7] ?? "", /[Rr]ead-only/);
    assert.ok(!existsSync(folder), "they went when the task ended");
    await controller.remove(never);
  });

  test("secrets go when the task ends, however it ends, and stay while it runs and the daemon is restarted", async () => {
    needs.secrets.set("s1", secretOf("s1", "password", "hunter2"));
    const secrets = [{ secretId: "s1", secretName: "password", file: { name: "pw", mode: 0o444 } }];
    const idle = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    const begun = async (text: string, more: Spec = {}): Promise<{ task: TaskController; folder: string }> => {
      const made = testTask(sh(text, { secrets, ...more }));
      const task = world.executor.controller(made, needs, facts);
      await task.prepare(never, quiet);
      const folder = join(world.secretsDirectory, made.id);
      assert.ok(existsSync(folder));
      return { task, folder };
    };
    const stopped = await begun(idle);
    await stopped.task.start(never, quiet);
    await stopped.task.shutdown(never);
    assert.ok(!existsSync(stopped.folder), "stopped");
    const killed = await begun(idle);
    await killed.task.start(never, quiet);
    await killed.task.terminate(never);
    assert.ok(!existsSync(killed.folder), "killed");
    const broken = await begun("true", { user: "nobody-of-that-name" });
    await assert.rejects(broken.task.start(never, quiet));
    assert.ok(!existsSync(broken.folder), "never started");
    const missing = testTask({ ...sh("true", { secrets }), image: "127.0.0.1:1/nothing:1" });
    await assert.rejects(world.executor.controller(missing, needs, facts).prepare(never, quiet));
    assert.ok(!existsSync(join(world.secretsDirectory, missing.id)), "its image is not there");
    const running = await begun(idle);
    await running.task.start(never, quiet);
    const waiting = await begun(idle);
    await world.restart();
    assert.ok(existsSync(running.folder));
    assert.ok(!existsSync(waiting.folder), "what has not started gets them again when it does");
  });

  test("a secret that has not arrived is waited for, and the reason says which", async () => {
    const reasons: skep.objects.Reason.$Properties[] = [];
    const spec = sh("true", { secrets: [{ secretId: "gone", secretName: "token", file: { name: "token" } }] });
    await assert.rejects(
      make(spec).prepare(never, (reason) => reasons.push(reason)),
      (error) => {
        assert.ok(error instanceof TaskDependencyMissing);
        assert.equal(error.code, "TASK_DEPENDENCY_MISSING");
        assert.ok(isTemporary(error));
        return true;
      },
    );
    assert.deepEqual(reasons[0]?.dependencyMissing, { kind: "secret", reference: "token" });
  });

  test("secrets cannot be put outside, owned by names, or made by other template drivers", async () => {
    needs.secrets.set("s3", secretOf("s3", "x", "y", "mustache"));
    const at = (secretId: string, file: skep.objects.FileTarget.$Properties): Spec =>
      sh("true", { secrets: [{ secretId, secretName: "x", file }] });
    needs.secrets.set("s4", secretOf("s4", "x", "y"));
    for (const spec of [at("s3", { name: "x" }), at("s4", { name: "../x" }), at("s4", { name: "x", uid: "joe" })]) {
      await assert.rejects(refused(spec), TaskSpecInvalid);
    }
  });

  test("limits, ulimits, sysctls, capabilities, privileges and the rest of the host's side are set", async () => {
    const controller = make(
      sh(
        [
          "ulimit -n",
          "cat /proc/sys/net/ipv4/ip_forward",
          "grep NoNewPrivs /proc/self/status | tr -d '\\t'",
          "grep -q 0000000000000400 /proc/self/status && echo bind-only",
          "cat /proc/self/oom_score_adj",
          "grep -c bee.example /etc/hosts",
          "cat /etc/resolv.conf",
          "touch /new 2>/dev/null || echo read-only",
          "cat /proc/1/comm",
        ].join("; "),
        {
          ulimits: [{ name: "nofile", soft: 100, hard: 200 }],
          sysctls: { "net.ipv4.ip_forward": "1" },
          capabilityDrop: ["ALL"],
          capabilityAdd: ["CAP_NET_BIND_SERVICE"],
          privileges: { noNewPrivileges: true, seccomp: { mode: "unconfined" } },
          oomScoreAdj: 500,
          hosts: ["10.1.2.3 bee.example bee"],
          dnsConfig: { nameservers: ["10.9.9.9"], search: ["example"], options: ["ndots:2"] },
          readOnly: true,
          init: true,
        },
      ),
      { spec: { resources: { limits: { memoryBytes: 64 << 20, nanoCpus: 500_000_000, pids: 50 }, swapBytes: 0 } } },
    );
    await controller.prepare(never, quiet);
    const { record } = world.worker.containers.get(controller.containerStatus()?.containerId ?? "");
    const { Memory, MemorySwap, NanoCpus, PidsLimit } = record.hostConfig;
    assert.deepEqual([Memory, MemorySwap, NanoCpus, PidsLimit], [64 << 20, 64 << 20, 500_000_000, 50]);
    await controller.start(never, quiet);
    await controller.wait(never);
    assert.deepEqual((await output(controller)).trimEnd().split("\n"), [
      "100",
      "1",
      "NoNewPrivs:1",
      "bind-only",
      "500",
      "1",
      "search example",
      "nameserver 10.9.9.9",
      "options ndots:2",
      "read-only",
      "docker-init",
    ]);
  });

  test("volumes and tmpfs are mounted; other kinds are refused in words", async () => {
    const mounts: skep.objects.Mount.$Properties[] = [
      { type: "volume", source: "data-{{.Task.Slot}}", target: "/data", volumeOptions: { labels: { a: "b" } } },
      { type: "tmpfs", target: "/scratch", tmpfsOptions: { sizeBytes: 1 << 20, mode: 0o700 } },
    ];
    const text = await run(
      sh("echo kept > /data/file; stat -c %a /scratch; df -k /scratch | tail -1 | awk '{print $2}'", { mounts }),
    );
    assert.equal(text, "700\n1024\n");
    assert.equal(await run(sh("cat /data/file", { mounts: mounts.slice(0, 1) })), "kept\n");
    for (const type of ["image", "cluster", "npipe"]) {
      await assert.rejects(refused(sh("true", { mounts: [{ type, source: "x", target: "/x" }] })), (error) => {
        assert.ok(error instanceof TaskSpecInvalid);
        assert.match(error.message, new RegExp(`mounts of type "${type}"`));
        return true;
      });
    }
  });

  test("generic resources arrive as DOCKER_RESOURCE_ variables", async () => {
    const assignedGenericResources = [
      { namedResourceSpec: { kind: "gpu", value: "uuid1" } },
      { namedResourceSpec: { kind: "gpu", value: "uuid2" } },
      { discreteResourceSpec: { kind: "ssd", value: 3 } },
    ];
    const text = await run(sh("env | grep DOCKER_RESOURCE | sort"), { assignedGenericResources });
    assert.equal(text, "DOCKER_RESOURCE_GPU=uuid1,uuid2\nDOCKER_RESOURCE_SSD=3\n");
  });

  test("host and none are built, published ports alone need nothing, any other network needs a node that builds networks", async () => {
    needs.networks.set("h", networkOf("h", "host", "host"));
    needs.networks.set("i", networkOf("i", "ingress", "overlay", true));
    needs.networks.set("o", networkOf("o", "front", "overlay"));
    const links = "ls /sys/class/net | wc -l";
    assert.equal(await run(sh(links)), "1\n");
    assert.equal(await run(sh(links), { spec: { networks: [{ target: "i" }] } }), "1\n");
    assert.notEqual(await run(sh(links), { spec: { networks: [{ target: "h" }] } }), "");
    const reasons: skep.objects.Reason.$Properties[] = [];
    const controller = make(sh("true"), { spec: { networks: [{ target: "o" }] } });
    await assert.rejects(
      controller.prepare(never, (reason) => reasons.push(reason)),
      (error) => error instanceof NetworkUnavailable && error.code === "NETWORK_UNAVAILABLE",
    );
    assert.equal(reasons[0]?.networkNotReady?.networkId, "o");
  });

  test("log drivers: json-file, local and none; another is refused", async () => {
    const more = (name: string): skep.objects.Task.$Properties => ({ spec: { logDriver: { name, options: {} } } });
    assert.equal(await run(sh("echo x"), more("local")), "x\n");
    const silent = make(sh("echo x"), more("none"));
    await silent.prepare(never, quiet);
    await silent.start(never, quiet);
    await silent.wait(never);
    await assert.rejects(output(silent), /does not support reading/);
    await assert.rejects(refused(sh("true"), more("syslog")), TaskSpecInvalid);
  });

  test("a task that ends before it was healthy fails the start with TASK_EXITED_EARLY", async () => {
    const controller = make(
      sh("sleep 0.1; exit 4", { healthCheck: { test: ["CMD", "false"], interval: { seconds: 5 }, retries: 9 } }),
    );
    await controller.prepare(never, quiet);
    await assert.rejects(
      controller.start(never, quiet),
      (error) => error instanceof TaskExitedEarly && error.exitCode === 4,
    );
  });

  test("a container that somebody removed is TASK_CONTAINER_GONE", async () => {
    const controller = make(sh("sleep 60"));
    await controller.prepare(never, quiet);
    await controller.start(never, quiet);
    const ended = controller.wait(never);
    await world.worker.containers.get(controller.containerStatus()?.containerId ?? "").remove({ force: true });
    assert.equal((await ended).exitCode, 137);
    await controller.shutdown(never);
    await assert.rejects(controller.start(never, quiet), TaskContainerGone);
    await assert.rejects(controller.wait(never), TaskContainerGone);
  });

  test("a task that was running when the machine died has ended, and its secrets can be written again", async () => {
    needs.secrets.set("s1", secretOf("s1", "password", "hunter2"));
    const spec = sh("cat /run/secrets/pw; echo; sleep 60", {
      secrets: [{ secretId: "s1", secretName: "password", file: { name: "pw", mode: 0o444 } }],
      stopGracePeriod: { nanos: 200e6 },
    });
    const task = testTask(spec);
    await world.executor.controller(task, needs, facts).prepare(never, quiet);
    // As after a reboot: what lay in memory is gone, the container is not.
    const controller = world.executor.controller(task, needs, facts);
    await world.executor.forget("0".repeat(25));
    for (const name of readdirSync(join(world.secretsDirectory, task.id))) {
      writeFileSync(join(world.secretsDirectory, task.id, name), "");
    }
    await world.dropSecrets(task.id);
    await controller.start(never, quiet);
    // Its shell heeds no signal, and the grace period may be over before it has read.
    for await (const line of controller.logs({ stdout: true, stderr: true, follow: true }, never)) {
      assert.equal(Buffer.from(line.text).toString("utf8"), "hunter2\n");
      break;
    }
    await controller.shutdown(never);
  });

  test("no place in memory means no executor", async () => {
    const file = join(world.folder, "file");
    writeFileSync(file, "");
    await assert.rejects(
      ContainerExecutor.open({
        containers: world.worker.containers,
        images: world.images,
        secretsDirectory: join(file, "secrets"),
        labels: () => ({}),
        genericResources: [],
        engineVersion: "0.1.0",
        preferOfflineImage: false,
        clock: realClock,
        logger: silentLogger,
      }),
      (error) => error instanceof SecretsStoreFailed && error.code === "SECRETS_STORE_FAILED",
    );
  });
});
