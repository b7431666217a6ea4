/**
 * Why a node cannot take a task: filters in Swarm's order. A filter answers with a reason, not with false, since "why is my
 * task pending" is the question that users ask most.
 */
import { requiredLabel, satisfies, sameArchitecture } from "../../../proto/index.ts";
import type { GroupFacts } from "./facts.ts";
import type { NodeState } from "./node-state.ts";

export type FilterName =
  "ready" | "resource" | "plugin" | "constraint" | "platform" | "encryption" | "hostPort" | "maxReplicas";

/** What stands in the way. */
export interface Refusal {
  readonly filter: FilterName;
  readonly detail: string;
}

export const filterNames: readonly FilterName[] = [
  "ready",
  "resource",
  "plugin",
  "constraint",
  "platform",
  "encryption",
  "hostPort",
  "maxReplicas",
];

/** The first filter that refuses, or undefined when the node fits. */
export function firstRefusal(node: NodeState, group: GroupFacts): Refusal | undefined {
  for (const filter of filterNames) {
    const refusal = ask(filter, node, group);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

/** Every filter that refuses: for the nearest miss, which fails the fewest. */
export function allRefusals(node: NodeState, group: GroupFacts): readonly Refusal[] {
  return filterNames.flatMap((filter) => ask(filter, node, group) ?? []);
}

/** Only whether the node can carry it: what is asked of a task that came with its node (global services). */
export function resourceRefusal(node: NodeState, group: GroupFacts): Refusal | undefined {
  return ask("resource", node, group) ?? ask("encryption", node, group) ?? ask("hostPort", node, group);
}

function ask(filter: FilterName, node: NodeState, group: GroupFacts): Refusal | undefined {
  const detail = details[filter](node, group);
  return detail === undefined ? undefined : { filter, detail };
}

const details: Readonly<Record<FilterName, (node: NodeState, group: GroupFacts) => string | undefined>> = {
  ready: ({ facts }) => {
    if (facts.state !== "ready") return `the node is ${facts.state}`;
    return facts.availability === "active" ? undefined : `its availability is ${facts.availability}`;
  },
  resource: (node, { reserved }) => {
    if (reserved.nanoCpus > node.nanoCpusFree) {
      return `${formatCpus(node.nanoCpusFree)} CPUs are free, ${formatCpus(reserved.nanoCpus)} are wanted`;
    }
    if (reserved.memoryBytes > node.memoryBytesFree) {
      return `${formatMiB(node.memoryBytesFree)} of memory are free, ${formatMiB(reserved.memoryBytes)} are wanted`;
    }
    for (const [kind, count] of reserved.generic) {
      if (count > node.genericFree(kind))
        return `${Math.max(0, node.genericFree(kind))} of "${kind}" are free, ${count} are wanted`;
    }
    return undefined;
  },
  plugin: ({ facts }, { plugins }) => {
    const lacking = facts.plugins === undefined ? undefined : plugins.find((name) => facts.plugins?.has(name) !== true);
    return lacking === undefined ? undefined : `it lacks the plugin ${lacking}`;
  },
  constraint: ({ facts }, { constraints }) => {
    const unmet = constraints.find((constraint) => !satisfies(facts, constraint));
    return unmet === undefined ? undefined : `it does not satisfy ${unmet.text}`;
  },
  platform: ({ facts }, { platforms }) => {
    if (platforms.length === 0) return undefined;
    const fits = platforms.some(
      ({ os, architecture }) =>
        (os === "" || os.toLowerCase() === facts.os.toLowerCase()) &&
        (architecture === "" || sameArchitecture(architecture, facts.architecture)),
    );
    if (fits) return undefined;
    const wanted = platforms.map(({ os, architecture }) => `${os}/${architecture}`).join(", ");
    return `it is ${facts.os}/${facts.architecture}, the image is for ${wanted}`;
  },
  encryption: ({ facts }, { encryptedNetworks: [network] }) =>
    network === undefined || facts.encrypts
      ? undefined
      : `it has no WireGuard, which the encrypted network ${network} needs`,
  hostPort: (node, { hostPorts }) => {
    const taken = hostPorts.find((port) => node.usesPort(port));
    return taken === undefined ? undefined : `its port ${taken} is in use`;
  },
  maxReplicas: (node, { maxReplicasPerNode, serviceId }) =>
    maxReplicasPerNode > 0 && node.tasksOf(serviceId) >= maxReplicasPerNode
      ? `it runs ${node.tasksOf(serviceId)} of at most ${maxReplicasPerNode} replicas`
      : undefined,
};

/** Commands, but for the node's name behind them, after which these filters let the task in; only where a command can. */
export function fixesFor(node: NodeState, group: GroupFacts, misses: readonly Refusal[]): readonly string[] {
  const { availability, state } = node.facts;
  return misses.flatMap(({ filter }) => {
    if (filter === "ready" && state === "ready" && availability !== "active")
      return ["skep node update --availability active"];
    if (filter !== "constraint") return [];
    return group.constraints
      .filter((constraint) => !satisfies(node.facts, constraint))
      .flatMap((constraint) => requiredLabel(constraint) ?? [])
      .map((label) => `skep node update --label-add ${label}`);
  });
}

function formatCpus(nanoCpus: number): string {
  return String(Math.max(0, Math.round(nanoCpus / 1e6) / 1000));
}

function formatMiB(bytes: number): string {
  return `${Math.max(0, Math.floor(bytes / 1_048_576))} MiB`;
}
