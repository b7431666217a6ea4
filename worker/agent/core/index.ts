/** The agent's core: what a manager told, what to do next with a task, whom to ask. */
export { AssignmentSet, type RecordNews, type Told } from "./assignment-set.ts";
export { ManagerChoice, SessionBackoff } from "./manager-choice.ts";
export type { DataPlane, NetworkRecords, RecordChange } from "../../../lib/pure/network-records.ts";
export { changeOf, recordsOf } from "./records.ts";
export {
  desiredOf,
  failedState,
  isAwaited,
  messageOf,
  moved,
  nextAct,
  reached,
  takenUp,
  TaskState,
  type Act,
  type Position,
} from "./task-machine.ts";
