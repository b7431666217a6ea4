/**
 * A runtime under test, driven from outside by its command line: bundles with a busybox root, containers that are removed
 * whatever happens, groups below one parent of this process's own.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  copyFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Runtime {
  readonly name: string;
  readonly path: string;
}

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What of a config.json the tests change; the rest is plain JSON. */
// oxlint-disable-next-line typescript/no-explicit-any -- tests write values that no type would allow
export type Json = any;

/** One MUST of the specification. `clause` names the page and the place. */
export interface Case {
  readonly clause: string;
  readonly name: string;
  /** A reason why this host cannot show it, or undefined. */
  readonly skip?: () => string | undefined;
  readonly run: (lab: Lab) => Promise<void>;
}

const timeoutMs = 60_000;
const applets =
  "sh true false cat ls id ps mount umount sleep echo hostname stat readlink grep head touch mkdir rm ln kill env pwd dd tty test seq wc date mknod unshare ping chown chmod find cut tr sort awk sed nproc xargs printf cp mv od stty df trap usleep setsid".split(
    " ",
  );

export const isolatePath = process.env["ISOLATE"] ?? join(import.meta.dirname, "../../../native/build/isolate");
export const ours: Runtime = { name: "isolate", path: isolatePath };
export const peers: readonly Runtime[] = [
  { name: "runc", path: "/usr/sbin/runc" },
  { name: "crun", path: "/usr/bin/crun" },
];

/** Why nothing of this suite can run here, or undefined. */
export function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (!existsSync("/bin/busybox")) return "needs busybox-static";
  if (!existsSync(isolatePath)) return "needs native/build/isolate (make -C native)";
  return undefined;
}

let counter = 0;
/** Groups of all containers of this process. */
export const groupParent = `skep-oci-${process.pid}`;

/** Directories of a cgroup path in every mounted hierarchy of this host. */
export function groupDirectories(path: string): string[] {
  const clean = path.replace(/^\//, "");
  if (existsSync("/sys/fs/cgroup/cgroup.controllers")) return [join("/sys/fs/cgroup", clean)];
  return readdirSync("/sys/fs/cgroup").map((name) => join("/sys/fs/cgroup", name, clean));
}

export function removeGroups(path: string): void {
  for (const directory of groupDirectories(path)) {
    if (!existsSync(directory)) continue;
    for (const name of readdirSync(directory, { withFileTypes: true }))
      if (name.isDirectory()) removeGroups(`${path}/${name.name}`);
    try {
      rmdirSync(directory);
    } catch {
      // Held by a process that is just dying; the next case or the end of the suite tries again.
    }
  }
}

export class Lab implements AsyncDisposable {
  readonly runtime: Runtime;
  readonly folder: string;
  readonly root: string;
  readonly #containers: Container[] = [];
  readonly #cleanups: (() => Promise<void> | void)[] = [];

  constructor(runtime: Runtime) {
    this.runtime = runtime;
    this.folder = mkdtempSync(join(tmpdir(), `oci-${runtime.name}-`));
    this.root = join(this.folder, "state");
  }

  /** Runs the runtime with its state folder of this lab. */
  async call(
    args: readonly string[],
    options: { input?: string; env?: Record<string, string>; cwd?: string; extraFds?: number[] } = {},
  ): Promise<Ended> {
    return await execute(this.runtime.path, ["--root", this.root, ...args], options);
  }

  /** A container that is not created yet. `change` edits the default configuration. */
  container(change: (config: Json) => void = () => {}, id = `c${++counter}-${process.pid}`): Container {
    const bundle = join(this.folder, `bundle-${++counter}`);
    makeBundle(bundle);
    const config = defaultConfig();
    config.linux.cgroupsPath = `/${groupParent}/${id}`;
    change(config);
    writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
    const container = new Container(this, id, bundle, config);
    this.#containers.push(container);
    return container;
  }

  /** Runs a script of sh in a container and returns what it printed. */
  async script(script: string, change: (config: Json) => void = () => {}): Promise<Ended> {
    const container = this.container((config) => {
      config.process.args = ["/bin/sh", "-c", script];
      change(config);
    });
    return await container.run();
  }

  /** An empty folder of the host that goes away with the lab. */
  directory(name: string): string {
    const path = join(this.folder, `${name}-${++counter}`);
    mkdirSync(path);
    return path;
  }

  defer(cleanup: () => Promise<void> | void): void {
    this.#cleanups.push(cleanup);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const container of this.#containers.reverse())
      if (container.touched) await this.call(["delete", "--force", container.id]);
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
    removeGroups(groupParent);
    // A peer that shares the host's mount namespace leaves its mounts there.
    const mounted = readText("/proc/self/mounts")
      .split("\n")
      .map((line) => line.split(" ")[1] ?? "")
      .filter((path) => path.startsWith(this.folder));
    for (const path of mounted.reverse()) await execute("/bin/umount", ["-l", path]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export class Container {
  readonly lab: Lab;
  readonly id: string;
  readonly bundle: string;
  readonly config: Json;
  touched = false;

  constructor(lab: Lab, id: string, bundle: string, config: Json) {
    this.lab = lab;
    this.id = id;
    this.bundle = bundle;
    this.config = config;
  }

  get rootfs(): string {
    return join(this.bundle, "rootfs");
  }

  async run(extra: readonly string[] = []): Promise<Ended> {
    this.touched = true;
    return await this.lab.call(["run", "--bundle", this.bundle, ...extra, this.id]);
  }

  async create(extra: readonly string[] = []): Promise<Ended> {
    this.touched = true;
    return await this.lab.call(["create", "--bundle", this.bundle, ...extra, this.id]);
  }

  /** create that must succeed. */
  async made(extra: readonly string[] = []): Promise<this> {
    const done = await this.create(extra);
    if (done.code !== 0) throw new Error(`create failed: ${done.stderr}`);
    return this;
  }

  /** create and start that must succeed. */
  async started(extra: readonly string[] = []): Promise<this> {
    await this.made(extra);
    const done = await this.verb("start");
    if (done.code !== 0) throw new Error(`start failed: ${done.stderr}`);
    return this;
  }

  async verb(name: string, ...args: readonly string[]): Promise<Ended> {
    return await this.lab.call([name, this.id, ...args]);
  }

  async state(): Promise<Json> {
    const done = await this.verb("state");
    if (done.code !== 0) throw new Error(`state failed: ${done.stderr}`);
    return JSON.parse(done.stdout);
  }

  async exec(script: string): Promise<Ended> {
    return await this.lab.call(["exec", this.id, "/bin/sh", "-c", script]);
  }

  /** Waits until the state is `status`. */
  async becomes(status: string): Promise<void> {
    await until(async () => (await this.state()).status === status, `container is ${status}`);
  }

  /** Path below the container's root as the host sees it. */
  path(name: string): string {
    return join(this.rootfs, name);
  }
}

/** Asks again every few milliseconds, for there is nothing to wait on from outside; gives up after the suite's time. */
export async function until(holds: () => Promise<boolean> | boolean, what: string): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

let outputs = 0;

/** Output goes to files: a created container inherits it, and would hold a pipe open for as long as it lives. */
export async function execute(
  path: string,
  args: readonly string[],
  options: { input?: string; env?: Record<string, string>; cwd?: string; extraFds?: number[]; user?: number } = {},
): Promise<Ended> {
  const base = join(tmpdir(), `oci-output-${process.pid}-${++outputs}`);
  const files = [`${base}.out`, `${base}.err`] as const;
  const [stdout, stderr] = [openSync(files[0], "w", 0o600), openSync(files[1], "w", 0o600)];
  try {
    const child = spawn(path, args, {
      stdio: [options.input === undefined ? "ignore" : "pipe", stdout, stderr, ...(options.extraFds ?? [])],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.user === undefined ? {} : { uid: options.user, gid: options.user }),
    });
    if (options.input !== undefined) {
      child.stdin!.on("error", () => undefined); // it may end without reading
      child.stdin!.end(options.input);
    }
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    const [code] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
    clearTimeout(timer);
    return { code: code ?? 137, stdout: readText(files[0]), stderr: readText(files[1]) };
  } finally {
    closeSync(stdout);
    closeSync(stderr);
    for (const file of files) rmSync(file, { force: true });
  }
}

/**
 * crun refuses hybrid hosts whose v2 tree offers a controller. While the answer lives, such controllers are held by a v1
 * hierarchy that is mounted in a mount namespace of a process of our own; nothing on the host uses or sees it.
 */
export async function bareUnifiedTree(): Promise<AsyncDisposable> {
  const file = "/sys/fs/cgroup/unified/cgroup.controllers";
  const controllers = existsSync(file) ? readText(file).trim().replaceAll(" ", ",") : "";
  if (controllers === "") return { [Symbol.asyncDispose]: async () => {} };
  const script = `mount -t tmpfs none /mnt && mount -t cgroup -o ${controllers} v1 /mnt && echo held && read x; umount /mnt`;
  const holder = spawn("/usr/bin/unshare", ["--mount", "/bin/sh", "-c", script], { stdio: ["pipe", "pipe", "ignore"] });
  await Promise.race([once(holder.stdout, "data"), once(holder, "exit")]);
  return {
    [Symbol.asyncDispose]: async () => {
      if (holder.exitCode !== null) return;
      const ended = once(holder, "exit");
      holder.stdin.end("x\n");
      await ended;
    },
  };
}

let template: string | undefined;

function makeBundle(bundle: string): void {
  const rootfs = join(bundle, "rootfs");
  mkdirSync(bundle);
  mkdirSync(rootfs);
  for (const name of ["bin", "dev", "proc", "sys", "tmp", "etc", "mnt", "root"]) mkdirSync(join(rootfs, name));
  if (template === undefined || !existsSync(template)) {
    const folder = mkdtempSync(join(tmpdir(), "oci-template-"));
    template = join(folder, "busybox");
    copyFileSync("/bin/busybox", template);
    process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  }
  linkSync(template, join(rootfs, "bin/busybox"));
  for (const name of applets) symlinkSync("busybox", join(rootfs, "bin", name));
}

const capabilities = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FSETID",
  "CAP_FOWNER",
  "CAP_MKNOD",
  "CAP_NET_RAW",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETFCAP",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_KILL",
  "CAP_AUDIT_WRITE",
];

/** As an engine would write it, without masked paths and limits. */
export function defaultConfig(): Json {
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: ["/bin/true"],
      env: ["PATH=/bin"],
      cwd: "/",
      capabilities: { bounding: [...capabilities], effective: [...capabilities], permitted: [...capabilities] },
      noNewPrivileges: true,
    },
    root: { path: "rootfs" },
    hostname: "oci",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
      },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
      },
      {
        destination: "/dev/shm",
        type: "tmpfs",
        source: "shm",
        options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
      },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
      { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
    ],
    linux: {
      namespaces: [{ type: "pid" }, { type: "network" }, { type: "ipc" }, { type: "uts" }, { type: "mount" }],
      resources: { devices: [{ allow: false, access: "rwm" }] },
    },
  };
}

export function readText(path: string): string {
  return readFileSync(path, "utf8");
}
