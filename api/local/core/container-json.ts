/** A container's record in the shapes of the Engine API: inspect and list. Pure. */
import type { ContainerRecord, ContainerConfig, HostConfig } from "../../../worker/containers/core/types.ts";
import { networkSettingsJson, networksJson, portRows, type NetworkFacts } from "./network-json.ts";
import { statusText } from "./status-text.ts";

export const zeroTime = "0001-01-01T00:00:00Z";

/** RFC 3339 with nanoseconds, as Go prints it; 0 is Go's zero time. */
export function isoTime(ms: number): string {
  if (ms <= 0) return zeroTime;
  const nanos = Math.floor((ms % 1000) * 1e6)
    .toString()
    .padStart(9, "0")
    .replace(/0+$/, "");
  return `${new Date(ms).toISOString().slice(0, 19)}${nanos === "" ? "" : `.${nanos}`}Z`;
}

/** What runs: entry point and command, the container's over the image's. */
export function commandOf({ config, image }: Pick<ContainerRecord, "config" | "image">): readonly string[] {
  if (config.Entrypoint != null) {
    const entrypoint = config.Entrypoint.length === 1 && config.Entrypoint[0] === "" ? [] : config.Entrypoint;
    return [...entrypoint, ...(config.Cmd ?? [])];
  }
  const command = config.Cmd != null && config.Cmd.length > 0 ? config.Cmd : (image.Cmd ?? []);
  return [...(image.Entrypoint ?? []), ...command];
}

/** The configuration with what the image adds to it, as clients see it. */
export function mergedConfig(record: ContainerRecord): Record<string, unknown> {
  const { config, image } = record;
  const own = (config.Env ?? []).map((text) => text.split("=", 1)[0]);
  const inherited = (image.Env ?? []).filter((text) => !own.includes(text.split("=", 1)[0]));
  const hasEntrypoint = config.Entrypoint != null;
  const cmd = config.Cmd != null && config.Cmd.length > 0 ? config.Cmd : hasEntrypoint ? null : (image.Cmd ?? null);
  const ports = { ...image.ExposedPorts, ...config.ExposedPorts };
  const volumes = { ...image.Volumes, ...config.Volumes };
  return {
    Hostname: hostnameOf(record),
    Domainname: config.Domainname ?? "",
    User: (config.User ?? "") === "" ? (image.User ?? "") : config.User,
    AttachStdin: config.AttachStdin ?? false,
    AttachStdout: config.AttachStdout ?? false,
    AttachStderr: config.AttachStderr ?? false,
    ...(Object.keys(ports).length > 0 ? { ExposedPorts: ports } : {}),
    Tty: config.Tty ?? false,
    OpenStdin: config.OpenStdin ?? false,
    StdinOnce: config.StdinOnce ?? false,
    Env: [...(config.Env ?? []), ...inherited],
    Cmd: cmd,
    ...(config.Healthcheck == null && image.Healthcheck == null
      ? {}
      : { Healthcheck: config.Healthcheck ?? image.Healthcheck }),
    Image: config.Image ?? "",
    Volumes: Object.keys(volumes).length > 0 ? volumes : null,
    WorkingDir: (config.WorkingDir ?? "") === "" ? (image.WorkingDir ?? "") : config.WorkingDir,
    Entrypoint: hasEntrypoint ? config.Entrypoint : (image.Entrypoint ?? null),
    OnBuild: null,
    Labels: { ...image.Labels, ...config.Labels },
    ...((config.StopSignal ?? "") === "" ? {} : { StopSignal: config.StopSignal }),
    ...(config.StopTimeout == null ? {} : { StopTimeout: config.StopTimeout }),
    ...(config.Shell == null ? {} : { Shell: config.Shell }),
  };
}

function hostnameOf({ config, id }: { readonly config: ContainerConfig; readonly id: string }): string {
  return (config.Hostname ?? "") === "" ? id.slice(0, 12) : (config.Hostname ?? "");
}

export function labelsOf({ config, image }: Pick<ContainerRecord, "config" | "image">): Record<string, string> {
  return { ...image.Labels, ...config.Labels };
}

/** Every member that clients know, so that none is missing where the user said nothing. */
const emptyHostConfig = {
  Binds: null,
  ContainerIDFile: "",
  PortBindings: {},
  AutoRemove: false,
  VolumeDriver: "",
  VolumesFrom: null,
  ConsoleSize: [0, 0],
  CapAdd: null,
  CapDrop: null,
  Dns: [],
  DnsOptions: [],
  DnsSearch: [],
  ExtraHosts: null,
  GroupAdd: null,
  Cgroup: "",
  Links: null,
  OomScoreAdj: 0,
  PidMode: "",
  Privileged: false,
  PublishAllPorts: false,
  ReadonlyRootfs: false,
  SecurityOpt: null,
  UTSMode: "",
  UsernsMode: "",
  Isolation: "",
  CpuShares: 0,
  Memory: 0,
  NanoCpus: 0,
  CgroupParent: "",
  BlkioWeight: 0,
  BlkioWeightDevice: [],
  BlkioDeviceReadBps: [],
  BlkioDeviceWriteBps: [],
  BlkioDeviceReadIOps: [],
  BlkioDeviceWriteIOps: [],
  CpuPeriod: 0,
  CpuQuota: 0,
  CpuRealtimePeriod: 0,
  CpuRealtimeRuntime: 0,
  CpusetCpus: "",
  CpusetMems: "",
  Devices: [],
  DeviceCgroupRules: null,
  DeviceRequests: null,
  MemoryReservation: 0,
  MemorySwap: 0,
  MemorySwappiness: null,
  OomKillDisable: false,
  PidsLimit: null,
  Ulimits: [],
  CpuCount: 0,
  CpuPercent: 0,
  IOMaximumIOps: 0,
  IOMaximumBandwidth: 0,
};
const shmDefault = 64 << 20;

export function hostConfigJson(hostConfig: HostConfig): Record<string, unknown> {
  const or = (value: string | undefined, fallback: string): string => ((value ?? "") === "" ? fallback : (value ?? ""));
  const { Memory = 0, MemorySwap = 0 } = hostConfig;
  return {
    ...emptyHostConfig,
    ...hostConfig,
    OomKillDisable: hostConfig.OomKillDisable ?? false,
    LogConfig: { Type: or(hostConfig.LogConfig?.Type, "json-file"), Config: { ...hostConfig.LogConfig?.Config } },
    NetworkMode: or(hostConfig.NetworkMode, "none"),
    RestartPolicy: {
      Name: or(hostConfig.RestartPolicy?.Name, "no"),
      MaximumRetryCount: hostConfig.RestartPolicy?.MaximumRetryCount ?? 0,
    },
    CgroupnsMode: or(hostConfig.CgroupnsMode, "private"),
    IpcMode: or(hostConfig.IpcMode, "private"),
    ShmSize: (hostConfig.ShmSize ?? 0) > 0 ? hostConfig.ShmSize : shmDefault,
    MemorySwap: MemorySwap === 0 && Memory > 0 ? 2 * Memory : MemorySwap,
    Runtime: or(hostConfig.Runtime, "isolate"),
  };
}

function mountsJson(record: ContainerRecord): Record<string, unknown>[] {
  return record.mounts.map((mount) => ({
    Type: mount.type,
    ...(mount.name === undefined ? {} : { Name: mount.name }),
    Source: mount.source,
    Destination: mount.destination,
    ...(mount.type === "volume" ? { Driver: "local" } : {}),
    Mode: mount.readOnly ? "ro" : "",
    RW: !mount.readOnly,
    Propagation: mount.type === "bind" ? mount.propagation : "",
  }));
}

export function stateJson(record: ContainerRecord): Record<string, unknown> {
  const { state } = record;
  const running = state.status === "running" || state.status === "paused" || state.status === "restarting";
  return {
    Status: state.status,
    Running: running,
    Paused: state.status === "paused",
    Restarting: state.status === "restarting",
    OOMKilled: state.exit?.oomKilled ?? false,
    Dead: state.status === "dead",
    Pid: state.pid,
    ExitCode: state.exit?.code ?? 0,
    Error: state.error,
    StartedAt: isoTime(state.startedAtMs),
    FinishedAt: isoTime(state.startedAtMs === 0 ? 0 : (state.exit?.finishedAtMs ?? 0)),
    ...(state.health.status === "none"
      ? {}
      : {
          Health: {
            Status: state.health.status,
            FailingStreak: state.health.failingStreak,
            Log: state.health.log.map(({ startMs, endMs, exitCode, output }) => ({
              Start: isoTime(startMs),
              End: isoTime(endMs),
              ExitCode: exitCode,
              Output: output,
            })),
          },
        }),
  };
}

export interface InspectFacts {
  readonly directory: string;
  /** Where the files lie that are bound into it while it runs. */
  readonly networkFiles: string;
  readonly logPath: string;
  readonly networks: NetworkFacts;
  readonly execIds: readonly string[];
  /** Only with `size=1`. */
  readonly sizes?: { readonly rw: number; readonly rootFs: number };
}

export function inspectJson(record: ContainerRecord, facts: InspectFacts): Record<string, unknown> {
  const [path = "", ...args] = commandOf(record);
  const { directory, networkFiles } = facts;
  return {
    Id: record.id,
    Created: isoTime(record.createdAtMs),
    Path: path,
    Args: args,
    State: stateJson(record),
    Image: record.imageId,
    ResolvConfPath: `${networkFiles}/resolv.conf`,
    HostnamePath: `${networkFiles}/hostname`,
    HostsPath: `${networkFiles}/hosts`,
    LogPath: record.hostConfig.LogConfig?.Type === "none" ? "" : facts.logPath,
    Name: `/${record.name}`,
    RestartCount: record.state.restartCount,
    Driver: "overlay2",
    Platform: "linux",
    MountLabel: "",
    ProcessLabel: "",
    AppArmorProfile: "",
    ExecIDs: facts.execIds.length > 0 ? facts.execIds : null,
    HostConfig: hostConfigJson(record.hostConfig),
    GraphDriver: {
      Name: "overlay2",
      Data: { MergedDir: `${directory}/merged`, UpperDir: `${directory}/upper`, WorkDir: `${directory}/work` },
    },
    ...(facts.sizes === undefined ? {} : { SizeRw: facts.sizes.rw, SizeRootFs: facts.sizes.rootFs }),
    Mounts: mountsJson(record),
    Config: mergedConfig(record),
    NetworkSettings: networkSettingsJson(record, facts.networks),
  };
}

/** One row of `GET /containers/json`. */
export function summaryJson(
  record: ContainerRecord,
  facts: Pick<InspectFacts, "networks" | "sizes">,
  nowMs: number,
): Record<string, unknown> {
  return {
    Id: record.id,
    Names: [`/${record.name}`],
    Image: record.config.Image ?? record.imageId,
    ImageID: record.imageId,
    Command: commandOf(record).map(quoted).join(" "),
    Created: Math.floor(record.createdAtMs / 1000),
    Ports: portRows(facts.networks),
    ...(facts.sizes === undefined ? {} : { SizeRw: facts.sizes.rw, SizeRootFs: facts.sizes.rootFs }),
    Labels: labelsOf(record),
    State: record.state.status,
    Status: statusText(record, nowMs),
    HostConfig: { NetworkMode: record.hostConfig.NetworkMode ?? "none" },
    NetworkSettings: { Networks: networksJson(record, facts.networks) },
    Mounts: mountsJson(record),
  };
}

const quoted = (word: string): string => (/\s/.test(word) ? `'${word}'` : word);
