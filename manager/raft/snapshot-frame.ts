/**
 * The bytes of a snapshot: frames, each a length (u32, little-endian) and so many bytes. The first is the table of members,
 * the others are the state machine's chunks, which it gets back as it gave them, however the bytes were cut on disk and on
 * the way. Both are as of the same index.
 */
import { MemberTable, MemberTableDamaged } from "./member-table.ts";
import type { SnapshotSink, SnapshotSource } from "./ports.ts";

const lengthBytes = 4;
const frameBytesMax = 64 * 1024 * 1024;

/** Writes the table first, then the state. */
export class TableThenState implements SnapshotSource {
  readonly index: number;
  #head: Uint8Array | undefined;
  readonly #state: SnapshotSource;

  constructor(index: number, table: MemberTable, state: SnapshotSource) {
    this.index = index;
    this.#state = state;
    this.#head = table.encode();
  }

  next(bytesMax: number): Uint8Array | undefined {
    const chunk = this.#head ?? this.#state.next(bytesMax - lengthBytes);
    this.#head = undefined;
    if (chunk === undefined) return undefined;
    const frame = Buffer.allocUnsafe(lengthBytes + chunk.length);
    frame.writeUInt32LE(chunk.length, 0);
    frame.set(chunk, lengthBytes);
    return frame;
  }
}

/** Reads what TableThenState wrote, in pieces of any size. */
export class TableFromState implements SnapshotSink {
  readonly #state: SnapshotSink;
  readonly #done: (table: MemberTable) => void;
  /** Bytes that are no whole frame yet. */
  #pieces: Uint8Array[] = [];
  #gatheredBytes = 0;
  #wantedBytes = lengthBytes;
  #table: MemberTable | undefined;

  /** @param done  called at the end, after the state machine has switched to its new state */
  constructor(state: SnapshotSink, done: (table: MemberTable) => void) {
    this.#state = state;
    this.#done = done;
  }

  /** As soon as it has been read, before the state behind it has. */
  get table(): MemberTable | undefined {
    return this.#table;
  }

  /** @throws MemberTableDamaged, and what the state machine throws */
  write(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#gatheredBytes += piece.length;
    if (this.#gatheredBytes < this.#wantedBytes) return;
    const bytes = this.#pieces.length === 1 ? asBuffer(piece) : Buffer.concat(this.#pieces);
    let at = 0;
    this.#wantedBytes = lengthBytes;
    while (bytes.length - at >= lengthBytes) {
      const frameBytes = bytes.readUInt32LE(at);
      if (frameBytes > frameBytesMax) throw new MemberTableDamaged(`a frame claims ${frameBytes} bytes`);
      if (bytes.length - at < lengthBytes + frameBytes) {
        this.#wantedBytes = lengthBytes + frameBytes;
        break;
      }
      this.#frame(bytes.subarray(at + lengthBytes, at + lengthBytes + frameBytes));
      at += lengthBytes + frameBytes;
    }
    this.#pieces = at < bytes.length ? [bytes.subarray(at)] : [];
    this.#gatheredBytes = bytes.length - at;
  }

  finish(index: number): void {
    if (this.#table === undefined || this.#gatheredBytes > 0)
      throw new MemberTableDamaged("the snapshot ends within a frame");
    this.#state.finish(index);
    this.#done(this.#table);
  }

  #frame(bytes: Uint8Array): void {
    if (this.#table === undefined) this.#table = MemberTable.decode(bytes);
    else this.#state.write(bytes);
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
