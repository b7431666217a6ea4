/** What stands in certificates and requests, as far as this cluster writes and reads it (RFC 5280, RFC 2986). */
import { createHash, createPublicKey, sign, verify, type KeyObject, type X509Certificate } from "node:crypto";

import {
  bitString,
  boolean,
  composed,
  DerUnreadable,
  element,
  expectTag,
  integer,
  octetString,
  oid,
  pem,
  readElement,
  readElements,
  sequence,
  tagged,
  tags,
  text,
  time,
  type Element,
} from "./der.ts";
import { algorithmOf, digestOf } from "./keys.ts";

/** Attribute types of names (RFC 5280 appendix A.1). */
const attributeTypes = { CN: "2.5.4.3", O: "2.5.4.10", OU: "2.5.4.11" } as const;
const extensionIds = {
  subjectKey: "2.5.29.14",
  keyUsage: "2.5.29.15",
  alternativeNames: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKey: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
} as const;
const purposes = { serverAuth: "1.3.6.1.5.5.7.3.1", clientAuth: "1.3.6.1.5.5.7.3.2" } as const;
const signatureAlgorithms = { "P-256": "1.2.840.10045.4.3.2", Ed25519: "1.3.101.112" } as const;
/** Of GeneralName. */
const dnsName = 2;
const uriName = 6;

// ---- Reading ---------------------------------------------------------------------------------------------------------------

export interface CertificateParts {
  /** DER of the names, as the certificate has them. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  /** DER (SubjectPublicKeyInfo). */
  readonly publicKey: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Of the subject, by attribute. */
  field(name: keyof typeof attributeTypes): readonly string[];
  /** URIs among the alternative names. */
  readonly uris: readonly string[];
  /** How it names its own key; undefined if it does not. */
  readonly subjectKey: Uint8Array | undefined;
}

/** @param certificate  read by OpenSSL already @throws DerUnreadable */
export function partsOf(certificate: X509Certificate): CertificateParts {
  const [signed] = readElements(readElement(certificate.raw, tags.sequence).content);
  const parts = readElements(expectTag(signed, tags.sequence).content);
  if (parts[0]?.tag === composed(0)) parts.shift();
  const [, , issuer, , subject, publicKey] = parts;
  const extensions = extensionsOf(parts.find(({ tag }) => tag === composed(3)));
  const attributes = attributesOf(expectTag(subject, tags.sequence));
  const subjectKey = extensions.get(idOf(extensionIds.subjectKey));
  return {
    issuer: expectTag(issuer, tags.sequence).whole,
    subject: expectTag(subject, tags.sequence).whole,
    publicKey: expectTag(publicKey, tags.sequence).whole,
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
    field: (name) => attributes.get(idOf(attributeTypes[name])) ?? [],
    uris: urisOf(extensions.get(idOf(extensionIds.alternativeNames))),
    subjectKey: subjectKey === undefined ? undefined : readElement(subjectKey, tags.octetString).content,
  };
}

function attributesOf(name: Element): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const set of readElements(name.content))
    for (const attribute of readElements(expectTag(set, tags.set).content)) {
      const [type, value] = readElements(expectTag(attribute, tags.sequence).content);
      const key = hex(expectTag(type, tags.oid).whole);
      if (value === undefined) throw new DerUnreadable("an attribute without a value");
      found.set(key, [...(found.get(key) ?? []), textOf(value)]);
    }
  return found;
}

/** The older kinds with two or four bytes a character come out with zeros in them, which no name that counts here has. */
function textOf({ tag, content }: Element): string {
  return Buffer.from(content).toString(tag === tags.utf8String ? "utf8" : "latin1");
}

/** The DER in each, by its id. */
function extensionsOf(tagged: Element | undefined): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  if (tagged === undefined) return found;
  for (const extension of readElements(readElement(tagged.content, tags.sequence).content)) {
    const parts = readElements(expectTag(extension, tags.sequence).content);
    const id = hex(expectTag(parts[0], tags.oid).whole);
    // RFC 5280 §4.2; of two, another reader could take the other one.
    if (found.has(id)) throw new DerUnreadable("an extension that is there twice");
    found.set(id, expectTag(parts.at(-1), tags.octetString).content);
  }
  return found;
}

/** None if there is a name of a kind that nodes do not have: OpenSSL, too, reads all names or, for one that is none, none. */
function urisOf(names: Uint8Array | undefined): string[] {
  if (names === undefined) return [];
  const listed = readElements(readElement(names, tags.sequence).content);
  if (listed.some(({ tag }) => tag !== (0x80 | uriName) && tag !== (0x80 | dnsName))) return [];
  return listed
    .filter(({ tag }) => tag === (0x80 | uriName))
    .map(({ content }) => Buffer.from(content).toString("latin1"));
}

/** Of a request that is signed by its own key: that key. @throws DerUnreadable, PrivateKeyInvalid, OpenSSL's errors */
export function readSignedRequest(requestPem: string): { readonly key: KeyObject; readonly isSignedByIt: boolean } {
  const found = /-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([\sA-Za-z0-9+/=]*)-----END/u.exec(requestPem);
  if (found === null) throw new DerUnreadable("there is no certificate request");
  const [signed, , signature] = readElements(
    readElement(Buffer.from(found[1] as string, "base64"), tags.sequence).content,
  );
  const [, , publicKey] = readElements(expectTag(signed, tags.sequence).content);
  const der = Buffer.from(expectTag(publicKey, tags.sequence).whole);
  const key = createPublicKey({ key: der, format: "der", type: "spki" });
  // The algorithm that the request names does not count: the key knows one only.
  const bits = expectTag(signature, tags.bitString).content;
  const isSignedByIt =
    bits[0] === 0 && verify(digestOf(key), expectTag(signed, tags.sequence).whole, key, bits.subarray(1));
  return { key, isSignedByIt };
}

// ---- Writing ---------------------------------------------------------------------------------------------------------------

export interface Issuing {
  readonly serial: Uint8Array;
  /** DER of a name. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  /** DER (SubjectPublicKeyInfo). */
  readonly publicKey: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly extensions: readonly Uint8Array[];
}

/** @returns PEM */
export function signCertificate(parts: Issuing, signingKey: KeyObject): string {
  const { serial, issuer, subject, publicKey, notBeforeMs, notAfterMs, extensions } = parts;
  const version3 = element(composed(0), integer(Buffer.of(2)));
  const validity = sequence(time(notBeforeMs), time(notAfterMs));
  const listed = element(composed(3), sequence(...extensions));
  const algorithm = algorithmId(signingKey);
  const body = sequence(version3, integer(serial), algorithm, issuer, validity, subject, publicKey, listed);
  return pem("CERTIFICATE", signed(body, algorithm, signingKey));
}

/** @returns PEM */
export function signRequest(subject: Uint8Array, privateKey: KeyObject): string {
  const publicKey = createPublicKey(privateKey).export({ type: "spki", format: "der" });
  const body = sequence(integer(Buffer.of(0)), subject, publicKey, element(composed(0)));
  return pem("CERTIFICATE REQUEST", signed(body, algorithmId(privateKey), privateKey));
}

function signed(body: Uint8Array, algorithm: Uint8Array, key: KeyObject): Buffer {
  return sequence(body, algorithm, bitString(sign(digestOf(key), body, key)));
}

function algorithmId(key: KeyObject): Buffer {
  return sequence(oid(signatureAlgorithms[algorithmOf(key)]));
}

export function nameOf(...attributes: readonly (readonly [keyof typeof attributeTypes, string])[]): Buffer {
  const set = ([type, value]: (typeof attributes)[number]): Buffer =>
    element(tags.set, sequence(oid(attributeTypes[type]), text(value)));
  return sequence(...attributes.map(set));
}

/** @param pathLength  how many authorities may stand between this one and a node */
export function authorityExtensions(pathLength: number): Buffer[] {
  const signsCertificatesAndLists = bitString(Buffer.of(0b0000_0110), 1);
  return [
    extension("basicConstraints", true, sequence(boolean(true), integer(Buffer.of(pathLength)))),
    extension("keyUsage", true, signsCertificatesAndLists),
  ];
}

export function nodeExtensions(names: { readonly dns: readonly string[]; readonly uris: readonly string[] }): Buffer[] {
  const signs = bitString(Buffer.of(0b1000_0000), 7);
  const alternatives = [
    ...names.dns.map((name) => tagged(dnsName, Buffer.from(name))),
    ...names.uris.map((uri) => tagged(uriName, Buffer.from(uri))),
  ];
  return [
    extension("basicConstraints", true, sequence()),
    extension("keyUsage", true, signs),
    extension("extendedKeyUsage", false, sequence(oid(purposes.serverAuth), oid(purposes.clientAuth))),
    extension("alternativeNames", false, sequence(...alternatives)),
  ];
}

export function subjectKeyExtension(id: Uint8Array): Buffer {
  return extension("subjectKey", false, octetString(id));
}

export function authorityKeyExtension(id: Uint8Array): Buffer {
  return extension("authorityKey", false, sequence(tagged(0, id)));
}

/** SHA-1 of the key's bits (RFC 5280 §4.2.1.2): a name, not a protection. @param publicKey  SubjectPublicKeyInfo */
export function keyIdOf(publicKey: Uint8Array): Buffer {
  const [, bits] = readElements(readElement(publicKey, tags.sequence).content);
  return createHash("sha1").update(expectTag(bits, tags.bitString).content.subarray(1)).digest();
}

function extension(id: keyof typeof extensionIds, critical: boolean, value: Uint8Array): Buffer {
  return sequence(oid(extensionIds[id]), ...(critical ? [boolean(true)] : []), octetString(value));
}

function idOf(dotted: string): string {
  return hex(oid(dotted));
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}
