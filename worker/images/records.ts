/** What the node remembers of images, in `level`: images by id, names, layers, and which container uses which image. */
import type { BatchOperation, Level } from "level";
import { LevelWriter } from "../../lib/runtime/index.ts";
import type { Descriptor } from "./core/manifest.ts";
import type { Digest } from "./core/reference.ts";

export interface LayerRecord {
  /** As stored: compressed or not. */
  readonly blob: Descriptor;
  readonly diffId: Digest;
  readonly chainId: Digest;
  /** Bytes of its files. */
  readonly bytes: number;
}

export interface ImageRecord {
  /** Digest of the configuration: the image's id. */
  readonly id: Digest;
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  /** Lowest first. */
  readonly layers: readonly LayerRecord[];
  readonly createdAtMs: number;
  /** When it came to this node. */
  readonly storedAtMs: number;
}

type Database = Level<string, unknown>;
type Operation = BatchOperation<Database, string, unknown>;

interface Use {
  readonly image: Digest;
  /** Settles when it is on disk. */
  readonly written: Promise<void>;
}

/**
 * One write is one atomic, durable step. All of it is in memory as well: there are few images, and each start of a
 * container asks.
 */
export class ImageRecords {
  readonly #images = new Map<Digest, ImageRecord>();
  readonly #names = new Map<string, Digest>();
  readonly #users = new Map<string, Use>();
  readonly #writes: LevelWriter<Operation>;

  private constructor(database: Database) {
    this.#writes = new LevelWriter(database);
  }

  static async open(database: Database): Promise<ImageRecords> {
    const records = new ImageRecords(database);
    const written = Promise.resolve();
    for await (const [key, value] of database.iterator()) {
      const slash = key.indexOf("/");
      const rest = key.slice(slash + 1);
      switch (key.slice(0, slash)) {
        case "image":
          records.#images.set(rest, value as ImageRecord);
          break;
        case "name":
          records.#names.set(rest, value as Digest);
          break;
        case "user":
          records.#users.set(rest, { image: value as Digest, written });
          break;
        default: // of a later version
      }
    }
    return records;
  }

  image(id: Digest): ImageRecord | undefined {
    return this.#images.get(id);
  }

  images(): readonly ImageRecord[] {
    return [...this.#images.values()];
  }

  /** Names to image ids: `registry/repository:tag` and `registry/repository@digest`. */
  names(): ReadonlyMap<string, Digest> {
    return this.#names;
  }

  idOf(name: string): Digest | undefined {
    return this.#names.get(name);
  }

  /** The images that containers were made from, one for each container. */
  users(): ReadonlyMap<string, Digest> {
    return new Map(Array.from(this.#users, ([container, { image }]) => [container, image]));
  }

  async put(image: ImageRecord, names: readonly string[]): Promise<void> {
    await this.#writes.write([
      { type: "put", key: `image/${image.id}`, value: image },
      ...names.map((name): Operation => ({ type: "put", key: `name/${name}`, value: image.id })),
    ]);
    this.#images.set(image.id, image);
    for (const name of names) this.#names.set(name, image.id);
  }

  async putName(name: string, id: Digest): Promise<void> {
    await this.#writes.write([{ type: "put", key: `name/${name}`, value: id }]);
    this.#names.set(name, id);
  }

  async remove({ image, names }: { readonly image?: Digest; readonly names: readonly string[] }): Promise<void> {
    await this.#writes.write([
      ...names.map((name): Operation => ({ type: "del", key: `name/${name}` })),
      ...(image === undefined ? [] : [{ type: "del", key: `image/${image}` } satisfies Operation]),
    ]);
    for (const name of names) this.#names.delete(name);
    if (image !== undefined) this.#images.delete(image);
  }

  /** Holds from the call on, so that nobody removes the image meanwhile. @returns settles when it is on disk */
  addUser(container: string, image: Digest): Promise<void> {
    const known = this.#users.get(container);
    if (known?.image === image) return known.written;
    const written = this.#writes.write([{ type: "put", key: `user/${container}`, value: image }]);
    const use = { image, written };
    this.#users.set(container, use);
    written.catch(() => {
      if (this.#users.get(container) === use) this.#users.delete(container);
    });
    return written;
  }

  async removeUser(container: string): Promise<void> {
    if (!this.#users.delete(container)) return;
    await this.#writes.write([{ type: "del", key: `user/${container}` }]);
  }

  /** @param users  image by container; all that there are */
  async keepUsers(users: ReadonlyMap<string, string>): Promise<void> {
    const gone = [...this.#users.keys()].filter((container) => !users.has(container));
    const kept: Promise<void>[] = [];
    for (const [container, image] of users) if (this.#images.has(image)) kept.push(this.addUser(container, image));
    for (const container of gone) this.#users.delete(container);
    if (gone.length > 0)
      await this.#writes.write(gone.map((container): Operation => ({ type: "del", key: `user/${container}` })));
    await Promise.all(kept);
  }

  /** When nothing is being written any more. */
  async idle(): Promise<void> {
    await this.#writes.idle();
  }
}
