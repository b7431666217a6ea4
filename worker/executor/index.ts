/**
 * Executor: does on this node what a task asks.
 * In:    tasks with the secrets, configs and networks they need, one act after the other, from the agent.
 * Out:   what became of them.
 * Uses:  worker/containers, worker/images, worker/volumes, proto, lib.   Used by: agent.
 */
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
