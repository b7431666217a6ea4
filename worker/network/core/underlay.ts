/**
 * What carries frames between nodes, where it is IPv6. All nodes of a cluster have one family for it, since a VXLAN link has
 * one; managers let no other in. Decision: docs/adr/0045-one-family-of-the-underlay.md.
 * The guard is a table of its own beside `ip6 skep`, which is there only while something else on the node has use of IPv6.
 */
import { isV6 } from "./cidr6.ts";
import { linkPattern, underlayTable } from "./names.ts";
import type { ElementObject, TableObject } from "./objects.ts";
import { tunnelDataPort, tunnelPort } from "./tunnel.ts";

/** Whether two nodes can send each other frames. @param a,b  where they are sent */
export const sameFamily = (a: string, b: string): boolean => isV6(a) === isV6(b);

/** RFC 8200 §5: with less a link has no IPv6. */
export const mtuMin6 = 1280;

/** By how much an outer header of IPv6 is longer than the one of IPv4 that is counted elsewhere. */
export const longerHeaderBytes = (underlay: string): number => (isV6(underlay) ? 20 : 0);

/** Outer Ethernet, IP, UDP and VXLAN headers. */
export const vxlanBytes = (underlay: string): number => 50 + longerHeaderBytes(underlay);

const table = { family: "ip6", table: underlayTable } as const;

/** Of one node of the cluster, this one included. */
export const nodeElement6 = (address: string): ElementObject => ({
  type: "element",
  ...table,
  set: "peers",
  key: [address],
  value: [],
});

/**
 * Frames only from nodes, and from none of our links, since masquerading makes a container look like its node. WireGuard knows
 * its peers itself; what is inside of the tunnel is IPv4. As in host.ts, the first rules let frames between nodes by.
 * @param underlay  where frames come to this node
 * @param dataPort  UDP port of VXLAN
 */
export const underlayGuard = (underlay: string, dataPort: number): TableObject => ({
  type: "table",
  ...table,
  text: `
  set peers { type ipv6_addr; }
  chain untracked {
    notrack
  }
  chain vxlan {
    udp dport ${tunnelPort} goto untracked
    udp dport ${tunnelDataPort} drop
    ip6 saddr != @peers drop
    iifname "${linkPattern}" drop
    notrack
  }
  chain raw {
    type filter hook prerouting priority raw; policy accept;
    udp dport ${dataPort} ip6 daddr ${underlay} ip6 saddr @peers iifname != "${linkPattern}" notrack accept
    udp dport { ${dataPort}, ${tunnelPort}, ${tunnelDataPort} } fib daddr type local goto vxlan
  }
  chain rawout {
    type filter hook output priority raw; policy accept;
    udp dport ${dataPort} ip6 saddr ${underlay} ip6 daddr @peers notrack accept
    udp dport { ${dataPort}, ${tunnelPort} } ip6 daddr @peers notrack
  }
  chain flt {
    type filter hook forward priority filter; policy accept;
    iifname "${linkPattern}" udp dport { ${dataPort}, ${tunnelDataPort} } drop
  }
`,
  sets: { peers: { key: ["ipv6_addr"] } },
});
