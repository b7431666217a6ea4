/**
 * What the HTTP API needs of the daemon that it runs in. The daemon implements `Swarm`; `Local` are the worker's rooms.
 */
import type { Channel } from "../lib/rpc/index.ts";
import type { ContainerNetworks } from "../worker/container-networks/index.ts";
import type { Containers } from "../worker/containers/index.ts";
import type { Images } from "../worker/images/index.ts";
import type { Volumes } from "../worker/volumes/index.ts";

export type LocalNodeState = "inactive" | "pending" | "active" | "error" | "locked";

/** Where this node stands, as `GET /info` shows it under Swarm. */
export interface SwarmState {
  readonly state: LocalNodeState;
  /** Empty while it is in no swarm. */
  readonly nodeId: string;
  readonly clusterId: string;
  /** The address at which others reach this node, without a port. */
  readonly nodeAddr: string;
  /** Whether a manager runs here. */
  readonly manager: boolean;
  /** Why the state is "error", or what hinders joining. */
  readonly error: string;
  readonly remoteManagers: readonly { readonly nodeId: string; readonly addr: string }[];
}

export type Availability = "active" | "pause" | "drain";

export interface InitRequest {
  readonly listenAddr: string;
  /** IP, IP:PORT or the name of an interface; empty: chosen. */
  readonly advertiseAddr: string;
  readonly dataPathAddr: string;
  readonly dataPathPort: number;
  readonly defaultAddrPool: readonly string[];
  readonly subnetSize: number;
  readonly forceNewCluster: boolean;
  readonly autoLockManagers: boolean;
  readonly availability: Availability;
  /** An encoded skep.objects.ClusterSpec. */
  readonly spec: Uint8Array;
}

export interface JoinRequest {
  readonly listenAddr: string;
  readonly advertiseAddr: string;
  readonly dataPathAddr: string;
  readonly remoteAddrs: readonly string[];
  readonly joinToken: string;
  readonly availability: Availability;
}

/** This node's life in a swarm. Every act throws a ClusterError with a code that the API knows how to word. */
export interface Swarm {
  state(): SwarmState;
  /** @returns the node's id, when the manager here leads and has made the cluster. @throws ALREADY_IN_SWARM, ADDRESS_* */
  init(request: InitRequest, signal: AbortSignal): Promise<string>;
  /** Resolves when this node is ready in the cluster. @throws ALREADY_IN_SWARM, JOIN_*, CA_* */
  join(request: JoinRequest, signal: AbortSignal): Promise<void>;
  /** @throws NOT_IN_SWARM, LEAVE_NEEDS_FORCE */
  leave(force: boolean, signal: AbortSignal): Promise<void>;
  /** @throws NOT_LOCKED, UNLOCK_KEY_WRONG */
  unlock(key: string, signal: AbortSignal): Promise<void>;
  /** Resolves when the manager of this node serves, if it is just starting; at once without one, or after some seconds. */
  ready(signal: AbortSignal): Promise<void>;
  /** To the manager of this node, for control.proto. @throws NOT_IN_SWARM, NOT_A_SWARM_MANAGER, SWARM_LOCKED */
  control(): Channel;
}

/** What runs on this node. */
export interface Local {
  readonly containers: Containers;
  /** Absent: this node makes none, and containers have the host's network or none. */
  readonly networks?: ContainerNetworks;
  readonly images: Images;
  readonly volumes: Volumes;
}
