/**
 * One agent's stream, as the leader serves it. What is to be said is kept by its kind and not as a queue: the newest word
 * of each replaces the one before while the other end does not read. So a slow agent costs no more than a fast one.
 */
import type { Clock, Timer } from "../../lib/runtime/index.ts";
import type { RpcStream } from "../../lib/rpc/index.ts";
import { skep, trustedRoots } from "../../proto/index.ts";
import { theCluster, type ClusterSchema, type View } from "../store/index.ts";
import { NodeAssignments, TableReader, type Due, type NeedKind, type Table, type Tables } from "./core/index.ts";

export type ManagerMessage = skep.dispatcher.ManagerMessage.$Properties;
export type AgentStream = Pick<RpcStream<ManagerMessage>, "write" | "end" | "abort" | "pause" | "resume" | "closed">;
type Assignment = skep.dispatcher.Assignment.$Properties;

/** What the session asks of the dispatcher. */
export interface SessionHost {
  readonly clock: Clock;
  view(): View<ClusterSchema>;
  managers(): skep.dispatcher.ManagerList.$Properties;
  readonly tables: Tables;
  /** The task goes on for a moment, whatever the store says; see Drains. */
  isHeld(taskId: string): boolean;
  /** The node does what this table says, as far as the reader has applied it. */
  applied(reader: TableReader): void;
  /** The node does not use this table any more. */
  gone(reader: TableReader): void;
  /** The session is over, and the node goes on with what it was told of this table. */
  parted(reader: TableReader, nodeId: string): void;
  /** The node does what a complete state of this leader says. */
  met(nodeId: string): void;
  /** What the session needs is not remembered any more: to be answered with startOver(). */
  lost(session: Session): void;
  /** It has something to say: to be answered with send(), soon. */
  due(session: Session): void;
  /** So many sessions that what can wait is to travel with what goes to the node anyway. */
  isCrowded(): boolean;
}

/** Changes go at once, with all that come in the same moment; what follows sooner than this waits and goes together. */
const restMs = 5;
const batchMax = 100;
/** Records are small, and come by the thousand. */
const messageMax = 4000;
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
  readonly #assignments: NodeAssignments;
  /** Tables that the node is told, by their networks; "": the nodes. */
  readonly #readers = new Map<string, TableReader>();
  /** Whose last news are in no message yet that has been numbered. */
  readonly #read = new Set<TableReader>();
  #hasDataPlane = false;
  /** The network of the mesh, which every node is told. */
  #ingress: string | undefined;
  #revision = 0;
  /** Of the first complete state. */
  #firstRevision = 0;
  #met = false;
  /** Taken from the assignments, and left over from a message that was full. */
  #rest: readonly Due[] = [];
  /** A complete state is being sent. */
  #completing = false;
  /** A complete state is asked for: changes go with it. */
  #asked = false;
  #node = false;
  #managers = false;
  #heartbeat: skep.dispatcher.HeartbeatAck.$Properties | undefined;
  #acks: number[] = [];
  /** Updates of the node that are not acknowledged: it says no more before it hears of one of two. */
  #updates = 0;
  /** The agent takes acknowledgements that travel with other messages. */
  takesAcks = false;
  readonly #answers: skep.dispatcher.AttachAnswer.$Properties[] = [];
  readonly #logs = new Map<string, skep.dispatcher.LogSubscription.$Properties>();
  #begun = false;
  #blocked = false;
  #paused = false;
  #ended = false;
  #timer: Timer | undefined;
  /** When changes went last. */
  #sentMs = -Infinity;

  constructor(id: string, nodeId: string, stream: AgentStream, host: SessionHost) {
    this.id = id;
    this.nodeId = nodeId;
    this.#stream = stream;
    this.#host = host;
    this.#assignments = new NodeAssignments((taskId) => host.isHeld(taskId));
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The node is registered: it is told everything. @returns how much that is */
  begin(welcome: skep.dispatcher.Welcome.$Properties): number {
    if (this.#ended) return 0;
    this.#begun = true;
    this.#write({ welcome });
    this.#node = true;
    this.#managers = true;
    return this.startOver();
  }

  /** Changes were missed: the node is told of what differs from what it was told. @returns how much there is of it */
  readAnew(): number {
    if (!this.#begun || this.#ended) return 0;
    const things = this.#readTasks();
    this.#assignments.touchNeeds();
    this.dataPlaneChanged();
    this.#schedule();
    return things;
  }

  /** @returns tasks of the node */
  #readTasks(): number {
    const seen = new Set<string>();
    for (const task of this.#host.view().find("task", "node", this.nodeId)) {
      seen.add(task.id);
      this.#assignments.setTask(task.id, task);
    }
    for (const id of this.#assignments.taskIds()) if (!seen.has(id)) this.#assignments.setTask(id, undefined);
    return seen.size;
  }

  /** The assignments are read anew, and sent as a complete state. @returns how much that is */
  startOver(): number {
    if (!this.#begun || this.#ended) return 0;
    const view = this.#host.view();
    this.#readTasks();
    this.#setDataPlane(view);
    this.#rest = this.#assignments.complete();
    this.#completing = true;
    this.#asked = false;
    this.#revision++;
    if (this.#firstRevision === 0) this.#firstRevision = this.#revision;
    this.#readTables(new Set(this.#rest.flatMap(({ kind, id }) => (kind === "network" ? [id] : []))));
    const things = this.#rest.length;
    this.#pump();
    return things;
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

  /** The node was told of a task what is true no more: it may hear it now. */
  taskReleased(): void {
    if (this.#begun) this.#schedule();
  }

  tableChanged(): void {
    if (this.#begun) this.#schedule();
  }

  /** What this node's data plane can do, or the network of the mesh, is another one. */
  dataPlaneChanged(): void {
    if (!this.#begun) return;
    const view = this.#host.view();
    const isSame = this.#hasDataPlane === hasDataPlane(view, this.nodeId) && this.#ingress === this.#wantedIngress();
    if (!isSame) this.#askAnew();
  }

  /** The node does what the messages up to this one say. */
  applied(revision: number): void {
    if (!this.#begun || this.#ended) return;
    for (const reader of this.#readers.values()) if (reader.acknowledge(revision)) this.#host.applied(reader);
    if (this.#met || revision < this.#firstRevision || this.#firstRevision === 0 || this.#completing) return;
    this.#met = true;
    this.#host.met(this.nodeId);
  }

  attachAnswer(answer: skep.dispatcher.AttachAnswer.$Properties): void {
    this.#answers.push(answer);
    this.#pump();
  }

  /** Answers to requests of the node that it has not read yet. */
  get answers(): number {
    return this.#answers.length;
  }

  nodeChanged(): void {
    this.#node = true;
    this.#host.due(this);
  }

  managersChanged(): void {
    this.#managers = true;
    this.#host.due(this);
  }

  /** It is this session's turn to say what waits. */
  send(): void {
    if (this.#ended || !this.#begun) return;
    const isRested = this.#sentMs + restMs <= this.#host.clock.monotonicMs();
    const sends = !this.#completing && (isRested || this.#due >= batchMax);
    // First, so that acknowledgements travel with them.
    if (sends) this.#sendChanges();
    this.#say();
    // What cannot be sent now, as of a task that is held, would be due again and again.
    if (!sends) this.#schedule();
  }

  acknowledgeHeartbeat(ack: skep.dispatcher.HeartbeatAck.$Properties): void {
    this.#heartbeat = ack;
    this.#pump();
  }

  /** An update of the node's tasks has come: to be answered with acknowledge(). */
  updateCame(): void {
    this.#updates++;
    // One that has been waiting for company keeps the node from saying more.
    if (this.#acks.length > 0) this.#host.due(this);
  }

  /**
   * What the update said is committed. Of a crowd, a node that has no other under way hears of it with the next message, at
   * the latest with the answer to its next heartbeat: to say so apart would cost as much as what it acknowledges.
   */
  acknowledge(number: number): void {
    this.#acks.push(number);
    // Perhaps they are too many, and the node is not read any more either.
    if (this.#blocked) return void this.#say();
    if (this.#updates < 2 && this.takesAcks && this.#host.isCrowded()) return;
    this.#host.due(this);
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
    this.end();
    this.farewell(code, message, leaderAddr);
  }

  /** Of a session that has ended. */
  farewell(code: string, message: string, leaderAddr: string): void {
    this.#stream.write({ goodbye: { code, message, leaderAddr } });
    this.#stream.end();
  }

  /** The stream is over, or is to be left alone. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const reader of this.#readers.values()) {
      reader.close();
      this.#host.parted(reader, this.nodeId);
    }
    this.#readers.clear();
    this.#read.clear();
  }

  /** The other end reads again. */
  drained(): void {
    this.#blocked = false;
    this.#pump();
  }

  // ---------------------------------------------------------------------------------------------------------- sending

  /** Sends a batch of assignments soon; see restMs. */
  #schedule(): void {
    const { clock } = this.#host;
    if (this.#ended || this.#blocked || this.#completing || this.#asked) return;
    const due = this.#due;
    if (due === 0) return;
    if (due >= batchMax) return this.#host.due(this);
    if (this.#timer !== undefined) return;
    const waitMs = this.#sentMs + restMs - clock.monotonicMs();
    if (waitMs <= 0) return this.#host.due(this);
    this.#timer = clock.after(waitMs, () => {
      this.#timer = undefined;
      this.#host.due(this);
    });
  }

  /** Says what waits, as long as the other end takes it. */
  #pump(): void {
    if (this.#ended || !this.#begun || !this.#say()) return;
    if (this.#completing) this.#sendComplete();
    else if (this.#due >= batchMax) this.#sendChanges();
    else this.#schedule();
  }

  /** The short things. @returns whether the other end takes more */
  #say(): boolean {
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
      return false;
    }
    if (this.#paused) {
      this.#paused = false;
      this.#stream.resume();
    }
    return true;
  }

  /** Things that the node has to hear of, or a few more. */
  get #due(): number {
    let due = this.#assignments.due + this.#rest.length;
    for (const reader of this.#readers.values()) if (reader.isBehind) due += reader.lag;
    return due;
  }

  /** The short things go before the assignments. */
  #next(): ManagerMessage | undefined {
    if (this.#heartbeat !== undefined) {
      const heartbeatAck = this.#heartbeat;
      this.#heartbeat = undefined;
      return this.#withAcks({ heartbeatAck });
    }
    if (this.#acks.length > 0) {
      if (this.takesAcks) return this.#withAcks({});
      this.#updates--;
      return { statusAck: { number: this.#acks.shift() ?? 0 } };
    }
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
    const attachAnswer = this.#answers.shift();
    if (attachAnswer !== undefined) return { attachAnswer };
    for (const [id, logs] of this.#logs) {
      this.#logs.delete(id);
      return { logs };
    }
    return undefined;
  }

  /** What waits of them travels with this message. */
  #withAcks(message: ManagerMessage): ManagerMessage {
    if (!this.takesAcks || this.#acks.length === 0) return message;
    message.acks = this.#acks;
    this.#updates -= this.#acks.length;
    this.#acks = [];
    return message;
  }

  #write(message: ManagerMessage): void {
    if (!this.#stream.write(message)) this.#blocked = true;
  }

  #sendComplete(): void {
    while (this.#completing && !this.#blocked && !this.#ended) {
      const changes = this.#gather(Infinity, ["records"]);
      const last = this.#rest.length === 0 && !this.#isBehind;
      this.#completing = !last;
      const revision = this.#revision;
      this.#write({ assignments: { kind: AssignmentsKind.COMPLETE, revision, changes, last } });
      this.#number(revision);
    }
    if (!this.#blocked) this.#schedule();
  }

  #sendChanges(): void {
    for (const reader of this.#readers.values()) if (reader.isLost) return this.#askAnew();
    while (!this.#blocked && !this.#ended && !this.#asked) {
      // A task hears nothing before the node knows what the task needs, and who is in its networks.
      const changes = this.#gather(batchMax, [
        () => this.#assignments.takeNeeds(batchMax),
        "records",
        () => this.#assignments.takeRest(batchMax),
      ]);
      if (changes.length === 0) return;
      this.#sentMs = this.#host.clock.monotonicMs();
      const appliesTo = this.#revision;
      const revision = ++this.#revision;
      const assignments = { kind: AssignmentsKind.INCREMENTAL, appliesTo, revision, changes, last: true };
      this.#write(this.#withAcks({ assignments }));
      this.#number(revision);
    }
  }

  #askAnew(): void {
    if (this.#asked) return;
    this.#asked = true;
    this.#host.lost(this);
  }

  /**
   * As much as goes into one message, what was left over of the last one first. What comes later in the list comes only
   * when nothing is left of what is earlier.
   */
  #gather(thingsMax: number, sources: readonly ((() => readonly Due[]) | "records")[]): Assignment[] {
    const changes: Assignment[] = [];
    let bytes = 0;
    let things = 0;
    const add = (change: Assignment): boolean => {
      bytes += change.task == null ? roughBytes(change) : roughTaskBytes(change.task);
      changes.push(change);
      return bytes < messageBytes && changes.length < messageMax;
    };
    /** @returns whether the message is full */
    const addRest = (): boolean => {
      let hasRoom = things < thingsMax;
      let at = 0;
      for (; at < this.#rest.length && hasRoom; at++) {
        const due = this.#rest[at] as Due;
        if (due.kind === "network") this.#readTable(due);
        // What is gone by now is due for removal already.
        const change = due.removed ? removal(due.kind, due.id) : this.#assignment(due);
        if (change !== undefined) hasRoom = add(change) && ++things < thingsMax;
      }
      this.#rest = this.#rest.slice(at);
      return !hasRoom;
    };
    if (addRest()) return changes;
    for (const source of sources) {
      if (source === "records") {
        for (const reader of this.#readers.values()) {
          if (!reader.isBehind) continue;
          this.#read.add(reader);
          let hasRoom = true;
          reader.read((item) => (hasRoom = add(item)));
          if (!hasRoom) return changes;
        }
        continue;
      }
      for (this.#rest = source(); this.#rest.length > 0; this.#rest = source()) if (addRest()) return changes;
    }
    return changes;
  }

  /** What was read is in this message. */
  #number(revision: number): void {
    for (const reader of this.#read) reader.sent(revision);
    this.#read.clear();
  }

  /** The object as it is now. */
  #assignment({ kind, id }: Due): Assignment | undefined {
    const view = this.#host.view();
    if (kind !== "task") {
      const object = view.get(kind, id);
      return object === undefined ? undefined : { [kind]: object };
    }
    const task = view.get("task", id);
    if (task === undefined) return undefined;
    return { task: withLogDriver(this.#host.isHeld(id) ? asServing(task) : task, view) };
  }

  // ----------------------------------------------------------------------------------------------------------- tables

  get #isBehind(): boolean {
    for (const reader of this.#readers.values()) if (reader.isBehind) return true;
    return false;
  }

  #wantedIngress(): string | undefined {
    return this.#hasDataPlane ? this.#host.tables.ingress : undefined;
  }

  #setDataPlane(view: View<ClusterSchema>): void {
    this.#hasDataPlane = hasDataPlane(view, this.nodeId);
    const ingress = this.#wantedIngress();
    if (ingress === this.#ingress) return;
    if (ingress !== undefined) this.#assignments.keep("network", ingress);
    if (this.#ingress !== undefined) this.#assignments.unkeep("network", this.#ingress);
    this.#ingress = ingress;
  }

  /** From the beginning, and of these networks only. */
  #readTables(networkIds: ReadonlySet<string>): void {
    const wanted = this.#hasDataPlane ? new Set([peersId, ...networkIds]) : new Set<string>();
    for (const id of Array.from(this.#readers.keys())) if (!wanted.has(id)) this.#closeReader(id);
    for (const reader of this.#readers.values()) reader.startOver();
    for (const id of wanted) this.#openReader(id);
  }

  /** A network is told, or is to be forgotten: the node drops the records of a network with it. */
  #readTable({ id, removed }: Due): void {
    if (removed) this.#closeReader(id);
    else if (this.#hasDataPlane) this.#openReader(id);
  }

  #openReader(id: string): void {
    if (this.#readers.has(id)) return;
    const { tables } = this.#host;
    const table: Table = id === peersId ? tables.peers : tables.table(id);
    this.#readers.set(id, new TableReader(table, () => this.tableChanged()));
  }

  #closeReader(id: string): void {
    const reader = this.#readers.get(id);
    if (reader === undefined) return;
    this.#readers.delete(id);
    this.#read.delete(reader);
    reader.close();
    this.#host.gone(reader);
  }
}

const peersId = "";

function hasDataPlane(view: View<ClusterSchema>, nodeId: string): boolean {
  return view.get("node", nodeId)?.description?.network != null;
}

/** As its node was told until now. */
function asServing(task: Readonly<skep.objects.Task>): Readonly<skep.objects.Task> {
  const { RUNNING, SHUTDOWN } = skep.objects.TaskState;
  const state = task.status?.state ?? 0;
  const status = state > RUNNING ? { ...task.status, state: RUNNING } : task.status;
  const desiredState = task.desiredState >= SHUTDOWN ? RUNNING : task.desiredState;
  return { ...task, desiredState, status } as Readonly<skep.objects.Task>;
}

function removal(kind: Due["kind"], id: string): Assignment {
  return { removed: true, [kind]: { id } };
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

/** Of the specs that tasks share. */
const specBytes = new WeakMap<object, number>();

function roughTaskBytes(task: skep.objects.Task.$Properties): number {
  const { spec, ...own } = task;
  if (spec == null) return roughBytes(own);
  let bytes = specBytes.get(spec);
  if (bytes === undefined) {
    bytes = roughBytes(spec);
    specBytes.set(spec, bytes);
  }
  return bytes + roughBytes(own);
}

/** Texts and bytes of a message; the rest is small beside them. */
function roughBytes(value: unknown): number {
  if (typeof value === "string" || value instanceof Uint8Array) return value.length + 4;
  if (typeof value !== "object" || value === null) return 4;
  let bytes = 4;
  for (const each of Object.values(value)) bytes += roughBytes(each);
  return bytes;
}
