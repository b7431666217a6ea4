/**
 * The part of Go's text/template that `--format` is used with: fields, variables, pipes, if/else, range, with, and
 * the functions below. Values are the API's JSON, so a field is looked up by its exact name, then without regard to case.
 */
import { stringifyJson } from "../api/json.ts";
import { CommandError } from "../errors.ts";

export type Template = (data: unknown) => string;

/**
 * @param isRow  what it is run on has all members that there are, so another name is a mistake
 * @throws       CommandError when the template cannot be read; running it throws one too (an index out of range)
 */
export function compileTemplate(source: string, isRow = false): Template {
  const parser = new Parser(tokenize(source));
  const nodes = parser.block();
  return (data) => {
    const out: string[] = [];
    run(nodes, { dot: data, variables: new Map([["$", data]]), ...(isRow ? { row: data } : {}) }, out);
    return out.join("");
  };
}

type Expression =
  | { readonly kind: "literal"; readonly value: unknown }
  | { readonly kind: "dot" }
  | { readonly kind: "variable"; readonly name: string }
  | { readonly kind: "field"; readonly of: Expression; readonly name: string }
  | { readonly kind: "call"; readonly name: string; readonly args: readonly Expression[] };

type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "print"; readonly value: Expression }
  | { readonly kind: "assign"; readonly name: string; readonly value: Expression }
  | { readonly kind: "if" | "with"; readonly value: Expression; readonly body: Node[]; readonly otherwise: Node[] }
  | {
      readonly kind: "range";
      readonly names: readonly string[];
      readonly value: Expression;
      readonly body: Node[];
      readonly otherwise: Node[];
    };

interface Scope {
  readonly dot: unknown;
  /** Has no other members than those it has. */
  readonly row?: unknown;
  readonly variables: Map<string, unknown>;
}

type Piece = { readonly text: string } | { readonly words: readonly string[] };

/** Text and actions in turn; an action is already cut into words. */
function tokenize(source: string): Piece[] {
  const pieces: Piece[] = [];
  let rest = source;
  let trimNext = false;
  while (rest !== "") {
    const open = rest.indexOf("{{");
    let text = open < 0 ? rest : rest.slice(0, open);
    if (trimNext) text = text.trimStart();
    if (open < 0) {
      pieces.push({ text });
      break;
    }
    const close = endOfAction(rest, open + 2);
    let action = rest.slice(open + 2, close);
    if (/^-\s/.test(action)) {
      text = text.trimEnd();
      action = action.slice(1);
    }
    trimNext = /\s-$/.test(action);
    if (trimNext) action = action.slice(0, -1);
    pieces.push({ text });
    if (!action.trim().startsWith("/*")) pieces.push({ words: words(action) });
    rest = rest.slice(close + 2);
  }
  return pieces;
}

/** Where `}}` stands, not counting what is inside a string. */
function endOfAction(source: string, from: number): number {
  let quote = "";
  for (let at = from; at < source.length; at++) {
    const char = source.charAt(at);
    if (quote !== "") {
      if (char === "\\" && quote === '"') at++;
      else if (char === quote) quote = "";
    } else if (char === '"' || char === "`") quote = char;
    else if (source.startsWith("}}", at)) return at;
  }
  throw bad("unclosed action");
}

function words(action: string): string[] {
  const found: string[] = [];
  const word =
    /\s*("(?:[^"\\]|\\.)*"|`[^`]*`|:=|=|\||\(|\)|,|\$?(?:\.?[\p{L}_][\p{L}\p{N}_]*)+|\$|\.|-?\d+(?:\.\d+)?)/uy;
  while (word.lastIndex < action.length) {
    const from = word.lastIndex;
    const match = word.exec(action);
    if (match === null) {
      if (action.slice(from).trim() === "") break;
      throw bad(`unexpected ${JSON.stringify(action.slice(from).trim().charAt(0))} in command`);
    }
    found.push(match[1] ?? "");
  }
  return found;
}

class Parser {
  readonly #pieces: readonly Piece[];
  #at = 0;
  /** Of the action being read. */
  #words: readonly string[] = [];
  #word = 0;
  constructor(pieces: readonly Piece[]) {
    this.#pieces = pieces;
  }

  /** Up to the end, or up to an `else` or `end` when `nested`. */
  block(nested = false): Node[] {
    const nodes: Node[] = [];
    while (this.#at < this.#pieces.length) {
      const piece = this.#pieces[this.#at];
      if (piece === undefined) break;
      if ("text" in piece) {
        if (piece.text !== "") nodes.push({ kind: "text", text: piece.text });
        this.#at++;
        continue;
      }
      const first = piece.words[0];
      if (first === "else" || first === "end") {
        if (!nested) throw bad(`unexpected {{${first}}}`);
        return nodes;
      }
      this.#at++;
      nodes.push(this.#action(piece.words));
    }
    if (nested) throw bad("unexpected EOF");
    return nodes;
  }

  #action(action: readonly string[]): Node {
    this.#words = action;
    this.#word = 0;
    const first = action[0];
    switch (first) {
      case undefined:
        throw bad("missing value for command");
      case "if":
      case "with": {
        this.#word = 1;
        const value = this.#pipeline();
        return { kind: first, value, body: this.block(true), otherwise: this.#otherwise() };
      }
      case "range": {
        this.#word = 1;
        const names: string[] = [];
        const assign = action.indexOf(":=");
        if (assign > 0) {
          names.push(...action.slice(1, assign).filter((word) => word !== ","));
          this.#word = assign + 1;
        }
        const value = this.#pipeline();
        return { kind: "range", names, value, body: this.block(true), otherwise: this.#otherwise() };
      }
      default:
        if (first.startsWith("$") && (action[1] === ":=" || action[1] === "=")) {
          this.#word = 2;
          return { kind: "assign", name: first, value: this.#pipeline() };
        }
        return { kind: "print", value: this.#pipeline() };
    }
  }

  /** At an `else` or `end`; leaves past the `end`. */
  #otherwise(): Node[] {
    const piece = this.#pieces[this.#at++];
    const words = piece !== undefined && "words" in piece ? piece.words : [];
    if (words[0] !== "else") return [];
    if (words.length > 1) return [this.#action(words.slice(1))];
    const nodes = this.block(true);
    this.#at++;
    return nodes;
  }

  #pipeline(): Expression {
    let value = this.#command(undefined);
    while (this.#words[this.#word] === "|") {
      this.#word++;
      value = this.#command(value);
    }
    if (this.#word < this.#words.length && this.#words[this.#word] !== ")") {
      throw bad(`unexpected ${JSON.stringify(this.#words[this.#word])} in operand`);
    }
    return value;
  }

  /** @param piped what stands left of the pipe: the last argument */
  #command(piped: Expression | undefined): Expression {
    const first = this.#words[this.#word];
    if (first !== undefined && /^[\p{L}_]/u.test(first) && !isLiteral(first)) {
      this.#word++;
      if (!functions.has(first)) throw bad(`function ${JSON.stringify(first)} not defined`);
      const args: Expression[] = [];
      while (this.#word < this.#words.length && !["|", ")"].includes(this.#words[this.#word] ?? "")) {
        args.push(this.#operand());
      }
      return { kind: "call", name: first, args: piped === undefined ? args : [...args, piped] };
    }
    return this.#operand();
  }

  #operand(): Expression {
    const word = this.#words[this.#word++];
    if (word === undefined) throw bad("missing value for command");
    if (word === "(") {
      const inner = this.#pipeline();
      if (this.#words[this.#word++] !== ")") throw bad("unclosed left paren");
      const next = this.#words[this.#word];
      if (next !== undefined && /^\.[\p{L}_]/u.test(next)) {
        this.#word++;
        return fieldsOf(inner, next.slice(1));
      }
      return inner;
    }
    if (word === ".") return { kind: "dot" };
    if (word.startsWith("$")) {
      const [name = "$", ...fields] = word.split(".");
      return fieldsOf({ kind: "variable", name }, fields.join("."));
    }
    if (word.startsWith(".")) return fieldsOf({ kind: "dot" }, word.slice(1));
    if (word.startsWith('"')) return { kind: "literal", value: unquote(word) };
    if (word.startsWith("`")) return { kind: "literal", value: word.slice(1, -1) };
    if (/^-?\d/.test(word)) return { kind: "literal", value: Number(word) };
    if (isLiteral(word)) return { kind: "literal", value: word === "nil" ? null : word === "true" };
    if (functions.has(word)) return { kind: "call", name: word, args: [] };
    throw bad(`function ${JSON.stringify(word)} not defined`);
  }
}

function fieldsOf(of: Expression, names: string): Expression {
  if (names === "") return of;
  return names.split(".").reduce<Expression>((of, name) => ({ kind: "field", of, name }), of);
}

const isLiteral = (word: string): boolean => ["true", "false", "nil"].includes(word);

function unquote(word: string): string {
  try {
    return JSON.parse(word) as string;
  } catch {
    throw bad(`malformed string ${word}`);
  }
}

function run(nodes: readonly Node[], scope: Scope, out: string[]): void {
  for (const node of nodes) {
    switch (node.kind) {
      case "text":
        out.push(node.text);
        break;
      case "print":
        out.push(goString(evaluate(node.value, scope)));
        break;
      case "assign":
        scope.variables.set(node.name, evaluate(node.value, scope));
        break;
      case "if":
        run(truth(evaluate(node.value, scope)) ? node.body : node.otherwise, scope, out);
        break;
      case "with": {
        const value = evaluate(node.value, scope);
        if (truth(value)) run(node.body, { ...scope, dot: value }, out);
        else run(node.otherwise, scope, out);
        break;
      }
      case "range": {
        const entries = entriesOf(evaluate(node.value, scope));
        for (const [key, value] of entries) {
          const [first, second] = node.names;
          if (second !== undefined) scope.variables.set(first ?? "", key).set(second, value);
          else if (first !== undefined) scope.variables.set(first, value);
          run(node.body, { ...scope, dot: value }, out);
        }
        if (entries.length === 0) run(node.otherwise, scope, out);
        break;
      }
    }
  }
}

function evaluate(expression: Expression, scope: Scope): unknown {
  switch (expression.kind) {
    case "literal":
      return expression.value;
    case "dot":
      return scope.dot;
    case "variable":
      if (!scope.variables.has(expression.name)) throw bad(`undefined variable ${JSON.stringify(expression.name)}`);
      return scope.variables.get(expression.name);
    case "field":
      return fieldIn(scope, evaluate(expression.of, scope), expression.name);
    case "call":
      return functions.get(expression.name)?.(...expression.args.map((arg) => evaluate(arg, scope)));
  }
}

function fieldIn(scope: Scope, of: unknown, name: string): unknown {
  const value = field(of, name);
  if (value === undefined && of !== undefined && of === scope.row) {
    throw bad(`executing "" at <.${name}>: can't evaluate field ${name}`);
  }
  return value;
}

/** A method of a row (`.Label "key"` is not offered) or a member of the API's JSON. */
function field(of: unknown, name: string): unknown {
  if (typeof of !== "object" || of === null) return undefined;
  const members = of as Record<string, unknown>;
  if (Object.hasOwn(members, name)) return members[name];
  const lower = name.toLowerCase();
  const found = Object.keys(members).find((key) => key.toLowerCase() === lower);
  return found === undefined ? undefined : members[found];
}

function entriesOf(value: unknown): [unknown, unknown][] {
  if (Array.isArray(value)) return value.map((one: unknown, at) => [at, one]);
  if (typeof value === "object" && value !== null) {
    return Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  }
  return [];
}

function truth(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

/** As fmt's %v prints it. */
function goString(value: unknown): string {
  if (value === undefined) return "<no value>";
  if (value === null) return "<nil>";
  if (Array.isArray(value)) return `[${value.map(goString).join(" ")}]`;
  if (typeof value === "object") {
    return `map[${entriesOf(value)
      .map(([key, one]) => `${String(key)}:${goString(one)}`)
      .join(" ")}]`;
  }
  // oxlint-disable-next-line typescript/no-base-to-string -- only scalars are left
  return String(value);
}

function compare(a: unknown, b: unknown): number {
  if (typeof a === "string" || typeof b === "string") {
    const [left, right] = [goString(a), goString(b)];
    return left < right ? -1 : left > right ? 1 : 0;
  }
  return Number(a) - Number(b);
}

function index(of: unknown, ...keys: unknown[]): unknown {
  return keys.reduce((of, key) => {
    if (Array.isArray(of)) {
      const at = Number(key);
      if (!(at >= 0 && at < of.length)) throw bad(`error calling index: index out of range: ${goString(key)}`);
      return of[at] as unknown;
    }
    if (of === null || of === undefined) throw bad("error calling index: index of untyped nil");
    if (typeof of !== "object") return undefined;
    const members = of as Record<string, unknown>;
    if (Object.hasOwn(members, goString(key))) return members[goString(key)];
    // Labels, options and the like are maps of strings, whose empty value is an empty text.
    return Object.values(members).every((value) => typeof value === "string") ? "" : undefined;
  }, of);
}

function printf(format: unknown, ...args: unknown[]): string {
  let next = 0;
  return goString(format).replace(/%(-?\d*)(?:\.(\d+))?([svdqftx%])/g, (_all, width: string, digits, verb: string) => {
    if (verb === "%") return "%";
    const value = args[next++];
    const most = digits === undefined ? undefined : Number(digits);
    const text =
      verb === "q"
        ? JSON.stringify(goString(value).slice(0, most))
        : verb === "f"
          ? Number(value).toFixed(digits === undefined ? 6 : Number(digits))
          : verb === "x"
            ? Number(value).toString(16)
            : goString(value).slice(0, typeof value === "string" ? most : undefined);
    const columns = Number(width);
    return columns < 0 ? text.padEnd(-columns) : text.padStart(columns);
  });
}

const functions: ReadonlyMap<string, (...args: unknown[]) => unknown> = new Map<
  string,
  (...args: unknown[]) => unknown
>([
  ["json", (value: unknown) => stringifyJson(value ?? null)],
  ["split", (text: unknown, separator: unknown) => goString(text).split(goString(separator))],
  [
    "join",
    (parts: unknown, separator: unknown) => (Array.isArray(parts) ? parts.map(goString).join(goString(separator)) : ""),
  ],
  ["title", (text: unknown) => goString(text).replace(/(^|\s)\p{L}/gu, (first) => first.toUpperCase())],
  ["lower", (text: unknown) => goString(text).toLowerCase()],
  ["upper", (text: unknown) => goString(text).toUpperCase()],
  [
    "pad",
    (text: unknown, before: unknown, after: unknown) =>
      " ".repeat(Number(before)) + goString(text) + " ".repeat(Number(after)),
  ],
  ["truncate", (text: unknown, length: unknown) => goString(text).slice(0, Number(length))],
  ["println", (...values: unknown[]) => `${values.map(goString).join(" ")}\n`],
  ["print", (...values: unknown[]) => values.map(goString).join("")],
  ["printf", printf],
  ["index", index],
  ["len", (value: unknown) => (typeof value === "string" ? Buffer.byteLength(value) : entriesOf(value).length)],
  ["not", (value: unknown) => !truth(value)],
  ["and", (...values: unknown[]) => values.find((value) => !truth(value)) ?? values.at(-1)],
  ["or", (...values: unknown[]) => values.find(truth) ?? values.at(-1)],
  ["eq", (a: unknown, ...others: unknown[]) => others.some((b) => compare(a, b) === 0)],
  ["ne", (a: unknown, b: unknown) => compare(a, b) !== 0],
  ["lt", (a: unknown, b: unknown) => compare(a, b) < 0],
  ["le", (a: unknown, b: unknown) => compare(a, b) <= 0],
  ["gt", (a: unknown, b: unknown) => compare(a, b) > 0],
  ["ge", (a: unknown, b: unknown) => compare(a, b) >= 0],
]);

function bad(reason: string): CommandError {
  return new CommandError(`template parsing error: template: :1: ${reason}`);
}
