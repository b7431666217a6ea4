/** Images in the shapes of the Engine API. Pure. */
import type { ImageConfig } from "../../../worker/images/core/manifest.ts";
import { isoTime } from "./container-json.ts";

/** The parts of images' records that are shown; api/local/images.ts hands in the rooms' own. */
interface ImageRecord {
  readonly id: string;
  readonly layers: readonly { readonly diffId: string; readonly bytes: number }[];
  readonly createdAtMs: number;
  readonly storedAtMs: number;
}

interface ImageSummary {
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  readonly createdAtMs: number;
  readonly sizeBytes: number;
}

type Document = Readonly<Record<string, unknown>>;

const textOf = (value: unknown): string => (typeof value === "string" ? value : "");

export function imageSummaryJson(
  summary: ImageSummary,
  labels: Readonly<Record<string, string>>,
  minor: number,
): Record<string, unknown> {
  return {
    Id: summary.id,
    ParentId: "",
    RepoTags: summary.repoTags,
    RepoDigests: summary.repoDigests,
    Created: Math.floor(summary.createdAtMs / 1000),
    Size: summary.sizeBytes,
    SharedSize: -1,
    Containers: -1,
    Labels: labels,
    ...(minor < 44 ? { VirtualSize: summary.sizeBytes } : {}),
  };
}

const set = (names: readonly string[]): object | null =>
  names.length === 0 ? null : Object.fromEntries(names.map((name) => [name, {}]));
const orNull = (words: readonly string[]): readonly string[] | null => (words.length === 0 ? null : words);

export function imageJson(
  image: ImageRecord,
  config: ImageConfig,
  document: Document,
  summary: ImageSummary | undefined,
): Record<string, unknown> {
  const { run } = config;
  const { healthcheck } = run;
  const history = historyOf(document);
  return {
    Id: image.id,
    RepoTags: summary?.repoTags ?? [],
    RepoDigests: summary?.repoDigests ?? [],
    Parent: "",
    Comment: textOf(document["comment"]) || textOf(history.at(-1)?.["comment"]),
    Created: isoTime(image.createdAtMs),
    DockerVersion: textOf(document["docker_version"]),
    Author: textOf(document["author"]),
    Config: {
      User: run.user,
      ...(run.exposedPorts.length === 0 ? {} : { ExposedPorts: set(run.exposedPorts) }),
      Env: orNull(run.env),
      Cmd: orNull(run.cmd),
      ...(healthcheck === undefined
        ? {}
        : {
            Healthcheck: {
              Test: healthcheck.test,
              Interval: healthcheck.intervalNs,
              Timeout: healthcheck.timeoutNs,
              StartPeriod: healthcheck.startPeriodNs,
              StartInterval: healthcheck.startIntervalNs,
              Retries: healthcheck.retries,
            },
          }),
      Volumes: set(run.volumes),
      WorkingDir: run.workingDir,
      Entrypoint: orNull(run.entrypoint),
      OnBuild: null,
      Labels: Object.keys(run.labels).length === 0 ? null : run.labels,
      ...(run.stopSignal === "" ? {} : { StopSignal: run.stopSignal }),
      ...(run.shell.length === 0 ? {} : { Shell: run.shell }),
    },
    Architecture: config.platform.architecture,
    ...(config.platform.variant === "" ? {} : { Variant: config.platform.variant }),
    Os: config.platform.os,
    Size: summary?.sizeBytes ?? image.layers.reduce((sum, { bytes }) => sum + bytes, 0),
    GraphDriver: { Name: "overlay2", Data: {} },
    RootFS: { Type: "layers", Layers: image.layers.map(({ diffId }) => diffId) },
    Metadata: { LastTagTime: isoTime(image.storedAtMs) },
  };
}

function historyOf(document: Document): Document[] {
  const { history } = document;
  return Array.isArray(history)
    ? history.filter((entry): entry is Document => typeof entry === "object" && entry !== null)
    : [];
}

/** The newest first; steps that made no layer have the size 0. */
export function historyJson(
  image: ImageRecord,
  document: Document,
  tags: readonly string[],
): Record<string, unknown>[] {
  const steps = historyOf(document);
  // An image that nobody told the history of has one step for each layer.
  const told = steps.length > 0 ? steps : image.layers.map((): Document => ({}));
  let layer = 0;
  const rows = told.map((step) => {
    const size = step["empty_layer"] === true ? 0 : (image.layers[layer++]?.bytes ?? 0);
    const created = Date.parse(textOf(step["created"]));
    return {
      Id: "<missing>",
      Created: Number.isNaN(created) ? 0 : Math.floor(created / 1000),
      CreatedBy: textOf(step["created_by"]),
      Tags: null as readonly string[] | null,
      Size: size,
      Comment: textOf(step["comment"]),
    };
  });
  const last = rows.at(-1);
  if (last !== undefined) {
    last.Id = image.id;
    last.Tags = tags.length === 0 ? null : tags;
  }
  return rows.reverse();
}
