/**
 * A whole control plane without disks and sockets: managers over one in-memory log with every loop of a leader, agents
 * with fake executors, and the streams between them, under virtual time from one seed. Messages cross as bytes.
 */
import { newId } from "../../lib/pure/id.ts";
import { nodeAddresses } from "../../lib/pure/node-number.ts";
import { Random } from "../../lib/pure/prng.ts";
import { RpcUnavailable, type BidiMethod, type RpcStream, type StreamEvents } from "../../lib/rpc/index.ts";
import type { ClusterError } from "../../lib/pure/errors.ts";
import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { RoleManager, type Members } from "../../manager/ca/index.ts";
import { Allocator } from "../../manager/allocator/index.ts";
import { Dispatcher, type CrowdLimits } from "../../manager/dispatcher/index.ts";
import { LogBroker } from "../../manager/logs/index.ts";
import { LeaderLoops } from "../../manager/leadership.ts";
import { Orchestrator } from "../../manager/orchestrator/index.ts";
import { Scheduler } from "../../manager/scheduler/index.ts";
import type { ClusterSchema, ObjectStore, Tx } from "../../manager/store/index.ts";
import { sessionMethod, skep } from "../../proto/index.ts";
import { Agent, MapMemory, type AgentChannel } from "../../worker/agent/index.ts";
import { FakeExecutor, FakeHost, type FakeBehaviour } from "../../worker/executor/fake.ts";
import { FakeDataPlane, FakeKernel } from "./fake-data-plane.ts";
import { StoreCluster, type Member } from "./store-cluster.ts";

export const { NodeAvailability, NodeState, TaskState } = skep.objects;
export type Task = Readonly<skep.objects.Task>;
type Service = skep.objects.ServiceSpec.$Properties;

/** One manager's end of the log, and its store: on a log in memory, or on the real one (test/sim/raft-managers.ts). */
export interface ManagerPlace {
  readonly name: string;
  /** Of its present life, or of the last one. */
  readonly store: ObjectStore<ClusterSchema>;
  readonly isMember: boolean;
  /** Its process starts. @returns false if it cannot */
  begin(): boolean;
  /** Its process is gone. */
  end(): void;
  /** Consensus as the role manager needs it; absent: who is a manager does not change. */
  readonly members?: Members;
}

export interface Consensus {
  readonly places: readonly ManagerPlace[];
  /** Who leads, with everything applied that was committed before. */
  leader(): ManagerPlace | undefined;
}

export interface SwarmOptions {
  /** What else is there from the moment on in which the cluster is. */
  readonly found?: (tx: Tx<ClusterSchema>) => void;
  /** In place of the log in memory. */
  readonly consensus?: (clock: VirtualClock) => Consensus;
  readonly seed?: number | string;
  readonly managers?: number;
  readonly workers?: number;
  /** What a task does, by its image's name up to ":". */
  readonly behaviours?: Readonly<Record<string, FakeBehaviour>>;
  /** An entry is committed within this time. */
  readonly commitMs?: number;
  /** A message arrives within this time. */
  readonly linkMs?: number;
  readonly cluster?: skep.objects.ClusterSpec.$Properties;
  readonly addressPools?: readonly string[];
  readonly subnetSize?: number;
  /** What the stores keep for watches that resume, and of what they have decoded. */
  readonly kept?: {
    readonly watchLimits: { readonly changesMax: number; readonly bytesMax: number };
    readonly decodedMax: number;
  };
  /** Nodes have a data plane; a call to it takes at most so long, and of a hundred so many fail. */
  readonly dataPlane?: { readonly applyMs: number; readonly failPercent?: number };
  /** From how many sessions on a dispatcher takes them for a crowd, and how many of them have a turn at a time. */
  readonly crowd?: CrowdLimits;
  /** A running container gets its stop signal. */
  readonly onStop?: (node: SimNode, task: Task) => void;
}

const by = { actor: "test", cause: "test" };

/** A change that somebody asks for until it is done. */
interface Wish {
  readonly change: (tx: Tx<ClusterSchema>) => void;
  readonly acknowledged: (() => void) | undefined;
}

export class SwarmWorld {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly managers: SimManager[] = [];
  readonly nodes = new Map<string, SimNode>();
  readonly links = new Set<Link>();
  readonly options: SwarmOptions;
  readonly #memory: StoreCluster | undefined;
  readonly #consensus: Consensus;
  readonly #again: Wish[] = [];
  /** Asked of a store that has not answered. */
  readonly #asked = new Map<Wish, ObjectStore<ClusterSchema>>();
  #lastLeader: SimManager | undefined;
  #lastStore: ObjectStore<ClusterSchema> | undefined;
  #committing = false;

  constructor(options: SwarmOptions = {}) {
    this.options = options;
    const seed = options.seed ?? 1;
    this.random = Random.stream(seed, "world");
    if (options.consensus === undefined) {
      this.#memory = new StoreCluster({
        auto: false,
        members: options.managers ?? 1,
        ...(options.kept === undefined
          ? {}
          : { watchLimits: options.kept.watchLimits, limits: { decodedMax: options.kept.decodedMax } }),
      });
      this.#consensus = new MemoryConsensus(this.#memory);
    } else this.#consensus = options.consensus(this.clock);
    for (const place of this.#consensus.places) this.managers.push(new SimManager(this, place));
    for (const manager of this.managers) manager.start();
    this.write((tx) => {
      if (tx.has("cluster", "cluster")) return;
      tx.create("cluster", {
        id: "cluster",
        spec: { name: "default", ...options.cluster },
        defaultAddrPool: [...(options.addressPools ?? [])],
        subnetSize: options.subnetSize ?? 0,
      });
      options.found?.(tx);
    });
    for (let at = 1; at <= (options.workers ?? 1); at++) this.addNode(`node${at}`);
  }

  /** The log in memory; a world on the real one has none. */
  get cluster(): StoreCluster {
    if (this.#memory === undefined) throw new Error("this world has a log of its own");
    return this.#memory;
  }

  /** Of the manager that leads, or else of the one that did last: nobody knows more. */
  get store(): ObjectStore<ClusterSchema> {
    return this.leader?.store ?? this.#lastStore ?? this.managers[0]!.store;
  }

  get leader(): SimManager | undefined {
    const place = this.#consensus.leader();
    if (place === undefined) return undefined;
    if (this.#lastLeader?.place !== place) this.#lastLeader = this.managers.find((manager) => manager.place === place);
    this.#lastStore = place.store;
    return this.#lastLeader;
  }

  get consensus(): Consensus {
    return this.#consensus;
  }

  addNode(id: string): SimNode {
    this.write((tx) => tx.put("node", { id, spec: { name: id }, status: { state: NodeState.NODE_UNKNOWN } }));
    const node = new SimNode(this, id);
    this.nodes.set(id, node);
    return node;
  }

  node(id: string): SimNode {
    return this.nodes.get(id)!;
  }

  /** All agents are started. */
  async start(): Promise<this> {
    await this.run(10);
    for (const node of this.nodes.values()) node.start();
    await this.run(100);
    return this;
  }

  async stop(): Promise<void> {
    for (const manager of this.managers) manager.stop();
    const ended = [...this.nodes.values()].map((node) => node.kill());
    await this.run(50);
    await Promise.all(ended);
    for (const { host } of this.nodes.values()) host.stop();
  }

  // ------------------------------------------------------------------------------------------------------------ writes

  /**
   * As a client would: again, if it met another change or was lost with a leader.
   * @param acknowledged  it is committed, and somebody was told so
   */
  write(change: (tx: Tx<ClusterSchema>) => void, acknowledged?: () => void): void {
    this.#ask({ change, acknowledged });
  }

  #ask(wish: Wish): void {
    this.#setTime();
    const { store } = this;
    this.#asked.set(wish, store);
    store.transact(wish.change, by, (outcome) => {
      if (!this.#asked.delete(wish)) return;
      if (outcome.kind === "committed") return wish.acknowledged?.();
      const code = (outcome.error as { code?: string }).code ?? "";
      if (outcome.kind === "unknown" || unheard.has(code)) this.#again.push(wish);
    });
  }

  /** The process that was asked is gone, and will not answer. */
  unanswered(store: ObjectStore<ClusterSchema>): void {
    for (const [wish, asked] of this.#asked)
      if (asked === store) {
        this.#asked.delete(wish);
        this.#again.push(wish);
      }
  }

  /** Changes that nobody has acknowledged yet. */
  get open(): number {
    return this.#asked.size + this.#again.length;
  }

  service(id: string, spec: Service): void {
    this.write((tx) => {
      if (!tx.has("service", id)) tx.create("service", { id, spec: { name: id, ...spec }, specVersion: 1 });
    });
  }

  /** As control does it. */
  update(id: string, change: (spec: Service) => void): void {
    this.write((tx) => {
      if (!tx.has("service", id)) return;
      tx.edit("service", id, (draft) => {
        const before = draft.spec ?? {};
        const spec = skep.objects.ServiceSpec.decode(skep.objects.ServiceSpec.encode(before).finish());
        change(spec);
        draft.spec = spec;
        draft.previousSpecs = [before, ...draft.previousSpecs].slice(0, 5);
        draft.specVersion++;
        draft.updateStatus = null;
      });
    });
  }

  tasks(serviceId: string): Task[] {
    return [...this.store.current().find("task", "service", serviceId)];
  }

  /** Wanted and running, as the managers know it. */
  running(serviceId: string): Task[] {
    return this.tasks(serviceId).filter(
      (task) => task.status?.state === TaskState.RUNNING && task.desiredState < TaskState.SHUTDOWN,
    );
  }

  nodeState(id: string): string {
    return NodeState[this.store.current().get("node", id)?.status?.state ?? 0] ?? "";
  }

  // -------------------------------------------------------------------------------------------------------------- time

  /** Everything that is due at this moment has happened. */
  async settle(): Promise<void> {
    for (let round = 0; round < 6; round++) await Promise.resolve();
    if (this.#again.length > 0 && this.leader !== undefined) for (const wish of this.#again.splice(0)) this.#ask(wish);
    const group = this.#memory?.group;
    if (group === undefined || group.pending === 0 || this.#committing) return;
    this.#committing = true;
    this.clock.after(this.random.float() * (this.options.commitMs ?? 3), () => {
      this.#committing = false;
      this.#setTime();
      group.deliver();
    });
  }

  async run(ms: number, each?: () => void): Promise<void> {
    await this.until(ms, () => false, each);
    await this.settle();
  }

  /** @returns whether it came to be within `ms` */
  async until(ms: number, isSo: () => boolean, each?: () => void): Promise<boolean> {
    const untilMs = this.clock.monotonicMs() + ms;
    await this.settle();
    while (!isSo()) {
      const next = this.clock.nextMs;
      if (next === undefined || next > untilMs) {
        this.clock.advance(Math.max(0, untilMs - this.clock.monotonicMs()));
        return false;
      }
      this.clock.advance(Math.max(0, next - this.clock.monotonicMs()));
      await this.settle();
      each?.();
    }
    return true;
  }

  #setTime(): void {
    if (this.#memory !== undefined) this.#memory.nowUs = this.clock.wallMs() * 1000;
  }

  // ------------------------------------------------------------------------------------------------------------ faults

  /** The leader ends; what it proposed may be lost. Somebody else leads after `ms`. */
  crashLeader(fate: "lost" | "committed", ms: number, next?: SimManager): SimManager | undefined {
    const { leader } = this;
    if (leader === undefined) return undefined;
    const { group } = this.cluster;
    if (fate === "lost") group.refuse({ kind: "unknown", cause: "the leader was lost" });
    else group.deliverUnanswered();
    leader.crash();
    group.elect(undefined);
    this.clock.after(ms, () => {
      const able = this.managers.filter((manager) => manager.up);
      const chosen = next ?? (able.length > 0 ? this.random.pick(able) : undefined);
      if (chosen?.up === true && this.cluster.group.leader === undefined) group.elect(chosen.member.log);
    });
    return leader;
  }

  /** Messages between these two are lost, both ways, until `heal`. */
  isCut(nodeId: string, managerName: string): boolean {
    const node = this.nodes.get(nodeId);
    return node === undefined || node.cutFrom.has("all") || node.cutFrom.has(managerName);
  }

  breakLinks(isBroken: (link: Link) => boolean): void {
    for (const link of Array.from(this.links)) if (isBroken(link)) link.break();
  }
}

const unheard: ReadonlySet<string> = new Set(["CONFLICT", "NOT_LEADER", "BACKPRESSURE", "STORE_CLOSED"]);

/** All members know of each other at once. */
class MemoryConsensus implements Consensus {
  readonly places: readonly MemoryPlace[];
  readonly #cluster: StoreCluster;

  constructor(cluster: StoreCluster) {
    this.#cluster = cluster;
    this.places = cluster.members.map((member) => new MemoryPlace(member));
  }

  leader(): ManagerPlace | undefined {
    return this.places.find(({ member }) => member.log === this.#cluster.group.leader);
  }
}

class MemoryPlace implements ManagerPlace {
  readonly member: Member;
  readonly isMember = true;

  constructor(member: Member) {
    this.member = member;
  }

  get name(): string {
    return this.member.log.name;
  }

  get store(): ObjectStore<ClusterSchema> {
    return this.member.store;
  }

  begin(): boolean {
    this.member.log.paused = false;
    this.member.log.catchUp();
    return true;
  }

  end(): void {
    this.member.log.paused = true;
  }
}

/** One manager: its store, and what it does as a leader. */
export class SimManager {
  readonly place: ManagerPlace;
  readonly name: string;
  readonly #world: SwarmWorld;
  dispatcher!: Dispatcher;
  logs!: LogBroker;
  #loops: LeaderLoops | undefined;
  #starts = 0;
  up = false;

  constructor(world: SwarmWorld, place: ManagerPlace) {
    this.#world = world;
    this.place = place;
    this.name = place.name;
  }

  get store(): ObjectStore<ClusterSchema> {
    return this.place.store;
  }

  /** Of the log in memory. */
  get member(): Member {
    if (!(this.place instanceof MemoryPlace)) throw new Error("this manager has a log of its own");
    return this.place.member;
  }

  start(): void {
    const { clock, options, consensus } = this.#world;
    if (!this.place.begin()) return;
    const seed = `${options.seed ?? 1} ${this.name} ${++this.#starts}`;
    const random = Random.stream(seed, "ids");
    const fill = (bytes: Uint8Array): void => {
      for (let at = 0; at < bytes.length; at++) bytes[at] = random.int(0, 256);
    };
    const parts = { store: this.store, clock, logger: silentLogger };
    this.dispatcher = new Dispatcher({
      ...parts,
      random: Random.stream(seed, "dispatcher"),
      newId: () => newId(fill),
      managers: () =>
        consensus.places
          .filter(({ isMember }) => isMember)
          .map((place) => ({ nodeId: place.name, addr: place.name, leader: place === consensus.leader() })),
      ...(options.crowd === undefined ? {} : { crowd: options.crowd }),
    });
    this.logs = new LogBroker({ store: this.store, sessions: this.dispatcher, newId: () => newId(fill) });
    this.up = true;
    const { members } = this.place;
    this.#loops = new LeaderLoops(this.store, [
      ...(members === undefined ? [] : [new RoleManager({ ...parts, members, seed })]),
      new Allocator({ ...parts, newId: () => newId(fill) }),
      new Orchestrator({ ...parts, newId: () => newId(fill) }),
      new Scheduler({ ...parts, seed }),
      this.dispatcher,
    ]);
    this.#loops.open();
  }

  /** The process is gone: nothing is said any more. */
  crash(): void {
    if (!this.up) return;
    this.up = false;
    this.#world.breakLinks((link) => link.manager === this);
    this.place.end();
    this.stop();
    this.#world.unanswered(this.store);
  }

  stop(): void {
    void this.#loops?.[Symbol.asyncDispose]();
  }
}

/** One node: a machine, and its agent while that lives. */
export class SimNode {
  readonly id: string;
  readonly host: FakeHost;
  readonly kernel = new FakeKernel();
  /** Of the agent that lives. */
  plane: FakeDataPlane | undefined;
  /** Since when a manager is reached; undefined: none is. */
  connectedMs: number | undefined;
  readonly #gateways = new Map<string, string>();
  #memory = new MapMemory();
  readonly cutFrom = new Set<string>();
  readonly #world: SwarmWorld;
  #starts = 0;
  agent: Agent | undefined;
  wasRemoved = false;

  constructor(world: SwarmWorld, id: string) {
    this.#world = world;
    this.id = id;
    this.host = new FakeHost({
      clock: world.clock,
      behaviour: (task) => {
        const image = (task.spec?.containerSpec?.image ?? "ok").split(":")[0] ?? "";
        return world.options.behaviours?.[image] ?? { prepareMs: 20, startMs: 10, stopMs: 30 };
      },
      description: {
        hostname: id,
        platform: { os: "linux", architecture: "x86_64" },
        resources: { nanoCpus: 4e9, memoryBytes: 8 * 2 ** 30 },
      },
      ...(world.options.dataPlane === undefined ? {} : { gatewayAddress: (task: Task) => this.#gatewayOf(task.id) }),
      onStop: (task) => world.options.onStop?.(this, task),
    });
  }

  /** In the node's own block, as far as the node knows its number. */
  #gatewayOf(taskId: string): string | undefined {
    const number = this.kernel.peers.get(this.id)?.number;
    const known = this.#gateways.get(taskId);
    if (known !== undefined || number === undefined) return known;
    const [a, b, c] = nodeAddresses(number).gatewayAddress.split(".").map(Number) as [number, number, number];
    const host = 2 + this.#gateways.size;
    const address = `${a}.${b}.${c + (host >> 8)}.${host & 0xff}`;
    this.#gateways.set(taskId, address);
    return address;
  }

  /** Power off and on. */
  reboot(): void {
    this.host.reboot();
    this.kernel.reboot();
  }

  start(): void {
    const { clock, options, managers } = this.#world;
    if (this.agent !== undefined) return;
    const { id, kernel } = this;
    const life = `${options.seed ?? 1} ${id} ${++this.#starts}`;
    if (options.dataPlane !== undefined) {
      const { applyMs, failPercent = 0 } = options.dataPlane;
      const random = Random.stream(life, "data plane");
      this.plane = new FakeDataPlane({ kernel, clock, random, applyMs, failures: failPercent / 100 });
    }
    this.agent = new Agent({
      nodeId: id,
      memory: this.#memory,
      executor: new FakeExecutor(this.host),
      openChannel: (address) => this.#channel(address),
      managers: managers.map(({ name }) => name),
      clock,
      random: Random.stream(life, "agent"),
      logger: silentLogger,
      ...(this.plane === undefined ? {} : { dataPlane: this.plane }),
      onRemoved: () => (this.wasRemoved = true),
      onSession: (connected) => (this.connectedMs = connected ? clock.monotonicMs() : undefined),
    });
    void this.agent.open();
  }

  /** The daemon ends: containers go on. */
  kill(): Promise<void> {
    const { agent } = this;
    this.agent = undefined;
    this.connectedMs = undefined;
    this.plane?.die();
    this.#world.breakLinks((link) => link.nodeId === this.id);
    return agent?.[Symbol.asyncDispose]() ?? Promise.resolve();
  }

  /** What its agent remembered is lost. */
  forget(): void {
    this.#memory = new MapMemory();
  }

  /** No manager hears of it. */
  cut(from = "all"): void {
    this.cutFrom.add(from);
  }

  heal(): void {
    this.cutFrom.clear();
  }

  /** Tasks that its agent would find again after a restart. */
  async remembered(): Promise<number> {
    return (await this.#memory.load()).length;
  }

  /** Containers that run on this machine now, whatever anybody believes. */
  running(serviceId?: string): number {
    let count = 0;
    for (const container of this.host.containers.values())
      if (container.state === "running" && (serviceId === undefined || container.task.serviceId === serviceId)) count++;
    return count;
  }

  #channel(address: string): AgentChannel {
    const links: Link[] = [];
    return {
      open: <Request, Response>(method: BidiMethod<Request, Response>, events: StreamEvents<Response>) => {
        const link = new Link(this.#world, this.id, address);
        links.push(link);
        return link.open(method, events);
      },
      [Symbol.dispose]: () => links.forEach((link) => link.break()),
    };
  }
}

/** One stream between an agent and a manager: in order, delayed, lost when it is cut. */
export class Link {
  readonly #world: SwarmWorld;
  readonly nodeId: string;
  readonly manager: SimManager | undefined;
  readonly #address: string;
  #closed = false;
  /** When the last message of each direction arrives. */
  #upMs = 0;
  #downMs = 0;
  #atAgent: { closed(error: ClusterError | undefined): void } | undefined;
  #atManager: { closed(error: ClusterError | undefined): void } | undefined;

  constructor(world: SwarmWorld, nodeId: string, address: string) {
    this.#world = world;
    this.nodeId = nodeId;
    this.#address = address;
    this.manager = world.managers.find(({ name }) => name === address);
  }

  open<Request, Response>(
    method: BidiMethod<Request, Response>,
    events: StreamEvents<Response>,
  ): RpcStream<Request> & { abort(error: ClusterError | undefined): void } {
    const world = this.#world;
    world.links.add(this);
    this.#atAgent = events;
    const { manager } = this;
    let served: StreamEvents<Request> | undefined;
    const serve = (): StreamEvents<Request> | undefined => {
      if (served !== undefined || manager?.up !== true) return served;
      const peer = { nodeId: this.nodeId, address: `10.9.0.${this.nodeId.replaceAll(/\D/g, "")}` };
      const atManager: RpcStream<Response> = {
        ...still,
        get closed() {
          return false;
        },
        write: (message) => {
          const bytes = method.response.encode(message);
          this.#pass("down", () => events.message(method.response.decode(Buffer.from(bytes))));
          return true;
        },
        end: () => this.#pass("down", () => this.break(undefined)),
        abort: (error) => this.#pass("down", () => this.break(error)),
      };
      const connected =
        method.path === sessionMethod.path
          ? manager.dispatcher.connect(atManager as RpcStream<never>, peer)
          : manager.logs.connect(atManager as RpcStream<never>, this.nodeId);
      served = connected as unknown as StreamEvents<Request>;
      this.#atManager = served;
      return served;
    };
    if (manager?.up !== true) this.#later(() => this.break(new RpcUnavailable(this.#address, "nobody listens")));
    return {
      ...still,
      closed: this.#closed,
      write: (message) => {
        const bytes = method.request.encode(message);
        this.#pass("up", () => serve()?.message(method.request.decode(Buffer.from(bytes))));
        return !this.#closed;
      },
      end: () => this.break(undefined),
      abort: () => this.break(undefined),
    };
  }

  /** Both ends hear of it, unless nothing gets through. */
  break(error: ClusterError | undefined = new RpcUnavailable(this.#address, "the connection broke")): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#world.links.delete(this);
    const { clock } = this.#world;
    clock.after(0, () => this.#atAgent?.closed(error));
    // A machine that is cut off is noticed by its silence.
    if (this.#world.isCut(this.nodeId, this.#address)) {
      const silent = this.#atManager;
      clock.after(2000, () => silent?.closed(new RpcUnavailable(this.nodeId, "no answer to keepalive")));
    } else clock.after(1, () => this.#atManager?.closed(error));
  }

  #pass(direction: "up" | "down", deliver: () => void): void {
    const { clock, random, options } = this.#world;
    if (this.#closed) return;
    const nowMs = clock.monotonicMs();
    const soonMs = nowMs + random.float() * (options.linkMs ?? 2);
    const atMs = Math.max(soonMs, direction === "up" ? this.#upMs : this.#downMs);
    if (direction === "up") this.#upMs = atMs;
    else this.#downMs = atMs;
    clock.after(atMs - nowMs, () => {
      if (this.#closed) return;
      if (!this.#world.isCut(this.nodeId, this.#address)) return deliver();
      // TCP gives up after a while; keepalive notices (lib/rpc: 1 s and 1 s).
      clock.after(2000, () => this.break());
    });
  }

  #later(act: () => void): void {
    this.#world.clock.after(1, act);
  }
}

const still = {
  peer: undefined,
  drained: () => Promise.resolve(),
  pause: () => {},
  resume: () => {},
};

export const replicated = (replicas: number, image = "ok", more: Service = {}): Service => ({
  mode: { replicated: { replicas } },
  taskTemplate: { containerSpec: { image } },
  ...more,
});
