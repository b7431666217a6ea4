/**
 * A ring of bytes between the raft thread and the log's thread, in shared memory: one writer, one reader, no copy on the
 * way out and no message for each save. Positions count bytes for ever, modulo 2^32; the ring's size divides that.
 *
 * A message is a u32 length and its bytes, at a multiple of 8, never split: where it does not fit before the end, the
 * writer leaves a mark and starts over at the beginning.
 */

import { syncBoundsSeconds } from "./sync-times.ts";

/** Words of the control area (Int32). */
const word = { head: 0, tail: 1, asleep: 2, closing: 3, space: 4, done: 5 } as const;
/** Figures of the reader's side (Float64), and behind them how many syncs took how long (sync-times.ts). */
const figure = { freeBytes: 0, sizeBytes: 1, syncs: 2, syncMs: 3, entries: 4, bytes: 5, keys: 6 } as const;
const bucketsFrom = 8;
const buckets = syncBoundsSeconds.length + 1;

const controlBytes = 64;
const figuresBytes = 8 * (bucketsFrom + buckets);
const skipMark = 0xffff_ffff;
const align = (bytes: number): number => (bytes + 7) & ~7;

export type Space = "ok" | "low" | "full";
const spaces: readonly Space[] = ["ok", "low", "full"];

export type Figures = Record<keyof typeof figure, number> & { readonly syncCounts: readonly number[] };

/** The memory of a ring. @param sizeBytes  a power of two */
export function ringMemory(sizeBytes: number): SharedArrayBuffer {
  return new SharedArrayBuffer(controlBytes + figuresBytes + sizeBytes);
}

abstract class RingEnd {
  protected readonly control: Int32Array;
  protected readonly figures: Float64Array;
  protected readonly bytes: Uint8Array;
  protected readonly view: DataView;
  readonly sizeBytes: number;

  constructor(memory: SharedArrayBuffer) {
    this.sizeBytes = memory.byteLength - controlBytes - figuresBytes;
    this.control = new Int32Array(memory, 0, controlBytes / 4);
    this.figures = new Float64Array(memory, controlBytes, figuresBytes / 8);
    this.bytes = new Uint8Array(memory, controlBytes + figuresBytes, this.sizeBytes);
    this.view = new DataView(memory, controlBytes + figuresBytes, this.sizeBytes);
  }

  get isClosing(): boolean {
    return Atomics.load(this.control, word.closing) !== 0;
  }
}

export class RingWriter extends RingEnd {
  #head = 0;

  /**
   * Room for a message of `messageBytes`, to be filled and then published by `push`; undefined if there is none now.
   * @param messageBytes  at most half the ring
   */
  reserve(messageBytes: number): { readonly bytes: Uint8Array; readonly view: DataView } | undefined {
    const needed = align(4 + messageBytes);
    const used = (this.#head - Atomics.load(this.control, word.tail)) >>> 0;
    const at = this.#head % this.sizeBytes;
    const untilEnd = this.sizeBytes - at;
    const skipped = untilEnd < needed ? untilEnd : 0;
    if (used + skipped + needed > this.sizeBytes) return undefined;
    if (skipped > 0) {
      this.view.setUint32(at, skipMark, true);
      this.#head = (this.#head + skipped) >>> 0;
    }
    const start = (this.#head % this.sizeBytes) + 4;
    this.view.setUint32(start - 4, messageBytes, true);
    const bytes = this.bytes.subarray(start, start + messageBytes);
    return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, messageBytes) };
  }

  /** Hands the reserved message of `messageBytes` over, and wakes the reader if it sleeps. */
  push(messageBytes: number): void {
    this.#head = (this.#head + align(4 + messageBytes)) >>> 0;
    Atomics.store(this.control, word.head, this.#head | 0);
    if (Atomics.load(this.control, word.asleep) !== 0) Atomics.notify(this.control, word.head);
  }

  /** Tells the reader to end, even if it waits for space on the disk. */
  close(): void {
    Atomics.store(this.control, word.closing, 1);
    Atomics.notify(this.control, word.closing);
    Atomics.notify(this.control, word.head);
  }

  /** How many messages are done so far, modulo 2^32. */
  get done(): number {
    return Atomics.load(this.control, word.done) >>> 0;
  }

  /** Resolves when `done` is no longer `seen`. */
  async whenDone(seen: number): Promise<void> {
    await Atomics.waitAsync(this.control, word.done, seen | 0).value;
  }

  get space(): Space {
    return spaces[Atomics.load(this.control, word.space)] ?? "ok";
  }

  readFigures(): Figures {
    const read = (at: number): number => this.figures[at] ?? 0;
    return {
      freeBytes: read(figure.freeBytes),
      sizeBytes: read(figure.sizeBytes),
      syncs: read(figure.syncs),
      syncMs: read(figure.syncMs),
      entries: read(figure.entries),
      bytes: read(figure.bytes),
      keys: read(figure.keys),
      syncCounts: Array.from(this.figures.subarray(bucketsFrom, bucketsFrom + buckets)),
    };
  }
}

export class RingReader extends RingEnd {
  /** The position after the last message looked at. */
  #next = 0;

  /** The next message that has not been looked at, in place; undefined if there is none. It stays until `release`. */
  peek(): Uint8Array | undefined {
    const head = Atomics.load(this.control, word.head) >>> 0;
    if (this.#next === head) return undefined;
    let at = this.#next % this.sizeBytes;
    if (this.view.getUint32(at, true) === skipMark) {
      this.#next = (this.#next + this.sizeBytes - at) >>> 0;
      at = 0;
    }
    const messageBytes = this.view.getUint32(at, true);
    this.#next = (this.#next + align(4 + messageBytes)) >>> 0;
    return this.bytes.subarray(at + 4, at + 4 + messageBytes);
  }

  /** Whether something lies behind `position`. */
  hasMore(position: number): boolean {
    return Atomics.load(this.control, word.head) >>> 0 !== position || this.isClosing;
  }

  /** Where the reader stands, for `release`. */
  get position(): number {
    return this.#next;
  }

  /** Gives back everything before `position`. */
  release(position: number): void {
    Atomics.store(this.control, word.tail, position | 0);
  }

  /** Sleeps until there is something to peek at, the writer closes, or `timeoutMs` are over. */
  wait(timeoutMs: number): void {
    const seen = this.#next | 0;
    Atomics.store(this.control, word.asleep, 1);
    if (!this.isClosing) Atomics.wait(this.control, word.head, seen, timeoutMs);
    Atomics.store(this.control, word.asleep, 0);
  }

  /** Sleeps though there is something to do; only closing ends it early. */
  pause(timeoutMs: number): void {
    Atomics.wait(this.control, word.closing, 0, timeoutMs);
  }

  /** Counts `messages` as done, and wakes the writer: cheaper than a message from thread to thread. */
  finish(messages: number): void {
    Atomics.add(this.control, word.done, messages);
    Atomics.notify(this.control, word.done);
  }

  report(space: Space, figures: Figures): void {
    Atomics.store(this.control, word.space, spaces.indexOf(space));
    for (const [name, place] of Object.entries(figure)) this.figures[place] = figures[name as keyof typeof figure];
    this.figures.set(figures.syncCounts, bucketsFrom);
  }
}
