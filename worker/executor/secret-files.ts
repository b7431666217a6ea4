/**
 * Secrets and configs of tasks as files of a tmpfs that is this room's own: DIRECTORY/TASK/N. They never reach a disk (the
 * tmpfs is not swapped out where the kernel can promise that, Linux 6.4), and go when the task has ended. The tmpfs is
 * mounted when the first one comes and unmounted a while after the last one went, so that a node without secrets has none.
 */
import { chmod, chown, mkdir, readdir, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

import { isId } from "../../lib/pure/id.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { SecretsStoreFailed } from "./errors.ts";

export interface SecretFile {
  readonly bytes: Uint8Array;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

/** An update replaces a task by the next one: in between the tmpfs stays, since mounting takes a program. */
const lingerMs = 10_000;
/** statfs(2). */
const tmpfsMagic = 0x01021994;

export class SecretFiles implements AsyncDisposable {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** One act at a time: nothing is written while the tmpfs is being unmounted. */
  #turn: Promise<unknown> = Promise.resolve();
  #linger: Timer | undefined;

  private constructor(directory: string, clock: Clock, logger: Logger) {
    this.#directory = directory;
    this.#clock = clock;
    this.#logger = logger;
  }

  /**
   * Takes up what a daemon before left, which may have been killed at any moment.
   * @param isNeeded  whether the task's container runs; the files of all others are removed
   */
  static async open(
    directory: string,
    about: { readonly isNeeded: (taskId: string) => boolean; readonly clock: Clock; readonly logger: Logger },
  ): Promise<SecretFiles> {
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      await chmod(directory, 0o700);
    } catch (error) {
      throw new SecretsStoreFailed("keep secrets in memory", `there is no folder ${directory}`, error);
    }
    const files = new SecretFiles(directory, about.clock, about.logger);
    for (const taskId of await files.tasks()) if (!about.isNeeded(taskId)) await files.#erase(taskId);
    await files.#unmountIfEmpty();
    return files;
  }

  /** Tasks that have files here. */
  async tasks(): Promise<string[]> {
    return (await readdir(this.#directory)).filter(isId);
  }

  /** Writes the files of a task, each whole or not at all. @returns their paths, in order @throws SecretsStoreFailed */
  async write(taskId: string, files: readonly SecretFile[]): Promise<string[]> {
    if (files.length === 0) return [];
    return this.#inTurn(async () => {
      // Asked each time: what somebody else unmounted would be a folder on a disk.
      if (!(await isTmpfs(this.#directory))) await mountTmpfs(this.#directory);
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
    });
  }

  /** Removing what is gone is fine. */
  async remove(taskId: string): Promise<void> {
    await this.#inTurn(async () => {
      if (!(await exists(join(this.#directory, taskId)))) return;
      await this.#erase(taskId);
      this.#linger?.cancel();
      this.#linger = this.#clock.after(lingerMs, () => void this.#inTurn(() => this.#unmountIfEmpty()));
    });
  }

  /** Files of tasks that run stay, and so does the tmpfs below them. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#linger?.cancel();
    await this.#inTurn(() => this.#unmountIfEmpty());
  }

  async #erase(taskId: string): Promise<void> {
    await rm(join(this.#directory, taskId), { recursive: true, force: true });
  }

  async #unmountIfEmpty(): Promise<void> {
    try {
      // Mounted twice by two daemons that did not know of each other: as often as there is something to unmount.
      while ((await isTmpfs(this.#directory)) && (await readdir(this.#directory)).length === 0)
        await promisify(execFile)("umount", [this.#directory]);
    } catch (error) {
      // An empty one does no harm: somebody's shell stands in it, say.
      this.#logger.warn("the tmpfs of secrets is still mounted", { error });
    }
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(act);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Whether a tmpfs is mounted at this very place, and not only somewhere above it. */
async function isTmpfs(directory: string): Promise<boolean> {
  const [here, above, { type }] = await Promise.all([stat(directory), stat(dirname(directory)), statfs(directory)]);
  return here.dev !== above.dev && type === tmpfsMagic;
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
