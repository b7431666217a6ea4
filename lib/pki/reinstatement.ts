/**
 * A node whose certificate has ended shows that it is still the one who was certified: with the key of that certificate it
 * signs the request for the next one. Whether the cluster still wants it, and for how long after the end, is the
 * authority's to decide.
 */
import { sign, verify, type KeyObject } from "node:crypto";

import { readCertificate, type Certificate } from "./certificate.ts";
import { pem } from "./der.ts";
import { ReinstatementRefused } from "./errors.ts";
import { digestOf } from "./keys.ts";

/** What a node shows. */
export interface Shown {
  /** PEM, of the key to come. */
  readonly csr: string;
  /** The one that has ended. */
  readonly certificatePem: string;
  readonly proof: Uint8Array;
}

const label = Buffer.from("skep reinstatement, version 1\0");
const proofBytesMax = 1024;

/** @param csr  PEM, of the key to come @param key  of the certificate that has ended */
export function proveCertified(csr: string, certificate: Certificate, key: KeyObject): Shown {
  const proof = sign(digestOf(key), signed(csr, certificate), key);
  return { csr, certificatePem: pem("CERTIFICATE", certificate.raw), proof };
}

/**
 * @returns  the certificate, which one of these roots issued for this cluster, and whose key signed the request
 * @throws   ReinstatementRefused, CertificateInvalid; dates are not looked at
 */
export function readCertified(
  shown: Shown,
  trust: { readonly roots: readonly KeyObject[]; readonly clusterId: string },
): Certificate {
  const certificate = readCertificate(shown.certificatePem);
  if (certificate.identity.clusterId !== trust.clusterId)
    throw new ReinstatementRefused("its certificate is of another cluster");
  if (!trust.roots.some((root) => certificate.signedBy(root)))
    throw new ReinstatementRefused("its certificate is not of the cluster's present root");
  const { publicKey } = certificate;
  const fits =
    shown.proof.length <= proofBytesMax &&
    verify(digestOf(publicKey), signed(shown.csr, certificate), publicKey, shown.proof);
  if (!fits) throw new ReinstatementRefused("it does not have the key of its certificate");
  return certificate;
}

function signed(csr: string, certificate: Certificate): Buffer {
  return Buffer.concat([label, certificate.raw, Buffer.from(csr)]);
}
