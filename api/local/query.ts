/** Query parameters of these routes, over the kernel's: moments, numbers that may be missing, and what filters mean. */
import { BadRequest, type Query as KernelQuery } from "../http/index.ts";

export class Query {
  readonly #query: KernelQuery;

  constructor(query: KernelQuery) {
    this.#query = query;
  }

  /** Empty when it is not there. */
  text(name: string): string {
    return this.#query.text(name);
  }

  all(name: string): readonly string[] {
    return this.#query.all(name);
  }

  flag(name: string, unsaid = false): boolean {
    return this.#query.bool(name, unsaid);
  }

  /** @throws BadRequest when it is there and no whole number */
  integer(name: string): number | undefined {
    return this.#query.text(name) === "" ? undefined : this.#query.integer(name, 0);
  }

  /** Seconds since 1970 with a fraction, or RFC 3339, in nanoseconds. */
  timeNs(name: string): bigint | undefined {
    const text = this.text(name);
    return text === "" ? undefined : parseTimeNs(name, text);
  }

  /** @param keys  those that this list knows */
  filters(keys: readonly string[]): Filters {
    return new Filters(this.#query.filters(keys));
  }
}

function parseTimeNs(name: string, text: string): bigint {
  const parts = /^([0-9]{1,12})(?:\.([0-9]{1,9}))?$/.exec(text);
  if (parts !== null) return BigInt(parts[1] ?? "0") * 1_000_000_000n + BigInt((parts[2] ?? "").padEnd(9, "0"));
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new BadRequest(`invalid value "${text.slice(0, 64)}" for ${name}: it is no time`);
  return BigInt(ms) * 1_000_000n;
}

/** Values of one key are alternatives, keys and several labels are conditions. */
export class Filters {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(values: ReadonlyMap<string, readonly string[]>) {
    this.#values = values;
  }

  values(key: string): readonly string[] {
    return this.#values.get(key) ?? [];
  }

  has(key: string): boolean {
    return this.values(key).length > 0;
  }

  /** True without that filter. */
  some(key: string, fits: (value: string) => boolean): boolean {
    return !this.has(key) || this.values(key).some(fits);
  }

  /** `label=k`, `label=k=v`, all of them; `label!` none of them. */
  labels(labels: Readonly<Record<string, string>>): boolean {
    const fits = (wanted: string): boolean => {
      const equals = wanted.indexOf("=");
      const key = equals < 0 ? wanted : wanted.slice(0, equals);
      return Object.hasOwn(labels, key) && (equals < 0 || labels[key] === wanted.slice(equals + 1));
    };
    return this.values("label").every(fits) && !this.values("label!").some(fits);
  }

  /** One boolean; undefined without that filter. @throws BadRequest */
  flag(key: string): boolean | undefined {
    const [value, ...others] = this.values(key);
    if (value === undefined) return undefined;
    const known = { "1": true, true: true, "0": false, false: false }[value.toLowerCase()];
    if (known === undefined || others.length > 0) throw new BadRequest(`invalid filter '${key}=${value}'`);
    return known;
  }

  /** The moment of `until`, in ms: a time, or a duration before now ("10m", "24h30m"). */
  untilMs(nowMs: number): number | undefined {
    const [value] = this.values("until");
    if (value === undefined) return undefined;
    const duration = /^(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9.]+)s)?$/.exec(value);
    if (duration !== null && value !== "") {
      const [, hours = "0", minutes = "0", seconds = "0"] = duration;
      return nowMs - (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1000;
    }
    return Number(parseTimeNs("until", value) / 1_000_000n);
  }
}
