/** What can be wrong with keys and certificates. None of these carries key material. */
import { ClusterError } from "../pure/errors.ts";

export class CertificateInvalid extends ClusterError {
  readonly code = "CERTIFICATE_INVALID";
  constructor(what: string, found: string, cause?: unknown) {
    super(`Cannot use ${what}: ${found}`, {
      fix: "Give the certificate that this cluster issued to the node; join again if it is lost",
      cause,
    });
  }
}

export class CertificateExpired extends ClusterError {
  readonly code = "CERTIFICATE_EXPIRED";
  constructor(what: string, notAfterMs: number) {
    super(`Cannot use ${what}: it expired at ${new Date(notAfterMs).toISOString()}`, {
      fix:
        "Check the clock of this host. If it is right, the node gets a new one by itself as soon as it reaches a manager, " +
        "unless it was removed; if it does not, run `skep swarm leave --force` on it and join it again",
    });
  }
}

export class CertificateNotYetValid extends ClusterError {
  readonly code = "CERTIFICATE_NOT_YET_VALID";
  constructor(what: string, notBeforeMs: number) {
    super(`Cannot use ${what}: it is valid from ${new Date(notBeforeMs).toISOString()} on`, {
      fix: "Correct the clock of this host, or of the manager that issued it",
    });
  }
}

/** A peer whose certificate is genuine but not what is asked for here. */
export class PeerNotTrusted extends ClusterError {
  readonly code = "PEER_NOT_TRUSTED";
  constructor(found: string) {
    super(`Cannot trust the peer: ${found}`, {
      fix: "Check that the address belongs to a node of this cluster, and that its role and certificate are current",
    });
  }
}

export class PrivateKeyInvalid extends ClusterError {
  readonly code = "PRIVATE_KEY_INVALID";
  constructor(found: string) {
    // The cause is left out: OpenSSL's texts may quote what they could not parse.
    super(`Cannot use the private key: ${found}`, { fix: "Give the PEM key that belongs to the certificate" });
  }
}

export class RequestInvalid extends ClusterError {
  readonly code = "CERTIFICATE_REQUEST_INVALID";
  constructor(found: string, cause?: unknown) {
    super(`Cannot sign the certificate request: ${found}`, {
      fix: "Send a PKCS#10 request in PEM, signed by its own P-256 or Ed25519 key",
      cause,
    });
  }
}

export class StatementInvalid extends ClusterError {
  readonly code = "STATEMENT_INVALID";
  constructor(found: string, cause?: unknown) {
    super(`Cannot believe the statement: ${found}`, {
      fix: "Nothing to do: it is ignored. If it comes again, check the node that sends it",
      cause,
    });
  }
}

/** A node shows a certificate that has ended, and does not get another one for it. */
export class ReinstatementRefused extends ClusterError {
  readonly code = "REINSTATEMENT_REFUSED";
  constructor(found: string, fix = "Run `skep swarm leave --force` on the node, then join it again with a token") {
    super(`Cannot renew the certificate of a node after its end: ${found}`, { fix });
  }
}
