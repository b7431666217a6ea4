/**
 * What makes a task dirty: a change of its spec that only a new task can bring about. Fields that are absent and fields
 * that have their default are equal, and the order of a map's keys means nothing.
 */
import { satisfies, type Constraint, type skep } from "../../../proto/index.ts";
import { TaskState, type Difference, type NodeFacts, type TaskFacts } from "./facts.ts";

type TaskSpec = skep.objects.TaskSpec.$Properties;
type EndpointSpec = skep.objects.EndpointSpec.$Properties;

export interface SpecPair {
  readonly spec: TaskSpec | null | undefined;
  readonly endpoint: EndpointSpec | null | undefined;
}

export function differenceOf(task: SpecPair, service: SpecPair): Difference {
  const of = task.spec;
  const now = service.spec;
  return {
    placement: !same(of?.placement, now?.placement),
    pull: !same(of?.containerSpec?.pullOptions, now?.containerSpec?.pullOptions),
    other:
      !sameFields(of ?? {}, now ?? {}, ["placement", "containerSpec"]) ||
      (of?.containerSpec == null) !== (now?.containerSpec == null) ||
      !sameFields(of?.containerSpec ?? {}, now?.containerSpec ?? {}, ["pullOptions"]) ||
      !same(task.endpoint, service.endpoint),
  };
}

export const noDifference: Difference = { placement: false, pull: false, other: false };

/** A task that still fits where it is stays when only its placement changed, and one that has its image keeps it. */
export function isDirty(
  task: TaskFacts,
  difference: Difference,
  node: NodeFacts | undefined,
  constraints: readonly Constraint[],
): boolean {
  if (difference.other) return true;
  if (difference.pull && task.state < TaskState.RUNNING) return true;
  if (!difference.placement) return false;
  return node === undefined || !constraints.every((constraint) => satisfies(node.traits, constraint));
}

type Value = string | number | boolean | bigint | object | null | undefined;

function same(a: Value, b: Value): boolean {
  if (a === b || (a ?? null) === (b ?? null)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (a instanceof Uint8Array && b instanceof Uint8Array)
    return a.length === b.length && a.every((byte, at) => byte === b[at]);
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    return a.every((item: Value, at) => same(item, b[at] as Value));
  }
  return sameFields(a, b, []);
}

/**
 * Reads through the prototypes of messages, which have the defaults of fields that were not sent. An optional field that
 * was not sent is null there, and so differs from one that was sent as zero or false.
 */
function sameFields(a: object, b: object, but: readonly string[]): boolean {
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (but.includes(key)) continue;
    if (!same((a as Record<string, Value>)[key], (b as Record<string, Value>)[key])) return false;
  }
  return true;
}
