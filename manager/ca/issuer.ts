/** Signs with the root that is in force; while it is being rotated, with the one to come, which the old one vouches for. */
import { Authority, digestOfRoot, readCertificate, type NodeIdentity } from "../../lib/pki/index.ts";
import { trustedRoots, type skep } from "../../proto/index.ts";
import { CaNotReady } from "./errors.ts";

export interface Issued {
  /** PEM, leaf first. */
  readonly chain: string;
  /** PEM of the roots that the node is to trust. */
  readonly roots: string;
  readonly notAfterMs: number;
  /** Digest of the root that signed. */
  readonly issuer: string;
}

export class Issuer {
  #signing: { readonly certificate: string; readonly authority: Authority; readonly digest: string } | undefined;

  /** @throws RequestInvalid, CertificateExpired, CaNotReady without a key to sign with */
  async issue(
    root: skep.objects.RootCa.$Properties | null | undefined,
    request: string,
    identity: NodeIdentity,
    options: { readonly nowMs: number; readonly lifeMs: number; readonly sinceMs?: number },
  ): Promise<Issued> {
    const { authority, digest } = this.#signer(root);
    const leaf = await authority.issue(request, identity, options);
    return {
      chain: leaf + (root?.rotation?.crossSignedCertificate ?? ""),
      roots: trustedRoots(root),
      notAfterMs: readCertificate(leaf).notAfterMs,
      issuer: digest,
    };
  }

  #signer(root: skep.objects.RootCa.$Properties | null | undefined): { authority: Authority; digest: string } {
    const { certificate = "", key = "" } = root?.rotation ?? root ?? {};
    if (!certificate || !key) throw new CaNotReady();
    // Reading a key takes longer than signing with it.
    if (this.#signing?.certificate !== certificate) {
      const authority = new Authority({ certificatePem: certificate, privateKeyPem: key });
      this.#signing = { certificate, authority, digest: digestOfRoot(certificate) };
    }
    return this.#signing;
  }
}
