/** The cluster's certificate authority: one self-signed root, and the certificates of nodes that it issues. */
import { createHash, createPublicKey, randomBytes, X509Certificate, type KeyObject } from "node:crypto";

import { memberUri, organizationalUnits, type NodeIdentity } from "./certificate.ts";
import { CertificateExpired, CertificateInvalid, CertificateNotYetValid, RequestInvalid } from "./errors.ts";
import { algorithmOf, generatePrivateKey, publicDer, readPrivateKey } from "./keys.ts";
import {
  authorityExtensions,
  authorityKeyExtension,
  keyIdOf,
  nameOf,
  nodeExtensions,
  partsOf,
  readSignedRequest,
  signCertificate,
  signRequest,
  subjectKeyExtension,
  type CertificateParts,
} from "./x509.ts";

export interface AuthorityMaterial {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

const dayMs = 86_400_000;
const rootLifeMs = 20 * 365 * dayMs;
export const nodeLifeMs = 90 * dayMs;
/** Certificates begin in the past, for hosts whose clocks are behind the issuer's. */
const backdateMs = 3_600_000;
const requestBytesMax = 16 * 1024;
const rootBytesMax = 64 * 1024;

/** Makes the root of a new cluster. */
export async function createAuthority(clusterId: string, nowMs: number): Promise<AuthorityMaterial> {
  const privateKeyPem = await generatePrivateKey();
  const key = readPrivateKey(privateKeyPem);
  const publicKey = publicDer(createPublicKey(key));
  const name = nameOf(["CN", "swarm-ca"], ["O", clusterId]);
  const certificatePem = signCertificate(
    {
      serial: newSerial(),
      issuer: name,
      subject: name,
      publicKey,
      notBeforeMs: nowMs - backdateMs,
      notAfterMs: nowMs + rootLifeMs,
      // One authority may stand between root and nodes: the next root, while this one is being rotated.
      extensions: [...authorityExtensions(1), subjectKeyExtension(keyIdOf(publicKey))],
    },
    key,
  );
  return { certificatePem, privateKeyPem };
}

/** A request for a certificate of the key's owner. Its subject says nothing: the issuer decides who the owner is. */
export async function createRequest(privateKeyPem: string): Promise<string> {
  return signRequest(nameOf(["CN", "node"]), readPrivateKey(privateKeyPem));
}

export class Authority {
  readonly #root: CertificateParts;
  readonly #key: KeyObject;

  /** @throws PrivateKeyInvalid, CertificateInvalid when the key is not that of the certificate */
  constructor(material: AuthorityMaterial) {
    this.#key = readPrivateKey(material.privateKeyPem);
    this.#root = readRoot(material.certificatePem).parts;
    checkOwnKey(this.#root, this.#key);
  }

  /**
   * Issues the certificate of a node for the key that signed the request; nothing else of the request counts.
   * @param options  `sinceMs`: it is valid from then on, if that is longer ago than is usual
   * @returns PEM
   * @throws  RequestInvalid, CertificateExpired when the root is near its end
   */
  async issue(
    requestPem: string,
    identity: NodeIdentity,
    options: { readonly nowMs: number; readonly lifeMs?: number; readonly sinceMs?: number },
  ): Promise<string> {
    if (identity.role === "manager" && identity.memberId === undefined) {
      throw new RequestInvalid("a manager needs the id of its member");
    }
    const publicKey = readRequest(requestPem);
    const notAfterMs = Math.min(this.#root.notAfterMs, options.nowMs + (options.lifeMs ?? nodeLifeMs));
    if (notAfterMs <= options.nowMs) throw new CertificateExpired("the root certificate", this.#root.notAfterMs);
    const sinceMs = Math.min(options.nowMs - backdateMs, options.sinceMs ?? Infinity);
    const unit = organizationalUnits[identity.role];
    return this.#sign({
      subject: nameOf(["CN", identity.nodeId], ["OU", unit], ["O", identity.clusterId]),
      publicKey,
      notBeforeMs: Math.max(this.#root.notBeforeMs, sinceMs),
      notAfterMs,
      extensions: [
        ...nodeExtensions({
          dns: [unit, identity.nodeId],
          uris: identity.role === "manager" ? [memberUri(identity)] : [],
        }),
        subjectKeyExtension(keyIdOf(publicKey)),
      ],
    });
  }

  /**
   * Vouches for the next root: a certificate of its name and key, signed by this one. Behind a leaf that the next root
   * signed, it leads those who trust only this root.
   * @returns PEM
   * @throws  CertificateInvalid, CertificateExpired when this root is at its end
   */
  async vouchFor(nextRootPem: string, nowMs: number): Promise<string> {
    const { parts: next } = readRoot(nextRootPem);
    const notAfterMs = Math.min(this.#root.notAfterMs, next.notAfterMs);
    if (notAfterMs <= nowMs) throw new CertificateExpired("the root certificate", this.#root.notAfterMs);
    return this.#sign({
      subject: next.subject,
      publicKey: next.publicKey,
      notBeforeMs: Math.min(nowMs - backdateMs, notAfterMs),
      notAfterMs,
      extensions: [...authorityExtensions(0), subjectKeyExtension(subjectKeyOf(next))],
    });
  }

  #sign(parts: Omit<Parameters<typeof signCertificate>[0], "serial" | "issuer">): string {
    const issuer = this.#root.subject;
    const extensions = [...parts.extensions, authorityKeyExtension(subjectKeyOf(this.#root))];
    return signCertificate({ ...parts, serial: newSerial(), issuer, extensions }, this.#key);
  }
}

/**
 * Whether a root that somebody brings can sign this cluster's certificates: it is an authority, signed by itself, valid
 * now, and the key is its own.
 * @throws CertificateInvalid, CertificateExpired, CertificateNotYetValid, PrivateKeyInvalid
 */
export async function checkRoot(material: AuthorityMaterial, nowMs: number): Promise<void> {
  checkRootKey(material, nowMs);
  const { certificate, parts } = readRoot(material.certificatePem);
  const ofItself = Buffer.from(parts.issuer).equals(parts.subject) && certificate.verify(certificate.publicKey);
  if (!ofItself) throw new CertificateInvalid("the root certificate", "it is not signed by itself");
}

/** The part of `checkRoot` that needs no waiting: all but the root's own signature. */
export function checkRootKey(material: AuthorityMaterial, nowMs: number): void {
  const { certificate, parts } = readRoot(material.certificatePem);
  if (!certificate.ca) throw new CertificateInvalid("the root certificate", "it is not an authority");
  if (parts.notAfterMs <= nowMs) throw new CertificateExpired("the root certificate", parts.notAfterMs);
  if (parts.notBeforeMs > nowMs) throw new CertificateNotYetValid("the root certificate", parts.notBeforeMs);
  checkOwnKey(parts, readPrivateKey(material.privateKeyPem));
}

/** The DER of a root's public key (SubjectPublicKeyInfo), as `issuerOf` tells it. @throws CertificateInvalid */
export function publicKeyOfRoot(rootPem: string): Uint8Array {
  return new Uint8Array(readRoot(rootPem).parts.publicKey);
}

function checkOwnKey(root: CertificateParts, key: KeyObject): void {
  if (!publicDer(createPublicKey(key)).equals(root.publicKey))
    throw new CertificateInvalid("the root certificate", "the key belongs to another certificate");
}

function readRoot(pem: string): { readonly certificate: X509Certificate; readonly parts: CertificateParts } {
  if (pem.length > rootBytesMax)
    throw new CertificateInvalid("the root certificate", `${pem.length} bytes are too many`);
  try {
    const certificate = new X509Certificate(pem);
    return { certificate, parts: partsOf(certificate) };
  } catch (error) {
    throw new CertificateInvalid("the root certificate", "it is not an X.509 certificate", error);
  }
}

/** The name that a root gives its own key; tools differ in how they derive it, and TLS compares it. */
function subjectKeyOf(root: CertificateParts): Uint8Array {
  return root.subjectKey ?? keyIdOf(root.publicKey);
}

/** The public key (DER, SubjectPublicKeyInfo) of a request that is whole and signed by it. @throws RequestInvalid */
export async function readRequestKey(requestPem: string): Promise<Uint8Array> {
  return new Uint8Array(readRequest(requestPem));
}

/** The id of the node with this key: 25 digits in base 36 of a hash of both. */
export function nodeIdOf(clusterId: string, publicKey: Uint8Array): string {
  const hash = createHash("sha256").update("skep node id\0").update(clusterId).update("\0").update(publicKey).digest();
  return (BigInt(`0x${hash.toString("hex")}`) % 36n ** 25n).toString(36).padStart(25, "0");
}

function readRequest(pem: string): Uint8Array {
  if (pem.length > requestBytesMax) throw new RequestInvalid(`${pem.length} bytes are too many`);
  let request: ReturnType<typeof readSignedRequest>;
  try {
    request = readSignedRequest(pem);
    algorithmOf(request.key);
  } catch (error) {
    throw new RequestInvalid("it is not a request for a key of a known kind", error);
  }
  if (!request.isSignedByIt) throw new RequestInvalid("its signature is wrong");
  return publicDer(request.key);
}

/** 127 random bits: positive, and never the same twice. */
function newSerial(): Uint8Array {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] as number) & 0x7f) | 0x40;
  return bytes;
}
