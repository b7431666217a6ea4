/**
 * Services beside Debian's dockerd in swarm mode: the same requests of the Engine API to both, the same image, in turns.
 * Tasks end at once when they are asked to (stop signal KILL), and but for V6 name no network: each gives them the way out
 * that it gives a service by default.
 *
 *   V1  create 5, 20 and 50 replicas until the manager knows all of them to run; one node
 *   V2  update 20 replicas to another image, five at a time, no delay, until the new ones run and no old one is wanted
 *   V3  remove 20 replicas until no container is left
 *   V4  a worker is lost (kill -9 of all of it) until its tasks run elsewhere; three managers, two workers
 *   V5  kill -9 of the leader's daemon until the next command is accepted
 *   V6  create 50 replicas on an overlay network; one node, dockerd's without a service address (its takes IPVS). Where its
 *       overlay does not work in this kernel at all, beside its 50 without a network, which is less work still
 *   V7  `run --rm IMAGE true` from the start of each one's own command line to its end; on the default network and on none
 */
import { spawnSync } from "node:child_process";
import { setTimeout as wait } from "node:timers/promises";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { until, type Versioned } from "./engine.ts";
import { median, type BenchOptions, type Report } from "./report.ts";
import { boxImage, buildAll, DockerSwarm, form, SkepSwarm, type Swarm } from "./swarms.ts";

/** By the name of the figure. */
type Samples = Map<string, { ours: number[]; peer: number[] }>;

const secondNs = 1_000_000_000;

export async function run(options: BenchOptions, report: Report): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error("bench service needs root: hosts are network namespaces");
  buildAll();
  const wants = (id: string): boolean => options.only.size === 0 || options.only.has(id);
  if (DockerSwarm.hindrance !== undefined) report.note(`service: ours alone, ${DockerSwarm.hindrance}`);
  if (["V1", "V2", "V3", "V7"].some(wants)) await onOneNode(options, wants, report);
  if (wants("V6")) await onOverlay(options, report);
  if (["V4", "V5"].some(wants)) await onFiveNodes(options, wants, report);
}

/** Both, or ours alone where there is no docker.io. Whatever happens, nothing of them stays. */
async function withSwarms(
  options: { readonly nodes: number; readonly managers: number; readonly heartbeatSeconds: number },
  act: (ours: Swarm, peer: Swarm | undefined, images: readonly string[]) => Promise<void>,
): Promise<void> {
  const opened: Swarm[] = [];
  try {
    opened.push(await SkepSwarm.open("skepbo", options.nodes));
    if (DockerSwarm.hindrance === undefined) opened.push(await DockerSwarm.open("skepbd", options.nodes));
    const images = [await boxImage("1"), await boxImage("2")];
    for (const swarm of opened) await form(swarm, options.managers, images, options.heartbeatSeconds);
    const [ours, peer] = opened as [Swarm, Swarm | undefined];
    await act(ours, peer, await imageIds(ours));
  } finally {
    for (const swarm of opened) await swarm.close();
  }
}

/** By id: a name would make dockerd ask a registry for each task, which is not what is measured. */
async function imageIds(swarm: Swarm): Promise<string[]> {
  const [host] = swarm.hosts as [Host];
  const ids: string[] = [];
  for (const version of ["1", "2"]) {
    const { Id } = await swarm.engine(host).done<{ Id: string }>("GET", `/images/box:${version}/json`);
    ids.push(Id);
  }
  return ids;
}

let services = 0;

function specOf(
  image: string,
  replicas: number,
  constraints: readonly string[] = [],
  network?: string,
): Record<string, unknown> {
  return {
    Name: `bench${++services}`,
    TaskTemplate: {
      ContainerSpec: { Image: image, StopSignal: "SIGKILL" },
      RestartPolicy: { Condition: "any", Delay: secondNs },
      Placement: { Constraints: constraints },
      ...(network === undefined ? {} : { Networks: [{ Target: network }] }),
    },
    Mode: { Replicated: { Replicas: replicas } },
    UpdateConfig: { Parallelism: 5, Delay: 0, Monitor: secondNs, FailureAction: "continue", Order: "stop-first" },
  };
}

interface Running {
  readonly id: string;
  readonly ms: number;
}

async function create(
  swarm: Swarm,
  host: Host,
  spec: Record<string, unknown>,
  replicas: number,
  patienceMs = 240_000,
): Promise<Running> {
  const engine = swarm.engine(host);
  const startMs = performance.now();
  const { ID: id } = await engine.done<{ ID: string }>("POST", "/services/create", spec);
  const ms = await until(
    `${replicas} replicas on ${swarm.name}`,
    async () => (await engine.runningTasks(id)) === replicas,
    startMs,
    patienceMs,
  );
  return { id, ms };
}

async function running(
  swarm: Swarm,
  host: Host,
  id: string,
): Promise<readonly { readonly NodeID?: string; readonly image: string }[]> {
  const tasks = await swarm.engine(host).tasks(id);
  return tasks
    .filter(({ DesiredState, Status }) => DesiredState === "running" && Status.State === "running")
    .map(({ NodeID, Spec }) => ({ ...(NodeID === undefined ? {} : { NodeID }), image: Spec.ContainerSpec.Image }));
}

/** @returns ms until no container is left on any of the hosts */
async function remove(swarm: Swarm, at: Host, id: string, on: readonly Host[]): Promise<number> {
  const startMs = performance.now();
  await swarm.engine(at).done("DELETE", `/services/${id}`);
  return until(
    `no container on ${swarm.name}`,
    async () => {
      for (const host of on)
        if ((await swarm.engine(host).done<unknown[]>("GET", "/containers/json?all=1")).length > 0) return false;
      return true;
    },
    startMs,
  );
}

// ---- One node: V1 to V3 ----------------------------------------------------------------------------------------------------

async function onOneNode(options: BenchOptions, wants: (id: string) => boolean, report: Report): Promise<void> {
  const samples: Samples = new Map();
  const counts = options.quick ? [3] : [5, 20, 50];
  const updated = options.quick ? 4 : 20;
  await withSwarms({ nodes: 1, managers: 1, heartbeatSeconds: 5 }, async (ours, peer, images) => {
    const [first, second] = images as [string, string];
    for (let round = 0; round < options.rounds; round++) {
      report.note(`service: round ${round + 1} of ${options.rounds}`);
      for (const swarm of inTurn(round, ours, peer)) {
        const [host] = swarm.hosts as [Host];
        for (const count of wants("V1") ? counts : []) {
          const { id, ms } = await create(swarm, host, specOf(first, count), count);
          note(samples, report, `V1 create ${count} replicas until all run`, swarm, ours, ms);
          await remove(swarm, host, id, [host]);
        }
        if (wants("V7")) runAndRemove(options, swarm, ours, samples, report);
        if (!wants("V2") && !wants("V3")) continue;
        const spec = specOf(first, updated);
        const { id } = await create(swarm, host, spec, updated);
        if (wants("V2")) {
          const ms = await update(swarm, host, id, second, updated);
          note(samples, report, `V2 update ${updated} replicas, five at a time`, swarm, ours, ms);
        }
        const ms = await remove(swarm, host, id, [host]);
        if (wants("V3")) note(samples, report, `V3 remove ${updated} replicas until none is left`, swarm, ours, ms);
      }
    }
  });
  for (const name of samples.keys()) tell(report, samples, name, gateOf(name));
}

function gateOf(name: string): Gate {
  if (name.startsWith("V1")) return { ratio: 0.1 };
  return name.startsWith("V7") ? { ratio: 0.25 } : {};
}

/** The first run of each round is not counted: it may find code and image not yet in memory. */
function runAndRemove(options: BenchOptions, swarm: Swarm, ours: Swarm, samples: Samples, report: Report): void {
  const [host] = swarm.hosts as [Host];
  const [program = "", ...flags] = swarm.commandLine(host);
  for (const network of ["default", "none"]) {
    const found: number[] = [];
    for (let time = 0; time <= (options.quick ? 3 : 15); time++) {
      const words = ["run", "--rm", "--network", network, "box:1", "true"];
      const startMs = performance.now();
      const { status, stderr } = spawnSync(program, [...flags, ...words], {
        stdio: ["ignore", "ignore", "pipe"],
        encoding: "utf8",
      });
      if (status !== 0) throw new Error(`${program} ${words.join(" ")}: ${stderr}`);
      if (time > 0) found.push(performance.now() - startMs);
    }
    note(samples, report, `V7 run --rm, network ${network}, from command to exit`, swarm, ours, median(found));
  }
}

async function update(swarm: Swarm, host: Host, id: string, image: string, replicas: number): Promise<number> {
  const engine = swarm.engine(host);
  const { Version, Spec } = await engine.done<Versioned>("GET", `/services/${id}`);
  const spec = structuredClone(Spec) as { TaskTemplate: { ContainerSpec: { Image: string } } };
  spec.TaskTemplate.ContainerSpec.Image = image;
  const startMs = performance.now();
  await engine.done("POST", `/services/${id}/update?version=${Version.Index}`, spec);
  return until(
    `the update on ${swarm.name}`,
    async () => {
      const now = await running(swarm, host, id);
      return now.length === replicas && now.every((task) => task.image === image);
    },
    startMs,
  );
}

// ---- One node with an overlay: V6 ------------------------------------------------------------------------------------------

async function onOverlay(options: BenchOptions, report: Report): Promise<void> {
  const samples: Samples = new Map();
  const count = options.quick ? 3 : 50;
  let name = `V6 create ${count} replicas on an overlay until all run`;
  await withSwarms({ nodes: 1, managers: 1, heartbeatSeconds: 5 }, async (ours, peer, images) => {
    const [image] = images as [string];
    const networks = new Map<Swarm, string>();
    for (const swarm of inTurn(0, ours, peer)) {
      const network = await overlay(swarm);
      if (await works(swarm, image, network, swarm === ours)) networks.set(swarm, network);
      else if (swarm === ours) throw new Error("our overlay does not work here");
      else {
        report.note(`service: ${swarm.name}'s overlay does not work in this kernel; beside it without a network`);
        name += " (peer: without)";
      }
    }
    for (let round = 0; round < options.rounds; round++) {
      for (const swarm of inTurn(round, ours, peer)) {
        const [host] = swarm.hosts as [Host];
        const network = networks.get(swarm);
        const { id, ms } = await create(swarm, host, onNetwork(image, count, network, swarm === ours), count);
        note(samples, report, name, swarm, ours, ms);
        await remove(swarm, host, id, [host]);
      }
    }
  });
  tell(report, samples, name, { ratio: 0.1 });
}

async function overlay(swarm: Swarm): Promise<string> {
  const engine = swarm.engine(swarm.hosts[0] as Host);
  const { Id } = await engine.done<{ Id: string }>("POST", "/networks/create", { Name: "bench", Driver: "overlay" });
  return Id;
}

/** With a service address, unless it is the peer's: that takes IPVS, which not every kernel has, and is less work without. */
function onNetwork(
  image: string,
  replicas: number,
  network: string | undefined,
  hasAddress: boolean,
): Record<string, unknown> {
  const spec = specOf(image, replicas, [], network);
  return hasAddress || network === undefined ? spec : { ...spec, EndpointSpec: { Mode: "dnsrr" } };
}

/** Whether one task comes up in it. */
async function works(swarm: Swarm, image: string, network: string, hasAddress: boolean): Promise<boolean> {
  const [host] = swarm.hosts as [Host];
  const spec = onNetwork(image, 1, network, hasAddress);
  try {
    const { id } = await create(swarm, host, spec, 1, 20_000);
    await remove(swarm, host, id, [host]);
    return true;
  } catch {
    const engine = swarm.engine(host);
    // Where it does not work it may take the daemon with it.
    if (!(await engine.ping())) await swarm.start(host);
    await until(
      `${swarm.name} without that service`,
      async () => (await engine.ask("DELETE", `/services/${spec["Name"] as string}`)).status < 500,
    );
    return false;
  }
}

// ---- Five nodes: V4, V5 ----------------------------------------------------------------------------------------------------

const managers = 3;

async function onFiveNodes(options: BenchOptions, wants: (id: string) => boolean, report: Report): Promise<void> {
  const samples: Samples = new Map();
  await withSwarms({ nodes: managers + 2, managers, heartbeatSeconds: 5 }, async (ours, peer, images) => {
    const [image] = images as [string];
    if (wants("V4")) {
      for (const heartbeatSeconds of options.quick ? [1] : [5, 1]) {
        for (const swarm of inTurn(0, ours, peer)) await setHeartbeat(swarm, heartbeatSeconds);
        for (let round = 0; round < (options.quick ? 1 : options.rounds); round++)
          for (const swarm of inTurn(round, ours, peer)) {
            const ms = await loseWorker(swarm, image, heartbeatSeconds);
            note(
              samples,
              report,
              `V4 worker lost until replaced, heartbeats of ${heartbeatSeconds} s`,
              swarm,
              ours,
              ms,
            );
          }
      }
      for (const swarm of wants("V5") ? inTurn(0, ours, peer) : []) {
        await swarm.start(swarm.hosts[managers] as Host);
        await untilReady(swarm, swarm.hosts[0] as Host);
      }
    }
    for (let round = 0; wants("V5") && round < (options.quick ? 1 : options.rounds); round++)
      for (const swarm of inTurn(round, ours, peer)) {
        // Ours takes a fraction of the other's time: more of them tell how bad the worst one is.
        for (let time = 0; time < (swarm === ours && !options.quick ? 5 : 1); time++)
          note(
            samples,
            report,
            "V5 leader killed until the next accepted command",
            swarm,
            ours,
            await killLeader(swarm),
          );
      }
  });
  for (const name of samples.keys()) {
    if (name.startsWith("V4")) tell(report, samples, name, name.endsWith("1 s") ? { most: 3000 } : { ratio: 1 });
    else {
      tell(report, samples, name, { most: 600 });
      const all = samples.get(name);
      if (all !== undefined) {
        const worst = { ours: [Math.max(...all.ours)], peer: all.peer.length === 0 ? [] : [Math.max(...all.peer)] };
        tell(
          report,
          new Map([[`${name}, worst of ${all.ours.length}`, worst]]),
          `${name}, worst of ${all.ours.length}`,
          { most: 1200 },
        );
      }
    }
  }
}

async function setHeartbeat(swarm: Swarm, seconds: number): Promise<void> {
  const engine = swarm.engine(swarm.hosts[0] as Host);
  const { Version, Spec } = await engine.done<Versioned>("GET", "/swarm");
  const spec = { ...Spec, Dispatcher: { HeartbeatPeriod: seconds * secondNs } };
  await engine.done("POST", `/swarm/update?version=${Version.Index}`, spec);
  // Agents learn it with the next heartbeat of the old period.
  await wait(7000);
}

/**
 * As when its power fails: nothing says goodbye. That happens half a period after a heartbeat, the average of all moments:
 * when in the period it happens decides more than all that is measured here. Heartbeats are counted from the moment at which
 * the worker, started anew, is ready.
 * @returns ms until all replicas run elsewhere
 */
async function loseWorker(swarm: Swarm, image: string, heartbeatSeconds: number): Promise<number> {
  const at = swarm.hosts[0] as Host;
  const [victim, other] = swarm.hosts.slice(managers) as [Host, Host];
  await swarm.crash(victim);
  victim.setLink(true);
  await swarm.start(victim);
  const victimId = await idOf(swarm, victim);
  await until(`${victim.name} to be back`, () => isBack(swarm, at, victim, victimId));
  const readyMs = performance.now();
  const { id } = await create(swarm, at, specOf(image, 4, ["node.role==worker"]), 4);
  const periodMs = heartbeatSeconds * 1000;
  await wait(periodMs - ((performance.now() - readyMs + periodMs / 2) % periodMs));
  const startMs = performance.now();
  victim.setLink(false);
  await swarm.crash(victim);
  const ms = await until(
    `four tasks elsewhere on ${swarm.name}`,
    async () => {
      const now = await running(swarm, at, id);
      return now.length === 4 && now.every(({ NodeID }) => NodeID !== victimId);
    },
    startMs,
  );
  // It stays away until the next time, whose heartbeats are counted from its start.
  victim.setLink(true);
  await remove(swarm, at, id, [other]);
  return ms;
}

/** By its own word, since one of the two managers notices only later that it was away; and by the managers' word. */
async function isBack(swarm: Swarm, at: Host, host: Host, nodeId: string): Promise<boolean> {
  const info = await swarm.engine(host).done<{ Swarm: { LocalNodeState: string } }>("GET", "/info");
  if (info.Swarm.LocalNodeState !== "active") return false;
  const { Status } = await swarm.engine(at).done<{ Status: { State: string } }>("GET", `/nodes/${nodeId}`);
  return Status.State === "ready";
}

async function idOf(swarm: Swarm, host: Host): Promise<string> {
  const info = await swarm.engine(host).done<{ Swarm: { NodeID: string } }>("GET", "/info");
  return info.Swarm.NodeID;
}

async function untilReady(swarm: Swarm, at: Host): Promise<void> {
  await until(`all nodes of ${swarm.name} to be ready`, async () => {
    const { status, body } = await swarm
      .engine(at)
      .ask<Awaited<ReturnType<ReturnType<Swarm["engine"]>["nodes"]>>>("GET", "/nodes");
    if (status !== 200) return false;
    const reachable = body.filter(({ ManagerStatus }) => ManagerStatus?.Reachability === "reachable").length;
    return reachable === managers && body.every(({ Status }) => Status.State === "ready");
  });
}

/** The command is a new config. Both survivors are asked, over and over. @returns ms until one of them has accepted one */
async function killLeader(swarm: Swarm): Promise<number> {
  const all = swarm.hosts.slice(0, managers);
  const nodes = await swarm.engine(all[0] as Host).nodes();
  const name = nodes.find(({ ManagerStatus }) => ManagerStatus?.Leader === true)?.Description.Hostname;
  const leader = all.find((host) => host.name === name);
  if (leader === undefined) throw new Error(`${swarm.name} has no leader`);
  const survivors = all.filter((host) => host !== leader);
  const startMs = performance.now();
  await swarm.killDaemon(leader);
  let accepted = false;
  const ask = async (host: Host): Promise<number> => {
    for (;;) {
      const body = { Name: `c${++services}`, Data: "eA==" };
      const answer = await swarm
        .engine(host)
        .ask("POST", "/configs/create", body, 2000)
        .catch(() => undefined);
      if (answer?.status === 201 || accepted) break;
      if (performance.now() - startMs > 60_000) throw new Error(`${swarm.name} accepts no command`);
      await wait(5);
    }
    accepted = true;
    return performance.now() - startMs;
  };
  const ms = await Promise.race(survivors.map(ask));
  await swarm.start(leader);
  await untilReady(swarm, survivors[0] as Host);
  // What fails in practice is a cluster that has settled.
  await wait(2000);
  return ms;
}

// ---- Telling ----------------------------------------------------------------------------------------------------------------

function inTurn(round: number, ours: Swarm, peer: Swarm | undefined): readonly Swarm[] {
  if (peer === undefined) return [ours];
  return round % 2 === 0 ? [ours, peer] : [peer, ours];
}

function note(samples: Samples, report: Report, name: string, swarm: Swarm, ours: Swarm, ms: number): void {
  const found = samples.get(name) ?? { ours: [], peer: [] };
  samples.set(name, found);
  (swarm === ours ? found.ours : found.peer).push(ms);
  report.note(`${name}: ${swarm.name} ${ms.toFixed(0)} ms`);
}

interface Gate {
  /** To the peer. */
  readonly ratio?: number;
  /** Milliseconds. */
  readonly most?: number;
}

function tell(report: Report, samples: Samples, name: string, gate: Gate): void {
  const found = samples.get(name);
  if (found === undefined) return;
  const ours = median(found.ours);
  const peer = found.peer.length > 0 ? median(found.peer) : undefined;
  const ratio = peer === undefined ? undefined : ours / peer;
  report.add({
    name,
    unit: "ms",
    ours,
    peer,
    ratio,
    gate: gate.most !== undefined ? `<= ${gate.most}` : gate.ratio === undefined ? "-" : `<= ${gate.ratio}x`,
    pass: !(gate.most !== undefined && ours > gate.most) && !(gate.ratio !== undefined && (ratio ?? 0) > gate.ratio),
  });
}
