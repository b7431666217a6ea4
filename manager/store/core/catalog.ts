/** The schema by number and by name, together with the kinds that the store keeps for itself. */
import { invariant } from "../../../lib/pure/errors.ts";
import type { Codec, Schema, TableSchema } from "./schema.ts";

/** Numbers from here on belong to the store's own kinds. */
const ownKindsFrom = 1000;

export const sessionKind = 1000;
export const replyKind = 1001;
export const memberKind = 1002;

/** Index 0 of sessions: when each is forgotten. */
export const sessionExpiry = 0;

export interface KindEntry {
  readonly name: string;
  readonly table: TableSchema;
  /** Shown to rooms, in views and watches. */
  readonly visible: boolean;
  /** Position of each index in the schema's order. */
  readonly indexNumbers: ReadonlyMap<string, number>;
  /** Positions of the unique ones, and their names. */
  readonly unique: readonly { readonly index: number; readonly name: string }[];
}

export class Catalog {
  /** Ascending by number: the order of snapshots. */
  readonly kinds: readonly KindEntry[];
  readonly #byNumber = new Map<number, KindEntry>();
  readonly #byName = new Map<string, KindEntry>();

  /** @param own  codecs and keys of the store's own kinds */
  constructor(schema: Schema, own: Schema) {
    const kinds: KindEntry[] = [];
    for (const [name, table] of Object.entries<TableSchema>(schema)) {
      const { number } = table;
      invariant(number > 0 && number < ownKindsFrom, "a kind's number is 1 .. 999", { name, number });
      kinds.push(entry(name, table, true));
    }
    for (const [name, table] of Object.entries<TableSchema>(own)) kinds.push(entry(`$${name}`, table, false));
    kinds.sort((a, b) => a.table.number - b.table.number);
    this.kinds = kinds;
    for (const kind of kinds) {
      invariant(!this.#byNumber.has(kind.table.number), "kinds have numbers of their own", { name: kind.name });
      this.#byNumber.set(kind.table.number, kind);
      this.#byName.set(kind.name, kind);
    }
  }

  byNumber(number: number): KindEntry | undefined {
    return this.#byNumber.get(number);
  }

  byName(name: string): KindEntry {
    const found = this.#byName.get(name);
    invariant(found !== undefined, "the kind is in the schema", { name });
    return found;
  }
}

export function indexNumber(kind: KindEntry, index: string): number {
  const found = kind.indexNumbers.get(index);
  invariant(found !== undefined, "the index is in the schema", { kind: kind.name, index });
  return found;
}

function entry(name: string, table: TableSchema, visible: boolean): KindEntry {
  const names = Object.keys(table.indexes);
  return {
    name,
    table,
    visible,
    indexNumbers: new Map(names.map((index, at) => [index, at])),
    unique: names.flatMap((index, at) => (table.indexes[index]?.unique === true ? [{ index: at, name: index }] : [])),
  };
}

/** Text whose order is the number's. */
export function orderedKey(value: number): string {
  return String(value).padStart(16, "0");
}

/** The codec of a message that needs neither id nor meta. */
export function plainCodec<T>(message: {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}): Codec<T, T> {
  return {
    encode: (object) => message.encode(object).finish(),
    decode: (bytes) => message.decode(bytes),
  };
}
