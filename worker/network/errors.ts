/** Why a network, or a container's place in it, could not be made. */
import { ClusterError } from "../../lib/pure/errors.ts";

/** Something that managers tell has not arrived here yet; the same act may work a second later. */
export class NetworkNotReady extends ClusterError {
  readonly code = "NETWORK_NOT_READY";
  readonly temporary = true;
  constructor(network: string, found: string) {
    super(`Cannot attach to network ${network}: ${found}`, {
      fix: "Check that this node is ready in the swarm; what is missing arrives with the next assignments",
    });
  }
}

/** The node cannot build networks at all: containers with the networks host and none still run. */
export class NetworkUnavailable extends ClusterError {
  readonly code = "NETWORK_UNAVAILABLE";
  constructor(found: string, cause?: unknown) {
    super(`Cannot build networks on this node: ${found}`, {
      fix: "Run skepd as root with the kernel's network namespaces, veth, vxlan and nf_tables, or use the networks host and none",
      ...(cause === undefined ? {} : { cause }),
    });
  }
}

export class EncryptionUnavailable extends ClusterError {
  readonly code = "NETWORK_ENCRYPTION_UNAVAILABLE";
  constructor(network: string, nodeId: string, found: string) {
    super(`Cannot attach to the encrypted network ${network} on node ${nodeId}: ${found}`, {
      fix:
        "Give the node a kernel with WireGuard (`modprobe wireguard`; Linux 5.6 or later has it) and restart skepd there, or keep " +
        "tasks of this network off it; or create the network without the option encrypted. It is never sent in clear text instead",
    });
  }
}

/** A request that no node could fulfil: an address outside of its network, two of one network. */
export class SandboxInvalid extends ClusterError {
  readonly code = "SANDBOX_INVALID";
  constructor(found: string) {
    super(`Cannot connect the container: ${found}`, { fix: "Correct the networks and addresses that it asks for" });
  }
}

export class GatewayAddressesUsedUp extends ClusterError {
  readonly code = "GATEWAY_ADDRESSES_USED_UP";
  constructor(block: string) {
    super(`Cannot connect the container: all addresses of ${block} are taken by containers of this node`, {
      fix: "Stop containers on this node, or add a node",
    });
  }
}

/** The kernel refused a change. It is compared with what is wanted and tried again until it agrees. */
export class NetworkNotApplied extends ClusterError {
  readonly code = "NETWORK_NOT_APPLIED";
  readonly temporary = true;
  constructor(namespace: string, cause: unknown) {
    const where = namespace === "" ? "the host's namespace" : `the namespace ${namespace}`;
    super(`Cannot change ${where}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      fix: "Look for other programs that change the same namespace; skep goes on trying",
      cause,
    });
  }
}
