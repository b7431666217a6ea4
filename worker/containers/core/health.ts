/** Health checks: when to probe, and what a probe's result means. */
import type { HealthConfig, HealthLogEntry, HealthState } from "./types.ts";

/** Defaults of the Engine API. */
const defaults = {
  intervalMs: 30_000,
  timeoutMs: 30_000,
  startPeriodMs: 0,
  startIntervalMs: 5_000,
  retries: 3,
} as const;
const logMax = 5;
/** Bytes of a probe's output that are kept. */
export const healthOutputMax = 4096;

export interface HealthPlan {
  /** The command to run in the container. */
  readonly command: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
  readonly retries: number;
}

export const noHealth: HealthState = { status: "none", failingStreak: 0, log: [] };

const inMs = (ns: number | undefined, fallbackMs: number): number =>
  ns === undefined || ns === 0 ? fallbackMs : ns / 1e6;

/** The plan of a container's own settings over its image's; undefined when nothing is to be probed. */
export function planHealth(
  own: HealthConfig | null | undefined,
  image: HealthConfig | null | undefined,
  shell: readonly string[] | null | undefined,
): HealthPlan | undefined {
  const test = own?.Test != null && own.Test.length > 0 ? own.Test : (image?.Test ?? []);
  const [kind, ...rest] = test;
  let command: readonly string[];
  switch (kind) {
    case "CMD":
      command = rest;
      break;
    case "CMD-SHELL":
      command = [...(shell != null && shell.length > 0 ? shell : ["/bin/sh", "-c"]), rest.join(" ")];
      break;
    default:
      return undefined;
  }
  if (command.length === 0) return undefined;
  const pick = (key: "Interval" | "Timeout" | "StartPeriod" | "StartInterval" | "Retries"): number | undefined =>
    own?.[key] === undefined || own[key] === 0 ? image?.[key] : own[key];
  return {
    command,
    intervalMs: inMs(pick("Interval"), defaults.intervalMs),
    timeoutMs: inMs(pick("Timeout"), defaults.timeoutMs),
    startPeriodMs: inMs(pick("StartPeriod"), defaults.startPeriodMs),
    startIntervalMs: inMs(pick("StartInterval"), defaults.startIntervalMs),
    retries: pick("Retries") || defaults.retries,
  };
}

export const startingHealth: HealthState = { status: "starting", failingStreak: 0, log: [] };

/** Milliseconds until the next probe. In the start period, until the first success, probes come at their own pace. */
export function nextProbeMs(plan: HealthPlan, state: HealthState, sinceStartMs: number): number {
  const starting = state.status === "starting" && sinceStartMs < plan.startPeriodMs;
  return starting ? Math.min(plan.startIntervalMs, plan.intervalMs) : plan.intervalMs;
}

/**
 * The state after a probe. A failure in the start period does not count; a success ends the period at once.
 * @param sinceStartMs  when the probe began, since the start of the container
 */
export function afterProbe(
  plan: HealthPlan,
  state: HealthState,
  probe: HealthLogEntry,
  sinceStartMs: number,
): HealthState {
  const log = [...state.log, probe].slice(-logMax);
  if (probe.exitCode === 0) return { status: "healthy", failingStreak: 0, log };
  if (state.status === "starting" && sinceStartMs < plan.startPeriodMs) return { ...state, log };
  const failingStreak = state.failingStreak + 1;
  return { status: failingStreak >= plan.retries ? "unhealthy" : state.status, failingStreak, log };
}
