/** Restart policies: whether a container that ended is started again, and when. */
import type { ExitStatus, RestartPolicy } from "./types.ts";

/** Docker's numbers: 100 ms, doubled after each short life, at most a minute, reset by a life of ten seconds. */
export const restartDelay = { firstMs: 100, maxMs: 60_000, resetAfterMs: 10_000 } as const;

export interface RestartFacts {
  readonly policy: RestartPolicy;
  readonly exit: ExitStatus;
  /** How long the life that ended was. */
  readonly livedMs: number;
  /** Restarts since a user last started it. */
  readonly restartCount: number;
  /** The delay before the life that ended; 0 when a user started it. */
  readonly lastDelayMs: number;
  readonly stoppedByUser: boolean;
}

export type RestartDecision =
  { readonly restart: true; readonly delayMs: number } | { readonly restart: false; readonly why: string };

export function decideRestart(facts: RestartFacts): RestartDecision {
  const { policy } = facts;
  if (facts.stoppedByUser) return { restart: false, why: "it was stopped on purpose" };
  switch (policy.Name ?? "no") {
    case "":
    case "no":
      return { restart: false, why: "its policy is no" };
    case "on-failure": {
      if (facts.exit.code === 0) return { restart: false, why: "it succeeded" };
      const max = policy.MaximumRetryCount ?? 0;
      if (max > 0 && facts.restartCount >= max) return { restart: false, why: `it was restarted ${max} times` };
      break;
    }
    case "always":
    case "unless-stopped":
      break;
  }
  const short = facts.lastDelayMs > 0 && facts.livedMs < restartDelay.resetAfterMs;
  return { restart: true, delayMs: short ? Math.min(facts.lastDelayMs * 2, restartDelay.maxMs) : restartDelay.firstMs };
}

/**
 * Whether a container that is found ended when the daemon starts is started.
 * `always` also revives what a user stopped; `unless-stopped` does not; `on-failure` goes on with what failed.
 */
export function restartAtBoot(
  policy: RestartPolicy,
  last: { stoppedByUser: boolean; exitCode: number; wasRunning: boolean },
): boolean {
  switch (policy.Name ?? "no") {
    case "always":
      return true;
    case "unless-stopped":
      return !last.stoppedByUser;
    case "on-failure":
      return last.wasRunning && !last.stoppedByUser && last.exitCode !== 0;
    case "":
    case "no":
      return false;
  }
}
