/** What the transport asks of the one who uses it, and what it offers beyond the port that the member knows. */
import type { MemberId, Message } from "../core/types.ts";
import type { Transport } from "../ports.ts";
import type { Outcome } from "../proposals.ts";
import type { ReadOutcome } from "../reads.ts";

/** Who this process is. Each stream names it, and each is refused that does not fit. */
export interface LocalMember {
  readonly id: MemberId;
  readonly clusterId: string;
  /** Counted up by force-new-cluster. */
  readonly clusterIncarnation: number;
  /** One life of the data folder: 32 hexadecimal digits. */
  readonly dataIncarnation: string;
  /** HOST:PORT at which the others reach this member. */
  readonly address: string;
}

/** A peer as its certificate and its hello name it. */
export interface RemoteMember {
  readonly id: MemberId;
  readonly nodeId: string;
  readonly dataIncarnation: string;
  readonly address: string;
}

/**
 * Whether a peer of this cluster may talk to this member. "removed": it will be told so, signed. "replaced": its data
 * folder is not the one that this id had. "unknown": only when this member is certain; a member that lags behind must
 * accept those it has not heard of, or a new majority could never reach it.
 */
export type Standing = "member" | "removed" | "replaced" | "unknown";

/** Called in the order of arrival per stream, outside of any call into the transport. */
export interface TransportHandlers {
  receive(message: Message): void;
  /** A stream to `peer` broke or something for it was dropped; said at most once a turn and peer. */
  unreachable(peer: MemberId): void;
  /** A stream to `peer` that had worked broke, and its port then refused a new connection: its process has ended. */
  gone(peer: MemberId): void;
  /** A command that a member sent by `Transport.forward`. */
  receiveForwarded(command: Uint8Array): void;
  standing(peer: RemoteMember): Standing;
  /**
   * Proposes what another member forwarded. `done` is called once; `result` of a committed outcome are the bytes that
   * travel back (a Uint8Array; anything else is an empty answer).
   * @returns gives up what was not appended yet; `done` need not be called after that
   */
  propose(command: Uint8Array, done: (outcome: Outcome) => void): () => void;
  readIndex(done: (outcome: ReadOutcome) => void): void;
  /** Another member says, signed by the cluster, that this one has been removed. */
  removed(): void;
}

export interface MemberAddress {
  readonly id: MemberId;
  readonly address: string;
}

/** What a forwarded proposal came to; "unknown" also when the stream broke after it had left. */
export type ForwardOutcome = Outcome;

export interface ForwardOptions {
  /** After this long the outcome is "unknown" (a proposal) or "retry" (a read), whatever happens later. */
  readonly timeoutMs: number;
}

export interface RaftTransport extends Transport, AsyncDisposable {
  /** Who is to be reached where. Streams to others are closed; a changed address is dialled anew. */
  setMembers(members: readonly MemberAddress[]): void;
  /** Lets `to`, the leader, propose for a caller here. `done` is called exactly once. @returns gives it up */
  forwardProposal(
    to: MemberId,
    command: Uint8Array,
    options: ForwardOptions,
    done: (outcome: ForwardOutcome) => void,
  ): () => void;
  /** Asks `to`, the leader, for a read index; wait until it is applied here. `done` is called exactly once. */
  forwardReadIndex(to: MemberId, options: ForwardOptions, done: (outcome: ReadOutcome) => void): void;
  /** One entry per peer, by member id. */
  metrics(): ReadonlyMap<MemberId, PeerMetrics>;
}

/** Counters since the start unless said otherwise; what an operator sees per peer (raft.md §3.4). */
export interface PeerMetrics {
  /** Both streams to it are up. */
  readonly connected: boolean;
  /** From a heartbeat to its answer, smoothed; undefined before the first. */
  readonly rttMs: number | undefined;
  /** Since the last message from this peer; undefined before the first. */
  readonly lastHeardMs: number | undefined;
  /** Streams that broke after they had been accepted. */
  readonly streamResets: number;
  readonly connectFailures: number;
  /** Why this peer refuses us, or the last connection failed: an error code. */
  readonly lastError: string | undefined;
  readonly messagesSent: number;
  readonly messagesReceived: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** Handed over and not yet taken by the connection. */
  readonly queuedBytes: number;
  /** Dropped because the peer was not connected or its byte budget was full. */
  readonly messagesDropped: number;
  /** Messages of a kind that this release does not know. */
  readonly messagesUnknown: number;
  readonly messagesMalformed: number;
  readonly snapshotBytesSent: number;
  readonly snapshotBytesReceived: number;
  /** How long sending snapshots was held back by the rate limit. */
  readonly snapshotThrottledSeconds: number;
}
