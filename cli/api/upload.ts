/** A file to send: opened before the request is, so that a missing one is told as that. */
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { CommandError } from "../errors.ts";

export async function openUpload(path: string): Promise<Readable> {
  try {
    return (await open(path)).createReadStream();
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    const words: Readonly<Record<string, string>> = {
      ENOENT: "no such file or directory",
      EACCES: "permission denied",
      EISDIR: "is a directory",
    };
    throw new CommandError(`open ${path}: ${words[code] ?? code}`);
  }
}
