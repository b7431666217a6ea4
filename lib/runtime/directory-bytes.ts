/** What a directory holds. */
import { lstat, opendir } from "node:fs/promises";
import { join } from "node:path";

/** Bytes of all files below, as du(1) counts apparent sizes; hard links are counted each time. What goes meanwhile counts 0. */
export async function directoryBytes(path: string): Promise<number> {
  let bytes = 0;
  const folders = [path];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    const entries = await opendir(folder).catch(() => undefined); // gone by now
    if (entries === undefined) continue;
    for await (const entry of entries) {
      const inner = join(folder, entry.name);
      if (entry.isDirectory()) folders.push(inner);
      else if (entry.isFile()) bytes += (await lstat(inner).catch(() => undefined))?.size ?? 0;
    }
  }
  return bytes;
}
