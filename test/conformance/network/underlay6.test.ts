/**
 * Nodes that send each other frames by IPv6: overlays, service addresses and the mesh over three hosts in namespaces, with
 * clients of both families, and strangers that would like to send frames, too. What is inside of a frame does not know what
 * carries it: overlay.test.ts, mesh.test.ts and mesh6.test.ts tell of that.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type {
  EndpointRecord,
  PeerRecord,
  RecordChange,
  Sandbox,
  ServicePort,
  ServiceRecord,
} from "../../../worker/network/contract.ts";
import { whySkipped } from "../containers/host.ts";
import {
  idOf as id,
  ingressService,
  meshPort,
  NetHosts,
  overlayEndpoint,
  overlayOf,
  overlayService,
  overlayTask,
  peerOf,
  taskOf,
  type OverlayTask,
} from "./net-host.ts";
import { eventually, run, type NetWorld } from "./world.ts";

const numbers = [1, 2, 3];
const own = (number: number): string => `fd99::${number}`;
const own4 = (number: number): string => `10.99.0.${number}`;
/** Of a node, the first of its block. */
const gateway = (number: number): string => `100.64.${4 * number}.1`;
const peer = (number: number): PeerRecord => ({
  ...peerOf(number),
  addr: own(number),
  addresses6: [own(number)],
  addresses4: [own4(number)],
});
const peers = numbers.map(peer);
const ports: readonly ServicePort[] = [meshPort("tcp", 8080), meshPort("udp", 8080)];
const web: ServiceRecord = { ...ingressService(ports), has6: true };
const blue = overlayOf("blue", 4097);
const vip = "10.0.1.100";
const port = 7000;
const tasks = [overlayTask("a1", blue, 1, 11, "api"), overlayTask("b1", blue, 2, 21, "api")];
const [a1, b1] = tasks as [OverlayTask, OverlayTask];
const escaped = (text: string): string => text.replaceAll(".", "\\.");

describe("frames between nodes by IPv6", { skip: whySkipped(), timeout: 300_000 }, () => {
  let hosts: NetHosts;
  let world: NetWorld;
  const boxes = new Map<string, { readonly number: number; readonly sandbox: Sandbox }>();

  const box = (name: string): { readonly number: number; readonly address: string } => {
    const { number, sandbox } = boxes.get(name) ?? assert.fail(name);
    return { number, address: sandbox.gatewayAddress ?? "" };
  };
  /** Which of the mesh's tasks serve. */
  const serve = (...names: readonly string[]): Promise<void> =>
    hosts.change(
      ...["w1", "w2", "w3"].map((name): RecordChange => {
        const { number, address } = box(name);
        const record: EndpointRecord = { ...taskOf(id(name), number, address), serving: names.includes(name) };
        return { kind: "endpoint", key: `ingress/${id(name)}`, record };
      }),
    );
  const get = (from: string, to: string, at: number, ...more: readonly string[]): string =>
    world.get(boxes.has(from) ? id(from) : from, to, at, ...more).trim();
  /** Where nobody is to answer. */
  const briefly = (from: string, to: string, at: number, ...more: readonly string[]): string =>
    world.getBriefly(boxes.has(from) ? id(from) : from, to, at, ...more);
  const overlays = tasks.map((one) => overlayEndpoint(one));
  /** The second host's daemon. All are told all there is, of the mesh its own task. */
  const startAgain = async (): Promise<void> => {
    await hosts.host(2).start();
    await hosts.replace([...overlays, taskOf(id("w2"), 2, box("w2").address)], services, peers);
  };
  const services = [web, overlayService("api", blue, vip)];
  const meshWorks = (): boolean =>
    [own(1), own4(1)].every((entry) => world.getBriefly("near", entry, 8080).startsWith(id("w2")));

  before(async () => {
    hosts = await NetHosts.open("skepul6", 3, async (built) => {
      for (const [name, address] of [...numbers.map((one) => [`h${one}`, own(one)] as const), ["near", "fd99::64"]])
        built.ip(name, `addr add ${address}/64 dev eth0 nodad`);
      // A link that is new does not answer before it knows that its address is nobody else's (RFC 4862 §5.4).
      for (const one of numbers) await eventually(() => /refused/.test(built.get("near", own(one), 79)));
    });
    ({ world } = hosts);
    await hosts.replace(overlays, services, peers);
    for (const one of tasks) await hosts.attachTask(one, port);
    for (const [name, number] of Object.entries({ w1: 1, w2: 2, w3: 3, k1: 1 })) {
      const sandbox = await hosts.host(number).attach(id(name), { gateway: true, taskId: id(name), serviceId: "web" });
      boxes.set(name, { number, sandbox });
      // One socket has one family: the probe's of IPv6 takes nothing of IPv4.
      if (name !== "k1") for (const any of ["0.0.0.0", "::"]) await world.serve(id(name), 80, any);
    }
    await serve("w1", "w2", "w3");
  });
  after(() => hosts.close());

  test("links of frames have the host's address of IPv6 and carry the 20 bytes less that its header is longer", () => {
    for (const number of numbers)
      assert.match(world.ip(`h${number}`, "-d link show skepmesh"), new RegExp(`mtu 1430 [^]*local ${own(number)} `));
    const overlay = `${hosts.host(1).folder}/netns/n-4097`;
    assert.match(
      run(["nsenter", `--net=${overlay}`, "--", "ip", "-d", "link", "show", "vx"]),
      new RegExp(`mtu 1430 [^]*local ${own(1)} `),
    );
    assert.match(world.ip(a1.id, "link show eth0"), / mtu 1430 /);
    assert.match(world.ip(id("w1"), "link show gw0"), / mtu 1430 /);
  });

  test("containers on other hosts are reached directly and by their service's address, and see who asks", async () => {
    for (const udp of [[], ["-u"]]) {
      assert.match(get(a1.id, b1.address, port, ...udp), new RegExp(`^${b1.id} peer=${escaped(a1.address)}:`));
      assert.match(get(b1.id, a1.address, port, ...udp), new RegExp(`^${a1.id} peer=${escaped(b1.address)}:`));
    }
    const met = new Set(
      world
        .attempt(a1.id, [world.probe, "many", vip, String(port), "60"])
        .replaceAll(/ .*$/gm, "")
        .split("\n"),
    );
    assert.deepEqual(met, new Set([a1.id, b1.id]));
  });

  test("packets as long as the network carries go through whole", async () => {
    const receiver = await world.receive(b1.id, 7001);
    // 20 bytes of IP and 8 of UDP before them.
    const text = "x".repeat(1430 - 28);
    world.exec(a1.id, [world.probe, "send", b1.address, "7001", text]);
    await receiver.until(text);
    await receiver.end();
  });

  test("every way in, of both families, leads to a task that sees who asks", async () => {
    const wrong: string[] = [];
    for (const backend of ["w1", "w2", "w3"]) {
      await serve(backend);
      const at = box(backend).number;
      const expect = (from: string, entry: string, source: string, udp: readonly string[]): void => {
        const answer = get(from, entry, 8080, ...udp);
        if (!answer.startsWith(`${id(backend)} peer=${source.includes(":") ? `[${source}]` : source}:`))
          wrong.push(`${from} to ${entry} ${udp.join("")} (${backend}): ${answer}, and not from ${source}`);
      };
      for (const udp of [[], ["-u"]]) {
        for (const entry of numbers) {
          expect("far", own4(entry), "10.98.0.2", udp);
          expect("near", own4(entry), "10.99.0.100", udp);
          expect("near", own(entry), "fd99::64", udp);
          // Hosts through each other: what comes back to its own host is seen as the entry's, whichever address it had.
          for (const host of numbers)
            expect(`h${host}`, own4(entry), host === at && host !== entry ? gateway(entry) : own4(host), udp);
          expect("k1", own4(entry), entry === 1 ? box("k1").address : at === 1 ? gateway(entry) : own4(1), udp);
        }
      }
    }
    assert.deepEqual(wrong, []);
  });

  test("VXLAN from outside the cluster, and from a container that looks like its node, is dropped", async () => {
    await serve("w2");
    const receiver = await world.receive(id("w2"), 7101);
    const { address } = box("w2");
    /** A VXLAN device of the attacker's own, which claims to be host 1 to the mesh of host 2. */
    const inject = (from: string, to: string): void => {
      const inside = (...words: readonly string[]): string => world.exec(from, ["ip", ...words]);
      const local = to.includes(":") ? ["local", "::"] : [];
      inside("link", "add", "vxe", "mtu", "1280", "address", "02:fe:00:00:00:01", ...vxlan, ...local);
      inside("link", "set", "vxe", "up");
      inside("addr", "add", "192.0.2.7/32", "dev", "vxe");
      world.exec(from, ["bridge", "fdb", "add", "02:fe:00:00:00:02", "dev", "vxe", "self", "permanent", "dst", to]);
      inside("neigh", "add", address, "lladdr", "02:fe:00:00:00:02", "dev", "vxe", "nud", "permanent");
      inside("route", "add", `${address}/32`, "dev", "vxe", "src", "192.0.2.7");
      world.exec(from, [world.probe, "send", address, "7101", `from ${from} to ${to}`, "-s", "192.0.2.7"]);
      inside("link", "del", "vxe");
    };
    const vxlan = ["type", "vxlan", "id", "4095", "dstport", "4789"];
    for (const to of [own(2), own4(2)]) {
      inject("near", to);
      inject(id("k1"), to);
    }
    // The same frame from a member arrives: the attack is a real one, and what it would have done is seen.
    world.exec("h1", ["ip", "route", "add", `${address}/32`, "via", gateway(2), "dev", "skepmesh", "onlink"]);
    world.exec("h1", [world.probe, "send", address, "7101", "from a member"]);
    world.exec("h1", ["ip", "route", "del", `${address}/32`]);
    await receiver.until("from a member");
    assert.deepEqual(receiver.heard, ["from a member"]);
    // Without the guard the outsider would have been heard. A daemon that runs puts it back before that.
    await hosts.host(2).stop();
    world.exec("h2", ["nft", "flush", "chain", "ip6", "skepnodes", "raw"]);
    inject("near", own(2));
    await receiver.until(`from near to ${own(2)}`);
    await receiver.end();
    await startAgain();
    assert.match(world.exec("h2", ["nft", "list", "chain", "ip6", "skepnodes", "raw"]), /goto vxlan/);
  });

  test("frames are not tracked, on neither end", async () => {
    await serve("w2");
    assert.match(get("near", own(1), 8080), new RegExp(id("w2")));
    // What came while its guard was gone was not of a node.
    for (const name of ["h1", "h3"])
      assert.doesNotMatch(world.exec(name, ["cat", "/proc/net/nf_conntrack"]), /dport=4789\b/, name);
  });

  test("a firewall of the host that drops what it does not know is asked to let frames pass", async () => {
    const ip6tables = (...words: readonly string[]): string => world.exec("h2", ["ip6tables", ...words]);
    const check = (): Promise<void> => hosts.host(2).host.check(hosts.host(2).networks);
    ip6tables("-P", "INPUT", "DROP");
    // Whom its neighbours are a host has to hear in any case.
    ip6tables("-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT");
    ip6tables("-P", "FORWARD", "DROP");
    try {
      assert.match(briefly("near", own4(1), 8080), /ERR/);
      await check();
      assert.match(get("near", own4(1), 8080), new RegExp(id("w2")));
      assert.match(get("near", own(1), 8080), new RegExp(id("w2")));
      const rules = ip6tables("-S");
      await check();
      assert.equal(ip6tables("-S"), rules, "a second look changes nothing");
    } finally {
      for (const chain of ["INPUT", "FORWARD"]) {
        ip6tables("-P", chain, "ACCEPT");
        ip6tables("-F", chain);
      }
    }
    world.exec("h2", ["nft", "add", "table", "ip6", "theirs"]);
    world.exec("h2", ["nft", "add chain ip6 theirs in { type filter hook input priority 0; policy drop; }"]);
    try {
      await check();
      const [found = ""] = hosts.host(2).host.firewallFindings;
      assert.match(
        found,
        /table ip6 theirs drops .* VXLAN between nodes \(UDP port 4789\): add `udp dport 4789 accept`/,
      );
    } finally {
      world.exec("h2", ["nft", "delete", "table", "ip6", "theirs"]);
    }
    await check();
    assert.deepEqual(hosts.host(2).host.firewallFindings, []);
  });

  for (const [what, command] of [
    ["nft flush ruleset", ["nft", "flush", "ruleset"]],
    ["the guard's table goes", ["nft", "delete", "table", "ip6", "skepnodes"]],
    ["the mesh's link is deleted", ["ip", "link", "del", "skepmesh"]],
    ["a peer's fdb entry goes", ["bridge", "fdb", "del", "02:fe:00:00:00:02", "dev", "skepmesh", "dst", own(2)]],
  ] as const) {
    test(`is put right: ${what}`, async () => {
      await serve("w2");
      world.exec("h1", command);
      await eventually(() => meshWorks());
      await eventually(() => /fd99::3/.test(world.attempt("h1", ["nft", "list", "set", "ip6", "skepnodes", "peers"])));
    });
  }

  test("a daemon that starts again finds all as it should be", async () => {
    await serve("w2");
    const state = (): string =>
      world.exec("h2", [
        "sh",
        "-c",
        "nft list table ip6 skepnodes; ip -o -d link show type vxlan; bridge fdb; ip route",
      ]);
    const before = state();
    await hosts.host(2).stop();
    assert.match(get("near", own(1), 8080), new RegExp(id("w2")));
    await startAgain();
    assert.equal(state(), before);
    assert.deepEqual(await hosts.host(2).networks.differences(), []);
    assert.match(get("near", own(1), 8080), new RegExp(id("w2")));
  });

  test("to a node whose frames go by IPv4 nothing leads, and it is told", async () => {
    const { model } = hosts.host(1).networks;
    await hosts.host(1).plane.change([{ kind: "peer", key: "n3", record: { ...peer(3), addr: own4(3) } }]);
    assert.deepEqual([...model.strangers.keys()], ["n3"]);
    assert.doesNotMatch(world.exec("h1", ["bridge", "fdb"]), /02:fe:00:00:00:03/);
    assert.doesNotMatch(world.exec("h1", ["nft", "list", "set", "ip6", "skepnodes", "peers"]), /fd99::3/);
    assert.doesNotMatch(world.exec("h1", ["nft", "list", "set", "ip", "skep", "peers"]), /10\.99/);
    await hosts.host(1).plane.change([{ kind: "peer", key: "n3", record: peer(3) }]);
    assert.equal(model.strangers.size, 0);
    assert.match(world.exec("h1", ["bridge", "fdb"]), /02:fe:00:00:00:03 dev skepmesh dst fd99::3/);
  });

  test("a node that joins a cluster of the other family has nothing of the one before", async () => {
    const four = numbers.map((number) => ({ ...peer(number), addr: own4(number) }));
    await hosts.replace(overlays, services, four);
    for (const number of numbers) {
      const host = `h${number}`;
      assert.match(world.attempt(host, ["nft", "list", "table", "ip6", "skepnodes"]), /No such file/);
      assert.match(world.ip(host, "-d link show skepmesh"), new RegExp(`mtu 1450 [^]*local ${escaped(own4(number))} `));
      assert.deepEqual(await hosts.host(number).networks.differences(), []);
    }
    await serve("w2");
    assert.match(get("near", own4(1), 8080), new RegExp(id("w2")));
    assert.match(get(a1.id, b1.address, port), new RegExp(b1.id));
    await hosts.replace(overlays, services, peers);
    await serve("w2");
    assert.match(get("near", own4(1), 8080), new RegExp(id("w2")));
    assert.match(get(a1.id, b1.address, port), new RegExp(b1.id));
    assert.match(world.ip("h1", "-d link show skepmesh"), /mtu 1430 [^]*local fd99::1 /);
    assert.deepEqual(await hosts.host(1).networks.differences(), []);
  });
});
