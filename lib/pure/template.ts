/**
 * The part of Go's text/template that Swarm's users write in hostnames, variables, mounts, secrets and configs: fields,
 * functions, pipes, if, with, range, comments, trimmed white space. Pure, and bounded: a template comes from outside.
 * Source: pkg.go.dev/text/template; what a template sees is Swarm's (features.md §1.2).
 */
import { ClusterError } from "./errors.ts";

export type TemplateValue =
  string | number | boolean | undefined | readonly TemplateValue[] | { readonly [name: string]: TemplateValue };

export type TemplateFunction = (...args: readonly TemplateValue[]) => TemplateValue;

export class TemplateInvalid extends ClusterError {
  readonly code = "TEMPLATE_INVALID";
  readonly found: string;
  constructor(where: string, found: string) {
    super(`Cannot expand the template of ${where}: ${found}`, {
      fix: 'Write it as {{.Service.Name}}, {{.Node.Hostname}}, {{.Task.Slot}} or {{index .Service.Labels "name"}}',
    });
    this.found = found;
  }
}

const outputMax = 2 << 20;
const nodesMax = 10_000;
const depthMax = 64;

class Wrong extends Error {}

/** @throws TemplateInvalid that names `where`, never what the template would have shown */
export function expandTemplate(
  where: string,
  text: string,
  data: TemplateValue,
  functions: Readonly<Record<string, TemplateFunction>> = {},
): string {
  if (!text.includes("{{")) return text;
  try {
    const run = new Run(data, { ...builtins, ...functions });
    run.all(new Parser(text).list(0, []).nodes, data);
    return run.out;
  } catch (error) {
    if (error instanceof Wrong) throw new TemplateInvalid(where, error.message);
    throw error;
  }
}

// ---- reading ----

type Operand =
  | { readonly kind: "value"; readonly value: TemplateValue }
  | { readonly kind: "path"; readonly root: "." | "$"; readonly fields: readonly string[] }
  | { readonly kind: "call"; readonly name: string }
  | { readonly kind: "pipe"; readonly pipe: Pipe; readonly fields: readonly string[] };

type Pipe = readonly (readonly Operand[])[];

type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "print"; readonly pipe: Pipe }
  | {
      readonly kind: "if" | "with" | "range";
      readonly pipe: Pipe;
      readonly body: readonly Node[];
      readonly otherwise: readonly Node[];
    };

/** One token of an action: a string, a number, a name, a path, or one of `( ) |`. */
const token =
  /\s*(?:("(?:[^"\\\n]|\\.)*")|(`[^`]*`)|(-?[0-9]+(?:\.[0-9]+)?)(?![\w.])|([A-Za-z_]\w*)|(\$?(?:\.[A-Za-z_]\w*)+|\$|\.)|([()|]))/y;

class Parser {
  readonly #pieces: readonly (string | { readonly action: string })[];
  #at = 0;
  #nodes = 0;

  constructor(text: string) {
    const pieces: (string | { action: string })[] = [];
    let from = 0;
    for (let open = text.indexOf("{{"); open >= 0; open = text.indexOf("{{", from)) {
      const comment = /^\{\{-?\s*\/\*/.test(text.slice(open, open + 64));
      const close = comment ? text.indexOf("}}", text.indexOf("*/", open)) : endOfAction(text, open + 2);
      if (close < 0) throw new Wrong("an action is not closed");
      let body = text.slice(open + 2, close);
      let before = text.slice(from, open);
      from = close + 2;
      if (/^-\s/.test(body)) {
        before = before.trimEnd();
        body = body.slice(1);
      }
      if (/\s-$/.test(body)) {
        body = body.slice(0, -1);
        while (from < text.length && /\s/.test(text[from] ?? "")) from++;
      }
      pieces.push(before);
      if (!comment) pieces.push({ action: body.trim() });
    }
    pieces.push(text.slice(from));
    this.#pieces = pieces;
  }

  /** Nodes up to one of the closing words, or the end of the text. */
  list(depth: number, closing: readonly string[]): { nodes: Node[]; closedBy: string } {
    if (depth > depthMax) throw new Wrong("it is nested too deeply");
    const nodes: Node[] = [];
    while (this.#at < this.#pieces.length) {
      const piece = this.#pieces[this.#at++] ?? "";
      if (++this.#nodes > nodesMax) throw new Wrong("it has too many actions");
      if (typeof piece === "string") {
        if (piece !== "") nodes.push({ kind: "text", text: piece });
        continue;
      }
      const { action } = piece;
      const word = /^[a-z]+/.exec(action)?.[0] ?? "";
      if (word === "end" || word === "else") {
        if (!closing.includes(word)) throw new Wrong(`unexpected {{${word}}}`);
        return { nodes, closedBy: action };
      }
      if (word === "if" || word === "with" || word === "range") {
        nodes.push(this.#block(word, action.slice(word.length), depth));
      } else if (word === "define" || word === "template" || word === "block" || action.includes(":=")) {
        throw new Wrong(`{{${action.slice(0, 40)}}} is not supported`);
      } else {
        nodes.push({ kind: "print", pipe: parsePipe(action) });
      }
    }
    if (closing.length > 0) throw new Wrong("unexpected end: {{end}} is missing");
    return { nodes, closedBy: "" };
  }

  #block(kind: "if" | "with" | "range", condition: string, depth: number): Node {
    const pipe = parsePipe(condition);
    const body = this.list(depth + 1, ["end", "else"]);
    if (body.closedBy === "end") return { kind, pipe, body: body.nodes, otherwise: [] };
    const chained = /^else\s+if\b(.*)$/s.exec(body.closedBy);
    if (chained !== null) {
      return { kind, pipe, body: body.nodes, otherwise: [this.#block("if", chained[1] ?? "", depth + 1)] };
    }
    return { kind, pipe, body: body.nodes, otherwise: this.list(depth + 1, ["end"]).nodes };
  }
}

/** Where the action's `}}` stands; one within a string does not count. */
function endOfAction(text: string, from: number): number {
  const inside = /"(?:[^"\\\n]|\\.)*"|`[^`]*`|\}\}/g;
  inside.lastIndex = from;
  for (let found = inside.exec(text); found !== null; found = inside.exec(text)) {
    if (found[0] === "}}") return found.index;
  }
  return -1;
}

function parsePipe(text: string): Pipe {
  const tokens: string[] = [];
  token.lastIndex = 0;
  const end = text.trimEnd().length;
  while (token.lastIndex < end) {
    const at = token.lastIndex;
    const found = token.exec(text);
    if (found === null) throw new Wrong(`unexpected ${JSON.stringify(text.slice(at, at + 20).trim())}`);
    // `)` and a field that follows at once belong together: (index .X "y").Name
    tokens.push(found[0].trim());
  }
  if (tokens.length === 0) throw new Wrong("missing value for command");
  let next = 0;
  const pipe = (depth: number): Pipe => {
    if (depth > depthMax) throw new Wrong("it is nested too deeply");
    const commands: Operand[][] = [[]];
    for (; next < tokens.length && tokens[next] !== ")";) {
      const current = commands.at(-1) as Operand[];
      const word = tokens[next++] ?? "";
      if (word === "|") {
        if (current.length === 0) throw new Wrong("missing value before |");
        commands.push([]);
      } else if (word === "(") {
        const inner = pipe(depth + 1);
        if (tokens[next++] !== ")") throw new Wrong("unclosed left paren");
        const follows = /^\.\w/.test(tokens[next] ?? "") ? (tokens[next++] ?? "") : "";
        current.push({ kind: "pipe", pipe: inner, fields: fieldsOf(follows) });
      } else {
        current.push(operand(word));
      }
    }
    if (commands.at(-1)?.length === 0) throw new Wrong("missing value for command");
    return commands;
  };
  const whole = pipe(0);
  if (next < tokens.length) throw new Wrong("unexpected right paren");
  return whole;
}

const fieldsOf = (path: string): string[] => path.split(".").filter((field) => field !== "" && field !== "$");

function operand(word: string): Operand {
  if (word.startsWith('"')) {
    try {
      return { kind: "value", value: JSON.parse(word) as string };
    } catch {
      throw new Wrong(`${word.slice(0, 40)} is not a string`);
    }
  }
  if (word.startsWith("`")) return { kind: "value", value: word.slice(1, -1) };
  if (/^-?[0-9]/.test(word)) return { kind: "value", value: Number(word) };
  if (word === "true" || word === "false") return { kind: "value", value: word === "true" };
  if (word === "nil") return { kind: "value", value: undefined };
  if (/^[.$]/.test(word)) return { kind: "path", root: word.startsWith("$") ? "$" : ".", fields: fieldsOf(word) };
  return { kind: "call", name: word };
}

// ---- running ----

const isList = (value: TemplateValue): value is readonly TemplateValue[] => Array.isArray(value);
const isMap = (value: TemplateValue): value is Readonly<Record<string, TemplateValue>> =>
  typeof value === "object" && !isList(value);

function isTrue(value: TemplateValue): boolean {
  if (isList(value)) return value.length > 0;
  if (isMap(value)) return Object.keys(value).length > 0;
  return value !== undefined && value !== "" && value !== 0 && value !== false;
}

/** As Go prints it: a map sorted by its keys. */
export function showValue(value: TemplateValue): string {
  if (value === undefined) return "<no value>";
  if (isList(value)) return `[${value.map(showValue).join(" ")}]`;
  if (!isMap(value)) return String(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `map[${entries.map(([key, one]) => `${key}:${showValue(one)}`).join(" ")}]`;
}

function fieldOf(value: TemplateValue, name: string): TemplateValue {
  if (!isMap(value)) throw new Wrong(`can't evaluate field ${name}`);
  if (!Object.hasOwn(value, name)) throw new Wrong(`map has no entry for key "${name}"`);
  return value[name];
}

class Run {
  out = "";
  readonly #root: TemplateValue;
  readonly #functions: Readonly<Record<string, TemplateFunction>>;

  constructor(root: TemplateValue, functions: Readonly<Record<string, TemplateFunction>>) {
    this.#root = root;
    this.#functions = functions;
  }

  all(nodes: readonly Node[], dot: TemplateValue): void {
    for (const node of nodes) this.#one(node, dot);
  }

  #one(node: Node, dot: TemplateValue): void {
    switch (node.kind) {
      case "text":
        return this.#write(node.text);
      case "print":
        return this.#write(showValue(this.#pipe(node.pipe, dot)));
      case "if":
        return this.all(isTrue(this.#pipe(node.pipe, dot)) ? node.body : node.otherwise, dot);
      case "with": {
        const value = this.#pipe(node.pipe, dot);
        return isTrue(value) ? this.all(node.body, value) : this.all(node.otherwise, dot);
      }
      case "range": {
        const value = this.#pipe(node.pipe, dot);
        if (!isTrue(value)) return this.all(node.otherwise, dot);
        const items = isList(value) ? value : isMap(value) ? sorted(value) : undefined;
        if (items === undefined) throw new Wrong("range can't iterate over it");
        for (const item of items) this.all(node.body, item);
      }
    }
  }

  #write(text: string): void {
    this.out += text;
    if (this.out.length > outputMax) throw new Wrong("what it makes is too large");
  }

  #pipe(pipe: Pipe, dot: TemplateValue): TemplateValue {
    let last: readonly TemplateValue[] = [];
    for (const command of pipe) last = [this.#command(command, dot, last)];
    return last[0];
  }

  #command([first, ...rest]: readonly Operand[], dot: TemplateValue, piped: readonly TemplateValue[]): TemplateValue {
    const args = [...rest.map((one) => this.#value(one, dot)), ...piped];
    if (first?.kind === "call") return this.#call(first.name, args);
    if (args.length > 0) throw new Wrong("can't give arguments to what is no function");
    return first === undefined ? undefined : this.#value(first, dot);
  }

  #call(name: string, args: readonly TemplateValue[]): TemplateValue {
    const act = Object.hasOwn(this.#functions, name) ? this.#functions[name] : undefined;
    if (act === undefined) throw new Wrong(`function "${name}" not defined`);
    return act(...args);
  }

  #value(one: Operand, dot: TemplateValue): TemplateValue {
    switch (one.kind) {
      case "value":
        return one.value;
      case "call":
        return this.#call(one.name, []);
      case "path":
        return one.fields.reduce(fieldOf, one.root === "$" ? this.#root : dot);
      case "pipe":
        return one.fields.reduce(fieldOf, this.#pipe(one.pipe, dot));
    }
  }
}

function sorted(map: Readonly<Record<string, TemplateValue>>): TemplateValue[] {
  return Object.keys(map)
    .sort()
    .map((key) => map[key]);
}

/** For functions that are handed in: fails the template with these words. */
export function failTemplate(found: string): never {
  throw new Wrong(found);
}

function compare(a: TemplateValue, b: TemplateValue): number {
  if ((typeof a === "number" && typeof b === "number") || (typeof a === "string" && typeof b === "string")) {
    return a < b ? -1 : a > b ? 1 : 0;
  }
  throw new Wrong("incompatible types for comparison");
}

function indexOf(value: TemplateValue, key: TemplateValue): TemplateValue {
  if (isList(value) && typeof key === "number") {
    if (key < 0 || key >= value.length) throw new Wrong(`index out of range: ${key}`);
    return value[key];
  }
  // As in Go, a key that is not in a map gives the empty value.
  if (isMap(value) && typeof key === "string") return Object.hasOwn(value, key) ? value[key] : "";
  throw new Wrong("can't index it");
}

function printf(format: TemplateValue, args: readonly TemplateValue[]): string {
  if (typeof format !== "string") throw new Wrong("printf needs a format");
  let next = 0;
  return format.replace(/%(?:%|[sdvq])/g, (verb) => {
    if (verb === "%%") return "%";
    const value = next < args.length ? showValue(args[next++]) : `%!${verb.slice(1)}(MISSING)`;
    return verb === "%q" ? JSON.stringify(value) : value;
  });
}

const builtins: Readonly<Record<string, TemplateFunction>> = {
  and: (...args) => args.find((one) => !isTrue(one)) ?? args.at(-1),
  or: (...args) => args.find(isTrue) ?? args.at(-1),
  not: (value) => !isTrue(value),
  eq: (first, ...others) => others.some((one) => one === first),
  ne: (a, b) => a !== b,
  lt: (a, b) => compare(a, b) < 0,
  le: (a, b) => compare(a, b) <= 0,
  gt: (a, b) => compare(a, b) > 0,
  ge: (a, b) => compare(a, b) >= 0,
  index: (value, ...keys) => keys.reduce(indexOf, value),
  len: (value) => {
    if (isMap(value)) return Object.keys(value).length;
    if (isList(value) || typeof value === "string") return value.length;
    throw new Wrong("len of what has none");
  },
  join: (list, separator) => {
    if (!isList(list) || typeof separator !== "string") throw new Wrong("join needs a list and a separator");
    return list.map(showValue).join(separator);
  },
  print: (...args) => args.map(showValue).join(""),
  println: (...args) => `${args.map(showValue).join(" ")}\n`,
  printf: (format, ...args) => printf(format, args),
};
