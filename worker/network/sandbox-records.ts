/**
 * What was decided about each sandbox, one file a sandbox, written whole or not at all. It is written while the kernel builds,
 * and nobody hears of the sandbox before both are done: what is built without a record is nobody's, and is cleared away at
 * the next start. After a power cut a file may be lost, and so is the namespace.
 */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, readdir, readFile, rm, unlink } from "node:fs/promises";
import { join } from "node:path";

import type { Logger } from "../../lib/runtime/index.ts";
import type { SandboxRequest } from "./contract.ts";
import type { SandboxFacts, Self } from "./core/part.ts";

export interface SandboxRecord {
  readonly version: 1;
  readonly request: SandboxRequest;
  readonly facts: SandboxFacts;
}

/** Ids of tasks and of containers. */
export const isSandboxId = (id: string): boolean => /^[0-9a-z]{12,64}$/.test(id);

export class SandboxRecords {
  readonly #directory: string;
  readonly #logger: Logger;

  private constructor(directory: string, logger: Logger) {
    this.#directory = directory;
    this.#logger = logger;
  }

  static async open(directory: string, logger: Logger): Promise<SandboxRecords> {
    await mkdir(join(directory, "sandboxes"), { recursive: true, mode: 0o700 });
    return new SandboxRecords(directory, logger);
  }

  async all(): Promise<SandboxRecord[]> {
    const folder = join(this.#directory, "sandboxes");
    const records: SandboxRecord[] = [];
    for (const name of await readdir(folder)) {
      const record = await this.#read(join(folder, name));
      if (isRecord(record) && `${record.facts.id}.json` === name) records.push(record);
      else await rm(join(folder, name), { force: true });
    }
    return records;
  }

  async put(record: SandboxRecord): Promise<void> {
    this.#write(this.#path(record.facts.id), record);
  }

  async remove(id: string): Promise<void> {
    await unlink(this.#path(id)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  }

  /** This node as it was last told; undefined: never. */
  async self(): Promise<Self | undefined> {
    const found = await this.#read(join(this.#directory, "self.json"));
    return isSelf(found) ? found : undefined;
  }

  async putSelf(self: Self): Promise<void> {
    this.#write(join(this.#directory, "self.json"), self);
  }

  #path(id: string): string {
    return join(this.#directory, "sandboxes", `${id}.json`);
  }

  /** At once: a small file that is not synced, and four trips to the thread pool cost more than the calls. */
  #write(path: string, value: unknown): void {
    try {
      writeFileSync(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
      renameSync(`${path}.new`, path);
    } catch (error) {
      // On a disk that is full an empty one would stay until the next start.
      rmSync(`${path}.new`, { force: true });
      throw error;
    }
  }

  async #read(path: string): Promise<unknown> {
    try {
      return JSON.parse(await readFile(path, "utf8"));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
        this.#logger.warn("a network record cannot be read and is dropped", { path, error });
      }
      return undefined;
    }
  }
}

/** Ours and no stranger's: what is checked is that it was written by this version and is whole. */
function isRecord(value: unknown): value is SandboxRecord {
  const record = value as Partial<SandboxRecord> | undefined;
  return (
    record?.version === 1 &&
    typeof record.facts?.id === "string" &&
    isSandboxId(record.facts.id) &&
    Array.isArray(record.facts.overlays) &&
    Array.isArray(record.facts.bridges) &&
    Array.isArray(record.request?.networks)
  );
}

function isSelf(value: unknown): value is Self {
  const self = value as Partial<Self> | undefined;
  return typeof self?.nodeId === "string" && Number.isInteger(self.number) && typeof self.addr === "string";
}
