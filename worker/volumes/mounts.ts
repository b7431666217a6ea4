/** Mounting what a volume's options name: mount(8) of the distribution, which knows the helpers of nfs and cifs. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { fstabLine, type VolumeMount } from "./core/options.ts";
import { VolumeMountFailed } from "./errors.ts";

/** A server that is away keeps mount(8) waiting for minutes. */
const mountMs = 60_000;
const failureMax = 500;

export async function isMountpoint(path: string): Promise<boolean> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  // mountinfo writes white space and backslashes as octal escapes (proc(5)).
  const escaped = path.replace(/[\s\\]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return lines.some((line) => line.split(" ")[4] === escaped);
}

/** @throws VolumeMountFailed */
export async function mountVolume(name: string, mount: VolumeMount, target: string, folder: string): Promise<void> {
  await mkdir(target, { recursive: true, mode: 0o755 });
  // Options may hold a password, and arguments of a program can be read by everybody: they go through a file of ours.
  const table = join(folder, `.fstab-${randomBytes(8).toString("hex")}`);
  await writeFile(table, fstabLine(mount, target), { mode: 0o600, flag: "wx" });
  try {
    await run("mount", ["--fstab", table, target], (found) => new VolumeMountFailed(name, "mount", found));
  } finally {
    await rm(table, { force: true });
  }
}

/** Containers that still run have it in mount namespaces of their own. @throws VolumeMountFailed */
export async function unmountVolume(name: string, target: string): Promise<void> {
  await run("umount", ["--lazy", target], (found) => new VolumeMountFailed(name, "unmount", found));
}

function run(command: string, args: readonly string[], failure: (found: string) => Error): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: mountMs, killSignal: "SIGKILL" }, (error, _stdout, stderr) => {
      if (error === null) resolve();
      else if (error.killed === true) reject(failure(`${command} did not end within ${mountMs / 1000} s`));
      else reject(failure((stderr.trim() || error.message).slice(0, failureMax)));
    });
  });
}
