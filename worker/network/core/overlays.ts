/**
 * Overlay networks of this node. Each is a namespace that routes: one VXLAN device, a permanent neighbour and fdb entry for
 * each node that has tasks on the network, a route for each task, a veth for each sandbox. Nobody asks by ARP, nothing is
 * flooded. Source: network.md §2. A network exists here while a sandbox of this node is on it.
 */
import { nodeAddresses } from "../../../lib/pure/node-number.ts";
import { addressOf, parseCidr } from "./cidr.ts";
import { parseCidr6 } from "./cidr6.ts";
import type { NetObject, TableObject } from "./objects.ts";
import type { OverlayEndpoint, Part, Placement, SandboxFacts, Self } from "./part.ts";
import type { EndpointRecord, OverlayNetwork, OverlayWish, PeerRecord, ServiceRecord } from "./records.ts";
import {
  isReachable,
  tunnelDataPort,
  tunnelLink,
  tunnelObjects,
  tunnelOverheadBytes,
  tunnelPeerObjects,
} from "./tunnel.ts";
import type { TunnelKey } from "./tunnel-key.ts";
import { Vips, vips4, vips6 } from "./vips.ts";

/** Frames of plain overlays. */
const vxlanPort = 4789;
/** Outer Ethernet, IPv4, UDP and VXLAN headers. */
const vxlanOverheadBytes = 50;
export const vxlanLink = "vx";
/** The router's end of every veth; each is alone on its link. */
const gatewayMac = "02:fe:ff:ff:ff:01";
export const mainTable = 254;

export interface OverlaysOptions {
  readonly self: Self;
  readonly placement: Placement;
  /** Where the namespace of a network is. */
  readonly namespacePath: (network: OverlayNetwork) => string;
  /** As of now; undefined: encrypted networks lead nowhere here. */
  readonly tunnelKey: () => TunnelKey | undefined;
}

export class Overlays implements Part {
  readonly #options: OverlaysOptions;
  readonly #peers = new Map<string, PeerRecord>();
  /** Records by network: they may come before its first sandbox. */
  readonly #endpoints = new Map<string, Map<string, EndpointRecord>>();
  readonly #services = new Map<string, Map<string, ServiceRecord>>();
  readonly #overlays = new Map<string, Overlay>();

  constructor(options: OverlaysOptions) {
    this.#options = options;
  }

  peer(key: string, after: PeerRecord | undefined): void {
    if (after === undefined) this.#peers.delete(key);
    else this.#peers.set(key, after);
    for (const overlay of this.#overlays.values()) overlay.peer(key);
  }

  /** This node says with another key from now on. */
  tunnelKeyChanged(): void {
    for (const overlay of this.#overlays.values()) overlay.tunnelKeyChanged();
  }

  endpoint(key: string, after: EndpointRecord | undefined, before: EndpointRecord | undefined): void {
    const networkId = (after ?? before)?.networkId ?? "";
    file(this.#endpoints, networkId, key, after);
    this.#overlays.get(networkId)?.endpoint(key, after, before);
  }

  service(key: string, after: ServiceRecord | undefined, before: ServiceRecord | undefined): void {
    const record = after ?? before;
    const networkId = record?.networkId ?? "";
    file(this.#services, networkId, key, after);
    this.#overlays.get(networkId)?.service(record?.serviceId ?? "", after);
  }

  sandbox(id: string, after: SandboxFacts | undefined, before: SandboxFacts | undefined): void {
    // Outside a swarm there is nowhere to send frames to.
    if (this.#options.self.number === 0) return;
    for (const endpoint of after?.overlays ?? []) this.#overlay(endpoint.wish.network).attach(after, endpoint);
    for (const { wish } of before?.overlays ?? []) {
      if (after?.overlays.some((kept) => kept.wish.network.id === wish.network.id) === true) continue;
      const overlay = this.#overlays.get(wish.network.id);
      if (overlay === undefined) continue;
      overlay.detach(id);
      if (overlay.sandboxes === 0) {
        overlay.end();
        this.#overlays.delete(wish.network.id);
      }
    }
    // What is inside the sandbox.
    const facts = after ?? before;
    if (facts === undefined) return;
    const objects = after === undefined ? [] : insideObjects(after, (network) => this.#mtu(network));
    this.#options.placement.set(facts.namespacePath, "overlays", objects);
  }

  #overlay(network: OverlayNetwork): Overlay {
    let overlay = this.#overlays.get(network.id);
    if (overlay !== undefined) return overlay;
    const { self, placement, namespacePath, tunnelKey } = this.#options;
    overlay = new Overlay({
      network,
      self,
      mtu: this.#mtu(network),
      peers: this.#peers,
      tunnelKey,
      set: (group, objects) => placement.set(namespacePath(network), group, objects),
      setOnHost: (group, objects) => placement.set("", `network ${network.id} ${group}`, objects),
      forget: (destination, replySource, lost) =>
        placement.forget(namespacePath(network), { destination, replySource, ...(lost ? { lost } : {}) }),
    });
    this.#overlays.set(network.id, overlay);
    for (const record of this.#services.get(network.id)?.values() ?? []) overlay.service(record.serviceId, record);
    for (const [key, record] of this.#endpoints.get(network.id) ?? []) overlay.endpoint(key, record, undefined);
    return overlay;
  }

  #mtu(network: OverlayNetwork): number {
    const carried = this.#options.self.underlayMtu - vxlanOverheadBytes - (network.encrypted ? tunnelOverheadBytes : 0);
    return network.mtu > 0 ? Math.min(network.mtu, carried) : carried;
  }
}

interface OverlayOptions {
  readonly network: OverlayNetwork;
  readonly self: Self;
  readonly mtu: number;
  readonly peers: ReadonlyMap<string, PeerRecord>;
  readonly tunnelKey: () => TunnelKey | undefined;
  readonly set: (group: string, objects: readonly NetObject[]) => void;
  /** In the host's namespace. */
  readonly setOnHost: (group: string, objects: readonly NetObject[]) => void;
  /** @param lost  its node is, and it may go on: see ForgottenConnections */
  readonly forget: (destination: string, replySource: string, lost: boolean) => void;
}

class Overlay {
  readonly #options: OverlayOptions;
  readonly #vips: Vips;
  /** Undefined: the network has no IPv6. */
  readonly #vips6: Vips | undefined;
  readonly #sandboxes = new Set<string>();
  /** Groups that are set, so that all can be taken back. */
  readonly #groups = new Set<string>();
  readonly #hostGroups = new Set<string>();
  /** Endpoints of each other node: a node without any is not known in this namespace. */
  readonly #ofNode = new Map<string, Map<string, EndpointRecord>>();
  /** By service; empty: it has none of this family. */
  readonly #vipOf = new Map<string, { readonly vip: string; readonly vip6: string }>();

  constructor(options: OverlayOptions) {
    this.#options = options;
    const { gateway, subnet6, gateway6 } = options.network;
    const set = (group: string, objects: readonly NetObject[]): void => this.#set(group, objects);
    this.#vips = new Vips(vips4, gateway, set);
    this.#vips6 = subnet6 === undefined || gateway6 === undefined ? undefined : new Vips(vips6, gateway6, set);
    this.#self();
  }

  #self(): void {
    this.#set("network", this.#base());
    const { network, self, tunnelKey } = this.#options;
    const key = tunnelKey();
    this.#setOnHost("tunnel", network.encrypted && key !== undefined ? tunnelObjects(self, key) : []);
  }

  tunnelKeyChanged(): void {
    if (!this.#options.network.encrypted) return;
    this.#self();
    for (const nodeId of this.#ofNode.keys()) this.peer(nodeId);
  }

  /** Whether frames may leave: those of an encrypted network only by the tunnel. */
  get #isOpen(): boolean {
    return !this.#options.network.encrypted || this.#options.tunnelKey() !== undefined;
  }

  get sandboxes(): number {
    return this.#sandboxes.size;
  }

  #set(group: string, objects: readonly NetObject[]): void {
    if (objects.length === 0) this.#groups.delete(group);
    else this.#groups.add(group);
    this.#options.set(group, objects);
  }

  #setOnHost(group: string, objects: readonly NetObject[]): void {
    if (objects.length === 0) this.#hostGroups.delete(group);
    else this.#hostGroups.add(group);
    this.#options.setOnHost(group, objects);
  }

  #base(): NetObject[] {
    const { network, self, mtu } = this.#options;
    const { mac, tunnelAddress } = nodeAddresses(self.number);
    const gateway = `${network.gateway}/32`;
    const how = network.encrypted
      ? ({ kind: "vxlan", vni: network.vni, local: tunnelAddress, port: tunnelDataPort, lower: tunnelLink } as const)
      : ({ kind: "vxlan", vni: network.vni, local: self.addr, port: vxlanPort } as const);
    return [
      { type: "sysctl", path: "net/ipv4/ip_forward", value: "1" },
      // Nothing is delivered here, so nobody looks for a socket before the route.
      { type: "sysctl", path: "net/ipv4/ip_early_demux", value: "0" },
      // Strict source checks on each link; no advice to go another way than through the router.
      { type: "sysctl", path: "net/ipv4/conf/all/rp_filter", value: "1" },
      { type: "sysctl", path: "net/ipv4/conf/default/rp_filter", value: "1" },
      { type: "sysctl", path: "net/ipv4/conf/all/send_redirects", value: "0" },
      { type: "sysctl", path: "net/ipv4/conf/default/send_redirects", value: "0" },
      // Of links that are made from now on: IPv6 only where it is used.
      {
        type: "sysctl",
        path: "net/ipv6/conf/default/disable_ipv6",
        value: network.subnet6 === undefined ? "1" : "0",
        optional: true,
      },
      // Who asks for what is not there is told each time: the kernel's limit on that (icmp(7)), less destinations that
      // cannot be reached. Nothing listens here, so that nobody learns anything by asking often.
      { type: "sysctl", path: "net/ipv4/icmp_ratemask", value: "6160" },
      { type: "link", name: "lo", how: { kind: "existing" }, owner: network.id, mac: "", mtu: 0, master: "" },
      { type: "address", link: "lo", address: gateway },
      ...(this.#isOpen
        ? ([
            { type: "link", name: vxlanLink, how, owner: network.id, mac, mtu, master: "" },
            { type: "address", link: vxlanLink, address: gateway },
          ] as const)
        : []),
      ...this.#base6(),
    ];
  }

  #base6(): NetObject[] {
    const { subnet6, gateway6 } = this.#options.network;
    if (subnet6 === undefined || gateway6 === undefined) return [];
    return [
      { type: "sysctl", path: "net/ipv6/conf/all/forwarding", value: "1" },
      { type: "address", link: "lo", address: `${gateway6}/128` },
      sourceChecks,
    ];
  }

  peer(nodeId: string): void {
    const endpoints = this.#ofNode.get(nodeId);
    if (endpoints === undefined) return;
    this.#node(nodeId);
    for (const [key, record] of endpoints) this.#route(key, record);
  }

  #node(nodeId: string): void {
    const peer = this.#peer(nodeId);
    const { encrypted } = this.#options.network;
    if (peer === undefined || !this.#ofNode.has(nodeId)) {
      this.#set(`node ${nodeId}`, []);
      if (encrypted) this.#setOnHost(`node ${nodeId}`, []);
      return;
    }
    const { mac, linkAddress, linkAddress6, tunnelAddress } = nodeAddresses(peer.number);
    const has6 = this.#options.network.subnet6 !== undefined;
    if (encrypted) this.#setOnHost(`node ${nodeId}`, tunnelPeerObjects(peer));
    this.#set(`node ${nodeId}`, [
      { type: "fdb", link: vxlanLink, mac, destination: encrypted ? tunnelAddress : peer.addr },
      { type: "neighbour", link: vxlanLink, address: linkAddress, mac },
      ...(has6 ? [{ type: "neighbour", link: vxlanLink, address: linkAddress6, mac } as const] : []),
    ]);
  }

  /** undefined: there is no way to it, or none that may be gone. */
  #peer(nodeId: string): PeerRecord | undefined {
    const peer = this.#options.peers.get(nodeId);
    if (peer === undefined || !this.#isOpen) return undefined;
    return this.#options.network.encrypted && !isReachable(peer) ? undefined : peer;
  }

  endpoint(key: string, after: EndpointRecord | undefined, before: EndpointRecord | undefined): void {
    const { self } = this.#options;
    if (before !== undefined && before.nodeId !== after?.nodeId) this.#leaveNode(before.nodeId, key);
    // Tasks of this node are routed to by their sandbox.
    if (after !== undefined && after.nodeId !== self.nodeId) {
      const first = !this.#ofNode.has(after.nodeId);
      file(this.#ofNode, after.nodeId, key, after);
      if (first) this.#node(after.nodeId);
      this.#route(key, after);
    } else {
      this.#set(`task ${key}`, []);
    }
    const record = after ?? before;
    const address = record?.addresses.map(addressOf).find((one) => one !== undefined) ?? "";
    const address6 =
      this.#vips6 === undefined ? "" : (record?.addresses.map(address6Of).find((one) => one !== "") ?? "");
    if (before !== undefined && before.serviceId !== after?.serviceId && before.serviceId !== "") {
      this.#vips.task(before.serviceId, key, "");
      this.#vips6?.task(before.serviceId, key, "");
    }
    if (record !== undefined && record.serviceId !== "") {
      const isServing = after?.serving === true;
      this.#vips.task(record.serviceId, key, isServing ? address : "");
      this.#vips6?.task(record.serviceId, key, isServing ? address6 : "");
    }
    const isLost = after?.lost === true && before?.lost !== true;
    if ((after === undefined || isLost) && before !== undefined) {
      const { vip = "", vip6 = "" } = this.#vipOf.get(before.serviceId) ?? {};
      if (vip !== "" && address !== "") this.#options.forget(vip, address, isLost);
      if (vip6 !== "" && address6 !== "") this.#options.forget(vip6, address6, isLost);
    }
  }

  #leaveNode(nodeId: string, key: string): void {
    file(this.#ofNode, nodeId, key, undefined);
    if (!this.#ofNode.has(nodeId)) this.#node(nodeId);
  }

  #route(key: string, record: EndpointRecord): void {
    const peer = this.#peer(record.nodeId);
    if (peer === undefined) {
      this.#set(`task ${key}`, []);
      return;
    }
    const { linkAddress, linkAddress6 } = nodeAddresses(peer.number);
    const has6 = this.#options.network.subnet6 !== undefined;
    const base = { type: "route", table: mainTable, link: vxlanLink, source: "" } as const;
    this.#set(
      `task ${key}`,
      record.addresses.flatMap((text): NetObject[] => {
        const address = addressOf(text);
        if (address !== undefined) return [{ ...base, destination: `${address}/32`, via: linkAddress, onlink: true }];
        const address6 = has6 ? parseCidr6(text)?.address : undefined;
        // A link-local next hop is on its link by itself.
        return address6 === undefined
          ? []
          : [{ ...base, destination: `${address6}/128`, via: linkAddress6, onlink: false }];
      }),
    );
  }

  service(serviceId: string, record: ServiceRecord | undefined): void {
    const isVip = record?.mode === "vip";
    const vip = isVip ? (addressOf(record.virtualIp) ?? "") : "";
    const vip6 = isVip && this.#vips6 !== undefined ? address6Of(record.virtualIp6 ?? "") : "";
    if (vip === "" && vip6 === "") this.#vipOf.delete(serviceId);
    else this.#vipOf.set(serviceId, { vip, vip6 });
    this.#vips.service(serviceId, vip);
    this.#vips6?.service(serviceId, vip6);
  }

  attach(facts: SandboxFacts | undefined, { wish, macAddress, interfaceName }: OverlayEndpoint): void {
    const cidr = parseCidr(wish.address);
    if (facts === undefined || cidr === undefined) return;
    const { id, tag, namespacePath } = facts;
    const { mtu } = this.#options;
    const link = `v${tag}`;
    this.#sandboxes.add(id);
    this.#set(`sandbox ${id}`, [
      {
        type: "link",
        name: link,
        how: {
          kind: "veth",
          peerNamespace: namespacePath,
          peerName: interfaceName,
          peerMac: macAddress,
          peerMtu: mtu,
          isLeftToKernel: true,
        },
        owner: id,
        mac: gatewayMac,
        mtu,
        master: "",
      },
      { type: "neighbour", link, address: cidr.address, mac: macAddress },
      {
        type: "route",
        table: mainTable,
        destination: `${cidr.address}/32`,
        link,
        via: "",
        onlink: false,
        source: "",
      },
      ...attached6(this.#options.network, wish.address6, link, macAddress),
    ]);
    this.#vips.local(id, cidr.address);
    this.#vips6?.local(id, address6Of(wish.address6 ?? ""));
  }

  detach(sandboxId: string): void {
    this.#sandboxes.delete(sandboxId);
    this.#set(`sandbox ${sandboxId}`, []);
    this.#vips.local(sandboxId, "");
    this.#vips6?.local(sandboxId, "");
  }

  end(): void {
    for (const group of this.#groups) this.#set(group, []);
    for (const group of this.#hostGroups) this.#setOnHost(group, []);
  }
}

/** Plain; empty: it is none of IPv6. */
const address6Of = (cidr: string): string => parseCidr6(cidr)?.address ?? "";

/** Of a sandbox with an address of IPv6, on the router's side. */
function attached6({ subnet6 }: OverlayNetwork, text: string | undefined, link: string, mac: string): NetObject[] {
  const cidr = subnet6 === undefined ? undefined : parseCidr6(text ?? "");
  if (cidr === undefined) return [];
  const destination = `${cidr.address}/128`;
  return [
    { type: "neighbour", link, address: cidr.address, mac },
    { type: "route", table: mainTable, destination, link, via: "", onlink: false, source: "" },
  ];
}

/**
 * IPv6 has no reverse path filter: this is it, on every link, so that nobody speaks with another's address. Neighbours know
 * each other for good, so what is said with link-local addresses (who is a router, who has which address) is nobody's need.
 */
const sourceChecks: TableObject = {
  type: "table",
  family: "ip6",
  table: "skep",
  text: `chain pre {
type filter hook prerouting priority raw; policy accept;
ip6 saddr fe80::/10 drop
fib saddr . iif oif missing drop
}
`,
  sets: {},
};

/** Objects in the sandbox's own namespace: an ordinary interface whose subnet is behind the gateway. */
function insideObjects(facts: SandboxFacts, mtuOf: (network: OverlayNetwork) => number): NetObject[] {
  const objects: NetObject[] = [];
  for (const { wish, macAddress, interfaceName: link } of facts.overlays) {
    const cidr = parseCidr(wish.address);
    if (cidr === undefined) continue;
    const { gateway, subnet } = wish.network;
    const mtu = mtuOf(wish.network);
    objects.push(
      {
        type: "link",
        name: link,
        how: { kind: "existing" },
        owner: facts.id,
        mac: macAddress,
        mtu,
        master: "",
        ...(wish.address6 === undefined ? { linkLocal: false } : {}),
      },
      { type: "address", link, address: wish.address },
      { type: "neighbour", link, address: gateway, mac: gatewayMac },
      {
        type: "route",
        table: mainTable,
        destination: `${gateway}/32`,
        link,
        via: "",
        onlink: false,
        source: "",
      },
      {
        type: "route",
        table: mainTable,
        destination: subnet,
        link,
        via: gateway,
        onlink: false,
        source: cidr.address,
      },
      ...inside6(wish, link),
    );
  }
  return objects;
}

function inside6({ address6, network: { subnet6, gateway6 } }: OverlayWish, link: string): NetObject[] {
  const cidr = parseCidr6(address6 ?? "");
  if (cidr === undefined || subnet6 === undefined || gateway6 === undefined) return [];
  const base = { type: "route", table: mainTable, link, onlink: false } as const;
  return [
    { type: "address", link, address: `${cidr.address}/${cidr.prefixLength}` },
    { type: "neighbour", link, address: gateway6, mac: gatewayMac },
    { ...base, destination: `${gateway6}/128`, via: "", source: "" },
    { ...base, destination: subnet6, via: gateway6, source: cidr.address },
  ];
}

/** Puts a value below two keys, or takes it away; no empty map is left. */
function file<Value>(
  maps: Map<string, Map<string, Value>>,
  outer: string,
  inner: string,
  value: Value | undefined,
): void {
  const map = maps.get(outer);
  if (value !== undefined) {
    if (map === undefined) maps.set(outer, new Map([[inner, value]]));
    else map.set(inner, value);
  } else if (map !== undefined) {
    map.delete(inner);
    if (map.size === 0) maps.delete(outer);
  }
}
