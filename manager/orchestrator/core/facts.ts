/**
 * What the orchestrator knows, taken from services, tasks and nodes once, with every default applied. Times are
 * microseconds of the leader's own time line; durations are microseconds.
 */
import {
  type Constraint,
  type NodeTraits,
  parseConstraint,
  replicasMax,
  skep,
  traitsOf,
} from "../../../proto/index.ts";

const { TaskState, FailureAction, NodeAvailability, NodeState, RestartCondition, UpdateOrder, UpdateState } =
  skep.objects;
export { FailureAction, NodeState, RestartCondition, TaskState, UpdateOrder, UpdateState };

export type Mode =
  | { readonly kind: "replicated"; readonly replicas: number }
  | { readonly kind: "global" }
  | { readonly kind: "replicatedJob"; readonly completions: number; readonly concurrent: number }
  | { readonly kind: "globalJob" };

export interface RestartPolicy {
  readonly condition: skep.objects.RestartCondition;
  readonly delayUs: number;
  /** 0 means no limit. */
  readonly attemptsMax: number;
  /** Failures longer ago than this before the last one are forgotten; 0 means never. */
  readonly windowUs: number;
}

export interface UpdatePolicy {
  /** 0 means all at once. */
  readonly parallelism: number;
  readonly delayUs: number;
  readonly monitorUs: number;
  readonly failureAction: skep.objects.FailureAction;
  readonly failureRatioMax: number;
  readonly order: skep.objects.UpdateOrder;
}

export interface UpdateFacts {
  readonly state: skep.objects.UpdateState;
  readonly updateId: number;
  readonly failed: number;
  readonly total: number;
}

export interface ServiceFacts {
  readonly id: string;
  readonly name: string;
  readonly specVersion: number;
  readonly mode: Mode;
  readonly restart: RestartPolicy;
  readonly update: UpdatePolicy;
  readonly rollback: UpdatePolicy;
  readonly status: UpdateFacts | undefined;
  readonly previousSpecs: number;
  readonly iteration: number;
  readonly constraints: readonly Constraint[];
  readonly pendingDelete: boolean;
}

/** What a task waits for before it is asked to run. */
export interface Hold {
  readonly kind: "delay" | "oldTask";
  /** 0 while the old task has not been asked to stop yet. */
  readonly untilUs: number;
  /** Only of "oldTask". */
  readonly taskId: string;
  readonly attempt: number;
}

export interface TaskFacts {
  readonly id: string;
  readonly slot: number;
  readonly nodeId: string;
  readonly desired: skep.objects.TaskState;
  readonly state: skep.objects.TaskState;
  readonly specVersion: number;
  readonly updateId: number;
  readonly iteration: number;
  readonly createdAtUs: number;
  /** When this member saw `state` first. */
  readonly stateSinceUs: number;
  /** When this member saw the task running first, if it did. */
  readonly runningSinceUs: number | undefined;
  readonly hold: Hold | undefined;
}

export interface NodeFacts {
  readonly id: string;
  readonly traits: NodeTraits;
  readonly state: skep.objects.NodeState;
  readonly availability: skep.objects.NodeAvailability;
}

/** In what a task's spec differs from the service's. */
export interface Difference {
  readonly placement: boolean;
  /** Only how the image is pulled: of no concern to a task that has it. */
  readonly pull: boolean;
  readonly other: boolean;
}

const second = 1_000_000;

/** Swarm's: how long a task waits for its predecessor to stop, and how long an update waits for a place. */
export const oldTaskWaitUs = 60 * second;
export const placementWaitUs = 60 * second;
const restartDelayUs = 5 * second;
const monitorUs = 5 * second;
export const historyDefault = 5;

export function serviceFacts(service: skep.objects.Service.$Properties): ServiceFacts {
  const { spec } = service;
  const restart = spec?.taskTemplate?.restartPolicy;
  const status = service.updateStatus;
  return {
    id: service.id ?? "",
    name: spec?.name ?? "",
    specVersion: service.specVersion ?? 0,
    mode: modeOf(spec?.mode),
    restart: {
      condition: restart?.condition ?? RestartCondition.RESTART_ANY,
      delayUs: micros(restart?.delay) ?? restartDelayUs,
      attemptsMax: restart?.maxAttempts ?? 0,
      windowUs: micros(restart?.window) ?? 0,
    },
    update: updatePolicy(spec?.updateConfig),
    rollback: updatePolicy(spec?.rollbackConfig),
    status:
      status == null
        ? undefined
        : {
            state: status.state ?? UpdateState.UPDATE_NONE,
            updateId: status.updateId ?? 0,
            failed: status.failed ?? 0,
            total: status.total ?? 0,
          },
    previousSpecs: service.previousSpecs?.length ?? 0,
    iteration: service.jobStatus?.jobIteration ?? 0,
    constraints: (spec?.taskTemplate?.placement?.constraints ?? []).map(readConstraint),
    pendingDelete: service.pendingDelete ?? false,
  };
}

function modeOf(mode: skep.objects.ServiceMode.$Properties | null | undefined): Mode {
  if (mode?.global != null) return { kind: "global" };
  if (mode?.globalJob != null) return { kind: "globalJob" };
  if (mode?.replicatedJob != null) {
    const { maxConcurrent, totalCompletions } = mode.replicatedJob;
    const completions = bounded(totalCompletions ?? maxConcurrent ?? 1);
    return { kind: "replicatedJob", completions, concurrent: bounded(maxConcurrent || completions) };
  }
  return { kind: "replicated", replicas: bounded(mode?.replicated?.replicas ?? 1) };
}

/** An earlier release took any number. */
const bounded = (count: number): number => Math.min(count, replicasMax);

function updatePolicy(config: skep.objects.UpdateConfig.$Properties | null | undefined): UpdatePolicy {
  const delayUs = micros(config?.delay) ?? 0;
  const monitor = micros(config?.monitor) ?? monitorUs;
  return {
    parallelism: config?.parallelism ?? 1,
    delayUs,
    // Swarm's rule: a failure must be noticed while the update still waits to go on.
    monitorUs: delayUs >= monitor ? delayUs + second : monitor,
    failureAction: config?.failureAction ?? FailureAction.PAUSE_UPDATE,
    failureRatioMax: config?.maxFailureRatio ?? 0,
    order: config?.order ?? UpdateOrder.STOP_FIRST,
  };
}

/** One that cannot be read matches no node: control refuses it, so only an old or foreign spec has one. */
function readConstraint(text: string): Constraint {
  try {
    return parseConstraint(text);
  } catch {
    return { text, key: "node.id", operator: "in", values: [] };
  }
}

export interface SeenTimes {
  readonly stateSinceUs: number;
  readonly runningSinceUs: number | undefined;
}

/** @param nodeId  the task's, in the text that others have, too: each that is decoded brings one of its own */
export function taskFacts(task: skep.objects.Task.$Properties, seen: SeenTimes, nodeId = task.nodeId ?? ""): TaskFacts {
  return {
    id: task.id ?? "",
    slot: task.slot ?? 0,
    nodeId,
    desired: task.desiredState ?? TaskState.NEW,
    state: task.status?.state ?? TaskState.NEW,
    specVersion: task.specVersion ?? 0,
    updateId: task.updateId ?? 0,
    iteration: task.jobIteration ?? 0,
    createdAtUs: task.meta?.createdAtUs ?? 0,
    stateSinceUs: seen.stateSinceUs,
    runningSinceUs: seen.runningSinceUs,
    hold: holdOf(task.hold),
  };
}

function holdOf(reason: skep.objects.Reason.$Properties | null | undefined): Hold | undefined {
  if (reason?.restartDelay != null) {
    const { untilUs, attempt } = reason.restartDelay;
    return { kind: "delay", untilUs: untilUs ?? 0, taskId: "", attempt: attempt ?? 0 };
  }
  if (reason?.waitingForOldTask != null) {
    const { untilUs, taskId } = reason.waitingForOldTask;
    return { kind: "oldTask", untilUs: untilUs ?? 0, taskId: taskId ?? "", attempt: 0 };
  }
  return undefined;
}

export function nodeFacts(node: skep.objects.Node.$Properties): NodeFacts {
  return {
    id: node.id ?? "",
    traits: traitsOf(node),
    state: node.status?.state ?? NodeState.NODE_UNKNOWN,
    availability: node.spec?.availability ?? NodeAvailability.ACTIVE,
  };
}

/** Asked to live: at least not asked to stop. */
export const isWanted = (task: TaskFacts): boolean => task.desired < TaskState.SHUTDOWN;
/** Has not ended. */
export const isAlive = (task: TaskFacts): boolean => task.state <= TaskState.RUNNING;
/** Its place can be counted on: new tasks may go there. */
export const takesTasks = (node: NodeFacts): boolean =>
  node.state === NodeState.NODE_READY && node.availability === NodeAvailability.ACTIVE;
/** Its tasks stay where they are. Paused, unknown and disconnected nodes keep theirs. */
export const keepsTasks = (node: NodeFacts | undefined): boolean =>
  node !== undefined && node.state !== NodeState.NODE_DOWN && node.availability !== NodeAvailability.DRAIN;
/** Nobody knows what runs there, and nobody can ask it to stop. */
export const isLost = (node: NodeFacts | undefined): boolean =>
  node === undefined || node.state === NodeState.NODE_DOWN;

function micros(duration: skep.objects.Duration.$Properties | null | undefined): number | undefined {
  return duration == null ? undefined : (duration.seconds ?? 0) * second + Math.floor((duration.nanos ?? 0) / 1000);
}
