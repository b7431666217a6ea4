/** The cluster's certificate authority: one self-signed root, and the certificates of nodes that it issues. */
import { createHash, createPublicKey, randomBytes, type KeyObject, type webcrypto } from "node:crypto";

import { memberUri, organizationalUnits, type NodeIdentity } from "./certificate.ts";
import { CertificateExpired, CertificateInvalid, CertificateNotYetValid, RequestInvalid } from "./errors.ts";
import { algorithmOf, generatePrivateKey, p256, readPrivateKey, toCryptoKeys } from "./keys.ts";
import { x509 } from "./x509.ts";

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
  const keys = toCryptoKeys(readPrivateKey(privateKeyPem));
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    name: [{ CN: ["swarm-ca"] }, { O: [clusterId] }],
    keys,
    signingAlgorithm: p256,
    notBefore: new Date(nowMs - backdateMs),
    notAfter: new Date(nowMs + rootLifeMs),
    extensions: [
      // One authority may stand between root and nodes: the next root, while this one is being rotated.
      new x509.BasicConstraintsExtension(true, 1, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificatePem: pemOf(certificate), privateKeyPem };
}

/** A request for a certificate of the key's owner. Its subject is empty: the issuer decides who the owner is. */
export async function createRequest(privateKeyPem: string): Promise<string> {
  const key = readPrivateKey(privateKeyPem);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: "CN=node",
    keys: toCryptoKeys(key),
    signingAlgorithm: algorithmOf(key),
  });
  return pemOf(request);
}

export class Authority {
  readonly #root: InstanceType<typeof x509.X509Certificate>;
  readonly #signingKey: webcrypto.CryptoKey;
  readonly #algorithm: ReturnType<typeof algorithmOf>;

  /** @throws PrivateKeyInvalid, CertificateInvalid when the key is not that of the certificate */
  constructor(material: AuthorityMaterial) {
    const key = readPrivateKey(material.privateKeyPem);
    try {
      this.#root = new x509.X509Certificate(material.certificatePem);
    } catch (error) {
      throw new CertificateInvalid("the root certificate", "it is not an X.509 certificate", error);
    }
    checkOwnKey(this.#root, key);
    this.#signingKey = toCryptoKeys(key).privateKey;
    this.#algorithm = algorithmOf(key);
  }

  /**
   * Issues the certificate of a node for the key that signed the request; nothing else of the request counts.
   * @returns PEM
   * @throws  RequestInvalid, CertificateExpired when the root is near its end
   */
  async issue(
    requestPem: string,
    identity: NodeIdentity,
    options: { readonly nowMs: number; readonly lifeMs?: number },
  ): Promise<string> {
    if (identity.role === "manager" && identity.memberId === undefined) {
      throw new RequestInvalid("a manager needs the id of its member");
    }
    const publicKey = await readRequest(requestPem);
    const notBeforeMs = Math.max(this.#root.notBefore.getTime(), options.nowMs - backdateMs);
    const notAfterMs = Math.min(this.#root.notAfter.getTime(), options.nowMs + (options.lifeMs ?? nodeLifeMs));
    if (notAfterMs <= options.nowMs)
      throw new CertificateExpired("the root certificate", this.#root.notAfter.getTime());
    const unit = organizationalUnits[identity.role];
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: newSerial(),
      subject: [{ CN: [identity.nodeId] }, { OU: [unit] }, { O: [identity.clusterId] }],
      issuer: this.#root.subjectName,
      publicKey,
      signingKey: this.#signingKey,
      signingAlgorithm: this.#algorithm,
      notBefore: new Date(notBeforeMs),
      notAfter: new Date(notAfterMs),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        new x509.SubjectAlternativeNameExtension([
          { type: "dns", value: unit },
          { type: "dns", value: identity.nodeId },
          ...(identity.role === "manager" ? [{ type: "url" as const, value: memberUri(identity) }] : []),
        ]),
        await x509.SubjectKeyIdentifierExtension.create(publicKey),
        await authorityKeyOf(this.#root),
      ],
    });
    return pemOf(certificate);
  }

  /**
   * Vouches for the next root: a certificate of its name and key, signed by this one. Behind a leaf that the next root
   * signed, it leads those who trust only this root.
   * @returns PEM
   * @throws  CertificateInvalid, CertificateExpired when this root is at its end
   */
  async vouchFor(nextRootPem: string, nowMs: number): Promise<string> {
    const next = readRootCertificate(nextRootPem);
    const notAfterMs = Math.min(this.#root.notAfter.getTime(), next.notAfter.getTime());
    if (notAfterMs <= nowMs) throw new CertificateExpired("the root certificate", this.#root.notAfter.getTime());
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: newSerial(),
      subject: next.subjectName,
      issuer: this.#root.subjectName,
      publicKey: next.publicKey,
      signingKey: this.#signingKey,
      signingAlgorithm: this.#algorithm,
      notBefore: new Date(Math.min(nowMs - backdateMs, notAfterMs)),
      notAfter: new Date(notAfterMs),
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await subjectKeyOf(next),
        await authorityKeyOf(this.#root),
      ],
    });
    return pemOf(certificate);
  }
}

/**
 * Whether a root that somebody brings can sign this cluster's certificates: it is an authority, signed by itself, valid
 * now, and the key is its own.
 * @throws CertificateInvalid, CertificateExpired, CertificateNotYetValid, PrivateKeyInvalid
 */
export async function checkRoot(material: AuthorityMaterial, nowMs: number): Promise<void> {
  checkRootKey(material, nowMs);
  const root = readRootCertificate(material.certificatePem);
  if (!(await root.isSelfSigned())) throw new CertificateInvalid("the root certificate", "it is not signed by itself");
}

/** The part of `checkRoot` that needs no waiting: all but the root's own signature. */
export function checkRootKey(material: AuthorityMaterial, nowMs: number): void {
  const root = readRootCertificate(material.certificatePem);
  checkRootNow(root, nowMs);
  checkOwnKey(root, readPrivateKey(material.privateKeyPem));
}

/** The DER of a root's public key (SubjectPublicKeyInfo), as `issuerOf` tells it. @throws CertificateInvalid */
export function publicKeyOfRoot(rootPem: string): Uint8Array {
  return new Uint8Array(readRootCertificate(rootPem).publicKey.rawData);
}

function checkOwnKey(root: InstanceType<typeof x509.X509Certificate>, key: KeyObject): void {
  const expected = createPublicKey(key).export({ type: "spki", format: "der" });
  if (!expected.equals(Buffer.from(root.publicKey.rawData)))
    throw new CertificateInvalid("the root certificate", "the key belongs to another certificate");
}

function checkRootNow(root: InstanceType<typeof x509.X509Certificate>, nowMs: number): void {
  if (root.getExtension(x509.BasicConstraintsExtension)?.ca !== true)
    throw new CertificateInvalid("the root certificate", "it is not an authority");
  if (root.notAfter.getTime() <= nowMs) throw new CertificateExpired("the root certificate", root.notAfter.getTime());
  if (root.notBefore.getTime() > nowMs)
    throw new CertificateNotYetValid("the root certificate", root.notBefore.getTime());
}

function readRootCertificate(pem: string): InstanceType<typeof x509.X509Certificate> {
  if (pem.length > rootBytesMax)
    throw new CertificateInvalid("the root certificate", `${pem.length} bytes are too many`);
  try {
    return new x509.X509Certificate(pem);
  } catch (error) {
    throw new CertificateInvalid("the root certificate", "it is not an X.509 certificate", error);
  }
}

/** The name that a root gives its own key; tools differ in how they derive it, and TLS compares it. */
async function subjectKeyOf(
  root: InstanceType<typeof x509.X509Certificate>,
): Promise<InstanceType<typeof x509.SubjectKeyIdentifierExtension>> {
  const own = root.getExtension(x509.SubjectKeyIdentifierExtension);
  return own ?? (await x509.SubjectKeyIdentifierExtension.create(root.publicKey));
}

async function authorityKeyOf(
  root: InstanceType<typeof x509.X509Certificate>,
): Promise<InstanceType<typeof x509.AuthorityKeyIdentifierExtension>> {
  return new x509.AuthorityKeyIdentifierExtension((await subjectKeyOf(root)).keyId);
}

/** The public key (DER, SubjectPublicKeyInfo) of a request that is whole and signed by it. @throws RequestInvalid */
export async function readRequestKey(requestPem: string): Promise<Uint8Array> {
  return new Uint8Array((await readRequest(requestPem)).rawData);
}

/** The id of the node with this key: 25 digits in base 36 of a hash of both. */
export function nodeIdOf(clusterId: string, publicKey: Uint8Array): string {
  const hash = createHash("sha256").update("skep node id\0").update(clusterId).update("\0").update(publicKey).digest();
  return (BigInt(`0x${hash.toString("hex")}`) % 36n ** 25n).toString(36).padStart(25, "0");
}

async function readRequest(pem: string): Promise<InstanceType<typeof x509.PublicKey>> {
  if (pem.length > requestBytesMax) throw new RequestInvalid(`${pem.length} bytes are too many`);
  let request: InstanceType<typeof x509.Pkcs10CertificateRequest>;
  let holdsKey: boolean;
  try {
    request = new x509.Pkcs10CertificateRequest(pem);
    holdsKey = await request.verify();
    algorithmOf(createPublicKey({ key: Buffer.from(request.publicKey.rawData), format: "der", type: "spki" }));
  } catch (error) {
    throw new RequestInvalid("it is not a request for a key of a known kind", error);
  }
  if (!holdsKey) throw new RequestInvalid("its signature is wrong");
  return request.publicKey;
}

/** 127 random bits: positive, and never the same twice. */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] as number) & 0x7f) | 0x40;
  return bytes.toString("hex");
}

function pemOf(data: { toString(format: "pem"): string }): string {
  return `${data.toString("pem")}\n`;
}
