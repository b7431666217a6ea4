/** Creates and removes networks as records; the allocator gives them addresses. */
import { addressInRange, skep } from "../../proto/index.ts";
import type { ClusterSchema, Tx } from "../store/index.ts";
import { ChangeUnsupported, NameConflict, ObjectInUse, ObjectPredefined, SpecInvalid } from "./core/errors.ts";
import { checkNetworkSpec } from "./core/other-specs.ts";
import { isThere, type Found } from "./find.ts";

const { PublishMode, TaskState } = skep.objects;

type ClusterTx = Tx<ClusterSchema>;

/** Networks of each node's own, by which services ask for them. They are records without addresses. */
export const predefined: ReadonlyMap<string, string> = new Map([
  ["bridge", "bridge"],
  ["host", "host"],
  ["none", "null"],
]);

/** @throws SpecInvalid, NameConflict */
export function createNetwork(tx: ClusterTx, id: string, spec: skep.objects.NetworkSpec.$Properties): void {
  checkNetworkSpec(spec);
  const name = spec.name ?? "";
  for (const network of tx.find("network", "name", name)) {
    if (isThere(network)) throw new NameConflict(`network with name ${name} already exists`);
  }
  if (spec.ingress === true) {
    for (const network of tx.list("network")) {
      if (network.spec?.ingress === true && isThere(network)) {
        throw new NameConflict(`ingress network (${network.id}) is already present`);
      }
    }
  }
  const from = spec.configFrom ?? "";
  if (from !== "" && tx.first("network", "name", from)?.spec?.configOnly === false) {
    throw new SpecInvalid(`network ${from} is not a configuration network`);
  }
  checkSubnets(tx, spec);
  tx.create("network", { id, spec });
}

/**
 * What overlaps a network that has its subnets is told at once, in the reference's words for a node's own. What two ask for
 * in the same moment the allocator tells; a network on its way out gives its subnets back, and is waited for.
 * @throws SpecInvalid
 */
function checkSubnets(tx: ClusterTx, spec: skep.objects.NetworkSpec.$Properties): void {
  if (spec.configOnly === true || !["", "overlay"].includes(spec.driver?.name ?? "")) return;
  const wanted = subnetsOf(spec.ipam).filter((subnet) => spec.enableIpv6 === true || !subnet.includes(":"));
  if (wanted.length === 0) return;
  for (const network of tx.list("network")) {
    if (network.vni === 0 || !isThere(network)) continue;
    for (const subnet of wanted) {
      const other = subnetsOf(network.ipam).find((one) => rangesOverlap(one, subnet));
      if (other === undefined) continue;
      throw new SpecInvalid(
        `Pool overlaps with other one on this address space: ${subnet} and ${other} of network ${network.spec?.name ?? ""}`,
        "Choose another subnet, or none so that one is chosen",
      );
    }
  }
}

const subnetsOf = (ipam: skep.objects.Ipam.$Properties | null | undefined): readonly string[] =>
  (ipam?.config ?? []).flatMap(({ subnet }) => (subnet == null || subnet === "" ? [] : [subnet]));

/** Of two prefixes that overlap one has all of the other. */
const rangesOverlap = (a: string, b: string): boolean =>
  addressInRange(a.split("/", 1)[0] ?? "", b) || addressInRange(b.split("/", 1)[0] ?? "", a);

/** @throws ChangeUnsupported: as in the reference, a network is made anew instead */
export function updateNetwork(): never {
  throw new ChangeUnsupported(
    "updating a network is not supported",
    "Create another network and update the services to use it",
  );
}

/** Tasks that are on their way out do not keep it: it goes when they have gone. @throws ObjectInUse, ObjectPredefined */
export function removeNetwork(tx: ClusterTx, network: Found<"network">): void {
  const { id, spec } = network;
  const name = spec?.name ?? id;
  if (isPredefined(network)) throw new ObjectPredefined(`${name} is a pre-defined network and cannot be removed`);
  const services = new Set([...tx.find("service", "network", id), ...tx.find("service", "network", name)]);
  for (const service of services) {
    if (isThere(service)) throw new ObjectInUse(`network ${id} is in use by service ${service.id}`);
  }
  if (spec?.ingress === true) {
    for (const service of tx.list("service")) {
      const ports = service.spec?.endpointSpec?.ports ?? [];
      if (isThere(service) && ports.some(({ publishMode }) => (publishMode ?? 0) === PublishMode.INGRESS)) {
        throw new ObjectInUse(`ingress network cannot be removed because service ${service.id} depends on it`);
      }
    }
  }
  let waiting = false;
  for (const task of tx.find("task", "network", id)) {
    const state = task.status?.state ?? TaskState.NEW;
    if (state > TaskState.RUNNING) continue;
    // A container that was attached by hand belongs to no service.
    if (task.serviceId === "" && task.desiredState < TaskState.SHUTDOWN) {
      throw new ObjectInUse(`network ${id} is in use by task ${task.id}`);
    }
    waiting = true;
  }
  if (waiting) tx.update("network", { ...network, pendingDelete: true });
  else tx.remove("network", id);
}

export function isPredefined(network: Found<"network">): boolean {
  const name = network.spec?.name ?? "";
  return predefined.has(name) && network.spec?.driver?.name === predefined.get(name);
}
