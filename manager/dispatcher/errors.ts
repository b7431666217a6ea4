/** Why a session does not begin, or ends. The agent acts on the code. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class SessionInvalid extends ClusterError {
  readonly code = "SESSION_INVALID";
  constructor(nodeId: string, found: string) {
    super(`Cannot serve node ${nodeId}: ${found}`, { fix: "Check that the node runs a compatible release" });
  }
}
