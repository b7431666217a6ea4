/** How long a node may be silent. Times are milliseconds. */

/** Swarm's default; the cluster's spec may say otherwise. */
export const periodDefaultMs = 5000;
/**
 * Below the period, so that nodes that came together do not stay in step: 4.5 to 5 s. Swarm's lies around it, and so may
 * take three tenths of a period longer than was asked for to notice that a node is gone.
 */
const jitter = 0.1;
/** Periods without a heartbeat until a node is down. */
const missedMax = 3;
/** After a change of leaders all nodes have to come back at once, so they are given twice as long. */
const unknownFactor = 2;

/** Shortest period that is taken from a spec: below, the leader would do little else. */
const periodMinMs = 100;

/** @param seconds, nanos  of the cluster's spec; 0: the default */
export function periodMs(
  spec: { readonly seconds?: number | null; readonly nanos?: number | null } | null | undefined,
): number {
  const ms = (spec?.seconds ?? 0) * 1000 + (spec?.nanos ?? 0) / 1e6;
  return ms > 0 ? Math.max(periodMinMs, ms) : periodDefaultMs;
}

/** @param chance  uniform in [0, 1) */
export function jittered(period: number, chance: number): number {
  return period * (1 - jitter * chance);
}

const quietMinMs = 2000;
const quietPerNodeMs = 4;

/**
 * How long an agent may hear nothing until it asks whether the manager is there. A small cluster notices within six seconds
 * that a leader's host is cut off; in a large one the questions of all would be the most that the leader does, so they are
 * at most 250 a second, and from 1,250 nodes on there are the heartbeats alone.
 */
export const quietMs = (sessions: number): number => Math.max(quietMinMs, sessions * quietPerNodeMs);

/** From the last heartbeat of a node until it is down. @param period  the one that it was given with it */
export const graceMs = (period: number): number => period * missedMax;

/** What was heard of a node, and when. Times are of the leader's monotonic clock. */
export interface Heard {
  /** The last heartbeat, or the welcome before the first one. */
  readonly beatMs: number;
  /** Of that heartbeat; see graceMs and unknownGraceMs. */
  readonly graceMs: number;
  /** The last word of any kind. */
  readonly wordMs: number;
  /** The period that it was given last. */
  readonly periodMs: number;
}

/**
 * When a node is down of which nothing more is heard. Only heartbeats begin its time anew, so that what it said besides
 * does not put off the moment at which its end is noticed; but as long as it talks it is not taken for dead, even if its
 * heartbeats wait behind what it says.
 */
export function downAtMs({ beatMs, graceMs: grace, wordMs, periodMs: period }: Heard): number {
  return Math.max(beatMs + grace, wordMs + period);
}

/** From the start of leadership, for a node that was not down. */
export const unknownGraceMs = (period: number): number => period * missedMax * unknownFactor;

/** After so long the tasks of a node that is down are given up, and what they hold is free. */
export const orphanedAfterMs = 24 * 3_600_000;

const registrationsMax = 3;
const registrationWindowMs = 8000;

/**
 * Sessions that one node may open in a while: one that comes and goes all the time would make the leader write and send
 * without end.
 * @param times  of the last registrations, oldest first; changed
 */
export function mayRegister(times: number[], nowMs: number): boolean {
  while (times.length > 0 && (times[0] ?? 0) <= nowMs - registrationWindowMs) times.shift();
  if (times.length >= registrationsMax) return false;
  times.push(nowMs);
  return true;
}

/** Of nodes that come in one window: a crowd. */
const crowd = 20;
const crowdWindowMs = 1000;
/** While a crowd comes, whoever is still missing is waited for so many times as long. */
const crowdFactor = 4;

/** Sessions that begin, counted by windows: thousands of nodes that come back at once take the leader a while to let in. */
export class Arrivals {
  #windowMs = -Infinity;
  #count = 0;
  #before = 0;

  note(nowMs: number): void {
    this.#turn(nowMs);
    this.#count++;
  }

  isCrowd(nowMs: number): boolean {
    this.#turn(nowMs);
    return Math.max(this.#count, this.#before) >= crowd;
  }

  #turn(nowMs: number): void {
    const passedMs = nowMs - this.#windowMs;
    if (passedMs < crowdWindowMs) return;
    this.#before = passedMs < 2 * crowdWindowMs ? this.#count : 0;
    this.#count = 0;
    this.#windowMs = nowMs;
  }
}

/** @returns  for how long a node without a session is waited for still, since it may stand at the door behind many others */
export function waitForCrowdMs(
  { beatMs, graceMs: grace }: Heard,
  now: { readonly nowMs: number; readonly hasSession: boolean; readonly arrivals: Arrivals },
): number {
  const isWaitedFor = !now.hasSession && now.nowMs - beatMs < crowdFactor * grace && now.arrivals.isCrowd(now.nowMs);
  return isWaitedFor ? crowdWindowMs : 0;
}
