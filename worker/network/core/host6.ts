/**
 * IPv6 in the host's namespace: host.ts once more, there while something on this node has use of it, since it makes the host
 * forward IPv6 and costs each packet of it. What has: a sandbox on a network with IPv6, and a mesh that has it. What is named
 * here as there is the same; names are asked for by IPv4 alone, so there is no resolver in it.
 */
import { block6Of, gateway6Of, nodeAddresses } from "../../../lib/pure/node-number.ts";
import type { BridgeNetwork } from "./bridges.ts";
import { isV6 } from "./cidr6.ts";
import { answerRules, gatewayOf, markText, ownBlock, ownGateway, type HostFacts } from "./host.ts";
import { gatewayLink, gatewayPattern, hostTable, linkPattern, localPattern, meshLink } from "./names.ts";
import type { ElementObject, NetObject, SetFields } from "./objects.ts";
import type { PeerRecord } from "./records.ts";
import { isReachable, tunnelDataPort } from "./tunnel.ts";

/** This host's IPv6 as it is while anything uses it. */
export function hostObjects6(facts: HostFacts): NetObject[] {
  const { number } = facts;
  const blocks = number === 0 ? [ownBlock] : [ownBlock, nodeAddresses(number).gatewayBlock];
  const gateways = [...new Set([ownGateway, gatewayOf(number)])];
  return [
    { type: "sysctl", path: "net/ipv6/conf/all/forwarding", value: "1" },
    {
      type: "table",
      family: "ip6",
      table: hostTable,
      text: tableText(facts),
      sets,
      left: answerRules.leftChain("ip6"),
    },
    ...gateways.flatMap((gateway): NetObject[] => [
      { type: "address", link: gatewayLink, address: `${gateway6Of(gateway)}/128` },
      element6("gateways", [gateway6Of(gateway)]),
    ]),
    ...blocks.flatMap((block) => [element6("blocks", [block6Of(block)]), element6("leaving", [block6Of(block)])]),
    element6("behind", [block6Of(ownBlock)]),
    ...(facts.has6 && number > 0 && facts.mesh !== "closed" ? meshObjects6 : []),
  ];
}

/** The kernel's table of its own addresses, which it asks first (ip-rule(8)). */
const localTable = 255;

/**
 * Answers to what this host asked from ::1 come back by this link: conntrack puts ::1 in the place of the gateway address,
 * and then the kernel takes the way that the address and the link give (there is no route_localnet, and none is needed). Who
 * sends to ::1 or from it over a link is dropped before any rule is asked (RFC 4291 §2.5.3).
 * @param metric  no other link's
 */
export const loopbackRoute = (link: string, metric: number): NetObject => ({
  type: "route",
  table: localTable,
  destination: "::1/128",
  link,
  via: "",
  onlink: false,
  source: "",
  localMetric: metric,
});

/** Those of veths are addresses of IPv4, which are higher numbers. */
const meshMetric = 5300;
const meshObjects6: readonly NetObject[] = [loopbackRoute(meshLink, meshMetric)];

/** One node of the cluster, this one included, while the mesh has IPv6. */
export function peerObjects6(peer: PeerRecord, ownNumber: number, mesh: HostFacts["mesh"]): NetObject[] {
  const { mac, mark, zone, linkAddress6, gatewayAddress, gatewayBlock } = nodeAddresses(peer.number);
  const block = block6Of(gatewayBlock);
  const known: NetObject[] = [
    // Of its own it is there in any case.
    ...(peer.number === ownNumber ? [] : [element6("blocks", [block])]),
    ...addresses6Of(peer).map((address) => element6("bounce", [address, block])),
    element6("members", [mac]),
    element6("entry", [mac], [markText(mark)]),
    element6("zones", [mac], [String(zone)]),
  ];
  if (peer.number === ownNumber || mesh === "closed") return known;
  if (mesh === "tunnel" && !isReachable(peer)) return known;
  return [
    ...known,
    { type: "neighbour", link: meshLink, address: linkAddress6, mac },
    element6("hops", [markText(mark)], [gateway6Of(gatewayAddress)]),
    // A link-local next hop is on its link by itself.
    { type: "route", table: 254, destination: block, link: meshLink, via: linkAddress6, onlink: false, source: "" },
  ];
}

/** Of its host, by which it asks the mesh. */
const addresses6Of = ({ addr, addresses6 = [] }: PeerRecord): readonly string[] =>
  isV6(addr) ? [...new Set([addr, ...addresses6])] : addresses6;

/** While a sandbox is on it. */
export function bridgeObjects6(network: BridgeNetwork): NetObject[] {
  const { subnet6, gateway6, internal, masquerade, interContainer } = network;
  if (subnet6 === undefined || gateway6 === undefined) return [];
  return [
    { type: "address", link: gatewayLink, address: `${gateway6}/128` },
    element6("gateways", [gateway6]),
    element6("behind", [subnet6]),
    ...(masquerade || internal ? [element6("blocks", [subnet6])] : []),
    ...(interContainer ? [element6("lan", [subnet6, subnet6])] : []),
    ...(masquerade && !internal ? [element6("leaving", [subnet6])] : []),
  ];
}

export const element6 = (set: string, key: readonly string[], value: readonly string[] = []): ElementObject => ({
  type: "element",
  family: "ip6",
  table: hostTable,
  set,
  key,
  value,
});

const slotFields: SetFields = { key: ["inet_service", "integer"], data: ["ipv6_addr", "inet_service"] };
const boundFields: SetFields = { key: ["ipv6_addr", "inet_service"], data: ["ipv6_addr", "inet_service"] };

/** Who fills them: as in host.ts, with `bridgeObjects6`, `peerObjects6` and `hostObjects6` of here. */
const sets: Readonly<Record<string, SetFields>> = {
  ports: { key: ["inet_proto", "inet_service"], data: ["integer"] },
  lead: { key: ["inet_proto", "integer"], data: ["verdict"] },
  bound: { key: ["ipv6_addr", "inet_proto", "inet_service"], data: ["verdict"] },
  tcpbe: slotFields,
  udpbe: slotFields,
  sctpbe: slotFields,
  tcpto: boundFields,
  udpto: boundFields,
  sctpto: boundFields,
  self: { key: ["ipv6_addr", "ipv6_addr"], data: ["ipv6_addr"] },
  isolated: { key: ["ipv6_addr"] },
  gateways: { key: ["ipv6_addr"] },
  blocks: { key: ["ipv6_addr"], interval: true },
  lan: { key: ["ipv6_addr", "ipv6_addr"], interval: true },
  leaving: { key: ["ipv6_addr"], interval: true },
  behind: { key: ["ipv6_addr"], interval: true },
  bounce: { key: ["ipv6_addr", "ipv6_addr"], interval: true },
  members: { key: ["ether_addr"] },
  entry: { key: ["ether_addr"], data: ["mark"] },
  zones: { key: ["ether_addr"], data: ["ct_zone"] },
  hops: { key: ["mark"], data: ["ipv6_addr"] },
};

const protocols = ["tcp", "udp", "sctp"] as const;

/**
 * IPv6 has no reverse path filter, so `ours` is it, on all links but the mesh's, whose sources are clients'. Both ends of a
 * veth know each other for good: what is said with link-local addresses (who is a router, who has which address) is nobody's
 * need, and would pass the rules about networks by.
 */
function tableText({ number, dataPort, mesh, forwardsForOthers }: HostFacts): string {
  const inSwarm = number > 0;
  const gateway = gateway6Of(gatewayOf(number));
  const swarm = (...lines: readonly string[]): string => (inSwarm ? lines.map((line) => `    ${line}\n`).join("") : "");
  const each = (line: (protocol: string) => string): string => protocols.map(line).join("\n");
  return `
  map ports { type inet_proto . inet_service : classid; }
  map lead { type inet_proto . classid : verdict; }
  map bound { type ipv6_addr . inet_proto . inet_service : verdict; }
${each((one) => `  map ${one}be { typeof ${one} dport . numgen random mod 65536 : ip6 daddr . ${one} dport; }`)}
${each((one) => `  map ${one}to { typeof ip6 daddr . ${one} dport : ip6 daddr . ${one} dport; }`)}
  map self { type ipv6_addr . ipv6_addr : ipv6_addr; }
  set isolated { type ipv6_addr; }
  set gateways { type ipv6_addr; }
  set blocks { type ipv6_addr; flags interval; }
  set lan { type ipv6_addr . ipv6_addr; flags interval; }
  set leaving { type ipv6_addr; flags interval; }
  set behind { type ipv6_addr; flags interval; }
  set bounce { type ipv6_addr . ipv6_addr; flags interval; }
  set members { type ether_addr; }
  map entry { type ether_addr : mark; }
  map zones { typeof ether saddr : ct zone; }
  map hops { type mark : ipv6_addr; }
  chain ours {
    ip6 saddr fe80::/10 drop
    ip6 daddr fe80::/10 drop
${swarm(`iifname "${meshLink}" ct original zone set ether saddr map @zones`, `iifname "${meshLink}" accept`)}    fib saddr . iif oif missing drop
  }
  chain raw {
    type filter hook prerouting priority raw; policy accept;
    iifname "${linkPattern}" goto ours
    iifname "lo" accept
    ip6 daddr @blocks drop
  }
  chain fenced {
    ct direction reply accept
    ip6 daddr @gateways icmpv6 type echo-request accept
    ip6 saddr . ip6 daddr @lan ip6 daddr != @gateways accept
    reject with icmpv6 type admin-prohibited
  }
  chain entering {
${swarm(`ether saddr != @members drop`, `ct direction original ct mark 0 ct mark set ether saddr map @entry`)}  }
  chain arriving {
    type filter hook prerouting priority dstnat + 10; policy accept;
    iifname != "${linkPattern}" accept
${swarm(`iifname "${meshLink}" goto entering`, `${answerRules.isAnswer} ip6 daddr set ct mark map @hops`)}    ip6 saddr @isolated jump fenced
  }
  chain answering {
    oifname != "${meshLink}" drop
    ip6 daddr set ct original ip6 saddr accept
  }
  chain nobody {
    oifname "lo" accept
    meta l4proto tcp reject with tcp reset
    reject with icmpv6 type port-unreachable
  }
${each((one) => `  chain ${one}one {\n    dnat ip6 to ip6 daddr . ${one} dport map @${one}to\n  }`)}
  chain leading {
    meta l4proto . meta priority vmap @lead
  }
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    ip6 saddr @isolated accept
    iifname != "${meshLink}" fib daddr type local ip6 daddr . meta l4proto . th dport vmap @bound
    iifname != "${meshLink}" fib daddr type local meta priority set meta l4proto . th dport map @ports goto leading
  }
  chain out {
    type nat hook output priority -100; policy accept;
    fib daddr type local ip6 daddr . meta l4proto . th dport vmap @bound
    fib daddr type local meta priority set meta l4proto . th dport map @ports goto leading
  }
  chain post {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${linkPattern}" ip6 saddr ::1 snat to ${gateway}
    snat to ip6 saddr . ip6 daddr map @self
${swarm(
  `oifname "${meshLink}" ip6 saddr . ip6 daddr @bounce snat to ${gateway}`,
  `oifname "${meshLink}" ip6 saddr @behind snat to ${gateway}`,
)}    oifname != { "${linkPattern}", "lo" } ip6 saddr @leaving masquerade
  }
  chain flt {
    type filter hook forward priority filter; policy accept;
${swarm(`${answerRules.isAnswer} iifname "${linkPattern}" goto answering`)}    ct state established,related accept
    ct status dnat accept
${swarm(
  `iifname "${meshLink}" oifname "${gatewayPattern}" accept`,
  `iifname "${linkPattern}" udp dport { ${dataPort}, ${tunnelDataPort} } drop`,
)}    iifname "${localPattern}" oifname "${localPattern}" ip6 saddr . ip6 daddr @lan accept
    iifname "${linkPattern}" oifname "${linkPattern}" drop
    oifname "${linkPattern}" drop
    ip6 daddr @blocks reject with icmpv6 type addr-unreachable
${forwardsForOthers ? "" : `    iifname != "${linkPattern}" oifname != "${linkPattern}" drop\n`}  }
${mesh === "open" ? "" : guardText}`;
}

/** Of a mesh that is encrypted: what has no way through it takes no other, such as the default route. */
const guardText = `  chain guard {
    type filter hook postrouting priority filter; policy accept;
    ip6 daddr @blocks oifname != { "${linkPattern}", "lo" } drop
  }
`;
