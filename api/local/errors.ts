/** What a client did wrong, in the Engine's words where clients know them. Other rooms' errors pass through. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class NoSuchImage extends ClusterError {
  readonly code = "IMAGE_NOT_FOUND";
  constructor(reference: string, found = `No such image: ${reference}`) {
    super(found, { fix: "Pull, load or import it first" });
  }
}

export class PluginNotFound extends ClusterError {
  readonly code = "PLUGIN_NOT_FOUND";
  constructor(name: string) {
    super(`plugin "${name}" not found`, { fix: "This engine has no plugins; do without it" });
  }
}
