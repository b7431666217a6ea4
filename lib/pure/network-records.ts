/**
 * What managers tell a node of the cluster's networks, as the agent hands it to the data plane: two rooms that do not know
 * each other, and one shape between them. IPv4 text; CIDR where it says so.
 */

/** A node of the cluster as the data path sees it. Key: `nodeId`. */
export interface PeerRecord {
  readonly nodeId: string;
  /** 1 to 4095; MAC, link address, mark, zone and block of gateway addresses follow from it (lib/pure/node-number.ts). */
  readonly number: number;
  /** Where its VXLAN frames go: plain, of IPv4 or of IPv6, the same for all nodes of a cluster. */
  readonly addr: string;
  /** Of its underlay; 0: not told, 1500. */
  readonly mtu: number;
  /** WireGuard; empty: the node has none. */
  readonly publicKey: string;
  /** Plain: its host's own of IPv6, by which the mesh knows what comes from it; left out: none are told. */
  readonly addresses6?: readonly string[];
  /** The same of IPv4, if `addr` is one of IPv6. */
  readonly addresses4?: readonly string[];
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
  /** Its node is taken for lost: nobody knows whether it goes on. */
  readonly lost?: boolean;
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
  /** The same of IPv6; left out where it has none. */
  readonly virtualIp6?: string;
  readonly mode: "vip" | "dnsrr";
  readonly ports: readonly ServicePort[];
  /** Of the mesh: it goes through the tunnel or not at all. Left out: it goes as it is. */
  readonly encrypted?: boolean;
  /** Of the mesh: it has IPv6. */
  readonly has6?: boolean;
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

/**
 * Where the agent hands in what managers tell, one call after the other. Each resolves when the kernel of this node does
 * what it was told (so the agent may say Applied), and at once where nothing of it concerns this node. It rejects when the
 * kernel refused; the rest is applied, and what is missing is tried again until it is.
 */
export interface DataPlane {
  /** Complete; what is not in it goes. Also outside a swarm, once: with an empty nodeId and no records. */
  replace(records: NetworkRecords): Promise<void>;
  change(changes: readonly RecordChange[]): Promise<void>;
}
