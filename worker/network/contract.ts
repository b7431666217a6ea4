/**
 * What others may ask of the network room, and what its parts ask of each other. The agent hands in records, the executor
 * and the local API ask for sandboxes, the resolver asks for names. Addresses are IPv4 text
 * unless a name says v6; CIDR where it says so.
 */
import type { ClusterError } from "../../lib/pure/errors.ts";
import type { BridgeWish, OverlayWish, PublishedPort } from "./core/records.ts";

export type { DataPlane } from "../../lib/pure/network-records.ts";

export {
  endpointKey,
  serviceKey,
  type BridgeWish,
  type EndpointRecord,
  type NetworkRecords,
  type OverlayNetwork,
  type OverlayWish,
  type PeerRecord,
  type PublishedPort,
  type RecordChange,
  type ServicePort,
  type ServiceRecord,
} from "./core/records.ts";

// --------------------------------------------------------------------------------------------------------- sandboxes

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
  /** Names that only it knows (`--link`), and what each stands for. */
  readonly links?: Readonly<Record<string, string>>;
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
  /** The same of IPv6; left out where the network has none. */
  readonly v6?: { readonly address: string; readonly prefixLength: number; readonly gateway: string };
  readonly macAddress: string;
  readonly aliases: readonly string[];
}

export interface Sandbox {
  readonly id: string;
  /** For the container's `NetworkMode: ns:PATH`. */
  readonly namespacePath: string;
  /** For resolv.conf; undefined: the host's servers. */
  readonly resolver: string | undefined;
  /** By which it reaches this host; undefined: by none. */
  readonly hostAddress: string | undefined;
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

export type { Asker, Names } from "./dns/core/names.ts";

// ------------------------------------------------------------------------------------------------------------- abilities

/** What this node can do, found at start. A reason is a typed error that says what is missing. */
export interface NetworkAbilities {
  /** undefined: overlays, gw0 and published ports work. */
  readonly refusal: ClusterError | undefined;
  /** What is missing for encrypted networks; undefined: they work. */
  readonly encryptionRefusal: string | undefined;
}
