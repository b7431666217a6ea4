/**
 * The kinds of flags and what their values become. Reading follows Go's pflag, which Docker's users know: the words of a
 * refusal are the reference's, since scripts match on them.
 */
import { parseDurationNs } from "../../lib/pure/duration.ts";
import { CommandError } from "../errors.ts";

export interface Flag<T> {
  /** One letter, or empty. */
  readonly short: string;
  /** The word for its value in the help; empty for a switch. */
  readonly type: string;
  readonly help: string;
  /** As shown in the help, for example `"vip"` or `5s`. What is not given stays undefined for the command. */
  readonly shownDefault: string;
  /** The value of the bare flag. Undefined: the flag needs an argument. */
  readonly bare: string | undefined;
  /** Values that completion offers. */
  readonly choices: readonly string[];
  /** @param soFar what earlier uses of the flag gave. @throws Error with the bare reason */
  read(text: string, soFar: T | undefined): T;
}

export type Flags = Readonly<Record<string, Flag<never> | Flag<unknown>>>;

/** What a command gets: undefined for each flag that was not given. */
export type Values<F extends Flags> = {
  readonly [K in keyof F]: F[K] extends Flag<infer T> ? T | undefined : never;
};

interface Options {
  readonly short?: string;
  readonly type?: string;
  readonly shownDefault?: string;
  readonly choices?: readonly string[];
}

function make<T>(
  help: string,
  type: string,
  options: Options,
  read: (text: string, soFar: T | undefined) => T,
  bare?: string,
): Flag<T> {
  const { short = "", shownDefault = "", choices = [] } = options;
  return { short, type: options.type ?? type, help, shownDefault, bare, choices, read };
}

/** A switch: `--quiet`, `--quiet=false`. */
export function bool(help: string, options: Options = {}): Flag<boolean> {
  return make(
    help,
    "",
    options,
    (text) => {
      if (/^(1|t|T|true|True|TRUE)$/.test(text)) return true;
      if (/^(0|f|F|false|False|FALSE)$/.test(text)) return false;
      throw new Error(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
    },
    "true",
  );
}

export function text(help: string, options: Options = {}): Flag<string> {
  return make(help, "string", options, (text) => text);
}

/** May be given several times; one value each time. */
export function list(help: string, options: Options = {}): Flag<string[]> {
  return make<string[]>(help, "list", options, (text, soFar) => [...(soFar ?? []), text]);
}

/** As `list`; each value is read by `read`. */
export function listOf<T>(help: string, read: (text: string) => T, options: Options = {}): Flag<T[]> {
  return make<T[]>(help, "list", options, (text, soFar) => [...(soFar ?? []), read(text)]);
}

/** One value, read by `read`. */
export function one<T>(help: string, type: string, read: (text: string) => T, options: Options = {}): Flag<T> {
  return make<T>(help, type, options, (text) => read(text));
}

/** A whole number from 0. */
export function uint(help: string, options: Options = {}): Flag<number> {
  return make(help, "uint", options, (text) => wholeNumber(text, "ParseUint"));
}

export function int(help: string, options: Options = {}): Flag<number> {
  return make(help, "int", options, (text) => wholeNumber(text, "ParseInt"));
}

export function float(help: string, options: Options = {}): Flag<number> {
  return make(help, "float", options, (text) => {
    if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) {
      throw new Error(`strconv.ParseFloat: parsing ${JSON.stringify(text)}: invalid syntax`);
    }
    return Number(text);
  });
}

/** Nanoseconds. They stay below 2^53 in any sane use, and the API's JSON carries them exactly. */
export function duration(help: string, options: Options = {}): Flag<number> {
  return make(help, "duration", options, readDurationNs);
}

/** Bytes, with Docker's units. */
export function bytes(help: string, options: Options = {}): Flag<number> {
  return make(help, "bytes", options, readBytes);
}

/** Processors, in billionths. */
export function cpus(help: string, options: Options = {}): Flag<number> {
  return make(help, "decimal", options, readNanoCpus);
}

/** `key=value` pairs for the API's `filters`. */
export function filters(options: Options = { short: "f" }): Flag<Filters> {
  return make<Filters>(
    "Show only what meets the conditions",
    "filter",
    { type: "filter", ...options },
    (text, soFar) => {
      const found: Filters = new Map(soFar);
      if (text === "") return found;
      const at = text.indexOf("=");
      if (at < 0) throw new Error(`invalid filter '${text}'`);
      const key = text.slice(0, at).trim().toLowerCase();
      found.set(key, [...(found.get(key) ?? []), text.slice(at + 1).trim()]);
      return found;
    },
  );
}

export type Filters = Map<string, readonly string[]>;

/** `--format` of a list. */
export function format(): Flag<string> {
  return text(
    "How to print: 'table' (columns with headers, the default), 'table TEMPLATE', 'json', or a TEMPLATE in Go's syntax",
  );
}

export const quiet = (help = "Print ids only"): Flag<boolean> => bool(help, { short: "q" });
export const noTrunc = (): Flag<boolean> => bool("Do not shorten the output");
export const detach = (help = "Return at once instead of waiting until the service has converged"): Flag<boolean> =>
  bool(help, { short: "d" });

export function readDurationNs(text: string): number {
  try {
    return Number(parseDurationNs(text));
  } catch {
    const missing = /^[+-]?(\d+(\.\d*)?|\.\d+)$/.test(text);
    throw new Error(
      missing
        ? `time: missing unit in duration ${JSON.stringify(text)}`
        : `time: invalid duration ${JSON.stringify(text)}`,
    );
  }
}

/** @returns bytes of "512", "64m", "1.5GiB"; units are powers of 1,024 */
export function readBytes(text: string): number {
  const parts = /^(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text.trim());
  if (parts === null) throw new Error(`invalid size: '${text}'`);
  const exponent = Math.max(0, "_kmgtp".indexOf((parts[2] ?? "").toLowerCase() || "_"));
  return Math.floor(Number(parts[1]) * 1024 ** exponent);
}

function readNanoCpus(text: string): number {
  const parts = /^(\d*)(?:\.(\d*))?$/.exec(text);
  const [, whole = "", fraction = ""] = parts ?? [];
  if (whole === "" && fraction === "") throw new Error(`failed to parse ${text} as a rational number`);
  if (fraction.replace(/0+$/, "").length > 9) throw new Error("value is too precise");
  return Number(whole === "" ? "0" : whole) * 1e9 + Number(fraction.slice(0, 9).padEnd(9, "0"));
}

function wholeNumber(text: string, go: "ParseInt" | "ParseUint"): number {
  const shape = go === "ParseInt" ? /^[+-]?\d+$/ : /^\d+$/;
  if (!shape.test(text)) throw new Error(`strconv.${go}: parsing ${JSON.stringify(text)}: invalid syntax`);
  const value = Number(text);
  if (!Number.isSafeInteger(value)) {
    throw new Error(`strconv.${go}: parsing ${JSON.stringify(text)}: value out of range`);
  }
  return value;
}

/** One of a few words. */
export function choice(help: string, choices: readonly string[], options: Options = {}): Flag<string> {
  return make(help, "string", { ...options, choices }, (text) => text);
}

/** A refusal that names a flag as the reference does. */
export function invalidArgument(text: string, name: string, flag: Flag<never> | Flag<unknown>, reason: string): Error {
  const shown = flag.short === "" ? `--${name}` : `-${flag.short}, --${name}`;
  return new CommandError(`invalid argument ${JSON.stringify(text)} for "${shown}" flag: ${reason}`, 125);
}
