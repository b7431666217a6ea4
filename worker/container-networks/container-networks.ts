/**
 * Containers of the user's on networks: looks up what their records name, asks for the sandbox, and tells of it. Networks of
 * this node come first, then those of the swarm, in which managers give the container a place.
 */
import { ClusterError } from "../../lib/pure/errors.ts";
import { TaskGroup, type Clock, type Logger, type Timer } from "../../lib/runtime/index.ts";
import type {
  ContainerId,
  ContainerNetwork,
  ContainerRecord,
  EndpointSettings,
  NetworkProvider,
} from "../containers/index.ts";
import type {
  BridgeWish,
  LocalNetworkRecord,
  LocalNetworks,
  LocalNetworkWish,
  OverlayNetwork,
  OverlayWish,
  PublishedPort,
  Sandbox,
  Sandboxes,
  SandboxRequest,
} from "../network/index.ts";
import { ConfigNetworks, type ConfigNetwork } from "./config-networks.ts";
import type { OverlayPlace, OverlayPlaces } from "./places.ts";
import {
  ConfigNetworkInUse,
  ContainerNetworkConflict,
  ContainerNetworkInvalid,
  ContainerNetworkNotFound,
} from "./errors.ts";
import { portWishes, type PortWish } from "./published-ports.ts";
import { aliasesOf, linksOf, networkMode, ordered } from "./wishes.ts";

export interface NetworkEvent {
  readonly action: "create" | "connect" | "disconnect" | "destroy";
  readonly networkId: string;
  readonly name: string;
  readonly driver: string;
  /** Of connect and disconnect. */
  readonly container?: string;
}

/** Sandboxes with what was asked for them. */
export interface KnownSandboxes extends Sandboxes {
  request(id: string): SandboxRequest | undefined;
}

export interface ContainerNetworksOptions {
  /** For configurations of networks. */
  readonly folder: string;
  readonly local: LocalNetworks;
  readonly sandboxes: KnownSandboxes;
  readonly places: OverlayPlaces;
  readonly onEvent: (event: NetworkEvent) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** As the Engine: so long a container's start waits for its place in a network of the swarm. */
const placeMs = 20_000;
/** How often places are looked for whose container is no more. */
const strayMs = 60_000;
/** A container's id, which no task has. */
const containerIdPattern = /^[0-9a-f]{64}$/;

export class ContainerNetworks implements NetworkProvider, AsyncDisposable {
  readonly #options: ContainerNetworksOptions;
  readonly #configs: ConfigNetworks;
  /** Places that containers have, by container and network. */
  readonly #places = new Map<string, Map<string, OverlayPlace>>();
  readonly #tasks: TaskGroup;
  readonly #timer: Timer;
  #idOf: (name: string) => string | undefined = () => undefined;

  constructor(options: ContainerNetworksOptions) {
    const { logger, folder, clock } = options;
    this.#options = options;
    this.#configs = new ConfigNetworks(folder, clock, logger);
    this.#tasks = new TaskGroup((work, error) => logger.warn("work on a container's network failed", { work, error }));
    this.#timer = clock.every(strayMs, () => this.#leaveStrays());
  }

  /** Containers, which need this room to be opened, by name. */
  bind(idOf: (name: string) => string | undefined): void {
    this.#idOf = idOf;
  }

  // ---- containers ----

  async attach(record: ContainerRecord): Promise<ContainerNetwork> {
    const { sandboxes } = this.#options;
    const before = sandboxes.get(record.id);
    const known = new Set(before?.endpoints.map(({ networkId }) => networkId));
    let request;
    let sandbox;
    try {
      request = await this.#request(record);
      sandbox = await this.#attachWithPorts(record, request, before);
    } catch (error) {
      this.#leavePlaces(record.id, (networkId) => !known.has(networkId));
      throw error;
    }
    const wanted = new Set(sandbox.endpoints.map(({ networkId }) => networkId));
    this.#leavePlaces(record.id, (networkId) => !wanted.has(networkId));
    for (const end of before?.endpoints ?? []) if (!wanted.has(end.networkId)) this.#tell("disconnect", end, record.id);
    for (const end of sandbox.endpoints) if (!known.has(end.networkId)) this.#tell("connect", end, record.id);
    return {
      namespacePath: sandbox.namespacePath,
      resolver: sandbox.resolver,
      addresses: sandbox.endpoints.flatMap(({ address, v6 }) => (v6 === undefined ? [address] : [address, v6.address])),
      hostAddress: sandbox.hostAddress,
      hosts: sandbox.resolver === undefined ? this.#linkedHosts(request.links ?? {}) : [],
    };
  }

  /** @throws ContainerNetworkInvalid: as the Engine, a container is linked to those that run */
  #linkedHosts(links: Readonly<Record<string, string>>): string[] {
    return Object.entries(links).flatMap(([alias, name]) => {
      const address = this.#options.sandboxes.get(this.#idOf(name) ?? "")?.endpoints[0]?.address;
      if (address === undefined)
        throw new ContainerNetworkInvalid(`Cannot link to a non running container: ${name} AS ${alias}`);
      return [...new Set([alias, name])].map((one) => `${one}:${address}`);
    });
  }

  async release(id: ContainerId): Promise<void> {
    const { sandboxes } = this.#options;
    const before = sandboxes.get(id);
    await sandboxes.release(id);
    this.#leavePlaces(id, () => true);
    for (const end of before?.endpoints ?? []) this.#tell("disconnect", end, id);
  }

  async keep(running: ReadonlySet<string>): Promise<void> {
    const { sandboxes, places, logger } = this.#options;
    for (const id of await sandboxes.held()) {
      if (!containerIdPattern.test(id)) continue;
      const sandbox = sandboxes.get(id);
      if (!running.has(id)) {
        await sandboxes
          .release(id)
          .catch((error: unknown) =>
            logger.warn("the network of a container that ended stays", { container: id, error }),
          );
        continue;
      }
      // Its places are asked for again, so that they are known and given back one day; it goes on with them meanwhile.
      const name = sandboxes.request(id)?.containerName ?? "";
      for (const end of sandbox?.endpoints ?? []) {
        if (end.kind !== "overlay") continue;
        this.#tasks.start(`place of ${id} in ${end.networkName}`, async (signal) => {
          const { networkId: network, address, v6, aliases } = end;
          const addresses = v6 === undefined ? [address] : [address, v6.address];
          const wish = { containerId: id, name, network, addresses, aliases };
          this.#hold(id, await places.take(wish, signal));
        });
      }
    }
  }

  /** Places of containers that are no more: of a daemon that ended between their end and the managers' hearing of it. */
  #leaveStrays(): void {
    const { places, sandboxes } = this.#options;
    for (const { taskId, containerId, networkId } of places.held()) {
      const runs = sandboxes.get(containerId)?.endpoints.some((end) => end.networkId === networkId) === true;
      if (!runs && this.#places.get(containerId)?.has(networkId) !== true) places.leave(taskId);
    }
  }

  /** Whether a container may name it: networks of the swarm are looked up when it starts. */
  isKnown(reference: string): boolean {
    return this.find(reference) !== undefined || this.#options.places.isInSwarm;
  }

  /** What of a wish this network does not do; of networks of the swarm managers say it. */
  wrongWish(reference: string, { IPAMConfig }: EndpointSettings): string | undefined {
    const network = this.find(reference);
    const isChosen = network?.kind === "bridge" && network.record.hasOwnSubnet !== true;
    const isFixed = (IPAMConfig?.IPv4Address ?? "") !== "" || (IPAMConfig?.IPv6Address ?? "") !== "";
    if (!isFixed || !isChosen) return undefined;
    return "user specified IP address is supported only when connecting to networks with user configured subnets";
  }

  /** While it runs. @param taskId  of a container that is a task's */
  sandboxOf(id: string, taskId: string | undefined): Sandbox | undefined {
    return this.#options.sandboxes.get(taskId ?? id);
  }

  /** Networks of the swarm that it is on, while it runs. */
  overlaysOf(id: string, taskId: string | undefined): readonly OverlayNetwork[] {
    const request = this.#options.sandboxes.request(taskId ?? id);
    return (request?.networks ?? []).flatMap((wish) => (wish.kind === "overlay" ? [wish.network] : []));
  }

  async #request(record: ContainerRecord): Promise<SandboxRequest> {
    const mode = networkMode(record.hostConfig.NetworkMode ?? "");
    const wished = ordered(mode, record.networks ?? { [mode]: {} });
    const networks: (OverlayWish | BridgeWish)[] = [];
    for (const [name, settings] of wished) networks.push(await this.#wish(record, name, settings));
    return {
      networks,
      gateway: false,
      ports: [],
      containerName: record.name,
      hostname: record.config.Hostname ?? "",
      dns: record.hostConfig.Dns ?? [],
      links: linksOf(
        wished.map(([, settings]) => settings),
        record.hostConfig,
      ),
      serviceId: "",
      taskId: "",
    };
  }

  async #wish(record: ContainerRecord, name: string, settings: EndpointSettings): Promise<OverlayWish | BridgeWish> {
    const aliases = aliasesOf(record, settings);
    const address = settings.IPAMConfig?.IPv4Address ?? "";
    const address6 = settings.IPAMConfig?.IPv6Address ?? "";
    const local = this.find(name);
    if (local?.kind === "config")
      throw new ContainerNetworkInvalid(`configuration network ${name} cannot be used by containers`);
    if (local !== undefined) {
      const { id, name: networkName } = local.record.network;
      const macAddress = settings.MacAddress ?? "";
      const wish = { kind: "bridge" as const, networkId: id, networkName, address, macAddress, aliases };
      return address6 === "" ? wish : { ...wish, address6 };
    }
    if ((settings.MacAddress ?? "") !== "") {
      throw new ContainerNetworkInvalid(`a container's MAC address in network ${name} follows from its IP address`);
    }
    const addresses = [address, address6].filter((one) => one !== "");
    const wish = { containerId: record.id, name: record.name, network: name, addresses, aliases };
    const place = await this.#options.places.take(wish, AbortSignal.timeout(placeMs));
    this.#hold(record.id, place);
    return {
      kind: "overlay",
      network: place.network,
      address: place.address,
      ...(place.address6 === undefined ? {} : { address6: place.address6 }),
      aliases,
    };
  }

  #hold(containerId: string, place: OverlayPlace): void {
    const own = this.#places.get(containerId) ?? new Map<string, OverlayPlace>();
    this.#places.set(containerId, own.set(place.network.id, place));
  }

  /** Of a range of host ports the first that is free. */
  async #attachWithPorts(
    record: ContainerRecord,
    request: SandboxRequest,
    before: Sandbox | undefined,
  ): Promise<Sandbox> {
    const wishes = portWishes(record.config, record.image, record.hostConfig);
    const chosen = wishes.map(({ first }) => first);
    for (;;) {
      // What was chosen for it once is asked for again.
      const ports = before?.ports ?? wishes.map((wish, at) => publishedPort(wish, chosen[at] ?? 0));
      try {
        return await this.#options.sandboxes.attach(record.id, { ...request, ports }, AbortSignal.timeout(placeMs));
      } catch (error) {
        const taken = (error as { port?: { port?: number; protocol?: string } }).port;
        const isTaken = error instanceof ClusterError && error.code === "PORT_IN_USE" && taken !== undefined;
        const at = isTaken
          ? wishes.findIndex(
              ({ protocol, last }, place) =>
                protocol === taken.protocol && chosen[place] === taken.port && (chosen[place] ?? 0) < last,
            )
          : -1;
        if (at < 0) throw error;
        chosen[at] = (chosen[at] ?? 0) + 1;
      }
    }
  }

  #leavePlaces(containerId: string, leaves: (networkId: string) => boolean): void {
    const own = this.#places.get(containerId);
    for (const [networkId, { taskId }] of own ?? []) {
      if (!leaves(networkId)) continue;
      own?.delete(networkId);
      this.#options.places.leave(taskId);
    }
    if (own?.size === 0) this.#places.delete(containerId);
  }

  #tell(
    action: NetworkEvent["action"],
    { networkId, networkName, kind }: Pick<Sandbox["endpoints"][number], "networkId" | "networkName" | "kind">,
    container?: string,
  ): void {
    const event = { action, networkId, name: networkName, driver: kind };
    this.#options.onEvent(container === undefined ? event : { ...event, container });
  }

  // ---- networks of this node ----

  list(): readonly NodeNetwork[] {
    const made = this.#options.local.list().map((record) => ({ kind: "bridge" as const, record }));
    return [...made, ...this.#configs.list().map((config) => ({ kind: "config" as const, config }))];
  }

  /** By id, by name, or by the beginning of one id only. */
  find(reference: string): NodeNetwork | undefined {
    const all = this.list();
    const exact = all.find((network) => idOf(network) === reference || nameOf(network) === reference);
    if (exact !== undefined || !/^[0-9a-f]{4,63}$/.test(reference)) return exact;
    const begun = all.filter((network) => idOf(network).startsWith(reference));
    return begun.length === 1 ? begun[0] : undefined;
  }

  /** @param from  name of a configuration to take; empty: none */
  async create(
    wish: LocalNetworkWish,
    how: { readonly configOnly: boolean; readonly from: string },
  ): Promise<NodeNetwork> {
    if (this.find(wish.name) !== undefined) {
      throw new ContainerNetworkConflict(`network with name ${wish.name} already exists`);
    }
    if (how.configOnly) {
      if (how.from !== "")
        throw new ContainerNetworkInvalid("a configuration network cannot depend on another configuration network");
      const config = this.#configs.create(wish);
      return { kind: "config", config };
    }
    const record = await this.#options.local.create(how.from === "" ? wish : this.#configured(wish, how.from));
    this.#tell("create", { networkId: record.network.id, networkName: wish.name, kind: "bridge" });
    return { kind: "bridge", record };
  }

  #configured(wish: LocalNetworkWish, from: string): LocalNetworkWish {
    const config = this.#configs.list().find(({ id, wish: { name } }) => id === from || name === from);
    if (config === undefined) throw new ContainerNetworkNotFound(from);
    const own = (wish.ipam ?? []).length > 0 || Object.keys(wish.options ?? {}).length > 0;
    if (own) {
      throw new ContainerNetworkInvalid(
        "user supplied configurations are not supported if the network depends on a configuration network",
      );
    }
    const labels = { ...wish.labels, [configLabel]: config.wish.name };
    return { ...config.wish, ...wish, ipam: config.wish.ipam ?? [], options: config.wish.options ?? {}, labels };
  }

  /** @throws of the local networks; ConfigNetworkInUse */
  async remove(network: NodeNetwork): Promise<void> {
    const name = nameOf(network);
    if (network.kind === "config") {
      const users = this.#options.local.list().filter(({ labels }) => labels[configLabel] === name);
      if (users.length > 0)
        throw new ConfigNetworkInUse(
          name,
          users.map((user) => user.network.name),
        );
      this.#configs.remove(network.config.id);
      return;
    }
    await this.#options.local.remove(network.record.network.id);
    this.#tell("destroy", { networkId: network.record.network.id, networkName: name, kind: "bridge" });
  }

  /** @param keeps  says no for those to be removed. @returns names */
  async prune(keeps: (record: LocalNetworkRecord) => boolean): Promise<readonly string[]> {
    const removed = await this.#options.local.prune((record) => !keeps(record));
    for (const { network } of removed)
      this.#tell("destroy", { networkId: network.id, networkName: network.name, kind: "bridge" });
    return removed.map(({ network }) => network.name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer.cancel();
    await this.#tasks[Symbol.asyncDispose]();
  }
}

/** A network of this node. */
export type NodeNetwork =
  | { readonly kind: "bridge"; readonly record: LocalNetworkRecord }
  | { readonly kind: "config"; readonly config: ConfigNetwork };

/** On a network that took its configuration from another; not shown as a label. */
export const configLabel = "skep.network.config-from";

export const idOf = (network: NodeNetwork): string =>
  network.kind === "bridge" ? network.record.network.id : network.config.id;
export const nameOf = (network: NodeNetwork): string =>
  network.kind === "bridge" ? network.record.network.name : network.config.wish.name;

function publishedPort({ protocol, targetPort, hostAddress }: PortWish, publishedPort: number): PublishedPort {
  return { protocol, targetPort, publishedPort, hostAddress };
}
