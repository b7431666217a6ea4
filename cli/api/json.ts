/**
 * JSON with exact integers: sizes and times of the API go up to 2^63, and a spec that we send back must not have lost
 * its last digits. Numbers beyond 2^53 become BigInt, and leave as they came.
 */

/** Node 24 has both; TypeScript's library does not know them yet. */
interface ExactJson {
  parse(text: string, reviver: (key: string, value: unknown, context: { source?: string }) => unknown): unknown;
  rawJSON(text: string): unknown;
}
const exact = JSON as unknown as ExactJson;

export function parseJson(text: string): unknown {
  // The reviver costs five times the parsing; few answers hold such a number.
  if (!/\d{16}/.test(text)) return JSON.parse(text) as unknown;
  return exact.parse(text, (_key, value, { source }) =>
    typeof value === "number" && !Number.isSafeInteger(value) && source !== undefined && /^-?\d+$/.test(source)
      ? BigInt(source)
      : value,
  );
}

export function stringifyJson(value: unknown, indent?: number): string {
  return JSON.stringify(
    value,
    (_key, member: unknown) => (typeof member === "bigint" ? exact.rawJSON(member.toString()) : member),
    indent,
  );
}
