/** How much of the log is kept behind a snapshot, so that a member that was away briefly needs no snapshot. */
import { isRecentlyActive } from "./replication.ts";
import type { Raft } from "./state.ts";

export interface CompactionPolicy {
  /** At least so many entries, and ... */
  readonly trailingEntries: number;
  /** ... at least so many bytes stay behind the snapshot's index. */
  readonly trailingBytes: number;
  /** While a live follower still needs them, up to so many bytes stay. */
  readonly extensionBytes: number;
}

export const compactionDefaults: CompactionPolicy = {
  trailingEntries: 5_000,
  trailingBytes: 16 * 1024 * 1024,
  extensionBytes: 256 * 1024 * 1024,
};

/** @returns the index for `compact()`; below the first index there is nothing to do */
export function compactionIndex(raft: Raft, policy: CompactionPolicy): number {
  const { log } = raft;
  const floor = log.firstIndex - 1;
  const covered = Math.min(raft.snapshot.index, raft.applied);
  let index = Math.min(covered - policy.trailingEntries, indexLeaving(raft, covered, policy.trailingBytes));
  for (const progress of raft.peers) {
    if (progress.match >= index || !isRecentlyActive(raft, progress)) continue;
    // One that is behind the log already gets a snapshot anyway.
    if (progress.state === "snapshot" || progress.match < floor) continue;
    if (log.bytesBetween(progress.match + 1, log.lastIndex) <= policy.extensionBytes) index = progress.match;
  }
  return Math.max(index, floor);
}

/** The highest index behind which at least `bytes` remain up to `to`. */
function indexLeaving(raft: Raft, to: number, bytes: number): number {
  let low = raft.log.firstIndex - 1;
  let high = to;
  while (low < high) {
    const middle = low + Math.ceil((high - low) / 2);
    if (raft.log.bytesBetween(middle + 1, to) >= bytes) low = middle;
    else high = middle - 1;
  }
  return low;
}
