/** Who issued a certificate: the intermediate behind it, or else the trusted root that fits. */
import { X509Certificate as NodeCertificate } from "node:crypto";

import { splitBundle } from "./certificate.ts";
import { CertificateInvalid } from "./errors.ts";
import { publicDer } from "./keys.ts";
import type { TlsMaterial } from "./tls-identity.ts";
import { partsOf } from "./x509.ts";

export interface Issuer {
  /** DER of the issuer's name, as the certificate has it. */
  readonly subject: Uint8Array;
  /** DER of its public key (SubjectPublicKeyInfo). */
  readonly publicKey: Uint8Array;
}

/** @throws CertificateInvalid if nothing in the bundles issued it */
export function issuerOf({ certificatePem, rootsPem }: Pick<TlsMaterial, "certificatePem" | "rootsPem">): Issuer {
  const [leaf, ...behind] = splitBundle(certificatePem);
  if (leaf === undefined) throw new CertificateInvalid("the certificate", "there is none");
  const certificate = new NodeCertificate(leaf);
  for (const candidate of [...behind, ...splitBundle(rootsPem)]) {
    const issuer = new NodeCertificate(candidate);
    if (!certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey)) continue;
    return {
      subject: new Uint8Array(partsOf(certificate).issuer),
      publicKey: new Uint8Array(publicDer(issuer.publicKey)),
    };
  }
  throw new CertificateInvalid("the certificate", "none of the certificates behind it or trusted issued it");
}
