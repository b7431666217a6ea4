/**
 * A few members in one thread under virtual time: the real Member and core, with a disk, a network and a state machine
 * of a few lines each. For tests of the shell; the simulator of test/sim is where faults are drawn by chance.
 */
import { bootstrapState, joinerState, type MemberId, type Message } from "../core/index.ts";
import { defaultLimits, lanTimings, type MemberLimits } from "../member-config.ts";
import { MemberTable, type MemberRecord } from "../member-table.ts";
import { Member, type ChangeOutcome, type MemberEvents, type Notice } from "../member.ts";
import type { LogStorage, RecoveredLog, SnapshotStore, StateMachine, Transport } from "../ports.ts";
import type { Outcome } from "../proposals.ts";
import type { ReadOutcome } from "../reads.ts";
import { SnapshotAborted } from "../snapshot/index.ts";
import { TableThenState } from "../snapshot-frame.ts";

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export interface GroupOptions {
  readonly limits?: Partial<MemberLimits>;
  /** Ticks come as `rest()` says. */
  readonly rests?: boolean;
  readonly leaseReads?: boolean;
  readonly linkMs?: number;
  readonly diskMs?: number;
}

export class SmallGroup {
  nowMs = 0;
  readonly options: GroupOptions;
  readonly members = new Map<MemberId, FakeMember>();
  /** Return true to lose the message. */
  drop: (message: Message) => boolean = () => false;
  #events: Event[] = [];
  #order = 0;

  constructor(voters: readonly MemberId[], options: GroupOptions = {}) {
    this.options = options;
    const records = voters.map(recordOf);
    for (const id of voters) {
      const member = new FakeMember(id, this);
      const { hardState, snapshot, entries } = bootstrapState(voters);
      member.disk.recovered = { hardState, snapshot, entries };
      const table = new MemberTable(records);
      const empty = { index: 1, next: () => undefined };
      member.disk.snapshots.set(1, readAll(new TableThenState(1, table, empty)));
      this.members.set(id, member);
      member.start();
    }
  }

  /** A member that waits to be added. */
  addJoiner(id: MemberId): FakeMember {
    const member = new FakeMember(id, this);
    const { hardState, snapshot, entries } = joinerState();
    member.disk.recovered = { hardState, snapshot, entries };
    this.members.set(id, member);
    member.start();
    return member;
  }

  at(id: MemberId): FakeMember {
    const found = this.members.get(id);
    if (found === undefined) throw new Error(`no member ${id}`);
    return found;
  }

  /** Events at the same time run in the order in which they were planned. */
  later(afterMs: number, run: () => void): void {
    const event = { atMs: this.nowMs + afterMs, order: this.#order++, run };
    let low = 0;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (before(event, this.#events[middle] as Event)) low = middle + 1;
      else high = middle;
    }
    this.#events.splice(low, 0, event);
  }

  step(): boolean {
    const event = this.#events.pop();
    if (event === undefined) return false;
    this.nowMs = Math.max(this.nowMs, event.atMs);
    event.run();
    return true;
  }

  run(forMs: number): void {
    const untilMs = this.nowMs + forMs;
    while ((this.#events.at(-1)?.atMs ?? Infinity) <= untilMs) this.step();
    this.nowMs = untilMs;
  }

  /** @throws if it does not come true in time */
  until(what: string, condition: () => boolean, withinMs = 10_000): void {
    const untilMs = this.nowMs + withinMs;
    while (!condition()) {
      if (this.nowMs > untilMs || !this.step()) throw new Error(`not within ${withinMs} ms: ${what}`);
    }
  }

  leader(): FakeMember | undefined {
    return [...this.members.values()].find(({ member, paused }) => !paused && member.role === "leader");
  }

  untilLeader(withinMs?: number): FakeMember {
    this.until("a leader", () => this.leader() !== undefined, withinMs);
    const leader = this.leader();
    if (leader === undefined) throw new Error("no leader");
    return leader;
  }

  deliver(message: Message): void {
    if (this.drop(message)) return;
    this.later(this.options.linkMs ?? 0.1, () => {
      const target = this.members.get(message.to);
      target?.input(() => target.member.receive(message));
    });
  }

  /** The value that came, after running until it has. */
  outcome<T>(start: (done: (outcome: T) => void) => void, withinMs = 10_000): T {
    let outcome: { value: T } | undefined;
    start((value) => (outcome = { value }));
    this.until("an outcome", () => outcome !== undefined, withinMs);
    return (outcome as unknown as { value: T }).value;
  }

  propose(id: MemberId, text: string): Outcome {
    return this.outcome<Outcome>((done) => this.at(id).member.propose(Buffer.from(text), done));
  }

  read(id: MemberId): ReadOutcome {
    return this.outcome<ReadOutcome>((done) => this.at(id).member.readIndex(done));
  }

  change(id: MemberId, request: Parameters<Member["changeMembers"]>[0]): ChangeOutcome {
    return this.outcome<ChangeOutcome>((done) => this.at(id).member.changeMembers(request, done));
  }
}

function before(event: Event, other: Event): boolean {
  return event.atMs < other.atMs || (event.atMs === other.atMs && event.order < other.order);
}

export function recordOf(id: MemberId): MemberRecord {
  return {
    id,
    address: `host-${id}:2377`,
    nodeId: `node-${id}`,
    labels: {},
    autoPromote: true,
    featureLevel: 1,
    dataIncarnation: "",
  };
}

/** What survives a restart. */
class FakeDisk {
  recovered: RecoveredLog = joinerState();
  readonly snapshots = new Map<number, Uint8Array[]>();
}

export class FakeMember {
  readonly id: MemberId;
  readonly group: SmallGroup;
  disk = new FakeDisk();
  member!: Member;
  applied: string[] = [];
  readonly notices: Notice[] = [];
  fatal: Error | undefined;
  quarantined: string | undefined;
  removed = false;
  paused = false;
  /** How long a write takes, if not what the group's do. */
  diskMs: number | undefined;
  /** Writes given and not finished, while the disk is stalled. */
  diskStalled = false;
  #held: (() => void)[] = [];
  #inbox: (() => void)[] = [];
  #life = 0;
  #starts = 0;
  /** Thrown by apply for this command. */
  poison: { readonly command: string; readonly error: Error } | undefined;
  saves = 0;
  /** Commit indexes and snapshots handed to `reset`. */
  readonly resets: { readonly index: number; readonly commit: number }[] = [];
  /** How long loading a snapshot takes, by its index; 0.1 unless said. */
  loadMs = new Map<number, number>();
  loadFailure: Error | undefined;
  /** Thrown by the state machine while a snapshot of it is taken. */
  snapshotFailure: Error | undefined;
  loading = 0;
  mostLoading = 0;
  readonly measures = new Map<string, number[]>();

  constructor(id: MemberId, group: SmallGroup) {
    this.id = id;
    this.group = group;
  }

  start(): void {
    this.#life++;
    this.#starts++;
    this.applied = [];
    const life = this.#life;
    const { group } = this;
    const options = group.options;
    this.member = new Member(
      {
        id: this.id,
        seed: this.id * 31 + this.#starts,
        startNumber: this.#starts,
        timings: lanTimings,
        limits: { ...defaultLimits, ...options.limits },
        leaseReads: options.leaseReads ?? false,
      },
      this.disk.recovered,
      {
        storage: this.#storage(),
        snapshots: this.#snapshots(),
        transport: this.#transport(),
        stateMachine: this.#machine(),
        scheduler: {
          nowMs: () => group.nowMs,
          defer: (turn) => group.later(0, () => life === this.#life && this.input(turn)),
        },
      },
      this.#events(),
    );
    this.member.start();
    const tick = (): void => {
      if (life !== this.#life) return;
      if (!this.paused) this.member.elapsed();
      group.later(options.rests === true ? this.member.rest() : lanTimings.tickMs, tick);
    };
    group.later(lanTimings.tickMs, tick);
  }

  /** Loses what is not on disk. */
  crash(): void {
    this.#life++;
    this.#held = [];
    this.#inbox = [];
    this.member.stop();
  }

  restart(): void {
    this.crash();
    this.start();
  }

  input(turn: () => void): void {
    if (this.paused) this.#inbox.push(turn);
    else turn();
  }

  pause(): void {
    this.paused = true;
  }

  /** As a process that continues: its late timer first, then what waited in the sockets, as one poll phase. */
  resume(): void {
    this.paused = false;
    this.member.elapsed();
    for (const turn of this.#inbox.splice(0)) this.group.later(0, turn);
  }

  releaseDisk(): void {
    this.diskStalled = false;
    for (const finish of this.#held.splice(0)) finish();
  }

  #write(change: () => void, done: (error: Error | undefined) => void): void {
    const life = this.#life;
    const finish = (): void => {
      if (life !== this.#life) return;
      if (this.diskStalled) {
        this.#held.push(finish);
        return;
      }
      change();
      this.saves++;
      this.input(() => done(undefined));
    };
    this.group.later(this.diskMs ?? this.group.options.diskMs ?? 0.2, finish);
  }

  #storage(): LogStorage {
    return {
      save: ({ hardState, entries }, done) =>
        this.#write(() => {
          const first = entries[0]?.index ?? Infinity;
          const { recovered } = this.disk;
          const kept = recovered.entries.filter(({ index }) => index < first);
          this.disk.recovered = {
            ...recovered,
            hardState: hardState ?? recovered.hardState,
            entries: [...kept, ...entries],
          };
        }, done),
      compact: (index) => {
        const { recovered } = this.disk;
        this.disk.recovered = { ...recovered, entries: recovered.entries.filter((entry) => entry.index > index) };
      },
      reset: (snapshot, hardState, done) => {
        this.resets.push({ index: snapshot.index, commit: hardState.commit });
        this.#write(() => (this.disk.recovered = { snapshot, hardState, entries: [] }), done);
      },
    };
  }

  #snapshots(): SnapshotStore {
    return {
      create: (meta, source, done) => {
        const failure = this.snapshotFailure;
        if (failure !== undefined) {
          this.group.later(0.1, () => done(new SnapshotAborted("its source failed", failure), 0));
          return;
        }
        const chunks = readAll(source);
        this.#write(
          () => {
            this.disk.snapshots.set(meta.index, chunks);
            this.disk.recovered = { ...this.disk.recovered, snapshot: meta };
          },
          (error) => done(error, Buffer.concat(chunks).length),
        );
      },
      load: (meta, sink, done) => {
        const chunks = this.disk.snapshots.get(meta.index);
        this.mostLoading = Math.max(this.mostLoading, ++this.loading);
        this.group.later(this.loadMs.get(meta.index) ?? 0.1, () => {
          this.loading--;
          if (this.loadFailure !== undefined) return done(this.loadFailure);
          if (chunks === undefined) return done(new Error(`no snapshot ${meta.index}`));
          for (const chunk of chunks) sink.write(chunk);
          sink.finish(meta.index);
          return done(undefined);
        });
      },
    };
  }

  #transport(): Transport {
    return {
      send: (message) => this.group.deliver(message),
      sendSnapshot: (request, done) => {
        const target = this.group.members.get(request.to);
        const chunks = this.disk.snapshots.get(request.meta.index);
        this.group.later(1, () => {
          if (target === undefined || chunks === undefined || this.group.drop(request)) {
            done(new Error("the transfer broke"));
            return;
          }
          target.disk.snapshots.set(request.meta.index, chunks);
          done(undefined);
          this.group.deliver(request);
        });
      },
      forward: (to, command) => {
        const target = this.group.members.get(to);
        this.group.later(0.1, () => target?.input(() => target.member.receiveForwarded(command)));
      },
    };
  }

  #machine(): StateMachine {
    return {
      apply: (_index, data) => {
        const command = Buffer.from(data).toString();
        if (command === this.poison?.command) throw this.poison.error;
        this.applied.push(command);
        return `did ${command}`;
      },
      snapshot: () => {
        let rest: string | undefined = this.applied.map((command) => `${command}\n`).join("");
        return {
          index: this.member.appliedIndex,
          next: () => {
            const chunk = rest;
            rest = undefined;
            return chunk === undefined ? undefined : Buffer.from(chunk);
          },
        };
      },
      restore: () => {
        const chunks: Uint8Array[] = [];
        return {
          write: (chunk) => void chunks.push(chunk),
          finish: () => (this.applied = Buffer.concat(chunks).toString().split("\n").slice(0, -1)),
        };
      },
      stateHash: () => "",
    };
  }

  #events(): MemberEvents {
    return {
      leadership: () => {},
      membership: () => {},
      applied: () => {},
      quarantined: (reason) => (this.quarantined = reason),
      removed: () => (this.removed = true),
      fatal: (error) => (this.fatal = error),
      noticed: (what) => void this.notices.push(what),
      measured: (what, value) => {
        const list = this.measures.get(what);
        if (list === undefined) this.measures.set(what, [value]);
        else list.push(value);
      },
    };
  }
}

function readAll(source: { next(bytesMax: number): Uint8Array | undefined }): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let chunk = source.next(1000); chunk !== undefined; chunk = source.next(1000)) chunks.push(chunk);
  return chunks;
}
