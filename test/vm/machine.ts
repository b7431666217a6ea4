/**
 * A machine with a kernel of its own (qemu), for what the kernel of this host lacks: WireGuard, cgroup v2 alone. Its root is
 * this host's file system, read-only, below a file system in memory that takes all writes; so a command runs there as here,
 * from the same sources, and nothing that it does is left. It has no network.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { initramfs } from "./initramfs.ts";
import { machineKernel, modulesInOrder } from "./kernel.ts";

export interface MachineOptions {
  /** Keeps the kernel from one time to the next. */
  readonly folder: string;
  /** Of sh(1), as root, in the folder that this process is in. */
  readonly command: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly timeoutMs: number;
  /** Each line that the machine prints. */
  readonly onLine: (line: string) => void;
}

/** Why there can be no machine here; undefined: there can. */
export function whyNoMachine(): string | undefined {
  const missing = ["/usr/bin/qemu-system-x86_64", "/sbin/depmod", "/usr/bin/dpkg-deb", "/bin/busybox"].filter(
    (path) => !isThere(path, constants.X_OK),
  );
  return missing.length === 0 ? undefined : `needs ${missing.join(", ")}: node deploy/setup.mjs --for vm`;
}

/** Boots, runs the command and ends. @returns the command's exit status; undefined: the machine ended without one */
export async function runInMachine(options: MachineOptions): Promise<number | undefined> {
  const { folder, cpus, memoryMiB, timeoutMs, onLine } = options;
  mkdirSync(folder, { recursive: true });
  const kernel = machineKernel(folder);
  const modules = modulesInOrder(kernel, ["virtio_pci", "9pnet_virtio", "9p", "overlay"]);
  const image = join(folder, "initramfs");
  const script = init({ modules, modulesFolder: kernel.modules, command: options.command });
  writeFileSync(
    image,
    initramfs([
      ...folders.map((path) => ({ path, content: undefined })),
      { path: "bin/busybox", content: readFileSync("/bin/busybox") },
      ...modules.map((file, at) => ({
        path: `modules/${at}.ko`,
        content: readFileSync(join(kernel.modules, kernel.release, file)),
      })),
      { path: "init", content: Buffer.from(script) },
    ]),
  );
  const args = [
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"],
    // Emulated: /dev/kvm may be there and yet stand still, as where this host is a machine of the same kind itself.
    // Without a fifth level of page tables, which each miss of an emulated TLB would walk.
    ["-machine", "pc", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"],
    ["-smp", String(cpus), "-m", `${memoryMiB}M`],
    ["-kernel", kernel.image, "-initrd", image, "-append", kernelOptions],
    ["-serial", "stdio"],
    ["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"],
    ["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"],
  ].flat();
  const child = spawn("/usr/bin/qemu-system-x86_64", args, { stdio: ["ignore", "pipe", "inherit"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
  const startedMs = performance.now();
  let status: number | undefined;
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const ended = /^vm: exit (\d+)\s*$/u.exec(line);
      if (ended !== null) status = Number(ended[1]);
      else if (/^vm: up\s*$/u.test(line)) onLine(`vm: up after ${seconds(startedMs)} s`);
      else onLine(line.replace(/\r$/u, ""));
    }
  } finally {
    clearTimeout(timer);
    child.kill("SIGKILL");
  }
  return status;
}

/**
 * Nobody attacks a machine that lives for a test, and what guards against it costs the more where all is emulated. Left to itself
 * the kernel takes the time from the hpet, each time by way of an emulated device. Whether its timer works it finds out by
 * counting ticks while it spins, and panics on a host that is busy.
 */
const kernelOptions =
  "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off nokaslr audit=0 tsc=reliable clocksource=tsc no_timer_check";

const folders = ["bin", "dev", "proc", "sys", "host", "over", "root", "modules"];

interface InitOptions {
  readonly modules: readonly string[];
  readonly modulesFolder: string;
  readonly command: string;
}

/**
 * The first program. It enters the root itself: kernel threads share its root, and one of them starts the loader of modules,
 * so the rest come by themselves.
 */
const init = ({ modules, modulesFolder, command }: InitOptions): string => `#!/bin/busybox sh
export PATH=/bin:/usr/bin:/sbin:/usr/sbin
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
${modules.map((_, at) => `$b insmod /modules/${at}.ko`).join("\n")}
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288 host /host
$b mount -t tmpfs -o size=80% none /over
$b mkdir /over/up /over/work
$b mount -t overlay -o lowerdir=/host,upperdir=/over/up,workdir=/over/work none /root
$b mount -t tmpfs none /root/tmp
$b mount -t tmpfs none /root/run
$b mount -t tmpfs none /root/var/tmp
$b mount -t tmpfs none /root/var/lib
$b mkdir -p /root/usr/lib/modules
$b mount -o bind /host${modulesFolder} /root/usr/lib/modules
for one in proc sys dev; do $b mount -o move /$one /root/$one; done
$b mkdir -p /root/dev/pts /root/dev/shm
$b mount -t devpts none /root/dev/pts
$b mount -t tmpfs none /root/dev/shm
$b mount -t cgroup2 none /root/sys/fs/cgroup
echo "+cpu +memory +pids +io" > /root/sys/fs/cgroup/cgroup.subtree_control
echo /sbin/modprobe > /root/proc/sys/kernel/modprobe
$b ifconfig lo up
$b cat > /root/run/vm-command <<'END_OF_COMMAND'
cd ${JSON.stringify(process.cwd())}
${command}
END_OF_COMMAND
$b cat > /root/run/vm-init <<'END_OF_INIT'
echo "vm: up"
/bin/sh /run/vm-command < /dev/null 2>&1
echo "vm: exit $?"
/bin/busybox sleep 0.2
/bin/busybox poweroff -f
END_OF_INIT
exec $b chroot /root /bin/sh /run/vm-init
`;

/** Since then. */
const seconds = (startedMs: number): string => ((performance.now() - startedMs) / 1000).toFixed(1);

function isThere(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
