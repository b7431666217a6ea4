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
  noMember,
  type ConfChange,
  type ConfChangeStep,
  type ConfState,
  type CoreConfig,
  type Entry,
  type HardState,
  type InitialState,
  type MemberId,
  type Message,
  type Ready,
  type Role,
  type SnapshotMeta,
  type Status,
} from "./core/types.ts";
import { LogSizes } from "./log-sizes.ts";
import type { MemberConfig } from "./member-config.ts";
import { MemberTable, encodeContext, type MemberRecord } from "./member-table.ts";
import type { LogStorage, RecoveredLog, Scheduler, SnapshotStore, StateMachine, Transport } from "./ports.ts";
import { Proposals, type Outcome, type Proposal } from "./proposals.ts";
import { Reads, type ReadOutcome } from "./reads.ts";
import { TableFromState, TableThenState } from "./snapshot-frame.ts";

/** What the shell needs of the core (scenarios A2 to A4). */
export interface Core {
  tick(): void;
  step(message: Message): void;
  /** Appends as much as the uncommitted budget allows; the rest was not taken. Zero unless leader. */
  propose(data: readonly Uint8Array[]): { readonly firstIndex: number; readonly accepted: number };
  /** @returns the index of its entry; throws a typed error when it is refused */
  proposeConfChange(change: ConfChange): number;
  decodeConfChange(data: Uint8Array): ConfChange;
  applyConfChange(change: ConfChange): { readonly conf: ConfState };
  readIndex(requestId: number): void;
  /** Whether the leader lease, if reads are served under one, is still in force. */
  leaseHolds(): boolean;
  transferLeadership(to: MemberId): void;
  reportUnreachable(id: MemberId): void;
  reportSnapshot(id: MemberId, ok: boolean): void;
  /** A snapshot is durable; followers that are too far behind are sent this one from now on. */
  snapshotCreated(meta: SnapshotMeta): void;
  compact(index: number): void;
  ready(): Ready | undefined;
  persisted(token: number): void;
  applied(index: number): void;
  status(): Status;
}

export interface MemberPorts {
  readonly createCore: (config: CoreConfig, initial: InitialState) => Core;
  readonly storage: LogStorage;
  readonly snapshots: SnapshotStore;
  readonly transport: Transport;
  readonly stateMachine: StateMachine;
  readonly scheduler: Scheduler;
}

/** What the owner of a member hears from it. Called within a turn: do little, and do not call back into the member. */
export interface MemberEvents {
  /** Role, term or leader differ from before. */
  leadership(now: { role: Role; term: number; leader: MemberId }): void;
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
  | "snapshotCreated"
  | "snapshotInstalled"
  | "malformedMessage"
  | "steppingAside"
  | "promoting";

export type Measure =
  "proposeToCommitMs" | "commitToApplyMs" | "persistMs" | "batchEntries" | "batchBytes" | "readBatch" | "stallMs";

export type ChangeOutcome =
  | { readonly kind: "changed"; readonly index: number; readonly conf: ConfState }
  /** Nothing was changed, and nothing will be by this request. `code` is stable. */
  | { readonly kind: "refused"; readonly code: ChangeRefusal; readonly why: string }
  | Exclude<Outcome, { kind: "committed" | "tooLarge" }>;

export type ChangeRefusal =
  /** Another change is under way, or no entry of this term is committed yet. */
  | "pending"
  /** It would leave fewer live voters than a quorum. */
  | "quorum"
  | "invalid"
  | "removedBefore";

export type TransferOutcome =
  | { readonly kind: "transferred"; readonly leader: MemberId }
  | { readonly kind: "refused"; readonly why: string }
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

interface Outstanding {
  readonly token: number;
  readonly startedMs: number;
  /** Writes that have not come back; 0 means durable, but perhaps not reported, since an earlier one is not. */
  writes: number;
  readonly after: readonly Message[];
}

/** A page of committed entries with the time at which they were found committed. */
interface Page {
  readonly entries: readonly Entry[];
  readonly committedMs: number;
  next: number;
}

/** What an entry costs in memory and on disk beyond its data, roughly. */
const entryOverheadBytes = 48;
/** In election timeouts: with a disk stalled for so long the process ends. */
const diskStallExitElections = 5;
const stepAsidePauseMs = 60_000;
const snapshotRetryMsMax = 30_000;
const readiesPerTurn = 16;
/** With this code the state machine says that the others have another state than it has (row 25). */
const stateDiverged = "STATE_DIVERGED";

export class Member {
  readonly #config: MemberConfig;
  readonly #ports: MemberPorts;
  readonly #events: MemberEvents;
  readonly #proposals = new Proposals();
  readonly #reads: Reads;

  #state: MemberState = "starting";
  #recovered: RecoveredLog | undefined;
  #hardState: HardState;
  #core: Core | undefined;
  #table: MemberTable;
  #conf: ConfState;

  // What the core last said, kept here so that nothing on the hot path asks for a whole status.
  #role: Role = "follower";
  #leader: MemberId = noMember;
  #term = 0;
  #lastIndex: number;
  #appliedIndex: number;
  #appliedTerm: number;

  // Turns and ticks.
  #turnScheduled = false;
  #lastTickMs = 0;
  #lastSeenMs = 0;
  #recoveringFromStall = false;
  /** The id of the read round that a leader waits for after a stall; proposals and reads wait with it. */
  #barrier: number | undefined;

  // Disk.
  readonly #outstanding: Outstanding[] = [];
  #space: "ok" | "low" | "full" = "ok";
  #steppedAsideMs = -Infinity;
  /** After a transfer away from a stalled disk has failed, silence lets the others elect. */
  #muted = false;

  // Applying.
  readonly #pages: Page[] = [];
  #applyLagBytes = 0;
  #applyLagEntries = 0;
  #loading = false;

  // Snapshots and the log behind them.
  #snapshot: SnapshotMeta;
  #snapshotBytes = 0;
  #creating = false;
  #retrySnapshotMs = 0;
  #compactedTo: number;
  #sizes: LogSizes;
  #snapshotsOutgoing = new Map<MemberId, number>();

  // Members.
  readonly #heardMs = new Map<MemberId, number>();
  readonly #caughtUpSinceMs = new Map<MemberId, number>();
  #changeWaiting: { index: number; term: number; done: (outcome: ChangeOutcome) => void } | undefined;
  #transfer: { to: MemberId; untilMs: number; done: ((outcome: TransferOutcome) => void) | undefined } | undefined;
  #removedUntilMs = Infinity;

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
    this.#ports = ports;
    this.#events = events;
    this.#reads = new Reads(config.startNumber);
    this.#recovered = recovered;
    this.#table = table;
    this.#snapshot = recovered.snapshot;
    this.#conf = recovered.snapshot.conf;
    this.#hardState = recovered.hardState;
    this.#term = recovered.hardState.term;
    this.#appliedIndex = recovered.snapshot.index;
    this.#appliedTerm = recovered.snapshot.term;
    this.#lastIndex = Math.max(recovered.snapshot.index, recovered.entries.at(-1)?.index ?? 0);
    this.#compactedTo =
      recovered.entries.length > 0 ? (recovered.entries[0]?.index ?? 1) - 1 : recovered.snapshot.index;
    this.#sizes = new LogSizes(this.#compactedTo);
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

  /** To be called every `tickMs`, and at once after a stall; how late it comes is how long the process was stalled. */
  elapsed(): void {
    if (this.#state !== "running") return;
    this.#guard(() => {
      const nowMs = this.#now();
      const { tickMs } = this.#config.timings;
      this.#observeTime(nowMs);
      if (!this.#recoveringFromStall) {
        const gapMs = nowMs - this.#lastTickMs;
        if (gapMs > 2 * tickMs) this.#afterStall();
        else for (let ticks = Math.floor(gapMs / tickMs); ticks > 0; ticks--) this.#tick(this.#lastTickMs + tickMs);
      }
      this.#watch(nowMs);
      this.#schedule();
    });
  }

  /** A message of a member whose identity the transport has proved; a snapshot offer only when its bytes are here. */
  receive(message: Message): void {
    if (this.#state !== "running") return;
    this.#guard(() => {
      const core = this.#running();
      if (message.type === "heartbeat" && message.term >= this.#term && message.commit > this.#lastIndex) {
        // A leader never tells a commit beyond what we acknowledged to it: so we have lost what we acknowledged.
        this.#quarantine("this member acknowledged entries that its log does not have", {
          lastIndex: this.#lastIndex,
          acknowledged: message.commit,
        });
        return;
      }
      if (message.type === "appendResponse" || message.type === "heartbeatResponse") {
        this.#heardMs.set(message.from, this.#now());
      }
      try {
        core.step(message);
      } catch (error) {
        if (!(error instanceof ClusterError)) throw error;
        this.#events.noticed("malformedMessage", { from: message.from, type: message.type, why: error.message });
      }
      this.#schedule();
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

  /**
   * How much room the disk of the log has (row 28). "low": this member, if it leads, takes no proposals and hands over;
   * "full": writes wait for space, which is no reason to stop the process.
   */
  diskSpace(space: "ok" | "low" | "full"): void {
    this.#space = space;
    if (space !== "ok" && this.#state === "running") this.#guard(() => this.stepAside("its disk is nearly full"));
  }

  /** Hands leadership to the best follower, at most once a minute; reads, heartbeats and proposals go on meanwhile. */
  stepAside(why: string): void {
    if (this.#role !== "leader" || this.#transfer !== undefined) return;
    const nowMs = this.#now();
    if (nowMs - this.#steppedAsideMs < stepAsidePauseMs) return;
    const to = this.#bestSuccessor();
    if (to === undefined) return;
    this.#steppedAsideMs = nowMs;
    this.#events.noticed("steppingAside", { why, to });
    this.#beginTransfer(to, undefined);
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
    if (this.#state !== "running") {
      done({ kind: "stopped" });
      return;
    }
    this.#reads.add(done);
    this.#schedule();
  }

  /** Whether a read that was served under the leader lease was still covered when it was made: ask after reading. */
  leaseHolds(): boolean {
    return this.#state === "running" && this.#barrier === undefined && this.#running().leaseHolds();
  }

  /**
   * Changes who is a member. `records` describes those added or updated.
   * @param force  skips the check that enough live voters remain
   */
  changeMembers(
    request: { steps: readonly ConfChangeStep[]; records: readonly MemberRecord[]; force: boolean },
    done: (outcome: ChangeOutcome) => void,
  ): void {
    const refusal = this.#refusal(0);
    if (refusal !== undefined) {
      invariant(refusal.kind !== "tooLarge", "an empty proposal is too large");
      done(refusal);
      return;
    }
    const refused = this.#refuseChange(request.steps, request.force);
    if (refused !== undefined) {
      done(refused);
      return;
    }
    this.#guard(() => {
      const change: ConfChange = {
        transition: "auto",
        steps: request.steps,
        context: encodeContext({ members: request.records, requestId: 0 }),
      };
      let index: number;
      try {
        index = this.#running().proposeConfChange(change);
      } catch (error) {
        if (!(error instanceof ClusterError)) throw error;
        done({ kind: "refused", code: "pending", why: error.message });
        return;
      }
      this.#changeWaiting?.done({ kind: "unknown" });
      this.#changeWaiting = { index, term: this.#term, done };
      this.#schedule();
    });
  }

  /** Hands leadership to `to`, or to the voter that is furthest. Proposals wait meanwhile, one election timeout at most. */
  transfer(to: MemberId | undefined, done: (outcome: TransferOutcome) => void): void {
    if (this.#state !== "running") return done({ kind: "stopped" });
    if (this.#role !== "leader") return done({ kind: "notLeader", leader: this.#leader });
    const target = to ?? this.#bestSuccessor();
    if (target === undefined) return done({ kind: "refused", why: "no other voter has answered lately" });
    if (target === this.#config.id) return done({ kind: "refused", why: "it leads already" });
    if (!this.#conf.voters.includes(target)) return done({ kind: "refused", why: `${target} is not a voter` });
    this.#guard(() => this.#beginTransfer(target, done));
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

  status(): MemberStatus {
    const oldest = this.#outstanding[0];
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
      diskStallMs: oldest === undefined ? 0 : this.#now() - oldest.startedMs,
    };
  }

  // ---- Turns ---------------------------------------------------------------------------------------------------

  #begin(): void {
    const recovered = this.#recovered;
    invariant(recovered !== undefined, "a member begins once");
    this.#recovered = undefined;
    for (const entry of recovered.entries) this.#sizes.push(entry.index, entry.data.length + entryOverheadBytes);
    const { timings, limits } = this.#config;
    this.#core = this.#ports.createCore(
      {
        id: this.#config.id,
        seed: this.#config.seed,
        electionTicks: Math.max(1, Math.round(timings.electionMs / timings.tickMs)),
        heartbeatTicks: Math.max(1, Math.round(timings.heartbeatMs / timings.tickMs)),
        preVote: true,
        checkQuorum: true,
        readMode: this.#config.leaseReads ? "lease" : "readIndex",
        maxEntryBytes: limits.entryBytesMax,
        maxEntriesPerMsgBytes: limits.messageBytesMax,
        maxInflightMsgs: limits.inflightMsgsMax,
        maxInflightBytes: limits.inflightBytesMax,
        maxUncommittedBytes: limits.uncommittedBytesMax,
        maxUncommittedEntries: limits.uncommittedEntriesMax,
        maxApplyBytes: limits.readyApplyBytesMax,
        maxPendingReads: 10_000,
        snapshotRetryTicksMax: Math.ceil(snapshotRetryMsMax / timings.tickMs),
        promotionLagEntries: limits.promoteLagEntriesMax,
      },
      {
        hardState: recovered.hardState,
        snapshot: recovered.snapshot,
        entries: recovered.entries,
        applied: recovered.snapshot.index,
      },
    );
    this.#state = "running";
    this.#lastTickMs = this.#lastSeenMs = this.#now();
    this.#events.membership(this.#table.list(), this.#conf);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#turnScheduled || this.#state !== "running") return;
    this.#turnScheduled = true;
    this.#ports.scheduler.defer(() => {
      this.#turnScheduled = false;
      if (this.#state === "running") this.#guard(() => this.#turn());
    });
  }

  #turn(): void {
    this.#observeTime(this.#now());
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

  /** A leader that stood still may have been replaced meanwhile: it asks a quorum before it takes or answers anything. */
  #observeTime(nowMs: number): void {
    const gapMs = nowMs - this.#lastSeenMs;
    this.#lastSeenMs = nowMs;
    if (gapMs <= this.#config.timings.electionMs / 2) return;
    this.#events.noticed("stalled", { gapMs });
    this.#events.measured("stallMs", gapMs);
    if (this.#role !== "leader") return;
    this.#barrier = this.#reads.freshId();
    this.#running().readIndex(this.#barrier);
  }

  /** What is looked after once a tick. */
  #watch(nowMs: number): void {
    const { electionMs } = this.#config.timings;
    this.#proposals.expire(nowMs);
    if (this.#reads.askAgain(nowMs - electionMs) > 0) this.#schedule();
    this.#watchDisk(nowMs);
    this.#watchTransfer(nowMs);
    if (nowMs >= this.#removedUntilMs) this.#leave();
    if (this.#role === "leader") {
      this.#promoteLearners(nowMs);
      if (this.#space !== "ok") this.stepAside("its disk is nearly full");
    }
    this.#compact();
  }

  #watchDisk(nowMs: number): void {
    const oldest = this.#outstanding[0];
    const stallMs = oldest === undefined || oldest.writes === 0 ? 0 : nowMs - oldest.startedMs;
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
    if (this.#transfer === undefined && !this.#muted) {
      this.#events.noticed("diskStalled", { stallMs });
      const to = this.#bestSuccessor();
      if (to !== undefined) this.#beginTransfer(to, undefined);
    }
    // The hand-over takes one round trip and a vote; if it has not happened by now, silence makes the others elect.
    if (stallMs > 2 * electionMs) this.#muted = true;
  }

  // ---- Into the core -------------------------------------------------------------------------------------------

  #refusal(sizeBytes: number): Exclude<Outcome, { kind: "committed" }> | undefined {
    const { limits } = this.#config;
    if (this.#state !== "running") return { kind: "stopped" };
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
    if (this.#role !== "leader" || this.#barrier !== undefined || this.#transfer !== undefined) return;
    if (this.#proposals.queued === 0) return;
    const { limits } = this.#config;
    const batch = this.#proposals.take(limits.batchEntriesMax, limits.batchBytesMax);
    if (batch.length === 0) return;
    const { firstIndex, accepted } = this.#running().propose(batch.map((proposal) => proposal.data));
    this.#proposals.appended(batch.slice(0, accepted), firstIndex, this.#term);
    if (accepted < batch.length) this.#proposals.putBack(batch.slice(accepted));
    else if (this.#proposals.queued > 0) this.#schedule();
    this.#events.measured("batchEntries", accepted);
  }

  #feedReads(): void {
    if (this.#barrier !== undefined) return;
    const requestId = this.#reads.ask(this.#now());
    if (requestId !== undefined) this.#running().readIndex(requestId);
  }

  // ---- Out of the core -----------------------------------------------------------------------------------------

  #takeReadies(): void {
    const core = this.#running();
    for (let count = 0; count < readiesPerTurn; count++) {
      const ready = core.ready();
      if (ready === undefined) return;
      this.#handle(ready);
      if (this.#state !== "running") return;
    }
    this.#schedule();
  }

  #handle(ready: Ready): void {
    if (ready.hardState !== undefined) {
      this.#hardState = ready.hardState;
      this.#term = ready.hardState.term;
    }
    if (ready.softState !== undefined) this.#leadership(ready.softState.role, ready.softState.leader);
    for (const message of ready.messages) this.#send(message);
    this.#persist(ready);
    for (const { requestId, index } of ready.readStates) this.#readConfirmed(requestId, index);
    if (ready.readFailures.length > 0) this.#reads.failed(ready.readFailures);
    if (ready.committed.length > 0) this.#committed(ready.committed);
  }

  #leadership(role: Role, leader: MemberId): void {
    const led = this.#role === "leader";
    this.#role = role;
    this.#leader = leader;
    const nowMs = this.#now();
    if (led && role !== "leader") {
      this.#barrier = undefined;
      this.#muted = false;
      this.#caughtUpSinceMs.clear();
      // Entries of ours may still be committed by the next leader: its log tells, if it does so soon.
      this.#proposals.orphan(nowMs + 2 * this.#config.timings.electionMs);
      if (this.#removedUntilMs < Infinity) this.#leave();
    }
    if (role !== "leader") this.#proposals.refuseQueued({ kind: "notLeader", leader });
    if (role === "leader") this.#heardMs.clear();
    const transfer = this.#transfer;
    if (transfer !== undefined && role !== "leader" && leader !== noMember) {
      this.#transfer = undefined;
      transfer.done?.({ kind: "transferred", leader });
    }
    this.#events.leadership({ role, term: this.#term, leader });
  }

  #send(message: Message): void {
    if (message.type !== "snapshot") {
      if (!this.#muted) this.#ports.transport.send(message);
      return;
    }
    const { to } = message;
    this.#snapshotsOutgoing.set(to, message.meta.index);
    this.#ports.transport.sendSnapshot(message, (error) => {
      this.#snapshotsOutgoing.delete(to);
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
      this.#outstanding.push({ token, startedMs: this.#now(), writes: 0, after: ready.messagesAfterPersist });
      if (idle) this.#reportDurable();
      return;
    }
    const step: Outstanding = {
      token,
      startedMs: this.#now(),
      writes: (snapshot === undefined ? 0 : 1) + (snapshot === undefined || entries.length > 0 ? 1 : 0),
      after: ready.messagesAfterPersist,
    };
    this.#outstanding.push(step);
    const saveEntries = (): void => {
      let bytes = 0;
      for (const entry of entries) {
        this.#sizes.push(entry.index, entry.data.length + entryOverheadBytes);
        bytes += entry.data.length;
      }
      this.#lastIndex = entries.at(-1)?.index ?? this.#lastIndex;
      this.#events.measured("batchBytes", bytes);
      this.#ports.storage.save({ hardState: hardState ?? this.#hardState, entries }, (error) =>
        this.#saved(step, error),
      );
    };
    if (snapshot === undefined) {
      saveEntries();
      return;
    }
    this.#lastIndex = snapshot.index;
    this.#sizes = new LogSizes(snapshot.index);
    this.#compactedTo = snapshot.index;
    this.#loading = true;
    this.#ports.storage.reset(snapshot, hardState ?? this.#hardState, (error) => {
      if (error !== undefined || this.#state !== "running") {
        this.#saved(step, error);
        return;
      }
      this.#load(snapshot, () => {
        this.#installed(snapshot);
        this.#saved(step, undefined);
      });
    });
    if (entries.length > 0) saveEntries();
  }

  #saved(step: Outstanding, error: Error | undefined): void {
    if (this.#state !== "running") return;
    if (error !== undefined) {
      this.#fail(error instanceof ClusterError ? error : new DiskFailed(error));
      return;
    }
    this.#guard(() => {
      step.writes--;
      this.#events.measured("persistMs", this.#now() - step.startedMs);
      this.#reportDurable();
      this.#schedule();
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
    if (requestId === this.#barrier) {
      this.#barrier = undefined;
      this.#schedule();
      return;
    }
    const confirmed = this.#reads.confirmed(requestId, index);
    if (confirmed !== undefined) this.#events.measured("readBatch", confirmed.callers);
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
    this.#schedule();
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
      if (error instanceof ClusterError && error.code === stateDiverged) {
        this.#quarantine("its state differs from that of the majority", { index: entry.index, why: error.message });
        return;
      }
      this.#fail(error instanceof ClusterError ? error : new ApplyFailed(entry.index, error));
      return;
    }
    this.#appliedIndex = entry.index;
    this.#appliedTerm = entry.term;
    const proposal = this.#proposals.applied(entry.index, entry.term, result);
    if (proposal !== undefined) this.#events.measured("proposeToCommitMs", committedMs - proposal.proposedMs);
    this.#settleChange(entry);
  }

  // ---- Members -------------------------------------------------------------------------------------------------

  #applyConfChange(entry: Entry): void {
    const change = this.#running().decodeConfChange(entry.data);
    const { conf } = this.#running().applyConfChange(change);
    this.#conf = conf;
    this.#table.apply(change, conf);
    const members = new Set(membersOf(conf));
    for (const id of this.#heardMs.keys()) if (!members.has(id)) this.#heardMs.delete(id);
    this.#events.membership(this.#table.list(), conf);
    if (members.size > 0 && !members.has(this.#config.id) && this.#table.isRemoved(this.#config.id)) this.#removed();
  }

  #settleChange(entry: Entry): void {
    const waiting = this.#changeWaiting;
    if (waiting === undefined || entry.index < waiting.index) return;
    this.#changeWaiting = undefined;
    if (entry.index > waiting.index) waiting.done({ kind: "unknown" });
    else if (entry.term !== waiting.term) waiting.done({ kind: "failed", why: "another entry took its place" });
    else if (entry.kind === "confChange") waiting.done({ kind: "changed", index: entry.index, conf: this.#conf });
    else waiting.done({ kind: "refused", code: "pending", why: "another change was under way" });
  }

  /** A leader serves until its removal is applied, then hands over, so that nobody waits for an election (F6). */
  #removed(): void {
    this.#removedUntilMs = this.#now() + this.#config.timings.electionMs;
    if (this.#role !== "leader") {
      this.#leave();
      return;
    }
    const to = this.#bestSuccessor();
    if (to !== undefined) this.#beginTransfer(to, undefined);
  }

  #leave(): void {
    if (this.#state !== "running") return;
    this.#state = "removed";
    this.#settleAll();
    this.#events.removed();
  }

  #quarantine(reason: string, facts: Readonly<Record<string, unknown>>): void {
    this.#state = "quarantined";
    this.#settleAll();
    this.#events.quarantined(reason, facts);
  }

  #settleAll(): void {
    this.#pages.length = 0;
    this.#proposals.stop();
    this.#reads.stop();
    const change = this.#changeWaiting;
    this.#changeWaiting = undefined;
    change?.done({ kind: "unknown" });
    const transfer = this.#transfer;
    this.#transfer = undefined;
    transfer?.done?.({ kind: "stopped" });
    this.#role = "follower";
    this.#leader = noMember;
  }

  /** Voters from which an acknowledgement came within one election timeout; this member counts as one. */
  #isLive(id: MemberId): boolean {
    if (id === this.#config.id) return true;
    return this.#now() - (this.#heardMs.get(id) ?? -Infinity) <= this.#config.timings.electionMs;
  }

  #refuseChange(steps: readonly ConfChangeStep[], force: boolean): ChangeOutcome | undefined {
    const voters = new Set(this.#conf.voters);
    for (const { act, member } of steps) {
      if (act === "addVoter" || act === "addLearner") {
        if (this.#table.isRemoved(member)) {
          return {
            kind: "refused",
            code: "removedBefore",
            why: `${member} has been removed; its id is never used again`,
          };
        }
        if (act === "addVoter") voters.add(member);
        else voters.delete(member);
      } else if (act === "remove") voters.delete(member);
    }
    if (voters.size === 0) return { kind: "refused", code: "invalid", why: "no voter would be left" };
    const loses = this.#conf.voters.some((voter) => !voters.has(voter));
    if (!loses || force) return undefined;
    const live = [...voters].filter((voter) => this.#isLive(voter)).length;
    const quorum = Math.floor(voters.size / 2) + 1;
    if (live >= quorum) return undefined;
    const why = `${live} of the ${voters.size} voters that would be left answer, and ${quorum} are needed`;
    return { kind: "refused", code: "quorum", why };
  }

  /** Learners that want to vote do so once they have been no more than a batch behind for one election timeout. */
  #promoteLearners(nowMs: number): void {
    if (this.#conf.learners.length === 0 || this.#conf.votersOutgoing.length > 0) return;
    if (this.#changeWaiting !== undefined) return;
    const { commit, peers } = this.#running().status();
    for (const learner of this.#conf.learners) {
      const record = this.#table.get(learner);
      const progress = peers.get(learner);
      if (record === undefined || !record.autoPromote || progress === undefined) continue;
      const near = progress.match + this.#config.limits.promoteLagEntriesMax >= commit && progress.match > 0;
      if (!near || progress.state !== "replicate" || !this.#isLive(learner)) {
        this.#caughtUpSinceMs.delete(learner);
        continue;
      }
      const sinceMs = this.#caughtUpSinceMs.get(learner) ?? nowMs;
      this.#caughtUpSinceMs.set(learner, sinceMs);
      if (nowMs - sinceMs < this.#config.timings.electionMs) continue;
      this.#caughtUpSinceMs.delete(learner);
      this.#events.noticed("promoting", { member: learner, match: progress.match, commit });
      this.changeMembers({ steps: [{ act: "addVoter", member: learner }], records: [record], force: false }, () => {});
      return;
    }
  }

  /** The live voter that has most of the log. */
  #bestSuccessor(): MemberId | undefined {
    let best: { id: MemberId; match: number } | undefined;
    const { peers } = this.#running().status();
    for (const [id, { match }] of peers) {
      if (id === this.#config.id || !this.#conf.voters.includes(id) || !this.#isLive(id)) continue;
      if (best === undefined || match > best.match) best = { id, match };
    }
    return best?.id;
  }

  #beginTransfer(to: MemberId, done: ((outcome: TransferOutcome) => void) | undefined): void {
    const before = this.#transfer;
    this.#transfer = { to, untilMs: this.#now() + this.#config.timings.electionMs, done };
    before?.done?.({ kind: "refused", why: `leadership goes to ${to} instead` });
    this.#running().transferLeadership(to);
    this.#schedule();
  }

  #watchTransfer(nowMs: number): void {
    const transfer = this.#transfer;
    if (transfer === undefined || nowMs < transfer.untilMs) return;
    this.#transfer = undefined;
    transfer.done?.({ kind: "timedOut" });
  }

  // ---- Snapshots -----------------------------------------------------------------------------------------------

  #load(meta: SnapshotMeta, then: () => void): void {
    this.#loading = true;
    const sink = new TableFromState(this.#ports.stateMachine.restore(), (table) => (this.#table = table));
    this.#ports.snapshots.load(meta, sink, (error) => {
      this.#loading = false;
      if (this.#state !== "starting" && this.#state !== "running") return;
      if (error !== undefined) {
        this.#quarantine("its snapshot cannot be read", { index: meta.index, why: error.message });
        return;
      }
      this.#guard(then);
    });
  }

  #installed(meta: SnapshotMeta): void {
    this.#snapshot = meta;
    this.#conf = meta.conf;
    this.#appliedIndex = meta.index;
    this.#appliedTerm = meta.term;
    this.#pages.length = 0;
    this.#applyLagBytes = 0;
    this.#applyLagEntries = 0;
    this.#proposals.overtaken(meta.index);
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
    return this.#sizes.after(this.#snapshot.index) > Math.max(limits.snapshotLogBytesMin, 2 * this.#snapshotBytes);
  }

  #createSnapshot(): void {
    this.#creating = true;
    const meta: SnapshotMeta = { index: this.#appliedIndex, term: this.#appliedTerm, conf: this.#conf };
    const source = new TableThenState(meta.index, this.#table, this.#ports.stateMachine.snapshot());
    const startedMs = this.#now();
    this.#ports.snapshots.create(meta, source, (error, sizeBytes) => {
      this.#creating = false;
      if (this.#state !== "running") return;
      this.#guard(() => {
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
        this.#running().snapshotCreated(meta);
        this.#compact();
      });
    });
  }

  /** Drops the log behind the snapshot, but for what followers that are a little behind may still want (row 17, G10). */
  #compact(): void {
    const { limits } = this.#config;
    const behind = this.#snapshot.index;
    if (behind - limits.trailingEntries <= this.#compactedTo) return;
    let keepAfter = Math.min(behind - limits.trailingEntries, this.#sizes.indexBehind(behind, limits.trailingBytes));
    if (this.#role === "leader") {
      for (const [id, progress] of this.#running().status().peers) {
        if (id === this.#config.id) continue;
        const wants = Math.max(progress.match, this.#snapshotsOutgoing.get(id) ?? 0);
        const wanted = this.#isLive(id) || this.#snapshotsOutgoing.has(id);
        if (!wanted || wants >= keepAfter || this.#sizes.after(wants) > limits.trailingLiveBytesMax) continue;
        keepAfter = wants;
      }
    }
    if (keepAfter <= this.#compactedTo) return;
    this.#compactedTo = keepAfter;
    this.#running().compact(keepAfter);
    this.#ports.storage.compact(keepAfter);
    this.#sizes.compact(keepAfter);
  }
}

function membersOf(conf: ConfState): MemberId[] {
  return [...conf.voters, ...conf.votersOutgoing, ...conf.learners, ...conf.learnersNext];
}
