/**
 * The paper's safety properties (scenarios B1 to B9), checked after every event of a group of raft cores.
 * Told what each member stores, sends, commits and applies; remembers the whole history. Incremental: an event costs what
 * it brings, not what came before.
 */
import assert from "node:assert/strict";
import type { ConfState, Entry, MemberId, Message, Status } from "../../manager/raft/core/index.ts";

/** Chained hash of a log up to one entry: equal chains mean equal prefixes. */
export type Chain = string;

export const emptyChain: Chain = "";

export function extendChain(chain: Chain, entry: Entry): Chain {
  // FNV-1a over the parts, in two lanes; collisions would only hide a failure in one run of many.
  let a = 0x811c9dc5;
  let b = 0x01000193;
  const mix = (value: number): void => {
    a = Math.imul(a ^ value, 0x01000193);
    b = Math.imul(b ^ (value + 0x9e37), 0x85ebca6b);
  };
  for (let at = 0; at < chain.length; at++) mix(chain.charCodeAt(at));
  mix(entry.term);
  mix(entry.index);
  mix(entry.kind.length);
  for (const byte of entry.data) mix(byte);
  return `${(a >>> 0).toString(36)}.${(b >>> 0).toString(36)}`;
}

/** What the checks may see of one member. Arrays are by log index. */
export interface Observed {
  readonly id: MemberId;
  readonly status: Status;
  /** The log as handed to storage, and its chains; index 0 is the empty log. */
  readonly terms: readonly number[];
  readonly chains: readonly Chain[];
  /** What would survive a crash now. */
  readonly durable: {
    readonly term: number;
    readonly vote: MemberId;
    readonly lastIndex: number;
    chainAt(index: number): Chain | undefined;
  };
}

export class RaftChecks {
  readonly #leaderOfTerm = new Map<number, MemberId>();
  readonly #chainOfEntry = new Map<string, Chain>();
  readonly #committed: Chain[] = [];
  /** The term in which an entry became committed, by index. */
  readonly #committedIn: number[] = [];
  #committedTo = 0;
  readonly #applied: Chain[] = [];
  readonly #votes = new Map<string, MemberId>();
  readonly #durableTerm = new Map<MemberId, number>();
  readonly #commitOf = new Map<MemberId, number>();
  readonly #roleOf = new Map<MemberId, string>();
  readonly #leaderLog = new Map<MemberId, { term: number; last: number; chain: Chain }>();
  #newestConf: { index: number; conf: ConfState } | undefined;
  readonly #meets = new Map<string, boolean>();

  /** The history before the first event: entries up to `index` with this chain are committed. */
  assumeCommitted(chains: readonly Chain[], index: number): void {
    for (let at = 0; at <= index; at++) this.#committed[at] ??= chains[at] as Chain;
    this.#committedTo = Math.max(this.#committedTo, index);
  }

  committedChain(index: number): Chain | undefined {
    return this.#committed[index];
  }

  get committedTo(): number {
    return this.#committedTo;
  }

  /** B3: equal index and term mean equal content and equal prefix, on whomever, whenever. */
  entryStored(index: number, term: number, chain: Chain): void {
    const key = `${index}/${term}`;
    const known = this.#chainOfEntry.get(key);
    if (known === undefined) this.#chainOfEntry.set(key, chain);
    else assert.equal(chain, known, `B3: two logs differ at or before entry ${index} of term ${term}`);
  }

  /** B5: the n-th command is the same everywhere; on one member they come in order. */
  entryApplied(id: MemberId, index: number, chain: Chain, previous: number): void {
    assert.equal(index, previous + 1, `B5: member ${id} applies ${index} after ${previous}`);
    const known = this.#applied[index];
    if (known === undefined) this.#applied[index] = chain;
    else assert.equal(chain, known, `B5: member ${id} applies another entry ${index}`);
    assert.equal(chain, this.#committed[index], `B5: member ${id} applies entry ${index}, which is not committed`);
  }

  /** B7: a vote that leaves is durable, and the only one of its member in its term. */
  messageSent(message: Message, durable: { term: number; vote: MemberId }): void {
    let candidate: MemberId;
    if (message.type === "vote") candidate = message.from;
    else if (message.type === "voteResponse" && message.granted) candidate = message.to;
    else return;
    const key = `${message.from}/${message.term}`;
    const known = this.#votes.get(key);
    assert.ok(
      known === undefined || known === candidate,
      `B7: member ${message.from} votes for ${String(known)} and ${candidate} in term ${message.term}`,
    );
    this.#votes.set(key, candidate);
    assert.ok(
      durable.term > message.term || (durable.term === message.term && durable.vote === candidate),
      `B7: member ${message.from} sends a vote of term ${message.term} that is not durable`,
    );
  }

  confApplied(index: number, conf: ConfState): void {
    if (this.#newestConf === undefined || index > this.#newestConf.index) this.#newestConf = { index, conf };
  }

  /** After an event: B1, B2, B4, B6, B7, B8, B9 for one member. */
  member(one: Observed, others: readonly Observed[]): void {
    const { id, status, durable } = one;
    const known = this.#durableTerm.get(id) ?? 0;
    assert.ok(durable.term >= known, `B7: the durable term of member ${id} goes back from ${known} to ${durable.term}`);
    this.#durableTerm.set(id, durable.term);

    assert.ok(status.commit <= status.lastIndex, `B6: member ${id} commits ${status.commit} past its end`);
    const before = this.#commitOf.get(id) ?? 0;
    assert.ok(status.commit >= before, `B6: the commit index of member ${id} goes back from ${before}`);
    if (status.commit > before) {
      this.#commitOf.set(id, status.commit);
      this.#noteCommit(one, others, before);
    }

    if (status.role === "leader") this.#leader(one, others);
    else this.#leaderLog.delete(id);
    this.#roleOf.set(id, status.role);
  }

  /** A crash: what was in memory is gone. */
  crashed(id: MemberId): void {
    this.#commitOf.delete(id);
    this.#roleOf.delete(id);
    this.#leaderLog.delete(id);
  }

  #noteCommit(one: Observed, others: readonly Observed[], before: number): void {
    for (let index = Math.max(before, 0) + 1; index <= one.status.commit; index++) {
      const chain = one.chains[index];
      if (chain === undefined) continue; // covered by a snapshot: checked where the snapshot was taken
      const committed = this.#committed[index];
      if (committed === undefined) {
        this.#committed[index] = chain;
        this.#committedIn[index] = one.status.term;
      } else assert.equal(chain, committed, `B5: member ${one.id} commits another entry ${index}`);
    }
    if (one.status.commit <= this.#committedTo) return;
    this.#committedTo = one.status.commit;
    const index = one.status.commit;
    const stored = new Set(
      [one, ...others].filter(({ durable }) => durable.chainAt(index) === this.#committed[index]).map(({ id }) => id),
    );
    assert.ok(
      isQuorum(one.status.conf, stored),
      `B6: member ${one.id} commits ${index}, durable only on ${[...stored].join(" ")}`,
    );
    this.#checkConf(one);
  }

  #leader(one: Observed, others: readonly Observed[]): void {
    const { id, status, chains } = one;
    const leader = this.#leaderOfTerm.get(status.term);
    assert.ok(leader === undefined || leader === id, `B1: ${String(leader)} and ${id} lead in term ${status.term}`);
    const isNew = leader === undefined;
    this.#leaderOfTerm.set(status.term, id);
    if (isNew) {
      for (let index = 1; index <= this.#committedTo; index++) {
        // Late votes may make a leader of a term that is over; it owes only what earlier terms committed.
        if (index < status.firstIndex || (this.#committedIn[index] ?? 0) > status.term) continue;
        assert.equal(chains[index], this.#committed[index], `B4: leader ${id} of ${status.term} lacks entry ${index}`);
      }
      this.#checkConf(one);
    }
    const last = chains.length - 1;
    const seen = this.#leaderLog.get(id);
    if (seen !== undefined && seen.term === status.term) {
      assert.ok(last >= seen.last, `B2: the log of leader ${id} became shorter`);
      assert.equal(chains[seen.last], seen.chain, `B2: the log of leader ${id} was rewritten`);
    }
    this.#leaderLog.set(id, { term: status.term, last, chain: chains[last] as Chain });
    for (const other of others) {
      const progress = status.peers.get(other.id);
      if (progress === undefined) continue;
      assert.ok(
        progress.match <= other.durable.lastIndex || other.status.term > status.term,
        `B8: leader ${id} counts entry ${progress.match} on ${other.id}, durable there up to ${other.durable.lastIndex}`,
      );
    }
  }

  /** B9: whoever wins or commits counts by a configuration whose quorums meet those of the newest one. */
  #checkConf({ id, status }: Observed): void {
    if (this.#newestConf === undefined) return;
    assert.ok(
      this.#quorumsMeet(status.conf, this.#newestConf.conf),
      `B9: member ${id} decides by ${JSON.stringify(status.conf)}, others by ${JSON.stringify(this.#newestConf.conf)}`,
    );
  }

  #quorumsMeet(a: ConfState, b: ConfState): boolean {
    const key = JSON.stringify([a.voters, a.votersOutgoing, b.voters, b.votersOutgoing]);
    let meets = this.#meets.get(key);
    if (meets === undefined) {
      meets = quorumsMeet(a, b);
      this.#meets.set(key, meets);
    }
    return meets;
  }
}

/** The plain definition: a majority of the one half and, if joint, of the other. */
export function isQuorum(conf: ConfState, who: ReadonlySet<MemberId>): boolean {
  const majority = (voters: readonly MemberId[]): boolean =>
    voters.filter((id) => who.has(id)).length * 2 > voters.length;
  return majority(conf.voters) && (conf.votersOutgoing.length === 0 || majority(conf.votersOutgoing));
}

/** No two disjoint sets of members are quorums of `a` and of `b`: tried for every subset. */
export function quorumsMeet(a: ConfState, b: ConfState): boolean {
  const all = [...new Set([...a.voters, ...a.votersOutgoing, ...b.voters, ...b.votersOutgoing])];
  for (let subset = 0; subset < 2 ** all.length; subset++) {
    const inside = new Set(all.filter((_, at) => (subset >> at) & 1));
    const outside = new Set(all.filter((id) => !inside.has(id)));
    if (isQuorum(a, inside) && isQuorum(b, outside)) return false;
  }
  return true;
}
