/**
 * What is left on one node, kept up to date task by task: adding or removing a task costs the same however many there are.
 * `generation` changes with everything that can change a filter's answer.
 */
import { invariant } from "../../../lib/pure/errors.ts";
import type { NodeFacts, TaskFacts } from "./facts.ts";

/** Swarm's rule: five failures of a service version within five minutes push a node to the end of the order. */
export const failuresUntilAvoided = 5;
export const failureWindowMs = 5 * 60_000;

export class NodeState {
  facts: NodeFacts;
  generation = 1;
  tasksTotal = 0;
  nanoCpusReserved = 0;
  memoryBytesReserved = 0;
  readonly #tasks = new Map<string, TaskFacts>();
  readonly #perService = new Map<string, number>();
  readonly #hostPorts = new Map<string, number>();
  readonly #genericReserved = new Map<string, number>();
  readonly #namesTaken = new Map<string, Set<string>>();
  /** Times of failures by "service/version", oldest first, at most as many as matter. */
  readonly #failures = new Map<string, number[]>();

  constructor(facts: NodeFacts) {
    this.facts = facts;
  }

  update(facts: NodeFacts): void {
    this.facts = facts;
    this.generation++;
  }

  has(taskId: string): boolean {
    return this.#tasks.has(taskId);
  }

  add(task: TaskFacts): void {
    if (this.#tasks.has(task.id)) return;
    this.#tasks.set(task.id, task);
    this.#account(task, 1);
  }

  remove(taskId: string): void {
    const task = this.#tasks.get(taskId);
    if (task === undefined) return;
    this.#tasks.delete(taskId);
    this.#account(task, -1);
  }

  tasksOf(serviceId: string): number {
    return this.#perService.get(serviceId) ?? 0;
  }

  usesPort(port: string): boolean {
    return this.#hostPorts.has(port);
  }

  genericFree(kind: string): number {
    return (this.facts.capacity.generic.get(kind) ?? 0) - (this.#genericReserved.get(kind) ?? 0);
  }

  get nanoCpusFree(): number {
    return this.facts.capacity.nanoCpus - this.nanoCpusReserved;
  }

  get memoryBytesFree(): number {
    return this.facts.capacity.memoryBytes - this.memoryBytesReserved;
  }

  /** Names of a kind that no task holds, in the node's order, for a task to be given. */
  freeNames(kind: string, count: number): readonly string[] {
    const taken = this.#namesTaken.get(kind);
    return (this.facts.named.get(kind) ?? []).filter((name) => taken?.has(name) !== true).slice(0, count);
  }

  /** The larger share of what is reserved, 0 to 1: the tie-break of spreading, the order of packing. */
  load(): number {
    const { nanoCpus, memoryBytes } = this.facts.capacity;
    return Math.max(
      nanoCpus > 0 ? this.nanoCpusReserved / nanoCpus : 0,
      memoryBytes > 0 ? this.memoryBytesReserved / memoryBytes : 0,
    );
  }

  failed(serviceId: string, specVersion: number, nowMs: number): void {
    const key = `${serviceId}/${specVersion}`;
    const times = (this.#failures.get(key) ?? []).filter((at) => nowMs - at < failureWindowMs);
    times.push(nowMs);
    this.#failures.set(key, times.slice(-failuresUntilAvoided));
  }

  isAvoidedBy(serviceId: string, specVersion: number, nowMs: number): boolean {
    // Nearly always; a plan asks it of every node.
    if (this.#failures.size === 0) return false;
    const times = this.#failures.get(`${serviceId}/${specVersion}`);
    return times !== undefined && times.filter((at) => nowMs - at < failureWindowMs).length >= failuresUntilAvoided;
  }

  #account(task: TaskFacts, sign: 1 | -1): void {
    this.generation++;
    this.tasksTotal += sign;
    this.nanoCpusReserved += sign * task.reserved.nanoCpus;
    this.memoryBytesReserved += sign * task.reserved.memoryBytes;
    change(this.#perService, task.serviceId, sign);
    for (const port of task.hostPorts) change(this.#hostPorts, port, sign);
    for (const [kind, count] of task.reserved.generic) change(this.#genericReserved, kind, sign * count);
    for (const [kind, names] of task.assigned) {
      const taken = this.#namesTaken.get(kind) ?? new Set<string>();
      for (const name of names)
        if (sign > 0) taken.add(name);
        else taken.delete(name);
      if (taken.size === 0) this.#namesTaken.delete(kind);
      else this.#namesTaken.set(kind, taken);
    }
    invariant(this.tasksTotal === this.#tasks.size, "a node counts each of its tasks once", { node: this.facts.id });
  }
}

function change(counts: Map<string, number>, key: string, by: number): void {
  const next = (counts.get(key) ?? 0) + by;
  if (next === 0) counts.delete(key);
  else counts.set(key, next);
}
