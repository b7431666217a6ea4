/** Contexts: named daemons, one JSON file each below the settings folder, and which of them is the current one. */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defaultHost, endpointOf, tlsFilesIn, type Endpoint, type TlsFiles } from "./api/endpoint.ts";
import { CommandError, messageOf } from "./errors.ts";

export interface Context {
  readonly name: string;
  readonly description: string;
  readonly host: string;
  readonly tls?: TlsFiles;
}

/** The flags that stand before the command. */
export interface GlobalValues {
  readonly host?: string[];
  readonly context?: string;
  readonly config?: string;
  readonly debug?: boolean;
  readonly tls?: boolean;
  readonly tlscacert?: string;
  readonly tlscert?: string;
  readonly tlskey?: string;
  readonly tlsverify?: boolean;
  readonly version?: boolean;
}

type Env = Readonly<Record<string, string | undefined>>;

/** What a command talks to: flags, then SKEP_HOST and DOCKER_HOST, then the context, then the local socket. */
export function endpointFor(given: GlobalValues, env: Env, folder: string): Endpoint {
  if ((given.host?.length ?? 0) > 1) throw new CommandError("Specify only one -H");
  const host = given.host?.[0];
  if (host !== undefined && given.context !== undefined) {
    throw new CommandError("conflicting options: cannot specify both --host and --context");
  }
  const fromEnv = env["SKEP_HOST"] || env["DOCKER_HOST"];
  if (host === undefined && (given.context !== undefined || !fromEnv)) {
    const context = readContext(folder, given.context ?? currentContext(env, folder));
    return endpointOf(context.host, context.tls);
  }
  return endpointOf(host ?? fromEnv ?? defaultHost, tlsGiven(given, env));
}

function tlsGiven(given: GlobalValues, env: Env): TlsFiles | undefined {
  const verify = given.tlsverify ?? Boolean(env["DOCKER_TLS_VERIFY"]);
  if (!verify && given.tls !== true && given.tlscacert === undefined) return undefined;
  const folder = env["DOCKER_CERT_PATH"];
  const files = folder === undefined ? { verify } : tlsFilesIn(folder, verify);
  return {
    ...files,
    ...(given.tlscacert === undefined ? {} : { ca: given.tlscacert }),
    ...(given.tlscert === undefined ? {} : { cert: given.tlscert }),
    ...(given.tlskey === undefined ? {} : { key: given.tlskey }),
  };
}

/** @returns its name; "default" is always there */
export function currentContext(env: Env, folder: string): string {
  if (env["SKEP_CONTEXT"]) return env["SKEP_CONTEXT"];
  try {
    return readFileSync(join(folder, "current-context"), "utf8").trim() || "default";
  } catch {
    return "default"; // No choice was made yet.
  }
}

export function useContext(folder: string, name: string): void {
  readContext(folder, name);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileSync(join(folder, "current-context"), `${name}\n`);
}

/** @throws CommandError when there is none of that name */
export function readContext(folder: string, name: string): Context {
  if (name === "default") return { name, description: "The daemon of this machine", host: defaultHost };
  let text;
  try {
    text = readFileSync(fileOf(folder, name), "utf8");
  } catch {
    throw new CommandError(`context ${JSON.stringify(name)} does not exist: list them with 'skep context ls'`);
  }
  try {
    const { description = "", host, tls } = JSON.parse(text) as Partial<Context>;
    if (typeof host !== "string") throw new Error("it names no host");
    return { name, description, host, ...(tls === undefined ? {} : { tls }) };
  } catch (error) {
    throw new CommandError(`Cannot read context ${JSON.stringify(name)}: ${messageOf(error)}`);
  }
}

export function listContexts(folder: string): Context[] {
  let names: string[] = [];
  try {
    names = readdirSync(join(folder, "contexts"));
  } catch {
    // No context was made yet.
  }
  const made = names.filter((name) => name.endsWith(".json")).map((name) => readContext(folder, name.slice(0, -5)));
  return [readContext(folder, "default"), ...made].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

export function writeContext(folder: string, context: Context): void {
  if (context.name === "default") throw new CommandError('"default" is a reserved context name');
  endpointOf(context.host, undefined);
  mkdirSync(join(folder, "contexts"), { recursive: true, mode: 0o700 });
  const { name, ...content } = context;
  try {
    writeFileSync(fileOf(folder, name), `${JSON.stringify(content, null, 2)}\n`, { flag: "wx", mode: 0o600 });
  } catch (error) {
    if ((error as { code?: string }).code !== "EEXIST") throw error;
    throw new CommandError(`context ${JSON.stringify(name)} already exists`);
  }
}

export function removeContext(folder: string, name: string): void {
  if (name === "default") throw new CommandError('context "default" cannot be removed');
  readContext(folder, name);
  rmSync(fileOf(folder, name));
}

function fileOf(folder: string, name: string): string {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.+-]*$/.test(name)) {
    throw new CommandError(`context name ${JSON.stringify(name)} is invalid: names match [a-zA-Z0-9][a-zA-Z0-9_.+-]*`);
  }
  return join(folder, "contexts", `${name}.json`);
}
