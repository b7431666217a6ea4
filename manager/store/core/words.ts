/** The words of views, transactions and changes. Behaviour is described here once; the classes beside implement it. */
import type { In, IndexOf, Kind, Out, Schema } from "./schema.ts";
import type { ChangeAct } from "./transaction.ts";

/** Limits of a list or an iteration; both ends optional. */
export interface Range {
  /** Inclusive. */
  readonly from?: string;
  /** Exclusive. */
  readonly to?: string;
}

/** All objects at one moment. Immutable: stays as it is while writes go on. Taken in O(kinds). */
export interface View<S extends Schema> {
  /** Log index of the last entry that this view contains. */
  readonly index: number;
  /** The leader's time of that entry, microseconds since 1970. */
  readonly timeUs: number;
  get<K extends Kind<S>>(kind: K, id: string): Out<S, K> | undefined;
  has(kind: Kind<S>, id: string): boolean;
  count(kind: Kind<S>): number;
  /** Ascending by id. */
  list<K extends Kind<S>>(kind: K, range?: Range): IterableIterator<Out<S, K>>;
  /** Objects with this key, ascending by id. */
  find<K extends Kind<S>>(kind: K, index: IndexOf<S, K>, key: string): IterableIterator<Out<S, K>>;
  /** The first of `find`; for unique indexes, the only one. */
  first<K extends Kind<S>>(kind: K, index: IndexOf<S, K>, key: string): Out<S, K> | undefined;
  /** How many objects have this key; O(log n). */
  countBy<K extends Kind<S>>(kind: K, index: IndexOf<S, K>, key: string): number;
  /** The distinct keys of an index, ascending. */
  keys<K extends Kind<S>>(kind: K, index: IndexOf<S, K>): IterableIterator<string>;
}

/**
 * What an update function sees and does. Reads see the function's own writes and those of the updates in flight before
 * it. Every object written carries the precondition that nobody else has changed it since it was read here.
 */
export interface Tx<S extends Schema> extends View<S> {
  /** The time that this change will carry, if it commits. */
  readonly timeUs: number;
  /** @throws ObjectExists, NameInUse */
  create<K extends Kind<S>>(kind: K, object: In<S, K> & { readonly id: string }): void;
  /** Replaces an object. @throws ObjectNotFound, NameInUse */
  update<K extends Kind<S>>(kind: K, object: In<S, K> & { readonly id: string }): void;
  /** Replaces or creates. @throws NameInUse */
  put<K extends Kind<S>>(kind: K, object: In<S, K> & { readonly id: string }): void;
  /** Hands `change` a copy of its own to alter, and writes it. @throws ObjectNotFound, NameInUse */
  edit<K extends Kind<S>>(kind: K, id: string, change: (draft: Mutable<Out<S, K>>) => void): void;
  /** @throws ObjectNotFound */
  remove(kind: Kind<S>, id: string): void;
  /**
   * Makes the commit depend on an object that is read and not written: it must still be as it is seen here, absence
   * included.
   */
  guard(kind: Kind<S>, id: string): void;
  /**
   * The caller's own condition, as the API's `version` query asks it: the object was last changed at this log index.
   * @throws VersionConflict, ObjectNotFound
   */
  expectVersion(kind: Kind<S>, id: string, version: number): void;
}

export type Mutable<T> = { -readonly [P in keyof T]: T[P] };

export interface SessionRequest {
  readonly id: string;
  /** 1, 2, 3 ... chosen by the client; a retry repeats it. */
  readonly seq: number;
  /** Every reply below this has been received and may be forgotten. At most `seq`. */
  readonly ackedBelow: number;
}

export type Change<S extends Schema> = { readonly [K in Kind<S>]: ChangeOf<S, K> }[Kind<S>];

/** One object's change by one entry; several changes of one object in an entry are one. */
export interface ChangeOf<S extends Schema, K extends Kind<S>> {
  readonly kind: K;
  readonly act: ChangeAct;
  readonly id: string;
  /** Log index of the entry. */
  readonly index: number;
  readonly timeUs: number;
  readonly actor: string;
  readonly cause: string;
  /** Undefined for a creation. Decoded when first read. */
  readonly before: Out<S, K> | undefined;
  /** Undefined for a removal. Decoded when first read. */
  readonly after: Out<S, K> | undefined;
}
