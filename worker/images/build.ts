/** New images from files: import (a tar of a whole root) and commit (the changes of a container on top of its image). */
import type { Readable } from "node:stream";
import { ImageContentInvalid } from "./core/errors.ts";
import {
  type Descriptor,
  configBytesMax,
  manifestBytesMax,
  mediaTypes,
  parseManifest,
  parseObject,
  type Platform,
} from "./core/manifest.ts";
import type { ImageReference } from "./core/reference.ts";
import { commitSynthesised } from "./load.ts";
import type { ImageRecord } from "./records.ts";
import { type ImageContentStore, type Lease, nameKey } from "./store.ts";

/** The part of a configuration that `--change` and `commit` set: keys of the Docker image configuration's `config`. */
export type ConfigChanges = Readonly<Record<string, unknown>>;

export interface ImportOptions {
  readonly reference: ImageReference | undefined;
  readonly message: string;
  readonly changes: ConfigChanges;
  readonly platform: Platform;
  readonly bytesMax: number;
  readonly signal: AbortSignal | undefined;
}

/** @param source  a tar stream of a root file system, plain */
export async function importImage(
  store: ImageContentStore,
  source: Readable,
  options: ImportOptions,
): Promise<ImageRecord> {
  return store.leased(async (lease) => {
    const layer = await store.blobs.writeStream(source, options.bytesMax);
    lease.pin(layer.digest);
    if (layer.size === 0) throw new ImageContentInvalid("an image import", "it is empty");
    const created = new Date(store.clock.wallMs()).toISOString();
    const config = {
      os: options.platform.os,
      architecture: options.platform.architecture,
      created,
      config: options.changes,
      rootfs: { type: "layers", diff_ids: [layer.digest] },
      history: [{ created, comment: options.message }],
    };
    return finish(
      store,
      lease,
      config,
      [{ ...layer, mediaType: mediaTypes.dockerLayer }],
      options.reference,
      options.signal,
    );
  });
}

export interface CommitOptions {
  readonly reference: ImageReference | undefined;
  readonly comment: string;
  readonly author: string;
  readonly changes: ConfigChanges;
  readonly bytesMax: number;
  readonly signal: AbortSignal | undefined;
}

/** @param changes  a layer tar of what the container changed (`archive pack --layer`) */
export async function commitContainer(
  store: ImageContentStore,
  parent: ImageRecord,
  changes: Readable,
  options: CommitOptions,
): Promise<ImageRecord> {
  return store.leased(async (lease) => {
    lease.pin(parent.id);
    const layer = await store.blobs.writeStream(changes, options.bytesMax);
    lease.pin(layer.digest);
    const before = parseObject(
      await store.blobs.read(parent.config.digest, configBytesMax),
      configBytesMax,
      "an image configuration",
    );
    const manifest = parseManifest(
      await store.blobs.read(parent.manifest.digest, manifestBytesMax),
      parent.manifest.mediaType,
    );
    if (manifest.kind === "index") throw new ImageContentInvalid(`image ${parent.id}`, "its manifest is an index");
    const created = new Date(store.clock.wallMs()).toISOString();
    const history = Array.isArray(before["history"]) ? (before["history"] as unknown[]) : [];
    const config = {
      ...before,
      created,
      ...(options.author === "" ? {} : { author: options.author }),
      config: { ...(before["config"] as object | undefined), ...options.changes },
      rootfs: { type: "layers", diff_ids: [...parent.layers.map((one) => one.diffId), layer.digest] },
      history: [...history, { created, author: options.author, comment: options.comment }],
    };
    const layers = [...manifest.layers, { ...layer, mediaType: mediaTypes.dockerLayer }];
    return finish(store, lease, config, layers, options.reference, options.signal);
  });
}

async function finish(
  store: ImageContentStore,
  lease: Lease,
  config: object,
  layers: readonly Descriptor[],
  reference: ImageReference | undefined,
  signal: AbortSignal | undefined,
): Promise<ImageRecord> {
  const stored = await store.blobs.write(Buffer.from(JSON.stringify(config), "utf8"));
  lease.pin(stored.digest);
  const names = reference === undefined ? [] : [nameKey(reference)];
  return commitSynthesised(store, lease, { config: stored, layers, names, signal });
}
