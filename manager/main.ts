/**
 * `manager`: one manager as a process of its own.
 * Exit codes: 0 stopped as asked, 1 cannot start or go on (the reason and what to do are printed), 2 wrong use,
 * 70 the disk failed or stalled (start again: what is really on it is read back), 71 an error of our own.
 */
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { parseArgs, type ParseArgsConfig } from "node:util";

import { ClusterError, isAbort } from "../lib/pure/errors.ts";
import {
  collectAtRest,
  createLogger,
  logLevels,
  realClock,
  standardError,
  type LogLevel,
} from "../lib/runtime/index.ts";
import { readBootstrap } from "./ca/index.ts";
import { forceNewCluster } from "./force-new-cluster.ts";
import { Manager, type ManagerOptions, type Start } from "./manager.ts";
import { checkTimings, lanTimings, wanTimings, type MemberTimings } from "./raft/index.ts";

const usage = `usage: manager --data-dir DIR --listen HOST:PORT --cert FILE --key FILE --ca FILE [--init | --join HOST:PORT]
       manager force-new-cluster --data-dir DIR --cert FILE --key FILE --ca FILE [--backups DIR] [--yes]

  --data-dir DIR           where this manager keeps its log and snapshots; its alone
  --listen HOST:PORT       where it serves; port 0 takes a free one
  --advertise HOST:PORT    where the others reach it, if that differs
  --cert, --key, --ca FILE its certificate, private key, and the cluster's roots (PEM)
  --init                   form a new cluster; goes on with it when the folder holds it already
  --join HOST:PORT         be let into the cluster of that manager; may be given several times
  --replace MEMBER         with --join: take the place of this lost or quarantined member
  --unlock-key-file FILE   the cluster's unlock key, if its logs are locked with one
  --socket PATH            also serve on this unix socket, for the daemon of this node
  --secrets-stdin          read one line of JSON from standard input: {"unlockKey", "bootstrap"}, either of them optional
  --metrics HOST:PORT      serve Prometheus metrics there (loopback only)
  --preset lan|wan         timings for one data centre (default) or between them
  --tick-ms, --heartbeat-ms, --election-ms N
                           single timings; the election timeout is at least five heartbeats
  --lease-reads            let the leader read without asking a quorum while its lease lasts
  --log-level LEVEL        ${logLevels.join(", ")}
  --help

force-new-cluster makes the manager of this folder the only one, after the quorum is lost for good. It prints what will be
lost and does nothing without --yes; it refuses while a quorum answers. The folder as it was before is copied first, beside
it or into --backups.`;

const options = {
  "data-dir": { type: "string" },
  listen: { type: "string" },
  advertise: { type: "string" },
  cert: { type: "string" },
  key: { type: "string" },
  ca: { type: "string" },
  init: { type: "boolean", default: false },
  join: { type: "string", multiple: true, default: [] },
  replace: { type: "string" },
  "unlock-key-file": { type: "string" },
  backups: { type: "string" },
  socket: { type: "string" },
  "secrets-stdin": { type: "boolean", default: false },
  metrics: { type: "string" },
  preset: { type: "string", default: "lan" },
  "tick-ms": { type: "string" },
  "heartbeat-ms": { type: "string" },
  "election-ms": { type: "string" },
  "lease-reads": { type: "boolean", default: false },
  "log-level": { type: "string", default: "info" },
  yes: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
} as const satisfies ParseArgsConfig["options"];

type Flags = ReturnType<typeof parse>["values"];

/** In election timeouts. */
const removedPatience = 4;

class WrongUse extends Error {}

function parse(
  args: readonly string[],
): ReturnType<typeof parseArgs<{ options: typeof options; allowPositionals: true }>> {
  return parseArgs({ args: [...args], options, allowPositionals: true });
}

async function main(args: readonly string[]): Promise<number> {
  let parsed;
  try {
    parsed = parse(args);
  } catch (error) {
    throw new WrongUse((error as Error).message);
  }
  const { values, positionals } = parsed;
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  const [command = "run", ...rest] = positionals;
  if (rest.length > 0) throw new WrongUse(`"${rest[0]}" is one word too many`);
  if (command === "force-new-cluster") return await force(values);
  if (command !== "run") throw new WrongUse(`there is no command "${command}"`);
  return await run(values);
}

async function run(flags: Flags): Promise<number> {
  const stop = new AbortController();
  const ended = Promise.withResolvers<number>();
  const logger = createLogger({ level: levelOf(flags["log-level"]) });
  const end = (): void => {
    stop.abort();
    ended.resolve(0);
  };
  const managerOptions: ManagerOptions = {
    dataDir: needed(flags, "data-dir"),
    listen: addressOf("listen", needed(flags, "listen")),
    tls: materialOf(flags),
    start: startOf(flags),
    timings: timingsOf(flags),
    leaseReads: flags["lease-reads"],
    logger,
    ...(flags.advertise === undefined ? {} : { advertise: addressOf("advertise", flags.advertise) }),
    ...(flags.metrics === undefined ? {} : { metrics: addressOf("metrics", flags.metrics) }),
    ...(flags.socket === undefined ? {} : { socket: flags.socket }),
    ...(flags["unlock-key-file"] === undefined ? {} : { unlockKey: read("unlock-key-file", flags["unlock-key-file"]) }),
    ...(flags["secrets-stdin"] ? { ...(await readSecrets(end)), daemon: theDaemon } : {}),
    onFatal: (error, exitCode) => {
      // No goodbye: nothing in memory may be trusted, and nothing more may leave this process.
      report(error);
      process.exit(exitCode);
    },
    onOut: (state, reason) => {
      logger.error(`${state}: ${reason}`);
      // It still answers candidates for a while: the rest may need its vote until they know of the removal, too.
      if (state === "removed")
        realClock.after(removedPatience * managerOptions.timings.electionMs, () => ended.resolve(0));
    },
  };
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      logger.info("stopping", { signal });
      end();
    });
  }
  let manager: Manager | undefined;
  let reloadWanted = false;
  const reload = (): void => {
    // It may come while the manager still waits to be let in.
    reloadWanted = manager === undefined;
    try {
      manager?.replaceTls(materialOf(flags));
      if (manager !== undefined) logger.info("took the certificate anew");
    } catch (error) {
      logger.error("goes on with the certificate of before", { error });
    }
  };
  process.on("SIGHUP", reload);
  try {
    manager = await Manager.open(managerOptions, stop.signal);
  } catch (error) {
    if (isAbort(error)) return 0;
    throw error;
  }
  if (reloadWanted) reload();
  // For whoever started it: it serves, and where.
  const { port, metricsPort } = manager;
  process.stdout.write(`${JSON.stringify({ serving: port, metrics: metricsPort, memberId: manager.raft.memberId })}\n`);
  const memory = collectAtRest(realClock);
  const code = await ended.promise;
  memory.cancel();
  await manager[Symbol.asyncDispose]();
  // The daemon's end of it stays open.
  process.stdin.destroy();
  return code;
}

/** Lines on standard output, which only who started this process reads: the daemon of the node. */
const theDaemon: NonNullable<ManagerOptions["daemon"]> = {
  lock: (lock) => void process.stdout.write(`${JSON.stringify({ lock: lock ?? null })}\n`),
  lockSettled: () => void process.stdout.write(`${JSON.stringify({ lockSettled: true })}\n`),
  renewed: ({ certificatePem, rootsPem }) =>
    void process.stdout.write(`${JSON.stringify({ renewed: { certificatePem, rootsPem } })}\n`),
};

async function force(flags: Flags): Promise<number> {
  const given = flags["unlock-key-file"];
  const secrets = flags["secrets-stdin"] ? await readSecrets(() => undefined) : {};
  const dataDir = needed(flags, "data-dir");
  const text = await forceNewCluster({
    dataDir,
    backupsDir: flags.backups ?? dirname(dataDir),
    tls: materialOf(flags),
    ...(given === undefined ? secrets : { unlockKey: read("unlock-key-file", given) }),
    really: flags.yes,
  });
  process.stdin.destroy();
  process.stdout.write(`${text}\n`);
  if (!flags.yes) process.stdout.write("Nothing was changed. Give --yes to do it.\n");
  return 0;
}

const secretsBytesMax = 64 * 1024;

/**
 * What must stand in no argument list and in no file. Standard input stays open as long as the daemon lives, and this
 * process does not outlive it.
 * @throws WrongUse
 */
async function readSecrets(onClosed: () => void): Promise<Pick<ManagerOptions, "unlockKey" | "bootstrap">> {
  const line = await new Promise<string>((resolve, reject) => {
    let text = "";
    process.stdin.setEncoding("utf8");
    process.stdin.on("data", (chunk: string) => {
      if (text.length > secretsBytesMax) return;
      text += chunk;
      if (text.length > secretsBytesMax) reject(new WrongUse("standard input is too long for --secrets-stdin"));
      else if (text.includes("\n")) resolve(text);
    });
    process.stdin.once("end", () => {
      reject(new WrongUse("--secrets-stdin wants one line of JSON"));
      onClosed();
    });
  });
  let secrets: unknown;
  try {
    secrets = JSON.parse(line);
  } catch {
    // What was there is not repeated: it may be half a secret.
    throw new WrongUse("--secrets-stdin wants one line of JSON");
  }
  if (typeof secrets !== "object" || secrets === null) throw new WrongUse("--secrets-stdin wants one line of JSON");
  const { unlockKey, bootstrap } = secrets as { unlockKey?: unknown; bootstrap?: unknown };
  return {
    ...(typeof unlockKey === "string" ? { unlockKey } : {}),
    ...(bootstrap === undefined ? {} : { bootstrap: readBootstrap(bootstrap) }),
  };
}

function startOf(flags: Flags): Start {
  if (flags.init && flags.join.length > 0) throw new WrongUse("give --init or --join, not both");
  if (flags.replace !== undefined && flags.join.length === 0) throw new WrongUse("--replace goes with --join");
  if (flags.init) return { kind: "init" };
  if (flags.join.length === 0) return { kind: "resume" };
  const addresses = flags.join.map((address) => addressOf("join", address));
  return { kind: "join", addresses, replaces: flags.replace === undefined ? 0 : numberOf("replace", flags.replace) };
}

function timingsOf(flags: Flags): MemberTimings {
  if (flags.preset !== "lan" && flags.preset !== "wan") throw new WrongUse(`there is no preset "${flags.preset}"`);
  const preset = flags.preset === "lan" ? lanTimings : wanTimings;
  const pick = (flag: "tick-ms" | "heartbeat-ms" | "election-ms", otherwise: number): number => {
    const value = flags[flag];
    return value === undefined ? otherwise : numberOf(flag, value);
  };
  const timings = {
    tickMs: pick("tick-ms", preset.tickMs),
    heartbeatMs: pick("heartbeat-ms", preset.heartbeatMs),
    electionMs: pick("election-ms", preset.electionMs),
  };
  try {
    checkTimings(timings);
  } catch (error) {
    throw new WrongUse((error as Error).message);
  }
  return timings;
}

function materialOf(flags: Flags): ManagerOptions["tls"] {
  return {
    certificatePem: read("cert", needed(flags, "cert")),
    privateKeyPem: read("key", needed(flags, "key")),
    rootsPem: read("ca", needed(flags, "ca")),
  };
}

function needed(flags: Flags, name: "data-dir" | "listen" | "cert" | "key" | "ca"): string {
  const value = flags[name];
  if (value === undefined || value === "") throw new WrongUse(`--${name} is missing`);
  return value;
}

function addressOf(flag: string, value: string): string {
  const port = Number(/^(?:\[[0-9a-fA-F:]+\]|[^\s:[\]]+):(\d{1,5})$/u.exec(value)?.[1] ?? "NaN");
  if (!(port <= 65_535)) throw new WrongUse(`--${flag} "${value}" is not HOST:PORT`);
  return value;
}

function numberOf(flag: string, value: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 1) throw new WrongUse(`--${flag} "${value}" is not a positive number`);
  return number;
}

function levelOf(level: string): LogLevel {
  const known = logLevels.find((name) => name === level);
  if (known === undefined) throw new WrongUse(`there is no log level "${level}"`);
  return known;
}

function read(flag: string, file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new WrongUse(`cannot read the file of --${flag}: ${(error as Error).message}`);
  }
}

/** What happened and what to do about it, for people; the same as JSON facts is in the log before it. */
function report(error: unknown): void {
  if (error instanceof ClusterError) {
    const { code, message, fix } = error;
    // The same for the program that started it.
    process.stdout.write(`${JSON.stringify({ failed: { code, message, fix } })}\n`);
    standardError().write(`manager: ${error.message} [${error.code}]\n`);
    if (error.fix !== undefined) standardError().write(`manager: ${error.fix}\n`);
  } else standardError().write(`manager: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
}

// Loops run from timers and watches: what escapes one is a bug of ours, and this process must not go on with half a plan.
process.on("uncaughtException", (error) => {
  report(error);
  process.exit(71);
});
try {
  const code = await main(process.argv.slice(2));
  // Everything is closed. A connection that a peer was just opening when the server went down may linger inside grpc-js, and
  // would keep a process that has said goodbye alive for as long as the peer wants.
  process.exit(code);
} catch (error) {
  if (error instanceof WrongUse) {
    standardError().write(`manager: ${error.message}\nmanager: see \`manager --help\`\n`);
    process.exit(2);
  }
  report(error);
  // Standard input may be open still, and would keep a process that has failed.
  process.exit(error instanceof ClusterError ? 1 : 71);
}
