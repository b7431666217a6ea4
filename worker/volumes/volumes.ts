/** All volumes of one node. One change at a time; records in `level`, contents in directories beside it. */
import { randomBytes } from "node:crypto";
import { lstat, mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

import { Level, type BatchOperation } from "level";

import { directoryBytes, LevelWriter, type Clock, type Logger } from "../../lib/runtime/index.ts";
import { readVolumeOptions, wrongVolumeName } from "./core/options.ts";
import type { VolumeProvider, VolumeWish as ContainerVolumeWish } from "../containers/index.ts";
import { VolumeDriverUnknown, VolumeInUse, VolumeInvalid, VolumeNotFound } from "./errors.ts";
import { isMountpoint, mountVolume, unmountVolume } from "./mounts.ts";

export interface VolumeRecord {
  readonly version: 1;
  readonly name: string;
  readonly driver: "local";
  readonly labels: Readonly<Record<string, string>>;
  /** type, o and device: what is mounted while it is in use. */
  readonly options: Readonly<Record<string, string>>;
  readonly createdAtMs: number;
}

export interface VolumeWish {
  /** Absent: one is invented, and the volume is anonymous. */
  readonly name?: string;
  /** Empty: local. */
  readonly driver?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly options?: Readonly<Record<string, string>>;
}

export interface VolumeEvent {
  readonly action: "create" | "mount" | "unmount" | "destroy";
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
}

export interface VolumesOptions {
  /** Belongs to this process alone; absolute. */
  readonly folder: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly onEvent?: (event: VolumeEvent) => void;
}

/** On volumes that nobody named; `prune` takes those. */
export const anonymousLabel = "com.docker.volume.anonymous";

export class Volumes implements VolumeProvider, AsyncDisposable {
  readonly #options: VolumesOptions;
  readonly #database: Level<string, VolumeRecord>;
  readonly #writer: LevelWriter<BatchOperation<Level<string, VolumeRecord>, string, VolumeRecord>>;
  readonly #records = new Map<string, VolumeRecord>();
  /** Containers that refer to a volume, running or not. Told anew by their room when the worker starts. */
  readonly #holders = new Map<string, Set<string>>();
  /** Containers that run with a volume. */
  readonly #users = new Map<string, Set<string>>();
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: VolumesOptions, database: Level<string, VolumeRecord>) {
    this.#options = options;
    this.#database = database;
    this.#writer = new LevelWriter(database);
  }

  static async open(options: VolumesOptions): Promise<Volumes> {
    // Names of volumes begin with a letter or a digit, so what begins with a dot is ours.
    await mkdir(join(options.folder, ".trash"), { recursive: true, mode: 0o711 });
    const database = new Level<string, VolumeRecord>(join(options.folder, ".records"), { valueEncoding: "json" });
    await database.open();
    const volumes = new Volumes(options, database);
    try {
      await volumes.#recover();
    } catch (error) {
      await database.close();
      throw error;
    }
    return volumes;
  }

  /**
   * A removal that was cut short is finished. A directory without a record is taken in, never removed: it is somebody's data,
   * and a record can be lost where a directory is not.
   */
  async #recover(): Promise<void> {
    const { folder, clock, logger } = this.#options;
    // A record of a later version was written by a newer daemon, which owns that volume.
    for await (const record of this.#database.values())
      if (record.version === 1) this.#records.set(record.name, record);
    for (const name of this.#records.keys()) {
      // A container was filling it when the daemon died (containers, "fill").
      for (const entry of await readdir(join(folder, name)).catch(() => [] as string[])) {
        if (entry.startsWith("_filling-")) await rm(join(folder, name, entry), { recursive: true, force: true });
      }
    }
    const doomed = (await readdir(join(folder, ".trash"))).map((entry) => entry.slice(0, entry.lastIndexOf("@")));
    for (const name of doomed) {
      if (this.#records.has(name) && !(await exists(join(folder, name)))) await this.#forget(name);
    }
    await rm(join(folder, ".trash"), { recursive: true, force: true });
    await mkdir(join(folder, ".trash"), { mode: 0o711 });
    for (const name of await readdir(folder)) {
      if (name.startsWith(".") || this.#records.has(name) || wrongVolumeName(name) !== undefined) continue;
      const found = await stat(join(folder, name));
      if (!found.isDirectory()) continue;
      logger.info("a volume without a record is taken in", { volume: name });
      const createdAtMs = Math.min(found.birthtimeMs || found.mtimeMs, clock.wallMs());
      await this.#put({ version: 1, name, driver: "local", labels: {}, options: {}, createdAtMs });
    }
  }

  async #put(record: VolumeRecord): Promise<void> {
    await this.#writer.write([{ type: "put", key: record.name, value: record }]);
    this.#records.set(record.name, record);
  }

  async #forget(name: string): Promise<void> {
    await this.#writer.write([{ type: "del", key: name }]);
    this.#records.delete(name);
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work);
    this.#turn = mine.catch(() => undefined); // the failure is the caller's; the queue only waits for the end
    return mine;
  }

  #emit(action: VolumeEvent["action"], name: string, attributes: Readonly<Record<string, string>> = {}): void {
    this.#options.onEvent?.({ action, name, attributes: { driver: "local", ...attributes } });
  }

  /** Where the contents are, mounted or not. */
  mountpoint(name: string): string {
    return join(this.#options.folder, name, "_data");
  }

  /** Makes a volume; one of that name that is there already is what was asked for. @throws VolumeInvalid, VolumeDriverUnknown */
  create(wish: VolumeWish): Promise<VolumeRecord> {
    return this.#exclusively(() => this.#create(wish));
  }

  async #create(wish: VolumeWish): Promise<VolumeRecord> {
    const unnamed = wish.name === undefined || wish.name === "";
    const name = unnamed ? randomBytes(32).toString("hex") : (wish.name ?? "");
    const driver = wish.driver ?? "";
    if (driver !== "" && driver !== "local") throw new VolumeDriverUnknown(driver);
    const wrong = wrongVolumeName(name);
    if (wrong !== undefined) throw new VolumeInvalid(name, wrong);
    const reading = readVolumeOptions(wish.options ?? {});
    if (!reading.ok) throw new VolumeInvalid(name, reading.why);
    const there = this.#records.get(name);
    if (there !== undefined) return there;
    // The directory first: one without a record is taken in at the next start.
    await mkdir(this.mountpoint(name), { recursive: true, mode: 0o755 });
    const record: VolumeRecord = {
      version: 1,
      name,
      driver: "local",
      labels: { ...wish.labels, ...(unnamed ? { [anonymousLabel]: "" } : {}) },
      options: { ...wish.options },
      createdAtMs: this.#options.clock.wallMs(),
    };
    await this.#put(record);
    this.#emit("create", name);
    return record;
  }

  /** @throws VolumeNotFound */
  inspect(name: string): VolumeRecord {
    const record = this.#records.get(name);
    if (record === undefined) throw new VolumeNotFound(name);
    return record;
  }

  /** By name. */
  list(): VolumeRecord[] {
    return [...this.#records.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Ids of the containers that refer to it. */
  usedBy(name: string): readonly string[] {
    return [...(this.#holders.get(name) ?? [])];
  }

  /** Bytes of its files. */
  size(name: string): Promise<number> {
    return directoryBytes(this.mountpoint(name));
  }

  /** @throws VolumeNotFound (not with `force`), VolumeInUse */
  delete(name: string, options: { readonly force?: boolean } = {}): Promise<void> {
    return this.#exclusively(async () => {
      if (!this.#records.has(name)) {
        if (options.force === true) return;
        throw new VolumeNotFound(name);
      }
      const users = this.usedBy(name);
      if (users.length > 0) throw new VolumeInUse(name, users);
      await this.#erase(name);
    });
  }

  async #erase(name: string): Promise<void> {
    const mountpoint = this.mountpoint(name);
    // What is mounted there is somebody else's; removing it with the volume would be a catastrophe.
    if (await isMountpoint(mountpoint)) await unmountVolume(name, mountpoint);
    const doomed = join(this.#options.folder, ".trash", `${name}@${randomBytes(4).toString("hex")}`);
    let isInTrash = true;
    await rename(join(this.#options.folder, name), doomed).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
      isInTrash = false;
    });
    let isRecorded = false;
    try {
      await this.#forget(name);
    } catch (error) {
      if (!isInTrash) throw error;
      // The disk is full, perhaps of what it holds. If it does not take the record even then, the folder stays in the trash,
      // which says at the next start that the volume is gone.
      await rm(join(doomed, "_data"), { recursive: true, force: true });
      isRecorded = await this.#forget(name).then(
        () => false,
        () => true,
      );
      if (isRecorded) this.#records.delete(name);
    }
    this.#emit("destroy", name);
    if (!isRecorded) await rm(doomed, { recursive: true, force: true });
  }

  /** Removes volumes that no container refers to. @returns their names and the bytes of their files */
  async prune(wanted: (record: VolumeRecord) => boolean): Promise<{ names: readonly string[]; bytes: number }> {
    const names: string[] = [];
    let bytes = 0;
    for (const record of this.list()) {
      if (!wanted(record) || this.usedBy(record.name).length > 0) continue;
      const size = await this.size(record.name);
      try {
        await this.delete(record.name);
      } catch (error) {
        if (error instanceof VolumeInUse || error instanceof VolumeNotFound) continue; // somebody came in between
        throw error;
      }
      names.push(record.name);
      bytes += size;
    }
    return { names, bytes };
  }

  // ---- what containers need (containers/volumes.ts, VolumeProvider) ----

  /** Host path of a volume, made if it is new. The container refers to it until it is released. */
  async path(name: string, wish: ContainerVolumeWish): Promise<string> {
    const { containerId, anonymous, driver, labels, options } = wish;
    return this.#exclusively(async () => {
      await this.#create({
        name,
        driver,
        labels: { ...labels, ...(anonymous ? { [anonymousLabel]: "" } : {}) },
        options,
      });
      add(this.#holders, name, containerId);
      return this.mountpoint(name);
    });
  }

  /** A container of an earlier life of the daemon refers to these. */
  hold(containerId: string, names: readonly string[]): void {
    for (const name of names) add(this.#holders, name, containerId);
  }

  release(containerId: string): void {
    for (const [name, holders] of this.#holders) {
      if (holders.delete(containerId) && holders.size === 0) this.#holders.delete(name);
    }
  }

  /** Before a container starts: what the volume's options name is mounted. Again for the same container is fine. */
  async mount(containerId: string, names: readonly string[]): Promise<void> {
    await this.#exclusively(async () => {
      for (const name of names) {
        const reading = readVolumeOptions(this.inspect(name).options);
        const mountpoint = this.mountpoint(name);
        if (reading.ok && reading.mount !== undefined && !(await isMountpoint(mountpoint))) {
          await mountVolume(name, reading.mount, mountpoint, this.#options.folder);
        } else {
          await mkdir(mountpoint, { recursive: true, mode: 0o755 });
        }
        add(this.#users, name, containerId);
        this.#emit("mount", name, { container: containerId, destination: mountpoint });
      }
    });
  }

  /** After its end; the last one unmounts. */
  async unmount(containerId: string): Promise<void> {
    await this.#exclusively(async () => {
      for (const [name, users] of this.#users) {
        if (!users.delete(containerId)) continue;
        if (users.size === 0) this.#users.delete(name);
        this.#emit("unmount", name, { container: containerId });
      }
      await this.#unmountUnused();
    });
  }

  /** The containers that run have been told: what an earlier life mounted for others is unmounted. */
  async settled(): Promise<void> {
    await this.#exclusively(() => this.#unmountUnused());
  }

  async #unmountUnused(): Promise<void> {
    for (const { name, options } of this.#records.values()) {
      if (Object.keys(options).length === 0 || this.#users.has(name)) continue;
      const mountpoint = this.mountpoint(name);
      if (await isMountpoint(mountpoint)) await unmountVolume(name, mountpoint);
    }
  }

  /** With its container, as `rm -v` does: one that others use, or that is gone, stays as it is. */
  async remove(name: string): Promise<void> {
    await this.delete(name, { force: true }).catch((error: unknown) => {
      if (!(error instanceof VolumeInUse)) throw error;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn;
    await this.#database.close();
  }
}

function add(map: Map<string, Set<string>>, key: string, value: string): void {
  const values = map.get(key);
  if (values === undefined) map.set(key, new Set([value]));
  else values.add(value);
}

const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );
