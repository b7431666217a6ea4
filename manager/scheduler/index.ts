/**
 * Scheduler: gives every pending task a node, or a reason why none fits; takes tasks off nodes that they do not fit any more.
 * In:    tasks PENDING, nodes and services, from a store watch.
 * Out:   tasks ASSIGNED, a batch a transaction; tasks left PENDING carry the refusal; tasks REJECTED by the enforcer.
 * core/  filters, order, plan, board, enforcer. Pure: the same facts and the same seed give the same plan.
 * Uses:  store, proto, lib.   Used by: leadership.ts.   Design: docs/design/scheduler.md
 */
export { Scheduler, type SchedulerOptions } from "./scheduler.ts";
