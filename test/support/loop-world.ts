/**
 * Orchestrator and scheduler over one store, with an allocator that always says yes and agents that do what they are
 * told after a while: a cluster without network and disk, under virtual time, from one seed.
 */
import { newId } from "../../lib/pure/id.ts";
import { Random } from "../../lib/pure/prng.ts";
import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { LeaderLoops } from "../../manager/leadership.ts";
import { Orchestrator } from "../../manager/orchestrator/index.ts";
import { Scheduler } from "../../manager/scheduler/index.ts";
import type { Change, ClusterSchema, ObjectStore, Tx, Watch } from "../../manager/store/index.ts";
import { skep } from "../../proto/index.ts";
import { StoreCluster } from "./store-cluster.ts";

const { FailureAction, NodeState, TaskState, UpdateState } = skep.objects;
export type Task = Readonly<skep.objects.Task>;
type ServiceSpec = skep.objects.ServiceSpec.$Properties;

export interface WorldOptions {
  readonly seed?: number | string;
  readonly nodes?: number;
  /** Of each node. */
  readonly nanoCpus?: number;
}

/** What an image does, by its name. */
export type Image = "ok" | "crash" | "reject" | "job" | "fails-job" | `${"ok" | "crash" | "reject" | "job"}:${string}`;

interface Running {
  readonly id: string;
  readonly nodeId: string;
  next: { cancel(): void } | undefined;
  stopping: boolean;
}

const by = { actor: "test", cause: "test" };

export class LoopWorld {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly cluster = new StoreCluster({ auto: false });
  readonly #watch: Watch<ClusterSchema>;
  readonly #running = new Map<string, Running>();
  readonly #lost = new Set<string>();
  readonly #checks: ((change: Change<ClusterSchema>) => void)[] = [];
  #loops: LeaderLoops;
  #leaders = 0;
  readonly #again: ((tx: Tx<ClusterSchema>) => void)[] = [];
  readonly #seed: number | string;
  /** How long an agent takes for each step, at most. */
  agentMs = 200;
  stopMs = 500;

  constructor(options: WorldOptions = {}) {
    this.#seed = options.seed ?? 1;
    this.random = Random.stream(this.#seed, "world");
    this.#watch = this.store.watch({ kinds: ["task", "node", "service"] });
    for (let at = 1; at <= (options.nodes ?? 3); at++) this.addNode(`node-${at}`, options.nanoCpus);
    this.#loops = this.#start();
  }

  get store(): ObjectStore<ClusterSchema> {
    return this.cluster.store;
  }

  #start(): LeaderLoops {
    const random = Random.stream(this.#seed, `leader ${++this.#leaders}`);
    const fill = (bytes: Uint8Array): void => {
      for (let at = 0; at < bytes.length; at++) bytes[at] = random.int(0, 256);
    };
    const common = { store: this.store, clock: this.clock, logger: silentLogger };
    const loops = new LeaderLoops(this.store, [
      new Orchestrator({ ...common, newId: () => newId(fill) }),
      new Scheduler({ ...common, seed: this.#seed }),
    ]);
    loops.open();
    return loops;
  }

  /** Another leader takes over: what the old one had in mind is gone, what it proposed may be lost. */
  async failOver(): Promise<void> {
    await this.#loops[Symbol.asyncDispose]();
    this.cluster.group.refuse({ kind: "unknown", cause: "the leader was lost" });
    this.cluster.group.elect(undefined);
    this.cluster.group.elect(this.cluster.first.log);
    this.#loops = this.#start();
  }

  async stop(): Promise<void> {
    await this.#loops[Symbol.asyncDispose]();
    this.#watch.close();
  }

  /** Runs once for each change that is committed. */
  check(look: (change: Change<ClusterSchema>) => void): void {
    this.#checks.push(look);
  }

  write(change: (tx: Tx<ClusterSchema>) => void): void {
    this.cluster.nowUs = this.clock.wallMs() * 1000;
    this.store.transact(change, by, (outcome) => {
      // A write that met another one, or was lost with the leader, is made again, as any client would.
      const met = outcome.kind === "failed" && (outcome.error as { code?: string }).code === "CONFLICT";
      if (met || outcome.kind === "unknown") this.#again.push(change);
    });
  }

  /** Until nothing is under way at this moment. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3;) {
      await Promise.resolve();
      this.#look();
      for (const change of this.#again.splice(0)) this.write(change);
      if (this.cluster.group.pending > 0) {
        this.cluster.nowUs = this.clock.wallMs() * 1000;
        this.cluster.group.deliver();
        quiet = 0;
      } else quiet++;
    }
  }

  async run(ms: number, each?: () => void): Promise<void> {
    const untilMs = this.clock.monotonicMs() + ms;
    await this.settle();
    for (let next = this.clock.nextMs; next !== undefined && next <= untilMs; next = this.clock.nextMs) {
      this.clock.advance(Math.max(0, next - this.clock.monotonicMs()));
      await this.settle();
      each?.();
    }
    this.clock.advance(Math.max(0, untilMs - this.clock.monotonicMs()));
    await this.settle();
  }

  /** @returns whether it came to be within `ms` */
  async until(ms: number, isSo: () => boolean, each?: () => void): Promise<boolean> {
    const untilMs = this.clock.monotonicMs() + ms;
    await this.settle();
    while (!isSo()) {
      const next = this.clock.nextMs;
      if (next === undefined || next > untilMs) return false;
      this.clock.advance(Math.max(0, next - this.clock.monotonicMs()));
      await this.settle();
      each?.();
    }
    return true;
  }

  // ----------------------------------------------------------------------------------------------------------- objects

  addNode(id: string, nanoCpus = 4e9): void {
    this.write((tx) =>
      tx.create("node", {
        id,
        spec: { name: id, labels: { disk: "ssd" } },
        status: { state: NodeState.NODE_READY },
        description: {
          hostname: id,
          platform: { os: "linux", architecture: "x86_64" },
          resources: { nanoCpus, memoryBytes: 8 * 2 ** 30 },
        },
      }),
    );
  }

  editNode(id: string, change: (node: skep.objects.Node.$Properties) => void): void {
    this.write((tx) => tx.edit("node", id, (draft) => change(draft as skep.objects.Node.$Properties)));
  }

  setAvailability(id: string, availability: skep.objects.NodeAvailability): void {
    this.editNode(id, (node) => {
      node.spec = { ...node.spec, availability };
    });
  }

  /** The node is gone: nobody hears of its tasks. */
  lose(id: string): void {
    this.#lost.add(id);
    for (const running of this.#running.values()) if (running.nodeId === id) running.next?.cancel();
    this.editNode(id, (node) => {
      node.status = { ...node.status, state: NodeState.NODE_DOWN };
    });
  }

  regain(id: string): void {
    this.#lost.delete(id);
    this.editNode(id, (node) => {
      node.status = { ...node.status, state: NodeState.NODE_READY };
    });
    for (const running of Array.from(this.#running.values())) {
      if (running.nodeId !== id) continue;
      this.#running.delete(running.id);
      const task = this.store.current().get("task", running.id);
      if (task !== undefined) this.#attend(task);
    }
  }

  isLost(id: string): boolean {
    return this.#lost.has(id);
  }

  service(id: string, spec: ServiceSpec): void {
    this.write((tx) => tx.create("service", { id, spec: { name: id, ...spec }, specVersion: 1 }));
  }

  /** As control does it. */
  update(id: string, change: (spec: ServiceSpec) => void, status?: skep.objects.UpdateStatus.$Properties): void {
    this.write((tx) => {
      if (!tx.has("service", id)) return;
      tx.edit("service", id, (draft) => {
        const before = draft.spec ?? {};
        const spec = skep.objects.ServiceSpec.decode(skep.objects.ServiceSpec.encode(before).finish());
        change(spec);
        draft.spec = spec;
        draft.previousSpecs = [before, ...draft.previousSpecs].slice(0, 5);
        draft.specVersion++;
        draft.updateStatus = status ?? null;
        if (spec.mode?.replicatedJob != null || spec.mode?.globalJob != null)
          draft.jobStatus = { jobIteration: (draft.jobStatus?.jobIteration ?? 0) + 1 };
      });
    });
  }

  /** As `service rollback` does it. */
  rollBack(id: string): void {
    this.write((tx) => {
      tx.edit("service", id, (draft) => {
        const [spec, ...others] = draft.previousSpecs;
        if (spec === undefined) return;
        draft.previousSpecs = [draft.spec ?? {}, ...others];
        draft.spec = spec;
        draft.specVersion++;
        draft.updateStatus = { state: UpdateState.ROLLBACK_STARTED, message: "manually requested rollback" };
      });
    });
  }

  tasks(serviceId: string): Task[] {
    return [...this.store.current().find("task", "service", serviceId)];
  }

  /** Wanted and running. */
  running(serviceId: string): Task[] {
    return this.tasks(serviceId).filter(
      (task) => task.status?.state === TaskState.RUNNING && task.desiredState < TaskState.SHUTDOWN,
    );
  }

  updateState(serviceId: string): string {
    const state = this.store.current().get("service", serviceId)?.updateStatus?.state ?? UpdateState.UPDATE_NONE;
    return UpdateState[state] ?? "";
  }

  // ------------------------------------------------------------------------------------------------ allocator and agents

  #look(): void {
    for (let event = this.#watch.poll(); event !== undefined; event = this.#watch.poll()) {
      if (event.kind === "view") {
        for (const task of event.view.list("task")) this.#attend(task);
        continue;
      }
      for (const change of event.changes) {
        for (const check of this.#checks) check(change);
        if (change.kind !== "task") continue;
        if (change.after === undefined) {
          this.#running.get(change.id)?.next?.cancel();
          this.#running.delete(change.id);
        } else this.#attend(change.after);
      }
    }
  }

  #attend(task: Task): void {
    const state = task.status?.state ?? TaskState.NEW;
    if (state === TaskState.NEW) return this.#report(task.id, TaskState.PENDING, "pending task scheduling");
    if (task.nodeId === "" || state < TaskState.ASSIGNED || this.#lost.has(task.nodeId)) return;
    const known = this.#running.get(task.id);
    const running = known ?? { id: task.id, nodeId: task.nodeId, next: undefined, stopping: false };
    this.#running.set(task.id, running);
    if (state > TaskState.RUNNING) {
      running.next?.cancel();
      return;
    }
    if (task.desiredState >= TaskState.SHUTDOWN) {
      if (running.stopping) return;
      running.stopping = true;
      running.next?.cancel();
      const ms = state < TaskState.STARTING ? 1 : this.random.int(1, this.stopMs);
      running.next = this.clock.after(ms, () => this.#report(task.id, TaskState.SHUTDOWN, "shutdown"));
      return;
    }
    const next = this.#nextState(task, state);
    if (next === undefined) return;
    running.next?.cancel();
    const [to, ms] = next;
    running.next = this.clock.after(ms, () => this.#report(task.id, to, TaskState[to] ?? ""));
  }

  #nextState(task: Task, state: skep.objects.TaskState): [skep.objects.TaskState, number] | undefined {
    const image = (task.spec?.containerSpec?.image ?? "ok").split(":")[0];
    const soon = this.random.int(1, this.agentMs);
    switch (state) {
      case TaskState.ASSIGNED:
        return [TaskState.ACCEPTED, 1];
      case TaskState.ACCEPTED:
        return [TaskState.PREPARING, 1];
      case TaskState.PREPARING:
        return image === "reject" ? [TaskState.REJECTED, soon] : [TaskState.READY, soon];
      case TaskState.READY:
        return task.desiredState < TaskState.RUNNING ? undefined : [TaskState.STARTING, 1];
      case TaskState.STARTING:
        return [TaskState.RUNNING, soon];
      case TaskState.RUNNING:
        if (image === "crash" || image === "fails-job") return [TaskState.FAILED, this.random.int(1, 2000)];
        return image === "job" ? [TaskState.COMPLETE, this.random.int(100, 3000)] : undefined;
      default:
        return undefined;
    }
  }

  #report(id: string, state: skep.objects.TaskState, message: string): void {
    this.write((tx) => {
      const task = tx.get("task", id);
      if (task === undefined || (task.status?.state ?? 0) >= state) return;
      tx.edit("task", id, (draft) => {
        draft.status = { state, message, timestampUs: tx.timeUs, appliedBy: draft.nodeId };
      });
    });
  }
}

export const replicated = (replicas: number, image: Image = "ok", more: ServiceSpec = {}): ServiceSpec => ({
  mode: { replicated: { replicas } },
  taskTemplate: { containerSpec: { image } },
  ...more,
});

export { FailureAction, TaskState, UpdateState };
