/**
 * Places in networks of the swarm, by whatever agent this node has at the moment: it comes when the node joins and goes when
 * it leaves, while containers of the user's stay.
 */
import type { Attached, AttachRequest } from "../agent/index.ts";
import { overlayOf } from "../executor/index.ts";
import type { OverlayNetwork } from "../network/index.ts";
import { ContainerNetworkNotFound } from "./errors.ts";

/** A place in a network of the swarm, as managers gave it: a task with an address. */
export interface OverlayPlace {
  readonly taskId: string;
  readonly network: OverlayNetwork;
  /** CIDR. */
  readonly address: string;
  /** Likewise, where the network has IPv6. */
  readonly address6?: string;
}

export interface PlaceWish {
  readonly containerId: string;
  /** Of the container. */
  readonly name: string;
  /** Id or name. */
  readonly network: string;
  /** Fixed ones, one of a family; of the others one is chosen. */
  readonly addresses: readonly string[];
  readonly aliases: readonly string[];
}

/** Asks managers for places in attachable networks. */
export interface OverlayPlaces {
  /** Outside a swarm there are no such networks. */
  readonly isInSwarm: boolean;
  /**
   * Asked again, the answer is the same place.
   * @throws AttachmentRefused; ContainerNetworkNotFound when there is no swarm to ask
   */
  take(wish: PlaceWish, signal: AbortSignal): Promise<OverlayPlace>;
  /** Again is harmless. */
  leave(taskId: string): void;
  /** All that this node has, as far as managers have told. */
  held(): readonly { readonly taskId: string; readonly containerId: string; readonly networkId: string }[];
}

/** What of an agent is needed (worker/agent/attacher.ts). */
export interface PlacesOfAgent {
  attach(request: AttachRequest, signal: AbortSignal): Promise<Attached>;
  detach(taskId: string): void;
  readonly attached: readonly Attached[];
}

export class AgentPlaces implements OverlayPlaces {
  #agent: PlacesOfAgent | undefined;
  /** Woken when an agent comes. */
  #coming = Promise.withResolvers<void>();

  /** From now on this one is asked; undefined: the node has left. */
  follow(agent: PlacesOfAgent | undefined): void {
    this.#agent = agent;
    if (agent === undefined) return;
    this.#coming.resolve();
    this.#coming = Promise.withResolvers();
  }

  get isInSwarm(): boolean {
    return this.#agent !== undefined;
  }

  async take(
    { containerId, name, network, addresses, aliases }: PlaceWish,
    signal: AbortSignal,
  ): Promise<OverlayPlace> {
    const agent = await this.#anAgent(network, signal);
    const found = await agent.attach({ containerId, name, network, aliases, addresses }, signal);
    const address6 = found.addresses.find((one) => one.includes(":"));
    return {
      taskId: found.taskId,
      network: overlayOf(found.network),
      address: found.addresses.find((one) => !one.includes(":")) ?? "",
      ...(address6 === undefined ? {} : { address6 }),
    };
  }

  leave(taskId: string): void {
    this.#agent?.detach(taskId);
  }

  held(): readonly { readonly taskId: string; readonly containerId: string; readonly networkId: string }[] {
    return (this.#agent?.attached ?? []).map(({ taskId, containerId, network }) => ({
      taskId,
      containerId,
      networkId: network.id,
    }));
  }

  /** When the daemon starts, containers come back before the agent does. */
  async #anAgent(network: string, signal: AbortSignal): Promise<PlacesOfAgent> {
    while (this.#agent === undefined) {
      if (signal.aborted) throw new ContainerNetworkNotFound(network);
      const over = Promise.withResolvers<void>();
      const onAbort = (): void => over.resolve();
      signal.addEventListener("abort", onAbort, { once: true });
      await Promise.race([this.#coming.promise, over.promise]);
      signal.removeEventListener("abort", onAbort);
    }
    return this.#agent;
  }
}
