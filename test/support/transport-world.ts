/** Members with real transports on loopback, each pair and direction behind a relay of its own that can misbehave. */
import { Random } from "../../lib/pure/prng.ts";
import { RpcServer } from "../../lib/rpc/index.ts";
import type { TlsIdentity } from "../../lib/pki/index.ts";
import { realClock, silentLogger, type Clock, type Logger } from "../../lib/runtime/index.ts";
import type { MemberId } from "../../manager/raft/core/types.ts";
import type { SnapshotTransfers } from "../../manager/raft/snapshot/index.ts";
import { GrpcTransport, type LocalMember, type TransportLimits } from "../../manager/raft/transport/index.ts";
import { Heard, connected, type Node, type World } from "../conformance/raft-transport.ts";
import { createClusterPki, type ClusterPki } from "./cluster-pki.ts";
import { MemorySnapshots } from "./memory-snapshots.ts";
import { Relay } from "./relay.ts";

export interface GrpcNode extends Node {
  readonly transport: GrpcTransport;
  readonly server: RpcServer;
  readonly address: string;
  readonly tls: TlsIdentity;
  readonly bugs: unknown[];
}

export interface GrpcWorldOptions {
  readonly limits?: Partial<TransportLimits>;
  readonly logger?: Logger;
  readonly clock?: Clock;
}

let sharedPki: Promise<ClusterPki> | undefined;

/** One authority for all tests of a file: making one takes time, and nothing of it changes. */
export function testPki(): Promise<ClusterPki> {
  sharedPki ??= createClusterPki();
  return sharedPki;
}

export function localMember(id: MemberId, clusterId: string, overrides: Partial<LocalMember> = {}): LocalMember {
  return {
    id,
    clusterId,
    clusterIncarnation: 1,
    dataIncarnation: id.toString(16).padStart(32, "0"),
    // Not reachable: tests go through relays, whose addresses setMembers tells.
    address: "127.0.0.1:1",
    ...overrides,
  };
}

const patient = { reconnectMinMs: 5, reconnectMaxMs: 40, silentMsMax: 60_000, handshakeTimeoutMs: 20_000 };

export class GrpcWorld implements World {
  readonly nodes: GrpcNode[] = [];
  readonly #relays = new Map<string, Relay>();
  readonly #options: GrpcWorldOptions;

  constructor(options: GrpcWorldOptions = {}) {
    this.#options = options;
  }

  async start(count: number): Promise<GrpcNode[]> {
    for (let id = 1; id <= count; id++) await this.add(id);
    await this.connectAll();
    return this.nodes;
  }

  /**
   * A member that listens, and does not know anybody yet.
   * @param overrides  `address: "its own"` lets it claim where it really listens
   */
  async add(
    id: MemberId,
    overrides: { address?: string; tls?: TlsIdentity; transfers?: SnapshotTransfers } = {},
  ): Promise<GrpcNode> {
    const pki = await testPki();
    const snapshots = new MemorySnapshots();
    const { tls = await pki.manager(id), transfers = snapshots, ...local } = overrides;
    const bugs: unknown[] = [];
    const server = new RpcServer({ tls, wallMs: Date.now, onBug: (_path, error) => bugs.push(error) });
    const address = `127.0.0.1:${await server.listen("127.0.0.1:0")}`;
    if (local.address === "its own") local.address = address;
    const heard = new Heard();
    const transport = new GrpcTransport({
      local: localMember(id, pki.clusterId, local),
      tls,
      server,
      handlers: heard,
      snapshots: transfers,
      clock: this.#options.clock ?? realClock,
      random: new Random(id),
      logger: this.#options.logger ?? silentLogger,
      // Most scenes answer nothing, and a busy machine may take seconds for it: only scenes about silence give up for that.
      limits: { ...patient, ...this.#options.limits },
    });
    const node: GrpcNode = { id, transport, heard, snapshots, server, address, tls, bugs };
    this.nodes.push(node);
    return node;
  }

  async connectAll(): Promise<void> {
    for (const node of this.nodes) {
      const others = this.nodes.filter((other) => other !== node);
      const members = await Promise.all(
        others.map(async (other) => ({ id: other.id, address: (await this.relay(node, other)).address })),
      );
      node.transport.setMembers(members);
    }
    for (const node of this.nodes) {
      for (const other of this.nodes) if (other !== node) await connected(node, other.id);
    }
  }

  /** The relay on the way from one member to another. */
  async relay(from: Node, to: GrpcNode): Promise<Relay> {
    const key = `${from.id} ${to.id}`;
    const relay = this.#relays.get(key) ?? (await Relay.open(to.address));
    this.#relays.set(key, relay);
    return relay;
  }

  opened(from: Node, to: Node): Relay {
    const relay = this.#relays.get(`${from.id} ${to.id}`);
    if (relay === undefined) throw new Error(`no relay from ${from.id} to ${to.id}`);
    return relay;
  }

  reset(from: Node, to: Node): void {
    this.opened(from, to).break();
  }

  cut(from: Node, to: Node): void {
    this.opened(from, to).refuse();
  }

  heal(from: Node, to: Node): void {
    this.opened(from, to).heal();
  }

  async end(node: Node): Promise<void> {
    await node.transport[Symbol.asyncDispose]();
    await this.nodes.find(({ id }) => id === node.id)?.server[Symbol.asyncDispose]();
    for (const other of this.nodes) {
      if (other.id !== node.id) await this.opened(other, node)[Symbol.asyncDispose]();
    }
  }

  addressOf(id: MemberId): string {
    return this.nodes.find((node) => node.id === id)?.address ?? "127.0.0.1:1";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { transport } of this.nodes) await transport[Symbol.asyncDispose]();
    for (const { server } of this.nodes) await server[Symbol.asyncDispose]();
    for (const relay of this.#relays.values()) await relay[Symbol.asyncDispose]();
    const bugs = this.nodes.flatMap((node) => node.bugs);
    if (bugs.length > 0) throw bugs[0];
  }
}
