/**
 * A manager whose certificate is out of date when it starts. The others reinstate it, if there is a leader among them. If
 * there is none, as when all managers were off for longer than their certificates live, nobody could come back: then it
 * certifies itself, with the key of the cluster's root that every manager's log holds. Who has that disk could do so anyway.
 */
import { ClusterError } from "../lib/pure/errors.ts";
import { createRequest, type TlsIdentity, type TlsMaterial } from "../lib/pki/index.ts";
import { nodeFileSystem } from "../lib/runtime/file-system.ts";
import type { Logger } from "../lib/runtime/index.ts";
import { certificateRole, nodeLifeOf, skep } from "../proto/index.ts";
import { askReinstatement } from "../proto/reinstate.ts";
import { Issuer } from "./ca/index.ts";
import { DataFolder, readCommitted, type MemberRecord } from "./raft/index.ts";
import { ObjectStore, clusterSchema, isRevoked, theCluster, type ClusterSchema } from "./store/index.ts";

export interface OwnRenewalOptions {
  readonly dataDir: string;
  readonly tls: TlsIdentity;
  readonly material: TlsMaterial;
  readonly unlockKey: string | undefined;
  readonly nowMs: number;
  readonly logger: Logger;
}

/** The cluster has said that this node is not to come back so. */
const final: ReadonlySet<string> = new Set([
  "REINSTATEMENT_REFUSED",
  "NODE_REVOKED",
  "NODE_UNKNOWN",
  "CERTIFICATE_INVALID",
]);

/**
 * @param why  what is wrong with the certificate
 * @returns    the same key with a certificate that is valid now
 * @throws     `why`, or what the others answered
 */
export async function renewOwn(
  options: OwnRenewalOptions,
  why: ClusterError,
  signal: AbortSignal,
): Promise<TlsMaterial> {
  const { tls, material, logger, nowMs } = options;
  const { identity } = tls.certificate;
  const known = readOwn(options);
  if (known === undefined) throw why;
  const { store, members } = known;
  const { privateKeyPem } = material;
  const csr = await createRequest(privateKeyPem);
  for (const { id, address } of members) {
    if (id === identity.memberId || address === "") continue;
    try {
      const asked = { tls, roots: material.rootsPem, csr };
      const { certificate, root } = await askReinstatement(address, asked, signal);
      logger.info("another manager has renewed the certificate of this one", { address });
      return { certificatePem: certificate ?? "", rootsPem: root ?? "", privateKeyPem };
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof ClusterError && final.has(error.code)) throw error;
      logger.info("this manager could not be reinstated", { address, error });
    }
  }
  const view = store.current();
  const cluster = theCluster(view);
  const node = view.get("node", identity.nodeId);
  const isManager =
    node !== undefined &&
    certificateRole(node) === skep.objects.NodeRole.MANAGER &&
    node.managerStatus?.memberId === identity.memberId;
  if (cluster === undefined || !isManager || isRevoked(view, identity.nodeId)) throw why;
  // Valid by all clocks that the one before was valid by: should this host's be ahead, it goes on when that is set right.
  const about = { nowMs, lifeMs: nodeLifeOf(cluster.spec), sinceMs: tls.certificate.notBeforeMs };
  const { chain, roots } = await new Issuer().issue(cluster.rootCa, csr, identity, about);
  logger.warn("no manager answers, and this one has certified itself anew", { why });
  return { certificatePem: chain, rootsPem: roots, privateKeyPem };
}

/** Undefined: there is no member's log in the folder. */
function readOwn({
  dataDir,
  unlockKey,
  tls,
}: OwnRenewalOptions):
  { readonly store: ObjectStore<ClusterSchema>; readonly members: readonly MemberRecord[] } | undefined {
  const folder = DataFolder.open(dataDir, nodeFileSystem);
  try {
    const member = tls.certificate.identity.memberId ?? 0;
    if (folder.identity?.standing !== "member" || folder.identity.memberId !== member) return undefined;
    const store = new ObjectStore({ schema: clusterSchema, nowUs: () => 0, member });
    const access = { folder, ...(unlockKey === undefined ? {} : { unlockKey }) };
    return { store, members: readCommitted(access, store.machine) };
  } finally {
    folder[Symbol.dispose]();
  }
}
