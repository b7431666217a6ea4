/** Why something cannot be allocated now: what the object carries, and the words for people. */
import { skep } from "../../../proto/index.ts";

type Port = skep.objects.EndpointPortConfig.$Properties;

export interface Refusal {
  readonly reason: skep.objects.Reason.$Properties;
  readonly text: string;
  /** The network that is full: others who want an address of it need not ask. */
  readonly full?: string;
}

export function poolFull(
  network: { readonly id: string; readonly name: string },
  subnet: string,
  size: number,
  used: number,
): Refusal {
  return {
    reason: { addressPoolFull: { networkId: network.id, subnet, size, used } },
    text: `Cannot give an address: ${used} of ${size} addresses of network ${network.name} are in use`,
    full: network.id,
  };
}

/** No subnet is left for a network. */
export function poolsFull(networkId: string, pools: string): Refusal {
  return {
    reason: { addressPoolFull: { networkId, subnet: pools, size: 0, used: 0 } },
    text: `Cannot give the network a subnet: every one of ${pools} is in use`,
  };
}

export function networkNotReady(networkId: string, detail: string): Refusal {
  return { reason: { networkNotReady: { networkId, detail } }, text: `Cannot use network ${networkId}: ${detail}` };
}

export function networkMissing(reference: string): Refusal {
  return {
    reason: { dependencyMissing: { kind: "network", reference } },
    text: `Cannot use network ${reference}: there is none`,
  };
}

export function portInUse(port: Port, usedBy: string): Refusal {
  const protocol = (skep.objects.PortProtocol[port.protocol ?? 0] ?? "").toLowerCase();
  return {
    reason: { portInUse: { port, usedBy } },
    text:
      (port.publishedPort ?? 0) === 0
        ? `Cannot publish port ${port.targetPort}/${protocol}: no port is left between 30000 and 32767`
        : `Cannot publish port ${port.publishedPort}/${protocol}: service ${usedBy} has it`,
  };
}
