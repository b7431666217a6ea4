/** The networks of a task: from what its service asks and managers gave to a sandbox of this node. */
import { isEncryptedNetwork, skep, taskName } from "../../proto/index.ts";
import {
  NetworkNotReady,
  NetworkUnavailable,
  type NetworkAbilities,
  type OverlayWish,
  type PublishedPort,
  type Sandbox,
  type Sandboxes,
  type SandboxRequest,
} from "../network/index.ts";
import type { Needs } from "./contract.ts";

type Network = skep.objects.Network.$Properties;
type Port = skep.objects.EndpointPortConfig.$Properties;

/** What an executor is given of the network room. */
export interface TaskNetworks {
  readonly sandboxes: Sandboxes;
  readonly abilities: NetworkAbilities;
}

/** Where a task's container runs: in the host's namespace, in one with a loopback only, or in a sandbox. */
export type TaskNetworkPlan =
  { readonly mode: "host" | "none" } | { readonly mode: "sandbox"; readonly request: SandboxRequest };

const { PortProtocol, PublishMode } = skep.objects;
const mtuOption = "com.docker.network.driver.mtu";

/**
 * @param abilities  undefined, or with a refusal: this node has no networks of its own; host and none still work
 * @throws           NetworkNotReady when something has not arrived yet, NetworkUnavailable where networks are needed
 */
export function planTaskNetwork(
  task: skep.objects.Task,
  needs: Needs,
  abilities: NetworkAbilities | undefined,
): TaskNetworkPlan {
  let isolated = false;
  for (const { target: wanted } of task.spec?.networks ?? []) {
    const target = wanted ?? "";
    const network = needs.network(target);
    const driver = network?.spec?.driver?.name ?? "";
    const name = network?.spec?.name ?? target;
    if (driver === "host" || name === "host") return { mode: "host" };
    if (driver === "null" || name === "none") isolated = true;
  }
  if (isolated) return { mode: "none" };
  const ports = hostPorts(task);
  const asked = (task.spec?.networks ?? []).some(({ target }) => needs.network(target ?? "")?.spec?.ingress !== true);
  const refusal = abilities?.refusal;
  if (abilities === undefined || refusal !== undefined) {
    // Without networks it needs none; that it has no way out is better than that it does not run.
    if (!asked && ports.length === 0) return { mode: "none" };
    throw refusal ?? new NetworkUnavailable("this worker was opened without networks");
  }
  return {
    mode: "sandbox",
    request: {
      networks: overlaysOf(task, needs),
      gateway: true,
      ports,
      containerName: taskName(task),
      hostname: task.spec?.containerSpec?.hostname ?? "",
      dns: task.spec?.containerSpec?.dnsConfig?.nameservers ?? [],
      serviceId: task.serviceId,
      taskId: task.id,
    },
  };
}

function overlaysOf(task: skep.objects.Task, needs: Needs): OverlayWish[] {
  const wishes: OverlayWish[] = [];
  for (const { networkId, addresses, aliases } of task.networksAttachments) {
    const network = needs.network(networkId ?? "");
    if (network == null) throw new NetworkNotReady(networkId ?? "", "it is not known on this node yet");
    const address = addresses?.find((one) => !one.includes(":"));
    const address6 = addresses?.find((one) => one.includes(":"));
    // The ingress network is no network of the container: published ports reach it by its gateway address.
    if (network.spec?.ingress === true || address === undefined) continue;
    wishes.push({ kind: "overlay", network: overlayOf(network), address, ...v6Of(address6), aliases: aliases ?? [] });
  }
  for (const { target } of task.spec?.networks ?? []) {
    const network = needs.network(target ?? "");
    const isThere = network?.spec?.ingress === true || wishes.some((wish) => wish.network.id === network?.id);
    if (!isThere) throw new NetworkNotReady(network?.spec?.name ?? target ?? "", "the task has no address on it");
  }
  return wishes;
}

const v6Of = (address6: string | undefined): Pick<OverlayWish, "address6"> =>
  address6 === undefined ? {} : { address6 };

/** The one network of a wish as this node has to know it; what is missing in it is refused by the sandboxes. */
export function overlayOf(network: Network): OverlayWish["network"] {
  const { id, spec, ipam, vni } = network;
  const options = spec?.driver?.options ?? {};
  const config = (ipam?.config ?? []).find(({ subnet }) => subnet?.includes(":") === false);
  const config6 = (ipam?.config ?? []).find(({ subnet }) => subnet?.includes(":") === true);
  const mtu = Number(options[mtuOption] ?? 0);
  return {
    id: id ?? "",
    name: spec?.name ?? "",
    vni: vni ?? 0,
    subnet: config?.subnet ?? "",
    gateway: config?.gateway ?? "",
    ...(config6 === undefined ? {} : { subnet6: config6.subnet ?? "", gateway6: config6.gateway ?? "" }),
    internal: spec?.internal ?? false,
    encrypted: isEncryptedNetwork(spec),
    mtu: Number.isInteger(mtu) && mtu > 0 ? mtu : 0,
  };
}

function hostPorts(task: skep.objects.Task): PublishedPort[] {
  return (task.endpoint?.ports ?? []).flatMap(({ publishMode, protocol, targetPort, publishedPort }) =>
    publishMode === PublishMode.HOST
      ? [
          {
            protocol: protocol === PortProtocol.UDP ? "udp" : protocol === PortProtocol.SCTP ? "sctp" : "tcp",
            targetPort: targetPort ?? 0,
            publishedPort: publishedPort ?? 0,
            hostAddress: "",
          } satisfies PublishedPort,
        ]
      : [],
  );
}

/** Host ports that are really taken. */
export function portStatusOf({ ports }: Sandbox): skep.objects.PortStatus.$Properties | undefined {
  if (ports.length === 0) return undefined;
  const protocols = { tcp: PortProtocol.TCP, udp: PortProtocol.UDP, sctp: PortProtocol.SCTP };
  return {
    ports: ports.map(({ protocol, targetPort, publishedPort }): Port => ({
      protocol: protocols[protocol],
      targetPort,
      publishedPort,
      publishMode: PublishMode.HOST,
    })),
  };
}
