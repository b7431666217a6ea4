/**
 * Allocator: gives tasks leave to be placed.
 * Uses:  store, proto, lib.   Used by: leadership.ts.
 */
export { Allocator, type AllocatorOptions } from "./allocator.ts";
