/** A kernel in memory that understands what the engine asks of netplane; for tests that break it and look into it. */
import type { Kernel } from "../engine.ts";
import type {
  Address,
  Batch,
  Dump,
  FdbEntry,
  Link,
  NamespaceChanged,
  Neighbour,
  Operation,
  Route,
  Rule,
  Wireguard,
  WireguardPeer,
} from "../netplane-types.ts";

class KernelError extends Error {
  readonly errno: string;
  readonly operation: string;
  constructor(errno: string, operation: string) {
    super(`${operation}: ${errno}`);
    this.errno = errno;
    this.operation = operation;
  }
}

interface Far {
  readonly namespace: string;
  readonly name: string;
}

const keyOfRoute = ({ table = 254, destination, metric }: Route): string =>
  `${table} ${destination}${metric === undefined ? "" : ` metric ${metric}`}`;

export interface MemoryTunnel {
  privateKey: string;
  listenPort: number;
  mark?: number;
  readonly peers: Map<string, WireguardPeer & { readonly preshared?: true }>;
}

export class MemoryNamespace {
  readonly links = new Map<string, Link & { readonly far?: Far }>();
  readonly addresses = new Map<string, Address>();
  readonly routes = new Map<string, Route>();
  readonly neighbours = new Map<string, Neighbour>();
  readonly fdb = new Map<string, FdbEntry>();
  readonly rules = new Map<string, Rule>();
  readonly sysctls = new Map<string, string>();
  /** Texts of tables by name; chains of their own beside them. */
  readonly tables = new Map<string, { text: string; readonly chains: Map<string, string[]> }>();
  readonly elements = new Map<string, Map<string, string>>();
  readonly forgotten: string[] = [];
  /** WireGuard links by name. */
  readonly tunnels = new Map<string, MemoryTunnel>();
  /** Of rulesets: grows with each change of them. */
  generation = 1;
}

export class MemoryKernel implements Kernel {
  readonly namespaces = new Map<string, MemoryNamespace>([["", new MemoryNamespace()]]);
  /** Everything that changes something, in order: `NAMESPACE OP`. */
  readonly log: string[] = [];
  /** Makes and removes the file that stands for a namespace. */
  onNamespace: (path: string, isThere: boolean) => void = () => undefined;
  /** Derives public keys from private ones: it has WireGuard. undefined: it has none. */
  publicKeyOf: ((privateKey: string) => string) | undefined;
  /** Throws to fail an operation. */
  beforeEach: (namespace: string, operation: Operation) => void = () => undefined;
  /** Holds what is asked of a namespace until it resolves. */
  until: (namespace: string) => Promise<void> | undefined = () => undefined;
  #listener: (change: NamespaceChanged | undefined) => void = () => undefined;

  onChange(listener: (change: NamespaceChanged | undefined) => void): void {
    this.#listener = listener;
  }

  /** As if somebody else had changed it. */
  tell(change: NamespaceChanged | undefined): void {
    this.#listener(change);
  }

  get(path: string): MemoryNamespace {
    const namespace = this.namespaces.get(path);
    if (namespace === undefined) throw new KernelError("ENOENT", "open");
    return namespace;
  }

  async runAll(batches: readonly Batch[]): Promise<readonly (readonly unknown[])[]> {
    const answers: (readonly unknown[])[] = [];
    for (const { namespace, operations } of batches) answers.push(await this.run(namespace, operations));
    return answers;
  }

  async run(path: string, operations: readonly Operation[]): Promise<readonly unknown[]> {
    await (this.until(path) ?? Promise.resolve());
    const namespace = this.get(path);
    return operations.map((operation) => {
      try {
        this.beforeEach(path, operation);
        return this.#do(path, namespace, operation);
      } catch (error) {
        if (error instanceof KernelError && operation.ignore?.includes(error.errno) === true) return null;
        throw error;
      }
    });
  }

  #do(path: string, ns: MemoryNamespace, operation: Operation): unknown {
    const fail = (errno: string): never => {
      throw new KernelError(errno, operation.op);
    };
    const isReading = /list|dump|watch|probe|generation/.test(operation.op);
    if (!isReading) this.log.push(`${path} ${operation.op}`);
    switch (operation.op) {
      case "namespace-add":
        if (this.namespaces.has(operation.path)) fail("EEXIST");
        this.namespaces.set(operation.path, new MemoryNamespace());
        this.onNamespace(operation.path, true);
        this.get(operation.path).links.set("lo", { name: "lo", index: 1, up: false, mtu: 65_536 });
        return undefined;
      case "namespace-delete":
        if (!this.namespaces.has(operation.path)) fail("ENOENT");
        for (const name of this.get(operation.path).links.keys()) this.#deleteLink(operation.path, name);
        this.namespaces.delete(operation.path);
        this.onNamespace(operation.path, false);
        return undefined;
      case "link-add": {
        const { op: _op, ignore: _ignore, target, ...link } = operation;
        const where = this.get(target ?? path);
        if (where.links.has(link.name)) fail("EEXIST");
        if (link.kind === "wireguard" && this.publicKeyOf === undefined) fail("EOPNOTSUPP");
        const lower = link.kind === "vxlan" ? link.link : undefined;
        if (lower !== undefined && !ns.links.has(lower)) fail("ENODEV");
        const base = { index: 9, up: false, mtu: 1500, ...link, ...(lower === undefined ? {} : { lower: 9 }) };
        if (link.kind === "wireguard")
          where.tunnels.set(link.name, { privateKey: "", listenPort: 0, peers: new Map() });
        if (link.kind === "veth") {
          const far = { namespace: link.peer.namespace ?? path, name: link.peer.name };
          if (this.get(far.namespace).links.has(far.name)) fail("EEXIST");
          const { mac, mtu } = link.peer;
          this.get(far.namespace).links.set(far.name, {
            name: far.name,
            kind: "veth",
            index: 9,
            up: false,
            mtu: mtu ?? 1500,
            ...(mac === undefined ? {} : { mac }),
            far: { namespace: path, name: link.name },
          });
          where.links.set(link.name, { ...base, far });
        } else {
          where.links.set(link.name, base);
        }
        return undefined;
      }
      case "link-set": {
        const { op: _op, ignore: _ignore, name, ...change } = operation;
        const link = ns.links.get(name) ?? fail("ENODEV");
        ns.links.set(name, { ...link, ...change });
        return undefined;
      }
      case "link-delete":
        if (!ns.links.has(operation.name)) fail("ENODEV");
        this.#deleteLink(path, operation.name);
        return undefined;
      case "link-settle":
        if (!ns.links.has(operation.name)) fail("ENODEV");
        return undefined;
      case "address-set":
        if (!ns.links.has(operation.link)) fail("ENODEV");
        ns.addresses.set(`${operation.link} ${operation.address}`, operation);
        return undefined;
      case "address-delete":
        if (!ns.addresses.delete(`${operation.link} ${operation.address}`)) fail("EADDRNOTAVAIL");
        return undefined;
      case "route-replace":
        if (operation.link !== undefined && !ns.links.has(operation.link)) fail("ENODEV");
        ns.routes.set(keyOfRoute(operation), operation);
        return undefined;
      case "route-delete":
        if (!ns.routes.delete(keyOfRoute(operation))) fail("ESRCH");
        return undefined;
      case "neighbour-set":
        if (!ns.links.has(operation.link)) fail("ENODEV");
        ns.neighbours.set(`${operation.link} ${operation.address}`, operation);
        return undefined;
      case "neighbour-delete":
        if (!ns.neighbours.delete(`${operation.link} ${operation.address}`)) fail("ENOENT");
        return undefined;
      case "fdb-set":
        ns.fdb.set(`${operation.link} ${operation.mac}`, operation);
        return undefined;
      case "fdb-delete":
        if (!ns.fdb.delete(`${operation.link} ${operation.mac}`)) fail("ENOENT");
        return undefined;
      case "rule-add":
        ns.rules.set(`${operation.preference} ${operation.mark}`, operation);
        return undefined;
      case "rule-delete":
        if (!ns.rules.delete(`${operation.preference} ${operation.mark}`)) fail("ENOENT");
        return undefined;
      case "sysctl-write":
        ns.sysctls.set(operation.name, operation.value);
        return undefined;
      case "generation":
        return ns.generation;
      case "ruleset":
        ns.generation += 1;
        for (const line of operation.text.split(/\n(?=add |delete |flush |table )/)) this.#rule(ns, line.trim(), fail);
        return undefined;
      case "ruleset-list": {
        const table = ns.tables.get(`${operation.family} ${operation.table}`) ?? fail("ENOENT");
        const chains = [...table.chains].map(
          ([name, rules]) => `\tchain ${name} {\n\t\t${rules.join("\n\t\t")}\n\t}\n`,
        );
        return `table ${operation.family} ${operation.table} {\n${table.text}\n${chains.join("\n")}}\n`;
      }
      case "elements": {
        ns.generation += 1;
        const { family, table, name } = operation.set;
        if (!ns.tables.has(`${family} ${table}`)) fail("ENOENT");
        const key = `${family} ${table} ${name}`;
        const set = ns.elements.get(key) ?? new Map<string, string>();
        ns.elements.set(key, set);
        for (const one of operation.delete ?? []) {
          if (!set.delete(one) && operation.ignore?.includes("ENOENT") !== true) fail("ENOENT");
        }
        for (const one of operation.add ?? []) {
          const [element = "", value = ""] = one.split(" : ");
          if (set.has(element) && set.get(element) !== value) fail("EEXIST");
          set.set(element, value);
        }
        return undefined;
      }
      case "balance": {
        ns.generation += 1;
        const { chains } = ns.tables.get(`${operation.family} ${operation.table}`) ?? fail("ENOENT");
        const { by, slots, map } = operation;
        chains.set(operation.chain, [`dnat to ${by} . numgen random mod ${slots} map @${map}`]);
        return undefined;
      }
      case "chain-delete": {
        ns.generation += 1;
        const { chains } = ns.tables.get(`${operation.family} ${operation.table}`) ?? fail("ENOENT");
        if (!chains.delete(operation.chain)) fail("ENOENT");
        return undefined;
      }
      case "elements-list": {
        const { family, table, name } = operation.set;
        if (!ns.tables.has(`${family} ${table}`)) fail("ENOENT");
        const set = ns.elements.get(`${family} ${table} ${name}`) ?? new Map<string, string>();
        return [...set].map(([key, value]) => (value === "" ? key : `${key} : ${value}`));
      }
      case "connections-delete":
        ns.forgotten.push(`${operation.originalDestination ?? ""} ${operation.replySource ?? ""}`);
        return 0;
      case "dump":
        return this.#dump(ns, operation.all === true);
      case "wireguard-probe":
        return this.publicKeyOf !== undefined;
      case "wireguard-set": {
        const tunnel = ns.tunnels.get(operation.link) ?? fail("ENODEV");
        tunnel.privateKey = operation.privateKey ?? tunnel.privateKey;
        tunnel.listenPort = operation.listenPort ?? tunnel.listenPort;
        delete tunnel.mark;
        return undefined;
      }
      case "wireguard-peer-set": {
        const { op: _op, ignore: _ignore, link, ...peer } = operation;
        const { peers } = ns.tunnels.get(link) ?? fail("ENODEV");
        // A prefix has one peer.
        for (const [key, other] of peers) {
          peers.set(key, { ...other, allowed: other.allowed.filter((prefix) => !peer.allowed.includes(prefix)) });
        }
        peers.set(peer.publicKey, peer);
        return undefined;
      }
      case "wireguard-peer-delete":
        (ns.tunnels.get(operation.link) ?? fail("ENODEV")).peers.delete(operation.publicKey);
        return undefined;
      case "wireguard-list": {
        const { privateKey, listenPort, mark, peers } = ns.tunnels.get(operation.link) ?? fail("ENODEV");
        const publicKey = this.publicKeyOf?.(privateKey) ?? "";
        const listed = [...peers.values()].map((peer) => ({ ...peer, receivedBytes: 0, sentBytes: 0 }));
        return { publicKey, listenPort, ...(mark === undefined ? {} : { mark }), peers: listed } satisfies Wireguard;
      }
      default:
        return undefined;
    }
  }

  #dump(ns: MemoryNamespace, all: boolean): Dump {
    const links = [...ns.links.values()].filter(({ alias }) => all || alias?.startsWith("skep:") === true);
    const ours = new Set(links.map(({ name }) => name));
    const on = <Value extends { readonly link?: string }>(list: Iterable<Value>): Value[] =>
      [...list].filter(({ link }) => ours.has(link ?? ""));
    return {
      links,
      addresses: on(ns.addresses.values()),
      routes: [...ns.routes.values()],
      neighbours: on(ns.neighbours.values()),
      fdb: on(ns.fdb.values()),
      rules: [...ns.rules.values()],
    };
  }

  #rule(ns: MemoryNamespace, line: string, fail: (errno: string) => never): void {
    const words = line.split(/\s+/);
    const [act = "", what = "", family = "", name = "", chain = ""] = words;
    const key = act === "table" ? `${what} ${family}` : `${family} ${name}`;
    const table = ns.tables.get(key);
    if (act === "table") {
      ns.tables.set(key, { text: line, chains: table?.chains ?? new Map<string, string[]>() });
    } else if (act === "add" && what === "table") {
      if (table === undefined) ns.tables.set(key, { text: "", chains: new Map() });
    } else if (table === undefined) {
      fail("ENOENT");
    } else if (act === "delete" && what === "table") {
      ns.tables.delete(key);
      for (const set of ns.elements.keys()) if (set.startsWith(`${key} `)) ns.elements.delete(set);
    } else if (act === "flush" && what === "table") {
      for (const rules of table.chains.values()) rules.length = 0;
    } else if (act === "add" && what === "chain") {
      if (!table.chains.has(chain)) table.chains.set(chain, []);
    } else if (act === "flush" && what === "chain") {
      table.chains.set(chain, []);
    } else if (act === "add" && what === "rule") {
      table.chains.get(chain)?.push(words.slice(5).join(" "));
    } else if (act === "delete" && what === "chain") {
      if (!table.chains.delete(chain)) fail("ENOENT");
    }
  }

  /** With a link goes what is on it, and the other end of a veth. */
  #deleteLink(path: string, name: string): void {
    const ns = this.namespaces.get(path);
    const link = ns?.links.get(name);
    if (ns === undefined || link === undefined) return;
    ns.links.delete(name);
    ns.tunnels.delete(name);
    // What is carried by it goes with it, wherever that is.
    for (const [where, other] of path === "" ? this.namespaces : []) {
      for (const one of other.links.values()) if ("link" in one && one.link === name) this.#deleteLink(where, one.name);
    }
    for (const map of [ns.addresses, ns.routes, ns.neighbours, ns.fdb] as Map<string, { link?: string }>[]) {
      for (const [key, value] of map) if (value.link === name) map.delete(key);
    }
    if (link.far !== undefined) this.#deleteLink(link.far.namespace, link.far.name);
  }
}
