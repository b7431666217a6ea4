/**
 * What we want of one network namespace, gathered from many facts, and what of it the kernel has not been told yet. A fact
 * (a peer, a task, a sandbox) owns a group of objects and replaces the group as a whole, so each fact's objects are a pure
 * function of the fact. The cost of a change is that of its own group.
 */
import { objectKey, sameObject, type NetObject } from "./objects.ts";

/** A wanted object and what the kernel is believed to have in its place; undefined: nothing. */
export interface ObjectChange {
  readonly key: string;
  readonly before: NetObject | undefined;
  readonly after: NetObject | undefined;
}

/** Connections to be forgotten, since their task is gone: those to `destination` that `replySource` answers. */
export interface ForgottenConnections {
  readonly destination: string;
  readonly replySource: string;
  /**
   * Its node is lost, though it may only be cut off from the managers: TCP that was answered goes on or ends by itself. All
   * else would be sent there for as long as its client goes on, or another takes its port.
   */
  readonly lost?: boolean;
}

interface Claim {
  readonly group: string;
  readonly object: NetObject;
}

export class Namespace {
  /** Empty: the host's. */
  readonly path: string;
  readonly #groups = new Map<string, ReadonlyMap<string, NetObject>>();
  /** Who wants an object. Two do for a moment when an address passes from one task to the next. */
  readonly #claims = new Map<string, Claim | Map<string, NetObject>>();
  /** What the kernel was last told of keys that have changed since. */
  #unsaid = new Map<string, NetObject | undefined>();
  #forgotten: ForgottenConnections[] = [];
  #stale: Set<string> | undefined;

  constructor(path: string) {
    this.path = path;
  }

  /** Empty: nothing of it is wanted any more, and a namespace of ours can go. */
  get size(): number {
    return this.#claims.size;
  }

  /** What a group wants from now on; keys are unique in it. */
  set(group: string, objects: readonly NetObject[]): void {
    this.#stale?.delete(group);
    const before = this.#groups.get(group);
    if (before === undefined && objects.length === 0) return;
    const after = new Map(objects.map((object) => [objectKey(object), object]));
    if (after.size === 0) this.#groups.delete(group);
    else this.#groups.set(group, after);
    for (const key of before?.keys() ?? []) if (!after.has(key)) this.#claim(key, group, undefined);
    for (const [key, object] of after) {
      const old = before?.get(key);
      if (old === undefined || !sameObject(old, object)) this.#claim(key, group, object);
    }
  }

  #claim(key: string, group: string, object: NetObject | undefined): void {
    const before = this.get(key);
    const claims = this.#claims.get(key);
    if (claims instanceof Map) {
      if (object === undefined) claims.delete(group);
      else claims.set(group, object);
      const [last, ...others] = claims;
      if (last !== undefined && others.length === 0) this.#claims.set(key, { group: last[0], object: last[1] });
    } else if (object === undefined) {
      if (claims?.group === group) this.#claims.delete(key);
    } else if (claims === undefined || claims.group === group) {
      this.#claims.set(key, { group, object });
    } else {
      this.#claims.set(
        key,
        new Map([
          [claims.group, claims.object],
          [group, object],
        ]),
      );
    }
    const after = this.get(key);
    if (before === after || (before !== undefined && after !== undefined && sameObject(before, after))) return;
    if (!this.#unsaid.has(key)) this.#unsaid.set(key, before);
  }

  /** The wanted object of this key. Of several claims the first group's by name wins, so that order of arrival is no matter. */
  get(key: string): NetObject | undefined {
    const claims = this.#claims.get(key);
    if (!(claims instanceof Map)) return claims?.object;
    let first: string | undefined;
    for (const group of claims.keys()) if (first === undefined || group < first) first = group;
    return first === undefined ? undefined : claims.get(first);
  }

  *objects(): Generator<NetObject, void, undefined> {
    for (const key of this.#claims.keys()) {
      const object = this.get(key);
      if (object !== undefined) yield object;
    }
  }

  forget(connections: ForgottenConnections): void {
    this.#forgotten.push(connections);
  }

  get hasUnsaid(): boolean {
    return this.#unsaid.size > 0 || this.#forgotten.length > 0;
  }

  /** What the kernel is to be told; from now on it is believed to know. */
  take(): { readonly changes: readonly ObjectChange[]; readonly forgotten: readonly ForgottenConnections[] } {
    const changes: ObjectChange[] = [];
    for (const [key, before] of this.#unsaid) {
      const after = this.get(key);
      if (before === undefined ? after === undefined : after !== undefined && sameObject(before, after)) continue;
      changes.push({ key, before, after });
    }
    const forgotten = this.#forgotten;
    this.#unsaid = new Map();
    this.#forgotten = [];
    return { changes, forgotten };
  }

  /** Between `rebuild` and `settle` every group is set anew; those that are not go with `settle`. */
  rebuild(): void {
    this.#stale = new Set(this.#groups.keys());
  }

  settle(): void {
    const stale = this.#stale ?? new Set();
    this.#stale = undefined;
    for (const group of stale) this.set(group, []);
  }
}
