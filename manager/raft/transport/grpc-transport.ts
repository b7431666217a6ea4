/**
 * The transport between real processes: gRPC streams over mutual TLS. To each peer go a control stream and a data stream,
 * each on a connection of its own, so that a heartbeat never waits behind an append; snapshots and forwarded requests have
 * theirs. What comes in is believed to be from whom the certificate names.
 */
import { readStatement, type TlsIdentity } from "../../../lib/pki/index.ts";
import { ClusterError } from "../../../lib/pure/errors.ts";
import type { Random } from "../../../lib/pure/prng.ts";
import type { RpcServer } from "../../../lib/rpc/index.ts";
import type { Clock, Logger, Timer } from "../../../lib/runtime/index.ts";
import { noMember, type MemberId, type Message, type SnapshotRequest } from "../core/types.ts";
import type { ReadOutcome } from "../reads.ts";
import type { SnapshotTransfers } from "../snapshot/transfer.ts";
import { Acceptor, removedStatement, type IncomingEvents } from "./acceptor.ts";
import { AppendEncoder } from "./append-codec.ts";
import { decodeFrame, encodeCommand, encodeMessage } from "./codec.ts";
import { openForward } from "./forward-service.ts";
import { defaultTransportLimits, type TransportLimits } from "./limits.ts";
import { controlMethod, dataMethod, forwardMethod, snapshotMethod } from "./methods.ts";
import { Peer } from "./peer.ts";
import { PeerStats } from "./peer-stats.ts";
import { SnapshotInbox } from "./snapshot-receiver.ts";
import { SnapshotSender } from "./snapshot-sender.ts";
import type {
  ForwardOptions,
  ForwardOutcome,
  LocalMember,
  MemberAddress,
  PeerMetrics,
  RaftTransport,
  RemoteMember,
  TransportHandlers,
} from "./types.ts";

export interface GrpcTransportOptions {
  readonly local: LocalMember;
  readonly tls: TlsIdentity;
  /** The four streams are added to it; its owner lets it listen, and ends it after the transport. */
  readonly server: RpcServer;
  readonly handlers: TransportHandlers;
  readonly snapshots: SnapshotTransfers;
  readonly clock: Clock;
  /** For the pauses between tries. */
  readonly random: Random;
  readonly logger: Logger;
  readonly limits?: Partial<TransportLimits>;
}

/** Peers that we know only from their own streams: more of them than this are not dialled back. */
const strangersMax = 16;
const refusalLogMs = 60_000;
const refusalsRemembered = 256;
/** Commands of members themselves are small (a vote on a state hash). */
const commandBytesMax = 64 * 1024;

export class GrpcTransport implements RaftTransport {
  readonly #options: GrpcTransportOptions;
  readonly #limits: TransportLimits;
  readonly #logger: Logger;
  readonly #appends = new AppendEncoder();
  readonly #acceptor: Acceptor;
  readonly #sender: SnapshotSender;
  readonly #inbox: SnapshotInbox;
  readonly #peers = new Map<MemberId, Peer>();
  /** In the order in which they were first met. */
  readonly #strangers = new Set<MemberId>();
  readonly #unreachable = new Set<MemberId>();
  /** When each refusal was last logged. */
  readonly #refusals = new Map<string, number>();
  readonly #watch: Timer;
  #watchedMs: number;
  #toldRemoved = false;
  #disposed = false;

  constructor(options: GrpcTransportOptions) {
    this.#options = options;
    this.#limits = { ...defaultTransportLimits, ...options.limits };
    this.#logger = options.logger.child("transport");
    const { local, tls, clock, handlers, server, snapshots } = options;
    const limits = this.#limits;
    this.#acceptor = new Acceptor({
      local,
      tls,
      clock,
      standing: (peer) => handlers.standing(peer),
      refused: (peer, error) => this.#refused(peer, error),
    });
    this.#sender = new SnapshotSender({
      transfers: snapshots,
      target: (to) => this.#peers.get(to),
      clock,
      limits,
    });
    this.#inbox = new SnapshotInbox({
      transfers: snapshots,
      local: local.id,
      receive: (request) => this.#receive(request),
    });
    this.#acceptor.serve(server, controlMethod, (peer) => this.#incoming(peer));
    this.#acceptor.serve(server, dataMethod, (peer) => this.#incoming(peer));
    this.#acceptor.serve(server, snapshotMethod, (peer, stream) =>
      this.#inbox.open(peer.id, this.#met(peer).stats, stream),
    );
    this.#acceptor.serve(server, forwardMethod, (peer, stream) => {
      const { stats } = this.#met(peer);
      return openForward(stream, handlers, {
        clock,
        limits,
        heard: (bytes) => stats.heard(bytes, clock.monotonicMs()),
      });
    });
    this.#watchedMs = clock.monotonicMs();
    this.#watch = clock.every(limits.silentMsMax / 4, () => this.#checkSilence());
  }

  // ---- Out -----------------------------------------------------------------------------------------------------

  send(message: Message): void {
    const peer = this.#peers.get(message.to);
    if (peer === undefined || this.#disposed) {
      this.#report(message.to);
      return;
    }
    const link = message.type === "append" ? peer.data : peer.control;
    // Not even encoded while there is nobody to send it to.
    const frame = link.up ? encodeMessage(message, this.#appends) : undefined;
    if (frame === undefined || !link.send(frame)) {
      peer.stats.messagesDropped++;
      this.#report(message.to);
      return;
    }
    peer.stats.sent(message, frame.length, this.#options.clock.monotonicMs());
  }

  sendSnapshot(request: SnapshotRequest, done: (error: Error | undefined) => void): void {
    this.#sender.send(request, (error) => {
      if (!this.#disposed) done(error);
    });
  }

  forward(to: MemberId, command: Uint8Array): void {
    const peer = this.#peers.get(to);
    if (peer === undefined || this.#disposed || command.length > commandBytesMax) return;
    const frame = encodeCommand(command);
    if (peer.control.send(frame)) peer.stats.bytesSent += frame.length;
    else peer.stats.messagesDropped++;
  }

  forwardProposal(
    to: MemberId,
    command: Uint8Array,
    options: ForwardOptions,
    done: (outcome: ForwardOutcome) => void,
  ): () => void {
    const peer = this.#peers.get(to);
    if (peer !== undefined && !this.#disposed) return peer.forwarder.propose(command, options.timeoutMs, done);
    queueMicrotask(() => done({ kind: "notLeader", leader: noMember }));
    return () => {};
  }

  forwardReadIndex(to: MemberId, options: ForwardOptions, done: (outcome: ReadOutcome) => void): void {
    const peer = this.#peers.get(to);
    if (peer !== undefined && !this.#disposed) peer.forwarder.readIndex(options.timeoutMs, done);
    else queueMicrotask(() => done({ kind: "retry" }));
  }

  // ---- Who -----------------------------------------------------------------------------------------------------

  setMembers(members: readonly MemberAddress[]): void {
    if (this.#disposed) return;
    const wanted = new Map(members.map(({ id, address }) => [id, address]));
    wanted.delete(this.#options.local.id);
    for (const [id, peer] of this.#peers) {
      const address = wanted.get(id);
      // One that reaches us although our list does not have it yet may be the new majority's leader.
      if (address === undefined && this.#strangers.has(id) && this.#acceptor.has(controlMethod, id)) continue;
      if (address === peer.address && address !== undefined) continue;
      peer[Symbol.dispose]();
      this.#peers.delete(id);
      this.#strangers.delete(id);
      if (address === undefined) this.#sender.cancel(id);
      else this.#peers.set(id, this.#newPeer(id, { known: address }, peer.stats));
    }
    for (const [id, address] of wanted) {
      if (!this.#peers.has(id)) this.#peers.set(id, this.#newPeer(id, { known: address }));
    }
    this.#acceptor.recheck();
  }

  metrics(): ReadonlyMap<MemberId, PeerMetrics> {
    const nowMs = this.#options.clock.monotonicMs();
    return new Map(
      [...this.#peers].map(([id, peer]) => {
        const queuedBytes = peer.control.queuedBytes + peer.data.queuedBytes;
        return [id, peer.stats.read({ connected: peer.control.up && peer.data.up, queuedBytes, nowMs })];
      }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#watch.cancel();
    this.#unreachable.clear();
    this.#sender[Symbol.dispose]();
    this.#inbox[Symbol.dispose]();
    this.#acceptor[Symbol.dispose]();
    for (const peer of this.#peers.values()) peer[Symbol.dispose]();
    this.#peers.clear();
    await Promise.resolve();
  }

  #newPeer(id: MemberId, addresses: { readonly known?: string; readonly claimed?: string }, stats?: PeerStats): Peer {
    const { local, tls, clock, random } = this.#options;
    const options = {
      id,
      local,
      tls,
      clock,
      random,
      logger: this.#logger,
      limits: this.#limits,
      down: () => this.#report(id),
      gone: () => {
        if (!this.#disposed) this.#options.handlers.gone(id);
      },
      statement: (bytes: Uint8Array) => this.#readStatement(bytes),
    };
    return new Peer(options, addresses, stats);
  }

  /** A peer has opened a stream to us: it is alive, and reached where it says. */
  #met(remote: RemoteMember): Peer {
    let peer = this.#peers.get(remote.id);
    if (peer === undefined) {
      for (const oldest of this.#strangers) {
        if (this.#strangers.size < strangersMax) break;
        this.#strangers.delete(oldest);
        this.#peers.get(oldest)?.[Symbol.dispose]();
        this.#peers.delete(oldest);
      }
      peer = this.#newPeer(remote.id, { claimed: remote.address });
      this.#strangers.add(remote.id);
      this.#peers.set(remote.id, peer);
    } else {
      peer.claims(remote.address);
      peer.control.nudge();
      peer.data.nudge();
    }
    return peer;
  }

  // ---- In ------------------------------------------------------------------------------------------------------

  #incoming(remote: RemoteMember): IncomingEvents {
    const { clock, local, handlers } = this.#options;
    this.#met(remote);
    return {
      message: (bytes) => {
        if (this.#disposed) return;
        // Looked up each time: it may have been made anew since, with another address.
        const stats = this.#peers.get(remote.id)?.stats ?? new PeerStats();
        let decoded: ReturnType<typeof decodeFrame>;
        try {
          decoded = decodeFrame(bytes, remote.id, local.id);
        } catch (error) {
          stats.messagesMalformed++;
          throw error;
        }
        const nowMs = clock.monotonicMs();
        switch (decoded.kind) {
          case "message":
            stats.received(decoded.message, bytes.length, nowMs);
            handlers.receive(decoded.message);
            break;
          case "command":
            stats.heard(bytes.length, nowMs);
            handlers.receiveForwarded(decoded.command);
            break;
          case "hello":
          case "unknown":
            stats.heard(bytes.length, nowMs);
            stats.messagesUnknown++;
        }
      },
      closed: () => {},
    };
  }

  /** One that is refused tries again and again: a line a minute is enough. */
  #refused(peer: MemberId | undefined, error: ClusterError): void {
    const nowMs = this.#options.clock.monotonicMs();
    const key = `${peer} ${error.code}`;
    if (nowMs - (this.#refusals.get(key) ?? -Infinity) < refusalLogMs) return;
    if (this.#refusals.size >= refusalsRemembered) this.#refusals.clear();
    this.#refusals.set(key, nowMs);
    this.#logger.warn("a member is refused", { peer, error });
  }

  #receive(message: Message): void {
    if (!this.#disposed) this.#options.handlers.receive(message);
  }

  /** Told after the current turn, once for each peer: the one who is told may be in the middle of sending. */
  #report(id: MemberId): void {
    if (this.#disposed) return;
    if (this.#unreachable.size === 0) {
      setImmediate(() => {
        const told = [...this.#unreachable];
        this.#unreachable.clear();
        for (const peer of told) if (!this.#disposed) this.#options.handlers.unreachable(peer);
      });
    }
    this.#unreachable.add(id);
  }

  #checkSilence(): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#acceptor.endExpired();
    const lateMs = nowMs - this.#watchedMs;
    this.#watchedMs = nowMs;
    for (const peer of this.#peers.values()) {
      // If this process was asleep itself, the answers are waiting to be read.
      if (lateMs > this.#limits.silentMsMax / 2) peer.stats.forgive();
      const silentMs = peer.stats.silentMs(nowMs);
      if (silentMs > this.#limits.silentMsMax) peer.silent(silentMs);
    }
  }

  #readStatement(bytes: Uint8Array): void {
    const { local, tls, clock, handlers } = this.#options;
    if (this.#toldRemoved || this.#disposed) return;
    try {
      const trust = { roots: tls.roots, clusterId: local.clusterId, nowMs: clock.wallMs() };
      const { kind, subject } = readStatement(bytes, trust);
      if (kind !== removedStatement || subject !== String(local.id)) return;
    } catch (error) {
      if (!(error instanceof ClusterError)) throw error;
      this.#logger.warn("a peer says that this member was removed, and cannot prove it", { error });
      return;
    }
    this.#toldRemoved = true;
    setImmediate(() => {
      if (!this.#disposed) handlers.removed();
    });
  }
}
