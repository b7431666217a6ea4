/** Everything that a decision on one service is made from. */
import type { Difference, NodeFacts, ServiceFacts, TaskFacts } from "./facts.ts";

export interface Situation {
  readonly service: ServiceFacts;
  readonly tasks: readonly TaskFacts[];
  readonly nodes: ReadonlyMap<string, NodeFacts>;
  /** In what tasks of a spec version differ from the spec now. */
  readonly differenceFrom: (specVersion: number) => Difference;
  /** Tasks kept for each slot; below 0 all. */
  readonly historyMax: number;
  readonly nowUs: number;
}
