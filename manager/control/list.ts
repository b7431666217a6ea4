/** Which objects a list shows, and how services are doing beside them. */
import { skep } from "../../proto/index.ts";
import type { ClusterSchema, View } from "../store/index.ts";
import { SpecInvalid } from "./core/errors.ts";
import { find, isThere, type AnyObject, type Found, type Kind } from "./find.ts";

type ClusterView = View<ClusterSchema>;
type Filters = readonly skep.control.IObjectFilter[];
type Test<K extends Kind> = (object: Found<K>) => boolean;

const { NodeRole, NodeState, TaskState } = skep.objects;

/** What a list needs to know of other rooms. */
export interface ListFacts {
  /** Whether the task is what its service's spec asks for now, as the orchestrator judges it. */
  readonly isUpToDate: (task: Found<"task">, service: Found<"service">, node: Found<"node"> | undefined) => boolean;
}

type AnyTest = Test<"node"> | Test<"service"> | Test<"task"> | Test<"network">;

/** @throws SpecInvalid for a key that this kind does not have, ObjectMissing for a service or node that is none */
export function* listed<K extends Kind>(
  view: ClusterView,
  kind: K,
  filters: Filters,
  after: string,
  facts: ListFacts,
): Generator<Found<K>> {
  const tests = filters.map(({ key, values }) => testOf(view, kind, key ?? "", values ?? [], facts));
  for (const object of candidates(view, kind, filters, after)) {
    if (isThere(object) && tests.every((test) => test(object))) yield object;
  }
}

/** By an index where a filter allows it: the progress display asks for the tasks of one service five times a second. */
function* candidates<K extends Kind>(view: ClusterView, kind: K, filters: Filters, after: string): Generator<Found<K>> {
  if (kind === "task") {
    for (const key of ["service", "node"] as const) {
      const wanted = filters.find((filter) => filter.key === key)?.values ?? [];
      if (wanted.length !== 1) continue;
      const { id } = find(view, key, wanted[0] ?? "");
      for (const task of view.find("task", key, id)) if (task.id > after) yield task as Found<K>;
      return;
    }
  }
  for (const object of view.list(kind, after === "" ? {} : { from: `${after}!` })) yield object as Found<K>;
}

function testOf<K extends Kind>(
  view: ClusterView,
  kind: K,
  key: string,
  values: readonly string[],
  facts: ListFacts,
): Test<K> {
  const any =
    (test: (object: Found<K>, value: string) => boolean): Test<K> =>
    (object) =>
      values.some((value) => test(object, value));
  switch (key) {
    case "id":
      return any((object, value) => (object as AnyObject).id.startsWith(value));
    case "name":
      return any((object, value) => namesOf(kind, object).some((name) => name.startsWith(value)));
    case "names":
      return any((object, value) => namesOf(kind, object).includes(value));
    case "label":
      return (object) => values.every((value) => hasLabel(labelsOf(kind, object), value));
    case "label!":
      return (object) => !values.some((value) => hasLabel(labelsOf(kind, object), value));
  }
  const special = specialTest(view, kind, key, values, facts);
  if (special === undefined) throw new SpecInvalid(`invalid filter '${key}'`);
  return special as Test<K>;
}

function specialTest(
  view: ClusterView,
  kind: Kind,
  key: string,
  values: readonly string[],
  facts: ListFacts,
): AnyTest | undefined {
  switch (`${kind} ${key}`) {
    case "node role":
      return (node: Found<"node">) => values.includes(node.role === NodeRole.MANAGER ? "manager" : "worker");
    case "node membership":
      // Whoever has a certificate is in.
      return () => values.includes("accepted");
    case "node node.label":
      return (node: Found<"node">) => values.every((value) => hasLabel(node.spec?.labels ?? {}, value));
    case "service mode":
      return (service: Found<"service">) => values.includes(modeOf(service));
    case "service runtime":
      return () => values.includes("container");
    case "task runtime":
      return () => values.includes("container");
    case "task service": {
      const ids = new Set(values.map((value) => find(view, "service", value).id));
      return (task: Found<"task">) => ids.has(task.serviceId);
    }
    case "task node": {
      const ids = new Set(values.map((value) => find(view, "node", value).id));
      return (task: Found<"task">) => ids.has(task.nodeId);
    }
    case "task desired-state": {
      const states = new Set(values.map((value) => TaskState[value.toUpperCase() as keyof typeof TaskState]));
      return (task: Found<"task">) => states.has(task.desiredState);
    }
    case "task _up-to-date": {
      const wanted = values.some((value) => value === "true" || value === "1");
      return (task: Found<"task">) => {
        const service = view.get("service", task.serviceId);
        if (service === undefined) return !wanted;
        return facts.isUpToDate(task, service, view.get("node", task.nodeId)) === wanted;
      };
    }
    case "network driver":
      return (network: Found<"network">) => values.includes(network.spec?.driver?.name ?? "overlay");
    default:
      return undefined;
  }
}

function namesOf(kind: Kind, object: object): readonly string[] {
  switch (kind) {
    case "node": {
      const node = object as Found<"node">;
      return [node.description?.hostname ?? "", node.spec?.name ?? ""].filter((name) => name !== "");
    }
    case "task":
      return [(object as Found<"task">).name];
    default:
      return [(object as Found<"service">).spec?.name ?? ""];
  }
}

function labelsOf(kind: Kind, object: object): Readonly<Record<string, string>> {
  switch (kind) {
    case "task":
      // Stacks label their services, and ask for tasks by that.
      return (object as Found<"task">).serviceAnnotations?.labels ?? {};
    case "node":
      return (object as Found<"node">).description?.engine?.labels ?? {};
    default:
      return (object as Found<"service">).spec?.labels ?? {};
  }
}

/** @param wanted  KEY or KEY=VALUE */
function hasLabel(labels: Readonly<Record<string, string>>, wanted: string): boolean {
  const at = wanted.indexOf("=");
  const key = at < 0 ? wanted : wanted.slice(0, at);
  if (!Object.hasOwn(labels, key)) return false;
  return at < 0 || labels[key] === wanted.slice(at + 1);
}

function modeOf({ spec }: Found<"service">): string {
  if (spec?.mode?.global != null) return "global";
  if (spec?.mode?.globalJob != null) return "global-job";
  return spec?.mode?.replicatedJob != null ? "replicated-job" : "replicated";
}

/** As `service ls` shows it: a task on a node that is down does not count as running. */
export function countsOf(view: ClusterView, service: Found<"service">): skep.control.IServiceCounts {
  const mode = service.spec?.mode;
  const job = mode?.replicatedJob != null || mode?.globalJob != null;
  const iteration = service.jobStatus?.jobIteration ?? 0;
  let runningTasks = 0;
  let completedTasks = 0;
  let wanted = 0;
  for (const task of view.find("task", "service", service.id)) {
    const state = task.status?.state ?? TaskState.NEW;
    if (job && (task.jobIteration ?? 0) !== iteration) continue;
    // Of a global job those are wanted that are still to complete: clients add the others.
    if (state === TaskState.COMPLETE && job) completedTasks++;
    if (task.desiredState >= TaskState.SHUTDOWN || (job && state === TaskState.COMPLETE)) continue;
    wanted++;
    const node = view.get("node", task.nodeId);
    if (state === TaskState.RUNNING && node !== undefined && node.status?.state !== NodeState.NODE_DOWN) runningTasks++;
  }
  const desiredTasks =
    mode?.global != null || mode?.globalJob != null
      ? wanted
      : mode?.replicatedJob != null
        ? (mode.replicatedJob.maxConcurrent ?? mode.replicatedJob.totalCompletions ?? 1)
        : (mode?.replicated?.replicas ?? 1);
  return { serviceId: service.id, runningTasks, desiredTasks, completedTasks };
}
