/** Records of the data plane as they travel, and as the data plane takes them. What is not whole is not taken. */
import { isNodeNumber } from "../../../lib/pure/node-number.ts";
import { formatAddress, frameAddress, parseAddress, parseRange, skep } from "../../../proto/index.ts";
import type {
  EndpointRecord,
  NetworkRecords,
  PeerRecord,
  RecordChange,
  ServiceRecord,
} from "../../../lib/pure/network-records.ts";

type Assignment = skep.dispatcher.Assignment.$Properties;
type Port = skep.objects.EndpointPortConfig.$Properties;

const { EndpointMode, PortProtocol, PublishMode } = skep.objects;

/** Which record it is, in one space of keys; undefined: it is no record. */
export function recordKey({ endpoint, serviceRecord, peer }: Assignment): string | undefined {
  if (endpoint != null) return `endpoint/${endpoint.networkId}/${endpoint.taskId}`;
  if (serviceRecord != null) return `service/${serviceRecord.networkId}/${serviceRecord.serviceId}`;
  return peer == null ? undefined : `peer/${peer.nodeId}`;
}

/** In which network it is; undefined: in all. */
export const networkOfRecord = ({ endpoint, serviceRecord }: Assignment): string | undefined =>
  endpoint?.networkId ?? serviceRecord?.networkId ?? undefined;

/** @param item  undefined: it is gone */
export function changeOf(recordKey: string, item: Assignment | undefined): RecordChange {
  const slash = recordKey.indexOf("/");
  const key = recordKey.slice(slash + 1);
  switch (recordKey.slice(0, slash)) {
    case "endpoint":
      return { kind: "endpoint", key, record: item?.endpoint == null ? undefined : endpointOf(item.endpoint) };
    case "service":
      return { kind: "service", key, record: item?.serviceRecord == null ? undefined : serviceOf(item.serviceRecord) };
    default:
      return { kind: "peer", key, record: item?.peer == null ? undefined : peerOf(item.peer) };
  }
}

export function recordsOf(nodeId: string, items: Iterable<readonly [string, Assignment]>): NetworkRecords {
  const peers: PeerRecord[] = [];
  const endpoints: EndpointRecord[] = [];
  const services: ServiceRecord[] = [];
  for (const [key, item] of items) {
    const change = changeOf(key, item);
    if (change.record === undefined) continue;
    if (change.kind === "peer") peers.push(change.record);
    else if (change.kind === "endpoint") endpoints.push(change.record);
    else services.push(change.record);
  }
  return { nodeId, peers, endpoints, services };
}

function endpointOf(record: skep.dispatcher.EndpointRecord.$Properties): EndpointRecord {
  const gateway = record.gatewayAddress ?? "";
  return {
    networkId: record.networkId ?? "",
    taskId: record.taskId ?? "",
    serviceId: record.serviceId ?? "",
    nodeId: record.nodeId ?? "",
    name: record.name ?? "",
    slot: record.slot ?? 0,
    addresses: (record.addresses ?? []).filter((text) => text.includes("/") && parseRange(text) !== undefined),
    gatewayAddress: parseAddress(gateway) === undefined ? "" : gateway,
    aliases: record.aliases ?? [],
    serving: record.serving ?? false,
    ...(record.lost === true ? { lost: true } : {}),
  };
}

function serviceOf(record: skep.dispatcher.ServiceRecord.$Properties): ServiceRecord {
  const virtualIp = record.virtualIp ?? "";
  const virtualIp6 = record.virtualIp6 ?? "";
  return {
    networkId: record.networkId ?? "",
    serviceId: record.serviceId ?? "",
    name: record.name ?? "",
    aliases: record.aliases ?? [],
    virtualIp: parseRange(virtualIp)?.address.bits === 32 ? virtualIp : "",
    ...(parseRange(virtualIp6)?.address.bits === 128 ? { virtualIp6 } : {}),
    mode: record.mode === EndpointMode.DNSRR ? "dnsrr" : "vip",
    ports: (record.ports ?? []).filter(isPort).map(({ protocol, targetPort, publishedPort, publishMode }) => ({
      protocol: protocols[protocol ?? PortProtocol.TCP] ?? "tcp",
      targetPort: targetPort ?? 0,
      publishedPort: publishedPort ?? 0,
      mode: publishMode === PublishMode.HOST ? "host" : "ingress",
    })),
    encrypted: record.encrypted ?? false,
    ...(record.has6 === true ? { has6: true } : {}),
  };
}

const protocols: Readonly<Record<number, "tcp" | "udp" | "sctp">> = {
  [PortProtocol.TCP]: "tcp",
  [PortProtocol.UDP]: "udp",
  [PortProtocol.SCTP]: "sctp",
};

const isPort = ({ targetPort, publishedPort, protocol }: Port): boolean =>
  protocols[protocol ?? PortProtocol.TCP] !== undefined &&
  [targetPort ?? 0, publishedPort ?? 0].every((port) => port > 0 && port < 65_536);

/** A peer without a number or an address cannot be reached: it is as good as none. */
function peerOf(record: skep.dispatcher.PeerRecord.$Properties): PeerRecord | undefined {
  const number = record.number ?? 0;
  const addr = frameAddress(record.addr ?? "");
  if (!isNodeNumber(number) || addr === undefined) return undefined;
  const addresses6 = addressesOf(record.addresses6 ?? [], 128);
  const addresses4 = addressesOf(record.addresses4 ?? [], 32);
  return {
    nodeId: record.nodeId ?? "",
    number,
    addr,
    mtu: record.mtu ?? 0,
    publicKey: Buffer.from(record.publicKey ?? []).toString("base64"),
    ...(addresses6.length === 0 ? {} : { addresses6 }),
    ...(addresses4.length === 0 ? {} : { addresses4 }),
  };
}

/** One form each, as the kernel has it. */
const addressesOf = (texts: readonly string[], bits: 32 | 128): string[] =>
  texts.flatMap((text) => {
    const address = parseAddress(text);
    return address?.bits === bits ? [formatAddress(address)] : [];
  });
