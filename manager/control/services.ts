/** Creates, changes and removes services: checks, references, versions, history. What follows is the orchestrator's. */
import { skep } from "../../proto/index.ts";
import type { ClusterSchema, Tx, View } from "../store/index.ts";
import { ChangeRefused, ChangeUnsupported, NameConflict, SpecInvalid } from "./core/errors.ts";
import { checkServiceSpec } from "./core/service-spec.ts";
import { find, isThere, type Found } from "./find.ts";

const { PortProtocol, PublishMode, UpdateState } = skep.objects;

type ClusterTx = Tx<ClusterSchema>;
type ServiceSpec = skep.objects.ServiceSpec.$Properties;
type TaskSpec = skep.objects.TaskSpec.$Properties;

/** Rolling back goes so far, and less far with large specs: an entry of the log takes 1 MiB. */
const previousSpecsMax = 5;
const allSpecsBytesMax = 900 * 1024;

/** @throws SpecInvalid, NameConflict, ObjectMissing, ChangeRefused */
export function createService(tx: ClusterTx, id: string, wanted: ServiceSpec): void {
  checkServiceSpec(wanted);
  const spec = settle(tx, wanted);
  checkReferences(tx, spec, id);
  checkNameFree(tx, spec.name ?? "");
  const job = isJob(spec);
  tx.create("service", {
    id,
    spec,
    specVersion: 1,
    ...(job ? { jobStatus: { jobIteration: 0, lastExecutionUs: tx.timeUs } } : {}),
  });
}

export interface ServiceUpdate {
  readonly spec: ServiceSpec;
  readonly rollback: boolean;
  readonly registryAuthFromPrevious: boolean;
}

/** @throws SpecInvalid, ChangeUnsupported, ChangeRefused */
export function updateService(tx: ClusterTx, service: Found<"service">, update: ServiceUpdate): void {
  const current: ServiceSpec = service.spec ?? {};
  const [previous, ...older] = service.previousSpecs;
  if (update.rollback && previous === undefined) {
    throw new ChangeRefused(
      `service ${service.id} does not have a previous spec`,
      "Only a service that was updated can be rolled back; update it to the spec that you want",
    );
  }
  const wanted = update.rollback
    ? (previous as ServiceSpec)
    : withCredentials(update.spec, update.registryAuthFromPrevious ? previous : current);
  checkServiceSpec(wanted);
  if ((wanted.name ?? "") !== (current.name ?? "")) {
    throw new ChangeUnsupported(
      "renaming services is not supported",
      "Create a service of the new name, then remove this one",
    );
  }
  if (modeOf(wanted) !== modeOf(current)) {
    throw new ChangeUnsupported(
      "service mode change is not allowed",
      "Create a service of the other mode, then remove this one",
    );
  }
  const spec = settle(tx, wanted);
  checkReferences(tx, spec, service.id);
  const previousSpecs = update.rollback
    ? [current, ...older]
    : sameSpec(spec, current)
      ? service.previousSpecs
      : kept([current, ...service.previousSpecs], spec);
  tx.update("service", {
    ...service,
    spec,
    previousSpecs,
    specVersion: service.specVersion + 1,
    updateStatus: update.rollback
      ? {
          state: UpdateState.ROLLBACK_STARTED,
          message: "manually requested rollback",
          startedAtUs: tx.timeUs,
          updateId: 0,
        }
      : null,
    ...(isJob(spec)
      ? { jobStatus: { jobIteration: (service.jobStatus?.jobIteration ?? 0) + 1, lastExecutionUs: tx.timeUs } }
      : {}),
  });
}

/** The last one always: without it there is no way back. */
function kept(previous: readonly ServiceSpec[], spec: ServiceSpec): ServiceSpec[] {
  let bytes = encoded(spec).length;
  return previous.slice(0, previousSpecsMax).filter((one, at) => {
    bytes += encoded(one).length;
    return at === 0 || bytes <= allSpecsBytesMax;
  });
}

const encoded = (spec: ServiceSpec): Uint8Array => skep.objects.ServiceSpec.encode(spec).finish();

/** Its tasks are stopped first; its name is free at once. */
export function removeService(tx: ClusterTx, service: Found<"service">): void {
  tx.update("service", { ...service, pendingDelete: true });
}

const isJob = (spec: ServiceSpec): boolean => spec.mode?.replicatedJob != null || spec.mode?.globalJob != null;

function modeOf({ mode }: ServiceSpec): string {
  if (mode?.global != null) return "global";
  if (mode?.globalJob != null) return "global-job";
  return mode?.replicatedJob != null ? "replicated-job" : "replicated";
}

function sameSpec(a: ServiceSpec, b: ServiceSpec): boolean {
  return Buffer.compare(encoded(a), encoded(b)) === 0;
}

/** Clients do not get to see credentials, so a spec that they send back has none. */
function withCredentials(spec: ServiceSpec, from: ServiceSpec | undefined): ServiceSpec {
  const container = spec.taskTemplate?.containerSpec;
  const pullOptions = from?.taskTemplate?.containerSpec?.pullOptions;
  if (container == null || pullOptions == null || (container.pullOptions?.registryAuth ?? "") !== "") return spec;
  return { ...spec, taskTemplate: { ...spec.taskTemplate, containerSpec: { ...container, pullOptions } } };
}

/**
 * The spec as it is stored: networks by id, and the two words that the reference adds to every answer. They are added to
 * what is stored too, since a client sends back what it was shown, and that must not look like a change.
 */
function settle(view: View<ClusterSchema>, spec: ServiceSpec): ServiceSpec {
  const task: TaskSpec = spec.taskTemplate ?? {};
  const networks = task.networks?.length ? task.networks : (spec.networks ?? []);
  return {
    ...spec,
    networks: (spec.networks ?? []).map((network) => ({ ...network, target: networkIdOf(view, network.target ?? "") })),
    taskTemplate: {
      ...task,
      runtime: "container",
      networks: networks.map((network) => ({ ...network, target: networkIdOf(view, network.target ?? "") })),
      containerSpec: { ...task.containerSpec, isolation: task.containerSpec?.isolation || "default" },
    },
  };
}

function networkIdOf(view: View<ClusterSchema>, reference: string): string {
  const network = find(view, "network", reference);
  if (network.spec?.ingress === true) {
    throw new SpecInvalid(`Service cannot be explicitly attached to the ingress network "${network.spec.name}"`);
  }
  if (network.spec?.configOnly === true) {
    throw new SpecInvalid(`The network ${reference} cannot be used with services: it is a configuration only`);
  }
  return network.id;
}

function checkNameFree(tx: ClusterTx, name: string): void {
  for (const service of tx.find("service", "name", name)) {
    if (isThere(service)) {
      throw new NameConflict(`name conflicts with an existing object: service ${name} already exists`);
    }
  }
}

function checkReferences(tx: ClusterTx, spec: ServiceSpec, id: string): void {
  const container = spec.taskTemplate?.containerSpec;
  const missing = (kind: "secret" | "config", names: readonly string[]): void => {
    if (names.length === 1) throw new SpecInvalid(`${kind} not found: ${names[0]}`, `Create the ${kind} first`);
    if (names.length > 1) throw new SpecInvalid(`${kind}s not found: ${names.join(", ")}`, `Create the ${kind}s first`);
  };
  // A name that belongs to another id by now is as wrong as an id that is gone. What is found must still be there at the
  // commit, or a secret could be removed under a service that has just been given it.
  const gone = (kind: "secret" | "config", wantedId: string, name: string): boolean => {
    tx.guard(kind, wantedId);
    const found = kind === "secret" ? tx.get("secret", wantedId) : tx.get("config", wantedId);
    return found?.spec?.name !== name;
  };
  missing(
    "secret",
    (container?.secrets ?? [])
      .filter((reference) => gone("secret", reference.secretId ?? "", reference.secretName ?? ""))
      .map((reference) => reference.secretName ?? ""),
  );
  missing(
    "config",
    (container?.configs ?? [])
      .filter((reference) => gone("config", reference.configId ?? "", reference.configName ?? ""))
      .map((reference) => reference.configName ?? ""),
  );
  const credential = container?.privileges?.credentialSpec?.config ?? "";
  if (credential !== "" && !tx.has("config", credential)) missing("config", [credential]);
  for (const { target } of spec.taskTemplate?.networks ?? []) tx.guard("network", target ?? "");
  checkPorts(tx, spec, id);
}

/** A port of the mesh is one service's; a port of the hosts may be several services', on different hosts. */
function checkPorts(tx: ClusterTx, spec: ServiceSpec, id: string): void {
  const wanted = (spec.endpointSpec?.ports ?? []).filter(({ publishedPort }) => (publishedPort ?? 0) > 0);
  if (wanted.length === 0) return;
  const key = (port: skep.objects.EndpointPortConfig.$Properties): string =>
    `${port.publishedPort}/${PortProtocol[port.protocol ?? 0]}`;
  const isIngress = (port: skep.objects.EndpointPortConfig.$Properties): boolean =>
    (port.publishMode ?? PublishMode.INGRESS) === PublishMode.INGRESS;
  const mine = new Map(wanted.map((port) => [key(port), port]));
  for (const other of tx.list("service")) {
    if (other.id === id || !isThere(other)) continue;
    const theirs = [...(other.spec?.endpointSpec?.ports ?? []), ...(other.endpoint?.ports ?? [])];
    for (const port of theirs) {
      const same = mine.get(key(port));
      if (same === undefined || (!isIngress(port) && !isIngress(same))) continue;
      const how = isIngress(port) ? "as an ingress port" : "as a host-published port";
      throw new SpecInvalid(
        `port '${port.publishedPort}' is already in use by service '${other.spec?.name}' (${other.id}) ${how}`,
        "Publish another port, or none to have one chosen",
      );
    }
  }
}
