/** `exec`: a command in a container that runs. */
import { inPath } from "../api/client.ts";
import { CommandError } from "../errors.ts";
import { atLeast, command } from "../grammar/command.ts";
import * as flag from "../grammar/flags.ts";
import { environment } from "../service/spec.ts";
import { converse, keepSize } from "./terminal.ts";

export const exec = command({
  usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
  args: atLeast(2),
  firstArgEndsFlags: true,
  flags: {
    detach: flag.bool("Run in the background", { short: "d" }),
    "detach-keys": flag.text("Keys that detach from the command"),
    env: flag.list("Environment variable", { short: "e" }),
    "env-file": flag.list("File of environment variables"),
    interactive: flag.bool("Keep standard input open even when not attached", { short: "i" }),
    privileged: flag.bool("Give the command all privileges"),
    tty: flag.bool("Give it a terminal", { short: "t" }),
    user: flag.text('Name or id of the user (format: "<name|uid>[:<group|gid>]")', { short: "u" }),
    workdir: flag.text("Working directory", { short: "w" }),
  },
  completes: "containers",
  async run(session, flags, [name = "", ...words]) {
    const detached = flags.detach === true;
    const tty = flags.tty === true;
    const stdin = flags.interactive === true && !detached;
    if (tty && stdin && session.stdin.isTTY !== true) throw new CommandError("the input device is not a TTY");
    const variables = environment(flags["env-file"] ?? [], flags.env ?? [], session.env);
    const { rows, columns } = session.stdout;
    const size =
      tty && !detached && rows !== undefined && columns !== undefined ? { ConsoleSize: [rows, columns] } : {};
    const api = await session.api();
    // So that a missing container is told as one.
    await api.get(`/containers/${inPath(name)}/json`);
    const { Id: id } = await api.post<{ Id: string }>(`/containers/${inPath(name)}/exec`, {
      body: {
        User: flags.user ?? "",
        Privileged: flags.privileged ?? false,
        Tty: tty,
        ...size,
        AttachStdin: stdin,
        AttachStderr: !detached,
        AttachStdout: !detached,
        Detach: detached,
        DetachKeys: flags["detach-keys"] ?? "",
        Env: variables.length === 0 ? null : variables,
        WorkingDir: flags.workdir ?? "",
        Cmd: words,
      },
    });
    const start = { Detach: detached, Tty: tty, ...size };
    if (detached) {
      await api.post(`/exec/${id}/start`, { body: start });
      return 0;
    }
    const stream = await api.hijack(`/exec/${id}/start`, { body: start });
    const endSize = tty && session.stdout.isTTY === true ? keepSize(session, api, `/exec/${id}`) : undefined;
    try {
      const how = await converse(session, { stream, tty, stdin, detachKeys: flags["detach-keys"] });
      if (how === "detached") return 0;
    } finally {
      endSize?.();
    }
    const { ExitCode: code } = await api.get<{ ExitCode?: number | null }>(`/exec/${id}/json`);
    return code ?? 0;
  },
});
