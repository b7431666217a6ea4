/**
 * DNS: the resolver of one node, for the containers on its networks.
 * In:    queries by UDP and TCP at the node's gateway address; who asks is known by the address that its router has checked.
 * Out:   addresses and names of the asker's own networks; for other names what the host's servers, or the container's, say.
 * core/  the wire format, the answer, the table of names. Pure.
 * Uses:  worker/network/contract, proto, lib.   Used by: worker/network.   Design: docs/design/names.md
 */
export { NameTable } from "./core/name-table.ts";
export { ResolverNotBound } from "./errors.ts";
export { Resolver, type ResolverFigures } from "./resolver.ts";
