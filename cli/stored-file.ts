/** Secrets and configs: files that the swarm keeps for its services. The two differ in a word and in what they show. */
import { createReadStream } from "node:fs";
import { filtersQuery, inPath } from "./api/client.ts";
import type { StoredFile } from "./api/types.ts";
import { CommandError, messageOf } from "./errors.ts";
import { atLeast, between, command, exactly, none, type Command } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { forEachName, inspectEach, prettyFlags } from "./output/each.ts";
import { ago, goTime } from "./output/human.ts";
import { printList } from "./output/list.ts";
import { keyValues } from "./service/read.ts";
import type { Session } from "./session.ts";

type Kind = "secret" | "config";

interface Commands {
  readonly create: Command;
  readonly inspect: Command;
  readonly ls: Command;
  readonly rm: Command;
}

export const secret = commandsOf("secret");
export const config = commandsOf("config");

function commandsOf(kind: Kind): Commands {
  const upper = kind.toUpperCase();
  const completes = `${kind}s` as const;
  const path = (name: string): string => `/${kind}s/${inPath(name)}`;
  return {
    create: command({
      usage: kind === "secret" ? "[OPTIONS] SECRET [file|-]" : "[OPTIONS] CONFIG file|-",
      args: kind === "secret" ? between(1, 2) : exactly(2),
      flags: {
        ...(kind === "secret" ? { driver: flag.text("Driver that keeps the secret", { short: "d" }) } : {}),
        label: flag.list(`Label of the ${kind}`, { short: "l" }),
        "template-driver": flag.text("Driver of templates (golang)"),
      },
      completes: "files",
      async run(session, flags: CreateValues, [name = "", file]) {
        if (file === undefined && flags.driver === undefined) throw new CommandError(`${kind} file is required`);
        const data = file === undefined ? undefined : await readData(session, file, kind);
        const api = await session.api();
        const made = await api.post<{ ID: string }>(`/${kind}s/create`, {
          body: {
            Name: name,
            Labels: keyValues(flags.label ?? []),
            ...(data === undefined ? {} : { Data: data.toString("base64") }),
            ...(flags.driver === undefined ? {} : { Driver: { Name: flags.driver } }),
            ...(flags["template-driver"] === undefined ? {} : { Templating: { Name: flags["template-driver"] } }),
          },
        });
        session.print(made.ID);
      },
    }),
    inspect: command({
      usage: `[OPTIONS] ${upper} [${upper}...]`,
      args: atLeast(1),
      flags: prettyFlags,
      completes,
      async run(session, flags, names) {
        const api = await session.api();
        const read = (name: string): Promise<StoredFile> => api.get<StoredFile>(path(name));
        await inspectEach(session, names, flags, read, (found) => found.map((one) => pretty(one, kind)).join("\n"));
      },
    }),
    ls: command({
      usage: "[OPTIONS]",
      args: none,
      flags: { filter: flag.filters(), format: flag.format(), quiet: flag.quiet() },
      async run(session, flags) {
        const api = await session.api();
        const found = await api.get<StoredFile[] | null>(`/${kind}s`, {
          query: { filters: filtersQuery(flags.filter) },
        });
        printFiles(session, found ?? [], kind, flags);
      },
    }),
    rm: command({
      usage: `${upper} [${upper}...]`,
      args: atLeast(1),
      flags: {},
      completes,
      async run(session, _flags, names) {
        const api = await session.api();
        await forEachName(session, names, (name) => api.delete(path(name)));
      },
    }),
  };
}

interface CreateValues {
  readonly driver?: string | undefined;
  readonly label?: string[] | undefined;
  readonly "template-driver"?: string | undefined;
}

async function readData(session: Session, file: string, kind: Kind): Promise<Buffer> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of file === "-" ? session.stdin : createReadStream(file)) chunks.push(chunk as Buffer);
  } catch (error) {
    throw new CommandError(`Error reading content from ${JSON.stringify(file)}: ${messageOf(error)}`);
  }
  const data = Buffer.concat(chunks);
  if (data.length === 0)
    throw new CommandError(`Error reading content from ${JSON.stringify(file)}: the ${kind} is empty`);
  return data;
}

function printFiles(
  session: Session,
  found: readonly StoredFile[],
  kind: Kind,
  flags: { readonly format?: string | undefined; readonly quiet?: boolean | undefined },
): void {
  const nowMs = Date.now();
  printList(
    session,
    found.toSorted((a, b) => a.Spec.Name.localeCompare(b.Spec.Name, "en", { numeric: true })),
    {
      columns: {
        ID: ["ID", ({ ID }) => ID],
        Name: ["NAME", ({ Spec }) => Spec.Name],
        ...(kind === "secret"
          ? { Driver: ["DRIVER", ({ Spec }: StoredFile) => Spec.Driver?.Name ?? ""] as const }
          : {}),
        CreatedAt: ["CREATED", ({ CreatedAt }) => ago(CreatedAt, nowMs)],
        UpdatedAt: ["UPDATED", ({ UpdatedAt }) => ago(UpdatedAt, nowMs)],
        Labels: [
          "LABELS",
          ({ Spec }) =>
            Object.entries(Spec.Labels ?? {})
              .map(([key, value]) => `${key}=${value}`)
              .join(","),
        ],
      },
      shown:
        kind === "secret"
          ? ["ID", "Name", "Driver", "CreatedAt", "UpdatedAt"]
          : ["ID", "Name", "CreatedAt", "UpdatedAt"],
      id: "ID",
      ...flags,
    },
  );
}

function pretty({ ID, Spec, CreatedAt, UpdatedAt }: StoredFile, kind: Kind): string {
  const sorted = Object.entries(Spec.Labels ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const labels = sorted.map(([key, value]) => ` - ${key}${value === "" ? "" : `=${value}`}`);
  // The two differ in their blanks as well; scripts cut at them.
  const lines =
    kind === "secret"
      ? [
          `ID:              ${ID}`,
          `Name:              ${Spec.Name}`,
          "Labels:",
          ...labels,
          `Driver:            ${Spec.Driver?.Name ?? ""}`,
          `Created at:        ${goTime(CreatedAt)}`,
          `Updated at:        ${goTime(UpdatedAt)}`,
        ]
      : [
          `ID:\t\t\t${ID}`,
          `Name:\t\t\t${Spec.Name}`,
          ...(labels.length === 0 ? [] : ["Labels:", ...labels]),
          `Created at:            \t${goTime(CreatedAt)}`,
          `Updated at:            \t${goTime(UpdatedAt)}`,
          "Data:",
          Buffer.from(Spec.Data ?? "", "base64").toString("utf8"),
        ];
  return `${lines.join("\n")}\n`;
}
