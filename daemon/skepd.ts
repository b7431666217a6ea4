/**
 * Skepd: introduces the parts of one node to each other: containers and images, the agent and its executor, the node's
 * life in a swarm, and the API over all of it. Whatever ends here, containers go on: they are their monitors'.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { arch, hostname, networkInterfaces, release } from "node:os";
import { dirname, join } from "node:path";

import { Api, type Listen } from "../api/index.ts";
import { engineInfo, LocalEvents, localRoutes } from "../api/local/index.ts";
import { Random } from "../lib/pure/prng.ts";
import { realClock, type Logger } from "../lib/runtime/index.ts";
import { Worker } from "../worker/worker.ts";
import { clusterExists, countManagers } from "./cluster-facts.ts";
import { ConfigInvalid, readIfThere, type DaemonConfig } from "./config.ts";
import { managerNodeOptions } from "./manager-child.ts";
import { Membership } from "./membership.ts";
import { openNodeAgent } from "./node-agent.ts";

export const version = "0.1.0";

/** Beside the sources, or in the folder of the bundles. */
const here = import.meta.dirname;
const bundled = existsSync(join(here, "manager.js"));
const managerEntry = bundled ? join(here, "manager.js") : join(here, "../manager/main.ts");
const programs = bundled ? here : join(here, "../native/build");

export class Skepd implements AsyncDisposable {
  readonly #parts: AsyncDisposableStack;
  readonly #logger: Logger;
  readonly #current: { labels: DaemonConfig["labels"] };

  private constructor(parts: AsyncDisposableStack, logger: Logger, current: { labels: DaemonConfig["labels"] }) {
    this.#parts = parts;
    this.#logger = logger;
    this.#current = current;
  }

  /** What may change while it runs: labels and the log level. */
  reload({ labels, logLevel }: DaemonConfig): void {
    this.#current.labels = labels;
    this.#logger.level = logLevel;
  }

  /** Takes up what runs here, goes on with what this node is in a swarm, then serves. */
  static async open(config: DaemonConfig, logger: Logger): Promise<Skepd> {
    const clock = realClock;
    const random = new Random(randomBytes(8).toString("hex"));
    const current = { labels: config.labels };
    const parts = new AsyncDisposableStack();
    try {
      const events = parts.use(new LocalEvents(clock, logger));
      const worker = parts.use(
        await Worker.open({
          onImage: events.image,
          onVolume: events.volume,
          onNetwork: events.network,
          dataRoot: config.dataRoot,
          execRoot: config.execRoot,
          programs,
          runtime: config.runtime,
          cgroupParent: config.cgroupParent,
          platform: { os: "linux", architecture: imageArchitectures[arch()] ?? arch(), variant: "" },
          insecureRegistries: config.insecureRegistries,
          registryMirrors: config.registryMirrors,
          executor: {
            labels: () => current.labels,
            genericResources: config.genericResources.map(({ kind, value }) =>
              typeof value === "number"
                ? { discreteResourceSpec: { kind, value } }
                : { namedResourceSpec: { kind, value } },
            ),
            engineVersion: version,
            preferOfflineImage: process.env["DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"] === "1",
          },
          clock,
          random,
          logger,
        }),
      );
      const { executor, network } = worker;
      const membership = parts.use(
        new Membership({
          dataRoot: config.dataRoot,
          execRoot: config.execRoot,
          defaultAdvertiseAddr: config.defaultAdvertiseAddr,
          hostname: hostname(),
          interfaces: networkInterfaces,
          managerCommand: [process.execPath, ...managerNodeOptions, managerEntry],
          managerUser: managerUserOf(config.managerUser, logger),
          managerArgs: [
            "--log-level",
            config.logLevel,
            ...(config.metricsAddr === undefined ? [] : ["--metrics", config.metricsAddr]),
          ],
          openAgent: (identity, events) =>
            openNodeAgent({
              identity,
              events,
              executor,
              network,
              places: worker.places,
              folder: join(config.dataRoot, "agent"),
              clock,
              random,
              logger,
            }),
          clusterExists,
          countManagers,
          describe: () => executor.describe(),
          clock,
          random,
          logger,
        }),
      );
      membership.resume();
      const { containers, images, volumes, networks } = worker;
      events.follow(containers);
      const local = {
        local: { containers, images, volumes, networks },
        events,
        clock,
        logger,
        engine: {
          id: engineId(config.dataRoot),
          hostname: hostname(),
          version,
          commit: "",
          buildTime: "",
          dataRoot: config.dataRoot,
          get labels() {
            return current.labels;
          },
          insecureRegistries: config.insecureRegistries,
          mirrors: config.registryMirrors,
          init: true,
          debug: config.logLevel === "debug" || config.logLevel === "trace",
        },
      };
      const api = parts.use(
        await Api.open({
          swarm: membership,
          emit: (event) => events.emit(event),
          clock,
          release: {
            version,
            gitCommit: "",
            buildTime: "",
            kernelVersion: release(),
            architecture: imageArchitectures[arch()] ?? arch(),
          },
          ...localRoutes(local),
          node: worker,
          info: () => engineInfo(local),
          logger,
        }),
      );
      for (const host of config.hosts) await api.listen(listenOn(host, config));
      return new Skepd(parts, logger, current);
    } catch (error) {
      await parts.disposeAsync();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}

/** @throws ConfigInvalid when a file of TLS cannot be read */
function listenOn(host: string, { group, tls }: DaemonConfig): Listen {
  if (host.startsWith("unix://")) {
    const path = host.slice("unix://".length);
    mkdirSync(dirname(path), { recursive: true, mode: 0o711 });
    const groupId = findId("/etc/group", group);
    return { kind: "unix", path, ...(groupId === undefined ? {} : { groupId }) };
  }
  const { hostname: address, port } = new URL(host.replace("tcp://", "https://"));
  if (tls === undefined) throw new ConfigInvalid(`Cannot listen on ${host} without TLS`);
  const read = (path: string): string => {
    const content = readIfThere(path);
    if (content === undefined) throw new ConfigInvalid(`Cannot listen on ${host}: there is no ${path}`);
    return content;
  };
  return {
    kind: "tls",
    host: address.replace(/^\[|\]$/gu, ""),
    port: Number(port),
    key: read(tls.key),
    cert: read(tls.cert),
    ca: read(tls.ca),
  };
}

/** Made once, kept with the data, as clients know this engine by it. */
function engineId(dataRoot: string): string {
  const file = join(dataRoot, "engine-id");
  const known = readIfThere(file)?.trim();
  if (known !== undefined && /^[0-9a-f-]{36}$/u.test(known)) return known;
  const id = randomUUID();
  writeFileSync(file, `${id}\n`);
  return id;
}

/** The third field of the line of this name in /etc/passwd or /etc/group. */
function findId(file: string, name: string): number | undefined {
  for (const line of readFileSync(file, "utf8").split("\n")) {
    const [entry, , id] = line.split(":");
    if (entry === name) return Number(id);
  }
  return undefined;
}

/** As images name them. */
const imageArchitectures: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64", arm: "arm", ia32: "386" };

/** A manager needs no rights of root, and has none: it runs as this user, or as a number that nobody else has. */
const managerIdDefault = 62_377;

function managerUserOf(name: string, logger: Logger): { readonly uid: number; readonly gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const hidden = [process.execPath, managerEntry].find((path) => !readableByAll(path));
  if (hidden !== undefined) {
    logger.warn("the manager runs as root, since others cannot read its program", { path: hidden });
    return undefined;
  }
  const uid = findId("/etc/passwd", name) ?? managerIdDefault;
  return { uid, gid: findId("/etc/group", name) ?? uid };
}

function readableByAll(path: string): boolean {
  const folders = dirname(path)
    .split("/")
    .map((_, at, parts) => parts.slice(0, at + 1).join("/") || "/");
  return (statSync(path).mode & 0o004) !== 0 && folders.every((folder) => (statSync(folder).mode & 0o001) !== 0);
}
