/** What one member is told at its start, with the limits of raft.md §1 and the timings of §3.1 as defaults. */
import type { MemberId } from "./core/types.ts";

export interface MemberTimings {
  /** How often `elapsed()` is called; the grain of all waiting. */
  readonly tickMs: number;
  readonly heartbeatMs: number;
  /** Base of the election timeout; the core adds up to as much again by chance. */
  readonly electionMs: number;
}

export const lanTimings: MemberTimings = { tickMs: 25, heartbeatMs: 50, electionMs: 400 };
export const wanTimings: MemberTimings = { tickMs: 100, heartbeatMs: 300, electionMs: 3000 };

export interface MemberLimits {
  readonly entryBytesMax: number;
  readonly batchBytesMax: number;
  readonly batchEntriesMax: number;
  /** Queued and appended but not yet committed. */
  readonly uncommittedBytesMax: number;
  readonly uncommittedEntriesMax: number;
  /** Committed but not yet applied; beyond it proposals are refused. */
  readonly applyLagBytesMax: number;
  readonly applyEntriesPerTurn: number;
  readonly applyBytesPerTurn: number;
  readonly applyMsPerTurn: number;
  readonly messageBytesMax: number;
  readonly inflightMsgsMax: number;
  readonly inflightBytesMax: number;
  readonly readyApplyBytesMax: number;
  /** A snapshot is due when the log behind the last one is larger than this and than twice that snapshot … */
  readonly snapshotLogBytesMin: number;
  /** … or has more entries than this. */
  readonly snapshotLogEntriesMax: number;
  /** What stays in the log behind a snapshot, for followers that are a little behind: the larger of the two. */
  readonly trailingEntries: number;
  readonly trailingBytes: number;
  /** How far a live follower may stretch that. */
  readonly trailingLiveBytesMax: number;
  /** A learner is promoted when it is no further behind than this for one election timeout. */
  readonly promoteLagEntriesMax: number;
}

const mebibyte = 1024 * 1024;

export const defaultLimits: MemberLimits = {
  entryBytesMax: mebibyte,
  batchBytesMax: mebibyte / 2,
  batchEntriesMax: 4000,
  uncommittedBytesMax: 64 * mebibyte,
  uncommittedEntriesMax: 20_000,
  applyLagBytesMax: 64 * mebibyte,
  applyEntriesPerTurn: 1000,
  applyBytesPerTurn: mebibyte,
  applyMsPerTurn: 4,
  messageBytesMax: mebibyte / 2,
  inflightMsgsMax: 64,
  inflightBytesMax: 8 * mebibyte,
  readyApplyBytesMax: 4 * mebibyte,
  snapshotLogBytesMin: 64 * mebibyte,
  snapshotLogEntriesMax: 500_000,
  trailingEntries: 5000,
  trailingBytes: 16 * mebibyte,
  trailingLiveBytesMax: 256 * mebibyte,
  promoteLagEntriesMax: 4000,
};

export interface MemberConfig {
  readonly id: MemberId;
  readonly seed: number;
  /** 1, 2, 3 … counted durably over the starts of this member, so that ids of reads are never reused. */
  readonly startNumber: number;
  readonly timings: MemberTimings;
  readonly limits: MemberLimits;
  /** Leader leases serve reads without a round of messages; off by default (raft.md row 6). */
  readonly leaseReads: boolean;
}
