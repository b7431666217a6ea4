/**
 * What the store must be told about a kind of object: how it is encoded, and by which keys it is found.
 * A schema is part of the replicated contract: keys and uniqueness are judged again on every member when an entry is
 * applied, so a change of either needs a higher feature level.
 */

/** What every object carries; kept by the store beside the encoded object and filled in when it is decoded. */
export interface Meta {
  /** Log index of the object's last change. 0 in a transaction, for a change that has no place in the log yet. */
  readonly version: number;
  /** Microseconds since 1970, assigned by the leader, strictly increasing from entry to entry. */
  readonly createdAtUs: number;
  readonly updatedAtUs: number;
}

/** Turns objects into bytes and back. Both are total on what they produce themselves; `decode` throws on foreign bytes. */
export interface Codec<Out, In> {
  /** Without id and meta: the store keeps those itself. */
  encode(object: In): Uint8Array;
  /** The same in a buffer that the next call overwrites, where that is cheaper: for a caller that copies it at once. */
  encodeBriefly?(object: In): Uint8Array;
  /** A fresh object of the caller's, with id and meta set. */
  decode(bytes: Uint8Array, id: string, meta: Meta): Out;
}

export interface IndexSchema<Keyed> {
  /** At most one object may have a key; a second one is refused with NAME_IN_USE. */
  readonly unique: boolean;
  /** Pure. No key: the object is not in this index. */
  readonly keys: (object: Keyed) => string | readonly string[] | undefined;
}

/** `Keyed`: what the index functions read; an object, or the part of one that `skim` decodes. */
export interface TableSchema<Out = unknown, In = Out, Index extends string = string, Keyed = Out> {
  /** Stands for the kind in the log and in snapshots; never reused. 1 .. 999. */
  readonly number: number;
  readonly codec: Codec<Out, In>;
  readonly indexes: Readonly<Record<Index, IndexSchema<Keyed>>>;
  /** Decodes no more than the index functions need. Without it they get the whole object. */
  readonly skim?: (bytes: Uint8Array) => Keyed;
  /**
   * A copy for an edit, one level deep, of an object that is frozen: for kinds of which whoever edits them replaces whole
   * fields. Without it the object is decoded afresh.
   */
  readonly copy?: (object: unknown) => unknown;
  /** There may be very many. What is decoded of them keeps nothing of the bytes that it was decoded from. */
  readonly isCompact?: boolean;
  /**
   * Of a compact kind: where, in an encoded object, the part begins that others are likely to have just so; its length where
   * there is none. Such parts are kept once. It is a matter of memory alone: any answer is right.
   */
  readonly commonFrom?: (bytes: Uint8Array) => number;
  /** The feature level that brought the kind; entries that name it are refused below. */
  readonly sinceLevel: number;
}

// Codec parameters are contravariant: only `never` and `any` accept every table, and `any` would leak into callers.
// eslint-disable-next-line typescript/no-explicit-any
type AnyTable = TableSchema<any, any>;

export type Schema = Readonly<Record<string, AnyTable>>;

/** The names of a schema's kinds. */
export type Kind<S extends Schema> = keyof S & string;
/** What is read. Frozen, at every depth. */
export type Out<S extends Schema, K extends Kind<S>> =
  S[K] extends TableSchema<infer O, infer _In, infer _Index, infer _Keyed> ? Readonly<O> : never;
/** What may be written. */
export type In<S extends Schema, K extends Kind<S>> =
  S[K] extends TableSchema<infer _O, infer I, infer _Index, infer _Keyed> ? Readonly<I> : never;
export type IndexOf<S extends Schema, K extends Kind<S>> = keyof S[K]["indexes"] & string;
