/** What is wrong with a wish, in the Engine's words where its clients know them; undefined when nothing is. */
import { normalizeCapability } from "./capabilities.ts";
import { argumentsOf, parseDeviceRule } from "./oci-spec.ts";
import type { ContainerConfig, HostConfig, ImageConfig, Resources } from "./types.ts";

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

export function wrongResources(resources: Resources): string | undefined {
  const { Memory = 0, MemorySwap = 0, MemoryReservation = 0, NanoCpus = 0 } = resources;
  if (Memory < 0 || (Memory > 0 && Memory < memoryMin)) return "Minimum memory limit allowed is 6MB";
  if (MemorySwap > 0 && Memory === 0)
    return "You should always set the Memory limit when using Memoryswap limit, see usage";
  if (MemorySwap > 0 && MemorySwap < Memory)
    return "Minimum memoryswap limit should be larger than memory limit, see usage";
  if (MemoryReservation > 0 && Memory > 0 && MemoryReservation > Memory) {
    return "Minimum memory limit can not be less than memory reservation limit, see usage";
  }
  if (NanoCpus < 0) return "NanoCPUs must not be negative";
  if (NanoCpus > 0 && ((resources.CpuPeriod ?? 0) > 0 || (resources.CpuQuota ?? 0) > 0)) {
    return "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set.";
  }
  const period = resources.CpuPeriod ?? 0;
  if (period !== 0 && (period < 1000 || period > 1_000_000))
    return "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)";
  const quota = resources.CpuQuota ?? 0;
  if (quota > 0 && quota < 1000) return "CPU cfs quota can not be less than 1ms (i.e. 1000)";
  const weight = resources.BlkioWeight ?? 0;
  if (weight !== 0 && (weight < 10 || weight > 1000)) return "Range of blkio weight is from 10 to 1000";
  for (const cpus of [resources.CpusetCpus, resources.CpusetMems]) {
    if (cpus !== undefined && !/^[0-9,-]*$/.test(cpus)) return `Invalid value ${cpus} for cpuset`;
  }
  return undefined;
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

export function wrongHostConfig(host: HostConfig): string | undefined {
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
    wrongResources(host)
  );
}

export function wrongConfig(config: ContainerConfig, host: HostConfig, image: ImageConfig): string | undefined {
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
  return wrongHostConfig(host);
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
