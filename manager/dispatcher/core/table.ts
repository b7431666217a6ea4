/**
 * One table of the data plane: the records of a network, or the nodes. It remembers in which order its records changed,
 * and not who was told what: a reader is a number, the version up to which it has read. So a reader that is slow, or far
 * behind, costs as much as one that is not, and a record that changes ten times is read once.
 */
import type { skep } from "../../../proto/index.ts";

type Assignment = skep.dispatcher.Assignment.$Properties;

interface Entry {
  readonly key: string;
  /** Of its last change. */
  version: number;
  /** As it is told; undefined: it is gone. */
  item: Assignment | undefined;
  /** How it is told that it is gone. */
  removal: Assignment;
  text: string;
  /** The version since which it has been serving; 0: it is not. */
  servingSince: number;
}

interface Change {
  readonly version: number;
  readonly entry: Entry;
}

/** A record stopped serving: who was told of it after `servingSince` has to hear of `version` before its task may stop. */
export interface Withdrawal {
  readonly table: Table;
  readonly servingSince: number;
  readonly version: number;
}

/** Removals that are remembered for readers who are behind, beyond as many as there are records. */
const removalsMax = 1000;
const slackMin = 64;

export class Table {
  readonly id: string;
  readonly readers = new Set<TableReader>();
  readonly #entries = new Map<string, Entry>();
  /** By version; one whose entry has changed since is stale. */
  #log: Change[] = [];
  #version = 0;
  #removals = 0;
  /** Removals up to here are forgotten, though somebody may not have read them. */
  #forgotten = 0;

  constructor(id: string) {
    this.id = id;
  }

  /** Grows with each change. */
  get version(): number {
    return this.#version;
  }

  get size(): number {
    return this.#entries.size - this.#removals;
  }

  get forgotten(): number {
    return this.#forgotten;
  }

  /** For measurements and tests: what is kept, stale changes included. */
  get kept(): number {
    return this.#log.length;
  }

  *keys(): IterableIterator<string> {
    for (const { key, item } of this.#entries.values()) if (item !== undefined) yield key;
  }

  /**
   * @param item     as it is told; the same again changes nothing
   * @param serving  whether new connections may be given to it
   * @returns        what its task has to wait for, if it has stopped serving
   */
  put(key: string, item: Assignment, removal: Assignment, serving: boolean): Withdrawal | undefined {
    const text = JSON.stringify(item);
    let entry = this.#entries.get(key);
    if (entry?.text === text) return undefined;
    if (entry === undefined) {
      entry = { key, version: 0, item, removal, text, servingSince: 0 };
      this.#entries.set(key, entry);
    } else if (entry.item === undefined) this.#removals--;
    const { servingSince } = entry;
    entry.item = item;
    entry.removal = removal;
    entry.text = text;
    this.#change(entry);
    if (serving) {
      if (servingSince === 0) entry.servingSince = entry.version;
      return undefined;
    }
    entry.servingSince = 0;
    return servingSince === 0 ? undefined : { table: this, servingSince, version: entry.version };
  }

  remove(key: string): Withdrawal | undefined {
    const entry = this.#entries.get(key);
    if (entry?.item === undefined) return undefined;
    const { servingSince } = entry;
    entry.item = undefined;
    entry.text = "";
    entry.servingSince = 0;
    this.#removals++;
    this.#change(entry);
    return servingSince === 0 ? undefined : { table: this, servingSince, version: entry.version };
  }

  /** The changes after `version`, oldest first; each record once. */
  *after(
    version: number,
  ): IterableIterator<{ readonly version: number; readonly item: Assignment; readonly removed: boolean }> {
    let low = 0;
    for (let high = this.#log.length; low < high;) {
      const middle = (low + high) >> 1;
      if ((this.#log[middle]?.version ?? 0) <= version) low = middle + 1;
      else high = middle;
    }
    for (let at = low; at < this.#log.length; at++) {
      const { version: changed, entry } = this.#log[at] as Change;
      if (entry.version !== changed) continue;
      yield { version: changed, item: entry.item ?? entry.removal, removed: entry.item === undefined };
    }
  }

  #change(entry: Entry): void {
    entry.version = ++this.#version;
    this.#log.push({ version: entry.version, entry });
    const removalsKept = removalsMax + this.size;
    if (this.#log.length > 2 * this.#entries.size + slackMin) this.#tidy(removalsKept);
    else if (this.#removals > 2 * removalsKept) this.#tidy(removalsKept);
  }

  /** Each change is looked at here as often as twice, whatever the number of readers. */
  #tidy(removalsKept: number): void {
    let read = this.#version;
    for (const { told } of this.readers) read = Math.min(read, told);
    let surplus = this.#removals - removalsKept;
    this.#log = this.#log.filter(({ version, entry }) => {
      if (entry.version !== version) return false;
      if (entry.item !== undefined) return true;
      const isRead = version <= read;
      if (!isRead && surplus <= 0) return true;
      surplus--;
      if (!isRead) this.#forgotten = version;
      this.#removals--;
      this.#entries.delete(entry.key);
      return false;
    });
  }
}

/** Messages that were sent and not acknowledged as applied; beyond, the latest stands for those before. */
const unappliedMax = 64;

/** How far one session has read a table, and how far its node has applied what it read. */
export class TableReader {
  readonly table: Table;
  /** Up to this version the node was told. */
  told = 0;
  /** The most that `told` has ever been: a node that is told everything anew still has what it had. */
  heard = 0;
  /** Up to this version the node does what it was told. */
  applied = 0;
  /** Removals up to this version are no news: the node was told nothing before it. */
  #since: number;
  readonly #sent: { readonly revision: number; version: number }[] = [];

  readonly #changed: () => void;

  /** @param changed  there is something to read; called by whoever keeps the table, once for many changes */
  constructor(table: Table, changed: () => void = () => {}) {
    this.table = table;
    this.#changed = changed;
    this.#since = table.version;
    table.readers.add(this);
  }

  changed(): void {
    this.#changed();
  }

  close(): void {
    this.table.readers.delete(this);
  }

  /** From the beginning: what the node knew before is void. */
  startOver(): void {
    this.told = 0;
    this.#since = this.table.version;
  }

  get isBehind(): boolean {
    return this.told < this.table.version;
  }

  /** At most so many changes wait. */
  get lag(): number {
    return Math.min(this.table.version - this.told, this.table.size + removalsMax);
  }

  /** Removals that it has not read are forgotten: only a complete state helps. */
  get isLost(): boolean {
    return this.table.forgotten > Math.max(this.told, this.#since);
  }

  /** Hands on what it has not read yet, until `add` answers that there is no more room. */
  read(add: (item: Assignment) => boolean): void {
    for (const { version, item, removed } of this.table.after(this.told)) {
      this.#tell(version);
      if (removed && version <= this.#since) continue;
      if (!add(item)) return;
    }
    this.#tell(this.table.version);
  }

  #tell(version: number): void {
    this.told = version;
    this.heard = Math.max(this.heard, version);
  }

  /** What has been read so far is in the message with this revision, or in one before it. */
  sent(revision: number): void {
    const last = this.#sent.at(-1);
    if (last?.revision === revision) last.version = this.told;
    else if (this.#sent.length < unappliedMax) this.#sent.push({ revision, version: this.told });
    else this.#sent[unappliedMax - 1] = { revision, version: this.told };
  }

  /** The node does what the messages up to this one say. @returns whether that is news */
  acknowledge(revision: number): boolean {
    const before = this.applied;
    while (this.#sent.length > 0 && (this.#sent[0]?.revision ?? Infinity) <= revision)
      this.applied = Math.max(this.applied, this.#sent.shift()?.version ?? 0);
    return this.applied !== before;
  }
}
