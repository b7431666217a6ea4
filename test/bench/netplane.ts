/**
 * netplane and its client on the real kernel, from Node.js: K1 an endpoint, K2 fifty in a row, K3 one element, K4 50,000
 * elements, K5 one element among them. The peer of K1 and K3 is what does the same by the commands `ip` and `nft`.
 */
import { NetplaneHost } from "../conformance/network/netplane-host.ts";
import type { ElementSet, Operation } from "../../worker/network/netplane-types.ts";
import { median, type BenchOptions, type Report } from "./report.ts";

const set: ElementSet = {
  family: "ip",
  table: "skep",
  name: "be",
  key: ["ipv4_addr", "integer"],
  data: ["ipv4_addr"],
};
const ruleset = `table ip skep {
  map be { typeof ip daddr . numgen random mod 65536 : ip daddr; }
}`;
const gatewayMac = "02:fe:ff:ff:ff:01";

interface Endpoint {
  readonly link: string;
  readonly container: string;
  readonly address: string;
  readonly mac: string;
  readonly element: string;
}

const endpointOf = (host: NetplaneHost, at: number): Endpoint => ({
  link: `v${at}`,
  container: host.path(`c${at}`),
  address: `10.0.${at >> 8}.${at & 255}`,
  mac: `02:42:0a:00:${(at >> 8).toString(16).padStart(2, "0")}:${(at & 255).toString(16).padStart(2, "0")}`,
  element: `10.0.255.254 . ${at} : 10.0.${at >> 8}.${at & 255}`,
});

/** What a container on an overlay needs: its namespace, a veth with both ends, and a place behind a service's address. */
async function attach(host: NetplaneHost, network: string, at: number): Promise<void> {
  const { link, container, address, mac, element } = endpointOf(host, at);
  await host.netplane.runAll([
    { namespace: "", operations: [{ op: "namespace-add", path: container }] },
    {
      namespace: network,
      operations: [
        {
          op: "link-add",
          kind: "veth",
          name: link,
          mac: gatewayMac,
          mtu: 1450,
          up: true,
          alias: `skep:${link}`,
          peer: { name: "eth0", namespace: container, mac, mtu: 1450 },
        },
        { op: "neighbour-set", address, mac, link },
        { op: "route-add", destination: `${address}/32`, link },
        { op: "elements", set, add: [element] },
      ],
    },
    {
      namespace: container,
      operations: [
        { op: "link-set", name: "lo", up: true },
        { op: "link-set", name: "eth0", up: true },
        { op: "address-set", address: `${address}/16`, link: "eth0", noPrefixRoute: true },
        { op: "neighbour-set", address: "10.0.0.1", mac: gatewayMac, link: "eth0" },
        { op: "route-add", destination: "10.0.0.1/32", link: "eth0" },
        { op: "route-add", destination: "10.0.0.0/16", via: "10.0.0.1", link: "eth0", source: address },
      ],
    },
  ]);
}

/** The same by commands, as a script would: each is a process. */
function attachByCommands(host: NetplaneHost, network: string, at: number): number {
  const { link, container, address, mac, element } = endpointOf(host, at);
  const inside = `nsenter --net=${container} ip`;
  const script = `
    started=$(date +%s%N)
    touch ${container} && unshare --net=${container} true
    ip link add ${link} mtu 1450 address ${gatewayMac} type veth peer name eth0 address ${mac} mtu 1450
    nsenter --net=${container} sleep 10 & holder=$!
    while [ "$(readlink /proc/$holder/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
    ip link set eth0 netns $holder && kill $holder
    ip link set ${link} up alias skep:${link}
    ip neigh add ${address} lladdr ${mac} dev ${link} nud permanent
    ip route add ${address}/32 dev ${link} proto 200
    ${inside} link set lo up
    ${inside} link set eth0 up
    ${inside} addr add ${address}/16 dev eth0 noprefixroute
    ${inside} neigh add 10.0.0.1 lladdr ${gatewayMac} dev eth0 nud permanent
    ${inside} route add 10.0.0.1 dev eth0 scope link
    ${inside} route add 10.0.0.0/16 via 10.0.0.1 dev eth0 src ${address}
    nft add element ip skep be "{ ${element} }"
    echo $(($(date +%s%N) - started))`;
  return Number(host.sh(network, script).trim()) / 1e6;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

/** Median milliseconds of replacing an element that is there. */
async function replaceOne(host: NetplaneHost, network: string, times: number): Promise<number> {
  const key = "10.7.0.0 . 0";
  await host.netplane.run(network, [{ op: "elements", set, add: [`${key} : 10.0.0.9`] }]);
  const took: number[] = [];
  for (let at = 0; at < times; at++) {
    const change: Operation = { op: "elements", set, delete: [key], add: [`${key} : 10.0.0.${at & 255}`] };
    took.push(await timed(() => host.netplane.run(network, [change])));
  }
  await host.netplane.run(network, [{ op: "elements", set, delete: [key] }]);
  return median(took);
}

function replaceByCommand(host: NetplaneHost, network: string): number {
  const script = `
    nft add element ip skep be '{ 10.8.0.0 . 0 : 10.0.0.9 }'
    started=$(date +%s%N)
    for at in 1 2 3 4 5; do
      nft "delete element ip skep be { 10.8.0.0 . 0 }; add element ip skep be { 10.8.0.0 . 0 : 10.0.0.$at }"
    done
    echo $(($(date +%s%N) - started))
    nft delete element ip skep be '{ 10.8.0.0 . 0 }'`;
  return Number(host.sh(network, script).trim()) / 5e6;
}

const many = (count: number): string[] =>
  Array.from(
    { length: count },
    (_, at) =>
      `10.128.${(at / 10) >> 8}.${Math.floor(at / 10) & 255} . ${at % 10} : 10.64.${(at >> 8) & 255}.${at & 255}`,
  );

export async function run({ rounds, only, quick }: BenchOptions, report: Report): Promise<void> {
  const wanted = (name: string): boolean => only.size === 0 || only.has(name);
  const series: Record<string, { ours: number[]; peer: number[] }> = {};
  const note = (name: string, ours: number, peer?: number): void => {
    const one = (series[name] ??= { ours: [], peer: [] });
    one.ours.push(ours);
    if (peer !== undefined) one.peer.push(peer);
  };
  const endpoints = quick ? 5 : 50;
  const elements = quick ? 1000 : 50_000;
  for (let round = 0; round < rounds; round++) {
    const host = await NetplaneHost.open();
    try {
      const network = host.path("network");
      await host.netplane.run("", [{ op: "namespace-add", path: network }]);
      await host.netplane.run(network, [{ op: "ruleset", text: ruleset }]);
      if (wanted("K1") || wanted("K2")) {
        await attach(host, network, 2);
        const took: number[] = [];
        const all = await timed(async () => {
          for (let at = 0; at < endpoints; at++) took.push(await timed(() => attach(host, network, 10 + at)));
        });
        const peer = Array.from({ length: quick ? 1 : 5 }, (_, at) => attachByCommands(host, network, 300 + at));
        if (wanted("K1")) note("K1", median(took), median(peer));
        if (wanted("K2")) note("K2", all);
      }
      if (wanted("K3")) note("K3", await replaceOne(host, network, elements / 10), replaceByCommand(host, network));
      if (wanted("K4") || wanted("K5")) {
        const load = await timed(() => host.netplane.run(network, [{ op: "elements", set, add: many(elements) }]));
        if (wanted("K4")) note("K4", load);
        if (wanted("K5")) note("K5", await replaceOne(host, network, elements / 10));
      }
    } finally {
      await host.close();
    }
  }
  const gates: readonly (readonly [string, string, number])[] = [
    ["K1", "an endpoint", 2],
    ["K2", "fifty endpoints in a row", 100],
    ["K3", "one element replaced", 0.1],
    ["K4", "50,000 elements loaded", 150],
    ["K5", "one element replaced among 50,000", 0.1],
  ];
  for (const [name, what, limitMs] of gates) {
    const measured = series[name];
    if (measured === undefined) continue;
    const ours = median(measured.ours);
    const peer = measured.peer.length === 0 ? undefined : median(measured.peer);
    report.add({
      name: `${name} ${what}`,
      unit: "ms",
      ours,
      peer,
      ratio: peer === undefined ? undefined : ours / peer,
      gate: `<= ${limitMs}`,
      pass: ours <= limitMs,
    });
  }
}
