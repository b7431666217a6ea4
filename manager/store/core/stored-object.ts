/** One object as the tables hold it: encoded bytes outside the JavaScript heap, decoded when somebody looks. */
import { digestBytes, digestNumber, digestText, finishDigest, type Digest } from "./hash.ts";
import type { Meta, TableSchema } from "./schema.ts";

/** The keys of one object in one index: none, one, or several (sorted, distinct). */
export type IndexKeys = undefined | string | readonly string[];

const scratch: Digest = { a: 0, b: 0 };

export class StoredObject {
  readonly id: string;
  /** Owned: no other object, log entry or caller shares the buffer. */
  readonly bytes: Uint8Array;
  /** Log index of the last change; 0 while it has none. */
  readonly version: number;
  readonly createdAtUs: number;
  /** Also the object's stamp: no two changes in the log have the same, so a precondition can name it before commit. */
  readonly updatedAtUs: number;
  /** One for each index of the table, in the schema's order. */
  readonly keys: readonly IndexKeys[];
  /** Digest of `bytes` when they were stored: what a scrub compares with. */
  readonly digestA: number;
  readonly digestB: number;
  /** Kept or dropped by DecodeCache alone. */
  decoded: unknown = undefined;

  constructor(id: string, bytes: Uint8Array, meta: Meta, digest: Digest, keys: readonly IndexKeys[]) {
    this.id = id;
    this.bytes = bytes;
    this.version = meta.version;
    this.createdAtUs = meta.createdAtUs;
    this.updatedAtUs = meta.updatedAtUs;
    this.keys = keys;
    this.digestA = digest.a;
    this.digestB = digest.b;
  }

  /** Whether the bytes are still those that were stored. */
  intact(): boolean {
    digestBytes(scratch, this.bytes);
    return scratch.a === this.digestA && scratch.b === this.digestB;
  }

  /** Adds this object's share of the state hash to `sum`, or takes it away (`sign` -1). Sums do not depend on order. */
  addTo(sum: Digest, kind: number, sign: 1 | -1): void {
    scratch.a = this.digestA;
    scratch.b = this.digestB;
    digestNumber(scratch, kind);
    digestText(scratch, this.id);
    digestNumber(scratch, this.version);
    digestNumber(scratch, this.createdAtUs);
    digestNumber(scratch, this.updatedAtUs);
    finishDigest(scratch);
    sum.a = (sum.a + sign * scratch.a) | 0;
    sum.b = (sum.b + sign * scratch.b) | 0;
  }
}

/** The objects decoded last, so that loops that read the same ones again do not decode them again. */
export class DecodeCache {
  readonly #ring: (StoredObject | undefined)[];
  #next = 0;

  /** @param objectsMax  a decoded task of 1.5 KB takes about 8 KB of heap */
  constructor(objectsMax: number) {
    this.#ring = Array.from({ length: objectsMax }, () => undefined);
  }

  /** The object in the caller's terms, frozen at every depth. */
  read(table: TableSchema, object: StoredObject): unknown {
    if (object.decoded !== undefined) return object.decoded;
    const decoded = decodeAfresh(table, object);
    deepFreeze(decoded);
    const evicted = this.#ring[this.#next];
    if (evicted !== undefined) evicted.decoded = undefined;
    this.#ring[this.#next] = object;
    this.#next = this.#next + 1 === this.#ring.length ? 0 : this.#next + 1;
    object.decoded = decoded;
    return decoded;
  }
}

/** A copy that belongs to the caller. */
export function decodeAfresh(table: TableSchema, object: StoredObject): unknown {
  const { version, createdAtUs, updatedAtUs } = object;
  return table.codec.decode(object.bytes, object.id, { version, createdAtUs, updatedAtUs });
}

/** What the schema's index functions say of an encoded object. */
export function keysOf(table: TableSchema, bytes: Uint8Array, id: string, meta: Meta): IndexKeys[] {
  const decoded = table.skim === undefined ? table.codec.decode(bytes, id, meta) : table.skim(bytes);
  const all: IndexKeys[] = [];
  for (const index in table.indexes) {
    const found = table.indexes[index]?.keys(decoded);
    if (found === undefined || typeof found === "string") all.push(found);
    else if (found.length < 2) all.push(found[0]);
    else all.push([...new Set(found)].sort());
  }
  return all;
}

export function sameKeys(a: IndexKeys, b: IndexKeys): boolean {
  if (a === b) return true;
  if (!Array.isArray(a) || !Array.isArray(b)) return false;
  return a.length === b.length && a.every((key, at) => key === b[at]);
}

export function eachKey(keys: IndexKeys, act: (key: string) => void): void {
  if (keys === undefined) return;
  if (typeof keys === "string") act(keys);
  else for (const key of keys) act(key);
}

export function hasKey(keys: IndexKeys, key: string): boolean {
  return typeof keys === "string" ? keys === key : keys !== undefined && keys.includes(key);
}

/** Typed arrays cannot be frozen; those who read one must not write it. */
function deepFreeze(value: unknown): void {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const inner of Object.values(value)) deepFreeze(inner);
}

/**
 * A copy, so that a stored object does not keep a whole log entry or a pool of buffers alive. One buffer an object: in
 * shared slabs the last survivor keeps its neighbours' bytes (docs/design/store.md).
 * Unzeroed memory, all of it written at once: 2 us instead of 5 for 1.5 KB.
 */
export function ownBytes(bytes: Uint8Array): Uint8Array {
  const owned = Buffer.allocUnsafeSlow(bytes.length);
  owned.set(bytes);
  return owned;
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}
