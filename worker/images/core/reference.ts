/** Image references and digests, with Docker's rules for what is left out (distribution reference grammar). */
import { ImageReferenceInvalid } from "./errors.ts";

/** `sha256:` and 64 lower-case hexadecimal digits. */
export type Digest = string & { readonly __digest?: never };

export interface ImageReference {
  /** Host and perhaps port; `docker.io` when none was written. */
  readonly registry: string;
  /** Path in the registry, `library/` added for Docker Hub's own. */
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

const digestPattern = /^sha256:[0-9a-f]{64}$/;
const pathPart = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const hostPattern = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]{2,45}\])(?::[0-9]{1,5})?$/;
const repositoryMax = 255;

export function isDigest(text: unknown): text is Digest {
  return typeof text === "string" && digestPattern.test(text);
}

/** The hexadecimal half, which names files. */
export function digestHex(digest: Digest): string {
  return digest.slice("sha256:".length);
}

/**
 * Reads `[registry/]path[:tag][@digest]`.
 * @returns with tag "latest" when neither tag nor digest was written
 * @throws  ImageReferenceInvalid
 */
export function parseReference(text: string): ImageReference {
  const at = text.indexOf("@");
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest)) {
    throw new ImageReferenceInvalid(text, "the digest is not sha256 with 64 hexadecimal digits");
  }
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.indexOf(":", named.lastIndexOf("/") + 1);
  const tag = colon < 0 ? undefined : named.slice(colon + 1);
  if (tag !== undefined && !tagPattern.test(tag)) throw new ImageReferenceInvalid(text, "the tag is not valid");
  const path = colon < 0 ? named : named.slice(0, colon);

  const slash = path.indexOf("/");
  const first = slash < 0 ? "" : path.slice(0, slash);
  const hasHost = /[.:[]/.test(first) || first === "localhost" || first.toLowerCase() !== first;
  const registry = hasHost ? first : "docker.io";
  if (!hostPattern.test(registry)) throw new ImageReferenceInvalid(text, "the registry is not a host name");
  let repository = hasHost ? path.slice(slash + 1) : path;
  if (repository === "") throw new ImageReferenceInvalid(text, "the name is missing");
  if (!repository.split("/").every((part) => pathPart.test(part))) {
    const found = repository === repository.toLowerCase() ? "the name is not valid" : "the name must be lowercase";
    throw new ImageReferenceInvalid(text, found);
  }
  const normalised = registry === "index.docker.io" ? "docker.io" : registry;
  if (normalised === "docker.io" && !repository.includes("/")) repository = `library/${repository}`;
  if (repository.length > repositoryMax) throw new ImageReferenceInvalid(text, "the name is too long");
  return { registry: normalised, repository, tag: tag ?? (digest === undefined ? "latest" : undefined), digest };
}

/** The full name without tag and digest: equal for all ways of writing it. */
export function repositoryName(reference: ImageReference): string {
  return `${reference.registry}/${reference.repository}`;
}

/** As a person writes it: Docker Hub's host and `library/` left out. */
export function familiarName(reference: ImageReference): string {
  if (reference.registry !== "docker.io") return repositoryName(reference);
  return reference.repository.startsWith("library/")
    ? reference.repository.slice("library/".length)
    : reference.repository;
}

/** Familiar name with the tag or else the digest. */
export function familiar(reference: ImageReference): string {
  const name = familiarName(reference);
  if (reference.tag !== undefined) return `${name}:${reference.tag}`;
  return reference.digest === undefined ? name : `${name}@${reference.digest}`;
}
