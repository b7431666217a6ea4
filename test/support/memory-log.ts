/**
 * A replicated log of one or several stores in one process: for tests of the rooms above. Nothing happens by itself:
 * what is proposed waits until `deliver` (or, with `auto`, until the end of the microtasks), so a test decides what is
 * committed, in what batches, and what becomes of the rest.
 */
import type { Leadership, ProposeOutcome, ReadIndexOutcome, ReplicatedLog } from "../../manager/store/index.ts";

/** What a member's state machine must be able to do: the store's, or a test's. */
export interface Applier {
  apply(index: number, data: Uint8Array): unknown;
}

/** A proposal that is not decided yet. */
export interface Waiting {
  readonly data: Uint8Array;
  readonly from: MemoryLog;
  readonly done: ((outcome: ProposeOutcome) => void) | undefined;
}

/** The entries that all members agree on, and who leads. */
export class MemoryLogGroup {
  readonly entries: { readonly index: number; readonly data: Uint8Array }[] = [];
  readonly members: MemoryLog[] = [];
  readonly #waiting: Waiting[] = [];
  readonly #auto: boolean;
  #index = 0;
  #term = 0;
  #leader: MemoryLog | undefined;
  #flushing = false;

  /** @param options.auto  commit by itself when the current turn ends */
  constructor(options: { readonly auto?: boolean } = {}) {
    this.#auto = options.auto ?? true;
  }

  /** @param startsAt  what the member's state contains already (a restored snapshot) */
  join(applier: Applier, startsAt = 0): MemoryLog {
    const member = new MemoryLog(this, `member-${this.members.length + 1}`, applier, startsAt);
    this.members.push(member);
    return member;
  }

  get pending(): number {
    return this.#waiting.length;
  }

  get term(): number {
    return this.#term;
  }

  get leader(): MemoryLog | undefined {
    return this.#leader;
  }

  /** Makes `member` lead a new term. What waits becomes unknown to its proposers, as after a lost leadership. */
  elect(member: MemoryLog | undefined): void {
    const before = this.#leader;
    this.#term++;
    this.#leader = undefined;
    before?.announce();
    for (const { from, done } of this.#waiting.splice(0))
      if (from === before || member !== undefined) done?.({ kind: "unknown", cause: "leadership was lost" });
    this.#leader = member;
    // Who leads has applied everything before its term.
    if (member !== undefined) {
      member.paused = false;
      member.catchUp();
    }
    // The opening entry of the term: it takes an index and no store sees it.
    if (member !== undefined) this.#index++;
    for (const each of this.members) each.announce();
  }

  /** Commits what waits, at most `count`, and applies it on every member that is not paused; the leader answers. */
  deliver(count = Infinity): void {
    for (const { data, from, done } of this.#waiting.splice(0, count)) {
      this.#index++;
      const entry = { index: this.#index, data };
      this.entries.push(entry);
      let result: unknown;
      for (const member of this.members) {
        const applied = member.catchUp();
        if (member === from) result = applied;
      }
      if (from.stopped) done?.({ kind: "unknown", cause: "the member stopped" });
      else done?.({ kind: "committed", index: entry.index, result });
      if (this.#leader?.stopped === true) this.elect(undefined);
    }
  }

  /** Takes what waits out of the log: its proposers are told `outcome`. */
  refuse(outcome: ProposeOutcome, count = Infinity): void {
    for (const { done } of this.#waiting.splice(0, count)) done?.(outcome);
  }

  /** Loses the answers: what waits is committed, and its proposers learn only that nobody knows. */
  deliverUnanswered(count = Infinity): void {
    const answers = this.#waiting.slice(0, count).map(({ done }) => done);
    for (const [at, waiting] of this.#waiting.slice(0, count).entries())
      this.#waiting[at] = { ...waiting, done: undefined };
    this.deliver(count);
    for (const done of answers) done?.({ kind: "unknown", cause: "the answer was lost" });
  }

  /** Takes what waits aside, as messages under way; its proposers wait on. */
  hold(): readonly Waiting[] {
    return this.#waiting.splice(0);
  }

  /** What was held is committed after all. */
  replay(held: readonly Waiting[]): void {
    this.#waiting.unshift(...held.map((waiting) => ({ ...waiting, done: undefined })));
    const answers = held.map(({ done }) => done);
    this.deliver(held.length);
    for (const done of answers) done?.({ kind: "unknown", cause: "leadership was lost" });
  }

  /** Forgets what every member has applied: for lives that are longer than any log could be. */
  compact(): void {
    const applied = Math.min(...this.members.map((member) => member.appliedIndex));
    const first = this.entries.findIndex(({ index }) => index > applied);
    this.entries.splice(0, first < 0 ? this.entries.length : first);
  }

  take(waiting: Waiting): void {
    this.#waiting.push(waiting);
    this.#schedule();
  }

  #schedule(): void {
    if (!this.#auto || this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.deliver();
    });
  }
}

/** One member's end of the log. */
export class MemoryLog implements ReplicatedLog {
  readonly name: string;
  readonly #group: MemoryLogGroup;
  readonly #applier: Applier;
  readonly #listeners = new Set<(leadership: Leadership) => void>();
  #appliedIndex: number;
  /** A paused member applies nothing until it is resumed. */
  paused = false;
  stopped = false;
  /** Set: every proposal is refused with this. */
  refusing: ProposeOutcome | undefined;

  constructor(group: MemoryLogGroup, name: string, applier: Applier, startsAt: number) {
    this.#group = group;
    this.name = name;
    this.#applier = applier;
    this.#appliedIndex = startsAt;
  }

  propose(data: Uint8Array, done: (outcome: ProposeOutcome) => void): void {
    const { leading, leader } = this.leadership();
    const refusal: ProposeOutcome | undefined = this.stopped
      ? { kind: "stopped" }
      : leading
        ? this.refusing
        : { kind: "notLeader", leader };
    if (refusal === undefined) this.#group.take({ data, from: this, done });
    else queueMicrotask(() => done(refusal));
  }

  readIndex(done: (outcome: ReadIndexOutcome) => void): void {
    queueMicrotask(() => {
      if (this.stopped) done({ kind: "stopped" });
      else if (this.#group.leader === undefined) done({ kind: "notLeader", leader: undefined });
      else {
        this.catchUp();
        done({ kind: "applied", index: this.#appliedIndex });
      }
    });
  }

  forward(data: Uint8Array): void {
    if (this.#group.leader !== undefined) this.#group.take({ data, from: this, done: undefined });
  }

  leadership(): Leadership {
    const leader = this.#group.leader;
    return { leading: leader === this, term: this.#group.term, leader: leader?.name };
  }

  onLeadership(listener: (leadership: Leadership) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  announce(): void {
    for (const listener of this.#listeners) listener(this.leadership());
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  /** Applies what is committed; @returns what the last entry gave */
  catchUp(): unknown {
    let result: unknown;
    if (this.paused || this.stopped) return result;
    const { entries } = this.#group;
    let at = entries.length;
    while (at > 0 && (entries[at - 1]?.index ?? 0) > this.#appliedIndex) at--;
    for (const { index, data } of entries.slice(at)) {
      this.#appliedIndex = index;
      result = this.#applier.apply(index, data);
    }
    return result;
  }

  /** A snapshot took the member's state here. */
  skipTo(index: number): void {
    this.#appliedIndex = index;
  }
}
