/**
 * What a user asks for and what a worker remembers. Names and shapes of `ContainerConfig`, `HostConfig` and their parts are
 * the Engine API's (engine-api-v1.50.yaml), stored as they were sent, so that they come back in the same shape.
 */

/** Names a container; 64 hexadecimal digits. */
export type ContainerId = string & { readonly __brand: "ContainerId" };
/** Names an exec session; 64 hexadecimal digits. */
export type ExecId = string & { readonly __brand: "ExecId" };

export interface HealthConfig {
  /** `[]` or absent: the image's; `["NONE"]`; `["CMD", ...]`; `["CMD-SHELL", text]`. */
  readonly Test?: readonly string[] | null;
  /** Nanoseconds; 0 means the default. */
  readonly Interval?: number;
  readonly Timeout?: number;
  readonly StartPeriod?: number;
  readonly StartInterval?: number;
  /** 0 means the default. */
  readonly Retries?: number;
}

export interface ContainerConfig {
  readonly Hostname?: string;
  readonly Domainname?: string;
  readonly User?: string;
  readonly AttachStdin?: boolean;
  readonly AttachStdout?: boolean;
  readonly AttachStderr?: boolean;
  readonly Tty?: boolean;
  readonly OpenStdin?: boolean;
  readonly StdinOnce?: boolean;
  readonly Env?: readonly string[] | null;
  readonly Cmd?: readonly string[] | null;
  readonly Entrypoint?: readonly string[] | null;
  readonly Healthcheck?: HealthConfig | null;
  readonly Image?: string;
  readonly Volumes?: Readonly<Record<string, object>> | null;
  readonly WorkingDir?: string;
  readonly Labels?: Readonly<Record<string, string>> | null;
  readonly StopSignal?: string;
  /** Seconds. */
  readonly StopTimeout?: number | null;
  readonly Shell?: readonly string[] | null;
  readonly ExposedPorts?: Readonly<Record<string, object>> | null;
}

export interface RestartPolicy {
  readonly Name?: "" | "no" | "on-failure" | "always" | "unless-stopped";
  /** Only for on-failure; 0: no bound. */
  readonly MaximumRetryCount?: number;
}

export interface MountConfig {
  readonly Type: "bind" | "volume" | "tmpfs";
  readonly Source?: string;
  readonly Target: string;
  readonly ReadOnly?: boolean;
  readonly BindOptions?: {
    readonly Propagation?: string;
    readonly NonRecursive?: boolean;
    readonly CreateMountpoint?: boolean;
    readonly ReadOnlyNonRecursive?: boolean;
  };
  readonly VolumeOptions?: {
    readonly NoCopy?: boolean;
    readonly Subpath?: string;
    readonly Labels?: Readonly<Record<string, string>> | null;
    readonly DriverConfig?: {
      readonly Name?: string;
      readonly Options?: Readonly<Record<string, string>> | null;
    } | null;
  };
  readonly TmpfsOptions?: {
    readonly SizeBytes?: number;
    readonly Mode?: number;
    readonly Options?: readonly (readonly string[])[] | null;
  };
}

export interface DeviceMapping {
  readonly PathOnHost: string;
  readonly PathInContainer?: string;
  readonly CgroupPermissions?: string;
}

export interface Ulimit {
  readonly Name: string;
  readonly Soft: number;
  readonly Hard: number;
}

export interface ThrottleDevice {
  readonly Path: string;
  readonly Rate: number;
}

export interface WeightDevice {
  readonly Path: string;
  readonly Weight: number;
}

/** Limits that `update` may change while the container runs. 0 and absent mean: none. */
export interface Resources {
  readonly Memory?: number;
  readonly MemorySwap?: number;
  readonly MemoryReservation?: number;
  readonly MemorySwappiness?: number | null;
  readonly NanoCpus?: number;
  readonly CpuShares?: number;
  readonly CpuPeriod?: number;
  readonly CpuQuota?: number;
  readonly CpusetCpus?: string;
  readonly CpusetMems?: string;
  readonly PidsLimit?: number | null;
  readonly BlkioWeight?: number;
  readonly BlkioWeightDevice?: readonly WeightDevice[] | null;
  readonly BlkioDeviceReadBps?: readonly ThrottleDevice[] | null;
  readonly BlkioDeviceWriteBps?: readonly ThrottleDevice[] | null;
  readonly BlkioDeviceReadIOps?: readonly ThrottleDevice[] | null;
  readonly BlkioDeviceWriteIOps?: readonly ThrottleDevice[] | null;
  readonly OomKillDisable?: boolean | null;
}

export interface PortBinding {
  /** Empty: every address of the host. */
  readonly HostIp?: string;
  /** A port, a range of which one is taken, or empty for any. */
  readonly HostPort?: string;
}

/** What a container wishes of one of its networks. */
export interface EndpointSettings {
  readonly IPAMConfig?: {
    readonly IPv4Address?: string;
    readonly IPv6Address?: string;
    readonly LinkLocalIPs?: readonly string[] | null;
  } | null;
  readonly Links?: readonly string[] | null;
  readonly Aliases?: readonly string[] | null;
  readonly MacAddress?: string;
  readonly DriverOpts?: Readonly<Record<string, string>> | null;
  /** The network with the highest one gives the way out. */
  readonly GwPriority?: number;
}

export interface HostConfig extends Resources {
  readonly Binds?: readonly string[] | null;
  readonly Mounts?: readonly MountConfig[] | null;
  /** Driver of the volumes in `Binds` and of those without a name. */
  readonly VolumeDriver?: string;
  readonly Tmpfs?: Readonly<Record<string, string>> | null;
  readonly LogConfig?: { readonly Type?: string; readonly Config?: Readonly<Record<string, string>> | null };
  readonly NetworkMode?: string;
  /** By `PORT/PROTOCOL`, and what of it is published where; no list: the port is published where there is room. */
  readonly PortBindings?: Readonly<Record<string, readonly PortBinding[] | null>> | null;
  /** Every exposed port that has no binding of its own, too. */
  readonly PublishAllPorts?: boolean;
  /** `CONTAINER:ALIAS` */
  readonly Links?: readonly string[] | null;
  readonly IpcMode?: string;
  readonly PidMode?: string;
  readonly UTSMode?: string;
  readonly CgroupnsMode?: string;
  readonly RestartPolicy?: RestartPolicy;
  readonly AutoRemove?: boolean;
  readonly Privileged?: boolean;
  readonly ReadonlyRootfs?: boolean;
  readonly CapAdd?: readonly string[] | null;
  readonly CapDrop?: readonly string[] | null;
  readonly GroupAdd?: readonly string[] | null;
  readonly Dns?: readonly string[] | null;
  readonly DnsOptions?: readonly string[] | null;
  readonly DnsSearch?: readonly string[] | null;
  readonly ExtraHosts?: readonly string[] | null;
  readonly Devices?: readonly DeviceMapping[] | null;
  readonly DeviceCgroupRules?: readonly string[] | null;
  readonly Ulimits?: readonly Ulimit[] | null;
  readonly Sysctls?: Readonly<Record<string, string>> | null;
  readonly SecurityOpt?: readonly string[] | null;
  readonly ShmSize?: number;
  /** For the runtime. */
  readonly Annotations?: Readonly<Record<string, string>> | null;
  readonly Isolation?: string;
  readonly OomScoreAdj?: number;
  readonly Init?: boolean | null;
  readonly MaskedPaths?: readonly string[] | null;
  readonly ReadonlyPaths?: readonly string[] | null;
  readonly CgroupParent?: string;
  readonly Runtime?: string;
  /** Rows, columns. */
  readonly ConsoleSize?: readonly [number, number];
}

/** The part of an image's configuration that a container inherits (OCI image-spec config.md). */
export interface ImageConfig {
  readonly User?: string;
  readonly Env?: readonly string[] | null;
  readonly Cmd?: readonly string[] | null;
  readonly Entrypoint?: readonly string[] | null;
  readonly WorkingDir?: string;
  readonly Labels?: Readonly<Record<string, string>> | null;
  readonly Volumes?: Readonly<Record<string, object>> | null;
  readonly StopSignal?: string;
  readonly Healthcheck?: HealthConfig | null;
  readonly Shell?: readonly string[] | null;
  readonly ExposedPorts?: Readonly<Record<string, object>> | null;
}

/** How one life of a container ended. */
export interface ExitStatus {
  /** 0 to 255; 128 + n after signal n. */
  readonly code: number;
  readonly signal: number;
  readonly oomKilled: boolean;
  /** Wall time in milliseconds. */
  readonly finishedAtMs: number;
}

export type ContainerStatus = "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";

export interface HealthLogEntry {
  readonly startMs: number;
  readonly endMs: number;
  readonly exitCode: number;
  /** At most 4096 bytes. */
  readonly output: string;
}

export interface HealthState {
  readonly status: "none" | "starting" | "healthy" | "unhealthy";
  readonly failingStreak: number;
  /** The last five, oldest first. */
  readonly log: readonly HealthLogEntry[];
}

/** A mount as it was decided at creation; volumes carry their host path. */
export interface ResolvedMount {
  readonly type: "bind" | "volume" | "tmpfs";
  readonly name?: string;
  /** Host path; empty for tmpfs. */
  readonly source: string;
  readonly destination: string;
  readonly readOnly: boolean;
  readonly propagation: string;
  readonly recursive: boolean;
  readonly tmpfsOptions?: readonly string[];
  /** The volume stays empty: it is not filled with what the image has in its place. */
  readonly noCopy?: boolean;
}

/** All that is remembered of a container; one value in the database, replaced as a whole. */
export interface ContainerRecord {
  readonly version: 1;
  readonly id: ContainerId;
  readonly name: string;
  readonly createdAtMs: number;
  readonly imageId: string;
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  readonly image: ImageConfig;
  readonly mounts: readonly ResolvedMount[];
  /** Volumes that were made for this container and have no name of the user's; gone with `remove` when asked. */
  readonly anonymousVolumes: readonly string[];
  /** By the network's name or id, as it was asked for, the first one first; absent: what the network mode says alone. */
  readonly networks?: Readonly<Record<string, EndpointSettings>>;
  readonly state: RecordedState;
}

export interface RecordedState {
  readonly status: ContainerStatus;
  /** 0 when not running. */
  readonly pid: number;
  readonly startedAtMs: number;
  readonly exit: ExitStatus | undefined;
  /** Why the last start failed. */
  readonly error: string;
  readonly restartCount: number;
  /** `stop` or `kill` was asked for: policies other than always leave it alone, and always does until the daemon starts anew. */
  readonly stoppedByUser: boolean;
  /** A restart is under way or waits for its delay. */
  readonly restarting: boolean;
  readonly health: HealthState;
}
