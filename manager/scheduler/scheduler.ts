/**
 * The shell: keeps the board from a watch, asks it for a plan when things have gone quiet, commits the plan in batches.
 * Beside it the constraint enforcer, which asks the same board who may not stay. Neither decides anything here.
 */
import { Random } from "../../lib/pure/prng.ts";
import { skep } from "../../proto/index.ts";
import type { Constraint } from "../../proto/index.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import {
  follow,
  inSlices,
  Backpressure,
  Conflict,
  EntryTooLarge,
  type Change,
  type ClusterSchema,
  type Follower,
  type Store,
  type Tx,
  type View,
  type Watch,
  type WatchEvent,
} from "../store/index.ts";
import {
  Board,
  constraintsOf,
  encryptedNetworksOf,
  genericResourcesOf,
  holdsPlace,
  isWanted,
  nodeFactsOf,
  offenders,
  reasonOf,
  refusalText,
  type GroupFacts,
  type NodeFacts,
  type Offender,
  type Placement,
  type Refused,
  type Resident,
} from "./core/index.ts";

export interface SchedulerOptions {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  /** Breaks ties between nodes that are equally good: equal seeds, equal placements. */
  readonly seed: number | string;
  readonly logger: Logger;
}

const { TaskState } = skep.objects;
type Task = skep.objects.Task.$Properties;

/** One plan follows another after so long at the earliest, so that what comes together is planned together. Swarm waits 50 ms. */
const restMs = 2;
const batchMax = 200;
/**
 * Batches under way at once. More would not be faster, and whoever else writes would wait behind them; a plan of all that a
 * large cluster may have waiting would keep the process from its heartbeats.
 */
const inFlightMax = 4;
/** In a plan, eight nodes looked at cost as much as a task placed. */
const nodesPerTask = 1 / 8;
/** A task's reason is written at once when it is its first, and again when it changed, but not more often than this. */
const rewriteMs = 5000;
const retryMs = 1000;
/** Tasks that the enforcer looks at in one turn, some more when a node has them: a new leader looks at all that there are. */
const enforcedMax = 1000;

interface Waiting {
  text: string;
  atMs: number;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #random: Random;
  #board = new Board();
  readonly #nodeTexts = new Map<string, string>();
  /** Of what the enforcer judges by. */
  readonly #judgedTexts = new Map<string, string>();
  /** Of each service, now. */
  readonly #constraints = new Map<string, readonly Constraint[]>();
  /** Spec versions that are being brought out, by service. */
  readonly #updating = new Map<string, number>();
  readonly #toEnforce = new Set<string>();
  readonly #told = new Map<string, Waiting>();
  readonly #unsaid = new Map<string, Refused>();
  #watch: Watch<ClusterSchema> | undefined;
  #follower: Follower<ClusterSchema> | undefined;
  #timer: Timer | undefined;
  #timerAtMs = Infinity;
  #plannedMs = -Infinity;
  #inFlight = 0;
  /** The board has all that was placed: what the store has, and what this room has under way. */
  #isRead = false;
  /** What could be told is not told yet, since too much is under way. */
  #cutShort = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#random = Random.stream(options.seed, "scheduler");
  }

  start(): void {
    if (this.#watch !== undefined) return;
    this.#watch = this.#options.store.watch({ kinds: ["task", "node", "service", "network"] });
    const later = (act: () => void): void => void this.#options.clock.after(0, act);
    this.#isRead = false;
    this.#follower = follow(this.#watch, this.#read, () => this.#planSoon(), later);
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
    this.#follower = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#timerAtMs = Infinity;
    this.#inFlight = 0;
    this.#forget();
  }

  // --------------------------------------------------------------------------------------------------------- reading

  readonly #read = (event: WatchEvent<ClusterSchema>): Iterator<void> | void => {
    if (event.kind === "view") return this.#readView(event.view);
    for (const change of event.changes) this.#readChange(change);
    return undefined;
  };

  #forget(): void {
    this.#board = new Board();
    this.#nodeTexts.clear();
    this.#judgedTexts.clear();
    this.#constraints.clear();
    this.#updating.clear();
    this.#toEnforce.clear();
    this.#told.clear();
    this.#unsaid.clear();
  }

  *#readView(view: View<ClusterSchema>): Generator<void, void> {
    this.#forget();
    this.#isRead = false;
    this.#board.setEncrypted(encryptedNetworksOf(view.list("network")));
    for (const service of view.list("service")) this.#setService(service.id, service);
    yield* inSlices(view.list("node"), (node) => this.#setNode(node.id, node));
    yield* inSlices(view.list("task"), (task) => this.#board.setTask(task));
  }

  #readChange(change: Change<ClusterSchema>): void {
    switch (change.kind) {
      case "task": {
        const { before, after } = change;
        if (after === undefined) {
          this.#board.removeTask(change.id);
          this.#told.delete(change.id);
          this.#unsaid.delete(change.id);
          return;
        }
        if (hasFailed(after) && before !== undefined && !hasFailed(before))
          this.#board.failed(after, this.#options.clock.monotonicMs());
        this.#board.setTask(after);
        return;
      }
      case "node":
        return this.#setNode(change.id, change.after);
      case "service":
        return this.#setService(change.id, change.after);
      case "network":
        // Rare, and before the first task that is on it.
        return this.#board.setEncrypted(encryptedNetworksOf(this.#options.store.current().list("network")));
      case "cluster":
      case "secret":
      case "config":
      case "volume":
      case "resource":
      case "extension":
        return;
    }
  }

  #setNode(id: string, node: skep.objects.Node.$Properties | undefined): void {
    if (node === undefined) {
      this.#nodeTexts.delete(id);
      this.#judgedTexts.delete(id);
      return this.#board.removeNode(id);
    }
    const facts = nodeFactsOf(node);
    const text = textOf(facts);
    if (this.#nodeTexts.get(id) === text) return;
    this.#nodeTexts.set(id, text);
    this.#board.setNode(facts);
    // A node that comes and goes keeps what it has: nobody is to look at all its tasks each time.
    const judged = textOf({ ...facts, ...unjudged });
    if (this.#judgedTexts.get(id) === judged) return;
    this.#judgedTexts.set(id, judged);
    this.#toEnforce.add(id);
  }

  /** Other constraints are the updater's work: it takes tasks off their nodes as the service wants to be updated. */
  #setService(id: string, service: skep.objects.Service.$Properties | undefined): void {
    this.#updating.delete(id);
    if (service === undefined) return void this.#constraints.delete(id);
    this.#constraints.set(id, constraintsOf(service.spec?.taskTemplate));
    const { specVersion, updateStatus } = service;
    if (specVersion != null && updateStatus?.updateId === specVersion && isUnderWay(updateStatus))
      this.#updating.set(id, specVersion);
  }

  // --------------------------------------------------------------------------------------------------------- planning

  /** At once, unless that was done a moment ago. */
  #planSoon(): void {
    const waitMs = this.#plannedMs + restMs - this.#options.clock.monotonicMs();
    if (waitMs > 0) this.#planWithin(waitMs);
    else if (this.#watch !== undefined) this.#plan();
  }

  #planWithin(ms: number): void {
    if (this.#watch === undefined) return;
    const atMs = this.#options.clock.monotonicMs() + ms;
    if (atMs >= this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#options.clock.after(ms, () => {
      this.#timerAtMs = Infinity;
      this.#plan();
    });
  }

  #plan(): void {
    // It would place tasks as if those that are not read yet took no room; nor those that were under way when a view was
    // taken, which show only in the changes after it.
    if (!this.#isRead) this.#isRead = this.#inFlight === 0 && (this.#follower?.catchUp() ?? true);
    if (!this.#isRead) return;
    const { clock } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#plannedMs = nowMs;
    this.#enforce();
    // With the last batch of those under way comes the next plan.
    const tasksMax = (inFlightMax - this.#inFlight) * batchMax;
    // To look at many nodes for the sake of few tasks would cost more than to wait for the batches before.
    if (tasksMax < Math.min(inFlightMax * batchMax, Math.max(1, this.#board.size * nodesPerTask))) {
      this.#cutShort = true;
      return;
    }
    const { placements, refused } = this.#board.plan(this.#random, nowMs, tasksMax);
    this.#placeEach([...cut(placements)]);
    for (const each of refused) this.#unsaid.set(each.taskId, each);
    this.#tell(nowMs);
    // The plan was bounded.
    if (this.#board.isDue && this.#inFlight < inFlightMax) this.#planWithin(restMs);
  }

  /** One batch a turn: to put four of them together takes as long as a heartbeat may be late. */
  #placeEach([first, ...others]: readonly (readonly {
    readonly placement: Placement;
    readonly group: GroupFacts;
  }[])[]): void {
    if (first === undefined) return;
    this.#place(first);
    if (others.length === 0) return;
    const watch = this.#watch;
    this.#inFlight += others.length;
    this.#options.clock.after(0, () => {
      if (watch !== this.#watch) return;
      this.#inFlight -= others.length;
      this.#placeEach(others);
    });
  }

  #place(batch: readonly { readonly placement: Placement; readonly group: GroupFacts }[]): void {
    const put = (tx: Tx<ClusterSchema>): void => {
      for (const { placement, group } of batch) assign(tx, placement, group);
    };
    this.#commit(put, `${batch.length} tasks placed`, (error) => {
      if (error instanceof EntryTooLarge && batch.length > 1) for (const half of halves(batch)) this.#place(half);
      else for (const { placement } of batch) this.#board.unbook(placement.taskId);
    });
    for (const { placement } of batch) {
      this.#told.delete(placement.taskId);
      this.#unsaid.delete(placement.taskId);
    }
  }

  /** Writes the reasons that are new; those that only changed a little wait. */
  #tell(nowMs: number): void {
    const now: { readonly refused: Refused; readonly text: string }[] = [];
    let nextMs = Infinity;
    const nowMax = Math.max(0, inFlightMax - this.#inFlight) * batchMax;
    this.#cutShort = false;
    // Tasks of a group share the reason.
    const texts = new Map<Refused["reason"], string>();
    for (const refused of this.#unsaid.values()) {
      if (now.length >= nowMax) {
        this.#cutShort = true;
        break;
      }
      const text = texts.get(refused.reason) ?? JSON.stringify(refused.reason);
      texts.set(refused.reason, text);
      const told = this.#told.get(refused.taskId);
      if (told?.text === text) this.#unsaid.delete(refused.taskId);
      else if (told !== undefined && nowMs < told.atMs + rewriteMs) nextMs = Math.min(nextMs, told.atMs + rewriteMs);
      else {
        now.push({ refused, text });
        this.#unsaid.delete(refused.taskId);
        this.#told.set(refused.taskId, { text, atMs: nowMs });
      }
    }
    for (const batch of cut(now)) this.#write(batch.map(({ refused }) => refused));
    if (nextMs < Infinity) this.#planWithin(nextMs - nowMs);
  }

  #write(batch: readonly Refused[]): void {
    const write = (tx: Tx<ClusterSchema>): void => {
      for (const refused of batch) refuse(tx, refused);
    };
    this.#commit(write, "no suitable node", (error) => {
      if (error instanceof EntryTooLarge && batch.length > 1) {
        for (const half of halves(batch)) this.#write(half);
        return;
      }
      for (const refused of batch) {
        this.#told.delete(refused.taskId);
        if (!this.#unsaid.has(refused.taskId)) this.#unsaid.set(refused.taskId, refused);
      }
    });
  }

  #enforce(): void {
    let looked = 0;
    for (const nodeId of this.#toEnforce) {
      if (looked >= enforcedMax) return this.#planWithin(restMs);
      this.#toEnforce.delete(nodeId);
      const node = this.#board.node(nodeId);
      if (node === undefined) continue;
      looked += node.tasksTotal;
      const { store } = this.#options;
      const found = offenders(node.facts, this.#residents(nodeId));
      if (found.length === 0) continue;
      const reject = (tx: Tx<ClusterSchema>): void => {
        for (const offender of found) evict(tx, offender, nodeId);
      };
      store.transact(reject, { actor: "constraint enforcer", cause: `node ${nodeId} changed` }, ({ kind }) => {
        if (kind === "committed" || this.#watch === undefined) return;
        this.#toEnforce.add(nodeId);
        this.#planWithin(retryMs);
      });
    }
  }

  #residents(nodeId: string): readonly Resident[] {
    const view = this.#options.store.current();
    return this.#board.tasksOn(nodeId).flatMap((taskId): readonly Resident[] => {
      const task = view.get("task", taskId);
      const group = this.#board.groupOf(taskId);
      // What a successor has taken over is not counted twice.
      if (task === undefined || group === undefined || !isWanted(task)) return [];
      if (this.#board.node(nodeId)?.has(taskId) !== true) return [];
      // One that an update is to replace stays until then where it was placed.
      const isOld = this.#updating.has(task.serviceId) && this.#updating.get(task.serviceId) !== task.specVersion;
      const now = isOld ? undefined : this.#constraints.get(task.serviceId);
      const constraints = now ?? group.constraints;
      return [{ taskId, createdAtUs: task.meta?.createdAtUs ?? 0, constraints, group }];
    });
  }

  #commit(change: (tx: Tx<ClusterSchema>) => void, cause: string, undo: (error: Error) => void): void {
    const { store, logger } = this.#options;
    const watch = this.#watch;
    this.#inFlight++;
    store.transact(change, { actor: "scheduler", cause }, (outcome) => {
      if (watch !== this.#watch) return;
      this.#inFlight--;
      if (outcome.kind === "committed") {
        if (this.#board.isDue || this.#cutShort || !this.#isRead) this.#planWithin(restMs);
        return;
      }
      const { error } = outcome;
      undo(error);
      const quick = error instanceof Conflict || error instanceof EntryTooLarge;
      if (!quick && !(error instanceof Backpressure))
        logger.warn("placements could not be committed", { cause, error });
      this.#planWithin(quick ? restMs : error instanceof Backpressure ? error.retryAfterMs : retryMs);
    });
  }
}

// ------------------------------------------------------------------------------------------------------------- writing

/** The world may have moved since the plan: a task that does not wait any more is left as it is. */
function waits(task: Task | undefined): task is Task {
  return task?.status?.state === TaskState.PENDING && isWanted(task);
}

function assign(tx: Tx<ClusterSchema>, { taskId, nodeId, assigned }: Placement, group: GroupFacts): void {
  const task = tx.get("task", taskId);
  if (!waits(task)) return;
  const given = task.nodeId !== "";
  tx.edit("task", taskId, (draft) => {
    draft.nodeId = nodeId;
    draft.assignedGenericResources = [...genericResourcesOf(assigned, group.reserved)];
    draft.status = {
      state: TaskState.ASSIGNED,
      timestampUs: tx.timeUs,
      message: given ? "scheduler confirmed task can run on preassigned node" : "scheduler assigned task to node",
    };
  });
}

function refuse(tx: Tx<ClusterSchema>, { taskId, reason }: Refused): void {
  const task = tx.get("task", taskId);
  if (!waits(task)) return;
  const sinceUs = task.status?.reason?.noSuitableNode == null ? tx.timeUs : (task.status.reason.sinceUs ?? tx.timeUs);
  tx.edit("task", taskId, (draft) => {
    draft.status = {
      ...draft.status,
      timestampUs: tx.timeUs,
      message: "pending task scheduling",
      err: refusalText(reason),
      reason: reasonOf(reason, sinceUs),
    };
  });
}

function evict(tx: Tx<ClusterSchema>, { taskId, detail }: Offender, nodeId: string): void {
  const task = tx.get("task", taskId);
  if (task === undefined || !holdsPlace(task) || !isWanted(task)) return;
  const err = "assigned node no longer meets constraints";
  tx.edit("task", taskId, (draft) => {
    draft.desiredState = TaskState.SHUTDOWN;
    draft.status = {
      ...draft.status,
      state: TaskState.REJECTED,
      timestampUs: tx.timeUs,
      message: "task rejected by constraint enforcer",
      err,
      reason: {
        sinceUs: tx.timeUs,
        failure: {
          code: "TASK_EVICTED",
          detail: `${err}: node ${nodeId}: ${detail}`,
          fix: "Change the node's labels or resources, or the service's constraints or reservations",
        },
      },
    };
  });
}

function hasFailed({ status }: Task): boolean {
  // Told from an eviction by who reported it: the enforcer's is no fault of the task.
  const state = status?.state ?? TaskState.NEW;
  return (
    (state === TaskState.FAILED || state === TaskState.REJECTED) && status?.reason?.failure?.code !== "TASK_EVICTED"
  );
}

function isUnderWay({ state }: skep.objects.UpdateStatus.$Properties): boolean {
  const { UPDATING, UPDATE_PAUSED, ROLLBACK_STARTED, ROLLBACK_PAUSED } = skep.objects.UpdateState;
  return [UPDATING, UPDATE_PAUSED, ROLLBACK_STARTED, ROLLBACK_PAUSED].some((one) => one === state);
}

function halves<T>(batch: readonly T[]): readonly (readonly T[])[] {
  const half = Math.ceil(batch.length / 2);
  return [batch.slice(0, half), batch.slice(half)];
}

function* cut<T>(all: readonly T[]): IterableIterator<readonly T[]> {
  for (let at = 0; at < all.length; at += batchMax) yield all.slice(at, at + batchMax);
}

/** Whether a task may stay does not depend on these. */
const unjudged = { state: "ready", availability: "active", plugins: undefined, encrypts: false } as const;

function textOf(facts: NodeFacts): string {
  return JSON.stringify(facts, (_key, value: unknown) =>
    value instanceof Map || value instanceof Set ? [...value] : value,
  );
}
