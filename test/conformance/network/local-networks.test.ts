/**
 * Networks of one host: who reaches whom, by which address, through which published port, and who does not. The host is a
 * namespace with a client beside it and one behind a router; containers are sandboxes without a container in them.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { PublishedPort, Sandbox, SandboxRequest } from "../../../worker/network/contract.ts";
import { whySkipped } from "../containers/host.ts";
import { bridgeWish, NetHost, published } from "./net-host.ts";
import { eventually, NetWorld, output } from "./world.ts";

const id = (name: string): string => `${name}${"0".repeat(64)}`.slice(0, 64);

describe("networks of one host", { skip: whySkipped(), timeout: 200_000 }, () => {
  let world: NetWorld;
  let host: NetHost;
  const sandboxes = new Map<string, Sandbox>();
  const networkIds = new Map<string, string>();

  const create = async (name: string, more: Parameters<NetHost["host"]["networks"]["create"]>[0]): Promise<void> => {
    networkIds.set(name, (await host.host.networks.create(more)).network.id);
  };
  const wish = (network: string) => bridgeWish(networkIds.get(network) ?? "", network);
  /** A container on these networks, which answers on port 80. */
  const attach = async (
    name: string,
    networks: readonly string[],
    ports: readonly PublishedPort[] = [],
    more: Partial<SandboxRequest> = {},
  ): Promise<Sandbox> => {
    const isNew = !sandboxes.has(name);
    const sandbox = await host.attach(id(name), { networks: networks.map(wish), ports, ...more });
    sandboxes.set(name, sandbox);
    if (isNew) await world.serve(id(name), 80);
    return sandbox;
  };
  const address = (name: string, at = 0): string => sandboxes.get(name)?.endpoints[at]?.address ?? "";
  const get = (from: string, to: string, port: number, ...more: readonly string[]): string =>
    world.get(sandboxes.has(from) ? id(from) : from, to, port, ...more).trim();
  /** Where nobody is to answer. */
  const briefly = (from: string, to: string, port: number, ...more: readonly string[]): string =>
    world.getBriefly(sandboxes.has(from) ? id(from) : from, to, port, ...more);
  const seen = (name: string, source: string): RegExp =>
    new RegExp(`^${sandboxes.has(name) ? id(name) : name} peer=${source.replaceAll(".", "\\.")}:`);

  before(async () => {
    world = new NetWorld("skepme-l");
    world.build(1);
    host = await NetHost.open(world, "h1");
    await host.plane.replace({ nodeId: "", peers: [], endpoints: [], services: [] });
    networkIds.set("bridge", host.host.networks.inspect("bridge").network.id);
    await create("blue", { name: "blue" });
    await create("dark", { name: "dark", internal: true });
    await create("apart", { name: "apart", options: { "com.docker.network.bridge.enable_icc": "false" } });
    await create("plain", {
      name: "plain",
      ipam: [{ subnet: "10.55.0.0/24", gateway: "10.55.0.254" }],
      options: { "com.docker.network.bridge.enable_ip_masquerade": "false" },
    });
    await world.serve("far", 81);
    await attach("b1", ["bridge"]);
    await attach("b2", ["bridge"]);
    await attach("c1", ["blue"]);
    await attach("c2", ["blue"]);
    await attach("d1", ["dark"]);
    await attach("d2", ["dark"]);
    await attach("a1", ["apart"]);
    await attach("a2", ["apart"]);
    await attach("p1", ["plain"]);
  });

  after(async () => {
    await host[Symbol.asyncDispose]();
    await world.tearDown();
  });

  test("the default network is 172.17.0.0/16 and gives addresses from .2 on", () => {
    assert.deepEqual([address("b1"), address("b2")], ["172.17.0.2", "172.17.0.3"]);
    assert.equal(sandboxes.get("b1")?.endpoints[0]?.gateway, "172.17.0.1");
    assert.equal(sandboxes.get("b1")?.gatewayAddress, undefined);
    assert.equal(sandboxes.get("b1")?.resolver, undefined);
    assert.equal(sandboxes.get("c1")?.resolver, "127.0.0.11");
    assert.equal(sandboxes.get("c1")?.hostAddress, sandboxes.get("c1")?.endpoints[0]?.gateway);
    assert.equal(address("p1"), "10.55.0.1");
  });

  test("inside a network all reach all by their own addresses, TCP, UDP and the whole frame", () => {
    for (const [from, to] of [
      ["b1", "b2"],
      ["c2", "c1"],
      ["d1", "d2"],
    ] as const) {
      assert.match(get(from, address(to), 80), seen(to, address(from)));
      assert.match(get(from, address(to), 80, "-u"), seen(to, address(from)));
      assert.match(get(from, address(to), 80, "-u", "-d", "-l", "1472"), seen(to, address(from)));
      assert.match(get(from, address(from), 80), seen(from, address(from)));
    }
  });

  test("between networks nobody reaches anybody, whatever routes a container adds", () => {
    world.exec(id("d1"), ["ip", "route", "add", "default", "via", "172.19.0.1"]);
    for (const udp of [[], ["-u"]]) {
      for (const [from, to] of [
        ["b1", "c1"],
        ["c1", "b1"],
        ["b1", "d1"],
        ["d1", "b1"],
        ["a1", "c1"],
      ] as const) {
        assert.match(briefly(from, address(to), 80, ...udp), /ERR/, `${from} to ${to}`);
      }
    }
  });

  test("with enable_icc=false containers of one network do not reach each other", () => {
    assert.match(briefly("a1", address("a2"), 80), /ERR/);
    assert.match(get("a1", "10.98.0.2", 81), seen("far", "10.99.0.1"));
  });

  test("the way out is masqueraded, or not where the network says so", () => {
    assert.match(get("b1", "10.98.0.2", 81), seen("far", "10.99.0.1"));
    assert.match(get("c1", "10.98.0.2", 81, "-u"), seen("far", "10.99.0.1"));
    world.ip("sw", "route add 10.55.0.0/24 via 10.99.0.1");
    assert.match(get("p1", "10.98.0.2", 81), seen("far", address("p1")));
  });

  test("an internal network leads nowhere: not out, not to the host's services, not through published ports", async () => {
    await world.serve("h1", 8222);
    await world.serve("h1", 53, "100.64.0.1");
    await attach("pub", ["blue"], [published(8333)]);
    assert.match(get("b1", "10.99.0.1", 8222), seen("h1", address("b1")));
    for (const udp of [[], ["-u"]]) {
      assert.match(briefly("d1", "10.98.0.2", 81, ...udp), /ERR/);
      assert.match(briefly("d1", "10.99.0.1", 8222, ...udp), /ERR/);
      assert.match(briefly("d1", "172.19.0.1", 8222, ...udp), /ERR/);
      assert.match(briefly("d1", "10.99.0.1", 8333, ...udp), /ERR/);
      // Names alone, and of the host what it asks itself.
      assert.match(get("d1", "100.64.0.1", 53, ...udp), seen("h1", address("d1")));
      assert.match(get("h1", address("d1"), 80, ...udp), /peer=/);
    }
    assert.match(get("d2", "100.64.0.1", 53, "-u"), seen("h1", address("d2")), "without a default route, too");
  });

  test("127.0.0.11 is the node's resolver for who is told names, and for nobody else; nothing else of it is", async () => {
    for (const udp of [[], ["-u"]]) {
      for (const asker of ["c1", "d1"]) {
        assert.match(get(asker, "127.0.0.11", 53, ...udp), seen("h1", address(asker)));
      }
      assert.match(briefly("b1", "127.0.0.11", 53, ...udp), /ERR/, "the network bridge has no names");
    }
    await world.serve("h1", 54, "127.0.0.11");
    await world.serve("h1", 53, "127.0.0.12");
    assert.match(get("h1", "127.0.0.11", 54), /peer=/);
    assert.match(briefly("c1", "127.0.0.11", 54), /ERR/, "other ports are the host's own");
    world.ip(id("c1"), "route add 127.0.0.12/32 via 172.18.0.1 src 172.18.0.2 table local");
    assert.match(briefly("c1", "127.0.0.12", 53), /ERR/, "other addresses are the host's own");
    world.ip("near", "route add 127.0.0.11/32 via 10.99.0.1 src 10.99.0.100 table local");
    assert.match(briefly("near", "127.0.0.11", 53), /ERR/, "outsiders are told nothing");
    world.ip("near", "route del 127.0.0.11/32 table local");
  });

  test("nobody outside reaches a container by its own address", () => {
    world.ip("near", "route add 172.16.0.0/12 via 10.99.0.1");
    for (const udp of [[], ["-u"]]) {
      assert.match(briefly("near", address("b1"), 80, ...udp), /ERR/);
      assert.match(briefly("near", "172.17.0.1", 8222, ...udp), /ERR/);
    }
    world.ip("near", "route del 172.16.0.0/12");
  });

  test("a source that is not its own gets a container nowhere, on its network and out", async () => {
    const receivers = [await world.receive("far", 7100), await world.receive(id("b2"), 7100)];
    const stolen = "172.17.0.77";
    world.exec(id("b1"), ["ip", "addr", "add", `${stolen}/32`, "dev", "eth0"]);
    for (const to of ["10.98.0.2", address("b2")]) {
      world.exec(id("b1"), [world.probe, "send", to, "7100", "spoofed", "-s", stolen]);
      world.exec(id("b1"), [world.probe, "send", to, "7100", "honest", "-s", address("b1")]);
    }
    for (const receiver of receivers) {
      await receiver.until("honest");
      await receiver.end();
      assert.deepEqual(receiver.heard, ["honest"]);
    }
    world.exec(id("b1"), ["ip", "addr", "del", `${stolen}/32`, "dev", "eth0"]);
  });

  test("nobody answers ARP in another's name: nobody is asked, and no answer is believed", async () => {
    // b3 claims to be b2 and the gateway, as an attacker would: what it announces is seen on its own link only.
    await attach("b3", ["bridge"]);
    const liar = id("b3");
    world.sysctl(liar, "net.ipv4.conf.eth0.arp_notify=1");
    for (const claimed of [address("b2"), "172.17.0.1"]) {
      world.exec(liar, ["ip", "addr", "add", `${claimed}/32`, "dev", "eth0"]);
      world.exec(liar, ["ip", "link", "set", "eth0", "down"]);
      world.exec(liar, ["ip", "link", "set", "eth0", "up"]);
    }
    assert.match(get("b1", address("b2"), 80), seen("b2", address("b1")));
    assert.match(get("h1", address("b2"), 80), /^b2/);
    assert.match(get("b2", "10.98.0.2", 81), seen("far", "10.99.0.1"));
    const claimed = world.exec("h1", ["ip", "neigh", "show", address("b2")]);
    assert.match(claimed, /lladdr 02:42:ac:11:00:03 PERMANENT/);
  });

  describe("published ports", () => {
    before(async () => {
      await attach("web", ["blue"], [published(8080), published(8080, { protocol: "udp" })]);
      await attach("loop", ["bridge"], [published(8081, { hostAddress: "127.0.0.1" })]);
      await attach("one", ["bridge"], [published(8082, { hostAddress: "10.99.0.1" })]);
    });

    test("lead to the container from everywhere, and it sees who asks", () => {
      for (const udp of [[], ["-u"]]) {
        assert.match(get("far", "10.99.0.1", 8080, ...udp), seen("web", "10.98.0.2"));
        assert.match(get("near", "10.99.0.1", 8080, ...udp), seen("web", "10.99.0.100"));
        assert.match(get("h1", "127.0.0.1", 8080, ...udp), seen("web", "100.64.0.1"));
        assert.match(get("h1", "10.99.0.1", 8080, ...udp), seen("web", "10.99.0.1"));
        // Of the same network, of another, and itself.
        assert.match(get("c1", "10.99.0.1", 8080, ...udp), seen("web", address("c1")));
        assert.match(get("b1", "10.99.0.1", 8080, ...udp), seen("web", address("b1")));
        assert.match(get("b1", "172.17.0.1", 8080, ...udp), seen("web", address("b1")));
        assert.match(get("web", "10.99.0.1", 8080, ...udp), seen("web", "100.64.0.1"));
      }
    });

    test("SCTP leads to a container as well, on all addresses or on one", async () => {
      await attach(
        "assoc",
        ["blue"],
        [published(7070, { protocol: "sctp" }), published(7071, { protocol: "sctp", hostAddress: "10.99.0.1" })],
      );
      const server = world.start(id("assoc"), [world.probe, "sctp-serve", "assoc", "80"]);
      await output(server);
      const ask = (from: string, to: string, port: number, ...more: readonly string[]): string =>
        world.attempt(from, [world.probe, "sctp-get", to, String(port), ...more]);
      const patient = ["-w", "15000"];
      assert.match(ask("far", "10.99.0.1", 7070, ...patient), /^assoc peer=10\.98\.0\.2:/);
      assert.match(ask("far", "10.99.0.1", 7071, ...patient), /^assoc peer=10\.98\.0\.2:/);
      assert.match(ask("h1", "127.0.0.1", 7070, ...patient), /^assoc peer=100\.64\.0\.1:/);
      assert.match(ask("h1", "127.0.0.1", 7071), /ERR/);
      world.end(server);
    });

    test("of one address are on that address alone", () => {
      assert.match(get("h1", "127.0.0.1", 8081), seen("loop", "100.64.0.1"));
      assert.match(briefly("near", "10.99.0.1", 8081), /ERR/);
      assert.match(briefly("h1", "10.99.0.1", 8081), /ERR/);
      assert.match(get("near", "10.99.0.1", 8082), seen("one", "10.99.0.100"));
      assert.match(briefly("h1", "127.0.0.1", 8082), /ERR/);
    });

    test("that are taken are refused, by containers and by processes of the host", async () => {
      await assert.rejects(attach("late", ["blue"], [published(8080)]), { code: "PORT_IN_USE" });
      await assert.rejects(attach("late", ["blue"], [published(8082)]), { code: "PORT_IN_USE" });
      await assert.rejects(attach("late", ["blue"], [published(8222)]), { code: "PORT_IN_USE" });
      assert.equal(host.networks.sandboxes.get(id("late")), undefined);
      assert.match(world.attempt("h1", [world.probe, "bind", "8080"]), /in use/);
    });

    test("without a number are chosen, and free again when the container is gone", async () => {
      const { ports } = await attach("any", ["bridge"], [published(0), published(0, { protocol: "udp" })]);
      const [tcp = published(0), udp = published(0)] = ports;
      assert.ok(tcp.publishedPort >= 32_768 && udp.publishedPort <= 60_999);
      assert.match(get("near", "10.99.0.1", tcp.publishedPort), seen("any", "10.99.0.100"));
      assert.match(get("near", "10.99.0.1", udp.publishedPort, "-u"), seen("any", "10.99.0.100"));
      await host.networks.sandboxes.release(id("any"));
      assert.match(get("near", "10.99.0.1", tcp.publishedPort), /refused/);
      const process = await world.serve("h1", tcp.publishedPort);
      assert.match(get("near", "10.99.0.1", tcp.publishedPort), /^h1 peer/);
      world.end(process);
    });

    test("[::1] is refused at once, so that clients of localhost go on to 127.0.0.1", () => {
      const answer = world.attempt("h1", ["env", "LC_ALL=C", "bash", "-c", "exec 3<>/dev/tcp/::1/8080"]);
      assert.match(answer, /refused/);
    });

    test("UDP of a client moves to the next container on the port, for nothing keeps the old one", async () => {
      // One client port, so that for conntrack it is one connection.
      const ask = (...more: readonly string[]): Promise<string> =>
        world.getSoon("far", "10.99.0.1", 8090, "-u", "-p", "5000", ...more);
      await attach("u1", ["blue"], [published(8090, { protocol: "udp" })]);
      assert.match(await ask("-w", "15000"), seen("u1", "10.98.0.2"));
      await host.networks.sandboxes.release(id("u1"));
      sandboxes.delete("u1");
      await attach("u2", ["blue"], [published(8090, { protocol: "udp" })]);
      await eventually(async () => seen("u2", "10.98.0.2").test(await ask()));
    });
  });

  describe("joining and leaving while it runs", () => {
    test("a container that joins a network is reached there, and what it had goes on", async () => {
      const client = world.hold(id("c1"), address("c2"), 80);
      await client.ask();
      await attach("c2", ["blue", "bridge", "dark"]);
      assert.deepEqual(
        sandboxes.get("c2")?.endpoints.map(({ interfaceName }) => interfaceName),
        ["eth0", "eth1", "eth2"],
      );
      assert.match(get("b1", address("c2", 1), 80), seen("c2", address("b1")));
      assert.match(get("d1", address("c2", 2), 80), seen("c2", address("d1")));
      assert.match(get("c2", address("b1"), 80), seen("b1", address("c2", 1)));
      assert.match(await client.ask(), seen("c2", address("c1")));
      await client.end();
    });

    test("it leaves the first one: the others keep their interfaces, and the way out is another", async () => {
      assert.match(get("c2", "10.98.0.2", 81), seen("far", "10.99.0.1"));
      const gone = address("c2");
      await attach("c2", ["bridge", "dark"]);
      assert.deepEqual(
        sandboxes.get("c2")?.endpoints.map(({ interfaceName }) => interfaceName),
        ["eth1", "eth2"],
      );
      assert.ok(!world.exec(id("c2"), ["ip", "-o", "link"]).includes("eth0"));
      assert.match(briefly("c1", gone, 80), /ERR/);
      assert.match(get("b1", address("c2"), 80), seen("c2", address("b1")));
      assert.match(get("c2", "10.98.0.2", 81), seen("far", "10.99.0.1"));
      await attach("c2", ["bridge", "dark", "blue"]);
      assert.equal(sandboxes.get("c2")?.endpoints[2]?.interfaceName, "eth0");
      assert.notEqual(address("c2", 2), gone, "what was given back is given again last");
      assert.match(get("c1", address("c2", 2), 80), seen("c2", address("c1")));
    });
  });

  test("a fixed address is the next container's at once, though what it ran keeps the link of the one before", async () => {
    const fixed = "10.55.0.77";
    for (const name of ["fixed1", "fixed2", "fixed3"]) {
      await attach(name, [], [], {
        networks: [bridgeWish(networkIds.get("plain") ?? "", "plain", { address: fixed })],
      });
      assert.match(get("p1", fixed, 80), seen(name, address("p1")));
      await host.networks.sandboxes.release(id(name));
      assert.match(briefly("p1", fixed, 80), /ERR/);
    }
  });

  test("skepd starts again: containers, ports and networks are as they were, and connections live", async () => {
    const client = world.hold("far", "10.99.0.1", 8080);
    await client.ask();
    const before = world.exec("h1", ["sh", "-c", "ip -o addr; ip route; nft list ruleset"]);
    await host.stop();
    await host.start();
    assert.match(await client.ask(), seen("web", "10.98.0.2"));
    await host.plane.replace({ nodeId: "", peers: [], endpoints: [], services: [] });
    assert.equal(world.exec("h1", ["sh", "-c", "ip -o addr; ip route; nft list ruleset"]), before);
    assert.match(get("far", "10.99.0.1", 8080), seen("web", "10.98.0.2"));
    await assert.rejects(attach("late", ["blue"], [published(8080)]), { code: "PORT_IN_USE" });
    await assert.rejects(host.host.networks.remove("blue"), { code: "LOCAL_NETWORK_IN_USE" });
    await client.end();
  });

  test("nft flush ruleset, and every link of ours deleted: it is put right by itself", async () => {
    world.exec("h1", ["nft", "flush", "ruleset"]);
    world.exec("h1", ["sh", "-c", "ip -o link | grep -o 'skepl[0-9a-f]*' | sort -u | xargs -n1 ip link del"]);
    const untilMs = performance.now() + 20_000;
    let answers: string[] = [];
    while (performance.now() < untilMs) {
      answers = await Promise.all([
        world.getSoon("far", "10.99.0.1", 8080),
        world.getSoon(id("b1"), address("b2"), 80),
        world.getSoon(id("d1"), address("d2"), 80),
        world.getSoon(id("c1"), "10.98.0.2", 81),
      ]);
      if (answers.every((answer) => /peer=/.test(answer))) break;
    }
    assert.ok(
      answers.every((answer) => /peer=/.test(answer)),
      answers.join("; "),
    );
    assert.match(briefly("d1", "10.98.0.2", 81), /ERR/);
  });

  test("a network that the host already has addresses of is not chosen", async () => {
    world.ip("h1", "link add other type bridge");
    world.ip("h1", "addr add 172.23.0.1/16 dev other");
    const subnets: string[] = [];
    for (const name of ["n1", "n2", "n3"]) {
      const { network } = await host.host.networks.create({ name });
      subnets.push(network.subnet);
      await host.host.networks.remove(name);
      if (subnets.length < 3) await host.host.networks.create({ name: `${name}-stays` });
    }
    assert.ok(!subnets.includes("172.23.0.0/16"), subnets.join());
    assert.deepEqual(subnets, ["172.21.0.0/16", "172.22.0.0/16", "172.24.0.0/16"]);
  });
});
