/**
 * Coverage marks (N9): rare events by name. A long run in which one of them was hardly ever reached has not tested what
 * it claims, and fails.
 */

/** Each must be hit at least this often in a long run. */
export const hitsMin = 10;

export const markNames = [
  "leader elected",
  "split vote",
  "election lost",
  "pre-vote refused",
  "leader stepped down without quorum",
  "two leaders at once",
  "crash right after a durable vote",
  "crash right before a vote leaves",
  "crash of a fresh leader",
  "crash after a partial replicate",
  "restart within one election",
  "whole cluster down",
  "truncation",
  "truncation of more than one term",
  "old-term entry committed through a new one",
  "snapshot created",
  "snapshot sent",
  "snapshot installed",
  "snapshot transfer failed",
  "snapshot transfer resumed",
  "snapshot with a later configuration change",
  "restart from a snapshot",
  "configuration change applied",
  "joint configuration",
  "leader changed in a joint configuration",
  "configuration change refused",
  "crash around a configuration change",
  "leader removed",
  "learner promoted",
  "member replaced",
  "transfer completed",
  "transfer aborted",
  "dedup hit",
  "session expired",
  "outcome unknown",
  "retry on another member",
  "follower read",
  "read refused",
  "lease read",
  "lease refused",
  "backpressure",
  "watch delivered",
  "watch resync",
  "partition isolating one",
  "partition splitting in two",
  "partition as a bridge",
  "partition as a ring",
  "partition one way",
  "partition of the last entry's majority",
  "link clogged",
  "stream reset",
  "message type dropped",
  "old message delivered two terms later",
  "clock rate changed",
  "tick burst",
  "wall clock set",
  "pause",
  "two leaders alternated",
  "disk stall",
  "disk slow",
  "torn write",
  "unsynced data lost",
  "disk error",
  "disk full",
  "corruption injected",
  "quarantine",
  "loss that no log can notice",
  "flip in memory",
  "flip in memory found",
  "feature level raised",
  "feature level refused",
  "old binary started",
  "old binary at work",
  "old binary refused",
  "bank transfer",
  "recovered by the core quorum alone",
] as const;

export type MarkName = (typeof markNames)[number];

export class Marks {
  readonly #counts = new Map<string, number>();

  hit(name: MarkName, times = 1): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + times);
  }

  addAll(counts: Readonly<Record<string, number>>): void {
    for (const [name, count] of Object.entries(counts)) this.#counts.set(name, (this.#counts.get(name) ?? 0) + count);
  }

  count(name: MarkName): number {
    return this.#counts.get(name) ?? 0;
  }

  toJSON(): Record<string, number> {
    return Object.fromEntries(this.#counts);
  }

  /** Those that were hit less often than a long run must. */
  missing(): MarkName[] {
    return markNames.filter((name) => this.count(name) < hitsMin);
  }

  table(): string {
    const width = Math.max(...markNames.map((name) => name.length));
    return markNames.map((name) => `  ${name.padEnd(width)} ${String(this.count(name)).padStart(9)}`).join("\n");
  }
}
