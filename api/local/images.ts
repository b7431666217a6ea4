/** Routes of images (Engine API, "Image"). */
import { BadRequest, NotOffered } from "../http/index.ts";
import { familiarReference, parseReference, parseRegistryAuth, type ImageSummary } from "../../worker/images/index.ts";
import { empty, json, lines, type Answer, type Call, type LocalRoute } from "./call.ts";
import type { LocalContext } from "./context.ts";
import { withTag } from "./containers.ts";
import { readImageChanges } from "./core/image-changes.ts";
import { historyJson, imageJson, imageSummaryJson } from "./core/image-json.ts";
import { NoSuchImage } from "./errors.ts";
import { failureLine, pullAnswer, pushAnswer } from "./image-progress.ts";
import type { Filters } from "./query.ts";

const filterKeys = ["before", "dangling", "label", "label!", "reference", "since", "until"] as const;

export function imageRoutes(context: LocalContext): LocalRoute[] {
  const { images, containers } = context.local;
  const isRunning = (id: string): boolean =>
    containers.list().some((container) => container.id === id && container.running);
  return [
    { method: "GET", path: "/images/json", handle: (call) => listImages(context, call) },
    { method: "GET", path: "/images/get", handle: (call) => save(context, call, call.query.all("names"), call.signal) },
    {
      method: "GET",
      path: "/images/search",
      handle: async () => {
        throw new NotOffered("searching a registry");
      },
    },
    { method: "POST", path: "/images/load", handle: (call) => load(context, call) },
    { method: "POST", path: "/images/create", handle: (call) => create(context, call) },
    { method: "POST", path: "/images/prune", handle: (call) => prune(context, call) },
    {
      method: "GET",
      path: "/images/*name/json",
      handle: (call) =>
        found(call, async (name) => {
          const { image, config } = await images.inspect(name);
          const summary = (await images.list()).find(({ id }) => id === image.id);
          return json(imageJson(image, config, await images.document(image.id), summary));
        }),
    },
    {
      method: "GET",
      path: "/images/*name/history",
      handle: (call) =>
        found(call, async (name) => {
          const { image } = await images.inspect(name);
          const summary = (await images.list()).find(({ id }) => id === image.id);
          return json(historyJson(image, await images.document(image.id), summary?.repoTags ?? []));
        }),
    },
    {
      method: "GET",
      path: "/images/*name/get",
      handle: (call) => save(context, call, [call.params["name"] ?? ""], call.signal),
    },
    {
      method: "POST",
      path: "/images/*name/tag",
      handle: (call) =>
        found(call, async (name) => {
          const repo = call.query.text("repo");
          const tag = call.query.text("tag");
          await images.tag(name, tag === "" ? repo : `${repo}:${tag}`);
          return empty(201);
        }),
    },
    {
      method: "POST",
      path: "/images/*name/push",
      handle: (call) =>
        found(call, async (name) => {
          const tag = call.query.text("tag");
          const reference = tag === "" ? name : `${name}:${tag}`;
          await images.inspect(reference).catch(() => {
            throw new NoSuchImage(familiarReference(parseReference(reference)));
          });
          return pushAnswer(context, reference, authOf(call), call.signal);
        }),
    },
    {
      method: "DELETE",
      path: "/images/*name",
      handle: (call) =>
        found(call, async (name) => {
          const { untagged, removed } = await images.remove(name, { force: call.query.flag("force"), isRunning });
          return json([...untagged.map((one) => ({ Untagged: one })), ...removed.map((one) => ({ Deleted: one }))]);
        }),
    },
    {
      method: "GET",
      path: "/distribution/*name/json",
      handle: async (call) => {
        const credentials = authOf(call);
        const { descriptor, platforms } = await images.remote(call.params["name"] ?? "", {
          ...(credentials === undefined ? {} : { credentials }),
          signal: AbortSignal.any([call.signal, AbortSignal.timeout(distributionMs)]),
        });
        return json({
          Descriptor: { mediaType: descriptor.mediaType, digest: descriptor.digest, size: descriptor.size },
          Platforms: platforms.map(({ os, architecture, variant }) => ({
            architecture,
            os,
            ...(variant === "" ? {} : { variant }),
          })),
        });
      },
    },
  ];
}

/** A client that creates a service waits for this, and goes on without it. */
const distributionMs = 5000;

/** Says "no such image" in the words that clients know. */
async function found(call: Call, act: (name: string) => Promise<Answer>): Promise<Answer> {
  const name = call.params["name"] ?? "";
  try {
    return await act(name);
  } catch (error) {
    if (error instanceof NoSuchImage) throw error;
    throw (error as { code?: unknown }).code === "IMAGE_NOT_FOUND" ? new NoSuchImage(withTag(name)) : error;
  }
}

export function authOf(call: Call): ReturnType<typeof parseRegistryAuth> {
  const header = call.headers["x-registry-auth"];
  return parseRegistryAuth(typeof header === "string" ? header : undefined);
}

async function listImages(context: LocalContext, call: Call): Promise<Answer> {
  const { images } = context.local;
  const all = await images.list();
  const chosen = await chooseImages(context, all, call.query.filters(filterKeys));
  return json(await imageRows(context, chosen, (summary, labels) => imageSummaryJson(summary, labels, call.minor)));
}

/** What somebody removes meanwhile has no row. */
export async function imageRows(
  { local: { images } }: LocalContext,
  chosen: readonly ImageSummary[],
  row: (summary: ImageSummary, labels: Readonly<Record<string, string>>) => object,
): Promise<object[]> {
  const rows = await Promise.all(
    chosen.map(async (summary) => {
      try {
        return row(summary, (await images.inspect(summary.id)).config.run.labels);
      } catch (error) {
        if ((await images.list()).some(({ id }) => id === summary.id)) throw error;
        return undefined;
      }
    }),
  );
  return rows.filter((each) => each !== undefined);
}

/** The newest first. */
async function chooseImages(
  context: LocalContext,
  all: readonly ImageSummary[],
  filters: Filters,
): Promise<ImageSummary[]> {
  const { images } = context.local;
  const dangling = filters.flag("dangling");
  const untilMs = filters.untilMs(context.clock.wallMs()) ?? Infinity;
  const moment = async (key: string): Promise<number[]> =>
    Promise.all(
      filters.values(key).map(async (reference) => {
        const { image } = await images.inspect(reference).catch((error: unknown) => {
          throw (error as { code?: unknown }).code === "IMAGE_NOT_FOUND" ? new NoSuchImage(withTag(reference)) : error;
        });
        return image.createdAtMs;
      }),
    );
  const beforeMs = Math.min(Infinity, ...(await moment("before")));
  const sinceMs = Math.max(-Infinity, ...(await moment("since")));
  const patterns = filters.values("reference").map(patternOf);
  const chosen: ImageSummary[] = [];
  for (const summary of all) {
    const { repoTags, repoDigests, createdAtMs } = summary;
    const names = [...repoTags, ...repoDigests];
    if (createdAtMs >= Math.min(beforeMs, untilMs) || createdAtMs <= sinceMs) continue;
    if (dangling !== undefined && dangling !== (repoTags.length === 0)) continue;
    const fits = (name: string): boolean => patterns.length === 0 || patterns.some((pattern) => pattern(name));
    if (patterns.length > 0 && !names.some(fits)) continue;
    if (filters.has("label") || filters.has("label!")) {
      if (!filters.labels((await images.inspect(summary.id)).config.run.labels)) continue;
    }
    // Of several names, those that were asked for.
    chosen.push({ ...summary, repoTags: repoTags.filter(fits), repoDigests: repoDigests.filter(fits) });
  }
  return chosen.sort((a, b) => b.createdAtMs - a.createdAtMs);
}

/** `name`, `name:tag`, with `*` and `?`, which stop at a slash. */
function patternOf(pattern: string): (name: string) => boolean {
  const escaped = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replace(/\*+/g, "[^/]*")
    .replace(/\?/g, "[^/]");
  const expression = new RegExp(`^${escaped.slice(0, 512)}$`);
  return (name) => expression.test(name) || expression.test(name.split(/[:@]/, 1)[0] ?? "");
}

async function save(
  context: LocalContext,
  _call: Call,
  names: readonly string[],
  signal: AbortSignal,
): Promise<Answer> {
  if (names.length === 0) throw new BadRequest("no images to save");
  for (const name of names) {
    await context.local.images.inspect(name).catch((error: unknown) => {
      throw (error as { code?: unknown }).code === "IMAGE_NOT_FOUND" ? new NoSuchImage(withTag(name)) : error;
    });
  }
  const tar = await context.local.images.save(names, signal);
  return {
    kind: "stream",
    status: 200,
    headers: { "content-type": "application/x-tar" },
    send: async (out) => {
      for await (const chunk of tar as AsyncIterable<Uint8Array>) await out.write(chunk);
    },
  };
}

async function load(context: LocalContext, call: Call): Promise<Answer> {
  return lines(async (line) => {
    try {
      for (const { image, names } of await context.local.images.load(call.body, call.signal)) {
        if (names.length === 0) await line({ stream: `Loaded image ID: ${image.id}\n` });
        for (const name of names) await line({ stream: `Loaded image: ${name}\n` });
      }
    } catch (error) {
      await line(failureLine(context, error));
    } finally {
      call.body.resume(); // what was not read, so that the client may finish sending
    }
  });
}

async function create(context: LocalContext, call: Call): Promise<Answer> {
  const { query } = call;
  const fromImage = query.text("fromImage");
  const tag = query.text("tag");
  if (fromImage !== "") {
    await call.skipBody();
    const separator = tag.includes(":") ? "@" : ":";
    const reference = tag === "" ? fromImage : `${fromImage}${separator}${tag}`;
    return pullAnswer(context, reference, query.text("platform"), authOf(call), call.signal);
  }
  const source = query.text("fromSrc");
  if (source === "") throw new BadRequest("neither fromImage nor fromSrc is given");
  if (source !== "-") throw new NotOffered("importing from an address");
  const reading = readImageChanges(
    query
      .all("changes")
      .flatMap((text) => text.split("\n"))
      .filter((text) => text.trim() !== ""),
  );
  if (!reading.ok) throw new BadRequest(reading.why);
  const repo = query.text("repo");
  const reference = repo === "" ? undefined : tag === "" ? repo : `${repo}:${tag}`;
  const message = query.text("message");
  return lines(async (line) => {
    try {
      const image = await context.local.images.import(call.body, {
        ...(reference === undefined ? {} : { reference }),
        ...(message === "" ? {} : { message }),
        changes: reading.changes,
        signal: call.signal,
      });
      await line({ status: image.id });
    } catch (error) {
      await line(failureLine(context, error));
    }
  });
}

async function prune(context: LocalContext, call: Call): Promise<Answer> {
  const { images } = context.local;
  const filters = call.query.filters(["dangling", "label", "label!", "until"]);
  const narrowed = ["label", "label!", "until"].some((key) => filters.has(key));
  const untilMs = filters.untilMs(context.clock.wallMs()) ?? Infinity;
  const only = new Set<string>();
  for (const summary of narrowed ? await images.list() : []) {
    if (summary.createdAtMs >= untilMs) continue;
    if (filters.labels((await images.inspect(summary.id)).config.run.labels)) only.add(summary.id);
  }
  const report = await images.prune({ all: filters.flag("dangling") === false, ...(narrowed ? { only } : {}) });
  const deleted = [
    ...report.untagged.map((name) => ({ Untagged: familiarReference(parseReference(name)) })),
    ...report.images.map((id) => ({ Deleted: id })),
  ];
  return json({ ImagesDeleted: deleted.length === 0 ? null : deleted, SpaceReclaimed: report.reclaimedBytes });
}
