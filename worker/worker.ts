/** Introduces the worker's rooms to each other: containers take their root file systems from images. */
import type { CommitRequest, PreparedRootfs, RootfsProvider } from "./containers/index.ts";
import type { Images } from "./images/index.ts";

/** Images as containers see them. */
export class ImageRootfs implements RootfsProvider {
  readonly #images: Images;

  constructor(images: Images) {
    this.#images = images;
  }

  async prepare(containerId: string, image: string): Promise<PreparedRootfs> {
    const { imageId, lowerDirs, config } = await this.#images.prepare(containerId, image);
    const { run } = config;
    const set = (names: readonly string[]): Record<string, object> =>
      Object.fromEntries(names.map((name) => [name, {}]));
    return {
      imageId,
      lowerDirectories: lowerDirs,
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

  async commit(request: CommitRequest): Promise<string> {
    const { layer, parentImage, config, author, comment } = request;
    return (await this.#images.commit(parentImage, layer, { author, comment, changes: { ...config } })).id;
  }
}
