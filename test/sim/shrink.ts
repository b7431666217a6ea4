/**
 * Makes a failing run small (N10): delta debugging over its faults (Zeller, Hildebrandt 2002), then fewer clients,
 * members and operations, then a shorter time. A smaller run counts if it breaks the same promise.
 */
import type { Fault } from "./faults.ts";
import type { SimOptions } from "./options.ts";

export interface ShrinkLimits {
  readonly runsMax: number;
}

/**
 * @param fails  runs the options and names the check that they break, or undefined
 * @returns the smallest options found, and how many runs it took
 */
export function shrink(
  options: SimOptions,
  fails: (options: SimOptions) => string | undefined,
  limits: ShrinkLimits = { runsMax: 400 },
): { readonly options: SimOptions; readonly check: string; readonly runs: number } | undefined {
  let runs = 0;
  const check = fails(options);
  runs++;
  if (check === undefined) return undefined;
  let best = options;
  const accept = (candidate: SimOptions): boolean => {
    if (runs >= limits.runsMax) return false;
    runs++;
    if (fails(candidate) !== check) return false;
    best = candidate;
    return true;
  };
  for (let before = ""; before !== JSON.stringify(best) && runs < limits.runsMax;) {
    before = JSON.stringify(best);
    shrinkFaults(best, accept);
    for (const smaller of reductions) {
      while (!same(smaller(best), best) && accept(smaller(best)));
    }
  }
  return { options: best, check, runs };
}

function shrinkFaults(options: SimOptions, accept: (candidate: SimOptions) => boolean): void {
  let faults = options.faults;
  if (faults.length > 0 && accept({ ...options, faults: [] })) return;
  let parts = 2;
  while (faults.length >= 2) {
    const size = Math.ceil(faults.length / parts);
    let shrunk = false;
    for (let from = 0; from < faults.length; from += size) {
      const without: readonly Fault[] = [...faults.slice(0, from), ...faults.slice(from + size)];
      if (!accept({ ...options, faults: without })) continue;
      faults = without;
      parts = Math.max(2, parts - 1);
      shrunk = true;
      break;
    }
    if (shrunk) continue;
    if (parts >= faults.length) return;
    parts = Math.min(faults.length, 2 * parts);
  }
}

function same(a: SimOptions, b: SimOptions): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** Ways to make a run smaller; each returns its argument unchanged (by value) when it is at its end. */
const reductions: readonly ((options: SimOptions) => SimOptions)[] = [
  (o) => ({ ...o, learners: Math.max(0, o.learners - 1) }),
  (o) => ({ ...o, voters: Math.max(1, o.voters - 1) }),
  (o) => ({ ...o, workload: { ...o.workload, clients: Math.max(1, Math.floor(o.workload.clients / 2)) } }),
  (o) => ({ ...o, workload: { ...o.workload, operationsMax: Math.max(1, Math.floor(o.workload.operationsMax / 2)) } }),
  (o) => ({ ...o, workload: { ...o.workload, registers: Math.max(1, Math.floor(o.workload.registers / 2)) } }),
  (o) => ({ ...o, workload: { ...o.workload, accounts: o.workload.accounts > 2 ? 2 : 0 } }),
  (o) => ({ ...o, durationUs: Math.max(500_000, Math.floor(o.durationUs * 0.7)) }),
  (o) => ({ ...o, coreEventsMax: Math.max(50, Math.floor(o.coreEventsMax * 0.7)) }),
  (o) => ({ ...o, network: { ...o.network, loss: 0, duplicate: 0 } }),
  (o) => ({ ...o, coreQuorumOnly: false }),
];
