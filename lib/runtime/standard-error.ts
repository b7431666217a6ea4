/**
 * Standard error for a process that must not wait: whoever reads it (a pipe, the journal) may stop reading at any time, and
 * an event loop that waits for it sends no heartbeats. What can be written is written at once, so that the last words of a
 * crash are not lost; what cannot waits in a queue with a bound, from which the oldest lines are dropped and counted.
 */
import { writeSync } from "node:fs";

/** Takes some of the bytes. @returns how many; throws EAGAIN when none can be taken now */
type WriteSome = (bytes: Uint8Array) => number;

const queueBytesMax = 1024 * 1024;
const retryMs = 20;
/** At the end of the process: as long as somebody reads, and no longer than this in all. */
const lastWordsMs = 2000;
/** Nobody has read anything for so long. */
const nobodyReadsMs = 250;

export class BoundedOutput {
  readonly #writeSome: WriteSome;
  readonly #bytesMax: number;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  /** What is left of a line that was begun. */
  #begun: Buffer | undefined;
  #dropped = 0;
  #timer: NodeJS.Timeout | undefined;
  #isGone = false;

  constructor(writeSome: WriteSome, bytesMax = queueBytesMax) {
    this.#writeSome = writeSome;
    this.#bytesMax = bytesMax;
  }

  /** @param text  whole lines: it is written or dropped as a whole */
  write(text: string): void {
    if (this.#isGone) return;
    const bytes = Buffer.from(text);
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#timer === undefined) this.#flush();
    if (this.#waitingBytes > this.#bytesMax) this.#drop();
  }

  /** For the end of the process: waits for who reads, within bounds. */
  lastWords(): void {
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    const endMs = performance.now() + lastWordsMs;
    for (let readMs = performance.now(); ;) {
      const before = this.#left;
      clearTimeout(this.#timer);
      this.#flush();
      const nowMs = performance.now();
      if (this.#left < before) readMs = nowMs;
      if (this.#left === 0 || nowMs > endMs || nowMs - readMs > nobodyReadsMs) break;
      Atomics.wait(sleeper, 0, 0, 5);
    }
    clearTimeout(this.#timer);
  }

  get #left(): number {
    return this.#waitingBytes + (this.#begun?.length ?? 0);
  }

  #flush(): void {
    this.#timer = undefined;
    let next = 0;
    try {
      for (;;) {
        let bytes = this.#begun;
        if (bytes === undefined && this.#dropped > 0) {
          bytes = notice(this.#dropped);
          this.#dropped = 0;
        }
        if (bytes === undefined) {
          bytes = this.#waiting[next];
          if (bytes === undefined) break;
          next++;
          this.#waitingBytes -= bytes.length;
        }
        this.#begun = bytes;
        const written = this.#writeSome(bytes);
        this.#begun = written < bytes.length ? bytes.subarray(written) : undefined;
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EAGAIN")
        this.#timer = setTimeout(() => this.#flush(), retryMs).unref();
      else this.#leave();
    }
    if (next > 0) this.#waiting.splice(0, next);
  }

  /** The newest lines tell most; half of them stay, so that not each line that follows moves the others. */
  #drop(): void {
    let count = 0;
    for (const { length } of this.#waiting) {
      if (this.#waitingBytes <= this.#bytesMax / 2) break;
      this.#waitingBytes -= length;
      count++;
    }
    this.#waiting.splice(0, count);
    this.#dropped += count;
  }

  /** Nobody will ever read it: there is nobody left to tell. */
  #leave(): void {
    this.#isGone = true;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#begun = undefined;
  }
}

function notice(lines: number): Buffer {
  const message = "lines of this log were dropped, since nobody read it";
  const { pid } = process;
  return Buffer.from(`${JSON.stringify({ level: "warn", pid, time: new Date().toISOString(), message, lines })}\n`);
}

let output: BoundedOutput | undefined;

/** That of this process. */
export function standardError(): BoundedOutput {
  if (output !== undefined) return output;
  // Node opens it for the first who asks: a pipe or socket does not make a writer wait from then on. Files and terminals
  // go on as they are, since nobody needs to read those.
  void process.stderr;
  const opened = new BoundedOutput((bytes) => writeSync(2, bytes));
  process.once("exit", () => opened.lastWords());
  output = opened;
  return opened;
}
