/**
 * What registries and archives say about images: indexes, manifests, configurations. All of it is hostile: every field
 * that is used is checked here, and what passes is a plain value of ours.
 * Sources: OCI image-spec manifest.md, image-index.md, config.md; Docker image manifest v2 schema 2.
 */
import { ImageContentInvalid, ImagePlatformMissing } from "./errors.ts";
import { type Digest, isDigest } from "./reference.ts";

export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  ociLayer: "application/vnd.oci.image.layer.v1.tar",
  ociLayerGzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  dockerIndex: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
  dockerLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
} as const;

/** What we ask a registry for, best first. */
export const manifestAccept = [
  mediaTypes.ociIndex,
  mediaTypes.dockerIndex,
  mediaTypes.ociManifest,
  mediaTypes.dockerManifest,
].join(", ");

export const manifestBytesMax = 4 * 1024 * 1024;
export const configBytesMax = 8 * 1024 * 1024;
/** Docker's own limit; overlay mounts take more, images do not need them. */
export const layersMax = 127;
const indexEntriesMax = 1024;

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

export interface ImageManifest {
  readonly kind: "manifest";
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

export interface ImageIndex {
  readonly kind: "index";
  readonly mediaType: string;
  readonly manifests: readonly (Descriptor & { readonly platform: Platform | undefined })[];
}

/** The part of an image's configuration that running it needs; the rest is kept as it came. */
export interface ImageConfig {
  readonly platform: Platform;
  readonly created: string | undefined;
  readonly diffIds: readonly Digest[];
  readonly run: RunConfig;
}

export interface RunConfig {
  readonly user: string;
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly workingDir: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly exposedPorts: readonly string[];
  readonly volumes: readonly string[];
  readonly stopSignal: string;
  readonly shell: readonly string[];
  readonly healthcheck: Healthcheck | undefined;
}

/** Durations are nanoseconds, 0 or absent means inherited. */
export interface Healthcheck {
  readonly test: readonly string[];
  readonly intervalNs: number;
  readonly timeoutNs: number;
  readonly startPeriodNs: number;
  readonly startIntervalNs: number;
  readonly retries: number;
}

type Json = Readonly<Record<string, unknown>>;

/** Parses a manifest or an index. @throws ImageContentInvalid */
export function parseManifest(bytes: Uint8Array, contentType: string | undefined): ImageManifest | ImageIndex {
  const what = "an image manifest";
  const root = parseObject(bytes, manifestBytesMax, what);
  if (root["schemaVersion"] !== 2) {
    throw new ImageContentInvalid(what, "schema version 1 and other old formats are not supported");
  }
  // The document's own word wins; a document that carries both lists is the attack of CVE-2021-41190.
  const mediaType = text(root["mediaType"], what) || (contentType ?? "").split(";")[0]?.trim() || "";
  const isIndex = Array.isArray(root["manifests"]);
  if (isIndex && (root["config"] !== undefined || root["layers"] !== undefined)) {
    throw new ImageContentInvalid(what, "it is a manifest and an index at once");
  }
  const indexTypes: readonly string[] = [mediaTypes.ociIndex, mediaTypes.dockerIndex];
  if (mediaType !== "" && indexTypes.includes(mediaType) !== isIndex) {
    throw new ImageContentInvalid(what, `its content does not fit its media type "${mediaType.slice(0, 100)}"`);
  }
  if (isIndex) {
    const manifests = list(root["manifests"], what, indexEntriesMax).map((entry) => {
      const at = object(entry, what);
      return {
        ...descriptor(at, what),
        platform: at["platform"] === undefined ? undefined : platform(at["platform"], what),
      };
    });
    return { kind: "index", mediaType: mediaType || mediaTypes.ociIndex, manifests };
  }
  const layers = list(root["layers"], what, layersMax).map((entry) => descriptor(object(entry, what), what));
  for (const layer of layers) compressionOf(layer.mediaType);
  const config = descriptor(object(root["config"], what), what);
  if (config.size > configBytesMax) throw new ImageContentInvalid(what, "its configuration is too large");
  return { kind: "manifest", mediaType: mediaType || mediaTypes.ociManifest, config, layers };
}

/** How a layer's bytes are to be read. @throws ImageContentInvalid on what is no layer of files */
export function compressionOf(mediaType: string): "none" | "gzip" | "zstd" {
  if (/^application\/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?$/.test(mediaType)) {
    return mediaType.endsWith("+gzip") ? "gzip" : mediaType.endsWith("+zstd") ? "zstd" : "none";
  }
  if (mediaType === mediaTypes.dockerLayerGzip) return "gzip";
  if (mediaType === mediaTypes.dockerLayer) return "none";
  throw new ImageContentInvalid("an image layer", `its media type "${mediaType.slice(0, 100)}" is not supported`);
}

/** The manifest for a platform; like Docker, without a variant any variant will do, and the first match wins. */
export function choosePlatform(index: ImageIndex, wanted: Platform, reference: string): Descriptor {
  const fits = (offered: Platform | undefined): boolean =>
    offered !== undefined && offered.os === wanted.os && offered.architecture === wanted.architecture;
  const fitting = index.manifests.filter((entry) => fits(entry.platform));
  const exact = fitting.find((entry) => entry.platform?.variant === wanted.variant);
  const chosen = exact ?? fitting[0];
  if (chosen === undefined) {
    const offered = index.manifests.flatMap((entry) =>
      entry.platform === undefined ? [] : [formatPlatform(entry.platform)],
    );
    throw new ImagePlatformMissing(reference, formatPlatform(wanted), offered);
  }
  return chosen;
}

export function formatPlatform(of: Platform): string {
  return `${of.os}/${of.architecture}${of.variant === "" ? "" : `/${of.variant}`}`;
}

/** Parses an image configuration and checks that it describes as many layers as the manifest has. */
export function parseConfig(bytes: Uint8Array, layersCount: number | undefined): ImageConfig {
  const what = "an image configuration";
  const root = parseObject(bytes, configBytesMax, what);
  const rootfs = object(root["rootfs"] ?? {}, what);
  const diffIds = list(rootfs["diff_ids"] ?? [], what, layersMax).map((entry) => {
    if (!isDigest(entry)) throw new ImageContentInvalid(what, "a layer's digest is not sha256");
    return entry;
  });
  if (layersCount !== undefined && diffIds.length !== layersCount) {
    throw new ImageContentInvalid(what, `it describes ${diffIds.length} layers, the manifest has ${layersCount}`);
  }
  const config = object(root["config"] ?? {}, what);
  return {
    platform: platform(root, what),
    created: root["created"] === undefined ? undefined : text(root["created"], what),
    diffIds,
    run: {
      user: text(config["User"], what),
      env: texts(config["Env"], what),
      entrypoint: texts(config["Entrypoint"], what),
      cmd: texts(config["Cmd"], what),
      workingDir: text(config["WorkingDir"], what),
      labels: textMap(config["Labels"], what),
      exposedPorts: Object.keys(object(config["ExposedPorts"] ?? {}, what)),
      volumes: Object.keys(object(config["Volumes"] ?? {}, what)),
      stopSignal: text(config["StopSignal"], what),
      shell: texts(config["Shell"], what),
      healthcheck: config["Healthcheck"] == null ? undefined : healthcheck(object(config["Healthcheck"], what), what),
    },
  };
}

function healthcheck(at: Json, what: string): Healthcheck {
  return {
    test: texts(at["Test"], what),
    intervalNs: count(at["Interval"], what),
    timeoutNs: count(at["Timeout"], what),
    startPeriodNs: count(at["StartPeriod"], what),
    startIntervalNs: count(at["StartInterval"], what),
    retries: count(at["Retries"], what),
  };
}

function descriptor(at: Json, what: string): Descriptor {
  const digest = at["digest"];
  if (!isDigest(digest)) throw new ImageContentInvalid(what, "a digest is not sha256 with 64 hexadecimal digits");
  const size = at["size"];
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw new ImageContentInvalid(what, "a size is not a number of bytes");
  }
  return { mediaType: text(at["mediaType"], what), digest, size };
}

function platform(from: unknown, what: string): Platform {
  const at = object(from, what);
  return { os: text(at["os"], what), architecture: text(at["architecture"], what), variant: text(at["variant"], what) };
}

/** JSON of bounded size; its nesting is bounded by the engine's own stack check, which ends as an error like any other. */
export function parseObject(bytes: Uint8Array, bytesMax: number, what: string): Json {
  if (bytes.length > bytesMax)
    throw new ImageContentInvalid(what, `it has ${bytes.length} bytes, at most ${bytesMax} are read`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new ImageContentInvalid(what, "it is not JSON", error);
  }
  return object(parsed, what);
}

function object(from: unknown, what: string): Json {
  if (typeof from !== "object" || from === null || Array.isArray(from)) {
    throw new ImageContentInvalid(what, "an object is missing");
  }
  return from as Json;
}

function list(from: unknown, what: string, countMax: number): readonly unknown[] {
  if (!Array.isArray(from)) throw new ImageContentInvalid(what, "a list is missing");
  if (from.length > countMax)
    throw new ImageContentInvalid(what, `a list has ${from.length} entries, at most ${countMax} are read`);
  return from;
}

function text(from: unknown, what: string): string {
  if (from == null) return "";
  if (typeof from !== "string") throw new ImageContentInvalid(what, "a text is of another type");
  if (from.includes("\0")) throw new ImageContentInvalid(what, "a text holds a NUL character");
  return from;
}

function texts(from: unknown, what: string): readonly string[] {
  return from == null ? [] : list(from, what, 65_536).map((entry) => text(entry, what));
}

function textMap(from: unknown, what: string): Readonly<Record<string, string>> {
  if (from == null) return {};
  return Object.fromEntries(Object.entries(object(from, what)).map(([key, value]) => [key, text(value, what)]));
}

function count(from: unknown, what: string): number {
  if (from == null) return 0;
  if (typeof from !== "number" || !Number.isSafeInteger(from) || from < 0) {
    throw new ImageContentInvalid(what, "a duration or count is out of range");
  }
  return from;
}
