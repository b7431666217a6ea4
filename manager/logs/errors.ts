/** What a node is told that brings output which nobody waits for. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class LogStreamUnknown extends ClusterError {
  readonly code = "LOG_STREAM_UNKNOWN";
  constructor(nodeId: string) {
    super(`Cannot take output from node ${nodeId}: nobody reads it any more`, {
      fix: "Nothing: the reader has left while the node was answering",
    });
  }
}
