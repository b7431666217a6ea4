/** What the rooms say together about who belongs to the cluster: the cluster object, and nodes that were removed. */
import { skep } from "../../proto/index.ts";
import type { Tx, View } from "./core/words.ts";
import type { ClusterSchema } from "./schema.ts";

const dayUs = 86_400_000_000;
/** For nodes whose certificate nobody dated: the longest that is given by default. */
const lifeUnknownUs = 90 * dayUs;
/** Hosts may disagree about the time by so much. */
const slackUs = dayUs;

/**
 * So many removed nodes are remembered, at about 40 bytes each: the cluster object stays far below the size of an entry.
 * A longer list is cut, and from then on `isRevoked` asks whether the node exists instead.
 */
export const revokedMax = 4096;

/** The one there is; undefined before it was made. */
export function theCluster(view: View<ClusterSchema>): Readonly<skep.objects.Cluster> | undefined {
  for (const cluster of view.list("cluster")) return cluster;
  return undefined;
}

/**
 * Removes the node object, and refuses the node's certificate until it has ended, in one change. Whether the node may go
 * (its state, its role) is the caller's to judge.
 * @throws ObjectNotFound
 */
export function removeNode(tx: Tx<ClusterSchema>, nodeId: string): void {
  const known = tx.get("node", nodeId)?.certificate?.expiresAtUs ?? 0;
  tx.remove("node", nodeId);
  const cluster = theCluster(tx);
  if (cluster === undefined) return;
  const expiresAtUs = (known > 0 ? known : tx.timeUs + lifeUnknownUs) + slackUs;
  tx.edit("cluster", cluster.id, (draft) => {
    draft.revokedNodes = withRevoked(draft.revokedNodes, { nodeId, expiresAtUs }, tx.timeUs);
  });
}

/** Drops those whose certificates have ended; of too many, those that end first. */
export function withRevoked(
  revoked: readonly skep.objects.RevokedNode.$Properties[],
  added: skep.objects.RevokedNode.$Properties | undefined,
  nowUs: number,
): skep.objects.RevokedNode[] {
  const kept = revoked.filter(({ nodeId, expiresAtUs }) => (expiresAtUs ?? 0) > nowUs && nodeId !== added?.nodeId);
  if (added !== undefined) kept.push(added);
  if (kept.length > revokedMax) {
    kept.sort((a, b) => (b.expiresAtUs ?? 0) - (a.expiresAtUs ?? 0) || ((a.nodeId ?? "") < (b.nodeId ?? "") ? -1 : 1));
    kept.length = revokedMax;
  }
  return kept.map((each) => skep.objects.RevokedNode.create(each));
}

/** Whether the node with this certificate was removed from the cluster. */
export function isRevoked(view: View<ClusterSchema>, nodeId: string): boolean {
  const cluster = theCluster(view);
  if (cluster === undefined) return false;
  if (cluster.revokedNodes.some((revoked) => revoked.nodeId === nodeId)) return true;
  return cluster.revokedNodes.length >= revokedMax && !view.has("node", nodeId);
}
