/**
 * A leader's loop that fell behind reads everything anew. What it gave a moment before, and what is not committed yet, does
 * not stand in that view: it must not be given to somebody else.
 */
import assert from "node:assert/strict";
import { test } from "node:test";

import { createLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { Allocator } from "../../manager/allocator/index.ts";
import type { ClusterSchema, Tx } from "../../manager/store/index.ts";
import { Scheduler } from "../../manager/scheduler/index.ts";
import { skep } from "../../proto/index.ts";
import { by, item, StoreCluster } from "../support/store-cluster.ts";

const { NodeState, TaskState } = skep.objects;

/** A leader whose watches keep twenty changes. */
class Leader {
  readonly clock = new VirtualClock();
  readonly cluster = new StoreCluster({ auto: false, watchLimits: { changesMax: 20, bytesMax: 1_000_000 } });
  readonly parts = {
    store: this.cluster.store,
    clock: this.clock,
    logger: createLogger({ destination: { write: () => undefined } }),
  };

  propose(change: (tx: Tx<ClusterSchema>) => void): void {
    this.cluster.store.transact(change, by, () => undefined);
  }

  /** More than any watch keeps, none of it for a loop. */
  proposeFlood(): void {
    this.propose((tx) => {
      for (let at = 0; at < 30; at++) tx.put("resource", item(`flood${at}`, "x"));
    });
  }

  /** Commits so many of what waits, and lets the loops see it; no time passes. */
  async commit(count: number): Promise<void> {
    this.cluster.group.deliver(count);
    for (let round = 0; round < 10; round++) await Promise.resolve();
  }

  /** Nothing is committed meanwhile. */
  async pass(ms: number): Promise<void> {
    this.clock.advance(ms);
    await this.commit(0);
  }

  /** What is under way is committed, and two seconds pass. */
  async settle(): Promise<void> {
    const untilMs = this.clock.monotonicMs() + 2000;
    while (this.clock.monotonicMs() < untilMs) {
      while (this.cluster.group.pending > 0) await this.commit(Infinity);
      await this.pass(Math.min(this.clock.nextMs ?? untilMs, untilMs) - this.clock.monotonicMs());
    }
  }

  task(id: string): Readonly<skep.objects.Task> {
    const task = this.cluster.store.current().get("task", id);
    assert.ok(task !== undefined);
    return task;
  }
}

test("an address that is on its way to a task is given to no other when the allocator reads everything anew", async () => {
  const leader = new Leader();
  const allocator = new Allocator({ ...leader.parts, newId: () => "a".repeat(25) });
  const network = (id: string, spec: skep.objects.NetworkSpec.$Properties) => (tx: Tx<ClusterSchema>) =>
    tx.create("network", { id, spec: { name: id, ...spec } });
  const task = (id: string, networks: readonly string[]) => (tx: Tx<ClusterSchema>) =>
    tx.create("task", {
      id,
      desiredState: TaskState.RUNNING,
      status: { state: TaskState.NEW },
      spec: { networks: networks.map((target) => ({ target })) },
    });
  leader.propose(network("web", { driver: { name: "overlay" } }));
  // It was there first, and waits for a network that is still to come.
  leader.propose(task("early", ["late", "web"]));
  await leader.settle();
  allocator.start();
  await leader.settle();
  assert.equal(leader.task("early").status?.state, TaskState.NEW);

  leader.propose(task("first", ["web"]));
  leader.propose(network("late", { driver: { name: "bridge" }, scope: "local" }));
  leader.proposeFlood();
  await leader.commit(1);
  assert.equal(leader.cluster.group.pending, 3, "its address is on its way, behind the others");
  await leader.commit(2);
  await leader.pass(5);
  await leader.settle();
  allocator.stop();

  const given = ["early", "first"].map((id) => {
    const { status, networksAttachments } = leader.task(id);
    assert.equal(status?.state, TaskState.PENDING, id);
    return networksAttachments.find(({ networkId }) => networkId === "web")?.addresses?.[0];
  });
  assert.equal(new Set(given).size, 2, given.join(" and "));
});

test("room that is on its way to a task is given to no other when the scheduler reads everything anew", async () => {
  const leader = new Leader();
  const scheduler = new Scheduler({ ...leader.parts, seed: 1 });
  const task = (id: string) => (tx: Tx<ClusterSchema>) =>
    tx.create("task", {
      id,
      serviceId: `service of ${id}`,
      desiredState: TaskState.RUNNING,
      status: { state: TaskState.PENDING },
      spec: { resources: { reservations: { nanoCpus: 1e9 } } },
    });
  leader.propose((tx) =>
    tx.create("node", {
      id: "node",
      spec: { name: "node" },
      status: { state: NodeState.NODE_READY },
      description: { resources: { nanoCpus: 1e9, memoryBytes: 2 ** 30 } },
    }),
  );
  await leader.settle();
  scheduler.start();
  await leader.settle();

  leader.propose(task("b"));
  // Looked at before the other one, when everything is read anew.
  leader.propose(task("a"));
  leader.proposeFlood();
  await leader.commit(1);
  assert.equal(leader.cluster.group.pending, 3, "it is on its way to the node, behind the others");
  await leader.commit(2);
  await leader.pass(5);
  await leader.settle();
  scheduler.stop();

  const states = ["a", "b"].map((id) => leader.task(id).status?.state);
  assert.deepEqual(states, [TaskState.PENDING, TaskState.ASSIGNED], "the node has room for one");
});
