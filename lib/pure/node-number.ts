/**
 * A node's number (1 .. 4095, given by the allocator) and what follows from it. Each node can say it of each other one, so
 * nobody has to distribute hardware addresses, link addresses or blocks.
 */
import { invariant } from "./errors.ts";

export const nodeNumberMax = 4095;

/** VXLAN number of the mesh, on every node: two links of one number cannot be on a host, so no network may have it. */
export const meshVni = 4095;

/** Of all that the data plane owns in marks: 0x53 in the highest byte, the node's number below. */
export const nodeMarkBase = 0x5300_0000;
export const nodeMarkMask = 0xff00_0000;

/** Gateway addresses of all nodes: shared address space (RFC 6598), which no host has to route. */
export const gatewayRange = "100.64.0.0/10";
const gatewayBase = 0x6440_0000;
const blockSize = 1024;
const blockPrefix = 22;

/**
 * The same of IPv6: unique local addresses (RFC 4193) that end with the gateway address of IPv4, so whoever knows one knows
 * the other, and nobody has to give them out or tell of them. Decision: docs/adr/0042-gateway-addresses-of-ipv6.md.
 */
const gatewayPrefix6 = "fd73:6b65:7002::";
export const gatewayRange6 = `${gatewayPrefix6}6440:0/106`;

export interface NodeAddresses {
  /** Of the node's VXLAN devices. */
  readonly mac: string;
  /** The node as next hop inside an overlay; link-local, so it is in nobody's subnet. */
  readonly linkAddress: string;
  /** The same for IPv6. */
  readonly linkAddress6: string;
  /** Of connections that came in through the node. */
  readonly mark: number;
  /** Conntrack zone of what came in through the node. */
  readonly zone: number;
  /** CIDR: the node gives its tasks gateway addresses out of it. */
  readonly gatewayBlock: string;
  /** The node's own, first of its block: the tasks' way out, and their resolver. */
  readonly gatewayAddress: string;
  /** The node inside the tunnel of encrypted networks, last of its block, where no task's can be. */
  readonly tunnelAddress: string;
}

export function isNodeNumber(number: number): boolean {
  return Number.isInteger(number) && number >= 1 && number <= nodeNumberMax;
}

/** @throws InvariantViolation if it is no node's number: whoever reads one from outside asks isNodeNumber first */
export function nodeAddresses(number: number): NodeAddresses {
  invariant(isNodeNumber(number), "a node's number is 1 .. 4095", { number });
  const high = number >> 8;
  const low = number & 0xff;
  const block = gatewayBase + number * blockSize;
  return {
    mac: `02:fe:00:00:${hex(high)}:${hex(low)}`,
    linkAddress: `169.254.${high}.${low}`,
    linkAddress6: `fe80::${number.toString(16)}`,
    mark: (nodeMarkBase | number) >>> 0,
    zone: number,
    gatewayBlock: `${formatV4(block)}/${blockPrefix}`,
    gatewayAddress: formatV4(block + 1),
    tunnelAddress: formatV4(block + blockSize - 1),
  };
}

/**
 * Whether a task of this node may have this gateway address: inside the node's block, and neither its first address, which
 * is the node's, nor an address of no host.
 * @param address  plain IPv4 in its one canonical form; anything else is not one
 */
export function isTaskGateway(number: number, address: string): boolean {
  if (!isNodeNumber(number)) return false;
  const value = parseV4(address);
  if (value === undefined) return false;
  const offset = value - (gatewayBase + number * blockSize);
  return offset > 1 && offset < blockSize - 1;
}

/** @returns the node in whose block the address lies, its own and those of no host included; undefined: in nobody's */
export function nodeOfGateway(address: string): number | undefined {
  const value = parseV4(address);
  if (value === undefined || value < gatewayBase) return undefined;
  const number = Math.floor((value - gatewayBase) / blockSize);
  return isNodeNumber(number) ? number : undefined;
}

/**
 * @param gateway  plain, of `gatewayRange`
 * @returns        plain, in the form that the kernel prints; empty: it is no address
 */
export function gateway6Of(gateway: string): string {
  const value = parseV4(gateway);
  return value === undefined ? "" : `${gatewayPrefix6}${(value >>> 16).toString(16)}:${(value & 0xffff).toString(16)}`;
}

/** Of a block in `gatewayRange`, CIDR both. */
export function block6Of(block: string): string {
  const [first = "", prefix = ""] = block.split("/");
  return `${gateway6Of(first)}/${96 + Number(prefix)}`;
}

const hex = (byte: number): string => byte.toString(16).padStart(2, "0");

const formatV4 = (value: number): string =>
  [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff].join(".");

/** Plain decimal without leading zeros, which some programs read as octal. */
function parseV4(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(?:0|[1-9]\d{0,2})$/u.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}
