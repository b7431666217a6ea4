/**
 * Gives each task of a group a node, or says why none fits. Pure and deterministic: equal facts and an equal random
 * source give equal placements.
 *
 * One pass over the nodes filters them for the whole group; then each task costs a heap operation for each level of
 * spreading, so the cost of a task does not grow with the number of nodes.
 *
 * Order of nodes (Swarm's, completed): nodes on which this version keeps failing last; fewest tasks of this service;
 * fewest tasks in all; least reserved; then chance. Spread preferences come before it: at each level the branch with the
 * fewest tasks of this service.
 */
import { Heap } from "../../../lib/pure/heap.ts";
import type { Random } from "../../../lib/pure/prng.ts";
import { valueOf } from "../../../proto/index.ts";
import type { GroupFacts, TaskFacts } from "./facts.ts";
import { allRefusals, type FilterName, firstRefusal, fixesFor, type Refusal, resourceRefusal } from "./filters.ts";
import type { NodeState } from "./node-state.ts";

export interface Placement {
  readonly taskId: string;
  readonly nodeId: string;
  /** Generic resources given, by kind. */
  readonly assigned: ReadonlyMap<string, readonly string[]>;
}

/** Why no node fits, over all nodes. */
export interface NoSuitableNode {
  readonly nodes: number;
  /** Most frequent first. */
  readonly counts: readonly { readonly filter: FilterName; readonly nodes: number; readonly detail: string }[];
  readonly nearest: Nearest | undefined;
}

/** The node that fails the fewest filters. */
export interface Nearest {
  readonly nodeId: string;
  readonly misses: readonly Refusal[];
  /** Of `fixesFor`. */
  readonly fixes: readonly string[];
}

export interface Plan {
  readonly placements: readonly Placement[];
  /** Tasks without a node, all for the same reason, since they are equal. */
  readonly unplaced: readonly string[];
  readonly reason: NoSuitableNode | undefined;
}

export interface PlanInput {
  readonly nodes: Iterable<NodeState>;
  readonly group: GroupFacts;
  readonly taskIds: readonly string[];
  readonly random: Random;
  readonly nowMs: number;
}

/** Places the tasks and books them on their nodes. */
export function planGroup(input: PlanInput): Plan {
  const { group } = input;
  const all = [...input.nodes];
  const fitting = new Set(all.filter((node) => firstRefusal(node, group) === undefined));
  const root = new Branch(group, 0, all, fitting, input.random, input.nowMs);
  const placements: Placement[] = [];
  let placed = 0;
  for (const taskId of input.taskIds) {
    const node = root.take();
    if (node === undefined) break;
    const assigned = book(node, group, taskId);
    placements.push({ taskId, nodeId: node.facts.id, assigned });
    root.put(node);
    placed++;
  }
  const unplaced = input.taskIds.slice(placed);
  return { placements, unplaced, reason: unplaced.length === 0 ? undefined : explain(all, group) };
}

/** A task that came with its node (a global service's): the node only confirms that it has the resources. */
export function confirm(node: NodeState, group: GroupFacts, taskId: string): Placement | Refusal {
  const refusal = resourceRefusal(node, group);
  return refusal ?? { taskId, nodeId: node.facts.id, assigned: book(node, group, taskId) };
}

/** What each node says of a group, for `why` and for tasks that wait. */
export function explain(nodes: readonly NodeState[], group: GroupFacts): NoSuitableNode {
  const counts = new Map<FilterName, { nodes: number; detail: string }>();
  let nearest: { node: NodeState; misses: readonly Refusal[] } | undefined;
  for (const node of nodes) {
    const misses = allRefusals(node, group);
    const [first] = misses;
    if (first === undefined) continue;
    const count = counts.get(first.filter);
    if (count === undefined) counts.set(first.filter, { nodes: 1, detail: first.detail });
    else count.nodes++;
    if (nearest === undefined || isNearer(misses, node, nearest)) nearest = { node, misses };
  }
  return {
    nodes: nodes.length,
    counts: [...counts]
      .map(([filter, count]) => ({ filter, ...count }))
      .sort((a, b) => b.nodes - a.nodes || (a.filter < b.filter ? -1 : 1)),
    nearest:
      nearest === undefined
        ? undefined
        : {
            nodeId: nearest.node.facts.id,
            misses: nearest.misses,
            fixes: fixesFor(nearest.node, group, nearest.misses),
          },
  };
}

/** Fewer misses; a node that is up before one that is not; then by id, so that the answer does not waver. */
function isNearer(
  misses: readonly Refusal[],
  node: NodeState,
  than: { node: NodeState; misses: readonly Refusal[] },
): boolean {
  if (misses.length !== than.misses.length) return misses.length < than.misses.length;
  const up = (refusals: readonly Refusal[]): boolean => refusals[0]?.filter !== "ready";
  if (up(misses) !== up(than.misses)) return up(misses);
  return node.facts.id < than.node.facts.id;
}

function book(node: NodeState, group: GroupFacts, taskId: string): ReadonlyMap<string, readonly string[]> {
  const assigned = group.reserved.generic.size === 0 ? noNames : namesFor(node, group);
  const task: TaskFacts = {
    id: taskId,
    serviceId: group.serviceId,
    specVersion: group.specVersion,
    reserved: group.reserved,
    hostPorts: group.hostPorts,
    assigned,
  };
  node.add(task);
  return assigned;
}

const noNames: ReadonlyMap<string, readonly string[]> = new Map();

function namesFor(node: NodeState, { reserved }: GroupFacts): ReadonlyMap<string, readonly string[]> {
  return new Map([...reserved.generic].map(([kind, count]) => [kind, node.freeNames(kind, count)] as const));
}

interface Ranked {
  readonly node: NodeState;
  readonly avoided: boolean;
  readonly ofService: number;
  readonly total: number;
  readonly load: number;
  readonly chance: number;
}

/** The nodes with one value of a spread key, or at the last level a heap of nodes. Nodes that are full still count. */
class Branch {
  readonly #group: GroupFacts;
  readonly #random: Random;
  readonly #nowMs: number;
  readonly #key: string | undefined;
  readonly #children = new Map<string, Branch>();
  readonly #leaf: Heap<Ranked>;
  /** Tasks of the service on all nodes of the branch. */
  #tasks = 0;
  /** Nodes that can still take a task. */
  #open = 0;
  readonly #chance: number;

  constructor(
    group: GroupFacts,
    level: number,
    nodes: readonly NodeState[],
    fitting: ReadonlySet<NodeState>,
    random: Random,
    nowMs: number,
  ) {
    this.#group = group;
    this.#random = random;
    this.#nowMs = nowMs;
    this.#key = group.spreadOver[level];
    this.#chance = random.float();
    this.#leaf = new Heap<Ranked>(group.strategy === "binpack" ? fullestFirst : emptiestFirst);
    if (this.#key === undefined) {
      for (const node of nodes) if (fitting.has(node)) this.#leaf.push(this.#rank(node));
    } else {
      for (const [value, members] of groupBy(nodes, this.#key)) {
        this.#children.set(value, new Branch(group, level + 1, members, fitting, random, nowMs));
      }
    }
    for (const node of nodes) {
      this.#tasks += node.tasksOf(group.serviceId);
      if (fitting.has(node)) this.#open++;
    }
  }

  /** The best node, out of the order until it is put back. */
  take(): NodeState | undefined {
    if (this.#open === 0) return undefined;
    this.#open--;
    if (this.#key === undefined) return this.#leaf.pop()?.node;
    let best: Branch | undefined;
    for (const child of this.#children.values()) {
      if (child.#open > 0 && (best === undefined || child.#isBefore(best))) best = child;
    }
    return best?.take();
  }

  /** After it was given a task: back into the order if it can take another. */
  put(node: NodeState): void {
    this.#tasks++;
    const fits = firstRefusal(node, this.#group) === undefined;
    if (fits) this.#open++;
    if (this.#key === undefined) {
      if (fits) this.#leaf.push(this.#rank(node));
    } else {
      this.#children.get(valueOf(node.facts, this.#key) ?? "")?.put(node);
    }
  }

  #isBefore(other: Branch): boolean {
    return this.#tasks !== other.#tasks ? this.#tasks < other.#tasks : this.#chance < other.#chance;
  }

  #rank(node: NodeState): Ranked {
    return {
      node,
      avoided: node.isAvoidedBy(this.#group.serviceId, this.#group.specVersion, this.#nowMs),
      ofService: node.tasksOf(this.#group.serviceId),
      total: node.tasksTotal,
      load: node.load(),
      chance: this.#random.float(),
    };
  }
}

function emptiestFirst(a: Ranked, b: Ranked): boolean {
  if (a.avoided !== b.avoided) return b.avoided;
  return (a.ofService - b.ofService || a.total - b.total || a.load - b.load || a.chance - b.chance) < 0;
}

function fullestFirst(a: Ranked, b: Ranked): boolean {
  if (a.avoided !== b.avoided) return b.avoided;
  return (b.load - a.load || b.total - a.total || a.chance - b.chance) < 0;
}

function groupBy(nodes: readonly NodeState[], key: string): ReadonlyMap<string, NodeState[]> {
  const groups = new Map<string, NodeState[]>();
  for (const node of nodes) {
    const value = valueOf(node.facts, key) ?? "";
    const members = groups.get(value);
    if (members === undefined) groups.set(value, [node]);
    else members.push(node);
  }
  return groups;
}
