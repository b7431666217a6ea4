/** Why a service, a task or a node is not as its spec says: what the rooms wrote down, gathered and put in order. */
import { skep } from "../../proto/index.ts";
import type { ClusterSchema, View } from "../store/index.ts";
import { SpecInvalid } from "./core/errors.ts";
import { noNodeFor } from "./core/no-node.ts";
import { explain, type Names } from "./core/reasons.ts";
import { find, kindOf, type Found } from "./find.ts";

type ClusterView = View<ClusterSchema>;
type Finding = skep.control.IFinding;
type Task = Found<"task">;

const { ObjectKind } = skep.control;
const { NodeAvailability, NodeRole, NodeState, TaskState, UpdateState } = skep.objects;

/** Alike findings of many tasks are one, which names so many of them. */
const idsMax = 20;

/** @throws ObjectMissing, ReferenceAmbiguous, SpecInvalid */
export function why(view: ClusterView, request: skep.control.IWhyRequest): skep.control.IWhyReply {
  const kind = kindOf(request.kind);
  const reference = request.reference ?? "";
  switch (kind) {
    case "task":
      return whyTask(view, find(view, "task", reference));
    case "service":
      return whyService(view, find(view, "service", reference));
    case "node":
      return whyNode(view, find(view, "node", reference));
    default:
      throw new SpecInvalid("why is answered for services, tasks and nodes");
  }
}

// ------------------------------------------------------------------------------------------------------------------ task

function whyTask(view: ClusterView, task: Task): skep.control.IWhyReply {
  const findings = taskFindings(view, task);
  const settled = isSettled(task);
  const on = task.nodeId === "" ? "" : ` on ${namesIn(view).node(task.nodeId)}`;
  const [first] = findings;
  const state = stateWord(task.status?.state);
  return {
    kind: ObjectKind.TASK,
    id: task.id,
    name: task.name,
    settled,
    summary: settled
      ? `it is ${state}${on}, as it should be`
      : `it is ${state}${on}: ${first?.summary ?? "it is on its way"}`,
    findings,
    timeUs: view.timeUs,
  };
}

const stateWord = (state: skep.objects.TaskState | null | undefined): string =>
  (TaskState[state ?? TaskState.NEW] ?? "").toLowerCase();

function isSettled({ status, desiredState }: Task): boolean {
  const state = status?.state ?? TaskState.NEW;
  if (desiredState === TaskState.COMPLETE) return state === TaskState.COMPLETE;
  if (desiredState >= TaskState.SHUTDOWN) return state > TaskState.RUNNING;
  return state === TaskState.RUNNING;
}

function taskFindings(view: ClusterView, task: Task): Finding[] {
  const names = namesIn(view);
  const state = task.status?.state ?? TaskState.NEW;
  const findings: Finding[] = [];
  const about = { about: ObjectKind.TASK, ids: [task.id] };
  const add = (reason: skep.objects.Reason.$Properties | null | undefined): void => {
    const text = reason == null ? undefined : explain(reason, names);
    if (reason != null && text !== undefined) {
      findings.push({ ...text, facts: { ...text.facts }, reason, ...about, sinceUs: reason.sinceUs ?? 0 });
    }
  };
  // What was written about an earlier state is not the reason of this one.
  if (task.desiredState === TaskState.READY) add(task.hold);
  if (state !== TaskState.RUNNING || task.status?.reason?.unhealthy != null) add(task.status?.reason);
  const node = task.nodeId === "" ? undefined : view.get("node", task.nodeId);
  if (task.nodeId !== "" && state <= TaskState.RUNNING && state >= TaskState.ASSIGNED) {
    if (node === undefined || node.status?.state === NodeState.NODE_DOWN) {
      findings.push({
        cause: "node_lost",
        summary: `nothing is heard of its node ${names.node(task.nodeId)}`,
        fix: "Bring the node back, or remove it",
        facts: { node: names.node(task.nodeId) },
        ...about,
      });
    } else if (state === TaskState.ASSIGNED && findings.length === 0) {
      findings.push(stage("assigned", `its node ${names.node(task.nodeId)} has not taken it up yet`, task));
    }
  }
  if (findings.length === 0 && !isSettled(task)) findings.push(ownStage(task));
  if (findings.length === 0 && state > TaskState.RUNNING && state !== TaskState.COMPLETE) findings.push(ended(task));
  return findings;
}

function stage(cause: string, summary: string, task: Task, fix = ""): Finding {
  return {
    cause,
    summary,
    fix,
    facts: {},
    about: ObjectKind.TASK,
    ids: [task.id],
    sinceUs: task.status?.timestampUs ?? 0,
  };
}

/** Where nobody wrote a reason down, the state itself says whose turn it is. */
function ownStage(task: Task): Finding {
  const state = task.status?.state ?? TaskState.NEW;
  if (state > TaskState.RUNNING) return ended(task);
  if (task.desiredState >= TaskState.SHUTDOWN) return stage("stopping", "it is being stopped", task);
  switch (state) {
    case TaskState.NEW:
      return stage("allocating", "it waits for its addresses and ports", task);
    case TaskState.PENDING:
      return stage("scheduling", task.status?.err || "it waits for the scheduler", task);
    case TaskState.ACCEPTED:
    case TaskState.PREPARING:
      return stage("preparing", task.status?.err || "its node prepares it", task);
    case TaskState.READY:
      return stage("ready", "it is prepared and waits for its turn", task);
    case TaskState.STARTING:
      return stage("starting", "its container starts, or is not healthy yet", task);
    default:
      return stage(stateWord(state), task.status?.message || "it is on its way", task);
  }
}

function ended(task: Task): Finding {
  const { err, message, containerStatus, timestampUs, reason } = task.status ?? {};
  const exitCode = containerStatus?.exitCode ?? 0;
  return {
    cause: stateWord(task.status?.state),
    summary: err || message || `it ended with exit code ${exitCode}`,
    // What could not be started has printed nothing.
    fix: reason?.failure?.fix || `See its output: service logs ${task.id}`,
    facts: { exit_code: String(exitCode) },
    about: ObjectKind.TASK,
    ids: [task.id],
    sinceUs: timestampUs ?? 0,
  };
}

// --------------------------------------------------------------------------------------------------------------- service

function whyService(view: ClusterView, service: Found<"service">): skep.control.IWhyReply {
  const names = namesIn(view);
  const tasks = [...view.find("task", "service", service.id)];
  const wanted = tasks.filter(({ desiredState }) => desiredState < TaskState.SHUTDOWN);
  const running = wanted.filter(({ status }) => status?.state === TaskState.RUNNING).length;
  const mode = service.spec?.mode;
  const job = mode?.replicatedJob != null || mode?.globalJob != null;
  const iteration = service.jobStatus?.jobIteration ?? 0;
  const completed = tasks.filter(
    ({ status, jobIteration }) => status?.state === TaskState.COMPLETE && (jobIteration ?? 0) === iteration,
  ).length;
  const desired =
    mode?.replicatedJob != null
      ? (mode.replicatedJob.totalCompletions ?? mode.replicatedJob.maxConcurrent ?? 1)
      : mode?.global != null || mode?.globalJob != null
        ? wanted.filter(({ status }) => !job || status?.state !== TaskState.COMPLETE).length + (job ? completed : 0)
        : (mode?.replicated?.replicas ?? 1);
  const findings: Finding[] = [];
  const reason = service.reason == null ? undefined : explain(service.reason, names);
  if (service.reason != null && reason !== undefined) {
    findings.push({ ...reason, facts: { ...reason.facts }, reason: service.reason, ...aboutService(service) });
  }
  const update = updateFinding(service);
  if (update !== undefined) findings.push(update);
  if (desired === 0) findings.push(...refusedByAll(view, service));
  findings.push(...together(wanted.filter((task) => !isSettled(task)).flatMap((task) => taskFindings(view, task))));
  const count = job ? completed : running;
  const settled = findings.length === 0 && count >= desired;
  if (!settled) findings.push(...lastFailure(tasks, service));
  if (!settled && findings.length === 0) findings.push(missingTasks(view, service, desired, wanted.length));
  // Nothing is wrong yet: told before it is.
  findings.push(...lowNetworks(view, service));
  const done = job ? `${completed} of ${desired} tasks have completed` : `${running} of ${desired} tasks are running`;
  return {
    kind: ObjectKind.SERVICE,
    id: service.id,
    name: service.spec?.name ?? "",
    settled,
    summary: settled ? `${done}, as it should be` : `${done}: ${findings[0]?.summary ?? ""}`,
    findings,
    timeUs: view.timeUs,
  };
}

/** A global service that no node takes has nobody else to say so. */
function refusedByAll(view: ClusterView, service: Found<"service">): Finding[] {
  const { mode, taskTemplate } = service.spec ?? {};
  if (mode?.global == null && mode?.globalJob == null) return [];
  const noSuitableNode = noNodeFor(taskTemplate?.placement?.constraints ?? [], [...view.list("node")]);
  const text = noSuitableNode === undefined ? undefined : explain({ noSuitableNode }, namesIn(view));
  if (noSuitableNode === undefined || text === undefined) return [];
  return [{ ...text, facts: { ...text.facts }, reason: { noSuitableNode }, ...aboutService(service) }];
}

/** Networks of the service of which few addresses are left: see the allocator. */
function lowNetworks(view: ClusterView, service: Found<"service">): Finding[] {
  const own = service.spec?.taskTemplate?.networks ?? [];
  const targets = (own.length > 0 ? own : (service.spec?.networks ?? [])).map(({ target }) => target ?? "");
  return targets.flatMap((target): Finding[] => {
    const network = view.get("network", target);
    const pool = network?.reason?.addressPoolFull;
    if (network === undefined || network.vni === 0 || pool == null) return [];
    const name = network.spec?.name ?? target;
    return [
      {
        cause: "addresses_low",
        summary: `few addresses of network ${name} are left: ${pool.used ?? 0} of ${pool.size ?? 0} were in use`,
        fix: `Use a network with a larger subnet, or remove services from ${name}`,
        facts: { network: name, size: String(pool.size ?? 0), used: String(pool.used ?? 0) },
        ...(network.reason == null ? {} : { reason: network.reason }),
        ...aboutService(service),
        sinceUs: network.reason?.sinceUs ?? 0,
      },
    ];
  });
}

const aboutService = (service: Found<"service">): Pick<Finding, "about" | "ids"> => ({
  about: ObjectKind.SERVICE,
  ids: [service.id],
});

function updateFinding(service: Found<"service">): Finding | undefined {
  const status = service.updateStatus;
  const facts = { failed: String(status?.failed ?? 0), total: String(status?.total ?? 0) };
  const common = { facts, ...aboutService(service), sinceUs: status?.startedAtUs ?? 0 };
  switch (status?.state) {
    case UpdateState.UPDATING:
      return { cause: "updating", summary: "it is being updated", fix: "", ...common };
    case UpdateState.UPDATE_PAUSED:
      return {
        cause: "update_paused",
        summary: `its update is paused: ${status.message ?? ""}`,
        fix: "Correct the spec and update again, or roll back",
        ...common,
      };
    case UpdateState.ROLLBACK_STARTED:
      return { cause: "rollback_started", summary: "it is being rolled back", fix: "", ...common };
    case UpdateState.ROLLBACK_PAUSED:
      return {
        cause: "rollback_paused",
        summary: `its rollback is paused: ${status.message ?? ""}`,
        fix: "Update it to a spec that works",
        ...common,
      };
    case UpdateState.ROLLBACK_COMPLETED:
    case UpdateState.UPDATE_COMPLETED:
    case UpdateState.UPDATE_NONE:
    case null:
    case undefined:
      return undefined;
  }
}

/** Alike ones of several tasks as one. */
function together(findings: readonly Finding[]): Finding[] {
  const groups = new Map<string, { finding: Finding; ids: Set<string>; count: number }>();
  for (const finding of findings) {
    const key = `${finding.cause} ${finding.summary}`;
    const group = groups.get(key) ?? { finding, ids: new Set(), count: 0 };
    groups.set(key, group);
    group.count++;
    for (const id of finding.ids ?? []) if (group.ids.size < idsMax) group.ids.add(id);
  }
  return [...groups.values()]
    .toSorted((a, b) => b.count - a.count)
    .map(({ finding, ids, count }) => ({
      ...finding,
      ids: [...ids],
      facts: { ...finding.facts, tasks: String(count) },
    }));
}

/** What ended last: a task that is started again and again says nothing while it starts. */
function lastFailure(tasks: readonly Task[], service: Found<"service">): Finding[] {
  const failed = tasks.filter(
    ({ status, specVersion }) =>
      (status?.state === TaskState.FAILED || status?.state === TaskState.REJECTED) &&
      specVersion === service.specVersion,
  );
  const last = failed.toSorted((a, b) => (b.status?.timestampUs ?? 0) - (a.status?.timestampUs ?? 0))[0];
  if (last === undefined) return [];
  const finding = ended(last);
  const facts = { ...finding.facts, failures: String(failed.length) };
  return [{ ...finding, summary: `task ${last.id} ${stateWord(last.status?.state)}: ${finding.summary ?? ""}`, facts }];
}

function missingTasks(view: ClusterView, service: Found<"service">, desired: number, wanted: number): Finding {
  const global = service.spec?.mode?.global != null || service.spec?.mode?.globalJob != null;
  return {
    cause: "tasks_missing",
    summary: global
      ? `of ${view.count("node")} nodes none takes it: each is away, drained, or does not meet its constraints`
      : `${wanted} of ${desired} tasks exist so far`,
    fix: "",
    facts: { desired: String(desired), tasks: String(wanted) },
    ...aboutService(service),
  };
}

// ------------------------------------------------------------------------------------------------------------------ node

function whyNode(view: ClusterView, node: Found<"node">): skep.control.IWhyReply {
  const findings: Finding[] = [];
  const name = namesIn(view).node(node.id);
  const add = (cause: string, summary: string, fix: string, facts: Record<string, string> = {}): void => {
    findings.push({ cause, summary, fix, facts, about: ObjectKind.NODE, ids: [node.id] });
  };
  const message = node.status?.message ? `: ${node.status.message}` : "";
  switch (node.status?.state ?? NodeState.NODE_UNKNOWN) {
    case NodeState.NODE_DOWN:
      add(
        "node_down",
        `nothing is heard of it${message}`,
        "Check that the host is up, runs skepd and reaches a manager",
      );
      break;
    case NodeState.NODE_UNKNOWN:
      add(
        "node_unknown",
        `it has not reported to this leader yet${message}`,
        "Wait a moment; if it stays so, look at its log",
      );
      break;
    case NodeState.NODE_DISCONNECTED:
      add("node_disconnected", `its session has ended${message}`, "Check its network and its log");
      break;
    case NodeState.NODE_READY:
      break;
  }
  const tasks = [...view.find("task", "node", node.id)].filter(
    ({ status }) => (status?.state ?? TaskState.NEW) <= TaskState.RUNNING,
  );
  const facts = { tasks: String(tasks.length) };
  if (node.spec?.availability === NodeAvailability.DRAIN) {
    add(
      "drained",
      `it is drained: it takes no tasks, and ${tasks.length} are still on it`,
      `node update --availability active ${name}`,
      facts,
    );
  }
  if (node.spec?.availability === NodeAvailability.PAUSE) {
    add(
      "paused",
      `it is paused: its ${tasks.length} tasks stay, and it takes no new ones`,
      `node update --availability active ${name}`,
      facts,
    );
  }
  if (node.spec !== null && node.spec !== undefined && node.spec.role !== node.role) {
    const word = (role: skep.objects.NodeRole | null | undefined): string =>
      role === NodeRole.MANAGER ? "manager" : "worker";
    add(
      "role_changing",
      `it is a ${word(node.role)} and is to be a ${word(node.spec.role)}`,
      "The node changes when it has its new certificate, and a demotion when the managers can do without it",
      { role: word(node.role), wanted: word(node.spec.role) },
    );
  }
  if ((node.certificate?.error ?? "") !== "") {
    add(
      "certificate_failed",
      `its certificate could not be issued: ${node.certificate?.error ?? ""}`,
      "Join the node again",
    );
  }
  if (node.reason?.addressPoolFull != null) {
    add(
      "no_node_number",
      `it has no number, since ${node.reason.addressPoolFull.used ?? 0} nodes have one: networks cannot reach it`,
      "Remove nodes that are no more (node rm)",
    );
  }
  findings.push(...nearMisses(view, node.id));
  const settled = !findings.some(({ cause }) => cause !== "nearest_miss");
  const role = node.role === NodeRole.MANAGER ? "manager" : "worker";
  return {
    kind: ObjectKind.NODE,
    id: node.id,
    name,
    settled,
    summary: settled ? `it is a ${role}, ready, and has ${tasks.length} tasks` : (findings[0]?.summary ?? ""),
    findings,
    timeUs: view.timeUs,
  };
}

/** Tasks that wait, and for which this node is the one that fits best. */
function nearMisses(view: ClusterView, nodeId: string): Finding[] {
  const found: Finding[] = [];
  for (const task of view.find("task", "state", String(TaskState.PENDING))) {
    const refusal = task.status?.reason?.noSuitableNode;
    if (refusal?.nearestNodeId !== nodeId) continue;
    const miss = (refusal.nearestMiss ?? []).join("; ");
    found.push({
      cause: "nearest_miss",
      summary: `${task.serviceAnnotations?.name ?? "a task"} would fit here but for this: ${miss}`,
      fix: miss,
      facts: {},
      about: ObjectKind.TASK,
      ids: [task.id],
      sinceUs: task.status?.reason?.sinceUs ?? 0,
    });
  }
  return together(found);
}

function namesIn(view: ClusterView): Names {
  return {
    node: (id) => {
      const node = view.get("node", id);
      return node?.description?.hostname || node?.spec?.name || id;
    },
    network: (id) => view.get("network", id)?.spec?.name ?? id,
    nowUs: view.timeUs,
  };
}
