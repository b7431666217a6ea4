/**
 * Tasks by slot. A slot is a number (replicated services and jobs) or a node (global ones); successive tasks share it,
 * and whatever a service is asked to do is asked of its slots.
 */
import { satisfies } from "../../../proto/index.ts";
import type { Situation } from "./situation.ts";
import { isDirty } from "./difference.ts";
import {
  isAlive,
  isLost,
  isWanted,
  keepsTasks,
  takesTasks,
  TaskState,
  type NodeFacts,
  type TaskFacts,
} from "./facts.ts";
import { mayRestart } from "./restart.ts";

export interface Slot {
  readonly number: number;
  /** Of global services. */
  readonly nodeId: string;
  /** Newest first, history included. */
  readonly tasks: readonly TaskFacts[];
  /** Wanted, and ended. */
  readonly dead: readonly TaskFacts[];
  /** Ended before the delay was over that it was held for: what follows it waits for that, too. */
  readonly resting: readonly TaskFacts[];
  /** Wanted, alive, and where they cannot stay. */
  readonly evicted: readonly TaskFacts[];
  /** Wanted and alive, made as the spec says now; newest first. One is enough. */
  readonly clean: readonly TaskFacts[];
  /** Wanted and alive, made from a spec that has changed since. */
  readonly old: readonly TaskFacts[];
  /** Asked to stop and not known to have stopped. */
  readonly leaving: readonly TaskFacts[];
  /** A job's slot whose task has completed. */
  readonly done: boolean;
  /** Nothing lives in it, and the restart policy does not let anything follow. */
  readonly spent: boolean;
  /** What is in it was made from another spec, and it must change. */
  readonly dirty: boolean;
}

export const isGlobal = ({ service }: Situation): boolean =>
  service.mode.kind === "global" || service.mode.kind === "globalJob";
export const isJob = ({ service }: Situation): boolean =>
  service.mode.kind === "replicatedJob" || service.mode.kind === "globalJob";

/** All slots that have tasks, by number or by node. */
export function groupBySlot(situation: Situation): Map<string | number, Slot> {
  const groups = new Map<string | number, TaskFacts[]>();
  const global = isGlobal(situation);
  for (const task of situation.tasks) {
    const key = global ? task.nodeId : task.slot;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [task]);
    else group.push(task);
  }
  const slots = new Map<string | number, Slot>();
  for (const [key, tasks] of groups) slots.set(key, look(situation, key, tasks.sort(newestFirst)));
  return slots;
}

export function emptySlot(key: string | number): Slot {
  const none: readonly TaskFacts[] = [];
  return {
    number: typeof key === "number" ? key : 0,
    nodeId: typeof key === "string" ? key : "",
    tasks: none,
    dead: none,
    resting: none,
    evicted: none,
    clean: none,
    old: none,
    leaving: none,
    done: false,
    spent: false,
    dirty: false,
  };
}

/** Newest last would be history; the newest is what counts. */
function newestFirst(a: TaskFacts, b: TaskFacts): number {
  return b.createdAtUs - a.createdAtUs || (a.id < b.id ? 1 : -1);
}

function look(situation: Situation, key: string | number, tasks: readonly TaskFacts[]): Slot {
  const { service, nodes } = situation;
  const job = isJob(situation);
  const dead: TaskFacts[] = [];
  const resting: TaskFacts[] = [];
  const evicted: TaskFacts[] = [];
  const clean: TaskFacts[] = [];
  const old: TaskFacts[] = [];
  const leaving: TaskFacts[] = [];
  let done = false;
  for (const task of tasks) {
    const node = nodes.get(task.nodeId);
    const current = !job || task.iteration === service.iteration;
    if (!isWanted(task)) {
      if (isAlive(task) && task.state >= TaskState.ASSIGNED && !isLost(node)) leaving.push(task);
    } else if (!isAlive(task)) {
      if (job && current && task.state === TaskState.COMPLETE) done = true;
      else if (current && rests(situation, task) && !dirty(situation, task, node)) resting.push(task);
      else dead.push(task);
    } else if (!current || (task.nodeId !== "" && !mayStay(situation, node))) evicted.push(task);
    else if (dirty(situation, task, node)) old.push(task);
    else clean.push(task);
  }
  const [last] = tasks;
  const empty = clean.length === 0 && old.length === 0 && resting.length === 0 && !done;
  const spent =
    empty &&
    last !== undefined &&
    last.desired !== TaskState.REMOVE &&
    (!job || last.iteration === service.iteration) &&
    !mayRestart(tasks, last, service.restart, service.mode.kind);
  return {
    ...emptySlot(key),
    tasks,
    dead,
    resting,
    evicted,
    clean,
    old,
    leaving,
    done,
    spent,
    dirty:
      clean.length === 0 &&
      (old.length > 0
        ? !gaveUp(situation, tasks)
        : spent && last !== undefined && dirty(situation, last, nodes.get(last.nodeId))),
  };
}

function rests({ nowUs }: Situation, { hold, desired }: TaskFacts): boolean {
  return desired === TaskState.READY && hold?.kind === "delay" && nowUs < hold.untilUs;
}

/** Tasks of this very version failed here as often as the policy allows: the old task is left where it is. */
function gaveUp({ service }: Situation, tasks: readonly TaskFacts[]): boolean {
  const last = tasks.find((task) => task.specVersion === service.specVersion && !isAlive(task));
  return last !== undefined && !mayRestart(tasks, last, service.restart, service.mode.kind);
}

function dirty(situation: Situation, task: TaskFacts, node: NodeFacts | undefined): boolean {
  if (isJob(situation) || task.specVersion === situation.service.specVersion) return false;
  return isDirty(task, situation.differenceFrom(task.specVersion), node, situation.service.constraints);
}

function mayStay(situation: Situation, node: NodeFacts | undefined): boolean {
  return keepsTasks(node) && (!isGlobal(situation) || (node !== undefined && isEligible(situation, node)));
}

/** A global service belongs on it, as far as the node itself is concerned. */
export function isEligible({ service }: Situation, node: NodeFacts): boolean {
  return service.constraints.every((constraint) => satisfies(node.traits, constraint));
}

/** Whether a new task could be given to the slot now. A numbered slot is placed by the scheduler, wherever it can. */
export function canFill(situation: Situation, slot: Slot): boolean {
  if (!isGlobal(situation)) return true;
  const node = situation.nodes.get(slot.nodeId);
  return node !== undefined && takesTasks(node) && isEligible(situation, node);
}

/**
 * Which slots go when there are too many: those whose task has no node yet, then from the nodes with the most copies;
 * among equals those that do not run, then the highest numbers (Swarm's order).
 */
export function surplusSlots(slots: readonly Slot[], count: number): readonly Slot[] {
  if (count <= 0) return [];
  const holder = (slot: Slot): TaskFacts | undefined => slot.clean[0] ?? slot.old[0];
  const runs = (slot: Slot): boolean => [...slot.clean, ...slot.old].some(({ state }) => state === TaskState.RUNNING);
  const ranked = [...slots].sort((a, b) => Number(runs(b)) - Number(runs(a)) || a.number - b.number);
  const copies = new Map<string, number>();
  const nth = new Map<Slot, number>();
  for (const slot of ranked) {
    const nodeId = holder(slot)?.nodeId ?? "";
    const copy = (copies.get(nodeId) ?? 0) + 1;
    copies.set(nodeId, copy);
    nth.set(slot, nodeId === "" ? Infinity : copy);
  }
  // Infinity - Infinity is NaN, which is no order.
  const byCopies = (a: Slot, b: Slot): number => {
    const [left = 0, right = 0] = [nth.get(a), nth.get(b)];
    return left === right ? 0 : left - right;
  };
  return ranked.sort(byCopies).slice(slots.length - count);
}
