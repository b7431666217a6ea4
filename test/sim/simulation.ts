/**
 * One run: a cluster of real members over a simulated world, its clients, its faults and its judges, all from one seed.
 * First everything may go wrong; then the world heals, a quorum lives, and the cluster must come to one leader, one
 * state and no open request (N8).
 */
import { bootstrapState, joinerState } from "../../manager/raft/core/index.ts";
import type { ConfState, MemberId, Message, SnapshotRequest } from "../../manager/raft/core/types.ts";
import { MemberTable, type MemberRecord } from "../../manager/raft/member-table.ts";
import { TableThenState } from "../../manager/raft/snapshot-frame.ts";
import { Random } from "../../lib/pure/prng.ts";
import { Checks, isQuorum, mix } from "./checks.ts";
import { SimDisk, type Founding } from "./disk.ts";
import { SimFailure } from "./failure.ts";
import type { Fault, Trigger, Who } from "./faults.ts";
import { confsOf, strike, type StrikeHost } from "./injector.ts";
import type { Command, Row } from "./machine.ts";
import { Marks, type MarkName } from "./marks.ts";
import { Network } from "./network.ts";
import { electionUs, type SimOptions } from "./options.ts";
import { SimProcess, oldLevel, presentLevel, type ProcessHost } from "./process.ts";
import { EventQueue } from "./queue.ts";
import type { RunFailure, RunResult } from "./result.ts";
import { SimStore, noWorld, type EntryChanges } from "./sim-store.ts";
import { withTraps } from "./traps.ts";
import { Workload, type Attempt, type WorkloadHost } from "./workload.ts";

export interface RunSettings {
  /** Keep the last events as text: slow, and only wanted for a report. */
  readonly trace?: boolean;
  readonly traceMax?: number;
}

/** Members are numbered from 1; bits of a word stand for sets of them. */
export const membersMax = 20;

/** A run of ordinary size has about 10,000. */
const eventsMax = 1_000_000;

/** With these codes a process may end by itself, if its disk was made to fail. */
const diskCodes = new Set([
  "RAFT_DISK_FAILED",
  "RAFT_DISK_STALLED",
  "LOG_WRITE_FAILED",
  "LOG_READ_FAILED",
  "LOG_CLOSED",
  "SNAPSHOT_WRITE_FAILED",
  "SNAPSHOT_DAMAGED",
]);

/** In election timeouts (N8). */
const healElections = 50;

/** An armed fault strikes again at most so often: a run in which nobody ever gets far shows little. */
const repeatsMax = 4;

export function runSimulation(options: SimOptions, settings: RunSettings = {}): RunResult {
  // Of this thread alone: on a busy machine time passes without any work being done.
  const clock = (): number => process.threadCpuUsage().user / 1_000;
  const simulation = new Simulation(options, settings, clock);
  const { stackTraceLimit } = Error;
  // Refusals are errors, and there are many: their stacks are only wanted when somebody will read them.
  if (settings.trace !== true) Error.stackTraceLimit = 0;
  try {
    return withTraps(
      () => simulation.run(),
      (task) => simulation.microtask(task),
    );
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

export class Simulation implements ProcessHost, StrikeHost {
  readonly options: SimOptions;
  readonly #settings: RunSettings;
  readonly #clock: () => number;
  readonly #queue = new EventQueue();
  readonly marks = new Marks();
  readonly checks: Checks;
  readonly network: Network;
  readonly processes: SimProcess[] = [];
  readonly #workload: Workload;
  readonly #chance: Random;
  readonly history = new Map<number, EntryChanges>();
  nowUs = 0;
  coreEvents = 0;
  #events = 0;
  #hashA = 0x1234567;
  #hashB = 0x89abcde;
  /** What the code under test hands to queueMicrotask: run before the next event, in order. */
  readonly #microtasks: (() => void)[] = [];
  readonly #trace: string[] = [];
  readonly #triggerCounts = new Map<Trigger, number>();
  readonly #armed = new Map<Trigger, Fault[]>();
  isHealed = false;
  #lastLeader: MemberId = 0;
  #wasJoint = false;

  constructor(options: SimOptions, settings: RunSettings, clock: () => number) {
    this.options = options;
    this.#settings = settings;
    this.#clock = clock;
    this.#chance = Random.stream(options.seed, "chance");
    this.checks = new Checks({
      becameLeader: (id, term) => this.#becameLeader(id, term),
      steppedDown: (id, isUnforced) => {
        if (isUnforced) this.mark("leader stepped down without quorum");
        this.note(() => `n${id} leads no more`);
      },
      lostElection: () => this.mark("election lost"),
      splitVote: () => this.mark("split vote"),
      olderConfSent: () => this.mark("snapshot with a later configuration change"),
      truncated: (id, terms) => {
        this.mark("truncation");
        if (terms > 1) this.mark("truncation of more than one term");
        this.note(() => `n${id} truncates entries of ${terms} terms`);
      },
      committedOldTerm: () => this.mark("old-term entry committed through a new one"),
      committed: (id) => {
        const process = this.process(id);
        if (process !== undefined) this.trigger("commit", process);
      },
    });
    const now = (): number => this.nowUs;
    this.network = new Network(
      {
        get nowUs() {
          return now();
        },
        schedule: (atUs, run) => this.schedule(atUs, run),
        deliver: (message) => this.#deliver(message),
        unreachable: (from, to) => this.process(from)?.enter(() => this.process(from)?.member?.unreachable(to)),
        mark: (name) => this.mark(name),
      },
      options.network,
      Random.stream(options.seed, "network"),
    );
    this.#workload = new Workload(this.#workloadHost(), options.workload, Random.stream(options.seed, "workload"));
  }

  run(): RunResult {
    let failure: RunFailure | undefined;
    try {
      this.#runAll();
    } catch (error) {
      const thrown = error instanceof Error ? error : new Error(String(error));
      const check = thrown instanceof SimFailure ? thrown.check : thrown.name;
      failure = { check, message: thrown.message, stack: thrown.stack ?? "" };
      this.note(() => `FAILED ${thrown.message}`);
    }
    return {
      options: this.options,
      failure,
      coreEvents: this.coreEvents,
      events: this.#events,
      virtualUs: this.nowUs,
      operations: this.#workload.operations,
      traceHash: `${(this.#hashA >>> 0).toString(16)}-${(this.#hashB >>> 0).toString(16)}`,
      marks: this.marks.toJSON(),
      trace: this.#trace,
    };
  }

  #runAll(): void {
    const { options } = this;
    const voters = Array.from({ length: options.voters }, (_, at) => at + 1);
    const learners = Array.from({ length: options.learners }, (_, at) => options.voters + at + 1);
    const conf = { voters, votersOutgoing: [], learners, learnersNext: [], autoLeave: false };
    const founding = foundingSnapshot(conf, (id) => this.record(id, false));
    for (const id of [...voters, ...learners]) this.#addProcess(id, founding).start();
    for (const fault of options.faults) this.#plan(fault);
    this.#workload.start();
    this.#runUntil(() => this.nowUs >= options.durationUs || this.coreEvents >= options.coreEventsMax);
    this.#heal();
    const untilUs = this.nowUs + healElections * electionUs(options);
    let checkedUs = 0;
    let calmSinceUs = 0;
    const isCalm = (): boolean => {
      if (this.nowUs - checkedUs < 4 * options.tickUs) return false;
      checkedUs = this.nowUs;
      if (this.#unrest() !== undefined) calmSinceUs = 0;
      else if (calmSinceUs === 0) calmSinceUs = this.nowUs;
      return calmSinceUs > 0 && this.nowUs - calmSinceUs >= 2 * options.tickUs * options.heartbeatTicks;
    };
    this.#runUntil(() => isCalm() || this.nowUs > untilUs + options.workload.patienceUs);
    const unrest = this.#unrest();
    if (unrest !== undefined) throw new SimFailure("N8", `no rest after healing: ${unrest.what}`, unrest.facts);
    this.#checkEnd();
  }

  #runUntil(isOver: () => boolean): void {
    const queue = this.#queue;
    while (!isOver()) {
      const event = queue.pop();
      if (event === undefined) return;
      this.nowUs = event.atUs;
      this.#events++;
      event.run();
      if (this.#microtasks.length > 0) this.#runMicrotasks();
      if (this.#events > eventsMax) throw new SimFailure("N8", "events without end", { events: this.#events });
      if (queue.size > 200_000) throw new SimFailure("N8", "the queue of events grows without bound", {});
    }
  }

  #runMicrotasks(): void {
    for (let micro = this.#microtasks.shift(); micro !== undefined; micro = this.#microtasks.shift()) micro();
  }

  microtask(task: () => void): void {
    this.#microtasks.push(task);
  }

  schedule(atUs: number, run: () => void): void {
    this.#queue.push(atUs, run);
  }

  coreEvent(): void {
    this.coreEvents++;
  }

  /** Mixes what happened into the hash by which two runs are compared. */
  fold(kind: number, a: number, b: number): void {
    this.#hashA = mix(this.#hashA ^ kind, this.nowUs ^ a);
    this.#hashB = mix(this.#hashB ^ b, this.#hashA);
  }

  note(what: () => string): void {
    if (this.#settings.trace !== true) return;
    this.#trace.push(`${(this.nowUs / 1_000).toFixed(3).padStart(12)} ms  ${what()}`);
    if (this.#trace.length > (this.#settings.traceMax ?? 200)) this.#trace.shift();
  }

  mark(name: MarkName): void {
    this.marks.hit(name);
  }

  process(id: MemberId): SimProcess | undefined {
    return this.processes[id - 1];
  }

  #addProcess(id: MemberId, founding: Founding): SimProcess {
    const process = new SimProcess(
      id,
      new SimDisk(id, this.options, founding),
      this,
      Random.stream(this.options.seed, `process/${id}`),
    );
    this.processes[id - 1] = process;
    return process;
  }

  /** A member that nobody knows yet, with an empty disk; undefined when there are enough. */
  newcomer(): SimProcess | undefined {
    const id = this.processes.length + 1;
    if (id > membersMax) return undefined;
    const process = this.#addProcess(id, { meta: joinerState().snapshot, source: undefined });
    process.start();
    return process;
  }

  record(id: MemberId, autoPromote: boolean): MemberRecord {
    const process = this.process(id);
    if (process !== undefined) process.promotesItself = autoPromote;
    return {
      id,
      address: `10.0.0.${id}:2377`,
      nodeId: `node${id}`,
      labels: {},
      autoPromote,
      featureLevel: 1,
      dataIncarnation: "",
    };
  }

  // ---- Messages ----------------------------------------------------------------------------------------------------

  send(message: Message): void {
    this.note(() => `n${message.from} -> n${message.to} ${describe(message)}`);
    this.fold(1, message.from * 64 + message.to, message.term);
    this.network.send(message);
  }

  #deliver(message: Message): void {
    const process = this.process(message.to);
    if (process === undefined) return;
    this.note(() => `n${message.to} <- n${message.from} ${describe(message)}${process.alive ? "" : " (down)"}`);
    this.fold(2, message.from * 64 + message.to, message.term);
    process.enter(() => process.member?.receive(message));
  }

  forward(from: MemberId, to: MemberId, command: Uint8Array): void {
    const arrive = (): void => {
      const process = this.process(to);
      process?.enter(() => process.member?.receiveForwarded(command));
    };
    this.network.carry(from, to, command.length, arrive, () => {});
  }

  /** Chunk by chunk over the link; a broken stream leaves a spool at the receiver, from which the next one goes on. */
  sendSnapshot(sender: SimProcess, request: SnapshotRequest, done: (error: Error | undefined) => void): void {
    this.mark("snapshot sent");
    const { from, to } = request;
    const receiver = this.process(to);
    const lives = [sender.life, receiver?.life];
    let end = (): void => {};
    const fail = (error: Error): void => {
      this.mark("snapshot transfer failed");
      this.note(() => `snapshot ${request.meta.index} from n${from} to n${to} fails: ${error.message}`);
      end();
      done(error);
    };
    const broke = (): void => fail(new Error("the stream broke"));
    /** Runs a step at one of the two ends, unless that end has died meanwhile. */
    const guarded = (step: () => void): void => {
      if (receiver === undefined || !receiver.alive || !sender.alive) return broke();
      if (sender.life !== lives[0] || receiver.life !== lives[1]) return broke();
      try {
        step();
      } catch (error) {
        if (!(error instanceof Error && "code" in error)) throw error;
        fail(error);
      }
    };
    guarded(() => {
      const reader = sender.disk.openReader(request.meta);
      const { offer } = reader;
      end = () => reader.close();
      const arrived = (): void =>
        guarded(() => {
          const spool = (receiver as SimProcess).disk.openSpool(from, offer);
          if (spool.nextChunk > 0) this.mark("snapshot transfer resumed");
          end = () => {
            reader.close();
            if (receiver?.life === lives[1]) spool.suspend();
          };
          const next = (): void =>
            guarded(() => {
              if (spool.nextChunk === offer.chunks) {
                spool.finish();
                end();
                this.#deliver(request);
                done(undefined);
                return;
              }
              const chunk = reader.chunk(spool.nextChunk);
              const take = (): void =>
                guarded(() => {
                  spool.write(chunk);
                  next();
                });
              this.network.carry(from, to, chunk.data.length, take, broke);
            });
          next();
        });
      this.network.carry(from, to, 100, arrived, broke);
    });
  }

  // ---- Faults ------------------------------------------------------------------------------------------------------

  #plan(fault: Fault): void {
    if ("atUs" in fault.when) {
      this.schedule(fault.when.atUs, () => this.#strike(fault, undefined));
      return;
    }
    const armed = this.#armed.get(fault.when.on) ?? [];
    armed.push(fault);
    this.#armed.set(fault.when.on, armed);
  }

  trigger(name: Trigger, process: SimProcess): void {
    const count = (this.#triggerCounts.get(name) ?? 0) + 1;
    this.#triggerCounts.set(name, count);
    if (this.isHealed) return;
    for (const fault of this.#armed.get(name) ?? []) {
      if ("atUs" in fault.when) continue;
      const { nth, every, afterUs } = fault.when;
      const repeats = every === undefined ? 0 : (count - nth) / every;
      if (count < nth || !Number.isInteger(repeats) || (every === undefined && count > nth) || repeats > repeatsMax) {
        continue;
      }
      if (afterUs === 0) this.#strike(fault, process, name);
      else this.schedule(this.nowUs + afterUs, () => this.#strike(fault, process, name));
    }
  }

  #strike(fault: Fault, subject: SimProcess | undefined, on?: Trigger): void {
    if (this.isHealed) return;
    this.note(
      () => `fault ${fault.id}: ${JSON.stringify(fault.act)}${on === undefined ? "" : ` on ${on} of n${subject?.id}`}`,
    );
    this.fold(3, fault.id, subject?.id ?? 0);
    strike(this, fault, subject, on);
  }

  who(who: Who, subject: SimProcess | undefined): SimProcess | undefined {
    if (who === "subject") return subject;
    if (who === "leader") return this.leader();
    if (who === "follower") {
      const followers = this.processes.filter((process) => process.alive && process.member?.role !== "leader");
      return followers.length === 0 ? undefined : this.#chance.pick(followers);
    }
    return this.processes[who % this.processes.length];
  }

  /** The leader of the highest term among those alive. */
  leader(): SimProcess | undefined {
    let found: SimProcess | undefined;
    for (const process of this.processes) {
      if (!process.alive || process.member?.role !== "leader") continue;
      if (found === undefined || process.member.term > (found.member?.term ?? 0)) found = process;
    }
    return found;
  }

  #becameLeader(id: MemberId, term: number): void {
    this.mark("leader elected");
    this.note(() => `n${id} leads term ${term}`);
    const process = this.process(id);
    if (process === undefined) return;
    if (this.checks.leaderIds().length > 1) this.mark("two leaders at once");
    if (this.#wasJoint && id !== this.#lastLeader) this.mark("leader changed in a joint configuration");
    this.#lastLeader = id;
    this.trigger("leader", process);
  }

  confApplied(process: SimProcess, before: ConfState | undefined): void {
    const conf = process.member?.conf;
    this.note(() => `n${process.id} has the configuration ${JSON.stringify(conf)}`);
    if (conf === undefined) return;
    const isJoint = conf.votersOutgoing.length > 0;
    if (process.id === this.#lastLeader) this.#wasJoint = isJoint;
    // Every start tells the configuration, too; only what is new is a change.
    if (before === undefined || JSON.stringify(before) === JSON.stringify(conf)) return;
    if (isJoint) this.mark("joint configuration");
    if (conf.voters.some((id) => before.learners.includes(id))) this.mark("learner promoted");
    this.mark("configuration change applied");
    this.trigger("conf applied", process);
  }

  leads(process: SimProcess): void {
    if (this.options.recordsMembers !== true) return;
    const life = process.life;
    // Not within the turn in which it was told.
    this.schedule(this.nowUs, () => {
      if (process.life === life) process.enter(() => this.#administer(process));
    });
  }

  /** What a manager that leads puts on record: who is a member, what each understands, and who is none any more. */
  #administer(process: SimProcess): void {
    const { member, store } = process;
    if (member === undefined || !member.table.list().some(({ id }) => id === process.id)) return;
    const recorded = store.recordedMembers();
    for (const { id } of member.table.list()) {
      const other = this.process(id);
      const isNews = !recorded.includes(id) || other?.alive === true;
      if (isNews)
        this.#administrate(process, SimStore.reportMember(id, other?.isOld === true ? oldLevel : presentLevel));
    }
    for (const id of recorded) if (member.table.isRemoved(id)) this.#administrate(process, SimStore.removeMember(id));
    if (this.options.kinds.includes("memory flip")) this.#administrate(process, SimStore.ballast(process.wallUs));
  }

  #administrate(process: SimProcess, entry: Uint8Array, done: (result: unknown) => void = () => {}): void {
    process.member?.propose(entry, (outcome) => {
      if (outcome.kind === "committed") done(outcome.result);
    });
  }

  raiseLevel(): void {
    const leader = this.leader();
    leader?.enter(() => {
      this.#administer(leader);
      this.#administrate(leader, SimStore.raiseLevel(presentLevel), (result) => {
        const { refusal } = result as { refusal: unknown };
        this.mark(refusal === undefined ? "feature level raised" : "feature level refused");
      });
    });
  }

  exited(process: SimProcess, error: Error): void {
    if (process.isOld && (error as { code?: string }).code === "INCOMPATIBLE") {
      // Until it is given a program that understands the others.
      this.mark("old binary refused");
      return;
    }
    const isInjected = process.diskFaults > 0 || process.isDamaged;
    const code = (error as { code?: string }).code ?? error.name;
    if (!isInjected || !diskCodes.has(code)) throw error;
    this.mark("disk error");
    const downUs = this.#chance.int(1_000, 2_000_000);
    this.schedule(this.nowUs + downUs, () => process.start());
  }

  quarantined(process: SimProcess, reason: string): void {
    this.mark("quarantine");
    this.note(() => `n${process.id} is quarantined: ${reason}`);
    if (!process.isDamaged)
      throw new SimFailure("N8", "quarantine without an injected disk fault", { id: process.id, reason });
  }

  // ---- The last phase ----------------------------------------------------------------------------------------------

  #heal(): void {
    this.isHealed = true;
    this.note(() => "the world heals");
    this.#workload.stop();
    this.network.heal();
    for (const process of this.processes) {
      process.disk.mend();
      process.diskStalledUntilUs = 0;
      process.diskSlowUntilUs = 0;
      process.setRate(1);
      if (process.isPaused) process.resume();
      if (process.isOld) {
        process.isOld = false;
        process.crash("none", this.#chance);
      }
    }
    const confs = confsOf(this);
    const mayKill = this.options.coreQuorumOnly && !this.checks.isConfChanging();
    const isFit = (process: SimProcess): boolean => !process.isUnfit && !process.isFlipped;
    const lives = new Set(this.processes.filter(isFit).map((process) => process.id));
    if (mayKill) {
      for (const process of this.#chance.shuffle(this.processes)) {
        // A learner that is about to become a voter would raise the quorum by one, and be dead.
        if (process.promotesItself) continue;
        lives.delete(process.id);
        if (confs.every((conf) => isQuorum(conf, (id) => lives.has(id)))) {
          this.mark("recovered by the core quorum alone");
          process.crash("all", this.#chance);
        } else if (isFit(process)) lives.add(process.id);
      }
    }
    for (const process of this.processes) if (lives.has(process.id)) process.start();
  }

  /** Why the cluster has not come to rest, or undefined when it has. */
  #unrest(): { what: string; facts: Record<string, unknown> } | undefined {
    const leader = this.leader();
    if (leader?.member === undefined) return { what: "no leader", facts: this.#facts() };
    const conf = leader.member.conf;
    const members = [...new Set([...conf.voters, ...conf.votersOutgoing, ...conf.learners, ...conf.learnersNext])];
    const applied = leader.member.appliedIndex;
    for (const id of members) {
      const process = this.process(id);
      const member = process?.member;
      if (process === undefined || member === undefined || !process.alive || process.isUnfit) continue;
      if (member.leader !== leader.id) return { what: `n${id} does not follow the leader`, facts: this.#facts() };
      if (member.appliedIndex !== applied) return { what: `n${id} has not applied everything`, facts: this.#facts() };
      if (process.store.stateHash() !== leader.store.stateHash()) {
        throw new SimFailure("B5", "two members differ in state at rest", { one: leader.id, two: id });
      }
    }
    if (conf.votersOutgoing.length > 0 && conf.autoLeave)
      return { what: "the configuration stays joint", facts: this.#facts() };
    if (this.#workload.open > 0) return { what: "clients still wait", facts: { open: this.#workload.open } };
    const status = leader.member.status();
    if (this.checks.committedIn(status.term) < status.commit)
      return { what: "nothing is committed in the last term", facts: this.#facts() };
    if (status.proposalsQueued + status.proposalsWaiting + status.readsWaiting > 0) {
      return { what: "requests are not resolved", facts: this.#facts() };
    }
    return undefined;
  }

  #facts(): Record<string, unknown> {
    return Object.fromEntries(
      this.processes.map((process) => {
        const member = process.member;
        if (member === undefined) return [`n${process.id}`, process.isQuarantined ? "quarantined" : "down"];
        const { state, role, term, leader, appliedIndex } = member;
        return [`n${process.id}`, { state, role, term, leader, appliedIndex, voters: member.conf.voters.join() }];
      }),
    );
  }

  #checkEnd(): void {
    const leader = this.leader();
    if (leader === undefined) return;
    this.note(() => "at rest; judging the histories");
    for (const process of this.processes) {
      // One whose memory has changed holds what no watch told; the next comparison would find it.
      if (process.alive && !process.isUnfit && !process.isFlipped) process.store.checkWatched();
    }
    this.#workload.checkEnd((prefix) => leader.store.rows(prefix), this.#clock);
  }

  // ---- Clients -----------------------------------------------------------------------------------------------------

  #workloadHost(): WorkloadHost {
    const hopUs = (): number => this.#chance.int(50, 500);
    const now = (): number => this.nowUs;
    return {
      get nowUs() {
        return now();
      },
      schedule: (atUs, run) => this.schedule(atUs, run),
      mark: (name) => this.mark(name),
      note: (what) => this.note(what),
      targets: () => this.#targets(),
      propose: (target, command, done) => {
        this.schedule(this.nowUs + hopUs(), () => {
          const process = this.process(target);
          if (process === undefined || !process.alive)
            return this.#answer(hopUs(), () => done({ kind: "refused", leader: undefined }));
          process.enter(() => this.#propose(process, command, (attempt) => this.#answer(hopUs(), () => done(attempt))));
        });
      },
      openSession: (target, done) => {
        this.schedule(this.nowUs + hopUs(), () => {
          const process = this.process(target);
          process?.enter(() => this.#openSession(process, (session) => this.#answer(hopUs(), () => done(session))));
        });
      },
      read: (target, done) => {
        this.schedule(this.nowUs + hopUs(), () => {
          const process = this.process(target);
          if (process === undefined || !process.alive) return this.#answer(hopUs(), () => done(undefined, undefined));
          process.enter(() => this.#readAt(process, (rows, leader) => this.#answer(hopUs(), () => done(rows, leader))));
        });
      },
    };
  }

  #answer(afterUs: number, run: () => void): void {
    this.schedule(this.nowUs + afterUs, run);
  }

  #targets(): readonly number[] {
    const known = this.processes.filter((process) => !process.isRemoved).map((process) => process.id);
    return known.length > 0 ? known : [1];
  }

  #propose(process: SimProcess, command: Command, done: (attempt: Attempt) => void): void {
    const { session, seq, writes } = command;
    this.note(() => `client ${session}#${seq} asks n${process.id} for ${JSON.stringify(writes)}`);
    const life = process.life;
    process.store.execute(command, (outcome) => {
      if (process.life !== life) return;
      this.fold(4, process.id, seq);
      this.note(() => `client ${session}#${seq} hears from n${process.id}: ${JSON.stringify(outcome)}`);
      switch (outcome.kind) {
        case "done":
        case "unknown":
          return done(outcome);
        case "sessionGone":
          this.mark("session expired");
          return done(outcome);
        case "refused": {
          if (outcome.code === "BACKPRESSURE") this.mark("backpressure");
          const leads = outcome.code !== "NOT_LEADER";
          const leader = leads ? process.id : process.member?.leader;
          const isBroken = leads && outcome.code !== "BACKPRESSURE" && outcome.code !== "STORE_CLOSED";
          return done({ kind: isBroken ? "broken" : "refused", leader: leader === 0 ? undefined : leader });
        }
      }
    });
  }

  /** A session is opened through the log; without an answer the client tries again. */
  #openSession(process: SimProcess, done: (session: string | undefined) => void): void {
    const life = process.life;
    const timeUs = process.wallUs;
    process.member?.propose(SimStore.openSession(this.options.sessionTtlUs, timeUs), (outcome) => {
      if (process.life === life) done(outcome.kind === "committed" ? SimStore.sessionOf(outcome.result) : undefined);
    });
  }

  #readAt(
    process: SimProcess,
    done: (rows: ((prefix: string) => Row[]) | undefined, leader: number | undefined) => void,
  ): void {
    const life = process.life;
    process.member?.readIndex((outcome) => {
      if (process.life !== life) return;
      this.fold(5, process.id, 0);
      if (outcome.kind !== "ready") return done(undefined, undefined);
      // Read now: later the state may have moved on, which is fine, but not before.
      const rows = process.store.reader();
      if (this.options.readMode === "lease" && process.member?.role === "leader") {
        // Under a lease the state is read first and the clock afterwards.
        if (!process.member.leaseHolds()) {
          this.mark("lease refused");
          return done(undefined, undefined);
        }
        this.mark("lease read");
      }
      if (process.member?.role !== "leader") this.mark("follower read");
      done(rows, undefined);
    });
  }
}

/** What every founding member begins with: the configuration, the members, and an empty state. */
function foundingSnapshot(conf: ConfState, record: (id: MemberId) => MemberRecord): Founding {
  const { snapshot } = bootstrapState(conf.voters);
  const meta = { ...snapshot, conf };
  const records = [...conf.voters, ...conf.learners].map(record);
  return {
    meta,
    source: () => new TableThenState(meta.index, new MemberTable(records), new SimStore(0, noWorld).snapshot()),
  };
}

function describe(message: Message): string {
  switch (message.type) {
    case "append": {
      const entries = message.entries.map((entry) => `${entry.index}@${entry.term}`).join(" ");
      return `append t${message.term} prev ${message.prevIndex}@${message.prevTerm} [${entries}] commit ${message.commit}`;
    }
    case "snapshot":
      return `snapshot t${message.term} ${message.meta.index}@${message.meta.term}`;
    default: {
      const { type, from: _from, to: _to, term, ...rest } = message;
      return `${type} t${term} ${JSON.stringify(rest)}`;
    }
  }
}
