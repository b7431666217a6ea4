/** One object as the tables hold it: encoded, and decoded when somebody looks. */
import { digestBytes, digestNumber, digestText, finishDigest, type Digest } from "./hash.ts";
import type { Meta, TableSchema } from "./schema.ts";

/** The keys of one object in one index: none, one, or several (sorted, distinct). */
export type IndexKeys = undefined | string | readonly string[];

const scratch: Digest = { a: 0, b: 0 };

/**
 * What is encoded. Of small objects of a compact kind it is a text of one character a byte: a buffer costs about 350 bytes
 * and 2 us besides its content, a text 16 bytes and a tenth of the time, and there may be a million.
 */
export interface Content {
  /** Owned: no log entry or caller shares it. */
  readonly body: Uint8Array | string;
  /** What follows the body and is the same in other objects, which share the text: the spec of a service, in its tasks. */
  readonly common: string;
}

const textBytesMax = 8192;
const brief = Buffer.allocUnsafeSlow(textBytesMax);

/** @param before  the object that is replaced: mostly it has the same in common with others */
export function contentOf(table: TableSchema, bytes: Uint8Array, before: Content | undefined): Content {
  if (table.isCompact !== true || bytes.length > textBytesMax) return { body: ownBytes(bytes), common: "" };
  const from = table.commonFrom?.(bytes) ?? bytes.length;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const body = text.toString("latin1", 0, from);
  if (from === bytes.length) return { body, common: "" };
  const common = text.toString("latin1", from);
  return { body, common: before !== undefined && before.common === common ? before.common : keptOnce(common) };
}

/** The texts that came last, so that equal ones are one. A text that has been dropped is kept by the objects that have it. */
const commons = new Map<string, string>();
const commonsMax = 4096;
const commonsBytesMax = 8 * 1024 * 1024;
let commonsBytes = 0;

function keptOnce(text: string): string {
  const known = commons.get(text);
  if (known !== undefined) return known;
  commons.set(text, text);
  commonsBytes += text.length;
  for (const oldest of commons.keys()) {
    if (commons.size <= commonsMax && commonsBytes <= commonsBytesMax) break;
    commons.delete(oldest);
    commonsBytes -= oldest.length;
  }
  return text;
}

export class StoredObject implements Content {
  readonly id: string;
  readonly body: Uint8Array | string;
  readonly common: string;
  /** Log index of the last change; 0 while it has none. */
  readonly version: number;
  // There may be a million, and a collection looks at each object of the heap: a time in one number would be an object of its
  // own, and so would the keys in a list be two.
  readonly #createdS: number;
  readonly #createdUs: number;
  readonly #updatedS: number;
  readonly #updatedUs: number;
  #key0: IndexKeys;
  #key1: IndexKeys;
  #key2: IndexKeys;
  #key3: IndexKeys;
  /** Of kinds with more indexes, from the fifth on. */
  readonly #moreKeys: IndexKeys[] | undefined;
  /** Digest of `bytes` when they were stored: what a scrub compares with. */
  readonly digestA: number;
  readonly digestB: number;
  /** Kept or dropped by DecodeCache alone. */
  decoded: unknown = undefined;

  constructor(id: string, { body, common }: Content, meta: Meta, digest: Digest, keys: readonly IndexKeys[]) {
    this.id = id;
    this.body = body;
    this.common = common;
    this.version = meta.version;
    this.#createdS = Math.floor(meta.createdAtUs / 1e6);
    this.#createdUs = meta.createdAtUs - this.#createdS * 1e6;
    this.#updatedS = Math.floor(meta.updatedAtUs / 1e6);
    this.#updatedUs = meta.updatedAtUs - this.#updatedS * 1e6;
    this.#key0 = keys[0];
    this.#key1 = keys[1];
    this.#key2 = keys[2];
    this.#key3 = keys[3];
    this.#moreKeys = keys.length > 4 ? keys.slice(4) : undefined;
    this.digestA = digest.a;
    this.digestB = digest.b;
  }

  get createdAtUs(): number {
    return this.#createdS * 1e6 + this.#createdUs;
  }

  /** Also the object's stamp: no two changes in the log have the same, so a precondition can name it before commit. */
  get updatedAtUs(): number {
    return this.#updatedS * 1e6 + this.#updatedUs;
  }

  /** Of one index of the table, by its place in the schema. */
  keyAt(index: number): IndexKeys {
    switch (index) {
      case 0:
        return this.#key0;
      case 1:
        return this.#key1;
      case 2:
        return this.#key2;
      case 3:
        return this.#key3;
      default:
        return this.#moreKeys?.[index - 4];
    }
  }

  /** An equal key, in the text that others have, too. */
  shareKey(index: number, key: IndexKeys): void {
    if (index === 0) this.#key0 = key;
    else if (index === 1) this.#key1 = key;
    else if (index === 2) this.#key2 = key;
    else if (index === 3) this.#key3 = key;
    else if (this.#moreKeys !== undefined) this.#moreKeys[index - 4] = key;
  }

  /** One for each index of the table, in the schema's order; undefined ones may follow. */
  get keys(): readonly IndexKeys[] {
    const first = [this.#key0, this.#key1, this.#key2, this.#key3];
    return this.#moreKeys === undefined ? first : [...first, ...this.#moreKeys];
  }

  /** Encoded, with what it shares. */
  get sizeBytes(): number {
    return this.body.length + this.common.length;
  }

  /** For who reads them at once: the next call, for whatever object, may overwrite them. */
  briefBytes(): Uint8Array {
    const { body, common } = this;
    if (typeof body !== "string") return body;
    let end = brief.write(body, 0, "latin1");
    if (common !== "") end += brief.write(common, end, "latin1");
    return brief.subarray(0, end);
  }

  /** To be read only. */
  bytes(): Uint8Array {
    return typeof this.body === "string" ? Buffer.from(this.briefBytes()) : this.body;
  }

  holds(bytes: Uint8Array): boolean {
    return this.sizeBytes === bytes.length && Buffer.compare(this.briefBytes(), bytes) === 0;
  }

  /** Whether the bytes are still those that were stored. */
  intact(): boolean {
    digestBytes(scratch, this.briefBytes());
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

/** Those of one kind that are kept decoded; the next one takes the place of the oldest. */
interface Ring {
  readonly objects: StoredObject[];
  next: number;
}

/**
 * The objects decoded last, so that loops that read the same ones again do not decode them again. Each kind has its own
 * share: a flood of tasks does not drive out the nodes that all of them are judged by.
 */
export class DecodeCache {
  readonly #objectsMax: number;
  readonly #rings = new Map<TableSchema, Ring>();

  /** @param objectsMax  of each compact kind, and half of what others have; a decoded task takes about 1.5 KB of heap, besides what it shares with others */
  constructor(objectsMax: number) {
    this.#objectsMax = objectsMax;
  }

  /** The object in the caller's terms, frozen at every depth. */
  read(table: TableSchema, object: StoredObject): unknown {
    if (object.decoded !== undefined) return object.decoded;
    const decoded = decodeAfresh(table, object);
    deepFreeze(decoded);
    this.#keep(table, object);
    object.decoded = decoded;
    return decoded;
  }

  #keep(table: TableSchema, object: StoredObject): void {
    let ring = this.#rings.get(table);
    if (ring === undefined) {
      ring = { objects: [], next: 0 };
      this.#rings.set(table, ring);
    }
    const evicted = ring.objects[ring.next];
    if (evicted !== undefined) evicted.decoded = undefined;
    ring.objects[ring.next] = object;
    // Nodes are read one after the other, all of them: a share that is a little too small for them is of no use at all.
    const objectsMax = table.isCompact === true ? this.#objectsMax : 2 * this.#objectsMax;
    ring.next = ring.next + 1 === objectsMax ? 0 : ring.next + 1;
  }
}

/** A copy that belongs to the caller. */
export function decodeAfresh(table: TableSchema, object: StoredObject): unknown {
  const { version, createdAtUs, updatedAtUs } = object;
  return table.codec.decode(object.briefBytes(), object.id, { version, createdAtUs, updatedAtUs });
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
  // Exactly as long as it is: what was pushed to has room for seventeen.
  return all.slice();
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
  if (typeof value !== "object" || value === null || Object.isFrozen(value) || ArrayBuffer.isView(value)) return;
  Object.freeze(value);
  const fields = value as Record<string, unknown>;
  for (const name of Object.keys(fields)) {
    const inner = fields[name];
    if (typeof inner === "object" && inner !== null) deepFreeze(inner);
  }
}

/**
 * A copy, so that what is stored does not keep a whole log entry or a pool of buffers alive. One buffer an object: in
 * shared slabs the last survivor keeps its neighbours' bytes (docs/design/store.md).
 * Unzeroed memory, all of it written at once: 2 us instead of 5 for 1.5 KB.
 */
export function ownBytes(bytes: Uint8Array): Uint8Array {
  const owned = Buffer.allocUnsafeSlow(bytes.length);
  owned.set(bytes);
  return owned;
}
