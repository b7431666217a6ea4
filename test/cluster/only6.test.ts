/**
 * Hosts that have addresses of IPv6 alone: managers, nodes and the frames between them go by it. What runs in containers has
 * IPv4 as everywhere, and published ports are reached by IPv6, from outside and from the hosts themselves.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { untilEveryWayIsIn, untilNamesAreKnown, wrongPairs, type Pairs } from "./every-pair.ts";
import { namespaceOf, NetworkRig } from "./network-rig.ts";
import { Load, whileAsked } from "./web.ts";
import { ask, hindrance, type World } from "./world.ts";

interface Node {
  readonly Description: { readonly Hostname: string };
  readonly Spec: { readonly Role: string };
  readonly Status: { readonly State: string; readonly Addr: string };
}

interface Examination {
  readonly peers: readonly {
    readonly addr: string;
    readonly small: string;
    readonly full: string;
    readonly full6?: string;
  }[];
  readonly findings: readonly { readonly severity: string }[];
}

const replicas = 3;
const published = 8080;
const perSecond = 100;
/** For what takes a moment on a quiet machine. */
const slow = 120_000;

describe("a swarm of hosts without IPv4", { skip: hindrance, timeout: 600_000 }, () => {
  let rig: NetworkRig;
  let manager: Host;
  let networkId = "";

  before(async () => {
    rig = await NetworkRig.open("skonly6", 2, 1, 5, { form, addresses: { subnet: "", only6: "fd79::" } });
    ({ manager } = rig);
    networkId = await rig.network("front");
  });
  after(() => rig.close());

  /** As users do who say nothing of addresses: each host has one. */
  async function form({ managers, hosts }: World): Promise<void> {
    const [first, ...others] = hosts as [Host, ...Host[]];
    const ListenAddr = "0.0.0.0:2377";
    const Spec = { Dispatcher: { HeartbeatPeriod: 5_000_000_000 } };
    const made = await ask(first, "POST", "/swarm/init", { ListenAddr, Spec });
    assert.equal(made.status, 200, JSON.stringify(made.body));
    const { body } = await ask<{ JoinTokens: { Worker: string; Manager: string } }>(first, "GET", "/swarm");
    for (const host of others) {
      const JoinToken = managers.includes(host) ? body.JoinTokens.Manager : body.JoinTokens.Worker;
      const wish = { ListenAddr, RemoteAddrs: [first.endpoint], JoinToken };
      const joined = await ask(host, "POST", "/swarm/join", wish);
      assert.equal(joined.status, 200, JSON.stringify(joined.body));
    }
  }

  test("nodes are told with their addresses of IPv6, and frames between them go by it", async () => {
    await rig.world.until("all nodes", slow, async () => {
      const { body } = await ask<readonly Node[]>(manager, "GET", "/nodes");
      return body.length === 3 && body.every(({ Status }) => Status.State === "ready");
    });
    const { body } = await ask<readonly Node[]>(manager, "GET", "/nodes");
    const told = body.map(({ Description, Spec, Status }) => `${Description.Hostname} ${Spec.Role} ${Status.Addr}`);
    assert.deepEqual(told.toSorted(), ["host1 manager fd79::11", "host2 manager fd79::12", "host3 worker fd79::13"]);
    for (const host of rig.hosts) {
      const addresses = await rig.run(namespaceOf(host), "ip", "-4", "-o", "address");
      assert.match(addresses, /^\d+: lo\s+inet 127\.0\.0\.1\//);
      assert.doesNotMatch(addresses, /eth0/);
    }
  });

  test("of container, host and client every pair meets, by every way, and is seen as itself", async () => {
    const names = rig.hosts.map((_, at) => `s${at + 1}`);
    await Promise.all(
      rig.hosts.map((on, at) => {
        const ports = ["tcp", "udp"].map((Protocol) => ({ Protocol, TargetPort: 80, PublishedPort: 8101 + at }));
        return rig.world.create(manager, `s${at + 1}`, 1, rig.spec({ networks: [networkId], on, ports }));
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
    assert.equal(asked, 2 * (9 + 3 * (9 + 6) + 3 * (9 + 6) + 4 * 6));
    await untilNamesAreKnown(pairs);
    for (const { namespace, address } of rig.hosts) {
      const shown = await rig.run(namespaceOf({ namespace }), "ip", "-d", "link", "show", "skepmesh");
      assert.match(shown, new RegExp(`mtu 1430 [^]* local ${address} `));
    }
  });

  test("the doctor of no host has anything to tell of the network between them", async () => {
    for (const host of rig.hosts) {
      const others = rig.hosts.filter((other) => other !== host);
      const wanted = others.map(({ address }) => `${address} answers answers answers`);
      // It waits two seconds for an answer, and a busy machine may be late with one.
      await rig.world.until(`nothing to tell of ${host.name}`, slow, async () => {
        const { status, body } = await ask<Examination>(host, "POST", "/skep/v1/network/doctor");
        assert.equal(status, 200, JSON.stringify(body));
        const seen = body.peers.map(({ addr, small, full, full6 = "" }) => `${addr} ${small} ${full} ${full6}`);
        const hasErrors = body.findings.some(({ severity }) => severity === "error");
        return !hasErrors && seen.toSorted().join() === wanted.join();
      });
    }
  });

  test("a rolling update of a published service loses no request, from outside and in the overlay", async (context) => {
    await rig.world.create(manager, "client", 1, rig.spec({ networks: [networkId] }));
    const { TaskTemplate } = rig.spec({ networks: [networkId] }) as { TaskTemplate: { ContainerSpec: object } };
    // A task ends with its last connection, however late its client is.
    const ending = { StopGracePeriod: 60_000_000_000, Hostname: "{{.Service.Name}}-{{.Task.Slot}}" };
    const ContainerSpec = { ...TaskTemplate.ContainerSpec, ...ending };
    const id = await rig.world.create(manager, "web", replicas, {
      TaskTemplate: { ...TaskTemplate, ContainerSpec },
      EndpointSpec: { Ports: [{ Protocol: "tcp", TargetPort: 80, PublishedPort: published }] },
    });
    const client = await rig.placed("client");
    const before = new Set((await rig.running("web", replicas)).map(({ ID }) => ID));
    const vip = (await rig.vips("web")).get(networkId) ?? "";
    assert.notEqual(vip, "");
    const entries = rig.hosts.map(({ address }) => address);
    const loads = {
      mesh: new Load(namespaceOf(rig.client), entries, published, perSecond, 150),
      vip: new Load(client.namespace, [vip], 80, perSecond, 150),
    };
    const outcomes = await whileAsked(loads, async () => {
      await rig.world.update(manager, id, (now) => {
        (now["TaskTemplate"] as { ForceUpdate?: number }).ForceUpdate = 1;
        now["UpdateConfig"] = { Parallelism: 1, Order: "start-first", Monitor: 200_000_000, FailureAction: "pause" };
      });
      await rig.world.until("the update's end", slow, async () => {
        const { UpdateStatus } = await rig.world.service(manager, id);
        const tasks = await rig.world.tasks(manager, "web");
        const alive = tasks.filter(({ Status }) => Status.State === "running").map(({ ID }) => ID);
        return (
          UpdateStatus?.State === "completed" && alive.length === replicas && !alive.some((one) => before.has(one))
        );
      });
    });
    for (const [name, { failures, asked, answered, by }] of outcomes) {
      context.diagnostic(JSON.stringify({ name, asked, answered, tasks: Object.keys(by).length }));
      assert.deepEqual(failures, [], `${name}: ${answered} of ${asked}`);
      assert.equal(answered, asked);
      assert.ok(asked > 20 && Object.keys(by).length > 1, `${name}: ${asked} requests to ${JSON.stringify(by)}`);
    }
  });
});
