/** Routes of volumes (Engine API, "Volume"). */
import { anonymousLabel, type VolumeRecord } from "../../worker/volumes/index.ts";
import { NotOffered } from "../http/index.ts";
import { empty, json, type LocalRoute } from "./call.ts";
import type { LocalContext } from "./context.ts";
import { isoTime } from "./core/container-json.ts";
import { checkShape, fields, map } from "./shapes.ts";

const filterKeys = ["dangling", "driver", "label", "label!", "name"] as const;

export function volumeJson(context: LocalContext, record: VolumeRecord): Record<string, unknown> {
  const { name, driver, labels, options, createdAtMs } = record;
  const or = (map_: Readonly<Record<string, string>>): object | null => (Object.keys(map_).length > 0 ? map_ : null);
  return {
    CreatedAt: isoTime(Math.floor(createdAtMs / 1000) * 1000),
    Driver: driver,
    Labels: or(labels),
    Mountpoint: context.local.volumes.mountpoint(name),
    Name: name,
    Options: or(options),
    Scope: "local",
  };
}

export function volumeRoutes(context: LocalContext): LocalRoute[] {
  const { volumes } = context.local;
  return [
    {
      method: "GET",
      path: "/volumes",
      handle: async (call) => {
        const filters = call.query.filters(filterKeys);
        const dangling = filters.flag("dangling");
        const chosen = volumes
          .list()
          .filter(
            ({ name, driver, labels }) =>
              filters.some("name", (value) => name.includes(value)) &&
              filters.some("driver", (value) => driver === value) &&
              filters.labels(labels) &&
              (dangling === undefined || dangling === (volumes.usedBy(name).length === 0)),
          );
        return json({ Volumes: chosen.map((record) => volumeJson(context, record)), Warnings: null });
      },
    },
    {
      method: "POST",
      path: "/volumes/create",
      handle: async (call) => {
        const body = await call.json();
        const shape = { Name: "string", Driver: "string", Labels: map("string"), DriverOpts: map("string") } as const;
        checkShape(body, fields(shape), "CreateOptions");
        if (body["ClusterVolumeSpec"] != null) {
          throw new NotOffered("A cluster volume");
        }
        const { Name, Driver, Labels, DriverOpts } = body as {
          Name?: string | null;
          Driver?: string | null;
          Labels?: Record<string, string> | null;
          DriverOpts?: Record<string, string> | null;
        };
        const record = await volumes.create({
          name: Name ?? "",
          driver: Driver ?? "",
          labels: { ...Labels },
          options: { ...DriverOpts },
        });
        return json(volumeJson(context, record), 201);
      },
    },
    {
      method: "POST",
      path: "/volumes/prune",
      handle: async (call) => {
        const filters = call.query.filters(["all", "label", "label!"]);
        // Before 1.42 all unused volumes went.
        const all = call.minor < 42 || filters.flag("all") === true;
        const { names, bytes } = await volumes.prune(
          ({ labels }) => (all || anonymousLabel in labels) && filters.labels(labels),
        );
        return json({ VolumesDeleted: names.length === 0 ? null : names, SpaceReclaimed: bytes });
      },
    },
    {
      method: "GET",
      path: "/volumes/:name",
      handle: async (call) => json(volumeJson(context, volumes.inspect(call.params["name"] ?? ""))),
    },
    {
      method: "PUT",
      path: "/volumes/:name",
      handle: async () => {
        throw new NotOffered("A cluster volume");
      },
    },
    {
      method: "DELETE",
      path: "/volumes/:name",
      handle: async (call) => {
        await volumes.delete(call.params["name"] ?? "", { force: call.query.flag("force") });
        return empty();
      },
    },
  ];
}
