/**
 * What a node's certificate says: CN = node id, OU = role, O = cluster id, and for managers a URI
 * `spiffe://CLUSTER/node/NODE/member/MEMBER` with the id of its consensus member. Who a peer is comes from here and
 * never from a field of a message.
 */
import { createHash, X509Certificate as NodeCertificate, type KeyObject } from "node:crypto";

import { CertificateExpired, CertificateInvalid, CertificateNotYetValid } from "./errors.ts";
import { partsOf, type CertificateParts } from "./x509.ts";

export type NodeRole = "manager" | "worker";

export interface NodeIdentity {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: NodeRole;
  /** Managers only: the consensus member that the node is. */
  readonly memberId: number | undefined;
}

export interface Certificate {
  readonly identity: NodeIdentity;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** SHA-256 of the whole certificate, hexadecimal. */
  readonly fingerprint: string;
  readonly serial: string;
  readonly publicKey: KeyObject;
  /** DER. */
  readonly raw: Buffer;
  /** Whether `issuer` signed it. Says nothing of dates. */
  signedBy(issuer: KeyObject): boolean;
}

export const organizationalUnits: Readonly<Record<NodeRole, string>> = {
  manager: "swarm-manager",
  worker: "swarm-worker",
};

const certificateBytesMax = 16 * 1024;

export function memberUri(identity: NodeIdentity): string {
  return `spiffe://${identity.clusterId}/node/${identity.nodeId}/member/${identity.memberId}`;
}

/**
 * @param encoded  DER, or PEM (of a chain, the first)
 * @throws CertificateInvalid
 */
export function readCertificate(encoded: Uint8Array | string): Certificate {
  const what = "the certificate";
  if (encoded.length > 4 * certificateBytesMax)
    throw new CertificateInvalid(what, `${encoded.length} bytes are too many`);
  let node: NodeCertificate;
  let parts: CertificateParts;
  let publicKey: KeyObject;
  try {
    node = new NodeCertificate(encoded);
    parts = partsOf(node);
    // Of a kind that OpenSSL does not know it cannot be read.
    publicKey = node.publicKey;
  } catch (error) {
    throw new CertificateInvalid(what, "it is not an X.509 certificate", error);
  }
  if (node.raw.length > certificateBytesMax)
    throw new CertificateInvalid(what, `${node.raw.length} bytes are too many`);
  return {
    identity: readIdentity(parts),
    notBeforeMs: parts.notBeforeMs,
    notAfterMs: parts.notAfterMs,
    fingerprint: createHash("sha256").update(node.raw).digest("hex"),
    serial: node.serialNumber.toLowerCase(),
    publicKey,
    raw: node.raw,
    signedBy: (issuer) => node.verify(issuer),
  };
}

function readIdentity(certificate: CertificateParts): NodeIdentity {
  const field = (name: Parameters<CertificateParts["field"]>[0]): string => {
    const values = certificate.field(name);
    // A second value could be read by someone else as the one that counts.
    if (values.length !== 1)
      throw new CertificateInvalid("the certificate", `its subject has ${values.length} ${name}`);
    return values[0] as string;
  };
  const unit = field("OU");
  const role =
    unit === organizationalUnits.manager ? "manager" : unit === organizationalUnits.worker ? "worker" : undefined;
  if (role === undefined)
    throw new CertificateInvalid("the certificate", `its role ${JSON.stringify(unit.slice(0, 64))} is unknown`);
  const plain = { nodeId: field("CN"), clusterId: field("O"), role } as const;
  if (!/^[0-9a-z]{1,64}$/.test(plain.nodeId))
    throw new CertificateInvalid("the certificate", "its CN is not a node id");
  if (!/^[0-9a-z]{1,64}$/.test(plain.clusterId))
    throw new CertificateInvalid("the certificate", "its O is not a cluster id");
  return { ...plain, memberId: role === "manager" ? readMemberId(certificate, plain) : undefined };
}

function readMemberId(
  certificate: CertificateParts,
  of: { nodeId: string; clusterId: string; role: NodeRole },
): number {
  const uris = certificate.uris.filter((uri) => uri.startsWith("spiffe:"));
  if (uris.length !== 1) throw new CertificateInvalid("the certificate", `it has ${uris.length} member URIs`);
  const memberId = Number(/\/member\/([1-9][0-9]{0,15})$/.exec(uris[0] as string)?.[1]);
  if (!Number.isSafeInteger(memberId) || uris[0] !== memberUri({ ...of, memberId })) {
    throw new CertificateInvalid("the certificate", "its member URI does not fit its subject");
  }
  return memberId;
}

/** @throws CertificateExpired, CertificateNotYetValid */
export function checkDates(certificate: Certificate, what: string, nowMs: number): void {
  if (nowMs > certificate.notAfterMs) throw new CertificateExpired(what, certificate.notAfterMs);
  if (nowMs < certificate.notBeforeMs) throw new CertificateNotYetValid(what, certificate.notBeforeMs);
}

/**
 * When to ask for a new one: at a moment between 50 % and 80 % of its life, different for each node, so that nodes that
 * joined together do not renew together.
 * @param chance  uniform in [0, 1)
 */
export function renewalMs(certificate: Certificate, chance: number): number {
  const lifeMs = certificate.notAfterMs - certificate.notBeforeMs;
  return certificate.notBeforeMs + lifeMs * (0.5 + 0.3 * chance);
}

/** The certificates of a bundle in PEM, in order, unread. @throws CertificateInvalid on a bundle that is too large */
export function splitBundle(bundlePem: string): string[] {
  if (bundlePem.length > 256 * 1024) throw new CertificateInvalid("the trusted roots", "the bundle is too large");
  return bundlePem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
}

/** Public keys of a bundle of roots in PEM. @throws CertificateInvalid */
export function readRoots(bundlePem: string): KeyObject[] {
  const blocks = splitBundle(bundlePem);
  if (blocks.length === 0) throw new CertificateInvalid("the trusted roots", "there is no certificate in the bundle");
  return blocks.map((block) => {
    try {
      const root = new NodeCertificate(block);
      if (!root.ca) throw new CertificateInvalid("the trusted roots", "one of them is not an authority");
      return root.publicKey;
    } catch (error) {
      if (error instanceof CertificateInvalid) throw error;
      throw new CertificateInvalid("the trusted roots", "one of them is not an X.509 certificate", error);
    }
  });
}
