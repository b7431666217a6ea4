/** Signs with the root that is in force; while it is being rotated, with the one to come, which the old one vouches for. */
import { Authority, readCertificate, type NodeIdentity } from "../../lib/pki/index.ts";
import { trustedRoots, type skep } from "../../proto/index.ts";
import { CaNotReady } from "./errors.ts";

export interface Issued {
  /** PEM, leaf first. */
  readonly chain: string;
  /** PEM of the roots that the node is to trust. */
  readonly roots: string;
  readonly notAfterMs: number;
}

export class Issuer {
  #certificate = "";
  #authority: Authority | undefined;

  /** @throws RequestInvalid, CertificateExpired, CaNotReady without a key to sign with */
  async issue(
    root: skep.objects.RootCa.$Properties | null | undefined,
    request: string,
    identity: NodeIdentity,
    options: { readonly nowMs: number; readonly lifeMs: number },
  ): Promise<Issued> {
    const leaf = await this.#signer(root).issue(request, identity, options);
    const behind = root?.rotation?.crossSignedCertificate ?? "";
    return { chain: leaf + behind, roots: trustedRoots(root), notAfterMs: readCertificate(leaf).notAfterMs };
  }

  #signer(root: skep.objects.RootCa.$Properties | null | undefined): Authority {
    const { certificate = "", key = "" } = root?.rotation ?? root ?? {};
    if (!certificate || !key) throw new CaNotReady();
    // Reading a key takes longer than signing with it.
    if (this.#authority === undefined || this.#certificate !== certificate) {
      this.#authority = new Authority({ certificatePem: certificate, privateKeyPem: key });
      this.#certificate = certificate;
    }
    return this.#authority;
  }
}
