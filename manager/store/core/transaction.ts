/** Applies one transaction, all or nothing: first every precondition, then every change. */
import type { skep } from "../../../proto/index.ts";
import type { Catalog, KindEntry } from "./catalog.ts";
import { Incompatible } from "./errors.ts";
import { digestBytes, type Digest } from "./hash.ts";
import type { Refusal } from "./refusal.ts";
import type { State } from "./state.ts";
import { contentOf, eachKey, hasKey, keysOf, StoredObject } from "./stored-object.ts";

export type ChangeAct = "create" | "update" | "remove";

/** One object's change, as watches get it before anything is decoded. */
export interface RawChange {
  readonly kind: KindEntry;
  readonly act: ChangeAct;
  readonly id: string;
  readonly before: StoredObject | undefined;
  readonly after: StoredObject | undefined;
}

/** What the proposer knows of an object in an entry of its own, so that it is not decoded twice. */
export type Hint = (kind: number, id: string, stampUs: number) => StoredObject | undefined;

export interface TransactionContext {
  readonly catalog: Catalog;
  readonly state: State;
  readonly hint: Hint | undefined;
}

/**
 * @param index    of the entry; the state already has its index and time
 * @param changes  takes what was changed
 * @returns        why nothing was changed, or undefined
 * @throws Incompatible on a kind or bytes that this version does not know
 */
export function applyTransaction(
  context: TransactionContext,
  transaction: skep.store.Transaction.$Properties,
  index: number,
  changes: RawChange[],
): Refusal | undefined {
  const { catalog, state } = context;
  const what = `entry ${index}`;
  for (const { kind, id, expectedUs } of transaction.guards ?? []) {
    const entry = kindOf(catalog, kind ?? 0, what);
    if (stampOf(state, entry, id ?? "") !== (expectedUs ?? 0)) return conflict(entry, id ?? "");
  }
  const planned: RawChange[] = [];
  const list = transaction.changes ?? [];
  const seen = list.length > 1 ? new Set<string>() : undefined;
  for (const change of list) {
    const kind = kindOf(catalog, change.kind ?? 0, what);
    const id = change.id ?? "";
    const before = state.table(kind.table.number).get(id);
    if ((before?.updatedAtUs ?? 0) !== (change.expectedUs ?? 0)) return conflict(kind, id);
    if (seen !== undefined) {
      const key = `${kind.table.number}/${id}`;
      if (seen.has(key)) throw new Incompatible(what, `it changes ${kind.name} "${id}" twice`);
      seen.add(key);
    }
    if (change.remove === true) {
      if (before === undefined) return conflict(kind, id);
      planned.push({ kind, act: "remove", id, before, after: undefined });
    } else {
      const after = objectOf(context, kind, id, change.body ?? new Uint8Array(), before, what);
      planned.push({ kind, act: before === undefined ? "create" : "update", id, before, after });
    }
  }
  const taken = firstTakenName(state, planned);
  if (taken !== undefined) return taken;
  for (const change of planned) {
    const table = state.table(change.kind.table.number);
    if (change.after === undefined) table.remove(change.id);
    else table.put(change.after);
    changes.push(change);
  }
  return undefined;
}

const conflict = (kind: KindEntry, id: string): Refusal => ({ code: "conflict", kind: kind.name, id });

function kindOf(catalog: Catalog, number: number, what: string): KindEntry {
  const kind = catalog.byNumber(number);
  if (kind?.visible !== true) throw new Incompatible(what, `it names kind ${number}, which is not known`);
  return kind;
}

function stampOf(state: State, kind: KindEntry, id: string): number {
  return state.table(kind.table.number).get(id)?.updatedAtUs ?? 0;
}

const digest: Digest = { a: 0, b: 0 };

function objectOf(
  context: TransactionContext,
  kind: KindEntry,
  id: string,
  body: Uint8Array,
  before: StoredObject | undefined,
  what: string,
): StoredObject {
  const { state, hint } = context;
  const updatedAtUs = state.timeUs;
  const meta = { version: state.index, createdAtUs: before?.createdAtUs ?? updatedAtUs, updatedAtUs };
  // The text that the table has already, instead of a fresh one.
  const own = before?.id ?? id;
  const known = hint?.(kind.table.number, id, updatedAtUs);
  if (known?.holds(body) === true) {
    digest.a = known.digestA;
    digest.b = known.digestB;
    return new StoredObject(own, known, meta, digest, known.keys);
  }
  digestBytes(digest, body);
  try {
    const keys = keysOf(kind.table, body, id, meta);
    return new StoredObject(own, contentOf(kind.table, body, before), meta, digest, keys);
  } catch (error) {
    throw new Incompatible(what, `${kind.name} "${id}" cannot be decoded`, error);
  }
}

/** Names are compared as they will be after the whole transaction, so two objects may swap theirs. */
function firstTakenName(state: State, planned: readonly RawChange[]): Refusal | undefined {
  let refusal: Refusal | undefined;
  let claimed: Map<string, string> | undefined;
  for (const { kind, id, before, after } of planned) {
    if (after === undefined || kind.unique.length === 0) continue;
    const claims = (claimed ??= new Map<string, string>());
    for (const { index, name } of kind.unique) {
      eachKey(after.keyAt(index), (key) => {
        const claim = `${kind.table.number}/${index}/${key}`;
        const rival = claims.get(claim);
        claims.set(claim, id);
        let holder = rival;
        if (holder === undefined && !(before !== undefined && hasKey(before.keyAt(index), key))) {
          holder = state.table(kind.table.number).firstId(index, key);
          const released = planned.some(
            (other) => other.kind === kind && other.id === holder && !hasKey(other.after?.keyAt(index), key),
          );
          if (released) holder = undefined;
        }
        if (holder !== undefined) refusal ??= { code: "nameInUse", kind: kind.name, index: name, key, holder };
      });
    }
  }
  return refusal;
}
