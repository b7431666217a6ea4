/** Containers of tasks start in the sandboxes that the executor had made for them; others are somebody else's to connect. */
import type { ContainerId, ContainerNetwork, ContainerRecord, NetworkProvider } from "../containers/index.ts";
import { NetworkNotReady, NetworkUnavailable, type Sandbox, type Sandboxes } from "../network/index.ts";
import { taskIdLabel } from "./core/container-of-task.ts";

export interface TaskNetworkProviderOptions {
  readonly sandboxes: Sandboxes;
  /** Containers of the user's; absent: they have no networks. */
  readonly others?: NetworkProvider;
}

export class TaskNetworkProvider implements NetworkProvider {
  readonly #options: TaskNetworkProviderOptions;
  /** Tasks by their container. */
  readonly #tasks = new Map<string, string>();

  constructor(options: TaskNetworkProviderOptions) {
    this.#options = options;
  }

  async attach(record: ContainerRecord): Promise<ContainerNetwork> {
    const taskId = record.config.Labels?.[taskIdLabel];
    const { sandboxes, others } = this.#options;
    if (taskId === undefined) {
      if (others === undefined) throw new NetworkUnavailable("containers of this worker have no networks of their own");
      return others.attach(record);
    }
    const sandbox = sandboxes.get(taskId);
    if (sandbox === undefined) throw new NetworkNotReady(taskId, "the task's namespace is not there");
    this.#tasks.set(record.id, taskId);
    return containerNetwork(sandbox);
  }

  /** A task's container is never started again. */
  async release(id: ContainerId): Promise<void> {
    const taskId = this.#tasks.get(id);
    this.#tasks.delete(id);
    if (taskId === undefined) await this.#options.others?.release(id);
    else await this.#options.sandboxes.release(taskId);
  }

  async keep(running: ReadonlySet<string>): Promise<void> {
    await this.#options.others?.keep(running);
  }

  /** After a restart: the container of this task runs, or has ended meanwhile. */
  async takeUp(record: Pick<ContainerRecord, "id" | "config">, isRunning: boolean): Promise<void> {
    const taskId = record.config.Labels?.[taskIdLabel];
    if (taskId === undefined) return;
    if (isRunning) this.#tasks.set(record.id, taskId);
    else await this.#options.sandboxes.release(taskId);
  }
}

/** Where a container is reached by its own name: on its networks, else by its way out. */
export function containerNetwork(sandbox: Sandbox): ContainerNetwork {
  const { namespacePath, resolver, hostAddress, endpoints, gatewayAddress } = sandbox;
  const own = endpoints.flatMap(({ address, v6 }) => (v6 === undefined ? [address] : [address, v6.address]));
  return {
    namespacePath,
    resolver,
    addresses: own.length > 0 || gatewayAddress === undefined ? own : [gatewayAddress],
    hostAddress,
  };
}
