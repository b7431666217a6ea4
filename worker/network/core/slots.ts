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

/** Chains for so many slots are there from the start: making one costs as much as ten thousand elements. */
const readyMax = 16;

/** Chains `tcpN` and `udpN`, shared by all ports with N slots. One that was needed once stays: it will be again. */
export class SlotChains {
  readonly #groups: HostGroups;
  readonly #made = new Set<number>();

  constructor(groups: HostGroups) {
    this.#groups = groups;
    for (let slots = 1; slots <= readyMax; slots += 1) this.use(slots);
  }

  use(slots: number): void {
    if (slots === 0 || this.#made.has(slots)) return;
    this.#made.add(slots);
    this.#groups.set(`slots/${slots}`, [chain("tcp", slots), chain("udp", slots)]);
  }
}

const chain = (protocol: "tcp" | "udp", slots: number): ChainObject =>
  balanceChain({ family: "ip", table: hostTable }, `${protocol}${slots}`, {
    by: `${protocol} dport`,
    map: `${protocol}be`,
    slots,
  });
