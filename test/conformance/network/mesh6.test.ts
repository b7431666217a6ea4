/**
 * The ingress mesh where its network has IPv6, over three hosts in namespaces: every way in, whose address the task sees, ways
 * out, and what must not be. All of it beside the mesh of IPv4, which mesh.test.ts tells of.
 */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { after, before, describe, test } from "node:test";

import type {
  EndpointRecord,
  OverlayNetwork,
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
  overlayOf,
  overlayTask,
  overlayWish,
  peerOf,
  published,
  recordsOf,
  taskOf,
  type NetHost,
} from "./net-host.ts";
import { eventually, output, type NetWorld } from "./world.ts";

const numbers = [1, 2, 3];
/** Of a node, the first of its block. */
const gateway = (number: number): string => `fd73:6b65:7002::6440:${(number * 1024 + 1).toString(16)}`;
const own = (number: number): string => `fd99::${number}`;
/** Of the mesh's IPv6 on a host. Shorter ones come up by chance in link-local addresses. */
const ownTraces = /(?:table|lookup) 5300|fd73:6b65:|ip6 skep/;
const peer = (number: number): PeerRecord => ({ ...peerOf(number), addresses6: [own(number)] });
const peers = numbers.map(peer);
const ports: readonly ServicePort[] = [meshPort("tcp", 8080), meshPort("udp", 8080), meshPort("sctp", 7000)];
const web = (has6 = true, more: readonly ServicePort[] = []): ServiceRecord => ({
  ...ingressService([...ports, ...more]),
  ...(has6 ? { has6 } : {}),
});

describe("the ingress mesh with IPv6", { skip: whySkipped(), timeout: 300_000 }, () => {
  let world: NetWorld;
  let hosts: NetHosts;
  const servers = new Map<string, ChildProcess>();
  const boxes = new Map<string, { readonly number: number; readonly sandbox: Sandbox }>();
  const host = (number: number): NetHost => hosts.host(number);
  const box = (name: string): { readonly number: number; readonly sandbox: Sandbox } =>
    boxes.get(name) ?? assert.fail(name);
  const address = (name: string): string => {
    const [, a = 0, b = 0, c = 0, d = 0] =
      /^(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(box(name).sandbox.gatewayAddress ?? "") ?? [];
    const hex = (high: unknown, low: unknown): string => (Number(high) * 256 + Number(low)).toString(16);
    return `fd73:6b65:7002::${hex(a, b)}:${hex(c, d)}`;
  };
  /** The host's end of its gw0. */
  const linkOf = (name: string): string => {
    const parts = (box(name).sandbox.gatewayAddress ?? "").split(".");
    return `skepg${parts.map((part) => Number(part).toString(16).padStart(2, "0")).join("")}`;
  };
  const task = (name: string, more: Partial<EndpointRecord> = {}): EndpointRecord => ({
    ...taskOf(id(name), box(name).number, box(name).sandbox.gatewayAddress ?? ""),
    ...more,
  });
  const publish = (record: ServiceRecord): Promise<void> =>
    hosts.change({ kind: "service", key: "ingress/web", record });
  const backends = ["w1", "w2", "w3"];
  const serve = (...names: readonly string[]): Promise<void> =>
    hosts.change(
      ...backends.map((name): RecordChange => ({
        kind: "endpoint",
        key: `ingress/${id(name)}`,
        record: task(name, { serving: names.includes(name) }),
      })),
    );
  const known = (name: string): string => (boxes.has(name) ? id(name) : name);
  const get = (from: string, to: string, port: number, ...more: readonly string[]): string =>
    world.get(known(from), to, port, ...more).trim();
  /** Where nobody is to answer. */
  const briefly = (from: string, to: string, port: number, ...more: readonly string[]): string =>
    world.getBriefly(known(from), to, port, ...more).trim();
  const seen = (name: string, source: string): RegExp => new RegExp(`^${known(name)} peer=\\[${source}\\]:`);
  const hold = (from: string, to: string, port: number, ...more: readonly string[]) =>
    world.hold(known(from), to, port, ...more);
  const attach = async (name: string, number: number, more: Parameters<NetHost["attach"]>[1] = {}): Promise<void> => {
    const sandbox = await host(number).attach(id(name), { gateway: true, taskId: id(name), ...more });
    boxes.set(name, { number, sandbox });
  };

  before(async () => {
    hosts = await NetHosts.open("skepme6", 3, async (built) => {
      built.sysctl("sw", "net.ipv6.conf.all.forwarding=1");
      built.ip("sw", "addr add fd99::fe/64 dev br0 nodad");
      built.ip("sw", "addr add fd98::1/64 dev far nodad");
      built.ip("far", "addr add fd98::2/64 dev eth0 nodad");
      built.ip("far", "-6 route add default via fd98::1");
      for (const [name, own6] of [...numbers.map((one) => [`h${one}`, own(one)] as const), ["near", "fd99::64"]]) {
        built.ip(name, `addr add ${own6}/64 dev eth0 nodad`);
        built.ip(name, "-6 route add default via fd99::fe");
      }
      await built.serve("far", 81, "::");
      // A link that is new does not answer before it knows that its address is nobody else's (RFC 4862 §5.4).
      for (const one of numbers) await eventually(() => /refused/.test(built.get("far", own(one), 79)));
    });
    ({ world } = hosts);
    await hosts.replace([], [web(false)], peers);
    for (const [name, number] of [
      ["w1", 1],
      ["w2", 2],
      ["w3", 3],
      ["k1", 1],
    ] as const) {
      // prettier-ignore
      await attach(name, number, { serviceId: "web" });
      servers.set(name, await world.serve(id(name), 80, "::"));
    }
    await serve(...backends);
  });
  after(() => hosts.close());

  test("without it no node has anything of it", () => {
    for (const number of numbers) {
      assert.match(world.attempt(`h${number}`, ["nft", "list", "table", "ip6", "skep"]), /No such file/);
      const shown = world.exec(`h${number}`, ["sh", "-c", "ip -6 rule; ip -6 route; ip -6 addr show"]);
      assert.doesNotMatch(shown, ownTraces);
    }
    assert.doesNotMatch(world.ip(id("w1"), "-6 addr show dev gw0"), ownTraces);
    assert.match(get("far", own(1), 8080), /refused/);
  });

  test("tasks that run get it when it comes, and every way in leads to one, which sees who asks", async () => {
    await publish(web());
    const wrong: string[] = [];
    for (const backend of backends) {
      await serve(backend);
      const at = box(backend).number;
      const expect = (from: string, entry: string, source: string, udp: readonly string[]): void => {
        const answer = get(from, entry, 8080, ...udp);
        if (!seen(backend, source).test(answer))
          wrong.push(`${from} to ${entry} ${udp.join("")} (${backend}): ${answer}, and not from ${source}`);
      };
      for (const udp of [[], ["-u"]]) {
        for (const entry of numbers) {
          expect("far", own(entry), "fd98::2", udp);
          expect("near", own(entry), "fd99::64", udp);
          // As in IPv4: through another node a container is masqueraded as its node, and back on that node as the entry.
          const bounced = at === 1 ? gateway(entry) : own(1);
          expect("k1", own(entry), entry === 1 ? address("k1") : bounced, udp);
          expect("w1", own(entry), entry === 1 ? (at === 1 ? gateway(1) : address("w1")) : bounced, udp);
          for (const one of numbers)
            expect(`h${one}`, own(entry), one === at && one !== entry ? gateway(entry) : own(one), udp);
        }
        // By its loopback a host has no address that a task could answer to.
        for (const one of numbers) expect(`h${one}`, "::1", gateway(one), udp);
      }
    }
    assert.deepEqual(wrong, []);
  });

  test("SCTP goes the same ways", async () => {
    await serve("w3");
    const server = world.start(id("w3"), [world.probe, "sctp-serve", "w3", "80", "::"]);
    await output(server);
    for (const entry of numbers) {
      const answer = world.attempt("far", [world.probe, "sctp-get", own(entry), "7000", "-w", "15000"]);
      assert.match(answer, /^w3 peer=\[fd98::2\]:\d+$/, `through ${entry}`);
      const looped = world.attempt(`h${entry}`, [world.probe, "sctp-get", "::1", "7000", "-w", "15000"]);
      assert.match(looped, new RegExp(`^w3 peer=\\[${gateway(entry)}\\]:\\d+$`), `by the loopback of ${entry}`);
    }
    world.end(server);
  });

  test("connections are spread over all tasks, and a port without one refuses at once", async () => {
    await serve(...backends);
    const answers = world.attempt("far", [world.probe, "many", own(1), "8080", "90"]).split("\n");
    assert.deepEqual(new Set(answers.map((answer) => answer.split(" ")[0])), new Set(backends.map(id)));
    await serve();
    for (const udp of [[], ["-u"]]) {
      for (const [from, to] of [
        ["far", own(1)],
        ["h1", "::1"],
      ] as const)
        assert.match(get(from, to, 8080, ...udp), /refused/, `${from} to ${to}`);
    }
  });

  test("who sends to ::1, or from it, over a link is not heard by what listens there", async () => {
    const receiver = await world.receive("h1", 7102, 6);
    // The container does without a loopback of its own, so that its datagrams to that address leave it.
    world.ip(id("k1"), "-6 route del local ::1 dev lo table local");
    world.ip(id("k1"), `-6 route add ::1/128 via ${gateway(1)} dev gw0`);
    world.exec(id("k1"), [world.probe, "send", "::1", "7102", "to the loopback", "-s", address("k1")]);
    world.ip(id("k1"), "-6 route del ::1/128 dev gw0");
    const forge =
      "table ip6 forge { chain out { type nat hook postrouting priority srcnat; udp dport 7102 snat to ::1; }; }";
    world.exec(id("k1"), ["nft", forge]);
    world.exec(id("k1"), [world.probe, "send", gateway(1), "7102", "from the loopback", "-s", address("k1")]);
    world.exec(id("k1"), ["nft", "delete table ip6 forge"]);
    world.ip(id("k1"), "-6 route add local ::1 dev lo table local");
    world.exec(id("k1"), [world.probe, "send", gateway(1), "7102", "honest", "-s", address("k1")]);
    await receiver.until("honest");
    await receiver.end();
    assert.deepEqual(receiver.heard, ["honest"]);
    // The way that answers take, and nobody else, is there all the same.
    assert.match(world.ip("h1", `-6 route show table local dev ${linkOf("k1")}`), /local ::1/);
  });

  test("one client port through two hosts to one task: both connections live", async () => {
    await serve("w3");
    const first = hold("far", own(1), 8080, "-p", "4000");
    assert.match(await first.ask(), seen("w3", "fd98::2"));
    const second = hold("far", own(2), 8080, "-p", "4000");
    assert.match(await second.ask(), seen("w3", "fd98::2"));
    assert.match(await first.ask(), seen("w3", "fd98::2"));
    await first.end();
    await second.end();
  });

  test("a task that is drained keeps its connections and gets no new one; UDP moves when it has ended", async () => {
    await serve("w2");
    const tcp = hold("far", own(1), 8080);
    const udp = (...more: readonly string[]): Promise<string> =>
      world.getSoon("far", own(1), 8080, "-u", "-p", "5001", ...more);
    const patient = (): Promise<string> => udp("-w", "15000");
    for (const ask of [() => tcp.ask(), patient]) assert.match(await ask(), seen("w2", "fd98::2"));
    await serve("w3");
    for (const ask of [() => tcp.ask(), patient]) assert.match(await ask(), seen("w2", "fd98::2"));
    for (let time = 0; time < 6; time += 1) assert.match(get("far", own(1), 8080), seen("w3", "fd98::2"));
    await tcp.end();
    await hosts.change({ kind: "endpoint", key: `ingress/${id("w2")}`, record: undefined });
    await eventually(async () => seen("w3", "fd98::2").test((await udp()).trim()));
  });

  test("large datagrams arrive, cut as the path wants it once the sender has been told", async () => {
    await serve("w2");
    // Routers of IPv6 cut nothing; what is too long for the mesh's link is told to the sender, who cuts from then on.
    briefly("far", own(1), 8080, "-u", "-l", "20000");
    assert.match(get("far", own(1), 8080, "-u", "-l", "20000"), seen("w2", "fd98::2"));
    for (const one of numbers) assert.match(get(`h${one}`, "::1", 8080, "-u", "-l", "20000"), seen("w2", gateway(one)));
  });

  test("a host-mode port is on its host alone; one that a process has stays its own, of each family by itself", async () => {
    await attach("hm", 2, { ports: [published(9000), published(9000, { protocol: "udp" })] });
    assert.deepEqual(
      box("hm").sandbox.ports.map(({ hostAddress }) => hostAddress),
      ["", "::", "", "::"],
    );
    await world.serve(id("hm"), 80, "::");
    for (const udp of [[], ["-u"]]) {
      assert.match(get("far", own(2), 9000, ...udp), seen("hm", "fd98::2"));
      assert.match(get("h2", own(2), 9000, ...udp), seen("hm", own(2)));
      assert.match(briefly("far", own(1), 9000, ...udp), /ERR/);
    }
    await host(2).networks.sandboxes.release(id("hm"));
    boxes.delete("hm");
    assert.match(get("far", own(2), 9000), /refused/);

    const process = await world.serve("h2", 2222, "::");
    await serve("w1");
    await publish(web(true, [meshPort("tcp", 2222)]));
    assert.match(get("far", own(2), 2222), seen("h2", "fd98::2"));
    assert.match(get("far", own(1), 2222), seen("w1", "fd98::2"));
    assert.match(get("far", "10.99.0.2", 2222), new RegExp(`^ERR|^${id("w1")}`));
    assert.deepEqual(host(2).host.refusedPorts, ["[::]:2222/tcp"]);
    await world.ended(process);
    await host(2).host.check(host(2).networks);
    assert.match(get("far", own(2), 2222), seen("w1", "fd98::2"));
    assert.match(world.attempt("h2", [world.probe, "serve", "x", "2222", "::"]), /in use/);
    await publish(web());
  });

  test("the way out is masqueraded as the host, and nothing goes sideways by gateway addresses", () => {
    for (const udp of [[], ["-u"]]) {
      assert.match(get("k1", "fd98::2", 81, ...udp), seen("far", own(1)));
      for (const name of backends) assert.match(briefly("k1", address(name), 80, ...udp), /ERR/);
    }
  });

  test("nobody outside reaches a gateway address, nor what listens at the node's own", async () => {
    await world.serve("h2", 53, gateway(2));
    world.ip("near", `-6 route add fd73:6b65:7002::/96 via ${own(2)}`);
    try {
      for (const udp of [[], ["-u"]]) {
        assert.match(briefly("near", address("w2"), 80, ...udp), /ERR/);
        assert.match(briefly("near", gateway(2), 53, ...udp), /ERR/);
        assert.match(get("w2", gateway(2), 53, ...udp), seen("h2", address("w2")));
      }
    } finally {
      world.ip("near", "-6 route del fd73:6b65:7002::/96");
    }
  });

  test("a source that is not its own gets a container nowhere, link-local ones included", async () => {
    const receiver = await world.receive("far", 7100, 6);
    const stolen = address("w1");
    world.ip(id("k1"), `addr add ${stolen}/128 dev gw0 nodad`);
    world.exec(id("k1"), [world.probe, "send", "fd98::2", "7100", "spoofed", "-s", stolen]);
    world.ip(id("k1"), `addr del ${stolen}/128 dev gw0`);
    world.exec(id("k1"), [world.probe, "send", "fd98::2", "7100", "honest", "-s", address("k1")]);
    await receiver.until("honest");
    await receiver.end();
    assert.deepEqual(receiver.heard, ["honest"]);
    await world.serve("h1", 8222, "::");
    const link = linkOf("k1");
    world.ip("h1", `addr add fe80::99/64 dev ${link} nodad`);
    const shell = "exec 3<>/dev/tcp/fe80::99%gw0/8222 && echo reached";
    assert.doesNotMatch(world.attempt(id("k1"), ["timeout", "1", "bash", "-c", shell]), /reached/);
    world.ip("h1", `addr del fe80::99/64 dev ${link}`);
  });

  test("a container that says it is a router, or a neighbour, is not believed by its host", async () => {
    await serve("w2");
    // As a host is that has its own default route by advertisements.
    world.exec("h1", ["sh", "-c", "for one in /proc/sys/net/ipv6/conf/skep*/accept_ra; do echo 2 > $one; done"]);
    // In an order of our own: the kernel's table grows, and is listed in another one then.
    const look = ["sh", "-c", "ip -6 route; ip -6 neigh show nud permanent | sort"];
    const before = world.exec("h1", look);
    for (const claimed of [own(1), own(2), address("w1"), "fd98::2"]) {
      for (const what of ["router", "neighbour"]) world.exec(id("k1"), [world.probe, "claim6", what, "gw0", claimed]);
    }
    assert.equal(world.exec("h1", look), before);
    assert.match(get("far", own(1), 8080), seen("w2", "fd98::2"));
    assert.match(get("k1", "fd98::2", 81), seen("far", own(1)));
  });

  test("frames of the mesh from who is no member are dropped, whatever is inside", async () => {
    const receiver = await world.receive(id("w2"), 7101, 6);
    const target = address("w2");
    const inject = (from: string): void => {
      const inside = (words: string): string => world.ip(from, words);
      inside("link add vxe mtu 1400 address 02:fe:00:00:00:01 type vxlan id 4095 dstport 4789");
      inside("link set vxe up");
      inside("addr add fd66::7/128 dev vxe nodad");
      world.exec(from, [
        "bridge",
        "fdb",
        "add",
        "02:fe:00:00:00:02",
        "dev",
        "vxe",
        "self",
        "permanent",
        "dst",
        "10.99.0.2",
      ]);
      inside("neigh add fe80::2 lladdr 02:fe:00:00:00:02 dev vxe nud permanent");
      inside(`-6 route add ${target}/128 via fe80::2 dev vxe src fd66::7`);
      world.exec(from, [world.probe, "send", target, "7101", `from ${from}`, "-s", "fd66::7"]);
      inside("link del vxe");
    };
    inject("near");
    inject(id("k1"));
    // The same from a member arrives: the attack is a real one.
    world.exec("h1", [world.probe, "send", target, "7101", "from a member", "-s", gateway(1)]);
    await receiver.until("from a member");
    await receiver.end();
    assert.deepEqual(receiver.heard, ["from a member"]);
  });

  test("a host that did not route IPv6 before still does not route for others", () => {
    assert.equal(world.exec("h1", ["sysctl", "-n", "net.ipv6.conf.all.forwarding"]).trim(), "1");
    world.ip("near", `-6 route add fd98::/64 via ${own(1)}`);
    assert.match(briefly("near", "fd98::2", 81), /ERR/);
    world.ip("near", "-6 route del fd98::/64");
    assert.match(get("near", "fd98::2", 81), seen("far", "fd99::64"));
  });

  describe("ways out of overlays", () => {
    const both = { subnet6: "fd00:b1::/64", gateway6: "fd00:b1::1" };
    const blue = overlayOf("blue", 4097, both);
    const inner = overlayOf("inner", 4098, { ...both, internal: true });
    const on = (network: OverlayNetwork, last: number) => overlayWish(overlayTask("", network, 1, last));

    test("an internal network has none, and its ports are not published", async () => {
      await attach("in", 1, { networks: [on(inner, 11)], ports: [published(9001)] });
      await world.serve(id("in"), 80, "::");
      for (const udp of [[], ["-u"]]) {
        assert.match(briefly("in", "fd98::2", 81, ...udp), /ERR/);
        assert.match(briefly("in", own(1), 8222, ...udp), /ERR/);
      }
      assert.match(briefly("far", own(1), 9001), /ERR/);
      await host(1).networks.sandboxes.release(id("in"));
      boxes.delete("in");
    });

    test("without IPv6 in the mesh, tasks on a network with it go out by it, and others have none", async () => {
      await publish(web(false));
      for (const number of numbers) {
        const shown = world.exec(`h${number}`, ["sh", "-c", "ip -6 rule; ip -6 route; nft list tables"]);
        assert.doesNotMatch(shown, ownTraces);
      }
      assert.match(get("far", own(1), 8080), /refused/);
      assert.match(briefly("k1", "fd98::2", 81), /ERR/);
      await attach("out", 1, { networks: [on(blue, 12)], ports: [published(9002)] });
      await attach("int", 1, { networks: [on(inner, 13)] });
      await world.serve(id("out"), 80, "::");
      for (const udp of [[], ["-u"]]) {
        assert.match(get("out", "fd98::2", 81, ...udp), seen("far", own(1)));
        assert.match(briefly("int", "fd98::2", 81, ...udp), /ERR/);
      }
      assert.match(get("far", own(1), 9002), seen("out", "fd98::2"));
      for (const name of ["out", "int"]) {
        await host(1).networks.sandboxes.release(id(name));
        boxes.delete(name);
      }
      assert.match(world.attempt("h1", ["nft", "list", "table", "ip6", "skep"]), /No such file/);
      await publish(web());
    });
  });

  describe("repair", () => {
    const heals = (): Promise<void> =>
      eventually(async () => {
        const [one, other, out] = await Promise.all([
          world.getSoon("far", own(1), 8080),
          world.getSoon("far", own(2), 8080, "-u"),
          world.getSoon(id("w2"), "fd98::2", 81),
        ]);
        return [one, other].every((answer) => answer.startsWith(id("w2"))) && out.startsWith("far");
      });
    test("the ways back to ::1 are deleted: they are put right by themselves", async () => {
      for (const [backend, link] of [
        ["w1", linkOf("w1")],
        ["w2", "skepmesh"],
      ] as const) {
        await serve(backend);
        const isBack = async (): Promise<boolean> =>
          (await world.getSoon("h1", "::1", 8080, "-w", "2000")).startsWith(id(backend));
        await eventually(isBack);
        world.ip("h1", `-6 route del local ::1 dev ${link} table local`);
        await eventually(isBack);
        assert.match(world.ip("h1", "-6 route show table local ::1"), /dev lo/);
      }
    });

    for (const [what, where, command] of [
      ["nft flush ruleset on the entry host", "h1", "nft flush ruleset"],
      ["nft flush ruleset on the task's host", "h2", "nft flush ruleset"],
      ["the table is deleted", "h2", "nft delete table ip6 skep"],
      ["the mesh's link is deleted", "h1", "ip link del skepmesh"],
      ["the mesh's link of the task's host is deleted", "h2", "ip link del skepmesh"],
      ["the route to the task's host is deleted", "h1", "ip -6 route del fd73:6b65:7002::6440:800/118"],
      ["the way back is deleted", "h2", "ip -6 route del fd73:6b65:7002::6440:400/118"],
      ["the map of the way back is emptied", "h2", "nft flush map ip6 skep hops"],
      ["the chain that begins the way back is emptied", "h2", "nft flush chain ip6 skep arriving"],
      ["the chain that ends the way back is emptied", "h2", "nft flush chain ip6 skep answering"],
      ["the neighbours are deleted", "h1", "ip -6 neigh flush nud permanent"],
      ["all routes of ours are deleted", "h2", "ip -6 route flush proto 200"],
      ["elements are taken out", "h1", "nft flush map ip6 skep tcpbe"],
      ["the host's addresses are deleted", "h2", "ip -6 addr flush dev skep0 scope global"],
    ] as const) {
      test(`${what}: it is put right by itself`, async () => {
        await serve("w2");
        await heals();
        world.exec(where, command.split(" "));
        await heals();
      });
    }

    test("skepd starts again under traffic: no connection is lost, also while nobody has told it anything yet", async () => {
      await serve("w2");
      const held = hold("far", own(1), 8080);
      const looped = hold("h1", "::1", 8080);
      const look = async (): Promise<void> => {
        assert.match(await held.ask(), seen("w2", "fd98::2"));
        assert.match(await looped.ask(), seen("w2", gateway(1)));
      };
      await look();
      for (const number of [1, 2]) {
        await host(number).stop();
        await host(number).start();
        for (let time = 0; time < 3; time += 1) assert.match(get("far", own(1), 8080), seen("w2", "fd98::2"));
        await look();
        await host(number).plane.replace(recordsOf(number, peers, [task("w2")], [web()]));
        await look();
      }
      await held.end();
      await looped.end();
      for (const number of [1, 2]) {
        await eventually(async () => (await host(number).networks.differences()).length === 0);
      }
    });

    test("a table of a daemon of before, whose sets were others, is replaced", async () => {
      await serve("w2");
      await host(1).stop();
      world.exec("h1", ["nft", "delete", "table", "ip6", "skep"]);
      const before = `table ip6 skep {
  map ports { type inet_proto . inet_service : verdict; }
  map tcpto { typeof tcp dport : ip6 daddr . tcp dport; elements = { 8080 : fd00:61::4 . 80 } }
  chain tcp1 { dnat ip6 to tcp dport map @tcpto; }
  chain pre { type nat hook prerouting priority dstnat; policy accept; meta l4proto . th dport vmap @ports; }
}
add element ip6 skep ports { tcp . 9999 : goto tcp1 }
`;
      world.exec("h1", ["nft", "-f", "-"], before);
      await host(1).start();
      await host(1).plane.replace(recordsOf(1, peers, [task("w2")], [web()]));
      assert.match(get("far", own(1), 8080), seen("w2", "fd98::2"));
      assert.doesNotMatch(world.exec("h1", ["nft", "list", "table", "ip6", "skep"]), /9999/);
    });

    test("nothing of it is left when the node leaves and its sandboxes go", async () => {
      for (const one of await host(3).networks.sandboxes.held()) await host(3).networks.sandboxes.release(one);
      await host(3).plane.replace({ nodeId: "", peers: [], endpoints: [], services: [] });
      world.end(servers.get("w3") ?? assert.fail());
      const look = ["sh", "-c", "ip -o link; ip -6 rule; ip -6 route show table all; nft list tables"];
      await eventually(() => {
        const left = world.exec("h3", look);
        return !left.includes("skepg") && !ownTraces.test(left);
      });
    });
  });
});
