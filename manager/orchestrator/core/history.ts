/**
 * Which tasks of a slot the store may forget. Jobs have a limit like services: finished tasks of earlier iterations
 * share the slots of the later ones (Swarm kept them for ever).
 */
import { isAlive, isWanted, TaskState, type TaskFacts } from "./facts.ts";
import type { Situation } from "./situation.ts";

/** @param tasks  of one slot, newest first */
export function expired(situation: Situation, tasks: readonly TaskFacts[]): readonly TaskFacts[] {
  const { service, nodes, historyMax } = situation;
  const gone = (task: TaskFacts): boolean =>
    !isAlive(task) || task.state < TaskState.ASSIGNED || !nodes.has(task.nodeId);
  const going = tasks.filter(
    (task) =>
      gone(task) &&
      (task.desired === TaskState.REMOVE ||
        // Never had a node, so nothing is to be told of it.
        (task.desired === TaskState.SHUTDOWN && task.state < TaskState.ASSIGNED)),
  );
  if (historyMax < 0) return going;
  // The restart policy counts what is kept.
  const { attemptsMax } = service.restart;
  const max = attemptsMax > 0 ? Math.max(historyMax, attemptsMax + 1) : historyMax;
  const left = tasks.filter((task) => !going.includes(task));
  for (const task of left.toReversed()) {
    if (tasks.length - going.length <= max) break;
    if (!isWanted(task) && gone(task)) going.push(task);
  }
  return going;
}
