/** How fields and words of the objects are called in the Engine API: a rule, and the short list of what departs from it. */

/** Parts of names that Go writes in capitals. */
const capitals: ReadonlyMap<string, string> = new Map([
  ["Id", "ID"],
  ["Cpus", "CPUs"],
  ["Url", "URL"],
  ["Ca", "CA"],
  ["Cas", "CAs"],
  ["Dns", "DNS"],
  ["Ip", "IP"],
  ["Ips", "IPs"],
  ["Tty", "TTY"],
  ["Uid", "UID"],
  ["Gid", "GID"],
  ["Pid", "PID"],
  ["Tls", "TLS"],
  ["Os", "OS"],
  ["Ipv4", "IPv4"],
  ["Ipv6", "IPv6"],
  ["Ipam", "IPAM"],
  ["Selinux", "SELinux"],
]);

/** MESSAGE.field: the name in the API. */
const exceptions: ReadonlyMap<string, string> = new Map([["ContainerSpec.healthCheck", "Healthcheck"]]);

/** "nanoCpus" becomes "NanoCPUs"; a time in microseconds loses its unit, since it becomes a date. */
export function apiName(message: string, field: string): string {
  const exception = exceptions.get(`${message}.${field}`);
  if (exception !== undefined) return exception;
  const words = field.replace(/Us$/, "").match(/^[a-z0-9]+|[A-Z][a-z0-9]*/g) ?? [];
  return words
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .map((word) => capitals.get(word) ?? word)
    .join("");
}

/** Words that are not simply the name in lower case with hyphens. */
const wordExceptions: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  NodeState: {
    NODE_UNKNOWN: "unknown",
    NODE_DOWN: "down",
    NODE_READY: "ready",
    NODE_DISCONNECTED: "disconnected",
  },
  Reachability: { REACHABILITY_UNKNOWN: "unknown" },
  RestartCondition: { RESTART_ANY: "any", RESTART_ON_FAILURE: "on-failure", RESTART_NONE: "none" },
  FailureAction: { PAUSE_UPDATE: "pause" },
  UpdateState: {
    UPDATE_NONE: "",
    UPDATE_PAUSED: "paused",
    UPDATE_COMPLETED: "completed",
    ROLLBACK_STARTED: "rollback_started",
    ROLLBACK_PAUSED: "rollback_paused",
    ROLLBACK_COMPLETED: "rollback_completed",
  },
};

export const apiWord = (type: string, name: string): string =>
  wordExceptions[type]?.[name] ?? name.toLowerCase().replaceAll("_", "-");

/** Words in which the reference refuses a value, by type of the enumeration. */
const refusals: Readonly<Record<string, string>> = {
  NodeRole: "invalid Role: ",
  NodeAvailability: "invalid Availability: ",
  FailureAction: "unrecognized update failure action ",
  UpdateOrder: "unrecognized update order ",
  RestartCondition: "invalid RestartCondition: ",
  EndpointMode: "invalid resolution mode: ",
  PortProtocol: "invalid protocol value ",
  PublishMode: "invalid publish mode value ",
};

/** Whether the reference puts what it refuses in quotation marks. */
export const isQuoted = (type: string): boolean => type !== "FailureAction" && type !== "UpdateOrder";

export const refusalOf = (type: string): string => refusals[type] ?? `invalid ${type}: `;

/** Of these an empty word is refused; of others it means the default. */
export const mustBeSaid: ReadonlySet<string> = new Set(["NodeRole", "NodeAvailability"]);

/** Written even when they are zero: clients rely on finding them. */
export const alwaysWritten: ReadonlySet<string> = new Set([
  "ServiceSpec.name",
  "ServiceSpec.labels",
  "SecretSpec.name",
  "SecretSpec.labels",
  "ConfigSpec.name",
  "ConfigSpec.labels",
  "NodeSpec.labels",
  "ClusterSpec.labels",
  "TaskSpec.forceUpdate",
  "UpdateConfig.maxFailureRatio",
  "FileTarget.name",
  "FileTarget.uid",
  "FileTarget.gid",
  "FileTarget.mode",
  "Ulimit.name",
  "Ulimit.soft",
  "Ulimit.hard",
  "SecretReference.secretId",
  "SecretReference.secretName",
  "ConfigReference.configId",
  "ConfigReference.configName",
  "EncryptionConfig.autoLockManagers",
  "NodeDescription.hostname",
  "Mount.target",
  "Mount.type",
]);

/** Written with its default where nothing was said: 0 would mean something else, and clients send back what they see. */
export const writtenDefaults: ReadonlyMap<string, number | string> = new Map<string, number | string>([
  ["UpdateConfig.parallelism", 1],
  ["UpdateConfig.failureAction", "pause"],
  ["UpdateConfig.order", "stop-first"],
]);

/** MESSAGE.field: the API version 1.MINOR that brought it. What an older client sends of it is not looked at. */
export const sinceMinor: ReadonlyMap<string, number> = new Map([
  ["ContainerSpec.sysctls", 40],
  ["ConfigReference.runtime", 40],
  ["CredentialSpec.config", 40],
  ["Placement.maxReplicas", 40],
  ["Limits.pids", 41],
  ["ContainerSpec.capabilityAdd", 41],
  ["ContainerSpec.capabilityDrop", 41],
  ["ContainerSpec.ulimits", 41],
  ["ServiceMode.replicatedJob", 41],
  ["ServiceMode.globalJob", 41],
  ["Privileges.seccomp", 44],
  ["Privileges.appArmor", 44],
  ["Privileges.noNewPrivileges", 44],
  ["HealthConfig.startInterval", 44],
  ["ContainerSpec.oomScoreAdj", 46],
  ["TmpfsOptions.options", 46],
]);

/** Not of the API: never written, never read. */
export const internal: ReadonlySet<string> = new Set([
  "ContainerSpec.pullOptions",
  "NetworkAttachmentConfig.addresses",
  "Node.number",
  "NodeDescription.network",
  "TaskStatus.networkStatus",
]);
