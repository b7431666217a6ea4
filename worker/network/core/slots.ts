/** What published ports are made of in the host's table, whoever publishes them: entries, slots and the chains between. */
import { isV6 } from "./cidr6.ts";
import { element } from "./host.ts";
import { element6 } from "./host6.ts";
import { hostTable } from "./names.ts";
import type { ForgottenConnections } from "./namespace.ts";
import { balanceChain, type ChainObject, type ElementObject, type NetObject } from "./objects.ts";

/** The host's namespace, as these files write it. */
export interface HostGroups {
  set(group: string, objects: readonly NetObject[]): void;
  forget(connections: ForgottenConnections): void;
}

export interface PortKey {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly port: number;
}

/** One on all addresses of IPv6 is another than the same of IPv4. */
export const portText = ({ protocol, port }: PortKey, family: Family = "ip"): string =>
  family === "ip6" ? `[::]:${port}/${protocol}` : `${port}/${protocol}`;

/** Each has a table of its own. */
export type Family = "ip" | "ip6";

const elementOf = (family: Family): typeof element => (family === "ip6" ? element6 : element);
const familyOf = (address: string): Family => (isV6(address) ? "ip6" : "ip");

/** The port leads to one of so many slots; without any, whoever comes is refused. */
export const portElement = ({ protocol, port }: PortKey, slots: number, family: Family = "ip"): ElementObject =>
  elementOf(family)("ports", [protocol, String(port)], [String(slots)]);

/** @param address  of the family whose table it is in */
export const slotElement = (
  { protocol, port }: PortKey,
  slot: number,
  address: string,
  targetPort: number,
): ElementObject =>
  elementOf(familyOf(address))(`${protocol}be`, [String(port), String(slot)], [address, String(targetPort)]);

/** A port of one address of the host, which has one target. */
export function boundElements(
  hostAddress: string,
  { protocol, port }: PortKey,
  address: string,
  targetPort: number,
): ElementObject[] {
  const make = elementOf(familyOf(hostAddress));
  return [
    make("bound", [hostAddress, protocol, String(port)], [`goto ${protocol}one`]),
    make(`${protocol}to`, [hostAddress, String(port)], [address, String(targetPort)]),
  ];
}

/** To whatever address of ours they were made: they cannot go on, and must not keep others from their port. */
export const connectionsOf = (address: string): ForgottenConnections => ({ destination: "", replySource: address });

/** Chains for so many slots are there from the start: making one costs as much as ten thousand elements. */
const readyMax = 16;

/**
 * Chains `tcpN` and `udpN`, shared by all ports with N slots, and `sctpN`, which few want. One that was needed once stays: it
 * will be again. Those of IPv6 go with its table.
 */
export class SlotChains {
  readonly #groups: HostGroups;
  readonly #made = new Set<string>();
  #has6 = false;

  constructor(groups: HostGroups) {
    this.#groups = groups;
    this.#makeReady("ip");
  }

  #makeReady(family: Family): void {
    const none = `${groupOf(family)}0`;
    this.#made.add(none);
    this.#groups.set(
      none,
      ["tcp", "udp", "sctp"].map((protocol) => leadElement(family, protocol, 0, "nobody")),
    );
    for (let slots = 1; slots <= readyMax; slots += 1) this.use("tcp", slots, family);
  }

  /** Whether the table of IPv6 is there; what leads to its chains has to be set anew after that. */
  set6(has6: boolean): void {
    if (has6 === this.#has6) return;
    this.#has6 = has6;
    if (has6) this.#makeReady("ip6");
    for (const group of has6 ? [] : this.#made) {
      if (!group.startsWith(groupOf("ip6"))) continue;
      this.#made.delete(group);
      this.#groups.set(group, []);
    }
  }

  use(protocol: PortKey["protocol"], slots: number, family: Family = "ip"): void {
    const group = `${groupOf(family)}${protocol === "sctp" ? "sctp/" : ""}${slots}`;
    if (slots === 0 || this.#made.has(group)) return;
    this.#made.add(group);
    const protocols: readonly PortKey["protocol"][] = protocol === "sctp" ? ["sctp"] : ["tcp", "udp"];
    this.#groups.set(
      group,
      protocols.flatMap((one) => [chain(one, slots, family), leadElement(family, one, slots, `${one}${slots}`)]),
    );
  }
}

const groupOf = (family: Family): string => (family === "ip6" ? "slots6/" : "slots/");

const leadElement = (family: Family, protocol: string, slots: number, chain: string): ElementObject =>
  elementOf(family)("lead", [protocol, String(slots)], [`goto ${chain}`]);

/** Drawn anew for every connection, since a counter would be shared by all ports of the chain. */
const chain = (protocol: PortKey["protocol"], slots: number, family: Family): ChainObject =>
  protocol === "sctp"
    ? // Wanted by few: as text.
      {
        type: "chain",
        family,
        table: hostTable,
        chain: `sctp${slots}`,
        rules: [`dnat ${family} to sctp dport . numgen random mod ${slots} map @sctpbe`],
      }
    : balanceChain({ family, table: hostTable }, `${protocol}${slots}`, {
        by: `${protocol} dport`,
        map: `${protocol}be`,
        slots,
      });
