/** Volumes that are directories of this host. The volume room may take its place through the same interface. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

export interface VolumeProvider {
  /** Host path of a volume, made if it is new. */
  path(name: string): Promise<string>;
  /** Removing one that is gone is fine. */
  remove(name: string): Promise<void>;
}

export class DirectoryVolumes implements VolumeProvider {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async path(name: string): Promise<string> {
    const path = join(this.#directory, name, "_data");
    await mkdir(path, { recursive: true });
    return path;
  }

  async remove(name: string): Promise<void> {
    await rm(join(this.#directory, name), { recursive: true, force: true });
  }
}
