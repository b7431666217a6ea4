/**
 * A long life of a whole cluster in virtual time: services, jobs, secrets and networks come, change, fail and go; nodes are
 * lost and drained, leaders end. Now and then all is healed and what was made is removed, and then nothing may have grown:
 * not the objects of the store, not its snapshot, not what agents remember, not the memory of this process.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Random } from "../../lib/pure/prng.ts";
import type { skep } from "../../proto/index.ts";
import type { FakeBehaviour } from "../../worker/executor/fake.ts";
import { NodeAvailability, SwarmWorld, TaskState, type SimNode } from "../support/swarm-world.ts";

export interface ChurnOptions {
  readonly seed: number;
  /** In virtual time. */
  readonly hours: number;
  /** A look at what has grown after so long. */
  readonly lookEveryMs: number;
  readonly onLook?: (look: Look) => void;
}

/** What there is when all is healed and only the lasting services are left. */
export interface Look {
  readonly atMs: number;
  readonly heapBytes: number;
  readonly snapshotBytes: number;
  /** Of the store, by kind. */
  readonly objects: Readonly<Record<string, number>>;
  /** Ended tasks of the slot that has most of them. */
  readonly historyMost: number;
  readonly remembered: number;
  readonly containers: number;
  readonly timers: number;
  readonly links: number;
  /** Changes that the store has seen since the look before. */
  readonly entries: number;
}

export interface ChurnResult {
  readonly looks: readonly Look[];
  readonly acts: Readonly<Record<string, number>>;
  readonly virtualMs: number;
}

const behaviours: Readonly<Record<string, FakeBehaviour>> = {
  ok: { prepareMs: 30, startMs: 20, stopMs: 200 },
  crash: { prepareMs: 30, startMs: 5, runMs: 900, exitCode: 3 },
  reject: { prepareMs: 50, rejected: true },
  flaky: { prepareMs: 20, startMs: 10, stopMs: 100, temporaryFailures: 2 },
  job: { prepareMs: 20, startMs: 10, runMs: 1500, exitCode: 0, stopMs: 50 },
};

const kinds = ["cluster", "node", "service", "task", "network", "secret", "config", "volume", "resource"] as const;
const historyMax = 5;
/** Between two acts, on the average. */
const actEveryMs = 20_000;
const settleMs = 400_000;
const lasting = ["web", "global", "crasher"];

export class ChurnRun {
  readonly #options: ChurnOptions;
  readonly #random: Random;
  readonly #world: SwarmWorld;
  readonly #acts: Record<string, number> = {};
  readonly #passing = new Set<string>();
  readonly #looks: Look[] = [];
  #made = 0;
  #indexThen = 0;

  constructor(options: ChurnOptions) {
    this.#options = options;
    this.#random = Random.stream(options.seed, "churn");
    this.#world = new SwarmWorld({
      seed: options.seed,
      managers: 3,
      workers: 4,
      behaviours,
      addressPools: ["10.40.0.0/16"],
      subnetSize: 24,
      cluster: { orchestration: { taskHistoryRetentionLimit: historyMax } },
      // Else what is kept would still be filling when the first looks are taken.
      kept: { watchLimits: { changesMax: 2000, bytesMax: 1 << 20 }, decodedMax: 256 },
    });
  }

  async play(): Promise<ChurnResult> {
    const world = this.#world;
    await world.start();
    this.#found();
    const endMs = this.#options.hours * 3_600_000;
    let lookMs = this.#options.lookEveryMs;
    while (world.clock.monotonicMs() < endMs) {
      await world.run(this.#random.exponential(actEveryMs));
      world.cluster.group.compact();
      if (world.clock.monotonicMs() < lookMs) this.#act();
      else {
        await this.#look();
        lookMs += this.#options.lookEveryMs;
      }
    }
    await world.stop();
    return { looks: this.#looks, acts: this.#acts, virtualMs: world.clock.monotonicMs() };
  }

  #found(): void {
    const world = this.#world;
    const restart = { restartPolicy: { delay: { seconds: 1 } } };
    const monitor = { updateConfig: { parallelism: 2, monitor: { seconds: 2 } } };
    world.service("web", {
      mode: { replicated: { replicas: 6 } },
      taskTemplate: { containerSpec: { image: "ok:0" }, ...restart },
      ...monitor,
    });
    world.service("global", {
      mode: { global: {} },
      taskTemplate: { containerSpec: { image: "ok:0" }, ...restart },
      ...monitor,
    });
    world.service("crasher", {
      mode: { replicated: { replicas: 2 } },
      taskTemplate: { containerSpec: { image: "crash:0" }, ...restart },
    });
  }

  #act(): void {
    const node = this.#random.pick([...this.#world.nodes.values()]);
    const acts: Record<string, () => void> = {
      create: () => this.#create(),
      remove: () => this.#remove(this.#random.pick([...this.#passing, ""])),
      image: () => this.#change((spec) => this.#setImage(spec)),
      scale: () =>
        this.#change((spec) => {
          if (spec.mode?.replicated != null) spec.mode = { replicated: { replicas: this.#random.int(0, 10) } };
        }),
      kill: () => {
        void node.kill();
        this.#world.clock.after(this.#random.int(100, 60_000), () => node.start());
      },
      reboot: () => {
        void node.kill();
        node.host.reboot();
        this.#world.clock.after(this.#random.int(100, 60_000), () => node.start());
      },
      cut: () => {
        node.cut();
        this.#world.clock.after(this.#random.int(100, 60_000), () => node.heal());
      },
      drain: () => {
        this.#setAvailability(node, NodeAvailability.DRAIN);
        this.#world.clock.after(this.#random.int(1000, 60_000), () =>
          this.#setAvailability(node, NodeAvailability.ACTIVE),
        );
      },
      crashLeader: () => {
        const crashed = this.#world.crashLeader(this.#random.pick(["lost", "committed"]), this.#random.int(100, 2000));
        this.#world.clock.after(this.#random.int(3000, 20_000), () => {
          if (crashed?.up === false) crashed.start();
        });
      },
    };
    const name = this.#random.pick([
      "create",
      "create",
      "remove",
      "remove",
      "image",
      "image",
      "scale",
      ...Object.keys(acts),
    ]);
    this.#acts[name] = (this.#acts[name] ?? 0) + 1;
    acts[name]?.();
  }

  /** A service for a while, with a secret and at times a network of its own, or a job. */
  #create(): void {
    if (this.#passing.size >= 12) return;
    const id = `s${++this.#made}`;
    const world = this.#world;
    this.#passing.add(id);
    const networked = this.#random.chance(0.4);
    world.write((tx) => {
      if (!tx.has("secret", id)) tx.create("secret", { id, spec: { name: id, data: Buffer.from(id) } });
      if (networked && !tx.has("network", id)) tx.create("network", { id, spec: { name: id } });
    });
    const job = this.#random.chance(0.3);
    const replicas = this.#random.int(1, 6);
    world.service(id, {
      mode: job ? { replicatedJob: { totalCompletions: replicas, maxConcurrent: 2 } } : { replicated: { replicas } },
      taskTemplate: {
        containerSpec: {
          image: job ? "job" : `${this.#random.pick(["ok", "ok", "flaky", "crash", "reject"])}:0`,
          secrets: [{ secretId: id, secretName: id, file: { name: id } }],
        },
        networks: networked ? [{ target: id }] : [],
        restartPolicy: { delay: { seconds: this.#random.int(0, 5) } },
      },
      ...(networked ? { endpointSpec: { ports: [{ targetPort: 80 }] } } : {}),
      updateConfig: { parallelism: 2, monitor: { seconds: 2 } },
    });
  }

  #remove(id: string): void {
    if (!this.#passing.delete(id)) return;
    this.#world.write((tx) => {
      if (tx.has("service", id)) tx.edit("service", id, (draft) => (draft.pendingDelete = true));
    });
    // As an operator's script: what the service used goes when that is gone.
    const { clock } = this.#world;
    const clean = (): void => {
      if (this.#world.store.current().has("service", id)) return void clock.after(5000, clean);
      this.#world.write((tx) => {
        if (tx.has("service", id)) return;
        if (tx.has("secret", id)) tx.remove("secret", id);
        if (tx.has("network", id)) tx.edit("network", id, (draft) => (draft.pendingDelete = true));
      });
    };
    clock.after(5000, clean);
  }

  #change(change: (spec: skep.objects.ServiceSpec.$Properties) => void): void {
    this.#world.update(this.#random.pick(["web", "web", "global", ...this.#passing]), change);
  }

  #setImage(spec: skep.objects.ServiceSpec.$Properties): void {
    if (spec.mode?.replicatedJob != null) return;
    const image = `${this.#random.pick(["ok", "ok", "ok", "crash", "reject", "flaky"])}:${++this.#made}`;
    const containerSpec = { ...spec.taskTemplate?.containerSpec, image };
    spec.taskTemplate = { ...spec.taskTemplate, containerSpec };
  }

  #setAvailability(node: SimNode, availability: skep.objects.NodeAvailability): void {
    this.#world.write((tx) => {
      tx.edit("node", node.id, (draft) => {
        draft.spec = { ...draft.spec, availability };
      });
    });
  }

  // ---------------------------------------------------------------------------------------------------------- looking

  /** Heals all, removes what is passing, waits until it is so, and counts. @throws Error when it does not come to rest */
  async #look(): Promise<void> {
    const world = this.#world;
    // What was to be healed by itself has been.
    await world.run(61_000);
    for (const manager of world.managers) if (!manager.up) manager.start();
    if (world.leader === undefined) world.cluster.group.elect(world.managers[0]!.member.log);
    for (const node of world.nodes.values()) {
      node.heal();
      node.start();
      this.#setAvailability(node, NodeAvailability.ACTIVE);
    }
    for (const id of Array.from(this.#passing)) this.#remove(id);
    const image = `ok:${++this.#made}`;
    for (const id of ["web", "global"])
      world.update(id, (spec) => {
        if (id === "web") spec.mode = { replicated: { replicas: 6 } };
        spec.taskTemplate = { ...spec.taskTemplate, containerSpec: { image } };
      });
    const well = await world.until(settleMs, () => this.#unrest(image) === undefined);
    if (!well) throw new Error(`seed ${this.#options.seed}: it does not come to rest: ${this.#unrest(image)}`);
    // History is cut, agents forget, releases are settled.
    await world.run(120_000);
    world.cluster.group.compact();
    for (const { host } of world.nodes.values()) host.started.clear();
    const look = await this.#measure();
    this.#looks.push(look);
    this.#options.onLook?.(look);
  }

  #unrest(image: string): string | undefined {
    const view = this.#world.store.current();
    for (const node of this.#world.nodes.values())
      if (this.#world.nodeState(node.id) !== "NODE_READY") return `${node.id} is ${this.#world.nodeState(node.id)}`;
    for (const [id, count] of [
      ["web", 6],
      ["global", this.#world.nodes.size],
    ] as const) {
      const running = this.#world.running(id).filter((task) => task.spec?.containerSpec?.image === image);
      if (running.length !== count) return `${id}: ${running.length} of ${count} run`;
    }
    for (const { id } of view.list("service")) if (!lasting.includes(id)) return `service ${id} is still there`;
    for (const { id } of view.list("secret")) return `secret ${id} is still there`;
    for (const { id, spec } of view.list("network"))
      if (/^s\d+$/u.test(id)) return `network ${spec?.name ?? id} is still there`;
    return undefined;
  }

  async #measure(): Promise<Look> {
    const world = this.#world;
    const { store } = world;
    const view = store.current();
    const ended = new Map<string, number>();
    for (const task of view.list("task")) {
      if ((task.status?.state ?? 0) <= TaskState.RUNNING) continue;
      const slot = `${task.serviceId}/${task.slot > 0 ? task.slot : task.nodeId}`;
      ended.set(slot, (ended.get(slot) ?? 0) + 1);
    }
    let remembered = 0;
    let containers = 0;
    for (const node of world.nodes.values()) {
      remembered += await node.remembered();
      containers += node.host.containers.size;
    }
    const entries = view.index - this.#indexThen;
    this.#indexThen = view.index;
    return {
      atMs: world.clock.monotonicMs(),
      heapBytes: collectedHeapBytes(),
      snapshotBytes: snapshotBytesOf(store),
      objects: Object.fromEntries(kinds.map((kind) => [kind, [...view.list(kind)].length])),
      historyMost: Math.max(0, ...ended.values()),
      remembered,
      containers,
      timers: world.clock.pending,
      links: world.links.size,
      entries,
    };
  }
}

/** The whole replicated state: objects, sessions, members. */
function snapshotBytesOf({ machine }: SwarmWorld["store"]): number {
  const source = machine.snapshot();
  let bytes = 0;
  for (let chunk = source.next(64 * 1024); chunk !== undefined; chunk = source.next(64 * 1024)) bytes += chunk.length;
  return bytes;
}

let collect: (() => void) | undefined;

function collectedHeapBytes(): number {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  // The second finds what finalizers of the first let go.
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/**
 * What has grown between an early part of the life and its end. The first looks are left out: tables and code warm up.
 * @returns one line each; none when all is well
 */
export function growth(looks: readonly Look[]): readonly string[] {
  const found: string[] = [];
  const third = Math.max(1, Math.floor(looks.length / 3));
  const early = looks.slice(looks.length - 2 * third, looks.length - third);
  const late = looks.slice(-third);
  const middle = (values: readonly number[]): number =>
    [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
  const compare = (what: string, pick: (look: Look) => number, share: number, slack: number): void => {
    const [before, after] = [middle(early.map(pick)), middle(late.map(pick))];
    if (after > before * (1 + share) + slack) found.push(`${what} grew from ${before} to ${after}`);
  };
  compare("the heap", (look) => look.heapBytes, 0.05, 1_000_000);
  compare("the snapshot", (look) => look.snapshotBytes, 0.05, 8000);
  compare("timers", (look) => look.timers, 0.2, 10);
  for (const kind of kinds)
    compare(
      `objects (${kind})`,
      ({ objects }) => objects[kind] ?? 0,
      kind === "task" ? 0.1 : 0,
      kind === "task" ? 8 : 0,
    );
  for (const { atMs, historyMost, remembered, containers, objects, links } of looks) {
    const at = `at ${(atMs / 3_600_000).toFixed(1)} h`;
    if (historyMost > historyMax) found.push(`${historyMost} ended tasks in a slot ${at}`);
    if (remembered > (objects["task"] ?? 0))
      found.push(`agents remember ${remembered} tasks ${at}, there are ${objects["task"]}`);
    if (containers > (objects["task"] ?? 0)) found.push(`${containers} containers ${at} for ${objects["task"]} tasks`);
    if (links > 8) found.push(`${links} streams of four agents ${at}`);
  }
  return found;
}
