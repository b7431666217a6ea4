/** A frozen state in the rooms' terms: by kind and index name, decoded. */
import { indexNumber, type Catalog, type KindEntry } from "./catalog.ts";
import type { IndexOf, Kind, Out, Schema } from "./schema.ts";
import type { FrozenState } from "./state.ts";
import type { DecodeCache, StoredObject } from "./stored-object.ts";
import type { FrozenTable } from "./table.ts";
import type { Range, View } from "./words.ts";

export class StateView<S extends Schema> implements View<S> {
  protected readonly catalog: Catalog;
  protected readonly cache: DecodeCache;
  protected readonly state: FrozenState;

  constructor(catalog: Catalog, cache: DecodeCache, state: FrozenState) {
    this.catalog = catalog;
    this.cache = cache;
    this.state = state;
  }

  get index(): number {
    return this.state.index;
  }

  get timeUs(): number {
    return this.state.timeUs;
  }

  get<K extends Kind<S>>(kind: K, id: string): Out<S, K> | undefined {
    const entry = this.catalog.byName(kind);
    const object = this.object(entry, id);
    return object === undefined ? undefined : (this.cache.read(entry.table, object) as Out<S, K>);
  }

  has(kind: Kind<S>, id: string): boolean {
    return this.object(this.catalog.byName(kind), id) !== undefined;
  }

  count(kind: Kind<S>): number {
    return this.table(this.catalog.byName(kind)).rows.size;
  }

  *list<K extends Kind<S>>(kind: K, range: Range = {}): IterableIterator<Out<S, K>> {
    const entry = this.catalog.byName(kind);
    for (const object of this.objects(entry, range)) yield this.cache.read(entry.table, object) as Out<S, K>;
  }

  *find<K extends Kind<S>>(kind: K, index: IndexOf<S, K>, key: string): IterableIterator<Out<S, K>> {
    const entry = this.catalog.byName(kind);
    for (const id of this.ids(entry, indexNumber(entry, index), key)) {
      const object = this.object(entry, id);
      if (object !== undefined) yield this.cache.read(entry.table, object) as Out<S, K>;
    }
  }

  first<K extends Kind<S>>(kind: K, index: IndexOf<S, K>, key: string): Out<S, K> | undefined {
    for (const found of this.find(kind, index, key)) return found;
    return undefined;
  }

  countBy<K extends Kind<S>>(kind: K, index: IndexOf<S, K>, key: string): number {
    const entry = this.catalog.byName(kind);
    return this.table(entry).countBy(indexNumber(entry, index), key);
  }

  keys<K extends Kind<S>>(kind: K, index: IndexOf<S, K>): IterableIterator<string> {
    const entry = this.catalog.byName(kind);
    return this.table(entry).keys(indexNumber(entry, index));
  }

  protected object(kind: KindEntry, id: string): StoredObject | undefined {
    return this.table(kind).rows.get(id);
  }

  protected objects(kind: KindEntry, range: Range): Iterable<StoredObject> {
    return this.table(kind).rows.values(range.from, range.to);
  }

  protected ids(kind: KindEntry, index: number, key: string): Iterable<string> {
    return this.table(kind).ids(index, key);
  }

  protected table(kind: KindEntry): FrozenTable {
    return this.state.table(kind.table.number);
  }
}
