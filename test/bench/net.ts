/**
 * What the network costs, between hosts that are namespaces on one switch: worker/network drives them from records, no
 * manager is here. W1 an overlay to another host, W2 a service's address beside the task's own, W3 the mesh on the host of
 * the task, W4 through another host. Their peer is a machine of the same switch that knows nothing of skep, in the same
 * round. All hops share this machine's processors: the ratios tell something, the Mbit/s do not.
 */
import { join } from "node:path";

import type { EndpointRecord, OverlayNetwork, ServiceRecord } from "../../worker/network/contract.ts";
import { ingressService, meshPort, NetHost, peerOf, taskOf } from "../conformance/network/net-host.ts";
import { NetWorld, output, run as execute } from "../conformance/network/world.ts";
import { median, type BenchOptions, type Report } from "./report.ts";

const network: OverlayNetwork = {
  id: "benchnetwork",
  name: "bench",
  vni: 4097,
  subnet: "10.0.1.0/24",
  gateway: "10.0.1.1",
  internal: false,
  encrypted: false,
  mtu: 0,
};
const port = 7000;
const publishedPort = 8080;
const vip = "10.0.1.100";
/** 64 keep two processors busy; more only queue. */
const parallel = 64;

const client = { id: "client0000000000000000000", host: 1, address: "10.0.1.11" };
const server = { id: "server0000000000000000000", host: 2, address: "10.0.1.21" };

const endpoint = ({ id, host, address }: typeof client): EndpointRecord => ({
  ...taskOf(id, host, "", id === server.id ? "web" : "client"),
  networkId: network.id,
  addresses: [`${address}/24`],
});
const service: ServiceRecord = {
  networkId: network.id,
  serviceId: "web",
  name: "web",
  aliases: [],
  virtualIp: `${vip}/24`,
  mode: "vip",
  ports: [],
};

interface Path {
  readonly from: string;
  readonly address: string;
  readonly port: number;
}

/** near and h3 have no skep; h1 has the client's container, h2 the server's. */
const paths = {
  raw: { from: "near", address: "10.99.0.3", port },
  overlay: { from: client.id, address: server.address, port },
  vip: { from: client.id, address: vip, port },
  entry: { from: "near", address: "10.99.0.2", port: publishedPort },
  through: { from: "near", address: "10.99.0.1", port: publishedPort },
} satisfies Record<string, Path>;
type Name = keyof typeof paths;

const measurements: readonly {
  readonly name: string;
  readonly what: string;
  readonly ours: Name;
  readonly peer: Name;
  readonly atLeast: number;
}[] = [
  { name: "W1", what: "overlay, beside host to host", ours: "overlay", peer: "raw", atLeast: 0.85 },
  { name: "W2", what: "service address, beside the task's own", ours: "vip", peer: "overlay", atLeast: 0.95 },
  { name: "W3", what: "mesh, by the host of the task, beside host to host", ours: "entry", peer: "raw", atLeast: 0.85 },
  { name: "W4", what: "mesh, by another host, beside host to host", ours: "through", peer: "raw", atLeast: 0.7 },
];

async function build(world: NetWorld): Promise<NetHost[]> {
  world.build(3);
  const hosts = [await NetHost.open(world, "h1"), await NetHost.open(world, "h2")];
  const ingress = ingressService([meshPort("tcp", publishedPort, port)]);
  const peers = [1, 2].map(peerOf);
  const endpoints = [endpoint(client), endpoint(server)];
  for (const [at, { plane }] of hosts.entries()) {
    await plane.replace({ nodeId: `n${at + 1}`, peers, endpoints, services: [service, ingress] });
  }
  for (const one of [client, server]) {
    const sandbox = await hosts[one.host - 1]?.attach(one.id, {
      networks: [{ kind: "overlay", network, address: `${one.address}/24`, aliases: [] }],
      taskId: one.id,
      serviceId: one === server ? "web" : "client",
    });
    if (one === client) continue;
    const record = taskOf(one.id, one.host, sandbox?.gatewayAddress ?? "");
    for (const { plane } of hosts) await plane.change([{ kind: "endpoint", key: `ingress/${one.id}`, record }]);
  }
  return hosts;
}

export async function run({ rounds, only, quick }: BenchOptions, report: Report): Promise<void> {
  const wanted = measurements.filter(({ name }) => only.size === 0 || only.has(name));
  const used = [...new Set(wanted.flatMap(({ ours, peer }) => [peer, ours]))];
  const seconds = quick ? 0.2 : 1;
  // Short and often, by turns: another load of the machine falls on all alike.
  const turns = quick ? 1 : rounds * 3;
  const world = new NetWorld("skepnb");
  const hosts: NetHost[] = [];
  try {
    const program = join(world.folder, "net-load");
    execute(["cc", "-O2", "-o", program, join(import.meta.dirname, "net-load.c")]);
    hosts.push(...(await build(world)));
    for (const name of ["h3", server.id]) await output(world.start(name, [program, "serve", String(port)]));
    const measure = (kind: "stream" | "connect", name: Name): number => {
      const path = paths[name];
      const more = kind === "connect" ? [String(parallel)] : [];
      return Number(world.exec(path.from, [program, kind, path.address, String(path.port), String(seconds), ...more]));
    };
    for (const kind of ["stream", "connect"] as const) {
      const taken: Partial<Record<Name, number[]>> = {};
      for (const name of used) measure(kind, name);
      for (let turn = 0; turn < turns; turn += 1) {
        for (const name of turn % 2 === 0 ? used : used.toReversed()) (taken[name] ??= []).push(measure(kind, name));
      }
      for (const { name, what, ours, peer, atLeast } of wanted) {
        const [mine = [], theirs = []] = [taken[ours], taken[peer]];
        const ratio = median(mine.map((value, at) => value / (theirs[at] ?? Number.NaN)));
        // New connections cost the lookups of each layer, on processors that all hops share: told, no gate.
        const isGate = kind === "stream";
        report.add({
          name: `${name} ${what}${isGate ? "" : ", new connections"}`,
          unit: kind === "stream" ? "Mbit/s" : "connections/s",
          ours: median(mine),
          peer: median(theirs),
          ratio,
          gate: isGate ? `>= ${atLeast}x` : "told",
          pass: isGate ? ratio >= atLeast : ratio > 0,
        });
      }
    }
  } finally {
    for (const host of hosts) await host[Symbol.asyncDispose]();
    await world.tearDown();
  }
}
