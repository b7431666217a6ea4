/** "Up 5 seconds (healthy)", "Exited (0) 2 minutes ago": texts that the Engine makes and its clients show as they come. Pure. */
import type { ContainerRecord } from "../../../worker/containers/core/types.ts";

/** As people say it: the largest unit that fits, rounded. */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.floor(seconds / 3600 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}

export function statusText({ state }: Pick<ContainerRecord, "state">, nowMs: number): string {
  const up = `Up ${humanDuration(nowMs - state.startedAtMs)}`;
  const ago = `${humanDuration(nowMs - (state.exit?.finishedAtMs ?? nowMs))} ago`;
  switch (state.status) {
    case "created":
      return "Created";
    case "paused":
      return `${up} (Paused)`;
    case "restarting":
      return `Restarting (${state.exit?.code ?? 0}) ${ago}`;
    case "removing":
      return "Removal In Progress";
    case "dead":
      return "Dead";
    case "exited":
      return `Exited (${state.exit?.code ?? 0}) ${ago}`;
    case "running": {
      const { status } = state.health;
      return status === "none" ? up : `${up} (${status === "starting" ? "health: starting" : status})`;
    }
  }
}
