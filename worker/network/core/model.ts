/**
 * All that is known of networks on this node, and the objects wanted because of it, by namespace. A changed fact touches
 * the objects of that fact; a change of this node itself makes every part anew. The order in which facts come is no matter.
 */
import { invariant } from "../../../lib/pure/errors.ts";
import { Namespace } from "./namespace.ts";
import type { MakePart, Part, Placement, SandboxFacts, Self } from "./part.ts";
import { endpointKey, serviceKey, type NetworkRecords, type RecordChange } from "./records.ts";
import type { EndpointRecord, PeerRecord, ServiceRecord } from "./records.ts";
import { longerHeaderBytes, sameFamily } from "./underlay.ts";

const underlayMtuDefault = 1500;
/** Less than this carries no IPv4 (RFC 791), and is no fact to build on. */
const underlayMtuMin = 576;

export class Model {
  readonly #makers: readonly MakePart[];
  readonly #namespaces = new Map<string, Namespace>();
  readonly #peers = new Map<string, PeerRecord>();
  readonly #strangers = new Map<string, PeerRecord>();
  readonly #endpoints = new Map<string, EndpointRecord>();
  readonly #services = new Map<string, ServiceRecord>();
  readonly #sandboxes = new Map<string, SandboxFacts>();
  readonly #placement: Placement;
  #self: Self;
  #parts: readonly Part[];

  /** @param self  as remembered, until `replace` tells it */
  constructor(makers: readonly MakePart[], self: Self) {
    this.#makers = makers;
    this.#self = self;
    this.#placement = {
      set: (path, group, objects) => {
        if (objects.length > 0 || this.#namespaces.has(path)) this.namespace(path).set(group, objects);
      },
      forget: (path, connections) => this.#namespaces.get(path)?.forget(connections),
    };
    this.#parts = this.#make();
  }

  get self(): Self {
    return this.#self;
  }

  get sandboxes(): ReadonlyMap<string, SandboxFacts> {
    return this.#sandboxes;
  }

  get peers(): ReadonlyMap<string, PeerRecord> {
    return this.#peers;
  }

  /** Of the peers, those whose frames come by the other family of IP: nothing leads to them. */
  get strangers(): ReadonlyMap<string, PeerRecord> {
    return this.#strangers;
  }

  get endpoints(): ReadonlyMap<string, EndpointRecord> {
    return this.#endpoints;
  }

  get services(): ReadonlyMap<string, ServiceRecord> {
    return this.#services;
  }

  /** Those of which something is or was wanted. */
  get namespaces(): ReadonlyMap<string, Namespace> {
    return this.#namespaces;
  }

  namespace(path: string): Namespace {
    let namespace = this.#namespaces.get(path);
    if (namespace === undefined) {
      namespace = new Namespace(path);
      this.#namespaces.set(path, namespace);
    }
    return namespace;
  }

  /** A namespace of ours that is gone from the kernel, too. */
  drop(path: string): void {
    const namespace = this.#namespaces.get(path);
    invariant(namespace === undefined || namespace.size === 0, "nothing is wanted of a dropped namespace", { path });
    this.#namespaces.delete(path);
  }

  /** Complete: what is not in it goes. */
  replace(records: NetworkRecords): void {
    const changes: RecordChange[] = [
      ...listed("peer", this.#peers, records.peers, ({ nodeId }) => nodeId),
      ...listed("service", this.#services, records.services, (one) => serviceKey(one.networkId, one.serviceId)),
      ...listed("endpoint", this.#endpoints, records.endpoints, (one) => endpointKey(one.networkId, one.taskId)),
    ];
    this.#change(changes, records.nodeId);
  }

  change(changes: readonly RecordChange[]): void {
    this.#change(changes, this.#self.nodeId);
  }

  #change(changes: readonly RecordChange[], nodeId: string): void {
    // Peers first, so that what follows from a changed self is made once.
    const peers = changes.filter(({ kind }) => kind === "peer");
    const others = changes.filter(({ kind }) => kind !== "peer");
    const before = peers.map(({ key }) => this.#peers.get(key));
    for (const { key, record } of peers) put(this.#peers, key, record as PeerRecord | undefined);
    const self = this.#selfOf(nodeId);
    if (JSON.stringify(self) !== JSON.stringify(this.#self)) {
      this.#self = self;
      for (const { kind, key, record } of others) {
        if (kind === "endpoint") put(this.#endpoints, key, record);
        if (kind === "service") put(this.#services, key, record);
      }
      this.#remake();
      return;
    }
    peers.forEach(({ key }, at) => {
      const after = this.#meet(key);
      for (const part of this.#parts) part.peer(key, after, this.#reached(before[at]));
    });
    for (const change of others) {
      if (change.kind === "endpoint") {
        const old = this.#endpoints.get(change.key);
        put(this.#endpoints, change.key, change.record);
        for (const part of this.#parts) part.endpoint(change.key, change.record, old);
      } else if (change.kind === "service") {
        const old = this.#services.get(change.key);
        put(this.#services, change.key, change.record);
        for (const part of this.#parts) part.service(change.key, change.record, old);
      }
    }
  }

  /** undefined: it is gone. */
  sandbox(id: string, after: SandboxFacts | undefined): void {
    const before = this.#sandboxes.get(id);
    put(this.#sandboxes, id, after);
    for (const part of this.#parts) part.sandbox(id, after, before);
  }

  #selfOf(nodeId: string): Self {
    const own = this.#peers.get(nodeId);
    // A node is told of itself with all others; until then it is who it was.
    const isSame = own === undefined && nodeId !== "" && nodeId === this.#self.nodeId;
    const addr = isSame ? this.#self.addr : (own?.addr ?? "");
    let underlayMtu = underlayMtuDefault;
    for (const peer of this.#peers.values()) {
      if (peer.mtu >= underlayMtuMin && isReached(addr, peer)) underlayMtu = Math.min(underlayMtu, peer.mtu);
    }
    underlayMtu -= longerHeaderBytes(addr);
    return isSame ? { ...this.#self, underlayMtu } : { nodeId, number: own?.number ?? 0, addr, underlayMtu };
  }

  /** undefined: it is not there for the parts, since this node's frames cannot go to it. */
  #reached(peer: PeerRecord | undefined): PeerRecord | undefined {
    return peer !== undefined && isReached(this.#self.addr, peer) ? peer : undefined;
  }

  /** The same of a peer as it is now, which is a stranger otherwise. */
  #meet(key: string): PeerRecord | undefined {
    const peer = this.#peers.get(key);
    const reached = this.#reached(peer);
    put(this.#strangers, key, reached === undefined ? peer : undefined);
    return reached;
  }

  #make(): readonly Part[] {
    return this.#makers.map((make) => make(this.#self, this.#placement));
  }

  /** Every part anew, told everything; objects that stay the same are not touched. */
  #remake(): void {
    for (const namespace of this.#namespaces.values()) namespace.rebuild();
    this.#parts = this.#make();
    this.#strangers.clear();
    const reached = [...this.#peers.keys()].map((key) => [key, this.#meet(key)] as const);
    for (const part of this.#parts) {
      for (const [key, record] of reached) part.peer(key, record, undefined);
      for (const [id, facts] of this.#sandboxes) part.sandbox(id, facts, undefined);
      for (const [key, record] of this.#services) part.service(key, record, undefined);
      for (const [key, record] of this.#endpoints) part.endpoint(key, record, undefined);
    }
    for (const namespace of this.#namespaces.values()) namespace.settle();
  }
}

/** Outside a swarm nobody is told of. */
const isReached = (own: string, { addr }: PeerRecord): boolean => own === "" || sameFamily(own, addr);

function put<Value>(map: Map<string, Value>, key: string, value: Value | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}

/** The changes that make a table the same as a list. */
function listed<Kind extends RecordChange["kind"], Value>(
  kind: Kind,
  known: ReadonlyMap<string, Value>,
  list: readonly Value[],
  keyOf: (record: Value) => string,
): { kind: Kind; key: string; record: Value | undefined }[] {
  const changes: { kind: Kind; key: string; record: Value | undefined }[] = [];
  const kept = new Set<string>();
  for (const record of list) {
    const key = keyOf(record);
    kept.add(key);
    const old = known.get(key);
    if (old === undefined || JSON.stringify(old) !== JSON.stringify(record)) changes.push({ kind, key, record });
  }
  for (const key of known.keys()) if (!kept.has(key)) changes.push({ kind, key, record: undefined });
  return changes;
}
