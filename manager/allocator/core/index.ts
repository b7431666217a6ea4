/** The allocator's core: who has which subnet, VXLAN number, address and port. */
export { Ledger, type Answer, type NetworkGrant, type TaskGrant } from "./ledger.ts";
export { NodeNumbers } from "./node-numbers.ts";
export { isLow, numbersFull, type Pressure } from "./pressure.ts";
export type { Refusal } from "./refusal.ts";
