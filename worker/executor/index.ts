/**
 * Executor: does on this node what a task asks.
 * In:    tasks with the secrets, configs and networks they need, one act after the other, from the agent.
 * Out:   what became of them: containers, with their secrets in memory and their images pulled.
 * core/  templates; from a task to its container. Pure.
 * Uses:  worker/containers, worker/images, worker/volumes, worker/network, proto, lib.   Used by: agent.   Design: docs/design/executor.md
 */
export { ContainerExecutor, machineName, type ExecutorSettings } from "./container-executor.ts";
export { TaskSpecInvalid } from "./core/container-of-task.ts";
export { TemplateInvalid } from "../../lib/pure/template.ts";
export * from "./errors.ts";
export { TaskNetworkProvider } from "./network-provider.ts";
export { overlayOf, type TaskNetworks } from "./task-networks.ts";
export {
  isTemporary,
  type Executor,
  type ExitReport,
  type Needs,
  type NodeFacts,
  type TaskController,
  type TaskLogLine,
  type TaskLogOptions,
  type Temporary,
} from "./contract.ts";
