/**
 * Proposals on their way: queued until the next turn, appended and waiting for their entry to be applied, settled once.
 * An outcome says exactly what is known: "failed" only when the entry can never take effect, "unknown" when it may.
 */
import { invariant } from "../../lib/pure/errors.ts";
import type { MemberId } from "./core/types.ts";

export type Outcome =
  | { readonly kind: "committed"; readonly index: number; readonly term: number; readonly result: unknown }
  /** Another entry was committed in its place, or it was given up before it was appended: it has no effect, ever. */
  | { readonly kind: "failed"; readonly why: string }
  /** Leadership was lost after it had been appended: it may take effect, once, or never. */
  | { readonly kind: "unknown" }
  /** Never appended: too much is on its way, or the disk is nearly full. */
  | {
      readonly kind: "backpressure";
      readonly why: "uncommitted" | "applyLag" | "diskLow";
      readonly retryAfterMs: number;
    }
  /** Never appended: offer it to `leader`, or wait for one if that is 0. */
  | { readonly kind: "notLeader"; readonly leader: MemberId }
  | { readonly kind: "tooLarge"; readonly sizeBytes: number; readonly sizeBytesMax: number }
  /** Never appended: this member has stopped, is quarantined or was removed. */
  | { readonly kind: "stopped" };

export interface Proposal {
  readonly data: Uint8Array;
  readonly done: (outcome: Outcome) => void;
  readonly proposedMs: number;
  state: "queued" | "appended" | "settled";
  index: number;
  term: number;
}

export class Proposals {
  #queue: Proposal[] = [];
  /** Where the queue begins: what is before has been taken. */
  #head = 0;
  #queuedBytes = 0;
  /** By the index of their entry. Several terms cannot wait at one index: the older one is settled when replaced. */
  readonly #waiting = new Map<number, Proposal>();
  /** When what waits without a leader of ours becomes "unknown"; Infinity while we lead. */
  #orphansUntilMs = Infinity;
  #waitingBytes = 0;

  /** Bytes of what is appended and not yet applied. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  get queued(): number {
    return this.#queue.length - this.#head;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  add(data: Uint8Array, proposedMs: number, done: (outcome: Outcome) => void): Proposal {
    const proposal: Proposal = { data, done, proposedMs, state: "queued", index: 0, term: 0 };
    this.#queue.push(proposal);
    this.#queuedBytes += data.length;
    return proposal;
  }

  /** The next batch for one turn: at least one proposal if any is queued. */
  take(countMax: number, bytesMax: number): Proposal[] {
    const batch: Proposal[] = [];
    let bytes = 0;
    while (this.#head < this.#queue.length && batch.length < countMax) {
      const next = this.#queue[this.#head];
      invariant(next !== undefined, "a hole in the queue of proposals");
      if (batch.length > 0 && bytes + next.data.length > bytesMax) break;
      this.#head++;
      this.#queuedBytes -= next.data.length;
      if (next.state !== "queued") continue;
      bytes += next.data.length;
      batch.push(next);
    }
    if (this.#head === this.#queue.length) {
      this.#queue = [];
      this.#head = 0;
    } else if (this.#head > 4096 && this.#head * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    return batch;
  }

  /** What was taken but not accepted goes back to the front. */
  putBack(batch: readonly Proposal[]): void {
    this.#queue = [...batch, ...this.#queue.slice(this.#head)];
    this.#head = 0;
    for (const proposal of batch) this.#queuedBytes += proposal.data.length;
  }

  appended(batch: readonly Proposal[], firstIndex: number, term: number): void {
    this.#orphansUntilMs = Infinity;
    batch.forEach((proposal, position) => {
      proposal.state = "appended";
      proposal.index = firstIndex + position;
      proposal.term = term;
      const older = this.#waiting.get(proposal.index);
      // Replaced in our own log; whether it was committed elsewhere before is not known here.
      if (older !== undefined) this.#settleOne(older, { kind: "unknown" });
      this.#waiting.set(proposal.index, proposal);
      this.#waitingBytes += proposal.data.length;
    });
  }

  /** The entry at `index` has been applied. @returns the proposal that it came from, if it is ours */
  applied(index: number, term: number, result: unknown): Proposal | undefined {
    const proposal = this.#waiting.get(index);
    if (proposal === undefined) return undefined;
    if (proposal.term === term) {
      this.#settleOne(proposal, { kind: "committed", index, term, result });
      return proposal;
    }
    this.#settleOne(proposal, { kind: "failed", why: `an entry of term ${term} was committed in its place` });
    return undefined;
  }

  /** A snapshot covers `index` and what is before: what became of our proposals there cannot be told any more. */
  overtaken(index: number): void {
    for (const [at, proposal] of this.#waiting) {
      if (at <= index) this.#settleOne(proposal, { kind: "unknown" });
    }
  }

  /** Leadership is lost: what is appended may still be settled by what comes to be applied until `untilMs`. */
  orphan(untilMs: number): void {
    if (this.#waiting.size > 0) this.#orphansUntilMs = Math.min(this.#orphansUntilMs, untilMs);
  }

  expire(nowMs: number): void {
    if (nowMs < this.#orphansUntilMs) return;
    this.#orphansUntilMs = Infinity;
    this.#settleWaiting({ kind: "unknown" });
  }

  /** Nothing in the queue was appended: it can be offered to another without fear of doing it twice. */
  refuseQueued(outcome: Outcome): void {
    const queue = this.#queue;
    const head = this.#head;
    this.#queue = [];
    this.#head = 0;
    this.#queuedBytes = 0;
    for (let at = head; at < queue.length; at++) {
      const proposal = queue[at];
      if (proposal !== undefined) settle(proposal, outcome);
    }
  }

  /** @returns whether it was still queued, so that it certainly has no effect */
  cancel(proposal: Proposal): boolean {
    if (proposal.state !== "queued") return false;
    proposal.state = "settled";
    return true;
  }

  stop(): void {
    this.refuseQueued({ kind: "stopped" });
    this.#settleWaiting({ kind: "unknown" });
  }

  #settleWaiting(outcome: Outcome): void {
    for (const proposal of this.#waiting.values()) this.#settleOne(proposal, outcome);
  }

  #settleOne(proposal: Proposal, outcome: Outcome): void {
    this.#waiting.delete(proposal.index);
    this.#waitingBytes -= proposal.data.length;
    settle(proposal, outcome);
  }
}

function settle(proposal: Proposal, outcome: Outcome): void {
  if (proposal.state === "settled") return;
  proposal.state = "settled";
  proposal.done(outcome);
}
