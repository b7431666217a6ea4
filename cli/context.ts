/** `skep context`: daemons by name. */
import type { TlsFiles } from "./api/endpoint.ts";
import { currentContext, listContexts, readContext, removeContext, useContext, writeContext } from "./contexts.ts";
import { CommandError } from "./errors.ts";
import { atLeast, command, exactly, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { forEachName, inspectEach, inspectFlags } from "./output/each.ts";
import { printList } from "./output/list.ts";
import { csv, split } from "./service/read.ts";

interface Given {
  readonly host: string;
  readonly tls?: TlsFiles;
}

/** `host=tcp://HOST:2376,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=false` */
function readEndpoint(text: string): Given {
  const found = new Map(csv(text).map((field) => split(field)));
  const host = found.get("host");
  if (host === undefined) throw new Error("host= is missing");
  const unknown = [...found.keys()].find((key) => !["host", "ca", "cert", "key", "skip-tls-verify"].includes(key));
  if (unknown !== undefined) throw new Error(`unrecognized config key: ${unknown}`);
  const [ca, cert, key] = ["ca", "cert", "key"].map((name) => found.get(name));
  const skip = found.get("skip-tls-verify") === "true";
  if (ca === undefined && cert === undefined && key === undefined && !skip) return { host };
  return {
    host,
    tls: {
      verify: !skip,
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    },
  };
}

const endpointFlag = (help: string): flag.Flag<Given> => flag.one(help, "endpoint", readEndpoint);

export const create = command({
  usage: "[OPTIONS] CONTEXT",
  args: exactly(1),
  flags: {
    description: flag.text("What the context is for"),
    docker: endpointFlag("As --host, for scripts written for docker"),
    endpoint: endpointFlag("The daemon (host=URL,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL)"),
    from: flag.text("Context to copy"),
  },
  run(session, flags, [name = ""]) {
    const given = flags.endpoint ?? flags.docker;
    const from = flags.from === undefined ? undefined : readContext(session.configFolder, flags.from);
    const endpoint = given ?? from;
    if (endpoint === undefined)
      throw new CommandError("endpoint configuration is required: --endpoint host=URL, or --from CONTEXT");
    writeContext(session.configFolder, {
      name,
      description: flags.description ?? from?.description ?? "",
      host: endpoint.host,
      ...(endpoint.tls === undefined ? {} : { tls: endpoint.tls }),
    });
    session.print(name);
    session.warn(`Successfully created context ${JSON.stringify(name)}`);
    return Promise.resolve();
  },
});

export const ls = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { format: flag.format(), quiet: flag.quiet("Print names only") },
  run(session, flags) {
    const current = session.contextFlag ?? currentContext(session.env, session.configFolder);
    printList(session, listContexts(session.configFolder), {
      columns: {
        Name: [
          "NAME",
          ({ name }) => `${name}${name === current && flags.quiet !== true && flags.format === undefined ? " *" : ""}`,
        ],
        Description: ["DESCRIPTION", ({ description }) => description],
        DockerEndpoint: ["ENDPOINT", ({ host }) => host],
        Current: ["CURRENT", ({ name }) => name === current],
      },
      shown: ["Name", "Description", "DockerEndpoint"],
      id: "Name",
      format: flags.format,
      quiet: flags.quiet,
    });
    return Promise.resolve();
  },
});

export const use = command({
  usage: "CONTEXT",
  args: exactly(1),
  flags: {},
  completes: "contexts",
  run(session, _flags, [name = ""]) {
    useContext(session.configFolder, name);
    session.print(name);
    session.warn(`Current context is now ${JSON.stringify(name)}`);
    if (session.env["SKEP_HOST"] || session.env["DOCKER_HOST"]) {
      session.warn(
        `Warning: SKEP_HOST or DOCKER_HOST overrides the active context. To use ${JSON.stringify(name)}, either set the global --context flag, or unset the variable.`,
      );
    }
    return Promise.resolve();
  },
});

export const rm = command({
  usage: "[OPTIONS] CONTEXT [CONTEXT...]",
  args: atLeast(1),
  flags: { force: flag.bool("Remove it even if it is the current one", { short: "f" }) },
  completes: "contexts",
  async run(session, flags, names) {
    const current = currentContext(session.env, session.configFolder);
    await forEachName(session, names, async (name) => {
      if (name === current && flags.force !== true) {
        throw new CommandError(`context ${JSON.stringify(name)} is in use, set -f flag to force remove`);
      }
      removeContext(session.configFolder, name);
      if (name === current) useContext(session.configFolder, "default");
      return Promise.resolve(name);
    });
  },
});

export const inspect = command({
  usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
  args: atLeast(0),
  flags: inspectFlags,
  completes: "contexts",
  async run(session, flags, names) {
    const wanted =
      names.length > 0 ? names : [session.contextFlag ?? currentContext(session.env, session.configFolder)];
    await inspectEach(session, wanted, flags, async (name) => {
      const { description, host, tls } = readContext(session.configFolder, name);
      const endpoint = { Host: host, SkipTLSVerify: tls?.verify === false };
      return Promise.resolve({
        Name: name,
        Metadata: { Description: description },
        Endpoints: { docker: endpoint },
        TLSMaterial:
          tls === undefined ? {} : { docker: [tls.ca, tls.cert, tls.key].filter((file) => file !== undefined) },
      });
    });
  },
});
