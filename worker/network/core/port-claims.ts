/** Which ports of the host are whose among ourselves: the mesh's, tasks' in host mode, containers'. */
import { isV6 } from "./cidr6.ts";
import type { PortKey } from "./slots.ts";

/** Of the host's of IPv6, as a port's address; those of IPv4 are an empty text. */
export const allAddresses6 = "::";

/** An address of the host, or all of a family. */
export interface HostPort extends PortKey {
  readonly hostAddress: string;
}

interface Claims {
  /** Whose the port is on each address. */
  readonly owners: Map<string, string>;
}

export class PortClaims {
  readonly #ports = new Map<string, Claims>();

  /** Who has it already on an address that this one would share; undefined: nobody, or only the same owner. */
  conflict(owner: string, port: HostPort): string | undefined {
    const owners = this.#ports.get(keyOf(port))?.owners ?? new Map<string, string>();
    for (const [address, other] of owners) {
      if (other !== owner && share(address, port.hostAddress)) return other;
    }
    return undefined;
  }

  /** Whether the very same is this owner's. */
  holds(owner: string, port: HostPort): boolean {
    return this.#ports.get(keyOf(port))?.owners.get(port.hostAddress) === owner;
  }

  /** Only after `conflict` said none. */
  claim(owner: string, port: HostPort): void {
    const claims = this.#ports.get(keyOf(port)) ?? { owners: new Map<string, string>() };
    claims.owners.set(port.hostAddress, owner);
    this.#ports.set(keyOf(port), claims);
  }

  release(owner: string, port: HostPort): void {
    const claims = this.#ports.get(keyOf(port));
    if (claims?.owners.get(port.hostAddress) !== owner) return;
    claims.owners.delete(port.hostAddress);
    if (claims.owners.size === 0) this.#ports.delete(keyOf(port));
  }
}

/** An address, or one and all of its family. */
const share = (a: string, b: string): boolean =>
  a === b || (isV6(a) === isV6(b) && [a, b].some((address) => address === "" || address === allAddresses6));

const keyOf = ({ protocol, port }: PortKey): string => `${port}/${protocol}`;
