/** The scheduler's facts, read from the objects of the store. */
import {
  carriesEncrypted,
  isEncryptedNetwork,
  parseConstraint,
  skep,
  traitsOf,
  type Constraint,
} from "../../../proto/index.ts";
import type { Amounts, GroupFacts, NodeAvailability, NodeFacts, NodeState, TaskFacts } from "./facts.ts";

const { PortProtocol, PublishMode, TaskState } = skep.objects;
type Task = skep.objects.Task.$Properties;
type Generic = skep.objects.GenericResource.$Properties;

const states: readonly NodeState[] = ["unknown", "down", "ready", "disconnected"];
const availabilities: readonly NodeAvailability[] = ["active", "pause", "drain"];

export function nodeFactsOf(node: skep.objects.Node.$Properties): NodeFacts {
  const { description } = node;
  const plugins = description?.engine?.plugins ?? [];
  return {
    ...traitsOf(node),
    availability: availabilities[node.spec?.availability ?? 0] ?? "active",
    state: states[node.status?.state ?? 0] ?? "unknown",
    capacity: amountsOf(description?.resources),
    named: namesOf(description?.resources?.genericResources ?? []),
    plugins: plugins.length === 0 ? undefined : new Set(plugins.map(({ type, name }) => `${type ?? ""}/${name ?? ""}`)),
    encrypts: carriesEncrypted(node),
  };
}

function amountsOf(resources: skep.objects.Resources.$Properties | null | undefined): Amounts {
  const generic = new Map<string, number>();
  for (const { namedResourceSpec, discreteResourceSpec } of resources?.genericResources ?? []) {
    const kind = namedResourceSpec?.kind ?? discreteResourceSpec?.kind ?? "";
    const count = namedResourceSpec == null ? (discreteResourceSpec?.value ?? 0) : 1;
    generic.set(kind, (generic.get(kind) ?? 0) + count);
  }
  return { nanoCpus: resources?.nanoCpus ?? 0, memoryBytes: resources?.memoryBytes ?? 0, generic };
}

function namesOf(resources: readonly Generic[]): ReadonlyMap<string, readonly string[]> {
  const names = new Map<string, string[]>();
  for (const { namedResourceSpec } of resources) {
    if (namedResourceSpec == null) continue;
    const { kind, value } = namedResourceSpec;
    names.set(kind ?? "", [...(names.get(kind ?? "") ?? []), value ?? ""]);
  }
  return names;
}

/** Encrypted networks of the swarm, by id; the ingress network is told apart, since tasks are not attached to it. */
export interface EncryptedNetworks {
  readonly names: ReadonlyMap<string, string>;
  readonly ingressName: string | undefined;
}

export const noneEncrypted: EncryptedNetworks = { names: new Map(), ingressName: undefined };

export function encryptedNetworksOf(networks: Iterable<Readonly<skep.objects.Network.$Properties>>): EncryptedNetworks {
  const names = new Map<string, string>();
  let ingressName: string | undefined;
  for (const { id, spec } of networks) {
    if (!isEncryptedNetwork(spec)) continue;
    names.set(id ?? "", spec?.name ?? "");
    if (spec?.ingress === true) ingressName = spec.name ?? "";
  }
  return { names, ingressName };
}

function encryptedOf({ networksAttachments, endpoint }: Task, { names, ingressName }: EncryptedNetworks): string[] {
  const own = (networksAttachments ?? []).flatMap(({ networkId }) => names.get(networkId ?? "") ?? []);
  const isPublished = (endpoint?.ports ?? []).some(
    ({ publishMode }) => (publishMode ?? PublishMode.INGRESS) === PublishMode.INGRESS,
  );
  return isPublished && ingressName !== undefined ? [...own, ingressName] : own;
}

export function groupFactsOf(task: Task, encrypted: EncryptedNetworks = noneEncrypted): GroupFacts {
  const { spec } = task;
  const preferences = (spec?.placement?.preferences ?? []).map(({ spread }) => spread?.spreadDescriptor ?? "");
  return {
    serviceId: task.serviceId ?? "",
    specVersion: task.specVersion ?? 0,
    constraints: constraintsOf(spec),
    reserved: amountsOf(spec?.resources?.reservations),
    platforms: (spec?.placement?.platforms ?? []).map(({ os, architecture }) => ({
      os: os ?? "",
      architecture: architecture ?? "",
    })),
    hostPorts: hostPortsOf(task.endpoint),
    maxReplicasPerNode: spec?.placement?.maxReplicas ?? 0,
    spreadOver: preferences.filter((key) => /^(?:node|engine)\.labels\../.test(key)),
    plugins: pluginsOf(spec),
    encryptedNetworks: encryptedOf(task, encrypted),
    strategy: "spread",
  };
}

export function constraintsOf(spec: skep.objects.TaskSpec.$Properties | null | undefined): readonly Constraint[] {
  return (spec?.placement?.constraints ?? []).map((text) => {
    try {
      return parseConstraint(text);
    } catch {
      // Control refuses such a one; where it is stored all the same, it matches no node.
      return { text, key: "node.id", operator: "in", values: [] } satisfies Constraint;
    }
  });
}

function hostPortsOf(endpoint: skep.objects.Endpoint.$Properties | null | undefined): readonly string[] {
  const ports = endpoint?.ports?.length ? endpoint.ports : (endpoint?.spec?.ports ?? []);
  return ports
    .filter(({ publishMode, publishedPort }) => publishMode === PublishMode.HOST && (publishedPort ?? 0) > 0)
    .map(({ protocol, publishedPort }) => `${(PortProtocol[protocol ?? 0] ?? "TCP").toLowerCase()}/${publishedPort}`);
}

function pluginsOf(spec: skep.objects.TaskSpec.$Properties | null | undefined): readonly string[] {
  const plugins: string[] = [];
  for (const { type, volumeOptions } of spec?.containerSpec?.mounts ?? []) {
    const driver = volumeOptions?.driverConfig?.name ?? "";
    if (type === "volume" && driver !== "" && driver !== "local") plugins.push(`Volume/${driver}`);
  }
  const log = spec?.logDriver?.name ?? "";
  if (log !== "" && log !== "none") plugins.push(`Log/${log}`);
  return plugins;
}

/** Most tasks: a map of its own would be half of what a task costs here. */
const noNames: ReadonlyMap<string, readonly string[]> = new Map();

/** What a task takes from its node. */
export function taskFactsOf(task: Task, group: GroupFacts): TaskFacts {
  const given = task.assignedGenericResources ?? [];
  const assigned = given.length === 0 ? noNames : namesOf(given);
  const { serviceId, specVersion, reserved, hostPorts } = group;
  return { id: task.id ?? "", serviceId, specVersion, reserved, hostPorts, assigned };
}

/** @param assigned  names by kind; none where the kind has only a count, which is then what was reserved */
export function genericResourcesOf(
  assigned: ReadonlyMap<string, readonly string[]>,
  reserved: Amounts,
): readonly Generic[] {
  return [...assigned].flatMap(([kind, names]): readonly Generic[] =>
    names.length === 0
      ? [{ discreteResourceSpec: { kind, value: reserved.generic.get(kind) ?? 0 } }]
      : names.map((value) => ({ namedResourceSpec: { kind, value } })),
  );
}

/** Holds its place on its node, whatever is asked of it. */
export const holdsPlace = (task: Task): boolean => {
  const state = task.status?.state ?? TaskState.NEW;
  return (task.nodeId ?? "") !== "" && state >= TaskState.ASSIGNED && state <= TaskState.RUNNING;
};

export const isWanted = (task: Task): boolean => (task.desiredState ?? 0) < TaskState.SHUTDOWN;
export const isPending = (task: Task): boolean => task.status?.state === TaskState.PENDING && isWanted(task);
