/** What a node object and the cluster's settings say about certificates; asked by those who issue and those who renew. */
import { skep } from "./gen/skep.js";

const { NodeRole } = skep.objects;

/** Swarm's 90 days and its shortest. */
const nodeLifeDefaultMs = 90 * 86_400_000;
const nodeLifeMinMs = 3_600_000;

/** How long a node's certificate is to be valid, in milliseconds. */
export function nodeLifeOf(spec: skep.objects.ClusterSpec.$Properties | null | undefined): number {
  const expiry = spec?.caConfig?.nodeCertExpiry;
  if (expiry == null) return nodeLifeDefaultMs;
  const ms = (expiry.seconds ?? 0) * 1000 + (expiry.nanos ?? 0) / 1e6;
  return ms <= 0 ? nodeLifeDefaultMs : Math.max(nodeLifeMinMs, ms);
}

/**
 * The role that a certificate issued now would have. A wish to be a manager counts at once; who is to be one no longer
 * stays one until its consensus member is out, which the role manager tells by `node.role`.
 */
export function certificateRole(node: Pick<skep.objects.Node.$Properties, "spec" | "role">): skep.objects.NodeRole {
  return node.spec?.role === NodeRole.MANAGER || node.role === NodeRole.MANAGER ? NodeRole.MANAGER : NodeRole.WORKER;
}

/** Whom every node is to trust, PEM: the cluster's root, and while it is being rotated the one to come. */
export function trustedRoots(root: skep.objects.RootCa.$Properties | null | undefined): string {
  const [now, next] = [root?.certificate ?? "", root?.rotation?.certificate ?? ""];
  return next === "" ? now : `${now.trimEnd()}\n${next}`;
}
