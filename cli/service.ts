/** `skep service`: what a swarm runs. */
import { inPath, filtersQuery } from "./api/client.ts";
import { registryAuth } from "./api/registry.ts";
import type { Service, ServiceSpec, Task } from "./api/types.ts";
import { CommandError, isNotFound, messageOf, throwAll } from "./errors.ts";
import { atLeast, command, exactly, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { forEachName, inspectEach, prettyFlags } from "./output/each.ts";
import { printList, type Columns } from "./output/list.ts";
import { shortId } from "./output/human.ts";
import { changedReferences, changeSpec } from "./service/change.ts";
import { waitForService, type Wait } from "./service/converge.ts";
import { createFlags, updateFlags, type UpdateValues } from "./service/flags.ts";
import { prettyService } from "./service/pretty.ts";
import { printServiceLogs, logFlags } from "./service/logs.ts";
import { configsById, networksById, pinImage, secretsById } from "./service/references.ts";
import { newSpec, setMember } from "./service/spec.ts";
import { resolveSelf } from "./service/self.ts";
import { imageShown, printTasks, taskListFlags } from "./service/tasks.ts";
import type { Session } from "./session.ts";

export const create = command({
  usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
  args: atLeast(1),
  firstArgEndsFlags: true,
  flags: createFlags,
  completes: "images",
  async run(session, flags, args) {
    const spec = newSpec(flags, args, session.env);
    const { TaskTemplate: task } = spec;
    const api = await session.api();
    if (task.Networks !== undefined) task.Networks = await networksById(api, task.Networks);
    setMember(task.ContainerSpec, "Secrets", await secretsById(api, flags.secret ?? []));
    await setConfigs(session, spec, flags.config ?? []);
    const image = task.ContainerSpec.Image ?? "";
    const withAuth = flags["with-registry-auth"] === true;
    const warning = flags["no-resolve-image"] === true ? undefined : await pinImage(session, spec, withAuth);
    const made = await api.post<{ ID: string; Warnings?: string[] | null }>("/services/create", {
      body: spec,
      headers: withAuth ? { "X-Registry-Auth": registryAuth(session, image) } : {},
    });
    printWarnings(session, [...(made.Warnings ?? []), warning]);
    session.print(made.ID);
    if (flags.detach === true) return;
    await waitForService(session, { serviceId: made.ID, quiet: flags.quiet === true, wanted: "update" });
  },
});

function printWarnings(session: Session, warnings: readonly (string | undefined)[]): void {
  for (const warning of warnings) if (warning !== undefined) session.warn(warning);
}

/** Configs by id; a credential spec that names a config becomes one without a file. */
async function setConfigs(
  session: Session,
  spec: ServiceSpec,
  configs: readonly NonNullable<ServiceSpec["TaskTemplate"]["ContainerSpec"]["Configs"]>[number][],
): Promise<void> {
  const container = spec.TaskTemplate.ContainerSpec;
  const credential = container.Privileges?.CredentialSpec;
  const isNamed = credential !== undefined && credential !== null && credential.Config !== "";
  const wanted = isNamed ? [...configs, { ConfigName: credential.Config, Runtime: {} }] : [...configs];
  const found = await configsById(await session.api(), wanted);
  if (isNamed) credential.Config = found.at(-1)?.ConfigID ?? "";
  setMember(container, "Configs", found);
}

export const update = command({
  usage: "[OPTIONS] SERVICE",
  args: exactly(1),
  flags: updateFlags,
  completes: "services",
  async run(session, flags, [name = ""]) {
    const api = await session.api();
    const service = await api.get<Service>(`/services/${inPath(name)}`, { query: { insertDefaults: false } });
    const { Spec: spec } = service;
    const withAuth = flags["with-registry-auth"] === true;
    const goBack = flags.rollback === true;
    if (goBack) checkRollbackAlone(flags);
    let warning: string | undefined;
    if (!goBack) {
      changeSpec(spec, flags, session.env);
      await changeLookedUp(session, spec, flags);
      if (flags.image !== undefined && flags["no-resolve-image"] !== true) {
        warning = await pinImage(session, spec, withAuth);
      }
    }
    const image = spec.TaskTemplate.ContainerSpec.Image ?? "";
    const answer = await api.post<{ Warnings?: string[] | null }>(`/services/${service.ID}/update`, {
      query: {
        version: service.Version.Index,
        registryAuthFrom: goBack ? undefined : withAuth ? undefined : "spec",
        rollback: goBack ? "previous" : undefined,
      },
      body: spec,
      headers: withAuth ? { "X-Registry-Auth": registryAuth(session, image) } : {},
    });
    printWarnings(session, [...(answer.Warnings ?? []), warning]);
    session.print(name);
    if (flags.detach === true) return;
    await waitForService(session, {
      serviceId: name,
      quiet: flags.quiet === true,
      wanted: goBack ? "rollback" : "update",
      before: service.UpdateStatus,
    });
  },
});

function checkRollbackAlone(flags: UpdateValues): void {
  const allowed = new Set(["rollback", "detach", "quiet", "with-registry-auth", "no-resolve-image"]);
  const others = Object.entries(flags).filter(([name, value]) => value !== undefined && !allowed.has(name));
  if (others.length > 0) throw new CommandError("other flags may not be combined with --rollback");
}

/** What must be looked up: networks, secrets, configs. */
async function changeLookedUp(session: Session, spec: ServiceSpec, flags: UpdateValues): Promise<void> {
  const api = await session.api();
  const { TaskTemplate: task } = spec;
  const container = task.ContainerSpec;
  const { "network-add": networks, "network-rm": removedNetworks } = flags;
  if (networks !== undefined || removedNetworks !== undefined) {
    // Before they moved into the task, networks stood beside it.
    const present = task.Networks ?? spec.Networks ?? [];
    delete spec.Networks;
    const removed = await networksById(
      api,
      (removedNetworks ?? []).map((Target) => ({ Target })),
    );
    const kept = present.filter(({ Target }) => !removed.some((one) => one.Target === Target));
    const added = await networksById(api, networks ?? []);
    const repeated = added.find(({ Target }) => kept.some((one) => one.Target === Target));
    if (repeated !== undefined) throw new CommandError(`service is already attached to network ${repeated.Target}`);
    setMember(
      task,
      "Networks",
      [...kept, ...added].toSorted((a, b) => (a.Target < b.Target ? -1 : 1)),
    );
  }
  const { "secret-add": secrets, "secret-rm": removedSecrets } = flags;
  if (secrets !== undefined || removedSecrets !== undefined) {
    const found = await secretsById(api, secrets ?? []);
    const all = changedReferences(container.Secrets, found, removedSecrets ?? [], (one) => [
      one.SecretName,
      one.SecretID,
    ]);
    setMember(container, "Secrets", all);
  }
  const { "config-add": configs, "config-rm": removedConfigs, "credential-spec": credential } = flags;
  if (configs !== undefined || removedConfigs !== undefined || credential !== undefined) {
    const present = container.Configs;
    await setConfigs(session, spec, configs ?? []);
    const all = changedReferences(present, container.Configs ?? [], removedConfigs ?? [], (one) => [
      one.ConfigName,
      one.ConfigID,
    ]);
    setMember(container, "Configs", all);
  }
}

export const scale = command({
  usage: "[OPTIONS] SERVICE=REPLICAS [SERVICE=REPLICAS...]",
  args: atLeast(1),
  flags: { detach: flag.detach() },
  completes: "services",
  async run(session, flags, args) {
    const wanted = args.map((arg) => {
      const [name = "", count] = arg.split("=");
      if (count === undefined || arg.split("=").length > 2) {
        throw new CommandError(`invalid scale specifier '${arg}'.\nSee 'skep service scale --help'.`);
      }
      if (!/^\d+$/.test(count)) {
        throw new CommandError(
          `${name}: invalid replicas value ${count}: strconv.ParseUint: parsing ${JSON.stringify(count)}: invalid syntax`,
        );
      }
      return { name, replicas: Number(count) };
    });
    const errors: unknown[] = [];
    const waits: Wait[] = [];
    for (const { name, replicas } of wanted) {
      try {
        const before = await scaleOne(session, name, replicas);
        session.print(`${name} scaled to ${replicas}`);
        waits.push({ serviceId: name, quiet: false, wanted: "update", before });
      } catch (error) {
        errors.push(`${name}: ${messageOf(error)}`);
      }
    }
    if (flags.detach !== true) {
      for (const wait of waits) {
        await waitForService(session, wait).catch((error: unknown) => {
          if (session.interrupted.aborted) throw error;
          errors.push(`${wait.serviceId}: ${messageOf(error)}`);
        });
      }
    }
    throwAll(errors);
  },
});

async function scaleOne(session: Session, name: string, replicas: number): Promise<Service["UpdateStatus"]> {
  const api = await session.api();
  const service = await api.get<Service>(`/services/${inPath(name)}`, { query: { insertDefaults: false } });
  const { Replicated: replicated, ReplicatedJob: job } = service.Spec.Mode;
  if (replicated !== undefined) replicated.Replicas = replicas;
  else if (job !== undefined) job.TotalCompletions = replicas;
  else throw new CommandError("scale can only be used with replicated or replicated-job mode");
  const answer = await api.post<{ Warnings?: string[] | null }>(`/services/${service.ID}/update`, {
    query: { version: service.Version.Index },
    body: service.Spec,
  });
  printWarnings(session, answer.Warnings ?? []);
  return service.UpdateStatus;
}

export const rollback = command({
  usage: "[OPTIONS] SERVICE",
  args: exactly(1),
  flags: { detach: flag.detach(), quiet: flag.quiet("Print no progress") },
  completes: "services",
  async run(session, flags, [name = ""]) {
    const api = await session.api();
    const service = await api.get<Service>(`/services/${inPath(name)}`, { query: { insertDefaults: false } });
    const answer = await api.post<{ Warnings?: string[] | null }>(`/services/${service.ID}/update`, {
      query: { version: service.Version.Index, rollback: "previous" },
      body: service.Spec,
    });
    printWarnings(session, answer.Warnings ?? []);
    session.print(name);
    if (flags.detach === true) return;
    await waitForService(session, {
      serviceId: name,
      quiet: flags.quiet === true,
      wanted: "rollback",
      before: service.UpdateStatus,
    });
  },
});

export const rm = command({
  usage: "SERVICE [SERVICE...]",
  args: atLeast(1),
  flags: {},
  completes: "services",
  async run(session, _flags, names) {
    const api = await session.api();
    await forEachName(session, names, (name) => api.delete(`/services/${inPath(name)}`));
  },
});

const listFlags = { filter: flag.filters(), format: flag.format(), quiet: flag.quiet() };

export const ls = command({
  usage: "[OPTIONS]",
  args: none,
  flags: listFlags,
  run: (session, flags) => printServices(session, flags),
});

/** Also `stack services`. @param onNone what to say when there is none, instead of an empty table */
export async function printServices(
  session: Session,
  flags: flag.Values<typeof listFlags>,
  onNone?: () => void,
): Promise<void> {
  const api = await session.api();
  const services = await api.get<Service[] | null>("/services", {
    query: { filters: filtersQuery(flags.filter), status: true },
  });
  const sorted = (services ?? []).toSorted((a, b) => a.Spec.Name.localeCompare(b.Spec.Name, "en", { numeric: true }));
  if (sorted.length === 0 && onNone !== undefined) {
    onNone();
    return;
  }
  printList(session, sorted, {
    columns: serviceColumns,
    shown: ["ID", "Name", "Mode", "Replicas", "Image", "Ports"],
    id: "ID",
    format: flags.format,
    quiet: flags.quiet,
  });
}

const serviceColumns: Columns<Service> = {
  ID: ["ID", ({ ID }) => shortId(ID)],
  Name: ["NAME", ({ Spec }) => Spec.Name],
  Mode: ["MODE", ({ Spec }) => modeOf(Spec)],
  Replicas: ["REPLICAS", replicasOf],
  Image: ["IMAGE", ({ Spec }) => imageShown(Spec.TaskTemplate.ContainerSpec?.Image ?? "", false)],
  Ports: ["PORTS", portsOf],
};

function modeOf({ Mode }: ServiceSpec): string {
  if (Mode.Global !== undefined) return "global";
  if (Mode.GlobalJob !== undefined) return "global job";
  return Mode.ReplicatedJob === undefined ? "replicated" : "replicated job";
}

function replicasOf({ Spec, ServiceStatus: status }: Service): string {
  const { RunningTasks: running = 0, DesiredTasks: desired = 0, CompletedTasks: completed = 0 } = status ?? {};
  const job = Spec.Mode.ReplicatedJob;
  if (job !== undefined) {
    const most = job.MaxConcurrent ?? 1;
    const total = job.TotalCompletions ?? most;
    return `${running}/${Math.min(desired, most)} (${completed}/${total} completed)`;
  }
  if (Spec.Mode.GlobalJob !== undefined) return `${running}/${desired} (${completed}/${desired + completed} completed)`;
  const most = Spec.TaskTemplate.Placement?.MaxReplicas ?? 0;
  return `${running}/${desired}${most > 0 ? ` (max ${most} per node)` : ""}`;
}

function portsOf({ Endpoint }: Service): string {
  const ports = (Endpoint?.Ports ?? []).toSorted(
    (a, b) => (a.PublishedPort ?? 0) - (b.PublishedPort ?? 0) || (a.TargetPort ?? 0) - (b.TargetPort ?? 0),
  );
  return ports
    .filter((port) => port.PublishMode === "ingress")
    .map((port) => `*:${port.PublishedPort ?? 0}->${port.TargetPort ?? 0}/${port.Protocol ?? "tcp"}`)
    .join(", ");
}

export const ps = command({
  usage: "[OPTIONS] SERVICE [SERVICE...]",
  args: atLeast(1),
  flags: taskListFlags,
  completes: "services",
  async run(session, flags, names) {
    const api = await session.api();
    const { ids, missing } = await serviceIds(session, names);
    if (ids.length > 0) {
      const wanted: flag.Filters = new Map([...(flags.filter ?? []), ["service", ids]]);
      const node = wanted.get("node");
      if (node?.includes("self") === true) wanted.set("node", await resolveSelf(session, node));
      const tasks = await api.get<Task[] | null>("/tasks", { query: { filters: filtersQuery(wanted) } });
      await printTasks(session, tasks ?? [], flags);
    }
    throwAll(missing.map((name) => `no such service: ${name}`));
  },
});

/** Full id first, then the name, then an id's beginning: the filters match prefixes of all of them. */
async function serviceIds(session: Session, names: readonly string[]): Promise<{ ids: string[]; missing: string[] }> {
  const api = await session.api();
  const list = async (key: string): Promise<Service[]> =>
    (await api.get<Service[] | null>("/services", { query: { filters: filtersQuery(new Map([[key, names]])) } })) ?? [];
  const byId = await list("id");
  const byName = await list("name");
  const ids: string[] = [];
  const missing: string[] = [];
  for (const name of names) {
    const found =
      byId.find((one) => one.ID === name) ??
      byName.find((one) => one.Spec.Name === name) ??
      only(
        byId.filter((one) => one.ID.startsWith(name)),
        name,
      );
    if (found === undefined) missing.push(name);
    else ids.push(found.ID);
  }
  return { ids, missing };
}

function only(services: readonly Service[], name: string): Service | undefined {
  if (services.length > 1) {
    throw new CommandError(`multiple services found with provided prefix: ${name}`);
  }
  return services[0];
}

export const inspect = command({
  usage: "[OPTIONS] SERVICE [SERVICE...]",
  args: atLeast(1),
  flags: prettyFlags,
  completes: "services",
  async run(session, flags, names) {
    const api = await session.api();
    const read = async (name: string): Promise<Service> => {
      try {
        return await api.get<Service>(`/services/${inPath(name)}`, { query: { insertDefaults: true } });
      } catch (error) {
        throw isNotFound(error) ? new CommandError(`Error: no such service: ${name}`) : error;
      }
    };
    await inspectEach(session, names, flags, read, async (found) => {
      const networks = await networkNames(session, found);
      return found.map((service) => prettyService(service, networks)).join("\n");
    });
  },
});

/** Of the networks that the services use. What is gone keeps its id. */
async function networkNames(session: Session, services: readonly Service[]): Promise<ReadonlyMap<string, string>> {
  const api = await session.api();
  const ids = new Set(services.flatMap(({ Spec }) => (Spec.TaskTemplate.Networks ?? []).map(({ Target }) => Target)));
  const names = new Map<string, string>();
  for (const id of ids) {
    const network = await api
      .get<{ Name: string }>(`/networks/${inPath(id)}`, { query: { scope: "swarm" } })
      .catch(() => undefined);
    if (network !== undefined) names.set(id, network.Name);
  }
  return names;
}

export const logs = command({
  usage: "[OPTIONS] SERVICE|TASK",
  args: exactly(1),
  flags: logFlags,
  completes: "services",
  run: (session, flags, [name = ""]) => printServiceLogs(session, flags, name),
});
