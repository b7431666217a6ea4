/** What the scheduler knows: plain facts taken from nodes, services and tasks. Amounts are integers of the smallest unit. */

import type { Constraint, NodeTraits } from "../../../proto/index.ts";

export type NodeAvailability = "active" | "pause" | "drain";
export type NodeState = "unknown" | "down" | "ready" | "disconnected";

/** What a node offers or a task reserves. */
export interface Amounts {
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  /** Generic resources by kind; a task asks for a count, a node has a count or names. */
  readonly generic: ReadonlyMap<string, number>;
}

export interface NodeFacts extends NodeTraits {
  readonly availability: NodeAvailability;
  readonly state: NodeState;
  readonly capacity: Amounts;
  /** Names of generic resources by kind, for kinds that have names. */
  readonly named: ReadonlyMap<string, readonly string[]>;
  /** "Type/name" of plugins, or undefined when the node does not tell. */
  readonly plugins: ReadonlySet<string> | undefined;
  /** It can be on encrypted networks. */
  readonly encrypts: boolean;
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
}

/** Equal for all tasks of one service at one spec version: they are placed together. */
export interface GroupFacts {
  readonly serviceId: string;
  readonly specVersion: number;
  readonly constraints: readonly Constraint[];
  readonly reserved: Amounts;
  readonly platforms: readonly Platform[];
  /** "tcp/8080": published on the host itself, so one task a node. */
  readonly hostPorts: readonly string[];
  /** 0 means no limit. */
  readonly maxReplicasPerNode: number;
  /** Keys such as "node.labels.zone", outermost first. */
  readonly spreadOver: readonly string[];
  readonly plugins: readonly string[];
  /** Names of its networks that are encrypted. */
  readonly encryptedNetworks: readonly string[];
  /** spread: fewest tasks first; binpack: fullest node first. */
  readonly strategy: "spread" | "binpack";
}

/** A task that counts on its node: not in a final state. */
export interface TaskFacts {
  readonly id: string;
  readonly serviceId: string;
  readonly specVersion: number;
  readonly reserved: Amounts;
  readonly hostPorts: readonly string[];
  /** Generic resources given to it, by kind; empty names where the kind has only a count. */
  readonly assigned: ReadonlyMap<string, readonly string[]>;
}

export const nothing: Amounts = { nanoCpus: 0, memoryBytes: 0, generic: new Map() };
