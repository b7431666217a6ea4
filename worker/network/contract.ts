/**
 * What others may ask of the network room, and what its parts ask of each other. The agent hands in records, the executor
 * and the local API ask for sandboxes, the resolver asks for names. Addresses are IPv4 text; CIDR where it says so.
 */
import type { ClusterError } from "../../lib/pure/errors.ts";

// ------------------------------------------------------------------------------------------------- what managers tell

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

/**
 * Where the agent hands in what managers tell, one call after the other. Each resolves when the kernel of this node does
 * what it was told (so the agent may say Applied), and at once where nothing of it concerns this node.
 * @throws NetworkNotApplied when the kernel refused; the rest is applied, and what is missing is tried again until it is
 */
export interface DataPlane {
  /** Complete; what is not in it goes. Also outside a swarm, once: with an empty nodeId and no records. */
  replace(records: NetworkRecords): Promise<void>;
  change(changes: readonly RecordChange[]): Promise<void>;
}

// --------------------------------------------------------------------------------------------------------- sandboxes

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

/**
 * The networks of one container. Modes `host` and `none` need no sandbox, `container:ID` uses the other's namespace.
 * Interfaces are eth0, eth1, ... in the order of `networks`; gw0 comes with any overlay, with ports and when asked for.
 */
export interface SandboxRequest {
  readonly networks: readonly (OverlayWish | BridgeWish)[];
  /** gw0 although nothing else needs it: egress of a service without networks. */
  readonly gateway: boolean;
  /** Host-mode ports of a task, `-p` of a container. */
  readonly ports: readonly PublishedPort[];
  /** For names: the container's own, and its id's short form. */
  readonly containerName: string;
  readonly hostname: string;
  /** Servers for names that are not of the swarm; empty: the host's. */
  readonly dns: readonly string[];
  /** The service and task it belongs to; empty for a container of the user's. */
  readonly serviceId: string;
  readonly taskId: string;
}

export interface SandboxEndpoint {
  readonly kind: "overlay" | "bridge";
  readonly networkId: string;
  readonly networkName: string;
  /** eth0, eth1, ... */
  readonly interfaceName: string;
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  readonly macAddress: string;
  readonly aliases: readonly string[];
}

export interface Sandbox {
  readonly id: string;
  /** For the container's `NetworkMode: ns:PATH`. */
  readonly namespacePath: string;
  /** For resolv.conf; undefined: the host's servers. */
  readonly resolver: string | undefined;
  /** Of gw0. */
  readonly gatewayAddress: string | undefined;
  readonly endpoints: readonly SandboxEndpoint[];
  /** As taken, with the ports that were chosen. */
  readonly ports: readonly PublishedPort[];
}

/** `id` is the task's or the container's. */
export interface Sandboxes {
  /**
   * A namespace with its interfaces, connected; what is there of it already (after a restart, a failed attach) is taken up.
   * @throws NetworkNotReady (temporary), NetworkUnavailable, EncryptionUnavailable, PortTaken and others of errors.ts
   */
  attach(id: string, request: SandboxRequest, signal: AbortSignal): Promise<Sandbox>;
  /** One that is attached. */
  get(id: string): Sandbox | undefined;
  /** Nothing is left of it. Again is harmless. */
  release(id: string): Promise<void>;
  held(): Promise<readonly string[]>;
}

// ------------------------------------------------------------------------------------------------------------- names

/** Names and who may ask for them, for the resolver. Answers are of this instant. */
export interface Names {
  /** Who asks from this address: gw0's or one of a bridge network. undefined: nobody of ours. */
  asker(address: string): Asker | undefined;
}

export interface Asker {
  /** Of the sandbox. */
  readonly id: string;
  /** Names that are not ours may be asked for outside: it is on some network that is not internal. */
  readonly forwards: boolean;
  /** Servers to forward to; empty: the host's. */
  readonly dns: readonly string[];
  /** Addresses of a name on the asker's networks; empty: the name is ours and has none now; undefined: not ours. */
  addresses(name: string): readonly string[] | undefined;
  /** Name of an address on the asker's networks, without a dot at its end. */
  nameOf(address: string): string | undefined;
}

// ------------------------------------------------------------------------------------------------------------- abilities

/** What this node can do, found at start. A reason is a typed error that says what is missing. */
export interface NetworkAbilities {
  /** undefined: overlays, gw0 and published ports work. */
  readonly refusal: ClusterError | undefined;
  /** undefined: encrypted networks work. */
  readonly encryptionRefusal: ClusterError | undefined;
}
