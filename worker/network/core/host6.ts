/**
 * IPv6 in the host's namespace: there while a network of this node with IPv6 has a sandbox, since it makes the host forward
 * IPv6. The table is host.ts's in small: no mesh, no gateway addresses, no resolver. [::1] cannot be rewritten, since its
 * packets leave the loopback link by no route.
 */
import type { BridgeNetwork } from "./bridges.ts";
import { gatewayLink, hostTable, linkPattern, localPattern } from "./names.ts";
import type { ElementObject, NetObject, SetFields } from "./objects.ts";

/** What of it a network of this node needs; several want the same, which is there once. */
export function bridgeObjects6(network: BridgeNetwork, forwardsForOthers: boolean): NetObject[] {
  const { subnet6, gateway6, internal, masquerade, interContainer } = network;
  if (subnet6 === undefined || gateway6 === undefined) return [];
  return [
    { type: "sysctl", path: "net/ipv6/conf/all/forwarding", value: "1" },
    { type: "table", family: "ip6", table: hostTable, text: tableText(forwardsForOthers), sets },
    { type: "address", link: gatewayLink, address: `${gateway6}/128` },
    element6("gateways", [gateway6]),
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

const portFields: SetFields = { key: ["inet_service"], data: ["ipv6_addr", "inet_service"] };

const sets: Readonly<Record<string, SetFields>> = {
  gateways: { key: ["ipv6_addr"] },
  isolated: { key: ["ipv6_addr"] },
  tcpto: portFields,
  udpto: portFields,
  sctpto: portFields,
  self: { key: ["ipv6_addr", "ipv6_addr"], data: ["ipv6_addr"] },
  blocks: { key: ["ipv6_addr"], interval: true },
  lan: { key: ["ipv6_addr", "ipv6_addr"], interval: true },
  leaving: { key: ["ipv6_addr"], interval: true },
};

/**
 * IPv6 has no reverse path filter, so the first chain is it. Both ends of a veth know each other for good: what is said with
 * link-local addresses is nobody's need, and would pass the rules about networks by.
 */
const tableText = (forwardsForOthers: boolean): string => `
  set gateways { type ipv6_addr; }
  set isolated { type ipv6_addr; }
  map tcpto { typeof tcp dport : ip6 daddr . tcp dport; }
  map udpto { typeof udp dport : ip6 daddr . udp dport; }
  map sctpto { typeof sctp dport : ip6 daddr . sctp dport; }
  map self { type ipv6_addr . ipv6_addr : ipv6_addr; }
  set blocks { type ipv6_addr; flags interval; }
  set lan { type ipv6_addr . ipv6_addr; flags interval; }
  set leaving { type ipv6_addr; flags interval; }
  chain raw {
    type filter hook prerouting priority raw; policy accept;
    iifname "${linkPattern}" ip6 saddr fe80::/10 drop
    iifname "${linkPattern}" fib saddr . iif oif missing drop
    ip6 daddr @blocks iifname != { "${linkPattern}", "lo" } drop
  }
  chain fenced {
    ct direction reply accept
    ip6 daddr @gateways icmpv6 type echo-request accept
    ip6 saddr . ip6 daddr @lan ip6 daddr != @gateways accept
    reject with icmpv6 type admin-prohibited
  }
  chain premark {
    type filter hook prerouting priority mangle; policy accept;
    iifname "${linkPattern}" ip6 saddr @isolated jump fenced
  }
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local dnat ip6 to tcp dport map @tcpto
    fib daddr type local dnat ip6 to udp dport map @udpto
    fib daddr type local dnat ip6 to sctp dport map @sctpto
  }
  chain out {
    type nat hook output priority -100; policy accept;
    ip6 daddr ::1 return
    fib daddr type local dnat ip6 to tcp dport map @tcpto
    fib daddr type local dnat ip6 to udp dport map @udpto
    fib daddr type local dnat ip6 to sctp dport map @sctpto
  }
  chain post {
    type nat hook postrouting priority srcnat; policy accept;
    snat to ip6 saddr . ip6 daddr map @self
    oifname != { "${linkPattern}", "lo" } ip6 saddr @leaving masquerade
  }
  chain flt {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    ct status dnat accept
    iifname "${localPattern}" oifname "${localPattern}" ip6 saddr . ip6 daddr @lan accept
    iifname "${linkPattern}" oifname "${linkPattern}" drop
    oifname "${linkPattern}" drop
${forwardsForOthers ? "" : `    iifname != "${linkPattern}" oifname != "${linkPattern}" drop\n`}  }
`;
