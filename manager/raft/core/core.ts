/**
 * One member of the consensus group, as a machine: inputs are methods, outputs are what `ready()` returns. It never
 * waits, and knows no clock but `tick()`.
 *
 * The cycle of the shell: give inputs; while `hasReady()`: `ready()`, then do what it says; report with `persisted(token)`
 * and `applied(index)`. Several Readies may be outstanding; storage works in their order.
 */
import { type CompactionPolicy, compactionDefaults, compactionIndex } from "./compaction.ts";
import { campaign, hurryAfter, countOwnVote } from "./election.ts";
import { EntryKindUnknown, RaftInvariantError, type Refusal, type Refused, raftInvariant, refuse } from "./errors.ts";
import { entryBytes, entryOverheadBytes } from "./log.ts";
import { type Proposed, applyConfChange, followThrough, promotableLearners, proposeConfChange } from "./membership.ts";
import { type Taken, isConfirmed, leaseHolds, needsReadRound, readIndex } from "./reads.ts";
import { advanceCommit, hasAppendsToSend, isRecentlyActive, sendAppends, sendHeartbeats } from "./replication.ts";
import { appendOwn, becomeFollower } from "./roles.ts";
import { Raft } from "./state.ts";
import { step } from "./step.ts";
import { afterStall, restTicks, tick } from "./tick.ts";
import { type TransferStarted, transferLeadership } from "./transfer.ts";
import type {
  ConfChange,
  ConfState,
  CoreConfig,
  Entry,
  HardState,
  InitialState,
  MemberId,
  Message,
  PeerProgress,
  Ready,
  SnapshotMeta,
  SoftState,
  Standing,
  Status,
  TraceSink,
} from "./types.ts";

const nothing: readonly never[] = Object.freeze([]);

export class RaftCore {
  readonly #raft: Raft;
  #token = 0;
  #durableToken = 0;
  /** The last token under which something was given to storage. */
  #savedToken = 0;
  /** Hard states given to storage and not durable yet, oldest first; those that only repeat the last one are left out. */
  #hardStates: { token: number; term: number; vote: MemberId; commit: number }[] = [];
  #lastHardState: HardState;
  /** Configuration changes up to here are known, on this disk, to be committed: a restart finds them in force. */
  #keptCommit: number;
  #lastSoftState: SoftState = { role: "follower", leader: 0 };
  /** Snapshots handed out and not installed yet, oldest first; a newer one may come before the first is done. */
  #installs: { token: number; meta: SnapshotMeta }[] = [];

  /** @throws CoreConfigInvalid, InitialStateInvalid */
  constructor(config: CoreConfig, initial: InitialState, trace?: TraceSink) {
    this.#raft = new Raft(config, initial, trace);
    this.#lastHardState = initial.hardState;
    this.#keptCommit = initial.hardState.commit;
    this.#raft.note("init");
  }

  // ---- Inputs

  tick(): void {
    tick(this.#raft);
  }

  /** After how many ticks it has to be told of them, unless there is other input before. */
  restTicks(): number {
    return restTicks(this.#raft);
  }

  /** @throws MalformedMessage, LogRegressed, RaftInvariantError */
  step(message: Message): void {
    step(this.#raft, message);
  }

  /**
   * One entry for each of `datas`, at consecutive indexes: all or none. Accepted means appended here, not committed; the
   * proposer waits for (index, term) to be applied, and may see another term at that index instead.
   */
  propose(datas: readonly Uint8Array[]): Proposed | Refused {
    const raft = this.#raft;
    const refusal = this.#whyNotPropose(datas);
    if (refusal !== undefined) return refuse(refusal);
    const index = raft.log.lastIndex + 1;
    for (const data of datas) appendOwn(raft, "normal", data);
    if (raft.trace !== undefined) raft.note("replicate", { index, count: datas.length });
    return { accepted: true, index, term: raft.term };
  }

  #whyNotPropose(datas: readonly Uint8Array[]): Refusal | undefined {
    const raft = this.#raft;
    if (raft.role !== "leader") return { code: "RAFT_NOT_LEADER", leader: raft.leader };
    if (raft.transfer !== undefined) return { code: "RAFT_TRANSFER_IN_PROGRESS", to: raft.transfer.to };
    if (!isConfirmed(raft)) return { code: "RAFT_LEADER_UNCONFIRMED" };
    const { maxEntryBytes, maxUncommittedBytes, maxUncommittedEntries } = raft.config;
    let bytes = 0;
    for (const data of datas) {
      if (data.byteLength > maxEntryBytes) {
        return { code: "RAFT_ENTRY_TOO_LARGE", bytes: data.byteLength, bytesMax: maxEntryBytes };
      }
      bytes += data.byteLength;
    }
    const pending = this.#uncommitted();
    // Entries without data are what keeps a cluster alive, and the first proposal must fit whatever its size.
    if (bytes === 0 || pending.entries === 0) return undefined;
    const fits =
      pending.bytes + bytes + datas.length * entryOverheadBytes <= maxUncommittedBytes &&
      pending.entries + datas.length <= maxUncommittedEntries;
    if (fits) return undefined;
    return { code: "RAFT_BACKPRESSURE", pendingBytes: pending.bytes, pendingEntries: pending.entries };
  }

  /** Proposed in this term and not committed yet. */
  #uncommitted(): { bytes: number; entries: number } {
    const { log, role, budgetFrom } = this.#raft;
    if (role !== "leader") return { bytes: 0, entries: 0 };
    const from = Math.max(log.commit, budgetFrom) + 1;
    return { bytes: log.bytesBetween(from, log.lastIndex), entries: log.lastIndex - from + 1 };
  }

  /**
   * @param force  also if those voters that would remain and lately answered are no quorum
   * @returns the entry that will carry it; the change is in force when the shell has applied that
   */
  proposeConfChange(change: ConfChange, { force = false }: { force?: boolean } = {}): Proposed | Refused {
    return proposeConfChange(this.#raft, change, force);
  }

  /** For each applied entry of kind "confChange", before `applied()`. @returns the configuration in force from now on */
  applyConfChange(change: ConfChange): ConfState {
    return applyConfChange(this.#raft, change);
  }

  /** Answered by a ReadState or among `readFailures` of a later Ready, if taken. */
  readIndex(requestId: number): Taken | Refused {
    return readIndex(this.#raft, requestId);
  }

  /** Under `readMode: "lease"`: no other member can have been elected, as of the ticks given. */
  leaseHolds(): boolean {
    return leaseHolds(this.#raft);
  }

  /** @param to  0 (or nothing) lets the leader choose */
  transferLeadership(to: MemberId = 0): TransferStarted | Refused {
    return transferLeadership(this.#raft, to);
  }

  /** @returns false if this member must not campaign now */
  campaign(): boolean {
    return campaign(this.#raft, false);
  }

  /** The shell knows that the leader is gone: votes are no longer withheld for its sake. Not under a leader lease. */
  forgetLeader(): void {
    const raft = this.#raft;
    if (raft.role !== "follower" || raft.config.readMode === "lease") return;
    becomeFollower(raft, raft.term, 0);
  }

  /** The process stood still (scenario D14). A leader asks a quorum before it reads under its lease or takes proposals. */
  stalled(): void {
    afterStall(this.#raft);
  }

  /** What was sent to `id` may be lost. */
  reportUnreachable(id: MemberId): void {
    const progress = this.#raft.peerById.get(id);
    if (progress?.state === "replicate") progress.becomeProbe();
  }

  /**
   * The process of member `id` has ended, as far as the shell can tell. If it led, nobody waits for a timeout: the voters
   * try one after the other. A false alarm costs a pre-vote that whoever hears the leader leaves unanswered.
   */
  reportGone(id: MemberId): void {
    hurryAfter(this.#raft, id);
  }

  /** How the snapshot ordered by a SnapshotRequest ended. After failures the pauses grow (scenario G4). */
  reportSnapshot(id: MemberId, ok: boolean): void {
    const raft = this.#raft;
    const progress = raft.peerById.get(id);
    if (progress?.state !== "snapshot") return;
    if (ok) progress.snapshotFailures = 0;
    else {
      const { heartbeatTicks, snapshotRetryTicksMax } = raft.config;
      const pause = 2 * heartbeatTicks * 2 ** Math.min(progress.snapshotFailures, 30);
      progress.snapshotFailures++;
      progress.snapshotRetryTick = raft.leaderTick + Math.min(pause, snapshotRetryTicksMax);
      progress.pendingSnapshot = 0;
    }
    progress.becomeProbe();
    // Its next answer to a heartbeat shows where to go on.
    progress.probeSent = true;
  }

  /** What a snapshot taken now would say of itself; undefined while one from the leader is being installed. */
  appliedMeta(): SnapshotMeta | undefined {
    const raft = this.#raft;
    if (raft.installing !== undefined) return undefined;
    const term = raft.log.term(raft.applied);
    raftInvariant(term !== undefined, "the last applied entry is in the log", { applied: raft.applied });
    return { index: raft.applied, term, conf: raft.conf };
  }

  /** A snapshot of this member is durable and can be offered to others from now on. */
  snapshotCreated(meta: SnapshotMeta): void {
    const raft = this.#raft;
    raftInvariant(meta.index <= raft.applied, "a snapshot holds what is applied", { index: meta.index });
    if (meta.index > raft.snapshot.index) raft.snapshot = meta;
  }

  /** Where `compact()` may go: never past the newest snapshot, and not past what live followers need. */
  compactionIndex(policy: CompactionPolicy = compactionDefaults): number {
    return compactionIndex(this.#raft, policy);
  }

  /** Forgets entries up to `index`. */
  compact(index: number): void {
    const { log, snapshot, applied } = this.#raft;
    raftInvariant(index <= snapshot.index && index <= applied, "only what a durable snapshot covers is compacted", {
      index,
      snapshot: snapshot.index,
      applied,
    });
    log.compact(index);
  }

  /** For tests: fixes the timeout of the present wait; the next campaign draws anew. */
  setRandomizedElectionTimeout(ticks: number): void {
    this.#raft.randomizedElectionTicks = ticks;
  }

  // ---- Outputs

  hasReady(): boolean {
    const raft = this.#raft;
    return (
      raft.messages.length > 0 ||
      raft.messagesAfterPersist.length > 0 ||
      raft.log.hasUnsaved ||
      this.#hardStateChanged() ||
      raft.readStates.length > 0 ||
      raft.readFailures.length > 0 ||
      raft.role !== this.#lastSoftState.role ||
      raft.leader !== this.#lastSoftState.leader ||
      this.#snapshotToHandOut() !== undefined ||
      this.#committedTo() > raft.handedToApply ||
      needsReadRound(raft) ||
      (raft.role === "leader" && hasAppendsToSend(raft))
    );
  }

  ready(): Ready {
    const raft = this.#raft;
    if (raft.role === "leader") {
      if (needsReadRound(raft)) sendHeartbeats(raft);
      sendAppends(raft);
    }
    const token = ++this.#token;
    const snapshot = this.#takeSnapshot(token);
    const entries = raft.log.hasUnsaved ? raft.log.takeUnsaved(token) : nothing;
    const hardState = this.#takeHardState(token, entries.length > 0 || snapshot !== undefined);
    if (hardState !== undefined) this.#savedToken = token;
    const committed = this.#takeCommitted();
    let messages: readonly Message[] = take(raft.messages);
    let messagesAfterPersist: readonly Message[] = take(raft.messagesAfterPersist);
    raft.messages = [];
    raft.messagesAfterPersist = [];
    if (this.#savedToken <= this.#durableToken && messagesAfterPersist.length > 0) {
      messages = [...messages, ...messagesAfterPersist];
      messagesAfterPersist = nothing;
    }
    const readStates = take(raft.readStates);
    const readFailures = take(raft.readFailures);
    raft.readStates = [];
    raft.readFailures = [];
    if (raft.trace !== undefined) raft.note("ready", { token, entries: entries.length, committed: committed.length });
    return {
      token,
      softState: this.#takeSoftState(),
      hardState,
      entries,
      snapshot,
      messages,
      messagesAfterPersist,
      committed,
      readStates,
      readFailures,
    };
  }

  /** Everything in the Ready of `token`, and in all before it, is durable; a snapshot among them is installed. */
  persisted(token: number): void {
    const raft = this.#raft;
    if (token > this.#token) throw new RaftInvariantError("only what was handed out becomes durable", { token });
    if (token <= this.#durableToken) return;
    this.#durableToken = token;
    raft.log.markDurable(token);
    for (let next = this.#installs[0]; next !== undefined && next.token <= token; next = this.#installs[0]) {
      this.#installs.shift();
      this.#finishInstall(next.meta);
    }
    let durable: { term: number; vote: MemberId; commit: number } | undefined;
    while (this.#hardStates[0] !== undefined && this.#hardStates[0].token <= token) durable = this.#hardStates.shift();
    if (durable !== undefined) {
      this.#keptCommit = durable.commit;
      countOwnVote(raft, durable);
    }
    const self = raft.self;
    if (self !== undefined && raft.log.durable > self.match) {
      self.acknowledge(raft.log.durable);
      advanceCommit(raft);
    }
  }

  /** The state machine holds everything up to `index`. */
  applied(index: number): void {
    const raft = this.#raft;
    if (index <= raft.applied) return;
    raftInvariant(index <= raft.handedToApply && raft.installing === undefined, "only what was handed out is applied", {
      index,
      handed: raft.handedToApply,
    });
    raft.applied = index;
    followThrough(raft);
    if (raft.role === "follower" && raft.campaignUntilTick > raft.tickCount) campaign(raft, true);
  }

  /** A part of `status()` that costs next to nothing. */
  standing(): Standing {
    const raft = this.#raft;
    const { log } = raft;
    return {
      id: raft.id,
      role: raft.role,
      leader: raft.leader,
      term: raft.term,
      vote: raft.vote,
      commit: log.commit,
      applied: raft.applied,
      firstIndex: log.firstIndex,
      logBytes: log.bytes,
      conf: raft.conf,
    };
  }

  /** Highest index that `id` has acknowledged to this leader; undefined for anybody else. */
  matchOf(id: MemberId): number | undefined {
    return this.#raft.peerById.get(id)?.match;
  }

  /** Learners that may be made voters now. */
  promotableLearners(): MemberId[] {
    return promotableLearners(this.#raft);
  }

  status(): Status {
    const raft = this.#raft;
    const { log } = raft;
    const uncommitted = this.#uncommitted();
    const peers = new Map<MemberId, PeerProgress>();
    for (const progress of raft.peers) {
      peers.set(progress.id, {
        match: progress.match,
        next: progress.next,
        state: progress.state,
        inflightMsgs: progress.inflights.count,
        inflightBytes: progress.inflights.bytes,
        paused: progress.paused,
        recentActive: isRecentlyActive(raft, progress),
        isLearner: progress.isLearner,
      });
    }
    return {
      ...this.standing(),
      lastIndex: log.lastIndex,
      durableIndex: log.durable,
      uncommittedBytes: uncommitted.bytes,
      uncommittedEntries: uncommitted.entries,
      pendingReads: raft.reads.pending,
      transferTo: raft.transfer?.to ?? 0,
      peers,
    };
  }

  /** Term of the entry at `index`, or undefined if the log does not have it. */
  termAt(index: number): number | undefined {
    return this.#raft.log.term(index);
  }

  // ---- What a Ready is made of

  /** A new commit index alone is not worth a write, unless a configuration change waits for it. */
  #hardStateChanged(): boolean {
    const { term, vote, log } = this.#raft;
    const last = this.#lastHardState;
    return term !== last.term || vote !== last.vote || log.hasConfChangeBetween(last.commit, log.commit);
  }

  #takeHardState(token: number, withWrite: boolean): HardState | undefined {
    const changed = this.#hardStateChanged();
    if (!withWrite && !changed) return undefined;
    const { term, vote, log } = this.#raft;
    this.#lastHardState = { term, vote, commit: log.commit };
    if (changed) this.#hardStates.push({ token, ...this.#lastHardState });
    return this.#lastHardState;
  }

  #takeSoftState(): SoftState | undefined {
    const { role, leader } = this.#raft;
    if (role === this.#lastSoftState.role && leader === this.#lastSoftState.leader) return undefined;
    this.#lastSoftState = { role, leader };
    return this.#lastSoftState;
  }

  #takeSnapshot(token: number): SnapshotMeta | undefined {
    const meta = this.#snapshotToHandOut();
    if (meta === undefined) return undefined;
    this.#installs.push({ token, meta });
    this.#raft.log.noteSnapshotWrite(token);
    return meta;
  }

  #snapshotToHandOut(): SnapshotMeta | undefined {
    const { installing } = this.#raft;
    return installing === this.#installs.at(-1)?.meta ? undefined : installing;
  }

  #finishInstall(meta: SnapshotMeta): void {
    const raft = this.#raft;
    raft.snapshot = meta;
    raft.applied = meta.index;
    if (raft.installing === meta) raft.installing = undefined;
    raft.note("installed", { snapshot: { index: meta.index, term: meta.term } });
  }

  /**
   * How far committed entries may be handed out now: what is out and not applied stays within maxApplyBytes. Only what is
   * durable here is applied, though a quorum of others would do: so no snapshot is ever ahead of the log on this disk.
   * A configuration change waits until this disk knows it to be committed, too: a member that came back without that
   * knowledge would need the votes of those that the change had removed, and they may be gone for good.
   */
  #committedTo(): number {
    const { log, handedToApply, applied, installing, config } = this.#raft;
    const unkept = log.firstConfChangeAfter(Math.max(this.#keptCommit, handedToApply)) ?? Infinity;
    const limit = Math.min(log.commit, log.durable, unkept - 1);
    if (installing !== undefined || handedToApply >= limit) return handedToApply;
    const outstanding = log.bytesBetween(applied + 1, handedToApply);
    if (outstanding >= config.maxApplyBytes) return handedToApply;
    const to = log.runWithin(handedToApply + 1, limit, config.maxApplyBytes - outstanding);
    const first = entryBytes(log.entry(handedToApply + 1));
    return to === handedToApply + 1 && outstanding > 0 && outstanding + first > config.maxApplyBytes
      ? handedToApply
      : to;
  }

  #takeCommitted(): readonly Entry[] {
    const raft = this.#raft;
    const to = this.#committedTo();
    if (to <= raft.handedToApply) return nothing;
    const entries = raft.log.slice(raft.handedToApply + 1, to);
    for (const entry of entries) {
      if (!isKnownKind(entry.kind)) throw new EntryKindUnknown(entry.index, entry.kind);
    }
    raft.handedToApply = to;
    return entries;
  }
}

function isKnownKind(kind: unknown): boolean {
  return kind === "normal" || kind === "confChange" || kind === "empty";
}

function take<T>(list: readonly T[]): readonly T[] {
  return list.length === 0 ? nothing : list;
}
