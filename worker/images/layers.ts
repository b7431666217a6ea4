/**
 * Layers: unpacked once each, read-only, by chain id; a container's file system stacks them as overlay lower directories.
 * Unpacking is done by the native `archive` program, confined to a staging directory that gets its name only when the
 * tar's digest is the one that the image's configuration promises.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { renameSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough, type Readable, Transform, type TransformCallback } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { withStreams } from "../../lib/runtime/index.ts";
import { isErrno, syncFolder } from "./blobs.ts";
import { DiskFull, ImageContentInvalid, ImageTooLarge } from "./core/errors.ts";
import { type Digest, digestHex } from "./core/reference.ts";

export interface LayerLimits {
  /** Of one layer's tar, unpacked. */
  readonly layerBytesMax: number;
  readonly layerEntriesMax: number;
  /** Unpacking stops while the file system still has this much free. */
  readonly reserveBytes: number;
}

export const defaultLayerLimits: LayerLimits = {
  layerBytesMax: 256 * 1024 ** 3,
  layerEntriesMax: 2_000_000,
  reserveBytes: 256 * 1024 ** 2,
};

/** What the archive program says of what it did. */
interface UnpackReport {
  readonly entries: number;
  readonly bytes: number;
}

export class LayerStore {
  readonly #folder: string;
  readonly #program: string;
  readonly #limits: LayerLimits;
  #stagingCount = 0;

  /** @param program  path of native/build/archive */
  constructor(folder: string, program: string, limits: LayerLimits) {
    this.#folder = join(folder, "layers");
    this.#program = program;
    this.#limits = limits;
  }

  async open(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    for (const name of await readdir(this.#folder)) {
      if (/^[0-9a-f]{64}$/.test(name)) continue;
      // What unpacked it may outlive the daemon that started it by what its pipe still held.
      await rm(join(this.#folder, name), { recursive: true, force: true, maxRetries: 20, retryDelay: 20 });
    }
  }

  /** The overlay lower directory of a chain id. */
  path(chainId: Digest): string {
    return join(this.#folder, digestHex(chainId), "fs");
  }

  async has(chainId: Digest): Promise<boolean> {
    try {
      return (await stat(this.path(chainId))).isDirectory();
    } catch (error) {
      if (isErrno(error, "ENOENT")) return false;
      throw error;
    }
  }

  async list(): Promise<readonly Digest[]> {
    return (await readdir(this.#folder)).filter((name) => /^[0-9a-f]{64}$/.test(name)).map((hex) => `sha256:${hex}`);
  }

  /**
   * Renamed at once, so that nothing can come between the collector's look and its deed, and a crash in the middle of
   * removing leaves rubbish with a name that `open()` removes, never half a layer.
   */
  async remove(chainId: Digest): Promise<void> {
    const trash = join(this.#folder, `trash-${this.#stagingCount++}-${digestHex(chainId)}`);
    try {
      renameSync(join(this.#folder, digestHex(chainId)), trash);
    } catch (error) {
      if (isErrno(error, "ENOENT")) return;
      throw error;
    }
    await rm(trash, { recursive: true, force: true });
  }

  /**
   * Unpacks a layer.
   * @param source    the layer as stored, compressed as `compression` says
   * @param diffId    digest of the uncompressed tar, as the image's configuration promises it
   * @returns         bytes of its files, holes not counted
   * @throws          ImageContentInvalid, ImageTooLarge, DiskFull; nothing is left behind then
   */
  async unpack(
    chainId: Digest,
    source: Readable,
    compression: "none" | "gzip" | "zstd",
    diffId: Digest,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const staging = join(this.#folder, `staging-${this.#stagingCount++}`);
    const root = join(staging, "fs");
    await mkdir(root, { recursive: true, mode: 0o755 });
    try {
      const found = await this.#run(root, source, compression, signal);
      if (found.diffId !== diffId)
        throw new ImageContentInvalid(`layer ${diffId}`, `its unpacked digest is ${found.diffId}`);
      await syncFolder(staging);
      await this.#publish(staging, chainId);
      return found.report.bytes;
    } catch (error) {
      await rm(staging, { recursive: true, force: true });
      throw error;
    }
  }

  async #publish(staging: string, chainId: Digest): Promise<void> {
    try {
      await rename(staging, join(this.#folder, digestHex(chainId)));
    } catch (error) {
      // Another pull of the same layer was quicker; equal digests mean equal content.
      if (!isErrno(error, "ENOTEMPTY") && !isErrno(error, "EEXIST")) throw error;
      await rm(staging, { recursive: true, force: true });
    }
    await syncFolder(this.#folder);
  }

  async #run(
    root: string,
    source: Readable,
    compression: "none" | "gzip" | "zstd",
    signal: AbortSignal | undefined,
  ): Promise<{ diffId: Digest; report: UnpackReport }> {
    const limits = this.#limits;
    const bounds = ["--max-bytes", limits.layerBytesMax, "--max-entries", limits.layerEntriesMax];
    const args = ["unpack", "--layer", "--sync", "--root", root, ...bounds, "--reserve-bytes", limits.reserveBytes];
    const child = withStreams(spawn(this.#program, args.map(String), { stdio: ["pipe", "pipe", "pipe"], env: {} }));
    const output = collect(child.stdout, 4096);
    const errors = collect(child.stderr, 64 * 1024);
    const exited = new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, killedBy) => resolve(code ?? (killedBy === null ? 1 : 128)));
    });
    const hash = createHash("sha256");
    const tap = new Transform({
      transform(chunk: Uint8Array, _encoding: BufferEncoding, done: TransformCallback): void {
        hash.update(chunk);
        done(null, chunk);
      },
    });
    let broken: unknown;
    try {
      await pipeline(source, decompressor(compression), tap, child.stdin, signal === undefined ? {} : { signal });
    } catch (error) {
      broken = error;
      if (!isChildGone(error, source)) child.kill("SIGKILL");
    }
    const code = await exited;
    if (broken !== undefined && !isChildGone(broken, source)) {
      signal?.throwIfAborted();
      if (isZlibError(broken))
        throw new ImageContentInvalid("an image layer", "its compressed data are damaged", broken);
      throw broken;
    }
    if (code !== 0) throw unpackError(await errors, code);
    return { diffId: `sha256:${hash.digest("hex")}`, report: JSON.parse(await output) as UnpackReport };
  }
}

function decompressor(compression: "none" | "gzip" | "zstd"): Transform {
  switch (compression) {
    case "none":
      return new PassThrough();
    case "gzip":
      return createGunzip({ chunkSize: 128 * 1024 });
    case "zstd":
      return createZstdDecompress();
  }
}

/**
 * When the child gave up, what it says is the cause, and that its standard input is gone the consequence: a broken pipe, or,
 * if nothing was being written just then, a stream that closed early. One that `source` did not close by itself.
 */
function isChildGone(error: unknown, source: Readable): boolean {
  if (isErrno(error, "EPIPE")) return true;
  const closedBySource = source.destroyed && source.errored === null && !source.readableEnded;
  return isErrno(error, "ERR_STREAM_PREMATURE_CLOSE") && !closedBySource;
}

function isZlibError(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return typeof code === "string" && (code.startsWith("Z_") || code.startsWith("ZSTD_"));
}

/** The archive program's last word: one JSON line {code, message}. */
function unpackError(stderr: string, exitCode: number): Error {
  let code = "";
  let message = `the archive program ended with ${exitCode}`;
  try {
    const line = JSON.parse(stderr.trim().split("\n").at(-1) ?? "") as { code?: unknown; message?: unknown };
    if (typeof line.code === "string") code = line.code;
    if (typeof line.message === "string") message = line.message;
  } catch {
    // Killed by its own filter or by the kernel: then there is no line, and the exit code is all there is to say.
  }
  if (code === "TAR_NO_SPACE") return new DiskFull(`unpack an image layer (${message})`);
  if (code === "TAR_TOO_LARGE" || code === "TAR_TOO_MANY") return new ImageTooLarge("an image layer", message);
  return new ImageContentInvalid("an image layer", code === "" ? message : `${message} (${code})`);
}

async function collect(stream: Readable, bytesMax: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    if (size < bytesMax) chunks.push(chunk as Uint8Array);
    size += (chunk as Uint8Array).length;
  }
  return Buffer.concat(chunks).toString("utf8").slice(0, bytesMax);
}
