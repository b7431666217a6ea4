/** Operating errors of images. Codes stand in docs/errors.md. */
import { ClusterError, type ClusterErrorOptions } from "../../../lib/pure/errors.ts";

export class ImageReferenceInvalid extends ClusterError {
  readonly code = "IMAGE_REFERENCE_INVALID";
  constructor(text: string, found: string) {
    super(`Cannot read image reference "${text.slice(0, 300)}": ${found}`, {
      fix: "Write it as [registry/]name[:tag][@sha256:digest], for example busybox:1.36",
    });
  }
}

export class ImageNotFound extends ClusterError {
  readonly code = "IMAGE_NOT_FOUND";
  constructor(reference: string) {
    super(`Cannot find image "${reference}": no such image on this node`, { fix: "Pull, load or import it first" });
  }
}

/** In the Engine's words, which clients and scripts match on. */
export class ImageInUse extends ClusterError {
  readonly code = "IMAGE_IN_USE";
  private constructor(what: string, how: "must force" | "must be forced" | "cannot be forced", found: string) {
    const fix = how === "cannot be forced" ? "Stop what uses it" : "Remove what uses it, or force";
    super(`conflict: unable to ${what} (${how}) - ${found}`, { fix });
  }

  /** Of the last name of an image that a container uses. @param container, image  short ids */
  static reference(reference: string, container: string, image: string): ImageInUse {
    const found = `container ${container} is using its referenced image ${image}`;
    return new ImageInUse(`remove repository reference ${JSON.stringify(reference)}`, "must force", found);
  }

  static image(image: string, how: "must be forced" | "cannot be forced", found: string): ImageInUse {
    return new ImageInUse(`delete ${image}`, how, found);
  }
}

/** What came from a registry or an archive is not what its description says, or is no valid description. */
export class ImageContentInvalid extends ClusterError {
  readonly code = "IMAGE_CONTENT_INVALID";
  constructor(what: string, found: string, cause?: unknown) {
    super(`Cannot accept ${what}: ${found}`, {
      fix: "The image or the registry is damaged or hostile: nothing of it was kept. Try another source",
      ...(cause === undefined ? {} : { cause }),
    });
  }
}

export class ImageTooLarge extends ClusterError {
  readonly code = "IMAGE_TOO_LARGE";
  constructor(what: string, found: string) {
    super(`Cannot accept ${what}: ${found}`, {
      fix: "Use a smaller image, or raise the limit in the worker's options",
    });
  }
}

export class ImagePlatformMissing extends ClusterError {
  readonly code = "IMAGE_PLATFORM_MISSING";
  constructor(reference: string, wanted: string, offered: readonly string[]) {
    super(`Cannot use image "${reference}": no manifest for ${wanted}, only for ${offered.join(", ") || "nothing"}`, {
      fix: "Choose an image that is built for this platform",
    });
  }
}

export class RegistryUnreachable extends ClusterError {
  readonly code = "REGISTRY_UNREACHABLE";
  constructor(act: string, found: string, cause?: unknown) {
    super(`Cannot ${act}: ${found}`, {
      fix: "Check the registry's address and the network; an http registry must be on the insecure-registries list",
      ...(cause === undefined ? {} : { cause }),
    });
  }
}

export class RegistryDenied extends ClusterError {
  readonly code = "REGISTRY_DENIED";
  constructor(act: string, found: string) {
    super(`Cannot ${act}: ${found}`, { fix: "Log in to the registry, and check that the name is spelled right" });
  }
}

export class RegistryRefused extends ClusterError {
  readonly code = "REGISTRY_REFUSED";
  readonly status: number;
  constructor(act: string, status: number, found: string) {
    super(`Cannot ${act}: the registry answered ${status}${found === "" ? "" : ` (${found})`}`, {
      fix: status === 404 ? "Check the name and the tag" : "Look into the registry's log",
    });
    this.status = status;
  }
}

export class DiskFull extends ClusterError {
  readonly code = "WORKER_DISK_FULL";
  constructor(act: string, options: ClusterErrorOptions = {}) {
    super(`Cannot ${act}: the disk is full`, { fix: "Free space, for example with `skep image prune`", ...options });
  }
}
