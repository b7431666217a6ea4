/**
 * IPv6 where a network asks for it: networks of one host and overlays over two, built by netplane, seen by programs inside
 * of sandboxes. Every such network has IPv4 as well, of which the other tests tell.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { OverlayNetwork, Sandbox, SandboxRequest, ServiceRecord } from "../../../worker/network/contract.ts";
import { whySkipped } from "../containers/host.ts";
import {
  bridgeWish,
  endpointChange,
  idOf as id,
  NetHosts,
  overlayEndpoint,
  overlayOf,
  overlayService,
  overlayTask,
  overlayWish,
  peerOf,
  published,
  recordsOf,
  type NetHost,
} from "./net-host.ts";
import { eventually, output, type NetWorld } from "./world.ts";

const both = { subnet6: "fd00:b1::/64", gateway6: "fd00:b1::1" };
const blue = overlayOf("blue", 4097, both);
/** The same subnets: another network all the same. */
const red = overlayOf("red", 4098, both);

describe("IPv6", { skip: whySkipped(), timeout: 200_000 }, () => {
  let hosts: NetHosts;
  let world: NetWorld;
  const sandboxes = new Map<string, Sandbox>();
  const networkIds = new Map<string, string>();
  const host = (number: number): NetHost => hosts.host(number);
  const address = (name: string): string => sandboxes.get(name)?.endpoints[0]?.v6?.address ?? "";
  const known = (name: string): string => (sandboxes.has(name) ? id(name) : name);
  const get = (from: string, to: string, port = 80, ...more: readonly string[]): string =>
    world.get(known(from), to, port, ...more).trim();
  /** Where nobody is to answer. */
  const briefly = (from: string, to: string, port = 80, ...more: readonly string[]): string =>
    world.getBriefly(known(from), to, port, ...more);
  const seen = (name: string, source: string): RegExp => new RegExp(`^${known(name)} peer=\\[${source}\\]:`);

  const attach = async (
    name: string,
    number: number,
    networks: SandboxRequest["networks"],
    ports: SandboxRequest["ports"] = [],
  ): Promise<void> => {
    sandboxes.set(name, await host(number).attach(id(name), { networks, ports }));
    await world.serve(id(name), 80, "::");
  };
  const onBridge = (name: string, network: string): Promise<void> =>
    attach(name, 1, [bridgeWish(networkIds.get(network) ?? "", network)]);
  const onOverlay = (name: string, number: number, network: OverlayNetwork, last: number): Promise<void> =>
    attach(name, number, [overlayWish(overlayTask(name, network, number, last, ""))]);

  before(async () => {
    hosts = await NetHosts.open("skepv6", 2, (built) => {
      built.ip("h1", "addr add fd99::1/64 dev eth0 nodad");
      built.ip("near", "addr add fd99::100/64 dev eth0 nodad");
    });
    ({ world } = hosts);
    await hosts.replace([], []);
    for (const [name, subnet6, more] of [
      ["six", "fd00:61::/64", {}],
      ["other", "fd00:62::/64", {}],
      ["inner", "fd00:63::/64", { internal: true }],
    ] as const) {
      const made = await host(1).host.networks.create({ name, enableIpv6: true, ipam: [{ subnet: subnet6 }], ...more });
      networkIds.set(name, made.network.id);
    }
    await world.serve("near", 81, "::");
    await world.serve("h1", 8222, "::");
  });
  after(() => hosts.close());

  describe("in networks of one host", () => {
    before(async () => {
      for (const name of ["a1", "a2"]) await onBridge(name, "six");
      await onBridge("b1", "other");
      for (const name of ["i1", "i2"]) await onBridge(name, "inner");
    });

    test("all reach all of their network, and see who asks", () => {
      assert.deepEqual([address("a1"), address("a2"), address("b1")], ["fd00:61::2", "fd00:61::3", "fd00:62::2"]);
      for (const udp of [[], ["-u"]]) {
        for (const [from, to] of [
          ["a1", "a2"],
          ["a2", "a1"],
          ["i1", "i2"],
          ["a1", "a1"],
        ] as const) {
          assert.match(get(from, address(to), 80, ...udp), seen(to, address(from)), `${from} to ${to}`);
        }
        assert.match(get("h1", address("a1"), 80, ...udp), seen("a1", "fd00:61::1"));
      }
    });

    test("nobody reaches another network, nor out of an internal one; the way out is masqueraded", () => {
      world.ip(id("i1"), "-6 route add default via fd00:63::1");
      for (const udp of [[], ["-u"]]) {
        assert.match(briefly("a1", address("b1"), 80, ...udp), /ERR/);
        assert.match(briefly("a1", address("i1"), 80, ...udp), /ERR/);
        assert.match(briefly("i1", address("a1"), 80, ...udp), /ERR/);
        assert.match(briefly("i1", "fd99::100", 81, ...udp), /ERR/);
        assert.match(briefly("i1", "fd00:63::1", 8222, ...udp), /ERR/);
        assert.match(get("a1", "fd99::100", 81, ...udp), seen("near", "fd99::1"));
        assert.match(get("a1", "fd00:61::1", 8222, ...udp), seen("h1", address("a1")));
      }
    });

    test("outsiders do not reach a container by its own address", () => {
      world.ip("near", "-6 route add fd00:61::/64 via fd99::1");
      for (const udp of [[], ["-u"]]) assert.match(briefly("near", address("a1"), 80, ...udp), /ERR/);
      world.ip("near", "-6 route del fd00:61::/64");
    });

    test("a source that is not its own gets a container nowhere, link-local ones included", async () => {
      const receiver = await world.receive(id("a2"), 7100, 6);
      world.ip(id("a1"), "addr add fd00:61::77/128 dev eth0 nodad");
      world.exec(id("a1"), [world.probe, "send", address("a2"), "7100", "spoofed", "-s", "fd00:61::77"]);
      world.exec(id("a1"), [world.probe, "send", address("a2"), "7100", "honest", "-s", address("a1")]);
      await receiver.until("honest");
      await receiver.end();
      assert.deepEqual(receiver.heard, ["honest"]);
      const own = /inet6 (fe80:\S+)\/64/.exec(world.ip("h1", "-6 addr show dev skeplac120002 scope link"))?.[1];
      if (own !== undefined) {
        const tried = `exec 3<>/dev/tcp/${own}%eth0/8222`;
        assert.notEqual(world.attempt(id("a1"), ["timeout", "1", "bash", "-c", `${tried} && echo reached`]), "reached");
      }
    });

    test("a port that is published on all addresses is published on those of IPv6, and the container sees who asks", async () => {
      const networks = [bridgeWish(networkIds.get("six") ?? "", "six")];
      const ports = [
        published(8080),
        published(0),
        published(8081, { hostAddress: "127.0.0.1" }),
        published(8084, { hostAddress: "fd99::1" }),
        published(8085, { hostAddress: "::1" }),
      ];
      const udp = published(8080, { protocol: "udp" });
      // The first of the node's block, as with 127.0.0.1.
      const loopback = "fd73:6b65:7002::6440:401";
      await attach("pub", 1, networks, [...ports, udp]);
      const chosen = sandboxes.get("pub")?.ports ?? [];
      assert.deepEqual(
        chosen.map(({ hostAddress, protocol }) => `${hostAddress} ${protocol}`),
        [" tcp", ":: tcp", " tcp", ":: tcp", "127.0.0.1 tcp", "fd99::1 tcp", "::1 tcp", " udp", ":: udp"],
      );
      assert.equal(chosen[2]?.publishedPort, chosen[3]?.publishedPort);
      for (const more of [[], ["-u"]]) {
        assert.match(get("near", "fd99::1", 8080, ...more), seen("pub", "fd99::100"));
        assert.match(get("h1", "fd99::1", 8080, ...more), seen("pub", "fd99::1"));
        assert.match(get("a1", "fd99::1", 8080, ...more), seen("pub", address("a1")));
        assert.match(get("b1", "fd00:62::1", 8080, ...more), seen("pub", address("b1")));
        assert.match(get("pub", "fd99::1", 8080, ...more), seen("pub", "fd00:61::1"));
        assert.match(get("h1", "::1", 8080, ...more), seen("pub", loopback));
      }
      assert.match(get("near", "fd99::1", chosen[3]?.publishedPort ?? 0), seen("pub", "fd99::100"));
      assert.match(briefly("near", "fd99::1", 8081), /ERR/);
      assert.match(get("near", "fd99::1", 8084), seen("pub", "fd99::100"));
      assert.match(get("b1", "fd00:62::1", 8084), /refused/);
      assert.match(get("h1", "::1", 8085), seen("pub", loopback));
      assert.match(get("near", "fd99::1", 8085), /refused/);
      assert.match(get("h1", "::1", 8086), /refused/);
      assert.match(world.attempt("h1", [world.probe, "serve", "x", "8080", "::"]), /in use/);
      await host(1).networks.sandboxes.release(id("pub"));
      sandboxes.delete("pub");
      assert.match(get("near", "fd99::1", 8080), /refused/);
      const refused = attach(
        "late",
        1,
        [bridgeWish(host(1).host.networks.inspect("bridge").network.id, "bridge")],
        [published(8080, { hostAddress: "::" })],
      );
      await assert.rejects(refused, { code: "LOCAL_NETWORK_INVALID" });
    });

    test("skepd starts again: everything is as it was", async () => {
      // Without what is link-local: that comes by itself, a while after its link.
      const list = "ip -6 -o addr show scope global; ip -6 route | grep -v ^fe80; nft list table ip6 skep";
      const all = (): string => world.exec("h1", ["sh", "-c", list]);
      const before = all();
      await host(1).stop();
      await host(1).start();
      await host(1).plane.replace(recordsOf(1, [1, 2].map(peerOf), [], []));
      await host(1).networks.repair();
      assert.equal(all(), before);
      assert.match(get("a1", address("a2")), seen("a2", address("a1")));
      assert.deepEqual(await host(1).networks.differences(), []);
    });
  });

  describe("in overlays", () => {
    const vip = "fd00:b1::100";
    const tasks = {
      o1: overlayTask("o1", blue, 1, 11),
      o2: overlayTask("o2", blue, 1, 12),
      p1: overlayTask("p1", blue, 2, 21),
      r1: overlayTask("r1", red, 1, 31),
    };
    type Name = keyof typeof tasks;
    const names = Object.keys(tasks) as Name[];
    const record = (name: Name, serving: boolean) => overlayEndpoint(tasks[name], serving);
    const service = (network: OverlayNetwork): ServiceRecord => ({
      ...overlayService("web", network, "10.0.1.100"),
      virtualIp6: `${vip}/64`,
    });
    const publish = (network: OverlayNetwork): Promise<void> =>
      hosts.change({ kind: "service", key: `${network.id}/web`, record: service(network) });
    /** From now on these are healthy, and no others. */
    const serve = (...serving: readonly Name[]): Promise<void> =>
      hosts.change(...names.map((name) => endpointChange(tasks[name], record(name, serving.includes(name)))));
    const hold = (from: string, ...more: readonly string[]) => world.hold(known(from), vip, 80, ...more);

    before(async () => {
      for (const name of names) {
        const { host: number, network } = tasks[name];
        await onOverlay(name, number, network, Number(tasks[name].address.split(".")[3]));
      }
      await serve(...names);
    });

    test("tasks reach each other on one host and over two, and see who asks", () => {
      for (const udp of [[], ["-u"]]) {
        for (const [from, to] of [
          ["o1", "o2"],
          ["o1", "p1"],
          ["p1", "o2"],
        ] as const) {
          assert.match(get(from, address(to), 80, ...udp), seen(to, address(from)), `${from} to ${to}`);
        }
      }
    });

    test("another network is not reached, whoever has the same addresses in it", () => {
      for (const udp of [[], ["-u"]]) {
        assert.match(briefly("o1", address("r1"), 80, ...udp), /ERR/);
        assert.match(briefly("r1", address("o1"), 80, ...udp), /ERR/);
      }
    });

    test("a task does not speak with another's address", async () => {
      const receiver = await world.receive(id("p1"), 7100, 6);
      world.ip(id("o1"), `addr add ${address("o2")}/128 dev eth0 nodad`);
      world.exec(id("o1"), [world.probe, "send", address("p1"), "7100", "spoofed", "-s", address("o2")]);
      world.ip(id("o1"), `addr del ${address("o2")}/128 dev eth0`);
      world.exec(id("o1"), [world.probe, "send", address("p1"), "7100", "honest", "-s", address("o1")]);
      await receiver.until("honest");
      await receiver.end();
      assert.deepEqual(receiver.heard, ["honest"]);
    });

    test("no table of service addresses is there before a service has one", () => {
      world.know("n-4097", `${host(1).folder}/netns/n-4097`);
      assert.match(world.attempt("n-4097", ["nft", "list", "table", "ip6", "skepvip"]), /No such file/);
    });

    test("a service's address leads to a healthy task on any host, or to the asker itself, which sees who asks", async () => {
      await publish(blue);
      for (const target of ["o1", "o2", "p1"] as const) {
        await serve(target);
        for (const udp of [[], ["-u"]]) {
          for (const from of ["o1", "p1"]) {
            const source = from === target ? "fd00:b1::1" : address(from);
            assert.match(get(from, vip, 80, ...udp), seen(target, source), `${from} to ${target} ${udp.join("")}`);
          }
        }
      }
    });

    test("SCTP, too", async () => {
      await serve("p1");
      const server = world.start(id("p1"), [world.probe, "sctp-serve", "p1", "80", "::"]);
      await output(server);
      const answer = world.attempt(id("o1"), [world.probe, "sctp-get", vip, "80", "-w", "15000"]);
      assert.match(answer, new RegExp(`^p1 peer=\\[${address("o1")}\\]:\\d+$`));
      world.end(server);
    });

    test("new connections are spread over all tasks and no others, from every host", async () => {
      await serve("o2", "p1");
      for (const from of ["o1", "p1"]) {
        const answers = world.attempt(id(from), [world.probe, "many", vip, "80", "60"]).split("\n");
        const met = new Set(answers.map((line) => line.split(" ")[0]));
        assert.deepEqual(met, new Set([id("o2"), id("p1")]), answers.join("; "));
      }
    });

    test("another network's service of the same address is another one; without a healthy task clients fail at once", async () => {
      await serve("r1");
      await publish(red);
      for (const udp of [[], ["-u"]]) {
        // Sooner than anything is sent twice.
        assert.match(briefly("o1", vip, 80, ...udp), /^ERR .*refused/);
        assert.match(get("r1", vip, 80, ...udp), seen("r1", "fd00:b1::1"));
      }
    });

    test("a task that drains keeps its connections; when it has ended, UDP moves to another", async () => {
      await serve("p1");
      const tcp = hold("o1");
      const udp = hold("o1", "-u");
      // One client port, so that for the kernel it is one connection.
      const same = (...more: readonly string[]): Promise<string> =>
        world.getSoon(id("o1"), vip, 80, "-u", "-p", "5599", ...more);
      const patient = (): Promise<string> => same("-w", "15000");
      for (const asked of [() => tcp.ask(), () => udp.ask(), patient])
        assert.match(await asked(), seen("p1", address("o1")));
      await serve("o2");
      for (const asked of [() => tcp.ask(), () => udp.ask(), patient])
        assert.match(await asked(), seen("p1", address("o1")));
      for (let time = 0; time < 6; time += 1) {
        for (const more of [[], ["-u"]]) assert.match(get("o1", vip, 80, ...more), seen("o2", address("o1")));
      }
      await Promise.all([tcp.end(), udp.end()]);
      await hosts.change(endpointChange(tasks.p1, undefined));
      await eventually(async () => seen("o2", address("o1")).test(await same()));
      await serve("o2");
    });

    test("skepd starts again: an open connection goes on, and the next change is applied", async () => {
      await serve("p1");
      const held = hold("o1");
      assert.match(await held.ask(), seen("p1", address("o1")));
      await host(1).stop();
      await host(1).start();
      const endpoints = names.map((name) => record(name, name === "o2"));
      await host(1).plane.replace(recordsOf(1, [1, 2].map(peerOf), endpoints, [service(blue), service(red)]));
      assert.match(await held.ask(), seen("p1", address("o1")));
      await held.end();
      assert.match(get("o1", vip), seen("o2", address("o1")));
      assert.deepEqual(await host(1).networks.differences(), []);
      await serve("o2");
    });

    test("a container that says it is a router, or a neighbour, is not believed", async () => {
      await serve("o2");
      // As strict as a careless operator would have it.
      world.exec("n-4097", ["sh", "-c", "for one in /proc/sys/net/ipv6/conf/*/accept_ra; do echo 2 > $one; done"]);
      // In an order of our own: the kernel's table grows, and is listed in another one then.
      const look = ["sh", "-c", "ip -6 route; ip -6 neigh show nud permanent | sort"];
      const seenBefore = world.exec("n-4097", look);
      for (const claimed of [address("o2"), address("p1"), "fd00:b1::1", vip]) {
        world.exec(id("o1"), [world.probe, "claim6", "router", "eth0", claimed]);
        world.exec(id("o1"), [world.probe, "claim6", "neighbour", "eth0", claimed]);
      }
      assert.equal(world.exec("n-4097", look), seenBefore);
      assert.match(get("p1", address("o2")), seen("o2", address("p1")));
      assert.match(get("o1", vip), seen("o2", address("o1")));
    });

    test("what somebody takes away is put back", async () => {
      const { namespacePath } = sandboxes.get("o1") as Sandbox;
      const path = namespacePath.replace(/[^/]+$/, "n-4097");
      world.know("n-4097", path);
      world.ip("n-4097", `-6 route del ${address("p1")}/128`);
      world.exec("n-4097", ["nft", "delete", "table", "ip6", "skep"]);
      world.exec("n-4097", ["nft", "delete", "table", "ip6", "skepvip"]);
      await host(1).networks.repair();
      assert.match(get("o1", address("p1")), seen("p1", address("o1")));
      assert.match(get("o1", vip), seen("o2", address("o1")));
      assert.match(world.exec("n-4097", ["nft", "list", "table", "ip6", "skep"]), /fib saddr \. iif oif missing drop/);
      // What was done by hand is heard of a moment later, and compared once more.
      await eventually(async () => (await host(1).networks.differences()).length === 0);
    });
  });
});
