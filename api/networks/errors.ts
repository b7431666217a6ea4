/** What is refused of networks, in the Engine's words. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class Predefined extends ClusterError {
  readonly code = "OBJECT_PREDEFINED";
  constructor(found: string) {
    super(found, { fix: "Use a network of your own instead" });
  }
}

export class NetworkMissing extends ClusterError {
  readonly code = "NO_SUCH_OBJECT";
  constructor(reference: string) {
    super(`network ${reference} not found`, { fix: "List the networks for their ids and names" });
  }
}

export class NetworkNameTaken extends ClusterError {
  readonly code = "NAME_CONFLICT";
  constructor(name: string) {
    super(`network with name ${name} already exists`, { fix: "Choose another name, or remove the network" });
  }
}

export class PluginMissing extends ClusterError {
  readonly code = "NO_SUCH_PLUGIN";
  readonly status = 404;
  constructor(name: string) {
    super(`plugin ${JSON.stringify(name.slice(0, 64))} not found`, {
      fix: "Use the driver bridge, or overlay in a swarm",
    });
  }
}

/** The container cannot be put on, or taken from, this network. */
export class ConnectionRefused extends ClusterError {
  readonly code = "CONTAINER_NETWORK_REFUSED";
  readonly status = 403;
  constructor(found: string) {
    super(found, { fix: "Look at the container's networks and network mode with inspect" });
  }
}
