/** Changes that are not applied yet, laid over a frozen state: by id and by key, like the tables below. */
import type { KindEntry } from "./catalog.ts";
import { eachKey, type StoredObject } from "./stored-object.ts";

export interface Pending {
  /** Undefined: removed. */
  readonly object: StoredObject | undefined;
  /** Of the change that is pending. */
  readonly stampUs: number;
}

interface PendingKind {
  readonly objects: Map<string, Pending>;
  readonly indexes: readonly Map<string, Set<string>>[];
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
    return this.#kinds.get(kind.table.number)?.indexes[index]?.get(key) ?? [];
  }

  /** The keys of an index that pending objects have. */
  keys(kind: KindEntry, index: number): Iterable<string> {
    return this.#kinds.get(kind.table.number)?.indexes[index]?.keys() ?? [];
  }

  set(kind: KindEntry, id: string, pending: Pending): void {
    let entry = this.#kinds.get(kind.table.number);
    if (entry === undefined) {
      entry = { objects: new Map(), indexes: Object.keys(kind.table.indexes).map(() => new Map()) };
      this.#kinds.set(kind.table.number, entry);
    }
    unlink(entry, id);
    entry.objects.set(id, pending);
    for (const [index, keys] of (pending.object?.keys ?? []).entries()) {
      const groups = entry.indexes[index];
      eachKey(keys, (key) => {
        const ids = groups?.get(key);
        if (ids === undefined) groups?.set(key, new Set([id]));
        else ids.add(id);
      });
    }
  }

  /** Forgets what one change left pending, unless a later one took its place. */
  settle(kind: KindEntry, id: string, stampUs: number): void {
    const entry = this.#kinds.get(kind.table.number);
    if (entry?.objects.get(id)?.stampUs !== stampUs) return;
    unlink(entry, id);
    entry.objects.delete(id);
    if (entry.objects.size === 0) this.#kinds.delete(kind.table.number);
  }

  clear(): void {
    this.#kinds.clear();
  }
}

function unlink(entry: PendingKind, id: string): void {
  for (const [index, keys] of (entry.objects.get(id)?.object?.keys ?? []).entries()) {
    const groups = entry.indexes[index];
    eachKey(keys, (key) => {
      const ids = groups?.get(key);
      ids?.delete(id);
      if (ids?.size === 0) groups?.delete(key);
    });
  }
}
