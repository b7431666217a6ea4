/** How the disk of the log is doing, as the raft thread sees it without asking the disk. */

export interface LogStatus {
  /**
   * "low": less than 256 MiB are free; a leader refuses proposals and hands over. "full": a write waits for space (the
   * ballast has been given up already); nothing is lost, saves call back once there is room again.
   */
  readonly space: "ok" | "low" | "full";
  /** As of the last look, at most a second or so ago. */
  readonly freeBytes: number;
  /** How long the oldest save waits by now; 0 when none does. More than an election timeout is a disk stall. */
  readonly oldestPendingMs: number;
  readonly pendingSaves: number;
  /** Bytes of the log's files. */
  readonly sizeBytes: number;
  /** Writes made durable so far, and how long the disk took: counts for each of `syncBoundsSeconds`, and above them. */
  readonly syncs: number;
  readonly syncSecondsTotal: number;
  readonly syncCounts: readonly number[];
  readonly savedEntries: number;
  readonly savedBytes: number;
  /** Data keys that the folder needs: more than one while a rotation is under way. */
  readonly dataKeys: number;
}

/** Of a log that is not open. */
export const noLog: LogStatus = {
  space: "ok",
  freeBytes: 0,
  oldestPendingMs: 0,
  pendingSaves: 0,
  sizeBytes: 0,
  syncs: 0,
  syncSecondsTotal: 0,
  syncCounts: [],
  savedEntries: 0,
  savedBytes: 0,
  dataKeys: 0,
};
