/**
 * The shell: keeps the ledger from a watch, asks it for what networks, services and tasks wait for, and commits that. What
 * cannot be had carries the reason, and is asked for again as soon as something is given back.
 */
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { asksForNothing, frameAddressOf, needsEndpoint, skep } from "../../proto/index.ts";
import {
  follow,
  inSlices,
  networkedTasks,
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
  isLow,
  Ledger,
  NodeNumbers,
  numbersFull,
  type NetworkGrant,
  type Pressure,
  type Refusal,
  type TaskGrant,
} from "./core/index.ts";

export interface AllocatorOptions {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A fresh object id. */
  readonly newId: () => string;
}

type Task = Readonly<skep.objects.Task>;
type Service = Readonly<skep.objects.Service>;

const { TaskState } = skep.objects;
const actor = "allocator";
const batchMax = 200;
/** Of one entry: a node carries its certificate and its description. */
const nodesMax = 50;
/**
 * Entries under way at once. More would not be faster, and whoever else writes would wait behind them; to decide for all
 * that a large cluster may have waiting in one turn would keep the process from its heartbeats.
 */
const entriesMax = 4;
const retryMs = 1000;
const warnMs = 1000;
/** A task that a manager has ended may run on until its node hears of it: its addresses are kept for so long. */
const keptMs = 60_000;

/** Of each node's own: records by which services ask for them, and nothing is allocated. */
const predefined = [
  ["bridge", "bridge"],
  ["host", "host"],
  ["none", "null"],
] as const;

/** A reason that is to be written. */
interface Unsaid {
  readonly what: string;
  readonly text: string;
  readonly write: (tx: Tx<ClusterSchema>) => void;
}

interface NumberGiven {
  readonly id: string;
  readonly number: number;
}

interface Placed {
  readonly id: string;
  /** Undefined: nothing is allocated to it. */
  readonly grant: TaskGrant | undefined;
}

export class Allocator {
  readonly #options: AllocatorOptions;
  #watch: Watch<ClusterSchema> | undefined;
  #follower: Follower<ClusterSchema> | undefined;
  #ledger = new Ledger();
  #numbers = new NodeNumbers();
  /** Asked for with the next look. */
  readonly #networks = new Set<string>();
  readonly #services = new Set<string>();
  readonly #tasks = new Set<string>();
  /** Nodes without a number. */
  readonly #nodes = new Set<string>();
  /** Networks of which it is said that few addresses are left, and those of which that is being said. */
  readonly #low = new Set<string>();
  readonly #saying = new Set<string>();
  /** Refused, until something is given back. */
  readonly #refusedNetworks = new Set<string>();
  readonly #refusedServices = new Set<string>();
  readonly #refusedTasks = new Set<string>();
  readonly #refusedNodes = new Set<string>();
  #releasesSeen = 0;
  /** Tasks that wait for their service to have what it asks for. */
  readonly #ofService = new Map<string, Set<string>>();
  readonly #inFlight = new Set<string>();
  /** What was written last, so that nothing is written twice. */
  readonly #told = new Map<string, string>();
  readonly #unsaid = new Map<string, Unsaid>();
  #entries = 0;
  /** The ledger has all that was given: what the store has, and what this room has under way. */
  #isRead = false;
  readonly #leaving = new Set<string>();
  readonly #kept = new Map<string, Timer>();
  #warning: Timer | undefined;
  #predefinedDue = true;

  constructor(options: AllocatorOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#watch !== undefined) return;
    this.#watch = this.#options.store.watch({ kinds: ["network", "service", "task", "cluster", "node"] });
    const later = (act: () => void): void => void this.#options.clock.after(0, act);
    this.#isRead = false;
    this.#follower = follow(this.#watch, this.#read, () => this.#work(), later);
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
    this.#follower = undefined;
    this.#entries = 0;
    this.#forget();
  }

  #forget(): void {
    this.#ledger = new Ledger();
    this.#numbers = new NodeNumbers();
    for (const set of [this.#nodes, this.#low, this.#saying]) set.clear();
    this.#releasesSeen = 0;
    for (const set of [this.#networks, this.#services, this.#tasks, this.#inFlight, this.#leaving]) set.clear();
    for (const set of [this.#refusedNetworks, this.#refusedServices, this.#refusedTasks]) set.clear();
    this.#refusedNodes.clear();
    this.#ofService.clear();
    this.#told.clear();
    this.#unsaid.clear();
    this.#warning?.cancel();
    this.#warning = undefined;
    for (const timer of this.#kept.values()) timer.cancel();
    this.#kept.clear();
    this.#predefinedDue = true;
  }

  // ---------------------------------------------------------------------------------------------------------- reading

  readonly #read = (event: WatchEvent<ClusterSchema>): Iterator<void> | void => {
    if (event.kind === "view") return this.#readView(event.view);
    for (const change of event.changes) this.#readChange(change);
    return undefined;
  };

  /** First everything that is given already, so that nothing is given twice. */
  *#readView(view: View<ClusterSchema>): Generator<void, void> {
    this.#forget();
    this.#isRead = false;
    yield* this.#readNodes(view);
    for (const cluster of view.list("cluster")) this.#ledger.setCluster(cluster);
    for (const network of view.list("network")) this.#setNetwork(network);
    const services = [...view.list("service")];
    for (const service of services) this.#ledger.setService(service);
    for (const service of services) this.#setService(service);
    yield* inSlices(networkedTasks(view), (task) => this.#setTask(task));
    const waiting: { readonly id: string; readonly createdAtUs: number }[] = [];
    yield* inSlices(view.find("task", "state", String(TaskState.NEW)), ({ id, meta }) => {
      waiting.push({ id, createdAtUs: meta?.createdAtUs ?? 0 });
    });
    // Those that came first are served first.
    waiting.sort((a, b) => a.createdAtUs - b.createdAtUs);
    for (const { id } of waiting) this.#tasks.add(id);
  }

  #readChange(change: Change<ClusterSchema>): void {
    switch (change.kind) {
      case "cluster":
        if (change.after !== undefined) this.#ledger.setCluster(change.after);
        return;
      case "network":
        if (change.after !== undefined) return this.#setNetwork(change.after);
        this.#networks.delete(change.id);
        this.#low.delete(change.id);
        this.#refusedNetworks.delete(change.id);
        this.#leaving.delete(change.id);
        return this.#ledger.removeNetwork(change.id);
      case "service":
        if (change.after !== undefined) return this.#setService(change.after);
        this.#services.delete(change.id);
        this.#refusedServices.delete(change.id);
        this.#told.delete(change.id);
        this.#wakeTasks(change.id);
        return this.#ledger.removeService(change.id);
      case "task":
        if (change.after !== undefined) return this.#setTask(change.after);
        this.#tasks.delete(change.id);
        this.#refusedTasks.delete(change.id);
        this.#told.delete(change.id);
        return this.#release(change.id);
      case "node":
        return this.#setNode(change.id, change.after);
      case "secret":
      case "config":
      case "volume":
      case "resource":
      case "extension":
        return;
    }
  }

  /** Whoever came first keeps its number. */
  *#readNodes(view: View<ClusterSchema>): Generator<void, void> {
    const nodes: Readonly<skep.objects.Node>[] = [];
    yield* inSlices(view.list("node"), (node) => void nodes.push(node));
    nodes.sort((a, b) => (a.meta?.createdAtUs ?? 0) - (b.meta?.createdAtUs ?? 0) || (a.id < b.id ? -1 : 1));
    yield* inSlices(nodes, (node) => this.#setNode(node.id, node));
  }

  #setNode(id: string, node: Readonly<skep.objects.Node> | undefined): void {
    if (node === undefined) {
      this.#nodes.delete(id);
      // Then there is one for whoever waits.
      if (this.#numbers.release(id)) for (const waiting of this.#refusedNodes) this.#nodes.add(waiting);
      this.#refusedNodes.delete(id);
      return;
    }
    if (this.#numbers.claim(node.number, id)) {
      this.#nodes.delete(id);
      this.#refusedNodes.delete(id);
      return;
    }
    // It is looked at again when a number is free.
    if (node.number === 0 && this.#refusedNodes.has(id)) return;
    if (node.number !== 0) {
      const owner = this.#numbers.owner(node.number);
      this.#options.logger.error("a node's number is not its own; it gets another", { id, number: node.number, owner });
    }
    this.#nodes.add(id);
  }

  #setNetwork(network: Readonly<skep.objects.Network>): void {
    if (network.vni !== 0 && !this.#saying.has(network.id)) {
      if (network.reason?.addressPoolFull != null) this.#low.add(network.id);
      else this.#low.delete(network.id);
    }
    if (this.#ledger.setNetwork(network)) this.#networks.add(network.id);
    else this.#refusedNetworks.delete(network.id);
    if (network.pendingDelete) this.#leaving.add(network.id);
  }

  #setService(service: Service): void {
    this.#wakeTasks(service.id);
    // What is on its way to it is booked already, and not in this version of it.
    if (this.#inFlight.has(service.id)) this.#services.add(service.id);
    else if (this.#ledger.setService(service)) {
      if (service.reason != null) this.#services.add(service.id);
      else this.#refusedServices.delete(service.id);
    } else this.#services.add(service.id);
  }

  #setTask(task: Task): void {
    const state = task.status?.state ?? TaskState.NEW;
    if (state === TaskState.NEW) {
      this.#tasks.add(task.id);
      return;
    }
    if (state <= TaskState.RUNNING) return this.#ledger.setTask(task);
    if (task.networksAttachments.length === 0 || this.#kept.has(task.id)) return;
    const byNode = task.status?.appliedBy !== "" || task.nodeId === "" || state === TaskState.ORPHANED;
    if (byNode) return this.#release(task.id);
    this.#ledger.setTask(task);
    const timer = this.#options.clock.after(keptMs, () => {
      this.#release(task.id);
      this.#work();
    });
    this.#kept.set(task.id, timer);
  }

  #wakeTasks(serviceId: string): void {
    for (const taskId of this.#ofService.get(serviceId) ?? []) this.#tasks.add(taskId);
    this.#ofService.delete(serviceId);
  }

  #release(taskId: string): void {
    this.#kept.get(taskId)?.cancel();
    this.#kept.delete(taskId);
    this.#ledger.removeTask(taskId);
  }

  // --------------------------------------------------------------------------------------------------------- deciding

  #work(): void {
    if (this.#watch === undefined) return;
    // What is not read yet is given to somebody already; and so is what was under way when a view was taken, which shows
    // only in the changes after it.
    if (!this.#isRead) this.#isRead = this.#entries === 0 && (this.#follower?.catchUp() ?? true);
    if (!this.#isRead) return;
    const view = this.#options.store.current();
    if (this.#predefinedDue) this.#makePredefined(view);
    if (this.#ledger.releases !== this.#releasesSeen) {
      this.#releasesSeen = this.#ledger.releases;
      move(this.#refusedNetworks, this.#networks);
      move(this.#refusedServices, this.#services);
      move(this.#refusedTasks, this.#tasks);
    }
    this.#grantNumbers(view);
    this.#grantNetworks(view);
    this.#grantServices(view);
    this.#grantTasks(view);
    this.#sayReasons();
    for (const pressure of this.#ledger.pressures()) this.#warn(view, pressure);
    for (const id of this.#leaving) this.#removeNetwork(view, id);
  }

  /** What is left is looked at when one of the entries under way is settled. */
  get #isFull(): boolean {
    return this.#entries >= entriesMax;
  }

  #grantNumbers(view: View<ClusterSchema>): void {
    const given: NumberGiven[] = [];
    const refused: string[] = [];
    const nodesNow = Math.max(0, entriesMax - this.#entries - 1) * nodesMax;
    for (const id of this.#nodes) {
      if (given.length + refused.length >= nodesNow) break;
      if (this.#inFlight.has(id)) continue;
      this.#nodes.delete(id);
      const node = view.get("node", id);
      if (node === undefined || this.#numbers.owner(node.number) === id) continue;
      const number = this.#numbers.take(id);
      if (number !== undefined) {
        this.#refusedNodes.delete(id);
        given.push({ id, number });
        continue;
      }
      this.#refusedNodes.add(id);
      if (node.number !== 0 || node.reason == null) refused.push(id);
    }
    this.#refuseNodes(refused);
    for (let at = 0; at < given.length; at += nodesMax) this.#numberNodes(given.slice(at, at + nodesMax));
  }

  #numberNodes(given: readonly NumberGiven[]): void {
    const write = (tx: Tx<ClusterSchema>, { id, number }: NumberGiven): void => {
      if (!tx.has("node", id)) return;
      tx.edit("node", id, (draft) => {
        draft.number = number;
        draft.reason = null;
      });
    };
    this.#commitEach("nodes are numbered", given, write, ({ id }) => {
      this.#numbers.release(id);
      this.#nodes.add(id);
    });
  }

  #refuseNodes(ids: readonly string[]): void {
    if (ids.length === 0) return;
    this.#warnOfNumbers();
    const { used } = this.#numbers;
    const write = (tx: Tx<ClusterSchema>, { id }: { readonly id: string }): void =>
      refuseNode(tx, id, numbersFull(used));
    for (let at = 0; at < ids.length; at += nodesMax) {
      const part = ids.slice(at, at + nodesMax).map((id) => ({ id }));
      this.#commitEach("nodes have no number", part, write, ({ id }) => {
        if (this.#refusedNodes.delete(id)) this.#nodes.add(id);
      });
    }
  }

  /** One line for all that come within a while. */
  #warnOfNumbers(): void {
    this.#warning ??= this.#options.clock.after(warnMs, () => {
      this.#warning = undefined;
      this.#options.logger.warn("nodes have no number: every one is in use, so networks cannot reach them", {
        nodes: this.#refusedNodes.size,
        used: this.#numbers.used,
      });
    });
  }

  /** Said when few addresses are left, and taken back when there are enough again. */
  #warn(view: View<ClusterSchema>, pressure: Pressure): void {
    const { networkId: id, name, subnets, size, used } = pressure;
    const wasLow = this.#low.has(id);
    const low = isLow(pressure, wasLow);
    if (low === wasLow || this.#saying.has(id) || this.#inFlight.has(id)) return;
    const network = view.get("network", id);
    if (network === undefined || network.vni === 0) return;
    const { store, logger } = this.#options;
    const watch = this.#watch;
    if (low) {
      this.#low.add(id);
      logger.warn("few addresses of a network are left", { network: name, subnets, size, used });
    } else this.#low.delete(id);
    this.#saying.add(id);
    const write = (tx: Tx<ClusterSchema>): void => {
      if (!tx.has("network", id)) return;
      const addressPoolFull = { networkId: id, subnet: subnets, size, used };
      tx.edit("network", id, (draft) => {
        draft.reason = low ? { sinceUs: tx.timeUs, addressPoolFull } : null;
      });
    };
    store.transact(write, { actor, cause: `addresses of network ${id}` }, ({ kind }) => {
      if (watch !== this.#watch) return;
      this.#saying.delete(id);
      if (kind === "committed") return;
      // Looked at again with the next work.
      if (low) this.#low.delete(id);
      else this.#low.add(id);
    });
  }

  #grantNetworks(view: View<ClusterSchema>): void {
    for (const id of this.#networks) {
      if (this.#isFull) break;
      const network = view.get("network", id);
      if (this.#inFlight.has(id)) continue;
      this.#networks.delete(id);
      if (network === undefined || network.vni !== 0 || network.pendingDelete) continue;
      const answer = this.#ledger.grantNetwork(network);
      if (answer.kind === "refused") {
        this.#refusedNetworks.add(id);
        this.#tell(`network ${id}`, id, answer.refusal, (tx) => refuseNetwork(tx, id, answer.refusal));
        continue;
      }
      const write = (tx: Tx<ClusterSchema>): void => openNetwork(tx, id, answer.grant);
      this.#commit(`network ${id}`, [id], write, () => {
        this.#ledger.takeBackNetwork(id);
        this.#networks.add(id);
      });
    }
  }

  #grantServices(view: View<ClusterSchema>): void {
    for (const id of this.#services) {
      if (this.#isFull) break;
      if (this.#inFlight.has(id)) continue;
      this.#services.delete(id);
      const service = view.get("service", id);
      if (service === undefined) continue;
      const isSettled = this.#ledger.setService(service);
      if (isSettled) this.#wakeTasks(id);
      if (isSettled && service.reason == null) continue;
      const answer = this.#ledger.grantService(service);
      if (answer.kind === "refused") {
        this.#refusedServices.add(id);
        this.#tell(`service ${id}`, id, answer.refusal, (tx) => refuseService(tx, id, answer.refusal));
        continue;
      }
      this.#told.delete(id);
      const { specVersion } = service;
      const write = (tx: Tx<ClusterSchema>): void => {
        // Asked for by a spec that has changed since: the next look asks for what it says now.
        if (tx.get("service", id)?.specVersion !== specVersion) return;
        tx.edit("service", id, (draft) => {
          draft.endpoint = answer.grant;
          draft.reason = null;
        });
      };
      this.#commit(`service ${id}`, [id], write, () => this.#services.add(id));
    }
  }

  #grantTasks(view: View<ClusterSchema>): void {
    let batch: Placed[] = [];
    /** Nobody else gets an address of these in this round. */
    const full = new Map<string, Refusal>();
    const refusals: { readonly id: string; readonly refusal: Refusal }[] = [];
    for (const id of this.#tasks) {
      if (this.#isFull || refusals.length >= entriesMax * batchMax) break;
      if (this.#inFlight.has(id)) continue;
      const task = view.get("task", id);
      if (task?.status?.state !== TaskState.NEW || task.desiredState >= TaskState.SHUTDOWN) {
        this.#tasks.delete(id);
        continue;
      }
      const service = task.serviceId === "" ? undefined : view.get("service", task.serviceId);
      if (asksForNothing(task, service)) {
        this.#tasks.delete(id);
        batch.push({ id, grant: undefined });
      } else if (service !== undefined && this.#waitsFor(service)) {
        this.#tasks.delete(id);
        const waiting = this.#ofService.get(service.id) ?? new Set();
        this.#ofService.set(service.id, waiting.add(id));
        if (service.reason != null)
          refusals.push({ id, refusal: { reason: service.reason, text: textOfService(service) } });
      } else {
        this.#tasks.delete(id);
        const refusal = (task.spec?.networks ?? []).map(({ target }) => full.get(target ?? "")).find((each) => each);
        if (refusal !== undefined) {
          this.#refusedTasks.add(id);
          refusals.push({ id, refusal });
          continue;
        }
        const answer = this.#ledger.grantTask(task, service);
        if (answer.kind === "granted") batch.push({ id, grant: answer.grant });
        else {
          this.#refusedTasks.add(id);
          if (answer.refusal.full !== undefined) full.set(answer.refusal.full, answer.refusal);
          refusals.push({ id, refusal: answer.refusal });
        }
      }
      if (batch.length < batchMax) continue;
      this.#passTasks(batch);
      batch = [];
    }
    if (batch.length > 0) this.#passTasks(batch);
    for (const { id, refusal } of refusals) this.#tell(`task ${id}`, id, refusal, (tx) => refuseTask(tx, id, refusal));
  }

  #passTasks(placed: readonly Placed[]): void {
    this.#commitEach("tasks may be placed", placed, pass, ({ id, grant }) => {
      if (grant !== undefined) this.#ledger.removeTask(id);
      this.#tasks.add(id);
    });
  }

  #waitsFor(service: Service): boolean {
    if (!needsEndpoint(service)) return false;
    return this.#inFlight.has(service.id) || this.#refusedServices.has(service.id) || !this.#ledger.setService(service);
  }

  /** The reason is written when it is another one than before. */
  #tell(what: string, id: string, { text }: Refusal, write: (tx: Tx<ClusterSchema>) => void): void {
    if (this.#told.get(id) === text) return void this.#unsaid.delete(id);
    this.#unsaid.set(id, { what, text, write });
  }

  #sayReasons(): void {
    while (this.#unsaid.size > 0 && !this.#isFull) {
      const part = new Map<string, Unsaid>();
      for (const [id, unsaid] of this.#unsaid) {
        if (part.size >= batchMax) break;
        this.#unsaid.delete(id);
        this.#told.set(id, unsaid.text);
        part.set(id, unsaid);
      }
      this.#say([...part]);
    }
  }

  #say(part: readonly (readonly [string, Unsaid])[]): void {
    const { store, logger } = this.#options;
    const watch = this.#watch;
    const [first] = part;
    const cause = part.length > 1 || first === undefined ? `${part.length} reasons to wait` : `${first[1].what} waits`;
    const write = (tx: Tx<ClusterSchema>): void => {
      for (const [, unsaid] of part) unsaid.write(tx);
    };
    this.#entries++;
    store.transact(write, { actor, cause }, (outcome) => {
      if (watch !== this.#watch) return;
      this.#entries--;
      if (outcome.kind === "committed") return this.#again(0, () => {});
      if (outcome.error instanceof EntryTooLarge && part.length > 1) {
        const half = Math.ceil(part.length / 2);
        this.#say(part.slice(0, half));
        return this.#say(part.slice(half));
      }
      for (const [id] of part) this.#told.delete(id);
      logger.warn("reasons could not be written", { cause, error: outcome.error });
      this.#again(retryMs, () => {
        for (const [id] of part) this.#retellable(id);
      });
    });
  }

  #retellable(id: string): void {
    if (this.#refusedTasks.delete(id)) this.#tasks.add(id);
    if (this.#refusedServices.delete(id)) this.#services.add(id);
    if (this.#refusedNetworks.delete(id)) this.#networks.add(id);
  }

  /** In one entry, or in several where that would be too large. */
  #commitEach<T extends { readonly id: string }>(
    what: string,
    items: readonly T[],
    write: (tx: Tx<ClusterSchema>, item: T) => void,
    undo: (item: T) => void,
  ): void {
    const ids = items.map(({ id }) => id);
    const writeAll = (tx: Tx<ClusterSchema>): void => {
      for (const item of items) write(tx, item);
    };
    this.#commit(`${items.length} ${what}`, ids, writeAll, (error) => {
      if (error instanceof EntryTooLarge && items.length > 1) {
        const half = Math.ceil(items.length / 2);
        this.#commitEach(what, items.slice(0, half), write, undo);
        this.#commitEach(what, items.slice(half), write, undo);
      } else items.forEach(undo);
    });
  }

  /** @param undo  it is certain that nothing of it is committed, or at least to be asked for again */
  #commit(
    cause: string,
    ids: readonly string[],
    write: (tx: Tx<ClusterSchema>) => void,
    undo: (error: Error) => void,
  ): void {
    const { store, logger } = this.#options;
    const watch = this.#watch;
    for (const id of ids) this.#inFlight.add(id);
    this.#entries++;
    store.transact(write, { actor, cause }, (outcome) => {
      if (watch !== this.#watch) return;
      this.#entries--;
      for (const id of ids) this.#inFlight.delete(id);
      // What waited for it is looked at with the watch, which shows the change after this.
      if (outcome.kind === "committed") return this.#again(0, () => {});
      const { error } = outcome;
      if (outcome.kind === "failed") undo(error);
      const quick = error instanceof Conflict || (error instanceof EntryTooLarge && ids.length > 1);
      const ms = quick ? 0 : error instanceof Backpressure ? error.retryAfterMs : retryMs;
      if (ms === retryMs) logger.warn("could not be allocated; tried again soon", { cause, error });
      this.#again(ms, outcome.kind === "failed" ? () => {} : () => undo(error));
    });
  }

  #again(ms: number, before: () => void): void {
    const watch = this.#watch;
    this.#options.clock.after(ms, () => {
      if (watch !== this.#watch) return;
      before();
      const { size } = this.#tasks;
      if (!this.#isRead || size + this.#networks.size + this.#services.size + this.#nodes.size + this.#unsaid.size > 0)
        this.#work();
    });
  }

  /** Made with the cluster. An operator may remove the ingress network later, and it stays removed. */
  #makePredefined(view: View<ClusterSchema>): void {
    if (view.count("cluster") === 0) return;
    this.#predefinedDue = false;
    const missing = predefined.filter(([name]) => view.first("network", "name", name) === undefined);
    if (missing.length === 0) return;
    const isFounding = missing.length === predefined.length && view.first("network", "name", "ingress") === undefined;
    const { newId } = this.#options;
    const write = (tx: Tx<ClusterSchema>): void => {
      for (const [name, driver] of missing)
        if (tx.first("network", "name", name) === undefined)
          tx.create("network", { id: newId(), spec: { name, driver: { name: driver }, scope: "local" } });
      if (isFounding && tx.first("network", "name", "ingress") === undefined)
        tx.create("network", {
          id: newId(),
          spec: { ...ingressSpec, ...(carriedBy6(view) ? { enableIpv6: true } : {}) },
        });
    };
    this.#commit("networks that every cluster has", [], write, () => (this.#predefinedDue = true));
  }

  /** A network that was removed goes when nothing runs in it any more. */
  #removeNetwork(view: View<ClusterSchema>, id: string): void {
    if (this.#inFlight.has(id) || !isUnused(view, id)) return;
    const write = (tx: Tx<ClusterSchema>): void => {
      if (tx.get("network", id)?.pendingDelete === true && isUnused(tx, id)) tx.remove("network", id);
    };
    this.#commit(`network ${id} is removed`, [id], write, () => {});
  }
}

const ingressSpec: skep.objects.NetworkSpec.$Properties = {
  name: "ingress",
  driver: { name: "overlay" },
  ingress: true,
  scope: "swarm",
};

/** Who asks for published ports of hosts that reach each other by IPv6 may have nothing else. */
const carriedBy6 = (view: View<ClusterSchema>): boolean =>
  [...view.list("node")].some((node) => frameAddressOf(node)?.includes(":") === true);

function move(from: Set<string>, to: Set<string>): void {
  for (const id of from) to.add(id);
  from.clear();
}

function isUnused(view: View<ClusterSchema>, networkId: string): boolean {
  for (const { status } of view.find("task", "network", networkId))
    if ((status?.state ?? TaskState.NEW) <= TaskState.RUNNING) return false;
  return true;
}

// ------------------------------------------------------------------------------------------------------------- writing

function openNetwork(tx: Tx<ClusterSchema>, id: string, grant: NetworkGrant): void {
  const network = tx.get("network", id);
  if (network === undefined || network.vni !== 0) return;
  tx.edit("network", id, (draft) => {
    draft.ipam = grant.ipam;
    draft.vni = grant.vni;
    draft.driverState = grant.driverState;
    draft.reason = null;
  });
}

function refuseNetwork(tx: Tx<ClusterSchema>, id: string, { reason }: Refusal): void {
  if (!tx.has("network", id)) return;
  tx.edit("network", id, (draft) => {
    draft.reason = { ...reason, sinceUs: draft.reason?.sinceUs ?? tx.timeUs };
  });
}

function refuseNode(tx: Tx<ClusterSchema>, id: string, reason: skep.objects.Reason.$Properties): void {
  if (!tx.has("node", id)) return;
  tx.edit("node", id, (draft) => {
    draft.number = 0;
    draft.reason = { ...reason, sinceUs: draft.reason?.sinceUs ?? tx.timeUs };
  });
}

function refuseService(tx: Tx<ClusterSchema>, id: string, { reason }: Refusal): void {
  if (!tx.has("service", id)) return;
  tx.edit("service", id, (draft) => {
    draft.reason = { ...reason, sinceUs: draft.reason?.sinceUs ?? tx.timeUs };
  });
}

function refuseTask(tx: Tx<ClusterSchema>, id: string, { reason, text }: Refusal): void {
  const task = tx.get("task", id);
  if (task?.status?.state !== TaskState.NEW) return;
  tx.edit("task", id, (draft) => {
    draft.status = {
      ...draft.status,
      timestampUs: tx.timeUs,
      message: "pending allocation",
      err: text,
      reason: { ...reason, sinceUs: tx.timeUs },
    };
  });
}

function pass(tx: Tx<ClusterSchema>, { id, grant }: Placed): void {
  const task = tx.get("task", id);
  if (task?.status?.state !== TaskState.NEW) return;
  tx.edit("task", id, (draft) => {
    draft.status = {
      state: TaskState.PENDING,
      timestampUs: tx.timeUs,
      message: "pending task scheduling",
      // One that is asked to run waits for nothing: its hold is over, and kept for its attempt number.
      reason: draft.desiredState === TaskState.READY ? (draft.hold ?? null) : null,
    };
    if (grant === undefined) return;
    draft.networksAttachments = [...grant.attachments];
    draft.endpoint = grant.endpoint;
  });
}

function textOfService({ spec, reason }: Service): string {
  const cause =
    reason?.portInUse != null ? "a port that it publishes is in use" : "its networks have no address for it";
  return `Cannot give the task its place in service ${spec?.name ?? ""}: ${cause}`;
}
