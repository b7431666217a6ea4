/** What pull, load, import and commit share: blobs, layers and records, and the leases that keep them from the collector. */
import { Level } from "level";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../lib/runtime/index.ts";
import { BlobStore, sha256 } from "./blobs.ts";
import { chainIds } from "./core/chain.ts";
import { ImageInUse, ImageNotFound } from "./core/errors.ts";
import {
  compressionOf,
  configBytesMax,
  type Descriptor,
  type ImageConfig,
  type ImageManifest,
  parseConfig,
} from "./core/manifest.ts";
import { type Digest, type ImageReference, isDigest, parseReference, repositoryName } from "./core/reference.ts";
import { type LayerLimits, LayerStore } from "./layers.ts";
import { type ImageRecord, ImageRecords, type LayerRecord } from "./records.ts";

export interface StoreOptions {
  readonly folder: string;
  /** Path of native/build/archive. */
  readonly archiveProgram: string;
  readonly limits: LayerLimits;
  readonly clock: Clock;
}

/** Pins what is being put together: the collector leaves it alone until the lease ends. */
export interface Lease {
  pin(digest: Digest): void;
}

export interface PruneReport {
  readonly images: readonly Digest[];
  readonly untagged: readonly string[];
  /** Bytes of blobs and partial downloads; unpacked layers are counted by their files. */
  readonly reclaimedBytes: number;
}

/** Configurations kept in memory. */
const configsMax = 32;

export class ImageContentStore implements AsyncDisposable {
  readonly blobs: BlobStore;
  readonly layers: LayerStore;
  readonly records: ImageRecords;
  readonly clock: Clock;
  readonly #database: Level<string, unknown>;
  readonly #pins = new Map<Digest, number>();
  /** Unpacking by chain id, so that two pulls of one layer share the work. */
  readonly #unpacking = new Map<Digest, Promise<number>>();
  readonly #fetching = new Map<Digest, Promise<void>>();
  /** Collections and changes of records exclude each other. */
  #turn: Promise<unknown> = Promise.resolve();

  /** Of images that were asked for last: content that is named by its digest does not change. */
  readonly #configs = new Map<Digest, ImageConfig>();

  private constructor(options: StoreOptions, database: Level<string, unknown>, records: ImageRecords) {
    this.blobs = new BlobStore(options.folder);
    this.layers = new LayerStore(options.folder, options.archiveProgram, options.limits);
    this.records = records;
    this.clock = options.clock;
    this.#database = database;
  }

  static async open(options: StoreOptions): Promise<ImageContentStore> {
    await mkdir(options.folder, { recursive: true, mode: 0o711 });
    const database = new Level<string, unknown>(join(options.folder, "records"), { valueEncoding: "json" });
    await database.open();
    try {
      const store = new ImageContentStore(options, database, await ImageRecords.open(database));
      await store.blobs.open();
      await store.layers.open();
      return store;
    } catch (error) {
      await database.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn;
    await this.records.idle();
    await this.#database.close();
  }

  /** Runs `work` with a lease that ends with it. */
  async leased<T>(work: (lease: Lease) => Promise<T>): Promise<T> {
    const mine = new Set<Digest>();
    const pin = (digest: Digest): void => {
      if (mine.has(digest)) return;
      mine.add(digest);
      this.#pins.set(digest, (this.#pins.get(digest) ?? 0) + 1);
    };
    try {
      return await work({ pin });
    } finally {
      for (const digest of mine) {
        const left = (this.#pins.get(digest) ?? 1) - 1;
        if (left === 0) this.#pins.delete(digest);
        else this.#pins.set(digest, left);
      }
    }
  }

  /** Unpacks a stored layer unless it is there. @returns bytes of its files, 0 when it was there */
  async unpackLayer(
    lease: Lease,
    chainId: Digest,
    layer: Descriptor,
    diffId: Digest,
    signal?: AbortSignal,
  ): Promise<number> {
    lease.pin(chainId);
    const running = this.#unpacking.get(chainId);
    if (running !== undefined) return running;
    if (await this.layers.has(chainId)) return 0;
    const compression = compressionOf(layer.mediaType);
    const work = this.layers.unpack(chainId, this.blobs.stream(layer.digest), compression, diffId, signal);
    this.#unpacking.set(chainId, work);
    try {
      return await work;
    } finally {
      this.#unpacking.delete(chainId);
    }
  }

  /** Unpacks what is missing of an image whose blobs are all here, and records it under the names. */
  async commitImage(
    lease: Lease,
    manifest: Descriptor,
    content: ImageManifest,
    names: readonly string[],
    options: {
      readonly signal?: AbortSignal | undefined;
      readonly onLayer?: (layer: Descriptor, phase: "unpack" | "done") => void;
    } = {},
  ): Promise<ImageRecord> {
    const config = parseConfig(await this.blobs.read(content.config.digest, configBytesMax), content.layers.length);
    const chains = chainIds(config.diffIds, sha256);
    const before = this.records.image(content.config.digest);
    const layers: LayerRecord[] = [];
    for (const [at, blob] of content.layers.entries()) {
      const diffId = config.diffIds[at] as Digest;
      const chainId = chains[at] as Digest;
      options.onLayer?.(blob, "unpack");
      const unpacked = await this.unpackLayer(lease, chainId, blob, diffId, options.signal);
      options.onLayer?.(blob, "done");
      const known = before?.layers.find((layer) => layer.chainId === chainId)?.bytes;
      layers.push({
        blob,
        diffId,
        chainId,
        bytes: unpacked > 0 ? unpacked : (known ?? this.#knownBytes(chainId) ?? blob.size),
      });
    }
    const image: ImageRecord = {
      id: content.config.digest,
      manifest,
      config: content.config,
      layers,
      createdAtMs: parseTime(config.created),
      storedAtMs: this.clock.wallMs(),
    };
    await this.exclusively(() => this.records.put(image, names));
    return image;
  }

  /** Files' bytes of a layer that another image brought. */
  #knownBytes(chainId: Digest): number | undefined {
    for (const image of this.records.images()) {
      const layer = image.layers.find((one) => one.chainId === chainId);
      if (layer !== undefined) return layer.bytes;
    }
    return undefined;
  }

  /**
   * An image by name, digest, id or the beginning of an id.
   * @throws ImageNotFound, ImageReferenceInvalid
   */
  find(text: string): ImageRecord {
    const byId = isDigest(text) ? this.records.image(text) : undefined;
    if (byId !== undefined) return byId;
    const short = /^(?:sha256:)?([0-9a-f]{4,64})$/.exec(text)?.[1];
    if (short !== undefined && !this.#hasName(text)) {
      const fitting = this.records.images().filter((image) => image.id.startsWith(`sha256:${short}`));
      if (fitting.length === 1 && fitting[0] !== undefined) return fitting[0];
      if (isDigest(text)) throw new ImageNotFound(text);
    }
    const id = this.records.idOf(nameKey(parseReference(text)));
    const image = id === undefined ? undefined : this.records.image(id);
    if (image === undefined) throw new ImageNotFound(text);
    return image;
  }

  #hasName(text: string): boolean {
    return this.records.idOf(nameKey(parseReference(text))) !== undefined;
  }

  async config({ config: { digest } }: ImageRecord): Promise<ImageConfig> {
    const known = this.#configs.get(digest);
    if (known !== undefined) return known;
    const config = parseConfig(await this.blobs.read(digest, configBytesMax), undefined);
    const [oldest] = this.#configs.keys();
    if (this.#configs.size >= configsMax && oldest !== undefined) this.#configs.delete(oldest);
    this.#configs.set(digest, config);
    return config;
  }

  namesOf(id: Digest): readonly string[] {
    return [...this.records.names()].filter(([, of]) => of === id).map(([name]) => name);
  }

  /**
   * Docker's rules: a name is taken away; the last name, or an id, takes the image with it unless a container uses it.
   * @param isRunning  whether a container runs: its image goes by no means
   * @returns names taken away and the images removed
   * @throws ImageInUse
   */
  async remove(
    text: string,
    { force, isRunning }: { readonly force: boolean; readonly isRunning: (container: string) => boolean },
  ): Promise<{ readonly untagged: readonly string[]; readonly removed: readonly Digest[] }> {
    return this.exclusively(async () => {
      const image = this.find(text);
      const names = this.namesOf(image.id);
      const users = [...this.records.users()].filter(([, id]) => id === image.id).map(([container]) => container);
      const [user] = users;
      const id = image.id.slice(7, 19);
      const named = isDigest(text) ? undefined : names.find((name) => name === nameKey(parseReference(text)));
      if (named !== undefined) {
        if (!force && user !== undefined && isSingleReference(names))
          throw ImageInUse.reference(text, user.slice(0, 12), id);
        const untagged = [named, ...danglingDigests(named, names)];
        const isLast = untagged.length === names.length && user === undefined;
        await this.records.remove({ names: untagged, ...(isLast ? { image: image.id } : {}) });
        return { untagged, removed: isLast ? [image.id] : [] }; // a container keeps the image, without a name
      }
      const running = users.find(isRunning);
      if (running !== undefined) {
        const found = `image is being used by running container ${running.slice(0, 12)}`;
        throw ImageInUse.image(id, "cannot be forced", found);
      }
      if (!force && names.length > 0 && !isSingleReference(names))
        throw ImageInUse.image(id, "must be forced", "image is referenced in multiple repositories");
      if (!force && user !== undefined) {
        const found = `image is being used by stopped container ${user.slice(0, 12)}`;
        throw ImageInUse.image(id, "must be forced", found);
      }
      await this.records.remove({ names, ...(user === undefined ? { image: image.id } : {}) });
      return { untagged: names, removed: user === undefined ? [image.id] : [] };
    });
  }

  /**
   * Removes images without a tag (or, with `all`, without a container), then every blob and layer that nothing needs.
   * May run at any time: what a running pull, load or commit has pinned stays.
   */
  async prune(options: {
    readonly images: "none" | "dangling" | "all";
    readonly only?: ReadonlySet<Digest>;
  }): Promise<PruneReport> {
    return this.exclusively(async () => {
      const names = this.records.names();
      const used = new Set(this.records.users().values());
      const removed: Digest[] = [];
      const untagged: string[] = [];
      for (const image of this.records.images()) {
        const mine = [...names].filter(([, id]) => id === image.id).map(([name]) => name);
        const tagged = mine.some((name) => !name.includes("@"));
        if (options.images === "none" || used.has(image.id) || (options.images === "dangling" && tagged)) continue;
        if (this.#pins.has(image.id) || options.only?.has(image.id) === false) continue;
        await this.records.remove({ names: mine, image: image.id });
        removed.push(image.id);
        untagged.push(...mine);
      }
      return { images: removed, untagged, reclaimedBytes: await this.#collect() };
    });
  }

  async #collect(): Promise<number> {
    const recorded = new Set<Digest>();
    for (const image of this.records.images()) {
      recorded.add(image.manifest.digest).add(image.config.digest);
      for (const layer of image.layers) recorded.add(layer.blob.digest).add(layer.chainId);
    }
    // Pins are looked at right before each removal: a pull that begins meanwhile pins first and looks afterwards.
    const isNeeded = (digest: Digest): boolean => recorded.has(digest) || this.#pins.has(digest);
    let reclaimedBytes = await this.blobs.removePartials(isNeeded);
    for (const digest of await this.blobs.list()) {
      if (!isNeeded(digest)) reclaimedBytes += this.blobs.removeNow(digest);
    }
    for (const chainId of await this.layers.list()) {
      if (!isNeeded(chainId)) await this.layers.remove(chainId);
    }
    return reclaimedBytes;
  }

  /** Runs `fetch` for a blob that is not here; two who want the same blob come one after the other. */
  async fetchOnce(digest: Digest, fetch: () => Promise<void>): Promise<void> {
    for (let running = this.#fetching.get(digest); running !== undefined; running = this.#fetching.get(digest)) {
      await running.catch(() => undefined); // its failure is its own; this one tries for itself
    }
    const mine = fetch();
    this.#fetching.set(digest, mine);
    try {
      await mine;
    } finally {
      this.#fetching.delete(digest);
    }
  }

  /** One change of records, or one collection, at a time. */
  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#turn;
    const mine = before.then(work, work);
    this.#turn = mine.catch(() => undefined); // the failure is the caller's; the queue only waits for the end
    return mine;
  }
}

const repositoryOfKey = (key: string): string =>
  key.includes("@") ? key.slice(0, key.indexOf("@")) : key.slice(0, key.lastIndexOf(":"));

/** At most one tag, and every digest in its repository: the names go together. */
function isSingleReference(keys: readonly string[]): boolean {
  const tags = keys.filter((key) => !key.includes("@"));
  return keys.length > 0 && tags.length <= 1 && new Set(keys.map(repositoryOfKey)).size === 1;
}

/** Digests of a repository go with its last tag. */
function danglingDigests(removed: string, keys: readonly string[]): readonly string[] {
  if (removed.includes("@")) return [];
  const mine = keys.filter((key) => key !== removed && repositoryOfKey(key) === repositoryOfKey(removed));
  return mine.every((key) => key.includes("@")) ? mine : [];
}

/** The key of a name in the records: the tag if there is one, else the digest. */
export function nameKey(reference: ImageReference): string {
  const name = repositoryName(reference);
  return reference.digest === undefined ? `${name}:${reference.tag}` : `${name}@${reference.digest}`;
}

/** RFC 3339, or 0 for what is none. */
function parseTime(text: string | undefined): number {
  const ms = Date.parse(text ?? "");
  return Number.isNaN(ms) ? 0 : ms;
}
