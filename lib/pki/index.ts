/**
 * Pki: keys, certificates and whom to trust.
 * certificate    what a node's certificate says, and its dates     authority   the root; issues certificates for requests
 * tls-identity   mutual TLS by role, exchangeable while running    statement   small signed messages in the cluster's name
 * Uses: lib/pure, node:crypto, @peculiar/x509.   Used by: lib/rpc, manager/raft/transport, manager/ca, daemon.
 */
export { Authority, createAuthority, createRequest, nodeLifeMs, type AuthorityMaterial } from "./authority.ts";
export {
  checkDates,
  readCertificate,
  readRoots,
  renewalMs,
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
  RequestInvalid,
  StatementInvalid,
} from "./errors.ts";
export { generatePrivateKey } from "./keys.ts";
export { readStatement, signStatement, statementBytesMax, type Statement } from "./statement.ts";
export { TlsIdentity, checkCurrent, type PeerExpectation, type TlsMaterial } from "./tls-identity.ts";
