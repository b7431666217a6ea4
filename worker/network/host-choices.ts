/**
 * What the sandboxes of one node share, and what each has of it: gateway addresses, addresses in local networks, ports of
 * the host. What was chosen is kept until the sandbox is released; asked again for the same, the answer is the same.
 */
import { gatewayRange, nodeOfGateway } from "../../lib/pure/node-number.ts";
import type { AddressBook } from "./address-book.ts";
import type { SandboxRequest } from "./contract.ts";
import { bridgeAddresses, type BridgeNetwork } from "./core/bridges.ts";
import { macOfAddress, parseAddress, parseCidr } from "./core/cidr.ts";
import { formatAddress6, parseAddress6, parseCidr6 } from "./core/cidr6.ts";
import { gatewayAddresses, gatewayOf } from "./core/host.ts";
import { isToldNames } from "./core/host-side.ts";
import { insideResolver } from "./core/names.ts";
import { contains } from "./core/pools.ts";
import type { BridgeEndpoint, SandboxFacts } from "./core/part.ts";
import type { BridgeWish, OverlayWish, PublishedPort } from "./core/records.ts";

import { isV6 } from "./core/cidr6.ts";
import { GatewayAddressesUsedUp } from "./errors.ts";
import {
  LocalAddressesExhausted,
  LocalAddressInUse,
  LocalNetworkInvalid,
  LocalNetworkNotFound,
} from "./host-errors.ts";
import type { LocalNetworks } from "./local-networks.ts";
import type { PublishedPorts } from "./published-ports.ts";
import type { HostChoices } from "./sandboxes.ts";

export interface HostChooserOptions {
  readonly book: AddressBook;
  readonly ports: PublishedPorts;
  readonly networks: LocalNetworks;
  /** Of this node, as of now; 0 outside a swarm. */
  readonly nodeNumber: () => number;
  /** Whether gw0 has IPv6 for who is on these. */
  readonly hasGateway6: (overlays: readonly OverlayWish[]) => boolean;
  /** Before the host forwards IPv6 for anybody. */
  readonly onV6: () => Promise<void>;
}

interface Choice {
  /** Empty: none. */
  readonly gatewayAddress: string;
  readonly bridges: readonly BridgeEndpoint[];
  readonly ports: readonly PublishedPort[];
}

type NamedWish = { readonly wish: BridgeWish; readonly interfaceName: string };

export class HostChooser implements HostChoices {
  readonly #options: HostChooserOptions;
  readonly #choices = new Map<string, Choice>();
  /** What is being chosen, whose ports are still to be held: nobody else's already, and beside what the sandbox has until then. */
  readonly #choosing = new Map<string, readonly BridgeEndpoint[]>();

  constructor(options: HostChooserOptions) {
    this.#options = options;
  }

  /**
   * All of it or nothing. What the sandbox has already is kept as far as it is still asked for.
   * @throws GatewayAddressesUsedUp, LocalNetworkNotFound, LocalAddressesExhausted, LocalAddressInUse, LocalNetworkInvalid,
   *         PortInUse, PortRangeFull, ProtocolNotCarried
   */
  async choose(id: string, request: SandboxRequest, wishes: readonly NamedWish[]): Promise<Choice> {
    const before = this.#choices.get(id);
    const { book, networks } = this.#options;
    const taken: string[] = [];
    try {
      const gatewayAddress = this.#gateway(id, request, before?.gatewayAddress ?? "", taken);
      const overlays = request.networks.filter((wish) => wish.kind === "overlay");
      const has6 = gatewayAddress !== "" && this.#options.hasGateway6(overlays);
      if (has6) await this.#options.onV6();
      const bridges = wishes.map(({ wish, interfaceName }) => {
        const kept = before?.bridges.find(({ wish: old }) => old.networkId === wish.networkId);
        if (kept !== undefined && sameWish(kept.wish, wish)) return { ...kept, wish, interfaceName };
        return { ...this.#bridge(id, wish, taken), interfaceName };
      });
      this.#choosing.set(id, bridges);
      // Nobody removes them meanwhile.
      const used = [...bridges, ...(before?.bridges ?? [])];
      networks.setUser(
        id,
        used.map(({ wish }) => wish.networkId),
      );
      const choice: Choice = {
        gatewayAddress,
        bridges,
        ports:
          before !== undefined && before.ports.length > 0
            ? before.ports
            : await this.#ports(id, request, bridges, has6),
      };
      this.#choices.set(id, choice);
      networks.setUser(
        id,
        bridges.map(({ wish }) => wish.networkId),
      );
      const kept = new Set(addressesOf(choice));
      for (const address of before === undefined ? [] : addressesOf(before)) {
        if (!kept.has(address)) book.release(id, address);
      }
      return choice;
    } catch (error) {
      const kept = new Set(before === undefined ? [] : addressesOf(before));
      for (const address of taken) if (!kept.has(address)) book.release(id, address);
      networks.setUser(
        id,
        (before?.bridges ?? []).map(({ wish }) => wish.networkId),
      );
      throw error;
    } finally {
      this.#choosing.delete(id);
    }
  }

  /** Tasks are reached from other nodes; containers of the user's are not, and outlive the node's time in a swarm. */
  #gateway(id: string, request: SandboxRequest, before: string, taken: string[]): string {
    const { networks, ports, gateway, taskId } = request;
    const needed =
      gateway ||
      networks.some(({ kind }) => kind === "overlay") ||
      // An end of a local network leads to the host as gw0 does.
      (ports.length > 0 && networks.length === 0);
    if (!needed) return "";
    if (before !== "") return before;
    const block = taskId === "" ? 0 : this.#options.nodeNumber();
    const range = gatewayAddresses(block);
    const address = this.#options.book.choose(id, `gateway ${block}`, range, []);
    if (address === undefined) throw new GatewayAddressesUsedUp(`its part of ${gatewayRange}`);
    taken.push(address);
    return address;
  }

  #bridge(id: string, wish: BridgeWish, taken: string[]): Omit<BridgeEndpoint, "interfaceName"> {
    const { book, networks } = this.#options;
    const network = networks.bridge(wish.networkId);
    if (network === undefined) throw new LocalNetworkNotFound(wish.networkName);
    const fixed6 = wish.address6 ?? "";
    if (fixed6 !== "") this.#checkFixed6(id, network, fixed6);
    const address = wish.address === "" ? this.#choose(id, network) : this.#fixed(id, network, wish.address);
    taken.push(address);
    if (book.ownerOf(address) !== id) throw new LocalAddressInUse(address);
    const prefix = parseCidr(network.subnet)?.prefixLength ?? 32;
    return {
      wish,
      macAddress: wish.macAddress === "" ? macOfAddress(address) : wish.macAddress,
      address: `${address}/${prefix}`,
      gateway: network.gateway,
      ...this.#v6(network, address, fixed6),
    };
  }

  /** Nobody has to book an address of IPv6 that follows from one of IPv4; only those that were asked for may be in its way. */
  #v6(network: BridgeNetwork, address: string, fixed: string): Pick<BridgeEndpoint, "address6" | "gateway6"> {
    const { subnet6, gateway6 } = network;
    const range = subnet6 === undefined ? undefined : parseCidr6(subnet6);
    if (range === undefined || gateway6 === undefined) return {};
    const prefix = `/${range.prefixLength}`;
    if (fixed !== "") return { address6: `${parseAddress6(fixed)?.address ?? fixed}${prefix}`, gateway6 };
    const first = parseCidr(network.subnet)?.first ?? 0;
    // The gateway of IPv4 need not be the first address, and that of IPv6 is nobody else's.
    let value = range.first + BigInt((parseAddress(address) ?? 0) - first);
    while (formatAddress6(value) === gateway6 || this.#owner6(network.id, formatAddress6(value)) !== undefined) {
      value += 1n << 32n;
    }
    return { address6: `${formatAddress6(value)}${prefix}`, gateway6 };
  }

  #owner6(networkId: string, address6: string): string | undefined {
    const isOwn = ({ wish, address6: own }: BridgeEndpoint): boolean =>
      wish.networkId === networkId && own?.split("/")[0] === address6;
    for (const [id, { bridges }] of this.#choices) if (bridges.some(isOwn)) return id;
    for (const [id, bridges] of this.#choosing) if (bridges.some(isOwn)) return id;
    return undefined;
  }

  #checkFixed6(id: string, { id: networkId, subnet6, gateway6 }: BridgeNetwork, text: string): void {
    const range = subnet6 === undefined ? undefined : parseCidr6(subnet6);
    const wanted = parseAddress6(text);
    if (range === undefined || wanted === undefined || wanted.value <= range.first || wanted.value > range.last) {
      throw new LocalNetworkInvalid(`no configured subnet contains IP address ${text.slice(0, 64)}`);
    }
    const owner = this.#owner6(networkId, wanted.address);
    if (wanted.address === gateway6 || (owner !== undefined && owner !== id)) throw new LocalAddressInUse(text);
  }

  #choose(id: string, network: BridgeNetwork): string {
    const reserved = [network.gateway, ...network.reserved];
    const address = this.#options.book.choose(id, network.id, bridgeAddresses(network), reserved);
    if (address === undefined) throw new LocalAddressesExhausted(network.name, network.subnet);
    return address;
  }

  #fixed(id: string, network: BridgeNetwork, text: string): string {
    const address = parseCidr(text)?.address ?? text;
    const value = parseAddress(address);
    if (value === undefined || !contains(bridgeAddresses({ subnet: network.subnet, ipRange: "" }), value)) {
      throw new LocalNetworkInvalid(`no configured subnet contains IP address ${text.slice(0, 64)}`);
    }
    if (address === network.gateway || !this.#options.book.take(id, address)) throw new LocalAddressInUse(address);
    return address;
  }

  #ports(
    id: string,
    request: SandboxRequest,
    bridges: readonly BridgeEndpoint[],
    hasGateway6: boolean,
  ): Promise<readonly PublishedPort[]> {
    const { networks, ports } = this.#options;
    // An option of the first network says where ports go that name no address.
    const binding = networks.bridge(bridges[0]?.wish.networkId ?? "")?.hostAddress ?? "";
    // Those that lead out by IPv6, too.
    const outward = bridges.find(({ wish }) => networks.bridge(wish.networkId)?.internal === false);
    const isOnBridges = request.networks.every(({ kind }) => kind === "bridge");
    const with6 = hasGateway6 || (outward?.address6 !== undefined && isOnBridges);
    const asked6 = request.ports.find(({ hostAddress }) => isV6(hostAddress));
    if (!with6 && asked6 !== undefined) {
      throw new LocalNetworkInvalid(
        `port ${asked6.publishedPort} cannot be published on [${asked6.hostAddress}]: the container is on no network with IPv6 that leads out`,
      );
    }
    return ports.claim(
      id,
      request.ports.map((port) => (port.hostAddress === "" ? { ...port, hostAddress: binding } : port)),
      with6,
    );
  }

  /** A sandbox of an earlier life of the daemon has what its record says. */
  async hold(facts: SandboxFacts): Promise<void> {
    const { id, gatewayAddress, bridges, ports } = facts;
    const { book, networks } = this.#options;
    if (gatewayAddress !== "") {
      const block = Math.floor(((parseAddress(gatewayAddress) ?? 0) - (gatewayAddresses(0).first - 2)) / 1024);
      book.adopt(id, `gateway ${block}`, gatewayAddresses(block), gatewayAddress);
    }
    for (const { wish, address } of bridges) {
      const network = networks.bridge(wish.networkId);
      const plain = parseCidr(address)?.address;
      if (network !== undefined && plain !== undefined) book.adopt(id, network.id, bridgeAddresses(network), plain);
    }
    networks.setUser(
      id,
      bridges.map(({ wish }) => wish.networkId),
    );
    this.#choices.set(id, { gatewayAddress, bridges, ports });
    await this.#options.ports.adopt(id, ports);
  }

  /** Its veths are gone from the kernel. Again is fine. */
  async release(id: string): Promise<void> {
    const choice = this.#choices.get(id);
    this.#choices.delete(id);
    for (const address of choice === undefined ? [] : addressesOf(choice)) this.#options.book.release(id, address);
    this.#options.networks.setUser(id, []);
    await this.#options.ports.release(id);
  }

  resolverOf(facts: SandboxFacts): string | undefined {
    const { networks } = this.#options;
    return isToldNames(facts, (id) => networks.bridge(id)) ? insideResolver : undefined;
  }

  hostAddressOf({ gatewayAddress, bridges }: SandboxFacts): string | undefined {
    if (gatewayAddress === "") return bridges[0]?.gateway;
    return gatewayOf(nodeOfGateway(gatewayAddress) === undefined ? 0 : this.#options.nodeNumber());
  }
}

/** A wish without an address is met by whatever it was given. */
const sameWish = (a: BridgeWish, b: BridgeWish): boolean =>
  a.address === b.address && a.macAddress === b.macAddress && (a.address6 ?? "") === (b.address6 ?? "");

const addressesOf = ({ gatewayAddress, bridges }: Choice): string[] => [
  ...(gatewayAddress === "" ? [] : [gatewayAddress]),
  ...bridges.map(({ address }) => parseCidr(address)?.address ?? address),
];
