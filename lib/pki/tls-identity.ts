/**
 * A node's place in TLS: its key, its certificate and whom it trusts, exchangeable while connections stand. Every
 * connection is mutual TLS 1.3; new ones use what is current when they begin.
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import { createSecureContext, type PeerCertificate, type SecureContext, type SecureContextOptions } from "node:tls";

import { checkDates, readCertificate, readRoots, type Certificate, type NodeRole } from "./certificate.ts";
import { CertificateInvalid, PeerNotTrusted } from "./errors.ts";
import { readPrivateKey } from "./keys.ts";

export interface TlsMaterial {
  /** The node's certificate, PEM; behind it intermediate ones, if any. */
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  /** Roots trusted, PEM; two while the root is being rotated. */
  readonly rootsPem: string;
}

/** Whom a client or a server wants at the other end. What is not named is not checked; the cluster always is. */
export interface PeerExpectation {
  readonly role?: NodeRole;
  readonly nodeId?: string;
  readonly memberId?: number;
}

interface Current {
  readonly certificate: Certificate;
  readonly privateKey: KeyObject;
  readonly roots: readonly KeyObject[];
  readonly contextOptions: SecureContextOptions;
  readonly context: SecureContext;
}

const peersRemembered = 256;

export class TlsIdentity {
  #current: Current;
  /** Certificates read lately, by their bytes. Reading says nothing about trust: the handshake checks the chain. */
  readonly #peers = new Map<string, Certificate>();
  readonly #listeners = new Set<(options: SecureContextOptions) => void>();

  /** @throws CertificateInvalid, PrivateKeyInvalid */
  constructor(material: TlsMaterial) {
    this.#current = open(material);
  }

  get certificate(): Certificate {
    return this.#current.certificate;
  }

  get privateKey(): KeyObject {
    return this.#current.privateKey;
  }

  /** Public keys of the trusted roots. */
  get roots(): readonly KeyObject[] {
    return this.#current.roots;
  }

  get contextOptions(): SecureContextOptions {
    return this.#current.contextOptions;
  }

  /** For new connections as a client. */
  get context(): SecureContext {
    return this.#current.context;
  }

  /**
   * Puts a renewed certificate, another role or other roots in force for all connections from now on.
   * @throws CertificateInvalid, PrivateKeyInvalid; then nothing has changed
   */
  replace(material: TlsMaterial): void {
    const next = open(material);
    const before = this.#current.certificate.identity;
    const { identity } = next.certificate;
    if (identity.nodeId !== before.nodeId || identity.clusterId !== before.clusterId) {
      throw new CertificateInvalid("the new certificate", `it is that of node ${identity.nodeId}`);
    }
    this.#current = next;
    for (const listener of this.#listeners) listener(next.contextOptions);
  }

  /** Calls back whenever the material is replaced. */
  watch(listener: (options: SecureContextOptions) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /**
   * The peer behind a verified connection (TLS has checked its chain and dates; here it is read).
   * @throws CertificateInvalid, PeerNotTrusted
   */
  readPeer(der: Uint8Array, expected: PeerExpectation): Certificate {
    const peer = this.#read(der);
    const { identity } = peer;
    const { clusterId } = this.#current.certificate.identity;
    if (identity.clusterId !== clusterId) {
      throw new PeerNotTrusted(`it belongs to cluster ${identity.clusterId}, this is ${clusterId}`);
    }
    if (expected.role !== undefined && identity.role !== expected.role) {
      throw new PeerNotTrusted(`node ${identity.nodeId} is a ${identity.role}, and a ${expected.role} is needed`);
    }
    if (expected.nodeId !== undefined && identity.nodeId !== expected.nodeId) {
      throw new PeerNotTrusted(`it is node ${identity.nodeId}, not ${expected.nodeId}`);
    }
    if (expected.memberId !== undefined && identity.memberId !== expected.memberId) {
      throw new PeerNotTrusted(`it is member ${identity.memberId ?? "of no kind"}, not ${expected.memberId}`);
    }
    return peer;
  }

  /** A manager meets the same few over and over, each on several connections; reading one takes a millisecond and more. */
  #read(der: Uint8Array): Certificate {
    const key = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString("latin1");
    let peer = this.#peers.get(key);
    if (peer === undefined) {
      peer = readCertificate(der);
      if (this.#peers.size >= peersRemembered) this.#peers.clear();
      this.#peers.set(key, peer);
    }
    return peer;
  }

  /** For `tls.connect`: in place of the host's name, which says nothing here, the certificate's own words count. */
  serverCheck(expected: PeerExpectation): (host: string, certificate: PeerCertificate) => Error | undefined {
    return (_host, certificate) => {
      try {
        this.readPeer(certificate.raw, expected);
        return undefined;
      } catch (error) {
        return error as Error;
      }
    };
  }
}

function open(material: TlsMaterial): Current {
  const certificate = readCertificate(material.certificatePem);
  const privateKey = readPrivateKey(material.privateKeyPem);
  const publicKey = createPublicKey(privateKey).export({ type: "spki", format: "der" });
  if (!publicKey.equals(certificate.publicKey.export({ type: "spki", format: "der" }))) {
    throw new CertificateInvalid("the certificate", "the private key is not its own");
  }
  const roots = readRoots(material.rootsPem);
  if (!roots.some((root) => certificate.signedBy(root)) && !hasIntermediates(material.certificatePem)) {
    throw new CertificateInvalid("the certificate", "none of the trusted roots signed it");
  }
  const contextOptions: SecureContextOptions = {
    cert: material.certificatePem,
    key: material.privateKeyPem,
    ca: material.rootsPem,
    minVersion: "TLSv1.3",
  };
  return { certificate, privateKey, roots, contextOptions, context: createSecureContext(contextOptions) };
}

/** While the root is being rotated, a cross-signed root stands behind the leaf; TLS checks that chain. */
function hasIntermediates(pem: string): boolean {
  return pem.indexOf("-----BEGIN CERTIFICATE-----") !== pem.lastIndexOf("-----BEGIN CERTIFICATE-----");
}

/** @throws CertificateExpired, CertificateNotYetValid */
export function checkCurrent(identity: TlsIdentity, nowMs: number): void {
  checkDates(identity.certificate, "the certificate of this node", nowMs);
}
