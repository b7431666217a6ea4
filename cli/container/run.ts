/** `run`, `create`, `start -a` and `attach`: containers with their streams. */
import { rmSync, statSync, writeFileSync } from "node:fs";
import type { Duplex, Readable } from "node:stream";
import { inPath, readText, type Api } from "../api/client.ts";
import { registryAuth } from "../api/registry.ts";
import { jsonLines } from "../api/streams.ts";
import { ApiError, CommandError, isNotFound, messageOf } from "../errors.ts";
import { atLeast, command, exactly } from "../grammar/command.ts";
import * as flag from "../grammar/flags.ts";
import { forEachName } from "../output/each.ts";
import { normalName } from "../output/image-name.ts";
import { printProgress, type ProgressLine } from "../output/pull-progress.ts";
import type { Session } from "../session.ts";
import { attachingOf, createBody, type Attaching } from "./body.ts";
import { createFlags, runFlags, type CreateValues } from "./flags.ts";
import { converse, keepSize, passSignals } from "./terminal.ts";

/** The daemon could not run the container: docker's own exit code for it. */
const runFailed = 125;

export const run = command({
  usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
  args: atLeast(1),
  firstArgEndsFlags: true,
  flags: runFlags,
  completes: "images",
  async run(session, flags, args) {
    try {
      return await runContainer(session, flags, args);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const hint = `\n\nRun 'skep run --help' for more information`;
      throw new CommandError(`skep: ${error.message}${hint}`, startCode(error.reason));
    }
  },
});

/** A command that is missing or cannot be executed ends as a shell would end. */
function startCode(reason: string): number {
  if (/executable file not found|no such file or directory|system cannot find the file/.test(reason)) return 127;
  return /permission denied|is a directory/.test(reason) ? 126 : runFailed;
}

async function runContainer(
  session: Session,
  flags: flag.Values<typeof runFlags>,
  args: readonly string[],
): Promise<number> {
  const detached = flags.detach === true;
  const tty = flags.tty === true;
  if (detached && flags.attach !== undefined) throw new CommandError("Conflicting options: -a and -d", runFailed);
  if (!detached && tty && flags.interactive === true && session.stdin.isTTY !== true) {
    throw new CommandError("the input device is not a TTY", 1);
  }
  const attaching = attachingOf(flags, detached);
  // To attach, to wait and to start.
  const id = await createContainer(session, flags, args, attaching, detached ? 0 : 2);
  const api = await session.api();
  if (detached) {
    await api.post(`/containers/${id}/start`);
    session.print(id);
    return 0;
  }
  return hold(session, api, `/containers/${id}`, {
    attaching,
    tty,
    detachKeys: flags["detach-keys"],
    passSignals: flags["sig-proxy"] !== false,
    condition: flags.rm === true ? "removed" : "next-exit",
    starts: true,
  });
}

interface Hold {
  readonly attaching: Attaching;
  readonly tty: boolean;
  readonly detachKeys: string | undefined;
  readonly passSignals: boolean;
  /** What the wait ends with. */
  readonly condition: "removed" | "next-exit";
  /** Whether the container is still to be started. */
  readonly starts: boolean;
}

/**
 * Attaches, waits, starts and talks, in the order in which nothing of the container's output and no exit can be missed.
 * @returns its exit code; 0 when the keys detached from it
 */
async function hold(session: Session, api: Api, path: string, options: Hold): Promise<number> {
  const { attaching, tty } = options;
  const [stream, waiting] = await attachAndWait(api, path, options);
  // What follows is done while the daemon starts it.
  const starting = options.starts ? api.post(`${path}/start`) : Promise.resolve();
  starting.catch(() => undefined); // who waits for it below hears of it
  const endSignals = options.passSignals && !tty ? passSignals(session, api, path) : undefined;
  let endSize: (() => void) | undefined;
  try {
    const talking =
      stream === undefined
        ? Promise.resolve("ended" as const)
        : converse(session, { stream, tty, stdin: attaching.stdin, detachKeys: options.detachKeys });
    try {
      await starting;
    } catch (error) {
      stream?.destroy();
      await talking;
      throw error;
    }
    if (tty && session.stdout.isTTY === true) endSize = keepSize(session, api, path);
    return (await talking) === "detached" ? 0 : exitCodeOf(await readText(waiting));
  } finally {
    waiting.destroy();
    endSignals?.();
    endSize?.();
  }
}

/** Both at once: neither needs the other, and both are there before it starts. */
async function attachAndWait(
  api: Api,
  path: string,
  { attaching, condition }: Hold,
): Promise<readonly [Duplex | undefined, Readable]> {
  const attachesAny = attaching.stdin || attaching.stdout || attaching.stderr;
  const [attached, waited] = await Promise.allSettled([
    attachesAny ? api.hijack(`${path}/attach`, { query: attachQuery(attaching) }) : undefined,
    api.open("POST", `${path}/wait`, { query: { condition } }),
  ]);
  if (attached.status === "fulfilled" && waited.status === "fulfilled") return [attached.value, waited.value];
  if (attached.status === "fulfilled") attached.value?.destroy();
  if (waited.status === "fulfilled") waited.value.destroy();
  throw (attached.status === "rejected" ? attached : (waited as PromiseRejectedResult)).reason as Error;
}

function exitCodeOf(text: string): number {
  const { StatusCode, Error: error } = JSON.parse(text) as { StatusCode: number; Error?: { Message?: string } | null };
  if (error?.Message) throw new CommandError(error.Message, runFailed);
  return StatusCode;
}

function attachQuery({ stdin, stdout, stderr }: Attaching): Record<string, number | undefined> {
  const one = (on: boolean): number | undefined => (on ? 1 : undefined);
  return { stream: 1, stdin: one(stdin), stdout: one(stdout), stderr: one(stderr) };
}

export const create = command({
  usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
  args: atLeast(1),
  firstArgEndsFlags: true,
  flags: createFlags,
  completes: "images",
  async run(session, flags, args) {
    session.print(await createContainer(session, flags, args, attachingOf(flags, false)));
  },
});

/**
 * Creates it, and pulls the image when the daemon has none.
 * @param connections  that will be needed next, besides the one that this uses
 * @returns its id
 */
async function createContainer(
  session: Session,
  flags: CreateValues,
  args: readonly string[],
  attaching: Attaching,
  connections = 0,
): Promise<string> {
  // What is to be sent is put together while the daemon is asked for its version.
  const asking = session.api();
  asking.catch(() => undefined); // it is waited for below
  await new Promise<void>((resolve) => {
    setImmediate(resolve);
  });
  const [image = ""] = args;
  const { cidfile, pull = "missing", platform } = flags;
  if (cidfile !== undefined && exists(cidfile)) {
    throw new CommandError(
      `container ID file found, make sure the other container isn't running or delete ${cidfile}`,
      runFailed,
    );
  }
  const size = flags.tty === true ? sizeOf(session) : ([0, 0] as const);
  const body = createBody(flags, args, attaching, { env: session.env, size });
  const api = await asking;
  const make = (): Promise<{ Id: string; Warnings?: string[] | null }> => {
    const making = api.post<{ Id: string; Warnings?: string[] | null }>("/containers/create", {
      query: { name: flags.name, platform },
      body,
    });
    api.expect(connections);
    return making;
  };
  if (pull === "always") await pullImage(session, image, platform, flags.quiet === true);
  let made;
  try {
    made = await make();
  } catch (error) {
    if (!isNotFound(error) || pull !== "missing" || !/no such image/i.test(messageOf(error))) throw error;
    if (flags.quiet !== true) session.warn(`Unable to find image '${withTag(image)}' locally`);
    await pullImage(session, image, platform, flags.quiet === true);
    made = await make();
  }
  for (const warning of made.Warnings ?? []) session.warn(`WARNING: ${warning}`);
  if (cidfile !== undefined) writeFileSync(cidfile, made.Id);
  return made.Id;
}

/** Of our terminal. Not asked without one: standard output is opened by who writes to it. */
function sizeOf({ stdout: { rows = 0, columns = 0, isTTY } }: Session): readonly [number, number] {
  return isTTY === true ? [rows, columns] : [0, 0];
}

const withTag = (image: string): string => (/[:@][^/]*$/.test(image) ? image : `${image}:latest`);

function exists(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  // What an unfinished run left behind is empty.
  if (found?.size === 0) rmSync(path);
  return found !== undefined && found.size > 0;
}

async function pullImage(session: Session, image: string, platform: string | undefined, quiet: boolean): Promise<void> {
  const api = await session.api();
  const { repo, tag } = normalName(image);
  const answer = await api.open("POST", "/images/create", {
    query: { fromImage: repo, tag: tag ?? "latest", platform },
    headers: { "X-Registry-Auth": registryAuth(session, image) },
  });
  // Standard output belongs to the container.
  const shown: Session = { ...session, stdout: session.stderr, print: (line) => session.warn(line) };
  await printProgress(shown, jsonLines<ProgressLine>(answer), quiet);
}

interface State {
  readonly Id: string;
  readonly Config?: { readonly Tty?: boolean; readonly OpenStdin?: boolean };
  readonly State?: { readonly Running?: boolean; readonly Paused?: boolean; readonly Restarting?: boolean };
  readonly HostConfig?: { readonly AutoRemove?: boolean };
}

export const start = command({
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  args: atLeast(1),
  flags: {
    attach: flag.bool("Attach standard output and error, and pass signals on", { short: "a" }),
    "detach-keys": flag.text("Keys that detach from the container"),
    interactive: flag.bool("Attach standard input", { short: "i" }),
  },
  completes: "containers",
  async run(session, flags, names) {
    if (flags.attach === true || flags.interactive === true) {
      const [name = "", ...more] = names;
      if (more.length > 0) throw new CommandError("you cannot start and attach multiple containers at once");
      return startAttached(session, name, flags.interactive === true, flags["detach-keys"]);
    }
    const api = await session.api();
    const failed: string[] = [];
    for (const name of names) {
      try {
        await api.post(`/containers/${inPath(name)}/start`);
        session.print(name);
      } catch (error) {
        session.warn(messageOf(error));
        failed.push(name);
      }
    }
    if (failed.length > 0) throw new CommandError(`Error: failed to start containers: ${failed.join(", ")}`);
    return 0;
  },
});

async function startAttached(
  session: Session,
  name: string,
  interactive: boolean,
  detachKeys: string | undefined,
): Promise<number> {
  const api = await session.api();
  const container = await api.get<State>(`/containers/${inPath(name)}/json`);
  const tty = container.Config?.Tty === true;
  return hold(session, api, `/containers/${container.Id}`, {
    attaching: { stdin: interactive && container.Config?.OpenStdin === true, stdout: true, stderr: true },
    tty,
    detachKeys,
    passSignals: true,
    condition: container.HostConfig?.AutoRemove === true ? "removed" : "next-exit",
    starts: true,
  });
}

export const attach = command({
  usage: "[OPTIONS] CONTAINER",
  args: exactly(1),
  flags: {
    "detach-keys": flag.text("Keys that detach from the container"),
    "no-stdin": flag.bool("Do not attach standard input"),
    "sig-proxy": flag.bool("Pass signals on to the process", { shownDefault: "true" }),
  },
  completes: "containers",
  async run(session, flags, [name = ""]) {
    const api = await session.api();
    const path = `/containers/${inPath(name)}`;
    const container = await api.get<State>(`${path}/json`);
    const { Running = false, Paused = false, Restarting = false } = container.State ?? {};
    if (!Running) throw new CommandError("You cannot attach to a stopped container, start it first");
    if (Paused) throw new CommandError("You cannot attach to a paused container, unpause it first");
    if (Restarting) throw new CommandError("You cannot attach to a restarting container, wait until it is running");
    return hold(session, api, path, {
      attaching: {
        stdin: flags["no-stdin"] !== true && container.Config?.OpenStdin === true,
        stdout: true,
        stderr: true,
      },
      tty: container.Config?.Tty === true,
      detachKeys: flags["detach-keys"],
      passSignals: flags["sig-proxy"] !== false,
      condition: "next-exit",
      starts: false,
    });
  },
});

/** Waits for each and prints its exit code. */
export const wait = command({
  usage: "CONTAINER [CONTAINER...]",
  args: atLeast(1),
  flags: {},
  completes: "containers",
  async run(session, _flags, names) {
    const api = await session.api();
    await forEachName(session, names, async (name) => {
      const answer = await api.open("POST", `/containers/${inPath(name)}/wait`, { signal: session.interrupted });
      return String(exitCodeOf(await readText(answer)));
    });
  },
});
