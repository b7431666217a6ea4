/**
 * The last commits, shared by all watches: each watch is a place in it, so that watching costs nothing until something
 * is read, and memory is bounded once for all. What falls out is what a slow watch has missed.
 */
import { invariant } from "../../../lib/pure/errors.ts";
import type { Commit } from "./machine.ts";

export interface ChangeLogLimits {
  readonly changesMax: number;
  /** Of the objects that the changes keep alive, old and new. */
  readonly bytesMax: number;
}

export const defaultChangeLogLimits: ChangeLogLimits = { changesMax: 32_768, bytesMax: 32 * 1024 * 1024 };

export class ChangeLog {
  readonly #limits: ChangeLogLimits;
  readonly #commits: (Commit | undefined)[] = [];
  /** Where the kept commits start in `#commits`; the places before are empty and cut off now and then. */
  #head = 0;
  /** The place of `#commits[#head]` among all commits ever pushed. */
  #start = 0;
  /** Everything after this index is kept. */
  #keptSince: number;
  #changes = 0;
  #bytes = 0;

  /** @param index  of the state on which the first commit will follow */
  constructor(index: number, limits: ChangeLogLimits = defaultChangeLogLimits) {
    this.#keptSince = index;
    this.#limits = limits;
  }

  /** The place after the last commit. */
  get end(): number {
    return this.#start + this.#commits.length - this.#head;
  }

  /** @returns the commit at a place, or undefined at the end; "gone" when it is no longer kept */
  at(place: number): Commit | undefined | "gone" {
    invariant(place <= this.end, "a watch is not ahead of the commits", { place, end: this.end });
    return place < this.#start ? "gone" : this.#commits[this.#head + place - this.#start];
  }

  /** The place of the first commit after `index`, if every change after it is kept. */
  placeAfter(index: number): number | undefined {
    if (index < this.#keptSince) return undefined;
    let low = this.#head;
    let high = this.#commits.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#commits[middle]?.index ?? 0) <= index) low = middle + 1;
      else high = middle;
    }
    return this.#start + low - this.#head;
  }

  push(commit: Commit): void {
    this.#commits.push(commit);
    this.#changes += commit.changes.length;
    this.#bytes += sizeBytes(commit);
    while (this.#changes > this.#limits.changesMax || this.#bytes > this.#limits.bytesMax) {
      const oldest = this.#commits[this.#head];
      if (oldest === undefined) break;
      this.#drop(oldest);
    }
  }

  /** A snapshot took the state to `index`: nothing that was kept leads there. */
  reset(index: number): void {
    this.#start = this.end;
    this.#commits.length = 0;
    this.#head = 0;
    this.#changes = 0;
    this.#bytes = 0;
    this.#keptSince = index;
  }

  #drop(oldest: Commit): void {
    this.#commits[this.#head] = undefined;
    this.#head++;
    this.#start++;
    this.#keptSince = oldest.index;
    this.#changes -= oldest.changes.length;
    this.#bytes -= sizeBytes(oldest);
    if (this.#head >= 1024 && this.#head * 2 > this.#commits.length) {
      this.#commits.splice(0, this.#head);
      this.#head = 0;
    }
  }
}

function sizeBytes(commit: Commit): number {
  let bytes = 0;
  for (const { before, after } of commit.changes) bytes += (before?.sizeBytes ?? 0) + (after?.sizeBytes ?? 0);
  return bytes;
}
