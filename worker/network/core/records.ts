/** What managers tell of the cluster's networks, and what containers wish of them. IPv4 text; CIDR where it says so. */

/** A node of the cluster as the data path sees it. Key: `nodeId`. */
export interface PeerRecord {
  readonly nodeId: string;
  /** 1 to 4095; MAC, link address, mark, zone and block of gateway addresses follow from it (lib/pure/node-number.ts). */
  readonly number: number;
  /** Where its VXLAN frames go. */
  readonly addr: string;
  /** Of its underlay; 0: not told, 1500. */
  readonly mtu: number;
  /** WireGuard; empty: the node has none. */
  readonly publicKey: string;
}

/** A task on a network, from ASSIGNED until it has ended. Key: `networkId/taskId`. */
export interface EndpointRecord {
  readonly networkId: string;
  readonly taskId: string;
  readonly serviceId: string;
  readonly nodeId: string;
  /** The task's. */
  readonly name: string;
  readonly slot: number;
  /** CIDR. */
  readonly addresses: readonly string[];
  /** Of its gw0; empty until its node has told. */
  readonly gatewayAddress: string;
  readonly aliases: readonly string[];
  /** It runs, is healthy and is wanted: traffic for its service may go to it. */
  readonly serving: boolean;
}

export interface ServicePort {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly targetPort: number;
  readonly publishedPort: number;
  readonly mode: "ingress" | "host";
}

/** A service on a network. Key: `networkId/serviceId`. */
export interface ServiceRecord {
  readonly networkId: string;
  readonly serviceId: string;
  readonly name: string;
  readonly aliases: readonly string[];
  /** CIDR; empty in mode dnsrr. */
  readonly virtualIp: string;
  readonly mode: "vip" | "dnsrr";
  readonly ports: readonly ServicePort[];
}

/** All that this node needs to know; keys are unique in each list. */
export interface NetworkRecords {
  /** This node's own id, whose record is among the peers; empty outside a swarm. */
  readonly nodeId: string;
  readonly peers: readonly PeerRecord[];
  readonly endpoints: readonly EndpointRecord[];
  readonly services: readonly ServiceRecord[];
}

/** `record` undefined: gone. Keys as told above. */
export type RecordChange =
  | { readonly kind: "peer"; readonly key: string; readonly record: PeerRecord | undefined }
  | { readonly kind: "endpoint"; readonly key: string; readonly record: EndpointRecord | undefined }
  | { readonly kind: "service"; readonly key: string; readonly record: ServiceRecord | undefined };

export const endpointKey = (networkId: string, taskId: string): string => `${networkId}/${taskId}`;
export const serviceKey = (networkId: string, serviceId: string): string => `${networkId}/${serviceId}`;

/** A network of the swarm as this node must know it to build it (objects.Network). */
export interface OverlayNetwork {
  readonly id: string;
  readonly name: string;
  readonly vni: number;
  /** CIDR, the one of the addresses. */
  readonly subnet: string;
  /** The same on every node; containers route through it. */
  readonly gateway: string;
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
  readonly aliases: readonly string[];
}

/** A network of this node alone, known by its id to the local side of this room. */
export interface BridgeWish {
  readonly kind: "bridge";
  readonly networkId: string;
  readonly networkName: string;
  /** Fixed; empty: one is chosen. */
  readonly address: string;
  /** Fixed; empty: from the address. */
  readonly macAddress: string;
  readonly aliases: readonly string[];
}

export interface PublishedPort {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly targetPort: number;
  /** 0: one is chosen. */
  readonly publishedPort: number;
  /** Address of the host; empty: all. */
  readonly hostAddress: string;
}
