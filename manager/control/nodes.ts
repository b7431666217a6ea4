/** Changes what is wished of nodes, and removes those that are gone. Certificates and roles follow in manager/ca. */
import { skep } from "../../proto/index.ts";
import { removeNode as removeFromCluster, type ClusterSchema, type Tx } from "../store/index.ts";
import { ChangeRefused } from "./core/errors.ts";
import { checkNodeSpec } from "./core/other-specs.ts";
import type { Found } from "./find.ts";

const { NodeRole, NodeState, Reachability } = skep.objects;

type ClusterTx = Tx<ClusterSchema>;

/** @throws SpecInvalid, ChangeRefused */
export function updateNode(tx: ClusterTx, node: Found<"node">, spec: skep.objects.NodeSpec.$Properties): void {
  checkNodeSpec(spec);
  const demoted = node.spec?.role === NodeRole.MANAGER && (spec.role ?? NodeRole.WORKER) === NodeRole.WORKER;
  if (demoted && countManagers(tx) <= 1) {
    throw new ChangeRefused(
      "attempting to demote the last manager of the swarm",
      "Promote another node first, or use leave --force on this one to dissolve the swarm",
    );
  }
  if (demoted && wouldLoseQuorum(tx, node.id)) {
    throw new ChangeRefused(
      "can't remove member from the raft: this would result in a loss of quorum",
      "Bring the managers back that are unreachable, or promote another node first",
    );
  }
  tx.update("node", { ...node, spec });
}

/** @throws ChangeRefused */
export function removeNode(tx: ClusterTx, node: Found<"node">, force: boolean): void {
  if (node.role === NodeRole.MANAGER || node.spec?.role === NodeRole.MANAGER) {
    throw new ChangeRefused(
      `node ${node.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
      `Demote it first: node demote ${node.id}`,
    );
  }
  if (!force && node.status?.state === NodeState.NODE_READY) {
    throw new ChangeRefused(
      `node ${node.id} is not down and can't be removed`,
      "Let the node leave first (swarm leave on it), or force it",
    );
  }
  // Its certificate is refused from now on.
  removeFromCluster(tx, node.id);
}

function countManagers(tx: ClusterTx): number {
  let managers = 0;
  for (const node of tx.list("node")) if (node.spec?.role === NodeRole.MANAGER) managers++;
  return managers;
}

/** By what the role manager last saw; consensus itself judges again when the member is taken out. */
function wouldLoseQuorum(tx: ClusterTx, demotedId: string): boolean {
  let managers = 0;
  let reachable = 0;
  for (const node of tx.list("node")) {
    if (node.spec?.role !== NodeRole.MANAGER || node.id === demotedId) continue;
    managers++;
    if (node.managerStatus?.reachability !== Reachability.UNREACHABLE) reachable++;
  }
  return reachable <= managers / 2;
}
