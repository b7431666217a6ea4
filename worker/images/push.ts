/** Push: an image of this node to a registry. Layers that are stored as plain tar are compressed first. */
import { createGzip } from "node:zlib";
import { sha256 } from "./blobs.ts";
import { type Descriptor, manifestBytesMax, mediaTypes, parseManifest } from "./core/manifest.ts";
import type { Digest, ImageReference } from "./core/reference.ts";
import { ImageContentInvalid } from "./core/errors.ts";
import type { ImageRecord } from "./records.ts";
import type { RegistryClient } from "./registry/client.ts";
import type { ImageContentStore, Lease } from "./store.ts";

export interface PushProgress {
  readonly digest: Digest;
  readonly phase: "compress" | "exists" | "upload" | "done";
  readonly bytesTotal: number;
}

const plainLayers: readonly string[] = [mediaTypes.dockerLayer, mediaTypes.ociLayer];

export async function push(
  store: ImageContentStore,
  registry: RegistryClient,
  reference: ImageReference,
  image: ImageRecord,
  onProgress: (progress: PushProgress) => void,
  signal: AbortSignal | undefined,
): Promise<{ readonly digest: Digest; readonly size: number }> {
  return store.leased(async (lease) => {
    lease.pin(image.id);
    const stored = await store.blobs.read(image.manifest.digest, manifestBytesMax);
    const content = parseManifest(stored, image.manifest.mediaType);
    if (content.kind === "index") throw new ImageContentInvalid(`image ${image.id}`, "its manifest is an index");
    const layers: Descriptor[] = [];
    for (const layer of content.layers) {
      const sent = plainLayers.includes(layer.mediaType) ? await compress(store, lease, layer, onProgress) : layer;
      await pushBlob(store, registry, sent, onProgress, signal);
      layers.push(sent);
    }
    await pushBlob(store, registry, content.config, () => undefined, signal);
    const isSame = layers.every((layer, at) => layer === content.layers[at]);
    const bytes = isSame ? stored : withLayers(stored, layers);
    const digest = sha256(bytes);
    await registry.pushManifest(reference.tag ?? digest, bytes, content.mediaType, signal);
    return { digest, size: bytes.length };
  });
}

/** The manifest with other layers, everything else (annotations, subject) as it was. */
function withLayers(manifest: Uint8Array, layers: readonly Descriptor[]): Uint8Array {
  const parsed = JSON.parse(Buffer.from(manifest).toString("utf8")) as Record<string, unknown>;
  return Buffer.from(JSON.stringify({ ...parsed, layers }), "utf8");
}

async function compress(
  store: ImageContentStore,
  lease: Lease,
  layer: Descriptor,
  onProgress: (progress: PushProgress) => void,
): Promise<Descriptor> {
  onProgress({ digest: layer.digest, phase: "compress", bytesTotal: layer.size });
  const zipped = await store.blobs.writeStream(
    store.blobs.stream(layer.digest).pipe(createGzip()),
    layer.size + 1024 * 1024,
  );
  lease.pin(zipped.digest);
  const mediaType = layer.mediaType === mediaTypes.dockerLayer ? mediaTypes.dockerLayerGzip : mediaTypes.ociLayerGzip;
  return { mediaType, digest: zipped.digest, size: zipped.size };
}

async function pushBlob(
  store: ImageContentStore,
  registry: RegistryClient,
  blob: Descriptor,
  onProgress: (progress: PushProgress) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const report = (phase: PushProgress["phase"]): void =>
    onProgress({ digest: blob.digest, phase, bytesTotal: blob.size });
  if (await registry.hasBlob(blob.digest, signal)) {
    report("exists");
    return;
  }
  report("upload");
  await registry.pushBlob(
    { digest: blob.digest, size: blob.size, open: () => store.blobs.stream(blob.digest) },
    signal,
  );
  report("done");
}
