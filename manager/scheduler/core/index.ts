/**
 * The scheduler's decisions: filters, constraints, order, plan. Pure: the same facts give the same plan.
 * Used by: the scheduler's shell, the constraint enforcer, `why` and `simulate`.
 */
export { Board, type BoardPlan, type Refused } from "./board.ts";
export { offenders, type Offender, type Resident } from "./enforce.ts";
export {
  constraintsOf,
  encryptedNetworksOf,
  genericResourcesOf,
  groupFactsOf,
  holdsPlace,
  isWanted,
  nodeFactsOf,
} from "./from-objects.ts";
export { reasonOf, refusalText } from "./reason.ts";
export { nothing, type Amounts, type GroupFacts, type NodeFacts, type Platform, type TaskFacts } from "./facts.ts";
export { type FilterName, type Refusal } from "./filters.ts";
export { failuresUntilAvoided, failureWindowMs, NodeState } from "./node-state.ts";
export { confirm, explain, planGroup, type NoSuitableNode, type Placement, type Plan } from "./plan.ts";
