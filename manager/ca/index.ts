/**
 * Ca: who belongs to the cluster. Makes the cluster object, lets nodes in by token, issues and renews certificates, keeps
 * roles and consensus members in step, rotates the root, refuses nodes that were removed.
 * In:    requests of nodes; the cluster's settings and nodes' wished roles, from a store watch; consensus members (a port).
 * Out:   certificates; changes of cluster and node objects; members taken out of consensus.
 * core/  what is decided: pure
 * Uses:  store, proto, lib.   Used by: manager.ts.   Design: docs/design/ca.md
 */
export { Founder, readBootstrap, type Bootstrap } from "./bootstrap.ts";
export { Issuer } from "./issuer.ts";
export { LockKeeper, type Lock, type Locks } from "./lock-keeper.ts";
export { checkMember } from "./members.ts";
export { Revocations } from "./revocations.ts";
export { RoleManager, type Members } from "./role-manager.ts";
export { Rotator, type MakeRoot, type NextRoot } from "./rotator.ts";
export { makeRoot } from "./make-root.ts";
export { AuthorityService, type Leader } from "./service.ts";
