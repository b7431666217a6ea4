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

export class State {
  /** Log index of the last entry applied. */
  index = 0;
  /** The log's clock: the time of the last entry that had one. */
  timeUs = 0;
  level = 1;
  readonly #sum: Digest = { a: 0, b: 0 };
  readonly #tables = new Map<number, Table>();
  #frozen: FrozenState | undefined;

  constructor(catalog: Catalog) {
    for (const { table } of catalog.kinds) this.#tables.set(table.number, new Table(table, this.#sum));
  }

  table(kind: number): Table {
    return this.#tables.get(kind) ?? unreachable("a kind without a table", { kind });
  }

  /** Forgets the frozen view; called whenever anything changes. */
  touch(): void {
    this.#frozen = undefined;
  }

  freeze(): FrozenState {
    if (this.#frozen === undefined) {
      const tables = new Map<number, FrozenTable>();
      for (const [kind, table] of this.#tables) tables.set(kind, table.freeze());
      const { index, timeUs, level } = this;
      const { a, b } = this.#sum;
      this.#frozen = {
        index,
        timeUs,
        level,
        get hash() {
          return hashOf({ a, b }, timeUs, level);
        },
        table: (kind) => tables.get(kind) ?? unreachable("a kind without a table", { kind }),
      };
    }
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
