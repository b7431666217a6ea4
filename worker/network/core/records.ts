/**
 * What containers wish of networks, beside what managers tell of them. IPv4 text, IPv6 where a name ends with 6; CIDR where
 * it says so.
 */
export {
  endpointKey,
  serviceKey,
  type EndpointRecord,
  type NetworkRecords,
  type PeerRecord,
  type RecordChange,
  type ServicePort,
  type ServiceRecord,
} from "../../../lib/pure/network-records.ts";

/** A network of the swarm as this node must know it to build it (objects.Network). */
export interface OverlayNetwork {
  readonly id: string;
  readonly name: string;
  readonly vni: number;
  /** CIDR, the one of the addresses. */
  readonly subnet: string;
  /** The same on every node; containers route through it. */
  readonly gateway: string;
  /** The same of IPv6; left out where the network has none. */
  readonly subnet6?: string;
  readonly gateway6?: string;
  /** No egress and no published ports for a container that is on internal networks only. */
  readonly internal: boolean;
  readonly encrypted: boolean;
  /** Bytes; 0: what the underlays of all nodes carry. */
  readonly mtu: number;
}

export interface OverlayWish {
  readonly kind: "overlay";
  readonly network: OverlayNetwork;
  /** CIDR, as the allocator gave it. */
  readonly address: string;
  readonly address6?: string;
  readonly aliases: readonly string[];
}

/** A network of this node alone, known by its id to the local side of this room. */
export interface BridgeWish {
  readonly kind: "bridge";
  readonly networkId: string;
  readonly networkName: string;
  /** Fixed; empty: one is chosen. */
  readonly address: string;
  /** Likewise, where the network has IPv6. */
  readonly address6?: string;
  /** Fixed; empty: from the address. */
  readonly macAddress: string;
  readonly aliases: readonly string[];
}

export interface PublishedPort {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly targetPort: number;
  /** 0: one is chosen. */
  readonly publishedPort: number;
  /** Address of the host; empty: all of IPv4; `::`: all of IPv6. */
  readonly hostAddress: string;
}
