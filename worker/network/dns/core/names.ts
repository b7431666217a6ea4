/** What the resolver asks of the table of names. */

/** Names and who may ask for them, for the resolver. Answers are of this instant. */
export interface Names {
  /** Who asks from this address: gw0's or one of a bridge network. undefined: nobody of ours. */
  asker(address: string): Asker | undefined;
}

export interface Asker {
  /** Of the sandbox. */
  readonly id: string;
  /** Names that are not ours may be asked for outside: it is on some network that is not internal. */
  readonly forwards: boolean;
  /** Servers to forward to; empty: the host's. */
  readonly dns: readonly string[];
  /** Addresses of a name on the asker's networks; empty: the name is ours and has none now; undefined: not ours. */
  addresses(name: string): readonly string[] | undefined;
  /** Name of an address, without a dot at its end; empty: it is of the asker's networks and has none; undefined: not ours. */
  nameOf(address: string): string | undefined;
}

/** What of an endpoint's record has to do with names (worker/network/contract.ts). */
export interface NamedEndpoint {
  readonly name: string;
  /** Empty: it belongs to no service. */
  readonly serviceId: string;
  /** With or without a prefix length. */
  readonly addresses: readonly string[];
  readonly aliases: readonly string[];
  readonly serving: boolean;
}

/** What of a service's record has to do with names. */
export interface NamedService {
  readonly name: string;
  readonly aliases: readonly string[];
  /** With or without a prefix length; empty: it has none. */
  readonly virtualIp: string;
  readonly virtualIp6?: string;
}

export interface InNetwork {
  readonly networkId: string;
}
