/** The objects of one kind, by id and by each index of the schema; frozen in O(indexes). */
import { invariant } from "../../../lib/pure/errors.ts";
import type { Digest } from "./hash.ts";
import type { TableSchema } from "./schema.ts";
import { SortedMap, type FrozenMap } from "./sorted-map.ts";
import { eachKey, sameKeys, type StoredObject } from "./stored-object.ts";

/** The ids that share a key. Most groups of most indexes hold one id, which then stands for itself. */
type Group = string | ManyIds;

interface ManyIds {
  /** The freeze since which `ids` may be written in place. */
  readonly epoch: number;
  readonly ids: SortedMap<true>;
}

/** One kind at one moment. */
export class FrozenTable {
  readonly schema: TableSchema;
  readonly rows: FrozenMap<StoredObject>;
  readonly #indexes: readonly FrozenMap<Group>[];

  constructor(schema: TableSchema, rows: FrozenMap<StoredObject>, indexes: readonly FrozenMap<Group>[]) {
    this.schema = schema;
    this.rows = rows;
    this.#indexes = indexes;
  }

  /** Ids with this key, ascending. */
  *ids(index: number, key: string): IterableIterator<string> {
    const group = this.#index(index).get(key);
    if (typeof group === "string") yield group;
    else if (group !== undefined) yield* group.ids.keys();
  }

  countBy(index: number, key: string): number {
    return groupSize(this.#index(index).get(key));
  }

  keys(index: number): IterableIterator<string> {
    return this.#index(index).keys();
  }

  #index(index: number): FrozenMap<Group> {
    const found = this.#indexes[index];
    invariant(found !== undefined, "the index exists", { index, kind: this.schema.number });
    return found;
  }
}

export class Table {
  readonly schema: TableSchema;
  readonly #rows = new SortedMap<StoredObject>();
  readonly #indexes: readonly SortedMap<Group>[];
  readonly #sum: Digest;
  #epoch = 0;
  #frozen: FrozenTable | undefined;

  /** @param sum  the state hash, to which every object adds its share */
  constructor(schema: TableSchema, sum: Digest) {
    this.schema = schema;
    this.#indexes = Object.keys(schema.indexes).map(() => new SortedMap<Group>());
    this.#sum = sum;
  }

  get size(): number {
    return this.#rows.size;
  }

  get(id: string): StoredObject | undefined {
    return this.#rows.get(id);
  }

  /** Some id with this key; the only one, where the index is unique. */
  firstId(index: number, key: string): string | undefined {
    const group = this.#indexes[index]?.get(key);
    if (group === undefined || typeof group === "string") return group;
    const cursor = group.ids.cursor();
    return cursor.next() ? cursor.key : undefined;
  }

  /** The least key of an index. */
  firstKey(index: number): string | undefined {
    const cursor = this.#indexes[index]?.cursor();
    return cursor?.next() === true ? cursor.key : undefined;
  }

  freeze(): FrozenTable {
    if (this.#frozen === undefined) {
      this.#epoch++;
      this.#frozen = new FrozenTable(
        this.schema,
        this.#rows.freeze(),
        this.#indexes.map((index) => index.freeze()),
      );
    }
    return this.#frozen;
  }

  /** Creates or replaces. */
  put(object: StoredObject): void {
    this.#frozen = undefined;
    const before = this.#rows.set(object.id, object);
    before?.addTo(this.#sum, this.schema.number, -1);
    object.addTo(this.#sum, this.schema.number, 1);
    for (let index = 0; index < this.#indexes.length; index++) {
      const was = before?.keyAt(index);
      const now = object.keyAt(index);
      if (sameKeys(was, now)) {
        // The old text objects, which the index shares, instead of fresh ones that every object would keep.
        object.shareKey(index, was);
        continue;
      }
      const id = object.id;
      eachKey(was, (key) => this.#unlink(index, key, id));
      if (typeof now === "string") object.shareKey(index, this.#link(index, now, id));
      else if (now !== undefined)
        object.shareKey(
          index,
          now.map((key) => this.#link(index, key, id)),
        );
    }
  }

  remove(id: string): StoredObject | undefined {
    const before = this.#rows.delete(id);
    if (before === undefined) return undefined;
    this.#frozen = undefined;
    before.addTo(this.#sum, this.schema.number, -1);
    for (let index = 0; index < this.#indexes.length; index++)
      eachKey(before.keyAt(index), (key) => this.#unlink(index, key, id));
    return before;
  }

  /** @returns the key as the index holds it */
  #link(index: number, key: string, id: string): string {
    const groups = this.#indexes[index] as SortedMap<Group>;
    const group = groups.get(key);
    if (group === undefined) {
      groups.set(key, id);
      return key;
    }
    let many: ManyIds;
    if (typeof group === "string") {
      many = { epoch: this.#epoch, ids: new SortedMap<true>() };
      many.ids.set(group, true);
      groups.set(key, many);
    } else if (group.epoch === this.#epoch) {
      many = group;
    } else {
      many = { epoch: this.#epoch, ids: group.ids.fork() };
      groups.set(key, many);
    }
    many.ids.set(id, true);
    return groups.keyOf(key) as string;
  }

  #unlink(index: number, key: string, id: string): void {
    const groups = this.#indexes[index] as SortedMap<Group>;
    const group = groups.get(key);
    invariant(group !== undefined, "an object's key leads to it", { kind: this.schema.number, index, key, id });
    if (typeof group === "string" || group.ids.size === 1) {
      groups.delete(key);
      return;
    }
    let many = group;
    if (many.epoch !== this.#epoch) {
      many = { epoch: this.#epoch, ids: many.ids.fork() };
      groups.set(key, many);
    }
    many.ids.delete(id);
    if (many.ids.size === 1) {
      const last = many.ids.cursor();
      if (last.next()) groups.set(key, last.key);
    }
  }
}

function groupSize(group: Group | undefined): number {
  if (group === undefined) return 0;
  return typeof group === "string" ? 1 : group.ids.size;
}
