/**
 * The model of what we want of the kernel: one map of keyed objects a network namespace. Two objects with one key are two
 * states of one thing. Everything of ours carries an owner: routes and rules have protocol 200, links an ifalias
 * `skep:OWNER`, nft tables are named skep. What carries no such mark is not ours and is never looked at.
 */

import type { TunnelKey } from "./tunnel-key.ts";

/** nft families that we use. */
export type NftFamily = "ip" | "ip6" | "inet" | "netdev";

/** Names a table: family and name. */
export interface NftTableName {
  readonly family: NftFamily;
  readonly table: string;
}

/**
 * A link of this namespace. `existing` is one that something else makes (lo; the far end of a veth) and that we set up;
 * it goes with its maker and is never deleted by itself.
 */
export interface LinkObject {
  readonly type: "link";
  readonly name: string;
  readonly how:
    | { readonly kind: "existing" }
    | { readonly kind: "dummy" }
    | { readonly kind: "bridge" }
    | { readonly kind: "wireguard" }
    /** Its UDP socket is in the namespace that makes it, the host's; then it is moved here. */
    | {
        readonly kind: "vxlan";
        readonly vni: number;
        readonly local: string;
        readonly port: number;
        /** Of the host's namespace: frames leave by it and by no other, and it takes this link with it when it goes. */
        readonly lower?: string;
      }
    /** The far end is made in the other namespace at once. */
    | {
        readonly kind: "veth";
        readonly peerNamespace: string;
        readonly peerName: string;
        readonly peerMac: string;
        readonly peerMtu: number;
        /** When its far end's namespace goes, the kernel deletes it in its own time: nobody waits for that. */
        readonly isLeftToKernel?: true;
        /** Its name may be that of one which the kernel has not got round to deleting. */
        readonly mayBeLeft?: true;
      };
  /** Without `skep:`; what the link is for: a sandbox's id, a network's id. Empty with `existing`. */
  readonly owner: string;
  /** Empty: as the kernel chose. */
  readonly mac: string;
  /** 0: as it is. */
  readonly mtu: number;
  /** A bridge of this namespace; empty: none. */
  readonly master: string;
  /** Nobody needs IPv6 there: when it goes up the kernel need not make an address and look for who else has it. */
  readonly linkLocal?: false;
}

/** Of a sandbox: it is there, and set up. */
export const loopback: LinkObject = {
  type: "link",
  name: "lo",
  how: { kind: "existing" },
  owner: "",
  mac: "",
  mtu: 0,
  master: "",
};

/** CIDR; without the route of its prefix. */
export interface AddressObject {
  readonly type: "address";
  readonly link: string;
  readonly address: string;
}

export interface RouteObject {
  readonly type: "route";
  /** 254: main. */
  readonly table: number;
  /** CIDR; 0.0.0.0/0: default. */
  readonly destination: string;
  readonly link: string;
  /** Empty: on the link itself (scope link). */
  readonly via: string;
  readonly onlink: boolean;
  /** Preferred source; empty: none. */
  readonly source: string;
  /**
   * What comes by this link for the destination is this host's own (type local). IPv6 alone, where routes to one destination
   * are told apart by their metric: each link's has another.
   */
  readonly localMetric?: number;
}

/** Permanent. */
export interface NeighbourObject {
  readonly type: "neighbour";
  readonly link: string;
  readonly address: string;
  readonly mac: string;
}

/** Of a VXLAN link: frames for `mac` go to the underlay address `destination`. */
export interface FdbObject {
  readonly type: "fdb";
  readonly link: string;
  readonly mac: string;
  readonly destination: string;
}

export interface RuleObject {
  readonly type: "rule";
  /** Left out: IPv4. */
  readonly family?: "ip6";
  readonly priority: number;
  readonly mark: number;
  readonly mask: number;
  readonly table: number;
}

/** What a WireGuard link is set to. */
export interface WireguardObject {
  readonly type: "wireguard";
  readonly link: string;
  /** UDP port that it listens on. */
  readonly port: number;
  readonly key: TunnelKey;
}

/** A peer of a WireGuard link. */
export interface TunnelPeerObject {
  readonly type: "tunnel-peer";
  readonly link: string;
  readonly publicKey: string;
  /** Where it is looked for first; where it is found may be elsewhere. */
  readonly endpoint: string;
  readonly port: number;
  /** CIDR: all that it may send from, and what is sent to it. */
  readonly allowed: string;
  readonly keepaliveSeconds: number;
  /** Somebody else gave it such a key, with which it understands nobody; ours have none. */
  readonly preshared?: true;
}

/** Path below /proc/sys, with slashes. Never set back: it goes with its link or namespace, or stays. */
export interface SysctlObject {
  readonly type: "sysctl";
  readonly path: string;
  readonly value: string;
  /** A kernel without it does without it. */
  readonly optional?: true;
}

/** How a part of an element reads: integer is u32 in decimal, mark hexadecimal, inet_proto a name. */
export type FieldType =
  "ipv4_addr" | "ipv6_addr" | "ether_addr" | "inet_proto" | "inet_service" | "integer" | "mark" | "ct_zone" | "ifname";

/** The types of a set's elements, as its definition in the table's text has them. */
export interface SetFields {
  readonly key: readonly FieldType[];
  /** What it maps to; left out for a set. */
  readonly data?: readonly (FieldType | "verdict")[];
  readonly interval?: boolean;
}

/**
 * A table with its sets, maps, base chains and their rules, but without elements and without chains that are objects of
 * their own. `text` is what comes between the braces of `table FAMILY NAME { }`. A changed text replaces the whole table
 * in one transaction with all its chains and elements.
 */
export interface TableObject extends NftTableName {
  readonly type: "table";
  readonly text: string;
  /** Lines that take away chains which a table of an earlier version may have, when all is known that is wanted. */
  readonly left?: readonly string[];
  /** Of each of its sets and maps, by name. */
  readonly sets: Readonly<Record<string, SetFields>>;
}

/** A chain without a hook, a target of verdict maps. Rules in nft's words. */
export interface ChainObject extends NftTableName {
  readonly type: "chain";
  readonly chain: string;
  readonly rules: readonly string[];
  /** Its only rule in parts, if it balances: such a chain is made much faster. */
  readonly balance?: Balance;
}

/** Draws one of the first `slots` entries of a map. */
export interface Balance {
  readonly by: "ip daddr" | "ip6 daddr" | "tcp dport" | "udp dport";
  readonly map: string;
  readonly slots: number;
}

/**
 * A chain that sends a new connection to one of so many entries. Drawn anew for each connection and not in turn: chains are
 * shared by services, and callers in step would always meet the same task.
 */
export function balanceChain(table: NftTableName, chain: string, balance: Balance): ChainObject {
  const { by, map, slots } = balance;
  const family = by.endsWith("dport") ? `${table.family} ` : "";
  const rule = `dnat ${family}to ${by} . numgen random mod ${slots} map @${map}`;
  return { type: "chain", ...table, chain, rules: [rule], balance };
}

/** An element of a set or a map of one of our tables. */
export interface ElementObject extends NftTableName {
  readonly type: "element";
  readonly set: string;
  /** The parts of a concatenation, each as nft writes it: `10.0.1.100`, `8080`, `tcp`, `02:fe:00:00:00:01`, `10.1.0.0/22`. */
  readonly key: readonly string[];
  /** Parts of the data; `["goto lb3"]` in a verdict map; empty in a set. */
  readonly value: readonly string[];
}

export type NetObject =
  | LinkObject
  | WireguardObject
  | TunnelPeerObject
  | AddressObject
  | RouteObject
  | NeighbourObject
  | FdbObject
  | RuleObject
  | SysctlObject
  | TableObject
  | ChainObject
  | ElementObject;

/** What tells one object of a namespace from another. */
export function objectKey(object: NetObject): string {
  switch (object.type) {
    case "link":
      return `link ${object.name}`;
    case "wireguard":
      return `wireguard ${object.link}`;
    case "tunnel-peer":
      return `tunnel-peer ${object.link} ${object.publicKey}`;
    case "address":
      return `address ${object.link} ${object.address}`;
    case "route":
      return `route ${object.table} ${object.destination}${object.localMetric === undefined ? "" : ` metric ${object.localMetric}`}`;
    case "neighbour":
      return `neighbour ${object.link} ${object.address}`;
    case "fdb":
      return `fdb ${object.link} ${object.mac}`;
    case "rule":
      return `rule ${object.family === "ip6" ? "ip6 " : ""}${object.priority} ${object.mark}/${object.mask}`;
    case "sysctl":
      return `sysctl ${object.path}`;
    case "table":
      return `table ${object.family} ${object.table}`;
    case "chain":
      return `chain ${object.family} ${object.table} ${object.chain}`;
    case "element":
      return `element ${object.family} ${object.table} ${object.set} ${object.key.join(" . ")}`;
  }
}

/**
 * The order of applying: what stands on another comes after it, and goes before it. Sysctls that links inherit are first,
 * those of a link follow it; elements of verdict maps are last, since they switch traffic on; routes stand before all elements.
 */
export function rankOf(object: NetObject): number {
  switch (object.type) {
    case "link":
      return object.how.kind === "bridge" || object.how.kind === "wireguard" ? 1 : 2;
    case "sysctl":
      return /^net\/ipv[46]\/(conf|neigh)\/(?!all\/|default\/)/.test(object.path) ? 3 : 0;
    case "wireguard":
      return 3;
    case "address":
      return 4;
    case "tunnel-peer":
    case "neighbour":
    case "fdb":
      return 5;
    case "route":
      // A gateway's own route before the routes through it.
      return object.via === "" ? 6 : 7;
    case "rule":
      return 8;
    case "table":
      return 9;
    case "chain":
      return 10;
    case "element":
      return isVerdict(object) ? 12 : 11;
  }
}

const isVerdict = (element: ElementObject): boolean => /^(goto|jump) /.test(element.value[0] ?? "");

/** Same state: nothing is to be done. Both have one key. */
export function sameObject(a: NetObject, b: NetObject): boolean {
  return stateText(a) === stateText(b);
}

function stateText(object: NetObject): string {
  switch (object.type) {
    case "link":
      return JSON.stringify([object.how, object.owner, object.mac, object.mtu, object.master, object.linkLocal]);
    case "wireguard":
      return `${object.port} ${object.key.publicKey}`;
    case "tunnel-peer":
      return `${object.endpoint} ${object.port} ${object.allowed} ${object.keepaliveSeconds}`;
    case "address":
      return "";
    case "route":
      return `${object.link} ${object.via} ${object.onlink} ${object.source}`;
    case "neighbour":
      return object.mac;
    case "fdb":
      return object.destination;
    case "rule":
      return String(object.table);
    case "sysctl":
      return object.value;
    case "table":
      return object.text;
    case "chain":
      return object.rules.join("\n");
    case "element":
      return object.value.join(" . ");
  }
}
