/**
 * JSON lines by pino: one event a line, with level, ISO time, room and facts. Secrets are taken out by the name of their
 * field at any depth, and by their shape inside texts; bytes are never printed, only counted.
 */
import { pino, type DestinationStream, type Logger as PinoLogger } from "pino";

import { ClusterError, InvariantViolation } from "../pure/errors.ts";
import { standardError } from "./standard-error.ts";

export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

export type Facts = Readonly<Record<string, unknown>>;

export interface Logger {
  trace(message: string, facts?: Facts): void;
  debug(message: string, facts?: Facts): void;
  info(message: string, facts?: Facts): void;
  warn(message: string, facts?: Facts): void;
  error(message: string, facts?: Facts): void;
  fatal(message: string, facts?: Facts): void;
  /** A logger of a room; `facts` are on every line. Its level is its own from then on. */
  child(room: string, facts?: Facts): Logger;
  level: LogLevel;
}

export interface LoggerOptions {
  readonly level?: LogLevel;
  /** Where lines go; standard error unless said, which never makes the process wait for its reader. */
  readonly destination?: DestinationStream;
}

export function createLogger(options: LoggerOptions = {}): Logger {
  return new JsonLogger(
    pino(
      {
        level: options.level ?? "info",
        base: { pid: process.pid },
        timestamp: () => `,"time":"${new Date().toISOString()}"`,
        formatters: { level: (label) => ({ level: label }) },
        messageKey: "message",
      },
      options.destination ?? standardError(),
    ),
    undefined,
  );
}

class JsonLogger implements Logger {
  readonly #pino: PinoLogger;
  readonly #room: string | undefined;

  constructor(logger: PinoLogger, room: string | undefined) {
    this.#pino = logger;
    this.#room = room;
  }

  get level(): LogLevel {
    return this.#pino.level as LogLevel;
  }

  set level(level: LogLevel) {
    this.#pino.level = level;
  }

  trace(message: string, facts?: Facts): void {
    this.#write("trace", message, facts);
  }

  debug(message: string, facts?: Facts): void {
    this.#write("debug", message, facts);
  }

  info(message: string, facts?: Facts): void {
    this.#write("info", message, facts);
  }

  warn(message: string, facts?: Facts): void {
    this.#write("warn", message, facts);
  }

  error(message: string, facts?: Facts): void {
    this.#write("error", message, facts);
  }

  fatal(message: string, facts?: Facts): void {
    this.#write("fatal", message, facts);
  }

  child(room: string, facts: Facts = {}): Logger {
    const path = this.#room === undefined ? room : `${this.#room}/${room}`;
    return new JsonLogger(this.#pino.child({ room: path, ...(printable(facts) as object) }), path);
  }

  #write(level: Exclude<LogLevel, "silent">, message: string, facts: Facts | undefined): void {
    if (!this.#pino.isLevelEnabled(level)) return;
    if (facts === undefined) this.#pino[level](printableText(message));
    else this.#pino[level](printable(facts) as object, printableText(message));
  }
}

const redacted = "[redacted]";
const secretName =
  /^(.*[-_])?(password|passphrase|secret|token|credential|credentials|authorization|cookie|kek|dek)$|(Password|Passphrase|Secret|Token|Credential|Credentials|Authorization|Kek|Dek)$|private_?key|unlock_?key|(data|encryption|signing|root|shared)_?key/i;
/** Join tokens, unlock keys, PEM private keys and bearer tokens inside longer texts. */
const secretText =
  /SWMTKN-1-[0-9a-z-]+|SWMKEY-1-[0-9A-Za-z+/=]+|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)|\b(Bearer|Basic) [0-9A-Za-z._~+/=-]{8,}/g;

const depthMax = 6;
const listMax = 100;
const textMax = 8192;

/** A copy that is safe to print: no secrets, no bytes, no cycles, bounded in depth, breadth and length. */
export function printable(value: unknown, depth = 0): unknown {
  switch (typeof value) {
    case "string":
      return printableText(value);
    case "bigint":
      return value.toString();
    case "function":
    case "symbol":
      return undefined;
    case "object":
      break;
    default:
      return value;
  }
  if (value === null) return null;
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "invalid date" : value.toISOString();
  if (depth >= depthMax) return "[deeper]";
  if (value instanceof Error) return printableError(value, depth);
  if (value instanceof Map) return printable(Object.fromEntries([...value].slice(0, listMax)), depth);
  if (value instanceof Set) return printable([...value].slice(0, listMax + 1), depth);
  if (Array.isArray(value)) {
    const items = value.slice(0, listMax).map((item) => printable(item, depth + 1));
    return value.length > listMax ? [...items, `[${value.length - listMax} more]`] : items;
  }
  const copy: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(value).slice(0, listMax)) {
    copy[name] =
      secretName.test(name) && field !== undefined && field !== null ? redacted : printable(field, depth + 1);
  }
  return copy;
}

function printableText(text: string): string {
  const short = text.length > textMax ? `${text.slice(0, textMax)}[${text.length - textMax} more]` : text;
  return short.replace(secretText, redacted);
}

function printableError(error: Error, depth: number): unknown {
  const { code } = error as { code?: unknown };
  return {
    name: error.name,
    message: printableText(error.message),
    ...(typeof code === "string" || typeof code === "number" ? { code } : {}),
    ...(error instanceof ClusterError && error.fix !== undefined ? { fix: printableText(error.fix) } : {}),
    ...(error instanceof InvariantViolation ? { facts: printable(error.facts, depth + 1) } : {}),
    // An operating error is expected: its text says enough. A stack is for what nobody expected.
    ...(error instanceof ClusterError ? {} : { stack: printableText(error.stack ?? "") }),
    ...(error.cause === undefined ? {} : { cause: printable(error.cause, depth + 1) }),
    ...(error instanceof AggregateError ? { errors: printable(error.errors, depth + 1) } : {}),
  };
}

/** Drops everything: for tests and for tools that print by themselves. */
export const silentLogger: Logger = createLogger({ level: "silent", destination: { write: () => undefined } });
