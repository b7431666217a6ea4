/** A worker of one's own for a test: temporary directories on a real disk, a cgroup parent, images made of busybox. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";

import { realClock, removeFolder, silentLogger } from "../../../lib/runtime/index.ts";
import {
  Containers,
  DirectoryRootfs,
  type Container,
  type ContainerConfig,
  type ContainerSettings,
  type HostConfig,
  type VolumeProvider,
} from "../../../worker/containers/index.ts";

export const native = resolve(import.meta.dirname, "../../../native/build");
export const isolate = join(native, "isolate");

/** Why these tests cannot run here, or false. */
export function whySkipped(): string | false {
  if (process.getuid?.() !== 0) return "needs root: namespaces, mounts and cgroups";
  if (!existsSync(isolate) || !existsSync(join(native, "archive"))) return "needs native/build: run `make -C native`";
  if (!existsSync("/bin/busybox")) return "needs busybox-static";
  return false;
}

export interface Runtime {
  readonly name: string;
  readonly path: string;
  readonly skip: string | false;
}

/** The runtimes that every test of the contract is run with. */
export function runtimes(): Runtime[] {
  const skipped = whySkipped();
  const builtin = skipped === false && spawnSync(isolate, ["--version"]).status === 0;
  return [
    { name: "builtin", path: "builtin", skip: skipped || (builtin ? false : "the native program has no runtime yet") },
    { name: "runc", path: "/usr/sbin/runc", skip: skipped || (existsSync("/usr/sbin/runc") ? false : "needs runc") },
    { name: "crun", path: crunHere(), skip: skipped || (existsSync("/usr/bin/crun") ? false : "needs crun") },
  ];
}

/**
 * crun refuses a hybrid host whose version 2 has a controller of its own. There it is run where that mount is out of sight;
 * the program itself is the distribution's.
 */
function crunHere(): string {
  const crun = "/usr/bin/crun";
  const controllers = "/sys/fs/cgroup/unified/cgroup.controllers";
  if (whySkipped() !== false || !existsSync(controllers) || readFileSync(controllers, "utf8").trim() === "")
    return crun;
  const directory = mkdtempSync("/var/tmp/sk-crun-");
  process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
  const script = join(directory, "crun");
  const inner = `umount /sys/fs/cgroup/unified; exec ${crun} "$@"`;
  writeFileSync(script, `#!/bin/sh\nexec unshare --mount sh -c '${inner}' crun "$@"\n`, { mode: 0o755 });
  return script;
}

/** The first that works here, for tests that are not about the runtime. */
export function anyRuntime(): Runtime {
  return (
    runtimes().find(({ skip }) => skip === false) ?? {
      name: "none",
      path: "builtin",
      skip: whySkipped() || "needs a runtime",
    }
  );
}

let counter = 0;

export function makeImages(directory: string): void {
  const root = join(directory, "busybox", "rootfs");
  for (const path of ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/joe"])
    mkdirSync(join(root, path), { recursive: true });
  copyFileSync("/bin/busybox", join(root, "bin/busybox"));
  for (const applet of execFileSync("/bin/busybox", ["--list"], { encoding: "utf8" }).trim().split("\n")) {
    if (applet !== "busybox") symlinkSync("busybox", join(root, "bin", applet));
  }
  chmodSync(join(root, "tmp"), 0o1777);
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1000:Joe:/home/joe:/bin/sh\n");
  writeFileSync(join(root, "etc/group"), "root:x:0:\nbees:x:77:joe\njoe:x:1000:\n");
  writeFileSync(join(directory, "busybox", "config.json"), JSON.stringify({ Cmd: ["sh"], Env: ["FROM_IMAGE=yes"] }));
}

/** It may have ended since it was seen. */
export function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

export class TestWorker {
  readonly base: string;
  readonly settings: ContainerSettings;
  containers!: Containers;
  /** Absent: plain directories. */
  volumes: VolumeProvider | undefined;

  constructor(runtime: string, more: Partial<ContainerSettings> = {}) {
    // Short: sockets of terminals live below it. /var/tmp, since overlay refuses an upper layer on some tmpfs.
    this.base = mkdtempSync("/var/tmp/sk-");
    const images = join(this.base, "images");
    makeImages(images);
    this.settings = {
      dataDirectory: join(this.base, "data"),
      runDirectory: join(this.base, "run"),
      programs: {
        isolate,
        archive: join(native, "archive"),
        runtime,
        ...(existsSync(join(native, "init")) ? { init: join(native, "init") } : {}),
      },
      cgroupParent: `/skep-test-${process.pid}-${++counter}`,
      rootfs: new DirectoryRootfs(images, join(native, "archive")),
      clock: realClock,
      logger: silentLogger,
      defaultStopSeconds: 10,
      restartAtBoot: true,
      ...more,
    };
  }

  async open(): Promise<this> {
    this.containers = await Containers.open(this.settings, this.volumes);
    return this;
  }

  /** The daemon is replaced: what runs goes on running. */
  async reopen(): Promise<void> {
    await this.containers[Symbol.asyncDispose]();
    await this.open();
  }

  create(command: readonly string[], hostConfig: HostConfig = {}, config: ContainerConfig = {}): Promise<Container> {
    return this.containers.create({
      config: { Image: "busybox", Cmd: command, ...config },
      hostConfig: { NetworkMode: "none", ...hostConfig },
    });
  }

  /** Creates, starts, waits; what it printed and how it ended. */
  async run(
    command: readonly string[],
    hostConfig: HostConfig = {},
    config: ContainerConfig = {},
  ): Promise<{ container: Container; code: number; stdout: string; stderr: string }> {
    const container = await this.create(command, hostConfig, config);
    const attachment = await container.attach({ stdin: false, stdout: true, stderr: true });
    const ended = container.wait("next-exit", AbortSignal.timeout(120_000));
    await container.start();
    const out = { stdout: "", stderr: "" };
    for await (const { stream, bytes } of attachment.output()) out[stream] += bytes.toString("utf8");
    attachment[Symbol.dispose]();
    return { container, code: (await ended).code, ...out };
  }

  /** Runs a command in it to its end. */
  async exec(
    container: Container,
    command: readonly string[],
    more: object = {},
  ): Promise<{ code: number; output: string }> {
    const session = this.containers.createExec(container.id, {
      Cmd: command,
      AttachStdout: true,
      AttachStderr: true,
      ...more,
    });
    const stream = await container.startExec(session, { detach: false });
    const output = (await stream.drain(1 << 20)).toString("utf8");
    return { code: await stream.exit, output };
  }

  cgroups(): string[] {
    const hierarchies = readdirSync("/sys/fs/cgroup").map((name) =>
      join("/sys/fs/cgroup", name, this.settings.cgroupParent),
    );
    return [...hierarchies, join("/sys/fs/cgroup", this.settings.cgroupParent)].filter((path) => existsSync(path));
  }

  /** What is there of containers that should not be: cgroups, mounts, state, processes. */
  remains(): string[] {
    // First, since what a monitor holds goes with it.
    const staying = this.#monitorsThatStay().map((pid) => `monitor ${pid}`);
    const inCgroups = this.cgroups().flatMap((path) =>
      readdirSync(path, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => join(path, entry.name)),
    );
    const mounts = readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .filter((line) => line.includes(this.base));
    const state = ["c", "r"].flatMap((name) => {
      const path = join(this.settings.runDirectory, name);
      return existsSync(path) ? readdirSync(path).map((entry) => join(path, entry)) : [];
    });
    return [...inCgroups, ...mounts, ...state, ...staying];
  }

  /**
   * A monitor hangs up as its last act and then exits, for which it may have to wait for a processor. One that waits for
   * somebody stays for two seconds.
   */
  #monitorsThatStay(): number[] {
    let found = this.monitors();
    for (let looks = 0; found.length > 0 && looks < 300; looks++) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      found = this.monitors();
    }
    return found;
  }

  /** Pids of monitors whose state lies in this worker's directory. */
  monitors(): number[] {
    return readdirSync("/proc")
      .filter((name) => /^[0-9]+$/.test(name))
      .map(Number)
      .filter((pid) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`${this.settings.runDirectory}/c/`);
        } catch {
          return false; // it ended while we looked
        }
      });
  }

  /** Ends all of them, and returns when they are gone: who is killed still has to be given a processor to end on. */
  async killMonitors(): Promise<void> {
    for (let found = this.monitors(); found.length > 0; found = this.monitors()) {
      for (const pid of found) killIfThere(pid);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Removes all of it. */
  async close(): Promise<void> {
    for (const container of this.containers.list())
      await container.remove({ force: true, volumes: true }).catch(() => undefined);
    await this.containers[Symbol.asyncDispose]();
    for (const path of this.cgroups()) {
      for (const entry of readdirSync(path, { withFileTypes: true }))
        if (entry.isDirectory()) spawnSync("rmdir", [join(path, entry.name)]);
      spawnSync("rmdir", [path]);
    }
    // Monitors remove theirs at the same time.
    removeFolder(this.base);
  }
}
