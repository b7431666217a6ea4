/** Who is on a network of the swarm, as managers know it. */
import type { JsonObject } from "../http/index.ts";
import { ObjectKind, type ControlClient } from "../swarm/client.ts";
import type { Shown } from "./shown.ts";

/** Services with their addresses, and their tasks. */
export async function verbose(control: ControlClient, network: Shown, signal: AbortSignal): Promise<JsonObject> {
  if (network.Scope !== "swarm") return { Services: {} };
  const id = network.Id;
  const [services, tasks, nodes] = await Promise.all([
    control.list(ObjectKind.SERVICE, [], signal),
    control.list(ObjectKind.TASK, [["desired-state", ["running"]]], signal),
    control.list(ObjectKind.NODE, [], signal),
  ]);
  const addresses = new Map(nodes.objects.map(({ node }) => [node?.id ?? "", node?.status?.addr ?? ""]));
  const found: Record<string, JsonObject> = {};
  for (const { service } of services.objects) {
    const vip = (service?.endpoint?.virtualIps ?? []).find(({ networkId }) => networkId === id);
    const attached = tasks.objects.flatMap(({ task }) => {
      if (task?.serviceId !== service?.id) return [];
      const attachment = (task?.networksAttachments ?? []).find(({ networkId }) => networkId === id);
      if (attachment === undefined) return [];
      return [
        {
          Name: task?.name ?? "",
          EndpointID: task?.id ?? "",
          EndpointIP: (attachment.addresses?.[0] ?? "").split("/")[0] ?? "",
          Info: { "Host IP": addresses.get(task?.nodeId ?? "") ?? "" },
        },
      ];
    });
    if (vip === undefined && attached.length === 0) continue;
    found[service?.spec?.name ?? ""] = {
      VIP: (vip?.addr ?? "").split("/")[0] ?? "",
      Ports: (service?.endpoint?.ports ?? []).map(
        ({ targetPort, publishedPort }) => `Target: ${targetPort ?? 0}, Publish: ${publishedPort ?? 0}`,
      ),
      LocalLBIndex: 0,
      Tasks: attached,
    };
  }
  return { Services: found };
}

/** Nodes with a task on the network. */
export async function peers(
  control: ControlClient,
  network: Shown,
  signal: AbortSignal,
): Promise<readonly JsonObject[]> {
  const [tasks, nodes] = await Promise.all([
    control.list(ObjectKind.TASK, [["desired-state", ["running"]]], signal),
    control.list(ObjectKind.NODE, [], signal),
  ]);
  const on = new Set(
    tasks.objects
      .filter(({ task }) => (task?.networksAttachments ?? []).some(({ networkId }) => networkId === network.Id))
      .map(({ task }) => task?.nodeId ?? ""),
  );
  return nodes.objects
    .filter(({ node }) => on.has(node?.id ?? ""))
    .map(({ node }) => ({ Name: node?.description?.hostname ?? "", IP: node?.status?.addr ?? "" }));
}
