/** Routes of exec sessions (Engine API, "Exec"). */
import {
  ContainerNotRunning,
  ContainerStateConflict,
  ExecFailed,
  type ExecConfig,
  type ExecSession,
} from "../../worker/containers/index.ts";
import { sleep } from "../../lib/runtime/index.ts";
import { BadRequest } from "../http/index.ts";
import { empty, json, type Answer, type Call, type LocalRoute } from "./call.ts";
import type { LocalContext } from "./context.ts";
import { detachKeys } from "./container-streams.ts";
import { terminalSize } from "./containers.ts";
import { checkShape, execShape, fields, list } from "./shapes.ts";
import { frame, streamType, talk } from "./streams.ts";

/** The terminal's size often comes before the program runs. */
const resizeTries = 50;
const resizeEveryMs = 20;

export function execRoutes(context: LocalContext): LocalRoute[] {
  const { containers } = context.local;
  /** Detach keys as the session was created with them. */
  const keysOf = new WeakMap<ExecSession, readonly number[]>();
  const named = (call: Call): ExecSession => containers.exec(call.params["id"] ?? "");
  return [
    {
      method: "POST",
      path: "/containers/:id/exec",
      handle: async (call) => {
        const container = containers.get(call.params["id"] ?? "");
        const body = await call.json();
        const command = body["Cmd"];
        const wish = { ...body, Cmd: typeof command === "string" ? [command] : command };
        checkShape(wish, execShape, "ExecConfig");
        const config = wish as unknown as ExecConfig & { readonly DetachKeys?: string };
        if ((config.Cmd ?? []).length === 0) throw new BadRequest("No exec command specified");
        const keys = detachKeys(config.DetachKeys ?? "");
        const session = containers.createExec(container.id, config);
        keysOf.set(session, keys);
        return json({ Id: session.id }, 201);
      },
    },
    {
      method: "POST",
      path: "/exec/:id/start",
      hijacks: true,
      handle: async (call) => {
        const session = named(call);
        return startExec(context, session, keysOf.get(session) ?? [], call);
      },
    },
    {
      method: "POST",
      path: "/exec/:id/resize",
      handle: async (call) => {
        const session = named(call);
        const [rows, columns] = terminalSize(call);
        for (let tries = 1; ; tries++) {
          try {
            await session.container.resizeExec(session, rows, columns);
            return empty(200);
          } catch (error) {
            if (session.status === "exited" || tries >= resizeTries) throw error;
            await sleep(context.clock, resizeEveryMs, call.signal);
          }
        }
      },
    },
    { method: "GET", path: "/exec/:id/json", handle: async (call) => json(execJson(named(call))) },
  ];
}

function execJson(session: ExecSession): object {
  const { config } = session;
  const [entrypoint = "", ...args] = config.Cmd;
  return {
    ID: session.id,
    Running: session.status === "running",
    ExitCode: session.exitCode ?? null,
    ProcessConfig: {
      tty: config.Tty ?? false,
      entrypoint,
      arguments: args,
      privileged: config.Privileged ?? false,
      ...((config.User ?? "") === "" ? {} : { user: config.User }),
    },
    OpenStdin: config.AttachStdin ?? false,
    OpenStderr: config.AttachStderr ?? false,
    OpenStdout: config.AttachStdout ?? false,
    CanRemove: false,
    ContainerID: session.container.id,
    DetachKeys: "",
    Pid: session.pid,
  };
}

async function startExec(
  context: LocalContext,
  session: ExecSession,
  keys: readonly number[],
  call: Call,
): Promise<Answer> {
  const body = await call.json();
  checkShape(body, fields({ Detach: "boolean", Tty: "boolean", ConsoleSize: list("number") }), "ExecStartConfig");
  const { Detach: detach = false, ConsoleSize } = body as { Detach?: boolean; ConsoleSize?: [number, number] | null };
  const { container, config } = session;
  // Said before the connection changes hands; what goes wrong later is told in the stream.
  const { status } = container.record.state;
  if (!container.running) throw new ContainerNotRunning(container.id, "exec in", status);
  if (status === "paused") {
    throw new ContainerStateConflict(container.id, "exec in", "paused, unpause the container before exec");
  }
  if (session.status !== "created") {
    throw new ContainerStateConflict(container.id, "start an exec session in", "not one that can be started again");
  }
  const [rows, columns] = ConsoleSize ?? [0, 0];
  if (detach) {
    await container.startExec(session, { detach: true, rows, columns });
    return empty(200);
  }
  const tty = config.Tty === true;
  return {
    kind: "hijack",
    contentType: streamType(tty, call.minor),
    talk: async (socket) => {
      try {
        const stream = await container.startExec(session, { detach: false, rows, columns });
        const why = await talk(socket, stream, {
          tty,
          stdin: config.AttachStdin === true,
          closesStdin: true,
          detachKeys: keys,
        });
        // The program goes on without its client, and its end is still recorded.
        if (why !== "ended") await stream.drain().catch(() => undefined); // its monitor is gone, and it with it
      } catch (error) {
        if (!(error instanceof ExecFailed)) throw error;
        // The client has its connection already: it reads why, and asks for the exit code.
        context.logger.debug("an exec session did not start", { exec: session.id, error });
        socket.end(frame("stdout", Buffer.from(`${error.message}\r\n`), tty));
      }
    },
  };
}
