/**
 * Rolling update and rollback: how far it is, what it may do next. Nothing is remembered between two looks but what the
 * store has: the tasks say which update made them, the service's status counts slots and failures. So a new leader goes
 * on where the old one was.
 */
import type { skep } from "../../../proto/index.ts";
import {
  FailureAction,
  isAlive,
  isWanted,
  placementWaitUs,
  TaskState,
  UpdateState,
  type TaskFacts,
  type UpdatePolicy,
} from "./facts.ts";
import type { Situation } from "./situation.ts";
import { canFill, isJob, type Slot } from "./slots.ts";
import type { Step, UpdateChange } from "./step.ts";

export interface Progress {
  /** Status, failures counted, roll back. */
  readonly steps: readonly Step[];
  /** The spec is about to change: nothing else must be decided by the present one. */
  readonly rollsBack: boolean;
  /** Slots to change now. */
  readonly start: ReadonlySet<Slot>;
  /** Tasks that the steps have retired already. */
  readonly retired: ReadonlySet<string>;
  readonly wakeAtUs: number | undefined;
}

/** The policy in force: an update's, or the rollback's while one is under way. */
export function policyOf({ service }: Situation): UpdatePolicy {
  const state = service.status?.state;
  const back =
    state === UpdateState.ROLLBACK_STARTED ||
    state === UpdateState.ROLLBACK_PAUSED ||
    state === UpdateState.ROLLBACK_COMPLETED;
  return back && isOfThisVersion(service.status, service.specVersion) ? service.rollback : service.update;
}

type Status = Situation["service"]["status"];

/** A rollback asked for by hand has no version yet: whoever asked for it left the rest to the update. */
function isOfThisVersion(status: Status, specVersion: number): boolean {
  if (status === undefined) return false;
  return status.updateId === specVersion || (status.updateId === 0 && status.state === UpdateState.ROLLBACK_STARTED);
}

export function progress(situation: Situation, slots: readonly Slot[]): Progress {
  const { service } = situation;
  const none: Progress = { steps: [], rollsBack: false, start: new Set(), retired: new Set(), wakeAtUs: undefined };
  if (isJob(situation)) return none;
  const dirty = slots.filter((slot) => slot.dirty && canFill(situation, slot) && !isTried(situation, slot));
  const { status } = service;
  const mine = isOfThisVersion(status, service.specVersion);
  switch (mine ? status?.state : undefined) {
    case UpdateState.UPDATE_PAUSED:
    case UpdateState.ROLLBACK_PAUSED:
      return none;
    case UpdateState.UPDATING:
    case UpdateState.ROLLBACK_STARTED:
      if (status?.updateId === service.specVersion) return advance(situation, slots, dirty);
      break;
    case UpdateState.UPDATE_NONE:
    case UpdateState.UPDATE_COMPLETED:
    case UpdateState.ROLLBACK_COMPLETED:
    case undefined:
      break;
  }
  if (dirty.length > 0) {
    const back = mine && status?.state === UpdateState.ROLLBACK_STARTED;
    const begun: UpdateChange = {
      state: back ? UpdateState.ROLLBACK_STARTED : UpdateState.UPDATING,
      failed: 0,
      total: dirty.length,
      message: back ? "rollback in progress" : "update in progress",
    };
    return { ...none, steps: [{ kind: "updateStatus", status: begun }] };
  }
  // An older update was under way, and what was asked for since has left it nothing to do.
  const unfinished = status?.state === UpdateState.UPDATING || status?.state === UpdateState.ROLLBACK_STARTED;
  if (unfinished && !slots.some(isChanging)) {
    return { ...none, steps: [completed(status.state, status.failed, status.total)] };
  }
  return none;
}

function advance(situation: Situation, slots: readonly Slot[], dirty: readonly Slot[]): Progress {
  const { service, nowUs } = situation;
  const status = service.status as NonNullable<typeof service.status>;
  const back = status.state === UpdateState.ROLLBACK_STARTED;
  const policy = back ? service.rollback : service.update;
  const made = situation.tasks.filter((task) => task.updateId === service.specVersion);
  const failures = made.filter((task) => hasFailed(task, policy, nowUs));
  const steps: Step[] = failures.map((task) =>
    isAlive(task)
      ? { kind: "counted", taskId: task.id }
      : { kind: "desire", taskId: task.id, state: TaskState.SHUTDOWN },
  );
  const retired = new Set(failures.map(({ id }) => id));
  const failed = status.failed + failures.length;
  const total = Math.max(1, status.total);
  const [first] = failures;
  if (first !== undefined) {
    const tooMany = failed / total > policy.failureRatioMax;
    const because = `due to failure or early termination of task ${first.id}`;
    if (!tooMany || policy.failureAction === FailureAction.CONTINUE) {
      const message = back ? "rollback in progress" : "update in progress";
      steps.push({ kind: "updateStatus", status: { state: status.state, failed, total, message } });
    } else if (policy.failureAction === FailureAction.ROLLBACK && !back && service.previousSpecs > 0) {
      steps.push({ kind: "rollBack", message: `update rolled back ${because}` });
      return { steps, rollsBack: true, start: new Set(), retired, wakeAtUs: undefined };
    } else {
      const state = back ? UpdateState.ROLLBACK_PAUSED : UpdateState.UPDATE_PAUSED;
      const message = `${back ? "rollback" : "update"} paused ${because}`;
      steps.push({ kind: "updateStatus", status: { state, failed, total, message } });
      return { steps, rollsBack: false, start: new Set(), retired, wakeAtUs: undefined };
    }
  }

  let wakeAtUs = Infinity;
  const busyUntil = (task: TaskFacts): number => {
    if (isAlive(task) && isWanted(task) && task.state < TaskState.RUNNING) return Infinity;
    if (task.state === TaskState.RUNNING) return (task.runningSinceUs ?? nowUs) + policy.delayUs;
    return endOf(task) + policy.delayUs;
  };
  let busy = 0;
  const newest = new Map<string | number, TaskFacts>();
  for (const slot of slots) {
    const task = slot.tasks.find(({ updateId }) => updateId === service.specVersion);
    if (task !== undefined) newest.set(slot.nodeId || slot.number, task);
  }
  for (const task of newest.values()) {
    const until = busyUntil(task);
    if (until <= nowUs) continue;
    busy++;
    wakeAtUs = Math.min(wakeAtUs, until);
    if (until === Infinity && task.state < TaskState.ASSIGNED)
      wakeAtUs = Math.min(wakeAtUs, task.createdAtUs + placementWaitUs);
  }
  const room = policy.parallelism === 0 ? Infinity : policy.parallelism - busy;
  const start = new Set([...dirty].sort(leastHarmFirst).slice(0, Math.max(0, room)));

  if (dirty.length === 0 && first === undefined) {
    const watchedUntil = made.reduce((until, task) => {
      if (!isWanted(task) || !isAlive(task)) return until;
      // One that is not running yet keeps the update open; so does one in its first moments.
      const mine = task.runningSinceUs === undefined ? Infinity : task.runningSinceUs + policy.monitorUs;
      return Math.max(until, mine);
    }, 0);
    if (watchedUntil <= nowUs && !slots.some(isChanging)) steps.push(completed(status.state, failed, total));
    else if (watchedUntil > nowUs) wakeAtUs = Math.min(wakeAtUs, watchedUntil);
  }
  return { steps, rollsBack: false, start, retired, wakeAtUs: wakeAtUs === Infinity ? undefined : wakeAtUs };
}

/** It ended before it had run for the time it is watched, or no node was found for it. Losing its node is no failure. */
function hasFailed(task: TaskFacts, policy: UpdatePolicy, nowUs: number): boolean {
  if (!isWanted(task)) return false;
  if (task.state < TaskState.ASSIGNED) return nowUs >= task.createdAtUs + placementWaitUs;
  if (isAlive(task) || task.state === TaskState.ORPHANED || task.state === TaskState.SHUTDOWN) return false;
  return task.runningSinceUs === undefined || task.stateSinceUs < task.runningSinceUs + policy.monitorUs;
}

const endOf = (task: TaskFacts): number => task.stateSinceUs;

/** A replacement of this version has failed there: whether another follows is for the restart policy. */
function isTried({ service }: Situation, { old, tasks }: Slot): boolean {
  return old.length > 0 && tasks.some((task) => task.specVersion === service.specVersion && !isAlive(task));
}

/** The replacement that an update made is there, and what it replaces is as well. */
const isChanging = ({ clean, old }: Slot): boolean => old.length > 0 && clean.some(({ updateId }) => updateId !== 0);

/** What does not run loses nothing by being replaced. */
function leastHarmFirst(a: Slot, b: Slot): number {
  const runs = (slot: Slot): number => Number(slot.old.some(({ state }) => state === TaskState.RUNNING));
  return runs(a) - runs(b) || a.number - b.number || (a.nodeId < b.nodeId ? -1 : 1);
}

function completed(state: skep.objects.UpdateState, failed: number, total: number): Step {
  const back = state === UpdateState.ROLLBACK_STARTED;
  return {
    kind: "updateStatus",
    status: {
      state: back ? UpdateState.ROLLBACK_COMPLETED : UpdateState.UPDATE_COMPLETED,
      failed,
      total,
      message: back ? "rollback completed" : "update completed",
    },
  };
}
