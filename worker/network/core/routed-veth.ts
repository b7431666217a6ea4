/**
 * A veth from a sandbox to the host's namespace, routed and not bridged: gw0, and the interfaces of local networks. The
 * host has one /32 route to it, both ends know each other's hardware address for good, and strict reverse path filtering on
 * the host's end lets no other source address through. So nobody asks by ARP and nobody can answer in another's name.
 */
import { element, ownGateway } from "./host.ts";
import { parseAddress } from "./cidr.ts";
import { element6, loopbackRoute } from "./host6.ts";
import { hostRouterMac, insideResolver, linkNameOf } from "./names.ts";
import { loopback, type NetObject } from "./objects.ts";

/** The kernel's table of its own addresses, which it asks first (ip-rule(8)). */
const localTable = 255;

export interface RoutedVeth {
  readonly sandboxId: string;
  /** Path of the sandbox's namespace. */
  readonly namespace: string;
  /** In the sandbox: gw0, eth0, ... */
  readonly interfaceName: string;
  readonly kind: "gateway" | "local";
  /** Plain. */
  readonly address: string;
  /** CIDR of the network that it sees itself in; empty: only itself. */
  readonly subnet: string;
  /** The host's address in it, its next hop. */
  readonly gateway: string;
  /** Of IPv6, beside those; left out: it has none. Subnet as above. */
  readonly v6?: {
    readonly address: string;
    readonly subnet: string;
    readonly gateway: string;
    readonly isDefaultRoute: boolean;
  };
  readonly mac: string;
  readonly mtu: number;
  readonly isDefaultRoute: boolean;
  /** The way to the host's own address, of a sandbox without a default route; one link has it. */
  readonly leadsToHost: boolean;
  /** 127.0.0.11 is behind it; one link of a sandbox that is told names has it. */
  readonly leadsToResolver: boolean;
  /** Nothing but its own network and the resolver may be reached from it. */
  readonly isIsolated: boolean;
}

/** Groups of both namespaces. */
export interface VethObjects {
  readonly host: readonly NetObject[];
  readonly inside: readonly NetObject[];
}

export function routedVeth(veth: RoutedVeth): VethObjects {
  const { sandboxId, namespace, interfaceName, address, subnet, gateway, mac, mtu } = veth;
  const link = linkNameOf(veth.kind, address);
  const conf = `net/ipv4/conf/${link}`;
  const host: NetObject[] = [
    {
      type: "link",
      name: link,
      how: {
        kind: "veth",
        peerNamespace: namespace,
        peerName: interfaceName,
        peerMac: mac,
        peerMtu: mtu,
        isLeftToKernel: true,
        // Gateway addresses, and so these names, are given again last; an address of a local network may be fixed.
        ...(veth.kind === "local" ? { mayBeLeft: true } : {}),
      },
      owner: sandboxId,
      mac: hostRouterMac,
      mtu,
      master: "",
      ...(veth.v6 === undefined ? { linkLocal: false } : {}),
    },
    { type: "sysctl", path: `${conf}/rp_filter`, value: "1" },
    // Answers to what this host asked from 127.0.0.1 come back here; who else may use 127.0.0.0/8 is the table's business.
    { type: "sysctl", path: `${conf}/route_localnet`, value: "1" },
    // By link-local IPv6 a container would pass our table by and reach what listens on this host.
    veth.v6 === undefined
      ? { type: "sysctl", path: `net/ipv6/conf/${link}/disable_ipv6`, value: "1", optional: true }
      : { type: "sysctl", path: `net/ipv6/conf/${link}/disable_ipv6`, value: "0" },
    { type: "neighbour", link, address, mac },
    mainRoute(`${address}/32`, link, "", gateway),
    element("self", [address, address]),
    ...(veth.isIsolated ? [element("isolated", [address])] : []),
    ...hostObjects6(veth, link),
  ];
  const prefix = subnet === "" ? "32" : (subnet.split("/")[1] ?? "32");
  const inside: NetObject[] = [
    loopback,
    {
      type: "link",
      name: interfaceName,
      how: { kind: "existing" },
      owner: "",
      mac,
      mtu,
      master: "",
      ...(veth.v6 === undefined ? { linkLocal: false } : {}),
    },
    { type: "address", link: interfaceName, address: `${address}/${prefix}` },
    { type: "neighbour", link: interfaceName, address: gateway, mac: hostRouterMac },
    mainRoute(`${gateway}/32`, interfaceName, "", ""),
    ...(subnet === "" ? [] : [mainRoute(subnet, interfaceName, gateway, address)]),
    ...(veth.leadsToHost ? [mainRoute(`${ownGateway}/32`, interfaceName, gateway, address)] : []),
    ...(veth.leadsToResolver ? resolverObjects(veth) : []),
    ...(veth.isDefaultRoute ? [mainRoute("0.0.0.0/0", interfaceName, gateway, "")] : []),
    ...insideObjects6(veth),
  ];
  return { host, inside };
}

function hostObjects6({ v6, mac, isIsolated, address }: RoutedVeth, link: string): NetObject[] {
  if (v6 === undefined) return [];
  return [
    { type: "neighbour", link, address: v6.address, mac },
    mainRoute(`${v6.address}/128`, link, "", v6.gateway),
    element6("self", [v6.address, v6.address], [v6.gateway]),
    loopbackRoute(link, parseAddress(address) ?? 0),
    ...(isIsolated ? [element6("isolated", [v6.address])] : []),
  ];
}

function insideObjects6({ v6, interfaceName: link }: RoutedVeth): NetObject[] {
  if (v6 === undefined) return [];
  const prefix = v6.subnet === "" ? "128" : (v6.subnet.split("/")[1] ?? "128");
  return [
    { type: "address", link, address: `${v6.address}/${prefix}` },
    { type: "neighbour", link, address: v6.gateway, mac: hostRouterMac },
    mainRoute(`${v6.gateway}/128`, link, "", ""),
    ...(v6.subnet === "" ? [] : [mainRoute(v6.subnet, link, v6.gateway, v6.address)]),
    ...(v6.isDefaultRoute ? [mainRoute("::/0", link, v6.gateway, v6.address)] : []),
  ];
}

/**
 * The resolver is on the host, which rewrites the address (host.ts), so nothing is rewritten or tracked in the sandbox. In
 * the kernel's own table of local addresses the route is longer than that of 127.0.0.0/8; its source tells who asks.
 */
function resolverObjects({ interfaceName: link, gateway, address }: RoutedVeth): NetObject[] {
  return [
    // Answers come from 127.0.0.11 (ip-sysctl, route_localnet); to other such addresses the host lets nobody through.
    { type: "sysctl", path: `net/ipv4/conf/${link}/route_localnet`, value: "1" },
    {
      type: "route",
      table: localTable,
      destination: `${insideResolver}/32`,
      link,
      via: gateway,
      onlink: false,
      source: address,
    },
  ];
}

const mainRoute = (destination: string, link: string, via: string, source: string): NetObject => ({
  type: "route",
  table: 254,
  destination,
  link,
  via,
  onlink: false,
  source,
});
