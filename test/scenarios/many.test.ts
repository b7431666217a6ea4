/** Loops of a leader over many nodes and tasks: what they do at once stays bounded, and comes to an end. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { newId } from "../../lib/pure/id.ts";
import { Random } from "../../lib/pure/prng.ts";
import { createLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { Allocator } from "../../manager/allocator/index.ts";
import { LeaderLoops } from "../../manager/leadership.ts";
import { Orchestrator } from "../../manager/orchestrator/index.ts";
import { Scheduler } from "../../manager/scheduler/index.ts";
import { skep } from "../../proto/index.ts";
import { by, StoreCluster } from "../support/store-cluster.ts";

const { NodeState, TaskState } = skep.objects;

class Leader {
  readonly clock = new VirtualClock();
  readonly cluster = new StoreCluster({ auto: false });
  readonly lines: { readonly level: string; readonly message: string; readonly nodes?: number }[] = [];
  /** Entries that were under way at once, at most. */
  entriesMax = 0;
  #loops: LeaderLoops | undefined;
  #starts = 0;

  start(): void {
    const random = Random.stream(++this.#starts, "ids");
    const fill = (bytes: Uint8Array): void => {
      for (let at = 0; at < bytes.length; at++) bytes[at] = random.int(0, 256);
    };
    const logger = createLogger({ destination: { write: (line) => void this.lines.push(JSON.parse(line) as never) } });
    const common = { store: this.cluster.store, clock: this.clock, logger };
    this.#loops = new LeaderLoops(this.cluster.store, [
      new Allocator({ ...common, newId: () => newId(fill) }),
      new Orchestrator({ ...common, newId: () => newId(fill) }),
      new Scheduler({ ...common, seed: 1 }),
    ]);
    this.#loops.open();
  }

  async stop(): Promise<void> {
    await this.#loops?.[Symbol.asyncDispose]();
  }

  addNodes(count: number): void {
    for (let first = 0; first < count; first += 500)
      this.cluster.store.transact(
        (tx) => {
          for (let at = first; at < Math.min(count, first + 500); at++)
            tx.create("node", {
              id: `node${String(at).padStart(5, "0")}`,
              spec: { name: `node${at}` },
              status: { state: NodeState.NODE_READY },
              description: { resources: { nanoCpus: 64e9, memoryBytes: 2 ** 38 } },
            });
        },
        by,
        () => {},
      );
    this.cluster.group.deliver();
  }

  addService(id: string, replicas: number, env: readonly string[] = []): void {
    const taskTemplate = { containerSpec: { image: "a", env: [...env] } };
    this.cluster.store.transact(
      (tx) =>
        tx.create("service", {
          id,
          specVersion: 1,
          spec: { name: id, mode: { replicated: { replicas } }, taskTemplate },
        }),
      by,
      () => {},
    );
  }

  tasks(state: skep.objects.TaskState): number {
    return [...this.cluster.store.current().list("task")].filter(({ status }) => status?.state === state).length;
  }

  /** Turn by turn, for so long. */
  async run(ms: number): Promise<void> {
    const untilMs = this.clock.monotonicMs() + ms;
    for (;;) {
      for (let quiet = 0; quiet < 3; quiet++) {
        await Promise.resolve();
        const { pending } = this.cluster.group;
        this.entriesMax = Math.max(this.entriesMax, pending);
        if (pending === 0) continue;
        this.cluster.nowUs = this.clock.wallMs() * 1000;
        this.cluster.group.deliver();
        quiet = -1;
      }
      const next = this.clock.nextMs;
      if (next === undefined || next > untilMs) break;
      this.clock.advance(Math.max(0, next - this.clock.monotonicMs()));
    }
  }
}

test("of 4,500 nodes 405 are told that there is no number for them, in few entries at once and one line", async () => {
  const leader = new Leader();
  leader.addNodes(4500);
  leader.start();
  await leader.run(5000);
  const nodes = [...leader.cluster.store.current().list("node")];
  assert.equal(new Set(nodes.map(({ number }) => number).filter((number) => number !== 0)).size, 4095);
  assert.equal(nodes.filter(({ number, reason }) => number === 0 && reason?.addressPoolFull != null).length, 405);
  assert.ok(leader.entriesMax <= 6, `${leader.entriesMax} entries`);
  const said = leader.lines.filter(({ message }) => message.startsWith("nodes have no number"));
  assert.deepEqual(
    said.map(({ nodes: count }) => count),
    [405],
  );
  await leader.stop();
});

test("tasks of 8 KB are placed, though the batches of 200 are too large for an entry", async () => {
  const leader = new Leader();
  leader.addNodes(10);
  leader.start();
  leader.addService("web", 420, ["A=".padEnd(8000, "x")]);
  await leader.run(2000);
  assert.equal(leader.tasks(TaskState.ASSIGNED), 420);
  await leader.stop();
});

test("a leader that takes over 6,000 tasks reads them over several turns, and has nothing to do", async () => {
  const leader = new Leader();
  leader.addNodes(20);
  leader.start();
  for (let at = 0; at < 6; at++) leader.addService(`s${at}`, 1000);
  await leader.run(3000);
  assert.equal(leader.tasks(TaskState.ASSIGNED), 6000);
  assert.ok(leader.entriesMax <= 20, `${leader.entriesMax} entries`);
  await leader.stop();
  const before = leader.cluster.store.current().index;
  leader.start();
  // The first steps are taken at once, and the others wait for their turns.
  assert.ok(leader.clock.pending > 0);
  await leader.run(3000);
  assert.equal(leader.cluster.store.current().index, before);
  leader.addService("more", 10);
  await leader.run(3000);
  assert.equal(leader.tasks(TaskState.ASSIGNED), 6010);
  await leader.stop();
});
