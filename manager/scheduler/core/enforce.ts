/**
 * Constraint enforcer: which tasks of a node may not stay there any more, because the node has changed.
 * Constraints are the service's current ones, not those that the task was made with, but for tasks that an update is to
 * replace.
 */
import { satisfies, type Constraint } from "../../../proto/index.ts";
import type { GroupFacts, NodeFacts } from "./facts.ts";

export interface Resident {
  readonly taskId: string;
  readonly createdAtUs: number;
  readonly constraints: readonly Constraint[];
  readonly group: GroupFacts;
}

export interface Offender {
  readonly taskId: string;
  /** What does not hold any more. */
  readonly detail: string;
}

/** The longest-standing tasks keep their reservations; those that came later go when there is not enough for all. */
export function offenders(node: NodeFacts, residents: readonly Resident[]): readonly Offender[] {
  const found: Offender[] = [];
  const { capacity } = node;
  let nanoCpus = capacity.nanoCpus;
  let memoryBytes = capacity.memoryBytes;
  const generic = new Map(capacity.generic);
  const ordered = [...residents].sort((a, b) => a.createdAtUs - b.createdAtUs || (a.taskId < b.taskId ? -1 : 1));
  for (const { taskId, constraints, group } of ordered) {
    const unmet = constraints.find((constraint) => !satisfies(node, constraint));
    if (unmet !== undefined) {
      found.push({ taskId, detail: `it does not satisfy ${unmet.text}` });
      continue;
    }
    const { reserved } = group;
    const short = [...reserved.generic].find(([kind, count]) => count > (generic.get(kind) ?? 0));
    if (reserved.nanoCpus > nanoCpus && reserved.nanoCpus > 0) found.push({ taskId, detail: "it has too few CPUs" });
    else if (reserved.memoryBytes > memoryBytes && reserved.memoryBytes > 0)
      found.push({ taskId, detail: "it has too little memory" });
    else if (short !== undefined) found.push({ taskId, detail: `it has too few of "${short[0]}"` });
    else {
      nanoCpus -= reserved.nanoCpus;
      memoryBytes -= reserved.memoryBytes;
      for (const [kind, count] of reserved.generic) generic.set(kind, (generic.get(kind) ?? 0) - count);
    }
  }
  return found;
}
