/**
 * The root filesystem of a container, running or not: users, copying, changes. All paths inside it are resolved by the native
 * programs, below a descriptor of the root; this file never opens one of them itself.
 */
import { lstat, mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { lookUpUser, type ProcessUser } from "./core/users.ts";
import type { ResolvedMount } from "./core/types.ts";
import { ArchiveFailed, ContainerConfigInvalid, PathInContainerNotFound } from "./errors.ts";
import { runProgram, streamProgram, type StreamedProgram } from "./programs.ts";
import type { Programs } from "./settings.ts";

export interface Layers {
  readonly lowers: readonly string[];
  readonly upper: string;
  readonly work: string;
  readonly target: string;
}

/**
 * What every container has below its own layer: places for our files and for the default mounts, so that they do not show up
 * as changes of the container, and do not get into an image that is made of it. Only directories that no image has as a
 * link: a directory here would hide it.
 */
const placeholders = {
  directories: ["dev/pts", "dev/shm", "dev/mqueue", "etc", "proc", "sys"],
  files: [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"],
  links: [["etc/mtab", "/proc/mounts"]],
} as const;

/** Below the data of a worker, for all its containers: nothing ever writes to them. */
const initPath = (dataDirectory: string): string => join(dataDirectory, "init");

/** Where a root is mounted, in a mount namespace of whoever does that. */
const targetPath = (dataDirectory: string): string => join(dataDirectory, "merged");

/**
 * Made once, whole or not at all. The layer's name would change with its content: what runs goes on with what it has
 * mounted.
 */
export async function makeSharedDirectories(dataDirectory: string): Promise<void> {
  await mkdir(targetPath(dataDirectory), { recursive: true });
  const init = initPath(dataDirectory);
  if (await exists(init)) return;
  const fresh = `${init}.new`;
  await rm(fresh, { recursive: true, force: true });
  for (const path of placeholders.directories) await mkdir(join(fresh, path), { recursive: true, mode: 0o755 });
  for (const path of placeholders.files) await writeFile(join(fresh, path), "", { mode: 0o644 });
  for (const [path, target] of placeholders.links) await symlink(target, join(fresh, path));
  await rename(fresh, init);
}

/**
 * @param directory  of the container, in `containers` of the worker's data; not all of it is there yet
 * @param where      whether its root is mounted where nobody else sees it, or where the host does
 */
export function layersOf(directory: string, lowers: readonly string[], where: "apart" | "host" = "apart"): Layers {
  const dataDirectory = dirname(dirname(directory));
  return {
    lowers: [initPath(dataDirectory), ...lowers],
    upper: join(directory, "upper"),
    work: join(directory, "work"),
    target: where === "apart" ? targetPath(dataDirectory) : join(directory, "merged"),
  };
}

/** To be there before the layers are mounted. */
export const ownDirectories = ({ upper, work, target }: Layers): string[] => [upper, work, target];

export async function makeDirectories(layers: Layers): Promise<void> {
  await Promise.all(ownDirectories(layers).map((path) => mkdir(path, { recursive: true })));
}

const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );

export function overlayOptions(layers: Layers): string[] {
  return [
    ...layers.lowers.flatMap((lower) => ["--overlay-lower", lower]),
    "--overlay-upper",
    layers.upper,
    "--overlay-work",
    layers.work,
    "--overlay-target",
    layers.target,
  ];
}

/** Splits what `--print` wrote: for each file `LENGTH\n` and its bytes; -1 for a missing one. */
export function parsePrinted(bytes: Buffer, count: number): (string | undefined)[] {
  const files: (string | undefined)[] = [];
  let at = 0;
  while (files.length < count) {
    const newline = bytes.indexOf(0x0a, at);
    if (newline < 0) throw new RangeError("the printed files end too soon");
    const length = Number(bytes.toString("latin1", at, newline));
    at = newline + 1;
    if (length < 0) {
      files.push(undefined);
    } else {
      files.push(bytes.toString("utf8", at, at + length));
      at += length;
    }
  }
  return files;
}

/** /etc/passwd and /etc/group, where they are there. */
interface Accounts {
  readonly passwd: string | undefined;
  readonly group: string | undefined;
}

async function readAccounts(programs: Programs, where: readonly string[]): Promise<Accounts> {
  const files = ["--print", "/etc/passwd", "--print", "/etc/group"];
  const result = await runProgram(programs.isolate, ["monitor", "mounted", ...where, ...files]);
  if (result.code !== 0)
    throw new ContainerConfigInvalid(`its root filesystem cannot be read: ${result.stderr.trim()}`);
  const [passwd, group] = parsePrinted(result.stdout, 2);
  return { passwd, group };
}

function userIn({ passwd, group }: Accounts, user: string, groupAdd: readonly string[]): ProcessUser {
  const found = lookUpUser(user, groupAdd, passwd ?? "", group ?? "");
  if (!found.ok) throw new ContainerConfigInvalid(found.why);
  return found.user;
}

/** Of images whose containers were started last, by what their layers are: replicas need not mount them to be told again. */
const known = new Map<string, Accounts>();
/** Visits under way: replicas that start together share one. */
const visits = new Map<string, Promise<Accounts>>();
const knownMax = 64;
/** Characters of one image's. */
const knownTextMax = 64 * 1024;

/**
 * Makes the working directory and looks up the user, in one visit. There is none for a container that has nothing of its own
 * below /etc, works in /, and whose image is known: its layers say all.
 * @param imageId  a digest, so that the same layers are meant by it for ever
 */
export async function prepareRoot(
  programs: Programs,
  layers: Layers,
  wish: {
    readonly imageId: string;
    readonly workingDirectory: string;
    readonly user: string;
    readonly groupAdd: readonly string[];
  },
): Promise<ProcessUser> {
  const isRoot = wish.workingDirectory === "/";
  const key = (await exists(join(layers.upper, "etc")))
    ? undefined
    : [wish.imageId, ...layers.lowers.slice(1)].join("\n");
  const before = key === undefined ? undefined : known.get(key);
  if (isRoot && before !== undefined) return userIn(before, wish.user, wish.groupAdd);
  const underWay = key === undefined || !isRoot ? undefined : visits.get(key);
  // One that fails may have failed for its own reasons.
  const told = await underWay?.catch(() => undefined);
  if (told !== undefined) return userIn(told, wish.user, wish.groupAdd);
  const directory = isRoot ? [] : ["--make-directory", wish.workingDirectory];
  const visit = makeDirectories(layers).then(() => readAccounts(programs, [...overlayOptions(layers), ...directory]));
  if (key !== undefined && isRoot && !visits.has(key)) visits.set(key, visit);
  const accounts = await visit.finally(() => {
    if (key !== undefined && visits.get(key) === visit) visits.delete(key);
  });
  const length = (accounts.passwd?.length ?? 0) + (accounts.group?.length ?? 0);
  if (key !== undefined && length <= knownTextMax) {
    const [oldest] = known.keys();
    if (known.size >= knownMax && oldest !== undefined) known.delete(oldest);
    known.set(key, accounts);
  }
  return userIn(accounts, wish.user, wish.groupAdd);
}

export async function lookUpInRunning(programs: Programs, pid: number, user: string): Promise<ProcessUser> {
  return userIn(await readAccounts(programs, ["--mount-ns", `/proc/${pid}/ns/mnt`]), user, []);
}

/** Where the files of a container are reached. */
export type RootPlace =
  | { readonly kind: "running"; readonly pid: number }
  | { readonly kind: "stopped"; readonly layers: Layers; readonly mounts: readonly ResolvedMount[] };

function command(programs: Programs, place: RootPlace, verb: string, options: readonly string[]): [string, string[]] {
  if (place.kind === "running")
    return [programs.archive, [verb, "--mount-ns", `/proc/${place.pid}/ns/mnt`, ...options]];
  const binds = place.mounts
    .filter(({ type }) => type !== "tmpfs")
    .flatMap((mount) => ["--bind", mount.source, "--at", mount.destination]);
  return [
    programs.isolate,
    [
      "monitor",
      "mounted",
      ...overlayOptions(place.layers),
      ...binds,
      "--",
      programs.archive,
      verb,
      "--root",
      place.layers.target,
      ...options,
    ],
  ];
}

/** The archive program's failures, which are JSON lines with a stable code. */
function failure(act: string, id: string, path: string, stderr: string): Error {
  try {
    const { code, message } = JSON.parse(stderr.trim().split("\n").at(-1) ?? "") as { code: string; message: string };
    return code === "ARCHIVE_NOT_FOUND" ? new PathInContainerNotFound(id, path) : new ArchiveFailed(act, id, message);
  } catch {
    return new ArchiveFailed(act, id, stderr.trim());
  }
}

export interface PathStat {
  readonly name: string;
  readonly size: number;
  /** As the archive program tells it: st_mode. */
  readonly mode: number;
  readonly mtime: string | number;
  readonly linkTarget: string;
}

export async function statPath(programs: Programs, place: RootPlace, id: string, path: string): Promise<PathStat> {
  const result = await runProgram(...command(programs, place, "stat", ["--path", path]));
  if (result.code !== 0) throw failure("look into", id, path, result.stderr);
  return JSON.parse(result.stdout.toString("utf8")) as PathStat;
}

/** A tar of the path. */
export function packPath(
  programs: Programs,
  place: RootPlace,
  id: string,
  path: string,
  options: readonly string[] = [],
): StreamedProgram {
  const program = streamProgram(...command(programs, place, "pack", ["--path", path, ...options]), (stderr) =>
    failure("copy out of", id, path, stderr),
  );
  program.stdin.end();
  return program;
}

export function unpackInto(programs: Programs, place: RootPlace, id: string, path: string): StreamedProgram {
  const program = streamProgram(...command(programs, place, "unpack", ["--into", path]), (stderr) =>
    failure("copy into", id, path, stderr),
  );
  program.stdout.resume();
  return program;
}

export interface PathChange {
  readonly path: string;
  /** 0 changed, 1 added, 2 deleted. */
  readonly kind: 0 | 1 | 2;
}

/** The archive program sees one directory and nothing else: here the one that holds all layers. */
export function commonDirectory(paths: readonly string[]): string {
  const [first = "", ...rest] = paths.map((path) => path.split("/"));
  const parts = typeof first === "string" ? [] : first;
  const shared = parts.findIndex((part, at) => rest.some((other) => other[at] !== part));
  return parts.slice(0, shared < 0 ? parts.length : shared).join("/") || "/";
}

export async function listChanges(programs: Programs, layers: Layers, id: string): Promise<PathChange[]> {
  const root = commonDirectory([layers.upper, ...layers.lowers]);
  const inside = (path: string): string => (root === "/" ? path : path.slice(root.length));
  const lowers = layers.lowers.flatMap((lower) => ["--lower", inside(lower)]);
  const result = await runProgram(programs.archive, [
    "changes",
    "--root",
    root,
    "--upper",
    inside(layers.upper),
    ...lowers,
  ]);
  if (result.code !== 0) throw failure("list the changes of", id, "/", result.stderr);
  return result.stdout
    .toString("utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as PathChange);
}

/** The writable layer as a layer of an image. */
export function packLayer(programs: Programs, layers: Layers, id: string): StreamedProgram {
  const args = ["pack", "--root", layers.upper, "--path", "/", "--layer"];
  const program = streamProgram(programs.archive, args, (stderr) => failure("pack the changes of", id, "/", stderr));
  program.stdin.end();
  return program;
}
