/**
 * What a crash can leave behind, found and cleared when the worker starts: state directories, cgroups, mounts and files that
 * belong to no record. Everything looked at lies below directories and one cgroup that are this worker's alone.
 */
import { readdir, readFile, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";

import { MonitorConnection } from "./monitor-connection.ts";
import { runProgram } from "./programs.ts";
import type { ContainerSettings } from "./settings.ts";

export interface Leftovers {
  readonly states: readonly string[];
  readonly directories: readonly string[];
  readonly cgroups: readonly string[];
  readonly mounts: readonly string[];
}

const list = (path: string): Promise<string[]> => readdir(path).catch(() => []);

/** Mount points below a directory, the deepest first. */
export function mountsBelow(mountinfo: string, directory: string): string[] {
  return mountinfo
    .split("\n")
    .map((line) =>
      (line.split(" ")[4] ?? "").replace(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      ),
    )
    .filter((point) => point.startsWith(`${directory}/`))
    .sort((a, b) => b.length - a.length);
}

/** Directories of the worker's cgroup in each hierarchy of the host. */
async function cgroupParents(cgroupParent: string): Promise<string[]> {
  const mounts = await readFile("/proc/self/mounts", "utf8");
  return mounts
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup" || type === "cgroup2")
    .map(([, point]) => join(point ?? "", cgroupParent));
}

/** A cgroup with its children, the deepest first; a group that still has processes stays. */
async function removeCgroup(path: string): Promise<boolean> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) if (entry.isDirectory()) await removeCgroup(join(path, entry.name));
  return rmdir(path).then(
    () => true,
    () => false,
  );
}

/** @param known  ids that have a record; @param running  those of them that run */
export async function clearLeftovers(
  settings: ContainerSettings,
  known: ReadonlySet<string>,
  running: ReadonlySet<string>,
): Promise<Leftovers> {
  const states = (await list(join(settings.runDirectory, "c"))).filter((id) => !known.has(id));
  for (const id of states) await endStray(settings, id);
  const runtimeStates = (await list(join(settings.runDirectory, "r"))).filter((id) => !running.has(id));
  for (const id of runtimeStates) await deleteInRuntime(settings, id);

  // Only below what is ours alone: an operator may well keep the rest of the data on file systems of its own.
  const ours = join(settings.dataDirectory, "containers");
  const mounts = mountsBelow(await readFile("/proc/self/mountinfo", "utf8"), ours).filter(
    (point) => ![...running].some((id) => point.includes(id)),
  );
  for (const point of mounts) await runProgram("umount", ["--lazy", point]);

  const cgroups: string[] = [];
  for (const parent of await cgroupParents(settings.cgroupParent)) {
    for (const entry of await readdir(parent, { withFileTypes: true }).catch(() => [])) {
      const path = join(parent, entry.name);
      if (entry.isDirectory() && !running.has(entry.name) && (await removeCgroup(path))) cgroups.push(path);
    }
  }

  const containers = join(settings.dataDirectory, "containers");
  const directories = (await list(containers)).filter((id) => !known.has(id)).map((id) => join(containers, id));
  const trash = join(settings.dataDirectory, "trash");
  directories.push(...(await list(trash)).map((name) => join(trash, name)));
  for (const path of directories) await rm(path, { recursive: true, force: true });
  return { states, directories, cgroups, mounts };
}

async function endStray(settings: ContainerSettings, id: string): Promise<void> {
  const directory = join(settings.runDirectory, "c", id);
  const connection = await MonitorConnection.open(directory).catch(() => undefined);
  if (connection !== undefined) {
    await connection.request({ type: "kill", signal: 9, all: true }, "ok").catch(() => undefined);
    await connection.closed;
  }
  await deleteInRuntime(settings, id);
  await rm(directory, { recursive: true, force: true });
}

async function deleteInRuntime(settings: ContainerSettings, id: string): Promise<void> {
  const { programs, runDirectory } = settings;
  const command = programs.runtime === "builtin" ? programs.isolate : programs.runtime;
  await runProgram(command, ["--root", join(runDirectory, "r"), "delete", "--force", id]);
  await rm(join(runDirectory, "r", id), { recursive: true, force: true });
}
