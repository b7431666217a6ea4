/** What has to be so when all faults are healed and users wait: by the API, by the kernel of each host, by asking. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";

import type { Host, Outsider } from "../../deploy/quickstart/hosts.ts";
import { askAll } from "../cluster/web.ts";
import { ask, type ServiceShape, type TaskShape } from "../cluster/world.ts";
import { processesOf } from "./chaos-faults.ts";
import { kinds, type Ledger } from "./chaos-ledger.ts";
import type { NodeShape } from "./chaos-users.ts";

interface Service extends ServiceShape {
  readonly Spec: ServiceShape["Spec"] & {
    readonly Name: string;
    readonly Mode: {
      readonly Replicated?: { readonly Replicas: number };
      readonly Global?: object;
      readonly ReplicatedJob?: { readonly TotalCompletions: number };
    };
  };
  readonly Endpoint?: { readonly Ports?: readonly { readonly PublishedPort: number }[] };
}
type Task = TaskShape & { readonly ServiceID?: string };

export interface State {
  readonly services: readonly Service[];
  readonly tasks: readonly Task[];
  readonly nodes: readonly NodeShape[];
}

/** @returns undefined: nobody leads */
export async function stateAt(host: Host): Promise<State | undefined> {
  const [services, tasks, nodes] = [
    await ask<Service[]>(host, "GET", "/services"),
    await ask<Task[]>(host, "GET", "/tasks"),
    await ask<NodeShape[]>(host, "GET", "/nodes"),
  ];
  if ([services, tasks, nodes].some(({ status }) => status !== 200)) return undefined;
  return { services: services.body, tasks: tasks.body, nodes: nodes.body };
}

/** What was acknowledged and is not there, and the other way round. */
export async function wrongObjects(host: Host, ledger: Ledger): Promise<string[]> {
  const wrong: string[] = [];
  const filters = encodeURIComponent(JSON.stringify({ label: { chaos: true } }));
  for (const kind of kinds) {
    type Listed = {
      readonly Name?: string;
      readonly Labels?: Labels;
      readonly Spec?: { Name: string; Labels?: Labels };
    };
    const { status, body } = await ask<Listed[]>(host, "GET", `/${kind}?filters=${filters}`);
    if (status !== 200) return [`${host.name} does not list ${kind}: ${status}`];
    const seen = body.map(({ Name = "", Labels = {}, Spec }): [string, string] => [
      Spec?.Name ?? Name,
      (Spec?.Labels ?? Labels)["revision"] ?? "",
    ]);
    wrong.push(...ledger.compare(kind, new Map(seen)));
  }
  return wrong;
}
type Labels = Readonly<Record<string, string>>;

const isWanted = ({ DesiredState, Status }: Task): boolean => DesiredState === "running" && Status.State === "running";

/** Services that are not as their specs ask. */
export function unsettled({ services, tasks, nodes }: State): string[] {
  const wrong: string[] = [];
  const known = new Set(services.map(({ ID }) => ID));
  const active = nodes.filter(({ Spec, Status }) => Spec["Availability"] === "active" && Status.State === "ready");
  for (const { ID, ServiceID = "", Status } of tasks) {
    if (ServiceID !== "" && !known.has(ServiceID)) wrong.push(`task ${ID} (${Status.State}) is of no service`);
  }
  for (const { ID, Spec, UpdateStatus } of services) {
    const own = tasks.filter(({ ServiceID }) => ServiceID === ID);
    const running = own.filter(isWanted);
    const { Replicated, Global, ReplicatedJob } = Spec.Mode;
    const completed = own.filter(({ Status }) => Status.State === "complete").length;
    const told = own
      .map(({ DesiredState, Status }) => `${DesiredState}: ${Status.State} ${Status.Err ?? ""}`)
      .join("; ");
    if (Replicated !== undefined && running.length !== Replicated.Replicas)
      wrong.push(`${Spec.Name} has ${running.length} of ${Replicated.Replicas}: ${told}`);
    if (Global !== undefined && running.length !== active.length)
      wrong.push(`${Spec.Name} is on ${running.length} of ${active.length} nodes: ${told}`);
    if (ReplicatedJob !== undefined && completed < ReplicatedJob.TotalCompletions)
      wrong.push(`${Spec.Name} has completed ${completed} of ${ReplicatedJob.TotalCompletions}: ${told}`);
    if (UpdateStatus?.State === "updating") wrong.push(`${Spec.Name} is being updated: ${told}`);
  }
  return wrong;
}

/** Containers that run without being wanted, or do not though they are. */
export async function wrongContainers(host: Host, { nodes, tasks }: State): Promise<string[]> {
  const { body: info } = await ask<{ Swarm: { NodeID: string } }>(host, "GET", "/info");
  const nodeId = info.Swarm.NodeID;
  if (!nodes.some(({ ID }) => ID === nodeId)) return [`${host.name} is no node`];
  const { body } = await ask<{ State: string; Labels: Labels }[]>(host, "GET", "/containers/json?all=1");
  const taskOf = (labels: Labels): string => labels["com.docker.swarm.task.id"] ?? "";
  const running = body.filter(({ State }) => State === "running").map(({ Labels }) => taskOf(Labels));
  const wanted = tasks.filter((task) => task.NodeID === nodeId && isWanted(task)).map(({ ID }) => ID);
  const surplus = running
    .filter((id) => !wanted.includes(id))
    .map((id) => `${host.name} runs ${id}, which is not wanted`);
  const missing = wanted.filter((id) => !running.includes(id)).map((id) => `${host.name} does not run ${id}`);
  const folder = `${host.execRoot}/netns`;
  const spaces = existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith("n-")).length : 0;
  const tooMany = spaces > body.length ? [`${host.name} has ${spaces} namespaces for ${body.length} containers`] : [];
  return [...surplus, ...missing, ...tooMany];
}

/** Published ports that do not answer, or answer for somebody else, through each host. */
export async function wrongPorts(
  hosts: readonly Host[],
  client: Outsider,
  probe: string,
  { services, tasks }: State,
): Promise<string[]> {
  const asked = services.flatMap(({ ID, Spec, Endpoint }) => {
    const isServed = tasks.some((task) => task.ServiceID === ID && isWanted(task));
    return (Endpoint?.Ports ?? []).flatMap(({ PublishedPort: port }) =>
      hosts.map((host) => ({ name: Spec.Name, isServed, host: host.name, address: host.address, port })),
    );
  });
  const questions = asked.map(({ address, port }) => ({ protocol: "tcp" as const, address, port }));
  const answers = await askAll(`/run/netns/${client.namespace}`, probe, questions);
  return asked.flatMap(({ name, isServed, host, port }, at) => {
    const answer = answers[at] ?? "";
    return answer.startsWith(`${name} `) === isServed ? [] : [`port ${port} of ${name} at ${host}: ${answer}`];
  });
}

/** Ways to other nodes, by their numbers, addresses and marks: a node that came anew has another number. */
const ofPeers = /dev skepmesh|\d\/22|02:fe:|0x53/u;
/** A node's own addresses, which follow from its number. */
const ofNumber = /100\.64\.\d+\.(?=1\b|255\b)/gu;

/** Everything of this node that the kernel and its file systems have, by what it is; compared when nothing runs. */
export function traces(host: Host): Set<string> {
  const { namespace, name, site, execRoot, dataRoot } = host;
  const ours = (path: string): boolean => path.startsWith(`${dataRoot}/`) || path.startsWith(`${execRoot}/`);
  const lines = (what: string, [program = "", ...args]: readonly string[]): string[] => {
    const { stdout } = spawnSync(program, args, { encoding: "utf8", maxBuffer: 1 << 26 });
    return stdout
      .split("\n")
      .filter(Boolean)
      .map((line) => `${what} ${line.trim()}`);
  };
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "");
  const inside = ["ip", "netns", "exec", namespace];
  const found = [
    ...lines("cgroup", ["find", "/sys/fs/cgroup", "-path", `*/${site.name}/${name}/*`, "-type", "d"]),
    ...lines("route", ["ip", "-n", namespace, "route", "show", "table", "all", "proto", "200"]),
    ...lines("link", ["ip", "-n", namespace, "-o", "-br", "link", "show"]).map((line) =>
      line.split(/[ @]/u).slice(0, 2).join(" "),
    ),
    ...lines("nft", [...inside, "nft", "list", "ruleset"]),
    ...mounts.filter(ours).map((path) => `mount ${path}`),
    ...lines("file", [
      "find",
      `${execRoot}/netns`,
      `${execRoot}/c`,
      `${execRoot}/r`,
      "-mindepth",
      "1",
      "-maxdepth",
      "1",
    ]),
    ...lines("file", [
      "find",
      `${dataRoot}/containers`,
      `${dataRoot}/trash`,
      `${dataRoot}/network/sandboxes`,
      "-mindepth",
      "1",
    ]),
    ...processesOf(host)
      .filter(({ kind }) => kind === "monitor")
      .map(({ pid }) => `monitor ${pid}`),
  ];
  return new Set(found.filter((line) => !ofPeers.test(line)).map((line) => line.replaceAll(ofNumber, "100.64.N.")));
}

const bugs = /InvariantViolation|"level":"fatal"|TypeError|RangeError|a handler failed|a route failed|states differ/u;

/** Lines of a daemon's log that no fault explains, from `offset` on. @returns them and where to go on */
export function bugsIn(host: Host, offset: number): { readonly found: string[]; readonly end: number } {
  const text = existsSync(host.logFile) ? readFileSync(host.logFile, "utf8") : "";
  const found = text
    .slice(offset)
    .split("\n")
    .filter((line) => bugs.test(line));
  return { found: found.map((line) => `${host.name} says ${line.slice(0, 600)}`), end: text.length };
}
