/**
 * A manager process of `bench -- scheduler`: when its parent asks, it makes nodes and services through its own store, and
 * watches until every task of them has a node, or runs. `--loops placing` runs of a leader's loops those that tasks go
 * through on their way to a node; `all` runs a whole manager's.
 */
import { writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { constants, createHistogram, monitorEventLoopDelay, performance, PerformanceObserver } from "node:perf_hooks";

import { newId } from "../../lib/pure/id.ts";
import { createLogger, fillFromPool, realClock, TurnClock } from "../../lib/runtime/index.ts";
import { Allocator } from "../../manager/allocator/index.ts";
import { LeaderLoops } from "../../manager/leadership.ts";
import { Orchestrator } from "../../manager/orchestrator/index.ts";
import { Scheduler } from "../../manager/scheduler/index.ts";
import type { Change, ClusterSchema } from "../../manager/store/index.ts";
import { skep } from "../../proto/index.ts";
import { carryOutOrders, openForBench } from "./bench-manager.ts";
import { nodeName, type Placed, type PlacingOrder } from "./placing-names.ts";
import { untilAll } from "./until-all.ts";

const whole = process.argv.includes("--loops-all");
process.argv = process.argv.filter((word) => !word.startsWith("--loops-"));
const manager = await openForBench({ consensusOnly: !whole });
carryOutOrders((order) => carryOut(order as PlacingOrder));

const { store } = manager;
const by = { actor: "bench", cause: "load" };
const { NodeState, TaskState } = skep.objects;
let services = 0;

if (!whole) {
  const parts = { store, clock: new TurnClock(realClock), logger: createLogger({ level: "warn" }) };
  const fresh = (): string => newId(fillFromPool);
  new LeaderLoops(store, [
    new Allocator({ ...parts, newId: fresh }),
    new Orchestrator({ ...parts, newId: fresh }),
    new Scheduler({ ...parts, seed: 1 }),
  ]).open();
}

async function carryOut(order: PlacingOrder): Promise<Placed | object> {
  switch (order.kind) {
    case "nodes":
      await makeNodes(order.nodes, order.ready);
      return {};
    case "ready":
      return await profiled(order.profile, () => untilReady(order));
    case "place":
      return await profiled(order.profile, () => place(order));
    case "memory": {
      globalThis.gc?.();
      const { rss, heapUsed, external } = process.memoryUsage();
      return { rssBytes: rss, heapBytes: heapUsed, externalBytes: external };
    }
  }
}

async function untilReady({ nodes, limitMs }: Extract<PlacingOrder, { kind: "ready" }>): Promise<object> {
  const found = (): number => store.current().countBy("node", "state", String(NodeState.NODE_READY));
  await untilAll("agents are connected", { count: nodes, found, limitMs, clock: realClock });
  return {};
}

async function makeNodes(count: number, ready: boolean): Promise<void> {
  const state = ready ? NodeState.NODE_READY : NodeState.NODE_UNKNOWN;
  for (let first = 0; first < count; first += 200)
    await store.update((tx) => {
      for (let at = first; at < Math.min(count, first + 200); at++)
        tx.create("node", {
          id: nodeName(at),
          spec: { name: nodeName(at), labels: { zone: `z${at % 3}`, tier: "web" } },
          status: { state },
          description: {
            hostname: nodeName(at),
            platform: { os: "linux", architecture: "x86_64" },
            resources: { nanoCpus: 64e9, memoryBytes: 256 * 2 ** 30 },
          },
        });
    }, by);
}

/** What Node's types do not tell of an entry about garbage. */
interface Pause {
  readonly duration: number;
  readonly detail: { readonly kind: number };
}

async function place(order: Extract<PlacingOrder, { kind: "place" }>): Promise<Placed> {
  const tasks = order.services * order.replicas;
  const loop = monitorEventLoopDelay({ resolution: 5 });
  loop.enable();
  const collected = { allMs: 0, majorMaxMs: 0, majors: 0 };
  const collections = new PerformanceObserver((list) => {
    for (const { duration, detail } of list.getEntries() as unknown as readonly Pause[]) {
      collected.allMs += duration;
      if (detail.kind !== constants.NODE_PERFORMANCE_GC_MAJOR) continue;
      collected.majors++;
      collected.majorMaxMs = Math.max(collected.majorMaxMs, duration);
    }
  });
  collections.observe({ entryTypes: ["gc"] });
  const assignMs = createHistogram();
  const runMs = createHistogram();
  const writeMs = createHistogram();
  const watch = store.watch({ kinds: ["task"], since: store.current().index });
  const startMs = performance.now();
  const cpuBefore = process.cpuUsage();
  let assigned = 0;
  let running = 0;
  let assignedMs = 0;
  let loopMaxMs = 0;
  const read = (change: Change<ClusterSchema>): void => {
    if (change.kind !== "task" || change.after === undefined) return;
    const { status, meta } = change.after;
    const before = change.before?.status?.state ?? TaskState.NEW;
    const state = status?.state ?? TaskState.NEW;
    const sinceMs = ((meta?.updatedAtUs ?? 0) - (meta?.createdAtUs ?? 0)) / 1000;
    if (before < TaskState.ASSIGNED && state >= TaskState.ASSIGNED) {
      assignMs.record(Math.max(1, Math.round(sinceMs)));
      if (++assigned === tasks) assignedMs = performance.now() - startMs;
    }
    if (before < TaskState.RUNNING && state === TaskState.RUNNING) {
      runMs.record(Math.max(1, Math.round(sinceMs)));
      running++;
    }
  };
  const over = (): boolean => (order.until === "assigned" ? assigned : running) >= tasks;
  let done = false;
  let refused: Error | undefined;
  const writer = setInterval(() => {
    const askedMs = performance.now();
    store.transact(
      (tx) => tx.put("resource", { id: "other", kind: "kv", payload: Buffer.alloc(64) }),
      by,
      () => writeMs.record(Math.max(1, Math.round(performance.now() - askedMs))),
    );
  }, 100);
  const limit = setTimeout(() => {
    done = true;
    watch.close();
  }, order.limitMs);
  const teller = setInterval(() => {
    const longest = Math.max(0, loop.max / 1e6 - 5);
    loopMaxMs = Math.max(loopMaxMs, longest);
    loop.reset();
    const heapMb = Math.round(process.memoryUsage().heapUsed / 1e6);
    process.send!({ progress: { assigned, running, turnMs: Math.round(longest), heapMb } });
  }, 5000);
  try {
    for (let at = 0; at < order.services; at++) {
      const id = `service${++services}`;
      store.transact(
        (tx) => tx.create("service", { id, specVersion: 1, spec: specOf(id, order.replicas) }),
        by,
        (outcome) => {
          // Its tasks would be waited for in vain.
          if (outcome.kind === "committed") return;
          refused = outcome.error;
          watch.close();
        },
      );
    }
    for await (const event of watch) {
      if (event.kind === "view") throw new Error("the bench's own watch fell behind");
      for (const change of event.changes) read(change);
      if (over() || done) break;
    }
    if (refused !== undefined) throw refused;
  } finally {
    clearInterval(writer);
    clearInterval(teller);
    clearTimeout(limit);
    loop.disable();
    collections.disconnect();
  }
  const cpu = process.cpuUsage(cpuBefore);
  return {
    tasks,
    cpuMs: (cpu.user + cpu.system) / 1000,
    assigned,
    running,
    assignedMs: assignedMs === 0 ? performance.now() - startMs : assignedMs,
    ms: performance.now() - startMs,
    assignP99Ms: assignMs.percentile(99),
    runP99Ms: runMs.percentile(99),
    writeP50Ms: writeMs.percentile(50),
    writeP99Ms: writeMs.percentile(99),
    loopMaxMs: Math.max(loopMaxMs, loop.max / 1e6 - 5),
    collected,
    rssBytes: process.memoryUsage.rss(),
  };
}

/** Opens in the tools of Chromium. */
async function profiled<T>(file: string | undefined, act: () => Promise<T>): Promise<T> {
  if (file === undefined) return await act();
  const session = new Session();
  session.connect();
  try {
    await session.post("Profiler.enable");
    await session.post("Profiler.setSamplingInterval", { interval: 1000 });
    await session.post("Profiler.start");
    const done = await act();
    const { profile } = await session.post("Profiler.stop");
    writeFileSync(file, JSON.stringify(profile));
    return done;
  } finally {
    session.disconnect();
  }
}

function specOf(name: string, replicas: number): skep.objects.ServiceSpec.$Properties {
  return {
    name,
    mode: { replicated: { replicas } },
    taskTemplate: {
      containerSpec: { image: "registry.example/app:1", env: ["A=1", "B=2"], labels: { tier: "web" } },
      resources: { reservations: { nanoCpus: 1e7, memoryBytes: 16 * 2 ** 20 } },
      placement: {
        constraints: ["node.labels.tier==web"],
        preferences: [{ spread: { spreadDescriptor: "node.labels.zone" } }],
      },
    },
  };
}
