/** What a leader knows of one member: how far its log agrees, and what has been sent to it (Raft thesis §3.5, §10.2). */
import { Inflights } from "./inflights.ts";
import type { MemberId } from "./types.ts";

/** Never heard of in this leader's term. */
export const never = -1;

export class Progress {
  readonly id: MemberId;
  isLearner: boolean;
  /** Highest index known to be durable there. Only grows while one leader leads. */
  match = 0;
  /** The next entry to send; always past `match`. */
  next: number;
  /**
   * probe:      where the logs agree is not known; one append at a time.
   * replicate:  they agree up to `match`; appends follow each other without waiting, `next` runs ahead.
   * snapshot:   what it needs is compacted; nothing is sent but heartbeats until the snapshot is there.
   */
  state: "probe" | "replicate" | "snapshot" = "probe";
  /** probe: an append is out and unanswered. */
  probeSent = false;
  /** replicate: send an append even if it is empty, to find out whether what was sent has arrived. */
  nudge = false;
  /** An append was acknowledged since the last answered heartbeat: the flow is alive and needs no nudge. */
  ackedSinceHeartbeat = false;
  /** The highest commit index that an append on its way tells it. */
  sentCommit = 0;
  /** snapshot: the index on its way. */
  pendingSnapshot = 0;
  snapshotFailures = 0;
  /** Leader tick before which no further snapshot is tried. */
  snapshotRetryTick = 0;
  /** Leader tick of the last message from it. */
  heardTick = never;
  /** The last heartbeat round it answered. */
  ackedRound = 0;
  /** Leader tick at which that round was sent. */
  confirmedTick = never;
  /** Leader tick since which a learner has been near the commit index without a break. */
  caughtUpTick = never;
  readonly inflights: Inflights;

  constructor(id: MemberId, next: number, limits: { msgsMax: number; bytesMax: number }, isLearner: boolean) {
    this.id = id;
    this.next = next;
    this.isLearner = isLearner;
    this.inflights = new Inflights(limits);
  }

  becomeProbe(): void {
    // After a snapshot goes on behind it, whether or not the follower has said so yet.
    const next = this.state === "snapshot" ? Math.max(this.match, this.pendingSnapshot) + 1 : this.match + 1;
    this.#enter("probe");
    this.next = next;
    this.sentCommit = Math.min(this.sentCommit, this.match);
  }

  becomeReplicate(): void {
    this.#enter("replicate");
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    this.#enter("snapshot");
    this.pendingSnapshot = index;
    this.next = index + 1;
    this.sentCommit = index;
  }

  /** @returns whether `index` is news */
  acknowledge(index: number): boolean {
    if (index + 1 > this.next) this.next = index + 1;
    if (index <= this.match) return false;
    this.match = index;
    this.probeSent = false;
    return true;
  }

  /**
   * The follower refused an append after `rejected`; it may agree up to `agreesAt`.
   * @returns false if the answer is older than what is known by now (scenario E9)
   */
  backOff(rejected: number, agreesAt: number): boolean {
    if (rejected <= this.match) return false;
    if (this.state === "replicate") {
      this.becomeProbe();
      return true;
    }
    if (this.state === "snapshot" || rejected !== this.next - 1) return false;
    this.next = Math.max(Math.min(rejected, agreesAt + 1), this.match + 1, 1);
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
    this.probeSent = false;
    return true;
  }

  get paused(): boolean {
    if (this.state === "probe") return this.probeSent;
    return this.state === "snapshot" || this.inflights.full;
  }

  #enter(state: "probe" | "replicate" | "snapshot"): void {
    this.state = state;
    this.probeSent = false;
    this.nudge = false;
    this.pendingSnapshot = 0;
    this.inflights.clear();
  }
}
