/**
 * One mapper for every object: messages of proto/objects.proto become JSON of the Engine API and back, by what the
 * messages themselves say of their fields. Durations are nanoseconds, times RFC 3339, enumerations words, bytes base64.
 */
import { shapes, type FieldShape } from "../../proto/gen/shapes.js";
import { BadRequest, newestMinor, type Json, type JsonObject } from "../http/index.ts";
import {
  alwaysWritten,
  apiName,
  apiWord,
  internal,
  mustBeSaid,
  isQuoted,
  refusalOf,
  sinceMinor,
  writtenDefaults,
} from "./names.ts";

type Message = Readonly<Record<string, unknown>>;

interface Field extends FieldShape {
  /** In the message. */
  readonly name: string;
  /** In the API. */
  readonly apiName: string;
  /** MESSAGE.name */
  readonly key: string;
  /** Written even when it is zero. */
  readonly always: boolean;
  /** Of an enumeration: the API's words by number. */
  readonly words: ReadonlyMap<number, string> | undefined;
}

interface MessageShape {
  readonly fields: readonly Field[];
  /** By the name in the API in lower case, since Go reads names whatever their case. */
  readonly byName: ReadonlyMap<string, Field>;
}

const known = new Map<string, MessageShape>();

function shapeOf(message: string): MessageShape {
  let shape = known.get(message);
  if (shape === undefined) {
    const fields = Object.entries(shapes.messages[message] ?? {})
      .map(([name, field]) => ({
        ...field,
        name,
        apiName: apiName(message, name),
        key: `${message}.${name}`,
        always: alwaysWritten.has(`${message}.${name}`),
        words: wordsOf(field.type),
      }))
      .filter(({ key }) => !internal.has(key));
    shape = { fields, byName: new Map(fields.map((field) => [field.apiName.toLowerCase(), field])) };
    known.set(message, shape);
  }
  return shape;
}

function wordsOf(type: string): ReadonlyMap<number, string> | undefined {
  const words = shapes.enums[type];
  return words === undefined
    ? undefined
    : new Map(Object.entries(words).map(([name, number]) => [number, apiWord(type, name)]));
}

// ------------------------------------------------------------------------------------------------------------ to the API

/** @param message  name of the message's type, such as "ServiceSpec" */
export function toApi(message: string, object: object): JsonObject {
  const json: Record<string, Json> = {};
  for (const field of shapeOf(message).fields) {
    const value = fieldToApi(field, (object as Message)[field.name]);
    if (value !== undefined) json[field.apiName] = value;
  }
  return json;
}

function fieldToApi(field: Field, value: unknown): Json | undefined {
  const { always } = field;
  if (field.rule === "repeated") {
    const items = (value ?? []) as readonly unknown[];
    if (items.length === 0) return always ? [] : undefined;
    return items.map((item) => valueToApi(field, item));
  }
  if (field.rule === "map") {
    const entries = Object.entries((value ?? {}) as Message);
    if (entries.length === 0) return always ? {} : undefined;
    return Object.fromEntries(entries.map(([key, item]) => [key, valueToApi(field, item)]));
  }
  if (value === null || value === undefined) {
    return always && isScalar(field) ? zeroOf(field) : writtenDefaults.get(field.key);
  }
  if (field.optional !== true && !always && isZero(value) && field.words === undefined) return undefined;
  return valueToApi(field, value);
}

const isScalar = (field: Field): boolean => shapes.messages[field.type] === undefined;
const isZero = (value: unknown): boolean =>
  value === 0 || value === "" || value === false || (value instanceof Uint8Array && value.length === 0);
const zeroOf = (field: Field): Json => (field.type === "string" ? "" : field.type === "bool" ? false : 0);

function valueToApi(field: Field, value: unknown): Json {
  const { type } = field;
  if (field.words !== undefined) return field.words.get(value as number) ?? "";
  if (type === "Duration") return durationToNs(value as DurationParts);
  // A list of lists has no other form in protobuf.
  if (type === "StringList") return (value as { readonly values: readonly string[] }).values;
  if (shapes.messages[type] !== undefined) return toApi(type, value as object);
  if (type === "bytes") return Buffer.from(value as Uint8Array).toString("base64");
  if (field.name.endsWith("Us")) return dateOf(value as number);
  return value as Json;
}

interface DurationParts {
  readonly seconds?: number | null;
  readonly nanos?: number | null;
}

/** As a number where it is exact. */
function durationToNs({ seconds, nanos }: DurationParts): number | bigint {
  const exact = BigInt(seconds ?? 0) * 1_000_000_000n + BigInt(nanos ?? 0);
  const rounded = Number(exact);
  return Number.isSafeInteger(rounded) ? rounded : exact;
}

let lastSecond = { whole: Number.NaN, text: "" };

/** @param us  microseconds since 1970; 0 is Go's zero time */
export function dateOf(us: number): string {
  if (us === 0) return "0001-01-01T00:00:00Z";
  const whole = Math.floor(us / 1e6);
  const fraction = String(us - whole * 1e6)
    .padStart(6, "0")
    .replace(/0+$/, "");
  // Objects of a list were often changed in the same second.
  if (whole !== lastSecond.whole) lastSecond = { whole, text: new Date(whole * 1000).toISOString().slice(0, 19) };
  return fraction === "" ? `${lastSecond.text}Z` : `${lastSecond.text}.${fraction}Z`;
}

// ---------------------------------------------------------------------------------------------------------- from the API

/**
 * @param minor  the API version that the client speaks, 1.MINOR
 * @returns      properties of a message
 * @throws       BadRequest in the words of Go's decoder
 */
export function fromApi(message: string, json: JsonObject, minor: number = newestMinor): Record<string, unknown> {
  const shape = shapeOf(message);
  const object: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(json)) {
    const field = shape.byName.get(name.toLowerCase());
    if (field === undefined || value === null || value === undefined) continue;
    if ((sinceMinor.get(field.key) ?? 0) > minor) continue;
    const read = fieldFromApi(field, value, minor, message);
    if (read !== undefined) object[field.name] = read;
  }
  return object;
}

function fieldFromApi(field: Field, value: Json, minor: number, message: string): unknown {
  const where = `${message}.${field.apiName}`;
  if (field.rule === "repeated") {
    if (!Array.isArray(value)) throw mismatch(value, where, `[]${goType(field)}`);
    return (value as readonly Json[]).map((item) => valueFromApi(field, item, minor, where));
  }
  if (field.rule === "map") {
    if (!isObject(value)) throw mismatch(value, where, `map[string]${goType(field)}`);
    const entries = Object.entries(value).map(
      ([key, item]) => [key, item === null ? "" : valueFromApi(field, item ?? null, minor, where)] as const,
    );
    return Object.fromEntries(entries);
  }
  return valueFromApi(field, value, minor, where);
}

function valueFromApi(field: Field, value: Json, minor: number, where: string): unknown {
  const { type } = field;
  const words = shapes.enums[type];
  if (words !== undefined) return wordFromApi(type, words, value, where);
  if (type === "Duration") return durationFromNs(value, where);
  if (type === "StringList") {
    if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
      throw mismatch(value, where, "[]string");
    }
    return { values: value };
  }
  if (shapes.messages[type] !== undefined) {
    if (value === null) return {};
    if (!isObject(value)) throw mismatch(value, where, goType(field));
    return fromApi(type, value, minor);
  }
  if (type === "string") {
    if (typeof value !== "string") throw mismatch(value, where, "string");
    return value;
  }
  if (type === "bool") {
    if (typeof value !== "boolean") throw mismatch(value, where, "bool");
    return value;
  }
  if (type === "bytes") return bytesFromApi(value, where);
  if (field.name.endsWith("Us")) return undefined; // times are the managers' to set
  return numberFromApi(type, value, where);
}

function wordFromApi(type: string, words: Readonly<Record<string, number>>, value: Json, where: string): number {
  if (typeof value !== "string") throw mismatch(value, where, "string");
  if (value === "" && !mustBeSaid.has(type)) return 0;
  for (const [name, number] of Object.entries(words)) {
    if (apiWord(type, name) === value.toLowerCase() && value !== "") return number;
  }
  throw new BadRequest(
    `${refusalOf(type)}${isQuoted(type) ? JSON.stringify(value.slice(0, 64)) : value.slice(0, 64)}`,
    `Use one of ${Object.keys(words)
      .map((name) => apiWord(type, name))
      .filter((word) => word !== "")
      .join(", ")}`,
  );
}

function bytesFromApi(value: Json, where: string): Uint8Array {
  if (typeof value !== "string") throw mismatch(value, where, "[]uint8");
  const bytes = Buffer.from(value, "base64");
  // Node skips what is no base64; the reference names the first such byte.
  const bad =
    /[^A-Za-z0-9+/=\r\n]/.exec(value)?.index ??
    (bytes.length === Math.floor((value.replace(/[=\r\n]/g, "").length * 3) / 4) ? -1 : value.length);
  if (bad >= 0) throw new BadRequest(`invalid JSON: illegal base64 data at input byte ${bad}`);
  return bytes;
}

const integerRanges: Readonly<Record<string, readonly [min: number, max: number]>> = {
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  uint64: [0, Number.MAX_SAFE_INTEGER],
};

function numberFromApi(type: string, value: Json, where: string): number {
  if (typeof value !== "number" && typeof value !== "bigint") throw mismatch(value, where, type);
  const range = integerRanges[type];
  if (range === undefined) return Number(value);
  const [min, max] = range;
  if (typeof value === "bigint" || !Number.isInteger(value) || value < min || value > max) {
    throw new BadRequest(
      `invalid JSON: json: cannot unmarshal number ${value} into Go struct field ${where} of type ${type}`,
    );
  }
  return value;
}

const int64Max = 2n ** 63n - 1n;

function durationFromNs(value: Json, where: string): DurationParts {
  if (typeof value !== "number" && typeof value !== "bigint") throw mismatch(value, where, "time.Duration");
  if (typeof value === "number" && !Number.isInteger(value)) {
    throw new BadRequest(
      `invalid JSON: json: cannot unmarshal number ${value} into Go struct field ${where} of type time.Duration`,
    );
  }
  const ns = BigInt(value);
  if (ns > int64Max || ns < -int64Max) {
    throw new BadRequest(
      `invalid JSON: json: cannot unmarshal number ${value} into Go struct field ${where} of type time.Duration`,
    );
  }
  return { seconds: Number(ns / 1_000_000_000n), nanos: Number(ns % 1_000_000_000n) };
}

const isObject = (value: Json): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function goType(field: Field): string {
  if (shapes.enums[field.type] !== undefined) return "string";
  return shapes.messages[field.type] === undefined ? field.type : `swarm.${field.type}`;
}

function mismatch(value: Json, where: string, type: string): BadRequest {
  const kind =
    value === null
      ? "null"
      : Array.isArray(value)
        ? "array"
        : typeof value === "bigint"
          ? "number"
          : typeof value === "boolean"
            ? "bool"
            : typeof value;
  return new BadRequest(`invalid JSON: json: cannot unmarshal ${kind} into Go struct field ${where} of type ${type}`);
}
