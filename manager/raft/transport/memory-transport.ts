/**
 * The transport within one process, for tests and for several managers in one program: no sockets and no certificates, the
 * same promises (one conformance suite). Messages travel as bytes through the real codec, so that nothing is shared by
 * reference. Who delivers when is the network's owner's to say, by `defer`.
 */
import { noMember, type MemberId, type Message, type SnapshotRequest } from "../core/types.ts";
import type { Outcome } from "../proposals.ts";
import type { ReadOutcome } from "../reads.ts";
import type { SnapshotReader, SnapshotReceiver, SnapshotTransfers } from "../snapshot/transfer.ts";
import { AppendEncoder } from "./append-codec.ts";
import { decodeFrame, encodeCommand, encodeMessage } from "./codec.ts";
import { NotConnected, TransportClosed } from "./errors.ts";
import { PeerStats } from "./peer-stats.ts";
import type {
  ForwardOptions,
  LocalMember,
  MemberAddress,
  PeerMetrics,
  RaftTransport,
  TransportHandlers,
} from "./types.ts";

export interface MemoryNetworkOptions {
  /** Runs `act` later, in the order of the calls. */
  readonly defer: (act: () => void) => void;
  readonly nowMs: () => number;
}

export class MemoryNetwork {
  readonly #options: MemoryNetworkOptions;
  readonly #transports = new Map<MemberId, MemoryTransport>();
  readonly #cuts = new Set<string>();
  /** Counted up by each reset: what was sent under an older number is lost. */
  readonly #streams = new Map<string, number>();

  constructor(options: MemoryNetworkOptions) {
    this.#options = options;
  }

  attach(local: LocalMember, handlers: TransportHandlers, snapshots: SnapshotTransfers): RaftTransport {
    const transport = new MemoryTransport(this, local, handlers, snapshots);
    this.#transports.set(local.id, transport);
    return transport;
  }

  /** Nothing passes from `from` to `to` any more, until healed. */
  cut(from: MemberId, to: MemberId): void {
    this.#cuts.add(`${from} ${to}`);
    this.reset(from, to);
  }

  heal(from: MemberId, to: MemberId): void {
    this.#cuts.delete(`${from} ${to}`);
  }

  /** What is on its way from `from` to `to` is lost, and `from` is told. */
  reset(from: MemberId, to: MemberId): void {
    this.#streams.set(`${from} ${to}`, this.#stream(from, to) + 1);
    this.#transports.get(from)?.broken(to);
  }

  get nowMs(): number {
    return this.#options.nowMs();
  }

  defer(act: () => void): void {
    this.#options.defer(act);
  }

  detach(id: MemberId): void {
    this.#transports.delete(id);
    for (const [other, transport] of this.#transports) {
      this.reset(other, id);
      if (!this.#cuts.has(`${other} ${id}`)) this.defer(() => transport.ended(id));
    }
  }

  expel(id: MemberId): void {
    this.#transports.get(id)?.expelled();
  }

  /** The other end of a stream that stands now, or undefined. */
  connect(from: LocalMember, to: MemberId): MemoryTransport | undefined {
    if (this.#cuts.has(`${from.id} ${to}`)) return undefined;
    const target = this.#transports.get(to);
    return target?.accepts(from) === true ? target : undefined;
  }

  /** Carries something along the stream between two members; `lost` if it breaks meanwhile. */
  carry(from: LocalMember, to: MemberId, arrive: (target: MemoryTransport) => void, lost?: () => void): boolean {
    if (this.connect(from, to) === undefined) return false;
    const stream = this.#stream(from.id, to);
    this.defer(() => {
      const target = stream === this.#stream(from.id, to) ? this.connect(from, to) : undefined;
      if (target === undefined) lost?.();
      else arrive(target);
    });
    return true;
  }

  #stream(from: MemberId, to: MemberId): number {
    return this.#streams.get(`${from} ${to}`) ?? 0;
  }
}

class MemoryTransport implements RaftTransport {
  readonly local: LocalMember;
  readonly handlers: TransportHandlers;
  readonly snapshots: SnapshotTransfers;
  readonly #network: MemoryNetwork;
  readonly #appends = new AppendEncoder();
  readonly #stats = new Map<MemberId, PeerStats>();
  readonly #unreachable = new Set<MemberId>();
  /** Requests on their way to each member, to be told when the stream breaks. */
  readonly #asked = new Map<MemberId, Set<() => void>>();
  #members = new Set<MemberId>();
  #toldRemoved = false;
  #disposed = false;

  constructor(network: MemoryNetwork, local: LocalMember, handlers: TransportHandlers, snapshots: SnapshotTransfers) {
    this.#network = network;
    this.local = local;
    this.handlers = handlers;
    this.snapshots = snapshots;
  }

  send(message: Message): void {
    const stats = this.#statsOf(message.to);
    const bytes = encodeMessage(message, this.#appends);
    if (!this.#carry(message.to, (target) => target.#arrived(this.local.id, bytes))) {
      stats.messagesDropped++;
      this.#report(message.to);
      return;
    }
    stats.sent(message, bytes.length, this.#network.nowMs);
  }

  sendSnapshot(request: SnapshotRequest, done: (error: Error | undefined) => void): void {
    const settle = (error: Error | undefined): void => {
      this.#network.defer(() => {
        if (!this.#disposed) done(error);
      });
    };
    if (!this.#members.has(request.to)) return settle(new NotConnected(request.to));
    this.snapshots.openReader(request.meta, (error, reader) => {
      if (reader === undefined) return settle(error ?? new NotConnected(request.to));
      const target = this.#disposed ? undefined : this.#network.connect(this.local, request.to);
      const end = (failed: Error | undefined): void => {
        reader.close();
        settle(failed);
      };
      if (target === undefined) return end(this.#disposed ? new TransportClosed() : new NotConnected(request.to));
      target.snapshots.openReceiver(this.local.id, reader.offer, (refused, receiver) => {
        if (receiver === undefined) end(refused ?? new NotConnected(request.to));
        else this.#moveChunks(request, reader, receiver, end);
      });
      return undefined;
    });
    return undefined;
  }

  forward(to: MemberId, command: Uint8Array): void {
    const bytes = encodeCommand(command);
    if (!this.#carry(to, (target) => target.#arrived(this.local.id, bytes))) this.#statsOf(to).messagesDropped++;
  }

  forwardProposal(
    to: MemberId,
    command: Uint8Array,
    options: ForwardOptions,
    done: (outcome: Outcome) => void,
  ): () => void {
    let cancel: (() => void) | undefined;
    const settle = this.#ask(to, { kind: "unknown" }, done);
    const giveUp = (): void => {
      cancel?.();
      settle({ kind: "unknown" });
    };
    const sent = this.#carry(to, (target) => {
      cancel = target.handlers.propose(Uint8Array.from(command), (outcome) => {
        this.#network.defer(() =>
          settle(outcome.kind === "stopped" ? { kind: "notLeader", leader: noMember } : outcome),
        );
      });
    });
    if (!sent) settle({ kind: "notLeader", leader: noMember });
    else if (options.timeoutMs <= 0) giveUp();
    return giveUp;
  }

  forwardReadIndex(to: MemberId, _options: ForwardOptions, done: (outcome: ReadOutcome) => void): void {
    const settle = this.#ask<ReadOutcome>(to, { kind: "retry" }, done);
    const sent = this.#carry(to, (target) => {
      target.handlers.readIndex((outcome) => {
        this.#network.defer(() => settle(outcome.kind === "ready" ? outcome : { kind: "retry" }));
      });
    });
    if (!sent) settle({ kind: "retry" });
  }

  setMembers(members: readonly MemberAddress[]): void {
    this.#members = new Set(members.map(({ id }) => id));
    this.#members.delete(this.local.id);
  }

  metrics(): ReadonlyMap<MemberId, PeerMetrics> {
    const { nowMs } = this.#network;
    return new Map(
      [...this.#members].map((id) => {
        const connected = this.#network.connect(this.local, id) !== undefined;
        return [id, this.#statsOf(id).read({ connected, queuedBytes: 0, nowMs })];
      }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#network.detach(this.local.id);
    for (const asked of this.#asked.values()) for (const lost of asked) lost();
    await Promise.resolve();
  }

  /** Whether this member lets `from` open a stream to it; one that was removed is told so. */
  accepts(from: LocalMember): boolean {
    if (this.#disposed || from.clusterId !== this.local.clusterId) return false;
    if (from.clusterIncarnation !== this.local.clusterIncarnation) return false;
    const { id, dataIncarnation, address } = from;
    const standing = this.handlers.standing({ id, nodeId: String(id), dataIncarnation, address });
    if (standing === "removed") this.#network.expel(id);
    return standing === "member";
  }

  /** What was on its way to `to` is lost. */
  broken(to: MemberId): void {
    this.#statsOf(to).streamResets++;
    this.#report(to);
    for (const lost of this.#asked.get(to) ?? []) lost();
  }

  /** Nobody is there any more. */
  ended(peer: MemberId): void {
    if (!this.#disposed && this.#members.has(peer)) this.handlers.gone(peer);
  }

  /** The cluster says that this member has been removed. */
  expelled(): void {
    if (this.#toldRemoved || this.#disposed) return;
    this.#toldRemoved = true;
    this.#network.defer(() => {
      if (!this.#disposed) this.handlers.removed();
    });
  }

  #carry(to: MemberId, arrive: (target: MemoryTransport) => void): boolean {
    if (this.#disposed || !this.#members.has(to)) return false;
    return this.#network.carry(this.local, to, arrive);
  }

  #arrived(from: MemberId, bytes: Uint8Array): void {
    const stats = this.#statsOf(from);
    const decoded = decodeFrame(bytes, from, this.local.id);
    if (decoded.kind === "message") {
      stats.received(decoded.message, bytes.length, this.#network.nowMs);
      this.handlers.receive(decoded.message);
    } else if (decoded.kind === "command") {
      stats.heard(bytes.length, this.#network.nowMs);
      this.handlers.receiveForwarded(decoded.command);
    }
  }

  #moveChunks(
    request: SnapshotRequest,
    reader: SnapshotReader,
    receiver: SnapshotReceiver,
    end: (error: Error | undefined) => void,
  ): void {
    const { offer } = reader;
    const fail = (error: Error): void => {
      receiver.suspend();
      end(error);
    };
    const next = (): void => {
      if (receiver.nextChunk === offer.chunks) {
        receiver.finish((error) => {
          if (error !== undefined) return end(error);
          const target = this.#network.connect(this.local, request.to);
          target?.handlers.receive({ ...request, meta: offer.meta });
          return end(undefined);
        });
        return;
      }
      reader.read(receiver.nextChunk, (error, chunk) => {
        if (chunk === undefined) return fail(error ?? new NotConnected(request.to));
        this.#statsOf(request.to).snapshotBytesSent += chunk.data.length;
        const sent = this.#network.carry(
          this.local,
          request.to,
          () => receiver.write(chunk, (failed) => (failed === undefined ? next() : fail(failed))),
          () => fail(new NotConnected(request.to)),
        );
        if (!sent) fail(new NotConnected(request.to));
        return undefined;
      });
    };
    next();
  }

  /** @returns settles once; until then a broken stream settles with `lost` */
  #ask<T>(to: MemberId, lost: T, done: (outcome: T) => void): (outcome: T) => void {
    let settled = false;
    const asked = this.#asked.get(to) ?? new Set();
    this.#asked.set(to, asked);
    const settle = (outcome: T): void => {
      if (settled) return;
      settled = true;
      asked.delete(giveUp);
      this.#network.defer(() => done(outcome));
    };
    const giveUp = (): void => settle(lost);
    asked.add(giveUp);
    return settle;
  }

  #statsOf(id: MemberId): PeerStats {
    let stats = this.#stats.get(id);
    if (stats === undefined) {
      stats = new PeerStats();
      this.#stats.set(id, stats);
    }
    return stats;
  }

  #report(id: MemberId): void {
    if (this.#disposed) return;
    if (this.#unreachable.size === 0) {
      this.#network.defer(() => {
        const told = [...this.#unreachable];
        this.#unreachable.clear();
        for (const peer of told) if (!this.#disposed) this.handlers.unreachable(peer);
      });
    }
    this.#unreachable.add(id);
  }
}
