/** How long the disk takes for each fdatasync of the log: counted in its thread, where it happens. */
import { performance } from "node:perf_hooks";
import type { FileSystem, OpenFile } from "../../../lib/runtime/file-system.ts";

/** Upper bounds of the buckets, in seconds; one more bucket counts what is above all of them. */
export const syncBoundsSeconds: readonly number[] = [
  0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5,
];

export class SyncTimes {
  /** Not cumulated. */
  readonly counts: number[] = Array.from({ length: syncBoundsSeconds.length + 1 }, () => 0);
  sumMs = 0;

  /** The same files, and each `datasync` of them counted. */
  of(files: FileSystem): FileSystem {
    return { ...files, open: (path, mode) => this.#watched(files.open(path, mode)) };
  }

  #watched(file: OpenFile): OpenFile {
    return {
      pread: (into, position) => file.pread(into, position),
      pwrite: (from, position) => file.pwrite(from, position),
      datasync: () => {
        const startedMs = performance.now();
        file.datasync();
        this.#count(performance.now() - startedMs);
      },
      truncate: (sizeBytes) => file.truncate(sizeBytes),
      allocate: (sizeBytes) => file.allocate(sizeBytes),
      sizeBytes: () => file.sizeBytes(),
      close: () => file.close(),
    };
  }

  #count(tookMs: number): void {
    const at = syncBoundsSeconds.findIndex((bound) => tookMs <= bound * 1_000);
    const bucket = at < 0 ? syncBoundsSeconds.length : at;
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
    this.sumMs += tookMs;
  }
}
