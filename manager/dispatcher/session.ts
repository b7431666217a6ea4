/**
 * One agent's stream, as the leader serves it. What is to be said is kept by its kind and not as a queue: the newest word
 * of each replaces the one before while the other end does not read. So a slow agent costs no more than a fast one.
 */
import type { Clock, Timer } from "../../lib/runtime/index.ts";
import type { RpcStream } from "../../lib/rpc/index.ts";
import { skep, trustedRoots } from "../../proto/index.ts";
import { theCluster, type ClusterSchema, type View } from "../store/index.ts";
import { NodeAssignments, type Due, type NeedKind } from "./core/index.ts";

export type ManagerMessage = skep.dispatcher.ManagerMessage.$Properties;
export type AgentStream = Pick<RpcStream<ManagerMessage>, "write" | "end" | "abort" | "pause" | "resume" | "closed">;
type Assignment = skep.dispatcher.Assignment.$Properties;

/** What the session asks of the dispatcher. */
export interface SessionHost {
  readonly clock: Clock;
  view(): View<ClusterSchema>;
  managers(): skep.dispatcher.ManagerList.$Properties;
}

/** A batch goes when nothing has come for this long, when it is full, or when its first change is this old. */
const quietMs = 5;
const batchMs = 100;
const batchMax = 100;
/** Of one message, roughly; a single object may be larger (a config has up to 1000 KiB). */
const messageBytes = 1024 * 1024;
/** Acknowledgements that wait because the agent does not read; beyond, it is not read either. */
const acksMax = 1000;

const { AssignmentsKind } = skep.dispatcher;

export class Session {
  readonly id: string;
  readonly nodeId: string;
  readonly #host: SessionHost;
  readonly #stream: AgentStream;
  readonly #assignments = new NodeAssignments();
  #revision = 0;
  /** What is left of a complete state that is being sent. */
  #complete: readonly Due[] | undefined;
  #node = false;
  #managers = false;
  #heartbeat: skep.dispatcher.HeartbeatAck.$Properties | undefined;
  #acks: number[] = [];
  readonly #logs = new Map<string, skep.dispatcher.LogSubscription.$Properties>();
  #begun = false;
  #blocked = false;
  #paused = false;
  #ended = false;
  #timer: Timer | undefined;
  #timerAtMs = 0;
  #firstDueMs = 0;

  constructor(id: string, nodeId: string, stream: AgentStream, host: SessionHost) {
    this.id = id;
    this.nodeId = nodeId;
    this.#stream = stream;
    this.#host = host;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The node is registered: it is told everything. */
  begin(welcome: skep.dispatcher.Welcome.$Properties): void {
    if (this.#ended) return;
    this.#begun = true;
    this.#write({ welcome });
    this.#node = true;
    this.#managers = true;
    this.startOver();
  }

  /** The assignments are read anew, and sent as a complete state. */
  startOver(): void {
    if (!this.#begun) return;
    const view = this.#host.view();
    const seen = new Set<string>();
    for (const task of view.find("task", "node", this.nodeId)) {
      seen.add(task.id);
      this.#assignments.setTask(task.id, task);
    }
    for (const { kind, id } of this.#assignments.complete())
      if (kind === "task" && !seen.has(id)) this.#assignments.setTask(id, undefined);
    this.#complete = this.#assignments.complete();
    this.#revision++;
    this.#pump();
  }

  taskChanged(id: string): void {
    if (!this.#begun) return;
    const task = this.#host.view().get("task", id);
    this.#assignments.setTask(id, task?.nodeId === this.nodeId ? task : undefined);
    this.#schedule();
  }

  needChanged(kind: NeedKind, id: string): void {
    if (this.#begun && this.#assignments.touch(kind, id)) this.#schedule();
  }

  nodeChanged(): void {
    this.#node = true;
    this.#pump();
  }

  managersChanged(): void {
    this.#managers = true;
    this.#pump();
  }

  acknowledgeHeartbeat(ack: skep.dispatcher.HeartbeatAck.$Properties): void {
    this.#heartbeat = ack;
    this.#pump();
  }

  acknowledge(number: number): void {
    this.#acks.push(number);
    this.#pump();
  }

  subscribeLogs(subscription: skep.dispatcher.LogSubscription.$Properties): void {
    const id = subscription.id ?? "";
    const waiting = this.#logs.get(id);
    this.#logs.set(id, { ...subscription, tasks: [...(waiting?.tasks ?? []), ...(subscription.tasks ?? [])] });
    this.#pump();
  }

  /** The last word: why, and where to go. */
  goodbye(code: string, message: string, leaderAddr = ""): void {
    if (this.#ended) return;
    this.#stream.write({ goodbye: { code, message, leaderAddr } });
    this.end();
    this.#stream.end();
  }

  /** The stream is over, or is to be left alone. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** The other end reads again. */
  drained(): void {
    this.#blocked = false;
    this.#pump();
  }

  // ---------------------------------------------------------------------------------------------------------- sending

  /** Sends a batch of assignments soon; see quietMs. */
  #schedule(): void {
    const { clock } = this.#host;
    if (this.#ended || this.#blocked || this.#complete !== undefined) return;
    const { due } = this.#assignments;
    if (due === 0) return;
    const nowMs = clock.monotonicMs();
    if (due >= batchMax) return this.#pump();
    if (this.#timer === undefined) this.#firstDueMs = nowMs;
    const atMs = Math.min(nowMs + quietMs, this.#firstDueMs + batchMs);
    if (this.#timer !== undefined && atMs <= this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = clock.after(atMs - nowMs, () => {
      this.#timer = undefined;
      this.#sendChanges();
    });
  }

  /** Says what waits, as long as the other end takes it. */
  #pump(): void {
    if (this.#ended || !this.#begun) return;
    while (!this.#blocked) {
      const message = this.#next();
      if (message === undefined) break;
      this.#write(message);
    }
    if (this.#blocked) {
      if (this.#acks.length > acksMax && !this.#paused) {
        this.#paused = true;
        this.#stream.pause();
      }
      return;
    }
    if (this.#paused) {
      this.#paused = false;
      this.#stream.resume();
    }
    if (this.#complete !== undefined) this.#sendComplete();
    else if (this.#assignments.due >= batchMax) this.#sendChanges();
    else this.#schedule();
  }

  /** The short things go before the assignments. */
  #next(): ManagerMessage | undefined {
    if (this.#heartbeat !== undefined) {
      const heartbeatAck = this.#heartbeat;
      this.#heartbeat = undefined;
      return { heartbeatAck };
    }
    const number = this.#acks.shift();
    if (number !== undefined) return { statusAck: { number } };
    if (this.#node) {
      this.#node = false;
      const view = this.#host.view();
      const node = view.get("node", this.nodeId);
      if (node !== undefined) return { node: { node, roots: trustedRoots(theCluster(view)?.rootCa) } };
    }
    if (this.#managers) {
      this.#managers = false;
      return { managers: this.#host.managers() };
    }
    for (const [id, logs] of this.#logs) {
      this.#logs.delete(id);
      return { logs };
    }
    return undefined;
  }

  #write(message: ManagerMessage): void {
    if (!this.#stream.write(message)) this.#blocked = true;
  }

  #sendComplete(): void {
    while (this.#complete !== undefined && !this.#blocked && !this.#ended) {
      const { changes, left } = this.#read(this.#complete);
      this.#complete = left.length === 0 ? undefined : left;
      const last = this.#complete === undefined;
      this.#write({ assignments: { kind: AssignmentsKind.COMPLETE, revision: this.#revision, changes, last } });
    }
    if (!this.#blocked) this.#schedule();
  }

  #sendChanges(): void {
    while (!this.#blocked && !this.#ended) {
      let due = this.#assignments.take(batchMax);
      if (due.length === 0) return;
      while (due.length > 0) {
        const { changes, left } = this.#read(due);
        due = left;
        const appliesTo = this.#revision;
        const revision = ++this.#revision;
        this.#write({ assignments: { kind: AssignmentsKind.INCREMENTAL, appliesTo, revision, changes, last: true } });
      }
    }
  }

  /** The objects as they are now, as many as go into one message. What is gone by now is due for removal already. */
  #read(due: readonly Due[]): { readonly changes: Assignment[]; readonly left: readonly Due[] } {
    const view = this.#host.view();
    const changes: Assignment[] = [];
    let bytes = 0;
    let at = 0;
    for (; at < due.length && bytes < messageBytes; at++) {
      const { kind, id, removed } = due[at] as Due;
      const change = removed ? removal(kind, id) : assignment(view, kind, id);
      if (change === undefined) continue;
      bytes += roughBytes(change);
      changes.push(change);
    }
    return { changes, left: due.slice(at) };
  }
}

function removal(kind: Due["kind"], id: string): Assignment {
  return { removed: true, [kind]: { id } };
}

function assignment(view: View<ClusterSchema>, kind: Due["kind"], id: string): Assignment | undefined {
  if (kind !== "task") {
    const object = view.get(kind, id);
    return object === undefined ? undefined : { [kind]: object };
  }
  const task = view.get("task", id);
  if (task === undefined) return undefined;
  return { task: withLogDriver(task, view) };
}

/** The cluster's log driver is for tasks whose spec names none. */
function withLogDriver(task: Readonly<skep.objects.Task>, view: View<ClusterSchema>): skep.objects.Task.$Properties {
  if (task.spec?.logDriver != null) return task;
  for (const cluster of view.list("cluster")) {
    const logDriver = cluster.spec?.taskDefaults?.logDriver;
    if (logDriver != null && logDriver.name !== "") return { ...task, spec: { ...task.spec, logDriver } };
  }
  return task;
}

/** Texts and bytes of a message; the rest is small beside them. */
function roughBytes(value: unknown): number {
  if (typeof value === "string" || value instanceof Uint8Array) return value.length + 4;
  if (typeof value !== "object" || value === null) return 4;
  let bytes = 4;
  for (const each of Object.values(value)) bytes += roughBytes(each);
  return bytes;
}
