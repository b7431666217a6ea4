/**
 * A service with a published port and an overlay on three hosts, and a client that is no part of the cluster: every way in,
 * and what is lost when the service is updated, a host is drained, a daemon is killed: nothing. SKEP_FULL=1: ten replicas and
 * 500 requests a second each way.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, test, type TestContext } from "node:test";
import { promisify } from "node:util";

import type { Host, Outsider } from "../../deploy/quickstart/hosts.ts";
import { untilEveryWayIsIn, untilNamesAreKnown, wrongPairs, type Pairs } from "./every-pair.ts";
import { namespaceOf, NetworkRig } from "./network-rig.ts";
import { healthcheck, Held, Load, whileAsked } from "./web.ts";
import { ask, hindrance, type TaskShape, type World } from "./world.ts";

const execute = promisify(execFile);

const isFull = process.env["SKEP_FULL"] === "1";
const replicas = isFull ? 10 : 4;
const perSecond = isFull ? 500 : 150;
/** For what takes a moment on a quiet machine. */
const slow = 120_000;
const published = 8080;
/**
 * A node that is silent for three of them is taken for lost, and then UDP is led away from its tasks. A daemon that begins
 * anew on a machine without a free core may take a quarter of a minute for it.
 */
const heartbeatSeconds = 20;

describe("a published service on three hosts", { skip: hindrance, timeout: 600_000 }, () => {
  let rig: NetworkRig;
  let world: World;
  let manager: Host;
  let client: Outsider;
  let probe = "";
  let networkId = "";
  let serviceId = "";
  let vip = "";

  const namespaceOfTask = (task: TaskShape): string => `/proc/${task.Status.ContainerStatus?.PID}/ns/net`;

  before(async () => {
    rig = await NetworkRig.open("skepmesh", 1, 2, heartbeatSeconds);
    ({ world, manager, client, probe } = rig);
    networkId = await rig.network("front");
    await world.create(manager, "client", 1, spec());
    serviceId = await world.create(manager, "web", replicas, {
      ...spec(),
      Mode: { Replicated: { Replicas: replicas } },
      EndpointSpec: {
        Ports: ["tcp", "udp"].map((Protocol) => ({ Protocol, TargetPort: 80, PublishedPort: published })),
      },
    });
    await running("client", 1);
    await running("web", replicas);
    const found = await ask<{ Endpoint: { VirtualIPs: { NetworkID: string; Addr: string }[] } }>(
      manager,
      "GET",
      `/services/${serviceId}`,
    );
    const addresses = found.body.Endpoint.VirtualIPs;
    vip = addresses.find(({ NetworkID }) => NetworkID === networkId)?.Addr.split("/")[0] ?? "";
    assert.notEqual(vip, "", JSON.stringify(addresses));
  });
  after(() => rig.close());

  const spec = (): Record<string, unknown> => ({
    TaskTemplate: {
      ContainerSpec: {
        Image: "web:1",
        // A task ends with its last connection, however late its client is: only then it is the network that loses one.
        StopGracePeriod: 60_000_000_000,
        Hostname: "{{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}",
        Healthcheck: healthcheck,
      },
      RestartPolicy: { Condition: "any", Delay: 100_000_000 },
      Networks: [{ Target: networkId }],
    },
  });

  async function running(service: string, count: number): Promise<readonly TaskShape[]> {
    let found: readonly TaskShape[] = [];
    await world.until(`${count} tasks of ${service}`, 60_000, async () => {
      found = await world.running(manager, service);
      return found.length === count;
    });
    return found;
  }

  const containerOfClient = async (): Promise<string> => {
    const [task] = (await running("client", 1)) as [TaskShape];
    return namespaceOfTask(task);
  };

  /** Through the mesh from outside by every host, and through the service's address from a container, at the same time. */
  async function underLoad(context: TestContext, act: () => Promise<void>): Promise<void> {
    const seconds = 150;
    const entries = world.hosts.map(({ address }) => address);
    const loads = {
      mesh: new Load(namespaceOf(client), entries, published, perSecond, seconds),
      vip: new Load(await containerOfClient(), [vip], 80, perSecond, seconds),
    };
    for (const [name, outcome] of await whileAsked(loads, act)) {
      const { failures, by, asked, answered, ...more } = outcome;
      context.diagnostic(JSON.stringify({ name, asked, answered, ...more, tasks: Object.keys(by).length }));
      assert.deepEqual(failures, [], `${name}: ${answered} of ${asked}`);
      assert.equal(answered, asked);
      // As many as were promised, for as long as the client was not itself kept from asking.
      const wanted = (more.seconds - more.lateMs / 1000) * perSecond;
      assert.ok(asked > 20 && asked > 0.8 * wanted, `${name}: ${asked} requests are no load, ${wanted} would be`);
      assert.ok(Object.keys(by).length > 1, `${name}: one task answers all: ${JSON.stringify(by)}`);
    }
  }

  test("of container, host and client every pair meets, by every way, and is seen as itself", async () => {
    const names = rig.hosts.map((_, at) => `s${at + 1}`);
    await Promise.all(
      rig.hosts.map((on, at) => {
        const ports = ["tcp", "udp"].map((Protocol) => ({ Protocol, TargetPort: 80, PublishedPort: 8101 + at }));
        return world.create(manager, `s${at + 1}`, 1, rig.spec({ networks: [networkId], on, ports }));
      }),
    );
    const pairs: Pairs = {
      rig,
      networkId,
      networkName: "front",
      everywhere: await Promise.all(names.map((name) => rig.placed(name))),
      portOf: ({ name }) => 8100 + Number(name.slice(1)),
    };
    await untilEveryWayIsIn(pairs);
    const { asked, wrong } = await wrongPairs(pairs);
    assert.deepEqual(wrong, []);
    assert.equal(asked, 2 * (9 + 3 * (9 + 3) + 3 * (9 + 6) + 4 * 6));
    await untilNamesAreKnown(pairs);
    for (const name of names) assert.equal((await ask(manager, "DELETE", `/services/${name}`)).status, 200);
  });

  for (const order of ["stop-first", "start-first"]) {
    test(`a rolling update, ${order}, two at a time, loses no request: neither from outside nor in the overlay`, async (context) => {
      const before = new Set((await running("web", replicas)).map(({ ID }) => ID));
      await underLoad(context, async () => {
        await world.update(manager, serviceId, (now) => {
          const template = now["TaskTemplate"] as { ForceUpdate?: number };
          template.ForceUpdate = (template.ForceUpdate ?? 0) + 1;
          now["UpdateConfig"] = { Parallelism: 2, Order: order, Monitor: 200_000_000, FailureAction: "pause" };
        });
        await world.until("the update's end", slow, async () => {
          const { UpdateStatus } = await world.service(manager, serviceId);
          const tasks = await world.tasks(manager, "web");
          // Also the old ones have really ended: that is when requests could be lost.
          const alive = tasks.filter(({ Status }) => Status.State === "running").map(({ ID }) => ID);
          return (
            UpdateStatus?.State === "completed" && alive.length === replicas && !alive.some((id) => before.has(id))
          );
        });
      });
    });
  }

  test("a host that is drained loses no request, and works again after", async (context) => {
    const [task] = (await running("client", 1)) as [TaskShape];
    const ids = await Promise.all(world.workers.map((host) => world.nodeIdOf(host)));
    // The asking container must not be among those that move.
    const id = ids.find((one) => one !== task.NodeID) ?? "";
    const setAvailability = (availability: string): Promise<number> =>
      world.until(availability, slow, async () => {
        const { body } = await ask<{ Version: { Index: number }; Spec: object }>(manager, "GET", `/nodes/${id}`);
        const wanted = { ...body.Spec, Availability: availability };
        const path = `/nodes/${id}/update?version=${body.Version.Index}`;
        return (await ask(manager, "POST", path, wanted)).status === 200;
      });
    await underLoad(context, async () => {
      await setAvailability("drain");
      await world.until("the tasks elsewhere", slow, async () => {
        const all = await world.tasks(manager, "web");
        const there = all.filter(({ NodeID, Status }) => NodeID === id && Status.State === "running");
        return there.length === 0 && (await world.running(manager, "web")).length === replicas;
      });
    });
    await setAvailability("active");
  });

  test("a daemon that is killed and started again under traffic breaks no connection", async (context) => {
    const inContainer = await containerOfClient();
    const held: Held[] = [];
    try {
      for (const udp of [[], ["-u"]]) {
        for (let time = 0; time < 3; time += 1) {
          for (const { address } of world.hosts) {
            held.push(new Held(namespaceOf(client), probe, [address, String(published), ...udp]));
          }
          held.push(new Held(inContainer, probe, [vip, "80", ...udp]));
        }
      }
      const names = await Promise.all(held.map((one) => one.ask()));
      for (const name of names) assert.match(name, /^web-/);
      const same = async (when: string): Promise<void> => {
        assert.deepEqual(await Promise.all(held.map((one) => one.ask())), names, when);
      };
      await underLoad(context, async () => {
        for (const host of world.hosts) {
          await host.kill();
          await same(`${host.name} has no daemon`);
          host.start();
          await host.answers();
          await same(`${host.name} has its daemon again`);
        }
      });
    } finally {
      for (const one of held) await one.end();
    }
  });

  test("VXLAN of somebody who is no member reaches no container", async () => {
    const [task] = (await running("web", replicas)) as [TaskShape & { NetworksAttachments: Attachment[] }];
    const attachment = task.NetworksAttachments.find(({ Network }) => Network.ID === networkId) as Attachment;
    const address = attachment.Addresses[0]?.split("/")[0] ?? "";
    const [member] = (await running("client", 1)) as [typeof task];
    const pretended = member.NetworksAttachments[0]?.Addresses[0]?.split("/")[0] ?? "";
    const { body } = await ask<{ Options: Record<string, string> }>(manager, "GET", `/networks/${networkId}`);
    const vni = body.Options["com.docker.network.driver.overlay.vxlanid_list"] ?? "";
    assert.match(vni, /^\d+$/);
    const heard: string[] = [];
    const words = [`--net=${namespaceOfTask(task)}`, "--", probe, "receive", "7101"];
    const receiver = execFile("nsenter", words);
    const arrived = new Promise<void>((resolve) => {
      receiver.stdout?.on("data", (chunk: Buffer | string) => {
        heard.push(...String(chunk).trim().split("\n"));
        if (String(chunk).includes("member")) resolve();
      });
    });
    try {
      await world.until("the receiver", slow, () => heard.includes("ready"));
      const from = namespaceOf(client);
      const inside = (...command: string[]): Promise<unknown> =>
        execute("nsenter", [`--net=${from}`, "--", ...command]);
      for (const [at, { address: target }] of world.hosts.entries()) {
        // It pretends to be the other container and its host. Who may send is told by the outer address.
        await inside(
          ..."ip link add vxe mtu 1400 address 02:fe:00:00:00:01 type vxlan dstport 4789 nolearning id".split(" "),
          vni,
        );
        await inside("ip", "link", "set", "vxe", "up");
        await inside("ip", "address", "add", `${pretended}/32`, "dev", "vxe");
        for (const number of [1, 2, 3]) {
          const mac = `02:fe:00:00:00:0${number}`;
          await inside("bridge", "fdb", "replace", mac, "dev", "vxe", "self", "permanent", "dst", target);
          await inside("ip", "neigh", "replace", address, "lladdr", mac, "dev", "vxe", "nud", "permanent");
          await inside("ip", "route", "replace", `${address}/32`, "dev", "vxe", "src", pretended);
          await inside(probe, "send", address, "7101", `spoofed by host ${at + 1}`, "-s", pretended);
        }
        await inside("ip", "link", "del", "vxe");
      }
      // Someone of the network arrives, and after all that was sent before.
      await execute("nsenter", [
        `--net=${await containerOfClient()}`,
        "--",
        probe,
        "send",
        address,
        "7101",
        "a member",
      ]);
      await arrived;
      assert.deepEqual(heard, ["ready", "a member"]);
    } finally {
      receiver.kill("SIGKILL");
    }
  });
});

interface Attachment {
  readonly Network: { readonly ID: string };
  readonly Addresses: readonly string[];
}
