/**
 * From flags to the body of `POST /containers/create`. Members that were not given are sent with Go's zero values, as the
 * reference's client does: a daemon of any age knows them.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { CommandError, messageOf } from "../errors.ts";
import { capability, keyValues, split } from "../service/read.ts";
import { environment } from "../service/spec.ts";
import type { CreateValues, ResourceValues } from "./flags.ts";

export interface Attaching {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

type Env = Readonly<Record<string, string | undefined>>;
type Size = readonly [rows: number, columns: number];

/** Which streams the command is attached to. @param detached `run -d` */
export function attachingOf(flags: CreateValues, detached: boolean): Attaching {
  if (detached) return { stdin: false, stdout: false, stderr: false };
  if (flags.attach === undefined) return { stdin: flags.interactive === true, stdout: true, stderr: true };
  const wanted = flags.attach.map((name) => name.toLowerCase());
  const wrong = wanted.find((name) => !["stdin", "stdout", "stderr"].includes(name));
  if (wrong !== undefined) {
    throw new CommandError(
      `invalid argument ${JSON.stringify(wrong)} for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR`,
      125,
    );
  }
  return { stdin: wanted.includes("stdin"), stdout: wanted.includes("stdout"), stderr: wanted.includes("stderr") };
}

export function createBody(
  flags: CreateValues,
  args: readonly string[],
  attaching: Attaching,
  { env, size }: { readonly env: Env; readonly size: Size },
): object {
  const [image = "", ...command] = args;
  const open = flags.interactive === true;
  const { exposed, bindings } = publishedPorts(flags.publish ?? [], flags.expose ?? []);
  const health = healthcheck(flags);
  return {
    Hostname: flags.hostname ?? "",
    Domainname: flags.domainname ?? "",
    User: flags.user ?? "",
    AttachStdin: attaching.stdin,
    AttachStdout: attaching.stdout,
    AttachStderr: attaching.stderr,
    ...(Object.keys(exposed).length === 0 ? {} : { ExposedPorts: exposed }),
    Tty: flags.tty ?? false,
    OpenStdin: open,
    StdinOnce: open && attaching.stdin,
    Env: orNull(environment(flags["env-file"] ?? [], flags.env ?? [], env)),
    Cmd: orNull(command),
    ...(health === undefined ? {} : { Healthcheck: health }),
    Image: image,
    Volumes: Object.fromEntries((flags.volume ?? []).filter(isAnonymous).map((path) => [path, {}])),
    WorkingDir: flags.workdir ?? "",
    Entrypoint: flags.entrypoint === undefined ? null : flags.entrypoint === "" ? [""] : [flags.entrypoint],
    ...(flags["mac-address"] === undefined ? {} : { MacAddress: flags["mac-address"] }),
    OnBuild: null,
    Labels: { ...labelFiles(flags["label-file"] ?? []), ...keyValues(flags.label ?? []) },
    ...(flags["stop-signal"] === undefined ? {} : { StopSignal: flags["stop-signal"] }),
    ...(flags["stop-timeout"] === undefined ? {} : { StopTimeout: flags["stop-timeout"] }),
    HostConfig: hostConfig(flags, bindings, size),
    NetworkingConfig: { EndpointsConfig: endpoints(flags) },
  };
}

const orNull = <T>(list: readonly T[] | undefined): readonly T[] | null => (list?.length ? list : null);
const isAnonymous = (volume: string): boolean => !volume.includes(":");

function hostConfig(flags: CreateValues, bindings: object, size: Size): object {
  const network = flags.network?.[0]?.Target ?? "default";
  const caps = (names: readonly string[] | undefined): readonly string[] | null =>
    orNull([...new Set(names?.map(capability))].toSorted());
  return {
    Binds: orNull((flags.volume ?? []).filter((volume) => !isAnonymous(volume)).map(absolute)),
    ContainerIDFile: flags.cidfile ?? "",
    LogConfig: { Type: flags["log-driver"] ?? "", Config: keyValues(flags["log-opt"] ?? []) },
    NetworkMode: network,
    PortBindings: bindings,
    RestartPolicy: restartPolicy(flags.restart ?? "no"),
    AutoRemove: flags.rm ?? false,
    VolumeDriver: flags["volume-driver"] ?? "",
    VolumesFrom: orNull(flags["volumes-from"]),
    ConsoleSize: size,
    ...(flags.annotation === undefined ? {} : { Annotations: keyValues(flags.annotation) }),
    CapAdd: caps(flags["cap-add"]),
    CapDrop: caps(flags["cap-drop"]),
    CgroupnsMode: flags.cgroupns ?? "",
    Dns: flags.dns ?? [],
    DnsOptions: flags["dns-option"] ?? [],
    DnsSearch: flags["dns-search"] ?? [],
    ExtraHosts: orNull(flags["add-host"]),
    GroupAdd: orNull(flags["group-add"]),
    IpcMode: flags.ipc ?? "",
    Cgroup: "",
    Links: null,
    OomScoreAdj: flags["oom-score-adj"] ?? 0,
    PidMode: flags.pid ?? "",
    Privileged: flags.privileged ?? false,
    PublishAllPorts: flags["publish-all"] ?? false,
    ReadonlyRootfs: flags["read-only"] ?? false,
    SecurityOpt: orNull(flags["security-opt"]?.map(securityOption)),
    ...(flags["storage-opt"] === undefined ? {} : { StorageOpt: keyValues(flags["storage-opt"]) }),
    ...(flags.tmpfs === undefined
      ? {}
      : { Tmpfs: Object.fromEntries(flags.tmpfs.map((one) => split(one, ":")).map(([path, o]) => [path, o ?? ""])) }),
    UTSMode: flags.uts ?? "",
    UsernsMode: flags.userns ?? "",
    ShmSize: flags["shm-size"] ?? 0,
    ...(flags.sysctl === undefined ? {} : { Sysctls: keyValues(flags.sysctl) }),
    ...(flags.runtime === undefined ? {} : { Runtime: flags.runtime }),
    Isolation: flags.isolation ?? "",
    ...resources(flags),
    CgroupParent: flags["cgroup-parent"] ?? "",
    BlkioWeightDevice: flags["blkio-weight-device"] ?? [],
    BlkioDeviceReadBps: flags["device-read-bps"] ?? [],
    BlkioDeviceWriteBps: flags["device-write-bps"] ?? [],
    BlkioDeviceReadIOps: flags["device-read-iops"] ?? [],
    BlkioDeviceWriteIOps: flags["device-write-iops"] ?? [],
    Devices: (flags.device ?? []).map(device),
    DeviceCgroupRules: orNull(flags["device-cgroup-rule"]),
    DeviceRequests: flags.gpus === undefined ? null : [gpus(flags.gpus)],
    MemorySwappiness: flags["memory-swappiness"] ?? -1,
    OomKillDisable: flags["oom-kill-disable"] ?? false,
    PidsLimit: flags["pids-limit"] ?? 0,
    Ulimits: flags.ulimit ?? [],
    ...(flags.mount === undefined ? {} : { Mounts: flags.mount }),
    MaskedPaths: null,
    ReadonlyPaths: null,
    ...(flags.init === undefined ? {} : { Init: flags.init }),
  };
}

/** What `create` and `update` share. */
export function resources(flags: ResourceValues): object {
  return {
    CpuShares: flags["cpu-shares"] ?? 0,
    Memory: flags.memory ?? 0,
    NanoCpus: flags.cpus ?? 0,
    BlkioWeight: flags["blkio-weight"] ?? 0,
    CpuPeriod: flags["cpu-period"] ?? 0,
    CpuQuota: flags["cpu-quota"] ?? 0,
    CpuRealtimePeriod: flags["cpu-rt-period"] ?? 0,
    CpuRealtimeRuntime: flags["cpu-rt-runtime"] ?? 0,
    CpusetCpus: flags["cpuset-cpus"] ?? "",
    CpusetMems: flags["cpuset-mems"] ?? "",
    MemoryReservation: flags["memory-reservation"] ?? 0,
    MemorySwap: flags["memory-swap"] ?? 0,
    CpuCount: 0,
    CpuPercent: 0,
    IOMaximumIOps: 0,
    IOMaximumBandwidth: 0,
  };
}

/** `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N` */
export function restartPolicy(text: string): { Name: string; MaximumRetryCount: number } {
  const [name, count] = split(text, ":");
  if (count !== undefined && !/^\d+$/.test(count)) {
    throw new CommandError("invalid restart policy format: maximum retry count must be an integer", 125);
  }
  return { Name: name, MaximumRetryCount: Number(count ?? 0) };
}

/** A host folder below the present one is made absolute; a name stays the name of a volume. */
function absolute(volume: string): string {
  const [source, rest = ""] = split(volume, ":");
  return source.startsWith(".") ? `${resolve(source)}:${rest}` : volume;
}

/** A seccomp profile is a file of ours, so its content travels. */
function securityOption(text: string): string {
  const [name, value] = split(text);
  if (name !== "seccomp" || value === undefined || value === "unconfined" || value === "builtin") return text;
  try {
    return `seccomp=${JSON.stringify(JSON.parse(readFileSync(value, "utf8")))}`;
  } catch (error) {
    throw new CommandError(`opening seccomp profile (${value}) failed: ${messageOf(error)}`, 125);
  }
}

/** `/dev/a[:/dev/b][:rwm]` */
function device(text: string): object {
  const parts = text.split(":");
  const isPermissions = (part: string | undefined): boolean => part !== undefined && /^[rwm]{1,3}$/.test(part);
  const permissions = isPermissions(parts.at(-1)) && parts.length > 1 ? parts.pop() : undefined;
  const [host = "", container = host] = parts;
  if (parts.length > 2) throw new CommandError(`invalid device specification: ${text}`, 125);
  return { PathOnHost: host, PathInContainer: container, CgroupPermissions: permissions ?? "rwm" };
}

/** `all`, a number, or `count=N,device=ID,capabilities=…` */
function gpus(text: string): object {
  const fields = new Map(text.split(",").map((field) => split(field)));
  const count = fields.get("count") ?? (/^(all|\d+)$/.test(text) ? text : fields.has("device") ? "0" : "1");
  return {
    Driver: fields.get("driver") ?? "",
    Count: count === "all" ? -1 : Number(count),
    DeviceIDs: fields.has("device") ? [fields.get("device")] : null,
    Capabilities: [[...(fields.get("capabilities")?.split(" ") ?? []), "gpu"]],
    Options: {},
  };
}

function healthcheck(flags: CreateValues): object | undefined {
  const times = {
    Interval: flags["health-interval"],
    Timeout: flags["health-timeout"],
    StartPeriod: flags["health-start-period"],
    StartInterval: flags["health-start-interval"],
    Retries: flags["health-retries"],
  };
  const given = Object.entries(times).filter(([, value]) => value !== undefined && value !== 0);
  const command = flags["health-cmd"];
  if (flags["no-healthcheck"] === true) {
    if (command !== undefined || given.length > 0) {
      throw new CommandError("--no-healthcheck conflicts with --health-* options", 125);
    }
    return { Test: ["NONE"] };
  }
  if (command === undefined && given.length === 0) return undefined;
  return { ...(command === undefined ? {} : { Test: ["CMD-SHELL", command] }), ...Object.fromEntries(given) };
}

interface Published {
  readonly exposed: Record<string, object>;
  readonly bindings: Record<string, { HostIp: string; HostPort: string }[]>;
}

/** `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, ports may be ranges of one length */
function publishedPorts(publish: readonly string[], expose: readonly string[]): Published {
  const exposed: Record<string, object> = {};
  const bindings: Published["bindings"] = {};
  const wrong = (text: string): never => {
    throw new CommandError(
      `invalid argument ${JSON.stringify(text)} for "-p, --publish" flag: invalid containerPort`,
      125,
    );
  };
  for (const text of publish) {
    const found = /^(?:(?:(\[[^\]]+\]|[^:]*):)?([\d-]*):)?([\d-]+)(?:\/(tcp|udp|sctp))?$/.exec(text);
    if (found === null) return wrong(text);
    const [, ip = "", host = "", container = "", protocol = "tcp"] = found;
    const targets = range(container) ?? wrong(text);
    const hosts = host === "" ? undefined : (range(host) ?? wrong(text));
    for (const [at, target] of targets.entries()) {
      const key = `${target}/${protocol}`;
      exposed[key] = {};
      const isSpread = hosts !== undefined && hosts.length !== targets.length && targets.length === 1;
      const HostPort = hosts === undefined ? "" : isSpread ? host : String(hosts[at] ?? wrong(text));
      (bindings[key] ??= []).push({ HostIp: ip.replace(/^\[|\]$/g, ""), HostPort });
    }
  }
  for (const text of expose) {
    const [ports, protocol = "tcp"] = split(text, "/");
    for (const port of range(ports) ?? wrong(text)) exposed[`${port}/${protocol}`] = {};
  }
  return { exposed, bindings };
}

function range(text: string): number[] | undefined {
  const found = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const [first, last] = [Number(found?.[1]), Number(found?.[2] ?? found?.[1])];
  if (found === null || last > 65535 || last < first) return undefined;
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}

const noEndpoint = {
  IPAMConfig: null as object | null,
  Links: null as readonly string[] | null,
  Aliases: null as readonly string[] | null,
  MacAddress: "",
  DriverOpts: null as object | null,
  GwPriority: 0,
  NetworkID: "",
  EndpointID: "",
  Gateway: "",
  IPAddress: "",
  IPPrefixLen: 0,
  IPv6Gateway: "",
  GlobalIPv6Address: "",
  GlobalIPv6PrefixLen: 0,
  DNSNames: null,
};

/** What each network is told about the container. Addresses and aliases of their own flags belong to the first. */
function endpoints(flags: CreateValues): Record<string, typeof noEndpoint> {
  const { ip, ip6, link } = flags;
  const linkLocal = flags["link-local-ip"];
  const networks = flags.network ?? [{ Target: "default" }];
  const found: Record<string, typeof noEndpoint> = {};
  for (const [at, network] of networks.entries()) {
    const first = at === 0;
    const aliases = [...(network.Aliases ?? []), ...(first ? (flags["network-alias"] ?? []) : [])];
    const endpoint = { ...noEndpoint, Aliases: orNull(aliases), DriverOpts: network.DriverOpts ?? null };
    if (first && (ip !== undefined || ip6 !== undefined || linkLocal !== undefined)) {
      endpoint.IPAMConfig = {
        ...(ip === undefined ? {} : { IPv4Address: ip }),
        ...(ip6 === undefined ? {} : { IPv6Address: ip6 }),
        ...(linkLocal === undefined ? {} : { LinkLocalIPs: linkLocal }),
      };
    }
    if (first) {
      endpoint.Links = orNull(link);
      endpoint.MacAddress = flags["mac-address"] ?? "";
    }
    const says = JSON.stringify(endpoint) !== JSON.stringify(noEndpoint);
    if (says || networks.length > 1 || network.Target === "default") found[network.Target] = endpoint;
  }
  return found;
}

function labelFiles(paths: readonly string[]): Record<string, string> {
  return keyValues(environment(paths, [], {}));
}
