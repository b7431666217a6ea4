/** Whole objects as the Engine API shows them: what surrounds a spec, and where their form departs from the messages'. */
import { skep } from "../../proto/index.ts";
import type { JsonObject } from "../http/index.ts";
import { dateOf, toApi } from "./mapper.ts";

const { NodeRole } = skep.objects;
type Props<T extends { $Properties: unknown } | object> = T;

interface Described {
  readonly id?: string | null;
  readonly meta?: Props<skep.objects.Meta.$Properties> | null;
}

function head({ id, meta }: Described): JsonObject {
  return {
    ID: id ?? "",
    Version: { Index: meta?.version ?? 0 },
    CreatedAt: dateOf(meta?.createdAtUs ?? 0),
    UpdatedAt: dateOf(meta?.updatedAtUs ?? 0),
  };
}

/** Clients read these numbers without asking whether they are there. */
function modeToApi(mode: skep.objects.ServiceMode.$Properties | null | undefined): JsonObject {
  if (mode?.global != null) return { Global: {} };
  if (mode?.globalJob != null) return { GlobalJob: {} };
  if (mode?.replicatedJob != null) {
    const maxConcurrent = mode.replicatedJob.maxConcurrent ?? 1;
    return {
      ReplicatedJob: {
        MaxConcurrent: maxConcurrent,
        TotalCompletions: mode.replicatedJob.totalCompletions ?? maxConcurrent,
      },
    };
  }
  return { Replicated: { Replicas: mode?.replicated?.replicas ?? 1 } };
}

export function serviceSpecToApi(spec: skep.objects.ServiceSpec.$Properties | null | undefined): JsonObject {
  const { Networks: _deprecated, ...json } = toApi("ServiceSpec", spec ?? {});
  return { ...json, TaskTemplate: taskSpecToApi(spec?.taskTemplate), Mode: modeToApi(spec?.mode) };
}

function taskSpecToApi(spec: skep.objects.TaskSpec.$Properties | null | undefined): JsonObject {
  const json = toApi("TaskSpec", spec ?? {});
  // Clients follow this pointer without asking.
  return json["ContainerSpec"] === undefined ? { ...json, ContainerSpec: {} } : json;
}

export function serviceToApi(
  service: skep.objects.Service.$Properties,
  counts?: skep.control.IServiceCounts,
): JsonObject {
  const [previous] = service.previousSpecs ?? [];
  const { updateStatus, jobStatus, endpoint } = service;
  return {
    ...head(service),
    Spec: serviceSpecToApi(service.spec),
    ...(previous === undefined ? {} : { PreviousSpec: serviceSpecToApi(previous) }),
    Endpoint: { Spec: {}, ...(endpoint == null ? {} : toApi("Endpoint", endpoint)) },
    ...(updateStatus == null || (updateStatus.state ?? 0) === 0
      ? {}
      : { UpdateStatus: updateStatusToApi(updateStatus) }),
    ...(jobStatus == null
      ? {}
      : {
          JobStatus: {
            JobIteration: { Index: jobStatus.jobIteration ?? 0 },
            LastExecution: dateOf(jobStatus.lastExecutionUs ?? 0),
          },
        }),
    ...(counts === undefined
      ? {}
      : {
          ServiceStatus: {
            RunningTasks: counts.runningTasks ?? 0,
            DesiredTasks: counts.desiredTasks ?? 0,
            CompletedTasks: counts.completedTasks ?? 0,
          },
        }),
  };
}

function updateStatusToApi(status: skep.objects.UpdateStatus.$Properties): JsonObject {
  const { State, StartedAt, CompletedAt, Message } = toApi("UpdateStatus", status);
  return {
    State,
    ...(StartedAt === undefined ? {} : { StartedAt }),
    ...(CompletedAt === undefined ? {} : { CompletedAt }),
    Message: Message ?? "",
  };
}

export function taskToApi(
  task: skep.objects.Task.$Properties,
  networks: ReadonlyMap<string, skep.objects.Network.$Properties> = new Map(),
): JsonObject {
  const status = task.status ?? {};
  const { Err, Message, State, ContainerStatus, PortStatus } = toApi("TaskStatus", status);
  const generic = toApi("Task", { assignedGenericResources: task.assignedGenericResources ?? [] });
  const attachments = task.networksAttachments ?? [];
  return {
    ...head(task),
    Labels: { ...task.labels },
    Spec: taskSpecToApi(task.spec),
    ServiceID: task.serviceId ?? "",
    ...((task.slot ?? 0) === 0 ? {} : { Slot: task.slot ?? 0 }),
    ...((task.nodeId ?? "") === "" ? {} : { NodeID: task.nodeId ?? "" }),
    Status: {
      Timestamp: dateOf(status.timestampUs ?? 0),
      State: State ?? "new",
      ...(Message === undefined ? {} : { Message }),
      ...(Err === undefined ? {} : { Err }),
      ...(ContainerStatus === undefined ? {} : { ContainerStatus: containerStatusToApi(status.containerStatus) }),
      PortStatus: PortStatus ?? {},
    },
    DesiredState: toApi("Task", { desiredState: task.desiredState ?? 0 })["DesiredState"],
    ...(attachments.length === 0
      ? {}
      : {
          NetworksAttachments: attachments.map(({ networkId, addresses }) => ({
            Network: attachedNetwork(networks.get(networkId ?? ""), networkId ?? ""),
            Addresses: addresses ?? [],
          })),
        }),
    ...(generic["AssignedGenericResources"] === undefined
      ? {}
      : { GenericResources: generic["AssignedGenericResources"] }),
    ...(task.jobIteration == null ? {} : { JobIteration: { Index: task.jobIteration } }),
    ...((task.volumes ?? []).length === 0
      ? {}
      : { Volumes: (task.volumes ?? []).map((volume) => toApi("VolumeAttachment", volume)) }),
  };
}

function containerStatusToApi(status: skep.objects.ContainerStatus.$Properties | null | undefined): JsonObject {
  return { ContainerID: status?.containerId ?? "", PID: status?.pid ?? 0, ExitCode: status?.exitCode ?? 0 };
}

function attachedNetwork(network: skep.objects.Network.$Properties | undefined, id: string): JsonObject {
  if (network === undefined) return { ID: id, Version: {}, Spec: {} };
  const { spec, ipam } = network;
  return {
    ...head(network),
    Spec: {
      Name: spec?.name ?? "",
      Labels: { ...spec?.labels },
      DriverConfiguration: { Name: spec?.driver?.name || "overlay" },
      ...(spec?.attachable === true ? { Attachable: true } : {}),
      ...(spec?.ingress === true ? { Ingress: true } : {}),
      IPAMOptions: { Driver: { Name: spec?.ipam?.driver || "default" } },
      Scope: "swarm",
    },
    DriverState: { Name: "overlay", ...(network.vni ? { Options: vxlanOptions(network) } : {}) },
    IPAMOptions: {
      Driver: { Name: "default" },
      Configs: (ipam?.config ?? []).map((config) => toApi("IpamConfig", config)),
    },
  };
}

const vxlanOptions = (network: skep.objects.Network.$Properties): Record<string, string> => ({
  "com.docker.network.driver.overlay.vxlanid_list": String(network.vni ?? 0),
});

export function nodeToApi(node: skep.objects.Node.$Properties): JsonObject {
  const { managerStatus, description } = node;
  const spec = toApi("NodeSpec", node.spec ?? {});
  return {
    ...head(node),
    Spec: { ...spec, Role: spec["Role"] ?? "worker", Availability: spec["Availability"] ?? "active" },
    Description: descriptionToApi(description),
    Status: {
      State: toApi("NodeStatus", { state: node.status?.state ?? 0 })["State"],
      ...(node.status?.message ? { Message: node.status.message } : {}),
      Addr: node.status?.addr ?? "",
    },
    ...(managerStatus == null || node.role !== NodeRole.MANAGER
      ? {}
      : {
          ManagerStatus: {
            ...(managerStatus.leader === true ? { Leader: true } : {}),
            Reachability: toApi("ManagerStatus", { reachability: managerStatus.reachability ?? 0 })["Reachability"],
            Addr: managerStatus.addr ?? "",
          },
        }),
  };
}

function descriptionToApi(description: skep.objects.NodeDescription.$Properties | null | undefined): JsonObject {
  const { Hostname, Platform, Resources, Engine, TLSInfo } = toApi("NodeDescription", description ?? {});
  return {
    Hostname: Hostname ?? "",
    Platform: Platform ?? {},
    Resources: Resources ?? {},
    Engine: { EngineVersion: "", Plugins: [], ...(Engine as JsonObject | undefined) },
    TLSInfo: TLSInfo ?? {},
  };
}

export function secretToApi(secret: skep.objects.Secret.$Properties): JsonObject {
  const { Data: _never, ...spec } = toApi("SecretSpec", secret.spec ?? {});
  return { ...head(secret), Spec: spec };
}

export function configToApi(config: skep.objects.Config.$Properties): JsonObject {
  return { ...head(config), Spec: toApi("ConfigSpec", config.spec ?? {}) };
}

/** @param options.joinTokens  only `GET /swarm` tells them */
export function clusterToApi(
  cluster: skep.objects.Cluster.$Properties,
  tls: skep.objects.TlsInfo.$Properties,
  options: { readonly joinTokens: boolean },
): JsonObject {
  return {
    ...head(cluster),
    Spec: clusterSpecToApi(cluster.spec),
    TLSInfo: toApi("TlsInfo", tls),
    RootRotationInProgress: cluster.rootCa?.rotation != null,
    DefaultAddrPool: cluster.defaultAddrPool ?? [],
    SubnetSize: cluster.subnetSize ?? 0,
    DataPathPort: cluster.dataPathPort || 4789,
    ...(options.joinTokens
      ? { JoinTokens: { Worker: cluster.joinTokens?.worker ?? "", Manager: cluster.joinTokens?.manager ?? "" } }
      : {}),
  };
}

/** With the defaults that clients show and send back. */
function clusterSpecToApi(spec: skep.objects.ClusterSpec.$Properties | null | undefined): JsonObject {
  const { Raft, Orchestration, Dispatcher, CAConfig, EncryptionConfig, TaskDefaults, Name, Labels } = toApi(
    "ClusterSpec",
    spec ?? {},
  );
  const raft = spec?.raft;
  const { TickMs: _ours, ...raftJson } = (Raft ?? {}) as JsonObject;
  return {
    Name: Name ?? "default",
    Labels: Labels ?? {},
    Orchestration: { TaskHistoryRetentionLimit: 5, ...(Orchestration as JsonObject | undefined) },
    Raft: {
      ...raftJson,
      SnapshotInterval: raft?.snapshotInterval || 10_000,
      KeepOldSnapshots: raft?.keepOldSnapshots ?? 0,
      LogEntriesForSlowFollowers: raft?.logEntriesForSlowFollowers || 500,
      ElectionTick: raft?.electionTick || 10,
      HeartbeatTick: raft?.heartbeatTick || 1,
    },
    Dispatcher: { HeartbeatPeriod: 5_000_000_000, ...(Dispatcher as JsonObject | undefined) },
    CAConfig: { NodeCertExpiry: 7_776_000_000_000_000, ...(CAConfig as JsonObject | undefined) },
    TaskDefaults: TaskDefaults ?? {},
    EncryptionConfig: { AutoLockManagers: spec?.encryptionConfig?.autoLockManagers ?? false },
    ...(EncryptionConfig === undefined ? {} : {}),
  };
}

/** `Network` is the one object whose form in the API has little in common with its message. */
export function networkToApi(network: skep.objects.Network.$Properties): JsonObject {
  const { spec, ipam } = network;
  const given = (ipam?.config ?? []).length > 0 ? ipam : spec?.ipam;
  const local = spec?.scope === "local";
  return {
    Name: spec?.name ?? "",
    Id: network.id ?? "",
    Created: dateOf(network.meta?.createdAtUs ?? 0),
    Scope: "swarm",
    Driver: spec?.driver?.name || "overlay",
    EnableIPv4: spec?.enableIpv4 ?? true,
    EnableIPv6: spec?.enableIpv6 ?? false,
    IPAM: {
      Driver: given?.driver || "default",
      Options: { ...given?.options },
      Config: (given?.config ?? []).map((config) => toApi("IpamConfig", config)),
    },
    Internal: spec?.internal ?? false,
    Attachable: spec?.attachable ?? false,
    Ingress: spec?.ingress ?? false,
    ConfigFrom: { Network: spec?.configFrom ?? "" },
    ConfigOnly: spec?.configOnly ?? false,
    Containers: {},
    Options: { ...spec?.driver?.options, ...(network.vni && !local ? vxlanOptions(network) : {}) },
    Labels: { ...spec?.labels },
  };
}
