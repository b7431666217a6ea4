/** From what was seen of this node's network to what is wrong with it and what to do. Pure. */
import { mtuMin6, vxlanBytes } from "./underlay.ts";

/** How a host answers a probe; a silent one may drop it. */
export type Answer = "answers" | "silent";

export interface PeerProbe {
  readonly nodeId: string;
  readonly number: number;
  readonly addr: string;
  /** Whether its underlay address answers at all: with ICMP, to a port that nobody has. */
  readonly underlay: Answer;
  /** Through the mesh's VXLAN, with a small packet and with one of `mtu` bytes. */
  readonly small: Answer;
  readonly full: Answer;
  /** The same as `full` by IPv6; left out where the mesh has none. */
  readonly full6?: Answer;
  /** Of the small one; undefined: none came back. */
  readonly roundTripMs: number | undefined;
}

/** Another node in the tunnel of encrypted networks, as far as this node has need of it. */
export interface TunnelPeer {
  readonly nodeId: string;
  readonly addr: string;
  /** When both last proved who they are, in seconds since 1970; undefined: never. */
  readonly handshakeSeconds: number | undefined;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** One thing of the kernel that is not as it should be. */
export interface Difference {
  /** Empty: the host's. */
  readonly namespace: string;
  readonly what: "missing" | "wrong" | "surplus";
  /** The object, as its key names it. */
  readonly object: string;
}

export interface Observations {
  readonly nodeId: string;
  /** 0: in no swarm. */
  readonly number: number;
  readonly addr: string;
  /** Of the mesh's links. */
  readonly mtu: number;
  /** The mesh has IPv6. */
  readonly hasMesh6: boolean;
  /** Of the link that carries the mesh; 0: not known. */
  readonly linkMtu: number;
  /** Why this node builds no networks; undefined: it does. */
  readonly refusal: { readonly message: string; readonly fix: string } | undefined;
  readonly differences: readonly Difference[];
  /** What is still there after a repair. */
  readonly unrepaired: readonly Difference[];
  readonly peers: readonly PeerProbe[];
  /** undefined: this node is on no encrypted network. */
  readonly tunnel: readonly TunnelPeer[] | undefined;
  /** Nodes that cannot be on encrypted networks, by id. */
  readonly keyless: readonly string[];
  /** Since 1970. */
  readonly nowSeconds: number;
  /** Ports of services that a process of the host has: `tcp/8080`. */
  readonly refusedPorts: readonly string[];
  readonly firewall: readonly string[];
  /** Addresses at which names should be served and are not, and why. */
  readonly unserved: readonly { readonly address: string; readonly why: string }[];
  /** Nodes whose frames go by the other family of IP than this one's. */
  readonly strangers: readonly { readonly nodeId: string; readonly addr: string }[];
  readonly connections: { readonly count: number; readonly max: number } | undefined;
}

export interface Finding {
  readonly severity: "error" | "warning" | "note";
  /** Stable, for programs. */
  readonly kind: string;
  readonly found: string;
  readonly fix: string;
}

/** Above this share of the connections that the kernel remembers, new ones may soon be dropped. */
const crowdedShare = 0.8;
/** After so long without a handshake WireGuard takes nothing of a peer any more (REJECT_AFTER_TIME), and some for the clock. */
const handshakeSecondsMax = 200;
/** Differences told one by one; more are counted. */
const shownMax = 20;

export function diagnose(seen: Observations): readonly Finding[] {
  if (seen.refusal !== undefined) {
    const { message, fix } = seen.refusal;
    return [{ severity: "error", kind: "networks-unavailable", found: message, fix }];
  }
  return [
    ...(seen.differences.length === 0 ? [] : differences(seen)),
    ...seen.peers.flatMap((peer) => pathTo(peer, seen)),
    ...seen.strangers.map(({ nodeId, addr }) => ({
      severity: "error" as const,
      kind: "other-family",
      found: `no network leads to node ${nodeId}: its frames go to ${addr}, and those of this node to ${seen.addr}`,
      fix: "Let that node leave, and join it with --data-path-addr and an address of the family that the other nodes have",
    })),
    ...inTunnel(seen),
    ...underlayMtu(seen),
    ...seen.unserved.map(({ address, why }) => ({
      severity: "error" as const,
      kind: "names-unserved",
      found: `containers that ask ${address} for names get no answer: ${why}`,
      fix: "Let the host's own DNS server listen at single addresses instead of all",
    })),
    ...seen.refusedPorts.map((port) => ({
      severity: "error" as const,
      kind: "port-taken",
      found: `a process of this host has port ${port}, which a service publishes`,
      fix: "Stop that process or publish another port; other nodes serve the port meanwhile",
    })),
    ...seen.firewall.map((found) => ({
      severity: "error" as const,
      kind: "firewall",
      found,
      fix: "Accept traffic of links named skep* there",
    })),
    ...crowded(seen),
  ];
}

function differences({ differences: found, unrepaired }: Observations): readonly Finding[] {
  const left = new Set(unrepaired.map(textOf));
  const told = found.slice(0, shownMax).map((difference): Finding => {
    const text = textOf(difference);
    return left.has(text)
      ? {
          severity: "error",
          kind: "kernel-differs",
          found: `${text}, and putting it right failed`,
          fix: "Look in skepd's log for what the kernel says, and for who else changes the network",
        }
      : {
          severity: "warning",
          kind: "kernel-differed",
          found: `${text}; put right`,
          fix: "Find out who changed it: it was not skep",
        };
  });
  const more = found.length - told.length;
  if (more === 0) return told;
  return [
    ...told,
    { severity: "warning", kind: "kernel-differed", found: `and ${more} more differences`, fix: "See the first ones" },
  ];
}

const textOf = ({ namespace, what, object }: Difference): string =>
  `${object} is ${what} in ${namespace === "" ? "the host's network" : namespace}`;

function pathTo(peer: PeerProbe, { mtu, addr }: Observations): readonly Finding[] {
  const { nodeId, addr: other } = peer;
  const name = `node ${nodeId} (${other})`;
  if (peer.full === "answers") {
    if (peer.full6 !== "silent") return [];
    return [
      {
        severity: "error",
        kind: "ipv6-blocked",
        found: `${name} answers through VXLAN by IPv4, and not by IPv6, which the ingress network has`,
        fix: "Find what drops IPv6 on the two hosts (`nft list ruleset`, `ip6tables -S`), and accept what comes and leaves by links named skep*, ICMPv6 included",
      },
    ];
  }
  if (peer.small === "answers") {
    return [
      {
        severity: "error",
        kind: "mtu-too-large",
        found: `packets of ${mtu} bytes do not reach ${name}, small ones do: the path carries less than ${mtu + vxlanBytes(addr)} bytes`,
        fix:
          `Find what the path carries with \`ping -M do -s SIZE ${other}\`, and raise it there or lower the MTU of the link of ${addr}; ` +
          "or create networks with --opt com.docker.network.driver.mtu",
      },
    ];
  }
  if (peer.underlay === "answers") {
    return [
      {
        severity: "error",
        kind: "vxlan-blocked",
        found: `${name} answers, but nothing comes back through VXLAN`,
        fix: `Open UDP port 4789 between ${addr} and ${other}, in both directions, on both hosts and on what is in between (security groups)`,
      },
    ];
  }
  return [
    {
      severity: "error",
      kind: "node-unreachable",
      found: `${name} answers neither to its address nor through VXLAN`,
      fix: `Check that the host is up, that there is a route to ${other}, and that no firewall drops everything from ${addr}`,
    },
  ];
}

function inTunnel({ tunnel, keyless, nowSeconds, addr }: Observations): readonly Finding[] {
  if (tunnel === undefined) return [];
  const silent = tunnel.filter(
    ({ handshakeSeconds }) => handshakeSeconds === undefined || nowSeconds - handshakeSeconds > handshakeSecondsMax,
  );
  return [
    ...silent.map(({ nodeId, addr: other }) => ({
      severity: "error" as const,
      kind: "tunnel-silent",
      found: `no tunnel to node ${nodeId} (${other}): encrypted networks do not reach it`,
      fix: `Open UDP port 2377 between ${addr} and ${other}, in both directions, on both hosts and on what is in between (security groups)`,
    })),
    ...(keyless.length === 0
      ? []
      : [
          {
            severity: "note" as const,
            kind: "nodes-without-wireguard",
            found: `encrypted networks do not reach ${keyless.length === 1 ? "node" : "nodes"} ${keyless.join(", ")}: no WireGuard there`,
            fix: "Tasks of encrypted networks are not placed there; for that, give those hosts a kernel with WireGuard and restart skepd",
          },
        ]),
  ];
}

function underlayMtu({ mtu, addr, linkMtu, number, hasMesh6 }: Observations): readonly Finding[] {
  const narrow: readonly Finding[] =
    number === 0 || !hasMesh6 || mtu >= mtuMin6
      ? []
      : [
          {
            severity: "error",
            kind: "mtu-too-small-for-ipv6",
            found: `links of the mesh carry ${mtu} bytes, and IPv6, which the ingress network has, needs ${mtuMin6}: published ports are not reached by IPv6`,
            fix: `Raise the MTU of the hosts' links by ${mtuMin6 - mtu} bytes and restart skepd, or make the ingress network again without --ipv6`,
          },
        ];
  if (number === 0 || linkMtu === 0 || linkMtu >= mtu + vxlanBytes(addr)) return narrow;
  return [
    ...narrow,
    {
      severity: "error",
      kind: "link-mtu-too-small",
      found: `the link of this node carries ${linkMtu} bytes, and the mesh needs ${mtu + vxlanBytes(addr)}`,
      fix: "Raise the link's MTU, or restart skepd so that all nodes learn the smaller one",
    },
  ];
}

function crowded({ connections }: Observations): readonly Finding[] {
  if (connections === undefined || connections.count < connections.max * crowdedShare) return [];
  return [
    {
      severity: "warning",
      kind: "connections-crowded",
      found: `the host remembers ${connections.count} of at most ${connections.max} connections`,
      fix: "Raise net.netfilter.nf_conntrack_max with sysctl, before new connections are dropped",
    },
  ];
}
