/** Files of keys: errors of the disk told as ones of the file that they are about. */
import { errnoOf } from "../../../lib/runtime/file-system.ts";
import { KeyFileDamaged, KeyFileUnusable } from "./errors.ts";

/** @throws KeyFileUnusable, KeyFileDamaged, and what `run` throws besides */
export function onDisk<T>(act: string, path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (errnoOf(error) === "EFBIG") throw new KeyFileDamaged(path, "it is larger than any key file");
    if (errnoOf(error) !== undefined) throw new KeyFileUnusable(act, path, error);
    throw error;
  }
}
