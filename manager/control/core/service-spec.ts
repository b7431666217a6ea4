/** What a service's spec may say, apart from what it refers to. Rules and words: features.md §1.2 and the reference. */
import { expandTemplate, TemplateInvalid, type TemplateValue } from "../../../lib/pure/template.ts";
import {
  ConstraintInvalid,
  isNegative,
  isSet,
  nanos,
  parseConstraint,
  replicasMax,
  skep,
  templateData,
} from "../../../proto/index.ts";
import { SpecInvalid } from "./errors.ts";
import { checkDnsName, checkDriver, checkLabels, isImageReference } from "./names.ts";

const { EndpointMode, FailureAction, PublishMode, PortProtocol } = skep.objects;

type ServiceSpec = skep.objects.ServiceSpec.$Properties;
type TaskSpec = skep.objects.TaskSpec.$Properties;
type ContainerSpec = skep.objects.ContainerSpec.$Properties;

const cpuMinNano = 1_000_000;
const memoryMinBytes = 4 * 1024 * 1024;
const healthMinNs = 1_000_000;
const specBytesMax = 400 * 1024;

/** @throws SpecInvalid, ConstraintInvalid */
export function checkServiceSpec(spec: ServiceSpec): void {
  checkDnsName(spec);
  checkTaskSpec(spec.taskTemplate);
  checkTemplates(spec);
  checkUpdateConfig(spec.updateConfig, "update");
  checkUpdateConfig(spec.rollbackConfig, "rollback");
  checkEndpoint(spec.endpointSpec);
  checkMode(spec);
  // An entry of the log takes 1 MiB, and a service keeps its previous specs beside the current one.
  const bytes = skep.objects.ServiceSpec.encode(spec).finish().length;
  if (bytes > specBytesMax)
    throw new SpecInvalid(`the service spec has ${bytes} bytes, and ${specBytesMax} are allowed`);
}

/** Tried on a task that could be the service's, so that a mistake is told now and not by each task. */
function checkTemplates({ name, labels, taskTemplate }: ServiceSpec): void {
  const { hostname, env, mounts } = taskTemplate?.containerSpec ?? {};
  const task = {
    id: "taskid",
    slot: 1,
    serviceId: "serviceid",
    serviceAnnotations: { name: name ?? "", labels: labels ?? {} },
  };
  const node = { nodeId: "nodeid", hostname: "node", platform: { os: "linux", architecture: "x86_64" } };
  const data = templateData(task, node);
  const parts: readonly (readonly [string, readonly (string | null | undefined)[]])[] = [
    ["hostname", [hostname]],
    ["env", env ?? []],
    ["mounts", (mounts ?? []).flatMap((mount) => templatesOfMount(mount))],
  ];
  for (const [what, texts] of parts) for (const text of texts) checkTemplate(what, text ?? "", data);
}

function templatesOfMount({ source, target, volumeOptions }: skep.objects.Mount.$Properties): string[] {
  const labels = Object.values(volumeOptions?.labels ?? {});
  const options = Object.values(volumeOptions?.driverConfig?.options ?? {});
  return [source ?? "", target ?? "", ...labels, ...options];
}

function checkTemplate(what: string, text: string, data: TemplateValue): void {
  try {
    expandTemplate(what, text, data);
  } catch (error) {
    if (!(error instanceof TemplateInvalid)) throw error;
    throw new SpecInvalid(`expanding ${what} failed: ${error.found}`, error.fix);
  }
}

function checkMode(spec: ServiceSpec): void {
  const { mode } = spec;
  const job = mode?.replicatedJob != null || mode?.globalJob != null;
  if ((mode?.replicated?.replicas ?? 0) < 0) throw new SpecInvalid("Number of replicas must be non-negative");
  if ((mode?.replicatedJob?.maxConcurrent ?? 0) < 0) {
    throw new SpecInvalid("Maximum concurrent jobs must not be negative");
  }
  if ((mode?.replicatedJob?.totalCompletions ?? 0) < 0) {
    throw new SpecInvalid("Total completed jobs must not be negative");
  }
  const { replicated, replicatedJob } = mode ?? {};
  const counts = [replicated?.replicas, replicatedJob?.maxConcurrent, replicatedJob?.totalCompletions];
  const tooMany = counts.find((count) => (count ?? 0) > replicasMax);
  if (tooMany != null) {
    throw new SpecInvalid(
      `${tooMany} tasks are asked for, and a service may have ${replicasMax}`,
      "Ask for fewer, or make several services",
    );
  }
  if (job && (spec.updateConfig != null || spec.rollbackConfig != null)) {
    throw new SpecInvalid("job-mode services cannot have an UpdateConfig or a RollbackConfig");
  }
}

function checkTaskSpec(task: TaskSpec | null | undefined): void {
  const runtime = task?.runtime ?? "";
  if (task?.pluginSpec != null) throw new SpecInvalid("plugin services are not supported", "Use a container service");
  if (task?.networkAttachmentSpec != null) {
    throw new SpecInvalid('runtime type "attachment" is not valid for a service');
  }
  if (task?.containerSpec == null || (runtime !== "" && runtime !== "container")) {
    throw new SpecInvalid("mismatched Runtime and *Spec fields", 'Give a ContainerSpec, and no Runtime or "container"');
  }
  checkResources(task.resources);
  checkRestartPolicy(task.restartPolicy);
  checkPlacement(task.placement);
  checkDriver(task.logDriver, "LogDriver");
  checkContainer(task.containerSpec);
}

function checkResources(resources: skep.objects.ResourceRequirements.$Properties | null | undefined): void {
  for (const part of [resources?.limits, resources?.reservations]) {
    const nanoCpus = part?.nanoCpus ?? 0;
    const memoryBytes = part?.memoryBytes ?? 0;
    if (nanoCpus !== 0 && nanoCpus < cpuMinNano) {
      throw new SpecInvalid(`invalid cpu value ${nanoCpus / 1e9}: Must be at least ${cpuMinNano / 1e9}`);
    }
    if (memoryBytes !== 0 && memoryBytes < memoryMinBytes) {
      throw new SpecInvalid(`invalid memory value ${memoryBytes}: Must be at least 4MiB`);
    }
  }
  if ((resources?.limits?.pids ?? 0) < 0) throw new SpecInvalid("invalid pids limit: Must not be negative");
  if ((resources?.swapBytes ?? 0) < -1) throw new SpecInvalid("invalid swap value: Must be -1 or more");
  const swappiness = resources?.memorySwappiness ?? 0;
  if (swappiness < -1 || swappiness > 100) {
    throw new SpecInvalid(`invalid memory swappiness ${swappiness}: Must be between 0 and 100, or -1`);
  }
  // The reference drops this error (features.md §1.10).
  for (const { namedResourceSpec, discreteResourceSpec } of resources?.reservations?.genericResources ?? []) {
    if (namedResourceSpec != null) {
      throw new SpecInvalid(
        `invalid generic resource '${namedResourceSpec.kind ?? ""}': named resources cannot be reserved`,
        "Reserve a number of them, for example gpu=2",
      );
    }
    const kind = discreteResourceSpec?.kind ?? "";
    if (kind === "") throw new SpecInvalid("invalid generic resource: its kind is missing");
    if ((discreteResourceSpec?.value ?? 0) < 1) {
      throw new SpecInvalid(`invalid generic resource '${kind}': Must be at least 1`);
    }
  }
}

function checkRestartPolicy(policy: skep.objects.RestartPolicy.$Properties | null | undefined): void {
  if (isNegative(policy?.delay)) throw new SpecInvalid("TaskSpec: restart-delay cannot be negative");
  if (isNegative(policy?.window)) throw new SpecInvalid("TaskSpec: restart-window cannot be negative");
}

function checkPlacement(placement: skep.objects.Placement.$Properties | null | undefined): void {
  for (const constraint of placement?.constraints ?? []) {
    try {
      parseConstraint(constraint);
    } catch (error) {
      if (!(error instanceof ConstraintInvalid)) throw error;
      throw new SpecInvalid(error.found, error.fix);
    }
  }
}

function checkUpdateConfig(
  config: skep.objects.UpdateConfig.$Properties | null | undefined,
  which: "update" | "rollback",
): void {
  if (config == null) return;
  if ((config.parallelism ?? 0) < 0) throw new SpecInvalid(`TaskSpec: ${which}-parallelism cannot be negative`);
  if (isNegative(config.delay)) throw new SpecInvalid(`TaskSpec: ${which}-delay cannot be negative`);
  if (isNegative(config.monitor)) throw new SpecInvalid(`TaskSpec: ${which}-monitor cannot be negative`);
  const ratio = config.maxFailureRatio ?? 0;
  if (!(ratio >= 0 && ratio <= 1)) {
    throw new SpecInvalid(`TaskSpec: ${which}-maxfailureratio cannot be less than 0 or bigger than 1`);
  }
  // The reference takes it, and then pauses and completes at once (features.md §1.10).
  if (which === "rollback" && config.failureAction === FailureAction.ROLLBACK) {
    throw new SpecInvalid("TaskSpec: rollback-failure-action cannot be rollback", "Use pause or continue");
  }
}

function checkEndpoint(endpoint: skep.objects.EndpointSpec.$Properties | null | undefined): void {
  const published = new Set<string>();
  for (const port of endpoint?.ports ?? []) {
    const { targetPort = 0, publishedPort = 0, publishMode, protocol } = port;
    for (const number of [targetPort ?? 0, publishedPort ?? 0]) {
      if (number < 0 || number > 65_535) throw new SpecInvalid(`EndpointSpec: invalid port ${number}`);
    }
    if ((targetPort ?? 0) === 0) throw new SpecInvalid("EndpointSpec: target port must be provided");
    const ingress = (publishMode ?? PublishMode.INGRESS) === PublishMode.INGRESS;
    if (ingress && endpoint?.mode === EndpointMode.DNSRR) {
      throw new SpecInvalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    }
    if ((publishedPort ?? 0) === 0) continue;
    const key = `${publishedPort}/${PortProtocol[protocol ?? 0]}`;
    if (published.has(key)) throw new SpecInvalid("EndpointSpec: duplicate published ports provided");
    published.add(key);
  }
}

const capability = /^(?:CAP_)?[A-Z][A-Z0-9_]*$|^ALL$/i;
const mountTypes = new Set(["bind", "volume", "tmpfs", "npipe", "cluster", "image"]);

function checkContainer(container: ContainerSpec): void {
  const image = container.image ?? "";
  if (image === "") throw new SpecInvalid("ContainerSpec: image reference must be provided");
  if (!isImageReference(image)) {
    throw new SpecInvalid(`ContainerSpec: ${JSON.stringify(image.slice(0, 256))} is not a valid repository/tag`);
  }
  checkLabels(container.labels);
  if (isNegative(container.stopGracePeriod)) {
    throw new SpecInvalid("ContainerSpec: stop-grace-period cannot be negative");
  }
  for (const entry of container.env ?? []) {
    if (entry.startsWith("=") || entry === "")
      throw new SpecInvalid(`ContainerSpec: invalid environment variable: ${entry}`);
  }
  for (const name of [...(container.capabilityAdd ?? []), ...(container.capabilityDrop ?? [])]) {
    if (!capability.test(name)) throw new SpecInvalid(`ContainerSpec: unknown capability: ${JSON.stringify(name)}`);
  }
  const oom = container.oomScoreAdj ?? 0;
  if (oom < -1000 || oom > 1000) {
    throw new SpecInvalid(`ContainerSpec: invalid value ${oom}, range for oom score adj is [-1000, 1000]`);
  }
  for (const { name, soft, hard } of container.ulimits ?? []) {
    if ((name ?? "") === "") throw new SpecInvalid("ContainerSpec: invalid ulimit: its name is missing");
    if ((hard ?? 0) !== -1 && ((soft ?? 0) > (hard ?? 0) || (soft ?? 0) === -1)) {
      throw new SpecInvalid(
        `ContainerSpec: ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`,
      );
    }
  }
  checkMounts(container.mounts ?? []);
  checkHealth(container.healthCheck);
  checkSecrets(container.secrets ?? []);
  checkConfigs(container.configs ?? []);
}

function checkMounts(mounts: readonly skep.objects.Mount.$Properties[]): void {
  const targets = new Set<string>();
  for (const { target, source, type, bindOptions, volumeOptions, tmpfsOptions } of mounts) {
    const kind = type ?? "";
    if (!mountTypes.has(kind)) throw new SpecInvalid(`invalid MountType: "${kind}"`, "Use bind, volume or tmpfs");
    const invalid = (found: string): SpecInvalid =>
      new SpecInvalid(`invalid mount config for type "${kind}": ${found}`);
    const place = target ?? "";
    if (place === "") throw invalid("field Target must not be empty");
    if (!place.startsWith("/")) throw invalid(`invalid mount path: '${place}' mount path must be absolute`);
    if (normalPath(place) === "/") throw invalid("invalid specification: destination can't be '/'");
    if (targets.has(normalPath(place))) throw new SpecInvalid(`ContainerSpec: duplicate mount point: ${place}`);
    targets.add(normalPath(place));
    if (kind === "bind") {
      if ((source ?? "") === "") throw invalid("field Source must not be empty");
      if (!(source ?? "").startsWith("/")) throw invalid(`invalid mount path: '${source}' mount path must be absolute`);
      if (volumeOptions != null) throw invalid("field VolumeOptions must not be specified");
    } else if (bindOptions != null && kind !== "image") throw invalid("field BindOptions must not be specified");
    if (kind === "tmpfs" && (source ?? "") !== "") throw invalid("field Source must not be specified");
    if (kind !== "tmpfs" && tmpfsOptions != null) throw invalid("field TmpfsOptions must not be specified");
    if ((tmpfsOptions?.sizeBytes ?? 0) < 0) throw invalid("tmpfs size must not be negative");
    if (kind === "image" && (source ?? "") === "") throw invalid("field Source must not be empty");
    if (kind === "npipe") throw invalid("named pipes are not available on Linux");
  }
}

/** Without trailing and double slashes, so that "/a/" and "/a" are one place. */
const normalPath = (path: string): string =>
  `/${path
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .join("/")}`;

function checkHealth(health: skep.objects.HealthConfig.$Properties | null | undefined): void {
  if (health == null) return;
  const times = [
    ["Interval", health.interval],
    ["Timeout", health.timeout],
    ["StartPeriod", health.startPeriod],
    ["StartInterval", health.startInterval],
  ] as const;
  for (const [name, value] of times) {
    if (isNegative(value) || (isSet(value) && nanos(value) < healthMinNs)) {
      throw new SpecInvalid(`ContainerSpec: ${name} in HealthConfig cannot be less than 1ms`);
    }
  }
  if ((health.retries ?? 0) < 0) throw new SpecInvalid("ContainerSpec: Retries in HealthConfig cannot be negative");
}

function checkSecrets(secrets: readonly skep.objects.SecretReference.$Properties[]): void {
  const seen = new Map<string, string>();
  for (const { secretId, secretName, file } of secrets) {
    if ((secretId ?? "") === "" || (secretName ?? "") === "") throw new SpecInvalid("malformed secret reference");
    const target = file?.name ?? "";
    if (target === "") throw new SpecInvalid("malformed file secret reference, no target provided");
    const other = seen.get(target);
    if (other !== undefined) {
      throw new SpecInvalid(`secret references '${other}' and '${secretName}' have a conflicting target: '${target}'`);
    }
    seen.set(target, secretName ?? "");
  }
}

function checkConfigs(configs: readonly skep.objects.ConfigReference.$Properties[]): void {
  const seen = new Map<string, string>();
  for (const { configId, configName, file, runtime } of configs) {
    if ((configId ?? "") === "" || (configName ?? "") === "") throw new SpecInvalid("malformed config reference");
    if (runtime != null) continue;
    const target = file?.name ?? "";
    if (target === "") throw new SpecInvalid("malformed config reference, no target provided");
    const other = seen.get(target);
    if (other !== undefined) {
      throw new SpecInvalid(`config references '${other}' and '${configName}' have a conflicting target: '${target}'`);
    }
    seen.set(target, configName ?? "");
  }
}
