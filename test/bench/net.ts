/**
 * What the network costs, between hosts that are namespaces on one switch: worker/network drives them from records, no
 * manager is here. W1 an overlay to another host, W2 a service's address beside the task's own, W3 the mesh on the host of
 * the task, W4 through another host. Their peer is a machine of the same switch that knows nothing of skep, in the same
 * round; the overlay has Docker's beside it, too, where that works. All hops share this machine's processors: the ratios
 * tell something, the Mbit/s do not. W5 to W8 are in net-scale.ts, W9 in net-cluster.ts.
 */
import { availableParallelism } from "node:os";
import { join } from "node:path";

import type { EndpointRecord, OverlayNetwork, ServiceRecord } from "../../worker/network/contract.ts";
import { ingressService, meshPort, NetHost, peerOf, taskOf } from "../conformance/network/net-host.ts";
import { NetWorld, output, run as execute } from "../conformance/network/world.ts";
import { bareServers, bareWays, buildBare } from "./bare-network.ts";
import { DockerOverlay } from "./docker-overlay.ts";
import { run as runCluster } from "./net-cluster.ts";
import { run as runScale } from "./net-scale.ts";
import { median, quantile, type BenchOptions, type Report } from "./report.ts";
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

interface Way {
  readonly from: string;
  readonly address: string;
  readonly port: number;
}

/** near and h3 have no skep; h1 has the client's container, h2 the server's. */
const ways = {
  raw: { from: "near", address: "10.99.0.3", port },
  overlay: { from: client.id, address: server.address, port },
  vip: { from: client.id, address: vip, port },
  entry: { from: "near", address: "10.99.0.2", port: publishedPort },
  through: { from: "near", address: "10.99.0.1", port: publishedPort },
  vxlan: { ...bareWays.vxlan, port },
  bareOverlay: { ...bareWays.container, port },
  bareEntry: { ...bareWays.entered, port },
  bareThrough: { ...bareWays.passed, port },
} satisfies Record<string, Way>;
type Name = keyof typeof ways | "docker";

interface Measurement {
  readonly name: string;
  readonly what: string;
  readonly ours: Name;
  readonly peer: Name;
  /** Left out: told. */
  readonly atLeast?: number;
}

/** After each of ours what the kernel itself asks on the same way (bare-network.ts), which no rule of ours can undercut. */
const measurements: readonly Measurement[] = [
  { name: "W1", what: "overlay, beside host to host", ours: "overlay", peer: "raw", atLeast: 0.85 },
  { name: "W1", what: "the kernel's VXLAN alone, beside host to host", ours: "vxlan", peer: "raw" },
  { name: "W1", what: "the same links without us, beside host to host", ours: "bareOverlay", peer: "raw" },
  { name: "W1", what: "overlay, beside the same links without us", ours: "overlay", peer: "bareOverlay" },
  { name: "W1", what: "overlay, beside Docker's", ours: "overlay", peer: "docker" },
  { name: "W2", what: "service address, beside the task's own", ours: "vip", peer: "overlay", atLeast: 0.95 },
  { name: "W3", what: "mesh, by the host of the task, beside host to host", ours: "entry", peer: "raw", atLeast: 0.85 },
  { name: "W3", what: "the same links without us, beside host to host", ours: "bareEntry", peer: "raw" },
  { name: "W3", what: "mesh, beside the same links without us", ours: "entry", peer: "bareEntry" },
  { name: "W4", what: "mesh, by another host, beside host to host", ours: "through", peer: "raw", atLeast: 0.7 },
  { name: "W4", what: "the same links without us, beside host to host", ours: "bareThrough", peer: "raw" },
  { name: "W4", what: "mesh, beside the same links without us", ours: "through", peer: "bareThrough" },
];

async function build(world: NetWorld): Promise<NetHost[]> {
  world.build(5);
  buildBare(world);
  const hosts = [await NetHost.open(world, "h1"), await NetHost.open(world, "h2")];
  const ingress = ingressService([meshPort("tcp", publishedPort, port), meshPort("udp", publishedPort, port)]);
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

type Kind = "stream" | "datagrams" | "connect";
const units = { stream: "Mbit/s", datagrams: "ns/datagram", connect: "connections/s" } as const;
const kinds = { stream: "", datagrams: ", processor for a small datagram", connect: ", new connections" } as const;

/** Of one short run. */
interface Sample {
  /** In the unit of its kind. */
  readonly rate: number;
  /** Processor time for each KB of a stream, at both ends and on the way. */
  readonly nsPerKb: number;
}

/** Each end has a processor of its own: where the scheduler puts them decides more than what is measured. */
const pinned = (cpu: number, ...command: readonly string[]): string[] => ["taskset", "-c", String(cpu), ...command];
const clientCpu = 0;
const serverCpu = availableParallelism() > 1 ? 1 : 0;
const serving = (program: string): string[] => pinned(serverCpu, program, "serve");

/** All ways, measured in turns. */
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

  #measure(kind: Kind, name: Name): Sample {
    const words = [String(this.#options.quick ? 0.05 : 0.25), ...(kind === "connect" ? [String(parallel)] : [])];
    const program = pinned(clientCpu, this.#program, kind);
    const way = name === "docker" ? undefined : ways[name];
    const said =
      way === undefined
        ? (this.#docker?.measure(program, ...words) ?? "")
        : this.#world.exec(way.from, [...program, way.address, String(way.port), ...words]);
    const [rate = Number.NaN, nsPerKb = Number.NaN] = said.trim().split(" ").map(Number);
    return { rate, nsPerKb };
  }

  /**
   * Short and often: what else the machine does falls on all alike, and each ratio is of two runs of one turn. The order is
   * another in each turn, so that nothing is always after the same.
   */
  #turns(kind: Kind, names: readonly Name[]): Map<Name, readonly Sample[]> {
    const { rounds, quick } = this.#options;
    const taken = new Map<Name, Sample[]>(names.map((name) => [name, []]));
    for (const name of names) this.#measure(kind, name);
    for (let turn = 0; turn < (quick ? 1 : rounds * 12); turn += 1) {
      const start = turn % names.length;
      const turned = [...names.slice(start), ...names.slice(0, start)];
      for (const name of turn % 2 === 0 ? turned : turned.toReversed()) {
        taken.get(name)?.push(this.#measure(kind, name));
      }
    }
    return taken;
  }

  run(kind: Kind, wanted: readonly Measurement[], report: Report): void {
    const taken = this.#turns(kind, [...new Set(wanted.flatMap(({ ours, peer }) => [peer, ours]))]);
    for (const { name, what, ours, peer, atLeast } of wanted) {
      const [mine, theirs] = [taken.get(ours) ?? [], taken.get(peer) ?? []];
      const compare = (part: keyof Sample) =>
        compared(
          mine.map((one) => one[part]),
          theirs.map((one) => one[part]),
        );
      const rate = compare("rate");
      // New connections cost the lookups of each layer, on processors that all hops share: told, no gate.
      const gate = kind === "stream" ? atLeast : undefined;
      report.add({
        name: `${name} ${what}${kinds[kind]}`,
        unit: units[kind],
        ...rate,
        gate: gate === undefined ? "told" : `>= ${gate}x`,
        pass: gate === undefined ? rate.ratio > 0 : rate.ratio >= gate,
      });
      if (kind !== "stream") continue;
      report.add({
        name: `${name} ${what}, processor`,
        unit: "ns/KB",
        ...compare("nsPerKb"),
        gate: "told",
        pass: true,
      });
    }
  }
}

function compared(ours: readonly number[], peer: readonly number[]) {
  const ratios = ours.map((value, at) => value / (peer[at] ?? Number.NaN));
  return {
    ours: median(ours),
    peer: median(peer),
    ratio: median(ratios),
    middleHalf: [quantile(ratios, 0.25), quantile(ratios, 0.75)] as const,
  };
}

async function openDocker(program: string, report: Report): Promise<DockerOverlay | undefined> {
  if (DockerSwarm.hindrance !== undefined) {
    report.absent("W1 overlay, beside Docker's", DockerSwarm.hindrance);
    return undefined;
  }
  try {
    const docker = await DockerOverlay.open(program, serving(program));
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
    for (const name of ["h3", server.id, ...bareServers]) {
      await output(world.start(name, [...serving(program), String(port)]));
    }
    const contest = new Contest(options, world, program, docker);
    const possible = wanted.filter(({ peer }) => docker !== undefined || peer !== "docker");
    contest.run("stream", possible, report);
    contest.run("datagrams", possible, report);
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
