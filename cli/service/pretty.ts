/** `service inspect --pretty`. */
import type { ContainerSpec, Labels, PortConfig, Service, ServiceSpec, UpdateConfig } from "../api/types.ts";
import { formatDurationNs } from "../../lib/pure/duration.ts";
import { binarySize, capitalize, ago } from "../output/human.ts";

/** @param networks names by id */
export function prettyService(service: Service, networks: ReadonlyMap<string, string>): string {
  const { Spec: spec } = service;
  const task = spec.TaskTemplate;
  return [
    "",
    `ID:\t\t${service.ID}`,
    `Name:\t\t${spec.Name}`,
    ...labels("Labels:", spec.Labels, " "),
    ...mode(spec),
    ...updateStatus(service),
    "Placement:",
    ...placement(spec),
    ...(spec.UpdateConfig === undefined ? [] : updateConfig("UpdateConfig", "update", spec.UpdateConfig)),
    ...(spec.RollbackConfig === undefined ? [] : updateConfig("RollbackConfig", "rollback", spec.RollbackConfig)),
    ...container(spec),
    ...resources(spec),
    ...(task.Networks !== undefined && task.Networks.length > 0
      ? [`Networks: ${task.Networks.map(({ Target }) => networks.get(Target) ?? Target).join(" ")} `]
      : []),
    `Endpoint Mode:\t${spec.EndpointSpec?.Mode ?? "vip"}`,
    ...ports(service.Endpoint?.Ports ?? []),
    ...healthcheck(spec),
    "",
  ].join("\n");
}

function labels(title: string, labels: Labels | undefined | null, indent: string): string[] {
  const entries = Object.entries(labels ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1));
  if (entries.length === 0) return [];
  return [title, ...entries.map(([key, value]) => `${indent}${key}${value === "" ? "" : `=${value}`}`)];
}

function mode({ Mode }: ServiceSpec): string[] {
  if (Mode.Global !== undefined) return ["Service Mode:\tGlobal"];
  if (Mode.GlobalJob !== undefined) return ["Service Mode:\tGlobalJob"];
  if (Mode.ReplicatedJob !== undefined) {
    return [
      "Service Mode:\tReplicatedJob",
      ` Max Concurrent:\t${Mode.ReplicatedJob.MaxConcurrent ?? 1}`,
      ` Total Completions:\t${Mode.ReplicatedJob.TotalCompletions ?? 1}`,
    ];
  }
  return ["Service Mode:\tReplicated", ` Replicas:\t${Mode.Replicated?.Replicas ?? 1}`];
}

function updateStatus({ UpdateStatus: status }: Service): string[] {
  if (status?.State === undefined || status.State === "") return [];
  const nowMs = Date.now();
  return [
    "UpdateStatus:",
    ` State:\t\t${status.State}`,
    ...(status.StartedAt === undefined ? [] : [` Started:\t${ago(status.StartedAt, nowMs).toLowerCase()}`]),
    ...(status.State === "completed" && status.CompletedAt !== undefined
      ? [` Completed:\t${ago(status.CompletedAt, nowMs).toLowerCase()}`]
      : []),
    ` Message:\t${status.Message ?? ""}`,
  ];
}

function placement({ TaskTemplate: { Placement: placement } }: ServiceSpec): string[] {
  return [
    ...(placement?.Constraints?.length ? [` Constraints:\t[${placement.Constraints.join(" ")}]`] : []),
    ...(placement?.Preferences?.length
      ? [` Preferences:   [${placement.Preferences.map((one) => `spread=${one.Spread.SpreadDescriptor}`).join(" ")}]`]
      : []),
    ...(placement?.MaxReplicas ? [` Max Replicas Per Node:   ${placement.MaxReplicas}`] : []),
  ];
}

function updateConfig(title: string, verb: string, config: UpdateConfig): string[] {
  return [
    `${title}:`,
    ` Parallelism:\t${config.Parallelism}`,
    ...(config.Delay ? [` Delay:\t\t${formatDurationNs(config.Delay)}`] : []),
    ` On failure:\t${config.FailureAction ?? "pause"}`,
    ...(config.Monitor ? [` Monitoring Period: ${formatDurationNs(config.Monitor)}`] : []),
    ` Max failure ratio: ${config.MaxFailureRatio}`,
    ` ${capitalize(verb)}${verb === "update" ? " order:      " : " order:    "}${config.Order ?? "stop-first"}`,
  ];
}

function container({ TaskTemplate: { ContainerSpec: container, LogDriver: driver } }: ServiceSpec): string[] {
  return [
    "ContainerSpec:",
    ` Image:\t\t${container.Image ?? ""}`,
    ...(container.Args?.length ? [` Args:\t\t${container.Args.join(" ")} `] : []),
    ...(container.Env?.length ? [` Env:\t\t${container.Env.join(" ")} `] : []),
    ...(container.Dir ? [` Dir:\t\t${container.Dir}`] : []),
    ...(container.Init === undefined ? [] : [` Init:\t\t${container.Init}`]),
    ...(container.User ? [` User: ${container.User}`] : []),
    ...capabilities(container),
    ...named("SysCtls", Object.entries(container.Sysctls ?? {})),
    ...named(
      "Ulimits",
      (container.Ulimits ?? []).map(({ Name, Soft, Hard }): [string, string] => [Name, `${Soft}:${Hard}`]),
    ),
    ...(container.Mounts?.length
      ? [
          "Mounts:",
          ...container.Mounts.flatMap((mount) => [
            ` Target:\t${mount.Target ?? ""}`,
            `  Source:\t${mount.Source ?? ""}`,
            `  ReadOnly:\t${mount.ReadOnly === true}`,
            `  Type:\t\t${mount.Type ?? ""}`,
          ]),
        ]
      : []),
    ...(container.Configs?.length
      ? [
          "Configs:",
          ...container.Configs.map((one) => ` Target:\t${one.File?.Name ?? ""}\n  Source:\t${one.ConfigName}`),
        ]
      : []),
    ...(container.Secrets?.length
      ? [
          "Secrets:",
          ...container.Secrets.map((one) => ` Target:\t${one.File?.Name ?? ""}\n  Source:\t${one.SecretName}`),
        ]
      : []),
    ...(driver?.Name ? ["Log Driver:", ` Name:\t\t${driver.Name}`, ...logOptions(driver.Options)] : []),
  ];
}

function capabilities({ CapabilityAdd: added, CapabilityDrop: dropped }: ContainerSpec): string[] {
  if (!added?.length && !dropped?.length) return [];
  return [
    "Capabilities:",
    ...(added?.length ? [` Add: ${added.join(", ")}`] : []),
    ...(dropped?.length ? [` Drop: ${dropped.join(", ")}`] : []),
  ];
}

function named(title: string, entries: readonly (readonly [string, string])[]): string[] {
  if (entries.length === 0) return [];
  const sorted = entries.toSorted(([a], [b]) => (a < b ? -1 : 1));
  return [`${title}:`, ...sorted.map(([name, value]) => ` ${name}: ${value}`)];
}

function logOptions(options: Labels | undefined): string[] {
  const entries = Object.entries(options ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return entries.length === 0 ? [] : [" LogOpts:", ...entries.map(([key, value]) => `  ${key}:       ${value}`), ""];
}

function resources({ TaskTemplate: { Resources: resources } }: ServiceSpec): string[] {
  const amounts = (title: string, cpu?: number, memory?: number, pids?: number): string[] =>
    cpu || memory || pids
      ? [
          ` ${title}:`,
          ...(cpu ? [`  CPU:\t\t${cpu / 1e9}`] : []),
          ...(memory ? [`  Memory:\t${binarySize(memory)}`] : []),
          ...(pids ? [`  PIDs:\t\t${pids}`] : []),
        ]
      : [];
  const lines = [
    ...amounts("Reservations", resources?.Reservations?.NanoCPUs, resources?.Reservations?.MemoryBytes),
    ...amounts("Limits", resources?.Limits?.NanoCPUs, resources?.Limits?.MemoryBytes, resources?.Limits?.Pids),
  ];
  return ["Resources:", ...lines];
}

function ports(ports: readonly PortConfig[]): string[] {
  if (ports.length === 0) return [];
  return [
    "Ports:",
    ...ports.flatMap((port) => [
      ` PublishedPort = ${port.PublishedPort ?? 0}`,
      `  Protocol = ${port.Protocol ?? "tcp"}`,
      `  TargetPort = ${port.TargetPort ?? 0}`,
      `  PublishMode = ${port.PublishMode ?? "ingress"}`,
    ]),
  ];
}

function healthcheck({ TaskTemplate: { ContainerSpec: container } }: ServiceSpec): string[] {
  const check = container.Healthcheck;
  if (check === undefined) return [];
  return [
    " Healthcheck:",
    `  Interval = ${formatDurationNs(check.Interval ?? 0)}`,
    `  Retries = ${check.Retries ?? 0}`,
    `  StartPeriod =\t${formatDurationNs(check.StartPeriod ?? 0)}`,
    `  Timeout =\t${formatDurationNs(check.Timeout ?? 0)}`,
    ...(check.Test?.length ? ["  Tests:", ...check.Test.map((word) => `\t Test = ${word}`), ""] : []),
  ];
}
