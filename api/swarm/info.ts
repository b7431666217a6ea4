/** The member `Swarm` of `GET /info`, which most commands read first. */
import { skep } from "../../proto/index.ts";
import type { JsonObject } from "../http/index.ts";
import type { Swarm } from "../ports.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { clusterToApi } from "./objects.ts";
import { tlsInfoOf } from "./swarm.ts";

const { NodeRole } = skep.objects;

export async function swarmInfo(
  swarm: Pick<Swarm, "state">,
  control: ControlClient,
  signal: AbortSignal,
): Promise<JsonObject> {
  const { state, nodeId, nodeAddr, manager, error, remoteManagers } = swarm.state();
  const common = {
    NodeID: nodeId,
    NodeAddr: nodeAddr,
    LocalNodeState: state,
    ControlAvailable: manager && state === "active",
    Error: error,
    RemoteManagers:
      remoteManagers.length === 0 ? null : remoteManagers.map(({ nodeId: NodeID, addr: Addr }) => ({ NodeID, Addr })),
  };
  if (!manager || state !== "active") return common;
  const [{ cluster }, { objects }] = await Promise.all([
    control.get(ObjectKind.CLUSTER, "", signal),
    control.list(ObjectKind.NODE, [], signal),
  ]);
  return {
    ...common,
    Nodes: objects.length,
    Managers: objects.filter(({ node }) => node?.role === NodeRole.MANAGER).length,
    Cluster: clusterToApi(cluster ?? {}, tlsInfoOf(cluster ?? {}), { joinTokens: false }),
  };
}
