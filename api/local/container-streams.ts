/** Routes of containers that go on for a while: attach, logs, stats, wait, and archives. */
import { sleep } from "../../lib/runtime/index.ts";
import { formatTimeNs, type Container, type ContainerStats } from "../../worker/containers/index.ts";
import { BadRequest, formatJson } from "../http/index.ts";
import { empty, json, type Answer, type Call, type Out, type LocalRoute } from "./call.ts";
import type { LocalContext } from "./context.ts";
import { readImageChanges } from "./core/image-changes.ts";
import { isoTime, labelsOf } from "./core/container-json.ts";
import { parseDetachKeys } from "./core/detach-keys.ts";
import { goFileMode } from "./core/file-mode.ts";
import { checkShape, containerConfigFields, fields } from "./shapes.ts";
import { frame, streamType, talk } from "./streams.ts";

const statsEveryMs = 1000;
const isTty = (container: Container): boolean => container.record.config.Tty === true;

export function containerStreamRoutes(context: LocalContext): LocalRoute[] {
  const { containers } = context.local;
  const act =
    (work: (container: Container, call: Call) => Promise<Answer>) =>
    async (call: Call): Promise<Answer> =>
      work(containers.get(call.params["id"] ?? ""), call);
  return [
    { method: "POST", path: "/containers/:id/attach", hijacks: true, handle: act(attach) },
    { method: "GET", path: "/containers/:id/logs", handle: act(logs) },
    {
      method: "GET",
      path: "/containers/:id/stats",
      handle: act((container, call) => stats(context, container, call)),
    },
    { method: "POST", path: "/containers/:id/wait", handle: act(wait) },
    { method: "GET", path: "/containers/:id/export", handle: act(exportRoot) },
    { method: "HEAD", path: "/containers/:id/archive", handle: act(statPath) },
    { method: "GET", path: "/containers/:id/archive", handle: act(copyOut) },
    { method: "PUT", path: "/containers/:id/archive", handle: act(copyIn) },
    { method: "POST", path: "/commit", handle: (call) => commit(context, call) },
  ];
}

export function detachKeys(text: string): readonly number[] {
  const keys = parseDetachKeys(text);
  if (keys === undefined) throw new BadRequest("Invalid detach keys provided");
  return keys;
}

async function attach(container: Container, call: Call): Promise<Answer> {
  const { query } = call;
  await call.skipBody();
  const keys = detachKeys(query.text("detachKeys"));
  const { config, state } = container.record;
  if (state.status === "paused")
    throw new BadRequest(`container ${container.id} is paused, unpause it before attaching`);
  const wish = { stdin: query.flag("stdin"), stdout: query.flag("stdout"), stderr: query.flag("stderr") };
  const tty = isTty(container);
  const live = query.flag("stream");
  // Before the answer: whoever hears 101 may start the container the moment after.
  const attachment = live ? await container.attach(wish) : undefined;
  return {
    kind: "hijack",
    contentType: streamType(tty, call.minor),
    talk: async (socket) => {
      try {
        if (query.flag("logs")) {
          const options = { stdout: wish.stdout, stderr: wish.stderr, follow: false };
          for await (const line of container.logs(options, call.signal)) {
            socket.write(frame(line.stream === "stderr" ? "stderr" : "stdout", line.text, tty));
          }
        }
        if (attachment === undefined) {
          socket.end();
          return;
        }
        await talk(socket, attachment, {
          tty,
          stdin: wish.stdin && config.OpenStdin === true,
          closesStdin: config.StdinOnce === true && !tty,
          detachKeys: keys,
        });
      } finally {
        attachment?.[Symbol.dispose]();
      }
    },
  };
}

async function logs(container: Container, call: Call): Promise<Answer> {
  const { query } = call;
  const [stdout, stderr] = [query.flag("stdout"), query.flag("stderr")];
  if (!stdout && !stderr) throw new BadRequest("Bad parameters: you must choose at least one stream");
  const tailText = query.text("tail");
  const tail = tailText === "" || tailText === "all" ? undefined : query.integer("tail");
  const sinceNs = query.timeNs("since");
  const untilNs = query.timeNs("until") || undefined; // 0 is how some say: none
  const options = {
    stdout,
    stderr,
    follow: query.flag("follow"),
    // As the Engine: a negative number means all of them.
    ...(tail === undefined || tail < 0 ? {} : { tail }),
    ...(sinceNs === undefined ? {} : { sinceNs }),
    ...(untilNs === undefined ? {} : { untilNs }),
  };
  const prefix = linePrefix(container, query.flag("timestamps"), query.flag("details"));
  const lines = container.logs(options, call.signal);
  const tty = isTty(container);
  return {
    kind: "stream",
    status: 200,
    headers: { "content-type": streamType(tty, call.minor) },
    send: async (out) => {
      for await (const { stream, timeNs, text } of lines) {
        const bytes = Buffer.concat([Buffer.from(prefix(timeNs)), text]);
        await out.write(frame(stream === "stderr" ? "stderr" : "stdout", bytes, tty));
      }
    },
  };
}

/** Time, then what the log options `labels` and `env` name. */
function linePrefix(container: Container, timestamps: boolean, details: boolean): (timeNs: bigint) => string {
  const { record } = container;
  const wanted = (key: string): string[] =>
    (record.hostConfig.LogConfig?.Config?.[key] ?? "").split(",").filter((name) => name !== "");
  const labels = labelsOf(record);
  const env = new Map(
    (record.config.Env ?? []).map((text) => {
      const at = text.indexOf("=");
      return [text.slice(0, Math.max(0, at)), text.slice(at + 1)];
    }),
  );
  const attributes = [
    ...wanted("labels").flatMap((name) => (labels[name] === undefined ? [] : [`${name}=${labels[name]}`])),
    ...wanted("env").flatMap((name) => (env.has(name) ? [`${name}=${env.get(name) ?? ""}`] : [])),
  ].sort();
  const shown = details ? `${attributes.join(",")} ` : "";
  return (timeNs) => `${timestamps ? `${formatTimeNs(timeNs)} ` : ""}${shown}`;
}

async function stats(context: LocalContext, container: Container, call: Call): Promise<Answer> {
  const { query } = call;
  const stream = query.flag("stream", true);
  const oneShot = query.flag("one-shot");
  if (stream && oneShot) throw new BadRequest("cannot have stream=true and one-shot=true");
  const sample = async (before: ContainerStats | undefined): Promise<[object, ContainerStats | undefined]> => {
    const now = await container.stats();
    return [statsJson(container, now, before), now];
  };
  if (oneShot) return json((await sample(undefined))[0]);
  if (!stream) {
    const before = await container.stats();
    // Twice, a second apart: a share of the processor is a difference.
    if (before !== undefined) await sleep(context.clock, statsEveryMs, call.signal);
    return json((await sample(before))[0]);
  }
  const send = async (out: Out): Promise<void> => {
    let before: ContainerStats | undefined;
    const gone = new AbortController();
    void container.wait("removed", call.signal).then(
      () => gone.abort(),
      () => undefined, // the client is gone
    );
    while (!gone.signal.aborted) {
      const [body, now] = await sample(before);
      await out.write(`${formatJson(body)}\n`);
      before = now;
      await sleep(context.clock, statsEveryMs, call.signal);
    }
  };
  return { kind: "stream", status: 200, headers: { "content-type": "application/json" }, send };
}

const noCpu = {
  cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
  throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
};
const noTime = "0001-01-01T00:00:00Z";

function statsJson(container: Container, now: ContainerStats | undefined, before: ContainerStats | undefined): object {
  const { record } = container;
  const common = { name: `/${record.name}`, id: record.id };
  if (now === undefined) {
    const nothing = { pids_stats: {}, blkio_stats: {}, num_procs: 0, storage_stats: {}, memory_stats: {} };
    return { read: noTime, preread: noTime, ...nothing, cpu_stats: noCpu, precpu_stats: noCpu, ...common };
  }
  const { networks, ...rest } = now;
  return {
    ...rest,
    preread: before?.read ?? noTime,
    precpu_stats: before?.cpu_stats ?? noCpu,
    ...common,
    ...(Object.keys(networks).length > 0 ? { networks } : {}),
  };
}

async function wait(container: Container, call: Call): Promise<Answer> {
  const condition = call.query.text("condition") || "not-running";
  if (condition !== "not-running" && condition !== "next-exit" && condition !== "removed") {
    throw new BadRequest(`invalid condition: "${condition.slice(0, 64)}"`);
  }
  // Begun before the headers leave: a client that has them may start the container at once.
  const ended = container.wait(condition, call.signal);
  ended.catch(() => undefined); // awaited below, when the headers are out
  return {
    kind: "stream",
    status: 200,
    headers: { "content-type": "application/json" },
    send: async (out) => {
      const { code } = await ended;
      await out.write(`${formatJson({ StatusCode: code, Error: null })}\n`);
    },
  };
}

function pathOf(call: Call): string {
  const path = call.query.text("path");
  if (path === "") throw new BadRequest("bad parameter: path cannot be empty");
  return path;
}

async function pathStatHeader(container: Container, path: string): Promise<Record<string, string>> {
  const { name, size, mode, mtime, linkTarget } = await container.statPath(path);
  const stat = { name, size, mode: goFileMode(mode), mtime: isoTime(Number(mtime) * 1000), linkTarget };
  return { "x-docker-container-path-stat": Buffer.from(JSON.stringify(stat)).toString("base64") };
}

async function statPath(container: Container, call: Call): Promise<Answer> {
  return { kind: "empty", status: 200, headers: await pathStatHeader(container, pathOf(call)) };
}

async function copyOut(container: Container, call: Call): Promise<Answer> {
  const path = pathOf(call);
  const headers = await pathStatHeader(container, path);
  return tarAnswer(await container.copyOut(path), headers);
}

async function exportRoot(container: Container): Promise<Answer> {
  return tarAnswer(await container.export(), {});
}

/** A tar as it is made. One that breaks off breaks the connection, so that nobody takes half of it for all. */
function tarAnswer(
  program: { readonly stdout: AsyncIterable<Uint8Array>; readonly done: Promise<void>; kill(): void },
  headers: Record<string, string>,
): Answer {
  program.done.catch(() => undefined); // the stream tells it, too
  return {
    kind: "stream",
    status: 200,
    headers: { "content-type": "application/x-tar", ...headers },
    send: async (out) => {
      try {
        for await (const chunk of program.stdout) await out.write(chunk);
      } finally {
        program.kill(); // nothing, when it has ended
      }
    },
  };
}

async function copyIn(container: Container, call: Call): Promise<Answer> {
  await container.copyIn(pathOf(call), call.body);
  return empty(200);
}

async function commit(context: LocalContext, call: Call): Promise<Answer> {
  const { query } = call;
  const container = context.local.containers.get(query.text("container"));
  const body = await call.json();
  checkShape(body, fields(containerConfigFields), "Config");
  const given = Object.fromEntries(
    Object.entries(body).filter(([key, value]) => committed.has(key) && value !== null && value !== ""),
  );
  const { image, config } = container.record;
  const base = {
    Env: [...(image.Env ?? []), ...(config.Env ?? [])],
    Labels: labelsOf(container.record),
    ExposedPorts: { ...image.ExposedPorts, ...config.ExposedPorts },
    Volumes: { ...image.Volumes, ...config.Volumes },
  };
  const reading = readImageChanges(
    query
      .all("changes")
      .flatMap((text) => text.split("\n"))
      .filter((line) => line.trim() !== ""),
    base,
  );
  if (!reading.ok) throw new BadRequest(reading.why);
  const repo = query.text("repo");
  const tag = query.text("tag");
  const id = await container.commit({
    pause: query.flag("pause", true),
    author: query.text("author"),
    comment: query.text("comment"),
    config: { ...given, ...reading.changes },
  });
  if (repo !== "") await context.local.images.tag(id, tag === "" ? repo : `${repo}:${tag}`);
  return json({ Id: id }, 201);
}

/** Of a container's configuration, what belongs to an image's. */
const committed = new Set([
  "User",
  "Env",
  "Cmd",
  "Entrypoint",
  "WorkingDir",
  "Labels",
  "Volumes",
  "StopSignal",
  "Healthcheck",
  "Shell",
  "ExposedPorts",
]);
