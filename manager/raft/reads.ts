/**
 * Linearizable reads: callers of one turn share one request; a request that gets no answer is asked again under a new id,
 * since an answer to an old id must never complete a newer request (etcd#20418). Ids are never reused by a member, not
 * even after a restart: the number of the start is in the upper bits.
 */
export type ReadOutcome =
  /** The state as of `index`, or later, is applied here: read it now. */
  | { readonly kind: "ready"; readonly index: number }
  /** Leadership changed or no leader answers: ask again. */
  | { readonly kind: "retry" }
  | { readonly kind: "stopped" };

type Done = (outcome: ReadOutcome) => void;

interface Batch {
  requestId: number;
  askedMs: number;
  readonly callers: Done[];
}

const idsPerStart = 2 ** 32;
/** Requests of one member that may be without an answer at once; more callers join the next one. */
const roundsMax = 2;

export class Reads {
  #nextId: number;
  #gathering: Done[] = [];
  readonly #asked = new Map<number, Batch>();
  /** Confirmed, waiting for their index to be applied; ascending. */
  readonly #confirmed: { index: number; callers: Done[] }[] = [];

  /** @param startNumber  1, 2, 3 … counted durably over the starts of this member; below 2^21 */
  constructor(startNumber: number) {
    this.#nextId = (startNumber % 2 ** 21) * idsPerStart + 1;
  }

  get pending(): number {
    let callers = this.#gathering.length;
    for (const batch of this.#asked.values()) callers += batch.callers.length;
    for (const batch of this.#confirmed) callers += batch.callers.length;
    return callers;
  }

  /** Whether callers wait for a request that has not been sent. */
  get gathering(): boolean {
    return this.#gathering.length > 0;
  }

  add(done: Done): void {
    this.#gathering.push(done);
  }

  /** An id that no other request has or will have. */
  freshId(): number {
    return this.#nextId++;
  }

  /** The id of a request to send now for everyone who gathered, or undefined. */
  ask(nowMs: number): number | undefined {
    if (this.#gathering.length === 0 || this.#asked.size >= roundsMax) return undefined;
    const requestId = this.freshId();
    this.#asked.set(requestId, { requestId, askedMs: nowMs, callers: this.#gathering });
    this.#gathering = [];
    return requestId;
  }

  /** @returns when the request was asked and for how many, or undefined if nobody waits for it any more */
  confirmed(requestId: number, index: number): { askedMs: number; callers: number } | undefined {
    const batch = this.#asked.get(requestId);
    if (batch === undefined) return undefined;
    this.#asked.delete(requestId);
    this.#confirmed.push({ index, callers: batch.callers });
    this.#confirmed.sort((a, b) => a.index - b.index);
    return { askedMs: batch.askedMs, callers: batch.callers.length };
  }

  applied(index: number): void {
    while (this.#confirmed.length > 0 && (this.#confirmed[0]?.index ?? Infinity) <= index) {
      const batch = this.#confirmed.shift();
      for (const done of batch?.callers ?? []) done({ kind: "ready", index: batch?.index ?? index });
    }
  }

  /** Requests asked before `beforeMs` are forgotten; their callers gather again, for a new id. @returns how many callers */
  askAgain(beforeMs: number): number {
    let callers = 0;
    for (const batch of this.#asked.values()) {
      if (batch.askedMs >= beforeMs) continue;
      this.#asked.delete(batch.requestId);
      for (const done of batch.callers) this.#gathering.push(done);
      callers += batch.callers.length;
    }
    return callers;
  }

  /** These requests ended without an answer. What is confirmed already stays true. */
  failed(requestIds: readonly number[]): void {
    for (const requestId of requestIds) {
      const batch = this.#asked.get(requestId);
      this.#asked.delete(requestId);
      for (const done of batch?.callers ?? []) done({ kind: "retry" });
    }
  }

  stop(): void {
    const callers = [...this.#gathering];
    for (const batch of this.#asked.values()) callers.push(...batch.callers);
    for (const batch of this.#confirmed) callers.push(...batch.callers);
    this.#gathering = [];
    this.#asked.clear();
    this.#confirmed.length = 0;
    for (const done of callers) done({ kind: "stopped" });
  }
}
