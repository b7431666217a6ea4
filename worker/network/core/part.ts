/**
 * A part of the model turns facts into wanted objects. It hears of each fact, and again when the fact changes; it is made
 * anew and told everything when this node itself changes. Parts do not know each other.
 */
import type { BridgeWish, EndpointRecord, OverlayWish, PeerRecord, PublishedPort, ServiceRecord } from "./records.ts";
import type { ForgottenConnections } from "./namespace.ts";
import type { NetObject } from "./objects.ts";

/** This node, as it is told to itself. */
export interface Self {
  readonly nodeId: string;
  /** 0: outside a swarm. */
  readonly number: number;
  /** Where its VXLAN frames come to; empty outside a swarm. */
  readonly addr: string;
  /** Of the cluster's underlays, the smallest: what is left for an outer header of IPv4 and all that is after it. */
  readonly underlayMtu: number;
}

/** A sandbox's end of an overlay. */
export interface OverlayEndpoint {
  readonly wish: OverlayWish;
  /** eth0, eth1, ... */
  readonly interfaceName: string;
  readonly macAddress: string;
}

/** A sandbox's end of a bridge; address and hardware address are decided. */
export interface BridgeEndpoint {
  readonly wish: BridgeWish;
  readonly interfaceName: string;
  readonly macAddress: string;
  /** CIDR. */
  readonly address: string;
  readonly gateway: string;
  /** The same of IPv6; left out where the network has none. */
  readonly address6?: string;
  readonly gateway6?: string;
}

/** A sandbox with all that was decided about it; what its record on disk holds. */
export interface SandboxFacts {
  readonly id: string;
  /** Ten letters and digits, of no other sandbox: links in shared namespaces are named `PREFIX` + tag. */
  readonly tag: string;
  readonly namespacePath: string;
  /** Of gw0; empty: it has none. */
  readonly gatewayAddress: string;
  /** On internal networks only: gw0 is for names alone. */
  readonly internal: boolean;
  readonly overlays: readonly OverlayEndpoint[];
  readonly bridges: readonly BridgeEndpoint[];
  /** As chosen; none has port 0. */
  readonly ports: readonly PublishedPort[];
}

/** Where a part puts what it wants. */
export interface Placement {
  /** The group's objects in a namespace from now on, in place of those before. Path empty: the host's namespace. */
  set(namespacePath: string, group: string, objects: readonly NetObject[]): void;
  forget(namespacePath: string, connections: ForgottenConnections): void;
}

/** `before` and `after` are undefined where there was or is none. */
export interface Part {
  peer(key: string, after: PeerRecord | undefined, before: PeerRecord | undefined): void;
  endpoint(key: string, after: EndpointRecord | undefined, before: EndpointRecord | undefined): void;
  service(key: string, after: ServiceRecord | undefined, before: ServiceRecord | undefined): void;
  sandbox(id: string, after: SandboxFacts | undefined, before: SandboxFacts | undefined): void;
}

export type MakePart = (self: Self, placement: Placement) => Part;
