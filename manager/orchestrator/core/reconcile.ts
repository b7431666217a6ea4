/**
 * What a service's tasks need next. One function for every mode and for restarts, evictions, updates, rollbacks and
 * history, since all of them are asked of the same slots and must not be decided against one another. It looks at what
 * is, never at what happened, so it may be asked at any time, twice, or by another leader.
 */
import type { skep } from "../../../proto/index.ts";
import {
  isAlive,
  isLost,
  keepsTasks,
  oldTaskWaitUs,
  TaskState,
  UpdateOrder,
  type Hold,
  type TaskFacts,
} from "./facts.ts";
import { expired } from "./history.ts";
import { attemptsUsed, endedByItself } from "./restart.ts";
import type { Situation } from "./situation.ts";
import { canFill, emptySlot, groupBySlot, isEligible, isGlobal, isJob, surplusSlots, type Slot } from "./slots.ts";
import type { Decision, Move, Step } from "./step.ts";
import { policyOf, progress } from "./update.ts";

export type { Situation } from "./situation.ts";

export function reconcile(situation: Situation): Decision {
  if (situation.service.pendingDelete) return dismantle(situation, true);
  const round = new Round(situation);
  const slots = groupBySlot(situation);
  const { keep, fill, drop } = chooseSlots(situation, slots);
  const update = progress(situation, keep);
  if (update.steps.length > 0) round.move("update", update.steps);
  if (update.rollsBack) return round.decision();
  round.wake(update.wakeAtUs);
  for (const slot of drop) round.drop(slot);
  for (const slot of keep)
    round.tend(slot, { fill: fill.has(slot), update: update.start.has(slot), retired: update.retired });
  for (const slot of fill)
    if (slot.tasks.length === 0) round.tend(slot, { fill: true, update: false, retired: update.retired });
  return round.decision();
}

/** The service is being removed, or is gone: its tasks are, too, and then what is left of it. */
export function dismantle(situation: Situation, exists: boolean): Decision {
  const round = new Round(situation);
  for (const slot of groupBySlot(situation).values()) round.drop(slot);
  if (exists && situation.tasks.length === 0) round.move("service removed", [{ kind: "removeService" }]);
  return round.decision();
}

interface Choice {
  readonly keep: readonly Slot[];
  /** Slots that have nothing alive in them and should; those without any tasks are not in `keep`. */
  readonly fill: ReadonlySet<Slot>;
  readonly drop: readonly Slot[];
}

function chooseSlots(situation: Situation, slots: ReadonlyMap<string | number, Slot>): Choice {
  const { service, nodes } = situation;
  const { mode } = service;
  const all = [...slots.values()];
  switch (mode.kind) {
    case "replicated": {
      const used = all.filter(isUsed);
      const surplus = new Set(surplusSlots(used, Math.max(0, used.length - mode.replicas)));
      const keep = used.filter((slot) => !surplus.has(slot));
      const fill = new Set(keep.filter(isVacant));
      const taken = new Set(keep.map(({ number }) => number));
      for (let number = 1, missing = mode.replicas - keep.length; missing > 0; number++) {
        if (taken.has(number)) continue;
        missing--;
        fill.add(slots.get(number) ?? emptySlot(number));
      }
      // A slot that was given up earlier and is used again keeps its history.
      const reused = [...fill].filter((slot) => slot.tasks.length > 0 && !taken.has(slot.number));
      const again = new Set(reused);
      return {
        keep: [...keep, ...reused],
        fill,
        drop: all.filter((slot) => !again.has(slot) && (surplus.has(slot) || !isUsed(slot))),
      };
    }
    case "global":
    case "globalJob": {
      const fill = new Set<Slot>();
      const gone: Slot[] = [];
      const keep: Slot[] = [];
      for (const slot of all) (nodes.has(slot.nodeId) ? keep : gone).push(slot);
      for (const node of nodes.values()) {
        if (!isEligible(situation, node)) continue;
        const slot = slots.get(node.id) ?? emptySlot(node.id);
        if (canFill(situation, slot) && (slot.tasks.length === 0 || isVacant(slot))) fill.add(slot);
      }
      return { keep, fill, drop: gone };
    }
    case "replicatedJob": {
      const wanted = all.filter(({ number }) => number < mode.completions);
      let room = mode.concurrent - wanted.filter(({ clean, resting }) => clean.length + resting.length > 0).length;
      const fill = new Set<Slot>();
      for (let number = 0; number < mode.completions && room > 0; number++) {
        const slot = slots.get(number) ?? emptySlot(number);
        if (slot.tasks.length > 0 && !isVacant(slot)) continue;
        fill.add(slot);
        room--;
      }
      return { keep: wanted, fill, drop: all.filter(({ number }) => number >= mode.completions) };
    }
  }
}

/** Something is or was meant to be in it. A slot whose tasks are all to be removed is free. */
const isUsed = (slot: Slot): boolean => slot.tasks.some(({ desired }) => desired !== TaskState.REMOVE);
const isVacant = (slot: Slot): boolean =>
  slot.clean.length + slot.old.length + slot.resting.length === 0 && !slot.done && !slot.spent;

interface Wish {
  readonly fill: boolean;
  readonly update: boolean;
  readonly retired: ReadonlySet<string>;
}

/** Gathers what ought to happen, slot by slot. */
class Round {
  readonly #situation: Situation;
  readonly #goal: skep.objects.TaskState;
  readonly #moves: Move[] = [];
  #wakeAtUs = Infinity;

  constructor(situation: Situation) {
    this.#situation = situation;
    this.#goal = isJob(situation) ? TaskState.COMPLETE : TaskState.RUNNING;
  }

  decision(): Decision {
    return { moves: this.#moves, wakeAtUs: this.#wakeAtUs === Infinity ? undefined : this.#wakeAtUs };
  }

  move(cause: string, steps: readonly Step[]): void {
    if (steps.length > 0) this.#moves.push({ cause, steps });
  }

  wake(atUs: number | undefined): void {
    if (atUs !== undefined) this.#wakeAtUs = Math.min(this.#wakeAtUs, atUs);
  }

  /** Not wanted any more, with its history. */
  drop(slot: Slot): void {
    const steps: Step[] = [];
    const going = expired(this.#situation, slot.tasks);
    for (const task of slot.tasks)
      if (task.desired !== TaskState.REMOVE && !going.includes(task))
        steps.push({ kind: "desire", taskId: task.id, state: TaskState.REMOVE });
    for (const { id } of going) steps.push({ kind: "remove", taskId: id });
    this.move("slot removed", steps);
  }

  tend(slot: Slot, wish: Wish): void {
    const steps: Step[] = [];
    const stop = (tasks: readonly TaskFacts[]): void => {
      for (const { id } of tasks)
        if (!wish.retired.has(id)) steps.push({ kind: "desire", taskId: id, state: TaskState.SHUTDOWN });
    };
    const [keeper, ...copies] = slot.clean;
    stop(slot.dead);
    stop(slot.evicted);
    stop(copies);
    const spare = spareOf(slot.old);
    stop(spare);
    if (keeper !== undefined) stop(slot.resting);
    else for (const { hold } of slot.resting) this.wake(hold?.untilUs);
    let cause = slot.dead.length > 0 ? "task ended" : slot.evicted.length > 0 ? "node lost or drained" : "slots";
    if (wish.update) {
      cause = "update";
      this.#replace(slot, steps, stop, spare[0]);
    } else if (wish.fill) steps.push(this.#create(this.#holdOf(slot), 0, slot));
    else if (keeper === undefined) this.#retry(slot, steps);
    else if (slot.old.length > 0 && keeper.state === TaskState.RUNNING) stop(slot.old);
    else if (keeper.desired < this.#goal) this.#promote(keeper, slot, steps);
    for (const { id } of expired(this.#situation, slot.tasks)) steps.push({ kind: "remove", taskId: id });
    this.move(cause, steps);
  }

  /** The replacement that an update started has died and the old task is still there: by the restart policy, another. */
  #retry(slot: Slot, steps: Step[]): void {
    const { service } = this.#situation;
    const last = slot.tasks.find((task) => task.specVersion === service.specVersion && !isAlive(task));
    if (slot.old.length === 0 || slot.resting.length > 0 || last === undefined || !slot.dirty) return;
    const delay = this.#delayOf(slot, last);
    steps.push(this.#create(delay === undefined || this.#isOver(delay) ? this.#waitForOld(slot) : delay, 0, slot));
  }

  #replace(slot: Slot, steps: Step[], stop: (tasks: readonly TaskFacts[]) => void, spare: TaskFacts | undefined): void {
    const { service } = this.#situation;
    const updateId = service.specVersion;
    const leaving = slot.leaving[0] ?? spare;
    if (slot.old.length === 0) steps.push(this.#create(this.#holdOf(slot), updateId, slot));
    else if (policyOf(this.#situation).order === UpdateOrder.START_FIRST)
      steps.push(this.#create(leaving && this.#waitFor(leaving), updateId, slot));
    else if (slot.old.every(({ state }) => state < TaskState.STARTING)) {
      // Nothing is lost with a task that has not started.
      stop(slot.old);
      const blocker = leaving ?? slot.old.find(({ state }) => state >= TaskState.ASSIGNED);
      steps.push(this.#create(blocker && this.#waitFor(blocker), updateId, slot));
    } else steps.push(this.#create(this.#waitForOld(slot), updateId, slot));
  }

  /** Asks a task that was held to run, as soon as nothing stands against it. */
  #promote(keeper: TaskFacts, slot: Slot, steps: Step[]): void {
    const { hold } = keeper;
    if (hold?.kind === "delay" && this.#nowUs < hold.untilUs) return this.wake(hold.untilUs);
    if (slot.old.length > 0 && policyOf(this.#situation).order === UpdateOrder.STOP_FIRST) {
      // The old task runs until the new one has its place, its image and all it needs: only then is its end no loss.
      if (keeper.state < TaskState.READY) return;
      for (const { id } of slot.old) steps.push({ kind: "desire", taskId: id, state: TaskState.SHUTDOWN });
      steps.push(this.#keepHeld(keeper, slot.old[0]));
      return;
    }
    const blocker = this.#leaver(slot);
    if (blocker === undefined) steps.push({ kind: "desire", taskId: keeper.id, state: this.#goal, ...held(hold) });
    else if (hold?.kind !== "oldTask" || hold.untilUs === 0) steps.push(this.#keepHeld(keeper, blocker));
    else if (this.#nowUs >= hold.untilUs)
      steps.push({ kind: "desire", taskId: keeper.id, state: this.#goal, ...held(hold) });
    else this.wake(hold.untilUs);
  }

  #keepHeld(keeper: TaskFacts, waitsFor: TaskFacts | undefined): Step {
    const attempt = keeper.hold?.attempt ?? 0;
    const hold: Hold = {
      kind: "oldTask",
      untilUs: this.#nowUs + oldTaskWaitUs,
      taskId: waitsFor?.id ?? "",
      attempt,
    };
    return { kind: "desire", taskId: keeper.id, state: TaskState.READY, hold };
  }

  get #nowUs(): number {
    return this.#situation.nowUs;
  }

  #create(hold: Hold | undefined, updateId: number, slot: Slot): Step {
    const desired = hold === undefined || this.#isOver(hold) ? this.#goal : TaskState.READY;
    const nodeId = isGlobal(this.#situation) ? slot.nodeId : "";
    return { kind: "create", task: { slot: slot.number, nodeId, desired, updateId, hold } };
  }

  /** What a successor in an empty slot waits for: its restart delay, or what has not left yet. */
  #holdOf(slot: Slot): Hold | undefined {
    const [last] = slot.tasks;
    if (last === undefined) return undefined;
    const delay = this.#delayOf(slot, last);
    if (delay !== undefined && !this.#isOver(delay)) return delay;
    const leaves = this.#leaver(slot);
    // A delay that is over already holds nothing; it goes with the task for its attempt number.
    return leaves === undefined ? delay : this.#waitFor(leaves);
  }

  #isOver({ kind, untilUs }: Hold): boolean {
    return kind === "delay" && untilUs <= this.#nowUs;
  }

  /** A task that still may run and is asked to stop: before, or in this round, since its node is drained. */
  #leaver(slot: Slot): TaskFacts | undefined {
    const { nodes } = this.#situation;
    return (
      slot.leaving[0] ??
      slot.evicted.find(({ state, nodeId }) => state >= TaskState.ASSIGNED && !isLost(nodes.get(nodeId)))
    );
  }

  /** It was asked to stop: a successor waits for that, but not for ever. */
  #waitFor({ id }: TaskFacts): Hold {
    return { kind: "oldTask", untilUs: this.#nowUs + oldTaskWaitUs, taskId: id, attempt: 0 };
  }

  /** It has not been asked to stop yet, and is not before its successor is ready. */
  #waitForOld(slot: Slot): Hold {
    return { kind: "oldTask", untilUs: 0, taskId: slot.old[0]?.id ?? "", attempt: 0 };
  }

  /** Drained and lost nodes cost no delay: the task is not to blame. */
  #delayOf(slot: Slot, last: TaskFacts): Hold | undefined {
    const { service, nodes } = this.#situation;
    if (!endedByItself(last) || !keepsTasks(nodes.get(last.nodeId))) return undefined;
    if (last.iteration !== service.iteration) return undefined;
    const attempt = streakAfter(last, service.restart.delayUs) + 1;
    const heldUntilUs = last.hold?.kind === "delay" ? last.hold.untilUs : 0;
    const endUs = Math.min(Math.max(last.stateSinceUs, heldUntilUs), this.#nowUs);
    const untilUs = endUs + backOffUs(service.restart.delayUs, attempt);
    const used = attemptsUsed(slot.tasks, last, service.restart);
    return { kind: "delay", untilUs, taskId: "", attempt: Math.max(attempt, used) };
  }
}

const held = (hold: Hold | undefined): { hold?: Hold } => (hold === undefined ? {} : { hold });

/** One old task is enough to go on with until its replacement is there: the newest that runs, or the newest. */
function spareOf(old: readonly TaskFacts[]): readonly TaskFacts[] {
  const kept = old.find(({ state }) => state === TaskState.RUNNING) ?? old[0];
  return old.filter((task) => task !== kept);
}

/** Restarts at the user's pace, as Swarm's users know it; after that a task that keeps failing is tried less and less. */
const restartsAtPace = 5;
const backOffMaxUs = 300_000_000;

export function backOffUs(delayUs: number, attempt: number): number {
  if (attempt <= restartsAtPace) return delayUs;
  const grown = Math.max(delayUs, 100_000) * 2 ** Math.min(attempt - restartsAtPace, 20);
  return Math.max(delayUs, Math.min(grown, backOffMaxUs));
}

/** Quick failures in a row before this end; a task that ran ten times its delay, and ten seconds, begins anew. */
function streakAfter(last: TaskFacts, delayUs: number): number {
  const ranUs = last.runningSinceUs === undefined ? 0 : last.stateSinceUs - last.runningSinceUs;
  return ranUs >= Math.max(10 * delayUs, 10_000_000) ? 0 : (last.hold?.attempt ?? 0);
}
