/**
 * The words of the store's door: outcomes, watches, and the log that the store is handed. Behaviour is described here
 * once; the classes behind implement it.
 */
import type { Kind, Schema } from "./core/schema.ts";
import type { Change, SessionRequest, Tx, View } from "./core/words.ts";
import type { OutcomeUnknown } from "./core/errors.ts";

export interface UpdateOptions {
  /** Who changes: "user/alice", "scheduler". Kept with the change in the log and shown by watches. */
  readonly actor: string;
  /** Why: "service update", "node worker-3 is down". */
  readonly cause: string;
  /** Makes a retry harmless: the same (session, seq) takes effect once and answers with the first result. */
  readonly session?: SessionRequest;
  readonly signal?: AbortSignal;
}

/**
 * committed: durable on a quorum and applied here. failed: certainly without effect, now and later.
 * unknown: may have taken effect, or may yet; only reading, or repeating under a session, tells.
 */
export type Outcome<T> =
  | ({ readonly kind: "committed" } & Committed<T>)
  /** An UpdateFailed, or what the update function threw. */
  | { readonly kind: "failed"; readonly error: Error }
  | { readonly kind: "unknown"; readonly error: OutcomeUnknown };

export interface Committed<T> {
  /** The entry's place in the log, and the version of every object that it changed. */
  readonly index: number;
  /** What the update function returned; for a repeated session request, undefined. */
  readonly result: T;
  /** The session's request had been applied before; `reply` is what was answered then. */
  readonly repeated: boolean;
  readonly reply: Uint8Array | undefined;
}

// ------------------------------------------------------------------------------------------------------------------ watch

/**
 * "view": forget what you knew; this is everything, and what follows comes after it.
 *   start      the watch begins here
 *   behind     the watcher was too slow, or asked for a version that is no longer kept
 *   installed  a snapshot replaced the state
 * "changes": in commit order, entries whole, each exactly once.
 */
export type WatchEvent<S extends Schema> =
  | { readonly kind: "view"; readonly reason: "start" | "behind" | "installed"; readonly view: View<S> }
  | { readonly kind: "changes"; readonly index: number; readonly changes: readonly Change<S>[] };

export interface WatchOptions<S extends Schema> {
  /** Default: all. */
  readonly kinds?: readonly Kind<S>[];
  /** Keeps a change when it is true; asked for changes of `kinds` only. */
  readonly filter?: (change: Change<S>) => boolean;
  /** Every change after this log index, if they are all still kept. Default: a view of now, then what follows. */
  readonly since?: number;
  /** A batch is handed out when it reaches this many changes. Default 1,000; a single entry is never cut. */
  readonly batchMax?: number;
  readonly signal?: AbortSignal;
}

/** One reader's place in the stream of commits. Leaving the loop closes it; so do `close()` and the signal. */
export interface Watch<S extends Schema> extends AsyncDisposable {
  /** The next event if there is one now. For readers that are driven, not awaited (the simulator). */
  poll(): WatchEvent<S> | undefined;
  /** Runs once, when `poll` has something, or at close; at once if that is so already. One waiter at a time. */
  whenReady(ready: () => void): void;
  readonly closed: boolean;
  close(): void;
  [Symbol.asyncIterator](): AsyncIterator<WatchEvent<S>, void>;
}

// -------------------------------------------------------------------------------------------------------------------- log

/** Why a proposal certainly never enters the log, or why nobody knows. */
export type ProposeOutcome =
  /** `result` is what the state machine's `apply` returned here. */
  | { readonly kind: "committed"; readonly index: number; readonly result: unknown }
  | { readonly kind: "notLeader"; readonly leader: string | undefined }
  | { readonly kind: "backpressure"; readonly retryAfterMs: number }
  | { readonly kind: "stopped" }
  | { readonly kind: "unknown"; readonly cause: string };

export type ReadIndexOutcome =
  | { readonly kind: "applied"; readonly index: number }
  | { readonly kind: "notLeader"; readonly leader: string | undefined }
  | { readonly kind: "stopped" };

export interface Leadership {
  /**
   * True from when this member has applied the opening entry of its own term (so that everything committed before is
   * in the state) until it steps down.
   */
  readonly leading: boolean;
  readonly term: number;
  /** How to reach who leads, if that is known; handed to callers who were refused. */
  readonly leader: string | undefined;
}

/**
 * The replicated log, as the store needs it. Callbacks run once each, never inside the call that took them; entries
 * proposed by one member enter the log in the order of the calls.
 */
export interface ReplicatedLog {
  propose(data: Uint8Array, done: (outcome: ProposeOutcome) => void): void;
  /**
   * Calls back when this member has applied everything that was acknowledged before the call (Raft thesis §6.4).
   * Followers ask the leader.
   */
  readIndex(done: (outcome: ReadIndexOutcome) => void): void;
  /** Best effort: hands an entry to the leader on behalf of this member (a vote on a state hash). */
  forward(data: Uint8Array): void;
  leadership(): Leadership;
  /** @returns what ends it */
  onLeadership(listener: (leadership: Leadership) => void): () => void;
}

// ------------------------------------------------------------------------------------------------------------------ store

/** What the rooms of a manager hold. */
export interface Store<S extends Schema> {
  /** What this member has applied: never uncommitted, possibly behind the leader. Ask `read` where that matters. */
  current(): View<S>;
  view<T>(look: (view: View<S>) => T): T;
  /** Linearizable: sees everything acknowledged before the call, on any member. */
  read<T>(look: (view: View<S>) => T, signal?: AbortSignal): Promise<T>;
  /**
   * Runs `change` at once, proposes what it changed as one entry, and resolves when that is applied here. Many may be
   * in flight; each sees those before it. When nothing was changed, resolves when everything that was seen is
   * committed.
   * Under a session, bytes that `change` returns are kept as the reply.
   * @throws UpdateFailed (certainly no effect), OutcomeUnknown (perhaps; also after an abort), or what `change` threw
   */
  update<T>(change: (tx: Tx<S>) => T, options: UpdateOptions): Promise<Committed<T>>;
  /** The same with a callback, for callers that are driven. `done` runs once, never inside the call. */
  transact<T>(change: (tx: Tx<S>) => T, options: UpdateOptions, done: (outcome: Outcome<T>) => void): void;
  watch(options?: WatchOptions<S>): Watch<S>;
  /** Opens a session of numbered requests. @throws SessionLimit and what `update` throws */
  openSession(options: SessionOptions): Promise<string>;
  /** @throws SessionExpired and what `update` throws */
  keepSession(id: string, signal?: AbortSignal): Promise<void>;
  closeSession(id: string, signal?: AbortSignal): Promise<void>;
  /** What every member understands; a kind or entry of a higher level is refused. */
  readonly featureLevel: number;
  leadership(): Leadership;
  onLeadership(listener: (leadership: Leadership) => void): () => void;
}

export interface SessionOptions {
  /** Without a request for so long, by the log's clock, the session is forgotten with its replies. */
  readonly ttlMs: number;
  readonly signal?: AbortSignal;
}
