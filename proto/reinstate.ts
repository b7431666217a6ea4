/** Asks one manager for the next certificate of a node whose own has ended: as a stranger, showing the one that ended. */
import { proveCertified, Stranger, type TlsIdentity } from "../lib/pki/index.ts";
import { Channel } from "../lib/rpc/index.ts";
import { caMethods } from "./ca-methods.ts";
import type { skep } from "./gen/skep.js";

const callMs = 10_000;

/**
 * @param csr    PEM, of the key to come
 * @param roots  PEM, those that the node trusts
 * @throws       what the manager answered (REINSTATEMENT_REFUSED, NODE_UNKNOWN, NODE_REVOKED, ...), RPC_UNAVAILABLE
 */
export async function askReinstatement(
  address: string,
  { tls, roots, csr }: { readonly tls: TlsIdentity; readonly roots: string; readonly csr: string },
  signal: AbortSignal,
): Promise<skep.ca.IRenewResponse> {
  const channel = new Channel({ address, tls: new Stranger(roots), expect: { role: "manager" } });
  try {
    const { certificatePem, proof } = proveCertified(csr, tls.certificate, tls.privateKey);
    const request: skep.ca.IReinstateRequest = { csr, certificate: certificatePem, proof };
    return await channel.call(caMethods.reinstate, request, { timeoutMs: callMs, signal });
  } finally {
    channel[Symbol.dispose]();
  }
}
