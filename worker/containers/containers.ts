/** All containers of one worker: their names, their creation, their return after a restart of the daemon. */
import { randomBytes, randomInt } from "node:crypto";
import { mkdirSync } from "node:fs";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";

import { inventName } from "../../lib/pure/invented-name.ts";
import { TaskGroup, type ResyncItem } from "../../lib/runtime/index.ts";
import { noHealth } from "./core/health.ts";
import { planMounts } from "./core/mounts.ts";
import { restartAtBoot } from "./core/restart.ts";
import type {
  ContainerConfig,
  ContainerId,
  ContainerRecord,
  EndpointSettings,
  HostConfig,
  ResolvedMount,
} from "./core/types.ts";
import { wrongConfig, wrongName } from "./core/validate.ts";
import { Container, type ContainerHost, type ExecConfig, type ExecSession } from "./container.ts";
import {
  ContainerAmbiguous,
  ContainerConfigInvalid,
  ContainerNameInUse,
  ContainerNotFound,
  ContainerStateConflict,
  ExecNotFound,
} from "./errors.ts";
import { EventHub, type ContainerEvent } from "./events.ts";
import { readHostFacts } from "./host-facts.ts";
import { Launcher } from "./launcher.ts";
import { clearLeftovers, type Leftovers } from "./leftovers.ts";
import { makeSharedDirectories } from "./root-access.ts";
import { openRecords, type RecordStore } from "./records.ts";
import type { ContainerSettings } from "./settings.ts";
import { DirectoryVolumes, type VolumeProvider } from "./volumes.ts";

/** Ended exec sessions that can still be inspected. */
const execsKept = 256;

export interface CreateRequest {
  /** With or without a leading slash; absent: one is invented. */
  readonly name?: string;
  readonly config: ContainerConfig;
  readonly hostConfig?: HostConfig;
  /** By name or id, the first one first. */
  readonly networks?: Readonly<Record<string, EndpointSettings>>;
}

export interface RecoveryReport {
  readonly adopted: readonly ContainerId[];
  readonly ended: readonly ContainerId[];
  readonly removed: readonly ContainerId[];
  readonly leftovers: Leftovers;
}

export class Containers implements AsyncDisposable {
  readonly #settings: ContainerSettings;
  readonly #records: RecordStore;
  readonly #containers = new Map<string, Container>();
  readonly #names = new Map<string, string>();
  readonly #execs = new Map<string, ExecSession>();
  readonly #events = new EventHub();
  readonly #tasks: TaskGroup;
  readonly #host: ContainerHost;
  readonly #launcher: Launcher;
  /** What `open` found and did. */
  recovery: RecoveryReport = {
    adopted: [],
    ended: [],
    removed: [],
    leftovers: { states: [], directories: [], cgroups: [], mounts: [] },
  };

  private constructor(
    settings: ContainerSettings,
    records: RecordStore,
    volumes: VolumeProvider,
    facts: ContainerHost["facts"],
    launcher: Launcher,
  ) {
    this.#settings = settings;
    this.#launcher = launcher;
    this.#records = records;
    this.#tasks = new TaskGroup((name, error) =>
      settings.logger.error("work on a container failed", { work: name, error }),
    );
    this.#host = {
      settings,
      launcher,
      facts,
      records,
      volumes,
      events: this.#events,
      tasks: this.#tasks,
      resolve: (reference) => this.get(reference),
      forget: (container) => {
        this.#containers.delete(container.id);
        if (this.#names.get(container.record.name) === container.id) this.#names.delete(container.record.name);
      },
    };
  }

  /** Opens the records, adopts what runs, clears away what belongs to nobody, and starts what its policy wants running. */
  static async open(settings: ContainerSettings, volumes?: VolumeProvider): Promise<Containers> {
    for (const path of [
      join(settings.dataDirectory, "containers"),
      // Now, since a disk that is full does not take it when it is needed.
      join(settings.dataDirectory, "trash"),
      join(settings.runDirectory, "c"),
      join(settings.runDirectory, "r"),
    ]) {
      await mkdir(path, { recursive: true, mode: 0o711 });
    }
    await makeSharedDirectories(settings.dataDirectory);
    const records = await openRecords(join(settings.dataDirectory, "db"));
    const launcher = await Launcher.open(settings.programs.isolate, {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      ...settings.monitorEnvironment,
    });
    const sealed: ContainerSettings = {
      ...settings,
      programs: {
        ...settings.programs,
        get isolate() {
          return launcher.path;
        },
      },
    };
    try {
      const provider = volumes ?? new DirectoryVolumes(join(settings.dataDirectory, "volumes"));
      const containers = new Containers(sealed, records, provider, await readHostFacts(), launcher);
      await containers.#recover();
      return containers;
    } catch (error) {
      await launcher[Symbol.asyncDispose]();
      await records[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #recover(): Promise<void> {
    // A full disk may have kept the record of one that was removed: what is in the trash says so.
    const trash = await readdir(join(this.#settings.dataDirectory, "trash"));
    const doomed = new Set(trash.map((name) => name.slice(0, name.lastIndexOf("-"))));
    for (const found of await this.#records.all()) {
      const isDoomed = doomed.has(found.id);
      const record = isDoomed ? { ...found, state: { ...found.state, status: "removing" as const } } : found;
      const container = new Container(this.#host, record);
      this.#containers.set(record.id, container);
      this.#names.set(record.name, record.id);
      this.#host.volumes.hold(record.id, container.volumeNames);
    }
    const before = new Map([...this.#containers].map(([id, { record }]) => [id, record.state]));
    const outcome: { adopted: ContainerId[]; ended: ContainerId[]; removed: ContainerId[] } = {
      adopted: [],
      ended: [],
      removed: [],
    };
    for (const container of this.list()) {
      const found = await container.recover();
      if (found !== "idle") outcome[found].push(container.id);
    }
    const running = new Set(
      [...this.#containers.values()].filter((container) => container.running).map(({ id }) => id as string),
    );
    const leftovers = await clearLeftovers(this.#settings, new Set(this.#containers.keys()), running);
    this.recovery = { ...outcome, leftovers };
    await this.#settings.networks?.keep(running);
    await this.#settings.rootfs.keep(new Map(this.list().map(({ id, record }) => [id, record.imageId])));
    await this.#host.volumes.settled();
    for (const container of this.list()) {
      const last = before.get(container.id);
      if (container.running || last === undefined || container.record.state.startedAtMs === 0) continue;
      if (container.record.hostConfig.AutoRemove === true) {
        await container.remove({ volumes: true });
        continue;
      }
      const wasRunning = last.status === "running" || last.status === "paused" || last.restarting;
      const facts = { stoppedByUser: last.stoppedByUser, exitCode: container.record.state.exit?.code ?? 0, wasRunning };
      if (!this.#settings.restartAtBoot || !restartAtBoot(container.record.hostConfig.RestartPolicy ?? {}, facts))
        continue;
      this.#tasks.start(`start ${container.id}`, async () => void (await container.start()));
    }
    // One that removed itself may have been told to be gone, and its name been given again, before its record was deleted.
    for (const { id, record } of this.#containers.values()) this.#names.set(record.name, id);
  }

  async create(request: CreateRequest): Promise<Container> {
    const { config } = request;
    const hostConfig = request.hostConfig ?? {};
    const id = randomBytes(32).toString("hex") as ContainerId;
    const name =
      request.name === undefined || request.name === "" ? this.#inventName() : request.name.replace(/^\//, "");
    const wrong = wrongName(name);
    if (wrong !== undefined) throw new ContainerConfigInvalid(wrong);
    // Taken before the first await, so that of two with one name the second is refused.
    this.#takeName(name, id);
    let made = false;
    try {
      const prepared = await this.#settings.rootfs.prepare(id, config.Image ?? "");
      const wrongWish = wrongConfig(config, hostConfig, prepared.config, this.#host.facts);
      if (wrongWish !== undefined) throw new ContainerConfigInvalid(wrongWish);
      if (hostConfig.Init === true && this.#settings.programs.init === undefined)
        throw new ContainerConfigInvalid("this worker has no init program");
      const plan = planMounts(config, hostConfig, prepared.config);
      if (!plan.ok) throw new ContainerConfigInvalid(plan.why);
      const { mounts, anonymous } = await this.#resolveMounts(id, plan.mounts, hostConfig);
      const record: ContainerRecord = {
        version: 1,
        id,
        name,
        createdAtMs: this.#settings.clock.wallMs(),
        imageId: prepared.imageId,
        config,
        hostConfig,
        image: prepared.config,
        mounts,
        anonymousVolumes: anonymous,
        ...(request.networks === undefined ? {} : { networks: request.networks }),
        state: {
          status: "created",
          pid: 0,
          startedAtMs: 0,
          exit: undefined,
          error: "",
          restartCount: 0,
          stoppedByUser: false,
          restarting: false,
          health: noHealth,
        },
      };
      mkdirSync(join(this.#settings.dataDirectory, "containers", id), { mode: 0o711 });
      made = true;
      // Both at once: what a crash leaves of one without the other is put right when the worker starts.
      const put = this.#records.put(record);
      await Promise.all([put, prepared.written]).catch(async (error: unknown) => {
        const isRecorded = await put.then(
          () => true,
          () => false,
        );
        if (isRecorded) await this.#records.delete(id);
        throw error;
      });
      const container = new Container(this.#host, record);
      this.#containers.set(id, container);
      this.#events.emit({
        action: "create",
        id,
        timeMs: record.createdAtMs,
        attributes: { ...config.Labels, image: config.Image ?? "", name },
      });
      return container;
    } catch (error) {
      this.#names.delete(name);
      if (made) await rm(join(this.#settings.dataDirectory, "containers", id), { recursive: true, force: true });
      this.#host.volumes.release(id);
      await this.#settings.rootfs.release(id);
      throw error;
    }
  }

  async #resolveMounts(
    containerId: ContainerId,
    wanted: Extract<ReturnType<typeof planMounts>, { ok: true }>["mounts"],
    hostConfig: HostConfig,
  ): Promise<{ mounts: ResolvedMount[]; anonymous: string[] }> {
    const mounts: ResolvedMount[] = [];
    const anonymous: string[] = [];
    const plain = { driver: hostConfig.VolumeDriver ?? "", labels: {}, options: {} };
    for (const { anonymous: unnamed, volume = plain, ...mount } of wanted) {
      if (mount.type === "tmpfs") {
        mounts.push(mount);
      } else if (mount.type === "volume") {
        const name = unnamed === true ? randomBytes(32).toString("hex") : (mount.name ?? "");
        if (unnamed === true) anonymous.push(name);
        const wish = { ...volume, containerId, anonymous: unnamed === true };
        mounts.push({ ...mount, name, source: await this.#host.volumes.path(name, wish) });
      } else {
        const found = await stat(mount.source).catch(() => undefined);
        const explicit = (hostConfig.Mounts ?? []).find(
          ({ Type, Source }) => Type === "bind" && Source === mount.source,
        );
        if (found === undefined && explicit !== undefined && explicit.BindOptions?.CreateMountpoint !== true) {
          throw new ContainerConfigInvalid(
            `invalid mount config for type "bind": bind source path does not exist: ${mount.source}`,
          );
        }
        if (found === undefined) await mkdir(mount.source, { recursive: true });
        mounts.push(mount);
      }
    }
    return { mounts, anonymous };
  }

  #inventName(): string {
    const chance = (): number => randomInt(2 ** 32) / 2 ** 32;
    const name = inventName([chance(), chance()]);
    return this.#names.has(name) ? inventName([chance(), chance()], randomInt(1_000_000)) : name;
  }

  #takeName(name: string, id: string): void {
    const holder = this.#names.get(name);
    if (holder !== undefined) throw new ContainerNameInUse(name, holder);
    this.#names.set(name, id);
  }

  /** By id, name (with or without a slash) or the beginning of an id. Throws ContainerNotFound, ContainerAmbiguous. */
  get(reference: string): Container {
    const named = this.#names.get(reference.replace(/^\//, ""));
    const exact = this.#containers.get(reference) ?? (named === undefined ? undefined : this.#containers.get(named));
    if (exact !== undefined) return exact;
    if (!/^[0-9a-f]{1,63}$/.test(reference)) throw new ContainerNotFound(reference);
    const matches = [...this.#containers.values()].filter(({ id }) => id.startsWith(reference));
    if (matches.length > 1) throw new ContainerAmbiguous(reference, matches.length);
    const [match] = matches;
    if (match === undefined) throw new ContainerNotFound(reference);
    return match;
  }

  /** Of this host's cgroups. */
  get cgroupVersion(): 1 | 2 {
    return this.#host.facts.cgroupVersion;
  }

  /** The newest that has this label with this value. */
  withLabel(name: string, value: string): Container | undefined {
    let found: Container | undefined;
    for (const container of this.#containers.values()) {
      const { config, createdAtMs } = container.record;
      if (config.Labels?.[name] !== value) continue;
      if (found === undefined || createdAtMs > found.record.createdAtMs) found = container;
    }
    return found;
  }

  /** All of them, the newest first. */
  list(): Container[] {
    return [...this.#containers.values()].sort((a, b) => b.record.createdAtMs - a.record.createdAtMs);
  }

  async rename(reference: string, name: string): Promise<void> {
    const container = this.get(reference);
    const clean = name.replace(/^\//, "");
    const wrong = wrongName(clean);
    if (wrong !== undefined) throw new ContainerConfigInvalid(wrong);
    this.#takeName(clean, container.id);
    try {
      this.#names.delete(await container.rename(clean));
    } catch (error) {
      this.#names.delete(clean);
      throw error;
    }
  }

  createExec(reference: string, config: ExecConfig): ExecSession {
    const session = this.get(reference).createExec(config);
    this.#execs.set(session.id, session);
    if (this.#execs.size > execsKept) {
      for (const [id, { status }] of this.#execs) {
        if (this.#execs.size <= execsKept) break;
        if (status !== "running") this.#execs.delete(id);
      }
    }
    return session;
  }

  /** Sessions of a container that run. */
  execIds(containerId: string): string[] {
    return [...this.#execs.values()]
      .filter(({ container, status }) => container.id === containerId && status === "running")
      .map(({ id }) => id);
  }

  exec(id: string): ExecSession {
    const session = this.#execs.get(id);
    if (session === undefined) throw new ExecNotFound(id);
    return session;
  }

  /** Events from now on. */
  events(signal: AbortSignal): AsyncGenerator<ResyncItem<ContainerEvent>, void, undefined> {
    return this.#events.watch(signal);
  }

  /** The last events since a moment, at most 256. */
  eventsSince(ms: number): readonly ContainerEvent[] {
    return this.#events.since(ms);
  }

  /** Removes all that are not running; their ids. */
  async prune(keep: (container: Container) => boolean = () => false): Promise<ContainerId[]> {
    const removed: ContainerId[] = [];
    for (const container of this.list()) {
      const { status } = container.record.state;
      if ((status !== "created" && status !== "exited" && status !== "dead") || keep(container)) continue;
      try {
        await container.remove({});
        removed.push(container.id);
      } catch (error) {
        // Started meanwhile: it stays.
        if (!(error instanceof ContainerStateConflict)) throw error;
      }
    }
    return removed;
  }

  /** Lets go of everything; containers go on running with their monitors. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const container of this.#containers.values()) container.release();
    await this.#tasks[Symbol.asyncDispose]();
    await this.#records[Symbol.asyncDispose]();
    await this.#launcher[Symbol.asyncDispose]();
  }
}
