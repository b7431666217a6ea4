/**
 * Where connections wait until they are let in. A handshake takes a server some milliseconds of its one thread, and after a
 * change of leaders thousands of agents come at once: all of them begun together, each would take longer than its caller
 * waits, and all that work would be for nothing. So a few are let in each moment, in their order, and what else the process
 * has to do comes in between; whoever has waited so long that nobody waits at the other end is turned away.
 */
export interface Knocker {
  destroy(): void;
}

export interface DoorOptions<T> {
  readonly admit: (knocker: T) => void;
  /** Waits only behind others of its kind. */
  readonly goesFirst?: (knocker: T) => boolean;
  readonly nowMs: () => number;
  readonly after: (ms: number, act: () => void) => void;
}

/** Let in without a pause: handshakes of one turn of the event loop. */
const turnMax = 4;
/** Until the next turn: long enough that what has come to other connections is read before. */
const pauseMs = 4;
/** Callers give a connection and the first answer five seconds. */
const waitMsMax = 3000;
/** A waiting connection is a socket with its buffers, some 4 KB here and in the kernel. */
const waitingMax = 20_000;

export class Door<T extends Knocker> {
  readonly #options: DoorOptions<T>;
  readonly #waiting: { readonly knocker: T; readonly sinceMs: number }[] = [];
  /** So many of them, at the front, go first. */
  #first = 0;
  #admitted = 0;
  #pausing = false;

  constructor(options: DoorOptions<T>) {
    this.#options = options;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  knock(knocker: T): void {
    const { goesFirst, nowMs } = this.#options;
    const isFirst = goesFirst?.(knocker) === true;
    // Whoever goes first has nothing to do with how many wait behind.
    const at = isFirst ? this.#first : this.#waiting.length;
    if (at >= waitingMax) return knocker.destroy();
    if (isFirst) this.#first++;
    this.#waiting.splice(at, 0, { knocker, sinceMs: nowMs() });
    this.#open();
  }

  /** Whoever waits is turned away. */
  close(): void {
    this.#first = 0;
    for (const { knocker } of this.#waiting.splice(0)) knocker.destroy();
  }

  #open(): void {
    const { admit, nowMs, after } = this.#options;
    let taken = 0;
    for (const { knocker, sinceMs } of this.#waiting) {
      if (this.#admitted >= turnMax) break;
      taken++;
      if (nowMs() - sinceMs > waitMsMax) {
        knocker.destroy();
        continue;
      }
      this.#admitted++;
      admit(knocker);
    }
    this.#waiting.splice(0, taken);
    this.#first = Math.max(0, this.#first - taken);
    if (this.#pausing || this.#admitted === 0) return;
    this.#pausing = true;
    after(pauseMs, () => {
      this.#pausing = false;
      this.#admitted = 0;
      if (this.#waiting.length > 0) this.#open();
    });
  }
}
