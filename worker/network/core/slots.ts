/** What published ports are made of in the host's table, whoever publishes them: entries, slots and the chains between. */
import { element } from "./host.ts";
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

export const portText = ({ protocol, port }: PortKey): string => `${port}/${protocol}`;

/** The port leads to one of so many slots; without any, whoever comes is refused. */
export const portElement = ({ protocol, port }: PortKey, slots: number): ElementObject =>
  element("ports", [protocol, String(port)], [String(slots)]);

export const slotElement = (
  { protocol, port }: PortKey,
  slot: number,
  address: string,
  targetPort: number,
): ElementObject => element(`${protocol}be`, [String(port), String(slot)], [address, String(targetPort)]);

/** A port of one address of the host, which has one target. */
export function boundElements(
  hostAddress: string,
  { protocol, port }: PortKey,
  address: string,
  targetPort: number,
): ElementObject[] {
  return [
    element("bound", [hostAddress, protocol, String(port)], [`goto ${protocol}one`]),
    element(`${protocol}to`, [hostAddress, String(port)], [address, String(targetPort)]),
  ];
}

/** To whatever address of ours they were made: they cannot go on, and must not keep others from their port. */
export const connectionsOf = (address: string): ForgottenConnections => ({ destination: "", replySource: address });

/** Chains for so many slots are there from the start: making one costs as much as ten thousand elements. */
const readyMax = 16;

/**
 * Chains `tcpN` and `udpN`, shared by all ports with N slots, and `sctpN`, which few want. One that was needed once stays: it
 * will be again.
 */
export class SlotChains {
  readonly #groups: HostGroups;
  readonly #made = new Set<string>();

  constructor(groups: HostGroups) {
    this.#groups = groups;
    this.#groups.set(
      "slots/0",
      ["tcp", "udp", "sctp"].map((protocol) => leadElement(protocol, 0, "nobody")),
    );
    for (let slots = 1; slots <= readyMax; slots += 1) this.use("tcp", slots);
  }

  use(protocol: PortKey["protocol"], slots: number): void {
    const group = protocol === "sctp" ? `slots/sctp/${slots}` : `slots/${slots}`;
    if (slots === 0 || this.#made.has(group)) return;
    this.#made.add(group);
    const protocols: readonly PortKey["protocol"][] = protocol === "sctp" ? ["sctp"] : ["tcp", "udp"];
    this.#groups.set(
      group,
      protocols.flatMap((one) => [chain(one, slots), leadElement(one, slots, `${one}${slots}`)]),
    );
  }
}

const leadElement = (protocol: string, slots: number, chain: string): ElementObject =>
  element("lead", [protocol, String(slots)], [`goto ${chain}`]);

/** Drawn anew for every connection, since a counter would be shared by all ports of the chain. */
const chain = (protocol: PortKey["protocol"], slots: number): ChainObject =>
  protocol === "sctp"
    ? // Wanted by few: as text.
      {
        type: "chain",
        family: "ip",
        table: hostTable,
        chain: `sctp${slots}`,
        rules: [`dnat ip to sctp dport . numgen random mod ${slots} map @sctpbe`],
      }
    : balanceChain({ family: "ip", table: hostTable }, `${protocol}${slots}`, {
        by: `${protocol} dport`,
        map: `${protocol}be`,
        slots,
      });
