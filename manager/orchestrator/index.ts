/**
 * Orchestrator: sees that every service has the tasks that its spec asks for.
 * In:    services, tasks, nodes and the cluster's history limit, from a store watch.
 * Out:   tasks created (NEW, or PENDING when there is nothing to allocate) and their desired states, update statuses, automatic rollbacks, history removed.
 * core/  slots, restart policy, rolling update, history. Pure: the same situation gives the same moves.
 * Uses:  store, proto, lib.   Used by: leadership.ts.   Design: docs/design/orchestrator.md
 */
export { Orchestrator, type OrchestratorOptions } from "./orchestrator.ts";
