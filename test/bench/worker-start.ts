/**
 * The worker's own part of `bench -- start`: many containers at once, what their monitors cost while they run (S5), and how
 * fast a container's output goes through its monitor into the log (S6).
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import type { Container } from "../../worker/containers/index.ts";
import { native, TestWorker } from "../conformance/containers/host.ts";
import { median, quantile, type Report } from "./report.ts";

/** Clock ticks of /proc/PID/stat a second: fixed in the kernel's interface. */
const ticksPerSecond = 100;
const idleSeconds = 10;

function cpuSeconds(pid: number | "self"): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** KiB of smaps_rollup, summed over the lines that fit. */
function memoryKib(pid: number, lines: RegExp): number {
  const found = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8").matchAll(lines);
  return sum(Array.from(found, (match) => Number(match[1])));
}

export async function manyAtOnce(count: number, report: Report): Promise<void> {
  const worker = await new TestWorker("builtin").open();
  const add = (name: string, unit: string, ours: number, gate?: number): void =>
    report.add({
      name: `S5 ${name}`,
      unit,
      ours,
      peer: undefined,
      ratio: undefined,
      gate: gate === undefined ? "-" : `<= ${gate}`,
      pass: gate === undefined || ours <= gate,
    });
  try {
    const descriptors = (pid: number | "self"): number => readdirSync(`/proc/${pid}/fd`).length;
    const before = descriptors("self");
    const made: Container[] = [];
    for (let i = 0; i < count; i++) made.push(await worker.create(["sleep", "1000"]));
    report.note(`S5: ${count} containers are created`);
    const startedMs = performance.now();
    const cpuBefore = cpuSeconds("self");
    await Promise.all(made.map((container) => container.start()));
    add(`${count} containers started at once, all running after`, "ms", performance.now() - startedMs);
    add("of that, CPU time of the worker itself", "ms", 1000 * (cpuSeconds("self") - cpuBefore));
    const monitors = worker.monitors();
    if (monitors.length !== count) throw new Error(`${monitors.length} monitors for ${count} containers`);
    const anonymous = monitors.map((pid) => memoryKib(pid, /^Anonymous: +([0-9]+) kB$/gm));
    const own = monitors.map((pid) => memoryKib(pid, /^Private_(?:Clean|Dirty): +([0-9]+) kB$/gm));
    const share = monitors.map((pid) => memoryKib(pid, /^Pss: +([0-9]+) kB$/gm));
    const resident = monitors.map((pid) => memoryKib(pid, /^Rss: +([0-9]+) kB$/gm));
    add("private memory of a monitor, the largest", "KiB", Math.max(...own), 128);
    add("anonymous memory of a monitor, median", "KiB", median(anonymous));
    add("resident memory of a monitor, median", "KiB", median(resident));
    add("the same, shared pages divided among who has them, 99 % at most", "KiB", quantile(share, 0.99));
    add("descriptors of a monitor, the most", "", Math.max(...monitors.map(descriptors)));
    add("descriptors of the worker for each container", "", (descriptors("self") - before) / count);
    const idle = sum(monitors.map(cpuSeconds));
    const idleSelf = cpuSeconds("self");
    await delay(idleSeconds * 1000);
    add("CPU of all monitors while idle", "ms/s", (1000 * (sum(monitors.map(cpuSeconds)) - idle)) / idleSeconds);
    add("CPU of the worker while idle", "ms/s", (1000 * (cpuSeconds("self") - idleSelf)) / idleSeconds);
    const stoppedMs = performance.now();
    await Promise.all(made.map((container) => container.remove({ force: true })));
    add(`all ${count} killed and removed after`, "ms", performance.now() - stoppedMs);
    const remains = worker.remains();
    if (remains.length > 0) throw new Error(`left behind: ${remains.slice(0, 5).join(", ")}`);
    add("descriptors of the worker more than before", "", descriptors("self") - before, 3);
  } finally {
    await worker.close();
  }
}

/** From the start of the container to its recorded end, with the log complete: the start itself is part of it. */
export async function logRate(bytes: number, rounds: number, report: Report): Promise<void> {
  const worker = await new TestWorker("builtin").open();
  try {
    const rates: number[] = [];
    const shares: number[] = [];
    for (let round = 0; round < rounds; round++) {
      // A rotation of few files bounds the disk; each byte is written all the same.
      const container = await worker.create(["/producer", String(bytes)], {
        Binds: [`${join(native, "producer")}:/producer:ro`],
        LogConfig: { Type: "json-file", Config: { "max-size": "100m", "max-file": "3" } },
      });
      const ended = container.wait("next-exit", AbortSignal.timeout(300_000));
      const startedMs = performance.now();
      await container.start();
      const [monitor = Number.NaN] = worker.monitors();
      const stop = new AbortController();
      // The monitor's CPU time is gone with it; the last look before its end is close enough.
      let cpu = 0;
      const watching = (async (): Promise<void> => {
        while (!stop.signal.aborted) {
          try {
            cpu = cpuSeconds(monitor);
          } catch {
            return; // it has ended, or had before we looked
          }
          await delay(50);
        }
      })();
      const { code } = await ended;
      const seconds = (performance.now() - startedMs) / 1000;
      stop.abort();
      await watching;
      if (code !== 0) throw new Error(`the producer ended with ${code}`);
      rates.push(bytes / 1e6 / seconds);
      shares.push((1000 * cpu) / (bytes / 1e8));
      await container.remove();
    }
    const rate = median(rates);
    const common = { peer: undefined, ratio: undefined };
    report.add({
      name: "S6 output through a monitor into the log",
      unit: "MB/s",
      ours: rate,
      ...common,
      gate: ">= 100",
      pass: rate >= 100,
    });
    report.add({
      name: "S6 CPU time of the monitor",
      unit: "ms/100 MB",
      ours: median(shares),
      ...common,
      gate: "-",
      pass: true,
    });
  } finally {
    await worker.close();
  }
}
