/**
 * Reads a container's framed log files: history, tail, time window, follow through rotations. It only reads files, so a slow
 * reader slows nobody; one that is so slow that its file was rotated away is told how it goes on.
 */
import { watch, type FSWatcher } from "node:fs";
import { open, readdir, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { type Clock } from "../../lib/runtime/index.ts";
import { FrameSplitter, LineJoiner, type LogFrame, type LogLine } from "./core/log-frames.ts";

const chunkBytes = 256 * 1024;
/** Looked at even without a notice: inotify may be out of watches. */
const pollMs = 500;
const listTriesMax = 50;

export interface LogOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Undefined: all. */
  readonly tail?: number;
  /** Nanoseconds since the epoch. */
  readonly sinceNs?: bigint;
  readonly untilNs?: bigint;
  readonly follow: boolean;
}

export interface LogSource {
  /** The current file; older ones have `.1`, `.2`, ... after its name. */
  readonly path: string;
  /** Resolves when nothing more will be written. */
  readonly ended: Promise<void>;
  readonly clock: Clock;
}

interface LogFileName {
  readonly path: string;
  readonly inode: bigint;
}

/** Files of a log, oldest first. A rotation in the middle of a listing shows a file twice or not at all: then once more. */
async function listFiles(path: string): Promise<LogFileName[]> {
  let before = await listOnce(path);
  for (let i = 0; i < listTriesMax; i++) {
    const after = await listOnce(path);
    if (after.length === before.length && after.every(({ inode }, at) => inode === before[at]?.inode)) break;
    before = after;
  }
  return before;
}

async function listOnce(path: string): Promise<LogFileName[]> {
  const name = basename(path);
  const names = await readdir(dirname(path)).catch(() => [] as string[]);
  const numbers = names
    .filter(
      (entry) => entry === name || (entry.startsWith(`${name}.`) && /^[0-9]+$/.test(entry.slice(name.length + 1))),
    )
    .map((entry) => (entry === name ? 0 : Number(entry.slice(name.length + 1))))
    .sort((a, b) => b - a);
  const files: LogFileName[] = [];
  for (const number of numbers) {
    const file = number === 0 ? path : join(dirname(path), `${name}.${number}`);
    const found = await stat(file, { bigint: true }).catch(() => undefined);
    if (found !== undefined) files.push({ path: file, inode: found.ino });
  }
  return files;
}

class Cursor {
  readonly splitter = new FrameSplitter();
  readonly joiner = new LineJoiner();
  handle: FileHandle | undefined;
  inode = 0n;
  position = 0;

  async openFile(path: string): Promise<boolean> {
    await this.close();
    this.splitter.reset();
    this.handle = await open(path, "r").catch(() => undefined);
    if (this.handle === undefined) return false;
    this.inode = (await this.handle.stat({ bigint: true })).ino;
    this.position = 0;
    return true;
  }

  /** The next frames; undefined at the end of the file as it is now. */
  async read(): Promise<LogFrame[] | undefined> {
    const buffer = Buffer.allocUnsafe(chunkBytes);
    const { bytesRead } = (await this.handle?.read(buffer, 0, chunkBytes, this.position)) ?? { bytesRead: 0 };
    if (bytesRead === 0) return undefined;
    this.position += bytesRead;
    return this.splitter.push(buffer.subarray(0, bytesRead));
  }

  join(frames: readonly LogFrame[]): LogLine[] {
    return frames.flatMap((frame) => this.joiner.push(frame));
  }

  async close(): Promise<void> {
    await this.handle?.close();
    this.handle = undefined;
  }
}

function wants(options: LogOptions, line: LogLine): boolean {
  if (line.stream === "stdout" ? !options.stdout : line.stream === "stderr" ? !options.stderr : true) return false;
  if (options.sinceNs !== undefined && line.timeNs < options.sinceNs) return false;
  return options.untilNs === undefined || line.timeNs <= options.untilNs;
}

/**
 * Moves to the file after the cursor's; undefined when it is the current one already. Gives the frames that were written to the
 * old file after it had been read and before it was rotated: only now is it certain that no more will come.
 */
async function nextFile(cursor: Cursor, path: string): Promise<LogFrame[] | undefined> {
  const files = await listFiles(path);
  const at = files.findIndex(({ inode }) => inode === cursor.inode);
  // Not in the list: it was rotated out while we read it, and the oldest that is left comes next.
  const next = files[at + 1];
  if (next === undefined) return undefined;
  const rest: LogFrame[] = [];
  for (let frames = await cursor.read(); frames !== undefined; frames = await cursor.read()) rest.push(...frames);
  await openListed(cursor, path, next);
  return rest;
}

/** Opens a file of a listing by its inode: its name may be another file's by now. If it was rotated out, the oldest that is left. */
async function openListed(cursor: Cursor, path: string, wanted: LogFileName): Promise<void> {
  for (let tries = 0, file: LogFileName | undefined = wanted; tries < listTriesMax && file !== undefined; tries++) {
    if ((await cursor.openFile(file.path)) && cursor.inode === file.inode) return;
    const files: LogFileName[] = await listFiles(path);
    file = files.find(({ inode }) => inode === wanted.inode) ?? files[0];
  }
}

async function openOldest(cursor: Cursor, path: string): Promise<void> {
  const [oldest] = await listFiles(path);
  if (oldest !== undefined) await openListed(cursor, path, oldest);
}

/** Frames that are stored after a moment, to the end of the log as it is. For who has had everything up to then. */
export async function* readFramesAfter(path: string, timeNs: bigint): AsyncGenerator<LogFrame, void, undefined> {
  const cursor = new Cursor();
  try {
    await openOldest(cursor, path);
    while (cursor.handle !== undefined) {
      const frames = (await cursor.read()) ?? (await nextFile(cursor, path));
      if (frames === undefined) break;
      yield* frames.filter((frame) => frame.timeNs > timeNs);
    }
  } finally {
    await cursor.close();
  }
}

/** Lines in order. Ends after the last one, or with `follow` when nothing more will come. */
export async function* readLog(
  source: LogSource,
  options: LogOptions,
  signal: AbortSignal,
): AsyncGenerator<LogLine, void, undefined> {
  const cursor = new Cursor();
  try {
    const bounded = options.tail !== undefined;
    let kept: LogLine[] = [];
    const tail = options.tail ?? 0;
    await openOldest(cursor, source.path);
    while (cursor.handle !== undefined) {
      signal.throwIfAborted();
      const frames = (await cursor.read()) ?? (await nextFile(cursor, source.path));
      if (frames === undefined) break;
      for (const line of cursor.join(frames)) {
        if (!wants(options, line)) continue;
        if (bounded) kept.push(line);
        else yield line;
      }
      // Cut in batches: cutting for each line would copy the array each time.
      if (bounded && kept.length > 2 * tail + 1024) kept = tail === 0 ? [] : kept.slice(-tail);
    }
    if (!options.follow) {
      const rest = cursor.joiner.flush().filter((line) => wants(options, line));
      yield* bounded ? (tail === 0 ? [] : [...kept, ...rest].slice(-tail)) : rest;
      return;
    }
    if (bounded && tail > 0) yield* kept.slice(-tail);
    kept = [];
    yield* follow(source, cursor, options, signal);
  } finally {
    await cursor.close();
  }
}

async function* follow(
  source: LogSource,
  cursor: Cursor,
  options: LogOptions,
  signal: AbortSignal,
): AsyncGenerator<LogLine, void, undefined> {
  const notice = new Notice(source, signal);
  try {
    for (;;) {
      signal.throwIfAborted();
      const over = notice.ended;
      const frames =
        (cursor.handle === undefined ? undefined : await cursor.read()) ?? (await nextFile(cursor, source.path));
      if (frames !== undefined) {
        for (const line of cursor.join(frames)) {
          if (options.untilNs !== undefined && line.timeNs > options.untilNs) return;
          if (wants(options, line)) yield line;
        }
        continue;
      }
      // Asked before the last read: what was written before the end has been read by now.
      if (over) break;
      await notice.wait();
    }
    yield* cursor.joiner.flush().filter((line) => wants(options, line));
  } finally {
    notice.close();
  }
}

/** Undefined where inotify has no watch left: polling goes on without it. */
function watched(directory: string, ring: () => void): FSWatcher | undefined {
  try {
    return watch(directory, { persistent: false }, ring).on("error", () => undefined);
  } catch {
    return undefined;
  }
}

/** Wakes when the log's folder changes, when nothing more will come, now and then, and on abort. */
class Notice {
  ended = false;
  #wake: (() => void) | undefined;
  #pending = false;
  readonly #close: () => void;

  constructor(source: LogSource, signal: AbortSignal) {
    const ring = (): void => {
      this.#pending = true;
      this.#wake?.();
    };
    const watcher = watched(dirname(source.path), ring);
    const timer = source.clock.every(pollMs, ring);
    signal.addEventListener("abort", ring, { once: true });
    void source.ended.then(() => {
      this.ended = true;
      ring();
    });
    this.#close = () => {
      watcher?.close();
      timer.cancel();
      signal.removeEventListener("abort", ring);
    };
  }

  async wait(): Promise<void> {
    if (!this.#pending) await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#pending = false;
    this.#wake = undefined;
  }

  close(): void {
    this.#close();
  }
}
