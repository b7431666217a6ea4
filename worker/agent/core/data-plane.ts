/**
 * What the agent hands to the data plane of its node, and nothing more of it: the network room has the same shapes at its
 * own door (worker/network/contract.ts), and knows as little of the agent.
 */

/** A node of the cluster as the data path sees it. Key: `nodeId`. */
export interface PeerRecord {
  readonly nodeId: string;
  /** 1 to 4095; see lib/pure/node-number.ts. */
  readonly number: number;
  /** Plain IP. */
  readonly addr: string;
  /** Of its underlay; 0: not told. */
  readonly mtu: number;
  /** WireGuard's, in base64; empty: the node has none. */
  readonly publicKey: string;
}

/** A task on a network. Key: `networkId/taskId`. */
export interface EndpointRecord {
  readonly networkId: string;
  readonly taskId: string;
  readonly serviceId: string;
  readonly nodeId: string;
  readonly name: string;
  readonly slot: number;
  /** CIDR. */
  readonly addresses: readonly string[];
  /** Plain IP; empty until its node has told. */
  readonly gatewayAddress: string;
  readonly aliases: readonly string[];
  readonly serving: boolean;
}

/** A service on a network. Key: `networkId/serviceId`. */
export interface ServiceRecord {
  readonly networkId: string;
  readonly serviceId: string;
  readonly name: string;
  readonly aliases: readonly string[];
  /** CIDR; empty: it has none. */
  readonly virtualIp: string;
  readonly mode: "vip" | "dnsrr";
  readonly ports: readonly {
    readonly protocol: "tcp" | "udp" | "sctp";
    readonly targetPort: number;
    readonly publishedPort: number;
    readonly mode: "ingress" | "host";
  }[];
}

export interface NetworkRecords {
  readonly nodeId: string;
  readonly peers: readonly PeerRecord[];
  readonly endpoints: readonly EndpointRecord[];
  readonly services: readonly ServiceRecord[];
}

/** `record` undefined: gone. */
export type RecordChange =
  | { readonly kind: "peer"; readonly key: string; readonly record: PeerRecord | undefined }
  | { readonly kind: "endpoint"; readonly key: string; readonly record: EndpointRecord | undefined }
  | { readonly kind: "service"; readonly key: string; readonly record: ServiceRecord | undefined };

/** Called by one call after the other; each resolves when this node does what it was told. */
export interface DataPlane {
  /** Complete; what is not in it goes. */
  replace(records: NetworkRecords): Promise<void>;
  change(changes: readonly RecordChange[]): Promise<void>;
}
