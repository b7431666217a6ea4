/**
 * Content-addressed blobs: a file named after the digest of its bytes. A blob exists whole or not at all: bytes gather
 * in `ingest/`, are checked against digest and size, made durable, and only then get their name.
 */
import { createHash } from "node:crypto";
import { createReadStream, type ReadStream, rmSync, statSync } from "node:fs";
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { DiskFull, ImageContentInvalid, ImageTooLarge } from "./core/errors.ts";
import { type Digest, digestHex } from "./core/reference.ts";

export interface BlobInfo {
  readonly digest: Digest;
  readonly size: number;
}

export class BlobStore {
  readonly #blobs: string;
  readonly #ingest: string;
  #ingestCount = 0;

  constructor(folder: string) {
    this.#blobs = join(folder, "blobs", "sha256");
    this.#ingest = join(folder, "ingest");
  }

  /** Partial downloads are named after their digest and stay, so that they can go on; everything else unfinished goes. */
  async open(): Promise<void> {
    await mkdir(this.#blobs, { recursive: true, mode: 0o700 });
    await mkdir(this.#ingest, { recursive: true, mode: 0o700 });
    for (const name of await readdir(this.#ingest)) {
      if (!/^sha256-[0-9a-f]{64}\.part$/.test(name)) await rm(join(this.#ingest, name), { force: true });
    }
  }

  path(digest: Digest): string {
    return join(this.#blobs, digestHex(digest));
  }

  /** Size in bytes, or undefined when the blob is not here. */
  async size(digest: Digest): Promise<number | undefined> {
    try {
      return (await stat(this.path(digest))).size;
    } catch (error) {
      if (isErrno(error, "ENOENT")) return undefined;
      throw error;
    }
  }

  /** The whole blob, for documents. Its digest is checked again, since disks lie. */
  async read(digest: Digest, bytesMax: number): Promise<Uint8Array> {
    const size = await this.size(digest);
    if (size === undefined) throw new ImageContentInvalid(`blob ${digest}`, "it is missing from this node");
    if (size > bytesMax)
      throw new ImageContentInvalid(`blob ${digest}`, `it has ${size} bytes, at most ${bytesMax} are read`);
    const bytes = await readFile(this.path(digest));
    const found = sha256(bytes);
    if (found !== digest)
      throw new ImageContentInvalid(`blob ${digest}`, `its bytes have digest ${found}: the disk is damaged`);
    return bytes;
  }

  stream(digest: Digest): ReadStream {
    return createReadStream(this.path(digest), { highWaterMark: 256 * 1024 });
  }

  async list(): Promise<readonly Digest[]> {
    return (await readdir(this.#blobs)).filter((name) => /^[0-9a-f]{64}$/.test(name)).map((hex) => `sha256:${hex}`);
  }

  /** At once, so that nothing can come between the collector's look and its deed. @returns bytes given back */
  removeNow(digest: Digest): number {
    const size = statSync(this.path(digest), { throwIfNoEntry: false })?.size ?? 0;
    rmSync(this.path(digest), { force: true });
    return size;
  }

  /** Keeps bytes whose digest nobody has promised. */
  async write(bytes: Uint8Array): Promise<BlobInfo> {
    const ingest = await this.ingest();
    try {
      await ingest.append(bytes);
      return await ingest.finish();
    } finally {
      await ingest.discard();
    }
  }

  /** Keeps a stream of unknown digest, at most `bytesMax` long. */
  async writeStream(source: Readable | AsyncIterable<Uint8Array>, bytesMax: number): Promise<BlobInfo> {
    const ingest = await this.ingest();
    try {
      for await (const chunk of source) {
        if (ingest.size + (chunk as Uint8Array).length > bytesMax) {
          throw new ImageTooLarge("a file of an image", `it has more than ${bytesMax} bytes`);
        }
        await ingest.append(chunk as Uint8Array);
      }
      return await ingest.finish();
    } finally {
      await ingest.discard();
    }
  }

  /**
   * A place to gather bytes in. With a digest it goes on where the last attempt ended; whoever asks for one makes sure
   * that nobody else gathers the same blob (`ImageContentStore.fetchOnce`).
   */
  async ingest(expected?: BlobInfo): Promise<Ingest> {
    const name = expected === undefined ? `new-${this.#ingestCount++}` : `sha256-${digestHex(expected.digest)}.part`;
    const path = join(this.#ingest, name);
    const file = await open(path, expected === undefined ? "wx+" : "a+", 0o600);
    const hash = createHash("sha256");
    let size = 0;
    try {
      if (expected !== undefined) {
        for await (const chunk of createReadStream(path)) {
          hash.update(chunk as Uint8Array);
          size += (chunk as Uint8Array).length;
        }
      }
    } catch (error) {
      await file.close();
      throw error;
    }
    const ingest = new Ingest(file, path, (digest) => this.path(digest), this.#blobs, expected, hash, size);
    if (expected !== undefined && size > expected.size) await ingest.restart();
    return ingest;
  }

  /** Forgets partial downloads, for the collector. @returns bytes given back */
  async removePartials(isNeeded: (digest: Digest) => boolean): Promise<number> {
    let removedBytes = 0;
    for (const name of await readdir(this.#ingest)) {
      const match = /^sha256-([0-9a-f]{64})\.part$/.exec(name);
      if (match === null || isNeeded(`sha256:${match[1]}`)) continue;
      const path = join(this.#ingest, name);
      removedBytes += statSync(path, { throwIfNoEntry: false })?.size ?? 0;
      rmSync(path, { force: true });
    }
    return removedBytes;
  }
}

/** Bytes on their way to become a blob. Always end it with `discard()`, which does nothing after `finish()`. */
export class Ingest {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #target: (digest: Digest) => string;
  readonly #folder: string;
  readonly #expected: BlobInfo | undefined;
  #hash: ReturnType<typeof createHash>;
  #size: number;
  #open = true;

  constructor(
    file: FileHandle,
    path: string,
    target: (digest: Digest) => string,
    folder: string,
    expected: BlobInfo | undefined,
    hash: ReturnType<typeof createHash>,
    size: number,
  ) {
    this.#file = file;
    this.#path = path;
    this.#target = target;
    this.#folder = folder;
    this.#expected = expected;
    this.#hash = hash;
    this.#size = size;
  }

  /** Bytes gathered so far: where a resumed download goes on. */
  get size(): number {
    return this.#size;
  }

  async append(chunk: Uint8Array): Promise<void> {
    if (this.#expected !== undefined && this.#size + chunk.length > this.#expected.size) {
      await this.restart();
      throw new ImageContentInvalid(
        `blob ${this.#expected.digest}`,
        `it is longer than the ${this.#expected.size} bytes promised`,
      );
    }
    this.#hash.update(chunk);
    this.#size += chunk.length;
    let written = 0;
    while (written < chunk.length) {
      try {
        written += (await this.#file.write(chunk, written)).bytesWritten;
      } catch (error) {
        if (isErrno(error, "ENOSPC") || isErrno(error, "EDQUOT")) throw new DiskFull("keep a blob", { cause: error });
        throw error;
      }
    }
  }

  /** Starts over: the source cannot go on in the middle, or what is here is wrong. */
  async restart(): Promise<void> {
    await this.#file.truncate(0);
    this.#hash = createHash("sha256");
    this.#size = 0;
  }

  /** Checks, makes durable, and gives the blob its name. @throws ImageContentInvalid, and what was gathered is dropped */
  async finish(): Promise<BlobInfo> {
    const digest: Digest = `sha256:${this.#hash.copy().digest("hex")}`;
    if (this.#expected !== undefined && (digest !== this.#expected.digest || this.#size !== this.#expected.size)) {
      const found = `${this.#size} bytes with digest ${digest}`;
      await this.restart();
      throw new ImageContentInvalid(
        `blob ${this.#expected.digest} of ${this.#expected.size} bytes`,
        `what came is ${found}`,
      );
    }
    await this.#file.datasync();
    await rename(this.#path, this.#target(digest));
    await syncFolder(this.#folder);
    this.#open = false;
    await this.#file.close();
    return { digest, size: this.#size };
  }

  /** A partial download of a known digest stays for the next attempt; anything else goes. */
  async discard(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
    if (this.#expected === undefined || this.#size === 0) await rm(this.#path, { force: true });
  }
}

export function sha256(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

export function isErrno(error: unknown, code: string): boolean {
  return (error as { code?: unknown }).code === code;
}
