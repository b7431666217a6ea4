/**
 * All nodes with what is on them, and the tasks that wait for one; kept up to date change by change. A plan books its
 * placements at once, so the next plan does not give a place away twice; what could not be committed is taken back.
 *
 * A task that replaces another (it waits for the old one to stop) may be planned into the place that the old one will
 * leave: so an update knows that its replacement fits before anything is stopped. Until the old one is gone both are on
 * the node, and only the new one is counted.
 */
import type { Random } from "../../../lib/pure/prng.ts";
import type { skep } from "../../../proto/index.ts";
import type { GroupFacts, NodeFacts, TaskFacts } from "./facts.ts";
import {
  groupFactsOf,
  holdsPlace,
  noneEncrypted,
  type EncryptedNetworks,
  isPending,
  taskFactsOf,
} from "./from-objects.ts";
import { NodeState } from "./node-state.ts";
import { confirm, explain, planGroup, type NoSuitableNode, type Placement } from "./plan.ts";

type Task = skep.objects.Task.$Properties;

interface Known {
  readonly id: string;
  readonly group: Group;
  readonly nodeId: string;
  readonly placed: TaskFacts | undefined;
  readonly pending: boolean;
  readonly replaces: string;
}

interface Group {
  readonly key: string;
  facts: GroupFacts;
  users: number;
  /** Waiting for any node, and waiting for the node they came with. */
  readonly waiting: Set<string>;
}

export interface Refused {
  readonly taskId: string;
  readonly reason: NoSuitableNode;
}

export interface BoardPlan {
  readonly placements: readonly { readonly placement: Placement; readonly group: GroupFacts }[];
  readonly refused: readonly Refused[];
}

export class Board {
  readonly #nodes = new Map<string, NodeState>();
  readonly #onNode = new Map<string, Set<string>>();
  readonly #tasks = new Map<string, Known>();
  readonly #groups = new Map<string, Group>();
  /** By the task that is to stop. */
  readonly #successors = new Map<string, string>();
  /** Booked and not committed yet, with their node. */
  readonly #booked = new Map<string, string>();
  readonly #due = new Set<Group>();
  #encrypted: EncryptedNetworks = noneEncrypted;

  /** Of tasks that become pending from now on; told before them. */
  setEncrypted(networks: EncryptedNetworks): void {
    this.#encrypted = networks;
  }

  setNode(facts: NodeFacts): void {
    const node = this.#nodes.get(facts.id);
    if (node === undefined) {
      this.#nodes.set(facts.id, new NodeState(facts));
      for (const id of this.#onNode.get(facts.id) ?? []) this.#account(id);
    } else node.update(facts);
    this.#retryAll();
  }

  removeNode(id: string): void {
    if (this.#nodes.delete(id)) this.#retryAll();
  }

  node(id: string): NodeState | undefined {
    return this.#nodes.get(id);
  }

  /** Nodes. */
  get size(): number {
    return this.#nodes.size;
  }

  get nodes(): IterableIterator<NodeState> {
    return this.#nodes.values();
  }

  /** Ids of the tasks that have a place on a node. */
  tasksOn(nodeId: string): readonly string[] {
    return [...(this.#onNode.get(nodeId) ?? [])];
  }

  get waiting(): number {
    let count = 0;
    for (const { waiting } of this.#groups.values()) count += waiting.size;
    return count;
  }

  setTask(task: Task): void {
    const id = task.id ?? "";
    const before = this.#tasks.get(id);
    const group = before?.group ?? this.#join(task);
    // On which networks its tasks are is known when the allocator has put them there.
    if (this.#encrypted.names.size > 0 && isPending(task)) group.facts = groupFactsOf(task, this.#encrypted);
    const known: Known = {
      id,
      group,
      // The node's own text: each task that is decoded brings one of its own.
      nodeId: this.#nodes.get(task.nodeId ?? "")?.facts.id ?? task.nodeId ?? "",
      placed: holdsPlace(task) ? taskFactsOf(task, group.facts) : undefined,
      pending: isPending(task),
      replaces: task.hold?.waitingForOldTask?.taskId ?? "",
    };
    this.#tasks.set(id, known);
    if (known.replaces !== "") this.#successors.set(known.replaces, id);
    if (known.pending && !this.#booked.has(id)) {
      if (!group.waiting.has(id)) this.#due.add(group);
      group.waiting.add(id);
    } else group.waiting.delete(id);
    if (known.placed === undefined && before?.placed === undefined) {
      // A booking that came to nothing: the task was asked to stop meanwhile.
      if (!known.pending) this.unbook(id);
      return;
    }
    this.#booked.delete(id);
    if (before?.placed !== undefined && known.placed !== undefined && before.nodeId === known.nodeId) return;
    this.#move(id, before?.nodeId ?? "", known.placed === undefined ? "" : known.nodeId);
    this.#account(id);
    if (known.replaces !== "") this.#account(known.replaces);
    if (known.placed === undefined) this.#retryAll();
  }

  removeTask(id: string): void {
    const known = this.#tasks.get(id);
    if (known === undefined) return;
    this.unbook(id);
    this.#tasks.delete(id);
    if (this.#successors.get(known.replaces) === id) this.#successors.delete(known.replaces);
    known.group.waiting.delete(id);
    this.#due.delete(known.group);
    if (--known.group.users === 0) this.#groups.delete(known.group.key);
    else if (known.group.waiting.size > 0) this.#due.add(known.group);
    if (known.placed === undefined) return;
    this.#move(id, known.nodeId, "");
    this.#nodes.get(known.nodeId)?.remove(id);
    this.#account(known.replaces);
    this.#retryAll();
  }

  /** A task of this version ended badly on this node. */
  failed(task: Task, nowMs: number): void {
    this.#nodes.get(task.nodeId ?? "")?.failed(task.serviceId ?? "", task.specVersion ?? 0, nowMs);
  }

  /** The placement was not committed. */
  unbook(taskId: string): void {
    const nodeId = this.#booked.get(taskId);
    if (nodeId === undefined) return;
    this.#booked.delete(taskId);
    this.#nodes.get(nodeId)?.remove(taskId);
    const known = this.#tasks.get(taskId);
    if (known === undefined) return;
    this.#account(known.replaces);
    if (!known.pending) return;
    known.group.waiting.add(taskId);
    this.#due.add(known.group);
  }

  /** Whether something waits for a plan. */
  get isDue(): boolean {
    return this.#due.size > 0;
  }

  /**
   * Places what can be placed, and says of the rest why not; of groups for which something has changed.
   * @param tasksMax  placed anywhere in one plan, where eight nodes looked at cost as much as a task; what is left stays due
   */
  plan(random: Random, nowMs: number, tasksMax = Infinity): BoardPlan {
    const placements: { placement: Placement; group: GroupFacts }[] = [];
    const refused: Refused[] = [];
    let left = tasksMax;
    for (const group of this.#due) {
      if (left <= 0) break;
      this.#due.delete(group);
      const anywhere: string[] = [];
      for (const id of group.waiting) {
        const known = this.#tasks.get(id);
        if (known === undefined) continue;
        if (known.nodeId === "") anywhere.push(id);
        else this.#confirm(known, placements, refused);
      }
      if (anywhere.length === 0) continue;
      const nodes = [...this.#nodes.values()];
      const { facts } = group;
      const taskIds = anywhere.slice(0, Math.ceil(left));
      left -= Math.max(taskIds.length, nodes.length / 8);
      const planned = planGroup({ nodes, group: facts, taskIds, random, nowMs });
      for (const placement of planned.placements) this.#book(placement, group, placements);
      const later = anywhere.slice(taskIds.length);
      if (planned.unplaced.length === 0) {
        if (later.length > 0) this.#due.add(group);
        continue;
      }
      // Those behind are equal: there is no room for them either, but for the places of their predecessors.
      const unplaced: string[] = [];
      for (const id of [...planned.unplaced, ...later]) {
        const placement = this.#inOldPlace(id, facts, random, nowMs);
        if (placement === undefined) unplaced.push(id);
        else this.#book(placement, group, placements);
      }
      const reason = unplaced.length === 0 ? undefined : explain(nodes, facts);
      if (reason !== undefined) for (const taskId of unplaced) refused.push({ taskId, reason });
    }
    return { placements, refused };
  }

  /** The group of a task that is known here: for whoever asks why. */
  groupOf(taskId: string): GroupFacts | undefined {
    return this.#tasks.get(taskId)?.group.facts;
  }

  #book(placement: Placement, group: Group, into: { placement: Placement; group: GroupFacts }[]): void {
    group.waiting.delete(placement.taskId);
    this.#booked.set(placement.taskId, placement.nodeId);
    into.push({ placement, group: group.facts });
    const known = this.#tasks.get(placement.taskId);
    if (known !== undefined && known.replaces !== "") this.#account(known.replaces);
  }

  /** A global service's task: its node only confirms that it has room. */
  #confirm(known: Known, into: { placement: Placement; group: GroupFacts }[], refused: Refused[]): void {
    const node = this.#nodes.get(known.nodeId);
    if (node === undefined) {
      const miss = { filter: "ready" as const, detail: "the node is not known" };
      const nearest = { nodeId: known.nodeId, misses: [miss], fixes: [] };
      refused.push({ taskId: known.id, reason: { nodes: 1, counts: [{ ...miss, nodes: 1 }], nearest } });
      return;
    }
    const { facts } = known.group;
    let answer = confirm(node, facts, known.id);
    if (!("taskId" in answer) && this.#isOn(known.replaces, node)) {
      node.remove(known.replaces);
      answer = confirm(node, facts, known.id);
      if (!("taskId" in answer)) this.#account(known.replaces);
    }
    if ("taskId" in answer) return this.#book(answer, known.group, into);
    const nearest = { nodeId: known.nodeId, misses: [answer], fixes: [] };
    refused.push({ taskId: known.id, reason: { nodes: 1, counts: [{ ...answer, nodes: 1 }], nearest } });
  }

  #inOldPlace(id: string, group: GroupFacts, random: Random, nowMs: number): Placement | undefined {
    const replaces = this.#tasks.get(id)?.replaces ?? "";
    const node = this.#nodes.get(this.#tasks.get(replaces)?.nodeId ?? "");
    if (node === undefined || !this.#isOn(replaces, node)) return undefined;
    node.remove(replaces);
    const [placement] = planGroup({ nodes: [node], group, taskIds: [id], random, nowMs }).placements;
    if (placement === undefined) this.#account(replaces);
    return placement;
  }

  #isOn(taskId: string, node: NodeState): boolean {
    return taskId !== "" && node.has(taskId);
  }

  /** Counts a task on its node, or does not: when it has no place, or its successor has the place already. */
  #account(id: string): void {
    const known = this.#tasks.get(id);
    if (known?.placed === undefined) {
      if (known !== undefined && !this.#booked.has(id)) this.#nodes.get(known.nodeId)?.remove(id);
      return;
    }
    const node = this.#nodes.get(known.nodeId);
    if (this.#isReplacedOn(known)) node?.remove(id);
    else node?.add(known.placed);
  }

  #isReplacedOn({ id, nodeId }: Known): boolean {
    const successor = this.#tasks.get(this.#successors.get(id) ?? "");
    if (successor === undefined) return false;
    return successor.placed === undefined ? this.#booked.get(successor.id) === nodeId : successor.nodeId === nodeId;
  }

  #move(id: string, from: string, to: string): void {
    if (from !== "") this.#onNode.get(from)?.delete(id);
    if (from !== "" && from !== to) this.#nodes.get(from)?.remove(id);
    if (to === "") return;
    const there = this.#onNode.get(to);
    if (there === undefined) this.#onNode.set(to, new Set([id]));
    else there.add(id);
  }

  #join(task: Task): Group {
    // Without a service there is nothing that its tasks would have in common.
    const of = task.serviceId ?? "";
    const key = of === "" ? `task/${task.id ?? ""}` : `${of}/${task.specVersion ?? 0}`;
    const group = this.#groups.get(key) ?? {
      key,
      facts: groupFactsOf(task, this.#encrypted),
      users: 0,
      waiting: new Set<string>(),
    };
    group.users++;
    this.#groups.set(key, group);
    return group;
  }

  /** Room may have come free, or a node fits now. */
  #retryAll(): void {
    for (const group of this.#groups.values()) if (group.waiting.size > 0) this.#due.add(group);
  }
}
