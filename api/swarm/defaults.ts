/** What a service's spec means where it says nothing (features.md §1.2), for those who ask with `insertDefaults`. */
import { skep } from "../../proto/index.ts";

const { EndpointMode, FailureAction, RestartCondition, UpdateOrder } = skep.objects;

type ServiceSpec = skep.objects.ServiceSpec.$Properties;

const seconds = (count: number): skep.objects.Duration.$Properties => ({ seconds: count, nanos: 0 });

const updateConfig: skep.objects.UpdateConfig.$Properties = {
  parallelism: 1,
  failureAction: FailureAction.PAUSE_UPDATE,
  monitor: seconds(5),
  order: UpdateOrder.STOP_FIRST,
};

function update(
  config: skep.objects.UpdateConfig.$Properties | null | undefined,
): skep.objects.UpdateConfig.$Properties {
  if (config == null) return updateConfig;
  return { ...config, parallelism: config.parallelism ?? 1, monitor: config.monitor ?? seconds(5) };
}

export function withDefaults(spec: ServiceSpec): ServiceSpec {
  const task = spec.taskTemplate ?? {};
  const job = spec.mode?.replicatedJob != null || spec.mode?.globalJob != null;
  return {
    ...spec,
    taskTemplate: {
      ...task,
      containerSpec: {
        ...task.containerSpec,
        stopGracePeriod: task.containerSpec?.stopGracePeriod ?? seconds(10),
        dnsConfig: task.containerSpec?.dnsConfig ?? {},
      },
      resources: {
        ...task.resources,
        limits: task.resources?.limits ?? {},
        reservations: task.resources?.reservations ?? {},
      },
      restartPolicy: {
        condition: job ? RestartCondition.RESTART_ON_FAILURE : RestartCondition.RESTART_ANY,
        ...task.restartPolicy,
        delay: task.restartPolicy?.delay ?? seconds(5),
        maxAttempts: task.restartPolicy?.maxAttempts ?? 0,
      },
      placement: task.placement ?? {},
    },
    ...(job ? {} : { updateConfig: update(spec.updateConfig), rollbackConfig: update(spec.rollbackConfig) }),
    endpointSpec: spec.endpointSpec ?? { mode: EndpointMode.VIP },
  };
}
