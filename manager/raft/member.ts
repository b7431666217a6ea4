/**
 * The shell around the core: everything that one member does with its disk, its network and its state machine, without
 * knowing what those are and without promises, timers or a clock of its own. Production and the simulator run this file.
 *
 * One turn: proposals and reads that gathered go into the core; what is ready comes out; messages leave at once, entries
 * go to the disk, and messages that promise durability leave when it has said so (Raft thesis §3.8, §10.2.1). Applying
 * has a queue and a budget of its own, so that a long page never delays a heartbeat.
 */
import { ClusterError, InvariantViolation, invariant } from "../../lib/pure/errors.ts";
import {
  InitialStateInvalid,
  LogRegressed,
  MalformedMessage,
  RaftCore,
  RaftRefusal,
  coreDefaults,
  decodeConfChange,
  entryOverheadBytes,
  type ConfChange,
  type ConfChangeStep,
  type ConfState,
  type CoreConfig,
  type Entry,
  type InitialState,
  type MemberId,
  type Message,
  type Ready,
  type Role,
  type SnapshotMeta,
  type Status,
} from "./core/index.ts";
import { noMember } from "./core/types.ts";
import type { MemberConfig } from "./member-config.ts";
import { MemberTable, encodeContext, type MemberRecord } from "./member-table.ts";
import type { LogStorage, RecoveredLog, Scheduler, SnapshotStore, StateMachine, Transport } from "./ports.ts";
import { Proposals, type Outcome, type Proposal } from "./proposals.ts";
import { Reads, type ReadOutcome } from "./reads.ts";
import { SnapshotWriteFailed } from "./snapshot/index.ts";
import { TableFromState, TableThenState } from "./snapshot-frame.ts";

/** The part of the core that the shell drives, so that the simulator can look at what passes. */
export type Core = Omit<RaftCore, "setRandomizedElectionTimeout" | "campaign" | "forgetLeader" | "termAt">;

export interface MemberPorts {
  /** Only for watching it: by default the core itself. */
  readonly createCore?: (config: CoreConfig, initial: InitialState) => Core;
  readonly storage: LogStorage;
  readonly snapshots: SnapshotStore;
  readonly transport: Transport;
  readonly stateMachine: StateMachine;
  readonly scheduler: Scheduler;
}

/** What the owner of a member hears from it. Called within a turn: do little, and do not call back into the member. */
export interface MemberEvents {
  /**
   * Role, term or leader differ from before. `ready`: this member leads and has applied the opening entry of its term,
   * so that all that was committed before is in the state.
   */
  leadership(now: { role: Role; term: number; leader: MemberId; ready: boolean }): void;
  /** The table of members or the configuration changed, also after a snapshot was installed. */
  membership(members: readonly MemberRecord[], conf: ConfState): void;
  applied(index: number): void;
  /** This member must not take part any more: its log or its state is not to be trusted. It wants to be replaced. */
  quarantined(reason: string, facts: Readonly<Record<string, unknown>>): void;
  /** This member has been removed from the cluster; it has gone silent. */
  removed(): void;
  /** The process must stop: nothing in memory may be trusted. `DiskFailed` and `DiskStalled` exit with 70. */
  fatal(error: Error): void;
  /** Worth a line in the log and a counter. */
  noticed(what: Notice, facts: Readonly<Record<string, unknown>>): void;
  /** How long something took, for histograms. */
  measured(what: Measure, value: number): void;
}

export type Notice =
  | "stalled"
  | "diskStalled"
  | "snapshotFailed"
  | "snapshotNotSent"
  | "snapshotCreated"
  | "snapshotInstalled"
  | "malformedMessage"
  | "steppingAside"
  | "promoting";

export type Measure =
  | "proposeToCommitMs"
  | "commitToApplyMs"
  | "persistMs"
  | "batchEntries"
  | "batchBytes"
  | "readBatch"
  | "readMs"
  | "stallMs";

export type ChangeOutcome =
  | { readonly kind: "changed"; readonly index: number; readonly conf: ConfState }
  /** Nothing was changed, and nothing will be by this request. */
  | { readonly kind: "refused"; readonly error: ClusterError }
  | Exclude<Outcome, { kind: "committed" | "tooLarge" }>;

export type TransferOutcome =
  | { readonly kind: "transferred"; readonly leader: MemberId }
  | { readonly kind: "refused"; readonly error: ClusterError }
  | { readonly kind: "timedOut" }
  | { readonly kind: "notLeader"; readonly leader: MemberId }
  | { readonly kind: "stopped" };

export interface MemberStatus extends Status {
  readonly state: MemberState;
  readonly members: readonly MemberRecord[];
  readonly snapshotIndex: number;
  readonly snapshotBytes: number;
  readonly applyLagEntries: number;
  readonly applyLagBytes: number;
  readonly proposalsQueued: number;
  readonly proposalsWaiting: number;
  readonly readsWaiting: number;
  readonly diskStallMs: number;
}

export type MemberState = "starting" | "running" | "quarantined" | "removed" | "stopped";

/** The disk took longer than five election timeouts; a restart elsewhere serves the cluster better than waiting. */
export class DiskStalled extends ClusterError {
  readonly code = "RAFT_DISK_STALLED";
  constructor(stallMs: number) {
    super(`Cannot keep the log: the disk has not answered for ${Math.round(stallMs)} ms`, {
      fix: "Check the disk of the data folder (dmesg, iostat); the manager starts again by itself",
    });
  }
}

/** A write did not become durable. What the kernel's cache says afterwards cannot be trusted, so there is no retry. */
export class DiskFailed extends ClusterError {
  readonly code = "RAFT_DISK_FAILED";
  constructor(cause: Error) {
    super(`Cannot keep the log: ${cause.message}`, {
      fix: "Check the disk of the data folder (dmesg, df); after a restart the manager reads back what is really there",
      cause,
    });
  }
}

/** This program cannot follow the cluster: going on would let its state differ from the others'. */
export class ApplyFailed extends ClusterError {
  readonly code = "RAFT_APPLY_FAILED";
  constructor(index: number, cause: unknown) {
    super(`Cannot apply entry ${index}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      fix: "Install the version of skep that the other managers run; if it is the same, remove this manager and join it again",
      cause,
    });
  }
}

/** Ids are never used twice, so a member that was removed cannot be added under its old one. */
export class MemberWasRemoved extends ClusterError {
  readonly code = "RAFT_MEMBER_WAS_REMOVED";
  constructor(id: MemberId) {
    super(`Cannot add member ${id}: it has been removed from this cluster`, {
      fix: "Move its data folder away and let it join again; it gets a new id",
    });
  }
}

interface Outstanding {
  readonly token: number;
  startedMs: number;
  /** Writes that have not come back; 0 means durable, but perhaps not reported, since an earlier one is not. */
  writes: number;
  /** What is left is to load a snapshot that is on disk already: that takes as long as it is large. */
  loading: boolean;
  readonly after: readonly Message[];
}

/** A page of committed entries with the time at which they were found committed. */
interface Page {
  readonly entries: readonly Entry[];
  readonly committedMs: number;
  next: number;
}

/** In election timeouts: with a disk stalled for so long the process ends. */
const diskStallExitElections = 5;
const stepAsidePauseMs = 60_000;
const snapshotRetryMsMax = 30_000;
const readiesPerTurn = 16;
/**
 * A follower at rest answers every other heartbeat, and no fewer than so many in an election timeout, after which the leader
 * would count it as gone.
 */
const answersPerElectionMin = 4;
/** With this code the state machine says that the others have another state than it has (row 25). */
const stateDiverged = "STATE_DIVERGED";
/** … and with this one that it does not understand what the others do: a newer program will. */
const incompatible = "INCOMPATIBLE";

export class Member {
  readonly #config: MemberConfig;
  readonly #ports: MemberPorts;
  readonly #events: MemberEvents;
  readonly #proposals = new Proposals();
  readonly #reads: Reads;

  #state: MemberState = "starting";
  #recovered: RecoveredLog | undefined;
  #core: Core | undefined;
  #table: MemberTable;
  #conf: ConfState;

  // What the core last said, kept here so that nothing on the hot path asks for a whole status.
  #role: Role = "follower";
  #leader: MemberId = noMember;
  /** Leads, and everything committed before its term is applied. */
  #leading = false;
  #term = 0;
  #appliedIndex: number;

  // Turns and ticks.
  #turnScheduled = false;
  #lastTickMs = 0;
  #lastSeenMs = 0;
  /** What `rest()` said. */
  #restMs: number;
  #recoveringFromStall = false;
  /** The tick behind which the last lease was given up, since the next one did not come in time. */
  #lateSinceMs = -Infinity;

  // Disk.
  readonly #outstanding: Outstanding[] = [];
  #space: "ok" | "low" | "full" = "ok";
  #steppedAsideMs = -Infinity;
  /** After a transfer away from a stalled disk has failed, silence lets the others elect. */
  #muted = false;
  #diskStallNoticed: Outstanding | undefined;

  // Applying.
  readonly #pages: Page[] = [];
  #applyLagBytes = 0;
  #applyLagEntries = 0;
  #loading = false;
  readonly #loads: { readonly meta: SnapshotMeta; readonly loaded: () => void }[] = [];

  // Snapshots and the log behind them.
  #snapshot: SnapshotMeta;
  #snapshotBytes = 0;
  #creating = false;
  #retrySnapshotMs = 0;
  /** By receiver: what follows the snapshot must stay in the log until the receiver can take it. */
  readonly #snapshotsOutgoing = new Map<MemberId, { readonly index: number; endedMs: number }>();
  /** Of log entries applied since that snapshot. */
  #bytesSinceSnapshot = 0;

  // Members.
  #changeWaiting: { index: number; term: number; untilMs: number; done: (outcome: ChangeOutcome) => void } | undefined;
  /** One that somebody here waits for; the core knows of others too. */
  #transfer: { to: MemberId; untilMs: number; done: (outcome: TransferOutcome) => void } | undefined;
  /** The configuration in force does not have this member any more. */
  #isOutside = false;

  /**
   * @param recovered  what the log holds; start() loads the snapshot that it names
   * @param table      members as of `recovered.snapshot`, where that has index 0 and no file
   */
  constructor(
    config: MemberConfig,
    recovered: RecoveredLog,
    ports: MemberPorts,
    events: MemberEvents,
    table: MemberTable = new MemberTable(),
  ) {
    this.#config = config;
    this.#restMs = config.timings.tickMs;
    this.#ports = ports;
    this.#events = events;
    this.#reads = new Reads(config.startNumber);
    this.#recovered = recovered;
    this.#table = table;
    this.#snapshot = recovered.snapshot;
    this.#conf = recovered.snapshot.conf;
    this.#term = recovered.hardState.term;
    this.#appliedIndex = recovered.snapshot.index;
  }

  // ---- Life ----------------------------------------------------------------------------------------------------

  /** Loads the snapshot, if there is one, and begins. Call `elapsed()` every `tickMs` from now on. */
  start(): void {
    invariant(this.#state === "starting" && this.#core === undefined && !this.#loading, "a member starts once");
    if (this.#snapshot.index === 0) {
      this.#begin();
      return;
    }
    this.#load(this.#snapshot, () => this.#begin());
  }

  /** Goes silent. Waiters are settled; nothing is called back afterwards. */
  stop(): void {
    if (this.#state === "stopped") return;
    this.#state = "stopped";
    this.#settleAll();
  }

  /**
   * How long the next call of `elapsed()` may be away: a tick, or some while there is nothing to do but to count them. Who
   * asks calls after so long, and earlier when something happens meanwhile.
   */
  rest(): number {
    const { tickMs } = this.#config.timings;
    const quiet =
      this.#state === "running" &&
      !this.#recoveringFromStall &&
      this.#outstanding.length === 0 &&
      this.#pages.length === 0 &&
      this.#proposals.queued + this.#proposals.waiting + this.#reads.pending + this.#snapshotsOutgoing.size === 0;
    this.#restMs = quiet ? this.#running().restTicks() * tickMs : tickMs;
    return this.#restMs;
  }

  /**
   * To be called every `tickMs`, or after what `rest()` says, and at once after a stall; how late it comes is how long the
   * process was stalled.
   */
  elapsed(): void {
    if (this.#state === "removed" && this.#isOutside) {
      // Its time goes on, too: it would withhold its vote for ever for the sake of the last leader that it heard. One that
      // is in no configuration never campaigns itself (C13).
      this.#guard(() => this.#tick(this.#now()));
      return;
    }
    if (this.#state !== "running") return;
    this.#guard(() => {
      const nowMs = this.#now();
      const { tickMs } = this.#config.timings;
      this.#noticeStall(nowMs);
      if (!this.#recoveringFromStall) {
        if (nowMs - this.#lastTickMs > this.#restMs + tickMs) this.#afterStall();
        else this.#tickUntil(nowMs);
      }
      this.#watch(nowMs);
      this.#turnIfUseful();
    });
  }

  /** A message of a member whose identity the transport has proved; a snapshot offer only when its bytes are here. */
  receive(message: Message): void {
    if (this.#state === "removed" && (message.type === "preVote" || message.type === "vote")) {
      this.#guard(() => {
        this.#running().step(message);
        this.#schedule();
      });
      return;
    }
    if (this.#state !== "running") return;
    this.#guard(() => {
      const nowMs = this.#now();
      this.#noticeStall(nowMs);
      // Of a rest: what is counted from this message on begins now.
      const { tickMs } = this.#config.timings;
      if (this.#restMs > tickMs && !this.#recoveringFromStall && nowMs - this.#lastTickMs <= this.#restMs + tickMs)
        this.#tickUntil(nowMs);
      try {
        this.#running().step(message);
      } catch (error) {
        if (error instanceof LogRegressed) {
          this.#quarantine("this member acknowledged entries that its log does not have", { why: error.message });
          return;
        }
        if (!(error instanceof MalformedMessage)) throw error;
        this.#events.noticed("malformedMessage", { from: message.from, type: message.type, why: error.message });
      }
      if (message.type === "heartbeat") this.#turnIfUseful();
      else this.#scheduleIfUseful();
    });
  }

  /** The stream to a member broke, or messages for it were dropped. */
  unreachable(id: MemberId): void {
    if (this.#state !== "running") return;
    this.#guard(() => {
      this.#running().reportUnreachable(id);
      this.#schedule();
    });
  }

  /** The process of a member has ended: nobody listens any more where its streams were. */
  gone(id: MemberId): void {
    if (this.#state !== "running") return;
    this.#guard(() => {
      this.#running().reportGone(id);
      this.#schedule();
    });
  }

  /**
   * How much room the disk of the log has (row 28). "low": this member, if it leads, takes no proposals and hands over;
   * "full": writes wait for space, which is no reason to stop the process.
   */
  diskSpace(space: "ok" | "low" | "full"): void {
    this.#space = space;
    if (space !== "ok" && this.#state === "running") this.#guard(() => this.stepAside("its disk is nearly full"));
  }

  /** Hands leadership to the best follower, at most once a minute; heartbeats and reads go on meanwhile. */
  stepAside(why: string): void {
    if (this.#role !== "leader" || this.#transfer !== undefined) return;
    const nowMs = this.#now();
    if (nowMs - this.#steppedAsideMs < stepAsidePauseMs) return;
    this.#guard(() => {
      const started = this.#running().transferLeadership(noMember);
      if (!started.accepted) return;
      this.#steppedAsideMs = nowMs;
      this.#events.noticed("steppingAside", { why, to: started.to });
      this.#schedule();
    });
  }

  /** The cluster says, signed, that this member has been removed: it learns it no other way if it was away then (F7). */
  expelled(): void {
    this.#leave();
  }

  /** The state or the log of this member is known to be wrong: it takes no part any more. */
  quarantine(reason: string, facts: Readonly<Record<string, unknown>> = {}): void {
    if (this.#state === "running" || this.#state === "starting") this.#quarantine(reason, facts);
  }

  // ---- Requests ------------------------------------------------------------------------------------------------

  /**
   * Offers a command for the log. `done` is called exactly once, possibly before this returns (when it is refused).
   * @returns a handle for cancel(), or undefined if it was refused
   */
  propose(command: Uint8Array, done: (outcome: Outcome) => void): Proposal | undefined {
    const refusal = this.#refusal(command.length);
    if (refusal !== undefined) {
      done(refusal);
      return undefined;
    }
    const proposal = this.#proposals.add(command, this.#now(), done);
    this.#schedule();
    return proposal;
  }

  /** A command that another member sent by Transport.forward; nobody here waits for it. */
  receiveForwarded(command: Uint8Array): void {
    if (this.#refusal(command.length) !== undefined) return;
    this.#proposals.add(command, this.#now(), () => {});
    this.#schedule();
  }

  /** @returns true if it was not appended yet: then it has no effect, ever, and `done` is not called */
  cancel(proposal: Proposal): boolean {
    return this.#proposals.cancel(proposal);
  }

  /** Asks for a point in the log from which a local read is linearizable; `done` is called when it is applied here. */
  readIndex(done: (outcome: ReadOutcome) => void): void {
    // While the snapshot is loaded it waits with the rest.
    if (this.#state !== "running" && this.#state !== "starting") {
      done({ kind: "stopped" });
      return;
    }
    this.#reads.add(done);
    this.#schedule();
  }

  /** Whether a read that was served under the leader lease was still covered when it was made: ask after reading. */
  leaseHolds(): boolean {
    if (this.#state !== "running") return false;
    this.#noticeStall(this.#now());
    return this.#running().leaseHolds();
  }

  /**
   * Changes who is a member. `records` describes those added or updated. A leader that removes itself serves until the
   * change is applied, and then hands over.
   * @param force  also if too few of the voters that would be left have answered lately
   */
  changeMembers(
    request: { steps: readonly ConfChangeStep[]; records: readonly MemberRecord[]; force: boolean },
    done: (outcome: ChangeOutcome) => void,
  ): void {
    if (this.#state !== "running") return done({ kind: "stopped" });
    const buried = request.steps.find(({ act, member }) => act !== "remove" && this.#table.isRemoved(member));
    if (buried !== undefined) return done({ kind: "refused", error: new MemberWasRemoved(buried.member) });
    this.#guard(() => {
      const change: ConfChange = {
        transition: "auto",
        steps: request.steps,
        context: encodeContext({ members: request.records, requestId: 0 }),
      };
      const proposed = this.#running().proposeConfChange(change, { force: request.force });
      if (!proposed.accepted) {
        const { refusal } = proposed;
        if (refusal.code === "RAFT_NOT_LEADER") done({ kind: "notLeader", leader: refusal.leader });
        else done({ kind: "refused", error: new RaftRefusal(refusal) });
        return;
      }
      this.#endChange({ kind: "unknown" });
      this.#changeWaiting = { index: proposed.index, term: proposed.term, untilMs: Infinity, done };
      this.#schedule();
    });
    return undefined;
  }

  /** Hands leadership to `to`, or to the voter that is furthest. Proposals wait meanwhile, one election timeout at most. */
  transfer(to: MemberId | undefined, done: (outcome: TransferOutcome) => void): void {
    if (this.#state !== "running") return done({ kind: "stopped" });
    this.#guard(() => {
      const started = this.#running().transferLeadership(to ?? noMember);
      if (!started.accepted) {
        if (started.refusal.code === "RAFT_NOT_LEADER") done({ kind: "notLeader", leader: this.#leader });
        else done({ kind: "refused", error: new RaftRefusal(started.refusal) });
        return;
      }
      const before = this.#transfer;
      this.#transfer = { to: started.to, untilMs: this.#now() + this.#config.timings.electionMs, done };
      before?.done({ kind: "timedOut" });
      this.#schedule();
    });
    return undefined;
  }

  /** Takes a snapshot now, whatever the size of the log. @returns false if one is being taken or nothing is new */
  takeSnapshot(): boolean {
    if (this.#state !== "running" || this.#creating || this.#loading || this.#appliedIndex <= this.#snapshot.index) {
      return false;
    }
    this.#guard(() => this.#createSnapshot());
    return true;
  }

  // ---- What it knows -------------------------------------------------------------------------------------------

  get role(): Role {
    return this.#role;
  }

  get leader(): MemberId {
    return this.#leader;
  }

  get term(): number {
    return this.#term;
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  get table(): MemberTable {
    return this.#table;
  }

  get conf(): ConfState {
    return this.#conf;
  }

  get state(): MemberState {
    return this.#state;
  }

  /** Its snapshot is loaded and its core runs, or ran: `status()` can be asked. */
  get hasBegun(): boolean {
    return this.#core !== undefined;
  }

  status(): MemberStatus {
    return {
      ...this.#running().status(),
      state: this.#state,
      members: this.#table.list(),
      snapshotIndex: this.#snapshot.index,
      snapshotBytes: this.#snapshotBytes,
      applyLagEntries: this.#applyLagEntries,
      applyLagBytes: this.#applyLagBytes,
      proposalsQueued: this.#proposals.queued,
      proposalsWaiting: this.#proposals.waiting,
      readsWaiting: this.#reads.pending,
      diskStallMs: this.#diskStallMs(this.#now()),
    };
  }

  // ---- Turns ---------------------------------------------------------------------------------------------------

  #begin(): void {
    const recovered = this.#recovered;
    invariant(recovered !== undefined, "a member begins once");
    this.#recovered = undefined;
    const { timings, limits } = this.#config;
    const electionTicks = Math.max(1, Math.round(timings.electionMs / timings.tickMs));
    const heartbeatTicks = Math.max(1, Math.round(timings.heartbeatMs / timings.tickMs));
    const config: CoreConfig = {
      ...coreDefaults,
      lazyCommit: true,
      answerTicks: Math.max(1, Math.min(2 * heartbeatTicks, Math.floor(electionTicks / answersPerElectionMin))),
      id: this.#config.id,
      seed: this.#config.seed,
      electionTicks,
      heartbeatTicks,
      readMode: this.#config.leaseReads ? "lease" : "readIndex",
      maxEntryBytes: limits.entryBytesMax,
      maxEntriesPerMsgBytes: limits.messageBytesMax,
      maxInflightMsgs: limits.inflightMsgsMax,
      maxInflightBytes: limits.inflightBytesMax,
      maxUncommittedBytes: limits.uncommittedBytesMax,
      maxUncommittedEntries: limits.uncommittedEntriesMax,
      maxApplyBytes: limits.readyApplyBytesMax,
      snapshotRetryTicksMax: Math.ceil(snapshotRetryMsMax / timings.tickMs),
      promotionLagEntries: limits.promoteLagEntriesMax,
    };
    const initial: InitialState = { ...recovered, applied: recovered.snapshot.index };
    try {
      this.#core = this.#ports.createCore?.(config, initial) ?? new RaftCore(config, initial);
    } catch (error) {
      if (!(error instanceof InitialStateInvalid)) throw error;
      this.#quarantine("its log cannot have been written by a healthy member", { why: error.message });
      return;
    }
    this.#state = "running";
    this.#lastTickMs = this.#lastSeenMs = this.#now();
    this.#events.membership(this.#table.list(), this.#conf);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#turnScheduled || !this.#isAnswering) return;
    this.#turnScheduled = true;
    this.#ports.scheduler.defer(() => {
      this.#turnScheduled = false;
      if (this.#isAnswering) this.#guard(() => this.#turn());
    });
  }

  /** A turn, if it would find anything: most ticks, many messages and many completed writes leave nothing to do. */
  #scheduleIfUseful(): void {
    if (!this.#turnScheduled && this.#isAnswering && this.#isTurnUseful) this.#schedule();
  }

  /**
   * At once: what follows from a tick or from a heartbeat gains nothing by waiting for what may come with it, and to wait
   * costs one more round of the event loop, twenty times a second in each member.
   */
  #turnIfUseful(): void {
    if (!this.#turnScheduled && this.#isAnswering && this.#isTurnUseful) this.#turn();
  }

  get #isTurnUseful(): boolean {
    return this.#pages.length > 0 || this.#proposals.queued > 0 || this.#reads.gathering || this.#running().hasReady();
  }

  /**
   * A removed member goes on answering candidates, and does nothing else: one that does not know of the removal yet may
   * need its vote, or the commit index that comes with the answer, to learn of it.
   */
  get #isAnswering(): boolean {
    return this.#state === "running" || this.#state === "removed";
  }

  #turn(): void {
    if (this.#state === "removed") {
      this.#takeReadies();
      return;
    }
    this.#noticeStall(this.#now());
    this.#feedProposals();
    this.#feedReads();
    this.#takeReadies();
    this.#applySome();
  }

  /** A broken invariant stops the process; so does whatever else escapes, since the state in memory is then unknown. */
  #guard(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#fail(error instanceof Error ? error : new InvariantViolation(String(error)));
    }
  }

  #fail(error: Error): void {
    if (this.#state === "stopped") return;
    this.stop();
    this.#events.fatal(error);
  }

  #running(): Core {
    invariant(this.#core !== undefined, "the member has not begun", { state: this.#state });
    return this.#core;
  }

  #now(): number {
    return this.#ports.scheduler.nowMs();
  }

  // ---- Time ----------------------------------------------------------------------------------------------------

  #tickUntil(nowMs: number): void {
    const { tickMs } = this.#config.timings;
    for (let ticks = Math.floor((nowMs - this.#lastTickMs) / tickMs); ticks > 0; ticks--)
      this.#tick(this.#lastTickMs + tickMs);
  }

  #tick(atMs: number): void {
    this.#lastTickMs = atMs;
    this.#running().tick();
  }

  /**
   * The process stood still for more than two ticks (raft.md §3.3 rule 1): what waits in the sockets is taken in first,
   * and then at most one tick happens, so that a stalled follower does not campaign against a leader that is alive.
   */
  #afterStall(): void {
    this.#recoveringFromStall = true;
    this.#ports.scheduler.defer(() =>
      this.#ports.scheduler.defer(() => {
        this.#recoveringFromStall = false;
        if (this.#state !== "running") return;
        this.#guard(() => {
          this.#tick(this.#now());
          this.#schedule();
        });
      }),
    );
  }

  /** A process that stood still may have been replaced meanwhile: the core asks a quorum before it goes on leading. */
  #noticeStall(nowMs: number): void {
    const gapMs = nowMs - this.#lastSeenMs;
    this.#lastSeenMs = nowMs;
    if (gapMs <= this.#config.timings.electionMs / 2) {
      this.#noticeLostTicks(nowMs);
      return;
    }
    this.#events.noticed("stalled", { gapMs });
    this.#events.measured("stallMs", gapMs);
    // While this process stood still nobody could have heard from the disk.
    for (const step of this.#outstanding) step.startedMs += gapMs;
    this.#running().stalled();
    this.#schedule();
  }

  /**
   * A lease ends by ticks, and those of a shorter stall are never counted (see `#afterStall`): what it has left would last
   * by so much longer than the others wait. So it is asked for anew.
   */
  #noticeLostTicks(nowMs: number): void {
    const { leaseReads, timings } = this.#config;
    const late = nowMs - this.#lastTickMs > 2 * timings.tickMs;
    if (!leaseReads || this.#role !== "leader" || !late || this.#lateSinceMs === this.#lastTickMs) return;
    this.#lateSinceMs = this.#lastTickMs;
    this.#running().stalled();
    this.#schedule();
  }

  /** What is looked after once a tick. */
  #watch(nowMs: number): void {
    const { electionMs } = this.#config.timings;
    this.#proposals.expire(nowMs);
    if (nowMs >= (this.#changeWaiting?.untilMs ?? Infinity)) this.#endChange({ kind: "unknown" });
    if (this.#reads.askAgain(nowMs - electionMs) > 0) this.#schedule();
    this.#watchDisk(nowMs);
    this.#watchTransfer(nowMs);
    if (this.#role === "leader") {
      this.#promoteLearners();
      if (this.#space !== "ok") this.stepAside("its disk is nearly full");
    }
    this.#compact();
  }

  /** How long the oldest write has been on its way to the disk; those behind a snapshot that is loaded have time. */
  #diskStallMs(nowMs: number): number {
    const oldest = this.#outstanding[0];
    return oldest === undefined || oldest.writes === 0 || oldest.loading ? 0 : nowMs - oldest.startedMs;
  }

  #watchDisk(nowMs: number): void {
    const oldest = this.#outstanding[0];
    const stallMs = this.#diskStallMs(nowMs);
    const { electionMs } = this.#config.timings;
    if (stallMs <= electionMs) {
      this.#muted = false;
      return;
    }
    if (stallMs > diskStallExitElections * electionMs && this.#space !== "full") {
      this.#fail(new DiskStalled(stallMs));
      return;
    }
    if (this.#role !== "leader") return;
    if (this.#diskStallNoticed !== oldest) {
      this.#diskStallNoticed = oldest;
      this.#events.noticed("diskStalled", { stallMs });
      this.#running().transferLeadership(noMember);
      this.#schedule();
    }
    // The hand-over takes one round trip and a vote; if it has not happened by now, silence makes the others elect.
    if (stallMs > 2 * electionMs) this.#muted = true;
  }

  // ---- Into the core -------------------------------------------------------------------------------------------

  #refusal(sizeBytes: number): Exclude<Outcome, { kind: "committed" }> | undefined {
    const { limits } = this.#config;
    if (this.#state !== "running" && this.#state !== "starting") return { kind: "stopped" };
    if (this.#role !== "leader") return { kind: "notLeader", leader: this.#leader };
    if (sizeBytes > limits.entryBytesMax) {
      return { kind: "tooLarge", sizeBytes, sizeBytesMax: limits.entryBytesMax };
    }
    if (this.#space !== "ok") return { kind: "backpressure", why: "diskLow", retryAfterMs: 1000 };
    if (this.#applyLagBytes > limits.applyLagBytesMax) {
      return { kind: "backpressure", why: "applyLag", retryAfterMs: 100 };
    }
    const onTheirWay = this.#proposals.queued + this.#proposals.waiting;
    const bytesOnTheirWay = this.#proposals.queuedBytes + this.#proposals.waitingBytes;
    if (onTheirWay >= limits.uncommittedEntriesMax || bytesOnTheirWay + sizeBytes > limits.uncommittedBytesMax) {
      return { kind: "backpressure", why: "uncommitted", retryAfterMs: 20 };
    }
    return undefined;
  }

  #feedProposals(): void {
    if (this.#role !== "leader" || this.#proposals.queued === 0) return;
    const { limits } = this.#config;
    const batch = this.#proposals.take(limits.batchEntriesMax, limits.batchBytesMax);
    if (batch.length === 0) return;
    const proposed = this.#running().propose(batch.map((proposal) => proposal.data));
    if (!proposed.accepted) {
      // A transfer, a stall that a quorum has yet to confirm, or a full budget: it stays queued until that is over, and
      // if another leads by then it is offered there.
      this.#proposals.putBack(batch);
      return;
    }
    this.#proposals.appended(batch, proposed.index, proposed.term);
    this.#events.measured("batchEntries", batch.length);
    if (this.#proposals.queued > 0) this.#schedule();
  }

  #feedReads(): void {
    const requestId = this.#reads.ask(this.#now());
    if (requestId === undefined) return;
    if (!this.#running().readIndex(requestId).accepted) this.#reads.failed([requestId]);
  }

  // ---- Out of the core -----------------------------------------------------------------------------------------

  #takeReadies(): void {
    const core = this.#running();
    for (let count = 0; core.hasReady(); count++) {
      if (count === readiesPerTurn) {
        this.#schedule();
        return;
      }
      this.#handle(core.ready());
      if (!this.#isAnswering) return;
    }
  }

  #handle(ready: Ready): void {
    if (this.#state === "removed") {
      for (const message of ready.messages) this.#send(message);
      this.#persist(ready);
      return;
    }
    if (ready.hardState !== undefined) this.#term = ready.hardState.term;
    if (ready.softState !== undefined) this.#leadership(ready.softState.role, ready.softState.leader);
    for (const message of ready.messages) this.#send(message);
    this.#persist(ready);
    for (const { requestId, index, lease } of ready.readStates) {
      // The core knows ticks, which may have passed since: the clock is asked once more, after its word.
      if (lease && !this.leaseHolds()) this.#reads.failed([requestId]);
      else this.#readConfirmed(requestId, index);
    }
    if (ready.readFailures.length > 0) this.#reads.failed(ready.readFailures);
    if (ready.committed.length > 0) this.#committed(ready.committed);
  }

  #leadership(role: Role, leader: MemberId): void {
    const led = this.#role === "leader";
    this.#role = role;
    this.#leader = leader;
    this.#leading = false;
    if (role !== "leader") {
      if (led) {
        this.#muted = false;
        // Entries of ours may still be committed by the next leader: its log tells, if it does so soon.
        const untilMs = this.#now() + 2 * this.#config.timings.electionMs;
        this.#proposals.orphan(untilMs);
        if (this.#changeWaiting !== undefined) this.#changeWaiting.untilMs = untilMs;
      }
      this.#proposals.refuseQueued({ kind: "notLeader", leader });
      const transfer = this.#transfer;
      if (transfer !== undefined && leader !== noMember) {
        this.#transfer = undefined;
        transfer.done({ kind: "transferred", leader });
      }
    }
    this.#tellLeadership();
    if (role !== "leader" && this.#isOutside) this.#leave();
  }

  #tellLeadership(): void {
    this.#events.leadership({ role: this.#role, term: this.#term, leader: this.#leader, ready: this.#leading });
  }

  #send(message: Message): void {
    if (message.type !== "snapshot") {
      if (!this.#muted) this.#ports.transport.send(message);
      return;
    }
    const { to } = message;
    const outgoing = { index: message.meta.index, endedMs: Infinity };
    this.#snapshotsOutgoing.set(to, outgoing);
    this.#ports.transport.sendSnapshot(message, (error) => {
      outgoing.endedMs = this.#now();
      if (error !== undefined) this.#events.noticed("snapshotNotSent", { to, why: error.message });
      if (this.#state !== "running") return;
      this.#guard(() => {
        this.#running().reportSnapshot(to, error === undefined);
        this.#schedule();
      });
    });
  }

  #persist(ready: Ready): void {
    const { token, hardState, entries, snapshot } = ready;
    if (hardState === undefined && entries.length === 0 && snapshot === undefined) {
      if (ready.messagesAfterPersist.length === 0) return;
      const idle = this.#outstanding.length === 0;
      this.#outstanding.push({
        token,
        startedMs: this.#now(),
        writes: 0,
        loading: false,
        after: ready.messagesAfterPersist,
      });
      if (idle) this.#reportDurable();
      return;
    }
    const step: Outstanding = {
      token,
      startedMs: this.#now(),
      writes: (snapshot === undefined ? 0 : 1) + (snapshot === undefined || entries.length > 0 ? 1 : 0),
      loading: false,
      after: ready.messagesAfterPersist,
    };
    this.#outstanding.push(step);
    const save = (): void => {
      let bytes = 0;
      for (const entry of entries) bytes += entry.data.length;
      if (entries.length > 0) this.#events.measured("batchBytes", bytes);
      this.#ports.storage.save({ hardState, entries }, (error) => this.#saved(step, error));
    };
    if (snapshot === undefined) {
      save();
      return;
    }
    invariant(hardState !== undefined, "a snapshot comes with its hard state");
    this.#loading = true;
    // Entries behind the snapshot, and a commit index among them, may come in the same Ready: they follow with their save.
    const covered = { ...hardState, commit: Math.min(hardState.commit, snapshot.index) };
    this.#ports.storage.reset(snapshot, covered, (error) => {
      if (error !== undefined || this.#state !== "running") {
        this.#saved(step, error);
        return;
      }
      step.loading = true;
      this.#load(snapshot, () => {
        step.loading = false;
        this.#installed(snapshot);
        this.#saved(step, undefined);
      });
    });
    if (entries.length > 0) save();
  }

  #saved(step: Outstanding, error: Error | undefined): void {
    if (!this.#isAnswering) return;
    if (error !== undefined) {
      this.#fail(error instanceof ClusterError ? error : new DiskFailed(error));
      return;
    }
    this.#guard(() => {
      step.writes--;
      this.#events.measured("persistMs", this.#now() - step.startedMs);
      this.#reportDurable();
      this.#scheduleIfUseful();
    });
  }

  /** Steps become durable in order; the newest of an unbroken run speaks for all of it. */
  #reportDurable(): void {
    let run = 0;
    while (this.#outstanding[run]?.writes === 0) run++;
    if (run === 0) return;
    const steps = this.#outstanding.splice(0, run);
    this.#running().persisted(steps.at(-1)?.token ?? 0);
    for (const step of steps) for (const message of step.after) this.#send(message);
  }

  #readConfirmed(requestId: number, index: number): void {
    const confirmed = this.#reads.confirmed(requestId, index);
    if (confirmed !== undefined) {
      this.#events.measured("readBatch", confirmed.callers);
      this.#events.measured("readMs", this.#now() - confirmed.askedMs);
    }
    this.#reads.applied(this.#appliedIndex);
    if (this.#reads.gathering) this.#schedule();
  }

  // ---- Applying ------------------------------------------------------------------------------------------------

  #committed(entries: readonly Entry[]): void {
    this.#pages.push({ entries, committedMs: this.#now(), next: 0 });
    this.#applyLagEntries += entries.length;
    for (const entry of entries) this.#applyLagBytes += entry.data.length + entryOverheadBytes;
  }

  /** One helping: bounded by entries, bytes and time, so that messages never wait longer than that. */
  #applySome(): void {
    if (this.#loading || this.#pages.length === 0) return;
    const { limits } = this.#config;
    const startedMs = this.#now();
    let entries = 0;
    let bytes = 0;
    for (let page = this.#pages[0]; page !== undefined; page = this.#pages[0]) {
      for (; page.next < page.entries.length; page.next++) {
        const full = entries >= limits.applyEntriesPerTurn || bytes >= limits.applyBytesPerTurn;
        if (full || (entries % 32 === 31 && this.#now() - startedMs > limits.applyMsPerTurn)) {
          this.#reportApplied();
          this.#schedule();
          return;
        }
        const entry = page.entries[page.next];
        invariant(entry !== undefined, "a hole in a page of committed entries");
        this.#applyEntry(entry, page.committedMs);
        if (this.#state !== "running") return;
        entries++;
        bytes += entry.data.length + entryOverheadBytes;
        this.#applyLagBytes -= entry.data.length + entryOverheadBytes;
        this.#applyLagEntries--;
      }
      this.#events.measured("commitToApplyMs", this.#now() - page.committedMs);
      this.#pages.shift();
    }
    this.#reportApplied();
  }

  #reportApplied(): void {
    this.#running().applied(this.#appliedIndex);
    this.#reads.applied(this.#appliedIndex);
    this.#events.applied(this.#appliedIndex);
    if (this.#snapshotDue()) this.#createSnapshot();
    this.#scheduleIfUseful();
  }

  #applyEntry(entry: Entry, committedMs: number): void {
    invariant(entry.index === this.#appliedIndex + 1, "entries are applied in order", {
      index: entry.index,
      applied: this.#appliedIndex,
    });
    let result: unknown;
    try {
      switch (entry.kind) {
        case "normal":
          result = this.#ports.stateMachine.apply(entry.index, entry.data);
          break;
        case "confChange":
          this.#applyConfChange(entry);
          break;
        case "empty":
          break;
      }
    } catch (error) {
      if (error instanceof InvariantViolation) throw error;
      if (isDiverged(error)) {
        this.#quarantine("its state differs from that of the majority", { index: entry.index, why: error.message });
        return;
      }
      this.#fail(error instanceof ClusterError ? error : new ApplyFailed(entry.index, error));
      return;
    }
    this.#appliedIndex = entry.index;
    this.#bytesSinceSnapshot += entry.data.length + entryOverheadBytes;
    const proposal = this.#proposals.applied(entry.index, entry.term, result);
    if (proposal !== undefined) this.#events.measured("proposeToCommitMs", committedMs - proposal.proposedMs);
    this.#settleChange(entry);
    if (entry.kind === "empty" && !this.#leading && this.#role === "leader" && entry.term === this.#term) {
      this.#leading = true;
      this.#tellLeadership();
    }
  }

  // ---- Members -------------------------------------------------------------------------------------------------

  #applyConfChange(entry: Entry): void {
    const change = decodeConfChange(entry.data);
    const conf = this.#running().applyConfChange(change);
    this.#conf = conf;
    this.#table.apply(change, conf);
    this.#events.membership(this.#table.list(), conf);
    this.#isOutside = this.#table.isRemoved(this.#config.id);
    // A leader hands over first, so that nobody has to wait for an election (F6).
    if (this.#isOutside && this.#role !== "leader") this.#leave();
  }

  #settleChange(entry: Entry): void {
    const waiting = this.#changeWaiting;
    if (waiting === undefined || entry.index < waiting.index) return;
    if (entry.index > waiting.index) this.#endChange({ kind: "unknown" });
    else if (entry.term === waiting.term && entry.kind === "confChange")
      this.#endChange({ kind: "changed", index: entry.index, conf: this.#conf });
    else this.#endChange({ kind: "failed", why: "another entry took its place" });
  }

  #endChange(outcome: ChangeOutcome): void {
    const waiting = this.#changeWaiting;
    this.#changeWaiting = undefined;
    waiting?.done(outcome);
  }

  #leave(): void {
    if (this.#state !== "running") return;
    this.#state = "removed";
    this.#settleAll();
    this.#tellLeadership();
    this.#events.removed();
    this.#schedule();
  }

  #quarantine(reason: string, facts: Readonly<Record<string, unknown>>): void {
    this.#state = "quarantined";
    this.#settleAll();
    this.#tellLeadership();
    this.#events.quarantined(reason, facts);
  }

  #settleAll(): void {
    this.#pages.length = 0;
    this.#proposals.stop();
    this.#reads.stop();
    this.#endChange({ kind: "unknown" });
    const transfer = this.#transfer;
    this.#transfer = undefined;
    transfer?.done({ kind: "stopped" });
    this.#role = "follower";
    this.#leader = noMember;
    this.#leading = false;
  }

  /** Learners that want to vote do so once they have kept up for one election timeout (F18). */
  #promoteLearners(): void {
    if (this.#conf.learners.length === 0 || this.#changeWaiting !== undefined || !this.#leading) return;
    for (const learner of this.#running().promotableLearners()) {
      const record = this.#table.get(learner);
      if (record === undefined || !record.autoPromote) continue;
      this.#events.noticed("promoting", { member: learner });
      this.changeMembers({ steps: [{ act: "addVoter", member: learner }], records: [record], force: false }, () => {});
      return;
    }
  }

  #watchTransfer(nowMs: number): void {
    const transfer = this.#transfer;
    if (transfer === undefined || nowMs < transfer.untilMs) return;
    this.#transfer = undefined;
    transfer.done({ kind: "timedOut" });
  }

  // ---- Snapshots -----------------------------------------------------------------------------------------------

  /** One after the other: of two sinks that fill side by side, the state of the one that ends last would stay. */
  #load(meta: SnapshotMeta, loaded: () => void): void {
    this.#loading = true;
    this.#loads.push({ meta, loaded });
    if (this.#loads.length === 1) this.#loadNext();
  }

  #loadNext(): void {
    const next = this.#loads[0];
    if (next === undefined) return;
    const { meta, loaded } = next;
    const sink = new TableFromState(this.#ports.stateMachine.restore(), (table) => (this.#table = table));
    this.#ports.snapshots.load(meta, sink, (error) => {
      this.#loads.shift();
      this.#loading = this.#loads.length > 0;
      if (this.#state !== "starting" && this.#state !== "running") return;
      if (error instanceof SnapshotWriteFailed) {
        // The disk did not answer; what it holds may be as good as ever. After a restart it is read again.
        this.#fail(new DiskFailed(error));
        return;
      }
      if (error instanceof ClusterError && error.code === incompatible) {
        this.#fail(error);
        return;
      }
      if (error !== undefined) {
        this.#quarantine("its snapshot cannot be read", { index: meta.index, why: error.message });
        return;
      }
      this.#guard(loaded);
      this.#loadNext();
    });
  }

  #installed(meta: SnapshotMeta): void {
    this.#snapshot = meta;
    this.#conf = meta.conf;
    this.#appliedIndex = meta.index;
    this.#bytesSinceSnapshot = 0;
    this.#pages.length = 0;
    this.#applyLagBytes = 0;
    this.#applyLagEntries = 0;
    this.#proposals.overtaken(meta.index);
    // What became of it is in there, and cannot be told from it.
    if (meta.index >= (this.#changeWaiting?.index ?? Infinity)) this.#endChange({ kind: "unknown" });
    this.#events.noticed("snapshotInstalled", { index: meta.index });
    this.#events.membership(this.#table.list(), meta.conf);
    this.#events.applied(meta.index);
    this.#reads.applied(meta.index);
  }

  #snapshotDue(): boolean {
    if (this.#creating || this.#appliedIndex <= this.#snapshot.index || this.#now() < this.#retrySnapshotMs)
      return false;
    const { limits } = this.#config;
    if (this.#appliedIndex - this.#snapshot.index > limits.snapshotLogEntriesMax) return true;
    return this.#bytesSinceSnapshot > Math.max(limits.snapshotLogBytesMin, 2 * this.#snapshotBytes);
  }

  #createSnapshot(): void {
    const meta = this.#running().appliedMeta();
    if (meta === undefined) return;
    this.#creating = true;
    const bytesBefore = this.#bytesSinceSnapshot;
    const source = new TableThenState(meta.index, this.#table, this.#ports.stateMachine.snapshot());
    const startedMs = this.#now();
    this.#ports.snapshots.create(meta, source, (error, sizeBytes) => {
      this.#creating = false;
      if (this.#state !== "running") return;
      this.#guard(() => {
        if (isDiverged(error) || isDiverged(error?.cause)) {
          this.#quarantine("its memory does not hold what was stored in it", {
            index: meta.index,
            why: error?.message,
          });
          return;
        }
        if (error !== undefined) {
          this.#retrySnapshotMs = this.#now() + snapshotRetryMsMax;
          this.#events.noticed("snapshotFailed", { index: meta.index, why: error.message });
          return;
        }
        this.#events.noticed("snapshotCreated", { index: meta.index, sizeBytes, tookMs: this.#now() - startedMs });
        // One that was installed meanwhile is newer.
        if (meta.index <= this.#snapshot.index) return;
        this.#snapshot = meta;
        this.#snapshotBytes = sizeBytes;
        this.#bytesSinceSnapshot = Math.max(0, this.#bytesSinceSnapshot - bytesBefore);
        this.#running().snapshotCreated(meta);
        this.#compact();
      });
    });
  }

  /** Drops the log behind the snapshot, but for what followers that are a little behind may still want (row 17, G10). */
  #compact(): void {
    const { trailingEntries, trailingBytes, trailingLiveBytesMax } = this.#config.limits;
    const core = this.#running();
    const { firstIndex, logBytes } = core.standing();
    let index = core.compactionIndex({ trailingEntries, trailingBytes, extensionBytes: trailingLiveBytesMax });
    for (const [to, outgoing] of this.#snapshotsOutgoing) {
      const arrived = (core.matchOf(to) ?? Infinity) >= outgoing.index;
      const givenUp = this.#now() - outgoing.endedMs > snapshotRetryMsMax;
      if (arrived || givenUp || this.#role !== "leader") this.#snapshotsOutgoing.delete(to);
      else if (logBytes <= trailingLiveBytesMax) index = Math.min(index, outgoing.index);
    }
    if (index < firstIndex) return;
    core.compact(index);
    this.#ports.storage.compact(index);
  }
}

function isDiverged(error: unknown): error is ClusterError {
  return error instanceof ClusterError && error.code === stateDiverged;
}
