/**
 * The host's namespace: its addresses in the blocks, the mesh's VXLAN and its way back, and the two nft tables whose maps
 * the other files fill. What is here changes only when the node joins, leaves or gets another address.
 */
import { gatewayRange, meshVni, nodeAddresses, nodeMarkBase, nodeMarkMask } from "../../../lib/pure/node-number.ts";

import { formatAddress, parseCidr } from "./cidr.ts";
import { isV6 } from "./cidr6.ts";
import {
  gatewayLink,
  gatewayPattern,
  hostTable,
  insideResolver,
  linkPattern,
  localPattern,
  meshLink,
} from "./names.ts";
import type { ElementObject, NetObject, SetFields } from "./objects.ts";
import type { Range } from "./pools.ts";
import type { PeerRecord } from "./records.ts";
import {
  isReachable,
  tunnelDataPort,
  tunnelLink,
  tunnelOverheadBytes,
  tunnelPeerObjects,
  tunnelPort,
} from "./tunnel.ts";
import { nodeElement6, underlayGuard } from "./underlay.ts";

export interface HostFacts {
  /** Of this node; 0: in no swarm, or none given yet. */
  readonly number: number;
  /** Where this node's VXLAN frames leave and arrive; empty with number 0. */
  readonly underlay: string;
  /** UDP port of VXLAN. */
  readonly dataPort: number;
  /** Of the mesh: what the underlay carries less VXLAN's 50 bytes. */
  readonly mtu: number;
  /** "closed": it would have to be the tunnel, and this node has none. */
  readonly mesh: "open" | "tunnel" | "closed";
  /** The mesh carries IPv6 as well. */
  readonly has6: boolean;
  /** The host routed for others before we switched forwarding on: what is not ours is none of our business. */
  readonly forwardsForOthers: boolean;
}

export const markText = (mark: number): string => `0x${mark.toString(16).padStart(8, "0")}`;

/**
 * The block of number 0. Every node has it for itself, whether in a swarm or not, and no other node routes to it:
 * containers of the user's get their gateway addresses here and keep them when the node joins, leaves or joins another swarm.
 */
const ownFirst = parseCidr(gatewayRange)?.first ?? 0;
export const ownBlock = `${formatAddress(ownFirst)}/22`;
export const ownGateway = formatAddress(ownFirst + 1);

/** The node's address for what goes into the mesh, and for the names that its tasks ask for. */
export const gatewayOf = (number: number): string => (number === 0 ? ownGateway : nodeAddresses(number).gatewayAddress);

/** What sandboxes of this node may have: neither the first address, the node's own, nor one of no host. */
export function gatewayAddresses(number: number): Range {
  const first = ownFirst + number * 1024;
  return { first: first + 2, last: first + 1022 };
}

export function hostObjects(facts: HostFacts): NetObject[] {
  return [
    // A bridge without ports: a link of our own for addresses, on every kernel. On lo they would be picked as source for
    // others' unnumbered links.
    { type: "link", name: gatewayLink, how: { kind: "bridge" }, owner: "host", mac: "", mtu: 0, master: "" },
    { type: "address", link: gatewayLink, address: `${ownGateway}/32` },
    { type: "sysctl", path: "net/ipv4/ip_forward", value: "1" },
    {
      type: "table",
      family: "ip",
      table: hostTable,
      text: hostTableText(facts),
      sets: hostSets,
      left: answerRules.leftChain("ip"),
    },
    element("gateways", [ownGateway]),
    element("blocks", [ownBlock]),
    element("leaving", [ownBlock]),
    element("behind", [ownBlock]),
    ...(facts.number > 0 && isV6(facts.underlay) ? [underlayGuard(facts.underlay, facts.dataPort)] : []),
    ...(facts.number === 0 || facts.mesh === "closed" ? [] : meshObjects(facts)),
  ];
}

function meshObjects({ number, underlay, dataPort, mtu, mesh, has6 }: HostFacts): NetObject[] {
  const { mac, gatewayAddress, gatewayBlock, tunnelAddress } = nodeAddresses(number);
  const isTunnelled = mesh === "tunnel";
  const conf = `net/ipv4/conf/${meshLink}`;
  return [
    {
      type: "link",
      name: meshLink,
      how: isTunnelled
        ? { kind: "vxlan", vni: meshVni, local: tunnelAddress, port: tunnelDataPort, lower: tunnelLink }
        : { kind: "vxlan", vni: meshVni, local: underlay, port: dataPort },
      owner: "mesh",
      mac,
      mtu: isTunnelled ? mtu - tunnelOverheadBytes : mtu,
      master: "",
    },
    // Loose reverse path filtering still drops on a link without an address; clients are behind no link in particular.
    { type: "address", link: meshLink, address: `${gatewayAddress}/32` },
    { type: "sysctl", path: `${conf}/rp_filter`, value: "2" },
    { type: "sysctl", path: `${conf}/route_localnet`, value: "1" },
    has6
      ? { type: "sysctl", path: `net/ipv6/conf/${meshLink}/disable_ipv6`, value: "0" }
      : { type: "sysctl", path: `net/ipv6/conf/${meshLink}/disable_ipv6`, value: "1", optional: true },
    element("gateways", [gatewayAddress]),
    element("leaving", [gatewayBlock]),
  ];
}

/** One node of the cluster, this one included. */
export function peerObjects(peer: PeerRecord, ownNumber: number, mesh: HostFacts["mesh"] = "open"): NetObject[] {
  const { mac, mark, zone, gatewayAddress, gatewayBlock, tunnelAddress } = nodeAddresses(peer.number);
  const is6 = isV6(peer.addr);
  const known: NetObject[] = [
    is6 ? nodeElement6(peer.addr) : element("peers", [peer.addr]),
    element("blocks", [gatewayBlock]),
    ...(is6 ? (peer.addresses4 ?? []) : [peer.addr]).map((address) => element("bounce", [address, gatewayBlock])),
    // A set beside the map: older kernels (6.1) refuse to be asked who is in a map.
    element("members", [mac]),
    element("entry", [mac], [markText(mark)]),
    element("zones", [mac], [String(zone)]),
  ];
  if (peer.number === ownNumber || mesh === "closed") return known;
  if (mesh === "tunnel" && !isReachable(peer)) return known;
  return [
    ...known,
    ...(mesh === "tunnel" ? tunnelPeerObjects(peer) : []),
    { type: "fdb", link: meshLink, mac, destination: mesh === "tunnel" ? tunnelAddress : peer.addr },
    { type: "neighbour", link: meshLink, address: gatewayAddress, mac },
    element("hops", [markText(mark)], [gatewayAddress]),
    {
      type: "route",
      table: 254,
      destination: gatewayBlock,
      link: meshLink,
      via: gatewayAddress,
      onlink: true,
      source: "",
    },
  ];
}

export const element = (set: string, key: readonly string[], value: readonly string[] = []): ElementObject => ({
  type: "element",
  family: "ip",
  table: hostTable,
  set,
  key,
  value,
});

/**
 * What H does with the answer to a connection that came through E: while its way is looked for it is for E's gateway address,
 * which is behind the mesh, and after that for the client again. A rule of the kernel's own for that (ip-rule(8)) would make
 * each look-up of a route on this host take the long way for good (docs/adr/0046). It begins after addresses are translated back, and
 * ends before anybody's filters of forwarding that come after ours.
 */
export const answerRules = {
  isAnswer: `ct mark & ${markText(nodeMarkMask)} == ${markText(nodeMarkBase)} ct direction reply`,
  /** Of no use any more; a daemon of before left it. */
  leftChain: (family: "ip" | "ip6"): readonly string[] => [
    `add chain ${family} ${hostTable} premark { type filter hook prerouting priority mangle; }`,
    `flush chain ${family} ${hostTable} premark`,
    `delete chain ${family} ${hostTable} premark`,
  ],
};

/**
 * Sets and maps, and who fills them:
 * ports, bound    published ports on all addresses and on one           (mesh.ts, host-side.ts)
 * lead            for a number of slots, their chain                    (slots.ts)
 * tcpbe .. sctpto their tasks by slot, and by address                   (same)
 * self            local addresses, each beside itself: hairpins         (routed-veth.ts)
 * isolated        addresses that may leave only to their own network    (routed-veth.ts)
 * gateways        addresses of this node in blocks and local networks   (here, bridge.ts)
 * blocks          what nobody outside may send to                       (here, bridge.ts)
 * lan             local networks, each beside itself                    (bridge.ts)
 * leaving         what is masqueraded on its way out                    (here, bridge.ts)
 * behind          what other nodes cannot answer to                     (here, bridge.ts)
 * peers .. zones  nodes of the cluster                                  (peerObjects; of those at IPv6 `peers` is in underlay.ts)
 * hops            by the mark of a node, where answers to it go         (peerObjects)
 */
const hostSets: Readonly<Record<string, SetFields>> = {
  ports: { key: ["inet_proto", "inet_service"], data: ["integer"] },
  lead: { key: ["inet_proto", "integer"], data: ["verdict"] },
  bound: { key: ["ipv4_addr", "inet_proto", "inet_service"], data: ["verdict"] },
  tcpbe: { key: ["inet_service", "integer"], data: ["ipv4_addr", "inet_service"] },
  udpbe: { key: ["inet_service", "integer"], data: ["ipv4_addr", "inet_service"] },
  sctpbe: { key: ["inet_service", "integer"], data: ["ipv4_addr", "inet_service"] },
  tcpto: { key: ["ipv4_addr", "inet_service"], data: ["ipv4_addr", "inet_service"] },
  udpto: { key: ["ipv4_addr", "inet_service"], data: ["ipv4_addr", "inet_service"] },
  sctpto: { key: ["ipv4_addr", "inet_service"], data: ["ipv4_addr", "inet_service"] },
  self: { key: ["ipv4_addr", "ipv4_addr"] },
  isolated: { key: ["ipv4_addr"] },
  gateways: { key: ["ipv4_addr"] },
  blocks: { key: ["ipv4_addr"], interval: true },
  lan: { key: ["ipv4_addr", "ipv4_addr"], interval: true },
  leaving: { key: ["ipv4_addr"], interval: true },
  behind: { key: ["ipv4_addr"], interval: true },
  peers: { key: ["ipv4_addr"] },
  bounce: { key: ["ipv4_addr", "ipv4_addr"], interval: true },
  members: { key: ["ether_addr"] },
  entry: { key: ["ether_addr"], data: ["mark"] },
  zones: { key: ["ether_addr"], data: ["ct_zone"] },
  hops: { key: ["mark"], data: ["ipv4_addr"] },
};

/** What sandboxes ask 127.0.0.11; routed-veth.ts leads it here. */
const namesOfSandboxes = `iifname { "${gatewayPattern}", "${localPattern}" } ip daddr ${insideResolver} meta l4proto { tcp, udp } th dport 53`;

/**
 * Every packet of the host passes the chains with a hook, and those of an overlay pass them once more inside of a frame. So
 * each begins with what tells strangers from ours, and what concerns ours alone is in chains of its own. The
 * first rule of `raw` and of `rawout` lets frames between nodes by, which most packets of a busy host are, without asking
 * for a route; whatever it does not know is judged by those after it. `nobody` refuses for ports without a task, before
 * another firewall may be silent; the host's own programs are refused by the kernel. Frames of encrypted networks come and
 * go by the tunnel alone, and nothing else does (chains tunnelin, ours, tunnelout): whatever runs, these stand.
 */
export function hostTableText({ number, underlay, dataPort, mesh, forwardsForOthers }: HostFacts): string {
  const inSwarm = number > 0;
  const gateway = gatewayOf(number);
  const tunnel = inSwarm ? nodeAddresses(number).tunnelAddress : "";
  const swarm = (...lines: readonly string[]): string => (inSwarm ? lines.map((line) => `    ${line}\n`).join("") : "");
  const frames = (...lines: readonly string[]): string => (underlay.includes(".") ? swarm(...lines) : "");
  return `
  map ports { type inet_proto . inet_service : classid; }
  map lead { type inet_proto . classid : verdict; }
  map bound { type ipv4_addr . inet_proto . inet_service : verdict; }
  map tcpbe { typeof tcp dport . numgen random mod 65536 : ip daddr . tcp dport; }
  map udpbe { typeof udp dport . numgen random mod 65536 : ip daddr . udp dport; }
  map sctpbe { typeof sctp dport . numgen random mod 65536 : ip daddr . sctp dport; }
  map tcpto { typeof ip daddr . tcp dport : ip daddr . tcp dport; }
  map udpto { typeof ip daddr . udp dport : ip daddr . udp dport; }
  map sctpto { typeof ip daddr . sctp dport : ip daddr . sctp dport; }
  set self { type ipv4_addr . ipv4_addr; }
  set isolated { type ipv4_addr; }
  set gateways { type ipv4_addr; }
  set blocks { type ipv4_addr; flags interval; }
  set lan { type ipv4_addr . ipv4_addr; flags interval; }
  set leaving { type ipv4_addr; flags interval; }
  set behind { type ipv4_addr; flags interval; }
  set peers { type ipv4_addr; }
  set bounce { type ipv4_addr . ipv4_addr; flags interval; }
  set members { type ether_addr; }
  map entry { type ether_addr : mark; }
  map zones { typeof ether saddr : ct zone; }
  map hops { type mark : ipv4_addr; }
  chain untracked {
    notrack
  }
  chain tunnelin {
    udp dport ${tunnelPort} goto untracked
    iifname != "${tunnelLink}" drop
${swarm(`ip daddr != ${tunnel} drop`)}    notrack
  }
  chain vxlan {
${swarm(`udp dport != ${dataPort} goto tunnelin`)}    ip saddr != @peers drop
    iifname "${linkPattern}" drop
    iifname != "lo" ip daddr 127.0.0.0/8 drop
    notrack
  }
  chain inside {
    ${namesOfSandboxes} accept
    drop
  }
  chain ours {
${swarm(`iifname "${tunnelLink}" drop`)}    ip saddr 127.0.0.0/8 drop
    ip daddr 127.0.0.0/8 goto inside
${swarm(`iifname "${meshLink}" ct original zone set ether saddr map @zones`)}  }
  chain raw {
    type filter hook prerouting priority raw; policy accept;
${frames(
  `udp dport ${dataPort} ip daddr ${underlay} ip saddr @peers iifname != "${linkPattern}" notrack accept`,
)}${swarm(`udp dport { ${dataPort}, ${tunnelPort}, ${tunnelDataPort} } fib daddr type local goto vxlan`)}    iifname "${linkPattern}" goto ours
    iifname "lo" accept
    ip daddr 127.0.0.0/8 drop
    ip daddr @blocks drop
  }
  chain tunnelout {
    oifname != { "${tunnelLink}", "lo" } drop
    notrack
  }
  chain rawout {
    type filter hook output priority raw; policy accept;
${frames(`udp dport ${dataPort} ip saddr ${underlay} ip daddr @peers notrack accept`)}${swarm(`ip saddr ${tunnel} goto tunnelout`, `udp dport { ${dataPort}, ${tunnelPort} } ip daddr @peers notrack`)}  }
  chain fenced {
    ct direction reply accept
    ip daddr @gateways icmp type echo-request accept
    ip daddr @gateways meta l4proto { tcp, udp } th dport 53 accept
    ip saddr . ip daddr @lan ip daddr != @gateways accept
    reject with icmp type net-prohibited
  }
  chain entering {
${swarm(`ether saddr != @members drop`, `ct direction original ct mark 0 ct mark set ether saddr map @entry`)}  }
  chain arriving {
    type filter hook prerouting priority dstnat + 10; policy accept;
    iifname != "${linkPattern}" accept
${swarm(`iifname "${meshLink}" goto entering`, `${answerRules.isAnswer} ip daddr set ct mark map @hops`)}    ip saddr @isolated jump fenced
  }
  chain answering {
    oifname != "${meshLink}" drop
    ip daddr set ct original ip saddr accept
  }
  chain nobody {
    oifname "lo" accept
    meta l4proto tcp reject with tcp reset
    reject with icmp type port-unreachable
  }
  chain tcpone {
    dnat ip to ip daddr . tcp dport map @tcpto
  }
  chain udpone {
    dnat ip to ip daddr . udp dport map @udpto
  }
  chain sctpone {
    dnat ip to ip daddr . sctp dport map @sctpto
  }
  chain leading {
    meta l4proto . meta priority vmap @lead
  }
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr @gateways meta l4proto { tcp, udp } th dport 53 accept
    ${namesOfSandboxes} dnat to ${ownGateway}
    ip saddr @isolated accept
    iifname != "${meshLink}" fib daddr type local ip daddr . meta l4proto . th dport vmap @bound
    iifname != "${meshLink}" fib daddr type local meta priority set meta l4proto . th dport map @ports goto leading
  }
  chain out {
    type nat hook output priority -100; policy accept;
    ip daddr @gateways meta l4proto { tcp, udp } th dport 53 accept
    fib daddr type local ip daddr . meta l4proto . th dport vmap @bound
    fib daddr type local meta priority set meta l4proto . th dport map @ports goto leading
  }
  chain post {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${linkPattern}" ip saddr 127.0.0.0/8 snat to ${gateway}
    ip saddr . ip daddr @self snat to ${gateway}
${swarm(
  `oifname "${meshLink}" ip saddr . ip daddr @bounce snat to ${gateway}`,
  `oifname "${meshLink}" ip saddr @behind snat to ${gateway}`,
)}    oifname != { "${linkPattern}", "lo" } ip saddr @leaving masquerade
  }
  chain flt {
    type filter hook forward priority filter; policy accept;
${swarm(`${answerRules.isAnswer} iifname "${linkPattern}" goto answering`)}    ct state established,related accept
    ct status dnat accept
${swarm(
  `iifname "${meshLink}" oifname "${gatewayPattern}" accept`,
  `iifname "${linkPattern}" udp dport { ${dataPort}, ${tunnelDataPort} } drop`,
)}    iifname "${localPattern}" oifname "${localPattern}" ip saddr . ip daddr @lan accept
    iifname "${linkPattern}" oifname "${linkPattern}" drop
    oifname "${linkPattern}" drop
    ip daddr @blocks reject with icmp type host-unreachable
${forwardsForOthers ? "" : `    iifname != "${linkPattern}" oifname != "${linkPattern}" drop\n`}  }
${mesh === "open" ? "" : guardText}`;
}

/** Of a mesh that is encrypted: what has no way through it takes no other, such as the default route. */
const guardText = `  chain guard {
    type filter hook postrouting priority filter; policy accept;
    ip daddr @blocks oifname != { "${linkPattern}", "lo" } drop
  }
`;
