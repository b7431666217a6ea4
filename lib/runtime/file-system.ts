/**
 * The disk as durable code sees it: a small synchronous port, and its implementation on Node.
 * Synchronous because each durable step belongs to one thread that waits for the disk on purpose (a worker thread in
 * production, virtual time in the simulator), and because calls through libuv's pool queue behind any other job there.
 * Errors are Node's: an Error with `code` ("ENOENT", "EIO", "ENOSPC", ...). The fake (test/support/fault-disk.ts) passes
 * the same suite (test/conformance/file-system.ts).
 */
import * as fs from "node:fs";

/**
 * "read": must exist. "write": to read and write, must exist. "create": to read and write, made empty if it exists.
 */
export type OpenMode = "read" | "write" | "create";

export interface OpenFile {
  /** Fills `into` from `position`. @returns bytes read; fewer than asked only at the end of the file */
  pread(into: Uint8Array, position: number): number;
  /** Writes all of `from`, or throws; after an error any part may have been written. */
  pwrite(from: Uint8Array, position: number): void;
  /** Waits until contents and length are durable. After an error nothing written since the last success may be trusted. */
  datasync(): void;
  truncate(sizeBytes: number): void;
  /** Grows the file to `sizeBytes` with zeros that occupy real blocks, so that later writes there need no space. */
  allocate(sizeBytes: number): void;
  sizeBytes(): number;
  /** Closing twice is fine. */
  close(): void;
}

export interface FileSystem {
  open(path: string, mode: OpenMode): OpenFile;
  /** Atomic; replaces `to`. Durable only after `syncDirectory` of the folder (so are creation and unlink). */
  rename(from: string, to: string): void;
  unlink(path: string): void;
  /** Names in the folder, sorted. */
  readdir(path: string): string[];
  /** With all folders above it; fine if it exists. Private to its owner (0700). */
  mkdir(path: string): void;
  syncDirectory(path: string): void;
  /** Space an unprivileged process may still use on the file system of `path`, in bytes. */
  freeBytes(path: string): number;
}

/** The code of a failed call ("EIO"), or undefined if `error` does not come from a file system. */
export function errnoOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" && /^E[A-Z0-9]+$/u.test(code) ? code : undefined;
}

/** What the disk said, for a message: Node's own words name the call and the path. */
export function diskWords(cause: unknown): string {
  return cause instanceof Error && errnoOf(cause) !== undefined
    ? `the disk reported "${cause.message}"`
    : "the disk reported an error";
}

/** The whole content of a file, refused above `bytesMax` before anything is allocated; undefined if there is none. */
export function readWhole(files: FileSystem, path: string, bytesMax: number): Uint8Array | undefined {
  let file: OpenFile;
  try {
    file = files.open(path, "read");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const sizeBytes = file.sizeBytes();
    if (sizeBytes > bytesMax)
      throw Object.assign(new Error(`EFBIG: file too large, read '${path}'`), { code: "EFBIG" });
    const content = new Uint8Array(sizeBytes);
    return content.subarray(0, file.pread(content, 0));
  } finally {
    file.close();
  }
}

/**
 * Replaces a small file atomically and durably: a crash leaves the old content or the new one, whole.
 * @param prepare  called with the new file before it takes the place of the old one, for example to change its owner
 */
export function replaceFile(
  files: FileSystem,
  folder: string,
  name: string,
  content: Uint8Array,
  prepare?: (path: string) => void,
): void {
  const temporary = `${folder}/${name}.tmp`;
  const file = files.open(temporary, "create");
  try {
    file.pwrite(content, 0);
    file.datasync();
  } finally {
    file.close();
  }
  prepare?.(temporary);
  files.rename(temporary, `${folder}/${name}`);
  files.syncDirectory(folder);
}

const zeros = new Uint8Array(1 << 20);

class NodeFile implements OpenFile {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  pread(into: Uint8Array, position: number): number {
    let read = 0;
    while (read < into.length) {
      const step = fs.readSync(this.#fd, into, read, into.length - read, position + read);
      if (step === 0) break;
      read += step;
    }
    return read;
  }

  pwrite(from: Uint8Array, position: number): void {
    let written = 0;
    while (written < from.length) {
      written += fs.writeSync(this.#fd, from, written, from.length - written, position + written);
    }
  }

  datasync(): void {
    fs.fdatasyncSync(this.#fd);
  }

  truncate(sizeBytes: number): void {
    fs.ftruncateSync(this.#fd, sizeBytes);
  }

  allocate(sizeBytes: number): void {
    // Zeros are written rather than fallocated (which Node lacks): an unwritten extent would have to be converted, and
    // the journal waited for, in each later fdatasync.
    for (let at = this.sizeBytes(); at < sizeBytes; at += zeros.length) {
      this.pwrite(zeros.subarray(0, Math.min(zeros.length, sizeBytes - at)), at);
    }
  }

  sizeBytes(): number {
    return fs.fstatSync(this.#fd).size;
  }

  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    fs.closeSync(fd);
  }
}

const openFlags: Readonly<Record<OpenMode, number>> = {
  read: fs.constants.O_RDONLY,
  write: fs.constants.O_RDWR,
  create: fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_TRUNC,
};

/** The real disk. Files are private to their owner (0600). */
export const nodeFileSystem: FileSystem = {
  open: (path, mode) => new NodeFile(fs.openSync(path, openFlags[mode], 0o600)),
  rename: (from, to) => fs.renameSync(from, to),
  unlink: (path) => fs.unlinkSync(path),
  readdir: (path) => fs.readdirSync(path).sort(),
  mkdir: (path) => {
    try {
      fs.mkdirSync(path, { recursive: true, mode: 0o700 });
    } catch (error) {
      // What hinders it (a read-only file system) Node tells as ENOENT when it makes the folders above as well.
      if (errnoOf(error) !== "ENOENT") throw error;
      fs.mkdirSync(path, { mode: 0o700 });
    }
  },
  syncDirectory: (path) => {
    const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  },
  freeBytes: (path) => {
    const { bavail, bsize } = fs.statfsSync(path);
    return bavail * bsize;
  },
};
