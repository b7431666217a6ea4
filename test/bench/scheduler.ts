/**
 * Tasks onto nodes. Three managers are processes of their own, with fsync, mutual TLS and encryption.
 *
 *   X1  the scheduler's board alone: groups of equal tasks with a constraint and a spread preference, no store
 *   X2  services created until each of their tasks has a node: 10,000 tasks on 1,000 nodes, 100,000 on 10,000
 *   X3  a million tasks onto 5,000 agents that are connected and say that they run them; at most eight minutes
 */
import { fork, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Random } from "../../lib/pure/prng.ts";
import { Board, nodeFactsOf } from "../../manager/scheduler/core/index.ts";
import { skep } from "../../proto/index.ts";
import type { ManagerCluster, ManagerProcess } from "../support/manager-process.ts";
import type { AgentsOrder, AgentsWord } from "./many-agents.ts";
import { order, withManagers } from "./managers.ts";
import { nodeName, type Placed } from "./placing-names.ts";
import { median, type BenchOptions, type Report } from "./report.ts";

/** Swarm's scheduler places 11 to 13 thousand tasks a second without Raft; the budget is three times that. */
const coreRateMin = 36_000;
/** Of Nomad's million: 3,750 and 1,500 a second, on clusters of hosts. */
const millionRateMin = 10_000;
/** For each of many, on a machine that does other things as well. */
const connectMsMax = 40;
/** How long connected agents without tasks are looked at. */
const restMs = 5000;

export async function run(options: BenchOptions, report: Report): Promise<void> {
  const wants = (id: string): boolean => options.only.size === 0 || options.only.has(id);
  if (wants("X1")) boardAlone(options, report);
  if (wants("X2")) await throughConsensus(options, report);
  if (wants("X3")) await ontoAgents(options, report);
}

interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly gate?: { readonly least: number } | { readonly most: number };
}

function tell(report: Report, { name, unit, ours, gate }: Figure): void {
  const text = gate === undefined ? "-" : "least" in gate ? `>= ${gate.least}` : `<= ${gate.most}`;
  const pass = gate === undefined || ("least" in gate ? ours >= gate.least : ours <= gate.most);
  report.add({ name, unit, ours, peer: undefined, ratio: undefined, gate: text, pass });
}

// ---- X1 ----------------------------------------------------------------------------------------------------------------------

function boardAlone({ rounds, quick }: BenchOptions, report: Report): void {
  const sizes = quick
    ? ([[1000, 100]] as const)
    : ([
        [10_000, 1000],
        [100_000, 10_000],
      ] as const);
  const rates = sizes.map(([tasks, nodes]) => {
    const rate = median(Array.from({ length: rounds }, () => placeOnBoard(tasks, nodes)));
    const name = `X1 board alone, ${tasks} tasks on ${nodes} nodes`;
    tell(report, { name, unit: "tasks/s", ours: rate, ...(quick ? {} : { gate: { least: coreRateMin } }) });
    return rate;
  });
  const [few, many] = rates;
  if (few !== undefined && many !== undefined)
    tell(report, { name: "X1 ten times the nodes, rate beside", unit: "x", ours: many / few, gate: { least: 0.7 } });
}

/** @returns tasks a second, with what the board is told of them */
function placeOnBoard(tasks: number, nodes: number): number {
  const { NodeState, TaskState } = skep.objects;
  const board = new Board();
  for (let at = 0; at < nodes; at++) {
    const spec = { labels: { zone: `z${at % 3}`, tier: "web" } };
    const description = { resources: { nanoCpus: 64e9, memoryBytes: 256 * 2 ** 30 } };
    board.setNode(nodeFactsOf({ id: nodeName(at), spec, description, status: { state: NodeState.NODE_READY } }));
  }
  const spec = {
    resources: { reservations: { nanoCpus: 1e7 } },
    placement: {
      constraints: ["node.labels.tier==web"],
      preferences: [{ spread: { spreadDescriptor: "node.labels.zone" } }],
    },
  };
  const pending = Array.from({ length: tasks }, (_, at) => ({
    id: `t${at}`,
    serviceId: `s${at % 10}`,
    specVersion: 1,
    spec,
    status: { state: TaskState.PENDING },
    desiredState: TaskState.RUNNING,
  }));
  const startMs = performance.now();
  for (const task of pending) board.setTask(task);
  const { placements } = board.plan(new Random(1), 0);
  const ms = performance.now() - startMs;
  if (placements.length !== tasks) throw new Error(`${placements.length} of ${tasks} tasks were placed`);
  return (tasks / ms) * 1000;
}

// ---- X2, X3: managers that are processes -----------------------------------------------------------------------------------

async function throughConsensus({ rounds, quick }: BenchOptions, report: Report): Promise<void> {
  const sizes = quick
    ? [{ nodes: 100, services: 5, replicas: 200, rounds: 1 }]
    : [
        { nodes: 1000, services: 10, replicas: 1000, rounds },
        { nodes: 10_000, services: 100, replicas: 1000, rounds: 1 },
      ];
  for (const { nodes, services, replicas, rounds: times } of sizes) {
    const all: Placed[] = [];
    let changes = 0;
    for (let round = 0; round < times; round++) {
      const placed = await withManagers({}, async (leader, cluster) => {
        await order(leader, { kind: "nodes", nodes, ready: true }, report);
        const before = termOf(cluster);
        const done = await order<Placed>(
          leader,
          { kind: "place", services, replicas, until: "assigned", limitMs: 200_000 },
          report,
        );
        changes += termOf(cluster) - before;
        return done;
      });
      all.push(placed);
    }
    const name = `X2 ${services * replicas} tasks on ${nodes} nodes`;
    const of = (pick: (placed: Placed) => number): number => median(all.map(pick));
    tell(report, {
      name: `${name}: created, allocated, placed`,
      unit: "tasks/s",
      ours: of((it) => (it.assigned / it.assignedMs) * 1000),
    });
    tellRest(report, name, all, of);
    tell(report, { name: `${name}: elections meanwhile`, unit: "elections", ours: changes, gate: { most: 0 } });
  }
}

/** The newest that a manager has told of: each election has a term of its own. */
function termOf({ managers }: ManagerCluster): number {
  const told = managers.flatMap(({ lines }) => lines.filter(({ message }) => message === "leadership"));
  return Math.max(0, ...told.map((line) => Number(line["term"])));
}

function tellRest(
  report: Report,
  name: string,
  all: readonly Placed[],
  of: (pick: (it: Placed) => number) => number,
): void {
  const unfinished = all.filter(({ tasks, assigned }) => assigned < tasks);
  tell(report, {
    name: `${name}: tasks without a node at the end`,
    unit: "tasks",
    ours: unfinished.reduce((sum, it) => sum + it.tasks - it.assigned, 0),
    gate: { most: 0 },
  });
  tell(report, { name: `${name}: until all have one`, unit: "s", ours: of((it) => it.assignedMs / 1000) });
  tell(report, {
    name: `${name}: from a task's creation to its node, p99`,
    unit: "ms",
    ours: of((it) => it.assignP99Ms),
  });
  tell(report, { name: `${name}: another caller's write meanwhile, p50`, unit: "ms", ours: of((it) => it.writeP50Ms) });
  tell(report, { name: `${name}: another caller's write meanwhile, p99`, unit: "ms", ours: of((it) => it.writeP99Ms) });
  tell(report, {
    name: `${name}: processor time of the leader for a task`,
    unit: "us",
    ours: of((it) => (it.cpuMs * 1000) / Math.max(1, it.assigned)),
  });
  tell(report, {
    name: `${name}: longest turn of the leader's event loop`,
    unit: "ms",
    ours: of((it) => it.loopMaxMs),
  });
  tell(report, {
    name: `${name}: longest pause for garbage (of the old generation)`,
    unit: "ms",
    ours: of((it) => it.collected.majorMaxMs),
  });
  for (const { collected, ms } of all)
    report.note(
      `garbage: ${Math.round((collected.allMs / ms) * 100)} % of the time, ${collected.majors} of the old generation`,
    );
  tell(report, { name: `${name}: resident memory of the leader`, unit: "MB", ours: of((it) => it.rssBytes / 1e6) });
}

async function ontoAgents({ quick, profile, ...size }: BenchOptions, report: Report): Promise<void> {
  const agents = quick ? 100 : size.agents;
  const replicas = 1000;
  const services = Math.ceil((quick ? 10_000 : size.tasks) / replicas);
  const profileTo = (ending: string): object => (profile === "" ? {} : { profile: `${profile}${ending}` });
  // Two cores for eight processes' work: a leader that is late by a moment must not be voted out for it. With 700,000 tasks
  // a turn was four to seven seconds long (docs/benchmarks.md).
  const args = ["--loops-all", "--election-ms", services * replicas > 500_000 ? "10000" : "3000"];
  await withManagers({ args }, async (leader, cluster) => {
    const many = fork(join(import.meta.dirname, "many-agents.ts"), { execArgv: ["--max-old-space-size=6000"] });
    try {
      await order(leader, { kind: "nodes", nodes: agents, ready: false }, report);
      const words = listen(many, report);
      const nodeIds = Array.from({ length: agents }, (_, at) => nodeName(at));
      const { privateKeyPem, certificates } = await cluster.authority.issueWorkers(nodeIds);
      const startMs = performance.now();
      many.send({
        address: leader.address,
        rootsPem: cluster.authority.rootsPem,
        privateKeyPem,
        agents: nodeIds.map((nodeId, at) => ({ nodeId, certificatePem: certificates[at]! })),
      } satisfies AgentsOrder);
      // Ten times as long as they took on the quiet machine.
      const connectingMs = 60_000 + agents * connectMsMax;
      await order(
        leader,
        { kind: "ready", nodes: agents, limitMs: connectingMs, ...profileTo(".connecting") },
        report,
      ).catch((error: unknown) => {
        const { welcomed = 0, sessions = 0, lost = 0, lastLoss = "" } = words.last ?? {};
        const said = `${welcomed} welcomes, ${sessions} sessions, ${lost} lost${lost > 0 ? `: ${lastLoss}` : ""}`;
        throw new Error(`${error instanceof Error ? error.message : String(error)}; the agents: ${said}`);
      });
      const name = `X3 ${services * replicas} tasks onto ${agents} agents`;
      tell(report, { name: `${name}: all agents connected`, unit: "s", ours: (performance.now() - startMs) / 1000 });
      const connected = words.last;
      const atRest = [leader.child.pid!, many.pid!].map(processorOf);
      await sleep(restMs);
      for (const [at, whose] of ["leader", "agents' process"].entries()) {
        const usedMs = processorOf([leader.child.pid!, many.pid!][at]!).allMs - atRest[at]!.allMs;
        tell(report, { name: `${name}: at rest, of a core, ${whose}`, unit: "%", ours: (usedMs / restMs) * 100 });
      }
      const term = termOf(cluster);
      const limitMs = quick ? 60_000 : 60_000 + 1.2 * size.tasks;
      const processes = [
        { name: "the leader", pid: leader.child.pid! },
        ...cluster.running
          .filter((each) => each !== leader)
          .map((each) => ({ name: `follower ${each.options.name}`, pid: each.child.pid! })),
        { name: "the agents", pid: many.pid! },
      ];
      const before = processes.map(({ pid }) => processorOf(pid));
      const placed = await order<Placed>(
        leader,
        { kind: "place", services, replicas, until: "running", limitMs, ...profileTo("") },
        report,
      );
      for (const [at, { name: whose, pid }] of processes.entries()) {
        const [first, last] = [before[at]!, processorOf(pid)];
        const perTask = (ms: number): string => `${Math.round((ms * 1000) / Math.max(1, placed.running))} us`;
        report.note(
          `${whose}: ${perTask(last.allMs - first.allMs)} of processor time a task, ` +
            `${perTask(last.mainMs - first.mainMs)} of it on the main thread, which waited ${perTask(last.waitMs - first.waitMs)} for a core`,
        );
      }
      const gate = quick ? {} : { gate: { least: millionRateMin } };
      tell(report, {
        name: `${name}: placed`,
        unit: "tasks/s",
        ours: (placed.assigned / placed.assignedMs) * 1000,
        ...gate,
      });
      tell(report, { name: `${name}: running`, unit: "tasks/s", ours: (placed.running / placed.ms) * 1000 });
      tell(report, {
        name: `${name}: running at the end`,
        unit: "tasks",
        ours: placed.running,
        gate: { least: placed.tasks },
      });
      tell(report, { name: `${name}: from a task's creation to its running, p99`, unit: "ms", ours: placed.runP99Ms });
      tellRest(report, name, [placed], (pick) => pick(placed));
      for (const manager of cluster.running.filter((each) => each !== leader))
        tell(report, {
          name: `${name}: resident memory of follower ${manager.options.name}`,
          unit: "MB",
          ours: rssBytes(manager) / 1e6,
        });
      for (const manager of cluster.managers) report.note(`${manager.options.name} said: ${complaints(manager)}`);
      const elections = termOf(cluster) - term;
      tell(report, { name: `${name}: elections meanwhile`, unit: "elections", ours: elections, gate: { most: 0 } });
      const lost = (words.last?.lost ?? 0) - (connected?.lost ?? 0);
      report.note(`sessions lost meanwhile: ${lost}${lost > 0 ? `, the last since ${words.last?.lastLoss}` : ""}`);
      tell(report, { name: `${name}: sessions lost meanwhile`, unit: "sessions", ours: lost, gate: { most: 0 } });
    } finally {
      many.kill("SIGKILL");
    }
  });
}

/** Warnings and errors, each with how often it came. */
function complaints({ lines }: ManagerProcess): string {
  const counts = new Map<string, number>();
  for (const { level, message } of lines)
    if (level === "warn" || level === "error") counts.set(message, (counts.get(message) ?? 0) + 1);
  return [...counts].map(([message, count]) => `${message} (${count})`).join(", ");
}

interface Processor {
  readonly allMs: number;
  readonly mainMs: number;
  /** Of the main thread: ready, and without a core. */
  readonly waitMs: number;
}

function processorOf(pid: number): Processor {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[11]) + Number(fields[12]);
  const [mainNs = 0, waitNs = 0] = readFileSync(`/proc/${pid}/task/${pid}/schedstat`, "utf8").split(" ").map(Number);
  return { allMs: ticks * 10, mainMs: mainNs / 1e6, waitMs: waitNs / 1e6 };
}

function listen(many: ChildProcess, report: Report): { last: AgentsWord | undefined } {
  const words: { last: AgentsWord | undefined } = { last: undefined };
  let told = 0;
  let shown = -1;
  many.on("message", ({ word }: { word: AgentsWord }) => {
    words.last = word;
    const { welcomed, sessions, lost, lastLoss } = word;
    if (++told % 5 === 0 && lost !== shown)
      report.note(`agents: ${welcomed} welcomes, ${sessions} sessions, ${lost} lost: ${lastLoss}`);
    shown = lost;
  });
  return words;
}

function rssBytes(manager: ManagerProcess): number {
  const status = readFileSync(`/proc/${manager.child.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+)/mu.exec(status)?.[1] ?? 0) * 1024;
}
