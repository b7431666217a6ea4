/**
 * Waits until a service runs as it was asked for, and shows how far it is: bars on a terminal, lines otherwise.
 * Converged means that the tasks run and have stayed so for the monitor period of the update.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { isAbort } from "../../lib/pure/errors.ts";
import type { Api } from "../api/client.ts";
import { filtersQuery, inPath } from "../api/client.ts";
import type { Service, SwarmNode, Task } from "../api/types.ts";
import { CommandError } from "../errors.ts";
import type { Session } from "../session.ts";
import { ProgressDisplay, type Row } from "./progress.ts";

const pollMs = 200;
/** The engine's default for an update's monitor. */
const defaultMonitorMs = 5_000;

/** Observed states from first to last; a desired state is compared by the same order. */
const stateOrder = [
  "new",
  "allocated",
  "pending",
  "assigned",
  "accepted",
  "preparing",
  "ready",
  "starting",
  "running",
  "complete",
  "shutdown",
  "failed",
  "rejected",
  "remove",
  "orphaned",
];
const rank = (state: string): number => stateOrder.indexOf(state);
const isTerminal = (state: string): boolean => rank(state) > rank("running");

export interface Wait {
  readonly serviceId: string;
  readonly quiet: boolean;
  /** What was asked for: an automatic rollback is a failure of an update, and the success of a rollback. */
  readonly wanted: "update" | "rollback";
  /** The update's state before our change; the same one again tells nothing about ours. */
  readonly before?: Service["UpdateStatus"];
}

/**
 * @throws CommandError when the update was paused or rolled back (exit code 1), and on Ctrl-C (130), which stops the
 * waiting and not the update
 */
export async function waitForService(session: Session, wait: Wait): Promise<void> {
  const api = await session.api();
  const display = new ProgressDisplay(session, wait.quiet);
  try {
    await converge(session, api, wait, display);
  } catch (error) {
    if (!isAbort(error)) throw error;
    throw new CommandError(
      `Operation continuing in background.\nUse \`skep service ps ${wait.serviceId}\` to check progress.`,
      130,
    );
  } finally {
    display.close();
  }
}

async function converge(session: Session, api: Api, wait: Wait, display: ProgressDisplay): Promise<void> {
  const { serviceId, wanted } = wait;
  const signal = session.interrupted;
  const query = {
    filters: filtersQuery(
      new Map([
        ["service", [serviceId]],
        ["_up-to-date", ["true"]],
      ]),
    ),
  };
  let convergedAtMs: number | undefined;
  let endedAtMs: number | undefined;
  let monitorMs = defaultMonitorMs;
  let rolledBack: string | undefined;
  /** Told only while it goes on. */
  let cause: string | undefined;
  for (;;) {
    const service = await api.get<Service>(`/services/${inPath(serviceId)}`, {
      query: { insertDefaults: false },
      signal,
    });
    const config = wanted === "rollback" ? service.Spec.RollbackConfig : service.Spec.UpdateConfig;
    if (config?.Monitor) monitorMs = config.Monitor / 1e6;
    const status = newStatus(service, wait);
    const message = status?.Message ?? "";
    switch (status?.State) {
      case "paused":
        throw new CommandError(`service update paused: ${message}`);
      case "rollback_paused":
        throw new CommandError(`service rollback paused: ${message}`);
      case "rollback_started":
        if (wanted === "update") display.note("rollback", message);
        cause = message;
        break;
      case "rollback_completed":
        if (wanted === "update") rolledBack = cause ?? message;
        break;
      case "completed":
        // The managers have watched the monitor period already.
        if (convergedAtMs === undefined) return;
        break;
      default:
    }
    const nowMs = performance.now();
    if (convergedAtMs !== undefined && nowMs - convergedAtMs >= monitorMs) {
      if (rolledBack !== undefined) throw new CommandError(`service rolled back: ${rolledBack}`);
      display.note("verify", `Service ${serviceId} converged`);
      return;
    }
    const [tasks, nodes] = await Promise.all([
      api.get<Task[]>("/tasks", { query, signal }),
      api.get<SwarmNode[]>("/nodes", { signal }),
    ]);
    const standing = standingOf(service, tasks, new Set(nodes.filter(isUp).map((node) => node.ID)));
    display.show(standing.summary, standing.rows);
    // Nothing more comes of it, as with a restart condition of none: who waits would wait for ever.
    const isChanging = status?.State === "updating" || status?.State === "rollback_started";
    endedAtMs = standing.ended === undefined || isChanging ? undefined : (endedAtMs ?? nowMs);
    if (standing.ended !== undefined && endedAtMs !== undefined && nowMs - endedAtMs >= monitorMs) {
      if (standing.ended.failed) throw new CommandError(standing.ended.text);
      display.note("verify", standing.ended.text);
      return;
    }
    if (standing.done && isJob(service)) {
      display.note("verify", "job complete");
      return;
    }
    if (standing.done) {
      convergedAtMs ??= nowMs;
      const leftMs = Math.max(0, monitorMs - (nowMs - convergedAtMs));
      display.note(
        "verify",
        `Waiting ${Math.max(1, Math.ceil(leftMs / 1000))} seconds to verify that tasks are stable...`,
      );
    } else {
      if (convergedAtMs !== undefined) display.note("verify", "Detected task failure");
      convergedAtMs = undefined;
    }
    await sleep(pollMs, undefined, { signal });
  }
}

function newStatus(service: Service, { before }: Wait): Service["UpdateStatus"] {
  const status = service.UpdateStatus;
  const isOld = before !== undefined && status?.StartedAt === before.StartedAt && status?.State === before.State;
  return isOld ? undefined : status;
}

const isUp = (node: SwarmNode): boolean => node.Status.State !== "down";
const isJob = ({ Spec: { Mode } }: Service): boolean =>
  Mode.ReplicatedJob !== undefined || Mode.GlobalJob !== undefined;

interface Standing {
  readonly done: boolean;
  /** Some tasks have ended and are not started again, and nothing else is on its way. */
  readonly ended: Ended | undefined;
  readonly summary: string;
  readonly rows: readonly Row[];
}

interface Ended {
  readonly failed: boolean;
  readonly text: string;
}

/** @param goal  the state in which a task is what was asked for */
function endedOf(bySlot: ReadonlyMap<string, Task>, total: number, goal: "running" | "complete"): Ended | undefined {
  const tasks = [...bySlot.values()];
  const ended = tasks.filter(
    ({ DesiredState, Status: { State } }) =>
      isTerminal(State) && State !== "orphaned" && rank(DesiredState) >= rank("shutdown"),
  );
  const reached = tasks.filter((task) => task.Status.State === goal && !ended.includes(task));
  if (ended.length === 0 || tasks.length < total || ended.length + reached.length < tasks.length) return undefined;
  const failed = ended.find(({ Status }) => Status.State !== "complete");
  if (failed === undefined) {
    return { failed: false, text: `${ended.length} out of ${total} tasks have completed, and are not started again` };
  }
  const { Err = "", State } = failed.Status;
  const count = ended.filter(({ Status }) => Status.State !== "complete").length;
  return {
    failed: true,
    text: `${count} out of ${total} tasks failed, and are not started again: ${Err === "" ? State : Err}`,
  };
}

/** How far the service is, from what the managers say of its tasks. */
function standingOf(service: Service, tasks: readonly Task[], activeNodes: ReadonlySet<string>): Standing {
  const { Mode: mode } = service.Spec;
  const iteration = service.JobStatus?.JobIteration.Index;
  if (mode.ReplicatedJob !== undefined || mode.GlobalJob !== undefined) {
    const current = tasks.filter((task) => (task.JobIteration?.Index ?? 0) === (iteration ?? 0));
    const bySlot = latest(current, mode.GlobalJob === undefined, activeNodes);
    const total = mode.GlobalJob === undefined ? (mode.ReplicatedJob?.TotalCompletions ?? 1) : bySlot.size;
    const complete = [...bySlot.values()].filter((task) => task.Status.State === "complete").length;
    return {
      done: service.JobStatus !== undefined && total > 0 && complete >= total,
      ended: total === 0 ? undefined : endedOf(bySlot, total, "complete"),
      summary: `job progress: ${complete} out of ${total} complete`,
      rows: rowsOf(bySlot, total, mode.GlobalJob === undefined),
    };
  }
  const replicated = mode.Global === undefined;
  const bySlot = latest(tasks, replicated, activeNodes);
  const total = replicated ? (mode.Replicated?.Replicas ?? 1) : bySlot.size;
  const running = [...bySlot.values()].filter(isRunning).length;
  return {
    // A global service without a task yet has either just been made or fits no node; both take time to tell.
    done: running === total && (replicated || total > 0),
    ended: endedOf(bySlot, total, "running"),
    summary: `overall progress: ${running} out of ${total} tasks`,
    rows: rowsOf(bySlot, total, replicated),
  };
}

const isRunning = (task: Task): boolean => task.Status.State === "running" && !isTerminal(task.DesiredState);

/** The task that counts in each slot, or on each node: the one that is wanted most, then the one that is farthest. */
function latest(tasks: readonly Task[], bySlot: boolean, activeNodes: ReadonlySet<string>): Map<string, Task> {
  const found = new Map<string, Task>();
  for (const task of tasks) {
    if (task.NodeID && !activeNodes.has(task.NodeID)) continue;
    const key = bySlot ? String(task.Slot ?? 0) : (task.NodeID ?? "");
    if (!bySlot && key === "") continue;
    const other = found.get(key);
    if (other !== undefined) {
      const [wantedOther, wanted] = [rank(other.DesiredState), rank(task.DesiredState)];
      if (wantedOther < wanted) continue;
      if (wantedOther === wanted && rank(other.Status.State) <= rank(task.Status.State)) continue;
    }
    found.set(key, task);
  }
  return found;
}

function rowsOf(bySlot: ReadonlyMap<string, Task>, total: number, replicated: boolean): Row[] {
  const entries = [...bySlot].toSorted(([a], [b]) => (replicated ? Number(a) - Number(b) : a < b ? -1 : 1));
  return entries.map(([key, task], at) => ({
    name: replicated ? `${at + 1}/${total}` : key.slice(0, 12),
    state: task.Status.State,
    error: task.Status.Err ?? "",
    done: Math.min(rank(task.Status.State), rank("running")) + 1,
    of: rank("running") + 1,
  }));
}
