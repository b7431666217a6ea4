/** The dispatcher's core: what a node is to know, what it may say, how long it may be silent. */
export { isAssigned, NodeAssignments, type Due, type NeedKind } from "./assignments.ts";
export {
  Arrivals,
  downAtMs,
  graceMs,
  jittered,
  mayRegister,
  orphanedAfterMs,
  periodDefaultMs,
  periodMs,
  quietMs,
  unknownGraceMs,
  waitForCrowdMs,
} from "./heartbeats.ts";
export { isLocal } from "./records.ts";
export { drainMs, Drains } from "./drains.ts";
export { Table, TableReader, type Withdrawal } from "./table.ts";
export { Tables } from "./tables.ts";
export { accepted, isAgentState } from "./statuses.ts";
