/**
 * JSON as the Engine API's clients and servers have it: integers of 64 bits are exact both ways (as BigInt where a number
 * would round), and what cannot be read is refused in the words of Go's decoder, which clients and tests know.
 */
export type Json = null | boolean | number | bigint | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json | undefined;
}

/** Why a text is no JSON, in Go's words. */
export class JsonError extends Error {}

const depthMax = 200;
/** Without so many digits in a row there is no integer that a number cannot hold. */
const longNumber = /\d{16}/;

/** @throws JsonError */
export function parseJson(text: string): Json {
  if (!longNumber.test(text)) {
    try {
      return JSON.parse(text) as Json;
    } catch {
      // The slow way finds the same, and says what it found.
    }
  }
  return new Parser(text).parse();
}

/** V8 writes such a text as it is. */
const { rawJSON } = JSON as unknown as { readonly rawJSON: (text: string) => object };

export function formatJson(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch (error) {
    // Long lists have no integer that a number cannot hold, and looking at each value would take twice as long.
    if (!(error instanceof TypeError)) throw error;
    return JSON.stringify(value, (_key, part: unknown) => (typeof part === "bigint" ? rawJSON(String(part)) : part));
  }
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): Json {
    const value = this.#value(0);
    this.#space();
    if (this.#at < this.#text.length) throw this.#invalid("after top-level value");
    return value;
  }

  #value(depth: number): Json {
    if (depth > depthMax) throw new JsonError("exceeded max depth");
    this.#space();
    const first = this.#text[this.#at];
    switch (first) {
      case "{":
        return this.#object(depth);
      case "[":
        return this.#array(depth);
      case '"':
        return this.#string();
      case "t":
        return this.#word("true", true);
      case "f":
        return this.#word("false", false);
      case "n":
        return this.#word("null", null);
      default:
        if (first !== undefined && (first === "-" || isDigit(first))) return this.#number();
        throw this.#invalid("looking for beginning of value");
    }
  }

  #object(depth: number): JsonObject {
    const entries: [string, Json][] = [];
    this.#at++;
    this.#space();
    if (this.#take("}")) return {};
    for (;;) {
      this.#space();
      if (this.#text[this.#at] !== '"') throw this.#invalid("looking for beginning of object key string");
      const key = this.#string();
      this.#space();
      if (!this.#take(":")) throw this.#invalid("after object key");
      entries.push([key, this.#value(depth + 1)]);
      this.#space();
      if (this.#take("}")) return Object.fromEntries(entries);
      if (!this.#take(",")) throw this.#invalid("after object key:value pair");
    }
  }

  #array(depth: number): Json[] {
    const items: Json[] = [];
    this.#at++;
    this.#space();
    if (this.#take("]")) return items;
    for (;;) {
      items.push(this.#value(depth + 1));
      this.#space();
      if (this.#take("]")) return items;
      if (!this.#take(",")) throw this.#invalid("after array element");
    }
  }

  #string(): string {
    const start = this.#at++;
    for (;;) {
      const next = this.#text[this.#at];
      if (next === undefined) throw this.#end();
      if (next === '"') break;
      if (next < " ") throw this.#invalid("in string literal");
      this.#at++;
      if (next === "\\") this.#escape();
    }
    this.#at++;
    return JSON.parse(this.#text.slice(start, this.#at)) as string;
  }

  #escape(): void {
    const kind = this.#text[this.#at];
    if (kind === undefined) throw this.#end();
    if (!'"\\/bfnrtu'.includes(kind)) throw this.#invalid("in string escape code");
    this.#at++;
    if (kind !== "u") return;
    for (let digits = 0; digits < 4; digits++, this.#at++) {
      const digit = this.#text[this.#at];
      if (digit === undefined) throw this.#end();
      if (!/[0-9a-fA-F]/.test(digit)) throw this.#invalid("in \\u hexadecimal character escape");
    }
  }

  #number(): number | bigint {
    const start = this.#at;
    if (this.#text[this.#at] === "-") this.#at++;
    if (this.#text[this.#at] === "0") this.#at++;
    else this.#digits("in numeric literal");
    let whole = true;
    if (this.#text[this.#at] === ".") {
      whole = false;
      this.#at++;
      this.#digits("after decimal point in numeric literal");
    }
    if (/[eE]/.test(this.#text[this.#at] ?? "")) {
      whole = false;
      this.#at++;
      if (/[+-]/.test(this.#text[this.#at] ?? "")) this.#at++;
      this.#digits("in exponent of numeric literal");
    }
    const text = this.#text.slice(start, this.#at);
    const value = Number(text);
    return whole && !Number.isSafeInteger(value) ? BigInt(text) : value;
  }

  #digits(where: string): void {
    if (!isDigit(this.#text[this.#at] ?? "")) throw this.#invalid(where);
    while (isDigit(this.#text[this.#at] ?? "")) this.#at++;
  }

  #word<T>(word: string, value: T): T {
    for (let place = 0; place < word.length; place++, this.#at++) {
      if (this.#text[this.#at] !== word[place]) throw this.#invalid(`in literal ${word} (expecting '${word[place]}')`);
    }
    return value;
  }

  #take(wanted: string): boolean {
    if (this.#text[this.#at] !== wanted) return false;
    this.#at++;
    return true;
  }

  #space(): void {
    while (/[ \t\r\n]/.test(this.#text[this.#at] ?? "")) this.#at++;
  }

  #invalid(where: string): JsonError {
    const found = this.#text[this.#at];
    if (found === undefined) return this.#end();
    const shown = found === "'" ? "'\\''" : found === '"' ? `'"'` : `'${JSON.stringify(found).slice(1, -1)}'`;
    return new JsonError(`invalid character ${shown} ${where}`);
  }

  #end(): JsonError {
    return new JsonError(this.#text.trim() === "" ? "got EOF while reading request body" : "unexpected EOF");
  }
}

const isDigit = (text: string): boolean => text >= "0" && text <= "9" && text.length === 1;
