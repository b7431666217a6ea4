/** What managers tell is checked before anything is built on it: a record that makes no sense is as good as none. */
import { isNodeNumber } from "../../../lib/pure/node-number.ts";
import { frameAddress } from "../../../proto/index.ts";
import { parseAddress, parseCidr } from "./cidr.ts";
import { parseCidr6 } from "./cidr6.ts";
import type { EndpointRecord, PeerRecord, RecordChange, ServiceRecord } from "./records.ts";

const isPort = (port: number): boolean => Number.isInteger(port) && port >= 0 && port <= 65_535;

/** @returns what is wrong; undefined: nothing */
export function wrongPeer({ nodeId, number, addr }: PeerRecord): string | undefined {
  if (!isNodeNumber(number)) return `node ${nodeId} has the number ${number}`;
  return frameAddress(addr) !== addr ? `node ${nodeId} is at "${addr}"` : undefined;
}

export function wrongEndpoint({ taskId, addresses, gatewayAddress }: EndpointRecord): string | undefined {
  const bad = addresses.find((address) => parseCidr(address) === undefined && parseCidr6(address) === undefined);
  if (bad !== undefined) return `task ${taskId} has the address "${bad}"`;
  const isGateway = gatewayAddress === "" || parseAddress(gatewayAddress) !== undefined;
  return isGateway ? undefined : `task ${taskId} has the gateway address "${gatewayAddress}"`;
}

export function wrongService({ serviceId, virtualIp, virtualIp6, ports }: ServiceRecord): string | undefined {
  if (virtualIp !== "" && parseCidr(virtualIp) === undefined)
    return `service ${serviceId} has the address "${virtualIp}"`;
  if (virtualIp6 !== undefined && parseCidr6(virtualIp6) === undefined)
    return `service ${serviceId} has the address "${virtualIp6}"`;
  const isRight = ports.every(({ publishedPort, targetPort }) => isPort(publishedPort) && isPort(targetPort));
  return isRight ? undefined : `service ${serviceId} has a port that is none`;
}

export function wrongChange(change: RecordChange): string | undefined {
  if (change.record === undefined) return undefined;
  switch (change.kind) {
    case "peer":
      return wrongPeer(change.record);
    case "endpoint":
      return wrongEndpoint(change.record);
    case "service":
      return wrongService(change.record);
  }
}
