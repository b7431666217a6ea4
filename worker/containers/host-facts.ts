/** What the host allows: read once when the worker starts, devices each time they are asked for. */
import { readdir, readFile, stat } from "node:fs/promises";
import { cpus } from "node:os";
import { arch } from "node:process";

import { allCapabilities } from "./core/capabilities.ts";
import type { DeviceNode, HostFacts } from "./core/oci-spec.ts";

export type StaticFacts = Omit<HostFacts, "devices">;

export async function readHostFacts(): Promise<StaticFacts> {
  const mounts = await readFile("/proc/self/mounts", "utf8");
  const version1 = / cgroup [^ ]*\bmemory\b/.test(mounts);
  const status = await readFile("/proc/self/status", "utf8");
  const bounding = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  const cpuNames = await readdir("/sys/devices/system/cpu").catch(() => [] as string[]);
  const throttled = await Promise.all(
    cpuNames
      .filter((name) => /^cpu[0-9]+$/.test(name))
      .map(async (name) => {
        const path = `/sys/devices/system/cpu/${name}/thermal_throttle`;
        return (await exists(path)) ? [path] : [];
      }),
  );
  const memory = /^cgroup (\S+) cgroup [^ ]*\bmemory\b/m.exec(mounts)?.[1] ?? "";
  return {
    cgroupVersion: version1 ? 1 : 2,
    machine: arch,
    cpus: cpus().length,
    cpusOnline: await listed("/sys/devices/system/cpu/online"),
    memoryNodesOnline: await listed("/sys/devices/system/node/online"),
    capabilities: allCapabilities.filter((_, bit) => (bounding & (1n << BigInt(bit))) !== 0n),
    seccomp: /^Seccomp:/m.test(status),
    swapAccounting: version1 ? await exists(`${memory}/memory.memsw.limit_in_bytes`) : true,
    thermalThrottlePaths: throttled.flat(),
  };
}

/** Empty where the kernel does not say. */
async function listed(path: string): Promise<string> {
  return (await readFile(path, "utf8").catch(() => "")).trim();
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Linux' encoding of a device number in stat(2). */
function splitDevice(rdev: number): { major: number; minor: number } {
  const device = BigInt(rdev);
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)),
    minor: Number((device & 0xffn) | ((device >> 12n) & ~0xffn & 0xffffffffn)),
  };
}

/** The device node at a host path; undefined when there is none. */
export async function readDevice(path: string): Promise<DeviceNode | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined || !(found.isCharacterDevice() || found.isBlockDevice())) return undefined;
  const type = found.isBlockDevice() ? "b" : "c";
  return { type, ...splitDevice(found.rdev), mode: found.mode, uid: found.uid, gid: found.gid };
}

/** All of the host's device nodes, for a privileged container; terminals and shared memory are the container's own. */
export async function readAllDevices(directory = "/dev"): Promise<Map<string, DeviceNode>> {
  const found = new Map<string, DeviceNode>();
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    const path = `${directory}/${entry.name}`;
    if (["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/ptmx", "/dev/.lxc"].includes(path))
      continue;
    if (entry.isDirectory()) {
      for (const [inner, node] of await readAllDevices(path)) found.set(inner, node);
    } else if (entry.isCharacterDevice() || entry.isBlockDevice()) {
      const node = await readDevice(path);
      if (node !== undefined) found.set(path, node);
    }
  }
  return found;
}
