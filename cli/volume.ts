/** `skep volume`: volumes of the daemon's node. */
import { filtersQuery, inPath } from "./api/client.ts";
import { CommandError } from "./errors.ts";
import { atLeast, between, command, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { confirm, forceFlag, forEachName, inspectEach, inspectFlags } from "./output/each.ts";
import { decimalSize } from "./output/human.ts";
import { printList } from "./output/list.ts";
import { keyValues } from "./service/read.ts";

const notKnown = (): string => "N/A";

interface Volume {
  readonly Name: string;
  readonly Driver: string;
  readonly Mountpoint?: string;
  readonly Scope?: string;
  readonly Labels?: Readonly<Record<string, string>> | null;
}

export const create = command({
  usage: "[OPTIONS] [VOLUME]",
  args: between(0, 1),
  flags: {
    driver: flag.text("Driver of the volume", { short: "d", shownDefault: '"local"' }),
    label: flag.list("Label of the volume"),
    name: flag.text("Name of the volume"),
    opt: flag.list("Option of the driver", { short: "o", type: "map" }),
  },
  async run(session, flags, [given]) {
    if (given !== undefined && flags.name !== undefined) {
      throw new CommandError("conflicting options: either specify --name or provide positional arg, not both");
    }
    const name = given ?? flags.name;
    const api = await session.api();
    const made = await api.post<Volume>("/volumes/create", {
      body: {
        Driver: flags.driver ?? "local",
        ...(flags.opt === undefined ? {} : { DriverOpts: keyValues(flags.opt) }),
        ...(flags.label === undefined ? {} : { Labels: keyValues(flags.label) }),
        ...(name === undefined ? {} : { Name: name }),
      },
    });
    session.print(made.Name);
  },
});

export const ls = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { filter: flag.filters(), format: flag.format(), quiet: flag.quiet("Print names only") },
  async run(session, flags) {
    const api = await session.api();
    const { Volumes: volumes } = await api.get<{ Volumes?: Volume[] | null }>("/volumes", {
      query: { filters: filtersQuery(flags.filter) },
    });
    const sorted = (volumes ?? []).toSorted((a, b) => a.Name.localeCompare(b.Name, "en", { numeric: true }));
    printList(session, sorted, {
      columns: {
        Driver: ["DRIVER", ({ Driver }) => Driver],
        Name: ["VOLUME NAME", ({ Name }) => Name],
        Mountpoint: ["MOUNTPOINT", ({ Mountpoint = "" }) => Mountpoint],
        Scope: ["SCOPE", ({ Scope = "" }) => Scope],
        Labels: [
          "LABELS",
          ({ Labels }) =>
            Object.entries(Labels ?? {})
              .map(([key, value]) => `${key}=${value}`)
              .join(","),
        ],
        // Of other commands' answers, or of volumes of the swarm; there to be named in a template.
        ...Object.fromEntries(
          ["Availability", "Group", "Links", "Size", "Status"].map((name) => [name, [name.toUpperCase(), notKnown]]),
        ),
      },
      shown: ["Driver", "Name"],
      id: "Name",
      format: flags.format,
      quiet: flags.quiet,
    });
  },
});

export const inspect = command({
  usage: "[OPTIONS] VOLUME [VOLUME...]",
  args: atLeast(1),
  flags: inspectFlags,
  completes: "volumes",
  async run(session, flags, names) {
    const api = await session.api();
    await inspectEach(session, names, flags, (name) => api.get(`/volumes/${inPath(name)}`));
  },
});

export const rm = command({
  usage: "[OPTIONS] VOLUME [VOLUME...]",
  args: atLeast(1),
  flags: { force: flag.bool("A volume that is not there is no error", { short: "f" }) },
  completes: "volumes",
  async run(session, flags, names) {
    const api = await session.api();
    const query = { force: flags.force === true ? 1 : undefined };
    await forEachName(session, names, (name) => api.delete(`/volumes/${inPath(name)}`, query));
  },
});

export const prune = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    all: flag.bool("Remove named volumes too, not only anonymous ones", { short: "a" }),
    filter: flag.filters({}),
    force: forceFlag(),
  },
  async run(session, flags) {
    const what = flags.all === true ? "all local volumes" : "anonymous local volumes";
    const warning = `WARNING! This will remove ${what} not used by at least one container.\nAre you sure you want to continue?`;
    if (flags.force !== true && !(await confirm(session, warning))) return;
    const filters = new Map([...(flags.filter ?? []), ...(flags.all === true ? [["all", ["true"]] as const] : [])]);
    const api = await session.api();
    const { VolumesDeleted: deleted, SpaceReclaimed: bytes = 0 } = await api.post<{
      VolumesDeleted?: string[] | null;
      SpaceReclaimed?: number;
    }>("/volumes/prune", { query: { filters: filtersQuery(filters) } });
    if (deleted?.length) session.print(`Deleted Volumes:\n${deleted.join("\n")}\n`);
    session.print(`Total reclaimed space: ${decimalSize(bytes, 4)}`);
  },
});
