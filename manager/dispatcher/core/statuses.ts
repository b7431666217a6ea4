/** What a node may say of a task, and what becomes of the task then. A state only grows, so it orders what is said. */
import { skep } from "../../../proto/index.ts";

const { TaskState } = skep.objects;
type Task = Readonly<skep.objects.Task>;
type Status = skep.objects.TaskStatus.$Properties;

/** The states of the agent (features: task states); the others belong to managers. */
const agentStates: ReadonlySet<number> = new Set([
  TaskState.ACCEPTED,
  TaskState.PREPARING,
  TaskState.READY,
  TaskState.STARTING,
  TaskState.RUNNING,
  TaskState.COMPLETE,
  TaskState.SHUTDOWN,
  TaskState.FAILED,
  TaskState.REJECTED,
]);

/** A task goes on after this update; longer texts are cut. */
const textMax = 4096;

export function isAgentState(state: number): boolean {
  return agentStates.has(state);
}

/**
 * @param task    as the store has it; undefined: it is gone
 * @param nodeId  of the certificate
 * @returns       the status to write, or undefined when nothing is to be written: it is another node's task, or older
 *                than what is known
 */
export function accepted(task: Task | undefined, nodeId: string, status: Status): Status | undefined {
  if (task === undefined || task.nodeId !== nodeId) return undefined;
  const state = status.state ?? TaskState.NEW;
  const known = task.status?.state ?? TaskState.NEW;
  if (!isAgentState(state) || state < known || known < TaskState.ASSIGNED) return undefined;
  // The end of a task is said once: a second word for it would only change the log.
  if (state === known && known > TaskState.RUNNING) return undefined;
  return {
    timestampUs: status.timestampUs ?? 0,
    state,
    message: cut(status.message),
    err: cut(status.err),
    containerStatus: status.containerStatus ?? null,
    portStatus: status.portStatus ?? null,
    reason: status.reason ?? null,
    appliedBy: nodeId,
  };
}

const cut = (text: string | null | undefined): string => (text ?? "").slice(0, textMax);
