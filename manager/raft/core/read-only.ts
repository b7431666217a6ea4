/**
 * Reads that wait (Raft thesis §6.4). On the leader: for a round of heartbeats that began after they came. On a follower:
 * for the leader's answer. Queues are first in, first out; round numbers are never used twice in a term.
 */
import type { MemberId } from "./types.ts";

export interface ReadRequest {
  readonly from: MemberId;
  readonly requestId: number;
}

interface ReadRound {
  readonly round: number;
  /** The commit index when the round began: all that was acknowledged before the requests came is at or below it. */
  readonly index: number;
  readonly requests: readonly ReadRequest[];
}

export class ReadQueue {
  #waiting: ReadRequest[] = [];
  readonly #rounds: ReadRound[] = [];
  /** Request id to the tick at which it is given up. Entries stand in the order of that tick. */
  readonly #forwarded = new Map<number, number>();
  #inRounds = 0;

  get pending(): number {
    return this.#waiting.length + this.#inRounds + this.#forwarded.size;
  }

  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  get hasRounds(): boolean {
    return this.#rounds.length > 0;
  }

  wait(request: ReadRequest): void {
    this.#waiting.push(request);
  }

  /** All that wait go with this round. */
  begin(round: number, index: number): void {
    if (this.#waiting.length === 0) return;
    this.#rounds.push({ round, index, requests: this.#waiting });
    this.#inRounds += this.#waiting.length;
    this.#waiting = [];
  }

  /** Rounds up to `round` are confirmed by a quorum. */
  confirm(round: number, answer: (request: ReadRequest, index: number) => void): void {
    let done = 0;
    for (const waiting of this.#rounds) {
      if (waiting.round > round) break;
      for (const request of waiting.requests) answer(request, waiting.index);
      this.#inRounds -= waiting.requests.length;
      done++;
    }
    if (done > 0) this.#rounds.splice(0, done);
  }

  /** The leader lost its office: nothing that waits can be answered. */
  abandon(): ReadRequest[] {
    const all = [...this.#rounds.flatMap(({ requests }) => requests), ...this.#waiting];
    this.#rounds.length = 0;
    this.#waiting = [];
    this.#inRounds = 0;
    return all;
  }

  forward(requestId: number, deadlineTick: number): void {
    this.#forwarded.set(requestId, deadlineTick);
  }

  /** @returns whether this member still waits for it; late answers find nothing */
  settle(requestId: number): boolean {
    return this.#forwarded.delete(requestId);
  }

  /** Forwarded requests whose time is up at `tick`. */
  expire(tick: number): number[] {
    const late: number[] = [];
    for (const [requestId, deadlineTick] of this.#forwarded) {
      if (deadlineTick > tick) break;
      late.push(requestId);
    }
    for (const requestId of late) this.#forwarded.delete(requestId);
    return late;
  }

  abandonForwarded(): number[] {
    const all = [...this.#forwarded.keys()];
    this.#forwarded.clear();
    return all;
  }
}
