/** What callers of the authority are told. No token, key or secret is ever in a text. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class CaNotReady extends ClusterError {
  readonly code = "CA_NOT_READY";
  constructor() {
    super("Cannot answer for the cluster's authority: this manager does not know the cluster yet", {
      fix: "Try again in a moment, or ask another manager",
    });
  }
}

export class BootstrapInvalid extends ClusterError {
  readonly code = "BOOTSTRAP_INVALID";
  constructor(found: string) {
    super(`Cannot make the cluster: ${found}`, { fix: "Initialise the swarm again; the daemon writes what is needed" });
  }
}

/** The token has the form of one and belongs to this cluster's root, but its secret is not one in force. */
export class JoinTokenWrong extends ClusterError {
  readonly code = "JOIN_TOKEN_WRONG";
  constructor() {
    super("Cannot admit the node: the join token is not valid, and may have been rotated", {
      fix: "Print the token in force with `skep swarm join-token worker` or `manager` on a manager, and join with it",
    });
  }
}

export class JoinTokenOfAnotherCluster extends ClusterError {
  readonly code = "JOIN_TOKEN_OF_ANOTHER_CLUSTER";
  constructor() {
    super(
      "Cannot admit the node: the join token belongs to another cluster, or to this one's root before its rotation",
      {
        fix: "Check the address, and print the token in force with `skep swarm join-token` on a manager of this cluster",
      },
    );
  }
}

export class JoinTooOften extends ClusterError {
  readonly code = "JOIN_TOO_OFTEN";
  constructor(found: string, waitMs: number) {
    super(`Cannot admit the node: ${found}`, { fix: `Try again in ${Math.ceil(waitMs / 1000)} s` });
  }
}

export class JoinRequestInvalid extends ClusterError {
  readonly code = "JOIN_REQUEST_INVALID";
  constructor(found: string) {
    super(`Cannot admit the node: ${found}`, { fix: "Join with a release of skep that this cluster's managers know" });
  }
}

/** A VXLAN link has one family of IP, so all nodes of a cluster have: no network would ever lead to this one. */
export class DataPathFamily extends ClusterError {
  readonly code = "DATA_PATH_FAMILY";
  /** @param ours,theirs  where frames of the cluster's node and of the one that joins go */
  constructor(ours: string, theirs: string) {
    const family = ours.includes(":") ? "IPv6" : "IPv4";
    super(
      `Cannot admit the node: frames between nodes of this cluster go by ${family} (to ${ours}, say), and to this node they would go to ${theirs}`,
      {
        fix: `Join with --data-path-addr and an ${family} address of the host, or the name of the interface that has it; the address to advertise may be of either family`,
      },
    );
  }
}

/** A node whose certificate is genuine, and which the cluster has removed. */
export class NodeRevoked extends ClusterError {
  readonly code = "NODE_REVOKED";
  constructor(nodeId: string) {
    super(`Cannot serve node ${nodeId}: it was removed from the cluster`, {
      fix: "Run `skep swarm leave --force` on the node, then join it again with a token: it becomes a new node",
    });
  }
}

export class NodeUnknown extends ClusterError {
  readonly code = "NODE_UNKNOWN";
  constructor(nodeId: string) {
    super(`Cannot renew the certificate of node ${nodeId}: the cluster has no such node`, {
      fix: "Run `skep swarm leave --force` on the node, then join it again with a token",
    });
  }
}

/** A manager that asks to be let into consensus, and which its node object does not know as that member. */
export class MemberNotExpected extends ClusterError {
  readonly code = "MEMBER_NOT_EXPECTED";
  constructor(nodeId: string, found: string) {
    super(`Cannot let the manager of node ${nodeId} in: ${found}`, {
      fix: "Let the node renew its certificate; if it was demoted, promote it first",
    });
  }
}
