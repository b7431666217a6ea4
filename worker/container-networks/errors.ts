/** Why a container is not on a network. Words are the Engine API's where its clients match on them. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class ContainerNetworkNotFound extends ClusterError {
  readonly code = "CONTAINER_NETWORK_NOT_FOUND";
  constructor(reference: string) {
    super(`network ${reference.slice(0, 128)} not found`, { fix: "List the networks with `skep network ls`" });
  }
}

export class ContainerNetworkInvalid extends ClusterError {
  readonly code = "CONTAINER_NETWORK_INVALID";
  constructor(why: string) {
    super(why, { fix: "Correct what the message names" });
  }
}

export class ContainerNetworkConflict extends ClusterError {
  readonly code = "CONTAINER_NETWORK_CONFLICT";
  constructor(why: string) {
    super(why, { fix: "Look at the container's networks with inspect" });
  }
}

/** A network of this node that is only a configuration for others, or is in use as one. */
export class ConfigNetworkInUse extends ClusterError {
  readonly code = "CONFIG_NETWORK_IN_USE";
  constructor(name: string, users: readonly string[]) {
    super(`configuration network "${name}" is in use (${users.slice(0, 10).join(", ")})`, {
      fix: "Remove the networks that use it first",
    });
  }
}
