/** The orchestrator's decisions, for its shell and its tests. Pure: the same situation gives the same moves. */
export { differenceOf, isDirty, noDifference, type SpecPair } from "./difference.ts";
export {
  historyDefault,
  isLost,
  keepsTasks,
  nodeFacts,
  serviceFacts,
  takesTasks,
  taskFacts,
  TaskState,
  UpdateState,
  type Difference,
  type Hold,
  type NodeFacts,
  type ServiceFacts,
  type TaskFacts,
} from "./facts.ts";
export { dismantle, reconcile, type Situation } from "./reconcile.ts";
export type { Decision, Move, NewTask, Step, UpdateChange } from "./step.ts";
export { holdReason, newTask } from "./new-task.ts";
