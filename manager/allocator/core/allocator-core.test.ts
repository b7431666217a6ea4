import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { skep } from "../../../proto/index.ts";
import { Ledger } from "./ledger.ts";
import { NodeNumbers } from "./node-numbers.ts";
import { isLow } from "./pressure.ts";
import { PortBook } from "./ports.ts";
import { AddressPool, formatSubnet, freeSubnet, overlap, parseSubnet, type Subnet } from "./subnet.ts";

const subnet = (text: string): Subnet => parseSubnet(text)!;

test("a pool gives out every address but the first and the last, and then says that it is full", () => {
  const pool = new AddressPool(subnet("10.0.7.0/29"), undefined);
  const given = Array.from({ length: 6 }, () => pool.format(pool.take("a")!));
  assert.deepEqual(
    given,
    [1, 2, 3, 4, 5, 6].map((at) => `10.0.7.${at}/29`),
  );
  assert.equal(pool.take("b"), undefined);
  assert.deepEqual([pool.used, pool.size], [6, 6]);
});

test("an address that is given back is given out again as late as possible", () => {
  const pool = new AddressPool(subnet("10.0.7.0/29"), undefined);
  const first = pool.take("a")!;
  pool.release(first, "somebody else");
  assert.equal(pool.used, 1);
  pool.release(first, "a");
  assert.deepEqual(
    Array.from({ length: 6 }, () => pool.formatPlain(pool.take("b")!)),
    ["10.0.7.2", "10.0.7.3", "10.0.7.4", "10.0.7.5", "10.0.7.6", "10.0.7.1"],
  );
});

test("a range limits what is given out, and not what may be asked for", () => {
  const pool = new AddressPool(subnet("10.0.0.0/24"), subnet("10.0.0.64/30"));
  assert.equal(pool.size, 4);
  assert.equal(pool.claim(pool.parse("10.0.0.9")!, "a"), true);
  assert.equal(pool.used, 0);
  assert.equal(pool.claim(pool.parse("10.0.0.9/24")!, "b"), false);
  assert.equal(pool.formatPlain(pool.take("c")!), "10.0.0.64");
  assert.equal(pool.parse("10.0.1.9"), undefined);
  assert.equal(new AddressPool(subnet("fd00::/126"), undefined).format(subnet("fd00::/126").base + 1n), "fd00::1/126");
});

test("a free subnet overlaps nothing that is taken, and none is missed", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 63 }), fc.integer({ min: 26, max: 30 })), { maxLength: 30 }),
      (drawn) => {
        const pools = [subnet("10.0.0.0/26"), subnet("10.1.0.0/27")];
        const taken = drawn.map(([host, prefix]) => subnet(`10.${host % 2}.0.${host}/${prefix}`));
        const found = freeSubnet(pools, 28, taken);
        const all = [0, 16, 32, 48].map((host) => subnet(`10.0.0.${host}/28`));
        all.push(subnet("10.1.0.0/28"), subnet("10.1.0.16/28"));
        const plain = all.find((each) => !taken.some((other) => overlap(each, other)));
        assert.equal(found && formatSubnet(found), plain && formatSubnet(plain));
      },
    ),
  );
});

test("each port is one service's; dynamic ones come from their range and can run out", () => {
  const ports = new PortBook();
  assert.equal(ports.claim(0, 30_001, "other"), true);
  const given = new Set(Array.from({ length: 2767 }, () => ports.take(0, "a")));
  assert.equal(given.size, 2767);
  assert.ok(!given.has(30_001) && !given.has(undefined) && Math.min(...(given as Set<number>)) === 30_000);
  assert.equal(ports.take(0, "b"), undefined);
  assert.equal(ports.take(1, "b"), 30_000);
  ports.release(0, 31_000, "a");
  assert.equal(ports.take(0, "b"), 31_000);
});

// ------------------------------------------------------------------------------------------------------------ ledger

type Network = skep.objects.Network.$Properties;
const network = (id: string, more: Network = {}): skep.objects.Network =>
  skep.objects.Network.decode(skep.objects.Network.encode({ id, spec: { name: id }, ...more }).finish());
const service = (id: string, more: skep.objects.Service.$Properties): skep.objects.Service =>
  skep.objects.Service.decode(skep.objects.Service.encode({ id, ...more }).finish());
const task = (id: string, target: string, addresses: string[] = []): Readonly<skep.objects.Task> => {
  const spec = { networks: [{ target, addresses, aliases: ["x"] }] };
  return skep.objects.Task.decode(skep.objects.Task.encode({ id, spec }).finish());
};

/** As the shell does it: what is granted is in the store, and read from there. */
function open(ledger: Ledger, made: Readonly<skep.objects.Network>): skep.objects.Network {
  ledger.setNetwork(made);
  const answer = ledger.grantNetwork(made);
  if (answer.kind === "refused") assert.fail(answer.refusal.text);
  const opened = network(made.id, { ...made, ...answer.grant });
  ledger.setNetwork(opened);
  return opened;
}

test("networks get numbers from 4096 on and subnets of the pools, one after the other", () => {
  const ledger = new Ledger();
  const first = open(ledger, network("a"));
  const second = open(ledger, network("b"));
  assert.deepEqual([first.vni, second.vni], [4096, 4097]);
  const { subnet, gateway } = second.ipam!.config![0]!;
  assert.deepEqual([first.ipam!.config![0]!.subnet, subnet, gateway], ["10.0.0.0/24", "10.0.1.0/24", "10.0.1.1"]);
  assert.equal(ledger.setNetwork(network("host", { spec: { name: "host", driver: { name: "host" } } })), false);
  ledger.removeNetwork("a");
  assert.equal(open(ledger, network("c")).ipam!.config![0]!.subnet, "10.0.0.0/24");
});

test("a subnet that overlaps another network's is refused with both names, and so is nonsense", () => {
  const ledger = new Ledger();
  open(ledger, network("a"));
  const ask = (config: skep.objects.IpamConfig.$Properties): string => {
    const made = network("b", { spec: { name: "b", ipam: { config: [config] } } });
    ledger.setNetwork(made);
    const answer = ledger.grantNetwork(made);
    return answer.kind === "refused" ? answer.refusal.text : answer.grant.ipam.config![0]!.gateway!;
  };
  assert.match(ask({ subnet: "10.0.0.128/25" }), /overlaps one of network a/);
  assert.match(ask({ subnet: "10.9.0.0/31" }), /no subnet with room/);
  assert.match(ask({ subnet: "ten" }), /no subnet/);
  assert.match(ask({ subnet: "10.9.0.0/24", gateway: "10.8.0.1" }), /gateway 10.8.0.1 is not in 10.9.0.0\/24/);
  assert.equal(ask({ subnet: "10.9.0.0/24", auxiliaryAddresses: { router: "10.9.0.1" } }), "10.9.0.2");
});

test("a network for which no subnet is left says that the pools are full", () => {
  const ledger = new Ledger();
  const cluster = { defaultAddrPool: ["10.20.0.0/23"], subnetSize: 24 } as unknown as skep.objects.Cluster;
  ledger.setCluster(cluster);
  open(ledger, network("a"));
  open(ledger, network("b"));
  const made = network("c");
  ledger.setNetwork(made);
  const answer = ledger.grantNetwork(made);
  assert.equal(answer.kind === "refused" && answer.refusal.reason.addressPoolFull?.subnet, "10.20.0.0/23");
});

test("a service has one virtual address in each network and keeps its ports when its spec changes", () => {
  const ledger = new Ledger();
  open(ledger, network("ingress", { spec: { name: "ingress", ingress: true } }));
  open(ledger, network("net"));
  const spec = { taskTemplate: { networks: [{ target: "net" }] }, endpointSpec: { ports: [{ targetPort: 80 }] } };
  const web = service("web", { spec });
  assert.equal(ledger.setService(web), false);
  const answer = ledger.grantService(web);
  assert.ok(answer.kind === "granted");
  assert.deepEqual(answer.grant.virtualIps, [
    { networkId: "net", addr: "10.0.1.2/24" },
    { networkId: "ingress", addr: "10.0.0.2/24" },
  ]);
  assert.equal(answer.grant.ports?.[0]?.publishedPort, 30_000);
  const granted = service("web", { spec, endpoint: answer.grant });
  assert.equal(ledger.setService(granted), true);
  const ports = [{ targetPort: 443, publishedPort: 30_000 }, { targetPort: 80 }];
  const changed = service("web", { spec: { ...spec, endpointSpec: { ports } }, endpoint: answer.grant });
  assert.equal(ledger.setService(changed), false);
  const again = ledger.grantService(changed);
  assert.ok(again.kind === "granted");
  // The number was asked for, so the port that had it gets another one.
  assert.deepEqual(
    again.grant.ports?.map(({ publishedPort }) => publishedPort),
    [30_000, 30_001],
  );
  assert.deepEqual(again.grant.virtualIps, answer.grant.virtualIps);
});

test("a port that another service publishes is refused with its name, and nothing is kept of the attempt", () => {
  const ledger = new Ledger();
  const publish = (id: string, ...numbers: number[]): ReturnType<Ledger["grantService"]> =>
    ledger.grantService(
      service(id, {
        spec: { endpointSpec: { ports: numbers.map((publishedPort) => ({ targetPort: 80, publishedPort })) } },
      }),
    );
  assert.equal(publish("a", 8080).kind, "granted");
  const refused = publish("b", 9090, 8080);
  assert.equal(refused.kind === "refused" && refused.refusal.reason.portInUse?.usedBy, "a");
  assert.equal(publish("c", 9090).kind, "granted");
  ledger.removeService("a");
  assert.equal(publish("b", 8080).kind, "granted");
});

test("a task gets an address of each family, the one that it asks for, or the reason why not", () => {
  const ledger = new Ledger();
  const config = [{ subnet: "10.5.0.0/29" }, { subnet: "fd00:5::/64" }];
  open(ledger, network("net", { spec: { name: "net", enableIpv6: true, ipam: { config } } }));
  const addressesOf = (id: string, asked: string[] = []): string => {
    const answer = ledger.grantTask(task(id, "net", asked), undefined);
    return answer.kind === "granted" ? (answer.grant.attachments[0]!.addresses ?? []).join(" ") : answer.refusal.text;
  };
  assert.equal(addressesOf("a"), "10.5.0.2/29 fd00:5::2/64");
  assert.equal(addressesOf("a"), "10.5.0.2/29 fd00:5::2/64");
  assert.equal(addressesOf("b", ["10.5.0.6"]), "10.5.0.6/29 fd00:5::3/64");
  assert.equal(addressesOf("v6", ["fd00:5::77"]), "10.5.0.3/29 fd00:5::77/64");
  ledger.removeTask("v6");
  assert.match(addressesOf("c", ["10.5.0.6"]), /belongs to task b/);
  assert.match(addressesOf("c", ["10.6.0.6"]), /in none of its subnets/);
  for (const id of ["d", "e", "f"]) assert.match(addressesOf(id), /^10.5.0.[345]\/29 fd00:5::/);
  assert.match(addressesOf("g"), /6 of 6 addresses of network net are in use/);
  const { releases } = ledger;
  assert.match(addressesOf("g"), /6 of 6/);
  assert.equal(ledger.releases, releases, "an attempt gives nothing back");
  ledger.removeTask("d");
  assert.match(addressesOf("g"), /^10.5.0.4\//);
  assert.match(ledger.grantTask(task("h", "other"), undefined).kind, /refused/);
});

test("IPv6 is given where it is asked for: a subnet of the cluster's, or the network's own", () => {
  const ledger = new Ledger();
  const subnets = (id: string, spec: skep.objects.NetworkSpec.$Properties): string =>
    (open(ledger, network(id, { spec: { name: id, ...spec } })).ipam!.config ?? [])
      .map(({ subnet, gateway }) => `${subnet} ${gateway}`)
      .join(", ");
  assert.equal(subnets("a", { enableIpv6: true }), "10.0.0.0/24 10.0.0.1, fd73:6b65:7000::/64 fd73:6b65:7000::1");
  assert.equal(subnets("b", { enableIpv6: true }), "10.0.1.0/24 10.0.1.1, fd73:6b65:7000:1::/64 fd73:6b65:7000:1::1");
  const ipam = { config: [{ subnet: "fd00:7::/64" }] };
  assert.equal(subnets("c", { enableIpv6: true, ipam }), "10.0.2.0/24 10.0.2.1, fd00:7::/64 fd00:7::1");
  assert.equal(subnets("d", { ipam }), "10.0.3.0/24 10.0.3.1", "without --ipv6 its subnet is not looked at");
  const low = network("low", {
    spec: { name: "low", enableIpv6: true, ipam: { config: [{ subnet: "fe80:1::/64" }] } },
  });
  ledger.setNetwork(low);
  assert.equal(ledger.grantNetwork(low).kind, "refused");
});

test("a service has a virtual address of each family that its network has; one that had one of IPv4 keeps it", () => {
  const ledger = new Ledger();
  const ipam = { config: [{ subnet: "10.7.0.0/29" }, { subnet: "fd00:7::/64" }] };
  open(ledger, network("six", { spec: { name: "six", enableIpv6: true, ipam } }));
  open(ledger, network("four"));
  const specOf = (...targets: string[]): skep.objects.ServiceSpec.$Properties => ({
    taskTemplate: { networks: targets.map((target) => ({ target })) },
  });
  const asks = (id: string, ...targets: string[]): skep.objects.Service => service(id, { spec: specOf(...targets) });
  const given = (asked: Readonly<skep.objects.Service>): skep.objects.Endpoint.$Properties => {
    const answer = ledger.grantService(asked);
    return answer.kind === "granted" ? answer.grant : assert.fail(answer.refusal.text);
  };
  const both = given(asks("s", "six", "four"));
  assert.deepEqual(both.virtualIps, [
    { networkId: "six", addr: "10.7.0.2/29" },
    { networkId: "six", addr: "fd00:7::2/64" },
    { networkId: "four", addr: "10.0.0.2/24" },
  ]);
  assert.equal(ledger.setService(service("s", { spec: specOf("six", "four"), endpoint: both })), true, "settled");
  // As an earlier version left it.
  const old = service("old", {
    spec: specOf("six"),
    endpoint: { virtualIps: [{ networkId: "six", addr: "10.7.0.5/29" }] },
  });
  assert.equal(ledger.setService(old), false);
  assert.deepEqual(given(old).virtualIps, [
    { networkId: "six", addr: "10.7.0.5/29" },
    { networkId: "six", addr: "fd00:7::3/64" },
  ]);
  ledger.removeService("s");
  assert.deepEqual(
    given(asks("next", "six")).virtualIps?.map(({ addr }) => addr),
    ["10.7.0.6/29", "fd00:7::4/64"],
  );
});

test("a ledger that is read from the store gives nothing twice", () => {
  const ledger = new Ledger();
  const opened = open(ledger, network("net"));
  const tasks = ["a", "b", "c"].map((id) => {
    const answer = ledger.grantTask(task(id, "net"), undefined);
    assert.ok(answer.kind === "granted");
    const attachments = [...answer.grant.attachments];
    return { ...task(id, "net"), networksAttachments: attachments };
  });
  const next = new Ledger();
  next.setNetwork(opened);
  for (const each of tasks) next.setTask(each);
  const answer = next.grantTask(task("d", "net"), undefined);
  assert.deepEqual(answer.kind === "granted" && answer.grant.attachments[0]!.addresses, ["10.0.0.5/24"]);
});

test("what a network asks for must make sense: ranges, gateways, auxiliary addresses, several subnets", () => {
  const refusal = (...config: skep.objects.IpamConfig.$Properties[]): string => {
    const ledger = new Ledger();
    const made = network("a", { spec: { name: "a", ipam: { config } } });
    ledger.setNetwork(made);
    const answer = ledger.grantNetwork(made);
    return answer.kind === "refused" ? answer.refusal.text : "granted";
  };
  const subnet = "10.9.0.0/24";
  assert.equal(refusal({ subnet, ipRange: "10.9.0.128/25", auxiliaryAddresses: { a: "10.9.0.1" } }), "granted");
  assert.match(refusal({ subnet, ipRange: "10.8.0.0/25" }), /range 10\.8\.0\.0\/25 is not in 10\.9\.0\.0\/24/);
  assert.match(refusal({ subnet, ipRange: "10.9.0.0/16" }), /is not in/);
  assert.match(refusal({ subnet, ipRange: "nonsense" }), /is not in/);
  assert.match(refusal({ subnet, gateway: "10.9.0.255" }), /is no host's address/);
  assert.match(
    refusal({ subnet, gateway: "10.9.0.9", auxiliaryAddresses: { a: "10.9.0.9" } }),
    /auxiliary address, too/,
  );
  assert.match(refusal({ subnet }, { subnet: "10.9.0.128/25" }), /is asked for twice/);
  assert.match(refusal({ subnet: "100.64.7.0/24" }), /overlaps 100\.64\.0\.0\/10, which is no network's/);
  assert.match(refusal({ subnet: "169.254.3.0/24" }), /which is no network's/);
  assert.equal(refusal({ subnet }, { subnet: "10.10.0.0/24" }, { subnet: "fd00::/64" }), "granted");
});

test("a VXLAN number may be asked for, but not another network's, nor the mesh's", () => {
  const ledger = new Ledger();
  const asking = (id: string, number: string): skep.objects.Network => {
    const options = { "com.docker.network.driver.overlay.vxlanid_list": number };
    return network(id, { spec: { name: id, driver: { name: "overlay", options } } });
  };
  assert.equal(open(ledger, asking("a", "5000")).vni, 5000);
  for (const [number, why] of [
    ["5000", /network a has VXLAN number 5000/],
    ["4095", /VXLAN number 4095 is the mesh's/],
    ["0", /is no VXLAN number/],
    ["16777216", /is no VXLAN number/],
  ] as const) {
    const made = asking(`of ${number}`, number);
    ledger.setNetwork(made);
    const answer = ledger.grantNetwork(made);
    assert.match(answer.kind === "refused" ? answer.refusal.text : "granted", why);
  }
});

test("a pool around the nodes' gateway addresses gives out what lies beside them", () => {
  const ledger = new Ledger();
  const cluster = { id: "c", defaultAddrPool: ["100.0.0.0/9"], subnetSize: 16 };
  ledger.setCluster(skep.objects.Cluster.decode(skep.objects.Cluster.encode(cluster).finish()));
  assert.equal(open(ledger, network("a")).ipam!.config![0]!.subnet, "100.0.0.0/16");
  for (let at = 1; at < 64; at++) open(ledger, network(`a${at}`));
  assert.equal([...ledger.pressures()].at(-1)?.subnets, "100.63.0.0/16");
  const last = network("last");
  ledger.setNetwork(last);
  assert.equal(ledger.grantNetwork(last).kind, "refused");
});

test("several subnets of one network are filled one after the other, and all count for what is left", () => {
  const ledger = new Ledger();
  const config = [{ subnet: "10.9.0.0/30" }, { subnet: "10.9.1.0/29", ipRange: "10.9.1.4/30" }];
  open(ledger, network("a", { spec: { name: "a", ipam: { config } } }));
  const given = ["1", "2", "3", "4"].map((id) => {
    const answer = ledger.grantTask(task(id, "a"), undefined);
    return answer.kind === "granted" ? answer.grant.attachments[0]?.addresses?.[0] : answer.refusal.text;
  });
  assert.deepEqual(given.slice(0, 4), ["10.9.0.2/30", "10.9.1.4/29", "10.9.1.5/29", "10.9.1.6/29"]);
  const [pressure] = ledger.pressures();
  assert.deepEqual([pressure?.size, pressure?.used], [5, 5], "the gateway of the second is outside of its range");
  const full = ledger.grantTask(task("5", "a"), undefined);
  assert.match(full.kind === "refused" ? full.refusal.text : "", /5 of 5 addresses of network a are in use/);
  const asked = ledger.grantTask(task("6", "a", ["10.9.1.2"]), undefined);
  assert.equal(asked.kind, "granted", "a fixed address may lie outside of the range");
  const none = ledger.grantTask(task("7", "a", ["10.9.1.7"]), undefined);
  assert.match(none.kind === "refused" ? none.refusal.text : "", /is no host's/);
});

test("few are left from eight of ten on, and enough only when seven of ten are not in use", () => {
  assert.deepEqual(
    [7, 8].map((used) => isLow({ used, size: 10 }, false)),
    [false, true],
  );
  assert.deepEqual(
    [6, 7].map((used) => isLow({ used, size: 10 }, true)),
    [false, true],
  );
  assert.equal(isLow({ used: 0, size: 0 }, false), false);
});

test("node numbers are unique, go on behind the last one given, and run out", () => {
  const numbers = new NodeNumbers();
  assert.deepEqual([numbers.take("a"), numbers.take("b"), numbers.take("a")], [1, 2, 1]);
  assert.equal(numbers.release("a"), true);
  assert.equal(numbers.take("c"), 3, "a number is given out again as late as possible");
  assert.equal(numbers.claim(2, "d"), false);
  assert.equal(numbers.claim(2, "b"), true);
  assert.equal(numbers.claim(0, "d"), false);
  assert.equal(numbers.claim(4096, "d"), false);
  for (let at = 0; at < 4095 - 2; at++) assert.ok(numbers.take(`n${at}`) !== undefined);
  assert.equal(numbers.used, 4095);
  assert.equal(numbers.take("too many"), undefined);
  numbers.release("b");
  assert.equal(numbers.take("too many"), 2);

  const next = new NodeNumbers();
  next.claim(4095, "x");
  next.claim(7, "y");
  assert.equal(next.take("z"), 8, "a new leader goes on behind what it reads");
});
