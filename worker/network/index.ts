/**
 * Network: connects the containers of this node.
 * In:    records of the cluster's networks from the agent; sandboxes asked for by the executor and the local API.
 * Out:   the kernel's links, routes, neighbours, fdb, rules and nft tables, kept as they are wanted by native/netplane.
 * core/  the model: facts to wanted objects; overlays, service addresses, the host's side. Pure.
 * dns/   the resolver of containers, by names.
 * Uses:  proto, lib, native/netplane.   Used by: agent, executor, api, worker.ts.   Design: docs/design/network.md
 */
export * from "./contract.ts";
export type { LocalNetworkRecord, LocalNetworkWish } from "./core/local-network.ts";
export type { TunnelPeer } from "./core/diagnosis.ts";
export type { DoctorReport } from "./doctor.ts";
export * from "./errors.ts";
export type { LocalNetworks } from "./local-networks.ts";
export { NodeNetwork, type NodeNetworkOptions } from "./node-network.ts";
