/**
 * Networks of this node alone (Docker's driver bridge), routed like everything here: a container's address is a /32 route
 * to its own veth, so its source address is checked, nobody answers ARP in another's name, and traffic inside a network
 * needs neither a bridge nor br_netfilter. What is lost is broadcast and multicast between containers.
 */
import { parseCidr } from "./cidr.ts";
import { element } from "./host.ts";
import { gatewayLink } from "./names.ts";
import type { NetObject } from "./objects.ts";
import { subnetText } from "./pools.ts";

/** A network as its record has it; it never changes. */
export interface BridgeNetwork {
  readonly id: string;
  readonly name: string;
  /** CIDR. */
  readonly subnet: string;
  /** Plain; the host's own. */
  readonly gateway: string;
  /** The same of IPv6; left out where it has none. */
  readonly subnet6?: string;
  readonly gateway6?: string;
  /** CIDR, the part of the subnet that addresses are chosen from; empty: all of it. */
  readonly ipRange: string;
  /** Addresses that are never chosen: of routers, of printers. */
  readonly reserved: readonly string[];
  readonly internal: boolean;
  /** Off: what leaves the host keeps the container's address, which somebody must route back. */
  readonly masquerade: boolean;
  /** Off: containers reach each other by published ports only. */
  readonly interContainer: boolean;
  /** 0: 1500. */
  readonly mtu: number;
  /** Where ports are published that name no address; empty: on all. */
  readonly hostAddress: string;
}

/** While a sandbox is on it. */
export function bridgeObjects({ subnet, gateway, internal, masquerade, interContainer }: BridgeNetwork): NetObject[] {
  return [
    { type: "address", link: gatewayLink, address: `${gateway}/32` },
    element("gateways", [gateway]),
    element("behind", [subnet]),
    // Answers to what is not masqueraded come to the container's own address; what is new is dropped when it is forwarded.
    ...(masquerade || internal ? [element("blocks", [subnet])] : []),
    ...(interContainer ? [element("lan", [subnet, subnet])] : []),
    ...(masquerade && !internal ? [element("leaving", [subnet])] : []),
  ];
}

/** What may be given to sandboxes. */
export function bridgeAddresses({ subnet, ipRange }: Pick<BridgeNetwork, "subnet" | "ipRange">): {
  readonly first: number;
  readonly last: number;
} {
  const all = parseCidr(subnet);
  const part = ipRange === "" ? all : parseCidr(ipRange);
  if (all === undefined || part === undefined) return { first: 1, last: 0 };
  // The first and the last address of a subnet are no host's (RFC 1122); a /31 and a /32 have no such (RFC 3021).
  const edge = all.prefixLength >= 31 ? 0 : 1;
  return { first: Math.max(part.first, all.first + edge), last: Math.min(part.last, all.last - edge) };
}

export const canonicalSubnet = (text: string): string | undefined => {
  const cidr = parseCidr(text);
  return cidr === undefined ? undefined : subnetText(cidr);
};
