/** What a registry says of an image without sending its layers. */
import { ImageContentInvalid } from "./core/errors.ts";
import { type Descriptor, parseManifest, type Platform } from "./core/manifest.ts";
import type { ImageReference } from "./core/reference.ts";
import { sha256 } from "./blobs.ts";
import type { RegistryClient } from "./registry/client.ts";

/** @param here  the platform that is told for an image without an index: its configuration is not fetched for that */
export async function lookUpRemote(
  registry: RegistryClient,
  reference: ImageReference,
  here: Platform,
  signal: AbortSignal | undefined,
): Promise<{ readonly descriptor: Descriptor; readonly platforms: readonly Platform[] }> {
  const { bytes, contentType } = await registry.manifest(reference.digest ?? reference.tag ?? "latest", signal);
  const digest = sha256(bytes);
  if (reference.digest !== undefined && digest !== reference.digest) {
    throw new ImageContentInvalid(`manifest ${reference.digest}`, `the registry sent one with digest ${digest}`);
  }
  const content = parseManifest(bytes, contentType?.split(";")[0]?.trim() ?? "");
  const platforms =
    content.kind === "manifest"
      ? [here]
      : content.manifests.flatMap(({ platform }) =>
          // Attestations lie in indexes as manifests for no platform.
          platform === undefined || platform.os === "unknown" ? [] : [platform],
        );
  return { descriptor: { mediaType: content.mediaType, digest, size: bytes.length }, platforms };
}
