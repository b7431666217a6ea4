/**
 * Checks after every event (N8, B1 to B9), incremental: each costs about as much as the event that it looks at.
 * They see what leaves the core (`ready`), what becomes durable, what is sent and what is applied, and keep a shadow of
 * each member's log as terms and chained hashes, both as the member believes it and as its disk holds it.
 */
import type {
  ConfState,
  Entry,
  HardState,
  MemberId,
  Message,
  Ready,
  SnapshotMeta,
  Standing,
} from "../../manager/raft/core/types.ts";
import { SimFailure } from "./failure.ts";

/** A log as terms and chained hashes by index; below `first` it is a snapshot. */
class ShadowLog {
  first = 0;
  last = 0;
  readonly terms: number[] = [];
  readonly chains: number[] = [];

  reset(index: number, term: number, chain: number): void {
    this.first = index;
    this.last = index;
    this.terms[index] = term;
    this.chains[index] = chain;
  }

  set(index: number, term: number, chain: number): void {
    this.terms[index] = term;
    this.chains[index] = chain;
    this.last = index;
  }

  copy(from: ShadowLog): void {
    this.first = from.first;
    this.last = from.last;
    for (let index = from.first; index <= from.last; index++) {
      this.terms[index] = from.terms[index] as number;
      this.chains[index] = from.chains[index] as number;
    }
  }
}

interface MemberView {
  readonly id: MemberId;
  alive: boolean;
  role: string;
  term: number;
  vote: MemberId;
  commit: number;
  applied: number;
  conf: ConfState | undefined;
  readonly log: ShadowLog;
  readonly durable: ShadowLog;
  durableTerm: number;
  durableVote: MemberId;
  durableCommit: number;
  /** Highest index that an accepted append or an installed snapshot made durable in this incarnation. */
  readonly votes: Map<number, MemberId>;
  /** Indexes of configuration changes handed out and not applied yet, and the last one applied. */
  confQueue: number[];
  /** Indexes of the configuration changes in its log, ascending. */
  confIndexes: number[];
  confApplied: number;
}

const emptyConf: ConfState = { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };

/** What the checks report back: events on which faults are armed, and marks. */
export interface ChecksListener {
  becameLeader(id: MemberId, term: number): void;
  /** @param isUnforced  no later term made it: its quorum was silent, or it handed over */
  steppedDown(id: MemberId, isUnforced: boolean): void;
  lostElection(id: MemberId): void;
  splitVote(): void;
  /** A snapshot went out that is older than the last configuration change. */
  olderConfSent(): void;
  truncated(id: MemberId, terms: number): void;
  committedOldTerm(id: MemberId): void;
  /** A leader's commit index moved. */
  committed(id: MemberId): void;
}

export class Checks {
  readonly #members = new Map<MemberId, MemberView>();
  readonly #listener: ChecksListener;
  readonly #leaders = new Map<number, MemberId>();
  /** Chained hash of each (index, term) that any log ever held. */
  readonly #chains = new Map<number, number>();
  /** Members, as bits, that ever held (index, term) durably. */
  readonly #holders = new Map<number, number>();
  /** Members, as bits, whose durable vote of a term went to that term's candidate: key term * 4096 + candidate. */
  readonly #ballots = new Map<number, number>();
  /** Content hash of each command applied, by index. */
  readonly #applied: number[] = [];
  readonly #stateHashes = new Map<number, string>();
  readonly #committedChain: number[] = [];
  readonly #committedTerm: number[] = [];
  /** Highest index committed by the leader of each term. */
  readonly #commits = new Map<number, number>();
  readonly #intersects = new Map<string, boolean>();
  /** The configuration that each applied change led to, by its index. */
  readonly #confs = new Map<number, { readonly key: string; readonly conf: ConfState }>();
  readonly #candidates = new Map<number, number>();
  #lastConfChange = 0;
  maxCommit = 0;
  maxTerm = 0;

  constructor(listener: ChecksListener) {
    this.#listener = listener;
  }

  /** A member's first start, or a restart with what its disk gave back. */
  started(id: MemberId, hard: HardState, snapshot: SnapshotMeta, entries: readonly Entry[], applied: number): void {
    let view = this.#members.get(id);
    if (view === undefined) {
      view = {
        id,
        alive: true,
        role: "follower",
        term: 0,
        vote: 0,
        commit: 0,
        applied: 0,
        conf: undefined,
        log: new ShadowLog(),
        durable: new ShadowLog(),
        durableTerm: 0,
        durableVote: 0,
        durableCommit: 0,
        votes: new Map(),
        confQueue: [],
        confIndexes: [],
        confApplied: 0,
      };
      this.#members.set(id, view);
    }
    if (hard.term < view.durableTerm) {
      throw new SimFailure("B7", "a term went back across a restart", { id, was: view.durableTerm, now: hard.term });
    }
    if (hard.term === view.durableTerm && view.durableVote !== 0 && hard.vote !== view.durableVote) {
      throw new SimFailure("B7", "a durable vote was forgotten across a restart", {
        id,
        term: hard.term,
        was: view.durableVote,
        now: hard.vote,
      });
    }
    const lastIndex = entries.at(-1)?.index ?? snapshot.index;
    const inMemory = new ShadowLog();
    inMemory.copy(view.log);
    view.log.last = -1;
    view.confIndexes = [];
    // The founding configuration is in no entry.
    if (snapshot.index > 0 && this.#confs.size === 0) {
      this.#confs.set(snapshot.index, { key: confKey(snapshot.conf), conf: snapshot.conf });
    }
    this.#restore(view, snapshot);
    // Trailing entries before the snapshot are committed and were checked when they were appended.
    for (const entry of entries) if (entry.index > snapshot.index) this.#append(view, entry);
    this.#checkRecovered(view, inMemory, snapshot, lastIndex);
    view.durable.copy(view.log);
    view.confQueue = [];
    view.alive = true;
    view.role = "follower";
    view.term = hard.term;
    view.vote = hard.vote;
    view.durableTerm = hard.term;
    view.durableVote = hard.vote;
    view.durableCommit = Math.max(hard.commit, snapshot.index);
    view.commit = Math.max(hard.commit, snapshot.index);
    view.applied = applied;
    view.conf = snapshot.conf;
    this.maxTerm = Math.max(this.maxTerm, hard.term);
    this.#noteHolders(view, snapshot.index + 1);
    this.#noteBallot(view);
  }

  stopped(id: MemberId): void {
    const view = this.#members.get(id);
    if (view === undefined) return;
    view.alive = false;
    view.role = "follower";
  }

  /** Its data is gone or untrusted on purpose: what it held no longer counts as held by it. */
  forgotten(id: MemberId): void {
    this.#members.delete(id);
  }

  ready(id: MemberId, ready: Ready, status: Standing): void {
    const view = this.#view(id);
    const { commit, term } = status;
    if (ready.snapshot !== undefined) this.#restore(view, ready.snapshot);
    const first = ready.entries[0];
    if (first !== undefined) {
      if (first.index <= view.log.last) this.#truncate(view, first.index, term);
      for (const entry of ready.entries) {
        const pending = view.confIndexes.at(-1) ?? 0;
        this.#append(view, entry);
        if (
          entry.kind === "confChange" &&
          status.role === "leader" &&
          entry.term === term &&
          pending > status.applied
        ) {
          throw new SimFailure("F3", "a change was proposed while another is not applied", {
            id,
            index: entry.index,
            pending,
          });
        }
      }
    }
    const hard = ready.hardState;
    if (hard !== undefined) {
      if (hard.term < view.term) throw new SimFailure("B7", "a term went back", { id, was: view.term, now: hard.term });
      if (hard.term === view.term && view.vote !== 0 && hard.vote !== view.vote) {
        throw new SimFailure("B7", "a vote was changed within a term", { id, term, was: view.vote, now: hard.vote });
      }
      view.term = hard.term;
      view.vote = hard.vote;
      if (hard.term > this.maxTerm) this.maxTerm = hard.term;
    }
    const role = ready.softState?.role;
    if (role !== undefined && role !== view.role) {
      const was = view.role;
      view.role = role;
      if (role === "leader") this.#becameLeader(view, status, ready);
      else if (was === "leader") this.#listener.steppedDown(id, hard === undefined || hard.term === this.#ledTerm(id));
      else if (was === "candidate" && role === "follower") this.#listener.lostElection(id);
      if (role === "candidate") this.#noteCandidate(term);
      if (role === "candidate" || role === "preCandidate") {
        const unapplied = view.confIndexes.find((index) => index > status.applied && index <= commit);
        if (unapplied !== undefined) {
          throw new SimFailure("C16", "a campaign over a committed change that is not applied", { id, unapplied });
        }
      }
    }
    if (commit !== view.commit) this.#commit(view, commit, term, role === "leader");
    for (const entry of ready.committed) {
      if (entry.kind === "confChange") view.confQueue.push(entry.index);
      this.#checkCommitted(view, entry);
    }
  }

  /** `hard` and `entries` are on this member's disk now. @returns whether a vote became durable that was not */
  durable(id: MemberId, hard: HardState | undefined, entries: readonly Entry[]): boolean {
    const view = this.#view(id);
    const first = entries[0];
    if (first !== undefined) {
      for (const entry of entries) {
        const chain = this.#chains.get(keyOf(entry.index, entry.term));
        if (chain === undefined)
          throw new SimFailure("N8", "an entry became durable that no log held", { id, index: entry.index });
        view.durable.set(entry.index, entry.term, chain);
      }
      this.#noteHolders(view, first.index);
    }
    if (hard === undefined) return false;
    const isNewVote = hard.vote !== 0 && (hard.term !== view.durableTerm || hard.vote !== view.durableVote);
    view.durableTerm = hard.term;
    view.durableVote = hard.vote;
    view.durableCommit = Math.max(view.durableCommit, hard.commit);
    this.#noteBallot(view);
    return isNewVote;
  }

  durableSnapshot(id: MemberId, meta: SnapshotMeta, hard: HardState): void {
    const view = this.#view(id);
    view.durable.reset(meta.index, meta.term, this.#committedChain[meta.index] ?? 0);
    view.durableTerm = hard.term;
    view.durableVote = hard.vote;
    view.durableCommit = Math.max(view.durableCommit, meta.index);
    this.#noteBallot(view);
  }

  /** A message is about to leave: does this member's disk hold what it promises? */
  sent(message: Message): void {
    const view = this.#view(message.from);
    switch (message.type) {
      case "voteResponse": {
        if (!message.granted) return;
        // A durable higher term also keeps the promise: it cannot vote in this term again.
        const isKept =
          view.durableTerm > message.term || (view.durableTerm === message.term && view.durableVote === message.to);
        if (!isKept) {
          throw new SimFailure("C7", "a vote left before it was durable", {
            from: message.from,
            to: message.to,
            term: message.term,
            durableTerm: view.durableTerm,
            durableVote: view.durableVote,
          });
        }
        const given = view.votes.get(message.term);
        if (given !== undefined && given !== message.to) {
          throw new SimFailure("B7", "two votes in one term", {
            id: view.id,
            term: message.term,
            given,
            now: message.to,
          });
        }
        view.votes.set(message.term, message.to);
        this.#ballot(message.term, message.to, view.id);
        return;
      }
      case "appendResponse":
        if (message.rejected) return;
        if (view.durableTerm > message.term) {
          // What it answers for may have been replaced within the same turn, by a leader of a later term. That the answer
          // leaves after both is as if it had been durable in between.
          for (let index = message.index; this.#chains.has(keyOf(index, message.term)); index--) {
            const key = keyOf(index, message.term);
            this.#holders.set(key, (this.#holders.get(key) ?? 0) | (1 << view.id));
          }
          return;
        }
        if (view.durable.last < message.index) {
          throw new SimFailure("B8", "an acknowledgement covers entries that are not durable", {
            from: message.from,
            index: message.index,
            durable: view.durable.last,
          });
        }
        return;
      case "snapshot": {
        const { index, conf } = message.meta;
        let newest = 0;
        for (const changed of this.#confs.keys()) if (changed <= index && changed > newest) newest = changed;
        const known = this.#confs.get(newest);
        if (known !== undefined && known.key !== confKey(conf)) {
          throw new SimFailure("G11", "a snapshot carries another configuration than that of its index", {
            from: message.from,
            index,
            conf,
            known,
          });
        }
        if (view.conf !== undefined && confKey(view.conf) !== confKey(conf)) this.#listener.olderConfSent();
        return;
      }
      default:
        return;
    }
  }

  /** A command reached the state machine. Entries that are none of its business have indexes in between. */
  applied(id: MemberId, index: number, content: number): void {
    const view = this.#view(id);
    if (index <= view.applied) {
      throw new SimFailure("B5", "an entry was applied again, or late", { id, applied: view.applied, index });
    }
    for (let skipped = view.applied + 1; skipped < index; skipped++) {
      if (this.#applied[skipped] === undefined) continue;
      throw new SimFailure("B5", "a command was skipped that another member applied", { id, skipped });
    }
    if (index > view.commit)
      throw new SimFailure("B6", "a command was applied before its commit", { id, index, commit: view.commit });
    view.applied = index;
    const known = this.#applied[index];
    if (known === undefined) this.#applied[index] = content;
    else if (known !== content) throw new SimFailure("B5", "two members applied different commands", { id, index });
  }

  /** Its state machine now holds the state as of a snapshot. */
  installed(id: MemberId, index: number): void {
    const view = this.#view(id);
    if (index < view.applied)
      throw new SimFailure("B5", "a snapshot took the state back", { id, index, applied: view.applied });
    view.applied = index;
  }

  stateHash(id: MemberId, index: number, hash: string): void {
    const known = this.#stateHashes.get(index);
    if (known === undefined) this.#stateHashes.set(index, hash);
    else if (known !== hash)
      throw new SimFailure("B5", "two members differ in state at one index", { id, index, known, hash });
  }

  configured(id: MemberId, conf: ConfState): void {
    const view = this.#view(id);
    if (conf.voters.length === 0) throw new SimFailure("F15", "a configuration without voters", { id });
    view.conf = conf;
    const index = view.confQueue.shift();
    if (index !== undefined) {
      if (index > view.durableCommit) {
        throw new SimFailure("F13", "a configuration is in force, and a restart would not find it so", {
          id,
          index,
          durableCommit: view.durableCommit,
        });
      }
      view.confApplied = Math.max(view.confApplied, index);
      const known = this.#confs.get(index);
      if (known === undefined) this.#confs.set(index, { key: confKey(conf), conf });
      else if (known.key !== confKey(conf)) {
        throw new SimFailure("F15", "one change led to two configurations", { id, index, known, conf });
      }
    }
    if (view.role === "leader") this.#checkConfigurations(view);
  }

  /** B8, at a leader that has just taken in an acknowledgement. */
  matched(leaderTerm: number, follower: MemberId, match: number): void {
    const view = this.#members.get(follower);
    // A newer leader may have shortened the follower's log since; what an older one counted is history.
    if (view === undefined || view.term > leaderTerm) return;
    if (match > view.durable.last) {
      throw new SimFailure("B8", "a leader counts entries that the follower does not hold", {
        follower,
        match,
        durable: view.durable.last,
      });
    }
  }

  /** The configuration in force at `index` and all later ones: those a member may come back with that has its disk only. */
  confsSince(index: number): ConfState[] {
    let newest = 0;
    for (const changed of this.#confs.keys()) if (changed <= index && changed > newest) newest = changed;
    return [...this.#confs].filter(([changed]) => changed >= newest).map(([, { conf }]) => conf);
  }

  /** Whether some log holds a configuration change that is newer than any that was applied anywhere. */
  isConfChanging(): boolean {
    let applied = 0;
    for (const view of this.#members.values()) applied = Math.max(applied, view.confApplied);
    return this.#lastConfChange > applied;
  }

  /** Highest index known to be committed in this term; 0 for none. */
  committedIn(term: number): number {
    return this.#commits.get(term) ?? 0;
  }

  leaderIds(): MemberId[] {
    return [...this.#members.values()].filter((view) => view.alive && view.role === "leader").map((view) => view.id);
  }

  durableLast(id: MemberId): { index: number; term: number } {
    const log = this.#members.get(id)?.durable;
    return log === undefined ? { index: 0, term: 0 } : { index: log.last, term: log.terms[log.last] ?? 0 };
  }

  #view(id: MemberId): MemberView {
    const view = this.#members.get(id);
    if (view === undefined) throw new SimFailure("N8", "an unknown member acted", { id });
    return view;
  }

  /**
   * What was durable is there again, except where a later write had begun to replace it: by an entry of a higher term, or by
   * one that the log in memory had by then, since the log of a later leader may have an entry of a lower term there.
   */
  #checkRecovered(view: MemberView, inMemory: ShadowLog, snapshot: SnapshotMeta, lastIndex: number): void {
    const { log, durable, id } = view;
    const snapshotIndex = snapshot.index;
    // An arriving snapshot had begun to replace a log of other entries.
    const isReplaced = snapshotIndex > durable.first && snapshotIndex <= durable.last;
    if (isReplaced && durable.terms[snapshotIndex] !== snapshot.term) return;
    for (let index = Math.max(durable.first, snapshotIndex) + 1; index <= durable.last; index++) {
      if (index > lastIndex) {
        throw new SimFailure("K4", "the durable end of a log was lost across a restart", {
          id,
          was: durable.last,
          now: lastIndex,
        });
      }
      if (log.chains[index] === durable.chains[index]) continue;
      if ((log.terms[index] as number) > (durable.terms[index] as number)) return;
      if (index <= inMemory.last && log.chains[index] === inMemory.chains[index]) return;
      throw new SimFailure("K4", "a durable entry changed across a restart", { id, index });
    }
  }

  #restore(view: MemberView, meta: SnapshotMeta): void {
    const chain = this.#committedChain[meta.index];
    if (meta.index > 0 && chain === undefined && this.maxCommit > 0) {
      throw new SimFailure("G11", "a snapshot of an index that nobody committed", { id: view.id, index: meta.index });
    }
    const term = this.#committedTerm[meta.index];
    if (term !== undefined && term !== meta.term) {
      throw new SimFailure("G11", "a snapshot with the term of another entry", {
        id: view.id,
        index: meta.index,
        term: meta.term,
      });
    }
    if (chain === undefined) {
      this.#committedChain[meta.index] = 1;
      this.#committedTerm[meta.index] = meta.term;
      this.#chains.set(keyOf(meta.index, meta.term), 1);
      this.maxCommit = Math.max(this.maxCommit, meta.index);
    }
    // A snapshot that the log already contains moves the commit only (G3).
    if (meta.index <= view.log.last && view.log.chains[meta.index] === chain && meta.index >= view.log.first) return;
    view.log.reset(meta.index, meta.term, chain ?? 1);
    view.confIndexes = [];
  }

  #append(view: MemberView, entry: Entry): void {
    const log = view.log;
    if (entry.index !== log.last + 1) {
      throw new SimFailure("B3", "a hole in a log", { id: view.id, last: log.last, index: entry.index });
    }
    const previousTerm = log.terms[log.last] as number;
    if (entry.term < previousTerm) {
      throw new SimFailure("B3", "terms fall within a log", {
        id: view.id,
        index: entry.index,
        term: entry.term,
        previousTerm,
      });
    }
    const chain = mix(mix(log.chains[log.last] as number, entry.term), contentHash(entry));
    const key = keyOf(entry.index, entry.term);
    const known = this.#chains.get(key);
    if (known === undefined) this.#chains.set(key, chain);
    else if (known !== chain) {
      throw new SimFailure("B3", "two logs agree on index and term but not on content", {
        id: view.id,
        index: entry.index,
        term: entry.term,
      });
    }
    log.set(entry.index, entry.term, chain);
    if (entry.kind !== "confChange") return;
    view.confIndexes.push(entry.index);
    if (entry.index > this.#lastConfChange) this.#lastConfChange = entry.index;
  }

  #truncate(view: MemberView, from: number, term: number): void {
    const log = view.log;
    // A leader that was deposed within this turn has a higher term by now.
    if (view.role === "leader" && term === view.term)
      throw new SimFailure("B2", "a leader rewrote its log", { id: view.id, from, last: log.last });
    if (from <= view.commit)
      throw new SimFailure("E6", "a committed entry was truncated", { id: view.id, from, commit: view.commit });
    const terms = new Set<number>();
    for (let index = from; index <= log.last; index++) terms.add(log.terms[index] as number);
    log.last = from - 1;
    while ((view.confIndexes.at(-1) ?? 0) >= from) view.confIndexes.pop();
    this.#listener.truncated(view.id, terms.size);
  }

  /** The last term that this member led. */
  #ledTerm(id: MemberId): number {
    let led = 0;
    for (const [term, leader] of this.#leaders) if (leader === id && term > led) led = term;
    return led;
  }

  #noteCandidate(term: number): void {
    const before = this.#candidates.get(term) ?? 0;
    this.#candidates.set(term, before + 1);
    // Somebody campaigns in a later term: an earlier one with two candidates and no leader was split.
    for (const [older, count] of this.#candidates) {
      if (older >= term) continue;
      if (count > 1 && !this.#leaders.has(older)) this.#listener.splitVote();
      this.#candidates.delete(older);
    }
  }

  #becameLeader(view: MemberView, status: Standing, ready: Ready): void {
    const { term } = status;
    const known = this.#leaders.get(term);
    if (known !== undefined && known !== view.id)
      throw new SimFailure("B1", "two leaders in one term", { term, known, id: view.id });
    this.#leaders.set(term, view.id);
    let mustHold = 0;
    for (const [at, index] of this.#commits) if (at < term && index > mustHold) mustHold = index;
    if (mustHold > view.log.last) {
      throw new SimFailure("B4", "a leader lacks committed entries", {
        id: view.id,
        term,
        last: view.log.last,
        mustHold,
      });
    }
    if (mustHold > view.log.first && view.log.chains[mustHold] !== this.#committedChain[mustHold]) {
      throw new SimFailure("B4", "a leader holds another entry than the committed one", {
        id: view.id,
        term,
        mustHold,
      });
    }
    const opening = ready.entries.some((entry) => entry.term === term && entry.kind === "empty");
    if (!opening) throw new SimFailure("C3", "a leader opens its term without an empty entry", { id: view.id, term });
    if (view.conf !== undefined && view.conf.voters.length > 0) {
      if (confKey(status.conf) !== confKey(view.conf)) {
        throw new SimFailure("F14", "a leader counts by another configuration than the one in force", {
          id: view.id,
          core: status.conf,
          member: view.conf,
        });
      }
      const ballots = this.#ballots.get(term * 4096 + view.id) ?? 0;
      if (!isQuorum(view.conf, (id) => ((ballots >>> id) & 1) === 1)) {
        throw new SimFailure("C8", "a leader without a quorum of durable votes", {
          id: view.id,
          term,
          ballots,
          conf: view.conf,
        });
      }
      this.#checkConfigurations(view);
    }
    this.#listener.becameLeader(view.id, term);
  }

  #commit(view: MemberView, commit: number, term: number, isFresh: boolean): void {
    if (commit < view.commit)
      throw new SimFailure("B6", "a commit index went back", { id: view.id, was: view.commit, now: commit });
    if (commit > view.log.last)
      throw new SimFailure("B6", "a commit index past the log", { id: view.id, commit, last: view.log.last });
    const from = Math.max(view.commit + 1, view.log.first + 1);
    view.commit = commit;
    for (let index = from; index <= commit; index++) {
      const chain = view.log.chains[index] as number;
      const known = this.#committedChain[index];
      if (known === undefined) {
        this.#committedChain[index] = chain;
        this.#committedTerm[index] = view.log.terms[index] as number;
      } else if (known !== chain) {
        throw new SimFailure("B5", "two members committed different entries at one index", { id: view.id, index });
      }
    }
    if (commit > this.maxCommit) this.maxCommit = commit;
    if (commit > (this.#commits.get(term) ?? 0)) this.#commits.set(term, commit);
    if (view.role !== "leader") return;
    this.#listener.committed(view.id);
    if (!view.alive) return;
    const lastTerm = view.log.terms[commit] as number;
    if (lastTerm !== term) {
      // It may have learnt this commit as a follower, and have won its election within the same turn.
      if (isFresh) return;
      throw new SimFailure("E4", "a leader committed an entry of an older term by counting", {
        id: view.id,
        commit,
        lastTerm,
        term,
      });
    }
    if (from < commit && (view.log.terms[from] as number) < term) this.#listener.committedOldTerm(view.id);
    const conf = view.conf;
    if (conf === undefined || conf.voters.length === 0) return;
    const holders = this.#holders.get(keyOf(commit, lastTerm)) ?? 0;
    if (!isQuorum(conf, (id) => ((holders >>> id) & 1) === 1)) {
      throw new SimFailure("B6", "a commit without a durable quorum", { id: view.id, commit, term, holders, conf });
    }
  }

  #checkCommitted(view: MemberView, entry: Entry): void {
    if (entry.index > view.commit) {
      throw new SimFailure("B6", "an entry was handed out before its commit", {
        id: view.id,
        index: entry.index,
        commit: view.commit,
      });
    }
    const known = this.#chains.get(keyOf(entry.index, entry.term));
    if (known === undefined || this.#committedChain[entry.index] !== known) {
      throw new SimFailure("B5", "an entry was handed out that is not the committed one", {
        id: view.id,
        index: entry.index,
      });
    }
  }

  /** B9: two leaders whose configurations could both gather a quorum now must share a member of each pair of quorums. */
  #checkConfigurations(view: MemberView): void {
    for (const other of this.#members.values()) {
      if (
        other === view ||
        !other.alive ||
        other.role !== "leader" ||
        other.conf === undefined ||
        view.conf === undefined
      )
        continue;
      if (!this.#canGather(view) || !this.#canGather(other)) continue;
      if (!this.#intersect(view.conf, other.conf)) {
        throw new SimFailure("B9", "two configurations in force have quorums without a common member", {
          one: view.id,
          conf: view.conf,
          two: other.id,
          otherConf: other.conf,
        });
      }
    }
  }

  #canGather(leader: MemberView): boolean {
    return isQuorum(leader.conf ?? emptyConf, (id) => (this.#members.get(id)?.term ?? 0) <= leader.term);
  }

  #intersect(a: ConfState, b: ConfState): boolean {
    const key = `${a.voters.join()}/${a.votersOutgoing.join()}|${b.voters.join()}/${b.votersOutgoing.join()}`;
    let answer = this.#intersects.get(key);
    if (answer === undefined) {
      answer = intersecting(a, b);
      this.#intersects.set(key, answer);
    }
    return answer;
  }

  #noteHolders(view: MemberView, from: number): void {
    for (let index = from; index <= view.durable.last; index++) {
      const key = keyOf(index, view.durable.terms[index] as number);
      this.#holders.set(key, (this.#holders.get(key) ?? 0) | (1 << view.id));
    }
  }

  #noteBallot(view: MemberView): void {
    if (view.durableVote !== 0) this.#ballot(view.durableTerm, view.durableVote, view.id);
  }

  #ballot(term: number, candidate: MemberId, voter: MemberId): void {
    const key = term * 4096 + candidate;
    this.#ballots.set(key, (this.#ballots.get(key) ?? 0) | (1 << voter));
  }
}

function confKey(conf: ConfState): string {
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = conf;
  return [voters, votersOutgoing, learners, learnersNext, [autoLeave]].map((part) => part.join()).join("/");
}

/** Simulated ids are small (below 31), so that sets of members are bits. */
export function isQuorum(conf: ConfState, holds: (id: MemberId) => boolean): boolean {
  return isMajority(conf.voters, holds) && (conf.votersOutgoing.length === 0 || isMajority(conf.votersOutgoing, holds));
}

function isMajority(voters: readonly MemberId[], holds: (id: MemberId) => boolean): boolean {
  let count = 0;
  for (const id of voters) if (holds(id)) count++;
  return count > voters.length / 2;
}

function intersecting(a: ConfState, b: ConfState): boolean {
  const all = [...new Set([...a.voters, ...a.votersOutgoing, ...b.voters, ...b.votersOutgoing])];
  // Two quorums are disjoint exactly if a set is a quorum of one while its complement is a quorum of the other.
  for (let set = 0; set < 1 << all.length; set++) {
    const inside = (id: MemberId): boolean => ((set >> all.indexOf(id)) & 1) === 1;
    if (isQuorum(a, inside) && isQuorum(b, (id) => !inside(id))) return false;
  }
  return true;
}

function keyOf(index: number, term: number): number {
  return index * 65_536 + term;
}

export function mix(hash: number, value: number): number {
  let mixed = Math.imul(hash ^ value, 0x01000193);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
  return (mixed ^ (mixed >>> 13)) | 0;
}

export function contentHash(entry: Pick<Entry, "kind" | "data">): number {
  return mix(bytesHash(entry.data), entry.kind === "normal" ? 1 : entry.kind === "confChange" ? 2 : 3);
}

export function bytesHash(data: Uint8Array): number {
  let hash = 17;
  for (let at = 0; at < data.length; at++) hash = Math.imul(hash ^ (data[at] as number), 0x01000193);
  return mix(hash, data.length);
}
