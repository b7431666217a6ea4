/**
 * From a container's record to the OCI config.json that a runtime runs (runtime-spec config.md, config-linux.md), with the
 * Engine's defaults. Pure: what depends on the host comes in as facts.
 */
import { decideCapabilities, normalizeCapability } from "./capabilities.ts";
import { cleanPath } from "./mounts.ts";
import { defaultSeccomp, type SeccompProfile } from "./seccomp.ts";
import type { ContainerConfig, ContainerRecord, Resources, ResolvedMount, ThrottleDevice } from "./types.ts";
import type { ProcessUser } from "./users.ts";

export interface DeviceNode {
  readonly type: "c" | "b";
  readonly major: number;
  readonly minor: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

export interface HostFacts {
  readonly cgroupVersion: 1 | 2;
  /** Node's name of the architecture. */
  readonly machine: string;
  readonly cpus: number;
  /** Of processors and of memory's nodes, in the kernel's lists (`0-3,6`); empty: not known. */
  readonly cpusOnline: string;
  readonly memoryNodesOnline: string;
  /** Capabilities of the daemon. */
  readonly capabilities: readonly string[];
  /** Kernel has a seccomp filter. */
  readonly seccomp: boolean;
  readonly swapAccounting: boolean;
  /** All of /sys/devices/system/cpu/cpuN/thermal_throttle that exist. */
  readonly thermalThrottlePaths: readonly string[];
  /** What `Devices` and the block devices of limits name. */
  readonly devices: ReadonlyMap<string, DeviceNode>;
}

export interface SpecInput {
  readonly record: ContainerRecord;
  readonly facts: HostFacts;
  readonly user: ProcessUser;
  readonly rootfs: string;
  /** Cleaned, absolute path in the cgroup hierarchies. */
  readonly cgroupsPath: string;
  /** Files of ours that are bound over the image's: destination to host path. */
  readonly files: Readonly<Record<string, string>>;
  /** Host path of the init program; bound on /sbin/docker-init when `Init` is on. */
  readonly initProgram: string | undefined;
  /** How each namespace is had: its own, the host's, or that of a path. */
  readonly namespaces: {
    readonly [K in "network" | "ipc" | "pid" | "uts" | "cgroup"]: "private" | "host" | { readonly path: string };
  };
  /** A profile of the user's, `unconfined`, or undefined for the default. */
  readonly seccomp: SeccompProfile | "unconfined" | undefined;
}

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface OciProcess {
  readonly terminal: boolean;
  readonly consoleSize?: { readonly height: number; readonly width: number };
  readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids?: readonly number[] };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly capabilities: {
    readonly bounding: readonly string[];
    readonly effective: readonly string[];
    readonly permitted: readonly string[];
  };
  readonly rlimits?: readonly { readonly type: string; readonly soft: number; readonly hard: number }[];
  readonly noNewPrivileges: boolean;
  readonly oomScoreAdj?: number;
}

const maskedPaths = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
];
const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
export const initPath = "/sbin/docker-init";

/** Entry point and command as the Engine merges them: an own entry point discards the image's command. */
export function argumentsOf(record: Pick<ContainerRecord, "config" | "image">): string[] {
  const { config, image } = record;
  if (config.Entrypoint != null) {
    // `[""]` and `[]` both clear the image's entry point.
    const entrypoint = config.Entrypoint.length === 1 && config.Entrypoint[0] === "" ? [] : config.Entrypoint;
    return [...entrypoint, ...(config.Cmd ?? [])];
  }
  const command = config.Cmd != null && config.Cmd.length > 0 ? config.Cmd : (image.Cmd ?? []);
  return [...(image.Entrypoint ?? []), ...command];
}

/** The image's variables, then the user's; `NAME` alone removes one. PATH, HOSTNAME, HOME and TERM are there if nobody sets them. */
export function environmentOf(
  record: Pick<ContainerRecord, "config" | "image">,
  hostname: string,
  home: string,
): string[] {
  const merged = new Map<string, string | undefined>();
  const set = (text: string): void => {
    const equals = text.indexOf("=");
    if (equals < 0) merged.delete(text);
    else merged.set(text.slice(0, equals), text.slice(equals + 1));
  };
  set(defaultPath);
  merged.set("HOSTNAME", hostname);
  if (record.config.Tty === true) merged.set("TERM", "xterm");
  for (const text of record.image.Env ?? []) set(text);
  for (const text of record.config.Env ?? []) set(text);
  if (!merged.has("HOME")) merged.set("HOME", home);
  return [...merged].map(([name, value]) => `${name}=${value ?? ""}`);
}

export function workingDirectoryOf(record: Pick<ContainerRecord, "config" | "image">): string {
  const own = record.config.WorkingDir ?? "";
  const chosen = own !== "" ? own : (record.image.WorkingDir ?? "");
  return cleanPath(chosen);
}

export function hostnameOf(config: ContainerConfig, id: string): string {
  return config.Hostname !== undefined && config.Hostname !== "" ? config.Hostname : id.slice(0, 12);
}

export function capabilitiesOf(record: Pick<ContainerRecord, "hostConfig">, available: readonly string[]): string[] {
  const names = (list: readonly string[] | null | undefined): string[] =>
    (list ?? []).flatMap((name) => normalizeCapability(name) ?? []);
  return decideCapabilities({
    add: names(record.hostConfig.CapAdd),
    drop: names(record.hostConfig.CapDrop),
    privileged: record.hostConfig.Privileged === true,
    available,
  });
}

function processOf(input: SpecInput, hostname: string): OciProcess {
  const { record, user } = input;
  const capabilities = capabilitiesOf(record, input.facts.capabilities);
  const args = argumentsOf(record);
  const [height, width] = record.hostConfig.ConsoleSize ?? [0, 0];
  return {
    terminal: record.config.Tty === true,
    ...(record.config.Tty === true && height > 0 && width > 0 ? { consoleSize: { height, width } } : {}),
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    args: usesInit(record) && input.initProgram !== undefined ? [initPath, "--", ...args] : args,
    env: environmentOf(record, hostname, user.home),
    cwd: workingDirectoryOf(record),
    // No inheritable and no ambient ones: execve takes all of them from another user than root (CVE-2022-29162).
    capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    rlimits: (record.hostConfig.Ulimits ?? []).map(({ Name, Soft, Hard }) => ({
      type: `RLIMIT_${Name.toUpperCase()}`,
      soft: Soft,
      hard: Hard,
    })),
    noNewPrivileges: (record.hostConfig.SecurityOpt ?? []).some((option) =>
      /^no-new-privileges([:=]true)?$/.test(option),
    ),
    ...(record.hostConfig.OomScoreAdj !== undefined && record.hostConfig.OomScoreAdj !== 0
      ? { oomScoreAdj: record.hostConfig.OomScoreAdj }
      : {}),
  };
}

export function usesInit(record: Pick<ContainerRecord, "hostConfig">): boolean {
  return record.hostConfig.Init === true && record.hostConfig.PidMode !== "host";
}

function mountOf(mount: ResolvedMount): OciMount {
  if (mount.type === "tmpfs") {
    const options = [...(mount.tmpfsOptions ?? []), ...(mount.readOnly ? ["ro"] : [])];
    return { destination: mount.destination, type: "tmpfs", source: "tmpfs", options };
  }
  return {
    destination: mount.destination,
    type: "bind",
    source: mount.source,
    options: [mount.recursive ? "rbind" : "bind", mount.readOnly ? "ro" : "rw", mount.propagation],
  };
}

function mountsOf(input: SpecInput): OciMount[] {
  const { record } = input;
  const privileged = record.hostConfig.Privileged === true;
  const shmSize =
    record.hostConfig.ShmSize !== undefined && record.hostConfig.ShmSize > 0 ? record.hostConfig.ShmSize : 64 << 20;
  const own = new Set(record.mounts.map(({ destination }) => destination));
  const sysMode = privileged ? "rw" : "ro";
  const defaults: OciMount[] = [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    input.namespaces.network === "host" && privileged
      ? { destination: "/sys", type: "bind", source: "/sys", options: ["rbind", "nosuid", "noexec", "nodev", sysMode] }
      : { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", sysMode] },
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: [sysMode, "nosuid", "noexec", "nodev"],
    },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
    input.namespaces.ipc === "host"
      ? { destination: "/dev/shm", type: "bind", source: "/dev/shm", options: ["rbind", "nosuid", "noexec", "nodev"] }
      : {
          destination: "/dev/shm",
          type: "tmpfs",
          source: "shm",
          options: ["nosuid", "noexec", "nodev", "mode=1777", `size=${shmSize}`],
        },
  ];
  const files = Object.entries(input.files).map(([destination, source]) => ({
    destination,
    type: "bind",
    source,
    options: ["rbind", "rprivate", record.hostConfig.ReadonlyRootfs === true ? "ro" : "rw"],
  }));
  const init: OciMount[] =
    usesInit(record) && input.initProgram !== undefined
      ? [{ destination: initPath, type: "bind", source: input.initProgram, options: ["bind", "ro"] }]
      : [];
  return [
    ...defaults.filter(({ destination }) => !own.has(destination)),
    ...files.filter(({ destination }) => !own.has(destination)),
    ...init,
    ...record.mounts.map(mountOf),
  ];
}

/** CPU shares, limits and so on in the OCI's terms. What is 0 or absent stays absent, so that the kernel's default holds. */
export function resourcesOf(resources: Resources, facts: HostFacts): Record<string, unknown> {
  const positive = (value: number | null | undefined): value is number => value != null && value > 0;
  const memory: Record<string, unknown> = {};
  if (positive(resources.Memory)) memory["limit"] = resources.Memory;
  if (positive(resources.MemoryReservation)) memory["reservation"] = resources.MemoryReservation;
  if (facts.swapAccounting && (resources.MemorySwap ?? 0) !== 0) memory["swap"] = resources.MemorySwap;
  else if (facts.swapAccounting && positive(resources.Memory)) memory["swap"] = resources.Memory * 2;
  if (facts.cgroupVersion === 1 && resources.MemorySwappiness != null && resources.MemorySwappiness >= 0) {
    memory["swappiness"] = resources.MemorySwappiness;
  }
  if (facts.cgroupVersion === 1 && resources.OomKillDisable === true) memory["disableOOMKiller"] = true;
  const cpu: Record<string, unknown> = {};
  if (positive(resources.CpuShares)) cpu["shares"] = resources.CpuShares;
  if (positive(resources.NanoCpus)) {
    cpu["period"] = 100_000;
    cpu["quota"] = Math.round(resources.NanoCpus / 10_000);
  } else {
    if (positive(resources.CpuPeriod)) cpu["period"] = resources.CpuPeriod;
    if (positive(resources.CpuQuota)) cpu["quota"] = resources.CpuQuota;
  }
  if (resources.CpusetCpus !== undefined && resources.CpusetCpus !== "") cpu["cpus"] = resources.CpusetCpus;
  if (resources.CpusetMems !== undefined && resources.CpusetMems !== "") cpu["mems"] = resources.CpusetMems;
  const throttle = (list: readonly ThrottleDevice[] | null | undefined): unknown[] | undefined =>
    list == null || list.length === 0
      ? undefined
      : list.flatMap(({ Path, Rate }) => {
          const device = facts.devices.get(Path);
          return device === undefined ? [] : [{ major: device.major, minor: device.minor, rate: Rate }];
        });
  const blockIO: Record<string, unknown> = {};
  if (positive(resources.BlkioWeight)) blockIO["weight"] = resources.BlkioWeight;
  const weights = (resources.BlkioWeightDevice ?? []).flatMap(({ Path, Weight }) => {
    const device = facts.devices.get(Path);
    return device === undefined ? [] : [{ major: device.major, minor: device.minor, weight: Weight }];
  });
  if (weights.length > 0) blockIO["weightDevice"] = weights;
  for (const [key, list] of [
    ["throttleReadBpsDevice", resources.BlkioDeviceReadBps],
    ["throttleWriteBpsDevice", resources.BlkioDeviceWriteBps],
    ["throttleReadIOPSDevice", resources.BlkioDeviceReadIOps],
    ["throttleWriteIOPSDevice", resources.BlkioDeviceWriteIOps],
  ] as const) {
    const rules = throttle(list);
    if (rules !== undefined) blockIO[key] = rules;
  }
  const filled = (part: Record<string, unknown>): boolean => Object.keys(part).length > 0;
  return {
    ...(filled(memory) ? { memory } : {}),
    ...(filled(cpu) ? { cpu } : {}),
    ...(filled(blockIO) ? { blockIO } : {}),
    ...(resources.PidsLimit != null && resources.PidsLimit !== 0
      ? { pids: { limit: resources.PidsLimit < 0 ? -1 : resources.PidsLimit } }
      : {}),
  };
}

interface DeviceRule {
  readonly allow: boolean;
  readonly type?: string;
  readonly major?: number;
  readonly minor?: number;
  readonly access: string;
}

const deviceDefaults: readonly DeviceRule[] = [
  { allow: false, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 5, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 3, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 9, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 8, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 0, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 1, access: "rwm" },
  { allow: false, type: "c", major: 10, minor: 229, access: "rwm" },
];

/** `c 1:3 rwm`, `a *:* rwm`. Checked before; what does not parse is left out. */
export function parseDeviceRule(text: string): DeviceRule | undefined {
  const match = /^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$/.exec(text);
  if (match === null) return undefined;
  const [, type = "a", major = "*", minor = "*", access = "rwm"] = match;
  return {
    allow: true,
    type,
    ...(major === "*" ? {} : { major: Number(major) }),
    ...(minor === "*" ? {} : { minor: Number(minor) }),
    access,
  };
}

function devicesOf(input: SpecInput): { nodes: unknown[]; rules: DeviceRule[] } {
  const { record, facts } = input;
  if (record.hostConfig.Privileged === true) {
    const nodes = [...facts.devices].map(([path, node]) => deviceNode(path, node));
    return { nodes, rules: [{ allow: true, access: "rwm" }] };
  }
  const nodes: unknown[] = [];
  const rules: DeviceRule[] = [...deviceDefaults];
  for (const mapping of record.hostConfig.Devices ?? []) {
    const node = facts.devices.get(mapping.PathOnHost);
    if (node === undefined) continue;
    const path = mapping.PathInContainer ?? "";
    nodes.push(deviceNode(path === "" ? mapping.PathOnHost : path, node));
    const access = mapping.CgroupPermissions ?? "";
    rules.push({
      allow: true,
      type: node.type,
      major: node.major,
      minor: node.minor,
      access: access === "" ? "rwm" : access,
    });
  }
  for (const text of record.hostConfig.DeviceCgroupRules ?? []) {
    const rule = parseDeviceRule(text);
    if (rule !== undefined) rules.push(rule);
  }
  return { nodes, rules };
}

function deviceNode(path: string, node: DeviceNode): unknown {
  return {
    path,
    type: node.type,
    major: node.major,
    minor: node.minor,
    fileMode: node.mode & 0o777,
    uid: node.uid,
    gid: node.gid,
  };
}

function namespacesOf(input: SpecInput): unknown[] {
  const list: unknown[] = [{ type: "mount" }];
  for (const type of ["network", "ipc", "pid", "uts", "cgroup"] as const) {
    const how = input.namespaces[type];
    if (how === "private") list.push({ type });
    else if (how !== "host") list.push({ type, path: how.path });
  }
  return list;
}

function sysctlsOf(input: SpecInput): Record<string, string> {
  const own = input.record.hostConfig.Sysctls ?? {};
  const mode = input.record.hostConfig.NetworkMode ?? "";
  // Ping without CAP_NET_RAW and low ports without CAP_NET_BIND_SERVICE, in a network of the container's own only.
  const network =
    mode !== "host" && !mode.startsWith("container:")
      ? { "net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0" }
      : {};
  return { ...network, ...own };
}

export function buildSpec(input: SpecInput): Record<string, unknown> {
  const { record, facts } = input;
  const privileged = record.hostConfig.Privileged === true;
  const hostname = hostnameOf(record.config, record.id);
  const process = processOf(input, hostname);
  const { nodes, rules } = devicesOf(input);
  const ownName = input.namespaces.uts === "private";
  const seccomp =
    privileged || !facts.seccomp || input.seccomp === "unconfined"
      ? undefined
      : (input.seccomp ?? defaultSeccomp(process.capabilities.bounding, facts.machine));
  const shared = record.mounts.some(({ propagation }) => propagation.endsWith("shared"));
  const slave = record.mounts.some(({ propagation }) => propagation.endsWith("slave"));
  return {
    ociVersion: "1.0.2",
    process,
    root: { path: input.rootfs, readonly: record.hostConfig.ReadonlyRootfs === true },
    ...(ownName ? { hostname } : {}),
    mounts: mountsOf(input),
    ...(Object.keys(record.hostConfig.Annotations ?? {}).length > 0
      ? { annotations: { ...record.hostConfig.Annotations } }
      : {}),
    linux: {
      namespaces: namespacesOf(input),
      cgroupsPath: input.cgroupsPath,
      resources: { devices: rules, ...resourcesOf(record.hostConfig, facts) },
      devices: nodes,
      sysctl: sysctlsOf(input),
      ...(seccomp === undefined ? {} : { seccomp }),
      maskedPaths: privileged ? [] : (record.hostConfig.MaskedPaths ?? [...maskedPaths, ...facts.thermalThrottlePaths]),
      readonlyPaths: privileged ? [] : (record.hostConfig.ReadonlyPaths ?? readonlyPaths),
      ...(shared ? { rootfsPropagation: "shared" } : slave ? { rootfsPropagation: "slave" } : {}),
    },
  };
}

export interface ExecWish {
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly tty: boolean;
  readonly user: ProcessUser | undefined;
  readonly cwd: string;
  readonly privileged: boolean;
  /** Of the terminal; 0: unknown. */
  readonly rows: number;
  readonly columns: number;
}

/** The process of an exec session: the container's, with its own command on top. */
export function execProcess(container: OciProcess, wish: ExecWish, available: readonly string[]): OciProcess {
  const { consoleSize: _size, oomScoreAdj: _score, ...base } = container;
  const bounding = wish.privileged ? available : base.capabilities.bounding;
  const user = wish.user;
  const replaced = new Set(wish.env.map((text) => text.split("=", 1)[0]));
  if (user !== undefined && !replaced.has("HOME")) replaced.add("HOME");
  const term =
    wish.tty && !replaced.has("TERM") && !base.env.some((text) => text.startsWith("TERM=")) ? ["TERM=xterm"] : [];
  const home = user !== undefined && !wish.env.some((text) => text.startsWith("HOME=")) ? [`HOME=${user.home}`] : [];
  return {
    ...base,
    terminal: wish.tty,
    ...(wish.tty && wish.rows > 0 && wish.columns > 0
      ? { consoleSize: { height: wish.rows, width: wish.columns } }
      : {}),
    args: wish.args,
    cwd: wish.cwd === "" ? base.cwd : cleanPath(wish.cwd),
    env: [...base.env.filter((text) => !replaced.has(text.split("=", 1)[0])), ...home, ...term, ...wish.env],
    user: user === undefined ? base.user : { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    capabilities: { bounding, effective: bounding, permitted: bounding },
  };
}
