/** The query of a request: Go's booleans, versions, filters in both forms. */
import { BadRequest } from "./errors.ts";
import { JsonError, parseJson } from "./json.ts";

const falsehoods = new Set(["", "0", "no", "false", "none"]);

/** Values of one key; for booleans of newer clients, `true` as text. */
export type Filters = ReadonlyMap<string, readonly string[]>;

const filterBytesMax = 64 * 1024;

export class Query {
  readonly #params: URLSearchParams;

  constructor(text: string) {
    this.#params = new URLSearchParams(text);
  }

  text(name: string): string {
    return this.#params.get(name) ?? "";
  }

  /** Undefined if it is not there. */
  maybe(name: string): string | undefined {
    return this.#params.get(name) ?? undefined;
  }

  all(name: string): readonly string[] {
    return this.#params.getAll(name);
  }

  /** As Go's clients write them, and Python's. */
  bool(name: string, unsaid = false): boolean {
    const value = this.#params.get(name);
    return value === null ? unsaid : !falsehoods.has(value.trim().toLowerCase());
  }

  /** @throws BadRequest */
  integer(name: string, unsaid: number): number {
    const value = this.#params.get(name);
    if (value === null || value === "") return unsaid;
    if (!/^[+-]?\d{1,15}$/.test(value)) {
      throw new BadRequest(`strconv.ParseInt: parsing ${JSON.stringify(value.slice(0, 64))}: invalid syntax`);
    }
    return Number(value);
  }

  /** The `version` of an update, which must be there. @throws BadRequest */
  version(kind: string): number {
    const value = this.text("version");
    if (/^\d{1,16}$/.test(value) && Number.isSafeInteger(Number(value))) return Number(value);
    throw new BadRequest(
      `invalid ${kind} version '${value.slice(0, 64)}': strconv.ParseUint: parsing ${JSON.stringify(value.slice(0, 64))}: invalid syntax`,
      `Read the ${kind} and give its version`,
    );
  }

  /**
   * {"name":{"web":true}} or, as older clients and libraries send it, {"name":["web"]}.
   * @param known  keys that this list has
   * @throws BadRequest
   */
  filters(known: readonly string[]): Filters {
    const text = this.text("filters");
    const filters = new Map<string, readonly string[]>();
    if (text === "") return filters;
    if (text.length > filterBytesMax) throw new BadRequest(`filters of more than ${filterBytesMax} characters`);
    let value;
    try {
      value = parseJson(text);
    } catch (error) {
      throw new BadRequest(error instanceof JsonError ? error.message : "invalid filters");
    }
    if (value === null) return filters;
    if (typeof value !== "object" || Array.isArray(value)) throw new BadRequest("invalid filter: it must be an object");
    for (const [key, values] of Object.entries(value)) {
      if (!known.includes(key)) throw new BadRequest(`invalid filter '${key.slice(0, 64)}'`, `Use ${known.join(", ")}`);
      filters.set(key, valuesOf(key, values));
    }
    return filters;
  }
}

function valuesOf(key: string, values: unknown): readonly string[] {
  if (Array.isArray(values) && values.every((item) => typeof item === "string")) return values;
  if (typeof values === "object" && values !== null && !Array.isArray(values)) {
    return Object.entries(values)
      .filter(([, wanted]) => wanted !== false)
      .map(([value]) => value);
  }
  throw new BadRequest(`invalid filter '${key}': its values must be a list or an object`);
}
