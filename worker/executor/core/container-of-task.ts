/**
 * From a task to the container that does it, in the Engine API's shapes. Pure: what the node knows comes in as facts.
 * Source: features.md §1.2; labels and names are Swarm's, since tools read them.
 */
import { ClusterError } from "../../../lib/pure/errors.ts";
import {
  expandTemplate,
  failTemplate,
  showValue,
  type TemplateFunction,
  type TemplateValue,
} from "../../../lib/pure/template.ts";
import { taskName, templateData, type skep, type TemplateNode } from "../../../proto/index.ts";

type Task = skep.objects.Task.$Properties;
type ContainerSpec = skep.objects.ContainerSpec.$Properties;
type Mount = skep.objects.Mount.$Properties;

/** What the executor hands to the rooms below; kept structural, so that this core needs none of them. */
export interface TaskContainerPlan {
  readonly name: string;
  readonly config: {
    readonly Image: string;
    readonly Hostname: string;
    readonly User: string;
    readonly WorkingDir: string;
    readonly Tty: boolean;
    readonly OpenStdin: boolean;
    readonly Env: readonly string[];
    readonly Entrypoint?: readonly string[];
    readonly Cmd?: readonly string[];
    readonly Labels: Readonly<Record<string, string>>;
    readonly StopSignal?: string;
    readonly StopTimeout: number;
    readonly Healthcheck?: HealthWish;
  };
  readonly hostConfig: Readonly<Record<string, unknown>>;
  readonly mounts: readonly MountWish[];
  readonly stopGraceMs: number;
}

interface HealthWish {
  readonly Test: readonly string[];
  readonly Interval: number;
  readonly Timeout: number;
  readonly StartPeriod: number;
  readonly StartInterval: number;
  readonly Retries: number;
}

export interface MountWish {
  readonly Type: "bind" | "volume" | "tmpfs";
  readonly Source: string;
  readonly Target: string;
  readonly ReadOnly: boolean;
  readonly BindOptions?: {
    readonly Propagation: string;
    readonly NonRecursive: boolean;
    readonly CreateMountpoint: boolean;
    readonly ReadOnlyNonRecursive: boolean;
  };
  readonly VolumeOptions?: {
    readonly NoCopy: boolean;
    readonly Subpath: string;
    readonly Labels: Readonly<Record<string, string>>;
    readonly DriverConfig: { readonly Name: string; readonly Options: Readonly<Record<string, string>> };
  };
  readonly TmpfsOptions?: {
    readonly SizeBytes: number;
    readonly Mode?: number;
    readonly Options: readonly (readonly string[])[];
  };
}

export class TaskSpecInvalid extends ClusterError {
  readonly code = "TASK_SPEC_INVALID";
  constructor(found: string, fix = "Correct the service's spec") {
    super(`Cannot prepare the task: ${found}`, { fix });
  }
}

/** Swarm's; features.md §1.2. */
export const stopGraceDefaultMs = 10_000;
const systemLabel = "com.docker.swarm";

export function durationNs(duration: skep.objects.Duration.$Properties | null | undefined): number {
  return (duration?.seconds ?? 0) * 1e9 + (duration?.nanos ?? 0);
}

/** `env`, `secret` and `config`, which payloads of secrets and configs may use. */
export function payloadFunctions(
  spec: ContainerSpec,
  env: readonly string[],
  read: { secret(id: string): string | undefined; config(id: string): string | undefined },
): Readonly<Record<string, TemplateFunction>> {
  const find = (
    kind: "secret" | "config",
    references: readonly { readonly id: string; readonly target: string }[],
    target: TemplateValue,
  ): string => {
    const reference = references.find((one) => one.target === target);
    const value = reference === undefined ? undefined : read[kind](reference.id);
    return value ?? failTemplate(`${kind} target ${showValue(target)} not found`);
  };
  const secrets = (spec.secrets ?? []).map((one) => ({ id: one.secretId ?? "", target: one.file?.name ?? "" }));
  const configs = (spec.configs ?? []).map((one) => ({ id: one.configId ?? "", target: one.file?.name ?? "" }));
  return {
    env: (name) => {
      const prefix = `${showValue(name)}=`;
      return env.find((one) => one.startsWith(prefix))?.slice(prefix.length) ?? "";
    },
    secret: (target) => find("secret", secrets, target),
    config: (target) => find("config", configs, target),
  };
}

export function environmentOfTask(task: Task, spec: ContainerSpec, data: TemplateValue): string[] {
  const env = (spec.env ?? []).map((text) => expandTemplate("an environment variable", text, data));
  return [...env, ...resourceVariables(task.assignedGenericResources ?? [])];
}

/** `DOCKER_RESOURCE_GPU=uuid1,uuid2`. */
function resourceVariables(resources: readonly skep.objects.GenericResource.$Properties[]): string[] {
  const byKind = new Map<string, string[]>();
  for (const { namedResourceSpec: named, discreteResourceSpec: discrete } of resources) {
    const kind = named?.kind ?? discrete?.kind ?? "";
    const value = named == null ? String(discrete?.value ?? 0) : (named.value ?? "");
    byKind.set(kind, [...(byKind.get(kind) ?? []), value]);
  }
  return [...byKind].map(([kind, values]) => `DOCKER_RESOURCE_${kind.toUpperCase()}=${values.join(",")}`);
}

/** The spec's labels, the task's over them, and over all what tells whose container it is. */
function labelsOf(task: Task, spec: ContainerSpec): Record<string, string> {
  return {
    ...spec.labels,
    ...task.labels,
    [`${systemLabel}.task`]: "",
    [`${systemLabel}.task.id`]: task.id ?? "",
    [`${systemLabel}.task.name`]: taskName(task),
    [`${systemLabel}.node.id`]: task.nodeId ?? "",
    [`${systemLabel}.service.id`]: task.serviceId ?? "",
    [`${systemLabel}.service.name`]: task.serviceAnnotations?.name ?? "",
  };
}

export const taskIdLabel = `${systemLabel}.task.id`;

/** Log drivers that this worker has. */
export const logDrivers: readonly string[] = ["json-file", "local", "none"];

/**
 * @param networkMode  as the executor has decided it
 * @param files        secrets and configs as they lie on this node, bound read-only
 * @throws             TaskSpecInvalid, TemplateInvalid
 */
export function planContainer(
  task: Task,
  node: TemplateNode,
  networkMode: string,
  files: readonly { readonly source: string; readonly target: string }[],
): TaskContainerPlan {
  const spec = containerSpecOf(task);
  const data = templateData(task, node);
  const stopGraceMs = spec.stopGracePeriod == null ? stopGraceDefaultMs : durationNs(spec.stopGracePeriod) / 1e6;
  const command = spec.command ?? [];
  const args = spec.args ?? [];
  const mounts = [
    ...(spec.mounts ?? []).map((mount) => mountOf(mount, data)),
    ...files.map(({ source, target }): MountWish => ({ Type: "bind", Source: source, Target: target, ReadOnly: true })),
  ];
  return {
    name: taskName(task),
    config: {
      Image: spec.image ?? "",
      Hostname: expandTemplate("the hostname", spec.hostname ?? "", data),
      User: spec.user ?? "",
      WorkingDir: spec.dir ?? "",
      Tty: spec.tty ?? false,
      OpenStdin: spec.openStdin ?? false,
      Env: environmentOfTask(task, spec, data),
      ...(command.length > 0 ? { Entrypoint: command, Cmd: args } : args.length > 0 ? { Cmd: args } : {}),
      Labels: labelsOf(task, spec),
      ...((spec.stopSignal ?? "") === "" ? {} : { StopSignal: spec.stopSignal ?? "" }),
      StopTimeout: Math.ceil(stopGraceMs / 1000),
      ...(spec.healthCheck == null ? {} : { Healthcheck: healthOf(spec.healthCheck) }),
    },
    hostConfig: hostConfigOf(task, spec, networkMode),
    mounts,
    stopGraceMs,
  };
}

export function containerSpecOf(task: Task): ContainerSpec {
  const spec = task.spec?.containerSpec;
  if (spec == null) throw new TaskSpecInvalid("it has no container", "Only container tasks run on this worker");
  return spec;
}

function healthOf(health: skep.objects.HealthConfig.$Properties): HealthWish {
  return {
    Test: health.test ?? [],
    Interval: durationNs(health.interval),
    Timeout: durationNs(health.timeout),
    StartPeriod: durationNs(health.startPeriod),
    StartInterval: durationNs(health.startInterval),
    Retries: health.retries ?? 0,
  };
}

function hostConfigOf(task: Task, spec: ContainerSpec, networkMode: string): Record<string, unknown> {
  const driver = task.spec?.logDriver;
  const driverName = driver?.name ?? "";
  if (driverName !== "" && !logDrivers.includes(driverName)) {
    throw new TaskSpecInvalid(
      `no log driver named '${driverName}' is registered`,
      `Use one of ${logDrivers.join(", ")}`,
    );
  }
  return {
    NetworkMode: networkMode,
    LogConfig: { Type: driverName, Config: { ...driver?.options } },
    ReadonlyRootfs: spec.readOnly ?? false,
    GroupAdd: spec.groups ?? [],
    CapAdd: spec.capabilityAdd ?? [],
    CapDrop: spec.capabilityDrop ?? [],
    Ulimits: (spec.ulimits ?? []).map(({ name, soft, hard }) => ({
      Name: name ?? "",
      Soft: soft ?? 0,
      Hard: hard ?? 0,
    })),
    Sysctls: { ...spec.sysctls },
    OomScoreAdj: spec.oomScoreAdj ?? 0,
    SecurityOpt: securityOptions(spec.privileges),
    ExtraHosts: (spec.hosts ?? []).flatMap(extraHosts),
    Dns: spec.dnsConfig?.nameservers ?? [],
    DnsSearch: spec.dnsConfig?.search ?? [],
    DnsOptions: spec.dnsConfig?.options ?? [],
    ...(spec.init == null ? {} : { Init: spec.init }),
    ...limitsOf(task.spec?.resources),
  };
}

/** A line of hosts(5), `IP NAME ALIAS…`, as the Engine's `NAME:IP` pairs. */
function extraHosts(line: string): string[] {
  const [address = "", ...names] = line.split(/\s+/).filter((word) => word !== "");
  return names.map((name) => `${name}:${address}`);
}

function limitsOf(resources: skep.objects.ResourceRequirements.$Properties | null | undefined): object {
  const limits = resources?.limits;
  const memory = limits?.memoryBytes ?? 0;
  const swap = resources?.swapBytes;
  return {
    Memory: memory,
    NanoCpus: limits?.nanoCpus ?? 0,
    ...((limits?.pids ?? 0) > 0 ? { PidsLimit: limits?.pids } : {}),
    // The Engine counts memory and swap together; the spec counts swap alone, and -1 means as much as there is.
    ...(swap == null || memory === 0 ? {} : { MemorySwap: swap < 0 ? -1 : memory + swap }),
    ...(resources?.memorySwappiness == null ? {} : { MemorySwappiness: resources.memorySwappiness }),
  };
}

function securityOptions(privileges: skep.objects.Privileges.$Properties | null | undefined): string[] {
  const options: string[] = [];
  if (privileges == null) return options;
  const { credentialSpec, selinuxContext, seccomp, appArmor } = privileges;
  if (credentialSpec != null && Object.values(credentialSpec).some((value) => value !== "")) {
    throw new TaskSpecInvalid("credential specs are for Windows", "Remove the service's credential spec");
  }
  if (privileges.noNewPrivileges === true) options.push("no-new-privileges");
  switch (seccomp?.mode ?? "") {
    case "":
    case "default":
      break;
    case "unconfined":
      options.push("seccomp=unconfined");
      break;
    case "custom":
      options.push(`seccomp=${new TextDecoder().decode(seccomp?.profile ?? new Uint8Array())}`);
      break;
    default:
      throw new TaskSpecInvalid(`unknown seccomp mode '${seccomp?.mode ?? ""}'`);
  }
  if (appArmor?.mode === "disabled") options.push("apparmor=unconfined");
  if (selinuxContext?.disable === true) options.push("label=disable");
  else if (selinuxContext != null) {
    const { user, role, type, level } = selinuxContext;
    for (const [key, value] of Object.entries({ user, role, type, level })) {
      if (value != null && value !== "") options.push(`label=${key}:${value}`);
    }
  }
  return options;
}

function mountOf(mount: Mount, data: TemplateValue): MountWish {
  const Source = expandTemplate("a mount's source", mount.source ?? "", data);
  const Target = expandTemplate("a mount's target", mount.target ?? "", data);
  const common = { Source, Target, ReadOnly: mount.readOnly ?? false };
  switch (mount.type) {
    case "bind": {
      const options = mount.bindOptions;
      return {
        Type: "bind",
        ...common,
        BindOptions: {
          Propagation: options?.propagation ?? "",
          NonRecursive: options?.nonRecursive ?? false,
          CreateMountpoint: options?.createMountpoint ?? false,
          ReadOnlyNonRecursive: options?.readOnlyNonRecursive ?? false,
        },
      };
    }
    case "volume": {
      const options = mount.volumeOptions;
      const labels = Object.entries(options?.labels ?? {}).map(([key, value]) => [
        key,
        expandTemplate("a volume's label", value, data),
      ]);
      const driverOptions = Object.entries(options?.driverConfig?.options ?? {}).map(([key, value]) => [
        key,
        expandTemplate("a volume's option", value, data),
      ]);
      return {
        Type: "volume",
        ...common,
        VolumeOptions: {
          NoCopy: options?.noCopy ?? false,
          Subpath: options?.subpath ?? "",
          Labels: Object.fromEntries(labels) as Record<string, string>,
          DriverConfig: {
            Name: options?.driverConfig?.name ?? "",
            Options: Object.fromEntries(driverOptions) as Record<string, string>,
          },
        },
      };
    }
    case "tmpfs": {
      const options = mount.tmpfsOptions;
      return {
        Type: "tmpfs",
        ...common,
        TmpfsOptions: {
          SizeBytes: options?.sizeBytes ?? 0,
          ...(options?.mode == null || options.mode === 0 ? {} : { Mode: options.mode }),
          Options: (options?.options ?? []).map(({ values }) => values ?? []),
        },
      };
    }
    default:
      throw new TaskSpecInvalid(
        `this worker has no mounts of type "${mount.type ?? ""}"`,
        "Use a mount of type bind, volume or tmpfs",
      );
  }
}
