/** `stats`: what containers use, again and again or once. */
import { setTimeout as sleep } from "node:timers/promises";
import { isAbort } from "../../lib/pure/errors.ts";
import { inPath, type Api } from "../api/client.ts";
import { jsonLines } from "../api/streams.ts";
import { isNotFound } from "../errors.ts";
import { atLeast, command } from "../grammar/command.ts";
import * as flag from "../grammar/flags.ts";
import { binarySize, decimalSize, shortId } from "../output/human.ts";
import { printList, type Columns } from "../output/list.ts";
import type { Session } from "../session.ts";

interface Cpu {
  readonly cpu_usage?: { readonly total_usage?: number };
  readonly system_cpu_usage?: number;
  readonly online_cpus?: number;
}

interface Stats {
  readonly id?: string;
  readonly name?: string;
  readonly cpu_stats?: Cpu;
  readonly precpu_stats?: Cpu;
  readonly memory_stats?: {
    readonly usage?: number;
    readonly limit?: number;
    readonly stats?: Readonly<Record<string, number>>;
  };
  readonly networks?: Readonly<Record<string, { readonly rx_bytes: number; readonly tx_bytes: number }>>;
  readonly blkio_stats?: {
    readonly io_service_bytes_recursive?: readonly { readonly op: string; readonly value: number }[] | null;
  };
  readonly pids_stats?: { readonly current?: number };
}

const redrawMs = 500;
/** How often a list without names looks for new containers. */
const relistMs = 2_000;

export const stats = command({
  usage: "[OPTIONS] [CONTAINER...]",
  args: atLeast(0),
  flags: {
    all: flag.bool("Show those that do not run, too", { short: "a" }),
    format: flag.format(),
    "no-stream": flag.bool("Print once"),
    "no-trunc": flag.noTrunc(),
  },
  completes: "containers",
  async run(session, flags, names) {
    const options = { format: flags.format, long: flags["no-trunc"] === true };
    const api = await session.api();
    if (flags["no-stream"] === true) {
      const wanted = names.length > 0 ? names : await running(api, flags.all === true);
      const found = await Promise.all(wanted.map((name) => once(api, name)));
      print(session, found, options);
      return;
    }
    await watch(session, api, names, flags.all === true, options);
  },
});

async function running(api: Api, all: boolean): Promise<string[]> {
  const containers = await api.get<{ Id: string }[] | null>("/containers/json", {
    query: { all: all ? 1 : undefined },
  });
  return (containers ?? []).map(({ Id }) => shortId(Id));
}

async function once(api: Api, name: string): Promise<Stats> {
  return api.get<Stats>(`/containers/${inPath(name)}/stats`, { query: { stream: 0 } });
}

interface PrintOptions {
  readonly format: string | undefined;
  readonly long: boolean;
}

/** One stream for each container; the table is drawn from the newest of each. */
async function watch(
  session: Session,
  api: Api,
  names: readonly string[],
  all: boolean,
  options: PrintOptions,
): Promise<void> {
  const signal = session.interrupted;
  const latest = new Map<string, Stats>();
  let failure: unknown;
  const follow = async (name: string): Promise<void> => {
    try {
      const answer = await api.open("GET", `/containers/${inPath(name)}/stats`, { query: { stream: 1 }, signal });
      for await (const stats of jsonLines<Stats>(answer)) if (latest.has(name)) latest.set(name, stats);
    } catch (error) {
      // One that was found by listing may have gone since.
      if (!isAbort(error) && !(names.length === 0 && isNotFound(error))) failure = error;
    } finally {
      if (names.length === 0) latest.delete(name);
    }
  };
  let listedAtMs = -Infinity;
  while (!signal.aborted) {
    if (performance.now() - listedAtMs >= (names.length === 0 ? relistMs : Infinity)) {
      listedAtMs = performance.now();
      for (const name of names.length > 0 ? names : await running(api, all)) {
        if (latest.has(name)) continue;
        latest.set(name, {});
        void follow(name);
      }
    }
    if (failure !== undefined) throw failure;
    if (session.stdout.isTTY === true) session.stdout.write("\x1b[H\x1b[2J");
    print(
      session,
      [...latest].map(([name, stats]) => ({ name: `/${name}`, ...stats })),
      options,
    );
    await sleep(redrawMs, undefined, { signal });
  }
}

function print(session: Session, rows: readonly Stats[], { format, long }: PrintOptions): void {
  printList(session, rows, {
    columns: columns(long),
    shown: ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"],
    id: "ID",
    format,
  });
}

function columns(long: boolean): Columns<Stats> {
  const id = ({ id = "--" }: Stats): string => (long ? id : shortId(id));
  const pair = (a: number, b: number): string => `${decimalSize(a)} / ${decimalSize(b)}`;
  const known = (stats: Stats, text: () => string): string => (stats.cpu_stats === undefined ? "--" : text());
  return {
    ID: ["CONTAINER ID", id],
    Container: ["CONTAINER", id],
    Name: ["NAME", ({ name = "--" }) => name.replace(/^\//, "")],
    CPUPerc: ["CPU %", (stats) => known(stats, () => `${cpuPercent(stats).toFixed(2)}%`)],
    MemUsage: [
      "MEM USAGE / LIMIT",
      (stats) => known(stats, () => `${binarySize(memoryUsed(stats))} / ${binarySize(stats.memory_stats?.limit ?? 0)}`),
    ],
    MemPerc: ["MEM %", (stats) => known(stats, () => `${memoryPercent(stats).toFixed(2)}%`)],
    NetIO: [
      "NET I/O",
      (stats) =>
        known(stats, () => {
          const networks = Object.values(stats.networks ?? {});
          return pair(sum(networks.map((one) => one.rx_bytes)), sum(networks.map((one) => one.tx_bytes)));
        }),
    ],
    BlockIO: ["BLOCK I/O", (stats) => known(stats, () => pair(blockBytes(stats, "r"), blockBytes(stats, "w")))],
    PIDs: ["PIDS", (stats) => known(stats, () => String(stats.pids_stats?.current ?? 0))],
  };
}

const sum = (values: readonly number[]): number => values.reduce((all, one) => all + one, 0);

function cpuPercent({ cpu_stats: now, precpu_stats: before }: Stats): number {
  const used = (now?.cpu_usage?.total_usage ?? 0) - (before?.cpu_usage?.total_usage ?? 0);
  const host = (now?.system_cpu_usage ?? 0) - (before?.system_cpu_usage ?? 0);
  return host > 0 && used > 0 ? (used / host) * (now?.online_cpus ?? 1) * 100 : 0;
}

/** Without the page cache that can be dropped: cgroup 1 and 2 name it differently. */
function memoryUsed({ memory_stats: memory }: Stats): number {
  const usage = memory?.usage ?? 0;
  const cache = memory?.stats?.["total_inactive_file"] ?? memory?.stats?.["inactive_file"] ?? 0;
  return cache < usage ? usage - cache : usage;
}

function memoryPercent(stats: Stats): number {
  const limit = stats.memory_stats?.limit ?? 0;
  return limit > 0 ? (memoryUsed(stats) / limit) * 100 : 0;
}

function blockBytes({ blkio_stats: block }: Stats, letter: "r" | "w"): number {
  const entries = block?.io_service_bytes_recursive ?? [];
  return sum(entries.filter(({ op }) => op.toLowerCase().startsWith(letter)).map(({ value }) => value));
}
