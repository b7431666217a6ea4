/** `service logs`: the lines of all tasks of a service, each marked with the task and node that wrote it. */
import { inPath } from "../api/client.ts";
import { frames, write } from "../api/streams.ts";
import type { Service, Task } from "../api/types.ts";
import { CommandError, isNotFound } from "../errors.ts";
import * as flag from "../grammar/flags.ts";
import { shortId } from "../output/human.ts";
import { sinceQuery } from "../output/time.ts";
import type { Session } from "../session.ts";
import { Names } from "./tasks.ts";

export const logFlags = {
  details: flag.bool("Show the attributes of the logging driver too"),
  follow: flag.bool("Go on with new lines", { short: "f" }),
  "no-resolve": flag.bool("Show ids instead of names"),
  "no-task-ids": flag.bool("Leave the tasks' ids out"),
  "no-trunc": flag.noTrunc(),
  raw: flag.bool("Print the lines as they are"),
  since: flag.text('Show lines since a time ("2026-01-02T13:23:37Z") or for so long ("42m")'),
  tail: flag.text("Lines to show from the end", { short: "n", shownDefault: '"all"' }),
  timestamps: flag.bool("Show times", { short: "t" }),
};
type LogValues = flag.Values<typeof logFlags>;

const attributes = {
  node: "com.docker.swarm.node.id",
  service: "com.docker.swarm.service.id",
  task: "com.docker.swarm.task.id",
};

export async function printServiceLogs(session: Session, flags: LogValues, name: string): Promise<void> {
  const api = await session.api();
  const found = await find(session, name);
  const raw = flags.raw === true;
  const query = {
    stdout: 1,
    stderr: 1,
    since: flags.since === undefined ? undefined : sinceQuery(flags.since, Date.now(), "since"),
    timestamps: flags.timestamps === true ? 1 : undefined,
    follow: flags.follow === true ? 1 : undefined,
    tail: flags.tail ?? "all",
    // The marks of a line travel as its attributes.
    details: raw && flags.details !== true ? undefined : 1,
  };
  const signal = session.interrupted;
  const answer = await api.open("GET", found.path, { query, signal });
  if (found.terminal) {
    if (!raw) throw new CommandError("tty service logs only supported with --raw");
    for await (const chunk of answer) await write(session.stdout, chunk as Buffer);
    return;
  }
  const marks = new Marks(session, flags, new Names(api, flags["no-resolve"] === true));
  for await (const { stream, data } of frames(answer)) {
    const to = stream === 2 ? session.stderr : session.stdout;
    await write(to, raw ? data : await marks.marked(data.toString("utf8")));
  }
}

async function find(session: Session, name: string): Promise<{ path: string; terminal: boolean }> {
  const api = await session.api();
  try {
    const { Spec: spec } = await api.get<Service>(`/services/${inPath(name)}`, { query: { insertDefaults: false } });
    return { path: `/services/${inPath(name)}/logs`, terminal: spec.TaskTemplate.ContainerSpec?.TTY === true };
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  try {
    const task = await api.get<Task>(`/tasks/${inPath(name)}`);
    return { path: `/tasks/${inPath(name)}/logs`, terminal: task.Spec.ContainerSpec?.TTY === true };
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new CommandError(`no such task or service: ${name}`);
  }
}

/** Turns the attributes of a line into `service.1.taskid@node    | `. */
class Marks {
  readonly #session: Session;
  readonly #flags: LogValues;
  readonly #names: Names;
  readonly #known = new Map<string, Promise<string>>();
  /** So that the bars stand below each other. */
  #width = 0;
  constructor(session: Session, flags: LogValues, names: Names) {
    this.#session = session;
    this.#flags = flags;
    this.#names = names;
  }

  async marked(line: string): Promise<string> {
    const withTime = this.#flags.timestamps === true;
    const parts = line.split(" ");
    const time = withTime ? `${parts.shift() ?? ""} ` : "";
    const pairs = new Map(
      (parts.shift() ?? "").split(",").map((one): [string, string] => {
        const at = one.indexOf("=");
        return [one.slice(0, at), decodeURIComponent(one.slice(at + 1))];
      }),
    );
    const [node, service, task] = [attributes.node, attributes.service, attributes.task].map((key) => {
      const value = pairs.get(key) ?? "";
      pairs.delete(key);
      return value;
    });
    const mark = await this.#mark(task ?? "", service ?? "", node ?? "");
    this.#width = Math.max(this.#width, mark.length);
    const details = this.#flags.details === true ? `${[...pairs].map(([k, v]) => `${k}=${v}`).join(",")} ` : "";
    return `${time}${mark.padEnd(this.#width)}    | ${details}${parts.join(" ")}`;
  }

  #mark(taskId: string, serviceId: string, nodeId: string): Promise<string> {
    const key = `${taskId}@${nodeId}`;
    let found = this.#known.get(key);
    if (found === undefined) {
      found = this.#makeMark(taskId, serviceId, nodeId);
      this.#known.set(key, found);
    }
    return found;
  }

  async #makeMark(taskId: string, serviceId: string, nodeId: string): Promise<string> {
    const api = await this.#session.api();
    const task = await api.get<Task>(`/tasks/${inPath(taskId)}`).catch(() => undefined);
    const [service, node] = await Promise.all([this.#names.service(serviceId), this.#names.node(nodeId)]);
    const slot = task?.Slot || ((await this.#names.isReplicatedJob(serviceId)) ? 0 : nodeId);
    const id = this.#flags["no-trunc"] === true ? taskId : shortId(taskId);
    return `${service}.${slot}${this.#flags["no-task-ids"] === true ? "" : `.${id}`}@${node}`;
  }
}
