/** What templates of a service's spec see (features.md §1.2): the managers check them with it, nodes expand them. */
import type { TemplateValue } from "../lib/pure/template.ts";
import type { skep } from "./gen/skep.js";

type Task = skep.objects.Task.$Properties;

/** What templates may name of the node (contract.ts, NodeFacts). */
export interface TemplateNode {
  readonly nodeId: string;
  readonly hostname: string;
  readonly platform: { readonly os: string; readonly architecture: string };
}

/** `service.slot.task`, of global services `service.node.task`. */
export function taskName(task: Task): string {
  if ((task.name ?? "") !== "") return task.name ?? "";
  const where = (task.slot ?? 0) > 0 ? String(task.slot) : (task.nodeId ?? "");
  return `${task.serviceAnnotations?.name ?? ""}.${where}.${task.id ?? ""}`;
}

/** What templates see. */
export function templateData(task: Task, node: TemplateNode): TemplateValue {
  return {
    Service: {
      ID: task.serviceId ?? "",
      Name: task.serviceAnnotations?.name ?? "",
      Labels: { ...task.serviceAnnotations?.labels },
    },
    Node: {
      ID: node.nodeId,
      Hostname: node.hostname,
      Platform: { OS: node.platform.os, Architecture: node.platform.architecture },
    },
    Task: {
      ID: task.id ?? "",
      Name: taskName(task),
      // A global service's tasks have no slot; the node tells them apart.
      Slot: (task.slot ?? 0) > 0 ? String(task.slot) : node.nodeId,
    },
  };
}
