/** Does tasks as containers of this node. */
import { cpus, hostname, totalmem } from "node:os";
import { arch } from "node:process";

import { isId } from "../../lib/pure/id.ts";
import { type skep } from "../../proto/index.ts";
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import type { Container, Containers } from "../containers/index.ts";
import type { Images } from "../images/index.ts";
import type { Executor, Needs, NodeFacts, TaskController } from "./contract.ts";
import { ContainerTask, removeTask, type ControllerHost } from "./controller.ts";
import { logDrivers, taskIdLabel } from "./core/container-of-task.ts";
import { ImagePulls } from "./image-pulls.ts";
import { SecretFiles } from "./secret-files.ts";
import type { TaskNetworks } from "./task-networks.ts";

export interface ExecutorSettings {
  readonly containers: Containers;
  readonly images: Images;
  /** Secrets of tasks: a tmpfs is mounted there. Absolute. */
  readonly secretsDirectory: string;
  /** As `engine.labels` of the node, now. */
  readonly labels: () => Readonly<Record<string, string>>;
  readonly genericResources: readonly skep.objects.GenericResource.$Properties[];
  readonly engineVersion: string;
  /** Absent: tasks run in the host's network or in none. */
  readonly networks?: TaskNetworks;
  /** Do not ask a registry for an image that is here. */
  readonly preferOfflineImage: boolean;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Names that Swarm's users know from `uname -m`. */
export function machineName(nodeArch: string): string {
  return { x64: "x86_64", arm64: "aarch64", arm: "armv7l", ia32: "i686" }[nodeArch] ?? nodeArch;
}

export class ContainerExecutor implements Executor, AsyncDisposable {
  readonly #settings: ExecutorSettings;
  readonly #host: ControllerHost;

  private constructor(settings: ExecutorSettings, files: SecretFiles) {
    this.#settings = settings;
    const { containers, images, networks, clock, logger, preferOfflineImage: preferOffline } = settings;
    this.#host = {
      containers,
      pulls: new ImagePulls(images, { clock, logger, preferOffline }),
      files,
      ...(networks === undefined ? {} : { networks }),
      clock,
      find: (taskId) => containers.withLabel(taskIdLabel, taskId),
    };
  }

  /** @throws SecretsStoreFailed when there is no place for secrets */
  static async open(settings: ExecutorSettings): Promise<ContainerExecutor> {
    const { containers, secretsDirectory, clock, logger } = settings;
    const isNeeded = (taskId: string): boolean => containers.withLabel(taskIdLabel, taskId)?.running === true;
    return new ContainerExecutor(settings, await SecretFiles.open(secretsDirectory, { isNeeded, clock, logger }));
  }

  async describe(): Promise<skep.objects.NodeDescription.$Properties> {
    const { labels, genericResources, engineVersion } = this.#settings;
    const plugins = [
      ...logDrivers.map((name) => ({ type: "Log", name })),
      ...this.#networkDrivers().map((name) => ({ type: "Network", name })),
      { type: "Volume", name: "local" },
    ];
    return {
      hostname: hostname(),
      platform: { architecture: machineName(arch), os: "linux" },
      resources: {
        nanoCpus: cpus().length * 1e9,
        memoryBytes: totalmem(),
        genericResources: [...genericResources],
      },
      engine: { engineVersion, labels: { ...labels() }, plugins },
    };
  }

  async held(): Promise<readonly string[]> {
    const contained = this.#settings.containers
      .list()
      .map((container) => taskIdOf(container))
      .filter((id) => id !== undefined);
    const connected = (await this.#settings.networks?.sandboxes.held()) ?? [];
    return [...new Set([...contained, ...(await this.#host.files.tasks()), ...connected.filter(isId)])].sort();
  }

  #networkDrivers(): readonly string[] {
    const { networks } = this.#settings;
    const built = networks !== undefined && networks.abilities.refusal === undefined;
    return built ? ["bridge", "host", "null", "overlay"] : ["host", "null"];
  }

  controller(task: skep.objects.Task, needs: Needs, facts: NodeFacts): TaskController {
    return new ContainerTask(this.#host, task, needs, facts);
  }

  async forget(taskId: string): Promise<void> {
    await removeTask(this.#host, taskId);
  }

  /** Tasks run on, with what they have. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#host.files[Symbol.asyncDispose]();
  }
}

function taskIdOf(container: Container): string | undefined {
  return container.record.config.Labels?.[taskIdLabel];
}
