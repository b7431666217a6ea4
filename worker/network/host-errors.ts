/** What can go wrong on the host's side: ports, addresses, local networks. Words follow the Engine API's where clients match on them. */
import { ClusterError } from "../../lib/pure/errors.ts";
import type { HostPort } from "./core/port-claims.ts";
import type { Range } from "./core/pools.ts";

export class PortInUse extends ClusterError {
  readonly code = "PORT_IN_USE";
  readonly port: HostPort;
  readonly usedBy: string;
  constructor(port: HostPort, usedBy: string) {
    const where = port.hostAddress === "" ? "0.0.0.0" : port.hostAddress;
    super(`Bind for ${where}:${port.port} failed: port is already allocated (${port.protocol}, by ${usedBy})`, {
      fix: "Publish another port, or stop what uses this one",
    });
    this.port = port;
    this.usedBy = usedBy;
  }
}

export class PortRangeFull extends ClusterError {
  readonly code = "PORT_RANGE_FULL";
  constructor(protocol: string, range: Range) {
    super(`Cannot choose a ${protocol} port of the host: none of ${range.first} to ${range.last} is free`, {
      fix: "Publish to a port outside that range, or stop what uses the ports in it",
    });
  }
}

export class ProtocolNotCarried extends ClusterError {
  readonly code = "PORT_PROTOCOL_UNSUPPORTED";
  constructor(port: number, protocol: string) {
    super(`Cannot publish port ${port}/${protocol}: this host's kernel does not track ${protocol}`, {
      fix: "Use a kernel with CONFIG_NF_CT_PROTO_SCTP, or the host's network (--network host), or publish it as tcp or udp",
    });
  }
}

export class LocalNetworkNotFound extends ClusterError {
  readonly code = "LOCAL_NETWORK_NOT_FOUND";
  constructor(name: string) {
    super(`network ${name} not found`, { fix: "List the networks with `skep network ls`" });
  }
}

export class LocalNetworkExists extends ClusterError {
  readonly code = "LOCAL_NETWORK_EXISTS";
  constructor(name: string) {
    super(`network with name ${name} already exists`, { fix: "Choose another name, or remove the network" });
  }
}

export class LocalNetworkInvalid extends ClusterError {
  readonly code = "LOCAL_NETWORK_INVALID";
  constructor(why: string) {
    super(why, { fix: "Correct what the message names" });
  }
}

export class LocalNetworkOverlaps extends ClusterError {
  readonly code = "LOCAL_NETWORK_OVERLAPS";
  constructor(subnet: string, other: string) {
    super(`Pool overlaps with other one on this address space: ${subnet} and ${other}`, {
      fix: "Choose another subnet with --subnet, or leave it out",
    });
  }
}

export class LocalSubnetsExhausted extends ClusterError {
  readonly code = "LOCAL_SUBNETS_EXHAUSTED";
  constructor() {
    super(
      "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
      {
        fix: "Remove networks that are not used (`skep network prune`), or give a subnet with --subnet",
      },
    );
  }
}

export class LocalNetworkInUse extends ClusterError {
  readonly code = "LOCAL_NETWORK_IN_USE";
  constructor(name: string, id: string, containers: readonly string[]) {
    super(
      `error while removing network: network ${name} id ${id} has active endpoints (${containers.slice(0, 10).join(", ")})`,
      { fix: "Disconnect or remove these containers first" },
    );
  }
}

export class LocalNetworkPredefined extends ClusterError {
  readonly code = "LOCAL_NETWORK_PREDEFINED";
  constructor(name: string, act: "removed" | "created") {
    super(
      act === "removed"
        ? `${name} is a pre-defined network and cannot be removed`
        : `operation is not permitted on predefined ${name} network `,
      { fix: "Use a network of your own" },
    );
  }
}

export class LocalAddressesExhausted extends ClusterError {
  readonly code = "LOCAL_ADDRESSES_EXHAUSTED";
  constructor(name: string, subnet: string) {
    super(`no available IPv4 addresses on this network's address pools: ${name} (${subnet})`, {
      fix: "Remove containers of the network, or create one with a larger subnet",
    });
  }
}

export class LocalAddressInUse extends ClusterError {
  readonly code = "LOCAL_ADDRESS_IN_USE";
  constructor(address: string) {
    super(`Address already in use: ${address}`, { fix: "Choose another address, or none" });
  }
}

export class LocalDriverUnknown extends ClusterError {
  readonly code = "LOCAL_NETWORK_DRIVER_UNKNOWN";
  constructor(driver: string) {
    super(`plugin "${driver.slice(0, 64)}" not found`, { fix: "Use the driver bridge, or overlay in a swarm" });
  }
}
