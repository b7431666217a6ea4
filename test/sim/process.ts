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
import type { CorruptionKind, DiskErrorKind, Loss, Trigger } from "./faults.ts";
import type { MarkName } from "./marks.ts";
import { observedCore } from "./observed-core.ts";
import type { SimOptions } from "./options.ts";
import type { Job, SimDisk } from "./disk.ts";
import { SimMachine } from "./sim-machine.ts";

/** What an injected disk error looks like from above. */
export class DiskFault extends Error {
  readonly kind: DiskErrorKind;
  constructor(kind: DiskErrorKind) {
    super(kind === "full" ? "ENOSPC: no space left on device" : `EIO: i/o error, ${kind}`);
    this.kind = kind;
  }
}

export interface ProcessHost {
  readonly nowUs: number;
  readonly options: SimOptions;
  readonly checks: Checks;
  schedule(atUs: number, run: () => void): void;
  send(message: Message): void;
  sendSnapshot(process: SimProcess, request: SnapshotRequest, done: (error: Error | undefined) => void): void;
  forward(from: MemberId, to: MemberId, command: Uint8Array): void;
  coreEvent(): void;
  trigger(name: Trigger, process: SimProcess): void;
  mark(name: MarkName): void;
  note(what: () => string): void;
  /** The process ended by itself, as it must when its disk fails. */
  exited(process: SimProcess, error: Error): void;
  quarantined(process: SimProcess, reason: string): void;
  confApplied(process: SimProcess): void;
}

const chunkBytes = 512;

export class SimProcess {
  readonly id: MemberId;
  readonly disk: SimDisk;
  readonly #host: ProcessHost;
  readonly #random: Random;
  /** Grows with each start and each end: what was planned for an earlier life is dropped. */
  #life = 0;
  #starts = 0;
  member: Member | undefined;
  machine = new SimMachine();
  alive = false;
  /** The disk cannot be trusted and the process stays down. */
  isQuarantined = false;
  isRemoved = false;
  /** Its data was destroyed on purpose: it must not be counted on. */
  isDamaged = false;

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
  diskError: { readonly untilUs: number; readonly kind: DiskErrorKind; readonly error: Error } | undefined;
  /** How often this disk was made slow or stalled: it may then end the process by right. */
  diskStalls = 0;
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
    this.#host.checks.forgotten(this.id);
    return true;
  }

  get isPaused(): boolean {
    return this.#pausedUntilUs > this.#host.nowUs;
  }

  get nowMs(): number {
    return (this.#localBaseUs + (this.#host.nowUs - this.#clockBaseUs) * this.#rate) / 1_000;
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
    if (this.alive) return;
    const host = this.#host;
    const opened = this.disk.open();
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
    this.machine = new SimMachine();
    const { recovered } = opened;
    host.checks.started(this.id, recovered.hardState, recovered.snapshot, recovered.entries, recovered.snapshot.index);
    if (recovered.snapshot.index > 0 && this.#starts > 1) host.mark("restart from a snapshot");
    const { options } = host;
    const tickMs = options.tickUs / 1_000;
    const life = this.#life;
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
            return this.machine.apply(index, data);
          },
          snapshot: () => this.machine.snapshot(),
          restore: () => this.machine.restore(),
          stateHash: () => this.machine.stateHash(),
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
    this.disk.crash(
      this.#jobs.map(({ job }) => job),
      loss,
      random,
    );
    this.#jobs.length = 0;
  }

  #end(): void {
    this.#life++;
    this.alive = false;
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
      this.#jobs.shift();
      const failure = this.#runJob(next.job);
      if (life !== this.#life) return;
      // The completion is an input of the process; while it is paused the disk goes on, but nobody hears of it.
      this.enter(() => next.done(failure));
      if (life === this.#life && failure === undefined) this.#runJobs();
    };
    host.schedule(host.nowUs + this.#diskLatencyUs(), finish);
  }

  #diskLatencyUs(): number {
    const { disk } = this.#host.options;
    const slowUs = this.diskSlowUntilUs > this.#host.nowUs ? this.diskSlowUs : 0;
    return disk.minUs + Math.floor(this.#random.exponential(disk.meanUs)) + slowUs;
  }

  #runJob(job: Job): Error | undefined {
    const host = this.#host;
    const error = this.diskError;
    if (error !== undefined && error.untilUs > host.nowUs) return error.error;
    this.disk.run(job);
    if (job.kind === "save") {
      const { hardState, entries } = job.batch;
      if (host.checks.durable(this.id, hardState, entries)) host.trigger("vote durable", this);
      if (entries.length > 0) host.trigger("entry durable", this);
    } else if (job.kind === "reset") {
      host.checks.durableSnapshot(this.id, job.meta, job.hardState);
      host.trigger("snapshot installed", this);
    }
    return undefined;
  }

  #snapshotStore(life: number): SnapshotStore {
    const host = this.#host;
    return {
      create: (meta, source, done) => {
        const chunks: Uint8Array[] = [];
        let bytes = 0;
        const slice = (): void => {
          const chunk = source.next(chunkBytes);
          if (chunk !== undefined) {
            chunks.push(chunk);
            bytes += chunk.length;
            this.#later(this.#diskLatencyUs() / 4, slice);
            return;
          }
          this.disk.created({ meta, chunks });
          host.mark("snapshot created");
          host.trigger("snapshot created", this);
          if (life === this.#life) done(undefined, bytes);
        };
        this.#later(this.#diskLatencyUs(), slice);
      },
      load: (meta, sink, done) => {
        const file = this.disk.snapshots.get(meta.index);
        this.#later(this.#diskLatencyUs(), () => {
          if (file === undefined) return done(new Error(`no snapshot of index ${meta.index}`));
          for (const chunk of file.chunks) sink.write(chunk);
          sink.finish(meta.index);
          host.checks.installed(this.id, meta.index);
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
        host.trigger("snapshot sent", this);
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
      leadership: (now) => host.note(() => `n${this.id} is ${now.role} of term ${now.term}, leader n${now.leader}`),
      membership: (_members, conf) => {
        if (life !== this.#life || conf.voters.length === 0) return;
        this.lastConf = conf;
        host.checks.configured(this.id, conf);
        host.confApplied(this);
      },
      applied: (index) => {
        if (life === this.#life && (index & 15) === 0) host.checks.stateHash(this.id, index, this.machine.stateHash());
      },
      quarantined: (reason, facts) => {
        host.note(() => `n${this.id} is quarantined: ${reason} ${JSON.stringify(facts)}`);
        if (life !== this.#life) return;
        this.isQuarantined = true;
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
