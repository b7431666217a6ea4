/**
 * Load: images from a tar stream, as `docker save` writes it (manifest.json) or as an OCI layout (index.json).
 * Members are gathered as blobs in the order in which they come; only then is it known what they are.
 */
import { createGunzip } from "node:zlib";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import tar from "tar-stream";
import { sha256 } from "./blobs.ts";
import { ImageContentInvalid, ImageTooLarge } from "./core/errors.ts";
import {
  choosePlatform,
  type Descriptor,
  manifestBytesMax,
  mediaTypes,
  parseConfig,
  configBytesMax,
  parseManifest,
  parseObject,
  type Platform,
} from "./core/manifest.ts";
import { type Digest, familiar, isDigest, parseReference } from "./core/reference.ts";
import type { ImageRecord } from "./records.ts";
import { type ImageContentStore, type Lease, nameKey } from "./store.ts";

export interface LoadedImage {
  readonly image: ImageRecord;
  /** As a person writes them; empty for an image without a tag. */
  readonly names: readonly string[];
}

export interface LoadLimits {
  readonly membersMax: number;
  readonly memberBytesMax: number;
}

export const defaultLoadLimits: LoadLimits = { membersMax: 10_000, memberBytesMax: 256 * 1024 ** 3 };

interface Member {
  readonly digest: Digest;
  readonly size: number;
}

const what = "an image archive";

export async function load(
  store: ImageContentStore,
  source: Readable,
  platform: Platform,
  limits: LoadLimits,
  signal: AbortSignal | undefined,
): Promise<readonly LoadedImage[]> {
  return store.leased(async (lease) => {
    const members = await gather(store, lease, source, limits, signal);
    const loaded =
      (await loadDocker(store, lease, members, signal)) ?? (await loadLayout(store, lease, members, platform, signal));
    if (loaded === undefined) throw new ImageContentInvalid(what, "it has neither manifest.json nor index.json");
    return loaded;
  });
}

/** Every regular member becomes a blob; links (docker save of old made some) are followed to other members. */
async function gather(
  store: ImageContentStore,
  lease: Lease,
  source: Readable,
  limits: LoadLimits,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, Member>> {
  const members = new Map<string, Member>();
  const links = new Map<string, string>();
  let count = 0;
  try {
    const extract = tar.extract();
    (await maybeUnzip(source)).on("error", (error) => extract.destroy(error)).pipe(extract);
    for await (const entry of extract) {
      signal?.throwIfAborted();
      if (++count > limits.membersMax) throw new ImageTooLarge(what, `it has more than ${limits.membersMax} members`);
      const name = cleanName(entry.header.name);
      if (entry.header.type === "file") {
        const blob = await store.blobs.writeStream(
          entry as unknown as AsyncIterable<Uint8Array>,
          limits.memberBytesMax,
        );
        lease.pin(blob.digest);
        members.set(name, blob);
      } else {
        if (entry.header.type === "symlink" || entry.header.type === "link") {
          const base = entry.header.type === "symlink" ? name.slice(0, name.lastIndexOf("/") + 1) : "";
          links.set(name, cleanName(base + (entry.header.linkname ?? "")));
        }
        entry.resume();
      }
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (
      error instanceof ImageTooLarge ||
      error instanceof ImageContentInvalid ||
      (error as { fix?: string }).fix !== undefined
    )
      throw error;
    throw new ImageContentInvalid(what, `it is no tar archive or a damaged one: ${(error as Error).message}`, error);
  }
  for (const [name, target] of links) {
    const member = members.get(target);
    if (member !== undefined && !members.has(name)) members.set(name, member);
  }
  return members;
}

/** Looks at the first bytes: a compressed archive is as common as a plain one. */
async function maybeUnzip(source: Readable): Promise<Readable> {
  const chunks = source[Symbol.asyncIterator]() as AsyncIterator<Buffer, undefined>;
  let head = Buffer.alloc(0);
  while (head.length < 2) {
    const next = await chunks.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  if (head.length === 0) throw new ImageContentInvalid(what, "it is empty");
  const whole = Readable.from(
    (async function* () {
      yield head;
      for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) yield next.value;
    })(),
    { objectMode: false },
  );
  if (head[0] !== 0x1f || head[1] !== 0x8b) return whole;
  const unzip = createGunzip();
  pipeline(whole, unzip).catch((error: unknown) => unzip.destroy(error as Error)); // whoever reads `unzip` is told
  return unzip;
}

/** Members are only looked up by name, never written to a path of theirs; still, one spelling each. */
function cleanName(name: string): string {
  const parts: string[] = [];
  for (const part of name.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts.join("/");
}

async function loadDocker(
  store: ImageContentStore,
  lease: Lease,
  members: ReadonlyMap<string, Member>,
  signal: AbortSignal | undefined,
): Promise<readonly LoadedImage[] | undefined> {
  const list = members.get("manifest.json");
  if (list === undefined) return undefined;
  const bytes = await store.blobs.read(list.digest, manifestBytesMax);
  // The file holds a bare list; wrapped, it passes through the same checks as every document.
  const wrapped = Buffer.concat([Buffer.from('{"images":'), bytes, Buffer.from("}")]);
  const images = parseObject(wrapped, manifestBytesMax + 16, what)["images"];
  if (!Array.isArray(images) || images.length === 0)
    throw new ImageContentInvalid(what, "its manifest.json lists no image");
  const loaded: LoadedImage[] = [];
  for (const one of images as unknown[]) {
    const entry = (one ?? {}) as { Config?: unknown; RepoTags?: unknown; Layers?: unknown };
    const config = memberOf(members, entry.Config);
    const layerNames = Array.isArray(entry.Layers) ? (entry.Layers as unknown[]) : [];
    const parsed = parseConfig(await store.blobs.read(config.digest, configBytesMax), layerNames.length);
    const layers: Descriptor[] = [];
    for (const [at, name] of layerNames.entries()) {
      const member = memberOf(members, name);
      const isPlain = member.digest === parsed.diffIds[at];
      const mediaType =
        isPlain || !(await isGzip(store, member.digest)) ? mediaTypes.dockerLayer : mediaTypes.dockerLayerGzip;
      layers.push({ mediaType, digest: member.digest, size: member.size });
    }
    const tags = Array.isArray(entry.RepoTags)
      ? (entry.RepoTags as unknown[]).filter((tag) => typeof tag === "string")
      : [];
    const references = tags.map((tag) => parseReference(tag));
    const image = await commitSynthesised(store, lease, { config, layers, names: references.map(nameKey), signal });
    loaded.push({ image, names: references.map(familiar) });
  }
  return loaded;
}

/** Writes a Docker schema 2 manifest for an image that came without one, and records the image. */
export async function commitSynthesised(
  store: ImageContentStore,
  lease: Lease,
  parts: {
    readonly config: Member;
    readonly layers: readonly Descriptor[];
    readonly names: readonly string[];
    readonly signal: AbortSignal | undefined;
  },
): Promise<ImageRecord> {
  const config = { mediaType: mediaTypes.dockerConfig, digest: parts.config.digest, size: parts.config.size };
  const document = { schemaVersion: 2, mediaType: mediaTypes.dockerManifest, config, layers: parts.layers };
  const bytes = Buffer.from(JSON.stringify(document), "utf8");
  const digest = sha256(bytes);
  for (const pinned of [digest, config.digest, ...parts.layers.map((layer) => layer.digest)]) lease.pin(pinned);
  await store.blobs.write(bytes);
  const manifest = parseManifest(bytes, undefined);
  if (manifest.kind === "index") throw new ImageContentInvalid(what, "it is an index");
  const descriptor = { mediaType: mediaTypes.dockerManifest, digest, size: bytes.length };
  return store.commitImage(lease, descriptor, manifest, parts.names, { signal: parts.signal });
}

function memberOf(members: ReadonlyMap<string, Member>, name: unknown): Member {
  const member = typeof name === "string" ? members.get(cleanName(name)) : undefined;
  if (member === undefined)
    throw new ImageContentInvalid(what, `its member "${String(name).slice(0, 100)}" is missing`);
  return member;
}

async function isGzip(store: ImageContentStore, digest: Digest): Promise<boolean> {
  for await (const chunk of store.blobs.stream(digest)) {
    const bytes = chunk as Buffer;
    return bytes[0] === 0x1f && bytes[1] === 0x8b;
  }
  return false;
}

async function loadLayout(
  store: ImageContentStore,
  lease: Lease,
  members: ReadonlyMap<string, Member>,
  platform: Platform,
  signal: AbortSignal | undefined,
): Promise<readonly LoadedImage[] | undefined> {
  const top = members.get("index.json");
  if (top === undefined) return undefined;
  const bytes = await store.blobs.read(top.digest, manifestBytesMax);
  const index = parseManifest(bytes, mediaTypes.ociIndex);
  if (index.kind !== "index") throw new ImageContentInvalid(what, "its index.json is no index");
  const raw = (parseObject(bytes, manifestBytesMax, what)["manifests"] ?? []) as {
    annotations?: Record<string, unknown>;
  }[];
  const loaded: LoadedImage[] = [];
  for (const [at, entry] of index.manifests.entries()) {
    const annotations = raw[at]?.annotations ?? {};
    const written = annotations["io.containerd.image.name"] ?? annotations["org.opencontainers.image.ref.name"];
    const reference = typeof written === "string" && written !== "" ? parseReference(written) : undefined;
    let descriptor: Descriptor = entry;
    let content = parseManifest(await layoutBlob(store, members, entry), entry.mediaType);
    if (content.kind === "index") {
      descriptor = choosePlatform(content, platform, typeof written === "string" ? written : entry.digest);
      content = parseManifest(await layoutBlob(store, members, descriptor), descriptor.mediaType);
      if (content.kind === "index") throw new ImageContentInvalid(what, "an index in an index is not supported");
    }
    for (const blob of [content.config, ...content.layers]) requireBlob(members, blob);
    const names = reference === undefined ? [] : [nameKey(reference)];
    const image = await store.commitImage(lease, { ...descriptor, mediaType: content.mediaType }, content, names, {
      signal,
    });
    loaded.push({ image, names: reference === undefined ? [] : [familiar(reference)] });
  }
  return loaded;
}

function requireBlob(members: ReadonlyMap<string, Member>, blob: Descriptor): void {
  const member = members.get(`blobs/sha256/${blob.digest.slice("sha256:".length)}`);
  if (member === undefined) throw new ImageContentInvalid(what, `blob ${blob.digest} is missing`);
  if (member.digest !== blob.digest || member.size !== blob.size || !isDigest(blob.digest)) {
    throw new ImageContentInvalid(
      `blob ${blob.digest} of ${blob.size} bytes`,
      `the archive has ${member.size} bytes with digest ${member.digest}`,
    );
  }
}

async function layoutBlob(
  store: ImageContentStore,
  members: ReadonlyMap<string, Member>,
  blob: Descriptor,
): Promise<Uint8Array> {
  requireBlob(members, blob);
  return store.blobs.read(blob.digest, manifestBytesMax);
}
