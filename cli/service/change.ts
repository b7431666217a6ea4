/** `service update`: flags onto a specification that is there. */
import type { ContainerSpec, FileTarget, PortConfig, ServiceSpec } from "../api/types.ts";
import { CommandError } from "../errors.ts";
import type { UpdateValues } from "./flags.ts";
import { hostMapping, keyValues, split } from "./read.ts";
import { applyShared, environment, setMember, spread } from "./spec.ts";

/** Everything but networks, secrets and configs, which need look-ups. @throws CommandError on what does not fit */
export function changeSpec(
  spec: ServiceSpec,
  flags: UpdateValues,
  env: Readonly<Record<string, string | undefined>>,
): void {
  const { TaskTemplate: task } = spec;
  const container = task.ContainerSpec;
  applyShared(spec, flags);
  setMember(container, "Image", flags.image);
  setMember(container, "Args", flags.args);
  spec.Labels = changedMap(spec.Labels, flags["label-add"], flags["label-rm"]) ?? {};
  setMember(
    container,
    "Labels",
    changedMap(container.Labels, flags["container-label-add"], flags["container-label-rm"]),
  );
  setMember(container, "Sysctls", changedMap(container.Sysctls, flags["sysctl-add"], flags["sysctl-rm"]));
  changeLists(container, flags, env);
  changePlacement(spec, flags);
  changeResources(spec, flags);
  changeMode(spec, flags);
  changePorts(spec, flags);
  if (flags.force === true) task.ForceUpdate = (task.ForceUpdate ?? 0) + 1;
}

function changeLists(
  container: ContainerSpec,
  flags: UpdateValues,
  env: Readonly<Record<string, string | undefined>>,
): void {
  const variable = (text: string): string => split(text)[0];
  if (flags["env-add"] !== undefined || flags["env-rm"] !== undefined) {
    const added = environment([], flags["env-add"] ?? [], env);
    setMember(container, "Env", changedList(container.Env, added, flags["env-rm"], variable));
  }
  setMember(container, "Groups", changedList(container.Groups, flags["group-add"], flags["group-rm"])?.toSorted());
  const removedHosts = flags["host-rm"]?.map((text) => (/[:=]/.test(text) ? hostMapping(text) : text));
  const isRemoved = (mapping: string): boolean =>
    (removedHosts ?? []).some((removed) => removed === mapping || removed === mapping.split(" ")[1]);
  if (flags["host-add"] !== undefined || removedHosts !== undefined) {
    const kept = (container.Hosts ?? []).filter((mapping) => !isRemoved(mapping));
    setMember(container, "Hosts", [...new Set([...kept, ...(flags["host-add"] ?? [])])]);
  }
  const dns = (container.DNSConfig ??= {});
  setMember(dns, "Nameservers", changedList(dns.Nameservers, flags["dns-add"], flags["dns-rm"])?.toSorted());
  setMember(dns, "Search", changedList(dns.Search, flags["dns-search-add"], flags["dns-search-rm"])?.toSorted());
  setMember(dns, "Options", changedList(dns.Options, flags["dns-option-add"], flags["dns-option-rm"])?.toSorted());
  const mounts = changedList(container.Mounts, flags["mount-add"], flags["mount-rm"], (mount) => mount.Target ?? "");
  const bySource = (one: { Source?: string; Target?: string }): string => `${one.Source ?? ""}\0${one.Target ?? ""}`;
  setMember(
    container,
    "Mounts",
    mounts?.toSorted((a, b) => (bySource(a) < bySource(b) ? -1 : 1)),
  );
  const ulimits = changedList(container.Ulimits, flags["ulimit-add"], flags["ulimit-rm"], (ulimit) => ulimit.Name);
  setMember(
    container,
    "Ulimits",
    ulimits?.toSorted((a, b) => (a.Name < b.Name ? -1 : 1)),
  );
}

function changePlacement(spec: ServiceSpec, flags: UpdateValues): void {
  const task = spec.TaskTemplate;
  const constraints = changedList(task.Placement?.Constraints, flags["constraint-add"], flags["constraint-rm"]);
  if (constraints !== undefined) setMember((task.Placement ??= {}), "Constraints", constraints.toSorted());
  const { "placement-pref-add": added = [], "placement-pref-rm": removed = [] } = flags;
  if (added.length + removed.length > 0) {
    const placement = (task.Placement ??= {});
    const kept = (placement.Preferences ?? []).filter((one) => !removed.includes(one.Spread.SpreadDescriptor));
    setMember(placement, "Preferences", [...kept, ...added.map(spread)]);
  }
}

function changeResources(spec: ServiceSpec, flags: UpdateValues): void {
  const { "generic-resource-add": added, "generic-resource-rm": removed } = flags;
  if (added === undefined && removed === undefined) return;
  const reservations = ((spec.TaskTemplate.Resources ??= {}).Reservations ??= {});
  const kindOf = (one: { DiscreteResourceSpec?: { Kind: string }; NamedResourceSpec?: { Kind: string } }): string =>
    one.DiscreteResourceSpec?.Kind ?? one.NamedResourceSpec?.Kind ?? "";
  const present = reservations.GenericResources;
  for (const kind of removed ?? []) {
    if (!(present ?? []).some((one) => kindOf(one) === kind)) {
      throw new CommandError(`could not find generic-resource \`${kind}\` to remove it`);
    }
  }
  setMember(reservations, "GenericResources", changedList(present, added, removed, kindOf));
}

function changeMode(spec: ServiceSpec, flags: UpdateValues): void {
  const { replicas, "max-concurrent": concurrent } = flags;
  const { Replicated: replicated, ReplicatedJob: job } = spec.Mode;
  if (replicas !== undefined) {
    if (replicated !== undefined) replicated.Replicas = replicas;
    else if (job !== undefined) job.TotalCompletions = replicas;
    else throw new CommandError("replicas can only be used with replicated or replicated-job mode");
  }
  if (concurrent !== undefined) {
    if (job === undefined) throw new CommandError("max-concurrent can only be used with replicated-job mode");
    job.MaxConcurrent = concurrent;
  }
}

function changePorts(spec: ServiceSpec, flags: UpdateValues): void {
  const { "publish-add": added, "publish-rm": removed } = flags;
  if (added === undefined && removed === undefined) return;
  const endpoint = (spec.EndpointSpec ??= {});
  const isRemoved = (port: PortConfig): boolean =>
    (removed ?? [])
      .flat()
      .some(
        (one) =>
          one.TargetPort === port.TargetPort &&
          one.Protocol === (port.Protocol ?? "tcp") &&
          (one.PublishedPort === undefined || one.PublishedPort === port.PublishedPort),
      );
  const keyOf = (port: PortConfig): string =>
    `${port.TargetPort ?? 0}/${port.Protocol ?? "tcp"}/${port.PublishMode ?? "ingress"}/${port.PublishedPort ?? 0}`;
  const ports = new Map((endpoint.Ports ?? []).filter((port) => !isRemoved(port)).map((port) => [keyOf(port), port]));
  for (const port of (added ?? []).flat()) ports.set(keyOf(port), port);
  setMember(
    endpoint,
    "Ports",
    [...ports.values()].toSorted((a, b) => (a.PublishedPort ?? 0) - (b.PublishedPort ?? 0)),
  );
}

/** References to secrets or configs: removed by name or id, an added one takes the place of one with the same target. */
export function changedReferences<R extends { File?: FileTarget }>(
  present: readonly R[] | undefined,
  added: readonly R[],
  removed: readonly string[],
  namesOf: (reference: R) => readonly (string | undefined)[],
): R[] {
  const targets = new Set(added.map((one) => one.File?.Name));
  const kept = (present ?? []).filter(
    (one) => !namesOf(one).some((name) => name !== undefined && removed.includes(name)) && !targets.has(one.File?.Name),
  );
  return [...kept, ...added];
}

/** @returns undefined when nothing is asked for */
function changedMap(
  present: Record<string, string> | undefined,
  added: readonly string[] | undefined,
  removed: readonly string[] | undefined,
): Record<string, string> | undefined {
  if (added === undefined && removed === undefined) return present;
  const kept = Object.entries(present ?? {}).filter(([key]) => !(removed ?? []).includes(key));
  return { ...Object.fromEntries(kept), ...keyValues(added ?? []) };
}

/** Removes by key, then adds or replaces by key. @returns undefined when nothing is asked for */
function changedList<T>(
  present: readonly T[] | undefined,
  added: readonly T[] | undefined,
  removed: readonly string[] | undefined,
  keyOf: (one: T) => string = String,
): T[] | undefined {
  if (added === undefined && removed === undefined) return undefined;
  const byKey = new Map((present ?? []).map((one) => [keyOf(one), one]));
  for (const key of removed ?? []) byKey.delete(key);
  for (const one of added ?? []) byKey.set(keyOf(one), one);
  return [...byKey.values()];
}
