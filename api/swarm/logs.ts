/** Output of services and tasks, from all their nodes, in the frames that clients of containers know. */
import { controlMethods } from "../../proto/control-methods.ts";
import type { skep } from "../../proto/index.ts";
import { BadRequest, type Call, type Outgoing, type Route } from "../http/index.ts";
import { ObjectKind, type ControlClient } from "./client.ts";

/** Frames have a content type of their own since then. */
const multiplexedMinor = 42;
const stdout = 1;
/** What the stream itself has to say; the client ends with it as an error. */
const systemError = 3;

export function logRoutes(control: ControlClient): readonly Route[] {
  return [
    {
      method: "GET",
      path: "/services/:id/logs",
      handle: async (call) => {
        const asked = optionsOf(call);
        const { service } = await control.get(ObjectKind.SERVICE, call.params["id"] ?? "", call.signal);
        const tty = service?.spec?.taskTemplate?.containerSpec?.tty ?? false;
        await tell(control, { ...asked.request, services: [service?.id ?? ""] }, { ...asked, tty }, call);
      },
    },
    {
      method: "GET",
      path: "/tasks/:id/logs",
      handle: async (call) => {
        const asked = optionsOf(call);
        const { task } = await control.get(ObjectKind.TASK, call.params["id"] ?? "", call.signal);
        const tty = task?.spec?.containerSpec?.tty ?? false;
        await tell(control, { ...asked.request, tasks: [task?.id ?? ""] }, { ...asked, tty }, call);
      },
    },
  ];
}

interface Form {
  readonly timestamps: boolean;
  readonly details: boolean;
  /** Bytes as they are, without frames. */
  readonly tty: boolean;
}

function optionsOf({ query }: Call): { request: skep.control.ILogsRequest } & Omit<Form, "tty"> {
  const wanted = { stdout: query.bool("stdout"), stderr: query.bool("stderr") };
  if (!wanted.stdout && !wanted.stderr) {
    throw new BadRequest("Bad parameters: you must choose at least one stream", "Ask for stdout=1, stderr=1 or both");
  }
  const tail = tailOf(query.text("tail"));
  const since = timeOf(query.text("since"), "since");
  const until = timeOf(query.text("until"), "until");
  return {
    timestamps: query.bool("timestamps"),
    details: query.bool("details"),
    request: {
      ...wanted,
      follow: query.bool("follow"),
      ...(tail === undefined ? {} : { tail }),
      ...(since === undefined ? {} : { since }),
      ...(until === undefined ? {} : { until }),
    },
  };
}

/** Undefined: all of them. */
function tailOf(text: string): number | undefined {
  if (text === "" || text === "all") return undefined;
  if (/^-\d{1,15}$/.test(text)) throw new BadRequest("negative tail values not supported");
  if (!/^\d{1,15}$/.test(text)) throw new BadRequest('tail value must be a positive integer or "all"');
  return Number(text);
}

/** Seconds since 1970 with a fraction, or RFC 3339. */
function timeOf(text: string, name: string): skep.objects.Duration.$Properties | undefined {
  if (text === "" || text === "0") return undefined;
  const parts = /^(\d{1,12})(?:\.(\d{1,9}))?$/.exec(text);
  if (parts !== null) return { seconds: Number(parts[1]), nanos: Number((parts[2] ?? "").padEnd(9, "0")) };
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new BadRequest(`invalid value for "${name}": ${JSON.stringify(text.slice(0, 64))}`);
  return { seconds: Math.floor(ms / 1000), nanos: (((ms % 1000) + 1000) % 1000) * 1e6 };
}

/** Reads no faster than the client takes. */
async function tell(control: ControlClient, request: skep.control.ILogsRequest, form: Form, call: Call): Promise<void> {
  const channel = control.channel();
  const mode = call.minor >= multiplexedMinor && !form.tty ? "multiplexed-stream" : "raw-stream";
  const out = call.stream(200, { "content-type": `application/vnd.docker.${mode}` });
  const warnings = new Set<string>();
  await new Promise<void>((resolve, reject) => {
    const stream = channel.open(controlMethods.logs, {
      message: ({ lines, warnings: missing }) => {
        for (const warning of missing ?? []) warnings.add(warning);
        if ((lines ?? []).length === 0) return;
        stream.pause();
        write(out, lines ?? [], form).then(
          () => stream.resume(),
          () => stream.abort(undefined),
        );
      },
      closed: (error) => {
        call.signal.removeEventListener("abort", leave);
        if (error !== undefined) warnings.add(error.message);
        resolve();
      },
    });
    const leave = (): void => {
      stream.abort(undefined);
      reject(call.signal.reason as Error);
    };
    call.signal.addEventListener("abort", leave, { once: true });
    stream.write(request);
  });
  if (warnings.size > 0) await warn(out, [...warnings], form);
  out.end();
}

async function write(out: Outgoing, lines: readonly skep.control.ILogLine[], form: Form): Promise<void> {
  const parts: Uint8Array[] = [];
  for (const line of lines) {
    const text = Buffer.concat([Buffer.from(prefixOf(line, form)), line.text ?? new Uint8Array(0)]);
    if (!form.tty) parts.push(frameHead(line.stream ?? stdout, text.length));
    parts.push(text);
  }
  await out.write(Buffer.concat(parts));
}

/** Swarm's words: what could be read has been told, and the client hears that it is not all. */
async function warn(out: Outgoing, warnings: readonly string[], { tty }: Form): Promise<void> {
  const text = Buffer.from(
    `warning: incomplete log stream. some logs could not be retrieved for the following reasons: ${warnings.join(", ")}\n`,
  );
  await out.write(tty ? text : Buffer.concat([frameHead(systemError, text.length), text]));
}

function frameHead(stream: number, length: number): Uint8Array {
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(length, 4);
  return head;
}

function prefixOf({ time, nodeId, serviceId, taskId }: skep.control.ILogLine, form: Form): string {
  const at = form.timestamps ? `${timestampOf(time)} ` : "";
  const labels = `com.docker.swarm.node.id=${nodeId ?? ""},com.docker.swarm.service.id=${serviceId ?? ""},com.docker.swarm.task.id=${taskId ?? ""} `;
  return form.details ? `${at}${labels}` : at;
}

/** RFC 3339 with nine digits, always. */
function timestampOf(time: skep.objects.Duration.$Properties | null | undefined): string {
  const date = new Date((time?.seconds ?? 0) * 1000).toISOString().slice(0, 19);
  return `${date}.${String(time?.nanos ?? 0).padStart(9, "0")}Z`;
}
