/**
 * Orchestrator and scheduler under chance: services change, nodes are lost, drained and regained, tasks fail, leaders
 * change. SEED=12 replays one run; SEEDS=500 asks for more of them.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { skep } from "../../proto/index.ts";
import { FailureAction, LoopWorld, replicated, TaskState, UpdateState, type Task } from "../support/loop-world.ts";

const { NodeAvailability, UpdateOrder } = skep.objects;
const only = process.env["SEED"];
const seeds =
  only === undefined ? Array.from({ length: Number(process.env["SEEDS"] ?? 40) }, (_, at) => at + 1) : [only];

const stateOf = (task: Task): skep.objects.TaskState => task.status?.state ?? TaskState.NEW;
const isWanted = (task: Task): boolean => task.desiredState < TaskState.SHUTDOWN;

const lineOf = (task: Task): string =>
  `${task.id.slice(0, 5)} ${task.slot}@${task.nodeId} v${task.specVersion} ${stateOf(task)}/${task.desiredState} hold ${JSON.stringify(task.hold)} ${task.status?.err}`;

class Run {
  readonly world: LoopWorld;
  /** Tasks that were on a node when it was lost: nobody could stop them. */
  readonly cutOff = new Set<string>();
  readonly pendingSince = new Map<string, number>();
  readonly seed: number | string;

  constructor(seed: number | string) {
    this.seed = seed;
    this.world = new LoopWorld({ seed, nodes: 4, nanoCpus: 8e9 });
    this.world.check((change) => {
      if (change.kind !== "task" || change.before === undefined || change.after === undefined) return;
      assert.ok(change.after.desiredState >= change.before.desiredState, this.say("a desired state went back"));
      assert.ok(stateOf(change.after) >= stateOf(change.before), this.say("an observed state went back"));
    });
  }

  say(what: string): string {
    return `${what} (seed ${this.seed}, at ${this.world.clock.monotonicMs()} ms)`;
  }

  /** After every event. */
  readonly look = (): void => {
    const view = this.world.store.current();
    const nowMs = this.world.clock.monotonicMs();
    const load = new Map<string, number>();
    const waiting = new Set<string>();
    for (const service of view.list("service")) {
      const slots = new Map<string, Task[]>();
      let changing = 0;
      for (const task of view.find("task", "service", service.id)) {
        const state = stateOf(task);
        if (state === TaskState.PENDING && isWanted(task)) waiting.add(task.id);
        if (state >= TaskState.STARTING && state <= TaskState.RUNNING && !this.cutOff.has(task.id)) {
          const key = service.spec?.mode?.global == null ? String(task.slot) : task.nodeId;
          slots.set(key, [...(slots.get(key) ?? []), task]);
          const cpus = task.spec?.resources?.reservations?.nanoCpus ?? 0;
          load.set(task.nodeId, (load.get(task.nodeId) ?? 0) + cpus);
        }
        if (task.updateId === service.specVersion && isWanted(task) && state < TaskState.RUNNING) changing++;
      }
      const startFirst = service.spec?.updateConfig?.order === UpdateOrder.START_FIRST;
      for (const [key, tasks] of slots)
        assert.ok(
          tasks.length <= (startFirst ? 2 : 1),
          this.say(`${service.id} has ${tasks.length} tasks in slot ${key}: ${tasks.map(lineOf).join(", ")}`),
        );
      const parallelism = service.spec?.updateConfig?.parallelism ?? 1;
      if (parallelism > 0 && service.updateStatus?.state === UpdateState.UPDATING)
        assert.ok(changing <= parallelism, this.say(`${service.id} changes ${changing} slots at once`));
    }
    for (const [nodeId, cpus] of load) assert.ok(cpus <= 8e9, this.say(`${nodeId} runs more than it has`));
    for (const id of this.pendingSince.keys()) if (!waiting.has(id)) this.pendingSince.delete(id);
    for (const id of waiting) {
      const sinceMs = this.pendingSince.get(id) ?? nowMs;
      this.pendingSince.set(id, sinceMs);
      const reason = view.get("task", id)?.status?.reason;
      // A write that met another is made again after a second.
      assert.ok(
        nowMs - sinceMs < 1500 || reason?.noSuitableNode != null,
        this.say(`task ${id} waits without a reason`),
      );
    }
  };

  disturb(): void {
    const { world } = this;
    const { random } = world;
    const service = random.pick(["web", "api", "agent"]);
    const node = `node-${random.int(1, 5)}`;
    switch (random.int(0, 9)) {
      case 0:
        world.update("web", (spec) => (spec.mode = { replicated: { replicas: random.int(0, 8) } }));
        return;
      case 1:
      case 2: {
        const name = random.pick(["ok:2", "ok:3", "ok:4", "crash", "reject"]);
        world.update(service, (spec) => (spec.taskTemplate = { ...spec.taskTemplate, containerSpec: { image: name } }));
        return;
      }
      case 3:
        world.update("api", (spec) => {
          spec.updateConfig = {
            parallelism: random.int(0, 4),
            order: UpdateOrder.START_FIRST,
            failureAction: random.pick([FailureAction.PAUSE_UPDATE, FailureAction.CONTINUE, FailureAction.ROLLBACK]),
            maxFailureRatio: random.pick([0, 0.3]),
            delay: { seconds: random.int(0, 3) },
          };
        });
        return;
      case 4:
        return world.rollBack(service);
      case 5:
        if (world.isLost(node)) return world.regain(node);
        for (const task of world.store.current().find("task", "node", node)) this.cutOff.add(task.id);
        return world.lose(node);
      case 6:
        return world.setAvailability(
          node,
          random.pick([NodeAvailability.ACTIVE, NodeAvailability.PAUSE, NodeAvailability.DRAIN]),
        );
      case 7:
        return world.editNode(node, (each) => {
          each.spec = { ...each.spec, labels: { disk: random.pick(["ssd", "hdd"]) } };
        });
      case 8:
        void world.failOver();
        return;
    }
  }

  async play(): Promise<void> {
    const { world } = this;
    const reserve = (spec: skep.objects.ServiceSpec.$Properties, nanoCpus: number): typeof spec => ({
      ...spec,
      taskTemplate: { ...spec.taskTemplate, resources: { reservations: { nanoCpus } } },
    });
    world.service("web", reserve(replicated(4), 2e9));
    world.service(
      "api",
      reserve(replicated(3, "ok", { updateConfig: { parallelism: 2, order: UpdateOrder.START_FIRST } }), 1e9),
    );
    world.service("agent", {
      mode: { global: {} },
      taskTemplate: { containerSpec: { image: "ok" }, placement: { constraints: ["node.labels.disk==ssd"] } },
    });
    for (let event = 0; event < 12; event++) {
      await world.run(world.random.int(1, 8000), this.look);
      this.disturb();
    }
    await this.heal();
    await world.stop();
  }

  /** Faults end and specs are good: everything must come to be as it is asked for. */
  async heal(): Promise<void> {
    const { world } = this;
    for (let at = 1; at <= 4; at++) {
      const node = `node-${at}`;
      if (world.isLost(node)) world.regain(node);
      world.editNode(
        node,
        (each) => (each.spec = { ...each.spec, labels: { disk: "ssd" }, availability: NodeAvailability.ACTIVE }),
      );
    }
    await world.run(1, this.look);
    const wanted = new Map([
      ["web", 5],
      ["api", 3],
      ["agent", 4],
    ]);
    for (const [id, replicas] of wanted)
      world.update(id, (spec) => {
        if (spec.mode?.replicated != null) spec.mode = { replicated: { replicas } };
        spec.taskTemplate = { ...spec.taskTemplate, containerSpec: { image: "ok:last" } };
      });
    const isWell = (): boolean =>
      [...wanted].every(([id, replicas]) => {
        const running = world.running(id);
        const state = world.updateState(id);
        return (
          running.length === replicas &&
          running.every((task) => task.spec?.containerSpec?.image === "ok:last") &&
          world.tasks(id).every((task) => isWanted(task) || stateOf(task) > TaskState.RUNNING) &&
          state !== "UPDATING" &&
          state !== "ROLLBACK_STARTED"
        );
      });
    const well = await world.until(400_000, isWell, this.look);
    assert.ok(well, this.say(`it did not come to rest: ${this.#report()}`));
    for (const id of wanted.keys()) {
      const perSlot = new Map<string, number>();
      for (const task of world.tasks(id)) {
        const key = id === "agent" ? task.nodeId : String(task.slot);
        perSlot.set(key, (perSlot.get(key) ?? 0) + 1);
      }
      for (const count of perSlot.values())
        assert.ok(count <= 6, this.say(`${count} tasks are kept of a slot of ${id}`));
    }
  }

  #report(): string {
    return ["web", "api", "agent"]
      .map((id) => {
        const tasks = this.world.tasks(id).filter((task) => isWanted(task) || stateOf(task) <= TaskState.RUNNING);
        const lines = tasks.map(
          (task) =>
            `${task.slot}@${task.nodeId} v${task.specVersion} ${task.spec?.containerSpec?.image} ${stateOf(task)}/${task.desiredState} ${task.status?.err}`,
        );
        return `${id} ${this.world.updateState(id)}: ${lines.join(", ")}`;
      })
      .join("; ");
  }
}

test(`services keep their replicas, their budget and their reasons, and come to rest (${seeds.length} seeds)`, async () => {
  for (const seed of seeds) await new Run(seed).play();
});
