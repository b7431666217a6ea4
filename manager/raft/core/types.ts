/**
 * The words of the core: entries, configurations, messages, and what `ready()` hands to the shell.
 * Plain data; the wire form is proto/raft.proto. Scenario numbers refer to the test catalogue's section A.
 */

/** A member of the consensus group: a random integer in 1 .. 2^53-1, never reused (docs/adr). 0 means none. */
export type MemberId = number & { readonly __memberId?: never };

export const noMember: MemberId = 0;

/** "empty" is the entry with which a leader opens its term, and what a refused configuration change becomes. */
export type EntryKind = "normal" | "confChange" | "empty";

export interface Entry {
  readonly term: number;
  readonly index: number;
  readonly kind: EntryKind;
  /** Opaque to raft. A configuration change carries an encoded ConfChange. Never mutated once it is here. */
  readonly data: Uint8Array;
}

/** Must be durable before any message that depends on it leaves (Raft thesis §3.8). */
export interface HardState {
  readonly term: number;
  /** Whom this member voted for in `term`; 0 means nobody. */
  readonly vote: MemberId;
  readonly commit: number;
}

/** Who counts. `votersOutgoing` is non-empty only in a joint configuration (Raft thesis §4.3). Lists are sorted. */
export interface ConfState {
  readonly voters: readonly MemberId[];
  readonly votersOutgoing: readonly MemberId[];
  readonly learners: readonly MemberId[];
  /** Voters of the outgoing half that become learners when the joint configuration is left. */
  readonly learnersNext: readonly MemberId[];
  readonly autoLeave: boolean;
}

export interface ConfChangeStep {
  readonly act: "addVoter" | "addLearner" | "remove" | "update";
  readonly member: MemberId;
}

/** No steps means: leave the joint configuration. */
export interface ConfChange {
  readonly transition: "auto" | "jointImplicit" | "jointExplicit";
  readonly steps: readonly ConfChangeStep[];
  /** Addresses and labels of the members named, for the shell; opaque to the core. */
  readonly context: Uint8Array;
}

export interface SnapshotMeta {
  readonly index: number;
  readonly term: number;
  /** The configuration exactly as of `index`, never newer. */
  readonly conf: ConfState;
}

interface MessageBase {
  readonly from: MemberId;
  readonly to: MemberId;
  readonly term: number;
}

/**
 * What the sender knows to be committed. Configurations take effect when applied, so a member may need a commit index that
 * no leader can bring it: a candidate counting by the old configuration, or a voter that does not know that it is one.
 */
interface KnownCommit {
  readonly commit: number;
  readonly commitTerm: number;
}

export interface VoteRequest extends MessageBase, KnownCommit {
  readonly type: "preVote" | "vote";
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** Set when the leader asked for this campaign (transfer): it overrides the leader lease of the voters. */
  readonly transfer: boolean;
}

export interface VoteResponse extends MessageBase, KnownCommit {
  readonly type: "preVoteResponse" | "voteResponse";
  readonly granted: boolean;
}

export interface AppendRequest extends MessageBase {
  readonly type: "append";
  readonly prevIndex: number;
  readonly prevTerm: number;
  readonly entries: readonly Entry[];
  readonly commit: number;
}

export interface AppendResponse extends MessageBase {
  readonly type: "appendResponse";
  /** Accepted: the last index that this answer covers (prev + count), never the receiver's own last index.
   *  Rejected: the prevIndex that did not match. */
  readonly index: number;
  readonly rejected: boolean;
  /** On rejection, where the follower proposes to go on (Raft thesis §5.3 fast back-off). */
  readonly hintIndex: number;
  readonly hintTerm: number;
}

export interface Heartbeat extends MessageBase {
  readonly type: "heartbeat";
  readonly commit: number;
  /** Number of this round of heartbeats, at least 1. One leader never uses a number twice in its term, so an answer
   *  proves that it was given after the round began: read index, lease and check-quorum all rest on that. */
  readonly round: number;
  /** No answer is needed. One who knows a later term gives it all the same, and so do older releases. */
  readonly unanswered?: boolean;
}

export interface HeartbeatResponse extends MessageBase {
  readonly type: "heartbeatResponse";
  /** The round of the heartbeat answered; 0 answers a leader of an older term and confirms nothing. */
  readonly round: number;
}

/**
 * On the leader an order to the shell: bring this snapshot to `to`, then call `reportSnapshot`. The bytes travel on a
 * stream of their own. The receiving shell steps this message when the bytes are complete and verified, not before.
 */
export interface SnapshotRequest extends MessageBase {
  readonly type: "snapshot";
  readonly meta: SnapshotMeta;
}

export interface TimeoutNow extends MessageBase {
  readonly type: "timeoutNow";
}

export interface ReadIndexRequest extends MessageBase {
  readonly type: "readIndex";
  /** Chosen by the asker, unique for ever at that member (incarnation and counter). */
  readonly requestId: number;
}

export interface ReadIndexResponse extends MessageBase {
  readonly type: "readIndexResponse";
  readonly requestId: number;
  readonly index: number;
  /** The asked member does not lead (or no longer): ask again, with a new id. */
  readonly refused: boolean;
}

export type Message =
  | VoteRequest
  | VoteResponse
  | AppendRequest
  | AppendResponse
  | Heartbeat
  | HeartbeatResponse
  | SnapshotRequest
  | TimeoutNow
  | ReadIndexRequest
  | ReadIndexResponse;

export type Role = "follower" | "preCandidate" | "candidate" | "leader";

export interface SoftState {
  readonly role: Role;
  readonly leader: MemberId;
}

/** A linearizable read that may be served once `applied >= index`. */
export interface ReadState {
  readonly requestId: number;
  readonly index: number;
  /** Served under the leader lease: read first, then ask `leaseHolds()`; if it does not, read again by a new request. */
  readonly lease: boolean;
}

/**
 * What ought to happen next, as plain data. Several may be outstanding.
 * Order for the shell: send `messages`; persist `hardState`, `entries` and `snapshot`; when durable call
 * `persisted(token)` and only then send `messagesAfterPersist`; apply `committed`, then call `applied(index)`.
 */
export interface Ready {
  /**
   * Grows by one with each Ready. `persisted(token)` covers all earlier ones too, since storage works in order. A Ready
   * without anything to persist is durable when the one before it is; reporting it is optional.
   */
  readonly token: number;
  readonly softState: SoftState | undefined;
  /**
   * Set when term or vote changed, with entries, and when a configuration change is committed. A new commit index of
   * anything else is not worth a write.
   */
  readonly hardState: HardState | undefined;
  /** Consecutive. If the storage already holds `entries[0].index`, everything from there on is replaced. */
  readonly entries: readonly Entry[];
  /** Install it (state machine, then log) before `entries`; `committed` pauses until its token is durable. */
  readonly snapshot: SnapshotMeta | undefined;
  readonly messages: readonly Message[];
  /** Empty whenever nothing is left to become durable; such messages are then among `messages`. */
  readonly messagesAfterPersist: readonly Message[];
  /**
   * Durable here, too; a configuration change only when the commit index that covers it is durable as well. At most
   * maxApplyBytes are out at a time; the core hands out more as `applied` advances.
   */
  readonly committed: readonly Entry[];
  readonly readStates: readonly ReadState[];
  /** Request ids of reads that ended without an answer (leader lost, timed out). Ask again with a new id. */
  readonly readFailures: readonly number[];
}

export interface CoreConfig {
  readonly id: MemberId;
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  /** All of the core's chance comes from this one integer. */
  readonly seed: number;
  readonly preVote: boolean;
  /** Always true in production; false exists for tests of the difference. */
  readonly checkQuorum: boolean;
  readonly maxEntriesPerMsgBytes: number;
  readonly maxInflightMsgs: number;
  readonly maxInflightBytes: number;
  readonly maxUncommittedBytes: number;
  readonly maxUncommittedEntries: number;
  readonly maxApplyBytes: number;
  /** One proposal may not be larger. */
  readonly maxEntryBytes: number;
  /** Reads that wait for a quorum round at one time. */
  readonly maxPendingReads: number;
  /** Ceiling of the pause between two attempts to send a snapshot to one follower. */
  readonly snapshotRetryTicksMax: number;
  /** A learner this near to the commit index counts as caught up. */
  readonly promotionLagEntries: number;
  readonly readMode: "readIndex" | "lease";
  /** Lets a new commit index wait for the next append, one tick at most, instead of travelling by itself at once. */
  readonly lazyCommit: boolean;
  /**
   * A follower that has nothing else to tell is asked for an answer to a heartbeat before its last word is older than this,
   * and not with each heartbeat. Well below `electionTicks`, which is how old it may become; 1: each is answered.
   */
  readonly answerTicks: number;
}

/** What storage recovered. `bootstrapState()` and `joinerState()` make the first ones. */
export interface InitialState {
  readonly hardState: HardState;
  /** The newest durable snapshot. */
  readonly snapshot: SnapshotMeta;
  /** Consecutive. They start at `snapshot.index + 1` or before it (trailing entries); see `isLogSuperseded()`. */
  readonly entries: readonly Entry[];
  /** Everything up to here is already in the state machine; at least `snapshot.index`. */
  readonly applied: number;
}

export interface PeerProgress {
  readonly match: number;
  readonly next: number;
  readonly state: "probe" | "replicate" | "snapshot";
  readonly inflightMsgs: number;
  readonly inflightBytes: number;
  readonly paused: boolean;
  /** Answered within the last election timeout. */
  readonly recentActive: boolean;
  readonly isLearner: boolean;
}

/** Where a member stands: what its shell may ask at every turn. */
export interface Standing extends SoftState {
  readonly id: MemberId;
  readonly term: number;
  readonly vote: MemberId;
  readonly commit: number;
  readonly applied: number;
  readonly firstIndex: number;
  /** Bytes of the entries kept in memory. */
  readonly logBytes: number;
  readonly conf: ConfState;
}

export interface Status extends Standing {
  readonly lastIndex: number;
  /** Last index known to be durable on this member. */
  readonly durableIndex: number;
  /** Proposed in this term by this leader and not committed yet. */
  readonly uncommittedBytes: number;
  readonly uncommittedEntries: number;
  readonly pendingReads: number;
  readonly transferTo: MemberId;
  /** Empty unless leader. */
  readonly peers: ReadonlyMap<MemberId, PeerProgress>;
}

/** One line per transition, for traces that can be validated against the published specification (A5). */
export type TraceSink = (event: Readonly<Record<string, unknown>>) => void;
