/** A change in the rooms' terms; objects are decoded when they are read. */
import type { Kind, Out, Schema } from "./schema.ts";
import type { Commit } from "./machine.ts";
import type { DecodeCache, StoredObject } from "./stored-object.ts";
import type { ChangeAct, RawChange } from "./transaction.ts";
import type { Change, ChangeOf } from "./words.ts";

class DecodedChange<S extends Schema, K extends Kind<S>> implements ChangeOf<S, K> {
  readonly kind: K;
  readonly act: ChangeAct;
  readonly id: string;
  readonly index: number;
  readonly timeUs: number;
  readonly actor: string;
  readonly cause: string;
  readonly #raw: RawChange;
  readonly #cache: DecodeCache;

  constructor(commit: Commit, raw: RawChange, cache: DecodeCache) {
    this.kind = raw.kind.name as K;
    this.act = raw.act;
    this.id = raw.id;
    this.index = commit.index;
    this.timeUs = commit.timeUs;
    this.actor = commit.actor;
    this.cause = commit.cause;
    this.#raw = raw;
    this.#cache = cache;
  }

  get before(): Out<S, K> | undefined {
    return this.#read(this.#raw.before);
  }

  get after(): Out<S, K> | undefined {
    return this.#read(this.#raw.after);
  }

  #read(object: StoredObject | undefined): Out<S, K> | undefined {
    return object === undefined ? undefined : (this.#cache.read(this.#raw.kind.table, object) as Out<S, K>);
  }
}

export function changeOf<S extends Schema>(commit: Commit, raw: RawChange, cache: DecodeCache): Change<S> {
  return new DecodedChange<S, Kind<S>>(commit, raw, cache);
}
