/** From words to an exit code: global flags, the command's lookup, its help, its run, and how its failure is printed. */
import { homedir } from "node:os";
import { join } from "node:path";
import { isAbort } from "../lib/pure/errors.ts";
import type { Api } from "./api/client.ts";
import type { Endpoint } from "./api/endpoint.ts";
import { entries, groupOrder, groups } from "./commands.ts";
import { endpointFor, type GlobalValues } from "./contexts.ts";
import { CommandError, messageOf } from "./errors.ts";
import type { Command, Entry } from "./grammar/command.ts";
import { bool, list, text, type Flags } from "./grammar/flags.ts";
import { commandList, optionsHelp, wrongArgCount } from "./grammar/help.ts";
import { parse } from "./grammar/parse.ts";
import type { Input, Output, Session } from "./session.ts";
import { cliVersion } from "./version.ts";

const globalFlags: Flags = {
  host: list("Daemon socket to connect to", { short: "H" }),
  context: text("Context to use instead of the current one (see 'skep context')", { short: "c" }),
  config: text("Folder of contexts and settings", { shownDefault: '"~/.skep"' }),
  debug: bool("Print the stack of an unexpected error", { short: "D" }),
  "log-level": text("Accepted for scripts written for docker; has no effect", { short: "l" }),
  tls: bool("Use TLS; implied by --tlsverify"),
  tlscacert: text("Trust only certificates signed by this authority"),
  tlscert: text("The client's certificate"),
  tlskey: text("The client's key"),
  tlsverify: bool("Use TLS and check the daemon's certificate"),
  version: bool("Print the version and quit", { short: "v" }),
};

interface Streams {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: Input;
  readonly stdout: Output;
  readonly stderr: Output;
}

/** @returns the exit code. Never throws: a failure is printed */
export async function main(words: readonly string[], streams: Streams = process): Promise<number> {
  const { env } = streams;
  const interrupted = new AbortController();
  const signals = new Signals(() => {
    if (interrupted.signal.aborted) process.exit(130);
    interrupted.abort();
  });
  let api: Promise<Api> | undefined;
  let debug = false;
  try {
    const global = parse(globalFlags, words, true);
    const given = global.values as GlobalValues;
    debug = given.debug ?? false;
    const configFolder = given.config ?? env["SKEP_CONFIG"] ?? join(env["HOME"] ?? homedir(), ".skep");
    const session: Session = {
      env,
      // Read when they are needed: each is opened by its getter, and most commands read nothing.
      get stdin() {
        return streams.stdin;
      },
      get stdout() {
        return streams.stdout;
      },
      get stderr() {
        return streams.stderr;
      },
      configFolder,
      contextFlag: given.context,
      interrupted: interrupted.signal,
      onSignals: (names, handler) => signals.on(names, handler),
      api: () => (api ??= connect(endpointFor(given, env, configFolder), env["DOCKER_API_VERSION"])),
      print: (line) => streams.stdout.write(`${line}\n`),
      warn: (line) => streams.stderr.write(`${line}\n`),
    };
    if (given.version === true) {
      session.print(`skep version ${cliVersion}`);
      return 0;
    }
    return await dispatch(session, global.args, global.help);
  } catch (error) {
    // An answer that was being read fails with the connection's own words.
    if (interrupted.signal.aborted && (isAbort(error) || !(error instanceof CommandError))) return 130;
    streams.stderr.write(`${debug && error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}\n`);
    return error instanceof CommandError ? error.exitCode : 1;
  } finally {
    signals.close();
    // A connection that failed was told already.
    await api?.then(
      (api) => api.close(),
      () => undefined,
    );
  }
}

/** Read only now: a command that asks no daemon needs no HTTP. */
async function connect(endpoint: Endpoint, version: string | undefined): Promise<Api> {
  const { Api } = await import("./api/client.ts");
  return Api.connect(endpoint, version);
}

async function dispatch(session: Session, words: readonly string[], wantsHelp: boolean): Promise<number> {
  if (words[0] === "help") return help(session, words.slice(1));
  if (words.length === 0) {
    session.stdout.write(topHelp(session));
    return 0;
  }
  const { entry, path, rest } = find(words);
  if (entry === undefined) return noCommand(session, path, rest, wantsHelp);
  const command = await entry.load();
  let parsed;
  try {
    parsed = parse(command.flags, rest, command.firstArgEndsFlags);
  } catch (error) {
    throw new CommandError(`${messageOf(error)}\n\n${usageOf(path, command)}`, 125);
  }
  if (wantsHelp || parsed.help) {
    session.stdout.write(commandHelp(session, entry, path, command));
    return 0;
  }
  const wrong = wrongArgCount(parsed.args.length, command.args);
  if (wrong !== undefined) throw new CommandError(`skep: 'skep ${path}' ${wrong}\n\n${usageOf(path, command)}`, 1);
  return (await command.run(session, parsed.values, parsed.args)) ?? 0;
}

/** The longest run of words that names a command or a group. */
function find(words: readonly string[]): { entry: Entry | undefined; path: string; rest: readonly string[] } {
  for (const length of [2, 1]) {
    const path = words.slice(0, length).join(" ");
    const entry = words.length < length ? undefined : entries.find((one) => [one.path, ...one.aliases].includes(path));
    if (entry !== undefined) return { entry, path, rest: words.slice(length) };
  }
  const group = Object.hasOwn(groups, words[0] ?? "");
  return { entry: undefined, path: group ? (words[0] ?? "") : "", rest: words.slice(group ? 1 : 0) };
}

/** A group alone, or a word that is no command. */
function noCommand(session: Session, path: string, rest: readonly string[], wantsHelp: boolean): number {
  const flag = rest.find((word) => word.startsWith("-"));
  const word = rest.find((word) => !word.startsWith("-"));
  const hint = `Run 'skep ${path === "" ? "" : `${path} `}--help' for more information`;
  if (word !== undefined) {
    const full = `skep ${path === "" ? "" : `${path} `}${word}`;
    throw new CommandError(`skep: unknown command: ${full}\n\n${path === "" ? "" : `Usage:  skep ${path}\n\n`}${hint}`);
  }
  if (flag !== undefined && flag !== "--help" && flag !== "-h") {
    throw new CommandError(`unknown flag: ${flag}\n\nUsage:  skep ${path} COMMAND\n\n${hint}`, 125);
  }
  const text = groupHelp(path);
  // Asked for, it is an answer; not asked for, it tells that something is missing.
  (wantsHelp || flag !== undefined ? session.stdout : session.stderr).write(text);
  return wantsHelp || flag !== undefined ? 0 : 1;
}

async function help(session: Session, words: readonly string[]): Promise<number> {
  if (words.length === 0) {
    session.stdout.write(topHelp(session));
    return 0;
  }
  const { entry, path, rest } = find(words);
  if (entry === undefined && (path === "" || rest.length > 0)) {
    throw new CommandError(`unknown help topic: ${words.join(" ")}`);
  }
  session.stdout.write(entry === undefined ? groupHelp(path) : commandHelp(session, entry, path, await entry.load()));
  return 0;
}

const usageLine = (path: string, command: Command): string => `Usage:  skep ${path} ${command.usage}`.trimEnd();

function usageOf(path: string, command: Command): string {
  return `${usageLine(path, command)}\n\nRun 'skep ${path} --help' for more information`;
}

function commandHelp(session: Session, entry: Entry, path: string, command: Command): string {
  const names = [entry.path, ...entry.aliases].map((name) => `skep ${name}`);
  return [
    `${usageLine(path, command)}\n`,
    `${entry.summary}\n`,
    ...(names.length > 1 ? [`Aliases:\n  ${names.join(", ")}\n`] : []),
    ...(Object.keys(command.flags).length > 0 ? [optionsHelp(command.flags, columnsOf(session))] : []),
  ].join("\n");
}

function groupHelp(group: string): string {
  const members = entries
    .filter(({ path }) => path.startsWith(`${group} `))
    .map(({ path, summary }) => [path.slice(group.length + 1), summary] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  return [
    `Usage:  skep ${group} COMMAND\n`,
    `${groups[group] ?? ""}\n`,
    commandList("Commands", members),
    `Run 'skep ${group} COMMAND --help' for more information on a command.\n`,
  ].join("\n");
}

function topHelp(session: Session): string {
  const named = (names: readonly string[]): (readonly [string, string])[] =>
    names.map((name) => [name, groups[name] ?? summaryOf(name)] as const);
  const single = entries
    .flatMap((entry) => [entry.path, ...entry.aliases])
    .filter((name) => !name.includes(" ") && !groupOrder.common.includes(name))
    .toSorted();
  return [
    "Usage:  skep [OPTIONS] COMMAND\n",
    "Runs services on a swarm of hosts, and tells why when it cannot\n",
    commandList("Common Commands", named(groupOrder.common)),
    commandList("Swarm Commands", named(groupOrder.swarm)),
    commandList("Management Commands", named(groupOrder.node)),
    commandList("Commands", named(single)),
    optionsHelp(globalFlags, columnsOf(session)).replace("Options:", "Global Options:"),
    "Run 'skep COMMAND --help' for more information on a command.\n",
  ].join("\n");
}

const summaryOf = (name: string): string =>
  entries.find((entry) => [entry.path, ...entry.aliases].includes(name))?.summary ?? "";

const columnsOf = ({ stdout }: Session): number => (stdout.isTTY === true ? (stdout.columns ?? 80) : 80);

/** The process's signals: the interrupt is ours unless a command has taken signals over. */
class Signals {
  readonly #whenInterrupted: () => void;
  readonly #closers = new Set<() => void>();
  #takenOver = 0;
  constructor(whenInterrupted: () => void) {
    this.#whenInterrupted = whenInterrupted;
    this.#listen("SIGINT", () => {
      if (this.#takenOver === 0) this.#whenInterrupted();
    });
  }

  on(names: readonly NodeJS.Signals[], handler: (signal: NodeJS.Signals) => void): () => void {
    this.#takenOver++;
    const closers = names.map((name) => this.#listen(name, handler));
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      this.#takenOver--;
      for (const close of closers) close();
    };
  }

  close(): void {
    for (const close of this.#closers) close();
  }

  #listen(name: NodeJS.Signals, handler: (signal: NodeJS.Signals) => void): () => void {
    const close = (): void => {
      process.off(name, handler);
      this.#closers.delete(close);
    };
    process.on(name, handler);
    this.#closers.add(close);
    return close;
  }
}
