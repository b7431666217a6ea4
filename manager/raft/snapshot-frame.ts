/**
 * The bytes of a snapshot: a length, the table of members, then whatever the state machine writes. The table belongs to
 * raft and the rest to the state machine, and both are as of the same index.
 */
import { MemberTable, MemberTableDamaged } from "./member-table.ts";
import type { SnapshotSink, SnapshotSource } from "./ports.ts";

const lengthBytes = 4;
const tableBytesMax = 16 * 1024 * 1024;

/** Writes the table first, then the state. */
export class TableThenState implements SnapshotSource {
  readonly index: number;
  #head: Uint8Array | undefined;
  readonly #state: SnapshotSource;

  constructor(index: number, table: MemberTable, state: SnapshotSource) {
    this.index = index;
    this.#state = state;
    const encoded = table.encode();
    const head = Buffer.allocUnsafe(lengthBytes + encoded.length);
    head.writeUInt32LE(encoded.length, 0);
    head.set(encoded, lengthBytes);
    this.#head = head;
  }

  next(bytesMax: number): Uint8Array | undefined {
    const head = this.#head;
    if (head === undefined) return this.#state.next(bytesMax);
    this.#head = head.length > bytesMax ? head.subarray(bytesMax) : undefined;
    return head.subarray(0, bytesMax);
  }
}

/** Reads what TableThenState wrote, in chunks of any size. */
export class TableFromState implements SnapshotSink {
  readonly #state: SnapshotSink;
  readonly #done: (table: MemberTable) => void;
  #head: Uint8Array[] = [];
  #headBytes = 0;
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

  /** @throws MemberTableDamaged */
  write(chunk: Uint8Array): void {
    if (this.#table !== undefined) {
      this.#state.write(chunk);
      return;
    }
    this.#head.push(chunk);
    this.#headBytes += chunk.length;
    if (this.#headBytes < lengthBytes) return;
    const head = Buffer.concat(this.#head);
    const tableBytes = head.readUInt32LE(0);
    if (tableBytes > tableBytesMax) throw new MemberTableDamaged(`it claims ${tableBytes} bytes`);
    if (head.length < lengthBytes + tableBytes) {
      this.#head = [head];
      return;
    }
    this.#table = MemberTable.decode(head.subarray(lengthBytes, lengthBytes + tableBytes));
    this.#head = [];
    const rest = head.subarray(lengthBytes + tableBytes);
    if (rest.length > 0) this.#state.write(rest);
  }

  finish(index: number): void {
    if (this.#table === undefined) throw new MemberTableDamaged("the snapshot ends within it");
    this.#state.finish(index);
    this.#done(this.#table);
  }
}
