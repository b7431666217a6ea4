/** Why a session does not begin, or ends. The agent acts on the code. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class SessionInvalid extends ClusterError {
  readonly code = "SESSION_INVALID";
  constructor(nodeId: string, found: string) {
    super(`Cannot serve node ${nodeId}: ${found}`, { fix: "Check that the node runs a compatible release" });
  }
}

/** The node cannot have this place; its daemon tells whoever asked. */
export class AttachmentRefused extends ClusterError {
  readonly code = "ATTACH_REFUSED";
  constructor(
    network: string,
    found: string,
    fix = "Name a network of the cluster that was made with --attachable; `skep network ls` shows those there are",
  ) {
    super(`Cannot attach a container to network ${network}: ${found}`, { fix });
  }
}
