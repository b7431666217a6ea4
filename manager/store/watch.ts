/** Watches: places in the shared log of changes, and who is woken when something follows. */
import { invariant } from "../../lib/pure/errors.ts";
import type { Watch, WatchEvent, WatchOptions } from "./api.ts";
import { changeOf } from "./core/change.ts";
import { ChangeLog, type ChangeLogLimits } from "./core/change-log.ts";
import type { Commit } from "./core/machine.ts";
import type { Kind, Schema } from "./core/schema.ts";
import type { DecodeCache } from "./core/stored-object.ts";
import type { Change, View } from "./core/words.ts";

export interface WatchSource<S extends Schema> {
  readonly cache: DecodeCache;
  current(): View<S>;
}

/** All watches of a store. */
export class WatchHub<S extends Schema> {
  readonly #source: WatchSource<S>;
  readonly #log: ChangeLog;
  readonly #watches = new Set<StoreWatch<S>>();
  #flushing = false;

  constructor(source: WatchSource<S>, index: number, limits?: ChangeLogLimits) {
    this.#source = source;
    this.#log = new ChangeLog(index, limits);
  }

  open(options: WatchOptions<S>): Watch<S> {
    const watch = new StoreWatch(this.#source, this.#log, options, () => this.#watches.delete(watch));
    if (!watch.closed) this.#watches.add(watch);
    return watch;
  }

  push(commit: Commit): void {
    if (commit.changes.length === 0) return;
    this.#log.push(commit);
    for (const watch of this.#watches) watch.follow(commit);
    this.#flush();
  }

  /** The state was replaced by one of `index`. */
  reset(index: number): void {
    this.#log.reset(index);
    for (const watch of this.#watches) watch.startOver("installed");
    this.#flush();
  }

  closeAll(): void {
    for (const watch of this.#watches) watch.close();
  }

  /** Wakes once for all entries applied in one turn, and never inside `apply`. */
  #flush(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      for (const watch of this.#watches) watch.wake();
    });
  }
}

class StoreWatch<S extends Schema> implements Watch<S> {
  readonly #source: WatchSource<S>;
  readonly #log: ChangeLog;
  readonly #kinds: ReadonlySet<string> | undefined;
  readonly #filter: ((change: Change<S>) => boolean) | undefined;
  readonly #since: number;
  readonly #batchMax: number;
  readonly #onClose: () => void;
  readonly #signal: AbortSignal | undefined;
  #place: number;
  /** Nothing of interest lies between `#place` and the end. */
  #idle = false;
  #viewDue: "start" | "behind" | "installed" | undefined;
  #ready: (() => void) | undefined;
  #closed = false;

  constructor(source: WatchSource<S>, log: ChangeLog, options: WatchOptions<S>, onClose: () => void) {
    this.#source = source;
    this.#log = log;
    this.#kinds = options.kinds === undefined ? undefined : new Set<Kind<S>>(options.kinds);
    this.#filter = options.filter;
    this.#since = options.since ?? 0;
    this.#batchMax = options.batchMax ?? 1000;
    this.#onClose = onClose;
    const place = options.since === undefined ? undefined : log.placeAfter(options.since);
    this.#place = place ?? log.end;
    if (place === undefined) this.#viewDue = options.since === undefined ? "start" : "behind";
    this.#signal = options.signal;
    if (this.#signal?.aborted === true) this.close();
    else this.#signal?.addEventListener("abort", this.#abort, { once: true });
  }

  get closed(): boolean {
    return this.#closed;
  }

  poll(): WatchEvent<S> | undefined {
    if (this.#closed) return undefined;
    const changes: Change<S>[] = [];
    let index = 0;
    while (this.#viewDue === undefined && changes.length < this.#batchMax) {
      const commit = this.#log.at(this.#place);
      if (commit === undefined) {
        this.#idle = true;
        break;
      }
      if (commit === "gone") {
        // What was gathered in this call would be repeated by the view, so it is not handed out.
        this.#viewDue = "behind";
        break;
      }
      this.#place++;
      if (commit.index <= this.#since) continue;
      index = commit.index;
      for (const raw of commit.changes) {
        if (this.#kinds?.has(raw.kind.name) === false) continue;
        const change = changeOf<S>(commit, raw, this.#source.cache);
        if (this.#filter?.(change) ?? true) changes.push(change);
      }
    }
    if (this.#viewDue !== undefined) {
      const reason = this.#viewDue;
      this.#viewDue = undefined;
      this.#place = this.#log.end;
      this.#idle = true;
      return { kind: "view", reason, view: this.#source.current() };
    }
    return changes.length === 0 ? undefined : { kind: "changes", index, changes };
  }

  whenReady(ready: () => void): void {
    invariant(this.#ready === undefined, "a watch has one waiter at a time");
    this.#ready = ready;
    if (this.#closed || !this.#idle || this.#viewDue !== undefined) this.wake();
  }

  /** An entry was committed. A watch that waits for other kinds stays at the end without being woken. */
  follow(commit: Commit): void {
    if (!this.#idle) return;
    if (this.#kinds !== undefined && commit.changes.every(({ kind }) => this.#kinds?.has(kind.name) === false))
      this.#place = this.#log.end;
    else this.#idle = false;
  }

  startOver(reason: "installed"): void {
    // A watch that has not seen its first view is owed that one.
    this.#viewDue ??= reason;
    this.#idle = false;
  }

  wake(): void {
    if (this.#idle && this.#viewDue === undefined && !this.#closed) return;
    const ready = this.#ready;
    this.#ready = undefined;
    ready?.();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#onClose();
    this.wake();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<WatchEvent<S>, void> {
    try {
      while (!this.#closed) {
        const event = this.poll();
        if (event !== undefined) yield event;
        else await new Promise<void>((resolve) => this.whenReady(resolve));
      }
    } finally {
      this.close();
    }
  }

  readonly #abort = (): void => this.close();
}
