/**
 * The shell: keeps a book of each service from a watch, asks the core what is due, and commits its moves. It decides
 * nothing. One round a service is in flight at a time, and the next is decided only when the book has what the last one
 * did; services do not wait for each other.
 */
import type { skep } from "../../proto/index.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import {
  follow,
  inSlices,
  Backpressure,
  Conflict,
  type Change,
  type ClusterSchema,
  type Follower,
  type Outcome,
  type Store,
  type Tx,
  type View,
  type Watch,
  type WatchEvent,
} from "../store/index.ts";
import {
  dismantle,
  historyDefault,
  holdReason,
  isLost,
  keepsTasks,
  newTask,
  nodeFacts,
  reconcile,
  serviceFacts,
  takesTasks,
  UpdateState,
  type Move,
  type NodeFacts,
  type ServiceFacts,
  type Step,
  type UpdateChange,
} from "./core/index.ts";
import { LeaderTime } from "./leader-time.ts";
import { ServiceBook } from "./service-book.ts";

export interface OrchestratorOptions {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  /** A fresh object id. */
  readonly newId: () => string;
  readonly logger: Logger;
}

/** Half of what an entry may have: an edited task stands in it whole. */
const entryBytes = 512 * 1024;
const stepsMax = 250;
/**
 * Steps under way at once, of all services. More would not be faster, and whoever else writes would wait behind them; to
 * decide all that a large cluster may have due at once would keep the process from its heartbeats.
 */
const stepsInFlightMax = 1500;
/** Steps that are put into the log in one turn, some more when an entry has them. */
const stepsTurnMax = 500;
/** Tasks that are judged in one turn, some more when a service has them: a new leader judges all that there are. */
const judgedMax = 4000;
/** What an entry costs beside its steps. */
const stepsOfEntry = 10;
const retryMs = 1000;
/** A book of many tasks takes long to judge; it is given a rest of so many times as long, up to a second. */
const restFactor = 4;

const actor = "orchestrator";

export class Orchestrator {
  readonly #options: OrchestratorOptions;
  readonly #books = new Map<string, ServiceBook>();
  readonly #nodes = new Map<string, NodeFacts>();
  readonly #nodeTexts = new Map<string, string>();
  readonly #servicesOn = new Map<string, Map<string, number>>();
  readonly #due = new Set<string>();
  readonly #inFlight = new Map<string, number>();
  #stepsInFlight = 0;
  #stepsThisTurn = 0;
  readonly #wakes = new Map<string, number>();
  #historyMax = historyDefault;
  #watch: Watch<ClusterSchema> | undefined;
  #follower: Follower<ClusterSchema> | undefined;
  #time: LeaderTime | undefined;
  #timer: Timer | undefined;
  #timerAtUs = Infinity;
  /** Goes on with what is due in a turn of its own. */
  #laterDue = false;

  constructor(options: OrchestratorOptions) {
    this.#options = options;
  }

  /** To be called when this member leads, and has applied everything before its term. */
  start(): void {
    const { store, clock } = this.#options;
    if (this.#watch !== undefined) return;
    this.#time = new LeaderTime(clock, store.current().timeUs);
    this.#watch = store.watch({ kinds: ["service", "task", "node", "cluster"] });
    const later = (act: () => void): void => void clock.after(0, act);
    this.#follower = follow(this.#watch, this.#read, () => this.#work(), later);
  }

  /** What is in flight may still be committed; nothing new is decided. */
  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#timerAtUs = Infinity;
    this.#forget();
    this.#due.clear();
    this.#inFlight.clear();
    this.#stepsInFlight = 0;
    this.#wakes.clear();
    this.#follower = undefined;
    this.#laterDue = false;
    this.#stepsThisTurn = 0;
  }

  // --------------------------------------------------------------------------------------------------------- reading

  readonly #read = (event: WatchEvent<ClusterSchema>): Iterator<void> | void => {
    if (event.kind === "view") return this.#readView(event.view);
    for (const change of event.changes) this.#readChange(change);
    return undefined;
  };

  *#readView(view: View<ClusterSchema>): Generator<void, void> {
    const nowUs = this.#nowUs;
    for (const cluster of view.list("cluster")) this.#setCluster(cluster);
    const nodes = new Set<string>();
    yield* inSlices(view.list("node"), (node) => {
      nodes.add(node.id);
      this.#setNode(node.id, node);
    });
    for (const id of this.#nodes.keys()) if (!nodes.has(id)) this.#setNode(id, undefined);
    const services = new Set<string>();
    for (const service of view.list("service")) {
      services.add(service.id);
      this.#book(service.id).setService(service);
    }
    const tasks = new Set<string>();
    yield* inSlices(view.list("task"), (task) => {
      tasks.add(task.id);
      this.#setTask(task, nowUs, true);
    });
    for (const book of this.#books.values()) {
      if (!services.has(book.id)) book.setService(undefined);
      for (const id of book.tasks.keys()) if (!tasks.has(id)) this.#removeTask(book.id, id);
      this.#due.add(book.id);
    }
  }

  #readChange(change: Change<ClusterSchema>): void {
    switch (change.kind) {
      case "cluster":
        if (change.after !== undefined) this.#setCluster(change.after);
        return;
      case "node":
        return this.#setNode(change.id, change.after);
      case "service":
        this.#book(change.id).setService(change.after);
        this.#due.add(change.id);
        return;
      case "task": {
        const { after } = change;
        if (after !== undefined) this.#setTask(after, this.#nowUs, false);
        else if (change.before !== undefined) this.#removeTask(change.before.serviceId, change.id);
        return;
      }
      case "network":
      case "secret":
      case "config":
      case "volume":
      case "resource":
      case "extension":
        return;
    }
  }

  #setCluster(cluster: skep.objects.Cluster.$Properties): void {
    const max = cluster.spec?.orchestration?.taskHistoryRetentionLimit ?? historyDefault;
    if (max === this.#historyMax) return;
    this.#historyMax = max;
    for (const id of this.#books.keys()) this.#due.add(id);
  }

  /** Nodes change often (what they have applied, say); only what is judged counts. */
  #setNode(id: string, node: skep.objects.Node.$Properties | undefined): void {
    const facts = node === undefined ? undefined : nodeFacts(node);
    const text = facts === undefined ? "" : textOf(facts);
    const isSame = text === (this.#nodeTexts.get(id) ?? "");
    const before = this.#nodes.get(id);
    if (facts === undefined) {
      this.#nodes.delete(id);
      this.#nodeTexts.delete(id);
    } else {
      this.#nodes.set(id, facts);
      this.#nodeTexts.set(id, text);
    }
    // Tasks stay on a node whose connection breaks, and it may have some of every service there is.
    if (!isSame) for (const serviceId of this.#servicesOn.get(id)?.keys() ?? []) this.#due.add(serviceId);
    const tookTasks = before !== undefined && takesTasks(before);
    if (isSame && tookTasks === (facts !== undefined && takesTasks(facts))) return;
    for (const book of this.#books.values()) {
      const mode = book.facts?.mode.kind;
      if (mode === "global" || mode === "globalJob") this.#due.add(book.id);
    }
  }

  #setTask(task: skep.objects.Task.$Properties, nowUs: number, isView: boolean): void {
    const serviceId = task.serviceId ?? "";
    // A container that was attached to a network by hand is no service's.
    if (serviceId === "") return;
    const book = this.#book(serviceId);
    const id = task.id ?? "";
    const before = book.tasks.get(id)?.nodeId;
    const nodeId = this.#nodes.get(task.nodeId ?? "")?.id ?? task.nodeId ?? "";
    if (book.setTask(task, nowUs, isView, nodeId)) this.#due.add(serviceId);
    this.#count(serviceId, before, nodeId);
  }

  #removeTask(serviceId: string, id: string): void {
    const book = this.#books.get(serviceId);
    const nodeId = book?.tasks.get(id)?.nodeId;
    if (book?.removeTask(id) !== true) return;
    this.#count(serviceId, nodeId, "");
    this.#due.add(serviceId);
  }

  #count(serviceId: string, before: string | undefined, now: string): void {
    if (before === now) return;
    if (before !== undefined && before !== "") {
      const services = this.#servicesOn.get(before);
      const left = (services?.get(serviceId) ?? 0) - 1;
      if (left > 0) services?.set(serviceId, left);
      else services?.delete(serviceId);
    }
    if (now === "") return;
    const services = this.#servicesOn.get(now) ?? new Map<string, number>();
    services.set(serviceId, (services.get(serviceId) ?? 0) + 1);
    this.#servicesOn.set(now, services);
  }

  #book(id: string): ServiceBook {
    const known = this.#books.get(id);
    if (known !== undefined) return known;
    const book = new ServiceBook(id);
    this.#books.set(id, book);
    return book;
  }

  #forget(): void {
    this.#books.clear();
    this.#nodes.clear();
    this.#nodeTexts.clear();
    this.#servicesOn.clear();
  }

  get #nowUs(): number {
    return this.#time?.nowUs() ?? 0;
  }

  // --------------------------------------------------------------------------------------------------------- deciding

  #work(): void {
    if (this.#watch === undefined || this.#follower?.catchUp() === false) return;
    const nowUs = this.#nowUs;
    for (const [id, atUs] of this.#wakes) if (atUs <= nowUs) this.#due.add(id);
    let judged = 0;
    // What settles at once may add to it; that is for the next round.
    for (const id of Array.from(this.#due)) {
      if (this.#inFlight.has(id)) continue;
      // The others' turn comes when one of those entries is settled, or with the next turn.
      if (this.#isFull) break;
      if (judged >= judgedMax) {
        this.#workLater();
        break;
      }
      this.#due.delete(id);
      this.#wakes.delete(id);
      const book = this.#books.get(id);
      if (book === undefined) continue;
      judged += book.tasks.size;
      if (book.isEmpty) this.#books.delete(id);
      else this.#decide(book);
    }
    this.#arm();
  }

  #workLater(): void {
    if (this.#laterDue) return;
    this.#laterDue = true;
    const watch = this.#watch;
    this.#options.clock.after(0, () => {
      if (watch !== this.#watch) return;
      this.#laterDue = false;
      this.#stepsThisTurn = 0;
      if (this.#due.size > 0) this.#work();
    });
  }

  get #isFull(): boolean {
    return this.#stepsInFlight >= stepsInFlightMax || this.#stepsThisTurn >= stepsTurnMax;
  }

  #decide(book: ServiceBook): void {
    const { clock } = this.#options;
    const startMs = clock.monotonicMs();
    const service: ServiceFacts = book.facts ?? serviceFacts({ id: book.id });
    const situation = {
      service,
      tasks: [...book.tasks.values()],
      nodes: this.#nodes,
      differenceFrom: (specVersion: number) => book.differenceFrom(specVersion),
      historyMax: this.#historyMax,
      nowUs: this.#nowUs,
    };
    const { moves, wakeAtUs } = book.facts === undefined ? dismantle(situation, false) : reconcile(situation);
    if (wakeAtUs !== undefined) this.#wakes.set(book.id, wakeAtUs);
    for (const part of parts(moves, book.taskBytes)) {
      // What is left of a large service is decided again when these are settled.
      if (this.#isFull) break;
      this.#commit(book, service, part);
    }
    const restMs = Math.min(1000, restFactor * (clock.monotonicMs() - startMs));
    if (restMs >= 1 && moves.length === 0) this.#pause(book.id, restMs);
  }

  /** Keeps a service from being judged again for a while, as if something of it were in flight. */
  #pause(id: string, ms: number): void {
    this.#start(id);
    const watch = this.#watch;
    this.#options.clock.after(ms, () => {
      if (watch === this.#watch) this.#end(id);
    });
  }

  #start(id: string): void {
    this.#inFlight.set(id, (this.#inFlight.get(id) ?? 0) + 1);
  }

  #end(id: string): void {
    const left = (this.#inFlight.get(id) ?? 1) - 1;
    if (left > 0) this.#inFlight.set(id, left);
    else this.#inFlight.delete(id);
    this.#work();
  }

  #commit(book: ServiceBook, service: ServiceFacts, moves: readonly Move[]): void {
    const { store } = this.#options;
    const watch = this.#watch;
    const nowUs = this.#nowUs;
    this.#start(book.id);
    const cost = moves.reduce((sum, { steps }) => sum + steps.length, stepsOfEntry);
    this.#stepsInFlight += cost;
    this.#stepsThisTurn += cost;
    this.#workLater();
    const change = (tx: Tx<ClusterSchema>): void => {
      const now = tx.get("service", book.id);
      // Decided by a spec that has changed since: what to do now is for the next round.
      if (book.facts !== undefined && now?.specVersion !== service.specVersion) return;
      for (const { steps } of moves) for (const step of steps) this.#apply(tx, step, now, nowUs);
    };
    const cause = moves[0]?.cause ?? "";
    store.transact(change, { actor, cause }, (outcome) => {
      if (watch !== this.#watch) return;
      this.#stepsInFlight -= cost;
      this.#settled(book.id, outcome);
    });
  }

  #settled(id: string, outcome: Outcome<void>): void {
    if (outcome.kind === "committed") {
      this.#due.add(id);
      return this.#end(id);
    }
    const { error } = outcome;
    const ms = error instanceof Conflict ? 0 : error instanceof Backpressure ? error.retryAfterMs : retryMs;
    if (ms === retryMs) this.#options.logger.warn("a service's tasks could not be brought to order", { id, error });
    const watch = this.#watch;
    const again = (): void => {
      if (watch !== this.#watch) return;
      this.#due.add(id);
      this.#end(id);
    };
    if (ms === 0) again();
    else this.#options.clock.after(ms, again);
  }

  #arm(): void {
    let firstUs = Infinity;
    // What is in flight is looked at when it is over; to wake for it before would be to wake again and again at once.
    if (!this.#isFull)
      for (const [id, atUs] of this.#wakes) if (!this.#inFlight.has(id)) firstUs = Math.min(firstUs, atUs);
    if (firstUs === this.#timerAtUs) return;
    this.#timer?.cancel();
    this.#timerAtUs = firstUs;
    if (firstUs === Infinity) return;
    this.#timer = this.#options.clock.after(Math.ceil((firstUs - this.#nowUs) / 1000), () => {
      this.#timerAtUs = Infinity;
      this.#work();
    });
  }

  // ---------------------------------------------------------------------------------------------------------- writing

  #apply(
    tx: Tx<ClusterSchema>,
    step: Step,
    service: skep.objects.Service.$Properties | undefined,
    nowUs: number,
  ): void {
    switch (step.kind) {
      case "create":
        if (service !== undefined) tx.create("task", newTask(service, step.task, { id: this.#options.newId(), nowUs }));
        return;
      case "desire": {
        const task = tx.get("task", step.taskId);
        if (task === undefined || (task.desiredState >= step.state && step.hold === undefined)) return;
        tx.edit("task", step.taskId, (draft) => {
          if (draft.desiredState < step.state) draft.desiredState = step.state;
          if (step.hold === undefined) return;
          const max = service?.spec?.taskTemplate?.restartPolicy?.maxAttempts ?? 0;
          draft.hold = holdReason(step.hold, nowUs, max);
        });
        return;
      }
      case "counted":
        if (tx.has("task", step.taskId))
          tx.edit("task", step.taskId, (draft) => {
            draft.updateId = 0;
          });
        return;
      case "remove":
        if (tx.has("task", step.taskId)) tx.remove("task", step.taskId);
        return;
      case "updateStatus":
        if (service !== undefined) setStatus(tx, service, step.status, nowUs);
        return;
      case "rollBack":
        if (service !== undefined) rollBack(tx, service, step.message, nowUs);
        return;
      case "removeService":
        if (service !== undefined) tx.remove("service", service.id ?? "");
        return;
    }
  }
}

function setStatus(
  tx: Tx<ClusterSchema>,
  service: skep.objects.Service.$Properties,
  status: UpdateChange,
  nowUs: number,
): void {
  const over = status.state === UpdateState.UPDATE_COMPLETED || status.state === UpdateState.ROLLBACK_COMPLETED;
  tx.edit("service", service.id ?? "", (draft) => {
    const before = draft.updateStatus;
    const same = before != null && (before.updateId === draft.specVersion || before.updateId === 0);
    // Why it began is what everybody asks while it goes on.
    const goesBack = same && status.state === UpdateState.ROLLBACK_STARTED && before.state === status.state;
    draft.updateStatus = {
      ...status,
      message: goesBack && before.message ? before.message : status.message,
      updateId: draft.specVersion,
      startedAtUs: same && before.startedAtUs ? before.startedAtUs : nowUs,
      completedAtUs: over ? nowUs : 0,
    };
  });
}

function rollBack(
  tx: Tx<ClusterSchema>,
  service: skep.objects.Service.$Properties,
  message: string,
  nowUs: number,
): void {
  tx.edit("service", service.id ?? "", (draft) => {
    const [spec, ...others] = draft.previousSpecs;
    if (spec === undefined) return;
    draft.spec = spec;
    draft.previousSpecs = others;
    draft.specVersion++;
    // Without a version: the update takes it over, and counts the slots itself.
    draft.updateStatus = { state: UpdateState.ROLLBACK_STARTED, startedAtUs: nowUs, message };
  });
}

/** Moves, cut where an entry would become too large; one move is never cut. */
function* parts(moves: readonly Move[], taskBytes: number): IterableIterator<readonly Move[]> {
  const max = Math.max(1, Math.min(stepsMax, Math.floor(entryBytes / taskBytes)));
  let part: Move[] = [];
  let size = 0;
  for (const move of moves) {
    if (part.length > 0 && size + move.steps.length > max) {
      yield part;
      part = [];
      size = 0;
    }
    part.push(move);
    size += move.steps.length;
  }
  if (part.length > 0) yield part;
}

/** Changes with all that says whether tasks stay on the node. */
function textOf(facts: NodeFacts): string {
  const { labels, engineLabels, ...others } = facts.traits;
  return JSON.stringify([keepsTasks(facts), isLost(facts), others, [...labels], [...engineLabels]]);
}
