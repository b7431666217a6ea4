/**
 * Allocator: gives networks their numbers and subnets, services their virtual addresses and published ports, tasks their
 * addresses; and says why it cannot.
 * In:    networks, services, tasks and the cluster's address pools, from a store watch.
 * Out:   all of that as records; tasks PENDING, or NEW with the reason; the networks that every cluster has.
 * core/  the ledger: who has what. Pure: rebuilt from the store when leadership begins.
 * Uses:  store, proto, lib.   Used by: leadership.ts.   Design: docs/design/allocator.md
 */
export { Allocator, type AllocatorOptions } from "./allocator.ts";
