/** The reference's words for where a node stands in a swarm, whatever the daemon calls it. */
import { ClusterError } from "../../lib/pure/errors.ts";

/** An error under its own code, in words that clients know. */
export class Worded extends ClusterError {
  readonly code: string;
  readonly status: number | undefined;
  constructor(code: string, message: string, cause: ClusterError, status?: number) {
    super(message, { cause, ...(cause.fix === undefined ? {} : { fix: cause.fix }) });
    this.code = code;
    this.status = status;
  }
}

const noSwarm =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
const worker =
  "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
const locked =
  'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.';
const already =
  'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';

/** For routes that need a manager. */
export const managerWords: ReadonlyMap<string, string> = new Map([
  ["NOT_IN_SWARM", noSwarm],
  ["NOT_A_SWARM_MANAGER", worker],
  ["SWARM_LOCKED", locked],
]);

/** For init, join, leave and unlock. */
export const membershipWords: ReadonlyMap<string, string> = new Map([
  ["NOT_IN_SWARM", "This node is not part of a swarm"],
  ["ALREADY_IN_SWARM", already],
  ["NOT_LOCKED", "swarm is not locked"],
  ["UNLOCK_KEY_WRONG", "swarm could not be unlocked: invalid key provided"],
  ["UNLOCK_KEY_INVALID", "swarm could not be unlocked: invalid key provided"],
  ["SWARM_LOCKED", "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."],
]);

const ending =
  "The manager of this node is ending: it was demoted, or is started again. Please try again, or run this command on another manager node.";

/** What is said of a manager that is not quite gone: its process takes a moment to end after it was demoted. */
export function unlessEnding(error: unknown): unknown {
  if (!(error instanceof ClusterError)) return error;
  const isEnding =
    error.code === "STORE_CLOSED" ||
    (error.code === "RPC_UNAVAILABLE" && error.message.startsWith("Cannot reach unix:"));
  return isEnding ? new Worded(error.code, ending, error, 503) : error;
}

const statuses: ReadonlyMap<string, number> = new Map([["UNLOCK_KEY_INVALID", 401]]);

export function worded(error: unknown, words: ReadonlyMap<string, string>): unknown {
  if (!(error instanceof ClusterError)) return error;
  const text = words.get(error.code);
  return text === undefined ? error : new Worded(error.code, text, error, statuses.get(error.code));
}
