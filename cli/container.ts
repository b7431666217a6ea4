/** `skep container`: the containers of the daemon's node. */
import { createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { filtersQuery, inPath } from "./api/client.ts";
import { copyOutput } from "./api/streams.ts";
import type { Labels } from "./api/types.ts";
import { resources, restartPolicy } from "./container/body.ts";
import { resourceFlags } from "./container/flags.ts";
import { CommandError, isNotFound, messageOf } from "./errors.ts";
import { atLeast, between, command, exactly, none, type Command } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { confirm, forceFlag, forEachName, inspectEach, inspectFlags } from "./output/each.ts";
import { decimalSize, humanDuration, shorten, shortId } from "./output/human.ts";
import { normalName } from "./output/image-name.ts";
import { printList } from "./output/list.ts";
import { sinceQuery } from "./output/time.ts";

interface Port {
  readonly IP?: string;
  readonly PrivatePort: number;
  readonly PublicPort?: number;
  readonly Type: string;
}

interface Listed {
  readonly Id: string;
  readonly Names: readonly string[];
  readonly Image: string;
  readonly ImageID?: string;
  readonly Command: string;
  readonly Created: number;
  readonly Ports?: readonly Port[] | null;
  readonly SizeRw?: number;
  readonly SizeRootFs?: number;
  readonly Labels?: Labels | null;
  readonly State: string;
  readonly Status: string;
  readonly Mounts?: readonly { readonly Name?: string; readonly Source?: string }[] | null;
  readonly NetworkSettings?: { readonly Networks?: Readonly<Record<string, unknown>> | null };
}

export const ls = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    all: flag.bool("Show those that do not run, too", { short: "a" }),
    filter: flag.filters(),
    format: flag.format(),
    last: flag.int("Show the last ones created only, of any state", { short: "n", shownDefault: "-1" }),
    latest: flag.bool("Show the one created last only, of any state", { short: "l" }),
    "no-trunc": flag.noTrunc(),
    quiet: flag.quiet(),
    size: flag.bool("Show sizes of files", { short: "s" }),
  },
  async run(session, flags) {
    const api = await session.api();
    const last = flags.latest === true ? 1 : (flags.last ?? -1);
    const withSize = flags.size === true || (flags.format?.includes(".Size") ?? false);
    const containers = await api.get<Listed[] | null>("/containers/json", {
      query: {
        all: flags.all === true ? 1 : undefined,
        limit: last > 0 ? last : undefined,
        size: withSize ? 1 : undefined,
        filters: filtersQuery(flags.filter),
      },
    });
    const long = flags["no-trunc"] === true;
    const nowMs = Date.now();
    printList(session, containers ?? [], {
      columns: {
        ID: ["CONTAINER ID", ({ Id }) => (long ? Id : shortId(Id))],
        Names: ["NAMES", ({ Names }) => shownNames(Names)],
        Image: ["IMAGE", (one) => (one.Image === "" ? "<no image>" : shownImage(one, long))],
        Command: ["COMMAND", ({ Command }) => JSON.stringify(long ? Command : shorten(Command, 20))],
        CreatedAt: ["CREATED AT", ({ Created }) => localTime(Created)],
        RunningFor: ["CREATED", ({ Created }) => `${humanDuration(nowMs - Created * 1000)} ago`],
        Ports: ["PORTS", ({ Ports }) => shownPorts(Ports ?? [])],
        State: ["STATE", ({ State }) => State],
        Status: ["STATUS", ({ Status }) => Status],
        Size: ["SIZE", ({ SizeRw = 0, SizeRootFs = 0 }) => shownSize(SizeRw, SizeRootFs)],
        Labels: [
          "LABELS",
          ({ Labels }) =>
            Object.entries(Labels ?? {})
              .map(([k, v]) => `${k}=${v}`)
              .join(","),
        ],
        Mounts: [
          "MOUNTS",
          ({ Mounts }) => (Mounts ?? []).map(({ Name, Source }) => shownMount(Name || (Source ?? ""), long)).join(","),
        ],
        Networks: ["NETWORKS", ({ NetworkSettings }) => Object.keys(NetworkSettings?.Networks ?? {}).join(",")],
        LocalVolumes: ["LOCAL VOLUMES", ({ Mounts }) => String((Mounts ?? []).filter(({ Name }) => Name).length)],
      },
      shown: [
        "ID",
        "Image",
        "Command",
        "RunningFor",
        "Status",
        "Ports",
        "Names",
        ...(flags.size === true ? ["Size"] : []),
      ],
      id: "ID",
      format: flags.format,
      quiet: flags.quiet,
    });
  },
});

const shownMount = (name: string, long: boolean): string => (long ? name : shorten(name, 15));

/** Without the names that links gave. */
function shownNames(names: readonly string[]): string {
  return names
    .map((name) => name.replace(/^\//, ""))
    .filter((name) => !name.includes("/"))
    .join(",");
}

function shownImage({ Image, ImageID }: Listed, long: boolean): string {
  if (long) return Image;
  const name = Image.replace(/@sha256:[0-9a-f]+$/, "");
  return ImageID !== undefined && (Image === ImageID || ImageID.endsWith(Image)) ? shortId(Image) : name;
}

function shownSize(writable: number, root: number): string {
  return root > 0 ? `${decimalSize(writable)} (virtual ${decimalSize(root)})` : decimalSize(writable);
}

function localTime(seconds: number): string {
  const time = new Date(seconds * 1000);
  const two = (part: number): string => String(part).padStart(2, "0");
  const offset = -time.getTimezoneOffset();
  const zone = `${offset < 0 ? "-" : "+"}${two(Math.trunc(Math.abs(offset) / 60))}${two(Math.abs(offset) % 60)}`;
  const name = Intl.DateTimeFormat("en", { timeZoneName: "short" }).formatToParts(time);
  const short = name.find(({ type }) => type === "timeZoneName")?.value ?? "UTC";
  const date = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return `${date} ${clock} ${zone} ${short}`;
}

/** Ports that follow each other are shown as a range. */
function shownPorts(ports: readonly Port[]): string {
  const sorted = ports.toSorted(
    (a, b) =>
      a.PrivatePort - b.PrivatePort ||
      compare(a.IP ?? "", b.IP ?? "") ||
      (a.PublicPort ?? 0) - (b.PublicPort ?? 0) ||
      compare(a.Type, b.Type),
  );
  const published = sorted.filter((port) => port.PublicPort);
  const exposed = sorted.filter((port) => !port.PublicPort);
  const ranges: { ip: string; type: string; from: number; to: number; publicFrom: number }[] = [];
  for (const { IP = "", Type, PrivatePort, PublicPort = 0 } of [...published, ...exposed]) {
    const open = ranges.findLast((range) => range.ip === IP && range.type === Type && range.to + 1 === PrivatePort);
    const follows =
      open !== undefined &&
      (PublicPort === 0
        ? open.publicFrom === 0
        : open.publicFrom !== 0 && open.publicFrom + (PrivatePort - open.from) === PublicPort);
    if (follows) open.to = PrivatePort;
    else ranges.push({ ip: IP, type: Type, from: PrivatePort, to: PrivatePort, publicFrom: PublicPort });
  }
  const span = (from: number, length: number): string => (length === 0 ? String(from) : `${from}-${from + length}`);
  return ranges
    .map(({ ip, type, from, to, publicFrom }) => {
      const inside = `${span(from, to - from)}/${type}`;
      if (publicFrom === 0) return inside;
      return `${ip === "" ? "" : `${ip.includes(":") ? `[${ip}]` : ip}:`}${span(publicFrom, to - from)}->${inside}`;
    })
    .join(", ");
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export const inspect = command({
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  args: atLeast(1),
  flags: { ...inspectFlags, size: flag.bool("Show sizes of files", { short: "s" }) },
  completes: "containers",
  async run(session, flags, names) {
    const api = await session.api();
    const query = { size: flags.size === true ? 1 : undefined };
    await inspectEach(session, names, flags, (name) => api.get(`/containers/${inPath(name)}/json`, { query }));
  },
});

/** A command that posts something to each container. */
function actOnEach<F extends flag.Flags>(
  act: string,
  flags: F,
  queryOf: (flags: flag.Values<F>) => Record<string, string | number | undefined>,
): Command {
  return command({
    usage: `${Object.keys(flags).length > 0 ? "[OPTIONS] " : ""}CONTAINER [CONTAINER...]`,
    args: atLeast(1),
    flags,
    completes: "containers",
    async run(session, given, names) {
      const api = await session.api();
      const query = queryOf(given);
      await forEachName(session, names, (name) => api.post(`/containers/${inPath(name)}/${act}`, { query }));
    },
  });
}

const stopFlags = {
  signal: flag.text("Signal to send", { short: "s" }),
  timeout: flag.int("Seconds to wait before the container is killed", { short: "t" }),
};
export const stop = actOnEach("stop", { ...stopFlags, time: stopFlags.timeout }, (flags) => ({
  t: flags.timeout ?? flags.time,
  signal: flags.signal,
}));
export const restart = actOnEach("restart", { ...stopFlags, time: stopFlags.timeout }, (flags) => ({
  t: flags.timeout ?? flags.time,
  signal: flags.signal,
}));
export const kill = actOnEach("kill", { signal: stopFlags.signal }, (flags) => ({ signal: flags.signal }));
export const pause = actOnEach("pause", {}, () => ({}));
export const unpause = actOnEach("unpause", {}, () => ({}));

export const rm = command({
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  args: atLeast(1),
  flags: {
    force: flag.bool("Kill it first when it runs", { short: "f" }),
    link: flag.bool("Remove the link of that name", { short: "l" }),
    volumes: flag.bool("Remove its anonymous volumes too", { short: "v" }),
  },
  completes: "containers",
  async run(session, flags, names) {
    const api = await session.api();
    const one = (on: boolean | undefined): number | undefined => (on === true ? 1 : undefined);
    const query = { v: one(flags.volumes), link: one(flags.link), force: one(flags.force) };
    await forEachName(session, names, async (name) => {
      try {
        await api.delete(`/containers/${inPath(name.replace(/^\/+/, ""))}`, query);
        return name;
      } catch (error) {
        if (flags.force !== true || !isNotFound(error)) throw error;
        session.warn(messageOf(error));
        return null;
      }
    });
  },
});

export const rename = command({
  usage: "CONTAINER NEW_NAME",
  args: exactly(2),
  flags: {},
  completes: "containers",
  async run(session, _flags, [name = "", newName = ""]) {
    const api = await session.api();
    try {
      await api.post(`/containers/${inPath(name)}/rename`, { query: { name: newName } });
    } catch (error) {
      throw new CommandError(`${messageOf(error)}\nError: failed to rename container named ${name}`);
    }
  },
});

export const logs = command({
  usage: "[OPTIONS] CONTAINER",
  args: exactly(1),
  flags: {
    details: flag.bool("Show the attributes of the logging driver too"),
    follow: flag.bool("Go on with new lines", { short: "f" }),
    since: flag.text('Show lines since a time ("2026-01-02T13:23:37Z") or for so long ("42m")'),
    tail: flag.text("Lines to show from the end", { short: "n", shownDefault: '"all"' }),
    timestamps: flag.bool("Show times", { short: "t" }),
    until: flag.text("Show lines before a time, or until so long ago"),
  },
  completes: "containers",
  async run(session, flags, [name = ""]) {
    const api = await session.api();
    const container = await api.get<{ Id: string; Config?: { Tty?: boolean } }>(`/containers/${inPath(name)}/json`);
    const one = (on: boolean | undefined): number | undefined => (on === true ? 1 : undefined);
    const time = (text: string | undefined): string | undefined =>
      text === undefined ? undefined : sinceQuery(text, Date.now());
    const answer = await api.open("GET", `/containers/${container.Id}/logs`, {
      query: {
        stdout: 1,
        stderr: 1,
        since: time(flags.since),
        until: time(flags.until),
        timestamps: one(flags.timestamps),
        follow: one(flags.follow),
        tail: flags.tail ?? "all",
        details: one(flags.details),
      },
      signal: session.interrupted,
    });
    await copyOutput(answer, container.Config?.Tty !== true, session);
  },
});

export const top = command({
  usage: "CONTAINER [ps OPTIONS]",
  args: atLeast(1),
  firstArgEndsFlags: true,
  flags: {},
  completes: "containers",
  async run(session, _flags, [name = "", ...psArgs]) {
    const api = await session.api();
    const { Titles, Processes } = await api.get<{ Titles: string[]; Processes: string[][] }>(
      `/containers/${inPath(name)}/top`,
      { query: { ps_args: psArgs.length === 0 ? undefined : psArgs.join(" ") } },
    );
    const widths = [Titles, ...Processes].reduce<number[]>(
      (widths, row) => row.map((cell, at) => Math.max(widths[at] ?? 20, cell.length + 3)),
      [],
    );
    for (const row of [Titles, ...Processes]) {
      session.print(row.map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0))).join(""));
    }
  },
});

export const diff = command({
  usage: "CONTAINER",
  args: exactly(1),
  flags: { format: flag.format() },
  completes: "containers",
  async run(session, flags, [name = ""]) {
    const api = await session.api();
    const changes = await api.get<{ Path: string; Kind: number }[] | null>(`/containers/${inPath(name)}/changes`);
    const letters = ["C", "A", "D"];
    printList(session, changes ?? [], {
      columns: {
        Type: ["CHANGE TYPE", ({ Kind }) => letters[Kind] ?? "?"],
        Path: ["PATH", ({ Path }) => Path],
      },
      shown: ["Type", "Path"],
      id: "Path",
      format: flags.format ?? "{{.Type}} {{.Path}}",
    });
  },
});

export const exportTar = command({
  usage: "[OPTIONS] CONTAINER",
  args: exactly(1),
  flags: { output: flag.text("Write to a file instead of standard output", { short: "o" }) },
  completes: "containers",
  async run(session, flags, [name = ""]) {
    if (flags.output === undefined && session.stdout.isTTY === true) {
      throw new CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    const api = await session.api();
    const answer = await api.open("GET", `/containers/${inPath(name)}/export`, { signal: session.interrupted });
    const to = flags.output === undefined ? session.stdout : createWriteStream(flags.output);
    await pipeline(answer, to, { end: flags.output !== undefined });
  },
});

export const update = command({
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  args: atLeast(1),
  flags: {
    ...resourceFlags,
    restart: flag.text("When to restart: no, on-failure[:N], always, unless-stopped"),
  },
  completes: "containers",
  async run(session, flags, names) {
    if (Object.values(flags).every((value) => value === undefined)) {
      throw new CommandError("you must provide one or more flags when using this command");
    }
    const api = await session.api();
    const body = {
      ...resources(flags),
      CgroupParent: "",
      BlkioWeightDevice: null,
      BlkioDeviceReadBps: null,
      BlkioDeviceWriteBps: null,
      BlkioDeviceReadIOps: null,
      BlkioDeviceWriteIOps: null,
      Devices: null,
      DeviceCgroupRules: null,
      DeviceRequests: null,
      MemorySwappiness: null,
      OomKillDisable: null,
      PidsLimit: flags["pids-limit"] ?? null,
      Ulimits: null,
      RestartPolicy: flags.restart === undefined ? { Name: "", MaximumRetryCount: 0 } : restartPolicy(flags.restart),
    };
    await forEachName(session, names, async (name) => {
      const { Warnings: warnings } = await api.post<{ Warnings?: string[] | null }>(
        `/containers/${inPath(name)}/update`,
        { body },
      );
      for (const warning of warnings ?? []) session.warn(warning);
    });
  },
});

export const commit = command({
  usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
  args: between(1, 2),
  flags: {
    author: flag.text("Author", { short: "a" }),
    change: flag.list("Dockerfile instruction to apply", { short: "c" }),
    message: flag.text("Message of the commit", { short: "m" }),
    pause: flag.bool("Pause the container while it is read", { short: "p", shownDefault: "true" }),
  },
  completes: "containers",
  async run(session, flags, [name = "", image]) {
    const api = await session.api();
    const target = image === undefined ? undefined : normalName(image);
    const { Id } = await api.post<{ Id: string }>("/commit", {
      query: {
        container: name,
        repo: target?.repo,
        tag: target === undefined ? undefined : (target.tag ?? "latest"),
        comment: flags.message,
        author: flags.author,
        changes: flags.change,
        pause: flags.pause === false ? 0 : undefined,
      },
    });
    session.print(Id);
  },
});

export const port = command({
  usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
  args: between(1, 2),
  flags: {},
  completes: "containers",
  async run(session, _flags, [name = "", wanted]) {
    const api = await session.api();
    const container = await api.get<{
      NetworkSettings?: { Ports?: Record<string, { HostIp: string; HostPort: string }[] | null> | null };
    }>(`/containers/${inPath(name)}/json`);
    const key = wanted === undefined ? undefined : wanted.includes("/") ? wanted : `${wanted}/tcp`;
    const ports = Object.entries(container.NetworkSettings?.Ports ?? {}).filter(
      ([port]) => key === undefined || port === key,
    );
    const lines = ports.flatMap(([port, bindings]) =>
      (bindings ?? []).map(({ HostIp: ip, HostPort }) => {
        const host = `${ip.includes(":") ? `[${ip}]` : ip}:${HostPort}`;
        return key === undefined ? `${port} -> ${host}` : host;
      }),
    );
    if (key !== undefined && lines.length === 0) {
      throw new CommandError(`Error: No public port '${key}' published for ${name}`);
    }
    for (const line of lines.toSorted()) session.print(line);
  },
});

export const prune = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { filter: flag.filters({}), force: forceFlag() },
  async run(session, flags) {
    const warning = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?";
    if (flags.force !== true && !(await confirm(session, warning))) return;
    const api = await session.api();
    const { ContainersDeleted: deleted, SpaceReclaimed: bytes = 0 } = await api.post<{
      ContainersDeleted?: string[] | null;
      SpaceReclaimed?: number;
    }>("/containers/prune", { query: { filters: filtersQuery(flags.filter) } });
    if (deleted?.length) session.print(`Deleted Containers:\n${deleted.join("\n")}\n`);
    session.print(`Total reclaimed space: ${decimalSize(bytes, 4)}`);
  },
});
