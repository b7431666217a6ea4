/** A task from a service: a copy of its spec, its names and its ports as they are now. */
import { asksForNothing, skep } from "../../../proto/index.ts";
import type { Hold } from "./facts.ts";
import type { NewTask } from "./step.ts";

type Service = skep.objects.Service.$Properties;

/** @param nowUs  dates the status; the store dates the object */
export function newTask(
  service: Service,
  plan: NewTask,
  by: { readonly id: string; readonly nowUs: number },
): skep.objects.Task.$Properties & { readonly id: string } {
  const { spec } = service;
  const job = spec?.mode?.replicatedJob != null || spec?.mode?.globalJob != null;
  const name = spec?.name ?? "";
  const hold = holdReason(plan.hold, by.nowUs, spec?.taskTemplate?.restartPolicy?.maxAttempts ?? 0);
  const held = plan.desired === skep.objects.TaskState.READY;
  // The allocator would do no more than say so, in one more change of each task.
  const free = asksForNothing({ spec: spec?.taskTemplate ?? null }, service);
  return {
    id: by.id,
    name: `${name}.${plan.nodeId === "" ? plan.slot : plan.nodeId}.${by.id}`,
    spec: spec?.taskTemplate ?? {},
    serviceId: service.id ?? "",
    slot: plan.slot,
    nodeId: plan.nodeId,
    status: {
      state: free ? skep.objects.TaskState.PENDING : skep.objects.TaskState.NEW,
      timestampUs: by.nowUs,
      message: free ? "pending task scheduling" : "created",
      reason: held ? hold : null,
    },
    desiredState: plan.desired,
    specVersion: service.specVersion ?? 0,
    serviceAnnotations: { name, labels: spec?.labels ?? {} },
    endpoint: { spec: spec?.endpointSpec ?? null },
    updateId: plan.updateId,
    hold,
    ...(job ? { jobIteration: service.jobStatus?.jobIteration ?? 0 } : {}),
  };
}

export function holdReason(
  hold: Hold | undefined,
  sinceUs: number,
  attemptsMax: number,
): skep.objects.Reason.$Properties | null {
  if (hold === undefined) return null;
  const { untilUs, taskId, attempt } = hold;
  return hold.kind === "delay"
    ? { sinceUs, restartDelay: { untilUs, attempt, attemptsMax } }
    : { sinceUs, waitingForOldTask: { taskId, untilUs } };
}
