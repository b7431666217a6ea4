/**
 * One simulated manager: a real member over a simulated disk, network and clock. It can crash and start again, pause,
 * and run on a clock of its own.
 */
import type { ConfState, MemberId, Message, SnapshotRequest } from "../../manager/raft/core/types.ts";
import { Member, type MemberEvents } from "../../manager/raft/member.ts";
import { MemberTable } from "../../manager/raft/member-table.ts";
import type { LogStorage, Scheduler, SnapshotStore, Transport } from "../../manager/raft/ports.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { bytesHash, type Checks } from "./checks.ts";
import { SimFailure } from "./failure.ts";
import type { CorruptionKind, Loss, Trigger } from "./faults.ts";
import type { MarkName } from "./marks.ts";
import { observedCore } from "./observed-core.ts";
import type { SimOptions } from "./options.ts";
import type { Job, SimDisk } from "./disk.ts";
import { SimStore, noWorld, type EntryChanges } from "./sim-store.ts";

export interface ProcessHost {
  readonly nowUs: number;
  readonly options: SimOptions;
  readonly checks: Checks;
  /** Changes by log index, for the watches of all members. */
  readonly history: Map<number, EntryChanges>;
  schedule(atUs: number, run: () => void): void;
  send(message: Message): void;
  sendSnapshot(process: SimProcess, request: SnapshotRequest, done: (error: Error | undefined) => void): void;
  forward(from: MemberId, to: MemberId, command: Uint8Array): void;
  coreEvent(): void;
  trigger(name: Trigger, process: SimProcess): void;
  mark(name: MarkName): void;
  note(what: () => string): void;
  /** It leads, with everything applied that was committed before. */
  leads(process: SimProcess): void;
  /** The process ended by itself, as it must when its disk fails. */
  exited(process: SimProcess, error: Error): void;
  quarantined(process: SimProcess, reason: string): void;
  confApplied(process: SimProcess, before: ConfState | undefined): void;
}

/** Some day in 2026, so that times in entries look like times. */
const wallBaseUs = 1_770_000_000_000_000;

/** Feature levels of the two programs that a member may run. */
export const oldLevel = 1;
export const presentLevel = 2;

/** Small, so that writing a snapshot takes several turns. */
const sliceBytes = 512;

export class SimProcess {
  readonly id: MemberId;
  readonly disk: SimDisk;
  readonly #host: ProcessHost;
  readonly #random: Random;
  /** Grows with each start and each end: what was planned for an earlier life is dropped. */
  #life = 0;
  #starts = 0;
  member: Member | undefined;
  store = new SimStore(0, noWorld);
  #wallOffsetUs = 0;
  alive = false;
  /** The disk cannot be trusted and the process stays down. */
  isQuarantined = false;
  isRemoved = false;
  /** Its data was destroyed on purpose: it must not be counted on. */
  isDamaged = false;
  /** As a learner it becomes a voter by itself when it has caught up. */
  promotesItself = false;
  isWiped = false;
  /** An object in its memory is not what was stored, and that is to be found out. */
  isFlipped = false;
  /** It runs the program of the level before. */
  isOld = false;

  // Pause: what comes in waits, as it does in the socket buffers of a stopped process.
  #pausedUntilUs = 0;
  #waiting: (() => void)[] = [];

  // The local clock: virtual time at `#clockBaseUs` was `#localBaseUs`.
  #rate = 1;
  #clockBaseUs = 0;
  #localBaseUs = 0;

  // The disk's queue: one job after the other.
  readonly #jobs: { readonly job: Job; readonly done: (error: Error | undefined) => void }[] = [];
  #jobRunning = false;
  diskStalledUntilUs = 0;
  diskSlowUntilUs = 0;
  diskSlowUs = 0;
  /** How often this disk was made to fail, slow or stalled: it may then end the process by right. */
  diskFaults = 0;
  #diskIsFull = false;
  /** The configuration as of the last applied entry, also of lives that are over. */
  lastConf: ConfState | undefined;

  #sentAppends = new Set<number>();

  constructor(id: MemberId, disk: SimDisk, host: ProcessHost, random: Random) {
    this.id = id;
    this.disk = disk;
    this.#host = host;
    this.#random = random;
  }

  get life(): number {
    return this.#life;
  }

  /** Cannot take part any more, whatever the world does. */
  get isUnfit(): boolean {
    return this.isQuarantined || this.isRemoved || this.isDamaged;
  }

  /** @returns false if there was nothing to destroy */
  damage(how: CorruptionKind, random: Random): boolean {
    if (!this.disk.damage(how, random)) return false;
    this.isDamaged = true;
    // A new disk under an old name is refused by the others (F12): the member is gone for good.
    this.isWiped = how === "wiped";
    return true;
  }

  get isPaused(): boolean {
    return this.#pausedUntilUs > this.#host.nowUs;
  }

  get nowMs(): number {
    return (this.#localBaseUs + (this.#host.nowUs - this.#clockBaseUs) * this.#rate) / 1_000;
  }

  get wallUs(): number {
    return wallBaseUs + this.#wallOffsetUs + this.#host.nowUs;
  }

  setRate(rate: number): void {
    this.#localBaseUs = this.nowMs * 1_000;
    this.#clockBaseUs = this.#host.nowUs;
    this.#rate = rate;
  }

  /** The local monotonic clock leaps, as it does when a virtual machine was stopped. */
  leap(byUs: number): void {
    this.#localBaseUs = this.nowMs * 1_000 + byUs;
    this.#clockBaseUs = this.#host.nowUs;
  }

  /** Runs `turn` as an input of this process: dropped if it is dead, kept back while it is paused. */
  enter(turn: () => void): void {
    if (!this.alive) return;
    if (this.isPaused) {
      this.#waiting.push(turn);
      return;
    }
    turn();
  }

  /** Plans an event of this life. */
  #later(afterUs: number, turn: () => void): void {
    const life = this.#life;
    this.#host.schedule(this.#host.nowUs + Math.max(0, Math.round(afterUs)), () => {
      if (life === this.#life) this.enter(turn);
    });
  }

  start(): void {
    if (this.alive || this.isQuarantined || this.isWiped) return;
    const host = this.#host;
    const opened = this.disk.open();
    if (opened.kind === "failed") {
      if (this.diskFaults === 0 && !this.isDamaged) throw opened.error;
      host.note(() => `n${this.id} cannot start: ${opened.error.message}`);
      if (this.isDamaged) {
        this.isQuarantined = true;
        return;
      }
      host.schedule(host.nowUs + 100_000, () => this.start());
      return;
    }
    if (opened.kind === "quarantine") {
      this.isQuarantined = true;
      host.quarantined(this, opened.reason);
      return;
    }
    this.#life++;
    this.#starts++;
    this.alive = true;
    this.#jobs.length = 0;
    this.#jobRunning = false;
    this.#waiting = [];
    this.#pausedUntilUs = 0;
    const life = this.#life;
    this.store = this.#newStore(life);
    const { recovered } = opened;
    try {
      host.checks.started(
        this.id,
        recovered.hardState,
        recovered.snapshot,
        recovered.entries,
        recovered.snapshot.index,
      );
    } catch (error) {
      // The one loss that no log can notice (K4): the last record, spoilt before a slot vouched for it.
      if (!this.isDamaged || this.disk.isMarked || !(error instanceof SimFailure)) throw error;
      host.note(() => `n${this.id} lost what it cannot know of; it stays down`);
      host.mark("loss that no log can notice");
      this.isQuarantined = true;
      this.#end();
      return;
    }
    if (recovered.snapshot.index > 0 && this.#starts > 1) host.mark("restart from a snapshot");
    const { options } = host;
    const tickMs = options.tickUs / 1_000;
    const limits = options.limits;
    this.member = new Member(
      {
        id: this.id,
        seed: this.#random.uint32(),
        startNumber: this.#starts,
        timings: {
          tickMs,
          heartbeatMs: options.heartbeatTicks * tickMs,
          electionMs: options.electionTicks * tickMs,
        },
        limits: {
          entryBytesMax: 1 << 20,
          batchBytesMax: 1 << 19,
          batchEntriesMax: 4_000,
          uncommittedBytesMax: limits.maxUncommittedBytes,
          uncommittedEntriesMax: limits.maxUncommittedEntries,
          applyLagBytesMax: 1 << 26,
          applyEntriesPerTurn: limits.maxApplyBytes < 1_000 ? 2 : 1_000,
          applyBytesPerTurn: 1 << 20,
          applyMsPerTurn: 1_000,
          messageBytesMax: limits.maxEntriesPerMsgBytes,
          inflightMsgsMax: limits.maxInflightMsgs,
          inflightBytesMax: limits.maxInflightBytes,
          readyApplyBytesMax: limits.maxApplyBytes,
          snapshotLogBytesMin: 1 << 26,
          snapshotLogEntriesMax: options.snapshotEntries,
          trailingEntries: options.trailingEntries,
          trailingBytes: 0,
          trailingLiveBytesMax: 0,
          promoteLagEntriesMax: 4,
        },
        leaseReads: options.readMode === "lease",
      },
      recovered,
      {
        createCore: (config, initial) =>
          observedCore({ ...config, preVote: options.preVote }, initial, {
            coreEvent: () => host.coreEvent(),
            mark: (name) => host.mark(name),
            ready: (ready, status) => {
              if (life !== this.#life) return;
              host.checks.ready(this.id, ready, status);
              const role = ready.softState?.role;
              if (role === "candidate" || role === "preCandidate") host.trigger("campaign", this);
            },
            acknowledged: (term, from, match) => {
              if (life === this.#life) host.checks.matched(term, from, match);
            },
          }),
        storage: this.#storage(life),
        snapshots: this.#snapshotStore(life),
        transport: this.#transport(life),
        stateMachine: {
          apply: (index, data) => {
            if (life === this.#life) host.checks.applied(this.id, index, bytesHash(data));
            return this.#apply(index, data);
          },
          snapshot: () => this.store.snapshot(),
          restore: () => this.store.restore(),
          stateHash: () => this.store.stateHash(),
        },
        scheduler: this.#scheduler(),
      },
      this.#events(life),
      new MemberTable(),
    );
    this.member.start();
    this.#tickLater();
    if (this.#starts > 1) host.trigger("restart", this);
  }

  #apply(index: number, data: Uint8Array): unknown {
    const { store } = this;
    const { hashEvery } = this.#host.options;
    const isCompared = Math.floor(index / hashEvery) > Math.floor(store.index / hashEvery);
    const result = store.apply(index, data);
    if (isCompared && this.isFlipped) {
      throw new SimFailure("L7", "memory that had changed went unnoticed at a comparison", { id: this.id, index });
    }
    if (!this.isOld) return result;
    if (store.featureLevel > oldLevel) {
      throw new SimFailure("L5", "an old program went on above its level", { id: this.id, index });
    }
    this.#host.mark("old binary at work");
    return result;
  }

  /** @returns false if there is nothing that may be spoilt */
  flip(random: Random): boolean {
    if (!this.alive || !this.store.flip(random)) return false;
    this.isFlipped = true;
    return true;
  }

  #newStore(life: number): SimStore {
    const host = this.#host;
    return new SimStore(this.id, {
      wallUs: () => this.wallUs,
      propose: (data, done) => {
        const member = this.member;
        if (life !== this.#life || member === undefined) return;
        member.propose(data, (outcome) => {
          if (life !== this.#life) return;
          switch (outcome.kind) {
            case "committed":
            case "stopped":
            case "backpressure":
              return done(outcome);
            case "notLeader":
              return done({ kind: "notLeader", leader: outcome.leader === 0 ? undefined : String(outcome.leader) });
            case "failed":
              // Replaced in the log: certainly without effect.
              return done({ kind: "notLeader", leader: undefined });
            case "unknown":
              return done({ kind: "unknown", cause: "leadership was lost" });
            case "tooLarge":
              throw new SimFailure("J3", "a small command is too large", { ...outcome });
          }
        });
      },
      forward: (data) => {
        const member = this.member;
        if (life !== this.#life || member === undefined || member.leader === 0) return;
        host.forward(this.id, member.leader, data);
      },
      mark: (name) => host.mark(name),
      history: host.history,
      watchChangesMax: host.options.watchChangesMax,
      hashEvery: host.options.hashEvery,
      supportedLevel: this.isOld ? oldLevel : presentLevel,
    });
  }

  /** The wall clock is set, forward or back; the monotonic one does not notice. */
  setWall(byUs: number): void {
    this.#wallOffsetUs += byUs;
  }

  #tickLater(): void {
    this.#later(this.#host.options.tickUs / this.#rate, () => {
      this.member?.elapsed();
      this.#tickLater();
    });
  }

  /** The process dies at once; of its unsynced writes remains what `loss` says. */
  crash(loss: Loss, random: Random): void {
    if (!this.alive) return;
    if (this.#jobs.length > 0 && loss !== "none") this.#host.mark("unsynced data lost");
    this.#end();
    const jobs = this.#jobs.map(({ job }) => job);
    if (this.disk.crash(jobs, loss, random)) this.#host.mark("torn write");
    this.#jobs.length = 0;
  }

  #end(): void {
    this.#life++;
    this.alive = false;
    // What was in memory is gone; the disk never had it.
    this.isFlipped = false;
    this.#diskIsFull = false;
    this.member = undefined;
    this.#waiting = [];
    this.#host.checks.stopped(this.id);
  }

  pause(forUs: number): void {
    if (!this.alive || this.isPaused) return;
    const untilUs = this.#host.nowUs + forUs;
    this.#pausedUntilUs = untilUs;
    const life = this.#life;
    this.#host.schedule(untilUs, () => {
      if (life === this.#life) this.resume();
    });
  }

  resume(): void {
    this.#pausedUntilUs = 0;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const turn of waiting) this.#later(0, turn);
  }

  // ---- Ports -------------------------------------------------------------------------------------------------------

  #scheduler(): Scheduler {
    return {
      defer: (turn) => this.#later(0, turn),
      nowMs: () => this.nowMs,
    };
  }

  #storage(life: number): LogStorage {
    return {
      save: (batch, done) => {
        if (life === this.#life) this.#queueJob({ kind: "save", batch }, done);
      },
      reset: (meta, hardState, done) => {
        if (life === this.#life) this.#queueJob({ kind: "reset", meta, hardState }, done);
      },
      compact: (index) => {
        if (life === this.#life) this.#queueJob({ kind: "compact", index }, () => {});
      },
    };
  }

  #queueJob(job: Job, done: (error: Error | undefined) => void): void {
    this.#jobs.push({ job, done });
    if (!this.#jobRunning) this.#runJobs();
  }

  #runJobs(): void {
    const next = this.#jobs[0];
    if (next === undefined) {
      this.#jobRunning = false;
      return;
    }
    this.#jobRunning = true;
    const life = this.#life;
    const host = this.#host;
    const finish = (): void => {
      if (life !== this.#life) return;
      if (this.diskStalledUntilUs > host.nowUs) {
        host.schedule(this.diskStalledUntilUs, finish);
        return;
      }
      const failure = this.disk.run(next.job);
      if (failure === "full" && next.job.kind !== "tend") {
        // Nothing is lost: it is tried again until there is space.
        this.#full(true);
        host.schedule(host.nowUs + 20_000, finish);
        return;
      }
      this.#jobs.shift();
      if (failure === undefined) {
        this.#full(false);
        this.#durable(next.job);
      }
      // What is queued behind a write that failed never reaches the disk, however late the process hears of it.
      else if (failure !== "full" && next.job.kind !== "tend") this.#jobs.length = 0;
      if (life !== this.#life) return;
      // The completion is an input of the process; while it is paused the disk goes on, but nobody hears of it.
      if (next.job.kind !== "tend") this.enter(() => next.done(failure === "full" ? undefined : failure));
      // After a failed save the member ends the process; work between saves is only tried.
      if (life !== this.#life || (failure !== undefined && next.job.kind !== "tend")) return;
      if (this.#jobs.length === 0 && next.job.kind === "save")
        this.#jobs.push({ job: { kind: "tend" }, done: () => {} });
      this.#runJobs();
    };
    host.schedule(host.nowUs + this.#diskLatencyUs(), finish);
  }

  #diskLatencyUs(): number {
    const { disk } = this.#host.options;
    const slowUs = this.diskSlowUntilUs > this.#host.nowUs ? this.diskSlowUs : 0;
    return disk.minUs + Math.floor(this.#random.exponential(disk.meanUs)) + slowUs;
  }

  #durable(job: Job): void {
    const host = this.#host;
    if (job.kind === "save") {
      const { hardState, entries } = job.batch;
      if (host.checks.durable(this.id, hardState, entries)) host.trigger("vote durable", this);
      if (entries.length > 0) host.trigger("entry durable", this);
    } else if (job.kind === "reset") {
      host.checks.durableSnapshot(this.id, job.meta, job.hardState);
      host.trigger("snapshot installed", this);
    }
  }

  #full(isFull: boolean): void {
    if (isFull === this.#diskIsFull) return;
    this.#diskIsFull = isFull;
    if (isFull) this.#host.mark("disk full");
    this.enter(() => this.member?.diskSpace(isFull ? "full" : "ok"));
  }

  #snapshotStore(life: number): SnapshotStore {
    const host = this.#host;
    return {
      create: (meta, source, done) => {
        const attempt = (act: () => void): void => {
          try {
            act();
          } catch (error) {
            if (!(error instanceof Error && "code" in error)) throw error;
            done(error, 0);
          }
        };
        attempt(() => {
          const writer = this.disk.beginSnapshot(meta);
          const slice = (): void =>
            attempt(() => {
              const chunk = source.next(sliceBytes);
              if (chunk !== undefined) {
                writer.write(chunk);
                this.#later(this.#diskLatencyUs() / 4, slice);
                return;
              }
              this.disk.completed(writer);
              this.#later(this.#diskLatencyUs(), finish);
            });
          const finish = (): void =>
            attempt(() => {
              const sizeBytes = this.disk.finishSnapshot(writer, meta);
              host.mark("snapshot created");
              host.trigger("snapshot created", this);
              if (life === this.#life) done(undefined, sizeBytes);
            });
          this.#later(this.#diskLatencyUs(), slice);
        });
      },
      load: (meta, sink, done) => {
        this.#later(this.#diskLatencyUs(), () => {
          try {
            this.disk.loadSnapshot(meta, sink);
          } catch (error) {
            if (!(error instanceof Error && "code" in error)) throw error;
            return done(error);
          }
          host.checks.installed(this.id, meta.index);
          this.isFlipped = false;
          done(undefined);
        });
      },
    };
  }

  #transport(life: number): Transport {
    const host = this.#host;
    return {
      send: (message) => {
        if (life !== this.#life) return;
        if (message.type === "voteResponse" && message.granted) {
          host.trigger("vote about to leave", this);
          if (life !== this.#life) return;
        }
        host.checks.sent(message);
        host.send(message);
        if (message.type === "append" && message.entries.length > 0) {
          this.#sentAppends.add(message.to);
          if (this.#sentAppends.size === 1) host.trigger("append partly sent", this);
          else this.#sentAppends.clear();
        }
      },
      sendSnapshot: (request, done) => {
        if (life !== this.#life) return;
        host.checks.sent(request);
        host.trigger("snapshot sent", this);
        if (life !== this.#life) return;
        host.sendSnapshot(this, request, (error) => {
          if (life === this.#life) this.enter(() => done(error));
        });
      },
      forward: (to, command) => {
        if (life === this.#life) host.forward(this.id, to, command);
      },
    };
  }

  #events(life: number): MemberEvents {
    const host = this.#host;
    return {
      leadership: (now) => {
        host.note(() => `n${this.id} is ${now.role} of term ${now.term}, leader n${now.leader}`);
        if (life !== this.#life) return;
        this.store.leads({
          leading: now.ready,
          term: now.term,
          leader: now.leader === 0 ? undefined : String(now.leader),
        });
        if (now.ready) host.leads(this);
      },
      membership: (_members, conf) => {
        if (life !== this.#life || conf.voters.length === 0) return;
        const before = this.lastConf;
        this.lastConf = conf;
        host.checks.configured(this.id, conf);
        host.confApplied(this, before);
      },
      applied: (index) => {
        if (life !== this.#life) return;
        if ((index & 15) === 0) host.checks.stateHash(this.id, index, this.store.stateHash());
        if (index % host.options.watchEvery === 0) this.store.follow();
      },
      quarantined: (reason, facts) => {
        host.note(() => `n${this.id} is quarantined: ${reason} ${JSON.stringify(facts)}`);
        if (life !== this.#life) return;
        this.isQuarantined = true;
        if (this.isFlipped) {
          this.isDamaged = true;
          host.mark("flip in memory found");
        }
        host.quarantined(this, reason);
      },
      removed: () => {
        if (life === this.#life) this.isRemoved = true;
        host.note(() => `n${this.id} was removed`);
      },
      fatal: (error) => {
        if (life !== this.#life) return;
        host.note(() => `n${this.id} ends: ${error.message}`);
        this.#end();
        this.#jobs.length = 0;
        this.disk.exit();
        host.exited(this, error);
      },
      noticed: (what, facts) => {
        host.note(() => `n${this.id} ${what} ${JSON.stringify(facts)}`);
        if (what === "snapshotInstalled") host.mark("snapshot installed");
      },
      measured: () => {},
    };
  }
}
