/** Where root filesystems come from. `worker/images` implements it over layers; a directory is enough to try things by hand. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { Readable } from "node:stream";

import { ContainerConfigInvalid } from "./errors.ts";
import { streamProgram } from "./programs.ts";
import type { ContainerId, ImageConfig } from "./core/types.ts";

export interface PreparedRootfs {
  readonly imageId: string;
  /** Read-only directories, the topmost first; not empty. */
  readonly lowerDirectories: readonly string[];
  readonly config: ImageConfig;
  /** Settles when it is on disk that the container keeps them. */
  readonly written: Promise<void>;
}

export interface CommitRequest {
  /** The container's changes as a layer: a tar with whiteouts. */
  readonly layer: Readable;
  readonly parentImage: string;
  readonly config: ImageConfig;
  readonly author: string;
  readonly comment: string;
}

export interface RootfsProvider {
  /** The layers of an image, kept from now on for this container. Asking twice for one container is fine. */
  prepare(containerId: ContainerId, image: string): Promise<PreparedRootfs>;
  /** The container is gone. Releasing twice is fine. */
  release(containerId: ContainerId): Promise<void>;
  /** When the worker starts: these containers keep these images, and nobody else does. */
  keep(images: ReadonlyMap<ContainerId, string>): Promise<void>;
  /** Makes an image of a container's changes; its id. */
  commit(request: CommitRequest): Promise<string>;
}

/** Images that are directories: NAME/rootfs and, if there is one, NAME/config.json and NAME/parent. For trials and tests. */
export class DirectoryRootfs implements RootfsProvider {
  readonly #directory: string;
  readonly #archive: string;
  #commits = 0;

  constructor(directory: string, archiveProgram: string) {
    this.#directory = directory;
    this.#archive = archiveProgram;
  }

  async prepare(_containerId: ContainerId, image: string): Promise<PreparedRootfs> {
    if (!/^[a-zA-Z0-9_-]+$/.test(image)) throw new ContainerConfigInvalid(`no such image: ${image}`);
    const text = await readFile(join(this.#directory, image, "config.json"), "utf8").catch(() => undefined);
    const parent = await readFile(join(this.#directory, image, "parent"), "utf8").catch(() => undefined);
    await readFile(join(this.#directory, image, "rootfs", ".")).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EISDIR") throw new ContainerConfigInvalid(`no such image: ${image}`);
    });
    const below = parent === undefined ? [] : (await this.prepare(_containerId, parent)).lowerDirectories;
    return {
      imageId: image,
      lowerDirectories: [join(this.#directory, image, "rootfs"), ...below],
      config: text === undefined ? {} : (JSON.parse(text) as ImageConfig),
      written: Promise.resolve(),
    };
  }

  async release(): Promise<void> {}

  async keep(): Promise<void> {}

  async commit(request: CommitRequest): Promise<string> {
    const image = `commit-${process.pid}-${++this.#commits}`;
    const directory = join(this.#directory, image);
    await mkdir(join(directory, "rootfs"), { recursive: true });
    const args = ["unpack", "--root", join(directory, "rootfs"), "--layer"];
    const unpack = streamProgram(
      this.#archive,
      args,
      (stderr) => new ContainerConfigInvalid(`the layer cannot be unpacked: ${stderr}`),
    );
    unpack.stdout.resume();
    await pipeline(request.layer, unpack.stdin);
    await unpack.done;
    await writeFile(join(directory, "config.json"), JSON.stringify(request.config));
    await writeFile(join(directory, "parent"), request.parentImage);
    return image;
  }
}
