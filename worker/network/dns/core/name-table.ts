/**
 * Who is called what on which network, and who may ask. Filled with what managers tell and with what runs here; a change
 * costs as much as it has names, and what is asked next sees it.
 */
import { addressInRange } from "../../../../proto/index.ts";
import type { Asker, InNetwork, NamedEndpoint, NamedService, Names } from "./names.ts";

export interface NamedNetwork {
  readonly id: string;
  readonly name: string;
  /** CIDR; addresses in them are asked of nobody else. */
  readonly subnets: readonly string[];
}

/** A container that managers do not tell of. */
export interface LocalEndpoint {
  /** With or without a prefix length. */
  readonly addresses: readonly string[];
  /** The one by which its address is known first: its name; then aliases, host name, the short form of its id. */
  readonly names: readonly string[];
}

/** One that may ask. */
export interface AskerEntry {
  /** Of the sandbox. */
  readonly id: string;
  /** From which it asks: of gw0, of each interface on a bridge network. */
  readonly addresses: readonly string[];
  /** Ids; a name that several of them know is the first one's. */
  readonly networks: readonly string[];
  readonly forwards: boolean;
  readonly dns: readonly string[];
  /** Names that only it knows (`--link`): each stands for another name. */
  readonly links: ReadonlyMap<string, string>;
}

interface Endpoint {
  readonly addresses: readonly string[];
  readonly names: readonly string[];
  readonly serviceId: string;
  readonly serving: boolean;
}

/** What a name stands for. */
interface Owner {
  /** The service by its virtual address, the service by its tasks, one endpoint. */
  readonly kind: "service" | "tasks" | "endpoint";
  readonly id: string;
}

const plain = (address: string): string => address.split("/", 1)[0] ?? "";
const small = (name: string): string => name.toLowerCase();

/** One network's names. */
class NetworkNames {
  name = "";
  subnets: readonly string[] = [];
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #services = new Map<string, NamedService>();
  /** Tasks that serve, by service. */
  readonly #serving = new Map<string, Map<string, readonly string[]>>();
  readonly #owners = new Map<string, Map<string, Owner>>();
  readonly #reverse = new Map<string, Map<string, string>>();

  get isEmpty(): boolean {
    return this.name === "" && this.#endpoints.size === 0 && this.#services.size === 0;
  }

  setEndpoint(id: string, endpoint: Endpoint | undefined): void {
    const before = this.#endpoints.get(id);
    if (before !== undefined) {
      for (const name of before.names) this.#disown(name, `endpoint/${id}`);
      for (const address of before.addresses) drop(this.#reverse, address, `endpoint/${id}`);
      drop(this.#serving, before.serviceId, id);
      this.#endpoints.delete(id);
    }
    if (endpoint === undefined) return;
    this.#endpoints.set(id, endpoint);
    for (const name of endpoint.names) this.#own(name, `endpoint/${id}`, { kind: "endpoint", id });
    const [first = ""] = endpoint.names;
    if (first !== "") for (const address of endpoint.addresses) put(this.#reverse, address, `endpoint/${id}`, first);
    if (endpoint.serving && endpoint.serviceId !== "") put(this.#serving, endpoint.serviceId, id, endpoint.addresses);
  }

  setService(id: string, service: NamedService | undefined): void {
    const before = this.#services.get(id);
    if (before !== undefined) {
      for (const name of namesOf(before)) {
        this.#disown(name, `service/${id}`);
        this.#disown(`tasks.${name}`, `tasks/${id}`);
      }
      for (const address of virtualIpsOf(before)) drop(this.#reverse, address, `service/${id}`);
      this.#services.delete(id);
    }
    if (service === undefined) return;
    this.#services.set(id, service);
    for (const name of namesOf(service)) {
      this.#own(name, `service/${id}`, { kind: "service", id });
      this.#own(`tasks.${name}`, `tasks/${id}`, { kind: "tasks", id });
    }
    for (const address of virtualIpsOf(service)) put(this.#reverse, address, `service/${id}`, small(service.name));
  }

  forgetAll(isGone: (id: string) => boolean): void {
    for (const id of this.#endpoints.keys()) if (isGone(id)) this.setEndpoint(id, undefined);
    for (const id of this.#services.keys()) this.setService(id, undefined);
  }

  addresses(name: string): readonly string[] | undefined {
    const owners = this.#owners.get(name);
    if (owners === undefined) return undefined;
    if (owners.size === 1) for (const owner of owners.values()) return this.#addressesOf(owner);
    return [...new Set([...owners.values()].flatMap((owner) => this.#addressesOf(owner)))];
  }

  nameOf(address: string): string | undefined {
    for (const name of this.#reverse.get(address)?.values() ?? []) return `${name}.${small(this.name)}`;
    return this.subnets.some((subnet) => addressInRange(address, subnet)) ? "" : undefined;
  }

  #addressesOf({ kind, id }: Owner): readonly string[] {
    if (kind === "endpoint") {
      const endpoint = this.#endpoints.get(id);
      return endpoint?.serving === true ? endpoint.addresses : [];
    }
    const service = this.#services.get(id);
    const virtual = service === undefined || kind === "tasks" ? [] : virtualIpsOf(service);
    if (virtual.length > 0) return virtual;
    return [...(this.#serving.get(id)?.values() ?? [])].flat();
  }

  #own(name: string, key: string, owner: Owner): void {
    put(this.#owners, name, key, owner);
  }

  #disown(name: string, key: string): void {
    drop(this.#owners, name, key);
  }
}

const virtualIpsOf = ({ virtualIp, virtualIp6 = "" }: NamedService): readonly string[] =>
  [virtualIp, virtualIp6].filter((address) => address !== "").map(plain);

const namesOf = ({ name, aliases }: NamedService): readonly string[] => [...new Set([name, ...aliases].map(small))];

function put<T>(map: Map<string, Map<string, T>>, name: string, key: string, value: T): void {
  let inner = map.get(name);
  if (inner === undefined) map.set(name, (inner = new Map()));
  inner.set(key, value);
}

function drop<T>(map: Map<string, Map<string, T>>, name: string, key: string): void {
  const inner = map.get(name);
  inner?.delete(key);
  if (inner?.size === 0) map.delete(name);
}

/** Ids of containers that managers do not tell of have a mark, so that both kinds can be in one network. */
const localId = (id: string): string => `local/${id}`;

export class NameTable implements Names {
  readonly #networks = new Map<string, NetworkNames>();
  readonly #askers = new Map<string, AskerEntry>();
  readonly #byAddress = new Map<string, Asker>();

  asker(address: string): Asker | undefined {
    return this.#byAddress.get(address);
  }

  setNetwork({ id, name, subnets }: NamedNetwork): void {
    const network = this.#network(id);
    network.name = name;
    network.subnets = subnets;
  }

  /** Names of what is still in it go on to be known, without the network's. */
  removeNetwork(id: string): void {
    const network = this.#networks.get(id);
    if (network === undefined) return;
    network.name = "";
    network.subnets = [];
    this.#dropEmpty(id);
  }

  /** All that managers told before is gone. */
  replace(
    endpoints: readonly (NamedEndpoint & InNetwork & { readonly taskId: string })[],
    services: readonly (NamedService & InNetwork & { readonly serviceId: string })[],
  ): void {
    for (const network of this.#networks.values()) network.forgetAll((id) => !id.startsWith(localId("")));
    for (const record of endpoints) this.setEndpoint(record.networkId, record.taskId, record);
    for (const record of services) this.setService(record.networkId, record.serviceId, record);
    for (const id of this.#networks.keys()) this.#dropEmpty(id);
  }

  setEndpoint(networkId: string, taskId: string, record: NamedEndpoint | undefined): void {
    this.#network(networkId).setEndpoint(taskId, record === undefined ? undefined : endpointOf(record));
    this.#dropEmpty(networkId);
  }

  setService(networkId: string, serviceId: string, record: NamedService | undefined): void {
    this.#network(networkId).setService(serviceId, record);
    this.#dropEmpty(networkId);
  }

  setLocal(networkId: string, id: string, endpoint: LocalEndpoint | undefined): void {
    const known = endpoint && {
      addresses: endpoint.addresses.map(plain),
      names: [...new Set(endpoint.names.map(small))],
      serviceId: "",
      serving: true,
    };
    this.#network(networkId).setEndpoint(localId(id), known);
    this.#dropEmpty(networkId);
  }

  setAsker(entry: AskerEntry): void {
    this.removeAsker(entry.id);
    this.#askers.set(entry.id, entry);
    const asker = this.#view(entry);
    for (const address of entry.addresses) this.#byAddress.set(plain(address), asker);
  }

  removeAsker(id: string): void {
    for (const address of this.#askers.get(id)?.addresses ?? []) {
      if (this.#byAddress.get(plain(address))?.id === id) this.#byAddress.delete(plain(address));
    }
    this.#askers.delete(id);
  }

  #view({ id, forwards, dns, networks, links }: AskerEntry): Asker {
    const aliases = new Map([...links].map(([alias, name]) => [small(alias), small(name)]));
    const each = <T>(ask: (network: NetworkNames) => T | undefined): T | undefined => {
      for (const networkId of networks) {
        const network = this.#networks.get(networkId);
        const found = network === undefined ? undefined : ask(network);
        if (found !== undefined) return found;
      }
      return undefined;
    };
    const addresses = (name: string): readonly string[] | undefined =>
      each((network) => network.addresses(name)) ??
      // NAME.NETWORK
      each((network) => {
        const end = `.${small(network.name)}`;
        return network.name !== "" && name.endsWith(end) ? network.addresses(name.slice(0, -end.length)) : undefined;
      });
    return {
      id,
      forwards,
      dns,
      addresses: (name) => addresses(aliases.get(name) ?? name),
      nameOf: (address) => each((network) => network.nameOf(address)),
    };
  }

  #network(id: string): NetworkNames {
    let network = this.#networks.get(id);
    if (network === undefined) this.#networks.set(id, (network = new NetworkNames()));
    return network;
  }

  #dropEmpty(id: string): void {
    if (this.#networks.get(id)?.isEmpty === true) this.#networks.delete(id);
  }
}

/** Aliases of a service's task are the service's, which answers to them with its virtual address. */
function endpointOf({ name, aliases, addresses, serviceId, serving }: NamedEndpoint): Endpoint {
  const names = serviceId === "" ? [name, ...aliases] : [name];
  return { addresses: addresses.map(plain), names: [...new Set(names.map(small))], serviceId, serving };
}
