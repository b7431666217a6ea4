/** `skep node`: the hosts of a swarm. */
import { filtersQuery, inPath } from "./api/client.ts";
import type { GenericResource, Info, Labels, SwarmNode, Task, TlsInfo } from "./api/types.ts";
import { CommandError, throwAll } from "./errors.ts";
import { atLeast, command, exactly, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { binarySize, capitalize, goTime } from "./output/human.ts";
import { forEachName, inspectEach, prettyFlags } from "./output/each.ts";
import { printList } from "./output/list.ts";
import { resolveSelf } from "./service/self.ts";
import { keyValues } from "./service/read.ts";
import { printTasks, taskListFlags } from "./service/tasks.ts";
import type { Session } from "./session.ts";

export const ls = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { filter: flag.filters(), format: flag.format(), quiet: flag.quiet() },
  async run(session, flags) {
    const api = await session.api();
    const nodes =
      (await api.get<SwarmNode[] | null>("/nodes", { query: { filters: filtersQuery(flags.filter) } })) ?? [];
    const { NodeID: self = "", Cluster: cluster } = (nodes.length > 0 && (await api.get<Info>("/info")).Swarm) || {};
    const name = ({ Description: { Hostname = "" } }: SwarmNode): string => Hostname;
    const sorted = nodes.toSorted((a, b) => name(a).localeCompare(name(b), "en", { numeric: true }));
    const quiet = flags.quiet === true;
    printList(session, sorted, {
      columns: {
        ID: ["ID", (node) => (flags.format === undefined && node.ID === self && !quiet ? `${node.ID} *` : node.ID)],
        Self: ["", (node) => node.ID === self],
        Hostname: ["HOSTNAME", name],
        Status: ["STATUS", (node) => capitalize(node.Status.State)],
        Availability: ["AVAILABILITY", (node) => capitalize(node.Spec.Availability ?? "")],
        ManagerStatus: ["MANAGER STATUS", managerStatus],
        EngineVersion: ["ENGINE VERSION", (node) => node.Description.Engine?.EngineVersion ?? ""],
        TLSStatus: ["TLS STATUS", (node) => tlsStatus(node, cluster?.TLSInfo)],
      },
      // In the default table the mark of this node belongs to the id.
      shown: ["ID", "Hostname", "Status", "Availability", "ManagerStatus", "EngineVersion"],
      id: "ID",
      format: flags.format,
      quiet,
    });
  },
});

/** While the root is rotated, who has a certificate of the old one is waited for. */
function tlsStatus({ Description: { TLSInfo: own } }: SwarmNode, cluster: TlsInfo | undefined): string {
  if (!own?.TrustRoot || !cluster?.TrustRoot) return "Unknown";
  const isSame = (["TrustRoot", "CertIssuerSubject", "CertIssuerPublicKey"] as const).every(
    (member) => own[member] === cluster[member],
  );
  return isSame ? "Ready" : "Needs Rotation";
}

function managerStatus({ ManagerStatus: status }: SwarmNode): string {
  if (status === undefined) return "";
  return status.Leader === true ? "Leader" : capitalize(status.Reachability ?? "");
}

export const ps = command({
  usage: "[OPTIONS] [NODE...]",
  args: atLeast(0),
  flags: taskListFlags,
  completes: "nodes",
  async run(session, flags, names) {
    const api = await session.api();
    const tasks: Task[] = [];
    const errors: unknown[] = [];
    for (const name of await resolveSelf(session, names.length === 0 ? ["self"] : names)) {
      try {
        const node = await api.get<SwarmNode>(`/nodes/${inPath(name)}`);
        const wanted: flag.Filters = new Map([...(flags.filter ?? []), ["node", [node.ID]]]);
        tasks.push(...((await api.get<Task[] | null>("/tasks", { query: { filters: filtersQuery(wanted) } })) ?? []));
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length === 0 || tasks.length > 0) {
      await printTasks(session, tasks, flags);
    }
    throwAll(errors);
  },
});

export const inspect = command({
  usage: "[OPTIONS] self|NODE [NODE...]",
  args: atLeast(1),
  flags: prettyFlags,
  completes: "nodes",
  async run(session, flags, names) {
    const api = await session.api();
    const read = async (name: string): Promise<SwarmNode> => {
      const [id = name] = await resolveSelf(session, [name]);
      return api.get<SwarmNode>(`/nodes/${inPath(id)}`);
    };
    await inspectEach(session, names, flags, read, (found) => found.map(pretty).join("\n"));
  },
});

function pretty(node: SwarmNode): string {
  const { Spec: spec, Description: description, Status: status, ManagerStatus: manager } = node;
  const { Platform: platform, Resources: resources, Engine: engine } = description;
  return [
    `ID:\t\t\t${node.ID}`,
    ...(spec.Name ? [`Name:\t\t\t${spec.Name}`] : []),
    ...labels("Labels:", spec.Labels),
    `Hostname:              \t${description.Hostname ?? ""}`,
    `Joined at:             \t${goTime(node.CreatedAt)}`,
    "Status:",
    ` State:\t\t\t${capitalize(status.State)}`,
    ...(status.Message ? [` Message:              \t${capitalize(status.Message)}`] : []),
    ` Availability:         \t${capitalize(spec.Availability ?? "")}`,
    ...(status.Addr ? [` Address:\t\t${status.Addr}`] : []),
    ...(manager === undefined
      ? []
      : [
          "Manager Status:",
          ` Address:\t\t${manager.Addr ?? ""}`,
          ` Raft Status:\t\t${capitalize(manager.Reachability ?? "")}`,
          ` Leader:\t\t${manager.Leader === true ? "Yes" : "No"}`,
        ]),
    "Platform:",
    ` Operating System:\t${platform?.OS ?? ""}`,
    ` Architecture:\t\t${platform?.Architecture ?? ""}`,
    "Resources:",
    ` CPUs:\t\t\t${(resources?.NanoCPUs ?? 0) / 1e9}`,
    ` Memory:\t\t${resources?.MemoryBytes ? binarySize(resources.MemoryBytes) : ""}`,
    ...genericResources(resources?.GenericResources ?? []),
    ...plugins(engine?.Plugins ?? []),
    `Engine Version:\t\t${engine?.EngineVersion ?? ""}`,
    ...labels("Engine Labels:", engine?.Labels),
    ...(description.TLSInfo?.TrustRoot
      ? [
          "TLS Info:",
          " TrustRoot:",
          description.TLSInfo.TrustRoot,
          ` Issuer Subject:\t${description.TLSInfo.CertIssuerSubject ?? ""}`,
          ` Issuer Public Key:\t${description.TLSInfo.CertIssuerPublicKey ?? ""}`,
        ]
      : []),
    "",
  ].join("\n");
}

function labels(title: string, labels: Labels | undefined | null): string[] {
  const entries = Object.entries(labels ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return entries.length === 0
    ? []
    : [title, ...entries.map(([key, value]) => ` - ${key}${value === "" ? "" : `=${value}`}`)];
}

function genericResources(resources: readonly GenericResource[]): string[] {
  return resources.map((one) => {
    const { Kind = "", Value = "" } = one.DiscreteResourceSpec ?? one.NamedResourceSpec ?? {};
    return ` ${Kind}:\t\t${Value}`;
  });
}

function plugins(plugins: readonly { readonly Type: string; readonly Name: string }[]): string[] {
  const byType = new Map<string, string[]>();
  for (const { Type, Name } of plugins) byType.set(Type, [...(byType.get(Type) ?? []), Name]);
  if (byType.size === 0) return [];
  return [
    "Plugins:",
    ...[...byType]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([type, names]) => ` ${type}:\t\t${names.toSorted().join(", ")}`),
  ];
}

export const update = command({
  usage: "[OPTIONS] NODE",
  args: exactly(1),
  flags: {
    availability: flag.choice("Availability of the node", ["active", "pause", "drain"]),
    "label-add": flag.list("Add or replace a label (key=value)"),
    "label-rm": flag.list("Remove a label by its key"),
    role: flag.choice("Role of the node", ["worker", "manager"]),
  },
  completes: "nodes",
  async run(session, flags, names) {
    await updateNodes(session, names, (node) => {
      const { Spec: spec } = node;
      if (flags.role !== undefined) spec.Role = flags.role;
      if (flags.availability !== undefined) spec.Availability = flags.availability;
      const { "label-add": added = [], "label-rm": removed = [] } = flags;
      const present = spec.Labels ?? {};
      const missing = removed.find((key) => !Object.hasOwn(present, key));
      if (missing !== undefined) throw new CommandError(`key ${missing} doesn't exist in node's labels`);
      const kept = Object.entries(present).filter(([key]) => !removed.includes(key));
      spec.Labels = { ...Object.fromEntries(kept), ...keyValues(added) };
      return true;
    });
    for (const name of names) session.print(name);
  },
});

/** Reads, changes and posts each node. @param change false when there is nothing to do */
async function updateNodes(
  session: Session,
  names: readonly string[],
  change: (node: SwarmNode, name: string) => boolean,
): Promise<string[]> {
  const api = await session.api();
  const changed: string[] = [];
  for (const name of names) {
    const node = await api.get<SwarmNode>(`/nodes/${inPath(name)}`);
    if (!change(node, name)) continue;
    await api.post(`/nodes/${node.ID}/update`, { query: { version: node.Version.Index }, body: node.Spec });
    changed.push(name);
  }
  return changed;
}

const roleCommand = (role: "manager" | "worker", already: string, done: string): ReturnType<typeof command> =>
  command({
    usage: "NODE [NODE...]",
    args: atLeast(1),
    flags: {},
    completes: "nodes",
    async run(session, _flags, names) {
      for (const name of names) {
        const changed = await updateNodes(session, [name], ({ Spec: spec }) => {
          const isNew = spec.Role !== role;
          spec.Role = role;
          return isNew;
        });
        session.print((changed.length === 0 ? already : done).replace("NAME", name));
      }
    },
  });

export const promote = roleCommand(
  "manager",
  "Node NAME is already a manager.",
  "Node NAME promoted to a manager in the swarm.",
);
export const demote = roleCommand("worker", "Node NAME is already a worker.", "Manager NAME demoted in the swarm.");

export const rm = command({
  usage: "[OPTIONS] NODE [NODE...]",
  args: atLeast(1),
  flags: { force: flag.bool("Remove a node that is up", { short: "f" }) },
  completes: "nodes",
  async run(session, flags, names) {
    const api = await session.api();
    const query = { force: flags.force === true ? 1 : undefined };
    await forEachName(session, names, (name) => api.delete(`/nodes/${inPath(name)}`, query));
  },
});
