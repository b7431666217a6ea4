/** Framed logs, as native/monitor/frame.h has them, turned into lines. */
export const frameHeaderBytes = 16;
const magic = 0x5ce9;
const payloadMax = 1 << 20;
/** Longer lines are handed on in pieces. */
const lineMax = 256 * 1024;

export type LogStream = "stdout" | "stderr" | "system";
const streams: readonly (LogStream | undefined)[] = [undefined, "stdout", "stderr", "system"];

export interface LogFrame {
  readonly stream: LogStream;
  readonly timeNs: bigint;
  readonly payload: Buffer;
}

export interface LogLine {
  readonly stream: LogStream;
  /** Of the chunk in which the line began. */
  readonly timeNs: bigint;
  /** With its newline, unless it has none. */
  readonly text: Buffer;
}

/** Cuts bytes into frames; what a crash tore is stepped over. Holds at most one unfinished frame. */
export class FrameSplitter {
  #rest: Buffer = Buffer.alloc(0);
  #skipped = 0;

  /** Bytes that were no frame. */
  get skipped(): number {
    return this.#skipped;
  }

  /** Bytes of a frame that is not there as a whole yet. */
  get pending(): number {
    return this.#rest.length;
  }

  push(chunk: Buffer): LogFrame[] {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const frames: LogFrame[] = [];
    let at = 0;
    while (bytes.length - at >= frameHeaderBytes) {
      const length = bytes.readUInt32LE(at);
      const stream = streams[bytes.readUInt8(at + 4)];
      if (bytes.readUInt16LE(at + 6) !== magic || length > payloadMax || stream === undefined) {
        at++;
        this.#skipped++;
        continue;
      }
      if (bytes.length - at - frameHeaderBytes < length) break;
      const from = at + frameHeaderBytes;
      frames.push({ stream, timeNs: bytes.readBigUInt64LE(at + 8), payload: bytes.subarray(from, from + length) });
      at = from + length;
    }
    bytes = bytes.subarray(at);
    this.#rest = bytes;
    return frames;
  }

  /** Forgets an unfinished frame: its file has ended. */
  reset(): void {
    this.#skipped += this.#rest.length;
    this.#rest = Buffer.alloc(0);
  }
}

/** Joins frames of each stream into lines. */
export class LineJoiner {
  readonly #open = new Map<LogStream, { timeNs: bigint; parts: Buffer[]; bytes: number }>();

  push(frame: LogFrame): LogLine[] {
    const lines: LogLine[] = [];
    let { payload } = frame;
    while (payload.length > 0) {
      const newline = payload.indexOf(0x0a);
      const piece = newline < 0 ? payload : payload.subarray(0, newline + 1);
      payload = payload.subarray(piece.length);
      const open = this.#open.get(frame.stream);
      if (newline < 0 && (open?.bytes ?? 0) + piece.length < lineMax) {
        if (open === undefined)
          this.#open.set(frame.stream, { timeNs: frame.timeNs, parts: [piece], bytes: piece.length });
        else {
          open.parts.push(piece);
          open.bytes += piece.length;
        }
        continue;
      }
      this.#open.delete(frame.stream);
      lines.push(
        open === undefined
          ? { stream: frame.stream, timeNs: frame.timeNs, text: piece }
          : { stream: frame.stream, timeNs: open.timeNs, text: Buffer.concat([...open.parts, piece]) },
      );
    }
    return lines;
  }

  /** Lines that have no newline yet: the end of the log. */
  flush(): LogLine[] {
    const lines = [...this.#open].map(([stream, open]) => ({
      stream,
      timeNs: open.timeNs,
      text: Buffer.concat(open.parts),
    }));
    this.#open.clear();
    return lines;
  }
}

/** RFC 3339 with nanoseconds, as in `docker logs --timestamps`. */
export function formatTimeNs(timeNs: bigint): string {
  const seconds = new Date(Number(timeNs / 1_000_000_000n) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${(timeNs % 1_000_000_000n).toString().padStart(9, "0")}Z`;
}
