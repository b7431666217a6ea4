/** Pull: a reference becomes an image on this node. Layers come side by side and are unpacked in order. */
import { ImageContentInvalid, RegistryRefused } from "./core/errors.ts";
import {
  choosePlatform,
  configBytesMax,
  type Descriptor,
  type ImageManifest,
  parseManifest,
  type Platform,
} from "./core/manifest.ts";
import { type Digest, familiar, type ImageReference, isDigest, repositoryName } from "./core/reference.ts";
import { sha256 } from "./blobs.ts";
import type { RegistryClient } from "./registry/client.ts";
import type { ImageRecord } from "./records.ts";
import { type ImageContentStore, type Lease, nameKey } from "./store.ts";

export interface PullProgress {
  /** The layer's digest. */
  readonly digest: Digest;
  readonly phase: "exists" | "waiting" | "download" | "verified" | "unpack" | "done";
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface PullResult {
  readonly image: ImageRecord;
  /** What the reference named: an index or a manifest. It pins the image as `name@digest`. */
  readonly digest: Digest;
  /** Whether anything new came. */
  readonly changed: boolean;
}

const parallelLayers = 3;

export async function pull(
  store: ImageContentStore,
  registry: RegistryClient,
  reference: ImageReference,
  platform: Platform,
  onProgress: (progress: PullProgress) => void,
  signal: AbortSignal | undefined,
): Promise<PullResult> {
  return store.leased(async (lease) => {
    const top = await fetchDocument(
      store,
      lease,
      registry,
      reference.digest ?? reference.tag ?? "latest",
      reference.digest,
      signal,
    );
    let manifest = top.descriptor;
    let content = parseManifest(top.bytes, top.descriptor.mediaType);
    if (content.kind === "index") {
      const chosen = choosePlatform(content, platform, familiar(reference));
      const fetched = await fetchDocument(store, lease, registry, chosen.digest, chosen.digest, signal);
      if (fetched.descriptor.size !== chosen.size) {
        throw new ImageContentInvalid(
          `manifest ${chosen.digest}`,
          `it has ${fetched.descriptor.size} bytes, the index says ${chosen.size}`,
        );
      }
      content = parseManifest(fetched.bytes, chosen.mediaType);
      if (content.kind === "index")
        throw new ImageContentInvalid(`manifest ${chosen.digest}`, "an index in an index is not supported");
      manifest = { ...fetched.descriptor, mediaType: content.mediaType };
    }
    const names = [`${repositoryName(reference)}@${top.descriptor.digest}`];
    if (reference.tag !== undefined && reference.digest === undefined) names.push(nameKey(reference));
    lease.pin(content.config.digest);
    const before = store.records.image(content.config.digest);
    const namedBefore = store.records.idOf(names.at(-1) ?? "");
    await fetchBlobs(store, lease, registry, content, onProgress, signal);
    const image = await store.commitImage(lease, manifest, content, names, {
      signal,
      onLayer: (layer, phase) =>
        onProgress({ digest: layer.digest, phase, bytesDone: layer.size, bytesTotal: layer.size }),
    });
    return { image, digest: top.descriptor.digest, changed: before === undefined || namedBefore !== image.id };
  });
}

/** A manifest or index, checked against the digest that was asked for, and kept as a blob. */
async function fetchDocument(
  store: ImageContentStore,
  lease: Lease,
  registry: RegistryClient,
  name: string,
  expected: Digest | undefined,
  signal: AbortSignal | undefined,
): Promise<{ readonly bytes: Uint8Array; readonly descriptor: Descriptor }> {
  const { bytes, contentType } = await registry.manifest(name, signal);
  const digest = sha256(bytes);
  if (expected !== undefined && digest !== expected) {
    throw new ImageContentInvalid(`manifest ${expected}`, `the registry sent one with digest ${digest}`);
  }
  lease.pin(digest);
  await store.blobs.write(bytes);
  return { bytes, descriptor: { mediaType: contentType?.split(";")[0]?.trim() ?? "", digest, size: bytes.length } };
}

async function fetchBlobs(
  store: ImageContentStore,
  lease: Lease,
  registry: RegistryClient,
  content: ImageManifest,
  onProgress: (progress: PullProgress) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (content.config.size > configBytesMax) throw new ImageContentInvalid("an image configuration", "it is too large");
  const wanted = [...new Map([content.config, ...content.layers].map((blob) => [blob.digest, blob])).values()];
  for (const blob of wanted) lease.pin(blob.digest);
  const stop = new AbortController();
  const both = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  const queue = [...wanted];
  const work = async (): Promise<void> => {
    for (let blob = queue.shift(); blob !== undefined; blob = queue.shift()) {
      const { digest } = blob;
      const report = content.config.digest === digest ? (): void => undefined : onProgress;
      const wantedBlob = blob;
      await store.fetchOnce(digest, () => fetchBlob(store, registry, wantedBlob, report, both));
    }
  };
  const workers = Array.from({ length: Math.min(parallelLayers, wanted.length) }, work);
  const results = await Promise.allSettled(
    workers.map(async (worker) => {
      try {
        await worker;
      } catch (error) {
        stop.abort(error); // the first failure ends the others
        throw error;
      }
    }),
  );
  signal?.throwIfAborted();
  if (stop.signal.aborted) throw stop.signal.reason as Error;
  for (const result of results) if (result.status === "rejected") throw result.reason as Error;
}

async function fetchBlob(
  store: ImageContentStore,
  registry: RegistryClient,
  blob: Descriptor,
  onProgress: (progress: PullProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  const report = (phase: PullProgress["phase"], bytesDone: number): void =>
    onProgress({ digest: blob.digest, phase, bytesDone, bytesTotal: blob.size });
  const there = await store.blobs.size(blob.digest);
  if (there !== undefined) {
    if (there !== blob.size)
      throw new ImageContentInvalid(`blob ${blob.digest}`, `it has ${there} bytes, the manifest says ${blob.size}`);
    report("exists", blob.size);
    return;
  }
  report("waiting", 0);
  const ingest = await store.blobs.ingest({ digest: blob.digest, size: blob.size });
  try {
    await registry.fetchBlob(blob.digest, blob.size, ingest, (bytesDone) => report("download", bytesDone), signal);
    await ingest.finish();
  } finally {
    await ingest.discard();
  }
  report("verified", blob.size);
}

/** Whether a pull error says that the image is not there, so that the next mirror may be asked. */
export function isMissing(error: unknown): boolean {
  return error instanceof RegistryRefused && error.status === 404;
}

/** Digest that a tag names now, for pinning (`name:tag` becomes `name:tag@sha256:…`). */
export async function resolveDigest(
  registry: RegistryClient,
  reference: ImageReference,
  signal: AbortSignal | undefined,
): Promise<Digest> {
  const name = reference.digest ?? reference.tag ?? "latest";
  const told = await registry.manifestDigest(name, signal);
  if (isDigest(told)) return told;
  return sha256((await registry.manifest(name, signal)).bytes);
}
