/** Volumes as containers see them. `worker/volumes` is the real room; directories are enough to try things by hand. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** How a volume shall be if it has to be made. */
export interface VolumeWish {
  readonly containerId: string;
  readonly anonymous: boolean;
  readonly driver: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
}

export interface VolumeProvider {
  /** Host path of a volume, made if it is new. The container refers to it until `release`. */
  path(name: string, wish: VolumeWish): Promise<string>;
  /** A container that was found at the start refers to these. */
  hold(containerId: string, names: readonly string[]): void;
  /** The container is gone; again is fine. */
  release(containerId: string): void;
  /** Before a container starts, and for one that was found running: the volumes have their contents. Again is fine. */
  mount(containerId: string, names: readonly string[]): Promise<void>;
  /** After it ended; again is fine. */
  unmount(containerId: string): Promise<void>;
  /** All containers that were found have been told. */
  settled(): Promise<void>;
  /** Removing one that is gone is fine; one that others use stays. */
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

  hold(): void {}

  release(): void {}

  async mount(): Promise<void> {}

  async unmount(): Promise<void> {}

  async settled(): Promise<void> {}

  async remove(name: string): Promise<void> {
    await rm(join(this.#directory, name), { recursive: true, force: true });
  }
}
