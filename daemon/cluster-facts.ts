/** What this node's life in a swarm needs to know of the cluster, asked of its own manager. */
import { ClusterError } from "../lib/pure/errors.ts";
import type { Channel } from "../lib/rpc/index.ts";
import { controlMethods, skep } from "../proto/index.ts";

const { ObjectKind } = skep.control;
const timeoutMs = 5000;

/** Whether the cluster object is there and can be read; not while there is no leader. */
export async function clusterExists(channel: Channel, signal: AbortSignal): Promise<boolean> {
  try {
    const request = { kind: ObjectKind.CLUSTER };
    const { object } = await channel.call(controlMethods.get, request, { timeoutMs, signal });
    return object?.cluster != null;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof ClusterError) return false;
    throw error;
  }
}

export async function countManagers(channel: Channel, signal: AbortSignal): Promise<number> {
  const filters = [{ key: "role", values: ["manager"] }];
  const request = { kind: ObjectKind.NODE, filters };
  const { objects } = await channel.call(controlMethods.list, request, { timeoutMs, signal });
  return (objects ?? []).length;
}
