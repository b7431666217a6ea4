/** Whether a task is what its service asks for now, by the orchestrator's own judgement, for those who only look. */
import type { ListFacts } from "./control/index.ts";
import { differenceOf, isDirty, nodeFacts, serviceFacts, taskFacts } from "./orchestrator/core/index.ts";

export const isUpToDate: ListFacts["isUpToDate"] = (task, service, node) => {
  if (task.specVersion === service.specVersion) return true;
  const difference = differenceOf(
    { spec: task.spec, endpoint: task.endpoint?.spec },
    { spec: service.spec?.taskTemplate, endpoint: service.spec?.endpointSpec },
  );
  const seen = { stateSinceUs: 0, runningSinceUs: undefined };
  const { constraints } = serviceFacts(service);
  return !isDirty(taskFacts(task, seen), difference, node === undefined ? undefined : nodeFacts(node), constraints);
};
