/**
 * What an update function works on: its own changes over those in flight over the state applied. It yields the change
 * list with preconditions; nothing is altered outside until the caller says so.
 */
import { invariant } from "../../../lib/pure/errors.ts";
import type { skep } from "../../../proto/index.ts";
import { indexNumber, type Catalog, type KindEntry } from "./catalog.ts";
import { NameInUse, ObjectExists, ObjectNotFound, VersionConflict } from "./errors.ts";
import { digestBytes, type Digest } from "./hash.ts";
import { Overlay } from "./overlay.ts";
import type { In, IndexOf, Kind, Out, Schema } from "./schema.ts";
import type { FrozenState } from "./state.ts";
import { contentOf, decodeAfresh, eachKey, keysOf, StoredObject, type DecodeCache } from "./stored-object.ts";
import { StateView } from "./view.ts";
import type { Mutable, Range, Tx } from "./words.ts";

interface Guarded {
  readonly kind: number;
  readonly id: string;
  readonly expectedUs: number;
}

const digest: Digest = { a: 0, b: 0 };

export class PendingTransaction<S extends Schema> extends StateView<S> implements Tx<S> {
  readonly #timeUs: number;
  /** Of the updates in flight. */
  readonly #inFlight: Overlay;
  readonly #own = new Overlay();
  /** In order of the first write. */
  readonly #written: { readonly kind: KindEntry; readonly id: string; readonly expectedUs: number }[] = [];
  readonly #guards = new Map<string, Guarded>();
  /**
   * What was read of the updates in flight. One of them may be refused while this one is taken; then this one was
   * decided on what never came to be, so each becomes a precondition. What is applied already needs none.
   */
  readonly #seen = new Map<string, Guarded>();
  #open = true;

  constructor(
    catalog: Catalog,
    cache: DecodeCache,
    state: FrozenState,
    options: { readonly inFlight: Overlay; readonly timeUs: number },
  ) {
    super(catalog, cache, state);
    this.#inFlight = options.inFlight;
    this.#timeUs = options.timeUs;
  }

  override get timeUs(): number {
    return this.#timeUs;
  }

  create<K extends Kind<S>>(kind: K, object: In<S, K> & { readonly id: string }): void {
    const entry = this.catalog.byName(kind);
    if (this.object(entry, object.id) !== undefined) throw new ObjectExists(kind, object.id);
    this.#write(entry, object.id, object);
  }

  update<K extends Kind<S>>(kind: K, object: In<S, K> & { readonly id: string }): void {
    const entry = this.catalog.byName(kind);
    if (this.object(entry, object.id) === undefined) throw new ObjectNotFound(kind, object.id);
    this.#write(entry, object.id, object);
  }

  put<K extends Kind<S>>(kind: K, object: In<S, K> & { readonly id: string }): void {
    this.#write(this.catalog.byName(kind), object.id, object);
  }

  edit<K extends Kind<S>>(kind: K, id: string, change: (draft: Mutable<Out<S, K>>) => void): void {
    const entry = this.catalog.byName(kind);
    const object = this.object(entry, id);
    if (object === undefined) throw new ObjectNotFound(kind, id);
    const draft = entry.table.copy?.(this.cache.read(entry.table, object)) ?? decodeAfresh(entry.table, object);
    change(draft as Mutable<Out<S, K>>);
    this.#write(entry, id, draft);
  }

  remove(kind: Kind<S>, id: string): void {
    const entry = this.catalog.byName(kind);
    if (this.object(entry, id) === undefined) throw new ObjectNotFound(kind, id);
    this.#set(entry, id, undefined);
  }

  guard(kind: Kind<S>, id: string): void {
    const entry = this.catalog.byName(kind);
    const number = entry.table.number;
    this.#guards.set(`${number}/${id}`, { kind: number, id, expectedUs: this.#stampBefore(entry, id) });
  }

  expectVersion(kind: Kind<S>, id: string, version: number): void {
    const object = this.#before(this.catalog.byName(kind), id);
    if (object === undefined) throw new ObjectNotFound(kind, id);
    if (object.version !== version) throw new VersionConflict(kind, id, version, object.version);
    this.guard(kind, id);
  }

  override count(kind: Kind<S>): number {
    const entry = this.catalog.byName(kind);
    let count = super.count(kind);
    const rows = this.table(entry).rows;
    for (const [id, object] of this.#pending(entry))
      count += Number(object !== undefined) - Number(rows.get(id) !== undefined);
    return count;
  }

  override countBy<K extends Kind<S>>(kind: K, index: IndexOf<S, K>, key: string): number {
    const entry = this.catalog.byName(kind);
    if (!this.#isTouched(entry)) return super.countBy(kind, index, key);
    let count = 0;
    for (const _id of this.ids(entry, indexNumber(entry, index), key)) count++;
    return count;
  }

  override *keys<K extends Kind<S>>(kind: K, index: IndexOf<S, K>): IterableIterator<string> {
    const entry = this.catalog.byName(kind);
    if (!this.#isTouched(entry)) {
      yield* super.keys(kind, index);
      return;
    }
    const number = indexNumber(entry, index);
    const keys = new Set(super.keys(kind, index));
    for (const layer of [this.#inFlight, this.#own]) for (const key of layer.keys(entry, number)) keys.add(key);
    for (const key of [...keys].sort()) for (const _id of firstOf(this.ids(entry, number, key))) yield key;
  }

  // ------------------------------------------------------------------------------------------------ for the store

  /** No change and no precondition: nothing to commit. */
  get isEmpty(): boolean {
    return this.#written.length === 0;
  }

  /** Refuses further use: the function that had it has returned. */
  close(): void {
    this.#open = false;
  }

  /** The least feature level that every object written needs. */
  get level(): number {
    return this.#written.reduce((level, { kind }) => Math.max(level, kind.table.sinceLevel), 1);
  }

  get size(): number {
    return this.#written.length;
  }

  encode(): skep.store.Transaction.$Properties {
    const changes: skep.store.Change.$Properties[] = [];
    const guards = new Map([...this.#seen, ...this.#guards]);
    for (const { kind, id, expectedUs } of this.#written) {
      const number = kind.table.number;
      guards.delete(`${number}/${id}`);
      const object = this.#own.get(number, id)?.object;
      if (object !== undefined) changes.push({ kind: number, id, expectedUs, body: object.bytes() });
      else if (expectedUs > 0) changes.push({ kind: number, id, expectedUs, remove: true });
      // Created and removed again: nothing to do, as long as there was nothing.
      else guards.set(`${number}/${id}`, { kind: number, id, expectedUs });
    }
    return guards.size === 0 ? { changes } : { changes, guards: [...guards.values()] };
  }

  /** Lets the updates that follow see these changes. */
  publish(inFlight: Overlay): void {
    for (const { kind, id } of this.#written) {
      const pending = this.#own.get(kind.table.number, id);
      invariant(pending !== undefined, "what was written is pending", { kind: kind.name, id });
      inFlight.set(kind, id, pending);
    }
  }

  settle(inFlight: Overlay): void {
    for (const { kind, id } of this.#written) inFlight.settle(kind, id, this.#timeUs);
  }

  // ------------------------------------------------------------------------------------------------------- inside

  protected override object(kind: KindEntry, id: string): StoredObject | undefined {
    const own = this.#own.get(kind.table.number, id);
    return own === undefined ? this.#before(kind, id) : own.object;
  }

  protected override *objects(kind: KindEntry, range: Range): Iterable<StoredObject> {
    if (!this.#isTouched(kind)) {
      yield* super.objects(kind, range);
      return;
    }
    const pending = this.#pending(kind);
    for (const id of this.#inFlight.of(kind)?.keys() ?? []) this.#see(kind, id);
    const { from, to } = range;
    const inRange = (id: string): boolean => (from === undefined || id >= from) && (to === undefined || id < to);
    const fresh = [...pending.values()].filter((object) => object !== undefined && inRange(object.id));
    fresh.sort((a, b) => ((a?.id ?? "") < (b?.id ?? "") ? -1 : 1));
    let next = 0;
    for (const object of super.objects(kind, range)) {
      if (pending.has(object.id)) continue;
      for (let ahead = fresh[next]; ahead !== undefined && ahead.id < object.id; ahead = fresh[++next]) yield ahead;
      yield object;
    }
    for (let ahead = fresh[next]; ahead !== undefined; ahead = fresh[++next]) yield ahead;
  }

  protected override *ids(kind: KindEntry, index: number, key: string): Iterable<string> {
    if (!this.#isTouched(kind)) {
      yield* super.ids(kind, index, key);
      return;
    }
    const own = this.#own.of(kind);
    const inFlight = this.#inFlight.of(kind);
    const found: string[] = [];
    for (const id of super.ids(kind, index, key))
      if (inFlight?.has(id) === true) this.#see(kind, id);
      else if (own?.has(id) !== true) found.push(id);
    for (const id of this.#inFlight.ids(kind, index, key)) {
      this.#see(kind, id);
      if (own?.has(id) !== true) found.push(id);
    }
    found.push(...this.#own.ids(kind, index, key));
    yield* found.sort();
  }

  #isTouched(kind: KindEntry): boolean {
    return this.#own.of(kind) !== undefined || this.#inFlight.of(kind) !== undefined;
  }

  /** Latest pending state of every object of the kind that has one. */
  #pending(kind: KindEntry): Map<string, StoredObject | undefined> {
    const pending = new Map<string, StoredObject | undefined>();
    for (const layer of [this.#inFlight, this.#own])
      for (const [id, { object }] of layer.of(kind) ?? []) pending.set(id, object);
    return pending;
  }

  /** As it was before this transaction. */
  #before(kind: KindEntry, id: string): StoredObject | undefined {
    const pending = this.#inFlight.get(kind.table.number, id);
    if (pending === undefined) return super.object(kind, id);
    this.#see(kind, id);
    return pending.object;
  }

  #see(kind: KindEntry, id: string): void {
    const number = kind.table.number;
    const expectedUs = this.#inFlight.get(number, id)?.object?.updatedAtUs ?? 0;
    this.#seen.set(`${number}/${id}`, { kind: number, id, expectedUs });
  }

  #stampBefore(kind: KindEntry, id: string): number {
    return this.#before(kind, id)?.updatedAtUs ?? 0;
  }

  #write(kind: KindEntry, id: string, value: unknown): void {
    invariant(id !== "", "an object has an id", { kind: kind.name });
    const { codec } = kind.table;
    const bytes = codec.encodeBriefly?.(value) ?? codec.encode(value);
    const before = this.#before(kind, id);
    const meta = { version: 0, createdAtUs: before?.createdAtUs ?? this.#timeUs, updatedAtUs: this.#timeUs };
    digestBytes(digest, bytes);
    const keys = keysOf(kind.table, bytes, id, meta);
    const object = new StoredObject(id, contentOf(kind.table, bytes, before), meta, digest, keys);
    for (const { index, name } of kind.unique)
      eachKey(object.keyAt(index), (key) => {
        for (const holder of this.ids(kind, index, key))
          if (holder !== id) throw new NameInUse(kind.name, name, key, holder);
      });
    this.#set(kind, id, object);
  }

  #set(kind: KindEntry, id: string, object: StoredObject | undefined): void {
    invariant(this.#open, "a transaction is used inside its function only", { kind: kind.name, id });
    if (this.#own.get(kind.table.number, id) === undefined)
      this.#written.push({ kind, id, expectedUs: this.#stampBefore(kind, id) });
    this.#own.set(kind, id, { object, stampUs: this.#timeUs });
  }
}

function* firstOf<T>(items: Iterable<T>): Iterable<T> {
  for (const item of items) {
    yield item;
    return;
  }
}
