/**
 * One container: its record, its monitor when it runs, and everything that can be asked of it. Acts that change its state
 * hold its lock, one after the other; reading needs none.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { mkdir, readFile, readdir, rename, rm, rmdir, stat, unlink, writeFile } from "node:fs/promises";
import { totalmem } from "node:os";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

import { directoryBytes, removeFolder, sleep, type TaskGroup } from "../../lib/runtime/index.ts";
import { isAbort } from "../../lib/pure/errors.ts";
import {
  afterProbe,
  healthOutputMax,
  nextProbeMs,
  noHealth,
  planHealth,
  startingHealth,
  type HealthPlan,
} from "./core/health.ts";
import {
  buildSpec,
  execProcess,
  hostnameOf,
  resourcesOf,
  workingDirectoryOf,
  type DeviceNode,
  type HostFacts,
  type OciProcess,
} from "./core/oci-spec.ts";
import { decideRestart } from "./core/restart.ts";
import type { SeccompProfile } from "./core/seccomp.ts";
import type {
  ContainerId,
  ContainerRecord,
  EndpointSettings,
  ExecId,
  ExitStatus,
  HostConfig,
  RecordedState,
  Resources,
  RestartPolicy,
} from "./core/types.ts";
import { signalNumber, wrongHostConfig, wrongUpdate } from "./core/validate.ts";
import {
  ContainerConfigInvalid,
  ContainerNotRunning,
  ContainerStartFailed,
  ContainerStateConflict,
  ExecFailed,
  RuntimeFailed,
  exitCodeOfFailure,
} from "./errors.ts";
import type { EventHub } from "./events.ts";
import { readAllDevices, readDevice, type StaticFacts } from "./host-facts.ts";
import { readLog, type LogOptions } from "./log-reader.ts";
import type { LogLine } from "./core/log-frames.ts";
import { logSize } from "./core/log-options.ts";
import { MonitorSilent, type Launcher, type LaunchRequest, type MonitorStarted } from "./launcher.ts";
import { MonitorConnection } from "./monitor-connection.ts";
import { networkFilesOf, planNetworkFiles, writeNetworkFiles, type NetworkFile } from "./network-files.ts";
import { runProgram, runtimeMessage, streamProgram, type StreamedProgram } from "./programs.ts";
import type { RecordStore } from "./records.ts";
import { retried } from "./retried.ts";
import {
  layersOf,
  listChanges,
  lookUpInRunning,
  makeDirectories,
  overlayOptions,
  ownDirectories,
  packLayer,
  packPath,
  prepareRoot,
  statPath,
  unpackInto,
  type Layers,
  type PathChange,
  type PathStat,
  type RootPlace,
} from "./root-access.ts";
import type { ContainerNetwork, ContainerSettings } from "./settings.ts";
import { readPids, readStats, type CgroupPaths, type ContainerStats } from "./stats.ts";
import { Attachment, ExecStream, type AttachOptions, type LogPlace } from "./streams.ts";
import type { VolumeProvider } from "./volumes.ts";

/** What all containers of a worker share. */
export interface ContainerHost {
  readonly settings: ContainerSettings;
  readonly launcher: Launcher;
  readonly facts: StaticFacts;
  readonly records: RecordStore;
  readonly events: EventHub;
  readonly volumes: VolumeProvider;
  readonly tasks: TaskGroup;
  /** For `container:NAME` modes. */
  resolve(reference: string): Container;
  /** The container is gone for good. */
  forget(container: Container): void;
}

export type WaitCondition = "not-running" | "next-exit" | "removed";

export interface ExecConfig {
  readonly Cmd: readonly string[];
  readonly AttachStdin?: boolean;
  readonly AttachStdout?: boolean;
  readonly AttachStderr?: boolean;
  readonly Tty?: boolean;
  readonly Env?: readonly string[] | null;
  readonly User?: string;
  readonly WorkingDir?: string;
  readonly Privileged?: boolean;
  readonly ConsoleSize?: readonly [number, number] | null;
}

export interface ExecSession {
  readonly id: ExecId;
  readonly container: Container;
  readonly config: ExecConfig;
  status: "created" | "running" | "exited";
  pid: number;
  exitCode: number | undefined;
}

/** A life under way. */
interface Life {
  readonly connection: MonitorConnection;
  readonly pid: number;
  readonly startedMonotonicMs: number;
  readonly delayMs: number;
  readonly stop: AbortController;
  readonly over: PromiseWithResolvers<ExitStatus>;
  readonly cgroups: CgroupPaths;
  /** Directories of files that were written for it; undefined: with its monitor's state. */
  readonly places: { readonly bundle: string; readonly networkFiles: string } | undefined;
}

/** How a life begins. */
interface Beginning {
  /** Before it. */
  readonly delayMs: number;
  /** Its record, if it was written ahead. */
  readonly written?: Promise<void> | undefined;
  readonly start?: () => Promise<void>;
  readonly places?: Life["places"];
}

/** A monitor that does not end this long after its container is left to itself. */
const monitorEndMs = 15_000;
/** Patience with SIGKILL: a process in an uninterruptible wait may outlive it. */
const killMs = 30_000;
const orphanPollMs = 250;
/** How long an automatic removal waits for clients that still read. */
const slowClientMs = 30_000;

export const lostExitCode = 255;

export class Container {
  readonly #host: ContainerHost;
  #record: ContainerRecord;
  #lock: Promise<unknown> = Promise.resolve();
  #life: Life | undefined;
  #pendingRestart: AbortController | undefined;
  /** Clients that wait for the start. */
  readonly #attachments = new Set<Attachment>();
  /** All clients that have not read to the end. */
  readonly #clients = new Set<Attachment>();
  readonly #waiters = new Set<(event: "exit" | "removed") => void>();
  /** Woken by the next change of the record. */
  #change = Promise.withResolvers<void>();
  #removed = false;
  #released = false;
  /** Of its lives nothing is left but its files: no state, no network, no volume in use. */
  #isBare = false;
  /** What it is now has not been written yet: the disk was full. */
  #isUnrecorded = false;
  /** Resolves when the log gets nothing more; replaced with each life. */
  #logEnded: PromiseWithResolvers<void> | undefined;

  constructor(host: ContainerHost, record: ContainerRecord) {
    this.#host = host;
    this.#record = record;
  }

  get record(): ContainerRecord {
    return this.#record;
  }

  get id(): ContainerId {
    return this.#record.id;
  }

  get running(): boolean {
    return this.#life !== undefined;
  }

  get directory(): string {
    return join(this.#host.settings.dataDirectory, "containers", this.id);
  }

  get stateDirectory(): string {
    return join(this.#host.settings.runDirectory, "c", this.id);
  }

  /** Of the volumes that it mounts. */
  get volumeNames(): string[] {
    return this.#record.mounts.flatMap(({ type, name }) => (type === "volume" && name !== undefined ? [name] : []));
  }

  /** Of its life: what the runtime is told. Goes with its monitor. */
  get bundle(): string {
    return this.#life?.places?.bundle ?? this.stateDirectory;
  }

  /** hostname, hosts and resolv.conf of its life, which are bound into it. */
  get networkFilesDirectory(): string {
    return this.#life?.places?.networkFiles ?? this.stateDirectory;
  }

  /** Daemons of before kept both beside the container's own files; what they started has them there until it ends. */
  #placesOfBefore(): Life["places"] {
    const bundle = join(this.directory, "bundle");
    const isOfBefore = !existsSync(join(this.stateDirectory, "config.json")) && existsSync(join(bundle, "config.json"));
    return isOfBefore ? { bundle, networkFiles: this.directory } : undefined;
  }

  get logPath(): string {
    return join(this.directory, "container.log");
  }

  // ---- start ----

  /** Starts it; false when it runs already. Throws ContainerStartFailed, and then nothing of the attempt is left. */
  start(): Promise<boolean> {
    return this.#locked(async () => {
      this.#refuseWhen(["paused", "removing", "dead"], "start");
      if (this.#life !== undefined) return false;
      this.#cancelRestart();
      const { restartCount, stoppedByUser } = this.#record.state;
      // How its last life ended is not lost for a new one either.
      if (restartCount !== 0 || stoppedByUser || this.#isUnrecorded)
        await this.#update({ restartCount: 0, stoppedByUser: false });
      try {
        await this.#launch(0);
      } catch (error) {
        // As after a life: whoever waits for its removal hears of it.
        if (this.#record.hostConfig.AutoRemove === true) await this.#erase(true);
        throw error;
      }
      return true;
    });
  }

  async #launch(delayMs: number): Promise<void> {
    try {
      await this.#launchOrThrow(delayMs);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      // The runtime's own words, without who passed them on.
      const why = runtimeMessage(text.replace(/^Cannot start: the container's monitor says: /, ""));
      const { settings } = this.#host;
      // First, since the record may be what cannot be written.
      this.#clearState();
      await this.#letGo();
      this.#abandonClients();
      await this.#updateSurely({
        status: this.#record.state.startedAtMs === 0 ? "created" : "exited",
        pid: 0,
        error: why,
        restarting: false,
        exit: { code: exitCodeOfFailure(why), signal: 0, oomKilled: false, finishedAtMs: settings.clock.wallMs() },
      });
      this.#wake("exit");
      if (error instanceof ContainerStartFailed || error instanceof ContainerConfigInvalid) throw error;
      throw new ContainerStartFailed(why, error);
    }
  }

  async #launchOrThrow(delayMs: number): Promise<void> {
    const { settings } = this.#host;
    const { record } = this;
    this.#isBare = false;
    // Of a life before this one.
    if (record.state.startedAtMs !== 0) this.#clearState();
    if (this.volumeNames.length > 0) await this.#host.volumes.mount(this.id, this.volumeNames);
    const prepared = await settings.rootfs.prepare(this.id, record.imageId);
    await prepared.written;
    const layers = layersOf(this.directory, prepared.lowerDirectories, this.#sharesMounts ? "host" : "apart");
    const user = await prepareRoot(settings.programs, layers, {
      imageId: record.imageId,
      workingDirectory: workingDirectoryOf(record),
      user: (record.config.User ?? "") === "" ? (record.image.User ?? "") : (record.config.User ?? ""),
      groupAdd: record.hostConfig.GroupAdd ?? [],
    });
    if (record.state.startedAtMs === 0) await this.#fillNewVolumes(layers);
    await this.#joinSome();
    const network = await this.#attachNetwork();
    const files = this.#networkFiles(network);
    const spec = buildSpec({
      record,
      facts: { ...this.#host.facts, devices: await this.#devices() },
      user,
      rootfs: layers.target,
      cgroupsPath: this.#cgroupPath(),
      files: this.#binds(files),
      initProgram: settings.programs.init,
      namespaces: this.#namespaces(network),
      seccomp: this.#seccomp(),
    });
    const { bundle } = this;
    // A client that is to see the first byte comes between the two, or finds it in the log.
    const logPlace = this.#logPlace();
    const atOnce = logPlace !== undefined || this.#attachments.size === 0;
    const written = this.#writeAhead();
    const started = await this.#launchMonitor({
      directories: [bundle, ...ownDirectories(layers)],
      files: [
        ...files.map(({ path, text }) => ({ path, mode: 0o644, text })),
        { path: join(bundle, "config.json"), mode: 0o600, text: JSON.stringify(spec) },
      ],
      args: [...this.#monitorArguments(layers), ...(atOnce ? ["--start"] : [])],
    });
    let connection: MonitorConnection | undefined;
    try {
      connection = await MonitorConnection.open(this.stateDirectory);
      const monitor = connection;
      await this.#begin(monitor, started.pid, {
        delayMs,
        written,
        start: async () => {
          await this.#connectClients(logPlace);
          if (!atOnce) await monitor.request({ type: "start" }, "ok");
        },
      });
      // Who came in the meantime. It may have ended by now.
      await this.#connectClients(logPlace).catch(() => this.#abandonClients());
    } catch (error) {
      // It may run by now, and there would be nobody who knows of it.
      this.#life?.stop.abort();
      this.#life = undefined;
      connection?.[Symbol.dispose]();
      await this.#killRemains();
      throw error;
    }
  }

  /** Where what it is about to say begins; undefined: its log may not keep all of it until a client comes. */
  #logPlace(): LogPlace | undefined {
    const { Type: driver = "", Config: options = {} } = this.#record.hostConfig.LogConfig ?? {};
    if (driver === "none" || sizeOption(options?.["max-size"]) > 0 || options?.["mode"] === "non-blocking")
      return undefined;
    const bytes = statSync(this.logPath, { throwIfNoEntry: false })?.size ?? 0;
    return {
      offset: BigInt(bytes),
      sinceNs: bytes === 0 ? 0n : BigInt(this.#host.settings.clock.wallMs()) * 1_000_000n,
    };
  }

  /** Those that wait for the start. */
  async #connectClients(from: LogPlace | undefined): Promise<void> {
    for (const attachment of this.#attachments) {
      await attachment.connect(this.stateDirectory, from);
      this.#attachments.delete(attachment);
    }
  }

  #abandonClients(): void {
    for (const attachment of this.#attachments) attachment.abandon();
    this.#attachments.clear();
  }

  /**
   * One that is removed when it ends may be said to run before it does: it is removed after a crash in between, too. So the
   * disk is not waited for while nothing else goes on.
   */
  #writeAhead(): Promise<void> | undefined {
    if (this.#record.hostConfig.AutoRemove !== true) return undefined;
    const { records } = this.#host;
    const written = records.put(this.#runningRecord(0));
    written.catch(() => undefined); // it is waited for when it runs
    return written;
  }

  #runningRecord(pid: number): ContainerRecord {
    return {
      ...this.#record,
      state: {
        ...this.#record.state,
        status: this.#record.state.status === "paused" ? "paused" : "running",
        pid,
        startedAtMs: this.#host.settings.clock.wallMs(),
        exit: undefined,
        error: "",
        restarting: false,
        health: this.#healthPlan() === undefined ? noHealth : startingHealth,
      },
    };
  }

  async #launchMonitor(request: LaunchRequest): Promise<MonitorStarted> {
    try {
      return await this.#host.launcher.launch(request);
    } catch (error) {
      // It may be there all the same.
      if (error instanceof MonitorSilent) await this.#killRemains();
      throw error;
    }
  }

  /** From a created container (or one found running) to a life that is watched. */
  async #begin(
    connection: MonitorConnection,
    pid: number,
    { delayMs, written, start, places }: Beginning,
  ): Promise<void> {
    const { settings, tasks, records } = this.#host;
    await connection.send({ type: "wait" });
    await start?.();
    const record = this.#runningRecord(pid);
    const life: Life = {
      connection,
      pid,
      startedMonotonicMs: settings.clock.monotonicMs(),
      delayMs,
      stop: new AbortController(),
      over: Promise.withResolvers(),
      cgroups: this.#readCgroups(),
      places,
    };
    this.#life = life;
    this.#logEnded = Promise.withResolvers();
    await (written ?? records.put(record));
    this.#show(record);
    this.#emit("start");
    tasks.start(`watch ${this.id}`, () => this.#watch(life));
    const plan = this.#healthPlan();
    if (plan !== undefined)
      tasks.start(`health ${this.id}`, (signal) =>
        this.#probe(life, plan, AbortSignal.any([signal, life.stop.signal])),
      );
  }

  /** At once: a small file in memory, and four trips to the thread pool cost ten times as much. */
  #readCgroups(): CgroupPaths {
    try {
      const text = readFileSync(join(this.stateDirectory, "state.json"), "utf8");
      return (JSON.parse(text) as { cgroups?: CgroupPaths }).cgroups ?? {};
    } catch {
      return {}; // what is asked of its groups later has no answer then
    }
  }

  /** With the host: then its root is mounted in the host's namespace, too. */
  get #sharesMounts(): boolean {
    return this.#record.mounts.some(({ propagation }) => propagation.endsWith("shared"));
  }

  #monitorArguments(layers: Layers): string[] {
    const { settings } = this.#host;
    const { config, hostConfig } = this.#record;
    const log = hostConfig.LogConfig?.Config ?? {};
    const logged = (hostConfig.LogConfig?.Type ?? "") !== "none";
    return [
      "--id",
      this.id,
      "--bundle",
      this.bundle,
      "--state-dir",
      this.stateDirectory,
      "--runtime",
      settings.programs.runtime,
      "--runtime-root",
      join(settings.runDirectory, "r"),
      ...(logged ? ["--log-path", this.logPath] : []),
      ...(logged ? ["--log-max-size", String(sizeOption(log["max-size"]))] : []),
      ...(logged ? ["--log-max-file", String(Math.max(1, Number(log["max-file"] ?? 1) || 1))] : []),
      ...(log["mode"] === "non-blocking" ? ["--log-mode", "drop"] : []),
      ...(config.OpenStdin === true ? ["--stdin"] : []),
      ...(config.Tty === true ? ["--tty"] : []),
      ...(this.#sharesMounts ? ["--host-mounts"] : []),
      ...overlayOptions(layers),
      "--auto-cleanup",
    ];
  }

  #cgroupPath(): string {
    const own = this.#record.hostConfig.CgroupParent ?? "";
    const parent = own === "" ? this.#host.settings.cgroupParent : own;
    return join("/", parent, this.id);
  }

  /** Undefined: its network is nobody's to make. */
  async #attachNetwork(): Promise<ContainerNetwork | undefined> {
    const mode = this.#record.hostConfig.NetworkMode ?? "none";
    const { networks } = this.#host.settings;
    if (networks === undefined || sharesNetwork(mode)) return undefined;
    return networks.attach(this.#record);
  }

  /** As in the reference, one that was taken off its last network starts on that of its mode again. */
  async #joinSome(): Promise<void> {
    const { networks, hostConfig } = this.#record;
    const mode = hostConfig.NetworkMode ?? "none";
    if (networks === undefined || Object.keys(networks).length > 0 || sharesNetwork(mode)) return;
    await this.#put({ ...this.#record, networks: { [mode]: {} } });
  }

  async #releaseNetwork(): Promise<void> {
    const { networks, logger } = this.#host.settings;
    // Nothing of the container depends on it, and what is left of it goes when the worker starts.
    await networks
      ?.release(this.id)
      .catch((error: unknown) => logger.error("a container's network was not released", { container: this.id, error }));
  }

  /** What is to be in its own: nothing for one that goes by another's. */
  #networkFiles(network: ContainerNetwork | undefined): readonly NetworkFile[] {
    const { config, hostConfig } = this.#record;
    if ((hostConfig.NetworkMode ?? "").startsWith("container:")) return [];
    return planNetworkFiles({
      directory: this.networkFilesDirectory,
      hostname: hostnameOf(config, this.id),
      domainname: config.Domainname ?? "",
      hostConfig,
      sharesHostNetwork: hostConfig.NetworkMode === "host",
      network,
    });
  }

  /** Destination to host path. */
  #binds(files: readonly NetworkFile[]): Readonly<Record<string, string>> {
    const mode = this.#record.hostConfig.NetworkMode ?? "";
    // Who shares another's network goes by its names, too.
    if (mode.startsWith("container:"))
      return networkFilesOf(this.#host.resolve(mode.slice("container:".length)).networkFilesDirectory);
    return Object.fromEntries(files.map(({ destination, path }) => [destination, path]));
  }

  #namespaces(network: ContainerNetwork | undefined): Parameters<typeof buildSpec>[0]["namespaces"] {
    const { hostConfig } = this.#record;
    type How = "private" | "host" | { path: string };
    const how = (mode: string | undefined, file: string, fallback: How): How => {
      if (mode === "host") return "host";
      if (mode?.startsWith("ns:") === true) return { path: mode.slice(3) };
      if (mode?.startsWith("container:") !== true) return fallback;
      const other = this.#host.resolve(mode.slice("container:".length));
      if (other.#life === undefined)
        throw new ContainerNotRunning(other.id, "join the namespaces of", other.record.state.status);
      return { path: `/proc/${other.#life.pid}/ns/${file}` };
    };
    return {
      network: network === undefined ? how(hostConfig.NetworkMode, "net", "private") : { path: network.namespacePath },
      ipc: how(hostConfig.IpcMode, "ipc", "private"),
      pid: how(hostConfig.PidMode, "pid", "private"),
      uts: how(hostConfig.UTSMode, "uts", hostConfig.NetworkMode === "host" ? "host" : "private"),
      // Also on version 1, where the Engine shares the host's: a container has no business seeing the host's groups.
      cgroup: how(hostConfig.CgroupnsMode, "cgroup", "private"),
    };
  }

  #seccomp(): SeccompProfile | "unconfined" | undefined {
    const option = (this.#record.hostConfig.SecurityOpt ?? [])
      .find((text) => /^seccomp[:=]/.test(text))
      ?.slice("seccomp=".length);
    if (option === undefined || option === "builtin") return undefined;
    if (option === "unconfined") return "unconfined";
    try {
      return JSON.parse(option) as SeccompProfile;
    } catch {
      throw new ContainerConfigInvalid("its seccomp profile is not JSON");
    }
  }

  async #devices(): Promise<Map<string, DeviceNode>> {
    const { hostConfig } = this.#record;
    if (hostConfig.Privileged === true) return readAllDevices();
    const block = [
      ...(hostConfig.BlkioWeightDevice ?? []),
      ...(hostConfig.BlkioDeviceReadBps ?? []),
      ...(hostConfig.BlkioDeviceWriteBps ?? []),
      ...(hostConfig.BlkioDeviceReadIOps ?? []),
      ...(hostConfig.BlkioDeviceWriteIOps ?? []),
    ].map(({ Path }) => Path);
    const found = new Map<string, DeviceNode>();
    for (const path of [...(hostConfig.Devices ?? []).map(({ PathOnHost }) => PathOnHost), ...block]) {
      const device = await readDevice(path);
      if (device === undefined)
        throw new ContainerConfigInvalid(
          `error gathering device information while adding custom device "${path}": not a device node`,
        );
      found.set(path, device);
    }
    return found;
  }

  /** A volume that is empty gets what the image has in its place, as the Engine does: all of it or nothing. */
  async #fillNewVolumes(layers: Layers): Promise<void> {
    const { settings } = this.#host;
    for (const mount of this.#record.mounts) {
      if (mount.type !== "volume" || mount.noCopy === true || (await readdir(mount.source)).length > 0) continue;
      await makeDirectories(layers);
      const place: RootPlace = { kind: "stopped", layers, mounts: [] };
      const kind = await statPath(settings.programs, place, this.id, mount.destination).catch(() => undefined);
      if (kind === undefined || (kind.mode & 0o170000) !== 0o040000) continue;
      const beside = join(dirname(mount.source), `_filling-${this.id.slice(0, 12)}`);
      const mounted = (await stat(mount.source)).dev !== (await stat(dirname(mount.source))).dev;
      // Beside it and then renamed, so that no crash leaves a part of it; a mounted file system can only be filled in place.
      const target = mounted ? mount.source : beside;
      if (!mounted) {
        await rm(beside, { recursive: true, force: true });
        await mkdir(beside, { mode: 0o755 });
      }
      const from = packPath(settings.programs, place, this.id, mount.destination, ["--name", "."]);
      const to = streamProgram(
        settings.programs.archive,
        ["unpack", "--root", target],
        (stderr) => new ContainerConfigInvalid(`its volume ${mount.destination} cannot be filled: ${stderr.trim()}`),
      );
      to.stdout.resume();
      // The program that gave up says why; the broken pipe is only the consequence.
      const fed = pipeline(from.stdout, to.stdin).catch((error: unknown) => error);
      await Promise.all([from.done, to.done]);
      const broken = await fed;
      if (broken instanceof Error) throw broken;
      if (mounted) continue;
      await rename(beside, mount.source).catch(async (error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
        await rm(beside, { recursive: true, force: true }); // another container filled it meanwhile
      });
    }
  }

  // ---- a life and its end ----

  async #watch(life: Life): Promise<void> {
    for await (const event of life.connection.events()) {
      if (event.type === "oom") this.#emit("oom");
      if (event.type === "exit") {
        await this.#locked(() => this.#ended(life));
        return;
      }
    }
    if (this.#released) return; // the daemon stops; the container goes on
    await this.#monitorLost(life);
  }

  async #ended(life: Life): Promise<void> {
    const exit = readExit(this.stateDirectory, this.#host.settings.clock.wallMs());
    await this.#finish(
      life,
      exit ?? { code: lostExitCode, signal: 0, oomKilled: false, finishedAtMs: this.#host.settings.clock.wallMs() },
    );
  }

  /**
   * The monitor is gone without a word. Its container may live on without anybody to take its output; that is waited out
   * without the lock, so that it can be stopped and removed meanwhile.
   */
  async #monitorLost(life: Life): Promise<void> {
    const { clock, logger } = this.#host.settings;
    if (readExit(this.stateDirectory, clock.wallMs()) === undefined) {
      logger.warn("a monitor died before its container", { container: this.id, pid: life.pid });
      const identity = await readIdentity(this.stateDirectory);
      if (identity !== undefined) await this.#untilGone(identity, Infinity);
    }
    await this.#locked(async () => {
      if (this.#life !== life) return; // it was ended otherwise meanwhile
      const exit = readExit(this.stateDirectory, clock.wallMs());
      if (exit === undefined) await this.#deleteInRuntime();
      await this.#finish(
        life,
        exit ?? { code: lostExitCode, signal: 0, oomKilled: false, finishedAtMs: clock.wallMs() },
      );
    });
  }

  async #finish(life: Life, exit: ExitStatus): Promise<void> {
    const { clock } = this.#host.settings;
    life.stop.abort();
    this.#life = undefined;
    const { state, hostConfig } = this.#record;
    const decision = decideRestart({
      policy: hostConfig.RestartPolicy ?? {},
      exit,
      livedMs: clock.monotonicMs() - life.startedMonotonicMs,
      restartCount: state.restartCount,
      lastDelayMs: life.delayMs,
      stoppedByUser: state.stoppedByUser,
    });
    const ended = {
      status: decision.restart ? "restarting" : "exited",
      pid: 0,
      exit,
      restarting: decision.restart,
    } as const;
    // One that is about to be removed is removed after a crash, too: its record need not say first how it ended.
    const isRemoved = !decision.restart && hostConfig.AutoRemove === true && state.status !== "removing";
    if (isRemoved) this.#note(ended);
    else await this.#updateSurely(ended);
    this.#emit("die", { exitCode: String(exit.code), ...(exit.signal > 0 ? { signal: String(exit.signal) } : {}) });
    life.over.resolve(exit);
    this.#logEnded?.resolve();
    this.#wake("exit");
    // While its monitor clears up, and before anything is removed that says it was there.
    const released = decision.restart ? undefined : this.#releaseNetwork();
    const cleared = this.#awaitMonitorEnd(life.connection).then(() => life.connection[Symbol.dispose]());
    // Nobody outside can tell whether the last of it is gone, but by its mounts and by processes that it shared with others.
    if (!isRemoved || this.#record.mounts.length > 0 || this.#sharesProcesses) await cleared;
    await released;
    if (isRemoved) return this.#eraseAfterClients(cleared);
    this.#clearStateIfRecorded();
    if (decision.restart) this.#restartLater(decision.delayMs);
    else await this.#letGo();
  }

  /** Its own end is not the end of all that ran in it. */
  get #sharesProcesses(): boolean {
    return (this.#record.hostConfig.PidMode ?? "") !== "" && this.#record.hostConfig.PidMode !== "private";
  }

  /**
   * Whoever is still reading its output gets it all, within reason.
   * @param cleared  settles when its monitor has ended
   */
  async #eraseAfterClients(cleared: Promise<void>): Promise<void> {
    const patience = new AbortController();
    const late = sleep(this.#host.settings.clock, slowClientMs, patience.signal).catch(() => undefined);
    await Promise.race([Promise.all(Array.from(this.#clients, ({ finished }) => finished)), late]);
    patience.abort();
    // Nor that its removal has begun.
    this.#note({ status: "removing" });
    await this.#giveBack(true);
    const doomed = this.#toTrash();
    const { tasks } = this.#host;
    // It is removed again after a crash as long as its record is there, so nobody has to wait for the disk.
    tasks.start(`forget ${this.id}`, async () => void (await Promise.all([this.#releaseImage(), this.#unwrite()])));
    this.#forget();
    tasks.start(`clear away ${this.id}`, async () => {
      await cleared;
      this.#clearState();
      if (doomed !== undefined) await clearAway(doomed);
    });
  }

  /** Of one that is gone for everybody: a disk that is full takes it later. */
  async #unwrite(): Promise<void> {
    const { settings, records, tasks } = this.#host;
    const tell = (error: unknown): void =>
      settings.logger.error("the record of a removed container could not be deleted", { container: this.id, error });
    await retried(() => records.delete(this.id), { clock: settings.clock, signal: tasks.signal, onFailure: tell });
  }

  /** The end of the connection is the monitor's last act. */
  async #awaitMonitorEnd(connection: MonitorConnection): Promise<void> {
    const { clock, logger } = this.#host.settings;
    const patience = new AbortController();
    const late = sleep(clock, monitorEndMs, patience.signal).then(
      () => logger.warn("a monitor does not end", { container: this.id }),
      () => undefined, // it ended in time
    );
    await Promise.race([connection.closed, late]);
    patience.abort();
  }

  #restartLater(delayMs: number): void {
    const pending = new AbortController();
    this.#pendingRestart = pending;
    this.#host.tasks.start(`restart ${this.id}`, async (signal) => {
      try {
        await sleep(this.#host.settings.clock, delayMs, AbortSignal.any([signal, pending.signal]));
      } catch (error) {
        if (isAbort(error) || signal.aborted || pending.signal.aborted) return;
        throw error;
      }
      await this.#locked(async () => {
        if (pending.signal.aborted || this.#life !== undefined || this.#removed) return;
        this.#pendingRestart = undefined;
        const again = (): void => this.#restartLater(Math.min(delayMs * 2, 60_000));
        try {
          await this.#update({ restartCount: this.#record.state.restartCount + 1 });
        } catch (error) {
          // A disk that is full would not take its start either.
          this.#host.settings.logger.warn("a container's restart could not be recorded", { container: this.id, error });
          again();
          return;
        }
        try {
          await this.#launch(delayMs);
        } catch (error) {
          this.#host.settings.logger.warn("a container could not be restarted", { container: this.id, error });
          if (this.#record.hostConfig.RestartPolicy?.Name === "always") {
            await this.#updateSurely({ status: "restarting", restarting: true });
            again();
          }
        }
      });
    });
  }

  #cancelRestart(): void {
    this.#pendingRestart?.abort();
    this.#pendingRestart = undefined;
  }

  // ---- stop, kill, pause ----

  /**
   * Signal, grace period, SIGKILL. False when it was not running.
   * @param seconds  undefined: the container's own StopTimeout or the default; negative: wait for ever
   */
  stop(options: { readonly seconds?: number; readonly signal?: string } = {}): Promise<boolean> {
    return this.#stopLife(options, true);
  }

  async #stopLife(options: { readonly seconds?: number; readonly signal?: string }, byUser: boolean): Promise<boolean> {
    const life = await this.#locked(async () => {
      if (this.#pendingRestart !== undefined && this.#life === undefined) {
        this.#cancelRestart();
        await this.#update({ status: "exited", restarting: false, stoppedByUser: byUser });
        await this.#releaseNetwork();
        this.#wake("exit");
        return undefined;
      }
      if (this.#life === undefined) return undefined;
      await this.#noteStop();
      await this.#resumeIfPaused();
      return this.#life;
    });
    if (life === undefined) return false;
    const name = options.signal ?? (this.#record.config.StopSignal || this.#record.image.StopSignal || "TERM");
    const seconds = options.seconds ?? this.#record.config.StopTimeout ?? this.#host.settings.defaultStopSeconds;
    await this.#signal(life, signalNumber(name) ?? 15, false);
    if (!(await this.#endsWithin(life, seconds < 0 ? Infinity : seconds * 1000))) {
      await this.#signal(life, 9, true);
      if (!(await this.#endsWithin(life, killMs)))
        throw new RuntimeFailed("stop", this.id, "it does not end after SIGKILL");
    }
    // Its end is recorded and its remains are cleared away under the lock.
    await this.#locked(async () => undefined);
    if (byUser) this.#emit("stop");
    return true;
  }

  async #signal(life: Life, signal: number, all: boolean): Promise<void> {
    try {
      await life.connection.request({ type: "kill", signal, all }, "ok");
    } catch (error) {
      if (this.#life !== life) return; // it ended meanwhile
      const identity = await readIdentity(this.stateDirectory);
      // No monitor, but its process: the identity was compared a moment ago.
      if (identity !== undefined && (await isAlive(identity))) process.kill(identity.pid, signal);
      else if (identity === undefined && readExit(this.stateDirectory, 0) === undefined) throw error;
    }
  }

  async #endsWithin(life: Life, ms: number): Promise<boolean> {
    const patience = new AbortController();
    const late =
      ms === Infinity
        ? new Promise<false>(() => undefined)
        : sleep(this.#host.settings.clock, ms, patience.signal).then(
            () => false as const,
            () => false as const,
          );
    const ended = await Promise.race([life.over.promise.then(() => true as const), late]);
    patience.abort();
    return ended;
  }

  async kill(signal = "KILL"): Promise<void> {
    const number = signalNumber(signal);
    if (number === undefined) throw new ContainerConfigInvalid(`Invalid signal: ${signal}`);
    const life = this.#life;
    if (life === undefined) throw new ContainerNotRunning(this.id, "kill", this.#record.state.status);
    const stopSignal = signalNumber(this.#record.config.StopSignal || this.#record.image.StopSignal || "TERM");
    if (number === 9 || number === stopSignal) await this.#locked(() => this.#noteStop());
    await this.#signal(life, number, number === 9);
    this.#emit("kill", { signal: String(number) });
    if (number === 9) await this.#locked(() => this.#resumeIfPaused());
  }

  pause(): Promise<void> {
    return this.#locked(async () => {
      if (this.#life === undefined) throw new ContainerNotRunning(this.id, "pause", this.#record.state.status);
      if (this.#record.state.status === "paused") throw new ContainerStateConflict(this.id, "pause", "already paused");
      // Written first: a daemon that dies in between finds the record and thaws or keeps it, but never forgets it frozen.
      await this.#update({ status: "paused" });
      try {
        await this.#verb(["pause", this.id]);
      } catch (error) {
        await this.#update({ status: "running" });
        throw error;
      }
      this.#emit("pause");
    });
  }

  unpause(): Promise<void> {
    return this.#locked(async () => {
      if (this.#record.state.status !== "paused") throw new ContainerStateConflict(this.id, "unpause", "not paused");
      await this.#resume();
      this.#emit("unpause");
    });
  }

  async #resume(): Promise<void> {
    await this.#verb(["resume", this.id]);
    await this.#update({ status: "running" });
  }

  /** So that it can take a signal. One that has ended meanwhile needs it no more: its end is recorded after this. */
  async #resumeIfPaused(): Promise<void> {
    if (this.#life === undefined || this.#record.state.status !== "paused") return;
    try {
      await this.#resume();
    } catch (error) {
      const identity = await readIdentity(this.stateDirectory);
      if (identity !== undefined && (await isAlive(identity))) throw error;
    }
  }

  async restart(options: { readonly seconds?: number; readonly signal?: string } = {}): Promise<void> {
    await this.#stopLife(options, false);
    await this.start();
    this.#emit("restart");
  }

  // ---- other acts ----

  /** Others find it by its new name at once. @returns the name that it had */
  rename(name: string): Promise<string> {
    return this.#locked(async () => {
      const before = this.#record;
      await this.#put({ ...before, name });
      // On the network bridge nobody has a name.
      const isNamed = Object.keys(before.networks ?? {}).some((network) => network !== "bridge");
      if (isNamed && (this.#life !== undefined || before.state.restarting)) {
        try {
          await this.#attachNetwork();
        } catch (error) {
          await this.#put(before);
          throw error;
        }
      }
      this.#emit("rename", { oldName: `/${before.name}` });
      return before.name;
    });
  }

  /**
   * Changes what networks it is on, at once when it runs: it goes on, and its other connections do too.
   * @param change  from the networks that it has to those that it shall have; may refuse
   */
  changeNetworks(
    change: (
      now: Readonly<Record<string, EndpointSettings>>,
      record: ContainerRecord,
    ) => Readonly<Record<string, EndpointSettings>>,
  ): Promise<void> {
    return this.#locked(async () => {
      this.#refuseWhen(["removing", "dead"], "change the networks of");
      const before = this.#record;
      await this.#put({ ...before, networks: change(before.networks ?? {}, before) });
      if (this.#life === undefined && !before.state.restarting) return;
      try {
        const files = this.#networkFiles(await this.#attachNetwork());
        // The next life writes its own.
        if (this.#life !== undefined) await writeNetworkFiles(files);
      } catch (error) {
        await this.#put(before);
        // Back to what it had, as far as that goes; why it did not go on is what the caller hears.
        await this.#attachNetwork().catch(() => undefined);
        throw error;
      }
    });
  }

  /** Changes limits and restart policy, at once when it runs. */
  update(wish: Resources & { readonly RestartPolicy?: RestartPolicy }): Promise<void> {
    return this.#locked(async () => {
      this.#refuseWhen(["removing", "dead"], "update");
      const given = Object.fromEntries(
        Object.entries(wish).filter(
          ([, value]) => value !== undefined && value !== null && value !== 0 && value !== "",
        ),
      ) as typeof wish;
      const { RestartPolicy: policy, ...resources } = given;
      const hostConfig: HostConfig = {
        ...this.#record.hostConfig,
        ...resources,
        ...(policy?.Name === undefined || policy.Name === "" ? {} : { RestartPolicy: policy }),
      };
      const wrong = wrongUpdate(this.#record.hostConfig, resources) ?? wrongHostConfig(hostConfig, this.#host.facts);
      if (wrong !== undefined) throw new ContainerConfigInvalid(wrong);
      if (this.#life !== undefined && Object.keys(resources).length > 0) {
        const facts: HostFacts = { ...this.#host.facts, devices: new Map() };
        // A file, not standard input: crun opens /dev/stdin anew, which it cannot when that is a socket.
        const limits = join(this.bundle, "resources.json");
        await writeFile(limits, JSON.stringify(resourcesOf({ ...this.#record.hostConfig, ...resources }, facts)));
        await this.#verb(["update", "--resources", limits, this.id]);
      }
      await this.#put({ ...this.#record, hostConfig });
      this.#emit("update");
    });
  }

  async remove(options: { readonly force?: boolean; readonly volumes?: boolean } = {}): Promise<void> {
    for (let isErased = false; !isErased;) {
      if (this.#isLive) await this.#endForRemoval(options.force === true);
      isErased = await this.#locked(async () => {
        // A start was under way, as that of one that is started again and again.
        if (this.#isLive) return false;
        await this.#erase(options.volumes === true);
        return true;
      });
    }
  }

  get #isLive(): boolean {
    return this.#life !== undefined || this.#pendingRestart !== undefined;
  }

  async #endForRemoval(isForced: boolean): Promise<void> {
    if (!isForced) {
      throw new ContainerStateConflict(
        this.id,
        "remove",
        `${this.#record.state.status}: stop the container before removing or force remove`,
      );
    }
    await this.#locked(() => this.#noteStop());
    await this.#locked(() => this.#resumeIfPaused());
    if (this.#life !== undefined) await this.#signal(this.#life, 9, true);
    await this.#stopLife({ seconds: 0, signal: "KILL" }, false);
  }

  /** It is gone for everybody. */
  #forget(): void {
    this.#removed = true;
    this.#emit("destroy");
    this.#host.forget(this);
    this.#abandonClients();
    this.#wake("removed");
    this.#tellChange();
  }

  /**
   * Finishes a removal, from whichever point an earlier one stopped. A disk that is full does not keep it from going: its
   * own files go first then, and the record when the disk takes that, after a restart by what is left in the trash.
   */
  async #erase(volumes: boolean): Promise<void> {
    if (this.#removed) return;
    const { records, tasks } = this.#host;
    const { status } = this.#record.state;
    if (status !== "removing") {
      await this.#update({ status: "removing" }).catch(() => this.#note({ status: "removing" }));
    }
    if (!this.#isBare) this.#clearState();
    // Out of sight at once; the files go after the record, and what a crash leaves of them goes when the worker starts.
    const doomed = this.#toTrash();
    // One waits for the kernel, the other for the disk.
    const [given] = await Promise.allSettled([this.#giveBack(volumes), this.#releaseImage()]);
    if (given.status === "rejected") throw given.reason;
    let isRecorded = false;
    try {
      await records.delete(this.id);
    } catch {
      if (doomed !== undefined) await clearAway(doomed, { keepFolder: true });
      isRecorded = await records.delete(this.id).then(
        () => false,
        () => true,
      );
    }
    this.#forget();
    if (isRecorded) {
      tasks.start(`forget ${this.id}`, async () => {
        await this.#unwrite();
        if (doomed !== undefined) await clearAway(doomed);
      });
    } else if (doomed !== undefined) tasks.start(`clear away ${this.id}`, () => clearAway(doomed));
  }

  /** It is nobody's from the call on; what a failure leaves is put right when the worker starts. */
  async #releaseImage(): Promise<void> {
    const { rootfs, logger } = this.#host.settings;
    await rootfs
      .release(this.id)
      .catch((error: unknown) =>
        logger.error("the image of a removed container could not be released", { container: this.id, error }),
      );
  }

  /** Its networks and volumes. */
  async #giveBack(volumes: boolean): Promise<void> {
    if (!this.#isBare) await this.#letGo();
    this.#host.volumes.release(this.id);
    if (volumes) for (const name of this.#record.anonymousVolumes) await this.#host.volumes.remove(name);
  }

  /** @returns where its files are now; undefined: it has none */
  #toTrash(): string | undefined {
    const trash = join(this.#host.settings.dataDirectory, "trash");
    mkdirSync(trash, { recursive: true });
    const doomed = join(trash, `${this.id}-${randomBytes(4).toString("hex")}`);
    try {
      renameSync(this.directory, doomed);
      return doomed;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      return undefined;
    }
  }

  /** Also for the moments between its end and the record of it, in which how it ended is not to be read yet. */
  get #isRecordedAsRunning(): boolean {
    const { status, restarting } = this.#record.state;
    return restarting || status === "running" || status === "paused";
  }

  /** Resolves with how it ended. `next-exit` waits for an end to come; `not-running` only while it runs or is restarting. */
  async wait(condition: WaitCondition, signal: AbortSignal): Promise<ExitStatus> {
    const none: ExitStatus = { code: 0, signal: 0, oomKilled: false, finishedAtMs: 0 };
    const now = (): boolean =>
      condition === "removed"
        ? this.#removed
        : condition === "not-running" && this.#life === undefined && !this.#isRecordedAsRunning;
    let passed = false;
    while (!now() && !passed) {
      const event = await new Promise<"exit" | "removed">((resolve, reject) => {
        signal.throwIfAborted();
        const done = (what: "exit" | "removed"): void => {
          this.#waiters.delete(done);
          signal.removeEventListener("abort", abort);
          resolve(what);
        };
        const abort = (): void => {
          this.#waiters.delete(done);
          reject(signal.reason as Error);
        };
        signal.addEventListener("abort", abort, { once: true });
        this.#waiters.add(done);
      });
      passed = condition === "next-exit" || event === "removed";
    }
    return this.#record.state.exit ?? none;
  }

  /** Resolves when its record changes or it is gone. Ask before looking, or a change in between is missed. */
  changed(signal: AbortSignal): Promise<void> {
    const change = this.#change.promise;
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const abort = (): void => reject(signal.reason as Error);
      signal.addEventListener("abort", abort, { once: true });
      void change.then(() => {
        signal.removeEventListener("abort", abort);
        resolve();
      });
    });
  }

  #tellChange(): void {
    const before = this.#change;
    this.#change = Promise.withResolvers();
    before.resolve();
  }

  // ---- streams ----

  /** May be asked for before the container starts: then it sees everything from the first byte. */
  async attach(options: AttachOptions): Promise<Attachment> {
    const logged = (this.#record.hostConfig.LogConfig?.Type ?? "") !== "none";
    const attachment = new Attachment(
      { ...options, stdin: options.stdin && this.#record.config.OpenStdin === true },
      this.#record.config.StdinOnce === true,
      logged ? this.logPath : undefined,
    );
    this.#clients.add(attachment);
    void attachment.finished.then(() => this.#clients.delete(attachment));
    const life = this.#life;
    if (life !== undefined) {
      await attachment.connect(this.stateDirectory).catch((error: unknown) => {
        // It ended meanwhile, and its monitor with it.
        if (this.#life === life && readExit(this.stateDirectory, 0) === undefined) throw error;
        attachment.abandon();
      });
    } else if (this.#isRecordedAsRunning && !this.#record.state.restarting) {
      // What it has said is told; it is another life that would be waited for.
      attachment.abandon();
    } else this.#attachments.add(attachment);
    return attachment;
  }

  /** Lines of its log; with `follow` until it ends. */
  logs(options: LogOptions, signal: AbortSignal): AsyncGenerator<LogLine, void, undefined> {
    if ((this.#record.hostConfig.LogConfig?.Type ?? "") === "none") {
      throw new ContainerConfigInvalid("configured logging driver does not support reading");
    }
    const ended = this.#life === undefined ? Promise.resolve() : (this.#logEnded?.promise ?? Promise.resolve());
    return readLog({ path: this.logPath, ended, clock: this.#host.settings.clock }, options, signal);
  }

  async resize(rows: number, columns: number): Promise<void> {
    const life = this.#life;
    if (life === undefined) throw new ContainerNotRunning(this.id, "resize", this.#record.state.status);
    await life.connection.request({ type: "resize", rows, columns }, "ok");
  }

  createExec(config: ExecConfig): ExecSession {
    if (this.#life === undefined) throw new ContainerNotRunning(this.id, "exec in", this.#record.state.status);
    if (this.#record.state.status === "paused")
      throw new ContainerStateConflict(this.id, "exec in", "paused, unpause the container before exec");
    if (config.Cmd.length === 0) throw new ContainerConfigInvalid("No exec command specified");
    return {
      id: randomBytes(32).toString("hex") as ExecId,
      container: this,
      config,
      status: "created",
      pid: 0,
      exitCode: undefined,
    };
  }

  /** Runs it. With `detach` its streams lead nowhere and the returned stream only ends. */
  async startExec(
    session: ExecSession,
    options: { readonly detach: boolean; readonly rows?: number; readonly columns?: number },
  ): Promise<ExecStream> {
    const life = this.#life;
    if (life === undefined) throw new ContainerNotRunning(this.id, "exec in", this.#record.state.status);
    if (session.status !== "created")
      throw new ContainerStateConflict(this.id, "start an exec session in", "not one that can be started again");
    const { config } = session;
    try {
      session.status = "running";
      const [rows, columns] = config.ConsoleSize ?? [options.rows ?? 0, options.columns ?? 0];
      const document = Buffer.from(JSON.stringify(await this.#execDocument(life, config, rows, columns)));
      const inline = document.length <= 48 * 1024;
      if (!inline) {
        await mkdir(join(this.stateDirectory, "exec"), { recursive: true, mode: 0o700 });
        await writeFile(join(this.stateDirectory, "exec", `${session.id}.process.json`), document, { mode: 0o600 });
      }
      const connection = await MonitorConnection.open(this.stateDirectory);

      const request = {
        type: "exec" as const,
        id: session.id,
        tty: config.Tty === true,
        stdin: !options.detach && config.AttachStdin === true,
        relay: !options.detach || config.Tty === true,
        rows,
        columns,
        process: inline ? document : new Uint8Array(),
      };
      const { pid } = await connection.request(request, "execOk").catch((error: unknown) => {
        connection[Symbol.dispose]();
        throw error;
      });
      session.pid = pid;
      const stream = new ExecStream(pid, connection);
      void stream.exit.then((code) => {
        session.status = "exited";
        session.exitCode = code;
        this.#emit("exec_die", { execID: session.id, exitCode: String(code) });
      });
      this.#emit(`exec_start: ${config.Cmd.join(" ")}`, { execID: session.id });
      if (options.detach) this.#host.tasks.start(`exec ${session.id}`, async () => void (await stream.drain()));
      return stream;
    } catch (error) {
      const why = runtimeMessage(
        error instanceof Error ? error.message.replace(/^.*monitor says: /, "") : String(error),
      );
      const failed = new ExecFailed(this.id, why);
      session.status = "exited";
      session.exitCode = failed.exitCode === 128 ? 126 : failed.exitCode;
      throw failed;
    }
  }

  async #execDocument(life: Life, config: ExecConfig, rows: number, columns: number): Promise<OciProcess> {
    const spec = JSON.parse(await readFile(join(this.bundle, "config.json"), "utf8")) as {
      process: OciProcess;
    };
    const user =
      config.User === undefined || config.User === ""
        ? undefined
        : await lookUpInRunning(this.#host.settings.programs, life.pid, config.User);
    return execProcess(
      spec.process,
      {
        args: config.Cmd,
        env: config.Env ?? [],
        tty: config.Tty === true,
        user,
        cwd: config.WorkingDir ?? "",
        privileged: config.Privileged === true,
        rows,
        columns,
      },
      this.#host.facts.capabilities,
    );
  }

  async resizeExec(session: ExecSession, rows: number, columns: number): Promise<void> {
    const life = this.#life;
    if (life === undefined || session.status !== "running")
      throw new ContainerStateConflict(this.id, "resize an exec session in", "not running it");
    await life.connection.request({ type: "execResize", id: session.id, rows, columns }, "ok");
  }

  // ---- health ----

  #healthPlan(): HealthPlan | undefined {
    const { config, image } = this.#record;
    return planHealth(config.Healthcheck, image.Healthcheck, config.Shell ?? image.Shell);
  }

  async #probe(life: Life, plan: HealthPlan, signal: AbortSignal): Promise<void> {
    const { clock } = this.#host.settings;
    try {
      for (;;) {
        await sleep(
          clock,
          nextProbeMs(plan, this.#record.state.health, clock.monotonicMs() - life.startedMonotonicMs),
          signal,
        );
        if (this.#record.state.status === "paused") continue;
        const sinceStartMs = clock.monotonicMs() - life.startedMonotonicMs;
        const startMs = clock.wallMs();
        const { exitCode, output } = await this.#runProbe(plan, signal);
        await this.#locked(async () => {
          if (this.#life !== life) return;
          const before = this.#record.state.health;
          const health = afterProbe(plan, before, { startMs, endMs: clock.wallMs(), exitCode, output }, sinceStartMs);
          await this.#updateSurely({ health });
          if (health.status !== before.status) this.#emit(`health_status: ${health.status}`);
        });
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #runProbe(plan: HealthPlan, signal: AbortSignal): Promise<{ exitCode: number; output: string }> {
    try {
      const session = this.createExec({ Cmd: plan.command, AttachStdout: true, AttachStderr: true });
      const stream = await this.startExec(session, { detach: false });
      const patience = new AbortController();
      const output = stream.drain(healthOutputMax);
      const late = sleep(this.#host.settings.clock, plan.timeoutMs, AbortSignal.any([patience.signal, signal])).then(
        () => undefined,
        () => "ended" as const,
      );
      const done = await Promise.race([output, late]);
      patience.abort();
      if (Buffer.isBuffer(done)) return { exitCode: (await stream.exit) === 0 ? 0 : 1, output: done.toString("utf8") };
      // A probe that hangs is killed, or each interval would leave one more.
      await this.#life?.connection
        .request({ type: "execKill", id: session.id, signal: 9 }, "ok")
        .catch(() => undefined);
      await output.catch(() => undefined);
      return { exitCode: -1, output: `Health check exceeded timeout (${plan.timeoutMs}ms)` };
    } catch (error) {
      return { exitCode: -1, output: error instanceof Error ? error.message : String(error) };
    }
  }

  // ---- looking inside ----

  async stats(): Promise<ContainerStats | undefined> {
    const life = this.#life;
    return life === undefined
      ? undefined
      : readStats(life.cgroups, life.pid, this.#host.settings.clock.wallMs(), totalmem());
  }

  /** `ps` of the host, cut down to the processes of this container. */
  async top(psArguments: readonly string[] = ["-ef"]): Promise<{ titles: string[]; processes: string[][] }> {
    const life = this.#life;
    if (life === undefined) throw new ContainerNotRunning(this.id, "list the processes of", this.#record.state.status);
    const result = await runProgram("ps", psArguments);
    if (result.code !== 0) throw new RuntimeFailed("list the processes of", this.id, result.stderr.trim());
    const [head = "", ...lines] = result.stdout.toString("utf8").trimEnd().split("\n");
    const titles = head.trim().split(/\s+/);
    const column = titles.indexOf("PID");
    if (column < 0) throw new ContainerConfigInvalid("Couldn't find PID field in ps output");
    const pids = await readPids(life.cgroups);
    const cut = (line: string): string[] => {
      const fields = line.trim().split(/\s+/);
      return [...fields.slice(0, titles.length - 1), fields.slice(titles.length - 1).join(" ")];
    };
    return { titles, processes: lines.map(cut).filter((fields) => pids.has(Number(fields[column]))) };
  }

  /** Bytes of the files in its own layer. */
  writtenBytes(): Promise<number> {
    return directoryBytes(join(this.directory, "upper"));
  }

  async #place(): Promise<RootPlace> {
    const life = this.#life;
    if (life !== undefined) return { kind: "running", pid: life.pid };
    return { kind: "stopped", layers: await this.#layers(), mounts: this.#record.mounts };
  }

  async #layers(): Promise<Layers> {
    const prepared = await this.#host.settings.rootfs.prepare(this.id, this.#record.imageId);
    await prepared.written;
    const layers = layersOf(this.directory, prepared.lowerDirectories);
    await makeDirectories(layers);
    return layers;
  }

  async changes(): Promise<PathChange[]> {
    return listChanges(this.#host.settings.programs, await this.#layers(), this.id);
  }

  async statPath(path: string): Promise<PathStat> {
    return statPath(this.#host.settings.programs, await this.#place(), this.id, path);
  }

  /** A tar of a file or directory. Await `done`: it tells whether the archive is whole. */
  async copyOut(path: string): Promise<StreamedProgram> {
    return packPath(this.#host.settings.programs, await this.#place(), this.id, path);
  }

  /** Unpacks a tar into a directory of the container, which must exist. */
  async copyIn(path: string, tar: Readable): Promise<void> {
    const place = await this.#place();
    const target = await statPath(this.#host.settings.programs, place, this.id, path);
    if ((target.mode & 0o170000) !== 0o040000 && target.linkTarget === "")
      throw new ContainerConfigInvalid("extraction point is not a directory");
    const program = unpackInto(this.#host.settings.programs, place, this.id, path);
    // The program may refuse before it has read all; its reason says more than the broken pipe.
    const fed = pipeline(tar, program.stdin).catch((error: unknown) => error);
    await program.done;
    const broken = await fed;
    if (broken instanceof Error) throw broken;
    this.#emit("extract-to-dir");
  }

  /** The whole root filesystem, without volumes, as a tar. */
  async export(): Promise<StreamedProgram> {
    const layers = await this.#layers();
    return packPath(this.#host.settings.programs, { kind: "stopped", layers, mounts: [] }, this.id, "/", [
      "--name",
      ".",
    ]);
  }

  /** Makes an image of its changes. */
  async commit(options: {
    readonly pause: boolean;
    readonly author: string;
    readonly comment: string;
    readonly config?: ContainerRecord["image"];
  }): Promise<string> {
    const { settings } = this.#host;
    const pause = options.pause && this.#record.state.status === "running";
    if (pause) await this.pause();
    let layer: StreamedProgram | undefined;
    try {
      const { config, image } = this.#record;
      layer = packLayer(settings.programs, await this.#layers(), this.id);
      const id = await settings.rootfs.commit({
        layer: layer.stdout,
        parentImage: this.#record.imageId,
        config: {
          ...image,
          ...(config.User === undefined ? {} : { User: config.User }),
          ...(config.Env == null ? {} : { Env: [...(image.Env ?? []), ...config.Env] }),
          ...(config.Cmd == null ? {} : { Cmd: config.Cmd }),
          ...(config.Entrypoint == null ? {} : { Entrypoint: config.Entrypoint }),
          ...(config.WorkingDir === undefined || config.WorkingDir === "" ? {} : { WorkingDir: config.WorkingDir }),
          ...(config.Labels == null ? {} : { Labels: { ...image.Labels, ...config.Labels } }),
          ...options.config,
        },
        author: options.author,
        comment: options.comment,
      });
      this.#emit("commit", { imageID: id });
      return id;
    } finally {
      layer?.kill(); // a commit that was refused may have left it unread
      if (pause) await this.unpause();
    }
  }

  // ---- recovery ----

  /**
   * Makes record and reality agree when the worker starts. What runs is adopted; what ended is recorded; a start or a removal
   * that was cut short is undone or finished.
   */
  recover(): Promise<"adopted" | "ended" | "idle" | "removed"> {
    return this.#locked(async () => {
      const { clock } = this.#host.settings;
      if (this.#record.state.status === "removing") {
        await this.#killRemains();
        await this.#erase(false);
        return "removed";
      }
      const thought = this.#record.state.status;
      const wasRunning = thought === "running" || thought === "paused" || thought === "restarting";
      const exit = readExit(this.stateDirectory, clock.wallMs());
      if (exit === undefined && (await this.#adopt())) return "adopted";
      const identity = await readIdentity(this.stateDirectory);
      await this.#killRemains();
      if (exit !== undefined || wasRunning || identity !== undefined) {
        const lost: ExitStatus = { code: lostExitCode, signal: 0, oomKilled: false, finishedAtMs: clock.wallMs() };
        const known = exit ?? (thought === "restarting" ? (this.#record.state.exit ?? lost) : lost);
        // A start that was cut short before it was answered leaves the container as it was.
        if (exit !== undefined || wasRunning) {
          await this.#update({ status: "exited", pid: 0, exit: known, restarting: false });
          this.#emit("die", { exitCode: String(known.code) });
          return "ended";
        }
      }
      return "idle";
    });
  }

  async #adopt(): Promise<boolean> {
    const connection = await MonitorConnection.open(this.stateDirectory).catch(() => undefined);
    if (connection === undefined) return this.#adoptOrphan();
    const hello = await connection.request({ type: "hello" }, "hello").catch(() => undefined);
    if (
      hello?.state !== "running" ||
      (this.#record.state.status === "created" && this.#record.state.startedAtMs !== 0)
    ) {
      // Created but never started, or ending at this moment: the caller takes it down, or reads how it ended.
      if (hello?.state === "created")
        await connection.request({ type: "kill", signal: 9, all: true }, "ok").catch(() => undefined);
      await this.#awaitMonitorEnd(connection);
      connection[Symbol.dispose]();
      if (hello?.state === "created") await rm(join(this.stateDirectory, "exit.json"), { force: true });
      return false;
    }
    const { startedAtMs, health } = this.#record.state;
    await this.#host.volumes.mount(this.id, this.volumeNames);
    await this.#begin(connection, hello.pid, { delayMs: 0, places: this.#placesOfBefore() });
    await this.#update({
      ...(startedAtMs === 0 ? {} : { startedAtMs }),
      ...(health.status === "none" ? {} : { health }),
    });
    return true;
  }

  /** Monitor dead, container alive: it is watched by its process until it ends, with a code that nobody knows. */
  async #adoptOrphan(): Promise<boolean> {
    const identity = await readIdentity(this.stateDirectory);
    if (identity === undefined || !(await isAlive(identity))) return false;
    const { clock, logger } = this.#host.settings;
    logger.warn("a container lives without its monitor", { container: this.id, pid: identity.pid });
    // Nobody reads its output any more: with the pipe's reader gone its next write fails or ends it. It is stopped, not kept.
    await this.#deleteInRuntime();
    for (let i = 0; i < 40 && (await isAlive(identity)); i++) await sleep(clock, orphanPollMs, this.#host.tasks.signal);
    return false;
  }

  async #untilGone(identity: Identity, ms: number): Promise<void> {
    const { clock } = this.#host.settings;
    const startMs = clock.monotonicMs();
    while ((await isAlive(identity)) && clock.monotonicMs() - startMs < ms) {
      await sleep(clock, orphanPollMs, this.#host.tasks.signal);
    }
  }

  /** Nothing of an earlier life stays: process, runtime state, cgroups, sockets. */
  async #killRemains(): Promise<void> {
    const found = await stat(this.stateDirectory).catch(() => undefined);
    if (found === undefined) return;
    const connection = await MonitorConnection.open(this.stateDirectory).catch(() => undefined);
    if (connection !== undefined) {
      await connection.request({ type: "kill", signal: 9, all: true }, "ok").catch(() => undefined);
      await this.#awaitMonitorEnd(connection);
      connection[Symbol.dispose]();
    }
    await this.#deleteInRuntime();
    this.#clearState();
  }

  async #deleteInRuntime(): Promise<void> {
    // What the runtime does not know it cannot delete; all else shows up as a leftover when the worker looks for them.
    await this.#verb(["delete", "--force", this.id]).catch(() => undefined);
  }

  /** Until it is, how it ended stands there only. */
  #clearStateIfRecorded(): void {
    if (!this.#isUnrecorded) this.#clearState();
  }

  /** At once: a few small files of ours, in memory; one after the other they would take a trip to the thread pool each. */
  #clearState(): void {
    removeFolder(this.stateDirectory);
  }

  /** After its end: what it used besides its own files. */
  async #letGo(): Promise<void> {
    if (this.volumeNames.length > 0) await this.#host.volumes.unmount(this.id);
    await this.#releaseNetwork();
    this.#isBare = !this.#isUnrecorded;
  }

  /** The daemon stops: connections are closed, the container goes on. */
  release(): void {
    this.#released = true;
    this.#cancelRestart();
    this.#life?.stop.abort();
    this.#life?.connection[Symbol.dispose]();
    for (const attachment of this.#attachments) attachment.abandon();
  }

  // ---- inner workings ----

  async #verb(args: readonly string[]): Promise<void> {
    const { programs, runDirectory } = this.#host.settings;
    const command = programs.runtime === "builtin" ? programs.isolate : programs.runtime;
    const result = await runProgram(command, ["--root", join(runDirectory, "r"), ...args]);
    if (result.code !== 0) throw new RuntimeFailed(args[0] ?? "change", this.id, result.stderr.trim());
  }

  #locked<T>(act: () => Promise<T>): Promise<T> {
    const run = this.#lock.then(act, act);
    this.#lock = run.catch(() => undefined); // whoever asked gets the failure; the next in line only waits
    return run;
  }

  #refuseWhen(statuses: readonly RecordedState["status"][], act: string): void {
    const { status } = this.#record.state;
    if (this.#removed || statuses.includes(status))
      throw new ContainerStateConflict(this.id, act, this.#removed ? "removed" : status);
  }

  /** That it was stopped must outlive the daemon only where a policy would start it again. */
  async #noteStop(): Promise<void> {
    const { state, hostConfig } = this.#record;
    if (state.stoppedByUser) return;
    const policy = hostConfig.RestartPolicy?.Name ?? "";
    if (policy !== "" && policy !== "no") await this.#update({ stoppedByUser: true });
    else this.#record = { ...this.#record, state: { ...state, stoppedByUser: true } };
  }

  /**
   * What has happened, whether it can be written or not. If not, it is written as soon as the disk takes it, and until then a
   * daemon that comes anew finds it in the monitor's state.
   */
  async #updateSurely(change: Partial<RecordedState>): Promise<void> {
    try {
      await this.#update(change);
    } catch (error) {
      if (this.#removed) throw error;
      this.#note(change);
      this.#recordLater(error);
    }
  }

  #recordLater(error: unknown): void {
    const { settings, records, tasks } = this.#host;
    settings.logger.error("a container's state could not be recorded; it will be", { container: this.id, error });
    if (this.#isUnrecorded) return;
    this.#isUnrecorded = true;
    const record = async (): Promise<void> => {
      // Something else may have been written since.
      if (this.#removed || !this.#isUnrecorded) return;
      await records.put(this.#record);
      this.#isUnrecorded = false;
      settings.logger.info("a container's state is recorded", { container: this.id });
      if (this.#life === undefined) this.#clearState();
    };
    tasks.start(`record ${this.id}`, async (signal) => {
      await retried(() => this.#locked(record), { clock: settings.clock, signal });
    });
  }

  async #update(change: Partial<RecordedState>): Promise<void> {
    await this.#put({ ...this.#record, state: { ...this.#record.state, ...change } });
  }

  async #put(record: ContainerRecord): Promise<void> {
    // Who waited for the lock while it was removed would write it anew, for ever.
    if (this.#removed) throw new ContainerStateConflict(this.id, "change", "removed");
    await this.#host.records.put(record);
    this.#isUnrecorded = false;
    this.#show(record);
  }

  /** What need not outlive the daemon. */
  #note(change: Partial<RecordedState>): void {
    this.#show({ ...this.#record, state: { ...this.#record.state, ...change } });
  }

  #show(record: ContainerRecord): void {
    this.#record = record;
    this.#tellChange();
  }

  #wake(event: "exit" | "removed"): void {
    // A waiter leaves the set when it is woken, and may come back.
    for (const waiter of Array.from(this.#waiters)) waiter(event);
  }

  #emit(action: string, attributes: Readonly<Record<string, string>> = {}): void {
    this.#host.events.emit({
      action,
      id: this.id,
      timeMs: this.#host.settings.clock.wallMs(),
      attributes: {
        ...this.#record.config.Labels,
        image: this.#record.config.Image ?? this.#record.imageId,
        name: this.#record.name,
        ...attributes,
      },
    });
  }
}

/** 0 (never rotate) for what is none. */
const sizeOption = (text: string | undefined): number => logSize(text ?? "") ?? 0;

interface Identity {
  readonly pid: number;
  readonly startTime: number;
  readonly bootId: string;
}

async function readIdentity(stateDirectory: string): Promise<Identity | undefined> {
  const text = await readFile(join(stateDirectory, "state.json"), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const parsed = JSON.parse(text) as Partial<Identity>;
  return parsed.pid === undefined || parsed.startTime === undefined || parsed.bootId === undefined
    ? undefined
    : { pid: parsed.pid, startTime: parsed.startTime, bootId: parsed.bootId };
}

/** Whether that very process lives: the same boot, pid and start time, and no zombie. */
async function isAlive(identity: Identity): Promise<boolean> {
  const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  const text = await readFile(`/proc/${identity.pid}/stat`, "utf8").catch(() => "");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return boot === identity.bootId && fields[0] !== "Z" && Number(fields[19]) === identity.startTime;
}

/** At once: a small file in memory. */
function readExit(stateDirectory: string, nowMs: number): ExitStatus | undefined {
  let text;
  try {
    text = readFileSync(join(stateDirectory, "exit.json"), "utf8");
  } catch {
    return undefined; // it has none, or none that can be read
  }
  const exit = JSON.parse(text) as { code: number; signal: number; oomKilled: boolean; finishedAt?: number };
  return {
    code: exit.code,
    signal: exit.signal,
    oomKilled: exit.oomKilled,
    finishedAtMs: exit.finishedAt === undefined ? nowMs : exit.finishedAt / 1e6,
  };
}

/**
 * The files of a container, in the trash. One that wrote nothing has a log and four directories; to walk them takes four times
 * as many trips to the thread pool. Not at once: what is removed from a disk may take it milliseconds.
 * @param keepFolder  it stays, and tells who starts anew that the container was removed
 */
async function clearAway(directory: string, { keepFolder = false } = {}): Promise<void> {
  if (keepFolder) {
    for (const name of await readdir(directory)) await rm(join(directory, name), { recursive: true, force: true });
    return;
  }
  try {
    await unlink(join(directory, "container.log"));
    for (const path of ["upper", "work/work", "work", ""]) await rmdir(join(directory, path));
  } catch {
    // There is more, or less.
    await rm(directory, { recursive: true, force: true });
  }
}

/** Its network is another's, or none: nobody is asked for one. */
const sharesNetwork = (mode: string): boolean => ["host", "none"].includes(mode) || /^(container|ns):/.test(mode);
