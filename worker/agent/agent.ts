/**
 * The agent of a node: takes up what runs here, then follows the managers. Without them it goes on with what it was told.
 */
import { isAbort, type ClusterError } from "../../lib/pure/errors.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { sleep, type Clock, type Logger, type Timer } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";
import type { Executor, Needs, NodeFacts, TaskController } from "../executor/index.ts";
import { AttachmentController, isAttachment } from "./attachment.ts";
import { Attacher } from "./attacher.ts";
import {
  AssignmentSet,
  changeOf,
  isAwaited,
  ManagerChoice,
  recordsOf,
  SessionBackoff,
  takenUp,
  TaskState,
  type DataPlane,
  type RecordNews,
} from "./core/index.ts";
import { DataFeed } from "./data-feed.ts";
import { TaskLost } from "./errors.ts";
import { LogShipper } from "./log-shipper.ts";
import { AgentSession, type AgentChannel } from "./session.ts";
import { StatusReporter } from "./status-reporter.ts";
import type { MemoryChange, Status, Task, TaskMemory } from "./task-memory.ts";
import { TaskRunner } from "./task-runner.ts";

type NodeDescription = skep.objects.NodeDescription.$Properties;

export interface AgentOptions {
  readonly nodeId: string;
  readonly memory: TaskMemory;
  readonly executor: Executor;
  /** Is told who is in the networks of this node's tasks; unset: the node has none, and managers tell it nothing. */
  readonly dataPlane?: DataPlane;
  /** Opens a channel to the manager at this address, with the node's certificate. */
  readonly openChannel: (address: string) => AgentChannel;
  /** HOST:PORT or unix:PATH; what managers tell later is asked first. */
  readonly managers: readonly string[];
  /** At which others reach this node; unset: where its connections come from. */
  readonly addr?: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Adds to what the executor says of the node (certificate, labels). */
  readonly describe?: (description: NodeDescription) => NodeDescription;
  /** The node's object has changed: its wished role, its certificate. */
  readonly onNode?: (update: skep.dispatcher.NodeUpdate.$Properties) => void;
  /** Where managers are; to be remembered for the next start. */
  readonly onManagers?: (managers: readonly skep.dispatcher.ManagerAddress.$Properties[]) => void;
  /** The managers say that this node is not in the cluster any more. Its tasks go on until `leave`. */
  readonly onRemoved?: () => void;
  /** Whether a manager is reached. */
  readonly onSession?: (connected: boolean) => void;
}

const protocolVersion = 1;
const featureLevel = 1;
/** Swarm's: how often the node's description is looked at. */
const describeMs = 20_000;
/** How long what nobody needs soon waits for a write that goes anyway. */
const idleWriteMs = 100;

export class Agent implements AsyncDisposable {
  readonly #options: AgentOptions;
  readonly #assigned = new AssignmentSet();
  readonly #choice: ManagerChoice;
  readonly #backoff: SessionBackoff;
  /** The manager tried last is not there, and others are to be tried before a longer rest. */
  #roundGoesOn = false;
  readonly #reporter: StatusReporter;
  readonly #shipper: LogShipper;
  readonly #feed: DataFeed | undefined;
  /** Places of this node's own containers in networks of the cluster. */
  readonly attacher: Attacher;
  /** Tasks that wait until the data plane was told what came before this ticket. */
  readonly #routes = new Map<string, number>();
  /** Called with each change of a task's status, for those who wait for one. */
  readonly #listeners = new Set<(taskId: string) => void>();
  readonly #runners = new Map<string, TaskRunner>();
  readonly #stop = new AbortController();
  /** Of which the executor has something from an earlier life, and nobody has asked for it yet. */
  #held = new Set<string>();
  #facts: NodeFacts;
  #description: NodeDescription = {};
  #session: AgentSession | undefined;
  #informed = false;
  /** Of what the data plane was told last. */
  #ticket = 0;
  #leaving = false;
  /** The managers know that this node leaves: nothing more is said. */
  #parting = false;
  #nap: AbortController | undefined;
  /** The leader takes no session from this node for some seconds. */
  #limited = false;
  #following: Promise<void> | undefined;
  #writing: Promise<void> = Promise.resolve();
  /** What the next write takes, once the one under way is done. */
  #unwritten: MemoryChange[] = [];
  #nextWrite: Promise<void> | undefined;
  #idleWrite: Timer | undefined;
  readonly #needs: Needs = {
    secret: (id) => this.#assigned.secret(id),
    config: (id) => this.#assigned.config(id),
    network: (id) => this.#assigned.network(id),
  };

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#choice = new ManagerChoice(options.random, options.managers);
    this.#backoff = new SessionBackoff(options.random);
    this.#facts = { nodeId: options.nodeId, hostname: "", platform: { os: "", architecture: "" } };
    this.#shipper = new LogShipper({
      clock: options.clock,
      logger: options.logger,
      started: (taskId, wait, signal) => this.#whenStarted(taskId, wait, signal),
    });
    const { dataPlane, clock, logger, nodeId } = options;
    if (dataPlane !== undefined) {
      this.#feed = new DataFeed({
        plane: dataPlane,
        clock,
        logger,
        records: () => recordsOf(nodeId, this.#assigned.records),
        applied: (revision) => void this.#session?.send({ applied: { revision } }),
        settled: () => this.#routed(),
      });
    }
    this.attacher = new Attacher({
      clock,
      send: (message) => this.#session?.welcomed === true && (this.#session.send(message), true),
      tasks: () => this.tasks,
      network: (id) => this.#assigned.network(id),
    });
    this.#reporter = new StatusReporter({
      clock: options.clock,
      send: (statusUpdate) => this.#session?.send({ statusUpdate }) ?? false,
      acknowledged: (taskId, status) => {
        if (this.#runners.has(taskId)) this.#noteLater({ kind: "status", taskId, status, acknowledged: true });
      },
    });
  }

  /** Takes up what was here, then turns to the managers. Resolves when everything is taken up. */
  async open(): Promise<void> {
    const { memory, executor } = this.#options;
    await this.#describe();
    this.#held = new Set(await executor.held());
    this.#assigned.restore(await memory.loadRecords());
    // Also with nothing to tell: the data plane begins with what it is told first.
    this.#ticket = this.#feed?.replace(undefined) ?? 0;
    for (const { task, status, acknowledged } of await memory.load()) {
      const held = this.#held.delete(task.id);
      this.#takeUp(task, status, held, acknowledged);
    }
    this.#following = this.#follow();
  }

  get isConnected(): boolean {
    return this.#session?.welcomed === true;
  }

  /** Where managers are, as far as is known. */
  get managers(): readonly string[] {
    return this.#choice.known;
  }

  /** Tasks of this node, ended ones too until the managers forget them. */
  get tasks(): readonly { readonly task: Task; readonly status: Status }[] {
    return [...this.#runners.values()].map(({ task, status }) => ({ task, status }));
  }

  /** Statuses that no manager has acknowledged. */
  get unacknowledged(): number {
    return this.#reporter.pending;
  }

  /** The certificate is another one, or a manager may have come up: a session is made anew, at once. */
  reconnect(): void {
    this.#backoff.reset();
    this.#session?.end(undefined);
    this.#nap?.abort();
  }

  /** Says so, stops every task and removes what is here of them. */
  async leave(signal: AbortSignal): Promise<void> {
    this.#leaving = true;
    this.#session?.send({ leave: {} });
    const { executor } = this.#options;
    for (const runner of this.#runners.values()) runner.drop();
    for (const taskId of this.#held) await executor.forget(taskId);
    this.#held.clear();
    while (this.#runners.size > 0) await sleep(this.#options.clock, 20, signal);
    await this[Symbol.asyncDispose]();
  }

  /** Every task goes on as it is. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#stop.signal.aborted) this.#stop.abort();
    this.#nap?.abort();
    this.#session?.end(undefined);
    this.#reporter.end();
    await this.#following;
    await Promise.all([...this.#runners.values()].map((runner) => runner.close()));
    this.attacher.close();
    await this.#feed?.close();
    this.#idleWrite?.cancel();
    await this.#remember([]);
    await this.#options.memory.close();
  }

  // --------------------------------------------------------------------------------------------------------- managers

  async #follow(): Promise<void> {
    const { logger } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted && !this.#parting) {
      this.#roundGoesOn = false;
      try {
        const address = this.#choice.next();
        if (address === undefined) logger.warn("no manager is known");
        else await this.#meet(address);
      } catch (error) {
        if (signal.aborted) return;
        logger.error("a session failed", { error });
      }
      if (!signal.aborted) await this.#rest(this.#roundGoesOn ? this.#backoff.brief() : this.#backoff.next());
    }
  }

  /** Until the time is up, somebody knows of a manager (`reconnect`), or the end. */
  async #rest(ms: number): Promise<void> {
    if (this.#stop.signal.aborted) return;
    // One signal for both reasons: what AbortSignal.any makes may be collected while it is waited for.
    const nap = new AbortController();
    this.#nap = nap;
    try {
      await sleep(this.#options.clock, ms, nap.signal);
    } catch (error) {
      if (!isAbort(error)) throw error;
    }
  }

  /** One session with the manager at this address, from beginning to end. */
  async #meet(address: string): Promise<void> {
    const { clock, openChannel, addr } = this.#options;
    await this.#describe();
    if (this.#stop.signal.aborted) return;
    const channel = openChannel(address);
    let ended: ClusterError | undefined;
    let farewell: skep.dispatcher.Goodbye.$Properties | undefined;
    const session = new AgentSession({
      address,
      channel,
      clock,
      hello: {
        protocol: protocolVersion,
        description: this.#description,
        addr: addr ?? "",
        featureLevel,
        takesAcks: true,
      },
      handlers: {
        welcome: () => this.#welcomed(address),
        message: (message) => this.#receive(message, channel),
        drained: () => this.#reporter.drained(),
        goodbye: (goodbye) => {
          farewell = goodbye;
          session.end(undefined);
        },
      },
    });
    this.#session = session;
    const describing = clock.every(describeMs, () => this.describeNow());
    try {
      ended = await session.ended;
    } finally {
      describing.cancel();
      this.#session = undefined;
      this.#reporter.end();
      this.#shipper.endAll();
      this.#assigned.sessionEnded();
      this.#feed?.sessionEnded();
      channel[Symbol.dispose]();
      if (session.welcomed) this.#options.onSession?.(false);
    }
    this.#parted(address, session.welcomed, farewell, ended);
  }

  #parted(
    address: string,
    welcomed: boolean,
    farewell: skep.dispatcher.Goodbye.$Properties | undefined,
    error: ClusterError | undefined,
  ): void {
    const { logger } = this.#options;
    const code = farewell?.code ?? error?.code;
    logger.info("no manager is reached", { address, code, why: farewell?.message ?? error?.message });
    if (!welcomed && farewell === undefined) this.#roundGoesOn = this.#choice.absent(address);
    if (farewell === undefined) return;
    const leader = farewell.leaderAddr ?? "";
    if (this.#leaving) this.#parting = true;
    if (farewell.code === "NODE_REMOVED" && !this.#leaving) this.#options.onRemoved?.();
    if (farewell.code === "REGISTRATION_LIMITED") this.#limited = true;
    if (farewell.code !== "NOT_LEADER") return;
    // It is up and knows better: no reason to wait long, unless the leader has just said that this node comes too often.
    if (leader !== "" && leader !== address) {
      this.#choice.redirect(leader);
      if (!this.#limited) this.#backoff.reset();
    } else this.#choice.failed(address);
  }

  #welcomed(address: string): void {
    this.#limited = false;
    this.#backoff.reset();
    this.#choice.succeeded(address);
    this.#options.logger.info("a manager is reached", { address });
    this.#reporter.begin();
    this.attacher.begin();
    this.#options.onSession?.(true);
  }

  #receive(message: skep.dispatcher.ManagerMessage.$Properties, channel: AgentChannel): void {
    const { assignments, statusAck, managers, node, logs, attachAnswer } = message;
    for (const number of message.acks ?? []) this.#reporter.acknowledge(number);
    if (assignments != null) this.#assign(assignments);
    else if (statusAck != null) this.#reporter.acknowledge(statusAck.number ?? 0);
    else if (logs != null) this.#shipper.take(logs, channel);
    else if (attachAnswer != null) this.attacher.answered(attachAnswer);
    else if (managers != null) {
      const list = managers.managers ?? [];
      const leader = list.find((each) => each.leader === true)?.addr ?? undefined;
      this.#choice.learn(
        list.flatMap(({ addr }) => (addr == null || addr === "" ? [] : [addr])),
        leader,
      );
      this.#options.onManagers?.(list);
    } else if (node != null) this.#options.onNode?.(node);
    // Anything else is for a later release.
  }

  /** Something of the node has changed, such as its certificate: managers are told now and not at the next look. */
  describeNow(): void {
    this.#describeAgain().catch((error: unknown) => {
      this.#options.logger.warn("the node could not be described", { error });
    });
  }

  async #describe(): Promise<boolean> {
    const { executor, describe, nodeId } = this.#options;
    const found = await executor.describe();
    const described = describe?.(found) ?? found;
    // By this managers know that records may be told, and that it is worth waiting until they are applied.
    const network = described.network ?? { capabilities: ["overlay"] };
    const description = this.#feed === undefined ? { ...described, network: null } : { ...described, network };
    const { NodeDescription } = skep.objects;
    const before = NodeDescription.encode(this.#description).finish();
    const isNews = Buffer.compare(before, NodeDescription.encode(description).finish()) !== 0;
    this.#description = description;
    const { os, architecture } = description.platform ?? {};
    this.#facts = {
      nodeId,
      hostname: description.hostname ?? "",
      platform: { os: os ?? "", architecture: architecture ?? "" },
    };
    return isNews;
  }

  async #describeAgain(): Promise<void> {
    if (await this.#describe()) this.#session?.send({ describe: { description: this.#description } });
  }

  // ------------------------------------------------------------------------------------------------------------ tasks

  /** A task that has a container, or has had one; see ShipperHost. */
  #whenStarted(taskId: string, wait: boolean, signal: AbortSignal): Promise<TaskController | undefined> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#listeners.delete(look);
        signal.removeEventListener("abort", onAbort);
      };
      const onAbort = (): void => {
        leave();
        reject(signal.reason as Error);
      };
      const look = (changed: string): void => {
        if (changed !== taskId) return;
        const runner = this.#runners.get(taskId);
        const controller = runner?.reader();
        const isThere = controller?.containerStatus() !== undefined;
        const hasEnded = runner !== undefined && (runner.status.state ?? TaskState.NEW) > TaskState.RUNNING;
        if (!isThere && !hasEnded && wait) return;
        leave();
        resolve(isThere ? controller : undefined);
      };
      if (signal.aborted) return reject(signal.reason as Error);
      signal.addEventListener("abort", onAbort, { once: true });
      this.#listeners.add(look);
      look(taskId);
    });
  }

  #assign(message: skep.dispatcher.Assignments.$Properties): void {
    const told = this.#assigned.take(message);
    if (this.#leaving) return;
    switch (told.kind) {
      case "nothing":
        return;
      case "gap":
        this.#session?.send({ resync: {} });
        return;
      case "changes":
        this.#feedChanges(told.records, message.revision ?? 0);
        for (const task of told.tasks) this.#setTask(task);
        for (const taskId of told.removed) this.#runners.get(taskId)?.drop();
        return;
      case "complete": {
        const wanted = new Set(told.tasks.map(({ id }) => id));
        this.#informed = true;
        for (const { key, item } of told.records) this.#note({ kind: "record", key, item });
        this.#ticket = this.#feed?.replace(message.revision ?? 0) ?? 0;
        for (const task of told.tasks) this.#setTask(task, true);
        for (const [taskId, runner] of this.#runners) {
          if (wanted.has(taskId)) runner.lookAgain();
          else runner.drop();
        }
        // Left over from a life that is not remembered.
        for (const taskId of this.#held) this.#forget(taskId);
        this.#held.clear();
        return;
      }
    }
  }

  #feedChanges(records: readonly RecordNews[], revision: number): void {
    if (this.#feed === undefined || records.length === 0) return;
    for (const { key, item } of records) this.#note({ kind: "record", key, item });
    const changes = records.map(({ key, item }) => changeOf(key, item));
    this.#ticket = this.#feed.change(changes, revision);
  }

  /** The data plane was told more: tasks that waited for that may go on. */
  #routed(): void {
    for (const [taskId, ticket] of this.#routes) {
      if (this.#feed?.hasSettled(ticket) !== true) continue;
      this.#routes.delete(taskId);
      this.#runners.get(taskId)?.lookAgain();
    }
    this.attacher.look();
  }

  /** @param isComplete  the managers' view of the task is as fresh as it gets */
  #setTask(task: Task, isComplete = false): void {
    if (task.networksAttachments.length > 0 && this.#feed?.hasSettled(this.#ticket) === false)
      this.#routes.set(task.id, this.#ticket);
    const runner = this.#runners.get(task.id);
    if (runner === undefined) return this.#takeUp(task, undefined, this.#held.delete(task.id), true);
    this.#note({ kind: "task", task });
    runner.setTask(task);
    // Acknowledged by a manager that is no more, or never heard: said again.
    const told = task.status?.state ?? TaskState.NEW;
    if (isComplete && (runner.status.state ?? TaskState.NEW) > told) this.#reporter.add(task.id, runner.status, true);
  }

  /** @param known  what this node remembers of it */
  #takeUp(task: Task, known: Status | undefined, held: boolean, acknowledged: boolean): void {
    const told = task.status ?? {};
    // Of a mere place in a network nothing can be lost.
    const isHere = held || (isAttachment(task) && known !== undefined);
    const state = takenUp(told.state ?? TaskState.NEW, known?.state ?? undefined, isHere);
    const status: Status = state === "lost" ? this.#lost(task.id) : { ...(known ?? told), state };
    this.#note({ kind: "task", task });
    const isNews = !acknowledged || state === "lost";
    if (known !== undefined || isNews) this.#note({ kind: "status", taskId: task.id, status, acknowledged: !isNews });
    if (isNews) this.#reporter.add(task.id, status, true);
    const { clock, logger, executor } = this.#options;
    this.#runners.set(
      task.id,
      new TaskRunner(task, status, {
        clock,
        logger,
        informed: () => this.#informed,
        routed: (taskId) => !this.#routes.has(taskId),
        controller: (each) =>
          isAttachment(each) ? new AttachmentController() : executor.controller(each, this.#needs, this.#facts),
        report: (taskId, now) => this.#report(taskId, now),
        gone: (taskId) => this.#gone(taskId),
      }),
    );
  }

  #lost(taskId: string): Status {
    const { code, message, fix } = new TaskLost(taskId);
    const timestampUs = Math.floor(this.#options.clock.wallMs() * 1000);
    const reason = { sinceUs: timestampUs, failure: { code, detail: message, fix: fix ?? "" } };
    return { state: TaskState.FAILED, timestampUs, message: "lost", err: message, reason };
  }

  #report(taskId: string, status: Status): Promise<void> {
    const desired = this.#runners.get(taskId)?.task.desiredState ?? TaskState.RUNNING;
    this.#reporter.add(taskId, status, isAwaited(status.state ?? TaskState.NEW, desired));
    for (const listener of Array.from(this.#listeners)) listener(taskId);
    this.attacher.look();
    // Up to there it is begun anew from what the managers know.
    if ((status.state ?? TaskState.NEW) < TaskState.STARTING) return Promise.resolve();
    return this.#remember([{ kind: "status", taskId, status, acknowledged: false }]);
  }

  async #gone(taskId: string): Promise<void> {
    this.#runners.delete(taskId);
    this.#routes.delete(taskId);
    this.#reporter.forget(taskId);
    this.attacher.gone(taskId);
    for (const listener of Array.from(this.#listeners)) listener(taskId);
    await this.#remember([{ kind: "forget", taskId }]);
  }

  #forget(taskId: string): void {
    const { executor, logger } = this.#options;
    executor
      .forget(taskId)
      .catch((error: unknown) => logger.warn("what is left of a task could not be removed", { taskId, error }));
  }

  /** What is lost of it is said to the managers once more than is needed. */
  #noteLater(change: MemoryChange): void {
    this.#unwritten.push(change);
    this.#idleWrite ??= this.#options.clock.after(idleWriteMs, () => {
      this.#idleWrite = undefined;
      void this.#remember([]);
    });
  }

  #note(change: MemoryChange): void {
    // Never rejects; nobody waits for it.
    void this.#remember([change]);
  }

  /** In the order of the calls. What cannot be remembered is not fatal: the managers tell it again. */
  #remember(changes: readonly MemoryChange[]): Promise<void> {
    this.#unwritten.push(...changes);
    this.#nextWrite ??= this.#writing.then(() => this.#write());
    this.#writing = this.#nextWrite;
    return this.#nextWrite;
  }

  async #write(): Promise<void> {
    const changes = this.#unwritten;
    this.#unwritten = [];
    this.#nextWrite = undefined;
    if (changes.length === 0) return;
    try {
      await this.#options.memory.write(changes);
    } catch (error) {
      this.#options.logger.error("the agent's memory cannot be written", { error });
    }
  }
}
