/**
 * Bodies of requests: what is known is checked for its type before any room sees it, what is unknown stays as it came, so
 * that `inspect` gives it back. Words of errors are Go's, which clients print.
 */
import { BadRequest } from "../http/index.ts";

export type Shape =
  | "string"
  | "boolean"
  | "number"
  /** An object with any content. */
  | "object"
  | readonly [Shape]
  | { readonly map: Shape }
  | { readonly fields: Readonly<Record<string, Shape>> };

export const list = (shape: Shape): Shape => [shape];
export const map = (shape: Shape): Shape => ({ map: shape });
export const fields = (of: Readonly<Record<string, Shape>>): Shape => ({ fields: of });

/** null fits everything, as in Go. @throws BadRequest that names the member */
export function checkShape(value: unknown, shape: Shape, where: string): void {
  if (value === null || value === undefined) return;
  if (typeof shape === "string") {
    const fits = shape === "object" ? typeof value === "object" && !Array.isArray(value) : typeof value === shape;
    if (!fits || (shape === "number" && !Number.isFinite(value))) refuse(value, where, shape);
    return;
  }
  if (isList(shape)) {
    if (!Array.isArray(value)) refuse(value, where, "array");
    const [inner] = shape;
    for (const one of value as unknown[]) checkShape(one, inner, where);
    return;
  }
  if (typeof value !== "object" || Array.isArray(value)) refuse(value, where, "object");
  const object = value as Readonly<Record<string, unknown>>;
  if ("map" in shape) {
    for (const one of Object.values(object)) checkShape(one, shape.map, where);
  } else if ("fields" in shape) {
    for (const [name, inner] of Object.entries(shape.fields)) checkShape(object[name], inner, `${where}.${name}`);
  }
}

const isList = (shape: Exclude<Shape, string>): shape is readonly [Shape] => Array.isArray(shape);

function refuse(value: unknown, where: string, wanted: string): never {
  const found = Array.isArray(value) ? "array" : typeof value;
  throw new BadRequest(`json: cannot unmarshal ${found} into field ${where} of type ${wanted}`);
}

const health = fields({
  Test: list("string"),
  Interval: "number",
  Timeout: "number",
  StartPeriod: "number",
  StartInterval: "number",
  Retries: "number",
});

export const resourcesShape = {
  Memory: "number",
  MemorySwap: "number",
  MemoryReservation: "number",
  MemorySwappiness: "number",
  NanoCpus: "number",
  CpuShares: "number",
  CpuPeriod: "number",
  CpuQuota: "number",
  CpusetCpus: "string",
  CpusetMems: "string",
  PidsLimit: "number",
  BlkioWeight: "number",
  BlkioWeightDevice: list(fields({ Path: "string", Weight: "number" })),
  BlkioDeviceReadBps: list(fields({ Path: "string", Rate: "number" })),
  BlkioDeviceWriteBps: list(fields({ Path: "string", Rate: "number" })),
  BlkioDeviceReadIOps: list(fields({ Path: "string", Rate: "number" })),
  BlkioDeviceWriteIOps: list(fields({ Path: "string", Rate: "number" })),
  OomKillDisable: "boolean",
} as const;

export const restartPolicyShape = fields({ Name: "string", MaximumRetryCount: "number" });

export const hostConfigShape = fields({
  ...resourcesShape,
  Binds: list("string"),
  Mounts: list(
    fields({
      Type: "string",
      Source: "string",
      Target: "string",
      ReadOnly: "boolean",
      BindOptions: fields({
        Propagation: "string",
        NonRecursive: "boolean",
        CreateMountpoint: "boolean",
        ReadOnlyNonRecursive: "boolean",
      }),
      VolumeOptions: fields({
        NoCopy: "boolean",
        Subpath: "string",
        Labels: map("string"),
        DriverConfig: fields({ Name: "string", Options: map("string") }),
      }),
      TmpfsOptions: fields({ SizeBytes: "number", Mode: "number", Options: list(list("string")) }),
    }),
  ),
  VolumeDriver: "string",
  VolumesFrom: list("string"),
  Links: list("string"),
  Tmpfs: map("string"),
  LogConfig: fields({ Type: "string", Config: map("string") }),
  NetworkMode: "string",
  PortBindings: map(list(fields({ HostIp: "string", HostPort: "string" }))),
  PublishAllPorts: "boolean",
  IpcMode: "string",
  PidMode: "string",
  UTSMode: "string",
  UsernsMode: "string",
  CgroupnsMode: "string",
  RestartPolicy: restartPolicyShape,
  AutoRemove: "boolean",
  Privileged: "boolean",
  ReadonlyRootfs: "boolean",
  CapAdd: list("string"),
  CapDrop: list("string"),
  GroupAdd: list("string"),
  Dns: list("string"),
  DnsOptions: list("string"),
  DnsSearch: list("string"),
  ExtraHosts: list("string"),
  Devices: list(fields({ PathOnHost: "string", PathInContainer: "string", CgroupPermissions: "string" })),
  DeviceCgroupRules: list("string"),
  DeviceRequests: list("object"),
  Ulimits: list(fields({ Name: "string", Soft: "number", Hard: "number" })),
  Sysctls: map("string"),
  SecurityOpt: list("string"),
  ShmSize: "number",
  Annotations: map("string"),
  Isolation: "string",
  OomScoreAdj: "number",
  Init: "boolean",
  MaskedPaths: list("string"),
  ReadonlyPaths: list("string"),
  CgroupParent: "string",
  Runtime: "string",
  ConsoleSize: list("number"),
});

export const endpointShape = fields({
  IPAMConfig: fields({ IPv4Address: "string", IPv6Address: "string", LinkLocalIPs: list("string") }),
  Links: list("string"),
  Aliases: list("string"),
  MacAddress: "string",
  DriverOpts: map("string"),
  GwPriority: "number",
});

export const containerConfigFields = {
  Hostname: "string",
  Domainname: "string",
  User: "string",
  AttachStdin: "boolean",
  AttachStdout: "boolean",
  AttachStderr: "boolean",
  Tty: "boolean",
  OpenStdin: "boolean",
  StdinOnce: "boolean",
  Env: list("string"),
  Cmd: list("string"),
  Entrypoint: list("string"),
  Healthcheck: health,
  Image: "string",
  Volumes: map("object"),
  WorkingDir: "string",
  Labels: map("string"),
  StopSignal: "string",
  StopTimeout: "number",
  Shell: list("string"),
  ExposedPorts: map("object"),
  HostConfig: hostConfigShape,
  MacAddress: "string",
  NetworkingConfig: fields({ EndpointsConfig: map(endpointShape) }),
} as const;

export const createContainerShape = fields(containerConfigFields);

export const execShape = fields({
  User: "string",
  Privileged: "boolean",
  Tty: "boolean",
  ConsoleSize: list("number"),
  AttachStdin: "boolean",
  AttachStdout: "boolean",
  AttachStderr: "boolean",
  DetachKeys: "string",
  Env: list("string"),
  WorkingDir: "string",
  Cmd: list("string"),
});
