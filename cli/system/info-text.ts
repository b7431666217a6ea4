/** `skep info` for people. */
import type { Info, Swarm } from "../api/types.ts";
import { binarySize, humanDuration } from "../output/human.ts";
import type { ClientFacts } from "./client-facts.ts";

interface Commit {
  readonly ID?: string;
}

export interface FullInfo extends Info {
  readonly Containers?: number;
  readonly ContainersRunning?: number;
  readonly ContainersPaused?: number;
  readonly ContainersStopped?: number;
  readonly Images?: number;
  readonly Driver?: string;
  readonly DriverStatus?: readonly (readonly [string, string])[] | null;
  readonly LoggingDriver?: string;
  readonly CgroupDriver?: string;
  readonly CgroupVersion?: string;
  readonly Plugins?: Readonly<Record<string, readonly string[] | null>>;
  readonly Runtimes?: Readonly<Record<string, unknown>>;
  readonly DefaultRuntime?: string;
  readonly InitBinary?: string;
  readonly ContainerdCommit?: Commit;
  readonly RuncCommit?: Commit;
  readonly InitCommit?: Commit;
  readonly SecurityOptions?: readonly string[] | null;
  readonly KernelVersion?: string;
  readonly OperatingSystem?: string;
  readonly OSType?: string;
  readonly Architecture?: string;
  readonly NCPU?: number;
  readonly MemTotal?: number;
  readonly DockerRootDir?: string;
  readonly Debug?: boolean;
  readonly Labels?: readonly string[] | null;
  readonly ExperimentalBuild?: boolean;
  readonly RegistryConfig?: { readonly InsecureRegistryCIDRs?: readonly string[] | null };
  readonly LiveRestoreEnabled?: boolean;
  readonly Warnings?: readonly string[] | null;
}

export function infoText(info: FullInfo, client: ClientFacts): string {
  const plugins = info.Plugins ?? {};
  const list = (values: readonly string[] | null | undefined): string => (values ?? []).join(" ");
  return [
    "Client:",
    ` Version:    ${client.Version}`,
    ` Context:    ${client.Context}`,
    " Debug Mode: false",
    "",
    "Server:",
    ` Containers: ${info.Containers ?? 0}`,
    `  Running: ${info.ContainersRunning ?? 0}`,
    `  Paused: ${info.ContainersPaused ?? 0}`,
    `  Stopped: ${info.ContainersStopped ?? 0}`,
    ` Images: ${info.Images ?? 0}`,
    ...optional(" Server Version", info.ServerVersion),
    ...optional(" Storage Driver", info.Driver),
    ...(info.DriverStatus ?? []).map(([key, value]) => `  ${key}: ${value}`),
    ...optional(" Logging Driver", info.LoggingDriver),
    ...optional(" Cgroup Driver", info.CgroupDriver),
    ...optional(" Cgroup Version", info.CgroupVersion),
    " Plugins:",
    `  Volume: ${list(plugins["Volume"])}`,
    `  Network: ${list(plugins["Network"])}`,
    ...(plugins["Authorization"]?.length ? [`  Authorization: ${list(plugins["Authorization"])}`] : []),
    `  Log: ${list(plugins["Log"])}`,
    ...swarm(info),
    ...(info.Runtimes === undefined ? [] : [` Runtimes: ${list(Object.keys(info.Runtimes).toSorted())}`]),
    ...optional(" Default Runtime", info.DefaultRuntime),
    ` Init Binary: ${info.InitBinary ?? ""}`,
    ` containerd version: ${info.ContainerdCommit?.ID ?? ""}`,
    ` runc version: ${info.RuncCommit?.ID ?? ""}`,
    ` init version: ${info.InitCommit?.ID ?? ""}`,
    ...securityOptions(info.SecurityOptions ?? []),
    ...optional(" Kernel Version", info.KernelVersion),
    ...optional(" Operating System", info.OperatingSystem),
    ...optional(" OSType", info.OSType),
    ...optional(" Architecture", info.Architecture),
    ` CPUs: ${info.NCPU ?? 0}`,
    ` Total Memory: ${binarySize(info.MemTotal ?? 0)}`,
    ...optional(" Name", info.Name),
    ...optional(" ID", info.ID),
    ` Docker Root Dir: ${info.DockerRootDir ?? ""}`,
    ` Debug Mode: ${info.Debug ?? false}`,
    ...(info.Labels?.length ? [" Labels:", ...info.Labels.map((label) => `  ${label}`)] : []),
    ` Experimental: ${info.ExperimentalBuild ?? false}`,
    ...(info.RegistryConfig?.InsecureRegistryCIDRs?.length
      ? [" Insecure Registries:", ...info.RegistryConfig.InsecureRegistryCIDRs.map((one) => `  ${one}`)]
      : []),
    ` Live Restore Enabled: ${info.LiveRestoreEnabled ?? false}`,
    "",
    "",
  ].join("\n");
}

const optional = (title: string, value: string | undefined): string[] => (value ? [`${title}: ${value}`] : []);

function swarm({ Swarm: swarm }: FullInfo): string[] {
  const state = swarm?.LocalNodeState ?? "inactive";
  if (swarm === undefined || state === "inactive" || state === "locked") return [` Swarm: ${state}`];
  return [
    ` Swarm: ${state}`,
    `  NodeID: ${swarm.NodeID ?? ""}`,
    ...(swarm.Error ? [`  Error: ${swarm.Error}`] : []),
    `  Is Manager: ${swarm.ControlAvailable ?? false}`,
    ...(swarm.ControlAvailable === true && swarm.Cluster ? cluster(swarm.Cluster, swarm) : []),
    `  Node Address: ${swarm.NodeAddr ?? ""}`,
    ...(swarm.RemoteManagers?.length
      ? ["  Manager Addresses:", ...swarm.RemoteManagers.map(({ Addr }) => `   ${Addr}`).toSorted()]
      : []),
  ];
}

function cluster(
  found: Omit<Swarm, "JoinTokens">,
  counts: { readonly Managers?: number; readonly Nodes?: number },
): string[] {
  const { Spec: spec } = found;
  return [
    `  ClusterID: ${found.ID}`,
    `  Managers: ${counts.Managers ?? 0}`,
    `  Nodes: ${counts.Nodes ?? 0}`,
    `  Default Address Pool: ${(found.DefaultAddrPool ?? []).map((pool) => `${pool}  `).join("")}`,
    `  SubnetSize: ${found.SubnetSize ?? 0}`,
    `  Data Path Port: ${found.DataPathPort ?? 4789}`,
    "  Orchestration:",
    `   Task History Retention Limit: ${spec.Orchestration.TaskHistoryRetentionLimit ?? 0}`,
    "  Raft:",
    `   Snapshot Interval: ${spec.Raft.SnapshotInterval ?? 0}`,
    ...(spec.Raft.KeepOldSnapshots === undefined
      ? []
      : [`   Number of Old Snapshots to Retain: ${spec.Raft.KeepOldSnapshots}`]),
    `   Heartbeat Tick: ${spec.Raft.HeartbeatTick ?? 0}`,
    `   Election Tick: ${spec.Raft.ElectionTick ?? 0}`,
    "  Dispatcher:",
    `   Heartbeat Period: ${humanDuration((spec.Dispatcher.HeartbeatPeriod ?? 0) / 1e6)}`,
    "  CA Configuration:",
    `   Expiry Duration: ${humanDuration((spec.CAConfig.NodeCertExpiry ?? 0) / 1e6)}`,
    `   Force Rotate: ${spec.CAConfig.ForceRotate ?? 0}`,
    ...(spec.CAConfig.ExternalCAs?.length
      ? ["   External CAs:", ...spec.CAConfig.ExternalCAs.map(({ Protocol, URL }) => `     ${Protocol}: ${URL}`)]
      : []),
    `  Autolock Managers: ${spec.EncryptionConfig.AutoLockManagers ?? false}`,
    `  Root Rotation In Progress: ${found.RootRotationInProgress ?? false}`,
  ];
}

/** "name=seccomp,profile=default" */
function securityOptions(options: readonly string[]): string[] {
  if (options.length === 0) return [];
  return [
    " Security Options:",
    ...options.flatMap((option) => {
      const fields = option.split(",").map((field) => field.split("="));
      const name = fields.find(([key]) => key === "name")?.[1] ?? option;
      const profile = fields.find(([key]) => key === "profile")?.[1];
      return [`  ${name}`, ...(profile === undefined ? [] : [`   Profile: ${profile}`])];
    }),
  ];
}
