/** `skep inspect`: whatever bears the name, looked for in the order of the docker CLI. */
import { inPath, type Api } from "./api/client.ts";
import type { Info } from "./api/types.ts";
import { ApiError, CommandError } from "./errors.ts";
import { atLeast, command } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { inspectEach, inspectFlags } from "./output/each.ts";

interface Kind {
  readonly name: string;
  readonly path: (name: string) => string;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  /** Asked of a manager only. */
  readonly swarm?: boolean;
}

function kinds(withSize: boolean): readonly Kind[] {
  const at =
    (base: string, after = "") =>
    (name: string) =>
      `/${base}/${inPath(name)}${after}`;
  return [
    { name: "container", path: at("containers", "/json"), query: { size: withSize ? 1 : undefined } },
    { name: "image", path: at("images", "/json") },
    { name: "network", path: at("networks") },
    { name: "volume", path: at("volumes") },
    { name: "service", path: at("services"), query: { insertDefaults: "true" }, swarm: true },
    { name: "task", path: at("tasks"), swarm: true },
    { name: "node", path: at("nodes"), swarm: true },
    { name: "plugin", path: at("plugins", "/json") },
    { name: "secret", path: at("secrets"), swarm: true },
    { name: "config", path: at("configs"), swarm: true },
  ];
}

export const inspect = command({
  usage: "[OPTIONS] NAME|ID [NAME|ID...]",
  args: atLeast(1),
  flags: {
    ...inspectFlags,
    size: flag.bool("Show sizes of files of containers", { short: "s" }),
    type: flag.text("Look for this kind of object only"),
  },
  completes: "containers",
  async run(session, flags, names) {
    const all = kinds(flags.size === true);
    const wanted = flags.type === undefined ? all : all.filter(({ name }) => name === flags.type);
    if (wanted.length === 0) throw new CommandError(`unknown type: ${JSON.stringify(flags.type)}`);
    const api = await session.api();
    const managed = managesSwarm(api);
    await inspectEach(session, names, flags, (name) => find(api, wanted, managed, name, flags.type));
  },
});

/** Asked once, and only when it matters. */
function managesSwarm(api: Api): () => Promise<boolean> {
  let asked: Promise<boolean> | undefined;
  return () => (asked ??= api.get<Info>("/info").then((info) => info.Swarm?.ControlAvailable === true));
}

async function find(
  api: Api,
  wanted: readonly Kind[],
  managed: () => Promise<boolean>,
  name: string,
  type: string | undefined,
): Promise<unknown> {
  for (const kind of wanted) {
    if (kind.swarm === true && type === undefined && !(await managed())) continue;
    try {
      return await api.get(kind.path(name), { query: kind.query ?? {} });
    } catch (error) {
      // What is not there, or not to be had here, may be of another kind.
      const skips = error instanceof ApiError && (error.status === 404 || (type === undefined && error.status === 501));
      if (!skips) throw error;
    }
  }
  throw new CommandError(`Error: No such ${type ?? "object"}: ${name}`);
}
