/**
 * Containers by hand, without a cluster: `node worker/debug.ts container VERB ...`. As root.
 *   run [-d] [-i] [-t] [--name N] [-e K=V] [-v S:D] [-m BYTES] [--restart P] [--network M] [--rm] IMAGE [CMD...]
 *   ps · logs [-f] [-t] [--tail N] C · exec [-t] C CMD... · stop C · kill C [SIGNAL] · start C · rm [-f] C
 *   pause C · unpause C · inspect C · stats C · top C · diff C · cp C:PATH (tar on stdout) · wait C
 * Images are directories: $SKEP_DEBUG_DIR/images/NAME/rootfs. Environment: SKEP_DEBUG_DIR (/var/lib/skep-debug),
 * SKEP_RUNTIME (builtin, or the path of runc or crun).
 */
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";

import { createLogger, realClock } from "../lib/runtime/index.ts";
import { Containers, DirectoryRootfs, formatTimeNs, type HostConfig } from "./containers/index.ts";

const base = process.env["SKEP_DEBUG_DIR"] ?? "/var/lib/skep-debug";
const native = join(import.meta.dirname, "..", "native", "build");
const never = new AbortController().signal;
const print = (text: string): void => void process.stdout.write(`${text}\n`);

async function run(containers: Containers, args: string[]): Promise<void> {
  const options = {
    detach: { type: "boolean", short: "d" },
    interactive: { type: "boolean", short: "i" },
    tty: { type: "boolean", short: "t" },
    name: { type: "string" },
    env: { type: "string", short: "e", multiple: true },
    volume: { type: "string", short: "v", multiple: true },
    memory: { type: "string", short: "m" },
    restart: { type: "string" },
    network: { type: "string" },
    rm: { type: "boolean" },
  } as const;
  // The image ends the options: what follows belongs to the container's command.
  const { tokens } = parseArgs({ args, allowPositionals: true, strict: false, tokens: true, options });
  const image = tokens.find(({ kind }) => kind === "positional")?.index ?? args.length;
  const { values } = parseArgs({ args: args.slice(0, image), options });
  const command = args.slice(image + 1);
  const hostConfig: HostConfig = {
    Binds: values.volume ?? [],
    AutoRemove: values.rm === true,
    NetworkMode: values.network ?? "none",
    ...(values.memory === undefined ? {} : { Memory: Number(values.memory) }),
    ...(values.restart === undefined ? {} : { RestartPolicy: { Name: values.restart as "no" } }),
  };
  const container = await containers.create({
    ...(values.name === undefined ? {} : { name: values.name }),
    config: {
      Image: args[image] ?? "",
      Env: values.env ?? [],
      OpenStdin: values.interactive === true,
      StdinOnce: values.interactive === true,
      Tty: values.tty === true,
      ...(command.length > 0 ? { Cmd: command } : {}),
    },
    hostConfig,
  });
  if (values.detach === true) {
    await container.start();
    print(container.id);
    return;
  }
  const attachment = await container.attach({ stdin: values.interactive === true, stdout: true, stderr: true });
  const ended = container.wait("next-exit", never);
  await container.start();
  if (values.interactive === true) {
    void (async () => {
      for await (const chunk of process.stdin) await attachment.write(chunk as Buffer);
      await attachment.closeStdin();
    })();
  }
  for await (const { stream, bytes } of attachment.output()) process[stream].write(bytes);
  process.exitCode = (await ended).code;
  attachment[Symbol.dispose]();
  process.stdin.destroy();
}

async function logs(containers: Containers, args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      follow: { type: "boolean", short: "f" },
      timestamps: { type: "boolean", short: "t" },
      tail: { type: "string", short: "n" },
    },
  });
  const options = { stdout: true, stderr: true, follow: values.follow === true };
  const tail = values.tail === undefined ? {} : { tail: Number(values.tail) };
  for await (const line of containers.get(positionals[0] ?? "").logs({ ...options, ...tail }, never)) {
    const time = values.timestamps === true ? `${formatTimeNs(line.timeNs)} ` : "";
    process[line.stream === "stderr" ? "stderr" : "stdout"].write(Buffer.concat([Buffer.from(time), line.text]));
  }
}

async function exec(containers: Containers, args: string[]): Promise<void> {
  const tty = args[0] === "-t";
  const [reference = "", ...command] = tty ? args.slice(1) : args;
  const container = containers.get(reference);
  const session = containers.createExec(reference, { Cmd: command, AttachStdout: true, AttachStderr: true, Tty: tty });
  const stream = await container.startExec(session, { detach: false });
  for await (const chunk of stream.output()) process[chunk.stream].write(chunk.bytes);
  process.exitCode = await stream.exit;
}

async function act(containers: Containers, verb: string, args: string[]): Promise<void> {
  const [reference = "", ...rest] = args;
  switch (verb) {
    case "run":
      return run(containers, args);
    case "logs":
      return logs(containers, args);
    case "exec":
      return exec(containers, args);
    case "ps":
      for (const { id, record } of containers.list()) {
        print([id.slice(0, 12), record.name, record.state.status, record.state.exit?.code ?? ""].join("\t"));
      }
      return;
    case "start":
      return void (await containers.get(reference).start());
    case "stop":
      return void (await containers.get(reference).stop());
    case "kill":
      return containers.get(reference).kill(rest[0] ?? "KILL");
    case "pause":
      return containers.get(reference).pause();
    case "unpause":
      return containers.get(reference).unpause();
    case "rm":
      return reference === "-f"
        ? containers.get(rest[0] ?? "").remove({ force: true, volumes: true })
        : containers.get(reference).remove({});
    case "inspect":
      return print(JSON.stringify(containers.get(reference).record, undefined, 2));
    case "stats":
      return print(JSON.stringify(await containers.get(reference).stats(), undefined, 2));
    case "top": {
      const { titles, processes } = await containers.get(reference).top();
      return print([titles, ...processes].map((fields) => fields.join("\t")).join("\n"));
    }
    case "diff":
      for (const { kind, path } of await containers.get(reference).changes()) print(`${"CAD"[kind]} ${path}`);
      return;
    case "cp": {
      const [container = "", path = ""] = reference.split(":", 2);
      const copy = await containers.get(container).copyOut(path);
      await pipeline(copy.stdout, process.stdout, { end: false });
      await copy.done;
      return;
    }
    case "wait":
      return print(String((await containers.get(reference).wait("not-running", never)).code));
    default:
      throw new Error(`unknown verb "${verb}"; see the head of worker/debug.ts`);
  }
}

const [room, verb = "", ...args] = process.argv.slice(2);
if (room !== "container" || verb === "" || verb === "--help") {
  process.stderr.write(
    "usage: node worker/debug.ts container run|ps|logs|exec|stop|kill|start|rm|pause|unpause|inspect|stats|top|diff|cp|wait ...\n",
  );
  process.exit(2);
}
const containers = await Containers.open({
  dataDirectory: join(base, "data"),
  runDirectory: join(base, "run"),
  programs: {
    isolate: join(native, "isolate"),
    archive: join(native, "archive"),
    runtime: process.env["SKEP_RUNTIME"] ?? "builtin",
    init: join(native, "init"),
  },
  cgroupParent: "/skep-debug",
  rootfs: new DirectoryRootfs(join(base, "images"), join(native, "archive")),
  clock: realClock,
  logger: createLogger({ level: "warn" }),
  defaultStopSeconds: 10,
  restartAtBoot: false,
});
try {
  await act(containers, verb, args);
} finally {
  await containers[Symbol.asyncDispose]();
}
