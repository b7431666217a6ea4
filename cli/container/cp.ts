/** `cp`: files between a container and here, as tar archives. */
import { createReadStream, createWriteStream } from "node:fs";
import { chmod, lstat, mkdir, readdir, readlink, rm, stat, symlink } from "node:fs/promises";
import { basename, dirname, join, posix, resolve, sep } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, pack, type Header, type Pack } from "tar-stream";
import { inPath, type Api } from "../api/client.ts";
import { CommandError, isNotFound } from "../errors.ts";
import { command, exactly } from "../grammar/command.ts";
import * as flag from "../grammar/flags.ts";
import { decimalSize } from "../output/human.ts";
import type { Session } from "../session.ts";

interface Side {
  readonly container: string | undefined;
  readonly path: string;
}

export const cp = command({
  usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tskep cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
  args: exactly(2),
  flags: {
    archive: flag.bool("Keep owner and group", { short: "a" }),
    "follow-link": flag.bool("Follow a symbolic link in SRC_PATH", { short: "L" }),
    quiet: flag.quiet("Print no progress"),
  },
  completes: "files",
  async run(session, flags, [from = "", to = ""]) {
    const source = side(from);
    const target = side(to);
    if (source.container !== undefined && target.container !== undefined) {
      throw new CommandError("copying between containers is not supported");
    }
    const api = await session.api();
    const quiet = flags.quiet === true || session.stderr.isTTY !== true;
    if (source.container !== undefined) {
      const bytes = await copyOut(
        session,
        api,
        source.container,
        source.path,
        target.path,
        flags["follow-link"] === true,
      );
      if (!quiet) session.warn(`Successfully copied ${decimalSize(bytes)} to ${target.path}`);
    } else if (target.container === undefined) {
      throw new CommandError("must specify at least one container source");
    } else {
      const follow = flags["follow-link"] === true;
      await copyIn(session, api, source.path, target.container, target.path, { follow, owner: flags.archive === true });
      if (!quiet) session.warn(`Successfully copied to ${to}`);
    }
  },
});

/** `CONTAINER:PATH`; a path that begins with "." or "/" is always here. */
function side(text: string): Side {
  const at = text.indexOf(":");
  if (at < 1 || text.startsWith(".") || text.startsWith("/")) return { container: undefined, path: text };
  return { container: text.slice(0, at), path: text.slice(at + 1) };
}

interface PathStat {
  readonly name: string;
  /** Go's FileMode bits. */
  readonly mode: number;
  readonly linkTarget: string;
}
const goDirectory = 0x8000_0000;
const goSymlink = 0x0800_0000;

async function statIn(api: Api, container: string, path: string): Promise<PathStat | undefined> {
  try {
    const answer = await api.open("HEAD", `/containers/${inPath(container)}/archive`, { query: { path } });
    answer.resume();
    const text = Buffer.from(String(answer.headers["x-docker-container-path-stat"] ?? ""), "base64").toString("utf8");
    return text === "" ? undefined : (JSON.parse(text) as PathStat);
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** @returns bytes of files */
async function copyOut(
  session: Session,
  api: Api,
  container: string,
  path: string,
  target: string,
  follow: boolean,
): Promise<number> {
  let source = path;
  if (follow) {
    const found = await statIn(api, container, path);
    if (found !== undefined && (found.mode & goSymlink) !== 0)
      source = posix.resolve(posix.dirname(path), found.linkTarget);
  }
  if (target !== "-" && !(await isDirectory(dirname(resolve(target))))) {
    throw new CommandError(`invalid output path: directory ${JSON.stringify(dirname(resolve(target)))} does not exist`);
  }
  const answer = await api.open("GET", `/containers/${inPath(container)}/archive`, {
    query: { path: source },
    signal: session.interrupted,
  });
  if (target === "-") {
    if (session.stdout.isTTY === true) throw new CommandError("cowardly refusing to copy a tar archive to a terminal");
    await pipeline(answer, session.stdout, { end: false });
    return 0;
  }
  const contentOnly = /(^|\/)\.$/.test(path);
  const into = await isDirectory(target);
  if (!into && target.endsWith("/")) throw new CommandError(`no such directory: ${target}`);
  // Inside a folder the first name stays; otherwise it becomes the target's.
  const rename = into && !contentOnly ? undefined : basename(resolve(target));
  const root = into && !contentOnly ? resolve(target) : dirname(resolve(target));
  return unpack(answer, root, rename);
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

/**
 * Writes an archive below a folder. Nothing leaves it: names that climb are refused, and no entry is written through a
 * symbolic link that the archive itself brought.
 */
async function unpack(source: Readable, root: string, rename: string | undefined): Promise<number> {
  const reader = extract();
  const feeding = pipeline(source, reader);
  // It shows as the end of the loop below as well.
  feeding.catch(() => undefined);
  let bytes = 0;
  const made = new Set<string>();
  for await (const entry of reader) {
    const { name, type, mode, linkname, size } = entry.header;
    const parts = name.split("/").filter((part) => part !== "" && part !== ".");
    if (parts.includes(".."))
      throw new CommandError(`Cannot unpack ${JSON.stringify(name)}: it points out of the archive`);
    if (rename !== undefined) parts[0] = rename;
    const path = join(root, ...parts);
    await throughFoldersOnly(root, parts, made);
    if (type === "directory") {
      await mkdir(path, { recursive: true });
      if (mode !== undefined) await chmod(path, mode & 0o777);
      made.add(path);
      entry.resume();
    } else if (type === "symlink") {
      await rm(path, { force: true });
      await symlink(linkname ?? "", path);
      entry.resume();
    } else if (type === "file" || type === "contiguous-file") {
      // A link in the file's own place is replaced, not followed.
      const present = await lstat(path).catch(() => undefined);
      if (present?.isSymbolicLink() === true) await rm(path);
      await pipeline(entry, createWriteStream(path, { mode: (mode ?? 0o644) & 0o777 }));
      bytes += size ?? 0;
    } else entry.resume(); // Devices and pipes are not made here.
  }
  await feeding;
  return bytes;
}

async function throughFoldersOnly(root: string, parts: readonly string[], made: ReadonlySet<string>): Promise<void> {
  let path = root;
  for (const part of parts.slice(0, -1)) {
    path = join(path, part);
    if (made.has(path)) continue;
    const found = await lstat(path).catch(() => undefined);
    if (found?.isSymbolicLink() === true) {
      throw new CommandError(`Cannot unpack below ${path}: it is a symbolic link`);
    }
    if (found === undefined) await mkdir(path);
  }
}

interface CopyIn {
  readonly follow: boolean;
  readonly owner: boolean;
}

async function copyIn(
  session: Session,
  api: Api,
  path: string,
  container: string,
  target: string,
  { follow, owner }: CopyIn,
): Promise<void> {
  const query = { noOverwriteDirNonDir: "true", copyUIDGID: owner ? "true" : undefined };
  const put = async (folder: string, upload: Readable): Promise<void> => {
    const answer = await api.open("PUT", `/containers/${inPath(container)}/archive`, {
      query: { path: folder, ...query },
      upload,
    });
    answer.resume();
  };
  const absolute = posix.resolve("/", target);
  if (path === "-") {
    await put(absolute, session.stdin);
    return;
  }
  const source = resolve(path);
  const found = await (follow ? stat(source) : lstat(source)).catch(() => undefined);
  if (found === undefined) throw new CommandError(`lstat ${source}: no such file or directory`);
  const there = await statIn(api, container, absolute);
  const intoFolder = there !== undefined && (there.mode & goDirectory) !== 0;
  if (!intoFolder && target.endsWith("/") && !found.isDirectory()) {
    throw new CommandError(`no such directory: ${container}:${target}`);
  }
  const contentOnly = path.endsWith(`${sep}.`) || path === ".";
  const name = intoFolder ? (contentOnly ? "" : basename(source)) : basename(absolute);
  const archive = pack();
  const packing = packTree(archive, source, name, follow).then(
    () => archive.finalize(),
    (error: unknown) => archive.destroy(error instanceof Error ? error : new Error(String(error))),
  );
  // Its type is a cousin of the Node.js one, with the same methods.
  await put(intoFolder ? absolute : posix.dirname(absolute), archive as unknown as Readable);
  await packing;
}

/** Adds a file or folder under a name; an empty name adds a folder's content only. */
async function packTree(archive: Pack, path: string, name: string, follow: boolean): Promise<void> {
  const found = await (follow ? stat(path) : lstat(path));
  const header: Partial<Header> & { name: string } = {
    name,
    mode: found.mode & 0o7777,
    mtime: found.mtime,
    uid: found.uid,
    gid: found.gid,
  };
  if (found.isSymbolicLink()) {
    archive.entry({ ...header, type: "symlink", linkname: await readlink(path) });
  } else if (found.isDirectory()) {
    if (name !== "") archive.entry({ ...header, name: `${name}/`, type: "directory" });
    for (const member of (await readdir(path)).toSorted()) {
      // Only the first name may be a link that is followed.
      await packTree(archive, join(path, member), name === "" ? member : `${name}/${member}`, false);
    }
  } else if (found.isFile()) {
    await pipeline(createReadStream(path), archive.entry({ ...header, size: found.size }));
  }
}
