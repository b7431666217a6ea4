/** Changes that are not applied yet, laid over a frozen state: by id and by key, like the tables below. */
import type { KindEntry } from "./catalog.ts";
import { eachKey, type StoredObject } from "./stored-object.ts";

export interface Pending {
  /** Undefined: removed. */
  readonly object: StoredObject | undefined;
  /** Of the change that is pending. */
  readonly stampUs: number;
}

type Groups = readonly Map<string, Set<string>>[];

interface PendingKind {
  readonly objects: Map<string, Pending>;
  /** Made when somebody first looks for a key: most updates read and write by id alone. */
  indexes: Groups | undefined;
}

export class Overlay {
  readonly #kinds = new Map<number, PendingKind>();

  /** The pending changes of one kind; undefined when there are none. */
  of(kind: KindEntry): ReadonlyMap<string, Pending> | undefined {
    return this.#kinds.get(kind.table.number)?.objects;
  }

  get(kind: number, id: string): Pending | undefined {
    return this.#kinds.get(kind)?.objects.get(id);
  }

  get isEmpty(): boolean {
    return this.#kinds.size === 0;
  }

  ids(kind: KindEntry, index: number, key: string): Iterable<string> {
    return this.#indexes(kind)?.[index]?.get(key) ?? [];
  }

  /** The keys of an index that pending objects have. */
  keys(kind: KindEntry, index: number): Iterable<string> {
    return this.#indexes(kind)?.[index]?.keys() ?? [];
  }

  set(kind: KindEntry, id: string, pending: Pending): void {
    let entry = this.#kinds.get(kind.table.number);
    if (entry === undefined) {
      entry = { objects: new Map(), indexes: undefined };
      this.#kinds.set(kind.table.number, entry);
    }
    if (entry.indexes !== undefined) {
      unlink(entry.indexes, id, entry.objects.get(id));
      link(entry.indexes, id, pending);
    }
    entry.objects.set(id, pending);
  }

  /** Forgets what one change left pending, unless a later one took its place. */
  settle(kind: KindEntry, id: string, stampUs: number): void {
    const entry = this.#kinds.get(kind.table.number);
    const pending = entry?.objects.get(id);
    if (entry === undefined || pending?.stampUs !== stampUs) return;
    if (entry.indexes !== undefined) unlink(entry.indexes, id, pending);
    entry.objects.delete(id);
    if (entry.objects.size === 0) this.#kinds.delete(kind.table.number);
  }

  clear(): void {
    this.#kinds.clear();
  }

  #indexes(kind: KindEntry): Groups | undefined {
    const entry = this.#kinds.get(kind.table.number);
    if (entry === undefined || entry.indexes !== undefined) return entry?.indexes;
    const indexes = Object.keys(kind.table.indexes).map(() => new Map<string, Set<string>>());
    for (const [id, pending] of entry.objects) link(indexes, id, pending);
    entry.indexes = indexes;
    return indexes;
  }
}

function link(indexes: Groups, id: string, { object }: Pending): void {
  for (const [index, keys] of (object?.keys ?? []).entries()) {
    const groups = indexes[index];
    eachKey(keys, (key) => {
      const ids = groups?.get(key);
      if (ids === undefined) groups?.set(key, new Set([id]));
      else ids.add(id);
    });
  }
}

function unlink(indexes: Groups, id: string, pending: Pending | undefined): void {
  for (const [index, keys] of (pending?.object?.keys ?? []).entries()) {
    const groups = indexes[index];
    eachKey(keys, (key) => {
      const ids = groups?.get(key);
      ids?.delete(id);
      if (ids?.size === 0) groups?.delete(key);
    });
  }
}
