/** Why a task has no node, as it is stored with the task and as Swarm's users know it. */
import type { skep } from "../../../proto/index.ts";
import type { FilterName } from "./filters.ts";
import type { NoSuitableNode } from "./plan.ts";

/** Bounded: a detail may quote a constraint. */
const detailMax = 512;

export function reasonOf(why: NoSuitableNode, sinceUs: number): skep.objects.Reason.$Properties {
  return {
    sinceUs,
    noSuitableNode: {
      nodes: why.nodes,
      refusals: why.counts.map(({ filter, nodes, detail }) => ({ filter, nodes, detail: detail.slice(0, detailMax) })),
      nearestNodeId: why.nearest?.nodeId ?? "",
      nearestMiss: (why.nearest?.misses ?? []).map(({ detail }) => detail.slice(0, detailMax)),
      nearestFix: (why.nearest?.fixes ?? []).filter(({ length }) => length <= detailMax),
    },
  };
}

/** Reference wording: clients and scripts look for it. */
export function refusalText({ counts }: NoSuitableNode): string {
  if (counts.length === 0) return "no suitable node";
  return `no suitable node (${counts.map(({ filter, nodes }) => words[filter](nodes)).join("; ")})`;
}

const on = (nodes: number): string => (nodes === 1 ? "on 1 node" : `on ${nodes} nodes`);
const words: Readonly<Record<FilterName, (nodes: number) => string>> = {
  ready: (nodes) => `${nodes === 1 ? "1 node" : `${nodes} nodes`} not available for new tasks`,
  resource: (nodes) => `insufficient resources ${on(nodes)}`,
  plugin: (nodes) => `missing plugin ${on(nodes)}`,
  constraint: (nodes) => `scheduling constraints not satisfied ${on(nodes)}`,
  platform: (nodes) => `unsupported platform ${on(nodes)}`,
  encryption: (nodes) => `no WireGuard for an encrypted network ${on(nodes)}`,
  hostPort: (nodes) => `host-mode port already in use ${on(nodes)}`,
  maxReplicas: () => "max replicas per node limit exceed",
};
