/** One host of a NetWorld with all that skepd does for its network: netplane as its child, model, engine, host's side. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { Random } from "../../../lib/pure/prng.ts";
import { realClock, silentLogger, type Clock, type Logger } from "../../../lib/runtime/index.ts";
import type { DataPlane, PublishedPort, Sandbox, SandboxRequest } from "../../../worker/network/contract.ts";
import type {
  BridgeWish,
  EndpointRecord,
  NetworkRecords,
  OverlayNetwork,
  OverlayWish,
  PeerRecord,
  RecordChange,
  ServicePort,
  ServiceRecord,
} from "../../../worker/network/contract.ts";
import type { CommandOutcome } from "../../../worker/network/firewall.ts";
import { HostNetwork } from "../../../worker/network/host-network.ts";
import { Netplane } from "../../../worker/network/netplane.ts";
import { isNamespaceFile, Networks } from "../../../worker/network/networks.ts";
import { TunnelKeys } from "../../../worker/network/tunnel-keys.ts";
import { spawnSync } from "node:child_process";
import { whySkipped } from "../containers/host.ts";
import { NetWorld } from "./world.ts";

export const netplaneProgram = process.env["NETPLANE"] ?? join(import.meta.dirname, "../../../native/build/netplane");

/** What is done each minute is done when a test asks for it: what it looks at is not put right by chance before it has looked. */
const clock: Clock = {
  monotonicMs: () => realClock.monotonicMs(),
  wallMs: () => realClock.wallMs(),
  after: (ms, callback) => realClock.after(ms, callback),
  every: () => ({ cancel: () => undefined, [Symbol.dispose]: () => undefined }),
};

export class NetHost implements AsyncDisposable {
  readonly world: NetWorld;
  readonly name: string;
  readonly folder: string;
  readonly logger: Logger;
  netplane!: Netplane;
  host!: HostNetwork;
  networks!: Networks;
  plane!: DataPlane;

  readonly #namespaceDirectory: string;

  private constructor(world: NetWorld, name: string, logger: Logger, namespaceDirectory?: string) {
    this.world = world;
    this.name = name;
    this.folder = join(world.folder, name);
    this.logger = logger;
    this.#namespaceDirectory = namespaceDirectory ?? join(this.folder, "netns");
    mkdirSync(this.folder, { recursive: true });
  }

  /** @param namespaceDirectory  where its namespaces are bound; with its other files unless given */
  static async open(
    world: NetWorld,
    name: string,
    logger: Logger = silentLogger,
    namespaceDirectory?: string,
  ): Promise<NetHost> {
    const host = new NetHost(world, name, logger, namespaceDirectory);
    await host.start();
    return host;
  }

  async start(): Promise<void> {
    const { world, name, logger } = this;
    const random = new Random(7);
    this.netplane = await Netplane.open({
      program: "/usr/bin/nsenter",
      args: [`--net=${world.path(name)}`, "--", netplaneProgram],
      clock,
      random,
      logger,
    });
    let opened: Networks | undefined;
    const directories = { dataDirectory: join(this.folder, "data"), runDirectory: join(this.folder, "run") };
    this.host = await HostNetwork.open({
      kernel: this.netplane,
      ...directories,
      tunnelKey: () => opened?.tunnelKey,
      clock,
      logger,
      firewall: {
        run: async (program, args) => this.#run(program, args),
        legacyTables: async (family) => world.attempt(name, ["cat", `/proc/net/${family}_tables_names`]),
      },
    });
    this.networks = opened = await Networks.open({
      kernel: this.netplane,
      onTunnelKey: this.host.onTunnelKey,
      dataDirectory: directories.dataDirectory,
      tunnelKeys: TunnelKeys.open(join(this.folder, "swarm"), logger),
      namespaceDirectory: this.#namespaceDirectory,
      isNamespaceFile,
      parts: this.host.parts,
      choices: this.host.choices,
      clock,
      random,
      logger,
    });
    if (this.networks.abilities.refusal !== undefined) throw this.networks.abilities.refusal;
    this.host.onTunnelKey();
    this.plane = this.host.around(this.networks);
    await this.host.start(this.networks);
  }

  /** A program of the host, in its namespace. */
  #run(program: string, args: readonly string[]): CommandOutcome {
    const inside = [`--net=${this.world.path(this.name)}`, "--", program, ...args];
    const { status, stdout, stderr } = spawnSync("nsenter", inside, { encoding: "utf8", timeout: 60_000 });
    return status === 127 ? { status: undefined, output: "" } : { status: status ?? 1, output: `${stdout}${stderr}` };
  }

  /** As skepd ends: the kernel's state stays. */
  async stop(): Promise<void> {
    await this.host[Symbol.asyncDispose]();
    await this.networks[Symbol.asyncDispose]();
    await this.netplane[Symbol.asyncDispose]();
  }

  async attach(id: string, request: Partial<SandboxRequest>): Promise<Sandbox> {
    const sandbox = await this.networks.sandboxes.attach(
      id,
      {
        networks: [],
        gateway: false,
        ports: [],
        containerName: id,
        hostname: id,
        dns: [],
        links: {},
        serviceId: "",
        taskId: "",
        ...request,
      },
      new AbortController().signal,
    );
    this.world.know(id, sandbox.namespacePath);
    return sandbox;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const id of await this.networks.sandboxes.held()) await this.networks.sandboxes.release(id);
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Hosts h1 to hN of a world of their own. */
export class NetHosts {
  readonly world: NetWorld;
  readonly #hosts: NetHost[] = [];

  private constructor(world: NetWorld) {
    this.world = world;
  }

  /**
   * @param prefix   see NetWorld
   * @param prepare  before the first of them is opened
   */
  static async open(
    prefix: string,
    count: number,
    prepare: (world: NetWorld) => Promise<unknown> | void = () => undefined,
  ): Promise<NetHosts> {
    const hosts = new NetHosts(new NetWorld(prefix));
    try {
      hosts.world.build(count);
      await prepare(hosts.world);
      for (let number = 1; number <= count; number += 1) {
        hosts.#hosts.push(await NetHost.open(hosts.world, `h${number}`));
      }
      return hosts;
    } catch (error) {
      await hosts.close();
      throw error;
    }
  }

  get all(): readonly NetHost[] {
    return this.#hosts;
  }

  /** By its number, from 1 on. */
  host(number: number): NetHost {
    const found = this.#hosts[number - 1];
    if (found === undefined) throw new Error(`there is no host ${number}`);
    return found;
  }

  /** Each is told all of this, and that these are the nodes. */
  async replace(
    endpoints: readonly EndpointRecord[],
    services: readonly ServiceRecord[],
    peers: readonly PeerRecord[] = this.#hosts.map((_, at) => peerOf(at + 1)),
  ): Promise<void> {
    await Promise.all(this.#hosts.map(({ plane }, at) => plane.replace(recordsOf(at + 1, peers, endpoints, services))));
  }

  /** Each is told this. */
  async change(...changes: readonly RecordChange[]): Promise<void> {
    await Promise.all(this.#hosts.map(({ plane }) => plane.change(changes)));
  }

  /** A task's sandbox on an overlay, with a server in it that answers by tcp and udp. */
  async attachTask(task: OverlayTask, port: number): Promise<Sandbox> {
    const sandbox = await this.host(task.host).attach(task.id, {
      networks: [overlayWish(task)],
      taskId: task.id,
      serviceId: task.serviceId,
    });
    await this.world.serve(task.id, port, task.address6 === undefined ? "0.0.0.0" : "::");
    return sandbox;
  }

  async close(): Promise<void> {
    for (const host of this.#hosts) await host[Symbol.asyncDispose]();
    await this.world.tearDown();
  }
}

/** Why encrypted networks cannot be tried here, or false. */
export function whyNoTunnels(): string | false {
  const skipped = whySkipped();
  if (skipped !== false) return skipped;
  const { status } = spawnSync("unshare", ["-n", "ip", "link", "add", "wg0", "type", "wireguard"]);
  return status === 0 ? false : "needs a kernel with WireGuard; `npm run test:vm` brings one";
}

/** As ids of tasks are. */
export const idOf = (name: string): string => name.padEnd(25, "0");

/** 10.0.1.0/24 all of them, since each is a network of its own. */
export const overlayOf = (name: string, vni: number, more: Partial<OverlayNetwork> = {}): OverlayNetwork => ({
  id: `${name}network`,
  name,
  vni,
  subnet: "10.0.1.0/24",
  gateway: "10.0.1.1",
  internal: false,
  encrypted: false,
  mtu: 0,
  ...more,
});

export interface OverlayTask {
  readonly id: string;
  readonly network: OverlayNetwork;
  readonly host: number;
  readonly address: string;
  readonly address6?: string;
  readonly serviceId: string;
}

/** @param last  of its addresses */
export const overlayTask = (
  name: string,
  network: OverlayNetwork,
  host: number,
  last: number,
  serviceId = "web",
): OverlayTask => ({
  id: idOf(name),
  network,
  host,
  address: network.subnet.replace(/\d+\/\d+$/, String(last)),
  ...(network.subnet6 === undefined ? {} : { address6: network.subnet6.replace(/\/\d+$/, String(last)) }),
  serviceId,
});

export const overlayWish = ({ network, address, address6 }: OverlayTask): OverlayWish => ({
  kind: "overlay",
  network,
  address: `${address}/24`,
  ...(address6 === undefined ? {} : { address6: `${address6}/64` }),
  aliases: [],
});

export const overlayEndpoint = (task: OverlayTask, serving = true): EndpointRecord => ({
  ...taskOf(task.id, task.host, "", task.serviceId),
  networkId: task.network.id,
  addresses: [`${task.address}/24`, ...(task.address6 === undefined ? [] : [`${task.address6}/64`])],
  serving,
});

/** The record of a task, as it changes; undefined: it has gone. */
export const endpointChange = (task: OverlayTask, record: EndpointRecord | undefined): RecordChange => ({
  kind: "endpoint",
  key: `${task.network.id}/${task.id}`,
  record,
});

export const overlayService = (serviceId: string, network: OverlayNetwork, address: string): ServiceRecord => ({
  ...ingressService([], serviceId),
  networkId: network.id,
  virtualIp: `${address}/24`,
});

export const peerOf = (number: number): PeerRecord => ({
  nodeId: `n${number}`,
  number,
  addr: `10.99.0.${number}`,
  mtu: 1500,
  publicKey: "",
});

export const taskOf = (taskId: string, number: number, gatewayAddress: string, serviceId = "web"): EndpointRecord => ({
  networkId: "ingress",
  taskId,
  serviceId,
  nodeId: `n${number}`,
  name: taskId,
  slot: 1,
  addresses: [],
  gatewayAddress,
  aliases: [],
  serving: true,
});

export const ingressService = (ports: readonly ServicePort[], serviceId = "web"): ServiceRecord => ({
  networkId: "ingress",
  serviceId,
  name: serviceId,
  aliases: [],
  virtualIp: "",
  mode: "vip",
  ports,
});

export const meshPort = (protocol: ServicePort["protocol"], publishedPort: number, targetPort = 80): ServicePort => ({
  protocol,
  targetPort,
  publishedPort,
  mode: "ingress",
});

export const recordsOf = (
  number: number,
  peers: readonly PeerRecord[],
  endpoints: readonly EndpointRecord[],
  services: readonly ServiceRecord[],
): NetworkRecords => ({ nodeId: `n${number}`, peers, endpoints, services });

export const bridgeWish = (networkId: string, networkName: string, more: Partial<BridgeWish> = {}): BridgeWish => ({
  kind: "bridge",
  networkId,
  networkName,
  address: "",
  macAddress: "",
  aliases: [],
  ...more,
});

export const published = (publishedPort: number, more: Partial<PublishedPort> = {}): PublishedPort => ({
  protocol: "tcp",
  targetPort: 80,
  publishedPort,
  hostAddress: "",
  ...more,
});
