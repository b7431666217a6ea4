/** `skep image`: the images of the daemon's node. */
import { createWriteStream } from "node:fs";
import { rename, rm as removeFile } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { filtersQuery, inPath } from "./api/client.ts";
import { registryAuth } from "./api/registry.ts";
import { jsonLines } from "./api/streams.ts";
import { openUpload } from "./api/upload.ts";
import { CommandError } from "./errors.ts";
import { atLeast, between, command, exactly, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { confirm, forceFlag, forEachName, inspectEach, inspectFlags } from "./output/each.ts";
import { decimalSize, goTime, humanDuration, shorten, shortId } from "./output/human.ts";
import { familiarName, normalName } from "./output/image-name.ts";
import { printList } from "./output/list.ts";
import { printProgress, type ProgressLine } from "./output/pull-progress.ts";
import type { Session } from "./session.ts";

/** "linux/amd64/v8" as the API wants it. */
function platformJson(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const [os, architecture, variant] = text.split("/");
  return JSON.stringify({ architecture, os, variant });
}

export const load = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    input: flag.text("Read from a tar archive instead of standard input", { short: "i" }),
    platform: flag.text("Load this platform only"),
    quiet: flag.quiet("Print what was loaded only"),
  },
  completes: "files",
  async run(session, flags) {
    const { stdin } = session;
    if (flags.input === undefined && stdin.isTTY === true) {
      throw new CommandError("requested load from stdin, but stdin is empty");
    }
    const upload = flags.input === undefined ? stdin : await openUpload(flags.input);
    const api = await session.api();
    const isQuiet = flags.quiet === true || session.stdout.isTTY !== true;
    const answer = await api.open("POST", "/images/load", {
      query: { quiet: isQuiet ? 1 : 0, platform: platformJson(flags.platform) },
      upload,
    });
    await printProgress(session, jsonLines<ProgressLine>(answer), flags.quiet === true);
  },
});

interface Listed {
  readonly Id: string;
  readonly RepoTags?: readonly string[] | null;
  readonly RepoDigests?: readonly string[] | null;
  readonly Created: number;
  readonly Size: number;
  readonly SharedSize?: number;
  readonly Containers?: number;
}

export interface ImageRow {
  readonly image: Listed;
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
}

/** One row for each tag, and one for each digest that has none. */
export function imageRows(images: readonly Listed[], withDigests: boolean): ImageRow[] {
  return images.flatMap((image) => {
    const digests = new Map((image.RepoDigests ?? []).map((one) => one.split("@") as [string, string]));
    const tags = (image.RepoTags ?? []).filter((tag) => tag !== "<none>:<none>");
    const rows = tags.map((name): ImageRow => {
      const at = name.lastIndexOf(":");
      const repository = name.slice(0, at);
      return { image, repository, tag: name.slice(at + 1), digest: digests.get(repository) ?? "<none>" };
    });
    if (rows.length > 0) return rows;
    const untagged = [...digests].map(([repository, digest]) => ({ image, repository, tag: "<none>", digest }));
    if (untagged.length === 0) return [{ image, repository: "<none>", tag: "<none>", digest: "<none>" }];
    return withDigests ? untagged : untagged.slice(0, 1);
  });
}

export const ls = command({
  usage: "[OPTIONS] [REPOSITORY[:TAG]]",
  args: between(0, 1),
  flags: {
    all: flag.bool("Show intermediate images too", { short: "a" }),
    digests: flag.bool("Show digests"),
    filter: flag.filters(),
    format: flag.format(),
    "no-trunc": flag.noTrunc(),
    quiet: flag.quiet(),
  },
  completes: "images",
  async run(session, flags, [reference]) {
    const filters = new Map([
      ...(flags.filter ?? []),
      ...(reference === undefined ? [] : [["reference", [reference]] as const]),
    ]);
    const api = await session.api();
    const images = await api.get<Listed[] | null>("/images/json", {
      query: { all: flags.all === true ? 1 : undefined, filters: filtersQuery(filters) },
    });
    const long = flags["no-trunc"] === true;
    const nowMs = Date.now();
    const sorted = (images ?? []).toSorted((a, b) => b.Created - a.Created);
    const count = (value: number | undefined): string => (value === undefined || value < 0 ? "N/A" : String(value));
    const size = (value: number | undefined): string => (value === undefined || value < 0 ? "N/A" : decimalSize(value));
    printList(session, imageRows(sorted, flags.digests === true), {
      columns: {
        Repository: ["REPOSITORY", ({ repository }) => repository],
        Tag: ["TAG", ({ tag }) => tag],
        Digest: ["DIGEST", ({ digest }) => digest],
        ID: ["IMAGE ID", ({ image }) => (long ? image.Id : shortId(image.Id))],
        CreatedSince: ["CREATED", ({ image }) => `${humanDuration(nowMs - image.Created * 1000)} ago`],
        CreatedAt: ["CREATED AT", ({ image }) => goTime(isoSeconds(image.Created), "UTC")],
        Size: ["SIZE", ({ image }) => decimalSize(image.Size)],
        VirtualSize: ["SIZE", ({ image }) => decimalSize(image.Size, 4)],
        SharedSize: ["SHARED SIZE", ({ image }) => size(image.SharedSize)],
        UniqueSize: [
          "UNIQUE SIZE",
          ({ image }) =>
            size(image.SharedSize === undefined || image.SharedSize < 0 ? -1 : image.Size - image.SharedSize),
        ],
        Containers: ["CONTAINERS", ({ image }) => count(image.Containers)],
      },
      shown: ["Repository", "Tag", ...(flags.digests === true ? ["Digest"] : []), "ID", "CreatedSince", "Size"],
      id: "ID",
      format: flags.format,
      quiet: flags.quiet,
    });
  },
});

export const pull = command({
  usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
  args: exactly(1),
  flags: {
    "all-tags": flag.bool("Pull every tag of the repository", { short: "a" }),
    "disable-content-trust": flag.bool("Accepted for scripts written for docker; has no effect"),
    platform: flag.text("Platform of the image"),
    quiet: flag.quiet("Print no progress"),
  },
  completes: "images",
  async run(session, flags, [image = ""]) {
    const all = flags["all-tags"] === true;
    const { repo, tag } = wantedTag(session, image, { all, quiet: flags.quiet === true });
    const api = await session.api();
    const answer = await api.open("POST", "/images/create", {
      query: { fromImage: repo, tag: all ? undefined : (tag ?? "latest"), platform: flags.platform },
      headers: { "X-Registry-Auth": registryAuth(session, image) },
      signal: session.interrupted,
    });
    await printProgress(session, jsonLines<ProgressLine>(answer), flags.quiet === true);
    session.print(tag?.includes(":") === true ? `${repo}@${tag}` : `${repo}:${tag ?? "latest"}`);
  },
});

/** @returns  without a tag: `latest`, or with `all` every one */
function wantedTag(
  session: Session,
  image: string,
  { all, quiet }: { readonly all: boolean; readonly quiet: boolean },
): ReturnType<typeof normalName> {
  const name = normalName(image);
  if (all && name.tag !== undefined) throw new CommandError("tag can't be used with --all-tags/-a");
  if (!all && name.tag === undefined && !quiet) session.print("Using default tag: latest");
  return name;
}

export const push = command({
  usage: "[OPTIONS] NAME[:TAG]",
  args: exactly(1),
  flags: {
    "all-tags": flag.bool("Push every tag of the repository", { short: "a" }),
    "disable-content-trust": flag.bool("Accepted for scripts written for docker; has no effect"),
    platform: flag.text("Push this platform only"),
    quiet: flag.quiet("Print no progress"),
  },
  completes: "images",
  async run(session, flags, [image = ""]) {
    const all = flags["all-tags"] === true;
    const { repo, tag } = wantedTag(session, image, { all, quiet: flags.quiet === true });
    const api = await session.api();
    const answer = await api.open("POST", `/images/${inPath(familiarName(repo))}/push`, {
      query: { tag: all ? "" : (tag ?? "latest"), platform: platformJson(flags.platform) },
      headers: { "X-Registry-Auth": registryAuth(session, image) },
      signal: session.interrupted,
    });
    await printProgress(session, jsonLines<ProgressLine>(answer), flags.quiet === true);
    if (flags.quiet === true) session.print(all ? repo : `${repo}:${tag ?? "latest"}`);
  },
});

export const save = command({
  usage: "[OPTIONS] IMAGE [IMAGE...]",
  args: atLeast(1),
  flags: {
    output: flag.text("Write to a file instead of standard output", { short: "o" }),
    platform: flag.text("Save this platform only"),
  },
  completes: "images",
  async run(session, flags, names) {
    if (flags.output === undefined && session.stdout.isTTY === true) {
      throw new CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    const api = await session.api();
    const answer = await api.open("GET", "/images/get", {
      query: { names, platform: platformJson(flags.platform) },
      signal: session.interrupted,
    });
    if (flags.output === undefined) {
      await pipeline(answer, session.stdout, { end: false });
      return;
    }
    // Half an archive must not bear the name of a whole one.
    const partial = `${flags.output}.partial-${process.pid}`;
    try {
      await pipeline(answer, createWriteStream(partial, { flags: "wx", mode: 0o600 }));
      await rename(partial, flags.output);
    } catch (error) {
      await removeFile(partial, { force: true });
      throw error;
    }
  },
});

export const importTar = command({
  usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
  args: between(1, 2),
  flags: {
    change: flag.list("Dockerfile instruction to apply", { short: "c" }),
    message: flag.text("Message of the image", { short: "m" }),
    platform: flag.text("Platform of the image"),
  },
  completes: "files",
  async run(session, flags, [source = "", repository]) {
    const isUrl = /^https?:\/\//.test(source);
    const upload = isUrl ? undefined : source === "-" ? session.stdin : await openUpload(source);
    const api = await session.api();
    const answer = await api.open("POST", "/images/create", {
      query: {
        fromSrc: isUrl ? source : "-",
        repo: repository,
        message: flags.message,
        changes: flags.change,
        platform: flags.platform,
      },
      ...(upload === undefined ? {} : { upload }),
    });
    await printProgress(session, jsonLines<ProgressLine>(answer));
  },
});

export const tag = command({
  usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
  args: exactly(2),
  flags: {},
  completes: "images",
  async run(session, _flags, [source = "", target = ""]) {
    const { repo, tag } = normalName(target);
    const api = await session.api();
    await api.post(`/images/${inPath(source)}/tag`, { query: { repo, tag: tag ?? "latest" } });
  },
});

export const rm = command({
  usage: "[OPTIONS] IMAGE [IMAGE...]",
  args: atLeast(1),
  flags: {
    force: flag.bool("Remove it though it is used", { short: "f" }),
    "no-prune": flag.bool("Keep parents without a tag"),
  },
  completes: "images",
  async run(session, flags, names) {
    const api = await session.api();
    const query = {
      force: flags.force === true ? 1 : undefined,
      noprune: flags["no-prune"] === true ? 1 : undefined,
    };
    await forEachName(session, names, async (name) => {
      const removed = await api.delete<readonly Removed[] | null>(`/images/${inPath(name)}`, query);
      for (const line of removedLines(removed ?? [])) session.print(line);
      return null;
    });
  },
});

interface Removed {
  readonly Untagged?: string;
  readonly Deleted?: string;
}

const removedLines = (removed: readonly Removed[]): string[] =>
  removed.map(({ Untagged, Deleted }) =>
    Deleted === undefined ? `Untagged: ${Untagged ?? ""}` : `Deleted: ${Deleted}`,
  );

export const inspect = command({
  usage: "[OPTIONS] IMAGE [IMAGE...]",
  args: atLeast(1),
  flags: { ...inspectFlags, platform: flag.text("Platform to show of an image for several") },
  completes: "images",
  async run(session, flags, names) {
    const api = await session.api();
    const query = { platform: platformJson(flags.platform) };
    await inspectEach(session, names, flags, (name) => api.get(`/images/${inPath(name)}/json`, { query }));
  },
});

interface HistoryEntry {
  readonly Id: string;
  readonly Created: number;
  readonly CreatedBy: string;
  readonly Size: number;
  readonly Comment: string;
}

export const history = command({
  usage: "[OPTIONS] IMAGE",
  args: exactly(1),
  flags: {
    format: flag.format(),
    human: flag.bool("Print sizes and dates for people", { short: "H", shownDefault: "true" }),
    "no-trunc": flag.noTrunc(),
    platform: flag.text("Platform to show of an image for several"),
    quiet: flag.quiet(),
  },
  completes: "images",
  async run(session, flags, [name = ""]) {
    const api = await session.api();
    const entries = await api.get<HistoryEntry[]>(`/images/${inPath(name)}/history`, {
      query: { platform: platformJson(flags.platform) },
    });
    const long = flags["no-trunc"] === true;
    const human = flags.human !== false;
    const nowMs = Date.now();
    const iso = (seconds: number): string => new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, "Z");
    printList(session, entries, {
      columns: {
        ID: ["IMAGE", ({ Id }) => (long ? Id : shortId(Id))],
        CreatedSince: [
          human ? "CREATED" : "CREATED AT",
          ({ Created }) => (human ? `${humanDuration(nowMs - Created * 1000)} ago` : iso(Created)),
        ],
        CreatedAt: ["CREATED AT", ({ Created }) => iso(Created)],
        CreatedBy: [
          "CREATED BY",
          ({ CreatedBy }) => (long ? CreatedBy.replaceAll("\t", " ") : shorten(CreatedBy.replaceAll("\t", " "), 45)),
        ],
        Size: ["SIZE", ({ Size }) => (human ? decimalSize(Size) : String(Size))],
        Comment: ["COMMENT", ({ Comment }) => Comment],
      },
      shown: ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
      id: "ID",
      format: flags.format,
      quiet: flags.quiet,
    });
  },
});

export const prune = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    all: flag.bool("Remove every image that no container uses, not only those without a tag", { short: "a" }),
    filter: flag.filters({}),
    force: forceFlag(),
  },
  async run(session, flags) {
    const what =
      flags.all === true ? "all images without at least one container associated to them" : "all dangling images";
    if (
      flags.force !== true &&
      !(await confirm(session, `WARNING! This will remove ${what}.\nAre you sure you want to continue?`))
    ) {
      return;
    }
    const filters = new Map([...(flags.filter ?? []), ["dangling", [String(flags.all !== true)]]]);
    const api = await session.api();
    const { ImagesDeleted: removed, SpaceReclaimed: bytes = 0 } = await api.post<{
      ImagesDeleted?: readonly Removed[] | null;
      SpaceReclaimed?: number;
    }>("/images/prune", { query: { filters: filtersQuery(filters) } });
    if (removed?.length)
      session.print(
        `Deleted Images:\n${removedLines(removed)
          .map((l) => l.toLowerCase().replace(/^(\w+): /, "$1: "))
          .join("\n")}\n`,
      );
    session.print(`Total reclaimed space: ${decimalSize(bytes, 4)}`);
  },
});

const isoSeconds = (seconds: number): string => new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
