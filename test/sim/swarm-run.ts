/**
 * One life of a whole cluster from one seed: services come, change and go; nodes are lost, drained, rebooted, cut off;
 * leaders end. First everything may go wrong; then all is healed, and the cluster must come to what its specs say.
 * What must hold is asked after every event.
 */
import assert from "node:assert/strict";
import { Random } from "../../lib/pure/prng.ts";
import type { Change, ClusterSchema, ObjectStore, Tx, View, Watch } from "../../manager/store/index.ts";
import { skep } from "../../proto/index.ts";
import type { FakeBehaviour, FakeContainer } from "../../worker/executor/fake.ts";
import {
  NodeAvailability,
  SwarmWorld,
  TaskState,
  type SimManager,
  type SimNode,
  type Task,
} from "../support/swarm-world.ts";
import { RaftManagers, type RaftPlace } from "./raft-managers.ts";

/** What managers share: the real consensus over simulated disks and links, or a log in memory that is always there. */
export type Log = "raft" | "memory";

type ServiceSpec = skep.objects.ServiceSpec.$Properties;
const { UpdateOrder, FailureAction, NodeRole } = skep.objects;

export interface SwarmResult {
  readonly seed: number;
  readonly failure: string | undefined;
  /** Equal for equal seeds. */
  readonly hash: string;
  readonly changes: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly virtualMs: number;
}

const behaviours: Readonly<Record<string, FakeBehaviour>> = {
  ok: { prepareMs: 30, startMs: 20, stopMs: 200 },
  slow: { prepareMs: 2500, startMs: 700, stopMs: 2000 },
  crash: { prepareMs: 30, startMs: 5, runMs: 900, exitCode: 3 },
  reject: { prepareMs: 50, rejected: true },
  flaky: { prepareMs: 20, startMs: 10, stopMs: 100, temporaryFailures: 2 },
  job: { prepareMs: 20, startMs: 10, runMs: 1500, exitCode: 0, stopMs: 50 },
};

/** Containers of a node that could not be reached within this time may run on beside their replacements. */
const cutOffMemoryMs = 5000;
/** A task that waits longer than this says why. */
const reasonMs = 8000;
/** So long at most nodes are waited for that still send to a task, and so long after a new leader nothing is asked. */
const drainMs = 2000;
const settledMs = 5000;
const stormMs = 10_000;
const restMs = 400_000;

interface Wanted {
  replicas: number | "global";
  job: boolean;
}

/** Machines that may be managers; what a daemon does of itself it does so often. */
const machines = 5;
const daemonMs = 200;
/** An election takes about a second here. */
const electedMs = 15_000;

export class SwarmRun {
  readonly #seed: number;
  readonly #random: Random;
  /** Apart from the rest, so that a life is the same whatever is drawn of the data plane. */
  readonly #planeRandom: Random;
  readonly #world: SwarmWorld;
  /** Of the log that is not in memory. */
  #raft: RaftManagers | undefined;
  #daemonsMs = 0;
  /** When a machine was last asked to be let in. */
  readonly #admissions = new Map<RaftPlace, number>();
  /** Objects whose making was acknowledged: none may ever be missing again. */
  readonly #acknowledged: string[] = [];
  #notes = 0;
  /** Of the leaders that were seen. */
  #newestTerm = 0;
  /** The term that was read last: who led before it knows less. */
  #termRead = 0;
  #watch: { readonly store: ObjectStore<ClusterSchema>; readonly events: Watch<ClusterSchema> } | undefined;
  readonly #wanted = new Map<string, Wanted>();
  readonly #seen = new Map<string, Task>();
  readonly #versions = new Map<string, number>();
  readonly #waitsSince = new Map<string, number>();
  /** When something was last wrong with a node, so that its containers were out of reach. */
  readonly #troubled = new Map<string, number>();
  readonly #faults: Record<string, number> = {};
  /** When it was first seen that a task is to stop, or that a manager has ended it. */
  readonly #withdrawn = new Map<string, number>();
  #leader: SimManager | undefined;
  #leaderSinceMs = 0;
  /** A stop that came too early; told with the next look, since nobody hears what is thrown inside an executor. */
  #tooEarly: string | undefined;
  /** When there was last no leader, or a new one. */
  #unledMs = 0;
  #hash = 0;
  #changes = 0;
  #marker = 0;
  #looks = 0;
  /** Of the last node that came later; an id is never used again. */
  #added = 10;
  #calm: boolean;

  constructor(seed: number, log: Log = "raft") {
    this.#seed = seed;
    this.#random = Random.stream(seed, "swarm run");
    this.#planeRandom = Random.stream(seed, "data planes");
    this.#calm = this.#random.chance(0.15);
    const [managers, workers] = [this.#random.pick([1, 3]), this.#random.int(2, 6)];
    const [commitMs, linkMs] = [this.#random.pick([1, 4, 20]), this.#random.pick([1, 3, 40])];
    const raftRandom = Random.stream(seed, "raft");
    this.#world = new SwarmWorld({
      seed,
      managers,
      workers,
      behaviours,
      commitMs,
      linkMs,
      ...(log === "memory"
        ? {}
        : {
            found: (tx) => this.#foundManagers(tx),
            consensus: (clock) =>
              (this.#raft = new RaftManagers({
                seed,
                clock,
                random: raftRandom,
                machines,
                founders: managers === 1 ? 1 : raftRandom.pick([3, 3, 5]),
                diskMs: commitMs,
                linkMs: raftRandom.pick([1, 5, 30]),
                snapshotEntries: raftRandom.pick([60, 300, 100_000]),
              })),
          }),
      cluster: { dispatcher: { heartbeatPeriod: { seconds: this.#random.pick([1, 1, 2, 5]) } } },
      dataPlane: {
        applyMs: this.#planeRandom.pick([1, 30, 300]),
        failPercent: this.#planeRandom.pick([0, 0, 10]),
      },
      onStop: (node, task) => this.#checkStop(node, task),
      // A few nodes, which are treated as thousands are in every other life.
      ...(seed % 2 === 0 ? { crowd: { crowdMin: 1, sendsTurnMax: 1 + (seed % 3) } } : {}),
      addressPools: ["10.40.0.0/16"],
      subnetSize: this.#random.pick([24, 27]),
    });
  }

  async play(): Promise<SwarmResult> {
    let failure: string | undefined;
    try {
      if (!(await this.#world.until(electedMs, () => this.#world.open === 0, this.#look)))
        this.#fail("nobody leads at the beginning");
      await this.#world.start();
      this.#found();
      await this.#storm();
      await this.#heal();
      await this.#rest();
    } catch (error) {
      failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
    await this.#world.stop();
    return {
      seed: this.#seed,
      failure,
      hash: (this.#hash >>> 0).toString(16),
      changes: this.#changes,
      faults: this.#faults,
      virtualMs: this.#world.clock.monotonicMs(),
    };
  }

  // ---------------------------------------------------------------------------------------------------------- the life

  #found(): void {
    const world = this.#world;
    world.write((tx) => {
      if (!tx.has("network", "net")) tx.create("network", { id: "net", spec: { name: "net" } });
      if (!tx.has("secret", "key")) tx.create("secret", { id: "key", spec: { name: "key", data: Buffer.from("k") } });
    });
    this.#create("web", { replicas: this.#random.int(1, 9), job: false });
    this.#create("agent", { replicas: "global", job: false });
    if (this.#random.chance(0.5)) this.#create("batch", { replicas: this.#random.int(1, 6), job: true });
  }

  /** With the cluster, as a founder has it: a member without a node object would be taken out. */
  #foundManagers(tx: Tx<ClusterSchema>): void {
    for (const { name, memberId } of this.#raft?.places ?? []) {
      const isManager = memberId !== 0;
      const role = isManager ? NodeRole.MANAGER : NodeRole.WORKER;
      tx.create("node", {
        id: name,
        // They run no tasks, so that what happens to them is between the managers.
        spec: { name, role, availability: NodeAvailability.DRAIN },
        role,
        ...(isManager ? { managerStatus: { memberId, addr: name } } : {}),
      });
    }
  }

  #create(id: string, wanted: Wanted): void {
    if (this.#wanted.has(id)) return;
    this.#wanted.set(id, wanted);
    const { replicas, job } = wanted;
    const containerSpec = {
      image: job ? "job" : `ok:${++this.#marker}`,
      secrets: [{ secretId: "key", secretName: "key", file: { name: "key" } }],
    };
    const networks = id === "web" ? [{ target: "net" }] : [];
    const mode: ServiceSpec["mode"] & object =
      replicas === "global"
        ? { global: {} }
        : job
          ? { replicatedJob: { totalCompletions: replicas, maxConcurrent: 2 } }
          : { replicated: { replicas } };
    this.#world.service(id, {
      mode,
      taskTemplate: { containerSpec, networks, restartPolicy: { delay: { seconds: this.#random.int(0, 4) } } },
      ...(id === "web"
        ? { endpointSpec: { ports: [{ targetPort: 80, publishedPort: 8080 }, { targetPort: 81 }] } }
        : {}),
      updateConfig: {
        parallelism: this.#random.int(1, 4),
        monitor: { seconds: 2 },
        failureAction: this.#random.pick([FailureAction.PAUSE_UPDATE, FailureAction.CONTINUE, FailureAction.ROLLBACK]),
        order: this.#random.pick([UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST]),
      },
    });
  }

  async #storm(): Promise<void> {
    const world = this.#world;
    const untilMs = world.clock.monotonicMs() + stormMs;
    while (world.clock.monotonicMs() < untilMs) {
      await world.run(this.#random.exponential(500), this.#look);
      this.#act();
      if (this.#raft !== undefined) this.#note();
    }
  }

  #act(): void {
    const changes = ["image", "image", "scale", "remove", "publish", "drain", "activate"];
    const faults = [
      "kill",
      "kill",
      "start",
      "start",
      "cut",
      "cutOne",
      "heal",
      "heal",
      "reboot",
      "forget",
      "crash",
      "crash",
    ];
    const more = ["recover", "recover", "stepDown", "breakLink", "removeNode", "addNode"];
    const managers = [
      "crashAny",
      "crashAny",
      "crashTwo",
      "recover",
      "isolate",
      "isolate",
      "split",
      "healManagers",
      "healManagers",
      "promote",
      "promote",
      "demote",
      "demote",
      "demoteLeader",
      "loseMachine",
    ];
    const wild = [...changes, ...faults, ...more, ...(this.#raft === undefined ? [] : managers)];
    const act = this.#random.pick(this.#calm ? changes.slice(0, 4) : wild);
    this.#faults[act] = (this.#faults[act] ?? 0) + 1;
    const node = this.#random.pick([...this.#world.nodes.values()]);
    switch (act) {
      case "image":
      case "scale":
      case "remove":
      case "publish":
        return this.#change(act);
      case "drain":
      case "activate":
        return this.#setAvailability(node.id, act === "drain" ? NodeAvailability.DRAIN : NodeAvailability.ACTIVE);
      case "recover":
        return this.#recoverManager();
      case "crash":
      case "stepDown":
        return this.#loseLeader(act);
      case "crashAny":
      case "crashTwo":
      case "isolate":
      case "split":
      case "healManagers":
      case "promote":
      case "demote":
      case "demoteLeader":
      case "loseMachine":
        return this.#troubleManagers(act);
      case "removeNode":
        return this.#removeNode(node);
      case "addNode":
        if (this.#world.nodes.size < 8) this.#world.addNode(`node${++this.#added}`).start();
        return;
      default:
        return this.#trouble(act, node);
    }
  }

  #change(act: string): void {
    const id = this.#random.pick([...this.#wanted.keys()]);
    const wanted = this.#wanted.get(id);
    if (wanted === undefined) return;
    if (act === "remove") {
      if (id !== "web" || this.#calm) return;
      // Made again at the end; until then nothing is wanted of it.
      this.#wanted.delete(id);
      this.#world.write((tx) => {
        if (tx.has("service", id)) tx.edit("service", id, (draft) => (draft.pendingDelete = true));
      });
      return;
    }
    const image = this.#random.pick(["ok", "ok", "slow", "crash", "reject", "flaky"]);
    const marker = ++this.#marker;
    const replicas = wanted.replicas === "global" || wanted.job ? undefined : this.#random.int(0, 10);
    if (act === "scale" && replicas !== undefined) wanted.replicas = replicas;
    this.#world.update(id, (spec) => {
      if (act === "image" && !wanted.job)
        spec.taskTemplate = {
          ...spec.taskTemplate,
          containerSpec: { ...spec.taskTemplate?.containerSpec, image: `${this.#calm ? "ok" : image}:${marker}` },
        };
      if (act === "publish" && id === "web")
        spec.endpointSpec = { ports: [{ targetPort: 80, publishedPort: 8080 + (marker % 3) }, { targetPort: 82 }] };
      if (act === "scale" && replicas !== undefined) spec.mode = { replicated: { replicas } };
    });
  }

  #setAvailability(id: string, availability: skep.objects.NodeAvailability): void {
    this.#world.write((tx) => {
      if (!tx.has("node", id)) return;
      tx.edit("node", id, (draft) => {
        draft.spec = { ...draft.spec, availability };
      });
    });
  }

  #trouble(act: string, node: SimNode): void {
    const { clock } = this.#world;
    if (act === "kill") void node.kill();
    else if (act === "start") node.start();
    else if (act === "cut") node.cut();
    else if (act === "cutOne") node.cut(this.#random.pick(this.#world.managers).name);
    else if (act === "heal") node.heal();
    else if (act === "breakLink") this.#world.breakLinks((link) => link.nodeId === node.id);
    else {
      void node.kill();
      if (act === "reboot") node.reboot();
      else node.forget();
      clock.after(this.#random.int(100, 5000), () => node.start());
    }
  }

  #troubleManagers(act: string): void {
    const world = this.#world;
    const raft = this.#raft;
    if (raft === undefined) return;
    const random = this.#random;
    const ups = world.managers.filter(({ up }) => up);
    switch (act) {
      case "crashAny":
      case "crashTwo":
        for (let left = act === "crashAny" ? 1 : 2; left > 0 && ups.length > 0; left--)
          this.#crash(ups.splice(random.int(0, ups.length), 1)[0]!);
        return;
      case "isolate":
      case "split": {
        const leader = world.leader?.name ?? "";
        const lonely = random.chance(0.6) && leader !== "" ? leader : random.pick(raft.places).name;
        for (const { name } of raft.places) {
          const isApart = act === "isolate" ? name !== lonely : random.chance(0.5);
          if (name !== lonely && isApart) raft.cut(lonely, name);
        }
        // Its agents go with it, or are on the other side.
        if (random.chance(0.5)) for (const node of world.nodes.values()) if (random.chance(0.5)) node.cut(lonely);
        return;
      }
      case "healManagers":
        return raft.heal();
      case "promote":
      case "demote":
      case "demoteLeader": {
        const leader = world.leader?.name ?? "";
        const name = act === "demoteLeader" && leader !== "" ? leader : random.pick(raft.places).name;
        const role = act === "promote" ? NodeRole.MANAGER : NodeRole.WORKER;
        world.write((tx) => {
          const node = tx.get("node", name);
          if (node === undefined) return;
          // As control has it: never the last one that is wished for.
          const wished = [...tx.list("node")].filter(({ spec }) => spec?.role === NodeRole.MANAGER);
          if (role === NodeRole.WORKER && wished.every(({ id }) => id === name)) return;
          tx.edit("node", name, (draft) => {
            draft.spec = { ...draft.spec, role };
          });
        });
        return;
      }
      default: {
        // Its disk is lost with the machine, and the operator takes the node out by force; it comes back as another one.
        const conf = (world.leader?.place as RaftPlace | undefined)?.conf;
        const lost = random.pick(raft.places);
        const voters = (conf?.voters ?? []).map((id) => raft.placeOf(id));
        const wellAfter = voters.filter((place) => place !== lost && place?.isUp === true).length;
        if (conf === undefined || conf.votersOutgoing.length > 0 || wellAfter <= voters.length / 2) return;
        if (voters.length < 3 || lost === world.leader?.place) return;
        this.#managerOf(lost).crash();
        lost.wipe();
        world.write((tx) => {
          if (tx.has("node", lost.name)) tx.remove("node", lost.name);
        });
      }
    }
  }

  #managerOf(place: RaftPlace): SimManager {
    return this.#world.managers.find((manager) => manager.place === place)!;
  }

  #crash(manager: SimManager): void {
    const random = this.#random;
    const place = manager.place as RaftPlace;
    place.nextLoss = random.pick(["none", "all", "prefix", "subset"] as const);
    manager.crash();
    this.#world.clock.after(random.int(50, 6000), () => manager.start());
  }

  /** What the daemons of the managers' machines do: become what the node objects say. */
  #runDaemons(): void {
    const world = this.#world;
    const raft = this.#raft;
    const leader = world.leader?.place as RaftPlace | undefined;
    if (raft === undefined || leader === undefined || world.clock.monotonicMs() < this.#daemonsMs) return;
    const nowMs = world.clock.monotonicMs();
    this.#daemonsMs = nowMs + daemonMs;
    const view = leader.store.current();
    if (!view.has("cluster", "cluster")) return;
    for (const place of raft.places) {
      const { name } = place;
      const node = view.get("node", name);
      const isManager = node?.role === NodeRole.MANAGER;
      const memberId = (isManager ? node.managerStatus?.memberId : 0) ?? 0;
      if (place.memberId !== 0 && place.memberId !== memberId && place !== leader) {
        // No crash may turn that order around: consensus first, then the node object, then the machine.
        const { voters = [], votersOutgoing = [] } = leader.conf ?? {};
        if (node !== undefined && [...voters, ...votersOutgoing].includes(place.memberId))
          this.#fail(`${name} is no manager by its node object, and has a vote as member ${place.memberId}`);
        this.#managerOf(place).crash();
        place.wipe();
      }
      if (node === undefined) {
        // A new machine, as a worker at first.
        if (view.has("service", "web") && this.#random.chance(0.05))
          world.write((tx) => {
            const spec = { name, role: NodeRole.WORKER, availability: NodeAvailability.DRAIN };
            if (!tx.has("node", name)) tx.create("node", { id: name, spec, role: NodeRole.WORKER });
          });
      } else if (!isManager && node.spec?.role === NodeRole.MANAGER) this.#certify(name);
      else if (isManager && memberId !== 0 && place.memberId === 0) {
        // A disk that was lost is not made again under the same name (F12).
        if (raft.isBuried(memberId) || raft.wasOwned(memberId)) continue;
        place.own(memberId);
        this.#managerOf(place).start();
      }
      if (isManager && place.memberId === memberId && memberId !== 0 && leader.knows(memberId) === false) {
        if (nowMs < (this.#admissions.get(place) ?? 0)) continue;
        this.#admissions.set(place, nowMs + 500);
        leader.addLearner(place.record());
      }
    }
  }

  /** As the authority does it when the node asks for a manager's certificate. */
  #certify(name: string): void {
    const memberId = this.#raft?.newMemberId() ?? 0;
    this.#world.write((tx) => {
      const node = tx.get("node", name);
      if (node?.role !== NodeRole.WORKER || node.spec?.role !== NodeRole.MANAGER) return;
      tx.edit("node", name, (draft) => {
        draft.role = NodeRole.MANAGER;
        draft.managerStatus = skep.objects.ManagerStatus.create({ memberId, addr: name });
      });
    });
  }

  #loseLeader(act: "crash" | "stepDown"): void {
    const world = this.#world;
    if (this.#raft !== undefined) {
      if (world.leader === undefined) return;
      if (act === "crash") this.#crash(world.leader);
      else (world.leader.place as RaftPlace).handOver();
      return;
    }
    const ups = world.managers.filter(({ up }) => up);
    if (world.leader === undefined) return;
    this.#unledMs = world.clock.monotonicMs();
    const fate = this.#random.pick(["lost", "committed"] as const);
    const able = world.managers.length;
    if (act === "stepDown" || ups.length - 1 < able / 2) {
      const { leader } = world;
      world.cluster.group.refuse({ kind: "unknown", cause: "the leader stepped down" });
      world.cluster.group.elect(undefined);
      world.clock.after(this.#random.int(10, 2000), () => {
        const next = this.#random.pick(world.managers.filter(({ up }) => up));
        if (world.leader === undefined) world.cluster.group.elect((next ?? leader).member.log);
      });
    } else world.crashLeader(fate, this.#random.int(100, 2000));
  }

  #recoverManager(): void {
    const down = this.#world.managers.filter(({ up }) => !up);
    if (down.length > 0) this.#random.pick(down).start();
  }

  #removeNode(node: SimNode): void {
    if (this.#world.nodes.size < 3) return;
    // As an operator does it: the machine is switched off and wiped first.
    void node.kill();
    node.reboot();
    node.host.containers.clear();
    node.cut();
    this.#world.nodes.delete(node.id);
    this.#world.write((tx) => {
      if (tx.has("node", node.id)) tx.remove("node", node.id);
    });
  }

  async #heal(): Promise<void> {
    const world = this.#world;
    this.#raft?.heal();
    for (const manager of world.managers) if (!manager.up) manager.start();
    await world.run(3000, this.#look);
    if (this.#raft === undefined && world.leader === undefined)
      world.cluster.group.elect(world.managers[0]!.member.log);
    if (!(await world.until(electedMs, () => world.leader !== undefined, this.#look))) this.#fail("nobody leads");
    for (const node of world.nodes.values()) {
      node.heal();
      node.start();
      this.#setAvailability(node.id, NodeAvailability.ACTIVE);
    }
    await world.until(
      30_000,
      () => this.#wanted.has("web") || !world.store.current().has("service", "web"),
      this.#look,
    );
    this.#create("web", { replicas: 4, job: false });
    const marker = ++this.#marker;
    await world.run(500, this.#look);
    for (const [id, { job, replicas }] of this.#wanted) {
      if (job) continue;
      world.update(id, (spec) => {
        // A client that was not answered has tried again, perhaps after a later change: the last word is said here.
        if (replicas !== "global") spec.mode = { replicated: { replicas } };
        // What fails while nodes come back must not roll back what is waited for.
        spec.updateConfig = { ...spec.updateConfig, failureAction: FailureAction.CONTINUE };
        spec.taskTemplate = {
          ...spec.taskTemplate,
          containerSpec: { ...spec.taskTemplate?.containerSpec, image: `ok:${marker}` },
        };
      });
    }
  }

  async #rest(): Promise<void> {
    const image = `ok:${this.#marker}`;
    const well = await this.#world.until(restMs, () => this.#unrest(image) === undefined, this.#look);
    if (!well) this.#fail(`it does not come to rest: ${this.#unrest(image)}\n${this.#report()}`);
    this.#checkAcknowledged();
  }

  /** What is not as the specs say. */
  #unrest(image: string): string | undefined {
    const world = this.#world;
    const unsettled = this.#unsettled();
    if (unsettled !== undefined) return unsettled;
    for (const node of world.nodes.values()) {
      if (world.nodeState(node.id) !== "NODE_READY") return `node ${node.id} is ${world.nodeState(node.id)}`;
      if (node.agent?.unacknowledged !== 0) return `node ${node.id} has more to say`;
    }
    for (const [id, { replicas, job }] of this.#wanted) {
      const count = replicas === "global" ? world.nodes.size : replicas;
      if (job) {
        const slots = world.tasks(id).filter((task) => task.status?.state === TaskState.COMPLETE);
        if (new Set(slots.map(({ slot }) => slot)).size !== count) return `${id} is not complete`;
        continue;
      }
      const running = world.running(id).filter((task) => task.spec?.containerSpec?.image === image);
      if (running.length !== count) return `${id}: ${running.length} of ${count} run`;
      const real = this.#containers().filter(
        ({ task }) => task.serviceId === id && task.spec?.containerSpec?.image === image,
      );
      if (real.length !== count) return `${id}: ${real.length} containers, ${count} are wanted`;
    }
    const all = this.#containers().length;
    const wanted = [...this.#wanted.values()].reduce(
      (sum, { replicas, job }) => sum + (job ? 0 : replicas === "global" ? world.nodes.size : replicas),
      0,
    );
    if (all !== wanted) return `${all} containers run, ${wanted} are wanted`;
    for (const node of world.nodes.values())
      for (const { task, status } of node.agent?.tasks ?? []) {
        const known = world.store.current().get("task", task.id)?.status?.state;
        if (known != null && known !== status.state && known <= TaskState.RUNNING)
          return `task ${task.id} is ${status.state} on its node and ${known} in the store`;
      }
    for (const node of world.nodes.values()) {
      const wrong = this.#wrongTables(node);
      if (wrong !== undefined) return `node ${node.id}: ${wrong}`;
    }
    return undefined;
  }

  /** What of the managers is not as their nodes say, or not the same everywhere. */
  #unsettled(): string | undefined {
    const leader = this.#world.leader?.place as RaftPlace | undefined;
    if (this.#raft === undefined) return undefined;
    if (leader === undefined) return "nobody leads";
    const { voters = [], learners = [], votersOutgoing = [] } = leader.conf ?? {};
    if (learners.length > 0 || votersOutgoing.length > 0) return "the managers are being changed";
    const wished = [...leader.store.current().list("node")].filter(({ spec }) => spec?.role === NodeRole.MANAGER);
    const ids = wished.map(({ managerStatus }) => managerStatus?.memberId ?? 0).sort((a, b) => a - b);
    if (ids.join(" ") !== voters.toSorted((a, b) => a - b).join(" "))
      return `the voters are ${voters.join(" ")}, the managers ${ids.join(" ")}`;
    for (const id of voters) {
      const place = this.#raft.placeOf(id);
      if (place?.isUp !== true) return `manager ${id} is down`;
      if (place.appliedIndex !== leader.appliedIndex) return `${place.name} is behind`;
      if (place.store.machine.stateHash() !== leader.store.machine.stateHash())
        this.#fail(`the states of ${place.name} and ${leader.name} differ`);
    }
    return undefined;
  }

  /** Puts something on record, and remembers it as soon as it is acknowledged. */
  #note(): void {
    const id = `note${++this.#notes}`;
    this.#world.write(
      (tx) => {
        if (!tx.has("config", id)) tx.create("config", { id, spec: { name: id } });
      },
      () => this.#acknowledged.push(id),
    );
  }

  #checkAcknowledged(): void {
    const { leader } = this.#world;
    // One that is cut off leads on in its old term for an election timeout at most, and acknowledges nothing.
    const term = leader === undefined ? 0 : leader.store.leadership().term;
    if (term < this.#newestTerm) return;
    this.#newestTerm = term;
    const view = leader?.store.current();
    for (const id of this.#acknowledged)
      if (view?.has("config", id) === false) this.#fail(`the acknowledged ${id} is lost`);
  }

  /** What this node's data plane does otherwise than the store says; said here in another way than the dispatcher does. */
  #wrongTables({ id, kernel }: SimNode): string | undefined {
    const view = this.#world.store.current();
    const isPlaced = ({ status, nodeId }: Task): boolean =>
      nodeId !== "" && (status?.state ?? 0) >= TaskState.ASSIGNED && (status?.state ?? 0) <= TaskState.RUNNING;
    const placed = [...view.list("task")].filter(isPlaced);
    const mesh = [...view.list("network")].find(({ spec }) => spec?.ingress === true)?.id;
    const networks = new Set(
      placed.flatMap((task) => (task.nodeId === id ? task.networksAttachments.map(({ networkId }) => networkId) : [])),
    );
    const endpoints = new Map<string, string>();
    const services = new Map<string, string>();
    for (const service of view.list("service")) {
      const { endpoint, spec } = service;
      const isOpen = (endpoint?.ports ?? []).some(({ publishedPort }) => (publishedPort ?? 0) > 0);
      const tasks = placed.filter(({ serviceId }) => serviceId === service.id);
      for (const { target } of spec?.taskTemplate?.networks ?? [])
        if (networks.has(target))
          services.set(
            `${target}/${service.id}`,
            endpoint?.virtualIps?.find(({ networkId }) => networkId === target)?.addr ?? "",
          );
      if (isOpen) services.set(`${mesh}/${service.id}`, "");
      for (const task of tasks) {
        const runs = task.status?.state === TaskState.RUNNING;
        const serves = runs && task.desiredState < TaskState.SHUTDOWN;
        for (const { networkId, addresses } of task.networksAttachments)
          if (networks.has(networkId)) endpoints.set(`${networkId}/${task.id}`, `${addresses?.join(" ")} ${serves}`);
        if (isOpen && runs) endpoints.set(`${mesh}/${task.id}`, ` ${serves}`);
      }
    }
    const peers = new Map(
      [...view.list("node")]
        // The managers' machines have no data plane.
        .filter(({ id: peer }) => this.#world.nodes.has(peer))
        .map(({ id: peer, number }) => [peer, String(number)]),
    );
    const real = {
      peers: [...kernel.peers].map(([key, { number }]) => `${key} ${number}`),
      endpoints: [...kernel.endpoints].map(
        ([key, { addresses, serving }]) => `${key} ${addresses.join(" ")} ${serving}`,
      ),
      services: [...kernel.services].map(([key, { virtualIp }]) => `${key} ${virtualIp}`),
    };
    const wanted = { peers, endpoints, services };
    for (const what of ["peers", "endpoints", "services"] as const) {
      const has = real[what].toSorted().join(", ");
      const shall = [...wanted[what]]
        .map(([key, text]) => `${key} ${text}`)
        .sort()
        .join(", ");
      if (has !== shall) return `its ${what} are ${has} and not ${shall}`;
    }
    return undefined;
  }

  // ---------------------------------------------------------------------------------------------------- what must hold

  readonly #look = (): void => {
    this.#readChanges();
    if (this.#tooEarly !== undefined) this.#fail(this.#tooEarly);
    for (const { id, plane } of this.#world.nodes.values())
      if (plane?.overlapped === true) this.#fail(`the data plane of ${id} was asked twice at once`);
    if (this.#raft?.failure !== undefined) this.#fail(this.#raft.failure.message);
    const { leader } = this.#world;
    if (this.#raft !== undefined && (leader === undefined || leader !== this.#leader))
      this.#unledMs = this.#world.clock.monotonicMs();
    if (leader !== this.#leader) {
      this.#leader = leader;
      this.#leaderSinceMs = this.#world.clock.monotonicMs();
      if (leader !== undefined && this.#raft !== undefined) this.#checkAcknowledged();
    }
    this.#runDaemons();
    // A container stays for longer than three events.
    if (this.#looks++ % 3 === 0) this.#checkSlots();
  };

  #readChanges(): void {
    const world = this.#world;
    let from = world.leader;
    if (this.#raft === undefined) from ??= world.managers.find(({ up }) => up);
    else {
      // One that was left behind in a smaller half still believes that it leads: what it knows is older.
      const term = (from?.place as RaftPlace | undefined)?.leadership.term ?? 0;
      if (term < this.#termRead) return;
      this.#termRead = term;
    }
    if (from === undefined) return;
    const { store } = from;
    if (this.#watch?.store !== store) {
      this.#watch?.events.close();
      this.#watch = { store, events: store.watch({ kinds: ["task", "service", "node", "network"] }) };
    }
    const { events } = this.#watch;
    let any = false;
    for (let event = events.poll(); event !== undefined; event = events.poll()) {
      any = true;
      if (event.kind === "view") {
        for (const task of event.view.list("task")) this.#checkTask(this.#seen.get(task.id), task);
        for (const service of event.view.list("service"))
          if (service.specVersion < (this.#versions.get(service.id) ?? 0) && this.#wanted.has(service.id))
            this.#fail(`a new leader has an older spec of ${service.id}`);
      } else for (const change of event.changes) this.#checkChange(change);
    }
    if (!any) return;
    const view = store.current();
    this.#checkAddresses(view);
    this.#checkReasons(view);
  }

  #checkChange(change: Change<ClusterSchema>): void {
    this.#changes++;
    this.#hash = Math.imul(
      this.#hash ^ hashOf(`${change.kind} ${change.id} ${change.act} ${change.index}`),
      0x01000193,
    );
    if (change.kind === "task") {
      if (change.after === undefined) this.#seen.delete(change.id);
      else this.#checkTask(this.#seen.get(change.id), change.after);
      if (change.after !== undefined)
        this.#hash = Math.imul(this.#hash ^ ((change.after.status?.state ?? 0) as number), 0x01000193);
    }
    if (change.kind === "service" && change.after !== undefined) {
      const known = this.#versions.get(change.id) ?? 0;
      const created = change.act === "create";
      if (!created && change.after.specVersion < known) this.#fail(`an acknowledged spec of ${change.id} is lost`);
      this.#versions.set(change.id, change.after.specVersion);
    }
  }

  #checkTask(before: Task | undefined, task: Task): void {
    this.#seen.set(task.id, task);
    const asked = task.desiredState >= TaskState.SHUTDOWN || (task.status?.state ?? 0) > TaskState.RUNNING;
    if (asked && !this.#withdrawn.has(task.id)) this.#withdrawn.set(task.id, this.#world.clock.monotonicMs());
    if (before === undefined) return;
    if (task.desiredState < before.desiredState) this.#fail(`the desired state of ${task.id} went back`);
    if ((task.status?.state ?? 0) < (before.status?.state ?? 0)) this.#fail(`the state of ${task.id} went back`);
    if (before.nodeId !== "" && task.nodeId !== before.nodeId) this.#fail(`task ${task.id} moved to another node`);
  }

  /** No address and no port twice: among what runs or may run, and the services. */
  #checkAddresses(view: View<ClusterSchema>): void {
    const owners = new Map<string, string>();
    const claim = (what: string, owner: string): void => {
      const other = owners.get(what);
      if (other !== undefined && other !== owner) this.#fail(`${what} belongs to ${other} and to ${owner}`);
      owners.set(what, owner);
    };
    for (const { id, ipam, vni } of view.list("network")) {
      if (vni !== 0) claim(`vni ${vni}`, id);
      for (const { subnet, gateway } of ipam?.config ?? []) {
        claim(`subnet ${subnet}`, id);
        claim(`${id} ${gateway}/${subnet?.split("/")[1]}`, "gateway");
      }
    }
    for (const { id, number } of view.list("node")) if (number !== 0) claim(`number ${number}`, id);
    for (const service of view.list("service")) {
      for (const { networkId, addr } of service.endpoint?.virtualIps ?? []) claim(`${networkId} ${addr}`, service.id);
      for (const { publishedPort, protocol } of service.endpoint?.ports ?? [])
        if ((publishedPort ?? 0) > 0) claim(`port ${publishedPort}/${protocol}`, service.id);
    }
    for (const task of view.list("task")) {
      if ((task.status?.state ?? 0) > TaskState.RUNNING) continue;
      for (const { networkId, addresses } of task.networksAttachments)
        for (const address of addresses ?? []) claim(`${networkId} ${address}`, task.id);
    }
    // On the machines themselves, whatever the store says.
    for (const { task } of this.#containers())
      for (const { networkId, addresses } of task.networksAttachments)
        for (const address of addresses ?? []) claim(`${networkId} ${address}`, task.id);
  }

  /**
   * A container gets its stop signal only when no node that is well sends it anything, or when two seconds are over. A new
   * leader does not know which nodes have heard of what; that is tried in test/scenarios/tables.test.ts.
   */
  #checkStop(_node: SimNode, { id }: Task): void {
    const world = this.#world;
    const nowMs = world.clock.monotonicMs();
    const task = world.leader?.store.current().get("task", id);
    const withdrawnMs = this.#withdrawn.get(id);
    if (task === undefined || withdrawnMs === undefined || task.desiredState < TaskState.SHUTDOWN) return;
    if (nowMs >= withdrawnMs + drainMs || nowMs < this.#leaderSinceMs + settledMs) return;
    for (const other of world.nodes.values()) {
      const isWell =
        other.cutFrom.size === 0 &&
        world.nodeState(other.id) === "NODE_READY" &&
        (other.connectedMs ?? Infinity) < withdrawnMs &&
        nowMs >= (this.#troubled.get(other.id) ?? -Infinity) + cutOffMemoryMs;
      if (!isWell) continue;
      for (const { taskId, networkId, serving } of other.kernel.endpoints.values())
        if (taskId === id && serving)
          this.#tooEarly = `task ${id} is stopped at ${nowMs.toFixed(1)} ms, and ${other.id} sends to it in ${networkId}`;
    }
  }

  /** Whoever waits says why. */
  #checkReasons(view: View<ClusterSchema>): void {
    const nowMs = this.#world.clock.monotonicMs();
    if (this.#world.leader === undefined || nowMs < this.#unledMs + reasonMs) {
      this.#waitsSince.clear();
      return;
    }
    for (const state of [TaskState.NEW, TaskState.PENDING])
      for (const task of view.find("task", "state", String(state))) {
        const since = this.#waitsSince.get(task.id);
        if (since === undefined) this.#waitsSince.set(task.id, nowMs);
        else if (nowMs > since + reasonMs && task.status?.reason == null && task.desiredState < TaskState.SHUTDOWN)
          this.#fail(`task ${task.id} waits since ${since} ms and does not say why`);
      }
    for (const id of this.#waitsSince.keys()) {
      const state = view.get("task", id)?.status?.state;
      if (state == null || state > TaskState.PENDING) this.#waitsSince.delete(id);
    }
  }

  /** Never more than one container a slot where its node can be reached; two while an update starts the new one first. */
  #checkSlots(): void {
    const nowMs = this.#world.clock.monotonicMs();
    const slots = new Map<string, number>();
    for (const node of this.#world.nodes.values()) {
      for (const id of node.host.startedAgain) this.#fail(`task ${id} was started again in place`);
      if (this.#world.nodeState(node.id) !== "NODE_READY" || node.agent?.isConnected !== true)
        this.#troubled.set(node.id, nowMs);
      if (nowMs < (this.#troubled.get(node.id) ?? -Infinity) + cutOffMemoryMs) continue;
      for (const { task, state } of node.host.containers.values()) {
        if (state !== "running") continue;
        const key = task.slot > 0 ? `${task.serviceId}/${task.slot}` : `${task.serviceId}//${task.nodeId}`;
        const count = (slots.get(key) ?? 0) + 1;
        slots.set(key, count);
        const order = this.#world.store.current().get("service", task.serviceId)?.spec?.updateConfig?.order;
        const max = order === UpdateOrder.START_FIRST ? 2 : 1;
        if (count > max) this.#fail(`${count} containers of ${key} run\n${this.#report()}`);
      }
    }
  }

  #containers(): FakeContainer[] {
    return [...this.#world.nodes.values()].flatMap(({ host }) =>
      [...host.containers.values()].filter(({ state }) => state === "running"),
    );
  }

  #fail(what: string): never {
    assert.fail(`seed ${this.#seed}, at ${this.#world.clock.monotonicMs().toFixed(1)} ms: ${what}`);
  }

  #report(): string {
    const world = this.#world;
    const view = world.store.current();
    const nodes = [...world.nodes.values()].map(
      ({ id, agent, cutFrom }) =>
        `${id} ${world.nodeState(id)} ${view.get("node", id)?.spec?.availability} agent ${agent !== undefined} cut ${[...cutFrom].join(",")}`,
    );
    const tasks = [...view.list("task")]
      .filter((task) => (task.status?.state ?? 0) <= TaskState.RUNNING || task.desiredState <= TaskState.RUNNING)
      .map(
        (task) =>
          `${task.name.slice(0, 16)} ${task.slot}@${task.nodeId} v${task.specVersion} ${task.spec?.containerSpec?.image} ` +
          `${TaskState[task.status?.state ?? 0]}/${TaskState[task.desiredState]} ${task.status?.err} ${JSON.stringify(task.hold)}`,
      );
    const services = [...view.list("service")].map(
      ({ id, spec, specVersion, updateStatus, reason, pendingDelete }) =>
        `${id} v${specVersion} ${JSON.stringify(spec?.mode)} ${JSON.stringify(updateStatus)} ${JSON.stringify(reason)} ${pendingDelete}`,
    );
    const containers = this.#containers().map(({ task }) => `${task.name.slice(0, 16)} on ${task.nodeId}`);
    return [`leader ${world.leader?.name}`, ...nodes, ...services, ...tasks, ...containers].join("\n");
  }
}

function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash;
}
