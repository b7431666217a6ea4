/** What can hinder a node from entering a swarm, beside what the managers say. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class JoinRootMismatch extends ClusterError {
  readonly code = "JOIN_ROOT_MISMATCH";
  constructor(address: string) {
    super(`Cannot join through ${address}: the root certificate there is not the one that the join token names`, {
      fix: "Check that the address and the token are of the same swarm, and print a fresh token: the root may have been rotated",
    });
  }
}

export class JoinUnreachable extends ClusterError {
  readonly code = "JOIN_UNREACHABLE";
  constructor(addresses: readonly string[], cause: unknown) {
    const found = cause instanceof Error ? cause.message : "nothing answered";
    super(`Cannot join through ${addresses.join(", ")}: ${found}`, {
      fix: "Check that the addresses are those of managers, that their port (2377) is open, and that a majority is up",
      cause,
    });
  }
}

export class JoinAddressMissing extends ClusterError {
  readonly code = "JOIN_ADDRESS_MISSING";
  constructor() {
    super("Cannot join a swarm: no address of a manager was given", {
      fix: "Give at least one as HOST:PORT, as `skep swarm join-token` prints it",
    });
  }
}

/** What a manager answered does not fit what was asked for. */
export class JoinAnswerInvalid extends ClusterError {
  readonly code = "JOIN_ANSWER_INVALID";
  constructor(address: string, found: string, cause?: unknown) {
    super(`Cannot join through ${address}: ${found}`, {
      fix: "Check that this node and the managers run compatible releases",
      cause,
    });
  }
}
