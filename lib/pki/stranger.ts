/** TLS for one who has no certificate yet: first to ask for the root, then to speak with managers whom that root vouches for. */
import { createSecureContext, type PeerCertificate, type SecureContext } from "node:tls";

import { readCertificate } from "./certificate.ts";
import { PeerNotTrusted } from "./errors.ts";
import type { PeerExpectation } from "./tls-identity.ts";

export class Stranger {
  readonly context: SecureContext;
  /** Without roots anybody may answer: what is learnt so must be proven otherwise. */
  readonly trustsAnybody: boolean;
  #clusterId: string | undefined;

  /** @param rootsPem  undefined only to ask for the root, which is then compared with the token's digest */
  constructor(rootsPem: string | undefined) {
    this.trustsAnybody = rootsPem === undefined;
    this.context = createSecureContext({ minVersion: "TLSv1.3", ...(rootsPem === undefined ? {} : { ca: rootsPem }) });
  }

  /** Of the manager that answered last, by its certificate. */
  get clusterId(): string | undefined {
    return this.#clusterId;
  }

  serverCheck({ role }: PeerExpectation): (host: string, certificate: PeerCertificate) => Error | undefined {
    return (_host, certificate) => {
      try {
        const { identity } = readCertificate(certificate.raw);
        if (role !== undefined && identity.role !== role)
          return new PeerNotTrusted(`node ${identity.nodeId} is a ${identity.role}, and a ${role} is needed`);
        this.#clusterId = identity.clusterId;
        return undefined;
      } catch (error) {
        return error as Error;
      }
    };
  }
}
