/**
 * Secrets and configs of tasks as files of a tmpfs that is this room's own: DIRECTORY/TASK/N. They never reach a disk (the
 * tmpfs is not swapped out where the kernel can promise that, Linux 6.4), and go with the task.
 */
import { chmod, chown, mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

import { isId } from "../../lib/pure/id.ts";
import { SecretsStoreFailed } from "./errors.ts";

export interface SecretFile {
  readonly bytes: Uint8Array;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

export class SecretFiles {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Mounts the tmpfs unless it is there: it outlives the daemon, as the containers do. */
  static async open(directory: string): Promise<SecretFiles> {
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      await chmod(directory, 0o700);
    } catch (error) {
      throw new SecretsStoreFailed("keep secrets in memory", `there is no folder ${directory}`, error);
    }
    if (!(await isTmpfs(directory))) await mountTmpfs(directory);
    return new SecretFiles(directory);
  }

  /** Tasks that have files here. */
  async tasks(): Promise<string[]> {
    return (await readdir(this.#directory)).filter(isId);
  }

  /** Writes the files of a task, each whole or not at all. @returns their paths, in order */
  async write(taskId: string, files: readonly SecretFile[]): Promise<string[]> {
    if (files.length === 0) return [];
    const folder = join(this.#directory, taskId);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const paths: string[] = [];
    for (const [at, { bytes, uid, gid, mode }] of files.entries()) {
      const path = join(folder, String(at));
      paths.push(path);
      // A running container has this very file mounted; it never changes, so one that is there is right.
      if (await exists(path)) continue;
      await writeFile(`${path}.new`, bytes, { mode: 0o600 });
      await chown(`${path}.new`, uid, gid);
      await chmod(`${path}.new`, mode & 0o7777);
      await rename(`${path}.new`, path);
    }
    return paths;
  }

  /** Removing what is gone is fine. */
  async remove(taskId: string): Promise<void> {
    await rm(join(this.#directory, taskId), { recursive: true, force: true });
  }
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Whether a tmpfs is mounted at this very place (proc(5), mountinfo). */
async function isTmpfs(directory: string): Promise<boolean> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  return lines.some((line) => {
    const [before = "", after = ""] = line.split(" - ", 2);
    return before.split(" ")[4] === directory && after.startsWith("tmpfs ");
  });
}

async function mountTmpfs(directory: string): Promise<void> {
  const options = "mode=0700,nosuid,nodev,noexec,size=64m";
  const mount = (more: string): Promise<unknown> =>
    promisify(execFile)("mount", ["-t", "tmpfs", "-o", options + more, "skep-secrets", directory]);
  try {
    await mount(",noswap").catch(() => mount("")); // before Linux 6.4 there is no noswap
  } catch (error) {
    throw new SecretsStoreFailed("keep secrets in memory", `no tmpfs can be mounted at ${directory}`, error);
  }
}
