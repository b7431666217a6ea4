/** What is wrong with a wish, in the Engine's words where its clients know them; undefined when nothing is. */
import { normalizeCapability } from "./capabilities.ts";
import { wrongLogOptions } from "./log-options.ts";
import { argumentsOf, parseDeviceRule, type HostFacts } from "./oci-spec.ts";
import type { ContainerConfig, HealthConfig, HostConfig, ImageConfig, Resources } from "./types.ts";

/** What the host has, in the lists of the kernel (`0-3,6`); an empty one is not known. */
export type HostSize = Pick<HostFacts, "cpus" | "cpusOnline" | "memoryNodesOnline">;

const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;
const memoryMin = 6 << 20;

export function wrongName(name: string): string | undefined {
  if (namePattern.test(name) && name.length <= 255) return undefined;
  return `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`;
}

/** Keys that belong to a namespace of the container's own (OCI config-linux.md, sysctl); any other would change the host. */
function wrongSysctl(key: string, host: HostConfig): string | undefined {
  const name = key.replaceAll("/", ".");
  if (name !== key || name.includes("..")) return `sysctl '${key}' is not allowed`;
  const ipc = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
  ];
  if (ipc.includes(name) || name.startsWith("fs.mqueue.")) {
    return host.IpcMode === "host" ? `sysctl '${key}' is not allowed in the host's ipc namespace` : undefined;
  }
  if (name.startsWith("net.")) {
    return host.NetworkMode === "host" ? `sysctl '${key}' is not allowed in the host's network namespace` : undefined;
  }
  return `sysctl '${key}' is not separately settable for a container`;
}

export function wrongResources(resources: Resources, size: HostSize): string | undefined {
  const { Memory = 0, MemorySwap = 0, MemoryReservation = 0, NanoCpus = 0 } = resources;
  if (Memory !== 0 && Memory < memoryMin) return "Minimum memory limit allowed is 6MB";
  if (MemorySwap > 0 && Memory === 0)
    return "You should always set the Memory limit when using Memoryswap limit, see usage";
  if (MemorySwap > 0 && MemorySwap < Memory)
    return "Minimum memoryswap limit should be larger than memory limit, see usage";
  const swappiness = resources.MemorySwappiness ?? -1;
  if (swappiness !== -1 && !(swappiness >= 0 && swappiness <= 100))
    return `Invalid value: ${swappiness}, valid memory swappiness range is 0-100`;
  if (MemoryReservation > 0 && MemoryReservation < memoryMin) return "Minimum memory reservation allowed is 6MB";
  if (MemoryReservation > 0 && Memory > 0 && MemoryReservation > Memory) {
    return "Minimum memory limit can not be less than memory reservation limit, see usage";
  }
  if (NanoCpus > 0 && (resources.CpuPeriod ?? 0) > 0)
    return "Conflicting options: Nano CPUs and CPU Period cannot both be set";
  if (NanoCpus > 0 && (resources.CpuQuota ?? 0) > 0)
    return "Conflicting options: Nano CPUs and CPU Quota cannot both be set";
  if (NanoCpus < 0 || NanoCpus > size.cpus * 1e9)
    return `range of CPUs is from 0.01 to ${size.cpus}.00, as there are only ${size.cpus} CPUs available`;
  const period = resources.CpuPeriod ?? 0;
  if (period !== 0 && (period < 1000 || period > 1_000_000))
    return "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)";
  const quota = resources.CpuQuota ?? 0;
  if (quota > 0 && quota < 1000) return "CPU cfs quota can not be less than 1ms (i.e. 1000)";
  const weight = resources.BlkioWeight ?? 0;
  if (weight !== 0 && (weight < 10 || weight > 1000)) return "Range of blkio weight is from 10 to 1000";
  return (
    wrongSet(["cpus", "CPUs"], resources.CpusetCpus ?? "", size.cpusOnline) ??
    wrongSet(["mems", "memory nodes"], resources.CpusetMems ?? "", size.memoryNodesOnline)
  );
}

/** A range has to lie in one of those that are online. */
function wrongSet([kind, things]: readonly [string, string], wanted: string, online: string): string | undefined {
  if (wanted === "") return undefined;
  const ranges = rangesOf(wanted);
  if (ranges === undefined) return `Invalid value ${wanted} for cpuset ${kind}: invalid format: ${wanted}`;
  const there = rangesOf(online) ?? [];
  const isThere = ([from, to]: Range): boolean => there.some(([first, last]) => from >= first && to <= last);
  if (there.length === 0 || ranges.every(isThere)) return undefined;
  return `Requested ${things} are not available - requested ${wanted}, available: ${online}`;
}

type Range = readonly [number, number];

/** `0-3,6`. */
function rangesOf(text: string): readonly Range[] | undefined {
  const ranges: Range[] = [];
  for (const part of text.split(",")) {
    const match = /^([0-9]{1,6})(?:-([0-9]{1,6}))?$/.exec(part);
    if (match === null) return undefined;
    const range = [Number(match[1]), Number(match[2] ?? match[1])] as const;
    if (range[0] > range[1]) return undefined;
    ranges.push(range);
  }
  return ranges;
}

/** An update of one that has other limits already. */
export function wrongUpdate(now: Resources, wish: Resources): string | undefined {
  const has = (value: number | undefined): boolean => (value ?? 0) > 0;
  const conflict = (wanted: string, set: string): string =>
    `Conflicting options: ${wanted} cannot be updated as ${set} has already been set`;
  if (has(wish.NanoCpus) && has(now.CpuPeriod)) return conflict("Nano CPUs", "CPU Period");
  if (has(wish.NanoCpus) && has(now.CpuQuota)) return conflict("Nano CPUs", "CPU Quota");
  if (has(wish.CpuPeriod) && has(now.NanoCpus)) return conflict("CPU Period", "NanoCPUs");
  if (has(wish.CpuQuota) && has(now.NanoCpus)) return conflict("CPU Quota", "NanoCPUs");
  if (!has(wish.MemorySwap) && (now.MemorySwap ?? 0) > 0 && (wish.Memory ?? 0) > (now.MemorySwap ?? 0)) {
    return "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time";
  }
  return undefined;
}

const healthMinNs = 1_000_000;

function wrongHealth(health: HealthConfig | null | undefined): string | undefined {
  for (const name of ["Interval", "Timeout", "StartPeriod", "StartInterval"] as const) {
    const value = health?.[name] ?? 0;
    if (value !== 0 && value < healthMinNs) return `${name} in Healthcheck cannot be less than 1ms`;
  }
  return (health?.Retries ?? 0) < 0 ? "Retries in Healthcheck cannot be negative" : undefined;
}

function wrongMode(kind: string, mode: string | undefined, words: readonly string[]): string | undefined {
  if (mode === undefined || mode === "" || words.includes(mode) || /^container:[a-zA-Z0-9_.-]+$/.test(mode))
    return undefined;
  return `invalid ${kind} mode: ${mode}`;
}

/** The name or id of a network, or a mode; whether there is such a network is found when it is joined. */
function wrongNetworkMode(mode: string): string | undefined {
  if (mode.startsWith("ns:/") || /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(mode)) return undefined;
  return wrongMode("network", mode, []);
}

export function wrongHostConfig(host: HostConfig, size: HostSize): string | undefined {
  const policy = host.RestartPolicy ?? {};
  const names = ["", "no", "on-failure", "always", "unless-stopped"];
  if (!names.includes(policy.Name ?? "")) return `invalid restart policy: unknown policy '${String(policy.Name)}'`;
  const retries = policy.MaximumRetryCount ?? 0;
  if (retries < 0) return "invalid restart policy: maximum retry count cannot be negative";
  if (retries > 0 && policy.Name !== "on-failure") {
    return "invalid restart policy: maximum retry count can only be used with 'on-failure'";
  }
  if (host.AutoRemove === true && !["", "no"].includes(policy.Name ?? "")) {
    return "can't create 'AutoRemove' container with restart policy";
  }
  for (const name of [...(host.CapAdd ?? []), ...(host.CapDrop ?? [])]) {
    if (normalizeCapability(name) === undefined) return `invalid capability: unknown capability: "${name}"`;
  }
  for (const { Name, Soft, Hard } of host.Ulimits ?? []) {
    if (
      !/^(core|cpu|data|fsize|locks|memlock|msgqueue|nice|nofile|nproc|rss|rtprio|rttime|sigpending|stack|as)$/i.test(
        Name,
      )
    ) {
      return `invalid ulimit type: ${Name}`;
    }
    if (Hard >= 0 && Soft > Hard)
      return `ulimit soft limit must be less than or equal to hard limit: ${Soft} > ${Hard}`;
  }
  for (const key of Object.keys(host.Sysctls ?? {})) {
    const wrong = wrongSysctl(key, host);
    if (wrong !== undefined) return wrong;
  }
  for (const rule of host.DeviceCgroupRules ?? [])
    if (parseDeviceRule(rule) === undefined) return `invalid device cgroup rule format: '${rule}'`;
  for (const { CgroupPermissions = "" } of host.Devices ?? []) {
    if (!/^[rwm]{0,3}$/.test(CgroupPermissions)) return `invalid device permissions: ${CgroupPermissions}`;
  }
  for (const option of host.SecurityOpt ?? []) {
    if (
      !/^(no-new-privileges([:=](true|false))?|seccomp[:=].+|apparmor[:=].*|label[:=].*|systempaths[:=]unconfined)$/s.test(
        option,
      )
    ) {
      return `invalid --security-opt 2: "${option}"`;
    }
    if (/^(apparmor|label)[:=](?!unconfined$|disable$)/.test(option))
      return `this host's worker does not load profiles: ${option}`;
  }
  if (!["", "default"].includes(host.Isolation ?? "")) return `invalid isolation '${host.Isolation}' on linux`;
  if (Object.hasOwn(host.Annotations ?? {}, ""))
    return "invalid Annotations: the empty string is not permitted as an annotation key";
  const wrongLog = host.LogConfig == null ? undefined : wrongLogOptions(host.LogConfig);
  if (wrongLog !== undefined) return wrongLog;
  if ((host.ShmSize ?? 0) < 0) return "SHM size can not be less than 0";
  const oom = host.OomScoreAdj ?? 0;
  if (oom < -1000 || oom > 1000) return `Invalid value ${oom}, range for oom score adj is [-1000, 1000]`;
  const network = host.NetworkMode ?? "";
  return (
    wrongMode("PID", host.PidMode, ["host"]) ??
    wrongMode("IPC", host.IpcMode, ["host", "private", "shareable", "none"]) ??
    wrongMode("UTS", host.UTSMode, ["host"]) ??
    wrongMode("cgroup namespace", host.CgroupnsMode, ["host", "private"]) ??
    wrongNetworkMode(network) ??
    (host.CgroupParent !== undefined && /(^|\/)\.\.(\/|$)/.test(host.CgroupParent)
      ? "a cgroup parent may not hold '..'"
      : undefined) ??
    wrongResources(host, size)
  );
}

export function wrongConfig(
  config: ContainerConfig,
  host: HostConfig,
  image: ImageConfig,
  size: HostSize,
): string | undefined {
  if (argumentsOf({ config, image }).length === 0) return "no command specified";
  const directory = config.WorkingDir ?? "";
  if (directory !== "" && !directory.startsWith("/"))
    return `the working directory '${directory}' is invalid, it needs to be an absolute path`;
  for (const text of config.Env ?? [])
    if (text === "" || text.startsWith("=") || text.includes("\0")) return `invalid environment variable: ${text}`;
  const hostname = config.Hostname ?? "";
  if (hostname.length > 63 || /[^a-zA-Z0-9_.-]/.test(hostname)) return `invalid hostname: ${hostname}`;
  if (config.StopSignal !== undefined && config.StopSignal !== "" && signalNumber(config.StopSignal) === undefined) {
    return `invalid signal: ${config.StopSignal}`;
  }
  return wrongHealth(config.Healthcheck) ?? wrongHostConfig(host, size);
}

/** signal(7), x86 and arm64. */
const signals = (
  "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ " +
  "VTALRM PROF WINCH IO PWR SYS"
).split(" ");

/** `TERM`, `SIGTERM`, `15`, `RTMIN+3`; undefined for what is none. */
export function signalNumber(text: string): number | undefined {
  if (/^[0-9]{1,2}$/.test(text)) {
    const number = Number(text);
    return number >= 1 && number <= 64 ? number : undefined;
  }
  const name = text.toUpperCase().replace(/^SIG/, "");
  const at = signals.indexOf(name);
  if (at >= 0) return at + 1;
  const real = /^RT(MIN|MAX)([+-][0-9]{1,2})?$/.exec(name);
  if (real === null) return undefined;
  const number = (real[1] === "MIN" ? 34 : 64) + Number(real[2] ?? 0);
  return number >= 34 && number <= 64 ? number : undefined;
}
