import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";

import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { AddressBook } from "./address-book.ts";
import type { SandboxRequest } from "./contract.ts";
import type { HostPort } from "./core/port-claims.ts";
import type { BridgeWish, PublishedPort } from "./core/records.ts";
import { HostChooser } from "./host-choices.ts";
import {
  LocalAddressInUse,
  LocalNetworkInvalid,
  LocalNetworkNotFound,
  LocalNetworkPredefined,
  PortInUse,
} from "./host-errors.ts";
import { LocalNetworks } from "./local-networks.ts";
import { PublishedPorts, type PortHolder } from "./published-ports.ts";

const nameOf = ({ protocol, port, hostAddress }: HostPort): string => `${hostAddress}:${port}/${protocol}`;

/** A host on which some ports are taken already. */
class FakePorts implements PortHolder {
  readonly taken = new Set<string>();
  readonly held = new Set<string>();
  carriesSctp = true;
  /** Netplane is being started again. */
  isGone = false;

  async carries(protocol: HostPort["protocol"]): Promise<boolean> {
    return protocol !== "sctp" || this.carriesSctp;
  }

  async reserve(port: HostPort): Promise<boolean> {
    if (this.isGone) throw new Error("gone");
    if (this.taken.has(`${port.port}`)) return false;
    this.held.add(nameOf(port));
    return true;
  }

  async release(port: HostPort): Promise<void> {
    if (this.isGone) throw new Error("gone");
    this.held.delete(nameOf(port));
  }
}

const publish = (publishedPort: number, more: Partial<PublishedPort> = {}): PublishedPort => ({
  protocol: "tcp",
  targetPort: 80,
  publishedPort,
  hostAddress: "",
  ...more,
});

describe("ports of the host", () => {
  test("a port is held while it is claimed, and another's is refused with its name", async () => {
    const holder = new FakePorts();
    const ports = new PublishedPorts(holder, silentLogger);
    assert.deepEqual(await ports.claim("web", [publish(80), publish(53, { protocol: "udp" })]), [
      publish(80),
      publish(53, { protocol: "udp" }),
    ]);
    assert.deepEqual([...holder.held], [":80/tcp", ":53/udp"]);
    await assert.rejects(ports.claim("api", [publish(81), publish(80)]), (error: PortInUse) => {
      assert.ok(error instanceof PortInUse);
      assert.equal(error.code, "PORT_IN_USE");
      assert.equal(error.usedBy, "web");
      return true;
    });
    assert.deepEqual([...holder.held], [":80/tcp", ":53/udp"], "all or nothing");
    await ports.release("web");
    await ports.release("web");
    assert.equal(holder.held.size, 0);
  });

  test("what cannot be let go now is nobody's, and goes later", async () => {
    const holder = new FakePorts();
    const ports = new PublishedPorts(holder, silentLogger);
    await ports.claim("web", [publish(80), publish(81)]);
    await ports.settleMesh([{ protocol: "tcp", port: 82, hostAddress: "" }]);
    holder.isGone = true;
    await ports.release("web");
    assert.deepEqual([...(await ports.settleMesh([]))], []);
    assert.deepEqual([...holder.held], [":80/tcp", ":81/tcp", ":82/tcp"]);
    assert.equal(ports.isUnsettled([]), true);
    holder.isGone = false;
    await ports.claim("api", [publish(81)]);
    assert.deepEqual([...holder.held], [":81/tcp"]);
    assert.equal(ports.isUnsettled([]), false);
  });

  test("a port of an earlier life that cannot be held any more hinders no other", async () => {
    const holder = new FakePorts();
    const ports = new PublishedPorts(holder, silentLogger);
    holder.isGone = true;
    await ports.adopt("web", [publish(80), publish(81)]);
    await assert.rejects(ports.claim("api", [publish(81)]), { code: "PORT_IN_USE" });
  });

  test("a port of a process of the host stays its own", async () => {
    const holder = new FakePorts();
    holder.taken.add("22");
    const ports = new PublishedPorts(holder, silentLogger);
    await assert.rejects(ports.claim("web", [publish(22)]), /Bind for 0.0.0.0:22 failed: port is already allocated/);
    await assert.rejects(ports.claim("web", [publish(80), publish(80)]), PortInUse);
  });

  test("where no port of the range is free the choice ends and says so", async () => {
    const holder = new FakePorts();
    for (let port = 32_768; port <= 60_999; port += 1) holder.taken.add(String(port));
    const ports = new PublishedPorts(holder, silentLogger);
    await assert.rejects(ports.claim("b", [publish(0)]), { code: "PORT_RANGE_FULL" });
  });

  test("chosen ports go round, so that one that was let go is chosen again last", async () => {
    const holder = new FakePorts();
    holder.taken.add("32769");
    const ports = new PublishedPorts(holder, silentLogger);
    const chosen = async (owner: string): Promise<number | undefined> =>
      (await ports.claim(owner, [publish(0)]))[0]?.publishedPort;
    assert.equal(await chosen("a"), 32_768);
    await ports.release("a");
    assert.equal(await chosen("b"), 32_770);
    assert.equal(await chosen("c"), 32_771);
  });

  test("sctp is published where the kernel carries it, and refused in words where it does not", async () => {
    const holder = new FakePorts();
    const ports = new PublishedPorts(holder, silentLogger);
    await ports.claim("a", [publish(80, { protocol: "sctp" }), publish(80)]);
    assert.deepEqual([...holder.held], [":80/sctp", ":80/tcp"]);
    await ports.release("a");
    holder.carriesSctp = false;
    await assert.rejects(ports.claim("a", [publish(80), publish(80, { protocol: "sctp" })]), {
      code: "PORT_PROTOCOL_UNSUPPORTED",
    });
    assert.equal(holder.held.size, 0);
    const wanted = [
      { protocol: "tcp" as const, port: 80, hostAddress: "" },
      { protocol: "sctp" as const, port: 81, hostAddress: "" },
    ];
    assert.deepEqual([...(await ports.settleMesh(wanted))], ["80/tcp"]);
    assert.deepEqual(ports.refused, ["81/sctp"]);
  });

  test("a port of one family is another than the same of the other; one address and all of a family share it", async () => {
    const ports = new PublishedPorts(new FakePorts(), silentLogger);
    await ports.claim("four", [publish(80)]);
    await ports.claim("six", [publish(80, { hostAddress: "::" })]);
    await ports.claim("one", [publish(81, { hostAddress: "fd99::1" })]);
    await ports.claim("other", [publish(81, { hostAddress: "fd99::2" })]);
    for (const hostAddress of ["::", "fd99::1"]) {
      await assert.rejects(ports.claim("late", [publish(81, { hostAddress })]), { code: "PORT_IN_USE" });
    }
    await assert.rejects(ports.claim("late", [publish(80, { hostAddress: "fd99::1" })]), { code: "PORT_IN_USE" });
    const wanted = ["", "::"].map((hostAddress) => ({ protocol: "tcp" as const, port: 81, hostAddress }));
    assert.deepEqual([...(await ports.settleMesh(wanted))], ["81/tcp"]);
    assert.deepEqual(ports.refused, ["[::]:81/tcp"]);
  });

  test("the mesh gets what is free, tries again what was not, and lets go of what it does not want", async () => {
    const holder = new FakePorts();
    holder.taken.add("22");
    const ports = new PublishedPorts(holder, silentLogger);
    await ports.claim("container", [publish(8080)]);
    const wanted = [22, 80, 8080].map((port) => ({ protocol: "tcp" as const, port, hostAddress: "" }));
    assert.deepEqual([...(await ports.settleMesh(wanted))], ["80/tcp"]);
    assert.deepEqual(ports.refused, ["22/tcp", "8080/tcp"]);
    assert.equal(ports.isUnsettled(wanted), true);
    await assert.rejects(ports.claim("other", [publish(80)]), /ingress mesh/);
    holder.taken.clear();
    await ports.release("container");
    assert.equal((await ports.settleMesh(wanted)).size, 3);
    assert.equal(ports.isUnsettled(wanted), false);
    assert.deepEqual([...(await ports.settleMesh(wanted.slice(0, 1)))], ["22/tcp"]);
    assert.deepEqual([...holder.held], [":22/tcp"]);
  });

  test("ports of an earlier life are ours again, whoever has them meanwhile", async () => {
    const holder = new FakePorts();
    holder.taken.add("80");
    const ports = new PublishedPorts(holder, silentLogger);
    await ports.adopt("old", [publish(80)]);
    await assert.rejects(ports.claim("new", [publish(80)]), /by old/);
  });
});

describe("what sandboxes get of the host", () => {
  let folder: string;
  let networks: LocalNetworks;
  let holder: FakePorts;
  let chooser: HostChooser;
  let ranges: string[];
  const clock = new VirtualClock();
  let nodeNumber = 0;

  const open = async (): Promise<void> => {
    networks = await LocalNetworks.open({
      folder: join(folder, "local"),
      clock,
      logger: silentLogger,
      hostRanges: async () => ranges,
      onV6: async () => undefined,
    });
    holder = new FakePorts();
    const ports = new PublishedPorts(holder, silentLogger);
    chooser = new HostChooser({
      book: new AddressBook(),
      ports,
      networks,
      nodeNumber: () => nodeNumber,
      hasGateway6: () => false,
      onV6: async () => undefined,
    });
  };

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "skepme-"));
    ranges = [];
    nodeNumber = 0;
    await open();
  });
  afterEach(async () => {
    await networks[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  const request = (more: Partial<SandboxRequest> = {}): SandboxRequest => ({
    networks: [],
    gateway: false,
    ports: [],
    containerName: "c",
    hostname: "c",
    dns: [],
    serviceId: "",
    taskId: "",
    ...more,
  });
  const wish = (networkId: string, more: Partial<BridgeWish> = {}): BridgeWish => ({
    kind: "bridge",
    networkId,
    networkName: "blue",
    address: "",
    macAddress: "",
    aliases: [],
    ...more,
  });
  const attach = (id: string, wishes: readonly BridgeWish[], more: Partial<SandboxRequest> = {}) =>
    chooser.choose(
      id,
      request({ networks: wishes, ...more }),
      wishes.map((one, at) => ({ wish: one, interfaceName: `eth${at}` })),
    );
  const facts = (id: string, choice: Awaited<ReturnType<typeof attach>>) => ({
    id,
    tag: id,
    namespacePath: `/ns/${id}`,
    internal: false,
    overlays: [],
    ...choice,
  });
  const bridgeId = (): string => networks.inspect("bridge").network.id;

  test("a node whose block is used up says so, and gives again what was given back", async () => {
    nodeNumber = 1;
    const taken: string[] = [];
    const next = async (): Promise<string> => {
      const id = `t${taken.length}`;
      const { gatewayAddress } = await attach(id, [], { gateway: true, taskId: id });
      taken.push(gatewayAddress);
      return gatewayAddress;
    };
    // 1,024 less the node's own, and those of no host.
    while (taken.length < 1021) await next();
    assert.equal(new Set(taken).size, 1021);
    await assert.rejects(next(), { code: "GATEWAY_ADDRESSES_USED_UP" });
    await chooser.release("t7");
    assert.equal(await next(), taken[7]);
  });

  test("the network bridge is there from the start, and the same after a restart", async () => {
    const record = networks.inspect("bridge");
    assert.equal(record.network.subnet, "172.17.0.0/16");
    await networks[Symbol.asyncDispose]();
    await open();
    assert.deepEqual(networks.inspect("bridge"), record);
    await assert.rejects(networks.remove("bridge"), LocalNetworkPredefined);
    await assert.rejects(networks.create({ name: "host" }), { code: "LOCAL_NETWORK_PREDEFINED" });
  });

  test("networks are made, found by name, id and the beginning of it, and removed", async () => {
    ranges = ["172.18.3.4/24"];
    const { network } = await networks.create({ name: "blue", labels: { a: "b" } });
    assert.equal(network.subnet, "172.19.0.0/16", "beside the bridge and the host's own");
    assert.equal(networks.find("blue")?.network.id, network.id);
    assert.equal(networks.find(network.id.slice(0, 12))?.network.name, "blue");
    await assert.rejects(networks.create({ name: "blue" }), { code: "LOCAL_NETWORK_EXISTS" });
    await assert.rejects(networks.create({ name: "red", ipam: [{ subnet: "172.19.7.0/24" }] }), {
      code: "LOCAL_NETWORK_OVERLAPS",
    });
    await assert.rejects(networks.create({ name: "red", driver: "macvlan" }), { code: "LOCAL_NETWORK_DRIVER_UNKNOWN" });
    const own = { name: "red", enableIpv6: true, ipam: [{ subnet: "fe80::/64" }] };
    await assert.rejects(networks.create(own), { code: "LOCAL_NETWORK_INVALID" });
    ranges = ["172.16.0.0/12", "192.168.0.0/16"];
    await assert.rejects(networks.create({ name: "red" }), { code: "LOCAL_SUBNETS_EXHAUSTED" });
    await networks.remove("blue");
    assert.throws(() => networks.inspect("blue"), { code: "LOCAL_NETWORK_NOT_FOUND" });
  });

  test("a network with a container is neither removed nor pruned", async () => {
    const { network } = await networks.create({ name: "blue" });
    await networks.create({ name: "red" });
    await attach("c1", [wish(network.id)]);
    await assert.rejects(networks.remove("blue"), { code: "LOCAL_NETWORK_IN_USE" });
    const pruned = await networks.prune(() => true);
    assert.deepEqual(
      pruned.map((record) => record.network.name),
      ["red"],
    );
    await chooser.release("c1");
    await networks.remove("blue");
  });

  test("addresses are chosen from the second on, kept when asked again, and given again last", async () => {
    const first = await attach("c1", [wish(bridgeId())]);
    assert.equal(first.bridges[0]?.address, "172.17.0.2/16");
    assert.equal(first.bridges[0]?.macAddress, "02:42:ac:11:00:02");
    assert.equal(first.gatewayAddress, "", "an end of a local network is its way out");
    assert.deepEqual(await attach("c1", [wish(bridgeId())]), first);
    await chooser.release("c1");
    const second = await attach("c2", [wish(bridgeId())]);
    assert.equal(second.bridges[0]?.address, "172.17.0.3/16");
  });

  test("a fixed address is given once, and must be a host's of the network", async () => {
    const fixed = wish(bridgeId(), { address: "172.17.9.9", macAddress: "02:00:00:00:00:07" });
    const choice = await attach("c1", [fixed]);
    assert.deepEqual(
      choice.bridges.map(({ address, macAddress }) => [address, macAddress]),
      [["172.17.9.9/16", "02:00:00:00:00:07"]],
    );
    await assert.rejects(attach("c2", [fixed]), { code: "LOCAL_ADDRESS_IN_USE" });
    await assert.rejects(attach("c2", [wish(bridgeId(), { address: "172.17.0.1" })]), LocalAddressInUse);
    await assert.rejects(attach("c2", [wish(bridgeId(), { address: "10.0.0.1" })]), LocalNetworkInvalid);
    await assert.rejects(attach("c2", [wish("gone")]), LocalNetworkNotFound);
  });

  test("a full network refuses, and a refused sandbox holds nothing", async () => {
    const { network } = await networks.create({ name: "tiny", ipam: [{ subnet: "10.5.0.0/30" }] });
    await attach("c1", [wish(network.id)]);
    await assert.rejects(attach("c2", [wish(bridgeId()), wish(network.id)], { ports: [publish(80)] }), {
      code: "LOCAL_ADDRESSES_EXHAUSTED",
    });
    assert.equal(holder.held.size, 0);
    assert.deepEqual(networks.usedBy(bridgeId()), []);
    const other = await attach("c3", [wish(bridgeId())]);
    assert.ok(other.bridges[0]?.address.startsWith("172.17."));
  });

  test("tasks get gateway addresses of the node's block, containers of block 0, none what needs none", async () => {
    nodeNumber = 3;
    assert.equal((await attach("task", [], { gateway: true, taskId: "task" })).gatewayAddress, "100.64.12.2");
    assert.equal((await attach("own", [], { ports: [publish(80)] })).gatewayAddress, "100.64.0.2");
    assert.equal((await attach("none", [])).gatewayAddress, "");
  });

  test("a block with no address left refuses, and goes on when one is given back", async () => {
    nodeNumber = 3;
    const task = (at: number) => attach(`t${at}`, [], { gateway: true, taskId: `t${at}` });
    for (let at = 0; at < 1021; at += 1) await task(at);
    await assert.rejects(task(1021), { code: "GATEWAY_ADDRESSES_USED_UP" });
    await chooser.release("t5");
    assert.equal((await task(1021)).gatewayAddress, "100.64.12.7");
  });

  test("what was chosen is held again after a restart", async () => {
    nodeNumber = 3;
    const choice = await attach("c1", [wish(bridgeId())], { gateway: true, taskId: "c1", ports: [publish(80)] });
    await networks[Symbol.asyncDispose]();
    await open();
    await chooser.hold(facts("c1", choice));
    assert.deepEqual([...holder.held], [":80/tcp"]);
    assert.deepEqual(networks.usedBy(bridgeId()), ["c1"]);
    const next = await attach("c2", [wish(bridgeId())], { gateway: true, taskId: "c2" });
    assert.deepEqual([next.gatewayAddress, next.bridges[0]?.address], ["100.64.12.3", "172.17.0.3/16"]);
    assert.deepEqual(await attach("c1", [wish(bridgeId())], { gateway: true, taskId: "c1" }), choice);
  });

  test("addresses of IPv6 follow from those of IPv4, or are those asked for, and no two are the same", async () => {
    const made = async (name: string, ...subnets: readonly string[]) =>
      (await networks.create({ name, enableIpv6: true, ipam: subnets.map((subnet) => ({ subnet })) })).network;
    const chosen = await made("chosen");
    assert.deepEqual([chosen.subnet6, chosen.gateway6], ["fd73:6b65:7001::/64", "fd73:6b65:7001::1"]);
    assert.equal((await made("next")).subnet6, "fd73:6b65:7001:1::/64");
    const { id } = await made("blue", "10.7.0.0/24", "fd00:7::/64");
    await assert.rejects(made("again", "fd00:7::/96"), { code: "LOCAL_NETWORK_INVALID" });
    const on = async (name: string, more: Partial<BridgeWish> = {}): Promise<string | undefined> =>
      (await attach(name, [{ ...wish(id), ...more }])).bridges[0]?.address6;
    assert.equal(await on("c1"), "fd00:7::2/64");
    assert.equal(await on("c2", { address6: "fd00:7::3" }), "fd00:7::3/64");
    assert.equal(await on("c3"), "fd00:7::4/64");
    assert.equal(await on("c4", { address: "10.7.0.9" }), "fd00:7::9/64");
    await assert.rejects(on("c5", { address6: "fd00:7::4" }), { code: "LOCAL_ADDRESS_IN_USE" });
    await assert.rejects(on("c5", { address6: "fd00:7::1" }), { code: "LOCAL_ADDRESS_IN_USE" });
    await assert.rejects(on("c5", { address6: "fd00:8::5" }), { code: "LOCAL_NETWORK_INVALID" });
    // Asked for by one, and another's by right of its address of IPv4.
    assert.equal(await on("c6", { address6: "fd00:7::b" }), "fd00:7::b/64");
    assert.equal(await on("c7", { address: "10.7.0.11" }), "fd00:7::1:0:b/64");
  });

  test("an address that two ask for in the same moment is one's, and its network is removed under neither", async () => {
    const ipam = [{ subnet: "10.7.0.0/24" }, { subnet: "fd00:7::/64" }];
    const { id } = (await networks.create({ name: "blue", enableIpv6: true, ipam })).network;
    const at = async (...asked: readonly Partial<BridgeWish>[]): Promise<string[]> => {
      const [first, second] = await Promise.allSettled(
        asked.map((more, number) =>
          attach(`c${number}`, [{ ...wish(id), ...more }], { ports: [publish(8000 + number)] }),
        ),
      );
      const said = [first, second].map((one) =>
        one?.status === "fulfilled"
          ? (one.value.bridges[0]?.address6 ?? "")
          : ((one?.reason as { readonly code: string } | undefined)?.code ?? ""),
      );
      for (const number of asked.keys()) await chooser.release(`c${number}`);
      return said;
    };
    assert.deepEqual(await at({ address: "10.7.0.9" }, { address: "10.7.0.9" }), [
      "fd00:7::9/64",
      "LOCAL_ADDRESS_IN_USE",
    ]);
    assert.deepEqual(await at({ address6: "fd00:7::9" }, { address6: "fd00:7::9" }), [
      "fd00:7::9/64",
      "LOCAL_ADDRESS_IN_USE",
    ]);
    // Of the one it follows from that of IPv4, and the other asks for it; and the other way round.
    assert.deepEqual(await at({ address: "10.7.0.9" }, { address6: "fd00:7::9" }), [
      "fd00:7::9/64",
      "LOCAL_ADDRESS_IN_USE",
    ]);
    assert.deepEqual(await at({ address6: "fd00:7::9" }, { address: "10.7.0.9" }), [
      "fd00:7::9/64",
      "fd00:7::1:0:9/64",
    ]);
    // What is left for another network is its own until that is sure.
    await attach("c0", [wish(id, { address6: "fd00:7::9" })]);
    const moving = attach("c0", [wish(bridgeId())], { ports: [publish(53), publish(53)] });
    await assert.rejects(attach("c1", [wish(id, { address6: "fd00:7::9" })]), { code: "LOCAL_ADDRESS_IN_USE" });
    await assert.rejects(moving, { code: "PORT_IN_USE" });
    assert.deepEqual(networks.usedBy(bridgeId()), []);
    await chooser.release("c0");
    const attaching = attach("c0", [wish(id)], { ports: [publish(80)] });
    await assert.rejects(networks.remove("blue"), { code: "LOCAL_NETWORK_IN_USE" });
    await attaching;
    assert.deepEqual(networks.usedBy(id), ["c0"]);
  });

  test("networks of the user's have names and bridge has none; ports go where the network says", async () => {
    const { network } = await networks.create({
      name: "blue",
      options: { "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1" },
    });
    const onBlue = await attach("c1", [wish(network.id)], {
      ports: [publish(80), publish(81, { hostAddress: "10.0.0.1" })],
    });
    assert.deepEqual(
      onBlue.ports.map(({ hostAddress }) => hostAddress),
      ["127.0.0.1", "10.0.0.1"],
    );
    assert.equal(chooser.resolverOf(facts("c1", onBlue)), "127.0.0.11");
    assert.equal(chooser.hostAddressOf(facts("c1", onBlue)), network.gateway);
    assert.equal(chooser.resolverOf(facts("c2", await attach("c2", [wish(bridgeId())]))), undefined);
  });
});
