/** Names of images: what people type, and the full form. */

export interface ImageName {
  /** With the registry, for example `docker.io/library/busybox`. */
  readonly repo: string;
  /** A tag, or a digest with its algorithm; undefined when there is none. */
  readonly tag: string | undefined;
}

export function normalName(image: string): ImageName {
  const at = image.indexOf("@");
  const digest = at < 0 ? undefined : image.slice(at + 1);
  const named = at < 0 ? image : image.slice(0, at);
  const colon = named.lastIndexOf(":");
  const hasTag = colon > named.lastIndexOf("/");
  const tag = digest ?? (hasTag ? named.slice(colon + 1) : undefined);
  const name = hasTag ? named.slice(0, colon) : named;
  const [first = ""] = name.split("/");
  const hasHost = name.includes("/") && (/[.:]/.test(first) || first === "localhost");
  const repo = hasHost ? name : `docker.io/${name.includes("/") ? name : `library/${name}`}`;
  return { repo, tag };
}

/** Without what everybody leaves out. */
export function familiarName(repo: string): string {
  return repo.replace(/^docker\.io\/(library\/)?/, "");
}
