/** `skep system`, `info`, `version` and `events`: the daemon itself. */
import { filtersQuery } from "./api/client.ts";
import { stringifyJson } from "./api/json.ts";
import { jsonLines } from "./api/streams.ts";
import { command, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { imageRows } from "./image.ts";
import { confirm, forceFlag } from "./output/each.ts";
import { decimalSize, humanDuration, shorten, shortId } from "./output/human.ts";
import { printList, printObjects, unescape } from "./output/list.ts";
import { compileTemplate } from "./output/template.ts";
import { sinceQuery } from "./output/time.ts";
import type { Session } from "./session.ts";
import { clientFacts } from "./system/client-facts.ts";
import { infoText, type FullInfo } from "./system/info-text.ts";

export const info = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { format: flag.text("Print through a Go template, or 'json'", { short: "f" }) },
  async run(session, flags) {
    const api = await session.api();
    const info = await api.get<FullInfo>("/info");
    if (flags.format !== undefined) {
      printObjects(session, [{ ...info, ClientInfo: clientFacts(session, api.version) }], flags.format);
      return;
    }
    session.stdout.write(infoText(info, clientFacts(session, api.version)));
    for (const warning of info.Warnings ?? []) session.warn(warning);
  },
});

interface ServerVersion {
  readonly Version?: string;
  readonly ApiVersion?: string;
  readonly MinAPIVersion?: string;
  readonly GoVersion?: string;
  readonly GitCommit?: string;
  readonly Os?: string;
  readonly Arch?: string;
  readonly BuildTime?: string;
  readonly Experimental?: boolean;
  readonly Platform?: { readonly Name?: string };
  readonly Components?:
    | readonly {
        readonly Name: string;
        readonly Version: string;
        readonly Details?: Readonly<Record<string, string>> | null;
      }[]
    | null;
}

export const version = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { format: flag.text("Print through a Go template, or 'json'", { short: "f" }) },
  async run(session, flags) {
    const api = await session.api();
    const server = await api.get<ServerVersion>("/version");
    const client = clientFacts(session, api.version);
    if (flags.format !== undefined) {
      printObjects(session, [{ Client: client, Server: server }], flags.format);
      return;
    }
    const line = (title: string, value: string, indent = " "): string => `${`${indent}${title}:`.padEnd(20)}${value}`;
    const lines = [
      "Client:",
      line("Version", client.Version),
      line("API version", client.ApiVersion),
      line("Node.js", client.NodeVersion),
      line("OS/Arch", `${client.Os}/${client.Arch}`),
      line("Context", client.Context),
      "",
      `Server:${server.Platform?.Name ? ` ${server.Platform.Name}` : ""}`,
      ...componentsOf(server).flatMap(({ Name, Version, Details: details }) => [
        ` ${Name}:`,
        line("Version", apiOf(Name, Version), "  "),
        ...(details?.["ApiVersion"] === undefined
          ? []
          : [
              line("API version", `${details["ApiVersion"]} (minimum version ${details["MinAPIVersion"] ?? ""})`, "  "),
            ]),
        ...(details?.["GoVersion"] ? [line("Go version", details["GoVersion"], "  ")] : []),
        ...(details?.["GitCommit"] === undefined
          ? []
          : [line(details["ApiVersion"] === undefined ? "GitCommit" : "Git commit", details["GitCommit"], "  ")]),
        ...(details?.["Os"] ? [line("OS/Arch", `${details["Os"]}/${details["Arch"] ?? ""}`, "  ")] : []),
        ...(details?.["Experimental"] ? [line("Experimental", details["Experimental"], "  ")] : []),
      ]),
    ];
    session.print(lines.join("\n"));
  },
});

const apiOf = (_name: string, version: string): string => version;

function componentsOf(server: ServerVersion): NonNullable<ServerVersion["Components"]> {
  if (server.Components?.length) return server.Components;
  const details = {
    ApiVersion: server.ApiVersion ?? "",
    MinAPIVersion: server.MinAPIVersion ?? "",
    GitCommit: server.GitCommit ?? "",
    Os: server.Os ?? "",
    Arch: server.Arch ?? "",
    Experimental: String(server.Experimental ?? false),
  };
  return [{ Name: "Engine", Version: server.Version ?? "", Details: details }];
}

interface EngineEvent {
  readonly Type?: string;
  readonly Action?: string;
  readonly Actor?: { readonly ID?: string; readonly Attributes?: Readonly<Record<string, string>> };
  readonly scope?: string;
  readonly time?: number;
  readonly timeNano?: number | bigint;
}

export const events = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    filter: flag.filters(),
    format: flag.text("Print each event through a Go template, or 'json'"),
    since: flag.text("Show events since a time, or for so long"),
    until: flag.text("Stop at a time"),
  },
  async run(session, flags) {
    const api = await session.api();
    const nowMs = Date.now();
    const template = eventTemplate(flags.format);
    const answer = await api.open("GET", "/events", {
      query: {
        since: flags.since === undefined ? undefined : sinceQuery(flags.since, nowMs),
        until: flags.until === undefined ? undefined : sinceQuery(flags.until, nowMs),
        filters: filtersQuery(flags.filter),
      },
      signal: session.interrupted,
    });
    for await (const event of jsonLines<EngineEvent>(answer)) session.print(template(event));
  },
});

function eventTemplate(format: string | undefined): (event: EngineEvent) => string {
  if (format === "json") return (event) => stringifyJson(event);
  if (format !== undefined && format !== "") return compileTemplate(unescape(format));
  return ({ Type = "", Action = "", Actor, time = 0, timeNano }) => {
    const attributes = Object.entries(Actor?.Attributes ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1));
    const shown = attributes.length === 0 ? "" : ` (${attributes.map(([key, value]) => `${key}=${value}`).join(", ")})`;
    return `${eventTime(timeNano ?? BigInt(time) * 1_000_000_000n)} ${Type} ${Action} ${Actor?.ID ?? ""}${shown}`;
  };
}

/** RFC 3339 with nanoseconds, in this machine's zone. @param ns since 1970 */
function eventTime(ns: number | bigint): string {
  const whole = BigInt(ns);
  const time = new Date(Number(whole / 1_000_000n));
  const two = (part: number): string => String(part).padStart(2, "0");
  const offset = -time.getTimezoneOffset();
  const zone =
    offset === 0
      ? "Z"
      : `${offset < 0 ? "-" : "+"}${two(Math.trunc(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  const date = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return `${date}T${clock}.${String(whole % 1_000_000_000n).padStart(9, "0")}${zone}`;
}

interface DiskUsage {
  readonly LayersSize?: number;
  readonly Images?: Parameters<typeof imageRows>[0] | null;
  readonly Containers?:
    | readonly {
        readonly Id: string;
        readonly Names: readonly string[];
        readonly Image: string;
        readonly Command: string;
        readonly Created: number;
        readonly SizeRw?: number;
        readonly State: string;
        readonly Status: string;
        readonly Mounts?: readonly { readonly Type?: string }[] | null;
      }[]
    | null;
  readonly Volumes?:
    | readonly {
        readonly Name: string;
        readonly UsageData?: { readonly Size: number; readonly RefCount: number } | null;
      }[]
    | null;
  readonly BuildCache?:
    readonly { readonly Size?: number; readonly InUse?: boolean; readonly Shared?: boolean }[] | null;
}

interface UsageRow {
  readonly type: string;
  readonly total: number;
  readonly active: number;
  readonly size: number;
  readonly reclaimable: number;
}

export const df = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { format: flag.format(), verbose: flag.bool("Show each object", { short: "v" }) },
  async run(session, flags) {
    const api = await session.api();
    const usage = await api.get<DiskUsage>("/system/df");
    if (flags.verbose === true) {
      printVerbose(session, usage, flags.format);
      return;
    }
    printList(session, summary(usage), {
      columns: {
        Type: ["TYPE", ({ type }) => type],
        TotalCount: ["TOTAL", ({ total }) => String(total)],
        Active: ["ACTIVE", ({ active }) => String(active)],
        Size: ["SIZE", ({ size }) => decimalSize(size, 4)],
        Reclaimable: ["RECLAIMABLE", shownReclaimable],
      },
      shown: ["Type", "TotalCount", "Active", "Size", "Reclaimable"],
      id: "Type",
      format: flags.format,
    });
  },
});

function shownReclaimable({ type, size, reclaimable }: UsageRow): string {
  const text = decimalSize(reclaimable, 4);
  if (size <= 0 || type === "Build Cache") return text;
  return `${text} (${Math.trunc((reclaimable * 100) / size)}%)`;
}

function summary(usage: DiskUsage): UsageRow[] {
  const images = usage.Images ?? [];
  const containers = usage.Containers ?? [];
  const volumes = usage.Volumes ?? [];
  const cache = usage.BuildCache ?? [];
  const sum = (sizes: readonly number[]): number => sizes.reduce((all, one) => all + Math.max(0, one), 0);
  const usedImages = images.filter((image) => (image.Containers ?? 0) > 0);
  const layers = usage.LayersSize ?? 0;
  const usedImageBytes = sum(usedImages.map((image) => image.Size - Math.max(0, image.SharedSize ?? 0)));
  const running = containers.filter((one) => ["running", "paused", "restarting"].includes(one.State));
  const containerBytes = sum(containers.map((one) => one.SizeRw ?? 0));
  const usedVolumes = volumes.filter((volume) => (volume.UsageData?.RefCount ?? 0) > 0);
  const volumeBytes = sum(volumes.map((volume) => volume.UsageData?.Size ?? 0));
  const cacheBytes = sum(cache.map((one) => one.Size ?? 0));
  return [
    {
      type: "Images",
      total: images.length,
      active: usedImages.length,
      size: layers,
      reclaimable: layers - usedImageBytes,
    },
    {
      type: "Containers",
      total: containers.length,
      active: running.length,
      size: containerBytes,
      reclaimable: containerBytes - sum(running.map((one) => one.SizeRw ?? 0)),
    },
    {
      type: "Local Volumes",
      total: volumes.length,
      active: usedVolumes.length,
      size: volumeBytes,
      reclaimable: volumeBytes - sum(usedVolumes.map((volume) => volume.UsageData?.Size ?? 0)),
    },
    {
      type: "Build Cache",
      total: cache.length,
      active: cache.filter((one) => one.InUse).length,
      size: cacheBytes,
      reclaimable: sum(cache.filter((one) => !one.InUse).map((one) => one.Size ?? 0)),
    },
  ];
}

function printVerbose(session: Session, usage: DiskUsage, format: string | undefined): void {
  if (format !== undefined) {
    printObjects(session, [usage], format);
    return;
  }
  const nowMs = Date.now();
  const since = (seconds: number): string => `${humanDuration(nowMs - seconds * 1000)} ago`;
  session.print("Images space usage:\n");
  printList(session, imageRows(usage.Images ?? [], false), {
    columns: {
      Repository: ["REPOSITORY", ({ repository }) => repository],
      Tag: ["TAG", ({ tag }) => tag],
      ID: ["IMAGE ID", ({ image }) => shortId(image.Id)],
      CreatedSince: ["CREATED", ({ image }) => since(image.Created)],
      Size: ["SIZE", ({ image }) => decimalSize(image.Size)],
      SharedSize: ["SHARED SIZE", ({ image }) => decimalSize(Math.max(0, image.SharedSize ?? 0), 4)],
      UniqueSize: ["UNIQUE SIZE", ({ image }) => decimalSize(image.Size - Math.max(0, image.SharedSize ?? 0), 4)],
      Containers: ["CONTAINERS", ({ image }) => String(image.Containers ?? 0)],
    },
    shown: ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"],
    id: "ID",
  });
  session.print("\nContainers space usage:\n");
  printList(session, usage.Containers ?? [], {
    columns: {
      ID: ["CONTAINER ID", ({ Id }) => shortId(Id)],
      Image: ["IMAGE", ({ Image }) => Image],
      Command: ["COMMAND", ({ Command }) => JSON.stringify(shorten(Command, 20))],
      LocalVolumes: [
        "LOCAL VOLUMES",
        ({ Mounts }) => String((Mounts ?? []).filter((one) => one.Type === "volume").length),
      ],
      Size: ["SIZE", ({ SizeRw = 0 }) => decimalSize(SizeRw)],
      RunningFor: ["CREATED", ({ Created }) => since(Created)],
      Status: ["STATUS", ({ Status }) => Status],
      Names: ["NAMES", ({ Names }) => Names.map((name) => name.replace(/^\//, "")).join(",")],
    },
    shown: ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"],
    id: "ID",
  });
  session.print("\nLocal Volumes space usage:\n");
  printList(session, usage.Volumes ?? [], {
    columns: {
      Name: ["VOLUME NAME", ({ Name }) => Name],
      Links: ["LINKS", ({ UsageData }) => String(UsageData?.RefCount ?? 0)],
      Size: ["SIZE", ({ UsageData }) => decimalSize(Math.max(0, UsageData?.Size ?? 0), 4)],
    },
    shown: ["Name", "Links", "Size"],
    id: "Name",
  });
}

export const prune = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    all: flag.bool("Remove every image that no container uses, not only those without a tag", { short: "a" }),
    filter: flag.filters({}),
    force: forceFlag(),
    volumes: flag.bool("Remove anonymous volumes too"),
  },
  async run(session, flags) {
    if (flags.force !== true && !(await confirm(session, pruneWarning(flags.all === true, flags.volumes === true))))
      return;
    const api = await session.api();
    const filters = flags.filter ?? new Map<string, readonly string[]>();
    const query = { filters: filtersQuery(filters) };
    interface Pruned {
      readonly ContainersDeleted?: readonly string[] | null;
      readonly NetworksDeleted?: readonly string[] | null;
      readonly VolumesDeleted?: readonly string[] | null;
      readonly ImagesDeleted?: readonly { readonly Untagged?: string; readonly Deleted?: string }[] | null;
      readonly SpaceReclaimed?: number;
    }
    let bytes = 0;
    const tell = (title: string, lines: readonly string[] | null | undefined): void => {
      if (lines?.length) session.print(`Deleted ${title}:\n${lines.join("\n")}\n`);
    };
    const containers = await api.post<Pruned>("/containers/prune", { query });
    bytes += containers.SpaceReclaimed ?? 0;
    tell("Containers", containers.ContainersDeleted);
    const networks = await api.post<Pruned>("/networks/prune", { query });
    tell("Networks", networks.NetworksDeleted);
    if (flags.volumes === true) {
      const volumes = await api.post<Pruned>("/volumes/prune", { query });
      bytes += volumes.SpaceReclaimed ?? 0;
      tell("Volumes", volumes.VolumesDeleted);
    }
    const imageFilters = new Map([...filters, ["dangling", [String(flags.all !== true)]]]);
    const images = await api.post<Pruned>("/images/prune", { query: { filters: filtersQuery(imageFilters) } });
    bytes += images.SpaceReclaimed ?? 0;
    tell(
      "Images",
      images.ImagesDeleted?.map((one) =>
        one.Deleted === undefined ? `untagged: ${one.Untagged ?? ""}` : `deleted: ${one.Deleted}`,
      ),
    );
    const cache = await api.post<Pruned>("/build/prune", { query });
    bytes += cache.SpaceReclaimed ?? 0;
    session.print(`Total reclaimed space: ${decimalSize(bytes, 4)}`);
  },
});

function pruneWarning(all: boolean, volumes: boolean): string {
  const parts = [
    "all stopped containers",
    "all networks not used by at least one container",
    ...(volumes ? ["all anonymous volumes not used by at least one container"] : []),
    all ? "all images without at least one container associated to them" : "all dangling images",
    "unused build cache",
  ];
  return `WARNING! This will remove:\n${parts.map((part) => `  - ${part}`).join("\n")}\n\nAre you sure you want to continue?`;
}
