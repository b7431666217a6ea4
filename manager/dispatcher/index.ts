/**
 * Dispatcher: one stream to each agent. Down: what its node is to run, with what that needs. Up: signs of life, and what
 * became of it.
 * In:    tasks, nodes, secrets, configs, networks and volumes from a store watch; messages of agents.
 * Out:   complete, then numbered assignments; node states and descriptions, task statuses, orphaned tasks, in batches.
 * core/  what a node is to know, what it may say, how long it may be silent. Pure.
 * Uses:  store, proto, lib.   Used by: leadership.ts, manager.ts.   Design: docs/design/dispatcher.md
 */
export {
  Dispatcher,
  serveDispatcher,
  type AgentPeer,
  type CrowdLimits,
  type DispatcherOptions,
  type SessionListener,
} from "./dispatcher.ts";
export type { AgentStream } from "./session.ts";
