/**
 * Snapshot files in one folder, synchronously, over the file-system port: the snapshot thread and the simulator run this.
 * A snapshot appears under its name only when it is whole and durable. Two are kept. What a crash leaves half made is
 * removed at the next open; a half-received spool is kept and resumed.
 */
import { createHash, type Hash } from "node:crypto";
import { crc32 } from "node:zlib";
import { invariant } from "../../../lib/pure/errors.ts";
import { errnoOf, type FileSystem, type OpenFile } from "../../../lib/runtime/file-system.ts";
import type { MemberId, SnapshotMeta } from "../core/types.ts";
import {
  KeyMissing,
  StorageNewer,
  aesGcm,
  checkOwner,
  encodeOwner,
  nonceOf,
  sameBytes,
  sessionBytes,
  tagBytes,
  type Cipher,
  type DataKeys,
  type RandomBytes,
  type StorageIdentity,
} from "../keys/index.ts";
import { SnapshotDamaged, SnapshotNotFound, SnapshotTransferInvalid, SnapshotWriteFailed } from "./errors.ts";
import {
  associateBlock,
  beginBlock,
  blockBytes,
  blockHeaderBytes,
  contentBytesMax,
  crcOfBlock,
  decodeBlockHeader,
  decodeEnd,
  decodeFileHeader,
  decodeMeta,
  encodeEnd,
  encodeFileHeader,
  encodeMeta,
  fileHeaderBytes,
  finishBlock,
  formatVersion,
  looksLikeContent,
  packContent,
  unpackContent,
  type End,
  type FileHeader,
} from "./format.ts";
import { chunkBytesMax, type SnapshotChunk, type SnapshotOffer } from "./transfer.ts";

export interface SnapshotFilesOptions {
  readonly files: FileSystem;
  /** Made if it is missing. */
  readonly folder: string;
  readonly identity: StorageIdentity;
  readonly keys: DataKeys;
  readonly randomBytes: RandomBytes;
  readonly cipher?: Cipher;
  /** Default true. */
  readonly compress?: boolean;
}

const snapshotsKept = 2;
/** Half-received spools that wait for a resume; older ones go. */
const spoolsKept = 2;
const chunksMax = 4_000_000; // 1 TB in chunks of 256 KiB

export class SnapshotFiles {
  readonly options: Required<SnapshotFilesOptions>;
  readonly owner: Uint8Array;
  /** Whole snapshots by name, oldest first. Only the newest good one has been read through. */
  #names: string[] = [];
  /** Received, verified and durable, waiting for `install`: "index/term" to path. */
  readonly #arrived = new Map<string, string>();
  /** Key ids of files being written now. */
  readonly #writing = new Map<string, number>();
  readonly damaged: { readonly path: string; readonly error: SnapshotDamaged }[] = [];
  newest: SnapshotMeta | undefined;
  #begun = 0;

  constructor(options: SnapshotFilesOptions) {
    this.options = { cipher: aesGcm, compress: true, ...options };
    this.owner = encodeOwner(options.identity);
  }

  /**
   * Finds the newest snapshot that is whole, reading it through; damaged newer ones are listed, not touched.
   * @throws StorageForeign, StorageNewer, KeyMissing: files untouched; SnapshotWriteFailed if the disk cannot be read
   */
  open(): void {
    const { files, folder } = this.options;
    this.#disk("open", () => {
      files.mkdir(folder);
      const names = files.readdir(folder);
      this.#names = names.filter((name) => parseName(name) !== undefined);
      for (const name of [...this.#names].reverse()) {
        try {
          this.newest = this.#readThrough(name);
          break;
        } catch (error) {
          if (!(error instanceof SnapshotDamaged)) throw error;
          this.damaged.push({ path: `${folder}/${name}`, error });
          this.#names = this.#names.filter((other) => other !== name);
        }
      }
      for (const name of names.filter((name) => name.endsWith(".tmp"))) files.unlink(`${folder}/${name}`);
    });
  }

  /** Metas of whole snapshots, newest first: what the log's recovery chooses from. */
  get metas(): readonly SnapshotMeta[] {
    return this.newest === undefined ? [] : [this.newest];
  }

  /** Key ids that some file here needs, those being written included. */
  keysInUse(): Set<number> {
    const { files, folder } = this.options;
    const ids = new Set(this.#writing.values());
    for (const name of files.readdir(folder)) {
      const block = new Uint8Array(fileHeaderBytes);
      const file = files.open(`${folder}/${name}`, "read");
      try {
        const header = decodeFileHeader(block.subarray(0, file.pread(block, 0)));
        if (typeof header === "object") ids.add(header.keyId);
      } finally {
        file.close();
      }
    }
    return ids;
  }

  /** Begins a snapshot under a temporary name. */
  begin(meta: SnapshotMeta): SnapshotWriter {
    const name = nameOf(meta);
    const path = `${this.options.folder}/${name}.${++this.#begun}.tmp`;
    const blocks = this.#disk("begin", () => BlockWriter.create(this, path, meta));
    this.#writing.set(path, blocks.header.keyId);
    const writer = new SnapshotWriter(this, blocks, meta, this.options.compress, () => this.#writing.delete(path));
    try {
      blocks.addChunk(encodeMeta(meta));
    } catch (error) {
      writer.abort();
      throw error;
    }
    return writer;
  }

  /** A whole, durable file takes its place among the snapshots; older ones go (who reads them reads on). */
  publish(path: string, meta: SnapshotMeta): void {
    const { files, folder } = this.options;
    const name = nameOf(meta);
    this.#disk("publish", () => {
      files.rename(path, `${folder}/${name}`);
      files.syncDirectory(folder);
      if (!this.#names.includes(name)) this.#names = [...this.#names, name].sort();
      if (this.newest === undefined || meta.index >= this.newest.index) this.newest = meta;
      this.#prune();
    });
  }

  /** @throws SnapshotNotFound, SnapshotDamaged */
  openReader(meta: SnapshotMeta): SnapshotFileReader {
    const { files, folder } = this.options;
    const path = `${folder}/${nameOf(meta)}`;
    if (!this.#names.includes(nameOf(meta))) throw new SnapshotNotFound(meta.index, meta.term);
    return this.#disk("read", () => new SnapshotFileReader(this, path, files.open(path, "read")));
  }

  /** Opens the spool of what `from` offers, or the one that a broken stream left. */
  openReceiver(from: MemberId, offer: SnapshotOffer): SpoolReceiver {
    const { files, folder } = this.options;
    checkOffer(offer);
    const digest = Buffer.from(offer.digest.subarray(0, 8)).toString("hex");
    const name = `incoming-${from}-${offer.meta.index}-${offer.meta.term}-${digest}.spool`;
    const path = `${folder}/${name}`;
    return this.#disk("receive", () => {
      const spools = files.readdir(folder).filter((other) => other.endsWith(".spool") && other !== name);
      const idle = spools.filter((other) => !this.#inUse(`${folder}/${other}`));
      for (const other of idle.slice(0, Math.max(0, idle.length - spoolsKept + 1))) files.unlink(`${folder}/${other}`);
      if (this.#writing.has(path)) throw new SnapshotTransferInvalid("the same snapshot is being received already");
      const receiver = SpoolReceiver.open(this, path, offer);
      this.#writing.set(path, receiver.keyId);
      return receiver;
    });
  }

  /** @internal Called by a receiver that is done with its spool. */
  release(path: string, arrived?: SnapshotMeta): void {
    this.#writing.delete(path);
    if (arrived !== undefined) this.#arrived.set(`${arrived.index}/${arrived.term}`, path);
  }

  /** Puts a received snapshot in force. It is the newest one after that, whatever was there. */
  install(meta: SnapshotMeta): void {
    const key = `${meta.index}/${meta.term}`;
    const path = this.#arrived.get(key);
    if (path === undefined) {
      if (this.#names.includes(nameOf(meta))) return; // done before
      throw new SnapshotNotFound(meta.index, meta.term);
    }
    const reader = this.#disk(
      "install",
      () => new SnapshotFileReader(this, path, this.options.files.open(path, "read")),
    );
    const { meta: received } = reader;
    reader.close();
    this.publish(path, received);
    this.#arrived.delete(key);
  }

  /** @internal */
  disk<T>(act: string, run: () => T): T {
    return this.#disk(act, run);
  }

  #inUse(path: string): boolean {
    return this.#writing.has(path) || [...this.#arrived.values()].includes(path);
  }

  #readThrough(name: string): SnapshotMeta {
    const { files, folder } = this.options;
    const path = `${folder}/${name}`;
    const reader = new SnapshotFileReader(this, path, files.open(path, "read"));
    try {
      if (nameOf(reader.meta) !== name) throw new SnapshotDamaged(path, "it lies under another one's name");
      reader.verify();
      return reader.meta;
    } finally {
      reader.close();
    }
  }

  #prune(): void {
    const { files, folder } = this.options;
    const gone = this.#names.slice(0, Math.max(0, this.#names.length - snapshotsKept));
    const newest = this.newest?.index ?? 0;
    // Received in vain: by then the log had come so far by itself. Who installs one installs it before a newer one.
    for (const [key, path] of this.#arrived) if (indexOfSpool(path) <= newest) this.#arrived.delete(key);
    for (const name of files.readdir(folder)) {
      const stale = indexOfSpool(name) <= newest && !this.#inUse(`${folder}/${name}`);
      const broken = this.damaged.some(({ path }) => path === `${folder}/${name}`) && !this.#names.includes(name);
      if (gone.includes(name) || stale || broken) files.unlink(`${folder}/${name}`);
    }
    this.damaged.length = 0;
    this.#names = this.#names.filter((name) => !gone.includes(name));
    files.syncDirectory(folder);
  }

  #disk<T>(act: string, run: () => T): T {
    try {
      return run();
    } catch (error) {
      if (errnoOf(error) !== undefined) throw new SnapshotWriteFailed(act, error);
      throw error;
    }
  }
}

/** Appends sealed blocks to a file, and keeps the digest of the chunks among them. */
class BlockWriter {
  readonly header: FileHeader;
  readonly path: string;
  readonly #owner: SnapshotFiles;
  readonly #file: OpenFile;
  readonly #key: Uint8Array;
  readonly #digest: Hash = createHash("sha256");
  /** Blocks are put together here: memory must not grow with the snapshot. */
  #scratch = new Uint8Array(1_024);
  end: number;
  chunks = 0;
  sizeBytes = 0;

  constructor(owner: SnapshotFiles, path: string, file: OpenFile, header: FileHeader, key: Uint8Array) {
    this.#owner = owner;
    this.path = path;
    this.#file = file;
    this.header = header;
    this.#key = key;
    this.end = fileHeaderBytes;
  }

  static create(owner: SnapshotFiles, path: string, { index, term }: SnapshotMeta): BlockWriter {
    const { files, keys, cipher, randomBytes } = owner.options;
    const session = randomBytes(sessionBytes);
    const header: FileHeader = { index, term, keyId: keys.active.id, session, owner: owner.owner };
    const file = files.open(path, "create");
    try {
      file.pwrite(encodeFileHeader(header), 0);
      return new BlockWriter(owner, path, file, header, cipher.derive(keys.active.key, session));
    } catch (error) {
      // A full disk is tried again and again: no descriptor and no empty file of each try is left.
      file.close();
      forget(files, path);
      throw error;
    }
  }

  addChunk(chunk: Uint8Array): void {
    this.#append(chunk, this.chunks, false);
    this.counted(chunk, this.end);
  }

  /** A chunk that is in the file already (resume). */
  counted(chunk: Uint8Array, end: number): void {
    this.#digest.update(chunk);
    this.chunks++;
    this.sizeBytes += chunk.length;
    this.end = end;
  }

  digest(): Uint8Array {
    return new Uint8Array(this.#digest.copy().digest());
  }

  /** Writes the end and makes the whole durable. @returns the size of the file */
  finish(contentBytes: number): number {
    const { chunks, sizeBytes } = this;
    this.#append(encodeEnd({ chunks, sizeBytes, contentBytes, digest: this.digest() }), chunks, true);
    this.#owner.disk("write", () => {
      this.#file.truncate(this.end);
      this.#file.datasync();
      this.#file.close();
    });
    return this.end;
  }

  close(): void {
    this.#file.close();
  }

  #append(payload: Uint8Array, number: number, isEnd: boolean): void {
    const bytes = blockBytes(payload.length);
    if (this.#scratch.length < bytes) this.#scratch = new Uint8Array(Math.max(bytes, 2 * this.#scratch.length));
    const block = beginBlock(this.#scratch, payload, number, isEnd);
    const body = block.subarray(blockHeaderBytes, block.length - tagBytes);
    const { cipher } = this.#owner.options;
    // Nonce 0 is never used; the end of one file and a chunk of the same number cannot meet, since a file has one end.
    const nonce = nonceOf(isEnd ? number + 2 ** 40 : number + 1);
    block.set(cipher.seal(this.#key, nonce, associateBlock(this.header, block), body), block.length - tagBytes);
    finishBlock(block);
    this.#owner.disk("write", () => this.#file.pwrite(block, this.end));
    this.end += block.length;
  }
}

/** A snapshot being created. Content may come in pieces of any size. */
export class SnapshotWriter {
  readonly #files: SnapshotFiles;
  readonly #blocks: BlockWriter;
  readonly #meta: SnapshotMeta;
  readonly #compress: boolean;
  readonly #onEnd: () => void;
  /** Grows to one chunk. */
  #pending = new Uint8Array(1_024);
  #pendingBytes = 0;
  #contentBytes = 0;

  constructor(files: SnapshotFiles, blocks: BlockWriter, meta: SnapshotMeta, compress: boolean, onEnd: () => void) {
    this.#files = files;
    this.#blocks = blocks;
    this.#meta = meta;
    this.#compress = compress;
    this.#onEnd = onEnd;
  }

  write(content: Uint8Array): void {
    for (let at = 0; at < content.length;) {
      const part = content.subarray(at, at + contentBytesMax - this.#pendingBytes);
      this.#reserve(this.#pendingBytes + part.length);
      this.#pending.set(part, this.#pendingBytes);
      this.#pendingBytes += part.length;
      at += part.length;
      if (this.#pendingBytes === contentBytesMax) this.#flush();
    }
  }

  /** @returns the size of the file, which is durable and in force now */
  finish(): number {
    if (this.#pendingBytes > 0) this.#flush();
    const sizeBytes = this.#blocks.finish(this.#contentBytes);
    this.#files.publish(this.#blocks.path, this.#meta);
    this.#onEnd();
    return sizeBytes;
  }

  abort(): void {
    this.#blocks.close();
    this.#onEnd();
    forget(this.#files.options.files, this.#blocks.path);
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#pending.length) return;
    const grown = new Uint8Array(Math.min(contentBytesMax, Math.max(bytes, 4 * this.#pending.length)));
    grown.set(this.#pending);
    this.#pending = grown;
  }

  #flush(): void {
    const content = this.#pending.subarray(0, this.#pendingBytes);
    this.#blocks.addChunk(packContent(content, this.#compress));
    this.#contentBytes += content.length;
    this.#pendingBytes = 0;
  }
}

/** One snapshot file, open. Every chunk is checked by CRC and seal when it is read. */
export class SnapshotFileReader {
  readonly meta: SnapshotMeta;
  readonly offer: SnapshotOffer;
  readonly #owner: SnapshotFiles;
  readonly #path: string;
  readonly #file: OpenFile;
  readonly #header: FileHeader;
  readonly #key: Uint8Array;
  readonly #offsets: number[] = [];
  readonly #end: End;

  /** Reads all block headers, the first chunk and the end; takes the file over. */
  constructor(owner: SnapshotFiles, path: string, file: OpenFile) {
    this.#owner = owner;
    this.#path = path;
    this.#file = file;
    try {
      this.#header = readFileHeader(owner, path, file);
      this.#key = keyOf(owner, path, this.#header);
      const size = file.sizeBytes();
      let end: End | undefined;
      for (let at = fileHeaderBytes; end === undefined;) {
        const header = readBlockHeader(file, at, size);
        if (header === undefined || header.number !== this.#offsets.length)
          throw this.#damage("it is cut short or altered");
        if (header.isEnd) end = decodeEnd(this.#block(at, true));
        if (header.isEnd && end === undefined) throw this.#damage("its end makes no sense");
        if (!header.isEnd) this.#offsets.push(at);
        at += blockBytes(header.payloadBytes);
      }
      if (end.chunks !== this.#offsets.length || end.chunks === 0) throw this.#damage("chunks are missing");
      const meta = decodeMeta(this.chunk(0).data);
      if (meta?.index !== this.#header.index || meta.term !== this.#header.term) {
        throw this.#damage("its first chunk makes no sense");
      }
      this.#end = end;
      this.meta = meta;
      this.offer = { meta, chunks: end.chunks, sizeBytes: end.sizeBytes, digest: end.digest };
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** @throws SnapshotDamaged */
  chunk(number: number): SnapshotChunk {
    const at = this.#offsets[number];
    invariant(at !== undefined, "a chunk that was offered is asked for", { number, chunks: this.#offsets.length });
    const data = this.#block(at, false);
    return { number, data, crc: crc32(data) };
  }

  /** The content in chunk `number` (from 1 on). */
  content(number: number): Uint8Array {
    const content = unpackContent(this.chunk(number).data);
    if (content === undefined) throw this.#damage(`chunk ${number} does not unpack`);
    return content;
  }

  /** Reads everything and compares the digest. @throws SnapshotDamaged */
  verify(): void {
    const digest = createHash("sha256");
    let sizeBytes = 0;
    for (const number of this.#offsets.keys()) {
      const { data } = this.chunk(number);
      digest.update(data);
      sizeBytes += data.length;
    }
    if (sizeBytes !== this.#end.sizeBytes || !sameBytes(digest.digest(), this.#end.digest)) {
      throw this.#damage("its digest does not match");
    }
  }

  close(): void {
    this.#file.close();
  }

  #block(at: number, isEnd: boolean): Uint8Array {
    const payload = this.#owner.disk("read", () => readBlock(this.#owner, this.#file, at, this.#header, this.#key));
    if (payload === undefined) throw this.#damage(isEnd ? "its end is damaged" : `the block at byte ${at} is damaged`);
    return payload;
  }

  #damage(found: string): SnapshotDamaged {
    return new SnapshotDamaged(this.#path, found);
  }
}

/** A snapshot being received into a spool file, in the final format, sealed with a key of this node. */
export class SpoolReceiver {
  readonly offer: SnapshotOffer;
  readonly #files: SnapshotFiles;
  readonly #blocks: BlockWriter;
  #ended = false;

  private constructor(files: SnapshotFiles, blocks: BlockWriter, offer: SnapshotOffer) {
    this.#files = files;
    this.#blocks = blocks;
    this.offer = offer;
  }

  /** Goes on with what is good in an old spool: up to the first block that does not check. */
  static open(owner: SnapshotFiles, path: string, offer: SnapshotOffer): SpoolReceiver {
    const resumed = SpoolReceiver.#resume(owner, path, offer);
    return resumed ?? new SpoolReceiver(owner, BlockWriter.create(owner, path, offer.meta), offer);
  }

  static #resume(owner: SnapshotFiles, path: string, offer: SnapshotOffer): SpoolReceiver | undefined {
    let file: OpenFile;
    try {
      file = owner.options.files.open(path, "write");
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
    try {
      const header = readFileHeader(owner, path, file);
      const { index, term } = offer.meta;
      // Nonces of this session beyond the resume point were used for chunks that a crash may have eaten, but the same
      // chunk number carries the same bytes (its digest is in the spool's name), so no nonce seals two contents.
      const key = keyOf(owner, path, header);
      if (header.index !== index || header.term !== term) throw new SnapshotDamaged(path, "it is another snapshot's");
      const blocks = new BlockWriter(owner, path, file, header, key);
      const size = file.sizeBytes();
      for (;;) {
        const block = readBlockHeader(file, blocks.end, size);
        if (block === undefined || block.isEnd || block.number !== blocks.chunks || blocks.chunks >= offer.chunks)
          break;
        const payload = readBlock(owner, file, blocks.end, header, key);
        if (payload === undefined) break;
        blocks.counted(payload, blocks.end + blockBytes(payload.length));
      }
      writeAgain(file, blocks.end);
      return new SpoolReceiver(owner, blocks, offer);
    } catch (error) {
      file.close();
      // A spool is only a saving of time: one that cannot be resumed is begun anew.
      if (errnoOf(error) === undefined) return undefined;
      throw error;
    }
  }

  get nextChunk(): number {
    return this.#blocks.chunks;
  }

  get keyId(): number {
    return this.#blocks.header.keyId;
  }

  /** @throws SnapshotTransferInvalid: the chunk is not taken, the right one may follow */
  write({ number, data, crc }: SnapshotChunk): void {
    const { chunks, sizeBytes, meta } = this.offer;
    const refuse = (found: string): SnapshotTransferInvalid => new SnapshotTransferInvalid(found);
    if (this.#ended) throw refuse("the transfer has ended");
    if (number !== this.nextChunk) throw refuse(`chunk ${number} came where ${this.nextChunk} belongs`);
    if (number >= chunks || data.length > chunkBytesMax) throw refuse(`chunk ${number} is out of bounds`);
    if (this.#blocks.sizeBytes + data.length > sizeBytes) throw refuse("it is larger than offered");
    if (crc32(data) !== crc) throw refuse(`chunk ${number} was damaged on the way`);
    if (number === 0 ? !sameMeta(decodeMeta(data), meta) : !looksLikeContent(data)) {
      throw refuse(`chunk ${number} is not of the snapshot that was offered`);
    }
    this.#blocks.addChunk(data);
  }

  /** @throws SnapshotTransferInvalid: the whole is not what was offered; the spool is gone */
  finish(): void {
    const { chunks, sizeBytes, digest, meta } = this.offer;
    if (this.#ended) throw new SnapshotTransferInvalid("the transfer has ended");
    if (this.nextChunk < chunks) throw new SnapshotTransferInvalid(`${chunks - this.nextChunk} chunks are missing`);
    if (this.#blocks.sizeBytes !== sizeBytes || !sameBytes(this.#blocks.digest(), digest)) {
      this.suspend();
      this.#files.disk("discard", () => this.#files.options.files.unlink(this.#blocks.path));
      throw new SnapshotTransferInvalid("its digest does not match");
    }
    this.#ended = true;
    try {
      this.#blocks.finish(0);
      this.#files.release(this.#blocks.path, meta);
    } catch (error) {
      this.#blocks.close();
      this.#files.release(this.#blocks.path);
      throw error;
    }
  }

  suspend(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#blocks.close();
    this.#files.release(this.#blocks.path);
  }
}

// ---- parts ----

/** Of a file that was not finished. */
function forget(files: FileSystem, path: string): void {
  try {
    files.unlink(path);
  } catch {
    // The next open removes it.
  }
}

function nameOf({ index, term }: SnapshotMeta): string {
  return `snapshot-${String(index).padStart(16, "0")}-${String(term).padStart(16, "0")}.snap`;
}

function parseName(name: string): { index: number; term: number } | undefined {
  const match = /^snapshot-([0-9]{16})-([0-9]{16})\.snap$/u.exec(name);
  return match === null ? undefined : { index: Number(match[1]), term: Number(match[2]) };
}

/** Of the snapshot that arrives in it; Infinity for any other file. */
function indexOfSpool(path: string): number {
  const found = /(?:^|\/)incoming-[0-9]+-([0-9]+)-[^/]*$/u.exec(path);
  return found === null ? Number.POSITIVE_INFINITY : Number(found[1]);
}

function checkOffer({ meta, chunks, sizeBytes, digest }: SnapshotOffer): void {
  const whole = [meta.index, meta.term, chunks, sizeBytes].every((value) => Number.isSafeInteger(value) && value >= 0);
  if (!whole || chunks < 1 || chunks > chunksMax || sizeBytes > chunks * chunkBytesMax || digest.length !== 32) {
    throw new SnapshotTransferInvalid("the offer is out of bounds");
  }
}

function sameMeta(a: SnapshotMeta | undefined, b: SnapshotMeta): boolean {
  return a !== undefined && sameBytes(encodeMeta(a), encodeMeta(b));
}

function readFileHeader(owner: SnapshotFiles, path: string, file: OpenFile): FileHeader {
  const block = new Uint8Array(fileHeaderBytes);
  const header = decodeFileHeader(block.subarray(0, file.pread(block, 0)));
  if (typeof header === "number") throw new StorageNewer(path, header, formatVersion);
  if (header === undefined) throw new SnapshotDamaged(path, "its header is damaged");
  checkOwner(path, header.owner, owner.owner);
  return header;
}

function keyOf(owner: SnapshotFiles, path: string, { keyId, session }: FileHeader): Uint8Array {
  const data = owner.options.keys.get(keyId);
  if (data === undefined) throw new KeyMissing(`${path} needs data key ${keyId}, which the key file does not hold`);
  return owner.options.cipher.derive(data.key, session);
}

/**
 * After a datasync that failed the kernel takes its pages for clean: what is read may never reach the disk, and the next
 * datasync would vouch for it. So what a receiver goes on with is written once more, the same bytes in the same places.
 */
function writeAgain(file: OpenFile, sizeBytes: number): void {
  const part = new Uint8Array(Math.min(sizeBytes, chunkBytesMax));
  for (let at = 0; at < sizeBytes;) {
    const read = file.pread(part.subarray(0, Math.min(part.length, sizeBytes - at)), at);
    invariant(read > 0, "a spool does not shrink while it is read", { at, sizeBytes });
    file.pwrite(part.subarray(0, read), at);
    at += read;
  }
}

/** @returns undefined if no whole block of sensible size can be at `at` */
function readBlockHeader(file: OpenFile, at: number, sizeBytes: number): ReturnType<typeof decodeBlockHeader> {
  const bytes = new Uint8Array(blockHeaderBytes);
  if (file.pread(bytes, at) < blockHeaderBytes) return undefined;
  const header = decodeBlockHeader(bytes);
  if (header === undefined || header.payloadBytes > chunkBytesMax) return undefined;
  return at + blockBytes(header.payloadBytes) > sizeBytes ? undefined : header;
}

/** The opened payload of the block at `at`, or undefined if CRC or seal do not fit. */
function readBlock(
  owner: SnapshotFiles,
  file: OpenFile,
  at: number,
  header: FileHeader,
  key: Uint8Array,
): Uint8Array | undefined {
  const found = readBlockHeader(file, at, Number.POSITIVE_INFINITY);
  if (found === undefined) return undefined;
  const block = new Uint8Array(blockBytes(found.payloadBytes));
  if (file.pread(block, at) < block.length || crcOfBlock(block) !== found.crc) return undefined;
  const payload = block.subarray(blockHeaderBytes, block.length - tagBytes);
  const nonce = nonceOf(found.isEnd ? found.number + 2 ** 40 : found.number + 1);
  const tag = block.subarray(block.length - tagBytes);
  return owner.options.cipher.open(key, nonce, associateBlock(header, block), payload, tag) ? payload : undefined;
}
