/** What published ports are made of in the host's table, whoever publishes them: entries, slots and the chains between. */
import { element } from "./host.ts";
import { hostTable } from "./names.ts";
import type { ForgottenConnections } from "./namespace.ts";
import type { ChainObject, ElementObject, NetObject } from "./objects.ts";

/** The host's namespace, as these files write it. */
export interface HostGroups {
  set(group: string, objects: readonly NetObject[]): void;
  forget(connections: ForgottenConnections): void;
}

export interface PortKey {
  readonly protocol: "tcp" | "udp";
  readonly port: number;
}

export const portText = ({ protocol, port }: PortKey): string => `${port}/${protocol}`;

/** The port leads to one of so many slots. */
export const portElement = ({ protocol, port }: PortKey, slots: number): ElementObject =>
  element("ports", [protocol, String(port)], [`goto ${protocol}${slots}`]);

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

/** Chains `tcpN` and `udpN`, shared by all ports with N slots, there while anybody uses them. */
export class SlotChains {
  readonly #groups: HostGroups;
  readonly #countOf = new Map<string, number>();
  readonly #users = new Map<number, number>();

  constructor(groups: HostGroups) {
    this.#groups = groups;
  }

  /** @param slots  0: none any more */
  use(user: string, slots: number): void {
    const before = this.#countOf.get(user) ?? 0;
    if (before === slots) return;
    if (slots === 0) this.#countOf.delete(user);
    else this.#countOf.set(user, slots);
    this.#add(slots, 1);
    this.#add(before, -1);
  }

  #add(slots: number, difference: 1 | -1): void {
    if (slots === 0) return;
    const users = (this.#users.get(slots) ?? 0) + difference;
    if (users === 0) this.#users.delete(slots);
    else this.#users.set(slots, users);
    this.#groups.set(`slots/${slots}`, users === 0 ? [] : [chain("tcp", slots), chain("udp", slots)]);
  }
}

/** Drawn anew for every connection, since a counter would be shared by all ports of the chain. */
const chain = (protocol: "tcp" | "udp", slots: number): ChainObject => ({
  type: "chain",
  family: "ip",
  table: hostTable,
  chain: `${protocol}${slots}`,
  rules: [`dnat ip to ${protocol} dport . numgen random mod ${slots} map @${protocol}be`],
});
