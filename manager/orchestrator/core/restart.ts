/**
 * Restart policy, judged from the tasks of one slot alone, so that a new leader judges alike. Attempts are counted for
 * each slot and spec version; the slot of a global service is its node (Swarm looked its history up without the node,
 * so that max-attempts had no effect there).
 */
import { RestartCondition, TaskState, type Mode, type RestartPolicy, type TaskFacts } from "./facts.ts";

/** Ended without being asked to. Evictions and updates are no failures and use up no attempts. */
export function endedByItself(task: TaskFacts): boolean {
  return task.state === TaskState.COMPLETE || task.state === TaskState.FAILED || task.state === TaskState.REJECTED;
}

/** Tasks of the slot and of the last one's spec version that ended by themselves within the window before it. */
export function attemptsUsed(slot: readonly TaskFacts[], last: TaskFacts, policy: RestartPolicy): number {
  const from = policy.windowUs > 0 ? last.stateSinceUs - policy.windowUs : -Infinity;
  return slot.filter(
    (task) =>
      task.specVersion === last.specVersion &&
      task.iteration === last.iteration &&
      endedByItself(task) &&
      task.stateSinceUs >= from,
  ).length;
}

/** Whether the last task of a slot gets a successor. */
export function mayRestart(
  slot: readonly TaskFacts[],
  last: TaskFacts,
  policy: RestartPolicy,
  mode: Mode["kind"],
): boolean {
  switch (policy.condition) {
    case RestartCondition.RESTART_NONE:
      return false;
    case RestartCondition.RESTART_ON_FAILURE:
      if (last.state === TaskState.COMPLETE) return false;
      break;
    case RestartCondition.RESTART_ANY:
      // A job that has completed is done, whatever its policy.
      if (last.state === TaskState.COMPLETE && (mode === "replicatedJob" || mode === "globalJob")) return false;
      break;
  }
  return policy.attemptsMax === 0 || attemptsUsed(slot, last, policy) <= policy.attemptsMax;
}
