/**
 * The whole state as chunks and back. A chunk is taken in one short turn; the state behind it is frozen, so writes go on
 * meanwhile. A restore builds a state of its own and swaps it in at the end, or never.
 */
import { skep } from "../../../proto/index.ts";
import type { Catalog, KindEntry } from "./catalog.ts";
import { Incompatible, SnapshotInvalid, StateDiverged } from "./errors.ts";
import { digestBytes, type Digest } from "./hash.ts";
import type { Cursor } from "./sorted-map.ts";
import { State, type FrozenState } from "./state.ts";
import { contentOf, keysOf, StoredObject } from "./stored-object.ts";

/** Form of the chunks; a newer one is refused. */
const snapshotFormat = 1;

/** Objects a chunk holds at most, so that many small ones do not make a long turn. */
export const chunkObjectsMax = 1024;

/** Of an object in a chunk besides id and body: tags, kind, three numbers, lengths. */
const objectOverheadBytes = 48;

const chunks = skep.store.SnapshotChunk;

export class SnapshotReader {
  readonly index: number;
  readonly #state: FrozenState;
  readonly #kinds: Iterator<KindEntry>;
  #kind: KindEntry | undefined;
  #cursor: Cursor<StoredObject> | undefined;
  /** Passed by the cursor, for the next chunk. */
  #pending: StoredObject | undefined;
  #objects = 0;
  #stage: "header" | "objects" | "end" = "header";

  constructor(catalog: Catalog, state: FrozenState) {
    this.index = state.index;
    this.#state = state;
    this.#kinds = catalog.kinds[Symbol.iterator]();
  }

  /** @throws StateDiverged if memory does not hold what was stored: such a snapshot would spoil those who install it */
  next(bytesMax: number): Uint8Array | undefined {
    if (this.#stage === "end") return undefined;
    if (this.#stage === "header") {
      const { index, level, timeUs } = this.#state;
      this.#stage = "objects";
      this.#advance();
      return chunks.encode({ header: { format: snapshotFormat, level, index, timeUs } }).finish();
    }
    const objects = this.#take(bytesMax);
    if (objects.length > 0) return chunks.encode({ objects }).finish();
    this.#stage = "end";
    return chunks.encode({ trailer: { objects: this.#objects, hash: this.#state.hash } }).finish();
  }

  #take(bytesMax: number): skep.store.SnapshotObject.$Properties[] {
    const taken: skep.store.SnapshotObject.$Properties[] = [];
    let bytes = 0;
    while (this.#pending !== undefined && this.#kind !== undefined && taken.length < chunkObjectsMax) {
      const { id, version, createdAtUs, updatedAtUs, sizeBytes } = this.#pending;
      bytes += sizeBytes + id.length + objectOverheadBytes;
      if (taken.length > 0 && bytes > bytesMax) break;
      if (!this.#pending.intact()) {
        const found = `another, at ${this.#kind.name} "${id}"`;
        throw new StateDiverged(this.index, "that of the bytes once stored", found);
      }
      const body = this.#pending.bytes();
      taken.push({ kind: this.#kind.table.number, id, version, createdAtUs, updatedAtUs, body });
      this.#advance();
    }
    this.#objects += taken.length;
    return taken;
  }

  /** To the next object of this kind, or the first of the next that has one. */
  #advance(): void {
    for (;;) {
      if (this.#cursor?.next() === true) {
        this.#pending = this.#cursor.value;
        return;
      }
      const next = this.#kinds.next();
      if (next.done === true) {
        this.#pending = undefined;
        return;
      }
      this.#kind = next.value;
      this.#cursor = this.#state.table(next.value.table.number).rows.cursor();
    }
  }
}

const digest: Digest = { a: 0, b: 0 };

export class RestoreSink {
  readonly #catalog: Catalog;
  readonly #supportedLevel: number;
  readonly #install: (state: State) => void;
  readonly #state: State;
  #stage: "header" | "objects" | "complete" | "done" = "header";
  #objects = 0;
  #lastKind = 0;
  #lastId: string | undefined;

  constructor(catalog: Catalog, supportedLevel: number, install: (state: State) => void) {
    this.#catalog = catalog;
    this.#supportedLevel = supportedLevel;
    this.#install = install;
    this.#state = new State(catalog);
  }

  /** @throws SnapshotInvalid, Incompatible; the old state stays in force */
  write(chunk: Uint8Array): void {
    let decoded: skep.store.SnapshotChunk;
    try {
      // Of a Buffer, texts are read in one piece.
      decoded = chunks.decode(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length));
    } catch (error) {
      throw new SnapshotInvalid("a chunk cannot be decoded", error);
    }
    const { header, objects, trailer } = decoded;
    if (header) this.#header(skep.store.SnapshotHeader.create(header));
    if (objects.length > 0) {
      if (this.#stage !== "objects") throw new SnapshotInvalid("objects come after a header and before a trailer");
      for (const object of objects) this.#object(skep.store.SnapshotObject.create(object));
    }
    if (trailer) this.#trailer(skep.store.SnapshotTrailer.create(trailer));
  }

  /** The state in force from now on. @param index  what the log counts from: at least the snapshot's own */
  finish(index: number): void {
    if (this.#stage !== "complete") throw new SnapshotInvalid("it ends before its trailer");
    if (index < this.#state.index) throw new SnapshotInvalid(`it is of index ${this.#state.index}, not ${index}`);
    this.#stage = "done";
    this.#state.index = index;
    this.#install(this.#state);
  }

  #header(header: skep.store.SnapshotHeader): void {
    if (this.#stage !== "header") throw new SnapshotInvalid("it has two headers");
    if (header.format !== snapshotFormat)
      throw new Incompatible("a snapshot", `its format is ${header.format}, not ${snapshotFormat}`);
    if (header.level < 1 || header.level > this.#supportedLevel)
      throw new Incompatible("a snapshot", `it needs feature level ${header.level}, not ${this.#supportedLevel}`);
    this.#state.index = header.index;
    this.#state.timeUs = header.timeUs;
    this.#state.level = header.level;
    this.#stage = "objects";
  }

  #object({ kind: number, id, version, createdAtUs, updatedAtUs, body }: skep.store.SnapshotObject): void {
    const kind = this.#catalog.byNumber(number);
    if (kind === undefined)
      throw new Incompatible("a snapshot", `it has objects of kind ${number}, which is not known`);
    const inOrder = number > this.#lastKind || (this.#lastId !== undefined && id > this.#lastId);
    if (number < this.#lastKind || !inOrder) throw new SnapshotInvalid(`${kind.name} "${id}" is out of order`);
    this.#lastKind = number;
    this.#lastId = id;
    const meta = { version, createdAtUs, updatedAtUs };
    digestBytes(digest, body);
    try {
      const keys = keysOf(kind.table, body, id, meta);
      this.#state.table(number).put(new StoredObject(id, contentOf(kind.table, body, undefined), meta, digest, keys));
    } catch (error) {
      throw new SnapshotInvalid(`${kind.name} "${id}" cannot be decoded`, error);
    }
    this.#objects++;
  }

  #trailer({ objects, hash }: skep.store.SnapshotTrailer): void {
    if (this.#stage !== "objects") throw new SnapshotInvalid("its trailer is not where it belongs");
    if (objects !== this.#objects) throw new SnapshotInvalid(`it has ${this.#objects} objects of ${objects}`);
    const found = this.#state.hash();
    if (hash !== found) throw new SnapshotInvalid(`its state hash is ${found}, and should be ${hash}`);
    this.#stage = "complete";
  }
}
