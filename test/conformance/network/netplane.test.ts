/** netplane against the real kernel, in namespaces of its own (docs/design/netplane.md). */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { test } from "node:test";

import { NetplaneGone, NetplaneNotStarted, NetplaneRefused } from "../../../worker/network/netplane-errors.ts";
import { Netplane } from "../../../worker/network/netplane.ts";
import type { Dump, DumpPart, ElementSet, FieldType, Operation } from "../../../worker/network/netplane-types.ts";
import { Random } from "../../../lib/pure/prng.ts";
import { realClock, silentLogger } from "../../../lib/runtime/index.ts";
import { NetplaneHost, netplaneProgram } from "./netplane-host.ts";

const skip =
  process.getuid?.() !== 0
    ? "needs root"
    : existsSync(netplaneProgram)
      ? false
      : "needs the native programs (make -C native)";
const options = { skip, timeout: 60_000 };
const everything: readonly DumpPart[] = ["links", "addresses", "routes", "neighbours", "fdb", "rules"];

/** A test with a host, closed at its end. */
function onHost(name: string, body: (host: NetplaneHost) => Promise<void>): void {
  void test(name, options, async () => {
    const host = await NetplaneHost.open();
    try {
      await body(host);
    } finally {
      await host.close();
    }
  });
}

/** Adds namespaces and answers their paths. */
async function addNamespaces(host: NetplaneHost, ...names: string[]): Promise<string[]> {
  const paths = names.map((name) => host.path(name));
  await host.netplane.run(
    "",
    paths.map((path) => ({ op: "namespace-add", path }) as const),
  );
  return paths;
}

async function dumpOf(host: NetplaneHost, namespace: string, ...what: DumpPart[]): Promise<Dump> {
  const [dump] = await host.netplane.run(namespace, [{ op: "dump", what }]);
  return dump;
}

const failsWith =
  (errno: string, index: number, text = /./) =>
  (error: unknown): true => {
    assert.ok(error instanceof NetplaneRefused, String(error));
    assert.equal(error.code, "NETPLANE_REFUSED");
    assert.deepEqual({ errno: error.errno, index: error.index }, { errno, index }, error.message);
    assert.match(error.message, text);
    return true;
  };

const map = (name: string, key: FieldType[], data?: (FieldType | "verdict")[], interval?: boolean): ElementSet => ({
  family: "ip",
  table: "skep",
  name,
  key,
  ...(data === undefined ? {} : { data }),
  ...(interval === undefined ? {} : { interval }),
});

/** Nobody listens there, and the one who says so is the other end. */
function assertReaches(host: NetplaneHost, namespace: string, address: string): void {
  const said = host.sh(namespace, `timeout 15 bash -c ': >/dev/tcp/${address}/9' 2>&1 || true`);
  assert.match(said, /Connection refused/);
}

/** A container's veth into the namespace of its network, as network.md §2 has it. */
function endpoint(container: string, number: number): { network: Operation[]; inside: Operation[] } {
  const mac = `02:42:0a:00:01:${number.toString(16).padStart(2, "0")}`;
  const address = `10.0.1.${number}`;
  return {
    network: [
      {
        op: "link-add",
        kind: "veth",
        name: `v${number}`,
        mac: "02:fe:ff:ff:ff:01",
        mtu: 1450,
        up: true,
        alias: `skep:t${number}`,
        peer: { name: "eth0", namespace: container, mac, mtu: 1450 },
      },
      { op: "neighbour-set", address, mac, link: `v${number}` },
      { op: "route-add", destination: `${address}/32`, link: `v${number}` },
    ],
    inside: [
      { op: "link-set", name: "lo", up: true },
      { op: "link-set", name: "eth0", up: true, alias: `skep:t${number}` },
      { op: "address-set", address: `${address}/24`, link: "eth0", noPrefixRoute: true },
      { op: "neighbour-set", address: "10.0.1.1", mac: "02:fe:ff:ff:ff:01", link: "eth0" },
      { op: "route-add", destination: "10.0.1.1/32", link: "eth0" },
      { op: "route-add", destination: "10.0.1.0/24", via: "10.0.1.1", link: "eth0", source: address },
    ],
  };
}

/** An overlay's namespace on one host, with containers. */
async function network(
  host: NetplaneHost,
  name: string,
  ...numbers: number[]
): Promise<{ path: string; containers: string[] }> {
  const [path = ""] = await addNamespaces(host, name);
  await host.netplane.run(path, [
    { op: "sysctl-write", name: "net/ipv4/ip_forward", value: "1" },
    { op: "link-set", name: "lo", up: true },
    { op: "address-set", address: "10.0.1.1/32", link: "lo" },
  ]);
  const containers: string[] = [];
  for (const number of numbers) {
    const container = host.path(`c${number}`);
    containers.push(container);
    const { network: outside, inside } = endpoint(container, number);
    await host.netplane.runAll([
      { namespace: "", operations: [{ op: "namespace-add", path: container }] },
      { namespace: path, operations: outside },
      { namespace: container, operations: inside },
    ]);
  }
  return { path, containers };
}

onHost("containers of a network that routes reach each other, and a dump says what was asked for", async (host) => {
  const { path, containers } = await network(host, "n", 11, 12);
  assertReaches(host, containers[0] ?? "", "10.0.1.12");
  const dump = await dumpOf(host, containers[0] ?? "", ...everything);
  assert.deepEqual(
    { ...dump, links: dump.links?.map((link) => ({ ...link, index: 0 })) },
    {
      links: [
        { name: "eth0", index: 0, kind: "veth", up: true, mtu: 1450, mac: "02:42:0a:00:01:0b", alias: "skep:t11" },
      ],
      addresses: [{ address: "10.0.1.11/24", link: "eth0", noPrefixRoute: true }],
      routes: [
        { destination: "10.0.1.0/24", link: "eth0", via: "10.0.1.1", source: "10.0.1.11" },
        { destination: "10.0.1.1/32", link: "eth0" },
      ],
      neighbours: [{ address: "10.0.1.1", mac: "02:fe:ff:ff:ff:01", link: "eth0" }],
      fdb: [],
      rules: [],
    },
  );
  const router = await dumpOf(host, path, "routes", "addresses");
  assert.deepEqual(router.routes, [
    { destination: "10.0.1.11/32", link: "v11" },
    { destination: "10.0.1.12/32", link: "v12" },
  ]);
  assert.deepEqual(router.addresses, [], "lo is not ours");
});

onHost(
  "a vxlan link is made in one namespace and lives in another; two hosts reach each other through it",
  async (host) => {
    const [a = "", b = ""] = await addNamespaces(host, "host-a", "host-b");
    await host.netplane.runAll([
      {
        namespace: a,
        operations: [
          { op: "link-add", kind: "veth", name: "wire", peer: { name: "wire", namespace: b } },
          { op: "link-set", name: "wire", up: true },
          { op: "address-set", address: "10.99.0.1/24", link: "wire" },
        ],
      },
      {
        namespace: b,
        operations: [
          { op: "link-set", name: "wire", up: true },
          { op: "address-set", address: "10.99.0.2/24", link: "wire" },
        ],
      },
    ]);
    const nets = { a: await network(host, "net-a", 11), b: await network(host, "net-b", 21) };
    for (const [own, other, outer, peer, task] of [
      ["a", "2", a, 2, 21],
      ["b", "1", b, 1, 11],
    ] as const)
      await host.netplane.runAll([
        {
          namespace: outer,
          operations: [
            {
              op: "link-add",
              kind: "vxlan",
              name: "vx",
              vni: 4097,
              local: own === "a" ? "10.99.0.1" : "10.99.0.2",
              mtu: 1450,
              mac: `02:fe:00:00:00:0${3 - Number(other)}`,
              target: nets[own].path,
            },
          ],
        },
        {
          namespace: nets[own].path,
          operations: [
            { op: "link-set", name: "vx", up: true, alias: "skep:vx" },
            { op: "fdb-set", mac: `02:fe:00:00:00:0${peer}`, link: "vx", destination: `10.99.0.${peer}` },
            { op: "neighbour-set", address: `169.254.0.${peer}`, mac: `02:fe:00:00:00:0${peer}`, link: "vx" },
            {
              op: "route-replace",
              destination: `10.0.1.${task}/32`,
              via: `169.254.0.${peer}`,
              link: "vx",
              onlink: true,
            },
          ],
        },
      ]);
    assertReaches(host, nets.a.containers[0] ?? "", "10.0.1.21");
    const dump = await dumpOf(host, nets.a.path, "links", "fdb", "neighbours", "routes");
    const vx = dump.links?.find(({ name }) => name === "vx");
    assert.deepEqual(
      { ...vx, index: 0 },
      {
        name: "vx",
        index: 0,
        kind: "vxlan",
        up: true,
        mtu: 1450,
        mac: "02:fe:00:00:00:01",
        alias: "skep:vx",
        vni: 4097,
        local: "10.99.0.1",
        port: 4789,
        learning: false,
      },
    );
    assert.deepEqual(dump.fdb, [{ mac: "02:fe:00:00:00:02", link: "vx", destination: "10.99.0.2" }]);
    assert.deepEqual(dump.routes?.at(-1), {
      destination: "10.0.1.21/32",
      link: "vx",
      via: "169.254.0.2",
      onlink: true,
    });
    assert.match(host.sh(a, "ss -Hlun"), /:4789/, "the socket stays where it was made");
    assert.doesNotMatch(host.sh(nets.a.path, "ss -Hlun"), /:4789/);
  },
);

onHost("the ends of veths that were opened first pass packets as soon as that was asked for", async (host) => {
  const { netplane } = host;
  const [path = "", other = ""] = await addNamespaces(host, "a", "b");
  const names = Array.from({ length: 30 }, (_, at) => `v${at}`);
  await netplane.runAll([
    {
      namespace: path,
      operations: names.flatMap((name): Operation[] => [
        { op: "link-add", kind: "veth", name, up: true, peer: { name, namespace: other } },
      ]),
    },
    { namespace: other, operations: names.map((name) => ({ op: "link-set", name, up: true })) },
    { namespace: path, operations: names.map((name) => ({ op: "link-settle", name })) },
  ]);
  await assert.rejects(netplane.run(path, [{ op: "link-settle", name: "none" }]), failsWith("ENODEV", 0));
  // Older kernels open them in their own time.
  const [major = 0, minor = 0] = release().split(".").map(Number);
  if (major < 6 || (major === 6 && minor < 8)) return;
  const lines = host.sh(path, "ip -o link").split("\n");
  assert.equal(lines.filter((line) => /: v\d+@.* state UP /.test(line)).length, names.length, lines.join("\n"));
});

onHost("each kind of link is made, changed, renamed, dumped and deleted", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  await host.netplane.run(path, [
    { op: "link-add", kind: "bridge", name: "br", alias: "skep:br", up: true },
    {
      op: "link-add",
      kind: "veth",
      name: "d0",
      alias: "skep:d",
      master: "br",
      mtu: 1400,
      mac: "02:00:00:00:00:07",
      peer: { name: "d9", mtu: 1400 },
    },
    { op: "link-add", kind: "bridge", name: "foreign" },
    { op: "link-set", name: "d0", rename: "d1", mtu: 1300, up: true },
    { op: "link-add", kind: "veth", name: "p0", alias: "skep:p", peer: { name: "p1" } },
  ]);
  const links = async (): Promise<unknown> =>
    (await dumpOf(host, path, "links")).links?.map(({ name, kind, up, mtu, master }) => [name, kind, up, mtu, master]);
  assert.deepEqual(await links(), [
    ["br", "bridge", true, 1300, undefined],
    ["d1", "veth", true, 1300, "br"],
    ["p0", "veth", false, 1500, undefined],
  ]);
  await host.netplane.run(path, [
    { op: "link-set", name: "d1", master: "", up: false, mac: "02:00:00:00:00:08", alias: "skep:x" },
    { op: "link-delete", name: "p1" },
    { op: "link-delete", name: "br" },
  ]);
  const [d1, ...others] = (await dumpOf(host, path, "links")).links ?? [];
  assert.deepEqual(others, [], "a veth takes its other end along");
  assert.deepEqual(
    [d1?.name, d1?.up, d1?.mac, d1?.alias, d1?.master],
    ["d1", false, "02:00:00:00:00:08", "skep:x", undefined],
  );
  const [all] = await host.netplane.run(path, [{ op: "dump", what: ["links"], all: true }]);
  assert.deepEqual(all.links?.map(({ name }) => name).toSorted(), ["d1", "d9", "foreign", "lo"]);
});

onHost(
  "routes, rules, neighbours and addresses of every form read back as they were written, and go again",
  async (host) => {
    const [path = ""] = await addNamespaces(host, "n");
    await host.netplane.run(path, [{ op: "link-add", kind: "bridge", name: "d0", alias: "skep:d", up: true }]);
    const addresses = [
      { address: "10.1.0.1/32", link: "d0" },
      { address: "10.2.0.1/24", link: "d0", noPrefixRoute: true },
      { address: "fd00::1/64", link: "d0", noPrefixRoute: true },
    ] as const;
    const routes = [
      { destination: "0.0.0.0/0", link: "d0", via: "169.254.255.254", onlink: true, table: 5300 },
      { destination: "10.5.0.0/16", type: "blackhole" },
      { destination: "10.6.0.0/16", type: "unreachable", metric: 7 },
      { destination: "10.7.0.0/16", type: "prohibit" },
      { destination: "10.8.0.1/32", link: "d0", scope: "global", source: "10.1.0.1" },
      { destination: "10.9.0.1/32", type: "local", link: "d0" },
      { destination: "fd01::/64", link: "d0" },
      { destination: "fd02::/64", link: "d0", via: "fd00::2", onlink: true },
    ] as const;
    const rules = [
      { preference: 5300, mark: 0x53000000, mask: 0xff000000, table: 5300 },
      { preference: 5301, mark: 1, table: 100_000 },
      { preference: 5302, from: "10.1.0.0/16", to: "10.2.0.0/16", inputLink: "d0", outputLink: "lo", table: 7 },
      { preference: 5303, family: "ip6", from: "fd00::/64", table: 8 },
    ] as const;
    const neighbours = [
      { address: "10.1.0.2", mac: "02:00:00:00:00:02", link: "d0" },
      { address: "fd00::2", mac: "02:00:00:00:00:03", link: "d0" },
    ] as const;
    const add: Operation[] = [
      ...addresses.map((one): Operation => ({ op: "address-set", ...one })),
      ...neighbours.map((one): Operation => ({ op: "neighbour-set", ...one })),
      ...routes.map((one): Operation => ({ op: "route-replace", ...one })),
      ...rules.map((one): Operation => ({ op: "rule-add", ...one, ignore: ["EEXIST"] })),
    ];
    const sorted = (list: readonly unknown[] = []): string[] => list.map((one) => JSON.stringify(one)).toSorted();
    const keys = (one: object): object =>
      Object.fromEntries(Object.entries(one).toSorted(([a], [b]) => (a < b ? -1 : 1)));
    const found = async (): Promise<Record<string, string[]>> =>
      Object.fromEntries(
        Object.entries(await dumpOf(host, path, "addresses", "routes", "neighbours", "rules")).map(([name, list]) => [
          name,
          sorted((list as readonly object[]).map(keys)),
        ]),
      );
    const wanted = Object.fromEntries(
      Object.entries({ addresses, routes, neighbours, rules }).map(([name, list]) => [name, sorted(list.map(keys))]),
    );
    await host.netplane.run(path, add);
    assert.deepEqual(await found(), wanted);
    await host.netplane.run(path, add);
    assert.deepEqual(await found(), wanted, "doing it twice changes nothing");
    await host.netplane.run(path, [
      ...rules.map((one): Operation => ({ op: "rule-delete", ...one })),
      ...routes.map((one): Operation => ({ op: "route-delete", ...one })),
      ...neighbours.map(({ address, link }): Operation => ({ op: "neighbour-delete", address, link })),
      ...addresses.map(({ address, link }): Operation => ({ op: "address-delete", address, link })),
    ]);
    assert.deepEqual(await found(), { addresses: [], routes: [], neighbours: [], rules: [] });
  },
);

onHost(
  "a link that needs no IPv6 has no address of it, its settings are one message, and it goes up all the same",
  async (host) => {
    const [near = "", far = ""] = await addNamespaces(host, "near", "far");
    const conf = (name: string): string => `net/ipv4/conf/v1/${name}`;
    await host.netplane.runAll([
      {
        namespace: near,
        operations: [
          {
            op: "link-add",
            kind: "veth",
            name: "v1",
            up: true,
            alias: "skep:t1",
            linkLocal: false,
            peer: { name: "eth0", namespace: far },
          },
          { op: "sysctl-write", name: conf("rp_filter"), value: "1" },
          { op: "sysctl-write", name: conf("route_localnet"), value: "1" },
          { op: "address-set", address: "10.0.1.1/32", link: "v1" },
        ],
      },
      { namespace: far, operations: [{ op: "link-set", name: "eth0", up: true, linkLocal: false }] },
    ]);
    for (const [path, name] of [
      [near, "v1"],
      [far, "eth0"],
    ] as const) {
      const { links = [], addresses = [] } = await dumpOf(host, path, "links", "addresses");
      assert.equal(
        links.find((one) => one.name === name)?.up ?? host.sh(path, `ip link show ${name}`).includes("UP"),
        true,
      );
      assert.match(host.sh(path, `ip -d link show ${name}`), /addrgenmode none/);
      assert.equal(host.sh(path, `ip -6 -o address show dev ${name}`), "");
      if (path === near)
        assert.deepEqual(
          addresses.map(({ address }) => address),
          ["10.0.1.1/32"],
        );
    }
    for (const name of ["rp_filter", "route_localnet"]) {
      assert.equal(host.sh(near, `cat /proc/sys/${conf(name)}`), "1\n");
    }
    // What one of several settings lacks is the fault of the first.
    await assert.rejects(
      host.netplane.run(near, [
        { op: "link-set", name: "v1", up: true },
        { op: "sysctl-write", name: "net/ipv4/conf/none/rp_filter", value: "1" },
        { op: "sysctl-write", name: "net/ipv4/conf/none/route_localnet", value: "1" },
      ]),
      failsWith("ENODEV", 1),
    );
  },
);

onHost("a dump leaves out what is not ours, and with `all` it tells whose it is", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  await host.netplane.run(path, [
    { op: "link-add", kind: "bridge", name: "d0", up: true },
    { op: "route-add", destination: "10.1.0.0/16", link: "d0" },
  ]);
  host.sh(
    path,
    "ip route add 10.2.0.0/16 dev d0 proto static; ip rule add pref 9 table 9; ip addr add 10.3.0.1/24 dev d0",
  );
  assert.deepEqual((await dumpOf(host, path, ...everything)).routes, [{ destination: "10.1.0.0/16", link: "d0" }]);
  assert.deepEqual(await dumpOf(host, path, "rules", "addresses"), { rules: [], addresses: [] });
  const [all] = await host.netplane.run(path, [{ op: "dump", what: ["routes", "rules", "addresses"], all: true }]);
  assert.ok(all.routes?.some(({ destination, protocol }) => destination === "10.2.0.0/16" && protocol === 4));
  assert.ok(all.rules?.some(({ preference, table }) => preference === 9 && table === 9));
  assert.ok(all.addresses?.some(({ address }) => address === "10.3.0.1/24"));
});

onHost(
  "a failure names the operation, errno and the kernel's words; what may fail does not stop the rest",
  async (host) => {
    const [path = ""] = await addNamespaces(host, "n");
    const { netplane } = host;
    await netplane.run(path, [{ op: "link-add", kind: "bridge", name: "d0", up: true }]);
    const route = { op: "route-add", destination: "10.1.0.0/16", link: "d0" } as const;
    await assert.rejects(netplane.run(path, [{ op: "generation" }, route, route]), failsWith("EEXIST", 2, /route-add/));
    await assert.rejects(netplane.run(path, [{ ...route, link: "none" }]), failsWith("ENODEV", 0, /find link none/));
    await assert.rejects(
      netplane.run(path, [{ op: "route-add", destination: "10.2.0.0/16", via: "10.99.0.1" }]),
      failsWith("ENETUNREACH", 0, /Nexthop has invalid gateway/),
    );
    await assert.rejects(netplane.run(path, [{ op: "link-delete", name: "none" }]), failsWith("ENODEV", 0));
    await assert.rejects(
      netplane.run(path, [{ op: "neighbour-delete", address: "10.1.0.9", link: "d0" }]),
      failsWith("ENOENT", 0),
    );
    await assert.rejects(
      netplane.run(path, [{ op: "address-delete", address: "10.1.0.9/32", link: "d0" }]),
      failsWith("EADDRNOTAVAIL", 0),
    );
    await assert.rejects(
      netplane.run(path, [{ op: "route-delete", destination: "10.77.0.0/16" }]),
      failsWith("ESRCH", 0),
    );
    await assert.rejects(netplane.run(path, [{ op: "rule-delete", preference: 7, table: 7 }]), failsWith("ENOENT", 0));
    await assert.rejects(netplane.run(host.path("none"), []), failsWith("ENOENT", 0, /open namespace/));
    await netplane.run(path, [
      { ...route, ignore: ["EEXIST"] },
      { op: "link-delete", name: "none", ignore: ["ENODEV"] },
      { op: "route-delete", destination: "10.77.0.0/16", link: "none", ignore: ["ESRCH", "ENODEV"] },
      { op: "neighbour-delete", address: "10.1.0.9", link: "d0", ignore: ["ENOENT"] },
      { op: "sysctl-read", name: "net/ipv4/nothing", ignore: ["ENOENT"] },
      { op: "route-add", destination: "10.3.0.0/16", link: "d0" },
    ]);
    assert.deepEqual(
      (await dumpOf(host, path, "routes")).routes?.map(({ destination }) => destination),
      ["10.1.0.0/16", "10.3.0.0/16"],
    );
    await assert.rejects(
      netplane.runAll([
        { namespace: path, operations: [{ op: "route-delete", destination: "10.3.0.0/16" }] },
        { namespace: path, operations: [{ op: "link-delete", name: "none" }] },
        { namespace: path, operations: [{ op: "link-delete", name: "d0" }] },
      ]),
      (error: unknown) => error instanceof NetplaneRefused && error.batch === 1 && error.index === 0,
    );
    assert.match(host.sh(path, "ip link"), /d0/, "batches after the failed one are not begun");
  },
);

onHost("namespaces are made once, taken over when a crash left the file alone, and deleted", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  const { netplane } = host;
  await assert.rejects(netplane.run("", [{ op: "namespace-add", path }]), failsWith("EEXIST", 0));
  await netplane.run("", [{ op: "namespace-add", path, ignore: ["EEXIST"] }]);
  await netplane.run(path, [{ op: "watch" }, { op: "port-reserve", protocol: "tcp", port: 80 }]);
  await netplane.run("", [{ op: "namespace-delete", path }]);
  assert.equal(existsSync(path), false);
  await assert.rejects(netplane.run("", [{ op: "namespace-delete", path }]), failsWith("ENOENT", 0));
  writeFileSync(path, "");
  await assert.rejects(netplane.run(path, [{ op: "generation" }]), failsWith("EINVAL", 0, /the file is none/));
  await netplane.run("", [{ op: "namespace-add", path }]);
  assert.deepEqual(await netplane.run(path, [{ op: "dump", what: ["links"] }]), [{ links: [] }]);
  // Bound anew behind our back: what was held open is another namespace.
  host.sh("", `umount ${path} && unshare --net=${path} ip link add d9 type bridge`);
  const [dump] = await netplane.run(path, [{ op: "dump", what: ["links"], all: true }]);
  assert.ok(dump.links?.some(({ name }) => name === "d9"));
  await assert.rejects(netplane.run(path, [{ op: "namespace-delete", path }]), failsWith("EINVAL", 0));
  writeFileSync(host.path("file"), "");
  await netplane.run("", [{ op: "namespace-delete", path: host.path("file") }]);
});

onHost("sysctls are written in the namespace, and only below net", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  const name = "net/ipv4/ip_forward";
  // As the machine's own is, which may be a router (devconf_inherit_init_net).
  for (const one of ["", path]) host.sh(one, `echo 0 > /proc/sys/${name}`);
  assert.deepEqual(
    await host.netplane.run(path, [
      { op: "sysctl-read", name },
      { op: "sysctl-write", name, value: "1" },
      { op: "sysctl-read", name },
    ]),
    ["0", undefined, "1"],
  );
  assert.equal(host.sh("", `cat /proc/sys/${name}`), "0\n");
  for (const wrong of ["kernel/hostname", "net/../kernel/hostname", "net//ipv4", "net/./x", "net/"])
    await assert.rejects(host.netplane.run(path, [{ op: "sysctl-read", name: wrong }]), failsWith("EINVAL", 0));
  await assert.rejects(
    host.netplane.run(path, [{ op: "sysctl-write", name, value: "x" }]),
    failsWith("EINVAL", 0, /ip_forward/),
  );
});

onHost(
  "settings of one link are written with what is asked of the link, and refused where there is none",
  async (host) => {
    const [path = ""] = await addNamespaces(host, "n");
    const names = ["rp_filter", "route_localnet"].map((name) => `net/ipv4/conf/l0/${name}`);
    await host.netplane.run(path, [
      { op: "link-add", kind: "bridge", name: "l0" },
      ...names.map((name) => ({ op: "sysctl-write", name, value: "1" }) as const),
      { op: "address-set", address: "10.9.0.1/24", link: "l0" },
    ]);
    const read = names.map((name) => ({ op: "sysctl-read", name }) as const);
    assert.deepEqual(await host.netplane.run(path, read), ["1", "1"]);
    await host.netplane.run(path, [{ op: "sysctl-write", name: "net/ipv4/conf/all/rp_filter", value: "2" }]);
    assert.equal(host.sh(path, "cat /proc/sys/net/ipv4/conf/all/rp_filter"), "2\n");
    assert.deepEqual(await host.netplane.run(path, read), ["1", "1"]);
    await assert.rejects(
      host.netplane.run(path, [{ op: "sysctl-write", name: "net/ipv4/conf/none/rp_filter", value: "1" }]),
      failsWith("ENODEV", 0, /sysctl-write/),
    );
  },
);

onHost("namespaces that were made in advance are as fresh as others, and none is handed out twice", async (host) => {
  await addNamespaces(host, "first");
  // Long enough for it to have nothing else to do.
  await host.netplane.run("", [{ op: "dump", what: ["links"], all: true }]);
  for (let round = 0; round < 3; round += 1) {
    const paths = await addNamespaces(host, ...Array.from({ length: 20 }, (_, at) => `n${round}x${at}`));
    const inodes = new Set(paths.map((path) => statSync(path).ino));
    assert.equal(inodes.size, paths.length);
    for (const path of paths) {
      const [{ links = [], routes = [] }] = await host.netplane.run(path, [
        { op: "dump", what: ["links", "routes"], all: true },
      ]);
      assert.deepEqual(
        { links: links.map(({ name, up }) => ({ name, up })), routes },
        {
          links: [{ name: "lo", up: true }],
          routes: [],
        },
      );
      await host.netplane.run(path, [{ op: "link-add", kind: "bridge", name: "b0" }]);
      assert.match(host.sh(path, "ip -o link"), /b0/);
    }
    for (const path of paths) await host.netplane.run("", [{ op: "namespace-delete", path }]);
  }
});

const table = `table ip skep {
  map vips { type ipv4_addr : verdict; }
  map be { typeof ip daddr . numgen random mod 65536 : ip daddr; }
  map tcpbe { typeof tcp dport . numgen random mod 65536 : ip daddr . tcp dport; }
  map ports { type inet_proto . inet_service : verdict; }
  map entry { type ether_addr : mark; }
  map zones { typeof ether saddr : ct zone; }
  set self { type ipv4_addr . ipv4_addr; }
  set names { type ifname; }
  set six { type ipv6_addr; flags interval; }
  set blocks { type ipv4_addr; flags interval; }
  set bounce { type ipv4_addr . ipv4_addr . inet_service; flags interval; }
  chain lb1 { 
    dnat to ip daddr . numgen random mod 1 map @be
  }
  chain lb2 { 
    dnat to ip daddr . numgen random mod 2 map @be
  }
  chain pre {
    type nat hook prerouting priority -100; policy accept;
    ip daddr vmap @vips
  }
}`;

onHost(
  "elements of every type are written, listed as they were written, and agree with what nft shows",
  async (host) => {
    const [path = ""] = await addNamespaces(host, "n");
    const content: [ElementSet, string[]][] = [
      [
        map("vips", ["ipv4_addr"], ["verdict"]),
        ["10.0.1.100 : goto lb1", "10.0.1.101 : jump lb2", "10.0.1.102 : drop"],
      ],
      [
        map("be", ["ipv4_addr", "integer"], ["ipv4_addr"]),
        ["10.0.1.100 . 0 : 10.0.1.11", "10.0.1.100 . 65535 : 10.0.1.12"],
      ],
      [map("tcpbe", ["inet_service", "integer"], ["ipv4_addr", "inet_service"]), ["8080 . 0 : 10.254.2.11 . 80"]],
      [map("ports", ["inet_proto", "inet_service"], ["verdict"]), ["tcp . 8080 : goto lb1", "udp . 53 : goto lb2"]],
      [map("entry", ["ether_addr"], ["mark"]), ["02:fe:00:00:00:01 : 0x53000001"]],
      [map("zones", ["ether_addr"], ["ct_zone"]), ["02:fe:00:00:00:01 : 4095"]],
      [map("self", ["ipv4_addr", "ipv4_addr"]), ["10.0.1.11 . 10.0.1.11"]],
      [map("names", ["ifname"]), ["sg12", "vxing"]],
      [map("six", ["ipv6_addr"], undefined, true), ["fd00::/64", "fd01::1", "fd01::3-fd01::9"]],
      [
        map("blocks", ["ipv4_addr"], undefined, true),
        ["10.0.0.0/8", "192.168.1.1-192.168.1.9", "192.168.1.11", "255.0.0.0/8"],
      ],
      [
        map("bounce", ["ipv4_addr", "ipv4_addr", "inet_service"], undefined, true),
        ["10.99.0.1 . 10.254.1.0/24 . 80-90", "10.99.0.2 . 10.254.2.7 . 80"],
      ],
    ];
    await host.netplane.run(path, [{ op: "ruleset", text: table }]);
    await host.netplane.run(
      path,
      content.map(([set, add]) => ({ op: "elements", set, add }) as const),
    );
    const listed = async (): Promise<unknown> =>
      Promise.all(
        content.map(async ([set]) => (await host.netplane.run(path, [{ op: "elements-list", set }]))[0].toSorted()),
      );
    assert.deepEqual(
      await listed(),
      content.map(([, add]) => add.toSorted()),
    );
    const shown = host.sh(path, "nft list ruleset");
    for (const text of [
      "10.0.1.100 : goto lb1",
      "10.0.1.100 . 0 : 10.0.1.11",
      "8080 . 0 : 10.254.2.11 . 80",
      "tcp . 8080 : goto lb1",
      "02:fe:00:00:00:01 : 0x53000001",
      "02:fe:00:00:00:01 : 4095",
      "10.0.1.11 . 10.0.1.11",
      '"sg12", "vxing"',
      "fd00::/64",
      "192.168.1.1-192.168.1.9",
      "255.0.0.0/8",
      "10.99.0.1 . 10.254.1.0/24 . 80-90",
    ])
      assert.ok(shown.replaceAll(/\s+/g, " ").includes(text), `${text} is not in ${shown}`);
    await host.netplane.run(
      path,
      content.map(
        ([set, add]) => ({ op: "elements", set, delete: add.map((one) => one.split(" : ")[0] ?? "") }) as const,
      ),
    );
    assert.deepEqual(
      await listed(),
      content.map(() => []),
    );
  },
);

onHost("a chain that balances is as nft itself would write it, and goes with what led to it", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  const text = `${table.replace(/\}$/, "")}
  map udpbe { typeof udp dport . numgen random mod 65536 : ip daddr . udp dport; }
}
table ip6 skep {
  map be { typeof ip6 daddr . numgen random mod 65536 : ip6 daddr; }
}`;
  await host.netplane.run(path, [{ op: "ruleset", text }]);
  const wanted = [
    { family: "ip", by: "ip daddr", map: "be", rule: "dnat to ip daddr . numgen random mod 7 map @be" },
    { family: "ip", by: "tcp dport", map: "tcpbe", rule: "dnat ip to tcp dport . numgen random mod 7 map @tcpbe" },
    { family: "ip", by: "udp dport", map: "udpbe", rule: "dnat ip to udp dport . numgen random mod 7 map @udpbe" },
    { family: "ip6", by: "ip6 daddr", map: "be", rule: "dnat to ip6 daddr . numgen random mod 7 map @be" },
  ] as const;
  for (const [at, { family, rule }] of wanted.entries())
    await host.netplane.run(path, [
      { op: "ruleset", text: `table ${family} skep {\nchain text${at} {\n${rule}\n}\n}` },
    ]);
  const balance = (slots: number) =>
    wanted.map(({ family, by, map }, at) => {
      return { op: "balance", family, table: "skep", chain: `raw${at}`, by, map, slots } as const;
    });
  await host.netplane.run(path, balance(3));
  await host.netplane.run(path, balance(7));
  for (const [at, { family }] of wanted.entries()) {
    const shown = (chain: string): string => host.sh(path, `nft list chain ${family} skep ${chain}`);
    assert.equal(shown(`raw${at}`), shown(`text${at}`).replace(`text${at}`, `raw${at}`));
    const printed = (chain: string): string => host.sh(path, `nft --debug=netlink list chain ${family} skep ${chain}`);
    const instructions = (chain: string): string[] => printed(chain).match(/\[[^\]]*\]/g) ?? [];
    assert.deepEqual(instructions(`raw${at}`), instructions(`text${at}`));
  }
  const vips = map("vips", ["ipv4_addr"], ["verdict"]);
  await host.netplane.run(path, [{ op: "elements", set: vips, add: ["10.0.1.9 : goto raw0"] }]);
  const gone = { op: "chain-delete", family: "ip", table: "skep", chain: "raw0" } as const;
  await assert.rejects(host.netplane.run(path, [gone]), failsWith("EBUSY", 0, /raw0/));
  await host.netplane.run(path, [{ op: "elements", set: vips, delete: ["10.0.1.9"] }, gone]);
  assert.doesNotMatch(host.sh(path, "nft list ruleset"), /raw0/);
  const nowhere = {
    op: "balance",
    family: "ip",
    table: "skep",
    chain: "x",
    by: "ip daddr",
    map: "no",
    slots: 1,
  } as const;
  await assert.rejects(host.netplane.run(path, [nowhere]), failsWith("ENOENT", 0, /balance skep x/));
});

onHost("elements side by side are one transaction: all or nothing, and a missing one may be forgiven", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  const vips = map("vips", ["ipv4_addr"], ["verdict"]);
  const be = map("be", ["ipv4_addr", "integer"], ["ipv4_addr"]);
  const { netplane } = host;
  const list = async (): Promise<readonly string[]> =>
    (await netplane.run(path, [{ op: "elements-list", set: be }]))[0].toSorted();
  await netplane.run(path, [{ op: "ruleset", text: table }]);
  const [before] = await netplane.run(path, [{ op: "generation" }]);
  await netplane.run(path, [
    { op: "elements", set: be, add: ["10.0.1.100 . 0 : 10.0.1.11", "10.0.1.100 . 1 : 10.0.1.12"] },
    { op: "elements", set: vips, add: ["10.0.1.100 : goto lb2"] },
    { op: "elements", set: vips },
  ]);
  assert.deepEqual(await netplane.run(path, [{ op: "generation" }]), [before + 1]);
  await assert.rejects(
    netplane.run(path, [
      { op: "elements", set: vips, delete: ["10.0.1.100"] },
      { op: "elements", set: be, add: ["10.0.1.100 . 2 : 10.0.1.13"], delete: ["10.0.1.100 . 0", "10.0.1.100 . 9"] },
    ]),
    failsWith("ENOENT", 1, /skep be, element 10\.0\.1\.100 \. 9/),
  );
  await assert.rejects(
    netplane.run(path, [{ op: "elements", set: be, add: ["10.0.1.100 . 0 : 10.0.1.99"] }]),
    failsWith("EEXIST", 0, /10\.0\.1\.100 \. 0/),
  );
  assert.equal((await list()).length, 2);
  await netplane.run(path, [
    { op: "elements", set: be, add: ["10.0.1.100 . 0 : 10.0.1.11"] },
    {
      op: "elements",
      set: be,
      ignore: ["ENOENT"],
      delete: ["10.0.1.100 . 7", "10.0.1.100 . 0", "10.0.1.100 . 8"],
      add: ["10.0.1.100 . 0 : 10.0.1.13"],
    },
    { op: "elements", set: vips, ignore: ["ENOENT"], delete: ["10.0.1.77"] },
  ]);
  assert.deepEqual(await list(), ["10.0.1.100 . 0 : 10.0.1.13", "10.0.1.100 . 1 : 10.0.1.12"]);
  await netplane.run(path, [{ op: "elements", set: be, flush: true, add: ["10.0.1.1 . 0 : 10.0.1.1"] }]);
  assert.deepEqual(await list(), ["10.0.1.1 . 0 : 10.0.1.1"]);
  const none = map("none", ["ipv4_addr"]);
  await assert.rejects(
    netplane.run(path, [{ op: "elements", set: none, ignore: ["ENOENT"], delete: ["10.0.0.1"] }]),
    failsWith("ENOENT", 0),
    "a set that is missing is not an element that is missing",
  );
  await assert.rejects(netplane.run(path, [{ op: "elements-list", set: none }]), failsWith("ENOENT", 0));
  await assert.rejects(
    netplane.run(path, [{ op: "elements-list", set: map("be", ["ipv4_addr", "ipv4_addr", "ipv4_addr"]) }]),
    failsWith("EINVAL", 0, /other types/),
  );
});

onHost("a thousand deletions of which half are missing are one request", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  const set = map("be", ["ipv4_addr", "integer"], ["ipv4_addr"]);
  const keys = Array.from({ length: 1000 }, (_, slot) => `10.0.1.100 . ${slot}`);
  await host.netplane.run(path, [
    { op: "ruleset", text: table },
    { op: "elements", set, add: keys.filter((_, slot) => slot % 2 === 0).map((key) => `${key} : 10.0.1.11`) },
    { op: "elements", set, delete: keys, ignore: ["ENOENT"] },
  ]);
  assert.deepEqual(await host.netplane.run(path, [{ op: "elements-list", set }]), [[]]);
});

onHost("a ruleset is text, all or nothing; it is listed without its elements", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  const { netplane } = host;
  await netplane.run(path, [{ op: "ruleset", text: table }]);
  const set = map("vips", ["ipv4_addr"], ["verdict"]);
  const listing = { op: "ruleset-list", family: "ip", table: "skep" } as const;
  const [plain] = await netplane.run(path, [listing]);
  await netplane.run(path, [{ op: "elements", set, add: ["10.0.1.100 : goto lb1"] }]);
  assert.deepEqual(await netplane.run(path, [listing]), [plain]);
  assert.match(plain, /dnat to ip daddr \. numgen random mod 2 map @be/);
  await assert.rejects(
    netplane.run(path, [{ op: "ruleset", text: "add table ip other\nadd chain ip other c { bogus; }" }]),
    failsWith("EINVAL", 0, /2:29-29: Error: syntax error.*bogus/),
  );
  await assert.rejects(
    netplane.run(path, [{ op: "ruleset", text: "add table ip other\nadd rule ip other none accept" }]),
    failsWith("ENOENT", 0, /2:19-22: Error: No such file/),
  );
  assert.doesNotMatch(host.sh(path, "nft list tables"), /other/);
  assert.doesNotMatch(host.sh("", "nft list tables"), /skep/);
  await assert.rejects(netplane.run(path, [{ ...listing, table: "none" }]), failsWith("ENOENT", 0));
  await netplane.run(path, [{ op: "ruleset", text: "delete table ip skep" }]);
  await assert.rejects(netplane.run(path, [listing]), failsWith("ENOENT", 0));
});

onHost("a verdict map sends traffic to where its elements say, and forgotten connections choose anew", async (host) => {
  const { path, containers } = await network(host, "n", 11, 12, 13);
  const [client = "", first = "", second = ""] = containers;
  const be = map("be", ["ipv4_addr", "integer"], ["ipv4_addr"]);
  await host.netplane.run(path, [
    { op: "ruleset", text: table },
    { op: "elements", set: be, add: ["10.0.1.100 . 0 : 10.0.1.12"] },
    { op: "elements", set: map("vips", ["ipv4_addr"], ["verdict"]), add: ["10.0.1.100 : goto lb1"] },
  ]);
  const servers = [first, second].map((container, at) =>
    spawn("nsenter", [...host.into(container), process.execPath, "-e", echoServer(`server ${at}`)], {
      stdio: ["ignore", "pipe", "inherit"],
    }),
  );
  try {
    await Promise.all(servers.map((server) => once(server.stdout, "data")));
    const ask = (): string => host.sh(client, `${process.execPath} -e '${udpQuestion("10.0.1.100", 7000, 7001)}'`);
    assert.equal(ask(), "server 0");
    await host.netplane.run(path, [
      { op: "elements", set: be, delete: ["10.0.1.100 . 0"], add: ["10.0.1.100 . 0 : 10.0.1.13"] },
    ]);
    assert.equal(ask(), "server 0", "a flow that is known goes on");
    const wanted = { op: "connections-delete", originalDestination: "10.0.1.100" } as const;
    assert.deepEqual(
      await host.netplane.run(path, [
        { ...wanted, replySource: "10.0.1.99" },
        { ...wanted, protocol: "tcp" },
        { ...wanted, unanswered: true },
        { ...wanted, port: 7001 },
        { ...wanted, originalSource: "10.0.1.12" },
        { ...wanted, replySource: "10.0.1.12", protocol: "udp", port: 7000, originalSource: "10.0.1.11" },
        wanted,
      ]),
      [0, 0, 0, 0, 0, 1, 0],
    );
    assert.equal(ask(), "server 1");
  } finally {
    for (const server of servers) server.kill("SIGKILL");
    await Promise.all(servers.map((server) => once(server, "exit")));
  }
});

const echoServer = (name: string): string =>
  `const s=require("dgram").createSocket("udp4");s.on("message",(_,r)=>s.send("${name}",r.port,r.address));s.bind(7000,()=>console.log("up"))`;

const udpQuestion = (address: string, port: number, from: number): string =>
  `const s=require("dgram").createSocket("udp4");s.on("message",(m)=>{process.stdout.write(String(m));s.close()});s.bind(${from},()=>{const ask=()=>s.send("?",${port},"${address}");ask();setInterval(ask,1000).unref()})`;

onHost("events tell of what others change, and of nothing that we change ourselves", async (host) => {
  const { path, containers } = await network(host, "n", 11, 12);
  const { netplane } = host;
  await netplane.run(path, [
    { op: "ruleset", text: table },
    { op: "link-add", kind: "vxlan", name: "vx", vni: 7, local: "127.0.0.1", alias: "skep:vx", up: true },
    { op: "fdb-set", mac: "02:fe:00:00:00:02", link: "vx", destination: "10.99.0.2" },
    { op: "rule-add", preference: 9, table: 9 },
    { op: "watch" },
    { op: "watch" },
  ]);
  // Ours, each with consequences that the kernel tells without our number.
  const set = map("be", ["ipv4_addr", "integer"], ["ipv4_addr"]);
  const { network: outside, inside } = endpoint(host.path("c13"), 13);
  await addNamespaces(host, "c13");
  await netplane.run(path, outside);
  await netplane.run(host.path("c13"), inside);
  await netplane.run(path, [
    { op: "fdb-set", mac: "02:fe:00:00:00:03", link: "vx", destination: "10.99.0.3" },
    { op: "fdb-delete", mac: "02:fe:00:00:00:03", link: "vx", destination: "10.99.0.3" },
    { op: "address-set", address: "10.0.1.1/32", link: "v13" },
    { op: "elements", set, add: ["10.0.1.100 . 0 : 10.0.1.12"] },
    { op: "ruleset", text: "add table ip mine; delete table ip mine" },
    { op: "rule-delete", preference: 9, table: 9 },
    { op: "rule-add", preference: 9, table: 9 },
    { op: "link-delete", name: "v13" },
  ]);
  // Others', one kind after the other; each is told alone, so nothing of ours was.
  for (const [command, kind] of [
    ["ip route del 10.0.1.11/32", "route"],
    ["ip neigh del 10.0.1.11 dev v11", "neighbour"],
    ["bridge fdb del 02:fe:00:00:00:02 dev vx dst 10.99.0.2", "fdb"],
    ["ip addr add 10.7.0.1/32 dev v11", "address"],
    ["ip link set v11 mtu 1400", "link"],
    ["ip rule del pref 9", "rule"],
    ["nft add table ip theirs", "nft"],
    ["ip link set vx alias theirs", "link"],
  ] as const) {
    host.sh(path, command);
    assert.deepEqual(await host.changes(), [{ namespace: path, kinds: [kind] }], command);
  }
  // Not about anything of ours.
  host.sh(
    path,
    "ip link add x0 type bridge; ip link set x0 up; ip addr add 10.8.0.1/24 dev x0; ip route add 10.9.0.0/16 dev x0",
  );
  assertReaches(host, containers[1] ?? "", "10.0.1.1");
  await netplane.run(path, [{ op: "unwatch" }]);
  host.sh(path, "ip link del v12"); // nobody is told
  await netplane.run(path, [{ op: "watch" }]);
  host.sh(path, "ip link del v11");
  // It goes down first, and with what was on it a moment later.
  const kinds = new Set<string | undefined>();
  while (!kinds.has("address"))
    for (const change of await host.changes()) for (const kind of change?.kinds ?? []) kinds.add(kind);
  assert.deepEqual([...kinds], ["link", "address"]);
});

onHost("what others change at the very moment when we do is told as well", async (host) => {
  const { path } = await network(host, "n", 11);
  const { netplane } = host;
  const [mac, link, destination] = ["02:fe:00:00:00:02", "vx", "10.99.0.2"] as const;
  await netplane.run(path, [
    { op: "link-add", kind: "vxlan", name: link, vni: 7, local: "127.0.0.1", alias: "skep:vx", up: true },
    { op: "watch" },
  ]);
  const neighbours = Array.from(
    { length: 1000 },
    (_, at) =>
      ({ op: "neighbour-set", address: `10.7.${at >> 8}.${at & 255}`, mac: "02:fe:00:00:01:01", link: "v11" }) as const,
  );
  for (let time = 0; time < 10; time += 1) {
    await netplane.run(path, [{ op: "fdb-set", mac, link, destination }]);
    const command = ["bridge", "fdb", "del", mac, "dev", link, "dst", destination];
    const other = spawn("nsenter", [...host.into(path), ...command], { stdio: "ignore" });
    while (other.exitCode === null) await Promise.all([1, 2, 3].map(() => netplane.run(path, neighbours)));
    assert.equal(other.exitCode, 0);
    assert.deepEqual(await host.changes(), [{ namespace: path, kinds: ["fdb"] }]);
  }
});

onHost(
  "a reserved port cannot be bound by others, refuses connections, and is free again when released",
  async (host) => {
    const [path = ""] = await addNamespaces(host, "n");
    const { netplane } = host;
    const tcp = { protocol: "tcp", port: 8080 } as const;
    const bind = (address: string, protocol = "tcp"): string =>
      host.sh(path, `${process.execPath} -e '${protocol === "tcp" ? tcpBind(address) : udpBind(address)}'`).trim();
    await netplane.run(path, [
      { op: "link-set", name: "lo", up: true },
      { op: "port-reserve", ...tcp },
    ]);
    assert.equal(bind("0.0.0.0"), "EADDRINUSE");
    assert.equal(bind("127.0.0.1"), "EADDRINUSE");
    assert.equal(bind("::"), "EADDRINUSE");
    assert.equal(host.sh(path, `${process.execPath} -e '${tcpConnect}'`).trim(), "ECONNREFUSED");
    assert.equal(bind("0.0.0.0", "udp"), "bound");
    await netplane.run(path, [
      { op: "port-reserve", ...tcp },
      { op: "port-reserve", ...tcp, protocol: "udp" },
    ]);
    assert.equal(bind("0.0.0.0", "udp"), "EADDRINUSE");
    assert.equal(host.sh(path, `${process.execPath} -e '${udpAsk}'`).trim(), "ECONNREFUSED");
    await netplane.run(path, [{ op: "port-release", ...tcp }]);
    assert.equal(bind("0.0.0.0"), "bound");
    await assert.rejects(netplane.run(path, [{ op: "port-release", ...tcp }]), failsWith("ENOENT", 0));
    await netplane.run(path, [{ op: "port-reserve", ...tcp, address: "127.0.0.2" }]);
    assert.equal(bind("127.0.0.1"), "bound");
    assert.equal(bind("127.0.0.2"), "EADDRINUSE");
    assert.equal(bind("0.0.0.0"), "EADDRINUSE");
    await netplane.run(path, [{ op: "port-release", ...tcp, address: "127.0.0.2" }]);
    // A server's connections in TIME_WAIT do not stand in the way; the server itself does.
    const server = spawn("nsenter", [...host.into(path), process.execPath, "-e", timeWaitServer], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    try {
      await once(server.stdout, "data");
      assert.match(host.sh(path, "ss -Htan state time-wait"), /:8080/);
      await assert.rejects(
        netplane.run(path, [{ op: "port-reserve", ...tcp }]),
        failsWith("EADDRINUSE", 0, /hold tcp port 8080/),
      );
    } finally {
      server.kill("SIGKILL");
      await once(server, "exit");
    }
    await netplane.run(path, [{ op: "port-reserve", ...tcp }]);
    assert.equal(bind("0.0.0.0"), "EADDRINUSE");
  },
);

const tcpBind = (address: string): string =>
  `const s=require("net").createServer();s.on("error",(e)=>console.log(e.code));s.listen(8080,"${address}",()=>{console.log("bound");s.close()})`;
const udpBind = (address: string): string =>
  `const s=require("dgram").createSocket("udp4");s.on("error",(e)=>console.log(e.code));s.bind(8080,"${address}",()=>{console.log("bound");s.close()})`;
const udpAsk = `const s=require("dgram").createSocket("udp4");s.on("error",(e)=>{console.log(e.code);s.close()});s.connect(8080,"127.0.0.1",()=>s.send("?"))`;
const tcpConnect = `const s=require("net").connect(8080,"127.0.0.1");s.on("error",(e)=>console.log(e.code));s.on("connect",()=>{console.log("connected");s.destroy()})`;
/** It closes first, so TIME_WAIT is on its side. */
const timeWaitServer = `const n=require("net");const s=n.createServer((c)=>c.end());s.listen(8080,"127.0.0.1",()=>{const c=n.connect(8080,"127.0.0.1");c.on("end",()=>c.end());c.resume();c.on("close",()=>console.log("up"))})`;

onHost(
  "a wireguard link is made where the kernel can, and is refused with a typed error where it cannot",
  async (host) => {
    const [path = ""] = await addNamespaces(host, "n");
    const [able] = await host.netplane.run(path, [{ op: "wireguard-probe" }]);
    assert.doesNotMatch(host.sh(path, "ip link"), /skepwgprobe/);
    const making = host.netplane.run(path, [{ op: "link-add", kind: "wireguard", name: "wg0" }]);
    const privateKey = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const set = { op: "wireguard-set", link: "wg0", privateKey, listenPort: 2377 } as const;
    if (!able) {
      await assert.rejects(making, failsWith("EOPNOTSUPP", 0));
      await assert.rejects(host.netplane.run(path, [set]), failsWith("EOPNOTSUPP", 0));
      await assert.rejects(
        host.netplane.run(path, [{ op: "wireguard-list", link: "wg0" }]),
        failsWith("EOPNOTSUPP", 0),
      );
      return;
    }
    await making;
    // RFC 7748 §6.1: Alice's secret key and public key, and Bob's.
    const publicKey = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
    const peer = { publicKey, endpoint: "192.0.2.1", port: 2377, allowed: ["100.64.7.255/32"], keepaliveSeconds: 25 };
    await host.netplane.run(path, [set, { op: "wireguard-peer-set", link: "wg0", ...peer }]);
    const [listed] = await host.netplane.run(path, [{ op: "wireguard-list", link: "wg0" }]);
    assert.deepEqual(listed, {
      publicKey: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
      listenPort: 2377,
      peers: [{ ...peer, receivedBytes: 0, sentBytes: 0 }],
    });
    // A vxlan link that is bound to it goes with it.
    const vxlan = { op: "link-add", kind: "vxlan", name: "vx", vni: 1, local: "100.64.7.255", link: "wg0" } as const;
    await host.netplane.run(path, [vxlan, { op: "wireguard-peer-delete", link: "wg0", publicKey }]);
    assert.match(host.sh(path, "ip -d link show vx"), /dev wg0/);
    await host.netplane.run(path, [{ op: "link-delete", name: "wg0" }]);
    assert.doesNotMatch(host.sh(path, "ip link"), /vx/);
  },
);

onHost("fifty thousand routes and elements come and go, and are listed whole", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  const set = map("be", ["ipv4_addr", "integer"], ["ipv4_addr"]);
  const count = 50_000;
  const destination = (at: number): string => `10.${64 + (at >> 16)}.${(at >> 8) & 255}.${at & 255}`;
  const elements = Array.from({ length: count }, (_, at) => `10.1.0.0 . ${at} : ${destination(at)}`);
  const routes = Array.from({ length: count }, (_, at) => ({ destination: `${destination(at)}/32`, link: "d0" }));
  await host.netplane.run(path, [
    { op: "link-add", kind: "bridge", name: "d0", up: true },
    { op: "ruleset", text: table },
    { op: "watch" },
    { op: "elements", set, add: elements },
    ...routes.map((one): Operation => ({ op: "route-add", ...one })),
  ]);
  const [listed] = await host.netplane.run(path, [{ op: "elements-list", set }]);
  assert.deepEqual(new Set(listed), new Set(elements));
  assert.equal((await dumpOf(host, path, "routes")).routes?.length, count);
  await host.netplane.run(path, [
    { op: "elements", set, flush: true },
    ...routes.map(({ destination: one }): Operation => ({ op: "route-delete", destination: one })),
  ]);
  assert.deepEqual((await dumpOf(host, path, "routes")).routes, []);
  assert.deepEqual(host.changesSoFar(), [], "changes of its own are not told, however many");
});

onHost("the number of the ruleset after a change is that of the change, and no other's hides in it", async (host) => {
  const [path = ""] = await addNamespaces(host, "n");
  const be = map("be", ["ipv4_addr", "integer"], ["ipv4_addr"]);
  const { netplane } = host;
  const key = "10.0.1.100 . 0";
  const add = (last: number): Operation => ({ op: "elements", set: be, add: [`${key} : 10.0.1.${last}`] });
  const replace = (last: number): Operation => ({ ...add(last), delete: [key] }) as Operation;
  const missing: Operation = { op: "elements", set: be, ignore: ["ENOENT"], delete: ["10.0.1.100 . 7"] };
  const foreign = (): void => void host.sh(path, `nft add set ip skep other${++others} '{ type mark; }'`);
  let others = 0;
  await netplane.run(path, [{ op: "ruleset", text: table }]);
  // Each is told by the change and then asked of the kernel, which counts what has changed something.
  const steps: readonly (readonly [string, Operation, (() => void)?])[] = [
    ["the first", add(1)],
    ["what is there", add(1)],
    ["replaced", replace(2)],
    ["replaced again", replace(3)],
    ["after somebody else", replace(4), foreign],
    ["once more", replace(5)],
    ["nothing is left of it", missing],
    ["a ruleset", { op: "ruleset", text: "add set ip skep ours { type mark; }\n" }],
    ["after it", replace(6)],
    ["emptied", { op: "elements", set: be, flush: true }],
    ["emptied when it is empty", { op: "elements", set: be, flush: true }],
    ["the last", add(7)],
    ["missing, and replaced", { ...replace(8), delete: [key, "10.0.1.100 . 8"], ignore: ["ENOENT"] } as Operation],
  ];
  for (const [what, operation, before] of steps) {
    before?.();
    const told = await netplane.run(path, [operation, { op: "generation" }]);
    assert.deepEqual([told.at(-1)], await netplane.run(path, [{ op: "generation" }]), what);
  }
  const [counted] = await netplane.run(path, [{ op: "generation" }]);
  foreign();
  assert.deepEqual(await netplane.run(path, [{ op: "generation" }]), [counted + 1]);
  assert.deepEqual((await netplane.run(path, [{ op: "elements-list", set: be }]))[0], [`${key} : 10.0.1.8`]);
});

onHost("namespaces by the dozen are worked in, one after the other and again", async (host) => {
  const paths = await addNamespaces(host, ...Array.from({ length: 40 }, (_, at) => `n${at}`));
  for (const path of [...paths, ...paths])
    await host.netplane.run(path, [{ op: "route-replace", destination: "10.0.0.0/8", type: "blackhole" }]);
  await host.netplane.run(
    "",
    paths.map((path) => ({ op: "namespace-delete", path }) as const),
  );
});

onHost("a signal that comes to the whole unit does not end it: its input does", async (host) => {
  await host.netplane.run("", []);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.kill(host.pid(), signal);
  assert.deepEqual(await host.netplane.run("", [{ op: "generation" }]), [1]);
  assert.deepEqual(host.changesSoFar(), []);
});

onHost("when netplane is killed the kernel keeps all; watches and ports are taken up again", async (host) => {
  const [path = "", gone = ""] = await addNamespaces(host, "n", "gone");
  const { netplane } = host;
  await netplane.run(path, [
    { op: "link-set", name: "lo", up: true },
    { op: "link-add", kind: "bridge", name: "d0", alias: "skep:d", up: true },
    { op: "route-add", destination: "10.1.0.0/16", link: "d0" },
    { op: "watch" },
    { op: "port-reserve", protocol: "udp", port: 8080 },
    { op: "port-reserve", protocol: "tcp", port: 8080 },
    { op: "port-release", protocol: "tcp", port: 8080 },
  ]);
  await netplane.run(gone, [{ op: "watch" }]);
  host.sh("", `umount ${gone} && rm ${gone}`);
  const before = host.pid();
  process.kill(before, "SIGKILL");
  await assert.rejects(
    (async () => {
      for (;;) await netplane.run(path, [{ op: "generation" }]);
    })(),
    (error: unknown) => error instanceof NetplaneGone && error.code === "NETPLANE_GONE",
  );
  assert.deepEqual(await host.changes(), [undefined]);
  assert.notEqual(host.pid(), before);
  assert.deepEqual((await dumpOf(host, path, "routes")).routes, [{ destination: "10.1.0.0/16", link: "d0" }]);
  assert.equal(host.sh(path, `${process.execPath} -e '${udpBind("0.0.0.0")}'`).trim(), "EADDRINUSE");
  assert.equal(host.sh(path, `${process.execPath} -e '${tcpBind("0.0.0.0")}'`).trim(), "bound");
  host.sh(path, "ip route del 10.1.0.0/16");
  assert.deepEqual(await host.changes(), [{ namespace: path, kinds: ["route"] }]);
});

void test("a program that is not there is a typed error", { timeout: 10_000 }, async () => {
  await assert.rejects(
    Netplane.open({ program: "/no/such/netplane", clock: realClock, random: new Random(1), logger: silentLogger }),
    (error: unknown) => error instanceof NetplaneNotStarted && error.code === "NETPLANE_NOT_STARTED",
  );
});

/** netplane without its client: bytes in, bytes out, until it ends. */
async function speak(...frames: Buffer[]): Promise<{ answers: unknown[]; code: number | null; stderr: string }> {
  const child = spawn("unshare", ["--net", netplaneProgram], { stdio: ["pipe", "pipe", "pipe"] });
  const out: Buffer[] = [];
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  child.stdin.on("error", () => undefined); // it may end before it has read all
  child.stdin.end(Buffer.concat(frames));
  const [code] = (await once(child, "close")) as [number | null];
  const answers: unknown[] = [];
  for (let rest = Buffer.concat(out); rest.length >= 4; rest = rest.subarray(4 + rest.readUInt32LE()))
    answers.push(JSON.parse(rest.subarray(4, 4 + rest.readUInt32LE()).toString()));
  return { answers, code, stderr };
}

function frame(body: unknown): Buffer {
  const text = Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
  const header = Buffer.alloc(4);
  header.writeUInt32LE(text.length);
  return Buffer.concat([header, text]);
}

void test("what is not well formed is refused whole, says where, and hurts nothing that follows", options, async () => {
  const set = { family: "ip", table: "t", name: "s", key: ["ipv4_addr"] };
  const wrong: [unknown, string][] = [
    ["", "EBADMSG"],
    ["{", "EBADMSG"],
    ["[1,2,3]", "EBADMSG"],
    ['{"id":1,"id":2,"batches":[]}', "EBADMSG"],
    [`${"[".repeat(100)}${"]".repeat(100)}`, "EBADMSG"],
    [{ id: 0, batches: [] }, "EINVAL"],
    [{ id: -1, batches: [] }, "EINVAL"],
    [{ id: 1 }, "EINVAL"],
    [{ id: 1, batches: {} }, "EINVAL"],
    [{ id: 1, batches: [[]] }, "EINVAL"],
    [{ id: 1, batches: [], more: 1 }, "EINVAL"],
    [{ id: 1, batches: Array.from({ length: 2000 }, () => ({ namespace: "", operations: [] })) }, "EINVAL"],
    ...[
      undefined,
      7,
      {},
      { op: "no-such" },
      { op: "watch", extra: 1 },
      { op: "watch", ignore: ["ENOSUCH"] },
      { op: "watch", ignore: ["EPERM", "EPERM", "EPERM", "EPERM", "EPERM"] },
      { op: "namespace-add", path: "relative" },
      { op: "namespace-add", path: "/a/../b" },
      { op: "namespace-add", path: `/${"a".repeat(2000)}` },
      { op: "link-add", kind: "dummy" },
      { op: "link-add", kind: "dummy", name: "a/b" },
      { op: "link-add", kind: "dummy", name: "a b" },
      { op: "link-add", kind: "dummy", name: "%d" },
      { op: "link-add", kind: "dummy", name: "sixteen-bytes-16" },
      { op: "link-add", kind: "dummy", name: "d", mtu: 70_000 },
      { op: "link-add", kind: "dummy", name: "d", mtu: 1.5 },
      { op: "link-add", kind: "dummy", name: "d", mac: "02:00:00:00:00" },
      { op: "link-add", kind: "dummy", name: "d", mac: "02:00:00:00:00:0g" },
      { op: "link-add", kind: "dummy", name: "d", target: "/x", alias: "skep:" },
      { op: "link-add", kind: "dummy", name: "d", peer: { name: "e" } },
      { op: "link-add", kind: "veth", name: "d" },
      { op: "link-add", kind: "veth", name: "d", peer: { name: "e", up: true } },
      { op: "link-add", kind: "vxlan", name: "d", vni: 1 << 24, local: "10.0.0.1" },
      { op: "link-add", kind: "dummy", name: "d", linkLocal: true },
      { op: "link-add", kind: "dummy", name: "d", target: "/x", linkLocal: false },
      { op: "link-set", name: "d", alias: "x".repeat(256) },
      { op: "address-set", link: "d", address: "10.0.0.1/33" },
      { op: "address-set", link: "d", address: "10.0.0.256/32" },
      { op: "route-add", destination: "10.0.0.0/8", via: "fd00::1" },
      { op: "route-add", destination: "10.0.0.0/8", scope: "site" },
      { op: "rule-add", preference: 1, table: 1, from: "fd00::/8" },
      { op: "sysctl-write", name: "net/ipv4/ip_forward", value: "" },
      { op: "ruleset", text: "" },
      { op: "ruleset-list", family: "ip", table: "a b" },
      { op: "ruleset-list", family: "ipx", table: "a" },
      { op: "elements", set: { ...set, key: [] } },
      { op: "elements", set: { ...set, key: ["verdict"] } },
      { op: "elements", set: { ...set, key: Array.from({ length: 9 }, () => "inet_proto") } },
      { op: "elements", set: { ...set, key: Array.from({ length: 5 }, () => "ipv6_addr") } },
      { op: "elements", set: { ...set, key: ["mark"], interval: true } },
      { op: "elements", set: { ...set, data: ["verdict", "mark"] } },
      { op: "elements", set, add: ["10.0.0.1 : 10.0.0.2"] },
      { op: "elements", set, add: ["10.0.0.1 . 10.0.0.2"] },
      { op: "elements", set, add: ["10.0.0.0/8"] },
      { op: "elements", set, add: [7] },
      { op: "elements", set, add: ["x".repeat(1000)] },
      { op: "elements", set: { ...set, interval: true }, add: ["10.0.0.1/8"] },
      { op: "elements", set: { ...set, interval: true }, add: ["10.0.0.2-10.0.0.1"] },
      { op: "elements", set: { ...set, data: ["verdict"] }, add: ["10.0.0.1 : goto"] },
      { op: "elements", set: { ...set, data: ["verdict"] }, add: ["10.0.0.1 : goto a b"] },
      { op: "connections-delete", protocol: "tcp" },
      { op: "connections-delete", originalDestination: "10.0.0.1", replySource: "fd00::1" },
      { op: "port-reserve", protocol: "icmp", port: 1 },
      { op: "port-reserve", protocol: "tcp", port: 0 },
      { op: "dump", what: ["nothing"] },
    ].map((operation): [unknown, string] => [
      { id: 1, batches: [{ namespace: "", operations: [operation ?? null] }] },
      "EINVAL",
    ]),
  ];
  const probe = { id: 9, batches: [{ namespace: "", operations: [{ op: "generation" }] }] };
  const { answers, code, stderr } = await speak(...wrong.map(([body]) => frame(body)), frame(probe));
  for (const [at, [body, errno]] of wrong.entries()) {
    const failed = (answers[at] as { failed?: { errno: string } } | undefined)?.failed;
    assert.equal(failed?.errno, errno, `${JSON.stringify(body)}: ${JSON.stringify(answers[at])}`);
  }
  const { ns, ...answer } = answers.at(-1) as { ns: number };
  assert.deepEqual(answer, { id: 9, results: [{ batch: 0, operation: 0, value: 1 }] });
  assert.ok(ns > 0 && ns < 10e9, `it worked for ${ns} ns`);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
});

void test("a mistake in the last operation keeps the first from being done", options, async () => {
  const add = { op: "link-add", kind: "bridge", name: "d0" };
  const { answers } = await speak(
    frame({
      id: 1,
      batches: [
        { namespace: "", operations: [add] },
        { namespace: "", operations: [{ op: "watch" }, { op: "watch" }, { op: "route-add" }] },
      ],
    }),
    frame({ id: 2, batches: [{ namespace: "", operations: [{ op: "dump", what: ["links"], all: true }] }] }),
  );
  const [first, second] = answers as [{ failed: unknown }, { results: [{ value: Dump }] }];
  assert.deepEqual(first.failed, {
    batch: 1,
    operation: 2,
    errno: "EINVAL",
    text: "route-add: property destination is required: Invalid argument",
  });
  assert.deepEqual(
    second.results[0].value.links?.map(({ name }) => name),
    ["lo"],
  );
});

void test("a frame that is too long, or stops in its middle, ends the program with a word", options, async () => {
  const long = await speak(Buffer.from([0xff, 0xff, 0xff, 0x7f, 1, 2, 3]));
  assert.equal(long.code, 1);
  assert.match(long.stderr, /a request of 2147483647 bytes/);
  const short = await speak(Buffer.from([8, 0, 0, 0, 1]));
  assert.equal(short.code, 1);
  assert.match(short.stderr, /ended inside a request/);
  assert.deepEqual(await speak(), { answers: [], code: 0, stderr: "" });
});
