/**
 * The ingress mesh over three hosts in namespaces, built by netplane from records as an agent would hand them in: every
 * way in, every way to a task, and whose address the task sees. Then attacks, which get nowhere.
 */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import type { EndpointRecord, RecordChange, Sandbox, ServicePort } from "../../../worker/network/contract.ts";
import { whySkipped } from "../containers/host.ts";
import { idOf as id, ingressService, meshPort, NetHosts, peerOf, published, recordsOf, taskOf } from "./net-host.ts";
import { eventually, output, type NetWorld } from "./world.ts";

const numbers = [1, 2, 3];
/** Of a node, the first of its block. */
const gateway = (number: number): string => `100.64.${4 * number}.1`;
const own = (number: number): string => `10.99.0.${number}`;

describe("the ingress mesh", { skip: whySkipped(), timeout: 300_000 }, () => {
  let hosts: NetHosts;
  let world: NetWorld;
  const servers = new Map<string, ChildProcess>();
  const boxes = new Map<string, { readonly number: number; readonly sandbox: Sandbox }>();
  const ports: readonly ServicePort[] = [meshPort("tcp", 8080), meshPort("udp", 8080), meshPort("sctp", 7000)];

  const box = (name: string): { number: number; address: string } => {
    const found = boxes.get(name);
    assert.ok(found);
    return { number: found.number, address: found.sandbox.gatewayAddress ?? "" };
  };
  const task = (name: string, more: Partial<EndpointRecord> = {}): EndpointRecord => ({
    ...taskOf(id(name), box(name).number, box(name).address),
    ...more,
  });
  const change = (...changes: readonly RecordChange[]): Promise<void> => hosts.change(...changes);
  /** From now on these serve and no others. */
  const serve = (...names: readonly string[]): Promise<void> =>
    change(
      ...["w1", "w2", "w3", "w4"].map((name): RecordChange => ({
        kind: "endpoint",
        key: `ingress/${id(name)}`,
        record: task(name, { serving: names.includes(name) }),
      })),
    );
  /** Where nobody is to answer. */
  const briefly = (from: string, address: string, port: number, ...more: readonly string[]): string =>
    world.getBriefly(boxes.has(from) ? id(from) : from, address, port, ...more);
  /** As each minute. */
  const check = (number: number): Promise<void> => hosts.host(number).host.check(hosts.host(number).networks);
  const get = (from: string, address: string, port: number, ...more: readonly string[]): string =>
    world.get(boxes.has(from) ? id(from) : from, address, port, ...more).trim();
  before(async () => {
    hosts = await NetHosts.open("skepme-m", 3, (built) => built.serve("far", 81));
    ({ world } = hosts);
    await hosts.replace([], [ingressService(ports)]);
    const places = { w1: 1, w2: 2, w3: 3, w4: 2, k1: 1 };
    for (const [name, number] of Object.entries(places)) {
      const sandbox = await hosts.host(number).attach(id(name), { gateway: true, taskId: id(name), serviceId: "web" });
      boxes.set(name, { number, sandbox });
      if (name !== "k1") servers.set(name, await world.serve(id(name), 80));
    }
  });

  after(() => hosts.close());

  for (const backend of ["w1", "w2", "w3"]) {
    test(`every way in leads to a task on host ${backend.slice(1)}, which sees who asks`, async () => {
      await serve(backend);
      const at = box(backend).number;
      const wrong: string[] = [];
      const expect = (from: string, entry: string, source: string, udp: readonly string[]): void => {
        const answer = get(from, entry, 8080, ...udp);
        if (!answer.startsWith(`${id(backend)} peer=${source}:`)) {
          wrong.push(`${from} to ${entry} ${udp.join("")}: ${answer}, and not from ${source}`);
        }
      };
      for (const udp of [[], ["-u"]]) {
        for (const entry of numbers) {
          expect("far", own(entry), "10.98.0.2", udp);
          expect("near", own(entry), "10.99.0.100", udp);
          // A container through its own node keeps its address; through another it is masqueraded as its node.
          // Back on the host that it came from it cannot be told from one of that host's own.
          const bounced = at === 1 ? gateway(entry) : own(1);
          expect("k1", own(entry), entry === 1 ? box("k1").address : bounced, udp);
          expect("w1", own(entry), entry === 1 ? (at === 1 ? gateway(1) : box("w1").address) : bounced, udp);
          expect(`h${entry}`, "127.0.0.1", gateway(entry), udp);
          for (const host of numbers) {
            expect(`h${host}`, own(entry), host === at && host !== entry ? gateway(entry) : own(host), udp);
          }
        }
      }
      assert.deepEqual(wrong, []);
    });
  }

  test("SCTP goes the same ways, on kernels with sockets of it and without", async () => {
    await serve("w3");
    const server = world.start(id("w3"), [world.probe, "sctp-serve", "w3", "80"]);
    await output(server);
    for (const entry of numbers) {
      for (const [from, source] of [
        ["far", "10.98.0.2"],
        ["near", "10.99.0.100"],
      ] as const) {
        const answer = world.attempt(from, [world.probe, "sctp-get", own(entry), "7000", "-w", "15000"]);
        assert.match(answer, new RegExp(`^w3 peer=${source}:\\d+$`), `${from} through ${entry}`);
      }
    }
    assert.match(
      world.attempt("h1", [world.probe, "sctp-get", "127.0.0.1", "7000", "-w", "15000"]),
      /^w3 peer=100\.64\.4\.1:/,
    );
    assert.match(world.attempt("far", [world.probe, "sctp-get", own(1), "7001"]), /ERR/);
    world.end(server);
  });

  test("connections are spread over all tasks, and a port without one refuses at once", async () => {
    await serve("w1", "w2", "w3", "w4");
    const answers = world.attempt("far", [world.probe, "many", own(1), "8080", "200"]).split("\n");
    const counts = new Map<string, number>();
    for (const answer of answers) {
      const name = answer.split(" ")[0] ?? "";
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    // 200 draws of four: fewer than 25 of one come up once in a million runs.
    assert.equal(counts.size, 4, answers.join("; "));
    for (const count of counts.values()) assert.ok(count >= 20, [...counts].join("; "));
    await serve();
    // A port that nobody has asked yet: what is remembered of a client's port would go on with its task, which drains.
    const unasked = [meshPort("tcp", 8091), meshPort("udp", 8091)];
    await change({ kind: "service", key: "ingress/web", record: ingressService([...ports, ...unasked]) });
    // By whichever host, and also where it would come back to the host itself.
    for (const [from, address] of [
      ["far", own(1)],
      ["h1", own(1)],
      ["h1", "127.0.0.1"],
      [id("k1"), own(1)],
    ] as const) {
      for (const protocol of ["tcp", "udp"]) {
        // The kernel sends one client on another host six words about datagrams and then one a second (icmp(7)).
        const often = protocol === "tcp" || from === "h1" ? 100 : 3;
        const answers = world.exec(from, [world.probe, "asks"], `${protocol} ${address} 8091 10000\n`.repeat(often));
        const expected = `ERR ${protocol === "tcp" ? "connect" : "receive"}: Connection refused\n`;
        assert.equal(answers, expected.repeat(often), `${from} to ${protocol} ${address}`);
      }
    }
    // Also where the host's firewall would be silent about it.
    world.exec("h2", ["iptables", "-P", "INPUT", "DROP"]);
    assert.match(get("far", own(2), 8080), /refused/);
    world.exec("h2", ["iptables", "-P", "INPUT", "ACCEPT"]);
    await change({ kind: "service", key: "ingress/web", record: ingressService(ports) });
  });

  test("one client port through two hosts to one task: both connections live", async () => {
    await serve("w3");
    const first = world.hold("far", own(1), 8080, "-p", "4000");
    assert.match(await first.ask(), /peer=10\.98\.0\.2:/);
    const second = world.hold("far", own(2), 8080, "-p", "4000");
    assert.match(await second.ask(), /peer=10\.98\.0\.2:/);
    assert.match(await first.ask(), /peer=10\.98\.0\.2:/);
    await first.end();
    await second.end();
  });

  test("a task that is drained keeps its connections and gets no new one; UDP moves when it has ended", async () => {
    await serve("w2");
    const tcp = world.hold("far", own(1), 8080);
    // One client port, so that for conntrack it is one connection.
    const udp = (...more: readonly string[]): Promise<string> =>
      world.getSoon("far", own(1), 8080, "-u", "-p", "5001", ...more);
    assert.match(await tcp.ask(), new RegExp(id("w2")));
    assert.match(await udp("-w", "15000"), new RegExp(id("w2")));
    await serve("w3");
    assert.match(await tcp.ask(), new RegExp(id("w2")));
    assert.match(await udp("-w", "15000"), new RegExp(id("w2")));
    for (let tries = 0; tries < 20; tries += 1) assert.match(get("far", own(1), 8080), new RegExp(id("w3")));
    await change({ kind: "endpoint", key: `ingress/${id("w2")}`, record: undefined });
    await eventually(async () => (await udp()).startsWith(id("w3")));
    await tcp.end();
  });

  test("a service that goes frees its port, and another may publish it", async () => {
    await serve("w1");
    await change({ kind: "service", key: "ingress/web", record: undefined });
    assert.match(get("near", own(2), 8080), /refused/);
    const api = ingressService([meshPort("tcp", 8080)], "api");
    const record = { ...task("w4"), serviceId: "api" };
    await change(
      { kind: "service", key: "ingress/api", record: api },
      { kind: "endpoint", key: `ingress/${id("w4")}`, record },
    );
    assert.match(get("near", own(2), 8080), new RegExp(id("w4")));
    await change(
      { kind: "service", key: "ingress/api", record: undefined },
      { kind: "service", key: "ingress/web", record: ingressService(ports) },
    );
    await serve("w1");
    assert.match(get("near", own(2), 8080), new RegExp(id("w1")));
  });

  test("large datagrams come through, whole or in pieces, and a path that is too narrow is told", async () => {
    await serve("w2");
    // 1472 bytes fill an Ethernet frame; the mesh carries 50 bytes less. Without DF the entry host cuts it in pieces.
    assert.match(get("far", own(1), 8080, "-u", "-l", "1472"), /peer=10\.98\.0\.2:/);
    assert.match(get("far", own(1), 8080, "-u", "-d", "-l", "1422"), /peer=10\.98\.0\.2:/);
    assert.match(get("far", own(1), 8080, "-u", "-d", "-l", "1472"), /ERR \w+: Message too long/);
    assert.match(get("far", own(1), 8080, "-u", "-l", "20000"), /peer=10\.98\.0\.2:/);
  });

  test("a host-mode port is on its host alone", async () => {
    const sandbox = await hosts.host(2).attach(id("hm"), {
      gateway: true,
      taskId: id("hm"),
      ports: [published(9000), published(9000, { protocol: "udp" })],
    });
    boxes.set("hm", { number: 2, sandbox });
    await world.serve(id("hm"), 80);
    for (const udp of [[], ["-u"]]) {
      assert.match(get("far", own(2), 9000, ...udp), /peer=10\.98\.0\.2:/);
      assert.match(get("h2", "127.0.0.1", 9000, ...udp), new RegExp(`peer=${gateway(2)}:`));
      assert.match(briefly("far", own(1), 9000, ...udp), /ERR/);
    }
    await hosts.host(2).networks.sandboxes.release(id("hm"));
    boxes.delete("hm");
    assert.match(get("far", own(2), 9000), /refused/);
  });

  test("a port that a process of the host has stays its own there, and is served elsewhere", async () => {
    await serve("w1");
    const sshd = await world.serve("h2", 2222);
    await change({
      kind: "service",
      key: "ingress/web",
      record: ingressService([...ports, meshPort("tcp", 2222)]),
    });
    assert.match(get("far", own(2), 2222), /^h2 peer/);
    assert.match(get("far", own(1), 2222), new RegExp(id("w1")));
    assert.deepEqual(hosts.host(2).host.refusedPorts, ["2222/tcp"]);
    // A task in host mode hears of it.
    await assert.rejects(
      hosts.host(2).attach(id("late"), { gateway: true, taskId: id("late"), ports: [published(2222)] }),
      {
        code: "PORT_IN_USE",
      },
    );
    world.end(sshd);
    await once(sshd, "exit");
    await check(2);
    assert.match(get("far", own(2), 2222), new RegExp(id("w1")));
    // And from now on no process of the host can take it.
    assert.match(world.attempt("h2", [world.probe, "bind", "2222"]), /ERR bind: Address already in use/);
    await change({ kind: "service", key: "ingress/web", record: ingressService(ports) });
  });

  test("egress is masqueraded as the host, and nothing goes sideways by gateway addresses", async () => {
    await world.serve(id("k1"), 80);
    for (const udp of [[], ["-u"]]) {
      assert.match(get("k1", "10.98.0.2", 81, ...udp), /^far peer=10\.99\.0\.1:/);
      // On the own node and through the mesh.
      for (const name of ["w1", "w2", "w3"]) assert.match(briefly("k1", box(name).address, 80, ...udp), /ERR/);
    }
  });

  test("nobody outside reaches a gateway address, nor what listens at the node's own", async () => {
    await world.serve("h2", 53, gateway(2));
    world.ip("near", "route add 100.64.0.0/10 via 10.99.0.2");
    try {
      for (const udp of [[], ["-u"]]) {
        assert.match(briefly("near", box("w2").address, 80, ...udp), /ERR/);
        assert.match(briefly("near", gateway(2), 53, ...udp), /ERR/);
        assert.match(get("w2", gateway(2), 53, ...udp), /^h2 peer/);
      }
    } finally {
      world.ip("near", "route del 100.64.0.0/10");
    }
  });

  test("what listens on a host's loopback stays there, although we route 127.0.0.1", async () => {
    await world.serve("h1", 9999, "127.0.0.1");
    assert.match(get("h1", "127.0.0.1", 9999), /^h1 peer/);
    world.sysctl(id("k1"), "net.ipv4.conf.all.route_localnet=1");
    world.exec(id("k1"), ["ip", "rule", "add", "pref", "5", "lookup", "local"]);
    world.exec(id("k1"), ["ip", "rule", "del", "pref", "0", "lookup", "local"]);
    world.exec(id("k1"), ["ip", "route", "add", "127.0.0.1/32", "via", gateway(1), "dev", "gw0", "table", "9"]);
    world.exec(id("k1"), ["ip", "rule", "add", "pref", "1", "to", "127.0.0.1", "lookup", "9"]);
    assert.match(briefly("k1", "127.0.0.1", 9999, "-s", box("k1").address), /ERR/);
  });

  test("by link-local IPv6 a container reaches nothing of its host", () => {
    const links = world.exec("h1", ["ip", "-6", "-o", "addr", "show"]);
    assert.ok(!/skep[gl]|skepmesh/.test(links), links);
  });

  test("a source that is not its own gets a container nowhere", async () => {
    const receiver = await world.receive("far", 7100);
    const stolen = box("w1").address;
    world.exec(id("k1"), ["ip", "addr", "add", `${stolen}/32`, "dev", "gw0"]);
    world.exec(id("k1"), [world.probe, "send", "10.98.0.2", "7100", "spoofed", "-s", stolen]);
    world.exec(id("k1"), [world.probe, "send", "10.98.0.2", "7100", "honest", "-s", box("k1").address]);
    await receiver.until("honest");
    assert.deepEqual(receiver.heard, ["honest"]);
    world.exec(id("k1"), ["ip", "addr", "del", `${stolen}/32`, "dev", "gw0"]);
    await receiver.end();
  });

  test("VXLAN from outside the cluster, and from a container that looks like its node, is dropped", async () => {
    const receiver = await world.receive(id("w2"), 7101);
    const { address } = box("w2");
    /** A VXLAN device of the attacker's own, which claims to be host 1 to the mesh of host 2. */
    const inject = (from: string): void => {
      const inside = (...words: readonly string[]): string => world.exec(from, ["ip", ...words]);
      inside("link", "add", "vxe", "mtu", "1400", "address", "02:fe:00:00:00:01", ...vxlan);
      inside("link", "set", "vxe", "up");
      inside("addr", "add", "192.0.2.7/32", "dev", "vxe");
      world.exec(from, ["bridge", "fdb", "add", "02:fe:00:00:00:02", "dev", "vxe", "self", "permanent", "dst", own(2)]);
      inside("neigh", "add", address, "lladdr", "02:fe:00:00:00:02", "dev", "vxe", "nud", "permanent");
      inside("route", "add", `${address}/32`, "dev", "vxe", "src", "192.0.2.7");
      world.exec(from, [world.probe, "send", address, "7101", `from ${from}`, "-s", "192.0.2.7"]);
      inside("link", "del", "vxe");
    };
    const vxlan = ["type", "vxlan", "id", "4095", "dstport", "4789"];
    inject("near");
    inject(id("k1"));
    // The same frame from a member arrives: the attack is a real one, and what it would have done is seen.
    world.exec("h1", ["ip", "route", "add", `${address}/32`, "via", gateway(2), "dev", "skepmesh", "onlink"]);
    world.exec("h1", [world.probe, "send", address, "7101", "from a member"]);
    world.exec("h1", ["ip", "route", "del", `${address}/32`]);
    await receiver.until("from a member");
    assert.deepEqual(receiver.heard, ["from a member"]);
    // Frames between members are not tracked, neither where they leave nor where they arrive.
    for (const name of ["h1", "h2"]) {
      assert.doesNotMatch(world.exec(name, ["cat", "/proc/net/nf_conntrack"]), /dport=4789 /u);
    }
    await receiver.end();
  });

  test("a firewall of the host that drops what it does not know is asked to let our links pass", async () => {
    await serve("w2");
    world.exec("h2", ["iptables", "-P", "FORWARD", "DROP"]);
    world.exec("h2", ["iptables", "-P", "INPUT", "DROP"]);
    try {
      assert.match(briefly("far", own(1), 8080), /ERR/);
      await check(2);
      for (const udp of [[], ["-u"]]) assert.match(get("far", own(1), 8080, ...udp), /peer=10\.98\.0\.2:/);
      // Somebody puts a rule before ours, as a firewall does that is loaded anew.
      world.exec("h2", ["iptables", "-I", "FORWARD", "1", "-j", "REJECT"]);
      assert.match(briefly("far", own(1), 8080), /ERR/);
      await check(2);
      assert.match(get("far", own(1), 8080), /peer=10\.98\.0\.2:/);
      const rules = world.exec("h2", ["iptables", "-S"]);
      await check(2);
      assert.equal(world.exec("h2", ["iptables", "-S"]), rules, "a second look changes nothing");
    } finally {
      for (const chain of ["FORWARD", "INPUT"]) {
        world.exec("h2", ["iptables", "-F", chain]);
        world.exec("h2", ["iptables", "-P", chain, "ACCEPT"]);
      }
    }
  });

  test("the rules of both iptables are looked at, where both are in use", async () => {
    await serve("w2");
    world.exec("h2", ["iptables-legacy", "-w", "-P", "FORWARD", "DROP"]);
    try {
      assert.match(briefly("far", own(1), 8080), /ERR/);
      await check(2);
      assert.match(get("far", own(1), 8080), /peer=10\.98\.0\.2:/);
      assert.ok(!world.exec("h2", ["iptables-nft", "-S"]).includes("skep"));
    } finally {
      world.exec("h2", ["iptables-legacy", "-w", "-P", "FORWARD", "ACCEPT"]);
      world.exec("h2", ["iptables-legacy", "-w", "-F"]);
    }
  });

  test("with Docker on the host its own chain for that, DOCKER-USER, is used", async () => {
    const iptables = (...words: readonly string[]): string => world.exec("h3", ["iptables", ...words]);
    iptables("-N", "DOCKER-USER");
    iptables("-A", "DOCKER-USER", "-j", "RETURN");
    iptables("-I", "FORWARD", "-j", "DOCKER-USER");
    iptables("-P", "FORWARD", "DROP");
    await serve("w3");
    assert.match(briefly("far", own(1), 8080), /ERR/);
    await check(3);
    assert.match(get("far", own(1), 8080), /peer=10\.98\.0\.2:/);
    assert.ok(!iptables("-S", "FORWARD").includes("skep"));
    iptables("-P", "FORWARD", "ACCEPT");
    iptables("-F", "FORWARD");
    iptables("-F", "DOCKER-USER");
    iptables("-X", "DOCKER-USER");
  });

  test("a host that did not route before still does not route for others", async () => {
    world.ip("far", "route add 10.77.0.0/24 via 10.98.0.1");
    assert.equal(world.exec("h1", ["sysctl", "-n", "net.ipv4.ip_forward"]).trim(), "1");
    world.ip("near", "route add 10.98.0.0/24 via 10.99.0.1");
    try {
      assert.match(briefly("near", "10.98.0.2", 81), /ERR/);
    } finally {
      world.ip("near", "route del 10.98.0.0/24");
    }
    assert.match(get("near", "10.98.0.2", 81), /^far peer=10\.99\.0\.100:/);
  });

  describe("repair", () => {
    /** Until it answers again: as often as it takes, each try bounded by the probe's own patience. */
    const heals = async (what: string): Promise<void> => {
      const untilMs = performance.now() + 20_000;
      let answers: string[] = [];
      while (performance.now() < untilMs) {
        answers = await Promise.all([
          world.getSoon("far", own(1), 8080),
          world.getSoon("far", own(2), 8080, "-u"),
          world.getSoon("h2", "127.0.0.1", 8080),
        ]);
        if (answers.every((answer) => answer.startsWith(id("w2")))) return;
      }
      assert.fail(`${what}: ${answers.join("; ")}`);
    };
    const vandalisms: readonly (readonly [string, string, readonly string[]])[] = [
      ["nft flush ruleset on the entry host", "h1", ["nft", "flush", "ruleset"]],
      ["nft flush ruleset on the task's host", "h2", ["nft", "flush", "ruleset"]],
      ["the mesh's link is deleted", "h1", ["ip", "link", "del", "skepmesh"]],
      ["the mesh's link of the task's host is deleted", "h2", ["ip", "link", "del", "skepmesh"]],
      ["the mesh's link is down", "h1", ["ip", "link", "set", "skepmesh", "down"]],
      ["the route to the task's host is deleted", "h1", ["ip", "route", "del", "100.64.8.0/22"]],
      ["the way back is deleted", "h2", ["ip", "route", "del", "100.64.4.0/22"]],
      [
        "the fdb entry is deleted",
        "h1",
        ["bridge", "fdb", "del", "02:fe:00:00:00:02", "dev", "skepmesh", "dst", "10.99.0.2"],
      ],
      ["the neighbours are deleted", "h1", ["ip", "neigh", "flush", "nud", "permanent"]],
      ["all routes of ours are deleted", "h2", ["ip", "route", "flush", "proto", "200"]],
      ["the table of the mesh is deleted", "h2", ["nft", "delete", "table", "ip", "skep"]],
      ["the map of the way back is emptied", "h2", ["nft", "flush", "map", "ip", "skep", "hops"]],
      ["the chain that begins the way back is emptied", "h2", ["nft", "flush", "chain", "ip", "skep", "arriving"]],
      ["the chain that ends the way back is emptied", "h2", ["nft", "flush", "chain", "ip", "skep", "answering"]],
      ["elements are taken out", "h1", ["nft", "flush", "map", "ip", "skep", "tcpbe"]],
      ["the route to the task is deleted", "h2", ["sh", "-c", "ip route del $(ip route | grep -o '^100.64.8.2')"]],
      ["the link of the task is down", "h2", ["ip", "link", "set", "skepg64400802", "down"]],
      ["the link of the task is deleted", "h2", ["ip", "link", "del", "skepg64400802"]],
      ["the host's addresses are deleted", "h1", ["ip", "addr", "flush", "dev", "skepmesh"]],
    ];
    for (const [what, where, command] of vandalisms) {
      test(`${what}: it is put right by itself`, async () => {
        await serve("w2");
        await heals("before");
        world.exec(where, command);
        await heals(what);
      });
    }

    test("what led answers back in a version before is taken away, and answers go on", async () => {
      await serve("w2");
      const held = world.hold("far", own(1), 8080);
      assert.match(await held.ask(), new RegExp(id("w2")));
      await hosts.host(2).stop();
      const before = [
        "ip neigh add 169.254.255.254 lladdr 02:fe:00:00:00:00 dev skepmesh nud permanent",
        "ip route add default via 169.254.255.254 dev skepmesh onlink table 5300 proto 200",
        "ip rule add fwmark 0x53000000/0xff000000 lookup 5300 pref 5300 protocol 200",
        "nft 'table netdev skep { map nodemac { type mark : ether_addr; }; chain back { type filter hook egress device skepmesh priority 0; meta mark and 0xff000000 == 0x53000000 ether daddr set meta mark map @nodemac meta mark set 0; }; }'",
        "nft 'add chain ip skep premark { type filter hook prerouting priority mangle; }'",
        "nft add rule ip skep premark ct direction reply ct mark and 0xff000000 == 0x53000000 meta mark set ct mark",
      ];
      world.exec("h2", ["sh", "-ec", before.join("\n")]);
      await hosts.host(2).start();
      await hosts.host(2).plane.replace(recordsOf(2, numbers.map(peerOf), [task("w2")], [ingressService(ports)]));
      const list = "ip rule; ip route show table all; ip neigh; nft list tables; nft list chains";
      const seen = world.exec("h2", ["sh", "-c", list]);
      assert.ok(!/5300|169\.254\.255\.254|netdev|premark/.test(seen), seen);
      assert.match(await held.ask(), new RegExp(id("w2")));
      await held.end();
      assert.match(get("far", own(1), 8080), new RegExp(id("w2")));
    });

    test("skepd starts again under traffic: no connection is lost, and none is refused meanwhile", async () => {
      await serve("w2");
      // A port of its own: tracked connections of earlier tests would lead a client's port to other tasks.
      const fresh = ingressService([...ports, meshPort("tcp", 8085)]);
      await change({ kind: "service", key: "ingress/web", record: fresh });
      const held = world.hold("far", own(1), 8085);
      assert.match(await held.ask(), new RegExp(id("w2")));
      const many = world.start("far", [world.probe, "many", own(1), "8085", "3000"]);
      let answers = "";
      many.stdout?.on("data", (chunk: Buffer) => (answers += chunk.toString()));
      const ended = once(many, "close");
      for (const number of [1, 2]) {
        const host = hosts.host(number);
        await host.stop();
        await host.start();
        await host.plane.replace(recordsOf(number, numbers.map(peerOf), [task("w2")], [fresh]));
      }
      assert.match(await held.ask(), new RegExp(id("w2")));
      await held.end();
      await ended;
      const lines = answers.trim().split("\n");
      assert.equal(lines.length, 3000);
      assert.deepEqual(lines.filter((line) => !line.startsWith(id("w2"))).slice(0, 3), []);
    });

    test("nothing of ours is left in the kernel when the node leaves and its sandboxes go", async () => {
      const host = hosts.host(3);
      for (const one of await host.networks.sandboxes.held()) await host.networks.sandboxes.release(one);
      await host.plane.replace({ nodeId: "", peers: [], endpoints: [], services: [] });
      // The kernel takes a namespace down, and with it the veth of gw0, when its last process has ended.
      world.end(servers.get("w3") ?? assert.fail());
      const list = ["sh", "-c", "ip -o link; ip rule; ip route show table all; nft list tables"];
      const untilMs = performance.now() + 60_000;
      let seen = "";
      do seen = world.exec("h3", list);
      while (seen.includes("skepg") && performance.now() < untilMs);
      // Not `5300` alone, which a link-local address may hold.
      assert.ok(!/skepmesh|skepg|skepl|(?:table|lookup) 5300|proto 200|netdev/.test(seen), seen);
      const table = world.exec("h3", ["nft", "list", "table", "ip", "skep"]);
      assert.ok(!/10\.99\.|100\.64\.[^0]|8080|02:fe/.test(table), table);
      assert.deepEqual(readdirSync(`${host.folder}/netns`), []);
    });
  });
});
