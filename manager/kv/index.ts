/**
 * Keys: a small key-value and object interface on the real store, for tests, benches and operators' experiments.
 * In:    KvRequest, alone or many on one stream.
 * Out:   KvResponse; a follower passes changes on to the leader, one hop and no further.
 * Uses:  store, proto, lib.   Used by: manager.ts.   Design: docs/design/raft-driver.md
 */
export { KeysClient } from "./client.ts";
export { Keys, failureOf, type Forward } from "./keys.ts";
export { keysMethods } from "./methods.ts";
export { serveKeys } from "./serve.ts";
