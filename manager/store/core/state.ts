/** All tables at one index, written by the machine alone; frozen in O(tables) for views and snapshots. */
import { unreachable } from "../../../lib/pure/errors.ts";
import type { Catalog } from "./catalog.ts";
import { digestHex, digestNumber, finishDigest, type Digest } from "./hash.ts";
import { Table, type FrozenTable } from "./table.ts";

export interface FrozenState {
  readonly index: number;
  readonly timeUs: number;
  readonly level: number;
  readonly hash: string;
  table(kind: number): FrozenTable;
}

/** A class and not an object with a getter: one is made for each turn in which somebody reads or writes. */
class Frozen implements FrozenState {
  readonly index: number;
  readonly timeUs: number;
  readonly level: number;
  readonly #sum: Digest;
  readonly #tables: readonly FrozenTable[];
  readonly #places: ReadonlyMap<number, number>;

  constructor(
    { index, timeUs, level }: State,
    sum: Digest,
    tables: readonly FrozenTable[],
    places: ReadonlyMap<number, number>,
  ) {
    this.index = index;
    this.timeUs = timeUs;
    this.level = level;
    this.#sum = sum;
    this.#tables = tables;
    this.#places = places;
  }

  get hash(): string {
    return hashOf({ ...this.#sum }, this.timeUs, this.level);
  }

  table(kind: number): FrozenTable {
    return this.#tables[this.#places.get(kind) ?? -1] ?? unreachable("a kind without a table", { kind });
  }
}

export class State {
  /** Log index of the last entry applied. */
  index = 0;
  /** The log's clock: the time of the last entry that had one. */
  timeUs = 0;
  level = 1;
  readonly #sum: Digest = { a: 0, b: 0 };
  readonly #tables: readonly Table[];
  /** Where the table of a kind stands. */
  readonly #places: ReadonlyMap<number, number>;
  #frozen: FrozenState | undefined;

  constructor(catalog: Catalog) {
    const kinds = [...catalog.kinds];
    this.#tables = kinds.map(({ table }) => new Table(table, this.#sum));
    this.#places = new Map(kinds.map(({ table }, place) => [table.number, place]));
  }

  table(kind: number): Table {
    return this.#tables[this.#places.get(kind) ?? -1] ?? unreachable("a kind without a table", { kind });
  }

  /** Forgets the frozen view; called whenever anything changes. */
  touch(): void {
    this.#frozen = undefined;
  }

  freeze(): FrozenState {
    this.#frozen ??= new Frozen(
      this,
      { ...this.#sum },
      this.#tables.map((table) => table.freeze()),
      this.#places,
    );
    return this.#frozen;
  }

  /** Order-independent digest of all objects, the log's clock and the feature level. */
  hash(): string {
    return hashOf({ ...this.#sum }, this.timeUs, this.level);
  }
}

function hashOf(digest: Digest, timeUs: number, level: number): string {
  digestNumber(digest, timeUs);
  digestNumber(digest, level);
  finishDigest(digest);
  return digestHex(digest);
}
