/**
 * What the agent does next with a task, and what it says of it. A state only grows; whatever was begun before a crash may
 * be begun again, since the acts of an executor find what they did.
 */
import { skep } from "../../../proto/index.ts";

export const { TaskState } = skep.objects;
export type TaskState = skep.objects.TaskState;

export interface Position {
  readonly observed: TaskState;
  /** What the task is to be, as far as is known. */
  readonly desired: TaskState;
  /** The node does not have this task any more. */
  readonly dropped: boolean;
  /** A manager has told what the task needs, in this life of the agent: secrets are never on disk. */
  readonly informed: boolean;
  /** The data plane of this node was told who is in the task's networks. */
  readonly routed: boolean;
}

export type Act =
  | { readonly kind: "move"; readonly state: TaskState; readonly message: string }
  | { readonly kind: "prepare" | "start" | "wait" }
  /** Nothing, until something is said. */
  | { readonly kind: "hold" }
  | { readonly kind: "stop" }
  | { readonly kind: "remove" };

export function nextAct({ observed, desired, dropped, informed, routed }: Position): Act {
  if (observed > TaskState.RUNNING) return dropped ? { kind: "remove" } : { kind: "hold" };
  if (dropped || desired >= TaskState.SHUTDOWN)
    return observed < TaskState.PREPARING ? moved(TaskState.SHUTDOWN) : { kind: "stop" };
  if (observed < TaskState.ACCEPTED) return moved(TaskState.ACCEPTED);
  if (observed < TaskState.PREPARING) return moved(TaskState.PREPARING);
  if (observed < TaskState.READY) return informed && routed ? { kind: "prepare" } : { kind: "hold" };
  if (observed < TaskState.STARTING)
    return informed && desired >= TaskState.RUNNING ? moved(TaskState.STARTING) : { kind: "hold" };
  return { kind: observed < TaskState.RUNNING ? "start" : "wait" };
}

/** Whether somebody waits to hear of it: of a task that runs or has ended, and of one that is prepared and held there. */
export function isAwaited(state: TaskState, desired: TaskState): boolean {
  return state >= TaskState.RUNNING || (state === TaskState.READY && desired < TaskState.RUNNING);
}

/** Where a task stands after an act that did what it should. */
export function reached(act: "prepare" | "start" | "stop"): TaskState {
  switch (act) {
    case "prepare":
      return TaskState.READY;
    case "start":
      return TaskState.RUNNING;
    case "stop":
      return TaskState.SHUTDOWN;
  }
}

/** Where it stands after one that failed for good. */
export function failedState(observed: TaskState): TaskState {
  return observed < TaskState.STARTING ? TaskState.REJECTED : TaskState.FAILED;
}

export function moved(state: TaskState): Extract<Act, { kind: "move" }> {
  return { kind: "move", state, message: messageOf(state) };
}

/** Swarm's words for each state. */
export function messageOf(state: TaskState): string {
  switch (state) {
    case TaskState.ACCEPTED:
      return "accepted";
    case TaskState.PREPARING:
      return "preparing";
    case TaskState.READY:
      return "prepared";
    case TaskState.STARTING:
      return "starting";
    case TaskState.RUNNING:
      return "started";
    case TaskState.COMPLETE:
      return "finished";
    case TaskState.SHUTDOWN:
      return "shutdown";
    default:
      return "";
  }
}

/**
 * What a task is to be, as its assignment says. One that a manager has ended (evicted, orphaned) is to be stopped, even
 * if its desired state does not say so.
 */
export function desiredOf(task: Readonly<skep.objects.Task>): TaskState {
  const state = task.status?.state ?? TaskState.NEW;
  return state > TaskState.RUNNING && task.desiredState < TaskState.SHUTDOWN ? TaskState.SHUTDOWN : task.desiredState;
}

/**
 * Where a task stands when the agent takes it up.
 * @param told  the state in the assignment
 * @param known what this node remembers of it; undefined: nothing
 * @param held  something of it is here
 * @returns     the state to go on from, or "lost": it had started, and nothing is left of it
 */
export function takenUp(told: TaskState, known: TaskState | undefined, held: boolean): TaskState | "lost" {
  const begun = told < TaskState.STARTING || (told > TaskState.RUNNING && !held) ? told : TaskState.STARTING;
  const state = known ?? begun;
  // Something of it is here, so it is not enough to say that it ended: perhaps it runs.
  if (held && state < TaskState.PREPARING) return TaskState.PREPARING;
  if (state > TaskState.RUNNING || held || state < TaskState.STARTING) return state;
  return "lost";
}
