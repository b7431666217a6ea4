/** `ps` of services, nodes and stacks: tasks with the names of their services and nodes. */
import { inPath, type Api } from "../api/client.ts";
import type { Service, SwarmNode, Task } from "../api/types.ts";
import * as flag from "../grammar/flags.ts";
import { ago, capitalize, shorten, shortId } from "../output/human.ts";
import { printList, type Columns } from "../output/list.ts";
import type { Session } from "../session.ts";

export const taskListFlags = {
  filter: flag.filters(),
  format: flag.format(),
  "no-resolve": flag.bool("Show ids instead of names"),
  "no-trunc": flag.noTrunc(),
  quiet: flag.quiet(),
};

interface Shown {
  readonly task: Task;
  readonly name: string;
  /** The task's name without the id, as the table shows it. */
  readonly label: string;
  readonly node: string;
}

export async function printTasks(
  session: Session,
  tasks: readonly Task[],
  flags: flag.Values<typeof taskListFlags>,
): Promise<void> {
  const names = new Names(await session.api(), flags["no-resolve"] === true);
  const shown: Shown[] = [];
  for (const task of tasks) {
    const service = await names.service(task.ServiceID);
    // Slots of a job are counted from 0, which is not on the wire.
    const slot = task.Slot || ((await names.isReplicatedJob(task.ServiceID)) ? 0 : (task.NodeID ?? ""));
    const label = `${service}.${slot}`;
    shown.push({ task, name: `${label}.${task.ID}`, label, node: await names.node(task.NodeID ?? "") });
  }
  shown.sort(byNameThenNewest);
  const { format = "" } = flags;
  const isTable = format === "" || format === "table" || format.startsWith("table ");
  printList(session, isTable ? markHistory(shown) : shown, {
    columns: columns(flags["no-trunc"] === true, Date.now()),
    shown: ["ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports"],
    id: "ID",
    format: flags.format,
    quiet: flags.quiet,
  });
}

function byNameThenNewest(a: Shown, b: Shown): number {
  const natural = a.label.localeCompare(b.label, "en", { numeric: true });
  return natural === 0 ? Date.parse(b.task.CreatedAt) - Date.parse(a.task.CreatedAt) : natural;
}

/** Earlier tasks of the same slot hang below the newest. */
function markHistory(shown: readonly Shown[]): Shown[] {
  return shown.map((one, at) => ({
    ...one,
    label: shown[at - 1]?.label === one.label ? ` \\_ ${one.label}` : one.label,
  }));
}

function columns(noTrunc: boolean, nowMs: number): Columns<Shown> {
  return {
    ID: ["ID", ({ task }) => (noTrunc ? task.ID : shortId(task.ID))],
    Name: ["NAME", ({ label }) => label],
    Image: ["IMAGE", ({ task }) => imageShown(task.Spec.ContainerSpec?.Image ?? "", noTrunc)],
    Node: ["NODE", ({ node }) => node],
    DesiredState: ["DESIRED STATE", ({ task }) => capitalize(task.DesiredState)],
    CurrentState: [
      "CURRENT STATE",
      ({ task }) => `${capitalize(task.Status.State)} ${ago(task.Status.Timestamp, nowMs).toLowerCase()}`,
    ],
    Error: ["ERROR", ({ task }) => errorShown(task.Status.Err ?? "", noTrunc)],
    Ports: ["PORTS", ({ task }) => portsShown(task)],
  };
}

function errorShown(text: string, noTrunc: boolean): string {
  if (text === "") return "";
  return noTrunc ? `"${text}"` : `"${shorten(text, 30)}"`;
}

/** The digest is noise in a table. */
export function imageShown(image: string, noTrunc: boolean): string {
  return noTrunc ? image : image.replace(/@sha256:[0-9a-f]{64}$/, "");
}

function portsShown(task: Task): string {
  return (task.Status.PortStatus?.Ports ?? [])
    .map((port) => `*:${port.PublishedPort ?? 0}->${port.TargetPort ?? 0}/${port.Protocol ?? "tcp"}`)
    .join(",");
}

/** Ids to names, each asked for once. What is gone keeps its id. */
export class Names {
  readonly #api: Api;
  readonly #off: boolean;
  readonly #known = new Map<string, Promise<unknown>>();
  constructor(api: Api, off: boolean) {
    this.#api = api;
    this.#off = off;
  }

  async service(id: string): Promise<string> {
    return (await this.#service(id)).name;
  }

  async isReplicatedJob(id: string): Promise<boolean> {
    return (await this.#service(id)).isReplicatedJob;
  }

  #service(id: string): Promise<{ readonly name: string; readonly isReplicatedJob: boolean }> {
    const unknown = { name: id, isReplicatedJob: false };
    return this.#once(id, unknown, async () => {
      const { Spec } = await this.#api.get<Service>(`/services/${inPath(id)}`, { query: { insertDefaults: false } });
      return { name: Spec.Name, isReplicatedJob: Spec.Mode.ReplicatedJob !== undefined };
    });
  }

  node(id: string): Promise<string> {
    return this.#once(id, id, async () => {
      const node = await this.#api.get<SwarmNode>(`/nodes/${inPath(id)}`);
      return node.Spec.Name || node.Description.Hostname || id;
    });
  }

  /** @param unknown  also for what was removed in between, as a rule: its id is all that is left to show */
  #once<T>(id: string, unknown: T, ask: () => Promise<T>): Promise<T> {
    if (this.#off || id === "") return Promise.resolve(unknown);
    let found = this.#known.get(id) as Promise<T> | undefined;
    if (found === undefined) {
      found = ask().catch(() => unknown);
      this.#known.set(id, found);
    }
    return found;
  }
}
