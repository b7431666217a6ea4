/** Services on an overlay, over two hosts: who asks whom by which name, and what a crash or an update does to it. */
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { imageArchive } from "../../deploy/quickstart/image.ts";
import { ask, hindrance, World, type TaskShape } from "./world.ts";

const execute = promisify(execFile);

/** Who must answer may take long on a busy machine. */
const patient = ["-w", "15000"];
const slow = 60_000;

const webScript = `#!/bin/sh\nexec /bin/net-probe serve "$(hostname)" 80\n`;

interface NetworkedTask extends TaskShape {
  readonly NetworksAttachments?: readonly { readonly Addresses: readonly string[] }[];
}

interface Inspected {
  readonly NetworkSettings: {
    readonly Networks: Readonly<
      Record<string, { IPAddress: string; IPPrefixLen: number; MacAddress: string; NetworkID: string } | undefined>
    >;
  };
}

describe("services on an overlay", { skip: hindrance, timeout: 400_000 }, () => {
  let world: World;
  let manager: Host;
  let worker: Host;
  let networkId = "";
  /** Tells its name and who asks; the shell's own wget needs libraries that the image has not. */
  let probe = "";

  before(async () => {
    probe = join(mkdtempSync(join(tmpdir(), "skplane-")), "net-probe");
    execFileSync("cc", ["-O1", "-static", "-o", probe, join(import.meta.dirname, "../support/net-probe.c")]);
    world = await World.open("skplane", 1, 1);
    [manager, worker] = [world.managers[0] as Host, world.workers[0] as Host];
    await world.form();
    const image = await imageArchive({
      name: "web:1",
      command: ["/bin/web"],
      labels: {},
      files: { "/bin/web": webScript, "/bin/net-probe": readFileSync(probe) },
      platform: process.arch === "arm64" ? "arm64" : "amd64",
    });
    for (const host of world.hosts) await ask(host, "POST", "/images/load?quiet=1", image);
    const { status, body } = await ask<{ Id: string }>(manager, "POST", "/networks/create", {
      Name: "front",
      Driver: "overlay",
    });
    assert.equal(status, 201, JSON.stringify(body));
    networkId = body.Id;
  });
  after(async () => {
    await world.close();
    rmSync(dirname(probe), { recursive: true, force: true });
  });

  const spec = (image: string, more: object = {}): Record<string, unknown> => ({
    TaskTemplate: {
      // A task ends with its last connection, however late its client is.
      ContainerSpec: { Image: image, StopGracePeriod: 10_000_000_000, Hostname: "{{.Service.Name}}-{{.Task.Slot}}" },
      RestartPolicy: { Condition: "any", Delay: 100_000_000 },
      Networks: [{ Target: networkId }],
      Placement: { MaxReplicas: 1, ...more },
    },
  });

  async function hostOf({ NodeID }: TaskShape): Promise<Host> {
    for (const host of world.hosts) if ((await world.nodeIdOf(host)) === NodeID) return host;
    return assert.fail(`no host is node ${NodeID}`);
  }

  /** A command inside a task's container. */
  async function inside(task: TaskShape, ...command: readonly string[]): Promise<string> {
    const pid = String(task.Status.ContainerStatus?.PID);
    const { stdout } = await execute("nsenter", ["-t", pid, "-n", "-m", "--", ...command], { timeout: 60_000 });
    return stdout;
  }

  /** @returns undefined while the name is not known, or names are not served */
  async function addressOf(task: TaskShape, name: string): Promise<string | undefined> {
    const said = await inside(task, "/bin/busybox", "nslookup", name).catch(() => "");
    return /^Address(?: \d)?:\s+(10\.[\d.]+)\s*$/m.exec(said)?.[1];
  }

  /** Who answers, and which address it has seen; fails when nobody does. */
  async function get(task: TaskShape, address: string): Promise<{ readonly name: string; readonly seen: string }> {
    const words = ["/bin/net-probe", "get", address, "80", ...patient];
    const said = await inside(task, ...words).catch((error: unknown) => String(error));
    const [, name = "", seen = ""] = /^(\S+) peer=([\d.]+):/.exec(said) ?? [];
    assert.notEqual(name, "", said);
    return { name, seen };
  }

  async function running(service: string, count: number): Promise<readonly NetworkedTask[]> {
    let found: readonly NetworkedTask[] = [];
    await world.until(`${count} tasks of ${service}`, slow, async () => {
      found = await world.running(manager, service);
      return found.length === count;
    });
    return found;
  }

  test("tasks reach each other by the service's name, on both hosts, and are seen by their own addresses", async () => {
    await world.create(manager, "web", 2, spec("web:1"));
    await world.create(manager, "client", 2, spec("web:1"));
    await running("web", 2);
    for (const client of await running("client", 2)) {
      const own = client.NetworksAttachments?.[0]?.Addresses[0]?.split("/")[0] ?? "";
      let vip = "";
      await world.until("the name", slow, async () => (vip = (await addressOf(client, "web")) ?? "") !== "");
      const met = new Set<string>();
      await world.until("an answer of both tasks", slow, async () => {
        const { name, seen } = await get(client, vip);
        assert.equal(seen, own);
        return met.add(name).size === 2;
      });
      assert.deepEqual(met, new Set(["web-1", "web-2"]));
    }
  });

  test("a container is shown with its networks, and knows its own name", async () => {
    for (const task of await running("web", 2)) {
      const own = task.NetworksAttachments?.[0]?.Addresses[0]?.split("/")[0] ?? "";
      const host = await hostOf(task);
      const id = (task.Status.ContainerStatus as { ContainerID?: string } | undefined)?.ContainerID ?? "";
      const { body } = await ask<Inspected>(host, "GET", `/containers/${id}/json`);
      const shown = body.NetworkSettings.Networks["front"];
      assert.deepEqual([shown?.IPAddress, shown?.IPPrefixLen, shown?.NetworkID], [own, 24, networkId]);
      assert.match(shown?.MacAddress ?? "", /^02:42:0a:/);
      assert.match(
        await inside(task, "/bin/cat", "/etc/hosts"),
        new RegExp(`^${own}\\t(?:.* )?web-${task.Slot}$`, "m"),
      );
    }
  });

  test("a daemon that is killed interrupts nobody, and what changes meanwhile is known when it is back", async () => {
    const clients = await running("client", 2);
    const ids = await Promise.all(clients.map(async (one) => (await hostOf(one)) === worker));
    const client = clients[ids.indexOf(true)] as TaskShape;
    let vip = "";
    await world.until("the name", slow, async () => (vip = (await addressOf(client, "web")) ?? "") !== "");
    await worker.kill();
    for (let time = 0; time < 10; time += 1) assert.match((await get(client, vip)).name, /^web-[12]$/);
    worker.start();
    await worker.answers();
    // Its node may have been taken for lost meanwhile; then it ends, and there are new tasks.
    const answered = get(client, vip).then(({ name }) => assert.match(name, /^web-[12]$/));
    await answered.catch(async (error: unknown) => {
      const wanted = await world.running(manager, "client");
      assert.ok(!wanted.some(({ ID }) => ID === client.ID), String(error));
    });
    await world.until("names of all", slow, async () => {
      const found = await world.running(manager, "client");
      const known = await Promise.all(found.map((one) => addressOf(one, "web")));
      return known.length === 2 && known.every((address) => address === vip);
    });
  });

  test("a rolling update drops no request", async () => {
    const [client] = (await running("client", 2)) as [TaskShape];
    let vip = "";
    await world.until("the name", slow, async () => (vip = (await addressOf(client, "web")) ?? "") !== "");
    const over = new AbortController();
    const failures: string[] = [];
    const asking = (async () => {
      let count = 0;
      // However fast the update is, and however slow this.
      while (!over.signal.aborted || count + failures.length <= 5) {
        await get(client, vip).then(
          () => (count += 1),
          (error: unknown) => failures.push(String(error)),
        );
      }
    })();
    const id = (await ask<{ ID: string }>(manager, "GET", "/services/web")).body.ID;
    await world.update(manager, id, (now) => {
      const template = now["TaskTemplate"] as { ForceUpdate?: number; Placement: { MaxReplicas?: number } };
      template.ForceUpdate = 1;
      delete template.Placement.MaxReplicas;
      now["UpdateConfig"] = { Parallelism: 1, Order: "start-first", Monitor: 500_000_000 };
    });
    await world.until(
      "the update's end",
      2 * slow,
      async () => (await world.service(manager, id)).UpdateStatus?.State === "completed",
    );
    over.abort();
    await asking;
    assert.deepEqual(failures, []);
  });

  test("a service without networks has a way out, and its published port answers on every host", async () => {
    const { TaskTemplate } = spec("web:1") as { TaskTemplate: Record<string, unknown> };
    const { Networks: _none, ...plain } = TaskTemplate;
    const Ports = [{ Protocol: "tcp", TargetPort: 80, PublishedPort: 8080 }];
    await world.create(manager, "open", 1, { TaskTemplate: plain, EndpointSpec: { Ports } });
    const [task] = (await running("open", 1)) as [NetworkedTask];
    const home = await hostOf(task);
    const other = home === manager ? worker : manager;
    const from = (host: Host, address: string): Promise<string> =>
      execute("nsenter", [`--net=/run/netns/${host.namespace}`, "--", probe, "get", address, "8080", ...patient], {
        timeout: 60_000,
      }).then(({ stdout }) => stdout, String);
    await world.until("the port on both hosts", slow, async () => {
      const answers = await Promise.all([from(home, other.address), from(other, home.address)]);
      return answers.every((answer) => answer.startsWith("open-1 "));
    });
    // Whoever asks from outside is seen as who it is.
    assert.match(await from(other, home.address), new RegExp(`^open-1 peer=${other.address.replaceAll(".", "\\.")}:`));
    // The way out: through the other host's own published port, which it meets by that host's address.
    assert.match(await inside(task, "/bin/net-probe", "get", other.address, "8080", ...patient), /^open-1 /);
    assert.equal((await ask(manager, "DELETE", "/services/open")).status, 200);
  });

  test("with its last task of a network, a host loses the network, and nothing of it is left", async () => {
    for (const name of ["web", "client"]) assert.equal((await ask(manager, "DELETE", `/services/${name}`)).status, 200);
    await world.until("no namespaces", slow, async () => {
      const lists = await Promise.all(world.hosts.map((host) => execute("ls", [`${host.execRoot}/netns`])));
      return lists.every(({ stdout }) => stdout.trim() === "");
    });
    assert.equal((await ask(manager, "DELETE", `/networks/${networkId}`)).status, 204);
  });
});
