/**
 * What the network costs, between hosts that are namespaces on one switch: worker/network drives them from records, no
 * manager is here. W1 an overlay to another host, W2 a service's address beside the task's own, W3 the mesh on the host of
 * the task, W4 through another host. Their peer is a machine of the same switch that knows nothing of skep, in the same
 * round; the overlay has Docker's beside it, too, where that works. All hops share this machine's processors: the ratios
 * tell something, the Mbit/s do not. W5 to W8 are in net-scale.ts, W9 in net-cluster.ts.
 */
import { join } from "node:path";

import type { EndpointRecord, OverlayNetwork, ServiceRecord } from "../../worker/network/contract.ts";
import { ingressService, meshPort, NetHost, peerOf, taskOf } from "../conformance/network/net-host.ts";
import { NetWorld, output, run as execute } from "../conformance/network/world.ts";
import { DockerOverlay } from "./docker-overlay.ts";
import { run as runCluster } from "./net-cluster.ts";
import { run as runScale } from "./net-scale.ts";
import { median, type BenchOptions, type Report } from "./report.ts";
import { DockerSwarm } from "./swarms.ts";

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
type Name = keyof typeof paths | "docker";

const measurements: readonly {
  readonly name: string;
  readonly what: string;
  readonly ours: Name;
  readonly peer: Name;
  readonly atLeast: number;
}[] = [
  { name: "W1", what: "overlay, beside host to host", ours: "overlay", peer: "raw", atLeast: 0.85 },
  { name: "W1", what: "overlay, beside Docker's", ours: "overlay", peer: "docker", atLeast: 1 },
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

/** Ours and Docker's, measured in turns. */
class Contest {
  readonly #options: BenchOptions;
  readonly #world: NetWorld;
  readonly #program: string;
  readonly #docker: DockerOverlay | undefined;

  constructor(options: BenchOptions, world: NetWorld, program: string, docker: DockerOverlay | undefined) {
    this.#options = options;
    this.#world = world;
    this.#program = program;
    this.#docker = docker;
  }

  #measure(kind: "stream" | "connect", name: Name): number {
    const seconds = this.#options.quick ? 0.2 : 1;
    const words = [String(seconds), ...(kind === "connect" ? [String(parallel)] : [])];
    if (name === "docker") return this.#docker?.measure(this.#program, kind, ...words) ?? Number.NaN;
    const { from, address, port: to } = paths[name];
    return Number(this.#world.exec(from, [this.#program, kind, address, String(to), ...words]));
  }

  run(kind: "stream" | "connect", wanted: typeof measurements, report: Report): void {
    const { rounds, quick } = this.#options;
    // Short and often, by turns: another load of the machine falls on all alike.
    const turns = quick ? 1 : rounds * 3;
    const used = [...new Set(wanted.flatMap(({ ours, peer }) => [peer, ours]))];
    const taken: Partial<Record<Name, number[]>> = {};
    for (const name of used) this.#measure(kind, name);
    for (let turn = 0; turn < turns; turn += 1) {
      for (const name of turn % 2 === 0 ? used : used.toReversed()) {
        (taken[name] ??= []).push(this.#measure(kind, name));
      }
    }
    for (const { name, what, ours, peer, atLeast } of wanted) {
      const [mine = [], theirs = []] = [taken[ours], taken[peer]];
      const ratio = median(mine.map((value, at) => value / (theirs[at] ?? Number.NaN)));
      // New connections cost the lookups of each layer, on processors that all hops share: told, no gate. So is Docker's.
      const isGate = kind === "stream" && peer !== "docker";
      report.add({
        name: `${name} ${what}${kind === "stream" ? "" : ", new connections"}`,
        unit: kind === "stream" ? "Mbit/s" : "connections/s",
        ours: median(mine),
        peer: median(theirs),
        ratio,
        gate: isGate ? `>= ${atLeast}x` : "told",
        pass: isGate ? ratio >= atLeast : ratio > 0,
      });
    }
  }
}

async function openDocker(program: string, report: Report): Promise<DockerOverlay | undefined> {
  if (DockerSwarm.hindrance !== undefined) {
    report.absent("W1 overlay, beside Docker's", DockerSwarm.hindrance);
    return undefined;
  }
  try {
    const docker = await DockerOverlay.open(program);
    const lacking = await docker.lacking(program);
    if (lacking !== undefined) report.absent("W2 to W4, beside Docker's", lacking);
    return docker;
  } catch (error) {
    report.absent("W1 overlay, beside Docker's", (error as Error).message);
    return undefined;
  }
}

async function carrying(options: BenchOptions, report: Report): Promise<void> {
  const { only } = options;
  const wanted = measurements.filter(({ name }) => only.size === 0 || only.has(name));
  if (wanted.length === 0) return;
  const world = new NetWorld("skepnb");
  const hosts: NetHost[] = [];
  let docker: DockerOverlay | undefined;
  try {
    const program = join(world.folder, "net-load");
    execute(["cc", "-O2", "-o", program, join(import.meta.dirname, "net-load.c")]);
    if (wanted.some(({ peer }) => peer === "docker")) docker = await openDocker(program, report);
    hosts.push(...(await build(world)));
    for (const name of ["h3", server.id]) await output(world.start(name, [program, "serve", String(port)]));
    const contest = new Contest(options, world, program, docker);
    const possible = wanted.filter(({ peer }) => docker !== undefined || peer !== "docker");
    contest.run("stream", possible, report);
    contest.run("connect", possible, report);
  } finally {
    await docker?.close();
    for (const host of hosts) await host[Symbol.asyncDispose]();
    await world.tearDown();
  }
}

export async function run(options: BenchOptions, report: Report): Promise<void> {
  const { only } = options;
  const wants = (...names: readonly string[]): boolean => only.size === 0 || names.some((name) => only.has(name));
  await carrying(options, report);
  if (wants("W5", "W6", "W7", "W8")) await runScale(options, report);
  if (wants("W9")) await runCluster(options, report);
}
