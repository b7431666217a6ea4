/** A global service without a task has none that could say why: what each node lacks is found out here, when it is asked. */
import { parseConstraint, requiredLabel, satisfies, skep, traitsOf, type Constraint } from "../../../proto/index.ts";

const { NodeAvailability, NodeState } = skep.objects;

type Node = skep.objects.Node.$Properties;

interface Miss {
  readonly filter: "ready" | "constraint";
  readonly detail: string;
  /** A command but for the node's name behind it. */
  readonly fix: string | undefined;
}

/** In the shape that the scheduler uses for tasks that wait; no refusals: a node would take it. */
export function noNodeFor(
  constraints: readonly string[],
  nodes: readonly Node[],
): skep.objects.NoSuitableNode.$Properties | undefined {
  const wanted = constraints.flatMap((text) => readable(text) ?? []);
  const counts = new Map<string, { nodes: number; detail: string }>();
  let nearest: { node: Node; misses: readonly Miss[] } | undefined;
  for (const node of nodes) {
    const misses = missesOf(node, wanted);
    const [first] = misses;
    if (first === undefined) return undefined;
    const { nodes: count, detail } = counts.get(first.filter) ?? { nodes: 0, detail: first.detail };
    counts.set(first.filter, { nodes: count + 1, detail });
    if (nearest === undefined || misses.length < nearest.misses.length) nearest = { node, misses };
  }
  return {
    nodes: nodes.length,
    refusals: Array.from(counts, ([filter, facts]) => ({ filter, ...facts })),
    ...(nearest === undefined
      ? {}
      : {
          nearestNodeId: nearest.node.id ?? "",
          nearestMiss: nearest.misses.map(({ detail }) => detail),
          nearestFix: nearest.misses.flatMap(({ fix }) => fix ?? []),
        }),
  };
}

/** One that an earlier release took and this one cannot read refuses nobody here. */
function readable(text: string): Constraint | undefined {
  try {
    return parseConstraint(text);
  } catch {
    return undefined;
  }
}

function missesOf(node: Node, constraints: readonly Constraint[]): Miss[] {
  const misses: Miss[] = [];
  const state = node.status?.state ?? NodeState.NODE_UNKNOWN;
  const availability = node.spec?.availability ?? NodeAvailability.ACTIVE;
  if (state === NodeState.NODE_DOWN) misses.push({ filter: "ready", detail: "the node is down", fix: undefined });
  else if (availability !== NodeAvailability.ACTIVE) {
    const word = (NodeAvailability[availability] ?? "").toLowerCase();
    misses.push({
      filter: "ready",
      detail: `its availability is ${word}`,
      fix: "skep node update --availability active",
    });
  }
  const traits = traitsOf(node);
  for (const constraint of constraints) {
    if (satisfies(traits, constraint)) continue;
    const label = requiredLabel(constraint);
    const fix = label === undefined ? undefined : `skep node update --label-add ${label}`;
    misses.push({ filter: "constraint", detail: `it does not satisfy ${constraint.text}`, fix });
  }
  return misses;
}
