/** Introduces the worker's rooms to each other: containers take their root file systems from images, tasks are containers. */
import { join } from "node:path";
import { mkdirSync } from "node:fs";

import type { Random } from "../lib/pure/prng.ts";
import type { Clock, Logger } from "../lib/runtime/index.ts";
import { AgentPlaces, ContainerNetworks, type NetworkEvent } from "./container-networks/index.ts";
import { Containers, type CommitRequest, type PreparedRootfs, type RootfsProvider } from "./containers/index.ts";
import { ContainerExecutor, TaskNetworkProvider, type ExecutorSettings } from "./executor/index.ts";
import { Images, type ImageEvent, type Platform } from "./images/index.ts";
import { NodeNetwork } from "./network/index.ts";
import { Volumes, type VolumeEvent } from "./volumes/index.ts";

export interface WorkerSettings {
  /** Survives a reboot. */
  readonly dataRoot: string;
  /** Does not have to; short, since sockets are in it. */
  readonly execRoot: string;
  /** The folder of the native programs. */
  readonly programs: string;
  /** Path of an OCI runtime, or "builtin". */
  readonly runtime: string;
  readonly cgroupParent: string;
  readonly platform: Platform;
  readonly insecureRegistries: readonly string[];
  readonly registryMirrors: readonly string[];
  readonly onImage: (event: ImageEvent) => void;
  readonly onVolume: (event: VolumeEvent) => void;
  readonly onNetwork: (event: NetworkEvent) => void;
  readonly executor: Pick<ExecutorSettings, "labels" | "genericResources" | "engineVersion" | "preferOfflineImage">;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** What one node runs. Closing it stops nothing: containers are their monitors'. */
export class Worker implements AsyncDisposable {
  readonly images: Images;
  readonly volumes: Volumes;
  readonly network: NodeNetwork;
  /** Of containers of the user's. */
  readonly networks: ContainerNetworks;
  /** In networks of the swarm: to be told of the agent. */
  readonly places: AgentPlaces;
  readonly containers: Containers;
  readonly executor: ContainerExecutor;

  private constructor(
    parts: Pick<Worker, "images" | "volumes" | "network" | "networks" | "places" | "containers">,
    executor: ContainerExecutor,
  ) {
    this.images = parts.images;
    this.volumes = parts.volumes;
    this.network = parts.network;
    this.networks = parts.networks;
    this.places = parts.places;
    this.containers = parts.containers;
    this.executor = executor;
  }

  /** Takes up what runs already. */
  static async open(settings: WorkerSettings): Promise<Worker> {
    const { dataRoot, execRoot, programs, clock, random, logger } = settings;
    for (const folder of [dataRoot, execRoot]) mkdirSync(folder, { recursive: true, mode: 0o711 });
    const opened = new AsyncDisposableStack();
    try {
      const archiveProgram = join(programs, "archive");
      const images = opened.use(
        await Images.open({
          folder: join(dataRoot, "images"),
          archiveProgram,
          platform: settings.platform,
          registries: { insecureRegistries: settings.insecureRegistries, mirrors: settings.registryMirrors },
          clock,
          random,
          onEvent: settings.onImage,
        }),
      );
      const volumes = opened.use(
        await Volumes.open({ folder: join(dataRoot, "volumes"), clock, logger, onEvent: settings.onVolume }),
      );
      const network = opened.use(
        await NodeNetwork.open({
          program: join(programs, "netplane"),
          dataDirectory: join(dataRoot, "network"),
          runDirectory: execRoot,
          swarmDirectory: join(dataRoot, "swarm"),
          clock,
          random,
          logger,
        }),
      );
      const places = new AgentPlaces();
      const networks = opened.use(
        new ContainerNetworks({
          folder: join(dataRoot, "network"),
          local: network.local,
          sandboxes: network.sandboxes,
          places,
          onEvent: settings.onNetwork,
          clock,
          logger,
        }),
      );
      const provider = new TaskNetworkProvider({ sandboxes: network.sandboxes, others: networks });
      const containerSettings = {
        dataDirectory: dataRoot,
        runDirectory: execRoot,
        programs: {
          isolate: join(programs, "isolate"),
          archive: archiveProgram,
          runtime: settings.runtime,
          init: join(programs, "init"),
        },
        cgroupParent: settings.cgroupParent,
        rootfs: new ImageRootfs(images),
        networks: provider,
        clock,
        logger,
        defaultStopSeconds: 10,
        restartAtBoot: true,
      };
      const containers = opened.use(await Containers.open(containerSettings, volumes));
      networks.bind((name) => containers.list().find(({ record }) => record.name === name)?.id);
      for (const { record, running } of containers.list()) await provider.takeUp(record, running);
      const executor = await ContainerExecutor.open({
        ...settings.executor,
        containers,
        images,
        networks: network,
        secretsDirectory: join(execRoot, "secrets"),
        clock,
        logger,
      });
      opened.move();
      return new Worker({ images, volumes, network, networks, places, containers }, executor);
    } catch (error) {
      await opened.disposeAsync();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.containers[Symbol.asyncDispose]();
    await this.executor[Symbol.asyncDispose]();
    await this.networks[Symbol.asyncDispose]();
    await this.network[Symbol.asyncDispose]();
    await this.volumes[Symbol.asyncDispose]();
    await this.images[Symbol.asyncDispose]();
  }
}

/** Images as containers see them. */
export class ImageRootfs implements RootfsProvider {
  readonly #images: Images;

  constructor(images: Images) {
    this.#images = images;
  }

  async prepare(containerId: string, image: string): Promise<PreparedRootfs> {
    const { imageId, lowerDirs, config, written } = await this.#images.prepare(containerId, image);
    const { run } = config;
    const set = (names: readonly string[]): Record<string, object> =>
      Object.fromEntries(names.map((name) => [name, {}]));
    return {
      imageId,
      lowerDirectories: lowerDirs,
      written,
      config: {
        User: run.user,
        Env: run.env,
        Cmd: run.cmd,
        Entrypoint: run.entrypoint,
        WorkingDir: run.workingDir,
        Labels: run.labels,
        Volumes: set(run.volumes),
        StopSignal: run.stopSignal,
        Shell: run.shell,
        ExposedPorts: set(run.exposedPorts),
        Healthcheck:
          run.healthcheck === undefined
            ? null
            : {
                Test: run.healthcheck.test,
                Interval: run.healthcheck.intervalNs,
                Timeout: run.healthcheck.timeoutNs,
                StartPeriod: run.healthcheck.startPeriodNs,
                StartInterval: run.healthcheck.startIntervalNs,
                Retries: run.healthcheck.retries,
              },
      },
    };
  }

  async release(containerId: string): Promise<void> {
    await this.#images.release(containerId);
  }

  async keep(images: ReadonlyMap<string, string>): Promise<void> {
    await this.#images.keep(images);
  }

  async commit(request: CommitRequest): Promise<string> {
    const { layer, parentImage, config, author, comment } = request;
    return (await this.#images.commit(parentImage, layer, { author, comment, changes: { ...config } })).id;
  }
}
