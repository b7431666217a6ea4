/**
 * Container networks: puts containers of the user's on networks, of this node and of the swarm.
 * In:    records of containers that start, end, are connected and disconnected; networks that are created and removed.
 * Out:   sandboxes with what was asked for; places in networks of the swarm, taken from managers and given back; events.
 * Uses:  containers (as its NetworkProvider), network, lib.   Used by: worker.ts, api.   Design: docs/design/container-networks.md
 */
export {
  ContainerNetworks,
  configLabel,
  idOf,
  nameOf,
  type NetworkEvent,
  type NodeNetwork,
} from "./container-networks.ts";
export * from "./errors.ts";
export { AgentPlaces, type PlacesOfAgent } from "./places.ts";
export { exposedPorts, readPort, wrongPorts } from "./published-ports.ts";
export { networkMode, networksOf, sharesNetwork, wrongEndpoint, wrongNetworking, type Networks } from "./wishes.ts";
