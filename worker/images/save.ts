/**
 * Save: images as one tar stream that both `docker load` (manifest.json) and OCI tools (oci-layout, index.json) read.
 * Both descriptions point at the same blobs.
 */
import { Readable } from "node:stream";
import tar from "tar-stream";
import { mediaTypes } from "./core/manifest.ts";
import type { Digest } from "./core/reference.ts";
import type { ImageRecord } from "./records.ts";
import type { ImageContentStore, Lease } from "./store.ts";

export interface SavedImage {
  readonly image: ImageRecord;
  /** `name:tag`, as they shall be after loading. */
  readonly names: readonly string[];
}

export function save(
  store: ImageContentStore,
  images: readonly SavedImage[],
  signal: AbortSignal | undefined,
): Readable {
  const pack = tar.pack();
  const write = async (lease: Lease): Promise<void> => {
    const blobs = new Map<Digest, number>();
    for (const { image } of images) {
      for (const blob of [image.manifest, image.config, ...image.layers.map((layer) => layer.blob)]) {
        blobs.set(blob.digest, blob.size);
        lease.pin(blob.digest);
      }
    }
    for (const [digest, size] of blobs) {
      signal?.throwIfAborted();
      await writeBlob(store, pack, digest, size);
    }
    const index = {
      schemaVersion: 2,
      mediaType: mediaTypes.ociIndex,
      manifests: images.flatMap(({ image, names }) =>
        (names.length === 0 ? [undefined] : names).map((name) => ({
          ...image.manifest,
          ...(name === undefined
            ? {}
            : {
                annotations: {
                  "io.containerd.image.name": name,
                  "org.opencontainers.image.ref.name": name.slice(name.lastIndexOf(":") + 1),
                },
              }),
        })),
      ),
    };
    const docker = images.map(({ image, names }) => ({
      Config: blobPath(image.config.digest),
      RepoTags: names,
      Layers: image.layers.map((layer) => blobPath(layer.blob.digest)),
    }));
    writeText(pack, "index.json", JSON.stringify(index));
    writeText(pack, "manifest.json", JSON.stringify(docker));
    writeText(pack, "oci-layout", '{"imageLayoutVersion":"1.0.0"}');
    pack.finalize();
  };
  // The reader gets the error through the stream.
  store.leased(write).catch((error: unknown) => pack.destroy(error as Error));
  return Readable.from(pack as AsyncIterable<Uint8Array>, { objectMode: false, highWaterMark: 256 * 1024 });
}

function blobPath(digest: Digest): string {
  return `blobs/${digest.replace(":", "/")}`;
}

function writeText(pack: tar.Pack, name: string, text: string): void {
  pack.entry({ name, mode: 0o644, mtime: new Date(0) }, text);
}

async function writeBlob(store: ImageContentStore, pack: tar.Pack, digest: Digest, size: number): Promise<void> {
  const done = Promise.withResolvers<void>();
  const entry = pack.entry({ name: blobPath(digest), size, mode: 0o644, mtime: new Date(0) }, (error) => {
    if (error == null) done.resolve();
    else done.reject(error);
  });
  const source = store.blobs.stream(digest);
  source.once("error", (error) => {
    pack.destroy(error);
    done.reject(error);
  });
  source.pipe(entry);
  await done.promise;
}
