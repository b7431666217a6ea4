/**
 * From flags to a service's specification. `applyShared` sets what both commands can set; a member whose value is Go's
 * zero value is left out, as the reference's JSON does.
 */
import { readFileSync } from "node:fs";
import type { Healthcheck, ServiceMode, ServiceSpec, UpdateConfig } from "../api/types.ts";
import { CommandError, messageOf } from "../errors.ts";
import type { CreateValues, SharedValues } from "./flags.ts";
import { capability, keyValues } from "./read.ts";

type Env = Readonly<Record<string, string | undefined>>;

export function newSpec(flags: CreateValues, args: readonly string[], env: Env): ServiceSpec {
  const [image = "", ...rest] = args;
  const spec: ServiceSpec = {
    Name: flags.name ?? "",
    Labels: keyValues(flags.label ?? []),
    TaskTemplate: {
      ContainerSpec: { Image: image, Init: false, DNSConfig: {} },
      Resources: { Limits: {}, Reservations: {} },
      Placement: {},
      ForceUpdate: 0,
    },
    Mode: modeOf(flags),
    EndpointSpec: { Mode: "vip" },
  };
  const { TaskTemplate: task } = spec;
  const container = task.ContainerSpec;
  applyShared(spec, flags);
  setMember(container, "Args", rest);
  setMember(container, "Labels", flags["container-label"] && keyValues(flags["container-label"]));
  setMember(container, "Env", environment(flags["env-file"] ?? [], flags.env ?? [], env));
  setMember(container, "Groups", flags.group);
  setMember(container, "Hosts", flags.host);
  setMember(container, "Mounts", flags.mount);
  setMember(container, "Sysctls", flags.sysctl && keyValues(flags.sysctl));
  setMember(
    container,
    "Ulimits",
    flags.ulimit?.toSorted((a, b) => (a.Name < b.Name ? -1 : 1)),
  );
  const dns = container.DNSConfig ?? {};
  setMember(dns, "Nameservers", flags.dns);
  setMember(dns, "Search", flags["dns-search"]);
  setMember(dns, "Options", flags["dns-option"]);
  const placement = task.Placement ?? {};
  setMember(placement, "Constraints", flags.constraint);
  setMember(placement, "Preferences", flags["placement-pref"]?.map(spread));
  setMember(task.Resources?.Reservations ?? {}, "GenericResources", flags["generic-resource"]);
  setMember(task, "Networks", flags.network);
  setMember(spec.EndpointSpec ?? {}, "Ports", flags.publish?.flat());
  return spec;
}

export const spread = (descriptor: string): { Spread: { SpreadDescriptor: string } } => ({
  Spread: { SpreadDescriptor: descriptor },
});

function modeOf(flags: CreateValues): ServiceMode {
  const { mode = "replicated", replicas, "max-concurrent": concurrent } = flags;
  const isReplicated = mode === "replicated" || mode === "replicated-job";
  if (!isReplicated && replicas !== undefined) {
    throw new CommandError("replicas can only be used with replicated or replicated-job mode");
  }
  if (!isReplicated && flags["replicas-max-per-node"] !== undefined) {
    throw new CommandError("replicas-max-per-node can only be used with replicated or replicated-job mode");
  }
  if (mode !== "replicated-job" && concurrent !== undefined) {
    throw new CommandError("max-concurrent can only be used with replicated-job mode");
  }
  switch (mode) {
    case "replicated":
      return { Replicated: replicas === undefined ? {} : { Replicas: replicas } };
    case "global":
      return { Global: {} };
    case "global-job":
      return { GlobalJob: {} };
    case "replicated-job": {
      const most = concurrent ?? replicas;
      return {
        ReplicatedJob: {
          ...(most === undefined ? {} : { MaxConcurrent: most }),
          ...(replicas === undefined ? {} : { TotalCompletions: replicas }),
        },
      };
    }
    default:
      throw new CommandError(
        `Unknown mode: ${mode}, only replicated and global supported, and replicated-job and global-job for jobs`,
      );
  }
}

/** Sets everything that was given; leaves the rest as it is. */
export function applyShared(spec: ServiceSpec, flags: SharedValues): void {
  const { TaskTemplate: task } = spec;
  const container = task.ContainerSpec;
  setMember(container, "Command", flags.entrypoint);
  setMember(container, "Hostname", flags.hostname);
  setMember(container, "Dir", flags.workdir);
  setMember(container, "User", flags.user);
  setMember(container, "StopSignal", flags["stop-signal"]);
  setMember(container, "TTY", flags.tty);
  setMember(container, "ReadOnly", flags["read-only"]);
  setMember(container, "Isolation", flags.isolation);
  setMember(container, "OomScoreAdj", flags["oom-score-adj"]);
  if (flags.init !== undefined) container.Init = flags.init;
  if (flags["stop-grace-period"] !== undefined) container.StopGracePeriod = flags["stop-grace-period"];
  if (flags["credential-spec"] !== undefined) {
    container.Privileges = {
      SELinuxContext: null,
      NoNewPrivileges: false,
      ...container.Privileges,
      CredentialSpec: flags["credential-spec"],
    };
  }
  applyCapabilities(container, flags["cap-add"] ?? [], flags["cap-drop"] ?? []);
  const health = healthcheck(container.Healthcheck, flags);
  if (health !== undefined) container.Healthcheck = health;
  applyResources(task, flags);
  applyRestart(task, flags);
  if (flags["replicas-max-per-node"] !== undefined) {
    setMember((task.Placement ??= {}), "MaxReplicas", flags["replicas-max-per-node"]);
  }
  if (flags["log-driver"]) task.LogDriver = { Name: flags["log-driver"] };
  if (flags["log-opt"] !== undefined) {
    // Docker's client forgets them without a driver.
    if (task.LogDriver === undefined) throw new CommandError("--log-opt needs --log-driver");
    setMember(task.LogDriver, "Options", keyValues(flags["log-opt"]));
  }
  const update = updateConfig(spec.UpdateConfig, flags, "update");
  if (update !== undefined) spec.UpdateConfig = update;
  const rollback = updateConfig(spec.RollbackConfig, flags, "rollback");
  if (rollback !== undefined) spec.RollbackConfig = rollback;
  if (flags["endpoint-mode"] !== undefined) setMember((spec.EndpointSpec ??= {}), "Mode", flags["endpoint-mode"]);
}

function applyResources(task: ServiceSpec["TaskTemplate"], flags: SharedValues): void {
  const given = (...values: readonly unknown[]): boolean => values.some((value) => value !== undefined);
  const { "limit-cpu": cpu, "limit-memory": memory, "limit-pids": pids } = flags;
  if (given(cpu, memory, pids)) {
    const limits = ((task.Resources ??= {}).Limits ??= {});
    setMember(limits, "NanoCPUs", cpu);
    setMember(limits, "MemoryBytes", memory);
    setMember(limits, "Pids", pids);
  }
  const { "reserve-cpu": reservedCpu, "reserve-memory": reservedMemory } = flags;
  if (given(reservedCpu, reservedMemory)) {
    const reservations = ((task.Resources ??= {}).Reservations ??= {});
    setMember(reservations, "NanoCPUs", reservedCpu);
    setMember(reservations, "MemoryBytes", reservedMemory);
  }
  const { "memory-swap": swap, "memory-swappiness": swappiness } = flags;
  if (swap !== undefined) (task.Resources ??= {}).SwapBytes = swap;
  if (swappiness !== undefined) (task.Resources ??= {}).MemorySwappiness = swappiness;
}

function applyRestart(task: ServiceSpec["TaskTemplate"], flags: SharedValues): void {
  const {
    "restart-condition": condition,
    "restart-delay": delay,
    "restart-max-attempts": attempts,
    "restart-window": window,
  } = flags;
  if (condition === undefined && delay === undefined && attempts === undefined && window === undefined) return;
  const policy = (task.RestartPolicy ??= { Condition: "any", Delay: 5e9, MaxAttempts: 0 });
  if (condition !== undefined) policy.Condition = condition;
  if (delay !== undefined) policy.Delay = delay;
  if (attempts !== undefined) policy.MaxAttempts = attempts;
  if (window !== undefined) policy.Window = window;
}

/** @returns undefined when no flag asks for a change */
function healthcheck(present: Healthcheck | undefined, flags: SharedValues): Healthcheck | undefined {
  const {
    "health-cmd": command,
    "health-interval": interval,
    "health-timeout": timeout,
    "health-start-period": startPeriod,
    "health-start-interval": startInterval,
    "health-retries": retries,
  } = flags;
  const none = flags["no-healthcheck"];
  const changes = [command, interval, timeout, startPeriod, startInterval, retries].some((one) => one !== undefined);
  if (none === true) {
    if (changes) throw new CommandError("--no-healthcheck conflicts with --health-* options");
    return { Test: ["NONE"] };
  }
  if (!changes) return undefined;
  const check: Healthcheck = { ...present };
  if (check.Test?.[0] === "NONE") delete check.Test;
  setMember(check, "Interval", interval);
  setMember(check, "Timeout", timeout);
  setMember(check, "StartPeriod", startPeriod);
  setMember(check, "StartInterval", startInterval);
  setMember(check, "Retries", retries);
  if (command !== undefined) setMember(check, "Test", command === "" ? [] : ["CMD-SHELL", command]);
  return check;
}

function updateConfig(
  present: UpdateConfig | undefined,
  flags: SharedValues,
  which: "update" | "rollback",
): UpdateConfig | undefined {
  const parallelism = flags[`${which}-parallelism`];
  const delay = flags[`${which}-delay`];
  const monitor = flags[`${which}-monitor`];
  const action = flags[`${which}-failure-action`];
  const ratio = flags[`${which}-max-failure-ratio`];
  const order = flags[`${which}-order`];
  if ([parallelism, delay, monitor, action, ratio, order].every((one) => one === undefined)) return undefined;
  const config: UpdateConfig = present ?? {
    Parallelism: 1,
    FailureAction: "pause",
    Monitor: 5e9,
    MaxFailureRatio: 0,
    Order: "stop-first",
  };
  if (parallelism !== undefined) config.Parallelism = parallelism;
  setMember(config, "Delay", delay);
  setMember(config, "Monitor", monitor);
  setMember(config, "FailureAction", action);
  if (ratio !== undefined) config.MaxFailureRatio = ratio;
  setMember(config, "Order", order);
  return config;
}

/**
 * What is both given and taken is given. What the service had from the other list is only taken off that list, so it is
 * as the engine's default has it. RESET forgets what the service had; ALL stands for every other one.
 */
function applyCapabilities(
  container: ServiceSpec["TaskTemplate"]["ContainerSpec"],
  give: readonly string[],
  take: readonly string[],
): void {
  if (give.length === 0 && take.length === 0) return;
  const toAdd = new Set(give.map(capability));
  const toDrop = new Set(take.map(capability));
  let added = new Set(container.CapabilityAdd);
  let dropped = new Set(container.CapabilityDrop);
  if (toAdd.delete("RESET")) added = new Set();
  if (toDrop.delete("RESET")) dropped = new Set();
  for (const name of toDrop) if (!toAdd.has(name) && !added.delete(name)) dropped.add(name);
  for (const name of toAdd) if (!dropped.delete(name)) added.add(name);
  setMember(container, "CapabilityAdd", added.has("ALL") ? ["ALL"] : [...added].toSorted());
  setMember(container, "CapabilityDrop", dropped.has("ALL") ? ["ALL"] : [...dropped].toSorted());
}

/**
 * Variables of files, then of flags. One without "=" takes its value from our own environment, and is left out when
 * that has none.
 */
export function environment(files: readonly string[], given: readonly string[], env: Env): string[] {
  const lines = files.flatMap((path) => {
    let text;
    try {
      text = readFileSync(path, "utf8");
    } catch (error) {
      throw new CommandError(`Cannot read the file of variables ${path}: ${messageOf(error)}`);
    }
    return text
      .replace(/^\uFEFF/, "")
      .split(/\r?\n/)
      .map((line) => line.trimStart())
      .filter((line) => line !== "" && !line.startsWith("#"));
  });
  return [...lines, ...given].flatMap((one) => {
    if (one.includes("=")) return [one];
    const value = env[one];
    return value === undefined ? [] : [`${one}=${value}`];
  });
}

/** Sets a member that was given; Go's zero value removes it. */
export function setMember<T extends object, K extends keyof T>(of: T, name: K, value: T[K] | undefined): void {
  if (value === undefined) return;
  const isZero =
    value === "" ||
    value === 0 ||
    value === false ||
    (Array.isArray(value) && value.length === 0) ||
    (typeof value === "object" && value !== null && Object.keys(value).length === 0);
  if (isZero) delete of[name];
  else of[name] = value;
}
