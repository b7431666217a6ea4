/** Resource use of a running container, read from its cgroups (version 1, 2 or both), in the shape of the Engine API. */
import { readFile } from "node:fs/promises";
import { cpus } from "node:os";

/** Controller names to host directories, as the monitor tells them; version 2 has the empty name. */
export type CgroupPaths = Readonly<Record<string, string>>;

export interface CpuStats {
  readonly cpu_usage: {
    readonly total_usage: number;
    readonly usage_in_kernelmode: number;
    readonly usage_in_usermode: number;
    readonly percpu_usage?: readonly number[];
  };
  readonly system_cpu_usage: number;
  readonly online_cpus: number;
  readonly throttling_data: {
    readonly periods: number;
    readonly throttled_periods: number;
    readonly throttled_time: number;
  };
}

export interface BlkioEntry {
  readonly major: number;
  readonly minor: number;
  readonly op: string;
  readonly value: number;
}

export interface ContainerStats {
  readonly read: string;
  readonly pids_stats: { readonly current: number; readonly limit?: number };
  readonly cpu_stats: CpuStats;
  readonly memory_stats: {
    readonly usage: number;
    readonly max_usage?: number;
    readonly limit: number;
    readonly stats: Readonly<Record<string, number>>;
  };
  readonly blkio_stats: {
    readonly io_service_bytes_recursive: readonly BlkioEntry[];
    readonly io_serviced_recursive: readonly BlkioEntry[];
  };
  readonly networks: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly num_procs: 0;
  readonly storage_stats: Readonly<Record<string, never>>;
}

const read = (path: string): Promise<string> => readFile(path, "utf8").catch(() => "");

/** `name value` lines. */
export function parseKeyed(text: string): Record<string, number> {
  const found: Record<string, number> = {};
  for (const line of text.split("\n")) {
    const [name, value] = line.split(/\s+/, 2);
    if (name !== undefined && value !== undefined && /^[0-9]+$/.test(value)) found[name] = Number(value);
  }
  return found;
}

const number = (text: string): number => (/^[0-9]+\s*$/.test(text) ? Number(text) : 0);

/** Jiffies of all processors in nanoseconds (proc(5), /proc/stat), which `docker stats` divides by. */
export function parseSystemCpuNs(stat: string): number {
  const [, ...fields] = (stat.split("\n", 1)[0] ?? "").split(/\s+/);
  return fields.slice(0, 7).reduce((sum, field) => sum + Number(field), 0) * 10_000_000;
}

/** blkio.throttle.io_service_bytes: `8:0 Read 4096`. */
export function parseBlkio(text: string): BlkioEntry[] {
  return text.split("\n").flatMap((line) => {
    const match = /^([0-9]+):([0-9]+) (\w+) ([0-9]+)$/.exec(line);
    return match === null
      ? []
      : [
          {
            major: Number(match[1]),
            minor: Number(match[2]),
            op: (match[3] ?? "").toLowerCase(),
            value: Number(match[4]),
          },
        ];
  });
}

/** io.stat of version 2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4`. */
export function parseIoStat(text: string, keys: readonly [read: string, write: string]): BlkioEntry[] {
  return text.split("\n").flatMap((line) => {
    const match = /^([0-9]+):([0-9]+) (.*)$/.exec(line);
    if (match === null) return [];
    return keys.flatMap((key, index) => {
      const value = new RegExp(`\\b${key}=([0-9]+)`).exec(match[3] ?? "");
      return value === null
        ? []
        : [
            {
              major: Number(match[1]),
              minor: Number(match[2]),
              op: index === 0 ? "read" : "write",
              value: Number(value[1]),
            },
          ];
    });
  });
}

/** /proc/PID/net/dev, without the loopback. */
export function parseNetDev(text: string): Record<string, Record<string, number>> {
  const found: Record<string, Record<string, number>> = {};
  for (const line of text.split("\n").slice(2)) {
    const [name, rest] = line.split(":", 2);
    const n = (rest ?? "").trim().split(/\s+/).map(Number);
    if (rest === undefined || name?.trim() === "lo" || n.length < 12) continue;
    found[name?.trim() ?? ""] = {
      rx_bytes: n[0] ?? 0,
      rx_packets: n[1] ?? 0,
      rx_errors: n[2] ?? 0,
      rx_dropped: n[3] ?? 0,
      tx_bytes: n[8] ?? 0,
      tx_packets: n[9] ?? 0,
      tx_errors: n[10] ?? 0,
      tx_dropped: n[11] ?? 0,
    };
  }
  return found;
}

function pathOf(cgroups: CgroupPaths, controller: string): string | undefined {
  return Object.entries(cgroups).find(([names]) => names.split(",").includes(controller))?.[1];
}

async function readCpu(cgroups: CgroupPaths): Promise<CpuStats> {
  const system_cpu_usage = parseSystemCpuNs(await read("/proc/stat"));
  const online_cpus = cpus().length;
  const account = pathOf(cgroups, "cpuacct");
  if (account !== undefined) {
    const stat = parseKeyed(await read(`${account}/cpuacct.stat`));
    const throttle = parseKeyed(await read(`${pathOf(cgroups, "cpu") ?? account}/cpu.stat`));
    return {
      cpu_usage: {
        total_usage: number(await read(`${account}/cpuacct.usage`)),
        percpu_usage: (await read(`${account}/cpuacct.usage_percpu`)).trim().split(/\s+/).map(Number),
        usage_in_kernelmode: (stat["system"] ?? 0) * 10_000_000,
        usage_in_usermode: (stat["user"] ?? 0) * 10_000_000,
      },
      system_cpu_usage,
      online_cpus,
      throttling_data: {
        periods: throttle["nr_periods"] ?? 0,
        throttled_periods: throttle["nr_throttled"] ?? 0,
        throttled_time: throttle["throttled_time"] ?? 0,
      },
    };
  }
  const stat = parseKeyed(await read(`${cgroups[""] ?? "/nonexistent"}/cpu.stat`));
  return {
    cpu_usage: {
      total_usage: (stat["usage_usec"] ?? 0) * 1000,
      usage_in_kernelmode: (stat["system_usec"] ?? 0) * 1000,
      usage_in_usermode: (stat["user_usec"] ?? 0) * 1000,
    },
    system_cpu_usage,
    online_cpus,
    throttling_data: {
      periods: stat["nr_periods"] ?? 0,
      throttled_periods: stat["nr_throttled"] ?? 0,
      throttled_time: (stat["throttled_usec"] ?? 0) * 1000,
    },
  };
}

async function readMemory(cgroups: CgroupPaths, hostMemory: number): Promise<ContainerStats["memory_stats"]> {
  const version1 = pathOf(cgroups, "memory");
  if (version1 !== undefined) {
    const limit = number(await read(`${version1}/memory.limit_in_bytes`));
    return {
      usage: number(await read(`${version1}/memory.usage_in_bytes`)),
      max_usage: number(await read(`${version1}/memory.max_usage_in_bytes`)),
      limit: limit === 0 || limit > hostMemory ? hostMemory : limit,
      stats: parseKeyed(await read(`${version1}/memory.stat`)),
    };
  }
  const path = cgroups[""] ?? "/nonexistent";
  const limit = number(await read(`${path}/memory.max`)); // "max" gives 0
  return {
    usage: number(await read(`${path}/memory.current`)),
    limit: limit === 0 || limit > hostMemory ? hostMemory : limit,
    stats: parseKeyed(await read(`${path}/memory.stat`)),
  };
}

export async function readStats(
  cgroups: CgroupPaths,
  pid: number,
  wallMs: number,
  hostMemory: number,
): Promise<ContainerStats> {
  const pids = pathOf(cgroups, "pids") ?? cgroups[""] ?? "/nonexistent";
  const blkio = pathOf(cgroups, "blkio");
  const io = blkio === undefined ? await read(`${cgroups[""] ?? "/nonexistent"}/io.stat`) : "";
  const pidsMax = number(await read(`${pids}/pids.max`));
  return {
    read: new Date(wallMs).toISOString(),
    pids_stats: { current: number(await read(`${pids}/pids.current`)), ...(pidsMax > 0 ? { limit: pidsMax } : {}) },
    cpu_stats: await readCpu(cgroups),
    memory_stats: await readMemory(cgroups, hostMemory),
    blkio_stats: {
      io_service_bytes_recursive:
        blkio === undefined
          ? parseIoStat(io, ["rbytes", "wbytes"])
          : parseBlkio(await read(`${blkio}/blkio.throttle.io_service_bytes_recursive`)),
      io_serviced_recursive:
        blkio === undefined
          ? parseIoStat(io, ["rios", "wios"])
          : parseBlkio(await read(`${blkio}/blkio.throttle.io_serviced_recursive`)),
    },
    networks: parseNetDev(await read(`/proc/${pid}/net/dev`)),
    num_procs: 0,
    storage_stats: {},
  };
}

/** All processes of a container, as the host numbers them. */
export async function readPids(cgroups: CgroupPaths): Promise<Set<number>> {
  const path = pathOf(cgroups, "pids") ?? pathOf(cgroups, "memory") ?? cgroups[""];
  if (path === undefined) return new Set();
  return new Set(
    (await read(`${path}/cgroup.procs`)).split("\n").flatMap((line) => (line === "" ? [] : [Number(line)])),
  );
}
