import { lstatSync, rmSync } from "node:fs";

const triesMax = 100;

/**
 * Removes a folder with all below it; fine if there is none. For folders from which others remove at the same time: Node's
 * `rmSync` stops without a word at a file that was gone before its turn, and leaves the rest (24.21; its `rm` does not).
 * Throws Node's errors; ENOTEMPTY when somebody goes on making files there.
 */
export function removeFolder(path: string): void {
  for (let tries = 0; tries < triesMax; tries++) {
    rmSync(path, { recursive: true, force: true });
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return;
  }
  throw Object.assign(new Error(`ENOTEMPTY: others go on making files, remove '${path}'`), { code: "ENOTEMPTY" });
}
