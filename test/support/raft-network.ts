/**
 * A group of raft cores in memory, for scripted scenarios: messages wait until they are delivered, dropped, duplicated or
 * reordered; disks make durable what they are told to, when they are told to; members crash and start again from what was
 * durable. Nothing is random and no time passes by itself. RaftChecks look on after every event.
 */
import assert from "node:assert/strict";
import {
  type ConfChange,
  type ConfState,
  type CoreConfig,
  type Entry,
  type HardState,
  type InitialState,
  type MemberId,
  type Message,
  RaftCore,
  type Ready,
  type SnapshotMeta,
  type TraceSink,
  bootstrapState,
  coreDefaults,
  decodeConfChange,
  emptyConf,
  isLogSuperseded,
} from "../../manager/raft/core/index.ts";
import { type Chain, type Observed, RaftChecks, emptyChain, extendChain } from "./raft-checks.ts";

export interface NetworkOptions {
  /** The founding voters, ascending. */
  readonly voters: readonly MemberId[];
  readonly config?: Partial<CoreConfig>;
  /** Settings of one member beside the common ones. */
  readonly configOf?: (id: MemberId) => Partial<CoreConfig>;
  /** Where members begin; by default all as founders of a new cluster. Members without an entry begin so, too. */
  readonly initial?: ReadonlyMap<MemberId, InitialState>;
  readonly seed?: number;
  readonly trace?: TraceSink;
}

interface Write {
  readonly ready: Ready;
}

interface StoredSnapshot {
  readonly meta: SnapshotMeta;
  readonly state: readonly string[];
}

const text = new TextEncoder();

/** The data of a proposal, as text. */
export const bytesOf = (value: string): Uint8Array => text.encode(value);

/** One member: its core while it runs, and what survives a crash. */
class Machine {
  readonly id: MemberId;
  core: RaftCore | undefined;
  hardState: HardState;
  /** Newest durable snapshot. */
  snapshot: StoredSnapshot;
  entries: Entry[];
  /** All that it ever had: an offer may be on its way for long. */
  readonly sendable = new Map<number, StoredSnapshot>();
  /** Given to the disk and not durable yet. */
  writes: Write[] = [];
  diskPaused = false;
  applyPaused = false;
  /** Handed out and not applied, while applying is paused. */
  toApply: Entry[] = [];
  state: string[];
  appliedTo: number;
  /** The log as handed to storage, by index. */
  terms: number[] = [];
  chains: Chain[] = [];
  durableChains: Chain[] = [];
  reads: { requestId: number; index: number; lease: boolean; applied: number }[] = [];
  readFailures: number[] = [];
  readiesSeen = 0;
  messagesSent: Message[] = [];

  constructor(id: MemberId, initial: InitialState) {
    this.id = id;
    this.hardState = initial.hardState;
    this.snapshot = { meta: initial.snapshot, state: [] };
    this.sendable.set(initial.snapshot.index, this.snapshot);
    this.entries = [...initial.entries];
    this.state = [];
    this.appliedTo = initial.applied;
  }
}

export class RaftNetwork {
  readonly checks = new RaftChecks();
  /** Sent and not delivered, oldest first. */
  queue: Message[] = [];
  /** What it refuses is lost. */
  filter: (message: Message) => boolean = () => true;
  readonly #machines = new Map<MemberId, Machine>();
  readonly #cut = new Set<string>();
  readonly #options: NetworkOptions;
  /** Chains known for what a snapshot covers. */
  readonly #chainAt = new Map<number, Chain>();
  checking = true;

  constructor(options: NetworkOptions) {
    this.#options = options;
    for (const id of options.voters) this.add(id, options.initial?.get(id) ?? bootstrapState(options.voters));
  }

  // ---- Members

  add(id: MemberId, initial: InitialState): void {
    assert.ok(!this.#machines.has(id), `member ${id} exists`);
    this.#machines.set(id, new Machine(id, initial));
    this.restart(id);
  }

  /** The core of a running member. */
  core(id: MemberId): RaftCore {
    const { core } = this.#machine(id);
    assert.ok(core !== undefined, `member ${id} does not run`);
    return core;
  }

  isUp(id: MemberId): boolean {
    return this.#machine(id).core !== undefined;
  }

  get ids(): MemberId[] {
    return [...this.#machines.keys()].sort((a, b) => a - b);
  }

  get running(): MemberId[] {
    return this.ids.filter((id) => this.isUp(id));
  }

  /** Loses all that is not durable. Messages that left before stay on their way. */
  crash(id: MemberId): void {
    const machine = this.#machine(id);
    machine.core = undefined;
    machine.writes = [];
    machine.toApply = [];
    machine.diskPaused = false;
    machine.applyPaused = false;
    this.checks.crashed(id);
  }

  restart(id: MemberId): void {
    const machine = this.#machine(id);
    assert.ok(machine.core === undefined, `member ${id} runs`);
    const { meta, state } = machine.snapshot;
    if (isLogSuperseded({ snapshot: meta, entries: machine.entries })) machine.entries = [];
    machine.state = [...state];
    machine.appliedTo = meta.index;
    machine.reads = [];
    machine.readFailures = [];
    this.#rebuildChains(machine);
    const { seed = 1, config, configOf, trace } = this.#options;
    machine.core = new RaftCore(
      { ...coreDefaults, ...config, ...configOf?.(id), id, seed },
      { hardState: machine.hardState, snapshot: meta, entries: machine.entries, applied: meta.index },
      trace,
    );
    this.drain(id);
  }

  /** Another life of the process with the same disk. */
  reboot(id: MemberId): void {
    this.crash(id);
    this.restart(id);
  }

  /** Durable contents, for comparison. */
  disk(id: MemberId): { hardState: HardState; snapshot: SnapshotMeta; entries: readonly Entry[] } {
    const { hardState, snapshot, entries } = this.#machine(id);
    return { hardState, snapshot: snapshot.meta, entries };
  }

  /** Commands applied, in order. */
  state(id: MemberId): readonly string[] {
    return this.#machine(id).state;
  }

  reads(id: MemberId): readonly { requestId: number; index: number; lease: boolean; applied: number }[] {
    return this.#machine(id).reads;
  }

  readFailures(id: MemberId): readonly number[] {
    return this.#machine(id).readFailures;
  }

  sent(id: MemberId): readonly Message[] {
    return this.#machine(id).messagesSent;
  }

  // ---- Inputs

  tick(id: MemberId, times = 1): void {
    for (let at = 0; at < times && this.isUp(id); at++) {
      this.core(id).tick();
      this.drain(id);
    }
  }

  /** One tick for everybody that runs, then everything is delivered; so many times. */
  run(ticks: number, until: () => boolean = () => false): boolean {
    for (let at = 0; at < ticks; at++) {
      if (until()) return true;
      for (const id of this.running) this.tick(id);
      this.settle();
    }
    return until();
  }

  propose(id: MemberId, ...values: string[]): { index: number; term: number } {
    const proposed = this.core(id).propose(values.map(bytesOf));
    assert.ok(proposed.accepted, `member ${id} refuses: ${proposed.accepted ? "" : proposed.refusal.code}`);
    this.drain(id);
    return proposed;
  }

  proposeConf(id: MemberId, change: Partial<ConfChange>, force = false): { index: number; term: number } {
    const whole: ConfChange = { transition: "auto", steps: [], context: new Uint8Array(0), ...change };
    const proposed = this.core(id).proposeConfChange(whole, { force });
    assert.ok(proposed.accepted, `member ${id} refuses: ${proposed.accepted ? "" : JSON.stringify(proposed.refusal)}`);
    this.drain(id);
    return proposed;
  }

  /** Any other input, and what follows from it. */
  input<T>(id: MemberId, act: (core: RaftCore) => T): T {
    const result = act(this.core(id));
    this.drain(id);
    return result;
  }

  step(message: Message): void {
    this.input(message.to, (core) => core.step(message));
  }

  /** `id` campaigns, all is delivered, and it leads. */
  elect(id: MemberId): void {
    for (const voter of this.running) this.input(voter, (core) => core.forgetLeader());
    this.input(id, (core) => core.campaign());
    this.settle();
    assert.equal(this.core(id).status().role, "leader", `member ${id} was not elected`);
  }

  leaders(): MemberId[] {
    return this.running.filter((id) => this.core(id).status().role === "leader");
  }

  /** The leader of the highest term, or 0. */
  leader(): MemberId {
    const term = (id: MemberId): number => this.core(id).status().term;
    return this.leaders().sort((a, b) => term(b) - term(a))[0] ?? 0;
  }

  // ---- Network

  /** Delivers until nothing is left, oldest first. */
  settle(messagesMax = 100_000): void {
    for (let at = 0; this.queue.length > 0; at++) {
      assert.ok(at < messagesMax, "the members never stop talking");
      const message = this.queue.shift() as Message;
      this.deliver(message);
    }
  }

  /** Takes out of the queue what `wanted` says, oldest first, and returns it undelivered. */
  take(wanted: (message: Message) => boolean): Message[] {
    const taken = this.queue.filter(wanted);
    this.queue = this.queue.filter((message) => !wanted(message));
    return taken;
  }

  /** Delivers what `wanted` says and what follows from it that `wanted` says too; the rest waits. */
  settleOnly(wanted: (message: Message) => boolean): void {
    for (let next = this.take(wanted); next.length > 0; next = this.take(wanted)) {
      for (const message of next) this.deliver(message);
    }
  }

  /** To a member that is down, cut off or unknown it is lost. */
  deliver(message: Message): void {
    const machine = this.#machines.get(message.to);
    if (machine?.core === undefined || this.#cut.has(`${message.from}>${message.to}`) || !this.filter(message)) {
      if (message.type === "snapshot") this.reportSnapshot(message, false);
      return;
    }
    machine.core.step(message);
    this.drain(message.to);
    if (message.type === "snapshot") this.reportSnapshot(message, true);
  }

  reportSnapshot(message: Message, ok: boolean): void {
    if (!this.#machines.has(message.from) || !this.isUp(message.from)) return;
    this.input(message.from, (core) => core.reportSnapshot(message.to, ok));
  }

  /** One way only. */
  cut(from: MemberId, to: MemberId): void {
    this.#cut.add(`${from}>${to}`);
  }

  cutBoth(a: MemberId, b: MemberId): void {
    this.cut(a, b);
    this.cut(b, a);
  }

  join(a: MemberId, b: MemberId): void {
    this.#cut.delete(`${a}>${b}`);
    this.#cut.delete(`${b}>${a}`);
  }

  isolate(...ids: MemberId[]): void {
    for (const id of ids) for (const other of this.ids) if (other !== id) this.cutBoth(id, other);
  }

  /** Everybody reaches only those of the same side. */
  partition(...sides: MemberId[][]): void {
    this.heal();
    for (const side of sides)
      for (const id of side) for (const other of this.ids) if (!side.includes(other)) this.cutBoth(id, other);
  }

  heal(): void {
    this.#cut.clear();
  }

  // ---- Disks and state machines

  pauseDisk(id: MemberId): void {
    this.#machine(id).diskPaused = true;
  }

  resumeDisk(id: MemberId): void {
    this.#machine(id).diskPaused = false;
    this.fsync(id);
  }

  pendingWrites(id: MemberId): number {
    return this.#machine(id).writes.length;
  }

  /** The oldest writes become durable, and messages that waited for them leave. */
  fsync(id: MemberId, count = Infinity): void {
    const machine = this.#machine(id);
    for (let at = 0; at < count && machine.writes.length > 0; at++) this.#makeDurable(machine);
    this.drain(id);
  }

  pauseApply(id: MemberId): void {
    this.#machine(id).applyPaused = true;
  }

  resumeApply(id: MemberId): void {
    this.#machine(id).applyPaused = false;
    this.apply(id);
  }

  /** Applies what was handed out, at most so many entries. */
  apply(id: MemberId, count = Infinity): void {
    const machine = this.#machine(id);
    for (let at = 0; at < count && machine.toApply.length > 0; at++) this.#applyOne(machine);
    this.drain(id);
  }

  waitingToApply(id: MemberId): number {
    return this.#machine(id).toApply.length;
  }

  /** Takes a snapshot at the applied index and makes it durable. */
  snapshot(id: MemberId): SnapshotMeta | undefined {
    const machine = this.#machine(id);
    const meta = this.core(id).appliedMeta();
    if (meta === undefined) return undefined;
    machine.snapshot = { meta, state: [...machine.state] };
    machine.sendable.set(meta.index, machine.snapshot);
    this.input(id, (core) => core.snapshotCreated(meta));
    return meta;
  }

  compact(id: MemberId, index: number): void {
    this.input(id, (core) => core.compact(index));
    const machine = this.#machine(id);
    // As a log on disk does, keeps one entry more than the core: its term is the boundary after a restart.
    machine.entries = machine.entries.filter((entry) => entry.index >= index);
  }

  // ---- The cycle of the shell

  /** Does what the core asks for, until it asks for nothing. */
  drain(id: MemberId): void {
    const machine = this.#machine(id);
    const { core } = machine;
    if (core === undefined) return;
    for (let at = 0; core.hasReady(); at++) {
      assert.ok(at < 10_000, `member ${id} is never done`);
      const ready = core.ready();
      machine.readiesSeen++;
      this.#store(machine, ready);
      this.#send(machine, ready.messages);
      const writes = ready.hardState !== undefined || ready.entries.length > 0 || ready.snapshot !== undefined;
      if (writes || ready.messagesAfterPersist.length > 0) machine.writes.push({ ready });
      if (!machine.diskPaused) while (machine.writes.length > 0) this.#makeDurable(machine);
      machine.toApply.push(...ready.committed);
      // Commit is checked before anything of it is applied.
      this.#check(machine);
      if (!machine.applyPaused) while (machine.toApply.length > 0) this.#applyOne(machine);
      for (const read of ready.readStates) machine.reads.push({ ...read, applied: machine.appliedTo });
      machine.readFailures.push(...ready.readFailures);
    }
    this.#check(machine);
  }

  #store(machine: Machine, { snapshot, entries }: Ready): void {
    if (snapshot !== undefined) {
      const chain = this.#chainAt.get(snapshot.index) ?? this.checks.committedChain(snapshot.index);
      assert.ok(chain !== undefined, "a snapshot of something that was committed");
      machine.terms.length = 0;
      machine.chains.length = 0;
      machine.terms[snapshot.index] = snapshot.term;
      machine.chains[snapshot.index] = chain;
      machine.toApply = [];
    }
    const first = entries[0];
    if (first === undefined) return;
    assert.ok(first.index <= machine.chains.length, "entries follow what storage holds");
    machine.terms.length = first.index;
    machine.chains.length = first.index;
    for (const entry of entries) {
      assert.equal(entry.index, machine.chains.length, "entries are consecutive");
      const chain = extendChain(machine.chains[entry.index - 1] as Chain, entry);
      machine.terms.push(entry.term);
      machine.chains.push(chain);
      this.checks.entryStored(entry.index, entry.term, chain);
    }
  }

  #makeDurable(machine: Machine): void {
    const { ready } = machine.writes.shift() as Write;
    const { snapshot, entries, hardState, token, messagesAfterPersist } = ready;
    if (snapshot !== undefined) {
      const source = this.#findSnapshot(snapshot.index);
      machine.snapshot = { meta: snapshot, state: source.state };
      machine.sendable.set(snapshot.index, machine.snapshot);
      machine.entries = [];
      machine.durableChains.length = 0;
      machine.durableChains[snapshot.index] = this.#chainAt.get(snapshot.index) ?? emptyChain;
      machine.state = [...source.state];
      machine.appliedTo = snapshot.index;
      this.checks.confApplied(snapshot.index, snapshot.conf);
    }
    const first = entries[0];
    if (first !== undefined) {
      machine.entries = machine.entries.filter((entry) => entry.index < first.index);
      machine.entries.push(...entries);
      machine.durableChains.length = first.index;
      for (const entry of entries) {
        machine.durableChains.push(extendChain(machine.durableChains[entry.index - 1] as Chain, entry));
      }
    }
    if (hardState !== undefined) machine.hardState = hardState;
    machine.core?.persisted(token);
    this.#send(machine, messagesAfterPersist);
  }

  #findSnapshot(index: number): StoredSnapshot {
    for (const machine of this.#machines.values()) {
      const found =
        machine.sendable.get(index) ?? (machine.snapshot.meta.index === index ? machine.snapshot : undefined);
      if (found !== undefined) return found;
    }
    throw new assert.AssertionError({ message: `nobody has a snapshot at ${index}` });
  }

  #send(machine: Machine, messages: readonly Message[]): void {
    for (const message of messages) {
      this.checks.messageSent(message, machine.hardState);
      machine.messagesSent.push(message);
      this.queue.push(message);
    }
  }

  #applyOne(machine: Machine): void {
    const entry = machine.toApply.shift() as Entry;
    const { core } = machine;
    assert.ok(core !== undefined);
    if (this.checking) {
      this.checks.entryApplied(machine.id, entry.index, machine.chains[entry.index] as Chain, machine.appliedTo);
    }
    machine.appliedTo = entry.index;
    if (entry.kind === "normal") machine.state.push(new TextDecoder().decode(entry.data));
    if (entry.kind === "confChange") {
      const conf = core.applyConfChange(decodeConfChange(entry.data));
      this.checks.confApplied(entry.index, conf);
    }
    core.applied(entry.index);
    this.#chainAt.set(entry.index, machine.chains[entry.index] as Chain);
  }

  #rebuildChains(machine: Machine): void {
    const base = machine.snapshot.meta.index;
    machine.terms = [];
    machine.chains = [];
    const start =
      machine.entries[0] !== undefined && machine.entries[0].index <= base ? machine.entries[0].index - 1 : base;
    machine.terms[start] = start === base ? machine.snapshot.meta.term : 0;
    machine.chains[start] = this.#chainAt.get(start) ?? emptyChain;
    this.#chainAt.set(start, machine.chains[start]);
    for (const entry of machine.entries) {
      const chain = extendChain(machine.chains[entry.index - 1] as Chain, entry);
      machine.terms.push(entry.term);
      machine.chains.push(chain);
      this.checks.entryStored(entry.index, entry.term, chain);
    }
    if (machine.chains.length <= base) {
      machine.chains.length = 0;
      machine.chains[base] = this.#chainAt.get(base) ?? emptyChain;
    }
    machine.durableChains = [...machine.chains];
    this.checks.assumeCommitted(machine.chains, Math.max(machine.hardState.commit, base));
    for (let index = base; index <= machine.hardState.commit; index++) {
      const chain = machine.chains[index];
      if (chain !== undefined) this.#chainAt.set(index, chain);
    }
    this.checks.confApplied(base, machine.snapshot.meta.conf);
  }

  #check(machine: Machine): void {
    if (!this.checking || machine.core === undefined) return;
    const others = this.ids.filter((id) => id !== machine.id).map((id) => this.#observe(this.#machine(id)));
    this.checks.member(this.#observe(machine), others);
  }

  #observe(machine: Machine): Observed {
    return {
      id: machine.id,
      status: machine.core?.status() ?? stopped(machine),
      terms: machine.terms,
      chains: machine.chains,
      durable: {
        term: machine.hardState.term,
        vote: machine.hardState.vote,
        lastIndex: machine.durableChains.length - 1,
        chainAt: (index) =>
          machine.durableChains[index] ?? (index <= machine.snapshot.meta.index ? this.#chainAt.get(index) : undefined),
      },
    };
  }

  #machine(id: MemberId): Machine {
    const machine = this.#machines.get(id);
    assert.ok(machine !== undefined, `there is no member ${id}`);
    return machine;
  }
}

function stopped(machine: Machine): Observed["status"] {
  const { hardState, snapshot, entries, id } = machine;
  return {
    id,
    role: "follower",
    leader: 0,
    term: hardState.term,
    vote: hardState.vote,
    commit: hardState.commit,
    applied: snapshot.meta.index,
    firstIndex: snapshot.meta.index + 1,
    lastIndex: entries.at(-1)?.index ?? snapshot.meta.index,
    durableIndex: entries.at(-1)?.index ?? snapshot.meta.index,
    logBytes: 0,
    uncommittedBytes: 0,
    uncommittedEntries: 0,
    pendingReads: 0,
    conf: snapshot.meta.conf,
    transferTo: 0,
    peers: new Map(),
  };
}

/**
 * A member whose log has entries of these terms from index 1 on, in a group that began without a snapshot.
 * @param terms  the content of each entry follows from its index and term, as in a real history
 */
export function logState(
  voters: readonly MemberId[],
  terms: readonly number[],
  options: { term?: number; vote?: MemberId; commit?: number; conf?: Partial<ConfState> } = {},
): InitialState {
  const entries = terms.map((term, at): Entry => ({
    term,
    index: at + 1,
    kind: "normal",
    data: bytesOf(`${at + 1}.${term}`),
  }));
  const { term = terms.at(-1) ?? 0, vote = 0, commit = 0, conf } = options;
  return {
    hardState: { term, vote, commit },
    snapshot: { index: 0, term: 0, conf: { ...emptyConf, voters: [...voters], ...conf } },
    entries,
    applied: 0,
  };
}

/** Terms of the log of a core, from its first index on. */
export function logTerms(core: RaftCore): number[] {
  const { firstIndex, lastIndex } = core.status();
  const terms: number[] = [];
  for (let index = firstIndex; index <= lastIndex; index++) terms.push(core.termAt(index) as number);
  return terms;
}
