/**
 * How long something takes on this machine, without the time in which others kept it waiting: promises of how long a change
 * takes can be held against a machine that does other things at the same time. Source: Linux's Documentation/accounting/psi.rst.
 */
import { readFileSync } from "node:fs";

export interface TimeTaken {
  readonly ms: number;
  /** Less the time in which some task waited for a processor or a disk, or the machine for its own; undefined: not told. */
  readonly calmMs: number | undefined;
}

/** @returns what it took from now on until that is called */
export function timeFromNow(): () => TimeTaken {
  const startedMs = performance.now();
  const before = waitedMs();
  return () => {
    const ms = performance.now() - startedMs;
    const [cpu, io, stolen] = waitedMs().map((now, at) => now - (before[at] ?? 0)) as [number, number, number];
    const calmMs = ms - Math.max(cpu, io) - stolen;
    return { ms, calmMs: Number.isNaN(calmMs) ? undefined : Math.max(0, calmMs) };
  };
}

/** Since boot: for a processor, for a disk, and what the machine below this one took (proc(5), /proc/stat, steal). */
const waitedMs = (): number[] => [
  pressureMs("cpu"),
  pressureMs("io"),
  10 * Number(/^cpu +(?:\d+ ){7}(\d+)/u.exec(readFileSync("/proc/stat", "utf8"))?.[1] ?? 0),
];

function pressureMs(resource: string): number {
  try {
    const total = /^some .*total=(\d+)/u.exec(readFileSync(`/proc/pressure/${resource}`, "utf8"))?.[1];
    return Number(total ?? Number.NaN) / 1000;
  } catch {
    return Number.NaN;
  }
}
