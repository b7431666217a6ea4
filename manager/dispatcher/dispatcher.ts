/**
 * The shell: sessions of agents, the state of each node, what nodes say of their tasks. Runs on the leader; on another
 * manager every agent is told at once where to go.
 */
import { isIP } from "node:net";

import { hostOf } from "../../lib/pure/address.ts";
import type { Random } from "../../lib/pure/prng.ts";
import type { RpcServer, StreamEvents } from "../../lib/rpc/index.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { sessionMethod, skep, trustedRoots } from "../../proto/index.ts";
import {
  follow,
  inSlices,
  networkedTasks,
  supportedLevel,
  theCluster,
  type Change,
  type ClusterSchema,
  type Store,
  type Tx,
  type View,
  type Watch,
  type WatchEvent,
} from "../store/index.ts";
import { Attachments } from "./attachments.ts";
import { BatchWriter } from "./batch-writer.ts";
import {
  accepted,
  Arrivals,
  downAtMs,
  Drains,
  graceMs,
  isAgentState,
  jittered,
  mayRegister,
  orphanedAfterMs,
  periodDefaultMs,
  periodMs,
  quietMs,
  Tables,
  unknownGraceMs,
  waitForCrowdMs,
} from "./core/index.ts";
import { SessionInvalid } from "./errors.ts";
import { Session, type AgentStream, type SessionHost } from "./session.ts";

export interface DispatcherOptions {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Names sessions. */
  readonly newId: () => string;
  /** All managers, as agents reach them. */
  readonly managers: () => readonly skep.dispatcher.ManagerAddress.$Properties[];
  /** For tests, which have few sessions. */
  readonly crowd?: CrowdLimits;
}

export interface CrowdLimits {
  /** From so many sessions on, what can wait does. */
  readonly crowdMin: number;
  /** Sessions that are written to in one turn. */
  readonly sendsTurnMax: number;
}

/** Who is at the other end of a stream. */
export interface AgentPeer {
  /** Of the certificate. */
  readonly nodeId: string;
  /** IP of the connection; empty for a socket of this host. */
  readonly address: string;
}

/** What others (the log broker) learn of sessions and may say through them. */
export interface SessionListener {
  started(nodeId: string): void;
  ended(nodeId: string): void;
}

type AgentMessage = skep.dispatcher.AgentMessage.$Properties;
type Description = skep.objects.NodeDescription.$Properties;
type NodeState = skep.objects.NodeState;

const { NodeState, TaskState } = skep.objects;
const protocolVersion = 1;
const descriptionBytesMax = 64 * 1024;
const orphansMax = 100;
const retryMs = 1000;
/** A verdict that comes later than this was held up, and so may be what would have averted it. */
const lateMsMax = 50;
/** Things that sessions read anew, or are told as a complete state, in one turn; some more when a node has them. */
const thingsTurnMax = 800;
/** What a session costs beside them. */
const thingsOfSession = 100;
const crowdDefaults: CrowdLimits = {
  // What can wait travels with what goes to the node anyway: a write of its own costs as much.
  crowdMin: 500,
  // Each costs the better part of a tenth of a millisecond, and what has to wait for its turn goes in fewer messages.
  sendsTurnMax: 100,
};

/** What is to be written to a node's object. */
interface NodeEdit {
  readonly state?: NodeState;
  readonly message?: string;
  readonly addr?: string;
  readonly description?: Description;
  readonly session?: Session;
}

interface StatusEdit {
  readonly nodeId: string;
  readonly status: skep.objects.TaskStatus.$Properties;
  readonly reports: readonly Report[];
}

/** One status message of an agent: acknowledged when all of it is written. */
interface Report {
  readonly session: Session;
  readonly number: number;
  left: number;
}

/** A node as this leader follows it. */
interface Followed {
  session: Session | undefined;
  /** See Heard of the core. */
  beatMs: number;
  graceMs: number;
  wordMs: number;
  periodMs: number;
  timer: Timer | undefined;
  timerAtMs: number;
  orphanTimer: Timer | undefined;
  readonly registrations: number[];
  /** Of what is pushed to it. */
  pushed: string;
}

export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #crowd: CrowdLimits;
  readonly #nodes = new Map<string, Followed>();
  readonly #nodeWriter: BatchWriter<NodeEdit>;
  readonly #statusWriter: BatchWriter<StatusEdit>;
  readonly #host: SessionHost;
  readonly #listeners = new Set<SessionListener>();
  readonly #attachments: Attachments;
  /** Both are made anew with each leadership. */
  #tables = new Tables();
  #drains = new Drains();
  #drainTimer: Timer | undefined;
  /** Sessions that are to be told everything, or to read it; each says how many things that were. */
  readonly #beginning: (() => number)[] = [];
  #thingsThisTurn = 0;
  #turnIsDue = false;
  /** Sessions that have something to say; the first of them come first. */
  readonly #sending = new Set<Session>();
  #sendIsDue = false;
  /** Goodbyes of a leader that is none any more. */
  readonly #leaving: (() => void)[] = [];
  /** What an earlier leader left is read: sessions may begin. */
  #isRead = false;
  readonly #arrivals = new Arrivals();
  #sessions = 0;
  #watch: Watch<ClusterSchema> | undefined;
  #periodMs = periodDefaultMs;
  /** Whom every node is told to trust. */
  #roots = "";

  constructor(options: DispatcherOptions) {
    const { store, clock, logger } = options;
    this.#options = options;
    this.#crowd = options.crowd ?? crowdDefaults;
    const tables = (): Tables => this.#tables;
    this.#host = {
      clock,
      view: () => store.current(),
      managers: () => ({ managers: [...options.managers()] }),
      get tables() {
        return tables();
      },
      isHeld: (taskId) => this.#drains.isHeld(taskId),
      applied: (reader) => this.#releaseTasks(this.#drains.applied(reader)),
      gone: (reader) => this.#releaseTasks(this.#drains.gone(reader)),
      parted: (reader, nodeId) => {
        if (isAway(store.current().get("node", nodeId))) this.#releaseTasks(this.#drains.gone(reader));
        else this.#drains.parted(reader, nodeId);
      },
      met: (nodeId) => this.#releaseTasks(this.#drains.met(nodeId)),
      lost: (session) => this.#confirmed(session, () => session.startOver()),
      due: (session) => this.#sendSoon(session),
      isCrowded: () => this.#sessions >= this.#crowd.crowdMin,
    };
    this.#attachments = new Attachments({ store, clock, logger, newId: options.newId });
    const common = { store, clock, logger };
    this.#nodeWriter = new BatchWriter<NodeEdit>({
      ...common,
      cause: "node state",
      entryMax: 100,
      apply: editNode,
      merge: (older, newer) => ({ ...older, ...newer }),
      done: (nodeId, edit) => this.#nodeWritten(nodeId, edit),
    });
    this.#statusWriter = new BatchWriter<StatusEdit>({
      ...common,
      cause: "task statuses",
      entryMax: 200,
      apply: editStatus,
      merge: (older, newer) => ({ ...newer, reports: [...older.reports, ...newer.reports] }),
      done: (_taskId, { reports }) => reports.forEach(settle),
    });
  }

  /** To be called when this member leads, and has applied everything before its term. */
  start(): void {
    if (this.#watch !== undefined) return;
    const { store, clock } = this.#options;
    this.#tables = new Tables();
    this.#drains = new Drains();
    this.#isRead = false;
    this.#attachments.start();
    this.#watch = store.watch({
      kinds: ["task", "node", "cluster", "secret", "config", "network", "volume", "service"],
    });
    const later = (act: () => void): void => void clock.after(0, act);
    follow(this.#watch, this.#read, () => this.#tellTables(), later);
  }

  /** Every agent is told to look for the next leader. */
  stop(): void {
    if (this.#watch === undefined) return;
    this.#watch.close();
    this.#watch = undefined;
    this.#nodeWriter.clear();
    this.#statusWriter.clear();
    this.#attachments.stop();
    this.#drainTimer?.cancel();
    this.#drainTimer = undefined;
    this.#beginning.length = 0;
    this.#sending.clear();
    const leader = this.#leader();
    for (const [nodeId, node] of this.#nodes) {
      node.timer?.cancel();
      node.orphanTimer?.cancel();
      const { session } = node;
      if (session === undefined) continue;
      session.end();
      this.#leaving.push(() => session.farewell("NOT_LEADER", "this manager does not lead any more", leader));
      for (const listener of this.#listeners) listener.ended(nodeId);
    }
    this.#nodes.clear();
    this.#sessions = 0;
    this.#leave();
  }

  /** Whoever leads no more has its vote to give, and may not be kept from it by thousands of farewells. */
  #leave(): void {
    for (const goodbye of this.#leaving.splice(0, this.#crowd.sendsTurnMax)) goodbye();
    if (this.#leaving.length > 0) this.#options.clock.after(0, () => this.#leave());
  }

  /** Managers came, went, or another one leads. */
  managersChanged(): void {
    for (const { session } of this.#nodes.values()) session?.managersChanged();
  }

  /** @returns what ends it */
  onSessions(listener: SessionListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  isConnected(nodeId: string): boolean {
    return this.#nodes.get(nodeId)?.session !== undefined;
  }

  /** Sends a log subscription to a node, if it is connected. */
  subscribeLogs(nodeId: string, subscription: skep.dispatcher.LogSubscription.$Properties): boolean {
    const session = this.#nodes.get(nodeId)?.session;
    session?.subscribeLogs(subscription);
    return session !== undefined;
  }

  /** A new stream. @returns what is to be called for it */
  connect(stream: AgentStream, peer: AgentPeer): StreamEvents<AgentMessage> {
    const { nodeId } = peer;
    let session: Session | undefined;
    return {
      message: (message) => {
        if (session === undefined) {
          if (message.hello == null) throw new SessionInvalid(nodeId, "its first message is not a hello");
          session = new Session(this.#options.newId(), nodeId, stream, this.#host);
          session.takesAcks = message.hello.takesAcks === true;
          this.#register(session, message.hello, peer);
        } else if (!session.ended) this.#receive(session, message);
      },
      drain: () => session?.drained(),
      finished: () => stream.end(),
      closed: () => {
        if (session !== undefined && !session.ended) this.#lost(session);
      },
    };
  }

  // --------------------------------------------------------------------------------------------------------- sessions

  #register(session: Session, hello: skep.dispatcher.Hello.$Properties, peer: AgentPeer): void {
    const { nodeId } = session;
    const { store, clock } = this.#options;
    if (this.#watch === undefined) return session.goodbye("NOT_LEADER", "this manager does not lead", this.#leader());
    if ((hello.protocol ?? 0) !== protocolVersion)
      throw new SessionInvalid(
        nodeId,
        `it speaks protocol ${hello.protocol ?? 0}, and ${protocolVersion} is spoken here`,
      );
    // A new cluster's own first node may be here before the entry that makes the cluster, and that node, is applied.
    if (store.current().count("node") === 0)
      return session.goodbye("NOT_LEADER", "this manager's cluster is still being made");
    if (!store.current().has("node", nodeId))
      return session.goodbye("NODE_REMOVED", `node ${nodeId} is not part of this cluster any more`);
    const node = this.#follow(nodeId);
    if (!mayRegister(node.registrations, clock.monotonicMs()))
      return session.goodbye("REGISTRATION_LIMITED", `node ${nodeId} opened too many sessions in a short time`);
    this.#end(nodeId, node, (old) => old.goodbye("SESSION_REPLACED", "the node has opened another session"));
    node.session = session;
    this.#sessions++;
    this.#arrivals.note(clock.monotonicMs());
    this.#beat(nodeId, node, this.#periodMs, graceMs(this.#periodMs));
    const addr = hello.addr === "" || hello.addr == null ? peer.address : hello.addr;
    const description = this.#checked(nodeId, hello.description);
    this.#nodeWriter.add(nodeId, { state: NodeState.NODE_READY, message: "", addr, description, session });
  }

  /** The registration is committed: now the node may be told what to do. */
  #nodeWritten(nodeId: string, { session }: NodeEdit): void {
    const node = this.#nodes.get(nodeId);
    if (session === undefined || session.ended || node?.session !== session) return;
    this.#confirmed(session, () => {
      const found = this.#host.view().get("node", nodeId);
      if (found === undefined) return 0;
      node.pushed = pushOf(found);
      const things = session.begin({
        sessionId: session.id,
        heartbeatPeriod: this.#nextBeat(nodeId, node),
        featureLevel: supportedLevel,
        quietMs: quietMs(this.#sessions),
      });
      for (const listener of this.#listeners) listener.started(nodeId);
      return things;
    });
  }

  /**
   * A complete state stops what is not in it. So it is sent only by a leader that still is one: another may have given
   * the node tasks that this one does not know of.
   */
  #confirmed(session: Session, act: () => number): void {
    const watch = this.#watch;
    const isSo = (): boolean => watch === this.#watch && this.#nodes.get(session.nodeId)?.session === session;
    this.#options.store
      .read(() => undefined)
      .then(
        () => this.#inTurn(() => (isSo() ? act() : 0)),
        () => {
          if (isSo()) session.goodbye("NOT_LEADER", "this manager does not lead any more", this.#leader());
        },
      );
  }

  /** When thousands of agents come at once, as they do to a new leader, each turn is for a few of them. */
  #inTurn(act: () => number): void {
    this.#beginning.push(act);
    if (this.#isRead) this.#takeTurns();
  }

  #takeTurns(): void {
    if (!this.#turnIsDue) {
      this.#turnIsDue = true;
      this.#options.clock.after(0, this.#nextTurn);
    }
    this.#begin();
  }

  readonly #nextTurn = (): void => {
    this.#thingsThisTurn = 0;
    this.#turnIsDue = this.#beginning.length > 0;
    if (!this.#turnIsDue) return;
    this.#options.clock.after(0, this.#nextTurn);
    this.#begin();
  };

  #begin(): void {
    while (this.#beginning.length > 0 && this.#thingsThisTurn < thingsTurnMax) {
      const things = this.#beginning.shift()?.() ?? 0;
      if (things > 0) this.#thingsThisTurn += things + thingsOfSession;
    }
  }

  /** With what happens in the same moment, and when many have something to say, some of them a turn. */
  #sendSoon(session: Session): void {
    this.#sending.add(session);
    if (this.#sendIsDue) return;
    this.#sendIsDue = true;
    queueMicrotask(this.#send);
  }

  readonly #send = (): void => {
    let sent = 0;
    for (const session of this.#sending) {
      if (++sent > this.#crowd.sendsTurnMax) {
        this.#options.clock.after(0, this.#send);
        return;
      }
      this.#sending.delete(session);
      session.send();
    }
    this.#sendIsDue = false;
  };

  #receive(session: Session, message: AgentMessage): void {
    const node = this.#nodes.get(session.nodeId);
    if (node?.session !== session) return;
    node.wordMs = this.#options.clock.monotonicMs();
    if (message.heartbeat != null) {
      const period = this.#nextBeat(session.nodeId, node);
      const sentAtUs = message.heartbeat.sentAtUs ?? 0;
      session.acknowledgeHeartbeat({ sentAtUs, period, quietMs: quietMs(this.#sessions) });
    } else if (message.statusUpdate != null) this.#report(session, message.statusUpdate);
    else if (message.describe != null)
      this.#nodeWriter.add(session.nodeId, {
        description: this.#checked(session.nodeId, message.describe.description),
      });
    else if (message.resync != null) this.#confirmed(session, () => session.startOver());
    else if (message.applied != null) session.applied(message.applied.revision ?? 0);
    else if (message.attach != null) this.#attachments.attach(session, message.attach);
    else if (message.detach != null) this.#attachments.detach(session.nodeId, message.detach.taskId ?? "");
    else if (message.leave != null) {
      this.#setState(session.nodeId, NodeState.NODE_DOWN, "the node has left");
      this.#end(session.nodeId, node, (old) => old.goodbye("LEFT", "the node has left"));
      this.#forgetTimers(node);
    }
    // Anything else is for a later release.
  }

  /**
   * A node that says another's key is its own would be sent what is for the other, or cut it off: it has none then.
   * @throws SessionInvalid
   */
  #checked(nodeId: string, told: Description | null | undefined): Description {
    const description = checked(nodeId, told);
    const key = description.network?.wireguardPublicKey ?? new Uint8Array();
    const view = this.#options.store.current();
    const isKnown = sameBytes(key, view.get("node", nodeId)?.description?.network?.wireguardPublicKey);
    if (key.length === 0 || isKnown) return description;
    const holder = [...view.find("node", "tunnelKey", Buffer.from(key).toString("base64"))].find(
      ({ id }) => id !== nodeId,
    );
    if (key.length === tunnelKeyBytes && holder === undefined) return description;
    this.#options.logger.warn("a node's key for encrypted networks is not taken", {
      nodeId,
      found: holder === undefined ? `it has ${key.length} bytes` : `it is that of node ${holder.id}`,
    });
    return { ...description, network: { ...description.network, wireguardPublicKey: new Uint8Array() } };
  }

  #lost(session: Session): void {
    const node = this.#nodes.get(session.nodeId);
    session.end();
    if (node?.session !== session) return;
    this.#end(session.nodeId, node, () => {});
    this.#setState(session.nodeId, NodeState.NODE_DISCONNECTED, "the connection to the node is broken");
  }

  #end(nodeId: string, node: Followed, farewell: (session: Session) => void): void {
    const { session } = node;
    if (session === undefined) return;
    node.session = undefined;
    this.#sessions--;
    farewell(session);
    session.end();
    for (const listener of this.#listeners) listener.ended(nodeId);
  }

  // ------------------------------------------------------------------------------------------------------ node states

  #follow(nodeId: string): Followed {
    const known = this.#nodes.get(nodeId);
    if (known !== undefined) return known;
    const node: Followed = {
      session: undefined,
      beatMs: 0,
      graceMs: 0,
      wordMs: 0,
      periodMs: 0,
      timer: undefined,
      timerAtMs: Infinity,
      orphanTimer: undefined,
      registrations: [],
      pushed: "",
    };
    this.#nodes.set(nodeId, node);
    return node;
  }

  /** @returns after how long the node's next heartbeat is to come */
  #nextBeat(nodeId: string, node: Followed): skep.objects.Duration.$Properties {
    const period = jittered(this.#periodMs, this.#options.random.float());
    this.#beat(nodeId, node, period, graceMs(period));
    return durationOf(period);
  }

  /** The timer is not set anew each time: when it fires, it looks what was heard since. Unless that would be too late. */
  #beat(nodeId: string, node: Followed, period: number, grace: number): void {
    node.beatMs = this.#options.clock.monotonicMs();
    node.graceMs = grace;
    node.periodMs = period;
    if (node.timer !== undefined && node.timerAtMs <= downAtMs(node)) return;
    this.#forgetTimers(node);
    this.#arm(nodeId, node, grace);
  }

  /** @param wasLate  this leader was held up, and the node has been given that time once more already */
  #arm(nodeId: string, node: Followed, ms: number, wasLate = false): void {
    const { clock, logger } = this.#options;
    node.timerAtMs = clock.monotonicMs() + ms;
    node.timer = clock.after(ms, () => {
      node.timer = undefined;
      const nowMs = clock.monotonicMs();
      const leftMs = downAtMs(node) - nowMs;
      if (leftMs > 0) return this.#arm(nodeId, node, leftMs);
      // A leader that stood still (a stopped process, a machine without a core for it) has not read what nodes said.
      const lateMs = nowMs - node.timerAtMs;
      if (!wasLate && lateMs > lateMsMax) return this.#arm(nodeId, node, Math.min(lateMs, node.periodMs), true);
      const crowdMs = waitForCrowdMs(node, { nowMs, hasSession: node.session !== undefined, arrivals: this.#arrivals });
      if (crowdMs > 0) return this.#arm(nodeId, node, crowdMs);
      logger.warn("a node is down: its heartbeats are missed", { nodeId });
      this.#end(nodeId, node, (session) => session.goodbye("HEARTBEAT_MISSED", "no heartbeat came for too long"));
      this.#setState(nodeId, NodeState.NODE_DOWN, "heartbeat failure");
    });
  }

  #setState(nodeId: string, state: NodeState, message: string): void {
    this.#nodeWriter.add(nodeId, { state, message });
  }

  /** A new leader knows of no session: whoever was not down may come back within the grace. */
  *#meetNodes(view: View<ClusterSchema>): Generator<void, void> {
    yield* inSlices(view.list("node"), (node) => {
      const state = node.status?.state ?? NodeState.NODE_UNKNOWN;
      if (state === NodeState.NODE_DOWN) return this.#nodeIsDown(node);
      const followed = this.#follow(node.id);
      // It has come while the others were read.
      if (followed.session !== undefined) return;
      this.#beat(node.id, followed, this.#periodMs, unknownGraceMs(this.#periodMs));
      // One that has joined and never came is unknown already.
      if (state !== NodeState.NODE_UNKNOWN)
        this.#setState(node.id, NodeState.NODE_UNKNOWN, "there is a new leader, and the node has not come to it yet");
    });
  }

  /** After a day the tasks of a node that is down are given up. */
  #nodeIsDown(node: Readonly<skep.objects.Node>): void {
    const { clock, store } = this.#options;
    const followed = this.#follow(node.id);
    if (followed.orphanTimer !== undefined) return;
    // The log's time stands still while nothing is committed.
    const nowUs = Math.max(store.current().timeUs, clock.wallMs() * 1000);
    const downMs = Math.max(0, (nowUs - (node.status?.sinceUs ?? 0)) / 1000);
    followed.orphanTimer = clock.after(Math.max(0, orphanedAfterMs - downMs), () => {
      followed.orphanTimer = undefined;
      this.#orphan(node.id);
    });
  }

  /** Of a node that is down for a day, or was removed: nobody will ever say how they ended. */
  #orphan(nodeId: string): void {
    const { store, clock, logger } = this.#options;
    const watch = this.#watch;
    const view = store.current();
    const node = view.get("node", nodeId);
    if (watch === undefined || (node !== undefined && node.status?.state !== NodeState.NODE_DOWN)) return;
    const lost = [...view.find("task", "node", nodeId)].filter(holdsPlace).slice(0, orphansMax);
    if (lost.length === 0) return;
    const lastSeenUs = node?.status?.sinceUs ?? 0;
    const found = node === undefined ? "was removed" : "is down for a day";
    const change = (tx: Tx<ClusterSchema>): void => {
      for (const { id } of lost) orphan(tx, id, { nodeId, lastSeenUs }, `the node ${found}; its tasks are given up`);
    };
    store.transact(change, { actor: "dispatcher", cause: `node ${nodeId} ${found}` }, (outcome) => {
      if (watch !== this.#watch) return;
      if (outcome.kind !== "committed") logger.warn("tasks could not be given up", { nodeId, error: outcome.error });
      clock.after(outcome.kind === "committed" ? 0 : retryMs, () => {
        if (watch === this.#watch) this.#orphan(nodeId);
      });
    });
  }

  #forgetTimers(node: Followed): void {
    node.timer?.cancel();
    node.timer = undefined;
  }

  // --------------------------------------------------------------------------------------------------------- statuses

  #report(session: Session, update: skep.dispatcher.StatusUpdate.$Properties): void {
    const view = this.#host.view();
    const number = update.number ?? 0;
    session.updateCame();
    const changes: { readonly taskId: string; readonly status: skep.objects.TaskStatus.$Properties }[] = [];
    for (const { taskId, status } of update.tasks ?? []) {
      if (taskId == null || status == null || !isAgentState(status.state ?? 0)) continue;
      // A look ahead, so that what a node makes up takes no room; what counts is asked again when it is written.
      if (accepted(view.get("task", taskId), view.get("node", session.nodeId), status) !== undefined)
        changes.push({ taskId, status });
    }
    if (changes.length === 0) return session.acknowledge(number);
    const report: Report = { session, number, left: changes.length };
    for (const { taskId, status } of changes)
      this.#statusWriter.add(taskId, { nodeId: session.nodeId, status, reports: [report] });
  }

  // ------------------------------------------------------------------------------------------------------------- store

  readonly #read = (event: WatchEvent<ClusterSchema>): Iterator<void> | void => {
    if (event.kind === "view") return this.#readView(event.view);
    for (const change of event.changes) this.#readChange(change);
    return undefined;
  };

  /** What an earlier leader has left; or changes were missed, and everything is looked at again. */
  *#readView(view: View<ClusterSchema>): Generator<void, void> {
    const isFirst = !this.#isRead;
    this.#readCluster(view);
    if (isFirst) yield* this.#meetNodes(view);
    yield* this.#readTables(view);
    if (isFirst) yield* this.#meetTables(view);
    yield* this.#attachments.readView(view);
    // Whoever led when a node was removed may not have come to it.
    yield* inSlices(view.keys("task", "node"), (nodeId) => {
      if (nodeId !== "" && !view.has("node", nodeId)) this.#orphan(nodeId);
    });
    if (isFirst) {
      this.#isRead = true;
      return this.#takeTurns();
    }
    yield* inSlices([...this.#nodes.keys()], (nodeId) => this.#nodeChanged(nodeId, view.get("node", nodeId)));
    // What they were told is known: the nodes hear of what differs, and nothing else.
    for (const { session } of this.#nodes.values()) if (session !== undefined) this.#inTurn(() => session.readAnew());
  }

  #readCluster(view: View<ClusterSchema>): void {
    const cluster = theCluster(view);
    if (cluster === undefined) return;
    this.#periodMs = periodMs(cluster.spec?.dispatcher?.heartbeatPeriod);
    const roots = trustedRoots(cluster.rootCa);
    if (roots === this.#roots) return;
    this.#roots = roots;
    for (const { session } of this.#nodes.values()) session?.nodeChanged();
  }

  #readChange(change: Change<ClusterSchema>): void {
    switch (change.kind) {
      case "task": {
        const { before, after } = change;
        // First the tables: whether the node may hear of it now depends on them.
        this.#readTask(change.id, after);
        this.#attachments.taskChanged(change.id, after);
        const nodeId = after?.nodeId ?? before?.nodeId ?? "";
        if (nodeId !== "") this.#nodes.get(nodeId)?.session?.taskChanged(change.id);
        return;
      }
      case "node":
        this.#readNode(change.id, change.after);
        return this.#nodeChanged(change.id, change.after);
      case "cluster":
        return this.#readCluster(this.#host.view());
      case "service":
        if (this.#tables.setService(change.id, change.after)) this.#readTasksOf("service", change.id);
        return;
      case "network":
        if (this.#tables.setNetwork(change.id, change.after)) this.#readMesh();
        for (const { session } of this.#nodes.values()) session?.needChanged("network", change.id);
        return;
      case "secret":
      case "config":
      case "volume":
        for (const { session } of this.#nodes.values()) session?.needChanged(change.kind, change.id);
        return;
      case "resource":
      case "extension":
        return;
    }
  }

  // ----------------------------------------------------------------------------------------------------------- tables

  /** Everything as it is now. */
  *#readTables(view: View<ClusterSchema>): Generator<void, void> {
    const known = this.#tables.known();
    for (const id of known.nodes) if (!view.has("node", id)) this.#tables.setNode(id, undefined);
    for (const id of known.services) if (!view.has("service", id)) this.#tables.setService(id, undefined);
    yield* inSlices(known.tasks, (id) => {
      if (!view.has("task", id)) this.#readTask(id, undefined);
    });
    yield* inSlices(view.list("node"), (node) => void this.#tables.setNode(node.id, node));
    const { ingress } = this.#tables;
    if (ingress !== undefined && !view.has("network", ingress)) this.#tables.setNetwork(ingress, undefined);
    for (const network of view.list("network")) this.#tables.setNetwork(network.id, network);
    yield* inSlices(view.list("service"), (service) => void this.#tables.setService(service.id, service));
    // Those that have, had or may have a record, and not the whole history.
    yield* inSlices(known.tasks, (id) => this.#readTask(id, view.get("task", id)));
    yield* inSlices(networkedTasks(view), (task) => this.#readTask(task.id, task));
    yield* inSlices(tasksOf(view, [...this.#tables.published()]), (task) => this.#readTask(task.id, task));
    this.#tellTables();
  }

  /** A leader before this one may have withdrawn tasks of which not every node has heard. */
  *#meetTables(view: View<ClusterSchema>): Generator<void, void> {
    const expected: string[] = [];
    yield* inSlices(view.list("node"), ({ id, description, status }) => {
      if (description?.network != null && status?.state !== NodeState.NODE_DOWN) expected.push(id);
    });
    this.#drains.expect(expected);
    const nowMs = this.#options.clock.monotonicMs();
    yield* inSlices(this.#tables.known().tasks, (id) => {
      const task = view.get("task", id);
      if (task?.status?.state === TaskState.RUNNING && task.desiredState >= TaskState.SHUTDOWN)
        this.#drains.holdForNodes(id, nowMs);
    });
    this.#armDrains();
  }

  #readTask(id: string, task: Readonly<skep.objects.Task> | undefined): void {
    const withdrawals = this.#tables.setTask(id, task);
    if (task === undefined || hasEnded(task)) {
      if (this.#drains.drop(id)) this.#releaseTasks([id]);
    } else if (!isAskedToStop(task)) this.#drains.note(id, withdrawals);
    else if (this.#drains.hold(id, withdrawals, this.#options.clock.monotonicMs())) this.#armDrains();
  }

  #readNode(id: string, node: Readonly<skep.objects.Node> | undefined): void {
    if (this.#tables.setNode(id, node)) this.#readTasksOf("node", id);
    if (isAway(node)) this.#releaseTasks(this.#drains.met(id));
    if (node === undefined) this.#attachments.nodeRemoved(id);
    else this.#nodes.get(id)?.session?.dataPlaneChanged();
  }

  #readTasksOf(index: "service" | "node", key: string): void {
    for (const task of this.#host.view().find("task", index, key)) this.#readTask(task.id, task);
  }

  /** The mesh has another network, or none any more. */
  #readMesh(): void {
    for (const service of this.#host.view().list("service")) {
      this.#tables.setService(service.id, service);
      this.#readTasksOf("service", service.id);
    }
    for (const { session } of this.#nodes.values()) session?.dataPlaneChanged();
  }

  #tellTables(): void {
    for (const table of this.#tables.takeChanged()) for (const reader of Array.from(table.readers)) reader.changed();
  }

  /** Nobody sends them connections any more: their nodes may hear that they are to stop. */
  #releaseTasks(taskIds: readonly string[]): void {
    const view = this.#host.view();
    for (const id of taskIds) this.#nodes.get(view.get("task", id)?.nodeId ?? "")?.session?.taskReleased();
  }

  #armDrains(): void {
    const { clock } = this.#options;
    const { nextMs } = this.#drains;
    if (this.#drainTimer !== undefined || nextMs === undefined) return;
    this.#drainTimer = clock.after(Math.max(0, nextMs - clock.monotonicMs()), () => {
      this.#drainTimer = undefined;
      this.#releaseTasks(this.#drains.expire(clock.monotonicMs()));
      this.#armDrains();
    });
  }

  #nodeChanged(nodeId: string, now: Readonly<skep.objects.Node> | undefined): void {
    if (now === undefined) {
      this.#orphan(nodeId);
      const followed = this.#nodes.get(nodeId);
      if (followed === undefined) return;
      this.#end(nodeId, followed, (session) => session.goodbye("NODE_REMOVED", `node ${nodeId} was removed`));
      this.#forgetTimers(followed);
      followed.orphanTimer?.cancel();
      this.#nodes.delete(nodeId);
      return;
    }
    if (now.status?.state === NodeState.NODE_DOWN) this.#nodeIsDown(now);
    const followed = this.#nodes.get(nodeId);
    if (followed === undefined) return;
    if (now.status?.state !== NodeState.NODE_DOWN) {
      followed.orphanTimer?.cancel();
      followed.orphanTimer = undefined;
    }
    const pushed = pushOf(now);
    if (pushed === followed.pushed) return;
    followed.pushed = pushed;
    followed.session?.nodeChanged();
  }

  #leader(): string {
    return this.#options.store.leadership().leader ?? "";
  }
}

/** Sessions over gRPC: who calls is what the certificate says. */
export function serveDispatcher(server: RpcServer, dispatcher: Dispatcher): void {
  server.bidi(sessionMethod, (stream, { peer, address }) => {
    const host = hostOf(address);
    // That of a socket of this host says nothing.
    return dispatcher.connect(stream, { nodeId: peer?.identity.nodeId ?? "", address: isIP(host) === 0 ? "" : host });
  });
}

// ------------------------------------------------------------------------------------------------------------- writing

function editNode(tx: Tx<ClusterSchema>, nodeId: string, edit: NodeEdit): void {
  const node = tx.get("node", nodeId);
  if (node === undefined) return;
  const { status } = node;
  const state = edit.state ?? status?.state ?? NodeState.NODE_UNKNOWN;
  const message = edit.message ?? status?.message ?? "";
  const addr = edit.addr ?? status?.addr ?? "";
  const isNews = state !== (status?.state ?? NodeState.NODE_UNKNOWN);
  const isSame =
    !isNews && message === (status?.message ?? "") && addr === (status?.addr ?? "") && sameDescription(node, edit);
  if (isSame) return;
  tx.edit("node", nodeId, (draft) => {
    draft.status = { state, message, addr, sinceUs: isNews ? tx.timeUs : (status?.sinceUs ?? tx.timeUs) };
    if (edit.description !== undefined) draft.description = edit.description;
  });
}

function sameDescription(node: Readonly<skep.objects.Node>, { description }: NodeEdit): boolean {
  if (description === undefined) return true;
  if (node.description == null) return false;
  const { NodeDescription } = skep.objects;
  const before = NodeDescription.encode(node.description).finish();
  const after = NodeDescription.encode(description).finish();
  return Buffer.compare(before, after) === 0;
}

function editStatus(tx: Tx<ClusterSchema>, taskId: string, { nodeId, status }: StatusEdit): void {
  const written = accepted(tx.get("task", taskId), tx.get("node", nodeId), status);
  if (written === undefined) return;
  tx.edit("task", taskId, (draft) => {
    draft.status = written;
  });
}

function* tasksOf(view: View<ClusterSchema>, serviceIds: readonly string[]): IterableIterator<skep.objects.Task> {
  for (const id of serviceIds) yield* view.find("task", "service", id);
}

function settle(report: Report): void {
  report.left--;
  if (report.left === 0) report.session.acknowledge(report.number);
}

/** Nobody waits for its data plane: it is taken for lost, or has none. */
function isAway(node: Readonly<skep.objects.Node> | undefined): boolean {
  return node === undefined || node.status?.state === NodeState.NODE_DOWN || node.description?.network == null;
}

/** By its node's word, or nobody's any more: whoever sent it connections sends them into nothing. */
function hasEnded({ status, nodeId }: Readonly<skep.objects.Task>): boolean {
  const state = status?.state ?? TaskState.NEW;
  return state > TaskState.RUNNING && (status?.appliedBy === nodeId || state === TaskState.ORPHANED);
}

/** By what is desired of it, or because a manager has ended it. */
function isAskedToStop({ status, desiredState }: Readonly<skep.objects.Task>): boolean {
  return desiredState >= TaskState.SHUTDOWN || (status?.state ?? TaskState.NEW) > TaskState.RUNNING;
}

function holdsPlace(task: Readonly<skep.objects.Task>): boolean {
  const state = task.status?.state ?? TaskState.NEW;
  return state >= TaskState.ASSIGNED && state <= TaskState.RUNNING;
}

function orphan(
  tx: Tx<ClusterSchema>,
  taskId: string,
  nodeLost: { readonly nodeId: string; readonly lastSeenUs: number },
  message: string,
): void {
  const task = tx.get("task", taskId);
  if (task?.nodeId !== nodeLost.nodeId || !holdsPlace(task)) return;
  tx.edit("task", taskId, (draft) => {
    draft.status = {
      ...draft.status,
      state: TaskState.ORPHANED,
      timestampUs: tx.timeUs,
      message,
      reason: { sinceUs: tx.timeUs, nodeLost },
    };
  });
}

// --------------------------------------------------------------------------------------------------------------- small

/** X25519. */
const tunnelKeyBytes = 32;

const sameBytes = (a: Uint8Array, b: Uint8Array | null | undefined): boolean => b != null && Buffer.compare(a, b) === 0;

/** @throws SessionInvalid */
function checked(nodeId: string, description: Description | null | undefined): Description {
  const bytes = skep.objects.NodeDescription.encode(description ?? {}).len;
  if (bytes > descriptionBytesMax) throw new SessionInvalid(nodeId, `its description has ${bytes} bytes`);
  return description ?? {};
}

/** What a node has to hear of itself: not its state, which it makes itself. */
function pushOf({ spec, role, certificate, number }: Readonly<skep.objects.Node>): string {
  return JSON.stringify([spec, role, certificate, number]);
}

function durationOf(ms: number): skep.objects.Duration.$Properties {
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: Math.floor((ms - seconds * 1000) * 1e6) };
}
