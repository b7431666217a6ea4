/** The member `Swarm` of `GET /info`, which most commands read first. */
import { ClusterError } from "../../lib/pure/errors.ts";
import { skep } from "../../proto/index.ts";
import type { JsonObject } from "../http/index.ts";
import type { Swarm } from "../ports.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { clusterToApi } from "./objects.ts";
import { tlsInfoOf } from "./swarm.ts";

const { NodeRole } = skep.objects;

/** With `Cluster` and the counts where a manager runs here; without a leader, or while it cannot be asked, why not. */
export async function swarmInfo(
  swarm: Pick<Swarm, "state">,
  control: ControlClient,
  signal: AbortSignal,
): Promise<JsonObject> {
  const { state, nodeId, nodeAddr, manager, error, remoteManagers } = swarm.state();
  const available = manager && state === "active";
  const here = {
    NodeID: nodeId,
    NodeAddr: nodeAddr,
    LocalNodeState: state,
    ControlAvailable: available,
    Error: error,
    RemoteManagers:
      remoteManagers.length === 0 ? null : remoteManagers.map(({ nodeId: NodeID, addr: Addr }) => ({ NodeID, Addr })),
  };
  if (!available) return here;
  try {
    const [{ cluster }, { objects }] = await Promise.all([
      control.get(ObjectKind.CLUSTER, "", signal),
      control.list(ObjectKind.NODE, [], signal),
    ]);
    return {
      ...here,
      Nodes: objects.length,
      Managers: objects.filter(({ node }) => node?.role === NodeRole.MANAGER).length,
      Cluster: clusterToApi(cluster ?? {}, tlsInfoOf(cluster ?? {}), { joinTokens: false }),
    };
  } catch (failure) {
    if (!(failure instanceof ClusterError)) throw failure;
    return { ...here, Error: failure.message };
  }
}
