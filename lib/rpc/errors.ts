/** What can go wrong between two ends of a call, beside what the other end says itself. */
import { ClusterError } from "../pure/errors.ts";

/** What the other end said, under the code that it gave; codes of newer releases are carried along as they are. */
export class RemoteError extends ClusterError {
  readonly code: string;
  constructor(code: string, message: string, fix: string | undefined, cause: unknown) {
    super(message, { ...(fix === undefined ? {} : { fix }), cause });
    this.code = code;
  }
}

export class RpcUnavailable extends ClusterError {
  readonly code = "RPC_UNAVAILABLE";
  /** The host answered that nobody listens there. */
  readonly refused: boolean;
  constructor(address: string, found: string, cause?: unknown) {
    super(`Cannot reach ${address}: ${found}`, {
      fix: "Check that the node is up, that its port is open, and that both hosts' clocks are right",
      cause,
    });
    this.refused = found.includes("ECONNREFUSED");
  }
}

export class RpcDeadlineExceeded extends ClusterError {
  readonly code = "RPC_DEADLINE_EXCEEDED";
  constructor(path: string) {
    super(`Cannot finish ${path} in time: there was no answer`, {
      fix: "Try again; if it goes on, check how busy the other node is",
    });
  }
}

export class RpcFailed extends ClusterError {
  readonly code = "RPC_FAILED";
  constructor(path: string, found: string, cause?: unknown) {
    super(`Cannot call ${path}: ${found}`, { fix: "Check that both nodes run compatible releases", cause });
  }
}

export class RpcTooLarge extends ClusterError {
  readonly code = "RPC_TOO_LARGE";
  constructor(path: string, found: string) {
    super(`Cannot call ${path}: ${found}`, { fix: "Send less at once" });
  }
}

/** All that a caller learns of a bug at the other end. */
export class RpcInternal extends ClusterError {
  readonly code = "RPC_INTERNAL";
  constructor(path: string) {
    super(`Cannot serve ${path}: internal error`, { fix: "Look into the log of the node that was called" });
  }
}

/** A caller without a certificate of this cluster, where one is needed. */
export class PeerNotAuthenticated extends ClusterError {
  readonly code = "PEER_NOT_AUTHENTICATED";
  constructor(path: string) {
    super(`Cannot serve ${path}: the caller has no valid certificate of this cluster`, {
      fix: "Call with the certificate of a node of this cluster; if it has one, check both hosts' clocks",
    });
  }
}

export class ListenFailed extends ClusterError {
  readonly code = "RPC_LISTEN_FAILED";
  constructor(address: string, found: string) {
    super(`Cannot listen on ${address}: ${found}`, {
      fix: "Give an address of this host and a port that is free",
    });
  }
}
