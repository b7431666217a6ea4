/**
 * Identity: who this node is in a swarm, on disk and in TLS. `<data-root>/swarm/` holds
 *   node.key    private key (PKCS#8; sealed with the unlock key on managers of a locked swarm)
 *   node.crt    its certificate, the root that vouches for its issuer behind it while the root is being rotated
 *   root.crt    the roots trusted
 *   state.json  node and cluster, where it listens and is reached, the managers known; written last, so that a node has
 *               either entered a swarm or has not
 * folder   the files, replaced whole and durably      identity   one node's place, exchangeable while it is in use
 * found    makes a new cluster's root and this node its first manager      join   asks a cluster to be let in
 * renewer  renews the certificate in time, and at once when the role or the root changes
 * Uses: lib, proto.   Used by: daemon.   Design: docs/design/ca.md
 */
export { found, type Founded } from "./found.ts";
export { frameAddressIn, IdentityFolder, IdentityDamaged, type SwarmSettings } from "./folder.ts";
export { SwarmIdentity } from "./identity.ts";
export { join } from "./join.ts";
export { Renewer, type AskRenewal } from "./renewer.ts";
