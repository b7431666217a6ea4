/**
 * Images: what containers are made from. Content-addressed blobs, layers unpacked once each, names.
 * In:    registries (distribution API v2), tar archives (docker save, OCI layout, plain roots), containers' changes.
 * Out:   overlay lower directories and the run configuration for a container; archives and pushes.
 * core/  references, manifests, configurations: checks of hostile documents. Pure.
 * Uses:  the native `archive` program (unpacks confined), level, lib.   Used by: containers, executor, api.
 * Never: keeps a byte whose digest was not checked; leaves half an image after a crash; removes what is in use.
 * Design: docs/design/images.md
 */
import type { Readable } from "node:stream";
import type { Random } from "../../lib/pure/prng.ts";
import { type Clock } from "../../lib/runtime/index.ts";
import { commitContainer, type CommitOptions, type ConfigChanges, importImage } from "./build.ts";
import { configBytesMax, type Descriptor, type ImageConfig, parseObject, type Platform } from "./core/manifest.ts";
import {
  type Digest,
  familiar,
  familiarName,
  type ImageReference,
  parseReference,
  repositoryName,
} from "./core/reference.ts";
import { defaultLayerLimits, type LayerLimits } from "./layers.ts";
import { defaultLoadLimits, load, type LoadedImage } from "./load.ts";
import { isMissing, pull, type PullProgress, type PullResult, resolveDigest } from "./pull.ts";
import { push, type PushProgress } from "./push.ts";
import type { ImageRecord } from "./records.ts";
import type { Credentials } from "./registry/auth.ts";
import { defaultRegistryOptions, RegistryClient, type RegistryOptions } from "./registry/client.ts";
import { credentialsOf, parseRegistryAuth } from "./registry/registry-auth.ts";
import { lookUpRemote } from "./remote.ts";
import { save } from "./save.ts";
import { ImageContentStore, nameKey, type PruneReport } from "./store.ts";

export type {
  ConfigChanges,
  Credentials,
  Digest,
  ImageConfig,
  ImageRecord,
  LoadedImage,
  Platform,
  PruneReport,
  PullProgress,
  PullResult,
  PushProgress,
};
export { RegistryUnreachable } from "./core/errors.ts";
export { credentialsOf, familiar as familiarReference, parseReference, parseRegistryAuth, type ImageReference };

export interface ImagesOptions {
  /** Everything is kept below this folder; it belongs to this process alone. */
  readonly folder: string;
  /** Path of native/build/archive. */
  readonly archiveProgram: string;
  readonly platform: Platform;
  readonly registries?: Partial<RegistryOptions>;
  readonly limits?: Partial<LayerLimits>;
  readonly clock: Clock;
  readonly random: Random;
  readonly onEvent?: (event: ImageEvent) => void;
}

/** What happens to images, for `GET /events`. */
export interface ImageEvent {
  readonly action: "pull" | "push" | "load" | "import" | "tag" | "untag" | "delete";
  /** The image's id, or the reference for pull and push, as the Engine has it. */
  readonly id: string;
  readonly name: string;
}

/** What a registry says of an image without sending it. */
export interface RemoteImage {
  readonly descriptor: Descriptor;
  readonly platforms: readonly Platform[];
}

/** What a container needs of its image. */
export interface PreparedImage {
  readonly imageId: Digest;
  /** Overlay lower directories, the topmost first. */
  readonly lowerDirs: readonly string[];
  readonly config: ImageConfig;
  /** Settles when it is on disk that the container uses it. */
  readonly written: Promise<void>;
}

/** An image as lists show it. */
export interface ImageSummary {
  readonly id: Digest;
  /** `name:tag`, as a person writes them. */
  readonly repoTags: readonly string[];
  /** `name@sha256:…`, as a person writes them. */
  readonly repoDigests: readonly string[];
  readonly createdAtMs: number;
  /** Bytes of all its files. */
  readonly sizeBytes: number;
  readonly containers: number;
}

export class Images implements AsyncDisposable {
  readonly #store: ImageContentStore;
  readonly #platform: Platform;
  readonly #registries: RegistryOptions;
  readonly #layerBytesMax: number;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #emit: (event: ImageEvent) => void;

  private constructor(store: ImageContentStore, options: ImagesOptions) {
    this.#store = store;
    this.#platform = options.platform;
    this.#registries = { ...defaultRegistryOptions, ...options.registries };
    this.#layerBytesMax = options.limits?.layerBytesMax ?? defaultLayerLimits.layerBytesMax;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#emit = options.onEvent ?? (() => undefined);
  }

  static async open(options: ImagesOptions): Promise<Images> {
    const limits = { ...defaultLayerLimits, ...options.limits };
    const { folder, archiveProgram, clock } = options;
    return new Images(await ImageContentStore.open({ folder, archiveProgram, limits, clock }), options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }

  /** Pulls by tag or digest; mirrors are asked first for Docker Hub's images. @throws see docs/errors.md, IMAGE_* and REGISTRY_* */
  async pull(
    text: string,
    options: {
      readonly credentials?: Credentials;
      readonly platform?: Platform;
      readonly onProgress?: (progress: PullProgress) => void;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<PullResult> {
    const reference = parseReference(text);
    const result = await this.#withRegistry(reference, options.credentials, async (registry) =>
      pull(
        this.#store,
        registry,
        reference,
        options.platform ?? this.#platform,
        options.onProgress ?? (() => undefined),
        options.signal,
      ),
    );
    this.#emit({ action: "pull", id: familiar(reference), name: familiarName(reference) });
    return result;
  }

  async push(
    text: string,
    options: {
      readonly credentials?: Credentials;
      readonly onProgress?: (progress: PushProgress) => void;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<{ readonly digest: Digest; readonly size: number }> {
    const reference = parseReference(text);
    const image = this.#store.find(text);
    const pushed = await this.#withClient(this.#client(reference, options.credentials), (registry) =>
      push(this.#store, registry, reference, image, options.onProgress ?? (() => undefined), options.signal),
    );
    await this.#store.exclusively(() =>
      this.#store.records.putName(`${repositoryName(reference)}@${pushed.digest}`, image.id),
    );
    this.#emit({ action: "push", id: familiar(reference), name: familiarName(reference) });
    return pushed;
  }

  /** The digest that a reference names in its registry now. */
  async resolve(
    text: string,
    options: { readonly credentials?: Credentials; readonly signal?: AbortSignal } = {},
  ): Promise<Digest> {
    const reference = parseReference(text);
    return this.#withRegistry(reference, options.credentials, (registry) =>
      resolveDigest(registry, reference, options.signal),
    );
  }

  async load(source: Readable, signal?: AbortSignal): Promise<readonly LoadedImage[]> {
    const loaded = await load(this.#store, source, this.#platform, defaultLoadLimits, signal);
    for (const { image, names } of loaded) this.#emit({ action: "load", id: image.id, name: names[0] ?? image.id });
    return loaded;
  }

  /** @param texts  names or ids; a name goes out with that tag, an id with all its tags */
  async save(texts: readonly string[], signal?: AbortSignal): Promise<Readable> {
    const images = await Promise.all(
      texts.map(async (text) => {
        const image = this.#store.find(text);
        const tags = this.#store.namesOf(image.id).filter((name) => !name.includes("@"));
        const named = /^(?:sha256:)?[0-9a-f]{4,64}$/.test(text) ? undefined : nameKey(parseReference(text));
        const chosen = named !== undefined && tags.includes(named) ? [named] : named === undefined ? tags : [];
        return { image, names: chosen.map((name) => familiar(parseReference(name))) };
      }),
    );
    return save(this.#store, images, signal);
  }

  async import(
    source: Readable,
    options: {
      readonly reference?: string;
      readonly message?: string;
      readonly changes?: ConfigChanges;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<ImageRecord> {
    const image = await importImage(this.#store, source, {
      reference: options.reference === undefined ? undefined : parseReference(options.reference),
      message: options.message ?? "Imported from -",
      changes: options.changes ?? {},
      platform: this.#platform,
      bytesMax: this.#layerBytesMax,
      signal: options.signal,
    });
    this.#emit({ action: "import", id: image.id, name: image.id });
    return image;
  }

  async commit(
    parentImage: string,
    changes: Readable,
    options: Partial<Omit<CommitOptions, "reference" | "bytesMax">> & { readonly reference?: string } = {},
  ): Promise<ImageRecord> {
    return commitContainer(this.#store, this.#store.find(parentImage), changes, {
      reference: options.reference === undefined ? undefined : parseReference(options.reference),
      comment: options.comment ?? "",
      author: options.author ?? "",
      changes: options.changes ?? {},
      bytesMax: this.#layerBytesMax,
      signal: options.signal,
    });
  }

  async tag(source: string, target: string): Promise<void> {
    const reference = parseReference(target);
    await this.#store.exclusively(async () => {
      const image = this.#store.find(source);
      await this.#store.records.putName(nameKey(reference), image.id);
      this.#emit({ action: "tag", id: image.id, name: familiar(reference) });
    });
  }

  /** @param options.isRunning  whether a container runs; absent: none does */
  async remove(
    text: string,
    options: { readonly force?: boolean; readonly isRunning?: (container: string) => boolean } = {},
  ): Promise<{ readonly untagged: readonly string[]; readonly removed: readonly Digest[] }> {
    const { id } = this.#store.find(text);
    const result = await this.#store.remove(text, {
      force: options.force ?? false,
      isRunning: options.isRunning ?? (() => false),
    });
    for (const name of result.untagged) this.#emit({ action: "untag", id, name: familiar(parseReference(name)) });
    for (const removed of result.removed) this.#emit({ action: "delete", id: removed, name: removed });
    if (result.removed.length > 0) await this.#store.prune({ images: "none" });
    return { untagged: result.untagged.map((name) => familiar(parseReference(name))), removed: result.removed };
  }

  /** @param options.only  no others than these; absent: any */
  async prune(options: { readonly all?: boolean; readonly only?: ReadonlySet<Digest> } = {}): Promise<PruneReport> {
    const only = options.only === undefined ? {} : { only: options.only };
    const report = await this.#store.prune({ images: options.all === true ? "all" : "dangling", ...only });
    for (const removed of report.images) this.#emit({ action: "delete", id: removed, name: removed });
    return report;
  }

  /** An image's configuration as it came, for what running it does not need: history, author, comment. */
  async document(text: string): Promise<Readonly<Record<string, unknown>>> {
    const image = this.#store.find(text);
    return parseObject(
      await this.#store.blobs.read(image.config.digest, configBytesMax),
      configBytesMax,
      "an image configuration",
    );
  }

  /** What a registry has under a name now, and for which platforms. */
  async remote(
    text: string,
    options: { readonly credentials?: Credentials; readonly signal?: AbortSignal } = {},
  ): Promise<RemoteImage> {
    const reference = parseReference(text);
    return this.#withRegistry(reference, options.credentials, (registry) =>
      lookUpRemote(registry, reference, this.#platform, options.signal),
    );
  }

  /** Whether a registry takes these credentials. @throws RegistryDenied, RegistryUnreachable */
  async login(registry: string, credentials: Credentials, signal?: AbortSignal): Promise<void> {
    const reference = parseReference(`${registry}/login/check`);
    await this.#withClient(this.#client(reference, credentials), (client) => client.ping(signal));
  }

  async list(): Promise<readonly ImageSummary[]> {
    const names = [...this.#store.records.names()];
    const users = [...this.#store.records.users().values()];
    return this.#store.records.images().map((image) => {
      const mine = names.filter(([, id]) => id === image.id).map(([name]) => name);
      return {
        id: image.id,
        repoTags: mine.filter((name) => !name.includes("@")).map((name) => familiar(parseReference(name))),
        repoDigests: mine
          .filter((name) => name.includes("@"))
          .map((name) => `${familiarName(parseReference(name))}@${name.slice(name.indexOf("@") + 1)}`),
        createdAtMs: image.createdAtMs,
        sizeBytes: image.layers.reduce((sum, layer) => sum + layer.bytes, 0),
        containers: users.filter((id) => id === image.id).length,
      };
    });
  }

  /** Bytes of all layers' files, each layer once. */
  async layersBytes(): Promise<number> {
    const layers = this.#store.records.images().flatMap((image) => image.layers);
    const byChain = new Map(layers.map((layer) => [layer.chainId, layer.bytes]));
    return [...byChain.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** @throws ImageNotFound */
  async inspect(text: string): Promise<{ readonly image: ImageRecord; readonly config: ImageConfig }> {
    const image = this.#store.find(text);
    return { image, config: await this.#store.config(image) };
  }

  /**
   * Binds an image to a container: it stays, with its layers, until `release`, and after a restart once `written` has settled.
   * Calling it again gives the same answer.
   */
  async prepare(containerId: string, text: string): Promise<PreparedImage> {
    // The collector has its turn before or after; the disk is waited for by who asks, so that containers do not wait in a row.
    const { image, written } = await this.#store.exclusively(async () => {
      const found = this.#store.find(text);
      return { image: found, written: this.#store.records.addUser(containerId, found.id) };
    });
    written.catch(() => undefined); // whoever waits for it hears of it
    const lowerDirs = image.layers.map((layer) => this.#store.layers.path(layer.chainId)).reverse();
    return { imageId: image.id, lowerDirs, config: await this.#store.config(image), written };
  }

  /** These containers use these images, and nobody else does: what a crash left of others goes. An image that is gone is left out. */
  async keep(images: ReadonlyMap<string, string>): Promise<void> {
    await this.#store.exclusively(() => this.#store.records.keepUsers(images));
  }

  async release(containerId: string): Promise<void> {
    await this.#store.records.removeUser(containerId);
  }

  #client(reference: ImageReference, credentials: Credentials | undefined, mirror?: string): RegistryClient {
    const target = { registry: reference.registry, repository: reference.repository };
    const ports = { clock: this.#clock, random: this.#random };
    return new RegistryClient(
      mirror === undefined ? target : { ...target, mirror },
      credentials ?? {},
      this.#registries,
      ports,
    );
  }

  /** Mirrors in their order, then the registry itself; a mirror that has not got it, or is away, is passed over. */
  async #withRegistry<T>(
    reference: ImageReference,
    credentials: Credentials | undefined,
    work: (registry: RegistryClient) => Promise<T>,
  ): Promise<T> {
    for (const mirror of reference.registry === "docker.io" ? this.#registries.mirrors : []) {
      try {
        return await this.#withClient(this.#client(reference, undefined, mirror), work);
      } catch (error) {
        if (!isMissing(error) && (error as { code?: unknown }).code !== "REGISTRY_UNREACHABLE") throw error;
      }
    }
    return this.#withClient(this.#client(reference, credentials), work);
  }

  async #withClient<T>(client: RegistryClient, work: (registry: RegistryClient) => Promise<T>): Promise<T> {
    try {
      return await work(client);
    } finally {
      client[Symbol.dispose]();
    }
  }
}
