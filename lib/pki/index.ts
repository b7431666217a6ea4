/**
 * Pki: keys, certificates and whom to trust.
 * certificate    what a node's certificate says, and its dates     authority   the root; issues certificates for requests
 * tokens         join tokens and unlock keys, as people carry them   sealed-key   a private key locked with an unlock key
 * stranger       TLS before a node has a certificate               reinstatement   and after it has ended
 * x509, der      what stands in certificates and requests: written, and read from strangers
 * tls-identity   mutual TLS by role, exchangeable while running    statement   small signed messages in the cluster's name
 * Uses: lib/pure, node:crypto.   Used by: lib/rpc, manager/raft/transport, manager/ca, daemon.
 */
export {
  Authority,
  checkRoot,
  checkRootKey,
  createAuthority,
  createRequest,
  nodeIdOf,
  nodeLifeMs,
  publicKeyOfRoot,
  readRequestKey,
  type AuthorityMaterial,
} from "./authority.ts";
export {
  checkDates,
  readCertificate,
  readRoots,
  renewalMs,
  splitBundle,
  type Certificate,
  type NodeIdentity,
  type NodeRole,
} from "./certificate.ts";
export {
  CertificateExpired,
  CertificateInvalid,
  CertificateNotYetValid,
  PeerNotTrusted,
  PrivateKeyInvalid,
  ReinstatementRefused,
  RequestInvalid,
  StatementInvalid,
} from "./errors.ts";
export { issuerOf, type Issuer } from "./chain.ts";
export { generatePrivateKey, samePublicKey } from "./keys.ts";
export { NodeKeyLocked, UnlockKeyWrong, isSealed, openPrivateKey, sealPrivateKey } from "./sealed-key.ts";
export { proveCertified, readCertified, type Shown } from "./reinstatement.ts";
export { Stranger } from "./stranger.ts";
export { readStatement, signStatement, statementBytesMax, type Statement } from "./statement.ts";
export {
  JoinTokenInvalid,
  UnlockKeyInvalid,
  digestOfRoot,
  formatUnlockKey,
  makeJoinToken,
  makeUnlockKey,
  readJoinToken,
  readUnlockKey,
  sameSecret,
  type DrawBytes,
  type JoinToken,
} from "./tokens.ts";
export { TlsIdentity, checkCurrent, type PeerExpectation, type TlsMaterial } from "./tls-identity.ts";
