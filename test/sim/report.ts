/** What a failed run shows (N10): how to replay it, what it ran, and its last events. */
import { execFileSync } from "node:child_process";
import type { RunResult } from "./result.ts";
import { runSimulation } from "./simulation.ts";

const eventsShown = 200;

export function reportFailure(result: RunResult): string {
  // The same run again, this time with words: nothing else changes.
  const traced = runSimulation(result.options, { trace: true, traceMax: eventsShown });
  const { faults, ...options } = result.options;
  const lines = [
    `failure   ${result.failure?.message ?? "none"}`,
    `replay    npm run sim -- --seed ${result.options.seed}`,
    `shrink    npm run sim -- --seed ${result.options.seed} --shrink`,
    `commit    ${commit()}`,
    `options   ${JSON.stringify(options)}`,
    `faults    ${faults.length}`,
    ...faults.map((fault) => `          ${JSON.stringify(fault)}`),
    `last ${eventsShown} events`,
    ...traced.trace,
    traced.failure?.stack ?? "",
  ];
  if (traced.failure?.message !== result.failure?.message) {
    lines.push(`NOT REPEATED: the second run ended with ${traced.failure?.message ?? "success"}`);
  }
  return lines.join("\n");
}

function commit(): string {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  } catch {
    return "unknown (not in a repository)";
  }
}
