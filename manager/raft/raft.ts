/**
 * One member in the real world: its data folder and disk, its sockets, real time. Gives the member its turns and its
 * ticks, and callers promises. What it does with entries is the state machine's; what it decides, the core's.
 */
import { performance } from "node:perf_hooks";

import { ClusterError, invariant } from "../../lib/pure/errors.ts";
import { sleep, type Clock, type Logger, type Timer } from "../../lib/runtime/index.ts";
import type { ConfChangeStep, ConfState, MemberId, Role } from "./core/index.ts";
import { noMember } from "./core/types.ts";
import type { DataFolder } from "./data-folder.ts";
import {
  ChangeUnknown,
  MemberFolderReplaced,
  ElsewhereLed,
  MemberQuarantined,
  MemberUnknown,
  NoLeader,
  RaftStopped,
  TimingsRefused,
  TransferFailed,
} from "./errors.ts";
import { EventLoopMonitor } from "./event-loop.ts";
import { defaultLimits, type MemberLimits, type MemberTimings } from "./member-config.ts";
import type { MemberRecord } from "./member-table.ts";
import { Member, type ChangeOutcome, type MemberState, type MemberStatus, type TransferOutcome } from "./member.ts";
import { RaftMetrics } from "./metrics.ts";
import type { LogStorage, RecoveredLog, SnapshotStore, StateMachine } from "./ports.ts";
import type { Outcome } from "./proposals.ts";
import type { LocalMember, RaftTransport, RemoteMember, Standing, TransportHandlers } from "./transport/index.ts";
import type { LogStatus } from "./wal/status.ts";

/** The disk of one member, opened. Who opened it closes it, after the member. */
export interface RaftStorage {
  readonly recovered: RecoveredLog;
  readonly log: LogStorage;
  readonly snapshots: SnapshotStore;
  status(): LogStatus;
  /** As in `status()`, for who asks at every tick. */
  readonly space: LogStatus["space"];
  /** New writes use a new data key at once; resolves when no file needs an older one. */
  rotateKey(signal?: AbortSignal): Promise<void>;
}

export interface RaftOptions {
  readonly folder: DataFolder;
  readonly storage: RaftStorage;
  /** `local` lacks the address, which only the one who listens knows. */
  readonly openTransport: (handlers: TransportHandlers, local: Omit<LocalMember, "address">) => RaftTransport;
  readonly stateMachine: StateMachine;
  readonly timings: MemberTimings;
  readonly limits?: Partial<MemberLimits>;
  readonly leaseReads?: boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Whom a member without a log may meet: the managers that the leader named when it let this one in. */
  readonly peers?: readonly { readonly id: MemberId; readonly address: string }[];
  /** The process must end; `exitCode` is 70 when the disk cannot be trusted. */
  readonly onFatal: (error: Error, exitCode: number) => void;
  /** Removed from the cluster, or not to be trusted: it has gone silent and wants to be replaced. */
  readonly onOut: (state: "removed" | "quarantined", reason: string) => void;
}

/** Roughly sysexits(3) EX_SOFTWARE and EX_IOERR: 70 says that the disk failed or stalled. */
export const exitDiskFailed = 70;
const exitBug = 71;
const exitRefused = 1;

export interface Leadership {
  /** Leads, and has applied everything that was committed before its term. */
  readonly leading: boolean;
  readonly term: number;
  /** HOST:PORT of the leader, if it is known. */
  readonly leader: string | undefined;
}

/** How a command ended, for callers that are driven by callbacks (the store's ReplicatedLog). */
export type ProposeOutcome =
  | { readonly kind: "committed"; readonly index: number; readonly result: unknown }
  | { readonly kind: "notLeader"; readonly leader: string | undefined }
  | { readonly kind: "backpressure"; readonly retryAfterMs: number }
  | { readonly kind: "stopped" }
  | { readonly kind: "unknown"; readonly cause: string };

export type ReadIndexOutcome =
  | { readonly kind: "applied"; readonly index: number }
  | { readonly kind: "notLeader"; readonly leader: string | undefined }
  | { readonly kind: "stopped" };

/** Refusals of a membership change that pass by themselves. */
const passing = new Set([
  "RAFT_TERM_UNCOMMITTED",
  "RAFT_LEADER_UNCONFIRMED",
  "RAFT_TRANSFER_IN_PROGRESS",
  "RAFT_CONF_CHANGE_PENDING",
]);
const retryMs = 20;
/** A graceful stop waits so many election timeouts for a successor. */
const stopPatience = 2;

export class Raft implements AsyncDisposable {
  readonly metrics: RaftMetrics;
  readonly #options: RaftOptions;
  readonly #member: Member;
  readonly #transport: RaftTransport;
  readonly #logger: Logger;
  #ticker: Timer | undefined;
  /** When `#tick` ran last, and when it is due next; both on the grid of ticks, from the start. */
  #tickedMs: number;
  #dueMs: number;
  #isClosed = false;
  readonly #loop: EventLoopMonitor;
  readonly #listeners = new Set<(leadership: Leadership) => void>();
  readonly #memberListeners = new Set<(members: readonly MemberRecord[]) => void>();
  #leadership: Leadership = { leading: false, term: 0, leader: undefined };
  #role: Role = "follower";
  /** Who was seen leading last. */
  #lastLeader: MemberId = noMember;
  #space: LogStatus["space"] = "ok";
  #onApplied: (index: number) => void = () => {};
  #closing: Promise<void> | undefined;

  private constructor(options: RaftOptions) {
    this.#options = options;
    this.#logger = options.logger.child("raft");
    const identity = options.folder.identity;
    invariant(identity !== undefined, "a data folder has an identity before raft opens it");
    this.#transport = options.openTransport(this.#handlers(), {
      id: identity.memberId,
      clusterId: identity.clusterId,
      clusterIncarnation: identity.clusterIncarnation,
      dataIncarnation: identity.incarnation,
    });
    this.metrics = new RaftMetrics({
      state: () => this.#member.state,
      status: () => this.status(),
      log: () => options.storage.status(),
      loop: () => this.#loop.recent,
      peers: () => this.#transport.metrics(),
    });
    const { electionMs, heartbeatMs } = options.timings;
    this.#loop = new EventLoopMonitor(
      options.clock,
      options.timings.tickMs,
      { stallMs: electionMs / 2, lateMs: heartbeatMs },
      (window, repeated) => {
        this.#logger.warn("the event loop is late", { ...window });
        if (repeated) this.#member.stepAside("its event loop is late");
      },
    );
    this.#member = new Member(
      {
        id: identity.memberId,
        // Elections need chance, not secrecy: members draw differently because their ids differ.
        seed: (identity.memberId + identity.starts * 2 ** 20) % Number.MAX_SAFE_INTEGER,
        startNumber: identity.starts,
        timings: options.timings,
        limits: { ...defaultLimits, ...options.limits },
        leaseReads: options.leaseReads ?? false,
      },
      options.storage.recovered,
      {
        storage: options.storage.log,
        snapshots: options.storage.snapshots,
        transport: this.#transport,
        stateMachine: options.stateMachine,
        scheduler: { defer: (turn) => void setImmediate(turn), nowMs: () => performance.now() },
      },
      {
        leadership: (now) => this.#onLeadership(now),
        membership: (members, conf) => this.#onMembership(members, conf),
        applied: (index) => {
          this.#onApplied(index);
          this.#wakeTick();
        },
        quarantined: (reason, facts) => {
          const others = this.members.filter(({ id, address }) => id !== this.memberId && address !== "");
          const through = others.map(({ address }) => address);
          const error = new MemberQuarantined(this.memberId, reason, through);
          // A restart would vote with the same log, and perhaps lead with the same state.
          options.folder.markQuarantined({ reason, through });
          this.metrics.noticed("quarantined", facts);
          this.#logger.error("quarantined: this manager must be replaced", { error, ...facts });
          options.onOut("quarantined", `${error.message}. ${error.fix}`);
        },
        removed: () => this.#onRemoved(),
        fatal: (error) => this.#onFatal(error),
        noticed: (what, facts) => {
          this.metrics.noticed(what, facts);
          const quiet = what === "snapshotCreated" || what === "promoting";
          this.#logger[quiet ? "info" : "warn"](what, facts);
        },
        measured: (what, value) => this.metrics.measured(what, value),
      },
    );
    this.#transport.setMembers(options.peers ?? []);
    this.#tickedMs = this.#dueMs = options.clock.monotonicMs();
    this.#armTick(options.timings.tickMs);
  }

  /** Loads the snapshot and begins. @throws TimingsRefused */
  static open(options: RaftOptions): Raft {
    checkTimings(options.timings);
    const raft = new Raft(options);
    raft.#member.start();
    return raft;
  }

  // ---- The log, for a store -------------------------------------------------------------------------------------

  /** Offers a command; `done` runs once and never inside this call. */
  propose(command: Uint8Array, done: (outcome: ProposeOutcome) => void): void {
    let inside = true;
    const settle = (outcome: Outcome): void => {
      this.metrics.proposalEnded(outcome.kind);
      const told = this.#told(outcome);
      if (inside) queueMicrotask(() => done(told));
      else done(told);
    };
    this.#member.propose(command, settle);
    inside = false;
  }

  /** An index that contains everything acknowledged before the call, when it is applied here. `done` runs once. */
  readIndex(done: (outcome: ReadIndexOutcome) => void): void {
    const giveUpMs = performance.now() + 4 * this.#options.timings.electionMs;
    let inside = true;
    const ask = (): void => {
      this.#member.readIndex((outcome) => {
        switch (outcome.kind) {
          case "ready":
            done({ kind: "applied", index: outcome.index });
            return;
          case "stopped":
            if (inside) queueMicrotask(() => done({ kind: "stopped" }));
            else done({ kind: "stopped" });
            return;
          case "retry":
            if (performance.now() > giveUpMs) done({ kind: "notLeader", leader: this.#leadership.leader });
            else this.#options.clock.after(this.#leadership.leader === undefined ? retryMs : 0, ask);
        }
      });
    };
    ask();
    inside = false;
  }

  forward(command: Uint8Array): void {
    const { leader } = this.#member;
    if (leader !== noMember) this.#transport.forward(leader, command);
  }

  leadership(): Leadership {
    return this.#leadership;
  }

  onLeadership(listener: (leadership: Leadership) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  // ---- Knowing -------------------------------------------------------------------------------------------------

  get memberId(): MemberId {
    return this.#options.folder.identity?.memberId ?? noMember;
  }

  get state(): MemberState {
    return this.#member.state;
  }

  get members(): readonly MemberRecord[] {
    return this.#member.table.list();
  }

  get conf(): ConfState {
    return this.#member.conf;
  }

  /** Whether `id` was a member once, and never will be again. */
  wasRemoved(id: MemberId): boolean {
    return this.#member.table.isRemoved(id);
  }

  /** Undefined while the snapshot is being loaded, and for good if it could not be. */
  status(): MemberStatus | undefined {
    return this.#member.hasBegun ? this.#member.status() : undefined;
  }

  logStatus(): LogStatus {
    return this.#options.storage.status();
  }

  onMembers(listener: (members: readonly MemberRecord[]) => void): () => void {
    this.#memberListeners.add(listener);
    return () => this.#memberListeners.delete(listener);
  }

  /** Resolves as soon as somebody leads and is known here; told by an event, not by asking. */
  whenLeader(signal?: AbortSignal): Promise<Leadership> {
    return this.whenLeadership((leadership) => leadership.leading || leadership.leader !== undefined, signal);
  }

  whenLeadership(holds: (leadership: Leadership) => boolean, signal?: AbortSignal): Promise<Leadership> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as Error);
        return;
      }
      if (holds(this.#leadership)) {
        resolve(this.#leadership);
        return;
      }
      const end = (): void => {
        stopListening();
        signal?.removeEventListener("abort", abort);
      };
      const abort = (): void => {
        end();
        reject(signal?.reason as Error);
      };
      const stopListening = this.onLeadership((leadership) => {
        if (!holds(leadership)) return;
        end();
        resolve(leadership);
      });
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  // ---- Members (on the leader) -------------------------------------------------------------------------------------

  /** A new manager, as a learner that becomes a voter by itself; asking again for one that is a member changes nothing. */
  async addLearner(record: MemberRecord, signal?: AbortSignal): Promise<void> {
    const known = this.#member.table.get(record.id);
    if (known !== undefined && known.dataIncarnation !== record.dataIncarnation) {
      throw new MemberFolderReplaced(record.id);
    }
    if (known !== undefined && known.address === record.address) return;
    const act = known === undefined ? "addLearner" : "update";
    await this.#change(`adding member ${record.id}`, [{ act, member: record.id }], [record], false, signal);
  }

  /** `record` takes the place of `old` in one change. */
  async replace(old: MemberId, record: MemberRecord, force: boolean, signal?: AbortSignal): Promise<void> {
    this.#record(old);
    const steps: ConfChangeStep[] = [
      { act: "remove", member: old },
      { act: "addLearner", member: record.id },
    ];
    await this.#change(`replacing member ${old}`, steps, [record], force, signal);
  }

  /** The leader removes itself too: it hands over when that is done. */
  async remove(id: MemberId, force: boolean, signal?: AbortSignal): Promise<void> {
    this.#record(id);
    await this.#change(`removing member ${id}`, [{ act: "remove", member: id }], [], force, signal);
  }

  async updateAddress(id: MemberId, address: string, signal?: AbortSignal): Promise<void> {
    const record = this.#record(id);
    if (record.address === address) return;
    const steps: ConfChangeStep[] = [{ act: "update", member: id }];
    await this.#change(`moving member ${id}`, steps, [{ ...record, address }], false, signal);
  }

  async promote(id: MemberId, signal?: AbortSignal): Promise<void> {
    const record = { ...this.#record(id), autoPromote: true };
    await this.#change(`promoting member ${id}`, [{ act: "addVoter", member: id }], [record], false, signal);
  }

  async demote(id: MemberId, force: boolean, signal?: AbortSignal): Promise<void> {
    const record = { ...this.#record(id), autoPromote: false };
    await this.#change(`demoting member ${id}`, [{ act: "addLearner", member: id }], [record], force, signal);
  }

  /** @returns the new leader @throws TransferFailed, ElsewhereLed, NoLeader, RaftRefusal, RaftStopped */
  async transfer(to?: MemberId): Promise<MemberId> {
    const outcome = await new Promise<TransferOutcome>((resolve) => this.#member.transfer(to, resolve));
    if (outcome.kind === "transferred") return outcome.leader;
    if (outcome.kind === "refused") throw outcome.error;
    if (outcome.kind === "timedOut") throw new TransferFailed(to ?? 0);
    if (outcome.kind === "notLeader") throw this.#notLeader(outcome.leader);
    throw new RaftStopped(this.#member.state);
  }

  /** @returns false if there is nothing new to keep, or one is being taken */
  takeSnapshot(): boolean {
    return this.#member.takeSnapshot();
  }

  /** New writes use a new data key at once; resolves when a snapshot has made the last file of an older one superfluous. */
  async rotateKey(signal?: AbortSignal): Promise<void> {
    const rotated = this.#options.storage.rotateKey(signal);
    // The old key is needed as long as the log behind the next snapshot is there.
    this.#member.takeSnapshot();
    await rotated;
  }

  /** A leader hands over first, so that nobody has to wait for an election (I7). Closing twice is fine. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#member.role === "leader" && this.#member.conf.voters.length > 1) await this.#handOver();
    this.#isClosed = true;
    this.#ticker?.cancel();
    this.#loop[Symbol.dispose]();
    this.#member.stop();
    await this.#transport[Symbol.asyncDispose]();
  }

  // ---- Inside --------------------------------------------------------------------------------------------------

  /**
   * To a successor, and then stays until that one has committed an entry of its own: of three, one of which is slow, it
   * could not do so without this one. Whatever hinders it, stopping goes on after a while: the others elect then.
   */
  async #handOver(): Promise<void> {
    const { clock, timings } = this.#options;
    const over = new AbortController();
    // During a hand-over a leader appends nothing, so what follows is the successor's.
    const { lastIndex } = this.#member.status();
    const committed = new Promise<void>((resolve) => {
      this.#onApplied = (index) => {
        if (index > lastIndex) resolve();
      };
    });
    const handedOver = this.transfer().then(() => committed);
    const patience = sleep(clock, stopPatience * timings.electionMs, over.signal);
    await Promise.race([patience, handedOver]).catch(() => undefined);
    over.abort();
    await patience.catch(() => undefined);
  }

  /** The next tick comes `ms` after the last one; ticks that were missed are not made up for. */
  #armTick(ms: number): void {
    const { clock, timings } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#dueMs = this.#tickedMs + ms;
    if (this.#dueMs < nowMs) this.#dueMs += Math.ceil((nowMs - this.#dueMs) / timings.tickMs) * timings.tickMs;
    this.#ticker = clock.after(this.#dueMs - nowMs, () => {
      const plannedMs = this.#dueMs - this.#tickedMs;
      this.#tickedMs = this.#dueMs;
      try {
        this.#tick(plannedMs);
      } finally {
        if (!this.#isClosed) this.#armTick(this.#member.rest());
      }
    });
  }

  /** Something happens: the next tick is not left out. */
  #wakeTick(): void {
    const { clock, timings } = this.#options;
    if (this.#isClosed || this.#dueMs - clock.monotonicMs() <= timings.tickMs) return;
    this.#ticker?.cancel();
    this.#armTick(timings.tickMs);
  }

  #tick(plannedMs: number): void {
    this.#loop.tick(plannedMs);
    const { space } = this.#options.storage;
    if (space !== this.#space) {
      this.#space = space;
      this.#logger[space === "ok" ? "info" : "error"]("space on the disk of the log", { space });
      this.#member.diskSpace(space);
    }
    this.#member.elapsed();
  }

  #handlers(): TransportHandlers {
    return {
      receive: (message) => this.#member.receive(message),
      unreachable: (peer) => {
        this.#member.unreachable(peer);
        this.#wakeTick();
      },
      gone: (peer) => {
        this.#member.gone(peer);
        this.#wakeTick();
      },
      receiveForwarded: (command) => this.#member.receiveForwarded(command),
      standing: (peer) => this.#standing(peer),
      propose: (command, done) => {
        const proposal = this.#member.propose(command, done);
        return () => {
          if (proposal !== undefined) this.#member.cancel(proposal);
        };
      },
      readIndex: (done) => this.#member.readIndex(done),
      removed: () => this.#member.expelled(),
    };
  }

  /** What a lagging member has not heard of it must let in; only who leads knows better. */
  #standing(peer: RemoteMember): Standing {
    if (this.#member.table.isRemoved(peer.id)) return "removed";
    const record = this.#member.table.get(peer.id);
    if (record === undefined) return this.#leadership.leading ? "unknown" : "member";
    if (record.nodeId !== peer.nodeId) return "unknown";
    if (record.dataIncarnation !== "" && record.dataIncarnation !== peer.dataIncarnation) return "replaced";
    return "member";
  }

  #onLeadership(now: { role: Role; term: number; leader: MemberId; ready: boolean }): void {
    const address = now.leader === noMember ? undefined : this.#addressOf(now.leader);
    if (now.leader !== noMember && now.leader !== this.#lastLeader) {
      this.#lastLeader = now.leader;
      this.metrics.leaderChanged();
    }
    const before = this.#role;
    this.#role = now.role;
    if (now.role === "preCandidate") this.metrics.election("preVoteStarted");
    if (now.role === "candidate") this.metrics.election("started");
    if (now.role === "leader" && before !== "leader") this.metrics.election("won");
    if (now.role === "follower" && before === "candidate") this.metrics.election("lost");
    if (now.role === "follower" && before === "preCandidate") this.metrics.election("preVoteLost");
    if (now.role === "preCandidate" && before === "candidate") this.metrics.election("split");
    this.#wakeTick();
    this.#logger.info("leadership", { role: now.role, term: now.term, leader: now.leader, ready: now.ready });
    this.#leadership = { leading: now.ready, term: now.term, leader: address };
    // Listeners may call back: never inside the member's turn.
    const leadership = this.#leadership;
    queueMicrotask(() => {
      for (const listener of this.#listeners) listener(leadership);
    });
  }

  #onMembership(members: readonly MemberRecord[], { voters, votersOutgoing, learners }: ConfState): void {
    this.#logger.info("members", { voters, learners, ...(votersOutgoing.length > 0 ? { votersOutgoing } : {}) });
    const others = members.filter(({ id, address }) => id !== this.memberId && address !== "");
    this.#transport.setMembers(others.length > 0 ? others : (this.#options.peers ?? []));
    queueMicrotask(() => {
      for (const listener of this.#memberListeners) listener(members);
    });
  }

  #onRemoved(): void {
    this.#logger.error("this manager has been removed from the cluster", {});
    this.#options.folder.markRemoved();
    this.#options.onOut("removed", "it has been removed from the cluster");
  }

  #onFatal(error: Error): void {
    const code = error instanceof ClusterError ? error.code : "";
    const isDisk =
      code === "RAFT_DISK_FAILED" ||
      code === "RAFT_DISK_STALLED" ||
      code === "RAFT_FOLDER_UNUSABLE" ||
      code.startsWith("LOG_");
    // Started again it would meet the same entry: a newer program is needed, and that is the operator's to give.
    const exit = code === "INCOMPATIBLE" ? exitRefused : exitBug;
    this.#options.onFatal(error, isDisk ? exitDiskFailed : exit);
  }

  #told(outcome: Outcome): ProposeOutcome {
    invariant(outcome.kind !== "tooLarge", "whoever proposes keeps to the limit", outcome);
    switch (outcome.kind) {
      case "committed":
        return { kind: "committed", index: outcome.index, result: outcome.result };
      case "failed":
        // Certainly without effect: the same as never having been taken.
        return { kind: "notLeader", leader: this.#leadership.leader };
      case "unknown":
        return { kind: "unknown", cause: "leadership was lost before the entry was applied here" };
      case "backpressure":
        return { kind: "backpressure", retryAfterMs: outcome.retryAfterMs };
      case "notLeader":
        return { kind: "notLeader", leader: outcome.leader === noMember ? undefined : this.#addressOf(outcome.leader) };
      case "stopped":
        break;
    }
    return { kind: "stopped" };
  }

  #addressOf(id: MemberId): string | undefined {
    return this.#member.table.get(id)?.address ?? this.#options.peers?.find((peer) => peer.id === id)?.address;
  }

  #record(id: MemberId): MemberRecord {
    const record = this.#member.table.get(id);
    if (record === undefined) throw new MemberUnknown(id);
    return record;
  }

  async #change(
    what: string,
    steps: readonly ConfChangeStep[],
    records: readonly MemberRecord[],
    force: boolean,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    for (;;) {
      signal?.throwIfAborted();
      const outcome = await new Promise<ChangeOutcome>((resolve) =>
        this.#member.changeMembers({ steps, records, force }, resolve),
      );
      switch (outcome.kind) {
        case "changed":
          this.#logger.info("members changed", { what, index: outcome.index });
          return;
        case "refused":
          if (!passing.has(outcome.error.code) || signal === undefined) throw outcome.error;
          break;
        case "backpressure":
        case "failed":
          break;
        case "unknown":
          throw new ChangeUnknown(what);
        case "notLeader":
          throw this.#notLeader(outcome.leader);
        case "stopped":
          throw new RaftStopped(this.#member.state);
      }
      await sleep(this.#options.clock, retryMs, signal);
    }
  }

  #notLeader(leader: MemberId): ClusterError {
    const address = leader === noMember ? undefined : this.#addressOf(leader);
    return address === undefined ? new NoLeader() : new ElsewhereLed(address);
  }
}

/** @throws TimingsRefused */
export function checkTimings({ tickMs, heartbeatMs, electionMs }: MemberTimings): void {
  for (const [name, value] of Object.entries({ tick: tickMs, heartbeat: heartbeatMs, election: electionMs })) {
    if (!(Number.isFinite(value) && value >= 1)) throw new TimingsRefused(`the ${name} is ${value} ms`);
  }
  if (electionMs < 5 * heartbeatMs) {
    throw new TimingsRefused(
      `the election timeout of ${electionMs} ms is less than five heartbeats of ${heartbeatMs} ms`,
    );
  }
  if (tickMs > heartbeatMs) {
    throw new TimingsRefused(`a tick of ${tickMs} ms is longer than a heartbeat of ${heartbeatMs} ms`);
  }
}
