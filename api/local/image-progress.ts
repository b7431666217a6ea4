/** Pull and push as they go: JSON lines that clients draw bars from. */
import { BoundedQueue } from "../../lib/runtime/index.ts";
import {
  familiarReference,
  parseReference,
  type Credentials,
  type Platform,
  type PullProgress,
} from "../../worker/images/index.ts";
import { BadRequest } from "../http/index.ts";
import { lines, type Answer } from "./call.ts";
import type { LocalContext } from "./context.ts";

/** Bars are not drawn more often. */
const barMs = 100;
const linesMax = 10_000;

/** An error after the headers, as the Engine tells it. */
export function failureLine(context: LocalContext, error: unknown): object {
  const message = error instanceof Error ? error.message : String(error);
  context.logger.info("a stream of progress ended with an error", { error });
  return { errorDetail: { message }, error: message };
}

const shortId = (digest: string): string => digest.slice("sha256:".length, "sha256:".length + 12);

/**
 * Runs `work` and sends what it tells. What goes wrong before the first line becomes the answer's status, later a last line.
 */
async function progressAnswer(
  context: LocalContext,
  signal: AbortSignal,
  work: (tell: (line: object) => void, signal: AbortSignal) => Promise<void>,
): Promise<Answer> {
  const queue = new BoundedQueue<object>({ name: "progress", itemsMax: linesMax });
  const first = Promise.withResolvers<void>();
  const tell = (line: object): void => {
    if (!queue.closed) queue.offer(line); // of a client that does not read, lines are dropped
    first.resolve();
  };
  const done = work(tell, signal);
  done.then(
    () => {
      first.resolve();
      queue.close();
    },
    (error: unknown) => {
      first.reject(error);
      queue.close(error);
    },
  );
  await first.promise;
  return lines(async (line) => {
    try {
      for await (const told of queue.drain(signal)) await line(told);
    } catch (error) {
      if (signal.aborted) throw error;
      await line(failureLine(context, error));
    }
  });
}

/** "linux/arm64/v8"; empty: this node's. */
export function platformOf(text: string): Platform | undefined {
  if (text === "") return undefined;
  const [os = "", architecture = "", variant = "", ...more] = text.split("/");
  if (more.length > 0 || os === "" || architecture === "")
    throw new BadRequest(`"${text.slice(0, 64)}" is an invalid platform`);
  return { os, architecture, variant };
}

export function pullAnswer(
  context: LocalContext,
  text: string,
  platformText: string,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<Answer> {
  const reference = parseReference(text);
  const platform = platformOf(platformText);
  const name = familiarReference(reference);
  return progressAnswer(context, signal, async (tell) => {
    let begun = false;
    const bars = new Map<string, number>();
    const begin = (): void => {
      if (begun) return;
      begun = true;
      tell({ status: `Pulling from ${reference.repository}`, id: reference.tag ?? reference.digest ?? "latest" });
    };
    const result = await context.local.images.pull(text, {
      ...(credentials === undefined ? {} : { credentials }),
      ...(platform === undefined ? {} : { platform }),
      signal,
      onProgress: (progress) => {
        begin();
        const line = layerLine(progress, bars, context.clock.monotonicMs());
        if (line !== undefined) tell(line);
      },
    });
    begin();
    tell({ status: `Digest: ${result.digest}` });
    tell({
      status: result.changed ? `Status: Downloaded newer image for ${name}` : `Status: Image is up to date for ${name}`,
    });
  });
}

function layerLine(progress: PullProgress, bars: Map<string, number>, nowMs: number): object | undefined {
  const { digest, phase, bytesDone, bytesTotal } = progress;
  const id = shortId(digest);
  switch (phase) {
    case "exists":
      return { status: "Already exists", progressDetail: {}, id };
    case "waiting":
      return { status: "Pulling fs layer", progressDetail: {}, id };
    case "download":
      if (nowMs - (bars.get(digest) ?? -Infinity) < barMs && bytesDone < bytesTotal) return undefined;
      bars.set(digest, nowMs);
      return { status: "Downloading", progressDetail: { current: bytesDone, total: bytesTotal }, id };
    case "verified":
      return { status: "Download complete", progressDetail: {}, id };
    case "unpack":
      return { status: "Extracting", progressDetail: { current: bytesTotal, total: bytesTotal }, id };
    case "done":
      return { status: "Pull complete", progressDetail: {}, id };
  }
}

export function pushAnswer(
  context: LocalContext,
  text: string,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<Answer> {
  const reference = parseReference(text);
  return progressAnswer(context, signal, async (tell) => {
    const { registry, repository, tag = "latest" } = reference;
    tell({ status: `The push refers to repository [${registry}/${repository}]` });
    const { digest, size } = await context.local.images.push(text, {
      ...(credentials === undefined ? {} : { credentials }),
      signal,
      onProgress: ({ digest: layer, phase }) => {
        const status = { compress: "Preparing", exists: "Layer already exists", upload: "Pushing", done: "Pushed" }[
          phase
        ];
        tell({ status, progressDetail: {}, id: shortId(layer) });
      },
    });
    tell({ status: `${tag}: digest: ${digest} size: ${size}` });
    tell({ progressDetail: {}, aux: { Tag: tag, Digest: digest, Size: size } });
  });
}
