/** What a network of this node may be asked to be (`network create`), read and completed. Pure. */
import { gatewayRange6 } from "../../../lib/pure/node-number.ts";
import { bridgeAddresses, canonicalSubnet, type BridgeNetwork } from "./bridges.ts";
import { formatAddress, parseAddress, parseCidr } from "./cidr.ts";
import { formatAddress6, isV6, parseAddress6, parseCidr6, subnetText6, type Cidr6 } from "./cidr6.ts";
import { contains, freeSubnet, overlaps, type Range } from "./pools.ts";

export interface LocalIpamConfig {
  readonly subnet?: string;
  readonly ipRange?: string;
  readonly gateway?: string;
  readonly auxiliaryAddresses?: Readonly<Record<string, string>>;
}

/** In the Engine API's words. */
export interface LocalNetworkWish {
  readonly name: string;
  /** Empty: bridge. */
  readonly driver?: string;
  readonly internal?: boolean;
  readonly enableIpv6?: boolean;
  readonly ipamDriver?: string;
  readonly ipam?: readonly LocalIpamConfig[];
  readonly options?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
}

/** As kept: what was asked for, and what was made of it. */
export interface LocalNetworkRecord {
  readonly version: 1;
  readonly createdAtMs: number;
  readonly driver: "bridge";
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly auxiliaryAddresses: Readonly<Record<string, string>>;
  /** The subnet was asked for, so addresses in it may be as well. */
  readonly hasOwnSubnet?: true;
  readonly network: BridgeNetwork;
}

export type LocalNetworkReading =
  | { readonly ok: true; readonly network: Omit<BridgeNetwork, "id"> }
  | {
      readonly ok: false;
      readonly kind: "invalid" | "driver" | "overlap" | "exhausted";
      readonly why: string;
      readonly other?: string;
    };

export const defaultBridgeName = "bridge";
/** Names that clients give a meaning of their own. */
export const predefinedNames: readonly string[] = [defaultBridgeName, "host", "none", "default"];

/** As Docker's, so that scripts which count on 172.17.0.0/16 and the next ones find them. */
const pools: readonly { readonly range: Range; readonly prefixLength: number }[] = [
  { range: rangeOf("172.17.0.0/16"), prefixLength: 16 },
  { range: rangeOf("172.18.0.0/16"), prefixLength: 16 },
  { range: rangeOf("172.19.0.0/16"), prefixLength: 16 },
  { range: rangeOf("172.20.0.0/14"), prefixLength: 16 },
  { range: rangeOf("172.24.0.0/14"), prefixLength: 16 },
  { range: rangeOf("172.28.0.0/14"), prefixLength: 16 },
  { range: rangeOf("192.168.0.0/16"), prefixLength: 20 },
];

function rangeOf(text: string): Range {
  return parseCidr(text) ?? { first: 0, last: 0 };
}

const bridgeOption = "com.docker.network.bridge.";
const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;
const mtuMin = 68;
const mtuMax = 65_535;

/**
 * @param taken  subnets that nothing chosen may overlap: other networks, routes and addresses of the host
 * @param ours   subnets of networks, which nothing asked for may overlap either
 */
export function readLocalNetwork(
  wish: LocalNetworkWish,
  taken: readonly string[],
  ours: readonly string[],
): LocalNetworkReading {
  const refuse = (why: string): LocalNetworkReading => ({ ok: false, kind: "invalid", why });
  const driver = wish.driver ?? "";
  if (!["", "bridge"].includes(driver)) return { ok: false, kind: "driver", why: driver };
  if (!namePattern.test(wish.name)) return refuse(`invalid network name "${wish.name.slice(0, 128)}"`);
  if (!["", "default"].includes(wish.ipamDriver ?? "")) {
    return refuse(`invalid IPAM driver "${(wish.ipamDriver ?? "").slice(0, 64)}": only default is there`);
  }
  const asked = (wish.ipam ?? []).filter((config) => Object.values(config).some((value) => value !== ""));
  const configs = asked.filter(({ subnet = "" }) => !isV6(subnet));
  // As in the reference, a subnet of a family that the network has not is not looked at.
  const configs6 = wish.enableIpv6 === true ? asked.filter(({ subnet = "" }) => isV6(subnet)) : [];
  if (configs.length > 1 || configs6.length > 1) return refuse("a network of this node has one subnet of each family");
  const options = readOptions(wish.options ?? {});
  if (typeof options === "string") return refuse(options);
  const { subnet: wanted = "", ipRange = "", gateway: gatewayWanted = "", auxiliaryAddresses = {} } = configs[0] ?? {};

  if (wanted === "" && (ipRange !== "" || gatewayWanted !== "" || Object.keys(auxiliaryAddresses).length > 0)) {
    return refuse("an address range, a gateway or auxiliary addresses need a subnet");
  }
  const subnet =
    wanted === "" ? freeSubnet(pools, taken.filter((one) => !isV6(one)).map(rangeOf)) : canonicalSubnet(wanted);
  if (subnet === undefined) {
    return wanted === ""
      ? { ok: false, kind: "exhausted", why: "" }
      : refuse(`invalid subnet "${wanted.slice(0, 64)}": an IPv4 prefix is needed, as 172.30.0.0/16`);
  }
  const range = rangeOf(subnet);
  if (range.last - range.first < 3) return refuse(`subnet ${subnet} is too small: a /30 is the smallest`);
  const other = ours.find((one) => !isV6(one) && overlaps(rangeOf(one), range));
  if (other !== undefined) return { ok: false, kind: "overlap", why: subnet, other };
  const wrong = unusable(range);
  if (wrong !== undefined) return refuse(`invalid subnet ${subnet}: ${wrong}`);
  const part = ipRange === "" ? undefined : parseCidr(ipRange);
  if (ipRange !== "" && (part === undefined || part.first < range.first || part.last > range.last)) {
    return refuse(`invalid ip-range "${ipRange.slice(0, 64)}": it is not inside ${subnet}`);
  }
  const reserved: string[] = [];
  for (const [name, address] of Object.entries(auxiliaryAddresses)) {
    const value = parseAddress(address);
    if (value === undefined || !contains(range, value)) {
      return refuse(`invalid auxiliary address ${name.slice(0, 64)}: it is not inside ${subnet}`);
    }
    reserved.push(address);
  }
  const v6 = wish.enableIpv6 === true ? readV6(configs6[0], range, { taken, ours }) : {};
  if (typeof v6 === "string") return refuse(v6);
  const gateway = chooseGateway(gatewayWanted, subnet, part === undefined ? "" : ipRange, reserved);
  if (gateway === undefined) {
    return refuse(`invalid gateway "${gatewayWanted.slice(0, 64)}": it is no free address of a host inside ${subnet}`);
  }
  return {
    ok: true,
    network: {
      name: wish.name,
      subnet,
      gateway,
      ...v6,
      ipRange: ipRange === "" ? "" : (canonicalSubnet(ipRange) ?? ""),
      reserved,
      internal: wish.internal === true,
      ...options,
    },
  };
}

/** Unique local addresses (RFC 4193) for networks that name no subnet. */
const pool6 = "fd73:6b65:7001::/48";
const subnetSize6 = 64;
/** What is no network's: loopback and what is like it, links, multicast, gateway addresses of containers. */
const reserved6 = ["::/8", "fe80::/10", "ff00::/8", gatewayRange6];

/** @returns the reason when it cannot be */
function readV6(
  config: LocalIpamConfig | undefined,
  range: Range,
  { taken, ours }: { readonly taken: readonly string[]; readonly ours: readonly string[] },
): { readonly subnet6: string; readonly gateway6: string } | string {
  const { subnet: wanted = "", ipRange = "", gateway = "", auxiliaryAddresses = {} } = config ?? {};
  const clash = (a: Cidr6, others: readonly string[]): string | undefined =>
    others.find((text) => {
      const b = parseCidr6(text);
      return b !== undefined && a.first <= b.last && b.first <= a.last;
    });
  let subnet = parseCidr6(wanted);
  if (wanted === "") {
    const pool = parseCidr6(pool6);
    for (let first = pool?.first ?? 1n; first <= (pool?.last ?? 0n) && subnet === undefined; first += 1n << 64n) {
      const candidate = parseCidr6(`${formatAddress6(first)}/${subnetSize6}`);
      if (candidate !== undefined && clash(candidate, taken) === undefined) subnet = candidate;
    }
    if (subnet === undefined) return `all subnets of ${pool6} are in use`;
  }
  if (subnet === undefined) return `invalid subnet "${wanted.slice(0, 64)}": an IPv6 prefix is needed, as fd00:1::/64`;
  // Addresses follow from those of IPv4, one for one.
  if (subnet.last - subnet.first < BigInt(range.last - range.first)) {
    return `subnet ${wanted.slice(0, 64)} has fewer addresses than the network's IPv4 subnet: a /64 has enough`;
  }
  const other = clash(subnet, ours) ?? clash(subnet, reserved6);
  if (other !== undefined) return `invalid subnet ${wanted.slice(0, 64)}: it overlaps ${other}`;
  if (ipRange !== "" || Object.keys(auxiliaryAddresses).length > 0) {
    return "an address range and auxiliary addresses are of IPv4: addresses of IPv6 follow from those";
  }
  const chosen = gateway === "" ? subnet.first + 1n : parseAddress6(gateway)?.value;
  if (chosen === undefined || chosen <= subnet.first || chosen > subnet.last) {
    return `invalid gateway "${gateway.slice(0, 64)}": it is no address of a host inside ${subnetText6(subnet)}`;
  }
  return { subnet6: subnetText6(subnet), gateway6: formatAddress6(chosen) };
}

function chooseGateway(
  wanted: string,
  subnet: string,
  ipRange: string,
  reserved: readonly string[],
): string | undefined {
  const range = bridgeAddresses({ subnet, ipRange: "" });
  if (wanted !== "") {
    const value = parseAddress(wanted);
    return value !== undefined && contains(range, value) && !reserved.includes(wanted) ? wanted : undefined;
  }
  const { first, last } = ipRange === "" ? range : bridgeAddresses({ subnet, ipRange });
  for (let value = first; value <= last; value += 1) {
    if (!reserved.includes(formatAddress(value))) return formatAddress(value);
  }
  return undefined;
}

/** Addresses that mean something else everywhere (RFC 6890), and the blocks of gateway addresses. */
function unusable(range: Range): string | undefined {
  const special = { "0.0.0.0/8": "this host", "127.0.0.0/8": "loopback", "224.0.0.0/3": "multicast and reserved" };
  for (const [subnet, meaning] of Object.entries(special)) {
    if (overlaps(rangeOf(subnet), range)) return `${subnet} is for ${meaning}`;
  }
  if (overlaps(rangeOf("169.254.0.0/16"), range)) return "169.254.0.0/16 is for links";
  return overlaps(rangeOf("100.64.0.0/10"), range) ? "100.64.0.0/10 is for gateway addresses of containers" : undefined;
}

type ReadOptions = Pick<BridgeNetwork, "masquerade" | "interContainer" | "mtu" | "hostAddress">;

/** @returns the reason when an option cannot be kept; those that mean nothing here are shown and do nothing, as Docker's driver does */
function readOptions(options: Readonly<Record<string, string>>): ReadOptions | string {
  const flag = (name: string): boolean | string => {
    const text = options[`${bridgeOption}${name}`] ?? "true";
    if (["true", "1", "t", "T", "TRUE", "True"].includes(text)) return true;
    if (["false", "0", "f", "F", "FALSE", "False"].includes(text)) return false;
    return `invalid value of option ${bridgeOption}${name}: true or false is needed`;
  };
  const masquerade = flag("enable_ip_masquerade");
  if (typeof masquerade === "string") return masquerade;
  const interContainer = flag("enable_icc");
  if (typeof interContainer === "string") return interContainer;
  const mtuText = options["com.docker.network.driver.mtu"] ?? "0";
  const mtu = /^\d{1,5}$/.test(mtuText) ? Number(mtuText) : -1;
  if (mtu !== 0 && (mtu < mtuMin || mtu > mtuMax)) {
    return "invalid value of option com.docker.network.driver.mtu: a number of bytes from 68 to 65535 is needed";
  }
  const binding = options[`${bridgeOption}host_binding_ipv4`] ?? "";
  if (binding !== "" && parseAddress(binding) === undefined) {
    return `invalid value of option ${bridgeOption}host_binding_ipv4: an IPv4 address is needed`;
  }
  if (options[`${bridgeOption}name`] !== undefined) {
    return `the option ${bridgeOption}name is not supported: networks of this node are routed, so there is no bridge to name`;
  }
  const mode = options[`${bridgeOption}gateway_mode_ipv4`] ?? "nat";
  if (mode !== "nat") return `the option ${bridgeOption}gateway_mode_ipv4 may only be nat`;
  return { masquerade, interContainer, mtu, hostAddress: binding === "0.0.0.0" ? "" : binding };
}
