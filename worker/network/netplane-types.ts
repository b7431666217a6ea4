/**
 * What the native program `netplane` can be asked, and what it answers (docs/design/netplane.md).
 * Addresses are text ("10.0.1.11", "fe80::1"), prefixes have a length ("10.0.1.0/24"), hardware addresses are six lower-case
 * pairs with colons, links are named by their name in the batch's namespace. What a dump gives back has the shape, and the
 * spelling, of what the operation that makes it takes: a field that has its default is left out, so that two can be compared.
 */

/** Path of a bound namespace file, or "" for the namespace that netplane itself lives in. */
export type NamespacePath = string;

/** errno(3) by name, such as "EEXIST". */
export type ErrnoName = string;

/** Failures that are fine for this operation: what repair and adoption say to find a thing made, or gone, already. */
interface Tolerant {
  readonly ignore?: readonly ErrnoName[];
}

/** veth: its other end is made with it, straight in `peer.namespace` ("" is the one netplane lives in; left out: the same). */
interface VethPeer {
  readonly name: string;
  readonly namespace?: NamespacePath;
  readonly mac?: string;
  readonly mtu?: number;
}

interface LinkBase {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  /** Name of the bridge that it is a port of. */
  readonly master?: string;
  readonly up?: boolean;
  /** IPv6 gives it no link-local address of its own making (and so looks for nobody who has it). Not together with `target`. */
  readonly linkLocal?: false;
  /** Owner of the link, `skep:ID`: what makes it ours in a dump. Not together with `target`: set it there. */
  readonly alias?: string;
  /**
   * Made in this namespace instead of the batch's; not for veth, whose peer says where it goes. A vxlan or wireguard link
   * made so keeps its UDP socket in the batch's namespace. `up`, `alias` and `master` are then set there. Its name must be
   * free in both namespaces: the kernel looks in the one it is asked from, too.
   */
  readonly target?: NamespacePath;
}

export type LinkToAdd =
  | (LinkBase & { readonly kind: "dummy" | "bridge" | "wireguard" })
  | (LinkBase & { readonly kind: "veth"; readonly peer: VethPeer })
  | (LinkBase & {
      readonly kind: "vxlan";
      /** VNI, 24 bits. */
      readonly vni: number;
      /** Address of this end of the tunnel. */
      readonly local: string;
      /** UDP port; 4789 when left out. */
      readonly port?: number;
      /** Learning is off unless asked for. */
      readonly learning?: boolean;
      /** Its frames leave by this link of the batch's namespace and by no other; with that link it is deleted, too. */
      readonly link?: string;
    });

export interface LinkChange {
  readonly name: string;
  readonly up?: boolean;
  /** As with `link-add`; before it goes up. */
  readonly linkLocal?: false;
  readonly mtu?: number;
  readonly mac?: string;
  /** "" takes it out of its bridge. */
  readonly master?: string;
  readonly alias?: string;
  readonly rename?: string;
}

export interface Link {
  readonly name: string;
  readonly index: number;
  /** Left out for hardware. */
  readonly kind?: string;
  readonly up: boolean;
  readonly mtu: number;
  readonly mac?: string;
  readonly master?: string;
  readonly alias?: string;
  /** vxlan only. */
  readonly vni?: number;
  readonly local?: string;
  readonly port?: number;
  readonly learning?: boolean;
  /** Index of the link that carries its frames, in the namespace of its socket; left out: the routes decide. */
  readonly lower?: number;
}

export interface Address {
  /** With its prefix length. */
  readonly address: string;
  readonly link: string;
  /** The kernel makes no route to the prefix. */
  readonly noPrefixRoute?: boolean;
}

export interface Route {
  /** "0.0.0.0/0" is the default route. */
  readonly destination: string;
  /** unicast when left out. */
  readonly type?: "blackhole" | "unreachable" | "prohibit" | "local";
  readonly link?: string;
  readonly via?: string;
  /** The next hop is taken to be on the link, whatever addresses the link has. */
  readonly onlink?: boolean;
  /** Source address that it prefers. */
  readonly source?: string;
  /** When left out: link without `via`, host for type local, else global. */
  readonly scope?: "global" | "link" | "host";
  /** 254 (main) when left out. */
  readonly table?: number;
  /** Preference among equal destinations; 0 when left out. */
  readonly metric?: number;
}

/** Always permanent. */
export interface Neighbour {
  readonly address: string;
  readonly mac: string;
  readonly link: string;
}

/** Where frames to a hardware address leave a vxlan link. Always permanent. */
export interface FdbEntry {
  readonly mac: string;
  readonly link: string;
  readonly destination: string;
}

export interface Rule {
  readonly preference: number;
  readonly family?: "ip6";
  readonly mark?: number;
  /** 0xffffffff when left out. */
  readonly mask?: number;
  readonly from?: string;
  readonly to?: string;
  readonly inputLink?: string;
  readonly outputLink?: string;
  readonly table: number;
}

/**
 * How a field of an element reads. integer: u32 in host order, as numgen and jhash give it, decimal. mark: u32, hexadecimal
 * (0x53000001). inet_proto: a name (tcp, udp, sctp, icmp) or a number. ct_zone: u16, decimal. ifname: 16 bytes.
 */
export type FieldType =
  "ipv4_addr" | "ipv6_addr" | "ether_addr" | "inet_proto" | "inet_service" | "integer" | "mark" | "ct_zone" | "ifname";

export type NftFamily = "ip" | "ip6" | "inet" | "netdev" | "bridge" | "arp";

/** A set or map, with the types that its elements are read and written by; they must agree with its definition. */
export interface ElementSet {
  readonly family: NftFamily;
  readonly table: string;
  readonly name: string;
  /** More than one: a concatenation. At most 8. */
  readonly key: readonly FieldType[];
  /** What it maps to; left out for a set. "verdict" reads `goto CHAIN`, `jump CHAIN`, `accept`, `drop`, `return`. */
  readonly data?: readonly (FieldType | "verdict")[];
  /** The set has `flags interval`: address fields may be prefixes ("10.0.0.0/8") and any field a range ("80-90"). */
  readonly interval?: boolean;
}

/**
 * Elements are text as nft writes them, with one blank around each mark: "10.0.1.100 . 3 : 10.0.1.11", "tcp . 8080 : goto tcp3",
 * "10.0.1.11 . 10.0.1.11". A dump spells them the same way.
 */
export type ElementText = string;

export type Operation = Tolerant &
  /** Bound at the path, with its loopback link up. EEXIST: one is bound there. */
  (
    | { readonly op: "namespace-add"; readonly path: string }
    /** Unmounts and removes the file. The kernel tears the namespace down when nothing else holds it. */
    | { readonly op: "namespace-delete"; readonly path: string }
    | ({ readonly op: "link-add" } & LinkToAdd)
    | ({ readonly op: "link-set" } & LinkChange)
    | { readonly op: "link-delete"; readonly name: string }
    /** A veth whose other end was just opened passes packets when this is done, and not a moment later. */
    | { readonly op: "link-settle"; readonly name: string }
    /** Also changes the flags of one that is there. */
    | ({ readonly op: "address-set" } & Address)
    | { readonly op: "address-delete"; readonly address: string; readonly link: string }
    /** EEXIST when there is one to this destination with this metric, whoever's it is. */
    | ({ readonly op: "route-add" } & Route)
    | ({ readonly op: "route-replace" } & Route)
    /** Only what is named must agree; only routes of ours (proto 200) are found. ESRCH: there is none. */
    | ({ readonly op: "route-delete" } & Route)
    | ({ readonly op: "neighbour-set" } & Neighbour)
    | { readonly op: "neighbour-delete"; readonly address: string; readonly link: string }
    | ({ readonly op: "fdb-set" } & FdbEntry)
    | ({ readonly op: "fdb-delete" } & FdbEntry)
    /** EEXIST when the very same rule is there. */
    | ({ readonly op: "rule-add" } & Rule)
    | ({ readonly op: "rule-delete" } & Rule)
    /** `name` is a path below /proc/sys that begins with net/. */
    | { readonly op: "sysctl-write"; readonly name: string; readonly value: string }
    | { readonly op: "sysctl-read"; readonly name: string }
    /** nft's language, one transaction: all of it or nothing. For tables, chains and rules; elements have `elements`. */
    | { readonly op: "ruleset"; readonly text: string }
    /** A table as nft prints it, without elements and counters: compare it with what was printed after installing. */
    | { readonly op: "ruleset-list"; readonly family: NftFamily; readonly table: string }
    /**
     * All `elements`, `balance` and `chain-delete` operations that stand side by side in a batch are one transaction, in
     * their order: all or nothing. In each of `elements`: first all
     * are taken out (`flush`), then `delete` (keys only), then `add`. Adding what is there with the same data is no error,
     * with other data it is EEXIST: delete and add it. `ignore: ["ENOENT"]` lets what is to be deleted be missing.
     */
    | {
        readonly op: "elements";
        readonly set: ElementSet;
        readonly flush?: boolean;
        readonly delete?: readonly ElementText[];
        readonly add?: readonly ElementText[];
      }
    | { readonly op: "elements-list"; readonly set: ElementSet }
    /**
     * A chain that sends a new connection to one of the first `slots` entries of a map, drawn at random: its only rule is
     * `dnat to BY . numgen random mod SLOTS map @MAP`. One transaction with what stands beside it, and as cheap as `elements`,
     * where a ruleset's text costs milliseconds.
     */
    | ({
        readonly op: "balance";
        readonly family: "ip" | "ip6";
        readonly table: string;
        readonly chain: string;
      } & Balance)
    /** With its rules; what led to it is gone already, or goes in the same transaction before it. EBUSY: it is still led to. */
    | { readonly op: "chain-delete"; readonly family: NftFamily; readonly table: string; readonly chain: string }
    /** The number of the ruleset: it grows with each transaction of whomever. */
    | { readonly op: "generation" }
    /**
     * Forgets tracked connections that agree with all that is given; at least one address must be. Those that stand side by
     * side in a batch are met by one walk over the connections; one that agrees with several counts for the first.
     */
    | {
        readonly op: "connections-delete";
        readonly originalDestination?: string;
        readonly originalSource?: string;
        readonly replySource?: string;
        readonly protocol?: "tcp" | "udp" | "sctp" | "icmp";
        /** Port of the original destination. */
        readonly port?: number;
        /** Only those whose other end has said nothing. */
        readonly unanswered?: boolean;
      }
    /**
     * Holds a port, so that no other process of the namespace binds it; nothing listens on it. EADDRINUSE: another holds it. It is
     * let go when netplane ends; the client takes it again when it starts netplane anew. Reserving what is held is fine.
     */
    | ({ readonly op: "port-reserve" } & ReservedPort)
    | ({ readonly op: "port-release" } & ReservedPort)
    | { readonly op: "dump"; readonly what: readonly DumpPart[]; readonly all?: boolean }
    /** From now on events tell when somebody else changes this namespace. */
    | { readonly op: "watch" }
    | { readonly op: "unwatch" }
    /** Whether the kernel can make wireguard links (it loads the module for it). */
    | { readonly op: "wireguard-probe" }
    /**
     * EOPNOTSUPP: the kernel has no WireGuard, or the link is none. Keys are base64 as wg(8) writes them. Another private key
     * ends no connection: what peers send by sessions of the old one is taken for three minutes more. Its packets have no mark
     * from then on.
     */
    | {
        readonly op: "wireguard-set";
        readonly link: string;
        readonly privateKey?: string;
        readonly listenPort?: number;
      }
    /** One that is there becomes this one, without a preshared key. A prefix that another peer had is its no longer. */
    | ({ readonly op: "wireguard-peer-set"; readonly link: string } & WireguardPeer)
    /** No error if there is none. */
    | { readonly op: "wireguard-peer-delete"; readonly link: string; readonly publicKey: string }
    /** Private keys are never told. */
    | { readonly op: "wireguard-list"; readonly link: string }
  );

export interface WireguardPeer {
  readonly publicKey: string;
  /** Address and UDP port where it was last seen, or is to be looked for. */
  readonly endpoint?: string;
  readonly port?: number;
  /** What it may send from, and what is sent to it. At most 64. */
  readonly allowed: readonly string[];
  /** One packet each so many seconds, and one at once. */
  readonly keepaliveSeconds?: number;
}

export interface Wireguard {
  /** Left out: it has no key. */
  readonly publicKey?: string;
  readonly listenPort: number;
  /** Of the packets that it sends; left out: none. */
  readonly mark?: number;
  /** A peer may come in pieces: the same key again, with more of what it may send from. */
  readonly peers: readonly (WireguardPeer & {
    /** It has such a key, which is never told; left out: it has none. */
    readonly preshared?: true;
    /** Since 1970; left out: never. */
    readonly handshakeSeconds?: number;
    readonly receivedBytes: number;
    readonly sentBytes: number;
  })[];
}

export interface ReservedPort {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly port: number;
  /** All addresses when left out. */
  readonly address?: string;
}

export type DumpPart = "links" | "addresses" | "routes" | "neighbours" | "fdb" | "rules";

/**
 * Ours: links with an alias that begins with `skep:` and the addresses, permanent neighbours and FDB entries on them; routes
 * and rules of proto 200. With `all`, whosever they are (routes of the local table and neighbours that come and go excepted).
 */
export interface Dump {
  readonly links?: readonly Link[];
  readonly addresses?: readonly Address[];
  readonly routes?: readonly (Route & { readonly protocol?: number })[];
  readonly neighbours?: readonly Neighbour[];
  readonly fdb?: readonly FdbEntry[];
  readonly rules?: readonly (Rule & { readonly protocol?: number })[];
}

export interface Balance {
  /** What is looked up together with the number that was drawn. */
  readonly by: "ip daddr" | "ip6 daddr" | "tcp dport" | "udp dport";
  readonly map: string;
  readonly slots: number;
}

/** Operations in one namespace, in order. */
export interface Batch {
  readonly namespace: NamespacePath;
  readonly operations: readonly Operation[];
}

/** What an operation answers: most answer nothing. */
export type Answer<O extends Operation["op"]> = O extends "dump"
  ? Dump
  : O extends "elements-list"
    ? readonly ElementText[]
    : O extends "ruleset-list" | "sysctl-read"
      ? string
      : O extends "generation" | "connections-delete"
        ? number
        : O extends "wireguard-probe"
          ? boolean
          : O extends "wireguard-list"
            ? Wireguard
            : undefined;

export type ChangeKind = "link" | "address" | "route" | "neighbour" | "fdb" | "rule" | "nft";

/** Somebody else changed a watched namespace; told at most every 50 ms a namespace. Kinds without a doubt only. */
export interface NamespaceChanged {
  readonly namespace: NamespacePath;
  readonly kinds: readonly ChangeKind[];
}
