/**
 * The scheduler's decisions: filters, constraints, order, plan. Pure: the same facts give the same plan.
 * Used by: the scheduler's shell, the constraint enforcer, `why` and `simulate`.
 */
export { nothing, type Amounts, type GroupFacts, type NodeFacts, type Platform, type TaskFacts } from "./facts.ts";
export { type FilterName, type Refusal } from "./filters.ts";
export { failuresUntilAvoided, failureWindowMs, NodeState } from "./node-state.ts";
export { confirm, explain, planGroup, type NoSuitableNode, type Placement, type Plan } from "./plan.ts";
