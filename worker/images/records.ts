/** What the node remembers of images, in `level`: images by id, names, layers, and which container uses which image. */
import type { BatchOperation, Level } from "level";
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

/** One batch is one atomic, durable step. */
export class ImageRecords {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async image(id: Digest): Promise<ImageRecord | undefined> {
    return (await this.#database.get(`image/${id}`)) as ImageRecord | undefined;
  }

  async images(): Promise<readonly ImageRecord[]> {
    return this.#values<ImageRecord>("image/");
  }

  /** Names to image ids: `registry/repository:tag` and `registry/repository@digest`. */
  async names(): Promise<ReadonlyMap<string, Digest>> {
    const found = new Map<string, Digest>();
    for await (const [key, id] of this.#database.iterator({ gte: "name/", lt: "name0" })) {
      found.set(key.slice("name/".length), id as Digest);
    }
    return found;
  }

  async idOf(name: string): Promise<Digest | undefined> {
    return (await this.#database.get(`name/${name}`)) as Digest | undefined;
  }

  /** Container ids to the image each was made from. */
  async users(): Promise<ReadonlyMap<string, Digest>> {
    const found = new Map<string, Digest>();
    for await (const [key, id] of this.#database.iterator({ gte: "user/", lt: "user0" })) {
      found.set(key.slice("user/".length), id as Digest);
    }
    return found;
  }

  async put(image: ImageRecord, names: readonly string[]): Promise<void> {
    await this.#write([
      { type: "put", key: `image/${image.id}`, value: image },
      ...names.map((name): Operation => ({ type: "put", key: `name/${name}`, value: image.id })),
    ]);
  }

  async putName(name: string, id: Digest): Promise<void> {
    await this.#write([{ type: "put", key: `name/${name}`, value: id }]);
  }

  async remove(change: { readonly image?: Digest; readonly names: readonly string[] }): Promise<void> {
    await this.#write([
      ...change.names.map((name): Operation => ({ type: "del", key: `name/${name}` })),
      ...(change.image === undefined ? [] : [{ type: "del", key: `image/${change.image}` } satisfies Operation]),
    ]);
  }

  async addUser(containerId: string, image: Digest): Promise<void> {
    await this.#write([{ type: "put", key: `user/${containerId}`, value: image }]);
  }

  async removeUser(containerId: string): Promise<void> {
    await this.#write([{ type: "del", key: `user/${containerId}` }]);
  }

  async #write(operations: Operation[]): Promise<void> {
    await this.#database.batch(operations, { sync: true });
  }

  async #values<T>(prefix: string): Promise<readonly T[]> {
    const end = `${prefix.slice(0, -1)}0`; // "0" follows "/" in ASCII
    return (await this.#database.values({ gte: prefix, lt: end }).all()) as T[];
  }
}
