/**
 * A manager process that also makes load on itself when its parent asks: proposers and readers inside the process, through
 * the store's own interface, as the control loops are.
 */
import { monitorEventLoopDelay, performance } from "node:perf_hooks";

import { skep } from "../../proto/index.ts";
import { carryOutOrders, openForBench } from "./bench-manager.ts";

export type Order =
  | { readonly kind: "propose"; readonly proposers: number; readonly ms: number; readonly bytes: number }
  | { readonly kind: "read"; readonly readers: number; readonly ms: number }
  | { readonly kind: "tasks"; readonly count: number }
  | { readonly kind: "fill"; readonly megabytes: number }
  | { readonly kind: "snapshot" }
  | { readonly kind: "memory" };

export interface Done {
  readonly count: number;
  readonly ms: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly loopMaxMs: number;
  readonly rssBytes: number;
}

const manager = await openForBench({ consensusOnly: true });
carryOutOrders((order) => carryOut(order as Order));

const { store } = manager;
const why = { actor: "bench", cause: "load" };

async function carryOut(order: Order): Promise<Done> {
  const loop = monitorEventLoopDelay({ resolution: 5 });
  loop.enable();
  const startedMs = performance.now();
  const latencies: number[] = [];
  let count = 0;
  switch (order.kind) {
    case "propose":
      count = await propose(order, latencies);
      break;
    case "read":
      count = await readFor(order, latencies);
      break;
    case "tasks":
      count = await createTasks(order.count);
      break;
    case "fill":
      count = await fill(order.megabytes);
      break;
    case "snapshot": {
      const before = manager.raft.status()?.snapshotIndex ?? 0;
      manager.raft.takeSnapshot();
      while ((manager.raft.status()?.snapshotIndex ?? 0) <= before)
        await new Promise((resolve) => setTimeout(resolve, 20));
      break;
    }
    case "memory":
      globalThis.gc?.();
      break;
  }
  loop.disable();
  latencies.sort((a, b) => a - b);
  return {
    count,
    ms: performance.now() - startedMs,
    p50Ms: latencies[Math.floor(latencies.length * 0.5)] ?? 0,
    p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? 0,
    loopMaxMs: Math.max(0, loop.max / 1e6 - 5),
    rssBytes: process.memoryUsage.rss(),
  };
}

/** Each proposer has one update in flight. A refused one (leadership moved) does not count. */
function propose({ proposers, ms, bytes }: Extract<Order, { kind: "propose" }>, latencies: number[]): Promise<number> {
  const payload = Buffer.alloc(bytes, 7);
  const untilMs = performance.now() + ms;
  let committed = 0;
  let open = proposers;
  return new Promise((resolve) => {
    const next = (proposer: number): void => {
      const startMs = performance.now();
      if (startMs >= untilMs) {
        if (--open === 0) resolve(committed);
        return;
      }
      store.transact(
        (tx) => tx.put("resource", { id: `p${proposer}`, kind: "kv", payload }),
        why,
        (outcome) => {
          if (outcome.kind === "committed") {
            committed++;
            if (committed % 16 === 0 || proposers === 1) latencies.push(performance.now() - startMs);
          }
          // Refusals come at once: asking again without a pause, all proposers would keep the process from ever hearing who
          // leads now.
          if (outcome.kind === "committed") next(proposer);
          else setTimeout(next, 10, proposer);
        },
      );
    };
    for (let proposer = 0; proposer < proposers; proposer++) next(proposer);
  });
}

async function readFor({ readers, ms }: Extract<Order, { kind: "read" }>, latencies: number[]): Promise<number> {
  const untilMs = performance.now() + ms;
  let count = 0;
  const reader = async (): Promise<void> => {
    while (performance.now() < untilMs) {
      const startMs = performance.now();
      await store.read((view) => view.get("resource", "p0"));
      count++;
      if (count % 64 === 0) latencies.push(performance.now() - startMs);
    }
  };
  await Promise.all(Array.from({ length: readers }, reader));
  return count;
}

/** Tasks as a scheduler makes them, 200 in a transaction. */
async function createTasks(count: number): Promise<number> {
  const { TaskState } = skep.objects;
  for (let first = 0; first < count; first += 200) {
    await store.update((tx) => {
      for (let at = first; at < Math.min(count, first + 200); at++) {
        tx.create("task", {
          id: `task${String(at).padStart(21, "0")}`,
          serviceId: `service${at % 100}`,
          nodeId: `node${at % 1000}`,
          slot: Math.floor(at / 100) + 1,
          desiredState: TaskState.RUNNING,
          status: { state: TaskState.RUNNING, message: "started" },
          spec: { containerSpec: { image: "registry.example/app:1", env: ["A=1", "B=2"], labels: { tier: "web" } } },
        });
      }
    }, why);
  }
  return count;
}

/** Objects of 64 KiB that do not compress. */
async function fill(megabytes: number): Promise<number> {
  const payload = Buffer.alloc(64 * 1024);
  let seed = 1;
  for (let at = 0; at < payload.length; at++)
    payload[at] = (seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff) >>> 16;
  const count = megabytes * 16;
  for (let first = 0; first < count; first += 12) {
    await store.update((tx) => {
      for (let at = first; at < Math.min(count, first + 12); at++) {
        tx.put("resource", { id: `fill${at}`, kind: "kv", payload: Buffer.concat([payload, Buffer.from(String(at))]) });
      }
    }, why);
  }
  return count;
}
