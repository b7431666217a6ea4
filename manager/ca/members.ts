/** Whether who asks to become a consensus member is expected: its certificate may be older than its demotion. */
import { skep } from "../../proto/index.ts";
import { theCluster, type ClusterSchema, type View } from "../store/index.ts";
import { MemberNotExpected } from "./errors.ts";

const { NodeRole } = skep.objects;

/** @throws MemberNotExpected; never in a cluster that keeps no objects */
export function checkMember(view: View<ClusterSchema>, nodeId: string, memberId: number): void {
  if (theCluster(view) === undefined) return;
  const node = view.get("node", nodeId);
  if (node === undefined) throw new MemberNotExpected(nodeId, "the cluster has no such node");
  if (node.role !== NodeRole.MANAGER || node.spec?.role !== NodeRole.MANAGER)
    throw new MemberNotExpected(nodeId, "it is not a manager, or is being demoted");
  if (node.managerStatus?.memberId !== memberId)
    throw new MemberNotExpected(nodeId, "its certificate is that of a member which it is no longer");
}
