/** Whether a task is what its service asks for now, by the orchestrator's own judgement, for those who only look. */
import type { skep } from "../proto/index.ts";
import type { ListFacts } from "./control/index.ts";
import { differenceOf, isDirty, nodeFacts, serviceFacts, taskFacts } from "./orchestrator/core/index.ts";

type Service = Readonly<skep.objects.Service>;

interface Judgement {
  readonly constraints: Parameters<typeof isDirty>[3];
  /** By the spec version of tasks: those of one version are equal. */
  readonly differences: Map<number, Parameters<typeof isDirty>[1]>;
}

/** Progress displays ask for all tasks of a service several times a second; objects of the store do not change. */
const judgements = new WeakMap<Service, Judgement>();

const neverSeen = { stateSinceUs: 0, runningSinceUs: undefined };

export const isUpToDate: ListFacts["isUpToDate"] = (task, service, node) => {
  if (task.specVersion === service.specVersion) return true;
  const judgement = judgementOf(service);
  let difference = judgement.differences.get(task.specVersion);
  if (difference === undefined) {
    difference = differenceOf(
      { spec: task.spec, endpoint: task.endpoint?.spec },
      { spec: service.spec?.taskTemplate, endpoint: service.spec?.endpointSpec },
    );
    judgement.differences.set(task.specVersion, difference);
  }
  const facts = node === undefined ? undefined : nodeFacts(node);
  return !isDirty(taskFacts(task, neverSeen), difference, facts, judgement.constraints);
};

function judgementOf(service: Service): Judgement {
  let judgement = judgements.get(service);
  if (judgement === undefined) {
    judgement = { constraints: serviceFacts(service).constraints, differences: new Map() };
    judgements.set(service, judgement);
  }
  return judgement;
}
