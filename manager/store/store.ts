/**
 * The store of one manager: the state machine, the log that it is handed, and what the rooms do with both. It decides
 * nothing that the other members must decide alike; that is the machine's.
 */
import { invariant } from "../../lib/pure/errors.ts";
import { encodeInRow, skep } from "../../proto/index.ts";
import type {
  Committed,
  Leadership,
  Outcome,
  ProposeOutcome,
  ReplicatedLog,
  SessionOptions,
  Store,
  UpdateOptions,
  Watch,
  WatchOptions,
} from "./api.ts";
import type { ChangeLogLimits } from "./core/change-log.ts";
import {
  Backpressure,
  Conflict,
  EntryTooLarge,
  LevelRefused,
  NotLeader,
  OutcomeUnknown,
  StoreClosed,
} from "./core/errors.ts";
import { Machine, sessionId, type ApplyResult, type MachineLimits } from "./core/machine.ts";
import { Overlay } from "./core/overlay.ts";
import { PendingTransaction } from "./core/pending-transaction.ts";
import { refusalError } from "./core/refusal.ts";
import type { Schema } from "./core/schema.ts";
import { StateView } from "./core/view.ts";
import type { Tx, View } from "./core/words.ts";
import { WatchHub } from "./watch.ts";

/** What an entry may take: the log moves and stores entries whole. */
export const entryBytesMax = 1024 * 1024;

export interface ObjectStoreOptions<S extends Schema> {
  readonly schema: S;
  /** Wall clock in microseconds. It may jump: the log's time still grows. */
  readonly nowUs: () => number;
  /** The consensus member that this store belongs to: it signs this member's state hashes. */
  readonly member: number;
  /** Two state hashes differ; heard once for each comparison. Whoever is outvoted stops by itself. */
  readonly onHashDisputed?: (report: { readonly index: number; readonly hash: string }) => void;
  /** Only for tests of mixed versions. */
  readonly supportedLevel?: number;
  readonly limits?: Partial<MachineLimits>;
  readonly watchLimits?: ChangeLogLimits;
}

type EntryBody = Pick<
  skep.store.Entry.$Properties,
  | "transaction"
  | "openSession"
  | "keepSession"
  | "closeSession"
  | "memberReport"
  | "removeMember"
  | "raiseLevel"
  | "hashReport"
>;

/** Something that waits for every update proposed before it. */
interface Waiter {
  readonly after: number;
  readonly generation: number;
  readonly act: (stillTrue: boolean) => void;
}

const own = { actor: "manager", cause: "store" };

export class ObjectStore<S extends Schema> implements Store<S>, AsyncDisposable {
  /** For the log: it applies committed entries here, and takes and installs snapshots. */
  readonly machine: Machine;
  readonly #options: ObjectStoreOptions<S>;
  readonly #hub: WatchHub<S>;
  #log: ReplicatedLog | undefined;
  #stopListening: (() => void) | undefined;
  /** What is proposed and not applied yet. Only a leader has any. */
  readonly #inFlight = new Overlay();
  /** Numbers of the proposals in flight, ascending. */
  readonly #proposals = new Set<number>();
  #lastProposal = 0;
  /** Grows whenever something in flight turned out not to happen: who has seen it has seen too much. */
  #generation = 0;
  readonly #waiters: Waiter[] = [];
  #answers: (() => void)[] = [];
  #lastTimeUs = 0;
  #lastDisputed = 0;
  #view: { readonly of: unknown; readonly view: View<S> } | undefined;
  #closed = false;

  constructor(options: ObjectStoreOptions<S>) {
    this.#options = options;
    this.machine = new Machine(options);
    this.#hub = new WatchHub<S>({ cache: this.machine.cache, current: () => this.current() }, 0, options.watchLimits);
    this.machine.hint = (kind, id, stampUs) => {
      const pending = this.#inFlight.get(kind, id);
      return pending?.stampUs === stampUs ? pending.object : undefined;
    };
    this.machine.events = {
      applied: (commit) => this.#hub.push(commit),
      installed: () => {
        this.#abandon();
        this.#hub.reset(this.machine.index);
      },
      hashDue: (report) => this.#afterApply(() => this.#reportHash(report)),
      hashDisputed: (report) => this.#afterApply(() => this.#disputed(report)),
    };
  }

  /** Introduces the log. Once, before anything is asked of the store. */
  attach(log: ReplicatedLog): void {
    invariant(this.#log === undefined, "a store has one log");
    this.#log = log;
    this.#stopListening = log.onLeadership(({ leading }) => {
      if (!leading) this.#abandon();
    });
  }

  // -------------------------------------------------------------------------------------------------------- reading

  current(): View<S> {
    const state = this.machine.freeze();
    if (this.#view?.of !== state)
      this.#view = { of: state, view: new StateView<S>(this.machine.catalog, this.machine.cache, state) };
    return this.#view.view;
  }

  view<T>(look: (view: View<S>) => T): T {
    return look(this.current());
  }

  read<T>(look: (view: View<S>) => T, signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      signal?.throwIfAborted();
      const abort = (): void => reject(signal?.reason as Error);
      signal?.addEventListener("abort", abort, { once: true });
      this.#attached().readIndex((outcome) => {
        signal?.removeEventListener("abort", abort);
        try {
          if (outcome.kind === "notLeader") throw new NotLeader(outcome.leader);
          if (outcome.kind === "stopped" || this.#closed) throw new StoreClosed();
          resolve(look(this.current()));
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  watch(options: WatchOptions<S> = {}): Watch<S> {
    if (this.#closed) throw new StoreClosed();
    return this.#hub.open(options);
  }

  // -------------------------------------------------------------------------------------------------------- writing

  update<T>(change: (tx: Tx<S>) => T, options: UpdateOptions): Promise<Committed<T>> {
    return settled<T>(options.signal, (done) => this.transact(change, options, done));
  }

  transact<T>(change: (tx: Tx<S>) => T, options: UpdateOptions, done: (outcome: Outcome<T>) => void): void {
    const fail = (error: Error): void => queueMicrotask(() => done({ kind: "failed", error }));
    const refusal = this.#refusal();
    if (refusal !== undefined) return fail(refusal);
    const { session } = options;
    const firstAnswer = (): Outcome<T> | undefined => {
      const first = session === undefined ? undefined : this.machine.replyTo(session.id, session.seq);
      return first === undefined ? undefined : outcomeOf(first, undefined as T);
    };
    const repeated = firstAnswer();
    if (repeated !== undefined) return queueMicrotask(() => done(repeated));

    const timeUs = this.#nextTimeUs();
    const { catalog, cache } = this.machine;
    const tx = new PendingTransaction<S>(catalog, cache, this.machine.freeze(), { inFlight: this.#inFlight, timeUs });
    let result: T;
    try {
      result = change(tx);
      invariant(!(result instanceof Promise), "an update function does not wait");
    } catch (error) {
      // What made it throw may have been a change that never comes to be, or the very same request, asked for the second
      // time while the first was under way: by now that has its answer (L1).
      return this.#whenTrue(
        () => done(firstAnswer() ?? { kind: "failed", error: error as Error }),
        (untrue) => done(firstAnswer() ?? { kind: "failed", error: untrue }),
      );
    } finally {
      tx.close();
    }
    if (tx.isEmpty && session === undefined) {
      const answer = { kind: "committed", result, repeated: false, reply: undefined } as const;
      return this.#whenTrue(
        () => done({ ...answer, index: this.machine.index }),
        (untrue) => done({ kind: "failed", error: untrue }),
      );
    }
    if (tx.level > this.machine.level)
      return fail(new LevelRefused(tx.level, `the cluster is at ${this.featureLevel}`));
    const transaction = tx.encode();
    if (session !== undefined && result instanceof Uint8Array) transaction.reply = result;
    const data = encodeEntry(tx.level, timeUs, options, { transaction });
    if (data.length > entryBytesMax) return fail(new EntryTooLarge(data.length, entryBytesMax, tx.size));

    tx.publish(this.#inFlight);
    const number = ++this.#lastProposal;
    this.#proposals.add(number);
    this.#attached().propose(data, (proposed) => {
      const outcome = decide(proposed, result);
      if (outcome.kind !== "committed" || outcome.repeated) this.#generation++;
      tx.settle(this.#inFlight);
      this.#settle(number);
      this.#answer(() => done(outcome));
    });
  }

  openSession(options: SessionOptions): Promise<string> {
    const body = { openSession: { ttlUs: options.ttlMs * 1000 } };
    return this.#command(body, options.signal).then(({ index }) => sessionId(index));
  }

  async keepSession(id: string, signal?: AbortSignal): Promise<void> {
    await this.#command({ keepSession: { id } }, signal);
  }

  async closeSession(id: string, signal?: AbortSignal): Promise<void> {
    await this.#command({ closeSession: { id } }, signal);
  }

  // ------------------------------------------------------------------------------------------------ for manager.ts

  get featureLevel(): number {
    return this.machine.level;
  }

  /** Records what a member understands; before it counts for quorums, and after each upgrade. */
  async reportMember(report: { readonly member: number; readonly level: number }, signal?: AbortSignal): Promise<void> {
    await this.#command({ memberReport: report }, signal);
  }

  async removeMember(member: number, signal?: AbortSignal): Promise<void> {
    await this.#command({ removeMember: { member } }, signal);
  }

  /** Lets the cluster use what level `level` brings. @throws LevelRefused while a member does not understand it */
  async raiseLevel(level: number, signal?: AbortSignal): Promise<void> {
    await this.#command({ raiseLevel: { level } }, signal);
  }

  leadership(): Leadership {
    return this.#attached().leadership();
  }

  onLeadership(listener: (leadership: Leadership) => void): () => void {
    return this.#attached().onLeadership(listener);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#stopListening?.();
    this.#stopListening = undefined;
    this.#hub.closeAll();
    return Promise.resolve();
  }

  // --------------------------------------------------------------------------------------------------------- inside

  #attached(): ReplicatedLog {
    invariant(this.#log !== undefined, "the store has its log");
    return this.#log;
  }

  #refusal(): Error | undefined {
    if (this.#closed) return new StoreClosed();
    const { leading, leader } = this.#attached().leadership();
    return leading ? undefined : new NotLeader(leader);
  }

  /** Later than every entry applied and every one proposed here, whatever the wall clock says. */
  #nextTimeUs(): number {
    this.#lastTimeUs = Math.max(this.machine.timeUs + 1, this.#lastTimeUs + 1, Math.floor(this.#options.nowUs()));
    return this.#lastTimeUs;
  }

  #command(body: EntryBody, signal: AbortSignal | undefined): Promise<Committed<void>> {
    return settled<void>(signal, (done) => {
      const refusal = this.#refusal();
      if (refusal !== undefined) return queueMicrotask(() => done({ kind: "failed", error: refusal }));
      const data = encodeEntry(1, this.#nextTimeUs(), own, body);
      this.#attached().propose(data, (proposed) => done(decide(proposed, undefined)));
    });
  }

  /** Whatever was in flight may still be committed, but nothing new may be built on it. */
  #abandon(): void {
    this.#generation++;
    this.#inFlight.clear();
  }

  #settle(number: number): void {
    this.#proposals.delete(number);
    const [oldest = Infinity] = this.#proposals;
    while (this.#waiters[0] !== undefined && this.#waiters[0].after < oldest) {
      const { generation, act } = this.#waiters.shift() as Waiter;
      act(generation === this.#generation);
    }
  }

  /**
   * Callers are told when all entries of a turn are applied: what they propose next is then built on one frozen state,
   * where each state of its own would cost a copy of the paths that changed.
   */
  #answer(tell: () => void): void {
    this.#answers.push(tell);
    if (this.#answers.length > 1) return;
    queueMicrotask(() => {
      const answers = this.#answers;
      this.#answers = [];
      for (const answer of answers) answer();
    });
  }

  /** Runs `act` when everything that the caller has seen is committed, or `otherwise` when some of it is not to be. */
  #whenTrue(act: () => void, otherwise: (error: Error) => void): void {
    const run = (stillTrue: boolean): void => {
      if (stillTrue) act();
      else otherwise(this.#refusal() ?? new Conflict("objects", "in flight"));
    };
    if (this.#inFlight.isEmpty) queueMicrotask(() => run(true));
    else this.#waiters.push({ after: this.#lastProposal, generation: this.#generation, act: run });
  }

  /** The machine calls from inside `apply`; proposing there would be a step into the log's own turn. */
  #afterApply(act: () => void): void {
    queueMicrotask(() => {
      if (!this.#closed && this.#log !== undefined) act();
    });
  }

  #reportHash(report: { readonly index: number; readonly hash: string }): void {
    if (!this.#attached().leadership().leading) return;
    // A report that is lost is made up for by the next comparison.
    this.#attached().propose(this.#hashEntry(report), () => {});
  }

  #disputed(report: { readonly index: number; readonly hash: string }): void {
    if (report.index <= this.#lastDisputed) return;
    this.#lastDisputed = report.index;
    this.#options.onHashDisputed?.(report);
    if (this.#attached().leadership().leading) this.#reportHash(report);
    else this.#attached().forward(this.#hashEntry(report));
  }

  #hashEntry(report: { readonly index: number; readonly hash: string }): Uint8Array {
    return encodeEntry(1, 0, own, { hashReport: { member: this.#options.member, ...report } });
  }
}

function encodeEntry(
  level: number,
  timeUs: number,
  options: Pick<UpdateOptions, "actor" | "cause" | "session">,
  body: EntryBody,
): Uint8Array {
  const { actor, cause, session } = options;
  const numbered =
    session === undefined ? {} : { session: session.id, seq: session.seq, ackedBelow: session.ackedBelow };
  return encodeInRow(skep.store.Entry, { level, timeUs, actor, cause, ...numbered, ...body });
}

function decide<T>(proposed: ProposeOutcome, result: T): Outcome<T> {
  switch (proposed.kind) {
    case "committed":
      // The machine's own result, as the log promises to hand it back.
      return outcomeOf(proposed.result as ApplyResult, result);
    case "notLeader":
      return { kind: "failed", error: new NotLeader(proposed.leader) };
    case "backpressure":
      return { kind: "failed", error: new Backpressure(proposed.retryAfterMs) };
    case "stopped":
      return { kind: "failed", error: new StoreClosed() };
    case "unknown":
      break;
  }
  return { kind: "unknown", error: new OutcomeUnknown(proposed.cause) };
}

function outcomeOf<T>(applied: ApplyResult, result: T): Outcome<T> {
  const { index, refusal, repeated, reply } = applied;
  if (refusal !== undefined) return { kind: "failed", error: refusalError(refusal) };
  return { kind: "committed", index, result: repeated ? (undefined as T) : result, repeated, reply };
}

/** A promise of what `start` calls back with. Giving up waiting does not undo: the outcome is then unknown. */
function settled<T>(
  signal: AbortSignal | undefined,
  start: (done: (outcome: Outcome<T>) => void) => void,
): Promise<Committed<T>> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const abort = (): void => reject(new OutcomeUnknown("the caller stopped waiting", signal?.reason));
    signal?.addEventListener("abort", abort, { once: true });
    start((outcome) => {
      signal?.removeEventListener("abort", abort);
      if (outcome.kind === "committed") {
        const { index, result, repeated, reply } = outcome;
        resolve({ index, result, repeated, reply });
      } else {
        reject(outcome.error);
      }
    });
  });
}
