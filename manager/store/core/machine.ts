/**
 * The state machine: committed entries in, the same state on every member out. Everything here is decided by the
 * entries alone; the clock is the one they carry.
 */
import { invariant } from "../../../lib/pure/errors.ts";
import { skep } from "../../../proto/index.ts";
import { Catalog, memberKind, orderedKey, plainCodec, replyKind, sessionExpiry, sessionKind } from "./catalog.ts";
import { Incompatible, StateDiverged } from "./errors.ts";
import { digestBytes, type Digest } from "./hash.ts";
import { decodeRefusal, encodeRefusal, type Refusal } from "./refusal.ts";
import type { Schema, TableSchema } from "./schema.ts";
import { RestoreSink, SnapshotReader } from "./snapshot.ts";
import { State, type FrozenState } from "./state.ts";
import { DecodeCache, keysOf, ownBytes, StoredObject } from "./stored-object.ts";
import { applyTransaction, type Hint, type RawChange } from "./transaction.ts";

/** What this version of the software understands. Raised with each new kind of entry, object or index. */
export const supportedLevel = 1;

export interface MachineLimits {
  readonly sessionsMax: number;
  /** Kept for each session until the client acknowledges them. */
  readonly repliesMax: number;
  readonly replyBytesMax: number;
  /** Entries between two comparisons of state hashes. */
  readonly hashEvery: number;
  /** Objects and bytes whose digests are checked against memory at each comparison: at most a few milliseconds. */
  readonly scrubObjects: number;
  readonly scrubBytes: number;
  /** Objects of each kind kept decoded. */
  readonly decodedMax: number;
}

export const defaultLimits: MachineLimits = {
  sessionsMax: 10_000,
  repliesMax: 256,
  replyBytesMax: 16 * 1024,
  hashEvery: 1024,
  scrubObjects: 2048,
  scrubBytes: 2 * 1024 * 1024,
  decodedMax: 8192,
};

/** Expired sessions that one entry removes at most; the rest wait for the next, and are refused meanwhile. */
const expireMax = 4;

export interface ApplyResult {
  readonly index: number;
  /** Set: the entry had no effect. */
  readonly refusal: Refusal | undefined;
  /** The session's request had been applied at `index` before. */
  readonly repeated: boolean;
  readonly reply: Uint8Array | undefined;
}

/** What one entry changed; `changes` may be empty. */
export interface Commit {
  readonly index: number;
  readonly timeUs: number;
  readonly actor: string;
  readonly cause: string;
  readonly changes: readonly RawChange[];
}

/** Called inside `apply` and `finish`, after the state has changed. */
export interface MachineEvents {
  applied(commit: Commit): void;
  /** A snapshot replaced the state. */
  installed(): void;
  /** The time has come to compare: whoever leads proposes a HashReport. */
  hashDue(report: { readonly index: number; readonly hash: string }): void;
  /** Members disagree about the state at `index`: every member must report its own hash. */
  hashDisputed(report: { readonly index: number; readonly hash: string }): void;
}

export interface MachineOptions {
  readonly schema: Schema;
  readonly supportedLevel?: number;
  readonly limits?: Partial<MachineLimits>;
}

const entries = skep.store.Entry;

const own = {
  session: {
    number: sessionKind,
    codec: plainCodec<skep.store.Session>(skep.store.Session),
    indexes: {
      expiry: { unique: false, keys: (session: skep.store.Session) => orderedKey(session.activeAtUs + session.ttlUs) },
    },
    sinceLevel: 1,
  } satisfies TableSchema<skep.store.Session>,
  /** Ids are "session/number". */
  reply: {
    number: replyKind,
    codec: plainCodec<skep.store.Reply>(skep.store.Reply),
    indexes: {},
    sinceLevel: 1,
  } satisfies TableSchema<skep.store.Reply>,
  member: {
    number: memberKind,
    codec: plainCodec<skep.store.Member>(skep.store.Member),
    indexes: {},
    sinceLevel: 1,
  } satisfies TableSchema<skep.store.Member>,
};

/** Of the four last comparisons this member's own hash is remembered: reports may come late. */
const hashesKept = 4;

export class Machine {
  readonly catalog: Catalog;
  readonly cache: DecodeCache;
  readonly limits: MachineLimits;
  readonly supportedLevel: number;
  events: MachineEvents | undefined;
  hint: Hint | undefined;
  #state: State;
  readonly #hashes: { readonly index: number; readonly hash: string }[] = [];
  /** Where the scrub goes on. */
  #scrubKind = 0;
  #scrubId = "";

  constructor(options: MachineOptions) {
    this.catalog = new Catalog(options.schema, own);
    this.limits = { ...defaultLimits, ...options.limits };
    this.cache = new DecodeCache(this.limits.decodedMax);
    this.supportedLevel = options.supportedLevel ?? supportedLevel;
    this.#state = new State(this.catalog);
  }

  get index(): number {
    return this.#state.index;
  }

  get timeUs(): number {
    return this.#state.timeUs;
  }

  get level(): number {
    return this.#state.level;
  }

  freeze(): FrozenState {
    return this.#state.freeze();
  }

  stateHash(): string {
    return this.#state.hash();
  }

  /** @throws Incompatible, StateDiverged: the process must stop */
  apply(index: number, data: Uint8Array): ApplyResult {
    const state = this.#state;
    invariant(index > state.index, "entries are applied in order, once", { index, applied: state.index });
    const entry = this.#decode(index, data);
    const boundary = Math.floor(index / this.limits.hashEvery) > Math.floor(state.index / this.limits.hashEvery);
    state.touch();
    state.index = index;
    if (entry.timeUs > 0) {
      state.timeUs = Math.max(entry.timeUs, state.timeUs + 1);
      this.#expireSessions();
    }
    const changes: RawChange[] = [];
    const result = this.#dispatch(index, entry, changes);
    if (boundary) this.#rememberHash(index);
    this.events?.applied({ index, timeUs: state.timeUs, actor: entry.actor, cause: entry.cause, changes });
    if (boundary) this.#compare(index);
    return result;
  }

  /** Consensus members on record: their levels count, and their votes on state hashes. */
  recordedMembers(): number[] {
    return [...this.#state.table(memberKind).freeze().rows.keys()].map(Number);
  }

  snapshot(): SnapshotReader {
    return new SnapshotReader(this.catalog, this.#state.freeze());
  }

  restore(): RestoreSink {
    return new RestoreSink(this.catalog, this.supportedLevel, (state) => {
      this.#state = state;
      this.#hashes.length = 0;
      this.events?.installed();
    });
  }

  /** Whether `session` would take a request now; for refusing early. The entry decides. */
  replyTo(session: string, seq: number): ApplyResult | undefined {
    const kept = this.#state.table(replyKind).get(replyId(session, seq));
    return kept === undefined ? undefined : decodeReply(kept);
  }

  #decode(index: number, data: Uint8Array): skep.store.Entry {
    let entry: skep.store.Entry;
    try {
      // Of a Buffer, texts are read in one piece.
      entry = entries.decode(Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.length));
    } catch (error) {
      throw new Incompatible(`entry ${index}`, "it is not an entry of a store", error);
    }
    if (entry.level < 1 || entry.level > this.supportedLevel)
      throw new Incompatible(`entry ${index}`, `it needs feature level ${entry.level}, not ${this.supportedLevel}`);
    return entry;
  }

  #dispatch(index: number, entry: skep.store.Entry, changes: RawChange[]): ApplyResult {
    switch (entry.body) {
      case "transaction":
        return this.#transaction(index, entry, changes);
      case "openSession":
        return this.#openSession(index, entry.openSession?.ttlUs ?? 0);
      case "keepSession":
        return this.#keepSession(index, entry.keepSession?.id ?? "");
      case "closeSession":
        return this.#closeSession(index, entry.closeSession?.id ?? "");
      case "memberReport":
        return this.#memberReport(index, skep.store.MemberReport.create(entry.memberReport ?? {}));
      case "removeMember":
        this.#state.table(memberKind).remove(String(entry.removeMember?.member ?? 0));
        return done(index);
      case "raiseLevel":
        return this.#raiseLevel(index, entry.raiseLevel?.level ?? 0);
      case "hashReport":
        return this.#hashReport(index, skep.store.HashReport.create(entry.hashReport ?? {}));
      case undefined:
        break;
    }
    throw new Incompatible(`entry ${index}`, "it has no body that this version knows");
  }

  // --------------------------------------------------------------------------------------- transactions and sessions

  #transaction(index: number, entry: skep.store.Entry, changes: RawChange[]): ApplyResult {
    const state = this.#state;
    const transaction = entry.transaction ?? {};
    if (entry.session === "") {
      const refusal = this.#applyTransaction(transaction, index, changes);
      return refusal === undefined ? done(index) : refused(index, refusal);
    }
    const { session: id, seq } = entry;
    const session = this.#session(id);
    if (session === undefined) return refused(index, { code: "sessionExpired", id });
    const repeated = this.replyTo(id, seq);
    if (repeated !== undefined) return repeated;
    const { repliesMax, replyBytesMax } = this.limits;
    const ackedBelow = Math.max(session.ackedBelow, entry.ackedBelow);
    if (seq < 1 || seq < ackedBelow) return refused(index, { code: "sessionStale", id, number: seq });
    const acked = this.#replyIds(id, session.ackedBelow, ackedBelow);
    const replies = session.replies - acked.length + 1;
    if (replies > repliesMax) return refused(index, { code: "sessionLimit", kind: "replies", number: repliesMax });
    const reply = transaction.reply ?? new Uint8Array();
    if (reply.length > replyBytesMax)
      return refused(index, { code: "sessionLimit", kind: "reply bytes", number: replyBytesMax });
    const refusal = this.#applyTransaction(transaction, index, changes);
    for (const replyId of acked) state.table(replyKind).remove(replyId);
    const kept = refusal === undefined ? { index, reply: ownBytes(reply) } : { index, refusal: encodeRefusal(refusal) };
    this.#put(replyKind, replyId(id, seq), skep.store.Reply.encode(kept).finish());
    this.#putSession(id, { ...session, activeAtUs: state.timeUs, ackedBelow, replies });
    return { index, refusal, repeated: false, reply: refusal === undefined ? reply : undefined };
  }

  #applyTransaction(
    transaction: skep.store.Transaction.$Properties,
    index: number,
    changes: RawChange[],
  ): Refusal | undefined {
    const { catalog, hint } = this;
    return applyTransaction({ catalog, state: this.#state, hint }, transaction, index, changes);
  }

  #openSession(index: number, ttlUs: number): ApplyResult {
    const { sessionsMax } = this.limits;
    if (this.#state.table(sessionKind).size >= sessionsMax)
      return refused(index, { code: "sessionLimit", kind: "sessions", number: sessionsMax });
    this.#putSession(sessionId(index), { ttlUs, activeAtUs: this.#state.timeUs, ackedBelow: 0, replies: 0 });
    return done(index);
  }

  #keepSession(index: number, id: string): ApplyResult {
    const session = this.#session(id);
    if (session === undefined) return refused(index, { code: "sessionExpired", id });
    this.#putSession(id, { ...session, activeAtUs: this.#state.timeUs });
    return done(index);
  }

  #closeSession(index: number, id: string): ApplyResult {
    if (this.#session(id) === undefined) return refused(index, { code: "sessionExpired", id });
    this.#dropSession(id);
    return done(index);
  }

  /** Undefined also for a session that is past its time and waits to be removed. */
  #session(id: string): SessionFields | undefined {
    const stored = this.#state.table(sessionKind).get(id);
    if (stored === undefined) return undefined;
    const { ttlUs, activeAtUs, ackedBelow, replies } = skep.store.Session.decode(stored.briefBytes());
    if (activeAtUs + ttlUs < this.#state.timeUs) return undefined;
    return { ttlUs, activeAtUs, ackedBelow, replies };
  }

  #putSession(id: string, session: SessionFields): void {
    this.#put(sessionKind, id, skep.store.Session.encode(session).finish());
  }

  #dropSession(id: string): void {
    const replies = this.#replyIds(id, 0, Number.MAX_SAFE_INTEGER);
    for (const replyId of replies) this.#state.table(replyKind).remove(replyId);
    this.#state.table(sessionKind).remove(id);
  }

  #expireSessions(): void {
    const sessions = this.#state.table(sessionKind);
    for (let count = 0; count < expireMax; count++) {
      const key = sessions.firstKey(sessionExpiry);
      if (key === undefined || Number(key) >= this.#state.timeUs) return;
      const id = sessions.firstId(sessionExpiry, key);
      invariant(id !== undefined, "a key of an index leads to an object", { key });
      this.#dropSession(id);
    }
  }

  /** Of the requests `from` .. `below` - 1; there are at most repliesMax. */
  #replyIds(session: string, from: number, below: number): string[] {
    if (below <= from) return [];
    const { rows } = this.#state.table(replyKind).freeze();
    return [...rows.keys(replyId(session, from), replyId(session, below))];
  }

  // ---------------------------------------------------------------------------------- members, levels, state hashes

  #member(id: string): MemberFields {
    const stored = this.#state.table(memberKind).get(id);
    if (stored === undefined) return { level: 0, hashIndex: 0, hash: "" };
    const { level, hashIndex, hash } = skep.store.Member.decode(stored.briefBytes());
    return { level, hashIndex, hash };
  }

  #putMember(id: string, member: MemberFields): void {
    this.#put(memberKind, id, skep.store.Member.encode(member).finish());
  }

  #members(): MemberFields[] {
    return this.recordedMembers().map((id) => this.#member(String(id)));
  }

  #memberReport(index: number, { member, level }: skep.store.MemberReport): ApplyResult {
    this.#putMember(String(member), { ...this.#member(String(member)), level });
    return done(index);
  }

  #raiseLevel(index: number, level: number): ApplyResult {
    if (level <= this.#state.level) return done(index);
    const lowest = this.#members().reduce((least, member) => Math.min(least, member.level), Infinity);
    if (!(lowest >= level && lowest < Infinity)) {
      const found = lowest === Infinity ? "no member has reported its own" : `a member understands ${lowest} only`;
      return refused(index, { code: "level", number: level, holder: found });
    }
    if (level > this.supportedLevel)
      throw new Incompatible(`entry ${index}`, `it raises the cluster to level ${level}, above ${this.supportedLevel}`);
    this.#state.level = level;
    return done(index);
  }

  /**
   * Reports are votes: while they agree nothing happens. When two differ, every member adds its own, and whoever is
   * outvoted by a majority of the members stops. Without a majority nobody knows who is wrong, and nobody stops.
   */
  #hashReport(index: number, report: skep.store.HashReport): ApplyResult {
    const id = String(report.member);
    // Only members vote, so that the table stays as small as the cluster.
    if (this.#state.table(memberKind).get(id) === undefined) return done(index);
    this.#putMember(id, { ...this.#member(id), hashIndex: report.index, hash: report.hash });
    const votes = this.#members().filter((member) => member.hashIndex === report.index);
    const mine = this.#hashes.find(({ index }) => index === report.index);
    if (mine === undefined || votes.every(({ hash }) => hash === mine.hash)) return done(index);
    const quorum = Math.floor(this.#state.table(memberKind).size / 2) + 1;
    for (const { hash } of votes)
      if (hash !== mine.hash && votes.filter((vote) => vote.hash === hash).length >= quorum)
        throw new StateDiverged(report.index, hash, mine.hash);
    this.events?.hashDisputed(mine);
    return done(index);
  }

  /** The entry as of which the state was hashed last, to be compared with the others'; 0 before the first time. */
  get hashedIndex(): number {
    return this.#hashes.at(-1)?.index ?? 0;
  }

  #rememberHash(index: number): void {
    this.#hashes.push({ index, hash: this.#state.hash() });
    if (this.#hashes.length > hashesKept) this.#hashes.shift();
  }

  #compare(index: number): void {
    this.#scrub(index);
    const report = this.#hashes.at(-1);
    if (report !== undefined) this.events?.hashDue(report);
  }

  /**
   * The state hash is kept by adding and taking away, so it does not see a bit that flips in memory. This does, for the
   * next few objects in turn: a store of `scrubObjects` is covered at every comparison, a larger one after several.
   */
  #scrub(index: number): void {
    const { kinds } = this.catalog;
    let objects = 0;
    let bytes = 0;
    for (let step = 0; step <= kinds.length; step++) {
      const kind = kinds[this.#scrubKind % kinds.length];
      invariant(kind !== undefined, "there is a kind");
      const cursor = this.#state.table(kind.table.number).freeze().rows.cursor(this.#scrubId);
      while (cursor.next()) {
        const object = cursor.value;
        if (!object.intact())
          throw new StateDiverged(index, "that of the bytes once stored", `another, at ${kind.name} "${object.id}"`);
        objects++;
        bytes += object.sizeBytes;
        // The least text above this one: the next pass starts behind it.
        this.#scrubId = `${object.id}\0`;
        if (objects >= this.limits.scrubObjects || bytes >= this.limits.scrubBytes) return;
      }
      this.#scrubKind = (this.#scrubKind + 1) % kinds.length;
      this.#scrubId = "";
    }
  }

  /** An object of the store's own. */
  #put(kind: number, id: string, encoded: Uint8Array): void {
    const state = this.#state;
    const { index, timeUs } = state;
    const table = state.table(kind);
    const before = table.get(id);
    const bytes = ownBytes(encoded);
    const digest: Digest = { a: 0, b: 0 };
    digestBytes(digest, bytes);
    const meta = { version: index, createdAtUs: before?.createdAtUs ?? timeUs, updatedAtUs: timeUs };
    const keys = keysOf(table.schema, bytes, id, meta);
    table.put(new StoredObject(id, { body: bytes, common: "" }, meta, digest, keys));
  }
}

interface SessionFields {
  readonly ttlUs: number;
  readonly activeAtUs: number;
  readonly ackedBelow: number;
  readonly replies: number;
}

interface MemberFields {
  readonly level: number;
  readonly hashIndex: number;
  readonly hash: string;
}

/** The index of the entry that opened it names a session. */
export const sessionId = (index: number): string => `s${index}`;

const replyId = (session: string, seq: number): string => `${session}/${orderedKey(seq)}`;

function decodeReply(stored: StoredObject): ApplyResult {
  const { index, reply, refusal } = skep.store.Reply.decode(stored.bytes());
  if (refusal !== null && refusal !== undefined)
    return { index, refusal: decodeRefusal(refusal), repeated: true, reply: undefined };
  return { index, refusal: undefined, repeated: true, reply: ownBytes(reply) };
}

const done = (index: number): ApplyResult => ({ index, refusal: undefined, repeated: false, reply: undefined });
const refused = (index: number, refusal: Refusal): ApplyResult => ({
  index,
  refusal,
  repeated: false,
  reply: undefined,
});
