/** How loops read a watch: driven by it, never awaited, so that the simulator can run them. */
import type { Watch, WatchEvent } from "./api.ts";
import type { Schema } from "./core/schema.ts";

/** Objects of a view that are read in one turn. */
const sliceMax = 500;
/**
 * Changes that are read in one turn, some more when an event has them. There are several readers, and what they do about
 * them comes in a turn of its own when they are so many.
 */
const changesMax = 500;

/** Takes an event in; of a long one perhaps step by step, a turn each. */
export type Read<S extends Schema> = (event: WatchEvent<S>) => Iterator<void> | void;

/**
 * Hands over each event of the watch as it comes, until the watch is closed.
 * @param read     nothing, for who looks at the store itself when it has changed
 * @param settled  runs behind those that came together, when there is nothing more for now
 * @param later    calls back in a turn of its own. With it no turn takes long, however large the store is; without it all is
 *                 read at once
 */
export function follow<S extends Schema>(
  watch: Watch<S>,
  read: Read<S> = () => {},
  settled: () => void = () => {},
  later?: (act: () => void) => void,
): Follower<S> {
  const follower = new Follower(watch, read, settled, later);
  follower.wait();
  return follower;
}

export class Follower<S extends Schema> {
  readonly #watch: Watch<S>;
  readonly #read: Read<S>;
  readonly #settled: () => void;
  readonly #later: ((act: () => void) => void) | undefined;
  /** What is left of an event. */
  #rest: Iterator<void> | undefined;
  /** Goes on in a later turn. */
  #paused = false;
  /** The watch will call. */
  #waiting = false;

  constructor(watch: Watch<S>, read: Read<S>, settled: () => void, later: ((act: () => void) => void) | undefined) {
    this.#watch = watch;
    this.#read = read;
    this.#settled = settled;
    this.#later = later;
  }

  wait(): void {
    if (this.#waiting || this.#watch.closed) return;
    this.#waiting = true;
    this.#watch.whenReady(() => {
      this.#waiting = false;
      this.#go();
    });
  }

  /**
   * For a reader that wants to be as new as the store in the middle of something else.
   * @returns false when it is not, since there is too much to read in one turn: `settled` will tell
   */
  catchUp(): boolean {
    if (this.#paused) return false;
    let changes = 0;
    while (!this.#watch.closed) {
      if (this.#rest !== undefined) {
        while (this.#rest.next().done !== true) if (this.#later !== undefined) return this.#pause(this.#later);
        this.#rest = undefined;
      }
      if (changes >= changesMax && this.#later !== undefined) return this.#pause(this.#later);
      const event = this.#watch.poll();
      if (event === undefined) break;
      if (event.kind === "changes") changes += event.changes.length;
      this.#rest = this.#read(event) ?? undefined;
    }
    return true;
  }

  #go(): void {
    // Otherwise the turn that goes on with it comes here again.
    if (!this.catchUp() || this.#watch.closed) return;
    this.#settled();
    this.wait();
  }

  #pause(later: (act: () => void) => void): false {
    this.#paused = true;
    later(() => {
      this.#paused = false;
      this.#go();
    });
    return false;
  }
}

/** Each of them, so many in one step. */
export function* inSlices<T>(items: Iterable<T>, act: (item: T) => void): Generator<void, void> {
  let count = 0;
  for (const item of items) {
    act(item);
    if (++count % sliceMax === 0) yield;
  }
}
