/** What a data plane is told of a task, a service or a node: made from the objects of the store alone. */
import { isNodeNumber } from "../../../lib/pure/node-number.ts";
import { frameAddressOf, isEncryptedNetwork, parseAddress, skep } from "../../../proto/index.ts";

const { EndpointMode, PublishMode, TaskState } = skep.objects;

type Task = Readonly<skep.objects.Task>;
type Service = Readonly<skep.objects.Service>;
type Node = Readonly<skep.objects.Node>;
type Port = skep.objects.EndpointPortConfig.$Properties;

export type EndpointRecord = skep.dispatcher.EndpointRecord.$Properties;
export type ServiceRecord = skep.dispatcher.ServiceRecord.$Properties;
export type PeerRecord = skep.dispatcher.PeerRecord.$Properties;

const stateOf = (task: Task): skep.objects.TaskState => task.status?.state ?? TaskState.NEW;

/** It can be routed to: placed, and not known to have ended. */
export const hasPlace = (task: Task): boolean =>
  task.nodeId !== "" && stateOf(task) >= TaskState.ASSIGNED && stateOf(task) <= TaskState.RUNNING;

/** New connections may be given to it: it runs, is healthy, and nobody has asked it to stop. */
export const isServing = (task: Task): boolean =>
  stateOf(task) === TaskState.RUNNING && task.desiredState < TaskState.SHUTDOWN;

/** What the task itself does not say. */
export interface EndpointFacts {
  /** False also when its node is down. */
  readonly serving: boolean;
  /** Its node is down. */
  readonly lost: boolean;
}

export function endpointRecords(task: Task, facts: EndpointFacts): EndpointRecord[] {
  if (!hasPlace(task)) return [];
  return task.networksAttachments.flatMap(({ networkId, addresses, aliases }) =>
    (networkId ?? "") === "" || (addresses ?? []).length === 0
      ? []
      : [{ ...common(task, facts), networkId: networkId ?? "", addresses: addresses ?? [], aliases: aliases ?? [] }],
  );
}

/** Where published ports of any host lead to. @returns undefined while its node has not told a gateway address */
export function ingressEndpoint(task: Task, networkId: string, facts: EndpointFacts): EndpointRecord | undefined {
  const record = common(task, facts);
  if (stateOf(task) !== TaskState.RUNNING || record.gatewayAddress === "") return undefined;
  return { ...record, networkId, addresses: [], aliases: [] };
}

function common(task: Task, { serving, lost }: EndpointFacts): EndpointRecord & { readonly gatewayAddress: string } {
  const { id, serviceId, nodeId, name, slot } = task;
  const [gatewayAddress = ""] = task.status?.networkStatus?.gatewayAddresses ?? [];
  return { taskId: id, serviceId, nodeId, name, slot, gatewayAddress, serving, ...(lost ? { lost } : {}) };
}

/** What a network is of which the mesh is, as a service's record says it: only what is so. */
export interface MeshKind {
  readonly encrypted?: true;
  readonly has6?: true;
}

export const meshKindOf = ({ spec }: Readonly<skep.objects.Network>): MeshKind => ({
  ...(isEncryptedNetwork(spec) ? { encrypted: true } : {}),
  ...(spec?.enableIpv6 === true ? { has6: true } : {}),
});

/**
 * @param ingressId  of the network of the mesh, if there is one
 * @param mesh       what that network is
 */
export function serviceRecords(service: Service, ingressId: string | undefined, mesh: MeshKind = {}): ServiceRecord[] {
  const { id, spec, endpoint } = service;
  const name = spec?.name ?? "";
  const mode = spec?.endpointSpec?.mode ?? EndpointMode.VIP;
  const own = spec?.taskTemplate?.networks ?? [];
  const configs = own.length > 0 ? own : (spec?.networks ?? []);
  const virtualIps = new Map<string, string>();
  const virtualIps6 = new Map<string, string>();
  for (const { networkId, addr } of endpoint?.virtualIps ?? [])
    (isV6(addr ?? "") ? virtualIps6 : virtualIps).set(networkId ?? "", addr ?? "");
  const records: ServiceRecord[] = configs.flatMap(({ target, aliases }) =>
    (target ?? "") === ""
      ? []
      : [
          {
            networkId: target ?? "",
            serviceId: id,
            name,
            aliases: aliases ?? [],
            virtualIp: virtualIps.get(target ?? "") ?? "",
            ...(virtualIps6.has(target ?? "") ? { virtualIp6: virtualIps6.get(target ?? "") ?? "" } : {}),
            mode,
            ports: [],
          },
        ],
  );
  const ports = ingressPorts(service);
  if (ingressId !== undefined && ports.length > 0)
    records.push({
      networkId: ingressId,
      serviceId: id,
      name,
      aliases: [],
      virtualIp: "",
      mode,
      ports: [...ports],
      ...mesh,
    });
  return records;
}

const isV6 = (cidr: string): boolean => cidr.includes(":");

/** What the mesh opens for it; a port is there once the allocator has given its number. */
export const ingressPorts = ({ endpoint }: Service): readonly Port[] =>
  (endpoint?.ports ?? []).filter(
    ({ publishMode, publishedPort }) =>
      (publishMode ?? PublishMode.INGRESS) === PublishMode.INGRESS && (publishedPort ?? 0) > 0,
  );

/** Of each node's own (host, none, a bridge). */
export function isLocal({ spec }: Readonly<skep.objects.Network>): boolean {
  const driver = spec?.driver?.name ?? "";
  return (driver !== "" && driver !== "overlay") || spec?.scope === "local" || spec?.scope === "node";
}

/** Each node is told of all of them, so they have a bound. */
const addressesMax = 16;

const addressesOf = (texts: readonly string[], bits: 32 | 128): string[] =>
  texts.filter((text) => parseAddress(text)?.bits === bits).slice(0, addressesMax);

/** @returns undefined if nothing can be sent to it: it has no number or no address yet */
export function peerRecord(node: Node): PeerRecord | undefined {
  const network = node.description?.network;
  if (network == null || !isNodeNumber(node.number)) return undefined;
  const addr = frameAddressOf(node);
  if (addr === undefined) return undefined;
  const addresses6 = addressesOf(network.addresses6 ?? [], 128);
  const addresses4 = addr.includes(":") ? addressesOf(network.addresses4 ?? [], 32) : [];
  return {
    nodeId: node.id,
    number: node.number,
    addr,
    mtu: network.mtu ?? 0,
    publicKey: network.wireguardPublicKey ?? new Uint8Array(),
    ...(addresses6.length === 0 ? {} : { addresses6 }),
    ...(addresses4.length === 0 ? {} : { addresses4 }),
  };
}
